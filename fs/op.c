/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/op.h"

#include <errno.h>
#include <string.h>

#include "fs/drift.h"
#include "fs/silly.h"
#include "proto/err.h"

static void changing(struct tfs *fs, struct worker *w, struct inode *p1, struct inode *p2)
{
	w->changing[0] = p1;
	w->changing[1] = p2 == p1 ? NULL : p2;
	for (int k = 0; k < 2; k++)
		if (w->changing[k])
			drift_check(fs, w, w->changing[k]);
}

void op_note(struct tfs *fs, struct worker *w, const struct inflight_entry *e, struct inode *p1, const char *n1,
    struct inode *p2, const char *n2)
{
	struct inflight_entry x = *e;
	int n, m = 0;

	changing(fs, w, p1, p2);
	pthread_mutex_lock(&fs->tree.lock);
	for (int k = 0; k < 2; k++)
		if (w->changing[k])
			drift_begin_locked(fs, w->changing[k]);
	n = tree_path_locked(&fs->tree, p1, n1, w->path);
	if (p2)
		m = tree_path_locked(&fs->tree, p2, n2, w->path2);
	x.seq = journal_seq(fs->journal); /* at which the paths are valid */
	pthread_mutex_unlock(&fs->tree.lock);
	if (n < 0 || m < 0)
		return; /* no path leads there: nothing to recheck */
	x.path = w->path;
	x.path2 = p2 ? w->path2 : NULL;
	inflight_op_set(fs->inflight, w->op, &x, (size_t)n, (size_t)m);
}

void op_done(struct tfs *fs, struct worker *w)
{
	inflight_op_clear(fs->inflight, w->op);
	for (int k = 0; k < 2; k++)
		if (w->changing[k])
			drift_end(fs, w->changing[k]);
	w->changing[0] = w->changing[1] = NULL;
}

bool op_private(const struct tfs *fs, const struct inode *parent, const char *name)
{
	return name[0] == '.' &&
	    ((parent == fs->tree.root && strcmp(name, PATH_PRIVATE) == 0) || (fs->nfs && path_name_silly(name)));
}

struct dirfd *op_parent(fuse_req_t req, struct worker *w, struct inode *parent, const char *name, int hidden)
{
	struct tfs *fs = tfs_of(req);
	struct dirfd *dir = NULL;
	int r = w ? 0 : -ENOMEM;

	if (op_private(fs, parent, name))
		r = -hidden;
	if (r == 0)
		r = dirfd_get(&fs->tree, parent, &dir);
	if (r < 0)
		op_reply(req, r);
	return dir;
}

struct jtime op_jtime(const struct timespec *t)
{
	return (struct jtime){.sec = t->tv_sec, .nsec = (uint32_t)t->tv_nsec};
}

struct jtime op_mtime(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return (struct jtime){0};
	return op_jtime(&st.st_mtim);
}

void op_path_locked(struct tfs *fs, struct inode *dir, const char *name, char *buf, const char **path)
{
	int n = tree_path_locked(&fs->tree, dir, name, buf);

	if (n == E_LIMIT)
		op_append_deep_locked(fs, dir, buf);
	*path = n >= 0 ? buf : "";
}

void op_append_deep_locked(struct tfs *fs, struct inode *dir, char *buf)
{
	struct jrec r;
	int n;

	while ((n = tree_path_locked(&fs->tree, dir, NULL, buf)) == E_LIMIT)
		dir = dir->names->parent;
	jrec_init(&r, JT_RECHECK);
	r.path = buf;
	if (n >= 0)
		journal_append(fs->journal, &r);
}

void op_append_half_locked(struct tfs *fs, struct jrec *r)
{
	const char *path = r->path[0] ? r->path : r->path2;

	if (!path[0])
		return;
	jrec_init(r, JT_RECHECK);
	r->path = path;
	r->flags = JF_RECURSIVE;
	journal_append(fs->journal, r);
}

