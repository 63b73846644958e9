/* SPDX-License-Identifier: BSD-2-Clause
 * Applying records (docs/ARCHITECTURE.md, Rule 3). Every operation is reached through its parent's descriptor
 * and acts on the last component without following it; every operation may be applied again and then changes
 * nothing:
 *
 *   create mkdir mknod symlink   an entry of the same kind that exists keeps its content and gets the attributes; a file with content is
 *                                reported (WR_EXISTS), since it may be another one
 *   link                         the same inode under the new name is success
 *   unlink rmdir                 a missing entry is success
 *   rename                       is not repeatable: the position page remembers that one was applied (position_unsettle), so that the sender
 *                                compares instead of replaying if the child is killed before the next position
 *
 * A CREATE is put off: almost always the COMMIT of the same file follows in the same batch, and building the
 * file once instead of replacing an empty one halves the work (and spares ext4 the flush of a replaced file
 * and the search past freed inodes). Any operation that could tell the difference, the end of the batch, and
 * a COMMIT that finds the name taken, does it first.
 *
 * Results of one operation, in the functions below: 0; -errno; a positive WR_* code that says more than an
 * errno; or an error below E_FIRST, which ends the connection. */
#include "config.h"
#include "replicator/module/apply.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/path.h"
#include "proto/xattrs.h"
#include "replicator/module/node.h"

/* RENAME_* of linux/fs.h, which clashes with libc headers */
#define RENAME_FLAG_EXCHANGE 2u
#define RENAME_FLAG_WHITEOUT 4u

struct place { /* where an operation acts */
	struct dir *dir;
	const char *base;
};

static int find(struct apply *a, const char *path, struct place *p)
{
	return newdir_parent(a, path, &p->dir, &p->base);
}

static bool excluded(struct apply *a, const char *path, bool is_dir)
{
	return a->env.filter && a->env.filter->n && filter_excluded(a->env.filter, path, is_dir);
}

static int set_attr(struct apply *a, const struct place *p, const struct jrec *r, uint32_t type)
{
	struct wattr want = {
	    .mode = type | (r->mode & 07777), .uid = r->uid, .gid = r->gid, .mtime = r->mtime};
	return node_set_attr(p->dir->fd, p->base, &want, a->env.no_owner, a->env.tmpfd);
}

/* The name is taken: the same kind of entry is fine, anything else is not. */
static int same_kind(const struct place *p, const struct jrec *r, uint32_t type)
{
	struct stat st;
	int err = node_stat(p->dir->fd, p->base, &st);
	if (err)
		return err;
	if ((st.st_mode & S_IFMT) != type)
		return WR_TYPE;
	if ((type == S_IFCHR || type == S_IFBLK) && st.st_rdev != r->rdev)
		return WR_EXISTS;
	if (type == S_IFLNK) {
		char *have = malloc(PATH_MAX + 1);
		ssize_t n = have ? readlinkat(p->dir->fd, p->base, have, PATH_MAX) : -1;
		bool same =
		    n >= 0 && (size_t)n == strlen(r->target) && memcmp(have, r->target, (size_t)n) == 0;
		free(have);
		return same ? 0 : WR_EXISTS;
	}
	return 0;
}

