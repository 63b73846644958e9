/* SPDX-License-Identifier: BSD-2-Clause
 * With what policy the threads of io_uring's queues wait: SCHED_IDLE while many requests come and a processor is idle, else the usual one. */
#include "config.h"
#include <sched.h>
#include <time.h>
#include "fs/stay.h"
#include "proto/thread.h"
#include "tests/unit/unit.h"

/* A thread that takes turns as if it served requests, with a little rest after each. */
struct server {
	pthread_t thread;
	struct stay *stay;
	struct stay_seat seat;
	bool bind;
	_Atomic bool work, end;
	_Atomic pid_t tid;
};

static void bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(set), &set), 0);
}

static int some_cpu(void)
{
	cpu_set_t set;
	int cpu = 0;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	return cpu;
}

static void rest(long us)
{
	nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

static void *serve(void *arg)
{
	struct server *s = arg;

	if (s->bind)
		bind_to(some_cpu());
	stay_join(s->stay, &s->seat);
	atomic_store(&s->tid, gettid());
	while (!atomic_load(&s->end)) {
		for (int n = 0; n < 32 && atomic_load(&s->work); n++)
			stay_turn(s->stay, &s->seat);
		rest(100);
	}
	stay_leave(s->stay, &s->seat);
	return NULL;
}

static void start(struct server *s, struct stay *stay, bool bind)
{
	memset(s, 0, sizeof(*s));
	s->stay = stay;
	s->bind = bind;
	atomic_store(&s->work, true);
	ck_assert_int_eq(pthread_create(&s->thread, NULL, serve, s), 0);
	while (!atomic_load(&s->tid))
		rest(100);
}

static void end(struct server *s)
{
	atomic_store(&s->end, true);
	pthread_join(s->thread, NULL);
}

/* Wait until the server has this policy. Returns whether it came to it. */
static bool becomes(const struct server *s, int policy)
{
	for (int n = 0; n < 20000; n++) {
		if (sched_getscheduler(atomic_load(&s->tid)) == policy)
			return true;
		rest(1000);
	}
	return false;
}

static long long idle_ticks(void)
{
	FILE *f = fopen("/proc/stat", "re");
	long long idle, iowait;

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "cpu %*d %*d %*d %lld %lld", &idle, &iowait), 2);
	fclose(f);
	return idle + iowait;
}

/* Wait until the server lets callers stay. Returns false if it need not: nearly no processor was idle in all the time. */
static bool lets_stay(const struct server *s)
{
	long long before = idle_ticks();
	bool does = becomes(s, SCHED_IDLE);

	ck_assert(does || idle_ticks() - before < 100);
	return does;
}

/* Whether this machine can show it: a processor to spare, and the right to change the policy. */
static bool begin(struct stay *stay)
{
	cpu_set_t set;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	stay_start(stay);
	return CPU_COUNT(&set) > 1 && geteuid() == 0;
}

START_TEST(waits_so_that_callers_stay_while_there_is_work)
{
	struct stay stay;
	struct server s;

	if (!begin(&stay))
		return;
	ck_assert(stay.on);
	start(&s, &stay, true);
	if (lets_stay(&s)) {
		atomic_store(&s.work, false);
		ck_assert(becomes(&s, SCHED_OTHER));
		atomic_store(&s.work, true);
		lets_stay(&s);
	}
	end(&s);
	stay_stop(&stay);
}
END_TEST

static void *compute(void *arg)
{
	const _Atomic bool *stop = arg;

	bind_to(some_cpu());
	while (!atomic_load(stop))
		;
	return NULL;
}

/* A thread with the policy SCHED_IDLE does not run while another wants the processor: it must not stay so. */
START_TEST(is_not_starved)
{
	struct stay stay;
	struct server s;
	pthread_t other;
	_Atomic bool stop = false;

	if (!begin(&stay))
		return;
	start(&s, &stay, true);
	if (lets_stay(&s)) {
		ck_assert_int_eq(pthread_create(&other, NULL, compute, &stop), 0);
		ck_assert(becomes(&s, SCHED_OTHER));
		atomic_store(&stop, true);
		pthread_join(other, NULL);
	}
	end(&s);
	stay_stop(&stay);
}
END_TEST

START_TEST(threads_that_are_not_bound_take_no_part)
{
	struct stay stay;
	struct server bound, free_;

	if (!begin(&stay))
		return;
	start(&free_, &stay, false);
	start(&bound, &stay, true);
	lets_stay(&bound);
	ck_assert_int_eq(sched_getscheduler(atomic_load(&free_.tid)), SCHED_OTHER);
	end(&free_);
	end(&bound);
	stay_stop(&stay);
}
END_TEST

static void *join_and_tell(void *arg)
{
	struct server *s = arg;

	bind_to(some_cpu());
	stay_join(s->stay, &s->seat);
	atomic_store(&s->tid, sched_getscheduler(0) == SCHED_OTHER ? 1 : 2);
	stay_leave(s->stay, &s->seat);
	return NULL;
}

/* A thread that was started by one with that policy has inherited it. */
START_TEST(whoever_joins_has_the_policy_of_now)
{
	struct stay stay;
	struct server s = {.stay = &stay};
	const struct sched_param p = {0};

	if (!begin(&stay))
		return;
	ck_assert_int_eq(sched_setscheduler(0, SCHED_IDLE, &p), 0);
	ck_assert_int_eq(pthread_create(&s.thread, NULL, join_and_tell, &s), 0);
	pthread_join(s.thread, NULL);
	ck_assert_int_eq(s.tid, 1);
	stay_stop(&stay);
}
END_TEST

static void *tell_policy(void *arg)
{
	*(int *)arg = sched_getscheduler(0);
	return NULL;
}

static void *start_another(void *arg)
{
	const struct sched_param p = {0};
	pthread_t t;

	if (sched_setscheduler(0, SCHED_IDLE, &p) == 0 && thread_start(&t, 0, tell_policy, arg) == 0)
		pthread_join(t, NULL);
	return NULL;
}

/* One more server is started by one that waits as SCHED_IDLE. Until it takes part nobody would see it starve. */
START_TEST(who_is_started_by_one_of_them_is_not_starved)
{
	pthread_t t;
	int policy = -1;

	ck_assert_int_eq(pthread_create(&t, NULL, start_another, &policy), 0);
	pthread_join(t, NULL);
	ck_assert_int_eq(policy, sched_getscheduler(0));
}
END_TEST

UNIT_MAIN("stay", who_is_started_by_one_of_them_is_not_starved, waits_so_that_callers_stay_while_there_is_work, is_not_starved, threads_that_are_not_bound_take_no_part, whoever_joins_has_the_policy_of_now)
