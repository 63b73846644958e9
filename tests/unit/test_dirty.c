/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include <sys/stat.h>

#include "fs/dirty.h"
#include "fs/inflight.h"
#include "fs/inodefd.h"
#include "tests/unit/journals.h"

/* A mount without a session: a table, a journal, and one file that the kernel would remember. */
struct rig {
	struct tfs fs;
	struct jdir journal;
	char top[256];
	struct jreader *reader;
	struct inode *file;
	int rootfd;
};

static struct rig *begin(void)
{
	static struct rig g;
	struct stat st;
	int fd;

	memset(&g, 0, sizeof(g));
	jdir_make(&g.journal);
	jdir_open(&g.journal, NULL);
	ck_assert_int_eq(jreader_open(&g.reader, g.journal.fd), 0);
	unit_scratch(g.top);
	g.rootfd = open(g.top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(tree_init(&g.fs.tree, fcntl(g.rootfd, F_DUPFD_CLOEXEC, 3)), 0);
	g.fs.exclusive = true;
	g.fs.rootfd = g.rootfd;
	g.fs.journal = g.journal.j;
	ck_assert_int_eq(inflight_open(&g.fs.inflight, g.journal.fd), 0);
	ck_assert_int_eq(pthread_key_create(&g.fs.worker_key, worker_free), 0);
	ck_assert_int_eq(dirty_start(&g.fs), 0);
	fd = openat(g.rootfd, "file", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ck_assert_int_eq(fstat(fd, &st), 0);
	close(fd);
	g.file = tree_enter_locked(&g.fs.tree, g.fs.tree.root, "file", &st, false, NULL);
	ck_assert_ptr_nonnull(g.file);
	return &g;
}

/* The journal's next CONTENT, or NULL at its end. */
static const struct jrec *next(struct rig *g)
{
	static struct jrec r;

	for (;;) {
		jrec_release(&r);
		if (jreader_next(g->reader, &r, NULL, NULL) <= 0)
			return NULL;
		if (r.type == JT_CONTENT)
			return &r;
	}
}

static void end(struct rig *g)
{
	while (next(g))
		;
	dirty_stop(&g->fs);
	jreader_close(g->reader);
	jdir_close(&g->journal);
	tree_release(&g->fs.tree);
	worker_free(worker_get(&g->fs));
	inflight_close(g->fs.inflight);
	jdir_remove(&g->journal);
	close(g->rootfd);
	unit_remove(g->top);
}

static struct ofile *open_file(struct rig *g, int flags)
{
	int fd = openat(g->rootfd, "file", flags | O_CLOEXEC);

	pthread_mutex_lock(&g->fs.tree.lock);
	struct ofile *f = ofile_open_locked(&g->fs, g->file, fd, flags);
	pthread_mutex_unlock(&g->fs.tree.lock);
	ck_assert_ptr_nonnull(f);
	return f;
}

static void change(struct rig *g, struct ofile *f, uint64_t from, uint64_t to)
{
	dirty_begin(&g->fs, f->io);
	dirty_end(&g->fs, f->io, from, to);
}

static void count(void *arg, const struct inflight_entry *e)
{
	(void)e;
	++*(int *)arg;
}

static int noted(struct rig *g)
{
	int n = 0;

	inflight_each(g->fs.inflight, count, &n);
	return n;
}

START_TEST(the_last_close_records_all_ranges)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_WRONLY), *b = open_file(g, O_RDWR);
	change(g, a, 0, 10);
	change(g, b, 10, 20);
	change(g, a, 100, 110);
	ofile_release(&g->fs, a);
	ck_assert_ptr_null(next(g)); /* one writer is left */
	ofile_release(&g->fs, b);
	const struct jrec *r = next(g);
	ck_assert_ptr_nonnull(r);
	ck_assert_str_eq(r->path, "file");
	ck_assert(r->flags & JF_CLOSED);
	ck_assert_uint_eq(r->ino, g->file->ino);
	ck_assert_uint_eq(r->extents.n, 2);
	ck_assert_uint_eq(r->extents.v[0].end, 20);
	ck_assert_uint_eq(r->extents.v[1].start, 100);
	ck_assert_ptr_null(next(g));
	ck_assert_uint_eq(dirty_count(&g->fs), 0);
	end(g);
}
END_TEST

START_TEST(a_file_that_stays_open_is_recorded_and_its_close_too)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_WRONLY);
	change(g, a, 0, 10);
	dirty_emit(&g->fs, a->io, a->fd, JF_FSYNC);
	const struct jrec *r = next(g);
	ck_assert(r && r->flags & JF_FSYNC && !(r->flags & JF_CLOSED));
	ofile_release(&g->fs, a);
	r = next(g);
	ck_assert(r && r->flags & JF_CLOSED);
	ck_assert_uint_eq(r->extents.n, 0);
	end(g);
}
END_TEST

