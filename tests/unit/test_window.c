/* SPDX-License-Identifier: BSD-2-Clause
 * Coalescing: the marks of the window and the states of phantoms. */
#include "config.h"
#include <sys/mman.h>
#include <unistd.h>
#include "replicator/source/content.h"
#include "replicator/source/phantom.h"
#include "tests/unit/journal_made.h"

static unsigned marks(const struct made *m, size_t i)
{
	return window_at(m->w, i)->marks;
}

START_TEST(repeated_content_merges_into_the_first)
{
	struct extent_set out;
	struct made m;

	made_begin(&m);
	made_content(&m, 5, "f", 0, 10, 0);
	made_content(&m, 6, "g", 0, 10, 0);
	made_content(&m, 5, "f", 20, 30, 0);
	made_content(&m, 5, "f", 30, 40, JF_CLOSED);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), 0);
	ck_assert_uint_eq(marks(&m, 1), 0);
	ck_assert_uint_eq(marks(&m, 2), WM_MERGED);
	ck_assert_uint_eq(marks(&m, 3), WM_MERGED);
	ck_assert(window_at(m.w, 0)->flags & JF_CLOSED);
	extent_init(&out);
	ck_assert_int_eq(window_extents(m.w, 0, &out), 0);
	ck_assert_uint_eq(out.n, 2);
	ck_assert(extent_covers(&out, 20, 40));
	extent_release(&out);
	window_free(m.w);
}
END_TEST

START_TEST(content_does_not_merge_across_other_records_of_the_inode)
{
	struct made m;

	made_begin(&m);
	made_content(&m, 5, "f", 0, 10, 0);
	made_setattr(&m, 5, "f", JV_MTIME, 0, 77);
	made_content(&m, 5, "f", 20, 30, JF_CLOSED);
	made_rename(&m, 5, "f", "g", 0, 0, 0);
	made_content(&m, 5, "g", 30, 40, JF_CLOSED);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 2) & WM_MERGED, 0);
	ck_assert_uint_eq(marks(&m, 4) & WM_MERGED, 0);
	window_free(m.w);
}
END_TEST

START_TEST(setattrs_merge_into_the_first_with_the_newest_values)
{
	struct jrec r;
	struct made m;
	struct buf b;
	size_t used;

	made_begin(&m);
	made_setattr(&m, 5, "f", JV_MODE | JV_MTIME, 0100600, 11);
	made_setattr(&m, 5, "f", JV_MTIME, 0100600, 22);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), 0);
	ck_assert_uint_eq(marks(&m, 1), WM_MERGED);
	buf_init(&b, JREC_MAX);
	ck_assert_int_eq(window_setattr(m.w, 0, &b), 0);
	ck_assert_int_eq(jrec_get(&r, b.data, b.len, &used), 0);
	ck_assert_uint_eq(r.valid, JV_MODE | JV_MTIME);
	ck_assert_uint_eq(r.mode, 0100600);
	ck_assert_int_eq(r.mtime.sec, 22);
	ck_assert_uint_eq(r.seq, 1);
	jrec_release(&r);
	buf_release(&b);
	window_free(m.w);
}
END_TEST

START_TEST(setattrs_under_different_names_do_not_merge)
{
	struct made m;

	made_begin(&m);
	made_setattr(&m, 5, "a/f", JV_MODE, 0100600, 0);
	made_rename(&m, 9, "a", "b", 0, 0, JF_DIR);
	made_setattr(&m, 5, "b/f", JV_MODE, 0100640, 0);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), 0);
	window_free(m.w);
}
END_TEST

START_TEST(create_is_held_for_its_content)
{
	struct made m;

	made_begin(&m);
	made_create(&m, 5, "f");
	made_create(&m, 6, "g");
	made_content(&m, 5, "f", 0, 10, JF_CLOSED);
	made_content(&m, 6, "g", 0, 10, 0);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), WM_LATE_CREATE);
	ck_assert_int_eq(window_at(m.w, 2)->create, 0);
	ck_assert_uint_eq(marks(&m, 1), 0); /* still open: its name appears at once */
	ck_assert_int_eq(window_at(m.w, 3)->create, -1);
	window_free(m.w);
}
END_TEST

START_TEST(create_is_not_held_when_something_needs_the_name)
{
	struct made m;

	made_begin(&m);
	made_create(&m, 5, "f");
	made_link(&m, 5, "f", "g");
	made_content(&m, 5, "f", 0, 10, JF_CLOSED);
	made_create(&m, 6, "d/h");
	made_rename(&m, 9, "d", "e", 0, 0, JF_DIR);
	made_content(&m, 6, "e/h", 0, 10, JF_CLOSED);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), 0);
	ck_assert_uint_eq(marks(&m, 3), 0);
	window_free(m.w);
}
END_TEST

