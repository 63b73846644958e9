/* SPDX-License-Identifier: BSD-2-Clause
 * Journal records made by hand, for tests of what reads them. */
#ifndef TANDEM_JOURNAL_MADE_H
#define TANDEM_JOURNAL_MADE_H

#include "replicator/source/window.h"
#include "tests/unit/unit.h"

struct made {
	struct window *w;
	uint64_t seq;
	uint64_t began_ns; /* the records' times are behind this */
};

static inline void made_begin(struct made *m)
{
	m->seq = 0;
	m->began_ns = 4000000000000000000; /* 2096: every file is older */
	ck_assert_int_eq(window_new(&m->w), 0);
}

static inline void made_put(struct made *m, struct jrec *r)
{
	struct buf b;

	r->seq = ++m->seq;
	r->time_ns = m->began_ns + m->seq;
	buf_init(&b, JREC_MAX);
	ck_assert_int_eq(jrec_put(&b, r), 0);
	ck_assert_int_eq(window_add(m->w, b.data, b.len, m->seq), 0);
	buf_release(&b);
	jrec_release(r);
}

static inline void made_create(struct made *m, uint64_t ino, const char *path)
{
	struct jrec r;

	jrec_init(&r, JT_CREATE);
	r.ino = ino;
	r.path = path;
	r.mode = 0100644;
	made_put(m, &r);
}

static inline void made_content(struct made *m, uint64_t ino, const char *path, uint64_t start, uint64_t end, unsigned flags)
{
	struct jrec r;

	jrec_init(&r, JT_CONTENT);
	r.ino = ino;
	r.path = path;
	r.flags = (uint16_t)flags;
	r.size = end;
	extent_add(&r.extents, start, end);
	made_put(m, &r);
}

static inline void made_unlink(struct made *m, uint64_t ino, const char *path, uint32_t nlink)
{
	struct jrec r;

	jrec_init(&r, JT_UNLINK);
	r.ino = ino;
	r.path = path;
	r.nlink = nlink;
	made_put(m, &r);
}

static inline void made_rename(struct made *m, uint64_t ino, const char *from, const char *to, uint64_t ino2, uint32_t nlink2,
    unsigned flags)
{
	struct jrec r;

	jrec_init(&r, JT_RENAME);
	r.ino = ino;
	r.path = from;
	r.path2 = to;
	r.ino2 = ino2;
	r.nlink = nlink2;
	r.flags = (uint16_t)flags;
	r.mode = flags & JF_DIR ? 040755 : 0100644;
	made_put(m, &r);
}

static inline void made_link(struct made *m, uint64_t ino, const char *from, const char *to)
{
	struct jrec r;

	jrec_init(&r, JT_LINK);
	r.ino = ino;
	r.path = from;
	r.path2 = to;
	made_put(m, &r);
}

static inline void made_setattr(struct made *m, uint64_t ino, const char *path, uint32_t valid, uint32_t mode, int64_t mtime)
{
	struct jrec r;

	jrec_init(&r, JT_SETATTR);
	r.ino = ino;
	r.path = path;
	r.valid = valid;
	r.mode = mode;
	r.mtime.sec = mtime;
	made_put(m, &r);
}

#endif
