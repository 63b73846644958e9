/* SPDX-License-Identifier: BSD-2-Clause
 * One entry of a directory as (descriptor of the directory, name): attributes without ever following a
 * symlink and without needing /proc (a child in a chroot has none). */
#ifndef TANDEM_MODULE_NODE_H
#define TANDEM_MODULE_NODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include "proto/buf.h"
#include "proto/wire.h"

/* lstat. Returns 0 or -errno. */
int node_stat(int dirfd, const char *name, struct stat *st);
/* Set permission bits (mode & 07777) of anything but a symlink; a symlink is left alone. tmpfd: a directory that is ours alone, on the
 * same file system, for kernels without fchmodat2(2) (before 6.6). Returns 0 or -errno. */
int node_chmod(int dirfd, const char *name, mode_t mode, int tmpfd);
/* Set owner and group; (uid_t)-1 leaves one alone. Returns 0 or -errno. */
int node_chown(int dirfd, const char *name, uid_t uid, gid_t gid);
/* Set the modification time, leave the access time. Returns 0 or -errno. */
int node_mtime(int dirfd, const char *name, struct jtime t);
/* Open a regular file, never anything else: a device or FIFO is recognised before it is opened. flags:
 * O_RDONLY, O_RDWR. Returns a descriptor or -errno (-EISDIR, -ENXIO for what is not a regular file). st is
 * filled. */
int node_open_file(int dirfd, const char *name, int flags, struct stat *st);
/* The same by its path in the module. */
int node_open_path(int rootfd, const char *path, int flags, struct stat *st);
/* Set or remove one extended attribute. They change the process's working directory. Return 0 or -errno. */
int node_setxattr(int dirfd, const char *name, const char *xname, const void *val, size_t n);
int node_removexattr(int dirfd, const char *name, const char *xname);
/* Read the encoded attribute set (proto/xattrs.h) of an entry; make it exactly the given one. As above; -EACCES, not a part, where its owner may not
 * read it. */
int node_xattrs_read(int dirfd, const char *name, struct buf *out);
int node_xattrs_apply(int dirfd, const char *name, const void *set, size_t len);
/* Say whether waiting may cure err: no space, a disk that fails or is read only, no descriptor or memory left. */
bool node_curable(int err);
/* err of a call that sets attributes on fd's file system. ext4 and others say ENOSPC for an attribute that does not fit into the inode's
 * block, however much is free, and waiting does not help: WR_NO_SPACE then. Else err. */
int node_xattr_error(int fd, int err);
/* Bring owner (unless no_owner), permission bits and mtime to the given values, touching only what differs. tmpfd: as for node_chmod.
 */
int node_set_attr(int dirfd, const char *name, const struct wattr *want, bool no_owner, int tmpfd);

#endif
