/* SPDX-License-Identifier: BSD-2-Clause
 * The bounded buffer: see buf.h. */
#include "config.h"
#include "proto/buf.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/err.h"

void buf_init(struct buf *b, size_t max)
{
	memset(b, 0, sizeof(*b));
	b->max = max;
}

void buf_view(struct buf *b, const void *data, size_t len)
{
	memset(b, 0, sizeof(*b));
	b->data = (uint8_t *)(uintptr_t)data;
	b->len = len;
}

void buf_release(struct buf *b)
{
	if (b->cap)
		free(b->data);
	buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
	b->len = b->off = 0;
	b->err = 0;
}

void buf_compact(struct buf *b)
{
	if (!b->off)
		return;
	memmove(b->data, b->data + b->off, b->len - b->off);
	b->len -= b->off;
	b->off = 0;
}

/* Grow to at least need bytes, need <= max. */
static int buf_grow(struct buf *b, size_t need)
{
	size_t cap = b->cap ? b->cap : 256;
	while (cap < need)
		cap = cap > b->max / 2 ? b->max : cap * 2;
	uint8_t *p = realloc(b->data, cap);
	if (!p)
		return -ENOMEM;
	b->data = p;
	b->cap = cap;
	return 0;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
	if (b->err)
		return NULL;
	if (n > b->max || b->len > b->max - n) {
		b->err = E_LIMIT;
		return NULL;
	}
	if (b->len + n > b->cap || !b->data) {
		b->err = buf_grow(b, b->len + n);
		if (b->err)
			return NULL;
	}
	return b->data + b->len;
}

void buf_put(struct buf *b, const void *data, size_t n)
{
	uint8_t *p = buf_reserve(b, n);
	if (!p || !n)
		return;
	memcpy(p, data, n);
	b->len += n;
}

void buf_put_u8(struct buf *b, uint8_t v)
{
	buf_put(b, &v, 1);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
	v = htole16(v);
	buf_put(b, &v, 2);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	buf_put(b, &v, 4);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_put(b, &v, 8);
}

void buf_put_str(struct buf *b, const char *s)
{
	size_t n = s ? strlen(s) : 0;
	if (n > UINT16_MAX) {
		if (!b->err)
			b->err = E_LIMIT;
		return;
	}
	buf_put_u16(b, (uint16_t)n);
	buf_put(b, n ? s : "", n + 1);
}

void buf_put_blob(struct buf *b, const void *data, uint32_t n)
{
	buf_put_u32(b, n);
	buf_put(b, data, n);
}

void buf_set_u32(struct buf *b, size_t at, uint32_t v)
{
	if (b->err || at > b->len || b->len - at < 4)
		return;
	v = htole32(v);
	memcpy(b->data + at, &v, 4);
}

const uint8_t *buf_get(struct buf *b, size_t n)
{
	if (!b->err && n > b->len - b->off)
		b->err = E_PROTO;
	if (b->err)
		return NULL;
	const uint8_t *p = b->data + b->off;
	b->off += n;
	return p;
}

uint8_t buf_get_u8(struct buf *b)
{
	const uint8_t *p = buf_get(b, 1);
	return p ? *p : 0;
}

uint16_t buf_get_u16(struct buf *b)
{
	uint16_t v = 0;
	const uint8_t *p = buf_get(b, 2);
	if (p)
		memcpy(&v, p, 2);
	return le16toh(v);
}

uint32_t buf_get_u32(struct buf *b)
{
	uint32_t v = 0;
	const uint8_t *p = buf_get(b, 4);
	if (p)
		memcpy(&v, p, 4);
	return le32toh(v);
}

uint64_t buf_get_u64(struct buf *b)
{
	uint64_t v = 0;
	const uint8_t *p = buf_get(b, 8);
	if (p)
		memcpy(&v, p, 8);
	return le64toh(v);
}

const char *buf_get_str(struct buf *b, size_t *len)
{
	if (len)
		*len = 0;
	size_t n = buf_get_u16(b);
	const uint8_t *p = buf_get(b, n + 1);
	if (!p)
		return "";
	if (p[n] != 0 || memchr(p, 0, n)) {
		b->err = E_PROTO;
		return "";
	}
	if (len)
		*len = n;
	return (const char *)p;
}

const uint8_t *buf_get_blob(struct buf *b, uint32_t max, uint32_t *len)
{
	uint32_t n = buf_get_u32(b);
	*len = 0;
	if (!b->err && n > max)
		b->err = E_PROTO;
	const uint8_t *p = buf_get(b, n);
	if (p)
		*len = n;
	return p;
}

int buf_end(const struct buf *b)
{
	if (b->err)
		return b->err;
	return b->off == b->len ? 0 : E_PROTO;
}
