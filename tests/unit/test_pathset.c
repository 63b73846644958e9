/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "fs/pathset.h"
#include "tests/unit/unit.h"

/* The set as text: "path path/ ..." with a slash behind recursive entries; the root is ".". */
static const char *text(struct pathset *s)
{
	static char out[8192];
	struct pathset_entry *v;
	int n = pathset_list(s, &v);
	out[0] = 0;
	for (int i = 0; i < n; i++) {
		strcat(out, i ? " " : "");
		strcat(out, *v[i].path ? v[i].path : ".");
		strcat(out, v[i].flags & JF_RECURSIVE ? "/" : "");
	}
	free(v);
	return out;
}

static void add_record(struct pathset *s, enum jtype type, uint16_t flags, const char *path,
		       const char *path2)
{
	struct jrec r;
	jrec_init(&r, type);
	r.flags = flags;
	r.path = path;
	r.path2 = path2;
	pathset_add_record(s, &r);
}

START_TEST(entries_are_listed_once_parents_first)
{
	struct pathset s;
	pathset_init(&s);
	pathset_add(&s, "b/c", 0);
	pathset_add(&s, "a", 0);
	pathset_add(&s, "b", 0);
	pathset_add(&s, "b/c", 0);
	ck_assert_str_eq(text(&s), "a b b/c");
	pathset_release(&s);
}
END_TEST

START_TEST(recursive_entries_stand_for_what_is_below)
{
	struct pathset s;
	pathset_init(&s);
	pathset_add(&s, "d", JF_RECURSIVE);
	pathset_add(&s, "d/x/y", 0);
	pathset_add(&s, "dx", 0);
	ck_assert_str_eq(text(&s), "d/ dx");
	pathset_release(&s);
}
END_TEST

START_TEST(an_entry_that_compares_bytes_is_not_swallowed)
{
	struct pathset s;
	pathset_init(&s);
	pathset_add(&s, "d", JF_RECURSIVE);
	pathset_add(&s, "d/x", JF_CHECKSUM);
	ck_assert_str_eq(text(&s), "d/ d/x");
	pathset_release(&s);
}
END_TEST

START_TEST(the_root_recursively_is_everything)
{
	struct pathset s;
	pathset_init(&s);
	pathset_add(&s, "a", 0);
	pathset_add(&s, "", JF_RECURSIVE);
	pathset_add(&s, "b", 0);
	ck_assert_str_eq(text(&s), "./");
	pathset_release(&s);
}
END_TEST

START_TEST(names_bring_their_parents)
{
	struct pathset s;
	pathset_init(&s);
	add_record(&s, JT_UNLINK, 0, "d/e/f", "");
	ck_assert_str_eq(text(&s), "d/e d/e/f");
	add_record(&s, JT_CREATE, 0, "top", "");
	ck_assert_str_eq(text(&s), ". d/e d/e/f top");
	pathset_release(&s);
}
END_TEST

START_TEST(a_renamed_directory_is_compared_as_a_whole_at_its_new_place)
{
	struct pathset s;
	pathset_init(&s);
	add_record(&s, JT_RENAME, JF_DIR, "a/d", "b/d");
	ck_assert_str_eq(text(&s), "a a/d b b/d/");
	pathset_release(&s);
}
END_TEST

START_TEST(a_renamed_file_is_two_entries)
{
	struct pathset s;
	pathset_init(&s);
	add_record(&s, JT_RENAME, 0, "d/f.tmp", "d/f");
	ck_assert_str_eq(text(&s), "d d/f d/f.tmp");
	pathset_release(&s);
}
END_TEST

START_TEST(content_without_a_name_is_everything)
{
	struct pathset s;
	pathset_init(&s);
	add_record(&s, JT_CONTENT, JF_UNLINKED, "", "");
	ck_assert_str_eq(text(&s), "./");
	pathset_release(&s);
}
END_TEST

START_TEST(too_many_become_the_deepest_parents)
{
	struct pathset s;
	pathset_init(&s);
	pathset_add(&s, "shallow", 0);
	for (int i = 0; i < 100; i++) {
		char p[64];
		snprintf(p, sizeof(p), "d/e%d/f", i % 4);
		pathset_add(&s, p, 0);
		snprintf(p, sizeof(p), "d/e%d/%d", i % 4, i);
		pathset_add(&s, p, 0);
	}
	pathset_fit(&s, 10, SIZE_MAX);
	ck_assert_str_eq(text(&s), "d/e0/ d/e1/ d/e2/ d/e3/ shallow");
	pathset_fit(&s, 3, SIZE_MAX);
	ck_assert_str_eq(text(&s), "d/ shallow");
	pathset_fit(&s, 1, SIZE_MAX);
	ck_assert_str_eq(text(&s), "./");
	pathset_release(&s);
}
END_TEST

START_TEST(the_set_is_bounded)
{
	struct pathset s;
	pathset_init(&s);
	for (int i = 0; i < 300000; i++) {
		char p[64];
		snprintf(p, sizeof(p), "dir/%d/%d", i % 1000, i);
		pathset_add(&s, p, 0);
		ck_assert_uint_le(s.n, PATHSET_MAX);
	}
	ck_assert(!s.all);
	pathset_release(&s);
}
END_TEST

START_TEST(union_has_both)
{
	struct pathset a, b;
	pathset_init(&a);
	pathset_init(&b);
	pathset_add(&a, "a", 0);
	pathset_add(&b, "a", JF_RECURSIVE);
	pathset_add(&b, "b", 0);
	pathset_union(&a, &b);
	ck_assert_str_eq(text(&a), "a/ b");
	pathset_release(&a);
	pathset_release(&b);
}
END_TEST

UNIT_MAIN("pathset", entries_are_listed_once_parents_first, recursive_entries_stand_for_what_is_below,
	  an_entry_that_compares_bytes_is_not_swallowed, the_root_recursively_is_everything,
	  names_bring_their_parents, a_renamed_directory_is_compared_as_a_whole_at_its_new_place,
	  a_renamed_file_is_two_entries, content_without_a_name_is_everything,
	  too_many_become_the_deepest_parents, the_set_is_bounded, union_has_both)
