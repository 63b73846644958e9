/* SPDX-License-Identifier: BSD-2-Clause
 * Bulk work of one connection (bulk.h): a queue of deferred transfers and the comparison, in turns.
 *
 * An item is one inode's transfer. It is WAITING (t is NULL), RUNNING (t is set), or RESTING until retry_ns because the file
 * changed while it was read. A newer CONTENT record of the inode adds its ranges to `ext`: they are sent by the next run, and until
 * then the first record they came from is outstanding. So one sequence number per item is enough: who resumes reads the journal from there and adds
 * the ranges of all later records of the inode (resume.c).
 *
 * Rechecks: sequence numbers of records that a comparison stands for. They are outstanding until the comparison has
 * nothing to do, everything sent is acknowledged and no path is marked as failed. */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>
#include "proto/clock.h"
#include "proto/err.h"
#include "proto/path.h"
#include "replicator/source/aliases.h"
#include "replicator/source/bulk.h"
#include "replicator/source/content.h"
#include "replicator/source/follow.h"
#include "replicator/source/passed.h"

#define RECHECKS_MAX (WPOS_OUT_MAX - BULK_ITEMS_MAX)
#define RESTLESS_NS  (2 * NS_PER_S)   /* a file that changes for so long is sent as an open one */
#define FALSE_ALARMS 3               /* so many, and the mtime is not looked at any more */
#define REST_NS      (100 * NS_PER_MS)

struct item {
	TAILQ_ENTRY(item) link;
	uint64_t ino;
	int fd;                  /* owned */
	char *path;              /* on the standby now */
	uint64_t seq;            /* first record that is not yet sent */
	uint64_t next_seq;       /* while RUNNING: first record whose ranges came later, 0: none */
	struct extent_set ext;   /* ranges to send by the next run */
	struct extent_set run;   /* while RUNNING: ranges of this run */
	struct wop *copies;      /* for the first run; paths owned */
	size_t ncopies;
	struct transfer *t;
	bool open;
	bool linked;             /* had several names */
	bool newer;              /* a newer record came since it was put off */
	uint64_t size;           /* of the file by the newest record */
	uint64_t as_of_ns;       /* time of the newest record, 0: do not look at the mtime */
	uint64_t since_ns, retry_ns;
};

TAILQ_HEAD(item_list, item);

struct bulk {
	struct bulk_env env;
	struct passed_list passed;
	struct compare *compare;
	struct item_list items;
	size_t nitems;
	struct item *urgent;               /* NULL: none */
	uint64_t rechecks[RECHECKS_MAX];
	uint32_t nrechecks;
	uint64_t all_from;                 /* every record from here on is outstanding, 0: those in rechecks */
	bool full;                         /* POS flag 1 */
	bool repairs;                      /* a verification that repairs is under way: the same flag */
	bool moved;
	bool turn;                         /* whose turn it is: false items, true comparison */
	bool starved;                      /* the comparison waits for replies */
	struct aliases aliases;
	unsigned false_alarms;             /* files that seemed to be written to, and no record came */
};

void bulk_path_failed(void *arg, const char *path, int err, const char *text)
{
	struct bulk *b = arg;
	char why[256];

	snprintf(why, sizeof why, "%s%s%s", text, err != 0 ? ": " : "", err != 0 ? err_text(err) : "");
	failures_add(b->env.failures, path, why, true);
}

static void compare_guarded(void *arg, uint64_t n, uint64_t total)
{
	struct bulk *b = arg;

	if (b->env.guarded != NULL)
		b->env.guarded(b->env.arg, n, total);
}

int bulk_new(struct bulk **out, const struct bulk_env *env)
{
	struct bulk *b = calloc(1, sizeof *b);
	struct compare_env ce = {.stream = env->stream, .rootfd = env->rootfd, .jdirfd = env->jdirfd, .mirror = env->mirror, .no_owner = env->no_owner, .watch = true,
	    .failed = bulk_path_failed, .guarded = compare_guarded, .arg = b};
	int r;

	*out = NULL;
	if (b == NULL)
		return -ENOMEM;
	b->env = *env;
	TAILQ_INIT(&b->items);
	TAILQ_INIT(&b->passed);
	r = compare_new(&b->compare, &ce);
	if (r < 0) {
		free(b);
		return r;
	}
	*out = b;
	return 0;
}

