/* SPDX-License-Identifier: BSD-2-Clause
 * Times of directories that the standby still lacks because the record that would have brought them was not sent. */
#ifndef TANDEM_OWED_H
#define TANDEM_OWED_H

#include "proto/jrec.h"
#include "replicator/source/stream.h"

#define OWED_MAX 16

struct owed {
	struct {
		char *dir; /* owned */
		struct jtime mtime;
	} v[OWED_MAX];
	int n;
};

/* The parent of path has had mtime since. When the table is full it is put to s first. Returns 0 or an error. */
int owed_add(struct owed *o, struct stream *s, const char *path, struct jtime mtime);
/* A record that sets the time of path's parent goes out: nothing is owed there any more. */
void owed_paid(struct owed *o, const char *path);
/* Put what is owed, as SETATTR records, and forget it. Returns 0 or an error. */
int owed_put(struct owed *o, struct stream *s);
void owed_release(struct owed *o);

#endif
