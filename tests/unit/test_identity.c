/* SPDX-License-Identifier: BSD-2-Clause
 * Who the source is: made once, kept, and a root that changed is not followed. */
#include "config.h"

#include <sys/stat.h>

#include "fs/identity.h"
#include "proto/err.h"
#include "tests/unit/unit.h"

static char top[256], why[1024];
static int state, root;

static void begin(void)
{
	unit_scratch(top);
	state = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(mkdirat(state, "root", 0700), 0);
	ck_assert_int_eq(mkdirat(state, "other", 0700), 0);
	root = openat(state, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void end(void)
{
	close(root);
	close(state);
	unit_remove(top);
}

static void write_file(const char *text, size_t n)
{
	int fd = openat(state, "identity", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_eq(write(fd, text, n), (ssize_t)n);
	close(fd);
}

static int check(int rootfd)
{
	return identity_check(state, rootfd, "/source", "/state", why, sizeof(why));
}

START_TEST(it_is_made_once_and_kept)
{
	char id[33], again[33];
	bool replaced;

	begin();
	ck_assert_int_eq(check(root), 0);
	ck_assert_int_eq(identity_take(state, root, id, &replaced), 0);
	ck_assert(!replaced);
	ck_assert_uint_eq(strlen(id), 32);
	ck_assert_int_eq(check(root), 0);
	ck_assert_int_eq(identity_take(state, root, again, &replaced), 0);
	ck_assert(!replaced);
	ck_assert_str_eq(id, again);
	end();
}
END_TEST

START_TEST(another_root_is_refused)
{
	char id[33];
	bool replaced;

	begin();
	ck_assert_int_eq(identity_take(state, root, id, &replaced), 0);
	int other = openat(state, "other", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(check(other), E_FOREIGN);
	ck_assert_ptr_nonnull(strstr(why, "/state/identity"));
	close(other);
	end();
}
END_TEST

START_TEST(without_a_root_on_record_any_is_taken)
{
	static const char text[] = "source 0123456789abcdef0123456789abcdef\n";
	char id[33];
	bool replaced;

	begin();
	write_file(text, strlen(text));
	ck_assert_int_eq(check(root), 0);
	ck_assert_int_eq(identity_take(state, root, id, &replaced), 0);
	ck_assert(replaced);
	ck_assert_str_eq(id, "0123456789abcdef0123456789abcdef");
	end();
}
END_TEST

START_TEST(a_source_that_is_none_is_made_anew)
{
	static const char *const texts[] = {"", "source 0123456789abcdef\n", "source XYZ\n", "\nroot", "\nroot x y z\n"};
	char id[33];
	bool replaced;

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		begin();
		write_file(texts[i], strlen(texts[i]));
		ck_assert_int_eq(identity_take(state, root, id, &replaced), 0);
		ck_assert(!replaced);
		ck_assert_uint_eq(strlen(id), 32);
		ck_assert_int_eq(check(root), 0);
		end();
	}
}
END_TEST

START_TEST(a_file_that_cannot_be_ours_stops_the_start)
{
	static char text[5000];
	char id[33];
	bool replaced;

	begin();
	memset(text, 'a', sizeof(text));
	write_file(text, sizeof(text));
	ck_assert_int_lt(check(root), 0);
	ck_assert_int_lt(identity_take(state, root, id, &replaced), 0);
	end();
}
END_TEST

UNIT_MAIN("identity", it_is_made_once_and_kept, another_root_is_refused, without_a_root_on_record_any_is_taken,
	  a_source_that_is_none_is_made_anew, a_file_that_cannot_be_ours_stops_the_start)
