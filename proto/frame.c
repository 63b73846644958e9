/* SPDX-License-Identifier: BSD-2-Clause
 * The frame layer: header, limits, checksum, compression. */
#include "config.h"

#include <errno.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "proto/err.h"
#include "proto/frame.h"

#define FRAME_PACK_MIN 128u /* bytes; a smaller payload is not worth compressing */

struct header {
	uint32_t sent;	   /* bytes of payload on the wire */
	uint32_t expanded; /* bytes of payload for the reader */
	uint8_t type;
	uint8_t method;
	uint32_t sum;
};

/* Validate every field before any of them is used. 1: complete and valid. */
static int header_get(const struct buf *in, struct header *h)
{
	struct buf v;
	uint16_t zero;

	if (buf_left(in) < FRAME_HEADER)
		return 0;
	buf_view(&v, in->data + in->off, FRAME_HEADER);
	h->sent = buf_get_u32(&v);
	h->expanded = buf_get_u32(&v);
	h->type = buf_get_u8(&v);
	h->method = buf_get_u8(&v);
	zero = buf_get_u16(&v);
	h->sum = buf_get_u32(&v);
	if (h->sent > FRAME_MAX || h->expanded > FRAME_MAX)
		return E_LIMIT;
	if (h->type == 0 || zero != 0)
		return E_PROTO;
	switch (h->method) {
	case COMPRESS_NONE:
		return h->sent == h->expanded ? 1 : E_PROTO;
	case COMPRESS_ZLIB:
	case COMPRESS_ZSTD:
		return h->sent > 0 && h->sent < h->expanded ? 1 : E_PROTO;
	}
	return E_PROTO;
}

int frame_put(struct buf *out, uint8_t type, const void *payload, size_t n, enum compress_method m)
{
	size_t sent = 0, head = out->len;
	uint8_t *p;

	if (n > FRAME_MAX)
		return E_LIMIT;
	p = buf_reserve(out, FRAME_HEADER + n);
	if (p == NULL) {
		int r = out->err;

		out->err = 0; /* nothing was written: the queue is as good as before */
		return r == -ENOMEM ? -ENOMEM : E_LIMIT;
	}
	if (m != COMPRESS_NONE && n >= FRAME_PACK_MIN)
		sent = compress_pack(m, 0, payload, n, p + FRAME_HEADER, n - n / 16);
	if (sent == 0) {
		m = COMPRESS_NONE;
		sent = n;
		if (n > 0)
			memcpy(p + FRAME_HEADER, payload, n);
	}
	buf_put_u32(out, (uint32_t)sent);
	buf_put_u32(out, (uint32_t)n);
	buf_put_u8(out, type);
	buf_put_u8(out, (uint8_t)m);
	buf_put_u16(out, 0);
	buf_put_u32(out, (uint32_t)XXH3_64bits(p + FRAME_HEADER, sent));
	out->len = head + FRAME_HEADER + sent;
	return 0;
}

int frame_peek(const struct buf *in)
{
	struct header h;
	int r = header_get(in, &h);

	return r <= 0 ? r : (int)(FRAME_HEADER + h.sent);
}

int frame_get(struct buf *in, struct buf *plain, uint8_t *type, struct buf *payload)
{
	struct header h;
	const uint8_t *p;
	uint8_t *to;
	int r = header_get(in, &h);

	if (r <= 0)
		return r;
	if (buf_left(in) < FRAME_HEADER + (size_t)h.sent)
		return 0;
	p = in->data + in->off + FRAME_HEADER;
	if ((uint32_t)XXH3_64bits(p, h.sent) != h.sum)
		return E_CHECKSUM;
	if (h.method != COMPRESS_NONE) {
		buf_clear(plain);
		to = buf_reserve(plain, h.expanded);
		if (to == NULL)
			return plain->err;
		r = compress_unpack(h.method, p, h.sent, to, h.expanded);
		if (r != 0)
			return r;
		p = to;
	}
	in->off += FRAME_HEADER + (size_t)h.sent;
	*type = h.type;
	buf_view(payload, p, h.expanded);
	return 1;
}
