/* SPDX-License-Identifier: BSD-2-Clause
 * Connections over loopback: greeting, authentication, frames, deadlines, damage on the way. */
#include "config.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "proto/conn_int.h"
#include "proto/err.h"

#define TIMEOUT 10000 /* ms; generous: the machine may be busy */

static const uint8_t reference[8] = {0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4};
static uint8_t good_key[PSK_LEN] = "a key that is thirty-two bytes!";
static char why[512];

struct server {
	int lfd, port;
	int timeout;
	pthread_t thread;
	struct conn *c; /* what was accepted */
	int result;
};

static int find_key(void *arg, const char *user, const char *module, uint8_t key[PSK_LEN])
{
	if (strcmp(user, "alice") != 0 || strcmp(module, "data") != 0)
		return E_AUTH;
	memcpy(key, good_key, PSK_LEN);
	return 0;
}

static int listen_loopback(int *port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*port = ntohs(sin.sin_port);
	return fd;
}

static void *accept_one(void *arg)
{
	struct server *s = arg;
	int fd = accept(s->lfd, NULL, NULL);

	s->result = conn_accept(&s->c, fd, reference, find_key, NULL, s->timeout);
	return NULL;
}

static void server_start_for(struct server *s, int timeout)
{
	memset(s, 0, sizeof(*s));
	s->timeout = timeout;
	s->lfd = listen_loopback(&s->port);
	ck_assert_int_eq(pthread_create(&s->thread, NULL, accept_one, s), 0);
}

static void server_start(struct server *s)
{
	server_start_for(s, TIMEOUT);
}

static int server_join(struct server *s)
{
	pthread_join(s->thread, NULL);
	close(s->lfd);
	return s->result;
}

/* conn_connect; text has room for 512 bytes. */
static int dial(struct conn **c, const char *host, int port, const char *user, const char *module, const uint8_t *key, int timeout,
    char *text)
{
	struct conn_to to = {.host = host, .port = port, .user = user, .module = module, .key = key, .timeout_ms = timeout};

	return conn_connect(c, &to, text, sizeof(why));
}

/* Both ends of a good connection. */
static void connect_pair(struct conn **client, struct conn **server)
{
	struct server s;

	server_start(&s);
	ck_assert_msg(dial(client, "127.0.0.1", s.port, "alice", "data", good_key, TIMEOUT, why) == 0,
	    "%s", why);
	ck_assert_int_eq(server_join(&s), 0);
	*server = s.c;
}

/* Wait for one frame; returns what conn_get or conn_io said last. Lets `other` write meanwhile. */
static int next_frame(struct conn *c, struct conn *other, uint8_t *type, struct buf *payload)
{
	int64_t deadline = conn_now() + TIMEOUT;

	while (conn_now() < deadline) {
		struct pollfd p[2] = {{.fd = conn_fd(c), .events = POLLIN}, {.fd = conn_fd(other), .events = 0}};
		int r = conn_io(c);

		if (r != 0)
			return r;
		r = conn_get(c, type, payload);
		if (r != 0)
			return r;
		if (other != c) {
			r = conn_io(other);
			if (r != 0)
				return r;
			p[1].events = conn_events(other);
		}
		if (!conn_pending(c))
			poll(p, 2, 100);
	}
	return E_TIMEOUT;
}

START_TEST(both_ends_know_who_it_is)
{
	struct conn *a, *b;

	connect_pair(&a, &b);
	ck_assert_str_eq(conn_user(b), "alice");
	ck_assert_str_eq(conn_module(b), "data");
	ck_assert_str_eq(conn_user(a), "alice");
	conn_close(a);
	conn_close(b);
}
END_TEST

START_TEST(a_wrong_password_is_refused_on_both_sides)
{
	uint8_t bad[PSK_LEN] = {1};
	struct server s;
	struct conn *c;

	server_start(&s);
	ck_assert_int_eq(dial(&c, "127.0.0.1", s.port, "alice", "data", bad, TIMEOUT, why), E_AUTH);
	ck_assert_ptr_null(c);
	ck_assert_int_eq(server_join(&s), E_AUTH);
	ck_assert_ptr_nonnull(strstr(why, "alice"));
	ck_assert_ptr_nonnull(strstr(why, "data"));
	ck_assert_ptr_nonnull(strstr(why, "deadbeef01020304"));
}
END_TEST

