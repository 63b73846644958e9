/* SPDX-License-Identifier: BSD-2-Clause
 * Following names (follow.h). */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "proto/path.h"
#include "replicator/source/follow.h"

const char *follow_left(const struct jrec *rec)
{
	if (rec->ino == 0)
		return NULL;
	switch (rec->type) {
	case JT_CONTENT:
	case JT_SETATTR:
	case JT_SETXATTR:
	case JT_REMOVEXATTR:
		return rec->path;
	case JT_LINK:
		return rec->path2;
	case JT_RENAME: /* what was written under the new name went elsewhere */
		return (rec->flags & (JF_DIR | JF_EXCHANGE)) == 0 ? rec->path2 : NULL;
	default:
		return NULL;
	}
}

int follow_begin(struct follow_names *f, uint64_t ino, const char *path)
{
	memset(f, 0, sizeof *f);
	f->ino = ino;
	if (path[0] == '\0')
		return 0;
	f->v[0] = strdup(path);
	if (f->v[0] == NULL)
		return -ENOMEM;
	f->n = 1;
	return 0;
}

void follow_end(struct follow_names *f)
{
	while (f->n > 0)
		free(f->v[--f->n]);
}

static int name_index(const struct follow_names *f, const char *path)
{
	int i;

	for (i = 0; i < f->n; i++)
		if (strcmp(f->v[i], path) == 0)
			return i;
	return -1;
}

static int name_add(struct follow_names *f, const char *path)
{
	if (path[0] == '\0' || f->n == FOLLOW_NAMES || name_index(f, path) >= 0)
		return 0;
	f->v[f->n] = strdup(path);
	if (f->v[f->n] == NULL)
		return -ENOMEM;
	f->n++;
	return 1;
}

static int name_drop(struct follow_names *f, const char *path)
{
	int i = name_index(f, path);

	if (i < 0)
		return 0;
	free(f->v[i]);
	f->v[i] = f->v[--f->n];
	return 1;
}

/* Replace *path by its new name if it lies within from. Returns 1, 0 or -ENOMEM. */
static int rebase(char **path, const char *from, const char *to)
{
	size_t size;
	char *out;

	if (!path_within(from, *path))
		return 0;
	size = strlen(*path) + strlen(to) + 2;
	out = malloc(size);
	if (out == NULL)
		return -ENOMEM;
	if (path_rebase(out, size, *path, from, to) < 0) {
		free(out);
		return 0;
	}
	free(*path);
	*path = out;
	return 1;
}

int follow_path(char **path, const struct follow_rec *e)
{
	int r;

	if (e->type != JT_RENAME)
		return 0;
	r = rebase(path, e->path, e->path2);
	if (r == 0 && (e->flags & JF_EXCHANGE))
		r = rebase(path, e->path2, e->path);
	return r;
}

static int step_rename(struct follow_names *f, const struct follow_rec *e)
{
	int i, changed = 0;

	if (f->ino != 0 && e->ino2 == f->ino && e->ino != f->ino && (e->flags & JF_EXCHANGE) == 0) {
		changed = name_drop(f, e->path2);
		f->gone = e->nlink == 0;
	}
	for (i = 0; i < f->n; i++) {
		int r = follow_path(&f->v[i], e);

		if (r < 0)
			return r;
		changed |= r;
	}
	if (f->ino != 0 && e->ino == f->ino && name_index(f, e->path2) < 0)
		return name_add(f, e->path2);
	return changed;
}

int follow_step(struct follow_names *f, const struct follow_rec *e)
{
	switch (e->type) {
	case JT_RENAME:
		return step_rename(f, e);
	case JT_LINK:
		return e->ino == f->ino ? name_add(f, e->path2) : 0;
	case JT_UNLINK:
		if (e->ino != f->ino)
			return 0;
		f->gone = e->nlink == 0;
		return name_drop(f, e->path);
	case JT_CREATE:
	case JT_MKDIR:
	case JT_MKNOD:
	case JT_SYMLINK: /* the number is used again */
		f->gone |= e->ino == f->ino;
		return 0;
	default:
		return 0;
	}
}

int follow_place(struct follow_names *f, const struct follow_rec *e)
{
	int i, changed = 0;

	if (e->type == JT_LINK)
		return name_index(f, e->path) >= 0 ? name_add(f, e->path2) : 0;
	for (i = 0; i < f->n; i++) {
		int r = follow_path(&f->v[i], e);

		if (r < 0)
			return r;
		changed |= r;
	}
	return changed;
}

int follow_perhaps(struct follow_names *f, const struct follow_rec *e)
{
	int i, n = f->n, r = 0;

	for (i = 0; i < n && r >= 0; i++) {
		char *path = strdup(f->v[i]);

		r = path == NULL ? -ENOMEM : follow_path(&path, e);
		if (r > 0)
			r = name_add(f, path);
		free(path);
	}
	return r < 0 ? r : 0;
}
