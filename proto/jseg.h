/* SPDX-License-Identifier: BSD-2-Clause
 * Journal segments: files of a fixed, preallocated size that hold a 64-byte header and records.
 * File name: 16 hex digits of the first sequence number + ".seg". Life: NNN.seg.new (being prepared)
 * -> NNN.seg (written; the last one is open, the others end in a SEAL record) -> unlinked
 * (acknowledged by every target) or moved to quarantine/ (damaged).
 *
 *   off size
 *     0    8  magic "TJSEG\0\0\1" (the last byte is the format version)
 *     8   16  journal id
 *    24    8  epoch
 *    32    8  first sequence number
 *    40    8  chain digest before the first record
 *    48    8  segment size in bytes
 *    56    8  XXH3-64 of bytes 0..55 */
#ifndef TANDEM_JSEG_H
#define TANDEM_JSEG_H

#include <stddef.h>
#include <stdint.h>

#define JSEG_HEADER   64u
#define JSEG_SIZE     (16u << 20) /* bytes of a segment by default */
#define JSEG_SIZE_MIN (1u << 16)
#define JSEG_SIZE_MAX (1u << 30)
#define JSEG_NAME_LEN 21 /* with the NUL */
#define JSEG_NUMBER_MAX (1ull << 62) /* of sequence numbers and epochs: counting never comes there, damage does */

struct jseg {
	uint8_t journal_id[16];
	uint64_t epoch;
	uint64_t first_seq;
	uint64_t chain;
	uint64_t size;
};

void jseg_put(uint8_t out[JSEG_HEADER], const struct jseg *s);
/* Returns 0, E_VERSION, E_CHECKSUM or E_LIMIT (size or numbers beyond what they may be). */
int jseg_get(struct jseg *s, const void *data, size_t len);
void jseg_name(char out[JSEG_NAME_LEN], uint64_t first_seq);
/* List the segments of a journal directory, sorted by first sequence number. *seqs is owned by the caller.
 * Returns the count or -errno. */
int jseg_list(int dirfd, uint64_t **seqs);

#endif
