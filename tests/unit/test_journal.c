/* SPDX-License-Identifier: BSD-2-Clause
 * The writer at work: limits, a full disk, failing fsync, group commit. */
#include "config.h"
#include "tests/unit/journals.h"

#include <dirent.h>
#include <sys/mount.h>

START_TEST(append_sets_sequence_and_time)
{
	struct jdir d;
	struct jrec r;
	jdir_make(&d);
	jdir_open(&d, NULL);
	for (uint64_t i = 1; i < 4; i++) {
		jrec_init(&r, JT_RMDIR);
		r.path = "d";
		ck_assert_int_eq(journal_append(d.j, &r), 0);
		ck_assert_uint_eq(r.seq, i);
		ck_assert_uint_ne(r.time_ns, 0);
		ck_assert_uint_eq(journal_seq(d.j), i);
	}
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(a_record_without_a_valid_path_becomes_a_comparison)
{
	struct jdir d;
	struct jreader *r;
	struct jrec rec;
	jdir_make(&d);
	jdir_open(&d, NULL);
	ck_assert_int_eq(jdir_append(&d, "good/bad//name", 1), 0);
	ck_assert_int_eq(jreader_open(&r, d.fd), 0);
	ck_assert_int_eq(jreader_seek(r, 0, NULL), 0);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_int_eq(rec.type, JT_RECHECK);
	ck_assert_str_eq(rec.path, "good/bad");
	ck_assert_uint_eq(rec.flags, JF_RECURSIVE);
	jreader_close(r);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(content_too_large_for_a_segment_becomes_one_range)
{
	struct jdir d;
	struct jreader *r;
	struct jrec rec;
	jdir_make(&d);
	jdir_open(&d, NULL); /* a set of 4096 ranges is as large as the smallest segment */
	jrec_init(&rec, JT_CONTENT);
	rec.path = "f";
	for (uint64_t i = 0; i < EXTENT_SET_MAX; i++)
		extent_add(&rec.extents, i * 10, i * 10 + 5);
	ck_assert_uint_eq(rec.extents.n, EXTENT_SET_MAX);
	ck_assert_int_eq(journal_append(d.j, &rec), 0);
	jrec_release(&rec);
	ck_assert_int_eq(jreader_open(&r, d.fd), 0);
	ck_assert_int_eq(jreader_seek(r, 0, NULL), 0);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_uint_eq(rec.extents.n, 1);
	ck_assert_uint_eq(rec.extents.v[0].start, 0);
	ck_assert_uint_eq(rec.extents.v[0].end, 10 * EXTENT_SET_MAX - 5);
	jrec_release(&rec);
	jreader_close(r);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

static bool one_segment_left(void *arg)
{
	return jdir_segments(arg) == 1;
}

START_TEST(acknowledged_segments_are_unlinked)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, NULL);
	jdir_fill(&d, 1, 3000);
	ck_assert_int_gt(jdir_segments(&d), 2);
	struct jhead *h = journal_head(d.j);
	ck_assert_uint_eq(atomic_load(&h->first_seq), 1);
	atomic_store(&h->reclaim_seq, journal_seq(d.j));
	ck_assert(wait_until(one_segment_left, &d));
	ck_assert_uint_eq(atomic_load(&h->first_seq), jdir_segment(&d, 0));
	ck_assert_uint_le(atomic_load(&h->bytes), 2 * JSEG_SIZE_MIN);
	jdir_fill(&d, 1, 3000);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

static bool was_collapsed(void *arg)
{
	struct jdir *d = arg;
	pthread_mutex_lock(&d->j->lock);
	uint64_t to = d->j->collapsed_to;
	pthread_mutex_unlock(&d->j->lock);
	return atomic_load(&journal_head(d->j)->collapsed) && jdir_segment(d, 0) == to + 1;
}

static bool collapse_is_over(void *arg)
{
	struct jdir *d = arg;
	return !atomic_load(&journal_head(d->j)->collapsed);
}

static const struct journal_options limited = {.limit = 8 * JSEG_SIZE_MIN, .segment_size = JSEG_SIZE_MIN};

START_TEST(at_the_limit_the_journal_collapses)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	jdir_make(&d);
	jdir_open(&d, &limited);
	for (int i = 0; i < 8000; i++) {
		char path[64];
		snprintf(path, sizeof(path), "dir%d/f%d", i % 3, i % 100);
		ck_assert_int_eq(jdir_append(&d, path, 1), 0);
	}
	ck_assert(wait_until(was_collapsed, &d));
	struct jreader *r;
	struct jrec rec;
	ck_assert_int_eq(jreader_open(&r, d.fd), 0);
	ck_assert_int_eq(jreader_seek(r, 1, NULL), E_COLLAPSED);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_int_eq(rec.type, JT_COLLAPSED);
	ck_assert_uint_eq(rec.from, 1);
	ck_assert_uint_eq(rec.to, rec.seq - 1);
	/* 300 files and their 3 directories, wherever in the range they were touched */
	ck_assert_uint_eq(rec.size, 303);
	ck_assert_int_eq(jreader_seek(r, rec.to, NULL), 0);
	jreader_close(r);
	jdir_read(&d, types);
	ck_assert_uint_ge(types[JT_RECHECK], 303);
	jdir_close(&d);
	jdir_open(&d, &limited);
	ck_assert_int_eq(d.start, JSTART_CLEAN);
	ck_assert(atomic_load(&journal_head(d.j)->collapsed));
	atomic_store(&journal_head(d.j)->reclaim_seq, journal_seq(d.j));
	ck_assert(wait_until(collapse_is_over, &d));
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(a_second_collapse_covers_the_first)
{
	struct jdir d;
	struct jreader *r;
	struct jrec rec;
	jdir_make(&d);
	jdir_open(&d, &limited);
	jdir_append(&d, "early", 1);
	for (int round = 0; round < 3; round++) {
		atomic_store(&journal_head(d.j)->collapsed, 0);
		for (int i = 0; i < 12000; i++)
			ck_assert_int_eq(jdir_append(&d, "again", 1), 0);
		ck_assert(wait_until(was_collapsed, &d));
	}
	ck_assert_int_eq(jreader_open(&r, d.fd), 0);
	ck_assert_int_eq(jreader_seek(r, 1, NULL), E_COLLAPSED);
	ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
	ck_assert_uint_eq(rec.from, 1);
	ck_assert_uint_eq(rec.size, 3); /* the root for its times, again, early */
	jreader_close(r);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

struct storm {
	struct jdir *d;
	_Atomic int stop;
};

static void *rename_storm(void *arg)
{
	struct storm *s = arg;
	for (int i = 0; !atomic_load(&s->stop); i++) {
		struct jrec r;
		char a[32], b[32];
		snprintf(a, sizeof(a), "d%d", i);
		snprintf(b, sizeof(b), "d%d", i + 1);
		jrec_init(&r, JT_RENAME);
		r.path = a;
		r.path2 = b;
		r.flags = JF_DIR;
		r.mode = S_IFDIR | 0755;
		ck_assert_int_eq(journal_append(s->d->j, &r), 0);
	}
	return NULL;
}

/* Read the journal's first record; false while its first segments are being removed. */
static bool first_record(struct jdir *d, struct jrec *rec)
{
	struct jreader *r;
	ck_assert_int_eq(jreader_open(&r, d->fd), 0);
	bool got = jreader_rewind(r) == 0 && jreader_next(r, rec, NULL, NULL) == 1;
	jreader_close(r);
	return got;
}

static bool begins_collapsed(void *arg)
{
	struct jrec rec;
	return first_record(arg, &rec) && rec.type == JT_COLLAPSED;
}

/* What the last rename before the set moved is in the set, whatever happened while it was computed. */
START_TEST(a_collapse_holds_every_rename_before_it)
{
	struct jdir d;
	struct storm s = {.d = &d};
	struct jrec rec;
	pthread_t t[2];
	jdir_make(&d);
	jdir_open(&d, &limited);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, rename_storm, &s);
	ck_assert(wait_until(was_collapsed, &d));
	atomic_store(&s.stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	ck_assert(wait_until(begins_collapsed, &d)); /* the segments it stands for go after it is written */
	ck_assert(first_record(&d, &rec));
	ck_assert_uint_eq(rec.to, rec.seq - 1);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

/* A small file system of its own; false when this process may not mount. */
static bool small_disk(struct jdir *d)
{
	unit_scratch(d->path);
	if (mount("tmpfs", d->path, "tmpfs", 0, "size=400k")) {
		unit_remove(d->path);
		return false;
	}
	d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return true;
}

static void small_disk_remove(struct jdir *d)
{
	close(d->fd);
	ck_assert_int_eq(umount(d->path), 0);
	rmdir(d->path);
}

/* A close that the next start finds to be one. */
static void small_disk_end(struct jdir *d)
{
	jdir_close(d);
	jdir_open(d, NULL);
	ck_assert_int_eq(d->start, JSTART_CLEAN);
	jdir_close(d);
	small_disk_remove(d);
}

static bool is_well(void *arg)
{
	struct jdir *d = arg;
	return !atomic_load(&journal_head(d->j)->degraded);
}

static unsigned segments(struct jdir *d)
{
	unsigned n = 0;
	DIR *dir = opendir(d->path);
	ck_assert_ptr_nonnull(dir);
	for (struct dirent *e; (e = readdir(dir));)
		n += strstr(e->d_name, ".seg") != NULL;
	closedir(dir);
	return n;
}

/* Take every byte of the disk, also those that the journal gives up: one segment is left in the end, and no room for another. */
static void exhaust(struct jdir *d)
{
	static const char block[4096];
	char fill[300];
	unsigned full = 0;
	snprintf(fill, sizeof(fill), "%s/fill", d->path);
	int fd = open(fill, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	while (full < 3) { /* an attempt to make a segment holds what it could get, and lets it go */
		bool last = segments(d) == 1, took = false;
		while (write(fd, block, sizeof(block)) > 0)
			took = true;
		if (took || !last || is_well(d)) {
			full = 0;
			jdir_append(d, "plenty", 1);
		} else {
			full++;
			usleep(20000);
		}
	}
	close(fd);
}

START_TEST(a_full_disk_is_survived)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	if (!small_disk(&d))
		return;
	jdir_open(&d, NULL);
	int err = 0;
	for (uint64_t i = 0; !err && i < 20000; i++)
		err = jdir_append(&d, "plenty", i);
	ck_assert_int_eq(err, -ENOSPC);
	exhaust(&d);
	uint64_t seq = journal_seq(d.j);
	ck_assert_int_eq(jdir_append(&d, "kept/in/memory", 1), -ENOSPC);
	ck_assert_uint_eq(journal_seq(d.j), seq); /* what is not written has no number */
	ck_assert_int_eq(journal_sync(d.j), 0);	  /* an application's fsync does not fail for that */
	ck_assert_int_eq(mount(NULL, d.path, NULL, MS_REMOUNT, "size=4m"), 0);
	ck_assert(wait_until(is_well, &d));
	ck_assert_int_eq(jdir_append(&d, "after", 1), 0);
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_RECHECK], 4); /* the root, plenty, kept/in, kept/in/memory */
	ck_assert_int_eq(journal_sync(d.j), 0);
	small_disk_end(&d);
}
END_TEST

/* A disk that is smaller than the journal's limit: its own old segments make the room it needs. */
START_TEST(old_segments_are_given_up)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	if (!small_disk(&d))
		return;
	jdir_open(&d, NULL);
	int err = 0;
	for (uint64_t i = 0; !err && i < 20000; i++)
		err = jdir_append(&d, "plenty", i);
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert(wait_until(is_well, &d));
	ck_assert_int_eq(jdir_append(&d, "after", 1), 0);
	ck_assert(atomic_load(&journal_head(d.j)->collapsed));
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_COLLAPSED], 1);
	small_disk_end(&d);
}
END_TEST

