/* SPDX-License-Identifier: BSD-2-Clause
 * Answers to LIST and SUMS, in pieces: a large directory or file does not hold up the stream. The names of a
 * directory are read at once when its turn comes; their attributes and the blocks of a file piece by piece.
 */
#ifndef TANDEM_MODULE_LIST_H
#define TANDEM_MODULE_LIST_H

#include <stdbool.h>
#include "proto/buf.h"
#include "proto/filter.h"
#include "proto/wire.h"
#include "replicator/module/reach.h"

#define LIST_NAMES_MAX (256u << 20) /* bytes of names of one directory */

struct list_job;

/* Begin with a LIST or SUMS payload. rootfd, filter and reach are borrowed for the life of the job; filter may be NULL, and reach where
 * nothing may be changed. Returns 0, E_PROTO or -ENOMEM. A path that is not there is answered, not an error. */
int list_begin(struct list_job **out, int rootfd, const struct filter *filter, struct reach *reach, struct buf *payload);
int sums_begin(struct list_job **out, int rootfd, const struct filter *filter, struct reach *reach, struct buf *payload);
/* Append the next reply frame's payload to out (cleared before); *type gets its frame type. Returns 1: more
 * follows; 0: that was the last; or an error. */
int list_step(struct list_job *j, struct buf *out, enum frame_type *type);
void list_free(struct list_job *j);

#endif
