/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "proto/buf.h"
#include "proto/err.h"
#include "tests/unit/unit.h"

START_TEST(values_come_back)
{
	struct buf b, r;
	buf_init(&b, 1024);
	buf_put_u8(&b, 0xfe);
	buf_put_u16(&b, 0x1234);
	buf_put_u32(&b, 0xdeadbeef);
	buf_put_u64(&b, 0x0123456789abcdefull);
	buf_put_str(&b, "name");
	buf_put_str(&b, NULL);
	buf_put_blob(&b, "xyz", 3);
	ck_assert_int_eq(b.err, 0);
	ck_assert_uint_eq(b.data[1], 0x34); /* little-endian */
	buf_view(&r, b.data, b.len);
	size_t n;
	uint32_t m;
	ck_assert_uint_eq(buf_get_u8(&r), 0xfe);
	ck_assert_uint_eq(buf_get_u16(&r), 0x1234);
	ck_assert_uint_eq(buf_get_u32(&r), 0xdeadbeef);
	ck_assert_uint_eq(buf_get_u64(&r), 0x0123456789abcdefull);
	ck_assert_str_eq(buf_get_str(&r, &n), "name");
	ck_assert_uint_eq(n, 4);
	ck_assert_str_eq(buf_get_str(&r, NULL), "");
	ck_assert_mem_eq(buf_get_blob(&r, 3, &m), "xyz", 3);
	ck_assert_int_eq(buf_end(&r), 0);
	buf_release(&b);
}
END_TEST

START_TEST(every_truncation_is_refused)
{
	struct buf b;
	buf_init(&b, 1024);
	buf_put_str(&b, "name");
	buf_put_u64(&b, 7);
	for (size_t n = 0; n < b.len; n++) {
		struct buf r;
		buf_view(&r, b.data, n);
		buf_get_str(&r, NULL);
		buf_get_u64(&r);
		ck_assert_int_eq(buf_end(&r), E_PROTO);
	}
	buf_release(&b);
}
END_TEST

START_TEST(trailing_bytes_are_refused)
{
	struct buf r;
	buf_view(&r, "\1\2", 2);
	buf_get_u8(&r);
	ck_assert_int_eq(buf_end(&r), E_PROTO);
}
END_TEST

START_TEST(nul_inside_a_string_is_refused)
{
	struct buf r;
	buf_view(&r, "\3\0a\0b\0", 6);
	ck_assert_str_eq(buf_get_str(&r, NULL), "");
	ck_assert_int_eq(r.err, E_PROTO);
}
END_TEST

START_TEST(blob_above_its_maximum_is_refused)
{
	struct buf r;
	uint32_t n;
	buf_view(&r, "\4\0\0\0abcd", 8);
	ck_assert_ptr_null(buf_get_blob(&r, 3, &n));
	ck_assert_int_eq(r.err, E_PROTO);
}
END_TEST

START_TEST(the_limit_holds_and_sticks)
{
	struct buf b;
	buf_init(&b, 8);
	buf_put_u64(&b, 1);
	ck_assert_int_eq(b.err, 0);
	buf_put_u8(&b, 1);
	ck_assert_int_eq(b.err, E_LIMIT);
	ck_assert_uint_eq(b.len, 8);
	buf_clear(&b);
	buf_put_u8(&b, 1);
	ck_assert_int_eq(b.err, 0);
	buf_release(&b);
}
END_TEST

UNIT_MAIN("buf", values_come_back, every_truncation_is_refused, trailing_bytes_are_refused,
    nul_inside_a_string_is_refused, blob_above_its_maximum_is_refused, the_limit_holds_and_sticks)
