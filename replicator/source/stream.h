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
/* A new transfer id, never 0. */
uint32_t stream_xid(struct stream *s);
/* The seed for keyed block sums of this session. */
const uint8_t *stream_key(const struct stream *s);
/* A new request id, never 0. */
uint32_t stream_request_id(struct stream *s);

#endif
