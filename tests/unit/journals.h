/* SPDX-License-Identifier: BSD-2-Clause
 * Journals in scratch directories for the tests of writer, recovery and reader. */
#ifndef TANDEM_UNIT_JOURNALS_H
#define TANDEM_UNIT_JOURNALS_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "fs/journal.h"
#include "fs/journal_priv.h"
#include "proto/err.h"
#include "proto/jreader.h"
#include "proto/jseg.h"
#include "tests/unit/unit.h"

struct jdir {
	char path[256];
	int fd;
	struct journal *j;
	enum journal_start start; /* of the last jdir_open */
	uint64_t since;
};

static const struct journal_options jdir_small = {.limit = 1ull << 40, .segment_size = JSEG_SIZE_MIN};

static inline void jdir_make(struct jdir *d)
{
	unit_scratch(d->path);
	d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d->j = NULL;
}

static inline void jdir_remove(struct jdir *d)
{
	close(d->fd);
	unit_remove(d->path);
}

static inline int jdir_try(struct jdir *d, const struct journal_options *opt)
{
	return journal_open(&d->j, d->fd, opt ? opt : &jdir_small, &d->start, &d->since);
}

static inline void jdir_open(struct jdir *d, const struct journal_options *opt)
{
	ck_assert_int_eq(jdir_try(d, opt), 0);
}

static inline void jdir_close(struct jdir *d)
{
	journal_close(d->j);
	d->j = NULL;
}

/* A CREATE of path; ino is seen again by the readers of the tests. */
static inline int jdir_append(struct jdir *d, const char *path, uint64_t ino)
{
	struct jrec r;
	jrec_init(&r, JT_CREATE);
	r.path = path;
	r.ino = ino;
	r.mode = S_IFREG | 0644;
	return journal_append(d->j, &r);
}

/* n records f0, f1 ... with inode numbers from first. */
static inline void jdir_fill(struct jdir *d, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++) {
		char path[64];
		snprintf(path, sizeof(path), "f%llu", (unsigned long long)i);
		ck_assert_int_eq(jdir_append(d, path, i), 0);
	}
}

/* Run fn in a process of its own that is killed at its end, with everything in flight. */
static inline void jdir_die(struct jdir *d, const struct journal_options *opt, void (*fn)(struct jdir *))
{
	pid_t pid = check_fork();
	if (pid == 0) {
		jdir_open(d, opt);
		fn(d);
		kill(getpid(), SIGKILL);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
}

/* The host booted since: everything not synced may be gone. */
static inline void jdir_reboot(struct jdir *d)
{
	struct jhead *h;
	ck_assert_int_eq(jhead_map(&h, d->fd, 0), 0);
	h->boot_id[0] ^= 0xff;
	jhead_unmap(h);
}

static inline uint64_t jdir_segment(struct jdir *d, int k)
{
	uint64_t *seqs;
	int n = jseg_list(d->fd, &seqs);
	k = k < 0 ? n + k : k;
	ck_assert(k >= 0 && k < n);
	uint64_t s = seqs[k];
	free(seqs);
	return s;
}

static inline int jdir_segments(struct jdir *d)
{
	uint64_t *seqs;
	int n = jseg_list(d->fd, &seqs);
	free(seqs);
	return n;
}

/* The path of segment k; negative: from the end. */
static inline const char *jdir_file(struct jdir *d, int k)
{
	static char path[512];
	char name[JSEG_NAME_LEN];
	jseg_name(name, jdir_segment(d, k));
	snprintf(path, sizeof(path), "%s/%s", d->path, name);
	return path;
}

static inline void jdir_poke(struct jdir *d, int k, off_t off, const void *data, size_t n)
{
	int fd = open(jdir_file(d, k), O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(pwrite(fd, data, n, off), (ssize_t)n);
	close(fd);
}

/* Flip a byte of a segment. */
static inline void jdir_flip(struct jdir *d, int k, off_t off)
{
	uint8_t c;
	int fd = open(jdir_file(d, k), O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, &c, 1, off), 1);
	c ^= 0x5a;
	ck_assert_int_eq(pwrite(fd, &c, 1, off), 1);
	close(fd);
}

/* Read all records; every sequence number must follow, or the hole be explained. Returns the last; *types
 * counts by type. */
static inline uint64_t jdir_read(struct jdir *d, unsigned types[JT_LAST + 1])
{
	struct jreader *r;
	struct jrec rec;
	int got;
	ck_assert_int_eq(jreader_open(&r, d->fd), 0);
	ck_assert_int_eq(jreader_rewind(r), 0);
	memset(types, 0, (JT_LAST + 1) * sizeof(*types));
	for (uint64_t seq = jreader_seq(r); (got = jreader_next(r, &rec, NULL, NULL)); seq++) {
		if (got == E_GAP) {
			ck_assert_int_eq(jreader_seek(r, seq, NULL), E_COLLAPSED);
			seq = jreader_seq(r);
			ck_assert_int_eq(jreader_next(r, &rec, NULL, NULL), 1);
		}
		ck_assert_uint_eq(rec.seq, seq + 1);
		types[rec.type]++;
		jrec_release(&rec);
	}
	ck_assert_int_eq(got, 0);
	uint64_t last = jreader_seq(r);
	ck_assert_uint_eq(last, atomic_load(&jreader_head(r)->committed_seq));
	jreader_close(r);
	return last;
}

static inline bool wait_until(bool (*cond)(void *), void *arg)
{
	for (int i = 0; i < 3000; i++) {
		if (cond(arg))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return false;
}

#endif
