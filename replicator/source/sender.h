/* SPDX-License-Identifier: BSD-2-Clause
 * Live records: from the journal to operations in the stream, in order, with the transformations of DESIGN.md. */
#ifndef TANDEM_SENDER_H
#define TANDEM_SENDER_H

#include "replicator/source/bulk.h"
#include "proto/jreader.h"

struct sender;

struct sender_env {
	struct stream *stream; /* borrowed, as all of these */
	struct bulk *bulk;
	const struct mirror *mirror;
	int rootfd, jdirfd;
};

enum sender_result {
	SR_IDLE = 0, /* no record to read */
	SR_WORK = 1, /* some were sent */
	SR_WAIT = 2  /* a record waits for bulk work, or for room in the stream */
};

struct sender_pos {
	uint64_t seq, digest;
	uint64_t time_ns; /* of the oldest record since the last flush, CLOCK_REALTIME, 0: none */
};

int sender_new(struct sender **out, const struct sender_env *env);
void sender_free(struct sender *s);
/* Read from here on. Borrows the reader, which stands after record seq with digest. What the window holds is forgotten. */
void sender_read(struct sender *s, struct jreader *r, uint64_t seq, uint64_t digest);
/* Records up to seq may have been applied already: they were in the journal when this connection began, where sender_read was told to. */
void sender_replay(struct sender *s, uint64_t seq);
/* The content of inode ino, record seq, will not be sent because it is gone: in an earlier connection, or after it was put off. linked: it
 * had several names. Returns 0 or -ENOMEM. */
int sender_hollow(struct sender *s, uint64_t ino, uint64_t seq, bool linked);
/* See phantoms_leave, phantoms_doubt, phantoms_compared. */
int sender_leave(struct sender *s, uint64_t ino, uint64_t seq);
void sender_doubt(struct sender *s);
void sender_compared(struct sender *s);
/* The standby may lack bytes or attributes of inode ino: the comparison brings them, under another name if it loses the one by which that knows it. */
void sender_lacking(struct sender *s, uint64_t ino);
/* Say whether that was said of ino, or of too many to know. */
bool sender_is_lacking(const struct sender *s, uint64_t ino);
/* See phantoms_unended, phantoms_give_up. */
bool sender_unended(const struct sender *s, uint64_t *ino, uint64_t *seq);
int sender_give_up(struct sender *s, uint64_t ino);
/* A comparison is under way, or was until now: what it put is of the source as it is now. */
void sender_ahead(struct sender *s);
/* Send a slice of records. Returns enum sender_result; a stream error; or an error of the journal (E_GAP, E_CHECKSUM, E_VERSION). */
int sender_step(struct sender *s);
/* Put what is owed and the position, if anything moved, and flush. Returns 1 if a frame went out, 0, or an error. */
int sender_flush(struct sender *s);
/* The position up to which everything is in the stream. */
void sender_pos(const struct sender *s, struct sender_pos *out);
/* The last record taken that gave or took a name, or the one after which this reader began. */
uint64_t sender_moved(const struct sender *s);
/* The smallest outstanding sequence number of the last POS, 0: none. */
uint64_t sender_outstanding(const struct sender *s);
/* The time of the oldest record in the window that is not sent, CLOCK_REALTIME ns, 0: none. */
uint64_t sender_waiting(const struct sender *s);
/* Say whether the sender waits for its time (sender_timeout), and not for records. */
bool sender_waits(const struct sender *s);
/* Milliseconds until a held record is sent all the same, -1: none is held. */
int sender_timeout(const struct sender *s);
/* Records sent as operations, files sent: since sender_new. */
void sender_counts(const struct sender *s, uint64_t *records, uint64_t *files);

#endif
