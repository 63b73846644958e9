/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/stay.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/clock.h"
#include "proto/log.h"

#define LOOK_MS    10      /* between two looks */
#define BUSY_TURNS 64u     /* turns in that time; with fewer there is nothing to win */
#define LOST_NS    3000000 /* of it, in which a thread waited for a processor */
#define LONG_NS    500000  /* each time, on average */
#define CALM_MS    30      /* looked at before callers are let stay: a processor must be idle for a tick */
#define HOLD_MS    100     /* normal after a thread had to wait; doubles each time */
#define HOLD_MAX   64000
#define GOOD_MS    500     /* so long without: begin with HOLD_MS again */
#define LOADED_MS  1000    /* until the next try if there is no idle processor */

static int set_policy(pid_t tid, bool idle)
{
	const struct sched_param p = {0};

	return sched_setscheduler(tid, idle ? SCHED_IDLE : SCHED_OTHER, &p);
}

static void set_all_locked(struct stay *s, bool idle)
{
	struct stay_seat *seat;

	s->idle = idle;
	SLIST_FOREACH(seat, &s->seats, link)
		set_policy(seat->tid, idle);
}

/* --- looking ------------------------------------------------------------------------------------- */

/* Whether it runs or waits for a processor (third field of stat, behind the name in parentheses). */
static bool runnable(const struct stay_seat *seat)
{
	char buf[128], *p;
	ssize_t n = pread(seat->stat, buf, sizeof(buf) - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	p = strrchr(buf, ')');
	return p && strncmp(p, ") R", 3) == 0;
}

/* Whether it had to wait for a processor since the last look: all the time, or LOST_NS of it, LONG_NS on average each time it ran (waited and
 * slices, the last fields of schedstat; that it waits while the caller goes to sleep is usual, and takes microseconds). */
static bool starved(struct stay_seat *seat)
{
	unsigned long long waited = seat->waited, slices = seat->slices;
	bool before = seat->runnable;
	char buf[96];
	ssize_t n = pread(seat->schedstat, buf, sizeof(buf) - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	if (sscanf(buf, "%*u %llu %llu", &seat->waited, &seat->slices) != 2)
		return false;
	seat->runnable = slices == seat->slices && runnable(seat);
	if (slices == seat->slices)
		return before && seat->runnable;
	waited = seat->waited - waited;
	return waited > LOST_NS && waited > LONG_NS * (seat->slices - slices);
}

/* What happened since the last look: how many turns were taken, whether a thread had to wait for a processor. */
static unsigned look_locked(struct stay *s, bool *waited)
{
	struct stay_seat *seat;
	unsigned turns = 0, n;

	*waited = false;
	SLIST_FOREACH(seat, &s->seats, link) {
		n = atomic_load_explicit(&seat->turns, memory_order_relaxed);
		turns += n - seat->seen;
		seat->seen = n;
		*waited |= starved(seat);
	}
	return turns;
}

static void pause_locked(struct stay *s, unsigned ms)
{
	uint64_t at = clock_mono() + ms * NS_PER_MS;

	while (!s->stop && clock_wait(&s->wake, &s->lock, at) == 0)
		;
}

/* Idle time of all processors, in ticks of 10 ms (/proc/stat: idle, and idle while somebody waits for a completion). */
static long long idle_ticks(void)
{
	FILE *f = fopen("/proc/stat", "re");
	long long idle = 0, iowait = 0;

	if (f && fscanf(f, "cpu %*d %*d %*d %lld %lld", &idle, &iowait) != 2)
		idle = iowait = 0;
	if (f)
		fclose(f);
	return idle + iowait;
}

/* Whether there is enough to do, and an idle processor to which callers would be moved. Returns how long to wait before it is asked again, in ms;
 * 0: there is. */
static unsigned try_later_locked(struct stay *s)
{
	bool waited;
	long long idle;
	unsigned turns;

	look_locked(s, &waited);
	idle = idle_ticks();
	pause_locked(s, CALM_MS);
	turns = look_locked(s, &waited);
	idle = idle_ticks() - idle;
	if (turns < BUSY_TURNS * CALM_MS / LOOK_MS)
		return CALM_MS;
	return idle == 0 ? LOADED_MS : 0;
}

/* Let callers stay until a thread has to wait for a processor (true) or there is too little to do (false). ms: how long it went. */
static bool let_stay_locked(struct stay *s, unsigned *ms)
{
	bool waited = false;
	unsigned turns = BUSY_TURNS;

	set_all_locked(s, true);
	for (*ms = 0; !s->stop && !waited && turns >= BUSY_TURNS; *ms += LOOK_MS) {
		pause_locked(s, LOOK_MS);
		turns = look_locked(s, &waited);
	}
	set_all_locked(s, false);
	return waited;
}

static void *watch(void *arg)
{
	struct stay *s = arg;
	unsigned hold = HOLD_MS, later, ms;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		atomic_store(&s->watching, false);
		while (!s->stop && !atomic_load(&s->watching))
			pthread_cond_wait(&s->wake, &s->lock);
		later = try_later_locked(s);
		if (later == 0 && let_stay_locked(s, &ms)) {
			if (ms >= GOOD_MS)
				hold = HOLD_MS;
			later = hold;
			hold = hold < HOLD_MAX ? 2 * hold : HOLD_MAX;
			log_debug("after %u ms a request waited for a processor: callers may be moved for %u ms", ms, later);
		}
		pause_locked(s, later);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* --- taking part ---------------------------------------------------------------------------------- */

void stay_wake(struct stay *s)
{
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->watching, true);
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

static bool bound(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1;
}

static int open_own(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/thread-self/%s", name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void close_own(struct stay_seat *seat)
{
	if (seat->schedstat >= 0)
		close(seat->schedstat);
	if (seat->stat >= 0)
		close(seat->stat);
}

void stay_join(struct stay *s, struct stay_seat *seat)
{
	memset(seat, 0, sizeof(*seat));
	seat->schedstat = seat->stat = -1;
	if (!s->on || !bound())
		return;
	seat->tid = gettid();
	seat->schedstat = open_own("schedstat");
	seat->stat = open_own("stat");
	if (seat->schedstat < 0 || seat->stat < 0) {
		close_own(seat);
		return;
	}
	seat->taken = true;
	pthread_mutex_lock(&s->lock);
	SLIST_INSERT_HEAD(&s->seats, seat, link);
	set_policy(0, s->idle); /* also back: it was inherited */
	pthread_mutex_unlock(&s->lock);
}

void stay_leave(struct stay *s, struct stay_seat *seat)
{
	if (!seat->taken)
		return;
	seat->taken = false;
	pthread_mutex_lock(&s->lock);
	SLIST_REMOVE(&s->seats, seat, stay_seat, link);
	pthread_mutex_unlock(&s->lock);
	set_policy(0, false);
	close_own(seat);
}

static void *there_and_back(void *arg)
{
	*(bool *)arg = set_policy(0, true) == 0 && set_policy(0, false) == 0;
	return NULL;
}

/* Tried by a thread that may have to stay so. */
static bool can_return(void)
{
	pthread_t t;
	bool can = false;

	return pthread_create(&t, NULL, there_and_back, &can) == 0 && pthread_join(t, NULL) == 0 && can;
}

void stay_start(struct stay *s)
{

	memset(s, 0, sizeof(*s));
	if (bound() || sched_getscheduler(0) != SCHED_OTHER || !can_return())
		return;
	pthread_mutex_init(&s->lock, NULL);
	clock_cond_init(&s->wake);
	SLIST_INIT(&s->seats);
	s->on = pthread_create(&s->thread, NULL, watch, s) == 0;
}

void stay_stop(struct stay *s)
{
	if (!s->on)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	s->on = false;
}
