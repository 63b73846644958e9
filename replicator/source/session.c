/* SPDX-License-Identifier: BSD-2-Clause
 * The loop of one connection.
 *
 *   frames that came -> live records -> (none, or they wait) bulk work -> (none, or no room) position, SYNC, PING -> sleep
 *
 * It sleeps in poll on the connection, the doorbell of the journal, the mount's socket and the eventfd by which other threads
 * ask for something; with a timeout only when something is due: the peer's sign of life, a retry, bandwidth, a SYNC, a new attach.
 *
 * A burst: after BURST sends in a row, each within NEAR_NS of the one before, the doorbell is not listened to for REST_NS after each. Waking
 * for every single record would cost both hosts more than the records do. The first change after a pause is never late. */
#include "config.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "proto/err.h"
#include "proto/log.h"
#include "proto/clock.h"
#include "replicator/source/position.h"
#include "replicator/source/session.h"

#define SYNC_NS    NS_PER_S          /* what was sent is made durable after this */
#define SAVE_NS    (5 * NS_PER_S)    /* positions are written to targets/ at most so often */
#define VIEW_NS    (100 * NS_PER_MS) /* while busy, what others see is refreshed so often */
#define ATTACH_NS  NS_PER_S
#define UNENDED_NS NS_PER_S          /* the journal is silent for so long: the end of an inode that is gone does not come */
#define DEAF_MS    1000              /* a look at the journal when nobody rings */
#define WELCOME_MS 60000
#define BURST      16
#define NEAR_NS    (2 * NS_PER_MS)
#define REST_NS    NS_PER_MS

/* --- handshake --- */

static int put_hello(struct session *s)
{
	const struct jhead *head = jreader_head(s->reader);
	struct whello h = {.version = CONN_VERSION, .mode = 1, .mirror = s->env->mirror->name};
	struct buf b;
	int r;

	memcpy(h.source_id, s->link->source_id, 16);
	memcpy(h.head.journal_id, head->journal_id, 16);
	h.head.epoch = head->epoch;
	h.head.seq = atomic_load(&head->committed_seq);
	buf_init(&b, 1u << 16);
	whello_put(&b, &h);
	r = b.err != 0 ? b.err : conn_put(s->conn, FT_HELLO, b.data, b.len, COMPRESS_NONE);
	buf_release(&b);
	return r;
}

static int on_first(struct session *s, uint8_t type, struct buf *b, char *why, size_t size)
{
	struct wfail f;
	int r;

	if (type == FT_WELCOME)
		return wwelcome_get(b, &s->welcome);
	if (type != FT_REFUSE) {
		snprintf(why, size, "expected WELCOME, got frame type %u", type);
		return E_PROTO;
	}
	r = wfail_get(b, &f);
	if (r < 0)
		return r;
	snprintf(why, size, "%s%s%s", wrefuse_text(f.code), f.text[0] != '\0' ? ": " : "", f.text);
	return E_REFUSED;
}

/* Await WELCOME. */
static int await_welcome(struct session *s, char *why, size_t size)
{
	struct pollfd p[2] = {{.fd = conn_fd(s->conn)}, {.fd = s->stopfd, .events = POLLIN}};
	uint64_t until = clock_mono() + WELCOME_MS * NS_PER_MS;
	struct buf b;
	uint8_t type;
	int r;

	for (;;) {
		r = conn_io(s->conn);
		if (r == 0 || r == E_CLOSED) { /* a REFUSE may stand before the end */
			int got = conn_get(s->conn, &type, &b);

			if (got == 1)
				return on_first(s, type, &b, why, size);
			r = got < 0 ? got : r;
		}
		if (r < 0)
			return r;
		if (p[1].revents != 0)
			return -ECANCELED;
		if (clock_mono() > until)
			return E_TIMEOUT;
		p[0].events = conn_events(s->conn);
		poll(p, 2, 1000);
	}
}

/* --- what others see --- */

