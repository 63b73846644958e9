/* SPDX-License-Identifier: BSD-2-Clause
 * What the journal may forget: the smallest position that every configured target has durably, with nothing outstanding before it. A target that
 * was never connected has none and holds the journal, until its limit makes it collapse. */
#include "config.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "replicator/source/replicator.h"

/* Map the head page as soon as it exists, or again when it was made anew. */
static void map_locked(struct replicator *r)
{
	struct jhead *h;
	int dir;

	if (r->head != NULL && atomic_load(&r->head->writer_pid) != 0)
		return;
	dir = openat(r->state_dirfd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return;
	if (jhead_map(&h, dir, 0) == 0) {
		if (r->head != NULL)
			jhead_unmap(r->head);
		r->head = h;
	}
	close(dir);
}

void reclaim(struct replicator *r)
{
	uint64_t least = UINT64_MAX, seq;
	int i;

	pthread_mutex_lock(&r->lock);
	map_locked(r);
	if (r->head != NULL) {
		for (i = 0; i < r->ntargets; i++) {
			seq = target_reclaimable(r->targets[i], r->head->journal_id);
			if (seq < least)
				least = seq;
		}
		if (least != UINT64_MAX)
			jhead_reclaim(r->head, least);
	}
	pthread_mutex_unlock(&r->lock);
}

uint64_t replicator_seq(struct replicator *r)
{
	uint64_t seq;

	pthread_mutex_lock(&r->lock);
	map_locked(r);
	seq = r->head == NULL ? 0 : atomic_load(&r->head->committed_seq);
	pthread_mutex_unlock(&r->lock);
	return seq;
}
