/* SPDX-License-Identifier: BSD-2-Clause
 * Journal records from hostile bytes: as they are, and once more with a header and checksum that hold, so
 * that the body's decoder is reached. What decodes must encode to the same bytes. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "proto/jrec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size)
{
	struct jrec_info i;
	struct jrec r;
	struct buf b;
	size_t used = 0;
	if (jrec_get(&r, data, size, &used))
		return;
	if (used > size || jrec_peek(&i, data, size) || i.seq != r.seq || i.length != used)
		abort();
	buf_init(&b, JREC_MAX);
	if (jrec_put(&b, &r) || b.len != used || jrec_size(&r) != used || memcmp(b.data, data, used))
		abort();
	buf_release(&b);
	jrec_release(&r);
}

/* Give the bytes a right magic, lengths, padding and checksum. */
static void check_mended(const uint8_t *data, size_t size)
{
	if (size < JREC_HEADER || size > JREC_MAX - 8)
		return;
	uint32_t magic = JREC_MAGIC, body = (uint32_t)(size - JREC_HEADER),
		 length = (uint32_t)((size + 7) & ~(size_t)7);
	uint32_t asked;
	memcpy(&asked, data + 12, 4); /* a seed's own body length without its padding */
	if (asked <= body && body - asked < 8)
		body = asked;
	uint8_t *p = calloc(1, length);
	if (!p)
		return;
	memcpy(p, data, JREC_HEADER + body);
	memcpy(p, &magic, 4);
	memcpy(p + 8, &length, 4);
	memcpy(p + 12, &body, 4);
	memset(p + 32, 0, 8);
	uint64_t csum = XXH3_64bits(p, JREC_HEADER + body);
	memcpy(p + 32, &csum, 8);
	check(p, length);
	free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check(data, size);
	check_mended(data, size);
	return 0;
}
