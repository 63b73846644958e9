/* SPDX-License-Identifier: BSD-2-Clause
 * What the mount process reads besides requests of the kernel. The first byte chooses: even, packets of a client of mount.sock, u16
 * length and bytes each (the high bit: an eventfd beside each); odd, the table of operations in flight and the identity that an earlier
 * process left, and recovery from them: pieces of the table (u8 where, u8 slot, u16 length, bytes), the rest is the identity. With 0x40 inode
 * numbers below 8 stand for files that are there; with 0x20 the journal goes on behind the table: first u8 count, then u8 path, u8 path each. */
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
#include "proto/err.h"
#include "proto/jreader.h"
#include "proto/jseg.h"
#include "proto/log.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/threads.h"

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

static char rig_path[2][300];

/* Directories and tables are made once; a rig's stay until the end. */
static void begin(struct rig *g, char path[300], const char *name)
{
	int at;

	snprintf(path, 300, "%s.%s", scratch_begin(), name);
	if (mkdir(path, 0700) != 0)
		abort();
	at = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	g->mirror.source = g->mirror.mountpoint = (char *)(uintptr_t)"/source";
	g->fs.mirror = &g->mirror;
	g->fs.exclusive = true;
	g->fs.statefd = at;
	g->fs.rootfd = scratch_mkdir(at, "root");
	g->fs.journalfd = scratch_mkdir(at, "journal");
	close(scratch_mkdir(at, "root/d"));
	scratch_write(at, "root/f", "f", 1, 0);
	scratch_write(at, "root/d/g", "g", 1, 0);
	if (inflight_open(&g->fs.inflight, at) != 0 || tree_init(&g->fs.tree, fcntl(g->fs.rootfd, F_DUPFD_CLOEXEC, 3)) != 0)
		abort();
}

static void end(struct rig *g, const char *path)
{
	tree_release(&g->fs.tree);
	inflight_close(g->fs.inflight);
	close(g->fs.rootfd);
	close(g->fs.journalfd);
	close(g->fs.statefd);
	scratch_remove(path);
}