static void show(struct session *s)
{
	struct target_view *v = s->view;
	struct sender_pos pos;
	struct stream_stats st;
	uint64_t records, files, sent, received;

	sender_pos(s->sender, &pos);
	stream_stats(s->stream, &st);
	sender_counts(s->sender, &records, &files);
	conn_totals(s->conn, &sent, &received);
	pthread_mutex_lock(&v->lock);
	v->comparing = bulk_comparing(s->bulk) || bulk_is_full(s->bulk) || v->resync;
	v->busy = bulk_busy(s->bulk) || !stream_idle(s->stream) || stream_batched(s->stream) != 0;
	v->state = s->held[0] != '\0' || s->guarded ? TS_HELD : bulk_is_full(s->bulk) ? TS_COMPARING : TS_REPLICATING;
	v->applied = s->ack.applied;
	v->oldest_ns = s->lag.n > 0 ? s->lag.time_ns[s->lag.first] : pos.time_ns != 0 ? pos.time_ns : sender_waiting(s->sender);
	v->bytes_left = bulk_bytes(s->bulk) + (st.sent - st.acked) + stream_batched(s->stream);
	v->sent = sent;
	v->received = received;
	snprintf(v->error, sizeof v->error, "%s", s->held);
	if (s->guarded && s->held[0] == '\0')
		snprintf(v->error, sizeof v->error, "the delete guard stopped deletions: check the source, then run "
		    "tandemctl resync");
	compare_progress(bulk_compare(s->bulk), &v->progress);
	v->files = files + v->progress.files_sent;
	pthread_mutex_unlock(&v->lock);
	s->view_ns = clock_mono();
	s->env->changed(s->env->arg);
}

/* Remember the position in targets/, now or when it is time. */
static void save(struct session *s, bool now)
{
	struct saved_pos p = {.epoch = jreader_head(s->reader)->epoch};
	int r;

	memcpy(p.journal_id, jreader_head(s->reader)->journal_id, 16);
	pthread_mutex_lock(&s->view->lock);
	p.seq = s->view->reclaim;
	pthread_mutex_unlock(&s->view->lock);
	if (p.seq == s->saved || p.seq == 0 || (!now && clock_mono() - s->saved_ns < SAVE_NS))
		return;
	r = position_save(&p, s->env->state_dirfd, s->env->to->url);
	if (r < 0)
		log_warn("%s: cannot save the position: %s", s->env->to->url, err_text(r));
	s->saved = p.seq;
	s->saved_ns = clock_mono();
}

/* --- periodic duties --- */

static int put_token(struct session *s, enum frame_type type, uint64_t token)
{
	struct buf b;
	int r;

	buf_init(&b, 16);
	buf_put_u64(&b, token);
	r = conn_put(s->conn, (uint8_t)type, b.data, b.len, COMPRESS_NONE);
	buf_release(&b);
	return r;
}

/* Ask for durability when somebody waits for it or what was sent is old enough. */
static int do_sync(struct session *s)
{
	uint64_t now = clock_mono(), first;
	struct stream_stats st;
	struct sender_pos pos;
	bool asked;
	int r;

	pthread_mutex_lock(&s->view->lock);
	asked = s->view->sync;
	pthread_mutex_unlock(&s->view->lock);
	asked |= s->verify != NULL && vrun_wants_sync(s->verify);
	if (s->sync.pending || !s->sync.dirty || (!asked && now - s->sync.dirty_ns < SYNC_NS))
		return 0;
	pthread_mutex_lock(&s->view->lock);
	s->view->sync = false;
	pthread_mutex_unlock(&s->view->lock);
	r = sender_flush(s->sender);
	if (r < 0)
		return r;
	sender_pos(s->sender, &pos);
	first = sender_outstanding(s->sender);
	s->sync.covers = first != 0 && first <= pos.seq ? first - 1 : pos.seq;
	stream_stats(s->stream, &st);
	s->sync.bytes = st.sent;
	s->sync.whole = !bulk_is_full(s->bulk);
	s->sync.pending = true;
	s->sync.dirty = false;
	return put_token(s, FT_SYNC, ++s->sync.token);
}

/* The peer's signs of life. */
static int do_ping(struct session *s, char *why, size_t size)
{
	uint64_t now = clock_mono(), limit = (uint64_t)s->env->mirror->timeout * NS_PER_S;

	if (limit == 0)
		return 0;
	if (now - s->rx_ns > limit) {
		snprintf(why, size, "no sign of the standby for %d s", s->env->mirror->timeout);
		return E_TIMEOUT;
	}
	if (s->ping_ns != 0 || now - s->rx_ns < limit / 3)
		return 0;
	s->ping_ns = now;
	return put_token(s, FT_PING, now);
}

