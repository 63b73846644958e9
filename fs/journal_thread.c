/* SPDX-License-Identifier: BSD-2-Clause
 * The threads of the journal writer. The preparer does nothing but keep the next segment ready, since
 * an append may wait for it. The keeper does what may take its time: syncs, unmapping, reclaiming,
 * collapsing, leaving the degraded state, logging. The syncer begins with what an application's fsync
 * will wait for. See journal_priv.h. */
#include "config.h"
#include "fs/journal_priv.h"
#include "fs/journal_void.h"

#include <errno.h>
#include <string.h>

#include "proto/err.h"
#include "proto/log.h"
#include "proto/thread.h"

static void *preparer_main(void *arg)
{
	struct journal *j = arg;
	pthread_mutex_lock(&j->lock);
	while (!j->stop) {
		struct segment *s;
		if (j->next) {
			pthread_cond_wait(&j->want_next, &j->lock);
			continue;
		}
		pthread_mutex_unlock(&j->lock);
		int err = segment_prepare(j, &s);
		pthread_mutex_lock(&j->lock);
		j->next = s;
		j->next_err = err;
		segment_count_locked(j);
		pthread_cond_broadcast(&j->ready);
		if (j->degraded)
			journal_call_keeper_locked(j);
		if (err && !j->stop)
			journal_wait_locked(j, &j->want_next, JOURNAL_RETRY_MS);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

/* After a failed fsync the next segment must show that it can be written at all. */
static int try_next(struct journal *j, struct segment *next)
{
	memset(next->map, 0, JSEG_HEADER);
	return journal_sync_fd(j, next->fd);
}

static void resumed(struct journal *j, uint64_t seq, size_t n)
{
	int err = j->opt.sync == JSYNC_NEVER ? 0 : sync_upto(j, seq);
	pthread_mutex_lock(&j->lock);
	/* The flag stays until the set is durable: whoever finds it rechecks everything. */
	if (!err && !j->degraded)
		atomic_store(&j->head->degraded, 0);
	pthread_mutex_unlock(&j->lock);
	if (err)
		return;
	journal_write_head(j);
	log_warn("journal: can be written again; %zu paths that changed meanwhile will be compared", n);
}

void journal_resume(struct journal *j)
{
	struct pathset lost;
	pathset_init(&lost);
	pthread_mutex_lock(&j->lock);
	bool degraded = j->degraded;
	pthread_mutex_unlock(&j->lock);
	if (!degraded || !filemap_mend()) /* may take its time on a full disk */
		return;
	pthread_mutex_lock(&j->lock);
	struct segment *next = j->degraded ? j->next : NULL;
	bool sync_failed = j->sync_failed;
	uint64_t first = atomic_load(&j->head->synced_seq) + 1, last = j->seq;
	pthread_mutex_unlock(&j->lock);
	/* Nobody else takes next while the state is degraded. */
	if (!next || (sync_failed && try_next(j, next)))
		return;
	if (sync_failed && first <= last)
		collapse_read(j, &lost, first, last);
	pthread_mutex_lock(&j->lock);
	pathset_union(&j->dirty, &lost);
	pathset_fit(&j->dirty, PATHSET_MAX, segment_room(next->size) - JREC_HEADER - 24);
	size_t n = j->dirty.all ? 1 : j->dirty.n;
	int err = segment_switch_locked(j);
	if (!err) {
		if (j->given_up) {
			j->collapsed_to = j->seq;
			atomic_store(&j->head->collapsed, 1);
		}
		err = journal_put_set_locked(j, &j->dirty, j->given_up);
		j->collapsed_end = j->seq;
		if (!err && filemap_any_failed())
			err = -EIO;
	}
	if (!err) {
		pathset_release(&j->dirty);
		j->given_up = 0;
		j->degraded = 0;
		j->sync_failed = false;
	}
	uint64_t seq = j->seq;
	pthread_mutex_unlock(&j->lock);
	pathset_release(&lost);
	if (err)
		return;
	journal_ring(j);
	resumed(j, seq, n);
}

/* Log what happened under the lock. */
static void report(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	bool degraded = j->log_degraded;
	bool sync_failed = j->sync_failed;
	int err = j->degraded;
	uint64_t replaced = j->replaced;
	j->log_degraded = false;
	j->replaced = 0;
	pthread_mutex_unlock(&j->lock);
	if (degraded) {
		log_error("journal: %s: %s; changes are kept in memory and nothing is replicated until this "
			  "works again (tried every second): free space, or look at the disk",
			  sync_failed            ? "fsync failed"
			  : filemap_any_failed() ? "what is mapped of its files cannot be written"
						 : "no segment can be made",
			  err_text(err ? err : -EIO));
		journal_write_head(j);
	}
	if (replaced)
		log_warn("journal: %llu records were too large or had an invalid path; their paths will be "
			 "compared",
			 (unsigned long long)replaced);
}

static void enforce_limit(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	bool over = atomic_load(&j->head->bytes) > j->opt.limit && !j->degraded &&
		    TAILQ_FIRST(&j->segs) != j->cur && TAILQ_FIRST(&j->segs)->first_seq > j->collapsed_to;
	pthread_mutex_unlock(&j->lock);
	int err = over ? journal_collapse(j) : 0;
	if (err && err != -EAGAIN)
		log_error("journal: the collapse at its limit failed: %s; it grows until that works",
			  err_text(err));
}

/* All targets have what a collapse left to be compared. */
static void forget_collapse(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	if (atomic_load(&j->head->collapsed) && !j->given_up && atomic_load(&j->head->reclaim_seq) >= j->collapsed_end)
		atomic_store(&j->head->collapsed, 0);
	pthread_mutex_unlock(&j->lock);
}

/* A map that fails is met by whoever appends next, but nothing may be appended for long, and the table of what is in flight is nobody's here. */
static void look_at_maps(struct journal *j)
{
	if (!filemap_any_failed())
		return;
	pthread_mutex_lock(&j->lock);
	journal_degrade_locked(j, -EIO);
	pthread_mutex_unlock(&j->lock);
}

/* See journal_void.h. */
static void look_at_void(struct journal *j)
{
	bool failed = filemap_any_failed();
	pthread_mutex_lock(&j->lock);
	if (j->degraded && (j->sync_failed || failed))
		journal_void_locked(j);
	else if (!j->degraded && !atomic_load(&j->head->degraded) && j->voided)
		j->voided = journal_void_clear(j->id) != 0;
	int err = j->void_err;
	j->void_err = 0;
	pthread_mutex_unlock(&j->lock);
	if (err)
		log_error("journal: that its disk failed could not be noted in /run: %s; if the state directory is mounted again "
			  "without a boot, run tandemctl verify --repair",
			  err_text(err));
}

static void keep(struct journal *j)
{
	look_at_maps(j);
	report(j);
	look_at_void(j);
	journal_resume(j);
	collapse_give_up(j);
	segment_tidy(j);
	uint64_t seq = journal_seq(j);
	if (j->opt.sync == JSYNC_INTERVAL || (j->opt.sync == JSYNC_FSYNC && sync_behind(j)))
		sync_upto(j, seq);
	uint64_t done = atomic_load(&j->head->reclaim_seq);
	segment_reclaim(j, done > j->collapsed_to ? done : j->collapsed_to);
	forget_collapse(j);
	enforce_limit(j);
}

static void *keeper_main(void *arg)
{
	struct journal *j = arg;
	pthread_mutex_lock(&j->lock);
	while (!j->stop) {
		if (!j->rung)
			journal_wait_locked(j, &j->want_keeper, JOURNAL_RETRY_MS);
		if (j->stop)
			break;
		j->rung = false;
		pthread_mutex_unlock(&j->lock);
		keep(j);
		pthread_mutex_lock(&j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

/* The disk makes the journal durable while an application's thread waits for its own file. Errors are met by journal_sync. */
static void *syncer_main(void *arg)
{
	struct journal *j = arg;
	pthread_mutex_lock(&j->lock);
	while (!j->stop) {
		uint64_t seq = j->begin_sync;
		if (!seq) {
			pthread_cond_wait(&j->want_sync, &j->lock);
			continue;
		}
		j->begin_sync = 0;
		pthread_mutex_unlock(&j->lock);
		sync_upto(j, seq);
		pthread_mutex_lock(&j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

int threads_start(struct journal *j)
{
	void *(*const mains[JOURNAL_THREADS])(void *) = {preparer_main, keeper_main, syncer_main};
	int err = 0;
	for (j->nthreads = 0; j->nthreads < JOURNAL_THREADS && !err; j->nthreads += !err)
		err = thread_start(&j->threads[j->nthreads], 0, mains[j->nthreads], j);
	if (err)
		threads_stop(j);
	return err;
}

void threads_stop(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	j->stop = true;
	pthread_cond_broadcast(&j->want_next);
	pthread_cond_broadcast(&j->want_keeper);
	pthread_cond_broadcast(&j->want_sync);
	pthread_cond_broadcast(&j->ready);
	pthread_mutex_unlock(&j->lock);
	while (j->nthreads > 0)
		pthread_join(j->threads[--j->nthreads], NULL);
	report(j);
}
