/* SPDX-License-Identifier: BSD-2-Clause
 * Filter rules and paths: the input is rules, one per line, an empty line, then paths. What must hold: an
 * entry below an excluded directory is excluded, and matching ends. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/filter.h"

#define LINES_MAX 64
#define PATH_LEN  512 /* bytes of a path: the fuzzer looks for wrong answers, not for long ones */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_path(const struct filter *f, const char *path)
{
	bool dir = filter_excluded(f, path, true);
	char below[PATH_LEN + 3];

	(void)filter_excluded(f, path, false);
	(void)filter_matches(f, path);
	if (!dir || *path == '\0' || strlen(path) >= PATH_LEN)
		return;
	strcpy(below, path);
	strcat(below, "/x");
	if (!filter_excluded(f, below, false))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest = text, *line;
	struct filter f;
	bool paths = false;

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	filter_init(&f);
	for (int n = 0; n < LINES_MAX && (line = strsep(&rest, "\n")) != NULL; n++) {
		if (*line == '\0')
			paths = true;
		else if (strlen(line) > PATH_LEN)
			continue;
		else if (!paths)
			(void)filter_add(&f, line, false);
		else
			check_path(&f, line);
	}
	filter_release(&f);
	free(text);
	return 0;
}