/* The mount went away or came back. */
static int do_attach(struct session *s)
{
	struct jreader *r;
	struct sender_pos pos;
	uint64_t digest;
	int ret;

	if (s->link->sock >= 0 && (!s->mount_moved || !mountlink_lost(s->link)))
		return 0;
	if (clock_mono() < s->attach_ns)
		return 0;
	s->attach_ns = clock_mono() + ATTACH_NS;
	ret = mountlink_attach(s->link, s->env->state_dirfd);
	if (ret == E_FOREIGN)
		return ret;
	if (ret < 0)
		return 0;
	ret = jreader_open(&r, s->link->jdirfd);
	if (ret < 0)
		return ret;
	sender_pos(s->sender, &pos);
	if (memcmp(jreader_head(r)->journal_id, jreader_head(s->reader)->journal_id, 16) != 0 ||
	    jreader_seek(r, pos.seq, &digest) < 0 || digest != pos.digest) {
		jreader_close(r);
		return E_GAP; /* connect again and decide anew */
	}
	jreader_close(s->reader);
	jreader_close(s->failed);
	s->reader = r;
	s->failed = NULL;
	sender_read(s->sender, r, pos.seq, pos.digest);
	log_info("%s: attached to the mount again", s->env->to->url);
	return 0;
}

static void verify_end(struct session *s, const char *error)
{
	vrun_free(s->verify, error);
	s->verify = NULL;
	if (s->bulk != NULL) /* it may have been refused before */
		bulk_repairs(s->bulk, false);
}

/* What other threads asked for. Returns 0, 1 when asked to stop, or an error. */
static int do_asked(struct session *s, bool *paused)
{
	struct compare_env ce = {.stream = s->stream, .rootfd = s->link->rootfd, .jdirfd = -1, .mirror = s->env->mirror, .no_owner = s->no_owner,
	    .failed = bulk_path_failed, .arg = s->bulk};
	struct target_view *v = s->view;
	struct vjob *job = NULL;
	bool resync, allow, stop;
	int r = 0;

	pthread_mutex_lock(&v->lock);
	*paused = v->paused;
	stop = v->stop;
	resync = v->resync;
	v->comparing |= resync; /* who waits must not slip in between */
	allow = v->allow;
	v->resync = v->allow = false;
	if (s->verify == NULL) {
		job = v->verify;
		v->verify = NULL;
	}
	pthread_mutex_unlock(&v->lock);
	if (stop)
		return 1;
	allow &= s->guarded;
	if (allow) {
		compare_allow_deletes(bulk_compare(s->bulk));
		s->guarded = false;
	}
	if (resync)
		r = bulk_compare_all(s->bulk, allow ? CMP_ALLOW : 0);
	if (job != NULL) {
		if (r == 0)
			r = vrun_new(&s->verify, job, s->env->to->url, &ce);
		if (r == 0 && vrun_repairs(s->verify)) {
			failures_hurry(s->failures);
			bulk_repairs(s->bulk, true);
		}
		if (r < 0)
			vjob_done(job, s->env->to->url, 0, 0, err_text(r));
		vjob_unref(job);
	}
	return r;
}

/* --- the loop --- */

static void lag_note(struct session *s, const struct sender_pos *before)
{
	unsigned i = (s->lag.first + s->lag.n) % LAG_MAX;

	if (before->time_ns == 0 || s->lag.n == LAG_MAX)
		return;
	s->lag.seq[i] = before->seq;
	s->lag.time_ns[i] = before->time_ns;
	s->lag.n++;
}

static int flush(struct session *s)
{
	struct sender_pos pos;
	int r;

	sender_pos(s->sender, &pos);
	r = sender_flush(s->sender);
	if (r > 0) {
		uint64_t now = clock_mono();

		lag_note(s, &pos);
		s->burst = now - s->sent_ns < NEAR_NS ? s->burst + 1 : 0;
		s->sent_ns = now;
	}
	return r;
}

