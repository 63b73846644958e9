/* SPDX-License-Identifier: BSD-2-Clause
 * The module's position: what has been applied of which journal. Two copies in .tandem/:
 *
 *   position   written in place at every WOP_POS, not synced: it survives a kill of the daemon, since the
 * page cache does. (Not mapped: on a copy-on-write file system a full disk would turn a store into SIGBUS;
 * pwrite reports it.) durable    a small file, replaced after a syncfs(2) of the module. It survives a power
 * failure.
 *
 * Which one counts when a connection begins:
 *
 *   same boot, nothing unsettled      applied = position page
 *   same boot, a move unsettled       applied = position page, and WW_UNCLEAN: the child was killed within a
 * batch that renamed or linked, so the records after the position must not be replayed blindly another boot,
 * page marked clean   applied = position page (the daemon ended in order and synced) another boot otherwise,
 * or a sync of the file system failed         applied = durable, and WW_UNCLEAN: later records may be half on
 * disk
 *
 * Format of both: two slots of POSITION_SLOT bytes in the page (the newer valid generation counts), one in
 * the file; each slot is the encoding of struct position with an XXH3-64 at its end. */
#ifndef TANDEM_MODULE_POSITION_H
#define TANDEM_MODULE_POSITION_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/wire.h"

#define POSITION_SLOT 12288u /* bytes: room for WPOS_OUT_MAX outstanding numbers */

enum position_flags {
	POSITION_RESYNC = 1,  /* a full comparison is under way */
	POSITION_ADOPTED = 2, /* files were here before the marker, and no comparison has ended yet */
	POSITION_CLEAN = 4,   /* the last child ended in order and synced */
	POSITION_LOST = 8     /* a sync failed: only the durable copy can be believed */
};

struct position {
	uint64_t generation; /* counts writes; the higher valid slot counts */
	uint8_t boot[16];    /* boot that wrote it */
	uint32_t flags;	     /* POSITION_* */
	uint64_t unsettled;  /* record of a rename or link applied after pos.seq, 0: none */
	struct wpos pos;
	uint32_t nout; /* outstanding sequence numbers */
	uint64_t out[WPOS_OUT_MAX];
};

struct position_page {
	int fd;		     /* .tandem/position; -1 when closed */
	uint8_t boot[16];    /* this boot */
	struct position now; /* what the newer slot holds */
};

/* Encode and decode one slot. put returns the bytes used; get returns 0, E_TORN (empty) or E_CHECKSUM; *p is zero
 * with an error. */
size_t position_put(uint8_t slot[POSITION_SLOT], const struct position *p);
int position_get(const uint8_t slot[POSITION_SLOT], struct position *p);

/* Open or make dirfd/position, choose what counts by the table above, and mark the page as in use by this
 * boot. *unclean says that WW_UNCLEAN is to be reported; *settle that a sync is needed before the position
 * may be called durable. Returns 0 or -errno. */
int position_open(struct position_page *pp, int dirfd, const uint8_t boot[16], bool *unclean, bool *settle);
/* Store pp->now in the older slot: one checksum and one write. A kill at any instant leaves the old or the
 * new one. Returns 0 or -errno. */
int position_store(struct position_page *pp);
/* Remember, before it is applied, that a record which must not be replayed is applied beyond the position.
 * Returns 0 or -errno. */
int position_unsettle(struct position_page *pp, uint64_t seq);
void position_close(struct position_page *pp);
/* The connection ends in order and everything is on disk: say so, durably. Returns 0 or -errno. */
int position_clean(struct position_page *pp);
/* Replace dirfd/durable. Durable on return. */
int position_save(int dirfd, const struct position *p);
/* Read dirfd/durable. Returns 0, -ENOENT, E_TORN or E_CHECKSUM. */
int position_load(int dirfd, struct position *p);

#endif
