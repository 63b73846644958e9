/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/uring.h"

#ifndef FUSE_INIT_EXT
#define FUSE_INIT_EXT (1u << 30)
#endif
#ifndef FUSE_OVER_IO_URING
#define FUSE_OVER_IO_URING (1ull << 41)
#endif

/* libfuse's answer to FUSE_INIT with what it does not know: HANDLE_KILLPRIV_V2 (Linux 5.10, libfuse 3.17), which spares a
 * GETXATTR(security.capability) before every WRITE, and OVER_IO_URING (Linux 6.14, libfuse 3.18). */
static ssize_t answer_init(struct tfs *fs, int fd, const struct iovec *iov)
{
	struct fuse_init_out out;
	struct iovec own[2] = {iov[0], {&out, sizeof(out)}};
	uint64_t flags;

	memcpy(&out, iov[1].iov_base, sizeof(out));
	flags = (uint64_t)out.flags2 << 32 | out.flags;
	if (fs->privileged)
		flags |= fs->offered & FUSE_HANDLE_KILLPRIV_V2;
	if (fs->queues)
		flags |= fs->offered & (FUSE_OVER_IO_URING | FUSE_INIT_EXT);
	out.flags = (uint32_t)flags;
	out.flags2 = (uint32_t)(flags >> 32);
	fs->killpriv = flags & FUSE_HANDLE_KILLPRIV_V2;
	fs->uring = flags & FUSE_OVER_IO_URING;
	fs->offered = 0;
	return writev(fd, own, 2);
}

static ssize_t channel_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct tfs *fs = userdata;
	ssize_t n;

	if (fs->offered && count == 2 && iov[1].iov_len == sizeof(struct fuse_init_out))
		return answer_init(fs, fd, iov);
	n = uring_reply(fs, iov, count);
	return n ? n : writev(fd, iov, count);
}

static ssize_t channel_read(int fd, void *buf, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buf, size);
}

static ssize_t channel_splice(int in, off_t *inoff, int out, off_t *outoff, size_t len, unsigned flags, void *userdata)
{
	(void)userdata;
	return splice(in, inoff, out, outoff, len, flags);
}

int channel_open(struct tfs *fs)
{
	const struct fuse_custom_io io = {.writev = channel_writev, .read = channel_read, .splice_send = channel_splice};

	return fuse_session_custom_io(fs->se, &io, fuse_session_fd(fs->se));
}
