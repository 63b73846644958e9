/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/supervisor.h"
#include "proto/log.h"

#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x200
#endif

bool mount_is_dead(const char *path)
{
	struct statfs sf;

	/* ECONNABORTED: it died while it was asked */
	return statfs(path, &sf) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

static int set(int ctx, const char *key, const char *value)
{
	unsigned cmd = value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;

	return fsconfig(ctx, cmd, key, value, 0) < 0 ? -errno : 0;
}

/* Describe the file system to the kernel: what fusermount3 would pass for our options. */
static int configure(const struct tfs *fs, int ctx, int dev, bool readonly)
{
	char fd[16], mode[16];
	struct stat st;
	int r;

	if (fstat(fs->rootfd, &st) < 0)
		return -errno;
	snprintf(fd, sizeof(fd), "%d", dev);
	snprintf(mode, sizeof(mode), "%o", st.st_mode & S_IFMT);
	if ((r = set(ctx, "source", "tandemfs")) < 0 || (r = set(ctx, "subtype", "tandemfs")) < 0 ||
	    (r = set(ctx, "fd", fd)) < 0 || (r = set(ctx, "rootmode", mode)) < 0 || (r = set(ctx, "user_id", "0")) < 0 ||
	    (r = set(ctx, "group_id", "0")) < 0 || (r = set(ctx, "default_permissions", NULL)) < 0)
		return r;
	if (fs->mirror->allow_other && (r = set(ctx, "allow_other", NULL)) < 0)
		return r;
	if (readonly && (r = set(ctx, "ro", NULL)) < 0)
		return r;
	return fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? -errno : 0;
}

/* The mount's own restrictions are those of the file system below. */
static unsigned attributes(const struct tfs *fs)
{
	struct statvfs sv;
	unsigned attr = 0;

	if (fstatvfs(fs->rootfd, &sv) < 0)
		return 0;
	attr |= sv.f_flag & ST_NOSUID ? MOUNT_ATTR_NOSUID : 0;
	attr |= sv.f_flag & ST_NODEV ? MOUNT_ATTR_NODEV : 0;
	attr |= sv.f_flag & ST_NOEXEC ? MOUNT_ATTR_NOEXEC : 0;
	attr |= sv.f_flag & ST_RDONLY ? MOUNT_ATTR_RDONLY : 0;
	return attr;
}

/* Put the new mount in its place, where a dead one may be. */
static int place(int mnt, const char *path)
{
	if (mount_is_dead(path)) {
		if (move_mount(mnt, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH) == 0) {
			int r = unmount_path(path, true);

			if (r < 0)
				log_warn("the dead mount at %s stays on top: %s", path, strerror(-r));
			return r;
		}
		log_debug("no mount beneath another (%s): it goes on top", strerror(errno));
	}
	return move_mount(mnt, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

/* Of the dirty pages that the kernel allows a FUSE mount may have 1 %, lest a server that stands still takes all: a program that
 * stores through a shared mapping then waits for us page by page. Ours is the superuser's, and writes at once what it gets, so
 * it may have what the directory below may have. */
static void allow_dirty(int mnt)
{
	struct statx x;
	char path[64];
	int fd;

	if (statx(mnt, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &x) < 0)
		return; /* nothing may be asked that we would have to answer */
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/max_ratio", x.stx_dev_major, x.stx_dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "100", 3) != 3)
		log_debug("%s: %s; stores through mappings stay slow", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static int mount_root(struct tfs *fs, int dev)
{
	unsigned attr = attributes(fs);
	int ctx, mnt, r;

	ctx = fsopen("fuse", FSOPEN_CLOEXEC);
	if (ctx < 0)
		return -errno;
	r = configure(fs, ctx, dev, attr & MOUNT_ATTR_RDONLY);
	mnt = r < 0 ? -1 : fsmount(ctx, FSMOUNT_CLOEXEC, attr);
	if (r == 0 && mnt < 0)
		r = -errno;
	close(ctx);
	if (r < 0)
		return r;
	allow_dirty(mnt);
	r = place(mnt, fs->mirror->mountpoint);
	close(mnt);
	return r;
}

static int mount_user(struct tfs *fs)
{
	const char *path = fs->mirror->mountpoint;

	errno = 0;
	if (mount_is_dead(path))
		unmount_path(path, true);
	if (fuse_session_mount(fs->se, path) == 0)
		return 0;
	return errno ? -errno : -EPERM;
}

int mount_session(struct tfs *fs, char *why, size_t size)
{
	char name[32];
	int dev, r;

	if (!fs->privileged) {
		r = mount_user(fs);
	} else {
		dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
		r = dev < 0 ? -errno : mount_root(fs, dev);
		if (r < 0 && dev >= 0)
			close(dev);
		snprintf(name, sizeof(name), "/dev/fd/%d", dev);
		if (r == 0 && fuse_session_mount(fs->se, name) != 0)
			r = -EINVAL;
	}
	if (r < 0)
		snprintf(why, size, "cannot mount on %s: %s%s", fs->mirror->mountpoint, strerror(-r),
		    r == -EPERM ? " (mounting needs CAP_SYS_ADMIN; in a container: --cap-add SYS_ADMIN)" : "");
	return r;
}

/* --- below a dead mount --------------------------------------------------------------------------- */

static void send_fd(int sock, int fd)
{
	char room[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	if (sendmsg(sock, &m, 0) < 0)
		_exit(1);
}

static int receive_fd(int sock)
{
	char room[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
	struct cmsghdr *c;
	int fd = -ESTALE;

	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) == 1 && (c = CMSG_FIRSTHDR(&m)) && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

/* In a mount namespace of its own, where the dead mount can be taken away without anybody noticing. */
static void look_below(int sock, const char *path)
{
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		_exit(1);
	while (mount_is_dead(path))
		if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
			_exit(1);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		_exit(1);
	send_fd(sock, fd);
	_exit(0);
}

int mount_open_below(const char *path)
{
	int sv[2], fd;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		look_below(sv[1], path);
	close(sv[1]);
	fd = pid < 0 ? -errno : receive_fd(sv[0]);
	close(sv[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return fd;
}
