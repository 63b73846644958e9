/* SPDX-License-Identifier: BSD-2-Clause
 * What every unit test program shares: a list of tests run as one suite, and a scratch directory. */
#ifndef TANDEM_UNIT_H
#define TANDEM_UNIT_H

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Run the tests, each in a process of its own; returns main's exit status. */
static inline int unit_run(const char *name, const TTest *const *tests, size_t n)
{
	Suite *s = suite_create(name);
	TCase *tc = tcase_create(name);
	tcase_set_timeout(tc, 120);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tc, tests[i]);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define UNIT_MAIN(name, ...)                                                                                 \
	int main(void)                                                                                       \
	{                                                                                                    \
		const TTest *const tests[] = {__VA_ARGS__};                                                  \
		return unit_run(name, tests, sizeof(tests) / sizeof(*tests));                                \
	}

static inline int unit_remove_one(const char *p, const struct stat *st, int flag, struct FTW *f)
{
	(void)st;
	(void)flag;
	(void)f;
	return remove(p);
}

/* Make a scratch directory below TMPDIR; path must have room for 256 bytes. */
static inline void unit_scratch(char *path)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(path, 256, "%s/tandem-unit-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(path));
}

static inline void unit_remove(const char *path)
{
	nftw(path, unit_remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

#endif
