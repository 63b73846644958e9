/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/silly.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "fs/dirty.h"
#include "fs/op.h"

#define WATCH_MAX 256 /* directories; beyond it the oldest is given up */
#define LINGER    60  /* seconds that a directory is watched after the last reason */
#define TRIES     10  /* looks at a directory that is being changed */

/* One directory. All members belong to tree.lock. */
struct watch {
	TAILQ_ENTRY(watch) link; /* oldest first */
	struct inode *dir;       /* pinned */
	struct jtime last;       /* as recorded last */
	uint64_t records;        /* how many said so */
	unsigned kept;           /* entries of the list of keepers */
	bool busy;               /* silly_settle looks at it */
	time_t until;            /* CLOCK_MONOTONIC */
};

/* A removed file of which we have a descriptor. */
struct keeper {
	LIST_ENTRY(keeper) link;
	struct watch *watch;
	uint64_t nodeid;
};

struct silly {
	pthread_mutex_t settling; /* held by silly_settle; before tree.lock */
	/* tree.lock */
	TAILQ_HEAD(, watch) watches;
	LIST_HEAD(, keeper) keepers;
	unsigned n;
};

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return ts.tv_sec;
}

int silly_init(struct tfs *fs)
{
	struct silly *s;

	if (!fs->nfs)
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->settling, NULL);
	TAILQ_INIT(&s->watches);
	LIST_INIT(&s->keepers);
	fs->silly = s;
	return 0;
}

static struct watch *find_locked(const struct silly *s, const struct inode *dir)
{
	struct watch *w;

	TAILQ_FOREACH(w, &s->watches, link)
		if (w->dir == dir)
			return w;
	return NULL;
}

static void drop_locked(struct tfs *fs, struct watch *w)
{
	struct silly *s = fs->silly;
	struct keeper *k, *next;

	for (k = LIST_FIRST(&s->keepers); k; k = next) {
		next = LIST_NEXT(k, link);
		if (k->watch != w)
			continue;
		LIST_REMOVE(k, link);
		free(k);
	}
	TAILQ_REMOVE(&s->watches, w, link);
	s->n--;
	w->dir->watched = false;
	tree_unpin_locked(&fs->tree, w->dir);
	free(w);
}

/* Make room: first those that were removed, then those nobody of ours keeps a file in. */
static void evict_locked(struct tfs *fs)
{
	struct watch *w, *victim = NULL;

	TAILQ_FOREACH(w, &fs->silly->watches, link) {
		if (w->busy)
			continue;
		if (!w->dir->names && w->dir != fs->tree.root) {
			victim = w;
			break;
		}
		if (!victim || (victim->kept && !w->kept))
			victim = w;
	}
	if (victim)
		drop_locked(fs, victim);
}

static struct watch *watch_new_locked(struct tfs *fs, struct inode *dir)
{
	struct silly *s = fs->silly;
	struct watch *w;

	if (s->n >= WATCH_MAX)
		evict_locked(fs);
	w = s->n < WATCH_MAX ? calloc(1, sizeof(*w)) : NULL;
	if (!w)
		return NULL;
	w->dir = dir;
	tree_pin_locked(dir);
	dir->watched = true;
	TAILQ_INSERT_TAIL(&s->watches, w, link);
	s->n++;
	return w;
}

void silly_watch_locked(struct tfs *fs, struct inode *dir, const struct inode *kept, struct jtime pm)
{
	struct keeper *k;
	struct watch *w;

	if (!fs->silly)
		return;
	w = dir->watched ? find_locked(fs->silly, dir) : watch_new_locked(fs, dir);
	if (!w)
		return;
	w->until = now() + LINGER;
	w->last = pm;
	w->records++;
	k = kept ? calloc(1, sizeof(*k)) : NULL;
	if (!k)
		return;
	k->watch = w;
	k->nodeid = tree_nodeid(&fs->tree, kept);
	w->kept++;
	LIST_INSERT_HEAD(&fs->silly->keepers, k, link);
}

