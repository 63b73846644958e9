/* SPDX-License-Identifier: BSD-2-Clause
 * Find the file of a CONTENT record where it is now (D7). */
#ifndef TANDEM_LOCATE_H
#define TANDEM_LOCATE_H

#include <sys/stat.h>
#include "proto/filter.h"
#include "replicator/source/inoset.h"
#include "replicator/source/window.h"

struct locate {
	int rootfd;             /* borrowed */
	const struct window *w; /* records ahead, borrowed; NULL: none in memory */
	size_t next;            /* index of the first record ahead */
	int jdirfd;             /* journal, to read on behind the window; -1: do not */
	uint64_t after;         /* without a window: the record from which names are followed */
	bool no_births;         /* the clock was set back: a file may seem younger than its own records */
};

/* Open a regular file by path for reading, if its inode number is ino. *st gets its attributes. Returns a descriptor, E_GONE when the path is something else or
 * nothing, or -errno. */
int locate_path(int rootfd, const char *path, uint64_t ino, struct stat *st);
/* Open the inode of rec, a CONTENT record: at its path, or where the records ahead say it went, or by its handle, or, if it had several names,
 * by a search of the tree. *st gets its attributes. Returns a descriptor (owned by the caller); E_GONE when the records say that it lost its last name,
 * also if its number is another file's by now; -EAGAIN when it was not found, E_CHANGED when only a younger file of its number was, and nothing says why:
 * an operation may be done below and not yet be in the journal; -ENOENT when there was too much to read; or -errno (-EACCES, -EIO ...) when it is there but cannot
 * be opened. */
int locate_open(const struct locate *l, const struct jrec *rec, struct stat *st);
/* Say whether path is inode ino, of whatever type. */
bool locate_is(int rootfd, const char *path, uint64_t ino);
/* Search the tree for any name of an inode; the last resort, for a file whose recorded names are gone while it has others. Returns true
 * with path filled, or false. */
bool locate_name(int rootfd, uint64_t ino, char *path, size_t size);
/* Search the tree for the names of the inodes in set that the filter does not exclude, and call found with each; with inode 0 for a directory that cannot be
 * read or is too deep, in which there may be others. Returns 0, what found returned that was not 0, or -errno. */
int locate_aliases(int rootfd, const struct filter *filter, const struct inoset *set, int (*found)(void *arg, uint64_t ino, const char *path), void *arg);

#endif
