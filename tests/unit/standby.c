/* SPDX-License-Identifier: BSD-2-Clause
 * See standby.h. Simple on purpose: no durability, no confinement. */
#include "config.h"
#include "tests/unit/standby.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/fileio.h"
#include "proto/path.h"
#include "proto/xattrs.h"

struct reply {
	TAILQ_ENTRY(reply) link;
	uint8_t type;
	struct buf b;
};

struct build { /* a transfer */
	struct build *next;
	uint32_t xid;
	enum wbegin_mode mode;
	char tmp[32];
	int fd, old;
};

struct stream {
	int root;
	const struct mirror *mirror;
	uint32_t xid, id;
	uint64_t waiting; /* LIST replies queued */
	struct standby_counts counts;
	TAILQ_HEAD(, reply) replies;
	struct build *builds;
	uint32_t fail;
	uint8_t scratch[256 << 10];
};

struct stream *standby_new(int rootfd, const struct mirror *m)
{
	struct stream *s = calloc(1, sizeof(*s));
	ck_assert_ptr_nonnull(s);
	s->root = rootfd;
	s->mirror = m;
	TAILQ_INIT(&s->replies);
	mkdirat(rootfd, PATH_PRIVATE, 0700);
	return s;
}

void standby_free(struct stream *s)
{
	struct reply *r;
	ck_assert_ptr_null(s->builds);
	while ((r = TAILQ_FIRST(&s->replies)) != NULL) {
		TAILQ_REMOVE(&s->replies, r, link);
		buf_release(&r->b);
		free(r);
	}
	free(s);
}

struct standby_counts *standby_counts(struct stream *s)
{
	return &s->counts;
}

void standby_fail_next(struct stream *s, uint32_t code)
{
	s->fail = code;
}

static struct reply *reply_new(struct stream *s, uint8_t type)
{
	struct reply *r = calloc(1, sizeof(*r));
	ck_assert_ptr_nonnull(r);
	r->type = type;
	buf_init(&r->b, FRAME_MAX);
	TAILQ_INSERT_TAIL(&s->replies, r, link);
	return r;
}

bool standby_deliver(struct stream *s, struct compare *c)
{
	struct reply *r = TAILQ_FIRST(&s->replies);
	struct buf v;
	if (!r)
		return false;
	TAILQ_REMOVE(&s->replies, r, link);
	s->counts.bytes += r->b.len;
	buf_view(&v, r->b.data, r->b.len);
	if (r->type == FT_LISTING) {
		s->waiting--;
		ck_assert_int_eq(compare_listing(c, &v), 0);
	} else if (r->type == FT_SUMSET) {
		ck_assert_int_eq(compare_sumset(c, &v), 0);
	} else {
		struct wfail f;
		ck_assert_int_eq(wfail_get(&v, &f), 0);
		compare_fail(c, &f);
	}
	buf_release(&r->b);
	free(r);
	return true;
}

/* --- requests --- */

static void put_entry(struct buf *b, int dirfd, const char *name, const char *as)
{
	struct stat st;
	char target[4097] = "";
	struct buf x;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
		return;
	if (S_ISLNK(st.st_mode))
		ck_assert_int_ge(readlinkat(dirfd, name, target, 4096), 0);
	buf_init(&x, XATTR_SET_MAX);
	ck_assert_int_eq(xattrs_read(&x, -1, dirfd, name), 0);
	struct wentry e = {
	    .name = as,
	    .attr = {st.st_mode, st.st_uid, st.st_gid, {st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec}},
	    .size = (uint64_t)st.st_size,
	    .ino = st.st_ino,
	    .nlink = (uint32_t)st.st_nlink,
	    .rdev = st.st_rdev,
	    .blocks = (uint64_t)st.st_blocks,
	    .xdigest = xattrs_digest(x.data, x.len),
	    .target = target};
	wentry_put(b, &e);
	buf_release(&x);
}

static void listing_head(struct reply *r, uint32_t id, uint32_t code, bool last, uint32_t count)
{
	struct wlisting l = {.id = id, .code = code, .last = last, .count = count};
	wlisting_put(&r->b, &l);
}

static void list_dir(struct stream *s, uint32_t id, int fd)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	struct reply *r = reply_new(s, FT_LISTING);
	listing_head(r, id, WR_NONE, false, 1);
	put_entry(&r->b, fd, ".", ".");
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    strcmp(e->d_name, PATH_PRIVATE) == 0)
			continue;
		s->waiting++;
		r = reply_new(s, FT_LISTING); /* one entry each: parts are met by every test */
		listing_head(r, id, WR_NONE, false, 1);
		put_entry(&r->b, fd, e->d_name, e->d_name);
	}
	s->waiting++;
	r = reply_new(s, FT_LISTING);
	listing_head(r, id, WR_NONE, true, 0);
	closedir(d);
}

