/* SPDX-License-Identifier: BSD-2-Clause
 * Directories of a comparison: requested, read, finished. The states are those of compare.c's essay. */
#include "config.h"
#include "replicator/source/compare_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/xattrs.h"

static int open_order(struct cnode *a, struct cnode *b)
{
	return strcmp(a->path, b->path);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
RB_GENERATE_INTERNAL(copen, cnode, open, open_order, static)
#pragma GCC diagnostic pop

static void open_add(struct compare *c, struct cnode *n)
{
	if (!(n->flags & NF_SINGLE) && !n->is_open)
		n->is_open = RB_INSERT(copen, &c->open, n) == NULL;
}

static void open_drop(struct compare *c, struct cnode *n)
{
	if (n->is_open)
		RB_REMOVE(copen, &c->open, n);
	n->is_open = false;
	c->stuck = false;
}

bool dir_is_open(struct compare *c, const char *path)
{
	struct cnode *n = RB_ROOT(&c->open);
	while (n) {
		int x = strcmp(path, n->path);
		if (!x)
			return true;
		n = x < 0 ? RB_LEFT(n, open) : RB_RIGHT(n, open);
	}
	return false;
}

bool dir_must_wait(const struct compare *c, const struct cnode *n)
{
	size_t len = strlen(n->path);
	const struct cnode *s;
	if (n->flags & NF_SINGLE)
		return false;
	TAILQ_FOREACH (s, &c->singles, single) {
		if (!*s->path || s->job->flags & CMP_SELF || path_parent_len(s->path) != len || memcmp(s->path, n->path, len) != 0)
			continue;
		if (s->state != NS_KIDS || files_has(c, s->path))
			return true;
	}
	return false;
}

struct cnode *node_new(struct compare *c, struct cjob *j, struct cnode *parent, const char *path,
		       unsigned flags)
{
	size_t n = strlen(path) + 1;
	struct cnode *node = calloc(1, sizeof(*node) + n);
	if (!node)
		return NULL;
	node->job = j;
	node->parent = parent;
	node->flags = (uint8_t)flags;
	node->estimate = 4096;
	node->probe = (uint32_t)(n - 1);
	memcpy(node->path, path, n);
	j->nodes++;
	TAILQ_INSERT_TAIL(&c->nodes, node, every);
	if (flags & NF_SINGLE)
		TAILQ_INSERT_TAIL(&c->singles, node, single);
	if (parent)
		parent->kids++;
	return node;
}

void node_free(struct compare *c, struct cnode *n)
{
	TAILQ_REMOVE(&c->nodes, n, every);
	if (n->flags & NF_SINGLE)
		TAILQ_REMOVE(&c->singles, n, single);
	open_drop(c, n);
	listing_free(n->listing);
	n->job->nodes--;
	free(n);
}

void node_push(struct compare *c, struct cnode *n)
{
	c->dirs_known += !(n->flags & (NF_EXTRA | NF_SINGLE));
	if (n->flags & NF_FRESH) {
		open_add(c, n);
		n->state = NS_READY;
		TAILQ_INSERT_HEAD(&c->ready, n, link);
	} else {
		n->state = NS_TODO;
		TAILQ_INSERT_HEAD(&c->todo, n, link);
	}
}

/* The listing is not needed any more: make room in the window. */
static void window_leave(struct compare *c, struct cnode *n)
{
	if (n->flags & NF_FRESH)
		return;
	listing_free(n->listing);
	n->listing = NULL;
	c->nwindow--;
	c->window_bytes -= n->estimate;
	n->estimate = 0;
}

int node_request(struct compare *c, struct cnode *n)
{
	bool single = n->flags & NF_SINGLE;
	char keep = n->path[n->probe];
	if (n->state == NS_TODO) {
		TAILQ_REMOVE(&c->todo, n, link);
		TAILQ_INSERT_TAIL(&c->listing, n, link);
		n->state = NS_LISTING;
		open_add(c, n);
		c->nwindow++;
		c->window_bytes += n->estimate;
	}
	n->id = stream_request_id(c->env.stream);
	n->path[n->probe] = 0;
	buf_clear(&c->req);
	buf_put_u32(&c->req, n->id);
	buf_put_str(&c->req, n->path);
	buf_put_u8(&c->req, single);
	n->path[n->probe] = keep;
	return c->req.err ? c->req.err : stream_request(c->env.stream, FT_LIST, &c->req);
}

int node_grown(struct compare *c, struct cnode *n)
{
	size_t bytes = listing_bytes(n->listing);
	if (bytes > CMP_LISTINGS_MAX)
		return E_LIMIT;
	if (bytes > n->estimate) {
		c->window_bytes += bytes - n->estimate;
		n->estimate = (uint32_t)bytes;
	}
	return c->window_bytes > CMP_LISTINGS_MAX ? E_LIMIT : 0;
}

static bool code_missing(uint32_t code)
{
	return code == WR_MISSING || code == WR_TYPE;
}

/* The listing is complete or useless: to READY. */
static void node_ready(struct compare *c, struct cnode *n)
{
	TAILQ_REMOVE(&c->listing, n, link);
	TAILQ_INSERT_HEAD(&c->ready, n, link);
	n->state = NS_READY;
	uint32_t bytes = n->listing ? (uint32_t)listing_bytes(n->listing) : 0;
	c->window_bytes = c->window_bytes - n->estimate + bytes;
	n->estimate = bytes;
	if (n->listing && !(n->flags & NF_SINGLE))
		n->job->seen += listing_count(n->listing);
}

/* An ancestor is what is missing, or no directory. It is a job of its own, that all paths below it share: each of them would make it anew. */
static int ancestor_instead(struct compare *c, struct cnode *n)
{
	n->flags |= NF_DROPPED;
	return compare_add(c, n->path, (n->job->flags & (CMP_ALLOW | CMP_CHECKSUM)) | CMP_RECURSIVE);
}

/* A path's own entry was asked for. If the standby lacks it, its nearest ancestor there is looked for: what
 * is missing above must be made first, so the highest missing directory becomes the path. */
static int single_listed(struct compare *c, struct cnode *n, uint32_t code)
{
	struct wentry e;
	size_t full = strlen(n->path);
	bool there = code == WR_NONE && n->listing && listing_self(n->listing, &e);
	if (!there && n->probe > 0) {
		size_t up = n->probe;
		while (up > 0 && n->path[up - 1] != '/')
			up--;
		if (up > 0) {
			n->path[n->probe] = 0; /* the shorter path is what is missing */
			n->probe = (uint32_t)up - 1;
			n->path[n->probe] = 0;
			listing_free(n->listing);
			n->listing = NULL;
			int err = node_request(c, n);
			n->path[n->probe] = '/';
			return err;
		}
	}
	if (there && n->probe < full && S_ISDIR(e.attr.mode)) {
		there = false; /* the ancestor is there: path, cut to the component below it, is not */
	} else {
		n->path[n->probe] = 0;
	}
	if (!there) {
		listing_free(n->listing);
		n->listing = NULL;
	}
	int err = strlen(n->path) < strlen(n->job->path) && !compare_reports(n->job) ? ancestor_instead(c, n) : 0;
	node_ready(c, n);
	return err;
}

/* A directory that could not be listed. */
static int unlisted(struct compare *c, struct cnode *n, uint32_t code)
{
	int err = 0;
	n->flags |= NF_DROPPED;
	if (!code_missing(code)) {
		n->flags |= n->flags & NF_EXTRA ? NF_KEEP : 0;
		compare_path_failed(c, n->path, E_REFUSED, wrefuse_text(code));
	} else if (!(n->flags & NF_EXTRA)) {
		err = compare_again(c, n->path, n->job->flags, E_CHANGED,
				    "changes faster than it can be compared");
	}
	listing_free(n->listing);
	n->listing = NULL;
	node_ready(c, n);
	return err;
}

int dir_listed(struct compare *c, struct cnode *n, uint32_t code)
{
	if ((n->flags & NF_SINGLE) && (code == WR_NONE || code_missing(code)))
		return single_listed(c, n, code);
	if (code != WR_NONE)
		return unlisted(c, n, code);
	if (listing_seal(n->listing))
		return -ENOMEM;
	node_ready(c, n);
	return 0;
}

/* Set or report a directory's own attributes, now that nothing below changes them any more. */
static int dir_attrs(struct compare *c, struct cnode *n)
{
	struct stat st;
	int fd = path_open(c->env.rootfd, n->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK), err = 0;
	if (fd < 0) {
		if (!compare_gone(fd))
			compare_path_failed(c, n->path, fd, "its attributes cannot be read");
		return 0;
	}
	if (fstat(fd, &st) || st.st_ino != n->ino) {
		close(fd);
		return compare_again(c, n->path, n->job->flags, E_CHANGED,
				     "changes faster than it can be compared");
	}
	buf_clear(&c->xattrs);
	err = xattrs_read(&c->xattrs, fd, -1, NULL);
	close(fd);
	if (err) {
		compare_path_failed(c, n->path, err, "its extended attributes cannot be read");
		buf_clear(&c->xattrs);
	}
	uint64_t digest = c->xattrs.len ? xattrs_digest(c->xattrs.data, c->xattrs.len) : 0;
	uint32_t valid = JV_MODE | JV_UID | JV_GID | JV_MTIME;
	bool xdiff = true; /* a new one may have inherited an ACL on the standby, where directories above get theirs later */
	if (!(n->flags & NF_FRESH)) {
		valid = entry_attr_diff(c, &st, &n->old);
		xdiff = !err && digest != n->xdigest;
		if (valid || xdiff)
			compare_differs(c, n->path,
					valid & JV_MODE		    ? "mode differs"
					: valid & (JV_UID | JV_GID) ? "owner differs"
					: valid & JV_MTIME	    ? "times differ"
								    : "extended attributes differ");
		if (n->flags & NF_DIRTY)
			valid |= JV_MTIME;
	}
	if (compare_reports(n->job))
		return 0;
	return entry_fix_attrs(c, NULL, n->path, &st, valid, xdiff && !err);
}

/* The parent of a single entry that was changed: only its mtime is ours to set. */
static int single_parent(struct compare *c, struct cnode *n)
{
	const char *base;
	struct stat st;
	int fd = path_open_parent(c->env.rootfd, n->path, &base), err = 0;
	n->path[path_parent_len(n->path)] = 0;
	if (fd >= 0 && fstat(fd, &st) == 0)
		err = op_setattr(c, n->path, &st, JV_MTIME);
	else if (!compare_gone(fd))
		compare_path_failed(c, n->path, fd < 0 ? fd : -errno, "its time cannot be read");
	if (fd >= 0)
		close(fd);
	return err;
}

/* All below is finished. */
static int node_finish(struct compare *c, struct cnode *n)
{
	if (n->flags & NF_EXTRA)
		return del_extra_done(c, n);
	if (n->flags & NF_DROPPED)
		return 0;
	if (n->flags & NF_SINGLE)
		return n->flags & NF_DIRTY ? single_parent(c, n) : 0;
	return dir_attrs(c, n);
}

/* Finish a directory that is read and has no kids left, and then those above it. */
static int node_settle(struct compare *c, struct cnode *n)
{
	while (n && n->state == NS_KIDS && n->kids == 0) {
		struct cnode *up = n->parent;
		int err = node_finish(c, n);
		node_free(c, n);
		if (up)
			up->kids--;
		if (err)
			return err;
		n = up;
	}
	return 0;
}

int node_kid_done(struct compare *c, struct cnode *n)
{
	n->kids--;
	return node_settle(c, n);
}

static int scan_end(struct compare *c)
{
	struct cnode *n = c->scan.node;
	if (c->scan.fd >= 0)
		close(c->scan.fd);
	c->scan.fd = -1;
	c->scan.node = NULL;
	window_leave(c, n);
	open_drop(c, n);
	n->state = NS_KIDS;
	return node_settle(c, n);
}

/* Compare the entry of a SINGLE node; its directory is open. */
static int single_entry(struct compare *c, struct cnode *n, const char *base)
{
	struct celt el = {.node = n, .dirfd = c->scan.fd, .name = base, .path = n->path, .fd = -1};
	el.have = n->listing && listing_self(n->listing, &el.e);
	int err = c->scan.fd < 0 ? -ENOENT : fstatat(c->scan.fd, base, &el.st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
	bool dir = err ? el.have && S_ISDIR(el.e.attr.mode) : S_ISDIR(el.st.st_mode);
	if (c->env.mirror->filter.n && filter_excluded(&c->env.mirror->filter, n->path, dir))
		return 0;
	if (!err)
		return entry_process(c, &el);
	if (err != -ENOENT) {
		compare_path_failed(c, n->path, err, "cannot be read");
		return 0;
	}
	return el.have ? del_entry(c, n, n->path, S_ISDIR(el.e.attr.mode)) : 0;
}

static int single_open(struct compare *c, struct cnode *n)
{
	const char *base = NULL;
	struct stat st;
	n->job->seen++;
	c->scan.fd = path_open_parent(c->env.rootfd, n->path, &base);
	if (c->scan.fd < 0 && !compare_gone(c->scan.fd)) {
		compare_path_failed(c, n->path, c->scan.fd, "its directory cannot be opened");
		return scan_end(c);
	}
	if (c->scan.fd >= 0 && fstat(c->scan.fd, &st) == 0)
		c->scan.mtime = (struct jtime){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec};
	int err = single_entry(c, n, base);
	int end = scan_end(c);
	return err ? err : end;
}

/* Open the source's side of a directory. */
static int source_open(struct compare *c, struct cnode *n)
{
	struct stat st;
	struct wentry e;
	int fd = path_open(c->env.rootfd, n->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
	if (fd >= 0 && fstat(fd, &st)) {
		int err = -errno;
		close(fd);
		fd = err;
	}
	if (fd < 0) {
		n->flags |= NF_DROPPED;
		if (!compare_gone(fd))
			compare_path_failed(c, n->path, fd, "directory cannot be opened");
		return scan_end(c);
	}
	c->scan.fd = fd;
	c->scan.dev = st.st_dev;
	c->scan.mtime = (struct jtime){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec};
	n->ino = st.st_ino;
	n->have = n->listing && listing_self(n->listing, &e);
	if (n->have) {
		n->old = e.attr;
		n->xdigest = e.xdigest;
	} else if (!(n->flags & NF_FRESH)) {
		n->flags |= NF_DROPPED; /* a listing without ".": nothing to compare the attributes with */
	}
	return 0;
}

int dir_open(struct compare *c, struct cnode *n)
{
	TAILQ_REMOVE(&c->ready, n, link);
	n->state = NS_SCAN;
	c->scan = (struct cscan){.node = n, .fd = -1, .fresh_step = true};
	compare_spend(c, 4096);
	c->dirs_known -= !(n->flags & (NF_EXTRA | NF_SINGLE));
	c->dirs_read += !(n->flags & (NF_EXTRA | NF_SINGLE));
	int err = 0;
	if (n->flags & NF_DROPPED)
		err = scan_end(c);
	else if (n->flags & NF_SINGLE)
		err = single_open(c, n);
	else if (n->flags & NF_EXTRA)
		c->scan.extras = true;
	else
		err = source_open(c, n);
	return err ? err : 1;
}

/* Before a step goes on reading a directory: is it still the one at its path? If not, everything below
 * belongs elsewhere. */
int dir_verify(struct compare *c)
{
	struct cnode *n = c->scan.node;
	struct stat st;
	if (!n || c->scan.fd < 0)
		return 0;
	int fd = path_open(c->env.rootfd, n->path, O_PATH | O_DIRECTORY);
	bool same = fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == n->ino && st.st_dev == c->scan.dev;
	if (fd >= 0)
		close(fd);
	if (same)
		return 0;
	n->flags |= NF_DROPPED;
	int err = compare_again(c, n->path, n->job->flags | CMP_RECURSIVE, E_CHANGED,
				"changes faster than it can be compared");
	int end = scan_end(c);
	return err ? err : end;
}

/* What only the standby has, one entry per call. */
static int extras_step(struct compare *c)
{
	struct cnode *n = c->scan.node;
	struct wentry e;
	int err;
	if (!n->listing || !listing_unmet(n->listing, &c->scan.at, &e)) {
		err = scan_end(c);
		return err ? err : 1;
	}
	compare_spend(c, 0);
	if (!*n->path && strcmp(e.name, PATH_PRIVATE) == 0)
		return 1;
	if (path_join(c->path, PATH_LONGEST, n->path, e.name)) {
		compare_path_failed(c, n->path, E_LIMIT, "path too long on the standby");
		return 1;
	}
	bool dir = S_ISDIR(e.attr.mode);
	if (c->env.mirror->filter.n && filter_excluded(&c->env.mirror->filter, c->path, dir)) {
		n->flags |= NF_KEEP;
		return 1;
	}
	err = del_entry(c, n, c->path, dir);
	return err ? err : 1;
}

/* Read more names. Returns 1, 0 at the end, or -errno of the directory. */
static int more_names(struct compare *c)
{
	ssize_t n = getdents64(c->scan.fd, c->dents, sizeof(c->dents));
	if (n < 0)
		return -errno;
	c->scan.pos = 0;
	c->scan.len = (size_t)n;
	return n > 0;
}

/* The source's side of one name: for a new regular file the descriptor saves a look-up. Returns 0 or -errno.
 */
static int source_stat(struct celt *el, unsigned char type)
{
	if (type == DT_REG && !el->have) {
		el->fd = file_open(el->dirfd, el->name);
		if (el->fd >= 0)
			return fstat(el->fd, &el->st) ? -errno : 0;
	}
	return fstatat(el->dirfd, el->name, &el->st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int scan_name(struct compare *c, const char *name, unsigned char type)
{
	struct cnode *n = c->scan.node;
	struct celt el = {.node = n, .dirfd = c->scan.fd, .name = name, .path = c->path, .fd = -1};
	if (path_join(c->path, PATH_LONGEST, n->path, name)) {
		compare_path_failed(c, n->path, E_LIMIT, "holds a path that is too long");
		return 0;
	}
	el.have = n->listing && listing_find(n->listing, name, &el.e);
	bool dir = type == DT_DIR || (type == DT_UNKNOWN && el.have && S_ISDIR(el.e.attr.mode));
	if (c->env.mirror->filter.n && filter_excluded(&c->env.mirror->filter, c->path, dir))
		return 0;
	int err = source_stat(&el, type);
	if (err == 0 && type == DT_UNKNOWN && c->env.mirror->filter.n &&
	    filter_excluded(&c->env.mirror->filter, c->path, S_ISDIR(el.st.st_mode)))
		return 0;
	if (err == 0)
		return entry_process(c, &el);
	if (el.fd >= 0)
		close(el.fd);
	if (err != -ENOENT)
		compare_path_failed(c, c->path, err, "cannot be read");
	else if (el.have)
		return del_entry(c, n, c->path, S_ISDIR(el.e.attr.mode));
	return 0;
}

int dir_step(struct compare *c)
{
	if (c->scan.extras)
		return extras_step(c);
	if (c->scan.pos >= c->scan.len) {
		int r = more_names(c);
		if (r < 0) { /* an incomplete directory deletes nothing */
			compare_path_failed(c, c->scan.node->path, r, "directory cannot be read");
			c->scan.node->flags |= NF_DROPPED;
			r = scan_end(c);
			return r ? r : 1;
		}
		c->scan.extras = r == 0;
		return 1;
	}
	struct dirent64 *d = (struct dirent64 *)(void *)(c->dents + c->scan.pos);
	c->scan.pos += d->d_reclen;
	if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
		return 1;
	if (!*c->scan.node->path && strcmp(d->d_name, PATH_PRIVATE) == 0)
		return 1;
	if (c->nfs && path_name_silly(d->d_name))
		return 1;
	c->progress.entries++;
	compare_spend(c, 0);
	int err = scan_name(c, d->d_name, d->d_type);
	return err ? err : 1;
}
