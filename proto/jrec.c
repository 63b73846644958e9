/* SPDX-License-Identifier: BSD-2-Clause
 * Journal records: see jrec.h and docs/journal-format.md.
 *
 * The body of every type is one row of the table below, a list of fields in their order. Encoder,
 * decoder and size all walk the same row, so that they cannot disagree. What a record may contain is
 * checked by one function on both ways: what jrec_put accepts, jrec_get accepts. */
#include "config.h"
#include "proto/jrec.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "proto/err.h"
#include "proto/path.h"

enum field {
	F_END,
	F_INO,
	F_INO2,
	F_PATH,
	F_PATH2,
	F_TARGET,
	F_MODE,
	F_UID,
	F_GID,
	F_RDEV,
	F_NLINK,
	F_RFLAGS,
	F_VALID,
	F_MTIME,
	F_PM,
	F_PM2,
	F_XNAME,
	F_XVAL,
	F_SIZE,
	F_EXTENTS,
	F_COPIES,
	F_HANDLE,
	F_FROM,
	F_TO
};

#define FIELDS_MAX 12

static const uint8_t layout[JT_LAST + 1][FIELDS_MAX] = {
    [JT_CREATE] = {F_INO, F_PATH, F_MODE, F_UID, F_GID, F_MTIME, F_PM},
    [JT_MKDIR] = {F_INO, F_PATH, F_MODE, F_UID, F_GID, F_MTIME, F_PM},
    [JT_MKNOD] = {F_INO, F_PATH, F_MODE, F_UID, F_GID, F_MTIME, F_RDEV, F_PM},
    [JT_SYMLINK] = {F_INO, F_PATH, F_UID, F_GID, F_MTIME, F_TARGET, F_PM},
    [JT_LINK] = {F_INO, F_PATH, F_PATH2, F_PM2},
    [JT_UNLINK] = {F_INO, F_PATH, F_NLINK, F_PM},
    [JT_RMDIR] = {F_INO, F_PATH, F_PM},
    [JT_RENAME] = {F_INO, F_PATH, F_PATH2, F_RFLAGS, F_INO2, F_NLINK, F_MODE, F_PM, F_PM2},
    [JT_SETATTR] = {F_INO, F_PATH, F_VALID, F_MODE, F_UID, F_GID, F_MTIME},
    [JT_SETXATTR] = {F_INO, F_PATH, F_XNAME, F_XVAL, F_RFLAGS},
    [JT_REMOVEXATTR] = {F_INO, F_PATH, F_XNAME},
    [JT_CONTENT] = {F_INO, F_PATH, F_SIZE, F_EXTENTS, F_COPIES, F_HANDLE},
    [JT_RECHECK] = {F_INO, F_PATH},
    [JT_COLLAPSED] = {F_FROM, F_TO, F_SIZE},
    [JT_MOUNT] = {F_END},
    [JT_SEAL] = {F_END},
};

#define FLAGS_ALL                                                                                            \
	(JF_CLOSED | JF_FSYNC | JF_DIR | JF_RECURSIVE | JF_CHECKSUM | JF_DRIFT | JF_RECOVERY | JF_UNLINKED | \
	 JF_EXCHANGE)

static bool time_ok(const struct jtime *t)
{
	return t->nsec < 1000000000u;
}

static bool path_ok(const char *p, bool root_too)
{
	return (root_too || *p) && path_valid(p);
}

static bool mode_ok(const struct jrec *r)
{
	mode_t type = r->mode & S_IFMT;
	if (r->mode & ~(uint32_t)(S_IFMT | 07777))
		return false;
	switch (r->type) {
	case JT_CREATE:
		return type == S_IFREG;
	case JT_MKDIR:
		return type == S_IFDIR;
	case JT_MKNOD:
		return type == S_IFIFO || type == S_IFSOCK || type == S_IFCHR || type == S_IFBLK;
	default:
		return true;
	}
}

static bool extents_ok(const struct extent_set *s)
{
	if (s->n > EXTENT_SET_MAX)
		return false;
	for (uint32_t i = 0; i < s->n; i++) {
		if (s->v[i].start >= s->v[i].end || (i && s->v[i].start <= s->v[i - 1].end))
			return false;
	}
	return true;
}

