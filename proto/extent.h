/* SPDX-License-Identifier: BSD-2-Clause
 * Sets of byte ranges, sorted and merged. Used for the dirty ranges of an inode. */
#ifndef TANDEM_EXTENT_H
#define TANDEM_EXTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXTENT_INF     UINT64_MAX /* end of a range that reaches to the end of the file, wherever that is */
#define EXTENT_SET_MAX 4096       /* ranges kept; beyond it the closest neighbours are merged */

struct extent {
	uint64_t start; /* bytes */
	uint64_t end;   /* bytes, exclusive; EXTENT_INF: to the end of the file */
};

struct extent_set {
	struct extent *v; /* sorted, disjoint, not touching */
	uint32_t n;
	uint32_t cap;
};

void extent_init(struct extent_set *s);
void extent_release(struct extent_set *s);
void extent_clear(struct extent_set *s);
/* Add [start, end), merging. Appends at the end and repeats are O(1). Returns 0 or -ENOMEM (then the
 * set has become one range that covers everything added: nothing is lost). */
int extent_add(struct extent_set *s, uint64_t start, uint64_t end);
/* Add all ranges of o. */
int extent_union(struct extent_set *s, const struct extent_set *o);
/* Remove [start, end). Returns 0 or -ENOMEM. */
int extent_remove(struct extent_set *s, uint64_t start, uint64_t end);
/* Exchange two sets. */
void extent_swap(struct extent_set *a, struct extent_set *b);
/* Bytes in the set, counting up to size as the end of the file. */
uint64_t extent_bytes(const struct extent_set *s, uint64_t size);
/* Say whether [start, end) lies wholly in the set. */
bool extent_covers(const struct extent_set *s, uint64_t start, uint64_t end);

#endif
