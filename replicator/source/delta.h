/* SPDX-License-Identifier: BSD-2-Clause
 * The rolling search: finds blocks of the standby's version of a file anywhere in the source's version, so
 * that content that moved (an insertion at the front) is copied on the standby instead of being sent. Pure:
 * no files, no network. */
#ifndef TANDEM_DELTA_H
#define TANDEM_DELTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DELTA_BLOCKS_MAX 65536u	    /* blocks searched at once */
#define DELTA_RUN_MAX	 (8u << 20) /* bytes of one match; longer runs become several */

struct delta;

/* The sums of one block of the standby's version, as in SUMSET. weak 0 and strong all zero: a hole or
 * unknown, never matched. */
struct delta_sum {
	uint32_t weak;
	uint8_t strong[16];
};

/* A range of the new version that the old version holds. */
struct delta_match {
	uint64_t dst; /* bytes, in the new version */
	uint64_t src; /* bytes, in the old version */
	uint64_t len; /* bytes, at most DELTA_RUN_MAX */
};

/* Say whether the sums are those of a hole. */
bool delta_is_hole(const struct delta_sum *s);
/* Choose a block size for a file: about the square root of its size, a power of two between 4 KiB and 128
 * KiB. */
uint32_t delta_block(uint64_t size);

/* Make a search for n whole blocks of block bytes; sums[i] is the block at i * block. key is the session's
 * seed. Borrows sums until delta_free. Returns 0, -ENOMEM, or E_LIMIT for n above DELTA_BLOCKS_MAX. */
int delta_new(struct delta **out, const struct delta_sum *sums, size_t n, uint32_t block,
	      const uint8_t key[8]);
void delta_free(struct delta *d);
/* Feed the next bytes of the new version. Returns 0 or -ENOMEM. */
int delta_feed(struct delta *d, const void *data, size_t n);
/* The next n bytes are a hole: nothing matches them or reaches across. */
void delta_skip(struct delta *d, uint64_t n);
/* The matches, ascending by dst, disjoint; valid until delta_free. *bytes (may be NULL) gets the sum of their
 * lengths. */
const struct delta_match *delta_matches(const struct delta *d, size_t *n, uint64_t *bytes);

#endif
