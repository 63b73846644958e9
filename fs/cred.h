/* SPDX-License-Identifier: BSD-2-Clause
 * With whose ids a thread makes new things.
 *
 * Creating operations run with the caller's file system uid and gid and the caller's umask, so that
 * owners, set-gid directories and default ACLs come out as on the directory below, and so do all that may need space
 * there, so that its reserve and quotas hold. The process keeps its other
 * capabilities meanwhile (SECBIT_NO_SETUID_FIXUP). Ids and umask belong to the thread and stay as they are
 * until another caller needs others: no system call when the same user goes on. */
#ifndef TANDEM_FS_CRED_H
#define TANDEM_FS_CRED_H

#include "fs/tandemfs.h"

/* Once per process: make capabilities survive a change of the ids. */
void cred_process_init(struct tfs *fs);
/* Once per thread: an own umask. */
void cred_thread_init(struct worker *w);
/* Take the caller's ids, and its share of the directory below: the blocks reserved for the superuser, and quotas, go by the file system uid and
 * CAP_SYS_RESOURCE of who allocates. For operations that may need space. */
void cred_space(struct worker *w, const struct fuse_ctx *ctx);
/* Our own instead, for what nobody can be told that it did not fit. */
void cred_space_own(struct worker *w);
/* cred_space, and the caller's umask. */
void cred_caller(struct worker *w, const struct fuse_ctx *ctx);
/* The same without umask, for operations that need the ids only where the directory below is remote. */
void cred_remote(struct worker *w, const struct fuse_ctx *ctx);
/* A change of bytes by a caller without CAP_FSETID: make the directory below strip suid and sgid from fd as it would for
 * the caller, by giving the capability up around one operation. begin says whether end is needed. */
bool cred_strip_begin(struct worker *w, fuse_req_t req, const struct inode *i, int fd);
void cred_strip_end(bool begun);
/* The capability alone. */
void cred_fsetid(bool have);
/* Say whether the caller is in the group. */
bool cred_in_group(fuse_req_t req, gid_t gid);

#endif
