/* SPDX-License-Identifier: BSD-2-Clause
 * Following names ahead in the journal: what a path or an inode that a record names is called later. */
#ifndef TANDEM_FOLLOW_H
#define TANDEM_FOLLOW_H

#include "proto/jreader.h"

#define FOLLOW_NAMES 32 /* names of one inode that are followed */

/* The part of a record that moves names. */
struct follow_rec {
	enum jtype type;
	uint16_t flags;
	uint32_t nlink;
	uint64_t ino, ino2;
	const char *path, *path2;
};

struct follow_names {
	uint64_t ino;
	char *v[FOLLOW_NAMES]; /* owned */
	int n;
	bool gone; /* the inode lost its last name */
};

static inline struct follow_rec follow_rec_of(const struct jrec *rec)
{
	return (struct follow_rec){.type = rec->type, .flags = rec->flags, .nlink = rec->nlink, .ino = rec->ino, .ino2 = rec->ino2,
	    .path = rec->path, .path2 = rec->path2};
}

/* The name that a record about one inode leaves it with, NULL for another record. */
const char *follow_left(const struct jrec *rec);
/* Begin with one name, "" for none known. Returns 0 or -ENOMEM. */
int follow_begin(struct follow_names *f, uint64_t ino, const char *path);
void follow_end(struct follow_names *f);
/* Apply one record. Returns 1 if the names changed, 0, or -ENOMEM. */
int follow_step(struct follow_names *f, const struct follow_rec *e);
/* Apply one record to a path, whatever inode it names: only RENAME moves it. *path is owned and replaced. Returns 1 if it moved, 0, or -ENOMEM. */
int follow_path(char **path, const struct follow_rec *e);
/* Apply one record to names of which the inode is not known: RENAME moves them, LINK of one adds another. Returns 1 if something
 * changed, 0, or -ENOMEM. */
int follow_place(struct follow_names *f, const struct follow_rec *e);
/* Apply one RENAME to names that may have been given behind it: each is kept, too. Returns 0 or -ENOMEM. */
int follow_perhaps(struct follow_names *f, const struct follow_rec *e);

#endif
