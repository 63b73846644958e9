/* SPDX-License-Identifier: BSD-2-Clause
 * rsync's filter patterns: proto/filter.h. The cases are those of rsync's manual and wildtest.txt. */
#include "config.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <time.h>

#include "proto/filter.h"

/* Does one exclude pattern exclude this path? A trailing slash of path says that it is a directory. */
static bool hit(const char *pattern, const char *path)
{
	struct filter f;
	char p[600];
	size_t n = strlen(path);
	bool dir = n > 0 && path[n - 1] == '/', r;

	snprintf(p, sizeof(p), "%.*s", (int)(n - dir), path);
	filter_init(&f);
	ck_assert_int_eq(filter_add(&f, pattern, false), 0);
	r = filter_excluded(&f, p, dir);
	filter_release(&f);
	return r;
}

START_TEST(a_name_matches_at_every_depth)
{
	ck_assert(hit("foo", "foo"));
	ck_assert(hit("foo", "a/b/foo"));
	ck_assert(!hit("foo", "foobar"));
	ck_assert(!hit("foo", "a/xfoo"));
}
END_TEST

START_TEST(a_leading_slash_anchors_at_the_root)
{
	ck_assert(hit("/foo", "foo"));
	ck_assert(!hit("/foo", "a/foo"));
	ck_assert(hit("/a/foo", "a/foo"));
	ck_assert(!hit("/a/foo", "b/a/foo"));
}
END_TEST

START_TEST(a_pattern_with_slashes_matches_the_end_of_the_path)
{
	ck_assert(hit("a/foo", "a/foo"));
	ck_assert(hit("a/foo", "b/a/foo"));
	ck_assert(!hit("a/foo", "xa/foo"));
	ck_assert(!hit("a/foo", "foo"));
}
END_TEST

START_TEST(a_trailing_slash_matches_directories_only)
{
	ck_assert(hit("foo/", "foo/"));
	ck_assert(!hit("foo/", "foo"));
	ck_assert(hit("/foo/", "foo/"));
}
END_TEST

START_TEST(what_lies_below_an_excluded_directory_is_excluded)
{
	ck_assert(hit("foo/", "foo/a"));
	ck_assert(hit("foo", "x/foo/a/b"));
	ck_assert(hit("/x/*/b", "x/a/b/c"));
	ck_assert(!hit("foo/", "a/foo"));
}
END_TEST

START_TEST(one_star_stops_at_slashes)
{
	ck_assert(hit("*.tmp", "a.tmp"));
	ck_assert(hit("*.tmp", "d/.tmp"));
	ck_assert(!hit("*.tmp", "a.tmp2"));
	ck_assert(!hit("/a*c", "a/c"));
	ck_assert(hit("/*/c", "a/c"));
	ck_assert(!hit("/*/c", "a/b/c"));
}
END_TEST

START_TEST(two_stars_cross_slashes)
{
	ck_assert(hit("/a/**/z", "a/b/c/z"));
	ck_assert(!hit("/a/**/z", "a/z"));
	ck_assert(hit("/a**z", "a/b/z"));
	ck_assert(hit("a/**/z", "x/a/b/z"));
	ck_assert(hit("**/z", "a/b/z"));
}
END_TEST

START_TEST(three_stars_match_the_directory_and_what_is_in_it)
{
	ck_assert(hit("/a/***", "a/"));
	ck_assert(hit("/a/***", "a/b"));
	ck_assert(hit("/a/***", "a/b/c"));
	ck_assert(!hit("/a/***", "a"));
	ck_assert(!hit("/a/***", "ab"));
	ck_assert(hit("a/***", "x/a/"));
	ck_assert(!hit("/a/**", "a/"));
}
END_TEST

START_TEST(a_question_mark_is_one_character_but_no_slash)
{
	ck_assert(hit("a?c", "abc"));
	ck_assert(!hit("a?c", "ac"));
	ck_assert(!hit("/a?c", "a/c"));
}
END_TEST

START_TEST(classes_match_one_character)
{
	ck_assert(hit("[abc].o", "b.o"));
	ck_assert(!hit("[abc].o", "d.o"));
	ck_assert(hit("[a-c]", "b"));
	ck_assert(hit("[!a-c]", "d"));
	ck_assert(!hit("[^a-c]", "b"));
	ck_assert(hit("[]x]", "]"));
	ck_assert(hit("[a-]", "-"));
	ck_assert(hit("[[:digit:]x]", "7"));
	ck_assert(!hit("[[:digit:]x]", "y"));
	ck_assert(hit("[\\]]", "]"));
	ck_assert(!hit("/a[!x]c", "a/c"));
	ck_assert(!hit("[abc", "a"));
}
END_TEST

START_TEST(a_backslash_quotes_a_wildcard)
{
	ck_assert(hit("a\\*", "a*"));
	ck_assert(!hit("a\\*", "ab"));
	ck_assert(hit("\\[a]*", "[a]b"));
}
END_TEST

START_TEST(without_wildcards_a_backslash_is_itself)
{
	ck_assert(hit("a\\b", "a\\b"));
	ck_assert(!hit("a\\b", "ab"));
}
END_TEST

