/* SPDX-License-Identifier: BSD-2-Clause
 * Callers stay on their processor.
 *
 * A request over io_uring is served by a thread bound to the caller's processor. When the answer wakes the caller, the scheduler sees that
 * processor busy (with us), and moves the caller to one that is idle; so does the next answer. Waking an idle processor costs more than all
 * the rest of a short request, most of all in a virtual machine. A processor whose only task has the policy SCHED_IDLE counts as idle: with that
 * policy for our threads the caller stays.
 *
 * It would starve them where others need the processors, or where a caller does not wait for its answer (RELEASE) and goes on computing. So they have it
 * only while many requests come and a processor is idle, and a thread of its own looks every 10 ms: when one of them waited for a processor, they
 * are normal again, for a tenth of a second at first, and for longer each time it happens again soon. */
#ifndef TANDEM_FS_STAY_H
#define TANDEM_FS_STAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#define STAY_TURNS 256u /* of a thread, after which it says that there is work */

/* A thread that takes part. */
struct stay_seat {
	SLIST_ENTRY(stay_seat) link; /* stay.lock */
	/* immutable while linked */
	bool taken;
	pid_t tid;
	int schedstat, stat;         /* its files below /proc */
	/* the thread's own, read by any */
	_Atomic unsigned turns;
	/* the watching thread's: what it saw last */
	unsigned seen;
	unsigned long long waited;   /* ns, for a processor */
	unsigned long long slices;   /* times it ran */
	bool runnable;
};

struct stay {
	bool on;                     /* immutable: it can be done */
	pthread_t thread;
	pthread_mutex_t lock;        /* a leaf */
	pthread_cond_t wake;
	_Atomic bool watching;       /* set with lock */
	/* lock */
	SLIST_HEAD(, stay_seat) seats;
	bool idle;                   /* the policy of those that take part */
	bool stop;
};

/* Start the thread that watches. Where the policy cannot be changed back (no CAP_SYS_NICE), or is not the usual one, nothing is done, now or later. */
void stay_start(struct stay *s);
void stay_stop(struct stay *s);
/* By a thread: take part, if it is bound to one processor; before it ends, leave. */
void stay_join(struct stay *s, struct stay_seat *seat);
void stay_leave(struct stay *s, struct stay_seat *seat);
void stay_wake(struct stay *s);

/* By a thread, once or more for each request. */
static inline void stay_turn(struct stay *s, struct stay_seat *seat)
{
	unsigned n = atomic_load_explicit(&seat->turns, memory_order_relaxed) + 1;

	atomic_store_explicit(&seat->turns, n, memory_order_relaxed);
	if (n % STAY_TURNS == 0 && seat->taken && !atomic_load_explicit(&s->watching, memory_order_relaxed))
		stay_wake(s);
}

#endif
