/* SPDX-License-Identifier: BSD-2-Clause
 * What has to be rechecked because the mount or the host died (D8). */
#ifndef TANDEM_FS_RECOVER_H
#define TANDEM_FS_RECOVER_H

#include "fs/tandemfs.h"

/* Before serving: turn what the in-flight table and the journal's start say into records. After a power failure a thread walks
 * the tree meanwhile. Resets the in-flight table. Returns 0 or -errno. */
int recover_start(struct tfs *fs, enum journal_start start, uint64_t since_ns);
/* End the thread, which then has to begin again at the next start. Returns true if it had finished. */
bool recover_stop(struct tfs *fs);

#endif
