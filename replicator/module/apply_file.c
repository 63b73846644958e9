/* SPDX-License-Identifier: BSD-2-Clause
 * Transfers: new content of one regular file, from BEGIN to COMMIT. Until COMMIT nothing of it can be seen.
 *
 *   spooled      up to APPLY_MEM_TRANSFER bytes stay in memory as pieces; beyond that
 *                  WB_NEW    the pieces are written at their places into tmp/NAME, and so is what follows
 *                  WB_PATCH  the bytes are appended to redo/N.data, the pieces tell where they belong
 *   committed    WB_NEW    the file gets its size and attributes and is renamed over the path
 *                WB_PATCH  of a file with one name that is small or can be cloned: a copy is patched in tmp/
 * and renamed otherwise, or where the path has several names that must stay one file: redo log (redo.h)
 *   failed       FAIL was sent; DATA, HOLE and COPY are ignored up to COMMIT or ABORT
 *
 * A step that fails for want of space is called again with the same operation: each leaves the transfer so
 * that this works. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/path.h"
#include "proto/xattrs.h"
#include "replicator/module/apply.h"
#include "replicator/module/node.h"

#define COPY_CHUNK  (256u << 10)
#define XATTRS_NONE 2u /* bytes of an encoded set without attributes */

struct transfer *apply_transfer_find(struct apply *a, uint32_t xid)
{
	struct transfer *t;
	LIST_FOREACH (t, &a->transfers, link)
		if (t->xid == xid)
			return t;
	return NULL;
}

static void forget_memory(struct apply *a, struct transfer *t)
{
	a->memory -= t->mem.len;
	buf_release(&t->mem);
	buf_init(&t->mem, APPLY_MEM_TRANSFER + WOP_DATA_MAX);
}

static void forget_pieces(struct apply *a, struct transfer *t)
{
	a->pieces -= t->cap;
	free(t->v);
	t->v = NULL;
	t->n = t->cap = 0;
}

static void drop(struct apply *a, struct transfer *t)
{
	if (t->file >= 0)
		close(t->file);
	if (t->name[0])
		unlinkat(a->env.tmpfd, t->name, 0);
	if (t->number)
		redo_abort(&a->redo, t->number);
	if (t->old >= 0)
		close(t->old);
	forget_memory(a, t);
	forget_pieces(a, t);
	buf_release(&t->mem);
	LIST_REMOVE(t, link);
	a->ntransfers--;
	free(t->path);
	free(t);
}

static int begin(struct apply *a, const struct wop *op)
{
	if (apply_transfer_find(a, op->xid) || a->ntransfers >= APPLY_TRANSFERS_MAX)
		return E_PROTO;
	struct transfer *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->path = strdup(op->path);
	if (!t->path) {
		free(t);
		return -ENOMEM;
	}
	t->xid = op->xid;
	t->mode = (enum wbegin_mode)op->flags;
	t->seq = op->seq;
	t->file = t->old = -1;
	buf_init(&t->mem, APPLY_MEM_TRANSFER + WOP_DATA_MAX);
	LIST_INSERT_HEAD(&a->transfers, t, link);
	a->ntransfers++;
	return 0;
}

/* Remember a range; neighbours in file and spool become one. */
static int add_piece(struct apply *a, struct transfer *t, uint64_t off, uint64_t len, uint64_t at, bool hole)
{
	struct redo_piece *last = t->n ? &t->v[t->n - 1] : NULL;
	if (last && last->hole == hole && last->off + last->len == off &&
	    (hole || last->at + last->len == at) && len != EXTENT_INF - off) {
		last->len += len;
		return 0;
	}
	if (t->n == APPLY_PIECES_MAX)
		return WR_UNSUPPORTED;
	if (t->n == t->cap) {
		uint32_t cap = t->cap ? t->cap * 2 : 4;
		if (a->pieces - t->cap + cap > APPLY_PIECES_TOTAL)
			return WR_UNSUPPORTED;
		struct redo_piece *v = realloc(t->v, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		t->v = v;
		a->pieces += cap - t->cap;
		t->cap = cap;
	}
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): n is below cap, so that there is an array */
	t->v[t->n++] = (struct redo_piece){.off = off, .len = len, .at = at, .hole = hole};
	return 0;
}

static int open_tmp(struct apply *a, char *name, size_t size, uint32_t mode)
{
	snprintf(name, size, "%llx", (unsigned long long)++a->serial);
	int fd = openat(a->env.tmpfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode & 07777);
	if (fd < 0) {
		int err = -errno;
		name[0] = 0;
		return err;
	}
	return fd;
}

