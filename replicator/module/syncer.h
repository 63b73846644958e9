/* SPDX-License-Identifier: BSD-2-Clause
 * The thread that makes applied changes durable, so that applying never waits for the disk.
 *
 *   idle     nothing new since the last sync
 *   dirty    a position was stored; a sync follows at most SYNCER_INTERVAL_MS after the last one, at once on
 * request syncing  snapshot of the position, syncfs of the module, durable copy, state file, removal of
 * finished redo logs
 *
 * A syncfs that failed is not repeated: what it lost is unknown. The error stays; the session marks the
 * position as lost and ends. */
#ifndef TANDEM_MODULE_SYNCER_H
#define TANDEM_MODULE_SYNCER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "replicator/module/marker.h"
#include "replicator/module/position.h"
#include "replicator/module/redo.h"

#define SYNCER_INTERVAL_MS 1000

struct syncer {
	/* immutable after syncer_activate */
	int rootfd;  /* the module's directory, opened for reading; borrowed */
	int dirfd;   /* .tandem; borrowed */
	int statefd; /* the state file; borrowed */
	struct identity id;
	struct redo *redo; /* borrowed */
	int wake;	   /* eventfd: the owner polls it for reading; something was finished */
	pthread_t thread;
	bool started;

	pthread_mutex_t lock;
	/* protected by lock */
	pthread_cond_t cond; /* the thread waits here */
	bool active, stop, dirty;
	uint64_t requested, done; /* tickets of syncer_request */
	struct position next;	  /* newest position to make durable */
	struct wpos durable;	  /* what the disk has */
	uint64_t durable_at_done; /* its sequence when `done` was set */
	int err;		  /* first failed sync */
				  /* while free: done <= requested; durable is never ahead of next */
};

/* Start the idle thread (before seccomp forbids it). Returns 0 or -errno. */
int syncer_start(struct syncer *s);
/* Give it its work. now is the position, which the disk has too. */
void syncer_activate(struct syncer *s, int rootfd, int dirfd, int statefd, const struct identity *id,
		     struct redo *redo, const struct position *now);
/* A new position was stored. Copies. */
void syncer_dirty(struct syncer *s, const struct position *p);
/* Ask for a sync of everything applied so far; returns its ticket. */
uint64_t syncer_request(struct syncer *s, const struct position *p);
/* What has been reached: durable sequence, last finished ticket. Returns 0 or the error of a failed sync. */
int syncer_result(struct syncer *s, uint64_t *durable, uint64_t *done);
/* Sync once more if needed, end and join the thread. Returns 0 or the error of a failed sync. */
int syncer_stop(struct syncer *s, bool sync);

#endif
