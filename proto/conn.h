/* SPDX-License-Identifier: BSD-2-Clause
 * One connection between a replicator and a module daemon: greeting, TLS 1.3, frames. Non-blocking;
 * the owner polls conn_fd for conn_events and calls conn_io. One thread per connection.
 *
 * Before TLS the server sends a 24-byte greeting: "TANDEM1\n", u32 lowest and u32 highest protocol
 * version, 8-byte reference (random; names this connection in the daemon's log). */
#ifndef TANDEM_CONN_H
#define TANDEM_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/buf.h"
#include "proto/compress.h"
#include "proto/frame.h"
#include "proto/psk.h"

#define CONN_VERSION    1           /* protocol version */
#define CONN_GREETING   24

struct conn;

/* Server side: find the key of an identity "USER/MODULE". Fill key and return 0, or return E_AUTH (then a random
 * key is used, so that a stranger cannot tell an unknown name from a wrong password; take as long for both).
 * arg is the caller's. */
typedef int (*conn_psk_fn)(void *arg, const char *user, const char *module, uint8_t key[PSK_LEN]);

/* Whom to connect to, and how long to try. */
struct conn_to {
	const char *host;           /* name or address, with or without brackets */
	int port;
	const char *user, *module;
	const uint8_t *key;         /* PSK_LEN bytes */
	int timeout_ms;             /* for everything: name, TCP, greeting, TLS */
	int cancelfd;               /* give up when this is readable; 0: none */
};

/* Connect and finish greeting and TLS before the deadline. Blocking; use from a thread of its own. Borrows to.
 * why (size bytes) gets a sentence on failure: what, where, errno, what to do; for E_AUTH it names user, module and the reference.
 * Returns 0, E_AUTH, E_TIMEOUT, E_VERSION, E_PROTO, -ECANCELED or -errno. */
int conn_connect(struct conn **out, const struct conn_to *to, char *why, size_t size);
/* Load what TLS reads from files and looks up by name, once, in a process that forks for each connection: its children need no files for
 * it. Returns 0 or -ENOMEM. */
int conn_prepare(void);
/* Take over an accepted socket: greeting and TLS handshake, blocking, before the deadline. reference is
 * what conn_reference gives. On success conn_user and conn_module tell who it is. The socket is closed on error.
 * Returns 0, E_AUTH, E_TIMEOUT, E_PROTO or -errno. */
int conn_accept(struct conn **out, int fd, const uint8_t reference[8], conn_psk_fn find, void *arg, int timeout_ms);
void conn_close(struct conn *c);

const char *conn_user(const struct conn *c);
const char *conn_module(const struct conn *c);
int conn_fd(const struct conn *c);
/* poll(2) events that conn_io needs now. */
short conn_events(const struct conn *c);
/* Say whether received bytes wait inside (decrypted or undecoded), so that poll must not block. */
bool conn_pending(const struct conn *c);

/* Queue a frame: type and payload; compressed with method if that shrinks it. Copies. Returns 0, E_LIMIT or -ENOMEM. */
int conn_put(struct conn *c, uint8_t type, const void *payload, size_t n, enum compress_method m);
/* Bytes queued and not yet written to the socket. */
size_t conn_queued(const struct conn *c);
/* Write queued bytes and read what came, without blocking. Returns 0, E_CLOSED, E_PROTO or -errno. */
int conn_io(struct conn *c);
/* Take the next received frame: *type, and *payload as a read-only view valid until the next conn_get or conn_io.
 * Returns 1, 0 when none is complete, E_PROTO, E_CHECKSUM or E_LIMIT. */
int conn_get(struct conn *c, uint8_t *type, struct buf *payload);
/* Write everything queued, waiting up to timeout_ms. Returns 0, E_TIMEOUT or as conn_io. */
int conn_drain(struct conn *c, int timeout_ms);
/* Total bytes sent and received on the socket, TLS included. */
void conn_totals(const struct conn *c, uint64_t *sent, uint64_t *received);

#endif
