/* SPDX-License-Identifier: BSD-2-Clause
 * LOOKUP and FORGET: what the kernel remembers. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/cred.h"
#include "fs/drift.h"
#include "fs/inodefd.h"
#include "fs/op.h"
#include "proto/err.h"

/* "." and "..": an NFS server reconnects a file handle. The node id may be one we forgot. */
static void lookup_dots(fuse_req_t req, fuse_ino_t nodeid, const char *name)
{
	struct tfs *fs = tfs_of(req);
	struct inode *i;
	struct stat st;
	int r;

	pthread_mutex_lock(&fs->tree.lock);
	i = tree_find_locked(&fs->tree, nodeid);
	if (i && name[1] == '.' && i != fs->tree.root)
		i = i->names ? i->names->parent : NULL;
	if (i)
		i->nlookup++; /* also keeps it while we look */
	pthread_mutex_unlock(&fs->tree.lock);
	if (!i) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	drift_look(fs, worker_get(fs));
	r = ifd_stat(fs, i, &st);
	if (r == 0) {
		op_reply_entry(req, i, &st);
		return;
	}
	tree_forget(&fs->tree, i, 1);
	op_reply(req, r);
}

/* Look at a name and enter what is there. The kernel asks again for a name that expired without the directory's lock, so that a rename or removal of
 * ours may run beside this: what was seen then is not what the table has, or will have, and is looked at again. Returns 0 and *out, or -errno. */
static int look(struct tfs *fs, struct worker *w, struct inode *parent, int dirfd, const char *name, struct stat *st, struct inode **out)
{
	bool again, moved;
	int r;

	do {
		drift_look(fs, w);
		r = fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
		pthread_mutex_lock(&fs->tree.lock);
		again = drift_overtaken_locked(fs, w, parent);
		if (r == 0 && !again) {
			*out = tree_enter_locked(&fs->tree, parent, name, st, false, &moved);
			if (*out && moved)
				drift_replaced_locked(fs, w, parent, name, st->st_ino);
			r = *out ? 0 : -ENOMEM;
		}
		pthread_mutex_unlock(&fs->tree.lock);
	} while (again);
	return r;
}

void op_lookup(fuse_req_t req, fuse_ino_t nodeid, const char *name)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *parent, *i = NULL;
	struct dirfd *dir;
	struct stat st;
	int r;

	if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]))) {
		lookup_dots(req, nodeid, name);
		return;
	}
	parent = tree_get(&fs->tree, nodeid);
	dir = op_parent(req, w, parent, name, ENOENT);
	if (!dir)
		return;
	cred_remote(w, fuse_req_ctx(req));
	r = look(fs, w, parent, dir->fd, name, &st, &i);
	dirfd_put(&fs->tree, dir);
	if (r == -ENOENT)
		op_reply_missing(req);
	else if (r < 0)
		op_reply(req, r);
	else
		op_reply_entry(req, i, &st);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	struct tfs *fs = tfs_of(req);

	tree_forget(&fs->tree, tree_get(&fs->tree, ino), nlookup);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct tfs *fs = tfs_of(req);

	for (size_t n = 0; n < count; n++)
		tree_forget(&fs->tree, tree_get(&fs->tree, forgets[n].ino), forgets[n].nlookup);
	fuse_reply_none(req);
}
