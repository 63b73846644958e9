/* SPDX-License-Identifier: BSD-2-Clause
 * What each thread of the session keeps. */
#include "config.h"

#include "fs/tandemfs.h"

#include <stdlib.h>

#include "fs/cred.h"
#include "fs/inflight.h"

struct worker *worker_get(struct tfs *fs)
{
	struct worker *w = pthread_getspecific(fs->worker_key);

	if (w) {
		stay_turn(&fs->stay, &w->seat);
		return w;
	}
	w = malloc(sizeof(*w));
	if (!w)
		return NULL;
	w->fs = fs;
	w->server = NULL;
	w->look = 0;
	w->changing[0] = w->changing[1] = NULL;
	w->iobuf = NULL;
	w->iosize = 0;
	w->op = inflight_op_alloc(fs->inflight);
	cred_thread_init(w);
	if (pthread_setspecific(fs->worker_key, w) != 0) {
		inflight_op_free(fs->inflight, w->op);
		free(w);
		return NULL;
	}
	stay_join(&fs->stay, &w->seat);
	return w;
}

void worker_free(void *arg)
{
	struct worker *w = arg;

	stay_leave(&w->fs->stay, &w->seat);
	inflight_op_free(w->fs->inflight, w->op);
	free(w->iobuf);
	free(w);
}
