/* SPDX-License-Identifier: BSD-2-Clause
 * LIST and SUMS: see list.h. */
#include "config.h"
#include "replicator/module/list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

#define PIECE_BYTES   (192u << 10) /* payload of one LISTING, about */
#define PIECE_ENTRIES 1000u
#define PIECE_READ    (4u << 20) /* bytes of a file read for one SUMSET */
#define CHUNK	      (1u << 20)

struct list_job {
	bool sums;
	uint32_t id;
	uint32_t code; /* WR_*: the answer is this and nothing else */
	int fd;	       /* the directory, or the file; -1 */
	/* LIST */
	char *path; /* of the directory */
	const struct filter *filter;
	char *names;	    /* NUL-terminated, one after another */
	size_t len, at;	    /* bytes; of the next name */
	bool begun;	    /* "." was sent */
	const char *single; /* only this entry of fd is asked for; view into path */
	struct reach *reach; /* gives permission for what is closed to its owner; may be NULL; borrowed */
	bool closed;	     /* the directory is: its entries are looked at with that permission */
	/* SUMS */
	struct wsums_req q;
	uint64_t size, off, end; /* bytes */
	XXH3_state_t *whole;	 /* block 0: one sum over everything */
};

static uint32_t code_of(int err)
{
	switch (-err) {
	case ENOENT:
		return WR_MISSING;
	case ENOTDIR:
	case ELOOP:
	case EISDIR:
	case ENXIO:
		return WR_TYPE;
	case EACCES:
	case EPERM:
		return WR_PERMISSION;
	case EIO:
		return WR_IO;
	default:
		return WR_OTHER;
	}
}

static struct list_job *job_new(uint32_t id, bool sums)
{
	struct list_job *j = calloc(1, sizeof(*j));
	if (!j)
		return NULL;
	j->id = id;
	j->sums = sums;
	j->fd = -1;
	return j;
}

void list_free(struct list_job *j)
{
	if (!j)
		return;
	if (j->fd >= 0)
		close(j->fd);
	XXH3_freeState(j->whole);
	free(j->names);
	free(j->path);
	free(j);
}

static bool hidden(const struct list_job *j, const char *name, bool is_dir)
{
	char path[PATH_LONGEST + PATH_NAME_MAX + 2];
	if (!*j->path && strcmp(name, PATH_PRIVATE) == 0)
		return true;
	if (!j->filter || !j->filter->n)
		return false;
	return path_join(path, sizeof(path), j->path, name) || filter_excluded(j->filter, path, is_dir);
}

/* For the filter. */
static bool is_directory(const struct list_job *j, const struct dirent *e)
{
	struct stat st;
	if (e->d_type != DT_UNKNOWN || !j->filter || !j->filter->n)
		return e->d_type == DT_DIR;
	return node_stat(j->fd, e->d_name, &st) == 0 && S_ISDIR(st.st_mode);
}

static int read_names(struct list_job *j)
{
	size_t cap = 0;
	int copy = openat(j->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	if (!d) {
		int err = -errno;
		if (copy >= 0)
			close(copy);
		return err;
	}
	int err = 0;
	for (struct dirent *e; !err && (e = readdir(d));) {
		size_t n = strlen(e->d_name) + 1;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    hidden(j, e->d_name, is_directory(j, e)))
			continue;
		if (j->len + n > cap) {
			cap = cap ? cap * 2 : 4096;
			char *v = cap <= LIST_NAMES_MAX ? realloc(j->names, cap) : NULL;
			if (!v) {
				err = -ENOMEM;
				break;
			}
			j->names = v;
		}
		memcpy(j->names + j->len, e->d_name, n);
		j->len += n;
	}
	closedir(d);
	return err;
}

static int begin_directory(struct list_job *j, int rootfd)
{
	j->fd = path_open(rootfd, j->path, O_RDONLY | O_DIRECTORY);
	return j->fd < 0 ? j->fd : read_names(j);
}

/* Say whether the directory's owner, who we are, may not look at its entries. */
static bool closed(int dirfd)
{
	struct stat st;
	return fstat(dirfd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & S_IXUSR) == 0;
}

/* One entry itself, of whatever type. */
static int begin_single(struct list_job *j, int rootfd)
{
	struct stat st;
	j->fd = path_open_parent(rootfd, j->path, &j->single);
	if (j->fd < 0)
		return j->fd;
	int err = node_stat(j->fd, j->single, &st);
	if (!err && j->filter && j->filter->n && filter_excluded(j->filter, j->path, S_ISDIR(st.st_mode)))
		return -ENOENT;
	return err;
}

/* Get the permission for the directory that the entries are in. */
static void reach_entries(const struct list_job *j)
{
	char *parent = j->single ? strndup(j->path, path_parent_len(j->path)) : NULL;
	if (!j->single || parent)
		reach_for(j->reach, j->single ? parent : j->path);
	free(parent);
}

