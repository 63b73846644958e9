/* SPDX-License-Identifier: BSD-2-Clause
 * The mounts that this process sees: see mountinfo.h. */
#include "config.h"

#include "fs/mountinfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

static bool octal(char c)
{
	return c >= '0' && c <= '7';
}

/* Blanks and backslashes are written as \ooo. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && octal(s[1]) && octal(s[2]) && octal(s[3])) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* The nth field behind s, counted from 0, ended with a NUL; NULL: there is none. */
static char *field(char **s, int n)
{
	char *f = NULL;

	for (int k = 0; k <= n; k++)
		if (!(f = strsep(s, " \n")))
			return NULL;
	return f;
}

/* ID PARENT MAJOR:MINOR ROOT WHERE OPTIONS [TAG ...] - TYPE SOURCE SUPER */
static bool parse(char *line, struct mountinfo *m)
{
	char *dash = strstr(line, " - "), *rest = line, *device, *where;
	unsigned major, minor;

	if (!dash)
		return false;
	*dash = '\0';
	device = field(&rest, 2);
	where = field(&rest, 1);
	rest = dash + 3;
	m->type = field(&rest, 0);
	m->super = field(&rest, 1);
	if (!device || !where || !m->type || !m->super || sscanf(device, "%u:%u", &major, &minor) != 2)
		return false;
	unescape(where);
	m->where = where;
	m->dev = makedev(major, minor);
	return true;
}

void mountinfo_each(bool (*fn)(void *arg, const struct mountinfo *m), void *arg)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	struct mountinfo m;
	char *line = NULL;
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0)
		if (parse(line, &m) && !fn(arg, &m))
			break;
	free(line);
	if (f)
		fclose(f);
}
