/* SPDX-License-Identifier: BSD-2-Clause
 * The status of one mirror as one JSON object, and how it is printed. */
#ifndef TANDEM_CTL_STATUS_H
#define TANDEM_CTL_STATUS_H

#include "replicator/ctl/ctl.h"

/* Ask mount and replicator and merge their replies: the members of both (docs/ARCHITECTURE.md), and
 *   name        the mirror
 *   state       "insync", "behind" or "broken": the worse of what the replicator says and what is seen here
 *   mount, replicator   true if the process answered
 *   problems    array of {"text", "remedy"} about the mirror as a whole
 * The targets of a replicator that does not answer are those of the configuration, state "unknown".
 * Returns owned. */
json_t *status_collect(const struct ctl_mirror *cm);
/* The exit code of a state: CTL_OK, CTL_BEHIND or CTL_BROKEN. */
int status_exit(const json_t *status);
/* Print for people, several lines. */
void status_print(const json_t *status);

/* What a live line needs from one print to the next. */
struct status_live {
	uint64_t files_total; /* of the source, 0 while they are not known */
	uint64_t bytes_total;
	double begin; /* s, monotonic: the first sample of this comparison, 0 for none */
	double bytes; /* sent at the last sample */
	double time;  /* s, monotonic, of it */
	double rate;  /* bytes/s, smoothed */
};

/* Say whether some target's trees are being compared. */
bool status_comparing(const json_t *status);
/* Write the one-line form: progress while comparing, lag afterwards. Returns out. */
const char *status_line(struct status_live *live, const json_t *status, char *out, size_t size);

#endif
