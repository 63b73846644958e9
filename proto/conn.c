/* SPDX-License-Identifier: BSD-2-Clause
 * Frames on a running connection.
 *
 * Bytes on their way out pass two buffers: conn_put appends frames to `out`; conn_io encrypts from it into
 * `wire`, several frames to a TLS record, and sends `wire` in large pieces. `wire` is kept short, so that a
 * frame put now overtakes nothing but is not stuck behind megabytes either; TCP_NOTSENT_LOWAT does the same
 * in the kernel.
 *
 * On the way in OpenSSL reads ahead 64 KiB at a time; conn_io decrypts into `in` until the socket is empty, a
 * budget is used up (`more` is set) or enough is there that the owner should take first. conn_get only moves
 * along `in`, the next conn_io makes the space free.
 *
 * A connection ends once: `err` is set and stays. Frames that arrived before the end are delivered first: a
 * REFUSE followed by a close must reach the operator. */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>

#include "proto/conn_int.h"
#include "proto/err.h"

#define OUT_MAX	    (64u << 20)	 /* bytes queued by conn_put */
#define WIRE_HIGH   (128u << 10) /* encrypted bytes kept while the socket is full */
#define IN_HIGH	    (1u << 20)	 /* decrypted bytes beyond which the owner must take frames first */
#define IN_MAX	    (FRAME_HEADER + FRAME_MAX + 2 * IN_HIGH)
#define READ_PIECE  (16u << 10) /* bytes: one TLS record */
#define WRITE_PIECE (64u << 10) /* bytes given to OpenSSL at once */
#define READ_BUDGET (1u << 20)	/* bytes read by one conn_io, so that writing gets its turn */
#define REKEY_AFTER (1u << 22)	/* records; AES-GCM wants a new key well before 2^24 (RFC 8446, 5.5) */
#define LINGER_MS   1000	/* a closing server waits so long for the client to read what was said last */

/* --- the socket below TLS --- */

int conn_flush(struct conn *c)
{
	while (buf_left(&c->wire) > 0) {
		ssize_t n =
		    send(c->fd, c->wire.data + c->wire.off, buf_left(&c->wire), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n < 0) {
			c->sys_err = errno;
			return -errno;
		}
		c->wire.off += (size_t)n;
		c->sent += (uint64_t)n;
	}
	buf_clear(&c->wire);
	return 0;
}

static int bio_write(BIO *b, const char *data, size_t n, size_t *done)
{
	struct conn *c = BIO_get_data(b);

	BIO_clear_retry_flags(b);
	if (buf_left(&c->wire) >= WIRE_HIGH) {
		if (conn_flush(c) != 0)
			return 0;
		if (buf_left(&c->wire) >= WIRE_HIGH) {
			BIO_set_retry_write(b);
			return 0;
		}
	}
	if (c->wire.off >= WIRE_HIGH)
		buf_compact(&c->wire);
	buf_put(&c->wire, data, n);
	if (c->wire.err != 0) {
		c->sys_err = ENOMEM;
		return 0;
	}
	*done = n;
	return 1;
}

static int bio_read(BIO *b, char *data, size_t n, size_t *done)
{
	struct conn *c = BIO_get_data(b);
	ssize_t got;

	BIO_clear_retry_flags(b);
	*done = 0;
	if (c->dry) {
		BIO_set_retry_read(b);
		return 0;
	}
	do
		got = recv(c->fd, data, n, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		c->received += (uint64_t)got;
		c->dry = c->open && (size_t)got < n;
		*done = (size_t)got;
		return 1;
	}
	if (got == 0)
		c->eof = true;
	else if (errno == EAGAIN || errno == EWOULDBLOCK)
		BIO_set_retry_read(b);
	else
		c->sys_err = errno;
	return 0;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	struct conn *c = BIO_get_data(b);

	switch (cmd) {
	case BIO_CTRL_FLUSH: /* done by the owner of the buffer, see conn_flush */
	case BIO_CTRL_PUSH:
	case BIO_CTRL_POP:
		return 1;
	case BIO_CTRL_EOF:
		return c->eof;
	default:
		return 0;
	}
}

