/* SPDX-License-Identifier: BSD-2-Clause
 * Bytes: READ, WRITE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/inodefd.h"
#include "fs/op.h"
#include "fs/uring.h"
#include "proto/log.h"

#define CAPS     "security.capability"
#define CAPS_MAX 64 /* bytes; struct vfs_ns_cap_data has 24 */

#define SPLICE_FROM (256u << 10) /* bytes from which a read is spliced instead of copied */

/* Scratch memory of this thread. */
static char *iobuf(struct worker *w, size_t size)
{
	if (w->iosize < size) {
		free(w->iobuf);
		w->iobuf = NULL;
		w->iosize = 0;
		if (posix_memalign((void **)&w->iobuf, 4096, size) != 0)
			return NULL;
		w->iosize = size;
	}
	return w->iobuf;
}

static void read_spliced(fuse_req_t req, int fd, size_t size, off_t off)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);

	buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	buf.buf[0].fd = fd;
	buf.buf[0].pos = off;
	fuse_reply_data(req, &buf, FUSE_BUF_SPLICE_MOVE);
}

/* Whether the reply's buffer is one of libfuse's io_uring, into which it reads directly. */
static bool in_ring(fuse_req_t req)
{
#if HAVE_DECL_FUSE_CAP_OVER_IO_URING
	return fuse_req_is_uring(req);
#else
	(void)req;
	return false;
#endif
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct worker *w = worker_get(tfs_of(req));
	struct ofile *f = ofile_of(fi);
	char *buf = uring_buffer(w, size);
	ssize_t n;

	(void)ino;
	if (!buf && (size >= SPLICE_FROM || in_ring(req))) {
		read_spliced(req, f->fd, size, off);
		return;
	}
	if (!buf)
		buf = w ? iobuf(w, size) : NULL;
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	n = pread(f->fd, buf, size, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

/* Pages of a shared mapping come without a handle of their own: any writer of the inode will do that does not append, or, if there is
 * none, one opened for this. *own is a descriptor to close. */
static int writer_of(struct tfs *fs, struct inode *i, struct ofile **borrowed, int *own)
{
	pthread_mutex_lock(&fs->tree.lock);
	*borrowed = ofile_borrow_locked(i, OFILE_PLACES);
	pthread_mutex_unlock(&fs->tree.lock);
	if (*borrowed)
		return (*borrowed)->fd;
	*own = ifd_open(fs, i, O_WRONLY);
	return *own;
}

/* The application may have changed O_APPEND since it opened the handle (fcntl). Returns 0, or -EPERM from a file that is marked append-only. */
static int follow_append(struct ofile *f, bool append)
{
	int flags;

	if (!f->append || f->appending == append)
		return 0;
	flags = fcntl(f->fd, F_GETFL);
	if (flags < 0 || fcntl(f->fd, F_SETFL, append ? flags | O_APPEND : flags & ~O_APPEND) < 0)
		return -errno;
	f->appending = append;
	return 0;
}

/* Append to a file that others append to as well, so that only its file system knows where its end is. */
static ssize_t append_below(const struct ofile *f, const struct fuse_buf *in, off_t *end)
{
	struct iovec v = {.iov_base = in->mem, .iov_len = in->size};
	ssize_t n = pwritev2(f->fd, &v, 1, -1, f->append ? 0 : RWF_APPEND);

	if (n < 0)
		return -errno;
	*end = lseek(f->fd, 0, SEEK_CUR);
	return n;
}

/* f: the handle, NULL for pages of a mapping. end: how far its bytes reach, if append. Returns bytes written or -errno. */
static ssize_t write_below(fuse_req_t req, struct inode *i, int fd, struct fuse_bufvec *in, off_t off, const struct ofile *f, bool append,
    off_t *end)
{
	bool mapped = !f;
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(in));
	bool strip = !mapped && cred_strip_begin(worker_get(tfs_of(req)), req, i, fd);
	char caps[CAPS_MAX];
	/* stores through a mapping leave file capabilities alone, pwrite takes them away */
	ssize_t ncaps = mapped ? fgetxattr(fd, CAPS, caps, sizeof(caps)) : 0;
	ssize_t n;

	if (in->count == 1 && !(in->buf[0].flags & FUSE_BUF_IS_FD) && append) {
		n = append_below(f, &in->buf[0], end);
	} else if (in->count == 1 && !(in->buf[0].flags & FUSE_BUF_IS_FD)) {
		n = pwrite(fd, in->buf[0].mem, in->buf[0].size, off);
		n = n < 0 ? -errno : n;
	} else {
		out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
		out.buf[0].fd = fd;
		out.buf[0].pos = off;
		n = fuse_buf_copy(&out, in, 0);
	}
	cred_strip_end(strip);
	if (ncaps > 0 && fsetxattr(fd, CAPS, caps, (size_t)ncaps, 0) < 0)
		log_warn("inode %llu lost its file capabilities: %s", (unsigned long long)i->ino, strerror(errno));
	return n;
}

/* A change that failed may have been done in part all the same: time and set-id bits at least, with ENOSPC also size and bytes. */
static bool untouched(ssize_t r)
{
	return r == -EOPNOTSUPP || r == -EINVAL || r == -EXDEV;
}

static void end_change(struct tfs *fs, struct iopen *io, ssize_t r, uint64_t start, uint64_t end)
{
	dirty_end(fs, io, start, untouched(r) ? start : end);
}

void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino);
	struct ofile *f = NULL, *borrowed = NULL;
	struct iopen *io;
	size_t size = fuse_buf_size(in);
	bool append = !fi->writepage && fi->flags & O_APPEND;
	off_t end = off + (off_t)size;
	int fd, own = -1;
	ssize_t n;

	if (fi->writepage) {
		fd = writer_of(fs, i, &borrowed, &own);
		io = fd < 0 ? NULL : iopen_get(fs, i);
	} else {
		f = ofile_of(fi);
		fd = f->fd;
		io = f->io;
	}
	if (!io) {
		op_reply(req, fd < 0 ? fd : -ENOMEM);
		return;
	}
	if (w && fi->writepage)
		cred_space_own(w); /* a page that was stored through a mapping: whoever did it is gone */
	else if (w)
		cred_space(w, fuse_req_ctx(req));
	dirty_begin(fs, io);
	n = f ? follow_append(f, append) : 0;
	append = append && (!fs->exclusive || f->append);
	if (n == 0)
		n = write_below(req, i, fd, in, off, f, append, &end);
	if (n >= 0 && !append)
		end = off + n;
	if (n >= 0 && end - n < off)
		off = end - n; /* others truncated it */
	end_change(fs, io, n, (uint64_t)off, n < 0 && append ? EXTENT_INF : (uint64_t)end); /* with what others appended behind off */
	if (n < 0)
		op_reply(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
	if (f)
		return;
	iopen_put(fs, io);
	if (borrowed)
		ofile_return(fs, borrowed);
	if (own >= 0)
		close(own);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct ofile *f = ofile_of(fi);
	uint64_t with;
	int r;

	(void)ino;
	dirty_emit(fs, f->io, f->fd, JF_FSYNC);
	with = journal_sync_begin(fs->journal, f->fd);
	r = (datasync ? fdatasync(f->fd) : fsync(f->fd)) < 0 ? -errno : 0;
	if (r == 0 && !journal_synced_with(fs->journal, with))
		journal_sync(fs->journal); /* its errors are not the application's: the journal says so and goes on in memory */
	op_reply(req, r);
}

