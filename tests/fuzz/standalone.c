/* SPDX-License-Identifier: BSD-2-Clause
 * Runs a fuzz target on every file of the directories (or files) given, or on those of corpus/NAME when none
 * is given: so the seeds and all inputs that ever failed are tested by `make check`, with any compiler. NAME
 * is what follows "seeds_" in the program's name. */
#include "config.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX (8u << 20) /* bytes */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long done;

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = f != NULL ? malloc(INPUT_MAX) : NULL, *exact;
	size_t n;

	if (data == NULL) {
		perror(path);
		if (f != NULL)
			fclose(f);
		return 1;
	}
	n = fread(data, 1, INPUT_MAX, f);
	fclose(f);
	exact = malloc(n > 0 ? n : 1); /* so that a sanitizer sees the end */
	if (exact != NULL) {
		memcpy(exact, data, n);
		LLVMFuzzerTestOneInput(exact, n);
		done++;
	}
	free(exact);
	free(data);
	return exact == NULL;
}

static int run(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	char file[4096];
	int bad = 0;

	if (d == NULL)
		return run_file(path);
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		bad |= run_file(file);
	}
	closedir(d);
	return bad;
}

/* make check gives the source directory in $srcdir. */
static int run_default(const char *program)
{
	const char *srcdir = getenv("srcdir"), *base = strrchr(program, '/'), *name;
	char path[4096];

	name = strstr(base != NULL ? base : program, "seeds_");
	if (name == NULL)
		return 1;
	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", srcdir != NULL ? srcdir : ".",
		 name + strlen("seeds_"));
	return run(path);
}

int main(int argc, char **argv)
{
	int bad = argc < 2 ? run_default(argv[0]) : 0;

	for (int i = 1; i < argc; i++)
		bad |= run(argv[i]);
	printf("%lu inputs\n", done);
	return bad || done == 0;
}
