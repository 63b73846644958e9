/* SPDX-License-Identifier: BSD-2-Clause
 * The inode table; see tree.h for its rules. */
#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "fs/tree.h"
#include "proto/err.h"
#include "proto/path.h"

#define TABLE_MIN 1024u
#define ROOT_SLOT 1u

/* --- slots: node ids ------------------------------------------------------------------------- */

static struct slot *slot_at(struct tree *t, uint32_t n)
{
	return &t->chunks[n / SLOT_CHUNK][n % SLOT_CHUNK];
}

/* The table of chunks has its full size from the start, so that readers need no lock. */
#define CHUNKS_MAX (1u << 20)

static int slots_grow_locked(struct tree *t)
{
	struct slot *c;
	uint32_t first = t->nchunks * SLOT_CHUNK;

	if (t->nchunks >= CHUNKS_MAX)
		return -ENOMEM;
	c = calloc(SLOT_CHUNK, sizeof(*c));
	if (!c)
		return -ENOMEM;
	for (uint32_t i = SLOT_CHUNK; i-- > 0;) {
		if (first + i <= ROOT_SLOT)
			continue;
		c[i].next = t->freeslot;
		t->freeslot = first + i;
	}
	t->chunks[t->nchunks++] = c;
	return 0;
}

static int slot_take_locked(struct tree *t, struct inode *i)
{
	struct slot *s;

	if (!t->freeslot && slots_grow_locked(t) < 0)
		return -ENOMEM;
	i->slot = t->freeslot;
	s = slot_at(t, i->slot);
	t->freeslot = s->next;
	i->gen = ++s->gen;
	s->inode = i;
	return 0;
}

static void slot_give_locked(struct tree *t, struct inode *i)
{
	struct slot *s = slot_at(t, i->slot);

	s->inode = NULL;
	s->next = t->freeslot;
	t->freeslot = i->slot;
}

uint64_t tree_nodeid(const struct tree *t, const struct inode *i)
{
	return i == t->root ? 1 : (uint64_t)i->gen << 32 | i->slot;
}

struct inode *tree_get(struct tree *t, uint64_t nodeid)
{
	return nodeid == 1 ? t->root : slot_at(t, (uint32_t)nodeid)->inode;
}

struct inode *tree_find_locked(struct tree *t, uint64_t nodeid)
{
	uint32_t n = (uint32_t)nodeid;
	struct slot *s;

	if (nodeid == 1)
		return t->root;
	if (n / SLOT_CHUNK >= t->nchunks)
		return NULL;
	s = slot_at(t, n);
	return s->inode && s->gen == nodeid >> 32 ? s->inode : NULL;
}

/* --- the (dev, ino) hash ---------------------------------------------------------------------- */

static size_t ihash_of(const struct tree *t, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ dev * 0x9e3779b97f4a7c15u ^ t->hseed) * 0xff51afd7ed558ccdu;

	return (h ^ h >> 32) & (t->isize - 1);
}

static void ihash_grow_locked(struct tree *t)
{
	size_t old = t->isize;
	struct inode **table = calloc(old * 2, sizeof(*table)), **from = t->ihash;

	if (!table)
		return; /* longer chains, nothing worse */
	t->isize = old * 2;
	t->ihash = table;
	for (size_t b = 0; b < old; b++) {
		struct inode *i = from[b], *next;

		for (; i; i = next) {
			size_t n = ihash_of(t, i->dev, i->ino);

			next = i->hnext;
			i->hnext = table[n];
			table[n] = i;
		}
	}
	free(from);
}

static struct inode *ihash_find_locked(struct tree *t, uint64_t dev, uint64_t ino)
{
	struct inode *i = t->ihash[ihash_of(t, dev, ino)];

	while (i && (i->ino != ino || i->dev != dev))
		i = i->hnext;
	return i;
}

static void ihash_add_locked(struct tree *t, struct inode *i)
{
	size_t b = ihash_of(t, i->dev, i->ino);

	i->hnext = t->ihash[b];
	t->ihash[b] = i;
	i->hashed = true;
}

