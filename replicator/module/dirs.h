/* SPDX-License-Identifier: BSD-2-Clause
 * The directories that a batch works in: their descriptors, opened once, and the mtime each gets back at the
 * end of the batch. */
#ifndef TANDEM_MODULE_DIRS_H
#define TANDEM_MODULE_DIRS_H

#include <stdbool.h>
#include "replicator/module/touched.h"

#define DIRS_MAX 32 /* directories held open */

struct dir {
	char *path;	    /* relative to the module; owned */
	size_t len;	    /* bytes of path */
	int fd;		    /* O_PATH */
	bool restore;	    /* mtime is to be set */
	struct jtime mtime; /* what it gets */
	unsigned used;	    /* clock of the last use */
};

struct dirs {
	int rootfd; /* the module's directory; borrowed */
	struct touched touched;
	unsigned clock;
	unsigned n;
	struct dir v[DIRS_MAX];
};

/* touchedfd is the directory of the file "touched", -1: none. What an earlier process left in it is restored if restore is set;
 * reach: as for touched_restore. Returns 0 or -errno. */
int dirs_init(struct dirs *d, int rootfd, int touchedfd, struct reach *reach, bool restore);
void dirs_release(struct dirs *d);
/* Find or open the directory that holds path; *base gets the last component. The two directories asked for
 * last stay valid. Returns 0 or -errno as path_open_parent. */
int dirs_parent(struct dirs *d, const char *path, struct dir **dir, const char **base);
/* Remember, before dir changes, which mtime it gets at the end: pm, or what it has now when pm is zero.
 * pm is a promise of the sender about the present record, so the last one wins. */
void dirs_keep(struct dirs *d, struct dir *dir, struct jtime pm);
/* The directory path itself gets a new mtime by a record. Says whether it is given to it here, as one that the batch disturbs. */
bool dirs_set(struct dirs *d, const char *path, struct jtime mtime);
/* Forget path and what lies below it: it is gone. */
void dirs_drop(struct dirs *d, const char *path);
/* Restore every mtime now: before a position says that all is done. */
void dirs_restore(struct dirs *d);
/* Restore every mtime and close every descriptor: at the end of a batch and before a directory moves. */
void dirs_flush(struct dirs *d);

#endif
