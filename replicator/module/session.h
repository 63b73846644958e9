/* SPDX-License-Identifier: BSD-2-Clause
 * One connection, in a process of its own. */
#ifndef TANDEM_MODULE_SESSION_H
#define TANDEM_MODULE_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include "replicator/module/auth.h"
#include "replicator/module/modules_conf.h"

#define SESSION_HANDSHAKE_MS 10000	/* greeting, TLS and HELLO together, twice at most */
#define SESSION_WINDOW	     (8u << 20) /* bytes of BATCH payloads in flight */

/* What a child asks its parent over a SOCK_SEQPACKET pair; the answer is one u32: 0 yes, else a WR_* code. */
enum session_ask {
	ASK_MODULE = 1,	 /* may I serve this module? (max connections) */
	ASK_TAKEOVER = 2 /* end the other child that replicates this module */
};

struct session_request {
	uint32_t ask;
	uint32_t module; /* index in modules_conf */
};

struct session_env {
	const struct modules_conf *mc; /* borrowed */
	struct auth_store *auth;       /* taken: wiped after the handshake */
	int fd;			       /* accepted socket; taken */
	int stdir;	  /* state directory; taken (closed before anything of the peer is applied) */
	int parent;	  /* to the parent; -1: ask nobody */
	uint8_t addr[16]; /* peer, as hosts_address */
	const char *peer; /* peer as text */
	uint8_t boot[16]; /* this boot */
	bool title;	  /* show module and peer in the process's title */
};

/* Serve the connection until it ends. Returns the process's exit status: 0, or not 0 when a change that was committed may not be made. */
int session_run(const struct session_env *env);
/* Finish what an earlier child of module m left committed in its redo logs, confined to the module; nothing if there is none, if the
 * module is not there, or if a child serves it. Of env, mc, boot and stdir are used; what the child asks
 * nobody for is closed. Returns the process's exit status. */
int session_mend(const struct session_env *env, const struct module_conf *m);

#endif
