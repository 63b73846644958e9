/* SPDX-License-Identifier: BSD-2-Clause
 * What its owner has no permission for: see reach.h. */
#include "config.h"
#include "replicator/module/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/path.h"
#include "replicator/module/node.h"

#define NOTE_NAME_MAX 24

void reach_init(struct reach *r, int rootfd, int dirfd, int tmpfd)
{
	r->rootfd = rootfd;
	r->dirfd = dirfd;
	r->tmpfd = tmpfd;
	r->n = 0;
}

static mode_t needed(const struct stat *st)
{
	return S_ISDIR(st->st_mode) ? 0700 : S_ISREG(st->st_mode) ? 0600 : 0;
}

static void note_name(char name[NOTE_NAME_MAX], unsigned n)
{
	snprintf(name, NOTE_NAME_MAX, "reach.%u", n);
}

static int note(const struct reach *r, mode_t mode, const char *path, size_t len)
{
	char name[NOTE_NAME_MAX], target[PATH_MAX];
	int n = snprintf(target, sizeof(target), "%o %.*s", mode & 07777u, (int)len, path);
	if (n < 0 || (size_t)n >= sizeof(target))
		return -ENAMETOOLONG;
	note_name(name, r->n);
	return symlinkat(target, r->dirfd, name) ? -errno : 0;
}

static void unnote(const struct reach *r, unsigned n)
{
	char name[NOTE_NAME_MAX];
	note_name(name, n);
	unlinkat(r->dirfd, name, 0);
}

static int open_node(int dirfd, const char *name, const struct stat *st)
{
	int type = S_ISDIR(st->st_mode) ? O_DIRECTORY : 0;
	int fd = openat(dirfd, name, O_RDONLY | type | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd; /* cppcheck-suppress resourceLeak ; it is returned */
}

/* Change the mode of dirfd/name, whose path is the first len bytes of path. Returns a descriptor of it, which belongs to r, or -errno. */
static int change(struct reach *r, int dirfd, const char *name, const struct stat *st, const char *path, size_t len)
{
	mode_t was = st->st_mode & 07777, now = was | needed(st);
	if (r->n == REACH_MAX)
		return -EACCES;
	int err = note(r, was, path, len);
	if (err)
		return err;
	err = node_chmod(dirfd, name, now, r->tmpfd);
	int fd = err ? err : open_node(dirfd, name, st);
	if (fd < 0) {
		if (!err)
			node_chmod(dirfd, name, was, r->tmpfd);
		unnote(r, r->n);
		return fd;
	}
	r->v[r->n].fd = fd;
	r->v[r->n].was = was;
	r->v[r->n++].now = now;
	return fd;
}

/* One component. *dirfd is the directory it is in, and becomes itself if it is one; -1 at the end of the way. */
static int step(struct reach *r, int *dirfd, const char *name, const char *path, size_t len)
{
	struct stat st;
	int err = node_stat(*dirfd, name, &st), fd = -1;
	if (err)
		return err;
	if (st.st_uid == geteuid() && (st.st_mode & needed(&st)) != needed(&st)) {
		fd = change(r, *dirfd, name, &st, path, len);
		if (fd < 0)
			return fd;
	}
	int below = -1;
	if (S_ISDIR(st.st_mode)) {
		below = openat(*dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0)
			return -errno;
	}
	close(*dirfd);
	*dirfd = below;
	return 0;
}

int reach_for(struct reach *r, const char *path)
{
	char name[PATH_NAME_MAX + 1];
	unsigned before = r->n;
	if (geteuid() == 0)
		return 0;
	int dirfd = fcntl(r->rootfd, F_DUPFD_CLOEXEC, 3);
	if (dirfd < 0)
		return -errno;
	int err = step(r, &dirfd, ".", path, 0);
	for (const char *p = path; !err && dirfd >= 0 && *p;) {
		size_t n = strcspn(p, "/");
		if (n > PATH_NAME_MAX) {
			err = -ENAMETOOLONG;
			break;
		}
		memcpy(name, p, n);
		name[n] = 0;
		p += n;
		err = step(r, &dirfd, name, path, (size_t)(p - path));
		p += *p == '/';
	}
	if (dirfd >= 0)
		close(dirfd);
	return err && err != -ENOENT ? err : r->n > before;
}

static void put_back(int fd, mode_t was, mode_t now)
{
	struct stat st;
	if (fstat(fd, &st) == 0 && (st.st_mode & 07777) == now)
		fchmod(fd, was);
}

void reach_leave(struct reach *r, const char *path)
{
	struct stat st, mine;
	if (path_stat(r->rootfd, path, &st))
		return;
	for (unsigned i = 0; i < r->n; i++)
		if (fstat(r->v[i].fd, &mine) == 0 && mine.st_dev == st.st_dev && mine.st_ino == st.st_ino)
			r->v[i].was = r->v[i].now;
}

void reach_back(struct reach *r, unsigned n)
{
	while (r->n > n) {
		r->n--;
		put_back(r->v[r->n].fd, r->v[r->n].was, r->v[r->n].now);
		close(r->v[r->n].fd);
		unnote(r, r->n);
	}
}

void reach_end(struct reach *r)
{
	reach_back(r, 0);
}

/* target: "MODE PATH". */
static void recover(int rootfd, char *target)
{
	const char *base;
	struct stat st;
	char *path;
	mode_t was = (mode_t)strtoul(target, &path, 8);
	if (*path++ != ' ' || !path_valid(path))
		return;
	int dirfd = *path ? path_open_parent(rootfd, path, &base) : fcntl(rootfd, F_DUPFD_CLOEXEC, 3);
	if (dirfd < 0)
		return;
	if (!*path)
		base = ".";
	int fd = node_stat(dirfd, base, &st) ? -1 : open_node(dirfd, base, &st);
	if (fd >= 0) {
		put_back(fd, was, was | needed(&st));
		close(fd);
	}
	close(dirfd);
}

/* Numbers are given up from the last one to the first. */
bool reach_is_left(int dirfd)
{
	char name[NOTE_NAME_MAX];
	struct stat st;
	note_name(name, 0);
	return node_stat(dirfd, name, &st) == 0;
}

/* What is deeper was changed later, and is reached only as long as what is above it is open. */
void reach_recover(int rootfd, int dirfd, int tmpfd)
{
	struct reach r;
	char name[NOTE_NAME_MAX], target[PATH_MAX];
	reach_init(&r, rootfd, dirfd, tmpfd);
	for (unsigned i = REACH_MAX; i-- > 0;) {
		note_name(name, i);
		ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		recover(rootfd, target);
		unnote(&r, i);
	}
}
