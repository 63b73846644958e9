/* SPDX-License-Identifier: BSD-2-Clause
 * A journal that holds a record of every kind, in a sealed and in the open segment, damaged in every way: each byte flipped, each
 * length it may be cut to, pages of it lost. What the replicator's reader gives is what was written, up to the damage, and then
 * an error; what recovery makes of it says so (DAMAGED), keeps the bad segments aside, and has everything compared. */
#include "config.h"
#include "tests/unit/journals.h"
#include "tests/unit/records.h"

#include <stddef.h>
#include <xxhash.h>

#define RECORDS_MAX 64

struct place { /* of a record */
	size_t off, len;
	uint64_t seq;
};

struct segment_image {
	uint8_t *data;
	size_t used; /* bytes before the zeros at its end */
	uint64_t first;
	struct place v[RECORDS_MAX];
	int n;
	unsigned kinds; /* bits of the types that are in it */
};

static struct {
	uint8_t *head;
	struct segment_image seg[2]; /* sealed, open */
	uint64_t last;		     /* record */
} made;

static const struct journal_options fast = {.limit = 1ull << 40, .segment_size = JSEG_SIZE_MIN, .sync = JSYNC_NEVER};

/* --- the journal --- */

static void append_kinds(struct jdir *d)
{
	for (enum jtype t = JT_CREATE; t < JT_COLLAPSED; t++) {
		struct jrec r;
		record_sample(&r, t);
		ck_assert_int_eq(journal_append(d->j, &r), 0);
		jrec_release(&r);
	}
	struct jrec r;
	jrec_init(&r, JT_MOUNT);
	ck_assert_int_eq(journal_append(d->j, &r), 0);
}

/* A value so large that little else fits into a segment beside it. */
static void append_large(struct jdir *d)
{
	static uint8_t value[63400];
	struct jrec r;
	record_sample(&r, JT_SETXATTR);
	memset(value, 'v', sizeof(value));
	r.xval = value;
	r.xlen = sizeof(value);
	ck_assert_int_eq(journal_append(d->j, &r), 0);
}

static void write_first(struct jdir *d)
{
	append_kinds(d);
}

/* The first segment is lost, so that the next begins with COLLAPSED. */
static void write_rest(struct jdir *d)
{
	append_kinds(d);
	append_large(d);
	append_kinds(d); /* some of them */
	append_kinds(d);
}

static uint8_t *slurp(const char *dir, const char *name, size_t size)
{
	uint8_t *data = malloc(size);
	char path[600];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, data, size, 0), (ssize_t)size);
	close(fd);
	return data;
}

static void index_records(struct segment_image *s)
{
	struct jrec_info i;
	size_t off = JSEG_HEADER;
	for (; jrec_peek(&i, s->data + off, JSEG_SIZE_MIN - off) == 0; off += i.length) {
		ck_assert_int_lt(s->n, RECORDS_MAX);
		s->v[s->n++] = (struct place){off, i.length, i.seq};
		s->kinds |= 1u << i.type;
		made.last = i.seq;
	}
	s->used = off;
}

static void make(void)
{
	struct jdir d;
	char name[JSEG_NAME_LEN];
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	jdir_make(&d);
	jdir_die(&d, &fast, write_first);
	ck_assert_int_eq(unlink(jdir_file(&d, 0)), 0);
	jdir_die(&d, &fast, write_rest);
	ck_assert_int_eq(jdir_segments(&d), 2);
	made.head = slurp(d.path, JHEAD_NAME, JHEAD_SIZE);
	for (int k = 0; k < 2; k++) {
		made.seg[k].first = jdir_segment(&d, k);
		jseg_name(name, made.seg[k].first);
		made.seg[k].data = slurp(d.path, name, JSEG_SIZE_MIN);
		index_records(&made.seg[k]);
	}
	for (unsigned t = 1; t <= JT_LAST; t++) {
		ck_assert_msg(made.seg[0].kinds & 1u << t, "no record of type %u is sealed", t);
		ck_assert_msg(made.seg[1].kinds & 1u << t || t >= JT_RECHECK, "no record of type %u in the open segment", t);
	}
	jdir_remove(&d);
}

static void put_file(struct jdir *d, const char *name, const void *data, size_t n)
{
	int fd = openat(d->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, data, n), (ssize_t)n);
	close(fd);
}

