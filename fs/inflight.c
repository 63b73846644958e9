/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/filemap.h"
#include "proto/jrec.h"

#define MAGIC      0x31494c464e49ull /* "INFLI1" */
#define HEAD_SIZE  4096u
#define OP_SIZE    8192u
#define DIRTY_SIZE 512u
#define FILE_SIZE  (HEAD_SIZE + (size_t)INFLIGHT_OPS * OP_SIZE + (size_t)INFLIGHT_DIRTY * DIRTY_SIZE)

/* On the page; type is stored last and cleared first. */
struct op_slot {
	_Atomic uint32_t type;
	uint32_t rflags;
	uint64_t seq, ino, ino2;
	uint32_t nlink2, mode;
	uint32_t len, len2; /* bytes of the paths, which follow one another, each with a NUL */
	uint32_t cut;
	char data[OP_SIZE - 60];
};

struct dirty_slot {
	_Atomic uint32_t used;
	uint32_t len;
	uint64_t seq, ino;
	uint32_t cut;
	char path[DIRTY_SIZE - 28];
};
_Static_assert(sizeof(struct op_slot) <= OP_SIZE, "slot");
_Static_assert(sizeof(struct dirty_slot) <= DIRTY_SIZE, "slot");

/* The first page. */
struct head {
	uint64_t magic;
	_Atomic uint32_t overflow;
};

struct inflight {
	int fd;
	struct filemap *file;
	uint8_t *map; /* where it begins */
	void (*failed)(void *arg);
	void *arg;
	_Atomic unsigned told; /* of how many failures of the map */
	pthread_mutex_t lock;
	/* protected by lock */
	bool op_taken[INFLIGHT_OPS];
	uint32_t *free; /* stack of free dirty entries */
	uint32_t nfree;
};

static struct head *head_of(struct inflight *f)
{
	return (struct head *)f->map;
}

bool inflight_overflowed(struct inflight *f)
{
	return atomic_load(&head_of(f)->overflow) != 0 || filemap_failed(f->file);
}

/* Not told until fn has returned: who comes meanwhile does not go on before that either. */
static void look_at_map(struct inflight *f)
{
	unsigned times = filemap_times(f->file);

	if (times == atomic_load_explicit(&f->told, memory_order_relaxed) || !f->failed)
		return;
	f->failed(f->arg);
	atomic_store(&f->told, times);
}

static void overflow(struct inflight *f)
{
	if (!inflight_overflowed(f))
		atomic_store(&head_of(f)->overflow, 1);
	look_at_map(f);
}

static struct op_slot *op_at(struct inflight *f, int n)
{
	return (struct op_slot *)(f->map + HEAD_SIZE + (size_t)n * OP_SIZE);
}

static struct dirty_slot *dirty_at(struct inflight *f, uint32_t n)
{
	return (struct dirty_slot *)(f->map + HEAD_SIZE + (size_t)INFLIGHT_OPS * OP_SIZE + (size_t)n * DIRTY_SIZE);
}

/* What was noted while it could not be written is lost. */
static void mended(void *map, const void *was)
{
	struct head *h = map;

	(void)was;
	atomic_store(&h->overflow, 1);
}

void inflight_on_failure(struct inflight *f, void (*fn)(void *arg), void *arg)
{
	f->failed = fn;
	f->arg = arg;
	look_at_map(f);
}

