/* SPDX-License-Identifier: BSD-2-Clause
 * What the files of the comparison share; nobody else includes it. The essay is at the top of compare.c.
 *
 * Functions here return 0 or a negative number that ends the comparison (stream error, no memory). What
 * concerns one path only goes through compare_path_failed or compare_again and is no error of the function.
 */
#ifndef TANDEM_COMPARE_PRIV_H
#define TANDEM_COMPARE_PRIV_H

#include <errno.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/tree.h>
#include "proto/path.h"
#include "replicator/source/compare.h"
#include "replicator/source/delta.h"
#include "replicator/source/hardlinks.h"
#include "replicator/source/listing.h"

#define CMP_WINDOW 64 /* directories requested or waiting with their listing */
#define CMP_WINDOW_BYTES                                                                                     \
	(16u << 20)		/* memory those listings may take, as estimated before and counted after */
#define CMP_LISTINGS_MAX                                                                                     \
	(1u << 30)		/* memory that listings take at most, whatever the standby sends: about ten million names at a time */
#define CMP_FILES	 64	/* files under way: block sums awaited, transfers queued */
#define CMP_SMALL	 65536u /* bytes; a file up to this size is sent at once and whole */
#define CMP_STEP_BYTES	 (256u << 10) /* bytes read from files in one step */
#define CMP_STEP_ENTRIES 256	      /* entries in one step */
#define CMP_TRIES	 3	      /* of one path that fails or changes under us */
#define CMP_GUARD_FREE	 100	      /* deletions that the guard never stops in a part of the tree */
#define CMP_PENDING_MAX	 (16u << 20)  /* bytes of names whose deletion waits for the guard */
#define CMP_QUEUE_MAX	 100000	      /* paths scheduled; beyond it everything is compared instead */

#define SUSPECTS_MAX	 1024
#define CMP_AGAIN 0x100u /* internal flag of a job: the guard stopped it once */

/* Deletions that wait until the job knows how many entries there are. */
struct cpending {
	char *names; /* paths, each with its NUL, in the order found */
	size_t len, cap;
	size_t done; /* bytes of names already deleted */
	bool more;   /* there are names beyond CMP_PENDING_MAX */
};

/* One scheduled path and everything below that it leads to. */
struct cjob {
	RB_ENTRY(cjob) queued;	  /* in compare.queue until it starts */
	TAILQ_ENTRY(cjob) active; /* in compare.jobs since then */
	unsigned flags;		  /* CMP_* */
	uint32_t nodes;		  /* alive */
	uint64_t renames;	  /* compare.renames when it began */
	uint64_t seen;		  /* standby entries listed */
	uint64_t dels;		  /* entries that are only on the standby, done and pending */
	struct cpending pending;
	char path[];
};
RB_HEAD(cqueue, cjob);
TAILQ_HEAD(cjobs, cjob);

enum cnode_state { NS_TODO, NS_LISTING, NS_READY, NS_SCAN, NS_KIDS };
enum cnode_flags {
	NF_FRESH = 1,	/* the standby did not have it: made by us, everything below is new */
	NF_SINGLE = 2,	/* one entry only: path is the entry, the directory is its parent */
	NF_SHALLOW = 4, /* directories below are compared as entries, not entered */
	NF_EXTRA = 8,	/* only on the standby: walked to count what a deletion would take */
	NF_KEEP = 16,	/* EXTRA: holds excluded entries, must stay */
	NF_DIRTY = 32,	/* something was put into it: its mtime must be set again */
	NF_DROPPED = 64, /* vanished or moved: do not touch it again */
	NF_INSTEAD = 128 /* EXTRA: the source has something else than a directory in its place */
};

/* A directory under comparison. */
struct cnode {
	TAILQ_ENTRY(cnode) link;  /* in todo, listing or ready, as state says */
	TAILQ_ENTRY(cnode) every; /* in compare.nodes */
	TAILQ_ENTRY(cnode) single; /* SINGLE: in compare.singles */
	RB_ENTRY(cnode) open;	   /* in compare.open, if is_open */
	bool is_open;
	struct cnode *parent;	  /* waits for us; NULL: the job's first */
	struct cjob *job;
	struct listing *listing; /* NULL: not there yet, or FRESH */
	uint32_t kids;		 /* directories, transfers and links below that are not finished */
	uint32_t id;		 /* LIST request */
	uint32_t estimate;	 /* bytes its listing may need */
	uint8_t state, flags;
	uint32_t
	    probe; /* SINGLE: bytes of path asked for, less than its length while an ancestor is looked for */
	uint64_t count; /* EXTRA: entries below */
	ino_t ino;	/* of the source directory, 0 before the scan */
	bool have;	/* old and xdigest hold the standby's */
	struct wattr old;
	uint64_t xdigest;
	char path[];
};
TAILQ_HEAD(cnodes, cnode);
RB_HEAD(copen, cnode);

