/* SPDX-License-Identifier: BSD-2-Clause
 * Threads of our own: signals belong to those of the program. */
#ifndef TANDEM_THREAD_H
#define TANDEM_THREAD_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

/* A thread has the scheduling policy of the program, also if its starter has another one for the moment (fs/stay.h). */
static inline void thread_policy(pthread_attr_t *attr)
{
	struct sched_param p;
	int policy = sched_getscheduler(getpid());

	if (policy < 0 || policy == sched_getscheduler(0) || sched_getparam(getpid(), &p) != 0)
		return;
	pthread_attr_setinheritsched(attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(attr, policy);
	pthread_attr_setschedparam(attr, &p);
}

/* Start a thread that takes no signals but those of its own faults (filemap.h). stack: its bytes, 0: as many as is usual. Returns 0 or -errno. */
static inline int thread_start(pthread_t *t, size_t stack, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
	sigset_t all, old;
	int err;

	pthread_attr_init(&attr);
	if (stack != 0)
		pthread_attr_setstacksize(&attr, stack);
	thread_policy(&attr);
	sigfillset(&all);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&all, faults[i]);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(t, &attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -err;
}

#endif
