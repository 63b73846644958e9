/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl wait: return when everything journaled before the call is durable on every target. */
#include "config.h"
#include <err.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "replicator/ctl/ctl.h"

#define RETRY_MS 100  /* between attempts to reach a replicator that is just starting */
#define REPORT_S 3.0  /* after this long without a replicator the operator is told, once */
#define GRACE_MS 2000 /* the reply may come this much later than the time-out it was asked for */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int milliseconds(double seconds)
{
	return seconds < INT_MAX / 1000 - GRACE_MS ? (int)(seconds * 1000) : INT_MAX - GRACE_MS;
}

/* One question. left: seconds, 0 for ever. */
static int ask_wait(const struct ctl_mirror *cm, uint64_t seq, double left, json_t **reply)
{
	json_t *args = json_pack("{s:I, s:f}", "seq", (json_int_t)seq, "timeout", left);
	int rc = ctl_ask(cm, CTL_SOCK_REPLICATOR, "wait", args, reply,
			 left > 0 ? milliseconds(left) + GRACE_MS : -1);

	json_decref(args);
	return rc;
}

static bool absent(int rc)
{
	return rc == -ENOENT || rc == -ECONNREFUSED || rc == E_CLOSED || rc == -ECONNRESET || rc == -EPIPE;
}

static int answer(const struct ctl_mirror *cm, int rc, const json_t *reply, uint64_t seq, long timeout)
{
	char text[1024];

	if (rc == 0)
		return CTL_OK;
	if (absent(rc) || rc == E_TIMEOUT) {
		ctl_complain(cm, CTL_SOCK_REPLICATOR, rc == E_TIMEOUT ? rc : -ENOENT, NULL);
		warnx("%s: not durable everywhere after %ld s: change %llu is not confirmed", cm->name,
		      timeout, (unsigned long long)seq);
		return CTL_BEHIND;
	}
	if (rc == E_REFUSED) {
		warnx("%s: not durable everywhere: %s", cm->name,
		      ctl_show_text(text, sizeof(text), ctl_str(reply, "error")));
		return CTL_BEHIND;
	}
	ctl_complain(cm, CTL_SOCK_REPLICATOR, rc, reply);
	return CTL_BROKEN;
}

/* Ask until the replicator has answered or the time is up; a replicator that restarts is asked again. */
static int wait_for(const struct ctl_mirror *cm, uint64_t seq, double begin, long timeout)
{
	double end = timeout > 0 ? begin + (double)timeout : 0;
	bool told = false;
	json_t *reply = NULL;
	int rc;

	for (;;) {
		double left = end > 0 ? end - now() : 0;
		if (end > 0 && left < 0.001)
			left = 0.001;
		rc = ask_wait(cm, seq, left, &reply);
		if (!absent(rc) || (end > 0 && now() >= end))
			break;
		json_decref(reply);
		reply = NULL;
		if (!told && now() - begin > REPORT_S) {
			ctl_complain(cm, CTL_SOCK_REPLICATOR, -ENOENT, NULL);
			warnx("%s: waiting for it", cm->name);
			told = true;
		}
		usleep(RETRY_MS * 1000);
	}
	rc = answer(cm, rc, reply, seq, timeout);
	json_decref(reply);
	return rc;
}

int cmd_wait(const struct ctl_args *a)
{
	struct ctl_mirror cm;
	double begin = now();
	uint64_t seq = 0;
	int rc = ctl_mirror_open(&cm, a, a->name);

	if (rc == 0)
		rc = ctl_flush(&cm, &seq, NULL, a->timeout > 0 ? milliseconds((double)a->timeout) : -1);
	if (rc == 0)
		rc = wait_for(&cm, seq, begin, a->timeout);
	else
		rc = rc == E_TIMEOUT ? CTL_BEHIND : CTL_BROKEN;
	ctl_mirror_close(&cm);
	return rc;
}
