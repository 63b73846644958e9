/* SPDX-License-Identifier: BSD-2-Clause
 * A standby directory: see listing.h. The entries stay encoded, as they came; the index holds hash and place
 * of each. */
#include "config.h"
#include "replicator/source/listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/err.h"

#define LISTING_MAX UINT32_MAX /* bytes of one directory: offsets are so long */
#define NONE	    UINT32_MAX

struct place {
	uint32_t hash;
	uint32_t off; /* in bytes */
};

struct listing {
	uint8_t *bytes;
	size_t len, cap;
	struct place *v;
	uint32_t n, capv;
	uint8_t *met;  /* bitmap over v */
	uint32_t *tab; /* numbers in v, open addressing */
	uint32_t mask;
	uint32_t self; /* place of ".", or NONE */
};

struct listing *listing_new(void)
{
	struct listing *l = calloc(1, sizeof(*l));
	if (l)
		l->self = NONE;
	return l;
}

void listing_free(struct listing *l)
{
	if (!l)
		return;
	free(l->bytes);
	free(l->v);
	free(l->met);
	free(l->tab);
	free(l);
}

static uint32_t name_hash(const char *name)
{
	return (uint32_t)XXH3_64bits(name, strlen(name));
}

static int reserve(struct listing *l, size_t n)
{
	if (l->len + n >= LISTING_MAX)
		return E_LIMIT;
	if (l->len + n > l->cap) {
		size_t cap = l->cap ? l->cap + l->cap / 2 : 1024;
		if (cap < l->len + n)
			cap = l->len + n;
		void *p = realloc(l->bytes, cap);
		if (!p)
			return -ENOMEM;
		l->bytes = p;
		l->cap = cap;
	}
	return 0;
}

static int place_add(struct listing *l, uint32_t hash, uint32_t off)
{
	if (l->n == l->capv) {
		uint32_t cap = l->capv ? l->capv * 2 : 16;
		void *p = realloc(l->v, cap * sizeof(*l->v));
		if (!p)
			return -ENOMEM;
		l->v = p;
		l->capv = cap;
	}
	l->v[l->n++] = (struct place){.hash = hash, .off = off};
	return 0;
}

int listing_append(struct listing *l, struct buf *payload, uint32_t count)
{
	size_t base = l->len, from = payload->off;
	int err = reserve(l, buf_left(payload));
	if (err)
		return err;
	for (uint32_t i = 0; i < count; i++) {
		struct wentry e;
		uint32_t off = (uint32_t)(base + (payload->off - from));
		err = wentry_get(payload, &e);
		if (err)
			return err;
		if (strcmp(e.name, ".") == 0)
			l->self = off;
		else if ((err = place_add(l, name_hash(e.name), off)) != 0)
			return err;
	}
	err = buf_end(payload);
	if (err)
		return err;
	if (payload->off > from)
		memcpy(l->bytes + base, payload->data + from, payload->off - from);
	l->len = base + (payload->off - from);
	return 0;
}

int listing_seal(struct listing *l)
{
	uint32_t size = 8;
	while (size < l->n * 2ull)
		size *= 2;
	l->mask = size - 1;
	l->tab = malloc(size * sizeof(*l->tab));
	l->met = calloc(1, l->n / 8 + 1);
	if (!l->tab || !l->met)
		return -ENOMEM;
	memset(l->tab, 0xff, size * sizeof(*l->tab));
	for (uint32_t i = 0; i < l->n; i++) {
		uint32_t h = l->v[i].hash & l->mask;
		while (l->tab[h] != NONE)
			h = (h + 1) & l->mask;
		l->tab[h] = i;
	}
	return 0;
}

size_t listing_count(const struct listing *l)
{
	return l->n;
}

size_t listing_bytes(const struct listing *l)
{
	return l->cap + (size_t)l->capv * sizeof(*l->v) +
	       (l->tab ? ((size_t)l->mask + 1) * sizeof(*l->tab) : 0);
}

static bool decode(const struct listing *l, uint32_t off, struct wentry *e)
{
	struct buf b;
	buf_view(&b, l->bytes + off, l->len - off);
	return wentry_get(&b, e) == 0;
}

bool listing_find(struct listing *l, const char *name, struct wentry *e)
{
	uint32_t hash = name_hash(name);
	for (uint32_t h = hash & l->mask; l->tab[h] != NONE; h = (h + 1) & l->mask) {
		uint32_t i = l->tab[h];
		if (l->v[i].hash == hash && decode(l, l->v[i].off, e) && strcmp(e->name, name) == 0) {
			l->met[i >> 3] |= (uint8_t)(1u << (i & 7));
			return true;
		}
	}
	return false;
}

bool listing_self(const struct listing *l, struct wentry *e)
{
	return l->self != NONE && decode(l, l->self, e);
}

bool listing_unmet(const struct listing *l, size_t *i, struct wentry *e)
{
	for (; *i < l->n; ++*i)
		if (!(l->met[*i >> 3] & 1u << (*i & 7)) && decode(l, l->v[*i].off, e)) {
			++*i;
			return true;
		}
	return false;
}
