/* SPDX-License-Identifier: BSD-2-Clause
 * The FUSE session: mount, what is negotiated with the kernel, the loop. */
#ifndef TANDEM_FS_SESSION_H
#define TANDEM_FS_SESSION_H

#include "fs/tandemfs.h"

/* Mount and shake hands with the kernel. why gets a sentence on failure. Returns 0 or -errno. */
int session_start(struct tfs *fs, char *why, size_t size);
/* Serve until the file system is unmounted or the process is told to end. Returns 0 or -errno. */
int session_loop(struct tfs *fs);
/* Unmount if still mounted, free. */
void session_stop(struct tfs *fs);

#endif
