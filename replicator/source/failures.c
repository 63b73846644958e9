/* SPDX-License-Identifier: BSD-2-Clause
 * Failed paths (failures.h). A path is TRYING while a comparison answers its failure, PARKED when that failed, too; when its time
 * comes it is TRYING again. When everything sent has been answered (failures_settle) those that are TRYING have succeeded. A path
 * that was parked is shown until then. */
#include "config.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include "proto/ctlsock.h"
#include "proto/path.h"
#include "proto/clock.h"
#include "replicator/source/failures.h"
#include "replicator/source/follow.h"

#define RETRY_MIN  (5 * NS_PER_S)
#define RETRY_MAX  (60 * NS_PER_S)
#define SHOWN_TEXT 512
#define LIST_MAX   10000 /* beyond it the list keeps only a count of distinct failures */

enum fstate { FS_TRYING, FS_PARKED };

struct failure {
	TAILQ_ENTRY(failure) link;
	char *path;
	char *text;
	enum fstate state;
	bool shown;          /* was parked */
	uint64_t since;      /* CLOCK_REALTIME ns */
	uint64_t due, delay; /* CLOCK_MONOTONIC ns, ns */
};

TAILQ_HEAD(failure_list, failure);

struct failures {
	pthread_mutex_t lock; /* protects what follows */
	struct failure_list list;
	size_t n;
};

int failures_new(struct failures **out)
{
	struct failures *f = calloc(1, sizeof *f);

	*out = f;
	if (f == NULL)
		return -ENOMEM;
	pthread_mutex_init(&f->lock, NULL);
	TAILQ_INIT(&f->list);
	return 0;
}

static void drop_locked(struct failures *f, struct failure *x)
{
	TAILQ_REMOVE(&f->list, x, link);
	f->n--;
	free(x->path);
	free(x->text);
	free(x);
}

void failures_clear(struct failures *f)
{
	pthread_mutex_lock(&f->lock);
	while (!TAILQ_EMPTY(&f->list))
		drop_locked(f, TAILQ_FIRST(&f->list)); /* NOLINT(clang-analyzer-unix.Malloc): takes it off the list */
	pthread_mutex_unlock(&f->lock);
}

void failures_free(struct failures *f)
{
	if (f == NULL)
		return;
	failures_clear(f);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static struct failure *find_locked(struct failures *f, const char *path)
{
	struct failure *x;

	TAILQ_FOREACH(x, &f->list, link)
		if (strcmp(x->path, path) == 0)
			return x;
	if (f->n >= LIST_MAX && path[0] != '\0')
		return find_locked(f, ""); /* more than are kept: the whole is tried again */
	x = calloc(1, sizeof *x);
	if (x == NULL)
		return NULL;
	x->path = strdup(path);
	if (x->path == NULL) {
		free(x);
		return NULL;
	}
	x->since = clock_real();
	x->delay = RETRY_MIN;
	TAILQ_INSERT_TAIL(&f->list, x, link);
	f->n++;
	return x;
}

bool failures_add(struct failures *f, const char *path, const char *text, bool park)
{
	struct failure *x;
	bool again = true;

	pthread_mutex_lock(&f->lock);
	x = find_locked(f, path);
	if (x != NULL) {
		free(x->text);
		x->text = strdup(text);
		again = !park && x->state == FS_TRYING;
		if (park && x->state == FS_TRYING) {
			x->state = FS_PARKED;
			x->shown = true;
			x->due = clock_mono() + x->delay;
			x->delay = x->delay * 2 > RETRY_MAX ? RETRY_MAX : x->delay * 2;
		}
	}
	pthread_mutex_unlock(&f->lock);
	return again;
}

char *failures_due(struct failures *f)
{
	uint64_t now = clock_mono();
	struct failure *x;
	char *path = NULL;

	pthread_mutex_lock(&f->lock);
	TAILQ_FOREACH(x, &f->list, link) {
		if (x->state == FS_PARKED && x->due <= now) {
			x->state = FS_TRYING;
			path = strdup(x->path);
			break;
		}
	}
	pthread_mutex_unlock(&f->lock);
	return path;
}

int failures_renamed(struct failures *f, const char *from, const char *to, bool exchange)
{
	struct follow_rec e = {.type = JT_RENAME, .flags = exchange ? JF_EXCHANGE : 0, .path = from, .path2 = to};
	struct failure *x;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	TAILQ_FOREACH(x, &f->list, link)
		if (r >= 0)
			r = follow_path(&x->path, &e);
	pthread_mutex_unlock(&f->lock);
	return r < 0 ? r : 0;
}

void failures_hurry(struct failures *f)
{
	struct failure *x;

	pthread_mutex_lock(&f->lock);
	TAILQ_FOREACH(x, &f->list, link)
		x->due = 0;
	pthread_mutex_unlock(&f->lock);
}

int failures_timeout(struct failures *f)
{
	uint64_t now = clock_mono(), first = UINT64_MAX;
	struct failure *x;

	pthread_mutex_lock(&f->lock);
	TAILQ_FOREACH(x, &f->list, link)
		if (x->state == FS_PARKED && x->due < first)
			first = x->due;
	pthread_mutex_unlock(&f->lock);
	if (first == UINT64_MAX)
		return -1;
	return first <= now ? 0 : (int)((first - now) / NS_PER_MS) + 1;
}

void failures_settle(struct failures *f)
{
	struct failure *x, *next;

	pthread_mutex_lock(&f->lock);
	for (x = TAILQ_FIRST(&f->list); x != NULL; x = next) {
		next = TAILQ_NEXT(x, link);
		if (x->state == FS_TRYING)
			drop_locked(f, x);
	}
	pthread_mutex_unlock(&f->lock);
}

size_t failures_shown(struct failures *f)
{
	struct failure *x;
	size_t n = 0;

	pthread_mutex_lock(&f->lock);
	TAILQ_FOREACH(x, &f->list, link)
		n += x->shown;
	pthread_mutex_unlock(&f->lock);
	return n;
}

size_t failures_parked(struct failures *f)
{
	struct failure *x;
	size_t n = 0;

	pthread_mutex_lock(&f->lock);
	TAILQ_FOREACH(x, &f->list, link)
		n += x->state == FS_PARKED;
	pthread_mutex_unlock(&f->lock);
	return n;
}

size_t failures_count(struct failures *f)
{
	size_t n;

	pthread_mutex_lock(&f->lock);
	n = f->n;
	pthread_mutex_unlock(&f->lock);
	return n;
}

json_t *failures_json(struct failures *f, size_t max)
{
	json_t *a = json_array();
	char shown[SHOWN_TEXT];
	struct failure *x;
	json_t *o;

	pthread_mutex_lock(&f->lock);
	TAILQ_FOREACH(x, &f->list, link) {
		if (json_array_size(a) >= max)
			break;
		if (!x->shown)
			continue;
		o = json_pack("{s:s, s:f}", "path", path_show(shown, sizeof shown, x->path), "since", (double)x->since / (double)NS_PER_S);
		ctl_set_path(o, "text", x->text == NULL ? "" : x->text);
		json_array_append_new(a, o);
	}
	pthread_mutex_unlock(&f->lock);
	return a;
}
