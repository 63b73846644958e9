/* SPDX-License-Identifier: BSD-2-Clause
 * Where to begin after WELCOME (docs/ARCHITECTURE.md, Rule 5):
 *
 *   the module has no position of ours, or a full comparison was not finished
 *                             -> from the journal's present end H, and compare everything; files in flux converge by the records after H
 *                                (unfinished: the bytes of files with CONTENT records that are not replayed are compared)
 *   its position is not in our journal's history, or records behind it are reclaimed or cannot be read
 *                             -> the same, all bytes, and say why
 *   WW_UNCLEAN                -> records (durable, H] are not replayed: their paths are compared; on from H
 *   all from a record on are outstanding -> they are not replayed: their paths are compared; on from `applied`
 *   else                      -> on from `applied`; the outstanding records are read once more
 *
 * Outstanding records: content is sent again, as bulk work, with the ranges of all later records of the inode up to `applied`, to the
 * name it has there; what a comparison stood for is compared again. */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "proto/err.h"
#include "proto/log.h"
#include "proto/path.h"
#include "replicator/source/follow.h"
#include "replicator/source/locate.h"
#include "replicator/source/session.h"

struct redo { /* one CONTENT record to be sent again, or another whose file is to be compared again */
	uint64_t seq, time_ns, size; /* of the first; of the last, and the file's size then */
	struct follow_names names;
	struct extent_set extents;
	unsigned compare; /* not content: flags to compare its file with, 0: content */
	bool open;
	uint8_t handle[128]; /* of a file that has several names, of which we may know none that lasts */
	uint32_t handle_len;
	int32_t handle_type;
};

#define RESCAN_STEPS 100000000u /* names times records followed for recheck_bytes */

struct redos {
	struct redo *v;
	uint32_t n, cap;
	bool rechecks; /* the first RECHECK that is outstanding was met: later ones may be, too */
};

static void redos_release(struct redos *d)
{
	while (d->n > 0) {
		follow_end(&d->v[--d->n].names);
		extent_release(&d->v[d->n].extents);
	}
	free(d->v);
}

static struct redo *redo_of(struct redos *d, uint64_t ino)
{
	uint32_t i;

	for (i = 0; i < d->n; i++)
		if (d->v[i].names.ino == ino && !d->v[i].names.gone && d->v[i].compare == 0)
			return &d->v[i];
	return NULL;
}

static bool listed(const struct wwelcome *w, uint64_t seq)
{
	uint32_t i;

	for (i = 0; i < w->noutstanding; i++)
		if (w->outstanding[i] == seq)
			return true;
	return false;
}

static int redo_content(struct redos *d, const struct jrec *rec, bool wanted)
{
	struct redo *x = redo_of(d, rec->ino);
	int r;

	if (x == NULL) {
		if (!wanted || d->n == WPOS_OUT_MAX)
			return 0;
		x = &d->v[d->n];
		r = follow_begin(&x->names, rec->ino, rec->path);
		if (r < 0)
			return r;
		x->seq = rec->seq;
		extent_init(&x->extents);
		d->n++;
	}
	if (rec->handle_len != 0 && rec->handle_len <= sizeof x->handle) {
		memcpy(x->handle, rec->handle, rec->handle_len);
		x->handle_len = (uint32_t)rec->handle_len;
		x->handle_type = (int32_t)rec->handle_type;
	}
	x->open = (rec->flags & JF_CLOSED) == 0;
	x->time_ns = rec->time_ns;
	x->size = rec->size;
	return extent_union(&x->extents, &rec->extents);
}

static bool about_attributes(const struct jrec *rec)
{
	return (rec->type == JT_SETATTR || rec->type == JT_SETXATTR || rec->type == JT_REMOVEXATTR) && rec->ino != 0 && !S_ISDIR(rec->mode);
}

