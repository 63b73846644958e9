/* SPDX-License-Identifier: BSD-2-Clause
 * A target's thread (target.h):
 *
 *   WAITING --attached--> CONNECTING --WELCOME--> COMPARING, REPLICATING, HELD (session.c)
 *      ^                     | ^                         |
 *      |                     | +-------- backoff --------+  connection lost, or REFUSED
 *
 * Between two attempts it sleeps 0.1 s, then twice as long each time up to 30 s, plus up to half of that at random, so that many mirrors do not
 * come back at once. A session that lived for a while, or moved the position, begins anew at 0.1 s. A cause is logged when it changes, not at every attempt. */
#include "config.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"
#include "proto/path.h"
#include "proto/psk.h"
#include "proto/clock.h"
#include "replicator/source/position.h"
#include "replicator/source/session.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 30000
#define REFUSED_MIN_MS 1000
#define LOCAL_MS       500   /* between two looks at a bad password file */
#define MOUNT_MS       500   /* how often a missing mount is looked for */
#define CONNECT_MS     10000
#define LIVED_NS       (10 * NS_PER_S)
#define ERRORS_SHOWN   100

struct target {
	struct target_env env;
	struct failures *failures; /* locks itself */
	int wakefd;
	int stopfd;                /* readable from target_stop on */
	pthread_t thread;
	_Atomic bool ended;
	struct target_view view;   /* its lock protects it */
	/* the thread's own: */
	struct session session;
	struct mountlink link;
	uint8_t key[PSK_LEN];
	char *password;            /* what key was derived from; NULL: no key yet */
	char logged[512];          /* last cause that was logged */
};

static void wake(struct target *t)
{
	uint64_t one = 1;

	if (write(t->wakefd, &one, sizeof one) < 0)
		return; /* the counter is full: it is awake */
}

/* Sleep, unless asked to end. Returns true to go on. */
static bool doze(struct target *t, int ms)
{
	uint64_t until = clock_mono() + (uint64_t)ms * NS_PER_MS, now, eight;
	bool stop;

	for (;;) {
		struct pollfd p = {.fd = t->wakefd, .events = POLLIN};

		pthread_mutex_lock(&t->view.lock);
		stop = t->view.stop;
		pthread_mutex_unlock(&t->view.lock);
		now = clock_mono();
		if (stop || now >= until)
			return !stop;
		poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1);
		if (p.revents != 0 && read(t->wakefd, &eight, sizeof eight) < 0)
			continue;
	}
}

static void show_state(struct target *t, enum target_state state, const char *why)
{
	pthread_mutex_lock(&t->view.lock);
	t->view.state = state;
	if (why != NULL)
		snprintf(t->view.error, sizeof t->view.error, "%s", why);
	pthread_mutex_unlock(&t->view.lock);
	if (why != NULL && why[0] != '\0' && strcmp(why, t->logged) != 0) {
		log_warn("%s: %s", t->env.to->url, why);
		snprintf(t->logged, sizeof t->logged, "%s", why);
	}
	t->env.changed(t->env.arg);
}

/* A verification cannot be run without a connection. */
static void refuse_verify(struct target *t)
{
	struct vjob *j;

	pthread_mutex_lock(&t->view.lock);
	j = t->view.verify;
	t->view.verify = NULL;
	pthread_mutex_unlock(&t->view.lock);
	if (j == NULL)
		return;
	vjob_done(j, t->env.to->url, 0, 0, "not connected");
	vjob_unref(j);
}

static bool attach(struct target *t)
{
	char why[512];
	int r;

	for (;;) {
		if (t->link.rootfd >= 0 && !mountlink_lost(&t->link))
			return true;
		r = mountlink_attach(&t->link, t->env.state_dirfd);
		if (r == 0 || (t->link.rootfd >= 0 && r != E_FOREIGN))
			break; /* without the mount the journal is drained all the same */
		if (r == -ENOENT || r == -ECONNREFUSED)
			snprintf(why, sizeof why, "waiting for the mount of %s", t->env.mirror->name);
		else
			snprintf(why, sizeof why, "cannot attach to the mount of %s: %s", t->env.mirror->name, err_text(r));
		show_state(t, TS_WAITING, why);
		refuse_verify(t);
		if (!doze(t, MOUNT_MS))
			return false;
	}
	pthread_mutex_lock(&t->view.lock);
	t->view.attached = true;
	pthread_mutex_unlock(&t->view.lock);
	return true;
}

static void forget_password(struct target *t)
{
	if (t->password != NULL)
		freezero(t->password, strlen(t->password));
	t->password = NULL;
	explicit_bzero(t->key, sizeof t->key);
}

