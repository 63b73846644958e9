/* SPDX-License-Identifier: BSD-2-Clause
 * Extent sets: a sorted array. Writers mostly append or rewrite the same place, so the search starts at
 * the end; a set that grows beyond EXTENT_SET_MAX joins the two neighbours with the smallest gap, which
 * sends a few bytes more and loses none. */
#include "config.h"
#include "proto/extent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void extent_init(struct extent_set *s)
{
	memset(s, 0, sizeof(*s));
}

void extent_release(struct extent_set *s)
{
	free(s->v);
	extent_init(s);
}

void extent_clear(struct extent_set *s)
{
	s->n = 0;
}

void extent_swap(struct extent_set *a, struct extent_set *b)
{
	struct extent_set t = *a;
	*a = *b;
	*b = t;
}

/* Index of the first range whose end is >= start. */
static uint32_t lower(const struct extent_set *s, uint64_t start)
{
	if (s->n && s->v[s->n - 1].end < start)
		return s->n;
	uint32_t lo = 0, hi = s->n;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (s->v[mid].end < start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int grow(struct extent_set *s)
{
	uint32_t cap = s->cap ? s->cap * 2 : 4;
	struct extent *v = realloc(s->v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->v = v;
	s->cap = cap;
	return 0;
}

/* Join the two neighbours with the smallest gap between them. */
static void join_closest(struct extent_set *s)
{
	uint32_t best = 0;
	uint64_t gap = UINT64_MAX;
	for (uint32_t i = 0; i + 1 < s->n; i++) {
		if (s->v[i + 1].start - s->v[i].end < gap) {
			gap = s->v[i + 1].start - s->v[i].end;
			best = i;
		}
	}
	s->v[best].end = s->v[best + 1].end;
	memmove(&s->v[best + 1], &s->v[best + 2], (s->n - best - 2) * sizeof(*s->v));
	s->n--;
}

/* Without memory: widen the nearest range. Needs no allocation when the set is not empty. */
static int widen(struct extent_set *s, uint64_t start, uint64_t end)
{
	if (s->n) {
		if (s->v[0].start > start)
			s->v[0].start = start;
		s->v[0].end = s->v[s->n - 1].end > end ? s->v[s->n - 1].end : end;
		s->n = 1;
	}
	return -ENOMEM;
}

int extent_add(struct extent_set *s, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	uint32_t i = lower(s, start);
	if (i < s->n && s->v[i].start <= end) { /* touches one or more: merge them */
		uint32_t j = i;
		while (j + 1 < s->n && s->v[j + 1].start <= end)
			j++;
		if (s->v[i].start > start)
			s->v[i].start = start;
		s->v[i].end = s->v[j].end > end ? s->v[j].end : end;
		memmove(&s->v[i + 1], &s->v[j + 1], (s->n - j - 1) * sizeof(*s->v));
		s->n -= j - i;
		return 0;
	}
	if (s->n == s->cap && grow(s))
		return widen(s, start, end);
	memmove(&s->v[i + 1], &s->v[i], (s->n - i) * sizeof(*s->v));
	s->v[i] = (struct extent){start, end};
	s->n++;
	if (s->n > EXTENT_SET_MAX)
		join_closest(s);
	return 0;
}

int extent_union(struct extent_set *s, const struct extent_set *o)
{
	int err = 0;
	for (uint32_t i = 0; i < o->n; i++) {
		int e = extent_add(s, o->v[i].start, o->v[i].end);
		if (e)
			err = e;
	}
	return err;
}

int extent_remove(struct extent_set *s, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	struct extent_set keep;
	extent_init(&keep);
	int err = 0;
	for (uint32_t i = 0; i < s->n && !err; i++) {
		struct extent e = s->v[i];
		if (e.start < start)
			err = extent_add(&keep, e.start, e.end < start ? e.end : start);
		if (!err && e.end > end)
			err = extent_add(&keep, e.start > end ? e.start : end, e.end);
	}
	if (!err)
		extent_swap(s, &keep);
	extent_release(&keep);
	return err;
}

uint64_t extent_bytes(const struct extent_set *s, uint64_t size)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < s->n && s->v[i].start < size; i++)
		sum += (s->v[i].end < size ? s->v[i].end : size) - s->v[i].start;
	return sum;
}

bool extent_covers(const struct extent_set *s, uint64_t start, uint64_t end)
{
	if (start >= end)
		return true;
	for (uint32_t i = 0; i < s->n; i++)
		if (s->v[i].start <= start && end <= s->v[i].end)
			return true;
	return false;
}
