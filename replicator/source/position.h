/* SPDX-License-Identifier: BSD-2-Clause
 * A target's durable position as the source remembers it: targets/<percent-encoded URL> in the state directory. It only
 * tells how much of the journal is still needed while the target cannot be asked; what is true is what the standby says. */
#ifndef TANDEM_POSITION_H
#define TANDEM_POSITION_H

#include <stdint.h>

struct saved_pos {
	uint8_t journal_id[16];
	uint64_t epoch;
	uint64_t seq; /* every record up to it is durable on the standby and nothing of it is outstanding */
};

/* Read. Returns 0, -ENOENT when there is none, or an error. */
int position_load(struct saved_pos *p, int state_dirfd, const char *url);
/* Replace; durable on return. Returns 0 or -errno. */
int position_save(const struct saved_pos *p, int state_dirfd, const char *url);

#endif
