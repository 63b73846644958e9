/* SPDX-License-Identifier: BSD-2-Clause
 * `tandemctl verify`: a comparison that somebody waits for. The control thread makes a job and hands it to every target; each target's thread runs
 * it beside live replication and puts what it finds into the job's queue; the control thread takes it out. */
#ifndef TANDEM_VERIFY_H
#define TANDEM_VERIFY_H

#include <jansson.h>
#include "replicator/source/compare.h"

/* --- the job, shared between threads --- */

struct vjob;

/* A job for ntargets targets with compare_flags. Returns 0 or -ENOMEM. The maker holds one reference. */
int vjob_new(struct vjob **out, unsigned flags, int ntargets);
void vjob_ref(struct vjob *j);
void vjob_unref(struct vjob *j);
unsigned vjob_flags(const struct vjob *j);
/* Add a line. what is static text. */
void vjob_found(struct vjob *j, const char *target, const char *path, const char *what);
/* A target is done: its counts, and an error (NULL: none). */
void vjob_done(struct vjob *j, const char *target, uint64_t differences, uint64_t repaired, const char *error);
/* Nobody waits any more. */
void vjob_cancel(struct vjob *j);
bool vjob_cancelled(struct vjob *j);
/* Take the next packet for the client, waiting up to timeout_ms. *more says whether it is a line; else it is the last packet. Returns the packet
 * (owned), or NULL on time-out. */
json_t *vjob_take(struct vjob *j, int timeout_ms, bool *more);

/* --- a target's run of it, in the target's thread --- */

struct vrun;

/* Begin. Keeps a reference to the job; borrows the rest. What a repair cannot repair is told to env->failed, too, if that is not NULL. Returns 0 or
 * an error. */
int vrun_new(struct vrun **out, struct vjob *j, const char *target, const struct compare_env *env);
/* Free; tells the job that it was cut short (error) if it was not done. */
void vrun_free(struct vrun *v, const char *error);
/* What a run sees of its connection. */
struct vrun_seen {
	uint64_t applied;       /* the last record the standby has with everything before */
	uint64_t head;          /* the journal's last */
	uint64_t sent, durable; /* bytes put into the stream; how many of them are on the standby's disk */
	bool trying;            /* something failed and is compared once more, or another comparison is under way */
	size_t failed;          /* paths that failed, and failed again */
};
/* Do a piece. Returns 1: did something; 0: waits; 2: done; or an error. */
int vrun_step(struct vrun *v, const struct vrun_seen *seen);
/* Say whether it changes the standby. */
bool vrun_repairs(const struct vrun *v);
/* Say whether it waits until what it put into the stream is durable. */
bool vrun_wants_sync(const struct vrun *v);
struct compare *vrun_compare(struct vrun *v);

#endif
