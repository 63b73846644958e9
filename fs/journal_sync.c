/* SPDX-License-Identifier: BSD-2-Clause
 * Durability of the journal: group commit. See journal_priv.h.
 *
 * Many threads ask at once. One becomes the leader and syncs all segments written since the last sync; what
 * was appended before it began is durable when it ends. The others sleep, and whoever finds his
 * records not covered becomes the next leader, for all who came meanwhile. Appends never wait.
 *
 * Where the journal lies on the file system of the file whose fsync this is about, and that is ext4, one flush of the disk does for both:
 * the journal's pages are written before the file is synced, and ext4 ends every fsync with a flush of its disk (ext4_sync_file). That needs
 * pages that are only overwritten. So the block in which the records end must have been in a sync of the journal's own before: the first one that is
 * asked for after a block was begun.
 *
 * A failed fsync may have dropped the pages it could not write, and a second one would succeed without
 * them. So it is never repeated on that segment: the journal degrades, and goes on in a new segment with
 * RECHECKs of what those records touched. Until then the mark of the degraded state is what is synced: it
 * says that everything has to be compared. An application's fsync fails only if that fails, too. */
#include "config.h"
#include "fs/journal_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/mountinfo.h"
#include "proto/clock.h"
#include "proto/err.h"

#define SLOW_NS 500000 /* a sync for which it is worth to wake another thread */

