/* SPDX-License-Identifier: BSD-2-Clause
 * Comparison and repair: see compare.h, docs/ARCHITECTURE.md Rule 4, COMPARE.md beside this file.
 *
 * The life of a path. compare_add enters it into the queue, a sorted tree in which an ancestor with
 * CMP_RECURSIVE swallows its descendants. When it starts it is a job, with one first directory node (struct
 * cnode); a path other than the root begins as a SINGLE node: its one entry is asked for, compared, and if it
 * is a directory a node for it follows.
 *
 *   TODO      the directory is known, its listing was not requested (stack: depth first)
 *   LISTING   LIST was sent; up to CMP_WINDOW directories are in LISTING and READY together
 *   READY     the standby's listing is complete, or there is none because we made the directory (FRESH)
 *   SCAN      the source's directory is being read, entry by entry; one directory at a time
 *   KIDS      read; waits for directories, transfers and hard links below, then its own attributes are set
 *
 * Order. A listing is what the standby had at its place in the stream; the source is read after it arrived.
 * What the live stream changes meanwhile is either in both, or its record follows. Before each step the
 * directory being read, and before each piece of a transfer its file, are looked up by path again: so every
 * path put into the stream was valid at the source at that moment, and a rename that happens later is also
 * sent later. A name is deleted only after the source was asked again.
 *
 * Failures. A path that cannot be read is reported and left alone, its directory's other entries go on; a
 * directory that cannot be read deletes nothing. A FAIL answer schedules the path again, CMP_TRIES times. */
#include "config.h"
#include "replicator/source/compare_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "proto/err.h"

#define START_LOOK 256 /* jobs of the queue that are looked at for one that may start */

int compare_path_order(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	int x = *a == '/' ? 1 : (unsigned char)*a * 2, y = *b == '/' ? 1 : (unsigned char)*b * 2;
	return x < y ? -1 : x > y;
}

static int job_order(struct cjob *a, struct cjob *b)
{
	return compare_path_order(a->path, b->path);
}