/* Say whether it is about a file under a name that is excluded. */
static bool hidden(const struct session *s, const struct jrec *rec)
{
	const struct filter *f = &s->env->mirror->filter;

	bool file = about_attributes(rec) || (rec->type == JT_CONTENT && rec->handle_len != 0) || (rec->type == JT_RECHECK && rec->ino != 0);

	return f->n != 0 && file && filter_excluded(f, rec->path, false);
}

static unsigned flags_of(const struct jrec *rec)
{
	switch (rec->type) {
	case JT_RECHECK:
		return (rec->flags & JF_RECURSIVE ? CMP_RECURSIVE : 0) | (rec->flags & JF_CHECKSUM ? CMP_CHECKSUM : 0);
	case JT_CREATE:  /* it may have been made where another file was, and what follows are the ranges that were written */
	case JT_CONTENT: /* size and time of another of its changes may be there already */
	case JT_LINK:    /* the name may be another file's, with size and time by a later patch */
		return CMP_ALLOW | CMP_CHECKSUM;
	case JT_RENAME:
		if (rec->flags & JF_EXCHANGE)
			return CMP_ALLOW | CMP_CHECKSUM | CMP_RECURSIVE;
		return CMP_ALLOW | (rec->flags & JF_DIR ? CMP_RECURSIVE : CMP_CHECKSUM);
	case JT_SETXATTR:
	case JT_REMOVEXATTR: /* what was made in the directory since has inherited something else */
		return CMP_ALLOW | (jrec_inherited(rec) ? CMP_RECURSIVE : 0);
	default:
		return CMP_ALLOW;
	}
}

/* Its file may lose that name. */
static int redo_names(struct redos *d, const struct jrec *rec, const char *path)
{
	struct redo *x = &d->v[d->n];
	int r;

	if (d->n == WPOS_OUT_MAX)
		return 0;
	r = follow_begin(&x->names, rec->ino, path);
	if (r < 0)
		return r;
	x->seq = rec->seq;
	x->compare = CMP_ALLOW | (flags_of(rec) & CMP_CHECKSUM);
	extent_init(&x->extents);
	d->n++;
	return 0;
}

static int compare_paths(struct session *s, const struct jrec *rec, uint64_t seq)
{
	int r = 0;

	if (rec->type == JT_MOUNT || rec->type == JT_SEAL || rec->type == JT_COLLAPSED)
		return 0;
	if (hidden(s, rec))
		bulk_aliases(s->bulk, seq, rec->ino);
	if (rec->path[0] != '\0' || rec->type == JT_RECHECK || rec->type == JT_SETATTR)
		r = bulk_recheck_entry(s->bulk, seq, rec->path, flags_of(rec));
	if (r == 0 && rec->path2[0] != '\0')
		r = bulk_recheck_entry(s->bulk, seq, rec->path2, flags_of(rec));
	return r;
}

/* What is to be compared because of earlier records goes where this one takes it, as when it was sent. */
static int redo_moves(struct session *s, const struct jrec *rec)
{
	if (rec->type == JT_RENAME)
		return bulk_renamed(s->bulk, rec->path, rec->path2, (rec->flags & JF_EXCHANGE) != 0);
	return rec->type == JT_LINK ? bulk_linked(s->bulk, rec->seq, rec->path, rec->path2, bulk_active(s->bulk)) : 0;
}

static int redo_record(struct session *s, struct redos *d, const struct jrec *rec)
{
	struct follow_rec e = follow_rec_of(rec);
	bool wanted = listed(&s->welcome, rec->seq);
	const char *path;
	uint32_t i;
	int r;

	for (i = 0; i < d->n; i++) {
		r = follow_step(&d->v[i].names, &e);
		if (r < 0)
			return r;
	}
	if (rec->type == JT_CONTENT && (!hidden(s, rec) || redo_of(d, rec->ino) != NULL))
		return redo_content(d, rec, wanted);
	r = redo_moves(s, rec);
	d->rechecks |= wanted;
	if (r == 0 && wanted && !S_ISDIR(rec->mode) && (path = follow_left(rec)) != NULL)
		r = redo_names(d, rec, path);
	if (r == 0 && (wanted || (rec->type == JT_RECHECK && d->rechecks)))
		r = compare_paths(s, rec, rec->seq);
	return r;
}

