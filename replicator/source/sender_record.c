/* SPDX-License-Identifier: BSD-2-Clause
 * How one record is sent (sender_int.h):
 *
 *   filter   excluded paths are not sent; what crosses the border is compared or removed
 *   send     the record's own bytes, merged attributes, or content (content.h)
 *   ahead    what a comparison may have overtaken is compared once more
 *
 * A record that is not sent still owes its parents' times (owed.h). */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "proto/clock.h"
#include "proto/mirror.h"
#include "proto/path.h"
#include "replicator/source/content.h"
#include "replicator/source/sender_int.h"

#define UNSURE_NS  (50 * NS_PER_MS) /* time that a file which is not found is looked for */
#define BIRTHS_OFF 3 /* so many files that seemed younger than their records, and no record said why: the clock was set back */

static bool excluded(const struct sender *s, const char *path, bool dir)
{
	return s->env.mirror->filter.n != 0 && filter_excluded(&s->env.mirror->filter, path, dir);
}

/* --- what is put into the stream --- */

static int put_bytes(struct sender *s, const uint8_t *data, uint32_t len)
{
	struct wop op = {.type = WOP_REC, .data = data, .dlen = len};

	s->records++;
	return stream_op(s->env.stream, &op);
}

static bool moves_dirs(const struct wrec *e)
{
	return e->type == JT_RMDIR || (e->type == JT_RENAME && (e->flags & (JF_DIR | JF_EXCHANGE)) != 0);
}

static bool has_parent_time(enum jtype t)
{
	return t == JT_CREATE || t == JT_MKDIR || t == JT_MKNOD || t == JT_SYMLINK || t == JT_UNLINK || t == JT_RMDIR || t == JT_RENAME;
}

static int put_record(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	int r;

	if (s->owed.n != 0) {
		r = moves_dirs(e) || e->type == JT_SETATTR ? owed_put(&s->owed, s->env.stream) : 0;
		if (r < 0)
			return r;
		if (has_parent_time(e->type))
			owed_paid(&s->owed, e->path);
		if (e->type == JT_RENAME || e->type == JT_LINK)
			owed_paid(&s->owed, e->path2);
	}
	if (e->type != JT_SETATTR || e->merge < 0)
		return put_bytes(s, e->raw, e->len);
	buf_clear(&s->scratch);
	r = window_setattr(s->w, i, &s->scratch);
	return r < 0 ? r : put_bytes(s, s->scratch.data, (uint32_t)s->scratch.len);
}

/* The time of path's parent is owed, unless the standby has no such directory. */
static int owe(struct sender *s, const char *path, struct jtime mtime)
{
	size_t len = path_parent_len(path);
	bool hidden = false;
	char *dir;

	if (len != 0 && s->env.mirror->filter.n != 0) {
		dir = strndup(path, len);
		if (dir == NULL)
			return -ENOMEM;
		hidden = excluded(s, dir, true);
		free(dir);
	}
	return hidden ? 0 : owed_add(&s->owed, s->env.stream, path, mtime);
}

/* Record i is not sent: owe its parents' times. */
static int put_nothing(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	struct jrec rec;
	int r;

	if (!has_parent_time(e->type) && e->type != JT_LINK)
		return 0;
	r = window_decode(s->w, i, &rec);
	if (r < 0)
		return r;
	if (has_parent_time(e->type))
		r = owe(s, rec.path, rec.pm);
	if (r == 0 && (e->type == JT_RENAME || e->type == JT_LINK))
		r = owe(s, rec.path2, rec.pm2);
	jrec_release(&rec);
	return r;
}

/* Send a record made here. */
static int put_made(struct sender *s, const struct jrec *rec)
{
	int r;

	buf_clear(&s->scratch);
	r = jrec_put(&s->scratch, rec);
	return r < 0 ? r : put_bytes(s, s->scratch.data, (uint32_t)s->scratch.len);
}

/* Instead of RENAME rec: the removal of one of its names. */
static int put_removal(struct sender *s, const struct jrec *rec, uint64_t ino, const char *path, struct jtime pm)
{
	struct jrec u;
	int r;

	jrec_init(&u, JT_UNLINK);
	u.seq = rec->seq;
	u.time_ns = rec->time_ns;
	u.ino = ino;
	u.path = path;
	u.pm = pm;
	owed_paid(&s->owed, path);
	r = put_made(s, &u);
	jrec_release(&u);
	return r;
}

