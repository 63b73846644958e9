/* SPDX-License-Identifier: BSD-2-Clause
 * The directories whose mtime a batch disturbs, in .tandem/touched: a child that is killed before it set them back leaves here
 * what they had. Restoring is right whatever was applied: the records after the position come again, with the times they bring.
 *
 * The file holds entries one after another, each valid by its checksum; those that count bear the serial of the first one.
 * Written with pwrite and not synced, as the position page (position.h); of no use after a power failure. */
#ifndef TANDEM_MODULE_TOUCHED_H
#define TANDEM_MODULE_TOUCHED_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/jrec.h"
#include "replicator/module/reach.h"

#define TOUCHED_SIZE  65536u
#define TOUCHED_PATH  4096u		   /* bytes; a longer path is not remembered */
#define TOUCHED_ENTRY (TOUCHED_PATH + 40u) /* bytes of an entry at most */

struct touched {
	int fd;          /* -1: nothing is remembered */
	uint64_t serial; /* of the present entries */
	size_t used;     /* bytes of them */
};

/* Open or make dirfd/touched. Returns 0 or -errno. */
int touched_open(struct touched *t, int dirfd);
void touched_close(struct touched *t);
/* Set the directories back that an earlier process left, if their paths still lead to them; or forget them. reach gives permission for
 * what is closed to its owner; may be NULL. */
void touched_restore(struct touched *t, int rootfd, struct reach *reach);
void touched_forget(struct touched *t);
/* Remember a directory before it is changed: its path (len bytes, relative to the module), inode and mtime. */
void touched_note(struct touched *t, const char *path, size_t len, uint64_t ino, struct jtime mtime);
/* Say whether there may be no room for another entry. */
bool touched_full(const struct touched *t);

#endif
