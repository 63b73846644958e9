/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "tests/unit/journals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>

#define MANY 3000

static struct jreader *reader(struct jdir *d)
{
	struct jreader *r;
	ck_assert_int_eq(jreader_open(&r, d->fd), 0);
	return r;
}

/* Read the next record and release it; returns its inode number, 0 when there is none. */
static uint64_t next_ino(struct jreader *r)
{
	struct jrec rec;
	int got;
	while ((got = jreader_next(r, &rec, NULL, NULL)) == 1) {
		jrec_release(&rec);
		if (rec.ino)
			return rec.ino;
	}
	ck_assert_int_eq(got, 0);
	return 0;
}

static void make_many(struct jdir *d)
{
	jdir_make(d);
	jdir_open(d, NULL);
	jdir_fill(d, 1, MANY);
}

static void done(struct jdir *d, struct jreader *r)
{
	jreader_close(r);
	jdir_close(d);
	jdir_remove(d);
}

START_TEST(no_journal_is_an_error)
{
	struct jdir d;
	struct jreader *r;
	jdir_make(&d);
	ck_assert_int_eq(jreader_open(&r, d.fd), -ENOENT);
	ck_assert_ptr_null(r);
	jdir_remove(&d);
}
END_TEST

START_TEST(records_come_in_order_across_segments)
{
	struct jdir d;
	make_many(&d);
	struct jreader *r = reader(&d);
	ck_assert_int_eq(jreader_seek(r, 0, NULL), 0);
	for (uint64_t i = 1; i <= MANY; i++)
		ck_assert_uint_eq(next_ino(r), i);
	ck_assert_uint_eq(next_ino(r), 0);
	jdir_fill(&d, 7777, 1);
	ck_assert_uint_eq(next_ino(r), 7777);
	done(&d, r);
}
END_TEST

START_TEST(seek_to_every_sequence_gives_the_digest_of_reading)
{
	struct jdir d;
	struct jrec rec;
	make_many(&d);
	struct jreader *r = reader(&d), *s = reader(&d);
	ck_assert_int_eq(jreader_seek(r, 0, NULL), 0);
	for (uint64_t seq = 0;; seq++) {
		uint64_t digest;
		ck_assert_uint_eq(jreader_seq(r), seq);
		if (seq % 50 == 0 || seq > MANY) {
			ck_assert_int_eq(jreader_seek(s, seq, &digest), 0);
			ck_assert_uint_eq(digest, jreader_digest(r));
			ck_assert_uint_eq(jreader_seq(s), seq);
		}
		int got = jreader_next(r, &rec, NULL, NULL);
		if (!got)
			break;
		ck_assert_int_eq(got, 1);
		jrec_release(&rec);
	}
	jreader_close(s);
	done(&d, r);
}
END_TEST

START_TEST(raw_bytes_decode_to_the_record)
{
	struct jdir d;
	struct jrec rec, again;
	const void *raw;
	size_t len, used;
	make_many(&d);
	struct jreader *r = reader(&d);
	ck_assert_int_eq(jreader_seek(r, 0, NULL), 0);
	while (jreader_next(r, &rec, &raw, &len) == 1) {
		ck_assert_int_eq(jrec_get(&again, raw, len, &used), 0);
		ck_assert_uint_eq(again.seq, rec.seq);
		jrec_release(&again);
		jrec_release(&rec);
	}
	done(&d, r);
}
END_TEST

START_TEST(beyond_the_end_is_a_gap)
{
	struct jdir d;
	make_many(&d);
	struct jreader *r = reader(&d);
	ck_assert_int_eq(jreader_seek(r, journal_seq(d.j) + 1, NULL), E_GAP);
	ck_assert_int_eq(jreader_seek(r, journal_seq(d.j), NULL), 0);
	ck_assert_uint_eq(next_ino(r), 0);
	done(&d, r);
}
END_TEST