static int try_order(struct ctry *a, struct ctry *b)
{
	return compare_path_order(a->path, b->path);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
RB_GENERATE_INTERNAL(cqueue, cjob, queued, job_order, static)
RB_GENERATE_INTERNAL(ctries, ctry, node, try_order, static)
#pragma GCC diagnostic pop

int compare_new(struct compare **out, const struct compare_env *env)
{
	struct compare *c = calloc(1, sizeof(*c));
	*out = NULL;
	if (!c)
		return -ENOMEM;
	c->links = links_new();
	if (!c->links) {
		free(c);
		return -ENOMEM;
	}
	c->env = *env;
	struct statfs sf;
	c->nfs = fstatfs(env->rootfd, &sf) == 0 && sf.f_type == NFS_SUPER_MAGIC;
	c->scan.fd = -1;
	watch_init(&c->watch);
	RB_INIT(&c->queue);
	RB_INIT(&c->tries);
	TAILQ_INIT(&c->jobs);
	TAILQ_INIT(&c->held);
	TAILQ_INIT(&c->nodes);
	TAILQ_INIT(&c->singles);
	RB_INIT(&c->open);
	TAILQ_INIT(&c->todo);
	TAILQ_INIT(&c->listing);
	TAILQ_INIT(&c->ready);
	TAILQ_INIT(&c->files);
	buf_init(&c->rec, JREC_MAX);
	buf_init(&c->xattrs, 2u << 20);
	buf_init(&c->req, JREC_MAX);
	*out = c;
	return 0;
}

static void job_free(struct cjob *j)
{
	free(j->pending.names);
	free(j);
}

static void free_tries(struct compare *c)
{
	struct ctry *t;
	while ((t = RB_MIN(ctries, &c->tries)) != NULL) {
		RB_REMOVE(ctries, &c->tries, t);
		free(t);
	}
	c->ntries = 0;
}

void compare_free(struct compare *c)
{
	if (!c)
		return;
	struct cjob *j;
	files_free(c);
	while (!TAILQ_EMPTY(&c->nodes))
		node_free(c, TAILQ_FIRST(&c->nodes));
	if (c->scan.fd >= 0)
		close(c->scan.fd);
	while ((j = RB_MIN(cqueue, &c->queue)) != NULL) {
		RB_REMOVE(cqueue, &c->queue, j);
		job_free(j);
	}
	while ((j = TAILQ_FIRST(&c->jobs)) != NULL) {
		TAILQ_REMOVE(&c->jobs, j, active);
		job_free(j);
	}
	while ((j = TAILQ_FIRST(&c->held)) != NULL) {
		TAILQ_REMOVE(&c->held, j, active);
		job_free(j);
	}
	free_tries(c);
	watch_free(&c->watch);
	links_free(c->links);
	buf_release(&c->rec);
	buf_release(&c->xattrs);
	buf_release(&c->req);
	free(c);
}

static struct cjob *job_new(const char *path, unsigned flags)
{
	size_t n = strlen(path) + 1;
	struct cjob *j = calloc(1, sizeof(*j) + n);
	if (!j)
		return NULL;
	j->flags = flags;
	memcpy(j->path, path, n);
	return j;
}

static struct cjob *queue_find(struct compare *c, const char *path)
{
	struct cjob *key = job_new(path, 0);
	if (!key)
		return NULL;
	struct cjob *j = RB_FIND(cqueue, &c->queue, key);
	free(key);
	return j;
}

/* Say whether job a does everything that flags ask for. CHECKSUM does more than none; REPORT is another
 * thing. */
static bool covers(unsigned a, unsigned flags)
{
	return !(flags & CMP_CHECKSUM & ~a) && !(flags & CMP_ALLOW & ~a) &&
	       (a & CMP_REPORT) == (flags & CMP_REPORT);
}

/* Say whether path lies below a queued recursive job that covers flags. */
static bool swallowed(struct compare *c, const char *path, unsigned flags)
{
	char *p = strdup(path);
	bool yes = false;
	while (p && *p && !yes) {
		p[path_parent_len(p)] = 0;
		struct cjob *j = queue_find(c, p);
		yes = j && (j->flags & CMP_RECURSIVE) && covers(j->flags, flags);
	}
	free(p);
	return yes;
}

/* Remove the queued jobs below j that j covers. */
static void swallow(struct compare *c, struct cjob *j)
{
	for (struct cjob *k = RB_NEXT(cqueue, &c->queue, j), *next; k && path_within(j->path, k->path);
	     k = next) {
		next = RB_NEXT(cqueue, &c->queue, k);
		if (!covers(j->flags, k->flags))
			continue;
		RB_REMOVE(cqueue, &c->queue, k);
		c->nqueued--;
		job_free(k);
	}
}

int compare_add(struct compare *c, const char *path, unsigned flags)
{
	if (c->nqueued >= CMP_QUEUE_MAX && !(flags & CMP_REPORT) && *path) {
		const struct cjob *root = queue_find(c, "");
		if (root && root->flags & CMP_RECURSIVE && covers(root->flags, flags & CMP_CHECKSUM))
			return watch_path(c, "", CMP_RECURSIVE);
		return compare_add(c, "", CMP_RECURSIVE | (flags & CMP_CHECKSUM));
	}
	if (!(flags & CMP_REPORT) && watch_path(c, path, flags))
		return -ENOMEM;
	if (swallowed(c, path, flags))
		return 0;
	struct cjob *j = queue_find(c, path);
	unsigned self = j ? j->flags & flags & CMP_SELF : 0;
	if (j && (j->flags & CMP_REPORT) == (flags & CMP_REPORT)) {
		j->flags = ((j->flags | flags) & ~(unsigned)CMP_SELF) | self;
	} else if (j) { /* a repair reports as well */
		j->flags = ((j->flags | flags) & ~(unsigned)(CMP_REPORT | CMP_SELF)) | self;
	} else {
		j = job_new(path, flags);
		if (!j)
			return -ENOMEM;
		RB_INSERT(cqueue, &c->queue, j);
		c->nqueued++;
		c->stuck = false;
	}
	if (j->flags & CMP_RECURSIVE)
		swallow(c, j);
	return 0;
}

/* Jobs to be added once the queue is not being walked. */
struct moved {
	struct cjobs list;
	int err;
};

static void moved_add(struct moved *m, const char *path, unsigned flags)
{
	struct cjob *n = job_new(path, flags);
	if (n)
		TAILQ_INSERT_TAIL(&m->list, n, active);
	else
		m->err = -ENOMEM;
}

/* Take the queued jobs below from: what they are about is below to now. And what a queued job holds at from is at to. */
static void moved_queued(struct compare *c, struct moved *m, const char *from, const char *to)
{
	char path[PATH_LONGEST + PATH_NAME_MAX + 2];
	struct cjob *key = job_new(from, 0), *j = key ? RB_NFIND(cqueue, &c->queue, key) : NULL, *next;
	for (; j && path_within(from, j->path); j = next) {
		next = RB_NEXT(cqueue, &c->queue, j);
		if (path_rebase(path, sizeof(path), j->path, from, to) == 0)
			moved_add(m, path, j->flags);
		RB_REMOVE(cqueue, &c->queue, j);
		c->nqueued--;
		c->stuck = false;
		job_free(j);
	}
	for (char *up = key ? key->path : NULL; up && *up;) {
		up[path_parent_len(up)] = 0; /* cppcheck-suppress nullPointerRedundantCheck ; the loop asks for it */
		j = queue_find(c, up);
		if (j && j->flags & CMP_RECURSIVE)
			moved_add(m, to, j->flags);
	}
	if (!key)
		m->err = -ENOMEM;
	free(key);
}

/* The same for an active job: it goes on, and finds nothing more at from. */
static void moved_active(struct moved *m, const struct cjob *j, const char *from, const char *to)
{
	char path[PATH_LONGEST + PATH_NAME_MAX + 2];
	if (!path_within(from, j->path)) {
		if (j->flags & CMP_RECURSIVE && path_within(j->path, from))
			moved_add(m, to, j->flags);
	} else if (path_rebase(path, sizeof(path), j->path, from, to) == 0) {
		moved_add(m, path, j->flags);
	}
}

void compare_touched(struct compare *c, const char *path, uint64_t ino)
{
	files_touched(c, path, ino);
}

unsigned compare_scheduled(struct compare *c, const char *path)
{
	struct cjob *j = queue_find(c, path);
	unsigned flags = j ? j->flags : 0;
	TAILQ_FOREACH (j, &c->jobs, active)
		if (!strcmp(j->path, path))
			flags |= j->flags;
	return flags;
}

int compare_renamed(struct compare *c, const char *from, const char *to, bool exchange)
{
	struct moved m = {.list = TAILQ_HEAD_INITIALIZER(m.list)};
	struct cjob *j;
	c->renames++;
	m.err = watch_renamed(c, from, to, exchange);
	files_touched(c, from, 0);
	files_touched(c, to, 0);
	moved_queued(c, &m, from, to);
	if (exchange)
		moved_queued(c, &m, to, from);
	TAILQ_FOREACH (j, &c->jobs, active) {
		moved_active(&m, j, from, to);
		if (exchange)
			moved_active(&m, j, to, from);
	}
	while ((j = TAILQ_FIRST(&m.list)) != NULL) {
		TAILQ_REMOVE(&m.list, j, active);
		if (!m.err)
			m.err = compare_add(c, j->path, j->flags);
		job_free(j);
	}
	return m.err;
}

void compare_differs(struct compare *c, const char *path, const char *what)
{
	c->progress.differences++;
	if (c->env.differs)
		c->env.differs(c->env.arg, path, what);
}

void compare_path_failed(struct compare *c, const char *path, int err, const char *text)
{
	if (c->env.failed)
		c->env.failed(c->env.arg, path, err, text);
}

/* Drop what last failed more than a minute ago. */
static void tries_expire(struct compare *c, int64_t now)
{
	if (c->ntries < 1024)
		return;
	for (struct ctry *t = RB_MIN(ctries, &c->tries), *next; t; t = next) {
		next = RB_NEXT(ctries, &c->tries, t);
		if (now - t->when < 60)
			continue;
		RB_REMOVE(ctries, &c->tries, t);
		free(t);
		c->ntries--;
	}
}

/* Count a failure of path. Returns how many there were within the last minute. */
static uint32_t try_count(struct compare *c, const char *path)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	tries_expire(c, ts.tv_sec);
	size_t n = strlen(path) + 1;
	struct ctry *t = calloc(1, sizeof(*t) + n), *old;
	if (!t)
		return CMP_TRIES + 1;
	memcpy(t->path, path, n);
	old = RB_INSERT(ctries, &c->tries, t);
	if (old) {
		free(t);
		t = old;
	} else {
		c->ntries++;
	}
	if (ts.tv_sec - t->when >= 60)
		t->n = 0;
	t->when = ts.tv_sec;
	return ++t->n;
}