/* The directory that is being read. One at a time. */
struct cscan {
	struct cnode *node; /* NULL: none */
	int fd;		    /* the source directory; -1: EXTRA */
	bool extras;	    /* names are through, now what only the standby has */
	bool fresh_step;    /* opened in this step: no need to look whether it moved */
	size_t at;	    /* in extras: listing_unmet's place */
	size_t pos, len;    /* in dents */
	dev_t dev;
	struct jtime mtime; /* of the directory: the parent mtime in records */
};

/* An entry on its way through the comparison. Views only. */
struct celt {
	struct cnode *node; /* the directory it is in */
	int dirfd;
	const char *name, *path;
	struct stat st; /* the source's */
	bool have;	/* e holds the standby's entry */
	struct wentry e;
	int fd; /* O_RDONLY descriptor of a regular file, or -1; taken by compare_file */
};

struct cfile;
TAILQ_HEAD(cfiles, cfile);

/* How often a path failed. */
struct ctry {
	RB_ENTRY(ctry) node;
	uint32_t n;
	int64_t when; /* CLOCK_MONOTONIC seconds of the last failure */
	char path[];
};
RB_HEAD(ctries, ctry);

/* A path that is compared, or is to be compared once more. */
struct watched {
	RB_ENTRY(watched) node;
	unsigned flags; /* CMP_* */
	uint8_t round;	/* how often it was compared once more */
	char path[];
};
RB_HEAD(watchset, watched);

struct watch {
	struct watchset watched, stale;
	uint32_t nwatched, nstale;
	uint64_t until; /* the record after whose sending the watch ends; 0: the comparison is under way */
};

struct compare {
	struct compare_env env;
	struct watch watch;
	bool nfs; /* the source is on NFS: its client's names of removed files are not part of it */
	uint64_t renames; /* put into the stream so far */
	struct cqueue queue;
	uint32_t nqueued;
	bool stuck; /* none of them may start until a directory is read, a job ends or the queue changes */
	struct cjobs jobs;
	struct cnodes nodes;		    /* all there are */
	struct cnodes todo, listing, ready; /* stacks: the last pushed goes first */
	struct cnodes singles;
	struct copen open; /* directories from their request until they are read, by path */
	uint32_t nwindow;		    /* nodes in listing, and in ready with a listing */
	uint64_t window_bytes;
	struct cscan scan;
	struct cfiles files;
	uint32_t nfiles;
	struct cfile *sending; /* the one transfer */
	uint32_t nsums;	       /* SUMS requests under way */
	uint64_t retained;     /* bytes of sums kept for rolling searches */
	struct links *links;
	/* Standby inodes that were two files of the source: what went into one name went into the other. Their bytes are compared, whatever
	 * size and mtime say, by a comparison of the root, as only that finds all names. */
	uint64_t suspects[SUSPECTS_MAX];
	uint32_t nsuspects; /* beyond SUSPECTS_MAX: too many to know */
	uint64_t doubted[SUSPECTS_MAX]; /* standby inodes that were suspects for their number of names alone */
	uint32_t ndoubted;
	bool whole;	    /* the root must be compared */
	struct ctries tries;
	uint32_t ntries;
	struct cjobs held; /* jobs that the delete guard stopped (path and flags only) */
	int64_t budget;	   /* bytes left in this step; an entry counts CMP_STEP_BYTES / CMP_STEP_ENTRIES */
	struct compare_progress progress; /* the totals are made when asked for */
	uint64_t dirs_read, dirs_known;	  /* directories of the source opened; found and not opened yet */
	uint64_t bytes_due;		  /* bytes of files found to need sending */
	struct buf rec, xattrs, req;	  /* scratch */
	char path[PATH_LONGEST + PATH_NAME_MAX + 2]; /* scratch: the entry in hand */
	_Alignas(8) char dents[32768];
	uint8_t io[CMP_STEP_BYTES];
	uint8_t zeros[131072];
};

