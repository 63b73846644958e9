/* SPDX-License-Identifier: BSD-2-Clause
 * The identity of a module, kept twice: in the module's directory (.tandem/marker) and in the daemon's state
 * directory (MODULE.json). What the two say of each other:
 *
 *   marker  state   meaning
 *   no      no      first contact: both are made
 *   yes     yes     same id: go on. Other ids: another disk is mounted there, refused
 *   no      yes     the marker was lost: the disk is not mounted, refused
 *   yes     no      the module came from another host, or the state was lost: taken over, and reported as
 * WW_UNCLEAN
 *
 * The state also holds the highest position seen: a module whose position is older was restored from a
 * backup. */
#ifndef TANDEM_MODULE_MARKER_H
#define TANDEM_MODULE_MARKER_H

#include <stdint.h>
#include "proto/wire.h"

#define MARKER_ID_LEN 36    /* characters of a uuid */
#define STATE_BYTES   1024u /* the state file's fixed size: one write replaces it */

struct identity {
	char module_id[MARKER_ID_LEN + 1];
	uint8_t source_id[16];
};

struct module_state {
	struct identity id;
	struct wpos pos; /* highest durable position; digest unused */
};

/* Read dirfd/marker. Returns 0, -ENOENT, E_PROTO (not a marker) or -errno. */
int marker_read(int dirfd, struct identity *id);
/* Make dirfd/marker for a source, with a new module id. Durable on return. */
int marker_create(int dirfd, struct identity *id, const uint8_t source_id[16]);
/* Open or make stdir/MODULE.json. Returns a descriptor or -errno. The name is percent-encoded. */
int state_open(int stdir, const char *module);
/* Read the state. Returns 0, -ENOENT when it is empty, E_PROTO or -errno. */
int state_read(int fd, struct module_state *s);
/* Replace the state in one write, then fdatasync. */
int state_write(int fd, const struct module_state *s);

#endif
