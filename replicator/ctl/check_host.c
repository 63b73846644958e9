/* SPDX-License-Identifier: BSD-2-Clause
 * The doctor's checks of this host. */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "replicator/ctl/check.h"

#define ENABLE_URING "/sys/module/fuse/parameters/enable_uring"

static void check_dev_fuse(struct report *r)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		check_say(r, V_OK, "/dev/fuse", "can be opened");
		close(fd);
	} else if (errno == ENOENT || errno == ENXIO || errno == ENODEV) {
		check_say(r, V_FAIL, "/dev/fuse",
			  "missing; load the module (modprobe fuse), or pass the device into the "
			  "container. A standby does not need it");
	} else {
		check_say(r, V_FAIL, "/dev/fuse", "%s; it should have mode 666 (or a container forbids it)",
			  strerror(errno));
	}
}

/* Find a program in PATH, as a shell would. */
static bool find_program(const char *name, char *out, size_t size)
{
	const char *path = getenv("PATH");

	for (const char *p = path ? path : "/usr/bin:/bin"; *p; p += strspn(p, ":")) {
		size_t n = strcspn(p, ":");
		snprintf(out, size, "%.*s/%s", (int)n, p, name);
		if (access(out, X_OK) == 0)
			return true;
		p += n;
	}
	return false;
}

static void check_fusermount(struct report *r)
{
	enum verdict bad = geteuid() == 0 ? V_WARN : V_FAIL;
	char path[4096];
	struct stat st;

	if (!find_program("fusermount3", path, sizeof(path)) || stat(path, &st) < 0)
		check_say(r, bad, "fusermount3",
			  "not in PATH; ordinary users cannot mount without it: install the package fuse3");
	else if (st.st_uid != 0 || !(st.st_mode & S_ISUID))
		check_say(r, bad, "fusermount3",
			  "%s is not set-uid root, so ordinary users cannot mount: chmod u+s %s", path, path);
	else
		check_say(r, V_OK, "fusermount3", "%s, ordinary users can mount", path);
}

/* FUSE over io_uring: what the kernel and this build allow. Whether a mount has it stands in "status --json". */
static void check_uring(struct report *r)
{
	char c = 'N';
	int fd = open(ENABLE_URING, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, &c, 1) != 1)
		c = 'N';
#if HAVE_DECL_FUSE_CAP_OVER_IO_URING || defined(HAVE_LIBURING)
	if (fd < 0)
		check_say(r, V_OK, "io_uring", "this kernel has no FUSE over io_uring (6.14 has); mounts use /dev/fuse");
	else if (c != 'Y' && c != '1')
		check_say(r, V_OK, "io_uring",
			  "the kernel has it, switched off; metadata and small files are faster with it: "
			  "echo Y >%s, and for the next boot fuse.enable_uring=1 on the kernel's command line "
			  "or \"options fuse enable_uring=1\" in /etc/modprobe.d",
			  ENABLE_URING);
	else
		check_say(r, V_OK, "io_uring",
			  "switched on; mounts use it unless the installed libfuse is 3.18 or newer and was built without liburing "
			  "(tandemctl status --json: features.io_uring)");
#else
	(void)c;
	check_say(r, V_OK, "io_uring", "this build does not have it (it needs liburing, or libfuse 3.18); mounts use /dev/fuse");
#endif
	if (fd >= 0)
		close(fd);
}

static void check_kernel(struct report *r)
{
	struct utsname u;
	int major = 0, minor = 0;

	uname(&u);
	if (sscanf(u.release, "%d.%d", &major, &minor) != 2)
		return;
	int version = major * 1000 + minor;
	if (version >= 5006)
		check_say(r, V_OK, "kernel", "%s", u.release);
	else
		check_say(r, V_FAIL, "kernel", "%s has no openat2; 5.6 is the oldest that works: upgrade",
			  u.release);
	check_uring(r);
}

static void check_clock(struct report *r)
{
	struct timex t = {0};

	if (adjtimex(&t) < 0 || t.status & STA_UNSYNC)
		check_say(
		    r, V_WARN, "clock",
		    "the kernel says that nobody keeps it synchronised; file times are copied as they are, "
		    "but logs of both hosts are hard to compare: run chrony or systemd-timesyncd");
	else
		check_say(r, V_OK, "clock", "synchronised, error at most %ld ms", t.maxerror / 1000);
}

void check_host(struct report *r)
{
	check_dev_fuse(r);
	check_fusermount(r);
	check_kernel(r);
	check_clock(r);
}
