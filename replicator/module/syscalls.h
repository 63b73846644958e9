/* SPDX-License-Identifier: BSD-2-Clause
 * The system calls a confined child may use. */
#ifndef TANDEM_MODULE_SYSCALLS_H
#define TANDEM_MODULE_SYSCALLS_H

#include <stdbool.h>

/* Say whether a filter can be installed (built with libseccomp, kernel has it). */
bool syscalls_available(void);
enum syscalls_wall { /* see confine.h */
	SYSCALLS_EARLY, /* what applying needs, and what enters the module and starts a thread */
	SYSCALLS_MODULE /* only what applying needs */
};

/* Allow only what the wall leaves, in every thread. What else is called fails: with EPERM what would reach out
 * of the child (programs, sockets, mounts, other processes), with ENOSYS what libraries merely try. Returns
 * 0, -EOPNOTSUPP or -errno. */
int syscalls_filter(enum syscalls_wall wall);

#endif
