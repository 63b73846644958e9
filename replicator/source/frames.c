/* SPDX-License-Identifier: BSD-2-Clause
 * What the module daemon tells us. */
#include "config.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/err.h"
#include "proto/log.h"
#include "proto/path.h"
#include "proto/clock.h"
#include "replicator/source/follow.h"
#include "replicator/source/locate.h"
#include "replicator/source/session.h"

#define SAID_MAX 20 /* lines in a minute */

/* Say whether a line may be logged because of what the peer said: it must not fill our disk. */
static bool may_log(struct session *s)
{
	uint64_t now = clock_mono();

	if (now - s->said_ns > 60 * NS_PER_S) {
		s->said_ns = now;
		s->said = 0;
	}
	return s->said++ < SAID_MAX;
}

static int on_ack(struct session *s, struct buf *b)
{
	struct wack a;
	int r = wack_get(b, &a);

	if (r == 0)
		r = stream_ack(s->stream, a.received);
	if (r < 0)
		return r;
	s->ack = a;
	while (s->lag.n > 0 && s->lag.seq[s->lag.first] <= a.applied) {
		s->lag.first = (s->lag.first + 1) % LAG_MAX;
		s->lag.n--;
	}
	return 0;
}

/* Stand after record seq. Records mostly fail in their order. */
static int failed_reader(struct session *s, uint64_t seq)
{
	int r = s->failed != NULL ? 0 : jreader_open(&s->failed, s->link->jdirfd);

	return r < 0 ? r : jreader_forward(s->failed, seq);
}

/* The names that what is at path has at the stream's present position if the record seq was not applied. What was sent since may have
 * moved it, or linked it, without knowing that it is another file. Returns 0 or -ENOMEM; a journal that cannot be read leaves what is known. */
static int present(struct session *s, uint64_t seq, const char *path, struct follow_names *names)
{
	uint64_t end = sender_moved(s->sender);
	struct jrec rec;
	int r = follow_begin(names, 0, path);

	if (r < 0 || seq >= end)
		return r;
	r = failed_reader(s, seq);
	while (r >= 0 && jreader_seq(s->failed) < end && (r = jreader_next(s->failed, &rec, NULL, NULL)) == 1) {
		struct follow_rec e = follow_rec_of(&rec);

		r = follow_place(names, &e);
		jrec_release(&rec);
	}
	return r == -ENOMEM ? r : 0;
}

/* Compare path, which a record that failed names, and whatever it is called now. */
static int record_path_failed(struct session *s, const struct wfail *f, const char *path)
{
	struct follow_names names;
	int r, i;
	bool kept = false;

	if (path[0] == '\0')
		return bulk_fail_path(s->bulk, f, path);
	r = present(s, f->seq, path, &names);
	for (i = 0; r == 0 && i < names.n; i++) {
		kept |= strcmp(names.v[i], path) == 0;
		r = bulk_fail_path(s->bulk, f, names.v[i]);
	}
	if (r == 0 && !kept) /* what failed to move is still there */
		r = bulk_recheck(s->bulk, f->seq, path, CMP_RECURSIVE | CMP_CHECKSUM | CMP_ALLOW);
	follow_end(&names);
	return r;
}

/* The names that the inode of a record about one file has at the stream's present position. The path in the FAIL of a transfer may be from any
 * place between the record and now, so the names are followed from the record itself. Returns 0; E_GONE for a record of another type; or an error
 * when it cannot be read. *inherited: what was made in it since has, or lacks, what the record is about. */
static int inode_names(struct session *s, uint64_t seq, struct follow_names *names, bool *inherited)
{
	uint64_t end = sender_moved(s->sender);
	struct jrec rec;
	int r;

	names->n = 0;
	r = failed_reader(s, seq - 1);
	if (r == 0 && (r = jreader_next(s->failed, &rec, NULL, NULL)) == 1) {
		const char *path = follow_left(&rec);

		*inherited = jrec_inherited(&rec);
		r = path != NULL ? follow_begin(names, rec.ino, path) : E_GONE;
		jrec_release(&rec);
	}
	while (r >= 0 && !names->gone && jreader_seq(s->failed) < end && (r = jreader_next(s->failed, &rec, NULL, NULL)) == 1) {
		struct follow_rec e = follow_rec_of(&rec);

		r = follow_step(names, &e);
		jrec_release(&rec);
	}
	return r < 0 ? r : 0;
}