static int write_pieces(struct transfer *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		const struct redo_piece *p = &t->v[i];
		int err = p->hole ? redo_punch(t->file, p->off, p->len)
				  : fio_pwrite(t->file, t->mem.data + p->at, p->len, (off_t)p->off);
		if (err)
			return err;
	}
	return 0;
}

/* Move what is in memory into a file. */
static int spill_mode(struct apply *a, struct transfer *t, uint32_t mode)
{
	int err = 0;
	if (t->file < 0)
		t->file = t->mode == WB_NEW ? open_tmp(a, t->name, sizeof(t->name), mode)
					    : redo_create(&a->redo, &t->number);
	if (t->file < 0) {
		err = t->file;
		t->file = -1;
		return err;
	}
	if (t->mode == WB_NEW) {
		err = write_pieces(t);
		if (!err)
			forget_pieces(a, t);
	} else if (t->mem.len) {
		err = fio_pwrite(t->file, t->mem.data, t->mem.len, 0);
	}
	if (!err)
		forget_memory(a, t);
	return err;
}

static int spill(struct apply *a, struct transfer *t)
{
	return spill_mode(a, t, 0600);
}

/* Where new bytes go: memory as long as they fit, and their ranges. */
static int make_room(struct apply *a, struct transfer *t, uint64_t len)
{
	bool spilled = t->file >= 0 && t->mem.len == 0 && (t->mode == WB_PATCH || t->n == 0);
	bool crowded = t->mode == WB_NEW && t->n == t->cap && a->pieces + t->cap > APPLY_PIECES_TOTAL / 2;
	if (spilled || (t->mem.len + len <= APPLY_MEM_TRANSFER && a->memory + len <= APPLY_MEM_TOTAL && t->file < 0 && !crowded))
		return 0;
	return spill(a, t);
}

static int data(struct apply *a, struct transfer *t, const struct wop *op)
{
	int err = make_room(a, t, op->dlen);
	if (err || !op->dlen)
		return err;
	a->bytes += op->dlen;
	if (t->file >= 0 && t->mode == WB_NEW) {
		err = fio_pwrite(t->file, op->data, op->dlen, (off_t)op->off);
		if (!err)
			behind_written(a->env.behind, &t->behind, a->env.tmpfd, t->name, op->off, op->dlen);
		return err;
	}
	if (t->file >= 0) {
		err = fio_pwrite(t->file, op->data, op->dlen, (off_t)t->spooled);
	} else {
		buf_put(&t->mem, op->data, op->dlen);
		err = t->mem.err;
		t->mem.err = 0;
		if (!err)
			a->memory += op->dlen;
	}
	if (!err)
		err = add_piece(a, t, op->off, op->dlen,
				t->file >= 0 || t->mode == WB_PATCH ? t->spooled : t->mem.len - op->dlen,
				false);
	if (!err)
		t->spooled += op->dlen;
	return err;
}

static int hole(struct apply *a, struct transfer *t, const struct wop *op)
{
	int err = t->mode == WB_NEW ? make_room(a, t, 0) : 0;
	if (err)
		return err;
	if (t->mode == WB_NEW && t->file >= 0 && t->n == 0)
		return redo_punch(t->file, op->off, op->len);
	return add_piece(a, t, op->off, op->len, 0, true);
}

/* Compare the local range with the sender's hash. */
static int check_range(struct apply *a, int fd, const struct wop *op)
{
	XXH128_canonical_t c;
	XXH3_state_t *state = XXH3_createState();
	uint8_t *chunk = malloc(COPY_CHUNK);
	int err = state && chunk ? 0 : -ENOMEM;
	if (!err)
		XXH3_128bits_reset(state);
	for (uint64_t done = 0; !err && done < op->len;) {
		size_t n = op->len - done < COPY_CHUNK ? (size_t)(op->len - done) : COPY_CHUNK;
		err = fio_pread(fd, chunk, n, (off_t)(op->src + done));
		if (!err)
			XXH3_128bits_update(state, chunk, n);
		done += n;
		if (!err && done % (4u << 20) == 0)
			err = a->env.tick(a->env.arg);
	}
	if (!err) {
		XXH128_canonicalFromHash(&c, XXH3_128bits_digest(state));
		err = memcmp(c.digest, op->hash, 16) == 0 ? 0 : WR_MISMATCH;
	}
	free(chunk);
	XXH3_freeState(state);
	return err == -ENODATA ? WR_MISMATCH : err;
}

