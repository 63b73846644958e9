/* SPDX-License-Identifier: BSD-2-Clause
 * Looking through /proc for the processes that use a mount. */
#include "config.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "replicator/ctl/ctl.h"
#include "replicator/ctl/users.h"

static bool on_device(int dirfd, const char *name, dev_t dev)
{
	struct stat st;

	return fstatat(dirfd, name, &st, 0) == 0 && st.st_dev == dev;
}

static bool has_open(int proc, dev_t dev)
{
	int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	bool found = false;

	if (d == NULL) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	for (struct dirent *e; !found && (e = readdir(d)) != NULL;)
		found = isdigit((unsigned char)e->d_name[0]) && on_device(dirfd(d), e->d_name, dev);
	closedir(d);
	return found;
}

static bool has_mapped(int proc, dev_t dev)
{
	int fd = openat(proc, "maps", O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	unsigned maj, min;
	bool found = false;
	char *line = NULL;
	size_t cap = 0;

	if (f == NULL) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!found && getline(&line, &cap, f) > 0)
		found = sscanf(line, "%*s %*s %*s %x:%x", &maj, &min) == 2 && makedev(maj, min) == dev;
	free(line);
	fclose(f);
	return found;
}

static bool uses(int proc, dev_t dev)
{
	return on_device(proc, "cwd", dev) || on_device(proc, "root", dev) || has_open(proc, dev) ||
	       has_mapped(proc, dev);
}

/* Append "PID (NAME)" to out. */
static void note(char *out, size_t size, int proc, const char *pid)
{
	size_t used = strlen(out);
	char name[64] = "?", shown[64];
	int fd = openat(proc, "comm", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		ssize_t n = read(fd, name, sizeof(name) - 1);
		name[n > 0 ? n : 0] = '\0';
		name[strcspn(name, "\n")] = '\0';
		close(fd);
	}
	snprintf(out + used, size - used, "%s%s (%s)", used ? ", " : "", pid,
		 ctl_show_text(shown, sizeof(shown), name));
}

int users_find(const char *mountpoint, char *out, size_t size)
{
	struct stat st;
	int n = 0;

	*out = '\0';
	if (stat(mountpoint, &st) < 0)
		return -errno;
	DIR *d = opendir("/proc");
	if (d == NULL)
		return -errno;
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		if (!isdigit((unsigned char)e->d_name[0]) || atoi(e->d_name) == getpid())
			continue;
		int proc = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (proc < 0)
			continue;
		if (uses(proc, st.st_dev)) {
			note(out, size, proc, e->d_name);
			n++;
		}
		close(proc);
	}
	closedir(d);
	return n;
}
