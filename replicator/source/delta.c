/* SPDX-License-Identifier: BSD-2-Clause
 * The rolling search: see delta.h.
 *
 * A window of one block slides over the new version. Its weak sum is looked up among the old version's
 * blocks; a hit is confirmed by the strong sum, then the window jumps behind it. The block that follows the
 * last match is tried first, without a look-up: unchanged stretches cost one strong sum per block. A peer
 * that sends weak sums which hit everywhere and never hold is stopped after FALSE_MAX failed confirmations:
 * what follows then counts as unmatched, which is never wrong. */
#include "config.h"
#include "replicator/source/delta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/err.h"
#include "proto/wire.h"

#define FALSE_MAX 65536u
#define NONE	  UINT32_MAX
#define CHUNK	  (256u << 10) /* bytes taken into the window's buffer at once */

struct delta {
	const struct delta_sum *sums; /* borrowed */
	uint32_t n, block;
	uint8_t key[8];
	uint32_t *heads; /* hash table: first block of a bucket */
	uint32_t *next;	 /* next block in the same bucket */
	uint32_t mask;
	uint8_t *tags; /* bitmap over 16 bits of the weak sum: most windows miss here */
	uint8_t *win;  /* bytes not yet decided: [start, start + len) of the new version */
	size_t len, cap;
	uint64_t start;	 /* offset in the new version of win[0] */
	uint32_t expect; /* block after the last match, or NONE */
	uint32_t false_hits;
	struct delta_match *v;
	size_t nv, capv;
	uint64_t bytes; /* matched */
};

bool delta_is_hole(const struct delta_sum *s)
{
	static const uint8_t zero[16];
	return s->weak == 0 && memcmp(s->strong, zero, 16) == 0;
}

uint32_t delta_block(uint64_t size)
{
	uint32_t block = 4096;
	while (block < 131072 && (uint64_t)block * block < size)
		block *= 2;
	return block;
}

static uint32_t mix(uint32_t weak)
{
	return weak * 2654435761u;
}

static uint32_t tag(uint32_t weak)
{
	return (mix(weak) >> 16) & 0xffff;
}

/* Enter block i, unless an equal block stands there already: a repeated block is found once. */
static void table_add(struct delta *d, uint32_t i)
{
	const struct delta_sum *s = &d->sums[i];
	uint32_t h = mix(s->weak) & d->mask;
	for (uint32_t j = d->heads[h], steps = 0; j != NONE && steps < 64; j = d->next[j], steps++)
		if (d->sums[j].weak == s->weak && memcmp(d->sums[j].strong, s->strong, 16) == 0)
			return;
	d->next[i] = d->heads[h];
	d->heads[h] = i;
	d->tags[tag(s->weak) >> 3] |= (uint8_t)(1u << (tag(s->weak) & 7));
}

static int table_build(struct delta *d)
{
	uint32_t size = 1024;
	while (size < d->n * 2)
		size *= 2;
	d->mask = size - 1;
	d->heads = malloc(size * sizeof(*d->heads));
	d->next = malloc(((size_t)d->n + 1) * sizeof(*d->next));
	d->tags = calloc(1, 8192);
	if (!d->heads || !d->next || !d->tags)
		return -ENOMEM;
	memset(d->heads, 0xff, size * sizeof(*d->heads));
	for (uint32_t i = 0; i < d->n; i++)
		if (!delta_is_hole(&d->sums[i]))
			table_add(d, i);
	return 0;
}

int delta_new(struct delta **out, const struct delta_sum *sums, size_t n, uint32_t block,
	      const uint8_t key[8])
{
	*out = NULL;
	if (n > DELTA_BLOCKS_MAX || block == 0 || block > WOP_DATA_MAX)
		return E_LIMIT;
	struct delta *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->sums = sums;
	d->n = (uint32_t)n;
	d->block = block;
	d->expect = NONE;
	memcpy(d->key, key, 8);
	d->cap = block + CHUNK;
	d->win = malloc(d->cap);
	if (!d->win || table_build(d)) {
		delta_free(d);
		return -ENOMEM;
	}
	*out = d;
	return 0;
}

