/* SPDX-License-Identifier: BSD-2-Clause
 * Journals that are not to be trusted until the next boot: see journal_void.h. */
#include "config.h"
#include "fs/journal_void.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/hex.h"

/* The file's path, or -ENOENT where no directory ends with a boot. */
static int file_path(char path[PATH_MAX], const uint8_t id[16])
{
	const char *run = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
	char name[HEX_ID];

	if (!run || *run != '/')
		return -ENOENT;
	hex_put(name, id, 16);
	return snprintf(path, PATH_MAX, "%s/tandemfs/%s", run, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int make_parent(char *path)
{
	char *slash = strrchr(path, '/');
	int err;

	*slash = '\0';
	err = mkdir(path, 0755) && errno != EEXIST ? -errno : 0;
	*slash = '/';
	return err;
}

int journal_void_set(const uint8_t id[16])
{
	char path[PATH_MAX];
	int fd, err = file_path(path, id);

	if (!err)
		err = make_parent(path);
	if (err)
		return err;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int journal_void_clear(const uint8_t id[16])
{
	char path[PATH_MAX];
	int err = file_path(path, id);

	if (!err && unlink(path))
		err = -errno;
	return err == -ENOENT ? 0 : err;
}

bool journal_void_is(const uint8_t id[16])
{
	char path[PATH_MAX];
	struct stat st;

	return file_path(path, id) == 0 && lstat(path, &st) == 0;
}