static bool copies_ok(const struct jrec *r)
{
	if (r->ncopies > JREC_COPIES)
		return false;
	for (uint32_t i = 0; i < r->ncopies; i++) {
		const struct jcopy *c = &r->copies[i];
		if (!c->len || c->dst > UINT64_MAX - c->len || c->src > UINT64_MAX - c->len ||
		    !path_ok(c->src_path, true))
			return false;
	}
	return true;
}

/* CONTENT without a name says so; SETATTR, the attributes and RECHECK may concern the root; a file made
 * without a name (O_TMPFILE) has none to link from. */
static bool path_field_ok(const struct jrec *r)
{
	switch (r->type) {
	case JT_CONTENT:
		return path_ok(r->path, r->flags & JF_UNLINKED);
	case JT_SETATTR:
	case JT_SETXATTR:
	case JT_REMOVEXATTR:
	case JT_RECHECK:
	case JT_LINK:
		return path_ok(r->path, true);
	default:
		return path_ok(r->path, false);
	}
}

static bool field_ok(const struct jrec *r, enum field f)
{
	switch (f) {
	case F_PATH:
		return path_field_ok(r);
	case F_PATH2:
		return path_ok(r->path2, false);
	case F_TARGET:
		return *r->target && strlen(r->target) < JREC_TARGET_MAX;
	case F_MODE:
		return mode_ok(r);
	case F_MTIME:
		return time_ok(&r->mtime);
	case F_PM:
		return time_ok(&r->pm);
	case F_PM2:
		return time_ok(&r->pm2);
	case F_XNAME:
		return *r->xname && strlen(r->xname) <= JREC_XNAME_MAX;
	case F_XVAL:
		return r->xlen <= JREC_XVAL_MAX;
	case F_VALID:
		return !(r->valid & ~(uint32_t)(JV_MODE | JV_UID | JV_GID | JV_MTIME));
	case F_EXTENTS:
		return extents_ok(&r->extents);
	case F_COPIES:
		return copies_ok(r);
	case F_HANDLE:
		return r->handle_len <= JREC_HANDLE_MAX;
	case F_TO:
		return r->from >= 1 && r->from <= r->to;
	default:
		return true;
	}
}

static bool type_known(uint16_t type)
{
	return type >= JT_CREATE && type <= JT_LAST;
}

static bool rec_ok(const struct jrec *r)
{
	if (r->flags & ~FLAGS_ALL)
		return false;
	for (const uint8_t *f = layout[r->type]; *f; f++) {
		if (!field_ok(r, *f))
			return false;
	}
	return true;
}

static size_t str_size(const char *s)
{
	return 2 + strlen(s) + 1;
}

static size_t copies_size(const struct jrec *r)
{
	size_t n = 4;
	for (uint32_t i = 0; i < r->ncopies && i < JREC_COPIES; i++)
		n += 32 + str_size(r->copies[i].src_path);
	return n;
}

static size_t field_size(const struct jrec *r, enum field f)
{
	switch (f) {
	case F_PATH:
		return str_size(r->path);
	case F_PATH2:
		return str_size(r->path2);
	case F_TARGET:
		return str_size(r->target);
	case F_XNAME:
		return str_size(r->xname);
	case F_XVAL:
		return 4 + (size_t)r->xlen;
	case F_MODE:
	case F_UID:
	case F_GID:
	case F_NLINK:
	case F_RFLAGS:
	case F_VALID:
		return 4;
	case F_MTIME:
	case F_PM:
	case F_PM2:
		return 12;
	case F_EXTENTS:
		return 4 + 16 * (size_t)r->extents.n;
	case F_COPIES:
		return copies_size(r);
	case F_HANDLE:
		return 4 + 4 + (size_t)r->handle_len;
	default:
		return 8;
	}
}

static size_t body_size(const struct jrec *r)
{
	size_t n = 0;
	for (const uint8_t *f = layout[r->type]; *f; f++)
		n += field_size(r, *f);
	return n;
}

