/* SPDX-License-Identifier: BSD-2-Clause
 * The frame layer on any bytes of a peer. The first byte chooses: even, the rest is the stream as it comes;
 * odd, the rest is taken as payload behind a header with the right checksum (else the fuzzer would have to
 * guess hashes to get past it), so that the decompressors see it. Every frame that is accepted must survive
 * being put and got again. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "proto/err.h"
#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(uint8_t type, const struct buf *p)
{
	struct buf out, plain, q;
	uint8_t t;

	buf_init(&out, FRAME_HEADER + FRAME_MAX);
	buf_init(&plain, FRAME_MAX);
	if (frame_put(&out, type, p->data, p->len, COMPRESS_ZSTD) != 0 ||
	    frame_get(&out, &plain, &t, &q) != 1)
		abort();
	if (t != type || q.len != p->len || (q.len > 0 && memcmp(q.data, p->data, q.len) != 0))
		abort();
	buf_release(&out);
	buf_release(&plain);
}

static void take_all(struct buf *in)
{
	struct buf plain, p;
	uint8_t type;
	int r, peek;

	buf_init(&plain, FRAME_MAX);
	do {
		peek = frame_peek(in);
		r = frame_get(in, &plain, &type, &p);
		if (peek < 0 && r != peek)
			abort();
		if (r == 1)
			again(type, &p);
	} while (r == 1);
	if (r > 0 || (r < 0 && r != E_LIMIT && r != E_PROTO && r != E_CHECKSUM))
		abort();
	buf_release(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf in;

	if (size < 1)
		return 0;
	if (data[0] % 2 == 0) {
		buf_view(&in, data + 1, size - 1);
		take_all(&in);
		return 0;
	}
	if (size < 6)
		return 0;
	buf_init(&in, FRAME_HEADER + FRAME_MAX);
	buf_put_u32(&in, (uint32_t)(size - 6));
	buf_put(&in, data + 2, 4); /* expanded length */
	buf_put_u8(&in, 1);
	buf_put_u8(&in, data[1]); /* method */
	buf_put_u16(&in, 0);
	buf_put_u32(&in, (uint32_t)XXH3_64bits(data + 6, size - 6));
	buf_put(&in, data + 6, size - 6);
	if (in.err == 0)
		take_all(&in);
	buf_release(&in);
	return 0;
}
