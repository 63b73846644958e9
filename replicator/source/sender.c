/* SPDX-License-Identifier: BSD-2-Clause
 * The sender (sender.h). Takes the window's records one by one:
 *
 *   gate      a record that moves, links or replaces an inode whose transfer was put off waits until that is done; if it removes the
 *             inode, the transfer is forgotten
 *   phantoms  (phantom.h) drop it, turn it into the removal of the old name, or send it
 *   filter    excluded paths are not sent; what crosses the border is compared or removed
 *   send      the record's own bytes, merged attributes, or content (content.h)
 *
 * A record that is not sent still owes its parents' times (owed.h). The position moves after every record and travels as
 * WOP_POS at the end of each batch. */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "proto/err.h"
#include "proto/mirror.h"
#include "proto/path.h"
#include "proto/clock.h"
#include "replicator/source/content.h"
#include "replicator/source/deaths.h"
#include "replicator/source/inoset.h"
#include "replicator/source/locate.h"
#include "replicator/source/owed.h"
#include "replicator/source/phantom.h"
#include "replicator/source/sender.h"
#include "replicator/source/window.h"

#define SLICE       64u           /* records of one step */
#define UNSURE_NS   (50 * NS_PER_MS) /* time that a file which is not found is looked for */
#define BIRTHS_OFF  3 /* so many files that seemed younger than their records, and no record said why: the clock was set back */
#define HOLD_NS     (2 * NS_PER_MS) /* time that a CREATE at the journal's end waits for its content */
#define BATCH_GOOD  (192u << 10)  /* bytes at which a batch is ended with a position */
#define BATCH_FIRST (16u << 10)   /* the same while the peer has nothing to do */

struct sender {
	struct sender_env env;
	struct jreader *reader; /* borrowed */
	struct window *w;
	size_t at;              /* next record of the window */
	struct phantoms *phantoms;
	struct deaths *deaths;  /* in the records (resumed, replay], NULL: not read yet */
	uint64_t resumed, replay;
	struct owed owed;
	struct buf scratch;
	struct sender_pos pos;
	uint64_t flushed;       /* seq of the last POS */
	uint64_t first_out;     /* smallest outstanding of the last POS */
	uint64_t moved;         /* seq of the last record that gave or took a name, or may have */
	uint64_t records, files;
	uint64_t ahead;         /* the journal's end when a comparison was last under way */
	uint64_t unsure_ns;     /* since when the file of the present record is looked for in vain, 0: it is not */
	uint64_t hold_ns;       /* when the CREATE at the end of the window is sent all the same, 0: none is held */
	unsigned young;         /* files that were younger than their records without a reason */
	int32_t created;        /* index of the held CREATE that was sent after all, -1: none */
	struct inoset lacking;  /* inodes of which the standby may lack bytes or attributes, until all is compared */
	uint64_t out[WPOS_OUT_MAX + 1]; /* of one too many the smallest is still known */
};

int sender_new(struct sender **out, const struct sender_env *env)
{
	struct sender *s = calloc(1, sizeof *s);
	int r;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->env = *env;
	s->created = -1;
	buf_init(&s->scratch, JREC_MAX);
	r = window_new(&s->w);
	if (r == 0)
		r = phantoms_new(&s->phantoms);
	if (r < 0) {
		sender_free(s);
		return r;
	}
	*out = s;
	return 0;
}

void sender_free(struct sender *s)
{
	if (s == NULL)
		return;
	window_free(s->w);
	phantoms_free(s->phantoms);
	deaths_free(s->deaths);
	owed_release(&s->owed);
	buf_release(&s->scratch);
	inoset_release(&s->lacking);
	free(s);
}

void sender_read(struct sender *s, struct jreader *r, uint64_t seq, uint64_t digest)
{
	s->reader = r;
	window_clear(s->w);
	s->at = 0;
	s->hold_ns = s->unsure_ns = 0;
	s->pos.seq = s->moved = seq; /* what came before is not known */
	s->pos.digest = digest;
}

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

