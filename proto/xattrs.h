/* SPDX-License-Identifier: BSD-2-Clause
 * The extended attributes of one inode as one value: read, compared, applied. POSIX ACLs are the
 * attributes system.posix_acl_access and system.posix_acl_default. Left out: security.selinux,
 * trusted.overlay.*, and what the process may not read, and
 * every name outside user, trusted, security and the ACLs (system.nfs4_acl, btrfs.*: the file system's own). */
#ifndef TANDEM_XATTRS_H
#define TANDEM_XATTRS_H

#include "proto/buf.h"

#define XATTR_SET_MAX (1u << 20) /* bytes of an encoded set */

/* Append the encoded set of an inode to out: u16 count, then per attribute, sorted by name, string
 * name and blob value. fd may be O_PATH (then /proc/self/fd is used; for a symlink give dirfd and name
 * instead with fd = -1; dirfd AT_FDCWD: name in the working directory, which needs no /proc). A file system without attributes gives an empty set.
 * Returns 0, -errno, or E_LIMIT. */
int xattrs_read(struct buf *out, int fd, int dirfd, const char *name);
/* Make the inode's attributes exactly those of the encoded set: sets what differs, removes the rest.
 * fd, dirfd, name as above. Setting an ACL changes the mode's group bits, chown
 * drops security.capability: chown before, chmod after. Returns 0 or the first -errno, after trying all; E_PROTO or E_LIMIT
 * for a damaged set, with nothing changed. */
int xattrs_apply(const void *set, size_t len, int fd, int dirfd, const char *name);
/* Give the access ACL of an encoded set, if it has one, the owner's permissions of mode, as chmod(2) would. */
void xattrs_owner(uint8_t *set, size_t len, uint32_t mode);
/* XXH3-64 of an encoded set; 0 for the empty set. */
uint64_t xattrs_digest(const void *set, size_t len);

#endif
