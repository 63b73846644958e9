/* SPDX-License-Identifier: BSD-2-Clause
 * The limit of the journal: all its records become the set of paths they touched. See journal_priv.h.
 *
 * The set stands for everything from the journal's first record to the place where it is written, and it
 * begins a segment of its own, after which all older segments are unlinked: a reader that is behind finds no
 * record of the range and the COLLAPSED at the journal's beginning, one that has seen the range may skip the
 * RECHECKs. Since no record of the range survives, a rename in it needs no translation of older paths:
 * its destination is compared as a whole.
 *
 * The keeper reads most of the journal without the lock, in rounds, each shorter than the last, and
 * takes the lock for the rest: no path can move between the reading and the writing of the set. All RECHECKs
 * go into one segment, the set is coarsened to that. They are durable before anything is unlinked. */
#include "config.h"
#include "fs/journal_priv.h"

#include <errno.h>

#include "proto/err.h"
#include "proto/jreader.h"
#include "proto/log.h"

#define ROUNDS 16  /* of catching up before the lock is taken regardless */
#define REST   256 /* records worth reading under the lock */

/* Add all records from the reader's place up to last. *from (may be NULL) gets the first record they stand
 * for. */
static void read_on(struct jreader *rd, struct pathset *set, uint64_t *from, uint64_t last)
{
	struct jrec r;
	int got = 1;
	while (jreader_seq(rd) < last && (got = jreader_next(rd, &r, NULL, NULL)) == 1) {
		if (from && r.type == JT_COLLAPSED && r.from < *from)
			*from = r.from;
		pathset_add_record(set, &r);
		jrec_release(&r);
	}
	if (got < 0 && !set->all) {
		log_error("journal: record %llu cannot be read (%s); everything will be compared",
			  (unsigned long long)jreader_seq(rd) + 1, err_text(got));
		pathset_add(set, "", JF_RECURSIVE);
	}
}

void collapse_read(struct journal *j, struct pathset *set, uint64_t first, uint64_t last)
{
	struct jreader *rd = NULL;
	int err = jreader_open(&rd, j->dirfd);
	if (!err)
		err = jreader_seek(rd, first - 1, NULL);
	if (err)
		pathset_add(set, "", JF_RECURSIVE);
	else
		read_on(rd, set, NULL, last);
	jreader_close(rd);
}

/* Read until little is left; returns with the lock held. */
static void catch_up(struct journal *j, struct jreader *rd, struct pathset *set, uint64_t *from)
{
	for (int round = 0;; round++) {
		read_on(rd, set, from, journal_seq(j));
		pthread_mutex_lock(&j->lock);
		if (!j->next && !j->next_err && !j->degraded)
			journal_wait_locked(j, &j->ready, JOURNAL_WAIT_MS / 8);
		bool close = set->all || j->seq - jreader_seq(rd) <= REST;
		if (round >= ROUNDS || (close && (j->next || j->next_err || j->degraded)))
			return;
		pthread_mutex_unlock(&j->lock);
	}
}

/* Write the set at the beginning of a new segment. */
static int replace_locked(struct journal *j, struct jreader *rd, struct pathset *set, uint64_t *from)
{
	if (j->degraded || !j->next)
		return -EAGAIN;
	read_on(rd, set, from, j->seq);
	pathset_fit(set, PATHSET_MAX, segment_room(j->next->size) - JREC_HEADER - 24);
	int err = segment_switch_locked(j);
	if (err)
		return err;
	uint64_t upto = j->seq;
	err = journal_put_set_locked(j, set, *from);
	if (err) { /* what was put of it is too much, and does no harm */
		journal_degrade_locked(j, err);
		return err;
	}
	j->collapsed_to = upto;
	j->collapsed_end = j->seq;
	atomic_store(&j->head->collapsed, 1);
	return 0;
}

/* The disk is full, and old segments of ours lie on it: what they say goes to the set in memory, as what changes meanwhile does. The mark of
 * the degraded state stands for the set if we die: then everything is compared. */
void collapse_give_up(struct journal *j)
{
	struct jreader *rd = NULL;
	struct pathset set;
	pthread_mutex_lock(&j->lock);
	bool due = j->degraded == -ENOSPC && !j->sync_failed && !j->next && j->cur && TAILQ_FIRST(&j->segs) != j->cur;
	uint64_t from = atomic_load(&j->head->first_seq), last = j->seq, cur = due ? j->cur->first_seq : 0;
	pthread_mutex_unlock(&j->lock);
	if (!due || journal_write_head(j))
		return;
	pathset_init(&set);
	int err = jreader_open(&rd, j->dirfd);
	if (!err)
		err = jreader_rewind(rd);
	if (err)
		pathset_add(&set, "", JF_RECURSIVE | JF_CHECKSUM);
	else
		read_on(rd, &set, &from, last);
	jreader_close(rd);
	pthread_mutex_lock(&j->lock);
	pathset_union(&j->dirty, &set);
	pathset_fit(&j->dirty, PATHSET_MAX, segment_room(j->opt.segment_size) - JREC_HEADER - 24);
	j->given_up = from;
	pthread_mutex_unlock(&j->lock);
	pathset_release(&set);
	segment_reclaim(j, cur - 1);
	log_warn("journal: the disk is full and smaller than the journal's limit: records %llu to %llu were given up, their paths will be "
		 "compared; a target is behind or away, see tandemctl status",
		 (unsigned long long)from, (unsigned long long)last);
}

int journal_collapse(struct journal *j)
{
	struct jreader *rd = NULL;
	struct pathset set;
	pathset_init(&set);
	int err = jreader_open(&rd, j->dirfd);
	if (!err)
		err = jreader_rewind(rd);
	if (err) { /* the oldest segment is damaged: nothing is known about any record */
		pathset_add(&set, "", JF_RECURSIVE);
		log_error("journal: the oldest segment cannot be read (%s); everything will be compared",
			  err_text(err));
	}
	uint64_t from = atomic_load(&j->head->first_seq);
	if (rd) {
		catch_up(j, rd, &set, &from);
		err = replace_locked(j, rd, &set, &from);
		pthread_mutex_unlock(&j->lock);
	}
	size_t n = set.all ? 1 : set.n;
	pathset_release(&set);
	jreader_close(rd);
	if (err)
		return err;
	journal_ring(j);
	log_warn("journal: at its limit of %llu bytes, records %llu to %llu became a comparison of %zu "
		 "paths; a target "
		 "is behind or away, see tandemctl status",
		 (unsigned long long)j->opt.limit, (unsigned long long)from,
		 (unsigned long long)j->collapsed_to, n);
	err = j->opt.sync == JSYNC_NEVER ? 0 : sync_upto(j, journal_seq(j));
	if (!err)
		segment_reclaim(j, j->collapsed_to);
	return err;
}
