/* SPDX-License-Identifier: BSD-2-Clause
 * Set of inode numbers (inoset.h): a power of two of places, at most half of them taken, linear probing. */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include "replicator/source/inoset.h"

/* The place of ino, or the free one where it belongs. */
static uint64_t *place(const struct inoset *s, uint64_t ino)
{
	size_t i = (size_t)(ino * 0x9e3779b97f4a7c15u >> 32) & (s->cap - 1);

	while (s->v[i] != 0 && s->v[i] != ino)
		i = (i + 1) & (s->cap - 1);
	return &s->v[i];
}

static bool grow(struct inoset *s)
{
	struct inoset old = *s;
	size_t i, cap = old.cap == 0 ? 64 : old.cap * 2;
	uint64_t *v = cap > INOSET_MAX * 2 ? NULL : calloc(cap, sizeof *v);

	if (v == NULL)
		return false;
	s->v = v;
	s->cap = cap;
	for (i = 0; i < old.cap; i++)
		if (old.v[i] != 0)
			*place(s, old.v[i]) = old.v[i];
	free(old.v);
	return true;
}

void inoset_add(struct inoset *s, uint64_t ino)
{
	if (ino == 0 || inoset_has(s, ino))
		return;
	if (s->n == s->cap / 2 && !grow(s)) {
		s->more = true;
		return;
	}
	*place(s, ino) = ino;
	s->n++;
}

bool inoset_has(const struct inoset *s, uint64_t ino)
{
	return s->n != 0 && ino != 0 && *place(s, ino) == ino;
}

void inoset_clear(struct inoset *s)
{
	if (s->n != 0)
		memset(s->v, 0, s->cap * sizeof *s->v);
	s->n = 0;
	s->more = false;
}

void inoset_release(struct inoset *s)
{
	free(s->v);
	*s = (struct inoset){0};
}