static void serve_list(struct stream *s, struct buf *q)
{
	uint32_t id = buf_get_u32(q);
	const char *path = buf_get_str(q, NULL), *base;
	uint8_t alone = buf_get_u8(q);
	ck_assert_int_eq(buf_end(q), 0);
	s->counts.lists++;
	if (++s->waiting > s->counts.window)
		s->counts.window = s->waiting;
	struct stat st;
	int fd =
	    alone ? path_open_parent(s->root, path, &base) : path_open(s->root, path, O_RDONLY | O_DIRECTORY);
	if (fd >= 0 && alone && fstatat(fd, base, &st, AT_SYMLINK_NOFOLLOW)) {
		close(fd);
		fd = -errno;
	}
	if (fd >= 0 && !alone) {
		list_dir(s, id, fd);
		return;
	}
	struct reply *r = reply_new(s, FT_LISTING);
	listing_head(r, id, fd >= 0 ? WR_NONE : fd == -ENOENT ? WR_MISSING : WR_TYPE, true, fd >= 0);
	if (fd >= 0) {
		put_entry(&r->b, fd, base, ".");
		close(fd);
	}
}

static void put_sum(struct buf *b, int fd, uint64_t off, uint64_t len, const uint8_t key[8])
{
	static const uint8_t none[16];
	uint8_t strong[16];
	off_t d = lseek(fd, (off_t)off, SEEK_DATA);
	if (d < 0 || (uint64_t)d >= off + len) {
		wsum_put(b, 0, none);
		return;
	}
	if (len > 64 << 20) { /* of a long range only whether it is a hole matters here */
		memset(strong, 1, sizeof(strong));
		wsum_put(b, 1, strong);
		return;
	}
	uint8_t *p = malloc(len);
	ck_assert_int_eq(fio_pread(fd, p, len, (off_t)off), 0);
	wsum_strong(strong, key, p, len);
	wsum_put(b, wsum_weak(p, len), strong);
	free(p);
}

static void serve_sums(struct stream *s, struct buf *q)
{
	struct wsums_req w;
	struct stat st;
	ck_assert_int_eq(wsums_req_get(q, &w), 0);
	s->counts.sums++;
	int fd = path_open(s->root, w.path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	uint64_t end = (uint64_t)st.st_size < w.off + w.len ? (uint64_t)st.st_size : w.off + w.len, first = 0;
	uint64_t block = w.block ? w.block : end - w.off;
	for (uint64_t off = w.off; off < end;) { /* 16 sums per part */
		struct reply *r = reply_new(s, FT_SUMSET);
		uint32_t n = 0;
		for (uint64_t p = off; p < end && n < 16; p += block)
			n++;
		struct wsums h = {.id = w.id,
				  .size = (uint64_t)st.st_size,
				  .first = first,
				  .count = n,
				  .last = off + n * block >= end};
		wsums_put(&r->b, &h);
		for (; n > 0; n--, off += block, first++)
			put_sum(&r->b, fd, off, end - off < block ? end - off : block, w.key);
	}
	close(fd);
}

int stream_request(struct stream *s, enum frame_type type, const struct buf *payload)
{
	struct buf q;
	buf_view(&q, payload->data, payload->len);
	s->counts.bytes += payload->len;
	if (type == FT_LIST)
		serve_list(s, &q);
	else
		serve_sums(s, &q);
	return 0;
}

/* --- operations --- */

static void keep_mtime(int dirfd, const struct stat *before)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, before->st_mtim};
	char self[64];
	snprintf(self, sizeof(self), "/proc/self/fd/%d", dirfd);
	ck_assert_int_eq(utimensat(AT_FDCWD, self, ts, 0), 0);
}

static void set_attr(int dirfd, const char *name, uint32_t valid, const struct wattr *a)
{
	struct stat st;
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = a->mtime.sec, .tv_nsec = a->mtime.nsec}};
	ck_assert_int_eq(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	if (valid & (JV_UID | JV_GID))
		ck_assert_int_eq(fchownat(dirfd, name, valid & JV_UID ? a->uid : (uid_t)-1,
					  valid & JV_GID ? a->gid : (gid_t)-1, AT_SYMLINK_NOFOLLOW),
				 0);
	if (valid & JV_MODE && !S_ISLNK(st.st_mode))
		ck_assert_int_eq(fchmodat(dirfd, name, a->mode & 07777, 0), 0);
	if (valid & JV_MTIME)
		ck_assert_int_eq(utimensat(dirfd, name, ts, AT_SYMLINK_NOFOLLOW), 0);
}