static void ihash_remove_locked(struct tree *t, struct inode *i)
{
	struct inode **p = &t->ihash[ihash_of(t, i->dev, i->ino)];

	if (!i->hashed)
		return;
	while (*p != i)
		p = &(*p)->hnext;
	*p = i->hnext;
	i->hashed = false;
}

/* --- the name hash ---------------------------------------------------------------------------- */

static uint32_t dhash_of(const struct tree *t, const struct inode *parent, const char *name)
{
	return (uint32_t)XXH3_64bits_withSeed(name, strlen(name), (uint64_t)(uintptr_t)parent ^ t->hseed);
}

static void dhash_grow_locked(struct tree *t)
{
	size_t old = t->dsize;
	struct dentry **table = calloc(old * 2, sizeof(*table)), **from = t->dhash;

	if (!table)
		return;
	t->dsize = old * 2;
	t->dhash = table;
	for (size_t b = 0; b < old; b++) {
		struct dentry *d = from[b], *next;

		for (; d; d = next) {
			size_t n = d->hash & (t->dsize - 1);

			next = d->hnext;
			d->hnext = table[n];
			table[n] = d;
		}
	}
	free(from);
}

static struct dentry *dentry_find_locked(struct tree *t, struct inode *parent, const char *name)
{
	uint32_t h = dhash_of(t, parent, name);
	struct dentry *d = t->dhash[h & (t->dsize - 1)];

	while (d && (d->hash != h || d->parent != parent || strcmp(d->name, name) != 0))
		d = d->hnext;
	return d;
}

static void inode_check_locked(struct tree *t, struct inode *i);

static void dentry_free_locked(struct tree *t, struct dentry *d)
{
	struct dentry **p = &t->dhash[d->hash & (t->dsize - 1)];
	struct inode *parent = d->parent, *i = d->inode;

	while (*p != d)
		p = &(*p)->hnext;
	*p = d->hnext;
	for (p = &d->inode->names; *p != d;)
		p = &(*p)->next;
	*p = d->next;
	free(d);
	t->ndentries--;
	parent->kids--;
	inode_check_locked(t, parent);
	inode_check_locked(t, i); /* one that was only remembered */
}

struct inode *tree_child_locked(struct tree *t, struct inode *parent, const char *name)
{
	struct dentry *d = dentry_find_locked(t, parent, name);

	return d ? d->inode : NULL;
}

int tree_name_locked(struct tree *t, struct inode *i, struct inode *parent, const char *name)
{
	struct dentry *d = dentry_find_locked(t, parent, name);
	size_t len = strlen(name) + 1;

	if (d && d->inode == i)
		return 0;
	if (d)
		dentry_free_locked(t, d);
	d = malloc(sizeof(*d) + len);
	if (!d)
		return -ENOMEM;
	if (t->ndentries >= t->dsize)
		dhash_grow_locked(t);
	d->parent = parent;
	d->inode = i;
	d->hash = dhash_of(t, parent, name);
	memcpy(d->name, name, len);
	d->hnext = t->dhash[d->hash & (t->dsize - 1)];
	t->dhash[d->hash & (t->dsize - 1)] = d;
	d->next = i->names;
	i->names = d;
	i->gone = false;
	parent->kids++;
	t->ndentries++;
	return 0;
}

void tree_unname_locked(struct tree *t, struct inode *parent, const char *name)
{
	struct dentry *d = dentry_find_locked(t, parent, name);

	if (d)
		dentry_free_locked(t, d);
}

int tree_move_locked(struct tree *t, struct inode *parent, const char *name, struct inode *newparent, const char *newname)
{
	struct dentry *d = dentry_find_locked(t, parent, name);
	struct inode *i;
	int r;

	if (!d) {
		tree_unname_locked(t, newparent, newname);
		return 0;
	}
	i = d->inode;
	i->pins++;
	dentry_free_locked(t, d);
	r = tree_name_locked(t, i, newparent, newname);
	tree_unpin_locked(t, i);
	return r;
}

