/* SPDX-License-Identifier: BSD-2-Clause
 * replicator.sock: one thread per client, which may wait for long (docs/ARCHITECTURE.md, Control sockets). */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/clock.h"
#include "proto/log.h"
#include "replicator/source/replicator.h"

#define LOOK_MS 500 /* how often a waiting command looks whether its client is still there */

static int reply_ok(int fd)
{
	json_t *o = json_pack("{s:b}", "ok", 1);
	int r = ctl_send(fd, o, NULL, 0);

	json_decref(o);
	return r;
}

static int reply_error(int fd, const char *text)
{
	json_t *o = json_pack("{s:b}", "ok", 0);
	int r;

	ctl_set_path(o, "error", text);
	r = ctl_send(fd, o, NULL, 0);
	json_decref(o);
	return r;
}

static bool client_gone(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR | POLLRDHUP)) != 0;
}

static bool flag(const json_t *request, const char *name)
{
	return json_is_true(json_object_get(request, name));
}

/* --- status, pause, resume --- */

static int op_status(struct replicator *r, int fd, const json_t *request)
{
	json_t *o = status_json(r), *list = json_object_get(o, "targets");
	int ret = ctl_send(fd, o, NULL, 0);
	size_t i;

	if (ret == E_LIMIT || ret == -EMSGSIZE) { /* too many errors for one packet */
		for (i = 0; i < json_array_size(list); i++) {
			json_t *errors = json_object_get(json_array_get(list, i), "errors");

			while (json_array_size(errors) > 3)
				json_array_remove(errors, json_array_size(errors) - 1);
		}
		ret = ctl_send(fd, o, NULL, 0);
	}
	json_decref(o);
	return ret;
}

