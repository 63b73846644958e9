/* SPDX-License-Identifier: BSD-2-Clause
 * Removing a tree by descriptors. Depth is bounded by descriptors, not by recursion: below RMTREE_DEPTH
 * levels a subdirectory is moved up beside its ancestor's removal, so that a tree of any depth goes with a
 * fixed number of descriptors. Where something may stay, which is to stay where it is, it gets a walk of its own instead, as long as
 * there are descriptors. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/path.h"
#include "replicator/module/apply.h"
#include "replicator/module/node.h"

#define RMTREE_DEPTH 64 /* directories open at a time */

struct level {
	DIR *dir;
	char name[PATH_NAME_MAX + 1]; /* in the level above */
	size_t path_len;	      /* bytes of the walk's path before this level's name was added */
};

struct walk {
	struct apply *a;
	int topfd; /* where deep directories are moved to: the module's tmp directory */
	const struct filter *filter; /* what stays; NULL: nothing */
	unsigned n;
	unsigned count;
	struct level v[RMTREE_DEPTH];
	char path[PATH_LONGEST + PATH_NAME_MAX +
		  2]; /* of the level on top, for the filter; as far as it fits */
	int kept;     /* first failure: something stays */
};

/* Open a directory that is to go, and so is made to be its owner's if he may not do what he likes in it. */
static int open_dir(int dirfd, const char *name, int tmpfd)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	struct stat st;
	int fd = openat(dirfd, name, flags);
	if (fd < 0 && errno == EACCES && node_chmod(dirfd, name, S_IRWXU, tmpfd) == 0)
		fd = openat(dirfd, name, flags);
	if (fd >= 0 && geteuid() != 0 && fstat(fd, &st) == 0 && (st.st_mode & S_IRWXU) != S_IRWXU)
		fchmod(fd, S_IRWXU);
	return fd;
}

