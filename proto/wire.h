/* SPDX-License-Identifier: BSD-2-Clause
 * Frames and operations between a replicator (client, C) and a module daemon's child (server, S).
 * Format: docs/wire-protocol.md. Frame header, 16 bytes: u32 payload length as sent, u32 length expanded,
 * u8 type, u8 compress method, u16 zero, u32 low half of XXH3-64 of the payload as sent. */
#ifndef TANDEM_WIRE_H
#define TANDEM_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/buf.h"
#include "proto/jrec.h"

enum frame_type {
	FT_HELLO = 1,    /* C: who I am, what I want. First frame. */
	FT_WELCOME = 2,  /* S: what I have */
	FT_REFUSE = 3,   /* S: typed reason, then close */
	FT_BATCH = 4,    /* C: operations, in order */
	FT_ACK = 5,      /* S: progress */
	FT_FAIL = 6,     /* S: one operation could not be applied; the stream goes on */
	FT_HOLD = 7,     /* S: applying is paused (disk full, read-only ...) and retried; code 0: over */
	FT_SYNC = 8,     /* C: make everything applied so far durable; u64 token */
	FT_SYNCED = 9,   /* S: done; u64 token, u64 seq */
	FT_PING = 10,    /* either: u64 token */
	FT_PONG = 11,    /* either: u64 token */
	FT_LIST = 12,    /* C: u32 id, str path, u8: 0 list the directory, 1 its own entry alone (of any type, as ".") */
	FT_LISTING = 13, /* S: struct wlisting; several per directory */
	FT_SUMS = 14,    /* C: block sums of a file: struct wsums_req */
	FT_SUMSET = 15,  /* S: struct wsums; several per file */
	FT_MODULES = 16, /* C: list modules */
	FT_MODLIST = 17, /* S: u16 count, per module: str name, str comment, u8 read only */
	FT_NOTICE = 18   /* S: str text for the operator, nothing failed (e.g. owners cannot be kept) */
};

enum wrefuse { /* codes of REFUSE, FAIL, HOLD */
	WR_NONE = 0,
	WR_VERSION = 1,
	WR_ADDRESS = 2,     /* address not allowed */
	WR_READ_ONLY = 3,
	WR_BUSY = 4,        /* max connections, or another connection holds the module */
	WR_NO_DISK = 5,     /* module path missing or its marker lost */
	WR_FOREIGN = 6,     /* module belongs to another source */
	/* 7 is not used: the client finds out that histories differ, from WELCOME's position */
	WR_PROTOCOL = 8,
	WR_PERMISSION = 9,
	WR_NO_SPACE = 10,
	WR_READ_ONLY_FS = 11,
	WR_IO = 12,
	WR_MISSING = 13,    /* path or its parent does not exist */
	WR_EXISTS = 14,
	WR_TYPE = 15,       /* other type, directory not empty */
	WR_MISMATCH = 16,   /* COPY: the local bytes are not the sender's */
	WR_NAME = 17,       /* name the file system refuses */
	WR_UNSUPPORTED = 18,
	WR_SHUTDOWN = 19,
	WR_OTHER = 20
};

/* Position of a target in a journal. */
struct wpos {
	uint8_t journal_id[16]; /* zero: none yet */
	uint64_t epoch;
	uint64_t seq;
	uint64_t digest; /* chain digest after seq */
};

struct whello {
	uint32_t version;        /* CONN_VERSION */
	uint64_t features;       /* none defined yet */
	uint32_t mode;           /* 1 replicate, 2 list modules only */
	const char *mirror;      /* mirror name, for logs */
	uint8_t source_id[16];   /* identity of the source tree, kept in the mirror's state directory */
	struct wpos head;        /* the source's journal: id, epoch, committed sequence (digest unused) */
};

enum wwelcome_flags {
	WW_FRESH = 1,    /* the module never had a position: compare everything */
	WW_ADOPTED = 2,  /* it held files without a marker */
	WW_UNCLEAN = 4,  /* after a power failure or restore: records after `durable` may be half applied; recheck them */
	WW_RESYNC = 8,   /* a full comparison was begun and not finished */
	WW_NO_OWNER = 16 /* the daemon cannot set owners (not root): they are not compared */
};

