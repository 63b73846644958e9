/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/inflight.h"
#include "proto/jrec.h"
#include "tests/unit/unit.h"

static char top[256];
static int dirfd_;

static struct inflight *begin(void)
{
	struct inflight *f;

	unit_scratch(top);
	dirfd_ = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(inflight_open(&f, dirfd_), 0);
	return f;
}

/* The process dies and its successor opens what it left. */
static struct inflight *successor(struct inflight *f)
{
	inflight_close(f);
	ck_assert_int_eq(inflight_open(&f, dirfd_), 0);
	return f;
}

static void end(struct inflight *f)
{
	inflight_close(f);
	close(dirfd_);
	unit_remove(top);
}

struct found {
	int n;
	struct inflight_entry last;
	char path[8192], path2[8192];
};

static void take(void *arg, const struct inflight_entry *e)
{
	struct found *x = arg;

	x->n++;
	x->last = *e;
	snprintf(x->path, sizeof(x->path), "%s", e->path);
	snprintf(x->path2, sizeof(x->path2), "%s", e->path2);
}

static struct found *look(struct inflight *f)
{
	static struct found x;

	memset(&x, 0, sizeof(x));
	inflight_each(f, take, &x);
	return &x;
}

static void set(struct inflight *f, int op, unsigned type, const char *path, const char *path2)
{
	struct inflight_entry e = {.type = type, .rflags = 2, .seq = 77, .ino = 5, .ino2 = 6, .nlink2 = 3, .mode = 0100644,
	    .path = path, .path2 = path2};

	inflight_op_set(f, op, &e, strlen(path), path2 ? strlen(path2) : 0);
}

START_TEST(an_operation_under_way_is_found_by_the_successor)
{
	struct inflight *f = begin();
	set(f, inflight_op_alloc(f), JT_RENAME, "from/here", "to/there");
	f = successor(f);
	struct found *x = look(f);
	ck_assert_int_eq(x->n, 1);
	ck_assert_uint_eq(x->last.type, JT_RENAME);
	ck_assert_uint_eq(x->last.rflags, 2);
	ck_assert_uint_eq(x->last.seq, 77);
	ck_assert_uint_eq(x->last.ino, 5);
	ck_assert_uint_eq(x->last.ino2, 6);
	ck_assert_uint_eq(x->last.nlink2, 3);
	ck_assert(!x->last.cut);
	ck_assert_str_eq(x->path, "from/here");
	ck_assert_str_eq(x->path2, "to/there");
	inflight_reset(f);
	ck_assert_int_eq(look(f)->n, 0);
	end(f);
}
END_TEST

START_TEST(a_finished_operation_leaves_nothing)
{
	struct inflight *f = begin();
	int op = inflight_op_alloc(f);
	set(f, op, JT_UNLINK, "gone", NULL);
	inflight_op_clear(f, op);
	f = successor(f);
	ck_assert_int_eq(look(f)->n, 0);
	end(f);
}
END_TEST

START_TEST(the_root_has_an_empty_path)
{
	struct inflight *f = begin();
	set(f, inflight_op_alloc(f), JT_SETATTR, "", NULL);
	ck_assert_int_eq(look(f)->n, 1);
	ck_assert_str_eq(look(f)->path, "");
	end(f);
}
END_TEST

START_TEST(a_path_that_does_not_fit_is_cut_to_a_directory)
{
	struct inflight *f = begin();
	char path[6000];
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	for (size_t n = 100; n < sizeof(path) - 1; n += 100)
		path[n] = '/';
	set(f, inflight_op_alloc(f), JT_MKDIR, path, NULL);
	struct found *x = look(f);
	size_t n = strlen(x->path);
	ck_assert_int_eq(x->n, 1);
	ck_assert(x->last.cut);
	ck_assert_uint_gt(n, 1000);
	ck_assert_int_eq(path[n], '/');
	ck_assert(strncmp(path, x->path, n) == 0);
	end(f);
}
END_TEST