/* The record's own path is compared anyway. */
static int redo_compare(struct session *s, const struct redo *x)
{
	char path[PATH_LONGEST];
	int i, r = 0;

	if (x->names.gone)
		return 0;
	sender_lacking(s->sender, x->names.ino);
	if (x->names.n == 0 && locate_name(s->link->rootfd, x->names.ino, path, sizeof path))
		r = bulk_recheck_entry(s->bulk, x->seq, path, x->compare);
	for (i = 0; r == 0 && i < x->names.n; i++)
		r = bulk_recheck_entry(s->bulk, x->seq, x->names.v[i], x->compare);
	return r;
}

static int redo_send(struct session *s, struct redo *x)
{
	struct locate l = {.rootfd = s->link->rootfd, .jdirfd = s->link->jdirfd, .after = s->welcome.applied.seq};
	bool linked = x->names.n > 1 || x->handle_len != 0; /* the mount adds a handle to files with several names */
	struct bulk_spec spec = {.ino = x->names.ino, .seq = x->seq, .open = x->open, .linked = linked, .size = x->size};
	struct jrec rec;
	struct stat st;

	if (x->names.gone)
		return 0; /* and its name with it */
	if (x->names.n == 0)
		return bulk_left(s->bulk, x->seq, x->names.ino, "", CMP_RECURSIVE | CMP_CHECKSUM);
	if (s->welcome.flags & WW_UNCLEAN) /* the records that follow are not replayed */
		return bulk_left(s->bulk, x->seq, x->names.ino, x->names.v[0], CMP_CHECKSUM);
	jrec_init(&rec, JT_CONTENT);
	rec.ino = x->names.ino;
	rec.time_ns = x->time_ns;
	rec.path = spec.path = x->names.v[0];
	rec.handle = x->handle;
	rec.handle_len = x->handle_len;
	rec.handle_type = x->handle_type;
	spec.fd = locate_open(&l, &rec, &st);
	jrec_release(&rec);
	if (spec.fd == E_GONE)
		return sender_hollow(s->sender, x->names.ino, x->seq, linked);
	if ((spec.fd == -EAGAIN || spec.fd == -ENOENT) && x->handle_len != 0) /* it may live on under a name that nobody told us */
		return bulk_left(s->bulk, x->seq, x->names.ino, "", CMP_RECURSIVE | CMP_CHECKSUM);
	if (spec.fd == -EAGAIN || spec.fd == E_CHANGED || spec.fd == -ENOENT)
		return bulk_left(s->bulk, x->seq, x->names.ino, x->names.v[0], CMP_CHECKSUM);
	if (spec.fd < 0)
		return bulk_unreadable(s->bulk, x->seq, x->names.ino, spec.path, spec.fd);
	extent_init(&spec.extents);
	extent_swap(&spec.extents, &x->extents);
	if (bulk_full(s->bulk)) {
		close(spec.fd);
		extent_release(&spec.extents);
		return bulk_left(s->bulk, x->seq, x->names.ino, spec.path, CMP_CHECKSUM);
	}
	return bulk_defer(s->bulk, &spec);
}

static uint64_t first_outstanding(const struct wwelcome *w)
{
	uint64_t first = UINT64_MAX;
	uint32_t i;

	for (i = 0; i < w->noutstanding; i++)
		if (w->outstanding[i] != 0 && w->outstanding[i] < first)
			first = w->outstanding[i];
	return first;
}

