/* SPDX-License-Identifier: BSD-2-Clause
 * Redo logs: changing a file in place so that after a kill or power failure it is in its old or its new
 * state.
 *
 * A log is two files in .tandem/redo, named by a number of 16 hex digits:
 *
 *   N.data   the new bytes, spooled while the transfer runs
 *   N        the log: path, inode, ranges, attributes, checksum. Made by fio_replace after N.data is on disk:
 * its existence commits the change N.done   the log, renamed after the change was made in place. Removed with
 * its data by the syncer after the next syncfs, when the change itself is on disk
 *
 *   at the start of a connection     N.data without N          removed: never committed
 *                                    N                         applied (again) if path still names that
 * inode, then N.done N.done, same boot         kept for the syncer: the bytes are in the page cache N.done,
 * another boot      applied again as N, in the order of the numbers */
#ifndef TANDEM_MODULE_REDO_H
#define TANDEM_MODULE_REDO_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "proto/wire.h"
#include "replicator/module/reach.h"

struct redo_piece {
	uint64_t off; /* bytes in the file */
	uint64_t len; /* bytes; EXTENT_INF - off for a hole to the end */
	uint64_t at;  /* bytes in the data file */
	bool hole;
};

struct redo_log {
	uint64_t number;
	uint64_t dev, ino; /* of the file to change */
	char *path;	   /* owned when read back */
	uint64_t size;	   /* final */
	struct wattr attr;
	bool has_xattrs;
	const uint8_t *xattrs; /* encoded set */
	uint32_t xlen;
	bool no_owner;
	struct redo_piece *v; /* owned when read back */
	uint32_t n;
};

struct redo {
	int fd;		      /* .tandem/redo; borrowed */
	uint64_t next;	      /* number of the next log */
	uint32_t replayed;    /* logs whose change redo_init made */
	pthread_mutex_t lock; /* protects what follows */
	uint64_t *done;	      /* logs to be removed after a sync */
	uint32_t ndone, capdone;
};

/* Who waits meanwhile: called now and then while many bytes are copied or written. */
struct redo_wait {
	void (*tick)(void *arg);
	void *arg;
};

/* Prepare; remove uncommitted data, finish committed logs. reach gives permission for what is closed to its owner; may be NULL. Returns 0 or
 * -errno. */
int redo_init(struct redo *r, int fd, int rootfd, struct reach *reach, bool replay_all);
void redo_release(struct redo *r);
/* Make the data file of a new log. *number gets its number. Returns a descriptor or -errno. */
int redo_create(struct redo *r, uint64_t *number);
/* Remove an uncommitted log's data. */
void redo_abort(struct redo *r, uint64_t number);
/* Take the space that the change of target will need, as far as the file system can: -ENOSPC after this would leave half of it made, visible.
 * Changes no byte. Returns 0 or -errno. */
int redo_reserve(const struct redo_log *log, int target);
/* Commit the log whose data is in datafd: durable on return. w may be NULL. Returns 0 or -errno. */
int redo_commit(struct redo *r, const struct redo_log *log, int datafd, const struct redo_wait *w);
/* Make the change: ranges, size, attributes. target is opened O_RDWR. w may be NULL. Idempotent. Returns 0, -errno, or WR_NO_SPACE
 * (node_xattr_error): if only extended attributes failed, all else is done. */
int redo_apply(const struct redo_log *log, int datafd, int target, const struct redo_wait *w);
/* The change was made. */
void redo_done(struct redo *r, uint64_t number);
/* For the syncer: take the list of finished logs before a sync, remove them after it. Thread-safe. */
uint32_t redo_take_done(struct redo *r, uint64_t **list);
void redo_remove(struct redo *r, uint64_t *list, uint32_t n);

/* Write src[at..at+len) to dst[off..): copy_file_range, or by a buffer. w may be NULL. Returns 0 or -errno. */
int redo_copy(int src, uint64_t at, int dst, uint64_t off, uint64_t len, const struct redo_wait *w);
/* Make a hole of [off, off+len), as far as the file reaches now; zeros where the file system has no holes.
 * len may be EXTENT_INF - off. Returns 0 or -errno. */
int redo_punch(int fd, uint64_t off, uint64_t len);

#endif
