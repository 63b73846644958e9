/* SPDX-License-Identifier: BSD-2-Clause
 * The FUSE session.
 *
 * The handshake (FUSE_INIT) is done before the loop starts. libfuse answers it, but the answer passes through our
 * hands: while libfuse writes, the session's descriptor is a pipe, and what it wrote goes on to the kernel with the flags
 * added that this libfuse does not know and this code understands: HANDLE_KILLPRIV_V2 (since Linux 5.10), which spares a
 * GETXATTR(security.capability) before every WRITE. */
#include "config.h"

#include "fs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/mount.h"
#include "fs/ops.h"
#include "fs/supervisor.h"
#include "proto/log.h"

#define THREADS     128        /* at most */
#define MAX_WRITE   (1u << 20) /* bytes */
#define BACKGROUND  128        /* requests of the kernel's own (readahead, writeback) */

static void want(struct fuse_conn_info *conn, unsigned cap, bool on)
{
	conn->want &= ~cap;
	if (on)
		conn->want |= conn->capable & cap;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct tfs *fs = userdata;

	want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC, true);
	want(conn, FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | FUSE_CAP_PARALLEL_DIROPS, true);
	want(conn, FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO, true);
	/* our requests are answered from memory; splicing costs more calls than the copy it saves */
	want(conn, FUSE_CAP_SPLICE_READ, false);
	want(conn, FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE, true);
	/* without other writers nothing behind the kernel's caches changes */
	want(conn, FUSE_CAP_AUTO_INVAL_DATA, !fs->exclusive);
	want(conn, FUSE_CAP_CACHE_SYMLINKS, fs->exclusive);
	want(conn, FUSE_CAP_POSIX_ACL, fs->privileged);
	/* locks stay in the kernel of this host; order needs every write at once */
	want(conn, FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_WRITEBACK_CACHE, false);
	conn->max_write = MAX_WRITE;
	conn->max_background = BACKGROUND;
	conn->congestion_threshold = BACKGROUND * 3 / 4;
	conn->time_gran = 1;
}

void ops_init(struct fuse_lowlevel_ops *o)
{
	memset(o, 0, sizeof(*o));
	o->init = op_init;
	o->lookup = op_lookup;
	o->forget = op_forget;
	o->forget_multi = op_forget_multi;
	o->getattr = op_getattr;
	o->setattr = op_setattr;
	o->readlink = op_readlink;
	o->statfs = op_statfs;
	o->mknod = op_mknod;
	o->mkdir = op_mkdir;
	o->symlink = op_symlink;
	o->link = op_link;
	o->unlink = op_unlink;
	o->rmdir = op_rmdir;
	o->rename = op_rename;
	o->create = op_create;
	o->open = op_open;
	o->flush = op_flush;
	o->release = op_release;
	o->read = op_read;
	o->write_buf = op_write_buf;
	o->fsync = op_fsync;
	o->fallocate = op_fallocate;
	o->lseek = op_lseek;
	o->copy_file_range = op_copy_file_range;
	o->opendir = op_opendir;
	o->readdir = op_readdir;
	o->readdirplus = op_readdirplus;
	o->releasedir = op_releasedir;
	o->fsyncdir = op_fsyncdir;
	o->getxattr = op_getxattr;
	o->listxattr = op_listxattr;
	o->setxattr = op_setxattr;
	o->removexattr = op_removexattr;
#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_TMPFILE
	o->tmpfile = op_tmpfile;
#endif
}

/* --- the handshake ---------------------------------------------------------------------------- */

/* Flags of ours, if the kernel offers them. */
static uint32_t more_flags(const struct tfs *fs, uint32_t offered)
{
	uint32_t flags = 0;

	if (fs->privileged)
		flags |= offered & FUSE_HANDLE_KILLPRIV_V2;
	return flags;
}

