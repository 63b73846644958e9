/* SPDX-License-Identifier: BSD-2-Clause
 * Dirty extents and CONTENT records; the states stand in dirty.h, the rules in docs/ARCHITECTURE.md (Rule 2). */
#include "config.h"

#include "fs/dirty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/drift.h"
#include "fs/inflight.h"
#include "fs/inodefd.h"
#include "fs/op.h"
#include "fs/silly.h"
#include "proto/clock.h"

struct dirty {
	pthread_t thread;
	bool started;
	pthread_cond_t wake;
	/* tree.lock */
	TAILQ_HEAD(, iopen) list;
	size_t count;
	bool stop;
};

#define HANDLE_BYTES 128
#define BATCH        256 /* inodes recorded per round of the thread */

/* --- open state ------------------------------------------------------------------------------ */

static struct iopen *iopen_get_locked(struct inode *i)
{
	struct iopen *io = i->open;

	if (!io) {
		io = calloc(1, sizeof(*io));
		if (!io)
			return NULL;
		pthread_mutex_init(&io->lock, NULL);
		extent_init(&io->extents);
		io->inode = i;
		io->entry = -1;
		i->open = io;
	}
	io->pins++;
	return io;
}

static void copies_free(struct jcopy *v, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		free((char *)v[k].src_path);
	free(v);
}

static void iopen_put_locked(struct tfs *fs, struct iopen *io)
{
	struct inode *i = io->inode;

	if (--io->pins > 0 || io->listed)
		return;
	i->open = NULL;
	extent_release(&io->extents);
	copies_free(io->copies, io->ncopies);
	pthread_mutex_destroy(&io->lock);
	free(io);
	tree_pin_locked(i);
	tree_unpin_locked(&fs->tree, i);
}

struct iopen *iopen_get(struct tfs *fs, struct inode *i)
{
	struct iopen *io;

	pthread_mutex_lock(&fs->tree.lock);
	io = iopen_get_locked(i);
	pthread_mutex_unlock(&fs->tree.lock);
	return io;
}

void iopen_put(struct tfs *fs, struct iopen *io)
{
	pthread_mutex_lock(&fs->tree.lock);
	iopen_put_locked(fs, io);
	pthread_mutex_unlock(&fs->tree.lock);
}

/* --- handles ---------------------------------------------------------------------------------- */

struct ofile *ofile_open_locked(struct tfs *fs, struct inode *i, int fd, int flags)
{
	struct ofile *f = calloc(1, sizeof(*f));
	struct iopen *io = f ? iopen_get_locked(i) : NULL;

	if (!io) {
		free(f);
		return NULL;
	}
	f->io = io;
	f->fd = fd;
	f->refs = 1;
	f->writer = (flags & O_ACCMODE) != O_RDONLY;
	f->append = f->appending = flags & O_APPEND && !fs->exclusive;
	LIST_INSERT_HEAD(&io->files, f, link);
	if (f->writer) {
		pthread_mutex_lock(&io->lock);
		io->writers++;
		pthread_mutex_unlock(&io->lock);
	}
	return f;
}

struct ofile *ofile_borrow_locked(struct inode *i, enum ofile_kind kind)
{
	struct ofile *f;

	if (!i->open)
		return NULL;
	LIST_FOREACH(f, &i->open->files, link) {
		if ((kind != OFILE_ANY && !f->writer) || (kind == OFILE_PLACES && f->append))
			continue;
		f->refs++;
		return f;
	}
	return NULL;
}

void ofile_return(struct tfs *fs, struct ofile *f)
{
	int fd = -1;

	pthread_mutex_lock(&fs->tree.lock);
	if (--f->refs == 0) {
		fd = f->fd;
		LIST_REMOVE(f, link);
		iopen_put_locked(fs, f->io);
		free(f);
	}
	pthread_mutex_unlock(&fs->tree.lock);
	if (fd >= 0)
		close(fd);
}

void ofile_release(struct tfs *fs, struct ofile *f)
{
	struct iopen *io = f->io;
	bool last;

	if (f->writer) {
		pthread_mutex_lock(&io->lock);
		last = --io->writers == 0 && (io->unclosed || io->extents.n > 0);
		pthread_mutex_unlock(&io->lock);
		if (last)
			dirty_emit(fs, io, f->fd, 0);
	}
	ofile_return(fs, f);
}

/* --- marking ----------------------------------------------------------------------------------- */

/* First change since the last record: note the inode where a successor of this process will look. */
static void note(struct tfs *fs, struct iopen *io)
{
	struct worker *w = worker_get(fs);
	int n;

	drift_check(fs, w, io->inode);
	pthread_mutex_lock(&fs->tree.lock);
	pthread_mutex_lock(&io->lock);
	if (!io->noted) {
		drift_begin_locked(fs, io->inode);
		n = w ? tree_path_locked(&fs->tree, io->inode, NULL, w->path2) : -ENOMEM;
		io->noted = true;
		io->entry = inflight_dirty_set(fs->inflight, io->inode->ino, journal_seq(fs->journal),
		    n >= 0 ? w->path2 : "", n >= 0 ? (size_t)n : 0);
	}
	pthread_mutex_unlock(&io->lock);
	if (!io->listed) {
		io->listed = true;
		TAILQ_INSERT_TAIL(&fs->dirty->list, io, link);
		fs->dirty->count++;
	}
	pthread_mutex_unlock(&fs->tree.lock);
}

