/* SPDX-License-Identifier: BSD-2-Clause
 * The journal writer: appending, opening and closing. See journal.h, docs/journal-format.md.
 *
 * States of the writer
 *
 *   writing    cur has room, or next is prepared: an append encodes into cur's mapping, chains, stores
 *              committed_seq and rings. No system call, except a rename(2) when cur is full.
 *   waiting    cur is full and next is late: the append sleeps on `ready` until the preparer has it, at most
 *              JOURNAL_WAIT_MS.
 *   degraded   next cannot be made (disk full, I/O error), a store to a map or an fsync failed: appends add their paths to
 *              `dirty`, an in-memory set, and no sequence number is used. The keeper tries every second to go
 *              on in a new segment, whose first records are RECHECKs of the set. head->degraded says
 *              so to everybody; a writer that is killed in this state leaves the flag, and the next
 *              start rechecks everything.
 *
 * Moves: writing -> waiting (append), waiting -> writing (preparer), writing/waiting -> degraded (append,
 * sync), degraded -> writing (keeper, journal_resume).
 *
 * A record that is too large for a segment or that no reader would accept is replaced by RECHECKs of
 * what it touched (put_instead): the journal stays readable and the change is not lost. */
#include "config.h"
#include "fs/journal.h"
#include "fs/journal_priv.h"
#include "fs/journal_void.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "proto/clock.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"
#include "proto/path.h"

uint64_t journal_now(void)
{
	return clock_real();
}

int journal_wait_locked(struct journal *j, pthread_cond_t *cond, unsigned ms)
{
	return clock_wait(cond, &j->lock, clock_mono() + ms * NS_PER_MS);
}

void journal_call_keeper_locked(struct journal *j)
{
	j->rung = true;
	pthread_cond_signal(&j->want_keeper);
}

void journal_void_locked(struct journal *j)
{
	if (j->voided)
		return;
	j->void_err = journal_void_set(j->id);
	j->voided = true;
}

void journal_degrade_locked(struct journal *j, int err)
{
	if (filemap_failed(j->headfile)) /* the mark in it is nothing that the next start finds */
		journal_void_locked(j);
	if (j->degraded)
		return;
	j->degraded = err == -ENOSPC || err == -EDQUOT ? -ENOSPC : -EIO;
	atomic_store(&j->head->degraded, 1);
	j->log_degraded = true;
	journal_call_keeper_locked(j);
}

int journal_put_locked(struct journal *j, struct jrec *r)
{
	size_t room = j->cur->size - j->tail - JREC_HEADER;
	struct buf b = {.data = j->cur->map + j->tail, .cap = room, .max = room};
	r->seq = j->seq + 1;
	r->time_ns = journal_now();
	int err = jrec_put(&b, r);
	if (!err && filemap_failed(j->cur->file))
		err = -EIO;
	if (err)
		return err;
	uint64_t csum;
	memcpy(&csum, b.data + 32, 8);
	r->csum = le64toh(csum);
	j->tail += b.len;
	j->seq = r->seq;
	j->chain = jrec_chain(j->chain, r->csum);
	atomic_fetch_add_explicit(&j->head->appended_bytes, b.len, memory_order_relaxed);
	atomic_store_explicit(&j->head->committed_ns, r->time_ns, memory_order_relaxed);
	atomic_store_explicit(&j->head->committed_seq, r->seq, memory_order_release);
	if (filemap_failed(j->headfile)) /* readers do not see the record yet */
		journal_degrade_locked(j, -EIO);
	return 0;
}

static int put_collapsed(struct journal *j, uint64_t from, int n)
{
	struct jrec r;
	jrec_init(&r, JT_COLLAPSED);
	r.from = from;
	r.to = j->seq;
	r.size = (uint64_t)n;
	return journal_put_locked(j, &r);
}

