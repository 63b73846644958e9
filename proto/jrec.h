/* SPDX-License-Identifier: BSD-2-Clause
 * Journal records: one change each. The same bytes travel on the wire (WOP_REC). Format:
 * docs/journal-format.md.
 *
 * A record's paths are those valid at its place in the journal (decision D4). Header, little-endian:
 *
 *   off size
 *     0    4  magic "TJR1"
 *     4    2  type (enum jtype)
 *     6    2  flags (JF_*)
 *     8    4  length in bytes, header and padding included, a multiple of 8
 *    12    4  body length in bytes (what follows the header, without padding)
 *    16    8  sequence number, 1 is the journal's first, no gaps
 *    24    8  CLOCK_REALTIME in ns
 *    32    8  XXH3-64 of the record's header (with this field zero) and body
 *    40       body, then zero bytes up to length
 *
 * chain(n) = XXH3-64 over the 16 bytes {chain(n-1), checksum(n)}: the digest of a position. */
#ifndef TANDEM_JREC_H
#define TANDEM_JREC_H

#include <string.h>

#include "proto/buf.h"
#include "proto/extent.h"

#define JREC_MAGIC   0x31524a54u
#define JREC_HEADER  40u
#define JREC_MAX     (1u << 20) /* bytes of one record */
#define JREC_COPIES  64         /* copy hints in one record */
#define JREC_TARGET_MAX 4096    /* bytes of a symlink's target with its NUL */
#define JREC_XNAME_MAX  255     /* bytes of an attribute's name */
#define JREC_XVAL_MAX   65536u  /* bytes of an attribute's value */
#define JREC_HANDLE_MAX 128u    /* bytes of a file handle */

enum jtype {
	/* the body layouts are in jrec.c and in the format document; "pm" is the parent's mtime after the operation */
	JT_CREATE = 1,       /* regular file appears: ino path mode uid gid mtime pm */
	JT_MKDIR = 2,        /* ino path mode uid gid mtime pm */
	JT_MKNOD = 3,        /* FIFO, socket, device: ino path mode uid gid mtime rdev pm */
	JT_SYMLINK = 4,      /* ino path uid gid mtime target pm */
	JT_LINK = 5,         /* ino path (a name it had) path2 (new name) pm2 */
	JT_UNLINK = 6,       /* ino path nlink (links left) pm */
	JT_RMDIR = 7,        /* ino path pm */
	JT_RENAME = 8,       /* ino path path2 rflags ino2 (inode replaced or exchanged, 0) nlink2 (its links left) mode pm pm2 */
	JT_SETATTR = 9,      /* ino path valid mode uid gid mtime */
	JT_SETXATTR = 10,    /* ino path xname xval rflags */
	JT_REMOVEXATTR = 11, /* ino path xname */
	JT_CONTENT = 12,     /* ino path size extents copies handle: bytes (and/or size) of a regular file changed */
	JT_RECHECK = 13,     /* ino (0: unknown) path: compare this path with every target and repair; JF_RECURSIVE for a tree */
	JT_COLLAPSED = 14,   /* from to size: records from..to were dropped; the next `size` records that are not SEAL
	                      * are the RECHECKs that stand for them (who has seen from..to may skip those) */
	JT_MOUNT = 15,       /* the mount started: a boundary for readers, no effect */
	JT_SEAL = 16,        /* last record of its segment; the next begins the next segment */
	JT_LAST = 16
};

enum jflags {
	JF_CLOSED = 1,     /* CONTENT: the last writer closed; without it the file is still open for writing */
	JF_FSYNC = 2,      /* CONTENT: an fsync asked for it */
	JF_DIR = 4,        /* RENAME: the moved inode is a directory */
	JF_RECURSIVE = 8,  /* RECHECK: the whole tree below, not this entry alone */
	JF_CHECKSUM = 16,  /* RECHECK: compare bytes even where size and mtime are equal */
	JF_DRIFT = 32,     /* RECHECK: changed behind the mount's back */
	JF_RECOVERY = 64,  /* RECHECK: in flight when the mount or the host died, or failed in a way that leaves open what was done */
	JF_UNLINKED = 128, /* CONTENT: path is "" because no name is known; handle or a search finds the inode */
	JF_EXCHANGE = 256  /* RENAME: RENAME_EXCHANGE (rflags has it too) */
};

enum jvalid { /* SETATTR: which values count */
	JV_MODE = 1,
	JV_UID = 2,
	JV_GID = 4,
	JV_MTIME = 8
};

struct jtime {
	int64_t sec;   /* since 1970 */
	uint32_t nsec; /* 0..999999999 */
};