void dirty_begin(struct tfs *fs, struct iopen *io)
{
	bool noted;

	pthread_mutex_lock(&io->lock);
	io->writing++;
	noted = io->noted;
	pthread_mutex_unlock(&io->lock);
	if (!noted)
		note(fs, io);
}

void dirty_end(struct tfs *fs, struct iopen *io, uint64_t start, uint64_t end)
{
	(void)fs;
	pthread_mutex_lock(&io->lock);
	if (start < end)
		extent_add(&io->extents, start, end);
	io->writing--;
	pthread_mutex_unlock(&io->lock);
}

/* What is refused is refused before anything is done. */
static bool may_be_done(int r)
{
	return r == 0 || r == -ENOSPC || r == -EDQUOT || op_in_doubt(r, 0);
}

void dirty_end_truncate(struct tfs *fs, struct iopen *io, int r, uint64_t size)
{
	dirty_end(fs, io, size, may_be_done(r) ? EXTENT_INF : size);
}

bool dirty_has_writer(struct iopen *io)
{
	bool has;

	pthread_mutex_lock(&io->lock);
	has = io->writers > 0;
	pthread_mutex_unlock(&io->lock);
	return has;
}

void dirty_copy(struct iopen *io, const struct jcopy *hint)
{
	pthread_mutex_lock(&io->lock);
	if (!io->copies)
		io->copies = calloc(JREC_COPIES, sizeof(*io->copies));
	if (io->copies && io->ncopies < JREC_COPIES) {
		struct jcopy *c = &io->copies[io->ncopies];

		*c = *hint;
		c->src_path = strdup(hint->src_path);
		if (c->src_path)
			io->ncopies++;
	}
	pthread_mutex_unlock(&io->lock);
}

/* --- recording --------------------------------------------------------------------------------- */

/* What the record needs from the file below, taken without our locks. */
struct facts {
	struct stat st;
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + HANDLE_BYTES];
	} u;
	bool handle;
};

static void facts_handle(struct facts *x, int fd)
{
	int mount;

	x->u.h.handle_bytes = HANDLE_BYTES;
	x->handle = name_to_handle_at(fd, "", &x->u.h, &mount, AT_EMPTY_PATH) == 0;
}

static void facts_get(struct facts *x, int fd)
{
	memset(&x->st, 0, sizeof(x->st));
	x->handle = false;
	if (fd < 0 || fstat(fd, &x->st) < 0) {
		x->st.st_nlink = 1;
		return;
	}
	if (x->st.st_nlink != 1)
		facts_handle(x, fd);
}

/* Fill the record from the open state, which becomes clean. Takes the extents. */
static void take_locked(struct tfs *fs, struct iopen *io, struct jrec *r)
{
	bool clean = io->writing == 0;

	extent_swap(&r->extents, &io->extents);
	r->ncopies = io->ncopies;
	for (unsigned k = 0; k < io->ncopies; k++)
		r->copies[k] = io->copies[k];
	io->ncopies = 0;
	io->unclosed = io->writers > 0;
	if (io->writers == 0)
		r->flags |= JF_CLOSED;
	if (clean && io->listed) {
		TAILQ_REMOVE(&fs->dirty->list, io, link);
		fs->dirty->count--;
		io->listed = false;
	}
}

/* An inode that has names, but none that we know (they were not looked up since the mount), goes by its handle. */
static void append_locked(struct tfs *fs, struct worker *w, struct inode *i, struct facts *x, int fd, struct jrec *r)
{
	int n = tree_path_locked(&fs->tree, i, NULL, w->path);

	r->ino = i->ino;
	r->size = (uint64_t)x->st.st_size;
	r->path = n > 0 ? w->path : "";
	if (n <= 0) {
		r->flags |= JF_UNLINKED;
		if (!x->handle && fd >= 0)
			facts_handle(x, fd);
	}
	if (x->handle) {
		r->handle_type = x->u.h.handle_type;
		r->handle = x->u.h.f_handle;
		r->handle_len = x->u.h.handle_bytes;
	}
	/* without any link nobody can see the bytes any more; one whose name is known was linked since it was looked at */
	if ((x->st.st_nlink > 0 || n > 0) && !i->gone)
		journal_append(fs->journal, r);
}

