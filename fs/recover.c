/* SPDX-License-Identifier: BSD-2-Clause
 * Recovery at the start of the mount.
 *
 *   killed    the in-flight table says what was going on. An entry's paths were valid at a sequence number of the journal;
 *             they are carried through the renames recorded since, and through renames that had been done below but not
 *             recorded (those are recorded now). What an entry names is rechecked.
 *   power     the in-flight table is worth nothing, and both the journal's end and what it tells of may be missing: the journal has
 *             made a comparison of all it told (journal_recover.c); whatever else changed (ctime) since the source was last synced
 *             (checkpoint.h) is rechecked, recover_walk.c looks for it beside the mount's work.
 *   damaged   everything is rechecked, and the bytes of what changed since the source was last synced, as after a power failure; what was in
 *             flight is among that.
 *   new       nothing: every target begins with a full comparison. */
#include "config.h"

#include "fs/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/inflight.h"
#include "fs/recover_walk.h"
#include "proto/err.h"
#include "proto/jreader.h"
#include "proto/log.h"

struct found {
	struct inflight_entry e;
	char *path, *path2; /* owned; carried forward */
	bool recorded;      /* RENAME: by us */
	bool gone;          /* dirty inode: it lost its last name */
};

/* A rename that an entry's paths have to be carried through. */
struct moved {
	uint64_t seq;
	uint32_t rflags;
	char *from, *to; /* owned */
};

struct recovery {
	struct tfs *fs;
	struct found *v;
	size_t n, cap;
	struct moved *moves;
	size_t nmoves, capmoves;
	bool all; /* something was not to be read: recheck everything */
};

static void recheck(struct tfs *fs, const char *path, uint64_t ino, uint16_t flags)
{
	struct jrec r;

	jrec_init(&r, JT_RECHECK);
	r.path = path;
	r.ino = ino;
	r.flags = flags;
	journal_append(fs->journal, &r);
}

static void collect(void *arg, const struct inflight_entry *e)
{
	struct recovery *rc = arg;
	struct found *f;

	if (rc->n == rc->cap) {
		size_t cap = rc->cap ? rc->cap * 2 : 64;

		f = reallocarray(rc->v, cap, sizeof(*f));
		if (!f) {
			rc->all = true;
			return;
		}
		rc->v = f;
		rc->cap = cap;
	}
	f = &rc->v[rc->n];
	f->recorded = f->gone = false;
	f->e = *e;
	f->path = strdup(e->path);
	f->path2 = strdup(e->path2 ? e->path2 : "");
	if (!f->path || !f->path2 || !path_valid(f->path) || !path_valid(f->path2)) {
		free(f->path);
		free(f->path2);
		rc->all = true;
		return;
	}
	rc->n++;
}

static void add_move(struct recovery *rc, uint64_t seq, uint32_t rflags, const char *from, const char *to)
{
	struct moved *m;

	if (rc->nmoves == rc->capmoves) {
		size_t cap = rc->capmoves ? rc->capmoves * 2 : 64;

		m = reallocarray(rc->moves, cap, sizeof(*m));
		if (!m) {
			rc->all = true;
			return;
		}
		rc->moves = m;
		rc->capmoves = cap;
	}
	m = &rc->moves[rc->nmoves];
	*m = (struct moved){.seq = seq, .rflags = rflags, .from = strdup(from), .to = strdup(to)};
	if (!m->from || !m->to)
		rc->all = true;
	else
		rc->nmoves++;
}

/* A record that takes an inode's last name. */
static void note_gone(struct recovery *rc, const struct jrec *r)
{
	uint64_t ino = jrec_ended(r);

	if (!ino)
		return;
	for (size_t k = 0; k < rc->n; k++)
		rc->v[k].gone |= rc->v[k].e.type == JT_CONTENT && rc->v[k].e.ino == ino && r->seq > rc->v[k].e.seq;
}

