/* SPDX-License-Identifier: BSD-2-Clause
 * Error numbers of tandemfs. A function of ours returns 0 (or a count) or a negative number:
 * -errno, or one of these, which lie below every errno. */
#ifndef TANDEM_ERR_H
#define TANDEM_ERR_H

enum terr {
	E_FIRST = -4099,
	E_TORN = -4100,     /* the journal ends in the middle of a record: the reader waits, recovery cuts */
	E_CHECKSUM = -4101, /* bytes are not what was written: journal quarantines, a connection is dropped */
	E_GAP = -4102,      /* a sequence or a segment is missing: answered by a resync */
	E_VERSION = -4103,  /* written by a version we do not know: the operator upgrades */
	E_DIVERGED = -4104, /* same journal, other history: everything is compared */
	E_FOREIGN = -4105,  /* belongs to another source or module: the operator decides */
	E_LIMIT = -4106,    /* a size or count above its named maximum */
	E_PROTO = -4107,    /* the peer broke the wire protocol: the connection is dropped */
	E_CLOSED = -4108,   /* the peer closed the connection */
	E_AUTH = -4109,     /* TLS handshake refused: user, module or password is wrong */
	E_TIMEOUT = -4110,  /* a deadline passed */
	E_CONF = -4111,     /* configuration is wrong; the message has file:line */
	E_COLLAPSED = -4112, /* records before this place were collapsed into RECHECK records */
	E_REFUSED = -4113,  /* the peer refused with a typed reason */
	E_GONE = -4114,     /* the inode a record names does not exist any more */
	E_CHANGED = -4115,  /* a file changed while it was read: superseded by its newer record */
	E_LAST = -4116
};

/* Describe an error number, ours or -errno, for people. Returns static text; thread-safe. */
const char *err_text(int err);

#endif
