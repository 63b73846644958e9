/* SPDX-License-Identifier: BSD-2-Clause
 * Comparison and repair (docs/ARCHITECTURE.md, Rule 4): brings paths of the standby to the source's present
 * state, or only reports what differs. Runs in the target's thread in small steps, as bulk work. */
#ifndef TANDEM_COMPARE_H
#define TANDEM_COMPARE_H

#include "proto/mirror.h"
#include "replicator/source/stream.h"

struct compare;

enum compare_flags {
	CMP_RECURSIVE = 1, /* the tree below */
	CMP_CHECKSUM = 2,  /* compare bytes also where size and mtime are equal */
	CMP_REPORT = 4,	   /* change nothing, report only */
	CMP_ALLOW = 8,	   /* what is only on the standby may go without the guard: the journal or the operator said so */
	CMP_SELF = 16	   /* of a directory its own attributes alone */
};

struct compare_progress {
	uint64_t entries, files_sent, bytes_sent; /* so far */
	/* Expected for entries and bytes_sent: what was found so far, and as much again for each directory
	 * that is known and not read yet as the others had on average. Grows while a deep tree is walked;
	 * exact at the end. */
	uint64_t files_total, bytes_total;
	uint64_t differences, deletions;
};

struct compare_env {
	struct stream *stream;	     /* borrowed */
	int rootfd;		     /* the source root; borrowed */
	const struct mirror *mirror; /* filter, delete, delete guard; borrowed */
	bool no_owner;		     /* the standby cannot set owners: do not compare them */
	int jdirfd;		     /* the journal, whose word lets deletions pass the guard; -1: none; borrowed */
	bool watch;		     /* the caller tells what changes meanwhile (compare_changed, compare_sent) */
	/* Called for every difference: what is static text such as "missing on the standby", "bytes differ".
	 * May be NULL. */
	void (*differs)(void *arg, const char *path, const char *what);
	/* Called once per path that could not be read or compared; the path is reported and retried by the
	 * caller. */
	void (*failed)(void *arg, const char *path, int err, const char *text);
	/* The delete guard stopped deletions: n of total entries. The comparison goes on without deleting and
	 * ends held. */
	void (*guarded)(void *arg, uint64_t n, uint64_t total);
	void *arg;
};

int compare_new(struct compare **out, const struct compare_env *env);
void compare_free(struct compare *c);
/* Schedule a path ("" is the root). Merged with what is already scheduled. Returns 0 or -ENOMEM. */
int compare_add(struct compare *c, const char *path, unsigned flags);
/* A rename (or exchange) was put into the stream: what was scheduled below the old name is scheduled under the new one
 * instead, what was under way there as well, with the same flags. Returns 0 or -ENOMEM. */
int compare_renamed(struct compare *c, const char *from, const char *to, bool exchange);
/* Return the flags with which just this path is scheduled or under way, 0 if it is not. */
unsigned compare_scheduled(struct compare *c, const char *path);
/* An operation that puts a file at path, the source's inode ino or (0) another one or none, was put into the stream: a patch that is being
 * prepared for what was there is given up unless it is for ino, and the path is compared again. */
void compare_touched(struct compare *c, const char *path, uint64_t ino);
/* A record that changes path was put into the stream. If the path is scheduled, under way, or was while records were still to be sent, it is
 * compared once more with flags, after what is scheduled and the records; but not if it was `rounds` times already. Returns 1 if so, 0 if not,
 * or -ENOMEM. */
int compare_changed(struct compare *c, const char *path, unsigned flags, unsigned rounds);
/* Records up to `sent` were put into the stream, of a journal that ends at head. Returns 1 if something may have been scheduled, 0, or -ENOMEM. */
int compare_sent(struct compare *c, uint64_t sent, uint64_t head);
/* Do a bounded piece of work (at most about 256 KiB or a few hundred entries). Returns 1: call again when
 * there is room; 0: nothing to do until a reply arrives or a path is added; negative: stream error. */
int compare_step(struct compare *c);
/* Feed LISTING and SUMSET payloads. Returns 0 or E_PROTO. */
int compare_listing(struct compare *c, struct buf *payload);
int compare_sumset(struct compare *c, struct buf *payload);
/* A FAIL for an operation of this comparison arrived (its record is 0): its path is compared again, a few times a minute at most, then
 * it is reported. */
void compare_fail(struct compare *c, const struct wfail *f);
/* Say whether the guard holds deletions back. */
bool compare_held(const struct compare *c);
/* Say whether anything is scheduled, under way, or may have to be compared once more. */
bool compare_busy(const struct compare *c);
/* Say whether anything is scheduled or under way. */
bool compare_active(const struct compare *c);
/* The operator allows the deletions that the guard held back. */
void compare_allow_deletes(struct compare *c);
void compare_progress(const struct compare *c, struct compare_progress *out);

#endif
