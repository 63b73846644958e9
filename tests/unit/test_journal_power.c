/* SPDX-License-Identifier: BSD-2-Clause
 * A power failure at every instant of a journal's life: what a writer stored is kept as it was at its sync
 * and as it was at its end, and the directory is made again with every prefix of the sectors between, and
 * with any selection of them, with the head page of either time, and without the newest segment's name.
 * Recovery must have every record that was durable, and none that was never written. */
#include "config.h"

#include <sys/mman.h>

#include "proto/fileio.h"
#include "tests/unit/journals.h"

#define SYNCED 200
#define TOTAL  900 /* records: more than a segment */
#define SECTOR 512
#define SEGS   4

/* A journal's files. */
struct image {
	uint64_t seqs[SEGS];
	int n;
	uint8_t seg[SEGS][JSEG_SIZE_MIN];
	_Alignas(struct jhead) uint8_t head[JHEAD_SIZE];
};

static struct image *early, *late; /* shared with the writer's process */

static void take(struct jdir *d, struct image *m)
{
	uint64_t *seqs;
	m->n = jseg_list(d->fd, &seqs);
	ck_assert(m->n > 0 && m->n <= SEGS);
	for (int i = 0; i < m->n; i++) {
		char name[JSEG_NAME_LEN];
		m->seqs[i] = seqs[i];
		jseg_name(name, seqs[i]);
		int fd = openat(d->fd, name, O_RDONLY);
		ck_assert_int_eq(fio_pread(fd, m->seg[i], JSEG_SIZE_MIN, 0), 0);
		close(fd);
	}
	free(seqs);
	int fd = openat(d->fd, JHEAD_NAME, O_RDONLY);
	ck_assert_int_eq(fio_pread(fd, m->head, JHEAD_SIZE, 0), 0);
	close(fd);
}

static void writer(struct jdir *d)
{
	jdir_fill(d, 1, SYNCED);
	ck_assert_int_eq(journal_sync(d->j), 0);
	take(d, early);
	jdir_fill(d, SYNCED + 1, TOTAL - SYNCED);
	take(d, late);
}

/* Sectors that may be missing: those in which the two images differ. */
static int differing(int which[SEGS * JSEG_SIZE_MIN / SECTOR])
{
	int n = 0;
	for (int i = 0; i < late->n; i++)
		for (int k = 0; k < (int)(JSEG_SIZE_MIN / SECTOR); k++)
			if (memcmp(early->seg[i] + k * SECTOR, late->seg[i] + k * SECTOR, SECTOR) != 0)
				which[n++] = i * (int)(JSEG_SIZE_MIN / SECTOR) + k;
	return n;
}

