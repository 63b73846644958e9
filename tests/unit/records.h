/* SPDX-License-Identifier: BSD-2-Clause
 * One journal record of every type, with values in every field it has. */
#ifndef TANDEM_UNIT_RECORDS_H
#define TANDEM_UNIT_RECORDS_H

#include <stdlib.h>
#include <sys/stat.h>

#include "proto/jrec.h"

static inline mode_t record_mode(enum jtype type)
{
	return type == JT_MKDIR ? S_IFDIR | 0755 : type == JT_MKNOD ? S_IFCHR | 0600 : S_IFREG | 0644;
}

static inline void record_content(struct jrec *r)
{
	static const struct extent v[] = {{0, 4096}, {8192, 12288}, {1 << 20, EXTENT_INF}};
	r->size = 123456789;
	r->extents.v = malloc(sizeof(v));
	memcpy(r->extents.v, v, sizeof(v));
	r->extents.n = r->extents.cap = 3;
	r->ncopies = 2;
	r->copies[0] = (struct jcopy){1, 2, 3, 4, "src/a"};
	r->copies[1] = (struct jcopy){5, 6, 7, 8, "b"};
	r->handle_type = -129;
	r->handle = (const uint8_t *)"handle bytes";
	r->handle_len = 12;
}

/* Make a sample; jrec_release frees it. */
static inline void record_sample(struct jrec *r, enum jtype type)
{
	jrec_init(r, type);
	r->seq = 42;
	r->time_ns = 1700000000123456789u;
	r->ino = 0x1122334455667788;
	r->ino2 = 99;
	r->path = "dir/file";
	r->path2 = "dir/other name";
	r->target = "../where";
	r->mode = record_mode(type);
	r->uid = 1000;
	r->gid = 65534;
	r->rdev = 0x0103;
	r->nlink = 2;
	r->rflags = 1;
	r->valid = JV_MODE | JV_MTIME;
	r->mtime = (struct jtime){-5, 999999999};
	r->pm = (struct jtime){1700000000, 1};
	r->pm2 = (struct jtime){1700000001, 2};
	r->xname = "user.colour";
	r->xval = (const uint8_t *)"blue\0green";
	r->xlen = 10;
	r->from = 7;
	r->to = 41;
	r->flags = type == JT_CONTENT ? JF_CLOSED : type == JT_RECHECK ? JF_RECURSIVE : 0;
	if (type == JT_CONTENT)
		record_content(r);
	else
		r->size = 17;
}

#endif