/* Let libfuse answer the request in req into a pipe; return the answer's length in out, or -errno. */
static ssize_t answer(struct tfs *fs, struct fuse_buf *req, char *out, size_t size)
{
	int fd = fuse_session_fd(fs->se), real, p[2];
	ssize_t n = -1;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	real = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (real < 0 || dup3(p[1], fd, O_CLOEXEC) < 0) {
		n = -errno;
		goto out;
	}
	fuse_session_process_buf(fs->se, req);
	n = dup3(real, fd, O_CLOEXEC) < 0 ? -errno : 0;
	close(p[1]);
	p[1] = -1;
	if (n == 0)
		n = read(p[0], out, size);
	if (n <= 0)
		n = n < 0 ? -errno : -EPROTO;
out:
	close(p[0]);
	if (p[1] >= 0)
		close(p[1]);
	if (real >= 0)
		close(real);
	return n;
}

static int handshake(struct tfs *fs)
{
	struct fuse_buf req = {.mem = NULL};
	const struct fuse_in_header *ih;
	const struct fuse_init_in *in;
	struct fuse_out_header *oh;
	struct fuse_init_out *out;
	char reply[512] __attribute__((aligned(8)));
	ssize_t n;
	int r;

	do
		r = fuse_session_receive_buf(fs->se, &req);
	while (r == -EINTR);
	if (r <= 0)
		return r < 0 ? r : -ENODEV;
	ih = req.mem;
	in = (const struct fuse_init_in *)(ih + 1);
	if (ih->opcode != FUSE_INIT) {
		free(req.mem);
		return -EPROTO;
	}
	n = answer(fs, &req, reply, sizeof(reply));
	oh = (struct fuse_out_header *)reply;
	out = (struct fuse_init_out *)(oh + 1);
	if (n >= (ssize_t)(sizeof(*oh) + offsetof(struct fuse_init_out, max_background)) && oh->error == 0) {
		out->flags |= more_flags(fs, in->flags);
		fs->killpriv = out->flags & FUSE_HANDLE_KILLPRIV_V2;
	}
	free(req.mem);
	if (n < 0)
		return (int)n;
	return write(fuse_session_fd(fs->se), reply, (size_t)n) == n ? 0 : -errno;
}

/* --- mounting ----------------------------------------------------------------------------------- */

/* For fusermount3; the superuser's mount is described in mount.c. */
static void add_options(const struct tfs *fs, char *opts, size_t size)
{
	struct statvfs sv;
	bool ro = fstatvfs(fs->rootfd, &sv) == 0 && sv.f_flag & ST_RDONLY;

	snprintf(opts, size, "fsname=tandemfs,subtype=tandemfs,default_permissions%s%s",
	    fs->mirror->allow_other ? ",allow_other" : "", ro ? ",ro" : "");
}

int session_start(struct tfs *fs, char *why, size_t size)
{
	char opts[256], *argv[] = {"tandemfs", "-o", opts, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_lowlevel_ops ops;
	int r;

	ops_init(&ops);
	add_options(fs, opts, sizeof(opts));
	fs->se = fuse_session_new(&args, &ops, sizeof(ops), fs);
	fuse_opt_free_args(&args);
	if (!fs->se) {
		snprintf(why, size, "libfuse refused the options \"%s\"", opts);
		return -EINVAL;
	}
	r = mount_session(fs, why, size);
	if (r < 0)
		return r;
	r = handshake(fs);
	if (r < 0)
		snprintf(why, size, "the kernel's handshake failed: %s", strerror(-r));
	return r;
}

int session_loop(struct tfs *fs)
{
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	int r;

	if (!cfg)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(cfg, 1);
	fuse_loop_cfg_set_max_threads(cfg, THREADS);
	fuse_loop_cfg_set_idle_threads(cfg, 4);
	r = fuse_session_loop_mt(fs->se, cfg);
	fuse_loop_cfg_destroy(cfg);
	return r < 0 ? r : 0;
}

void session_stop(struct tfs *fs)
{
	if (!fs->se)
		return;
	/* the supervisor unmounts; without one it is up to us */
	if (getppid() != fs->supervisor && unmount_is_ours(fs->mirror->mountpoint))
		unmount_path(fs->mirror->mountpoint, true);
	if (!fs->privileged)
		fuse_session_unmount(fs->se);
	fuse_session_destroy(fs->se);
	fs->se = NULL;
}
