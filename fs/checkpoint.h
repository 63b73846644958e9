/* SPDX-License-Identifier: BSD-2-Clause
 * How far the source itself is durable. The kernel writes back what applications do not fsync within half a minute or so, in any order: a
 * power failure takes the directory below back to states that the standbys are beyond, of which the change times on the disk tell
 * nothing. So the file system below is synced now and then, and the journal's head page keeps the number of the last record
 * (safe_seq) and the time (safe_ns) from before: after a power failure, what was recorded behind that number is rechecked, and what
 * changed since that time. */
#ifndef TANDEM_FS_CHECKPOINT_H
#define TANDEM_FS_CHECKPOINT_H

#include "fs/tandemfs.h"

#define CHECKPOINT_S 30 /* seconds between checkpoints while something changes */

/* Start the thread, which begins with a checkpoint. Returns 0 or -errno. */
int checkpoint_start(struct tfs *fs);
/* End the thread, after a last checkpoint: the journal may be closed as clean. */
void checkpoint_stop(struct tfs *fs);

#endif