START_TEST(an_unknown_user_looks_like_a_wrong_password)
{
	uint8_t bad[PSK_LEN] = {1};
	char first[512];
	struct server s;
	struct conn *c;
	char *from, *to;

	server_start(&s);
	ck_assert_int_eq(dial(&c, "127.0.0.1", s.port, "alice", "data", bad, TIMEOUT, first), E_AUTH);
	ck_assert_int_eq(server_join(&s), E_AUTH);
	server_start(&s);
	ck_assert_int_eq(dial(&c, "127.0.0.1", s.port, "mallo", "data", good_key, TIMEOUT, why), E_AUTH);
	ck_assert_int_eq(server_join(&s), E_AUTH);
	from = strstr(first, "module");
	to = strstr(why, "module");
	ck_assert_str_eq(from, to);
}
END_TEST

START_TEST(an_unknown_module_is_refused)
{
	struct server s;
	struct conn *c;

	server_start(&s);
	ck_assert_int_eq(dial(&c, "127.0.0.1", s.port, "alice", "other", good_key, TIMEOUT, why), E_AUTH);
	ck_assert_int_eq(server_join(&s), E_AUTH);
}
END_TEST

/* A server that says `text` (n bytes) and keeps the connection open. */
struct impostor {
	int lfd, port, fd;
	const void *text;
	size_t n;
	pthread_t thread;
};

static void *impostor_main(void *arg)
{
	struct impostor *m = arg;

	m->fd = accept(m->lfd, NULL, NULL);
	if (m->n > 0 && send(m->fd, m->text, m->n, MSG_NOSIGNAL) < 0)
		return NULL;
	return NULL;
}

static void *impostor_gone(void *arg)
{
	struct impostor *m = arg;

	close(accept(m->lfd, NULL, NULL));
	return NULL;
}

static void *impostor_reset(void *arg)
{
	struct impostor *m = arg;
	struct linger now = {.l_onoff = 1};
	int fd = accept(m->lfd, NULL, NULL);

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
	return NULL;
}

static int meet_impostor(const void *text, size_t n, int timeout)
{
	struct impostor m = {.text = text, .n = n};
	struct conn *c;
	int r;

	m.lfd = listen_loopback(&m.port);
	ck_assert_int_eq(pthread_create(&m.thread, NULL, impostor_main, &m), 0);
	r = dial(&c, "127.0.0.1", m.port, "alice", "data", good_key, timeout, why);
	ck_assert_ptr_null(c);
	pthread_join(m.thread, NULL);
	close(m.fd);
	close(m.lfd);
	return r;
}

START_TEST(an_rsync_daemon_is_recognised_at_once)
{
	int64_t start = conn_now();

	ck_assert_int_eq(meet_impostor("@RSYNCD: 31.0\n", 14, TIMEOUT), E_PROTO);
	ck_assert_ptr_nonnull(strstr(why, "rsync"));
	ck_assert_int_lt(conn_now() - start, TIMEOUT / 2);
}
END_TEST

START_TEST(garbage_for_a_greeting_is_refused)
{
	uint8_t noise[64];

	memset(noise, 0xa5, sizeof(noise));
	ck_assert_int_eq(meet_impostor(noise, sizeof(noise), TIMEOUT), E_PROTO);
}
END_TEST

START_TEST(a_newer_protocol_is_named)
{
	static const char greeting[] = "TANDEM1\n\x02\0\0\0\x05\0\0\0abcdefg";

	ck_assert_int_eq(meet_impostor(greeting, CONN_GREETING, TIMEOUT), E_VERSION);
	ck_assert_ptr_nonnull(strstr(why, "2 to 5"));
}
END_TEST

START_TEST(garbage_for_tls_is_refused)
{
	static const char greeting[] = "TANDEM1\n\x01\0\0\0\x01\0\0\0abcdefgh this is no TLS record at all, is it?";

	ck_assert_int_eq(meet_impostor(greeting, sizeof(greeting), TIMEOUT), E_PROTO);
}
END_TEST

START_TEST(a_server_that_closes_without_a_greeting_is_told_apart)
{
	struct impostor m = {.n = 0};
	struct conn *c;

	m.lfd = listen_loopback(&m.port);
	ck_assert_int_eq(pthread_create(&m.thread, NULL, impostor_gone, &m), 0);
	ck_assert_int_eq(dial(&c, "[127.0.0.1]", m.port, "alice", "data", good_key, TIMEOUT, why), -ECONNRESET);
	ck_assert_ptr_nonnull(strstr(why, "greeting"));
	pthread_join(m.thread, NULL);
	close(m.lfd);
}
END_TEST

