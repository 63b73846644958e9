/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "proto/path.h"
#include "proto/err.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

START_TEST(rules)
{
	const char *good[] = {"", "a", "a/b", ".a", "..a", "a/.tandem", ".tandemX", "a b\n", "..."};
	const char *bad[] = {"/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", ".tandem", ".tandem/x"};
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		ck_assert_msg(path_valid(good[i]), "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_msg(!path_valid(bad[i]), "%s", bad[i]);
	char longname[PATH_NAME_MAX + 2];
	memset(longname, 'x', sizeof(longname) - 1);
	longname[sizeof(longname) - 1] = 0;
	ck_assert(!path_valid(longname));
	longname[PATH_NAME_MAX] = 0;
	ck_assert(path_valid(longname));
}
END_TEST

START_TEST(silly_names)
{
	ck_assert(path_name_silly(".nfs0000000000002fc500000002"));
	ck_assert(!path_name_silly(".nfs0000000000002fc50000000"));
	ck_assert(!path_name_silly(".nfs0000000000002fc5000000020"));
	ck_assert(!path_name_silly(".nfs0000000000002fc50000000g"));
	ck_assert(!path_name_silly(".nfs"));
}
END_TEST

START_TEST(within_and_rebase)
{
	char out[64];
	ck_assert(path_within("", "a"));
	ck_assert(path_within("a", "a"));
	ck_assert(path_within("a", "a/b"));
	ck_assert(!path_within("a", "ab"));
	ck_assert(!path_within("a/b", "a"));
	ck_assert_int_eq(path_rebase(out, sizeof(out), "a/b/c", "a/b", "x"), 0);
	ck_assert_str_eq(out, "x/c");
	ck_assert_int_eq(path_rebase(out, sizeof(out), "a/b", "a/b", "x/y"), 0);
	ck_assert_str_eq(out, "x/y");
	ck_assert_int_eq(path_rebase(out, sizeof(out), "a/b", "", "x"), 0);
	ck_assert_str_eq(out, "x/a/b");
	ck_assert_int_eq(path_rebase(out, 4, "a/b", "", "x"), E_LIMIT);
}
END_TEST

START_TEST(show_escapes_what_a_terminal_obeys)
{
	char out[64];
	ck_assert_str_eq(path_show(out, sizeof(out), "a\033[2J\n\\\177"), "a\\033[2J\\012\\134\\177");
	ck_assert_str_eq(path_show(out, sizeof(out), "\xc3\xa9\xff\xc2\x9b"), "\xc3\xa9\\377\\302\\233");
	ck_assert_str_eq(path_show(out, 4, "abcdef"), "abc");
}
END_TEST

START_TEST(nothing_goes_through_a_symlink)
{
	char dir[256];
	unit_scratch(dir);
	int root = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(mkdirat(root, "d", 0755), 0);
	ck_assert_int_eq(symlinkat("/etc", root, "out"), 0);
	ck_assert_int_eq(symlinkat("d", root, "in"), 0);
	const char *base;
	ck_assert_int_lt(path_open(root, "out/passwd", O_RDONLY), 0);
	ck_assert_int_lt(path_open(root, "out", O_RDONLY), 0);
	ck_assert_int_lt(path_open(root, "in", O_RDONLY), 0);
	ck_assert_int_lt(path_open_parent(root, "out/passwd", &base), 0);
	ck_assert_int_lt(path_make_parents(root, "in/x/y"), 0);
	int fd = path_open_parent(root, "d/x", &base);
	ck_assert_int_ge(fd, 0);
	ck_assert_str_eq(base, "x");
	close(fd);
	unit_remove(dir);
}
END_TEST

START_TEST(paths_longer_than_path_max_work)
{
	char dir[256], p[6000] = "", name[201];
	unit_scratch(dir);
	int root = open(dir, O_RDONLY | O_DIRECTORY);
	memset(name, 'n', 200);
	name[200] = 0;
	for (int i = 0; i < 25; i++)
		ck_assert_int_eq(path_join(p, sizeof(p), p, name), 0);
	ck_assert_uint_gt(strlen(p), PATH_MAX);
	ck_assert_int_eq(path_make_parents(root, p), 0);
	const char *base;
	int fd = path_open_parent(root, p, &base);
	ck_assert_int_ge(fd, 0);
	ck_assert_str_eq(base, name);
	ck_assert_int_eq(mkdirat(fd, base, 0755), 0);
	close(fd);
	fd = path_open(root, p, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(fd, 0);
	close(fd);
	unit_remove(dir);
}
END_TEST

START_TEST(paths_too_long_are_refused)
{
	static char longest[PATH_LONGEST + 2], out[8];

	memset(longest, 'a', sizeof(longest) - 1);
	for (size_t i = 200; i < sizeof(longest) - 1; i += 200)
		longest[i] = '/';
	ck_assert(!path_valid(longest));
	longest[PATH_LONGEST - 1] = '\0';
	ck_assert(path_valid(longest));
	ck_assert_int_eq(path_rebase(out, sizeof(out), "a", "a", "12345678"), E_LIMIT);
	ck_assert_int_eq(path_rebase(out, sizeof(out), "a", "a", "1234567"), 0);
	ck_assert_str_eq(out, "1234567");
}
END_TEST

START_TEST(what_is_no_text_is_shown_as_bytes)
{
	static const char *const bad[] = {"\xc2\x85", "\xc2", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xff"};
	char out[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_msg(path_show(out, sizeof(out), bad[i])[0] == '\\', "%zu: %s", i, out);
	ck_assert_str_eq(path_show(out, sizeof(out), "\xf0\x9f\x98\x80"), "\xf0\x9f\x98\x80");
	ck_assert_str_eq(path_show(out, 0, "x"), "");
}
END_TEST

UNIT_MAIN("path", paths_too_long_are_refused, what_is_no_text_is_shown_as_bytes, rules, silly_names, within_and_rebase, show_escapes_what_a_terminal_obeys, nothing_goes_through_a_symlink,
    paths_longer_than_path_max_work)
