/* SPDX-License-Identifier: BSD-2-Clause
 * The worker process: opens the journal, recovers, mounts, serves, closes. */
#include "config.h"

#include "fs/tandemfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "fs/checkpoint.h"
#include "fs/control.h"
#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/identity.h"
#include "fs/inflight.h"
#include "fs/recover.h"
#include "fs/session.h"
#include "fs/silly.h"
#include "fs/victim.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/jseg.h"
#include "proto/log.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#define CIFS_MAGIC  0xff534d42
#define SMB2_MAGIC  0xfe534d42
#define FUSE_MAGIC  0x65735546
#define LONG_TIME   86400.0 /* seconds */

static void recognise(struct tfs *fs)
{
	struct statfs sf;

	if (fstatfs(fs->rootfd, &sf) < 0)
		return;
	switch ((unsigned long)sf.f_type) {
	case NFS_SUPER_MAGIC:
		fs->nfs = true;
		fs->remote = true;
		break;
	case CIFS_MAGIC:
	case SMB2_MAGIC:
	case FUSE_MAGIC:
		fs->remote = true;
		break;
	default:
		break;
	}
}

static void set_limits(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
	l.rlim_cur = l.rlim_max = RLIM_INFINITY;
	setrlimit(RLIMIT_FSIZE, &l); /* a caller's limit is checked by the kernel */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* we are in the path of writeback: never wait for it ourselves */
}

/* Four segments make the least journal: two in use, one prepared, one for the set that a collapse leaves. */
static uint64_t segment_size(uint64_t limit)
{
	return limit / 4 < JSEG_SIZE ? limit / 4 : JSEG_SIZE;
}

#define BUSY_TRIES    200
#define BUSY_PAUSE_NS 10000000

static int open_journal(struct tfs *fs, enum journal_start *start, uint64_t *since)
{
	struct journal_options opt = {.limit = fs->mirror->journal_limit, .segment_size = segment_size(fs->mirror->journal_limit),
	    .sync = fs->mirror->journal_sync == MS_NEVER      ? JSYNC_NEVER
		: fs->mirror->journal_sync == MS_INTERVAL ? JSYNC_INTERVAL
							  : JSYNC_FSYNC};

	if (mkdirat(fs->statefd, "journal", 0700) < 0 && errno != EEXIST)
		return -errno;
	fs->journalfd = openat(fs->statefd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs->journalfd < 0)
		return -errno;
	for (int n = 0;; n++) {
		int r = journal_open(&fs->journal, fs->journalfd, &opt, start, since);

		if (r != -EBUSY || n == BUSY_TRIES)
			return r;
		nanosleep(&(struct timespec){.tv_nsec = BUSY_PAUSE_NS}, NULL); /* the mirror's lock is ours: who has the journal's was killed and is ending */
	}
}

static void record_mount(struct tfs *fs)
{
	struct jrec r;

	jrec_init(&r, JT_MOUNT);
	journal_append(fs->journal, &r);
}

/* Another root was put in place on purpose: nothing the journal says of the old one holds. */
static void record_recheck_all(struct tfs *fs)
{
	struct jrec r;

	jrec_init(&r, JT_RECHECK);
	r.flags = JF_RECURSIVE | JF_CHECKSUM;
	journal_append(fs->journal, &r);
}

static struct tfs *tfs_new(const struct mirror *m, int rootfd, int statefd)
{
	struct tfs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return NULL;
	fs->mirror = m;
	fs->rootfd = rootfd;
	fs->statefd = statefd;
	fs->journalfd = -1;
	fs->exclusive = !m->shared_source;
	recognise(fs);
	fs->privileged = geteuid() == 0;
	if (getrandom(&fs->generation, sizeof(fs->generation), 0) != sizeof(fs->generation))
		fs->generation = (uint32_t)time(NULL);
	fs->entry_timeout = fs->attr_timeout = fs->exclusive ? LONG_TIME : 1.0;
	if (pthread_key_create(&fs->worker_key, worker_free) != 0) {
		free(fs);
		return NULL;
	}
	return fs;
}