static int begin_reaching(struct list_job *j, int (*begin)(struct list_job *, int), int rootfd)
{
	if (j->fd >= 0)
		close(j->fd);
	reach_entries(j);
	int err = begin(j, rootfd);
	reach_end(j->reach);
	return err;
}

int list_begin(struct list_job **out, int rootfd, const struct filter *filter, struct reach *reach, struct buf *payload)
{
	uint32_t id = buf_get_u32(payload);
	const char *path = buf_get_str(payload, NULL);
	uint8_t single = buf_get_u8(payload);
	*out = NULL;
	if (buf_end(payload) || single > 1 || !path_valid(path))
		return E_PROTO;
	struct list_job *j = job_new(id, false);
	if (!j || !(j->path = strdup(path))) {
		list_free(j);
		return -ENOMEM;
	}
	j->filter = filter;
	int (*begin)(struct list_job *, int) = single ? begin_single : begin_directory;
	int err = begin(j, rootfd);
	j->reach = reach;
	j->closed = reach && (err == -EACCES || (!err && closed(j->fd)));
	if (j->closed && err)
		err = begin_reaching(j, begin, rootfd);
	j->code = err ? code_of(err) : 0;
	*out = j;
	return 0;
}

int sums_begin(struct list_job **out, int rootfd, const struct filter *filter, struct reach *reach, struct buf *payload)
{
	struct wsums_req q;
	struct stat st;
	*out = NULL;
	if (wsums_req_get(payload, &q) || !*q.path)
		return E_PROTO;
	struct list_job *j = job_new(q.id, true);
	if (!j)
		return -ENOMEM;
	j->q = q;
	j->q.path = "";
	j->fd = filter && filter_excluded(filter, q.path, false) ? -ENOENT : node_open_path(rootfd, q.path, O_RDONLY, &st);
	if (j->fd == -EACCES && reach) {
		if (reach_for(reach, q.path) > 0)
			j->fd = node_open_path(rootfd, q.path, O_RDONLY, &st);
		reach_end(reach);
	}
	*out = j;
	if (j->fd < 0) {
		j->code = code_of(j->fd);
		j->fd = -1;
		return 0;
	}
	j->size = (uint64_t)st.st_size;
	j->end = q.len > j->size || q.off > j->size - q.len ? j->size : q.off + q.len;
	j->off = q.off < j->end ? q.off : j->end;
	if (!q.block) {
		uint64_t seed;
		memcpy(&seed, q.key, 8);
		j->whole = XXH3_createState();
		if (j->whole)
			XXH3_128bits_reset_withSeed(j->whole, seed);
		else
			j->code = WR_OTHER;
	}
	return 0;
}

/* Read the attributes of an entry that its owner, who we are, may not read. */
static int read_reaching(struct list_job *j, const char *name, struct buf *set)
{
	char path[PATH_LONGEST + PATH_NAME_MAX + 2];
	unsigned before = j->reach->n;
	bool itself = j->single || strcmp(name, ".") == 0;
	int err = itself ? 0 : path_join(path, sizeof(path), j->path, name);
	if (!err && reach_for(j->reach, itself ? j->path : path) > 0)
		err = node_xattrs_read(j->fd, name, set);
	reach_back(j->reach, before);
	return err;
}

/* Digest of an entry's attributes; entries are reached by name, so that devices and links are not opened. mode is the one it has in truth: an ACL
 * that was read while its owner had more permissions tells those. */
static uint64_t digest_of(struct list_job *j, const char *name, mode_t mode)
{
	struct buf set;
	uint64_t d = 0;
	buf_init(&set, XATTR_SET_MAX);
	int err = node_xattrs_read(j->fd, name, &set);
	if (err == -EACCES && j->reach)
		err = read_reaching(j, name, &set);
	if (!err && geteuid() != 0)
		xattrs_owner(set.data, set.len, mode);
	if (!err)
		d = xattrs_digest(set.data, set.len);
	buf_release(&set);
	return d;
}

/* Append entry name of the job's directory under the name shown; mode: that it has in truth, or 0. Returns whether it was there. */
static bool put_entry(struct list_job *j, struct buf *out, const char *name, const char *shown, mode_t mode)
{
	struct stat st;
	char target[PATH_MAX + 1];
	struct wentry e = {.name = shown, .target = ""};
	if (node_stat(j->fd, name, &st))
		return false; /* gone meanwhile */
	if (mode)
		st.st_mode = mode;
	e.attr = (struct wattr){
	    st.st_mode, st.st_uid, st.st_gid, {st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec}};
	e.size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	e.ino = st.st_ino;
	e.nlink = (uint32_t)st.st_nlink;
	e.rdev = S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? st.st_rdev : 0;
	e.blocks = S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks : 0;
	e.xdigest = digest_of(j, name, st.st_mode);
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(j->fd, name, target, PATH_MAX);
		if (n < 0)
			return false;
		target[n] = 0;
		e.target = target;
	}
	wentry_put(out, &e);
	return true;
}

