/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "tests/unit/unit.h"
#include "proto/err.h"
#include "proto/jrec.h"
#include "proto/jseg.h"
#include "tests/unit/records.h"

#include <errno.h>
#include <xxhash.h>

static void encode(struct buf *b, enum jtype type)
{
	struct jrec r;
	record_sample(&r, type);
	buf_init(b, JREC_MAX);
	ck_assert_int_eq(jrec_put(b, &r), 0);
	ck_assert_uint_eq(b->len, jrec_size(&r));
	jrec_release(&r);
}

START_TEST(every_type_encodes_to_the_same_bytes_again)
{
	for (int type = 1; type <= JT_LAST; type++) {
		struct buf b, c;
		struct jrec r;
		size_t used;
		encode(&b, type);
		ck_assert_int_eq(jrec_get(&r, b.data, b.len, &used), 0);
		ck_assert_uint_eq(used, b.len);
		buf_init(&c, JREC_MAX);
		ck_assert_int_eq(jrec_put(&c, &r), 0);
		ck_assert_uint_eq(c.len, b.len);
		ck_assert_mem_eq(c.data, b.data, b.len);
		jrec_release(&r);
		buf_release(&b);
		buf_release(&c);
	}
}
END_TEST

START_TEST(header_fields_come_back)
{
	struct buf b;
	struct jrec r;
	size_t used;
	encode(&b, JT_UNLINK);
	ck_assert_int_eq(jrec_get(&r, b.data, b.len, &used), 0);
	ck_assert_int_eq(r.type, JT_UNLINK);
	ck_assert_uint_eq(r.seq, 42);
	ck_assert_uint_eq(r.time_ns, 1700000000123456789u);
	ck_assert_uint_ne(r.csum, 0);
	buf_release(&b);
}
END_TEST

START_TEST(rename_fields_come_back)
{
	struct buf b;
	struct jrec r;
	size_t used;
	encode(&b, JT_RENAME);
	ck_assert_int_eq(jrec_get(&r, b.data, b.len, &used), 0);
	ck_assert_uint_eq(r.ino, 0x1122334455667788);
	ck_assert_str_eq(r.path, "dir/file");
	ck_assert_str_eq(r.path2, "dir/other name");
	ck_assert_uint_eq(r.rflags, 1);
	ck_assert_uint_eq(r.ino2, 99);
	ck_assert_uint_eq(r.nlink, 2);
	ck_assert_uint_eq(r.mode, S_IFREG | 0644);
	ck_assert_int_eq(r.pm.sec, 1700000000);
	ck_assert_uint_eq(r.pm2.nsec, 2);
	buf_release(&b);
}
END_TEST

START_TEST(content_fields_come_back)
{
	struct buf b;
	struct jrec r;
	size_t used;
	encode(&b, JT_CONTENT);
	ck_assert_int_eq(jrec_get(&r, b.data, b.len, &used), 0);
	ck_assert_uint_eq(r.extents.n, 3);
	ck_assert_uint_eq(r.extents.v[1].start, 8192);
	ck_assert_uint_eq(r.extents.v[2].end, EXTENT_INF);
	ck_assert_uint_eq(r.ncopies, 2);
	ck_assert_uint_eq(r.copies[1].src_ino, 8);
	ck_assert_str_eq(r.copies[0].src_path, "src/a");
	ck_assert_int_eq(r.handle_type, -129);
	ck_assert_uint_eq(r.handle_len, 12);
	ck_assert_uint_eq(r.size, 123456789);
	jrec_release(&r);
	buf_release(&b);
}
END_TEST

START_TEST(every_flipped_bit_is_refused)
{
	for (int type = 1; type <= JT_LAST; type++) {
		struct buf b;
		encode(&b, type);
		for (size_t i = 0; i < b.len * 8; i++) {
			struct jrec r;
			size_t used;
			b.data[i / 8] ^= (uint8_t)(1 << i % 8);
			int err = jrec_get(&r, b.data, b.len, &used);
			ck_assert_msg(err == E_CHECKSUM || err == E_TORN, "type %d bit %zu: %d", type, i,
				      err);
			b.data[i / 8] ^= (uint8_t)(1 << i % 8);
		}
		buf_release(&b);
	}
}
END_TEST

START_TEST(every_truncation_is_torn)
{
	for (int type = 1; type <= JT_LAST; type++) {
		struct buf b;
		encode(&b, type);
		for (size_t n = 0; n < b.len; n++) {
			/* in a block of its own, so that a read beyond it is seen */
			uint8_t *p = malloc(n + 1);
			struct jrec r;
			size_t used;
			memcpy(p, b.data, n);
			ck_assert_int_eq(jrec_get(&r, p, n, &used), E_TORN);
			free(p);
		}
		buf_release(&b);
	}
}
END_TEST