int journal_put_set_locked(struct journal *j, struct pathset *set, uint64_t from)
{
	struct pathset_entry root = {.path = (char[]){""}, .flags = JF_RECURSIVE};
	struct pathset_entry *list, *v;
	int n = pathset_list(set, &list);
	v = list;
	if (n < 0) { /* no memory for a list: everything */
		v = &root;
		n = 1;
	}
	int err = from ? put_collapsed(j, from, n) : 0;
	for (int i = 0; i < n && err != -EIO; i++) {
		struct jrec r;
		jrec_init(&r, JT_RECHECK);
		r.flags = v[i].flags;
		r.path = v[i].path;
		err = journal_put_locked(j, &r);
	}
	free(list);
	return err == -EIO ? err : 0;
}

/* Wait until next is there or known not to come. Returns 0 or -errno. The lock is released meanwhile. */
static int wait_next_locked(struct journal *j)
{
	unsigned waited = 0;
	while (!j->next && !j->degraded) {
		if (j->next_err)
			return j->next_err;
		pthread_cond_signal(&j->want_next);
		if (journal_wait_locked(j, &j->ready, JOURNAL_WAIT_MS / 4) == ETIMEDOUT &&
		    (waited += JOURNAL_WAIT_MS / 4) >= JOURNAL_WAIT_MS)
			return -ETIMEDOUT;
	}
	return j->degraded;
}

/* Make room for a record of size bytes in cur. Returns 0, or -errno and the journal is degraded. */
static int make_room_locked(struct journal *j, size_t size)
{
	while (!j->degraded && size > j->cur->size - j->tail - JREC_HEADER) {
		int err = j->next ? segment_switch_locked(j) : wait_next_locked(j);
		if (err)
			journal_degrade_locked(j, err);
	}
	return j->degraded;
}

/* The longest valid beginning of path at a component's end, which is the nearest thing above it that a
 * RECHECK can name. */
static void add_nearest(struct pathset *set, const char *path)
{
	char *p = strdup(path);
	if (!p) {
		pathset_add(set, "", JF_RECURSIVE);
		return;
	}
	while (*p && (strlen(p) > PATH_LONGEST / 2 || !path_valid(p)))
		p[path_parent_len(p)] = 0;
	pathset_add(set, p, JF_RECURSIVE);
	free(p);
}

/* r cannot be written as it is. */
static int put_instead_locked(struct journal *j, struct jrec *r)
{
	struct pathset set;
	pathset_init(&set);
	add_nearest(&set, r->path);
	if (*r->path2)
		add_nearest(&set, r->path2);
	pathset_fit(&set, PATHSET_MAX, segment_room(j->opt.segment_size));
	int err = make_room_locked(j, (size_t)2 * (JREC_HEADER + 18) + set.bytes);
	if (!err)
		err = journal_put_set_locked(j, &set, 0);
	if (err) {
		journal_degrade_locked(j, err);
		pathset_union(&j->dirty, &set);
	}
	pathset_release(&set);
	r->seq = j->seq;
	j->replaced++;
	return err;
}

/* A CONTENT that is too large: without its hints, then as one range. */
static void shrink_content(struct jrec *r)
{
	if (r->ncopies)
		r->ncopies = 0;
	else if (r->extents.n > 1) {
		r->extents.v[0].end = r->extents.v[r->extents.n - 1].end;
		r->extents.n = 1;
	}
}

static int append_locked(struct journal *j, struct jrec *r)
{
	size_t size = jrec_size(r), max = segment_room(j->opt.segment_size);
	max = max < JREC_MAX ? max : JREC_MAX;
	while (r->type == JT_CONTENT && size > max && (r->ncopies || r->extents.n > 1)) {
		shrink_content(r);
		size = jrec_size(r);
	}
	int err = E_LIMIT;
	if (size <= max && !make_room_locked(j, size)) {
		err = journal_put_locked(j, r);
		if (err == -EIO)
			journal_degrade_locked(j, err);
	}
	if (size <= max && j->degraded && err) {
		pathset_add_record(&j->dirty, r);
		return j->degraded;
	}
	return err ? put_instead_locked(j, r) : 0;
}

int journal_append(struct journal *j, struct jrec *r)
{
	pthread_mutex_lock(&j->lock);
	int err = append_locked(j, r);
	pthread_mutex_unlock(&j->lock);
	journal_ring(j);
	return err;
}

