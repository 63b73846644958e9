/* SPDX-License-Identifier: BSD-2-Clause
 * UNLINK and RMDIR. What is removed may still be referred to by the kernel: its descriptor is kept. */
#include "config.h"

#include "fs/ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/op.h"
#include "fs/silly.h"
#include "fs/victim.h"
#include "proto/path.h"

#define SILLY_TRIES    50
#define SILLY_PAUSE_NS 10000000

static void record_locked(struct tfs *fs, struct worker *w, enum jtype type, struct inode *parent, const char *name,
    const struct victim *v, struct jtime pm)
{
	struct jrec *r = &w->rec;

	jrec_init(r, type);
	op_path_locked(fs, parent, name, w->path, &r->path);
	r->ino = v->st.st_ino;
	r->nlink = type == JT_UNLINK ? v->left : 0;
	r->pm = pm;
	if (r->path[0])
		journal_append(fs->journal, r);
}

/* Say whether a directory holds nothing but what NFS will remove by itself. */
static bool only_silly(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool only = d != NULL;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (only && (e = readdir(d)))
		only = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || path_name_silly(e->d_name);
	closedir(d);
	return only;
}

/* RELEASE comes after close(2) returned: over NFS a file that was removed in between keeps a name for that moment, and rmdir
 * would fail where it does not without us. Wait for it, not for files that stay open. */
static int remove_below(const struct tfs *fs, int dirfd, const char *name, int flags)
{
	const struct timespec pause = {.tv_nsec = SILLY_PAUSE_NS};
	int r;

	for (int n = 0;; n++) {
		r = unlinkat(dirfd, name, flags) < 0 ? -errno : 0;
		if (r != -ENOTEMPTY || !fs->nfs || !(flags & AT_REMOVEDIR) || n == SILLY_TRIES || !only_silly(dirfd, name))
			return r;
		nanosleep(&pause, NULL);
	}
}

static void do_remove(fuse_req_t req, fuse_ino_t nodeid, const char *name, enum jtype type)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *parent = tree_get(&fs->tree, nodeid);
	struct inflight_entry note = {.type = type};
	struct dirfd *dir = op_parent(req, w, parent, name, ENOENT);
	struct victim v;
	struct jtime pm;
	int r;

	if (!dir)
		return;
	r = victim_open(fs, &v, parent, dir->fd, name);
	op_note(fs, w, &note, parent, name, NULL, NULL);
	cred_remote(w, fuse_req_ctx(req));
	if (r == 0)
		r = remove_below(fs, dir->fd, name, type == JT_RMDIR ? AT_REMOVEDIR : 0);
	if (r == 0) {
		victim_gone(fs, &v);
		pm = op_mtime(dir->fd);
		pthread_mutex_lock(&fs->tree.lock);
		record_locked(fs, w, type, parent, name, &v, pm);
		if (type == JT_RMDIR)
			silly_recorded_locked(fs, parent, pm);
		else
			silly_watch_locked(fs, parent, v.inode && v.inode->open ? v.inode : NULL, pm);
		tree_unname_locked(&fs->tree, parent, name);
		victim_keep_locked(fs, &v);
		pthread_mutex_unlock(&fs->tree.lock);
	} else if (op_in_doubt(r, -ENOENT)) {
		op_doubt(fs, w, parent, name, false);
	}
	op_done(fs, w);
	victim_release(fs, &v);
	dirfd_put(&fs->tree, dir);
	op_reply(req, r);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	do_remove(req, parent, name, JT_UNLINK);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	do_remove(req, parent, name, JT_RMDIR);
}