void dirty_emit(struct tfs *fs, struct iopen *io, int fd, uint16_t flags)
{
	struct worker *w = worker_get(fs);
	struct facts x;
	struct jrec *r;
	int entry = -1;
	bool clean = false;

	if (!w)
		return; /* stays dirty: the thread comes back to it */
	r = &w->rec;
	facts_get(&x, fd);
	jrec_init(r, JT_CONTENT);
	r->flags = flags;
	pthread_mutex_lock(&fs->tree.lock);
	pthread_mutex_lock(&io->lock);
	if (io->extents.n > 0 || (io->unclosed && io->writers == 0) || (io->listed && io->writing == 0)) {
		bool empty = io->extents.n == 0 && !(io->unclosed && io->writers == 0);
		bool unclosed = io->unclosed;

		take_locked(fs, io, r);
		if (empty)
			io->unclosed = unclosed; /* a change that failed: only the note goes */
		else
			append_locked(fs, w, io->inode, &x, fd, r);
		for (unsigned k = 0; k < r->ncopies; k++)
			free((char *)r->copies[k].src_path);
		if (io->writing == 0) {
			entry = io->entry;
			io->entry = -1;
			clean = io->noted;
			io->noted = false;
		}
	}
	pthread_mutex_unlock(&io->lock);
	pthread_mutex_unlock(&fs->tree.lock);
	inflight_dirty_clear(fs->inflight, entry);
	if (clean)
		drift_end(fs, io->inode);
	extent_release(&r->extents);
}

void dirty_nameless_locked(struct tfs *fs, struct worker *w, struct inode *i, int fd)
{
	struct facts x;

	facts_get(&x, fd);
	jrec_init(&w->rec, JT_CONTENT);
	append_locked(fs, w, i, &x, fd, &w->rec);
}

static void emit_any_fd(struct tfs *fs, struct iopen *io)
{
	struct ifd f;

	if (ifd_get(fs, io->inode, &f) < 0) {
		dirty_emit(fs, io, -1, 0);
		return;
	}
	dirty_emit(fs, io, f.fd, 0);
	ifd_put(fs, &f);
}

void dirty_emit_inode(struct tfs *fs, struct inode *i)
{
	struct iopen *io;

	pthread_mutex_lock(&fs->tree.lock);
	io = i->open && i->open->listed ? iopen_get_locked(i) : NULL;
	pthread_mutex_unlock(&fs->tree.lock);
	if (!io)
		return;
	emit_any_fd(fs, io);
	iopen_put(fs, io);
}

/* Record the inodes that are dirty now, a batch at a time. */
void dirty_emit_all(struct tfs *fs)
{
	struct iopen *v[BATCH], *io;
	size_t left = dirty_count(fs), n;

	while (left > 0) {
		n = 0;
		pthread_mutex_lock(&fs->tree.lock);
		while (n < BATCH && n < left && (io = TAILQ_FIRST(&fs->dirty->list))) {
			/* to the end, so that the next batch has others */
			TAILQ_REMOVE(&fs->dirty->list, io, link);
			TAILQ_INSERT_TAIL(&fs->dirty->list, io, link);
			io->pins++;
			v[n++] = io;
		}
		pthread_mutex_unlock(&fs->tree.lock);
		if (n == 0)
			return;
		for (size_t k = 0; k < n; k++) {
			emit_any_fd(fs, v[k]); /* NOLINT(clang-analyzer-unix.Malloc): each of v holds a pin of its own */
			iopen_put(fs, v[k]);
		}
		left -= n;
	}
}

size_t dirty_count(struct tfs *fs)
{
	size_t n;

	pthread_mutex_lock(&fs->tree.lock);
	n = fs->dirty->count;
	pthread_mutex_unlock(&fs->tree.lock);
	return n;
}

/* --- the thread -------------------------------------------------------------------------------- */

static void *dirty_thread(void *arg)
{
	struct tfs *fs = arg;

	pthread_mutex_lock(&fs->tree.lock);
	while (!fs->dirty->stop) {
		clock_wait(&fs->dirty->wake, &fs->tree.lock, clock_mono() + NS_PER_S);
		if (fs->dirty->stop)
			break;
		pthread_mutex_unlock(&fs->tree.lock);
		dirty_emit_all(fs);
		silly_settle(fs);
		tree_trim(&fs->tree);
		pthread_mutex_lock(&fs->tree.lock);
	}
	pthread_mutex_unlock(&fs->tree.lock);
	return NULL;
}

int dirty_start(struct tfs *fs)
{
	int r;

	fs->dirty = calloc(1, sizeof(*fs->dirty));
	if (!fs->dirty)
		return -ENOMEM;
	TAILQ_INIT(&fs->dirty->list);
	clock_cond_init(&fs->dirty->wake);
	r = pthread_create(&fs->dirty->thread, NULL, dirty_thread, fs);
	fs->dirty->started = r == 0;
	return -r;
}

void dirty_stop(struct tfs *fs)
{
	if (!fs->dirty)
		return;
	pthread_mutex_lock(&fs->tree.lock);
	fs->dirty->stop = true;
	pthread_cond_signal(&fs->dirty->wake);
	pthread_mutex_unlock(&fs->tree.lock);
	if (fs->dirty->started)
		pthread_join(fs->dirty->thread, NULL);
	dirty_emit_all(fs);
	pthread_cond_destroy(&fs->dirty->wake);
	free(fs->dirty);
	fs->dirty = NULL;
}
