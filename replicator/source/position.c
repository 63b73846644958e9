/* SPDX-License-Identifier: BSD-2-Clause
 * Saved positions (position.h). Text: "journal HEX", "epoch N", "seq N", one per line. */
#include "config.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/hex.h"
#include "replicator/source/position.h"

static void encode(char *out, size_t size, const char *url)
{
	size_t n = 0;

	for (; *url != '\0' && n + 4 < size; url++) {
		if (isalnum((unsigned char)*url) || strchr("-_~", *url) != NULL || (*url == '.' && n > 0))
			out[n++] = *url;
		else
			n += (size_t)snprintf(out + n, size - n, "%%%02X", (unsigned char)*url);
	}
	out[n] = '\0';
}

static int open_dir(int state_dirfd)
{
	int fd;

	if (mkdirat(state_dirfd, "targets", 0700) != 0 && errno != EEXIST)
		return -errno;
	fd = openat(state_dirfd, "targets", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd; /* cppcheck-suppress resourceLeak ; it is returned */
}

static int parse(struct saved_pos *p, const char *text)
{
	char id[HEX_ID];

	memset(p, 0, sizeof *p);
	if (sscanf(text, "journal %32[0-9a-f]\nepoch %" SCNu64 "\nseq %" SCNu64, id, &p->epoch, &p->seq) != 3 || hex_get(p->journal_id, id, 16) < 0)
		return E_PROTO;
	return 0;
}

int position_load(struct saved_pos *p, int state_dirfd, const char *url)
{
	char name[256], *text;
	size_t n;
	int dir = open_dir(state_dirfd), r;

	memset(p, 0, sizeof *p);
	if (dir < 0)
		return dir;
	encode(name, sizeof name, url);
	r = fio_slurp(dir, name, 4096, &text, &n);
	close(dir);
	if (r < 0)
		return r;
	r = parse(p, text);
	free(text);
	return r;
}

int position_save(const struct saved_pos *p, int state_dirfd, const char *url)
{
	char name[256], text[128], id[HEX_ID];
	int dir = open_dir(state_dirfd), r, n;

	if (dir < 0)
		return dir;
	hex_put(id, p->journal_id, 16);
	n = snprintf(text, sizeof text, "journal %s\nepoch %" PRIu64 "\nseq %" PRIu64 "\n", id, p->epoch, p->seq);
	encode(name, sizeof name, url);
	r = fio_replace(dir, name, text, (size_t)n, 0600);
	close(dir);
	return r;
}