/* Read the outstanding records once more. Returns 0, E_GAP when they are gone, or another error. */
static int redo_outstanding(struct session *s)
{
	const struct wwelcome *w = &s->welcome;
	struct redos d = {.v = NULL};
	uint64_t first = first_outstanding(w);
	struct jrec rec;
	uint32_t i;
	int r;

	if (first > w->applied.seq)
		return 0;
	r = jreader_seek(s->reader, first - 1, NULL);
	if (r < 0)
		return r == E_COLLAPSED ? E_GAP : r;
	d.v = calloc(WPOS_OUT_MAX, sizeof *d.v);
	r = d.v == NULL ? -ENOMEM : 0;
	while (r == 0 && jreader_seq(s->reader) < w->applied.seq && (r = jreader_next(s->reader, &rec, NULL, NULL)) == 1) {
		r = redo_record(s, &d, &rec);
		jrec_release(&rec);
	}
	for (i = 0; r == 0 && i < d.n; i++)
		r = d.v[i].compare != 0 ? redo_compare(s, &d.v[i]) : redo_send(s, &d.v[i]);
	redos_release(&d);
	return r < 0 ? r : 0;
}

/* --- bytes that were not sent, under an mtime that was --- */

/* Follow a record, and the file it is about; marked: only what a RECHECK is about. */
static int rescan(struct session *s, struct redos *d, const struct jrec *rec, bool marked)
{
	struct follow_rec e = follow_rec_of(rec);
	struct redo *v;
	uint32_t i;
	int r;

	for (i = 0; i < d->n; i++)
		if ((r = follow_step(&d->v[i].names, &e)) < 0)
			return r;
	if (rec->type == JT_RECHECK && ((rec->flags & JF_RECURSIVE) || rec->path[0] == '\0'))
		return bulk_recheck(s->bulk, 0, rec->path, flags_of(rec));
	if (rec->type == JT_CONTENT && marked)
		return 0;
	if (rec->type != JT_CONTENT && (rec->type != JT_RECHECK || !(rec->flags & JF_CHECKSUM)))
		return 0;
	if (rec->type == JT_CONTENT && redo_of(d, rec->ino) != NULL)
		return 0;
	if (hidden(s, rec))
		bulk_aliases(s->bulk, 0, rec->ino);
	if (d->n == d->cap) {
		v = reallocarray(d->v, d->cap * 2 + 64, sizeof *v);
		if (v == NULL)
			return -ENOMEM;
		d->v = v;
		d->cap = d->cap * 2 + 64;
	}
	v = &d->v[d->n];
	r = follow_begin(&v->names, rec->ino, rec->path);
	if (r < 0)
		return r;
	v->seq = rec->seq;
	extent_init(&v->extents);
	d->n++;
	return 0;
}

static int recheck_names(struct session *s, const struct redo *x)
{
	char path[PATH_LONGEST];
	int i, r = 0;

	if (!x->names.gone && x->names.ino != 0)
		sender_lacking(s->sender, x->names.ino);
	if (!x->names.gone && x->names.n == 0 && x->names.ino != 0 && locate_name(s->link->rootfd, x->names.ino, path, sizeof path))
		return bulk_recheck(s->bulk, 0, path, CMP_CHECKSUM);
	for (i = 0; r == 0 && !x->names.gone && i < x->names.n; i++)
		r = bulk_recheck(s->bulk, 0, x->names.v[i], CMP_CHECKSUM);
	return r;
}

/* Compare the bytes of what the records behind the reader's place, up to end, are about. Returns 0 or an error. */
static int rescan_upto(struct session *s, uint64_t end, bool marked)
{
	struct redos d = {.v = NULL};
	uint64_t steps = 0;
	struct jrec rec;
	uint32_t i;
	int r = 0;

	while (r == 0 && steps < RESCAN_STEPS && jreader_seq(s->reader) < end && (r = jreader_next(s->reader, &rec, NULL, NULL)) == 1) {
		steps += d.n + 1;
		r = rescan(s, &d, &rec, marked);
		jrec_release(&rec);
	}
	if (r == 0 && steps >= RESCAN_STEPS)
		r = bulk_recheck(s->bulk, 0, "", CMP_RECURSIVE | CMP_CHECKSUM);
	for (i = 0; r == 0 && i < d.n && steps < RESCAN_STEPS; i++)
		r = recheck_names(s, &d.v[i]);
	redos_release(&d);
	return r < 0 ? r : 0;
}