START_TEST(a_server_that_resets_says_so)
{
	struct impostor m = {.text = "", .n = 0};
	struct conn *c;

	m.lfd = listen_loopback(&m.port);
	ck_assert_int_eq(pthread_create(&m.thread, NULL, impostor_reset, &m), 0);
	ck_assert_int_eq(dial(&c, "127.0.0.1", m.port, "alice", "data", good_key, TIMEOUT, why), -ECONNRESET);
	/* while we connect, or after that */
	ck_assert_msg(strstr(why, "greeting") != NULL || strstr(why, "cannot connect") != NULL, "%s", why);
	pthread_join(m.thread, NULL);
	close(m.lfd);
}
END_TEST

START_TEST(a_target_needs_a_user)
{
	static char long_name[PSK_IDENTITY_MAX + 1];
	struct conn *c;

	memset(long_name, 'x', PSK_IDENTITY_MAX);
	ck_assert_int_eq(dial(&c, "127.0.0.1", 1, "", "data", good_key, TIMEOUT, why), E_AUTH);
	ck_assert_int_eq(dial(&c, "127.0.0.1", 1, "alice", long_name, good_key, TIMEOUT, why), E_AUTH);
	ck_assert_ptr_null(c);
}
END_TEST

START_TEST(a_silent_server_costs_the_deadline_and_no_more)
{
	int64_t start = conn_now();

	ck_assert_int_eq(meet_impostor("", 0, 300), E_TIMEOUT);
	ck_assert_int_ge(conn_now() - start, 290);
	ck_assert_int_lt(conn_now() - start, TIMEOUT / 2);
}
END_TEST

START_TEST(a_closed_port_says_what_to_look_at)
{
	struct conn *c;
	int port, fd = listen_loopback(&port);

	close(fd);
	ck_assert_int_eq(dial(&c, "127.0.0.1", port, "alice", "data", good_key, TIMEOUT, why),
	    -ECONNREFUSED);
	ck_assert_ptr_nonnull(strstr(why, "tandemd"));
}
END_TEST

START_TEST(a_name_nobody_knows_says_so)
{
	struct conn *c;

	ck_assert_int_lt(
	    dial(&c, "no host has blanks", 1, "alice", "data", good_key, TIMEOUT, why), 0);
	ck_assert_ptr_nonnull(strstr(why, "resolve"));
}
END_TEST

/* A name service that never answers, for one name. */
int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
	while ((hints->ai_flags & AI_NUMERICHOST) == 0 && strcmp(node, "silence.example") == 0)
		pause();
	return __real_getaddrinfo(node, service, hints, list);
}

START_TEST(a_silent_name_service_costs_the_deadline_and_no_more)
{
	struct conn *c;

	ck_assert_int_eq(dial(&c, "silence.example", 1, "alice", "data", good_key, 100, why), E_TIMEOUT);
	ck_assert_ptr_nonnull(strstr(why, "name service"));
}
END_TEST

/* Connect to host with a deadline that never comes, after it was given up. */
static int dial_cancelled(const char *host, int port)
{
	struct conn_to to = {.host = host, .port = port, .user = "alice", .module = "data", .key = good_key, .timeout_ms = INT_MAX};
	struct conn *c;
	int r;

	to.cancelfd = eventfd(1, EFD_CLOEXEC);
	r = conn_connect(&c, &to, why, sizeof(why));
	close(to.cancelfd);
	return r;
}

START_TEST(a_look_up_can_be_given_up)
{
	ck_assert_int_eq(dial_cancelled("silence.example", 1), -ECANCELED);
}
END_TEST

START_TEST(a_silent_server_can_be_given_up)
{
	int port, fd = listen_loopback(&port);

	ck_assert_int_eq(dial_cancelled("127.0.0.1", port), -ECANCELED);
	close(fd);
}
END_TEST

START_TEST(a_silent_client_is_dropped_at_the_deadline)
{
	int sv[2];
	struct conn *c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	ck_assert_int_eq(conn_accept(&c, sv[0], reference, find_key, NULL, 200), E_TIMEOUT);
	ck_assert_ptr_null(c);
	close(sv[1]);
}
END_TEST

