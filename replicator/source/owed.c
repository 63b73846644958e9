/* SPDX-License-Identifier: BSD-2-Clause
 * Owed directory times (owed.h). */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "proto/path.h"
#include "replicator/source/owed.h"

static int find(const struct owed *o, const char *path)
{
	size_t len = path_parent_len(path);
	int i;

	for (i = 0; i < o->n; i++)
		if (strncmp(o->v[i].dir, path, len) == 0 && o->v[i].dir[len] == '\0')
			return i;
	return -1;
}

int owed_add(struct owed *o, struct stream *s, const char *path, struct jtime mtime)
{
	int i = find(o, path), r;

	if ((mtime.sec == 0 && mtime.nsec == 0) || path[0] == '\0')
		return 0;
	if (i < 0) {
		if (o->n == OWED_MAX && (r = owed_put(o, s)) < 0)
			return r;
		i = o->n;
		o->v[i].dir = strndup(path, path_parent_len(path));
		if (o->v[i].dir == NULL)
			return -ENOMEM;
		o->n++;
	}
	o->v[i].mtime = mtime;
	return 0;
}

static void drop(struct owed *o, int i)
{
	free(o->v[i].dir);
	o->v[i] = o->v[--o->n];
}

void owed_paid(struct owed *o, const char *path)
{
	int i = o->n == 0 ? -1 : find(o, path);

	if (i >= 0)
		drop(o, i);
}

int owed_put(struct owed *o, struct stream *s)
{
	struct buf b;
	int r = 0;

	if (o->n == 0)
		return 0;
	buf_init(&b, JREC_MAX);
	while (o->n > 0 && r == 0) {
		struct wop op = {.type = WOP_REC};
		struct jrec rec;

		jrec_init(&rec, JT_SETATTR);
		rec.path = o->v[0].dir;
		rec.valid = JV_MTIME;
		rec.mtime = o->v[0].mtime;
		buf_clear(&b);
		r = jrec_put(&b, &rec);
		op.data = b.data;
		op.dlen = (uint32_t)b.len;
		if (r == 0)
			r = stream_op(s, &op);
		drop(o, 0);
	}
	buf_release(&b);
	return r;
}

void owed_release(struct owed *o)
{
	while (o->n > 0)
		drop(o, 0);
}
