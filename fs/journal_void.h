/* SPDX-License-Identifier: BSD-2-Clause
 * Journals whose files do not hold what was written, known until the next boot.
 *
 * After a kill the page cache has every byte that the writer stored, and the next start relies on it. That is not so when the journal's disk
 * failed: the file system may be unmounted, repaired and mounted again without a boot, and show an older journal without any sign of it. As long as
 * the journal cannot be written, a file in /run/tandemfs (of an ordinary user: in $XDG_RUNTIME_DIR/tandemfs), named by its id, says so; a start that
 * finds it takes the journal for one of another boot. */
#ifndef TANDEM_FS_JOURNAL_VOID_H
#define TANDEM_FS_JOURNAL_VOID_H

#include <stdbool.h>
#include <stdint.h>

/* Returns 0 or -errno. */
int journal_void_set(const uint8_t id[16]);
int journal_void_clear(const uint8_t id[16]); /* 0 also if there is none */
bool journal_void_is(const uint8_t id[16]);

#endif