struct wwelcome {
	uint32_t version;
	uint64_t features;
	uint32_t flags;           /* WW_* */
	struct wpos applied;
	struct wpos durable;
	uint64_t window;          /* bytes of BATCH payloads the sender may have unacknowledged */
	uint32_t noutstanding;    /* sequence numbers that `applied` skips (deferred large files) */
	uint64_t *outstanding;    /* owned; WPOS_OUT_MAX at most */
	const char *motd;
	const char *module_id;    /* uuid text of the marker */
};
#define WPOS_OUT_MAX 1024
/* An outstanding number that is none: every record from the smallest outstanding one on is. */
#define WPOS_OUT_ALL UINT64_MAX

struct wack {
	uint64_t received;  /* bytes of BATCH payload received and applied since WELCOME (credit) */
	uint64_t applied;   /* sequence */
	uint64_t durable;   /* sequence */
};

struct wfail {
	uint32_t code;      /* WR_* */
	int32_t sys_errno;  /* positive, 0 if none */
	uint32_t xid;       /* transfer, 0 if none */
	uint64_t seq;       /* record, 0 if none */
	const char *path;   /* concerned; path2 "" unless a rename or link */
	const char *path2;
	const char *text;   /* what failed, for people */
};

/* Operations inside BATCH: u8 op, then its body. */
enum wop_type {
	WOP_REC = 1,    /* blob: a journal record as in jrec.h (its seq 0 when made by a comparison) */
	WOP_BEGIN = 2,  /* begin a transfer into a file */
	WOP_DATA = 3,   /* u32 xid, u64 offset, blob bytes */
	WOP_HOLE = 4,   /* u32 xid, u64 offset, u64 length (EXTENT_INF - offset: to the end) */
	WOP_COPY = 5,   /* u32 xid, str src path ("": the old version of this file), u64 src, u64 dst, u64 len, 16 bytes XXH3-128 of the range */
	WOP_COMMIT = 6, /* finish: the new version appears at once */
	WOP_ABORT = 7,  /* u32 xid */
	WOP_RMTREE = 8, /* str path: remove this entry and everything below (comparison only) */
	WOP_XATTRS = 9, /* str path, blob encoded set (xattrs.h): make the set exactly this */
	WOP_POS = 10    /* everything before this, up to seq, is applied, except the outstanding */
};

enum wbegin_mode {
	WB_NEW = 1,   /* the transfer holds the whole file: built aside, renamed into place */
	WB_PATCH = 2  /* the transfer holds ranges: the old version's other bytes stay */
};

enum wcommit_flags {
	WC_OPEN = 1 /* the file is still open for writing at the source */
};

struct wattr {
	uint32_t mode; /* with type bits */
	uint32_t uid, gid;
	struct jtime mtime;
};

struct wop {
	enum wop_type type;
	uint32_t xid;            /* BEGIN..ABORT; chosen by the sender, never 0, unique in the connection */
	uint32_t flags;          /* BEGIN: wbegin_mode; COMMIT: WC_*; POS: 1 = a full comparison is under way */
	const char *path;        /* BEGIN: where it will go (a hint); COMMIT: where it goes; COPY: source; RMTREE, XATTRS */
	uint64_t off, len, src;  /* bytes */
	const uint8_t *data;     /* DATA, REC, XATTRS, COMMIT (encoded xattr set) */
	uint32_t dlen;           /* bytes of data */
	uint8_t hash[16];        /* COPY */
	uint64_t size;           /* BEGIN: expected; COMMIT: final size */
	uint64_t seq;            /* BEGIN, COMMIT: record that caused it, 0 for a comparison; POS */
	uint64_t digest;         /* POS */
	bool has_xattrs;         /* COMMIT: data is the whole attribute set; false: leave attributes alone */
	struct wattr attr;       /* COMMIT */
	uint32_t nout;           /* POS: outstanding sequence numbers */
	const uint8_t *out;      /* POS: nout little-endian u64; view */
	const uint64_t *out_put; /* POS: the same for wop_put */
	uint8_t journal_id[16];  /* POS */
	uint64_t epoch;          /* POS */
};
#define WOP_DATA_MAX   (1u << 20) /* bytes of one DATA */
#define FRAME_SUMS_MAX 65536      /* block sums in one SUMSET */