static void *trickle(void *arg)
{
	static const uint8_t hello[] = {22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3};
	int fd = *(int *)arg;

	for (size_t i = 0; i < 200; i++) {
		if (send(fd, &hello[i % sizeof(hello)], 1, MSG_NOSIGNAL) < 0)
			break;
		poll(NULL, 0, 20);
	}
	return NULL;
}

START_TEST(a_client_that_trickles_is_dropped_at_the_deadline)
{
	int64_t start = conn_now();
	pthread_t t;
	struct conn *c;
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, trickle, &sv[1]), 0);
	ck_assert_int_lt(conn_accept(&c, sv[0], reference, find_key, NULL, 300), 0);
	ck_assert_int_lt(conn_now() - start, 3500); /* the trickle alone takes 4 s */
	pthread_join(t, NULL);
	close(sv[1]);
}
END_TEST

START_TEST(a_client_that_goes_away_is_an_error_not_a_hang)
{
	int sv[2];
	struct conn *c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	close(sv[1]);
	ck_assert_int_lt(conn_accept(&c, sv[0], reference, find_key, NULL, TIMEOUT), 0);
}
END_TEST

START_TEST(frames_arrive_in_order_and_whole)
{
	static uint8_t data[300000];
	struct conn *a, *b;
	struct buf p;
	uint8_t type;

	connect_pair(&a, &b);
	for (int i = 0; i < 30; i++) {
		memset(data, i, sizeof(data));
		ck_assert_int_eq(conn_put(a, (uint8_t)(i + 1), data, (size_t)i * 10000, (enum compress_method)(i % 3)), 0);
	}
	for (int i = 0; i < 30; i++) {
		ck_assert_int_eq(next_frame(b, a, &type, &p), 1);
		ck_assert_uint_eq(type, i + 1);
		ck_assert_uint_eq(p.len, i * 10000);
		ck_assert(p.len == 0 || (p.data[0] == i && p.data[p.len - 1] == i));
	}
	ck_assert_uint_eq(conn_queued(a), 0);
	conn_close(a);
	conn_close(b);
}
END_TEST

