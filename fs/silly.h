/* SPDX-License-Identifier: BSD-2-Clause
 * Directories from which NFS will remove a name later.
 *
 * A file that is removed while anybody on this host has a descriptor of it is renamed by the NFS client ("silly rename",
 * .nfsXXXX) and removed when the last descriptor is closed. The directory gets a new mtime then, of which no request tells: neither the
 * journal nor the kernel's cache of attributes would learn of it. So over NFS a directory that lost a name to a removal is watched: its mtime is
 * compared with the one that was recorded last, and what differs is recorded. The watch lasts while a handle of ours keeps the removed
 * file, and a minute longer: the replicator may have been reading it, or the server is slow. */
#ifndef TANDEM_FS_SILLY_H
#define TANDEM_FS_SILLY_H

#include "fs/tandemfs.h"

/* Prepare; does nothing unless the directory below is NFS. Returns 0 or -ENOMEM. */
int silly_init(struct tfs *fs);
void silly_release(struct tfs *fs);
/* A name in dir was removed, and the record says pm. kept: the inode if we hold a descriptor of it, else NULL. */
void silly_watch_locked(struct tfs *fs, struct inode *dir, const struct inode *kept, struct jtime pm);
/* A record said pm of dir. */
void silly_recorded_locked(struct tfs *fs, const struct inode *dir, struct jtime pm);
/* Look at the watched directories, record what changed. Called every second and when everything is to be in the journal. */
void silly_settle(struct tfs *fs);

#endif
