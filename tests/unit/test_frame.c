/* SPDX-License-Identifier: BSD-2-Clause
 * Frames as bytes: proto/frame.h, proto/compress.h. */
#include "config.h"
#include "tests/unit/unit.h"

#include "proto/err.h"
#include "proto/frame.h"

static struct buf wire, plain, payload;
static uint8_t type;

/* A header with these fields and payload n bytes of 'x' behind it; the sum is right for nothing. */
static void raw(uint32_t sent, uint32_t expanded, uint8_t t, uint8_t method, uint16_t zero)
{
	buf_init(&wire, 16u << 20);
	buf_init(&plain, FRAME_MAX);
	buf_put_u32(&wire, sent);
	buf_put_u32(&wire, expanded);
	buf_put_u8(&wire, t);
	buf_put_u8(&wire, method);
	buf_put_u16(&wire, zero);
	buf_put_u32(&wire, 0);
}

static void put(const void *p, size_t n, enum compress_method m)
{
	buf_init(&wire, 16u << 20);
	buf_init(&plain, FRAME_MAX);
	ck_assert_int_eq(frame_put(&wire, 7, p, n, m), 0);
}

static void check_round_trip(size_t n, enum compress_method m)
{
	uint8_t *p = malloc(n + 1);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i / 64);
	put(p, n, m);
	ck_assert_int_eq(frame_get(&wire, &plain, &type, &payload), 1);
	ck_assert_uint_eq(type, 7);
	ck_assert_uint_eq(payload.len, n);
	ck_assert(n == 0 || memcmp(payload.data, p, n) == 0);
	ck_assert_uint_eq(buf_left(&wire), 0);
	buf_release(&wire);
	buf_release(&plain);
	free(p);
}

