/* SPDX-License-Identifier: BSD-2-Clause
 * New directories filled aside: see newdir.h. */
#include "config.h"
#include "replicator/module/newdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/err.h"
#include "proto/path.h"
#include "replicator/module/apply.h"

#define MODE_MADE 0700u /* what a comparison makes directories with */

void newdir_made(struct newdir *d, const char *path)
{
	d->fresh[d->made++ % NEWDIR_FRESH] = XXH3_64bits(path, strlen(path));
}

void newdir_forget(struct newdir *d)
{
	d->made = 0;
}

/* The one made last is mostly the one that comes next. */
static bool is_fresh(const struct newdir *d, uint64_t hash)
{
	unsigned n = d->made < NEWDIR_FRESH ? d->made : NEWDIR_FRESH;
	for (unsigned i = 1; i <= n; i++)
		if (d->fresh[(d->made - i) % NEWDIR_FRESH] == hash)
			return true;
	return false;
}

static bool is_empty(int dirfd)
{
	char entries[1024];
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : getdents64(fd, entries, sizeof(entries));
	bool dots = n > 0;
	for (ssize_t at = 0; dots && at < n;) {
		const struct dirent64 *e = (const struct dirent64 *)(void *)(entries + at);
		dots = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
		at += e->d_reclen;
	}
	dots = dots && getdents64(fd, entries, sizeof(entries)) == 0;
	if (fd >= 0)
		close(fd);
	return dots;
}

/* Make the twin of a directory as the comparison made that: its attributes come at the end, when the twin has its place. */
static int make_twin(struct apply *a, const struct stat *st)
{
	struct newdir *d = &a->newdir;
	struct stat made;
	snprintf(d->name, sizeof(d->name), "new%llx", (unsigned long long)++a->serial);
	if (mkdirat(a->env.tmpfd, d->name, MODE_MADE))
		return -1;
	int fd = openat(a->env.tmpfd, d->name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool owned = fd >= 0 && fstat(fd, &made) == 0 &&
		     (a->env.no_owner || (made.st_uid == st->st_uid && made.st_gid == st->st_gid) ||
		      fchownat(fd, "", st->st_uid, st->st_gid, AT_EMPTY_PATH) == 0);
	if (owned)
		return fd;
	if (fd >= 0)
		close(fd);
	unlinkat(a->env.tmpfd, d->name, AT_REMOVEDIR);
	return -1;
}

static void open_twin(struct apply *a, const char *path, size_t len)
{
	struct newdir *d = &a->newdir;
	struct dir *dir;
	const char *base;
	struct stat st;
	if (dirs_parent(&a->dirs, path, &dir, &base) || fstat(dir->fd, &st) || (st.st_mode & 07777) != MODE_MADE ||
	    !is_empty(dir->fd))
		return;
	char *copy = strndup(path, len);
	int fd = copy ? make_twin(a, &st) : -1;
	if (fd < 0) {
		free(copy);
		return;
	}
	d->twin = (struct dir){.path = copy, .len = len, .fd = fd, .restore = true};
	d->open = true;
}

void newdir_begin(struct apply *a, const char *path)
{
	struct newdir *d = &a->newdir;
	size_t len = path_parent_len(path);
	uint64_t hash = XXH3_64bits(path, len);
	if (hash == d->last) {
		d->files++;
		return;
	}
	d->few = d->files && d->files < NEWDIR_WORTH;
	d->last = hash;
	d->files = 1;
	if (!d->open && !d->few && is_fresh(d, hash))
		open_twin(a, path, len);
}

static bool is_in(const struct newdir *d, const char *path)
{
	return path_parent_len(path) == d->twin.len && memcmp(path, d->twin.path, d->twin.len) == 0;
}

int newdir_parent(struct apply *a, const char *path, struct dir **dir, const char **base)
{
	struct newdir *d = &a->newdir;
	if (!d->open || !is_in(d, path))
		return dirs_parent(&a->dirs, path, dir, base);
	*dir = &d->twin;
	*base = path_base(path);
	return 0;
}

bool newdir_keeps(const struct newdir *d, const struct wop *op, const struct jrec *rec)
{
	if (!d->open)
		return true;
	switch (op->type) {
	case WOP_BEGIN:
	case WOP_DATA:
	case WOP_HOLE:
	case WOP_ABORT:
		return true;
	case WOP_POS:
		return op->flags & 1;
	case WOP_COMMIT:
		return op->seq == 0 && is_in(d, op->path);
	case WOP_XATTRS:
		return is_in(d, op->path);
	case WOP_REC:
		return !rec || (rec->seq == 0 && is_in(d, rec->path) &&
				(rec->type == JT_MKDIR || rec->type == JT_SYMLINK || rec->type == JT_MKNOD));
	default:
		return false;
	}
}

static int take_place(struct apply *a)
{
	struct newdir *d = &a->newdir;
	struct dir *dir;
	const char *base;
	dirs_drop(&a->dirs, d->twin.path); /* it will be another directory */
	int err = dirs_parent(&a->dirs, d->twin.path, &dir, &base);
	if (err)
		return err;
	dirs_keep(&a->dirs, dir, (struct jtime){0});
	return renameat(a->env.tmpfd, d->name, dir->fd, base) ? -errno : 0;
}

static void report(struct apply *a, int err)
{
	char text[256];
	snprintf(text, sizeof(text), "a new directory cannot take its place: %s", err_text(err));
	struct wfail f = {.code = WR_EXISTS, .sys_errno = -err, .path = a->newdir.twin.path, .path2 = "", .text = text};
	a->env.fail(a->env.arg, &f);
}

void newdir_place(struct apply *a)
{
	struct newdir *d = &a->newdir;
	if (!d->open)
		return;
	d->open = false;
	int err = take_place(a);
	if (err == -EACCES) {
		if (reach_for(&a->reach, d->twin.path) > 0)
			err = take_place(a);
		reach_end(&a->reach);
	}
	if (err) {
		report(a, err);
		apply_rmtmp(a, d->name);
	}
	close(d->twin.fd);
	free(d->twin.path);
}