int inflight_open(struct inflight **out, int dirfd)
{
	struct inflight *f = calloc(1, sizeof(*f));
	uint64_t magic = 0;
	int err;

	*out = NULL;
	if (!f)
		return -ENOMEM;
	pthread_mutex_init(&f->lock, NULL);
	f->free = calloc(INFLIGHT_DIRTY, sizeof(*f->free));
	f->fd = openat(dirfd, "inflight", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (!f->free || f->fd < 0)
		goto fail;
	if (pread(f->fd, &magic, sizeof(magic), 0) != sizeof(magic) || magic != MAGIC) {
		if (ftruncate(f->fd, 0) < 0)
			goto fail;
	}
	if (ftruncate(f->fd, (off_t)FILE_SIZE) < 0)
		goto fail;
	/* allocated in full: a store into a hole of a full disk would fail */
	if (fallocate(f->fd, 0, 0, (off_t)FILE_SIZE) < 0 && errno != EOPNOTSUPP)
		goto fail;
	err = filemap_write(&f->file, f->fd, FILE_SIZE, mended);
	if (err) {
		errno = -err;
		goto fail;
	}
	f->map = filemap_at(f->file);
	magic = MAGIC;
	memcpy(f->map, &magic, sizeof(magic));
	for (uint32_t i = INFLIGHT_DIRTY; i-- > 0;)
		f->free[f->nfree++] = i;
	*out = f;
	return 0;
fail:
	err = errno ? -errno : -ENOMEM;
	if (f->fd >= 0)
		close(f->fd);
	free(f->free);
	free(f);
	return err;
}

void inflight_close(struct inflight *f)
{
	if (!f)
		return;
	filemap_close(f->file);
	close(f->fd);
	pthread_mutex_destroy(&f->lock);
	free(f->free);
	free(f);
}

static void each_op(struct inflight *f, int n, void (*fn)(void *, const struct inflight_entry *), void *arg)
{
	struct op_slot *s = op_at(f, n);
	struct inflight_entry e = {.type = atomic_load(&s->type)};

	if (!e.type || s->len >= sizeof(s->data) || s->len2 >= sizeof(s->data) - s->len - 1)
		return;
	s->data[s->len] = '\0';
	s->data[s->len + 1 + s->len2] = '\0';
	e.rflags = s->rflags;
	e.seq = s->seq;
	e.ino = s->ino;
	e.ino2 = s->ino2;
	e.nlink2 = s->nlink2;
	e.mode = s->mode;
	e.cut = s->cut != 0;
	e.path = s->data;
	e.path2 = s->data + s->len + 1;
	fn(arg, &e);
}

static void each_dirty(struct inflight *f, uint32_t n, void (*fn)(void *, const struct inflight_entry *), void *arg)
{
	struct dirty_slot *s = dirty_at(f, n);
	struct inflight_entry e = {.type = JT_CONTENT, .path2 = ""};

	if (!atomic_load(&s->used) || s->len >= sizeof(s->path))
		return;
	s->path[s->len] = '\0';
	e.seq = s->seq;
	e.ino = s->ino;
	e.cut = s->cut != 0;
	e.path = s->path;
	fn(arg, &e);
}

/* Holes of the file, and what is allocated and was never written, are skipped, so that a start does not read 36 MiB. */
void inflight_each(struct inflight *f, void (*fn)(void *arg, const struct inflight_entry *e), void *arg)
{
	off_t dirty = (off_t)(HEAD_SIZE + (size_t)INFLIGHT_OPS * OP_SIZE), at = HEAD_SIZE, end;

	while (at < (off_t)FILE_SIZE) {
		off_t data = lseek(f->fd, at, SEEK_DATA);

		if (data < 0)
			break; /* ENXIO: only holes follow */
		end = lseek(f->fd, data, SEEK_HOLE);
		if (end < 0 || end > (off_t)FILE_SIZE)
			end = (off_t)FILE_SIZE;
		for (at = data; at < end && at < dirty; at += OP_SIZE) {
			at -= (at - HEAD_SIZE) % OP_SIZE;
			if (at >= HEAD_SIZE)
				each_op(f, (int)((at - HEAD_SIZE) / OP_SIZE), fn, arg);
		}
		for (at = data > dirty ? data : dirty; at < end; at += DIRTY_SIZE)
			each_dirty(f, (uint32_t)((at - dirty) / DIRTY_SIZE), fn, arg);
		at = end;
	}
}

/* Without a store where it can be: going through 36 MiB of the map would fill the page cache. What is allocated stays so. */
void inflight_reset(struct inflight *f)
{
	uint64_t magic = MAGIC;

	if (fallocate(f->fd, FALLOC_FL_ZERO_RANGE, 0, (off_t)FILE_SIZE) == 0)
		memcpy(f->map, &magic, sizeof(magic));
	else
		memset(f->map + sizeof(magic), 0, FILE_SIZE - sizeof(magic));
	look_at_map(f);
}

int inflight_op_alloc(struct inflight *f)
{
	int op = -1;

	pthread_mutex_lock(&f->lock);
	for (int n = 0; n < INFLIGHT_OPS && op < 0; n++)
		if (!f->op_taken[n])
			op = n;
	if (op >= 0)
		f->op_taken[op] = true;
	pthread_mutex_unlock(&f->lock);
	return op;
}

void inflight_op_free(struct inflight *f, int op)
{
	if (op < 0)
		return;
	pthread_mutex_lock(&f->lock);
	f->op_taken[op] = false;
	pthread_mutex_unlock(&f->lock);
}

/* Shorten a path to a directory above it that fits. */
static size_t fit(const char *path, size_t n, size_t max, uint32_t *cut)
{
	if (n <= max)
		return n;
	*cut = 1;
	for (n = max; n > 0 && path[n] != '/'; n--)
		;
	return n;
}

void inflight_op_set(struct inflight *f, int op, const struct inflight_entry *e, size_t n, size_t n2)
{
	struct op_slot *s;

	if (op < 0) {
		overflow(f);
		return;
	}
	s = op_at(f, op);
	s->cut = 0;
	n = fit(e->path, n, sizeof(s->data) / 2 - 2, &s->cut);
	n2 = e->path2 ? fit(e->path2, n2, sizeof(s->data) / 2 - 2, &s->cut) : 0;
	s->rflags = e->rflags;
	s->seq = e->seq;
	s->ino = e->ino;
	s->ino2 = e->ino2;
	s->nlink2 = e->nlink2;
	s->mode = e->mode;
	s->len = (uint32_t)n;
	s->len2 = (uint32_t)n2;
	memcpy(s->data, e->path, n);
	if (e->path2)
		memcpy(s->data + n + 1, e->path2, n2);
	atomic_store_explicit(&s->type, e->type, memory_order_release);
	look_at_map(f);
}

void inflight_op_clear(struct inflight *f, int op)
{
	if (op >= 0)
		atomic_store_explicit(&op_at(f, op)->type, 0, memory_order_release);
}

int inflight_dirty_set(struct inflight *f, uint64_t ino, uint64_t seq, const char *path, size_t n)
{
	struct dirty_slot *s;
	uint32_t entry;

	pthread_mutex_lock(&f->lock);
	if (!f->nfree) {
		pthread_mutex_unlock(&f->lock);
		overflow(f);
		return -1;
	}
	entry = f->free[--f->nfree];
	pthread_mutex_unlock(&f->lock);
	s = dirty_at(f, entry);
	s->cut = 0;
	n = fit(path, n, sizeof(s->path) - 1, &s->cut);
	s->seq = seq;
	s->ino = ino;
	s->len = (uint32_t)n;
	memcpy(s->path, path, n);
	atomic_store_explicit(&s->used, 1, memory_order_release);
	look_at_map(f);
	return (int)entry;
}

void inflight_dirty_clear(struct inflight *f, int entry)
{
	if (entry < 0)
		return;
	atomic_store_explicit(&dirty_at(f, (uint32_t)entry)->used, 0, memory_order_release);
	pthread_mutex_lock(&f->lock);
	f->free[f->nfree++] = (uint32_t)entry;
	pthread_mutex_unlock(&f->lock);
}