START_TEST(reclaimed_is_a_gap)
{
	struct jdir d;
	make_many(&d);
	struct jreader *r = reader(&d), *s = reader(&d);
	uint64_t second = jdir_segment(&d, 1);
	ck_assert_int_eq(jreader_seek(s, 0, NULL), 0); /* has the first segment mapped */
	ck_assert_int_eq(unlink(jdir_file(&d, 0)), 0);
	ck_assert_int_eq(unlink(jdir_file(&d, 0)), 0);
	ck_assert_int_eq(jreader_seek(r, 5, NULL), E_GAP);
	struct jrec rec;
	int got;
	while ((got = jreader_next(s, &rec, NULL, NULL)) == 1)
		jrec_release(&rec);
	ck_assert_int_eq(got, E_GAP);
	ck_assert_uint_eq(jreader_seq(s), second - 1);
	jreader_close(s);
	done(&d, r);
}
END_TEST

START_TEST(damage_is_a_checksum_error_and_stays)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, NULL);
	jdir_fill(&d, 1, 10);
	jdir_flip(&d, 0, JSEG_HEADER + 5 * 96 + 50);
	struct jreader *r = reader(&d);
	struct jrec rec;
	ck_assert_int_eq(jreader_seek(r, 5, NULL), 0);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), E_CHECKSUM);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), E_CHECKSUM);
	ck_assert_int_eq(jreader_seek(r, 8, NULL), E_CHECKSUM);
	done(&d, r);
}
END_TEST

START_TEST(new_epoch_is_a_gap)
{
	struct jdir d;
	struct jrec rec;
	make_many(&d);
	struct jreader *r = reader(&d);
	ck_assert_int_eq(jreader_seek(r, 0, NULL), 0);
	jdir_close(&d);
	jdir_flip(&d, 1, 5000);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_DAMAGED);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), E_GAP);
	done(&d, r);
}
END_TEST

START_TEST(seek_time_finds_the_first_record_since)
{
	struct jdir d;
	struct jrec rec;
	make_many(&d);
	struct jreader *r = reader(&d);
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	uint64_t seq = journal_seq(d.j);
	jdir_fill(&d, 1, 5);
	ck_assert_int_eq(jreader_seek_time(r, (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec), 0);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_uint_eq(rec.seq, seq + 1);
	ck_assert_int_eq(jreader_seek_time(r, 0), 0);
	ck_assert_uint_eq(jreader_seq(r), 0);
	done(&d, r);
}
END_TEST

START_TEST(works_without_a_writer)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	make_many(&d);
	jdir_close(&d);
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_CREATE], MANY);
	jdir_remove(&d);
}
END_TEST

#define WRITERS 3
#define EACH	20000

static void *write_some(void *arg)
{
	struct jdir *d = arg;
	for (uint64_t i = 1; i <= EACH; i++)
		ck_assert_int_eq(jdir_append(d, "file", i), 0);
	return NULL;
}

/* Read until total records with an inode came, sleeping on the doorbell as the replicator does. */
static uint64_t read_sleeping(struct jdir *d, uint64_t total)
{
	int efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int slot = journal_listen(d->j, dup(efd));
	struct jreader *r = reader(d);
	struct jrec rec;
	uint64_t seen = 0, seq = 0, sleeps = 0, ring;
	ck_assert_int_eq(jreader_seek(r, 0, NULL), 0);
	while (seen < total) {
		int got = jreader_next(r, &rec, NULL, NULL);
		ck_assert_int_ge(got, 0);
		if (got) {
			ck_assert_uint_eq(rec.seq, ++seq);
			seen += rec.ino != 0;
			jrec_release(&rec);
			continue;
		}
		atomic_store(&jreader_head(r)->slots[slot].sleeping, 1);
		if (atomic_load(&jreader_head(r)->committed_seq) > jreader_seq(r))
			continue;
		struct pollfd p = {.fd = efd, .events = POLLIN};
		ck_assert_msg(poll(&p, 1, 20000) == 1, "the bell did not ring");
		ck_assert_int_eq(read(efd, &ring, sizeof(ring)), sizeof(ring));
		sleeps++;
	}
	journal_unlisten(d->j, slot);
	close(efd);
	jreader_close(r);
	return sleeps;
}

