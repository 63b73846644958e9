/* SPDX-License-Identifier: BSD-2-Clause
 * The daemon: listens, accepts, forks a child per connection, counts them. */
#ifndef TANDEM_MODULE_SERVER_H
#define TANDEM_MODULE_SERVER_H

#include <stdbool.h>
#include "replicator/module/modules_conf.h"

/* Run until SIGTERM or SIGINT. mc has been checked and is taken (it is replaced on SIGHUP); file is where it
 * came from. Unless foreground, goes into the background once it listens. Returns the process's exit status.
 */
int server_run(struct modules_conf *mc, const char *file, bool foreground);

#endif
