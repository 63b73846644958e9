/* SPDX-License-Identifier: BSD-2-Clause
 * Verification (verify.h). A run looks at least twice if anything differs: the first look compares everything; what differs may only be on
 * its way, so once the stream has settled those paths are compared again, and what differs still is reported. What is met only then is
 * looked at once more in the same way: below what was missing before nobody has looked yet, and of hard links a path alone does not tell,
 * so that all is compared again for them. A repair needs one look: it counts what it changes, and is done when that is durable on the
 * standby and no part of it was refused there. */
#include "config.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/tree.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/path.h"
#include "proto/clock.h"
#include "replicator/source/verify.h"

#define LINES_MAX 100000u /* paths remembered for another look */
#define LOOKS_MAX 8u      /* what is new in the last one is reported as well */

struct line {
	STAILQ_ENTRY(line) link;
	char *path;
	const char *target, *what;
};

STAILQ_HEAD(lines, line);

struct vjob {
	unsigned flags;      /* immutable */
	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t cond;
	int refs, running;
	bool cancelled;
	struct lines lines;
	uint64_t differences, repaired;
	char error[256];
};

enum look { LOOK_FIRST, LOOK_SETTLE, LOOK_AGAIN, LOOK_FINISH, LOOK_OVER };

struct doubt { /* a path that differed */
	RB_ENTRY(doubt) node;
	const char *what;
	unsigned nth; /* look that met it first */
	bool reported;
	char path[];
};
RB_HEAD(doubts, doubt);

struct vrun {
	struct vjob *job;
	const char *target;
	struct compare *c;
	struct stream *stream; /* borrowed */
	struct compare_env env; /* as it was given: of a repair what failed is told there, too */
	enum look look;
	unsigned nth;          /* looks before this one */
	struct doubts doubts;
	size_t ndoubts, fresh; /* all; those of this look */
	uint64_t differences, failed;
	uint64_t mark;         /* record that must be applied before the next look */
	uint64_t place;        /* a repair: bytes of the stream that hold all it put */
	bool starved;
	char error[256];
};

int vjob_new(struct vjob **out, unsigned flags, int ntargets)
{
	struct vjob *j = calloc(1, sizeof *j);

	*out = j;
	if (j == NULL)
		return -ENOMEM;
	j->flags = flags;
	j->refs = 1;
	j->running = ntargets;
	STAILQ_INIT(&j->lines);
	pthread_mutex_init(&j->lock, NULL);
	clock_cond_init(&j->cond);
	return 0;
}

void vjob_ref(struct vjob *j)
{
	pthread_mutex_lock(&j->lock);
	j->refs++;
	pthread_mutex_unlock(&j->lock);
}

static void lines_free(struct lines *l)
{
	struct line *x;

	while ((x = STAILQ_FIRST(l)) != NULL) {
		STAILQ_REMOVE_HEAD(l, link);
		free(x->path);
		free(x);
	}
}

void vjob_unref(struct vjob *j)
{
	int left;

	pthread_mutex_lock(&j->lock);
	left = --j->refs;
	pthread_mutex_unlock(&j->lock);
	if (left > 0)
		return;
	lines_free(&j->lines);
	pthread_cond_destroy(&j->cond);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

unsigned vjob_flags(const struct vjob *j)
{
	return j->flags;
}

static struct line *line_new(const char *target, const char *path, const char *what)
{
	struct line *x = malloc(sizeof *x);

	if (x == NULL)
		return NULL;
	x->target = target;
	x->what = what;
	x->path = strdup(path);
	if (x->path == NULL) {
		free(x);
		return NULL;
	}
	return x;
}

void vjob_found(struct vjob *j, const char *target, const char *path, const char *what)
{
	struct line *x = line_new(target, path, what);

	if (x == NULL)
		return;
	pthread_mutex_lock(&j->lock);
	STAILQ_INSERT_TAIL(&j->lines, x, link);
	pthread_cond_signal(&j->cond);
	pthread_mutex_unlock(&j->lock);
}

void vjob_done(struct vjob *j, const char *target, uint64_t differences, uint64_t repaired, const char *error)
{
	pthread_mutex_lock(&j->lock);
	j->differences += differences;
	j->repaired += repaired;
	if (error != NULL && j->error[0] == '\0')
		snprintf(j->error, sizeof j->error, "%s: %s", target, error);
	j->running--;
	pthread_cond_signal(&j->cond);
	pthread_mutex_unlock(&j->lock);
}

void vjob_cancel(struct vjob *j)
{
	pthread_mutex_lock(&j->lock);
	j->cancelled = true;
	pthread_mutex_unlock(&j->lock);
}

bool vjob_cancelled(struct vjob *j)
{
	bool c;

	pthread_mutex_lock(&j->lock);
	c = j->cancelled;
	pthread_mutex_unlock(&j->lock);
	return c;
}

static json_t *packet_locked(struct vjob *j, bool *more)
{
	struct line *x = STAILQ_FIRST(&j->lines);
	json_t *p;

	*more = x != NULL;
	if (x == NULL && j->running > 0)
		return NULL;
	if (x == NULL) {
		p = json_pack("{s:b, s:I, s:I}", "ok", j->error[0] == '\0', "differences", (json_int_t)j->differences, "repaired",
		    (json_int_t)j->repaired);
		if (j->error[0] != '\0')
			ctl_set_path(p, "error", j->error);
		return p;
	}
	STAILQ_REMOVE_HEAD(&j->lines, link);
	p = json_pack("{s:b, s:b, s:s}", "ok", 1, "more", 1, "what", x->what);
	ctl_set_path(p, "target", x->target);
	ctl_set_path(p, "path", x->path);
	free(x->path);
	free(x);
	return p;
}

json_t *vjob_take(struct vjob *j, int timeout_ms, bool *more)
{
	struct timespec until;
	json_t *p;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000)
		until.tv_sec++, until.tv_nsec -= 1000000000;
	pthread_mutex_lock(&j->lock);
	while ((p = packet_locked(j, more)) == NULL && r == 0)
		r = pthread_cond_timedwait(&j->cond, &j->lock, &until);
	pthread_mutex_unlock(&j->lock);
	return p;
}

