/* SPDX-License-Identifier: BSD-2-Clause
 * The way between libfuse and the kernel. */
#ifndef TANDEM_FS_CHANNEL_H
#define TANDEM_FS_CHANNEL_H

#include "fs/tandemfs.h"

/* Have libfuse read and write through us from now on: what it does not know is added to its answer to FUSE_INIT, answers to
 * requests from io_uring go back there. The session must be mounted. Returns 0 or -errno (-ENOTSUP: libfuse does not allow it). */
int channel_open(struct tfs *fs);

#endif