static void remove_tree(int at, const char *name)
{
	struct stat st;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW))
		return;
	if (!S_ISDIR(st.st_mode)) {
		ck_assert_int_eq(unlinkat(at, name, 0), 0);
		return;
	}
	DIR *d = fdopendir(openat(at, name, O_RDONLY | O_DIRECTORY));
	struct dirent *e;
	while ((e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_tree(dirfd(d), e->d_name);
	closedir(d);
	ck_assert_int_eq(unlinkat(at, name, AT_REMOVEDIR), 0);
}

static void make(const struct jrec *r, int fd, const char *base)
{
	int err = 0;
	if (r->type == JT_MKDIR)
		err = mkdirat(fd, base, r->mode & 07777);
	else if (r->type == JT_SYMLINK)
		err = symlinkat(r->target, fd, base);
	else
		err = mknodat(fd, base, r->mode, r->rdev);
	ck_assert_msg(err == 0, "%s: %s", r->path, strerror(errno));
	struct wattr a = {r->mode, r->uid, r->gid, r->mtime};
	set_attr(fd, base, JV_MODE | JV_UID | JV_GID | JV_MTIME, &a);
}

static void do_record(struct stream *s, const struct wop *op)
{
	struct jrec r;
	size_t used;
	const char *base, *base2;
	struct stat dir;
	ck_assert_int_eq(jrec_get(&r, op->data, op->dlen, &used), 0);
	ck_assert_uint_eq(r.seq, 0);
	int fd = path_open_parent(s->root, r.path, &base);
	ck_assert_msg(fd >= 0, "parent of %s", r.path);
	ck_assert_int_eq(fstat(fd, &dir), 0);
	struct wattr a = {r.mode, r.uid, r.gid, r.mtime};
	if (r.type == JT_SETATTR) {
		set_attr(fd, base, r.valid, &a);
	} else if (r.type == JT_LINK) {
		int fd2 = path_open_parent(s->root, r.path2, &base2);
		ck_assert_msg(linkat(fd, base, fd2, base2, 0) == 0, "link %s %s: %s", r.path, r.path2,
			      strerror(errno));
		close(fd2);
	} else {
		make(&r, fd, base);
	}
	close(fd);
	jrec_release(&r);
}

static void begin(struct stream *s, const struct wop *op)
{
	struct build *b = calloc(1, sizeof(*b));
	b->xid = op->xid;
	b->mode = (enum wbegin_mode)op->flags;
	snprintf(b->tmp, sizeof(b->tmp), PATH_PRIVATE "/%u", op->xid);
	b->fd = openat(s->root, b->tmp, O_RDWR | O_CREAT | O_EXCL, 0600);
	b->old = path_open(s->root, op->path, O_RDONLY);
	if (b->mode == WB_PATCH) {
		struct stat st;
		ck_assert_int_eq(fstat(b->old, &st), 0);
		for (off_t off = lseek(b->old, 0, SEEK_DATA); off >= 0 && off < st.st_size;
		     off = lseek(b->old, off, SEEK_DATA)) {
			ssize_t n = pread(b->old, s->scratch, 4096 - (size_t)(off % 4096), off);
			ck_assert_int_eq(fio_pwrite(b->fd, s->scratch, (size_t)n, off), 0);
			off += n;
		}
		ck_assert_int_eq(ftruncate(b->fd, st.st_size), 0);
	}
	b->next = s->builds;
	s->builds = b;
}

static void build_free(struct stream *s, struct build *b)
{
	struct build **p = &s->builds;
	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	unlinkat(s->root, b->tmp, 0);
	close(b->fd);
	if (b->old >= 0)
		close(b->old);
	free(b);
}

static void copy_range(struct stream *s, struct build *b, const struct wop *op)
{
	uint8_t *p = malloc(op->len), hash[16];
	static const uint8_t key[8];
	ck_assert_str_eq(op->path, "");
	ck_assert_int_eq(fio_pread(b->old, p, op->len, (off_t)op->src), 0);
	wsum_strong(hash, key, p, op->len);
	ck_assert_mem_eq(hash, op->hash, 16);
	ck_assert_int_eq(fio_pwrite(b->fd, p, op->len, (off_t)op->off), 0);
	s->counts.copied += op->len;
	free(p);
}

static void refuse(struct stream *s, const struct wop *op)
{
	struct reply *r = reply_new(s, FT_FAIL);
	struct wfail f = {.code = s->fail,
			  .xid = op->xid,
			  .seq = op->seq,
			  .path = op->path,
			  .path2 = "",
			  .text = "made to fail"};
	wfail_put(&r->b, &f);
	s->fail = 0;
}

static void write_over(struct stream *s, struct build *b, int fd, const char *base)
{
	struct stat st;
	int to = openat(fd, base, O_WRONLY | O_TRUNC);
	ck_assert_int_eq(fstat(b->fd, &st), 0);
	for (off_t off = 0; off < st.st_size;) {
		ssize_t n = pread(b->fd, s->scratch, sizeof(s->scratch), off);
		ck_assert_int_eq(fio_pwrite(to, s->scratch, (size_t)n, off), 0);
		off += n;
	}
	close(to);
}

static void commit(struct stream *s, struct build *b, const struct wop *op)
{
	const char *base;
	struct stat st, dir;
	int fd = path_open_parent(s->root, op->path, &base);
	if (s->fail) {
		refuse(s, op);
		close(fd);
		return;
	}
	ck_assert_msg(fd >= 0, "parent of %s", op->path);
	ck_assert_int_eq(fstat(fd, &dir), 0);
	ck_assert_int_eq(ftruncate(b->fd, (off_t)op->size), 0);
	if (fstatat(fd, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink > 1)
		write_over(s, b, fd, base);
	else
		ck_assert_int_eq(renameat(s->root, b->tmp, fd, base), 0);
	set_attr(fd, base, JV_MODE | JV_UID | JV_GID, &op->attr);
	if (op->has_xattrs)
		ck_assert_int_eq(xattrs_apply(op->data, op->dlen, -1, fd, base), 0);
	set_attr(fd, base, JV_MTIME, &op->attr);
	keep_mtime(fd, &dir);
	close(fd);
}

static void in_build(struct stream *s, const struct wop *op)
{
	struct build *b = s->builds;
	while (b && b->xid != op->xid)
		b = b->next;
	ck_assert_ptr_nonnull(b);
	switch (op->type) {
	case WOP_DATA:
		s->counts.data += op->dlen;
		ck_assert_int_eq(fio_pwrite(b->fd, op->data, op->dlen, (off_t)op->off), 0);
		return;
	case WOP_HOLE:
		s->counts.holes += op->len;
		fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->off,
			  (off_t)(op->len > INT64_MAX - op->off ? INT64_MAX - op->off : op->len));
		return;
	case WOP_COPY:
		copy_range(s, b, op);
		return;
	case WOP_COMMIT:
		commit(s, b, op);
		break;
	default:
		break;
	}
	build_free(s, b);
}

static void apply(struct stream *s, const struct wop *op)
{
	const char *base;
	int fd;
	switch (op->type) {
	case WOP_REC:
		do_record(s, op);
		return;
	case WOP_BEGIN:
		begin(s, op);
		return;
	case WOP_RMTREE:
	case WOP_XATTRS:
		fd = path_open_parent(s->root, op->path, &base);
		ck_assert_msg(fd >= 0, "parent of %s", op->path);
		if (op->type == WOP_RMTREE)
			remove_tree(fd, base);
		else
			ck_assert_int_eq(xattrs_apply(op->data, op->dlen, -1, fd, base), 0);
		close(fd);
		return;
	default:
		in_build(s, op);
	}
}

int stream_op(struct stream *s, const struct wop *op)
{
	struct buf b, v;
	struct wop got;
	buf_init(&b, FRAME_MAX);
	wop_put(&b, op);
	ck_assert_int_eq(b.err, 0);
	buf_view(&v, b.data, b.len);
	ck_assert_int_eq(wop_get(&v, &got), 0);
	ck_assert_int_eq(buf_end(&v), 0);
	s->counts.ops[op->type]++;
	s->counts.bytes += b.len;
	apply(s, &got);
	buf_release(&b);
	return 0;
}

size_t stream_room(const struct stream *s)
{
	return 1 << 20;
}

uint32_t stream_xid(struct stream *s)
{
	return ++s->xid;
}

uint32_t stream_request_id(struct stream *s)
{
	return ++s->id;
}

void stream_tag(struct stream *s, unsigned tag)
{
	(void)s;
	(void)tag;
}

const uint8_t *stream_key(const struct stream *s)
{
	return (const uint8_t *)"testkey";
}

uint8_t *stream_scratch(struct stream *s)
{
	return s->scratch;
}

const struct mirror *stream_mirror(const struct stream *s)
{
	return s->mirror;
}

void stream_incompressible(struct stream *s, size_t n)
{
}

struct stream_mark stream_mark(const struct stream *s)
{
	return (struct stream_mark){0};
}

bool stream_rewind(struct stream *s, struct stream_mark mark)
{
	return false; /* all is applied at once */
}