START_TEST(closing_on_a_full_disk_is_not_clean)
{
	struct jdir d;
	if (!small_disk(&d))
		return;
	jdir_open(&d, NULL);
	exhaust(&d);
	jdir_close(&d);
	ck_assert_int_eq(mount(NULL, d.path, NULL, MS_REMOUNT, "size=4m"), 0);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_DAMAGED);
	jdir_close(&d);
	small_disk_remove(&d);
}
END_TEST

/* Killed there, its last segment having no room for another record. */
START_TEST(a_journal_on_a_full_disk_is_opened_again)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	if (!small_disk(&d))
		return;
	jdir_die(&d, NULL, exhaust);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_DAMAGED);
	ck_assert_int_eq(jdir_append(&d, "kept/in/memory", 1), -ENOSPC);
	jdir_close(&d);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_DAMAGED);
	ck_assert_int_eq(mount(NULL, d.path, NULL, MS_REMOUNT, "size=4m"), 0);
	ck_assert(wait_until(is_well, &d));
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_RECHECK], 1); /* of everything */
	jdir_close(&d);
	small_disk_remove(&d);
}
END_TEST

static void write_ten(struct jdir *d)
{
	jdir_fill(d, 1, 10);
}

/* There is no segment that could be continued. */
START_TEST(a_damaged_journal_on_a_full_disk_is_opened)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	static const char block[4096];
	if (!small_disk(&d))
		return;
	jdir_die(&d, NULL, write_ten);
	jdir_flip(&d, 0, JSEG_HEADER + 50);
	unlinkat(d.fd, JOURNAL_NEXT_NAME, 0);
	int fd = openat(d.fd, "fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, block, sizeof(block)) > 0)
		;
	close(fd);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_DAMAGED);
	ck_assert_int_eq(jdir_append(&d, "kept/in/memory", 1), -ENOSPC);
	uint64_t seq = journal_flushed(d.j);
	jdir_close(&d);
	jdir_open(&d, NULL);
	ck_assert_int_eq(d.start, JSTART_DAMAGED);
	ck_assert_uint_ge(journal_flushed(d.j), seq);
	seq = journal_flushed(d.j);
	ck_assert_int_eq(mount(NULL, d.path, NULL, MS_REMOUNT, "size=4m"), 0);
	ck_assert(wait_until(is_well, &d));
	ck_assert_uint_ge(journal_seq(d.j), seq);
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_COLLAPSED], 1);
	ck_assert_uint_eq(types[JT_RECHECK], 1); /* of everything */
	journal_recovered(d.j);
	small_disk_end(&d);
}
END_TEST

