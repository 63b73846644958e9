/* SPDX-License-Identifier: BSD-2-Clause
 * Deletions of a comparison and the delete guard.
 *
 * Under the guard nothing is deleted before everything is counted: names that only the standby has wait until
 * the job has listed all. Then all of them go, or, if they exceed the guard, none: the job runs once more, since what
 * was renamed meanwhile looks like a deletion, and then the operator is asked. (Not if the journal tells of each of them: then the mount saw
 * them go, and only the comparison came before the records.) Of
 * names that do not fit into CMP_PENDING_MAX only their number is kept; when the others are deleted the job runs
 * once more. A job of less than the whole tree does not know the standby's size: CMP_GUARD_FREE deletions always
 * pass there. Without the guard (100 %, or the operator's or the journal's word) deletions go at once.
 *
 * A directory counts with everything below it. It is walked (NF_EXTRA nodes) to count, and, where filters
 * exist, because excluded entries inside stay, and with them the directories above them. One in whose place the
 * source has something else (NF_INSTEAD) goes the same way, and that is compared again then. Among the names that
 * wait it has a slash at its end. */
#include "config.h"
#include "replicator/source/compare_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "replicator/source/removed.h"

static bool guard_on(const struct compare *c, const struct cjob *j)
{
	return c->env.mirror->delete_guard < 100 && !(j->flags & CMP_ALLOW);
}

bool del_guarding(const struct compare *c, const struct cjob *j)
{
	if (!guard_on(c, j) || (job_partial(j) && j->dels <= CMP_GUARD_FREE))
		return false;
	return (double)j->dels > (double)j->seen / 100 * c->env.mirror->delete_guard;
}

bool del_explained(const struct compare *c, struct cjob *j)
{
	if (c->env.jdirfd < 0 || j->pending.more || removed_by_journal(c->env.jdirfd, j->pending.names, j->pending.len) != 1)
		return false;
	j->flags |= CMP_ALLOW;
	return true;
}

/* Ask the source itself whether a name is gone. Returns 1 gone, 0 there, or -errno: not known. */
static int source_gone(struct compare *c, const char *path, struct stat *st)
{
	int err = path_stat(c->env.rootfd, path, st);
	return compare_gone(err) ? 1 : err;
}

/* Delete now, if the source still lacks it, or has something else than a directory instead. */
static int delete_now(struct compare *c, const char *path, bool instead)
{
	struct stat st;
	int gone = source_gone(c, path, &st), err;
	if (gone < 0) {
		compare_path_failed(c, path, gone, "not deleted: the source cannot be asked");
		return 0;
	}
	if (!gone && (!instead || S_ISDIR(st.st_mode)))
		return compare_again(c, path, CMP_RECURSIVE, E_CHANGED, "appears and vanishes");
	err = op_rmtree(c, path);
	return err || gone ? err : compare_add(c, path, 0);
}

static int pending_add(struct cjob *j, const char *path, bool instead)
{
	struct cpending *p = &j->pending;
	size_t len = strlen(path), n = len + instead + 1;
	if (p->len + n > CMP_PENDING_MAX) {
		p->more = true;
		return 0;
	}
	if (p->len + n > p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 4096;
		while (cap < p->len + n)
			cap *= 2;
		void *v = realloc(p->names, cap);
		if (!v)
			return -ENOMEM;
		p->names = v;
		p->cap = cap;
	}
	memcpy(p->names + p->len, path, len);
	p->names[p->len + len] = '/';
	p->names[p->len + n - 1] = 0;
	p->len += n;
	return 0;
}

/* Delete path, which stands for count entries, now or when all is counted. */
static int delete_or_wait(struct compare *c, struct cnode *dir, const char *path, uint64_t count, bool instead)
{
	struct cjob *j = dir->job;
	if (!instead) /* that is told already */
		compare_differs(c, path, "only on the standby");
	if (compare_reports(j))
		return 0;
	j->dels += count;
	c->progress.deletions += count;
	if (guard_on(c, j))
		return pending_add(j, path, instead);
	dir->flags |= NF_DIRTY;
	return delete_now(c, path, instead);
}

/* Walk a directory that is to go. */
static int extra_walk(struct compare *c, struct cnode *dir, const char *path, unsigned flags)
{
	struct cnode *kid = node_new(c, dir->job, dir, path, NF_EXTRA | flags);
	if (!kid)
		return -ENOMEM;
	node_push(c, kid);
	return 0;
}

int del_entry(struct compare *c, struct cnode *dir, const char *path, bool is_dir)
{
	struct cjob *j = dir->job;
	bool filters = c->env.mirror->filter.n > 0;
	if (!c->env.mirror->del && !(dir->flags & NF_EXTRA))
		return 0;
	if (is_dir && (filters || (!compare_reports(j) && guard_on(c, j))))
		return extra_walk(c, dir, path, 0);
	if (dir->flags & NF_EXTRA && !filters) {
		dir->count++;
		return 0;
	}
	return delete_or_wait(c, dir, path, 1, false);
}

int del_instead(struct compare *c, const struct celt *el)
{
	const struct filter *f = &c->env.mirror->filter;
	if (!f->n && !guard_on(c, el->node->job))
		return 0;
	if (f->n && filter_excluded(f, el->path, true)) {
		compare_path_failed(c, el->path, -EISDIR, "the standby has an excluded directory in its place");
		return 1;
	}
	int err = extra_walk(c, el->node, el->path, NF_INSTEAD);
	return err ? err : 1;
}

int del_extra_done(struct compare *c, struct cnode *n)
{
	struct cnode *up = n->parent;
	bool instead = n->flags & NF_INSTEAD;
	if (n->flags & NF_KEEP && instead) {
		compare_path_failed(c, n->path, -EISDIR, "the standby has a directory in its place that holds what is excluded");
		return 0;
	}
	if (n->flags & NF_KEEP) {
		up->flags |= up->flags & NF_EXTRA ? NF_KEEP : 0;
		return 0;
	}
	if (up->flags & NF_EXTRA && !c->env.mirror->filter.n) {
		up->count += n->count + 1;
		return 0;
	}
	return delete_or_wait(c, up, n->path, n->count + 1, instead);
}

/* After the last deletion of a directory: its mtime. */
static int restore_parent(struct compare *c, char *path)
{
	struct stat st;
	int err = 0;
	path[path_parent_len(path)] = 0;
	int fd = path_open(c->env.rootfd, path, O_PATH | O_DIRECTORY);
	if (fd >= 0 && fstat(fd, &st) == 0)
		err = op_setattr(c, path, &st, JV_MTIME);
	else if (!compare_gone(fd))
		compare_path_failed(c, path, fd < 0 ? fd : -errno, "its time cannot be read");
	if (fd >= 0)
		close(fd);
	return err;
}

static bool same_parent(const char *a, const char *b)
{
	size_t n = path_parent_len(a);
	return n == path_parent_len(b) && memcmp(a, b, n) == 0;
}

int del_pending_step(struct compare *c, struct cjob *j)
{
	struct cpending *p = &j->pending;
	char *path = p->names + p->done;
	size_t n = strlen(path);
	bool instead = path[n - 1] == '/';
	p->done += n + 1;
	path[n - instead] = 0;
	compare_spend(c, 0);
	int err = delete_now(c, path, instead);
	if (!err && (p->done == p->len || !same_parent(path, p->names + p->done)))
		err = restore_parent(c, path);
	return err ? err : 1;
}
