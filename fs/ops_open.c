/* SPDX-License-Identifier: BSD-2-Clause
 * Handles of regular files: CREATE, OPEN, FLUSH, RELEASE, TMPFILE. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/inodefd.h"
#include "fs/op.h"
#include "fs/victim.h"

/* How the file below is opened. The kernel's page cache does O_DIRECT, and it computes the offsets of
 * O_APPEND, unless others append below us. O_TRUNC is done later, on what was really opened. */
static int flags_below(const struct tfs *fs, int flags)
{
	flags &= ~(O_CREAT | O_EXCL | O_TRUNC | O_DIRECT | O_NOCTTY | O_NOFOLLOW);
	if (fs->exclusive)
		flags &= ~O_APPEND;
	if ((flags & O_ACCMODE) == 3)
		flags = (flags & ~O_ACCMODE) | O_RDWR;
	return flags;
}

/* What is marked append-only (chattr +a) takes no writer without O_APPEND: it then appends below what the kernel wants to have at the end. */
static int open_below(struct tfs *fs, struct inode *i, int flags, bool *marked)
{
	int fd = ifd_open(fs, i, flags_below(fs, flags));

	*marked = fd == -EPERM && flags & O_APPEND;
	if (*marked)
		fd = ifd_open(fs, i, flags_below(fs, flags) | O_APPEND);
	return fd;
}

static void fill_handle(const struct tfs *fs, struct fuse_file_info *fi, struct ofile *f)
{
	fi->fh = (uintptr_t)f;
	fi->keep_cache = fs->exclusive;
#ifdef HAVE_STRUCT_FUSE_FILE_INFO_NOFLUSH
	fi->noflush = !fs->remote;
#endif
}

/* Enter the new file, open its handle and append its record, in one section. */
static struct ofile *enter_created(struct tfs *fs, struct worker *w, struct inode *parent, const char *name,
    const struct stat *st, struct jtime pm, int fd, int flags, struct inode **out)
{
	struct ofile *f = NULL;
	struct inode *i;

	pthread_mutex_lock(&fs->tree.lock);
	i = tree_enter_locked(&fs->tree, parent, name, st, true, NULL);
	if (i) {
		f = ofile_open_locked(fs, i, fd, flags);
		if (!f)
			i->nlookup--; /* freed at the next forget of its parent; memory is out anyway */
	}
	op_append_new_locked(fs, w, JT_CREATE, parent, name, st, pm);
	pthread_mutex_unlock(&fs->tree.lock);
	*out = i;
	return f;
}

static void reply_create(fuse_req_t req, struct inode *i, struct ofile *f, const struct stat *st, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct fuse_entry_param e;

	fill_handle(fs, fi, f);
	op_fill_entry(fs, i, st, &e);
	if (fuse_reply_create(req, &e, fi) == -ENOENT) {
		ofile_release(fs, f);
		tree_forget(&fs->tree, i, 1);
	}
}

/* Truncate for O_TRUNC. fd may be read-only. */
static int truncate_opened(fuse_req_t req, struct ofile *f, struct inode *i)
{
	struct tfs *fs = tfs_of(req);
	struct ifd self = {.fd = f->fd};
	bool strip;
	char proc[IFD_PROC_MAX];
	int r;

	dirty_begin(fs, f->io);
	strip = cred_strip_begin(worker_get(fs), req, i, f->fd);
	r = f->writer ? ftruncate(f->fd, 0) : truncate(ifd_proc(&self, proc), 0);
	r = r < 0 ? -errno : 0;
	cred_strip_end(strip);
	dirty_end_truncate(fs, f->io, r, 0);
	if (!f->writer && !dirty_has_writer(f->io))
		dirty_emit(fs, f->io, f->fd, 0);
	return r;
}

