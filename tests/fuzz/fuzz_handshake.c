/* SPDX-License-Identifier: BSD-2-Clause
 * A connection and what is read before anybody has authenticated. The first byte chooses what the rest is:
 *
 *   0  what a client sends to the daemon
 *   1  what a server sends to the replicator
 *   2  an identity
 *   3  an identity, in a ClientHello that is well-formed otherwise
 *   4  what somebody between changes while the two shake hands: u8 direction, u16 offset, u8 xor each (255: nothing can be sent from there on)
 *   5  frames on a running connection: u8 (odd: their checksums are made to hold, if they come in one piece), then pieces as TLS hands them
 *      out, u16 length and bytes
 *
 * Nobody gets in who has no key, or whose words were changed. What is expensive and not ours is done once: OpenSSL's contexts, threads;
 * and there is no network: connect(2) gives one end of a pair. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/conn_int.h"
#include "proto/err.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/threads.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX 65536 /* bytes: what a socket's buffer takes, so that nobody waits */
#define PATIENCE  10000 /* ms; nothing here may take so long */

static const uint8_t reference[8] = {1, 2, 3};
static const uint8_t the_key[PSK_LEN] = {7};

/* --- OpenSSL --- */

SSL_CTX *__wrap_SSL_CTX_new(const SSL_METHOD *m);
SSL_CTX *__real_SSL_CTX_new(const SSL_METHOD *m);
SSL_CTX *__wrap_SSL_CTX_new(const SSL_METHOD *m)
{
	static SSL_CTX *made[2];
	bool server = m == TLS_server_method();

	if (made[server] == NULL)
		made[server] = __real_SSL_CTX_new(m);
	SSL_CTX_up_ref(made[server]);
	return made[server];
}

/* --- the network --- */

static int client_end = -1; /* what connect gives */

#define CHANGES_MAX 8

/* Who changes what is sent; the daemon's direction, the replicator's. */
static struct wire {
	int fd; /* of whom sends here; -1: nobody between */
	size_t sent;
	bool changed, cut;
	unsigned n;
	struct {
		size_t at;
		uint8_t with;
	} v[CHANGES_MAX];
} wires[2] = {{.fd = -1}, {.fd = -1}};

int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t n);
int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t n)
{
	if (dup3(client_end, fd, O_CLOEXEC) < 0)
		abort();
	close(client_end);
	wires[1].fd = fd;
	return 0;
}

static int to_server(struct conn **c)
{
	struct conn_to to = {.host = "127.0.0.1", .port = 1, .user = "user", .module = "m", .key = the_key, .timeout_ms = PATIENCE};
	char why[512] = "";
	int r = conn_connect(c, &to, why, sizeof(why));

	if ((r == 0) != (*c != NULL) || (r == 0) != (*why == '\0'))
		abort();
	return r;
}

/* --- one side alone --- */

static bool asked;
static char user[PSK_IDENTITY_MAX], module[PSK_IDENTITY_MAX]; /* for whom */

static int find(void *arg, const char *u, const char *m, uint8_t key[PSK_LEN])
{
	if (strlen(u) + strlen(m) >= PSK_IDENTITY_MAX || *u == '\0')
		abort();
	asked = true;
	strcpy(user, u);
	strcpy(module, m);
	memcpy(key, the_key, PSK_LEN);
	return *m == 'x' ? E_AUTH : 0;
}

static void to_daemon(const uint8_t *data, size_t size)
{
	struct conn *c;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0 || write(fd[0], data, size) != (ssize_t)size)
		abort();
	shutdown(fd[0], SHUT_WR);
	if (conn_accept(&c, fd[1], reference, find, NULL, PATIENCE) == 0 || c != NULL)
		abort();
	close(fd[0]);
}

/* Returns what the client sent, at most max bytes. */
static size_t to_replicator(const uint8_t *data, size_t size, uint8_t *sent, size_t max)
{
	struct conn *c;
	ssize_t n;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0 || write(fd[0], data, size) != (ssize_t)size)
		abort();
	shutdown(fd[0], SHUT_WR);
	client_end = fd[1];
	if (to_server(&c) == 0)
		abort();
	n = recv(fd[0], sent, max, MSG_DONTWAIT);
	close(fd[0]);
	return n > 0 ? (size_t)n : 0;
}

static void identity(const uint8_t *data, size_t size)
{
	char u[PSK_IDENTITY_MAX], m[PSK_IDENTITY_MAX];

	if (psk_split((const char *)data, size, u, m) != 0)
		return;
	if (*u == '\0' || strlen(u) + 1 + strlen(m) != size || memcmp(data, u, strlen(u)) != 0)
		abort();
}

/* --- a client of any name --- */

static void add_to(uint8_t *p, size_t bytes, size_t n)
{
	for (size_t i = bytes; i-- > 0; n >>= 8) {
		n += p[i];
		p[i] = (uint8_t)n;
	}
}

