/* SPDX-License-Identifier: BSD-2-Clause
 * The journal writer. Threads of the mount append concurrently; an append copies into a mapped segment
 * under one short lock and makes no system call on the common path. A background thread prepares
 * segments ahead, syncs on request or interval, unlinks reclaimed ones, and collapses at the limit. */
#ifndef TANDEM_FS_JOURNAL_H
#define TANDEM_FS_JOURNAL_H

#include "proto/jrec.h"
#include "proto/jhead.h"

enum journal_sync { JSYNC_FSYNC, JSYNC_INTERVAL, JSYNC_NEVER }; /* with the application's fsync (default), every second, never */

struct journal_options {
	uint64_t limit;        /* bytes of segments on disk before a collapse */
	uint64_t segment_size; /* bytes; JSEG_SIZE by default */
	enum journal_sync sync;
};

/* What was found when the journal was opened. */
enum journal_start {
	JSTART_NEW,     /* made now: every target needs a full comparison */
	JSTART_CLEAN,   /* closed properly */
	JSTART_KILLED,  /* same boot, writer died: nothing is missing; operations in flight are rechecked */
	JSTART_POWER,   /* other boot and not closed: the end may be missing; recheck by ctime since the returned time */
	JSTART_DAMAGED  /* damage before the end: segments quarantined, recheck everything */
};

struct journal;

/* Open or make the journal in dirfd (kept, not closed), recover its tail, start the background thread.
 * *start tells what was found; *since_ns the time before which all that changed is durable on the source and recorded, 1: not known.
 * Returns 0, -EBUSY (another writer holds it), -errno, or E_VERSION. */
int journal_open(struct journal **out, int dirfd, const struct journal_options *opt,
    enum journal_start *start, uint64_t *since_ns);
/* Say that what JSTART_POWER or JSTART_DAMAGED asks for is done (its RECHECK records are appended). Until then every
 * start says JSTART_POWER again with the same time, also after a proper close. */
void journal_recovered(struct journal *j);
/* Make records up to seq durable, whatever the sync option, and remember that what they tell of, and what changed below the mount
 * before ns (CLOCK_REALTIME), is durable there. Returns 0 or -errno. */
int journal_checkpoint(struct journal *j, uint64_t seq, uint64_t ns);
/* The time of the clock by which records are stamped: CLOCK_REALTIME, in ns. */
uint64_t journal_now(void);
/* Tell it the time, now and then: if the clock was set back, the time it remembers is, too, durably. */
void journal_clock(struct journal *j, uint64_t ns);
/* Close properly: sync, mark clean. Frees j; dirfd stays the caller's. */
void journal_close(struct journal *j);

/* Its disk failed (filemap.h): enter the degraded state, and remember outside of it, until the next boot, that what is on it is not to be relied upon.
 * Both are done on return; what the caller does afterwards is not missed by the next start. */
void journal_disk_failed(struct journal *j);

/* Append one record: sets r->seq and r->time_ns, publishes it to readers and rings their bell.
 * Callers that must order records against their own tables hold their own lock around the call; the
 * journal's lock is the innermost. Never blocks on I/O. Returns 0; -ENOSPC/-EIO when the journal cannot be
 * written: the record's paths are then kept in the in-memory dirty set, head->degraded is set, and they are
 * written as RECHECK records as soon as that works again: the caller carries on as if it had succeeded. */
int journal_append(struct journal *j, struct jrec *r);
/* Make everything appended so far durable according to the sync option (JSYNC_FSYNC: waits for
 * fdatasync; group commit). In the degraded state: make durable that everything must be compared after a crash.
 * Returns 0 or -errno when neither could be done. */
int journal_sync(struct journal *j);
/* Begin with that, to be there sooner when journal_sync is called: start writing, or, where a sync takes long, have another thread do it.
 * file is about to be synced: if its sync will make the journal durable, too, returns the last record of which that holds, else 0. */
uint64_t journal_sync_begin(struct journal *j, int file);
/* The file was synced without an error. upto is what journal_sync_begin returned. False: ask journal_sync. */
bool journal_synced_with(struct journal *j, uint64_t upto);
/* The sequence number at or before which every change made so far will be in the journal: its last, or while changes are kept in memory
 * (degraded) the one that their set will begin with. */
uint64_t journal_flushed(struct journal *j);
/* The last committed sequence. */
uint64_t journal_seq(struct journal *j);
struct jhead *journal_head(struct journal *j);
/* Register a reader's doorbell: keeps efd. Returns its slot in the head page or -ENOSPC. */
int journal_listen(struct journal *j, int efd);
void journal_unlisten(struct journal *j, int slot);

#endif
