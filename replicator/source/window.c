/* SPDX-License-Identifier: BSD-2-Clause
 * The window (window.h). Two passes over the records:
 *
 * 1. chain: every record is attached to its inode's incarnation. CREATE, MKDIR, MKNOD and SYMLINK begin one; UNLINK with
 *    no link left, RMDIR, and being replaced by a RENAME with no link left end it. Inode numbers are used again, incarnations are not.
 * 2. marks: for every incarnation, along its chain (DESIGN.md, "Coalescing", rules 1 to 4).
 *
 * Records live in one arena that is allocated once; views in struct wrec point into it. */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "proto/err.h"
#include "proto/path.h"
#include "replicator/source/window.h"

#define SLOTS (WINDOW_RECORDS * 4) /* of the hash table: a RENAME names two inodes */

struct incarnation {
	uint64_t ino;
	int32_t first, last; /* records of it, by index */
	bool born, died, linked, dir;
};

struct window {
	struct wrec *v;
	size_t n;
	uint8_t *arena;
	size_t used, cap;          /* bytes of the arena */
	struct incarnation *inc;   /* 2 * WINDOW_RECORDS */
	size_t ninc;
	int32_t *slots;            /* ino -> latest incarnation, -1: free */
	int err;                   /* of the reader, to be returned by the next load */
};

int window_new(struct window **out)
{
	struct window *w = calloc(1, sizeof *w);

	*out = NULL;
	if (w == NULL)
		return -ENOMEM;
	w->cap = WINDOW_BYTES;
	w->v = malloc(WINDOW_RECORDS * sizeof *w->v);
	w->inc = malloc(2 * WINDOW_RECORDS * sizeof *w->inc);
	w->slots = malloc(SLOTS * sizeof *w->slots);
	w->arena = malloc(w->cap);
	if (w->v == NULL || w->inc == NULL || w->slots == NULL || w->arena == NULL) {
		window_free(w);
		return -ENOMEM;
	}
	*out = w;
	return 0;
}

void window_free(struct window *w)
{
	if (w == NULL)
		return;
	free(w->v);
	free(w->inc);
	free(w->slots);
	free(w->arena);
	free(w);
}

void window_clear(struct window *w)
{
	w->err = 0;
	w->n = 0;
	w->used = 0;
	w->ninc = 0;
}

size_t window_count(const struct window *w)
{
	return w->n;
}

const struct wrec *window_at(const struct window *w, size_t i)
{
	return &w->v[i];
}

int window_add(struct window *w, const void *raw, size_t len, uint64_t digest)
{
	struct wrec *e = &w->v[w->n];
	struct jrec rec;
	size_t used;
	int r;

	if (w->n == WINDOW_RECORDS || len > w->cap - w->used)
		return E_LIMIT;
	memmove(w->arena + w->used, raw, len);
	r = jrec_get(&rec, w->arena + w->used, len, &used);
	if (r < 0)
		return r;
	*e = (struct wrec){.type = rec.type, .flags = rec.flags, .nlink = rec.nlink, .mode = rec.mode, .valid = rec.valid,
	    .seq = rec.seq, .time_ns = rec.time_ns, .last_ns = rec.time_ns, .last_size = rec.size, .digest = digest, .ino = rec.ino, .ino2 = rec.ino2,
	    .path = rec.path, .path2 = rec.path2, .raw = w->arena + w->used, .len = (uint32_t)len,
	    .next = -1, .merge = -1, .create = -1, .linked = rec.handle_len != 0,
	    .inherited = jrec_inherited(&rec)};
	jrec_release(&rec);
	w->used += len;
	w->n++;
	return 0;
}

static uint32_t slot_hash(uint64_t ino)
{
	return (uint32_t)((ino * 0x9e3779b97f4a7c15ull) >> 40) % SLOTS;
}

/* The latest incarnation of an inode number; made when it has none or fresh is set. */
static struct incarnation *incarnation(struct window *w, uint64_t ino, bool fresh)
{
	uint32_t h = slot_hash(ino);
	struct incarnation *inc;

	while (w->slots[h] >= 0 && w->inc[w->slots[h]].ino != ino)
		h = (h + 1) % SLOTS;
	if (w->slots[h] >= 0 && !fresh)
		return &w->inc[w->slots[h]];
	w->slots[h] = (int32_t)w->ninc;
	inc = &w->inc[w->ninc++];
	*inc = (struct incarnation){.ino = ino, .first = -1, .last = -1};
	return inc;
}

