/* SPDX-License-Identifier: BSD-2-Clause
 * Marker and state: see marker.h. The child has left the state directory when it writes the state (chroot,
 * uid), so the file is rewritten in place through a descriptor: one padded write within a single
 * sector-aligned kilobyte. */
#include "config.h"
#include "replicator/module/marker.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/hex.h"

#define MARKER_MAX 4096u

static int take_id(struct identity *id, const char *module, const char *source)
{
	if (!module || strlen(module) != MARKER_ID_LEN ||
	    strspn(module, "0123456789abcdef-") != MARKER_ID_LEN)
		return E_PROTO;
	memcpy(id->module_id, module, MARKER_ID_LEN + 1);
	return hex_get(id->source_id, source, 16) ? E_PROTO : 0;
}

int marker_read(int dirfd, struct identity *id)
{
	char *text, module[64], source[64];
	size_t n;
	memset(id, 0, sizeof(*id));
	int err = fio_slurp(dirfd, "marker", MARKER_MAX, &text, &n);
	if (err)
		return err;
	err = sscanf(text, "module %63s\nsource %63s\n", module, source) == 2 ? take_id(id, module, source)
									      : E_PROTO;
	free(text);
	return err;
}

static void new_uuid(char out[MARKER_ID_LEN + 1])
{
	uint8_t r[16];
	char h[HEX_ID];
	fio_random(r, sizeof(r));
	r[6] = (r[6] & 0x0f) | 0x40;
	r[8] = (r[8] & 0x3f) | 0x80;
	hex_put(h, r, 16);
	snprintf(out, MARKER_ID_LEN + 1, "%.8s-%.4s-%.4s-%.4s-%.12s", h, h + 8, h + 12, h + 16, h + 20);
}

int marker_create(int dirfd, struct identity *id, const uint8_t source_id[16])
{
	char text[256], source[HEX_ID];
	new_uuid(id->module_id);
	memcpy(id->source_id, source_id, 16);
	hex_put(source, source_id, 16);
	int n = snprintf(text, sizeof(text), "module %s\nsource %s\n", id->module_id, source);
	return fio_replace(dirfd, "marker", text, (size_t)n, 0600);
}

int state_open(int stdir, const char *module)
{
	char name[256];
	size_t o = 0;
	for (const unsigned char *s = (const unsigned char *)module; *s; s++) {
		bool plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
			     (*s >= '0' && *s <= '9') || strchr("-_+@", *s) ||
			     (*s == '.' && s != (const unsigned char *)module);
		if (o + 12 >= sizeof(name))
			return -ENAMETOOLONG;
		o += (size_t)snprintf(name + o, sizeof(name) - o, plain ? "%c" : "%%%02X", *s);
	}
	memcpy(name + o, ".json", 6);
	int fd = openat(stdir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

int state_read(int fd, struct module_state *s)
{
	char text[STATE_BYTES + 1];
	memset(s, 0, sizeof(*s));
	ssize_t n = pread(fd, text, STATE_BYTES, 0);
	if (n <= 0)
		return n < 0 ? -errno : -ENOENT;
	text[n] = 0;
	json_t *o = json_loads(text, 0, NULL);
	if (!o)
		return E_PROTO;
	const char *module = json_string_value(json_object_get(o, "module")),
		   *source = json_string_value(json_object_get(o, "source")),
		   *journal = json_string_value(json_object_get(o, "journal"));
	int err = take_id(&s->id, module, source);
	if (!err && hex_get(s->pos.journal_id, journal, 16))
		err = E_PROTO;
	s->pos.epoch = (uint64_t)json_integer_value(json_object_get(o, "epoch"));
	s->pos.seq = (uint64_t)json_integer_value(json_object_get(o, "seq"));
	json_decref(o);
	return err;
}

int state_write(int fd, const struct module_state *s)
{
	char text[STATE_BYTES], source[HEX_ID], journal[HEX_ID];
	hex_put(source, s->id.source_id, 16);
	hex_put(journal, s->pos.journal_id, 16);
	int n = snprintf(
	    text, sizeof(text),
	    "{\"module\": \"%s\", \"source\": \"%s\", \"journal\": \"%s\", \"epoch\": %llu, \"seq\": %llu}",
	    s->id.module_id, source, journal, (unsigned long long)s->pos.epoch,
	    (unsigned long long)s->pos.seq);
	memset(text + n, ' ', sizeof(text) - (size_t)n);
	text[sizeof(text) - 1] = '\n';
	int err = fio_pwrite(fd, text, sizeof(text), 0);
	return err ? err : fio_sync(fd);
}
