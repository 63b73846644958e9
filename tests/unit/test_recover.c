/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/inflight.h"
#include "fs/recover.h"
#include "fs/recover_walk.h"
#include "proto/fileio.h"
#include "tests/unit/journals.h"

static const char *unreadable; /* what a directory that lists this name, and fstatat of it, fail with EIO for */

int fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
	static int (*real)(int, const char *, struct stat *, int);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "fstatat");
	if (unreadable && strcmp(name, unreadable) == 0) {
		errno = EIO;
		return -1;
	}
	return real(dirfd, name, st, flags);
}

/* A mount without a session: a source with dir/file, a journal. */
struct rig {
	struct tfs fs;
	struct jdir journal;
	char top[256];
	struct jreader *reader;
};

static struct rig *begin(void)
{
	static struct rig g;
	int fd;

	memset(&g, 0, sizeof(g));
	jdir_make(&g.journal);
	jdir_open(&g.journal, NULL);
	unit_scratch(g.top);
	g.fs.rootfd = open(g.top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	g.fs.statefd = g.fs.journalfd = g.journal.fd;
	g.fs.journal = g.journal.j;
	ck_assert_int_eq(tree_init(&g.fs.tree, fcntl(g.fs.rootfd, F_DUPFD_CLOEXEC, 3)), 0);
	ck_assert_int_eq(inflight_open(&g.fs.inflight, g.journal.fd), 0);
	ck_assert_int_eq(mkdirat(g.fs.rootfd, "dir", 0700), 0);
	fd = openat(g.fs.rootfd, "dir/file", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	return &g;
}

static void end(struct rig *g)
{
	recover_stop(&g->fs);
	jdir_close(&g->journal);
	tree_release(&g->fs.tree);
	inflight_close(g->fs.inflight);
	jdir_remove(&g->journal);
	close(g->fs.rootfd);
	unit_remove(g->top);
}

static void walked(struct rig *g)
{
	const struct timespec nap = {.tv_nsec = 1000000};

	while (recover_walking(&g->fs))
		nanosleep(&nap, NULL);
}

/* How many RECHECK records of path with all of these flags, and of RECURSIVE and CHECKSUM no others, are in
 * the journal. */
static int rechecks(struct rig *g, const char *path, uint16_t flags)
{
	struct jreader *jr;
	struct jrec r;
	int n = 0;

	ck_assert_int_eq(jreader_open(&jr, g->journal.fd), 0);
	ck_assert_int_eq(jreader_rewind(jr), 0);
	while (jreader_next(jr, &r, NULL, NULL) == 1) {
		n += r.type == JT_RECHECK && strcmp(r.path, path) == 0 &&
		     (r.flags & (JF_RECURSIVE | JF_CHECKSUM)) == flags;
		jrec_release(&r);
	}
	jreader_close(jr);
	return n;
}

START_TEST(the_walk_finds_what_changed)
{
	struct rig *g = begin();

	ck_assert_int_eq(recover_walk_start(&g->fs, 1), 0);
	walked(g);
	ck_assert_int_eq(rechecks(g, "dir/file", JF_CHECKSUM), 1);
	ck_assert_int_eq(rechecks(g, "dir", 0), 1);
	ck_assert(recover_stop(&g->fs));
	end(g);
}
END_TEST

START_TEST(a_directory_renamed_meanwhile_makes_it_walk_again)
{
	struct rig *g = begin();
	const struct timespec nap = {.tv_nsec = 50000000};

	pthread_mutex_lock(&g->fs.tree.lock); /* the walk waits with its first record */
	ck_assert_int_eq(recover_walk_start(&g->fs, 1), 0);
	ck_assert(recover_walking(&g->fs));
	nanosleep(&nap, NULL); /* let it begin */
	recover_move_begin(&g->fs);
	recover_move_end(&g->fs);
	pthread_mutex_unlock(&g->fs.tree.lock);
	walked(g);
	ck_assert_int_eq(rechecks(g, "dir/file", JF_CHECKSUM), 2);
	end(g);
}
END_TEST

START_TEST(a_rename_of_a_directory_that_does_not_end_rechecks_everything)
{
	struct rig *g = begin();

	pthread_mutex_lock(&g->fs.tree.lock);
	ck_assert_int_eq(recover_walk_start(&g->fs, 1), 0);
	recover_move_begin(&g->fs);
	pthread_mutex_unlock(&g->fs.tree.lock);
	walked(g);
	ck_assert_int_eq(rechecks(g, "", JF_RECURSIVE), 1);
	end(g);
}
END_TEST

START_TEST(a_walk_that_was_interrupted_is_resumed)
{
	struct rig *g = begin();

	/* as a walk that was killed leaves it */
	ck_assert_int_eq(fio_replace(g->fs.statefd, "recheck", "1\n", 2, 0600), 0);
	ck_assert_int_eq(recover_start(&g->fs, JSTART_CLEAN, 0), 0);
	walked(g);
	ck_assert_int_eq(rechecks(g, "dir/file", JF_CHECKSUM), 1);
	end(g);
}
END_TEST

START_TEST(what_cannot_be_looked_at_is_compared)
{
	struct rig *g = begin();

	unreadable = "file";
	ck_assert_int_eq(recover_walk_start(&g->fs, 1), 0);
	walked(g);
	unreadable = NULL;
	ck_assert_int_eq(rechecks(g, "dir/file", JF_RECURSIVE | JF_CHECKSUM), 1);
	end(g);
}
END_TEST

/* Its stack and its descriptors are limited, the depth of a tree is not. */
START_TEST(what_is_deep_is_compared)
{
	struct rig *g = begin();
	char path[2 * 256] = "d";
	int dir = fcntl(g->fs.rootfd, F_DUPFD_CLOEXEC, 3), sub;

	for (int level = 1; level <= 300; level++) {
		ck_assert_int_eq(mkdirat(dir, "d", 0700), 0);
		sub = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ck_assert_int_ge(sub, 0);
		close(dir);
		dir = sub;
	}
	close(dir);
	for (int level = 2; level <= 256; level++)
		strcpy(path + strlen(path), "/d");
	ck_assert_int_eq(recover_walk_start(&g->fs, 1), 0);
	walked(g);
	ck_assert_int_eq(rechecks(g, path, JF_RECURSIVE | JF_CHECKSUM), 1);
	end(g);
}
END_TEST

/* A full disk, for example: then only the journal can say that it is not done. */
START_TEST(a_walk_that_cannot_be_remembered_is_not_forgotten)
{
	struct rig *g = begin();
	struct jhead *h = journal_head(g->fs.journal);

	ck_assert_int_eq(mkdirat(g->fs.statefd, "recheck", 0700), 0);
	atomic_store(&h->recover_ns, 1);
	pthread_mutex_lock(&g->fs.tree.lock);
	ck_assert_int_eq(recover_start(&g->fs, JSTART_POWER, 1), 0);
	ck_assert_uint_eq(atomic_load(&h->recover_ns), 1);
	pthread_mutex_unlock(&g->fs.tree.lock);
	walked(g);
	recover_stop(&g->fs);
	ck_assert_uint_eq(atomic_load(&h->recover_ns), 0);
	ck_assert_int_eq(unlinkat(g->fs.statefd, "recheck", AT_REMOVEDIR), 0);
	end(g);
}
END_TEST

START_TEST(a_close_before_the_walk_ended_does_not_say_that_it_did)
{
	struct rig *g = begin();

	atomic_store(&journal_head(g->fs.journal)->recover_ns, 1);
	jdir_append(&g->journal, "x", 1);
	jdir_close(&g->journal);
	jdir_open(&g->journal, NULL);
	ck_assert_int_eq(g->journal.start, JSTART_POWER);
	g->fs.journal = g->journal.j;
	end(g);
}
END_TEST

START_TEST(with_a_damaged_journal_bytes_changed_last_are_compared)
{
	struct rig *g = begin();

	ck_assert_int_eq(recover_start(&g->fs, JSTART_DAMAGED, 1), 0);
	walked(g);
	ck_assert_int_eq(rechecks(g, "", JF_RECURSIVE), 1);
	ck_assert_int_eq(rechecks(g, "dir/file", JF_CHECKSUM), 1);
	end(g);
}
END_TEST

START_TEST(a_clock_set_back_takes_the_time_to_look_from_with_it)
{
	struct rig *g = begin();
	struct jhead *h = journal_head(g->fs.journal);

	ck_assert_int_eq(journal_checkpoint(g->fs.journal, 0, 1000), 0);
	journal_clock(g->fs.journal, 2000);
	ck_assert_uint_eq(atomic_load(&h->safe_ns), 1000);
	journal_clock(g->fs.journal, 500);
	ck_assert_uint_eq(atomic_load(&h->safe_ns), 500);
	end(g);
}
END_TEST

UNIT_MAIN("recover", the_walk_finds_what_changed, a_directory_renamed_meanwhile_makes_it_walk_again,
	  a_rename_of_a_directory_that_does_not_end_rechecks_everything,
	  a_walk_that_was_interrupted_is_resumed, what_cannot_be_looked_at_is_compared, what_is_deep_is_compared,
	  a_walk_that_cannot_be_remembered_is_not_forgotten, a_close_before_the_walk_ended_does_not_say_that_it_did,
	  with_a_damaged_journal_bytes_changed_last_are_compared,
	  a_clock_set_back_takes_the_time_to_look_from_with_it)
