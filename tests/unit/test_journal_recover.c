/* SPDX-License-Identifier: BSD-2-Clause
 * Named states in which a journal directory may be found, and what the writer makes of them. */
#include "config.h"
#include "tests/unit/journals.h"

#define MANY 2000 /* records: several segments of the smallest size */

static void write_few(struct jdir *d)
{
	jdir_fill(d, 1, 10);
}

static void write_many(struct jdir *d)
{
	jdir_fill(d, 1, MANY);
}

static void write_synced(struct jdir *d)
{
	jdir_fill(d, 1, MANY);
	ck_assert_int_eq(journal_sync(d->j), 0);
}

/* Open, expect, append a record, close, and read everything. */
static void expect(struct jdir *d, enum journal_start want)
{
	unsigned types[JT_LAST + 1];
	jdir_open(d, NULL);
	ck_assert_int_eq(d->start, want);
	journal_recovered(d->j);
	ck_assert_int_eq(jdir_append(d, "after", 1), 0);
	uint64_t seq = journal_seq(d->j);
	jdir_close(d);
	ck_assert_uint_eq(jdir_read(d, types), seq);
	jdir_open(d, NULL);
	ck_assert_int_eq(d->start, JSTART_CLEAN);
	ck_assert_uint_eq(journal_seq(d->j), seq);
	jdir_close(d);
}

/* What is left of a journal after a power failure: first a COLLAPSED for all records up to last, then the comparison of f1 ... fN, and of them alone. */
static void expect_replaced(struct jdir *d, uint64_t last)
{
	struct jreader *rd;
	struct jrec r;
	bool found[MANY + 1] = {false};
	uint64_t n = 0;
	ck_assert_int_eq(d->start, JSTART_POWER);
	ck_assert_int_eq(jdir_segments(d), 1);
	ck_assert_int_eq(jreader_open(&rd, d->fd), 0);
	ck_assert_int_eq(jreader_rewind(rd), 0);
	ck_assert_int_eq(jreader_next(rd, &r, NULL, NULL), 1);
	ck_assert_int_eq(r.type, JT_COLLAPSED);
	ck_assert_uint_eq(r.size, 0); /* nobody may skip what follows */
	ck_assert_uint_eq(r.from, 1);
	ck_assert_uint_ge(r.to, last);
	while (jreader_next(rd, &r, NULL, NULL) == 1) {
		ck_assert_int_eq(r.type, JT_RECHECK);
		unsigned long k = *r.path ? strtoul(r.path + 1, NULL, 10) : 0;
		ck_assert(k == 0 || (k <= last && !found[k]));
		if (k)
			found[k] = true;
		n += k != 0;
		jrec_release(&r);
	}
	ck_assert_uint_eq(n, last);
	jreader_close(rd);
}

static void expect_damaged(struct jdir *d)
{
	struct jhead *h;
	ck_assert_int_eq(jhead_map(&h, d->fd, 0), 0);
	uint64_t epoch = h->epoch, seq = atomic_load(&h->committed_seq);
	jhead_unmap(h);
	jdir_open(d, NULL);
	ck_assert_int_eq(d->start, JSTART_DAMAGED);
	ck_assert_uint_gt(journal_head(d->j)->epoch, epoch);
	ck_assert_uint_gt(journal_seq(d->j), seq);
	/* Who stood at the end before the damage finds what stands for the missing. */
	struct jreader *r;
	struct jrec rec;
	ck_assert_int_eq(jreader_open(&r, d->fd), 0);
	uint64_t last = jdir_segment(d, -1);
	ck_assert_int_eq(jreader_seek(r, last - 2, NULL), E_COLLAPSED);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_int_eq(rec.type, JT_COLLAPSED);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_int_eq(rec.type, JT_RECHECK);
	ck_assert_str_eq(rec.path, "");
	ck_assert_uint_ne(rec.flags & JF_RECURSIVE, 0);
	jreader_close(r);
	seq = journal_seq(d->j);
	journal_recovered(d->j);
	jdir_close(d);
	jdir_open(d, NULL);
	ck_assert_int_eq(d->start, JSTART_CLEAN);
	ck_assert_uint_eq(journal_seq(d->j), seq);
	jdir_close(d);
}