static void table_failed(void *journal)
{
	journal_disk_failed(journal);
}

/* Everything before the mount. what names the part that failed. */
static int prepare(struct tfs *fs, const char **what)
{
	enum journal_start start;
	uint64_t since = 0;
	int fd = fcntl(fs->rootfd, F_DUPFD_CLOEXEC, 3), r;
	bool replaced = false;

	*what = "the inode table";
	victims_init(&fs->victims);
	if (fd < 0 || (r = tree_init(&fs->tree, fd)) < 0)
		return fd < 0 ? -errno : r;
	fs->tree.remember = fs->mirror->nfs_export;
	*what = "the identity file in the state directory";
	if ((r = identity_take(fs->statefd, fs->rootfd, fs->source_id, &replaced)) < 0)
		return r;
	*what = "the journal";
	if ((r = open_journal(fs, &start, &since)) < 0)
		return r;
	*what = "the table of operations in flight";
	if ((r = inflight_open(&fs->inflight, fs->statefd)) < 0)
		return r;
	inflight_on_failure(fs->inflight, table_failed, fs->journal);
	*what = "the thread of dirty files";
	if ((r = silly_init(fs)) < 0)
		return r;
	if ((r = dirty_start(fs)) < 0)
		return r;
	*what = "recovery";
	/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): open_journal returned 0 and said how it starts */
	if ((r = recover_start(fs, start, since)) < 0)
		return r;
	record_mount(fs);
	if (replaced)
		record_recheck_all(fs);
	*what = "the thread of checkpoints";
	if ((r = checkpoint_start(fs)) < 0)
		return r;
	*what = "the control socket";
	return control_start(fs);
}

/* Undo prepare and session_start, as far as they came. */
static void finish(struct tfs *fs)
{
	struct worker *w = pthread_getspecific(fs->worker_key);

	control_stop(fs);
	session_stop(fs);
	stay_stop(&fs->stay);
	recover_stop(fs);
	if (fs->dirty)
		dirty_stop(fs);
	silly_settle(fs);
	silly_release(fs);
	checkpoint_stop(fs);
	if (fs->journal)
		journal_close(fs->journal);
	if (w)
		worker_free(w);
	inflight_close(fs->inflight);
	if (fs->tree.root)
		tree_release(&fs->tree);
	if (fs->journalfd >= 0)
		close(fs->journalfd);
	pthread_key_delete(fs->worker_key);
	free(fs);
}

static void reopen_log(int sig)
{
	(void)sig;
	log_reopen(); /* NOLINT(bugprone-signal-handler): open, dup3 and close alone, with errno put back */
}

int worker_run(const struct mirror *m, int rootfd, int statefd, int readyfd)
{
	struct tfs *fs = tfs_new(m, rootfd, statefd);
	const char *what = "memory";
	char why[512];
	int r = fs ? 0 : -ENOMEM;

	if (fs) {
		set_limits();
		cred_process_init(fs);
		r = prepare(fs, &what);
	}
	if (r < 0) {
		log_error("%s: %s", what, err_text(r));
		goto out;
	}
	stay_start(&fs->stay);
	r = session_start(fs, why, sizeof(why));
	if (r < 0) {
		log_error("%s", why);
		goto out;
	}
	fuse_set_signal_handlers(fs->se);
	signal(SIGINT, SIG_IGN); /* the supervisor unmounts */
	signal(SIGHUP, reopen_log);
	log_info("mounted on %s", m->mountpoint);
	if (readyfd >= 0 && write(readyfd, "", 1) != 1)
		log_warn("nobody waits for the mount: %s", strerror(errno));
	r = session_loop(fs);
	if (r < 0)
		log_error("the session ended: %s", err_text(r));
out:
	if (fs)
		finish(fs);
	return r < 0 ? 1 : 0;
}