void delta_free(struct delta *d)
{
	if (!d)
		return;
	free(d->heads);
	free(d->next);
	free(d->tags);
	free(d->win);
	free(d->v);
	free(d);
}

/* Record that the block at offset dst is block i of the old version. */
static int match_add(struct delta *d, uint64_t dst, uint32_t i)
{
	uint64_t src = (uint64_t)i * d->block;
	struct delta_match *m = d->nv ? &d->v[d->nv - 1] : NULL;
	d->expect = i + 1 < d->n ? i + 1 : NONE;
	d->bytes += d->block;
	if (m && m->dst + m->len == dst && m->src + m->len == src && m->len + d->block <= DELTA_RUN_MAX) {
		m->len += d->block;
		return 0;
	}
	if (d->nv == d->capv) {
		size_t cap = d->capv ? d->capv * 2 : 64;
		void *v = realloc(d->v, cap * sizeof(*d->v));
		if (!v)
			return -ENOMEM;
		d->v = v;
		d->capv = cap;
	}
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): nv is below capv, so that there is an array */
	d->v[d->nv++] = (struct delta_match){.dst = dst, .src = src, .len = d->block};
	return 0;
}

/* Find the block of the old version that equals the window at p. Returns its number or NONE. */
static uint32_t find(struct delta *d, const uint8_t *p, uint32_t weak)
{
	uint8_t strong[16];
	bool have = false;
	if (d->expect != NONE && d->sums[d->expect].weak == weak && !delta_is_hole(&d->sums[d->expect])) {
		wsum_strong(strong, d->key, p, d->block);
		have = true;
		if (memcmp(strong, d->sums[d->expect].strong, 16) == 0)
			return d->expect;
	}
	uint32_t t = tag(weak), steps = 0;
	if (!(d->tags[t >> 3] & 1u << (t & 7)))
		return NONE;
	for (uint32_t i = d->heads[mix(weak) & d->mask]; i != NONE && steps < 64; i = d->next[i], steps++) {
		if (d->sums[i].weak != weak)
			continue;
		if (!have)
			wsum_strong(strong, d->key, p, d->block);
		have = true;
		if (memcmp(strong, d->sums[i].strong, 16) == 0)
			return i;
	}
	d->false_hits += have;
	return NONE;
}

/* Slide over what the buffer holds; keep less than a block. */
static int slide(struct delta *d)
{
	size_t at = 0;
	uint32_t weak = 0;
	bool valid = false;
	while (d->len - at >= d->block && d->false_hits < FALSE_MAX) {
		if (!valid)
			weak = wsum_weak(d->win + at, d->block);
		valid = true;
		uint32_t i = find(d, d->win + at, weak);
		if (i != NONE) {
			int err = match_add(d, d->start + at, i);
			if (err)
				return err;
			at += d->block;
			valid = false;
			continue;
		}
		if (d->len - at > d->block)
			weak = wsum_roll(weak, d->win[at], d->win[at + d->block], d->block);
		at++;
	}
	if (d->false_hits >= FALSE_MAX)
		at = d->len;
	memmove(d->win, d->win + at, d->len - at);
	d->start += at;
	d->len -= at;
	return 0;
}

int delta_feed(struct delta *d, const void *data, size_t n)
{
	const uint8_t *p = data;
	while (n) {
		size_t k = d->cap - d->len < n ? d->cap - d->len : n;
		memcpy(d->win + d->len, p, k);
		d->len += k;
		p += k;
		n -= k;
		int err = slide(d);
		if (err)
			return err;
	}
	return 0;
}

void delta_skip(struct delta *d, uint64_t n)
{
	d->start += d->len + n;
	d->len = 0;
}

const struct delta_match *delta_matches(const struct delta *d, size_t *n, uint64_t *bytes)
{
	*n = d->nv;
	if (bytes)
		*bytes = d->bytes;
	return d->v;
}