START_TEST(empty_directory_is_new)
{
	struct jdir d;
	jdir_make(&d);
	expect(&d, JSTART_NEW);
	jdir_remove(&d);
}
END_TEST

START_TEST(closed_is_clean)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, NULL);
	write_many(&d);
	jdir_close(&d);
	expect(&d, JSTART_CLEAN);
	jdir_reboot(&d);
	expect(&d, JSTART_CLEAN);
	jdir_remove(&d);
}
END_TEST

START_TEST(killed_keeps_every_record)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	expect(&d, JSTART_KILLED);
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_CREATE], MANY + 1);
	jdir_remove(&d);
}
END_TEST

START_TEST(record_in_the_making_is_cut)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	/* the magic and half a header, as an append leaves them that was killed */
	jdir_poke(&d, 0, JSEG_HEADER + 10 * 96, "TJR1\1\0\0\0\140\0\0\0\60\0\0\0", 16);
	expect(&d, JSTART_KILLED);
	jdir_remove(&d);
}
END_TEST

START_TEST(complete_record_not_yet_published_is_kept)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	struct jhead *h;
	ck_assert_int_eq(jhead_map(&h, d.fd, 0), 0);
	atomic_fetch_sub(&h->committed_seq, 1);
	jhead_unmap(h);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_KILLED);
	ck_assert_uint_eq(journal_seq(d.j), 10);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(torn_tail_after_a_boot_is_cut)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	jdir_reboot(&d);
	jdir_flip(&d, 0, JSEG_HEADER + 9 * 96 + 50);
	jdir_open(&d, NULL);
	expect_replaced(&d, 9);
	ck_assert_uint_eq(d.since, 1);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(mounted_again_is_as_a_boot)
{
	struct jdir d;
	struct jhead *h;
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	ck_assert_int_eq(jhead_map(&h, d.fd, 0), 0);
	bool known = h->mount_id; /* the kernel tells */
	h->mount_id += known;
	jhead_unmap(h);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, known ? JSTART_POWER : JSTART_KILLED);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(zero_page_before_the_tail_after_a_boot_is_cut)
{
	struct jdir d;
	uint8_t zeros[4096] = {0};
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	jdir_reboot(&d);
	struct jhead
	    *h; /* what was never synced may be gone; here the background had synced the first segments */
	ck_assert_int_eq(jhead_map(&h, d.fd, 0), 0);
	atomic_store(&h->synced_seq, 100);
	jhead_unmap(h);
	jdir_poke(&d, 1, 8192, zeros, sizeof(zeros));
	uint64_t first = jdir_segment(&d, 1);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_POWER);
	ck_assert_int_eq(jdir_segments(&d), 1);
	ck_assert_uint_gt(jdir_segment(&d, 0), first);
	journal_recovered(d.j);
	jdir_close(&d);
	expect(&d, JSTART_CLEAN);
	jdir_remove(&d);
}
END_TEST

START_TEST(power_failure_is_said_until_it_is_dealt_with)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	jdir_reboot(&d);
	jdir_die(&d, NULL, write_few); /* begins to recover, is killed */
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_POWER);
	journal_recovered(d.j);
	jdir_close(&d);
	expect(&d, JSTART_CLEAN);
	jdir_remove(&d);
}
END_TEST

static void write_renamed(struct jdir *d)
{
	struct jrec r;
	jrec_init(&r, JT_RENAME);
	r.path = "from";
	r.path2 = "to";
	r.mode = S_IFDIR;
	r.flags = JF_DIR;
	ck_assert_int_eq(journal_append(d->j, &r), 0);
}

