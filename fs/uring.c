/* SPDX-License-Identifier: BSD-2-Clause
 * FUSE over io_uring. The kernel has a queue for each processor and puts a request into that of the processor it comes from;
 * threads bound to the same processor serve it, so that neither way costs a wake-up of another one.
 *
 * A thread has one entry of its queue: a buffer that the kernel fills with a request and takes the answer from.
 *
 *   registered --request--> serving --answer put--> committed = registered
 *
 * One system call commits an answer and waits for the next request. As each thread has its own entry, one that waits (fsync,
 * a slow server) holds up nobody: when all threads of a queue are busy, one more is started, up to a limit. They stay.
 *
 * The request reaches libfuse as if it had been read from /dev/fuse (fuse_session_process_buf), its answer comes back through
 * channel.c. libfuse wants a request in one piece, so the buffer has room for the headers before the payload. FORGET and
 * INTERRUPT still come through /dev/fuse. */
#include "config.h"

#include "fs/uring.h"

#if OWN_URING

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <unistd.h>

#include "fs/inflight.h"
#include "proto/log.h"
#include "proto/thread.h"

#ifndef FUSE_URING_IN_OUT_HEADER_SZ /* linux/fuse.h before 7.42 */
#define FUSE_URING_IN_OUT_HEADER_SZ 128
#define FUSE_URING_OP_IN_OUT_SZ     128

struct fuse_uring_ent_in_out {
	uint64_t flags;
	uint64_t commit_id;
	uint32_t payload_sz;
	uint32_t padding;
	uint64_t reserved;
};

struct fuse_uring_req_header {
	char in_out[FUSE_URING_IN_OUT_HEADER_SZ];
	char op_in[FUSE_URING_OP_IN_OUT_SZ];
	struct fuse_uring_ent_in_out ring_ent_in_out;
};

struct fuse_uring_cmd_req {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t qid;
	uint8_t padding[6];
};

enum { FUSE_IO_URING_CMD_REGISTER = 1, FUSE_IO_URING_CMD_COMMIT_AND_FETCH = 2 };
#endif

#define HEAD_ROOM   4096u /* bytes before the payload: the kernel's headers, and those of the request in one piece */
#define QUEUES_MAX  256u
#define SERVERS_MAX 16u   /* per queue */

/* What completes in a ring. */
enum { DONE_COMMAND = 1, DONE_STOP = 2 };

struct queue {
	/* immutable */
	unsigned qid;             /* the processor's number */
	/* changed with uring.lock, read without */
	_Atomic unsigned limit;   /* servers at most */
	_Atomic unsigned servers;
	/* without lock */
	_Atomic unsigned idle;    /* servers that wait for a request */
	_Atomic bool growing;     /* one more is being started */
};

/* A thread and its entry. */
struct uring_server {
	SLIST_ENTRY(uring_server) link; /* uring.lock */
	/* immutable */
	struct uring *u;
	struct queue *queue;
	char *room;             /* HEAD_ROOM + payload bytes */
	pthread_t thread;
	/* the thread's own */
	struct io_uring ring;
	bool open;              /* ring is */
	uint64_t unique;        /* of the request being served */
	bool answered;
};

struct uring {
	/* immutable */
	struct tfs *fs;
	size_t payload;         /* bytes */
	unsigned nqueues;
	struct queue *queues;
	int stopfd;             /* eventfd, readable from uring_stop on */
	pthread_mutex_t lock;
	pthread_cond_t change;
	/* lock */
	SLIST_HEAD(, uring_server) servers;
	enum { WAIT, GO, STOP } phase;
	unsigned reported;      /* steps that servers have taken: opened a ring, offered their buffer */
	unsigned failed;        /* of these */
};

static struct fuse_uring_req_header *header(struct uring_server *s)
{
	return (struct fuse_uring_req_header *)s->room;
}

static char *payload(struct uring_server *s)
{
	return s->room + HEAD_ROOM;
}

/* --- the ring ------------------------------------------------------------------------------------ */