static void attach(struct window *w, struct incarnation *inc, int32_t i)
{
	if (inc->last >= 0)
		w->v[inc->last].next = i;
	else
		inc->first = i;
	inc->last = i;
}

static bool is_birth(enum jtype t)
{
	return t == JT_CREATE || t == JT_MKDIR || t == JT_MKNOD || t == JT_SYMLINK;
}

static void chain(struct window *w)
{
	int32_t i;

	memset(w->slots, 0xff, SLOTS * sizeof *w->slots);
	for (i = 0; i < (int32_t)w->n; i++) {
		struct wrec *e = &w->v[i];
		struct incarnation *inc;

		if (e->ino == 0 || e->type == JT_RECHECK)
			continue;
		inc = incarnation(w, e->ino, is_birth(e->type));
		inc->born |= is_birth(e->type);
		inc->dir |= e->type == JT_MKDIR || e->type == JT_RMDIR || (e->flags & JF_DIR) != 0;
		inc->linked |= e->type == JT_LINK || (e->flags & JF_EXCHANGE) != 0;
		inc->died |= e->type == JT_RMDIR || (e->type == JT_UNLINK && e->nlink == 0);
		attach(w, inc, i);
		if (e->type != JT_RENAME || e->ino2 == 0 || e->ino2 == e->ino)
			continue;
		inc = incarnation(w, e->ino2, false);
		inc->linked |= (e->flags & JF_EXCHANGE) != 0 || e->nlink != 0;
		inc->died |= (e->flags & JF_EXCHANGE) == 0 && e->nlink == 0;
	}
}

/* Rules 2 and 4: a CONTENT directly after a CONTENT of the inode goes into the first, so does a SETATTR after a SETATTR. (Never into a later
 * one: the position passes the earlier record, and a connection that ends in between would have lost it.) */
static void merge_runs(struct window *w, const struct incarnation *inc)
{
	int32_t i, head = inc->first;

	for (i = inc->first; i >= 0; i = w->v[i].next) {
		struct wrec *e = &w->v[i], *n = e->next < 0 ? NULL : &w->v[e->next];

		if (w->v[head].type != JT_CONTENT || e->type != JT_CONTENT)
			head = i;
		if (n == NULL || n->type != e->type)
			continue;
		if (n->type == JT_CONTENT) {
			w->v[head].last_ns = n->time_ns;
			w->v[head].last_size = n->last_size;
			w->v[head].flags = (uint16_t)((w->v[head].flags & ~JF_CLOSED) | (n->flags & JF_CLOSED) | (n->flags & JF_FSYNC));
			e->merge = e->next;
			n->marks |= WM_MERGED;
		} else if (n->type == JT_SETATTR && S_ISREG(n->mode) && strcmp(n->path, e->path) == 0) {
			e->merge = e->next;
			n->marks |= WM_MERGED;
		}
	}
}

/* Tell every CONTENT of an inode whether its mtime is set by a record ahead. */
static void note_restamps(struct window *w, const struct incarnation *inc)
{
	int32_t i, last = -1;

	for (i = inc->first; i >= 0; i = w->v[i].next)
		if (w->v[i].type == JT_SETATTR && (w->v[i].valid & JV_MTIME) != 0)
			last = i;
	for (i = inc->first; i >= 0 && i < last; i = w->v[i].next)
		w->v[i].restamped = w->v[i].type == JT_CONTENT;
}

/* Say whether the directory that holds path may have other attributes at last than at first, which what is made in it inherits: a record
 * between changes them, or moves it, so that others name it differently. */
static bool heir_differs(const struct window *w, int32_t first, int32_t last, const char *path)
{
	char dir[PATH_LONGEST];
	int32_t i;

	if (strlcpy(dir, path, sizeof dir) >= sizeof dir)
		return true;
	dir[path_parent_len(path)] = '\0';
	for (i = first + 1; i < last; i++) {
		const struct wrec *e = &w->v[i];

		if ((e->type == JT_SETXATTR || e->type == JT_REMOVEXATTR) && strcmp(e->path, dir) == 0)
			return true;
		if (e->type == JT_RENAME && (e->flags & (JF_DIR | JF_EXCHANGE)) != 0 && dir[0] != '\0' &&
		    (path_within(e->path, dir) || path_within(e->path2, dir)))
			return true;
	}
	return false;
}

