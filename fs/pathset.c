/* SPDX-License-Identifier: BSD-2-Clause
 * Sets of paths to compare again: see pathset.h. */
#include "config.h"
#include "fs/pathset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "proto/path.h"

#define KEPT_FLAGS (JF_RECURSIVE | JF_CHECKSUM | JF_DRIFT | JF_RECOVERY)

/* The one entry of a set that has become everything. */
static char root_path[] = "";

void pathset_init(struct pathset *s)
{
	memset(s, 0, sizeof(*s));
}

static void free_slots(struct pathset *s)
{
	for (size_t i = 0; i < s->cap; i++)
		free(s->slots[i].path);
	free(s->slots);
	s->slots = NULL;
	s->cap = s->n = s->bytes = 0;
}

void pathset_release(struct pathset *s)
{
	free_slots(s);
	pathset_init(s);
}

static void become_all(struct pathset *s, uint16_t flags)
{
	for (size_t i = 0; i < s->cap; i++)
		s->all_flags |= s->slots[i].flags;
	s->all_flags |= flags | JF_RECURSIVE;
	s->all = true;
	free_slots(s);
}

static uint32_t hash_of(const char *path, size_t len)
{
	return (uint32_t)XXH3_64bits(path, len);
}

/* The slot that holds path, or the free one where it belongs. cap > n. */
static struct pathset_entry *find(const struct pathset *s, const char *path, size_t len, uint32_t hash)
{
	for (size_t i = hash & (s->cap - 1);; i = (i + 1) & (s->cap - 1)) {
		struct pathset_entry *e = &s->slots[i];
		if (!e->path || (e->hash == hash && e->len == len && !memcmp(e->path, path, len)))
			return e;
	}
}

static int grow(struct pathset *s)
{
	struct pathset t = *s;
	t.cap = s->cap ? s->cap * 2 : 256;
	t.slots = calloc(t.cap, sizeof(*t.slots));
	if (!t.slots)
		return -ENOMEM;
	for (size_t i = 0; i < s->cap; i++) {
		struct pathset_entry *e = &s->slots[i];
		if (e->path)
			*find(&t, e->path, e->len, e->hash) = *e;
	}
	free(s->slots);
	*s = t;
	return 0;
}

static void add_len(struct pathset *s, const char *path, size_t len, uint16_t flags)
{
	flags &= KEPT_FLAGS;
	if (s->all || (!len && (flags & JF_RECURSIVE))) {
		become_all(s, flags);
		return;
	}
	if (s->n >= s->cap / 2 && grow(s)) {
		become_all(s, flags);
		return;
	}
	uint32_t hash = hash_of(path, len);
	struct pathset_entry *e = find(s, path, len, hash);
	if (!e->path) {
		e->path = strndup(path, len);
		if (!e->path) {
			become_all(s, flags);
			return;
		}
		e->len = (uint32_t)len;
		e->hash = hash;
		s->n++;
		s->bytes += len + 1;
	}
	e->flags |= flags;
}

static uint32_t depth_of(const struct pathset_entry *e)
{
	uint32_t d = e->len ? 1 : 0;
	for (uint32_t i = 0; i < e->len; i++)
		d += e->path[i] == '/';
	return d;
}

/* The deepest entries become their parents, recursively. */
static void coarsen(struct pathset *s)
{
	struct pathset t;
	uint32_t deepest = 0;
	for (size_t i = 0; i < s->cap; i++) {
		uint32_t d = s->slots[i].path ? depth_of(&s->slots[i]) : 0;
		deepest = d > deepest ? d : deepest;
	}
	if (deepest <= 1) {
		become_all(s, 0);
		return;
	}
	pathset_init(&t);
	for (size_t i = 0; i < s->cap; i++) {
		struct pathset_entry *e = &s->slots[i];
		if (!e->path)
			continue;
		if (depth_of(e) == deepest)
			add_len(&t, e->path, path_parent_len(e->path), e->flags | JF_RECURSIVE);
		else
			add_len(&t, e->path, e->len, e->flags);
	}
	free_slots(s);
	*s = t;
}

/* A RECHECK record has at most this many bytes more than its path. */
#define RECHECK_EXTRA (JREC_HEADER + 8 + 3 + 7)