START_TEST(slots_are_given_back)
{
	struct inflight *f = begin();
	for (int n = 0; n < INFLIGHT_OPS; n++)
		ck_assert_int_eq(inflight_op_alloc(f), n);
	ck_assert_int_eq(inflight_op_alloc(f), -1);
	inflight_op_free(f, 17);
	ck_assert_int_eq(inflight_op_alloc(f), 17);
	end(f);
}
END_TEST

START_TEST(use_without_a_slot_is_an_overflow)
{
	struct inflight *f = begin();
	ck_assert(!inflight_overflowed(f));
	set(f, -1, JT_UNLINK, "x", NULL);
	inflight_op_clear(f, -1);
	f = successor(f);
	ck_assert(inflight_overflowed(f));
	inflight_reset(f);
	ck_assert(!inflight_overflowed(f));
	end(f);
}
END_TEST

START_TEST(a_dirty_inode_is_found_until_it_is_clean)
{
	struct inflight *f = begin();
	int a = inflight_dirty_set(f, 10, 100, "a", 1), b = inflight_dirty_set(f, 11, 101, "dir/b", 5);
	ck_assert_int_ge(a, 0);
	ck_assert_int_ne(a, b);
	inflight_dirty_clear(f, a);
	f = successor(f);
	struct found *x = look(f);
	ck_assert_int_eq(x->n, 1);
	ck_assert_uint_eq(x->last.type, JT_CONTENT);
	ck_assert_uint_eq(x->last.ino, 11);
	ck_assert_uint_eq(x->last.seq, 101);
	ck_assert_str_eq(x->path, "dir/b");
	end(f);
}
END_TEST

START_TEST(a_full_table_is_an_overflow)
{
	struct inflight *f = begin();
	for (unsigned n = 0; n < INFLIGHT_DIRTY; n++)
		ck_assert_int_ge(inflight_dirty_set(f, n, 1, "p", 1), 0);
	ck_assert(!inflight_overflowed(f));
	ck_assert_int_eq(inflight_dirty_set(f, 1, 1, "p", 1), -1);
	ck_assert(inflight_overflowed(f));
	ck_assert_int_eq(look(f)->n, INFLIGHT_DIRTY);
	inflight_dirty_clear(f, -1);
	end(f);
}
END_TEST

START_TEST(a_file_that_is_none_of_ours_is_made_anew)
{
	struct inflight *f = begin();
	set(f, inflight_op_alloc(f), JT_UNLINK, "x", NULL);
	inflight_close(f);
	int fd = openat(dirfd_, "inflight", O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(pwrite(fd, "garbage!", 8, 0), 8);
	close(fd);
	ck_assert_int_eq(inflight_open(&f, dirfd_), 0);
	ck_assert_int_eq(look(f)->n, 0);
	end(f);
}
END_TEST

static void count(void *arg)
{
	++*(int *)arg;
}

/* Its disk failed: here because the file was cut. */
START_TEST(a_failure_is_told_before_the_operation_is_done)
{
	struct inflight *f = begin();
	struct inflight_entry e = {.type = JT_UNLINK, .path = "f"};
	int failures = 0, op = inflight_op_alloc(f), fd;

	inflight_on_failure(f, count, &failures);
	inflight_op_set(f, op, &e, 1, 0);
	ck_assert_int_eq(failures, 0);
	fd = openat(dirfd_, "inflight", O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	close(fd);
	inflight_op_set(f, op, &e, 1, 0);
	ck_assert_int_eq(failures, 1);
	inflight_dirty_set(f, 7, 1, "f", 1);
	ck_assert_int_eq(failures, 1);
	end(f);
}
END_TEST

UNIT_MAIN("inflight", an_operation_under_way_is_found_by_the_successor, a_finished_operation_leaves_nothing,
	  the_root_has_an_empty_path, a_path_that_does_not_fit_is_cut_to_a_directory, slots_are_given_back,
	  use_without_a_slot_is_an_overflow, a_dirty_inode_is_found_until_it_is_clean, a_full_table_is_an_overflow,
	  a_file_that_is_none_of_ours_is_made_anew, a_failure_is_told_before_the_operation_is_done)