static void item_free(struct bulk *b, struct item *it)
{
	size_t i;

	TAILQ_REMOVE(&b->items, it, link);
	b->nitems--;
	b->moved = true;
	if (b->urgent == it)
		b->urgent = NULL;
	transfer_free(it->t);
	extent_release(&it->ext);
	extent_release(&it->run);
	for (i = 0; i < it->ncopies; i++)
		free((char *)it->copies[i].path);
	free(it->copies);
	if (it->fd >= 0)
		close(it->fd);
	free(it->path);
	free(it);
}

void bulk_free(struct bulk *b)
{
	if (b == NULL)
		return;
	passed_release(&b->passed);
	while (!TAILQ_EMPTY(&b->items))
		item_free(b, TAILQ_FIRST(&b->items));
	compare_free(b->compare);
	aliases_release(&b->aliases);
	free(b);
}

static struct item *find(const struct bulk *b, uint64_t ino)
{
	struct item *it;

	TAILQ_FOREACH(it, &b->items, link)
		if (it->ino == ino)
			return it;
	return NULL;
}

bool bulk_has(const struct bulk *b, uint64_t ino)
{
	return find(b, ino) != NULL;
}

bool bulk_full(const struct bulk *b)
{
	return b->nitems >= BULK_ITEMS_MAX;
}

static void item_copies(struct item *it, const struct bulk_spec *spec)
{
	if (spec->ncopies == 0)
		return;
	it->copies = calloc(spec->ncopies, sizeof *it->copies);
	while (it->copies != NULL && it->ncopies < spec->ncopies) {
		struct wop *op = &it->copies[it->ncopies];

		*op = spec->copies[it->ncopies];
		op->path = strdup(op->path);
		if (op->path == NULL)
			break; /* a hint less */
		it->ncopies++;
	}
}

int bulk_defer(struct bulk *b, struct bulk_spec *spec)
{
	struct item *it = calloc(1, sizeof *it);
	char *path = strdup(spec->path);

	if (it == NULL || path == NULL) {
		free(it);
		free(path);
		close(spec->fd);
		extent_release(&spec->extents);
		return -ENOMEM;
	}
	it->path = path;
	it->fd = spec->fd;
	spec->fd = -1;
	it->ino = spec->ino;
	it->seq = spec->seq;
	it->open = spec->open;
	it->linked = spec->linked;
	it->size = spec->size;
	it->as_of_ns = spec->as_of_ns;
	it->since_ns = spec->since_ns != 0 ? spec->since_ns : clock_mono();
	extent_init(&it->ext);
	extent_init(&it->run);
	extent_swap(&it->ext, &spec->extents);
	item_copies(it, spec);
	TAILQ_INSERT_TAIL(&b->items, it, link);
	b->nitems++;
	b->moved = true;
	return 0;
}

int bulk_take(struct bulk *b, uint64_t ino, struct extent_set *extents, uint64_t *seq, uint64_t *since_ns)
{
	struct item *it = find(b, ino);
	struct stat st;
	int r;

	if (it == NULL || it->t != NULL || it->ncopies != 0 || b->urgent == it || fstat(it->fd, &st) != 0 ||
	    extent_bytes(&it->ext, (uint64_t)st.st_size) > CONTENT_INLINE)
		return 0;
	r = extent_union(extents, &it->ext);
	if (r < 0)
		return r;
	*seq = it->seq;
	*since_ns = it->since_ns;
	item_free(b, it);
	return 1;
}

bool bulk_trusts_mtime(const struct bulk *b)
{
	return b->false_alarms < FALSE_ALARMS;
}

int bulk_extend(struct bulk *b, uint64_t ino, uint64_t seq, const struct extent_set *extents, bool open, uint64_t size, uint64_t as_of_ns)
{
	struct item *it = find(b, ino);

	if (it == NULL)
		return 0;
	if (it->t != NULL && it->next_seq == 0)
		it->next_seq = seq;
	it->open = open;
	it->newer = true;
	it->size = size;
	it->as_of_ns = as_of_ns;
	return extent_union(&it->ext, extents);
}

void bulk_urge(struct bulk *b, uint64_t ino)
{
	struct item *it = ino == 0 ? TAILQ_FIRST(&b->items) : find(b, ino);

	if (it == NULL)
		return;
	b->urgent = it;
	it->retry_ns = 0;
}

