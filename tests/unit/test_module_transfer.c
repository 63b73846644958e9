/* SPDX-License-Identifier: BSD-2-Clause
 * Transfers against a model: random ranges, holes and local copies into new and old files, with one name and
 * with two, below and above every threshold, end in exactly the bytes that a plain buffer has. */
#include "config.h"

#include <xxhash.h>

#include "tests/unit/module_rig.h"

#define SIZE_MAX_HERE (3u << 19) /* bytes: above what is cloned by copying */

struct model {
	struct rig *r;
	uint64_t state; /* of the generator */
	uint8_t *now;	/* what the file must be; zeros beyond size */
	uint8_t *next;
	uint64_t size;
	uint32_t xid;
	bool exists;
};

static uint64_t rnd(struct model *m, uint64_t n)
{
	m->state = m->state * 6364136223846793005ull + 1442695040888963407ull;
	return n ? (m->state >> 33) % n : 0;
}

static void put_data(struct model *m, uint64_t off, uint64_t len)
{
	struct wop op = {
	    .type = WOP_DATA, .xid = m->xid, .off = off, .dlen = (uint32_t)len, .data = m->next + off};
	for (uint64_t i = 0; i < len; i++)
		m->next[off + i] = (uint8_t)(rnd(m, 255) + 1);
	rig_op(m->r, &op);
}

static void put_hole(struct model *m, uint64_t off, uint64_t len, bool to_end)
{
	struct wop op = {.type = WOP_HOLE, .xid = m->xid, .off = off, .len = to_end ? EXTENT_INF - off : len};
	memset(m->next + off, 0, to_end ? SIZE_MAX_HERE - off : len);
	rig_op(m->r, &op);
}

static void put_copy(struct model *m, uint64_t off, uint64_t len)
{
	struct wop op = {
	    .type = WOP_COPY, .xid = m->xid, .path = rnd(m, 2) ? "" : "one", .off = off, .len = len};
	XXH128_canonical_t c;
	if (len > m->size)
		return;
	op.src = rnd(m, m->size - len + 1);
	XXH128_canonicalFromHash(&c, XXH3_128bits(m->now + op.src, len));
	memcpy(op.hash, c.digest, 16);
	memcpy(m->next + off, m->now + op.src, len);
	rig_op(m->r, &op);
}

/* One transfer of random ranges; sometimes its frames are cut in the middle. */
static void transfer(struct model *m)
{
	bool new = !m->exists || rnd(m, 3) == 0;
	static const uint64_t scales[] = {100, 5000, 70000, 600000, SIZE_MAX_HERE};
	uint64_t scale = scales[rnd(m, 5)];
	struct wop op = {
	    .type = WOP_BEGIN, .xid = ++m->xid, .flags = new ? WB_NEW : WB_PATCH, .path = "one", .size = 1};
	rig_op(m->r, &op);
	if (new)
		memset(m->next, 0, SIZE_MAX_HERE);
	else
		memcpy(m->next, m->now, SIZE_MAX_HERE);
	for (uint64_t n = rnd(m, 12); n > 0; n--) {
		uint64_t off = rnd(m, scale), len = rnd(m, scale - off < 100000 ? scale - off : 100000);
		uint64_t what = rnd(m, 10);
		if (what < 6)
			put_data(m, off, len);
		else if (what < 8)
			put_hole(m, off, len, what == 7);
		else if (m->exists)
			put_copy(m, off, len);
		if (m->r->batch.len > (2u << 20) || rnd(m, 4) == 0)
			ck_assert(rig_send(m->r));
	}
	m->size = rnd(m, 2) && !new ? m->size : rnd(m, scale + 1);
	memset(m->next + m->size, 0, SIZE_MAX_HERE - m->size);
	op = (struct wop){.type = WOP_COMMIT,
			  .xid = m->xid,
			  .path = "one",
			  .size = m->size,
			  .attr = {0100600, geteuid(), getegid(), {7, 7}}};
	rig_op(m->r, &op);
	ck_assert(rig_send(m->r));
	ck_assert_msg(m->r->fails == 0, "%s", m->r->text);
	memcpy(m->now, m->next, SIZE_MAX_HERE);
	m->exists = true;
}

static void check(struct model *m, const char *name, int round)
{
	static uint8_t have[SIZE_MAX_HERE];
	struct stat st;
	char path[400];
	snprintf(path, sizeof(path), "%s/%s", m->r->module, name);
	int fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_msg((uint64_t)st.st_size == m->size, "round %d: size %ld, not %ld", round, (long)st.st_size,
		      (long)m->size);
	ck_assert_int_eq(pread(fd, have, SIZE_MAX_HERE, 0), (ssize_t)m->size);
	uint64_t i = 0;
	while (i < m->size && have[i] == m->now[i]) /* an assertion per byte would take minutes */
		i++;
	ck_assert_msg(i == m->size, "round %d: byte %lu is %02x, not %02x", round, (unsigned long)i, have[i],
		      m->now[i]);
	close(fd);
}

