/* SPDX-License-Identifier: BSD-2-Clause
 * What was going on when the process died: a file "inflight" in the state directory, mapped shared.
 *
 * Two tables. An operation's slot is filled before its system call on the directory below and cleared after
 * its record was appended; each thread owns one slot. A dirty entry stands for an inode with bytes that are not yet in a
 * CONTENT record. Both name paths as of the journal's sequence number at that time; recovery maps them through the renames recorded
 * since. Filling and clearing are plain stores: a killed process leaves them in the page cache. The file says nothing
 * after a power failure (D8: then times are compared). */
#ifndef TANDEM_FS_INFLIGHT_H
#define TANDEM_FS_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INFLIGHT_OPS   512          /* threads at once */
#define INFLIGHT_DIRTY (1u << 16)   /* dirty inodes at once */

struct inflight;

/* One entry as recovery sees it. */
struct inflight_entry {
	unsigned type;      /* enum jtype; JT_CONTENT for a dirty inode */
	unsigned rflags;    /* RENAME flags */
	bool cut;           /* the path did not fit: path is a directory above it */
	uint64_t seq;       /* the journal's last record when it was filled */
	uint64_t ino;       /* RENAME: the moved inode; dirty: the inode; else 0 */
	uint64_t ino2;      /* RENAME: the inode replaced or exchanged, 0 */
	uint32_t nlink2;    /* RENAME: its links before */
	uint32_t mode;      /* RENAME: of the moved inode */
	const char *path, *path2;
};

/* Map dirfd/inflight, made if missing. What an earlier process left is kept until inflight_reset. Returns 0 or -errno. */
int inflight_open(struct inflight **out, int dirfd);
void inflight_close(struct inflight *f);
/* Call fn, in whatever thread, when what is noted does not reach the file (filemap.h): before the operation that is noted is done, so that fn can
 * see to it that it is found nevertheless. At once if it happened before. Call this before others use f. */
void inflight_on_failure(struct inflight *f, void (*fn)(void *arg), void *arg);
/* Call fn for every entry found. */
void inflight_each(struct inflight *f, void (*fn)(void *arg, const struct inflight_entry *e), void *arg);
/* Forget everything found. */
void inflight_reset(struct inflight *f);

/* Say that something did not fit into the tables: then everything has to be rechecked after a kill. */
bool inflight_overflowed(struct inflight *f);

/* A thread's slot: taken at its first operation, -1 when there is none left (its first use then counts as an overflow). */
int inflight_op_alloc(struct inflight *f);
void inflight_op_free(struct inflight *f, int op);
/* Fill a slot; path and path2 (NULL) are copied, n and n2 their bytes. */
void inflight_op_set(struct inflight *f, int op, const struct inflight_entry *e, size_t n, size_t n2);
void inflight_op_clear(struct inflight *f, int op);

/* Note a dirty inode. Returns the entry's number, or -1 when the table is full (an overflow). */
int inflight_dirty_set(struct inflight *f, uint64_t ino, uint64_t seq, const char *path, size_t n);
void inflight_dirty_clear(struct inflight *f, int entry);

#endif