/* One entry of a LISTING. */
struct wentry {
	const char *name;    /* "." stands first for the directory itself */
	struct wattr attr;
	uint64_t size;       /* of a regular file */
	uint64_t ino;        /* the standby's, to see hard links */
	uint32_t nlink;
	uint64_t rdev;
	uint64_t blocks;     /* of 512 bytes, regular files */
	uint64_t xdigest;    /* xattrs_digest */
	const char *target;  /* symlink */
};

/* LISTING payload: u32 id, u32 code (WR_*; WR_MISSING, WR_TYPE ...), u8 last, u32 count, entries. */
struct wlisting {
	uint32_t id;
	uint32_t code;
	bool last;
	uint32_t count; /* entries follow in the payload: read them with wentry_get */
};

struct wsums_req {
	uint32_t id;
	const char *path;
	uint32_t block; /* bytes; 0: one sum over the whole range */
	uint64_t off, len; /* range; len EXTENT_INF: to the end */
	uint8_t key[8]; /* seed of the session's keyed XXH3-128 */
};

/* SUMSET payload: u32 id, u32 code, u8 last, u64 file size, u64 first block number, u32 count, then per block u32 weak
 * (rolling, see docs/wire-protocol.md) and 16 bytes strong.
 * A block (or a whole range) that is nothing but a hole has weak 0 and a strong sum of zero bytes. */
struct wsums {
	uint32_t id;
	uint32_t code;
	bool last;
	uint64_t size;
	uint64_t first;
	uint32_t count; /* sums follow: read with wsum_get */
};

/* Codecs. put: append to b (errors stick in b->err). get: 0 or E_PROTO; views point into b's bytes.
 * get functions for whole payloads refuse trailing bytes; wop_get, wentry_get, wsum_get take one item. */
void whello_put(struct buf *b, const struct whello *h);
int whello_get(struct buf *b, struct whello *h);
void wwelcome_put(struct buf *b, const struct wwelcome *w);
int wwelcome_get(struct buf *b, struct wwelcome *w); /* outstanding is owned by the caller: free() */
void wack_put(struct buf *b, const struct wack *a);
int wack_get(struct buf *b, struct wack *a);
void wfail_put(struct buf *b, const struct wfail *f); /* FAIL, REFUSE and HOLD share it */
int wfail_get(struct buf *b, struct wfail *f);
void wop_put(struct buf *b, const struct wop *op);
int wop_get(struct buf *b, struct wop *op);
void wlisting_put(struct buf *b, const struct wlisting *l);
int wlisting_get(struct buf *b, struct wlisting *l);
void wentry_put(struct buf *b, const struct wentry *e);
int wentry_get(struct buf *b, struct wentry *e);
void wsums_req_put(struct buf *b, const struct wsums_req *q);
int wsums_req_get(struct buf *b, struct wsums_req *q);
void wsums_put(struct buf *b, const struct wsums *s);
int wsums_get(struct buf *b, struct wsums *s);
void wsum_put(struct buf *b, uint32_t weak, const uint8_t strong[16]);
int wsum_get(struct buf *b, uint32_t *weak, uint8_t strong[16]);
/* Static text for a WR_* code. */
const char *wrefuse_text(uint32_t code);

/* The rolling sum of a block (as rsync's: two 16-bit halves) and its steps. */
uint32_t wsum_weak(const uint8_t *p, size_t n);
uint32_t wsum_roll(uint32_t weak, uint8_t out, uint8_t in, uint32_t block);
/* XXH3-128 with the session's seed, canonical (big-endian) bytes. */
void wsum_strong(uint8_t out[16], const uint8_t key[8], const void *p, size_t n);

#endif
