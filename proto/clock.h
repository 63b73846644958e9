/* SPDX-License-Identifier: BSD-2-Clause
 * The two clocks, in nanoseconds, and waiting by the one that is never set. */
#ifndef TANDEM_PROTO_CLOCK_H
#define TANDEM_PROTO_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

/* CLOCK_MONOTONIC: for deadlines and rates. */
static inline uint64_t clock_mono(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* CLOCK_REALTIME: comparable with the time of records. */
static inline uint64_t clock_real(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* A condition for clock_wait. */
static inline void clock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* Wait until the time clock_mono() shows at. Returns as pthread_cond_timedwait. */
static inline int clock_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t at)
{
	const struct timespec ts = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};

	return pthread_cond_timedwait(cond, lock, &ts);
}

#endif
