/* SPDX-License-Identifier: BSD-2-Clause
 * How large a source is, counted in a thread while the first copy runs, so that the live line can tell how
 * much is left. The directory below the mount is walked (its descriptor comes from the mount), so the mount
 * does not notice. */
#ifndef TANDEM_CTL_ESTIMATE_H
#define TANDEM_CTL_ESTIMATE_H

#include "replicator/ctl/ctl.h"

struct estimate;

/* Begin to count. Returns 0, or a negative error when the mount does not answer. */
int estimate_start(struct estimate **out, const struct ctl_mirror *cm);
/* Say whether everything is counted; *files gets the entries and *bytes the bytes that files occupy. */
bool estimate_get(struct estimate *e, uint64_t *files, uint64_t *bytes);
/* Stop and free; NULL is allowed. */
void estimate_stop(struct estimate *e);

#endif
