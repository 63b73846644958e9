/* SPDX-License-Identifier: BSD-2-Clause
 * Write-behind: the thread that brings the bytes of a large new file to the disk while the rest still
 * arrives, and lets go of their pages.
 *
 * Left to itself the kernel collects the file in memory and writes when it must, mostly at the syncfs that
 * ends it: the disk rests while the file comes in, memory that holds what others read is taken for pages that
 * nobody reads, and every small change behind the file becomes durable only with all of it. Written piece by
 * piece a file arrives at the speed of the disk.
 *
 * Bytes that lie scattered in a file with holes are left to it all the same: it writes them in order when it
 * has them all (625 MiB in blocks of 16 KiB: 6 to 8 s; behind the writer, 10 to 20 s).
 *
 * A piece is a hint: one that finds no room, or that fails, is left to the kernel. Errors of writing are the
 * syncer's to find: syncfs reports them for the whole file system, whoever waited first. */
#ifndef TANDEM_MODULE_BEHIND_H
#define TANDEM_MODULE_BEHIND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BEHIND_FROM  (64u << 20) /* bytes of a file that come first and are left to the kernel */
#define BEHIND_PIECE (8u << 20)	 /* bytes handed over at once */
#define BEHIND_ALIGN (64u << 10) /* a page half written is not given back; no page is larger */
#define BEHIND_QUEUE 8		 /* pieces that wait for the thread */
#define BEHIND_MS    10		 /* a piece waits for room so long, and what follows in the stream too */

struct behind_piece {
	int fd; /* opened for reading: a descriptor for writing would keep a program from being run */
	off_t off, len;
};

/* One file on its way. All zero: nothing has come. */
struct behind_file {
	uint64_t bytes; /* the first ones, up to BEHIND_FROM */
	uint64_t from;	/* where the next piece begins */
	uint64_t fresh; /* bytes written behind that */
};

struct behind {
	pthread_t thread;
	bool started;

	pthread_mutex_t lock;
	/* protected by lock */
	pthread_cond_t more, room;
	struct behind_piece queue[BEHIND_QUEUE];
	unsigned first, n;
	bool stop;
};

/* Start the idle thread (before seccomp forbids it). Returns 0 or -errno. */
int behind_start(struct behind *b);
/* Bytes have been written to the new file dirfd/name, behind those before. */
void behind_written(struct behind *b, struct behind_file *f, int dirfd, const char *name, uint64_t off,
		    uint64_t len);
/* End and join the thread; what waits is left to the kernel. */
void behind_stop(struct behind *b);

#endif
