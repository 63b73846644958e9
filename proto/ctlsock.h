/* SPDX-License-Identifier: BSD-2-Clause
 * Control sockets: AF_UNIX SOCK_SEQPACKET in the mirror's state directory, one JSON object per packet,
 * descriptors beside it (SCM_RIGHTS). tandemfs listens on "mount.sock", the replicator on
 * "replicator.sock". Requests have a string member "op"; a reply has "ok": true, or "ok": false and
 * "error": text. A reply with "more": true is followed by another. Ops are listed in
 * docs/ARCHITECTURE.md. */
#ifndef TANDEM_CTLSOCK_H
#define TANDEM_CTLSOCK_H

#include <jansson.h>

#define CTL_PACKET_MAX (96u << 10) /* bytes of one packet */
#define CTL_FDS_MAX    4

/* Listen on dirfd/name (an old socket is replaced), mode 0600. Returns a descriptor or -errno.
 * Paths longer than sun_path work: the address goes through /proc/self/fd. */
int ctl_listen(int dirfd, const char *name);
/* Connect; blocking. Returns a descriptor, -ENOENT or -ECONNREFUSED when nobody listens, or -errno. */
int ctl_connect(int dirfd, const char *name);
/* Send one object with nfds descriptors. Borrows all. Returns 0 or -errno. */
int ctl_send(int fd, const json_t *obj, const int *fds, int nfds);
/* Receive one object (owned by the caller) and up to CTL_FDS_MAX descriptors (owned by the caller; unused ones
 * are -1; they are O_CLOEXEC). timeout_ms -1: for ever. Returns 0, E_CLOSED, E_TIMEOUT, E_PROTO or -errno. */
int ctl_recv(int fd, json_t **obj, int fds[CTL_FDS_MAX], int timeout_ms);
/* Send {"op": op} + members of args (may be NULL; borrowed), await one reply. Returns 0 with *reply owned,
 * E_REFUSED with *reply holding "error", or another error. */
int ctl_call(int fd, const char *op, const json_t *args, json_t **reply, int fds[CTL_FDS_MAX], int timeout_ms);
/* Set o[key] to a path or a name: a string if it is UTF-8, else the escaped form, with the bytes as hex digits in
 * o[key_hex]. */
void ctl_set_path(json_t *o, const char *key, const char *path);
/* The bytes of what ctl_set_path set. Returns owned text, or NULL if there is none, it is no such thing, or there is no memory. */
char *ctl_get_path(const json_t *o, const char *key);

#endif
