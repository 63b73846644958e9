/* SPDX-License-Identifier: BSD-2-Clause
 * A system call on a name that holds on, or fails, when it is done, for the processes that preload this (hold.py).
 *
 *   TANDEM_TEST_HOLD   a directory: who finds CALL.NAME there (fstatat or renameat2, of that name) after the call renames it to CALL.NAME.held and goes on
 * when that is gone, or after ten seconds, when it leaves CALL.NAME.late; who finds CALL.NAME.fail there (truncate, also by a descriptor) removes it and
 * says EIO. So it is one call, no other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void hold(const char *call, const char *name)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	const char *dir = getenv("TANDEM_TEST_HOLD");
	char from[4096], to[4096 + 8], late[4096 + 8];
	int saved = errno, left = 10000;

	if (dir && name && *name) {
		snprintf(from, sizeof(from), "%s/%s.%s", dir, call, name);
		snprintf(to, sizeof(to), "%s.held", from);
		snprintf(late, sizeof(late), "%s.late", from);
		if (rename(from, to) == 0) {
			while (access(to, F_OK) == 0 && --left > 0)
				nanosleep(&pause, NULL);
			if (left == 0)
				rename(to, late);
		}
	}
	errno = saved;
}

/* path: of the file, or of a link to it in /proc/self/fd. */
static int fails(const char *call, const char *path)
{
	const char *dir = getenv("TANDEM_TEST_HOLD"), *name;
	char file[4096], mark[8192];
	ssize_t n = readlink(path, file, sizeof(file) - 1);

	if (!dir || n < 0)
		return 0;
	file[n] = 0;
	name = strrchr(file, '/');
	snprintf(mark, sizeof(mark), "%s/%s.%s.fail", dir, call, name ? name + 1 : file);
	if (unlink(mark))
		return 0;
	errno = EIO;
	return 1;
}

int truncate(const char *path, off_t size)
{
	static int (*real)(const char *, off_t);
	int r;

	if (!real)
		real = dlsym(RTLD_NEXT, "truncate64");
	r = real(path, size);
	return r || fails("truncate", path) ? -1 : 0;
}

int truncate64(const char *path, off64_t size)
{
	return truncate(path, size);
}

int ftruncate(int fd, off_t size)
{
	static int (*real)(int, off_t);
	char path[64];
	int r;

	if (!real)
		real = dlsym(RTLD_NEXT, "ftruncate64");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = real(fd, size);
	return r || fails("truncate", path) ? -1 : 0;
}

int ftruncate64(int fd, off64_t size)
{
	return ftruncate(fd, size);
}

int fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
	static int (*real)(int, const char *, struct stat *, int);
	int r;

	if (!real)
		real = dlsym(RTLD_NEXT, "fstatat");
	r = real(dirfd, name, st, flags);
	hold("fstatat", name);
	return r;
}

int fstatat64(int dirfd, const char *name, struct stat64 *st, int flags)
{
	return fstatat(dirfd, name, (struct stat *)st, flags);
}

int renameat2(int fromfd, const char *from, int tofd, const char *to, unsigned flags)
{
	static int (*real)(int, const char *, int, const char *, unsigned);
	int r;

	if (!real)
		real = dlsym(RTLD_NEXT, "renameat2");
	r = real(fromfd, from, tofd, to, flags);
	hold("renameat2", from);
	return r;
}
