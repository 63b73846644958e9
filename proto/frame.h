/* SPDX-License-Identifier: BSD-2-Clause
 * The frame layer below conn.h, as pure functions over buffers: so that it is tested and fuzzed
 * without a connection. The header is documented in wire.h and docs/wire-protocol.md. */
#ifndef TANDEM_FRAME_H
#define TANDEM_FRAME_H

#include <stdint.h>
#include "proto/buf.h"
#include "proto/compress.h"

#define FRAME_HEADER 16u
#define FRAME_MAX    (4u << 20) /* bytes of one payload, expanded */

/* Append a frame to out; compressed with m if that saves a sixteenth of it. Copies payload.
 * Returns 0, E_LIMIT (payload or out too large; out unchanged) or -ENOMEM. */
int frame_put(struct buf *out, uint8_t type, const void *payload, size_t n, enum compress_method m);
/* Look at the unread bytes of in. Returns the bytes of the whole frame at their start, 0 if its header is not
 * complete yet, or E_LIMIT or E_PROTO for a header that no peer of ours sends. */
int frame_peek(const struct buf *in);
/* Take the frame at the start of in's unread bytes. *payload becomes a read-only view into in, or into plain
 * when it had to be expanded. Returns 1, 0 when it is not complete, or E_LIMIT, E_PROTO, E_CHECKSUM, -ENOMEM.
 */
int frame_get(struct buf *in, struct buf *plain, uint8_t *type, struct buf *payload);

#endif
