/* SPDX-License-Identifier: BSD-2-Clause
 * One file's bytes on their way (transfer.h).
 *
 * BEGIN -> COPY hints, hashed piece by piece -> the extents in order, each as DATA and HOLE -> COMMIT.
 * The file is stated before the first and after the last byte: when ctime or size moved in between, what was
 * read may be half old and half new. Then ABORT is put and E_CHANGED returned, unless the file is sent as an open
 * one, whose next record brings what changed, and what was appended meanwhile. A range beyond the end of the file is nothing: COMMIT carries the size. */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "proto/err.h"
#include "proto/mirror.h"
#include "proto/xattrs.h"
#include "replicator/source/transfer.h"

#define DENSE_MAX   (64u << 10) /* files up to this are read without asking for holes when their blocks are all there */
#define HASH_STEP   (4u << 20)  /* bytes hashed for a COPY in one step */

enum phase { PH_BEGIN, PH_COPIES, PH_BYTES, PH_DONE };

struct transfer {
	struct stream *s; /* borrowed */
	int fd;           /* owned */
	char *path;
	uint64_t seq;
	enum wbegin_mode mode;
	struct extent_set extents;
	struct wop *copies; /* paths owned */
	size_t ncopies;
	bool open, xattrs, at_once, incompressible;
	uint32_t xid;

	enum phase phase;
	struct stream_mark mark; /* before BEGIN */
	bool begun;           /* BEGIN was put and neither COMMIT nor ABORT */
	struct stat st;       /* before the first byte */
	bool stated;          /* st is already known */
	size_t copy;          /* next copy */
	uint64_t hashed;      /* bytes of it that are hashed */
	XXH3_state_t *hash;   /* NULL unless there are copies */
	uint32_t ext;         /* extent under way */
	uint64_t pos;         /* next byte; 0 before the extent's start means its start */
	struct extent run;    /* the data run asked for last: the next extents lie in it more often than not, and on tmpfs asking costs as much as it is long */
};

static int copies_dup(struct transfer *t, const struct transfer_spec *spec)
{
	if (spec->ncopies == 0)
		return 0;
	t->copies = calloc(spec->ncopies, sizeof *t->copies);
	t->hash = XXH3_createState();
	if (t->copies == NULL || t->hash == NULL)
		return -ENOMEM;
	for (; t->ncopies < spec->ncopies; t->ncopies++) {
		t->copies[t->ncopies] = spec->copies[t->ncopies];
		t->copies[t->ncopies].path = strdup(spec->copies[t->ncopies].path);
		if (t->copies[t->ncopies].path == NULL)
			return -ENOMEM;
	}
	return 0;
}

int transfer_new(struct transfer **out, struct stream *s, struct transfer_spec *spec)
{
	struct transfer *t = calloc(1, sizeof *t);
	int r;

	*out = NULL;
	if (t == NULL) {
		close(spec->fd);
		extent_release(&spec->extents);
		return -ENOMEM;
	}
	t->s = s;
	t->fd = spec->fd;
	spec->fd = -1;
	extent_init(&t->extents);
	extent_swap(&t->extents, &spec->extents);
	t->seq = spec->seq;
	t->mode = spec->mode;
	t->open = spec->open;
	t->xattrs = spec->xattrs;
	t->at_once = spec->at_once;
	t->stated = spec->st != NULL;
	if (t->stated)
		t->st = *spec->st;
	t->path = strdup(spec->path);
	r = t->path == NULL ? -ENOMEM : copies_dup(t, spec);
	if (r < 0) {
		transfer_free(t);
		return r;
	}
	t->xid = stream_xid(s);
	t->incompressible = stream_mirror(s)->dont_compress.n != 0 && filter_matches(&stream_mirror(s)->dont_compress, t->path);
	*out = t;
	return 0;
}

static int put_abort(struct transfer *t)
{
	struct wop op = {.type = WOP_ABORT, .xid = t->xid};

	if (!t->begun)
		return 0;
	t->begun = false;
	if (t->at_once && stream_rewind(t->s, t->mark))
		return 0; /* nothing of it is on its way */
	return stream_op(t->s, &op);
}

static int put_begin(struct transfer *t)
{
	struct wop op = {.type = WOP_BEGIN, .xid = t->xid, .flags = t->mode, .path = t->path, .seq = t->seq};
	int r;

	if (!t->stated && fstat(t->fd, &t->st) != 0)
		return -errno;
	op.size = (uint64_t)t->st.st_size;
	t->mark = stream_mark(t->s);
	r = stream_op(t->s, &op);
	if (r < 0)
		return r;
	t->begun = true;
	t->phase = t->ncopies != 0 ? PH_COPIES : PH_BYTES;
	return TR_MORE;
}