START_TEST(the_first_match_decides)
{
	struct filter f;

	filter_init(&f);
	ck_assert_int_eq(filter_add(&f, "+ keep.tmp", false), 0);
	ck_assert_int_eq(filter_add(&f, "*.tmp", false), 0);
	ck_assert_int_eq(filter_add(&f, "other.tmp", true), 0);
	ck_assert(!filter_excluded(&f, "a/keep.tmp", false));
	ck_assert(filter_excluded(&f, "a/other.tmp", false));
	ck_assert(!filter_excluded(&f, "a/file", false));
	filter_release(&f);
}
END_TEST

START_TEST(only_one_subtree_can_be_kept)
{
	struct filter f;

	filter_init(&f);
	ck_assert_int_eq(filter_add(&f, "+ /some/path/***", false), 0);
	ck_assert_int_eq(filter_add(&f, "+ /some/", false), 0);
	ck_assert_int_eq(filter_add(&f, "- *", false), 0);
	ck_assert(!filter_excluded(&f, "some", true));
	ck_assert(!filter_excluded(&f, "some/path/x/y", false));
	ck_assert(filter_excluded(&f, "some/other", false));
	ck_assert(filter_excluded(&f, "else", true));
	filter_release(&f);
}
END_TEST

START_TEST(an_include_does_not_reach_into_an_excluded_directory)
{
	struct filter f;

	filter_init(&f);
	ck_assert_int_eq(filter_add(&f, "+ /cache/keep", false), 0);
	ck_assert_int_eq(filter_add(&f, "- /cache/", false), 0);
	ck_assert(filter_excluded(&f, "cache/keep", false));
	filter_release(&f);
}
END_TEST

START_TEST(the_root_is_never_excluded)
{
	ck_assert(!hit("*", ""));
	ck_assert(!hit("**", ""));
}
END_TEST

START_TEST(empty_rules_are_refused)
{
	static const char *const bad[] = {"", "/", "- ", "+ /", "//"};
	struct filter f;

	filter_init(&f);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(filter_add(&f, bad[i], false), -EINVAL);
	ck_assert_uint_eq(f.n, 0);
	filter_release(&f);
}
END_TEST

START_TEST(a_file_of_rules_is_read)
{
	char dir[256], file[300];
	struct filter f;
	FILE *out;
	int bad;

	unit_scratch(dir);
	snprintf(file, sizeof(file), "%s/rules", dir);
	out = fopen(file, "w");
	fputs("\xef\xbb\xbf# comment\n; other\n\n+ a b.tmp\r\n*.tmp\n/last", out);
	fclose(out);
	filter_init(&f);
	ck_assert_int_eq(filter_add_file(&f, file, false, &bad), 0);
	ck_assert_uint_eq(f.n, 3);
	ck_assert(!filter_excluded(&f, "a b.tmp", false));
	ck_assert(filter_excluded(&f, "c.tmp", false));
	ck_assert(filter_excluded(&f, "last", false));
	filter_release(&f);
	ck_assert_int_eq(filter_add_file(&f, "/nonexistent", false, &bad), -ENOENT);
	unit_remove(dir);
}
END_TEST

START_TEST(dont_compress_ignores_case_and_parents)
{
	struct filter f;

	filter_init(&f);
	ck_assert_int_eq(filter_add(&f, "*.gz", false), 0);
	ck_assert_int_eq(filter_add(&f, "[a-c].zip", false), 0);
	ck_assert(filter_matches(&f, "a/b.GZ"));
	ck_assert(filter_matches(&f, "B.zip"));
	ck_assert(!filter_matches(&f, "x.gz/plain"));
	filter_release(&f);
}
END_TEST

START_TEST(many_stars_do_not_explode)
{
	char path[400];
	clock_t start = clock();

	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	for (size_t i = 10; i < sizeof(path) - 1; i += 10)
		path[i] = '/';
	ck_assert(!hit("**a**a**a**a**a**a**a**a**b", path));
	ck_assert(!hit("*a*a*a*a*a*a*a*a*a*a*b", path));
	ck_assert((clock() - start) / CLOCKS_PER_SEC < 5);
}
END_TEST

UNIT_MAIN("filter", a_name_matches_at_every_depth, a_leading_slash_anchors_at_the_root,
    a_pattern_with_slashes_matches_the_end_of_the_path, a_trailing_slash_matches_directories_only,
    what_lies_below_an_excluded_directory_is_excluded, one_star_stops_at_slashes, two_stars_cross_slashes,
    three_stars_match_the_directory_and_what_is_in_it, a_question_mark_is_one_character_but_no_slash,
    classes_match_one_character, a_backslash_quotes_a_wildcard, without_wildcards_a_backslash_is_itself,
    the_first_match_decides, only_one_subtree_can_be_kept, an_include_does_not_reach_into_an_excluded_directory,
    the_root_is_never_excluded, empty_rules_are_refused, a_file_of_rules_is_read, dont_compress_ignores_case_and_parents,
    many_stars_do_not_explode)
