/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/spawn.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/fileio.h"
#include "proto/log.h"

#define NAME "tandem-replicator"

void spawn_replicator(const struct launch *l)
{
	char beside[PATH_MAX + sizeof(NAME) + 1];
	char *argv[] = {NAME, "--config", (char *)l->config, "--foreground", l->mirror.name, NULL};
	ssize_t n = readlink("/proc/self/exe", beside, PATH_MAX);
	char *slash;

	beside[n > 0 ? n : 0] = '\0';
	slash = strrchr(beside, '/');
	if (slash) {
		memcpy(slash + 1, NAME, sizeof(NAME));
		execv(beside, argv);
	}
	execv(SBINDIR "/" NAME, argv);
	log_error("cannot start %s (looked for %s and %s): %s", NAME, slash ? beside : "-", SBINDIR "/" NAME, strerror(errno));
}

int spawn_write_conf(const struct mirror *m, int statefd, char *path, size_t size)
{
	char *text = NULL;
	size_t len = 0;
	const char *slash = strrchr(m->state_dir, '/');
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		return -ENOMEM;
	fprintf(f, "# written by tandemfs from its command line\n");
	fprintf(f, "state dir = %.*s\n", slash && slash > m->state_dir ? (int)(slash - m->state_dir) : 1, m->state_dir);
	fprintf(f, "[%s]\nsource = %s\n", m->name, m->source);
	if (strcmp(m->mountpoint, m->source) != 0)
		fprintf(f, "mountpoint = %s\n", m->mountpoint);
	for (int n = 0; n < m->ntargets; n++)
		fprintf(f, "target = %s\n", m->targets[n].url);
	if (m->password_file)
		fprintf(f, "password file = %s\n", m->password_file);
	r = fclose(f) == 0 ? fio_replace(statefd, "mirror.conf", text, len, 0600) : -ENOMEM;
	free(text);
	if (r == 0 && snprintf(path, size, "%s/mirror.conf", m->state_dir) >= (int)size)
		r = -ENAMETOOLONG;
	return r;
}