void journal_disk_failed(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	journal_void_locked(j);
	journal_degrade_locked(j, -EIO);
	pthread_mutex_unlock(&j->lock);
}

uint64_t journal_seq(struct journal *j)
{
	return atomic_load_explicit(&j->head->committed_seq, memory_order_acquire);
}

uint64_t journal_flushed(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	bool waits = j->degraded && (j->dirty.all || j->dirty.n);
	uint64_t seq = j->seq + (!waits ? 0 : j->cur ? 2 : 1); /* a SEAL, then the set */
	pthread_mutex_unlock(&j->lock);
	return seq;
}

int journal_write_head(struct journal *j)
{
	if (filemap_failed(j->headfile))
		return -EIO;
	return msync(j->head, JHEAD_SIZE, MS_SYNC) ? -errno : 0;
}

struct jhead *journal_head(struct journal *j)
{
	return j->head;
}

void journal_ring(struct journal *j)
{
	/* A reader stores sleeping and then loads committed_seq; we stored committed_seq and now load
	 * sleeping. One of the two sees the other's store if both have a full barrier in between. */
	atomic_thread_fence(memory_order_seq_cst);
	uint64_t used = atomic_load_explicit(&j->bell.used, memory_order_relaxed);
	for (; used; used &= used - 1) {
		int slot = __builtin_ctzll(used);
		_Atomic uint32_t *sleeping = &j->head->slots[slot].sleeping;
		if (!atomic_load_explicit(sleeping, memory_order_relaxed) || !atomic_exchange(sleeping, 0))
			continue;
		uint64_t one = 1;
		pthread_mutex_lock(&j->bell.lock); /* unlisten closes it */
		if (j->bell.efd[slot] >= 0 && write(j->bell.efd[slot], &one, sizeof(one)) < 0) {
			/* full: the reader has not seen earlier rings yet and will wake */
		}
		pthread_mutex_unlock(&j->bell.lock);
	}
}

int journal_listen(struct journal *j, int efd)
{
	int slot = -ENOSPC;
	pthread_mutex_lock(&j->bell.lock);
	for (int i = 0; i < JHEAD_SLOTS && slot < 0; i++) {
		if (j->bell.efd[i] < 0)
			slot = i;
	}
	if (slot >= 0) {
		j->bell.efd[slot] = efd;
		atomic_store(&j->head->slots[slot].sleeping, 0);
		atomic_store(&j->head->slots[slot].used, 1);
		atomic_fetch_or(&j->bell.used, 1ull << slot);
	}
	pthread_mutex_unlock(&j->bell.lock);
	return slot;
}

void journal_unlisten(struct journal *j, int slot)
{
	if (slot < 0 || slot >= JHEAD_SLOTS)
		return;
	pthread_mutex_lock(&j->bell.lock);
	if (j->bell.efd[slot] >= 0) {
		close(j->bell.efd[slot]);
		j->bell.efd[slot] = -1;
		atomic_fetch_and(&j->bell.used, ~(1ull << slot));
		atomic_store(&j->head->slots[slot].used, 0);
		atomic_store(&j->head->slots[slot].sleeping, 0);
	}
	pthread_mutex_unlock(&j->bell.lock);
}

/* A description of our own: a lock on dirfd itself would live on in every process that it was passed to. */
static int lock_dir(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int err = errno == EWOULDBLOCK ? -EBUSY : -errno;
		close(fd);
		return err;
	}
	return fd;
}

static void set_options(struct journal *j, const struct journal_options *opt)
{
	j->opt = *opt;
	if (!j->opt.segment_size)
		j->opt.segment_size = JSEG_SIZE;
	if (j->opt.segment_size < JSEG_SIZE_MIN)
		j->opt.segment_size = JSEG_SIZE_MIN;
	if (j->opt.segment_size > JSEG_SIZE_MAX)
		j->opt.segment_size = JSEG_SIZE_MAX;
	j->opt.segment_size = (j->opt.segment_size + 4095) & ~4095ull;
	/* open, next, and two to fill before a collapse is worth it */
	if (j->opt.limit < 4 * j->opt.segment_size)
		j->opt.limit = 4 * j->opt.segment_size;
}