START_TEST(a_clean_file_leaves_no_record)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_RDWR), *b = open_file(g, O_RDONLY);
	dirty_emit(&g->fs, a->io, a->fd, JF_FSYNC);
	ofile_release(&g->fs, a);
	ofile_release(&g->fs, b);
	ck_assert_ptr_null(next(g));
	end(g);
}
END_TEST

START_TEST(the_inode_is_noted_from_before_the_change_to_its_record)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_WRONLY);
	dirty_begin(&g->fs, a->io);
	ck_assert_int_eq(noted(g), 1);
	dirty_emit(&g->fs, a->io, a->fd, 0); /* the write is under way: it stays noted */
	ck_assert_int_eq(noted(g), 1);
	ck_assert_uint_eq(dirty_count(&g->fs), 1);
	dirty_end(&g->fs, a->io, 5, 6);
	ck_assert_int_eq(noted(g), 1);
	dirty_emit_all(&g->fs);
	ck_assert_int_eq(noted(g), 0);
	ck_assert_uint_eq(dirty_count(&g->fs), 0);
	const struct jrec *r = next(g);
	ck_assert(r && r->extents.n == 1 && r->extents.v[0].start == 5);
	ofile_release(&g->fs, a);
	end(g);
}
END_TEST

START_TEST(a_change_that_failed_leaves_nothing)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_WRONLY);
	dirty_begin(&g->fs, a->io);
	dirty_end(&g->fs, a->io, 7, 7);
	dirty_emit_all(&g->fs);
	ck_assert_int_eq(noted(g), 0);
	ck_assert_ptr_null(next(g));
	ofile_release(&g->fs, a);
	ck_assert_ptr_null(next(g));
	end(g);
}
END_TEST

START_TEST(a_removed_file_is_not_recorded)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_WRONLY);
	change(g, a, 0, 10);
	ck_assert_int_eq(unlinkat(g->rootfd, "file", 0), 0);
	tree_unname_locked(&g->fs.tree, g->fs.tree.root, "file");
	ofile_release(&g->fs, a);
	ck_assert_ptr_null(next(g));
	ck_assert_int_eq(noted(g), 0);
	end(g);
}
END_TEST

START_TEST(one_name_of_two_that_is_left_is_recorded)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_WRONLY);
	ck_assert_int_eq(linkat(g->rootfd, "file", g->rootfd, "other", 0), 0);
	tree_name_locked(&g->fs.tree, g->file, g->fs.tree.root, "other");
	change(g, a, 0, 10);
	ck_assert_int_eq(unlinkat(g->rootfd, "file", 0), 0);
	tree_unname_locked(&g->fs.tree, g->fs.tree.root, "file");
	ofile_release(&g->fs, a);
	const struct jrec *r = next(g);
	ck_assert(r && strcmp(r->path, "other") == 0 && !(r->flags & JF_UNLINKED));
	end(g);
}
END_TEST

START_TEST(what_stays_dirty_is_recorded_within_a_second)
{
	struct rig *g = begin();
	struct ofile *a = open_file(g, O_WRONLY);
	const struct jrec *r = NULL;
	change(g, a, 1, 2);
	for (int n = 0; !r && n < 1000; n++) {
		usleep(10000);
		r = next(g);
	}
	ck_assert(r && r->extents.n == 1 && r->extents.v[0].start == 1);
	ofile_release(&g->fs, a);
	end(g);
}
END_TEST

START_TEST(a_long_name_is_looked_at)
{
	struct rig *g = begin();
	struct stat st = {.st_ino = 1, .st_dev = 1, .st_mode = S_IFREG | 0600};
	struct inode *i;
	char name[766] = {0};
	memset(name, 'n', sizeof(name) - 1);
	i = tree_enter_locked(&g->fs.tree, g->fs.tree.root, name, &st, false, NULL);
	ck_assert_ptr_nonnull(i);
	ck_assert_int_eq(ifd_stat(&g->fs, i, &st), -ENAMETOOLONG); /* this file system has none */
	ck_assert_int_eq(ifd_open(&g->fs, i, O_RDONLY), -ENAMETOOLONG);
	end(g);
}
END_TEST

UNIT_MAIN("dirty", the_last_close_records_all_ranges, a_file_that_stays_open_is_recorded_and_its_close_too,
	  a_clean_file_leaves_no_record, the_inode_is_noted_from_before_the_change_to_its_record, a_change_that_failed_leaves_nothing,
	  a_removed_file_is_not_recorded, one_name_of_two_that_is_left_is_recorded, what_stays_dirty_is_recorded_within_a_second,
	  a_long_name_is_looked_at)
