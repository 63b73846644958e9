/* SPDX-License-Identifier: BSD-2-Clause
 * A directory that a comparison has just made, filled aside.
 *
 * Until the comparison gives such a directory its attributes, nothing need be seen in it. So its new files are made under their own names
 * in a twin of it below tmp/, and the twin takes its place with one rename. A file of its own way (made in tmp/, renamed) costs the
 * rename, a fifth of the daemon's time for a small one.
 *
 *   none --the first new file of a fresh, empty directory--> open --anything but one more entry that the comparison makes in it--> placed
 *
 * While it is open the twin is what the directory's path stands for as a parent (newdir_parent). It is placed before any other operation, a
 * position that does not say that a full comparison is under way, SYNC, LIST, SUMS, the end of the connection, and when nothing came for
 * NEWDIR_REST_MS. So what a kill leaves of it in tmp/ is nothing that a position counts on: the comparison begins anew. */
#ifndef TANDEM_MODULE_NEWDIR_H
#define TANDEM_MODULE_NEWDIR_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/jrec.h"
#include "proto/wire.h"
#include "replicator/module/dirs.h"

#define NEWDIR_REST_MS 50
#define NEWDIR_FRESH   1024u /* directories remembered as just made; a power of two */
#define NEWDIR_WORTH   8u    /* files: the next directory gets a twin if the last one had so many */

struct apply;

struct newdir {
	bool open;
	struct dir twin;	      /* while open: the twin under the directory's path; path owned */
	char name[32];		      /* its name in tmp/ */
	uint64_t fresh[NEWDIR_FRESH]; /* XXH3-64 of the paths made last */
	unsigned made;		      /* how many were made; the next one's place */
	uint64_t last;		      /* XXH3-64 of the directory of the last new file */
	unsigned files;		      /* new files that came for it */
	bool few;		      /* the directory before had too few */
};

/* The comparison has made this directory. */
void newdir_made(struct newdir *d, const char *path);
/* Directories went or moved: none is fresh any more. */
void newdir_forget(struct newdir *d);
/* Open a twin for the directory of this new file of a comparison if that pays and can be done. */
void newdir_begin(struct apply *a, const char *path);
/* dirs_parent, with an open twin in the place of its directory. */
int newdir_parent(struct apply *a, const char *path, struct dir **dir, const char **base);
/* Say whether an operation leaves the twin open; rec is its record for WOP_REC, else NULL. */
bool newdir_keeps(const struct newdir *d, const struct wop *op, const struct jrec *rec);
/* Give the twin its place. If another stands there (somebody changes the standby), FAIL is sent for the directory's path and it is compared
 * again. */
void newdir_place(struct apply *a);

#endif
