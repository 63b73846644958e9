/* SPDX-License-Identifier: BSD-2-Clause
 * Deaths (deaths.h): pairs of inode number and sequence number, sorted. A number may be used again, but not before its inode is gone: the
 * inode that has it at seq ends if any record behind seq ends one of that number. So the last record of each number is enough. */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include "proto/err.h"
#include "proto/jreader.h"
#include "replicator/source/deaths.h"

#define DEATHS_MAX (1u << 20) /* numbers: 16 MiB */

struct end {
	uint64_t ino, seq;
};

struct deaths {
	struct end *v;
	size_t n, cap;
	bool known; /* all records were read */
};

static int by_ino(const void *a, const void *b)
{
	const struct end *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Sort, and keep the last of each number. */
static void settle(struct deaths *d)
{
	size_t i, n = 0;

	if (d->n > 1)
		qsort(d->v, d->n, sizeof *d->v, by_ino);
	for (i = 0; i < d->n; i++)
		if (i + 1 == d->n || d->v[i].ino != d->v[i + 1].ino)
			d->v[n++] = d->v[i];
	d->n = n;
}

/* Make room for one more. Returns 0, E_LIMIT or -ENOMEM. */
static int room(struct deaths *d)
{
	size_t cap = d->cap == 0 ? 1024 : d->cap * 2;
	struct end *v;

	settle(d);
	if (d->n < d->cap / 4 * 3)
		return 0;
	if (cap > DEATHS_MAX)
		return E_LIMIT;
	v = reallocarray(d->v, cap, sizeof *v);
	if (v == NULL)
		return -ENOMEM;
	d->v = v;
	d->cap = cap;
	return 0;
}

static int note(struct deaths *d, uint64_t ino, uint64_t seq)
{
	int r = d->n < d->cap ? 0 : room(d);

	if (r == 0)
		d->v[d->n++] = (struct end){ino, seq};
	return r;
}

int deaths_read(struct deaths **out, int jdirfd, uint64_t from, uint64_t to)
{
	struct deaths *d = calloc(1, sizeof *d);
	struct jreader *jr = NULL;
	struct jrec rec;
	int r;

	*out = d;
	if (d == NULL)
		return -ENOMEM;
	r = jreader_open(&jr, jdirfd);
	if (r == 0)
		r = jreader_seek(jr, from, NULL);
	while (r == 0 && jreader_seq(jr) < to && (r = jreader_next(jr, &rec, NULL, NULL)) == 1) {
		uint64_t ino = jrec_ended(&rec);

		r = ino == 0 ? 0 : note(d, ino, rec.seq);
		jrec_release(&rec);
	}
	d->known = r == 0 && jreader_seq(jr) >= to;
	jreader_close(jr);
	settle(d);
	return r == -ENOMEM ? r : 0;
}

void deaths_free(struct deaths *d)
{
	if (d != NULL)
		free(d->v);
	free(d);
}

static int of_number(const void *key, const void *end)
{
	uint64_t ino = *(const uint64_t *)key, other = ((const struct end *)end)->ino;

	return ino < other ? -1 : ino > other;
}

enum death deaths_of(const struct deaths *d, uint64_t ino, uint64_t seq)
{
	const struct end *x = d->n == 0 ? NULL : bsearch(&ino, d->v, d->n, sizeof *d->v, of_number);

	if (x != NULL && x->seq > seq)
		return DEATH_COMES;
	return d->known ? DEATH_NONE : DEATH_UNKNOWN;
}
