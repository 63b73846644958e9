/* SPDX-License-Identifier: BSD-2-Clause
 * A system call on a name that holds on, or fails, when it is done, for the processes that preload this (hold.py).
 *
 *   TANDEM_TEST_HOLD   a directory: who finds CALL.NAME there (fstatat or renameat2, of that name) after the call renames it to CALL.NAME.held and goes on
 * when that is gone, or after ten seconds, when it leaves CALL.NAME.late; who finds CALL.NAME.fail there removes it and fails with the error that its
 * text is the number of. So it is one call, no other. NAME is the last component; of two names the new one for linkat, the old one for renameat2. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
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

/* What the call on name returns that was done and returned r: -1 with the error that is asked for, if one is. */
static int failing(int r, const char *call, const char *name)
{
	const char *dir = getenv("TANDEM_TEST_HOLD");
	char mark[8192], text[16] = "";
	int fd, saved = errno;

	if (!dir || !*name || r < 0)
		return r;
	snprintf(mark, sizeof(mark), "%s/%s.%s.fail", dir, call, name);
	fd = open(mark, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && unlink(mark) == 0) {
		saved = atoi(text);
		r = -1;
	}
	if (fd >= 0)
		close(fd);
	errno = saved;
	return r;
}

/* The same for a link to the file in /proc/self/fd. */
static int failing_link(int r, const char *call, const char *path)
{
	char file[4096];
	const char *slash;
	int saved = errno;
	ssize_t n = readlink(path, file, sizeof(file) - 1);

	errno = saved;
	if (n < 0)
		return r;
	file[n] = 0;
	slash = strrchr(file, '/');
	return failing(r, call, slash ? slash + 1 : file);
}

static int failing_fd(int r, const char *call, int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return failing_link(r, call, path);
}

/* Define call(parameters), which makes the system's call(arguments) known there as symbol, and returns result of what that returned, r. */
#define WRAP(call, symbol, parameters, arguments, result)                         \
	int call parameters                                                       \
	{                                                                         \
		static int(*real) parameters;                                     \
		int r;                                                            \
                                                                                  \
		if (!real)                                                        \
			real = (__typeof__(real))dlsym(RTLD_NEXT, symbol);        \
		r = real arguments;                                               \
		return result;                                                    \
	}

WRAP(truncate, "truncate64", (const char *path, off_t size), (path, size), failing_link(r, "truncate", path))
WRAP(truncate64, "truncate64", (const char *path, off64_t size), (path, size), failing_link(r, "truncate", path))
WRAP(ftruncate, "ftruncate64", (int fd, off_t size), (fd, size), failing_fd(r, "truncate", fd))
WRAP(ftruncate64, "ftruncate64", (int fd, off64_t size), (fd, size), failing_fd(r, "truncate", fd))
WRAP(chmod, "chmod", (const char *path, mode_t mode), (path, mode), failing_link(r, "chmod", path))
WRAP(fchmod, "fchmod", (int fd, mode_t mode), (fd, mode), failing_fd(r, "chmod", fd))
WRAP(setxattr, "setxattr", (const char *path, const char *name, const void *value, size_t size, int flags), (path, name, value, size, flags),
     failing_link(r, "setxattr", path))
WRAP(mkdirat, "mkdirat", (int dir, const char *name, mode_t mode), (dir, name, mode), failing(r, "mkdirat", name))
WRAP(mknodat, "mknodat", (int dir, const char *name, mode_t mode, dev_t dev), (dir, name, mode, dev), failing(r, "mknodat", name))
WRAP(symlinkat, "symlinkat", (const char *target, int dir, const char *name), (target, dir, name), failing(r, "symlinkat", name))
WRAP(linkat, "linkat", (int from, const char *old, int dir, const char *name, int flags), (from, old, dir, name, flags), failing(r, "linkat", name))
WRAP(unlinkat, "unlinkat", (int dir, const char *name, int flags), (dir, name, flags), failing(r, "unlinkat", name))
WRAP(renameat2, "renameat2", (int from, const char *old, int to, const char *name, unsigned flags), (from, old, to, name, flags),
     (hold("renameat2", old), failing(r, "renameat2", old)))
WRAP(fstatat, "fstatat", (int dir, const char *name, struct stat *st, int flags), (dir, name, st, flags),
     (hold("fstatat", name), failing(r, "fstatat", name)))
WRAP(fstatat64, "fstatat64", (int dir, const char *name, struct stat64 *st, int flags), (dir, name, st, flags),
     (hold("fstatat", name), failing(r, "fstatat", name)))

int openat(int dir, const char *name, int flags, ...)
{
	static int (*real)(int, const char *, int, ...);
	__builtin_va_list ap;
	unsigned mode;
	int fd;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "openat64");
	__builtin_va_start(ap, flags);
	mode = __builtin_va_arg(ap, unsigned);
	__builtin_va_end(ap);
	fd = real(dir, name, flags, mode);
	if (fd >= 0 && flags & O_CREAT && failing(0, "create", name) < 0) {
		dir = errno;
		close(fd);
		errno = dir;
		fd = -1;
	}
	return fd;
}
