/* SPDX-License-Identifier: BSD-2-Clause
 * New names without a handle: MKNOD, MKDIR, SYMLINK, LINK. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/inodefd.h"
#include "fs/op.h"
#include "fs/recover_walk.h"
#include "fs/silly.h"
#include "fs/victim.h"

/* What is to be made. */
struct making {
	enum jtype type;
	mode_t mode;
	dev_t rdev;
	const char *target;
};

static int make(int dirfd, const char *name, const struct making *m)
{
	int r;

	if (m->type == JT_MKDIR)
		r = mkdirat(dirfd, name, m->mode);
	else if (m->type == JT_SYMLINK)
		r = symlinkat(m->target, dirfd, name);
	else
		r = mknodat(dirfd, name, m->mode, m->rdev);
	return r < 0 ? -errno : 0;
}

/* Enter the new inode and append its record, in one section. */
static struct inode *enter_new(struct tfs *fs, struct worker *w, const struct making *m, struct inode *parent,
    const char *name, const struct stat *st, struct jtime pm)
{
	struct inode *i;

	pthread_mutex_lock(&fs->tree.lock);
	i = tree_enter_locked(&fs->tree, parent, name, st, true, NULL);
	if (m->type == JT_SYMLINK) {
		jrec_init(&w->rec, JT_SYMLINK);
		w->rec.target = m->target;
		w->rec.ino = st->st_ino;
		w->rec.uid = st->st_uid;
		w->rec.gid = st->st_gid;
		w->rec.mode = st->st_mode;
		w->rec.mtime = op_jtime(&st->st_mtim);
		w->rec.pm = pm;
		op_path_locked(fs, parent, name, w->path, &w->rec.path);
		if (w->rec.path[0])
			journal_append(fs->journal, &w->rec);
		silly_recorded_locked(fs, parent, pm);
	} else {
		op_append_new_locked(fs, w, m->type, parent, name, st, pm);
	}
	pthread_mutex_unlock(&fs->tree.lock);
	return i;
}

static void do_make(fuse_req_t req, fuse_ino_t nodeid, const char *name, const struct making *m)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *parent = tree_get(&fs->tree, nodeid), *i = NULL;
	struct inflight_entry note = {.type = m->type};
	struct dirfd *dir = op_parent(req, w, parent, name, EPERM);
	struct stat st;
	bool doubt;
	int r;

	if (!dir)
		return;
	op_note(fs, w, &note, parent, name, NULL, NULL);
	cred_caller(w, fuse_req_ctx(req));
	r = make(dir->fd, name, m);
	doubt = op_in_doubt(r, -EEXIST);
	if (r == 0 && fstatat(dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		r = -errno;
		doubt = true;
	}
	if (r == 0)
		victims_await(fs, &st);
	if (r == 0)
		i = enter_new(fs, w, m, parent, name, &st, op_mtime(dir->fd));
	if (doubt)
		op_doubt(fs, w, parent, name, false);
	op_done(fs, w);
	dirfd_put(&fs->tree, dir);
	if (r < 0)
		op_reply(req, r);
	else if (!i)
		fuse_reply_err(req, ENOMEM);
	else
		op_reply_entry(req, i, &st);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct making m = {.type = S_ISREG(mode) || !(mode & S_IFMT) ? JT_CREATE : JT_MKNOD, .mode = mode, .rdev = rdev};

	do_make(req, parent, name, &m);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct making m = {.type = JT_MKDIR, .mode = mode};

	do_make(req, parent, name, &m);
}

void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct making m = {.type = JT_SYMLINK, .target = link};

	do_make(req, parent, name, &m);
}

/* A nameless file (O_TMPFILE) gets its first name: for the standby it appears now, with all its bytes. */
static void record_first_name_locked(struct tfs *fs, struct worker *w, struct inode *parent, const char *name,
    const struct stat *st, struct jtime pm)
{
	struct jrec *r = &w->rec;

	op_append_new_locked(fs, w, JT_CREATE, parent, name, st, pm);
	jrec_init(r, JT_CONTENT);
	op_path_locked(fs, parent, name, w->path, &r->path);
	r->ino = st->st_ino;
	r->size = (uint64_t)st->st_size;
	extent_add(&r->extents, 0, EXTENT_INF);
	if (r->path[0])
		journal_append(fs->journal, r);
	extent_release(&r->extents);
}

/* None of its names is known, but it has others (they were not looked up since the mount): the comparison finds them. */
static void record_another_name_locked(struct tfs *fs, struct worker *w, const struct inode *i, struct inode *parent, const char *name,
    struct jtime pm)
{
	op_append_recheck_locked(fs, w, parent, name, i->ino);
	op_append_mtime_locked(fs, w, parent, NULL, parent->ino, pm);
	silly_recorded_locked(fs, parent, pm);
}

/* walking: recover_walking, from before it was linked. */
static int link_enter(struct tfs *fs, struct worker *w, struct inode *i, struct inode *parent, const char *name,
    const struct stat *st, struct jtime pm, bool walking)
{
	struct jrec *r = &w->rec;
	int err;

	pthread_mutex_lock(&fs->tree.lock);
	if (i->names) {
		jrec_init(r, JT_LINK);
		r->ino = i->ino;
		r->pm2 = pm;
		op_path_locked(fs, i, NULL, w->path, &r->path);
		op_path_locked(fs, parent, name, w->path2, &r->path2);
		if (r->path[0] && r->path2[0])
			journal_append(fs->journal, r);
		else if (r->path2[0])
			op_append_half_locked(fs, r);
		if (walking)
			op_append_recheck_locked(fs, w, parent, name, i->ino);
		silly_recorded_locked(fs, parent, pm);
	} else if (st->st_nlink > 1) {
		record_another_name_locked(fs, w, i, parent, name, pm);
	} else {
		record_first_name_locked(fs, w, parent, name, st, pm);
	}
	err = tree_name_locked(&fs->tree, i, parent, name);
	if (err == 0)
		i->nlookup++;
	pthread_mutex_unlock(&fs->tree.lock);
	return err;
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t nodeid, const char *name)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino), *parent = tree_get(&fs->tree, nodeid);
	struct inflight_entry note = {.type = JT_LINK};
	struct dirfd *dir = NULL;
	char proc[IFD_PROC_MAX];
	struct ifd f;
	struct stat st;
	bool walking, doubt;
	int r;

	if (op_private(fs, parent, name)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	r = w ? ifd_get(fs, i, &f) : -ENOMEM;
	if (r == 0 && (r = dirfd_get(&fs->tree, parent, &dir)) < 0)
		ifd_put(fs, &f);
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	dirty_emit_inode(fs, i);
	op_note(fs, w, &note, parent, name, NULL, NULL);
	cred_space(w, fuse_req_ctx(req));
	walking = recover_walking(fs);
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): dirfd_get returned 0 */
	r = linkat(AT_FDCWD, ifd_proc(&f, proc), dir->fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
	doubt = op_in_doubt(r, -EEXIST);
	if (r == 0 && fstat(f.fd, &st) < 0) {
		r = -errno;
		doubt = true;
	}
	if (doubt)
		op_doubt(fs, w, parent, name, false);
	if (r == 0)
		r = link_enter(fs, w, i, parent, name, &st, op_mtime(dir->fd), walking);
	op_done(fs, w);
	ifd_put(fs, &f);
	dirfd_put(&fs->tree, dir);
	if (r < 0)
		op_reply(req, r);
	else
		op_reply_entry(req, i, &st);
}
