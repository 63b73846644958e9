/* SPDX-License-Identifier: BSD-2-Clause
 * What the journal says of names that only the standby has. */
#ifndef TANDEM_REMOVED_H
#define TANDEM_REMOVED_H

#include <stddef.h>

/* Say whether the journal tells of each of these paths (len bytes, each with its NUL) that it was removed or renamed, or a directory above it, and not
 * that it came back. Reads all of the journal that is there. Returns 1, 0, or an error (-ENOMEM, or as jreader_open). */
int removed_by_journal(int jdirfd, const char *names, size_t len);

#endif
