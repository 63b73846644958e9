/* SPDX-License-Identifier: BSD-2-Clause
 * The life of the writer's segments: prepared, open, sealed, unlinked. See journal_priv.h.
 *
 * A segment is allocated in full before its first byte is written, so that a full disk shows in
 * fallocate(2) and not in the middle of a record. It has no name of its own before its first
 * sequence number is known: the switch writes the header into the mapping and the SEAL into that of the segment before, renames, and only then
 * publishes the SEAL. A crash in between leaves a sealed segment without a next one, or an empty one after it: recovery goes on from there. */
#include "config.h"
#include "fs/journal_priv.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"

struct segment *segment_new(uint64_t first_seq, size_t size)
{
	struct segment *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->first_seq = first_seq;
	s->size = size;
	s->fd = -1;
	return s;
}

void segment_free(struct segment *s)
{
	filemap_close(s->file);
	if (s->fd >= 0)
		close(s->fd);
	free(s);
}

int segment_map(struct segment *s)
{
	int err = filemap_write(&s->file, s->fd, s->size, NULL);
	s->map = err ? NULL : filemap_at(s->file);
	return err;
}

int segment_prepare(struct journal *j, struct segment **out)
{
	*out = NULL;
	struct segment *s = segment_new(0, j->opt.segment_size);
	if (!s)
		return -ENOMEM;
	unlinkat(j->dirfd, JOURNAL_NEXT_NAME, 0);
	int err = s->fd = fio_prealloc(j->dirfd, JOURNAL_NEXT_NAME, s->size, 0600);
	if (err >= 0) {
		/* The allocation is made durable here, so that the group commits after the switch need not.
		 */
		err = j->opt.sync == JSYNC_NEVER ? 0 : journal_sync_fd(j, s->fd);
		if (!err)
			err = segment_map(s);
	} /* cppcheck-suppress memleak ; the segment has it */
	if (err) {
		unlinkat(j->dirfd, JOURNAL_NEXT_NAME, 0);
		segment_free(s);
		return err;
	}
	*out = s;
	return 0;
}

void segment_count_locked(struct journal *j)
{
	uint64_t n = j->next ? j->next->size : 0;
	struct segment *s;
	TAILQ_FOREACH (s, &j->segs, link)
		n += s->size;
	atomic_store(&j->head->bytes, n);
}

/* Encode the SEAL that would follow now. */
static void make_seal(struct journal *j, uint8_t seal[JREC_HEADER], struct jrec *r)
{
	struct buf b = {.data = seal, .cap = JREC_HEADER, .max = JREC_HEADER};
	uint64_t csum;
	jrec_init(r, JT_SEAL);
	r->seq = j->seq + 1;
	r->time_ns = atomic_load(&j->head->committed_ns);
	jrec_put(&b, r);
	memcpy(&csum, seal + 32, 8);
	r->csum = le64toh(csum);
}

static void publish_seal(struct journal *j, const struct jrec *r)
{
	j->tail += JREC_HEADER;
	j->seq = j->cur->last_seq = r->seq;
	j->chain = jrec_chain(j->chain, r->csum);
	atomic_store_explicit(&j->head->committed_seq, r->seq, memory_order_release);
}

int segment_switch_locked(struct journal *j)
{
	struct segment *s = j->next;
	struct jrec r;
	uint8_t seal[JREC_HEADER];
	char name[JSEG_NAME_LEN];
	struct jseg h = {.epoch = j->epoch, .first_seq = j->seq + 1, .chain = j->chain, .size = s->size};
	memcpy(h.journal_id, j->id, 16);
	if (j->cur) {
		make_seal(j, seal, &r);
		h.first_seq = r.seq + 1;
		h.chain = jrec_chain(j->chain, r.csum);
	}
	jseg_put(s->map, &h);
	jseg_name(name, h.first_seq);
	if (j->cur)
		memcpy(j->cur->map + j->tail, seal, JREC_HEADER);
	if (filemap_failed(s->file) || (j->cur && filemap_failed(j->cur->file)))
		return -EIO;
	if (renameat(j->dirfd, JOURNAL_NEXT_NAME, j->dirfd, name))
		return -errno;
	if (j->cur)
		publish_seal(j, &r);
	s->first_seq = h.first_seq;
	TAILQ_INSERT_TAIL(&j->segs, s, link);
	j->cur = s;
	j->next = NULL;
	j->tail = JSEG_HEADER;
	j->dir_dirty = true;
	segment_count_locked(j);
	pthread_cond_signal(&j->want_next);
	journal_call_keeper_locked(j);
	return 0;
}

/* Take the oldest segment out of the list if all its records are <= upto. */
static struct segment *take_oldest(struct journal *j, uint64_t upto)
{
	pthread_mutex_lock(&j->lock);
	struct segment *s = TAILQ_FIRST(&j->segs);
	if (!j->cur || s == j->cur || s->last_seq > upto || s->pins) {
		s = NULL;
	} else {
		TAILQ_REMOVE(&j->segs, s, link);
		atomic_store(&j->head->first_seq, TAILQ_FIRST(&j->segs)->first_seq);
		segment_count_locked(j);
	}
	pthread_mutex_unlock(&j->lock);
	return s;
}

void segment_reclaim(struct journal *j, uint64_t upto)
{
	struct segment *s;
	while ((s = take_oldest(j, upto))) {
		char name[JSEG_NAME_LEN];
		jseg_name(name, s->first_seq);
		unlinkat(j->dirfd, name, 0);
		segment_free(s);
	}
}

void segment_tidy(struct journal *j)
{
	struct segment *s;
	pthread_mutex_lock(&j->lock);
	TAILQ_FOREACH (s, &j->segs, link) {
		if (s == j->cur || !s->map)
			continue;
		/* Only this thread unmaps, and nobody writes to a sealed segment: the slow call goes without
		 * the lock, which may let others append to the list but not take from it. */
		struct filemap *file = s->file;
		int fd = -1;
		s->file = NULL;
		s->map = NULL;
		if (j->opt.sync == JSYNC_NEVER && !s->pins) { /* nobody will need it for a sync */
			fd = s->fd;
			s->fd = -1;
		}
		pthread_mutex_unlock(&j->lock);
		filemap_close(file);
		if (fd >= 0)
			close(fd);
		pthread_mutex_lock(&j->lock);
	}
	pthread_mutex_unlock(&j->lock);
}
