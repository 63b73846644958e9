/* SPDX-License-Identifier: BSD-2-Clause
 * Codecs of frames and operations: see wire.h and docs/wire-protocol.md. Every get checks every field
 * before its caller can act on it. */
#include "config.h"
#include "proto/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/err.h"
#include "proto/path.h"
#include "proto/xattrs.h"

#define NSEC_MAX 999999999u

static int done(struct buf *b, bool valid)
{
	if (!b->err && !valid)
		b->err = E_PROTO;
	return b->err;
}

static void wpos_put(struct buf *b, const struct wpos *p)
{
	buf_put(b, p->journal_id, 16);
	buf_put_u64(b, p->epoch);
	buf_put_u64(b, p->seq);
	buf_put_u64(b, p->digest);
}

static void get_bytes(struct buf *b, void *out, size_t n)
{
	const uint8_t *p = buf_get(b, n);
	if (p)
		memcpy(out, p, n);
	else
		memset(out, 0, n);
}

static void wpos_get(struct buf *b, struct wpos *p)
{
	get_bytes(b, p->journal_id, 16);
	p->epoch = buf_get_u64(b);
	p->seq = buf_get_u64(b);
	p->digest = buf_get_u64(b);
}

static void attr_put(struct buf *b, const struct wattr *a)
{
	buf_put_u32(b, a->mode);
	buf_put_u32(b, a->uid);
	buf_put_u32(b, a->gid);
	buf_put_u64(b, (uint64_t)a->mtime.sec);
	buf_put_u32(b, a->mtime.nsec);
}

static bool attr_get(struct buf *b, struct wattr *a)
{
	a->mode = buf_get_u32(b);
	a->uid = buf_get_u32(b);
	a->gid = buf_get_u32(b);
	a->mtime.sec = (int64_t)buf_get_u64(b);
	a->mtime.nsec = buf_get_u32(b);
	return a->mtime.nsec <= NSEC_MAX;
}

void whello_put(struct buf *b, const struct whello *h)
{
	buf_put_u32(b, h->version);
	buf_put_u64(b, h->features);
	buf_put_u32(b, h->mode);
	buf_put_str(b, h->mirror);
	buf_put(b, h->source_id, 16);
	wpos_put(b, &h->head);
}

int whello_get(struct buf *b, struct whello *h)
{
	memset(h, 0, sizeof(*h));
	h->version = buf_get_u32(b);
	h->features = buf_get_u64(b);
	h->mode = buf_get_u32(b);
	h->mirror = buf_get_str(b, NULL);
	get_bytes(b, h->source_id, 16);
	wpos_get(b, &h->head);
	done(b, h->mode == 1 || h->mode == 2);
	return buf_end(b);
}

void wwelcome_put(struct buf *b, const struct wwelcome *w)
{
	buf_put_u32(b, w->version);
	buf_put_u64(b, w->features);
	buf_put_u32(b, w->flags);
	wpos_put(b, &w->applied);
	wpos_put(b, &w->durable);
	buf_put_u64(b, w->window);
	buf_put_u32(b, w->noutstanding);
	for (uint32_t i = 0; i < w->noutstanding; i++)
		buf_put_u64(b, w->outstanding[i]);
	buf_put_str(b, w->motd);
	buf_put_str(b, w->module_id);
}

int wwelcome_get(struct buf *b, struct wwelcome *w)
{
	memset(w, 0, sizeof(*w));
	w->version = buf_get_u32(b);
	w->features = buf_get_u64(b);
	w->flags = buf_get_u32(b);
	wpos_get(b, &w->applied);
	wpos_get(b, &w->durable);
	w->window = buf_get_u64(b);
	w->noutstanding = buf_get_u32(b);
	if (done(b, w->noutstanding <= WPOS_OUT_MAX && w->window > 0)) {
		w->noutstanding = 0;
		return b->err;
	}
	w->outstanding = calloc(w->noutstanding + 1, sizeof(uint64_t));
	if (!w->outstanding)
		return -ENOMEM;
	for (uint32_t i = 0; i < w->noutstanding; i++)
		w->outstanding[i] = buf_get_u64(b);
	w->motd = buf_get_str(b, NULL);
	w->module_id = buf_get_str(b, NULL);
	int err = buf_end(b);
	if (err) {
		free(w->outstanding);
		w->outstanding = NULL;
		w->noutstanding = 0;
	}
	return err;
}

