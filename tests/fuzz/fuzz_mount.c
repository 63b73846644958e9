/* SPDX-License-Identifier: BSD-2-Clause
 * What the mount process reads besides requests of the kernel. The first byte chooses: even, packets of a client of mount.sock, u16
 * length and bytes each (the high bit: an eventfd beside each); odd, the table of operations in flight and the identity that an earlier
 * process left, and recovery from them. */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "fs/control.h"
#include "fs/dirty.h"
#include "fs/identity.h"
#include "fs/inflight.h"
#include "fs/recover.h"
#include "fs/tandemfs.h"
#include "proto/ctlsock.h"
#include "proto/jreader.h"
#include "proto/jseg.h"
#include "proto/log.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* "unmount" ends the supervisor, which is whoever runs this. */
int __wrap_kill(pid_t pid, int sig);
int __wrap_kill(pid_t pid, int sig)
{
	return 0;
}

/* The table of 36 MiB stays a hole. */
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	if (mode != 0) /* tmpfs knows no ZERO_RANGE */
		return __real_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
	errno = EOPNOTSUPP;
	return -1;
}

struct rig {
	struct tfs fs;
	struct mirror mirror;
};

static void begin(struct rig *g, int at, enum journal_start *start, uint64_t *since)
{
	static const struct journal_options opt = {.limit = 1ull << 40, .segment_size = JSEG_SIZE_MIN, .sync = JSYNC_NEVER};

	memset(g, 0, sizeof(*g));
	g->mirror.source = g->mirror.mountpoint = (char *)(uintptr_t)"/source";
	g->fs.mirror = &g->mirror;
	g->fs.exclusive = true;
	g->fs.statefd = at;
	g->fs.rootfd = scratch_mkdir(at, "root");
	g->fs.journalfd = scratch_mkdir(at, "journal");
	close(scratch_mkdir(at, "root/d"));
	scratch_write(at, "root/f", "f", 1, 0);
	if (journal_open(&g->fs.journal, g->fs.journalfd, &opt, start, since) != 0 || inflight_open(&g->fs.inflight, at) != 0 ||
	    tree_init(&g->fs.tree, fcntl(g->fs.rootfd, F_DUPFD_CLOEXEC, 3)) != 0 ||
	    pthread_key_create(&g->fs.worker_key, worker_free) != 0 || dirty_start(&g->fs) != 0)
		abort();
}

static void end(struct rig *g)
{
	dirty_stop(&g->fs);
	journal_close(g->fs.journal);
	tree_release(&g->fs.tree);
	worker_free(worker_get(&g->fs));
	inflight_close(g->fs.inflight);
	pthread_key_delete(g->fs.worker_key);
	close(g->fs.rootfd);
	close(g->fs.journalfd);
}

static void send_packet(int fd, const void *p, size_t n, int efd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (efd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);

		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &efd, sizeof(int));
	}
	(void)sendmsg(fd, &msg, MSG_NOSIGNAL); /* the connection may be over */
}

/* One mount answers all inputs; its directory stays. */
static struct rig served;
static char served_path[256];

static void serve_end(void)
{
	control_stop(&served.fs);
	end(&served);
	nftw(served_path, scratch_remove_one, 32, FTW_DEPTH | FTW_PHYS);
	rmdir(served_path);
}

static void serve(void)
{
	enum journal_start start;
	uint64_t since;

	snprintf(served_path, sizeof(served_path), "%s.served", scratch_path);
	if (mkdir(served_path, 0700) != 0)
		abort();
	begin(&served, open(served_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), &start, &since);
	if (control_start(&served.fs) != 0)
		abort();
	atexit(serve_end);
}

/* Send the packets, await the end, and see that others are still served. */
static void requests(struct input in, bool with_fd)
{
	json_t *reply;
	int efd = with_fd ? eventfd(0, EFD_CLOEXEC) : -1, fds[CTL_FDS_MAX], fd;

	if (served.fs.control == NULL)
		serve();
	fd = ctl_connect(served.fs.statefd, "mount.sock");
	if (fd < 0)
		abort();
	for (int i = 0; i < 8 && in.left > 0; i++) {
		size_t n = input_number(&in, 2);
		uint8_t *p = input_bytes(&in, &n);

		if (n > 0)
			send_packet(fd, p, n, efd);
		free(p);
	}
	shutdown(fd, SHUT_WR);
	while (ctl_recv(fd, &reply, fds, 20000) == 0) {
		json_decref(reply);
		for (int i = 0; i < CTL_FDS_MAX; i++)
			if (fds[i] >= 0)
				close(fds[i]);
	}
	close(fd);
	fd = ctl_connect(served.fs.statefd, "mount.sock");
	if (fd < 0 || ctl_call(fd, "status", NULL, &reply, fds, 20000) != 0)
		abort();
	json_decref(reply);
	close(fd);
	if (efd >= 0)
		close(efd);
}

#define INFLIGHT_HEAD 4096 /* bytes before the first slot (docs in inflight.c) */

/* Whatever the table says, recovery comes to an end and what it appends can be read. */
static void left_behind(int at, struct input in)
{
	static const uint64_t offsets[] = {0, INFLIGHT_HEAD, INFLIGHT_HEAD + 512 * 8192};
	enum journal_start start;
	uint64_t since;
	char source_id[33], why[1024];
	bool replaced;
	struct rig g;
	struct jreader *r;
	struct jrec rec;
	int fd, got;

	begin(&g, at, &start, &since);
	fd = openat(at, "inflight", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 6 && in.left > 3; i++) {
		off_t off = (off_t)(offsets[input_number(&in, 1) % 3] + input_number(&in, 1) * 512);
		size_t n = input_number(&in, 2);
		uint8_t *p = input_bytes(&in, &n);

		if (pwrite(fd, p, n, off) < 0)
			abort();
		free(p);
	}
	close(fd);
	scratch_write(at, "identity", in.p, in.left, 0);
	(void)identity_check(at, g.fs.rootfd, "source", "state", why, sizeof(why));
	if (identity_take(at, g.fs.rootfd, source_id, &replaced) == 0 && strlen(source_id) != 32)
		abort();
	if (recover_start(&g.fs, JSTART_KILLED, since) != 0 || jreader_open(&r, g.fs.journalfd) != 0 || jreader_rewind(r) != 0)
		abort();
	recover_stop(&g.fs);
	while ((got = jreader_next(r, &rec, NULL, NULL)) == 1)
		jrec_release(&rec);
	if (got != 0)
		abort();
	jreader_close(r);
	end(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned kind = (unsigned)input_number(&in, 1);
	static bool quiet;
	int at = open(scratch_begin(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!quiet)
		log_init("tandemfs", "/dev/null", 0);
	quiet = true;
	if (kind % 2 == 0)
		requests(in, kind & 0x80);
	else
		left_behind(at, in);
	close(at);
	return 0;
}
