/* SPDX-License-Identifier: BSD-2-Clause
 * Durable file I/O: see fileio.h. */
#include "config.h"
#include "proto/fileio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/err.h"

int fio_pread(int fd, void *data, size_t n, off_t off)
{
	uint8_t *p = data;
	while (n) {
		ssize_t r = pread(fd, p, n, off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -ENODATA;
		p += r;
		off += r;
		n -= (size_t)r;
	}
	return 0;
}

int fio_pwrite(int fd, const void *data, size_t n, off_t off)
{
	const uint8_t *p = data;
	while (n) {
		ssize_t r = pwrite(fd, p, n, off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		off += r;
		n -= (size_t)r;
	}
	return 0;
}

int fio_sync(int fd)
{
	struct stat st;
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		return fsync(fd) ? -errno : 0;
	return fdatasync(fd) ? -errno : 0;
}

int fio_replace(int dirfd, const char *name, const void *data, size_t n, mode_t mode)
{
	char tmp[NAME_MAX + 1];
	if ((size_t)snprintf(tmp, sizeof(tmp), "%s.tmp", name) >= sizeof(tmp))
		return -ENAMETOOLONG;
	int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return -errno;
	int err = fio_pwrite(fd, data, n, 0);
	if (!err)
		err = fio_sync(fd);
	if (close(fd) && !err)
		err = -errno;
	if (!err && renameat(dirfd, tmp, dirfd, name))
		err = -errno;
	if (err) {
		unlinkat(dirfd, tmp, 0);
		return err;
	}
	return fio_sync(dirfd);
}

int fio_slurp(int dirfd, const char *name, size_t max, char **data, size_t *n)
{
	*data = NULL;
	*n = 0;
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size_t cap = 4096, len = 0;
	char *p = malloc(cap + 1);
	int err = p ? 0 : -ENOMEM;
	while (!err) {
		if (len == cap) {
			char *q = cap < max ? realloc(p, cap * 2 + 1) : NULL;
			if (!q) {
				err = cap < max ? -ENOMEM : E_LIMIT;
				break;
			}
			p = q;
			cap *= 2;
		}
		ssize_t r = read(fd, p + len, cap - len);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			err = -errno;
		if (r <= 0)
			break;
		len += (size_t)r;
	}
	close(fd);
	if (!err && len > max)
		err = E_LIMIT;
	if (err) {
		free(p);
		return err;
	}
	p[len] = 0;
	*data = p;
	*n = len;
	return 0;
}

int fio_prealloc(int dirfd, const char *name, size_t size, mode_t mode)
{
	int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return -errno;
	int err = posix_fallocate(fd, 0, (off_t)size);
	if (err) {
		close(fd);
		return -err;
	}
	return fd;
}

int fio_open_dir(const char *path)
{
	char p[PATH_MAX];
	if ((size_t)snprintf(p, sizeof(p), "%s", path) >= sizeof(p))
		return -ENAMETOOLONG;
	for (char *s = p + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = 0;
		if (mkdir(p, 0755) && errno != EEXIST && errno != EROFS && errno != EACCES)
			return -errno;
		*s = '/';
	}
	if (mkdir(p, 0700) && errno != EEXIST)
		return -errno;
	int fd = open(p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int fio_check_secret(const char *path, char *why, size_t size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		int err = -errno;
		snprintf(why, size, "%s cannot be opened: %s", path, err_text(err));
		return err;
	}
	int err = fstat(fd, &st) ? -errno : 0;
	close(fd);
	if (err)
		return err;
	if (!S_ISREG(st.st_mode)) {
		snprintf(why, size, "%s is not a regular file", path);
		return -EPERM;
	}
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		snprintf(why, size, "%s belongs to uid %u, not to uid %u or root: chown it", path, st.st_uid, geteuid());
		return -EPERM;
	}
	if (st.st_mode & 077) {
		snprintf(why, size, "%s has mode %04o and must not be accessible to others: chmod 600 %s", path,
		    st.st_mode & 07777, path);
		return -EPERM;
	}
	return 0;
}

int fio_boot_id(uint8_t id[16])
{
	char *text;
	size_t n;
	int err = fio_slurp(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 4096, &text, &n);
	if (err)
		return err;
	int got = 0;
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): no error, so there is a text */
	for (const char *s = text; *s && got < 32; s++) {
		int v = *s >= '0' && *s <= '9' ? *s - '0' : *s >= 'a' && *s <= 'f' ? *s - 'a' + 10 : -1;
		if (v < 0)
			continue;
		id[got / 2] = (uint8_t)(got % 2 ? id[got / 2] << 4 | v : v);
		got++;
	}
	free(text);
	return got == 32 ? 0 : -EINVAL;
}

uint64_t fio_mount_id(int fd)
{
	enum { UNIQUE = 0x4000, AT = 0x90 }; /* STATX_MNT_ID_UNIQUE, stx_mnt_id: libraries are older than the kernel */
	struct statx x;
	uint64_t id;
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, UNIQUE, &x) || !(x.stx_mask & UNIQUE))
		return 0;
	memcpy(&id, (const uint8_t *)&x + AT, sizeof(id));
	return id;
}

void fio_std_fill(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		int got = fcntl(fd, F_GETFD) < 0 ? open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) : fd;
		if (got != fd) /* the lowest that is free */
			return;
	}
}

void fio_random(void *data, size_t n)
{
	uint8_t *p = data;
	while (n) {
		ssize_t r = getrandom(p, n, 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			abort(); /* no randomness: keys and identities would be guessable */
		p += r;
		n -= (size_t)r;
	}
}
