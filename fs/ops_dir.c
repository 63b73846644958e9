/* SPDX-License-Identifier: BSD-2-Clause
 * Directories: OPENDIR, READDIR, READDIRPLUS, FSYNCDIR, RELEASEDIR.
 *
 * Offsets are those of the directory below (d_off), so that an entry which exists throughout is neither missed nor
 * doubled while others come and go. A handle keeps a block of entries read ahead; a jump reads anew. */
#include "config.h"

#include "fs/ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/cred.h"
#include "fs/drift.h"
#include "fs/op.h"

#define BLOCK (32u << 10) /* bytes of entries read at once */

struct dirent64k { /* as the kernel writes it */
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

struct odir {
	pthread_mutex_t lock;
	/* protected by lock */
	int fd;
	off_t next;          /* offset of the entry at pos */
	size_t pos, len;     /* unread part of block */
	char block[BLOCK] __attribute__((aligned(8)));
};

static struct odir *odir_of(const struct fuse_file_info *fi)
{
	return (struct odir *)(uintptr_t)fi->fh;
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct odir *d = malloc(sizeof(*d));
	struct worker *w = worker_get(fs);
	struct dirfd *dir;
	int r = d && w ? dirfd_get(&fs->tree, tree_get(&fs->tree, ino), &dir) : -ENOMEM;

	if (r == 0) {
		cred_remote(w, fuse_req_ctx(req));
		d->fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = d->fd < 0 ? -errno : 0;
		dirfd_put(&fs->tree, dir);
	}
	if (r < 0) {
		free(d);
		op_reply(req, r);
		return;
	}
	pthread_mutex_init(&d->lock, NULL);
	d->next = 0;
	d->pos = d->len = 0;
	fi->fh = (uintptr_t)d;
	fi->cache_readdir = fs->exclusive;
	fi->keep_cache = fs->exclusive;
	if (fuse_reply_open(req, fi) == -ENOENT) {
		close(d->fd);
		free(d);
	}
}

/* The entry at the present position, or NULL at the end (*err 0) or after an error. */
static struct dirent64k *peek(struct odir *d, int *err)
{
	ssize_t n;

	*err = 0;
	if (d->pos < d->len)
		return (struct dirent64k *)(d->block + d->pos);
	n = syscall(SYS_getdents64, d->fd, d->block, sizeof(d->block));
	if (n < 0)
		*err = -errno;
	d->pos = 0;
	d->len = n > 0 ? (size_t)n : 0;
	return n > 0 ? (struct dirent64k *)d->block : NULL;
}

/* Also to the beginning that it stands at: Btrfs lists nothing younger than the last open or rewind, and the kernel would cache that listing as the
 * directory's. */
static int seek_to(struct odir *d, off_t off)
{
	if (off == d->next && off != 0)
		return 0;
	d->pos = d->len = 0;
	if (lseek(d->fd, off, SEEK_SET) < 0)
		return -errno;
	d->next = off;
	return 0;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* What a reply is being made of. */
struct listing {
	fuse_req_t req;
	struct tfs *fs;
	struct inode *dir;
	int fd;
	bool plus;
	char *buf;
	size_t size, used;
};

static size_t add_plain(struct listing *l, const struct dirent64k *e)
{
	struct stat st = {.st_ino = op_number(l->fs, l->dir->dev, e->d_ino), .st_mode = (mode_t)e->d_type << 12};

	return fuse_add_direntry(l->req, l->buf + l->used, l->size - l->used, e->d_name, &st, e->d_off);
}

/* With attributes: the kernel then remembers the inode, so its lookup counts, but only if the entry fits. What cannot be looked at (a dead mount
 * in the source) is listed in the same form, without them. 0: skip it. */
static size_t add_plus(struct listing *l, const struct dirent64k *e)
{
	struct fuse_entry_param p = {.attr = {.st_ino = op_number(l->fs, l->dir->dev, e->d_ino), .st_mode = (mode_t)e->d_type << 12}};
	struct worker *w = worker_get(l->fs);
	struct inode *i = NULL;
	struct stat st;
	bool moved;
	size_t n;

	if (!is_dot(e->d_name)) {
		drift_look(l->fs, w);
		if (fstatat(l->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return errno == ENOENT ? 0 : fuse_add_direntry_plus(l->req, l->buf + l->used, l->size - l->used, e->d_name, &p, e->d_off);
		n = fuse_add_direntry_plus(l->req, NULL, 0, e->d_name, NULL, 0);
		if (n > l->size - l->used)
			return n;
		pthread_mutex_lock(&l->fs->tree.lock);
		i = tree_enter_locked(&l->fs->tree, l->dir, e->d_name, &st, false, &moved);
		if (i && moved)
			drift_replaced_locked(l->fs, w, l->dir, e->d_name, st.st_ino);
		if (i && w)
			drift_saw_locked(l->fs, w, i, &st);
		pthread_mutex_unlock(&l->fs->tree.lock);
		if (i)
			op_fill_entry(l->fs, i, &st, &p);
		if (S_ISDIR(st.st_mode)) /* the kernel does not see that what is made in it meanwhile is younger than this answer */
			p.attr_timeout = 0;
	}
	return fuse_add_direntry_plus(l->req, l->buf + l->used, l->size - l->used, e->d_name, &p, e->d_off);
}

/* Fill the buffer from the present position. Returns 0 or -errno. */
static int fill(struct listing *l, struct odir *d)
{
	struct dirent64k *e;
	size_t n;
	int err;

	while ((e = peek(d, &err))) {
		n = 0;
		if (!op_private(l->fs, l->dir, e->d_name))
			n = l->plus ? add_plus(l, e) : add_plain(l, e);
		if (n > l->size - l->used)
			break;
		l->used += n;
		d->next = e->d_off;
		d->pos += e->d_reclen;
	}
	return l->used > 0 ? 0 : err;
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct tfs *fs = tfs_of(req);
	struct odir *d = odir_of(fi);
	struct listing l = {.req = req, .fs = fs, .dir = tree_get(&fs->tree, ino), .fd = d->fd, .plus = plus, .size = size};
	int r;

	l.buf = malloc(size);
	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&d->lock);
	r = seek_to(d, off);
	if (r == 0)
		r = fill(&l, d);
	pthread_mutex_unlock(&d->lock);
	if (r < 0)
		op_reply(req, r);
	else
		fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	do_readdir(req, ino, size, off, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	do_readdir(req, ino, size, off, fi, true);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct odir *d = odir_of(fi);

	(void)ino;
	close(d->fd);
	pthread_mutex_destroy(&d->lock);
	free(d);
	fuse_reply_err(req, 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct odir *d = odir_of(fi);
	uint64_t with = journal_sync_begin(fs->journal, d->fd);
	int r;

	(void)ino;
	r = (datasync ? fdatasync(d->fd) : fsync(d->fd)) < 0 ? -errno : 0;
	if (r == 0 && !journal_synced_with(fs->journal, with))
		journal_sync(fs->journal); /* as in op_fsync */
	op_reply(req, r);
}
