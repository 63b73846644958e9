/* SPDX-License-Identifier: BSD-2-Clause
 * replicator.sock: a `wait` and the target's thread that it waits for, at the worst moment. The target of these tests reaches what is waited
 * for right after it was looked at. */
#include "config.h"
#include "unit.h"
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include "proto/ctlsock.h"
#include "replicator/source/replicator.h"

static struct replicator mirror = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .ntargets = 1};
static pthread_t mover;
static bool moving;
static _Atomic bool there, told, lost;
static _Atomic int hurried;

/* What the target's thread does when it moves (replicator.c). */
static void *move(void *arg)
{
	there = true;
	pthread_mutex_lock(&mirror.lock);
	pthread_cond_broadcast(&mirror.changed);
	told = true;
	pthread_mutex_unlock(&mirror.lock);
	return NULL;
}

bool target_has(struct target *t, const uint8_t journal_id[16], uint64_t seq, char *why, size_t size)
{
	if (there)
		return true;
	if (pthread_mutex_trylock(&mirror.lock) == 0) { /* nothing keeps the target from moving now */
		pthread_mutex_unlock(&mirror.lock);
		move(NULL);
	} else if (!moving) {
		moving = true;
		pthread_create(&mover, NULL, move, NULL);
	}
	return false;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until)
{
	if (!told)
		return pthread_cond_wait(cond, lock);
	lost = true; /* nobody wakes us any more */
	return ETIMEDOUT;
}

void target_sync(struct target *t)
{
	hurried++;
}

void target_pause(struct target *t, bool on)
{
}

void target_resync(struct target *t, bool allow)
{
}

void target_verify(struct target *t, struct vjob *j)
{
}

json_t *target_status(struct target *t, const uint8_t journal_id[16], uint64_t head_seq, bool *insync, bool *broken)
{
	return json_object();
}

uint64_t target_reclaimable(struct target *t, const uint8_t journal_id[16])
{
	return 0;
}

static void *serve(void *arg)
{
	control_serve(&mirror, *(int *)arg);
	return NULL;
}

START_TEST(test_a_move_during_the_look_wakes)
{
	json_t *args = json_pack("{s:i, s:f}", "seq", 1, "timeout", 0.0), *reply;
	int fd[2], fds[CTL_FDS_MAX];
	pthread_t server;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), 0);
	ck_assert_int_eq(pthread_create(&server, NULL, serve, &fd[0]), 0);
	ck_assert_int_eq(ctl_call(fd[1], "wait", args, &reply, fds, -1), 0);
	close(fd[1]);
	pthread_join(server, NULL);
	if (moving)
		pthread_join(mover, NULL);
	json_decref(reply);
	json_decref(args);
	ck_assert(!lost);
	ck_assert_int_eq(hurried, 1);
}
END_TEST

UNIT_MAIN("control", test_a_move_during_the_look_wakes)
