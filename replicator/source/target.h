/* SPDX-License-Identifier: BSD-2-Clause
 * One target of a mirror: a thread that keeps a connection to its module daemon and everything sent. Other threads see the target
 * only through these functions. */
#ifndef TANDEM_TARGET_H
#define TANDEM_TARGET_H

#include <jansson.h>
#include "proto/mirror.h"
#include "replicator/source/verify.h"

struct target;

enum target_state { /* as shown; who moves: the target's thread */
	TS_WAITING,     /* for the mount, before the first attach */
	TS_CONNECTING,
	TS_COMPARING,
	TS_REPLICATING, /* shown as insync when nothing is missing */
	TS_HELD,        /* the standby cannot apply now, or the delete guard waits for the operator */
	TS_REFUSED      /* the standby does not want us */
};

struct target_env {
	const struct mirror *mirror;     /* borrowed, as all of these */
	const struct mirror_target *to;
	int state_dirfd;
	bool paused;                     /* begin without sending */
	/* Something that waiters may wait for has changed. Called from the target's thread without locks. */
	void (*changed)(void *arg);
	void *arg;
};

/* Start the thread. Returns 0 or an error. */
int target_start(struct target **out, const struct target_env *env);
/* Ask the thread to end. */
void target_stop(struct target *t);
/* Wait for it to end, until a CLOCK_MONOTONIC time (ns) at most. Returns false when it does not. */
bool target_join(struct target *t, uint64_t until);
/* Free a target whose thread has ended. The threads of the others look at it (reclaim.c): all must have ended. */
void target_free(struct target *t);

/* Stop or resume sending; the connection is kept. */
void target_pause(struct target *t, bool on);
/* Make what was applied durable soon: somebody waits. */
void target_sync(struct target *t);
/* Schedule a full comparison. allow: deletions that the delete guard held back are allowed. */
void target_resync(struct target *t, bool allow);
/* Run a verification; at the end, or when it cannot be run, the job is told. */
void target_verify(struct target *t, struct vjob *j);
/* Say whether everything up to record seq of that journal is durable on the standby and nothing of it is outstanding. If not, why names what is missing. */
bool target_has(struct target *t, const uint8_t journal_id[16], uint64_t seq, char *why, size_t size);
/* Records up to this are not needed for this target any more. */
uint64_t target_reclaimable(struct target *t, const uint8_t journal_id[16]);
/* The target's part of `status`, head_seq being the last record of that journal; *insync and *broken tell its share in the mirror's state. Returns owned. */
json_t *target_status(struct target *t, const uint8_t journal_id[16], uint64_t head_seq, bool *insync, bool *broken);

#endif