static _Atomic int fail_syncs, syncs;

static int counted_sync(int fd)
{
	atomic_fetch_add(&syncs, 1);
	if (atomic_load(&fail_syncs))
		return -EIO;
	nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	return 0;
}

static void put_sync(struct jdir *d)
{
	atomic_store(&d->j->sync_fd, counted_sync);
}

START_TEST(a_failed_fsync_is_never_repeated)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	jdir_make(&d);
	jdir_open(&d, &(struct journal_options){.limit = 1ull << 40, .segment_size = JSEG_SIZE_MIN});
	jdir_append(&d, "a/durable", 1);
	ck_assert_int_eq(journal_sync(d.j), 0);
	put_sync(&d);
	jdir_append(&d, "b/lost", 1);
	atomic_store(&fail_syncs, 1);
	ck_assert_int_eq(journal_sync(d.j), 0);
	ck_assert(!is_well(&d));
	ck_assert_uint_eq(atomic_load(&journal_head(d.j)->synced_seq), 1);
	ck_assert_int_eq(jdir_append(&d, "c/later", 1), -EIO);
	atomic_store(&fail_syncs, 0);
	ck_assert(wait_until(is_well, &d));
	ck_assert_int_eq(jdir_segments(&d), 2);
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_RECHECK], 4); /* b, b/lost, c, c/later: not what was durable before */
	ck_assert_int_eq(journal_sync(d.j), 0);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