static int put_hole(struct transfer *t, uint64_t start, uint64_t end)
{
	struct wop op = {.type = WOP_HOLE, .xid = t->xid, .off = start, .len = end - start};

	return stream_op(t->s, &op);
}

/* Hash a bounded piece of the present copy; put the COPY when it is complete. A source range that cannot be read to its end is
 * left to the bytes. */
static int copy_step(struct transfer *t)
{
	struct wop *op = &t->copies[t->copy];
	uint8_t *buf = stream_scratch(t->s);
	XXH128_canonical_t canon;
	uint64_t done = 0;
	ssize_t n = 1;
	int r = 0;

	if (t->hashed == 0)
		XXH3_128bits_reset(t->hash);
	while (done < HASH_STEP && t->hashed < op->len && n > 0) {
		size_t want = op->len - t->hashed < STREAM_PIECE ? op->len - t->hashed : STREAM_PIECE;

		n = pread(t->fd, buf, want, (off_t)(op->off + t->hashed));
		if (n > 0) {
			XXH3_128bits_update(t->hash, buf, (size_t)n);
			t->hashed += (uint64_t)n;
			done += (uint64_t)n;
		}
	}
	if (n > 0 && t->hashed < op->len)
		return TR_MORE;
	if (t->hashed == op->len) {
		XXH128_canonicalFromHash(&canon, XXH3_128bits_digest(t->hash));
		memcpy(op->hash, canon.digest, sizeof op->hash);
		op->type = WOP_COPY;
		op->xid = t->xid;
		r = stream_op(t->s, op);
		if (r == 0)
			r = extent_remove(&t->extents, op->off, op->off + op->len);
	}
	t->hashed = 0;
	if (++t->copy == t->ncopies)
		t->phase = PH_BYTES;
	return r < 0 ? r : TR_MORE;
}

/* Find the run of data at t->pos, putting the hole before it. end is where the extent stops. Returns 0 or an error. */
static int data_run(struct transfer *t, uint64_t end)
{
	off_t data, hole;

	if (t->st.st_size <= DENSE_MAX && (uint64_t)t->st.st_blocks * 512 >= (uint64_t)t->st.st_size) {
		t->run = (struct extent){t->pos, end};
		return 0;
	}
	data = lseek(t->fd, (off_t)t->pos, SEEK_DATA);
	if (data < 0 && errno != ENXIO && errno != EINVAL)
		return -errno;
	if (data < 0 && errno == EINVAL) { /* a file system without holes */
		t->run = (struct extent){t->pos, end};
		return 0;
	}
	if (data < 0 || (uint64_t)data >= end) {
		int r = put_hole(t, t->pos, end);

		t->pos = end;
		return r;
	}
	if ((uint64_t)data > t->pos) {
		int r = put_hole(t, t->pos, (uint64_t)data);

		if (r < 0)
			return r;
		t->pos = (uint64_t)data;
	}
	hole = lseek(t->fd, data, SEEK_HOLE);
	t->run = (struct extent){(uint64_t)data, hole < 0 ? end : (uint64_t)hole};
	return 0;
}

/* Put a piece of the data run at t->pos, which ends with the extent if not before. */
static int put_data(struct transfer *t, uint64_t end)
{
	struct wop op = {.type = WOP_DATA, .xid = t->xid, .off = t->pos};
	uint64_t stop = t->run.end < end ? t->run.end : end;
	size_t want = stop - t->pos < STREAM_PIECE ? stop - t->pos : STREAM_PIECE;
	ssize_t n;
	int r;

	op.data = stream_scratch(t->s);
	n = pread(t->fd, stream_scratch(t->s), want, (off_t)t->pos);
	if (n < 0)
		return -errno;
	if (n == 0) { /* the file became shorter: COMMIT carries the size */
		t->pos = stop;
		return 0;
	}
	op.dlen = (uint32_t)n;
	if (t->incompressible)
		stream_incompressible(t->s, (size_t)n);
	r = stream_op(t->s, &op);
	t->pos += (uint64_t)n;
	return r < 0 ? r : (int)n;
}