static size_t padded(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

size_t jrec_size(const struct jrec *r)
{
	return type_known(r->type) ? padded(JREC_HEADER + body_size(r)) : SIZE_MAX;
}

static void put_time(struct buf *b, const struct jtime *t)
{
	buf_put_u64(b, (uint64_t)t->sec);
	buf_put_u32(b, t->nsec);
}

static void put_extents(struct buf *b, const struct extent_set *s)
{
	buf_put_u32(b, s->n);
	for (uint32_t i = 0; i < s->n; i++) {
		buf_put_u64(b, s->v[i].start);
		buf_put_u64(b, s->v[i].end);
	}
}

static void put_copies(struct buf *b, const struct jrec *r)
{
	buf_put_u32(b, r->ncopies);
	for (uint32_t i = 0; i < r->ncopies; i++) {
		const struct jcopy *c = &r->copies[i];
		buf_put_u64(b, c->dst);
		buf_put_u64(b, c->src);
		buf_put_u64(b, c->len);
		buf_put_u64(b, c->src_ino);
		buf_put_str(b, c->src_path);
	}
}

static void put_field(struct buf *b, const struct jrec *r, enum field f)
{
	switch (f) {
	case F_END:
		break;
	case F_INO:
		buf_put_u64(b, r->ino);
		break;
	case F_INO2:
		buf_put_u64(b, r->ino2);
		break;
	case F_PATH:
		buf_put_str(b, r->path);
		break;
	case F_PATH2:
		buf_put_str(b, r->path2);
		break;
	case F_TARGET:
		buf_put_str(b, r->target);
		break;
	case F_MODE:
		buf_put_u32(b, r->mode);
		break;
	case F_UID:
		buf_put_u32(b, r->uid);
		break;
	case F_GID:
		buf_put_u32(b, r->gid);
		break;
	case F_RDEV:
		buf_put_u64(b, r->rdev);
		break;
	case F_NLINK:
		buf_put_u32(b, r->nlink);
		break;
	case F_RFLAGS:
		buf_put_u32(b, r->rflags);
		break;
	case F_VALID:
		buf_put_u32(b, r->valid);
		break;
	case F_MTIME:
		put_time(b, &r->mtime);
		break;
	case F_PM:
		put_time(b, &r->pm);
		break;
	case F_PM2:
		put_time(b, &r->pm2);
		break;
	case F_XNAME:
		buf_put_str(b, r->xname);
		break;
	case F_XVAL:
		buf_put_blob(b, r->xval, r->xlen);
		break;
	case F_SIZE:
		buf_put_u64(b, r->size);
		break;
	case F_EXTENTS:
		put_extents(b, &r->extents);
		break;
	case F_COPIES:
		put_copies(b, r);
		break;
	case F_HANDLE:
		buf_put_u32(b, (uint32_t)r->handle_type);
		buf_put_blob(b, r->handle, r->handle_len);
		break;
	case F_FROM:
		buf_put_u64(b, r->from);
		break;
	case F_TO:
		buf_put_u64(b, r->to);
		break;
	}
}

static struct jtime get_time(struct buf *b)
{
	struct jtime t;
	t.sec = (int64_t)buf_get_u64(b);
	t.nsec = buf_get_u32(b);
	return t;
}

static void get_extents(struct buf *b, struct extent_set *s)
{
	uint32_t n = buf_get_u32(b);
	if (n > EXTENT_SET_MAX && !b->err)
		b->err = E_PROTO;
	const uint8_t *p = buf_get(b, (size_t)n * 16);
	if (!p || !n)
		return;
	s->v = malloc(n * sizeof(*s->v));
	if (!s->v) {
		b->err = -ENOMEM;
		return;
	}
	s->n = s->cap = n;
	for (uint32_t i = 0; i < n; i++, p += 16) {
		uint64_t v[2];
		memcpy(v, p, 16);
		s->v[i].start = le64toh(v[0]);
		s->v[i].end = le64toh(v[1]);
	}
}

static void get_copies(struct buf *b, struct jrec *r)
{
	uint32_t n = buf_get_u32(b);
	if (n > JREC_COPIES && !b->err)
		b->err = E_PROTO;
	if (b->err)
		return;
	for (uint32_t i = 0; i < n; i++) {
		struct jcopy *c = &r->copies[i];
		c->dst = buf_get_u64(b);
		c->src = buf_get_u64(b);
		c->len = buf_get_u64(b);
		c->src_ino = buf_get_u64(b);
		c->src_path = buf_get_str(b, NULL);
	}
	r->ncopies = n;
}

static void get_field(struct buf *b, struct jrec *r, enum field f)
{
	switch (f) {
	case F_END:
		break;
	case F_INO:
		r->ino = buf_get_u64(b);
		break;
	case F_INO2:
		r->ino2 = buf_get_u64(b);
		break;
	case F_PATH:
		r->path = buf_get_str(b, NULL);
		break;
	case F_PATH2:
		r->path2 = buf_get_str(b, NULL);
		break;
	case F_TARGET:
		r->target = buf_get_str(b, NULL);
		break;
	case F_MODE:
		r->mode = buf_get_u32(b);
		break;
	case F_UID:
		r->uid = buf_get_u32(b);
		break;
	case F_GID:
		r->gid = buf_get_u32(b);
		break;
	case F_RDEV:
		r->rdev = buf_get_u64(b);
		break;
	case F_NLINK:
		r->nlink = buf_get_u32(b);
		break;
	case F_RFLAGS:
		r->rflags = buf_get_u32(b);
		break;
	case F_VALID:
		r->valid = buf_get_u32(b);
		break;
	case F_MTIME:
		r->mtime = get_time(b);
		break;
	case F_PM:
		r->pm = get_time(b);
		break;
	case F_PM2:
		r->pm2 = get_time(b);
		break;
	case F_XNAME:
		r->xname = buf_get_str(b, NULL);
		break;
	case F_XVAL:
		r->xval = buf_get_blob(b, JREC_XVAL_MAX, &r->xlen);
		break;
	case F_SIZE:
		r->size = buf_get_u64(b);
		break;
	case F_EXTENTS:
		get_extents(b, &r->extents);
		break;
	case F_COPIES:
		get_copies(b, r);
		break;
	case F_HANDLE:
		r->handle_type = (int32_t)buf_get_u32(b);
		r->handle = buf_get_blob(b, JREC_HANDLE_MAX, &r->handle_len);
		break;
	case F_FROM:
		r->from = buf_get_u64(b);
		break;
	case F_TO:
		r->to = buf_get_u64(b);
		break;
	}
}

void jrec_init(struct jrec *r, enum jtype type)
{
	memset(r, 0, offsetof(struct jrec, copies));
	r->type = type;
	r->path = r->path2 = r->target = r->xname = "";
	extent_init(&r->extents);
}

void jrec_release(struct jrec *r)
{
	extent_release(&r->extents);
}

/* The sum covers the header with its checksum field zero, and the body, as they lie in memory. Small
 * records are copied so that one call does; large ones are summed in two pieces. */
static uint64_t sum_record(const uint8_t *p, size_t n)
{
	uint8_t tmp[1024];
	if (n <= sizeof(tmp)) {
		memcpy(tmp, p, n);
		memset(tmp + 32, 0, 8);
		return XXH3_64bits(tmp, n);
	}
	memcpy(tmp, p, JREC_HEADER);
	memset(tmp + 32, 0, 8);
	XXH3_state_t st;
	XXH3_64bits_reset(&st);
	XXH3_64bits_update(&st, tmp, JREC_HEADER);
	XXH3_64bits_update(&st, p + JREC_HEADER, n - JREC_HEADER);
	return XXH3_64bits_digest(&st);
}

static void put_header(struct buf *b, const struct jrec *r, uint32_t length, uint32_t body)
{
	buf_put_u32(b, JREC_MAGIC);
	buf_put_u16(b, (uint16_t)r->type);
	buf_put_u16(b, r->flags);
	buf_put_u32(b, length);
	buf_put_u32(b, body);
	buf_put_u64(b, r->seq);
	buf_put_u64(b, r->time_ns);
	buf_put_u64(b, 0);
}

int jrec_put(struct buf *b, const struct jrec *r)
{
	if (b->err)
		return b->err;
	if (!type_known(r->type) || !rec_ok(r))
		return -EINVAL;
	size_t body = body_size(r), length = padded(JREC_HEADER + body), at = b->len;
	if (length > JREC_MAX)
		return E_LIMIT;
	uint8_t *p = buf_reserve(b, length);
	if (!p) {
		int err = b->err;
		b->err = 0;
		return err;
	}
	put_header(b, r, (uint32_t)length, (uint32_t)body);
	for (const uint8_t *f = layout[r->type]; *f; f++)
		put_field(b, r, *f);
	buf_put(b, "\0\0\0\0\0\0\0", length - JREC_HEADER - body);
	uint64_t csum = htole64(XXH3_64bits(p, JREC_HEADER + body));
	memcpy(b->data + at + 32, &csum, 8);
	return 0;
}

static uint64_t load64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return le64toh(v);
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return le32toh(v);
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n && !*p) {
		p++;
		n--;
	}
	return !n;
}