static int open_path(struct apply *a, const char *path, int flags, struct stat *st)
{
	struct dir *dir;
	const char *base;
	int err = dirs_parent(&a->dirs, path, &dir, &base);
	return err ? err : node_open_file(dir->fd, base, flags, st);
}

static int copy_range(struct apply *a, struct transfer *t, const struct wop *op, int src)
{
	int err = check_range(a, src, op);
	if (err)
		return err;
	if (t->file < 0 || t->mem.len || (t->mode == WB_NEW && t->n))
		err = spill(a, t);
	uint64_t to = t->mode == WB_NEW ? op->off : t->spooled;
	if (!err)
		err = redo_copy(src, op->src, t->file, to, op->len, &a->wait);
	if (!err && t->mode == WB_PATCH) {
		err = add_piece(a, t, op->off, op->len, to, false);
		t->spooled += op->len;
	}
	return err == -ENODATA ? WR_MISMATCH : err;
}

static int copy(struct apply *a, struct transfer *t, const struct wop *op)
{
	struct stat st;
	int fd = t->old;
	if (*op->path || fd < 0)
		fd = open_path(a, *op->path ? op->path : t->path, O_RDONLY, &st);
	if (fd < 0)
		return fd == -ENOENT ? WR_MISMATCH : fd;
	if (!*op->path)
		t->old = fd;
	int err = copy_range(a, t, op, fd);
	if (*op->path)
		close(fd);
	return err;
}

/* Set the extended attributes of a file being built. Those that it cannot have, now or later, do not keep its bytes from their place:
 * *lacks tells why. */
static int set_xattrs(int fd, const void *set, size_t len, int *lacks)
{
	int err = node_xattr_error(fd, xattrs_apply(set, len, fd, -1, NULL));
	if (!err || err < E_FIRST || node_curable(err))
		return err;
	*lacks = err;
	return 0;
}

/* Give a file being built its size and attributes; st is what it has. The entry that it replaces, if there is one, gives it the
 * attributes that are left alone. *lacks: as above, else unchanged. */
static int finish(struct apply *a, int fd, const struct stat *st, const struct wop *op, const struct dir *dir,
		  const char *base, bool replaces, int *lacks)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT},
				 {.tv_sec = op->attr.mtime.sec, .tv_nsec = op->attr.mtime.nsec}};
	if ((uint64_t)st->st_size != op->size && ftruncate(fd, (off_t)op->size))
		return -errno;
	/* owner before attributes: chown removes security.capability */
	bool owner = !a->env.no_owner && (st->st_uid != op->attr.uid || st->st_gid != op->attr.gid);
	if (owner && fchown(fd, op->attr.uid, op->attr.gid))
		return -errno;
	int err = 0;
	bool chmod_due = owner || ((st->st_mode ^ op->attr.mode) & 07777);
	if (op->has_xattrs && op->dlen > XATTRS_NONE) {
		err = set_xattrs(fd, op->data, op->dlen, lacks);
		chmod_due = true; /* an ACL has changed the group's bits */
	} else if (!op->has_xattrs && replaces) {
		struct buf set;
		buf_init(&set, XATTR_SET_MAX);
		err = node_xattrs_read(dir->fd, base, &set);
		if (!err && set.len > XATTRS_NONE) {
			err = set_xattrs(fd, set.data, set.len, lacks);
			chmod_due = true;
		}
		buf_release(&set);
	}
	if (!err && chmod_due && fchmod(fd, op->attr.mode & 07777))
		err = -errno;
	if (!err && futimens(fd, ts))
		err = -errno;
	return err;
}

static void fill_log(struct redo_log *log, struct apply *a, const struct wop *op, const struct stat *st)
{
	*log = (struct redo_log){
	    .dev = st->st_dev,
	    .ino = st->st_ino,
	    .path = (char *)(uintptr_t)op->path,
	    .size = op->size,
	    .attr = op->attr,
	    .has_xattrs = op->has_xattrs,
	    .xattrs = op->data,
	    .xlen = op->dlen,
	    .no_owner = a->env.no_owner,
	};
}

/* Say whether the file system can share the bytes of file with another file. */
static bool can_clone(struct apply *a, int file)
{
	char name[32];
	int fd = a->no_clone ? -1 : open_tmp(a, name, sizeof(name), 0600);
	if (fd < 0)
		return false;
	a->no_clone = ioctl(fd, FICLONE, file) != 0;
	unlinkat(a->env.tmpfd, name, 0);
	close(fd);
	return !a->no_clone;
}

