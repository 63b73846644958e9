/* SPDX-License-Identifier: BSD-2-Clause
 * A host's addresses, before a deadline. getaddrinfo(3) has none: with a dead name server it takes a minute and cannot be interrupted. */
#ifndef TANDEM_RESOLVE_H
#define TANDEM_RESOLVE_H

#include <netdb.h>
#include <stdint.h>

/* Find the TCP addresses of host (name or address) until the deadline (CLOCK_MONOTONIC, ms) or until cancelfd (0: none) is readable.
 * *list is the caller's (freeaddrinfo). Returns 0, E_TIMEOUT, -ECANCELED, -ENOMEM, another -errno, or, with *gai set, -EHOSTUNREACH
 * when the name service says no (gai_strerror). A look-up that was given up ends by itself, in a thread of its own. */
int resolve(struct addrinfo **list, const char *host, int port, int cancelfd, int64_t deadline, int *gai);

#endif
