/* SPDX-License-Identifier: BSD-2-Clause
 * Applying the operations of a batch to the module (docs/ARCHITECTURE.md, Rule 3). One thread; owned by the
 * session. */
#ifndef TANDEM_MODULE_APPLY_H
#define TANDEM_MODULE_APPLY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include "proto/filter.h"
#include "proto/jrec.h"
#include "proto/wire.h"
#include "replicator/module/behind.h"
#include "replicator/module/dirs.h"
#include "replicator/module/newdir.h"
#include "replicator/module/position.h"
#include "replicator/module/reach.h"
#include "replicator/module/redo.h"

#define APPLY_TRANSFERS_MAX 256		 /* open transfers of one connection */
#define APPLY_MEM_TRANSFER  (256u << 10) /* bytes of one transfer kept in memory before it goes to a file */
#define APPLY_MEM_TOTAL	    (16u << 20)	 /* bytes of all transfers kept in memory */
#define APPLY_PIECES_MAX    (1u << 18)	 /* ranges of one WB_PATCH transfer after merging neighbours */
#define APPLY_PIECES_TOTAL  (1u << 20)	 /* ranges of all transfers, in memory */
#define APPLY_CLONE_SMALL                                                                                    \
	(1u << 20) /* bytes: a WB_PATCH of a file up to this size is built aside by copying */

/* What the session does for the applier. */
struct apply_env {
	int rootfd;		     /* the module's directory; borrowed */
	int tmpfd;		     /* .tandem/tmp; borrowed */
	bool no_owner;		     /* owners cannot be set and are not */
	const char *who;	     /* "uid 33 (www)", for messages; borrowed */
	const struct filter *filter; /* paths never touched; may be NULL; borrowed */
	struct position_page *page;  /* borrowed */
	struct behind *behind;	     /* borrowed */
	/* An operation failed for good. */
	void (*fail)(void *arg, const struct wfail *f);
	/* An operation must wait (no space ...): tell the sender and wait a little. Returns 0 to try again,
	 * or an error when the connection ended meanwhile. */
	int (*hold)(void *arg, uint32_t code, int sys_errno, const char *path, const char *text);
	/* The operation that waited has been done. */
	void (*unhold)(void *arg);
	/* Called now and then within long operations; returns 0, or an error when the connection ended. */
	int (*tick)(void *arg);
	void *arg;
};

struct transfer {
	LIST_ENTRY(transfer) link;
	uint32_t xid;
	enum wbegin_mode mode;
	bool failed;	/* FAIL was sent; everything up to COMMIT or ABORT is ignored */
	bool committed; /* its redo log is committed: only redo_apply is left */
	char *path;	/* BEGIN's; owned */
	uint64_t seq;
	struct buf mem;	      /* spooled bytes while file is -1 */
	struct redo_piece *v; /* ranges; owned */
	uint32_t n, cap;
	uint64_t spooled; /* bytes in mem or file (WB_PATCH) */
	int file;	  /* temporary file (WB_NEW) or redo data (WB_PATCH), or -1 */
	char name[32];	  /* WB_NEW: its name in tmp/ */
	struct behind_file behind; /* WB_NEW: what of it went to write-behind */
	uint64_t number;  /* WB_PATCH: its redo log, 0: none yet */
	int old;	  /* old version that COPY reads from, or -1 */
};

#define APPLY_FAILED_MAX 256 /* failed records remembered until the sender counts them as outstanding */

struct apply {
	struct apply_env env;
	uint64_t
	    failed[APPLY_FAILED_MAX]; /* records that FAIL was sent for and that no position listed since */
	uint32_t nfailed;
	bool failed_more; /* there were more: everything is compared if the connection ends now */
	struct dirs dirs;
	struct newdir newdir;
	struct reach reach;
	struct redo redo;
	struct redo_wait wait; /* answers meanwhile */
	LIST_HEAD(, transfer) transfers;
	uint32_t ntransfers;
	uint64_t memory; /* bytes in all mem buffers */
	uint64_t pieces; /* ranges that all transfers have room for */
	uint64_t serial; /* names of temporary files */
	bool no_clone;	 /* the file system has no FICLONE */
	bool no_noreplace; /* it has no RENAME_NOREPLACE */
	bool names_taken;  /* the last new version replaced an old one, so the next one probably does */
	bool only_free;	   /* a COMMIT for the pending CREATE: -EEXIST if the name is taken */
	struct { /* what the last file made in tmp/ was asked for: the next one of this mode is like it */
		mode_t mode; /* 0: it got another one than it was made with */
		uid_t uid;
		gid_t gid;
	} made;
	struct { /* a CREATE put off until it is known whether a COMMIT of the same path follows: apply.c */
		bool set;
		struct wop op; /* the record; a view into the batch */
		const char *path;
		struct jtime pm;
	} pending;
	struct jtime commit_pm;		/* mtime the parent gets with this COMMIT; zero: what it has */
	uint64_t records, files, bytes; /* counters for the log */
};

/* Begin applying; what earlier connections left in tmp/ is removed, committed redo logs are finished. dirfd is .tandem, redofd
 * .tandem/redo (borrowed). restore: the last child was killed, its directories get their times back. replay_all: the host was
 * restarted, finished logs count as unfinished. Returns 0 or -errno. */
int apply_init(struct apply *a, const struct apply_env *env, int dirfd, int redofd, bool restore, bool replay_all);
void apply_release(struct apply *a);
/* Say whether a change in place is committed and not yet made. */
bool apply_owes(const struct apply *a);
/* Apply one operation. Failures of the operation go to env.fail and give 0. Returns 0, E_PROTO (the
 * connection must end), or what hold or tick returned. */
int apply_op(struct apply *a, const struct wop *op);
/* End of a batch, before its bytes go: do what was put off, restore the mtimes of the directories. Returns as
 * apply_op. */
int apply_end_batch(struct apply *a);

/* Transfers: apply_file.c. BEGIN to ABORT. Results as in apply.c; may be called again with the same operation
 * after a failure that waiting can cure. */
int apply_transfer(struct apply *a, const struct wop *op);
struct transfer *apply_transfer_find(struct apply *a, uint32_t xid);
/* Remove an entry and everything below it: rmtree.c. Returns 0 or -errno. */
int apply_rmtree(struct apply *a, const char *path);
/* The same with a directory in tmp/, of which nothing is excluded, whatever it is called. */
int apply_rmtmp(struct apply *a, const char *name);

#endif
