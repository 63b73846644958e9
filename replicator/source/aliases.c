/* SPDX-License-Identifier: BSD-2-Clause
 * The other names of files that were changed under an excluded one (aliases.h). */
#include "config.h"
#include <errno.h>
#include "proto/clock.h"
#include "replicator/source/aliases.h"
#include "replicator/source/locate.h"

bool aliases_want(struct aliases *a, uint64_t ino)
{
	if (inoset_has(&a->alone, ino))
		return false;
	inoset_add(&a->wanted, ino);
	return true;
}

void aliases_named(struct aliases *a)
{
	inoset_clear(&a->alone);
}

bool aliases_wanted(const struct aliases *a)
{
	return a->wanted.n != 0 || a->wanted.more;
}

struct search {
	struct compare *compare;
	struct inoset met;
	bool incomplete; /* there are places where it could not look */
};

static int found(void *arg, uint64_t ino, const char *path)
{
	struct search *s = arg;

	if (ino == 0) {
		s->incomplete = true;
		return compare_add(s->compare, path, CMP_RECURSIVE | CMP_CHECKSUM);
	}
	inoset_add(&s->met, ino);
	return compare_add(s->compare, path, CMP_CHECKSUM);
}

/* What moves meanwhile may have escaped the search: renames that were not sent yet have what they move compared if a comparison is under way, and be it
 * of the root alone. */
int aliases_search(struct aliases *a, int rootfd, const struct filter *filter, struct compare *c)
{
	struct search s = {.compare = c};
	uint64_t begin = clock_mono(), end;
	size_t i;
	int r;

	if (!aliases_wanted(a) || begin < a->due_ns)
		return 0;
	r = locate_aliases(rootfd, filter, &a->wanted, found, &s);
	for (i = 0; r == 0 && !s.incomplete && i < a->wanted.cap; i++)
		if (!inoset_has(&s.met, a->wanted.v[i]))
			inoset_add(&a->alone, a->wanted.v[i]);
	inoset_release(&s.met);
	if (r == -ENOMEM)
		return r;
	r = compare_add(c, "", r < 0 || a->wanted.more ? CMP_RECURSIVE | CMP_CHECKSUM : CMP_SELF);
	inoset_clear(&a->wanted);
	end = clock_mono();
	a->due_ns = end + 9 * (end - begin);
	return r < 0 ? r : 1;
}

void aliases_release(struct aliases *a)
{
	inoset_release(&a->wanted);
	inoset_release(&a->alone);
}
