/* SPDX-License-Identifier: BSD-2-Clause
 * How numbers, foreign text and paths are shown. */
#include "config.h"
#include <stdio.h>
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
