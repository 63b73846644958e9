/* SPDX-License-Identifier: BSD-2-Clause
 * The position page: what counts after a kill, a power failure, a failed sync. */
#include "config.h"

#include "proto/err.h"
#include "replicator/module/position.h"
#include "tests/unit/unit.h"

static const uint8_t boot1[16] = {1}, boot2[16] = {2};

static void advance(struct position_page *pp, uint64_t seq)
{
	pp->now.pos = (struct wpos){.journal_id = {5}, .epoch = 1, .seq = seq, .digest = seq * 3};
	pp->now.unsettled = 0;
	pp->now.nout = 2;
	pp->now.out[0] = seq - 1;
	pp->now.out[1] = seq - 2;
	ck_assert_int_eq(position_store(pp), 0);
}

struct opened {
	struct position_page pp;
	bool unclean, settle;
};

static void reopen(struct opened *o, int dirfd, const uint8_t boot[16])
{
	position_close(&o->pp);
	ck_assert_int_eq(position_open(&o->pp, dirfd, boot, &o->unclean, &o->settle), 0);
}

static int begin(struct opened *o, char *dir)
{
	unit_scratch(dir);
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	o->pp.fd = -1;
	reopen(o, fd, boot1);
	ck_assert(!o->unclean);
	return fd;
}

static void end(struct opened *o, char *dir, int fd)
{
	position_close(&o->pp);
	close(fd);
	unit_remove(dir);
}

START_TEST(a_new_module_has_none)
{
	struct opened o;
	char dir[256];
	int fd = begin(&o, dir);
	ck_assert_int_eq(o.pp.now.pos.seq, 0);
	ck_assert(!o.settle);
	end(&o, dir, fd);
}
END_TEST

START_TEST(a_kill_loses_nothing)
{
	struct opened o;
	char dir[256];
	int fd = begin(&o, dir);
	for (uint64_t seq = 10; seq < 15; seq++) {
		advance(&o.pp, seq);
		reopen(&o, fd, boot1);
		ck_assert_int_eq(o.pp.now.pos.seq, seq);
		ck_assert_int_eq(o.pp.now.nout, 2);
		ck_assert_int_eq(o.pp.now.out[1], seq - 2);
		ck_assert(!o.unclean && o.settle);
	}
	end(&o, dir, fd);
}
END_TEST

START_TEST(a_kill_after_a_rename_is_unclean_until_the_next_position)
{
	struct opened o;
	char dir[256];
	int fd = begin(&o, dir);
	advance(&o.pp, 10);
	ck_assert_int_eq(position_unsettle(&o.pp, 11), 0);
	for (int i = 0; i < 2; i++) { /* also if it is killed again before it heard anything */
		reopen(&o, fd, boot1);
		ck_assert_int_eq(o.pp.now.pos.seq, 10);
		ck_assert(o.unclean);
	}
	advance(&o.pp, 12);
	reopen(&o, fd, boot1);
	ck_assert(!o.unclean);
	end(&o, dir, fd);
}
END_TEST

START_TEST(a_power_failure_goes_back_to_the_durable_copy)
{
	struct opened o;
	char dir[256];
	int fd = begin(&o, dir);
	advance(&o.pp, 10);
	ck_assert_int_eq(position_save(fd, &o.pp.now), 0);
	advance(&o.pp, 20);
	reopen(&o, fd, boot2);
	ck_assert_int_eq(o.pp.now.pos.seq, 10);
	ck_assert(o.unclean);
	reopen(&o, fd, boot2);
	ck_assert_int_eq(o.pp.now.pos.seq, 10);
	ck_assert_msg(o.unclean, "still, until the sender has sent a position");
	end(&o, dir, fd);
}
END_TEST

START_TEST(a_clean_end_survives_a_reboot)
{
	struct opened o;
	char dir[256];
	int fd = begin(&o, dir);
	advance(&o.pp, 10);
	ck_assert_int_eq(position_clean(&o.pp), 0);
	reopen(&o, fd, boot2);
	ck_assert_int_eq(o.pp.now.pos.seq, 10);
	ck_assert(!o.unclean && !o.settle);
	end(&o, dir, fd);
}
END_TEST

START_TEST(a_lost_sync_is_not_believed)
{
	struct opened o;
	char dir[256];
	int fd = begin(&o, dir);
	advance(&o.pp, 10);
	ck_assert_int_eq(position_save(fd, &o.pp.now), 0);
	advance(&o.pp, 20);
	o.pp.now.flags |= POSITION_LOST;
	ck_assert_int_eq(position_store(&o.pp), 0);
	reopen(&o, fd, boot1);
	ck_assert_int_eq(o.pp.now.pos.seq, 10);
	ck_assert(o.unclean);
	end(&o, dir, fd);
}
END_TEST

START_TEST(a_torn_page_falls_back_to_the_other_slot)
{
	struct opened o;
	char dir[256];
	int fd = begin(&o, dir);
	advance(&o.pp, 10);
	advance(&o.pp, 11);
	/* every byte of the newer slot, flipped */
	off_t slot = (off_t)(o.pp.now.generation % 2 * POSITION_SLOT);
	uint8_t page[POSITION_SLOT];
	size_t used = position_put(page, &o.pp.now);
	int pfd = openat(fd, "position", O_RDWR);
	for (size_t i = 0; i < used; i++) {
		uint8_t bytes[POSITION_SLOT];
		struct position p;
		memcpy(bytes, page, sizeof(bytes));
		bytes[i] ^= 0x40;
		if (i % 7 == 0) {
			ck_assert_int_eq(pwrite(pfd, bytes, used, slot), used);
			struct opened again = {.pp.fd = -1};
			reopen(&again, fd, boot1);
			ck_assert_int_eq(again.pp.now.pos.seq, 10);
			position_close(&again.pp);
			ck_assert_int_eq(pwrite(pfd, page, used, slot),
					 used); /* as it was: newer than what again stored */
		}
		memset(bytes + used, 0, sizeof(bytes) - used);
		ck_assert_int_ne(position_get(bytes, &p), 0);
	}
	close(pfd);
	end(&o, dir, fd);
}
END_TEST

START_TEST(a_damaged_durable_copy_is_no_position)
{
	struct opened o;
	char dir[256];
	struct position p = {.nout = 2000};
	int fd = begin(&o, dir);
	advance(&o.pp, 10);
	ck_assert_int_eq(position_save(fd, &o.pp.now), 0);
	int copy = openat(fd, "durable", O_RDWR);
	ck_assert_int_eq(pwrite(copy, "\xff\xff", 2, 89), 2); /* in the count of outstanding numbers */
	close(copy);
	ck_assert_int_ne(position_load(fd, &p), 0);
	ck_assert_uint_eq(p.nout, 0);
	reopen(&o, fd, boot2);
	ck_assert_int_eq(o.pp.now.pos.seq, 0);
	ck_assert_int_eq(o.pp.now.pos.journal_id[0], 0);
	ck_assert_int_eq(o.pp.now.nout, 0);
	ck_assert(o.unclean);
	end(&o, dir, fd);
}
END_TEST

UNIT_MAIN("position", a_damaged_durable_copy_is_no_position, a_new_module_has_none, a_kill_loses_nothing,
	  a_kill_after_a_rename_is_unclean_until_the_next_position,
	  a_power_failure_goes_back_to_the_durable_copy, a_clean_end_survives_a_reboot,
	  a_lost_sync_is_not_believed, a_torn_page_falls_back_to_the_other_slot)
