/* SPDX-License-Identifier: BSD-2-Clause
 * Mounting without a gap.
 *
 * The mount lies over the directory it serves. When its process dies, the dead mount keeps applications from the directory
 * below (they get ENOTCONN) until the next process serves: if it were taken away first, what they write in between would
 * go into the directory unseen. So the new mount is put beneath the dead one (Linux 6.5), which is then taken away, or on top of it.
 * An ordinary user's mount goes through fusermount3, which cannot do that: there the gap is as short as possible. */
#ifndef TANDEM_FS_MOUNT_H
#define TANDEM_FS_MOUNT_H

#include "fs/tandemfs.h"

/* Mount for the session fs->se on the mirror's mountpoint. why gets a sentence on failure. Returns 0 or -errno. */
int mount_session(struct tfs *fs, char *why, size_t size);
/* Say whether a FUSE mount at path lost its process. Asks by statfs: the kernel may have kept the attributes that stat wants. */
bool mount_is_dead(const char *path);
/* Open the directory that a dead mount of ours covers. Returns a descriptor or -errno. */
int mount_open_below(const char *path);

#endif
