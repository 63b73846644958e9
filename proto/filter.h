/* SPDX-License-Identifier: BSD-2-Clause
 * rsync's filter patterns: first match wins; a leading slash anchors at the root, a trailing slash matches
 * directories only; * stops at slashes, ** does not, ***, ?, [classes]; "+ " and "- " prefixes. */
#ifndef TANDEM_FILTER_H
#define TANDEM_FILTER_H

#include <stdbool.h>
#include <stddef.h>

struct filter_rule {
	char *pattern; /* without the slashes that anchor it or make it match directories only */
	bool include, anchored, dir_only;
	bool wild;	  /* holds *, ? or [ */
	bool deep;	  /* holds ** */
	bool subtree;	  /* ends in a slash and three stars: matches the directory before them too */
	unsigned slashes; /* in pattern */
};

struct filter {
	struct filter_rule *v;
	size_t n;
};

void filter_init(struct filter *f);
void filter_release(struct filter *f);
/* Add one rule: "PATTERN", "- PATTERN" or "+ PATTERN"; include is what an unprefixed pattern means. Returns
 * 0, -EINVAL or -ENOMEM. */
int filter_add(struct filter *f, const char *rule, bool include);
/* Add the rules of a file, one per line; blank lines and lines beginning with # or ; are comments. Returns 0
 * or -errno; *bad gets the number of the line that is no rule (-EINVAL), else 0. */
int filter_add_file(struct filter *f, const char *file, bool include, int *bad);
/* Say whether path, or a directory above it, is excluded. is_dir tells what path itself is. */
bool filter_excluded(const struct filter *f, const char *path, bool is_dir);
/* Say whether one rule matches this path alone (no parents), ignoring case; used for "dont compress". */
bool filter_matches(const struct filter *f, const char *path);

#endif