static int verify_step(struct session *s)
{
	struct vrun_seen seen = {.head = atomic_load(&jreader_head(s->reader)->committed_seq), .durable = s->sync.durable};
	struct stream_stats st;
	struct sender_pos pos;
	int r;

	if (s->verify == NULL || stream_room(s->stream) == 0)
		return 0;
	sender_pos(s->sender, &pos);
	stream_stats(s->stream, &st);
	seen.applied = s->ack.applied >= pos.seq && stream_idle(s->stream) ? pos.seq : s->ack.applied;
	seen.sent = st.sent + stream_batched(s->stream);
	seen.failed = failures_parked(s->failures);
	seen.trying = bulk_comparing(s->bulk) || failures_count(s->failures) > seen.failed || failures_timeout(s->failures) == 0;
	r = vrun_step(s->verify, &seen);
	if (r == 2)
		verify_end(s, NULL);
	return r == 2 ? 1 : r;
}

/* All is sent, and the content of a file was skipped because it is gone, but no record ends it (others removed it, below the mount): its
 * record would be outstanding for good. Returns 1 if something is to be done, 0, or an error. */
static int give_up(struct session *s)
{
	struct sender_pos pos;
	uint64_t ino, seq;
	int r;

	if (!sender_unended(s->sender, &ino, &seq)) {
		s->unended_ns = 0;
		return 0;
	}
	sender_pos(s->sender, &pos);
	if (s->unended_ns == 0 || pos.seq != s->unended_seq) {
		s->unended_ns = clock_mono() + UNENDED_NS;
		s->unended_seq = pos.seq;
	}
	if (clock_mono() < s->unended_ns)
		return 0;
	s->unended_ns = 0;
	r = session_give_up(s, ino, seq);
	return r < 0 ? r : 1;
}

/* Say whether anything brings what the source has now, ahead of the stream. */
static bool ahead(const struct session *s)
{
	return bulk_active(s->bulk) || (s->verify != NULL && vrun_repairs(s->verify));
}

/* One turn of work. Returns 1: there may be more at once; 0: nothing can be done now; or an error. */
static int turn(struct session *s)
{
	bool was_ahead = ahead(s);
	struct sender_pos pos;
	int live, r, v;

	if (was_ahead)
		sender_ahead(s->sender);
	live = bulk_urgent(s->bulk) ? SR_WAIT : sender_step(s->sender);
	if (live == E_GAP || live == E_CHECKSUM)
		s->unreadable = jreader_seq(s->reader) + 1;
	if (live < 0 || live == SR_WORK)
		return live;
	r = flush(s);
	if (r < 0)
		return r;
	r = bulk_step(s->bulk);
	sender_pos(s->sender, &pos);
	if (r == 0)
		r = bulk_sent(s->bulk, pos.seq, atomic_load(&jreader_head(s->reader)->committed_seq));
	if (r < 0)
		return r;
	v = verify_step(s);
	if (v < 0)
		return v;
	if (was_ahead)
		sender_ahead(s->sender);
	if (r == 0 && v == 0 && stream_idle(s->stream) && stream_batched(s->stream) == 0)
		bulk_settle(s->bulk);
	if (r == 0 && v == 0)
		r = live == SR_IDLE ? give_up(s) : 0;
	if (r == 0 && v == 0)
		r = flush(s);
	return r != 0 ? r : v;
}

static int sooner(int ms, int64_t ns)
{
	int other = ns <= 0 ? 0 : (int)((uint64_t)ns / NS_PER_MS) + 1;

	return ms < 0 || other < ms ? other : ms;
}

/* Milliseconds to sleep at most. */
static int timeout(struct session *s)
{
	uint64_t now = clock_mono();
	int64_t limit = (int64_t)((uint64_t)s->env->mirror->timeout * NS_PER_S);
	int ms = bulk_timeout(s->bulk), delay = stream_delay(s->stream), held = sender_timeout(s->sender);

	if (held >= 0 && (ms < 0 || held < ms))
		ms = held;
	if (delay > 0 && (ms < 0 || delay < ms))
		ms = delay;
	if (limit != 0)
		ms = sooner(ms, (int64_t)s->rx_ns + (s->ping_ns != 0 ? limit : limit / 3) - (int64_t)now);
	if (s->sync.dirty && !s->sync.pending)
		ms = sooner(ms, (int64_t)(s->sync.dirty_ns + SYNC_NS) - (int64_t)now);
	if (s->unended_ns != 0)
		ms = sooner(ms, (int64_t)s->unended_ns - (int64_t)now);
	if (s->link->sock < 0)
		ms = sooner(ms, (int64_t)s->attach_ns - (int64_t)now);
	return ms;
}

