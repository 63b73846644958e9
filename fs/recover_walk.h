/* SPDX-License-Identifier: BSD-2-Clause
 * After a power failure, or with a damaged journal: find by ctime what changed at the end of the last run. */
#ifndef TANDEM_FS_RECOVER_WALK_H
#define TANDEM_FS_RECOVER_WALK_H

#include "fs/tandemfs.h"

/* Walk the tree below the mount in a thread of its own, once; recheck every entry changed since since_ns (less 5 s for what was
 * not recorded at once). UINT64_MAX: only go on with a walk that was interrupted. Returns 0, 1 if a restart would not find that it is interrupted, or -errno. At its end
 * it calls journal_recovered. */
int recover_walk_start(struct tfs *fs, uint64_t since_ns);
/* Is it under way? Asked before something gets another name, which may take it from where the walk has not been to where it has: if so, what
 * was moved is rechecked by whoever moves it, and around the rename of a directory recover_move_begin and recover_move_end make it walk
 * once more. */
bool recover_walking(const struct tfs *fs);
void recover_move_begin(struct tfs *fs);
void recover_move_end(struct tfs *fs);
/* Stop it. Returns true if it was not running or had finished. */
bool recover_walk_stop(struct tfs *fs);

#endif