/* Read the renames recorded after the oldest entry was made. */
static void read_moves(struct recovery *rc)
{
	uint64_t since = UINT64_MAX;
	struct jreader *jr;
	struct jrec r;
	int got;

	for (size_t k = 0; k < rc->n; k++)
		if (rc->v[k].e.seq < since)
			since = rc->v[k].e.seq;
	if (since >= journal_seq(rc->fs->journal))
		return;
	if (jreader_open(&jr, rc->fs->journalfd) < 0) {
		rc->all = true;
		return;
	}
	if (jreader_seek(jr, since, NULL) < 0)
		rc->all = true;
	while (!rc->all && (got = jreader_next(jr, &r, NULL, NULL)) != 0) {
		if (got < 0) {
			rc->all = true;
			break;
		}
		if (r.type == JT_RENAME)
			add_move(rc, r.seq, r.rflags, r.path, r.path2);
		note_gone(rc, &r);
		jrec_release(&r);
	}
	jreader_close(jr);
}

static void carry_one(char **path, const struct moved *m)
{
	char *buf, *dup;
	const char *from = NULL, *to = NULL;

	if (path_within(m->from, *path)) {
		from = m->from;
		to = m->to;
	} else if (m->rflags & RENAME_EXCHANGE && path_within(m->to, *path)) {
		from = m->to;
		to = m->from;
	}
	if (!from)
		return;
	buf = malloc(PATH_LONGEST + 1);
	if (buf && path_rebase(buf, PATH_LONGEST + 1, *path, from, to) == 0 && (dup = strdup(buf))) {
		free(*path);
		*path = dup;
	}
	free(buf);
}

/* Carry every entry through one rename. A rename's own slot names it before: not carried through itself. */
static void carry(struct recovery *rc, const struct moved *m, const struct found *own)
{
	for (size_t k = 0; k < rc->n; k++) {
		struct found *f = &rc->v[k];

		if (f == own || f->e.seq >= m->seq)
			continue;
		carry_one(&f->path, m);
		carry_one(&f->path2, m);
	}
}

static uint64_t ino_at(int rootfd, const char *path)
{
	struct stat st;

	return path_stat(rootfd, path, &st) < 0 ? 0 : st.st_ino;
}

static struct jtime parent_mtime(int rootfd, const char *path)
{
	const char *base;
	struct stat st;
	int fd = path_open_parent(rootfd, path, &base), r;

	if (fd < 0)
		return (struct jtime){0};
	r = fstat(fd, &st);
	close(fd);
	if (r < 0)
		return (struct jtime){0};
	return (struct jtime){.sec = st.st_mtim.tv_sec, .nsec = (uint32_t)st.st_mtim.tv_nsec};
}

/* The rename was done below: its record is missing, unless it was the last thing appended. */
static bool rename_done(const struct recovery *rc, const struct found *f)
{
	int rootfd = rc->fs->rootfd;

	for (size_t k = 0; k < rc->nmoves; k++) {
		const struct moved *m = &rc->moves[k];

		if (m->seq > f->e.seq && strcmp(m->from, f->e.path) == 0 && strcmp(m->to, f->e.path2) == 0)
			return false; /* recorded */
	}
	if (!f->e.ino || f->e.cut || ino_at(rootfd, f->path2) != f->e.ino)
		return false;
	if (f->e.rflags & RENAME_EXCHANGE)
		return f->e.ino2 && ino_at(rootfd, f->path) == f->e.ino2;
	return ino_at(rootfd, f->path) != f->e.ino;
}

static void record_rename(struct recovery *rc, const struct found *f)
{
	bool exchange = f->e.rflags & RENAME_EXCHANGE;
	struct jrec r;

	jrec_init(&r, JT_RENAME);
	r.path = f->path;
	r.path2 = f->path2;
	r.ino = f->e.ino;
	r.mode = f->e.mode;
	r.rflags = f->e.rflags;
	r.flags = (S_ISDIR(f->e.mode) ? JF_DIR : 0) | (exchange ? JF_EXCHANGE : 0);
	r.ino2 = f->e.ino2;
	r.nlink = exchange || !f->e.nlink2 ? f->e.nlink2 : f->e.nlink2 - 1;
	r.pm = parent_mtime(rc->fs->rootfd, f->path);
	r.pm2 = parent_mtime(rc->fs->rootfd, f->path2);
	journal_append(rc->fs->journal, &r);
}

