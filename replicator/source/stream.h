/* SPDX-License-Identifier: BSD-2-Clause
 * The outgoing side of one connected target: operations are collected into BATCH frames, credit and
 * bandwidth are accounted for here. Used by the sender (live records), by transfers and by comparisons, all in the
 * target's thread. */
#ifndef TANDEM_STREAM_H
#define TANDEM_STREAM_H

#include "proto/conn.h"
#include "proto/wire.h"

struct stream;

/* Append an operation to the batch being built (flushed as a frame when it is large enough; the sender flushes it before it
 * sleeps). Copies. Returns 0, E_LIMIT, -ENOMEM or a connection error. */
int stream_op(struct stream *s, const struct wop *op);
/* Queue a request frame (LIST, SUMS, ...) behind the operations put so far. */
int stream_request(struct stream *s, enum frame_type type, const struct buf *payload);
/* Bytes of bulk work that may be put now without delaying live records (credit, socket, bwlimit). 0: wait. */
size_t stream_room(const struct stream *s);
/* A new transfer id, never 0. Its lowest bit is the tag set by stream_tag. */
uint32_t stream_xid(struct stream *s);
/* The seed for keyed block sums of this session. */
const uint8_t *stream_key(const struct stream *s);
/* A new request id, never 0. Its lowest bit is the tag set by stream_tag. */
uint32_t stream_request_id(struct stream *s);

/* What follows is for the session that owns the stream. */

struct mirror;

struct stream_stats {
	uint64_t sent, acked; /* bytes of BATCH payload since WELCOME */
	uint64_t batches;
	uint64_t rate;        /* bytes per second acknowledged lately, 0: unknown */
};

/* Make the stream of a connection that was welcomed with a window of credit bytes. Borrows c and m. Returns 0 or -ENOMEM. */
int stream_new(struct stream **out, struct conn *c, const struct mirror *m, uint64_t window);
void stream_free(struct stream *s);
/* Send the batch built so far as one frame. Nothing to do when it is empty. Returns 0 or an error. */
int stream_flush(struct stream *s);
/* Bytes in the batch being built. */
size_t stream_batched(const struct stream *s);
/* Say whether a live record may be put now (credit, queue, bandwidth). */
bool stream_live(const struct stream *s);
/* Say whether the peer has acknowledged all that was sent. */
bool stream_idle(const struct stream *s);
/* An ACK arrived. Returns 0, or E_PROTO when it acknowledges more than was sent. */
int stream_ack(struct stream *s, uint64_t received);
/* The time until an answer of the peer, ns: the fastest tells a far peer from a near one. */
void stream_rtt(struct stream *s, uint64_t ns);
/* Milliseconds until the bandwidth limit allows more, 0 when it does not hold anything back. */
int stream_delay(const struct stream *s);
/* Choose the lowest bit of request and transfer ids made from now on, so that replies find their asker: 0 or 1. */
void stream_tag(struct stream *s, unsigned tag);
/* A place in the stream, to go back to. */
struct stream_mark {
	uint64_t batches;
	size_t len;
};
struct stream_mark stream_mark(const struct stream *s);
/* Take back what was put since the mark. Returns false if some of it is already sent. */
bool stream_rewind(struct stream *s, struct stream_mark mark);
/* The last n bytes put are known not to shrink ("dont compress"). */
void stream_incompressible(struct stream *s, size_t n);
/* A buffer of STREAM_PIECE bytes for reading, valid until the next call of anything that reads. */
uint8_t *stream_scratch(struct stream *s);
/* The mirror's settings, as given to stream_new. */
const struct mirror *stream_mirror(const struct stream *s);
void stream_stats(const struct stream *s, struct stream_stats *out);
#define STREAM_PIECE (256u << 10) /* bytes of one piece of a file */

#endif
