/* SPDX-License-Identifier: BSD-2-Clause
 * The rolling search: what it matches is equal, and it finds what moved. */
#include "config.h"
#include "tests/unit/unit.h"

#include "proto/err.h"
#include "proto/wire.h"
#include "replicator/source/delta.h"

#define BLOCK 4096u
static const uint8_t key[8] = "rolling";

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(seed >> 56);
	}
}

static struct delta_sum *sums_of(const uint8_t *p, size_t n, size_t *count)
{
	*count = n / BLOCK;
	struct delta_sum *v = calloc(*count + 1, sizeof(*v));
	for (size_t i = 0; i < *count; i++) {
		v[i].weak = wsum_weak(p + i * BLOCK, BLOCK);
		wsum_strong(v[i].strong, key, p + i * BLOCK, BLOCK);
	}
	return v;
}

/* Search new in old, fed in pieces of step bytes; check every match; return the bytes matched. */
static uint64_t search(const uint8_t *old, size_t n, const uint8_t *new, size_t m, size_t step, size_t *runs)
{
	size_t count, nm;
	uint64_t bytes, sum = 0, at = 0;
	struct delta *d;
	struct delta_sum *v = sums_of(old, n, &count);
	ck_assert_int_eq(delta_new(&d, v, count, BLOCK, key), 0);
	for (size_t i = 0; i < m; i += step)
		ck_assert_int_eq(delta_feed(d, new + i, m - i < step ? m - i : step), 0);
	const struct delta_match *x = delta_matches(d, &nm, &bytes);
	for (size_t i = 0; i < nm; i++) {
		ck_assert_uint_ge(x[i].dst, at);
		at = x[i].dst + x[i].len;
		ck_assert_uint_le(at, m);
		ck_assert_uint_le(x[i].src + x[i].len, n);
		ck_assert_mem_eq(new + x[i].dst, old + x[i].src, x[i].len);
		sum += x[i].len;
	}
	ck_assert_uint_eq(sum, bytes);
	if (runs)
		*runs = nm;
	delta_free(d);
	free(v);
	return bytes;
}

START_TEST(equal_file_is_one_run)
{
	size_t n = 64 * BLOCK, runs;
	uint8_t *p = malloc(n);
	fill(p, n, 1);
	ck_assert_uint_eq(search(p, n, p, n, n, &runs), n);
	ck_assert_uint_eq(runs, 1);
	free(p);
}
END_TEST

START_TEST(insertion_at_the_front)
{
	size_t n = 200 * BLOCK, runs;
	uint8_t *old = malloc(n), *new = malloc(n + 13);
	fill(old, n, 2);
	fill(new, 13, 3);
	memcpy(new + 13, old, n);
	ck_assert_uint_eq(search(old, n, new, n + 13, 1000, &runs), n);
	ck_assert_uint_eq(runs, 1);
	free(old);
	free(new);
}
END_TEST

START_TEST(deletion_in_the_middle)
{
	size_t n = 100 * BLOCK, cut = 50 * BLOCK + 77;
	uint8_t *old = malloc(n), *new = malloc(n);
	fill(old, n, 4);
	memcpy(new, old, cut);
	memcpy(new + cut, old + cut + 500, n - cut - 500);
	ck_assert_uint_ge(search(old, n, new, n - 500, 65536, NULL), 98 * BLOCK);
	free(old);
	free(new);
}
END_TEST

START_TEST(blocks_in_another_order)
{
	size_t n = 32 * BLOCK;
	uint8_t *old = malloc(n), *new = malloc(n);
	fill(old, n, 5);
	for (size_t i = 0; i < 32; i++)
		memcpy(new + i *BLOCK, old + (31 - i) * BLOCK, BLOCK);
	ck_assert_uint_eq(search(old, n, new, n, 4097, NULL), n);
	free(old);
	free(new);
}
END_TEST

START_TEST(nothing_in_common)
{
	size_t n = 32 * BLOCK;
	uint8_t *old = malloc(n), *new = malloc(n);
	fill(old, n, 6);
	fill(new, n, 7);
	ck_assert_uint_eq(search(old, n, new, n, n, NULL), 0);
	ck_assert_uint_eq(search(old, n, new, BLOCK - 1, n, NULL), 0);
	ck_assert_uint_eq(search(old, 0, new, n, n, NULL), 0);
	free(old);
	free(new);
}
END_TEST

START_TEST(repeated_blocks_run_on)
{
	size_t n = 64 * BLOCK, runs;
	uint8_t *p = malloc(n);
	memset(p, 'x', n);
	ck_assert_uint_eq(search(p, n, p, n, n, &runs), n);
	ck_assert_uint_le(runs, 2);
	free(p);
}
END_TEST

START_TEST(a_hole_is_not_crossed)
{
	uint8_t *p = malloc(8 * BLOCK);
	size_t count, nm;
	uint64_t bytes;
	struct delta *d;
	fill(p, 8 * BLOCK, 8);
	struct delta_sum *v = sums_of(p, 8 * BLOCK, &count);
	memset(&v[1], 0, sizeof(v[1])); /* a hole on the standby: never matched */
	ck_assert_int_eq(delta_new(&d, v, count, BLOCK, key), 0);
	delta_feed(d, p, 100);
	delta_skip(d, 1000);
	delta_feed(d, p, 8 * BLOCK);
	const struct delta_match *m = delta_matches(d, &nm, &bytes);
	ck_assert_uint_eq(bytes, 7 * BLOCK);
	ck_assert_uint_eq(m[0].dst, 1100);
	ck_assert_uint_eq(m[0].len, BLOCK);
	ck_assert_uint_eq(m[1].dst, 1100 + 2 * BLOCK);
	delta_free(d);
	free(v);
	free(p);
}
END_TEST

START_TEST(random_edits)
{
	size_t n = 64 * BLOCK;
	uint8_t *old = malloc(n), *new = malloc(2 * n);
	for (unsigned seed = 1; seed <= 30; seed++) {
		size_t m = 0, at = 0;
		srandom(seed);
		fill(old, n, seed);
		while (at < n && m + n / 8 < 2 * n) {
			size_t len = (size_t)random() % (n / 8);
			if (random() % 4 == 0) {
				fill(new + m, len / 16, seed + m);
				m += len / 16;
			} else if (random() % 4 == 0) {
				at += len / 16;
			} else {
				len = len < n - at ? len : n - at;
				memcpy(new + m, old + at, len);
				m += len;
				at += len;
			}
		}
		search(old, n, new, m, 1 + (size_t)random() % 100000, NULL);
	}
	free(old);
	free(new);
}
END_TEST

START_TEST(too_many_blocks_are_refused)
{
	struct delta *d;
	struct delta_sum s = {0};
	ck_assert_int_eq(delta_new(&d, &s, DELTA_BLOCKS_MAX + 1, BLOCK, key), E_LIMIT);
	ck_assert_ptr_null(d);
}
END_TEST

START_TEST(block_sizes)
{
	ck_assert_uint_eq(delta_block(0), 4096);
	ck_assert_uint_eq(delta_block(16 << 20), 4096);
	ck_assert_uint_eq(delta_block(100 << 20), 16384);
	ck_assert_uint_eq(delta_block(1ull << 40), 131072);
}
END_TEST

UNIT_MAIN("delta", equal_file_is_one_run, insertion_at_the_front, deletion_in_the_middle,
	  blocks_in_another_order, nothing_in_common, repeated_blocks_run_on, a_hole_is_not_crossed,
	  random_edits, too_many_blocks_are_refused, block_sizes)