int compare_again(struct compare *c, const char *path, unsigned flags, int err, const char *text)
{
	if (try_count(c, path) > CMP_TRIES) {
		compare_path_failed(c, path, err, text);
		return 0;
	}
	return compare_add(c, path, flags);
}

void compare_fail(struct compare *c, const struct wfail *f)
{
	const char *path = *f->path2 ? f->path2 : f->path;
	files_refused(c, f->xid);
	bool tree = f->code == WR_MISSING || f->code == WR_TYPE || f->code == WR_EXISTS;
	int err = f->sys_errno ? -f->sys_errno : E_REFUSED;
	if (compare_again(c, path, (tree && *path ? CMP_RECURSIVE : 0) | CMP_CHECKSUM, err,
			  *f->text ? f->text : wrefuse_text(f->code)))
		compare_path_failed(c, path, -ENOMEM, "no memory to schedule it again");
}

bool compare_held(const struct compare *c)
{
	return !TAILQ_EMPTY(&c->held);
}

bool compare_active(const struct compare *c)
{
	return c->nqueued || !TAILQ_EMPTY(&c->jobs);
}

bool compare_busy(const struct compare *c)
{
	return compare_active(c) || c->watch.nwatched;
}

void compare_allow_deletes(struct compare *c)
{
	struct cjob *j;
	while ((j = TAILQ_FIRST(&c->held)) != NULL) {
		TAILQ_REMOVE(&c->held, j, active);
		if (compare_add(c, j->path, j->flags | CMP_ALLOW))
			compare_path_failed(c, j->path, -ENOMEM, "no memory to schedule its deletions");
		job_free(j);
	}
}

