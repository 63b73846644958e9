/* SPDX-License-Identifier: BSD-2-Clause
 * Confinement of the child that serves one connection: two walls, one within the other.
 *
 * The early one stands before the first byte of the peer is read, so that the handshake runs behind it. It leaves what any module of this
 * daemon may need, and the way to the second:
 *
 *   limits        descriptors, no core files, memory
 *   capabilities  those of the second wall, and CHROOT, SETUID, SETGID
 *   no_new_privs
 *   Landlock      only what lies beneath the modules, and the files of the state directory; nothing is executed; no network; no signals to
 *                 others (as the kernel has it)
 *   seccomp       only the system calls that applying needs and those of the second wall; no other processes, no sockets
 *
 * The second stands when it is known who the peer is. In this order, each step using what the next takes away:
 *
 *   chroot        into the module, where "use chroot" is not no and we are root
 *   uid and gid   of the module, if it names some
 *   capabilities  all but those that keep owners, modes, devices and attributes; none without root
 *   Landlock      only what lies beneath the module
 *   seccomp       only the system calls that applying needs; the last step, for all threads
 *
 * CAP_SYS_ADMIN is needed for attributes trusted.*. It is kept only together with the system call filter,
 * which leaves nothing else of what it allows (no mount, no namespaces, no bpf ...). Without seccomp it goes,
 * and trusted.* are refused. */
#ifndef TANDEM_MODULE_CONFINE_H
#define TANDEM_MODULE_CONFINE_H

#include <stdbool.h>
#include <stddef.h>
#include "replicator/module/modules_conf.h"

#define CONFINE_FDS                                                                                          \
	1024 /* descriptors of a child: two per transfer, the directories of a batch, a few more */

struct confined {
	bool chrooted, landlock, seccomp;
	bool no_owner; /* owners cannot be set */
};

/* Build the early wall. stdir: the state directory, or -1 if it is not needed. Directories of modules that are missing now stay closed to this process. Returns 0 or
 * -errno with why. Must be called before threads are started, and for confine_enter to be limited. */
int confine_early(const struct modules_conf *mc, int stdir, char *why, size_t size);
/* Enter the module, whose directory is open as rootfd. m NULL and rootfd -1: a connection
 * that only lists modules or is refused; it keeps nothing (uid 65534, no files). Returns 0 or -errno with
 * why. Must be called before threads are started. */
int confine_enter(const struct module_conf *m, int rootfd, struct confined *out, char *why, size_t size);
/* Install the system call filter in all threads. Returns 0 or -errno. */
int confine_syscalls(struct confined *out);

#endif
