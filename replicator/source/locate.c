/* SPDX-License-Identifier: BSD-2-Clause
 * Finding a file (locate.h). In this order, each verified by the inode number of what was opened:
 *
 * 1. the recorded path (the number may be another file's by now: reborn());
 * 2. the names that RENAME, LINK and UNLINK records ahead give it: first those of the window, then what follows in the journal, at
 *    most AHEAD_MAX records, and what is recorded within the next second;
 * 3. the file handle in the record, which the mount adds for files with several names;
 * 4. for those only, a walk of the tree. */
#include "config.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "proto/err.h"
#include "proto/path.h"
#include "replicator/source/follow.h"
#include "replicator/source/locate.h"

#define AHEAD_MAX  100000  /* records read behind the window for one file */
#define WALK_DEPTH 256
#define WHOLE_SIZE (64u << 10) /* bytes: files up to this are always sent whole, whichever version it is */
#define TICK_NS    1000000000u /* the kernel's clock for file times is behind by less than this; by more than a tick where a virtual machine is starved */
#define WAIT_STEP_NS 200000 /* between looks for a record that is being written */
#define WAIT_TRIES   5000   /* looks: one second */

/* Opening never waits for a FIFO's other end and leaves the access time alone where that is allowed. */
#define OPEN_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW)

static int verify(int fd, uint64_t ino, struct stat *st)
{
	int r = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, st) != 0)
		r = -errno;
	else if (st->st_ino != ino || !S_ISREG(st->st_mode))
		r = E_GONE;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

bool locate_is(int rootfd, const char *path, uint64_t ino)
{
	struct stat st;

	return path_stat(rootfd, path, &st) == 0 && st.st_ino == ino;
}

int locate_path(int rootfd, const char *path, uint64_t ino, struct stat *st)
{
	int fd = path_open(rootfd, path, OPEN_FLAGS | O_NOATIME);

	if (fd == -EPERM)
		fd = path_open(rootfd, path, OPEN_FLAGS);
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -ENXIO || fd == -ESTALE || fd == -ENODEV)
		return E_GONE;
	return verify(fd, ino, st);
}

/* Try every name, unless st is NULL. Returns a descriptor, E_GONE, or the error of one that is there. */
static int try_names(int rootfd, const struct follow_names *f, struct stat *st)
{
	int i, r = E_GONE;

	for (i = 0; i < f->n && r == E_GONE && st != NULL; i++)
		r = locate_path(rootfd, f->v[i], f->ino, st);
	return r;
}

static int ahead_window(const struct locate *l, struct follow_names *f, struct stat *st)
{
	size_t i;
	int r = E_GONE;

	for (i = l->next; l->w != NULL && i < window_count(l->w) && r == E_GONE && !f->gone; i++) {
		const struct wrec *e = window_at(l->w, i);
		struct follow_rec rec = {.type = e->type, .flags = e->flags, .nlink = e->nlink, .ino = e->ino, .ino2 = e->ino2,
		    .path = e->path, .path2 = e->path2};
		int changed = follow_step(f, &rec);

		if (changed < 0)
			return changed;
		if (changed > 0 && !f->gone)
			r = try_names(l->rootfd, f, st);
	}
	return r;
}

/* Take what follows in the journal until the file is found, is known to be gone, or there is no more for now. */
static int step_journal(const struct locate *l, struct jreader *jr, size_t *left, struct follow_names *f, struct stat *st)
{
	struct jrec rec;
	int r = E_GONE, got = 1;

	while (r == E_GONE && !f->gone && *left > 0 && (got = jreader_next(jr, &rec, NULL, NULL)) == 1) {
		struct follow_rec e = follow_rec_of(&rec);
		int changed = follow_step(f, &e);

		--*left;
		jrec_release(&rec);
		if (changed < 0)
			r = changed;
		else if (changed > 0 && !f->gone)
			r = try_names(l->rootfd, f, st);
	}
	return got < 0 ? got : r;
}

/* A rename that was done below and is not recorded yet hides the file from every name we know. The record comes within
 * moments: wait for it, because "not found" alone is no proof that the inode is gone. *cut is set when the end of the journal was
 * not reached. */
