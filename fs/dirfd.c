/* SPDX-License-Identifier: BSD-2-Clause
 * Descriptors of directories: a bounded LRU of O_PATH descriptors.
 *
 * A directory that is not cached is opened from its nearest cached ancestor, one component at a time,
 * and what was opened is accepted only if it is the inode the table says (dev, ino). A concurrent rename
 * of an ancestor makes an attempt fail; the next one uses the names as they are then. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree.h"
#include "proto/path.h"

#define TRIES 100 /* attempts that may fail because of concurrent renames */

static void evict_locked(struct tree *t)
{
	struct dirfd *d = TAILQ_LAST(&t->lru, dirfd_list), *prev;

	for (; d && t->ndirfds > DIRFD_MAX; d = prev) {
		prev = TAILQ_PREV(d, dirfd_list, lru);
		if (d->pins)
			continue;
		TAILQ_REMOVE(&t->lru, d, lru);
		t->ndirfds--;
		d->inode->dir = NULL;
		close(d->fd); /* O_PATH: releases a reference, never waits for I/O */
		free(d);
	}
}

/* Cache fd (taken) for i, unless another thread was faster. */
static int install_locked(struct tree *t, struct inode *i, int fd)
{
	struct dirfd *d;

	if (i->dir) {
		close(fd);
		return 0;
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	d->inode = i;
	d->fd = fd;
	i->dir = d;
	TAILQ_INSERT_HEAD(&t->lru, d, lru);
	t->ndirfds++;
	return 0;
}

static void pin_locked(struct dirfd *d)
{
	d->pins++;
	tree_pin_locked(d->inode);
}

static void unpin_locked(struct tree *t, struct dirfd *d)
{
	d->pins--;
	tree_unpin_locked(t, d->inode); /* may free d */
}

static void touch_locked(struct tree *t, struct dirfd *d)
{
	if (!d->keep && TAILQ_FIRST(&t->lru) != d) {
		TAILQ_REMOVE(&t->lru, d, lru);
		TAILQ_INSERT_HEAD(&t->lru, d, lru);
	}
}

void dirfd_keep_locked(struct tree *t, struct inode *i, int fd)
{
	if (!i->dir && install_locked(t, i, fd) < 0)
		return;
	if (i->dir->fd != fd && fd >= 0)
		close(fd);
	if (!i->dir->keep) {
		TAILQ_REMOVE(&t->lru, i->dir, lru);
		t->ndirfds--;
		i->dir->keep = true;
	}
}

void dirfd_drop_locked(struct tree *t, struct inode *i)
{
	struct dirfd *d = i->dir;

	if (!d)
		return;
	if (!d->keep) {
		TAILQ_REMOVE(&t->lru, d, lru);
		t->ndirfds--;
	}
	i->dir = NULL;
	close(d->fd);
	free(d);
}

/* Open name below dirfd and accept it only as (dev, ino). */
static int open_verified(int dirfd, const char *name, uint64_t dev, uint64_t ino)
{
	struct stat st;
	int fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOTDIR || errno == ELOOP ? -ENOENT : -errno;
	if (fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == ino)
		return fd;
	close(fd);
	return -ENOENT;
}

/* One step: open the topmost directory on the way to i whose parent is cached. */
static int step_locked(struct tree *t, struct inode *i)
{
	char name[PATH_MAX];
	struct inode *c = i;
	struct dirfd *up;
	int fd, r;

	while (c->names && !c->names->parent->dir)
		c = c->names->parent;
	if (!c->names)
		return -ESTALE;
	up = c->names->parent->dir;
	pin_locked(up);
	touch_locked(t, up);
	tree_pin_locked(c);
	memcpy(name, c->names->name, strlen(c->names->name) + 1);
	pthread_mutex_unlock(&t->lock);
	fd = open_verified(up->fd, name, c->dev, c->ino);
	pthread_mutex_lock(&t->lock);
	r = fd < 0 ? fd : install_locked(t, c, fd);
	unpin_locked(t, up);
	tree_unpin_locked(t, c);
	return r;
}

int dirfd_get(struct tree *t, struct inode *i, struct dirfd **out)
{
	int failed = 0, r = 0;

	pthread_mutex_lock(&t->lock);
	tree_pin_locked(i);
	while (!i->dir) {
		r = step_locked(t, i);
		if (r == -ENOENT && ++failed < TRIES) {
			tree_await_rename_locked(t);
			continue;
		}
		if (r < 0)
			break;
	}
	if (i->dir) {
		r = 0;
		pin_locked(i->dir);
		touch_locked(t, i->dir);
		*out = i->dir;
		evict_locked(t);
	}
	tree_unpin_locked(t, i);
	pthread_mutex_unlock(&t->lock);
	return r == -ENOENT ? -ESTALE : r;
}

void dirfd_put(struct tree *t, struct dirfd *d)
{
	pthread_mutex_lock(&t->lock);
	unpin_locked(t, d);
	pthread_mutex_unlock(&t->lock);
}
