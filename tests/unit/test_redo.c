/* SPDX-License-Identifier: BSD-2-Clause
 * Redo logs: a file changed in place is in its old or its new state wherever the change was cut off. */
#include "config.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "replicator/module/redo.h"
#include "tests/unit/unit.h"

struct rig {
	char dir[256];
	int root, fd; /* the module, .tandem/redo */
	struct redo redo;
};

static void put(int dirfd, const char *name, const char *text)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static const char *get(int dirfd, const char *name)
{
	static char text[256];
	int fd = openat(dirfd, name, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = 0;
	if (fd >= 0)
		close(fd);
	return text;
}

static void begin(struct rig *r)
{
	unit_scratch(r->dir);
	r->root = open(r->dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(mkdirat(r->root, "redo", 0700), 0);
	r->fd = openat(r->root, "redo", O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(redo_init(&r->redo, r->fd, r->root, NULL, false), 0);
	put(r->root, "file", "0123456789");
}

static void restart(struct rig *r, bool other_boot)
{
	redo_release(&r->redo);
	ck_assert_int_eq(redo_init(&r->redo, r->fd, r->root, NULL, other_boot), 0);
}

static void end(struct rig *r)
{
	redo_release(&r->redo);
	close(r->fd);
	close(r->root);
	unit_remove(r->dir);
}

static struct redo_piece pieces[] = {{.off = 2, .len = 3, .at = 0}, {.off = 8, .len = 4, .at = 3}};

/* Spool "abcWXYZ" and describe the change of file. Returns the data descriptor. */
static int spool(struct rig *r, struct redo_log *log)
{
	struct stat st;
	uint64_t number;
	int fd = redo_create(&r->redo, &number);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "abcWXYZ", 7), 7);
	ck_assert_int_eq(fstatat(r->root, "file", &st, 0), 0);
	*log = (struct redo_log){.number = number,
				 .dev = st.st_dev,
				 .ino = st.st_ino,
				 .path = (char *)(uintptr_t) "file",
				 .size = 11,
				 .attr = {0100640, geteuid(), getegid(), {9, 9}},
				 .v = pieces,
				 .n = 2};
	return fd;
}

#define OLD "0123456789"
#define NEW "01abc567WXY"

START_TEST(what_was_not_committed_is_forgotten)
{
	struct rig r;
	struct redo_log log;
	begin(&r);
	close(spool(&r, &log));
	restart(&r, true);
	ck_assert_str_eq(get(r.root, "file"), OLD);
	ck_assert_int_ne(faccessat(r.fd, "0000000000000001.data", F_OK, 0), 0);
	end(&r);
}
END_TEST

START_TEST(what_was_committed_is_done)
{
	for (int half = 0; half < 2; half++) {
		struct rig r;
		struct redo_log log;
		begin(&r);
		int fd = spool(&r, &log);
		ck_assert_int_eq(redo_commit(&r.redo, &log, fd, NULL), 0);
		close(fd);
		if (half) /* it was killed within the change */
			put(r.root, "file", "01abc5678");
		restart(&r, false);
		struct stat st;
		fstatat(r.root, "file", &st, 0);
		ck_assert_str_eq(get(r.root, "file"), NEW);
		ck_assert_int_eq(st.st_mode, 0100640);
		ck_assert_int_eq(st.st_mtim.tv_nsec, 9);
		end(&r);
	}
}
END_TEST

START_TEST(a_damaged_log_is_not_believed)
{
	struct rig r;
	struct redo_log log;
	begin(&r);
	int fd = spool(&r, &log);
	ck_assert_int_eq(redo_commit(&r.redo, &log, fd, NULL), 0);
	close(fd);
	fd = openat(r.fd, "0000000000000001", O_RDWR);
	ck_assert_int_eq(pwrite(fd, "!", 1, 30), 1);
	close(fd);
	restart(&r, true);
	ck_assert_str_eq(get(r.root, "file"), OLD);
	end(&r);
}
END_TEST

START_TEST(another_inode_is_left_alone)
{
	struct rig r;
	struct redo_log log;
	begin(&r);
	int fd = spool(&r, &log);
	ck_assert_int_eq(redo_commit(&r.redo, &log, fd, NULL), 0);
	close(fd);
	put(r.root, "other", "other");
	ck_assert_int_eq(renameat(r.root, "other", r.root, "file"), 0);
	restart(&r, true);
	ck_assert_str_eq(get(r.root, "file"), "other");
	end(&r);
}
END_TEST

START_TEST(a_finished_log_is_repeated_only_after_a_power_failure)
{
	for (int boot = 0; boot < 2; boot++) {
		struct rig r;
		struct redo_log log;
		uint64_t *list;
		begin(&r);
		int fd = spool(&r, &log), target = openat(r.root, "file", O_RDWR);
		ck_assert_int_eq(redo_commit(&r.redo, &log, fd, NULL), 0);
		ck_assert_int_eq(redo_apply(&log, fd, target, NULL), 0);
		redo_done(&r.redo, log.number);
		close(fd);
		close(target);
		put(r.root, "file", OLD); /* the same inode; what was written was lost */
		restart(&r, boot);
		ck_assert_str_eq(get(r.root, "file"), boot ? NEW : OLD);
		uint32_t n = redo_take_done(&r.redo, &list);
		ck_assert_int_eq(n, 1);
		redo_remove(&r.redo, list, n);
		ck_assert_int_ne(faccessat(r.fd, "0000000000000001.done", F_OK, 0), 0);
		ck_assert_int_ne(faccessat(r.fd, "0000000000000001.data", F_OK, 0), 0);
		end(&r);
	}
}
END_TEST

START_TEST(what_lost_its_data_stops_nobody)
{
	struct rig r;
	struct redo_log log;
	begin(&r);
	int fd = spool(&r, &log);
	ck_assert_int_eq(redo_commit(&r.redo, &log, fd, NULL), 0);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	close(fd);
	restart(&r, true);
	ck_assert_str_eq(get(r.root, "file"), OLD);
	end(&r);
}
END_TEST

START_TEST(a_log_cut_off_anywhere_is_not_believed)
{
	struct rig r;
	struct redo_log log;
	struct stat st;
	for (off_t n = 0;; n++) {
		begin(&r);
		int fd = spool(&r, &log);
		ck_assert_int_eq(redo_commit(&r.redo, &log, fd, NULL), 0);
		close(fd);
		fd = openat(r.fd, "0000000000000001", O_RDWR);
		ck_assert_int_eq(fstat(fd, &st), 0);
		ck_assert_int_eq(ftruncate(fd, n), 0);
		close(fd);
		restart(&r, true);
		ck_assert_str_eq(get(r.root, "file"), n < st.st_size ? OLD : NEW);
		end(&r);
		if (n == st.st_size)
			break;
	}
}
END_TEST

/* Who is not root, and owns the file and a directory on the way that is closed to him: their modes are as before, and as the log says. */
START_TEST(what_is_closed_to_its_owner_is_done)
{
	struct rig r;
	struct redo_log log;
	struct reach reach;
	struct stat st;
	const char *own[] = {".", "redo", "d", "d/file"};
	begin(&r);
	int fd = spool(&r, &log);
	log.path = (char *)(uintptr_t) "d/file";
	log.no_owner = true;
	log.attr.mode = 0100600;
	ck_assert_int_eq(redo_commit(&r.redo, &log, fd, NULL), 0);
	close(fd);
	ck_assert_int_eq(mkdirat(r.root, "d", 0700) || renameat(r.root, "file", r.root, "d/file"), 0);
	ck_assert_int_eq(fchmodat(r.root, "d/file", 0400, 0) || fchmodat(r.root, "d", 0, 0), 0);
	bool root = geteuid() == 0;
	for (size_t i = 0; root && i < sizeof(own) / sizeof(*own); i++)
		ck_assert_int_eq(fchownat(r.root, own[i], 65534, 65534, 0), 0);
	for (const char **n = (const char *[]){"redo/0000000000000001", "redo/0000000000000001.data", NULL}; root && *n; n++)
		ck_assert_int_eq(fchownat(r.root, *n, 65534, 65534, 0), 0);
	ck_assert_int_eq(root ? seteuid(65534) : 0, 0);
	redo_release(&r.redo);
	reach_init(&reach, r.root, r.root, r.fd);
	ck_assert_int_eq(redo_init(&r.redo, r.fd, r.root, &reach, false), 0);
	ck_assert_int_eq(root ? seteuid(0) : 0, 0);
	ck_assert_int_eq(fstatat(r.root, "d", &st, 0), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0);
	ck_assert_int_eq(fchmodat(r.root, "d", 0700, 0), 0);
	ck_assert_str_eq(get(r.root, "d/file"), NEW);
	ck_assert_int_eq(fstatat(r.root, "d/file", &st, 0), 0);
	ck_assert_int_eq(st.st_mode, 0100600);
	end(&r);
}
END_TEST

/* A file in memory and one on a disk: the kernel copies nothing between them. */
START_TEST(copies_cross_file_systems)
{
	struct rig r;
	begin(&r);
	int src = memfd_create("source", MFD_CLOEXEC), dst = openat(r.root, "file", O_RDWR);
	ck_assert_int_eq(pwrite(src, "abcdef", 6, 0), 6);
	ck_assert_int_eq(redo_copy(src, 1, dst, 3, 4, NULL), 0);
	ck_assert_str_eq(get(r.root, "file"), "012bcde789");
	ck_assert_int_lt(redo_copy(src, 4, dst, 0, 10, NULL), 0);
	close(src);
	close(dst);
	end(&r);
}
END_TEST

static void count(void *arg)
{
	++*(int *)arg;
}

/* A large change takes longer than a connection without an answer lasts. */
START_TEST(who_waits_for_a_large_change_is_told)
{
	struct rig r;
	struct redo_log log;
	int ticks = 0;
	const struct redo_wait w = {count, &ticks};
	begin(&r);
	int fd = spool(&r, &log), target = openat(r.root, "file", O_RDWR);
	ck_assert_int_eq(ftruncate(fd, 300 << 20), 0);
	ck_assert_int_eq(redo_commit(&r.redo, &log, fd, &w), 0);
	ck_assert_int_eq(ticks, 4);
	log.v[0].hole = false;
	log.v[0].at = 0;
	log.v[0].len = 300 << 20;
	log.n = 1;
	ticks = 0;
	ck_assert_int_eq(redo_apply(&log, fd, target, &w), 0);
	ck_assert_int_eq(ticks, 4);
	close(fd);
	close(target);
	end(&r);
}
END_TEST

UNIT_MAIN("redo logs", who_waits_for_a_large_change_is_told, what_was_not_committed_is_forgotten, what_was_committed_is_done,
	  a_damaged_log_is_not_believed, another_inode_is_left_alone,
	  a_finished_log_is_repeated_only_after_a_power_failure, what_lost_its_data_stops_nobody,
	  a_log_cut_off_anywhere_is_not_believed, what_is_closed_to_its_owner_is_done, copies_cross_file_systems)