void op_append_new_locked(struct tfs *fs, struct worker *w, enum jtype type, struct inode *parent, const char *name,
    const struct stat *st, struct jtime pm)
{
	struct jrec *r = &w->rec;

	jrec_init(r, type);
	op_path_locked(fs, parent, name, w->path, &r->path);
	if (!r->path[0])
		return; /* made in a directory that was removed meanwhile */
	r->ino = st->st_ino;
	r->mode = st->st_mode;
	r->uid = st->st_uid;
	r->gid = st->st_gid;
	r->rdev = type == JT_MKNOD ? st->st_rdev : 0;
	r->mtime = op_jtime(&st->st_mtim);
	r->pm = pm;
	journal_append(fs->journal, r);
	silly_recorded_locked(fs, parent, pm);
}

void op_append_recheck_locked(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, uint64_t ino)
{
	struct jrec *r = &w->rec;

	jrec_init(r, JT_RECHECK);
	op_path_locked(fs, dir, name, w->path2, &r->path);
	r->ino = ino;
	r->flags = JF_RECOVERY | JF_CHECKSUM;
	if (r->path[0])
		journal_append(fs->journal, r);
}

bool op_in_doubt(int r, int strange)
{
	return r == -EIO || r == -EINTR || r == -ETIMEDOUT || r == -ENOMEM || r == -EUCLEAN || (strange && r == strange);
}

void op_doubt(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, bool tree)
{
	struct jrec *r = &w->rec;

	pthread_mutex_lock(&fs->tree.lock);
	jrec_init(r, JT_RECHECK);
	r->flags = JF_RECOVERY;
	op_path_locked(fs, dir, NULL, w->path, &r->path);
	if (r->path[0] || dir == fs->tree.root)
		journal_append(fs->journal, r);
	r->flags |= JF_CHECKSUM | (tree ? JF_RECURSIVE : 0);
	if (name)
		op_path_locked(fs, dir, name, w->path, &r->path);
	if (name && r->path[0])
		journal_append(fs->journal, r);
	pthread_mutex_unlock(&fs->tree.lock);
}

void op_append_mtime_locked(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, uint64_t ino, struct jtime mtime)
{
	struct jrec *r = &w->rec;

	jrec_init(r, JT_SETATTR);
	op_path_locked(fs, dir, name, w->path, &r->path);
	r->ino = ino;
	r->valid = JV_MTIME;
	r->mtime = mtime;
	if (r->path[0] || (!name && dir == fs->tree.root))
		journal_append(fs->journal, r);
}

#define DIR_TIME 1.0

double op_attr_time(const struct tfs *fs, mode_t mode)
{
	return S_ISDIR(mode) && fs->attr_timeout > DIR_TIME ? DIR_TIME : fs->attr_timeout;
}

uint64_t op_number(const struct tfs *fs, uint64_t dev, uint64_t ino)
{
	if (dev == fs->tree.root->dev)
		return ino;
	return ino ^ (dev * 0x9e3779b97f4a7c15u) >> 33 << 32;
}

void op_fill_entry(struct tfs *fs, const struct inode *i, const struct stat *st, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = tree_nodeid(&fs->tree, i);
	e->generation = i == fs->tree.root ? 0 : fs->generation; /* the kernel made the root itself */
	e->attr = *st;
	e->attr.st_ino = op_number(fs, st->st_dev, st->st_ino);
	e->entry_timeout = fs->entry_timeout;
	e->attr_timeout = op_attr_time(fs, st->st_mode);
}

void op_reply_entry(fuse_req_t req, struct inode *i, const struct stat *st)
{
	struct tfs *fs = tfs_of(req);
	struct fuse_entry_param e;

	op_fill_entry(fs, i, st, &e);
	drift_saw(fs, worker_get(fs), i, st);
	if (fuse_reply_entry(req, &e) == -ENOENT)
		tree_forget(&fs->tree, i, 1);
}

void op_reply_missing(fuse_req_t req)
{
	struct tfs *fs = tfs_of(req);
	struct fuse_entry_param e = {.entry_timeout = fs->entry_timeout};

	if (fs->exclusive)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOENT);
}

void op_reply(fuse_req_t req, int err)
{
	if (err <= E_FIRST)
		err = err == E_LIMIT ? -ENAMETOOLONG : -EIO;
	fuse_reply_err(req, -err);
}

void op_reply_changed(fuse_req_t req, fuse_ino_t ino, int err)
{
	if (err == 0)
		fuse_lowlevel_notify_inval_inode(tfs_of(req)->se, ino, -1, 0); /* it counts that as a change; attributes alone */
	op_reply(req, err);
}