/* One of an ancestor hides those below it from rename_done until it is recorded: again until none is found. */
static void record_renames(struct recovery *rc)
{
	bool found;

	do {
		found = false;
		for (size_t k = 0; k < rc->n && !rc->all; k++) {
			struct found *f = &rc->v[k];

			if (f->e.type != JT_RENAME || f->recorded || !rename_done(rc, f))
				continue;
			record_rename(rc, f);
			f->recorded = found = true;
			add_move(rc, UINT64_MAX, f->e.rflags, f->path, f->path2);
			if (!rc->all)
				carry(rc, &rc->moves[rc->nmoves - 1], f);
		}
	} while (found);
}

static void recheck_parent(struct tfs *fs, const char *path)
{
	char *dir = strndup(path, path_parent_len(path));

	if (dir)
		recheck(fs, dir, 0, JF_RECOVERY);
	free(dir);
}

static void recheck_found(struct recovery *rc)
{
	struct tfs *fs = rc->fs;

	for (size_t k = 0; k < rc->n; k++) {
		const struct found *f = &rc->v[k];
		uint16_t flags = JF_RECOVERY;

		if (f->e.cut) {
			recheck(fs, f->path, 0, JF_RECOVERY | JF_RECURSIVE | JF_CHECKSUM);
			if (f->path2[0])
				recheck(fs, f->path2, 0, JF_RECOVERY | JF_RECURSIVE | JF_CHECKSUM);
			continue;
		}
		if (f->e.type == JT_CONTENT)
			flags |= JF_CHECKSUM; /* size and time may be what they were */
		if (f->e.type != JT_CONTENT && f->e.type != JT_SETATTR)
			recheck_parent(fs, f->path);
		/* with its inode: the replicator finds the file also by another name */
		recheck(fs, f->path, f->e.type == JT_CONTENT && !f->gone ? f->e.ino : 0, flags);
		if (f->e.type == JT_RENAME) {
			recheck_parent(fs, f->path2);
			recheck(fs, f->path2, 0, flags | (S_ISDIR(f->e.mode) ? JF_RECURSIVE : 0));
		}
	}
}

static void release(struct recovery *rc)
{
	for (size_t k = 0; k < rc->n; k++) {
		free(rc->v[k].path);
		free(rc->v[k].path2);
	}
	for (size_t k = 0; k < rc->nmoves; k++) {
		free(rc->moves[k].from);
		free(rc->moves[k].to);
	}
	free(rc->v);
	free(rc->moves);
}

static void recover_killed(struct tfs *fs)
{
	struct recovery rc = {.fs = fs, .all = inflight_overflowed(fs->inflight)};

	inflight_each(fs->inflight, collect, &rc);
	if (rc.n > 0)
		read_moves(&rc);
	for (size_t k = 0; k < rc.nmoves; k++)
		carry(&rc, &rc.moves[k], NULL);
	record_renames(&rc);
	recheck_found(&rc);
	if (rc.all)
		recheck(fs, "", 0, JF_RECOVERY | JF_RECURSIVE | JF_CHECKSUM);
	log_warn("the mount process had been killed: %zu operations and open files in flight are rechecked%s", rc.n,
	    rc.all ? ", and everything else" : "");
	release(&rc);
}

int recover_start(struct tfs *fs, enum journal_start start, uint64_t since_ns)
{
	int r = 0;

	switch (start) {
	case JSTART_NEW:
	case JSTART_CLEAN:
		break;
	case JSTART_KILLED:
		recover_killed(fs);
		break;
	case JSTART_POWER:
		log_warn("the host went down without closing the journal: what it recorded, and what else changed last, is compared with the standbys");
		break;
	case JSTART_DAMAGED:
		log_error("the journal is damaged: its readable part is kept, everything is compared with the standbys");
		recheck(fs, "", 0, JF_RECOVERY | JF_RECURSIVE);
		break;
	}
	inflight_reset(fs->inflight);
	if (start != JSTART_NEW)
		r = recover_walk_start(fs, start == JSTART_POWER || start == JSTART_DAMAGED ? since_ns : UINT64_MAX);
	if (r == 0) /* from here on the walk's own file remembers */
		journal_recovered(fs->journal);
	return r < 0 ? r : 0;
}

bool recover_stop(struct tfs *fs)
{
	return recover_walk_stop(fs);
}
