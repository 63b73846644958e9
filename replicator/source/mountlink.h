/* SPDX-License-Identifier: BSD-2-Clause
 * The way to the running mount: one `attach` connection to mount.sock per target thread. It gives the source root, the journal and a slot
 * for the doorbell (docs/ARCHITECTURE.md, Control sockets). The source is never opened by path. */
#ifndef TANDEM_MOUNTLINK_H
#define TANDEM_MOUNTLINK_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/jhead.h"

struct mountlink {
	int sock;              /* -1: the mount is gone; what follows stays valid */
	int efd;               /* doorbell */
	int rootfd, jdirfd;    /* -1 before the first attach; their numbers never change afterwards */
	int slot;              /* in the head page; -1 while detached */
	uint8_t source_id[16];
};

/* Prepare; no system calls. */
void mountlink_init(struct mountlink *l);
/* Attach, or attach again after the mount was started anew. Returns 0; -ENOENT or -ECONNREFUSED when no mount runs; E_FOREIGN when it now
 * serves another source; or another error. */
int mountlink_attach(struct mountlink *l, int state_dirfd);
/* Look whether the mount closed its end (poll said something about sock). Returns true if it is gone; sock is then closed. */
bool mountlink_lost(struct mountlink *l);
/* Going to sleep: ask to be woken by records after seq. Returns 1 if there are some already, 0, or -EIO: the head page takes no stores, so that
 * nobody can be asked. */
int mountlink_arm(const struct mountlink *l, struct jhead *head, uint64_t seq);
/* Awake: no ring is needed; takes pending rings off the doorbell. rang: poll saw one. */
void mountlink_disarm(const struct mountlink *l, struct jhead *head, bool rang);
void mountlink_release(struct mountlink *l);

#endif
