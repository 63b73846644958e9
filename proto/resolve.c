/* SPDX-License-Identifier: BSD-2-Clause
 * Name resolution with a deadline: see resolve.h. An address needs no name service and is converted at once; a name is looked up by a detached
 * thread, which shares a struct lookup with its asker. Whoever leaves last frees it. */
#include "config.h"
#include "proto/resolve.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "proto/conn_int.h"
#include "proto/err.h"

struct lookup {
	char host[NI_MAXHOST], port[16]; /* immutable */
	int done;                        /* eventfd: readable when the thread has written what follows */
	int gai, err;                    /* getaddrinfo's result; errno of EAI_SYSTEM */
	struct addrinfo *list;           /* owned until the asker takes it */
	_Atomic int refs;
};

static void leave(struct lookup *l)
{
	if (--l->refs > 0)
		return;
	if (l->list != NULL)
		freeaddrinfo(l->list);
	close(l->done);
	free(l);
}

static void look_up(struct lookup *l, int flags)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};

	l->gai = getaddrinfo(l->host, l->port, &hints, &l->list);
	l->err = l->gai == EAI_SYSTEM ? errno : 0;
	if (l->gai != 0)
		l->list = NULL;
}

static void *look_up_main(void *arg)
{
	struct lookup *l = arg;

	look_up(l, AI_ADDRCONFIG);
	eventfd_write(l->done, 1);
	leave(l);
	return NULL;
}

/* Have a thread look it up. */
static int start(struct lookup *l)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	l->refs++;
	r = pthread_create(&thread, &attr, look_up_main, l);
	if (r != 0)
		l->refs--;
	pthread_attr_destroy(&attr);
	return -r;
}

/* Wait for the answer. Reading what tells of it orders its stores before our loads. */
static int await(struct lookup *l, int cancelfd, int64_t deadline)
{
	uint64_t n;
	int r = conn_wait(l->done, POLLIN, cancelfd, deadline);

	return r == 0 && read(l->done, &n, sizeof(n)) < 0 ? -errno : r;
}

int resolve(struct addrinfo **list, const char *host, int port, int cancelfd, int64_t deadline, int *gai)
{
	struct lookup *l = calloc(1, sizeof(*l));
	int r = 0;

	*list = NULL;
	*gai = 0;
	if (l == NULL)
		return -ENOMEM;
	l->refs = 1;
	snprintf(l->host, sizeof(l->host), "%s", host);
	snprintf(l->port, sizeof(l->port), "%d", port);
	l->done = eventfd(0, EFD_CLOEXEC);
	if (l->done < 0) {
		r = -errno;
		free(l);
		return r;
	}
	look_up(l, AI_NUMERICHOST);
	if (l->gai == EAI_NONAME && (r = start(l)) == 0)
		r = await(l, cancelfd, deadline);
	if (r == 0 && l->gai != 0) {
		r = l->gai == EAI_SYSTEM ? -l->err : -EHOSTUNREACH;
		*gai = l->gai == EAI_SYSTEM ? 0 : l->gai;
	}
	if (r == 0) {
		*list = l->list;
		l->list = NULL;
	}
	leave(l);
	return r;
}
