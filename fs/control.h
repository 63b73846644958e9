/* SPDX-License-Identifier: BSD-2-Clause
 * mount.sock: what the replicator and tandemctl ask of the mount. Ops are in docs/ARCHITECTURE.md. */
#ifndef TANDEM_FS_CONTROL_H
#define TANDEM_FS_CONTROL_H

#include "fs/tandemfs.h"

/* Listen and answer in a thread of its own. Returns 0 or -errno. */
int control_start(struct tfs *fs);
void control_stop(struct tfs *fs);

#endif