/* Instead of RENAME i, which has nothing to show: the old name is removed, or, in an EXCHANGE of which no side has, both are. */
static int put_removals(struct sender *s, size_t i, bool both)
{
	struct jrec rec;
	int r = window_decode(s->w, i, &rec);

	if (r < 0)
		return r;
	r = put_removal(s, &rec, rec.ino, rec.path, rec.pm);
	if (r == 0)
		r = both ? put_removal(s, &rec, rec.ino2, rec.path2, rec.pm2) : owe(s, rec.path2, rec.pm2);
	jrec_release(&rec);
	return r;
}

static int put_rmtree(struct sender *s, const char *path)
{
	struct wop op = {.type = WOP_RMTREE, .path = path};

	return s->env.mirror->del ? stream_op(s->env.stream, &op) : 0;
}

/* --- a comparison is ahead of the stream --- */

/* Say whether a comparison may have seen the source with record seq done. */
static bool overtaken(const struct sender *s, uint64_t seq)
{
	return seq <= s->ahead || bulk_active(s->env.bulk);
}

/* Record e, which made path, was sent. A comparison brings directories to the state they have now. What an older record makes in them may inherit
 * from that (default ACLs, set-group-ID) what it did not have, or lack what it had: it is compared, too. */
static int made(struct sender *s, const struct wrec *e)
{
	return overtaken(s, e->seq) ? bulk_recheck(s->env.bulk, e->seq, e->path, 0) : 0;
}

/* --- filter --- */

/* Say whether what a renamed directory holds may be filtered otherwise at its new place. */
static bool place_matters(const struct filter *f)
{
	size_t i;

	for (i = 0; i < f->n; i++)
		if (f->v[i].anchored || f->v[i].deep || strchr(f->v[i].pattern, '/') != NULL)
			return true;
	return false;
}

static int after_rename(struct sender *s, uint64_t seq, const char *from, const char *to, unsigned flags)
{
	bool exchange = (flags & JF_EXCHANGE) != 0;
	bool again = overtaken(s, seq) || ((flags & JF_DIR) != 0 && place_matters(&s->env.mirror->filter));
	unsigned how = flags & (JF_DIR | JF_EXCHANGE) ? CMP_RECURSIVE : 0;
	int r = bulk_renamed(s->env.bulk, from, to, exchange);

	if (r == 0 && again)
		r = bulk_recheck(s->env.bulk, seq, to, how);
	if (r == 0 && again && exchange)
		r = bulk_recheck(s->env.bulk, seq, from, how);
	return r;
}

static int send_rename(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	bool dir = (e->flags & JF_DIR) != 0, from = excluded(s, e->path, dir), to = excluded(s, e->path2, dir);
	int r;

	if (from && to)
		return put_nothing(s, i);
	if ((from || to) && (e->flags & JF_EXCHANGE)) {
		r = bulk_recheck(s->env.bulk, e->seq, from ? e->path2 : e->path, CMP_RECURSIVE);
		return r < 0 ? r : put_nothing(s, i);
	}
	if (from) {
		bulk_named(s->env.bulk);
		r = bulk_recheck(s->env.bulk, e->seq, e->path2, CMP_RECURSIVE);
		return r < 0 ? r : put_nothing(s, i);
	}
	if (to) {
		r = owed_put(&s->owed, s->env.stream);
		if (r == 0)
			r = put_rmtree(s, e->path);
		return r < 0 ? r : put_nothing(s, i);
	}
	r = put_record(s, i);
	return r < 0 ? r : after_rename(s, e->seq, e->path, e->path2, e->flags);
}

/* Instead of EXCHANGE i, in which one side has nothing to show: its name is removed, and the other side takes it. */
static int send_half(struct sender *s, size_t i, bool back)
{
	const struct wrec *e = window_at(s->w, i);
	const char *from = back ? e->path2 : e->path, *to = back ? e->path : e->path2;
	struct jrec rec = {0}, half;
	int r = owed_put(&s->owed, s->env.stream);

	if (r == 0)
		r = window_decode(s->w, i, &rec);
	if (r < 0)
		return r;
	r = put_removal(s, &rec, back ? rec.ino : rec.ino2, to, back ? rec.pm : rec.pm2);
	jrec_init(&half, JT_RENAME);
	half.seq = rec.seq;
	half.time_ns = rec.time_ns;
	half.flags = JF_DIR; /* it may be one */
	half.ino = back ? rec.ino2 : rec.ino;
	half.mode = S_IFDIR | 0755;
	half.path = from;
	half.path2 = to;
	half.pm = back ? rec.pm2 : rec.pm;
	half.pm2 = back ? rec.pm : rec.pm2;
	if (r == 0)
		r = put_made(s, &half);
	jrec_release(&rec);
	jrec_release(&half);
	return r < 0 ? r : after_rename(s, e->seq, from, to, JF_DIR);
}

