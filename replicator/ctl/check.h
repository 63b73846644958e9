/* SPDX-License-Identifier: BSD-2-Clause
 * The doctor's checks. Each prints one line per thing it looked at. */
#ifndef TANDEM_CTL_CHECK_H
#define TANDEM_CTL_CHECK_H

#include "replicator/ctl/ctl.h"

enum verdict { V_OK, V_WARN, V_FAIL };

struct report {
	int failures; /* lines with FAIL */
	int warnings; /* lines with warn */
};

/* Print "VERDICT WHAT: TEXT" and count it. TEXT says what is so and, unless ok, what to do. */
void check_say(struct report *r, enum verdict v, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* This host: /dev/fuse, fusermount3, kernel, libfuse, clock. */
void check_host(struct report *r);
/* One mirror's own side: processes, state directory, source, password file. */
void check_mirror(struct report *r, const struct ctl_mirror *cm);
/* The way to one target: name, port, who answers, credentials, module. */
void check_target(struct report *r, const struct ctl_mirror *cm, const struct mirror_target *t);

#endif
