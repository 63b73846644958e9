/* SPDX-License-Identifier: BSD-2-Clause
 * After a power failure: find by ctime what changed at the end of the last run. */
#ifndef TANDEM_FS_RECOVER_WALK_H
#define TANDEM_FS_RECOVER_WALK_H

#include "fs/tandemfs.h"

/* Walk the tree below the mount in a thread of its own, once; recheck every entry changed since since_ns (less 5 s for clocks
 * and granularity). UINT64_MAX: only go on with a walk that was interrupted. Returns 0 or -errno. */
int recover_walk_start(struct tfs *fs, uint64_t since_ns);
/* Stop it. Returns true if it was not running or had finished. */
bool recover_walk_stop(struct tfs *fs);

#endif