static int put_commit(struct transfer *t)
{
	struct wop op = {.type = WOP_COMMIT, .xid = t->xid, .path = t->path, .seq = t->seq};
	struct stat st;
	struct buf set;
	int r = 0;

	if (fstat(t->fd, &st) != 0)
		return -errno;
	if (!t->open && (st.st_size != t->st.st_size || st.st_ctim.tv_sec != t->st.st_ctim.tv_sec ||
	    st.st_ctim.tv_nsec != t->st.st_ctim.tv_nsec)) {
		r = put_abort(t);
		t->phase = PH_DONE;
		return r < 0 ? r : E_CHANGED;
	}
	buf_init(&set, XATTR_SET_MAX);
	if (t->xattrs) {
		r = xattrs_read(&set, t->fd, -1, NULL);
		op.has_xattrs = r == 0;
		op.data = set.data;
		op.dlen = (uint32_t)set.len;
	}
	if (t->open)
		op.flags = WC_OPEN;
	op.size = (uint64_t)(st.st_size < t->st.st_size ? st.st_size : t->st.st_size); /* an open file may be longer by now: that was not sent */
	op.attr = (struct wattr){.mode = st.st_mode, .uid = st.st_uid, .gid = st.st_gid,
	    .mtime = {.sec = st.st_mtim.tv_sec, .nsec = (uint32_t)st.st_mtim.tv_nsec}};
	if (r == 0)
		r = stream_op(t->s, &op);
	buf_release(&set);
	if (r < 0)
		return r;
	t->begun = false;
	t->phase = PH_DONE;
	return TR_DONE;
}

/* Put up to a piece of the extents. */
static int bytes_step(struct transfer *t)
{
	size_t put = 0, ops = 0;
	uint64_t size = (uint64_t)t->st.st_size;

	while (t->ext < t->extents.n) {
		const struct extent *e = &t->extents.v[t->ext];
		uint64_t end = e->end < size ? e->end : size;
		int r;

		if (t->pos < e->start)
			t->pos = e->start;
		if (t->pos >= end) {
			t->ext++;
			continue;
		}
		if (put >= STREAM_PIECE || ops++ > 512)
			return TR_MORE;
		if (t->pos < t->run.start || t->pos >= t->run.end) {
			r = data_run(t, end);
			if (r < 0)
				return r;
			continue;
		}
		r = put_data(t, end);
		if (r < 0)
			return r;
		put += (size_t)r;
	}
	return put_commit(t);
}

int transfer_step(struct transfer *t)
{
	int r = 0;

	if (t->phase == PH_BEGIN) {
		r = put_begin(t);
		if (r < 0)
			return r;
	}
	if (t->phase == PH_COPIES)
		r = copy_step(t);
	else if (t->phase == PH_BYTES)
		r = bytes_step(t);
	else
		r = TR_DONE;
	if (r < 0 && r != E_CHANGED && t->begun) {
		put_abort(t);
		t->phase = PH_DONE;
	}
	return r;
}

int transfer_move(struct transfer *t, const char *path)
{
	char *copy = strdup(path);

	if (copy == NULL)
		return -ENOMEM;
	free(t->path);
	t->path = copy;
	return 0;
}

const char *transfer_path(const struct transfer *t)
{
	return t->path;
}

uint32_t transfer_xid(const struct transfer *t)
{
	return t->xid;
}

uint64_t transfer_seq(const struct transfer *t)
{
	return t->seq;
}

int transfer_take_fd(struct transfer *t)
{
	int fd = t->fd;

	t->fd = -1;
	return fd;
}

uint64_t transfer_left(const struct transfer *t)
{
	uint64_t left = 0, size = (uint64_t)t->st.st_size;
	uint32_t i;

	for (i = t->ext; i < t->extents.n; i++) {
		uint64_t start = t->extents.v[i].start, end = t->extents.v[i].end;

		if (t->phase != PH_BEGIN && end > size)
			end = size;
		if (i == t->ext && t->pos > start)
			start = t->pos;
		if (end > start)
			left += end - start;
	}
	return left;
}

void transfer_free(struct transfer *t)
{
	size_t i;

	if (t == NULL)
		return;
	put_abort(t);
	for (i = 0; i < t->ncopies; i++)
		free((char *)t->copies[i].path);
	free(t->copies);
	if (t->hash != NULL)
		XXH3_freeState(t->hash);
	extent_release(&t->extents);
	if (t->fd >= 0)
		close(t->fd);
	free(t->path);
	free(t);
}
