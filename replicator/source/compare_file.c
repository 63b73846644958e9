/* SPDX-License-Identifier: BSD-2-Clause
 * Contents of regular files in a comparison.
 *
 * - small: up to CMP_SMALL bytes, new or different: read at once, sent whole, no reply awaited
 * - QUEUED: in c->files, in the order found
 * - SUMS: block sums of the standby's version are requested in windows and compared as they arrive, each
 *   with what is at the same place of ours
 * - TAIL: much differs: the sums of what the standby's version has beyond our end, for the search
 * - ROLL: the rolling search looks for the standby's blocks anywhere in the file (delta.h)
 * - READY: it is known what to send; waits for the one transfer
 * - SEND: the transfer is under way (c->sending)
 *
 * QUEUED goes to READY at once when the standby has nothing to compare with, and from SUMS a file that is
 * equal ends with its attributes set. Ranges that are holes at the source are never read, and of the standby
 * one sum is asked over a whole range: zero if it is a hole there too. */
#include "config.h"
#include "replicator/source/compare_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/path.h"
#include "proto/xattrs.h"
#include "replicator/source/transfer.h"

#define WINDOW_BLOCKS 8192u	   /* blocks asked for at once */
#define FILE_WINDOWS  4u	   /* windows of one file under way */
#define SUMS_MAX      64u	   /* windows of all files under way */
#define RETAINED_MAX  (8u << 20)   /* bytes of sums kept for rolling searches */
#define HOLE_MIN      (1u << 20)   /* bytes; shorter holes are compared as blocks */
#define HOLE_WINDOW   (4ull << 30) /* bytes of hole asked for at once */

enum cfile_state { FS_QUEUED, FS_SUMS, FS_TAIL, FS_ROLL, FS_READY, FS_SEND };

/* A range of the standby's file whose sums were asked for. */
struct window {
	TAILQ_ENTRY(window) link;
	uint32_t id;
	uint64_t off, len; /* bytes */
	bool hole;	   /* a hole at the source: one sum over all */
	bool done;	   /* all sums are here */
	uint32_t code;	   /* WR_* */
	uint32_t n, got;   /* blocks expected, sums received */
	struct delta_sum v[];
};
TAILQ_HEAD(windows, window);

struct cfile {
	TAILQ_ENTRY(cfile) link;
	struct cnode *dir;	  /* counts us as a kid */
	struct link_group *group; /* we lead it; its other names wait for us; or NULL */
	enum cfile_state state;
	enum wbegin_mode mode;
	struct stat st;		/* when found, then when opened */
	int fd;			/* -1 until opened */
	bool have;		/* the standby has a version: */
	uint64_t size, blocks;	/* its bytes and 512-byte blocks */
	uint64_t shared;	/* its inode if that has several names there, or 0 */
	uint32_t valid;		/* JV_* of attributes that differ */
	bool xdiff;		/* extended attributes differ */
	bool told;		/* the difference was reported */
	uint32_t block;		/* bytes */
	struct windows windows; /* in file order */
	uint32_t nwindows;
	uint64_t ask;	     /* next byte to ask sums for */
	uint64_t end;	     /* ask up to here */
	uint64_t pos;	     /* next byte to compare or roll over */
	uint64_t data, hole; /* the source has data in [data, hole), found last */
	struct extent_set diff;
	struct delta_sum *sums; /* kept for the rolling search, or NULL */
	uint64_t nsums;		/* whole blocks of the standby's version */
	struct delta *delta;
	struct wop *copies;
	size_t ncopies;
	struct transfer *transfer;
	bool refused; /* the standby refused it; the path is scheduled again already */
	bool stale;   /* the standby's version is another one than that whose sums were asked for */
	char path[];
};

int file_open(int dirfd, const char *name)
{
	int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int fd = openat(dirfd, name, flags | O_NOATIME);
	return fd < 0 && errno == EPERM ? openat(dirfd, name, flags) : fd; /* cppcheck-suppress resourceLeak ; it is returned */
}