static int ahead_journal(const struct locate *l, struct follow_names *f, struct stat *st, bool *cut)
{
	size_t left = AHEAD_MAX, n = l->w == NULL ? 0 : window_count(l->w);
	struct timespec nap = {.tv_nsec = WAIT_STEP_NS};
	struct jreader *jr;
	int r, tries;

	if (l->jdirfd < 0)
		return E_GONE;
	r = jreader_open(&jr, l->jdirfd);
	if (r < 0)
		return r;
	r = jreader_seek(jr, n == 0 ? l->after : window_at(l->w, n - 1)->seq, NULL);
	if (r == 0)
		r = E_GONE;
	for (tries = 0; r == E_GONE && !f->gone && left > 0 && f->n > 0; tries++) {
		r = step_journal(l, jr, &left, f, st);
		if (r != E_GONE || f->gone)
			break;
		r = try_names(l->rootfd, f, st); /* what was renamed while we looked */
		if (st == NULL || r != E_GONE || tries == WAIT_TRIES || atomic_load(&jreader_head(jr)->writer_pid) == 0)
			break;
		nanosleep(&nap, NULL);
	}
	jreader_close(jr);
	*cut = left == 0;
	return r < 0 && r != E_GONE && r > -4096 ? r : r < 0 ? E_GONE : r;
}

static int by_handle(int rootfd, const struct jrec *rec, struct stat *st)
{
	union {
		struct file_handle h;
		uint8_t room[sizeof(struct file_handle) + 128];
	} u;
	int fd;

	if (rec->handle_len == 0 || rec->handle_len > 128)
		return E_GONE;
	u.h.handle_bytes = rec->handle_len;
	u.h.handle_type = rec->handle_type;
	memcpy(u.h.f_handle, rec->handle, rec->handle_len);
	fd = open_by_handle_at(rootfd, &u.h, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == EPERM || errno == EOPNOTSUPP || errno == EINVAL ? -EPERM : E_GONE;
	return verify(fd, rec->ino, st);
}

/* Search below directory fd (taken); path has the directory's own path and grows by what was found. */
static bool walk_name(int fd, uint64_t ino, int depth, char *path, size_t size)
{
	DIR *d = fdopendir(fd);
	size_t len = strlen(path);
	struct dirent *e;
	bool found = false;

	if (d == NULL) {
		close(fd);
		return false;
	}
	while (!found && (e = readdir(d)) != NULL) {
		bool maybe_dir = e->d_type == DT_DIR || e->d_type == DT_UNKNOWN;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || path_join(path, size, path, e->d_name) < 0)
			continue;
		found = e->d_ino == ino && e->d_type != DT_DIR && path_valid(path) && !path_name_silly(e->d_name);
		if (!found && maybe_dir && depth < WALK_DEPTH) {
			int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

			found = sub >= 0 && walk_name(sub, ino, depth + 1, path, size);
		}
		if (!found)
			path[len] = '\0';
	}
	closedir(d);
	return found;
}

bool locate_name(int rootfd, uint64_t ino, char *path, size_t size)
{
	int fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	path[0] = '\0';
	return fd >= 0 && walk_name(fd, ino, 0, path, size);
}

struct walk {
	const struct filter *filter;
	const struct inoset *set;
	int (*found)(void *arg, uint64_t ino, const char *path);
	void *arg;
	char path[PATH_LONGEST]; /* of the entry in hand */
};

/* The directory at w->path was not read, or not to its end. */
static int unread(struct walk *w, int err)
{
	return err == ENOENT || err == ENOTDIR || err == ELOOP ? 0 : w->found(w->arg, 0, w->path);
}

static int walk_aliases(struct walk *w, int fd, int depth);

static int enter(struct walk *w, int dirfd, const char *name, int depth)
{
	int fd = depth < WALK_DEPTH ? openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;

	if (fd >= 0)
		return walk_aliases(w, fd, depth + 1);
	return unread(w, depth < WALK_DEPTH ? errno : EMFILE);
}

static bool is_directory(int dirfd, const struct dirent *e)
{
	struct stat st;

	return e->d_type == DT_DIR || (e->d_type == DT_UNKNOWN && fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode));
}