/* Replace "user/m" in a ClientHello of n bytes: it is in the last extension, and six lengths stand before it. Returns the new length. */
static size_t rename_client(uint8_t *hello, size_t n, const uint8_t *name, size_t len)
{
	static const char old[] = "user/m";
	const size_t more = len - 6; /* may wrap around, and back */
	uint8_t *id = memmem(hello, n, old, 6), *extensions = hello + 5 + 4 + 2 + 32;
	size_t rest;

	if (id == NULL)
		abort();
	extensions += 1 + *extensions;					      /* session id */
	extensions += 2 + ((size_t)extensions[0] << 8 | extensions[1]);	      /* ciphers */
	extensions += 1 + *extensions;					      /* compression */
	add_to(hello + 3, 2, more);
	add_to(hello + 6, 3, more);
	add_to(extensions, 2, more);
	add_to(id - 6, 2, more); /* the extension, the identities, the identity */
	add_to(id - 4, 2, more);
	add_to(id - 2, 2, more);
	rest = n - (size_t)(id - hello) - 6;
	memmove(id + len, id + 6, rest);
	memcpy(id, name, len);
	return n + more;
}

/* The names that the daemon asks for are those that psk_split finds, and no other identity gets so far. */
static void client_of_name(const uint8_t *name, size_t len)
{
	static uint8_t hello[4096];
	static size_t n;
	uint8_t changed[4096 + 2 * PSK_IDENTITY_MAX];
	char u[PSK_IDENTITY_MAX], m[PSK_IDENTITY_MAX];
	size_t size;
	int good;

	if (len < 1 || len > 2 * PSK_IDENTITY_MAX)
		return;
	if (n == 0)
		n = to_replicator((const uint8_t *)"TANDEM1\n\1\0\0\0\1\0\0\0reference", CONN_GREETING, hello, sizeof(hello));
	memcpy(changed, hello, n);
	size = rename_client(changed, n, name, len);
	asked = false;
	to_daemon(changed, size);
	good = psk_split((const char *)name, len, u, m);
	if (asked != (good == 0) || (asked && (strcmp(u, user) != 0 || strcmp(m, module) != 0)))
		abort();
}

/* --- two sides, and somebody between them --- */

ssize_t __wrap_send(int fd, const void *data, size_t n, int flags);
ssize_t __real_send(int fd, const void *data, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t n, int flags)
{
	struct wire *w = wires + (fd != wires[0].fd);
	uint8_t *copy;
	ssize_t r;

	if (w->fd != fd || fd < 0)
		return __real_send(fd, data, n, flags);
	copy = malloc(n);
	if (copy == NULL)
		abort();
	memcpy(copy, data, n);
	for (unsigned i = 0; i < w->n; i++) {
		if (w->v[i].at < w->sent || w->v[i].at - w->sent >= n)
			continue;
		copy[w->v[i].at - w->sent] ^= w->v[i].with;
		w->changed = true;
		w->cut |= w->v[i].with == 255;
	}
	r = w->cut ? -1 : __real_send(fd, copy, n, flags);
	w->sent += n;
	free(copy);
	if (w->changed)
		shutdown(fd, SHUT_WR); /* so that nobody waits for bytes that a changed length promises */
	if (w->cut)
		errno = EPIPE;
	return r;
}

static size_t handshake[2]; /* bytes of it in each direction */

static void *client_main(void *arg)
{
	struct conn *c;
	int r = to_server(&c);

	if (handshake[1] == 0)
		handshake[1] = wires[1].sent;
	conn_close(c);
	*(int *)arg = r;
	return NULL;
}

/* Whatever was changed, the daemon lets nobody in; whatever the daemon's words were changed to, the replicator does not believe them. */
static void shake_hands(void)
{
	int fd[2], client = -1, server;
	struct conn *c;
	pthread_t t;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0)
		abort();
	wires[0].fd = fd[0];
	client_end = fd[1];
	if (pthread_create(&t, NULL, client_main, &client) != 0)
		abort();
	server = conn_accept(&c, fd[0], reference, find, NULL, PATIENCE);
	if (server == 0 && (strcmp(conn_user(c), "user") != 0 || strcmp(conn_module(c), "m") != 0))
		abort();
	if (handshake[0] == 0)
		handshake[0] = wires[0].sent;
	conn_close(c);
	pthread_join(t, NULL);
	wires[0].fd = -1;
	if ((server == 0) == (wires[0].changed || wires[1].changed) || (client == 0 && wires[0].changed) ||
	    (client != 0 && server == 0) || server == E_TIMEOUT || client == E_TIMEOUT)
		abort();
}

