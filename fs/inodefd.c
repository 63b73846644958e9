/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/inodefd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/dirty.h"
#include "fs/tree.h"

#define TRIES 100 /* attempts that may fail because of concurrent renames */

/* One of i's names: its pinned parent directory and the name. */
struct place {
	struct inode *parent;
	struct dirfd *dir;
	char name[PATH_MAX];
};

/* Choose the nth name (modulo), so that an outdated one does not block the others. */
static int place_get(struct tfs *fs, struct inode *i, unsigned nth, struct place *p)
{
	struct dentry *d;
	unsigned n = 0;
	int r;

	pthread_mutex_lock(&fs->tree.lock);
	for (d = i->names; d; d = d->next)
		n++;
	d = i->names;
	for (n = n ? nth % n : 0; n > 0; n--)
		d = d->next;
	if (d) {
		p->parent = d->parent;
		tree_pin_locked(p->parent);
		memcpy(p->name, d->name, strlen(d->name) + 1);
	}
	pthread_mutex_unlock(&fs->tree.lock);
	if (!d)
		return -ESTALE;
	r = dirfd_get(&fs->tree, p->parent, &p->dir);
	pthread_mutex_lock(&fs->tree.lock);
	tree_unpin_locked(&fs->tree, p->parent);
	pthread_mutex_unlock(&fs->tree.lock);
	return r;
}

static void await_rename(struct tfs *fs)
{
	pthread_mutex_lock(&fs->tree.lock);
	tree_await_rename_locked(&fs->tree);
	pthread_mutex_unlock(&fs->tree.lock);
}

static bool same(const struct inode *i, const struct stat *st)
{
	return st->st_ino == i->ino && st->st_dev == i->dev;
}

static int open_by_name(struct tfs *fs, struct inode *i, int flags)
{
	struct place p;
	struct stat st;
	int fd = -1, r = -ESTALE;

	for (unsigned n = 0; n < TRIES; n++) {
		r = place_get(fs, i, n, &p);
		if (r < 0)
			return r;
		fd = openat(p.dir->fd, p.name, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		r = fd < 0 ? -errno : 0;
		dirfd_put(&fs->tree, p.dir);
		if (fd >= 0 && fstat(fd, &st) == 0 && same(i, &st))
			return fd;
		if (fd >= 0)
			close(fd);
		if (r < 0 && r != -ENOENT && r != -ELOOP && r != -ENXIO && r != -ENOTDIR)
			return r;
		await_rename(fs);
	}
	return -ESTALE;
}

/* What is at hand without opening anything. */
static bool at_hand(struct tfs *fs, struct inode *i, struct ifd *out)
{
	pthread_mutex_lock(&fs->tree.lock);
	out->file = ofile_borrow_locked(i, OFILE_ANY);
	if (out->file) {
		out->fd = out->file->fd;
	} else if (i->fd >= 0) {
		out->fd = i->fd; /* stays while the kernel remembers i, so during this operation */
		out->path_only = true;
	}
	pthread_mutex_unlock(&fs->tree.lock);
	return out->fd >= 0;
}

int ifd_get(struct tfs *fs, struct inode *i, struct ifd *out)
{
	int r;

	memset(out, 0, sizeof(*out));
	out->fd = -1;
	if (S_ISDIR(i->mode)) {
		r = dirfd_get(&fs->tree, i, &out->dir);
		if (r < 0)
			return r;
		out->fd = out->dir->fd;
		out->path_only = true;
		return 0;
	}
	if (at_hand(fs, i, out))
		return 0;
	r = open_by_name(fs, i, O_PATH);
	if (r < 0)
		return r;
	out->fd = r;
	out->own = true;
	out->path_only = true;
	return 0;
}

void ifd_put(struct tfs *fs, struct ifd *f)
{
	if (f->dir)
		dirfd_put(&fs->tree, f->dir);
	if (f->file)
		ofile_return(fs, f->file);
	if (f->own)
		close(f->fd);
}

const char *ifd_proc(const struct ifd *f, char out[IFD_PROC_MAX])
{
	snprintf(out, IFD_PROC_MAX, "/proc/self/fd/%d", f->fd);
	return out;
}

int ifd_stat(struct tfs *fs, struct inode *i, struct stat *st)
{
	struct ifd f = {.fd = -1};
	struct place p;
	int r;

	if (S_ISDIR(i->mode) || at_hand(fs, i, &f)) {
		if (f.fd < 0 && (r = dirfd_get(&fs->tree, i, &f.dir)) < 0)
			return r;
		r = fstat(f.fd < 0 ? f.dir->fd : f.fd, st) < 0 ? -errno : 0;
		ifd_put(fs, &f);
		return r;
	}
	for (unsigned n = 0; n < TRIES; n++) {
		r = place_get(fs, i, n, &p);
		if (r < 0)
			return r;
		r = fstatat(p.dir->fd, p.name, st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
		dirfd_put(&fs->tree, p.dir);
		if (r == 0 && same(i, st))
			return 0;
		if (r < 0 && r != -ENOENT)
			return r;
		await_rename(fs);
	}
	return -ESTALE;
}

/* A removed file that is still remembered is opened through its kept descriptor. */
int ifd_open(struct tfs *fs, struct inode *i, int flags)
{
	char proc[IFD_PROC_MAX];
	struct ifd f = {.fd = -1};
	bool named;
	int fd;

	pthread_mutex_lock(&fs->tree.lock);
	named = i->names != NULL;
	pthread_mutex_unlock(&fs->tree.lock);
	if (named)
		return open_by_name(fs, i, flags);
	if (!at_hand(fs, i, &f))
		return -ESTALE;
	fd = open(ifd_proc(&f, proc), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	fd = fd < 0 ? -errno : fd;
	ifd_put(fs, &f);
	return fd;
}