struct batch {
	struct segment **v;
	int *fds; /* room for n descriptors to close afterwards */
	size_t n;
	uint64_t upto; /* records that are durable if all goes well */
	struct segment *cur; /* then, and */
	size_t tail;         /* how much of it was used */
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
		b->cur = j->cur;
		b->tail = j->tail;
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

/* A sync failed. What was appended since it began is in a segment that failed, too; from here on nothing is. Returns the last record of which that holds. */
static uint64_t give_up_locked(struct journal *j, int err)
{
	j->sync_failed = true;
	j->dir_dirty = true;
	journal_degrade_locked(j, err);
	return j->seq;
}

/* End the use of s->fd. Returns it if it is to be closed, else -1. */
static int unpin_locked(struct journal *j, struct segment *s)
{
	int fd = -1;
	s->pins--;
	if (!s->pins && s != j->cur && (s->failed || s->synced)) {
		fd = s->fd;
		s->fd = -1;
	}
	return fd;
}

/* Unpin; descriptors of sealed segments that are durable are closed by the caller: returns how many. */
static size_t scatter(struct journal *j, struct batch *b, int err)
{
	size_t n = 0;
	pthread_mutex_lock(&j->lock);
	for (size_t i = 0; i < b->n; i++) {
		struct segment *s = b->v[i];
		if (err)
			s->failed = true;
		else if (s->last_seq && s->last_seq <= b->upto)
			s->synced = true;
		else if (s == b->cur)
			s->settled = b->tail + (-b->tail & (j->block - 1));
		b->fds[n] = unpin_locked(j, s);
		n += b->fds[n] >= 0;
	}
	if (err)
		b->upto = give_up_locked(j, err);
	pthread_mutex_unlock(&j->lock);
	return n;
}

static void remember_time(struct journal *j, uint64_t ns)
{
	uint64_t mean = atomic_load_explicit(&j->sync_ns, memory_order_relaxed);
	atomic_store_explicit(&j->sync_ns, mean - mean / 4 + ns / 4, memory_order_relaxed);
}

/* One sync of everything. Returns 0 or -errno; *upto gets the records it concerned. */
static int pass(struct journal *j, uint64_t *upto)
{
	struct batch b;
	int err = gather(j, &b);
	if (err)
		return err;
	uint64_t began = clock_mono();
	for (size_t i = 0; i < b.n && !err; i++)
		err = journal_sync_fd(j, b.v[i]->fd);
	if (!err && b.dir)
		err = journal_sync_fd(j, j->dirfd);
	remember_time(j, clock_mono() - began);
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

int sync_write_fds(int segment, int file)
{
	sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE);
	return sync_file_range(segment, 0, 0, SYNC_FILE_RANGE_WRITE_AND_WAIT);
}

struct disk {
	dev_t dev;
	bool is_ext4;
};

static bool look(void *arg, const struct mountinfo *m)
{
	struct disk *d = arg;
	if (m->dev != d->dev)
		return true;
	d->is_ext4 = strcmp(m->type, "ext4") == 0 && !strstr(m->super, "data=journal");
	return false;
}

/* Whether this is an ext4 that writes files' bytes in place: not data=journal. */
static bool is_ext4(dev_t dev)
{
	struct disk d = {.dev = dev};
	mountinfo_each(look, &d);
	return d.is_ext4;
}

/* Whether a sync of a file on the journal's own file system makes everything appended so far durable, once it is written. */
static bool goes_with_locked(const struct journal *j)
{
	const struct segment *s = j->cur;
	return s && s->fd >= 0 && !s->failed && !j->degraded && !j->dir_dirty && j->tail <= s->settled &&
	    atomic_load(&j->head->synced_seq) >= s->first_seq - 1;
}

void sync_learn_disk(struct journal *j)
{
	struct stat st;
	int flags = 0;
	if (fstat(j->dirfd, &st) || !is_ext4(st.st_dev))
		return;
	if (ioctl(j->dirfd, FS_IOC_GETFLAGS, &flags) || flags & FS_JOURNAL_DATA_FL)
		return;
	j->dev = st.st_dev;
	j->block = (size_t)st.st_blksize;
}

static bool same_disk(const struct journal *j, int fd)
{
	struct stat st;
	return j->block && fstat(fd, &st) == 0 && st.st_dev == j->dev;
}

/* The kernel tells an error once, here: a later fsync would succeed. */
static void write_failed(struct journal *j, struct segment *s, int err)
{
	pthread_mutex_lock(&j->sync.lock);
	pthread_mutex_lock(&j->lock);
	s->failed = true;
	j->sync.failed_upto = give_up_locked(j, err);
	j->sync.err = err;
	pthread_mutex_unlock(&j->lock);
	pthread_mutex_unlock(&j->sync.lock);
}

uint64_t journal_sync_begin(struct journal *j, int fd)
{
	if (j->opt.sync != JSYNC_FSYNC)
		return 0;
	bool slow = atomic_load_explicit(&j->sync_ns, memory_order_relaxed) > SLOW_NS, same = same_disk(j, fd);
	pthread_mutex_lock(&j->lock);
	uint64_t upto = same && goes_with_locked(j) ? j->seq : 0;
	struct segment *s = j->cur;
	if (!upto && (slow || !s || s->fd < 0)) {
		j->begin_sync = j->seq;
		pthread_cond_signal(&j->want_sync);
		pthread_mutex_unlock(&j->lock);
		return 0;
	}
	s->pins++;
	pthread_mutex_unlock(&j->lock);
	if (!upto)
		sync_file_range(s->fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* only begins */
	else if (atomic_load(&j->write_fds)(s->fd, fd))
		upto = 0, write_failed(j, s, -errno);
	pthread_mutex_lock(&j->lock);
	int unused = unpin_locked(j, s);
	pthread_mutex_unlock(&j->lock);
	if (unused >= 0)
		close(unused);
	return upto;
}

bool journal_synced_with(struct journal *j, uint64_t upto)
{
	if (!upto)
		return false;
	pthread_mutex_lock(&j->lock);
	bool valid = !j->degraded && !j->sync_failed;
	pthread_mutex_unlock(&j->lock);
	if (!valid)
		return false;
	pthread_mutex_lock(&j->sync.lock);
	if (atomic_load(&j->head->synced_seq) < upto)
		atomic_store(&j->head->synced_seq, upto);
	pthread_cond_broadcast(&j->sync.done);
	pthread_mutex_unlock(&j->sync.lock);
	return true;
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
	return journal_write_head(j);
}