/* Read the password file, at every attempt, so that a fault in it heals without a restart; derive the key when it changed. */
static int derive(struct target *t, char *why, size_t size)
{
	const char *file = t->env.mirror->password_file;
	char *password = NULL;
	int r;

	r = file == NULL ? 0 : mirror_read_password(file, &password, why, size);
	if (r == 0 && password == NULL && (password = strdup("")) == NULL)
		r = -ENOMEM;
	if (r < 0)
		return r; /* cppcheck-suppress memleak ; what fails gives no password */
	if (t->password != NULL && strcmp(t->password, password) == 0) {
		freezero(password, strlen(password));
		return 0;
	}
	forget_password(t);
	r = psk_derive(t->key, t->env.to->user, password);
	if (r < 0) {
		snprintf(why, size, "cannot derive the key: %s", err_text(r));
		freezero(password, strlen(password));
		return r;
	}
	t->password = password;
	return 0;
}

/* One connection. Returns how it ended, as session_run; *here: it was not even tried, for a fault on this host. *moved: the standby
 * applied records. */
static int connect_once(struct target *t, bool *here, bool *moved, char *why, size_t size)
{
	const struct mirror_target *to = t->env.to;
	struct conn_to who = {.host = to->host, .port = to->port, .user = to->user, .module = to->module, .key = t->key,
	    .timeout_ms = CONNECT_MS, .cancelfd = t->stopfd};
	struct session *s = &t->session;
	uint64_t unreadable = s->unreadable;
	struct conn *c = NULL;
	int r;

	why[0] = '\0';
	*moved = false;
	r = derive(t, why, size);
	*here = r < 0;
	if (r == 0)
		r = conn_connect(&c, &who, why, size);
	if (r < 0)
		return r;
	memset(s, 0, sizeof *s);
	s->unreadable = unreadable;
	s->env = &t->env;
	s->view = &t->view;
	s->failures = t->failures;
	s->link = &t->link;
	s->wakefd = t->wakefd;
	s->stopfd = t->stopfd;
	s->conn = c;
	r = session_run(s, why, size);
	*moved = s->ack.applied > s->welcome.applied.seq;
	return r;
}

static int jitter(int ms)
{
	uint32_t random;

	fio_random(&random, sizeof random);
	return ms + (int)(random % (uint32_t)(ms / 2 + 1));
}

static void *run(void *arg)
{
	struct target *t = arg;
	int backoff = BACKOFF_MIN_MS, r;
	char why[512];
	bool here, moved;

	while (attach(t)) {
		uint64_t began = clock_mono();

		if (t->view.state != TS_REFUSED) /* that stays until the standby lets us in */
			show_state(t, TS_CONNECTING, NULL);
		r = connect_once(t, &here, &moved, why, sizeof why);
		if (r == 0 || r == -ECANCELED)
			break;
		show_state(t, here || r == E_REFUSED || r == E_AUTH ? TS_REFUSED : TS_CONNECTING, why[0] != '\0' ? why : err_text(r));
		refuse_verify(t);
		if (moved || clock_mono() - began > LIVED_NS)
			backoff = BACKOFF_MIN_MS;
		if (r == E_REFUSED && backoff < REFUSED_MIN_MS)
			backoff = REFUSED_MIN_MS;
		if (here)
			backoff = LOCAL_MS; /* costs nobody anything */
		if (!doze(t, jitter(backoff)))
			break;
		backoff = backoff * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoff * 2;
	}
	refuse_verify(t);
	mountlink_release(&t->link);
	t->ended = true;
	t->env.changed(t->env.arg);
	return NULL;
}

void target_free(struct target *t)
{
	failures_free(t->failures);
	if (t->wakefd >= 0)
		close(t->wakefd);
	if (t->stopfd >= 0)
		close(t->stopfd);
	pthread_mutex_destroy(&t->view.lock);
	forget_password(t);
	free(t);
}

int target_start(struct target **out, const struct target_env *env)
{
	struct target *t = calloc(1, sizeof *t);
	struct saved_pos saved;
	int r;

	*out = NULL;
	if (t == NULL)
		return -ENOMEM;
	t->env = *env;
	mountlink_init(&t->link);
	pthread_mutex_init(&t->view.lock, NULL);
	if (position_load(&saved, env->state_dirfd, env->to->url) == 0) {
		memcpy(t->view.journal_id, saved.journal_id, 16);
		t->view.reclaim = saved.seq;
	}
	t->view.busy = true;
	t->view.paused = env->paused;
	t->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->stopfd = eventfd(0, EFD_CLOEXEC);
	r = t->wakefd < 0 || t->stopfd < 0 ? -errno : failures_new(&t->failures);
	if (r == 0)
		r = -pthread_create(&t->thread, NULL, run, t);
	if (r < 0) {
		target_free(t);
		return r;
	}
	*out = t;
	return 0;
}

void target_stop(struct target *t)
{
	pthread_mutex_lock(&t->view.lock);
	t->view.stop = true;
	pthread_mutex_unlock(&t->view.lock);
	eventfd_write(t->stopfd, 1);
	wake(t);
}

bool target_join(struct target *t, uint64_t until)
{
	while (!t->ended && clock_mono() < until)
		poll(NULL, 0, 5);
	if (!t->ended)
		return false;
	pthread_join(t->thread, NULL);
	return true;
}

void target_pause(struct target *t, bool on)
{
	pthread_mutex_lock(&t->view.lock);
	t->view.paused = on;
	pthread_mutex_unlock(&t->view.lock);
	wake(t);
}