static int push(struct walk *w, int dirfd, const char *name)
{
	struct level *l = &w->v[w->n];
	int fd = open_dir(dirfd, name, w->topfd);
	l->dir = fd < 0 ? NULL : fdopendir(fd);
	if (!l->dir) {
		int err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->path_len = strlen(w->path);
	if (w->n)
		path_join(w->path, sizeof(w->path), w->path, name);
	w->n++;
	return 0;
}

static int remove_dir(struct apply *a, int dirfd, const char *name, const char *path);

static int remove_in_place(struct walk *w, int fd, const char *name)
{
	char *path = malloc(sizeof(w->path));
	int err = !path ? -ENOMEM : path_join(path, sizeof(w->path), w->path, name) ? -ENOTEMPTY : remove_dir(w->a, fd, name, path);
	free(path);
	return err == -EMFILE ? -ENOTEMPTY : err; /* not to be waited for */
}

static int move_aside(struct walk *w, int fd, const char *name)
{
	char moved[32];
	int err;
	do { /* an earlier connection may have left some */
		snprintf(moved, sizeof(moved), "rm%llu", (unsigned long long)++w->a->serial);
		err = renameat(fd, name, w->topfd, moved) ? -errno : 0;
		if (err == -EACCES && node_chmod(fd, name, S_IRWXU, w->topfd) == 0) /* its ".." changes */
			err = renameat(fd, name, w->topfd, moved) ? -errno : 0;
	} while (err == -ENOTEMPTY || err == -EEXIST);
	return err;
}

/* Remove one entry of the level on top. Returns 0, or 1 when a level was pushed, or an error that ends the
 * walk. */
static int remove_entry(struct walk *w, const struct dirent *e)
{
	int fd = dirfd(w->v[w->n - 1].dir);
	const struct filter *f = w->filter;
	struct stat st;
	bool is_dir = e->d_type == DT_DIR;
	if (e->d_type == DT_UNKNOWN)
		is_dir = node_stat(fd, e->d_name, &st) == 0 && S_ISDIR(st.st_mode);
	if (f && f->n) {
		char *path = malloc(sizeof(w->path));
		bool stay = !path || path_join(path, sizeof(w->path), w->path, e->d_name) ||
			    filter_excluded(f, path, is_dir);
		free(path);
		if (stay) {
			w->kept = w->kept ? w->kept : -ENOTEMPTY;
			return 0;
		}
	}
	if (!is_dir) {
		if (unlinkat(fd, e->d_name, 0) && errno != ENOENT)
			w->kept = w->kept ? w->kept : -errno;
		return 0;
	}
	if (unlinkat(fd, e->d_name, AT_REMOVEDIR) == 0)
		return 0;
	if (w->n < RMTREE_DEPTH) {
		int err = push(w, fd, e->d_name);
		if (err)
			w->kept = w->kept ? w->kept : err;
		return err ? 0 : 1;
	}
	int err = f && f->n ? remove_in_place(w, fd, e->d_name) : move_aside(w, fd, e->d_name);
	w->kept = w->kept ? w->kept : err;
	return 0;
}

static void pop(struct walk *w)
{
	struct level *l = &w->v[--w->n];
	closedir(l->dir);
	w->path[l->path_len] = 0;
	if (w->n && unlinkat(dirfd(w->v[w->n - 1].dir), l->name, AT_REMOVEDIR) && errno != ENOENT)
		w->kept = w->kept ? w->kept : -errno;
}

static int walk_tree(struct walk *w)
{
	while (w->n) {
		errno = 0;
		struct dirent *e = readdir(w->v[w->n - 1].dir);
		if (!e) {
			pop(w);
			continue;
		}
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (++w->count % 256 == 0) {
			int err = w->a->env.tick(w->a->env.arg);
			if (err)
				return err;
		}
		remove_entry(w, e);
	}
	return w->kept;
}

/* Remove dirfd/name, which is a directory. path: NULL where it is one of ours. */
static int remove_dir(struct apply *a, int dirfd, const char *name, const char *path)
{
	struct walk *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->a = a;
	w->topfd = a->env.tmpfd;
	w->filter = path ? a->env.filter : NULL;
	snprintf(w->path, sizeof(w->path), "%s", path ? path : "");
	int err = push(w, dirfd, name);
	if (!err)
		err = walk_tree(w);
	while (w->n)
		closedir(w->v[--w->n].dir);
	free(w);
	if (err)
		return err;
	return unlinkat(dirfd, name, AT_REMOVEDIR) && errno != ENOENT ? -errno : 0;
}

/* Remove what the walk moved aside, which may move deeper parts aside in turn. */
static int remove_moved(struct apply *a, uint64_t from)
{
	int first = 0;
	for (uint64_t i = from; i < a->serial; i++) {
		char name[32];
		struct stat st;
		snprintf(name, sizeof(name), "rm%llu", (unsigned long long)i + 1);
		if (node_stat(a->env.tmpfd, name, &st))
			continue;
		int err = remove_dir(a, a->env.tmpfd, name, NULL);
		if (err < E_FIRST)
			return err;
		first = first ? first : err;
	}
	return first;
}

static int remove_all(struct apply *a, int dirfd, const char *name, const char *path)
{
	uint64_t from = a->serial;
	int err = remove_dir(a, dirfd, name, path);
	if (a->serial > from) {
		int moved = remove_moved(a, from);
		err = err ? err : moved;
	}
	return err;
}

int apply_rmtmp(struct apply *a, const char *name)
{
	return remove_all(a, a->env.tmpfd, name, NULL);
}

int apply_rmtree(struct apply *a, const char *path)
{
	const char *base;
	struct stat st;
	int fd = path_open_parent(a->env.rootfd, path, &base);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	int err = node_stat(fd, base, &st);
	if (!err && !S_ISDIR(st.st_mode))
		err = unlinkat(fd, base, 0) ? -errno : 0;
	else if (!err)
		err = remove_all(a, fd, base, path);
	close(fd);
	return err == -ENOENT ? 0 : err;
}