/* compare.c */
/* strcmp with '/' below every other byte: a directory is followed at once by what is below it. */
int compare_path_order(const char *a, const char *b);
int compare_again(struct compare *c, const char *path, unsigned flags, int err, const char *text);
void compare_path_failed(struct compare *c, const char *path, int err, const char *text);
void compare_differs(struct compare *c, const char *path, const char *what);
static inline bool compare_reports(const struct cjob *j)
{
	return (j->flags & CMP_REPORT) != 0;
}
/* Say whether j compares less than the whole tree. */
static inline bool job_partial(const struct cjob *j)
{
	return *j->path || !(j->flags & CMP_RECURSIVE);
}
static inline void compare_spend(struct compare *c, size_t bytes)
{
	c->budget -= (int64_t)bytes + CMP_STEP_BYTES / CMP_STEP_ENTRIES;
}
/* Say whether err of a path says that the source has nothing there: then a record tells, or will. */
static inline bool compare_gone(int err)
{
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP;
}

/* compare_watch.c: what changes meanwhile */
void watch_init(struct watch *w);
void watch_free(struct watch *w);
/* path is scheduled. Returns 0 or -ENOMEM. */
int watch_path(struct compare *c, const char *path, unsigned flags);
/* What is stale below from is stale below to now. Returns 0 or -ENOMEM. */
int watch_renamed(struct compare *c, const char *from, const char *to, bool exchange);

/* compare_dir.c: directories */
struct cnode *node_new(struct compare *c, struct cjob *j, struct cnode *parent, const char *path,
		       unsigned flags);
void node_free(struct compare *c, struct cnode *n);
void node_push(struct compare *c, struct cnode *n);
int node_request(struct compare *c, struct cnode *n);
int node_kid_done(struct compare *c, struct cnode *n);
/* Say whether the directory path is between its request and the end of its reading: what was listed of it may be out of date once
 * something else is put there. */
bool dir_is_open(struct compare *c, const char *path);
/* Say whether n must not be requested yet: one of its entries is compared by itself. */
bool dir_must_wait(const struct compare *c, const struct cnode *n);
int dir_open(struct compare *c, struct cnode *n);
int dir_step(struct compare *c);
int dir_verify(struct compare *c);
int dir_listed(struct compare *c, struct cnode *n, uint32_t code);
/* Count what was appended to n's listing. Returns 0, or E_LIMIT when the standby's listings are more than can be held. */
int node_grown(struct compare *c, struct cnode *n);

/* compare_entry.c: one entry */
int entry_process(struct compare *c, struct celt *el);
uint32_t entry_attr_diff(const struct compare *c, const struct stat *st, const struct wattr *old);
int entry_fix_attrs(struct compare *c, struct cnode *dir, const char *path, const struct stat *st,
		    uint32_t valid, bool xattrs);
int entry_release_links(struct compare *c, struct link_group *g);
/* An inode with several names is about to be changed in place on the standby by j, which may compare less than the whole. */
void entry_doubt_names(struct compare *c, const struct cjob *j, uint64_t standby);

/* compare_ops.c: what is put into the stream */
int op_mkdir(struct compare *c, struct cnode *dir, const char *path, const struct stat *st);
int op_special(struct compare *c, const struct celt *el, const struct jtime *pm);
int op_link(struct compare *c, const char *path, const char *path2, ino_t ino, const struct jtime *pm);
int op_setattr(struct compare *c, const char *path, const struct stat *st, uint32_t valid);
int op_xattrs(struct compare *c, const char *path);
int op_rmtree(struct compare *c, const char *path);

/* compare_del.c: deletions */
int del_entry(struct compare *c, struct cnode *dir, const char *path, bool is_dir);
/* The standby has a directory where the source has el, which is none. Returns 1 if it goes as deletions do and el is compared then, 0 if it can
 * be removed at once. */
int del_instead(struct compare *c, const struct celt *el);
int del_extra_done(struct compare *c, struct cnode *n);
int del_pending_step(struct compare *c, struct cjob *j);
bool del_guarding(const struct compare *c, const struct cjob *j);
/* Say whether the journal tells of every deletion that waits; if so, j is guarded no more. */
bool del_explained(const struct compare *c, struct cjob *j);

/* compare_file.c: contents of regular files */
int compare_file(struct compare *c, struct celt *el, struct link_group *g, uint32_t valid, bool xdiff);
int file_send_small(struct compare *c, int fd, const char *path, const struct stat *st, bool *changed);
/* One piece of work of the files under way: 1 did something, 0 nothing to do now, 2 no room. */
int files_step(struct compare *c);
/* Another file than inode ino may be at path or below it on the standby from this place in the stream on: what was found out about the
 * one that was there is void. */
void files_touched(struct compare *c, const char *path, uint64_t ino);
int files_sumset(struct compare *c, struct buf *payload);
void files_free(struct compare *c);
/* Say whether a transfer of path is under way. */
bool files_has(const struct compare *c, const char *path);
/* The standby refused a transfer: if it is still under way, stop it. */
void files_refused(struct compare *c, uint32_t xid);
int file_open(int dirfd, const char *name);

#endif