static void run(uint64_t seed, bool linked)
{
	struct rig r;
	struct model m = {
	    .r = &r, .state = seed, .now = calloc(1, SIZE_MAX_HERE), .next = calloc(1, SIZE_MAX_HERE)};
	rig_init(&r, "");
	rig_open(&r);
	for (int round = 0; round < 60; round++) {
		transfer(&m);
		check(&m, "one", round);
		if (linked && round == 3)
			rig_simple(&r, JT_LINK, "one", "two");
		if (linked && round > 3)
			check(&m, "two", round);
	}
	free(m.now);
	free(m.next);
	rig_end(&r);
}

START_TEST(a_file_with_one_name)
{
	for (uint64_t seed = 1; seed <= 8; seed++)
		run(seed, false);
}
END_TEST

START_TEST(a_file_with_two_names)
{
	for (uint64_t seed = 11; seed <= 18; seed++)
		run(seed, true);
}
END_TEST

/* At the source they were two files, and rename(2) did something. */
START_TEST(a_rename_over_another_name_of_the_same_file)
{
	struct rig r;
	struct jrec rec;
	struct stat st;
	char path[400];
	rig_init(&r, "");
	rig_open(&r);
	rig_simple(&r, JT_CREATE, "a", "");
	rig_simple(&r, JT_LINK, "a", "b");
	jrec_init(&rec, JT_RENAME);
	rec.seq = 9;
	rec.ino = 5;
	rec.path = "a";
	rec.path2 = "b";
	rig_rec(&r, &rec);
	ck_assert(rig_send(&r));
	ck_assert_uint_eq(r.fails, 0);
	snprintf(path, sizeof(path), "%s/a", r.module);
	ck_assert_int_eq(lstat(path, &st), -1);
	snprintf(path, sizeof(path), "%s/b", r.module);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 1);
	rig_end(&r);
}
END_TEST

/* A CREATE and the content of its file in one batch. Returns how many of the two failed. */
static unsigned create(struct rig *r, const char *path, const char *text)
{
	static uint32_t xid = 100;
	unsigned before = r->fails;
	rig_simple(r, JT_CREATE, path, NULL);
	rig_file(r, ++xid, path, text, (uint32_t)strlen(text));
	ck_assert(rig_send(r));
	return r->fails - before;
}

static void holds(struct rig *r, const char *name, const char *text)
{
	char path[400], have[32] = "";
	snprintf(path, sizeof(path), "%s/%s", r->module, name);
	int fd = open(path, O_RDONLY);
	ck_assert_msg(fd >= 0, "%s", name);
	ck_assert_int_ge(read(fd, have, sizeof(have) - 1), 0);
	ck_assert_str_eq(have, text);
	close(fd);
}

/* The CREATE waits for its content, and still says what it would have said by itself. */
START_TEST(a_created_file_meets_what_has_its_name)
{
	struct rig r;
	rig_init(&r, "");
	r.xattrs = true;
	rig_write(r.module, "taken", "old", 0600);
	rig_write(r.module, "linked", "old", 0600);
	rig_mkdir(r.module, "directory");
	rig_open(&r);
	rig_simple(&r, JT_LINK, "linked", "other");
	ck_assert(rig_send(&r));
	ck_assert_uint_eq(create(&r, "free", "one"), 0);
	holds(&r, "free", "one");
	ck_assert_uint_eq(create(&r, "taken", "two"), 1);
	ck_assert_uint_eq(r.fail_code, WR_EXISTS);
	holds(&r, "taken", "two");
	ck_assert_uint_eq(create(&r, "linked", "three"), 1);
	ck_assert_uint_eq(r.fail_code, WR_EXISTS);
	holds(&r, "linked", "three");
	ck_assert_uint_eq(create(&r, "directory", "four"), 2);
	ck_assert_uint_eq(r.fail_code, WR_TYPE);
	ck_assert_uint_eq(create(&r, "missing/file", "five"), 2);
	ck_assert_uint_eq(r.fail_code, WR_MISSING);
	ck_assert_uint_eq(create(&r, "free too", "six"), 0);
	holds(&r, "free too", "six");
	rig_end(&r);
}
END_TEST

/* New files are not looked for under their names while none was there; the first one that is must be noticed. */
START_TEST(a_new_version_after_new_files_replaces_the_old_one)
{
	struct rig r;
	char path[400];
	struct stat st;
	rig_init(&r, "");
	r.xattrs = true;
	rig_open(&r);
	rig_file(&r, 1, "a", "one", 3);
	rig_file(&r, 2, "b", "one", 3);
	rig_file(&r, 3, "a", "three", 5);
	rig_file(&r, 4, "c", "four", 4);
	rig_file(&r, 5, "b", "five", 4);
	ck_assert(rig_send(&r));
	ck_assert_uint_eq(r.fails, 0);
	holds(&r, "a", "three");
	holds(&r, "b", "five");
	holds(&r, "c", "four");
	snprintf(path, sizeof(path), "%s/b", r.module);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, 1000);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_uint_eq(st.st_uid, geteuid());
	rig_end(&r);
}
END_TEST

UNIT_MAIN("module transfers", a_file_with_one_name, a_file_with_two_names, a_rename_over_another_name_of_the_same_file,
	  a_created_file_meets_what_has_its_name, a_new_version_after_new_files_replaces_the_old_one)