/* Change the file at op->path in place by the pieces in t->v, whose bytes are in t->file. Where they are shared with it, not copied, they
 * need no more space. */
static int in_place(struct apply *a, struct transfer *t, const struct wop *op)
{
	struct stat st;
	struct redo_log log;
	int target = open_path(a, op->path, O_RDWR, &st);
	if (target < 0)
		return target;
	fill_log(&log, a, op, &st);
	log.number = t->number;
	log.v = t->v;
	log.n = t->n;
	int err = t->committed || can_clone(a, t->file) ? 0 : redo_reserve(&log, target);
	if (!err && !t->committed)
		err = redo_commit(&a->redo, &log, t->file, &a->wait);
	if (!err) {
		t->committed = true;
		err = redo_apply(&log, t->file, target, &a->wait);
	}
	close(target);
	if (!err) {
		redo_done(&a->redo, t->number);
		t->number = 0;
	}
	return err;
}

/* A new version that must go into an inode with several names: its ranges become a patch of the whole file.
 */
static int new_to_patch(struct apply *a, struct transfer *t, uint64_t size)
{
	uint64_t number;
	int fd = redo_create(&a->redo, &number);
	int err = fd < 0 ? fd : 0;
	uint64_t at = 0, off = 0;
	t->n = 0;
	while (!err && off < size) {
		off_t start = lseek(t->file, (off_t)off, SEEK_DATA);
		uint64_t from = start < 0 || (uint64_t)start > size ? size : (uint64_t)start;
		off_t stop = from < size ? lseek(t->file, (off_t)from, SEEK_HOLE) : (off_t)size;
		uint64_t to = stop < 0 || (uint64_t)stop > size ? size : (uint64_t)stop;
		if (from > off)
			err = add_piece(a, t, off, from - off, 0, true);
		if (!err && to > from)
			err = redo_copy(t->file, from, fd, at, to - from, &a->wait);
		if (!err && to > from)
			err = add_piece(a, t, from, to - from, at, false);
		at += to - from;
		off = to;
	}
	if (err) {
		if (fd >= 0) {
			close(fd);
			redo_abort(&a->redo, number);
		}
		t->n = 0;
		return err;
	}
	close(t->file);
	unlinkat(a->env.tmpfd, t->name, 0);
	t->name[0] = 0;
	t->file = fd;
	t->number = number;
	t->mode = WB_PATCH;
	return 0;
}

/* Say whether a file made with this mode and filled from the pieces has what made tells. */
static bool known(const struct apply *a, const struct transfer *t, mode_t mode, struct stat *made)
{
	*made = (struct stat){.st_mode = S_IFREG | mode, .st_uid = a->made.uid, .st_gid = a->made.gid};
	for (uint32_t i = 0; i < t->n; i++) {
		if (t->v[i].hole)
			return false;
		if (t->v[i].off + t->v[i].len > (uint64_t)made->st_size)
			made->st_size = (off_t)(t->v[i].off + t->v[i].len);
	}
	return a->made.mode == mode;
}

/* Look at a file that was made with this mode. */
static int look(struct apply *a, const struct transfer *t, mode_t mode, struct stat *made)
{
	if (fstat(t->file, made))
		return -errno;
	a->made.mode = (made->st_mode & 07777) == mode ? mode : 0;
	a->made.uid = made->st_uid;
	a->made.gid = made->st_gid;
	return 0;
}

/* Write the file that is in memory. made tells what it has then; not asked for where it is known. */
static int build(struct apply *a, struct transfer *t, const struct wop *op, struct stat *made)
{
	mode_t mode = (op->attr.mode & 07777) | 0600; /* made with its final mode, it needs no chmod */
	bool same = t->file < 0 && known(a, t, mode, made);
	int err = t->file < 0 || t->n ? spill_mode(a, t, mode) : 0;
	return err || same ? err : look(a, t, mode, made);
}

/* Give a finished file its name. */
static int put(struct apply *a, struct transfer *t, const struct dir *dir, const char *base, unsigned flags)
{
	if (renameat2(a->env.tmpfd, t->name, dir->fd, base, flags))
		return errno == EISDIR || errno == ENOTEMPTY ? WR_TYPE : -errno;
	t->name[0] = 0;
	return 0;
}

