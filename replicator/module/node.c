/* SPDX-License-Identifier: BSD-2-Clause
 * Attributes of one directory entry: see node.h. Extended attributes have no *at() calls before Linux 6.13,
 * so the working directory is moved to the entry's parent and l*xattr(2) used on the bare name; only the
 * applying thread depends on the working directory. */
#include "config.h"
#include "replicator/module/node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "proto/path.h"
#include "proto/xattrs.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define CHMOD_NAME "chmod"

int node_stat(int dirfd, const char *name, struct stat *st)
{
	return fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

/* What cannot be opened, or not without an effect, gets its mode under a further name, where nobody can put a symlink in its place. */
static int chmod_by_link(int dirfd, const char *name, mode_t mode, int tmpfd)
{
	struct stat st;
	if (linkat(dirfd, name, tmpfd, CHMOD_NAME, 0))
		return -errno;
	int err = node_stat(tmpfd, CHMOD_NAME, &st);
	if (!err && S_ISLNK(st.st_mode))
		err = -ELOOP;
	if (!err && fchmodat(tmpfd, CHMOD_NAME, mode, 0))
		err = -errno;
	unlinkat(tmpfd, CHMOD_NAME, 0);
	return err;
}

/* A directory that its owner may not read: by its descriptor's name in /proc. Where there is no /proc, we are in a root of our own, which a symlink that
 * somebody puts in its place does not lead out of. */
static int chmod_closed(int dirfd, const char *name, mode_t mode)
{
	struct stat mine, there;
	char proc[32];
	int fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err;
	if (fd < 0)
		return -errno;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	if (fstat(fd, &mine) == 0 && stat(proc, &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev)
		err = fchmodat(AT_FDCWD, proc, mode, 0) ? -errno : 0;
	else
		err = stat("/proc/self/fd", &there) == 0 ? -EACCES : fchmodat(dirfd, name, mode, 0) ? -errno : 0;
	close(fd);
	return err;
}

/* Kernels before 6.6: through a descriptor, for the types that can be opened without an effect. */
static int chmod_by_open(int dirfd, const char *name, mode_t mode, int tmpfd)
{
	struct stat st;
	int err = node_stat(dirfd, name, &st);
	if (err || S_ISLNK(st.st_mode))
		return err;
	if ((st.st_mode & 07777) == mode)
		return 0;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISFIFO(st.st_mode))
		return chmod_by_link(dirfd, name, mode, tmpfd);
	int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && errno == EACCES)
		return S_ISDIR(st.st_mode) ? chmod_closed(dirfd, name, mode) : chmod_by_link(dirfd, name, mode, tmpfd);
	if (fd < 0)
		return -errno;
	err = fchmod(fd, mode) ? -errno : 0;
	close(fd);
	return err;
}

int node_chmod(int dirfd, const char *name, mode_t mode, int tmpfd)
{
	mode &= 07777;
	if (syscall(SYS_fchmodat2, dirfd, name, mode, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno == EOPNOTSUPP) {
		struct stat st;
		return node_stat(dirfd, name, &st) == 0 && S_ISLNK(st.st_mode) ? 0 : -EOPNOTSUPP;
	}
	if (errno == ENOSYS)
		return chmod_by_open(dirfd, name, mode, tmpfd);
	return -errno;
}

int node_chown(int dirfd, const char *name, uid_t uid, gid_t gid)
{
	return fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

int node_mtime(int dirfd, const char *name, struct jtime t)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = t.sec, .tv_nsec = t.nsec}};
	return utimensat(dirfd, name, ts, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

int node_open_file(int dirfd, const char *name, int flags, struct stat *st)
{
	int err = node_stat(dirfd, name, st);
	if (err)
		return err;
	if (!S_ISREG(st->st_mode))
		return S_ISDIR(st->st_mode) ? -EISDIR : -ENXIO;
	int fd = openat(dirfd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, st) || !S_ISREG(st->st_mode)) {
		close(fd);
		return -ENXIO;
	}
	return fd;
}

int node_open_path(int rootfd, const char *path, int flags, struct stat *st)
{
	const char *base;
	int dirfd = path_open_parent(rootfd, path, &base);
	if (dirfd < 0)
		return dirfd;
	int fd = node_open_file(dirfd, base, flags, st);
	close(dirfd);
	return fd;
}

static int enter(int dirfd)
{
	return fchdir(dirfd) ? -errno : 0;
}

int node_setxattr(int dirfd, const char *name, const char *xname, const void *val, size_t n)
{
	int err = enter(dirfd);
	if (err)
		return err;
	return lsetxattr(name, xname, val, n, 0) ? -errno : 0;
}

int node_removexattr(int dirfd, const char *name, const char *xname)
{
	int err = enter(dirfd);
	if (err)
		return err;
	return lremovexattr(name, xname) ? -errno : 0;
}

/* Say whether the owner, who we are, may not read: the values of "user." attributes are closed to him, too. */
static bool closed_to_us(int dirfd, const char *name)
{
	struct stat st;
	return geteuid() != 0 && node_stat(dirfd, name, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
	       st.st_uid == geteuid() && (st.st_mode & S_IRUSR) == 0;
}

int node_xattrs_read(int dirfd, const char *name, struct buf *out)
{
	int err = enter(dirfd);
	if (!err && closed_to_us(dirfd, name))
		return -EACCES;
	return err ? err : xattrs_read(out, -1, AT_FDCWD, name);
}

int node_xattrs_apply(int dirfd, const char *name, const void *set, size_t len)
{
	int err = enter(dirfd);
	return err ? err : xattrs_apply(set, len, -1, AT_FDCWD, name);
}

bool node_curable(int err)
{
	switch (err) {
	case -ENOSPC:
	case -EDQUOT:
	case -EROFS:
	case -EIO:
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
		return true;
	default:
		return false;
	}
}

int node_xattr_error(int fd, int err)
{
	struct statvfs sv;
	if ((err == -ENOSPC || err == -EDQUOT) && fstatvfs(fd, &sv) == 0 && sv.f_bavail > 1024)
		return WR_NO_SPACE;
	return err;
}

int node_set_attr(int dirfd, const char *name, const struct wattr *want, bool no_owner, int tmpfd)
{
	struct stat st;
	int err = node_stat(dirfd, name, &st);
	if (err)
		return err;
	bool chowned = !no_owner && (st.st_uid != want->uid || st.st_gid != want->gid);
	if (chowned && (err = node_chown(dirfd, name, want->uid, want->gid)))
		return err;
	/* chown clears set-id bits */
	if (!S_ISLNK(st.st_mode) && (chowned || ((st.st_mode ^ want->mode) & 07777)) &&
	    (err = node_chmod(dirfd, name, want->mode, tmpfd)))
		return err;
	return node_mtime(dirfd, name, want->mtime);
}
