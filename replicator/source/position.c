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
	char hex[33];
	size_t i;

	memset(p, 0, sizeof *p);
	if (sscanf(text, "journal %32[0-9a-f]\nepoch %" SCNu64 "\nseq %" SCNu64, hex, &p->epoch, &p->seq) != 3 || strlen(hex) != 32)
		return E_PROTO;
	for (i = 0; i < 16; i++) {
		char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		p->journal_id[i] = (uint8_t)strtoul(two, NULL, 16);
	}
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
	char name[256], text[128];
	int dir = open_dir(state_dirfd), r, n = 8, i;

	if (dir < 0)
		return dir;
	memcpy(text, "journal ", 8); /* NOLINT(bugprone-not-null-terminated-result): the rest follows */
	for (i = 0; i < 16; i++)
		n += snprintf(text + n, sizeof text - (size_t)n, "%02x", p->journal_id[i]);
	n += snprintf(text + n, sizeof text - (size_t)n, "\nepoch %" PRIu64 "\nseq %" PRIu64 "\n", p->epoch, p->seq);
	encode(name, sizeof name, url);
	r = fio_replace(dir, name, text, (size_t)n, 0600);
	close(dir);
	return r;
}