bool bulk_urgent(const struct bulk *b)
{
	return b->urgent != NULL;
}

void bulk_forget(struct bulk *b, uint64_t ino)
{
	struct item *it = find(b, ino);

	if (it != NULL)
		item_free(b, it);
}

int bulk_renamed(struct bulk *b, const char *from, const char *to, bool exchange)
{
	struct follow_rec e = {.type = JT_RENAME, .flags = exchange ? JF_EXCHANGE : 0, .path = from, .path2 = to};
	struct item *it;
	size_t i;
	int r;

	bulk_named(b);
	TAILQ_FOREACH(it, &b->items, link) {
		r = follow_path(&it->path, &e);
		if (r < 0)
			return r;
		if (r > 0 && it->t != NULL && transfer_move(it->t, it->path) < 0)
			return -ENOMEM;
		for (i = 0; i < it->ncopies; i++) {
			char *p = (char *)it->copies[i].path;

			if (follow_path(&p, &e) < 0)
				return -ENOMEM;
			it->copies[i].path = p;
		}
	}
	r = passed_add(&b->passed, b->env.stream, from, to, exchange);
	if (r == 0)
		r = failures_renamed(b->env.failures, from, to, exchange);
	return r < 0 ? r : compare_renamed(b->compare, from, to, exchange);
}

void bulk_touched(struct bulk *b, const char *path, uint64_t ino)
{
	compare_touched(b->compare, path, ino);
}

static void recheck_note(struct bulk *b, uint64_t seq)
{
	uint32_t i;

	if (seq == 0)
		return;
	for (i = 0; i < b->nrechecks; i++)
		if (b->rechecks[i] == seq)
			return;
	if (b->nrechecks < RECHECKS_MAX)
		b->rechecks[b->nrechecks++] = seq;
	else
		bulk_mark_from(b, seq);
	b->moved = true;
}

void bulk_mark_from(struct bulk *b, uint64_t seq)
{
	if (b->all_from == 0 || seq < b->all_from)
		b->all_from = seq;
	b->moved = true;
}

int bulk_patched(struct bulk *b, uint64_t seq, const char *path)
{
	return compare_active(b->compare) ? bulk_recheck(b, seq, path, CMP_CHECKSUM) : 0;
}

int bulk_recheck(struct bulk *b, uint64_t seq, const char *path, unsigned flags)
{
	recheck_note(b, seq);
	b->starved = false;
	return compare_add(b->compare, path, flags);
}

static int left(struct bulk *b, uint64_t ino, uint64_t seq)
{
	return b->env.left != NULL ? b->env.left(b->env.arg, ino, seq) : 0;
}

void bulk_named(struct bulk *b)
{
	aliases_named(&b->aliases);
}

void bulk_aliases(struct bulk *b, uint64_t seq, uint64_t ino)
{
	if (aliases_want(&b->aliases, ino))
		recheck_note(b, seq);
}

static int search_aliases(struct bulk *b)
{
	int r = aliases_search(&b->aliases, b->env.rootfd, &b->env.mirror->filter, b->compare);

	if (r != 0)
		b->starved = false;
	return r;
}

int bulk_left(struct bulk *b, uint64_t seq, uint64_t ino, const char *path, unsigned flags)
{
	int r = left(b, ino, seq);

	return r < 0 ? r : bulk_recheck(b, seq, path, flags);
}

int bulk_linked(struct bulk *b, uint64_t seq, const char *from, const char *to, bool overtaken)
{
	unsigned how = compare_scheduled(b->compare, from) & CMP_CHECKSUM;

	bulk_named(b);
	return how != 0 || overtaken ? bulk_recheck(b, seq, to, how) : 0;
}

int bulk_changed(struct bulk *b, uint64_t seq, const char *path, unsigned flags, unsigned rounds)
{
	int r = compare_changed(b->compare, path, flags, rounds);

	if (r > 0 && !b->full)
		recheck_note(b, seq);
	return r < 0 ? r : 0;
}

int bulk_sent(struct bulk *b, uint64_t sent, uint64_t head)
{
	int r = compare_sent(b->compare, sent, head);

	if (r > 0)
		b->starved = false;
	return r;
}