static void put_segment(struct jdir *d, int k, const void *data, size_t n)
{
	char name[JSEG_NAME_LEN];
	jseg_name(name, made.seg[k].first);
	put_file(d, name, data, n);
}

/* The directory as it was when the writer was killed. */
static void lay_out(struct jdir *d)
{
	unit_remove(d->path);
	ck_assert_int_eq(mkdir(d->path, 0700), 0);
	d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put_file(d, JHEAD_NAME, made.head, JHEAD_SIZE);
	for (int k = 0; k < 2; k++)
		put_segment(d, k, made.seg[k].data, JSEG_SIZE_MIN);
}

static void clear(struct jdir *d)
{
	close(d->fd);
	d->fd = -1;
}

/* --- what must hold --- */

/* The reader gives the records before number `until` as they were written, and then err. */
static void expect_reader(struct jdir *d, uint64_t until, int err, const char *what, size_t at)
{
	struct jreader *r;
	struct jrec rec;
	const void *raw;
	size_t len;
	int got = jreader_open(&r, d->fd);
	ck_assert_msg(got == 0, "%s %zu: open %d", what, at, got);
	got = jreader_rewind(r);
	for (int k = 0, i = 0; !got && (got = jreader_next(r, &rec, &raw, &len)) == 1; i++, got = 0) {
		if (i == made.seg[k].n && k == 0)
			k++, i = 0;
		const struct place *p = &made.seg[k].v[i];
		ck_assert_msg(rec.seq < until && rec.seq == p->seq && len == p->len && memcmp(raw, made.seg[k].data + p->off, len) == 0,
			      "%s %zu: record %llu is not what was written", what, at, (unsigned long long)rec.seq);
		jrec_release(&rec);
	}
	ck_assert_msg(got == err, "%s %zu: %s", what, at, err_text(got));
	jreader_close(r);
}

static bool quarantined(struct jdir *d)
{
	char path[600];
	struct stat st;
	snprintf(path, sizeof(path), "%s/%s", d->path, JOURNAL_QUARANTINE);
	return stat(path, &st) == 0;
}

/* Everything from record s on is compared: it stands in a COLLAPSED and the RECHECK of the root behind it. */
static void expect_compared(struct jdir *d, uint64_t s, const char *what, size_t at)
{
	struct jreader *r;
	struct jrec rec;
	unsigned types[JT_LAST + 1];
	ck_assert_int_eq(jreader_open(&r, d->fd), 0);
	int err = jreader_seek(r, s - 1, NULL);
	bool first = err == 0;
	ck_assert_msg(first || err == E_COLLAPSED, "%s %zu: record %llu: %s", what, at, (unsigned long long)s, err_text(err));
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_msg(rec.type == JT_COLLAPSED && (first || (rec.from <= s && rec.to >= made.last)), "%s %zu: type %d", what, at, rec.type);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_int_eq(rec.type, JT_RECHECK);
	ck_assert_str_eq(rec.path, "");
	ck_assert_uint_ne(rec.flags & JF_RECURSIVE, 0);
	jreader_close(r);
	jdir_read(d, types);
}

/* Recovery finds damage; record s is among what is lost. kept: there is something to put into quarantine. */
static void expect_damaged(struct jdir *d, uint64_t s, bool kept, const char *what, size_t at)
{
	int err = jdir_try(d, &fast);
	ck_assert_msg(err == 0, "%s %zu: %s", what, at, err_text(err));
	ck_assert_msg(d->start == JSTART_DAMAGED, "%s %zu: start %d", what, at, d->start);
	ck_assert_uint_gt(journal_seq(d->j), made.last);
	ck_assert_msg(quarantined(d) || !kept, "%s %zu: nothing in quarantine", what, at);
	expect_compared(d, s, what, at);
	jdir_close(d);
}

/* Another version wrote this: refused, and not a byte of it changed. */
static void expect_version(struct jdir *d, const char *what, size_t at)
{
	int err = jdir_try(d, &fast);
	ck_assert_msg(err == E_VERSION, "%s %zu: %s", what, at, err_text(err));
	ck_assert_ptr_null(d->j);
	ck_assert(!quarantined(d));
	ck_assert_int_eq(jdir_segments(d), 2);
}

