/* SPDX-License-Identifier: BSD-2-Clause
 * Changes made behind the mount's back (shared source = yes). With the mount as the only writer nothing here does anything.
 *
 * The table keeps of each inode what it was like when last seen. A later look that finds it otherwise, with no change of our own
 * in between, is drift, and a RECHECK of the inode's path is journaled:
 *
 *   unknown --look--> known --look, different--> known (RECHECK)
 *   known --drift_begin--> ours --drift_end--> known; unknown, if several of ours overlapped
 *
 * Looked at are LOOKUP, GETATTR, READDIRPLUS, and what we are about to change. A directory whose names others changed is seen by
 * its mtime; its RECHECK compares its names. Changes by others to a file while we have changes of our own to it that are not
 * journaled yet (a second at most) are not told apart from ours. */
#ifndef TANDEM_FS_DRIFT_H
#define TANDEM_FS_DRIFT_H

#include "fs/tandemfs.h"

/* A system call that looks at something follows: changes of ours from here on make what it finds worthless. */
void drift_look(struct tfs *fs, struct worker *w);
/* It found st. */
void drift_saw(struct tfs *fs, struct worker *w, struct inode *i, const struct stat *st);
/* The same with tree.lock held. */
void drift_saw_locked(struct tfs *fs, struct worker *w, struct inode *i, const struct stat *st);
/* Say whether a change of ours to dir was under way since drift_look, so that what was found in it may be what it was before, or will be; wait until
 * none is. A change under way never waits for another request. */
bool drift_overtaken_locked(struct tfs *fs, const struct worker *w, const struct inode *dir);
/* The name (dir, name), which another inode had, was found to be that of inode number ino. */
void drift_replaced_locked(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, uint64_t ino);
/* Look at i now. Call without locks. */
void drift_check(struct tfs *fs, struct worker *w, struct inode *i);
/* We are about to change i, which was checked; have changed it (call without locks). */
void drift_begin_locked(struct tfs *fs, struct inode *i);
void drift_end(struct tfs *fs, struct inode *i);

#endif
