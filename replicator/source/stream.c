/* SPDX-License-Identifier: BSD-2-Clause
 * Batches, credit, bandwidth and compression of one connection (stream.h).
 *
 * Credit. WELCOME grants a window: bytes of BATCH payload (expanded) that may be unacknowledged. Live records may use all of it;
 * bulk work only as much as the peer acknowledges in about BULK_AHEAD and two round trips, so that a live record put behind it
 * is not late, and always less than half of the window. (With one round trip, an answer that takes longer than BULK_AHEAD to be
 * applied and acknowledged would show as a lower rate, that as less in flight, and that as a still lower rate.)
 *
 * Bandwidth (bwlimit). A bucket that fills with the configured rate and holds at most BUCKET of a second. What was
 * written to the socket, TLS included, is taken out of it. When it is empty nothing is put until it is not: a
 * batch that was begun may overdraw it, so the rate holds over time, not per batch.
 *
 * Compression (auto). Worth it only when the link is what limits: with a bandwidth limit, when the peer is far
 * (no answer came faster than FAR_RTT), or when the kernel measured a delivery rate below FAST_RATE that was not
 * limited by us. A delivery rate above it says that the link is fast, unless the peer is much farther than the kernel's fastest
 * round trip: a tunnel or proxy, whose near end is all that the kernel sees. Then the first PROBE bytes of a batch are tried;
 * batches that do not shrink by a tenth go as they are. */
#include "config.h"
#include <errno.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/mirror.h"
#include "proto/clock.h"
#include "replicator/source/stream.h"

#define BATCH_FULL   (256u << 10)         /* bytes at which a batch is sent by itself */
#define QUEUE_LIVE   (2u << 20)           /* bytes queued in the connection at which live records wait */
#define QUEUE_BULK   (256u << 10)         /* and bulk work */
#define BULK_MIN     (512u << 10)         /* bytes of bulk work in flight that are always allowed */
#define BULK_MAX     (16u << 20)
#define BULK_AHEAD   (15 * NS_PER_MS)     /* time that bulk work in flight should take */
#define RATE_NS      (5 * NS_PER_MS)      /* the rate is measured over this time at least, and over a round trip */
#define BUCKET_NS    (50 * NS_PER_MS)
#define FAR_RTT      (2 * NS_PER_MS)
#define FAST_RATE    (200ull << 20)       /* bytes per second */
#define PROBE        (16u << 10)
#define PROBE_MIN    1024u                /* batches below are not worth a try */
#define SAMPLE_NS    (100 * NS_PER_MS)    /* how often the link is asked */

struct stream {
	struct conn *conn;           /* borrowed */
	const struct mirror *mirror; /* borrowed */
	uint64_t window;             /* bytes of credit granted */
	struct buf batch;
	size_t incompressible;       /* bytes of the batch that match "dont compress" */
	uint32_t xid, request;
	unsigned tag;
	uint8_t key[8];
	uint8_t *scratch;

	uint64_t sent, acked, batches; /* bytes, bytes, frames since WELCOME */
	uint64_t rate;                 /* bytes per second, moving average of acknowledgements */
	uint64_t rate_ns, rate_acked;  /* begin of the present measurement */

	uint64_t rtt;         /* ns, fastest answer to a PING or a batch; 0: none yet */
	uint64_t alone_ns;    /* when a batch was sent while nothing was in flight */
	uint64_t alone_sent;  /* `sent` behind it, 0: it was acknowledged */
	uint64_t sample_ns;   /* when the link was asked last */
	bool fast;            /* the link is not what limits */

	int64_t tokens;       /* bytes that bwlimit allows now; negative: overdrawn */
	uint64_t tokens_ns;   /* when they were counted */
	uint64_t wire;        /* bytes already taken out */
};

int stream_new(struct stream **out, struct conn *c, const struct mirror *m, uint64_t window)
{
	struct stream *s = calloc(1, sizeof *s);

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->scratch = malloc(STREAM_PIECE);
	if (s->scratch == NULL) {
		free(s);
		return -ENOMEM;
	}
	s->conn = c;
	s->mirror = m;
	s->window = window < (1u << 20) ? (1u << 20) : window;
	s->fast = true;
	s->tokens_ns = s->rate_ns = clock_mono();
	s->tokens = (int64_t)(m->bwlimit / (NS_PER_S / BUCKET_NS));
	conn_totals(c, &s->wire, &(uint64_t){0});
	buf_init(&s->batch, FRAME_MAX);
	fio_random(s->key, sizeof s->key);
	*out = s;
	return 0;
}