static void change_on_the_way(struct input in)
{
	memset(wires, 0, sizeof(wires));
	if (handshake[0] == 0)
		shake_hands();
	memset(wires, 0, sizeof(wires));
	while (in.left > 3) {
		unsigned to = (unsigned)input_number(&in, 1) % 2;
		struct wire *w = wires + to;
		size_t at = input_number(&in, 2) % handshake[to];
		size_t record = to == 0 ? CONN_GREETING : 0; /* the first: its version has no meaning (RFC 8446, 5.1) */
		uint8_t with = at == record + 1 || at == record + 2 ? 0 : (uint8_t)input_number(&in, 1);

		for (unsigned i = 0; i < w->n; i++)
			if (w->v[i].at == at)
				with = 0; /* two might cancel out */
		if (with == 0 || w->n == CHANGES_MAX)
			continue;
		w->v[w->n].at = at;
		w->v[w->n++].with = with;
	}
	shake_hands();
}

/* --- a running connection, without TLS --- */

static struct input stream; /* for c->ssl NULL */
static int stream_error;

int __wrap_SSL_read_ex(SSL *ssl, void *p, size_t max, size_t *n);
int __real_SSL_read_ex(SSL *ssl, void *p, size_t max, size_t *n);
int __wrap_SSL_read_ex(SSL *ssl, void *p, size_t max, size_t *n)
{
	size_t piece;

	if (ssl != NULL)
		return __real_SSL_read_ex(ssl, p, max, n);
	piece = input_number(&stream, 2);
	stream_error = stream.left == 0 ? SSL_ERROR_ZERO_RETURN : SSL_ERROR_WANT_READ;
	if (piece == 0xffff)
		stream_error = SSL_ERROR_SSL;
	*n = piece < max ? piece : max;
	*n = *n < stream.left ? *n : stream.left;
	if (*n == 0 || piece == 0xffff)
		return 0;
	memcpy(p, stream.p, *n);
	stream.p += *n;
	stream.left -= *n;
	return 1;
}

/* Every other write is refused. */
int __wrap_SSL_write_ex(SSL *ssl, const void *p, size_t n, size_t *done);
int __real_SSL_write_ex(SSL *ssl, const void *p, size_t n, size_t *done);
int __wrap_SSL_write_ex(SSL *ssl, const void *p, size_t n, size_t *done)
{
	static bool full;

	if (ssl != NULL)
		return __real_SSL_write_ex(ssl, p, n, done);
	full = !full;
	stream_error = SSL_ERROR_WANT_WRITE;
	*done = n < 100 ? n : 100;
	return !full;
}

int __wrap_SSL_get_error(const SSL *ssl, int r);
int __real_SSL_get_error(const SSL *ssl, int r);
int __wrap_SSL_get_error(const SSL *ssl, int r)
{
	return ssl != NULL ? __real_SSL_get_error(ssl, r) : stream_error;
}

/* Give every frame a checksum that holds. */
static void mend(uint8_t *p, size_t n)
{
	while (n >= FRAME_HEADER) {
		uint32_t len, sum;

		memcpy(&len, p, 4);
		if (len > n - FRAME_HEADER)
			return;
		sum = (uint32_t)XXH3_64bits(p + FRAME_HEADER, len);
		memcpy(p + 12, &sum, 4);
		p += FRAME_HEADER + len;
		n -= FRAME_HEADER + len;
	}
}

/* Take what has come and send it back. Returns what conn_get said last. */
static int answer(struct conn *c)
{
	struct buf payload;
	uint8_t type;
	int r;

	while ((r = conn_get(c, &type, &payload)) == 1)
		if (payload.len < 65536 &&
		    (conn_put(c, type, payload.data, payload.len, COMPRESS_ZLIB) != 0 || conn_queued(c) < FRAME_HEADER))
			abort();
	if (r != 0 && conn_get(c, &type, &payload) != r)
		abort();
	return r;
}

static void frames(struct input in)
{
	struct conn *c = conn_new(-1, true);
	bool mended = input_number(&in, 1) % 2;
	size_t n = in.left;
	uint8_t *copy = input_bytes(&in, &n);
	int r;

	if (mended && n > 2)
		mend(copy + 2, n - 2);
	stream = (struct input){copy, n};
	if (c == NULL)
		abort();
	c->open = true;
	do {
		r = conn_io(c);
		if (answer(c) < 0)
			break;
		(void)conn_events(c);
	} while (r == 0);
	if (r != 0 && (conn_io(c) != r || !conn_pending(c)))
		abort();
	c->open = false;
	conn_close(c);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t waste[4096];

	if (size < 1 || size > INPUT_MAX)
		return 0;
	switch (data[0] % 6) {
	case 0:
		to_daemon(data + 1, size - 1);
		break;
	case 1:
		to_replicator(data + 1, size - 1, waste, sizeof(waste));
		break;
	case 2:
		identity(data + 1, size - 1);
		break;
	case 3:
		client_of_name(data + 1, size - 1);
		break;
	case 4:
		change_on_the_way((struct input){data + 1, size - 1});
		break;
	default:
		frames((struct input){data + 1, size - 1});
	}
	return 0;
}
