/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include "replicator/source/failures.h"
#include "tests/unit/unit.h"

/* Try all again. Returns whether path is among them; *n gets their number. */
static bool tried(struct failures *f, const char *path, size_t *n)
{
	bool found = false;
	char *due;

	failures_hurry(f);
	for (*n = 0; (due = failures_due(f)) != NULL; ++*n) {
		found |= strcmp(due, path) == 0;
		free(due);
	}
	return found;
}

START_TEST(what_failed_is_tried_again)
{
	struct failures *f;
	size_t n;

	ck_assert_int_eq(failures_new(&f), 0);
	failures_add(f, "a", "text", true);
	failures_add(f, "b", "text", true);
	failures_add(f, "a", "text", true);
	ck_assert_uint_eq(failures_count(f), 2);
	ck_assert(tried(f, "b", &n));
	ck_assert_uint_eq(n, 2);
	failures_settle(f);
	ck_assert_uint_eq(failures_count(f), 0);
	failures_free(f);
}
END_TEST

START_TEST(the_whole_is_tried_again_for_more_than_are_kept)
{
	struct failures *f;
	char path[32];
	size_t n;

	ck_assert_int_eq(failures_new(&f), 0);
	for (int i = 0; i < 20000; i++) {
		snprintf(path, sizeof path, "%d", i);
		failures_add(f, path, "text", true);
	}
	ck_assert_uint_lt(failures_count(f), 20000);
	ck_assert(tried(f, "", &n));
	ck_assert_uint_eq(n, failures_count(f));
	failures_free(f);
}
END_TEST

UNIT_MAIN("failures", what_failed_is_tried_again, the_whole_is_tried_again_for_more_than_are_kept)
