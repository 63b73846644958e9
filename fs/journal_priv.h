/* SPDX-License-Identifier: BSD-2-Clause
 * What the files of the journal writer share; nobody else includes it but its tests. The states of the
 * writer are told at the top of journal.c.
 *
 * Locks, innermost last: sync.lock, lock, bell.lock. sync.lock is not held during a sync. */
#ifndef TANDEM_FS_JOURNAL_PRIV_H
#define TANDEM_FS_JOURNAL_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "fs/journal.h"
#include "fs/pathset.h"
#include "proto/filemap.h"
#include "proto/jseg.h"

#define JOURNAL_NEXT_NAME "next.seg.new" /* the segment prepared ahead; its first sequence is not known yet  \
					  */
#define JOURNAL_QUARANTINE "quarantine"
#define JOURNAL_THREADS	   3
#define JOURNAL_RETRY_MS   1000 /* between tries to leave the degraded state, and rounds of the keeper */
#define JOURNAL_WAIT_MS	   2000 /* an append waits this long for a segment that is late, then degrades */

/* One segment. Protected by journal.lock; fd and map do not change while pins > 0. */
struct segment {
	TAILQ_ENTRY(segment) link;
	uint64_t first_seq;
	uint64_t last_seq; /* its SEAL; 0 while it is open */
	size_t size;	   /* bytes */
	size_t settled;	   /* up to here its blocks are only overwritten: they were in a sync */
	int fd;		   /* -1 once it is sealed and durable */
	struct filemap *file; /* its map; NULL once it is sealed and the keeper has passed */
	uint8_t *map;	   /* where that begins */
	unsigned pins;	   /* syncs that use fd */
	bool synced;	   /* sealed and durable */
	bool failed;	   /* an fsync of it failed: what it holds is not trusted to be on disk, ever */
};
TAILQ_HEAD(segment_list, segment);

struct journal {
	/* Immutable after journal_open. */
	int dirfd;
	int lockfd; /* a description of the directory of our own, which holds the flock */
	struct jhead *head;
	struct filemap *headfile; /* its map */
	struct journal_options opt;
	uint8_t id[16];
	uint64_t epoch;
	dev_t dev;    /* of the journal's file system, if it is an ext4, */
	size_t block; /* and the size of its blocks; else 0 */
	int (*_Atomic sync_fd)(int fd);                     /* fio_sync; tests put failing ones */
	int (*_Atomic write_fds)(int segment, int file); /* sync_write_fds */
	pthread_t threads[JOURNAL_THREADS]; /* preparer, keeper, syncer */
	unsigned nthreads;                  /* of them that run */

	pthread_mutex_t lock;
	/* Protected by lock: */
	pthread_cond_t ready;	  /* next was prepared, or could not be */
	pthread_cond_t want_next; /* the preparer's bell */
	pthread_cond_t want_keeper;
	pthread_cond_t want_sync; /* the syncer's bell */
	struct segment_list segs; /* oldest first; the last is cur */
	struct segment *cur;	  /* open; NULL when there has been no space for one since the start */
	struct segment *next;	  /* prepared, or NULL */
	int next_err;		  /* why not */
	size_t tail;		  /* bytes of cur used */
	uint64_t seq;		  /* last record; the same as head->committed_seq */
	uint64_t chain;		  /* digest after it */
	int degraded;		  /* 0, or -errno: appends go into dirty */
	bool voided;		  /* journal_void_set was done, or tried */
	int void_err;		  /* that it failed, to be logged by the keeper */
	bool sync_failed;	  /* degraded since an fsync failed: the next segment is tried with one */
	struct pathset dirty;
	bool dir_dirty;	       /* a segment's name is not durable yet */
	bool rung;	       /* the keeper was called */
	_Atomic uint64_t sync_ns; /* what a sync takes, a running mean */
	uint64_t begin_sync;   /* the syncer was asked to make records up to here durable; 0: it was not */
	bool stop;	       /* threads end */
	uint64_t given_up;     /* first record of those whose segments went while degraded: they stand in dirty; 0: none */
	uint64_t collapsed_to; /* records up to here stand in RECHECKs: their segments can go */
	uint64_t collapsed_end; /* the last of those RECHECKs, or a later record: who has it needs nothing of what was collapsed */
	bool log_degraded;     /* to be logged by the keeper, which holds no lock */
	uint64_t replaced;     /* records that had to be replaced by RECHECKs, not logged yet */
	/* Invariants while lock is free: cur is open and mapped, or NULL and degraded is set; tail + JREC_HEADER <= cur->size (a SEAL
	 * always fits); degraded == 0 implies dirty is empty. */