/* The file has its name. If it lacks attributes the operation fails all the same, but the CREATE before it is done. */
static int there(struct apply *a, int lacks)
{
	if (lacks && a->only_free)
		a->only_free = a->pending.set = false;
	return lacks;
}

/* The new version takes the place of what stands under its name, if something does. */
static int replace(struct apply *a, struct transfer *t, const struct wop *op, const struct stat *made,
		   struct dir *dir, const char *base)
{
	struct stat old;
	int lacks = 0, err = node_stat(dir->fd, base, &old);
	if (err && err != -ENOENT)
		return err;
	if (!err && a->only_free)
		return -EEXIST;
	if (!err && S_ISDIR(old.st_mode))
		return WR_TYPE;
	bool file = !err && S_ISREG(old.st_mode);
	a->names_taken = !err;
	if (file && old.st_nlink > 1) {
		if (ftruncate(t->file, (off_t)op->size))
			return -errno;
		err = new_to_patch(a, t, op->size);
		return err ? err : in_place(a, t, op);
	}
	err = finish(a, t->file, made, op, dir, base, file, &lacks);
	if (err)
		return err;
	dirs_keep(&a->dirs, dir, a->commit_pm);
	err = put(a, t, dir, base, 0);
	return err ? err : there(a, lacks);
}

