/* SPDX-License-Identifier: BSD-2-Clause
 * Open files and the bytes changed through them.
 *
 * An inode that is open, or has changed bytes that no CONTENT record names yet, has a struct iopen:
 *
 *   clean --dirty_begin--> writing --dirty_end--> dirty --dirty_emit--> clean
 *
 * dirty_begin comes before the system call that changes bytes: it notes the inode in the in-flight table
 * (a kill from here on is followed by a recheck) and puts it on the dirty list. dirty_emit takes the ranges and appends one
 * CONTENT record; the note and the list entry go only if no write is under way at that moment.
 *
 * "unclosed" remembers that a record without JF_CLOSED was made, so that the last close says so even when nothing
 * more was written. */
#ifndef TANDEM_FS_DIRTY_H
#define TANDEM_FS_DIRTY_H

#include <sys/queue.h>

#include "fs/tandemfs.h"

/* One open handle: fi->fh. */
struct ofile {
	LIST_ENTRY(ofile) link; /* tree.lock */
	struct iopen *io;       /* immutable */
	int fd;                 /* immutable */
	bool writer;            /* immutable: opened for writing */
	bool append;            /* immutable: fd was opened with O_APPEND */
	bool appending;         /* fd has it now, if append; of WRITE, of which the kernel sends one at a time for an inode */
	unsigned refs;          /* tree.lock: the handle itself, and threads that borrow fd */
};

struct iopen {
	struct inode *inode;            /* immutable */
	/* tree.lock */
	LIST_HEAD(, ofile) files;
	unsigned pins;                  /* threads and handles that use it */
	bool listed;                    /* on the dirty list */
	TAILQ_ENTRY(iopen) link;        /* the dirty list */
	/* lock (taken inside tree.lock) */
	pthread_mutex_t lock;
	unsigned writers;               /* handles open for writing */
	unsigned writing;               /* changes under way */
	bool noted;                     /* has an entry in the in-flight table, or the table was full */
	int entry;                      /* that entry, -1 */
	bool unclosed;
	struct extent_set extents;
	struct jcopy *copies;           /* at most JREC_COPIES; src_path owned */
	unsigned ncopies;
};

static inline struct ofile *ofile_of(const struct fuse_file_info *fi)
{
	return (struct ofile *)(uintptr_t)fi->fh;
}

/* Start and stop the thread that records what stays dirty for a second. Return 0 or -errno. */
int dirty_start(struct tfs *fs);
void dirty_stop(struct tfs *fs);

/* Make a handle of an open descriptor (taken). NULL when memory is out (fd stays the caller's). */
struct ofile *ofile_open_locked(struct tfs *fs, struct inode *i, int fd, int flags);
/* The kernel released the handle: record the content if it was the last writer, close. */
void ofile_release(struct tfs *fs, struct ofile *f);
enum ofile_kind {
	OFILE_ANY,
	OFILE_WRITER, /* open for writing */
	OFILE_PLACES  /* a writer that writes where it is told to (no O_APPEND) */
};
/* Borrow the descriptor of an open handle of this kind, or NULL. */
struct ofile *ofile_borrow_locked(struct inode *i, enum ofile_kind kind);
void ofile_return(struct tfs *fs, struct ofile *f);

/* The open state of an inode, made if missing; pinned. NULL when memory is out. */
struct iopen *iopen_get(struct tfs *fs, struct inode *i);
void iopen_put(struct tfs *fs, struct iopen *io);

/* Bytes are about to change, and have changed in [start, end) (start == end: nothing has). What failed may have changed some of them, and attributes. */
void dirty_begin(struct tfs *fs, struct iopen *io);
void dirty_end(struct tfs *fs, struct iopen *io, uint64_t start, uint64_t end);
/* The same for a change of the size to size, where r tells how it went: what a disk did not finish (full, broken, away) is at an unknown size. */
void dirty_end_truncate(struct tfs *fs, struct iopen *io, int r, uint64_t size);
/* Say whether a handle is open for writing; if not, a change has to be recorded at once. */
bool dirty_has_writer(struct iopen *io);
/* A hint for the range that dirty_end will name. */
void dirty_copy(struct iopen *io, const struct jcopy *hint);
/* Append a CONTENT record for what is dirty, if anything is. fd: the inode, any access. */
void dirty_emit(struct tfs *fs, struct iopen *io, int fd, uint16_t flags);
/* The same for an inode that may be open, before its names change. */
void dirty_emit_inode(struct tfs *fs, struct inode *i);
/* An attribute of inode i changed, and we know none of the names it still has: a CONTENT record without ranges has it compared.
 * fd: the inode, any access. Uses w->rec and w->path. */
void dirty_nameless_locked(struct tfs *fs, struct worker *w, struct inode *i, int fd);
/* Record everything dirty now. */
void dirty_emit_all(struct tfs *fs);
/* How many inodes are dirty. */
size_t dirty_count(struct tfs *fs);

#endif