/* The inode of the file at path if that is excluded and not its only name, or 0. */
static uint64_t hidden_inode(const struct bulk *b, const char *path)
{
	const struct filter *f = &b->env.mirror->filter;
	struct stat st;

	if (f->n == 0 || !filter_excluded(f, path, false) || path_stat(b->env.rootfd, path, &st) < 0)
		return 0;
	return !S_ISDIR(st.st_mode) && st.st_nlink > 1 ? st.st_ino : 0;
}

int bulk_recheck_entry(struct bulk *b, uint64_t seq, const char *path, unsigned flags)
{
	uint64_t hidden = hidden_inode(b, path);
	int r = bulk_recheck(b, seq, path, flags);
	char *parent;

	if (hidden != 0)
		bulk_aliases(b, seq, hidden);

	if (r < 0 || path[0] == '\0')
		return r;
	parent = strndup(path, path_parent_len(path));
	if (parent == NULL)
		return -ENOMEM;
	r = bulk_recheck(b, seq, parent, CMP_SELF);
	free(parent);
	return r;
}

void bulk_mark_full(struct bulk *b)
{
	b->full = true;
	b->moved = true;
}

void bulk_repairs(struct bulk *b, bool under_way)
{
	b->moved |= b->repairs != under_way;
	b->repairs = under_way;
}

int bulk_compare_all(struct bulk *b, unsigned flags)
{
	bulk_mark_full(b);
	return bulk_recheck(b, 0, "", CMP_RECURSIVE | flags);
}

bool bulk_comparing(const struct bulk *b)
{
	return compare_busy(b->compare);
}

bool bulk_active(const struct bulk *b)
{
	return compare_active(b->compare);
}

bool bulk_is_full(const struct bulk *b)
{
	return b->full || b->repairs;
}

bool bulk_busy(const struct bulk *b)
{
	return b->nitems != 0 || b->nrechecks != 0 || b->all_from != 0 || bulk_is_full(b) || aliases_wanted(&b->aliases) || compare_busy(b->compare) || failures_count(b->env.failures) != 0;
}

bool bulk_moved(struct bulk *b)
{
	bool moved = b->moved;

	b->moved = false;
	return moved;
}

/* Say whether an item must wait, because its file was written to after its newest record. */
static bool item_rests(struct bulk *b, struct item *it, const struct stat *st)
{
	if (it->open || b->urgent == it || !bulk_trusts_mtime(b) || !content_superseded(st, it->as_of_ns))
		return false;
	if (clock_mono() - it->since_ns <= RESTLESS_NS) {
		it->retry_ns = clock_mono() + REST_NS;
		return true;
	}
	b->false_alarms += !it->newer;
	it->open = true;
	return false;
}

/* Begin a run of an item's transfer. Returns 0, TR_WAIT if it rests, or an error. */
static int item_start(struct bulk *b, struct item *it)
{
	struct transfer_spec spec = {.path = it->path, .seq = it->seq, .copies = it->copies, .ncopies = it->ncopies, .open = it->open};
	struct stat st;
	int r;

	if (fstat(it->fd, &st) != 0)
		return -errno;
	if (st.st_nlink == 0)
		return E_GONE;
	if (item_rests(b, it, &st))
		return TR_WAIT;
	spec.open = it->open;
	extent_clear(&it->run);
	extent_swap(&it->run, &it->ext);
	extent_init(&spec.extents);
	r = extent_union(&spec.extents, &it->run);
	if (r == 0 && it->open)
		r = content_appended(&spec.extents, it->size);
	if (r < 0) {
		extent_release(&spec.extents);
		return r;
	}
	content_mode(it->fd, &st, &spec);
	spec.fd = fcntl(it->fd, F_DUPFD_CLOEXEC, 3);
	if (spec.fd < 0) {
		r = -errno;
		extent_release(&spec.extents);
		return r;
	}
	it->next_seq = 0;
	if (spec.mode == WB_PATCH && (r = bulk_patched(b, it->seq, it->path)) < 0) {
		close(spec.fd);
		extent_release(&spec.extents);
		return r;
	}
	return transfer_new(&it->t, b->env.stream, &spec);
}

