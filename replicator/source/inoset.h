/* SPDX-License-Identifier: BSD-2-Clause
 * A set of inode numbers that only grows until it is cleared. When it cannot grow any more, any inode may be in it. */
#ifndef TANDEM_INOSET_H
#define TANDEM_INOSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INOSET_MAX ((size_t)1 << 20) /* numbers, 16 MiB */

/* All zero: empty. */
struct inoset {
	uint64_t *v; /* open addressing; 0: free */
	size_t n, cap;
	bool more;   /* it lacked the room for others */
};

/* 0 is not an inode number, and not added. */
void inoset_add(struct inoset *s, uint64_t ino);
/* Say whether this number was added. */
bool inoset_has(const struct inoset *s, uint64_t ino);
/* The memory stays. */
void inoset_clear(struct inoset *s);
void inoset_release(struct inoset *s);

#endif
