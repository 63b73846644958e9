/* SPDX-License-Identifier: BSD-2-Clause
 * The sender (sender.h). Takes the window's records one by one:
 *
 *   gate      a record that moves, links or replaces an inode whose transfer was put off waits until that is done; if it removes the
 *             inode, the transfer is forgotten
 *   phantoms  (phantom.h) drop it, turn it into the removal of the old name, or send it
 *   send      sender_record.c
 *
 * The position moves after every record and travels as WOP_POS at the end of each batch. */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "proto/path.h"
#include "proto/clock.h"
#include "replicator/source/locate.h"
#include "replicator/source/sender_int.h"

#define SLICE       64u           /* records of one step */
#define HOLD_NS     (2 * NS_PER_MS) /* time that a CREATE at the journal's end waits for its content */
#define BATCH_GOOD  (192u << 10)  /* bytes at which a batch is ended with a position */
#define BATCH_FIRST (16u << 10)   /* the same while the peer has nothing to do */

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

/* --- one record --- */

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
		r = record_send(s, i, (enum phantom_act)r);
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

void sender_ahead(struct sender *s)
{
	s->ahead = atomic_load(&jreader_head(s->reader)->committed_seq);
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