void wack_put(struct buf *b, const struct wack *a)
{
	buf_put_u64(b, a->received);
	buf_put_u64(b, a->applied);
	buf_put_u64(b, a->durable);
}

int wack_get(struct buf *b, struct wack *a)
{
	a->received = buf_get_u64(b);
	a->applied = buf_get_u64(b);
	a->durable = buf_get_u64(b);
	return buf_end(b);
}

void wfail_put(struct buf *b, const struct wfail *f)
{
	buf_put_u32(b, f->code);
	buf_put_u32(b, (uint32_t)f->sys_errno);
	buf_put_u32(b, f->xid);
	buf_put_u64(b, f->seq);
	buf_put_str(b, f->path);
	buf_put_str(b, f->path2);
	buf_put_str(b, f->text);
}

int wfail_get(struct buf *b, struct wfail *f)
{
	memset(f, 0, sizeof(*f));
	f->code = buf_get_u32(b);
	f->sys_errno = (int32_t)buf_get_u32(b);
	f->xid = buf_get_u32(b);
	f->seq = buf_get_u64(b);
	f->path = buf_get_str(b, NULL);
	f->path2 = buf_get_str(b, NULL);
	f->text = buf_get_str(b, NULL);
	done(b, path_valid(f->path) && path_valid(f->path2));
	return buf_end(b);
}

static void put_pos_op(struct buf *b, const struct wop *op)
{
	buf_put_u32(b, op->flags);
	buf_put(b, op->journal_id, 16);
	buf_put_u64(b, op->epoch);
	buf_put_u64(b, op->seq);
	buf_put_u64(b, op->digest);
	buf_put_u32(b, op->nout);
	for (uint32_t i = 0; i < op->nout; i++)
		buf_put_u64(b, op->out_put[i]);
}

static void put_commit(struct buf *b, const struct wop *op)
{
	buf_put_u32(b, op->xid);
	buf_put_u32(b, op->flags);
	buf_put_str(b, op->path);
	buf_put_u64(b, op->seq);
	buf_put_u64(b, op->size);
	attr_put(b, &op->attr);
	buf_put_u8(b, op->has_xattrs);
	if (op->has_xattrs)
		buf_put_blob(b, op->data, op->dlen);
}

void wop_put(struct buf *b, const struct wop *op)
{
	buf_put_u8(b, (uint8_t)op->type);
	switch (op->type) {
	case WOP_REC:
		buf_put_blob(b, op->data, op->dlen);
		break;
	case WOP_BEGIN:
		buf_put_u32(b, op->xid);
		buf_put_u32(b, op->flags);
		buf_put_str(b, op->path);
		buf_put_u64(b, op->seq);
		buf_put_u64(b, op->size);
		break;
	case WOP_DATA:
		buf_put_u32(b, op->xid);
		buf_put_u64(b, op->off);
		buf_put_blob(b, op->data, op->dlen);
		break;
	case WOP_HOLE:
		buf_put_u32(b, op->xid);
		buf_put_u64(b, op->off);
		buf_put_u64(b, op->len);
		break;
	case WOP_COPY:
		buf_put_u32(b, op->xid);
		buf_put_str(b, op->path);
		buf_put_u64(b, op->src);
		buf_put_u64(b, op->off);
		buf_put_u64(b, op->len);
		buf_put(b, op->hash, 16);
		break;
	case WOP_COMMIT:
		put_commit(b, op);
		break;
	case WOP_ABORT:
		buf_put_u32(b, op->xid);
		break;
	case WOP_RMTREE:
		buf_put_str(b, op->path);
		break;
	case WOP_XATTRS:
		buf_put_str(b, op->path);
		buf_put_blob(b, op->data, op->dlen);
		break;
	case WOP_POS:
		put_pos_op(b, op);
		break;
	}
}

/* A byte range of a file: must not reach beyond what off_t can name. */
static bool range_valid(uint64_t off, uint64_t len)
{
	return off <= INT64_MAX && len <= INT64_MAX - off;
}

