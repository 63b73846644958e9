/* SPDX-License-Identifier: BSD-2-Clause
 * Extended attributes as one value: proto/xattrs.h. Skipped where the scratch directory cannot hold attributes. */
#include "config.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "proto/err.h"
#include "proto/xattrs.h"

#define SKIP 77

static char dir[256];
static int dfd, fd;
static struct buf set;

static void begin(void)
{
	unit_scratch(dir);
	dfd = open(dir, O_RDONLY | O_DIRECTORY);
	fd = openat(dfd, "f", O_RDWR | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	buf_init(&set, 4 * XATTR_SET_MAX);
}

static void done(void)
{
	buf_release(&set);
	close(fd);
	close(dfd);
	unit_remove(dir);
}

static void give(const char *name, const char *value)
{
	ck_assert_int_eq(fsetxattr(fd, name, value, strlen(value), 0), 0);
}

static bool has(const char *name, const char *value)
{
	char now[100] = "";
	ssize_t n = fgetxattr(fd, name, now, sizeof(now));

	return n == (ssize_t)strlen(value) && memcmp(now, value, (size_t)n) == 0;
}

START_TEST(no_attributes_are_an_empty_set)
{
	begin();
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	ck_assert_uint_eq(set.len, 2);
	ck_assert_uint_eq(xattrs_digest(set.data, set.len), 0);
	done();
}
END_TEST

START_TEST(a_set_is_sorted_by_name)
{
	begin();
	give("user.b", "two");
	give("user.a", "one");
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	ck_assert_uint_eq(buf_get_u16(&set), 2);
	ck_assert_str_eq(buf_get_str(&set, NULL), "user.a");
	done();
}
END_TEST

START_TEST(the_same_attributes_have_the_same_digest)
{
	uint64_t first;

	begin();
	give("user.a", "one");
	give("user.b", "two");
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	first = xattrs_digest(set.data, set.len);
	ck_assert_int_eq(fremovexattr(fd, "user.a"), 0);
	give("user.a", "one");
	buf_clear(&set);
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	ck_assert_uint_eq(xattrs_digest(set.data, set.len), first);
	give("user.a", "onE");
	buf_clear(&set);
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	ck_assert_uint_ne(xattrs_digest(set.data, set.len), first);
	done();
}
END_TEST

START_TEST(every_way_to_an_inode_gives_the_same_set)
{
	struct buf other;
	int path;

	begin();
	give("user.a", "one");
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	buf_init(&other, XATTR_SET_MAX);
	path = openat(dfd, "f", O_PATH);
	ck_assert_int_eq(xattrs_read(&other, path, -1, NULL), 0);
	ck_assert_uint_eq(other.len, set.len);
	ck_assert_int_eq(memcmp(other.data, set.data, set.len), 0);
	buf_clear(&other);
	ck_assert_int_eq(xattrs_read(&other, -1, dfd, "f"), 0);
	ck_assert_uint_eq(other.len, set.len);
	ck_assert_int_eq(memcmp(other.data, set.data, set.len), 0);
	buf_release(&other);
	close(path);
	done();
}
END_TEST

START_TEST(a_symlink_is_not_followed)
{
	begin();
	give("user.a", "one");
	ck_assert_int_eq(symlinkat("f", dfd, "l"), 0);
	ck_assert_int_eq(xattrs_read(&set, -1, dfd, "l"), 0);
	ck_assert_uint_eq(set.len, 2);
	ck_assert_int_eq(xattrs_apply(NULL, 0, -1, dfd, "l"), 0);
	ck_assert(has("user.a", "one"));
	done();
}
END_TEST

START_TEST(applying_makes_the_set_exact)
{
	begin();
	give("user.keep", "1");
	give("user.change", "new");
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	give("user.change", "old");
	give("user.extra", "x");
	ck_assert_int_eq(fremovexattr(fd, "user.keep"), 0);
	ck_assert_int_eq(xattrs_apply(set.data, set.len, fd, -1, NULL), 0);
	ck_assert(has("user.keep", "1"));
	ck_assert(has("user.change", "new"));
	ck_assert_int_lt(fgetxattr(fd, "user.extra", NULL, 0), 0);
	done();
}
END_TEST

START_TEST(the_empty_set_removes_all)
{
	begin();
	give("user.a", "1");
	ck_assert_int_eq(xattrs_apply("\0\0", 2, fd, -1, NULL), 0);
	ck_assert_int_lt(fgetxattr(fd, "user.a", NULL, 0), 0);
	done();
}
END_TEST

START_TEST(applying_what_is_there_changes_nothing)
{
	struct stat before, after;

	begin();
	give("user.a", "1");
	ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
	ck_assert_int_eq(fstat(fd, &before), 0);
	ck_assert_int_eq(xattrs_apply(set.data, set.len, fd, -1, NULL), 0);
	ck_assert_int_eq(fstat(fd, &after), 0);
	ck_assert_int_eq(memcmp(&before.st_ctim, &after.st_ctim, sizeof(before.st_ctim)), 0);
	done();
}
END_TEST

START_TEST(an_acl_travels_as_an_attribute)
{
	/* version 2; user::rw-, user:1:r--, group::r--, mask::r--, other::--- */
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 4, 0, 255, 255,
	    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
	uint8_t now[sizeof(acl)];

	begin();
	if (fsetxattr(fd, "system.posix_acl_access", acl, sizeof(acl), 0) == 0) {
		ck_assert_int_eq(xattrs_read(&set, fd, -1, NULL), 0);
		ck_assert_int_eq(fremovexattr(fd, "system.posix_acl_access"), 0);
		ck_assert_int_eq(xattrs_apply(set.data, set.len, fd, -1, NULL), 0);
		ck_assert_int_eq(fgetxattr(fd, "system.posix_acl_access", now, sizeof(now)), sizeof(acl));
		ck_assert_int_eq(memcmp(now, acl, sizeof(acl)), 0);
	}
	done();
}
END_TEST

static void put(const char *name, const char *value)
{
	buf_put_str(&set, name);
	buf_put_blob(&set, value, (uint32_t)strlen(value));
}

START_TEST(the_rest_is_tried_after_a_failure)
{
	begin();
	give("user.extra", "x");
	buf_put_u16(&set, 2);
	put("security.capability", "not a capability");
	put("user.z", "1");
	ck_assert_int_lt(xattrs_apply(set.data, set.len, fd, -1, NULL), 0);
	ck_assert(has("user.z", "1"));
	ck_assert_int_lt(fgetxattr(fd, "user.extra", NULL, 0), 0);
	done();
}
END_TEST

static void refuse(const char *name1, const char *name2)
{
	begin();
	give("user.a", "1");
	buf_put_u16(&set, 2);
	put(name1, "x");
	put(name2, "y");
	ck_assert_int_eq(xattrs_apply(set.data, set.len, fd, -1, NULL), E_PROTO);
	ck_assert(has("user.a", "1"));
	done();
}

START_TEST(names_that_are_not_ours_are_refused)
{
	refuse("security.selinux", "user.b");
	refuse("trusted.overlay.opaque", "user.b");
	refuse("btrfs.compression", "user.b");
	refuse("system.nfs4_acl", "user.b");
}
END_TEST

START_TEST(sets_out_of_order_are_refused)
{
	refuse("user.b", "user.a");
	refuse("user.b", "user.b");
}
END_TEST

START_TEST(every_cut_of_a_set_is_refused)
{
	begin();
	buf_put_u16(&set, 1);
	put("user.b", "value");
	for (size_t n = 1; n < set.len; n++)
		ck_assert_int_eq(xattrs_apply(set.data, n, fd, -1, NULL), E_PROTO);
	buf_put_u8(&set, 0);
	ck_assert_int_eq(xattrs_apply(set.data, set.len, fd, -1, NULL), E_PROTO);
	ck_assert_int_lt(fgetxattr(fd, "user.b", NULL, 0), 0);
	done();
}
END_TEST

START_TEST(a_set_above_the_buffer_s_limit_leaves_it_unchanged)
{
	struct buf small;

	begin();
	give("user.a", "a value longer than the room");
	buf_init(&small, 20);
	buf_put_u8(&small, 7);
	ck_assert_int_eq(xattrs_read(&small, fd, -1, NULL), E_LIMIT);
	ck_assert_uint_eq(small.len, 1);
	ck_assert_int_eq(small.err, 0);
	buf_release(&small);
	done();
}
END_TEST

START_TEST(what_the_file_refuses_is_reported)
{
	static uint8_t large[XATTR_SET_MAX + 1];
	static const uint8_t one[] = {1, 0, 6, 0, 'u', 's', 'e', 'r', '.', 'x', 0, 1, 0, 0, 0, 'v'};
	struct buf b;
	int closed = open("/dev/null", O_RDONLY);

	close(closed);
	buf_init(&b, XATTR_SET_MAX);
	ck_assert_int_lt(xattrs_read(&b, closed, -1, NULL), 0);
	ck_assert_int_lt(xattrs_apply(one, sizeof(one), closed, -1, NULL), 0);
	ck_assert_int_eq(xattrs_apply(large, sizeof(large), closed, -1, NULL), E_LIMIT);
	buf_release(&b);
}
END_TEST

/* Outside of a test nothing of Check may be called. */
static bool supported(void)
{
	const char *tmp = getenv("TMPDIR");
	char file[300];
	bool ok;
	int probe;

	snprintf(file, sizeof(file), "%s/tandem-unit-XXXXXX", tmp != NULL ? tmp : "/tmp");
	probe = mkstemp(file);
	ok = probe >= 0 && fsetxattr(probe, "user.probe", "x", 1, 0) == 0;
	if (probe >= 0) {
		unlink(file);
		close(probe);
	}
	return ok;
}

int main(void)
{
	const TTest *const tests[] = {no_attributes_are_an_empty_set, a_set_is_sorted_by_name,
	    the_same_attributes_have_the_same_digest, every_way_to_an_inode_gives_the_same_set, a_symlink_is_not_followed,
	    applying_makes_the_set_exact, the_empty_set_removes_all, applying_what_is_there_changes_nothing,
	    an_acl_travels_as_an_attribute, the_rest_is_tried_after_a_failure, names_that_are_not_ours_are_refused,
	    sets_out_of_order_are_refused, every_cut_of_a_set_is_refused, a_set_above_the_buffer_s_limit_leaves_it_unchanged, what_the_file_refuses_is_reported};

	if (!supported())
		return SKIP;
	return unit_run("xattrs", tests, sizeof(tests) / sizeof(*tests));
}
