/* SPDX-License-Identifier: BSD-2-Clause
 * The answer to `status`. A mirror is in sync only if every target is; it is broken if one shows an error that does not go away
 * by itself. The journal's last sequence number is read first, so that a change made meanwhile can only make the answer worse. */
#include "config.h"
#include <unistd.h>
#include "proto/ctlsock.h"
#include "replicator/source/replicator.h"

json_t *status_json(struct replicator *r)
{
	uint8_t journal_id[16];
	uint64_t seq = journal_end(r, journal_id);
	bool all = r->ntargets > 0, any = false, insync, broken, paused;
	json_t *list = json_array(), *o;
	int i;

	for (i = 0; i < r->ntargets; i++) {
		json_array_append_new(list, target_status(r->targets[i], journal_id, seq, &insync, &broken));
		all &= insync;
		any |= broken;
	}
	pthread_mutex_lock(&r->lock);
	paused = r->paused;
	pthread_mutex_unlock(&r->lock);
	o = json_pack("{s:b, s:s, s:b, s:I, s:i}", "ok", 1, "state",
	    any ? "broken" : all ? "insync" : "behind", "paused", paused, "seq", (json_int_t)seq, "pid", (int)getpid());
	ctl_set_path(o, "mirror", r->mirror.name);
	json_object_set_new(o, "targets", list);
	return o;
}
