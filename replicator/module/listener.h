/* SPDX-License-Identifier: BSD-2-Clause
 * The sockets that tandemd listens on. */
#ifndef TANDEM_MODULE_LISTENER_H
#define TANDEM_MODULE_LISTENER_H

#include "replicator/module/modules_conf.h"

#define LISTENERS_MAX 16

/* Open a socket per address of mc (none: one for all addresses). Returns their number, or -errno with why. */
int listener_open(const struct modules_conf *mc, int fds[LISTENERS_MAX], char *why, size_t size);

#endif