static int step_list(struct list_job *j, struct buf *out)
{
	struct wlisting l = {.id = j->id, .code = j->code, .last = j->code != 0};
	struct stat self = {0};
	wlisting_put(out, &l);
	if (j->code)
		return out->err;
	if (j->closed) {
		if (!j->single)
			fstat(j->fd, &self);
		reach_entries(j);
	}
	if (!j->begun)
		l.count += put_entry(j, out, j->single ? j->single : ".", ".", self.st_mode);
	j->begun = true;
	for (unsigned i = 0; j->at < j->len && out->len < PIECE_BYTES && i < PIECE_ENTRIES; i++) {
		l.count += put_entry(j, out, j->names + j->at, j->names + j->at, 0);
		j->at += strlen(j->names + j->at) + 1;
	}
	if (j->closed)
		reach_end(j->reach);
	l.last = j->at == j->len;
	/* the head again, now with what follows it */
	out->data[8] = l.last;
	buf_set_u32(out, 9, l.count);
	return out->err ? out->err : !l.last;
}

/* Where data begins at or behind off: what lies before it is a hole. */
static uint64_t next_data(const struct list_job *j, uint64_t off)
{
	off_t d = lseek(j->fd, (off_t)off, SEEK_DATA);
	if (d >= 0)
		return (uint64_t)d;
	return errno == ENXIO ? UINT64_MAX : off;
}

/* Sum blocks until enough was read. A block that is wholly a hole is not read: its sums are zero. */
static int step_blocks(struct list_job *j, struct wsums *s, struct buf *out, uint8_t *chunk)
{
	static const uint8_t none[16];
	uint64_t left = PIECE_READ, data = next_data(j, j->off);
	int err = 0;
	while (!err && j->off < j->end && left > 0 && s->count < 8192) {
		size_t n = j->end - j->off < j->q.block ? (size_t)(j->end - j->off) : j->q.block;
		uint8_t strong[16];
		if (data < j->off)
			data = next_data(j, j->off);
		if (data >= j->off + n) {
			wsum_put(out, 0, none);
			s->count++;
			j->off += n;
			continue;
		}
		left -= left < n ? left : n;
		err = fio_pread(j->fd, chunk, n, (off_t)j->off);
		if (err)
			break;
		wsum_strong(strong, j->q.key, chunk, n);
		wsum_put(out, wsum_weak(chunk, n), strong);
		s->count++;
		j->off += n;
	}
	return err;
}

/* One sum over all; zero if nothing but a hole is there. */
static int step_whole(struct list_job *j, struct wsums *s, struct buf *out, uint8_t *chunk)
{
	static const uint8_t none[16];
	if (j->off == j->q.off && j->off < j->end && next_data(j, j->off) >= j->end) {
		j->off = j->end;
		wsum_put(out, 0, none);
		s->count = 1;
		return 0;
	}
	uint64_t stop = j->off + PIECE_READ;
	int err = 0;
	while (!err && j->off < j->end && j->off < stop) {
		size_t n = j->end - j->off < CHUNK ? (size_t)(j->end - j->off) : CHUNK;
		if (next_data(j, j->off) >= j->off + n) /* would fill the page cache with nothing */
			memset(chunk, 0, n);
		else
			err = fio_pread(j->fd, chunk, n, (off_t)j->off);
		if (!err)
			XXH3_128bits_update(j->whole, chunk, n);
		j->off += n;
	}
	if (!err && j->off >= j->end) {
		XXH128_canonical_t c;
		XXH128_canonicalFromHash(&c, XXH3_128bits_digest(j->whole));
		wsum_put(out, 0, c.digest);
		s->count = 1;
	}
	return err;
}

static int step_sums(struct list_job *j, struct buf *out)
{
	struct wsums s = {.id = j->id, .code = j->code, .size = j->size};
	struct buf head;
	uint8_t *chunk = j->code ? NULL : malloc(CHUNK);
	s.first = j->q.block ? j->off / j->q.block : 0;
	wsums_put(out, &s);
	size_t after = out->len;
	if (!j->code && !chunk)
		return -ENOMEM;
	int err = j->code ? 0 : j->q.block ? step_blocks(j, &s, out, chunk) : step_whole(j, &s, out, chunk);
	free(chunk);
	if (err) { /* became shorter, or cannot be read: the sender asks again or sends everything */
		out->len = after;
		s.count = 0;
		s.code = err == -ENODATA ? WR_MISMATCH : code_of(err);
	}
	s.last = s.code || j->off >= j->end;
	buf_init(&head, 64);
	wsums_put(&head, &s);
	if (!head.err && !out->err)
		memcpy(out->data, head.data, head.len);
	err = head.err ? head.err : out->err;
	buf_release(&head);
	return err ? err : !s.last;
}

int list_step(struct list_job *j, struct buf *out, enum frame_type *type)
{
	buf_clear(out);
	*type = j->sums ? FT_SUMSET : FT_LISTING;
	return j->sums ? step_sums(j, out) : step_list(j, out);
}
