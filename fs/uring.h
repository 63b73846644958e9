/* SPDX-License-Identifier: BSD-2-Clause
 * FUSE over io_uring (Linux 6.14) for a libfuse that does not have it: before 3.18.
 *
 * Order of calls: uring_start before the answer to FUSE_INIT, then either uring_go, once the kernel has it, or uring_stop. */
#ifndef TANDEM_FS_URING_H
#define TANDEM_FS_URING_H

#include <errno.h>
#include <stddef.h>
#include <sys/uio.h>

#include "fs/tandemfs.h"

/* Whether this build can do it: libfuse's own is used where it has one. */
#if defined(HAVE_LIBURING) && !HAVE_DECL_FUSE_CAP_OVER_IO_URING
#define OWN_URING 1
#else
#define OWN_URING 0
#endif

#if OWN_URING

/* Make a queue for each processor, with a buffer for payload bytes, and a thread for each. fs->se must be mounted.
 * Returns 0 or -errno; then there is nothing to stop. */
int uring_start(struct tfs *fs, size_t payload);
/* The kernel has accepted: offer it the queues. Returns 0, or -errno (requests then come through /dev/fuse). */
int uring_go(struct tfs *fs);
/* End and join the threads, if there are any. */
void uring_stop(struct tfs *fs);

/* The answer in iov (a fuse_out_header first) is to the request this thread serves: put it into the queue.
 * Returns its length, or 0 if it has to go to /dev/fuse. */
ssize_t uring_reply(struct tfs *fs, const struct iovec *iov, int count);
/* Where the bytes of w's answer go, if it serves a queue and size fits: what is put there is not copied. Else NULL. */
char *uring_buffer(struct worker *w, size_t size);

#else

static inline int uring_start(struct tfs *fs, size_t payload)
{
	(void)fs, (void)payload;
	return -ENOSYS;
}

static inline int uring_go(struct tfs *fs)
{
	(void)fs;
	return -ENOSYS;
}

static inline void uring_stop(struct tfs *fs)
{
	(void)fs;
}

static inline ssize_t uring_reply(struct tfs *fs, const struct iovec *iov, int count)
{
	(void)fs, (void)iov, (void)count;
	return 0;
}

static inline char *uring_buffer(struct worker *w, size_t size)
{
	(void)w, (void)size;
	return NULL;
}

#endif
#endif