static bool get_pos_op(struct buf *b, struct wop *op)
{
	op->flags = buf_get_u32(b);
	get_bytes(b, op->journal_id, 16);
	op->epoch = buf_get_u64(b);
	op->seq = buf_get_u64(b);
	op->digest = buf_get_u64(b);
	op->nout = buf_get_u32(b);
	if (b->err || op->nout > WPOS_OUT_MAX)
		return false;
	op->out = buf_get(b, (size_t)op->nout * 8);
	return true;
}

static bool get_commit(struct buf *b, struct wop *op)
{
	op->xid = buf_get_u32(b);
	op->flags = buf_get_u32(b);
	op->path = buf_get_str(b, NULL);
	op->seq = buf_get_u64(b);
	op->size = buf_get_u64(b);
	bool ok = attr_get(b, &op->attr);
	uint8_t has = buf_get_u8(b);
	op->has_xattrs = has != 0;
	if (has)
		op->data = buf_get_blob(b, XATTR_SET_MAX, &op->dlen);
	return ok && has <= 1 && op->xid && op->size <= INT64_MAX && path_valid(op->path) && *op->path;
}

static bool get_transfer_op(struct buf *b, struct wop *op)
{
	op->xid = buf_get_u32(b);
	switch (op->type) {
	case WOP_BEGIN:
		op->flags = buf_get_u32(b);
		op->path = buf_get_str(b, NULL);
		op->seq = buf_get_u64(b);
		op->size = buf_get_u64(b);
		return op->xid && (op->flags == WB_NEW || op->flags == WB_PATCH) && path_valid(op->path) && *op->path &&
		    op->size <= INT64_MAX;
	case WOP_DATA:
		op->off = buf_get_u64(b);
		op->data = buf_get_blob(b, WOP_DATA_MAX, &op->dlen);
		op->len = op->dlen;
		return op->xid && range_valid(op->off, op->len);
	case WOP_HOLE:
		op->off = buf_get_u64(b);
		op->len = buf_get_u64(b);
		return op->xid && op->off <= INT64_MAX && (op->len == EXTENT_INF - op->off || range_valid(op->off, op->len));
	case WOP_COPY:
		op->path = buf_get_str(b, NULL);
		op->src = buf_get_u64(b);
		op->off = buf_get_u64(b);
		op->len = buf_get_u64(b);
		get_bytes(b, op->hash, 16);
		return op->xid && path_valid(op->path) && range_valid(op->src, op->len) && range_valid(op->off, op->len);
	default:
		return op->xid != 0;
	}
}

int wop_get(struct buf *b, struct wop *op)
{
	memset(op, 0, sizeof(*op));
	op->path = "";
	op->type = buf_get_u8(b);
	bool ok = false;
	switch (op->type) {
	case WOP_REC:
		op->data = buf_get_blob(b, JREC_MAX, &op->dlen);
		ok = true;
		break;
	case WOP_BEGIN:
	case WOP_DATA:
	case WOP_HOLE:
	case WOP_COPY:
	case WOP_ABORT:
		ok = get_transfer_op(b, op);
		break;
	case WOP_COMMIT:
		ok = get_commit(b, op);
		break;
	case WOP_RMTREE:
		op->path = buf_get_str(b, NULL);
		ok = path_valid(op->path) && *op->path;
		break;
	case WOP_XATTRS:
		op->path = buf_get_str(b, NULL);
		op->data = buf_get_blob(b, XATTR_SET_MAX, &op->dlen);
		ok = path_valid(op->path);
		break;
	case WOP_POS:
		ok = get_pos_op(b, op);
		break;
	}
	return done(b, ok);
}

void wlisting_put(struct buf *b, const struct wlisting *l)
{
	buf_put_u32(b, l->id);
	buf_put_u32(b, l->code);
	buf_put_u8(b, l->last);
	buf_put_u32(b, l->count);
}

int wlisting_get(struct buf *b, struct wlisting *l)
{
	l->id = buf_get_u32(b);
	l->code = buf_get_u32(b);
	uint8_t last = buf_get_u8(b);
	l->last = last != 0;
	l->count = buf_get_u32(b);
	return done(b, last <= 1);
}

