/* SPDX-License-Identifier: BSD-2-Clause
 * How a connection comes about: TCP, greeting, TLS 1.3 with an external pre-shared key.
 *
 * Both sides have nothing but the key, so the handshake authenticates both: the client's binder and the
 * server's Finished can only be made with it. Certificates, tickets, renegotiation and every cipher but one
 * are off. A name the server does not know gets a random key: its handshake fails with the same alert as a
 * wrong password's. */
#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "proto/conn_int.h"
#include "proto/err.h"
#include "proto/hex.h"
#include "proto/resolve.h"

#define GREETING_MAGIC "TANDEM1\n"
#define MAGIC_LEN      8
#define CIPHER	       "TLS_AES_128_GCM_SHA256"
#define NOTSENT_LOWAT                                                                                        \
	(128 << 10) /* bytes the kernel may hold unsent: live changes must not queue behind bulk */
#define READ_AHEAD    (64u << 10) /* bytes */
#define KEEP_IDLE     30	  /* s before the first keepalive */
#define KEEP_INTERVAL 10	  /* s */
#define KEEP_COUNT    3

struct where {
	const char *host;
	int port;
	char *why;
	size_t size;
};

/* Say what went wrong with the server w. Returns err. */
static int __attribute__((format(printf, 3, 4))) fail(const struct where *w, int err, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (w->size == 0)
		return err;
	n = snprintf(w->why, w->size, "%s port %d: ", w->host, w->port);
	if (n < 0 || (size_t)n >= w->size)
		return err;
	va_start(ap, fmt);
	vsnprintf(w->why + n, w->size - (size_t)n, fmt, ap);
	va_end(ap);
	return err;
}

/* --- TLS --- */

static SSL_SESSION *psk_session(SSL *ssl, const uint8_t key[PSK_LEN])
{
	static const unsigned char suite[2] = {0x13, 0x01};
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, suite);
	SSL_SESSION *s = SSL_SESSION_new();

	if (s == NULL)
		return NULL;
	if (cipher == NULL || SSL_SESSION_set1_master_key(s, key, PSK_LEN) != 1 ||
	    SSL_SESSION_set_cipher(s, cipher) != 1 ||
	    SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION) != 1) {
		SSL_SESSION_free(s);
		return NULL;
	}
	return s;
}

static int psk_use(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *len, SSL_SESSION **sess)
{
	struct conn *c = SSL_get_app_data(ssl);

	(void)md; /* the one cipher we offer has the one hash */
	*sess = psk_session(ssl, c->key);
	*id = (const unsigned char *)c->identity;
	*len = strlen(c->identity);
	return *sess != NULL;
}

static int psk_find(SSL *ssl, const unsigned char *id, size_t len, SSL_SESSION **sess)
{
	struct conn *c = SSL_get_app_data(ssl);
	uint8_t key[PSK_LEN];

	if (psk_split((const char *)id, len, c->user, c->module) != 0 ||
	    c->find(c->find_arg, c->user, c->module, key) != 0) {
		if (getrandom(key, sizeof(key), 0) != sizeof(key))
			return 0;
	}
	*sess = psk_session(ssl, key);
	OPENSSL_cleanse(key, sizeof(key));
	return *sess != NULL;
}

static SSL_CTX *tls_context(bool server)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (ctx == NULL)
		return NULL;
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, CIPHER) != 1 ||
	    SSL_CTX_set1_groups_list(ctx, "X25519:P-256") != 1) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
	if (server) {
		SSL_CTX_set_psk_find_session_callback(ctx, psk_find);
	} else {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER,
				   NULL); /* no authority is known: no certificate will do */
		SSL_CTX_set_psk_use_session_callback(ctx, psk_use);
	}
	return ctx;
}

static int tls_init(struct conn *c)
{
	c->ctx = tls_context(c->server);
	if (c->ctx == NULL || (c->ssl = SSL_new(c->ctx)) == NULL)
		return -ENOMEM;
	SSL_set_app_data(c->ssl, c);
	return conn_attach(c);
}

/* An error of the handshake as one of ours. The two sides of a wrong key are a failed binder (server) and an
 * alert (client). */
static int tls_reason(const struct conn *c, int ssl_error)
{
	int reason = ERR_GET_REASON(ERR_peek_error());

	if (ssl_error == SSL_ERROR_SSL) {
		switch (reason) {
		case SSL_R_BINDER_DOES_NOT_VERIFY:
		case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER:
		case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
		case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
		case SSL_AD_REASON_OFFSET + SSL_AD_UNKNOWN_PSK_IDENTITY:
			return E_AUTH;
		default:
			return E_PROTO;
		}
	}
	return c->sys_err != 0 ? -c->sys_err : -ECONNRESET;
}

