/* SPDX-License-Identifier: BSD-2-Clause
 * An inode that is about to lose a name: by unlink, rmdir, or a rename over it. */
#ifndef TANDEM_FS_VICTIM_H
#define TANDEM_FS_VICTIM_H

#include "fs/tandemfs.h"

struct victim {
	LIST_ENTRY(victim) link; /* in tfs.victims, if listed */
	bool listed;             /* no descriptor of ours holds its number */
	struct inode *inode; /* pinned; NULL if the table does not know it */
	int fd;              /* O_PATH, -1 if it could not be had */
	struct stat st;      /* before */
	uint32_t left;       /* links left, after victim_gone */
};

/* Open what stands at (parent, name), dirfd being the parent's descriptor; if it keeps other links, its dirty bytes are
 * recorded now (Rule 2). Returns 0 or -errno (-ENOENT: nothing there); v needs victim_release in every case. */
int victim_open(struct tfs *fs, struct victim *v, struct inode *parent, int dirfd, const char *name);
/* The name is gone: find out how many links are left. */
void victim_gone(struct tfs *fs, struct victim *v);
/* After its name left the table: if no name is known any more, keep the descriptor while the kernel remembers the inode. */
void victim_keep_locked(struct tfs *fs, struct victim *v);
void victim_release(struct tfs *fs, struct victim *v);

void victims_init(struct victims *list);
/* A new inode was made below and is not entered yet: wait until what had its number before is in the journal. A victim of which no
 * descriptor is held, and on NFS a directory in any case, frees its number as soon as it is removed. */
void victims_await(struct tfs *fs, const struct stat *st);

#endif