static void put_command(struct uring_server *s, uint32_t op, const struct iovec *iov, uint64_t commit_id)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
	struct fuse_uring_cmd_req req = {.commit_id = commit_id, .qid = (uint16_t)s->queue->qid};

	if (!sqe)
		return; /* cannot be: there is room for both */
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = IOSQE_FIXED_FILE; /* file 0: the session's */
	sqe->cmd_op = op;
	sqe->addr = (uintptr_t)iov;
	sqe->len = iov ? 2 : 0;
	sqe->user_data = DONE_COMMAND;
	memcpy(sqe->cmd, &req, sizeof(req));
}

/* By the thread that uses it. */
static int ring_open(struct uring_server *s)
{
	struct io_uring_params p = {.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
	int fd = fuse_session_fd(s->u->fs->se), r = io_uring_queue_init_params(4, &s->ring, &p);
	struct io_uring_sqe *sqe;

	if (r < 0)
		return r;
	r = io_uring_register_files(&s->ring, &fd, 1);
	if (r < 0) {
		io_uring_queue_exit(&s->ring);
		return r;
	}
	sqe = io_uring_get_sqe(&s->ring);
	io_uring_prep_poll_add(sqe, s->u->stopfd, POLLIN);
	sqe->user_data = DONE_STOP;
	return 0;
}

/* Offer our buffer to the kernel. Returns 0 or -errno. */
static int enlist(struct uring_server *s)
{
	struct iovec iov[2] = {{s->room, HEAD_ROOM}, {payload(s), s->u->payload}};
	struct io_uring_cqe *cqe;
	int r;

	put_command(s, FUSE_IO_URING_CMD_REGISTER, iov, 0);
	r = io_uring_submit(&s->ring);
	if (r < 0)
		return r;
	/* a refusal is there at once, and a request may be too */
	return io_uring_peek_cqe(&s->ring, &cqe) == 0 && cqe->res < 0 ? cqe->res : 0;
}

/* --- serving ------------------------------------------------------------------------------------- */

ssize_t uring_reply(struct tfs *fs, const struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct worker *w = pthread_getspecific(fs->worker_key);
	struct uring_server *s = w ? w->server : NULL;
	size_t len = 0;

	if (!s || s->answered || out->unique != s->unique)
		return 0;
	for (int k = 1; k < count; k++) {
		if (iov[k].iov_len > s->u->payload - len) {
			errno = EINVAL;
			return -1;
		}
		if (iov[k].iov_base != payload(s) + len)
			memcpy(payload(s) + len, iov[k].iov_base, iov[k].iov_len);
		len += iov[k].iov_len;
	}
	memcpy(header(s)->in_out, out, sizeof(*out));
	header(s)->ring_ent_in_out.payload_sz = (uint32_t)len;
	s->answered = true;
	return (ssize_t)(sizeof(*out) + len);
}

char *uring_buffer(struct worker *w, size_t size)
{
	return w && w->server && size <= w->server->u->payload ? payload(w->server) : NULL;
}

static void answer_error(struct uring_server *s, int err)
{
	struct fuse_out_header out = {.len = sizeof(out), .error = err, .unique = s->unique};

	memcpy(header(s)->in_out, &out, sizeof(out));
	header(s)->ring_ent_in_out.payload_sz = 0;
}

/* Serve the request in the buffer and put the answer there. */
static void serve(struct uring_server *s)
{
	struct fuse_uring_req_header *h = header(s);
	struct fuse_in_header in;
	uint64_t commit_id = h->ring_ent_in_out.commit_id;
	size_t args, head;
	struct fuse_buf buf = {.mem = NULL};

	memcpy(&in, h->in_out, sizeof(in));
	s->unique = in.unique;
	s->answered = false;
	args = in.len - sizeof(in) - h->ring_ent_in_out.payload_sz; /* the operation's own header */
	if (in.len < sizeof(in) + h->ring_ent_in_out.payload_sz || args > sizeof(h->op_in)) {
		answer_error(s, -EIO);
		put_command(s, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, NULL, commit_id);
		return;
	}
	head = sizeof(in) + args;
	buf.mem = payload(s) - head;
	buf.size = in.len;
	memcpy(buf.mem, &in, sizeof(in));
	memcpy((char *)buf.mem + sizeof(in), h->op_in, args);
	fuse_session_process_buf(s->u->fs->se, &buf);
	if (!s->answered)
		answer_error(s, -EIO);
	put_command(s, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, NULL, commit_id);
}

static void grow(struct queue *q, struct uring *u);

/* Wait for requests and serve them until the connection or the session ends. Returns 0 or -errno. */
static int loop(struct uring_server *s)
{
	struct queue *q = s->queue;
	struct io_uring_cqe *cqe;
	int r, res;
	uint64_t what;

	for (;;) {
		atomic_fetch_add_explicit(&q->idle, 1, memory_order_relaxed);
		do
			r = io_uring_submit_and_wait(&s->ring, 1);
		while (r == -EINTR);
		if (atomic_fetch_sub_explicit(&q->idle, 1, memory_order_relaxed) == 1)
			grow(q, s->u);
		if (r < 0)
			return r;
		while (io_uring_peek_cqe(&s->ring, &cqe) == 0) {
			what = cqe->user_data;
			res = cqe->res;
			io_uring_cqe_seen(&s->ring, cqe);
			if (what == DONE_STOP || res == -ENOTCONN || res == -ECONNABORTED)
				return 0;
			if (res < 0)
				return res;
			serve(s);
		}
	}
}

static void bind_to(unsigned cpu)
{
	cpu_set_t *set = CPU_ALLOC(QUEUES_MAX);

	if (!set)
		return;
	CPU_ZERO_S(CPU_ALLOC_SIZE(QUEUES_MAX), set);
	CPU_SET_S(cpu, CPU_ALLOC_SIZE(QUEUES_MAX), set);
	sched_setaffinity(0, CPU_ALLOC_SIZE(QUEUES_MAX), set); /* fails for one that is off: any other will do */
	CPU_FREE(set);
}

static void report(struct uring *u, int err)
{
	pthread_mutex_lock(&u->lock);
	u->reported++;
	u->failed += err < 0;
	pthread_cond_broadcast(&u->change);
	pthread_mutex_unlock(&u->lock);
}

/* Tell how a step went; then wait until the kernel may be asked. Returns whether it may. */
static bool may_enlist(struct uring *u, int err)
{
	bool go;

	report(u, err);
	pthread_mutex_lock(&u->lock);
	while (u->phase == WAIT)
		pthread_cond_wait(&u->change, &u->lock);
	go = u->phase == GO;
	pthread_mutex_unlock(&u->lock);
	return go && err == 0;
}

static void *server_main(void *arg)
{
	struct uring_server *s = arg;
	struct worker *w;
	char name[16];
	int r;

	snprintf(name, sizeof(name), "fuse-ring-%u", s->queue->qid);
	pthread_setname_np(pthread_self(), name);
	bind_to(s->queue->qid);
	w = worker_get(s->u->fs);
	r = w ? ring_open(s) : -ENOMEM;
	s->open = r == 0;
	if (may_enlist(s->u, r)) {
		w->server = s; /* NOLINT(clang-analyzer-core.NullDereference): without w r is an error, and may_enlist says no */
		r = enlist(s);
		report(s->u, r);
		atomic_store(&s->queue->growing, false);
		if (r == 0)
			r = loop(s);
		w->server = NULL;
		if (r < 0)
			log_warn("a thread on a queue of io_uring ends: %s", strerror(-r));
	}
	if (s->open)
		io_uring_queue_exit(&s->ring);
	return NULL;
}

/* --- starting and stopping ------------------------------------------------------------------------ */

static void server_free(struct uring_server *s)
{
	munmap(s->room, HEAD_ROOM + s->u->payload);
	free(s);
}

static int server_start_locked(struct uring *u, struct queue *q)
{
	struct uring_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->u = u;
	s->queue = q;
	s->room = mmap(NULL, HEAD_ROOM + u->payload, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->room == MAP_FAILED) {
		free(s);
		return -ENOMEM;
	}
	r = thread_start(&s->thread, 0, server_main, s);
	if (r < 0) {
		server_free(s);
		return r;
	}
	SLIST_INSERT_HEAD(&u->servers, s, link);
	q->servers++;
	return 0;
}

/* All servers of a queue are busy: have one more. */
static void grow(struct queue *q, struct uring *u)
{
	bool not_yet = false;

	if (q->servers >= q->limit || !atomic_compare_exchange_strong(&q->growing, &not_yet, true))
		return;
	pthread_mutex_lock(&u->lock);
	if (u->phase != GO || server_start_locked(u, q) < 0)
		q->limit = q->servers;
	pthread_mutex_unlock(&u->lock);
}

/* The kernel has a queue for each processor that could be there. Returns their number, 0 if it is not known. */
static unsigned possible_processors(void)
{
	FILE *f = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned n = 0, from, to;
	int c = ',';

	while (f && c == ',' && fscanf(f, "%u", &from) == 1) {
		to = from;
		c = getc(f);
		if (c == '-' && fscanf(f, "%u", &to) == 1)
			c = getc(f);
		n += to >= from ? to - from + 1 : 0;
	}
	if (f)
		fclose(f);
	return n;
}

static struct uring *uring_new(struct tfs *fs, size_t size, unsigned nqueues)
{
	struct uring *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->fs = fs;
	u->payload = size;
	u->nqueues = nqueues;
	u->queues = calloc(nqueues, sizeof(*u->queues));
	u->stopfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&u->lock, NULL);
	pthread_cond_init(&u->change, NULL);
	SLIST_INIT(&u->servers);
	for (unsigned n = 0; u->queues && n < nqueues; n++) {
		u->queues[n].qid = n;
		u->queues[n].limit = INFLIGHT_OPS / 2 / nqueues;
		if (u->queues[n].limit > SERVERS_MAX)
			u->queues[n].limit = SERVERS_MAX;
	}
	return u;
}