void silly_recorded_locked(struct tfs *fs, const struct inode *dir, struct jtime pm)
{
	struct watch *w = dir->watched ? find_locked(fs->silly, dir) : NULL;

	if (!w)
		return;
	w->last = pm;
	w->records++;
}

/* Files that we have closed meanwhile. */
static void keepers_check_locked(struct tfs *fs, time_t at)
{
	struct keeper *k, *next;

	for (k = LIST_FIRST(&fs->silly->keepers); k; k = next) {
		const struct inode *i = tree_find_locked(&fs->tree, k->nodeid);

		next = LIST_NEXT(k, link);
		if (i && (i->open || i->fd >= 0))
			continue;
		k->watch->kept--;
		k->watch->until = at + LINGER;
		LIST_REMOVE(k, link);
		free(k);
	}
}

static void record_locked(struct tfs *fs, struct watch *w, struct jtime mtime)
{
	struct worker *me = worker_get(fs);

	if (!me)
		return;
	op_append_mtime_locked(fs, me, w->dir, NULL, w->dir->ino, mtime);
	w->last = mtime;
}

/* Compare the directory's mtime with the recorded one. Between the two looks at `records` nothing was recorded, so that an older mtime
 * never follows a newer one. */
static void look(struct tfs *fs, struct watch *w)
{
	struct jtime mtime;
	struct dirfd *d;
	uint64_t records;
	bool again = true, changed = false;

	for (int n = 0; again && n < TRIES; n++) {
		pthread_mutex_lock(&fs->tree.lock);
		records = w->records;
		pthread_mutex_unlock(&fs->tree.lock);
		if (dirfd_get(&fs->tree, w->dir, &d) < 0)
			return;
		mtime = op_mtime(d->fd);
		dirfd_put(&fs->tree, d);
		pthread_mutex_lock(&fs->tree.lock);
		again = w->records != records;
		changed = !again && (mtime.sec != w->last.sec || mtime.nsec != w->last.nsec) && (mtime.sec || mtime.nsec) &&
		    (w->dir->names || w->dir == fs->tree.root);
		if (changed)
			record_locked(fs, w, mtime);
		pthread_mutex_unlock(&fs->tree.lock);
	}
	if (changed && fs->se)
		fuse_lowlevel_notify_inval_inode(fs->se, tree_nodeid(&fs->tree, w->dir), -1, 0);
}

void silly_settle(struct tfs *fs)
{
	struct silly *s = fs->silly;
	struct watch *v[WATCH_MAX], *w;
	size_t n = 0;
	time_t at = now();

	if (!s)
		return;
	pthread_mutex_lock(&s->settling);
	pthread_mutex_lock(&fs->tree.lock);
	keepers_check_locked(fs, at);
	TAILQ_FOREACH(w, &s->watches, link) {
		w->busy = true;
		v[n++] = w;
	}
	pthread_mutex_unlock(&fs->tree.lock);
	for (size_t k = 0; k < n; k++)
		look(fs, v[k]);
	pthread_mutex_lock(&fs->tree.lock);
	for (size_t k = 0; k < n; k++) {
		w = v[k];
		w->busy = false;
		if ((!w->dir->names && w->dir != fs->tree.root) || (!w->kept && w->until <= at))
			drop_locked(fs, w);
	}
	pthread_mutex_unlock(&fs->tree.lock);
	pthread_mutex_unlock(&s->settling);
}

void silly_release(struct tfs *fs)
{
	struct silly *s = fs->silly;

	if (!s)
		return;
	pthread_mutex_lock(&fs->tree.lock);
	while (!TAILQ_EMPTY(&s->watches))
		drop_locked(fs, TAILQ_FIRST(&s->watches)); /* NOLINT(clang-analyzer-unix.Malloc): takes it off the list */
	pthread_mutex_unlock(&fs->tree.lock);
	pthread_mutex_destroy(&s->settling);
	free(s);
	fs->silly = NULL;
}