void stream_free(struct stream *s)
{
	if (s == NULL)
		return;
	buf_release(&s->batch);
	free(s->scratch);
	free(s);
}

/* Bytes of wire that bwlimit allows now; large when there is no limit. What was sent is taken out before the bucket is full: a batch
 * larger than the bucket that leaves after its flush would be owed for ever otherwise. */
static int64_t tokens_now(const struct stream *s)
{
	uint64_t wire, received, now = clock_mono();
	double fill, tokens;
	int64_t cap;

	if (s->mirror->bwlimit == 0)
		return INT64_MAX;
	conn_totals(s->conn, &wire, &received);
	fill = (double)(now - s->tokens_ns) * (double)s->mirror->bwlimit / (double)NS_PER_S;
	cap = (int64_t)(s->mirror->bwlimit / (NS_PER_S / BUCKET_NS));
	tokens = (double)s->tokens - (double)(wire - s->wire) + fill;
	return tokens > (double)cap ? cap : (int64_t)tokens;
}

static void tokens_update(struct stream *s)
{
	uint64_t received;

	if (s->mirror->bwlimit == 0)
		return;
	s->tokens = tokens_now(s);
	s->tokens_ns = clock_mono();
	conn_totals(s->conn, &s->wire, &received);
}

/* Ask the kernel how fast the link is. */
static void link_sample(struct stream *s)
{
	bool beyond; /* the peer is not where the kernel's connection ends */
	struct tcp_info ti;
	socklen_t len = sizeof ti;
	uint64_t now = clock_mono();

	if (now - s->sample_ns < SAMPLE_NS)
		return;
	s->sample_ns = now;
	memset(&ti, 0, sizeof ti);
	if (getsockopt(conn_fd(s->conn), IPPROTO_TCP, TCP_INFO, &ti, &len) != 0)
		return;
	beyond = s->rtt > FAR_RTT && s->rtt / 4 > ti.tcpi_min_rtt * (NS_PER_MS / 1000);
	if (s->mirror->bwlimit != 0 && s->mirror->bwlimit < FAST_RATE)
		s->fast = false; /* NOLINT(bugprone-branch-clone): the order of the questions matters */
	else if (!beyond && ti.tcpi_delivery_rate > FAST_RATE)
		s->fast = true;
	else if (!ti.tcpi_delivery_rate_app_limited && ti.tcpi_delivery_rate != 0 && s->rate != 0 && s->rate < FAST_RATE &&
	    conn_queued(s->conn) > 0)
		s->fast = false;
	else if (s->rtt > FAR_RTT)
		s->fast = false;
}

/* Say whether a batch shrinks by more than a tenth, tried on its beginning. */
static bool probe(const struct stream *s)
{
	uint8_t out[PROBE];
	size_t n = s->batch.len < PROBE ? s->batch.len : PROBE;

	if (s->batch.len < PROBE_MIN || s->incompressible > s->batch.len / 2)
		return false;
	return compress_pack(COMPRESS_ZSTD, 1, s->batch.data + (s->batch.len - n) / 2, n, out, n - n / 10) != 0;
}

static enum compress_method choose(struct stream *s)
{
	switch (s->mirror->compress) {
	case MC_NONE:
		return COMPRESS_NONE;
	case MC_ZLIB:
		return probe(s) ? COMPRESS_ZLIB : COMPRESS_NONE;
	case MC_ZSTD:
		return probe(s) ? COMPRESS_ZSTD : COMPRESS_NONE;
	case MC_AUTO:
		break;
	}
	link_sample(s);
	return !s->fast && probe(s) ? COMPRESS_ZSTD : COMPRESS_NONE;
}

int stream_flush(struct stream *s)
{
	int r;

	if (s->batch.len == 0)
		return 0;
	if (s->sent == s->acked) {
		s->rate_ns = s->alone_ns = clock_mono();
		s->rate_acked = s->acked;
		s->alone_sent = s->sent + s->batch.len;
	}
	r = conn_put(s->conn, FT_BATCH, s->batch.data, s->batch.len, choose(s));
	if (r < 0)
		return r;
	s->sent += s->batch.len;
	s->batches++;
	buf_clear(&s->batch);
	s->incompressible = 0;
	r = conn_io(s->conn);
	tokens_update(s);
	return r;
}

