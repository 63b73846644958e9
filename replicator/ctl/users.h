/* SPDX-License-Identifier: BSD-2-Clause
 * Which processes use a mount. */
#ifndef TANDEM_CTL_USERS_H
#define TANDEM_CTL_USERS_H

#include <stddef.h>

/* Find processes, ourselves left out, that have their working directory, their root, an open file or a
 * mapping on the file system mounted at mountpoint, as far as we may look. out gets "PID (NAME), PID (NAME)
 * ..." in at most size bytes. Returns their number, or -errno. */
int users_find(const char *mountpoint, char *out, size_t size);

#endif