START_TEST(zeros_are_torn)
{
	static const uint8_t zeros[256];
	struct jrec r;
	size_t used;
	ck_assert_int_eq(jrec_get(&r, zeros, sizeof(zeros), &used), E_TORN);
}
END_TEST

/* Give b, a record whose bytes were changed, a checksum that holds. */
static void reseal(struct buf *b)
{
	uint8_t tmp[4096];
	uint32_t body;
	memcpy(&body, b->data + 12, 4);
	memset(b->data + 32, 0, 8);
	memcpy(tmp, b->data, JREC_HEADER + body);
	uint64_t sum = XXH3_64bits(tmp, JREC_HEADER + body);
	memcpy(b->data + 32, &sum, 8);
}

static void expect_resealed(enum jtype type, size_t at, uint8_t value, int want)
{
	struct buf b;
	struct jrec r;
	size_t used;
	encode(&b, type);
	b.data[at] = value;
	reseal(&b);
	ck_assert_int_eq(jrec_get(&r, b.data, b.len, &used), want);
	buf_release(&b);
}

START_TEST(unknown_type_is_another_version)
{
	expect_resealed(JT_UNLINK, 4, JT_LAST + 1, E_VERSION);
	expect_resealed(JT_UNLINK, 4, 0, E_VERSION);
}
END_TEST

START_TEST(valid_checksum_over_bad_fields_is_refused)
{
	expect_resealed(JT_UNLINK, 7, 0x80, E_PROTO);		    /* unknown flag */
	expect_resealed(JT_UNLINK, JREC_HEADER + 10, '/', E_PROTO); /* path begins with a slash */
	expect_resealed(JT_UNLINK, JREC_HEADER + 8, 200, E_PROTO);  /* string beyond the body */
	expect_resealed(JT_UNLINK, JREC_HEADER + 11, 0, E_PROTO);   /* NUL inside */
}
END_TEST

static void expect_put(struct jrec *r, int want)
{
	struct buf b;
	buf_init(&b, JREC_MAX);
	buf_put_u32(&b, 7);
	ck_assert_int_eq(jrec_put(&b, r), want);
	ck_assert_uint_eq(b.len, 4);
	ck_assert_int_eq(b.err, 0);
	buf_release(&b);
}

START_TEST(invalid_records_are_not_encoded)
{
	static const char *const bad[] = {"", "/abs", "a//b", "a/../b", ".", ".tandem", ".tandem/x", "a/"};
	struct jrec r;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		record_sample(&r, JT_CREATE);
		r.path = bad[i];
		expect_put(&r, -EINVAL);
	}
	record_sample(&r, JT_CREATE);
	r.mode = S_IFDIR | 0755;
	expect_put(&r, -EINVAL);
	record_sample(&r, JT_CREATE);
	r.mtime.nsec = 1000000000;
	expect_put(&r, -EINVAL);
	record_sample(&r, JT_CREATE);
	r.type = JT_LAST + 1;
	expect_put(&r, -EINVAL);
}
END_TEST

START_TEST(content_without_a_name_says_so)
{
	struct buf b;
	struct jrec r;
	record_sample(&r, JT_CONTENT);
	r.path = "";
	expect_put(&r, -EINVAL);
	r.flags |= JF_UNLINKED;
	buf_init(&b, JREC_MAX);
	ck_assert_int_eq(jrec_put(&b, &r), 0);
	buf_release(&b);
	jrec_release(&r);
}
END_TEST

START_TEST(extents_out_of_order_are_refused)
{
	struct jrec r;
	record_sample(&r, JT_CONTENT);
	r.extents.v[1].start = 4096; /* touches the one before */
	expect_put(&r, -EINVAL);
	jrec_release(&r);
}
END_TEST

START_TEST(too_large_is_a_limit)
{
	struct jrec r;
	char *path = malloc(65001);
	for (int i = 0; i < 65000; i++)
		path[i] = i % 200 == 199 ? '/' : 'p';
	path[64999] = 'p';
	path[65000] = 0;
	record_sample(&r, JT_CONTENT);
	r.ncopies = JREC_COPIES;
	for (int i = 0; i < JREC_COPIES; i++)
		r.copies[i] = (struct jcopy){0, 0, 1, 1, path};
	ck_assert_uint_gt(jrec_size(&r), JREC_MAX);
	expect_put(&r, E_LIMIT);
	jrec_release(&r);
	free(path);
}
END_TEST