/* Rule 3: CREATE, then at once its CONTENT, closed, under the same name. */
static void late_create(struct window *w, const struct incarnation *inc)
{
	struct wrec *c = &w->v[inc->first], *n;

	if (c->type != JT_CREATE || c->next < 0)
		return;
	n = &w->v[c->next];
	if (n->type != JT_CONTENT || (n->flags & JF_CLOSED) == 0 || strcmp(c->path, n->path) != 0 ||
	    heir_differs(w, inc->first, c->next, c->path))
		return;
	c->marks |= WM_LATE_CREATE;
	n->create = inc->first;
}

int window_mark(struct window *w)
{
	size_t k;
	int32_t i;

	chain(w);
	for (k = 0; k < w->ninc; k++) {
		const struct incarnation *inc = &w->inc[k];
		uint8_t marks = 0;

		if (inc->first < 0)
			continue;
		if (inc->died)
			marks |= WM_DOOMED;
		if (inc->born && inc->died && !inc->linked && !inc->dir)
			marks |= WM_EPHEMERAL;
		for (i = inc->first; marks != 0 && i >= 0; i = w->v[i].next)
			w->v[i].marks |= marks;
		if (marks & WM_EPHEMERAL)
			continue;
		merge_runs(w, inc);
		note_restamps(w, inc);
		if (!inc->died)
			late_create(w, inc);
	}
	return 0;
}

/* Add what there is. Returns 0, or the error that ended it. */
static int fill(struct window *w, struct jreader *r)
{
	struct jrec rec;
	const void *raw;
	size_t len;
	int got = 1;

	while (got == 1 && w->n < WINDOW_RECORDS && w->cap - w->used >= JREC_MAX) {
		got = jreader_next(r, &rec, &raw, &len);
		if (got != 1)
			return got;
		jrec_release(&rec);
		got = window_add(w, raw, len, jreader_digest(r));
		if (got < 0)
			return got;
		got = 1;
	}
	return 0;
}

int window_load(struct window *w, struct jreader *r)
{
	int err = w->err;

	window_clear(w);
	w->err = 0;
	if (err < 0)
		return err;
	err = fill(w, r);
	if (w->n == 0)
		return err;
	w->err = err;
	window_mark(w);
	return (int)w->n;
}

int window_carry(struct window *w, struct jreader *r)
{
	struct wrec last = w->v[w->n - 1];
	uint8_t *copy;

	if (w->n > 1) { /* the other records are not needed any more */
		copy = w->arena;
		memmove(copy, last.raw, last.len);
		window_clear(w);
		if (window_add(w, copy, last.len, last.digest) < 0)
			return E_CHECKSUM; /* it was valid before */
	}
	w->ninc = 0;
	if (w->err == 0)
		w->err = fill(w, r);
	window_mark(w);
	return (int)w->n;
}

int window_decode(const struct window *w, size_t i, struct jrec *rec)
{
	size_t used;

	return jrec_get(rec, w->v[i].raw, w->v[i].len, &used);
}

int window_extents(const struct window *w, size_t i, struct extent_set *out)
{
	int32_t k;
	int r = 0;

	for (k = (int32_t)i; k >= 0 && r == 0; k = w->v[k].merge) {
		struct jrec rec;

		r = window_decode(w, (size_t)k, &rec);
		if (r < 0)
			return r;
		r = extent_union(out, &rec.extents);
		jrec_release(&rec);
	}
	return r;
}

static void fold(struct jrec *into, const struct jrec *newer)
{
	if (newer->valid & JV_MODE)
		into->mode = newer->mode;
	if (newer->valid & JV_UID)
		into->uid = newer->uid;
	if (newer->valid & JV_GID)
		into->gid = newer->gid;
	if (newer->valid & JV_MTIME)
		into->mtime = newer->mtime;
	into->valid |= newer->valid;
}

int window_setattr(const struct window *w, size_t i, struct buf *out)
{
	struct jrec rec, newer;
	int32_t k;
	int r = window_decode(w, i, &rec);

	if (r < 0)
		return r;
	for (k = w->v[i].merge; k >= 0 && r == 0; k = w->v[k].merge) {
		r = window_decode(w, (size_t)k, &newer);
		if (r == 0) {
			fold(&rec, &newer);
			jrec_release(&newer);
		}
	}
	if (r == 0)
		r = jrec_put(out, &rec);
	jrec_release(&rec);
	return r;
}