/* Which record a place belongs to; the first for the header. */
static const struct place *record_at(int k, size_t off)
{
	const struct segment_image *s = &made.seg[k];
	for (int i = s->n - 1; i > 0; i--)
		if (s->v[i].off <= off)
			return &s->v[i];
	return &s->v[0];
}

/* Go through a segment: all of it but the inside of its large value, of which some. step: every so many bytes. */
static size_t next_offset(int k, size_t off, size_t step)
{
	const struct place *p = record_at(k, off);
	return p->len > 10000 && off > p->off + 200 && off + 5000 < p->off + p->len ? off + 4999 : off + step;
}

/* A recovery takes its time: all bytes with TANDEM_DAMAGE=all, else some of every field. */
static size_t recovery_step(void)
{
	return getenv("TANDEM_DAMAGE") ? 1 : 11;
}

/* --- tests --- */

static void flip_reader(struct jdir *d, int k)
{
	for (size_t off = 0; off < made.seg[k].used; off = next_offset(k, off, 1)) {
		jdir_flip(d, k, (off_t)off);
		expect_reader(d, record_at(k, off)->seq, off == 7 ? E_VERSION : E_CHECKSUM, "byte", off);
		jdir_flip(d, k, (off_t)off); /* back */
	}
}

START_TEST(reader_stops_before_any_flipped_byte)
{
	struct jdir d;
	make();
	jdir_make(&d);
	lay_out(&d);
	expect_reader(&d, made.last + 1, 0, "nothing", 0);
	flip_reader(&d, 0);
	flip_reader(&d, 1);
	expect_reader(&d, made.last + 1, 0, "nothing", 0);
	jdir_remove(&d);
}
END_TEST

START_TEST(recovery_finds_any_flipped_byte)
{
	struct jdir d;
	make();
	jdir_make(&d);
	for (int k = 0; k < 2; k++) {
		for (size_t off = 0; off < made.seg[k].used; off = next_offset(k, off, recovery_step())) {
			lay_out(&d);
			jdir_flip(&d, k, (off_t)off);
			if (off == 7)
				expect_version(&d, "byte", off);
			else
				expect_damaged(&d, record_at(k, off)->seq, true, k ? "open segment, byte" : "sealed segment, byte", off);
			clear(&d);
		}
	}
	jdir_remove(&d);
}
END_TEST

/* The head page has no checksum. What it says wrongly may cost a comparison, never a record. */
START_TEST(recovery_survives_any_flipped_byte_of_the_head_page)
{
	struct jdir d;
	make();
	jdir_make(&d);
	for (size_t off = 0; off < sizeof(struct jhead); off += off < offsetof(struct jhead, slots) ? 1 : recovery_step()) {
		lay_out(&d);
		int fd = openat(d.fd, JHEAD_NAME, O_RDWR | O_CLOEXEC);
		uint8_t c = made.head[off] ^ 0x5a;
		unsigned types[JT_LAST + 1];
		ck_assert_int_eq(pwrite(fd, &c, 1, (off_t)off), 1);
		close(fd);
		int err = jdir_try(&d, &fast);
		ck_assert_msg(err == 0 || (err == E_VERSION && off == 4), "byte %zu: %s", off, err_text(err));
		if (err == 0) {
			ck_assert_msg(d.start == JSTART_KILLED || d.start == JSTART_POWER || d.start == JSTART_DAMAGED, "byte %zu: start %d",
				      off, d.start);
			ck_assert_msg(journal_seq(d.j) >= made.last, "byte %zu", off);
			if (d.start == JSTART_DAMAGED)
				ck_assert_uint_gt(journal_seq(d.j), made.last);
			jdir_read(&d, types);
			jdir_close(&d);
			jdir_open(&d, &fast);
			ck_assert_msg(d.start == JSTART_CLEAN || d.start == JSTART_POWER, "byte %zu: then %d", off, d.start);
			jdir_close(&d);
		}
		clear(&d);
	}
	jdir_remove(&d);
}
END_TEST

/* The last record that is whole in the first n bytes of a segment, with or without zeros behind them; 0: none of it. */
static uint64_t whole(int k, size_t n, bool zeros)
{
	uint64_t seq = 0;
	for (int i = 0; i < made.seg[k].n; i++) {
		size_t end = made.seg[k].v[i].off + made.seg[k].v[i].len;
		while (zeros && !made.seg[k].data[end - 1])
			end--;
		if (end <= n)
			seq = made.seg[k].v[i].seq;
	}
	return seq;
}

