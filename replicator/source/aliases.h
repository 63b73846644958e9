/* SPDX-License-Identifier: BSD-2-Clause
 * Files that were changed under a name that is excluded: their other names are searched for in the tree and compared. One search for all that wait for it,
 * and a tenth of the time at most is spent on searches. */
#ifndef TANDEM_ALIASES_H
#define TANDEM_ALIASES_H

#include "replicator/source/compare.h"
#include "replicator/source/inoset.h"

/* All zero: none. */
struct aliases {
	struct inoset wanted; /* inodes whose names that are not excluded are to be found and compared */
	struct inoset alone;  /* those that had none when they were searched, and no name was given since */
	uint64_t due_ns;      /* CLOCK_MONOTONIC of the next search */
};

/* Have the names of ino compared. Returns false if it is known that it has none. */
bool aliases_want(struct aliases *a, uint64_t ino);
/* Names were given that are not excluded: inodes that had none may have one. */
void aliases_named(struct aliases *a);
/* Say whether a search is to be made. */
bool aliases_wanted(const struct aliases *a);
/* Search, and schedule what was found in c. Returns 1, or 0 when nothing is wanted or it is not time for it, or -ENOMEM, or -errno when the tree could not be
 * read: all of it is scheduled then. */
int aliases_search(struct aliases *a, int rootfd, const struct filter *filter, struct compare *c);
void aliases_release(struct aliases *a);

#endif