/* --- run --- */

static bool reporting(const struct vrun *v)
{
	return (vjob_flags(v->job) & CMP_REPORT) != 0;
}

static int doubt_order(struct doubt *a, struct doubt *b)
{
	return strcmp(a->path, b->path);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
RB_GENERATE_INTERNAL(doubts, doubt, node, doubt_order, static)
#pragma GCC diagnostic pop

static void report(struct vrun *v, const char *path, const char *what)
{
	v->differences++;
	vjob_found(v->job, v->target, path, what);
}

/* Remember a path, or find it. Returns NULL if there are too many. */
static struct doubt *doubt(struct vrun *v, const char *path, const char *what)
{
	size_t n = strlen(path) + 1;
	struct doubt *d = calloc(1, sizeof *d + n), *known;

	if (d == NULL)
		return NULL;
	d->what = what;
	d->nth = v->nth;
	memcpy(d->path, path, n);
	known = v->ndoubts < LINES_MAX ? RB_INSERT(doubts, &v->doubts, d) : RB_FIND(doubts, &v->doubts, d);
	if (known != NULL || v->ndoubts == LINES_MAX) {
		free(d);
		return known;
	}
	v->ndoubts++;
	v->fresh++;
	return d;
}

static void differs(void *arg, const char *path, const char *what)
{
	struct vrun *v = arg;
	struct doubt *d;

	if (!reporting(v)) {
		report(v, path, what);
		return;
	}
	d = doubt(v, path, what);
	if (d == NULL && v->error[0] == '\0')
		snprintf(v->error, sizeof v->error, "more paths differ than can be remembered, so that not all were looked at twice");
	if (d == NULL || d->reported || (d->nth == v->nth && v->nth + 1 < LOOKS_MAX))
		return; /* NOLINT(clang-analyzer-unix.Malloc): the tree has it */
	d->reported = true;
	report(v, path, what);
}

static void failed(void *arg, const char *path, int err, const char *text)
{
	struct vrun *v = arg;
	char shown[160];

	v->failed++;
	if (!reporting(v) && v->env.failed != NULL)
		v->env.failed(v->env.arg, path, err, text);
	if (v->error[0] == '\0')
		snprintf(v->error, sizeof v->error, "%s: %s%s%s", path_show(shown, sizeof shown, path), text, err != 0 ? ": " : "",
		    err != 0 ? err_text(err) : "");
}

static void guarded(void *arg, uint64_t n, uint64_t total)
{
	struct vrun *v = arg;

	snprintf(v->error, sizeof v->error, "the delete guard stopped %llu deletions of %llu entries", (unsigned long long)n,
	    (unsigned long long)total);
}

int vrun_new(struct vrun **out, struct vjob *j, const char *target, const struct compare_env *env)
{
	struct vrun *v = calloc(1, sizeof *v);
	struct compare_env ce = *env;
	int r;

	*out = NULL;
	if (v == NULL)
		return -ENOMEM;
	RB_INIT(&v->doubts);
	v->target = target;
	v->job = j;
	v->stream = env->stream;
	v->env = *env;
	ce.differs = differs;
	ce.failed = failed;
	ce.guarded = guarded;
	ce.arg = v;
	r = compare_new(&v->c, &ce);
	if (r == 0)
		r = compare_add(v->c, "", CMP_RECURSIVE | vjob_flags(j));
	if (r < 0) {
		compare_free(v->c);
		free(v);
		return r;
	}
	vjob_ref(j);
	*out = v;
	return 0;
}

void vrun_free(struct vrun *v, const char *error)
{
	struct doubt *d;

	if (v == NULL)
		return;
	if (v->look != LOOK_OVER)
		vjob_done(v->job, v->target, v->differences, 0, error);
	while ((d = RB_ROOT(&v->doubts)) != NULL) {
		RB_REMOVE(doubts, &v->doubts, d); /* NOLINT(clang-analyzer-unix.Malloc): it is not in the tree any more */
		free(d);
	}
	compare_free(v->c);
	vjob_unref(v->job);
	free(v);
}

struct compare *vrun_compare(struct vrun *v)
{
	v->starved = false;
	return v->c;
}

/* Schedule a path that differed in the last look, as far as that may not have seen all of it. */
static int look_at(struct vrun *v, const struct doubt *d)
{
	bool unseen = strcmp(d->what, "missing on the standby") == 0 || strcmp(d->what, "type differs") == 0;
	struct stat st;

	if (strcmp(d->what, "hard link differs") == 0 ||
	    (unseen && path_stat(v->env.rootfd, d->path, &st) == 0 && !S_ISDIR(st.st_mode) && st.st_nlink > 1))
		return compare_add(v->c, "", CMP_RECURSIVE | vjob_flags(v->job));
	return compare_add(v->c, d->path, (unseen ? CMP_RECURSIVE : CMP_SELF) | vjob_flags(v->job));
}

static int look_again(struct vrun *v)
{
	struct doubt *d;
	int r = 0;

	RB_FOREACH(d, doubts, &v->doubts)
		if (r == 0 && d->nth == v->nth)
			r = look_at(v, d);
	v->look = LOOK_AGAIN;
	v->nth++;
	v->fresh = 0;
	v->starved = false;
	return r < 0 ? r : 1;
}

static int finish(struct vrun *v)
{
	struct compare_progress p;

	compare_progress(v->c, &p);
	vjob_done(v->job, v->target, v->differences, reporting(v) ? 0 : v->differences, v->error[0] != '\0' ? v->error : NULL);
	v->look = LOOK_OVER;
	return 2;
}

/* Say whether all that a repair put into the stream is durable, and nothing of it failed without having been tried again. */
static bool repaired(struct vrun *v, const struct vrun_seen *seen)
{
	if (seen->durable < v->place || seen->trying)
		return false;
	if (seen->failed != 0 && v->error[0] == '\0')
		snprintf(v->error, sizeof v->error, "%zu paths failed, see tandemctl status", seen->failed);
	return true;
}

int vrun_step(struct vrun *v, const struct vrun_seen *seen)
{
	bool settled = seen->applied >= v->mark;
	int r;

	if (vjob_cancelled(v->job) && reporting(v))
		return finish(v);
	if (compare_busy(v->c)) {
		if (v->look == LOOK_FINISH) /* the standby refused something: it is compared once more */
			v->look = LOOK_FIRST;
		if (v->starved)
			return 0;
		stream_tag(v->stream, 1);
		r = compare_step(v->c);
		v->starved = r == 0;
		return r == 0 && !compare_busy(v->c) ? 1 : r; /* this step was the last: look again at once */
	}
	switch (v->look) {
	case LOOK_FIRST:
	case LOOK_AGAIN:
		v->look = v->fresh != 0 && v->nth + 1 < LOOKS_MAX ? LOOK_SETTLE : LOOK_FINISH;
		v->mark = v->look == LOOK_FINISH && v->nth != 0 ? 0 : seen->head;
		v->place = seen->sent;
		return 1;
	case LOOK_SETTLE:
		return settled ? look_again(v) : 0;
	case LOOK_FINISH:
		return settled && (reporting(v) || repaired(v, seen)) ? finish(v) : 0;
	case LOOK_OVER:
		break;
	}
	return 2;
}

bool vrun_repairs(const struct vrun *v)
{
	return !reporting(v);
}

bool vrun_wants_sync(const struct vrun *v)
{
	return v->look == LOOK_FINISH && !reporting(v);
}