void wentry_put(struct buf *b, const struct wentry *e)
{
	buf_put_str(b, e->name);
	attr_put(b, &e->attr);
	buf_put_u64(b, e->size);
	buf_put_u64(b, e->ino);
	buf_put_u32(b, e->nlink);
	buf_put_u64(b, e->rdev);
	buf_put_u64(b, e->blocks);
	buf_put_u64(b, e->xdigest);
	buf_put_str(b, e->target);
}

int wentry_get(struct buf *b, struct wentry *e)
{
	e->name = buf_get_str(b, NULL);
	bool ok = attr_get(b, &e->attr);
	e->size = buf_get_u64(b);
	e->ino = buf_get_u64(b);
	e->nlink = buf_get_u32(b);
	e->rdev = buf_get_u64(b);
	e->blocks = buf_get_u64(b);
	e->xdigest = buf_get_u64(b);
	e->target = buf_get_str(b, NULL);
	return done(b, ok && (strcmp(e->name, ".") == 0 || path_name_valid(e->name)));
}

void wsums_req_put(struct buf *b, const struct wsums_req *q)
{
	buf_put_u32(b, q->id);
	buf_put_str(b, q->path);
	buf_put_u32(b, q->block);
	buf_put_u64(b, q->off);
	buf_put_u64(b, q->len);
	buf_put(b, q->key, 8);
}

int wsums_req_get(struct buf *b, struct wsums_req *q)
{
	q->id = buf_get_u32(b);
	q->path = buf_get_str(b, NULL);
	q->block = buf_get_u32(b);
	q->off = buf_get_u64(b);
	q->len = buf_get_u64(b);
	get_bytes(b, q->key, 8);
	done(b, path_valid(q->path) && (q->block == 0 || (q->block >= 512 && q->block <= WOP_DATA_MAX)) && q->off <= INT64_MAX);
	return buf_end(b);
}

void wsums_put(struct buf *b, const struct wsums *s)
{
	buf_put_u32(b, s->id);
	buf_put_u32(b, s->code);
	buf_put_u8(b, s->last);
	buf_put_u64(b, s->size);
	buf_put_u64(b, s->first);
	buf_put_u32(b, s->count);
}

int wsums_get(struct buf *b, struct wsums *s)
{
	s->id = buf_get_u32(b);
	s->code = buf_get_u32(b);
	uint8_t last = buf_get_u8(b);
	s->last = last != 0;
	s->size = buf_get_u64(b);
	s->first = buf_get_u64(b);
	s->count = buf_get_u32(b);
	return done(b, last <= 1 && s->count <= FRAME_SUMS_MAX);
}

void wsum_put(struct buf *b, uint32_t weak, const uint8_t strong[16])
{
	buf_put_u32(b, weak);
	buf_put(b, strong, 16);
}

int wsum_get(struct buf *b, uint32_t *weak, uint8_t strong[16])
{
	*weak = buf_get_u32(b);
	get_bytes(b, strong, 16);
	return b->err;
}

const char *wrefuse_text(uint32_t code)
{
	static const char *const t[] = {"none", "protocol version", "address not allowed", "module is read only", "busy",
	    "module directory is not there", "module belongs to another source", "code 7", "protocol error",
	    "permission denied", "no space left", "file system is read-only", "input/output error", "no such file or directory",
	    "file exists", "other type of file", "bytes differ from the sender's", "name not allowed by the file system",
	    "not supported", "daemon is shutting down", "other error"};
	return code < sizeof(t) / sizeof(*t) ? t[code] : "unknown reason";
}

uint32_t wsum_weak(const uint8_t *p, size_t n)
{
	uint32_t a = 0, b = 0;
	for (size_t i = 0; i < n; i++) {
		a += p[i];
		b += a;
	}
	return (a & 0xffff) | b << 16;
}

uint32_t wsum_roll(uint32_t weak, uint8_t out, uint8_t in, uint32_t block)
{
	uint32_t a = weak & 0xffff, b = weak >> 16;
	a = (a - out + in) & 0xffff;
	b = (b - block * out + a) & 0xffff;
	return a | b << 16;
}

void wsum_strong(uint8_t out[16], const uint8_t key[8], const void *p, size_t n)
{
	uint64_t seed;
	memcpy(&seed, key, 8);
	XXH128_canonical_t c;
	XXH128_canonicalFromHash(&c, XXH3_128bits_withSeed(p, n, seed));
	memcpy(out, c.digest, 16);
}