START_TEST(the_largest_frame_passes)
{
	uint8_t *data = malloc(FRAME_MAX);
	struct conn *a, *b;
	struct buf p;
	uint8_t type;

	for (size_t i = 0; i < FRAME_MAX; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	connect_pair(&a, &b);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(conn_put(a, 9, data, FRAME_MAX, COMPRESS_NONE), 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(next_frame(b, a, &type, &p), 1);
		ck_assert_uint_eq(p.len, FRAME_MAX);
		ck_assert_int_eq(memcmp(p.data, data, FRAME_MAX), 0);
	}
	conn_close(a);
	conn_close(b);
	free(data);
}
END_TEST

START_TEST(an_idle_connection_has_nothing_pending)
{
	struct conn *a, *b;
	struct buf p;
	uint8_t type;

	connect_pair(&a, &b);
	ck_assert_int_eq(conn_put(a, 1, "x", 1, COMPRESS_NONE), 0);
	ck_assert_int_eq(next_frame(b, a, &type, &p), 1);
	ck_assert_int_eq(conn_io(b), 0);
	ck_assert(!conn_pending(b));
	ck_assert_int_eq(conn_events(b), POLLIN);
	conn_close(a);
	conn_close(b);
}
END_TEST

START_TEST(a_reader_that_does_not_take_frames_stops_the_writer)
{
	static uint8_t data[262144];
	struct conn *a, *b;

	connect_pair(&a, &b);
	for (int i = 0; i < 128; i++)
		ck_assert_int_eq(conn_put(a, 1, data, sizeof(data), COMPRESS_NONE), 0);
	for (int i = 0; i < 2000; i++) {
		ck_assert_int_eq(conn_io(a), 0);
		ck_assert_int_eq(conn_io(b), 0);
	}
	ck_assert_uint_gt(conn_queued(a), 0);
	ck_assert_uint_lt(b->in.len, 4u << 20);
	ck_assert_int_eq(conn_events(b) & POLLIN, 0);
	conn_close(a);
	conn_close(b);
}
END_TEST

START_TEST(the_queue_has_a_limit)
{
	uint8_t *data = malloc(FRAME_MAX);
	struct conn *a, *b;
	int n = 0, r;

	connect_pair(&a, &b);
	while ((r = conn_put(a, 1, data, FRAME_MAX, COMPRESS_NONE)) == 0 && n < 100)
		n++;
	ck_assert_int_eq(r, E_LIMIT);
	conn_close(a);
	conn_close(b);
	free(data);
}
END_TEST

START_TEST(drain_gives_up_at_its_deadline)
{
	static uint8_t data[1u << 20];
	struct conn *a, *b;

	connect_pair(&a, &b);
	for (int i = 0; i < 32; i++)
		ck_assert_int_eq(conn_put(a, 1, data, sizeof(data), COMPRESS_NONE), 0);
	ck_assert_int_eq(conn_drain(a, 200), E_TIMEOUT);
	conn_close(a);
	conn_close(b);
}
END_TEST

/* What no conn_put makes: bytes straight into the queue of frames. */
static int send_raw(uint32_t sent, uint32_t expanded, uint32_t sum)
{
	struct conn *a, *b;
	struct buf p;
	uint8_t type;
	int r;

	connect_pair(&a, &b);
	buf_put_u32(&a->out, sent);
	buf_put_u32(&a->out, expanded);
	buf_put_u32(&a->out, 1);
	buf_put_u32(&a->out, sum);
	buf_put(&a->out, "0123456789", 10);
	r = next_frame(b, a, &type, &p);
	if (r < 0) /* the error stays */
		ck_assert_int_eq(conn_get(b, &type, &p), r);
	conn_close(a);
	conn_close(b);
	return r;
}

START_TEST(an_oversize_frame_ends_the_connection_at_its_header)
{
	ck_assert_int_eq(send_raw(FRAME_MAX + 1, FRAME_MAX + 1, 0), E_LIMIT);
}
END_TEST

START_TEST(a_wrong_checksum_ends_the_connection)
{
	ck_assert_int_eq(send_raw(10, 10, 12345), E_CHECKSUM);
}
END_TEST

START_TEST(a_frame_before_the_close_is_delivered_first)
{
	struct conn *a, *b;
	struct buf p;
	uint8_t type;

	connect_pair(&a, &b);
	ck_assert_int_eq(conn_put(a, 3, "refused", 7, COMPRESS_NONE), 0);
	ck_assert_int_eq(conn_drain(a, TIMEOUT), 0);
	conn_close(a);
	ck_assert_int_eq(next_frame(b, b, &type, &p), 1);
	ck_assert_uint_eq(type, 3);
	ck_assert_int_eq(next_frame(b, b, &type, &p), E_CLOSED);
	conn_close(b);
}
END_TEST

/* End a connection as a host does that knows nothing of it. */
static void reset(struct conn *c, struct conn *peer)
{
	struct linger now = {.l_onoff = 1};
	struct pollfd p = {.fd = conn_fd(peer)};

	ck_assert_int_eq(setsockopt(conn_fd(c), SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	c->err = E_CLOSED; /* so that nothing is said */
	conn_close(c);
	ck_assert_int_eq(poll(&p, 1, TIMEOUT), 1);
}

START_TEST(a_reset_is_an_end)
{
	struct conn *a, *b;

	connect_pair(&a, &b);
	reset(a, b);
	ck_assert_int_eq(conn_io(b), E_CLOSED);
	conn_close(b);
}
END_TEST

START_TEST(an_error_of_the_socket_is_handed_on)
{
	struct conn *a, *b;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	connect_pair(&a, &b);
	ck_assert_int_ge(dup2(null, conn_fd(b)), 0);
	ck_assert_int_eq(conn_io(b), -ENOTSOCK);
	close(null);
	conn_close(b);
	conn_close(a);
}
END_TEST

START_TEST(a_frame_before_a_reset_is_delivered_first)
{
	struct conn *a, *b;
	struct buf p;
	uint8_t type;

	connect_pair(&a, &b);
	ck_assert_int_eq(conn_put(a, 3, "refused", 7, COMPRESS_NONE), 0);
	ck_assert_int_eq(conn_drain(a, TIMEOUT), 0);
	reset(a, b);
	ck_assert_int_eq(conn_put(b, 4, "more", 4, COMPRESS_NONE), 0);
	ck_assert_int_eq(next_frame(b, b, &type, &p), 1);
	ck_assert_uint_eq(type, 3);
	ck_assert_int_eq(next_frame(b, b, &type, &p), E_CLOSED);
	conn_close(b);
}
END_TEST

/* As far as the kernel can be made to hold that much. */
START_TEST(a_flood_is_read_in_turns)
{
	uint8_t *data = calloc(1, FRAME_MAX);
	const int size = 8 << 20, turn = 1 << 20;
	struct conn *a, *b;

	connect_pair(&a, &b);
	(void)setsockopt(conn_fd(a), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	(void)setsockopt(conn_fd(b), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	ck_assert_int_eq(conn_put(a, 1, data, FRAME_MAX, COMPRESS_NONE), 0);
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(conn_io(a), 0);
	for (size_t had = 0; buf_left(&b->in) < FRAME_MAX; had = buf_left(&b->in)) {
		ck_assert_int_eq(conn_io(b), 0);
		ck_assert_uint_le(buf_left(&b->in) - had, (size_t)turn);
		ck_assert_int_eq(conn_io(a), 0);
	}
	conn_close(a);
	conn_close(b);
	free(data);
}
END_TEST

static void *close_it(void *arg)
{
	conn_close(arg);
	return NULL;
}

START_TEST(a_refusal_survives_a_client_that_keeps_sending)
{
	static uint8_t data[262144];
	struct conn *a, *b;
	pthread_t t;
	struct buf p;
	uint8_t type;

	connect_pair(&a, &b);
	for (int i = 0; i < 16; i++)
		ck_assert_int_eq(conn_put(a, 1, data, sizeof(data), COMPRESS_NONE), 0);
	ck_assert_int_eq(conn_io(a), 0);
	ck_assert_int_eq(conn_put(b, 3, "refused", 7, COMPRESS_NONE), 0);
	ck_assert_int_eq(conn_drain(b, TIMEOUT), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, close_it, b), 0); /* with data unread in its socket */
	ck_assert_int_eq(next_frame(a, a, &type, &p), 1);
	ck_assert_uint_eq(type, 3);
	conn_close(a);
	pthread_join(t, NULL);
}
END_TEST

/* --- damage on the way --- */

struct proxy {
	int lfd, port, to_port;
	size_t flip_at; /* byte of the client's stream in which a bit is turned */
	pthread_t thread;
};

static int dial_port(int port)
{
	struct sockaddr_in sin = {
	    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0 ? fd : -1;
}

static void *proxy_main(void *arg)
{
	struct proxy *x = arg;
	int c = accept(x->lfd, NULL, NULL), s = dial_port(x->to_port);
	size_t at = 0;
	uint8_t b[4096];

	for (;;) {
		struct pollfd p[2] = {{.fd = c, .events = POLLIN}, {.fd = s, .events = POLLIN}};
		ssize_t n;

		if (poll(p, 2, TIMEOUT) <= 0)
			break;
		for (int i = 0; i < 2; i++) {
			if (p[i].revents == 0)
				continue;
			n = recv(p[i].fd, b, sizeof(b), 0);
			if (n <= 0)
				goto out;
			if (i == 0 && x->flip_at >= at && x->flip_at < at + (size_t)n)
				b[x->flip_at - at] ^= 0x10;
			if (i == 0)
				at += (size_t)n;
			if (send(p[1 - i].fd, b, (size_t)n, MSG_NOSIGNAL) != n)
				goto out;
		}
	}
out:
	close(c);
	close(s);
	return NULL;
}

/* Send 200 KiB through a proxy that turns one bit; returns how the server's end ended, or the connect's error. */
static int through_proxy(size_t flip_at)
{
	static uint8_t data[200 << 10];
	struct proxy x = {.flip_at = flip_at};
	struct conn *a = NULL;
	struct server s;
	struct buf p;
	uint8_t type;
	int r;

	server_start_for(&s, 2000);
	x.to_port = s.port;
	x.lfd = listen_loopback(&x.port);
	ck_assert_int_eq(pthread_create(&x.thread, NULL, proxy_main, &x), 0);
	r = dial(&a, "127.0.0.1", x.port, "alice", "data", good_key, 2000, why);
	if (server_join(&s) != 0 && r == 0)
		r = s.result;
	if (r == 0) {
		conn_put(a, 1, data, sizeof(data), COMPRESS_NONE);
		r = next_frame(s.c, a, &type, &p);
	}
	conn_close(a);
	conn_close(s.c);
	pthread_join(x.thread, NULL);
	close(x.lfd);
	return r;
}

START_TEST(an_honest_proxy_changes_nothing)
{
	ck_assert_int_eq(through_proxy(SIZE_MAX), 1);
}
END_TEST

START_TEST(a_flipped_bit_in_the_stream_is_never_delivered)
{
	for (size_t at = 1000; at < 100000; at += 33000)
		ck_assert_int_lt(through_proxy(at), 0);
}
END_TEST

START_TEST(a_flipped_bit_in_the_handshake_is_never_accepted)
{
	for (size_t at = 0; at < 300; at += 37)
		ck_assert_int_lt(through_proxy(at), 0);
}
END_TEST

/* --- keys --- */

START_TEST(a_key_depends_on_user_and_password)
{
	uint8_t a[PSK_LEN], b[PSK_LEN], c[PSK_LEN], d[PSK_LEN];

	ck_assert_int_eq(psk_derive(a, "alice", "secret"), 0);
	ck_assert_int_eq(psk_derive(b, "alice", "secret"), 0);
	ck_assert_int_eq(psk_derive(c, "bob", "secret"), 0);
	ck_assert_int_eq(psk_derive(d, "alice", "Secret"), 0);
	ck_assert_int_eq(memcmp(a, b, PSK_LEN), 0);
	ck_assert_int_ne(memcmp(a, c, PSK_LEN), 0);
	ck_assert_int_ne(memcmp(a, d, PSK_LEN), 0);
	ck_assert_int_eq(psk_derive(a, "", "secret"), -EINVAL);
	ck_assert_int_eq(psk_derive(a, "alice", ""), -EINVAL);
}
END_TEST

START_TEST(identities_are_split_strictly)
{
	char user[PSK_IDENTITY_MAX], module[PSK_IDENTITY_MAX], longest[PSK_IDENTITY_MAX + 1];

	ck_assert_int_eq(psk_split("alice/data", 10, user, module), 0);
	ck_assert_str_eq(user, "alice");
	ck_assert_str_eq(module, "data");
	ck_assert_int_eq(psk_split("alice/", 6, user, module), 0);
	ck_assert_str_eq(module, "");
	ck_assert_int_eq(psk_split("/data", 5, user, module), E_PROTO);
	ck_assert_int_eq(psk_split("alice", 5, user, module), E_PROTO);
	ck_assert_int_eq(psk_split("a/b/c", 5, user, module), E_PROTO);
	ck_assert_int_eq(psk_split("a\0/b", 4, user, module), E_PROTO);
	ck_assert_int_eq(psk_split("a/b\n", 4, user, module), E_PROTO);
	memset(longest, 'a', sizeof(longest));
	longest[1] = '/';
	ck_assert_int_eq(psk_split(longest, PSK_IDENTITY_MAX, user, module), E_PROTO);
	ck_assert_int_eq(psk_split(longest, PSK_IDENTITY_MAX - 1, user, module), 0);
}
END_TEST

UNIT_MAIN("conn", both_ends_know_who_it_is, a_wrong_password_is_refused_on_both_sides,
    an_unknown_user_looks_like_a_wrong_password, an_unknown_module_is_refused, an_rsync_daemon_is_recognised_at_once,
    garbage_for_a_greeting_is_refused, a_newer_protocol_is_named, garbage_for_tls_is_refused,
    a_server_that_closes_without_a_greeting_is_told_apart, a_server_that_resets_says_so, a_target_needs_a_user,
    a_silent_server_costs_the_deadline_and_no_more, a_closed_port_says_what_to_look_at, a_name_nobody_knows_says_so,
    a_silent_name_service_costs_the_deadline_and_no_more, a_look_up_can_be_given_up, a_silent_server_can_be_given_up,
    a_silent_client_is_dropped_at_the_deadline, a_client_that_trickles_is_dropped_at_the_deadline,
    a_client_that_goes_away_is_an_error_not_a_hang, frames_arrive_in_order_and_whole, the_largest_frame_passes,
    an_idle_connection_has_nothing_pending, a_reader_that_does_not_take_frames_stops_the_writer, the_queue_has_a_limit,
    drain_gives_up_at_its_deadline, an_oversize_frame_ends_the_connection_at_its_header,
    a_wrong_checksum_ends_the_connection, a_frame_before_the_close_is_delivered_first,
    a_reset_is_an_end, an_error_of_the_socket_is_handed_on, a_frame_before_a_reset_is_delivered_first, a_flood_is_read_in_turns,
    a_refusal_survives_a_client_that_keeps_sending, an_honest_proxy_changes_nothing,
    a_flipped_bit_in_the_stream_is_never_delivered, a_flipped_bit_in_the_handshake_is_never_accepted,
    a_key_depends_on_user_and_password, identities_are_split_strictly)