/* Have the journal and path's file on one disk, whatever it is; its blocks have 4096 bytes. Returns a descriptor of the file. */
static int one_disk(struct jdir *d)
{
	char name[300];
	struct stat st;
	snprintf(name, sizeof(name), "%s.file", d->path);
	int fd = open(name, O_RDWR | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(unlink(name), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	d->j->dev = st.st_dev;
	d->j->block = 4096;
	return fd;
}

START_TEST(the_sync_of_a_file_is_the_journal_s)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, &(struct journal_options){.limit = 1ull << 40, .segment_size = JSEG_SIZE_MIN});
	int fd = one_disk(&d);
	jdir_append(&d, "a", 1);
	ck_assert_uint_eq(journal_sync_begin(d.j, fd), 0); /* the block is new */
	ck_assert(!journal_synced_with(d.j, 0));
	ck_assert_int_eq(journal_sync(d.j), 0);
	put_sync(&d);
	atomic_store(&fail_syncs, 1); /* none of the journal's own is needed */
	jdir_append(&d, "b", 1);
	uint64_t with = journal_sync_begin(d.j, fd);
	ck_assert_uint_eq(with, journal_seq(d.j));
	ck_assert_uint_lt(atomic_load(&journal_head(d.j)->synced_seq), with); /* the file is not synced yet */
	ck_assert(journal_synced_with(d.j, with));
	ck_assert_uint_eq(atomic_load(&journal_head(d.j)->synced_seq), with);
	ck_assert_int_eq(journal_sync(d.j), 0);
	ck_assert(is_well(&d));
	atomic_store(&fail_syncs, 0);
	for (size_t tail = d.j->tail; d.j->tail / 4096 == tail / 4096;)
		jdir_append(&d, "c", 1);
	ck_assert_uint_eq(journal_sync_begin(d.j, fd), 0); /* a new block again */
	ck_assert_int_eq(journal_sync(d.j), 0);
	ck_assert_uint_ne(journal_sync_begin(d.j, fd), 0);
	d.j->dev++;
	ck_assert_uint_eq(journal_sync_begin(d.j, fd), 0); /* a file of another disk */
	close(fd);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

static int failing_write(int segment, int file)
{
	(void)segment;
	(void)file;
	errno = EIO;
	return -1;
}

START_TEST(a_write_that_failed_is_not_synced_later)
{
	struct jdir d;
	unsigned types[JT_LAST + 1];
	jdir_make(&d);
	jdir_open(&d, &(struct journal_options){.limit = 1ull << 40, .segment_size = JSEG_SIZE_MIN});
	int fd = one_disk(&d);
	jdir_append(&d, "a/durable", 1);
	ck_assert_int_eq(journal_sync(d.j), 0);
	jdir_append(&d, "b/lost", 1);
	put_sync(&d);
	atomic_store(&d.j->write_fds, failing_write);
	atomic_store(&fail_syncs, 1); /* no new segment yet */
	ck_assert_uint_eq(journal_sync_begin(d.j, fd), 0);
	ck_assert(!is_well(&d));
	ck_assert_int_eq(journal_sync(d.j), 0); /* the mark is durable */
	ck_assert_uint_eq(atomic_load(&journal_head(d.j)->synced_seq), 1);
	atomic_store(&fail_syncs, 0);
	ck_assert(wait_until(is_well, &d));
	jdir_read(&d, types);
	ck_assert_uint_eq(types[JT_RECHECK], 2); /* b, b/lost */
	close(fd);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

#define SYNCERS 8
#define ROUNDS	50

static void *append_and_sync(void *arg)
{
	struct jdir *d = arg;
	for (uint64_t i = 1; i <= ROUNDS; i++) {
		ck_assert_int_eq(jdir_append(d, "f", i), 0);
		uint64_t seq = journal_seq(d->j);
		ck_assert_int_eq(journal_sync(d->j), 0);
		ck_assert_uint_ge(atomic_load(&journal_head(d->j)->synced_seq), seq);
	}
	return NULL;
}

START_TEST(syncs_are_shared)
{
	struct jdir d;
	pthread_t t[SYNCERS];
	jdir_make(&d);
	jdir_open(&d, NULL);
	put_sync(&d);
	atomic_store(&syncs, 0);
	for (int i = 0; i < SYNCERS; i++)
		pthread_create(&t[i], NULL, append_and_sync, &d);
	for (int i = 0; i < SYNCERS; i++)
		pthread_join(t[i], NULL);
	ck_assert_int_lt(atomic_load(&syncs), SYNCERS * ROUNDS / 2);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(sync_options_that_do_not_wait_do_not_sync)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, &(struct journal_options){.segment_size = JSEG_SIZE_MIN, .sync = JSYNC_NEVER});
	put_sync(&d);
	atomic_store(&syncs, 0);
	jdir_fill(&d, 1, 5000);
	ck_assert_int_eq(journal_sync(d.j), 0);
	ck_assert_int_eq(atomic_load(&syncs), 0);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

static bool is_synced(void *arg)
{
	struct jdir *d = arg;
	return atomic_load(&journal_head(d->j)->synced_seq) == journal_seq(d->j);
}

START_TEST(a_sync_that_was_begun_goes_on_by_itself)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, NULL);
	put_sync(&d);
	atomic_store(&syncs, 0);
	jdir_fill(&d, 1, 10);
	atomic_store(&d.j->sync_ns, 1000000000); /* a slow disk */
	ck_assert_uint_eq(journal_sync_begin(d.j, -1), 0);
	ck_assert(wait_until(is_synced, &d));
	int n = atomic_load(&syncs);
	ck_assert_int_eq(journal_sync(d.j), 0);
	ck_assert_int_eq(atomic_load(&syncs), n);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(a_sync_that_was_begun_and_failed_is_not_forgotten)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, NULL);
	put_sync(&d);
	atomic_store(&fail_syncs, 1);
	jdir_append(&d, "lost", 1);
	atomic_store(&d.j->sync_ns, 1000000000); /* a slow disk */
	ck_assert_uint_eq(journal_sync_begin(d.j, -1), 0);
	ck_assert_int_eq(journal_sync(d.j), 0); /* the mark of the degraded state is durable */
	ck_assert(!is_well(&d));
	ck_assert_uint_eq(atomic_load(&journal_head(d.j)->synced_seq), 0);
	atomic_store(&fail_syncs, 0);
	ck_assert(wait_until(is_well, &d));
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(interval_syncs_in_the_background)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, &(struct journal_options){.segment_size = JSEG_SIZE_MIN, .sync = JSYNC_INTERVAL});
	jdir_fill(&d, 1, 10);
	ck_assert_int_eq(journal_sync(d.j), 0);
	ck_assert(wait_until(is_synced, &d));
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(slots_are_given_back)
{
	struct jdir d;
	jdir_make(&d);
	jdir_open(&d, NULL);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < JHEAD_SLOTS; i++)
			ck_assert_int_eq(journal_listen(d.j, open("/dev/null", O_WRONLY | O_CLOEXEC)), i);
		ck_assert_int_eq(journal_listen(d.j, 0), -ENOSPC);
		for (int i = 0; i < JHEAD_SLOTS; i++)
			journal_unlisten(d.j, i);
	}
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

UNIT_MAIN("journal", append_sets_sequence_and_time, a_record_without_a_valid_path_becomes_a_comparison,
	  content_too_large_for_a_segment_becomes_one_range, acknowledged_segments_are_unlinked,
	  at_the_limit_the_journal_collapses, a_second_collapse_covers_the_first,
	  a_collapse_holds_every_rename_before_it, a_full_disk_is_survived,
	  old_segments_are_given_up, closing_on_a_full_disk_is_not_clean, a_journal_on_a_full_disk_is_opened_again, a_damaged_journal_on_a_full_disk_is_opened, a_failed_fsync_is_never_repeated, the_sync_of_a_file_is_the_journal_s,
	  a_write_that_failed_is_not_synced_later, syncs_are_shared,
	  sync_options_that_do_not_wait_do_not_sync, a_sync_that_was_begun_goes_on_by_itself,
	  a_sync_that_was_begun_and_failed_is_not_forgotten, interval_syncs_in_the_background, slots_are_given_back)
