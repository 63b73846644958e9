/* SPDX-License-Identifier: BSD-2-Clause
 * The walk after a power failure. It runs beside applications: a directory renamed while it walks could make it
 * record paths that are not valid any more, or miss a part; then it walks once more. What else gets another name meanwhile is rechecked there by
 * the operation itself (recover_walking).
 *
 * Until it has finished, the state directory holds a file "recheck" with the time to look from, so that a restart in the middle
 * begins again. Where that cannot be written, the journal goes on saying that the host went down. */
#include "config.h"

#include "fs/recover_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/op.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"

#define SLACK_NS 5000000000ull
#define ROUNDS   10 /* walks at most; then everything is rechecked */
#define LEVELS   256 /* of directories, each open at a time; what is deeper is rechecked */
#define PENDING  "recheck"

struct recover {
	struct tfs *fs;
	pthread_t thread;
	uint64_t since_ns;
	_Atomic bool stop, done;
	_Atomic uint64_t begun, ended; /* renames of directories */
	size_t found;
	struct jrec rec;
	char path[PATH_LONGEST + 1];
};

static void found(struct recover *rc, uint64_t ino, uint16_t flags)
{
	struct jrec *r = &rc->rec;

	jrec_init(r, JT_RECHECK);
	r->path = rc->path;
	r->ino = ino;
	r->flags = flags;
	pthread_mutex_lock(&rc->fs->tree.lock);
	journal_append(rc->fs->journal, r);
	pthread_mutex_unlock(&rc->fs->tree.lock);
	rc->found++;
}

static void check(struct recover *rc, const struct stat *st)
{
	uint64_t ctime = (uint64_t)st->st_ctim.tv_sec * 1000000000u + (uint64_t)st->st_ctim.tv_nsec;

	if (ctime + SLACK_NS >= rc->since_ns)
		found(rc, st->st_ino, JF_RECOVERY | (S_ISREG(st->st_mode) ? JF_CHECKSUM : 0));
}

/* What cannot be looked at is compared with all below it. */
static void unread(struct recover *rc, int err)
{
	if (err != -ENOENT && err != -ENOTDIR && err != -ELOOP)
		found(rc, 0, JF_RECOVERY | JF_RECURSIVE | JF_CHECKSUM);
}

static void walk(struct recover *rc, int fd, size_t n, int level);

/* The entry at rc->path, n bytes. */
static void visit(struct recover *rc, int dirfd, const char *name, size_t n, int level)
{
	struct stat st;
	int fd;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		unread(rc, -errno);
		return;
	}
	check(rc, &st);
	if (!S_ISDIR(st.st_mode))
		return;
	fd = level == LEVELS ? -1 : openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		walk(rc, fd, n, level);
	else
		unread(rc, level == LEVELS ? -EMFILE : -errno);
}

/* fd is taken. The path of the directory is rc->path, n bytes. */
static void walk(struct recover *rc, int fd, size_t n, int level)
{
	DIR *dir = fdopendir(fd);
	struct dirent *e;
	size_t len;

	if (!dir) {
		unread(rc, -errno);
		close(fd);
		return;
	}
	while (errno = 0, !atomic_load(&rc->stop) && (e = readdir(dir))) {
		len = strlen(e->d_name);
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || n + len + 2 > PATH_LONGEST)
			continue;
		if (n == 0 && strcmp(e->d_name, PATH_PRIVATE) == 0)
			continue;
		rc->path[n] = '/';
		memcpy(rc->path + n + (n > 0), e->d_name, len + 1);
		visit(rc, dirfd(dir), e->d_name, n + (n > 0) + len, level + 1);
		rc->path[n] = '\0';
	}
	if (errno != 0)
		unread(rc, -errno);
	closedir(dir);
}

static void *walker(void *arg)
{
	struct recover *rc = arg;
	struct stat st;
	uint64_t ended, begun;
	int round = 0, fd;

	do {
		ended = atomic_load(&rc->ended); /* read first: a rename under way makes the two differ */
		begun = atomic_load(&rc->begun);
		rc->path[0] = '\0';
		if (fstat(rc->fs->rootfd, &st) == 0)
			check(rc, &st);
		fd = openat(rc->fs->rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			walk(rc, fd, 0, 0);
		else
			unread(rc, -errno);
	} while (!atomic_load(&rc->stop) && (ended != begun || atomic_load(&rc->begun) != begun) && ++round < ROUNDS);
	if (round == ROUNDS) {
		rc->path[0] = '\0';
		found(rc, 0, JF_RECOVERY | JF_RECURSIVE);
	}
	if (!atomic_load(&rc->stop)) {
		unlinkat(rc->fs->statefd, PENDING, 0);
		journal_recovered(rc->fs->journal);
		log_info("%zu entries whose change times are recent are compared with the standbys", rc->found);
		atomic_store(&rc->done, true);
	}
	return NULL;
}

/* The time of an interrupted walk counts if it is earlier. *kept: a restart finds it again. */
static uint64_t pending(struct tfs *fs, uint64_t since_ns, bool *kept)
{
	char text[32], *old = NULL;
	size_t n;
	uint64_t t = 0;
	int r;

	*kept = true;
	if (fio_slurp(fs->statefd, PENDING, 64, &old, &n) == 0)
		t = strtoull(old, NULL, 10);
	free(old);
	if (t && t < since_ns)
		since_ns = t;
	if (since_ns == UINT64_MAX)
		return since_ns;
	snprintf(text, sizeof(text), "%" PRIu64 "\n", since_ns);
	r = fio_replace(fs->statefd, PENDING, text, strlen(text), 0600);
	if (r < 0)
		log_warn("cannot write %s in the state directory (%s): as long as the comparison after the host's failure is not begun in whole, a restart "
			 "begins it anew", PENDING, err_text(r));
	*kept = r == 0;
	return since_ns;
}

int recover_walk_start(struct tfs *fs, uint64_t since_ns)
{
	struct recover *rc = calloc(1, sizeof(*rc));
	bool kept;
	int r;

	if (!rc)
		return -ENOMEM;
	rc->fs = fs;
	rc->since_ns = pending(fs, since_ns, &kept);
	if (rc->since_ns == UINT64_MAX) {
		free(rc);
		return 0;
	}
	r = pthread_create(&rc->thread, NULL, walker, rc);
	if (r != 0) {
		free(rc);
		return -r;
	}
	fs->recover = rc;
	return kept ? 0 : 1;
}

bool recover_walking(const struct tfs *fs)
{
	return fs->recover && !atomic_load(&fs->recover->done);
}

void recover_move_begin(struct tfs *fs)
{
	atomic_fetch_add(&fs->recover->begun, 1);
}

void recover_move_end(struct tfs *fs)
{
	atomic_fetch_add(&fs->recover->ended, 1);
}

bool recover_walk_stop(struct tfs *fs)
{
	struct recover *rc = fs->recover;
	bool done;

	if (!rc)
		return true;
	atomic_store(&rc->stop, true);
	pthread_join(rc->thread, NULL);
	done = atomic_load(&rc->done);
	free(rc);
	fs->recover = NULL;
	return done;
}