struct jcopy { /* hint: this destination range was copied from there, so the receiver may copy locally */
	uint64_t dst;      /* bytes */
	uint64_t src;      /* bytes */
	uint64_t len;      /* bytes */
	uint64_t src_ino;
	const char *src_path;
};

/* A decoded record. Strings and xval are views into the bytes it was decoded from; extents are owned
 * by the caller's extent_set. Members that a type does not use are zero or "". */
struct jrec {
	enum jtype type;
	uint16_t flags;   /* JF_* */
	uint64_t seq;
	uint64_t time_ns; /* CLOCK_REALTIME */
	uint64_t csum;    /* set by jrec_get */
	uint64_t ino, ino2;
	const char *path, *path2, *target;
	uint32_t mode;    /* with the file type bits */
	uint32_t uid, gid;
	uint64_t rdev;
	uint32_t nlink;   /* UNLINK: links left of ino; RENAME: links left of ino2 */
	uint32_t rflags;  /* RENAME: renameat2 flags; SETXATTR: setxattr flags */
	uint32_t valid;   /* JV_* */
	struct jtime mtime, pm, pm2; /* pm: of path's parent, pm2: of path2's parent */
	const char *xname;
	const uint8_t *xval;
	uint32_t xlen;
	uint64_t size;    /* CONTENT: st_size when recorded; COLLAPSED: RECHECK records that follow */
	struct extent_set extents;
	uint32_t ncopies;        /* CONTENT: of copies, below */
	int32_t handle_type;     /* CONTENT: struct file_handle of the inode if it had several links, else handle_len 0 */
	const uint8_t *handle;
	uint32_t handle_len;     /* bytes, at most 128 */
	uint64_t from, to;       /* COLLAPSED: sequence numbers */
	struct jcopy copies[JREC_COPIES]; /* the last member: jrec_init leaves it as it is */
};

/* Set every member to its zero value ("" for strings, empty extents, no copies). */
void jrec_init(struct jrec *r, enum jtype type);
/* Free what jrec_get allocated (extents). */
void jrec_release(struct jrec *r);
/* Bytes that jrec_put would add, which may be more than JREC_MAX; SIZE_MAX for an unknown type. */
size_t jrec_size(const struct jrec *r);
/* Append the record (header, body, padding, checksum) to b. r->seq and r->time_ns are the caller's.
 * Returns 0, E_LIMIT (larger than JREC_MAX or than b may grow), -ENOMEM, or -EINVAL for what jrec_get
 * would refuse (an invalid path, a mode of another type, ...); b is unchanged on error. */
int jrec_put(struct buf *b, const struct jrec *r);

struct jrec_info { /* a record's header */
	uint16_t type;    /* enum jtype, or unknown with E_VERSION */
	uint16_t flags;   /* JF_* */
	uint32_t length;  /* bytes, header and padding included */
	uint32_t body;    /* bytes */
	uint64_t seq;
	uint64_t time_ns; /* CLOCK_REALTIME */
	uint64_t csum;
};

/* Verify the record at data, of which len bytes are there, without decoding its body. Returns as jrec_get,
 * but never E_PROTO or -ENOMEM; *i is complete with 0 and E_VERSION. */
int jrec_peek(struct jrec_info *i, const void *data, size_t len);
/* Decode the record at data, of which len bytes are there. *used gets its length.
 * Returns 0; E_TORN: fewer bytes than the record needs, or zeros where it would begin;
 * E_CHECKSUM; E_VERSION: unknown type; E_PROTO: checksum holds but fields are invalid (paths are
 * checked with path_valid, sizes against their maxima); -ENOMEM. What r held before is not released. On
 * error r needs no release. */
int jrec_get(struct jrec *r, const void *data, size_t len, size_t *used);
/* The chain digest after a record. */
uint64_t jrec_chain(uint64_t chain, uint64_t csum);
/* "create", "close-write" ... static text for logs and tandemctl. */
const char *jrec_type_name(enum jtype type);
/* The inode from which a record with these takes a name, 0: none. */
static inline uint64_t jrec_unnamed(enum jtype type, uint16_t flags, uint64_t ino, uint64_t ino2)
{
	return type == JT_UNLINK ? ino : type == JT_RENAME && (flags & JF_EXCHANGE) == 0 ? ino2 : 0;
}
/* The inode whose last name the record takes, 0: none. */
static inline uint64_t jrec_ended(const struct jrec *r)
{
	return r->nlink == 0 ? jrec_unnamed(r->type, r->flags, r->ino, r->ino2) : 0;
}
/* Say whether the record is about what a directory hands on to what is made in it. */
static inline bool jrec_inherited(const struct jrec *r)
{
	return (r->type == JT_SETXATTR || r->type == JT_REMOVEXATTR) && strcmp(r->xname, "system.posix_acl_default") == 0;
}

#endif
