/* SPDX-License-Identifier: BSD-2-Clause
 * Work that live records overtake: transfers of large changes and the comparison. One per connection, used by the
 * target's thread only. */
#ifndef TANDEM_BULK_H
#define TANDEM_BULK_H

#include "replicator/source/compare.h"
#include "replicator/source/failures.h"
#include "replicator/source/transfer.h"

#define BULK_ITEMS_MAX 512 /* deferred transfers at a time; each holds a descriptor */

struct bulk;

struct bulk_env {
	struct stream *stream;       /* borrowed, as all of these */
	const struct mirror *mirror;
	struct failures *failures;
	int rootfd, jdirfd;
	bool no_owner;
	/* The delete guard stopped a comparison. */
	void (*guarded)(void *arg, uint64_t n, uint64_t total);
	/* The file of a transfer that was put off is gone: what its name shows on the standby will never be complete. May be NULL. Returns
	 * 0 or -ENOMEM. */
	int (*gone)(void *arg, uint64_t ino, uint64_t seq, bool linked);
	/* The content of an inode is left to the comparison: see phantoms_leave. May be NULL. Returns 0 or -ENOMEM. */
	int (*left)(void *arg, uint64_t ino, uint64_t seq);
	/* Everything that was scheduled or failed is as it should be. May be NULL. */
	void (*compared)(void *arg);
	void *arg;
};

/* A large change to be sent later. */
struct bulk_spec {
	int fd;                    /* taken */
	uint64_t ino;
	const char *path;          /* on the standby; copied */
	uint64_t seq;
	struct extent_set extents; /* taken */
	const struct wop *copies;  /* as in transfer_spec; copied */
	size_t ncopies;
	bool open;
	bool linked;               /* had several names when it was recorded */
	uint64_t size, as_of_ns;   /* as in struct content */
	uint64_t since_ns;         /* when sending was first tried, CLOCK_MONOTONIC; 0: now */
};

int bulk_new(struct bulk **out, const struct bulk_env *env);
void bulk_free(struct bulk *b);
/* Put a transfer off. Takes fd and extents also on failure. Returns 0 or -ENOMEM. */
int bulk_defer(struct bulk *b, struct bulk_spec *spec);
/* Say whether a transfer of this inode is put off. */
bool bulk_has(const struct bulk *b, uint64_t ino);
/* Say whether no more may be put off now. */
bool bulk_full(const struct bulk *b);
/* Add a newer change to an inode's transfer (bulk_has). Borrows extents. Returns 0 or -ENOMEM. */
int bulk_extend(struct bulk *b, uint64_t ino, uint64_t seq, const struct extent_set *extents, bool open, uint64_t size, uint64_t as_of_ns);
/* Take a small transfer back that does not run, to send it with a newer record: adds its ranges to extents, *seq gets its first record and
 * *since_ns when it was first tried. Returns 1 if it was taken, 0 if not, or -ENOMEM. */
int bulk_take(struct bulk *b, uint64_t ino, struct extent_set *extents, uint64_t *seq, uint64_t *since_ns);
/* Say whether modification times tell what was written after a record. (Not where the clock of the source's file server is ahead.) */
bool bulk_trusts_mtime(const struct bulk *b);
/* Do this inode's transfer (0: the oldest) before all else, until bulk_has says no: a live record waits for it. */
void bulk_urge(struct bulk *b, uint64_t ino);
/* The inode is gone: forget its transfer. */
void bulk_forget(struct bulk *b, uint64_t ino);
/* A RENAME was sent. Returns 0 or -ENOMEM. */
int bulk_renamed(struct bulk *b, const char *from, const char *to, bool exchange);
/* A LINK was sent: the new name is compared as thoroughly as the old one is going to be, which may be gone by then;
 * and also if a comparison may have overtaken the record. Returns 0 or -ENOMEM. */
