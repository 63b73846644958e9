/* SPDX-License-Identifier: BSD-2-Clause
 * Redo logs: see redo.h. The log file, little-endian: u32 magic "TDL1", u64 device, u64 inode, string path,
 * u64 size, u32 mode, u32 uid, u32 gid, u64 mtime seconds, u32 nanoseconds, u8 flags (1 attributes are given,
 * 2 owners are not kept), blob attributes, u32 count, then per range u64 offset, u64 length, u64 place in the
 * data file, u8 hole; XXH3-64 of all that. */
#include "config.h"
#include "replicator/module/redo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/err.h"
#include "proto/extent.h"
#include "proto/fileio.h"
#include "proto/path.h"
#include "proto/xattrs.h"
#include "replicator/module/node.h"

#define REDO_MAGIC   0x314c4454u
#define REDO_LOG_MAX (32u << 20) /* bytes of one log file */
#define REDO_RANGES  (1u << 18)
#define COPY_CHUNK   (256u << 10)
#define WAIT_CHUNK   (64u << 20) /* bytes after which redo_wait is told */

enum { REDO_XATTRS = 1, REDO_NO_OWNER = 2 };

static void log_name(char name[32], uint64_t number, const char *suffix)
{
	snprintf(name, 32, "%016llx%s", (unsigned long long)number, suffix);
}

static int copy_by_buffer(int src, uint64_t at, int dst, uint64_t off, uint64_t len)
{
	uint8_t *chunk = malloc(COPY_CHUNK);
	int err = chunk ? 0 : -ENOMEM;
	while (!err && len) {
		size_t n = len < COPY_CHUNK ? (size_t)len : COPY_CHUNK;
		err = fio_pread(src, chunk, n, (off_t)at);
		if (!err)
			err = fio_pwrite(dst, chunk, n, (off_t)off);
		at += n;
		off += n;
		len -= n;
	}
	free(chunk);
	return err;
}

static void tick(const struct redo_wait *w)
{
	if (w)
		w->tick(w->arg);
}