static int send_link(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	bool from = excluded(s, e->path, false), to = excluded(s, e->path2, false);
	int r;

	if (to)
		return put_nothing(s, i);
	bulk_touched(s->env.bulk, e->path2, 0);
	if (from)
		return bulk_linked(s->env.bulk, e->seq, e->path, e->path2, true);
	r = put_record(s, i);
	return r == 0 ? bulk_linked(s->env.bulk, e->seq, e->path, e->path2, overtaken(s, e->seq)) : r;
}

/* --- content --- */

struct held {
	struct sender *s;
	int32_t create;
};

/* The CREATE after all. It comes late: its directory's time was owed at its place and may be newer by now. */
static int send_held(void *arg)
{
	struct held *h = arg;
	struct jrec rec;
	int r;

	if (h->create < 0 || h->s->created == h->create)
		return 0;
	h->s->created = h->create;
	r = window_decode(h->s->w, (size_t)h->create, &rec);
	if (r < 0)
		return r;
	rec.pm = (struct jtime){0};
	r = put_made(h->s, &rec);
	jrec_release(&rec);
	return r < 0 ? r : made(h->s, window_at(h->s->w, (size_t)h->create));
}

/* The file is nowhere, and no record says why: a rename or an unlink may be done below and be on its way to the journal. Look again soon; if
 * that does not help, the comparison does what is right whatever the reason. */
static int unsure(struct sender *s, const struct wrec *e, uint64_t seq, bool young)
{
	uint64_t now = clock_mono();

	if (e->path[0] == '\0')
		return 0;
	if (s->unsure_ns == 0)
		s->unsure_ns = now;
	if (now - s->unsure_ns < UNSURE_NS && seq == e->seq) {
		s->hold_ns = now + NS_PER_MS;
		return SR_WAIT;
	}
	s->unsure_ns = s->hold_ns = 0;
	s->young += young;
	return bulk_left(s->env.bulk, seq, e->ino, e->path, CMP_CHECKSUM);
}

/* whole: not its ranges alone. */
static int send_content(struct sender *s, size_t i, bool whole)
{
	const struct wrec *e = window_at(s->w, i);
	struct held held = {.s = s, .create = e->create};
	struct content c = {.stream = s->env.stream, .bulk = s->env.bulk, .open = (e->flags & JF_CLOSED) == 0, .linked = e->linked, .create = send_held,
	    .arg = &held, .first_seq = e->seq, .size = e->last_size, .as_of_ns = e->restamped || !bulk_trusts_mtime(s->env.bulk) ? 0 : e->last_ns, .locate = {.rootfd = s->env.rootfd, .w = s->w, .next = i + 1, .jdirfd = s->env.jdirfd, .no_births = s->young >= BIRTHS_OFF}};
	struct extent_set ext;
	struct jrec rec;
	int r;

	if ((e->marks & WM_DOOMED) != 0 && e->path[0] == '\0')
		return 0; /* written to after its last name was gone */
	if (e->marks & WM_DOOMED)
		return phantoms_hollow(s->phantoms, e->ino, e->seq, e->linked);
	extent_init(&ext);
	r = whole ? extent_add(&ext, 0, EXTENT_INF) : window_extents(s->w, i, &ext);
	if (r == 0 && bulk_has(s->env.bulk, e->ino))
		r = bulk_take(s->env.bulk, e->ino, &ext, &c.first_seq, &c.since_ns);
	if (r >= 0 && bulk_has(s->env.bulk, e->ino)) {
		r = bulk_extend(s->env.bulk, e->ino, e->seq, &ext, c.open, c.size, c.as_of_ns);
	} else if (r >= 0 && (r = window_decode(s->w, i, &rec)) == 0) {
		c.rec = &rec;
		c.extents = &ext;
		if (e->merge >= 0 || c.first_seq != e->seq)
			rec.ncopies = 0;
		r = content_send(&c);
		jrec_release(&rec);
	}
	extent_release(&ext);
	if (r == CR_UNSURE || r == CR_YOUNGER)
		return unsure(s, e, c.first_seq, r == CR_YOUNGER);
	if (s->unsure_ns != 0)
		s->unsure_ns = s->hold_ns = 0;
	if (r == CR_GONE && e->path[0] == '\0')
		return 0;
	if (r == CR_GONE)
		return e->create >= 0 && s->created != e->create ? phantoms_skip(s->phantoms, e->ino, e->seq)
								 : phantoms_hollow(s->phantoms, e->ino, e->seq, e->linked);
	if (whole && r == CR_DONE)
		phantoms_whole(s->phantoms, e->ino);
	if (r == CR_DONE) {
		s->files++;
		bulk_touched(s->env.bulk, e->path, e->ino);
	}
	return r == CR_WAIT ? SR_WAIT : r;
}