int conn_attach(struct conn *c)
{
	BIO *b;

	c->meth = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 0x7e, "tandem connection");
	if (c->meth == NULL)
		return -ENOMEM;
	BIO_meth_set_write_ex(c->meth, bio_write);
	BIO_meth_set_read_ex(c->meth, bio_read);
	BIO_meth_set_ctrl(c->meth, bio_ctrl);
	b = BIO_new(c->meth);
	if (b == NULL)
		return -ENOMEM;
	BIO_set_data(b, c);
	BIO_set_init(b, 1);
	SSL_set_bio(c->ssl, b, b); /* takes b */
	return 0;
}

/* --- life --- */

int64_t conn_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int conn_wait(int fd, short events, int cancelfd, int64_t deadline)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = cancelfd, .events = POLLIN}};
		int64_t left = deadline - conn_now();
		int n;

		if (left <= 0)
			return E_TIMEOUT;
		n = poll(p, cancelfd > 0 ? 2 : 1, (int)left);
		if (n > 0)
			return p[1].revents != 0 ? -ECANCELED : 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

struct conn *conn_new(int fd, bool server)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->fd = fd;
	c->server = server;
	buf_init(&c->out, OUT_MAX);
	buf_init(&c->wire, (size_t)4 * WIRE_HIGH);
	buf_init(&c->in, IN_MAX);
	buf_init(&c->plain, FRAME_MAX);
	return c;
}

/* Closing a socket while unread bytes wait in it resets the connection, and the reset destroys what we said
 * last at the peer. So: end our direction, then read until the peer has closed too. */
static void conn_linger(struct conn *c)
{
	int64_t deadline = conn_now() + LINGER_MS;
	char waste[4096];
	ssize_t n;

	if (conn_flush(c) != 0 || shutdown(c->fd, SHUT_WR) != 0)
		return;
	while (conn_wait(c->fd, POLLIN, 0, deadline) == 0) {
		n = recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return;
	}
}

void conn_close(struct conn *c)
{
	if (c == NULL)
		return;
	if (c->open && c->err == 0 && c->sys_err == 0) {
		ERR_clear_error();
		SSL_shutdown(c->ssl);
		if (c->server)
			conn_linger(c);
		else
			conn_flush(c);
	}
	SSL_free(c->ssl);
	SSL_CTX_free(c->ctx);
	BIO_meth_free(c->meth);
	buf_release(&c->out);
	buf_release(&c->wire);
	buf_release(&c->in);
	buf_release(&c->plain);
	OPENSSL_cleanse(c->key, sizeof(c->key));
	close(c->fd);
	free(c);
}

const char *conn_user(const struct conn *c)
{
	return c->user;
}

const char *conn_module(const struct conn *c)
{
	return c->module;
}

int conn_fd(const struct conn *c)
{
	return c->fd;
}

/* --- frames --- */

/* Say whether conn_get has something to tell: a whole frame, or that the bytes are none. */
static bool frame_ready(const struct conn *c)
{
	int n = c->frame_err != 0 ? c->frame_err : frame_peek(&c->in);

	return n < 0 || (n > 0 && buf_left(&c->in) >= (size_t)n);
}

static bool may_read(const struct conn *c)
{
	return c->err == 0 && (buf_left(&c->in) < IN_HIGH || !frame_ready(c));
}

short conn_events(const struct conn *c)
{
	short events = 0;

	if (may_read(c))
		events |= POLLIN;
	if (c->err == 0 && conn_queued(c) > 0)
		events |= POLLOUT;
	return events;
}

bool conn_pending(const struct conn *c)
{
	return c->err != 0 || c->more || frame_ready(c);
}

int conn_put(struct conn *c, uint8_t type, const void *payload, size_t n, enum compress_method m)
{
	if (c->out.off > c->out.len / 2)
		buf_compact(&c->out);
	return frame_put(&c->out, type, payload, n, m);
}

