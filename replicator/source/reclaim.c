/* SPDX-License-Identifier: BSD-2-Clause
 * What the journal may forget: the smallest position that every configured target has durably, with nothing outstanding before it. A target that
 * was never connected has none and holds the journal, until its limit makes it collapse. */
#include "config.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "replicator/source/replicator.h"

/* Map the head page as soon as it exists, or again when there is another: who removed the journal may have killed its writer before. */
static void map_locked(struct replicator *r)
{
	struct jhead *h;
	struct stat st;
	int dir;

	if (fstatat(r->state_dirfd, "journal/" JHEAD_NAME, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return;
	if (r->head != NULL && st.st_ino == r->head_ino && st.st_dev == r->head_dev)
		return;
	dir = openat(r->state_dirfd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return;
	if (jhead_map(&h, dir, 0) == 0) {
		if (r->head != NULL)
			jhead_unmap(r->head);
		r->head = h;
		r->head_ino = st.st_ino;
		r->head_dev = st.st_dev;
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

uint64_t journal_end_locked(struct replicator *r, uint8_t journal_id[16])
{
	map_locked(r);
	memset(journal_id, 0, 16);
	if (r->head == NULL)
		return 0;
	memcpy(journal_id, r->head->journal_id, 16);
	return atomic_load(&r->head->committed_seq);
}

uint64_t journal_end(struct replicator *r, uint8_t journal_id[16])
{
	uint64_t seq;

	pthread_mutex_lock(&r->lock);
	seq = journal_end_locked(r, journal_id);
	pthread_mutex_unlock(&r->lock);
	return seq;
}
