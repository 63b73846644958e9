/* SPDX-License-Identifier: BSD-2-Clause
 * Inodes that exist in the journal and not, or not with their content, on the standby (DESIGN.md, "Phantoms"). */
#ifndef TANDEM_PHANTOM_H
#define TANDEM_PHANTOM_H

#include "replicator/source/window.h"

enum phantom_state {
	PS_REAL = 0,    /* not in the table */
	PS_NONE = 1,    /* no name on the standby */
	PS_STANDIN = 2, /* the file it replaced still stands under its name */
	PS_HOLLOW = 3,  /* its name is there, its content will never come; or it may be there, from an earlier connection */
	PS_LEFT = 4,    /* what the standby has of it may be half a version: the comparison brings it */
	PS_BORN = 5     /* while all others are doubted: everything of it was sent in this connection */
};

enum phantom_act {
	PA_SEND = 0,   /* send the record as it is */
	PA_DROP = 1,   /* send nothing (the parents' times are owed) */
	PA_UNLINK = 2, /* RENAME: remove the old name instead */
	PA_BACK = 3,   /* exchange: the phantom's old name (path) is removed if it is there, then path2 is renamed to path */
	PA_ON = 4,     /* exchange: the phantom's old name (path2) is removed if it is there, then path is renamed to path2 */
	PA_NEITHER = 5, /* exchange of two phantoms: both names are removed if they are there */
	PA_LEAVE = 6,  /* send nothing, compare the record's paths */
	PA_WHOLE = 7   /* CONTENT: send the whole file; then phantoms_whole */
};

struct phantoms;

int phantoms_new(struct phantoms **out);
void phantoms_free(struct phantoms *p);
/* Records up to seq may have been applied after the position that this connection began with. */
void phantoms_replay(struct phantoms *p, uint64_t seq);
enum phantom_state phantoms_state(const struct phantoms *p, uint64_t ino);
/* The content of inode ino (record seq) was skipped because it is gone; linked: it had several names. Returns 0 or -ENOMEM. */
int phantoms_hollow(struct phantoms *p, uint64_t ino, uint64_t seq, bool linked);
/* The same of an inode whose CREATE was not sent either. */
int phantoms_skip(struct phantoms *p, uint64_t ino, uint64_t seq);
/* The bytes of inode ino that the standby has not got are left to the comparison: until it has all of them nothing takes its place for
 * them. */
int phantoms_leave(struct phantoms *p, uint64_t ino, uint64_t seq);
/* The whole content of the inode was sent. */
void phantoms_whole(struct phantoms *p, uint64_t ino);
/* Records that an earlier connection sent in part are not replayed: doubt every file that is not born from here on, when it is renamed. */
void phantoms_doubt(struct phantoms *p);
/* Everything was compared: what was left or doubted is as it should be. */
void phantoms_compared(struct phantoms *p);
/* Who resumes must know the hollow ones: their records count as outstanding. Returns how many they are, and puts their numbers into out; if these are more than max, the
 * smallest first. */
uint32_t phantoms_outstanding(const struct phantoms *p, uint64_t *out, uint32_t max);
/* Say whether a hollow one is left, of which a record was skipped: *ino, and the record *seq. */
bool phantoms_unended(const struct phantoms *p, uint64_t *ino, uint64_t *seq);
/* Hollow inode ino is left to the comparison after all: its end, which the journal should have, did not come. Returns 0 or -ENOMEM. */
int phantoms_give_up(struct phantoms *p, uint64_t ino);
/* Decide about the next record of the stream, in order, and move the states it concerns. CONTENT records are
 * dropped for every phantom. Returns the act, or -ENOMEM. */
int phantoms_decide(struct phantoms *p, const struct wrec *e);

#endif
