/* SPDX-License-Identifier: BSD-2-Clause
 * The mounts that this process sees: /proc/self/mountinfo, see proc_pid_mountinfo(5). */
#ifndef TANDEM_FS_MOUNTINFO_H
#define TANDEM_FS_MOUNTINFO_H

#include <stdbool.h>
#include <sys/types.h>

struct mountinfo {
	dev_t dev;
	const char *where; /* mount point */
	const char *type;  /* of the file system, "fuse.tandemfs" */
	const char *super; /* its options */
};

/* Call fn for each mount, those mounted earlier first, until it returns false. Where /proc cannot be read, for none. */
void mountinfo_each(bool (*fn)(void *arg, const struct mountinfo *m), void *arg);

#endif
