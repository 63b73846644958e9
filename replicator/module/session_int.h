/* SPDX-License-Identifier: BSD-2-Clause
 * Shared by session.c (life of a connection), session_open.c (from HELLO to WELCOME) and session_link.c
 * (frames in and out). */
#ifndef TANDEM_MODULE_SESSION_INT_H
#define TANDEM_MODULE_SESSION_INT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include "proto/conn.h"
#include "proto/wire.h"
#include "replicator/module/apply.h"
#include "replicator/module/confine.h"
#include "replicator/module/list.h"
#include "replicator/module/marker.h"
#include "replicator/module/session.h"
#include "replicator/module/syncer.h"

/* States of a connection. Frames allowed in each: session.c. */
enum session_state {
	SS_HELLO,     /* TLS stands, HELLO is awaited */
	SS_LIST,      /* welcomed, modules may be listed */
	SS_REPLICATE, /* welcomed, the module is changed */
	SS_END,	      /* refused or over */
	SS_COUNT
};

#define SYNC_TOKENS 64 /* FT_SYNC awaiting their answer */

struct inframe { /* a received frame that waits for its turn */
	STAILQ_ENTRY(inframe) link;
	uint8_t type;
	uint32_t len;
	uint8_t data[];
};

struct session {
	struct session_env env;
	struct conn *conn;
	const struct module_conf *m; /* NULL: lists modules only */
	enum user_right right;
	char user[PSK_IDENTITY_MAX], module[PSK_IDENTITY_MAX];
	char reference[17];  /* hex */
	char auth_why[1024]; /* true cause if the handshake fails */
	bool auth_asked;
	enum session_state state;
	uint32_t refuse_code; /* answer to HELLO, decided before it came */
	char refuse_text[1024];

	/* link */
	STAILQ_HEAD(, inframe) in;
	size_t in_bytes;
	uint32_t in_frames;
	int closed;		    /* error that ended the connection, 0: it stands */
	int sigfd;		    /* SIGTERM, SIGUSR1 */
	uint32_t stop;		    /* WR_SHUTDOWN or WR_BUSY: end after this batch */
	int64_t last_in, last_ping; /* ms */
	int64_t hello_by;	    /* ms: HELLO must be there */
	int64_t list_by;	    /* ms: who only lists modules must be done */

	/* module */
	int rootfd, statefd, dirfd, tmpfd, redofd, lockfd, motdfd;
	struct confined confined;
	struct identity id;
	struct position_page page;
	struct apply apply;
	bool applying; /* apply and syncer are active */
	struct syncer syncer;
	struct behind behind;
	bool held; /* HOLD was sent */
	uint32_t held_code;
	int hold_ms; /* present delay */
	struct list_job *job;
	struct buf reply; /* scratch for outgoing payloads */

	/* progress */
	uint64_t received, acked_received, durable, acked_durable;
	struct {
		uint64_t token, ticket;
	} tokens[SYNC_TOKENS];
	unsigned ntokens;
};

/* session_link.c */
int64_t session_now(void);
/* Read and write what is possible; frames go to s->in, PING is answered. Sets s->closed and s->stop. */
void session_intake(struct session *s);
/* Wait at most ms for the peer, the syncer or a signal, then take in. Checks time-outs. */
void session_wait(struct session *s, int ms);
/* Queue s->reply as a frame. */
void session_send(struct session *s, enum frame_type type, enum compress_method method);
/* Refuse: log, send REFUSE, end. */
void session_refuse(struct session *s, uint32_t code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ask the parent. Returns 0, or a WR_* code. */
uint32_t session_ask(struct session *s, enum session_ask ask);

/* session_open.c */
/* Before the first byte of the peer: the early wall. Returns 0 or an error that was logged. */
int session_wall(const struct session_env *env);
/* Before the second wall: what the module needs from outside; sets refuse_code where it cannot be served. */
void session_prepare(struct session *s);
/* Answer HELLO. */
void session_hello(struct session *s, struct buf *payload);
/* The applier's environment. */
void session_env_init(struct session *s, struct apply_env *env);

#endif
