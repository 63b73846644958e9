/* SPDX-License-Identifier: BSD-2-Clause
 * A host of its own for the processes that preload this (host.py): another boot id, and a clock that jumps.
 *
 *   TANDEM_TEST_HOST   a file: 8 bytes, nanoseconds to add to CLOCK_REALTIME (host order), then the boot id
 * as the kernel writes it.
 *
 * The file is mapped once, so that confined processes see it, too, and changes are seen at once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

struct host {
	volatile int64_t shift_ns;
	char boot_id[37];
};

static struct host *host;
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("TANDEM_TEST_HOST");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*host), PROT_READ, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (p != MAP_FAILED)
		host = p;
	real_clock = dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int r;

	if (!real_clock)
		real_clock = dlsym(RTLD_NEXT, "clock_gettime");
	r = real_clock(id, ts);
	if (r == 0 && host && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
		int64_t ns = ts->tv_sec * INT64_C(1000000000) + ts->tv_nsec + host->shift_ns;

		ts->tv_sec = ns / 1000000000;
		ts->tv_nsec = ns % 1000000000;
	}
	return r;
}

time_t time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t)
		*t = ts.tv_sec;
	return ts.tv_sec;
}

int gettimeofday(struct timeval *tv, void *tz)
{
	struct timespec ts;

	(void)tz;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

/* The boot id, in a file of memory. */
static int boot_id(void)
{
	int fd = memfd_create("boot_id", MFD_CLOEXEC);

	if (fd >= 0 && (write(fd, host->boot_id, sizeof(host->boot_id)) < 0 || lseek(fd, 0, SEEK_SET) < 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int open_real(const char *symbol, int dirfd, const char *path, int flags, mode_t mode)
{
	int (*fn)(int, const char *, int, ...) = dlsym(RTLD_NEXT, symbol);

	return host && strcmp(path, BOOT_ID) == 0 ? boot_id() : fn(dirfd, path, flags, mode);
}

int openat(int dirfd, const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_real("openat", dirfd, path, flags, mode);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_real("openat64", dirfd, path, flags, mode);
}

int __openat_2(int dirfd, const char *path, int flags)
{
	return open_real("openat", dirfd, path, flags, 0);
}

int __openat64_2(int dirfd, const char *path, int flags)
{
	return open_real("openat64", dirfd, path, flags, 0);
}
