/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/victim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fs/dirty.h"

/* NFS does not remove a file of which anybody has a descriptor, it renames it (.nfsXXXX), and then its directory cannot be
 * removed. So there we hold one only of what is open anyway, and of directories. */
static bool may_hold(struct tfs *fs, struct inode *parent, const char *name)
{
	struct inode *i;
	bool may;

	if (!fs->nfs)
		return true;
	pthread_mutex_lock(&fs->tree.lock);
	i = tree_child_locked(&fs->tree, parent, name);
	may = i && (i->open || S_ISDIR(i->mode));
	pthread_mutex_unlock(&fs->tree.lock);
	return may;
}

int victim_open(struct tfs *fs, struct victim *v, struct inode *parent, int dirfd, const char *name)
{
	int r;

	memset(v, 0, sizeof(*v));
	errno = 0;
	v->fd = may_hold(fs, parent, name) ? openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (v->fd < 0 && errno == ENOENT)
		return -ENOENT;
	r = v->fd >= 0 ? fstat(v->fd, &v->st) : fstatat(dirfd, name, &v->st, AT_SYMLINK_NOFOLLOW);
	if (r < 0)
		return -errno;
	pthread_mutex_lock(&fs->tree.lock);
	v->inode = tree_child_locked(&fs->tree, parent, name);
	if (v->inode && (v->inode->ino != v->st.st_ino || v->inode->dev != v->st.st_dev))
		v->inode = NULL;
	if (v->inode)
		tree_pin_locked(v->inode);
	pthread_mutex_unlock(&fs->tree.lock);
	if (fs->nfs || v->fd < 0) { /* on NFS a descriptor holds nothing of a directory */
		pthread_mutex_lock(&fs->victims.lock);
		LIST_INSERT_HEAD(&fs->victims.list, v, link);
		v->listed = true;
		pthread_mutex_unlock(&fs->victims.lock);
	}
	if (v->inode && v->st.st_nlink > 1 && S_ISREG(v->st.st_mode))
		dirty_emit_inode(fs, v->inode);
	return 0;
}

/* While we are the only writer the kernel serialises changes of one inode's links, so that counting suffices. */
void victim_gone(struct tfs *fs, struct victim *v)
{
	struct stat st;

	if (S_ISDIR(v->st.st_mode))
		v->left = 0;
	else if (fs->exclusive || v->fd < 0)
		v->left = v->st.st_nlink > 0 ? (uint32_t)v->st.st_nlink - 1 : 0;
	else
		v->left = fstat(v->fd, &st) == 0 ? (uint32_t)st.st_nlink : 0;
}

void victim_keep_locked(struct tfs *fs, struct victim *v)
{
	struct inode *i = v->inode;

	if (!i || i->names)
		return;
	i->gone = v->left == 0 && !S_ISDIR(i->mode);
	if (v->fd < 0)
		return;
	if (S_ISDIR(i->mode))
		dirfd_keep_locked(&fs->tree, i, v->fd);
	else if (i->fd < 0)
		i->fd = v->fd;
	else
		return;
	v->fd = -1;
}

void victim_release(struct tfs *fs, struct victim *v)
{
	if (v->listed) {
		pthread_mutex_lock(&fs->victims.lock);
		LIST_REMOVE(v, link);
		pthread_cond_broadcast(&fs->victims.recorded);
		pthread_mutex_unlock(&fs->victims.lock);
	}
	if (v->inode) {
		pthread_mutex_lock(&fs->tree.lock);
		tree_unpin_locked(&fs->tree, v->inode);
		pthread_mutex_unlock(&fs->tree.lock);
	}
	if (v->fd >= 0)
		close(v->fd);
}

void victims_init(struct victims *list)
{
	pthread_mutex_init(&list->lock, NULL);
	pthread_cond_init(&list->recorded, NULL);
	LIST_INIT(&list->list);
}

static bool listed_locked(const struct victims *list, const struct stat *st)
{
	const struct victim *v;

	LIST_FOREACH(v, &list->list, link)
		if (v->st.st_ino == st->st_ino && v->st.st_dev == st->st_dev)
			return true;
	return false;
}

void victims_await(struct tfs *fs, const struct stat *st)
{
	pthread_mutex_lock(&fs->victims.lock);
	while (listed_locked(&fs->victims, st))
		pthread_cond_wait(&fs->victims.recorded, &fs->victims.lock);
	pthread_mutex_unlock(&fs->victims.lock);
}