/* A run ended with r: TR_DONE, E_CHANGED or an error of this file. Stream errors do not come here. */
static int item_end(struct bulk *b, struct item *it, int r)
{
	transfer_free(it->t);
	it->t = NULL;
	b->moved = true;
	if (r == TR_DONE)
		bulk_touched(b, it->path, it->ino);
	if (r == TR_DONE && it->ext.n == 0) {
		item_free(b, it);
		return 0;
	}
	if (r == TR_DONE) {
		it->seq = it->next_seq;
		it->since_ns = clock_mono();
		while (it->ncopies > 0)
			free((char *)it->copies[--it->ncopies].path);
		return 0;
	}
	if (r == E_CHANGED) {
		if (clock_mono() - it->since_ns > RESTLESS_NS || b->urgent == it)
			it->open = true;
		it->retry_ns = b->urgent == it ? 0 : clock_mono() + REST_NS;
		return extent_union(&it->ext, &it->run);
	}
	if (r != E_GONE)
		r = bulk_unreadable(b, it->seq, it->ino, it->path, r);
	else
		r = b->env.gone != NULL ? b->env.gone(b->env.arg, it->ino, it->seq, it->linked) : 0;
	item_free(b, it);
	return r;
}

static int item_step(struct bulk *b, struct item *it)
{
	int r = it->t == NULL ? item_start(b, it) : 0;

	if (r == TR_WAIT)
		return 1;
	if (r == 0)
		r = transfer_step(it->t);
	if (r == TR_DONE || r == E_CHANGED || content_file_error(r)) {
		r = item_end(b, it, r);
		return r < 0 ? r : 1;
	}
	return r < 0 ? r : 1;
}

/* The first item that does not rest. */
static struct item *item_next(struct bulk *b)
{
	uint64_t now = 0;
	struct item *it;

	TAILQ_FOREACH(it, &b->items, link) {
		if (it->retry_ns == 0)
			return it;
		if (now == 0)
			now = clock_mono();
		if (it->retry_ns <= now)
			return it;
	}
	return NULL;
}

static int retry_due(struct bulk *b)
{
	char *path = failures_due(b->env.failures);
	int r;

	if (path == NULL)
		return 0;
	r = bulk_recheck_entry(b, 0, path, CMP_RECURSIVE | CMP_CHECKSUM);
	free(path);
	return r < 0 ? r : 1;
}

int bulk_step(struct bulk *b)
{
	struct item *it;
	int r;

	if (b->urgent != NULL)
		return stream_live(b->env.stream) ? item_step(b, b->urgent) : 0;
	r = retry_due(b);
	if (r >= 0)
		r = search_aliases(b);
	if (r < 0)
		return r;
	if (stream_room(b->env.stream) == 0)
		return 0;
	b->turn = !b->turn;
	it = item_next(b);
	if (it != NULL && (b->turn || b->starved))
		return item_step(b, it);
	if (!b->starved) {
		stream_tag(b->env.stream, 0);
		r = compare_step(b->compare);
		if (r == 0 && compare_busy(b->compare)) /* that step may have ended a job: the next may begin now */
			r = compare_step(b->compare);
		b->starved = r == 0;
		if (r != 0)
			return r;
	}
	return it != NULL ? item_step(b, it) : 0;
}