/* A new file of a directory that is filled aside gets its name at once. What is half made goes again: its bytes are still in memory. */
static int commit_aside(struct apply *a, struct transfer *t, const struct wop *op, const struct dir *dir, const char *base)
{
	struct stat made;
	mode_t mode = (op->attr.mode & 07777) | 0600;
	t->file = openat(dir->fd, base, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (t->file < 0)
		return -errno;
	int lacks = 0, err = write_pieces(t);
	if (!err && !known(a, t, mode, &made))
		err = look(a, t, mode, &made);
	if (!err)
		err = finish(a, t->file, &made, op, dir, base, false, &lacks);
	if (err) {
		close(t->file);
		t->file = -1;
		unlinkat(dir->fd, base, 0);
	}
	return err ? err : there(a, lacks);
}

/* New names come together, and so do names that are taken: where the last one was free nobody looks, the rename tells. */
static int commit_new(struct apply *a, struct transfer *t, const struct wop *op)
{
	struct dir *dir;
	const char *base;
	struct stat made;
	int lacks = 0;
	if (op->seq == 0)
		newdir_begin(a, op->path);
	int err = newdir_parent(a, op->path, &dir, &base);
	if (!err && dir == &a->newdir.twin && t->file < 0) {
		err = commit_aside(a, t, op, dir, base);
		if (err != -EEXIST)
			return err;
		newdir_place(a);
	}
	err = build(a, t, op, &made);
	if (!err)
		err = newdir_parent(a, op->path, &dir, &base);
	if (err || a->no_noreplace || a->names_taken)
		return err ? err : replace(a, t, op, &made, dir, base);
	err = finish(a, t->file, &made, op, dir, base, false, &lacks);
	if (err)
		return err;
	dirs_keep(&a->dirs, dir, a->commit_pm);
	err = put(a, t, dir, base, RENAME_NOREPLACE);
	a->no_noreplace = err == -EINVAL;
	if (err == -EEXIST || err == -EINVAL)
		return replace(a, t, op, &made, dir, base);
	return err ? err : there(a, lacks);
}

/* Copy the data of old, holes left out. */
static int copy_whole(struct apply *a, int old, int fd, uint64_t size)
{
	for (uint64_t off = 0; off < size;) {
		off_t start = lseek(old, (off_t)off, SEEK_DATA);
		if (start < 0)
			return errno == ENXIO ? 0 : -errno;
		off_t stop = lseek(old, start, SEEK_HOLE);
		if (stop < 0)
			return -errno;
		int err = redo_copy(old, (uint64_t)start, fd, (uint64_t)start, (uint64_t)(stop - start), &a->wait);
		if (err)
			return err == -ENODATA ? 0 : err;
		off = (uint64_t)stop;
	}
	return 0;
}

static int clone_old(struct apply *a, int old, int fd, uint64_t size, bool copy)
{
	if (!a->no_clone && size) {
		if (ioctl(fd, FICLONE, old) == 0)
			return 0;
		if (errno == ENOSPC || errno == EDQUOT || errno == EIO)
			return -errno;
		a->no_clone = true;
	}
	return copy || size <= APPLY_CLONE_SMALL ? copy_whole(a, old, fd, size) : -EOPNOTSUPP;
}

/* Apply the pieces of a patch to fd. */
static int patch_pieces(struct apply *a, struct transfer *t, int fd)
{
	int err = 0;
	for (uint32_t i = 0; !err && i < t->n; i++) {
		const struct redo_piece *p = &t->v[i];
		if (p->hole)
			err = redo_punch(fd, p->off, p->len);
		else if (t->file < 0)
			err = fio_pwrite(fd, t->mem.data + p->at, p->len, (off_t)p->off);
		else
			err = redo_copy(t->file, p->at, fd, p->off, p->len, &a->wait);
	}
	return err;
}

/* Build the patched version beside the old one and rename it. -EOPNOTSUPP: the file is large and cannot be
 * cloned, and is not to be copied. */
static int patch_aside(struct apply *a, struct transfer *t, const struct wop *op, struct dir *dir,
		       const char *base, int old, uint64_t size, bool copy)
{
	char name[32];
	if (a->no_clone && size > APPLY_CLONE_SMALL && !copy)
		return -EOPNOTSUPP;
	int fd = open_tmp(a, name, sizeof(name), 0600);
	if (fd < 0)
		return fd;
	struct stat st;
	int lacks = 0, err = clone_old(a, old, fd, size, copy);
	if (!err)
		err = patch_pieces(a, t, fd);
	if (!err && fstat(fd, &st))
		err = -errno;
	if (!err)
		err = finish(a, fd, &st, op, dir, base, true, &lacks);
	close(fd);
	dirs_keep(&a->dirs, dir, (struct jtime){0});
	if (!err && renameat(a->env.tmpfd, name, dir->fd, base))
		err = -errno;
	if (err)
		unlinkat(a->env.tmpfd, name, 0);
	return err ? err : lacks;
}

static int commit_patch(struct apply *a, struct transfer *t, const struct wop *op)
{
	struct dir *dir;
	const char *base;
	struct stat st;
	if (t->committed)
		return in_place(a, t, op);
	int err = dirs_parent(&a->dirs, op->path, &dir, &base);
	if (err)
		return err;
	int old = node_open_file(dir->fd, base, O_RDONLY, &st);
	if (old < 0 && old != -EACCES)
		return old;
	bool alone = old >= 0 && st.st_nlink == 1;
	uint64_t size = (uint64_t)st.st_size;
	err = alone ? patch_aside(a, t, op, dir, base, old, size, false) : -EOPNOTSUPP;
	if (err == -EOPNOTSUPP) {
		err = t->file < 0 ? spill(a, t) : 0;
		err = err ? err : in_place(a, t, op);
		if (err == -ETXTBSY && alone) /* a program that runs: it keeps its version */
			err = patch_aside(a, t, op, dir, base, old, size, true);
	}
	if (old >= 0)
		close(old);
	return err;
}

static int commit(struct apply *a, struct transfer *t, const struct wop *op)
{
	if ((op->attr.mode & S_IFMT) && !S_ISREG(op->attr.mode))
		return E_PROTO;
	int err = t->mode == WB_NEW ? commit_new(a, t, op) : commit_patch(a, t, op);
	if (!err) {
		a->files++;
		drop(a, t);
	}
	return err;
}

int apply_transfer(struct apply *a, const struct wop *op)
{
	if (op->type == WOP_BEGIN)
		return begin(a, op);
	struct transfer *t = apply_transfer_find(a, op->xid);
	if (!t)
		return op->type == WOP_COMMIT ? WR_PROTOCOL : 0;
	if (op->type == WOP_ABORT || (op->type == WOP_COMMIT && t->failed)) {
		drop(a, t);
		return 0;
	}
	if (t->failed)
		return 0;
	switch (op->type) {
	case WOP_DATA:
		return data(a, t, op);
	case WOP_HOLE:
		return hole(a, t, op);
	case WOP_COPY:
		return copy(a, t, op);
	default:
		return commit(a, t, op);
	}
}

bool apply_owes(const struct apply *a)
{
	const struct transfer *t;
	LIST_FOREACH (t, &a->transfers, link)
		if (t->committed)
			return true;
	return false;
}

void apply_release(struct apply *a)
{
	struct transfer *t;
	newdir_place(a);
	while ((t = LIST_FIRST(&a->transfers)))
		drop(a, t); /* NOLINT(clang-analyzer-unix.Malloc): takes it off the list */
	dirs_release(&a->dirs);
	redo_release(&a->redo);
}
