/* SPDX-License-Identifier: BSD-2-Clause
 * What the operations share: names, in-flight notes, records, replies.
 *
 * An operation that changes something goes: op_note -> system call on the directory below -> tree.lock { table,
 * paths, journal_append } -> op_done -> reply (Rule 1 of docs/ARCHITECTURE.md). */
#ifndef TANDEM_FS_OP_H
#define TANDEM_FS_OP_H

#include "fs/inflight.h"
#include "fs/tandemfs.h"

/* Fill this thread's in-flight slot: e's scalars, with the paths of (p1, n1) and (p2, n2). n1 NULL: p1 itself; p2 NULL: one path. */
void op_note(struct tfs *fs, struct worker *w, const struct inflight_entry *e, struct inode *p1, const char *n1,
    struct inode *p2, const char *n2);
void op_done(struct tfs *fs, struct worker *w);

/* Our own directory at the root: nobody sees or makes it. */
bool op_private(const struct tfs *fs, const struct inode *parent, const char *name);
/* The descriptor of parent, pinned, for an operation on (parent, name), or NULL, and then the reply was given: for our own directory hidden, an errno. */
struct dirfd *op_parent(fuse_req_t req, struct worker *w, struct inode *parent, const char *name, int hidden);
/* Modification time of an open (O_PATH) directory; zero when it cannot be read. */
struct jtime op_mtime(int fd);
struct jtime op_jtime(const struct timespec *t);
/* Build the path of (dir, name) into buf and point *path at it; "" when it has none, or none that a record can hold (op_append_deep_locked). */
void op_path_locked(struct tfs *fs, struct inode *dir, const char *name, char *buf, const char **path);
/* Something in dir, or dir itself, has a path longer than PATH_LONGEST: have the nearest directory above it compared, which shows that as an error. Uses buf. */
void op_append_deep_locked(struct tfs *fs, struct inode *dir, char *buf);
/* Of the two paths of r one is too long for a record: have what is at the other one compared, if there is one. */
void op_append_half_locked(struct tfs *fs, struct jrec *r);
/* Append w->rec with the attributes of a new inode at (parent, name). */
void op_append_new_locked(struct tfs *fs, struct worker *w, enum jtype type, struct inode *parent, const char *name,
    const struct stat *st, struct jtime pm);
/* Append a RECHECK of an entry that got the name (dir, name) while recover_walking. Uses w->path2. */
void op_append_recheck_locked(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, uint64_t ino);
/* Say whether an operation that failed with r (negative) may have been done below all the same. strange: the error that it has when it was done before
 * (an NFS client asks once more after its server started again: -EEXIST for what makes a name, -ENOENT for what takes one), 0: none. The kernel does not ask
 * us for what it knows to fail. */
bool op_in_doubt(int r, int strange);
/* Such an operation on (dir, name), or dir itself: have what is there now compared, with all below it if it is a tree. */
void op_doubt(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, bool tree);
/* Append a SETATTR record: the mtime of dir, or of (dir, name). */
void op_append_mtime_locked(struct tfs *fs, struct worker *w, struct inode *dir, const char *name, uint64_t ino, struct jtime mtime);

/* How long the kernel may keep attributes of a file of this mode, in seconds. A directory's for a second only: a reply on its way while another
 * thread makes or removes an entry is older than what the kernel then learns, and the kernel, which tells such replies apart for files, takes it. */
double op_attr_time(const struct tfs *fs, mode_t mode);
/* The inode number that applications see. What lies on another device than the root (a mount or a Btrfs subvolume in the source) may have the number of
 * something else, and the mount has one device for all: there the device is mixed into it, above the low 32 bits. */
uint64_t op_number(const struct tfs *fs, uint64_t dev, uint64_t ino);
void op_fill_entry(struct tfs *fs, const struct inode *i, const struct stat *st, struct fuse_entry_param *e);
/* Reply with an entry; if the kernel did not take it, its lookup is forgotten. */
void op_reply_entry(fuse_req_t req, struct inode *i, const struct stat *st);
/* Reply ENOENT in the way that lets the kernel remember it. */
void op_reply_missing(fuse_req_t req);
/* Reply with an internal error (0 or negative). */
void op_reply(fuse_req_t req, int err);
/* The same after a change of inode ino's attributes of which the kernel keeps no count (a FALLOCATE that keeps the size, extended attributes): it would
 * take an answer under way that is older, a listing's, for the present state. */
void op_reply_changed(fuse_req_t req, fuse_ino_t ino, int err);

#endif
