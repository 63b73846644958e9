/* SPDX-License-Identifier: BSD-2-Clause
 * A bounded set of paths to compare again. It stands for journal records that could not be written
 * (degraded) or were dropped (collapse): whatever those records did, comparing these paths repairs it.
 *
 * The set never refuses and never loses: beyond its bounds, or without memory, the deepest entries become
 * their parents, recursively, and in the end the root. Not thread-safe. */
#ifndef TANDEM_FS_PATHSET_H
#define TANDEM_FS_PATHSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/jrec.h"

#define PATHSET_MAX   100000u	  /* entries */
#define PATHSET_BYTES (32u << 20) /* bytes of paths */

struct pathset_entry {
	char *path;   /* owned by the set; NULL: slot is free */
	uint32_t len; /* bytes without NUL */
	uint32_t hash;
	uint16_t flags; /* JF_RECURSIVE, JF_CHECKSUM, JF_DRIFT, JF_RECOVERY */
};

struct pathset {
	struct pathset_entry *slots; /* open addressing, cap is a power of two */
	size_t cap;
	size_t n;	    /* entries */
	size_t bytes;	    /* of their paths, NULs included */
	bool all;	    /* the root, recursively: nothing else is kept any more */
	uint16_t all_flags; /* JF_CHECKSUM ... of that */
};

void pathset_init(struct pathset *s);
void pathset_release(struct pathset *s);
static inline bool pathset_empty(const struct pathset *s)
{
	return !s->n && !s->all;
}

/* Add a path with JF_* flags; an entry that is there gets the union of the flags. Copies path. */
void pathset_add(struct pathset *s, const char *path, uint16_t flags);
/* Add what a record touches: its paths, their parents where the operation changed them, the whole
 * destination of a directory's rename. */
void pathset_add_record(struct pathset *s, const struct jrec *r);
/* Add all entries of o. */
void pathset_union(struct pathset *s, const struct pathset *o);
/* Coarsen until the RECHECK records of the set have at most bytes in total and max in number. */
void pathset_fit(struct pathset *s, size_t max, size_t bytes);
/* List the entries sorted by path, parents first, without those that lie in a recursive one. *out is an array
 * the caller frees; the paths stay the set's. Returns its length or -ENOMEM. */
int pathset_list(struct pathset *s, struct pathset_entry **out);

#endif
