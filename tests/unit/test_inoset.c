/* SPDX-License-Identifier: BSD-2-Clause
 * Sets of inode numbers. */
#include "config.h"
#include "replicator/source/inoset.h"
#include "tests/unit/unit.h"

START_TEST(has_what_was_added_and_nothing_else)
{
	struct inoset s = {0};

	ck_assert(!inoset_has(&s, 1));
	for (uint64_t i = 1; i <= 100000; i++)
		for (int twice = 0; twice < 2; twice++)
			inoset_add(&s, i << (i % 40));
	for (uint64_t i = 1; i <= 100000; i++)
		ck_assert(inoset_has(&s, i << (i % 40)));
	ck_assert(!inoset_has(&s, 0));
	ck_assert(!inoset_has(&s, UINT64_MAX));
	ck_assert(!s.more);
	inoset_clear(&s);
	ck_assert(!inoset_has(&s, 2));
	inoset_add(&s, 3);
	ck_assert(inoset_has(&s, 3));
	inoset_release(&s);
}
END_TEST

START_TEST(says_when_it_could_not_take_all)
{
	struct inoset s = {0};

	for (uint64_t i = 1; i <= INOSET_MAX; i++)
		inoset_add(&s, i);
	ck_assert(!s.more);
	inoset_add(&s, INOSET_MAX + 1);
	ck_assert(s.more);
	ck_assert(inoset_has(&s, INOSET_MAX) && !inoset_has(&s, INOSET_MAX + 1));
	inoset_clear(&s);
	ck_assert(!s.more);
	inoset_release(&s);
}
END_TEST

UNIT_MAIN("inoset", has_what_was_added_and_nothing_else, says_when_it_could_not_take_all)
