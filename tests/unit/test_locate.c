/* SPDX-License-Identifier: BSD-2-Clause
 * Finding the file of a content record after it moved. */
#include "config.h"
#include <time.h>
#include <sys/stat.h>
#include "proto/err.h"
#include "replicator/source/locate.h"
#include "tests/unit/journal_made.h"

struct place {
	char path[256];
	int fd;
	struct made m;
};

static void place_begin(struct place *p)
{
	unit_scratch(p->path);
	p->fd = open(p->path, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(p->fd, 0);
	made_begin(&p->m);
}

static void place_end(struct place *p)
{
	window_free(p->m.w);
	close(p->fd);
	unit_remove(p->path);
}

static uint64_t file(struct place *p, const char *name)
{
	struct stat st;
	int fd = openat(p->fd, name, O_CREAT | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	fstat(fd, &st);
	close(fd);
	return st.st_ino;
}

/* Look for the inode of record 0, with everything else ahead. Returns a descriptor or an error. */
static int look_by(struct place *p, bool no_births)
{
	struct locate l = {.rootfd = p->fd, .w = p->m.w, .next = 1, .jdirfd = -1, .no_births = no_births};
	struct stat st;
	struct jrec r;
	int fd;

	ck_assert_int_eq(window_decode(p->m.w, 0, &r), 0);
	fd = locate_open(&l, &r, &st);
	jrec_release(&r);
	return fd;
}

static int look(struct place *p)
{
	return look_by(p, false);
}

static void must_find(struct place *p, uint64_t ino)
{
	struct stat st;
	int fd = look(p);

	ck_assert_int_ge(fd, 0);
	fstat(fd, &st);
	ck_assert_uint_eq(st.st_ino, ino);
	close(fd);
}

START_TEST(the_recorded_path_comes_first)
{
	struct place p;
	uint64_t ino;

	place_begin(&p);
	ino = file(&p, "f");
	made_content(&p.m, ino, "f", 0, 1, JF_CLOSED);
	must_find(&p, ino);
	place_end(&p);
}
END_TEST

START_TEST(a_rename_is_followed)
{
	struct place p;
	uint64_t ino;

	place_begin(&p);
	ino = file(&p, "target");
	made_content(&p.m, ino, "tmp", 0, 1, JF_CLOSED);
	made_rename(&p.m, ino, "tmp", "mid", 0, 0, 0);
	made_rename(&p.m, ino, "mid", "target", 77, 0, 0);
	must_find(&p, ino);
	place_end(&p);
}
END_TEST

START_TEST(a_rename_of_the_directory_is_followed)
{
	struct place p;
	uint64_t ino;

	place_begin(&p);
	mkdirat(p.fd, "new", 0700);
	ino = file(&p, "new/f");
	made_content(&p.m, ino, "old/f", 0, 1, JF_CLOSED);
	made_rename(&p.m, 99, "old", "new", 0, 0, JF_DIR);
	must_find(&p, ino);
	place_end(&p);
}
END_TEST

START_TEST(a_surviving_link_is_found)
{
	struct place p;
	uint64_t ino;

	place_begin(&p);
	ino = file(&p, "b");
	file(&p, "a"); /* another file under the old name */
	made_content(&p.m, ino, "a", 0, 1, JF_CLOSED);
	made_link(&p.m, ino, "a", "b");
	made_unlink(&p.m, ino, "a", 1);
	must_find(&p, ino);
	place_end(&p);
}
END_TEST

START_TEST(an_exchange_is_followed)
{
	struct place p;
	uint64_t ino, other;

	place_begin(&p);
	ino = file(&p, "b");
	other = file(&p, "a");
	made_content(&p.m, ino, "a", 0, 1, JF_CLOSED);
	made_rename(&p.m, other, "b", "a", ino, 1, JF_EXCHANGE);
	must_find(&p, ino);
	place_end(&p);
}
END_TEST

START_TEST(what_was_deleted_is_gone)
{
	struct place p;

	place_begin(&p);
	file(&p, "f");
	made_content(&p.m, 1, "f", 0, 1, JF_CLOSED);
	made_unlink(&p.m, 1, "f", 0);
	ck_assert_int_eq(look(&p), E_GONE);
	place_end(&p);
}
END_TEST

START_TEST(what_was_replaced_is_gone)
{
	struct place p;
	uint64_t ino;

	place_begin(&p);
	ino = file(&p, "f");
	made_content(&p.m, 1, "f", 0, 1, JF_CLOSED);
	made_rename(&p.m, ino, "tmp", "f", 1, 0, 0);
	ck_assert_int_eq(look(&p), E_GONE);
	place_end(&p);
}
END_TEST

/* A file that is younger than the records. */
static uint64_t young_file(struct place *p, const char *name)
{
	p->m.began_ns = 0;
	return file(p, name);
}

START_TEST(a_number_that_is_used_again_is_another_file)
{
	struct place p;
	uint64_t ino;

	place_begin(&p);
	ino = young_file(&p, "f");
	made_content(&p.m, ino, "f", 0, 1, JF_CLOSED);
	made_unlink(&p.m, ino, "f", 0);
	ck_assert_int_eq(look(&p), E_GONE);
	place_end(&p);
}
END_TEST

START_TEST(a_file_that_seems_a_little_older_may_have_used_a_number_again)
{
	struct timespec now;
	struct place p;
	uint64_t ino;

	place_begin(&p);
	ino = file(&p, "f");
	clock_gettime(CLOCK_REALTIME, &now); /* the clock for file times may be behind this one by so much */
	p.m.began_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + 300000000u;
	made_content(&p.m, ino, "f", 0, 1, JF_CLOSED);
	made_unlink(&p.m, ino, "f", 0);
	ck_assert_int_eq(look(&p), E_GONE);
	place_end(&p);
}
END_TEST

START_TEST(a_younger_file_is_another_one_although_no_record_says_so_yet)
{
	struct place p;

	uint64_t ino;

	place_begin(&p);
	ino = young_file(&p, "f");
	made_content(&p.m, ino, "f", 0, 1, JF_CLOSED);
	ck_assert_int_eq(look(&p), E_CHANGED);
	place_end(&p);
}
END_TEST

START_TEST(where_the_clock_was_set_back_births_say_nothing)
{
	struct place p;
	uint64_t ino;
	int fd;

	place_begin(&p);
	ino = young_file(&p, "f");
	made_content(&p.m, ino, "f", 0, 1, JF_CLOSED);
	fd = look_by(&p, true);
	ck_assert_int_ge(fd, 0);
	close(fd);
	place_end(&p);
}
END_TEST

START_TEST(a_symlink_or_fifo_under_the_name_is_not_opened)
{
	struct place p;
	struct stat st;

	place_begin(&p);
	file(&p, "real");
	ck_assert_int_eq(symlinkat("real", p.fd, "s"), 0);
	fstatat(p.fd, "s", &st, AT_SYMLINK_NOFOLLOW);
	ck_assert_int_eq(locate_path(p.fd, "s", st.st_ino, &st), E_GONE);
	ck_assert_int_eq(mkfifoat(p.fd, "p", 0600), 0);
	fstatat(p.fd, "p", &st, AT_SYMLINK_NOFOLLOW);
	ck_assert_int_eq(locate_path(p.fd, "p", st.st_ino, &st), E_GONE);
	place_end(&p);
}
END_TEST

START_TEST(a_handle_finds_a_name_that_nobody_recorded)
{
	union {
		struct file_handle h;
		uint8_t room[sizeof(struct file_handle) + 128];
	} u;
	struct locate l = {.jdirfd = -1};
	struct place p;
	struct jrec r;
	struct stat st;
	uint64_t ino;
	int mount, fd;

	place_begin(&p);
	ino = file(&p, "elsewhere");
	u.h.handle_bytes = 128;
	if (name_to_handle_at(p.fd, "elsewhere", &u.h, &mount, 0) != 0) {
		place_end(&p);
		return; /* a file system without handles */
	}
	jrec_init(&r, JT_CONTENT);
	r.ino = ino;
	r.path = "";
	r.flags = JF_UNLINKED;
	r.handle = u.h.f_handle;
	r.handle_len = u.h.handle_bytes;
	r.handle_type = u.h.handle_type;
	l.rootfd = p.fd;
	fd = locate_open(&l, &r, &st);
	ck_assert_int_ge(fd, 0);
	fstat(fd, &st);
	ck_assert_uint_eq(st.st_ino, ino);
	close(fd);
	jrec_release(&r);
	place_end(&p);
}
END_TEST

struct aliases_found {
	char names[256], deep[1024];
};

static int note_alias(void *arg, uint64_t ino, const char *path)
{
	struct aliases_found *f = arg;

	if (ino == 0)
		snprintf(f->deep, sizeof f->deep, "%s", path);
	else
		snprintf(f->names + strlen(f->names), sizeof f->names - strlen(f->names), "%s ", path);
	return 0;
}

/* Names that are excluded are not told, and where the search does not go, it says so. */
START_TEST(all_other_names_are_found)
{
	struct aliases_found f = {"", ""};
	struct inoset set = {0};
	struct filter filter;
	struct place p;
	uint64_t ino;
	int dir, sub;

	place_begin(&p);
	filter_init(&filter);
	ck_assert_int_eq(filter_add(&filter, "hidden", false), 0);
	ino = file(&p, "hidden");
	ck_assert_int_eq(linkat(p.fd, "hidden", p.fd, "name", 0), 0);
	ck_assert_int_eq(mkdirat(p.fd, "d", 0700), 0);
	ck_assert_int_eq(linkat(p.fd, "hidden", p.fd, "d/other", 0), 0);
	dir = fcntl(p.fd, F_DUPFD_CLOEXEC, 3);
	for (int level = 0; level < 300; level++) {
		mkdirat(dir, "d", 0700);
		sub = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ck_assert_int_ge(sub, 0);
		close(dir);
		dir = sub;
	}
	close(dir);
	inoset_add(&set, ino);
	ck_assert_int_eq(locate_aliases(p.fd, &filter, &set, note_alias, &f), 0);
	ck_assert_msg(strcmp(f.names, "name d/other ") == 0 || strcmp(f.names, "d/other name ") == 0, "%s", f.names);
	ck_assert_uint_eq(strlen(f.deep), 2 * 257 - 1);
	inoset_release(&set);
	filter_release(&filter);
	place_end(&p);
}
END_TEST

UNIT_MAIN("locate", all_other_names_are_found, the_recorded_path_comes_first, a_rename_is_followed, a_rename_of_the_directory_is_followed, a_surviving_link_is_found,
    an_exchange_is_followed, what_was_deleted_is_gone, what_was_replaced_is_gone, a_number_that_is_used_again_is_another_file,
    a_file_that_seems_a_little_older_may_have_used_a_number_again,
    a_younger_file_is_another_one_although_no_record_says_so_yet,
    where_the_clock_was_set_back_births_say_nothing, a_symlink_or_fifo_under_the_name_is_not_opened,
    a_handle_finds_a_name_that_nobody_recorded)
