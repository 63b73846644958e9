/* SPDX-License-Identifier: BSD-2-Clause
 * A stretch of the journal in memory: the records that can be seen ahead of the one being sent, and what follows for
 * each of them from the others (DESIGN.md, "Coalescing"). */
#ifndef TANDEM_WINDOW_H
#define TANDEM_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include "proto/jreader.h"

#define WINDOW_RECORDS ((size_t)4096)      /* records of one window */
#define WINDOW_BYTES   (4u << 20)  /* bytes of one window, but always at least one record */

enum wmark {
	WM_MERGED = 1,      /* its effect is in another record of the window: send nothing */
	WM_EPHEMERAL = 2,   /* of an inode that appears and disappears within the window and was never linked elsewhere */
	WM_DOOMED = 4,      /* of an inode that is gone at the end of the window */
	WM_LATE_CREATE = 8  /* CREATE whose file comes with its CONTENT, if that can be sent as a new file */
};

struct wrec {
	enum jtype type;
	uint16_t flags;          /* JF_*; of the last of merged records */
	uint8_t marks;           /* WM_* */
	uint32_t nlink, mode, valid;
	uint64_t seq, time_ns, digest;
	uint64_t last_ns;        /* CONTENT: time of the last record merged into it, or its own */
	uint64_t last_size;      /* CONTENT: the file's size then */
	bool linked;             /* CONTENT: the inode had several names */
	bool inherited;          /* SETXATTR, REMOVEXATTR: of what a directory hands on to what is made in it */
	bool restamped;          /* CONTENT: a SETATTR of the mtime follows in the window */
	uint64_t ino, ino2;
	const char *path, *path2; /* views into raw */
	const uint8_t *raw;       /* the record, owned by the window */
	uint32_t len;             /* bytes of raw */
	int32_t next;             /* index of the inode's next record, -1: none */
	int32_t merge;            /* index of the next record merged into this one, -1: none */
	int32_t create;           /* CONTENT: index of its WM_LATE_CREATE record, -1: none */
};

struct window;

int window_new(struct window **out);
void window_free(struct window *w);
/* Forget all records. */
void window_clear(struct window *w);
/* Copy one record in; digest is the chain digest after it. Returns 0, E_LIMIT when the window is full, -ENOMEM, or as jrec_get. */
int window_add(struct window *w, const void *raw, size_t len, uint64_t digest);
/* Derive the marks, after all records were added. Returns 0 or -ENOMEM. */
int window_mark(struct window *w);
/* Clear, read what there is up to the limits, and mark. Returns the number of records, or an error of jreader_next; records before the
 * error are there (and their number is returned first, the error by the next call). */
int window_load(struct window *w, struct jreader *r);
/* The same, but the last record stays, as the first. Returns the number of records, 1 when there are no more. */
int window_carry(struct window *w, struct jreader *r);
size_t window_count(const struct window *w);
const struct wrec *window_at(const struct window *w, size_t i);
/* Decode record i once more, in full; release rec afterwards. Returns 0 or as jrec_get. */
int window_decode(const struct window *w, size_t i, struct jrec *rec);
/* The union of the extents of CONTENT record i and those merged into it, added to out. */
int window_extents(const struct window *w, size_t i, struct extent_set *out);
/* Append SETATTR record i with the values of those merged into it as one record. Returns 0 or an error. */
int window_setattr(const struct window *w, size_t i, struct buf *out);

#endif
