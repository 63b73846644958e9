/* SPDX-License-Identifier: BSD-2-Clause
 * The thread that syncs the source: see checkpoint.h. */
#include "config.h"

#include "fs/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/clock.h"
#include "proto/err.h"
#include "proto/log.h"

#define TICK_S 1 /* seconds between looks at the clock */

struct checkpoint {
	struct tfs *fs;
	pthread_t thread;
	bool failed; /* what was lost then, no later sync brings back */
	pthread_mutex_t lock;
	pthread_cond_t wake; /* protected by lock, as stop */
	bool stop;
};

/* Not while the journal cannot be written: what it stands for then is in memory alone. */
static void make(struct checkpoint *c)
{
	struct journal *j = c->fs->journal;
	uint64_t seq = journal_seq(j), ns = journal_now();
	int r;

	if (c->failed || atomic_load(&journal_head(j)->degraded))
		return;
	if (syncfs(c->fs->rootfd) < 0) {
		r = -errno;
		c->failed = true;
		log_error("the source could not be synced: %s; after a power failure all that changed since "
			  "its last sync is compared",
			  err_text(r));
		return;
	}
	r = journal_checkpoint(j, seq, ns);
	if (r < 0)
		log_warn("the journal could not be synced: %s", err_text(r));
}

static void *thread_main(void *arg)
{
	struct checkpoint *c = arg;
	struct journal *j = c->fs->journal;
	uint64_t at;
	int left = 0; /* seconds */

	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		pthread_mutex_unlock(&c->lock);
		journal_clock(j, journal_now());
		if (left <= 0 && journal_seq(j) > atomic_load(&journal_head(j)->safe_seq)) {
			make(c);
			left = CHECKPOINT_S;
		}
		at = clock_mono() + TICK_S * NS_PER_S;
		left -= TICK_S;
		pthread_mutex_lock(&c->lock);
		if (!c->stop)
			clock_wait(&c->wake, &c->lock, at);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int checkpoint_start(struct tfs *fs)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->fs = fs;
	pthread_mutex_init(&c->lock, NULL);
	clock_cond_init(&c->wake);
	r = pthread_create(&c->thread, NULL, thread_main, c);
	if (r != 0) {
		free(c);
		return -r;
	}
	fs->checkpoint = c;
	return 0;
}

void checkpoint_stop(struct tfs *fs)
{
	struct checkpoint *c = fs->checkpoint;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	make(c);
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->lock);
	free(c);
	fs->checkpoint = NULL;
}