static int tls_handshake(struct conn *c, int64_t deadline)
{
	for (;;) {
		short events = 0;
		int r, e;

		ERR_clear_error();
		r = SSL_do_handshake(c->ssl);
		e = SSL_get_error(c->ssl, r);
		if (r != 1 && e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
			r = tls_reason(c, e);
			ERR_clear_error();
			conn_flush(c); /* the alert: the peer must learn why */
			return r;
		}
		if (conn_flush(c) != 0)
			return -c->sys_err;
		if (buf_left(&c->wire) > 0)
			events |= POLLOUT;
		if (r == 1 && events == 0)
			break;
		if (r != 1)
			events |= POLLIN;
		r = conn_wait(c->fd, events, c->cancelfd, deadline);
		if (r != 0)
			return r;
	}
	if (!SSL_session_reused(c->ssl)) /* whatever else succeeded, it was not our key */
		return E_AUTH;
	c->open = true;
	return 0;
}

/* --- sockets --- */

static void socket_options(int fd)
{
	const struct {
		int level, name, value;
	} v[] = {
	    {IPPROTO_TCP, TCP_NODELAY, 1},
	    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT},
	    {SOL_SOCKET, SO_KEEPALIVE, 1},
	    {IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE},
	    {IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL},
	    {IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT},
	};

	/* They make it faster; a connection without them (a test's socketpair) is still one. */
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		(void)setsockopt(fd, v[i].level, v[i].name, &v[i].value, sizeof(v[i].value));
}

static int socket_connect(const struct addrinfo *a, int cancelfd, int64_t deadline)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0, r;
	socklen_t len = sizeof(err);

	if (fd < 0)
		return -errno;
	if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
		return fd;
	r = errno == EINPROGRESS ? conn_wait(fd, POLLOUT, cancelfd, deadline) : -errno;
	if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
		r = -errno;
	if (r == 0)
		r = -err;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int find_addresses(const struct where *w, int cancelfd, int64_t deadline, struct addrinfo **list)
{
	size_t n = strlen(w->host);
	char host[NI_MAXHOST];
	int gai, r;

	if (n >= 2 && w->host[0] == '[' && w->host[n - 1] == ']')
		snprintf(host, sizeof(host), "%.*s", (int)n - 2, w->host + 1);
	else
		snprintf(host, sizeof(host), "%s", w->host);
	r = resolve(list, host, w->port, cancelfd, deadline, &gai);
	if (r == 0 || r == -ECANCELED)
		return r;
	if (r == E_TIMEOUT)
		return fail(w, r, "cannot resolve the name: the name service does not answer");
	if (gai == 0)
		return fail(w, r, "cannot resolve the name: %s", err_text(r));
	return fail(w, r, "cannot resolve the name: %s; check the target's URL and the name service", gai_strerror(gai));
}

static const char *connect_remedy(int err)
{
	switch (err) {
	case -ECONNREFUSED:
		return "; is tandemd running there?";
	case E_TIMEOUT:
		return "; is the host up, and does a firewall drop this port?";
	case -ENETUNREACH:
	case -EHOSTUNREACH:
		return "; check the route to this host";
	default:
		return "";
	}
}

/* Try the addresses of the host, each with its share of the time that is left. */
static int dial(const struct where *w, int cancelfd, int64_t deadline)
{
	struct addrinfo *list, *a;
	int r = find_addresses(w, cancelfd, deadline, &list), naddr = 0;

	if (r != 0)
		return r;
	for (a = list; a != NULL; a = a->ai_next)
		naddr++;
	r = -EHOSTUNREACH;
	for (a = list; a != NULL; a = a->ai_next) {
		int64_t now = conn_now();

		r = socket_connect(a, cancelfd, now + (deadline - now) / naddr--);
		if (r >= 0 || r == -ECANCELED)
			break;
	}
	freeaddrinfo(list);
	if (r < 0)
		return fail(w, r, "cannot connect: %s%s", err_text(r), connect_remedy(r));
	return r;
}

/* --- greeting --- */

static int no_greeting(const struct where *w, const uint8_t *g, size_t n)
{
	const char *who = "no module daemon of tandemfs";

	if (n >= 1 && g[0] == '@')
		who = "what looks like an rsync daemon";
	else if (n >= 1 && g[0] == 'S')
		who = "what looks like an SSH server";
	return fail(w, E_PROTO, "%s answers there; is the port that of tandemd?", who);
}

static int greeting_read(struct conn *c, const struct where *w, int64_t deadline, uint8_t g[CONN_GREETING])
{
	size_t have = 0;

	while (have < CONN_GREETING) {
		ssize_t n = recv(c->fd, g + have, CONN_GREETING - have, MSG_DONTWAIT);
		int r;

		if (n == 0)
			return fail(w, -ECONNRESET,
				    "closed the connection before its greeting; see tandemd's log there");
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return fail(w, -errno, "no greeting: %s", strerror(errno));
		if (n > 0) {
			have += (size_t)n;
			c->received += (uint64_t)n;
			if (memcmp(g, GREETING_MAGIC, have < MAGIC_LEN ? have : MAGIC_LEN) != 0)
				return no_greeting(w, g, have);
			continue;
		}
		r = conn_wait(c->fd, POLLIN, c->cancelfd, deadline);
		if (r != 0)
			return fail(w, r, "accepted the connection but sent no greeting in time");
	}
	return 0;
}

