/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/identity.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/hex.h"

struct root {
	unsigned long long ino, type, fsid;
};

struct identity {
	char source[33]; /* "": none yet */
	struct root root;
	bool has_root;
};

static int load(int statefd, struct identity *id)
{
	char *text;
	size_t n;
	int r = fio_slurp(statefd, "identity", 4096, &text, &n);

	memset(id, 0, sizeof(*id));
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (sscanf(text, "source %32[0-9a-f]", id->source) != 1 || strlen(id->source) != 32)
		id->source[0] = '\0';
	const char *line = strstr(text, "\nroot ");
	id->has_root = line && sscanf(line, "\nroot %llu %llx %llx", &id->root.ino, &id->root.type, &id->root.fsid) == 3;
	free(text);
	return 0;
}

static int look(int rootfd, struct root *root)
{
	struct stat st;
	struct statfs sf;
	uint64_t fsid;

	if (fstat(rootfd, &st) < 0 || fstatfs(rootfd, &sf) < 0)
		return -errno;
	memcpy(&fsid, &sf.f_fsid, sizeof(fsid));
	/* where the id is made from the file system's UUID; elsewhere it is a device number, which may change with a reboot */
	bool lasting = sf.f_type == EXT4_SUPER_MAGIC || sf.f_type == BTRFS_SUPER_MAGIC;
	*root = (struct root){.ino = st.st_ino, .type = (unsigned long)sf.f_type, .fsid = lasting ? fsid : 0};
	return 0;
}

int identity_check(int statefd, int rootfd, const char *source, const char *state_dir, char *why, size_t size)
{
	struct identity id;
	struct root now = {0};
	int r = load(statefd, &id);

	if (r == 0)
		r = look(rootfd, &now);
	if (r < 0 || !id.has_root)
		return r;
	if (id.root.ino == now.ino && id.root.type == now.type && id.root.fsid == now.fsid)
		return 0;
	snprintf(why, size,
	    "%s is not the directory that this mirror knows (its identity was inode %llu on file system %llx:%llx and is inode %llu on "
	    "%llx:%llx): is the disk mounted? If it was replaced on purpose, remove the line \"root ...\" from %s/identity; everything is "
	    "compared then",
	    source, id.root.ino, id.root.type, id.root.fsid, now.ino, now.type, now.fsid, state_dir);
	return E_FOREIGN;
}

int identity_take(int statefd, int rootfd, char source_id[33], bool *replaced)
{
	struct identity id;
	struct root now = {0};
	char text[160];
	bool known = false;
	int r = load(statefd, &id);

	if (r == 0)
		r = look(rootfd, &now);
	if (r < 0)
		return r;
	*replaced = id.source[0] && !id.has_root;
	if (!id.source[0]) {
		uint8_t random[16];

		fio_random(random, sizeof(random));
		hex_put(id.source, random, sizeof(random));
	}
	else if (id.has_root && id.root.ino == now.ino && id.root.type == now.type && id.root.fsid == now.fsid)
		known = true;
	memcpy(source_id, id.source, sizeof(id.source));
	if (known)
		return 0; /* nothing to write: it must also start on a full disk */
	snprintf(text, sizeof(text), "source %s\nroot %llu %llx %llx\n", id.source, now.ino, now.type, now.fsid);
	return fio_replace(statefd, "identity", text, strlen(text), 0600);
}