START_TEST(every_record_is_seen_once_in_order_while_it_is_written)
{
	struct jdir d;
	pthread_t t[WRITERS];
	jdir_make(&d);
	jdir_open(&d, NULL);
	for (int i = 0; i < WRITERS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, write_some, &d), 0);
	read_sleeping(&d, WRITERS * EACH);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(t[i], NULL);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

static void *write_slowly(void *arg)
{
	struct jdir *d = arg;
	for (uint64_t i = 1; i <= 2000; i++) {
		ck_assert_int_eq(jdir_append(d, "file", i), 0);
		if (i % 3 == 0)
			sched_yield();
	}
	return NULL;
}

START_TEST(the_bell_wakes_a_sleeping_reader)
{
	struct jdir d;
	pthread_t t;
	jdir_make(&d);
	jdir_open(&d, NULL);
	ck_assert_int_eq(pthread_create(&t, NULL, write_slowly, &d), 0);
	read_sleeping(&d, 2000);
	pthread_join(t, NULL);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

/* Its disk failed: here because the file was cut. */
START_TEST(a_head_page_that_takes_no_store_is_said)
{
	struct jdir d;
	char head[300];
	make_many(&d);
	jdir_close(&d);
	struct jreader *r = reader(&d);
	snprintf(head, sizeof(head), "%s/" JHEAD_NAME, d.path);
	ck_assert(jhead_sleep(jreader_head(r), 1));
	ck_assert(jhead_wake(jreader_head(r), 1));
	ck_assert_int_eq(truncate(head, 0), 0);
	ck_assert(!jhead_sleep(jreader_head(r), 1));
	jhead_reclaim(jreader_head(r), 7);
	ck_assert_int_eq(truncate(head, JHEAD_SIZE), 0);
	ck_assert_uint_eq(atomic_load(&jreader_head(r)->reclaim_seq), 0);
	ck_assert(jhead_sleep(jreader_head(r), 1));
	jhead_reclaim(jreader_head(r), 7);
	ck_assert_uint_eq(atomic_load(&jreader_head(r)->reclaim_seq), 7);
	done(&d, r);
}
END_TEST

START_TEST(a_head_page_on_a_read_only_file_system_is_read)
{
	struct jdir d;
	make_many(&d);
	jdir_close(&d);
	if (!mount(d.path, d.path, NULL, MS_BIND, NULL)) { /* who may not mount does not see it */
		ck_assert_int_eq(mount(NULL, d.path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
		close(d.fd);
		d.fd = open(d.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct jreader *r = reader(&d);
		ck_assert(!jhead_sleep(jreader_head(r), 1));
		ck_assert(jhead_wake(jreader_head(r), 1));
		jhead_reclaim(jreader_head(r), 7);
		ck_assert_uint_eq(next_ino(r), 1);
		jreader_close(r);
		close(d.fd);
		ck_assert_int_eq(umount2(d.path, MNT_DETACH), 0);
		d.fd = open(d.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	jdir_remove(&d);
}
END_TEST

UNIT_MAIN("jreader", no_journal_is_an_error, records_come_in_order_across_segments,
	  seek_to_every_sequence_gives_the_digest_of_reading, raw_bytes_decode_to_the_record,
	  beyond_the_end_is_a_gap, reclaimed_is_a_gap, damage_is_a_checksum_error_and_stays,
	  new_epoch_is_a_gap, seek_time_finds_the_first_record_since, works_without_a_writer,
	  every_record_is_seen_once_in_order_while_it_is_written, the_bell_wakes_a_sleeping_reader,
	  a_head_page_that_takes_no_store_is_said, a_head_page_on_a_read_only_file_system_is_read)