	struct {
		pthread_mutex_t lock;
		/* Protected by lock: */
		pthread_cond_t done;
		bool running;	      /* one thread syncs */
		uint64_t failed_upto; /* records up to here were in a sync that failed with err */
		int err;
	} sync;

	struct {
		pthread_mutex_t lock;
		int efd[JHEAD_SLOTS];  /* -1: free; protected by lock */
		_Atomic uint64_t used; /* bit per slot */
	} bell;
};

/* Sync a descriptor of the journal. Returns 0 or -errno. */
static inline int journal_sync_fd(struct journal *j, int fd)
{
	int (*fn)(int) = atomic_load(&j->sync_fd);
	return fn(fd);
}

/* journal.c */
/* Append without switching; the caller made sure that it fits. Returns 0, jrec_put's errors, or -EIO: cur cannot be written. */
int journal_put_locked(struct journal *j, struct jrec *r);
/* Enter the degraded state. */
void journal_degrade_locked(struct journal *j, int err);
/* Remember that what is on the disk is not to be relied upon (journal_void.h). */
void journal_void_locked(struct journal *j);
/* Append RECHECK records for the set (after a COLLAPSED of from..seq if from is not 0) to cur, where they
 * fit. Returns 0, or -EIO: cur cannot be written. */
int journal_put_set_locked(struct journal *j, struct pathset *set, uint64_t from);
/* Make the head page durable. Returns 0 or -errno. */
int journal_write_head(struct journal *j);
/* Ring the bells of sleeping readers. Takes no journal.lock. */
void journal_ring(struct journal *j);
/* Call the keeper. */
void journal_call_keeper_locked(struct journal *j);
/* Wait on cond for at most ms. Returns 0 or ETIMEDOUT. */
int journal_wait_locked(struct journal *j, pthread_cond_t *cond, unsigned ms);

/* journal_segment.c */
/* Bytes a segment has for records besides its SEAL. */
static inline size_t segment_room(size_t size)
{
	return size - JSEG_HEADER - JREC_HEADER;
}
/* Map s->fd. Returns 0 or -errno. */
int segment_map(struct segment *s);
/* Make the next segment, not listed yet. Returns 0 or -errno. */
int segment_prepare(struct journal *j, struct segment **out);
/* Seal cur (if there is one) and go on in next. Returns 0 or -errno with nothing changed. */
int segment_switch_locked(struct journal *j);
/* Put an existing segment into the list (recovery). */
struct segment *segment_new(uint64_t first_seq, size_t size);
void segment_free(struct segment *s);
/* Drop segments from the list's front whose records are all <= upto, never cur, and unlink them. */
void segment_reclaim(struct journal *j, uint64_t upto);
/* Unmap sealed segments. */
void segment_tidy(struct journal *j);
/* Recount head->bytes. */
void segment_count_locked(struct journal *j);

/* journal_sync.c */
/* Find out whether the journal can be made durable with a file. */
void sync_learn_disk(struct journal *j);
/* Begin to write the file, and write the segment: not durable, but for the disk's cache. Returns 0 or -1 with errno. */
int sync_write_fds(int segment, int file);
/* Make records up to seq durable, whatever the sync option. Returns 0 or -errno. */
int sync_upto(struct journal *j, uint64_t seq);
/* Are there sealed segments that are not durable? */
bool sync_behind(struct journal *j);

/* journal_collapse.c */
/* Replace all records by a set of RECHECK records. Returns 0, -EAGAIN (not now), or an error. */
int journal_collapse(struct journal *j);
/* Add what records first..last touch to set; the root when they cannot be read. */
void collapse_read(struct journal *j, struct pathset *set, uint64_t first, uint64_t last);

/* journal_thread.c */
int threads_start(struct journal *j);
void threads_stop(struct journal *j);
/* In the degraded state on a full disk: give up the old segments, whose records go to the set in memory. Keeper only. */
void collapse_give_up(struct journal *j);
/* Try to leave the degraded state. */
void journal_resume(struct journal *j);

/* journal_recover.c */
/* Find or make the journal: fills id, epoch, head, segs, cur, tail, seq, chain. */
int journal_recover(struct journal *j, enum journal_start *start, uint64_t *since_ns);

#endif
