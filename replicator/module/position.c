/* SPDX-License-Identifier: BSD-2-Clause
 * The position page: see position.h. */
#include "config.h"
#include "replicator/module/position.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/err.h"
#include "proto/fileio.h"

#define POSITION_MAGIC 0x31504454u /* "TDP1" */
#define PAGE_BYTES     ((size_t)2 * POSITION_SLOT)

static void encode(struct buf *b, const struct position *p)
{
	buf_put_u32(b, POSITION_MAGIC);
	buf_put_u32(b, p->flags);
	buf_put_u64(b, p->generation);
	buf_put(b, p->boot, 16);
	buf_put_u64(b, p->unsettled);
	buf_put(b, p->pos.journal_id, 16);
	buf_put_u64(b, p->pos.epoch);
	buf_put_u64(b, p->pos.seq);
	buf_put_u64(b, p->pos.digest);
	buf_put_u32(b, p->nout);
	buf_put_u32(b, 0);
	for (uint32_t i = 0; i < p->nout; i++)
		buf_put_u64(b, p->out[i]);
}

size_t position_put(uint8_t slot[POSITION_SLOT], const struct position *p)
{
	struct buf b = {.data = slot, .cap = POSITION_SLOT, .max = POSITION_SLOT};
	encode(&b, p);
	buf_put_u64(&b, XXH3_64bits(slot, b.len));
	return b.len;
}

static int decode(const uint8_t slot[POSITION_SLOT], struct position *p)
{
	struct buf b;
	buf_view(&b, slot, POSITION_SLOT);
	if (buf_get_u32(&b) != POSITION_MAGIC)
		return E_TORN;
	p->flags = buf_get_u32(&b);
	p->generation = buf_get_u64(&b);
	memcpy(p->boot, buf_get(&b, 16), 16);
	p->unsettled = buf_get_u64(&b);
	memcpy(p->pos.journal_id, buf_get(&b, 16), 16);
	p->pos.epoch = buf_get_u64(&b);
	p->pos.seq = buf_get_u64(&b);
	p->pos.digest = buf_get_u64(&b);
	p->nout = buf_get_u32(&b);
	buf_get_u32(&b);
	if (p->nout > WPOS_OUT_MAX)
		return E_CHECKSUM;
	for (uint32_t i = 0; i < p->nout; i++)
		p->out[i] = buf_get_u64(&b);
	uint64_t sum = XXH3_64bits(slot, b.off);
	return buf_get_u64(&b) == sum ? 0 : E_CHECKSUM;
}

int position_get(const uint8_t slot[POSITION_SLOT], struct position *p)
{
	memset(p, 0, sizeof(*p));
	int err = decode(slot, p);
	if (err)
		memset(p, 0, sizeof(*p));
	return err;
}

int position_save(int dirfd, const struct position *p)
{
	uint8_t *slot = calloc(1, POSITION_SLOT);
	if (!slot)
		return -ENOMEM;
	position_put(slot, p);
	int err = fio_replace(dirfd, "durable", slot, POSITION_SLOT, 0600);
	free(slot);
	return err;
}

int position_load(int dirfd, struct position *p)
{
	char *data;
	size_t n;
	memset(p, 0, sizeof(*p));
	int err = fio_slurp(dirfd, "durable", POSITION_SLOT, &data, &n);
	if (err)
		return err;
	err = n == POSITION_SLOT ? position_get((uint8_t *)data, p) : E_TORN;
	free(data);
	return err;
}

int position_store(struct position_page *pp)
{
	uint8_t slot[POSITION_SLOT];
	pp->now.generation++;
	memcpy(pp->now.boot, pp->boot, 16);
	size_t n = position_put(slot, &pp->now);
	return fio_pwrite(pp->fd, slot, n, (off_t)(pp->now.generation % 2 * POSITION_SLOT));
}

int position_unsettle(struct position_page *pp, uint64_t seq)
{
	if (pp->now.unsettled)
		return 0;
	pp->now.unsettled = seq;
	int err = position_store(pp);
	if (err)
		pp->now.unsettled = 0;
	return err;
}

/* The newer valid slot of the page, or an empty position. */
static int newest(int fd, struct position *p)
{
	uint8_t *page = calloc(1, PAGE_BYTES);
	struct position *other = calloc(1, sizeof(*other));
	int err = page && other ? fio_pread(fd, page, PAGE_BYTES, 0) : -ENOMEM;
	if (!err && position_get(page, p))
		memset(p, 0, sizeof(*p));
	if (!err && position_get(page + POSITION_SLOT, other) == 0 && other->generation > p->generation)
		*p = *other;
	free(page);
	free(other);
	return err;
}

/* Another boot wrote the page and did not end in order, or the page is lost: go back to the durable copy.
 * Returns 1 if there was one or should have been, 0 if this module never had a position, or an error. */
static int step_back(struct position_page *pp, int dirfd)
{
	struct position *durable = calloc(1, sizeof(*durable));
	if (!durable)
		return -ENOMEM;
	int err = position_load(dirfd, durable);
	bool had = err != -ENOENT || pp->now.generation;
	durable->flags |= pp->now.flags & (POSITION_RESYNC | POSITION_ADOPTED);
	durable->generation = pp->now.generation;
	pp->now = *durable;
	if (had && !pp->now.unsettled)
		pp->now.unsettled = pp->now.pos.seq + 1;
	free(durable);
	return had;
}

int position_open(struct position_page *pp, int dirfd, const uint8_t boot[16], bool *unclean, bool *settle)
{
	memset(pp, 0, sizeof(*pp));
	memcpy(pp->boot, boot, 16);
	*unclean = *settle = false;
	pp->fd = fio_prealloc(dirfd, "position", PAGE_BYTES, 0600);
	if (pp->fd < 0)
		return pp->fd;
	int err = newest(pp->fd, &pp->now);
	bool clean = pp->now.flags & POSITION_CLEAN;
	bool lost = pp->now.flags & POSITION_LOST;
	if (!err && !lost && memcmp(pp->now.boot, boot, 16) == 0) {
		*settle = !clean;
		*unclean = pp->now.unsettled != 0;
	} else if (!err && (lost || !clean)) {
		int had = step_back(pp, dirfd);
		*unclean = had > 0;
		err = had < 0 ? had : 0;
	}
	/* what is unsettled stays so until the sender's next position: a kill before it must not hide it */
	pp->now.flags &= ~(uint32_t)(POSITION_CLEAN | POSITION_LOST);
	if (!err)
		err = position_store(pp);
	if (err)
		position_close(pp);
	return err;
}

int position_clean(struct position_page *pp)
{
	if (pp->now.unsettled)
		return 0;
	pp->now.flags |= POSITION_CLEAN;
	int err = position_store(pp);
	return err ? err : fio_sync(pp->fd);
}

void position_close(struct position_page *pp)
{
	if (pp->fd >= 0)
		close(pp->fd);
	pp->fd = -1;
}
