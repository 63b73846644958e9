/* SPDX-License-Identifier: BSD-2-Clause
 * A standby in the test's own process: implements stream.h, applies every operation to a directory at once,
 * and queues the replies to LIST and SUMS until the test delivers them. Encodes and decodes everything, as
 * the wire would. */
#ifndef TANDEM_TEST_STANDBY_H
#define TANDEM_TEST_STANDBY_H

#include "replicator/source/compare.h"

struct standby_counts {
	uint64_t ops[16]; /* by wop_type */
	uint64_t bytes;	  /* encoded operations and requests and replies */
	uint64_t data;	  /* bytes of DATA */
	uint64_t holes;	  /* bytes of HOLE */
	uint64_t copied;  /* bytes of COPY */
	uint64_t lists, sums;
	uint64_t window; /* most LIST requests unanswered at one time */
};

/* Serve the directory rootfd. */
struct stream *standby_new(int rootfd, const struct mirror *m);
void standby_free(struct stream *s);
struct standby_counts *standby_counts(struct stream *s);
/* Deliver the oldest reply to c. Returns false if there is none. */
bool standby_deliver(struct stream *s, struct compare *c);
/* The next COMMIT is answered with a FAIL of this code instead of being applied. */
void standby_fail_next(struct stream *s, uint32_t code);

#endif
