/* SPDX-License-Identifier: BSD-2-Clause
 * Durability of the journal: group commit. See journal_priv.h.
 *
 * Many threads ask at once. One becomes the leader and syncs all segments written since the last sync; what
 * was appended before it began is durable when it ends. The others sleep, and whoever finds his
 * records not covered becomes the next leader, for all who came meanwhile. Appends never wait.
 *
 * A failed fsync may have dropped the pages it could not write, and a second one would succeed without
 * them. So it is never repeated on that segment: the journal degrades, and goes on in a new segment with
 * RECHECKs of what those records touched. Until then the mark of the degraded state is what is synced: it
 * says that everything has to be compared. An application's fsync fails only if that fails, too. */
#include "config.h"
#include "fs/journal_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/err.h"

struct batch {
	struct segment **v;
	int *fds; /* room for n descriptors to close afterwards */
	size_t n;
	uint64_t upto; /* records that are durable if all goes well */
	bool dir;
};

static bool needs_sync(const struct segment *s)
{
	return !s->synced && !s->failed && s->fd >= 0;
}

/* Pin the segments to be synced. */
static int gather(struct journal *j, struct batch *b)
{
	struct segment *s;
	size_t n = 0;
	pthread_mutex_lock(&j->lock);
	TAILQ_FOREACH (s, &j->segs, link)
		n += needs_sync(s);
	b->n = 0;
	b->v = malloc((n + 1) * sizeof(struct segment *));
	b->fds = malloc((n + 1) * sizeof(int));
	bool ok = b->v && b->fds;
	if (ok) {
		TAILQ_FOREACH (s, &j->segs, link) {
			if (!needs_sync(s))
				continue;
			s->pins++;
			b->v[b->n++] = s;
		}
		b->upto = j->seq;
		b->dir = j->dir_dirty;
		j->dir_dirty = false;
	}
	pthread_mutex_unlock(&j->lock);
	if (ok)
		return 0;
	free(b->v);
	free(b->fds);
	return -ENOMEM;
}

/* Unpin; descriptors of sealed segments that are durable are closed by the caller: returns how many. */
static size_t scatter(struct journal *j, struct batch *b, int err)
{
	size_t n = 0;
	pthread_mutex_lock(&j->lock);
	for (size_t i = 0; i < b->n; i++) {
		struct segment *s = b->v[i];
		s->pins--;
		if (err)
			s->failed = true;
		else if (s->last_seq && s->last_seq <= b->upto)
			s->synced = true;
		if (!s->pins && s != j->cur && (s->failed || s->synced)) {
			b->fds[n++] = s->fd;
			s->fd = -1;
		}
	}
	if (err) {
		/* What was appended meanwhile is in a segment that failed, too; from here on nothing is. */
		b->upto = j->seq;
		j->sync_failed = true;
		j->dir_dirty = true;
		journal_degrade_locked(j, err);
	}
	pthread_mutex_unlock(&j->lock);
	return n;
}

/* One sync of everything. Returns 0 or -errno; *upto gets the records it concerned. */
static int pass(struct journal *j, uint64_t *upto)
{
	struct batch b;
	int err = gather(j, &b);
	if (err)
		return err;
	for (size_t i = 0; i < b.n && !err; i++)
		err = journal_sync_fd(j, b.v[i]->fd);
	if (!err && b.dir)
		err = journal_sync_fd(j, j->dirfd);
	size_t n = scatter(j, &b, err);
	for (size_t i = 0; i < n; i++)
		close(b.fds[i]);
	free(b.fds);
	free(b.v);
	*upto = b.upto;
	return err;
}

int sync_upto(struct journal *j, uint64_t seq)
{
	int err = 0;
	pthread_mutex_lock(&j->sync.lock);
	while (atomic_load(&j->head->synced_seq) < seq) {
		if (j->sync.failed_upto >= seq) {
			err = j->sync.err;
			break;
		}
		if (j->sync.running) {
			pthread_cond_wait(&j->sync.done, &j->sync.lock);
			continue;
		}
		j->sync.running = true;
		pthread_mutex_unlock(&j->sync.lock);
		uint64_t upto = 0;
		err = pass(j, &upto);
		pthread_mutex_lock(&j->sync.lock);
		j->sync.running = false;
		if (err && upto) {
			j->sync.failed_upto = upto;
			j->sync.err = err;
		} else if (!err) {
			atomic_store(&j->head->synced_seq, upto);
		}
		pthread_cond_broadcast(&j->sync.done);
		if (err)
			break;
	}
	pthread_mutex_unlock(&j->sync.lock);
	return err;
}

bool sync_behind(struct journal *j)
{
	struct segment *s;
	bool behind = false;
	pthread_mutex_lock(&j->lock);
	TAILQ_FOREACH (s, &j->segs, link)
		behind |= s != j->cur && needs_sync(s);
	pthread_mutex_unlock(&j->lock);
	return behind;
}

void journal_sync_begin(struct journal *j)
{
	if (j->opt.sync != JSYNC_FSYNC)
		return;
	pthread_mutex_lock(&j->lock);
	j->begin_sync = j->seq;
	pthread_cond_signal(&j->want_sync);
	pthread_mutex_unlock(&j->lock);
}

int journal_sync(struct journal *j)
{
	if (j->opt.sync != JSYNC_FSYNC)
		return 0;
	pthread_mutex_lock(&j->lock);
	uint64_t seq = j->seq;
	int degraded = j->degraded;
	pthread_mutex_unlock(&j->lock);
	int err = sync_upto(j, seq);
	if (!err && !degraded)
		return 0;
	/* What is not in the journal is in memory, and if that is lost, the mark in the head page makes the
	 * next start compare everything. So the mark is what has to be durable now. */
	return msync(j->head, JHEAD_SIZE, MS_SYNC) ? -errno : 0;
}