static int copy_piece(int src, uint64_t at, int dst, uint64_t off, uint64_t len)
{
	while (len) {
		loff_t from = (loff_t)at, to = (loff_t)off;
		ssize_t n = copy_file_range(src, &from, dst, &to, (size_t)len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO))
			return -errno;
		if (n < 0)
			return copy_by_buffer(src, at, dst, off, len);
		if (n == 0)
			return -ENODATA;
		at += (uint64_t)n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int redo_copy(int src, uint64_t at, int dst, uint64_t off, uint64_t len, const struct redo_wait *w)
{
	for (uint64_t done = 0; done < len;) {
		uint64_t n = len - done < WAIT_CHUNK ? len - done : WAIT_CHUNK;
		int err = copy_piece(src, at + done, dst, off + done, n);
		if (err)
			return err;
		done += n;
		if (done % WAIT_CHUNK == 0)
			tick(w);
	}
	return 0;
}

static int write_zeros(int fd, uint64_t off, uint64_t len)
{
	uint8_t *zeros = calloc(1, COPY_CHUNK);
	int err = zeros ? 0 : -ENOMEM;
	while (!err && len) {
		size_t n = len < COPY_CHUNK ? (size_t)len : COPY_CHUNK;
		err = fio_pwrite(fd, zeros, n, (off_t)off);
		off += n;
		len -= n;
	}
	free(zeros);
	return err;
}

int redo_punch(int fd, uint64_t off, uint64_t len)
{
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	uint64_t size = (uint64_t)st.st_size;
	if (off >= size)
		return 0;
	len = len < size - off ? len : size - off;
	if (!len || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return write_zeros(fd, off, len);
}

int redo_reserve(const struct redo_log *log, int target)
{
	struct stat st;
	if (fstat(target, &st))
		return -errno;
	bool dense = (uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size;
	for (uint32_t i = 0; i < log->n; i++) {
		const struct redo_piece *p = &log->v[i];
		if (p->hole || !p->len || (dense && p->off + p->len <= (uint64_t)st.st_size))
			continue;
		if (fallocate(target, FALLOC_FL_KEEP_SIZE, (off_t)p->off, (off_t)p->len))
			return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
	}
	return 0;
}

int redo_apply(const struct redo_log *log, int datafd, int target, const struct redo_wait *w)
{
	struct stat st;
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT},
				 {.tv_sec = log->attr.mtime.sec, .tv_nsec = log->attr.mtime.nsec}};
	int err = 0;
	for (uint32_t i = 0; !err && i < log->n; i++) {
		const struct redo_piece *p = &log->v[i];
		err = p->hole ? redo_punch(target, p->off, p->len)
			      : redo_copy(datafd, p->at, target, p->off, p->len, w);
		if (i % 1024 == 1023)
			tick(w);
	}
	if (err)
		return err;
	if (ftruncate(target, (off_t)log->size) || fstat(target, &st))
		return -errno;
	if (!log->no_owner && (st.st_uid != log->attr.uid || st.st_gid != log->attr.gid) &&
	    fchown(target, log->attr.uid, log->attr.gid))
		return -errno;
	if (log->has_xattrs)
		err = node_xattr_error(target, xattrs_apply(log->xattrs, log->xlen, target, -1, NULL));
	if (fchmod(target, log->attr.mode & 07777) || futimens(target, ts))
		return -errno;
	return err;
}

static void encode(struct buf *b, const struct redo_log *log)
{
	buf_put_u32(b, REDO_MAGIC);
	buf_put_u64(b, log->dev);
	buf_put_u64(b, log->ino);
	buf_put_str(b, log->path);
	buf_put_u64(b, log->size);
	buf_put_u32(b, log->attr.mode);
	buf_put_u32(b, log->attr.uid);
	buf_put_u32(b, log->attr.gid);
	buf_put_u64(b, (uint64_t)log->attr.mtime.sec);
	buf_put_u32(b, log->attr.mtime.nsec);
	buf_put_u8(b, (log->has_xattrs ? REDO_XATTRS : 0) | (log->no_owner ? REDO_NO_OWNER : 0));
	buf_put_blob(b, log->xattrs, log->has_xattrs ? log->xlen : 0);
	buf_put_u32(b, log->n);
	for (uint32_t i = 0; i < log->n; i++) {
		buf_put_u64(b, log->v[i].off);
		buf_put_u64(b, log->v[i].len);
		buf_put_u64(b, log->v[i].at);
		buf_put_u8(b, log->v[i].hole);
	}
}

/* Most of it piece by piece, so that the sync has little left to wait for. */
static void write_out(int fd, const struct redo_wait *w)
{
	struct stat st;
	if (fstat(fd, &st))
		return;
	for (off_t off = 0; st.st_size - off > (off_t)WAIT_CHUNK; off += WAIT_CHUNK) {
		sync_file_range(fd, off, WAIT_CHUNK, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		tick(w);
	}
}

int redo_commit(struct redo *r, const struct redo_log *log, int datafd, const struct redo_wait *w)
{
	char name[32];
	struct buf b;
	write_out(datafd, w);
	int err = fio_sync(datafd);
	if (err)
		return err;
	buf_init(&b, REDO_LOG_MAX);
	encode(&b, log);
	if (!b.err)
		buf_put_u64(&b, XXH3_64bits(b.data, b.len));
	log_name(name, log->number, "");
	err = b.err ? b.err : fio_replace(r->fd, name, b.data, b.len, 0600);
	buf_release(&b);
	return err;
}

/* Decode a log whose bytes stay in memory as long as log is used. */
static int decode(const char *data, size_t n, struct redo_log *log)
{
	struct buf b;
	memset(log, 0, sizeof(*log));
	if (n < 8)
		return E_TORN;
	buf_view(&b, data, n);
	if (buf_get_u32(&b) != REDO_MAGIC)
		return E_CHECKSUM;
	log->dev = buf_get_u64(&b);
	log->ino = buf_get_u64(&b);
	log->path = (char *)(uintptr_t)buf_get_str(&b, NULL);
	log->size = buf_get_u64(&b);
	log->attr.mode = buf_get_u32(&b);
	log->attr.uid = buf_get_u32(&b);
	log->attr.gid = buf_get_u32(&b);
	log->attr.mtime.sec = (int64_t)buf_get_u64(&b);
	log->attr.mtime.nsec = buf_get_u32(&b);
	uint8_t flags = buf_get_u8(&b);
	log->has_xattrs = flags & REDO_XATTRS;
	log->no_owner = flags & REDO_NO_OWNER;
	log->xattrs = buf_get_blob(&b, XATTR_SET_MAX, &log->xlen);
	log->n = buf_get_u32(&b);
	if (b.err || log->n > REDO_RANGES)
		return E_CHECKSUM;
	log->v = calloc(log->n + 1, sizeof(*log->v));
	if (!log->v)
		return -ENOMEM;
	for (uint32_t i = 0; i < log->n; i++) {
		log->v[i].off = buf_get_u64(&b);
		log->v[i].len = buf_get_u64(&b);
		log->v[i].at = buf_get_u64(&b);
		log->v[i].hole = buf_get_u8(&b);
	}
	uint64_t sum = b.err ? 0 : XXH3_64bits(data, b.off);
	if (buf_get_u64(&b) == sum && buf_end(&b) == 0 && path_valid(log->path))
		return 0;
	free(log->v);
	log->v = NULL;
	return E_CHECKSUM;
}

static void remove_log(struct redo *r, uint64_t number)
{
	char name[32];
	log_name(name, number, ".done");
	unlinkat(r->fd, name, 0);
	log_name(name, number, "");
	unlinkat(r->fd, name, 0);
	log_name(name, number, ".data");
	unlinkat(r->fd, name, 0);
}

/* Make the change of log if its path still names its inode. */
static int change(const struct redo_log *log, int rootfd, int datafd)
{
	struct stat st;
	int target = node_open_path(rootfd, log->path, O_RDWR, &st);
	if (target < 0)
		return target;
	int err = st.st_ino == log->ino ? redo_apply(log, datafd, target, NULL) : 0;
	close(target);
	return err;
}

/* The same with the permissions that the owner of the module's files can give himself. */
static int change_reaching(const struct redo_log *log, int rootfd, struct reach *reach, int datafd)
{
	int err = reach_for(reach, log->path) > 0 ? change(log, rootfd, datafd) : -EACCES;
	if (!err)
		reach_leave(reach, log->path);
	reach_end(reach);
	return err;
}

/* Apply one committed log. Returns 0 also when there is nothing to do any more. */
static int replay(struct redo *r, int rootfd, struct reach *reach, uint64_t number, const char *suffix)
{
	char name[32], *bytes;
	size_t n;
	struct redo_log log;
	log_name(name, number, suffix);
	int err = fio_slurp(r->fd, name, REDO_LOG_MAX, &bytes, &n);
	if (err)
		return err;
	err = decode(bytes, n, &log);
	if (err) {
		free(bytes);
		return err == -ENOMEM ? err : 0; /* torn by a power failure before it was committed */
	}
	log_name(name, number, ".data");
	int datafd = openat(r->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	err = datafd < 0 ? -errno : change(&log, rootfd, datafd);
	if (err == -EACCES && reach)
		err = change_reaching(&log, rootfd, reach, datafd);
	if (datafd >= 0)
		close(datafd);
	free(log.v);
	free(bytes);
	return node_curable(err) ? err : 0; /* no position counts on it: the sender hears it when it sends that again */
}

enum log_state { LOG_DATA = 1, LOG_COMMITTED = 2, LOG_DONE = 4 };

struct found {
	uint64_t number;
	unsigned state; /* enum log_state, or'ed */
};

static int by_number(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	return x->number < y->number ? -1 : x->number > y->number;
}

static int note(struct found **list, size_t *n, const char *name)
{
	char *end;
	uint64_t number = strtoull(name, &end, 16);
	unsigned state = strcmp(end, ".data") == 0   ? LOG_DATA
			 : strcmp(end, ".done") == 0 ? LOG_DONE
			 : *end			     ? 0
						     : LOG_COMMITTED;
	if (end != name + 16 || !state)
		return 1;
	for (size_t i = 0; i < *n; i++) {
		if ((*list)[i].number == number) {
			(*list)[i].state |= state;
			return 0;
		}
	}
	struct found *v = realloc(*list, (*n + 1) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	v[(*n)++] = (struct found){.number = number, .state = state};
	*list = v;
	return 0;
}

static int scan(struct redo *r, struct found **list, size_t *n)
{
	int fd = openat(r->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	int err = d ? 0 : -errno;
	if (!d && fd >= 0)
		close(fd);
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): without d err is not 0 */
	for (struct dirent *e; !err && (e = readdir(d));) {
		err = note(list, n, e->d_name);
		if (err > 0) {
			unlinkat(r->fd, e->d_name, 0); /* "." and ".." are refused by the kernel */
			err = 0;
		}
	}
	if (d)
		closedir(d);
	return err;
}

static int recover(struct redo *r, int rootfd, struct reach *reach, bool replay_all, const struct found *f)
{
	if (f->state & LOG_DONE) {
		int err = replay_all ? replay(r, rootfd, reach, f->number, ".done") : 0;
		if (!err)
			redo_done(r, f->number);
		return err;
	}
	if (f->state & LOG_COMMITTED) {
		int err = replay(r, rootfd, reach, f->number, "");
		if (!err)
			redo_done(r, f->number);
		r->replayed += !err;
		return err;
	}
	remove_log(r, f->number);
	return 0;
}

int redo_init(struct redo *r, int fd, int rootfd, struct reach *reach, bool replay_all)
{
	struct found *list = NULL;
	size_t n = 0;
	memset(r, 0, sizeof(*r));
	pthread_mutex_init(&r->lock, NULL);
	r->fd = fd;
	r->next = 1;
	int err = scan(r, &list, &n);
	if (n)
		qsort(list, n, sizeof(*list), by_number);
	for (size_t i = 0; !err && i < n; i++) {
		r->next = list[i].number + 1;
		err = recover(r, rootfd, reach, replay_all, &list[i]);
	}
	free(list);
	return err;
}

void redo_release(struct redo *r)
{
	free(r->done);
	r->done = NULL;
	pthread_mutex_destroy(&r->lock);
}

int redo_create(struct redo *r, uint64_t *number)
{
	char name[32];
	log_name(name, r->next, ".data");
	int fd = openat(r->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	*number = r->next++;
	return fd;
}

void redo_abort(struct redo *r, uint64_t number)
{
	remove_log(r, number);
}

void redo_done(struct redo *r, uint64_t number)
{
	char from[32], to[32];
	log_name(from, number, "");
	log_name(to, number, ".done");
	renameat(r->fd, from, r->fd, to); /* missing when it was done before */
	pthread_mutex_lock(&r->lock);
	if (r->ndone == r->capdone) {
		uint32_t cap = r->capdone ? r->capdone * 2 : 16;
		uint64_t *v = realloc(r->done, cap * sizeof(*v));
		if (v) {
			r->done = v;
			r->capdone = cap;
		}
	}
	if (r->ndone < r->capdone) /* else it is found again by the next connection */
		r->done[r->ndone++] = number;
	pthread_mutex_unlock(&r->lock);
}

uint32_t redo_take_done(struct redo *r, uint64_t **list)
{
	pthread_mutex_lock(&r->lock);
	uint32_t n = r->ndone;
	*list = r->done;
	r->done = NULL;
	r->ndone = r->capdone = 0;
	pthread_mutex_unlock(&r->lock);
	return n;
}

void redo_remove(struct redo *r, uint64_t *list, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		remove_log(r, list[i]);
	free(list);
}