/* Nanoseconds for which a burst rests. */
static uint64_t rest(const struct session *s)
{
	uint64_t since = s->burst < BURST ? REST_NS : clock_mono() - s->sent_ns;

	return since < REST_NS ? REST_NS - since : 0;
}

static void nap(struct session *s, bool paused)
{
	struct pollfd p[4] = {{.fd = conn_fd(s->conn), .events = conn_events(s->conn)}, {.fd = s->wakefd, .events = POLLIN},
	    {.fd = s->link->efd, .events = POLLIN}, {.fd = s->link->sock}};
	struct jhead *head = jreader_head(s->reader);
	uint64_t eight, ns = rest(s);
	bool listen = ns == 0 && !paused && !bulk_urgent(s->bulk) && stream_live(s->stream) && !sender_waits(s->sender);
	int ms = timeout(s), heard = 0;
	struct timespec ts;

	if (conn_pending(s->conn))
		return;
	if (!listen)
		p[2].fd = -1;
	else if ((heard = mountlink_arm(s->link, head, jreader_seq(s->reader))) > 0) {
		mountlink_disarm(s->link, head, false);
		return;
	}
	if (heard < 0 && (ms < 0 || ms > DEAF_MS))
		ms = DEAF_MS;
	ts = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * (long)NS_PER_MS};
	if (ns != 0 && ms != 0)
		ts = (struct timespec){.tv_nsec = (long)ns};
	p[0].revents = p[1].revents = 0;
	ppoll(p, 4, ms < 0 && ns == 0 ? NULL : &ts, NULL);
	s->readable = p[0].revents != 0;
	s->mount_moved = p[3].revents != 0;
	if (listen)
		mountlink_disarm(s->link, head, p[2].revents != 0);
	if (p[1].revents != 0 && read(s->wakefd, &eight, sizeof eight) < 0)
		return;
}

static void note_dirty(struct session *s, uint64_t *batches)
{
	struct stream_stats st;

	stream_stats(s->stream, &st);
	if (st.batches != *batches && !s->sync.dirty) {
		s->sync.dirty = true;
		s->sync.dirty_ns = clock_mono();
	}
	*batches = st.batches;
}

static int loop(struct session *s, char *why, size_t size)
{
	uint64_t batches = UINT64_MAX;
	bool paused = false;
	int r, f;

	for (;;) {
		r = s->readable ? conn_io(s->conn) : 0;
		if (r == 0 || r == E_CLOSED) {
			f = session_frames(s, why, size);
			r = f < 0 ? f : r;
		}
		s->readable = true;
		if (r == 0)
			r = do_asked(s, &paused);
		if (r != 0)
			return r > 0 ? 0 : r;
		r = paused ? 0 : turn(s);
		if (r < 0)
			return r;
		note_dirty(s, &batches);
		if (r > 0 && clock_mono() - s->view_ns < VIEW_NS)
			continue;
		f = do_attach(s);
		if (f == 0)
			f = do_sync(s);
		if (f == 0)
			f = do_ping(s, why, size);
		if (f < 0)
			return f;
		save(s, false);
		show(s);
		if (r == 0 && conn_queued(s->conn) > 0 && (r = conn_io(s->conn)) < 0)
			return r;
		if (r == 0)
			nap(s, paused);
	}
}

static void guard_stopped(void *arg, uint64_t n, uint64_t total)
{
	struct session *s = arg;

	s->guarded = true;
	log_warn("%s: the delete guard stopped %llu deletions of %llu entries: check the source, then run tandemctl resync",
	    s->env->to->url, (unsigned long long)n, (unsigned long long)total);
}

