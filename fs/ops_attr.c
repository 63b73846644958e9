/* SPDX-License-Identifier: BSD-2-Clause
 * Attributes: GETATTR, SETATTR, READLINK, STATFS. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/drift.h"
#include "fs/inodefd.h"
#include "fs/op.h"
#include "fs/silly.h"

static void reply_attr(fuse_req_t req, struct tfs *fs, struct inode *i, struct stat *st)
{
	if (i->gone)
		st->st_nlink = 0;
	st->st_ino = op_number(fs, i->dev, i->ino);
	fuse_reply_attr(req, st, op_attr_time(fs, st->st_mode));
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino);
	struct stat st;
	int r;

	(void)fi;
	drift_look(fs, w);
	r = ifd_stat(fs, i, &st);
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	tree_saw(i, &st);
	drift_saw(fs, w, i, &st);
	reply_attr(req, fs, i, &st);
}

#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_STATX
/* Asked for when somebody wants to know the time of birth; the kernel takes the rest as from GETATTR. */
void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino);
	struct statx x;
	struct stat st = {0};
	struct ifd f;
	int r;

	(void)fi;
	drift_look(fs, w);
	r = ifd_get(fs, i, &f);
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	r = statx(f.fd, "", AT_EMPTY_PATH | (flags & AT_STATX_SYNC_TYPE), (unsigned)mask | STATX_BASIC_STATS, &x) < 0 ? -errno : 0;
	if (r == 0 && !fs->exclusive)
		r = fstat(f.fd, &st) < 0 ? -errno : 0;
	ifd_put(fs, &f);
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	if (!fs->exclusive)
		drift_saw(fs, w, i, &st);
	if (i->gone)
		x.stx_nlink = 0;
	x.stx_ino = op_number(fs, i->dev, i->ino);
	fuse_reply_statx(req, 0, &x, op_attr_time(fs, x.stx_mode));
}
#endif

static int set_mode(const struct ifd *f, mode_t mode)
{
	char proc[IFD_PROC_MAX];
	int r = f->path_only ? chmod(ifd_proc(f, proc), mode) : fchmod(f->fd, mode);

	return r < 0 ? -errno : 0;
}

