/* SPDX-License-Identifier: BSD-2-Clause
 * Write-behind: the thread that brings the bytes of a large new file to the disk while the rest still arrives, and lets go of their
 * pages.
 *
 * Left to itself the kernel collects the file in memory and writes when it must, mostly at the syncfs that ends it: the disk rests while
 * the file comes in, memory that holds what others read is taken for pages that nobody reads, and every small change behind the file
 * becomes durable only with all of it. Written piece by piece a file arrives at the speed of the disk.
 *
 * A piece is a hint: one that finds no room, or that fails, is left to the kernel. Errors of writing are the syncer's to find: syncfs
 * reports them for the whole file system, whoever waited first. */
#ifndef TANDEM_MODULE_BEHIND_H
#define TANDEM_MODULE_BEHIND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BEHIND_FROM  (64u << 20) /* bytes at the beginning of a file that are left to the kernel */
#define BEHIND_PIECE (8u << 20)	 /* bytes handed over at once */
#define BEHIND_QUEUE 8		 /* pieces that wait for the thread */
#define BEHIND_MS    10		 /* time that a piece waits for room: what is behind it in the stream waits, too */

struct behind_piece {
	int fd; /* opened for reading: a descriptor for writing would keep a program from being run */
	off_t off, len;
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
/* Bytes up to end have been written to the new file dirfd/name; *done is where the last piece ended, 0 at first, and moves on. */
void behind_written(struct behind *b, int dirfd, const char *name, uint64_t *done, uint64_t end);
/* End and join the thread; what waits is left to the kernel. */
void behind_stop(struct behind *b);

#endif
