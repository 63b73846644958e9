/* SPDX-License-Identifier: BSD-2-Clause
 * Frames in and out of a session: see session_int.h. Received frames are copied into a queue, so that PING is
 * answered while an operation waits for space. The queue is bounded by the credit window. */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/log.h"
#include "replicator/module/session_int.h"

#define IN_MAX	      (SESSION_WINDOW + 2 * FRAME_MAX) /* bytes queued beyond which the peer ignores its credit */
#define IN_FRAMES_MAX (SESSION_WINDOW / 32)	       /* frames queued: no BATCH of a window is that short */

int64_t session_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void close_with(struct session *s, int err)
{
	if (!s->closed)
		s->closed = err;
}

void session_send(struct session *s, enum frame_type type, enum compress_method method)
{
	int err = s->reply.err ? s->reply.err
			       : conn_put(s->conn, (uint8_t)type, s->reply.data, s->reply.len, method);
	if (err)
		close_with(s, err);
}

static void send_u64(struct session *s, enum frame_type type, uint64_t v)
{
	uint8_t p[8];
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
	int err = conn_put(s->conn, (uint8_t)type, p, sizeof(p), COMPRESS_NONE);
	if (err)
		close_with(s, err);
}

/* Frames that are answered at once. */
static bool answer(struct session *s, uint8_t type, struct buf *payload)
{
	if (type != FT_PING && type != FT_PONG)
		return false;
	uint64_t token = buf_get_u64(payload);
	if (buf_end(payload))
		close_with(s, E_PROTO);
	else if (type == FT_PING)
		send_u64(s, FT_PONG, token);
	return true;
}

static void take(struct session *s, uint8_t type, struct buf *payload)
{
	s->last_in = session_now();
	if (s->state != SS_HELLO && answer(s, type, payload))
		return;
	bool room = s->in_bytes + payload->len <= IN_MAX && s->in_frames < IN_FRAMES_MAX;
	struct inframe *f = room ? malloc(sizeof(*f) + payload->len) : NULL;
	if (!f) {
		close_with(s, E_LIMIT);
		return;
	}
	f->type = type;
	f->len = (uint32_t)payload->len;
	if (f->len)
		memcpy(f->data, payload->data, f->len);
	s->in_bytes += f->len;
	s->in_frames++;
	STAILQ_INSERT_TAIL(&s->in, f, link);
}

static void take_signals(struct session *s)
{
	struct signalfd_siginfo si;
	while (s->sigfd >= 0 && read(s->sigfd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		s->stop = si.ssi_signo == SIGUSR1 ? WR_BUSY : WR_SHUTDOWN;
}

void session_intake(struct session *s)
{
	struct buf payload;
	uint8_t type;
	take_signals(s);
	if (s->closed)
		return;
	int err = conn_io(s->conn);
	int got;
	while ((got = conn_get(s->conn, &type, &payload)) > 0)
		take(s, type, &payload);
	if (got < 0)
		close_with(s, got);
	else if (err)
		close_with(s, err);
}

static void check_time(struct session *s)
{
	int64_t now = session_now();
	int64_t timeout = s->m ? s->m->timeout_s * 1000LL : 60000;
	if (s->state == SS_HELLO || s->state == SS_LIST) {
		if (now >= (s->state == SS_HELLO ? s->hello_by : s->list_by))
			close_with(s, E_TIMEOUT);
		return;
	}
	if (now - s->last_in > timeout)
		close_with(s, E_TIMEOUT);
	else if (now - s->last_in > timeout / 3 && now - s->last_ping > timeout / 3) {
		s->last_ping = now;
		send_u64(s, FT_PING, (uint64_t)now);
	}
}

void session_wait(struct session *s, int ms)
{
	struct pollfd p[3] = {
	    {.fd = conn_fd(s->conn), .events = conn_events(s->conn)},
	    {.fd = s->applying ? s->syncer.wake : -1, .events = POLLIN},
	    {.fd = s->sigfd, .events = POLLIN},
	};
	if (s->closed)
		p[0].fd = -1;
	if (!conn_pending(s->conn) || s->closed)
		poll(p, 3, ms);
	session_intake(s);
	check_time(s);
}

void session_refuse(struct session *s, uint32_t code, const char *fmt, ...)
{
	char text[1024];
	struct wfail f = {.code = code, .path = "", .path2 = "", .text = text};
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (code == WR_SHUTDOWN)
		log_info("%s: %s", s->env.peer, text);
	else
		log_warn("%s refused (%s): %s", s->env.peer, wrefuse_text(code), text);
	s->state = SS_END;
	if (s->closed)
		return;
	buf_clear(&s->reply);
	wfail_put(&s->reply, &f);
	session_send(s, FT_REFUSE, COMPRESS_NONE);
	conn_drain(s->conn, 2000);
}

uint32_t session_ask(struct session *s, enum session_ask ask)
{
	struct session_request q = {.ask = ask, .module = s->m ? (uint32_t)(s->m - s->env.mc->modules) : 0};
	uint32_t answer_code = WR_OTHER;
	if (s->env.parent < 0)
		return 0;
	if (send(s->env.parent, &q, sizeof(q), MSG_NOSIGNAL) != (ssize_t)sizeof(q) ||
	    recv(s->env.parent, &answer_code, sizeof(answer_code), 0) != (ssize_t)sizeof(answer_code))
		return WR_SHUTDOWN;
	return answer_code;
}
