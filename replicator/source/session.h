/* SPDX-License-Identifier: BSD-2-Clause
 * One connection to one module daemon, from WELCOME to its end. Everything here belongs to the target's thread; what others may see is
 * in struct target_view, under its lock. */
#ifndef TANDEM_SESSION_H
#define TANDEM_SESSION_H

#include <pthread.h>
#include "proto/conn.h"
#include "replicator/source/mountlink.h"
#include "replicator/source/sender.h"
#include "replicator/source/target.h"

#define LAG_MAX 64 /* batches whose age is remembered */

/* What the target's thread shows to others and what they ask of it. */
struct target_view {
	pthread_mutex_t lock;       /* protects everything below */
	enum target_state state;
	char error[512];            /* why it is not replicating, "" if it is */
	bool connected, attached, busy, caught_up;
	bool paused, stop, sync;    /* asked by others */
	bool resync, allow;         /* asked by others */
	struct vjob *verify;        /* asked by others; a reference, NULL: none */
	uint64_t applied;           /* last record applied by the standby */
	uint64_t durable;           /* records up to it are durable with nothing outstanding */
	uint64_t reclaim;           /* records up to it are not needed for this target any more */
	uint64_t oldest_ns;         /* time of the oldest record not yet applied, 0: none */
	uint64_t bytes_left;        /* known to be unsent */
	uint64_t files, sent, received;
	struct compare_progress progress;
	bool comparing;
	uint8_t journal_id[16];     /* what durable refers to */
};

struct session {
	const struct target_env *env;   /* borrowed, as the next five */
	struct target_view *view;
	struct failures *failures;
	struct mountlink *link;
	int wakefd, stopfd;
	struct conn *conn;              /* owned, as what follows */
	struct stream *stream;
	struct bulk *bulk;
	struct sender *sender;
	struct jreader *reader;
	struct jreader *failed;         /* stands where a record failed last; NULL: none did */
	struct vrun *verify;
	struct wwelcome welcome;
	bool no_owner, guarded;
	char held[512];                 /* text of HOLD, "" if not held */
	struct wack ack;
	uint64_t rx_ns, ping_ns;        /* last sign of the peer; PING sent and not answered, 0: none */
	uint64_t said_ns;               /* begin of the minute in which lines that the peer causes are counted */
	unsigned said;                  /* those lines */
	bool readable;                  /* conn has something to do */
	bool mount_moved;               /* poll said something about the mount's socket */
	uint64_t attach_ns;             /* when to try to attach again */
	uint64_t unended_ns;            /* when the end of a file that is gone is waited for no more, 0: for none */
	uint64_t unended_seq;           /* the position then */
	uint64_t unreadable;            /* a record that the journal could not give, 0: none; outlives the connection */
	uint64_t view_ns;               /* when the view was published */
	struct { /* SYNC: one at a time */
		uint64_t token;         /* last sent */
		bool pending, dirty;    /* dirty: something was sent since the last one */
		uint64_t dirty_ns;      /* since when */
		uint64_t covers;        /* position that the pending one makes durable */
		uint64_t bytes, durable; /* of the stream: before the pending one; before the last SYNCED */
		bool whole;             /* no full comparison was under way when it was sent */
	} sync;
	struct { /* batches not yet applied */
		uint64_t seq[LAG_MAX], time_ns[LAG_MAX];
		unsigned first, n;
	} lag;
	uint64_t saved, saved_ns;       /* position written to targets/ */
	uint64_t sent_ns;               /* when live records were last sent */
	unsigned burst;                 /* how often in a row that was soon after the time before */
};

/* Open stream, reader, sender on conn after WELCOME, decide where to begin (resume.c), and replicate until the connection ends.
 * Takes conn. why gets a sentence when it ends by an error. Returns 0 or -ECANCELED when asked to stop, or an error; E_REFUSED when the peer refused. */
int session_run(struct session *s, char *why, size_t size);

/* resume.c: from WELCOME to the first record to send: positions the reader and schedules what must be compared or sent again.
 * Returns 0 or an error. */
int resume(struct session *s);

/* frames.c: handle all frames that arrived. Returns 0 or an error; why as above. */
int session_frames(struct session *s, char *why, size_t size);
/* Compare what inode ino, record seq, is called now, instead of waiting for the record of its end. Returns 0, or an error of the journal or -ENOMEM. */
int session_give_up(struct session *s, uint64_t ino, uint64_t seq);

#endif