static int set_owner(const struct ifd *f, const struct stat *a, int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? a->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? a->st_gid : (gid_t)-1;

	return fchownat(f->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_times(const struct ifd *f, const struct stat *a, int to_set)
{
	struct timespec tv[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
	int r;

	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		tv[0].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		tv[0] = a->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		tv[1].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		tv[1] = a->st_mtim;
	r = f->path_only ? utimensat(f->fd, "", tv, AT_EMPTY_PATH) : futimens(f->fd, tv);
	return r < 0 ? -errno : 0;
}

/* Truncate, as the handle's writer if there is one, and note what became dirty. */
static int set_size(fuse_req_t req, struct inode *i, const struct ifd *f, const struct ofile *file, off_t size)
{
	struct tfs *fs = tfs_of(req);
	struct iopen *io = iopen_get(fs, i);
	bool strip;
	char proc[IFD_PROC_MAX];
	int r;

	if (!io)
		return -ENOMEM;
	dirty_begin(fs, io);
	strip = cred_strip_begin(worker_get(fs), req, i, f->fd);
	r = file && file->writer ? ftruncate(file->fd, size) : truncate(ifd_proc(f, proc), size);
	r = r < 0 ? -errno : 0;
	cred_strip_end(strip);
	dirty_end_truncate(fs, io, r, (uint64_t)size);
	if (!dirty_has_writer(io))
		dirty_emit(fs, io, f->fd, 0);
	iopen_put(fs, io);
	return r;
}

static void record_attr(struct tfs *fs, struct worker *w, struct inode *i, const struct ifd *f, const struct stat *st, uint32_t valid)
{
	struct jrec *r = &w->rec;
	const char *path;

	pthread_mutex_lock(&fs->tree.lock);
	jrec_init(r, JT_SETATTR);
	op_path_locked(fs, i, NULL, w->path, &path);
	r->path = path;
	r->ino = i->ino;
	r->valid = valid;
	r->mode = st->st_mode;
	r->uid = st->st_uid;
	r->gid = st->st_gid;
	r->mtime = op_jtime(&st->st_mtim);
	if (path[0] || i == fs->tree.root)
		journal_append(fs->journal, r);
	else if (!S_ISDIR(st->st_mode))
		dirty_nameless_locked(fs, w, i, f->fd);
	if (valid & JV_MTIME)
		silly_recorded_locked(fs, i, r->mtime);
	pthread_mutex_unlock(&fs->tree.lock);
}

/* Which values of the record count. A change of owner may have stripped mode bits. */
static uint32_t valid_of(int to_set)
{
	uint32_t valid = 0;

	if (to_set & FUSE_SET_ATTR_MODE)
		valid |= JV_MODE;
	if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		valid |= JV_UID | JV_GID | JV_MODE;
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		valid |= JV_MTIME;
	return valid;
}

#define SETS_OWNER (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)
#define SETS_TIME  (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)

#define SETS_NOTHING (1 << 30)

/* A SETATTR of nothing: chown(-1, -1), which takes suid and sgid away, or the kernel is about to let a caller write. Only
 * with an open writer it may be the latter, which must not fail (a write strips by itself, cred.h).
 * Returns 1 to have the directory below do a chown(-1, -1), 0 to do nothing, or -EPERM. */
static int chown_nothing(fuse_req_t req, struct inode *i, const struct ifd *f)
{
	struct tfs *fs = tfs_of(req);
	uid_t uid = fuse_req_ctx(req)->uid;
	struct ofile *writer;
	struct stat st;

	if (!fs->killpriv || fstat(f->fd, &st) < 0)
		return 0;
	if (uid == 0 || uid == st.st_uid)
		return 1;
	if (S_ISDIR(st.st_mode) || !(st.st_mode & S_ISUID || (st.st_mode & S_ISGID &&
						(st.st_mode & S_IXGRP || !cred_in_group(req, st.st_gid)))))
		return 0;
	pthread_mutex_lock(&fs->tree.lock);
	writer = ofile_borrow_locked(i, OFILE_WRITER);
	pthread_mutex_unlock(&fs->tree.lock);
	if (!writer)
		return -EPERM;
	ofile_return(fs, writer);
	return 0;
}

static bool done_perhaps(int r)
{
	return r == 0 || op_in_doubt(r, 0);
}

/* Apply one after another; *done tells what was, or may have been. */
static int apply(fuse_req_t req, struct inode *i, const struct ifd *f, const struct ofile *file, const struct stat *a,
    int to_set, int *done)
{
	int r = 0;

	if (!(to_set & (SETS_OWNER | SETS_TIME | FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_SIZE))) {
		r = chown_nothing(req, i, f);
		to_set |= r > 0 ? SETS_NOTHING : 0;
		r = r > 0 ? 0 : r;
	}
	if (r == 0 && to_set & FUSE_SET_ATTR_MODE) {
		r = set_mode(f, a->st_mode & 07777);
		*done |= done_perhaps(r) ? FUSE_SET_ATTR_MODE : 0;
	}
	if (r == 0 && to_set & (SETS_OWNER | SETS_NOTHING)) {
		r = set_owner(f, a, to_set);
		*done |= done_perhaps(r) ? SETS_OWNER : 0;
	}
	if (r == 0 && to_set & FUSE_SET_ATTR_SIZE)
		r = set_size(req, i, f, file, a->st_size);
	if (r == 0 && to_set & SETS_TIME) {
		r = set_times(f, a, to_set);
		*done |= done_perhaps(r) ? to_set & SETS_TIME : 0;
	}
	return r;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino);
	struct inflight_entry note = {.type = JT_SETATTR};
	struct ofile *file = fi && !S_ISDIR(i->mode) ? ofile_of(fi) : NULL;
	struct stat st;
	struct ifd f = {.fd = file ? file->fd : -1};
	int r = w ? 0 : -ENOMEM, done = 0;

	if (r == 0 && !file)
		r = ifd_get(fs, i, &f);
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	cred_space(w, fuse_req_ctx(req));
	op_note(fs, w, &note, i, NULL, NULL, NULL);
	r = apply(req, i, &f, file, attr, to_set, &done);
	if (fstat(f.fd, &st) < 0) {
		r = r < 0 ? r : -errno;
		if (done)
			op_doubt(fs, w, i, NULL, false);
	} else if (valid_of(done)) {
		record_attr(fs, w, i, &f, &st, valid_of(done));
	}
	op_done(fs, w);
	ifd_put(fs, &f);
	if (r < 0) {
		fuse_lowlevel_notify_inval_inode(fs->se, ino, -1, 0); /* part of it may be done */
		op_reply(req, r);
		return;
	}
	tree_saw(i, &st);
	reply_attr(req, fs, i, &st);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct tfs *fs = tfs_of(req);
	char target[PATH_MAX + 1];
	struct ifd f;
	ssize_t n;
	int r = ifd_get(fs, tree_get(&fs->tree, ino), &f);

	if (r < 0) {
		op_reply(req, r);
		return;
	}
	n = readlinkat(f.fd, "", target, sizeof(target) - 1);
	r = n < 0 ? errno : 0;
	ifd_put(fs, &f);
	if (n < 0) {
		fuse_reply_err(req, r);
		return;
	}
	target[n] = '\0';
	fuse_reply_readlink(req, target);
}

/* Of the directory or file that was asked for: another file system may be mounted there, or a directory's project quota be its size. */
void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct tfs *fs = tfs_of(req);
	struct statvfs sv;
	struct ifd f;
	int r = ifd_get(fs, tree_get(&fs->tree, ino), &f);

	if (r == 0) {
		r = fstatvfs(f.fd, &sv) < 0 ? -errno : 0;
		ifd_put(fs, &f);
	}
	if (r < 0)
		op_reply(req, r);
	else
		fuse_reply_statfs(req, &sv);
}