START_TEST(fixed_memory_is_never_outgrown)
{
	uint8_t room[128];
	struct jrec r;
	record_sample(&r, JT_CONTENT);
	struct buf b = {.data = room, .cap = sizeof(room), .max = sizeof(room)};
	ck_assert_int_eq(jrec_put(&b, &r), E_LIMIT);
	ck_assert_uint_eq(b.len, 0);
	jrec_release(&r);
}
END_TEST

START_TEST(chain_depends_on_order)
{
	ck_assert_uint_ne(jrec_chain(jrec_chain(0, 1), 2), jrec_chain(jrec_chain(0, 2), 1));
}
END_TEST

START_TEST(segment_header_comes_back)
{
	struct jseg s = {.epoch = 3, .first_seq = 1000, .chain = 0xabcdef, .size = JSEG_SIZE}, t;
	uint8_t out[JSEG_HEADER];
	memcpy(s.journal_id, "0123456789abcdef", 16);
	jseg_put(out, &s);
	ck_assert_int_eq(jseg_get(&t, out, sizeof(out)), 0);
	ck_assert_mem_eq(s.journal_id, t.journal_id, 16);
	ck_assert_uint_eq(t.epoch, 3);
	ck_assert_uint_eq(t.first_seq, 1000);
	ck_assert_uint_eq(t.chain, 0xabcdef);
	ck_assert_uint_eq(t.size, JSEG_SIZE);
	for (size_t i = 0; i < JSEG_HEADER; i++) {
		out[i] ^= 1;
		ck_assert_int_eq(jseg_get(&t, out, sizeof(out)), i == 7 ? E_VERSION : E_CHECKSUM);
		out[i] ^= 1;
	}
}
END_TEST

/* The hex digits of the n-th block "```hexdump" of the format document. */
static size_t document_bytes(int n, uint8_t *out, size_t max)
{
	const char *src = getenv("srcdir");
	char path[4096], line[512];
	size_t len = 0;
	snprintf(path, sizeof(path), "%s/docs/journal-format.md", src ? src : ".");
	FILE *f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s", path);
	for (int in = 0; fgets(line, sizeof(line), f);) {
		if (!strncmp(line, "```", 3)) {
			in = !in && !strncmp(line, "```hexdump", 10) && n-- == 0;
			continue;
		}
		unsigned v;
		int used;
		char *bar = in ? strchr(line, '|') : NULL;
		if (bar)
			*bar = 0;
		for (char *p = line + 4; in && sscanf(p, "%2x%n", &v, &used) == 1 && len < max; p += used)
			out[len++] = (uint8_t)v;
	}
	fclose(f);
	return len;
}

START_TEST(documented_record_is_what_we_read)
{
	uint8_t bytes[4096];
	size_t n = document_bytes(1, bytes, sizeof(bytes)), used;
	struct jrec r;
	ck_assert_int_eq(jrec_get(&r, bytes, n, &used), 0);
	ck_assert_uint_eq(used, n);
	ck_assert_int_eq(r.type, JT_CONTENT);
	ck_assert_uint_eq(r.flags, JF_CLOSED);
	ck_assert_uint_eq(r.seq, 7);
	ck_assert_uint_eq(r.ino, 0x2a001);
	ck_assert_str_eq(r.path, "db/wal");
	ck_assert_uint_eq(r.size, 8192);
	ck_assert_uint_eq(r.extents.n, 1);
	ck_assert_uint_eq(r.extents.v[0].start, 4096);
	ck_assert_uint_eq(r.extents.v[0].end, 8192);
	jrec_release(&r);
}
END_TEST

START_TEST(documented_segment_is_what_we_read)
{
	uint8_t bytes[4096];
	size_t n = document_bytes(0, bytes, sizeof(bytes));
	struct jseg s;
	ck_assert_uint_eq(n, JSEG_HEADER);
	ck_assert_int_eq(jseg_get(&s, bytes, n), 0);
	ck_assert_uint_eq(s.first_seq, 1);
	ck_assert_uint_eq(s.epoch, 1);
	ck_assert_uint_eq(s.size, JSEG_SIZE);
}
END_TEST

UNIT_MAIN("jrec", every_type_encodes_to_the_same_bytes_again, header_fields_come_back,
	  rename_fields_come_back, content_fields_come_back, every_flipped_bit_is_refused,
	  every_truncation_is_torn, zeros_are_torn, unknown_type_is_another_version,
	  valid_checksum_over_bad_fields_is_refused, invalid_records_are_not_encoded,
	  content_without_a_name_says_so, extents_out_of_order_are_refused, too_large_is_a_limit,
	  fixed_memory_is_never_outgrown, chain_depends_on_order, segment_header_comes_back,
	  documented_record_is_what_we_read, documented_segment_is_what_we_read)
