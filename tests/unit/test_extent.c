/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "proto/extent.h"
#include "tests/unit/unit.h"

static void check_invariants(const struct extent_set *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		ck_assert_uint_lt(s->v[i].start, s->v[i].end);
		if (i)
			ck_assert_uint_gt(s->v[i].start, s->v[i - 1].end);
	}
}

START_TEST(touching_ranges_become_one)
{
	struct extent_set s;
	extent_init(&s);
	extent_add(&s, 0, 10);
	extent_add(&s, 20, 30);
	extent_add(&s, 10, 20);
	ck_assert_uint_eq(s.n, 1);
	ck_assert_uint_eq(s.v[0].start, 0);
	ck_assert_uint_eq(s.v[0].end, 30);
	extent_release(&s);
}
END_TEST

START_TEST(random_adds_and_removes_match_a_bitmap)
{
	enum { SPACE = 500 };
	unsigned seed = 11;
	for (int round = 0; round < 200; round++) {
		unsigned char map[SPACE] = {0};
		struct extent_set s;
		extent_init(&s);
		for (int k = 0; k < 60; k++) {
			unsigned a = (unsigned)rand_r(&seed) % SPACE, n = (unsigned)rand_r(&seed) % 40;
			unsigned e = a + n > SPACE ? SPACE : a + n;
			int add = rand_r(&seed) % 3;
			ck_assert_int_eq(add ? extent_add(&s, a, e) : extent_remove(&s, a, e), 0);
			memset(map + a, add != 0, e - a);
			check_invariants(&s);
		}
		for (unsigned i = 0; i < SPACE; i++)
			ck_assert_int_eq(extent_covers(&s, i, i + 1), map[i]);
		extent_release(&s);
	}
}
END_TEST

START_TEST(a_full_set_joins_neighbours_and_loses_nothing)
{
	struct extent_set s;
	extent_init(&s);
	for (uint64_t i = 0; i < EXTENT_SET_MAX * 3; i++)
		ck_assert_int_eq(extent_add(&s, i * 100, i * 100 + 1 + i % 7), 0);
	ck_assert_uint_le(s.n, EXTENT_SET_MAX);
	check_invariants(&s);
	for (uint64_t i = 0; i < EXTENT_SET_MAX * 3; i++)
		ck_assert(extent_covers(&s, i * 100, i * 100 + 1 + i % 7));
	extent_release(&s);
}
END_TEST

START_TEST(bytes_stop_at_the_size_of_the_file)
{
	struct extent_set s;
	extent_init(&s);
	extent_add(&s, 10, 20);
	extent_add(&s, 100, EXTENT_INF);
	ck_assert_uint_eq(extent_bytes(&s, 150), 60);
	ck_assert_uint_eq(extent_bytes(&s, 15), 5);
	ck_assert_uint_eq(extent_bytes(&s, 0), 0);
	extent_release(&s);
}
END_TEST

UNIT_MAIN("extent", touching_ranges_become_one, random_adds_and_removes_match_a_bitmap,
    a_full_set_joins_neighbours_and_loses_nothing, bytes_stop_at_the_size_of_the_file)