void target_sync(struct target *t)
{
	bool asked;

	pthread_mutex_lock(&t->view.lock);
	asked = t->view.sync;
	t->view.sync = true;
	pthread_mutex_unlock(&t->view.lock);
	if (!asked) /* else it knows, and telling it again at its every move would keep both busy */
		wake(t);
}

void target_resync(struct target *t, bool allow)
{
	pthread_mutex_lock(&t->view.lock);
	t->view.resync = t->view.comparing = true;
	t->view.allow |= allow;
	pthread_mutex_unlock(&t->view.lock);
	wake(t);
}

void target_verify(struct target *t, struct vjob *j)
{
	const char *no;

	pthread_mutex_lock(&t->view.lock);
	no = t->view.paused ? "sending is paused: resume it first"
	    : t->view.connected && t->view.verify == NULL ? NULL : "not connected, or another verification waits";
	if (no == NULL) {
		vjob_ref(j);
		t->view.verify = j;
	}
	pthread_mutex_unlock(&t->view.lock);
	if (no != NULL)
		vjob_done(j, t->env.to->url, 0, 0, no);
	wake(t);
}

static const char *shown_state(const struct target_view *v, bool insync)
{
	if (v->paused && v->connected)
		return "paused";
	if (!v->connected && v->state != TS_REFUSED)
		return v->state == TS_WAITING ? "waiting" : "connecting";
	switch (v->state) {
	case TS_COMPARING:
		return "comparing";
	case TS_HELD:
		return "held";
	case TS_REFUSED:
		return "refused";
	default:
		return insync ? "insync" : "replicating";
	}
}

/* Numbers of another journal say nothing. */
static bool knows_locked(const struct target_view *v, const uint8_t journal_id[16])
{
	return memcmp(v->journal_id, journal_id, sizeof v->journal_id) == 0;
}

bool target_has(struct target *t, const uint8_t journal_id[16], uint64_t seq, char *why, size_t size)
{
	struct target_view *v = &t->view;
	size_t failed = failures_count(t->failures);
	bool has;

	pthread_mutex_lock(&v->lock);
	has = knows_locked(v, journal_id) && v->durable >= seq && failed == 0 && (v->connected || v->durable > 0) && !v->comparing;
	if (!has)
		snprintf(why, size, "%s: %s, record %llu of %llu is durable%s%s%s", t->env.to->url, shown_state(v, false),
		    (unsigned long long)v->durable, (unsigned long long)seq, failed != 0 ? ", paths failed" : "",
		    v->error[0] != '\0' ? ": " : "", v->error);
	pthread_mutex_unlock(&v->lock);
	return has;
}

uint64_t target_reclaimable(struct target *t, const uint8_t journal_id[16])
{
	uint64_t seq;

	pthread_mutex_lock(&t->view.lock);
	seq = knows_locked(&t->view, journal_id) ? t->view.reclaim : 0;
	pthread_mutex_unlock(&t->view.lock);
	return seq;
}

static json_t *progress_json(const struct compare_progress *p)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)p->entries, "files_total", (json_int_t)p->files_total, "bytes",
	    (json_int_t)p->bytes_sent, "bytes_total", (json_int_t)p->bytes_total, "differences", (json_int_t)p->differences);
}

json_t *target_status(struct target *t, const uint8_t journal_id[16], uint64_t head_seq, bool *insync, bool *broken)
{
	struct target_view *v = &t->view;
	size_t failed = failures_count(t->failures);
	uint64_t now = clock_real(), lag;
	char error[4 * sizeof v->error];
	json_t *o;

	pthread_mutex_lock(&v->lock);
	lag = head_seq > v->applied ? head_seq - v->applied : 0;
	*insync = knows_locked(v, journal_id) && v->connected && !v->busy && lag == 0 && failed == 0 && v->state == TS_REPLICATING;
	*broken = failures_shown(t->failures) != 0 || v->state == TS_HELD || v->state == TS_REFUSED;
	path_show(error, sizeof error, v->error);
	o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:s, s:I, s:I, s:I}", "state", shown_state(v, *insync),
	    "applied", (json_int_t)v->applied, "durable", (json_int_t)v->durable, "lag_records", (json_int_t)lag, "lag_bytes",
	    (json_int_t)v->bytes_left, "lag_seconds",
	    lag != 0 && v->oldest_ns != 0 && v->oldest_ns < now ? (double)(now - v->oldest_ns) / (double)NS_PER_S : 0.0, "error", error,
	    "files", (json_int_t)v->files, "bytes_sent", (json_int_t)v->sent, "bytes_received", (json_int_t)v->received);
	ctl_set_path(o, "url", t->env.to->url);
	if (v->comparing || v->state == TS_COMPARING)
		json_object_set_new(o, "progress", progress_json(&v->progress));
	pthread_mutex_unlock(&v->lock);
	json_object_set_new(o, "errors", failures_json(t->failures, ERRORS_SHOWN));
	return o;
}
