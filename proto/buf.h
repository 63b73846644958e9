/* SPDX-License-Identifier: BSD-2-Clause
 * The one bounded buffer through which every byte to and from disk and wire passes.
 *
 * Errors are sticky: the first failed put or get sets b->err, later calls do nothing and gets return
 * zero values, so that a codec is a plain list of fields with one check at its end (buf_end).
 * All integers are little-endian. A string is u16 length, bytes, NUL; the length does not count the
 * NUL, and a NUL inside is refused, so that a view is a C string without a copy. */
#ifndef TANDEM_BUF_H
#define TANDEM_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data; /* bytes; not NULL when cap > 0 */
	size_t len;    /* bytes written */
	size_t off;    /* bytes already read by the gets */
	size_t cap;    /* bytes allocated; 0: a read-only view */
	size_t max;    /* largest cap allowed */
	int err;       /* 0, or the first error: -ENOMEM, E_LIMIT (put) or E_PROTO (get) */
};

/* Make an empty buffer that may grow to max bytes. Allocates nothing yet. */
void buf_init(struct buf *b, size_t max);
/* Make a read-only buffer over len bytes. Borrows data. */
void buf_view(struct buf *b, const void *data, size_t len);
/* Free the bytes; b may be initialised again. */
void buf_release(struct buf *b);
/* Forget contents and error, keep the memory. */
void buf_clear(struct buf *b);
/* Move unread bytes to the front. */
void buf_compact(struct buf *b);
/* Bytes not yet read. */
static inline size_t buf_left(const struct buf *b)
{
	return b->len - b->off;
}

/* Make room for n more bytes and return where they go (then set b->len), or NULL with b->err set. */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *data, size_t n);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
/* Put a string of at most 65535 bytes; NULL is the empty string. */
void buf_put_str(struct buf *b, const char *s);
/* Put u32 length and bytes. */
void buf_put_blob(struct buf *b, const void *data, uint32_t n);
/* Overwrite a u32 at offset at (which was put before). */
void buf_set_u32(struct buf *b, size_t at, uint32_t v);

/* Return n bytes and step over them, or NULL with b->err = E_PROTO. Borrowed from b. */
const uint8_t *buf_get(struct buf *b, size_t n);
uint8_t buf_get_u8(struct buf *b);
uint16_t buf_get_u16(struct buf *b);
uint32_t buf_get_u32(struct buf *b);
uint64_t buf_get_u64(struct buf *b);
/* Return a NUL-terminated view, never NULL ("" on error). *len (may be NULL) gets its bytes. */
const char *buf_get_str(struct buf *b, size_t *len);
/* Return a view of a blob of at most max bytes, *len gets its size. */
const uint8_t *buf_get_blob(struct buf *b, uint32_t max, uint32_t *len);
/* End decoding: 0 if all went well and no byte is left over, else the error (E_PROTO for trailing bytes). */
int buf_end(const struct buf *b);

#endif
