/* SPDX-License-Identifier: BSD-2-Clause
 * The journal's head page: a file "head" of 4096 bytes in the journal directory, mapped shared by the
 * writer (tandemfs) and every reader. It is a cache and a doorbell: everything in it can be rebuilt
 * from the segments, except id and epoch, which are also in every segment header.
 *
 * Doorbell: a reader with nothing to read sets its slot's sleeping = 1, reads committed_seq once more
 * and, if still nothing, polls its eventfd (passed to tandemfs over the control socket). The writer
 * stores committed_seq, then for every slot that it exchanges from 1 to 0 writes the eventfd. */
#ifndef TANDEM_JHEAD_H
#define TANDEM_JHEAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define JHEAD_MAGIC 0x3144414548 /* "HEAD1" */
#define JHEAD_SIZE  4096u
#define JHEAD_NAME  "head"
#define JHEAD_SLOTS 64

struct jhead {
	uint64_t magic;
	uint8_t journal_id[16];
	uint64_t epoch;
	uint64_t segment_size;
	uint8_t boot_id[16];            /* of the writer's last start */
	_Atomic uint32_t clean;         /* 1: the writer closed the journal; 0: it runs, or was killed */
	_Atomic uint32_t writer_pid;    /* 0: no writer */
	_Atomic uint64_t committed_seq; /* last record completely written; 0: none */
	_Atomic uint64_t committed_ns;  /* its time */
	_Atomic uint64_t first_seq;     /* first record still on disk */
	_Atomic uint64_t synced_seq;    /* last record known durable */
	_Atomic uint64_t reclaim_seq;   /* set by the replicator: every target has records <= this durably; the writer unlinks segments */
	_Atomic uint64_t bytes;         /* bytes of segments on disk */
	_Atomic uint64_t appended_bytes;/* bytes of records ever appended by this process */
	_Atomic uint32_t collapsed;     /* 1: the journal was collapsed, and not every target has durably what that left to be compared */
	_Atomic uint32_t degraded;      /* 1: records could not be written; a dirty set is kept in memory */
	_Atomic uint64_t recover_ns;    /* not 0: a recovery from a power failure, of changes since then, is not finished */
	struct {
		_Atomic uint32_t used;     /* taken by a reader */
		_Atomic uint32_t sleeping;
	} slots[JHEAD_SLOTS];
	_Atomic uint64_t safe_seq; /* what these records tell of, and */
	_Atomic uint64_t safe_ns;  /* what changed before this time (CLOCK_REALTIME), is durable on the source; 0: not known */
	uint64_t mount_id;         /* of the mount of the journal's file system at the writer's last start (fio_mount_id); 0: not known */
};
_Static_assert(sizeof(struct jhead) <= JHEAD_SIZE, "head page");

/* Map the head page of a journal directory; create makes it if need be (if its magic is not JHEAD_MAGIC, the
 * caller fills it): it is the writer's, and comes back by itself after a failure of the disk (filemap.h). Returns
 * 0, -errno, E_VERSION, or (never with create) E_CHECKSUM when the file holds no head page. Unmap with jhead_unmap. */
int jhead_map(struct jhead **out, int dirfd, int create);
void jhead_unmap(struct jhead *h);

/* What a reader stores. Each can fail, where the file system is read-only, its disk failed, or it is full and copies on write: the page is then what it
 * was. One thread at a time uses a map. */
/* Ask for the doorbell. False: nobody will ring. */
bool jhead_sleep(struct jhead *h, int slot);
/* No ring is needed any more. False: one was sent, or will be. */
bool jhead_wake(struct jhead *h, int slot);
/* Every target has the records up to seq durably. */
void jhead_reclaim(struct jhead *h, uint64_t seq);

#endif