/* A COMMIT brings the size and mtime that the file has when it is sent, and not the bytes of records behind it. Where such records are not
 * replayed, their files' bytes are compared. From the first record that is outstanding, or not applied, to the journal's end. Returns 0;
 * E_GAP, E_COLLAPSED when the records are gone; or an error. */
static int recheck_bytes(struct session *s, uint64_t first, uint64_t end)
{
	int r;

	if (first_outstanding(&s->welcome) < first)
		first = first_outstanding(&s->welcome);
	r = jreader_seek(s->reader, first - 1, NULL);
	return r == 0 ? rescan_upto(s, end, false) : r;
}

/* Go to the journal's present end and compare all; the bytes of what the mount wants to have compared, too: after a power failure of the
 * source size and time may be those of bytes that it lost. flags: CMP_CHECKSUM for all bytes, where records are lost that we may have sent in
 * part: a COMMIT brings size and mtime of the file as it is, and not the bytes of records behind it. */
static int from_end(struct session *s, unsigned flags, const char *because)
{
	struct jhead *head = jreader_head(s->reader);
	uint64_t digest = 0, end;
	int r, tries = 0;

	log_info("%s: %s: comparing everything", s->env->to->url, because);
	if ((s->welcome.flags & (WW_FRESH | WW_ADOPTED)) != WW_FRESH)
		sender_doubt(s->sender); /* the standby may have files that we only began to send */
	if (jreader_rewind(s->reader) == 0 && (r = rescan_upto(s, atomic_load(&head->committed_seq), true)) < 0) {
		log_warn("%s: the journal cannot be read: %s", s->env->to->url, err_text(r));
		flags |= CMP_CHECKSUM;
	}
	do {
		end = atomic_load(&head->committed_seq);
		r = jreader_seek(s->reader, end, &digest);
	} while (r == E_GAP && ++tries < 10);
	if (r < 0 && r != E_COLLAPSED)
		return r;
	sender_read(s->sender, s->reader, jreader_seq(s->reader), jreader_digest(s->reader));
	s->unreadable = 0;
	return bulk_compare_all(s->bulk, flags);
}

/* A record that is not replayed changed attributes of a file, or took a name from one of those, while it has others: they may be lacking there, too. */
static int recheck_links(struct session *s, const struct jrec *rec)
{
	uint64_t ino = jrec_unnamed(rec->type, rec->flags, rec->ino, rec->ino2);

	if (about_attributes(rec))
		sender_lacking(s->sender, rec->ino);
	return ino != 0 && rec->nlink != 0 && sender_is_lacking(s->sender, ino) ? bulk_recheck(s->bulk, 0, "", CMP_RECURSIVE) : 0;
}

/* Compare what the records [from, end] concern, instead of replaying them. */
static int recheck_range(struct session *s, uint64_t from, uint64_t end)
{
	struct jrec rec;
	int r = jreader_seek(s->reader, from - 1, NULL);

	if (r == E_COLLAPSED)
		r = E_GAP;
	bulk_mark_from(s->bulk, from);
	sender_doubt(s->sender);
	if (r == 0)
		r = recheck_bytes(s, from, end);
	if (r == 0)
		r = jreader_seek(s->reader, from - 1, NULL);
	while (r == 0 && jreader_seq(s->reader) < end && (r = jreader_next(s->reader, &rec, NULL, NULL)) == 1) {
		r = compare_paths(s, &rec, 0);
		if (r == 0)
			r = recheck_links(s, &rec);
		jrec_release(&rec);
	}
	return r < 0 ? r : 0;
}