size_t conn_queued(const struct conn *c)
{
	return buf_left(&c->out) + buf_left(&c->wire);
}

int conn_get(struct conn *c, uint8_t *type, struct buf *payload)
{
	int r = c->frame_err != 0 ? c->frame_err : frame_get(&c->in, &c->plain, type, payload);

	if (r < 0)
		c->frame_err = r;
	return r;
}

/* --- input and output --- */

/* Turn what OpenSSL says into an error of ours, 0 if it only wants to be called again. */
static int ssl_failure(struct conn *c, int r)
{
	switch (SSL_get_error(c->ssl, r)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return E_CLOSED;
	case SSL_ERROR_SSL:
		return E_PROTO;
	default:
		break;
	}
	if (c->sys_err == 0 || c->sys_err == EPIPE || c->sys_err == ECONNRESET)
		return E_CLOSED;
	return -c->sys_err;
}

static int read_some(struct conn *c)
{
	size_t budget = READ_BUDGET, n;
	uint8_t *p;
	int r;

	/* Moving costs what is left over, so move only when less than what was taken. */
	if (c->in.off >= buf_left(&c->in))
		buf_compact(&c->in);
	c->more = false;
	c->dry = false;
	while (may_read(c)) {
		if (budget < READ_PIECE) {
			c->more = true;
			return 0;
		}
		p = buf_reserve(&c->in, READ_PIECE);
		if (p == NULL && c->in.off > 0) {
			c->in.err = 0;
			buf_compact(&c->in);
			p = buf_reserve(&c->in, READ_PIECE);
		}
		if (p == NULL)
			return c->in.err;
		ERR_clear_error();
		r = SSL_read_ex(c->ssl, p, READ_PIECE, &n);
		if (r != 1)
			return ssl_failure(c, r);
		c->in.len += n;
		budget -= n;
	}
	return 0;
}

/* TLS 1.3 lets one side take a new key by itself; the other follows without our doing. */
static void rekey(struct conn *c, size_t n)
{
	c->records += (uint32_t)((n + READ_PIECE - 1) / READ_PIECE);
	if (c->records < REKEY_AFTER)
		return;
	if (SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
		c->records = 0;
}

static int write_some(struct conn *c)
{
	size_t n;
	int r;

	while (buf_left(&c->out) > 0) {
		n = buf_left(&c->out) < WRITE_PIECE ? buf_left(&c->out) : WRITE_PIECE;
		ERR_clear_error();
		r = SSL_write_ex(c->ssl, c->out.data + c->out.off, n, &n);
		if (r != 1) {
			r = ssl_failure(c, r);
			if (r != 0)
				return r;
			break;
		}
		c->out.off += n;
		rekey(c, n);
	}
	if (buf_left(&c->out) == 0)
		buf_clear(&c->out);
	r = conn_flush(c);
	return r == -EPIPE || r == -ECONNRESET ? E_CLOSED : r;
}

int conn_io(struct conn *c)
{
	int r;

	if (c->err == 0 && (r = read_some(c)) != 0)
		c->err = r;
	if (c->err == 0 && (r = write_some(c)) != 0) {
		int last = read_some(c); /* the reason may have come before the end */

		c->err = last == E_PROTO ? E_PROTO : r;
	}
	return c->err != 0 && !frame_ready(c) ? c->err : 0;
}

int conn_drain(struct conn *c, int timeout_ms)
{
	int64_t deadline = conn_now() + timeout_ms;
	int r;

	for (;;) {
		r = conn_io(c);
		if (r == 0)
			r = c->err;
		if (r != 0 || conn_queued(c) == 0)
			return r;
		r = conn_wait(c->fd, (short)(c->more ? POLLOUT : conn_events(c)), 0, deadline);
		if (r != 0)
			return r;
	}
}

void conn_totals(const struct conn *c, uint64_t *sent, uint64_t *received)
{
	*sent = c->sent;
	*received = c->received;
}