/* Look at all entries of directory fd (taken), whose path is w->path. */
static int walk_aliases(struct walk *w, int fd, int depth)
{
	DIR *d = fdopendir(fd);
	size_t len = strlen(w->path);
	struct dirent *e;
	int r = 0;

	if (d == NULL) {
		r = unread(w, errno);
		close(fd);
		return r;
	}
	while (errno = 0, r == 0 && (e = readdir(d)) != NULL) {
		bool dir, named = e->d_type != DT_DIR && inoset_has(w->set, e->d_ino);

		if ((e->d_type != DT_DIR && e->d_type != DT_UNKNOWN && !named) || strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    path_join(w->path, sizeof w->path, w->path, e->d_name) < 0)
			continue;
		dir = is_directory(dirfd(d), e);
		if ((dir || named) && path_valid(w->path) && !filter_excluded(w->filter, w->path, dir)) {
			if (dir)
				r = enter(w, dirfd(d), e->d_name, depth);
			else if (!path_name_silly(e->d_name))
				r = w->found(w->arg, e->d_ino, w->path);
		}
		w->path[len] = '\0';
	}
	if (r == 0 && errno != 0)
		r = unread(w, errno);
	closedir(d);
	return r;
}

int locate_aliases(int rootfd, const struct filter *filter, const struct inoset *set, int (*found)(void *arg, uint64_t ino, const char *path), void *arg)
{
	struct walk w = {.filter = filter, .set = set, .found = found, .arg = arg};
	int fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : walk_aliases(&w, fd, 0);
}

/* What the times of an open file say of whether it is younger than a record of its number. */
enum age { AGE_OLDER, AGE_UNKNOWN, AGE_YOUNGER };

static enum age age(int fd, uint64_t time_ns)
{
	struct statx x;
	uint64_t ns;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME | STATX_CTIME, &x) != 0)
		return AGE_UNKNOWN;
	if ((x.stx_mask & STATX_BTIME) == 0) {
		ns = (uint64_t)x.stx_ctime.tv_sec * 1000000000u + x.stx_ctime.tv_nsec;
		return ns > time_ns ? AGE_UNKNOWN : AGE_OLDER;
	}
	ns = (uint64_t)x.stx_btime.tv_sec * 1000000000u + x.stx_btime.tv_nsec;
	return ns > time_ns ? AGE_YOUNGER : ns + TICK_NS > time_ns ? AGE_UNKNOWN : AGE_OLDER;
}

/* The record's inode may be gone, its number that of a file made later: the record's ranges are not those of this file, alone they would
 * make of two versions one that never was, and it may be half written. Takes fd, open at one of its names; returns it, E_GONE when a
 * record ahead ends the inode, E_CHANGED when the file is younger than the record and no record says so yet, or an error. */
static int reborn(const struct locate *l, const struct jrec *rec, const struct stat *st, int fd)
{
	bool whole = st->st_size <= WHOLE_SIZE && (uint64_t)st->st_size == rec->size; /* a version that was, whichever */
	enum age how = age(fd, rec->time_ns);
	struct follow_names f;
	bool cut = false;
	int r;

	if (how == AGE_OLDER || (how == AGE_UNKNOWN && whole))
		return fd;
	r = follow_begin(&f, rec->ino, rec->path);
	if (r == 0)
		r = ahead_window(l, &f, NULL);
	if (r == E_GONE && !f.gone)
		r = ahead_journal(l, &f, NULL, &cut);
	if (r == E_GONE && !f.gone)
		r = how == AGE_YOUNGER && !l->no_births ? E_CHANGED : fd;
	follow_end(&f);
	if (r != fd)
		close(fd);
	return r;
}

static int search(const struct locate *l, uint64_t ino, struct stat *st)
{
	char path[PATH_LONGEST];

	return locate_name(l->rootfd, ino, path, sizeof path) ? locate_path(l->rootfd, path, ino, st) : E_GONE;
}

int locate_open(const struct locate *l, const struct jrec *rec, struct stat *st)
{
	struct follow_names f;
	bool cut = false;
	int r;

	r = rec->path[0] == '\0' ? E_GONE : locate_path(l->rootfd, rec->path, rec->ino, st);
	if (r >= 0)
		return reborn(l, rec, st, r);
	if (r != E_GONE)
		return r;
	r = follow_begin(&f, rec->ino, rec->path);
	if (r < 0)
		return r;
	r = ahead_window(l, &f, st);
	if (r == E_GONE && !f.gone)
		r = ahead_journal(l, &f, st, &cut);
	if (r >= 0)
		r = reborn(l, rec, st, r);
	else if (r == E_GONE && !f.gone)
		r = by_handle(l->rootfd, rec, st);
	if ((r == -EPERM && rec->handle_len != 0) || (r == E_GONE && !f.gone && rec->handle_len == 0 && rec->path[0] == '\0'))
		r = search(l, rec->ino, st);
	if (r == E_GONE && !f.gone)
		r = cut ? -ENOENT : -EAGAIN;
	follow_end(&f);
	return r;
}