START_TEST(frames_survive_every_method)
{
	static const size_t sizes[] = {0, 1, 127, 128, 5000, 262144, FRAME_MAX};

	for (int m = COMPRESS_NONE; m <= COMPRESS_ZSTD; m++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			check_round_trip(sizes[i], (enum compress_method)m);
}
END_TEST

START_TEST(compression_shrinks_the_frame)
{
	static const uint8_t zeros[65536];

	put(zeros, sizeof(zeros), COMPRESS_ZSTD);
	ck_assert_uint_lt(wire.len, 1024);
	buf_release(&wire);
}
END_TEST

START_TEST(what_does_not_shrink_is_sent_as_it_is)
{
	uint8_t noise[4096];
	uint32_t x = 1;

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
	put(noise, sizeof(noise), COMPRESS_ZSTD);
	ck_assert_uint_eq(wire.len, FRAME_HEADER + sizeof(noise));
	ck_assert_uint_eq(wire.data[9], COMPRESS_NONE);
	buf_release(&wire);
}
END_TEST

START_TEST(a_payload_above_the_maximum_is_not_put)
{
	uint8_t *p = calloc(1, FRAME_MAX + 1);

	buf_init(&wire, 16u << 20);
	ck_assert_int_eq(frame_put(&wire, 1, p, FRAME_MAX + 1, COMPRESS_NONE), E_LIMIT);
	ck_assert_uint_eq(wire.len, 0);
	free(p);
}
END_TEST

START_TEST(a_full_queue_refuses_and_stays_usable)
{
	buf_init(&wire, 100);
	ck_assert_int_eq(frame_put(&wire, 1, "0123456789", 10, COMPRESS_NONE), 0);
	ck_assert_int_eq(frame_put(&wire, 1, wire.data, 90, COMPRESS_NONE), E_LIMIT);
	ck_assert_int_eq(frame_put(&wire, 1, "0123456789", 10, COMPRESS_NONE), 0);
	ck_assert_uint_eq(wire.len, 2 * (FRAME_HEADER + 10));
	buf_release(&wire);
}
END_TEST

START_TEST(every_prefix_is_incomplete)
{
	size_t whole;

	put("0123456789", 10, COMPRESS_NONE);
	whole = wire.len;
	for (size_t n = 0; n < whole; n++) {
		wire.len = n;
		ck_assert_int_eq(frame_get(&wire, &plain, &type, &payload), 0);
	}
	wire.len = whole;
	ck_assert_int_eq(frame_get(&wire, &plain, &type, &payload), 1);
	buf_release(&wire);
}
END_TEST

START_TEST(every_flipped_payload_bit_is_found)
{
	put("0123456789", 10, COMPRESS_NONE);
	for (size_t bit = 0; bit < 80; bit++) {
		wire.data[FRAME_HEADER + bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_eq(frame_get(&wire, &plain, &type, &payload), E_CHECKSUM);
		wire.data[FRAME_HEADER + bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	buf_release(&wire);
}
END_TEST

static void check_header(int want, uint32_t sent, uint32_t expanded, uint8_t t, uint8_t method, uint16_t zero)
{
	raw(sent, expanded, t, method, zero);
	ck_assert_int_eq(frame_peek(&wire), want);
	ck_assert_int_eq(frame_get(&wire, &plain, &type, &payload), want);
	buf_release(&wire);
}

START_TEST(lengths_above_the_maximum_are_refused_at_the_header)
{
	check_header(E_LIMIT, FRAME_MAX + 1, FRAME_MAX + 1, 1, COMPRESS_NONE, 0);
	check_header(E_LIMIT, UINT32_MAX, UINT32_MAX, 1, COMPRESS_NONE, 0);
	check_header(E_LIMIT, 10, UINT32_MAX, 1, COMPRESS_ZSTD, 0);
}
END_TEST

START_TEST(headers_nobody_sends_are_refused)
{
	check_header(E_PROTO, 10, 10, 0, COMPRESS_NONE, 0);  /* no type */
	check_header(E_PROTO, 10, 11, 1, COMPRESS_NONE, 0);  /* two lengths */
	check_header(E_PROTO, 10, 10, 1, COMPRESS_ZSTD, 0);  /* compressed without gain */
	check_header(E_PROTO, 0, 10, 1, COMPRESS_ZLIB, 0);   /* something from nothing */
	check_header(E_PROTO, 10, 20, 1, 3, 0);              /* unknown method */
	check_header(E_PROTO, 10, 10, 1, COMPRESS_NONE, 1);  /* reserved bytes */
}
END_TEST

START_TEST(another_expanded_length_than_the_data_s_is_refused)
{
	static const uint8_t zeros[65536];

	for (int m = COMPRESS_ZLIB; m <= COMPRESS_ZSTD; m++)
		for (int d = -1; d <= 1; d += 2) {
			put(zeros, sizeof(zeros), (enum compress_method)m);
			buf_set_u32(&wire, 4, (uint32_t)((int)sizeof(zeros) + d));
			ck_assert_int_eq(frame_get(&wire, &plain, &type, &payload), E_PROTO);
			buf_release(&wire);
			buf_release(&plain);
		}
}
END_TEST

START_TEST(damaged_compressed_data_is_refused_not_expanded)
{
	uint8_t text[1000], out[1000], packed[1000];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)("abcdefg"[i % 7] + i / 100);
	for (int m = COMPRESS_ZLIB; m <= COMPRESS_ZSTD; m++) {
		size_t n = compress_pack((enum compress_method)m, 0, text, sizeof(text), packed, sizeof(packed));

		ck_assert_uint_gt(n, 0);
		ck_assert_int_eq(compress_unpack((enum compress_method)m, packed, n, out, sizeof(out)), 0);
		ck_assert_int_eq(compress_unpack((enum compress_method)m, packed, n - 1, out, sizeof(out)), E_PROTO);
		packed[0] ^= 0x55;
		ck_assert_int_eq(compress_unpack((enum compress_method)m, packed, n, out, sizeof(out)), E_PROTO);
	}
}
END_TEST

START_TEST(nothing_is_neither_compressed_nor_expanded)
{
	static const enum compress_method all[] = {COMPRESS_NONE, COMPRESS_ZLIB, COMPRESS_ZSTD};
	uint8_t in[64] = {0}, out[64];

	for (int i = 0; i < 3; i++) {
		ck_assert_uint_eq(compress_pack(all[i], 0, in, 0, out, sizeof(out)), 0);
		ck_assert_uint_eq(compress_pack(all[i], 0, in, sizeof(in), out, 0), 0);
		ck_assert_int_eq(compress_unpack(all[i], in, 0, out, sizeof(out)), E_PROTO);
		ck_assert_int_eq(compress_unpack(all[i], in, sizeof(in), out, 0), E_PROTO);
	}
	ck_assert_uint_eq(compress_pack(COMPRESS_NONE, 0, in, sizeof(in), out, sizeof(out)), 0);
	ck_assert_int_eq(compress_unpack(COMPRESS_NONE, in, sizeof(in), out, sizeof(out)), E_PROTO);
}
END_TEST

UNIT_MAIN("frame", nothing_is_neither_compressed_nor_expanded, frames_survive_every_method, compression_shrinks_the_frame, what_does_not_shrink_is_sent_as_it_is,
    a_payload_above_the_maximum_is_not_put, a_full_queue_refuses_and_stays_usable, every_prefix_is_incomplete,
    every_flipped_payload_bit_is_found, lengths_above_the_maximum_are_refused_at_the_header,
    headers_nobody_sends_are_refused, another_expanded_length_than_the_data_s_is_refused,
    damaged_compressed_data_is_refused_not_expanded)