/* What is not read yet is taken to be like what was: directories known and not opened, by entries per
 * directory so far. */
void compare_progress(const struct compare *c, struct compare_progress *out)
{
	uint64_t entries = c->progress.entries;
	double scale = 1;
	*out = c->progress;
	if (c->dirs_read && c->dirs_known && entries)
		scale = 1 + (double)c->dirs_known / (double)c->dirs_read;
	out->files_total = (uint64_t)((double)entries * scale);
	out->bytes_total = (uint64_t)((double)c->bytes_due * scale);
}

/* Say whether an entry of an open directory is what j begins with: two that know the same listing would both put what it lacks. */
static bool in_open_dir(struct compare *c, const struct cjob *j)
{
	char up[PATH_LONGEST];
	if (j->flags & CMP_SELF || !*j->path || strlcpy(up, j->path, sizeof(up)) >= sizeof(up))
		return false;
	up[path_parent_len(up)] = 0;
	return dir_is_open(c, up) || dir_is_open(c, j->path);
}

/* A job that is active waits for its end, and so does one that contains an active recursive one; everything else may run beside
 * it, but not on one listing. */
static bool may_start(struct compare *c, const struct cjob *j)
{
	const struct cjob *a;
	if (in_open_dir(c, j))
		return false;
	TAILQ_FOREACH (a, &c->jobs, active)
		if (strcmp(a->path, j->path) == 0 || (j->flags & a->flags & CMP_RECURSIVE && path_within(j->path, a->path)))
			return false;
	return true;
}

/* Start the next job. Returns 1, 0 if there is none that may start now, or an error. */
static int job_start(struct compare *c)
{
	struct cjob *j;
	unsigned looked = 0;
	if (c->stuck)
		return 0;
	RB_FOREACH (j, cqueue, &c->queue)
		if (++looked > START_LOOK || may_start(c, j))
			break;
	if (!j || looked > START_LOOK) {
		c->stuck = j != NULL || looked > 0;
		return 0;
	}
	bool single = *j->path || j->flags & CMP_SELF;
	struct cnode *n = node_new(c, j, NULL, j->path,
				   single ? NF_SINGLE : j->flags & CMP_RECURSIVE ? 0 : NF_SHALLOW);
	if (!n)
		return -ENOMEM;
	RB_REMOVE(cqueue, &c->queue, j);
	c->nqueued--;
	j->renames = c->renames;
	TAILQ_INSERT_TAIL(&c->jobs, j, active);
	node_push(c, n);
	return 1;
}

/* The guard stops a job. What was renamed while it ran looks like a deletion, so it begins once more first, and again until nothing
 * was; then it is remembered, so that the operator's word can start it again. */