int bulk_linked(struct bulk *b, uint64_t seq, const char *from, const char *to, bool overtaken);
/* See compare_touched. */
void bulk_touched(struct bulk *b, const char *path, uint64_t ino);
/* Compare a path because of record seq (0: none); the record counts as outstanding until that is done. */
int bulk_recheck(struct bulk *b, uint64_t seq, const char *path, unsigned flags);
/* Record seq (0: none) changes inode ino under a name that is excluded: compare its other names. They are searched for, for all such inodes at once. */
void bulk_aliases(struct bulk *b, uint64_t seq, uint64_t ino);
/* Names were given that are not excluded: inodes that had none may have one. */
void bulk_named(struct bulk *b);
/* The same as bulk_recheck, for the content of inode ino that cannot be sent. */
int bulk_left(struct bulk *b, uint64_t seq, uint64_t ino, const char *path, unsigned flags);
/* The same as bulk_recheck, and the directory that holds it: its mtime may have changed without anything left to see in it. Of a file whose name path is
 * excluded the other names. */
int bulk_recheck_entry(struct bulk *b, uint64_t seq, const char *path, unsigned flags);
/* Record seq, which changes path, was sent: see compare_changed. Returns 0 or -ENOMEM. */
int bulk_changed(struct bulk *b, uint64_t seq, const char *path, unsigned flags, unsigned rounds);
/* See compare_sent. */
int bulk_sent(struct bulk *b, uint64_t sent, uint64_t head);
/* Compare everything; POS says so until it is done. flags: CMP_ALLOW or 0. */
int bulk_compare_all(struct bulk *b, unsigned flags);
/* Mark what is scheduled as a whole that must be done in this connection, or everything is compared in the next. */
void bulk_mark_full(struct bulk *b);
/* A verification that repairs begins or ends. What it took away and did not put back yet is in no record: POS says so until it is done, and
 * everything is compared in the next connection if that is not in this one. */
void bulk_repairs(struct bulk *b, bool under_way);
/* As failed of compare_env: arg is the bulk. The path is shown and tried again. */
void bulk_path_failed(void *arg, const char *path, int err, const char *text);
/* Do a piece. Returns 1: did something; 0: nothing to do or no room; negative: stream error. */
int bulk_step(struct bulk *b);
/* Say whether a piece is wanted by a live record that waits. */
bool bulk_urgent(const struct bulk *b);
/* Say whether anything is under way, scheduled or failed. */
bool bulk_busy(const struct bulk *b);
/* Say whether a comparison is scheduled, under way, or may have to be made once more. */
bool bulk_comparing(const struct bulk *b);
/* Say whether a comparison is scheduled or under way. */
bool bulk_active(const struct bulk *b);
/* Everything sent has been acknowledged: what is done is done. */
void bulk_settle(struct bulk *b);
/* Every record from seq on counts as outstanding until what is scheduled is done. */
void bulk_mark_from(struct bulk *b, uint64_t seq);
/* The outstanding sequence numbers, ascending; at most WPOS_OUT_MAX; perhaps {first, WPOS_OUT_ALL}. Returns their count. */
uint32_t bulk_outstanding(const struct bulk *b, uint64_t *out);
/* The flag for POS: a full comparison, or a repair, is under way. */
bool bulk_is_full(const struct bulk *b);
/* Say whether outstanding or the flag changed since the last call. */
bool bulk_moved(struct bulk *b);
/* A patch of ranges is put while a comparison is under way: the rest of the file may never have been compared, and the patch makes
 * size and mtime equal. So its bytes are compared too. Returns 0 or -ENOMEM. */
int bulk_patched(struct bulk *b, uint64_t seq, const char *path);
/* A FAIL arrived: first this, then bulk_fail_path for every path that it concerns, as it is called at the stream's present position. */
void bulk_fail_begin(struct bulk *b, const struct wfail *f);
int bulk_fail_path(struct bulk *b, const struct wfail *f, const char *path);
/* A FAIL for something that a comparison put (record 0). Its path is compared again, a few times. */
void bulk_fail_compare(struct bulk *b, const struct wfail *f);
/* The same for what a RENAME that was sent since may have made of its path. Returns 0 or -ENOMEM. */
int bulk_fail_moved(struct bulk *b, const struct wfail *f);
/* Reading path, inode ino, failed with err (-errno): show it and try again later. */
int bulk_unreadable(struct bulk *b, uint64_t seq, uint64_t ino, const char *path, int err);
/* Milliseconds until something is to be tried again, -1: nothing. */
int bulk_timeout(const struct bulk *b);
struct compare *bulk_compare(struct bulk *b);
/* Bytes of transfers that are put off. */
uint64_t bulk_bytes(const struct bulk *b);

#endif