/* Returns the time since when an empty journal does not know. */
static uint64_t open_journal(struct rig *g, uint64_t limit)
{
	struct journal_options opt = {.limit = limit, .segment_size = JSEG_SIZE_MIN, .sync = JSYNC_NEVER};
	enum journal_start start;
	uint64_t since;

	if (journal_open(&g->fs.journal, g->fs.journalfd, &opt, &start, &since) != 0 || start != JSTART_NEW)
		abort();
	return since;
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

/* One mount answers all inputs. Its journal is small, so that it collapses now and then. */
static struct rig served;

static void serve_end(void)
{
	control_stop(&served.fs);
	dirty_stop(&served.fs);
	journal_close(served.fs.journal);
	worker_free(worker_get(&served.fs));
	end(&served, rig_path[0]);
}

static void serve(void)
{
	begin(&served, rig_path[0], "served");
	open_journal(&served, 0);
	if (pthread_key_create(&served.fs.worker_key, worker_free) != 0 || dirty_start(&served.fs) != 0 || control_start(&served.fs) != 0)
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

/* --- what an earlier process left --- */

static struct rig left;

static void left_end(void)
{
	end(&left, rig_path[1]);
}

static const char *const names[] = {"f", "d", "d/g", "d/f", "e", "g", "e/g", ""};

/* Replace numbers below 8 by those of files. */
static void mend_ino(uint8_t *p)
{
	struct stat st;
	uint64_t ino;

	memcpy(&ino, p, 8);
	if (ino == 0 || ino >= 8 || fstatat(left.fs.rootfd, names[ino - 1], &st, 0) != 0)
		return;
	ino = st.st_ino;
	memcpy(p, &ino, 8);
}

/* The table as inflight.c lays it out. Returns false when its head was written to. */
static bool write_table(struct input *in, bool mended)
{
	static const uint64_t offsets[] = {0, INFLIGHT_HEAD, INFLIGHT_HEAD + 512 * 8192};
	int fd = openat(left.fs.statefd, "inflight", O_RDWR | O_CLOEXEC);
	bool head = false;

	for (int i = 0; i < 6 && in->left > 3; i++) {
		unsigned where = (unsigned)input_number(in, 1) % 3, slot = (unsigned)input_number(in, 1);
		size_t n = input_number(in, 2);
		uint8_t *p = input_bytes(in, &n);

		head |= where == 0 && slot == 0;
		if (mended && where > 0 && n >= 24)
			mend_ino(p + 16);
		if (mended && where == 1 && n >= 32)
			mend_ino(p + 24);
		if (pwrite(fd, p, n, (off_t)(offsets[where] + slot * 512)) < 0)
			abort();
		free(p);
	}
	close(fd);
	return !head;
}

/* Records after those of the table: a rename, or the end of a name. */
static void append(struct input *in)
{
	for (unsigned n = (unsigned)input_number(in, 1) % 8; n > 0; n--) {
		const char *from = names[input_number(in, 1) % 8], *to = names[input_number(in, 1) % 8];
		struct stat st = {.st_ino = 1};
		struct jrec r;

		fstatat(left.fs.rootfd, from, &st, 0);
		jrec_init(&r, strcmp(from, to) == 0 ? JT_UNLINK : JT_RENAME);
		r.path = from;
		r.path2 = r.type == JT_RENAME ? to : "";
		r.ino = st.st_ino;
		if (*from != '\0' && (*to != '\0' || r.type == JT_UNLINK) && journal_append(left.fs.journal, &r) != 0)
			abort();
	}
}

/* Whatever the file says: who was taken is known afterwards. */
static void identity(struct input in)
{
	int at = left.fs.statefd, root = left.fs.rootfd;
	char id[33], again[33], why[1024] = "";
	bool replaced;

	if (in.left > 0)
		scratch_write(at, "identity", in.p, in.left, 0);
	else
		unlinkat(at, "identity", 0);
	if (identity_check(at, root, "source", "state", why, sizeof(why)) == E_FOREIGN && *why == '\0')
		abort();
	if (identity_take(at, root, id, &replaced) != 0)
		return; /* too large */
	if (strlen(id) != 32 || identity_check(at, root, "source", "state", why, sizeof(why)) != 0 ||
	    identity_take(at, root, again, &replaced) != 0 || replaced || strcmp(id, again) != 0)
		abort();
}

/* What recovery appended can be read. */
static void read_journal(void)
{
	struct jreader *r;
	struct jrec rec;
	int got;

	if (jreader_open(&r, left.fs.journalfd) != 0 || jreader_rewind(r) != 0)
		abort();
	while ((got = jreader_next(r, &rec, NULL, NULL)) == 1)
		jrec_release(&rec);
	if (got != 0)
		abort();
	jreader_close(r);
}

static void none_left(void *arg, const struct inflight_entry *e)
{
	abort();
}

/* Whatever the table says, recovery comes to an end, and nothing of it is found again. */
static void left_behind(struct input in, unsigned kind)
{
	uint64_t since;

	if (left.fs.inflight == NULL) {
		begin(&left, rig_path[1], "left");
		atexit(left_end);
	}
	scratch_clear(openat(left.fs.journalfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	since = open_journal(&left, 1ull << 40);
	if (kind & 0x20)
		append(&in);
	if (!write_table(&in, kind & 0x40)) {
		inflight_close(left.fs.inflight);
		if (inflight_open(&left.fs.inflight, left.fs.statefd) != 0)
			abort();
	}
	identity(in);
	if (recover_start(&left.fs, JSTART_KILLED, since) != 0)
		abort();
	recover_stop(&left.fs);
	read_journal();
	inflight_each(left.fs.inflight, none_left, NULL);
	if (inflight_overflowed(left.fs.inflight))
		abort();
	journal_close(left.fs.journal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned kind = (unsigned)input_number(&in, 1);
	static bool quiet;

	if (!quiet)
		log_init("tandemfs", "/dev/null", 0);
	quiet = true;
	if (kind % 2 == 0)
		requests(in, kind & 0x80);
	else
		left_behind(in, kind);
	return 0;
}