START_TEST(create_is_not_held_when_its_directory_gets_another_acl)
{
	struct jrec r;
	struct made m;

	made_begin(&m);
	made_create(&m, 5, "d/f");
	made_create(&m, 6, "e/f");
	jrec_init(&r, JT_SETXATTR);
	r.ino = 7;
	r.path = "d";
	r.xname = "system.posix_acl_default";
	r.xval = (const uint8_t *)"x";
	r.xlen = 1;
	made_put(&m, &r);
	made_content(&m, 5, "d/f", 0, 10, JF_CLOSED);
	made_content(&m, 6, "e/f", 0, 10, JF_CLOSED);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), 0);
	ck_assert_uint_eq(marks(&m, 1), WM_LATE_CREATE);
	window_free(m.w);
}
END_TEST

/* Its directory lost its default ACL elsewhere and came back: the file has what the directory had at first. */
START_TEST(a_create_is_not_held_while_its_directory_moves)
{
	struct made m;

	made_begin(&m);
	made_create(&m, 5, "d/a");
	made_rename(&m, 9, "d", "e", 0, 0, JF_DIR);
	made_rename(&m, 9, "e", "d", 0, 0, JF_DIR);
	made_content(&m, 5, "d/a", 0, 10, JF_CLOSED);
	made_create(&m, 6, "d/b");
	made_rename(&m, 10, "f", "g", 0, 0, JF_DIR);
	made_content(&m, 6, "d/b", 0, 10, JF_CLOSED);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), 0);
	ck_assert_uint_eq(marks(&m, 4), WM_LATE_CREATE);
	window_free(m.w);
}
END_TEST

START_TEST(a_number_used_again_is_another_inode)
{
	struct made m;

	made_begin(&m);
	made_create(&m, 5, "a");
	made_content(&m, 5, "a", 0, 10, JF_CLOSED);
	made_unlink(&m, 5, "a", 0);
	made_create(&m, 5, "b");
	made_content(&m, 5, "b", 0, 10, JF_CLOSED);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), WM_EPHEMERAL | WM_DOOMED);
	ck_assert_uint_eq(marks(&m, 1), WM_EPHEMERAL | WM_DOOMED);
	ck_assert_uint_eq(marks(&m, 3), WM_LATE_CREATE);
	ck_assert_uint_eq(marks(&m, 4), 0);
	window_free(m.w);
}
END_TEST

START_TEST(a_linked_file_is_not_ephemeral)
{
	struct made m;

	made_begin(&m);
	made_create(&m, 5, "a");
	made_link(&m, 5, "a", "b");
	made_unlink(&m, 5, "a", 1);
	made_unlink(&m, 5, "b", 0);
	window_mark(m.w);
	ck_assert_uint_eq(marks(&m, 0), WM_DOOMED);
	window_free(m.w);
}
END_TEST

/* Mark, then decide about every record in order. */
static void decide_all(const struct made *m, struct phantoms *p, int *acts)
{
	size_t i;

	window_mark(m->w);
	for (i = 0; i < window_count(m->w); i++)
		acts[i] = phantoms_decide(p, window_at(m->w, i));
}

START_TEST(a_file_created_and_deleted_never_leaves)
{
	struct phantoms *p;
	struct made m;
	int a[5];

	made_begin(&m);
	phantoms_new(&p);
	made_create(&m, 5, "tmp");
	made_setattr(&m, 5, "tmp", JV_MODE, 0100600, 0);
	made_content(&m, 5, "tmp", 0, 10, JF_CLOSED);
	made_rename(&m, 5, "tmp", "tmp2", 0, 0, 0);
	made_unlink(&m, 5, "tmp2", 0);
	decide_all(&m, p, a);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(a[i], PA_DROP);
	ck_assert_int_eq(phantoms_state(p, 5), PS_REAL);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

/* Its birth may have been applied behind the position that the connection began with. */
START_TEST(what_may_have_left_before_is_removed)
{
	struct phantoms *p;
	struct made m;

	made_begin(&m);
	phantoms_new(&p);
	phantoms_replay(p, 3);
	made_create(&m, 5, "a");
	made_setattr(&m, 5, "a", JV_MODE, 0600, 0);
	made_create(&m, 6, "b");
	made_rename(&m, 5, "a", "c", 0, 0, 0);
	made_unlink(&m, 5, "c", 0);
	made_unlink(&m, 6, "b", 0);
	window_mark(m.w);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 0)), PA_DROP);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 1)), PA_DROP);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 2)), PA_DROP);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 3)), PA_UNLINK);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 4)), PA_DROP);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 5)), PA_SEND);
	ck_assert_uint_eq(phantoms_outstanding(p, &(uint64_t){0}, 1), 0);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