int jrec_peek(struct jrec_info *i, const void *data, size_t len)
{
	const uint8_t *p = data;
	if (len < JREC_HEADER)
		return E_TORN;
	if (load32(p) != JREC_MAGIC)
		return all_zero(p, JREC_HEADER) ? E_TORN : E_CHECKSUM;
	uint32_t both = load32(p + 4);
	i->type = both & 0xffff;
	i->flags = (uint16_t)(both >> 16);
	i->length = load32(p + 8);
	i->body = load32(p + 12);
	if (i->length < JREC_HEADER || i->length > JREC_MAX || i->body > i->length - JREC_HEADER ||
	    padded(JREC_HEADER + i->body) != i->length)
		return E_CHECKSUM;
	if (len < i->length)
		return E_TORN;
	i->seq = load64(p + 16);
	i->time_ns = load64(p + 24);
	i->csum = load64(p + 32);
	size_t n = JREC_HEADER + i->body;
	if (sum_record(p, n) != i->csum || !all_zero(p + n, i->length - n))
		return E_CHECKSUM;
	return type_known(i->type) ? 0 : E_VERSION;
}

int jrec_get(struct jrec *r, const void *data, size_t len, size_t *used)
{
	struct jrec_info i;
	int err = jrec_peek(&i, data, len);
	if (err)
		return err;
	jrec_init(r, (enum jtype)i.type);
	r->flags = i.flags;
	r->seq = i.seq;
	r->time_ns = i.time_ns;
	r->csum = i.csum;
	struct buf b;
	buf_view(&b, (const uint8_t *)data + JREC_HEADER, i.body);
	for (const uint8_t *f = layout[r->type]; *f && !b.err; f++)
		get_field(&b, r, *f);
	err = buf_end(&b);
	if (!err && !rec_ok(r))
		err = E_PROTO;
	if (err) {
		jrec_release(r);
		return err;
	}
	*used = i.length;
	return 0;
}

uint64_t jrec_chain(uint64_t chain, uint64_t csum)
{
	uint64_t pair[2] = {htole64(chain), htole64(csum)};
	return XXH3_64bits(pair, sizeof(pair));
}

const char *jrec_type_name(enum jtype type)
{
	static const char *const names[JT_LAST + 1] = {
	    [JT_CREATE] = "create",
	    [JT_MKDIR] = "mkdir",
	    [JT_MKNOD] = "mknod",
	    [JT_SYMLINK] = "symlink",
	    [JT_LINK] = "link",
	    [JT_UNLINK] = "unlink",
	    [JT_RMDIR] = "rmdir",
	    [JT_RENAME] = "rename",
	    [JT_SETATTR] = "setattr",
	    [JT_SETXATTR] = "setxattr",
	    [JT_REMOVEXATTR] = "removexattr",
	    [JT_CONTENT] = "content",
	    [JT_RECHECK] = "recheck",
	    [JT_COLLAPSED] = "collapsed",
	    [JT_MOUNT] = "mount",
	    [JT_SEAL] = "seal",
	};
	return type_known((uint16_t)type) ? names[type] : "unknown";
}