START_TEST(directory_whose_rename_may_be_lost_is_rechecked_under_both_names)
{
	struct jdir d;
	struct jreader *rd;
	struct jrec r;
	int n = 0;
	jdir_make(&d);
	jdir_die(&d, NULL, write_renamed);
	jdir_reboot(&d);
	jdir_open(&d, NULL);
	ck_assert_int_eq(jreader_open(&rd, d.fd), 0);
	ck_assert_int_eq(jreader_rewind(rd), 0);
	while (jreader_next(rd, &r, NULL, NULL) == 1) {
		n += r.type == JT_RECHECK && (r.flags & JF_RECURSIVE) && (strcmp(r.path, "from") == 0 || strcmp(r.path, "to") == 0);
		jrec_release(&r);
	}
	ck_assert_int_eq(n, 2);
	jreader_close(rd);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

static void write_reclaimed(struct jdir *d)
{
	jdir_fill(d, 1, MANY);
	ck_assert_int_eq(journal_checkpoint(d->j, 5, 1000), 0);
	segment_reclaim(d->j, journal_seq(d->j));
}

START_TEST(reclaimed_records_that_the_source_may_have_lost_make_everything_be_compared)
{
	struct jdir d;
	struct jreader *rd;
	struct jrec r;
	jdir_make(&d);
	jdir_die(&d, NULL, write_reclaimed);
	jdir_reboot(&d);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_POWER);
	ck_assert_uint_eq(d.since, 1000);
	ck_assert_int_eq(jreader_open(&rd, d.fd), 0);
	ck_assert_int_eq(jreader_rewind(rd), 0);
	ck_assert_int_eq(jreader_next(rd, &r, NULL, NULL), 1);
	ck_assert_int_eq(r.type, JT_COLLAPSED);
	ck_assert_int_eq(jreader_next(rd, &r, NULL, NULL), 1);
	ck_assert_str_eq(r.path, "");
	ck_assert_uint_ne(r.flags & JF_RECURSIVE, 0);
	jrec_release(&r);
	jreader_close(rd);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(synced_records_gone_after_a_boot_are_damage)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_synced);
	jdir_reboot(&d);
	jdir_flip(&d, 1, 5000);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(flip_in_the_middle_is_damage)
{
	struct jdir d;
	struct stat st;
	char q[512];
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	int n = jdir_segments(&d);
	jdir_flip(&d, 1, 5000);
	expect_damaged(&d);
	ck_assert_int_eq(jdir_segments(&d), 2);
	ck_assert_int_gt(n, 2);
	snprintf(q, sizeof(q), "%s/%s", d.path, JOURNAL_QUARANTINE);
	ck_assert_int_eq(stat(q, &st), 0);
	jdir_remove(&d);
}
END_TEST

START_TEST(flip_in_the_open_segment_is_damage_when_the_host_did_not_boot)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	jdir_flip(&d, 0, JSEG_HEADER + 5 * 96 + 50);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(zeroed_tail_is_damage_when_the_host_did_not_boot)
{
	struct jdir d;
	uint8_t zeros[4096] = {0};
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	jdir_poke(&d, 0, JSEG_HEADER + 5 * 96, zeros, sizeof(zeros));
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(missing_segment_is_damage)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	ck_assert_int_eq(unlink(jdir_file(&d, 1)), 0);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(missing_last_segment_is_damage)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	ck_assert_int_eq(unlink(jdir_file(&d, -1)), 0);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(missing_first_segment_was_reclaimed)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	ck_assert_int_eq(unlink(jdir_file(&d, 0)), 0);
	expect(&d, JSTART_KILLED);
	jdir_remove(&d);
}
END_TEST

START_TEST(head_without_segments_is_damage)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	while (jdir_segments(&d))
		ck_assert_int_eq(unlink(jdir_file(&d, 0)), 0);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(exchanged_segments_are_damage)
{
	struct jdir d;
	char a[512], b[512];
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	snprintf(a, sizeof(a), "%s", jdir_file(&d, 0));
	snprintf(b, sizeof(b), "%s", jdir_file(&d, 1));
	ck_assert_int_eq(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE), 0);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(truncated_segment_is_damage)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	ck_assert_int_eq(truncate(jdir_file(&d, 1), 10000), 0);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(empty_file_in_place_of_a_segment_is_damage)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	ck_assert_int_eq(truncate(jdir_file(&d, -1), 0), 0);
	expect_damaged(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(segment_of_another_journal_is_damage)
{
	struct jdir d, e;
	char cmd[1200];
	jdir_make(&d);
	jdir_make(&e);
	jdir_die(&d, NULL, write_many);
	jdir_die(&e, NULL, write_many);
	snprintf(cmd, sizeof(cmd), "cp '%s' '%s'", jdir_file(&e, 1), d.path);
	ck_assert_int_eq(system(cmd), 0);
	expect_damaged(&d);
	jdir_remove(&d);
	jdir_remove(&e);
}
END_TEST

START_TEST(head_missing_is_made_again)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	uint64_t epoch, seq;
	struct jhead *h;
	ck_assert_int_eq(jhead_map(&h, d.fd, 0), 0);
	epoch = h->epoch;
	seq = atomic_load(&h->committed_seq);
	jhead_unmap(h);
	ck_assert_int_eq(unlinkat(d.fd, JHEAD_NAME, 0), 0);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_POWER);
	ck_assert_uint_eq(journal_head(d.j)->epoch, epoch);
	ck_assert_uint_gt(journal_seq(d.j), seq);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(head_of_zeros_is_made_again)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	int fd = openat(d.fd, JHEAD_NAME, O_WRONLY | O_TRUNC);
	close(fd);
	expect(&d, JSTART_POWER);
	jdir_remove(&d);
}
END_TEST

