/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl unmount: end a mount cleanly and return when it is gone. */
#include "config.h"
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "proto/err.h"
#include "replicator/ctl/ctl.h"
#include "replicator/ctl/users.h"

#define GONE_S 60 /* seconds an unmount may take to write back and end */

/* Say whether tandemfs has let go of its lock, i.e. ended or at least closed the journal. A state directory that cannot be read (its disk
 * failed) tells nothing, also later. */
static bool released(const struct ctl_mirror *cm)
{
	int fd = openat(cm->statefd, "lock", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return true;
	bool free_now = flock(fd, LOCK_SH | LOCK_NB) == 0;
	close(fd);
	return free_now;
}

static int wait_gone(const struct ctl_mirror *cm)
{
	for (int i = 0; i < GONE_S * 50; i++) {
		if (released(cm))
			return CTL_OK;
		usleep(20000);
	}
	warnx(
	    "%s: tandemfs still holds %s/lock after %d s; programs may keep files open (fuser -m shows them)",
	    cm->name, cm->state_dir, GONE_S);
	return CTL_BROKEN;
}

/* Say who is in the way, if somebody is: a program must not lose its files because somebody else typed a
 * command. */
static bool in_use(const struct ctl_mirror *cm)
{
	char list[1024], *mountpoint = NULL;
	json_t *reply;

	if (ctl_ask(cm, CTL_SOCK_MOUNT, "status", NULL, &reply, CTL_ASK_MS) == 0)
		mountpoint = ctl_get_path(reply, "mountpoint");
	json_decref(reply);
	if (mountpoint == NULL || users_find(mountpoint, list, sizeof(list)) <= 0) {
		free(mountpoint);
		return false;
	}
	warnx("%s: %s is in use by %s; end them first, or detach the mount under them: %s %s", cm->name,
	      mountpoint, list, geteuid() == 0 ? "umount -l" : "fusermount3 -uz", mountpoint);
	free(mountpoint);
	return true;
}

static int unmount(const struct ctl_mirror *cm)
{
	json_t *reply;
	int out = CTL_BROKEN;

	if (in_use(cm))
		return CTL_BROKEN;
	int rc = ctl_ask(cm, CTL_SOCK_MOUNT, "unmount", NULL, &reply, GONE_S * 1000);
	if (rc == 0 || rc == E_CLOSED)
		out = wait_gone(cm);
	else if (rc == -ENOENT || rc == -ECONNREFUSED)
		warnx("%s: not mounted: tandemfs is not running", cm->name);
	else
		ctl_complain(cm, CTL_SOCK_MOUNT, rc, reply);
	json_decref(reply);
	return out;
}

int cmd_unmount(const struct ctl_args *a)
{
	struct ctl_mirror cm;
	int rc = CTL_BROKEN;

	if (ctl_mirror_open(&cm, a, a->name) == 0)
		rc = unmount(&cm);
	ctl_mirror_close(&cm);
	return rc;
}