void bulk_settle(struct bulk *b)
{
	bool held;

	if (compare_busy(b->compare) || aliases_wanted(&b->aliases))
		return;
	failures_settle(b->env.failures);
	if (failures_count(b->env.failures) != 0)
		return;
	held = compare_held(b->compare); /* it is not done: a later connection compares everything, and asks again */
	if (b->nrechecks != 0 || b->all_from != 0 || b->full != held)
		b->moved = true;
	b->nrechecks = 0;
	b->all_from = 0;
	b->full = held;
	if (b->nitems == 0 && b->env.compared != NULL)
		b->env.compared(b->env.arg);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

uint32_t bulk_outstanding(const struct bulk *b, uint64_t *out)
{
	const struct item *it;
	uint32_t n = 0, i;

	TAILQ_FOREACH(it, &b->items, link)
		if (it->seq != 0 && n < WPOS_OUT_MAX)
			out[n++] = it->seq;
	for (i = 0; i < b->nrechecks && n < WPOS_OUT_MAX; i++)
		out[n++] = b->rechecks[i];
	if (b->all_from != 0) {
		uint64_t first = b->all_from;

		for (i = 0; i < n; i++)
			first = out[i] < first ? out[i] : first;
		out[0] = first;
		out[1] = WPOS_OUT_ALL;
		return 2;
	}
	qsort(out, n, sizeof *out, by_value);
	for (i = 1; i < n; i++)
		if (out[i] == out[i - 1]) {
			memmove(&out[i], &out[i + 1], (n - i - 1) * sizeof *out);
			n--, i--;
		}
	return n;
}

/* A FAIL for a transfer that is still under way: give it up, the comparison does it. */
static void drop_running(struct bulk *b, uint32_t xid)
{
	struct item *it;

	TAILQ_FOREACH(it, &b->items, link)
		if (it->t != NULL && transfer_xid(it->t) == xid) {
			recheck_note(b, it->seq);
			item_free(b, it);
			return;
		}
}

void bulk_fail_begin(struct bulk *b, const struct wfail *f)
{
	b->starved = false;
	if (f->xid != 0)
		drop_running(b, f->xid);
	recheck_note(b, f->seq);
}

/* Say whether another file than the record's, or none, is at its path. */
static bool strange(const struct wfail *f)
{
	return f->code == WR_MISSING || f->code == WR_EXISTS || f->code == WR_TYPE || f->code == WR_MISMATCH;
}

/* Bytes are compared where a transfer failed, and where another file may be than the stream took it for: a later patch sets size and mtime to
 * the source's, and leaves the other ranges as they were. */
int bulk_fail_path(struct bulk *b, const struct wfail *f, const char *path)
{
	char why[512];

	snprintf(why, sizeof why, "%s: %s", wrefuse_text(f->code), f->text);
	if (!failures_add(b->env.failures, path, why, false))
		return 0;
	return bulk_recheck_entry(b, f->seq, path, (f->xid != 0 || f->path2[0] != '\0' || strange(f) ? CMP_CHECKSUM : 0) | (f->xid == 0 ? CMP_RECURSIVE : 0) |
	    (f->seq != 0 ? CMP_ALLOW : 0));
}

void bulk_fail_compare(struct bulk *b, const struct wfail *f)
{
	const char *path = f->path2[0] != '\0' ? f->path2 : f->path;
	char why[512];

	snprintf(why, sizeof why, "%s: %s", wrefuse_text(f->code), f->text);
	failures_add(b->env.failures, path, why, false);
	b->starved = false;
	compare_fail(b->compare, f);
}

int bulk_fail_moved(struct bulk *b, const struct wfail *f)
{
	struct follow_names names;
	struct wfail moved = *f;
	int i, r = passed_follow(&b->passed, b->env.stream, f->path2[0] != '\0' ? f->path2 : f->path, &names);

	moved.xid = 0;
	moved.path2 = "";
	for (i = 1; r == 0 && i < names.n; i++) {
		moved.path = names.v[i];
		bulk_fail_compare(b, &moved);
	}
	follow_end(&names);
	return r;
}

int bulk_unreadable(struct bulk *b, uint64_t seq, uint64_t ino, const char *path, int err)
{
	char why[256];

	snprintf(why, sizeof why, "cannot read it at the source: %s", err_text(err));
	recheck_note(b, seq);
	failures_add(b->env.failures, path, why, true);
	return left(b, ino, seq);
}

int bulk_timeout(const struct bulk *b)
{
	uint64_t now = clock_mono(), first = UINT64_MAX;
	const struct item *it;
	int ms = failures_timeout(b->env.failures), mine;

	TAILQ_FOREACH(it, &b->items, link)
		if (it->retry_ns < first)
			first = it->retry_ns;
	if (aliases_wanted(&b->aliases) && b->aliases.due_ns < first)
		first = b->aliases.due_ns;
	if (first == UINT64_MAX || first == 0)
		return ms;
	mine = first <= now ? 0 : (int)((first - now) / NS_PER_MS) + 1;
	return ms < 0 || mine < ms ? mine : ms;
}

struct compare *bulk_compare(struct bulk *b)
{
	b->starved = false;
	return b->compare;
}

uint64_t bulk_bytes(const struct bulk *b)
{
	const struct item *it;
	uint64_t left = 0;
	struct stat st;

	TAILQ_FOREACH(it, &b->items, link) {
		if (it->t != NULL)
			left += transfer_left(it->t);
		if (fstat(it->fd, &st) == 0)
			left += extent_bytes(&it->ext, (uint64_t)st.st_size);
	}
	return left;
}