static bool same_version(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static struct wattr attr_of(const struct stat *st)
{
	return (struct wattr){
	    st->st_mode, st->st_uid, st->st_gid, {st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec}};
}

/* The whole file is in c->io, its attributes in c->xattrs. */
static int put_small(struct compare *c, const char *path, const struct stat *st, bool xattrs)
{
	struct stream *s = c->env.stream;
	struct wop op = {.type = WOP_BEGIN,
			 .xid = stream_xid(s),
			 .flags = WB_NEW,
			 .path = path,
			 .size = (uint64_t)st->st_size};
	int err = stream_op(s, &op);
	if (!err && st->st_size > 0) {
		struct wop data = {.type = WOP_DATA,
				   .xid = op.xid,
				   .path = "",
				   .data = c->io,
				   .dlen = (uint32_t)st->st_size};
		err = stream_op(s, &data);
	}
	op.type = WOP_COMMIT;
	op.flags = 0;
	op.attr = attr_of(st);
	op.has_xattrs = xattrs;
	op.data = c->xattrs.data;
	op.dlen = xattrs ? (uint32_t)c->xattrs.len : 0;
	return err ? err : stream_op(s, &op);
}

int file_send_small(struct compare *c, int fd, const char *path, const struct stat *st, bool *changed)
{
	struct stat after;
	ssize_t n = st->st_size ? pread(fd, c->io, (size_t)st->st_size, 0) : 0;
	if (n < 0) {
		compare_path_failed(c, path, -errno, "cannot be read");
		return 0;
	}
	buf_clear(&c->xattrs);
	int err = xattrs_read(&c->xattrs, fd, -1, NULL);
	if (err)
		compare_path_failed(c, path, err, "its extended attributes cannot be read");
	*changed = n != st->st_size || fstat(fd, &after) || !same_version(st, &after);
	if (*changed)
		return 0;
	compare_spend(c, (size_t)n);
	c->progress.files_sent++;
	c->progress.bytes_sent += (uint64_t)n;
	c->bytes_due += (uint64_t)n;
	return put_small(c, path, st, err == 0);
}

/* A small file of the directory in hand. */
static int send_now(struct compare *c, struct celt *el)
{
	bool changed = false, stated = el->fd >= 0; /* who opened it has asked */
	if (el->fd < 0)
		el->fd = file_open(el->dirfd, el->name);
	if (el->fd < 0) {
		if (errno != ENOENT && errno != ELOOP)
			compare_path_failed(c, el->path, -errno, "cannot be opened");
		return 0;
	}
	for (int tries = 0; tries < CMP_TRIES; tries++) {
		bool known = stated && tries == 0;
		if ((!known && fstat(el->fd, &el->st)) || !S_ISREG(el->st.st_mode) || el->st.st_size > CMP_SMALL)
			break;
		changed = false;
		int err = file_send_small(c, el->fd, el->path, &el->st, &changed);
		if (err || !changed) {
			el->node->flags |= NF_DIRTY;
			return err;
		}
	}
	return compare_again(c, el->path, el->node->job->flags & CMP_CHECKSUM, E_CHANGED, "changes faster than it can be read");
}

static bool sparse(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512 < (uint64_t)st->st_size;
}

/* The standby stores much more than the source although the source has holes. */
static bool holes_differ(const struct cfile *f)
{
	uint64_t mine = (uint64_t)f->st.st_blocks * 512;
	return sparse(&f->st) && f->blocks * 512 > mine + mine / 4 + (1u << 20);
}

static int file_queue(struct compare *c, struct celt *el, struct link_group *g, uint32_t valid, bool xdiff,
		      bool told)
{
	size_t n = strlen(el->path) + 1;
	struct cfile *f = calloc(1, sizeof(*f) + n);
	if (!f)
		return -ENOMEM;
	memcpy(f->path, el->path, n);
	f->dir = el->node;
	f->dir->kids++;
	f->group = g;
	if (g)
		g->pending = true;
	if (!el->have)
		c->bytes_due += (uint64_t)el->st.st_size;
	f->st = el->st;
	f->fd = -1;
	f->have = el->have;
	if (el->have) {
		f->size = el->e.size;
		f->blocks = el->e.blocks;
		f->shared = g && el->e.nlink > 1 ? el->e.ino : 0;
	}
	f->valid = valid;
	f->xdiff = xdiff;
	f->told = told;
	f->mode = el->have ? WB_PATCH : WB_NEW;
	TAILQ_INIT(&f->windows);
	extent_init(&f->diff);
	TAILQ_INSERT_TAIL(&c->files, f, link);
	c->nfiles++;
	return 0;
}

int compare_file(struct compare *c, struct celt *el, struct link_group *g, uint32_t valid, bool xdiff)
{
	bool small = el->st.st_size <= CMP_SMALL && !sparse(&el->st);
	bool size = el->have && (uint64_t)el->st.st_size != el->e.size;
	bool differs = !el->have || size || valid & JV_MTIME;
	if (small && differs && !compare_reports(el->node->job)) {
		if (el->have)
			compare_differs(c, el->path, size ? "size differs" : "times differ");
		if (g && el->have && el->e.nlink < 2)
			g->standby = 0; /* it becomes another inode there */
		return send_now(c, el);
	}
	if (el->have && g && el->e.nlink < 2)
		g->standby = 0;
	if (!el->have)
		return file_queue(c, el, g, valid, xdiff, true);
	if (size)
		compare_differs(c, el->path, "size differs");
	return file_queue(c, el, g, valid, xdiff, size);
}

static void file_free(struct compare *c, struct cfile *f)
{
	struct window *w;
	while ((w = TAILQ_FIRST(&f->windows)) != NULL) {
		TAILQ_REMOVE(&f->windows, w, link);
		c->nsums -= !w->done;
		free(w);
	}
	if (f->sums)
		c->retained -= f->nsums * sizeof(*f->sums);
	if (c->sending == f)
		c->sending = NULL;
	transfer_free(f->transfer);
	delta_free(f->delta);
	extent_release(&f->diff);
	free(f->sums);
	free(f->copies);
	if (f->fd >= 0)
		close(f->fd);
	TAILQ_REMOVE(&c->files, f, link);
	c->nfiles--;
	free(f);
}

bool files_has(const struct compare *c, const char *path)
{
	const struct cfile *f;
	TAILQ_FOREACH (f, &c->files, link)
		if (strcmp(f->path, path) == 0)
			return true;
	return false;
}

void files_free(struct compare *c)
{
	while (!TAILQ_EMPTY(&c->files))
		file_free(c, TAILQ_FIRST(&c->files));
}

/* Done with a file: names that wait for it, its directory. Returns 1 or an error. */
static int file_done(struct compare *c, struct cfile *f)
{
	struct cnode *dir = f->dir;
	struct link_group *g = f->group;
	file_free(c, f);
	int err = g ? entry_release_links(c, g) : 0;
	int end = node_kid_done(c, dir);
	err = err ? err : end;
	return err ? err : 1;
}

/* Give up a file because of err: gone is no error, a change means again, the rest is reported. */
static int file_fail(struct compare *c, struct cfile *f, int err, const char *text)
{
	int r = 0;
	if (err == E_CHANGED)
		r = compare_again(c, f->path, f->dir->job->flags & CMP_CHECKSUM, err,
				  "changes faster than it can be read");
	else if (!compare_gone(err))
		compare_path_failed(c, f->path, err, text);
	int end = file_done(c, f);
	return r ? r : end;
}

/* Is the path still this file? */
static bool file_in_place(struct compare *c, const struct cfile *f)
{
	struct stat st;
	return path_stat(c->env.rootfd, f->path, &st) == 0 && st.st_ino == f->st.st_ino && st.st_dev == f->st.st_dev;
}

/* Open the file; E_CHANGED if the path is another file by now. */
static int file_take(struct compare *c, struct cfile *f)
{
	const char *base;
	struct stat st;
	int dir = path_open_parent(c->env.rootfd, f->path, &base);
	if (dir < 0)
		return dir;
	f->fd = file_open(dir, base);
	int err = f->fd < 0 ? -errno : 0;
	close(dir);
	if (err)
		return err;
	if (fstat(f->fd, &st))
		return -errno;
	if (st.st_ino != f->st.st_ino || st.st_dev != f->st.st_dev || !S_ISREG(st.st_mode))
		return E_CHANGED;
	f->st = st;
	return 0;
}

/* Find the source's data at or behind pos: f->data, f->hole. */
static int find_data(struct cfile *f, uint64_t pos)
{
	uint64_t size = (uint64_t)f->st.st_size;
	if (pos >= f->data && pos < f->hole)
		return 0;
	f->data = pos;
	f->hole = size;
	if (!sparse(&f->st) || pos >= size)
		return 0;
	off_t d = lseek(f->fd, (off_t)pos, SEEK_DATA);
	if (d < 0 && errno == EINVAL)
		return 0;
	if (d < 0 && errno != ENXIO)
		return -errno;
	f->data = d < 0 ? size : (uint64_t)d;
	off_t h = d < 0 ? (off_t)size : lseek(f->fd, d, SEEK_HOLE);
	f->hole = h < 0 ? size : (uint64_t)h;
	return 0;
}

/* Ask for the sums of [off, off + len). */
static int ask_window(struct compare *c, struct cfile *f, uint64_t off, uint64_t len, bool hole)
{
	uint32_t n = hole ? 1 : (uint32_t)((len + f->block - 1) / f->block);
	struct window *w = calloc(1, sizeof(*w) + n * sizeof(w->v[0]));
	if (!w)
		return -ENOMEM;
	*w = (struct window){
	    .id = stream_request_id(c->env.stream), .off = off, .len = len, .hole = hole, .n = n};
	struct wsums_req q = {
	    .id = w->id, .path = f->path, .block = hole ? 0 : f->block, .off = off, .len = len};
	memcpy(q.key, stream_key(c->env.stream), 8);
	TAILQ_INSERT_TAIL(&f->windows, w, link);
	f->nwindows++;
	c->nsums++;
	buf_clear(&c->req);
	wsums_req_put(&c->req, &q);
	return c->req.err ? c->req.err : stream_request(c->env.stream, FT_SUMS, &c->req);
}

static uint64_t round_down(const struct cfile *f, uint64_t x)
{
	return x - x % f->block;
}

/* Where blocks have to be asked for from off on: up to the next long hole of the source, within one window.
 */
static uint64_t blocks_end(struct cfile *f, uint64_t off)
{
	uint64_t end = off + (uint64_t)WINDOW_BLOCKS * f->block;
	if (end > f->end)
		end = f->end;
	uint64_t p = off;
	while (p < end && f->state == FS_SUMS && find_data(f, p) == 0 && f->hole < end &&
	       f->hole < (uint64_t)f->st.st_size) {
		uint64_t hole = f->hole;
		if (find_data(f, hole) || f->data - hole >= HOLE_MIN)
			return round_down(f, hole + f->block - 1) < end ? round_down(f, hole + f->block - 1)
									: end;
		p = f->data;
	}
	return end;
}

static int ask_more(struct compare *c, struct cfile *f)
{
	while (f->ask < f->end && f->nwindows < FILE_WINDOWS && c->nsums < SUMS_MAX) {
		uint64_t off = f->ask, end = 0;
		bool hole = false;
		int err = find_data(f, off);
		if (err)
			return err;
		if (f->state == FS_SUMS && f->data >= off + HOLE_MIN && f->data > off) {
			end = f->data >= f->end ? f->end : round_down(f, f->data);
			hole = end > off;
		}
		if (hole && end - off > HOLE_WINDOW)
			end = off + HOLE_WINDOW;
		if (!hole)
			end = blocks_end(f, off);
		err = ask_window(c, f, off, end - off, hole);
		if (err)
			return err;
		f->ask = end;
	}
	return 0;
}

/* Keep the sums for a rolling search if there are not too many. */
static void retain(struct compare *c, struct cfile *f)
{
	f->nsums = f->size / f->block;
	uint64_t bytes = f->nsums * sizeof(*f->sums);
	if (f->nsums < 2 || f->nsums > DELTA_BLOCKS_MAX || c->retained + bytes > RETAINED_MAX)
		return;
	f->sums = calloc(f->nsums, sizeof(*f->sums));
	if (f->sums)
		c->retained += bytes;
}

/* All blocks were compared and nothing differs: attributes only. Returns 1 or an error. */
static int file_equal(struct compare *c, struct cfile *f)
{
	int err = 0;
	if (!f->told && (f->valid || f->xdiff))
		compare_differs(c, f->path,
				f->valid & JV_MODE	       ? "mode differs"
				: f->valid & (JV_UID | JV_GID) ? "owner differs"
				: f->valid & JV_MTIME	       ? "times differ"
							       : "extended attributes differ");
	if ((f->valid || f->xdiff) && !compare_reports(f->dir->job) && file_in_place(c, f)) {
		buf_clear(&c->xattrs);
		int unread = xattrs_read(&c->xattrs, f->fd, -1, NULL);
		if (unread)
			compare_path_failed(c, f->path, unread, "its extended attributes cannot be read");
		err = entry_fix_attrs(c, f->dir, f->path, &f->st, f->valid, f->xdiff && !unread);
	}
	int end = file_done(c, f);
	return err ? err : end;
}

/* QUEUED: begin. Returns 1 or an error. */
static int file_start(struct compare *c, struct cfile *f)
{
	int err = file_take(c, f);
	if (err)
		return file_fail(c, f, err, "cannot be opened");
	uint64_t size = (uint64_t)f->st.st_size;
	if (compare_reports(f->dir->job) && size != f->size) {
		compare_differs(c, f->path, "size differs");
		return file_done(c, f);
	}
	if (compare_reports(f->dir->job) && size == 0)
		return file_equal(c, f);
	if (!f->have || f->size == 0 || size == 0 || (size <= CMP_SMALL && size != f->size)) {
		f->mode = WB_NEW;
		f->state = FS_READY;
		return 1;
	}
	f->state = FS_SUMS;
	f->block = delta_block(size > f->size ? size : f->size);
	f->end = size < f->size ? size : f->size;
	/* whole blocks of the standby's version: the last one of the shorter version is compared as far as it
	 * goes */
	if (f->end < f->size) {
		uint64_t up = round_down(f, f->end + f->block - 1);
		f->end = up < f->size ? up : f->size;
	}
	retain(c, f);
	err = ask_more(c, f);
	return err ? file_fail(c, f, err, "cannot be read") : 1;
}

/* SUMS: compare the block of the standby of len bytes at f->pos. Returns 1 equal, 0 different, or -errno. */
static int block_equal(struct compare *c, struct cfile *f, const struct delta_sum *sum, uint64_t len)
{
	uint64_t size = (uint64_t)f->st.st_size;
	uint8_t strong[16];
	if (f->pos + len > size)
		return 0;
	int err = find_data(f, f->pos);
	if (err)
		return err;
	bool hole = f->data >= f->pos + len;
	if (hole && delta_is_hole(sum))
		return 1;
	const uint8_t *p = c->zeros;
	if (!hole) {
		err = fio_pread(f->fd, c->io, len, (off_t)f->pos);
		if (err)
			return err == -ENODATA ? E_CHANGED : err;
		compare_spend(c, len);
		p = c->io;
	}
	if (delta_is_hole(sum))
		return memcmp(p, c->zeros, len) == 0;
	wsum_strong(strong, stream_key(c->env.stream), p, len);
	return memcmp(strong, sum->strong, 16) == 0;
}

static void window_free(struct cfile *f, struct window *w)
{
	TAILQ_REMOVE(&f->windows, w, link);
	f->nwindows--;
	free(w);
}

/* Compare the blocks of the first window. Returns 0 or an error of the file. */
static int compare_window(struct compare *c, struct cfile *f, struct window *w)
{
	if (w->hole) {
		f->pos = w->off + w->len;
		int err = delta_is_hole(&w->v[0]) ? 0 : extent_add(&f->diff, w->off, w->off + w->len);
		window_free(f, w);
		return err;
	}
	while (f->pos < w->off + w->len && c->budget > 0) {
		uint64_t i = (f->pos - w->off) / f->block;
		uint64_t len = f->size - f->pos < f->block ? f->size - f->pos : f->block;
		int r = block_equal(c, f, &w->v[i], len);
		if (r < 0)
			return r;
		if (r == 0 && extent_add(&f->diff, f->pos, f->pos + len))
			return -ENOMEM;
		if (f->sums && f->pos / f->block < f->nsums)
			f->sums[f->pos / f->block] = w->v[i];
		f->pos += len;
		compare_spend(c, 0);
	}
	if (f->pos >= w->off + w->len)
		window_free(f, w);
	return 0;
}

/* The source's holes are to be made on the standby. */
static int add_holes(struct cfile *f)
{
	uint64_t pos = 0, size = (uint64_t)f->st.st_size;
	while (pos < size) {
		int err = find_data(f, pos);
		if (err)
			return err;
		if (f->data > pos && (err = extent_add(&f->diff, pos, f->data)) != 0)
			return err;
		pos = f->hole > pos ? f->hole : size;
	}
	return 0;
}

/* SUMS is over: what is to be sent? Returns 1 or an error. */
static int file_decide(struct compare *c, struct cfile *f)
{
	uint64_t size = (uint64_t)f->st.st_size, bytes;
	int err = 0;
	if (size > f->size)
		err = extent_add(&f->diff, f->size, size);
	bytes = extent_bytes(&f->diff, size);
	bool differs = f->diff.n > 0 || size != f->size;
	if (!err && !differs && !holes_differ(f))
		return file_equal(c, f);
	if (!f->told)
		compare_differs(c, f->path, differs ? "bytes differ" : "holes differ");
	f->told = true;
	if (compare_reports(f->dir->job))
		return file_done(c, f);
	if (!err && f->sums && bytes > CMP_SMALL && bytes > size / 10) {
		f->end = f->nsums * f->block;
		f->pos = f->ask;
		f->state = FS_TAIL;
		return 1;
	}
	if (!err && holes_differ(f))
		err = add_holes(f);
	f->mode = bytes > size / 10 * 9 ? WB_NEW : WB_PATCH;
	f->state = FS_READY;
	return err == -ENOMEM ? err : err ? file_fail(c, f, err, "its holes cannot be found") : 1;
}

/* A window's answer that is no sums. Returns 1 or an error. */
static int window_failed(struct compare *c, struct cfile *f, uint32_t code)
{
	if (code == WR_MISSING || code == WR_TYPE || code == WR_MISMATCH)
		return file_fail(c, f, E_CHANGED, "");
	return file_fail(c, f, E_REFUSED, wrefuse_text(code));
}

static int sums_step(struct compare *c, struct cfile *f)
{
	struct window *w = TAILQ_FIRST(&f->windows);
	if (w && !w->done)
		return 0;
	if (w && w->code != WR_NONE)
		return window_failed(c, f, w->code);
	int err = w ? compare_window(c, f, w) : 0;
	if (!err)
		err = ask_more(c, f);
	if (err == -ENOMEM)
		return err;
	if (err)
		return file_fail(c, f, err, "cannot be read");
	if (TAILQ_EMPTY(&f->windows) && f->ask >= f->end)
		return file_decide(c, f);
	return w ? 1 : 0;
}

/* TAIL: sums of what the standby's version has beyond the source's end, then the search begins. */
static int tail_step(struct compare *c, struct cfile *f)
{
	struct window *w = TAILQ_FIRST(&f->windows);
	if (w && !w->done)
		return 0;
	if (w && w->code != WR_NONE)
		return window_failed(c, f, w->code);
	if (w) {
		for (uint32_t i = 0; i < w->n && w->off / f->block + i < f->nsums; i++)
			f->sums[w->off / f->block + i] = w->v[i];
		window_free(f, w);
	}
	int err = ask_more(c, f);
	if (err || !TAILQ_EMPTY(&f->windows) || f->ask < f->end)
		return err ? err : w != NULL;
	err = delta_new(&f->delta, f->sums, f->nsums, f->block, stream_key(c->env.stream));
	if (err)
		return err;
	f->pos = 0;
	f->state = FS_ROLL;
	return 1;
}

/* What the search found becomes COPY operations, if that costs less than the differing blocks. */
static int roll_decide(struct compare *c, struct cfile *f)
{
	size_t n;
	uint64_t matched, size = (uint64_t)f->st.st_size, aligned = extent_bytes(&f->diff, size);
	uint64_t stored = (uint64_t)f->st.st_blocks * 512 < size ? (uint64_t)f->st.st_blocks * 512 : size;
	const struct delta_match *m = delta_matches(f->delta, &n, &matched);
	uint64_t moved = (stored > matched ? stored - matched : 0) + n * 64;
	f->state = FS_READY;
	if (moved >= aligned / 10 * 9) {
		f->mode = aligned > size / 10 * 9 ? WB_NEW : WB_PATCH;
		int err = f->mode == WB_PATCH && holes_differ(f) ? add_holes(f) : 0;
		return err == -ENOMEM ? err : 1;
	}
	f->copies = calloc(n, sizeof(*f->copies));
	if (!f->copies)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		f->copies[i] = (struct wop){
		    .type = WOP_COPY, .path = "", .off = m[i].dst, .src = m[i].src, .len = m[i].len};
	f->ncopies = n;
	f->mode = WB_NEW;
	return 1;
}

static int roll_step(struct compare *c, struct cfile *f)
{
	uint64_t size = (uint64_t)f->st.st_size;
	if (f->pos >= size) {
		int r = roll_decide(c, f);
		delta_free(f->delta);
		f->delta = NULL;
		return r;
	}
	int err = find_data(f, f->pos);
	if (!err && f->data > f->pos) {
		delta_skip(f->delta, f->data - f->pos);
		f->pos = f->data;
		return 1;
	}
	uint64_t len = f->hole - f->pos < sizeof(c->io) ? f->hole - f->pos : sizeof(c->io);
	if (!err)
		err = fio_pread(f->fd, c->io, len, (off_t)f->pos);
	if (err)
		return file_fail(c, f, err == -ENODATA ? E_CHANGED : err, "cannot be read");
	f->pos += len;
	compare_spend(c, len);
	err = delta_feed(f->delta, c->io, len);
	return err ? err : 1;
}

/* READY: begin the transfer. Returns 1 or an error. */
static int file_send(struct compare *c, struct cfile *f)
{
	struct stat st;
	if (!file_in_place(c, f) || fstat(f->fd, &st) || !same_version(&st, &f->st))
		return file_fail(c, f, E_CHANGED, "");
	struct transfer_spec spec = {.fd = f->fd,
				     .path = f->path,
				     .mode = f->mode,
				     .xattrs = true,
				     .copies = f->copies,
				     .ncopies = f->ncopies};
	extent_init(&spec.extents);
	int err = 0;
	if (f->shared)
		entry_doubt_names(c, f->dir->job, f->shared);
	if (f->mode == WB_PATCH)
		extent_swap(&spec.extents, &f->diff);
	else
		err = extent_add(&spec.extents, 0, EXTENT_INF);
	f->fd = -1;
	if (f->have)
		c->bytes_due += extent_bytes(&spec.extents, (uint64_t)f->st.st_size);
	int r = transfer_new(&f->transfer, c->env.stream, &spec);
	if (r || err)
		return r ? r : err;
	f->state = FS_SEND;
	f->dir->flags |= NF_DIRTY;
	c->sending = f;
	return 1;
}

/* SEND: the next piece. */
static int send_step(struct compare *c, struct cfile *f)
{
	uint64_t before = transfer_left(f->transfer);
	if (f->refused)
		return file_done(c, f);
	if (!file_in_place(c, f))
		return file_fail(c, f, E_CHANGED, "");
	int r = transfer_step(f->transfer);
	uint64_t left = r < 0 ? before : transfer_left(f->transfer);
	/* before the first piece left is not known for a file sent whole */
	if (before > (uint64_t)f->st.st_size)
		before = (uint64_t)f->st.st_size;
	c->progress.bytes_sent += before > left ? before - left : 0;
	compare_spend(c, 65536);
	if (r == TR_WAIT)
		return 2;
	if (r == TR_MORE)
		return 1;
	if (r == TR_DONE) {
		c->progress.files_sent++;
		return file_done(c, f);
	}
	return r == E_CHANGED || (r > E_FIRST && r != -ENOMEM && r != -EPIPE && r != -ECONNRESET)
		   ? file_fail(c, f, r, "cannot be read")
		   : r;
}

/* What was found out about the standby's version is worth nothing any more. Returns 1 or an error. */
static int file_restart(struct compare *c, struct cfile *f)
{
	int r = compare_add(c, f->path, f->dir->job->flags & (CMP_CHECKSUM | CMP_REPORT));
	int end = file_done(c, f);
	return r ? r : end;
}

int files_step(struct compare *c)
{
	struct cfile *f;
	if (c->sending && !c->sending->stale)
		return send_step(c, c->sending);
	TAILQ_FOREACH (f, &c->files, link) {
		int r = 0;
		if (f->stale)
			return file_restart(c, f);
		switch (f->state) {
		case FS_QUEUED:
			r = file_start(c, f);
			break;
		case FS_SUMS:
			r = sums_step(c, f);
			break;
		case FS_TAIL:
			r = tail_step(c, f);
			break;
		case FS_ROLL:
			r = roll_step(c, f);
			break;
		case FS_READY:
			r = file_send(c, f);
			break;
		case FS_SEND:
			break;
		}
		if (r)
			return r;
	}
	return 0;
}

void files_touched(struct compare *c, const char *path, uint64_t ino)
{
	struct cfile *f;
	TAILQ_FOREACH (f, &c->files, link)
		f->stale |= f->have && f->state != FS_QUEUED && f->st.st_ino != ino && path_within(path, f->path);
}

void files_refused(struct compare *c, uint32_t xid)
{
	if (c->sending && transfer_xid(c->sending->transfer) == xid)
		c->sending->refused = true;
}

/* Take the sums of a payload into w. */
static int take_sums(struct window *w, struct buf *payload, const struct wsums *s)
{
	for (uint32_t i = 0; i < s->count; i++) {
		struct delta_sum sum;
		if (wsum_get(payload, &sum.weak, sum.strong) || w->got >= w->n)
			return E_PROTO;
		w->v[w->got++] = sum;
	}
	return buf_end(payload);
}

int files_sumset(struct compare *c, struct buf *payload)
{
	struct wsums s;
	struct cfile *f;
	struct window *w = NULL;
	if (wsums_get(payload, &s))
		return E_PROTO;
	TAILQ_FOREACH (f, &c->files, link) {
		TAILQ_FOREACH (w, &f->windows, link)
			if (w->id == s.id && !w->done)
				break;
		if (w)
			break;
	}
	if (!f || !w)
		return 0;
	if (take_sums(w, payload, &s))
		return E_PROTO;
	if (!s.last && s.code == WR_NONE)
		return 0;
	w->done = true;
	c->nsums--;
	w->code = s.code;
	if (s.code == WR_NONE && (w->got != w->n || s.size != f->size))
		w->code = WR_MISSING; /* it changed since it was listed */
	return 0;
}
