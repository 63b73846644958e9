/* SPDX-License-Identifier: BSD-2-Clause
 * RENAMEs that were sent and are not acknowledged: what the standby could not do before one names what it was about as it was called then. */
#ifndef TANDEM_PASSED_H
#define TANDEM_PASSED_H

#include <sys/queue.h>
#include "replicator/source/follow.h"
#include "replicator/source/stream.h"

struct passed;

TAILQ_HEAD(passed_list, passed);

/* A RENAME was put into the stream. Returns 0 or -ENOMEM. */
int passed_add(struct passed_list *l, struct stream *s, const char *from, const char *to, bool exchange);
/* Whatever path may be called by now, itself first. names is to be ended in any case. Returns 0 or -ENOMEM. */
int passed_follow(struct passed_list *l, struct stream *s, const char *path, struct follow_names *names);
void passed_release(struct passed_list *l);

#endif
