/* SPDX-License-Identifier: BSD-2-Clause
 * Hard-link groups of a comparison: see hardlinks.h. Two chained hash tables: by source inode, by standby
 * inode. */
#include "config.h"
#include "replicator/source/hardlinks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct claim {
	struct claim *next;
	uint64_t standby;
	dev_t dev;
	ino_t ino;
};

struct links {
	struct link_group **groups;
	struct claim **claims;
	uint32_t gmask, cmask;
	uint32_t ngroups, nclaims;
};

static uint32_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15ull;
	return (uint32_t)(x >> 32);
}

struct links *links_new(void)
{
	struct links *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->gmask = l->cmask = 63;
	l->groups = calloc(64, sizeof(*l->groups));
	l->claims = calloc(64, sizeof(*l->claims));
	if (!l->groups || !l->claims) {
		links_free(l);
		return NULL;
	}
	return l;
}

static void group_free(struct link_group *g)
{
	for (struct link_waiter *w = g->waiters, *n; w; w = n) {
		n = w->next;
		free(w);
	}
	free(g->path);
	free(g);
}

void links_free(struct links *l)
{
	if (!l)
		return;
	for (uint32_t i = 0; l->groups && i <= l->gmask; i++)
		for (struct link_group *g = l->groups[i], *n; g; g = n) {
			n = g->next;
			group_free(g);
		}
	for (uint32_t i = 0; l->claims && i <= l->cmask; i++)
		for (struct claim *c = l->claims[i], *n; c; c = n) {
			n = c->next;
			free(c);
		}
	free(l->groups);
	free(l->claims);
	free(l);
}

struct link_group *links_find(const struct links *l, dev_t dev, ino_t ino)
{
	struct link_group *g = l->groups[mix(ino) & l->gmask];
	while (g && (g->ino != ino || g->dev != dev))
		g = g->next;
	return g;
}

/* Double the tables when they are full; without memory they stay as they are, only slower. */
static void grow_groups(struct links *l)
{
	uint32_t mask = l->gmask * 2 + 1;
	struct link_group **t = calloc((size_t)mask + 1, sizeof(*t));
	if (!t)
		return;
	for (uint32_t i = 0; i <= l->gmask; i++)
		for (struct link_group *g = l->groups[i], *n; g; g = n) {
			n = g->next;
			g->next = t[mix(g->ino) & mask];
			t[mix(g->ino) & mask] = g;
		}
	free(l->groups);
	l->groups = t;
	l->gmask = mask;
}

static void grow_claims(struct links *l)
{
	uint32_t mask = l->cmask * 2 + 1;
	struct claim **t = calloc((size_t)mask + 1, sizeof(*t));
	if (!t)
		return;
	for (uint32_t i = 0; i <= l->cmask; i++)
		for (struct claim *c = l->claims[i], *n; c; c = n) {
			n = c->next;
			c->next = t[mix(c->standby) & mask];
			t[mix(c->standby) & mask] = c;
		}
	free(l->claims);
	l->claims = t;
	l->cmask = mask;
}

struct link_group *links_add(struct links *l, dev_t dev, ino_t ino, const char *path)
{
	struct link_group *g = calloc(1, sizeof(*g));
	if (!g || links_lead(g, path)) {
		free(g);
		return NULL;
	}
	if (l->ngroups++ > l->gmask)
		grow_groups(l);
	g->dev = dev;
	g->ino = ino;
	g->tail = &g->waiters;
	g->next = l->groups[mix(ino) & l->gmask];
	l->groups[mix(ino) & l->gmask] = g;
	return g;
}

int links_lead(struct link_group *g, const char *path)
{
	char *p = strdup(path);
	if (!p)
		return -ENOMEM;
	free(g->path);
	g->path = p;
	return 0;
}

int links_wait(struct link_group *g, const char *path, void *dir, bool replace)
{
	size_t n = strlen(path) + 1;
	struct link_waiter *w = malloc(sizeof(*w) + n);
	if (!w)
		return -ENOMEM;
	w->next = NULL;
	w->dir = dir;
	w->replace = replace;
	memcpy(w->path, path, n);
	*g->tail = w;
	g->tail = &w->next;
	return 0;
}

bool links_claim(struct links *l, uint64_t standby, dev_t dev, ino_t ino)
{
	for (struct claim *c = l->claims[mix(standby) & l->cmask]; c; c = c->next)
		if (c->standby == standby)
			return c->dev == dev && c->ino == ino;
	struct claim *c = malloc(sizeof(*c));
	if (!c)
		return true;
	if (l->nclaims++ > l->cmask)
		grow_claims(l);
	*c = (struct claim){l->claims[mix(standby) & l->cmask], standby, dev, ino};
	l->claims[mix(standby) & l->cmask] = c;
	return true;
}

bool links_incomplete(const struct links *l)
{
	for (uint32_t i = 0; i <= l->gmask; i++)
		for (struct link_group *g = l->groups[i]; g; g = g->next)
			if (g->unsure && g->met < g->nlink)
				return true;
	return false;
}

uint32_t links_count(const struct links *l)
{
	return l->ngroups;
}
