/* SPDX-License-Identifier: BSD-2-Clause
 * What must be right before mounting; every fault has its own message and remedy. */
#include "config.h"

#include "fs/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/identity.h"
#include "fs/mount.h"
#include "fs/mountinfo.h"
#include "proto/err.h"
#include "proto/fileio.h"

#define LOCK_TRIES    50 /* for the lock of a process that was killed */
#define LOCK_PAUSE_NS 100000000

static int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int fail(const char *fmt, ...)
{
	va_list ap;

	fputs("tandemfs: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return -1;
}

static int check_device(void)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == ENOENT)
		return fail("/dev/fuse is missing: load the module (modprobe fuse), or pass the device into the container "
			    "(--device /dev/fuse --cap-add SYS_ADMIN)");
	if (errno == ENODEV || errno == ENXIO)
		return fail("the kernel has no FUSE: load the module (modprobe fuse)");
	return fail("/dev/fuse cannot be opened: %s; allow it (chmod 666 /dev/fuse, as udev does), or run as root",
	    strerror(errno));
}

static bool user_allow_other(void)
{
	char line[256];
	bool found = false;
	FILE *f = fopen("/etc/fuse.conf", "re");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "user_allow_other", 16) == 0)
			found = true;
	if (f)
		fclose(f);
	return found;
}

static int check_user(const struct mirror *m)
{
	if (geteuid() == 0 || !m->allow_other || user_allow_other())
		return 0;
	return fail("allow other = yes needs a line user_allow_other in /etc/fuse.conf when not run as root");
}

/* Whether the process that noted itself in the lock is gone. Then those it had started keep the lock, and are ending. */
static bool owner_gone(int lockfd, char *pid, size_t size)
{
	ssize_t n = pread(lockfd, pid, size - 1, 0);

	pid[n > 0 ? n : 0] = '\0';
	return atoi(pid) > 0 && kill(atoi(pid), 0) < 0 && errno == ESRCH;
}

static int take_lock(const struct mirror *m, struct bedrock *b)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	char pid[32] = "";

	b->lockfd = openat(b->statefd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (b->lockfd < 0)
		return fail("%s/lock: %s", m->state_dir, strerror(errno));
	for (int n = 0; n < LOCK_TRIES; n++) {
		if (flock(b->lockfd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (!owner_gone(b->lockfd, pid, sizeof(pid)))
			break;
		nanosleep(&pause, NULL);
	}
	return fail("mirror %s is mounted already, by process %s (%s/lock); unmount it first: tandemctl unmount %s", m->name,
	    pid[0] ? pid : "unknown", m->state_dir, m->name);
}

struct below {
	const char *path;
	bool found;
};

static bool look_below(void *arg, const struct mountinfo *m)
{
	struct below *b = arg;
	size_t n = strlen(b->path);

	b->found = strncmp(m->where, b->path, n) == 0 && m->where[n] == '/';
	return !b->found;
}

static bool has_submounts(const char *path)
{
	struct below b = {.path = path};

	mountinfo_each(look_below, &b);
	return b.found;
}

/* The mirror is not served (we hold its lock), so a mount of ours over the source is a dead one. It stays until ours
 * replaces it, so that nobody writes past us; the root is opened below it. If that cannot be done it is detached. */
static int open_dead(const char *path)
{
	int fd, r;

	fprintf(stderr, "tandemfs: %s is a dead mount left by a process that was killed; replacing it\n", path);
	if (geteuid() == 0 && !has_submounts(path) && (fd = mount_open_below(path)) >= 0)
		return fd;
	while (mount_is_dead(path))
		if ((r = unmount_path(path, true)) < 0)
			return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int open_source(const struct mirror *m, struct bedrock *b)
{
	if (mount_is_dead(m->source)) {
		b->rootfd = open_dead(m->source);
		return b->rootfd >= 0 ? 0 : fail("source %s is covered by a dead mount: %s; run umount -l %s", m->source,
						    strerror(-b->rootfd), m->source);
	}
	if (unmount_is_ours(m->source))
		return fail("%s is a tandemfs mount itself: another mirror serves this directory; mirror it to several targets "
			    "with several target lines", m->source);
	b->rootfd = open(m->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->rootfd >= 0)
		return 0;
	if (errno == ENOENT)
		return fail("source %s does not exist: create it, mount its disk, or correct \"source\" of mirror %s", m->source,
		    m->name);
	if (errno == ENOTDIR)
		return fail("source %s is not a directory", m->source);
	return fail("source %s cannot be opened: %s", m->source, strerror(errno));
}

static bool lies_within(const char *dir, const char *path)
{
	size_t n = strlen(dir);

	return strncmp(dir, path, n) == 0 && (n == 1 || !path[n] || path[n] == '/');
}

static int check_places(const struct mirror *m)
{
	char source[PATH_MAX], state[PATH_MAX], mnt[PATH_MAX];
	bool dead = mount_is_dead(m->mountpoint);
	struct stat st;

	if (!realpath(m->source, source))
		return fail("source %s: %s", m->source, strerror(errno));
	if (!realpath(m->state_dir, state))
		return fail("state directory %s: %s", m->state_dir, strerror(errno));
	if (lies_within(source, state))
		return fail("the state directory %s lies inside the source %s: the journal would record itself; set \"state dir\" to a "
			    "place outside", m->state_dir, m->source);
	if (!dead && stat(m->mountpoint, &st) < 0)
		return fail("mountpoint %s: %s; create the directory", m->mountpoint, strerror(errno));
	if (!dead && !S_ISDIR(st.st_mode))
		return fail("mountpoint %s is not a directory", m->mountpoint);
	if (!realpath(m->mountpoint, mnt))
		return fail("mountpoint %s: %s", m->mountpoint, strerror(errno));
	if (lies_within(source, mnt) && strcmp(source, mnt) != 0)
		return fail("the mountpoint %s lies inside the source %s: mount over the source itself, or elsewhere", mnt, source);
	if (lies_within(mnt, state) && strcmp(mnt, source) != 0)
		return fail("the state directory %s lies below the mountpoint %s and would be hidden; set \"state dir\"", state, mnt);
	return 0;
}

int check_start(const struct launch *l, struct bedrock *b)
{
	const struct mirror *m = &l->mirror;
	char why[2048];

	*b = (struct bedrock){.rootfd = -1, .statefd = -1, .lockfd = -1};
	if (check_device() < 0 || check_user(m) < 0)
		return -1;
	b->statefd = fio_open_dir(m->state_dir);
	if (b->statefd < 0)
		return fail("state directory %s: %s; create it for this user, or set \"state dir\"", m->state_dir,
		    err_text(b->statefd));
	if (take_lock(m, b) < 0)
		return -1;
	if (open_source(m, b) < 0 || check_places(m) < 0)
		return -1;
	if (identity_check(b->statefd, b->rootfd, m->source, m->state_dir, why, sizeof(why)) == E_FOREIGN)
		return fail("%s", why);
	if (geteuid() != 0)
		fprintf(stderr, "tandemfs: not root: files of other owners cannot be made, and owners are not changed\n");
	return 0;
}
