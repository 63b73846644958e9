/* SPDX-License-Identifier: BSD-2-Clause
 * Times of directories: set back at the end of a batch, and after a kill in the middle of one. */
#include "config.h"

#include <errno.h>
#include <sys/stat.h>

#include "replicator/module/dirs.h"
#include "tests/unit/unit.h"

struct rig {
	char dir[256];
	int root, own; /* the module, .tandem */
	struct dirs dirs;
	struct reach reach;
};

static void begin(struct rig *r)
{
	unit_scratch(r->dir);
	r->root = open(r->dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(mkdirat(r->root, "own", 0700), 0);
	r->own = openat(r->root, "own", O_RDONLY | O_DIRECTORY);
	reach_init(&r->reach, r->root, r->own, r->own);
	ck_assert_int_eq(dirs_init(&r->dirs, r->root, r->own, &r->reach, false), 0);
}

static void end(struct rig *r)
{
	dirs_release(&r->dirs);
	close(r->own);
	close(r->root);
	unit_remove(r->dir);
}

/* The process is gone: nothing of it remains but what it wrote. */
static void kill_it(struct rig *r)
{
	for (unsigned i = 0; i < r->dirs.n; i++) {
		close(r->dirs.v[i].fd);
		free(r->dirs.v[i].path);
	}
	touched_close(&r->dirs.touched);
	ck_assert_int_eq(dirs_init(&r->dirs, r->root, r->own, &r->reach, true), 0);
}

static void make(struct rig *r, const char *name, int64_t mtime)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = mtime}};
	if (mkdirat(r->root, name, 0755))
		ck_assert_int_eq(errno, EEXIST);
	ck_assert_int_eq(utimensat(r->root, name, ts, 0), 0);
}

static int64_t mtime_of(struct rig *r, const char *name)
{
	struct stat st;
	ck_assert_int_eq(fstatat(r->root, name, &st, 0), 0);
	return st.st_mtim.tv_sec;
}

/* Put a file into the directory of path, which disturbs its mtime. */
static void put(struct rig *r, const char *path, int64_t pm)
{
	struct dir *dir;
	const char *base;
	ck_assert_int_eq(dirs_parent(&r->dirs, path, &dir, &base), 0);
	dirs_keep(&r->dirs, dir, (struct jtime){.sec = pm});
	close(openat(dir->fd, base, O_WRONLY | O_CREAT, 0600));
}

START_TEST(times_come_back_at_the_end)
{
	struct rig r;
	begin(&r);
	make(&r, "a", 100);
	make(&r, "b", 200);
	put(&r, "a/f", 0);
	put(&r, "b/f", 300);
	ck_assert_int_gt(mtime_of(&r, "a"), 1000);
	dirs_flush(&r.dirs);
	ck_assert_int_eq(mtime_of(&r, "a"), 100);
	ck_assert_int_eq(mtime_of(&r, "b"), 300);
	end(&r);
}
END_TEST

START_TEST(times_come_back_after_a_kill)
{
	struct rig r;
	char name[16];
	begin(&r);
	make(&r, "a", 100);
	put(&r, "a/f", 0);
	put(&r, "a/g", 150);
	for (int i = 0; i < DIRS_MAX; i++) { /* a is evicted */
		snprintf(name, sizeof(name), "d%d/f", i);
		make(&r, (char[4]){'d', name[1], name[2] == '/' ? 0 : name[2]}, 1000 + i);
		put(&r, name, 0);
	}
	put(&r, "a/h", 0);
	kill_it(&r);
	ck_assert_int_eq(mtime_of(&r, "a"), 100);
	ck_assert_int_eq(mtime_of(&r, "d0"), 1000);
	ck_assert_int_eq(mtime_of(&r, "d31"), 1031);
	end(&r);
}
END_TEST

START_TEST(what_was_set_back_stays)
{
	struct rig r;
	begin(&r);
	make(&r, "a", 100);
	make(&r, "b", 200);
	put(&r, "a/f", 0);
	put(&r, "b/f", 0);
	dirs_flush(&r.dirs);
	make(&r, "a", 500);
	put(&r, "b/g", 0);
	kill_it(&r);
	ck_assert_int_eq(mtime_of(&r, "a"), 500);
	ck_assert_int_eq(mtime_of(&r, "b"), 200);
	make(&r, "b", 600);
	kill_it(&r);
	ck_assert_int_eq(mtime_of(&r, "b"), 600);
	end(&r);
}
END_TEST

START_TEST(another_directory_of_the_name_is_left_alone)
{
	struct rig r;
	begin(&r);
	make(&r, "a", 100);
	put(&r, "a/f", 0);
	ck_assert_int_eq(renameat(r.root, "a", r.root, "b"), 0);
	make(&r, "a", 700);
	kill_it(&r);
	ck_assert_int_eq(mtime_of(&r, "a"), 700);
	end(&r);
}
END_TEST

/* Who is not root, and owns all of it. */
START_TEST(times_come_back_in_a_directory_closed_to_its_owner)
{
	struct rig r;
	struct stat st;
	const char *own[] = {".", "own", "own/touched", "a", "a/b"};
	bool root = geteuid() == 0;
	begin(&r);
	make(&r, "a", 50);
	make(&r, "a/b", 100);
	put(&r, "a/b/f", 0);
	for (size_t i = 0; root && i < sizeof(own) / sizeof(*own); i++)
		ck_assert_int_eq(fchownat(r.root, own[i], 65534, 65534, 0), 0);
	ck_assert_int_eq(fchmodat(r.root, "a", 0, 0), 0);
	ck_assert_int_eq(root ? seteuid(65534) : 0, 0);
	kill_it(&r);
	ck_assert_int_eq(root ? seteuid(0) : 0, 0);
	ck_assert_int_eq(fstatat(r.root, "a", &st, 0), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0);
	ck_assert_int_eq(fchmodat(r.root, "a", 0700, 0), 0);
	ck_assert_int_eq(mtime_of(&r, "a/b"), 100);
	end(&r);
}
END_TEST

UNIT_MAIN("directories of a batch", times_come_back_at_the_end, times_come_back_after_a_kill, what_was_set_back_stays,
    another_directory_of_the_name_is_left_alone, times_come_back_in_a_directory_closed_to_its_owner)