static int put_unlink(struct sender *s, size_t i)
{
	struct jrec rec;
	int r = window_decode(s->w, i, &rec);

	if (r < 0)
		return r;
	r = put_removal(s, &rec, rec.ino, rec.path, rec.pm);
	if (r == 0)
		r = owe(s, rec.path2, rec.pm2);
	jrec_release(&rec);
	return r;
}

static int put_rmtree(struct sender *s, const char *path)
{
	struct wop op = {.type = WOP_RMTREE, .path = path};

	return s->env.mirror->del ? stream_op(s->env.stream, &op) : 0;
}

/* --- gate --- */

/* The transfer of ino must be over before e is sent. */
static int settle(struct sender *s, uint64_t ino)
{
	if (ino == 0 || !bulk_has(s->env.bulk, ino))
		return SR_WORK;
	bulk_urge(s->env.bulk, ino);
	return SR_WAIT;
}

static int replaced(struct sender *s, uint64_t ino, uint32_t nlink)
{
	if (nlink != 0)
		return settle(s, ino);
	if (ino != 0)
		bulk_forget(s->env.bulk, ino);
	return SR_WORK;
}

static int gate(struct sender *s, const struct wrec *e)
{
	int r;

	switch (e->type) {
	case JT_LINK:
		return settle(s, e->ino);
	case JT_UNLINK:
		return replaced(s, e->ino, e->nlink);
	case JT_RENAME:
		r = settle(s, e->ino);
		if (r == SR_WAIT)
			return r;
		return (e->flags & JF_EXCHANGE) ? settle(s, e->ino2) : replaced(s, e->ino2, e->nlink);
	default:
		return SR_WORK;
	}
}

/* --- a comparison is ahead of the stream --- */

void sender_ahead(struct sender *s)
{
	s->ahead = atomic_load(&jreader_head(s->reader)->committed_seq);
}

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
		if (f->v[i].anchored || strchr(f->v[i].pattern, '/') != NULL)
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