int tree_swap_locked(struct tree *t, struct inode *p1, const char *n1, struct inode *p2, const char *n2)
{
	struct inode *a = tree_child_locked(t, p1, n1), *b = tree_child_locked(t, p2, n2);
	int r = 0;

	if (a)
		a->pins++;
	if (b)
		b->pins++;
	tree_unname_locked(t, p1, n1);
	tree_unname_locked(t, p2, n2);
	if (a) {
		r = tree_name_locked(t, a, p2, n2);
		tree_unpin_locked(t, a);
	}
	if (b) {
		r = tree_name_locked(t, b, p1, n1) < 0 ? -ENOMEM : r;
		tree_unpin_locked(t, b);
	}
	return r;
}

void tree_rename_begin(struct tree *t)
{
	pthread_mutex_lock(&t->lock);
	t->renaming++;
	pthread_mutex_unlock(&t->lock);
}

void tree_rename_end_locked(struct tree *t)
{
	t->renaming--;
	t->renamed++;
	pthread_cond_broadcast(&t->settled);
}

void tree_await_rename_locked(struct tree *t)
{
	uint64_t renamed = t->renamed;

	while (t->renaming && t->renamed == renamed)
		pthread_cond_wait(&t->settled, &t->lock);
}

/* --- inodes ------------------------------------------------------------------------------------ */

static bool may_carry_priv(uint32_t mode)
{
	return S_ISREG(mode) && (mode & (S_ISUID | S_ISGID)) != 0;
}

void tree_saw(struct inode *i, const struct stat *st)
{
	i->mode = st->st_mode;
	if (may_carry_priv(st->st_mode))
		atomic_store_explicit(&i->priv, true, memory_order_relaxed);
}

static struct inode *inode_new_locked(struct tree *t, const struct stat *st)
{
	struct inode *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	if (slot_take_locked(t, i) < 0) {
		free(i);
		return NULL;
	}
	if (t->ninodes >= t->isize)
		ihash_grow_locked(t);
	i->ino = st->st_ino;
	i->dev = st->st_dev;
	i->fd = -1;
	tree_saw(i, st);
	ihash_add_locked(t, i);
	if (++t->ninodes > t->peak)
		t->peak = t->ninodes;
	return i;
}

/* Free i, and then its ancestors, if nothing refers to it any more. */
static void inode_check_locked(struct tree *t, struct inode *i)
{
	if (i->nlookup || i->kids || i->pins || i->open || i == t->root || (t->remember && i->names))
		return;
	i->pins = 1; /* dentry_free_locked must not come back here */
	dirfd_drop_locked(t, i);
	if (i->fd >= 0)
		close(i->fd);
	ihash_remove_locked(t, i);
	slot_give_locked(t, i);
	t->ninodes--;
	while (i->names)
		dentry_free_locked(t, i->names); /* NOLINT(clang-analyzer-unix.Malloc): takes it off the list */
	free(i);
}

/* The remembered inode of this number if it is the same object; a dead one is taken out of the hash. */
static struct inode *inode_match_locked(struct tree *t, const struct stat *st, bool fresh)
{
	struct inode *i = ihash_find_locked(t, st->st_dev, st->st_ino);

	if (!i)
		return NULL;
	if (!fresh && (i->mode & S_IFMT) == (st->st_mode & S_IFMT))
		return i;
	if (i == t->root)
		return i;
	ihash_remove_locked(t, i);
	i->pins++;
	while (i->names)
		dentry_free_locked(t, i->names);
	tree_unpin_locked(t, i);
	return NULL;
}

struct inode *tree_enter_locked(struct tree *t, struct inode *parent, const char *name, const struct stat *st,
    bool fresh, bool *moved)
{
	struct inode *i = inode_match_locked(t, st, fresh), *old = tree_child_locked(t, parent, name);

	if (moved)
		*moved = old && old != i;
	if (!i)
		i = inode_new_locked(t, st);
	if (!i)
		return NULL;
	tree_saw(i, st);
	i->nlookup++;
	/* A directory has one name: another one was found because it moved behind our back. */
	if (S_ISDIR(st->st_mode) && old != i) {
		while (i->names)
			dentry_free_locked(t, i->names);
	}
	if (i != t->root && tree_name_locked(t, i, parent, name) < 0) {
		i->nlookup--;
		inode_check_locked(t, i);
		return NULL;
	}
	return i;
}