START_TEST(the_old_file_stands_in_until_the_next_version)
{
	struct phantoms *p;
	struct made m;
	int a[6];

	made_begin(&m);
	phantoms_new(&p);
	made_create(&m, 5, "t1"); /* 0 */
	made_content(&m, 5, "t1", 0, 10, JF_CLOSED);
	made_rename(&m, 5, "t1", "f", 2, 0, 0); /* replaces the old file 2 */
	made_create(&m, 6, "t2"); /* 3 */
	made_content(&m, 6, "t2", 0, 10, JF_CLOSED);
	made_rename(&m, 6, "t2", "f", 5, 0, 0);
	decide_all(&m, p, a);
	ck_assert_int_eq(a[0], PA_DROP);
	ck_assert_int_eq(a[1], PA_DROP);
	ck_assert_int_eq(a[2], PA_DROP);
	ck_assert_int_eq(a[3], PA_SEND);
	ck_assert_int_eq(a[4], PA_SEND);
	ck_assert_int_eq(a[5], PA_SEND);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

START_TEST(a_stand_in_is_moved_and_removed)
{
	struct phantoms *p;
	struct made m;
	int a[4];

	made_begin(&m);
	phantoms_new(&p);
	made_create(&m, 5, "t1");
	made_rename(&m, 5, "t1", "f", 2, 0, 0);
	made_rename(&m, 5, "f", "g", 0, 0, 0);
	made_unlink(&m, 5, "g", 0);
	decide_all(&m, p, a);
	ck_assert_int_eq(a[1], PA_DROP);
	ck_assert_int_eq(a[2], PA_SEND);
	ck_assert_int_eq(a[3], PA_SEND);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

START_TEST(an_exchange_with_a_phantom_moves_the_other_side_only)
{
	struct phantoms *p;
	struct made m;

	made_begin(&m);
	phantoms_new(&p);
	phantoms_skip(p, 5, 1);
	made_rename(&m, 5, "a", "b", 2, 1, JF_EXCHANGE);
	made_rename(&m, 2, "a", "b", 5, 1, JF_EXCHANGE);
	made_unlink(&m, 5, "a", 0);
	made_rename(&m, 7, "c", "d", 8, 1, JF_EXCHANGE);
	made_rename(&m, 7, "d", "e", 0, 0, 0);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 0)), PA_BACK);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 1)), PA_ON);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 2)), PA_DROP);
	phantoms_skip(p, 7, 1);
	phantoms_hollow(p, 8, 1, false);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 3)), PA_NEITHER);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 4)), PA_DROP);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

START_TEST(a_hollow_file_does_not_replace_a_full_one)
{
	struct phantoms *p;
	struct made m;

	made_begin(&m);
	phantoms_new(&p);
	made_rename(&m, 5, "tmp", "f", 2, 0, 0);
	made_unlink(&m, 5, "f", 0);
	phantoms_hollow(p, 5, 1, false);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 0)), PA_UNLINK);
	ck_assert_int_eq(phantoms_state(p, 5), PS_STANDIN);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 1)), PA_SEND);
	ck_assert_int_eq(phantoms_state(p, 5), PS_REAL);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

START_TEST(only_a_file_with_several_names_is_changed_in_place)
{
	static const enum wbegin_mode modes[] = {WB_NEW, WB_NEW, WB_PATCH};

	for (nlink_t names = 0; names < 3; names++) { /* it may have lost its last one while it was read */
		struct stat st = {.st_nlink = names, .st_size = 10};
		struct transfer_spec spec = {.mode = WB_PATCH};

		extent_init(&spec.extents);
		content_mode(-1, &st, &spec);
		ck_assert_int_eq(spec.mode, modes[names]);
		extent_release(&spec.extents);
	}
}
END_TEST

START_TEST(a_file_with_holes_is_new_when_all_its_data_is)
{
	static const uint64_t data[] = {1 << 20, 64 << 20};
	static const struct extent changed[] = {{0, 2 << 20}, {64 << 20, 65 << 20}};
	int fd = memfd_create("sparse", MFD_CLOEXEC);

	ck_assert_int_eq(ftruncate(fd, 128 << 20), 0);
	for (size_t i = 0; i < 2; i++)
		ck_assert_int_eq(pwrite(fd, "x", 1, (off_t)data[i]), 1);
	for (size_t n = 1; n <= 2; n++) {
		struct stat st = {.st_nlink = 1, .st_size = 128 << 20};
		struct transfer_spec spec = {.mode = WB_NEW};

		extent_init(&spec.extents);
		for (size_t i = 0; i < n; i++)
			extent_add(&spec.extents, changed[i].start, changed[i].end);
		content_mode(fd, &st, &spec);
		ck_assert_int_eq(spec.mode, n == 2 ? WB_NEW : WB_PATCH);
		ck_assert(n == 2 ? extent_covers(&spec.extents, 0, EXTENT_INF) : !extent_covers(&spec.extents, 0, 128 << 20));
		extent_release(&spec.extents);
	}
	close(fd);
}
END_TEST

