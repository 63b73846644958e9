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

/* mountinfo escapes blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

bool unmount_is_ours(const char *path)
{
	char *line = NULL, *where, *type;
	bool ours = false;
	size_t cap = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	while (f && getline(&line, &cap, f) > 0) {
		char *dash = strstr(line, " - ");

		if (!dash)
			continue;
		type = dash + 3;
		*dash = '\0';
		where = line; /* id parent major:minor root WHERE options */
		for (int n = 0; n < 4 && where; n++)
			where = strchr(where, ' ') ? strchr(where, ' ') + 1 : NULL;
		if (!where)
			continue;
		where[strcspn(where, " ")] = '\0';
		unescape(where);
		if (strcmp(where, path) == 0) /* the last one mounted there counts */
			ours = strncmp(type, "fuse.tandemfs ", 14) == 0;
	}
	free(line);
	if (f)
		fclose(f);
	return ours;
}
