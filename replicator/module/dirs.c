/* SPDX-License-Identifier: BSD-2-Clause
 * Directories of a batch: see dirs.h. A linear table: a batch works in few directories, and comparing the
 * lengths of 32 paths costs less than one openat2. */
#include "config.h"
#include "replicator/module/dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/path.h"

int dirs_init(struct dirs *d, int rootfd, int touchedfd, struct reach *reach, bool restore)
{
	memset(d, 0, sizeof(*d));
	d->rootfd = rootfd;
	d->touched.fd = -1;
	int err = touchedfd < 0 ? 0 : touched_open(&d->touched, touchedfd);
	if (err || touchedfd < 0)
		return err;
	if (restore) {
		touched_restore(&d->touched, rootfd, reach);
	} else {
		d->touched.used = 1;
		touched_forget(&d->touched);
	}
	return 0;
}

void dirs_release(struct dirs *d)
{
	dirs_flush(d);
	touched_close(&d->touched);
}

/* Set the mtime of an O_PATH directory: AT_EMPTY_PATH (Linux 5.8) or by its own ".". */
static void restore(struct dir *dir)
{
	if (!dir->restore)
		return;
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT},
				 {.tv_sec = dir->mtime.sec, .tv_nsec = dir->mtime.nsec}};
	if (utimensat(dir->fd, ".", ts, AT_SYMLINK_NOFOLLOW))
		utimensat(dir->fd, "", ts, AT_EMPTY_PATH);
	dir->restore = false;
}

static void forget(struct dirs *d, unsigned i)
{
	close(d->v[i].fd);
	free(d->v[i].path);
	d->v[i] = d->v[--d->n];
}

/* Free the slot used longest ago; the others stay where they are. */
static unsigned evict(struct dirs *d)
{
	unsigned oldest = 0;
	for (unsigned i = 1; i < d->n; i++)
		if (d->clock - d->v[i].used > d->clock - d->v[oldest].used)
			oldest = i;
	restore(&d->v[oldest]);
	close(d->v[oldest].fd);
	free(d->v[oldest].path);
	return oldest;
}

int dirs_parent(struct dirs *d, const char *path, struct dir **dir, const char **base)
{
	size_t len = path_parent_len(path);
	*base = *path ? path_base(path) : ".";
	d->clock++;
	for (unsigned i = 0; i < d->n; i++) {
		if (d->v[i].len != len || memcmp(d->v[i].path, path, len) != 0)
			continue;
		d->v[i].used = d->clock;
		*dir = &d->v[i];
		return 0;
	}
	int fd = path_open_parent(d->rootfd, path, base);
	if (fd < 0)
		return fd;
	char *copy = strndup(path, len);
	if (!copy) {
		close(fd);
		return -ENOMEM;
	}
	unsigned slot = d->n < DIRS_MAX ? d->n++ : evict(d);
	d->v[slot] = (struct dir){.path = copy, .len = len, .fd = fd, .used = d->clock};
	*dir = &d->v[slot];
	return 0;
}

void dirs_keep(struct dirs *d, struct dir *dir, struct jtime pm)
{
	struct stat st;
	if (!dir->restore && fstat(dir->fd, &st) == 0) {
		dir->mtime = (struct jtime){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec};
		dir->restore = true;
		touched_note(&d->touched, dir->path, dir->len, st.st_ino, dir->mtime);
	}
	if (pm.sec || pm.nsec) {
		dir->mtime = pm;
		dir->restore = true;
	}
}

bool dirs_set(struct dirs *d, const char *path, struct jtime mtime)
{
	for (unsigned i = 0; i < d->n; i++) {
		if (!d->v[i].restore || strcmp(d->v[i].path, path) != 0)
			continue;
		d->v[i].mtime = mtime;
		return true;
	}
	return false;
}

void dirs_drop(struct dirs *d, const char *path)
{
	for (unsigned i = d->n; i-- > 0;)
		if (path_within(path, d->v[i].path))
			forget(d, i);
}

void dirs_restore(struct dirs *d)
{
	for (unsigned i = 0; i < d->n; i++)
		restore(&d->v[i]);
	if (d->touched.used)
		touched_forget(&d->touched);
}

void dirs_flush(struct dirs *d)
{
	dirs_restore(d);
	while (d->n)
		forget(d, d->n - 1);
}