START_TEST(segment_cut_to_any_length_is_damage)
{
	struct jdir d;
	make();
	jdir_make(&d);
	for (int k = 0; k < 2; k++) {
		for (size_t n = 0; n < made.seg[k].used; n = next_offset(k, n, recovery_step())) {
			uint64_t good = whole(k, n, false);
			lay_out(&d);
			put_segment(&d, k, made.seg[k].data, n);
			expect_reader(&d, made.seg[k].first, E_CHECKSUM, "cut to", n);
			expect_damaged(&d, good ? good + 1 : made.seg[k].first, n != 0 && n != JSEG_HEADER, "cut to", n);
			clear(&d);
		}
	}
	jdir_remove(&d);
}
END_TEST

/* The last record, a SEAL, of those that the COLLAPSED at the journal's beginning stands for. */
static uint64_t replaced(struct jdir *d)
{
	struct jreader *rd;
	struct jrec r;
	ck_assert_int_eq(jreader_open(&rd, d->fd), 0);
	ck_assert_int_eq(jreader_rewind(rd), 0);
	ck_assert_int_eq(jreader_next(rd, &r, NULL, NULL), 1);
	uint64_t to = r.type == JT_COLLAPSED ? r.to : 0;
	jrec_release(&r);
	jreader_close(rd);
	return to;
}

/* After a power failure the end of the open segment may be gone, wherever it broke off, and what was synced is there. */
START_TEST(after_a_boot_any_length_of_the_open_segment_is_cut_at_a_record)
{
	struct jdir d;
	make();
	jdir_make(&d);
	for (size_t n = JSEG_HEADER; n < made.seg[1].used; n += recovery_step()) {
		bool zeros = n % 2; /* the file has its length, the rest never got there */
		uint64_t good = whole(1, n, zeros) ? whole(1, n, zeros) : made.seg[1].first - 1;
		uint8_t torn[JSEG_SIZE_MIN] = {0};
		lay_out(&d);
		memcpy(torn, made.seg[1].data, n);
		put_segment(&d, 1, torn, zeros ? sizeof(torn) : n);
		jdir_reboot(&d);
		jdir_open(&d, &fast);
		uint64_t to = replaced(&d);
		ck_assert_msg(d.start == JSTART_POWER && to == good + 1, "cut to %zu: start %d, %llu", n, d.start,
			      (unsigned long long)to);
		ck_assert_uint_ne(d.since, 0);
		ck_assert(!quarantined(&d));
		jdir_close(&d);
		clear(&d);
	}
	jdir_remove(&d);
}
END_TEST

/* Give the bytes of a record a checksum that holds. */
static void record_seal(uint8_t *rec, uint32_t body)
{
	memset(rec + 32, 0, 8);
	uint64_t sum = XXH3_64bits(rec, JREC_HEADER + body);
	memcpy(rec + 32, &sum, 8);
}

/* A record of a kind that this version does not know, in the middle: nobody steps over it, nothing is changed. */
START_TEST(record_of_another_version_is_not_touched)
{
	struct jdir d;
	make();
	jdir_make(&d);
	for (int k = 0; k < 2; k++) {
		const struct place *p = &made.seg[k].v[made.seg[k].n / 2];
		uint8_t rec[1000], *copy = malloc(JSEG_SIZE_MIN);
		struct jrec_info i;
		lay_out(&d);
		memcpy(copy, made.seg[k].data, JSEG_SIZE_MIN);
		ck_assert_int_eq(jrec_peek(&i, copy + p->off, p->len), 0);
		memcpy(rec, copy + p->off, p->len);
		rec[4] = JT_LAST + 1;
		record_seal(rec, i.body);
		memcpy(copy + p->off, rec, p->len);
		put_segment(&d, k, copy, JSEG_SIZE_MIN);
		expect_reader(&d, p->seq, E_VERSION, "segment", (size_t)k);
		expect_version(&d, "segment", (size_t)k);
		free(copy);
		clear(&d);
	}
	jdir_remove(&d);
}
END_TEST

