/* SPDX-License-Identifier: BSD-2-Clause
 * Names and the journal (removed.h): the paths in a sorted array, so that what lies below a directory stands together; each
 * record marks or unmarks some of them. */
#include "config.h"
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "proto/jreader.h"
#include "proto/path.h"
#include "replicator/source/removed.h"

struct name {
	const char *path; /* a view */
	bool removed;
};

struct names {
	struct name *v;
	size_t n;
};

/* '/' below every other byte: a directory is followed at once by what is below it. */
static int order(const char *a, const char *b)
{
	int x, y;

	while (*a != '\0' && *a == *b) {
		a++;
		b++;
	}
	x = *a == '/' ? 1 : (unsigned char)*a * 2;
	y = *b == '/' ? 1 : (unsigned char)*b * 2;
	return x < y ? -1 : x > y;
}

static int by_path(const void *a, const void *b)
{
	return order(((const struct name *)a)->path, ((const struct name *)b)->path);
}

static void mark(struct names *s, const char *path, bool removed, bool below)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (order(s->v[mid].path, path) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < s->n && (below ? path_within(path, s->v[low].path) : strcmp(path, s->v[low].path) == 0); low++)
		s->v[low].removed = removed;
}

static void apply(struct names *s, const struct jrec *rec)
{
	switch (rec->type) {
	case JT_UNLINK:
	case JT_RMDIR:
		mark(s, rec->path, true, true);
		break;
	case JT_MKDIR:
		mark(s, rec->path, false, true);
		break;
	case JT_CREATE: /* what was below, or was a directory, is no more */
	case JT_MKNOD:
	case JT_SYMLINK:
		mark(s, rec->path, false, false);
		break;
	case JT_LINK:
		mark(s, rec->path2, false, false);
		break;
	case JT_RENAME:
		mark(s, rec->path, (rec->flags & JF_EXCHANGE) == 0, true);
		mark(s, rec->path2, false, (rec->flags & (JF_DIR | JF_EXCHANGE)) != 0);
		break;
	default:
		break;
	}
}

static int read_journal(struct names *s, int jdirfd)
{
	struct jreader *r;
	struct jrec rec;
	int ret = jreader_open(&r, jdirfd);

	if (ret < 0)
		return ret;
	ret = jreader_rewind(r);
	while (ret >= 0 && (ret = jreader_next(r, &rec, NULL, NULL)) == 1) {
		apply(s, &rec);
		jrec_release(&rec);
	}
	jreader_close(r);
	return ret;
}

int removed_by_journal(int jdirfd, const char *names, size_t len)
{
	struct names s = {.n = 0};
	const char *p;
	size_t i;
	int r;

	for (p = names; p < names + len; p += strlen(p) + 1)
		s.n++;
	s.v = calloc(s.n + 1, sizeof *s.v);
	if (s.v == NULL)
		return -ENOMEM;
	for (p = names, i = 0; i < s.n; p += strlen(p) + 1)
		s.v[i++].path = p;
	qsort(s.v, s.n, sizeof *s.v, by_path);
	r = read_journal(&s, jdirfd);
	for (i = 0; r == 0 && i < s.n && s.v[i].removed; i++)
		;
	r = r < 0 ? r : i == s.n;
	free(s.v);
	return r;
}
