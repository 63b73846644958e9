/* SPDX-License-Identifier: BSD-2-Clause
 * Becoming tandem-replicator. */
#ifndef TANDEM_FS_SPAWN_H
#define TANDEM_FS_SPAWN_H

#include "fs/supervisor.h"

/* Replace this process by tandem-replicator --config FILE --foreground NAME; found beside our own executable, else in
 * SBINDIR. Returns only on failure. */
void spawn_replicator(const struct launch *l);
/* A mirror that came from the command line: write it as <state>/mirror.conf, so that the replicator and tandemctl can read
 * it. path gets its name. Returns 0 or -errno. */
int spawn_write_conf(const struct mirror *m, int statefd, char *path, size_t size);

#endif