START_TEST(one_segment_in_place_of_the_other_is_damage)
{
	struct jdir d;
	make();
	jdir_make(&d);
	for (int how = 0; how < 5; how++) {
		char name[JSEG_NAME_LEN];
		lay_out(&d);
		if (how != 1) /* 0, 2, 4: the sealed one goes, or is another */
			put_segment(&d, 0, made.seg[1].data, JSEG_SIZE_MIN);
		if (how == 1 || how == 2)
			put_segment(&d, 1, made.seg[0].data, JSEG_SIZE_MIN);
		if (how == 3) {
			jseg_name(name, made.seg[1].first);
			ck_assert_int_eq(unlinkat(d.fd, name, 0), 0);
		}
		if (how == 4) { /* under a name that none has */
			lay_out(&d);
			jseg_name(name, made.seg[1].first + 1);
			put_file(&d, name, made.seg[1].data, JSEG_SIZE_MIN);
			jseg_name(name, made.seg[1].first);
			ck_assert_int_eq(unlinkat(d.fd, name, 0), 0);
		}
		expect_reader(&d, how == 1 || how == 4 ? made.seg[1].first : made.seg[0].first, how == 4 ? E_GAP : E_CHECKSUM, "way", (size_t)how);
		expect_damaged(&d, how == 1 || how == 4 ? made.seg[1].first : made.seg[0].first, true, "way", (size_t)how);
		clear(&d);
	}
	jdir_remove(&d);
}
END_TEST

/* The directory of another host, copied over ours: another id, so no standby takes its records for ours. */
START_TEST(journal_of_another_host_has_another_identity)
{
	struct jdir ours, theirs;
	make();
	jdir_make(&ours);
	lay_out(&ours);
	jdir_make(&theirs);
	jdir_die(&theirs, &fast, write_first);
	jdir_open(&theirs, &fast);
	jdir_open(&ours, &fast);
	ck_assert_mem_ne(journal_head(ours.j)->journal_id, journal_head(theirs.j)->journal_id, 16);
	jdir_close(&theirs);
	jdir_close(&ours);
	/* its head page alone: no segment belongs to it */
	char cmd[1200];
	snprintf(cmd, sizeof(cmd), "cp '%s/%s' '%s'", theirs.path, JHEAD_NAME, ours.path);
	clear(&ours);
	lay_out(&ours);
	ck_assert_int_eq(system(cmd), 0);
	jdir_open(&ours, &fast);
	ck_assert_int_eq(ours.start, JSTART_DAMAGED);
	ck_assert(quarantined(&ours));
	jdir_close(&ours);
	jdir_remove(&theirs);
	jdir_remove(&ours);
}
END_TEST

/* Sums that hold over values that counting never reaches. */
START_TEST(segment_header_beyond_its_limits_is_refused)
{
	static const struct jseg bad[] = {{.epoch = 1, .first_seq = 0, .size = JSEG_SIZE_MIN},
	    {.epoch = 1, .first_seq = JSEG_NUMBER_MAX, .size = JSEG_SIZE_MIN}, {.epoch = JSEG_NUMBER_MAX, .first_seq = 1, .size = JSEG_SIZE_MIN},
	    {.epoch = 1, .first_seq = 1, .size = JSEG_SIZE_MIN - 1}, {.epoch = 1, .first_seq = 1, .size = JSEG_SIZE_MAX + 1ull}};
	uint8_t bytes[JSEG_HEADER];
	struct jseg s;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		jseg_put(bytes, &bad[i]);
		ck_assert_int_eq(jseg_get(&s, bytes, sizeof(bytes)), E_LIMIT);
		ck_assert_int_eq(jseg_get(&s, bytes, sizeof(bytes) - 1), E_CHECKSUM);
	}
}
END_TEST

UNIT_MAIN("journal_damage", segment_header_beyond_its_limits_is_refused, reader_stops_before_any_flipped_byte, recovery_finds_any_flipped_byte,
	  recovery_survives_any_flipped_byte_of_the_head_page, segment_cut_to_any_length_is_damage,
	  after_a_boot_any_length_of_the_open_segment_is_cut_at_a_record, record_of_another_version_is_not_touched,
	  one_segment_in_place_of_the_other_is_damage, journal_of_another_host_has_another_identity)