/* Compare the inode that record f->seq is about under all names that are known, or any that is found: its recorded ones may be gone, while it had
 * others before. transfer: its bytes are what failed. */
static int inode_failed(struct session *s, const struct wfail *f, bool transfer)
{
	struct follow_names names = {.gone = true};
	bool inherited = false;
	char path[PATH_LONGEST];
	int i, r = inode_names(s, f->seq, &names, &inherited);

	if (r < 0)
		follow_end(&names);
	if (r < 0)
		return transfer ? record_path_failed(s, f, f->path) : 0;
	if (transfer && !names.gone)
		r = sender_leave(s->sender, names.ino, f->seq);
	else if (!names.gone)
		sender_lacking(s->sender, names.ino);
	if (r == 0 && names.n == 0 && !names.gone && locate_name(s->link->rootfd, names.ino, path, sizeof path))
		r = bulk_fail_path(s->bulk, f, path);
	for (i = 0; r == 0 && i < names.n && !names.gone; i++)
		r = bulk_fail_path(s->bulk, f, names.v[i]);
	follow_end(&names);
	if (r == 0 && inherited && f->seq < sender_moved(s->sender)) /* it may have left the directory */
		r = bulk_recheck(s->bulk, f->seq, "", CMP_RECURSIVE);
	return r;
}

int session_give_up(struct session *s, uint64_t ino, uint64_t seq)
{
	struct follow_names names = {.gone = true};
	bool inherited;
	int i, r = inode_names(s, seq, &names, &inherited);

	if (r == 0 || r == E_GONE)
		r = bulk_recheck(s->bulk, seq, "", CMP_SELF); /* its record is outstanding until this is done, if nothing else is to be */
	for (i = 0; r == 0 && i < names.n; i++)
		r = bulk_recheck_entry(s->bulk, seq, names.v[i], CMP_CHECKSUM | CMP_ALLOW);
	follow_end(&names);
	return r < 0 ? r : sender_give_up(s->sender, ino);
}

/* What a comparison put failed. Whose transfer it was tells the lowest bit of its id (stream_tag). */
static int comparison_failed(struct session *s, const struct wfail *f)
{
	if ((f->xid & 1) != 0 && s->verify != NULL)
		compare_fail(vrun_compare(s->verify), f);
	else
		bulk_fail_compare(s->bulk, f);
	return bulk_fail_moved(s->bulk, f);
}

static int on_fail(struct session *s, struct buf *b)
{
	char shown[256];
	struct wfail f;
	int r = wfail_get(b, &f);

	if (r < 0)
		return r;
	log_debug("%s: %s could not be applied (record %llu): %s: %s", s->env->to->url, path_show(shown, sizeof shown, f.path),
	    (unsigned long long)f.seq, wrefuse_text(f.code), f.text);
	if (f.seq == 0)
		return comparison_failed(s, &f);
	bulk_fail_begin(s->bulk, &f);
	if (f.xid != 0)
		return inode_failed(s, &f, true);
	r = record_path_failed(s, &f, f.path);
	if (r == 0)
		r = inode_failed(s, &f, false);
	return r == 0 && f.path2[0] != '\0' ? record_path_failed(s, &f, f.path2) : r;
}

static int on_hold(struct session *s, struct buf *b)
{
	struct wfail f;
	int r = wfail_get(b, &f);

	if (r < 0)
		return r;
	if (f.code == WR_NONE) {
		if (s->held[0] != '\0' && may_log(s))
			log_info("%s: the standby applies again", s->env->to->url);
		s->held[0] = '\0';
		return 0;
	}
	if (s->held[0] == '\0' && may_log(s))
		log_warn("%s: the standby waits: %s: %s", s->env->to->url, wrefuse_text(f.code), f.text);
	snprintf(s->held, sizeof s->held, "%s: %s", wrefuse_text(f.code), f.text);
	return 0;
}

