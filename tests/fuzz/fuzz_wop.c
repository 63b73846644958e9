/* SPDX-License-Identifier: BSD-2-Clause
 * Every payload that either side of a connection decodes, and the position page. The first byte chooses the
 * decoder. What decodes must encode to the same bytes. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/path.h"
#include "proto/wire.h"
#include "replicator/module/position.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_equal(const struct buf *b, const uint8_t *data, size_t n)
{
	if (b->err || b->len != n || memcmp(b->data, data, n))
		abort();
}

/* What the applier relies on. */
static void check_op(const struct wop *op)
{
	if (!path_valid(op->path) || (op->type >= WOP_BEGIN && op->type <= WOP_ABORT && !op->xid))
		abort();
	if (op->type == WOP_DATA && (op->dlen > WOP_DATA_MAX || op->off > (uint64_t)INT64_MAX - op->dlen))
		abort();
	if (op->type == WOP_COMMIT && (op->size > INT64_MAX || !*op->path))
		abort();
	if (op->type == WOP_RMTREE && !*op->path)
		abort();
}

static void ops(const uint8_t *data, size_t size)
{
	struct buf in, out;
	struct wop op;
	uint64_t numbers[WPOS_OUT_MAX];
	buf_view(&in, data, size);
	buf_init(&out, 8u << 20);
	while (buf_left(&in)) {
		size_t from = in.off;
		if (wop_get(&in, &op))
			break;
		check_op(&op);
		for (uint32_t i = 0; i < op.nout; i++)
			memcpy(&numbers[i], op.out + i * 8, 8);
		op.out_put = numbers;
		buf_clear(&out);
		wop_put(&out, &op);
		must_equal(&out, data + from, in.off - from);
	}
	buf_release(&out);
}

static void listing(const uint8_t *data, size_t size)
{
	struct buf in;
	struct wlisting l;
	struct wentry e;
	buf_view(&in, data, size);
	if (wlisting_get(&in, &l))
		return;
	for (uint32_t i = 0; i < l.count && wentry_get(&in, &e) == 0; i++)
		if (strcmp(e.name, ".") != 0 && !path_name_valid(e.name))
			abort();
}

static void sumset(const uint8_t *data, size_t size)
{
	struct buf in;
	struct wsums s;
	uint32_t weak;
	uint8_t strong[16];
	buf_view(&in, data, size);
	if (wsums_get(&in, &s))
		return;
	uint32_t left = s.count;
	while (left && wsum_get(&in, &weak, strong) == 0)
		left--;
}

static void sums_req(const uint8_t *data, size_t size)
{
	struct buf in, out;
	struct wsums_req q;
	buf_view(&in, data, size);
	if (wsums_req_get(&in, &q))
		return;
	if (!path_valid(q.path) || q.block > WOP_DATA_MAX)
		abort();
	buf_init(&out, 1u << 20);
	wsums_req_put(&out, &q);
	must_equal(&out, data, size);
	buf_release(&out);
}

static void hello(const uint8_t *data, size_t size)
{
	struct buf in, out;
	struct whello h;
	buf_view(&in, data, size);
	if (whello_get(&in, &h))
		return;
	buf_init(&out, 1u << 20);
	whello_put(&out, &h);
	must_equal(&out, data, size);
	buf_release(&out);
}

static void welcome(const uint8_t *data, size_t size)
{
	struct buf in, out;
	struct wwelcome w;
	buf_view(&in, data, size);
	if (wwelcome_get(&in, &w))
		return;
	buf_init(&out, 1u << 20);
	wwelcome_put(&out, &w);
	must_equal(&out, data, size);
	buf_release(&out);
	free(w.outstanding);
}

static void failure(const uint8_t *data, size_t size)
{
	struct buf in, out;
	struct wfail f;
	buf_view(&in, data, size);
	if (wfail_get(&in, &f))
		return;
	buf_init(&out, 1u << 20);
	wfail_put(&out, &f);
	must_equal(&out, data, size);
	buf_release(&out);
}

static void ack(const uint8_t *data, size_t size)
{
	struct buf in;
	struct wack a;
	buf_view(&in, data, size);
	wack_get(&in, &a);
}

static void position(const uint8_t *data, size_t size)
{
	static uint8_t slot[POSITION_SLOT];
	static struct position p;
	memset(slot, 0, sizeof(slot));
	memcpy(slot, data, size < sizeof(slot) ? size : sizeof(slot));
	if (position_get(slot, &p) == 0 && p.nout > WPOS_OUT_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const decoders[])(const uint8_t *, size_t) = {
	    ops, hello, welcome, ack, failure, listing, sumset, sums_req, position};
	if (size > 1)
		decoders[data[0] % (sizeof(decoders) / sizeof(*decoders))](data + 1, size - 1);
	return 0;
}