static struct journal *make(int dirfd, const struct journal_options *opt)
{
	struct journal *j = calloc(1, sizeof(*j));
	if (!j)
		return NULL;
	pthread_mutex_init(&j->lock, NULL);
	pthread_mutex_init(&j->sync.lock, NULL);
	pthread_mutex_init(&j->bell.lock, NULL);
	clock_cond_init(&j->ready);
	clock_cond_init(&j->want_next);
	clock_cond_init(&j->want_keeper);
	clock_cond_init(&j->want_sync);
	pthread_cond_init(&j->sync.done, NULL);
	for (int i = 0; i < JHEAD_SLOTS; i++)
		j->bell.efd[i] = -1;
	TAILQ_INIT(&j->segs);
	pathset_init(&j->dirty);
	set_options(j, opt);
	j->dirfd = dirfd;
	j->lockfd = -1;
	j->sync_fd = fio_sync;
	j->write_fds = sync_write_fds;
	return j;
}

static void destroy(struct journal *j)
{
	struct segment *s;
	while ((s = TAILQ_FIRST(&j->segs))) {
		TAILQ_REMOVE(&j->segs, s, link);
		segment_free(s);
	}
	if (j->next) {
		unlinkat(j->dirfd, JOURNAL_NEXT_NAME, 0);
		segment_free(j->next);
	}
	for (int i = 0; i < JHEAD_SLOTS; i++) {
		if (j->bell.efd[i] >= 0)
			close(j->bell.efd[i]);
	}
	pathset_release(&j->dirty);
	jhead_unmap(j->head);
	pthread_cond_destroy(&j->ready);
	pthread_cond_destroy(&j->want_next);
	pthread_cond_destroy(&j->want_keeper);
	pthread_cond_destroy(&j->want_sync);
	pthread_cond_destroy(&j->sync.done);
	pthread_mutex_destroy(&j->lock);
	pthread_mutex_destroy(&j->sync.lock);
	pthread_mutex_destroy(&j->bell.lock);
	if (j->lockfd >= 0)
		close(j->lockfd);
	free(j);
}

int journal_open(struct journal **out, int dirfd, const struct journal_options *opt,
		 enum journal_start *start, uint64_t *since_ns)
{
	*out = NULL;
	struct journal *j = make(dirfd, opt);
	if (!j)
		return -ENOMEM;
	sync_learn_disk(j);
	int err = j->lockfd = lock_dir(dirfd);
	if (err >= 0)
		err = journal_recover(j, start, since_ns);
	if (!err)
		err = threads_start(j);
	if (err) {
		destroy(j);
		return err;
	}
	*out = j;
	return 0;
}

void journal_recovered(struct journal *j)
{
	atomic_store(&j->head->recover_ns, 0);
}

int journal_checkpoint(struct journal *j, uint64_t seq, uint64_t ns)
{
	int err = sync_upto(j, seq);
	if (err)
		return err;
	atomic_store(&j->head->safe_seq, seq);
	atomic_store(&j->head->safe_ns, ns);
	return 0;
}

void journal_clock(struct journal *j, uint64_t ns)
{
	if (atomic_load(&j->head->safe_ns) <= ns)
		return;
	atomic_store(&j->head->safe_ns, ns);
	journal_write_head(j);
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	threads_stop(j);
	if (j->degraded && (j->next || !segment_prepare(j, &j->next)))
		journal_resume(j);
	int err = sync_upto(j, j->seq);
	if (j->degraded || err) {
		/* Not clean: the next start finds the flag and rechecks everything. */
		log_error("journal: closed without being durable (%s); the next start compares everything",
			  err_text(err ? err : j->degraded));
		atomic_store(&j->head->degraded, 1);
	} else {
		atomic_store(&j->head->clean, 1);
	}
	atomic_store(&j->head->writer_pid, 0);
	err = journal_write_head(j);
	if (err) {
		log_error("journal: the head page could not be written: %s", err_text(err));
		journal_void_set(j->id);
	} else if (j->voided) {
		journal_void_clear(j->id); /* what is not clean, the page says */
	}
	destroy(j);
}