/* CREATE of a name that exists below although the kernel did not know it (shared source). */
static void create_existing(fuse_req_t req, struct inode *parent, const char *name, int dirfd, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct inode *i = NULL;
	struct ofile *f = NULL;
	struct stat st;
	int fd, r = 0;

	fd = openat(dirfd, name, flags_below(fs, fi->flags) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		r = fd < 0 ? errno : ESTALE;
		if (fd >= 0)
			close(fd);
		fuse_reply_err(req, r);
		return;
	}
	pthread_mutex_lock(&fs->tree.lock);
	i = tree_enter_locked(&fs->tree, parent, name, &st, false, NULL);
	if (i && !(f = ofile_open_locked(fs, i, fd, fi->flags)))
		i->nlookup--;
	pthread_mutex_unlock(&fs->tree.lock);
	if (!f) {
		close(fd);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (fi->flags & O_TRUNC && (r = truncate_opened(req, f, i)) == 0)
		fstat(fd, &st);
	if (r < 0) {
		ofile_release(fs, f);
		tree_forget(&fs->tree, i, 1);
		op_reply(req, r);
		return;
	}
	reply_create(req, i, f, &st, fi);
}

void op_create(fuse_req_t req, fuse_ino_t nodeid, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *parent = tree_get(&fs->tree, nodeid), *i = NULL;
	struct inflight_entry note = {.type = JT_CREATE};
	struct dirfd *dir = op_parent(req, w, parent, name, EPERM);
	struct ofile *f = NULL;
	struct stat st;
	int fd, r;

	if (!dir)
		return;
	op_note(fs, w, &note, parent, name, NULL, NULL);
	cred_caller(w, fuse_req_ctx(req));
	fd = openat(dir->fd, name, flags_below(fs, fi->flags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	r = fd < 0 ? -errno : 0;
	if (op_in_doubt(r, -EEXIST))
		op_doubt(fs, w, parent, name, false);
	if (r == -EEXIST && !(fi->flags & O_EXCL)) {
		create_existing(req, parent, name, dir->fd, fi);
		op_done(fs, w);
		dirfd_put(&fs->tree, dir);
		return; /* cppcheck-suppress resourceLeak ; openat failed */
	}
	if (r == 0) {
		if (fstat(fd, &st) < 0) {
			r = -errno;
			op_doubt(fs, w, parent, name, false);
		} else {
			victims_await(fs, &st);
			f = enter_created(fs, w, parent, name, &st, op_mtime(dir->fd), fd, fi->flags, &i);
		}
		if (!f)
			close(fd);
	}
	op_done(fs, w);
	dirfd_put(&fs->tree, dir);
	if (r < 0)
		op_reply(req, r);
	else if (!f)
		fuse_reply_err(req, ENOMEM);
	else
		reply_create(req, i, f, &st, fi);
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino);
	struct ofile *f;
	bool marked;
	int fd, r = 0;

	if (!w) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	cred_remote(w, fuse_req_ctx(req));
	fd = open_below(fs, i, fi->flags, &marked);
	if (fd < 0) {
		op_reply(req, fd);
		return;
	}
	pthread_mutex_lock(&fs->tree.lock);
	f = ofile_open_locked(fs, i, fd, fi->flags);
	if (f && marked)
		f->append = f->appending = true;
	pthread_mutex_unlock(&fs->tree.lock);
	if (!f) {
		close(fd);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (fi->flags & O_TRUNC)
		r = truncate_opened(req, f, i);
	if (r < 0) {
		fuse_lowlevel_notify_inval_inode(fs->se, ino, -1, 0);
		ofile_release(fs, f);
		op_reply(req, r);
		return;
	}
	fill_handle(fs, fi, f);
	if (fuse_reply_open(req, fi) == -ENOENT)
		ofile_release(fs, f);
}

/* Sent only where close(2) below can fail (NFS): closing a duplicate reports what was delayed. */
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int fd = dup(ofile_of(fi)->fd), r;

	(void)ino;
	r = fd < 0 ? errno : close(fd) < 0 ? errno : 0;
	fuse_reply_err(req, r);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	ofile_release(tfs_of(req), ofile_of(fi));
	fuse_reply_err(req, 0);
}

#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_TMPFILE
/* A file without a name: nothing is recorded until LINK gives it one. */
void op_tmpfile(fuse_req_t req, fuse_ino_t nodeid, mode_t mode, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = NULL;
	struct ofile *f = NULL;
	struct dirfd *dir;
	struct stat st;
	int fd, keep, r;

	r = w ? dirfd_get(&fs->tree, tree_get(&fs->tree, nodeid), &dir) : -ENOMEM;
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	cred_caller(w, fuse_req_ctx(req));
	fd = openat(dir->fd, ".", flags_below(fs, fi->flags) | O_TMPFILE | (fi->flags & O_EXCL) | O_CLOEXEC, mode);
	r = fd < 0 ? -errno : 0;
	dirfd_put(&fs->tree, dir);
	keep = fd < 0 ? -1 : openat(fd, "", O_PATH | O_CLOEXEC);
	if (r == 0 && (fstat(fd, &st) < 0 || (keep < 0 && (keep = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0))) {
		r = -errno;
		close(fd);
	}
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	pthread_mutex_lock(&fs->tree.lock);
	i = tree_enter_anon_locked(&fs->tree, &st);
	if (i) {
		i->fd = keep;
		f = ofile_open_locked(fs, i, fd, fi->flags);
	}
	pthread_mutex_unlock(&fs->tree.lock);
	if (!f) {
		close(fd);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reply_create(req, i, f, &st, fi);
}
#endif
