/* SPDX-License-Identifier: BSD-2-Clause
 * Who the source is: the file "identity" in the state directory.
 *
 *   source <32 hex digits>                            made once, known to the standbys
 *   root <st_ino> <file system type, hex> <its id, hex>   the directory that was mounted over last
 *
 * A source whose disk is not mounted shows another directory under the same path, mostly an empty one. Following it would
 * delete the standby; so a root that changed stops the start. Without the second line any root is taken, and everything is compared. */
#ifndef TANDEM_FS_IDENTITY_H
#define TANDEM_FS_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

/* Compare the source root with the recorded one. Returns 0, E_FOREIGN with why filled (what differs and what to do), or -errno. */
int identity_check(int statefd, int rootfd, const char *source, const char *state_dir, char *why, size_t size);
/* Read or make the identity and record the root. *replaced: there was a source, but no root on record: compare everything.
 * Durable on return. Returns 0 or -errno. */
int identity_take(int statefd, int rootfd, char source_id[33], bool *replaced);

#endif
