/* SPDX-License-Identifier: BSD-2-Clause
 * Path rules. A path of ours is relative to the mirrored root, "" is the root itself, components are
 * separated by one slash and are never empty, "." or "..". The root's entry ".tandem" is ours alone
 * on both sides: it is never recorded, sent or accepted. */
#ifndef TANDEM_PATH_H
#define TANDEM_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#define PATH_LONGEST   65000 /* bytes; paths longer than PATH_MAX exist and are walked component-wise */
#define PATH_PRIVATE   ".tandem"
#define PATH_NAME_MAX  255

/* Say whether p is a path by the rules above (and not inside .tandem). */
bool path_valid(const char *p);
/* Say whether name is one valid component. */
bool path_name_valid(const char *name);
/* Say whether name is one under which an NFS client keeps a removed file that is still open (".nfs" and 24 hex digits: it
 * goes away by itself; meaningful only where the directory is an NFS mount). */
bool path_name_silly(const char *name);
/* Say whether p is dir itself or lies below it. dir "" contains everything. */
bool path_within(const char *dir, const char *p);
/* Return the last component (a view into p). */
const char *path_base(const char *p);
/* Bytes of the parent's path, 0 for an entry of the root. */
size_t path_parent_len(const char *p);
/* Write dir + "/" + name ("name" when dir is ""). Returns 0 or E_LIMIT when it does not fit. */
int path_join(char *out, size_t size, const char *dir, const char *name);
/* p lies within from: write to + the rest of p. Returns 0 or E_LIMIT. */
int path_rebase(char *out, size_t size, const char *p, const char *from, const char *to);
/* Return p with control bytes, DEL, backslash and invalid UTF-8 escaped as \ooo, for logs and terminals.
 * Writes at most size bytes to out and returns out. */
const char *path_show(char *out, size_t size, const char *p);

/* Open the directory that holds p, one component after another with O_NOFOLLOW (openat2 with
 * RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS where it fits). *base gets the last component, a view into p.
 * Returns an O_PATH descriptor the caller closes, or -errno (-ENOTDIR or -ELOOP when a component is
 * not a directory). p "" gives the root itself and *base ".". */
int path_open_parent(int rootfd, const char *p, const char **base);
/* Open p itself beneath rootfd, never through a symlink. flags as open(2); O_CLOEXEC|O_NOFOLLOW are
 * added. p "" opens the root. Returns a descriptor or -errno. */
int path_open(int rootfd, const char *p, int flags);
/* Look at p itself beneath rootfd, never through a symlink. Returns 0 or -errno, as path_open_parent and fstatat(2). */
int path_stat(int rootfd, const char *p, struct stat *st);
/* Make p's missing parent directories (mode 0700). Returns 0 or -errno. */
int path_make_parents(int rootfd, const char *p);

#endif