/* Wait until the first servers have taken so many steps. Returns 0 or -EOPNOTSUPP. */
static int wait_for(struct uring *u, unsigned steps)
{
	bool ok;

	pthread_mutex_lock(&u->lock);
	while (u->reported < u->nqueues * steps && u->failed == 0)
		pthread_cond_wait(&u->change, &u->lock);
	ok = u->failed == 0;
	pthread_mutex_unlock(&u->lock);
	return ok ? 0 : -EOPNOTSUPP;
}

int uring_start(struct tfs *fs, size_t size)
{
	unsigned n = possible_processors();
	struct uring *u;
	int r = 0;

	if (n == 0 || n > QUEUES_MAX)
		return -ENOSYS;
	fs->queues = u = uring_new(fs, size, n);
	if (!u)
		return -ENOMEM;
	if (!u->queues || u->stopfd < 0)
		r = -ENOMEM;
	pthread_mutex_lock(&u->lock);
	for (unsigned k = 0; r == 0 && k < n; k++)
		r = server_start_locked(u, &u->queues[k]);
	pthread_mutex_unlock(&u->lock);
	if (r == 0)
		r = wait_for(u, 1);
	if (r < 0)
		uring_stop(fs);
	return r;
}

int uring_go(struct tfs *fs)
{
	struct uring *u = fs->queues;

	pthread_mutex_lock(&u->lock);
	u->phase = GO;
	pthread_cond_broadcast(&u->change);
	pthread_mutex_unlock(&u->lock);
	return wait_for(u, 2);
}

void uring_stop(struct tfs *fs)
{
	struct uring *u = fs->queues;
	struct uring_server *s;

	if (!u)
		return;
	pthread_mutex_lock(&u->lock);
	u->phase = STOP;
	pthread_cond_broadcast(&u->change);
	pthread_mutex_unlock(&u->lock);
	if (u->stopfd >= 0)
		eventfd_write(u->stopfd, 1);
	while ((s = SLIST_FIRST(&u->servers))) {
		SLIST_REMOVE_HEAD(&u->servers, link);
		pthread_join(s->thread, NULL);
		server_free(s);
	}
	if (u->stopfd >= 0)
		close(u->stopfd);
	pthread_mutex_destroy(&u->lock);
	pthread_cond_destroy(&u->change);
	free(u->queues);
	free(u);
	fs->queues = NULL;
}

#endif