static int make_entry(const struct place *p, const struct jrec *r, uint32_t type)
{
	int fd = p->dir->fd;
	mode_t mode = r->mode & 07777;
	switch (type) {
	case S_IFREG:
		fd = openat(fd, p->base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
		if (fd < 0)
			return -errno;
		close(fd);
		return 0;
	case S_IFDIR:
		return mkdirat(fd, p->base, mode) ? -errno : 0;
	case S_IFLNK:
		return symlinkat(r->target, fd, p->base) ? -errno : 0;
	default:
		return mknodat(fd, p->base, type | mode, (dev_t)r->rdev) ? -errno : 0;
	}
}

/* A new file is empty. What is there may be the same one when the record is applied again, or one that should be gone: its bytes must be
 * compared, since what follows are the ranges that were written. */
static int has_content(const struct place *p)
{
	struct stat st;
	int err = node_stat(p->dir->fd, p->base, &st);
	return err ? err : st.st_size ? WR_EXISTS : 0;
}

static int do_make(struct apply *a, const struct jrec *r, uint32_t type)
{
	struct place p;
	int err = find(a, r->path, &p);
	if (err)
		return err;
	dirs_keep(&a->dirs, p.dir, r->pm);
	err = make_entry(&p, r, type);
	bool there = err == -EEXIST;
	if (there)
		err = same_kind(&p, r, type);
	int other = there && !err && type == S_IFREG ? has_content(&p) : 0;
	if (!err)
		err = set_attr(a, &p, r, type);
	if (!err && type == S_IFDIR)
		dirs_set(&a->dirs, r->path, r->mtime);
	if (!err && type == S_IFDIR && !there && !r->seq)
		newdir_made(&a->newdir, r->path);
	return err ? err : other;
}

static int do_mknod(struct apply *a, const struct jrec *r)
{
	uint32_t type = r->mode & S_IFMT;
	if (type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
		return E_PROTO;
	return do_make(a, r, type);
}

static int do_link(struct apply *a, const struct jrec *r)
{
	struct place from, to;
	struct stat st, st2;
	int err = find(a, r->path, &from);
	if (!err)
		err = find(a, r->path2, &to);
	if (!err)
		err = node_stat(from.dir->fd, from.base, &st);
	if (err)
		return err;
	if (S_ISDIR(st.st_mode))
		return WR_TYPE;
	if (r->seq && (err = position_unsettle(a->env.page, r->seq)))
		return err;
	dirs_keep(&a->dirs, to.dir, r->pm2);
	if (linkat(from.dir->fd, from.base, to.dir->fd, to.base, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	err = node_stat(to.dir->fd, to.base, &st2);
	if (err)
		return err;
	return st.st_dev == st2.st_dev && st.st_ino == st2.st_ino ? 0 : WR_EXISTS;
}

static int do_unlink(struct apply *a, const struct jrec *r)
{
	struct place p;
	struct stat st;
	int err = find(a, r->path, &p);
	if (err)
		return err == -ENOENT ? 0 : err;
	dirs_keep(&a->dirs, p.dir, r->pm);
	if (unlinkat(p.dir->fd, p.base, 0) == 0 || errno == ENOENT)
		return 0;
	err = -errno;
	return node_stat(p.dir->fd, p.base, &st) == 0 && S_ISDIR(st.st_mode) ? WR_TYPE : err;
}

static int do_rmdir(struct apply *a, const struct jrec *r)
{
	struct place p;
	int err = find(a, r->path, &p);
	if (err)
		return err == -ENOENT ? 0 : err;
	dirs_keep(&a->dirs, p.dir, r->pm);
	if (unlinkat(p.dir->fd, p.base, AT_REMOVEDIR) && errno != ENOENT)
		return -errno;
	dirs_drop(&a->dirs, r->path);
	newdir_forget(&a->newdir);
	return 0;
}

/* rename(2) does nothing where both names are one file. At the source they were two, and the old name is gone. */
static int drop_left(const struct place *from, const struct stat *moved)
{
	struct stat st;
	if (node_stat(from->dir->fd, from->base, &st) || st.st_dev != moved->st_dev || st.st_ino != moved->st_ino)
		return 0;
	return unlinkat(from->dir->fd, from->base, 0) ? -errno : 0;
}

/* XFS gives a directory a new mtime when it is exchanged across directories; at the source a record says so where that happened. */
static int keep_mtime(const struct place *p, const struct stat *before)
{
	struct stat st;
	if (!S_ISDIR(before->st_mode) || node_stat(p->dir->fd, p->base, &st) || st.st_ino != before->st_ino)
		return 0;
	if (st.st_mtim.tv_sec == before->st_mtim.tv_sec && st.st_mtim.tv_nsec == before->st_mtim.tv_nsec)
		return 0;
	return node_mtime(p->dir->fd, p->base,
			  (struct jtime){before->st_mtim.tv_sec, (uint32_t)before->st_mtim.tv_nsec});
}

static int exchanged(const struct place *from, const struct place *to, const struct stat *moved, const struct stat *other)
{
	int err = keep_mtime(to, moved);
	return err ? err : keep_mtime(from, other);
}

static int do_rename(struct apply *a, const struct jrec *r)
{
	struct place from, to;
	struct stat st, other;
	unsigned flags = r->rflags & (RENAME_FLAG_EXCHANGE | RENAME_FLAG_WHITEOUT);
	bool exchange = flags & RENAME_FLAG_EXCHANGE;
	/* descriptors of what moves must not be found under the old path again */
	if ((r->flags & JF_DIR) || exchange) {
		dirs_flush(&a->dirs);
		newdir_forget(&a->newdir);
	}
	int err = find(a, r->path, &from);
	if (!err)
		err = find(a, r->path2, &to);
	if (!err)
		err = node_stat(from.dir->fd, from.base, &st);
	if (!err && exchange)
		err = node_stat(to.dir->fd, to.base, &other);
	if (err)
		return err;
	if (S_ISDIR(st.st_mode) && !(r->flags & JF_DIR) && !exchange)
		return WR_TYPE;
	if (r->seq && (err = position_unsettle(a->env.page, r->seq)))
		return err;
	dirs_keep(&a->dirs, from.dir, r->pm);
	dirs_keep(&a->dirs, to.dir, r->pm2);
	if (renameat2(from.dir->fd, from.base, to.dir->fd, to.base, flags))
		return errno == EEXIST ? WR_TYPE : -errno;
	if (exchange)
		return exchanged(&from, &to, &st, &other);
	return st.st_nlink < 2 ? 0 : drop_left(&from, &st);
}

static int do_setattr(struct apply *a, const struct jrec *r)
{
	struct place p;
	struct stat st;
	if (r->valid == JV_MTIME && dirs_set(&a->dirs, r->path, r->mtime))
		return 0;
	int err = find(a, r->path, &p);
	if (!err)
		err = node_stat(p.dir->fd, p.base, &st);
	if (err)
		return err;
	if (!a->env.no_owner && (r->valid & (JV_UID | JV_GID))) {
		err = node_chown(p.dir->fd, p.base, r->valid & JV_UID ? r->uid : (uid_t)-1,
				 r->valid & JV_GID ? r->gid : (gid_t)-1);
		/* chown cleared set-id bits that the source may still have */
		if (!err && !(r->valid & JV_MODE) && (st.st_mode & 06000) && !S_ISLNK(st.st_mode))
			err = node_chmod(p.dir->fd, p.base, r->mode ? r->mode : st.st_mode, a->env.tmpfd);
	}
	if (!err && (r->valid & JV_MODE))
		err = node_chmod(p.dir->fd, p.base, r->mode, a->env.tmpfd);
	if (!err && (r->valid & JV_MTIME)) {
		err = node_mtime(p.dir->fd, p.base, r->mtime);
		if (S_ISDIR(st.st_mode))
			dirs_set(&a->dirs, r->path, r->mtime);
	}
	return err;
}

static int do_xattr(struct apply *a, const struct jrec *r)
{
	struct place p;
	int err = find(a, r->path, &p);
	if (err)
		return err;
	if (r->type == JT_SETXATTR)
		return node_xattr_error(a->env.rootfd, node_setxattr(p.dir->fd, p.base, r->xname, r->xval, r->xlen));
	err = node_removexattr(p.dir->fd, p.base, r->xname);
	return err == -ENODATA ? 0 : err;
}

static int do_xattrs(struct apply *a, const struct wop *op)
{
	struct place p;
	int err = find(a, op->path, &p);
	return err ? err : node_xattr_error(a->env.rootfd, node_xattrs_apply(p.dir->fd, p.base, op->data, op->dlen));
}

static int do_rmtree(struct apply *a, const char *path)
{
	struct place p;
	struct jtime now = {0};
	dirs_drop(&a->dirs, path);
	newdir_forget(&a->newdir);
	int err = find(a, path, &p);
	if (err)
		return err == -ENOENT ? 0 : err;
	dirs_keep(&a->dirs, p.dir, now);
	return apply_rmtree(a, path);
}

static bool is_out(const struct position *p, uint64_t seq)
{
	if (p->nout > 1 && p->out[p->nout - 1] == WPOS_OUT_ALL && seq >= p->out[0])
		return true;
	for (uint32_t i = 0; i < p->nout; i++)
		if (p->out[i] == seq)
			return true;
	return false;
}

/* A FAIL may be on its way when the connection ends: what failed stays outstanding until the sender itself
 * says so. */
static void keep_failed(struct apply *a, struct position *p)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < a->nfailed; i++) {
		if (a->failed[i] > p->pos.seq) {
			a->failed[kept++] = a->failed[i];
		} else if (is_out(p, a->failed[i])) {
			continue; /* the sender knows */
		} else if (p->nout < WPOS_OUT_MAX) {
			p->out[p->nout++] = a->failed[i];
			a->failed[kept++] = a->failed[i];
		} else {
			p->flags |= POSITION_RESYNC;
			a->failed[kept++] = a->failed[i];
		}
	}
	if (a->failed_more)
		p->flags |= POSITION_RESYNC;
	a->nfailed = kept;
	a->failed_more = a->failed_more && kept != 0;
}

static void note_failed(struct apply *a, uint64_t seq)
{
	if (!seq)
		return;
	if (a->nfailed < APPLY_FAILED_MAX)
		a->failed[a->nfailed++] = seq;
	else
		a->failed_more = true;
}

static int do_pos(struct apply *a, const struct wop *op)
{
	struct position *p = &a->env.page->now;
	memcpy(p->pos.journal_id, op->journal_id, 16);
	p->pos.epoch = op->epoch;
	p->pos.seq = op->seq;
	p->pos.digest = op->digest;
	p->unsettled = 0;
	if (op->flags & 1)
		p->flags |= POSITION_RESYNC;
	else
		p->flags &= ~(uint32_t)(POSITION_RESYNC | POSITION_ADOPTED);
	p->nout = op->nout;
	for (uint32_t i = 0; i < op->nout; i++) {
		uint64_t v = 0;
		for (int k = 7; k >= 0; k--)
			v = v << 8 | op->out[i * 8 + (uint32_t)k];
		p->out[i] = v;
	}
	keep_failed(a, p);
	dirs_restore(&a->dirs); /* who is killed behind the position is not asked for them again */
	return position_store(a->env.page);
}

static int run_record(struct apply *a, const struct jrec *r)
{
	bool two = r->type == JT_LINK || r->type == JT_RENAME;
	bool root = !*r->path || (two && !*r->path2);
	bool is_dir = r->type == JT_MKDIR || r->type == JT_RMDIR || (r->flags & JF_DIR);
	if (root && r->type != JT_SETATTR && r->type != JT_SETXATTR && r->type != JT_REMOVEXATTR)
		return E_PROTO;
	if (excluded(a, r->path, is_dir) || (two && excluded(a, r->path2, is_dir)))
		return WR_NAME;
	switch (r->type) {
	case JT_CREATE:
		return do_make(a, r, S_IFREG);
	case JT_MKDIR:
		return do_make(a, r, S_IFDIR);
	case JT_SYMLINK:
		return do_make(a, r, S_IFLNK);
	case JT_MKNOD:
		return do_mknod(a, r);
	case JT_LINK:
		return do_link(a, r);
	case JT_UNLINK:
		return do_unlink(a, r);
	case JT_RMDIR:
		return do_rmdir(a, r);
	case JT_RENAME:
		return do_rename(a, r);
	case JT_SETATTR:
		return do_setattr(a, r);
	case JT_SETXATTR:
	case JT_REMOVEXATTR:
		return do_xattr(a, r);
	default:
		return E_PROTO; /* has no meaning for a standby */
	}
}

static int run(struct apply *a, const struct wop *op, const struct jrec *r)
{
	switch (op->type) {
	case WOP_REC:
		return run_record(a, r);
	case WOP_RMTREE:
		return excluded(a, op->path, true) ? WR_NAME : do_rmtree(a, op->path);
	case WOP_XATTRS:
		return excluded(a, op->path, false) ? WR_NAME : do_xattrs(a, op);
	case WOP_POS:
		return do_pos(a, op);
	case WOP_COMMIT:
		if (excluded(a, op->path, false))
			return WR_NAME;
		/* fall through */
	default:
		return apply_transfer(a, op);
	}
}

/* The path that op gives a mode, or NULL. An access ACL has the owner's bits, too; those of a set of attributes are what the entry has. */
static const char *gives_mode(const struct wop *op, const struct jrec *r)
{
	if (op->type == WOP_COMMIT)
		return op->path;
	if (op->type != WOP_REC)
		return NULL;
	switch (r->type) {
	case JT_CREATE:
	case JT_MKDIR:
	case JT_MKNOD:
		return r->path;
	case JT_SETATTR:
		return r->valid & JV_MODE ? r->path : NULL;
	case JT_SETXATTR:
		return strcmp(r->xname, "system.posix_acl_access") == 0 ? r->path : NULL;
	default:
		return NULL;
	}
}

/* Once more with the permissions that the owner of the module's files can give himself. */
static int run_reaching(struct apply *a, const struct wop *op, const struct jrec *r)
{
	struct transfer *t = op->xid ? apply_transfer_find(a, op->xid) : NULL;
	const char *paths[] = {op->type == WOP_REC ? r->path : op->path, op->type == WOP_REC ? r->path2 : t ? t->path : NULL};
	int err = -EACCES, changed = 0;
	for (size_t i = 0; i < 2; i++)
		if (paths[i] && reach_for(&a->reach, paths[i]) > 0)
			changed = 1;
	if (changed)
		err = run(a, op, r);
	const char *given = err ? NULL : gives_mode(op, r);
	if (given)
		reach_leave(&a->reach, given);
	reach_end(&a->reach);
	return err;
}

static uint32_t code_of(int err)
{
	if (err > 0)
		return (uint32_t)err;
	switch (-err) {
	case ENOENT:
		return WR_MISSING;
	case EEXIST:
		return WR_EXISTS;
	case ENOTDIR:
	case EISDIR:
	case ENOTEMPTY:
	case ELOOP:
	case ENXIO:
		return WR_TYPE;
	case EACCES:
	case EPERM:
		return WR_PERMISSION;
	case ENOSPC:
	case EDQUOT:
		return WR_NO_SPACE;
	case EROFS:
		return WR_READ_ONLY_FS;
	case EIO:
		return WR_IO;
	case ENAMETOOLONG:
	case EILSEQ:
	case EINVAL:
		return WR_NAME;
	case EOPNOTSUPP:
	case EXDEV:
	case ENOSYS:
		return WR_UNSUPPORTED;
	default:
		return WR_OTHER;
	}
}

static const char *op_name(const struct wop *op, const struct jrec *r)
{
	static const char *const names[] = {"",	       "record",  "begin", "write",	  "hole",
					    "copy",    "replace", "abort", "remove tree", "set attributes",
					    "position"};
	return op->type == WOP_REC ? jrec_type_name(r->type) : names[op->type];
}

static void describe(struct apply *a, char *text, size_t size, const struct wop *op, const struct jrec *r,
		     int err)
{
	char shown[512];
	const char *why = err > 0 ? wrefuse_text((uint32_t)err) : err_text(err);
	path_show(shown, sizeof(shown), op->type == WOP_REC ? r->path : op->path);
	if (err == WR_NAME)
		snprintf(
		    text, size,
		    "%s \"%s\": the module's configuration excludes this path; exclude it at the source too",
		    op_name(op, r), shown);
	else if (err == -EACCES || err == -EPERM)
		snprintf(text, size, "%s \"%s\": %s (tandemd works as %s here)", op_name(op, r), shown, why,
			 a->env.who);
	else
		snprintf(text, size, "%s \"%s\": %s", op_name(op, r), shown, why);
}

static void report(struct apply *a, const struct wop *op, const struct jrec *r, int err)
{
	char text[1024];
	struct transfer *t = op->xid ? apply_transfer_find(a, op->xid) : NULL;
	struct wfail f = {
	    .code = code_of(err), .sys_errno = err < 0 ? -err : 0, .xid = op->xid, .path2 = "", .text = text};
	describe(a, text, sizeof(text), op, r, err);
	f.seq = op->type == WOP_REC ? r->seq : t ? t->seq : op->seq;
	f.path = op->type == WOP_REC ? r->path : op->type == WOP_COMMIT || !t ? op->path : t->path;
	if (op->type == WOP_REC && (r->type == JT_RENAME || r->type == JT_LINK))
		f.path2 = r->path2;
	a->env.fail(a->env.arg, &f);
	note_failed(a, f.seq);
	if (t)
		t->failed = true;
	if (t && op->type == WOP_COMMIT)
		apply_transfer(a, op); /* frees it */
}

static int settle(struct apply *a);

static int attempt(struct apply *a, const struct wop *op, const struct jrec *r)
{
	bool held = false;
	for (;;) {
		int err = run(a, op, r);
		if (err == -EACCES)
			err = run_reaching(a, op, r);
		if (a->only_free && err && err >= E_FIRST && !node_curable(err)) {
			a->only_free = false; /* as if the CREATE had not waited: it may be what fails */
			err = settle(a);
			if (err)
				return err;
			continue;
		}
		if (!node_curable(err)) {
			if (held)
				a->env.unhold(a->env.arg);
			if (err < E_FIRST || !err)
				return err;
			report(a, op, r, err);
			return 0;
		}
		char text[1024];
		describe(a, text, sizeof(text), op, r, err);
		newdir_place(a);
		dirs_flush(&a->dirs); /* EMFILE may be our own */
		held = true;
		err = a->env.hold(a->env.arg, code_of(err), -err, op->type == WOP_REC ? r->path : op->path,
				  text);
		if (err)
			return err;
	}
}

static bool can_wait(struct apply *a, const struct jrec *r)
{
	return r->type == JT_CREATE && *r->path && !excluded(a, r->path, false);
}

static void put_off(struct apply *a, const struct wop *op, const struct jrec *r)
{
	a->pending.set = true;
	a->pending.op = *op;
	a->pending.path = r->path;
	a->pending.pm = r->pm;
}

static int apply_record(struct apply *a, const struct wop *op, bool may_wait)
{
	struct jrec r;
	size_t used = 0;
	if (jrec_get(&r, op->data, op->dlen, &used))
		return E_PROTO;
	int err = 0;
	if (!newdir_keeps(&a->newdir, op, &r))
		newdir_place(a);
	if (used != op->dlen)
		err = E_PROTO;
	else if (may_wait && can_wait(a, &r))
		put_off(a, op, &r);
	else
		err = attempt(a, op, &r);
	jrec_release(&r);
	return err;
}

/* Do the CREATE that was put off. */
static int settle(struct apply *a)
{
	if (!a->pending.set)
		return 0;
	a->pending.set = false;
	return apply_record(a, &a->pending.op, false);
}

/* Say whether op leaves the pending CREATE as it is: it only fills a transfer. */
static bool only_fills(const struct wop *op)
{
	return op->type == WOP_BEGIN || op->type == WOP_DATA || op->type == WOP_HOLE || op->type == WOP_ABORT;
}

/* Say whether op is the COMMIT that makes the pending file as a whole. Attributes must come with it: those
 * that a CREATE would inherit from its directory are not known otherwise. */
static bool makes_pending(struct apply *a, const struct wop *op)
{
	if (op->type != WOP_COMMIT || !op->has_xattrs || strcmp(op->path, a->pending.path) != 0)
		return false;
	struct transfer *t = apply_transfer_find(a, op->xid);
	return t && !t->failed && t->mode == WB_NEW;
}

int apply_op(struct apply *a, const struct wop *op)
{
	int err = 0;
	struct jrec none;
	if (!newdir_keeps(&a->newdir, op, NULL))
		newdir_place(a);
	a->commit_pm = (struct jtime){0};
	a->only_free = a->pending.set && makes_pending(a, op);
	if (touched_full(&a->dirs.touched))
		dirs_restore(&a->dirs);
	if (a->only_free)
		a->commit_pm = a->pending.pm;
	else if (!only_fills(op))
		err = settle(a);
	if (err)
		return err;
	if (op->type == WOP_REC) {
		a->records++;
		return apply_record(a, op, true);
	}
	jrec_init(&none, JT_CREATE);
	err = attempt(a, op, &none);
	if (a->only_free)
		a->pending.set = false; /* the COMMIT has done it */
	return err;
}

int apply_end_batch(struct apply *a)
{
	int err = settle(a);
	dirs_flush(&a->dirs);
	return err;
}

/* Remove what an earlier connection left half built. */
static void clean_tmp(struct apply *a)
{
	int tmpfd = a->env.tmpfd;
	int fd = openat(tmpfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	for (struct dirent *e; (e = readdir(d));) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (unlinkat(tmpfd, e->d_name, 0))
			apply_rmtmp(a, e->d_name);
	}
	closedir(d);
}

/* Whoever is at the other end is answered; what has begun is finished all the same. */
static void answer(void *arg)
{
	struct apply *a = arg;
	a->env.tick(a->env.arg);
}

int apply_init(struct apply *a, const struct apply_env *env, int dirfd, int redofd, bool restore, bool replay_all)
{
	memset(a, 0, sizeof(*a));
	a->env = *env;
	LIST_INIT(&a->transfers);
	a->wait = (struct redo_wait){answer, a};
	reach_init(&a->reach, env->rootfd, dirfd, env->tmpfd);
	reach_recover(env->rootfd, dirfd, env->tmpfd);
	clean_tmp(a);
	int err = dirs_init(&a->dirs, env->rootfd, dirfd, &a->reach, restore);
	return err ? err : redo_init(&a->redo, redofd, env->rootfd, &a->reach, replay_all);
}
