/* SPDX-License-Identifier: BSD-2-Clause
 * Unmounting from outside the serving process, and recognising our mounts. */
#include "config.h"

#include "fs/supervisor.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mountinfo.h"

extern char **environ;

/* An ordinary user unmounts through the set-uid helper. */
static int fusermount(const char *path, bool lazy)
{
	char *argv[] = {"fusermount3", "-u", "-q", lazy ? "-z" : "--", (char *)path, NULL};
	pid_t pid;
	int status = 0, r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);

	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int unmount_path(const char *path, bool lazy)
{
	if (geteuid() != 0)
		return fusermount(path, lazy);
	return umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;
}

struct ours {
	const char *path;
	bool is;
};

static bool look(void *arg, const struct mountinfo *m)
{
	struct ours *o = arg;

	if (strcmp(m->where, o->path) == 0) /* the last one mounted there counts */
		o->is = strcmp(m->type, "fuse.tandemfs") == 0;
	return true;
}

bool unmount_is_ours(const char *path)
{
	struct ours o = {.path = path};

	mountinfo_each(look, &o);
	return o.is;
}
