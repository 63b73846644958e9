/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/drift.h"

#include "fs/inodefd.h"
#include "fs/op.h"

static int64_t mtime_of(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static void keep_locked(struct inode *i, const struct stat *st)
{
	i->seen.known = true;
	i->seen.mtime = mtime_of(st);
	i->seen.size = (uint64_t)st->st_size;
	i->seen.mode = st->st_mode;
	i->seen.uid = st->st_uid;
	i->seen.gid = st->st_gid;
}

static bool differs(const struct seen *s, const struct stat *st)
{
	return s->mtime != mtime_of(st) || s->size != (uint64_t)st->st_size || s->mode != st->st_mode ||
	    s->uid != st->st_uid || s->gid != st->st_gid;
}

static void record_locked(struct tfs *fs, struct worker *w, struct inode *i)
{
	jrec_init(&w->rec, JT_RECHECK);
	w->rec.flags = JF_DRIFT;
	w->rec.ino = i->ino;
	op_path_locked(fs, i, NULL, w->path, &w->rec.path);
	if (w->rec.path[0] || i == fs->tree.root)
		journal_append(fs->journal, &w->rec);
}

void drift_look(struct tfs *fs, struct worker *w)
{
	if (!fs->exclusive && w)
		w->look = atomic_load(&fs->tree.changes);
}

bool drift_overtaken_locked(struct tfs *fs, const struct worker *w, const struct inode *dir)
{
	bool overtaken = !fs->exclusive && (dir->seen.busy || dir->seen.ours > w->look);

	while (dir->seen.busy)
		pthread_cond_wait(&fs->tree.settled, &fs->tree.lock);
	return overtaken;
}

void drift_saw_locked(struct tfs *fs, struct worker *w, struct inode *i, const struct stat *st)
{
	if (fs->exclusive || i->seen.busy || i->seen.ours > w->look)
		return;
	if (i->seen.known && differs(&i->seen, st))
		record_locked(fs, w, i);
	keep_locked(i, st);
}

void drift_saw(struct tfs *fs, struct worker *w, struct inode *i, const struct stat *st)
{
	if (fs->exclusive || !w)
		return;
	pthread_mutex_lock(&fs->tree.lock);
	drift_saw_locked(fs, w, i, st);
	pthread_mutex_unlock(&fs->tree.lock);
}

void drift_replaced_locked(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, uint64_t ino)
{
	if (fs->exclusive || !w)
		return;
	jrec_init(&w->rec, JT_RECHECK);
	w->rec.flags = JF_DRIFT;
	w->rec.ino = ino;
	op_path_locked(fs, dir, name, w->path, &w->rec.path);
	if (w->rec.path[0])
		journal_append(fs->journal, &w->rec);
}

void drift_check(struct tfs *fs, struct worker *w, struct inode *i)
{
	struct stat st;

	if (fs->exclusive || !w)
		return;
	drift_look(fs, w);
	if (ifd_stat(fs, i, &st) == 0)
		drift_saw(fs, w, i, &st);
}

void drift_begin_locked(struct tfs *fs, struct inode *i)
{
	if (fs->exclusive)
		return;
	i->seen.mixed |= i->seen.busy > 0;
	i->seen.busy++;
}

void drift_end(struct tfs *fs, struct inode *i)
{
	struct stat st;
	bool found;

	if (fs->exclusive)
		return;
	found = ifd_stat(fs, i, &st) == 0;
	pthread_mutex_lock(&fs->tree.lock);
	i->seen.ours = atomic_fetch_add(&fs->tree.changes, 1) + 1;
	if (--i->seen.busy == 0) {
		if (found && !i->seen.mixed)
			keep_locked(i, &st);
		else
			i->seen.known = false;
		i->seen.mixed = false;
		pthread_cond_broadcast(&fs->tree.settled);
	} else {
		i->seen.mixed = true;
	}
	pthread_mutex_unlock(&fs->tree.lock);
}