START_TEST(head_missing_and_a_bad_middle_is_damage)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	ck_assert_int_eq(unlinkat(d.fd, JHEAD_NAME, 0), 0);
	jdir_flip(&d, 1, 5000);
	expect(&d, JSTART_DAMAGED);
	jdir_remove(&d);
}
END_TEST

/* The names and bytes of everything in the directory, as one sum. */
static uint64_t fingerprint(struct jdir *d)
{
	char cmd[600];
	unsigned long long v = 0;
	snprintf(cmd, sizeof(cmd), "cd '%s' && find . -type f | sort | xargs cat | cksum | cut -d' ' -f1",
		 d->path);
	FILE *p = popen(cmd, "r");
	ck_assert_int_eq(fscanf(p, "%llu", &v), 1);
	pclose(p);
	return v;
}

static void expect_version(struct jdir *d)
{
	uint64_t before = fingerprint(d);
	ck_assert_int_eq(jdir_try(d, NULL), E_VERSION);
	ck_assert_ptr_null(d->j);
	ck_assert_uint_eq(fingerprint(d), before);
}

START_TEST(segment_of_another_version_is_not_touched)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	jdir_poke(&d, 1, 7, "\2", 1);
	expect_version(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(head_of_another_version_is_not_touched)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_many);
	int fd = openat(d.fd, JHEAD_NAME, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "2", 1, 4), 1);
	close(fd);
	expect_version(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(switch_cut_short_is_undone)
{
	struct jdir d;
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	/* the next segment has its header and name, the SEAL before it was not written */
	struct jseg h = {.epoch = 1, .first_seq = 12, .chain = 1, .size = JSEG_SIZE_MIN};
	struct jhead *head;
	uint8_t bytes[JSEG_HEADER];
	char name[JSEG_NAME_LEN];
	ck_assert_int_eq(jhead_map(&head, d.fd, 0), 0);
	memcpy(h.journal_id, head->journal_id, 16);
	jhead_unmap(head);
	jseg_put(bytes, &h);
	jseg_name(name, 12);
	int fd = openat(d.fd, name, O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(ftruncate(fd, JSEG_SIZE_MIN), 0);
	ck_assert_int_eq(pwrite(fd, bytes, sizeof(bytes), 0), JSEG_HEADER);
	close(fd);
	expect(&d, JSTART_KILLED);
	ck_assert_int_eq(jdir_segments(&d), 1);
	jdir_remove(&d);
}
END_TEST

START_TEST(second_writer_is_refused)
{
	struct jdir d, e;
	jdir_make(&d);
	jdir_open(&d, NULL);
	e = d;
	ck_assert_int_eq(jdir_try(&e, NULL), -EBUSY);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(a_copy_of_the_descriptor_does_not_hold_the_lock)
{
	struct jdir d;
	jdir_make(&d);
	int copy = dup(d.fd);
	jdir_die(&d, NULL, write_few);
	expect(&d, JSTART_KILLED);
	close(copy);
	jdir_remove(&d);
}
END_TEST

START_TEST(dying_degraded_rechecks_everything)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	struct jhead *h;
	ck_assert_int_eq(jhead_map(&h, d.fd, 0), 0);
	atomic_store(&h->degraded, 1);
	jhead_unmap(h);
	expect(&d, JSTART_DAMAGED);
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_RECHECK], 1);
	jdir_remove(&d);
}
END_TEST