/* Instead of EXCHANGE i, in which no side has anything to show. */
static int send_neither(struct sender *s, size_t i)
{
	struct jrec rec;
	int r = window_decode(s->w, i, &rec);

	if (r < 0)
		return r;
	r = put_removal(s, &rec, rec.ino, rec.path, rec.pm);
	if (r == 0)
		r = put_removal(s, &rec, rec.ino2, rec.path2, rec.pm2);
	jrec_release(&rec);
	return r;
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
	jrec_init(&half, JT_UNLINK);
	half.seq = rec.seq;
	half.time_ns = rec.time_ns;
	half.ino = back ? rec.ino : rec.ino2;
	half.path = to;
	half.pm = back ? rec.pm : rec.pm2;
	r = put_made(s, &half);
	half.type = JT_RENAME;
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
		return bulk_recheck(s->env.bulk, e->seq, e->path2, 0);
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

static int send_plain(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	bool dir = e->type == JT_MKDIR || e->type == JT_RMDIR || S_ISDIR(e->mode);
	int r;

	if (excluded(s, e->path, dir))
		return put_nothing(s, i);
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

static unsigned recheck_flags(const struct wrec *e)
{
	return (e->flags & JF_RECURSIVE ? CMP_RECURSIVE : 0) | (e->flags & JF_CHECKSUM ? CMP_CHECKSUM : 0);
}

/* A file that lost the name by which it was known, while it has another: its bytes are looked for there. */
static int send_recheck(struct sender *s, const struct wrec *e)
{
	char path[PATH_LONGEST];
	int r = bulk_recheck_entry(s->env.bulk, e->seq, e->path, recheck_flags(e));

	if (r == 0 && e->ino != 0 && !locate_is(s->env.rootfd, e->path, e->ino) && locate_name(s->env.rootfd, e->ino, path, sizeof path))
		r = bulk_recheck_entry(s->env.bulk, e->seq, path, recheck_flags(e));
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

static int send_act(struct sender *s, size_t i, enum phantom_act act)
{
	const struct wrec *e = window_at(s->w, i);

	if (act == PA_DROP)
		return put_nothing(s, i);
	if (act == PA_LEAVE)
		return leave(s, i);
	if (act == PA_UNLINK)
		return put_unlink(s, i);
	if (act == PA_NEITHER)
		return send_neither(s, i);
	if ((act == PA_BACK || act == PA_ON) && !excluded(s, e->path, false) && !excluded(s, e->path2, false))
		return send_half(s, i, act == PA_BACK);
	switch (e->type) {
	case JT_RENAME:
		return send_rename(s, i);
	case JT_LINK:
		return send_link(s, i);
	case JT_CONTENT:
		return excluded(s, e->path, false) ? 0 : send_content(s, i, act == PA_WHOLE);
	default:
		return send_plain(s, i);
	}
}

/* Not what a directory hands on: what was made in it may outlive it. */
static bool sets_attributes(const struct wrec *e)
{
	return (e->type == JT_SETATTR && !S_ISDIR(e->mode)) || ((e->type == JT_SETXATTR || e->type == JT_REMOVEXATTR) && !e->inherited);
}

/* What became a phantom in an earlier connection is not known in this one: another file may stand in for it. It was gone then, so that the
 * journal had its end when this connection began. Returns enum phantom_act or an error. */
static int decide_attributes(struct sender *s, const struct wrec *e)
{
	int r = 0;

	if (e->seq > s->replay || phantoms_state(s->phantoms, e->ino) != PS_REAL)
		return PA_SEND;
	if (s->deaths == NULL)
		r = deaths_read(&s->deaths, s->env.jdirfd, s->resumed, s->replay);
	if (r < 0)
		return r;
	switch (deaths_of(s->deaths, e->ino, e->seq)) {
	case DEATH_NONE:
		return PA_SEND;
	case DEATH_COMES:
		return PA_DROP;
	default:
		r = phantoms_leave(s->phantoms, e->ino, e->seq);
		return r < 0 ? r : PA_LEAVE;
	}
}

/* Returns enum phantom_act or an error. */
static int decide(struct sender *s, const struct wrec *e)
{
	int r = sets_attributes(e) ? decide_attributes(s, e) : PA_SEND;

	return r == PA_SEND ? phantoms_decide(s->phantoms, e) : r;
}

bool sender_is_lacking(const struct sender *s, uint64_t ino)
{
	return s->lacking.more || inoset_has(&s->lacking, ino);
}

/* Record e took a name from an inode that has others, while its bytes or attributes are left to the comparison, which may know it by this name
 * alone: they are compared where it is found, or, when it is not known whether it is such an inode, wherever it may be. */
static int send_elsewhere(struct sender *s, const struct wrec *e)
{
	uint64_t ino = jrec_unnamed(e->type, e->flags, e->ino, e->ino2);
	char path[PATH_LONGEST];

	if (ino == 0 || e->nlink == 0)
		return 0;
	if (phantoms_state(s->phantoms, ino) != PS_LEFT && !inoset_has(&s->lacking, ino))
		return s->lacking.more ? bulk_recheck(s->env.bulk, e->seq, "", CMP_RECURSIVE) : 0;
	if (!locate_name(s->env.rootfd, ino, path, sizeof path))
		return 0;
	return bulk_recheck_entry(s->env.bulk, e->seq, path, CMP_CHECKSUM);
}

/* Returns 0 (sent or not to be sent), SR_WAIT, or an error. */
static int send_one(struct sender *s, size_t i)
{
	const struct wrec *e = window_at(s->w, i);
	int r;

	switch (e->type) {
	case JT_MOUNT:
	case JT_SEAL:
	case JT_COLLAPSED:
		return 0;
	case JT_RECHECK:
		return send_recheck(s, e);
	default:
		break;
	}
	if (e->marks & WM_MERGED)
		return 0;
	r = gate(s, e);
	if (r == SR_WAIT)
		return r;
	r = decide(s, e);
	if (r >= 0)
		r = send_act(s, i, (enum phantom_act)r);
	return r == 0 ? send_elsewhere(s, e) : r;
}

#define ROUNDS         8u /* how often a path that records change while it is compared is compared once more */
#define ROUNDS_CONTENT 1u /* the same where only bytes change: the stream brings them */

/* Record e is about to be sent: what it changes may be under comparison. */
static int changed(struct sender *s, const struct wrec *e)
{
	bool tree = (e->flags & (JF_DIR | JF_EXCHANGE)) != 0;
	unsigned how = CMP_ALLOW | (tree ? CMP_RECURSIVE : CMP_CHECKSUM);
	int r;

	switch (e->type) {
	case JT_MOUNT:
	case JT_SEAL:
	case JT_COLLAPSED:
	case JT_RECHECK:
		return 0;
	case JT_CONTENT:
		return e->path[0] == '\0' ? 0 : bulk_changed(s->env.bulk, e->seq, e->path, CMP_ALLOW | CMP_CHECKSUM, ROUNDS_CONTENT);
	case JT_RENAME:
	case JT_LINK:
		r = bulk_changed(s->env.bulk, e->seq, e->path, (e->flags & JF_EXCHANGE) ? how : CMP_ALLOW, ROUNDS);
		return r < 0 ? r : bulk_changed(s->env.bulk, e->seq, e->path2, how, ROUNDS);
	default:
		return bulk_changed(s->env.bulk, e->seq, e->path, CMP_ALLOW, ROUNDS);
	}
}

/* --- window and position --- */

static int refill(struct sender *s)
{
	int r;

	if (s->at < window_count(s->w))
		return 1;
	s->at = 0;
	s->created = -1;
	r = window_load(s->w, s->reader);
	return r > 0 ? 1 : r;
}

/* The last record of the window is a CREATE: its content often follows at once, and makes it superfluous (rule 3). Returns 1 to go on
 * with the window, 0 to wait, or an error. */
static int hold(struct sender *s)
{
	const struct wrec *e = window_at(s->w, s->at);
	int r;

	if (s->at + 1 != window_count(s->w) || e->type != JT_CREATE || e->marks != 0)
		return 1;
	r = window_carry(s->w, s->reader);
	if (r < 0)
		return r;
	s->at = 0;
	s->created = -1;
	if (r > 1)
		s->hold_ns = 0;
	else if (s->hold_ns == 0)
		s->hold_ns = clock_mono() + HOLD_NS;
	if (s->hold_ns == 0)
		return 1;
	if (clock_mono() < s->hold_ns)
		return 0;
	s->hold_ns = 0;
	return 1;
}

bool sender_waits(const struct sender *s)
{
	return s->unsure_ns != 0;
}

int sender_timeout(const struct sender *s)
{
	uint64_t now;

	if (s->hold_ns == 0)
		return -1;
	now = clock_mono();
	return now >= s->hold_ns ? 0 : (int)((s->hold_ns - now) / NS_PER_MS) + 1;
}

int sender_step(struct sender *s)
{
	unsigned n;
	int r = refill(s);

	if (r <= 0)
		return r;
	for (n = 0; n < SLICE && s->at < window_count(s->w); n++) {
		const struct wrec *e;

		if (!stream_live(s->env.stream))
			return SR_WAIT;
		r = hold(s);
		if (r <= 0)
			return r;
		e = window_at(s->w, s->at);
		r = changed(s, e); /* before it is sent: what it schedules itself sees it */
		if (r == 0)
			r = send_one(s, s->at);
		if (r != 0)
			return r;
		if (s->pos.time_ns == 0)
			s->pos.time_ns = e->time_ns;
		if (e->type == JT_RENAME || e->type == JT_LINK || e->type == JT_UNLINK)
			s->moved = e->seq;
		s->pos.seq = e->seq;
		s->pos.digest = e->digest;
		s->at++;
		if (stream_batched(s->env.stream) >= (stream_idle(s->env.stream) ? BATCH_FIRST : BATCH_GOOD) &&
		    (r = sender_flush(s)) < 0)
			return r;
	}
	return SR_WORK;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Everything that is outstanding at the present position, ascending. */
static uint32_t outstanding(struct sender *s)
{
	uint32_t n = bulk_outstanding(s->env.bulk, s->out), room = WPOS_OUT_MAX + 1 - n;
	bool all = n > 0 && s->out[n - 1] == WPOS_OUT_ALL;
	uint32_t more = phantoms_outstanding(s->phantoms, s->out + n, room);

	if (more > room)
		more = room;
	all = all || n + more > WPOS_OUT_MAX;
	if (more > 0)
		qsort(s->out, n + more, sizeof s->out[0], by_value);
	if (all)
		s->out[1] = WPOS_OUT_ALL;
	return all ? 2 : n + more;
}

void sender_replay(struct sender *s, uint64_t seq)
{
	s->resumed = s->pos.seq;
	s->replay = seq;
	phantoms_replay(s->phantoms, seq);
}

int sender_hollow(struct sender *s, uint64_t ino, uint64_t seq, bool linked)
{
	return phantoms_hollow(s->phantoms, ino, seq, linked);
}

int sender_leave(struct sender *s, uint64_t ino, uint64_t seq)
{
	return phantoms_leave(s->phantoms, ino, seq);
}

void sender_lacking(struct sender *s, uint64_t ino)
{
	inoset_add(&s->lacking, ino);
}

bool sender_unended(const struct sender *s, uint64_t *ino, uint64_t *seq)
{
	return phantoms_unended(s->phantoms, ino, seq);
}

int sender_give_up(struct sender *s, uint64_t ino)
{
	return phantoms_give_up(s->phantoms, ino);
}

void sender_doubt(struct sender *s)
{
	phantoms_doubt(s->phantoms);
}

void sender_compared(struct sender *s)
{
	phantoms_compared(s->phantoms);
	inoset_clear(&s->lacking);
}

static int put_pos(struct sender *s)
{
	const struct jhead *head = jreader_head(s->reader);
	struct wop op = {.type = WOP_POS, .seq = s->pos.seq, .digest = s->pos.digest, .epoch = head->epoch,
	    .flags = bulk_is_full(s->env.bulk) ? 1 : 0, .out_put = s->out};

	memcpy(op.journal_id, head->journal_id, sizeof op.journal_id);
	op.nout = outstanding(s);
	s->first_out = op.nout == 0 ? 0 : s->out[0];
	s->flushed = s->pos.seq;
	return stream_op(s->env.stream, &op);
}

int sender_flush(struct sender *s)
{
	bool moved = bulk_moved(s->env.bulk);
	int r;

	if (s->pos.seq != s->flushed || moved || s->owed.n != 0) {
		r = owed_put(&s->owed, s->env.stream);
		if (r == 0)
			r = put_pos(s);
		if (r < 0)
			return r;
	}
	if (stream_batched(s->env.stream) == 0)
		return 0;
	s->pos.time_ns = 0;
	r = stream_flush(s->env.stream);
	return r < 0 ? r : 1;
}

void sender_pos(const struct sender *s, struct sender_pos *out)
{
	*out = s->pos;
}

uint64_t sender_moved(const struct sender *s)
{
	return s->moved;
}

uint64_t sender_outstanding(const struct sender *s)
{
	return s->first_out;
}

uint64_t sender_waiting(const struct sender *s)
{
	return s->at < window_count(s->w) ? window_at(s->w, s->at)->time_ns : 0;
}

void sender_counts(const struct sender *s, uint64_t *records, uint64_t *files)
{
	*records = s->records;
	*files = s->files;
}
