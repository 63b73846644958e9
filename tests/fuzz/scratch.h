/* SPDX-License-Identifier: BSD-2-Clause
 * What fuzz targets share that work on files: a directory that is empty before every input, bytes taken from the input, checksums made
 * to hold. */
#ifndef TANDEM_FUZZ_SCRATCH_H
#define TANDEM_FUZZ_SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_path[256];

/* Remove what is in a directory. fd is taken. */
static inline void scratch_clear(int fd)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;

	if (d == NULL)
		abort();
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (e->d_type == DT_DIR)
			scratch_clear(openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
		unlinkat(fd, e->d_name, e->d_type == DT_DIR ? AT_REMOVEDIR : 0);
	}
	closedir(d);
}

static inline void scratch_remove(const char *path)
{
	scratch_clear(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	rmdir(path);
}

static inline void scratch_end(void)
{
	scratch_remove(scratch_path);
}

/* Make the directory at the first call, in memory if nothing else is said, and empty it at later ones. Returns its path. */
static inline const char *scratch_begin(void)
{
	const char *tmp = getenv("TMPDIR");

	if (*scratch_path != '\0') {
		scratch_clear(open(scratch_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		return scratch_path;
	}
	if (tmp == NULL)
		tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(scratch_path, sizeof(scratch_path), "%s/tandem-fuzz-XXXXXX", tmp);
	if (mkdtemp(scratch_path) == NULL)
		abort();
	atexit(scratch_end);
	return scratch_path;
}

static inline void scratch_write(int dirfd, const char *name, const void *data, size_t n, off_t size)
{
	int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || ftruncate(fd, size) != 0 || write(fd, data, n) != (ssize_t)n)
		abort();
	close(fd);
}

static inline int scratch_mkdir(int at, const char *name)
{
	int fd;

	if (mkdirat(at, name, 0755) != 0)
		abort();
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		abort();
	return fd;
}

struct input {
	const uint8_t *p;
	size_t left;
};

static inline uint64_t input_number(struct input *in, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes && in->left > 0; i++, in->p++, in->left--)
		v |= (uint64_t)*in->p << (8 * i);
	return v;
}

/* Take at most n bytes, in a block of their own so that a sanitizer sees its end. Returns owned. */
static inline uint8_t *input_bytes(struct input *in, size_t *n)
{
	uint8_t *copy;

	*n = *n < in->left ? *n : in->left;
	copy = malloc(*n + 1);
	if (copy == NULL)
		abort();
	memcpy(copy, in->p, *n);
	in->p += *n;
	in->left -= *n;
	return copy;
}

#endif