/* Every byte of a small journal, one after the other: it opens, says what it found, and can be read. */
START_TEST(any_flipped_byte_is_survived)
{
	struct jdir d;
	char cmd[1024], saved[300];
	jdir_make(&d);
	jdir_die(&d, NULL, write_few);
	snprintf(saved, sizeof(saved), "%s.saved", d.path);
	snprintf(cmd, sizeof(cmd), "cp -a '%s' '%s'", d.path, saved);
	ck_assert_int_eq(system(cmd), 0);
	for (off_t off = 0; off < JSEG_HEADER + 12 * 96; off += 37) {
		unsigned types[JT_LAST + 1];
		snprintf(cmd, sizeof(cmd), "rm -rf '%s'/* && cp -a '%s'/. '%s'", d.path, saved, d.path);
		ck_assert_int_eq(system(cmd), 0);
		jdir_flip(&d, 0, off);
		int err = jdir_try(&d, NULL);
		ck_assert(err == 0 || (err == E_VERSION && off == 7));
		if (err)
			continue;
		ck_assert_msg(d.start == JSTART_DAMAGED || off >= JSEG_HEADER + 10 * 96, "offset %d",
			      (int)off);
		jdir_close(&d);
		jdir_read(&d, types);
	}
	unit_remove(saved);
	jdir_remove(&d);
}
END_TEST

/* Without assertions of the framework: two threads would write its messages at once, and be killed in the middle of one. */
static void *append_forever(void *arg)
{
	char path[64];
	for (uint64_t i = 1;; i++) {
		snprintf(path, sizeof(path), "f%llu", (unsigned long long)i);
		if (jdir_append(arg, path, i))
			_exit(1);
	}
	return NULL;
}

static void write_a_while(struct jdir *d)
{
	pthread_t t[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, append_forever, d);
	nanosleep(&(struct timespec){.tv_nsec = 1000000 + random() % 20000000}, NULL);
}

START_TEST(killed_at_any_moment_leaves_a_prefix)
{
	struct jdir d;
	uint64_t last = 0;
	jdir_make(&d);
	jdir_open(&d, NULL);
	ck_assert_int_eq(jdir_append(&d, "first", 1), 0); /* a journal without any is new, whoever was killed */
	jdir_close(&d);
	for (int i = 0; i < 20; i++) {
		unsigned types[JT_LAST + 1];
		srandom((unsigned)i);
		jdir_die(&d, NULL, write_a_while);
		uint64_t now = jdir_read(&d, types); /* published records can be read before any recovery */
		ck_assert_uint_ge(now, last);
		jdir_open(&d, NULL);
		ck_assert_int_eq(d.start, JSTART_KILLED);
		ck_assert_uint_ge(journal_seq(d.j), now);
		last = jdir_read(&d, types);
		jdir_close(&d);
	}
	jdir_remove(&d);
}
END_TEST

UNIT_MAIN("journal_recover", empty_directory_is_new, closed_is_clean, killed_keeps_every_record,
	  record_in_the_making_is_cut, complete_record_not_yet_published_is_kept,
	  torn_tail_after_a_boot_is_cut, mounted_again_is_as_a_boot, zero_page_before_the_tail_after_a_boot_is_cut,
	  power_failure_is_said_until_it_is_dealt_with, directory_whose_rename_may_be_lost_is_rechecked_under_both_names,
	  reclaimed_records_that_the_source_may_have_lost_make_everything_be_compared,
	  synced_records_gone_after_a_boot_are_damage,
	  flip_in_the_middle_is_damage, flip_in_the_open_segment_is_damage_when_the_host_did_not_boot,
	  zeroed_tail_is_damage_when_the_host_did_not_boot, missing_segment_is_damage,
	  missing_last_segment_is_damage, missing_first_segment_was_reclaimed,
	  head_without_segments_is_damage, exchanged_segments_are_damage, truncated_segment_is_damage,
	  empty_file_in_place_of_a_segment_is_damage, segment_of_another_journal_is_damage,
	  head_missing_is_made_again, head_of_zeros_is_made_again, head_missing_and_a_bad_middle_is_damage,
	  segment_of_another_version_is_not_touched, head_of_another_version_is_not_touched,
	  switch_cut_short_is_undone, second_writer_is_refused,
	  a_copy_of_the_descriptor_does_not_hold_the_lock, dying_degraded_rechecks_everything,
	  any_flipped_byte_is_survived, killed_at_any_moment_leaves_a_prefix)