/* The range whose bytes change; nothing for a mere allocation. */
static void fallocate_range(int mode, off_t off, off_t len, uint64_t *start, uint64_t *end)
{
	*start = (uint64_t)off;
	*end = (uint64_t)off + (uint64_t)len;
	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
		*end = EXTENT_INF;
	else if ((mode & FALLOC_FL_KEEP_SIZE) && !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
		*end = *start + 1; /* no byte changes, but mtime does: a record must carry it */
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino);
	struct ofile *f = ofile_of(fi);
	bool strip;
	uint64_t start, end;
	int r;

	if (w)
		cred_space(w, fuse_req_ctx(req));
	fallocate_range(mode, off, len, &start, &end);
	dirty_begin(fs, f->io);
	strip = cred_strip_begin(w, req, i, f->fd);
	r = fallocate(f->fd, mode, off, len) < 0 ? -errno : 0;
	cred_strip_end(strip);
	end_change(fs, f->io, r, start, end);
	op_reply_changed(req, ino, r);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	off_t r = lseek(ofile_of(fi)->fd, off, whence);

	(void)ino;
	if (r < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, r);
}

/* Tell the receiver where the bytes came from, so that it may copy them locally. */
static void hint(struct tfs *fs, struct worker *w, struct inode *src, off_t in, off_t out, size_t n, struct iopen *io)
{
	struct jcopy c = {.dst = (uint64_t)out, .src = (uint64_t)in, .len = n, .src_ino = src->ino};

	pthread_mutex_lock(&fs->tree.lock);
	op_path_locked(fs, src, NULL, w->path, &c.src_path);
	pthread_mutex_unlock(&fs->tree.lock);
	if (c.src_path[0])
		dirty_copy(io, &c);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out,
    off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *src = tree_get(&fs->tree, ino_in), *dst = tree_get(&fs->tree, ino_out);
	struct ofile *from = ofile_of(fi_in), *to = ofile_of(fi_out);
	bool strip;
	off_t in = off_in, out = off_out;
	ssize_t n;

	if (!w) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	cred_space(w, fuse_req_ctx(req));
	dirty_begin(fs, to->io);
	strip = cred_strip_begin(w, req, dst, to->fd);
	n = copy_file_range(from->fd, &in, to->fd, &out, len, (unsigned)flags);
	n = n < 0 ? -errno : n;
	cred_strip_end(strip);
	if (n > 0)
		hint(fs, w, src, off_in, off_out, (size_t)n, to->io);
	end_change(fs, to->io, n, (uint64_t)off_out, (uint64_t)off_out + (n < 0 ? len : (size_t)n));
	if (n < 0)
		op_reply(req, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}