/* Remember it for the next start. */
static void keep_paused(const struct replicator *r, bool on)
{
	int fd = on ? openat(r->state_dirfd, REPLICATOR_PAUSED, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;

	if (fd >= 0)
		close(fd);
	if ((on && fd < 0) || (!on && unlinkat(r->state_dirfd, REPLICATOR_PAUSED, 0) != 0 && errno != ENOENT))
		log_warn("%s/%s: %s: when tandem-replicator starts again, sending %s", r->mirror.state_dir, REPLICATOR_PAUSED, strerror(errno),
		    on ? "goes on" : "is paused");
}

static int set_paused(struct replicator *r, int fd, bool on)
{
	int i;

	keep_paused(r, on);
	pthread_mutex_lock(&r->lock);
	r->paused = on;
	pthread_mutex_unlock(&r->lock);
	for (i = 0; i < r->ntargets; i++)
		target_pause(r->targets[i], on);
	return reply_ok(fd);
}

static int op_pause(struct replicator *r, int fd, const json_t *request)
{
	return set_paused(r, fd, true);
}

static int op_resume(struct replicator *r, int fd, const json_t *request)
{
	return set_paused(r, fd, false);
}

/* --- wait --- */

/* Say whether every target has seq; those that have not are asked to hurry, and why names the first of them. */
static bool all_have_locked(struct replicator *r, uint64_t seq, char *why, size_t size)
{
	uint8_t journal_id[16];
	bool all = true;
	int i;

	journal_end_locked(r, journal_id);
	for (i = 0; i < r->ntargets; i++) {
		if (target_has(r->targets[i], journal_id, seq, why, all ? size : 0))
			continue;
		target_sync(r->targets[i]);
		all = false;
	}
	return all;
}

static void deadline(struct timespec *ts, uint64_t ns)
{
	clock_gettime(CLOCK_MONOTONIC, ts);
	ns += (uint64_t)ts->tv_nsec;
	ts->tv_sec += (time_t)(ns / NS_PER_S);
	ts->tv_nsec = (long)(ns % NS_PER_S);
}

/* Wait until every target has seq. Returns 0, E_TIMEOUT when it took longer than limit (seconds, 0: no limit), or E_CLOSED. */
static int await(struct replicator *r, int fd, uint64_t seq, double limit, char *why, size_t size)
{
	uint64_t look = limit > 0 && limit < 0.5 ? (uint64_t)(limit * (double)NS_PER_S) : LOOK_MS * NS_PER_MS, begin = clock_mono();
	struct timespec ts;
	int ret = 0;

	pthread_mutex_lock(&r->lock); /* until the wait begins: what changes after the look must find us waiting */
	while (!all_have_locked(r, seq, why, size)) {
		if (limit > 0 && (double)(clock_mono() - begin) > limit * (double)NS_PER_S)
			ret = E_TIMEOUT;
		else if (client_gone(fd))
			ret = E_CLOSED;
		if (ret < 0)
			break;
		deadline(&ts, look);
		pthread_cond_timedwait(&r->changed, &r->lock, &ts);
	}
	pthread_mutex_unlock(&r->lock);
	return ret;
}

static int op_wait(struct replicator *r, int fd, const json_t *request)
{
	uint64_t seq = (uint64_t)json_integer_value(json_object_get(request, "seq"));
	double timeout = json_number_value(json_object_get(request, "timeout"));
	char why[1024] = "";
	int ret = await(r, fd, seq, timeout, why, sizeof why);

	if (ret == E_TIMEOUT)
		return reply_error(fd, why);
	return ret < 0 ? ret : reply_ok(fd);
}

/* --- verify, resync --- */

static int stream_job(struct vjob *j, int fd)
{
	bool more = true;
	json_t *p;
	int r = 0;

	while (r == 0 && more) {
		p = vjob_take(j, LOOK_MS, &more);
		if (p == NULL) {
			more = true;
			r = client_gone(fd) ? E_CLOSED : 0;
			continue;
		}
		r = ctl_send(fd, p, NULL, 0);
		json_decref(p);
	}
	if (r < 0)
		vjob_cancel(j);
	return r;
}

static int run_job(struct replicator *r, int fd, unsigned flags)
{
	struct vjob *j;
	int i, ret = vjob_new(&j, flags, r->ntargets);

	if (ret < 0)
		return reply_error(fd, err_text(ret));
	for (i = 0; i < r->ntargets; i++)
		target_verify(r->targets[i], j);
	ret = stream_job(j, fd);
	vjob_unref(j);
	return ret;
}

static int op_verify(struct replicator *r, int fd, const json_t *request)
{
	return run_job(r, fd, (flag(request, "repair") ? 0 : CMP_REPORT) | (flag(request, "checksum") ? CMP_CHECKSUM : 0));
}

static int op_resync(struct replicator *r, int fd, const json_t *request)
{
	int i;

	if (flag(request, "dry_run"))
		return run_job(r, fd, CMP_REPORT);
	for (i = 0; i < r->ntargets; i++)
		target_resync(r->targets[i], true);
	return reply_ok(fd);
}

/* --- dispatch --- */

static const struct {
	const char *name;
	int (*run)(struct replicator *r, int fd, const json_t *request);
} ops[] = {
    {"status", op_status},
    {"wait", op_wait},
    {"verify", op_verify},
    {"resync", op_resync},
    {"pause", op_pause},
    {"resume", op_resume},
};

static int dispatch(struct replicator *r, int fd, const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op"));
	size_t i;

	for (i = 0; op != NULL && i < sizeof ops / sizeof ops[0]; i++)
		if (strcmp(op, ops[i].name) == 0)
			return ops[i].run(r, fd, request);
	return reply_error(fd, "unknown op");
}

void control_serve(struct replicator *r, int fd)
{
	int fds[CTL_FDS_MAX], ret, i;
	json_t *request;

	while (ctl_recv(fd, &request, fds, -1) == 0) {
		for (i = 0; i < CTL_FDS_MAX; i++)
			if (fds[i] >= 0)
				close(fds[i]);
		ret = dispatch(r, fd, request);
		json_decref(request);
		if (ret < 0)
			break;
	}
	close(fd);
}