struct inode *tree_enter_anon_locked(struct tree *t, const struct stat *st)
{
	struct inode *i = inode_match_locked(t, st, true);

	if (!i)
		i = inode_new_locked(t, st);
	if (i)
		i->nlookup++;
	return i;
}

void tree_forget(struct tree *t, struct inode *i, uint64_t n)
{
	int fd = -1;

	pthread_mutex_lock(&t->lock);
	i->nlookup = i->nlookup > n ? i->nlookup - n : 0;
	if (!i->nlookup && !i->kids && !i->pins && !i->open && i->fd >= 0) {
		/* the last reference to a removed file: its blocks are freed at close, nobody should wait for that */
		fd = i->fd;
		i->fd = -1;
	}
	inode_check_locked(t, i);
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
}

void tree_pin_locked(struct inode *i)
{
	i->pins++;
}

void tree_unpin_locked(struct tree *t, struct inode *i)
{
	i->pins--;
	inode_check_locked(t, i);
}

void tree_trim(struct tree *t)
{
	bool much;

	pthread_mutex_lock(&t->lock);
	much = t->peak > 65536 && t->ninodes < t->peak / 2;
	if (much)
		t->peak = t->ninodes;
	pthread_mutex_unlock(&t->lock);
	if (much)
		malloc_trim(1 << 20);
}

/* --- paths --------------------------------------------------------------------------------------- */

int tree_path_locked(struct tree *t, struct inode *dir, const char *name, char *out)
{
	size_t at = PATH_LONGEST, n;
	struct inode *i = dir;

	out[at] = '\0';
	if (name) {
		n = strlen(name);
		if (n > at)
			return E_LIMIT;
		at -= n;
		memcpy(out + at, name, n);
	}
	for (; i != t->root; i = i->names->parent) {
		if (!i->names)
			return -ENOENT;
		n = strlen(i->names->name);
		if (n + 1 > at)
			return E_LIMIT;
		if (out[at] != '\0')
			out[--at] = '/';
		at -= n;
		memcpy(out + at, i->names->name, n);
	}
	n = PATH_LONGEST - at;
	memmove(out, out + at, n + 1);
	return (int)n;
}

/* --- the table ----------------------------------------------------------------------------------- */

int tree_init(struct tree *t, int rootfd)
{
	struct stat st;
	struct timespec now;

	memset(t, 0, sizeof(*t));
	if (fstat(rootfd, &st) < 0)
		return -errno;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->settled, NULL);
	TAILQ_INIT(&t->lru);
	clock_gettime(CLOCK_MONOTONIC, &now);
	t->hseed = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u ^ (uint64_t)getpid() << 20;
	t->isize = t->dsize = TABLE_MIN;
	t->ihash = calloc(t->isize, sizeof(*t->ihash));
	t->dhash = calloc(t->dsize, sizeof(*t->dhash));
	t->chunks = calloc(CHUNKS_MAX, sizeof(*t->chunks)); /* 8 MiB of untouched zero pages */
	if (!t->ihash || !t->dhash || !t->chunks || slots_grow_locked(t) < 0)
		return -ENOMEM;
	t->root = inode_new_locked(t, &st);
	if (!t->root)
		return -ENOMEM;
	t->root->nlookup = 1;
	dirfd_keep_locked(t, t->root, rootfd);
	return 0;
}

void tree_release(struct tree *t)
{
	for (size_t c = 0; c < t->nchunks; c++) {
		for (size_t n = 0; n < SLOT_CHUNK; n++) {
			struct inode *i = t->chunks[c][n].inode;

			if (!i)
				continue;
			while (i->names) {
				struct dentry *d = i->names;

				i->names = d->next;
				free(d);
			}
			if (i->fd >= 0)
				close(i->fd);
			if (i->dir)
				close(i->dir->fd);
			free(i->dir);
			free(i);
		}
		free(t->chunks[c]);
	}
	free(t->chunks);
	free(t->ihash);
	free(t->dhash);
	pthread_cond_destroy(&t->settled);
	pthread_mutex_destroy(&t->lock);
}
