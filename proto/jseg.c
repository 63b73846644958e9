/* SPDX-License-Identifier: BSD-2-Clause
 * Segment headers and names: see jseg.h and docs/journal-format.md. */
#include "config.h"
#include "proto/jseg.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "proto/buf.h"
#include "proto/err.h"

static const uint8_t magic[8] = {'T', 'J', 'S', 'E', 'G', 0, 0, 1};

void jseg_put(uint8_t out[JSEG_HEADER], const struct jseg *s)
{
	struct buf b = {.data = out, .cap = JSEG_HEADER, .max = JSEG_HEADER};
	buf_put(&b, magic, sizeof(magic));
	buf_put(&b, s->journal_id, 16);
	buf_put_u64(&b, s->epoch);
	buf_put_u64(&b, s->first_seq);
	buf_put_u64(&b, s->chain);
	buf_put_u64(&b, s->size);
	buf_put_u64(&b, XXH3_64bits(out, 56));
}

int jseg_get(struct jseg *s, const void *data, size_t len)
{
	if (len < JSEG_HEADER)
		return E_CHECKSUM;
	struct buf b;
	buf_view(&b, data, JSEG_HEADER);
	const uint8_t *m = buf_get(&b, 8);
	if (!memcmp(m, magic, 7) && m[7] != magic[7])
		return E_VERSION;
	if (memcmp(m, magic, 8))
		return E_CHECKSUM;
	memcpy(s->journal_id, buf_get(&b, 16), 16);
	s->epoch = buf_get_u64(&b);
	s->first_seq = buf_get_u64(&b);
	s->chain = buf_get_u64(&b);
	s->size = buf_get_u64(&b);
	if (buf_get_u64(&b) != XXH3_64bits(data, 56))
		return E_CHECKSUM;
	if (s->size < JSEG_SIZE_MIN || s->size > JSEG_SIZE_MAX || !s->first_seq || s->first_seq >= JSEG_NUMBER_MAX ||
	    s->epoch >= JSEG_NUMBER_MAX)
		return E_LIMIT;
	return 0;
}

void jseg_name(char out[JSEG_NAME_LEN], uint64_t first_seq)
{
	snprintf(out, JSEG_NAME_LEN, "%016" PRIx64 ".seg", first_seq);
}

/* Return the sequence number in a segment's name, 0 when it is none. */
static uint64_t name_seq(const char *name)
{
	uint64_t v = 0;
	for (int i = 0; i < 16; i++) {
		char c = name[i];
		int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
		if (d < 0)
			return 0;
		v = v << 4 | (uint64_t)d;
	}
	return strcmp(name + 16, ".seg") ? 0 : v;
}

static int by_seq(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* Collect the sequence numbers of all names. Returns the count or -errno. */
static int collect(DIR *d, uint64_t **seqs)
{
	size_t n = 0, cap = 0;
	struct dirent *e;
	while (errno = 0, (e = readdir(d))) {
		uint64_t v = name_seq(e->d_name);
		if (!v)
			continue;
		if (n == cap) {
			cap = cap ? cap * 2 : 64;
			uint64_t *p = reallocarray(*seqs, cap, sizeof(*p));
			if (!p)
				return -ENOMEM;
			*seqs = p;
		}
		(*seqs)[n++] = v;
	}
	return errno ? -errno : (int)n;
}

int jseg_list(int dirfd, uint64_t **seqs)
{
	*seqs = NULL;
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	DIR *d = fdopendir(fd);
	if (!d) {
		int err = -errno;
		close(fd);
		return err;
	}
	int n = collect(d, seqs);
	closedir(d);
	if (n < 0) {
		free(*seqs);
		*seqs = NULL;
	} else if (n > 1) {
		/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): n numbers are there */
		qsort(*seqs, (size_t)n, sizeof(**seqs), by_seq);
	}
	return n;
}
