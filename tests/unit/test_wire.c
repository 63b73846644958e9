/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "proto/wire.h"
#include "proto/err.h"
#include "tests/unit/unit.h"

/* Encode op, decode it again, expect that result; the views in *out stay valid until *b is released. */
static void through(struct buf *b, const struct wop *op, int expect, struct wop *out)
{
	struct buf r;
	buf_init(b, 1 << 20);
	wop_put(b, op);
	ck_assert_int_eq(b->err, 0);
	buf_view(&r, b->data, b->len);
	ck_assert_int_eq(wop_get(&r, out), expect);
	if (!expect)
		ck_assert_uint_eq(buf_left(&r), 0);
}

static void expect_op(struct wop op, int expect)
{
	struct buf b;
	struct wop out;
	through(&b, &op, expect, &out);
	buf_release(&b);
}

START_TEST(commit_comes_back)
{
	struct buf b;
	struct wop o, op = {.type = WOP_COMMIT, .xid = 7, .flags = WC_OPEN, .path = "a/b", .seq = 9, .size = 1ull << 40,
	    .attr = {0100644, 1, 2, {-5, 999999999}}, .has_xattrs = true, .data = (const uint8_t *)"\0\0", .dlen = 2};
	through(&b, &op, 0, &o);
	ck_assert_uint_eq(o.xid, 7);
	ck_assert_str_eq(o.path, "a/b");
	ck_assert_uint_eq(o.size, 1ull << 40);
	ck_assert_int_eq(o.attr.mtime.sec, -5);
	ck_assert(o.has_xattrs && o.dlen == 2);
	buf_release(&b);
}
END_TEST

START_TEST(hostile_paths_are_refused)
{
	const char *bad[] = {"..", "/etc/passwd", "a/../../b", ".tandem/position", "a//b", ""};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		expect_op((struct wop){.type = WOP_COMMIT, .xid = 1, .path = bad[i]}, E_PROTO);
		expect_op((struct wop){.type = WOP_RMTREE, .path = bad[i]}, E_PROTO);
		expect_op((struct wop){.type = WOP_BEGIN, .xid = 1, .flags = WB_NEW, .path = bad[i]}, E_PROTO);
	}
}
END_TEST

START_TEST(ranges_beyond_off_t_are_refused)
{
	const uint8_t *two = (const uint8_t *)"ab";
	expect_op((struct wop){.type = WOP_DATA, .xid = 1, .off = INT64_MAX, .data = two, .dlen = 2}, E_PROTO);
	expect_op((struct wop){.type = WOP_DATA, .xid = 1, .off = INT64_MAX - 2, .data = two, .dlen = 2}, 0);
	expect_op((struct wop){.type = WOP_HOLE, .xid = 1, .off = 1ull << 63, .len = 1}, E_PROTO);
	expect_op((struct wop){.type = WOP_HOLE, .xid = 1, .off = 4096, .len = EXTENT_INF - 4096}, 0);
	expect_op((struct wop){.type = WOP_COPY, .xid = 1, .path = "", .src = INT64_MAX, .len = 1}, E_PROTO);
}
END_TEST

START_TEST(too_many_outstanding_are_refused)
{
	static uint64_t seqs[WPOS_OUT_MAX + 1];
	expect_op((struct wop){.type = WOP_POS, .nout = WPOS_OUT_MAX, .out_put = seqs}, 0);
	expect_op((struct wop){.type = WOP_POS, .nout = WPOS_OUT_MAX + 1, .out_put = seqs}, E_PROTO);
}
END_TEST

START_TEST(rolling_sum_equals_the_sum_of_the_moved_block)
{
	uint8_t data[4096];
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 + i / 7);
	uint32_t block = 700, w = wsum_weak(data, block);
	for (size_t i = 0; i + block < sizeof(data); i++) {
		w = wsum_roll(w, data[i], data[i + block], block);
		ck_assert_uint_eq(w, wsum_weak(data + i + 1, block));
	}
}
END_TEST

START_TEST(welcome_comes_back_and_every_truncation_is_refused)
{
	uint64_t out[] = {4, 9};
	struct wwelcome w = {.version = 1, .flags = WW_FRESH, .window = 1 << 20, .noutstanding = 2, .outstanding = out,
	    .motd = "hello", .module_id = "id", .applied.seq = 12}, r;
	struct buf b, v;
	buf_init(&b, 4096);
	wwelcome_put(&b, &w);
	for (size_t n = 0; n < b.len; n++) {
		buf_view(&v, b.data, n);
		ck_assert_int_eq(wwelcome_get(&v, &r), E_PROTO);
	}
	buf_view(&v, b.data, b.len);
	ck_assert_int_eq(wwelcome_get(&v, &r), 0);
	ck_assert_uint_eq(r.outstanding[1], 9);
	ck_assert_uint_eq(r.applied.seq, 12);
	free(r.outstanding);
	buf_release(&b);
}
END_TEST

UNIT_MAIN("wire", commit_comes_back, hostile_paths_are_refused, ranges_beyond_off_t_are_refused,
    too_many_outstanding_are_refused, rolling_sum_equals_the_sum_of_the_moved_block,
    welcome_comes_back_and_every_truncation_is_refused)
