/* SPDX-License-Identifier: BSD-2-Clause
 * The FUSE session.
 *
 * The handshake (FUSE_INIT) is done before the loop starts. What libfuse does not know of is added to its answer by
 * channel.c.
 *
 * Requests come through io_uring where the kernel has it: through libfuse's queues from 3.18 on, through our own (uring.c) before.
 * The threads that read /dev/fuse then get FORGET and INTERRUPT only. Where the kernel does not offer it or the queues
 * cannot be made, they get everything. */
#include "config.h"

#include "fs/session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/channel.h"
#include "fs/mount.h"
#include "fs/ops.h"
#include "fs/supervisor.h"
#include "fs/uring.h"
#include "proto/log.h"

#define THREADS     128        /* at most */
#define MAX_WRITE   (1u << 20) /* bytes */
#define BACKGROUND  128        /* requests of the kernel's own (readahead, writeback) */

#define QUEUE_DEPTH 16         /* requests taken at once by a queue of libfuse, each with a buffer of MAX_WRITE */
#define ENABLE_URING "/sys/module/fuse/parameters/enable_uring"

static void want(struct fuse_conn_info *conn, unsigned cap, bool on)
{
#ifdef HAVE_FUSE_SET_FEATURE_FLAG
	/* this one refuses a set of flags of which one is not offered */
	for (unsigned bit = 1; bit; bit <<= 1) {
		if (!(cap & bit))
			continue;
		fuse_unset_feature_flag(conn, bit);
		if (on && conn->capable_ext & bit)
			fuse_set_feature_flag(conn, bit);
	}
#else
	conn->want &= ~cap;
	if (on)
		conn->want |= conn->capable & cap;
#endif
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
#if HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2
	want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2, fs->privileged);
	fs->killpriv = fuse_get_feature_flag(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
#endif
#if HAVE_DECL_FUSE_CAP_OVER_IO_URING
	want(conn, FUSE_CAP_OVER_IO_URING, fs->want_uring);
#endif
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
#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_STATX
	o->statx = op_statx;
#endif
}

/* --- the handshake ---------------------------------------------------------------------------- */

/* What the kernel can do, of which libfuse may not know. */
static uint64_t offers(const struct fuse_buf *req)
{
	const struct fuse_in_header *h = req->mem;
	const struct fuse_init_in *in = (const struct fuse_init_in *)(h + 1);
	uint64_t flags = in->flags;

	if (flags & FUSE_INIT_EXT && h->len >= sizeof(*h) + offsetof(struct fuse_init_in, flags2) + sizeof(in->flags2))
		flags |= (uint64_t)in->flags2 << 32;
	return flags;
}

static int handshake(struct tfs *fs)
{
	struct fuse_buf req = {.mem = NULL};
	int r;

	do
		r = fuse_session_receive_buf(fs->se, &req);
	while (r == -EINTR);
	if (r <= 0)
		return r < 0 ? r : -ENODEV;
	r = ((const struct fuse_in_header *)req.mem)->opcode == FUSE_INIT ? 0 : -EPROTO;
	if (r == 0) {
		fs->offered = offers(&req);
		fuse_session_process_buf(fs->se, &req);
		fs->offered = 0;
		r = fuse_session_exited(fs->se) ? -EPROTO : 0;
	}
	free(req.mem);
	return r;
}

/* --- io_uring ----------------------------------------------------------------------------------- */

#define HAVE_URING (OWN_URING || HAVE_DECL_FUSE_CAP_OVER_IO_URING)

/* Whether to ask for it. "yes" also switches it on in the kernel. */
static bool uring_wanted(const struct tfs *fs)
{
	int fd;

	if (!HAVE_URING || strcmp(fs->mirror->io_uring, "no") == 0)
		return false;
	if (strcmp(fs->mirror->io_uring, "yes") == 0) {
		fd = open(ENABLE_URING, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "Y", 1) != 1)
			log_warn("io uring = yes: cannot switch it on in %s: %s", ENABLE_URING, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	return true;
}

#if HAVE_DECL_FUSE_CAP_OVER_IO_URING

/* libfuse does not say whether its queues could be made; their threads tell. */
static bool uring_running(void)
{
	DIR *d = opendir("/proc/self/task");
	const struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		char path[64], name[32] = "";
		int fd;

		snprintf(path, sizeof(path), "%.20s/comm", e->d_name);
		fd = openat(dirfd(d), path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		found = read(fd, name, sizeof(name) - 1) > 0 && strncmp(name, "fuse-ring-", 10) == 0;
		close(fd);
	}
	if (d)
		closedir(d);
	return found;
}

#endif

static void uring_report(struct tfs *fs)
{
#if HAVE_DECL_FUSE_CAP_OVER_IO_URING
	fs->uring = fs->want_uring && uring_running();
#endif
	if (!fs->uring && strcmp(fs->mirror->io_uring, "yes") == 0)
		log_warn("io uring = yes, but %s; requests come through /dev/fuse, which is slower",
		    fs->want_uring ? "the kernel (6.14 or newer, fuse.enable_uring=1) or a seccomp filter does not allow it"
				   : "this build has no io_uring (it needs liburing, or libfuse 3.18 built with it)");
}

/* --- mounting ----------------------------------------------------------------------------------- */

/* For fusermount3; the superuser's mount is described in mount.c. */
static void add_options(const struct tfs *fs, char *opts, size_t size)
{
	struct statvfs sv;
	bool ro = fstatvfs(fs->rootfd, &sv) == 0 && sv.f_flag & ST_RDONLY;

	/* NOLINTNEXTLINE(clang-analyzer-deadcode.DeadStores): only libfuse with rings of its own has more to add */
	int n = snprintf(opts, size, "fsname=tandemfs,subtype=tandemfs,default_permissions%s%s",
	    fs->mirror->allow_other ? ",allow_other" : "", ro ? ",ro" : "");

	if (fs->want_uring && !OWN_URING)
		snprintf(opts + n, size - (size_t)n, ",io_uring,io_uring_q_depth=%d", QUEUE_DEPTH);
}

/* What libfuse has to say. That io_uring cannot be had is told by uring_report, to those who asked for it. */
static void library_says(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	if (level <= FUSE_LOG_WARNING)
		log_warn("libfuse: %s", text);
	else
		log_debug("libfuse: %s", text);
}

/* Shake hands; before, what stands between libfuse and the kernel is made, as far as it can be. */
static int connect_session(struct tfs *fs)
{
	int r = channel_open(fs);

	if (r == 0 && OWN_URING && fs->want_uring)
		uring_start(fs, MAX_WRITE);
	else if (r < 0)
		log_debug("libfuse writes by itself: %s", strerror(-r));
	r = handshake(fs);
	if (fs->queues && (r < 0 || !fs->uring || uring_go(fs) < 0)) {
		fs->uring = false;
		uring_stop(fs);
	}
	return r;
}

int session_start(struct tfs *fs, char *why, size_t size)
{
	char opts[256], *argv[] = {"tandemfs", "-o", opts, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_lowlevel_ops ops;
	int r;

	fuse_set_log_func(library_says);
	fs->want_uring = uring_wanted(fs);
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
	r = connect_session(fs);
	if (r < 0)
		snprintf(why, size, "the kernel's handshake failed: %s", strerror(-r));
	else
		uring_report(fs);
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
	uring_stop(fs);
	return r < 0 ? r : 0;
}

void session_stop(struct tfs *fs)
{
	if (!fs->se)
		return;
	if (!fs->privileged)
		fuse_session_unmount(fs->se);
	uring_stop(fs);
	fuse_session_destroy(fs->se);
	fs->se = NULL;
}