static int file_gone(void *arg, uint64_t ino, uint64_t seq, bool linked)
{
	struct session *s = arg;

	return s->sender != NULL ? sender_hollow(s->sender, ino, seq, linked) : 0;
}

static int file_left(void *arg, uint64_t ino, uint64_t seq)
{
	struct session *s = arg;

	return s->sender != NULL ? sender_leave(s->sender, ino, seq) : 0;
}

static void all_compared(void *arg)
{
	struct session *s = arg;

	if (s->sender != NULL)
		sender_compared(s->sender);
}

/* Make what a welcomed connection needs. */
static int setup(struct session *s)
{
	struct bulk_env be = {.mirror = s->env->mirror, .failures = s->failures, .rootfd = s->link->rootfd, .jdirfd = s->link->jdirfd, .guarded = guard_stopped,
	    .gone = file_gone, .left = file_left, .compared = all_compared, .arg = s};
	struct sender_env se = {.mirror = s->env->mirror, .rootfd = s->link->rootfd, .jdirfd = s->link->jdirfd};
	int r = stream_new(&s->stream, s->conn, s->env->mirror, s->welcome.window);

	s->no_owner = (s->welcome.flags & WW_NO_OWNER) != 0;
	be.no_owner = s->no_owner;
	be.stream = se.stream = s->stream;
	if (r == 0)
		r = bulk_new(&s->bulk, &be);
	se.bulk = s->bulk;
	if (r == 0)
		r = sender_new(&s->sender, &se);
	if (r == 0)
		r = resume(s);
	s->ack.applied = s->welcome.applied.seq;
	s->readable = true;
	s->rx_ns = s->ping_ns = clock_mono();
	return r < 0 ? r : put_token(s, FT_PING, s->ping_ns);
}

/* What the standby has now, as far as it is known to be durable. */
static void welcome_view(struct session *s)
{
	uint64_t have = s->welcome.durable.seq;
	struct target_view *v = s->view;
	uint32_t i;

	for (i = 0; i < s->welcome.noutstanding; i++)
		if (s->welcome.outstanding[i] != 0 && s->welcome.outstanding[i] <= have)
			have = s->welcome.outstanding[i] - 1;
	if (bulk_is_full(s->bulk) || memcmp(v->journal_id, jreader_head(s->reader)->journal_id, 16) != 0) {
		v->durable = 0;
		if (memcmp(v->journal_id, jreader_head(s->reader)->journal_id, 16) != 0)
			v->reclaim = 0;
	}
	if (v->durable > have)
		v->durable = have;
	if (v->reclaim > have)
		v->reclaim = have;
	memcpy(v->journal_id, jreader_head(s->reader)->journal_id, 16);
}

static void teardown(struct session *s, const char *why)
{
	pthread_mutex_lock(&s->view->lock);
	s->view->connected = false;
	s->view->busy = true;
	pthread_mutex_unlock(&s->view->lock);
	verify_end(s, why[0] != '\0' ? why : "the connection ended");
	save(s, true);
	bulk_free(s->bulk);
	sender_free(s->sender);
	stream_free(s->stream);
	jreader_close(s->reader);
	jreader_close(s->failed);
	conn_close(s->conn);
	free(s->welcome.outstanding);
	s->bulk = NULL;
	s->sender = NULL;
	s->stream = NULL;
	s->reader = s->failed = NULL;
	s->conn = NULL;
}

int session_run(struct session *s, char *why, size_t size)
{
	int r = jreader_open(&s->reader, s->link->jdirfd);

	why[0] = '\0';
	if (r < 0) {
		snprintf(why, size, "the journal: %s", err_text(r));
		conn_close(s->conn);
		return r;
	}
	failures_clear(s->failures);
	r = put_hello(s);
	if (r == 0)
		r = await_welcome(s, why, size);
	if (r == 0)
		r = setup(s);
	if (r == 0) {
		pthread_mutex_lock(&s->view->lock);
		s->view->connected = true;
		welcome_view(s);
		pthread_mutex_unlock(&s->view->lock);
		show(s);
		r = loop(s, why, size);
	}
	if (r < 0 && why[0] == '\0')
		snprintf(why, size, "%s", err_text(r));
	teardown(s, why);
	return r;
}