/* Read the greeting; reference gets 16 hex digits. */
static int greeting_take(struct conn *c, const struct where *w, int64_t deadline, char reference[17])
{
	uint8_t g[CONN_GREETING];
	struct buf b;
	uint32_t low, high;
	int r = greeting_read(c, w, deadline, g);

	if (r != 0)
		return r;
	buf_view(&b, g + MAGIC_LEN, CONN_GREETING - MAGIC_LEN);
	low = buf_get_u32(&b);
	high = buf_get_u32(&b);
	hex_put(reference, g + CONN_REFERENCE_OFF, 8);
	if (low > CONN_VERSION || high < CONN_VERSION)
		return fail(w, E_VERSION,
			    "speaks protocol versions %u to %u, this side %d; upgrade the older one", low,
			    high, CONN_VERSION);
	return 0;
}

static int greeting_send(struct conn *c, const uint8_t reference[8])
{
	buf_put(&c->wire, GREETING_MAGIC, MAGIC_LEN);
	buf_put_u32(&c->wire, CONN_VERSION);
	buf_put_u32(&c->wire, CONN_VERSION);
	buf_put(&c->wire, reference, 8);
	return c->wire.err != 0 ? c->wire.err : conn_flush(c);
}

/* --- the two ways in --- */

static int client_open(struct conn *c, const struct where *w, int64_t deadline)
{
	char reference[17] = "";
	int r = greeting_take(c, w, deadline, reference);

	if (r != 0)
		return r;
	r = tls_init(c);
	if (r != 0)
		return fail(w, r, "cannot set up TLS: %s", err_text(r));
	SSL_set_connect_state(c->ssl);
	r = tls_handshake(c, deadline);
	if (r == E_AUTH)
		return fail(w, r,
			    "refused user \"%s\" for module \"%s\": the user, the module or the password is "
			    "wrong; tandemd's log there "
			    "says which under reference %s",
			    c->user, c->module, reference);
	if (r != 0)
		return fail(w, r, "TLS handshake failed: %s (reference %s in tandemd's log there)",
			    err_text(r), reference);
	return 0;
}

int conn_connect(struct conn **out, const struct conn_to *to, char *why, size_t size)
{
	struct where w = {.host = to->host, .port = to->port, .why = why, .size = size};
	int64_t deadline = conn_now() + to->timeout_ms;
	struct conn *c;
	int fd, r;

	*out = NULL;
	if (size > 0)
		why[0] = '\0';
	if (*to->user == '\0' || strlen(to->user) + 1 + strlen(to->module) >= PSK_IDENTITY_MAX)
		return fail(&w, E_AUTH, "the target's URL needs a user: tandem://USER@HOST/MODULE");
	fd = dial(&w, to->cancelfd, deadline);
	if (fd < 0)
		return fd;
	c = conn_new(fd, false);
	if (c == NULL) {
		close(fd);
		return fail(&w, -ENOMEM, "no memory");
	}
	socket_options(fd);
	snprintf(c->user, sizeof(c->user), "%s", to->user);
	snprintf(c->module, sizeof(c->module), "%s", to->module);
	snprintf(c->identity, sizeof(c->identity), "%s/%s", to->user, to->module);
	memcpy(c->key, to->key, PSK_LEN);
	c->cancelfd = to->cancelfd;
	r = client_open(c, &w, deadline);
	OPENSSL_cleanse(c->key, sizeof(c->key));
	if (r != 0) {
		conn_close(c);
		return r;
	}
	*out = c;
	return 0;
}

int conn_prepare(void)
{
	SSL_CTX *ctx = tls_context(true);

	if (ctx == NULL)
		return -ENOMEM;
	SSL_CTX_free(ctx);
	return 0;
}

int conn_accept(struct conn **out, int fd, const uint8_t reference[8], conn_psk_fn find, void *arg,
		int timeout_ms)
{
	int64_t deadline = conn_now() + timeout_ms;
	struct conn *c = conn_new(fd, true);
	int r;

	*out = NULL;
	if (c == NULL) {
		close(fd);
		return -ENOMEM;
	}
	socket_options(fd);
	c->find = find;
	c->find_arg = arg;
	r = greeting_send(c, reference);
	if (r == 0)
		r = tls_init(c);
	if (r == 0) {
		SSL_set_accept_state(c->ssl);
		r = tls_handshake(c, deadline);
	}
	if (r != 0) {
		conn_close(c);
		return r;
	}
	*out = c;
	return 0;
}
