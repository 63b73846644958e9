/* SPDX-License-Identifier: BSD-2-Clause
 * Path rules and safe resolution: see path.h.
 *
 * Resolution never leaves rootfd and never follows a symlink. openat2(2) does it in one call when the
 * path fits into PATH_MAX; without it (old kernel, seccomp) or for longer paths each component is opened
 * from its parent with O_NOFOLLOW, which gives the same guarantee since valid paths have no "..". */
#include "config.h"
#include "proto/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proto/err.h"

bool path_name_valid(const char *name)
{
	size_t n = strlen(name);
	if (n == 0 || n > PATH_NAME_MAX || strchr(name, '/'))
		return false;
	return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

bool path_valid(const char *p)
{
	if (strnlen(p, PATH_LONGEST + 1) > PATH_LONGEST)
		return false;
	if (!*p)
		return true;
	size_t priv = strlen(PATH_PRIVATE);
	if (strncmp(p, PATH_PRIVATE, priv) == 0 && (p[priv] == '/' || p[priv] == 0))
		return false;
	for (const char *c = p;;) {
		size_t n = strcspn(c, "/");
		if (n == 0 || n > PATH_NAME_MAX)
			return false;
		if (c[0] == '.' && (n == 1 || (n == 2 && c[1] == '.')))
			return false;
		if (!c[n])
			return true;
		c += n + 1;
	}
}

bool path_name_silly(const char *name)
{
	return strncmp(name, ".nfs", 4) == 0 && strspn(name + 4, "0123456789abcdef") == 24 && name[28] == 0;
}

bool path_within(const char *dir, const char *p)
{
	size_t n = strlen(dir);
	if (n == 0)
		return true;
	return strncmp(dir, p, n) == 0 && (p[n] == 0 || p[n] == '/');
}

const char *path_base(const char *p)
{
	const char *s = strrchr(p, '/');
	return s ? s + 1 : p;
}

size_t path_parent_len(const char *p)
{
	const char *s = strrchr(p, '/');
	return s ? (size_t)(s - p) : 0;
}

int path_join(char *out, size_t size, const char *dir, const char *name)
{
	size_t d = strlen(dir), n = strlen(name), slash = d ? 1 : 0;
	if (d + slash + n + 1 > size)
		return E_LIMIT;
	memmove(out, dir, d); /* NOLINT(bugprone-not-null-terminated-result): the name follows, with its NUL */
	if (slash)
		out[d] = '/';
	memcpy(out + d + slash, name, n + 1);
	return 0;
}

int path_rebase(char *out, size_t size, const char *p, const char *from, const char *to)
{
	const char *rest = p + strlen(from);
	if (*rest == '/')
		rest++;
	if (!*rest) {
		if (strlen(to) + 1 > size)
			return E_LIMIT;
		memcpy(out, to, strlen(to) + 1);
		return 0;
	}
	return path_join(out, size, to, rest);
}

/* Length of the valid UTF-8 sequence at s, 0 if it is none. */
static size_t utf8_len(const unsigned char *s)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* overlong forms, surrogates, beyond U+10FFFF, and the C1 controls that terminals obey */
	if (n == 2 && s[0] == 0xc2 && s[1] < 0xa0)
		return 0;
	if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0)))
		return 0;
	if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90)))
		return 0;
	return n;
}

const char *path_show(char *out, size_t size, const char *p)
{
	size_t o = 0;
	if (!size)
		return "";
	for (const unsigned char *s = (const unsigned char *)p; *s;) {
		size_t n = utf8_len(s);
		bool plain = n > 1 || (n == 1 && *s >= 0x20 && *s != 0x7f && *s != '\\');
		if (o + (plain ? n : 4) >= size)
			break;
		if (plain) {
			memcpy(out + o, s, n);
			o += n;
			s += n;
		} else {
			o += (size_t)snprintf(out + o, size - o, "\\%03o", *s++);
		}
	}
	out[o] = 0;
	return out;
}

/* Open one relative path of at most PATH_MAX bytes beneath dirfd without symlinks. */
static int open_beneath(int dirfd, const char *p, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	for (int tries = 0;; tries++) {
		long fd = syscall(SYS_openat2, dirfd, p, &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN || tries > 64)
			return -errno;
	}
}

/* Open the directory that the first len bytes of p name, component by component. */
static int walk(int rootfd, const char *p, size_t len)
{
	int fd = openat(rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < len;) {
		char name[PATH_NAME_MAX + 1];
		size_t n = strcspn(p + at, "/");
		if (n > PATH_NAME_MAX) {
			close(fd);
			return -ENAMETOOLONG;
		}
		memcpy(name, p + at, n);
		name[n] = 0;
		int next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		int err = -errno;
		close(fd);
		if (next < 0)
			return err;
		fd = next;
		at += n + 1;
	}
	return fd;
}

int path_open_parent(int rootfd, const char *p, const char **base)
{
	size_t len = path_parent_len(p);
	*base = *p ? path_base(p) : ".";
	if (len && len < PATH_MAX) {
		char parent[PATH_MAX];
		memcpy(parent, p, len);
		parent[len] = 0;
		int fd = open_beneath(rootfd, parent, O_PATH | O_DIRECTORY);
		if (fd != -ENOSYS)
			return fd;
	}
	return walk(rootfd, p, len);
}

int path_open(int rootfd, const char *p, int flags)
{
	if (strlen(p) < PATH_MAX) {
		int fd = open_beneath(rootfd, *p ? p : ".", flags);
		if (fd != -ENOSYS)
			return fd;
	}
	const char *base;
	int dir = path_open_parent(rootfd, p, &base);
	if (dir < 0)
		return dir;
	int fd = openat(dir, base, flags | O_CLOEXEC | O_NOFOLLOW, 0);
	int err = -errno;
	close(dir);
	return fd < 0 ? err : fd; /* cppcheck-suppress resourceLeak ; it is returned */
}

int path_stat(int rootfd, const char *p, struct stat *st)
{
	const char *base;
	int dir = path_open_parent(rootfd, p, &base), err = 0;
	if (dir < 0)
		return dir;
	if (fstatat(dir, base, st, AT_SYMLINK_NOFOLLOW))
		err = -errno;
	close(dir);
	return err;
}

int path_make_parents(int rootfd, const char *p)
{
	size_t len = path_parent_len(p);
	int fd = openat(rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < len;) {
		char name[PATH_NAME_MAX + 1];
		size_t n = strcspn(p + at, "/");
		int err = n > PATH_NAME_MAX ? -ENAMETOOLONG : 0;
		int next = -1;
		if (!err) {
			memcpy(name, p + at, n);
			name[n] = 0;
			if (mkdirat(fd, name, 0700) && errno != EEXIST)
				err = -errno;
		}
		if (!err) {
			next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			err = next < 0 ? -errno : 0;
		}
		close(fd);
		if (err)
			return err;
		fd = next;
		at += n + 1;
	}
	close(fd);
	return 0;
}
