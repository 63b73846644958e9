/* SPDX-License-Identifier: BSD-2-Clause
 * A descriptor of an inode for one operation. */
#ifndef TANDEM_FS_INODEFD_H
#define TANDEM_FS_INODEFD_H

#include "fs/tandemfs.h"

struct dirfd;
struct ofile;

/* One of: an open handle, the descriptor kept of a removed inode, a cached directory, an own O_PATH descriptor. */
struct ifd {
	int fd;
	bool path_only;      /* O_PATH: not for read, write, fgetxattr ... */
	struct dirfd *dir;   /* given back */
	struct ofile *file;  /* given back */
	bool own;            /* closed */
};

/* Get a descriptor of i by whatever way it can be reached; what is opened by a name is accepted only if it is i.
 * Returns 0, or -errno (-ESTALE: it vanished behind our back). */
int ifd_get(struct tfs *fs, struct inode *i, struct ifd *out);
void ifd_put(struct tfs *fs, struct ifd *f);
/* "/proc/self/fd/N" for calls that take only a path; it reaches the inode itself, a symlink too. */
#define IFD_PROC_MAX 32
const char *ifd_proc(const struct ifd *f, char out[IFD_PROC_MAX]);
/* stat of i without opening it. Returns 0 or -errno. */
int ifd_stat(struct tfs *fs, struct inode *i, struct stat *st);
/* Open a regular file i: openat(2) flags without O_CREAT, O_EXCL, O_TRUNC. Returns a descriptor the caller owns, or -errno. */
int ifd_open(struct tfs *fs, struct inode *i, int flags);

#endif
