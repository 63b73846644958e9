/* SPDX-License-Identifier: BSD-2-Clause
 * The syncer thread: see syncer.h. */
#include "config.h"
#include "replicator/module/syncer.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "proto/clock.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"
#include "proto/thread.h"

/* Copy without the unused part of the outstanding numbers. */
static void copy_position(struct position *to, const struct position *from)
{
	memcpy(to, from, offsetof(struct position, out) + from->nout * sizeof(from->out[0]));
}

static int save(struct syncer *s, const struct position *p)
{
	struct module_state st = {.id = s->id, .pos = p->pos};
	uint64_t *list;
	uint32_t n = redo_take_done(s->redo, &list);
	if (syncfs(s->rootfd)) {
		int err = -errno;
		log_error("syncfs of the module failed: %s; what was written since the last sync may be lost "
			  "and will be compared again",
			  err_text(err));
		redo_remove(s->redo, list, 0);
		return err;
	}
	redo_remove(s->redo, list, n);
	int err = position_save(s->dirfd, p);
	if (err == -ENOSPC || err == -EDQUOT || err == -EROFS)
		return 1; /* later */
	if (!err && s->statefd >= 0)
		state_write(s->statefd, &st);
	return err;
}

/* Returns whether the sync was put off for want of space. */
static bool run_once(struct syncer *s, struct position *p)
{
	uint64_t ticket = s->requested;
	copy_position(p, &s->next);
	s->dirty = false;
	pthread_mutex_unlock(&s->lock);
	int err = save(s, p);
	pthread_mutex_lock(&s->lock);
	if (err > 0) {
		s->dirty = true;
		return true;
	}
	if (err) {
		s->err = s->err ? s->err : err;
	} else {
		s->durable = p->pos;
		s->done = ticket;
		s->durable_at_done = p->pos.seq;
	}
	uint64_t one = 1;
	if (write(s->wake, &one, sizeof(one)) < 0) {
		/* full: the owner is woken anyway */
	}
	return false;
}

static void *thread_main(void *arg)
{
	struct syncer *s = arg;
	uint64_t due = 0;
	struct position p;
	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		bool asked = s->active && !s->err && s->requested != s->done;
		if (!asked && (!s->active || !s->dirty || s->err)) {
			pthread_cond_wait(&s->cond, &s->lock);
			continue;
		}
		if (!asked && clock_wait(&s->cond, &s->lock, due) != ETIMEDOUT)
			continue;
		bool put_off = run_once(s, &p);
		due = clock_mono() + SYNCER_INTERVAL_MS * NS_PER_MS;
		if (put_off) /* do not spin */
			clock_wait(&s->cond, &s->lock, due);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int syncer_start(struct syncer *s)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	clock_cond_init(&s->cond);
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake < 0)
		return -errno;
	int err = thread_start(&s->thread, 256 << 10, thread_main, s);
	s->started = !err;
	return err;
}

void syncer_activate(struct syncer *s, int rootfd, int dirfd, int statefd, const struct identity *id,
		     struct redo *redo, const struct position *now)
{
	pthread_mutex_lock(&s->lock);
	s->rootfd = rootfd;
	s->dirfd = dirfd;
	s->statefd = statefd;
	s->id = *id;
	s->redo = redo;
	s->durable = now->pos;
	copy_position(&s->next, now);
	s->active = true;
	pthread_mutex_unlock(&s->lock);
}

void syncer_dirty(struct syncer *s, const struct position *p)
{
	pthread_mutex_lock(&s->lock);
	copy_position(&s->next, p);
	if (!s->dirty)
		pthread_cond_signal(&s->cond);
	s->dirty = true;
	pthread_mutex_unlock(&s->lock);
}

uint64_t syncer_request(struct syncer *s, const struct position *p)
{
	pthread_mutex_lock(&s->lock);
	copy_position(&s->next, p);
	uint64_t ticket = ++s->requested;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
	return ticket;
}

int syncer_result(struct syncer *s, uint64_t *durable, uint64_t *done)
{
	uint64_t count;
	if (read(s->wake, &count, sizeof(count)) < 0) {
		/* nothing new: the values below are still right */
	}
	pthread_mutex_lock(&s->lock);
	*durable = s->durable.seq;
	*done = s->done;
	int err = s->err;
	pthread_mutex_unlock(&s->lock);
	return err;
}

int syncer_stop(struct syncer *s, bool sync)
{
	if (!s->started)
		return 0;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	s->started = false;
	if (sync && s->active && !s->err) {
		int err = save(s, &s->next);
		s->err = err < 0 ? err : 0;
	}
	close(s->wake);
	return s->err;
}