static int job_hold(struct compare *c, struct cjob *j)
{
	if (!(j->flags & CMP_AGAIN) || j->renames != c->renames)
		return compare_add(c, j->path, j->flags | CMP_AGAIN);
	struct cjob *h = job_new(j->path, j->flags & ~(unsigned)(CMP_REPORT | CMP_AGAIN));
	if (!h)
		return -ENOMEM;
	TAILQ_INSERT_TAIL(&c->held, h, active);
	if (c->env.guarded)
		c->env.guarded(c->env.arg, j->dels, j->seen);
	return 0;
}

/* All nodes are through: the deletions that waited, then names of hard links that lie elsewhere. Returns 1 or
 * an error. */
static int job_end(struct compare *c, struct cjob *j)
{
	if (j->pending.done < j->pending.len && (!del_guarding(c, j) || del_explained(c, j)))
		return del_pending_step(c, j);
	TAILQ_REMOVE(&c->jobs, j, active);
	c->stuck = false;
	int err = j->pending.done < j->pending.len ? job_hold(c, j)
		  : j->pending.more		   ? compare_add(c, j->path, j->flags)
						   : 0;
	if (!err && !compare_reports(j) && (c->whole || (job_partial(j) && links_incomplete(c->links))))
		err = compare_add(c, "", CMP_RECURSIVE);
	if (!job_partial(j) && !c->whole)
		c->nsuspects = 0;
	c->whole = false;
	job_free(j);
	if (TAILQ_EMPTY(&c->jobs) && links_count(c->links)) {
		links_free(c->links);
		c->links = links_new();
		if (!c->links)
			err = -ENOMEM;
	}
	return err ? err : 1;
}

static int jobs_end(struct compare *c)
{
	struct cjob *j;
	TAILQ_FOREACH (j, &c->jobs, active)
		if (j->nodes == 0)
			return job_end(c, j);
	return 0;
}

/* Keep the window of requests full. */
static int fill_window(struct compare *c)
{
	for (;;) {
		struct cnode *n = TAILQ_FIRST(&c->todo);
		if (c->nwindow >= CMP_WINDOW)
			return 0;
		if (!n) {
			int r = job_start(c);
			if (r <= 0)
				return r;
			continue;
		}
		if (dir_must_wait(c, n))
			return 0;
		/* an entry by itself is always asked for at once: its directory may wait for it */
		if (!(n->flags & NF_SINGLE) && c->nwindow && c->window_bytes + n->estimate > CMP_WINDOW_BYTES)
			return 0;
		int err = node_request(c, n);
		if (err)
			return err;
	}
}

/* One piece of work. Returns 1, 0 when all waits for replies, 2 when there is no room, or an error. */
static int work(struct compare *c)
{
	int r = files_step(c);
	if (r)
		return r;
	if (c->scan.node)
		return c->nfiles < CMP_FILES ? dir_step(c) : 0;
	if (!TAILQ_EMPTY(&c->ready))
		return dir_open(c, TAILQ_FIRST(&c->ready));
	return jobs_end(c);
}

int compare_step(struct compare *c)
{
	c->budget = CMP_STEP_BYTES;
	c->scan.fresh_step = false;
	int err = fill_window(c);
	if (err)
		return err;
	err = dir_verify(c);
	if (err)
		return err;
	while (c->budget > 0) {
		if (stream_room(c->env.stream) == 0)
			return 1;
		int r = work(c);
		if (r < 0)
			return r;
		if (r == 2)
			return 1;
		err = fill_window(c);
		if (err)
			return err;
		if (r == 0)
			return TAILQ_EMPTY(&c->ready) || c->nfiles >= CMP_FILES ? 0 : 1;
	}
	return 1;
}

int compare_listing(struct compare *c, struct buf *payload)
{
	struct wlisting l;
	struct cnode *n;
	if (wlisting_get(payload, &l))
		return E_PROTO;
	TAILQ_FOREACH (n, &c->listing, link)
		if (n->id == l.id)
			break;
	if (!n)
		return 0;
	if (!n->listing)
		n->listing = listing_new();
	if (!n->listing)
		return -ENOMEM;
	int err = listing_append(n->listing, payload, l.count);
	if (!err)
		err = node_grown(c, n);
	if (err)
		return err == -ENOMEM || err == E_LIMIT ? err : E_PROTO;
	if (!l.last && l.code == WR_NONE)
		return 0;
	return dir_listed(c, n, l.code);
}

int compare_sumset(struct compare *c, struct buf *payload)
{
	return files_sumset(c, payload);
}
