/* SPDX-License-Identifier: BSD-2-Clause
 * Times of directories that a kill must not lose: see touched.h. An entry: u32 bytes behind this number, u64 serial, u64 inode,
 * i64 seconds, u32 nanoseconds, the path, u64 XXH3-64 of all before it. */
#include "config.h"
#include "replicator/module/touched.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/buf.h"
#include "proto/fileio.h"
#include "proto/path.h"

#define FIXED (4 + 8 + 8 + 8 + 4)

struct entry {
	uint64_t serial, ino;
	struct jtime mtime;
	const char *path; /* not terminated */
	size_t len, size; /* bytes of path, of the entry */
};

static bool entry_get(const uint8_t *data, size_t n, struct entry *e)
{
	struct buf b;
	buf_view(&b, data, n);
	size_t rest = buf_get_u32(&b);
	if (b.err || rest < FIXED - 4 + 8 || rest > n - 4)
		return false;
	e->size = rest + 4;
	e->serial = buf_get_u64(&b);
	e->ino = buf_get_u64(&b);
	e->mtime.sec = (int64_t)buf_get_u64(&b);
	e->mtime.nsec = buf_get_u32(&b);
	e->len = e->size - FIXED - 8;
	e->path = (const char *)data + FIXED;
	buf_get(&b, e->len);
	return buf_get_u64(&b) == XXH3_64bits(data, e->size - 8);
}

static int open_dir(int rootfd, struct reach *reach, const char *path)
{
	int fd = path_open(rootfd, path, O_PATH | O_DIRECTORY);
	if (fd == -EACCES && reach) {
		reach_for(reach, path);
		fd = path_open(rootfd, path, O_PATH | O_DIRECTORY);
		reach_end(reach);
	}
	return fd;
}

static void set_back(int rootfd, struct reach *reach, const struct entry *e)
{
	char path[TOUCHED_PATH + 1];
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = e->mtime.sec, .tv_nsec = e->mtime.nsec}};
	struct stat st;
	if (e->len > TOUCHED_PATH)
		return;
	memcpy(path, e->path, e->len);
	path[e->len] = 0;
	int fd = path_valid(path) ? open_dir(rootfd, reach, path) : -1;
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_ino == e->ino && utimensat(fd, ".", ts, AT_SYMLINK_NOFOLLOW))
		utimensat(fd, "", ts, AT_EMPTY_PATH);
	close(fd);
}

int touched_open(struct touched *t, int dirfd)
{
	*t = (struct touched){.serial = 1};
	t->fd = fio_prealloc(dirfd, "touched", TOUCHED_SIZE, 0600);
	return t->fd < 0 ? t->fd : 0;
}

void touched_close(struct touched *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

/* Begin anew behind whatever the file holds. */
void touched_forget(struct touched *t)
{
	static const uint8_t none[4];
	if (t->fd >= 0 && t->used)
		fio_pwrite(t->fd, none, sizeof(none), 0);
	t->serial++;
	t->used = 0;
}

void touched_restore(struct touched *t, int rootfd, struct reach *reach)
{
	uint8_t *data = malloc(TOUCHED_SIZE);
	size_t starts[TOUCHED_SIZE / (FIXED + 8)], n = 0, at = 0;
	struct entry e, first = {0};
	if (data && fio_pread(t->fd, data, TOUCHED_SIZE, 0) == 0)
		while (at < TOUCHED_SIZE && entry_get(data + at, TOUCHED_SIZE - at, &e)) {
			first = n ? first : e;
			if (e.serial != first.serial)
				break;
			starts[n++] = at;
			at += e.size;
		}
	/* of several entries of one directory the first has what it had before */
	while (n > 0 && entry_get(data + starts[n - 1], TOUCHED_SIZE - starts[n - 1], &e)) {
		set_back(rootfd, reach, &e);
		n--;
	}
	t->serial = first.serial + 1;
	t->used = 1;
	touched_forget(t);
	free(data);
}

bool touched_full(const struct touched *t)
{
	return t->used + TOUCHED_ENTRY > TOUCHED_SIZE;
}

void touched_note(struct touched *t, const char *path, size_t len, uint64_t ino, struct jtime mtime)
{
	uint8_t entry[TOUCHED_ENTRY];
	struct buf b = {.data = entry, .cap = sizeof(entry), .max = sizeof(entry)};
	if (t->fd < 0 || len > TOUCHED_PATH || touched_full(t))
		return;
	buf_put_u32(&b, (uint32_t)(FIXED - 4 + len + 8));
	buf_put_u64(&b, t->serial);
	buf_put_u64(&b, ino);
	buf_put_u64(&b, (uint64_t)mtime.sec);
	buf_put_u32(&b, mtime.nsec);
	buf_put(&b, path, len);
	buf_put_u64(&b, XXH3_64bits(entry, b.len));
	if (!b.err && fio_pwrite(t->fd, entry, b.len, (off_t)t->used) == 0)
		t->used += b.len;
}