START_TEST(more_hollow_files_than_can_be_listed_are_counted)
{
	struct phantoms *p;
	uint64_t out[3] = {0};

	phantoms_new(&p);
	for (uint64_t ino = 1; ino <= 3; ino++)
		phantoms_hollow(p, ino, 100 - ino, false);
	ck_assert_uint_eq(phantoms_outstanding(p, out, 3), 3);
	ck_assert_uint_eq(out[2], 97);
	phantoms_hollow(p, 4, 5, false);
	ck_assert_uint_eq(phantoms_outstanding(p, out, 3), 4);
	ck_assert_uint_eq(out[0], 5);
	phantoms_free(p);
}
END_TEST

START_TEST(what_is_left_to_the_comparison_replaces_nothing)
{
	struct phantoms *p;
	struct made m;

	made_begin(&m);
	phantoms_new(&p);
	made_rename(&m, 5, "tmp", "f", 2, 0, 0);
	made_setattr(&m, 5, "f", JV_MODE, 0600, 0);
	made_content(&m, 5, "f", 0, 10, JF_CLOSED);
	made_rename(&m, 5, "f", "g", 0, 0, 0);
	ck_assert_int_eq(phantoms_leave(p, 5, 1), 0);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 0)), PA_LEAVE);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 1)), PA_LEAVE);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 2)), PA_WHOLE);
	phantoms_whole(p, 5);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 3)), PA_SEND);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

START_TEST(a_doubted_file_is_not_moved_but_one_born_since_is)
{
	struct phantoms *p;
	struct made m;

	made_begin(&m);
	phantoms_new(&p);
	phantoms_doubt(p);
	made_create(&m, 6, "new");
	made_rename(&m, 6, "new", "f", 2, 0, 0);
	made_rename(&m, 5, "old", "f", 6, 0, 0);
	made_rename(&m, 7, "older", "f", 5, 1, JF_EXCHANGE);
	made_rename(&m, 8, "last", "f", 7, 0, 0);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 0)), PA_SEND);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 1)), PA_SEND);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 2)), PA_LEAVE);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 3)), PA_LEAVE);
	phantoms_compared(p);
	ck_assert_int_eq(phantoms_state(p, 7), PS_REAL);
	ck_assert_int_eq(phantoms_decide(p, window_at(m.w, 4)), PA_SEND);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

START_TEST(a_phantom_that_replaces_a_phantom_replaces_nothing)
{
	struct phantoms *p;
	struct made m;
	int a[5];

	made_begin(&m);
	phantoms_new(&p);
	made_create(&m, 5, "f");
	made_create(&m, 6, "t");
	made_rename(&m, 6, "t", "f", 5, 0, 0);
	made_unlink(&m, 6, "f", 0);
	decide_all(&m, p, a);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(a[i], PA_DROP);
	phantoms_free(p);
	window_free(m.w);
}
END_TEST

UNIT_MAIN("window", repeated_content_merges_into_the_first, content_does_not_merge_across_other_records_of_the_inode,
    setattrs_merge_into_the_first_with_the_newest_values, setattrs_under_different_names_do_not_merge, create_is_held_for_its_content,
    create_is_not_held_when_something_needs_the_name, create_is_not_held_when_its_directory_gets_another_acl, a_create_is_not_held_while_its_directory_moves, a_number_used_again_is_another_inode, a_linked_file_is_not_ephemeral,
    a_file_created_and_deleted_never_leaves, the_old_file_stands_in_until_the_next_version, what_may_have_left_before_is_removed, a_stand_in_is_moved_and_removed,
    an_exchange_with_a_phantom_moves_the_other_side_only, a_hollow_file_does_not_replace_a_full_one, more_hollow_files_than_can_be_listed_are_counted,
    only_a_file_with_several_names_is_changed_in_place,
    a_file_with_holes_is_new_when_all_its_data_is, a_phantom_that_replaces_a_phantom_replaces_nothing,
    what_is_left_to_the_comparison_replaces_nothing, a_doubted_file_is_not_moved_but_one_born_since_is)
