/* SPDX-License-Identifier: BSD-2-Clause
 * RENAME with its flags. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/op.h"
#include "fs/recover_walk.h"
#include "fs/silly.h"
#include "fs/victim.h"

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT (1 << 2)
#endif

struct renaming {
	struct inode *from, *to;
	const char *name, *newname;
	struct dirfd *fromdir, *todir;
	unsigned flags;
	uint64_t ino;      /* the moved inode */
	uint32_t mode;
	struct victim over; /* what stood at the destination */
};

/* Which inode moves. Its dirty bytes are recorded first, so that its rename never overtakes them (Rule 2). */
static int source_of(struct tfs *fs, struct renaming *n)
{
	struct inode *i;
	struct stat st;

	pthread_mutex_lock(&fs->tree.lock);
	i = tree_child_locked(&fs->tree, n->from, n->name);
	if (i)
		tree_pin_locked(i);
	pthread_mutex_unlock(&fs->tree.lock);
	if (i && fs->exclusive) {
		n->ino = i->ino;
		n->mode = i->mode;
	} else if (fstatat(n->fromdir->fd, n->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		n->ino = st.st_ino;
		n->mode = st.st_mode;
	}
	if (!i)
		return 0;
	dirty_emit_inode(fs, i);
	pthread_mutex_lock(&fs->tree.lock);
	tree_unpin_locked(&fs->tree, i);
	pthread_mutex_unlock(&fs->tree.lock);
	return 0;
}

static void record_locked(struct tfs *fs, struct worker *w, const struct renaming *n, struct jtime pm, struct jtime pm2)
{
	struct jrec *r = &w->rec;

	jrec_init(r, JT_RENAME);
	op_path_locked(fs, n->from, n->name, w->path, &r->path);
	op_path_locked(fs, n->to, n->newname, w->path2, &r->path2);
	r->ino = n->ino;
	r->mode = n->mode;
	r->rflags = n->flags;
	r->flags = S_ISDIR(n->mode) ? JF_DIR : 0;
	if (n->flags & RENAME_EXCHANGE)
		r->flags |= JF_EXCHANGE;
	r->ino2 = n->over.st.st_ino;
	r->nlink = n->flags & RENAME_EXCHANGE ? (uint32_t)n->over.st.st_nlink : n->over.left;
	r->pm = pm;
	r->pm2 = pm2;
	if (r->path[0] && r->path2[0])
		journal_append(fs->journal, r);
	else
		op_append_half_locked(fs, r);
}

/* After its record, before the table is changed: the names' paths are those of before, and of after. */
static void recheck_locked(struct tfs *fs, struct worker *w, const struct renaming *n)
{
	if (!S_ISDIR(n->mode)) /* for a directory the walk begins again */
		op_append_recheck_locked(fs, w, n->to, n->newname, n->ino);
	if ((n->flags & RENAME_EXCHANGE) && !S_ISDIR(n->over.st.st_mode))
		op_append_recheck_locked(fs, w, n->from, n->name, n->over.st.st_ino);
}

/* RENAME_WHITEOUT left a character device 0:0 under the old name: for the standby, a device made after the rename. */
static void record_whiteout_locked(struct tfs *fs, struct worker *w, const struct renaming *n, const struct stat *st, struct jtime pm)
{
	op_append_new_locked(fs, w, JT_MKNOD, n->from, n->name, st, pm);
}

/* Some file systems (XFS) change the mtime of a directory that is exchanged with something in another directory. Looked at under the lock:
 * so an older mtime never follows a newer one. */
static void record_mtime_locked(struct tfs *fs, struct worker *w, struct inode *dir, int fd, const char *name)
{
	struct stat st;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		op_append_mtime_locked(fs, w, dir, name, st.st_ino, op_jtime(&st.st_mtim));
}

/* ext4 makes the whiteout under a name of its own, and removes it when the rename fails. */
static void whiteout_failed(struct tfs *fs, struct worker *w, const struct renaming *n)
{
	struct stat st;

	pthread_mutex_lock(&fs->tree.lock);
	if (fstat(n->fromdir->fd, &st) == 0)
		op_append_mtime_locked(fs, w, n->from, NULL, n->from->ino, op_jtime(&st.st_mtim));
	pthread_mutex_unlock(&fs->tree.lock);
	fuse_lowlevel_notify_inval_inode(fs->se, tree_nodeid(&fs->tree, n->from), -1, 0);
}

static int do_rename(fuse_req_t req, struct worker *w, struct renaming *n)
{
	struct tfs *fs = tfs_of(req);
	struct inflight_entry note = {.type = JT_RENAME, .rflags = n->flags & ~(unsigned)RENAME_WHITEOUT};
	bool whiteout = n->flags & RENAME_WHITEOUT;
	bool walking = recover_walking(fs), dirs;
	struct stat left;
	struct jtime pm, pm2;
	int r;

	source_of(fs, n);
	r = victim_open(fs, &n->over, n->to, n->todir->fd, n->newname);
	if (r < 0 && r != -ENOENT)
		return r;
	if ((n->flags & RENAME_EXCHANGE) && n->over.inode)
		dirty_emit_inode(fs, n->over.inode); /* it moves, too */
	note.ino = n->ino;
	note.mode = n->mode;
	note.ino2 = n->over.st.st_ino;
	note.nlink2 = (uint32_t)n->over.st.st_nlink;
	op_note(fs, w, &note, n->from, n->name, n->to, n->newname);
	if (whiteout)
		cred_caller(w, fuse_req_ctx(req)); /* it becomes the caller's */
	else
		cred_space(w, fuse_req_ctx(req));
	dirs = walking && (S_ISDIR(n->mode) || S_ISDIR(n->over.st.st_mode));
	if (dirs)
		recover_move_begin(fs);
	tree_rename_begin(&fs->tree);
	if (renameat2(n->fromdir->fd, n->name, n->todir->fd, n->newname, n->flags) < 0) {
		r = -errno;
		pthread_mutex_lock(&fs->tree.lock);
		tree_rename_end_locked(&fs->tree);
		pthread_mutex_unlock(&fs->tree.lock);
		if (dirs)
			recover_move_end(fs);
		if (op_in_doubt(r, -ENOENT)) {
			op_doubt(fs, w, n->from, n->name, S_ISDIR(n->mode) || S_ISDIR(n->over.st.st_mode));
			op_doubt(fs, w, n->to, n->newname, S_ISDIR(n->mode) || S_ISDIR(n->over.st.st_mode));
		}
		if (whiteout)
			whiteout_failed(fs, w, n);
		return r;
	}
	if (note.ino2 && !(n->flags & RENAME_EXCHANGE))
		victim_gone(fs, &n->over);
	whiteout = whiteout && fstatat(n->fromdir->fd, n->name, &left, AT_SYMLINK_NOFOLLOW) == 0;
	n->flags &= ~(unsigned)RENAME_WHITEOUT;
	pm = op_mtime(n->fromdir->fd);
	pm2 = n->todir == n->fromdir ? pm : op_mtime(n->todir->fd);
	pthread_mutex_lock(&fs->tree.lock);
	record_locked(fs, w, n, pm, pm2);
	if (walking)
		recheck_locked(fs, w, n);
	if (n->flags & RENAME_EXCHANGE) {
		r = tree_swap_locked(&fs->tree, n->from, n->name, n->to, n->newname);
		if (n->from != n->to) {
			record_mtime_locked(fs, w, n->from, n->fromdir->fd, n->name);
			record_mtime_locked(fs, w, n->to, n->todir->fd, n->newname);
		}
	} else {
		r = tree_move_locked(&fs->tree, n->from, n->name, n->to, n->newname);
		victim_keep_locked(fs, &n->over);
	}
	tree_rename_end_locked(&fs->tree);
	if (whiteout)
		record_whiteout_locked(fs, w, n, &left, pm);
	silly_recorded_locked(fs, n->from, pm);
	if (note.ino2 && !(n->flags & RENAME_EXCHANGE) && !S_ISDIR(n->over.st.st_mode))
		silly_watch_locked(fs, n->to, n->over.inode && n->over.inode->open ? n->over.inode : NULL, pm2);
	else
		silly_recorded_locked(fs, n->to, pm2);
	pthread_mutex_unlock(&fs->tree.lock);
	if (dirs)
		recover_move_end(fs);
	return r;
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
    unsigned int flags)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct renaming n = {.from = tree_get(&fs->tree, parent), .to = tree_get(&fs->tree, newparent),
	    .name = name, .newname = newname, .flags = flags, .over = {.fd = -1}};
	int r;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (op_private(fs, n.from, name) || op_private(fs, n.to, newname)) {
		fuse_reply_err(req, op_private(fs, n.from, name) ? ENOENT : EPERM);
		return;
	}
	r = w ? dirfd_get(&fs->tree, n.from, &n.fromdir) : -ENOMEM;
	if (r == 0 && (r = dirfd_get(&fs->tree, n.to, &n.todir)) < 0)
		dirfd_put(&fs->tree, n.fromdir);
	if (r < 0) {
		op_reply(req, r);
		return;
	}
	r = do_rename(req, w, &n);
	op_done(fs, w);
	victim_release(fs, &n.over);
	dirfd_put(&fs->tree, n.fromdir);
	dirfd_put(&fs->tree, n.todir);
	op_reply(req, r);
}