/* --- one record --- */

/* Say whether the inode of record i, whose path is excluded, may have names that are not. */
static bool aliased(const struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	struct stat st;
	size_t k;

	if (e->type == JT_CONTENT)
		return e->linked;
	if (path_stat(s->env.rootfd, e->path, &st) == 0 && st.st_ino == e->ino)
		return st.st_nlink > 1;
	for (k = i + 1; k < window_count(s->w); k++) { /* it has lost that name: to a rename, which sees to it, or it had others */
		const struct wrec *x = window_at(s->w, k);

		if (x->ino == e->ino && x->type == JT_RENAME)
			return false;
		if (x->ino == e->ino && x->type == JT_UNLINK)
			return x->nlink != 0;
	}
	return true;
}

/* Record i is about a file, and its path is excluded. */
static int send_hidden(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);

	if (aliased(s, i))
		bulk_aliases(s->env.bulk, e->seq, e->ino);
	return 0;
}

static bool about_file(const struct wrec *e)
{
	return (e->type == JT_SETATTR || e->type == JT_SETXATTR || e->type == JT_REMOVEXATTR) && !S_ISDIR(e->mode) && e->ino != 0;
}

static int send_plain(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	bool dir = e->type == JT_MKDIR || e->type == JT_RMDIR || S_ISDIR(e->mode);
	int r;

	if (excluded(s, e->path, dir))
		return about_file(e) ? send_hidden(s, i) : put_nothing(s, i);
	if (!s->env.mirror->del && (e->type == JT_UNLINK || e->type == JT_RMDIR))
		return put_nothing(s, i);
	if (e->marks & WM_LATE_CREATE)
		return put_nothing(s, i);
	if (e->type == JT_CREATE || e->type == JT_MKNOD || e->type == JT_SYMLINK || e->type == JT_UNLINK)
		bulk_touched(s->env.bulk, e->path, 0);
	r = put_record(s, i);
	if (r == 0 && (e->type == JT_CREATE || e->type == JT_MKDIR || e->type == JT_MKNOD))
		r = made(s, e);
	return r;
}

/* Record i is not sent: the comparison brings what it did. */
static int leave(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	unsigned how = CMP_ALLOW | CMP_CHECKSUM | (e->flags & JF_EXCHANGE ? CMP_RECURSIVE : 0);
	int r = put_nothing(s, i);

	if (r == 0 && e->path[0] != '\0')
		r = bulk_recheck_entry(s->env.bulk, e->seq, e->path, how);
	if (r == 0 && (e->type == JT_RENAME || e->type == JT_LINK))
		r = bulk_recheck_entry(s->env.bulk, e->seq, e->path2, how);
	return r;
}

int record_send(struct sender *s, size_t i, enum phantom_act act)
{
	const struct wrec *e = window_at(s->w, i);

	if (act == PA_DROP)
		return put_nothing(s, i);
	if (act == PA_LEAVE)
		return leave(s, i);
	if (act == PA_UNLINK || act == PA_NEITHER)
		return put_removals(s, i, act == PA_NEITHER);
	if ((act == PA_BACK || act == PA_ON) && !excluded(s, e->path, false) && !excluded(s, e->path2, false))
		return send_half(s, i, act == PA_BACK);
	switch (e->type) {
	case JT_RENAME:
		return send_rename(s, i);
	case JT_LINK:
		return send_link(s, i);
	case JT_CONTENT:
		return excluded(s, e->path, false) ? send_hidden(s, i) : send_content(s, i, act == PA_WHOLE);
	default:
		return send_plain(s, i);
	}
}