/* The standby may have lost what it had not made durable. */
static int recheck_unclean(struct session *s)
{
	uint64_t from = s->welcome.durable.seq + 1, end = atomic_load(&jreader_head(s->reader)->committed_seq);
	int r;

	if (listed(&s->welcome, WPOS_OUT_ALL) && first_outstanding(&s->welcome) < from)
		from = first_outstanding(&s->welcome);
	log_info("%s: the standby was not stopped cleanly: rechecking records %llu to %llu", s->env->to->url, (unsigned long long)from,
	    (unsigned long long)end);
	r = recheck_range(s, from, end);
	if (r < 0)
		return r;
	sender_read(s->sender, s->reader, jreader_seq(s->reader), jreader_digest(s->reader));
	return 0;
}

/* A full comparison was under way. It begins anew; what was applied of files that were written to meanwhile is known from the
 * journal, if it still has the records. */
static int again(struct session *s)
{
	uint64_t end = atomic_load(&jreader_head(s->reader)->committed_seq);
	bool ours = memcmp(s->welcome.applied.journal_id, jreader_head(s->reader)->journal_id, 16) == 0;
	int r = ours ? recheck_bytes(s, s->welcome.applied.seq + 1, end) : 0;

	if (ours && r == 0) /* if this connection does not finish, either, the next begins there again */
		bulk_mark_from(s->bulk, first_outstanding(&s->welcome) <= s->welcome.applied.seq ? first_outstanding(&s->welcome) : s->welcome.applied.seq + 1);
	if (r < 0 && r != E_GAP && r != E_COLLAPSED && r != E_CHECKSUM)
		return r;
	return from_end(s, r < 0 || !ours ? CMP_CHECKSUM : 0, "a full comparison was not finished");
}

static int known(struct session *s)
{
	const struct wwelcome *w = &s->welcome;
	uint64_t digest = 0;
	int r;

	r = jreader_seek(s->reader, w->applied.seq, &digest);
	if (r == 0 && digest != w->applied.digest)
		return E_DIVERGED;
	if (r < 0 && r != E_COLLAPSED)
		return r;
	if (r == 0 && s->unreadable > w->applied.seq)
		return E_CHECKSUM;
	if (!listed(w, WPOS_OUT_ALL))
		r = redo_outstanding(s);
	else if ((w->flags & WW_UNCLEAN) == 0)
		r = recheck_range(s, first_outstanding(w), w->applied.seq);
	if (r < 0)
		return r == E_COLLAPSED ? E_GAP : r;
	if (w->flags & WW_UNCLEAN)
		return recheck_unclean(s);
	r = jreader_seek(s->reader, w->applied.seq, &digest);
	if (r < 0 && r != E_COLLAPSED)
		return r;
	sender_read(s->sender, s->reader, jreader_seq(s->reader), jreader_digest(s->reader));
	sender_replay(s->sender, atomic_load(&jreader_head(s->reader)->committed_seq));
	log_info("%s: continuing after record %llu", s->env->to->url, (unsigned long long)jreader_seq(s->reader));
	return 0;
}

int resume(struct session *s)
{
	const struct wwelcome *w = &s->welcome;
	const struct jhead *head = jreader_head(s->reader);
	static const uint8_t none[16];
	int r;

	if (memcmp(w->applied.journal_id, none, 16) == 0 || (w->flags & (WW_FRESH | WW_ADOPTED)) != 0)
		return from_end(s, w->flags & WW_UNCLEAN ? CMP_CHECKSUM : 0, "first contact");
	if (w->flags & WW_RESYNC)
		return again(s);
	if (memcmp(w->applied.journal_id, head->journal_id, 16) != 0)
		return from_end(s, CMP_CHECKSUM, "the standby's position belongs to another journal");
	r = known(s);
	switch (r) {
	case E_DIVERGED:
		log_warn("%s: the standby's history differs from this journal's at record %llu", s->env->to->url,
		    (unsigned long long)w->applied.seq);
		return from_end(s, CMP_CHECKSUM, "diverged");
	case E_GAP:
		return from_end(s, CMP_CHECKSUM, "the records the standby needs are not in the journal any more");
	case E_CHECKSUM:
		return from_end(s, CMP_CHECKSUM, "the journal is damaged");
	default:
		return r;
	}
}
