/* SPDX-License-Identifier: BSD-2-Clause
 * CONTENT records: from the recorded inode to bytes in the stream (docs/ARCHITECTURE.md, Rule 2 and the life of one write). */
#ifndef TANDEM_CONTENT_H
#define TANDEM_CONTENT_H

#include <sys/stat.h>
#include "replicator/source/bulk.h"
#include "replicator/source/locate.h"

#define CONTENT_SMALL  (64u << 10)  /* files up to this are always sent whole */
#define CONTENT_INLINE (256u << 10) /* bytes to send up to which a change stays at its place in the stream */

enum content_result {
	CR_DONE = 0,   /* it is in the stream, or put off */
	CR_GONE = 1,   /* the inode is gone */
	CR_UNSURE = 3, /* it was not found, and may be in a moment */
	CR_YOUNGER = 4, /* the same, and a younger file has its number */
	CR_WAIT = 2    /* too much is put off: let bulk work finish first */
};

struct content {
	struct stream *stream; /* borrowed, as all of these */
	struct bulk *bulk;
	struct locate locate;  /* where to look, and what lies ahead */
	const struct jrec *rec; /* the record, decoded */
	const struct extent_set *extents; /* its ranges and those of records merged into it */
	bool open;             /* not closed by its last writer */
	bool linked;           /* had several names when it was recorded */
	uint64_t first_seq;    /* the oldest record whose ranges are in extents */
	uint64_t size;         /* of the file, in bytes, by the newest record */
	uint64_t as_of_ns;     /* time of the newest record, CLOCK_REALTIME; 0: do not look at the mtime */
	uint64_t since_ns;     /* when sending was first tried, CLOCK_MONOTONIC, 0: now */
	/* The file's CREATE was held back: called before anything that needs the name. May be NULL. Returns 0 or an error. */
	int (*create)(void *arg);
	void *arg;
};

/* Say whether a closed file was written to again after the record that is being served: a newer record comes, or is there already. */
bool content_superseded(const struct stat *st, uint64_t as_of_ns);
/* Choose mode, ranges and attributes of a transfer of the file fd, whose attributes are st: a whole new file if it has one name and is small
 * or has no data outside of spec->extents, else a patch. Changes spec->mode, extents and xattrs. */
void content_mode(int fd, const struct stat *st, struct transfer_spec *spec);
/* Add to the ranges of a file that stays open what was appended since its newest record, by which it had size bytes: without it the file would end in
 * a hole. Returns 0 or -ENOMEM. */
int content_appended(struct extent_set *ranges, uint64_t size);
/* Say whether an error of a transfer concerns its file alone, not the stream. */
bool content_file_error(int err);
/* Send or put off. Returns enum content_result or a stream error. */
int content_send(struct content *c);

#endif
