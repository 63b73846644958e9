/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"
#include "replicator/source/deaths.h"
#include "tests/unit/journals.h"

static uint64_t put(struct jdir *d, enum jtype type, uint64_t ino, uint64_t ino2, uint32_t nlink, unsigned flags)
{
	struct jrec r;

	jrec_init(&r, type);
	r.ino = ino;
	r.ino2 = ino2;
	r.nlink = nlink;
	r.flags = (uint16_t)flags;
	r.rflags = flags & JF_EXCHANGE ? RENAME_EXCHANGE : 0;
	r.path = "a";
	r.path2 = "b";
	r.mode = S_IFREG | 0644;
	ck_assert_int_eq(journal_append(d->j, &r), 0);
	jrec_release(&r);
	return atomic_load(&journal_head(d->j)->committed_seq);
}

static struct deaths *read_all(struct jdir *d, uint64_t from, uint64_t to)
{
	struct deaths *x;

	ck_assert_int_eq(deaths_read(&x, d->fd, from, to), 0);
	return x;
}

START_TEST(the_last_name_ends_an_inode)
{
	struct deaths *x;
	struct jdir d;
	uint64_t end;

	jdir_make(&d);
	jdir_open(&d, NULL);
	put(&d, JT_UNLINK, 1, 0, 0, 0);
	put(&d, JT_UNLINK, 2, 0, 1, 0);
	put(&d, JT_RENAME, 3, 4, 0, 0);
	put(&d, JT_RENAME, 5, 6, 1, 0);
	end = put(&d, JT_RENAME, 7, 8, 0, JF_EXCHANGE);
	x = read_all(&d, 0, end);
	for (uint64_t ino = 1; ino <= 9; ino++)
		ck_assert_int_eq(deaths_of(x, ino, 0), ino == 1 || ino == 4 ? DEATH_COMES : DEATH_NONE);
	deaths_free(x);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(a_number_that_is_used_again_is_another_inode)
{
	struct deaths *x;
	struct jdir d;
	uint64_t first, last;

	jdir_make(&d);
	jdir_open(&d, NULL);
	first = put(&d, JT_UNLINK, 9, 0, 0, 0);
	put(&d, JT_CREATE, 9, 0, 0, 0);
	last = put(&d, JT_UNLINK, 9, 0, 0, 0);
	put(&d, JT_CREATE, 9, 0, 0, 0);
	x = read_all(&d, 0, last + 1);
	ck_assert_int_eq(deaths_of(x, 9, first - 1), DEATH_COMES);
	ck_assert_int_eq(deaths_of(x, 9, first), DEATH_COMES);
	ck_assert_int_eq(deaths_of(x, 9, last), DEATH_NONE);
	deaths_free(x);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(many_are_found_again)
{
	struct deaths *x;
	struct jdir d;
	uint64_t seq = 0;

	jdir_make(&d);
	jdir_open(&d, NULL);
	for (uint64_t i = 0; i < 5000; i++)
		seq = put(&d, JT_UNLINK, i * 7919 % 2503 * 2 + 2, 0, 0, 0);
	x = read_all(&d, 0, seq);
	for (uint64_t ino = 1; ino <= 2 * 2503; ino++)
		ck_assert_int_eq(deaths_of(x, ino, 0), ino % 2 == 0 ? DEATH_COMES : DEATH_NONE);
	deaths_free(x);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

START_TEST(what_cannot_be_read_is_unknown)
{
	struct deaths *x;
	struct jdir d;
	uint64_t seq;

	jdir_make(&d);
	jdir_open(&d, NULL);
	seq = put(&d, JT_UNLINK, 1, 0, 0, 0);
	x = read_all(&d, 0, seq + 10);
	ck_assert_int_eq(deaths_of(x, 1, 0), DEATH_COMES);
	ck_assert_int_eq(deaths_of(x, 2, 0), DEATH_UNKNOWN);
	deaths_free(x);
	x = read_all(&d, seq + 5, seq + 10);
	ck_assert_int_eq(deaths_of(x, 1, 0), DEATH_UNKNOWN);
	deaths_free(x);
	jdir_close(&d);
	jdir_remove(&d);
}
END_TEST

UNIT_MAIN("deaths", the_last_name_ends_an_inode, a_number_that_is_used_again_is_another_inode, many_are_found_again,
    what_cannot_be_read_is_unknown)
