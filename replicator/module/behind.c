/* SPDX-License-Identifier: BSD-2-Clause
 * Write-behind of large new files: see behind.h. */
#include "config.h"
#include "replicator/module/behind.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "proto/clock.h"
#include "proto/thread.h"

/* Wait until the bytes are on the disk, then give their memory back. */
static void finish(struct behind_piece *p)
{
	if (p->fd < 0)
		return;
	if (sync_file_range(p->fd, p->off, p->len,
			    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				SYNC_FILE_RANGE_WAIT_AFTER) == 0)
		posix_fadvise(p->fd, p->off, p->len, POSIX_FADV_DONTNEED);
	close(p->fd);
	p->fd = -1;
}

/* One piece is waited for while the next one is already under way. */
static void *thread_main(void *arg)
{
	struct behind *b = arg;
	struct behind_piece last = {.fd = -1}, p;
	pthread_mutex_lock(&b->lock);
	while (!b->stop) {
		if (b->n == 0 && last.fd < 0) {
			pthread_cond_wait(&b->more, &b->lock);
			continue;
		}
		p = (struct behind_piece){.fd = -1};
		if (b->n) {
			p = b->queue[b->first];
			b->first = (b->first + 1) % BEHIND_QUEUE;
			b->n--;
			pthread_cond_signal(&b->room);
		}
		pthread_mutex_unlock(&b->lock);
		if (p.fd >= 0)
			sync_file_range(p.fd, p.off, p.len, SYNC_FILE_RANGE_WRITE);
		finish(&last);
		last = p;
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	if (last.fd >= 0)
		close(last.fd);
	return NULL;
}

int behind_start(struct behind *b)
{
	memset(b, 0, sizeof(*b));
	pthread_mutex_init(&b->lock, NULL);
	clock_cond_init(&b->more);
	clock_cond_init(&b->room);
	int err = thread_start(&b->thread, 256 << 10, thread_main, b);
	b->started = !err;
	return err;
}

void behind_written(struct behind *b, struct behind_file *f, int dirfd, const char *name, uint64_t off,
		    uint64_t len)
{
	uint64_t end = off + len - (off + len) % BEHIND_ALIGN;
	if (f->bytes < BEHIND_FROM) {
		f->bytes += len;
		f->from = end;
		return;
	}
	f->fresh += len;
	if (f->fresh < BEHIND_PIECE || end <= f->from)
		return;
	uint64_t from = f->from;
	f->from = end;
	f->fresh = 0;
	if (end - from > 2 * (uint64_t)BEHIND_PIECE) /* scattered */
		return;
	struct behind_piece p = {.fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW),
				 .off = (off_t)from,
				 .len = (off_t)(end - from)};
	if (p.fd < 0)
		return;
	uint64_t until = clock_mono() + BEHIND_MS * NS_PER_MS;
	pthread_mutex_lock(&b->lock);
	while (b->n == BEHIND_QUEUE && clock_wait(&b->room, &b->lock, until) != ETIMEDOUT)
		;
	bool room = b->n < BEHIND_QUEUE;
	if (room) {
		b->queue[(b->first + b->n++) % BEHIND_QUEUE] = p;
		pthread_cond_signal(&b->more);
	}
	pthread_mutex_unlock(&b->lock);
	if (!room)
		close(p.fd);
}

void behind_stop(struct behind *b)
{
	if (!b->started)
		return;
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_signal(&b->more);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->thread, NULL);
	b->started = false;
	for (; b->n; b->n--, b->first = (b->first + 1) % BEHIND_QUEUE)
		close(b->queue[b->first].fd);
}
