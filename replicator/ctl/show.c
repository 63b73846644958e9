/* SPDX-License-Identifier: BSD-2-Clause
 * How numbers, foreign text and paths are shown. */
#include "config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/hex.h"
#include "proto/path.h"
#include "replicator/ctl/ctl.h"

const char *ctl_show_bytes(char *out, size_t size, double bytes)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	size_t i = 0;

	while (bytes >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		bytes /= 1024;
		i++;
	}
	snprintf(out, size, i == 0 ? "%.0f %s" : "%.1f %s", bytes, unit[i]);
	return out;
}

const char *ctl_show_secs(char *out, size_t size, double s)
{
	if (s < 0.0005)
		snprintf(out, size, "0 s");
	else if (s < 1)
		snprintf(out, size, "%.0f ms", s * 1000);
	else if (s < 120)
		snprintf(out, size, "%.1f s", s);
	else if (s < 7200)
		snprintf(out, size, "%.0f min", s / 60);
	else if (s < 48 * 3600)
		snprintf(out, size, "%.1f h", s / 3600);
	else
		snprintf(out, size, "%.1f days", s / 86400);
	return out;
}

const char *ctl_show_text(char *out, size_t size, const char *text)
{
	size_t o = 0;

	for (const unsigned char *p = (const unsigned char *)text; *p && o + 1 < size; p++) {
		bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;
		out[o++] = (char)(*p < 0x20 || *p == 0x7f || c1 ? '?' : *p);
		p += c1;
	}
	if (size > 0)
		out[o] = '\0';
	return out;
}

static json_t *hex(const char *path)
{
	size_t n = strlen(path);
	char *s = malloc(2 * n + 1);

	if (s == NULL)
		return NULL;
	hex_put(s, path, n);
	json_t *v = json_string(s);
	free(s);
	return v;
}

void ctl_set_path(json_t *o, const char *key, const char *path)
{
	json_t *v = json_string(path);

	if (v) {
		json_object_set_new(o, key, v);
		return;
	}
	size_t size = 4 * strlen(path) + 1;
	char *shown = malloc(size), name[64];
	if (shown == NULL)
		return;
	json_object_set_new(o, key, json_string(path_show(shown, size, path)));
	snprintf(name, sizeof(name), "%s_hex", key);
	json_object_set_new(o, name, hex(path));
	free(shown);
}
