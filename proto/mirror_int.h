/* SPDX-License-Identifier: BSD-2-Clause
 * What mirror.c (the file) and mirror_args.c (URLs, passwords, the command line) share. */
#ifndef TANDEM_MIRROR_INT_H
#define TANDEM_MIRROR_INT_H

#include "proto/mirror.h"

#define MIRROR_NAME_MAX 64 /* bytes */

/* Make m empty, with the default of every key. */
void mirror_defaults(struct mirror *m);
/* Parse url and append it to the targets. Returns 0, -ENOMEM or E_CONF with why filled. */
int mirror_add_target(struct mirror *m, const char *url, char *why, size_t size);
/* Say whether t, one of the targets of m, is the module of one before it. */
bool mirror_has_target(const struct mirror *m, const struct mirror_target *t);

#endif
