/* SPDX-License-Identifier: BSD-2-Clause
 * The processes of one mirror on the source host. */
#ifndef TANDEM_FS_SUPERVISOR_H
#define TANDEM_FS_SUPERVISOR_H

#include <stdbool.h>
#include "proto/mirror.h"

/* What the command line asked for. */
struct launch {
	struct mirror mirror;
	const char *config;  /* mirrors.conf, NULL: the mirror came from the command line */
	bool foreground;
	bool replicator;     /* start tandem-replicator and keep it running */
};

/* Descriptors made before mounting and inherited by every worker. */
struct bedrock {
	int rootfd;  /* source root */
	int statefd; /* state directory of the mirror */
	int lockfd;  /* its lock */
};

/* check.c: verify that the mirror can be mounted, clear away a dead mount, take the lock, open the descriptors. Each fault has a
 * message with its remedy on standard error. Returns 0 or -1. */
int check_start(const struct launch *l, struct bedrock *b);
/* unmount.c: detach whatever is mounted at the mountpoint. lazy: also when it is busy. Returns 0 or -errno. */
int unmount_path(const char *path, bool lazy);
/* Say whether path is a mountpoint of file system type fuse.tandemfs. */
bool unmount_is_ours(const char *path);

/* Run until told to end; returns the exit status of the program. Daemonizes unless foreground: the calling process
 * then returns when the mount answers or has failed. */
int supervisor_run(const struct launch *l, const struct bedrock *b);

#endif
