/* SPDX-License-Identifier: BSD-2-Clause
 * Shared by sender.c (which record is next, and what becomes of it) and sender_record.c (how one is sent). */
#ifndef TANDEM_SENDER_INT_H
#define TANDEM_SENDER_INT_H

#include "replicator/source/deaths.h"
#include "replicator/source/inoset.h"
#include "replicator/source/owed.h"
#include "replicator/source/phantom.h"
#include "replicator/source/sender.h"
#include "replicator/source/window.h"

struct sender {
	struct sender_env env;
	struct jreader *reader; /* borrowed */
	struct window *w;
	size_t at;              /* next record of the window */
	struct phantoms *phantoms;
	struct deaths *deaths;  /* in the records (resumed, replay], NULL: not read yet */
	uint64_t resumed, replay;
	struct owed owed;
	struct buf scratch;
	struct sender_pos pos;
	uint64_t flushed;       /* seq of the last POS */
	uint64_t first_out;     /* smallest outstanding of the last POS */
	uint64_t moved;         /* seq of the last record that gave or took a name, or may have */
	uint64_t records, files;
	uint64_t ahead;         /* the journal's end when a comparison was last under way */
	uint64_t unsure_ns;     /* since when the file of the present record is looked for in vain, 0: it is not */
	uint64_t hold_ns;       /* when the CREATE at the end of the window is sent all the same, 0: none is held */
	unsigned young;         /* files that were younger than their records without a reason */
	int32_t created;        /* index of the held CREATE that was sent after all, -1: none */
	struct inoset lacking;  /* inodes of which the standby may lack bytes or attributes, until all is compared */
	uint64_t out[WPOS_OUT_MAX + 1]; /* of one too many the smallest is still known */
};

/* Send record i of the window as act says, PA_DROP and PA_LEAVE included. Returns 0 (sent or not to be sent), SR_WAIT, or an error. */
int record_send(struct sender *s, size_t i, enum phantom_act act);

#endif