static void write_file(struct jdir *d, const char *name, const uint8_t *data, size_t n)
{
	int fd = openat(d->fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_eq(fio_pwrite(fd, data, n, 0), 0);
	close(fd);
}

static void empty(struct jdir *d)
{
	DIR *dir = fdopendir(openat(d->fd, ".", O_RDONLY | O_DIRECTORY));
	for (struct dirent *e; (e = readdir(dir));)
		unlinkat(d->fd, e->d_name, 0);
	closedir(dir);
}

/* there[i]: the differing sector i was written; segments: how many have their names. */
static void make_again(struct jdir *d, const bool *there, const int *which, int n, const struct image *head,
		       int segments)
{
	static struct image m;
	m = *early;
	for (int i = 0; i < n; i++) {
		int seg = which[i] / (int)(JSEG_SIZE_MIN / SECTOR),
		    at = which[i] % (int)(JSEG_SIZE_MIN / SECTOR) * SECTOR;
		if (there[i])
			memcpy(m.seg[seg] + at, late->seg[seg] + at, SECTOR);
	}
	empty(d);
	for (int i = 0; i < segments; i++) {
		char name[JSEG_NAME_LEN];
		jseg_name(name, late->seqs[i]);
		write_file(d, name, m.seg[i], JSEG_SIZE_MIN);
	}
	write_file(d, JHEAD_NAME, head->head, JHEAD_SIZE);
	jdir_reboot(d);
}

/* The paths f1 ... fN are compared, N at least SYNCED, and nothing else but the root itself. */
static void check(struct jdir *d)
{
	bool found[TOTAL + 1] = {false};
	struct jreader *rd;
	struct jrec r;
	unsigned long n = 0, last = 0;
	jdir_open(d, NULL);
	ck_assert_int_eq(d->start, JSTART_POWER);
	ck_assert_uint_eq(d->since, 1);
	ck_assert_int_eq(jreader_open(&rd, d->fd), 0);
	ck_assert_int_eq(jreader_rewind(rd), 0);
	ck_assert_int_eq(jreader_next(rd, &r, NULL, NULL), 1);
	ck_assert_int_eq(r.type, JT_COLLAPSED);
	ck_assert_uint_eq(r.from, 1);
	while (jreader_next(rd, &r, NULL, NULL) == 1) {
		ck_assert_int_eq(r.type, JT_RECHECK);
		ck_assert(!(r.flags & JF_RECURSIVE));
		unsigned long k = *r.path ? strtoul(r.path + 1, NULL, 10) : 0;
		ck_assert(k <= TOTAL && !(k && found[k]));
		if (k) {
			found[k] = true;
			n++;
			last = k > last ? k : last;
		}
		jrec_release(&r);
	}
	ck_assert_uint_eq(n, last); /* none in between is missing */
	ck_assert_uint_ge(n, SYNCED);
	jreader_close(rd);
	jdir_close(d);
}

static int which[SEGS * JSEG_SIZE_MIN / SECTOR];

/* Where the scratch directories are fast. */
static int begin(struct jdir *d)
{
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 1);
	early = mmap(NULL, 2 * sizeof(*early), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(early, MAP_FAILED);
	late = early + 1;
	jdir_make(d);
	jdir_die(d, NULL, writer);
	ck_assert_int_eq(late->n, 2);
	ck_assert_int_eq(early->n, 1);
	return differing(which);
}

START_TEST(every_prefix_of_the_sectors_written_is_recovered)
{
	struct jdir d;
	int n = begin(&d);
	bool there[SEGS * JSEG_SIZE_MIN / SECTOR] = {false};
	for (int k = 0; k <= n; k++) {
		for (int segments = 1; segments <= 2; segments++) {
			make_again(&d, there, which, n, early, segments);
			check(&d);
		}
		there[k] = true;
	}
	jdir_remove(&d);
}
END_TEST

START_TEST(any_selection_of_the_sectors_written_is_recovered)
{
	struct jdir d;
	int n = begin(&d);
	bool there[SEGS * JSEG_SIZE_MIN / SECTOR];
	for (int seed = 0; seed < 200; seed++) {
		for (int i = 0; i < n; i++)
			there[i] = rand() % 100 < (seed % 2 ? 50 : 95);
		make_again(&d, there, which, n, early, 1 + seed % 2);
		check(&d);
	}
	jdir_remove(&d);
}
END_TEST

/* The kernel writes the head page when it likes: it may know of records that are not there. */
START_TEST(a_head_page_younger_than_the_records_is_no_damage)
{
	struct jdir d;
	int n = begin(&d);
	bool there[SEGS * JSEG_SIZE_MIN / SECTOR] = {false};
	struct jhead *h = (struct jhead *)late->head;
	atomic_store(&h->synced_seq, SYNCED); /* whatever the background has synced meanwhile */
	for (int k = 0; k <= n; k += 3) {
		make_again(&d, there, which, n, late, 2);
		check(&d);
		there[k] = there[k + 1] = there[k + 2] = true;
	}
	jdir_remove(&d);
}
END_TEST

UNIT_MAIN("journal after a power failure", every_prefix_of_the_sectors_written_is_recovered,
	  any_selection_of_the_sectors_written_is_recovered,
	  a_head_page_younger_than_the_records_is_no_damage)