int stream_op(struct stream *s, const struct wop *op)
{
	size_t before = s->batch.len;
	int r;

	wop_put(&s->batch, op);
	if (s->batch.err != 0) {
		r = s->batch.err;
		s->batch.err = 0;
		s->batch.len = before;
		return r;
	}
	return s->batch.len >= BATCH_FULL ? stream_flush(s) : 0;
}

int stream_request(struct stream *s, enum frame_type type, const struct buf *payload)
{
	int r = stream_flush(s);

	return r < 0 ? r : conn_put(s->conn, (uint8_t)type, payload->data, payload->len, COMPRESS_NONE);
}

static uint64_t in_flight(const struct stream *s)
{
	return s->sent - s->acked + s->batch.len;
}

bool stream_live(const struct stream *s)
{
	return in_flight(s) < s->window && conn_queued(s->conn) < QUEUE_LIVE && tokens_now(s) > 0;
}

bool stream_idle(const struct stream *s)
{
	return s->sent == s->acked;
}

size_t stream_room(const struct stream *s)
{
	uint64_t limit = s->rate / (NS_PER_S / BULK_AHEAD), used = in_flight(s);
	int64_t tokens = tokens_now(s);

	limit += 2 * s->rate * s->rtt / NS_PER_S;
	if (limit < BULK_MIN)
		limit = BULK_MIN;
	if (limit > BULK_MAX)
		limit = BULK_MAX;
	if (limit > s->window / 2)
		limit = s->window / 2;
	if (used >= limit || conn_queued(s->conn) > QUEUE_BULK || tokens <= 0)
		return 0;
	return limit - used < STREAM_PIECE ? limit - used : STREAM_PIECE;
}

int stream_ack(struct stream *s, uint64_t received)
{
	uint64_t now, rate;

	if (received > s->sent || received < s->acked)
		return E_PROTO;
	s->acked = received;
	now = clock_mono();
	if (s->alone_sent != 0 && s->acked >= s->alone_sent) {
		stream_rtt(s, now - s->alone_ns);
		s->alone_sent = 0;
	}
	if (now - s->rate_ns >= (s->rtt > RATE_NS ? s->rtt : RATE_NS) && s->acked - s->rate_acked >= (64u << 10)) {
		rate = (uint64_t)((double)(s->acked - s->rate_acked) * (double)NS_PER_S / (double)(now - s->rate_ns));
		s->rate = s->rate == 0 ? rate : rate > s->rate ? (s->rate + rate) / 2 : (s->rate * 3 + rate) / 4;
		s->rate_ns = now;
		s->rate_acked = s->acked;
	}
	return 0;
}

void stream_rtt(struct stream *s, uint64_t ns)
{
	if (s->rtt != 0 && ns >= s->rtt)
		return;
	s->rtt = ns;
	s->sample_ns = 0; /* look at the link again */
}

int stream_delay(const struct stream *s)
{
	int64_t tokens = tokens_now(s);

	if (tokens > 0)
		return 0;
	return (int)((uint64_t)-tokens * 1000 / s->mirror->bwlimit) + 1;
}

size_t stream_batched(const struct stream *s)
{
	return s->batch.len;
}

uint32_t stream_xid(struct stream *s)
{
	if (++s->xid >= UINT32_MAX / 2)
		s->xid = 1;
	return s->xid * 2 + s->tag;
}

uint32_t stream_request_id(struct stream *s)
{
	if (++s->request >= UINT32_MAX / 2)
		s->request = 1;
	return s->request * 2 + s->tag;
}

void stream_tag(struct stream *s, unsigned tag)
{
	s->tag = tag & 1;
}

const uint8_t *stream_key(const struct stream *s)
{
	return s->key;
}

struct stream_mark stream_mark(const struct stream *s)
{
	return (struct stream_mark){.batches = s->batches, .len = s->batch.len};
}

bool stream_rewind(struct stream *s, struct stream_mark mark)
{
	if (mark.batches != s->batches || mark.len > s->batch.len)
		return false;
	s->batch.len = mark.len;
	return true;
}

void stream_incompressible(struct stream *s, size_t n)
{
	s->incompressible += n;
}

uint8_t *stream_scratch(struct stream *s)
{
	return s->scratch;
}

const struct mirror *stream_mirror(const struct stream *s)
{
	return s->mirror;
}

void stream_stats(const struct stream *s, struct stream_stats *out)
{
	*out = (struct stream_stats){.sent = s->sent, .acked = s->acked, .batches = s->batches, .rate = s->rate};
}