static int on_refuse(struct buf *b, char *why, size_t size)
{
	struct wfail f;
	int r = wfail_get(b, &f);

	if (r < 0)
		return r;
	snprintf(why, size, "%s%s%s", wrefuse_text(f.code), f.text[0] != '\0' ? ": " : "", f.text);
	return f.code == WR_SHUTDOWN ? E_CLOSED : E_REFUSED;
}

/* Everything before the SYNC is durable; a FAIL that came meanwhile takes its record out. */
static int on_synced(struct session *s, struct buf *b)
{
	uint64_t token = buf_get_u64(b), out[WPOS_OUT_MAX], covers = s->sync.covers;
	int r;

	buf_get_u64(b); /* the daemon's sequence: ours is the same */
	r = buf_end(b);
	if (r < 0 || token != s->sync.token || !s->sync.pending)
		return r;
	s->sync.pending = false;
	s->sync.durable = s->sync.bytes;
	if (bulk_outstanding(s->bulk, out) != 0 && out[0] <= covers)
		covers = out[0] - 1;
	pthread_mutex_lock(&s->view->lock);
	if (covers > s->view->reclaim)
		s->view->reclaim = covers;
	if (s->sync.whole && !bulk_is_full(s->bulk) && covers > s->view->durable)
		s->view->durable = covers;
	pthread_mutex_unlock(&s->view->lock);
	if (!s->sync.whole && !s->sync.dirty) { /* it told nothing; after the comparison nothing else may ask again */
		s->sync.dirty = true;
		s->sync.dirty_ns = clock_mono();
	}
	return 0;
}

static int on_ping(struct session *s, uint8_t type, struct buf *b)
{
	uint64_t token = buf_get_u64(b);
	struct buf pong;
	int r = buf_end(b);

	if (r < 0)
		return r;
	if (type == FT_PONG) {
		if (token == s->ping_ns && token != 0)
			stream_rtt(s->stream, s->rx_ns - token);
		s->ping_ns = 0;
		return 0;
	}
	buf_init(&pong, 16);
	buf_put_u64(&pong, token);
	r = conn_put(s->conn, FT_PONG, pong.data, pong.len, COMPRESS_NONE);
	buf_release(&pong);
	return r;
}

/* Replies find the comparison that asked by the lowest bit of their id (stream_tag). */
static int on_reply(struct session *s, uint8_t type, struct buf *b)
{
	struct compare *c = bulk_compare(s->bulk);

	if (b->len - b->off < 4)
		return E_PROTO;
	if (b->data[b->off] & 1) {
		if (s->verify == NULL)
			return 0;
		c = vrun_compare(s->verify);
		stream_tag(s->stream, 1);
	} else {
		stream_tag(s->stream, 0);
	}
	return type == FT_LISTING ? compare_listing(c, b) : compare_sumset(c, b);
}

static int on_frame(struct session *s, uint8_t type, struct buf *b, char *why, size_t size)
{
	char shown[512];

	switch (type) {
	case FT_ACK:
		return on_ack(s, b);
	case FT_FAIL:
		return on_fail(s, b);
	case FT_HOLD:
		return on_hold(s, b);
	case FT_REFUSE:
		return on_refuse(b, why, size);
	case FT_SYNCED:
		return on_synced(s, b);
	case FT_PING:
	case FT_PONG:
		return on_ping(s, type, b);
	case FT_LISTING:
	case FT_SUMSET:
		return on_reply(s, type, b);
	case FT_NOTICE:
		if (may_log(s))
			log_info("%s: %s", s->env->to->url, path_show(shown, sizeof shown, buf_get_str(b, NULL)));
		return 0;
	default:
		snprintf(why, size, "unexpected frame type %u", type);
		return E_PROTO;
	}
}

int session_frames(struct session *s, char *why, size_t size)
{
	struct buf b;
	uint8_t type;
	int r;

	while ((r = conn_get(s->conn, &type, &b)) == 1) {
		s->rx_ns = clock_mono();
		r = on_frame(s, type, &b, why, size);
		if (r < 0) {
			if (why[0] == '\0')
				snprintf(why, size, "frame type %u: %s", type, err_text(r));
			return r;
		}
	}
	if (r < 0)
		snprintf(why, size, "receiving: %s", err_text(r));
	return r;
}
