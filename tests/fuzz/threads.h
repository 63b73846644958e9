/* SPDX-License-Identifier: BSD-2-Clause
 * Threads that are made once. Most of what an input costs a target that starts and ends threads is their making (a sanitizer gives each a stack,
 * a shadow of it and more). Linked with --wrap=pthread_create,--wrap=pthread_join: a thread runs on one that an earlier one has left. */
#ifndef TANDEM_FUZZ_THREADS_H
#define TANDEM_FUZZ_THREADS_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __real_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_join(pthread_t t, void **result);
int __real_pthread_join(pthread_t t, void **result);

#define POOL_MAX 16

static struct pooled {
	pthread_t thread;
	sem_t begin, done;
	bool taken; /* protected by pool_lock, as npool */
	void *(*fn)(void *);
	void *arg, *result;
} pool[POOL_MAX];
static unsigned npool;
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;

static void *pool_main(void *arg)
{
	struct pooled *p = arg;

	for (;;) {
		while (sem_wait(&p->begin) != 0)
			;
		p->result = p->fn(p->arg);
		sem_post(&p->done);
	}
	return NULL;
}

static struct pooled *pool_take_locked(void)
{
	struct pooled *p = pool;

	while (p < pool + npool && p->taken)
		p++;
	if (p < pool + npool)
		return p;
	if (npool == POOL_MAX || sem_init(&p->begin, 0, 0) != 0 || sem_init(&p->done, 0, 0) != 0 ||
	    __real_pthread_create(&p->thread, NULL, pool_main, p) != 0)
		abort();
	npool++;
	return p;
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	struct pooled *p;

	if (attr != NULL) /* a detached one */
		return __real_pthread_create(t, attr, fn, arg);
	pthread_mutex_lock(&pool_lock);
	p = pool_take_locked();
	p->taken = true;
	pthread_mutex_unlock(&pool_lock);
	p->fn = fn;
	p->arg = arg;
	*t = p->thread;
	sem_post(&p->begin);
	return 0;
}

int __wrap_pthread_join(pthread_t t, void **result)
{
	struct pooled *p = pool;

	while (p < pool + POOL_MAX && !(p->taken && pthread_equal(p->thread, t)))
		p++;
	if (p == pool + POOL_MAX)
		return __real_pthread_join(t, result);
	while (sem_wait(&p->done) != 0)
		;
	if (result != NULL)
		*result = p->result;
	pthread_mutex_lock(&pool_lock);
	p->taken = false;
	pthread_mutex_unlock(&pool_lock);
	return 0;
}

#endif
