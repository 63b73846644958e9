/* SPDX-License-Identifier: BSD-2-Clause
 * What conn.c (frames on a running connection) and conn_open.c (greeting, TLS) share; nobody else includes
 * it. */
#ifndef TANDEM_CONN_INT_H
#define TANDEM_CONN_INT_H

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "proto/conn.h"

#define CONN_REFERENCE_OFF 16 /* of the reference in the greeting */

struct conn {
	/* Immutable after the handshake. */
	int fd;	     /* non-blocking; owned */
	bool server; /* made by conn_accept */
	bool open;   /* the handshake is done */
	SSL_CTX *ctx;
	SSL *ssl;
	BIO_METHOD *meth; /* of the BIO below ssl, which reads and writes fd through us */
	char user[PSK_IDENTITY_MAX];
	char module[PSK_IDENTITY_MAX];

	/* Only during the handshake. */
	int cancelfd;			 /* client; borrowed, 0: none */
	char identity[PSK_IDENTITY_MAX]; /* client */
	uint8_t key[PSK_LEN];		 /* client */
	conn_psk_fn find;		 /* server */
	void *find_arg;

	/* Owner's thread. */
	struct buf out;	   /* frames to encrypt */
	struct buf wire;   /* encrypted, to send */
	struct buf in;	   /* decrypted bytes */
	struct buf plain;  /* the frame last expanded */
	int sys_err;	   /* errno of the last failed socket call, 0 if none */
	int err;	   /* why the connection is over, 0 while it lives */
	int frame_err;	   /* what conn_get found wrong, for ever after */
	bool eof;	   /* the socket gave its end */
	bool dry;	   /* the socket gave less than was asked for: it is not asked again in this conn_io */
	bool more;	   /* conn_io stopped reading before the socket or TLS was empty */
	uint32_t records;  /* TLS records sent under the present key */
	uint64_t sent;	   /* bytes on the socket */
	uint64_t received; /* bytes on the socket */
};

/* Make a connection that owns fd (closed by conn_close; not on failure). */
struct conn *conn_new(int fd, bool server);
/* Make the BIO that joins c->ssl to c->fd. Returns 0 or -ENOMEM. */
int conn_attach(struct conn *c);
/* Send what is encrypted, without blocking. Returns 0 or -errno. */
int conn_flush(struct conn *c);
/* The monotonic clock in ms. */
int64_t conn_now(void);
/* Wait for events on fd until the deadline or until cancelfd (0: none) is readable. Returns 0, E_TIMEOUT, -ECANCELED or -errno. */
int conn_wait(int fd, short events, int cancelfd, int64_t deadline);

#endif
