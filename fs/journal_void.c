/* SPDX-License-Identifier: BSD-2-Clause
 * Journals that are not to be trusted until the next boot: see journal_void.h. */
#include "config.h"
#include "fs/journal_void.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID_TEXT 33 /* 32 digits and a NUL */

static void id_text(char text[ID_TEXT], const uint8_t id[16])
{
	for (int i = 0; i < 16; i++)
		snprintf(text + (size_t)2 * i, 3, "%02x", id[i]);
}

/* The directory; made if need be. Returns a descriptor or -errno. */
static int open_dir(bool make)
{
	const char *run = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
	if (!run || *run != '/')
		return -ENOENT;
	int above = open(run, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (above < 0)
		return -errno;
	int err = make && mkdirat(above, "tandemfs", 0755) && errno != EEXIST ? -errno : 0;
	int fd = err ? err : openat(above, "tandemfs", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1)
		fd = -errno;
	close(above);
	return fd;
}

int journal_void_set(const uint8_t id[16])
{
	char name[ID_TEXT];
	id_text(name, id);
	int dir = open_dir(true);
	if (dir < 0)
		return dir;
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int err = fd < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	close(dir);
	return err;
}

int journal_void_clear(const uint8_t id[16])
{
	char name[ID_TEXT];
	id_text(name, id);
	int dir = open_dir(false);
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	int err = unlinkat(dir, name, 0) && errno != ENOENT ? -errno : 0;
	close(dir);
	return err;
}

bool journal_void_is(const uint8_t id[16])
{
	char name[ID_TEXT];
	struct stat st;
	id_text(name, id);
	int dir = open_dir(false);
	if (dir < 0)
		return false;
	bool is = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	close(dir);
	return is;
}
