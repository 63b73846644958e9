/* SPDX-License-Identifier: BSD-2-Clause
 * What changes while it is compared is compared again (DESIGN.md, "Beside live changes").
 *
 * A comparison looks at the source as it is now, the standby is where the stream is, and records between the two are still to be sent.
 * Each of them may undo what the comparison put, or the comparison what it will do. So every path that is scheduled is watched; a record
 * that concerns a watched path, or something below it if the path is compared with all that is below, makes the record's own paths stale.
 * The watch ends when nothing is scheduled and all records have been sent that the journal held then: no record can have come between
 * unnoticed. What is stale by then is scheduled, and watched, once more. The rounds become smaller quickly, since a round takes as long as
 * there is to compare; a path that changes in every one of them is left to the stream after a while. */
#include "config.h"
#include "replicator/source/compare_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WATCH_ENTRIES 0x200u /* flag: what a directory holds is compared, not its own attributes alone */
#define WATCH_MAX    200000 /* paths; beyond it everything is compared again */

static int order(struct watched *a, struct watched *b)
{
	return compare_path_order(a->path, b->path);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
RB_GENERATE_INTERNAL(watchset, watched, node, order, static)
#pragma GCC diagnostic pop

static struct watched *find(struct watchset *set, const char *path)
{
	struct watched *w = RB_ROOT(set);
	while (w) {
		int x = compare_path_order(path, w->path);
		if (!x)
			return w;
		w = x < 0 ? RB_LEFT(w, node) : RB_RIGHT(w, node);
	}
	return NULL;
}

static struct watched *add(struct watchset *set, uint32_t *count, const char *path, unsigned flags)
{
	struct watched *w = find(set, path);
	if (!w) {
		size_t n = strlen(path) + 1;
		w = calloc(1, sizeof(*w) + n);
		if (!w)
			return NULL;
		memcpy(w->path, path, n);
		RB_INSERT(watchset, set, w);
		++*count;
	}
	w->flags |= flags;
	return w;
}

static void clear(struct watchset *set, uint32_t *count)
{
	struct watched *w;
	while ((w = RB_ROOT(set)) != NULL) {
		RB_REMOVE(watchset, set, w); /* NOLINT(clang-analyzer-unix.Malloc): it is not in the tree any more */
		free(w);
	}
	*count = 0;
}

void watch_init(struct watch *w)
{
	RB_INIT(&w->watched);
	RB_INIT(&w->stale);
}

void watch_free(struct watch *w)
{
	clear(&w->watched, &w->nwatched);
	clear(&w->stale, &w->nstale);
}

int watch_path(struct compare *c, const char *path, unsigned flags)
{
	struct watch *w = &c->watch;
	if (!c->env.watch)
		return 0;
	w->until = 0;
	if (w->nwatched >= WATCH_MAX) { /* all of it is watched then */
		path = "";
		flags = CMP_RECURSIVE;
	}
	flags = flags & CMP_SELF ? 0 : (flags & CMP_RECURSIVE) | WATCH_ENTRIES;
	return add(&w->watched, &w->nwatched, path, flags) ? 0 : -ENOMEM;
}

/* Say whether path is watched, and in which round. */
static bool watched(struct compare *c, const char *path, uint8_t *round)
{
	char up[PATH_LONGEST];
	struct watched *w = find(&c->watch.watched, path);
	unsigned how = CMP_RECURSIVE | WATCH_ENTRIES; /* of the directory that holds it */
	*round = w ? w->round : 0;
	if (w)
		return true;
	if (strlcpy(up, path, sizeof(up)) >= sizeof(up))
		return false;
	while (*up) {
		up[path_parent_len(up)] = 0;
		w = find(&c->watch.watched, up);
		if (w && w->flags & how) {
			*round = w->round;
			return true;
		}
		how = CMP_RECURSIVE;
	}
	return false;
}

int compare_changed(struct compare *c, const char *path, unsigned flags, unsigned rounds)
{
	struct watch *w = &c->watch;
	uint8_t round;
	if (!w->nwatched || !watched(c, path, &round) || round >= rounds)
		return 0;
	if (w->nstale >= WATCH_MAX) {
		path = "";
		flags = CMP_RECURSIVE;
	}
	struct watched *s = add(&w->stale, &w->nstale, path, flags);
	if (!s)
		return -ENOMEM;
	if (s->round <= round)
		s->round = (uint8_t)(round + 1);
	return 1;
}

/* Take what is stale below from, under its new name. */
static int take(struct watch *w, struct watchset *moved, uint32_t *count, const char *from, const char *to)
{
	char path[PATH_LONGEST];
	struct watched *s = RB_ROOT(&w->stale), *first = NULL, *next, *n;
	int err = 0;
	while (s) { /* the first at or behind from */
		bool behind = compare_path_order(s->path, from) < 0;
		first = behind ? first : s;
		s = behind ? RB_RIGHT(s, node) : RB_LEFT(s, node);
	}
	for (s = first; s && path_within(from, s->path); s = next) {
		next = RB_NEXT(watchset, &w->stale, s);
		if (path_rebase(path, sizeof(path), s->path, from, to) == 0) {
			n = add(moved, count, path, s->flags);
			if (n && n->round < s->round)
				n->round = s->round;
			err = n ? err : -ENOMEM;
		}
		RB_REMOVE(watchset, &w->stale, s);
		w->nstale--;
		free(s);
	}
	return err; /* NOLINT(clang-analyzer-unix.Malloc): what was added is in the tree */
}

int watch_renamed(struct compare *c, const char *from, const char *to, bool exchange)
{
	struct watch *w = &c->watch;
	struct watchset moved = RB_INITIALIZER(&moved);
	struct watched *s, *n;
	uint32_t count = 0;
	int err = take(w, &moved, &count, from, to);
	if (exchange && !err)
		err = take(w, &moved, &count, to, from);
	RB_FOREACH (s, watchset, &moved) {
		n = add(&w->stale, &w->nstale, s->path, s->flags);
		if (!n)
			err = -ENOMEM;
		else if (n->round < s->round)
			n->round = s->round;
	}
	clear(&moved, &count); /* NOLINT(clang-analyzer-unix.Malloc): what was added is in the tree */
	return err;
}

/* Schedule what is stale, and the directories that hold it: their times. */
static int next_round(struct compare *c)
{
	struct watch *w = &c->watch;
	struct watchset stale = w->stale;
	struct watched *s, *v;
	uint32_t n = w->nstale;
	int err = 0;
	clear(&w->watched, &w->nwatched);
	RB_INIT(&w->stale);
	w->nstale = 0;
	w->until = 0;
	RB_FOREACH (s, watchset, &stale) {
		char *up = *s->path && !err ? strndup(s->path, path_parent_len(s->path)) : NULL;
		err = err ? err : compare_add(c, s->path, s->flags);
		if (!err && *s->path)
			err = up ? compare_add(c, up, CMP_SELF) : -ENOMEM;
		v = find(&w->watched, s->path);
		if (v)
			v->round = s->round;
		free(up);
	}
	clear(&stale, &n);
	return err ? err : 1;
}

int compare_sent(struct compare *c, uint64_t sent, uint64_t head)
{
	struct watch *w = &c->watch;
	if (!w->nwatched || c->nqueued || !TAILQ_EMPTY(&c->jobs))
		return 0;
	if (!w->until)
		w->until = head;
	return sent < w->until ? 0 : next_round(c);
}
