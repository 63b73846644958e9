/* SPDX-License-Identifier: BSD-2-Clause
 * Paths that could not be replicated: counted, retried, shown. One list per target; all functions lock it. */
#ifndef TANDEM_FAILURES_H
#define TANDEM_FAILURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct failures;

int failures_new(struct failures **out);
void failures_free(struct failures *f);
/* A path failed. park false: a record could not be applied; a comparison answers that at once. park true: the comparison could not repair it:
 * the path is shown and waits for failures_due. Returns true if it should be compared now, false when it waits. */
bool failures_add(struct failures *f, const char *path, const char *text, bool park);
/* Take a path whose time to be tried again has come, or NULL. Owned by the caller. */
char *failures_due(struct failures *f);
/* What was at from is at to now, and, in an exchange, the other way round. Returns 0 or -ENOMEM. */
int failures_renamed(struct failures *f, const char *from, const char *to, bool exchange);
/* Try all of them again now. */
void failures_hurry(struct failures *f);
/* Milliseconds until the next is due, -1: none waits. */
int failures_timeout(struct failures *f);
/* All that was tried again has been answered: forget those that did not fail again. */
void failures_settle(struct failures *f);
/* Paths that failed and were not settled. */
size_t failures_count(struct failures *f);
/* Those of them that a comparison could not repair. */
size_t failures_shown(struct failures *f);
/* Those of these that are not being tried again. */
size_t failures_parked(struct failures *f);
void failures_clear(struct failures *f);
/* [{path, text, since}] of those, at most max. Returns owned. */
json_t *failures_json(struct failures *f, size_t max);

#endif