void pathset_fit(struct pathset *s, size_t max, size_t bytes)
{
	while (!s->all && s->n && (s->n > max || s->bytes + s->n * RECHECK_EXTRA > bytes))
		coarsen(s);
}

void pathset_add(struct pathset *s, const char *path, uint16_t flags)
{
	add_len(s, path, strlen(path), flags);
	/* A quarter less than the bound, so that the next additions do not coarsen again at once. */
	if (s->n > PATHSET_MAX || s->bytes > PATHSET_BYTES)
		pathset_fit(s, (size_t)PATHSET_MAX / 4 * 3, SIZE_MAX);
	if (s->bytes > PATHSET_BYTES)
		pathset_fit(s, PATHSET_MAX, PATHSET_BYTES);
}

void pathset_union(struct pathset *s, const struct pathset *o)
{
	if (o->all)
		become_all(s, o->all_flags);
	for (size_t i = 0; i < o->cap; i++) {
		if (o->slots[i].path)
			pathset_add(s, o->slots[i].path, o->slots[i].flags);
	}
}

/* A name appeared, vanished or changed its inode: the entry, and its parent for the parent's times. */
static void add_name(struct pathset *s, const char *path, uint16_t flags)
{
	if (!*path)
		return;
	pathset_add(s, path, flags);
	add_len(s, path, path_parent_len(path), 0);
}

static void add_rename(struct pathset *s, const struct jrec *r)
{
	/* What an exchange put in the place of a directory may be one as well; recursion on a file is no
	 * harm. */
	uint16_t exchange = r->flags & JF_EXCHANGE ? JF_RECURSIVE : 0;
	uint16_t dir = r->flags & JF_DIR ? JF_RECURSIVE : 0;
	add_name(s, r->path, exchange);
	add_name(s, r->path2, dir | exchange);
}

void pathset_add_record(struct pathset *s, const struct jrec *r)
{
	if (s->all && r->type != JT_RECHECK)
		return;
	switch (r->type) {
	case JT_CREATE:
	case JT_MKDIR:
	case JT_MKNOD:
	case JT_SYMLINK:
	case JT_UNLINK:
	case JT_RMDIR:
		add_name(s, r->path, 0);
		break;
	case JT_LINK:
		add_name(s, r->path, 0);
		add_name(s, r->path2, 0);
		break;
	case JT_RENAME:
		add_rename(s, r);
		break;
	case JT_SETATTR:
	case JT_SETXATTR:
	case JT_REMOVEXATTR:
		pathset_add(s, r->path, 0);
		break;
	case JT_CONTENT: /* without a name it may be any file; other ranges sent since may have made size and time equal */
		pathset_add(s, r->path, JF_CHECKSUM | (*r->path ? 0 : JF_RECURSIVE));
		break;
	case JT_RECHECK:
		pathset_add(s, r->path, r->flags);
		break;
	case JT_COLLAPSED: /* its RECHECKs follow */
	case JT_MOUNT:
	case JT_SEAL:
		break;
	}
}

/* Does a recursive ancestor stand for e? One that compares less closely does not. */
static bool covered(const struct pathset *s, const struct pathset_entry *e)
{
	for (size_t len = e->len; len;) {
		while (len && e->path[len - 1] != '/')
			len--;
		len -= len ? 1 : 0;
		const struct pathset_entry *a = find(s, e->path, len, hash_of(e->path, len));
		if (a->path && (a->flags & JF_RECURSIVE) && !(e->flags & JF_CHECKSUM & ~a->flags))
			return true;
	}
	return false;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct pathset_entry *)a)->path, ((const struct pathset_entry *)b)->path);
}

int pathset_list(struct pathset *s, struct pathset_entry **out)
{
	struct pathset_entry *v = malloc((s->n + 1) * sizeof(*v));
	size_t n = 0;
	*out = v;
	if (!v)
		return -ENOMEM;
	if (s->all)
		v[n++] = (struct pathset_entry){.path = root_path, .flags = s->all_flags};
	for (size_t i = 0; i < s->cap; i++) {
		if (s->slots[i].path && !covered(s, &s->slots[i]))
			v[n++] = s->slots[i];
	}
	qsort(v, n, sizeof(*v), by_path);
	return (int)n;
}
