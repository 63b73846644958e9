/* SPDX-License-Identifier: BSD-2-Clause
 * One file's bytes on their way to one target: BEGIN, DATA/HOLE/COPY in pieces, COMMIT. Holes are found with
 * SEEK_HOLE/SEEK_DATA; size, attributes and mtime are those at the end of reading. */
#ifndef TANDEM_TRANSFER_H
#define TANDEM_TRANSFER_H

#include <sys/stat.h>
#include "replicator/source/stream.h"

struct transfer;

enum transfer_result {
	TR_MORE = 1,    /* a piece was sent, there is more */
	TR_DONE = 0,    /* COMMIT was put */
	TR_WAIT = 2     /* no room in the stream now */
	/* negative: E_CHANGED (ABORT was put: the file changed while it was read), -errno of reading, stream errors */
};

struct transfer_spec {
	int fd;                    /* O_RDONLY descriptor of the file; taken (closed by transfer_free) */
	const char *path;          /* on the standby, at the stream's present position; copied */
	uint64_t seq;              /* record it serves, 0: a comparison */
	enum wbegin_mode mode;     /* WB_NEW: extents must cover the whole file */
	struct extent_set extents; /* taken: ranges to send as data or holes */
	const struct wop *copies;  /* WOP_COPY operations to send first (xid is filled in); copied */
	size_t ncopies;
	bool open;                 /* still open for writing: send what is there, do not wait for rest */
	bool xattrs;               /* send the attribute set with COMMIT */
	bool at_once;              /* all steps follow each other, nothing else is put between */
	const struct stat *st;     /* the file's attributes just now, if they are known; copied */
};

/* Begin. Takes spec->fd and spec->extents also on failure. Returns 0 or an error. */
int transfer_new(struct transfer **out, struct stream *s, struct transfer_spec *spec);
/* Send the next piece, at most about 256 KiB. */
int transfer_step(struct transfer *t);
/* The path changed on the standby (a rename was sent). Copies. Returns 0 or -ENOMEM. */
int transfer_move(struct transfer *t, const char *path);
const char *transfer_path(const struct transfer *t);
uint32_t transfer_xid(const struct transfer *t);
uint64_t transfer_seq(const struct transfer *t);
/* Take the descriptor out of a transfer that has ended. Owned by the caller. */
int transfer_take_fd(struct transfer *t);
/* Bytes still to send. */
uint64_t transfer_left(const struct transfer *t);
/* Free; puts ABORT if it was not finished. */
void transfer_free(struct transfer *t);

#endif
