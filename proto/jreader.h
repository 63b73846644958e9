/* SPDX-License-Identifier: BSD-2-Clause
 * Reads a journal while it is written: maps segments read-only, never beyond committed_seq of the head
 * page, follows SEAL records into the next segment. One reader belongs to one thread. */
#ifndef TANDEM_JREADER_H
#define TANDEM_JREADER_H

#include "proto/jhead.h"
#include "proto/jrec.h"

struct jreader;

/* Open for a journal directory. Borrows dirfd for the reader's life. Returns 0, -errno or E_VERSION. */
int jreader_open(struct jreader **out, int dirfd);
void jreader_close(struct jreader *r);
/* The head page the reader maps. */
struct jhead *jreader_head(struct jreader *r);
/* Position after record seq (0: before the first ever). If digest is not NULL, *digest gets the chain
 * digest there. Returns 0; E_COLLAPSED: seq+1 lies in a range that was collapsed, the reader stands
 * before the COLLAPSED record that covers it; E_GAP: seq+1 was reclaimed or seq lies beyond
 * committed_seq; E_CHECKSUM for a damaged segment. */
int jreader_seek(struct jreader *r, uint64_t seq, uint64_t *digest);
/* The same without the digest, in short time where record seq lies in the segment in which the reader stands, or behind it. */
int jreader_forward(struct jreader *r, uint64_t seq);
/* Decode the next record; release rec afterwards (jrec_release). *raw and *len (may be NULL) get its bytes; they and the views in rec stay
 * valid until the next call that returns 1, a seek, or close. Returns 1, 0 when there is none yet, E_CHECKSUM,
 * E_GAP (the segment was reclaimed or collapsed under the reader: seek again, which tells which; or the
 * journal's epoch changed), E_VERSION, E_PROTO (a record whose checksum holds and whose fields are invalid),
 * -errno. After an error the reader stands where it stood. */
int jreader_next(struct jreader *r, struct jrec *rec, const void **raw, size_t *len);
/* Sequence and chain digest of the record returned last (or sought). */
uint64_t jreader_seq(const struct jreader *r);
uint64_t jreader_digest(const struct jreader *r);
/* Stand before the oldest record that is still there. Returns 0 or as jreader_seek. */
int jreader_rewind(struct jreader *r);
/* Stand before the first record at or after time_ns (CLOCK_REALTIME), or at the end. Returns as jreader_rewind. */
int jreader_seek_time(struct jreader *r, uint64_t time_ns);

#endif
