/* SPDX-License-Identifier: BSD-2-Clause
 * The configuration reader and mirrors.conf on any bytes. They are given as a file in memory. */
#include "config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/mirror.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Invariants that hold for every text. */
static void check(struct conf *c, int r)
{
	size_t errors = 0;

	for (size_t i = 0; i < c->ndiags; i++)
		errors += c->diags[i].severity == CONF_ERROR;
	if (errors != c->nerrors || c->nsections == 0 || c->sections[0].name != NULL)
		abort();
	if ((r == 0) != (c->nerrors == 0))
		abort();
	for (size_t i = 0; i < c->nsections; i++)
		for (size_t k = 0; k < c->sections[i].nentries; k++)
			if (c->sections[i].entries[k].line < 1 || c->sections[i].entries[k].key[0] == '\0')
				abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("conf", MFD_CLOEXEC);
	struct mirror m;
	struct conf c;
	char path[64];
	int r;

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = mirror_load(&m, &c, path, NULL);
	check(&c, r);
	mirror_release(&m);
	conf_release(&c);
	close(fd);
	return 0;
}
