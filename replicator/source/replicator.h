/* SPDX-License-Identifier: BSD-2-Clause
 * The process: one mirror, its targets, its control socket. */
#ifndef TANDEM_REPLICATOR_H
#define TANDEM_REPLICATOR_H

#include <pthread.h>
#include "proto/jhead.h"
#include "proto/mirror.h"
#include "replicator/source/target.h"

#define REPLICATOR_PAUSED "paused" /* in the state directory: sending is paused, also after the next start */

struct replicator {
	struct mirror mirror;    /* immutable after start */
	int state_dirfd, lockfd;
	struct target *targets[MIRROR_TARGETS_MAX];
	int ntargets;
	pthread_mutex_t lock;    /* protects what follows */
	pthread_cond_t changed;  /* a target moved */
	bool paused;
	struct jhead *head;      /* NULL until the journal exists */
	dev_t head_dev;          /* which file that is */
	ino_t head_ino;
};

/* Read FILE's section name, and run until SIGTERM or SIGINT, unless foreground in a child that leaves the terminal. Errors are logged or printed. Returns the exit
 * status. */
int replicator_run(const char *file, const char *name, bool foreground);

/* reclaim.c: tell the journal which records no target needs any more. Locks r. */
void reclaim(struct replicator *r);
/* status.c: the reply to `status`. Returns owned. */
json_t *status_json(struct replicator *r);
/* reclaim.c: the journal and its last record, both 0 if there is no journal yet. */
uint64_t journal_end_locked(struct replicator *r, uint8_t journal_id[16]);
/* The same. Locks r. */
uint64_t journal_end(struct replicator *r, uint8_t journal_id[16]);

/* control.c: serve one client of replicator.sock until it closes. Takes fd. */
void control_serve(struct replicator *r, int fd);

#endif
