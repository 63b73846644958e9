/* SPDX-License-Identifier: BSD-2-Clause
 * A system call on a name that holds on when it is done, for the processes that preload this (hold.py).
 *
 *   TANDEM_TEST_HOLD   a directory: who finds CALL.NAME there (fstatat or renameat2, of that name) after the call renames it to CALL.NAME.held and goes on
 * when that is gone. So one call is held, no other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void hold(const char *call, const char *name)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	const char *dir = getenv("TANDEM_TEST_HOLD");
	char from[4096], to[4096 + 8];
	int saved = errno;

	if (dir && name && *name) {
		snprintf(from, sizeof(from), "%s/%s.%s", dir, call, name);
		snprintf(to, sizeof(to), "%s.held", from);
		if (rename(from, to) == 0)
			while (access(to, F_OK) == 0)
				nanosleep(&pause, NULL);
	}
	errno = saved;
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
