/* SPDX-License-Identifier: BSD-2-Clause
 * The comparison: two real directories, and between them a standby in this process (standby.h). */
#include "config.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "proto/fileio.h"
#include "proto/path.h"
#include "proto/xattrs.h"
#include "replicator/source/verify.h"
#include "tests/unit/standby.h"

struct pair {
	char dir[256];
	int src, dst; /* the two roots */
	struct mirror mirror;
	struct stream *s;
	struct compare *c;
	unsigned differs, failed, guarded;
	char what[4096]; /* the last difference: "path: text" */
	uint64_t guard_n, guard_total;
	uint64_t sent, head; /* of the records that go beside the comparison */
};

static void on_differs(void *arg, const char *path, const char *what)
{
	struct pair *p = arg;
	p->differs++;
	snprintf(p->what, sizeof(p->what), "%.2000s: %s", path, what);
}

static void on_failed(void *arg, const char *path, int err, const char *text)
{
	struct pair *p = arg;
	p->failed++;
	snprintf(p->what, sizeof(p->what), "%.2000s: %s", path, text);
}

static void on_guarded(void *arg, uint64_t n, uint64_t total)
{
	struct pair *p = arg;
	p->guarded++;
	p->guard_n = n;
	p->guard_total = total;
}

static void pair_open(struct pair *p)
{
	memset(p, 0, sizeof(*p));
	unit_scratch(p->dir);
	int fd = open(p->dir, O_RDONLY | O_DIRECTORY);
	mkdirat(fd, "src", 0755);
	mkdirat(fd, "dst", 0700);
	p->src = openat(fd, "src", O_RDONLY | O_DIRECTORY);
	p->dst = openat(fd, "dst", O_RDONLY | O_DIRECTORY);
	close(fd);
	p->mirror.del = true;
	p->mirror.delete_guard = 50;
	filter_init(&p->mirror.filter);
	p->s = standby_new(p->dst, &p->mirror);
	struct compare_env env = {.stream = p->s,
				  .rootfd = p->src,
				  .mirror = &p->mirror,
				  .no_owner = geteuid() != 0,
				  .jdirfd = -1,
				  .watch = true,
				  .differs = on_differs,
				  .failed = on_failed,
				  .guarded = on_guarded,
				  .arg = p};
	ck_assert_int_eq(compare_new(&p->c, &env), 0);
}

static void pair_close(struct pair *p)
{
	compare_free(p->c);
	standby_free(p->s);
	filter_release(&p->mirror.filter);
	close(p->src);
	close(p->dst);
	unit_remove(p->dir);
}

/* Work until nothing is scheduled, or watched for records up to head, and all replies are delivered. */
static void run(struct pair *p)
{
	unsigned idle = 0;
	while (compare_busy(p->c) || standby_deliver(p->s, p->c)) {
		ck_assert_int_ge(compare_sent(p->c, p->sent, p->head), 0);
		int r = compare_step(p->c);
		ck_assert_int_ge(r, 0);
		bool got = standby_deliver(p->s, p->c);
		idle = r == 0 && !got ? idle + 1 : 0;
		ck_assert_msg(idle < 3, "stuck");
	}
}

static void forget_counts(struct pair *p)
{
	memset(standby_counts(p->s), 0, sizeof(struct standby_counts));
	p->differs = p->failed = p->guarded = 0;
	p->what[0] = 0;
}

static void compare(struct pair *p, const char *path, unsigned flags)
{
	forget_counts(p);
	ck_assert_int_eq(compare_add(p->c, path, flags), 0);
	run(p);
}

/* The mtime is the clock's to the nanosecond: that of a file system has ticks, and two files written in one of them would look the same. */
static void write_file(int dirfd, const char *name, const void *data, size_t n)
{
	struct timespec ts[2];
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	ck_assert_msg(fd >= 0, "%s: %s", name, strerror(errno));
	ck_assert_int_eq(fio_pwrite(fd, data, n, 0), 0);
	clock_gettime(CLOCK_REALTIME, &ts[0]);
	ts[1] = ts[0];
	ck_assert_int_eq(futimens(fd, ts), 0);
	close(fd);
}

static void write_text(int dirfd, const char *name, const char *text)
{
	write_file(dirfd, name, text, strlen(text));
}

static uint8_t *noise(size_t n, unsigned seed)
{
	uint8_t *p = malloc(n);
	uint64_t x = seed;
	for (size_t i = 0; i < n; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(x >> 56);
	}
	return p;
}

static void same_times(struct pair *p, const char *name)
{
	struct stat st;
	ck_assert_int_eq(fstatat(p->src, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	struct timespec ts[2] = {st.st_atim, st.st_mtim};
	ck_assert_int_eq(utimensat(p->dst, name, ts, AT_SYMLINK_NOFOLLOW), 0);
}

static void old_times(int dirfd, const char *name)
{
	struct timespec ts[2] = {{.tv_sec = 1000000000, .tv_nsec = 123456789},
				 {.tv_sec = 1000000000, .tv_nsec = 987654321}};
	ck_assert_int_eq(utimensat(dirfd, name, ts, AT_SYMLINK_NOFOLLOW), 0);
}

/* --- an independent comparison of two trees --- */

static void equal_bytes(int a, int b, const char *path, const char *name)
{
	int fa = openat(a, name, O_RDONLY | O_NOFOLLOW), fb = openat(b, name, O_RDONLY | O_NOFOLLOW);
	static uint8_t pa[65536], pb[65536];
	ssize_t na, nb;
	struct stat st;
	fstat(fa, &st);
	if (st.st_size < (64 << 20))
		do {
			na = read(fa, pa, sizeof(pa));
			nb = read(fb, pb, sizeof(pb));
			ck_assert_msg(na == nb && memcmp(pa, pb, (size_t)na) == 0, "bytes of %s/%s", path,
				      name);
		} while (na > 0);
	close(fa);
	close(fb);
}

static void equal_entry(int a, int b, const char *path, const char *name)
{
	struct stat x, y;
	struct buf xa, xb;
	ck_assert_int_eq(fstatat(a, name, &x, AT_SYMLINK_NOFOLLOW), 0);
	ck_assert_msg(fstatat(b, name, &y, AT_SYMLINK_NOFOLLOW) == 0, "%s/%s is missing", path, name);
	ck_assert_msg(x.st_mode == y.st_mode, "mode of %s/%s: %o %o", path, name, x.st_mode, y.st_mode);
	ck_assert_msg(x.st_uid == y.st_uid && x.st_gid == y.st_gid, "owner of %s/%s", path, name);
	ck_assert_msg(S_ISDIR(x.st_mode) || x.st_nlink == y.st_nlink, "links of %s/%s: %ld %ld", path, name,
		      (long)x.st_nlink, (long)y.st_nlink);
	ck_assert_msg(S_ISSOCK(x.st_mode) ||
			  (x.st_mtim.tv_sec == y.st_mtim.tv_sec && x.st_mtim.tv_nsec == y.st_mtim.tv_nsec),
		      "times of %s/%s", path, name);
	ck_assert_msg(S_ISDIR(x.st_mode) || x.st_size == y.st_size, "size of %s/%s", path, name);
	ck_assert_msg(x.st_rdev == y.st_rdev, "device of %s/%s", path, name);
	buf_init(&xa, XATTR_SET_MAX);
	buf_init(&xb, XATTR_SET_MAX);
	ck_assert_int_eq(xattrs_read(&xa, -1, a, name), 0);
	ck_assert_int_eq(xattrs_read(&xb, -1, b, name), 0);
	ck_assert_msg(xattrs_digest(xa.data, xa.len) == xattrs_digest(xb.data, xb.len), "attributes of %s/%s",
		      path, name);
	buf_release(&xa);
	buf_release(&xb);
	if (S_ISREG(x.st_mode))
		equal_bytes(a, b, path, name);
	if (S_ISREG(x.st_mode))
		ck_assert_msg(x.st_blocks * 512 >= x.st_size ||
				  y.st_blocks <= x.st_blocks + x.st_blocks / 4 + 2048,
			      "holes of %s/%s", path, name);
	if (S_ISLNK(x.st_mode)) {
		char la[4096] = "", lb[4096] = "";
		ck_assert_int_gt(readlinkat(a, name, la, 4095), 0);
		ck_assert_int_gt(readlinkat(b, name, lb, 4095), 0);
		ck_assert_str_eq(la, lb);
	}
}

static unsigned count_names(int fd)
{
	DIR *d = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY));
	struct dirent *e;
	unsigned n = 0;
	while ((e = readdir(d)) != NULL)
		n += strcmp(e->d_name, PATH_PRIVATE) != 0;
	closedir(d);
	return n;
}

static void equal_trees(int a, int b, const char *path)
{
	DIR *d = fdopendir(openat(a, ".", O_RDONLY | O_DIRECTORY));
	struct dirent *e;
	equal_entry(a, b, path, ".");
	ck_assert_msg(count_names(a) == count_names(b), "names in %s", path);
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    strcmp(e->d_name, PATH_PRIVATE) == 0)
			continue;
		equal_entry(a, b, path, e->d_name);
		if (e->d_type == DT_DIR) {
			char sub[4096];
			snprintf(sub, sizeof(sub), "%.3000s/%s", path, e->d_name);
			int x = openat(a, e->d_name, O_RDONLY | O_DIRECTORY),
			    y = openat(b, e->d_name, O_RDONLY | O_DIRECTORY);
			equal_trees(x, y, sub);
			close(x);
			close(y);
		}
	}
	closedir(d);
}

static void equal(struct pair *p)
{
	ck_assert_msg(p->failed == 0, "%s", p->what);
	equal_trees(p->src, p->dst, "");
	compare(p, "", CMP_RECURSIVE | CMP_CHECKSUM | CMP_REPORT);
	ck_assert_msg(p->differs == 0 && p->failed == 0, "%s", p->what);
}

/* A tree with every kind of entry. */
static void every_kind(struct pair *p)
{
	uint8_t *big = noise(3 << 20, 1);
	mkdirat(p->src, "d", 0750);
	mkdirat(p->src, "d/e", 0500);
	mkdirat(p->src, "empty", 02775);
	write_text(p->src, "a", "hello");
	write_text(p->src, "d/none", "");
	write_file(p->src, "d/big", big, 3 << 20);
	write_file(p->src, "d/e/edge", big, 65536);
	write_file(p->src, "d/e/over", big, 65537);
	free(big);
	symlinkat("nowhere/\xff", p->src, "link");
	mknodat(p->src, "fifo", S_IFIFO | 0640, 0);
	mknodat(p->src, "sock", S_IFSOCK | 0600, 0);
	if (geteuid() == 0) {
		mknodat(p->src, "d/dev", S_IFCHR | 0600, makedev(1, 3));
		fchownat(p->src, "a", 1234, 5678, 0);
		fchownat(p->src, "link", 1234, 5678, AT_SYMLINK_NOFOLLOW);
		fchmodat(p->src, "a", 04755, 0);
	}
	linkat(p->src, "a", p->src, "d/a2", 0);
	linkat(p->src, "d/big", p->src, "empty/big2", 0);
	linkat(p->src, "d/big", p->src, "zz", 0);
	linkat(p->src, "fifo", p->src, "empty/fifo2", 0);
	int fd = openat(p->src, "sparse", O_RDWR | O_CREAT, 0600);
	pwrite(fd, "x", 1, 10 << 20);
	ftruncate(fd, 50 << 20);
	fsetxattr(fd, "user.colour", "blue", 4, 0);
	close(fd);
	fd = openat(p->src, "d", O_RDONLY);
	fsetxattr(fd, "user.dir", "1", 1, 0);
	close(fd);
	static const char *const names[] = {"a", "link", "d/none", "fifo", "d/e", "d", "empty", "."};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		old_times(p->src, names[i]);
}

START_TEST(first_copy_of_every_kind)
{
	struct pair p;
	pair_open(&p);
	every_kind(&p);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(standby_counts(p.s)->ops[WOP_RMTREE], 0);
	equal(&p);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.differs, 0);
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(standby_counts(p.s)->ops[i], 0);
	ck_assert_uint_eq(standby_counts(p.s)->sums, 0);
	pair_close(&p);
}
END_TEST

START_TEST(report_changes_nothing)
{
	struct pair p;
	pair_open(&p);
	every_kind(&p);
	write_text(p.dst, "extra", "x");
	compare(&p, "", CMP_RECURSIVE | CMP_REPORT);
	ck_assert_uint_ge(p.differs, 8);
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(standby_counts(p.s)->ops[i], 0);
	pair_close(&p);
}
END_TEST

START_TEST(report_leaves_empty_files_alone)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "mode", "");
	write_text(p.dst, "mode", "");
	same_times(&p, "mode");
	fchmodat(p.dst, "mode", 0600, 0);
	write_text(p.src, "times", "");
	write_text(p.dst, "times", "");
	old_times(p.dst, "times");
	fchmodat(p.dst, ".", 0755, 0);
	same_times(&p, ".");
	compare(&p, "", CMP_RECURSIVE | CMP_CHECKSUM | CMP_REPORT);
	ck_assert_uint_eq(p.differs, 2);
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(standby_counts(p.s)->ops[i], 0);
	pair_close(&p);
}
END_TEST

START_TEST(types_that_differ)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "f", "file");
	mkdirat(p.src, "d", 0755);
	write_text(p.src, "d/x", "x");
	symlinkat("t", p.src, "l");
	mkdirat(p.dst, "f", 0755);
	write_text(p.dst, "f/below", "y");
	write_text(p.dst, "d", "file");
	write_text(p.dst, "l", "file");
	compare(&p, "", CMP_RECURSIVE);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(extra_names_go)
{
	struct pair p;
	pair_open(&p);
	p.mirror.delete_guard = 90;
	mkdirat(p.src, "d", 0755);
	mkdirat(p.dst, "d", 0755);
	write_text(p.dst, "d/x", "x");
	mkdirat(p.dst, "gone", 0755);
	mkdirat(p.dst, "gone/deep", 0755);
	write_text(p.dst, "gone/deep/y", "y");
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(standby_counts(p.s)->ops[WOP_RMTREE], 2);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(extra_names_stay_without_delete)
{
	struct pair p;
	pair_open(&p);
	p.mirror.del = false;
	write_text(p.dst, "x", "x");
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(faccessat(p.dst, "x", F_OK, 0), 0);
	pair_close(&p);
}
END_TEST

static void many(int dirfd, const char *dir, unsigned n)
{
	char name[300];
	mkdirat(dirfd, dir, 0755);
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%u", dir, i);
		write_text(dirfd, name, name);
	}
}

START_TEST(the_guard_holds_deletions_back)
{
	struct pair p;
	pair_open(&p);
	many(p.src, "kept", 20);
	many(p.dst, "lost", 300);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.guarded, 1);
	ck_assert_uint_eq(p.guard_n, 301);
	ck_assert_int_eq(faccessat(p.dst, "lost/299", F_OK, 0), 0);
	ck_assert_int_eq(faccessat(p.dst, "kept/19", F_OK, 0), 0);
	ck_assert(compare_held(p.c));
	compare_allow_deletes(p.c);
	ck_assert(compare_busy(p.c));
	run(&p);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(the_guard_counts_the_whole_tree)
{
	struct pair p;
	pair_open(&p);
	many(p.src, "kept", 600);
	compare(&p, "", CMP_RECURSIVE);
	many(p.dst, "a", 150); /* met early, while little was seen: waits, then goes */
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.guarded, 0);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(the_guard_lets_none_go_before_it_stops)
{
	struct pair p;
	pair_open(&p);
	many(p.src, "d", 1);
	many(p.dst, "d", 500);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.guarded, 1);
	ck_assert_uint_eq(p.guard_n, 499);
	int fd = openat(p.dst, "d", O_RDONLY | O_DIRECTORY);
	ck_assert_uint_eq(count_names(fd), 502); /* . and .. too */
	close(fd);
	pair_close(&p);
}
END_TEST

START_TEST(the_guard_protects_a_small_tree)
{
	struct pair p;
	pair_open(&p);
	many(p.src, "d", 1);
	many(p.dst, "d", 5);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.guarded, 1);
	ck_assert_int_eq(faccessat(p.dst, "d/4", F_OK, 0), 0);
	many(p.src, "kept", 10);
	compare(&p, "", CMP_RECURSIVE);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.guarded, 0);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(more_deletions_than_can_wait_take_several_rounds)
{
	struct pair p;
	char path[4096], *end = path;
	pair_open(&p);
	for (unsigned i = 0; i < 15; i++) {
		end += sprintf(end, "%s%0250u", i ? "/" : "", i);
		mkdirat(p.src, path, 0755);
		mkdirat(p.dst, path, 0755);
	}
	p.mirror.delete_guard = 99;
	many(p.dst, "kept", 150);
	many(p.src, "kept", 150);
	for (unsigned i = 0; i < 4300; i++) { /* of 4 KB each; 16 MiB can wait */
		sprintf(end, "/%0250u", i);
		write_text(p.dst, path, "");
	}
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.guarded, 0);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(what_is_scheduled_can_be_asked)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "f", "f");
	ck_assert_int_eq(compare_add(p.c, "f", CMP_CHECKSUM), 0);
	ck_assert_uint_eq(compare_scheduled(p.c, "f"), CMP_CHECKSUM);
	ck_assert_uint_eq(compare_scheduled(p.c, "fg"), 0);
	run(&p);
	ck_assert_uint_eq(compare_scheduled(p.c, "f"), 0);
	pair_close(&p);
}
END_TEST

START_TEST(excluded_names_are_left_alone)
{
	struct pair p;
	pair_open(&p);
	ck_assert_int_eq(filter_add(&p.mirror.filter, "*.tmp", false), 0);
	write_text(p.src, "a.tmp", "source only");
	write_text(p.src, "a", "a");
	mkdirat(p.dst, "gone", 0755);
	write_text(p.dst, "gone/keep.tmp", "k");
	write_text(p.dst, "gone/drop", "d");
	mkdirat(p.dst, "gone/sub", 0755);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(faccessat(p.dst, "a.tmp", F_OK, 0), -1);
	ck_assert_int_eq(faccessat(p.dst, "a", F_OK, 0), 0);
	ck_assert_int_eq(faccessat(p.dst, "gone/keep.tmp", F_OK, 0), 0);
	ck_assert_int_eq(faccessat(p.dst, "gone/drop", F_OK, 0), -1);
	ck_assert_int_eq(faccessat(p.dst, "gone/sub", F_OK, 0), -1);
	pair_close(&p);
}
END_TEST

START_TEST(an_excluded_directory_by_itself_stays_here)
{
	struct pair p;
	pair_open(&p);
	ck_assert_int_eq(filter_add(&p.mirror.filter, "cache/", false), 0);
	mkdirat(p.src, "cache", 0755);
	compare(&p, "cache", CMP_RECURSIVE);
	ck_assert_int_eq(faccessat(p.dst, "cache", F_OK, 0), -1);
	pair_close(&p);
}
END_TEST

START_TEST(a_directory_that_stays_for_excluded_names_is_no_difference)
{
	struct pair p;
	pair_open(&p);
	ck_assert_int_eq(filter_add(&p.mirror.filter, "*.tmp", false), 0);
	mkdirat(p.dst, "gone", 0755);
	write_text(p.dst, "gone/keep.tmp", "k");
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(faccessat(p.dst, "gone/keep.tmp", F_OK, 0), 0);
	compare(&p, "", CMP_RECURSIVE | CMP_REPORT);
	ck_assert_msg(p.differs == 0, "%s", p.what);
	pair_close(&p);
}
END_TEST

START_TEST(excluded_names_keep_their_directory_from_another_type)
{
	struct pair p;
	pair_open(&p);
	ck_assert_int_eq(filter_add(&p.mirror.filter, "*.tmp", false), 0);
	mkdirat(p.dst, "d", 0755);
	write_text(p.dst, "d/keep.tmp", "k");
	write_text(p.src, "d", "a file");
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(faccessat(p.dst, "d/keep.tmp", F_OK, 0), 0);
	ck_assert_uint_ge(p.failed, 1);
	pair_close(&p);
}
END_TEST

START_TEST(the_guard_stops_a_file_in_a_tree_s_place)
{
	struct pair p;
	char name[32];
	pair_open(&p);
	mkdirat(p.dst, "d", 0755);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "d/%d", i);
		write_text(p.dst, name, "x");
	}
	write_text(p.src, "d", "a file");
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(faccessat(p.dst, "d/0", F_OK, 0), 0);
	ck_assert_uint_eq(p.guarded, 1);
	compare_allow_deletes(p.c);
	run(&p);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(attributes_alone)
{
	struct pair p;
	pair_open(&p);
	every_kind(&p);
	compare(&p, "", CMP_RECURSIVE);
	fchmodat(p.dst, "a", 0600, 0);
	old_times(p.dst, "fifo");
	fchmodat(p.dst, "d", 0711, 0);
	int fd = openat(p.dst, "sparse", O_RDONLY);
	fremovexattr(fd, "user.colour");
	close(fd);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(standby_counts(p.s)->ops[WOP_BEGIN], 0);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(changed_blocks_of_a_large_file)
{
	struct pair p;
	size_t n = 16 << 20;
	uint8_t *data = noise(n, 3);
	pair_open(&p);
	write_file(p.dst, "f", data, n);
	for (size_t i = 0; i < 10; i++)
		data[i * 1600000 + 5] ^= 1;
	write_file(p.src, "f", data, n);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(standby_counts(p.s)->data, 10 * 4096);
	ck_assert_uint_eq(standby_counts(p.s)->copied, 0);
	equal(&p);
	free(data);
	pair_close(&p);
}
END_TEST

/* A live rename puts another version in the place of the one whose sums are known: a patch of that one would be neither. */
START_TEST(replaced_while_it_is_compared)
{
	struct pair p;
	size_t n = 4 << 20;
	uint8_t *data = noise(n, 3), *other = noise(n, 4);
	pair_open(&p);
	write_file(p.dst, "f", data, n);
	data[5] ^= 1;
	write_file(p.src, "f", data, n);
	forget_counts(&p);
	ck_assert_int_eq(compare_add(p.c, "", CMP_RECURSIVE | CMP_CHECKSUM), 0);
	while (standby_counts(p.s)->sums == 0) {
		ck_assert_int_ge(compare_step(p.c), 0);
		if (standby_counts(p.s)->sums == 0)
			standby_deliver(p.s, p.c);
	}
	while (standby_deliver(p.s, p.c))
		;
	ck_assert_int_eq(unlinkat(p.dst, "f", 0), 0);
	write_file(p.dst, "f", other, n);
	ck_assert_int_eq(compare_renamed(p.c, "f.new", "f", false), 0);
	run(&p);
	equal(&p);
	free(data);
	free(other);
	pair_close(&p);
}
END_TEST

START_TEST(growing_and_shrinking)
{
	struct pair p;
	size_t n = 4 << 20;
	uint8_t *data = noise(n + 5000, 4);
	pair_open(&p);
	write_file(p.src, "grown", data, n + 5000);
	write_file(p.dst, "grown", data, n);
	write_file(p.src, "cut", data, n - 5000);
	write_file(p.dst, "cut", data, n);
	write_file(p.src, "gone", data, 0);
	write_file(p.dst, "gone", data, n);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_le(standby_counts(p.s)->data, 5000 + 2 * 4096);
	equal(&p);
	free(data);
	pair_close(&p);
}
END_TEST

START_TEST(insertion_is_found)
{
	struct pair p;
	size_t n = 24 << 20;
	uint8_t *data = noise(n, 5);
	pair_open(&p);
	write_file(p.dst, "f", data + 100, n - 100);
	write_file(p.src, "f", data, n);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_le(standby_counts(p.s)->bytes, n / 100);
	equal(&p);
	write_file(p.dst, "f", data, n);
	write_file(p.src, "f", data + 100, n - 100);
	compare(&p, "f", 0);
	ck_assert_uint_le(standby_counts(p.s)->bytes, n / 100);
	equal(&p);
	free(data);
	pair_close(&p);
}
END_TEST

START_TEST(checksum_finds_silent_damage)
{
	struct pair p;
	uint8_t *data = noise(1 << 20, 6);
	pair_open(&p);
	write_file(p.src, "f", data, 1 << 20);
	write_text(p.src, "g", "good");
	compare(&p, "", CMP_RECURSIVE);
	data[77777] ^= 1;
	write_file(p.dst, "f", data, 1 << 20);
	write_text(p.dst, "g", "evil");
	same_times(&p, "f");
	same_times(&p, "g");
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(p.differs, 0);
	compare(&p, "", CMP_RECURSIVE | CMP_CHECKSUM | CMP_REPORT);
	ck_assert_uint_eq(p.differs, 2);
	compare(&p, "", CMP_RECURSIVE | CMP_CHECKSUM);
	equal(&p);
	free(data);
	pair_close(&p);
}
END_TEST

START_TEST(a_huge_hole_costs_nothing)
{
	struct pair p;
	pair_open(&p);
	for (int i = 0; i < 2; i++) {
		int fd = openat(i ? p.dst : p.src, "f", O_RDWR | O_CREAT, 0600);
		pwrite(fd, i ? "B" : "A", 1, 0);
		pwrite(fd, "M", 1, 300ll << 30);
		ck_assert_int_eq(ftruncate(fd, 1ll << 40), 0);
		close(fd);
	}
	int fd = openat(p.dst, "f", O_RDWR);
	pwrite(fd, "not at the source", 17, 700ll << 30);
	close(fd);
	old_times(p.dst, "f");
	compare(&p, "f", 0);
	ck_assert_uint_le(standby_counts(p.s)->bytes, 1 << 20);
	struct stat a, b;
	fstatat(p.src, "f", &a, 0);
	fstatat(p.dst, "f", &b, 0);
	ck_assert_int_eq(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
	fd = openat(p.dst, "f", O_RDONLY);
	ck_assert_int_eq(lseek(fd, 600ll << 30, SEEK_DATA), -1);
	close(fd);
	compare(&p, "f", CMP_CHECKSUM | CMP_REPORT);
	ck_assert_uint_eq(p.differs, 0);
	pair_close(&p);
}
END_TEST

START_TEST(holes_are_made_again)
{
	struct pair p;
	uint8_t *zeros = calloc(1, 8 << 20);
	pair_open(&p);
	int fd = openat(p.src, "f", O_RDWR | O_CREAT, 0644);
	ftruncate(fd, 8 << 20);
	pwrite(fd, "x", 1, 4 << 20);
	close(fd);
	zeros[4 << 20] = 'x';
	write_file(p.dst, "f", zeros, 8 << 20);
	same_times(&p, "f");
	compare(&p, "", CMP_RECURSIVE);
	equal(&p);
	free(zeros);
	pair_close(&p);
}
END_TEST

START_TEST(hard_links_made_and_broken)
{
	struct pair p;
	uint8_t *big = noise(1 << 20, 7);
	pair_open(&p);
	write_text(p.src, "a", "one");
	linkat(p.src, "a", p.src, "b", 0);
	write_text(p.dst, "a", "one");
	write_text(p.dst, "b", "one");
	write_text(p.src, "c", "c");
	write_text(p.src, "d", "d");
	write_text(p.dst, "c", "old");
	linkat(p.dst, "c", p.dst, "d", 0);
	write_file(p.src, "x", big, 1 << 20); /* the leader's transfer is queued: its names wait */
	linkat(p.src, "x", p.src, "y", 0);
	compare(&p, "", CMP_RECURSIVE);
	equal(&p);
	free(big);
	pair_close(&p);
}
END_TEST

START_TEST(one_name_of_a_hard_link_alone)
{
	struct pair p;
	pair_open(&p);
	mkdirat(p.src, "q", 0755);
	write_text(p.src, "a", "one");
	compare(&p, "", CMP_RECURSIVE);
	linkat(p.src, "a", p.src, "q/b", 0);
	compare(&p, "q/b", 0);
	equal(&p);
	pair_close(&p);
}
END_TEST

/* Two files that are one on the standby, of which one is compared, as a directory would be. */
START_TEST(one_name_of_two_files)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "a", "one");
	write_text(p.src, "b", "two");
	write_text(p.dst, "a", "old");
	linkat(p.dst, "a", p.dst, "b", 0);
	same_times(&p, ".");
	compare(&p, "a", CMP_RECURSIVE);
	fchmodat(p.dst, ".", 0755, 0);
	equal(&p);
	pair_close(&p);
}
END_TEST

/* As many names as at the source, but not the same ones. */
START_TEST(one_name_of_a_hard_link_with_another)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "a", "one");
	linkat(p.src, "a", p.src, "a2", 0);
	write_text(p.src, "b", "two");
	linkat(p.src, "b", p.src, "b2", 0);
	compare(&p, "", CMP_RECURSIVE);
	unlinkat(p.dst, "a", 0);
	unlinkat(p.dst, "b2", 0);
	linkat(p.dst, "b", p.dst, "a", 0);
	compare(&p, "a", CMP_CHECKSUM);
	equal(&p);
	pair_close(&p);
}
END_TEST

/* Records went to each of the two under its own name, and each brought size and mtime. */
START_TEST(two_files_that_become_one_are_compared)
{
	struct pair p;
	size_t n = 200 << 10;
	uint8_t *data = noise(n, 8);
	pair_open(&p);
	write_file(p.src, "a", data, n);
	linkat(p.src, "a", p.src, "b", 0);
	memset(data + 1000, 0, 500);
	write_file(p.dst, "a", data, n);
	memset(data + 100000, 0, 500);
	write_file(p.dst, "b", data, n);
	same_times(&p, "a");
	same_times(&p, "b");
	compare(&p, "", CMP_RECURSIVE);
	equal(&p);
	free(data);
	pair_close(&p);
}
END_TEST

/* A live rename puts another file under a name that was compared, and the name is compared again in the same breath. */
START_TEST(a_name_of_a_hard_link_that_is_replaced_meanwhile)
{
	struct pair p;
	size_t n = 16 << 20;
	uint8_t *data = noise(n, 9);
	pair_open(&p);
	write_file(p.src, "long", data, n);
	write_text(p.src, "a", "one");
	linkat(p.src, "a", p.src, "b", 0);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(compare_add(p.c, "long", CMP_CHECKSUM), 0);
	ck_assert_int_eq(compare_add(p.c, "a", CMP_ALLOW), 0);
	while (compare_scheduled(p.c, "a")) {
		ck_assert_int_ge(compare_step(p.c), 0);
		standby_deliver(p.s, p.c);
	}
	ck_assert_uint_ne(compare_scheduled(p.c, "long"), 0);
	ck_assert_int_eq(unlinkat(p.dst, "a", 0), 0);
	write_text(p.dst, "a", "one");
	same_times(&p, "a");
	same_times(&p, ".");
	ck_assert_int_eq(compare_renamed(p.c, "c", "a", false), 0);
	ck_assert_int_eq(compare_add(p.c, "a", CMP_ALLOW), 0);
	run(&p);
	fchmodat(p.dst, ".", 0755, 0);
	equal(&p);
	free(data);
	pair_close(&p);
}
END_TEST

START_TEST(one_path_with_missing_parents)
{
	struct pair p;
	pair_open(&p);
	mkdirat(p.src, "a", 0711);
	mkdirat(p.src, "a/b", 0722);
	mkdirat(p.src, "a/b/c", 0733);
	write_text(p.src, "a/b/c/f", "f");
	old_times(p.src, "a/b");
	old_times(p.src, "a");
	same_times(&p, ".");
	compare(&p, "a/b/c/f", 0);
	fchmodat(p.dst, ".", 0755, 0);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(one_path_that_is_gone)
{
	struct pair p;
	pair_open(&p);
	mkdirat(p.dst, "a", 0755);
	write_text(p.dst, "a/f", "f");
	compare(&p, "a/f", 0);
	ck_assert_int_eq(faccessat(p.dst, "a/f", F_OK, 0), -1);
	ck_assert_int_eq(faccessat(p.dst, "a", F_OK, 0), 0);
	compare(&p, "a", 0);
	ck_assert_int_eq(faccessat(p.dst, "a", F_OK, 0), -1);
	compare(&p, "never/was", CMP_RECURSIVE);
	ck_assert_uint_eq(p.failed, 0);
	pair_close(&p);
}
END_TEST

START_TEST(a_directory_one_level)
{
	struct pair p;
	pair_open(&p);
	mkdirat(p.src, "d", 0755);
	mkdirat(p.src, "d/new", 0755);
	write_text(p.src, "d/new/f", "sent, as the directory is new");
	mkdirat(p.src, "d/old", 0755);
	write_text(p.src, "d/old/f", "not looked at");
	mkdirat(p.dst, "d", 0755);
	mkdirat(p.dst, "d/old", 0700);
	compare(&p, "d", 0);
	ck_assert_int_eq(faccessat(p.dst, "d/new/f", F_OK, 0), 0);
	ck_assert_int_eq(faccessat(p.dst, "d/old/f", F_OK, 0), -1);
	struct stat st;
	fstatat(p.dst, "d/old", &st, 0);
	ck_assert_int_eq(st.st_mode & 07777, 0755);
	pair_close(&p);
}
END_TEST

START_TEST(a_directory_by_itself)
{
	struct pair p;
	pair_open(&p);
	mkdirat(p.src, "d", 0711);
	mkdirat(p.src, "d/new", 0755);
	old_times(p.src, "d");
	mkdirat(p.dst, "d", 0755);
	compare(&p, "d", CMP_SELF);
	ck_assert_int_eq(faccessat(p.dst, "d/new", F_OK, 0), -1);
	struct stat st;
	fstatat(p.dst, "d", &st, 0);
	ck_assert_int_eq(st.st_mode & 07777, 0711);
	ck_assert_int_eq(st.st_mtim.tv_sec, 1000000000);
	ck_assert_int_eq(compare_add(p.c, "d", CMP_SELF), 0);
	compare(&p, "d", 0);
	ck_assert_int_eq(faccessat(p.dst, "d/new", F_OK, 0), 0);
	compare(&p, "", CMP_SELF);
	equal(&p);
	pair_close(&p);
}
END_TEST

/* Directories get their own attributes last: until then what is made below them inherits what the standby has. */
START_TEST(nothing_is_inherited_from_the_standby)
{
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 3, 0, 1, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
	    16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255};
	struct pair p;
	pair_open(&p);
	mkdirat(p.src, "d", 0755);
	mkdirat(p.src, "d/a", 0755);
	mkdirat(p.src, "d/a/b", 0755);
	mknodat(p.src, "d/a/b/fifo", S_IFIFO | 0644, 0);
	write_text(p.src, "d/a/b/f", "f");
	mkdirat(p.dst, "d", 0755);
	int fd = openat(p.dst, "d", O_RDONLY);
	if (fsetxattr(fd, "system.posix_acl_default", acl, sizeof(acl), 0) == 0) {
		compare(&p, "d/a", CMP_RECURSIVE);
		compare(&p, "d/a", CMP_RECURSIVE);
		ck_assert_uint_eq(p.differs, 0);
		compare(&p, "", CMP_RECURSIVE);
		equal(&p);
	}
	close(fd);
	pair_close(&p);
}
END_TEST

START_TEST(a_failure_is_tried_again)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "f", "f");
	standby_fail_next(p.s, WR_MISMATCH);
	compare(&p, "", CMP_RECURSIVE);
	equal(&p);
	write_text(p.src, "f", "other");
	forget_counts(&p);
	compare_add(p.c, "f", 0);
	for (int i = 0; i < 1000 && p.failed == 0; i++) {
		standby_fail_next(p.s, WR_PERMISSION);
		compare_step(p.c);
		standby_deliver(p.s, p.c);
	}
	ck_assert_uint_eq(p.failed, 1);
	pair_close(&p);
}
END_TEST

START_TEST(paths_merge)
{
	struct pair p;
	pair_open(&p);
	mkdirat(p.src, "d", 0755);
	many(p.src, "d/e", 3);
	many(p.src, "d-e", 3);
	compare_add(p.c, "d/e/1", 0);
	compare_add(p.c, "d/e", CMP_RECURSIVE);
	compare_add(p.c, "d-e", CMP_RECURSIVE);
	compare_add(p.c, "d/e/2", 0);
	compare_add(p.c, "d", CMP_RECURSIVE);
	compare_add(p.c, "", CMP_RECURSIVE);
	compare_add(p.c, "d", CMP_RECURSIVE);
	run(&p);
	ck_assert_uint_eq(standby_counts(p.s)->lists, 1);
	equal(&p);
	pair_close(&p);
}
END_TEST

/* The stream undoes what the comparison found equal: the path is compared once more when all records are sent, and not before. */
START_TEST(what_changes_meanwhile_is_compared_again)
{
	struct pair p;
	pair_open(&p);
	mkdirat(p.src, "d", 0755);
	many(p.src, "d/e", 3);
	compare(&p, "", CMP_RECURSIVE);
	equal(&p);
	p.sent = 5;
	p.head = 7;
	ck_assert_int_eq(compare_changed(p.c, "d/e/1", 0, 8), 0); /* nothing is compared */
	ck_assert_int_eq(compare_add(p.c, "d", CMP_RECURSIVE), 0);
	while (compare_sent(p.c, p.sent, p.head) == 0 && (compare_step(p.c) == 1 || standby_deliver(p.s, p.c)))
		;
	ck_assert(compare_busy(p.c)); /* records 6 and 7 are still to be sent */
	ck_assert_int_eq(compare_changed(p.c, "elsewhere", 0, 8), 0);
	ck_assert_int_eq(compare_changed(p.c, "d/e/1", CMP_CHECKSUM, 8), 1);
	write_text(p.dst, "d/e/1", "?????");
	ck_assert_int_eq(compare_renamed(p.c, "d/e", "d/x", false), 0);
	ck_assert_int_eq(renameat(p.src, "d/e", p.src, "d/x"), 0);
	ck_assert_int_eq(renameat(p.dst, "d/e", p.dst, "d/x"), 0);
	ck_assert_int_eq(compare_changed(p.c, "d/x", 0, 8), 1);
	p.sent = 7;
	run(&p);
	equal(&p);
	ck_assert(!compare_busy(p.c));
	pair_close(&p);
}
END_TEST

START_TEST(what_changes_in_every_round_is_left_to_the_stream)
{
	struct pair p;
	int rounds = 0;
	pair_open(&p);
	many(p.src, "d", 3);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(compare_add(p.c, "d/1", 0), 0);
	for (; rounds < 100 && compare_changed(p.c, "d/1", 0, 8) == 1; rounds++) {
		ck_assert_int_ge(compare_sent(p.c, 1, 1), 0);
		for (int i = 0; i < 50; i++) {
			ck_assert_int_ge(compare_step(p.c), 0);
			standby_deliver(p.s, p.c);
		}
		ck_assert_int_ge(compare_sent(p.c, 1, 1), 0);
	}
	ck_assert_int_eq(rounds, 8);
	run(&p);
	pair_close(&p);
}
END_TEST

/* Verify; between is called once, where the first look is over and what was on its way arrives. Returns the differences. */
static json_int_t verify(struct pair *p, void (*between)(struct pair *p))
{
	struct compare_env env = {.stream = p->s, .rootfd = p->src, .mirror = &p->mirror, .no_owner = geteuid() != 0, .jdirfd = -1};
	struct vrun_seen seen = {.head = 1};
	struct vjob *job;
	struct vrun *v;
	json_t *last;
	bool more;
	int r;
	ck_assert_int_eq(vjob_new(&job, CMP_REPORT, 1), 0);
	ck_assert_int_eq(vrun_new(&v, job, "target", &env), 0);
	while ((r = vrun_step(v, &seen)) != 2) {
		ck_assert_int_ge(r, 0);
		if (standby_deliver(p->s, vrun_compare(v)) || r != 0)
			continue;
		ck_assert_uint_eq(seen.applied, 0);
		seen.applied = seen.head;
		if (between)
			between(p);
	}
	do {
		last = vjob_take(job, 1000, &more);
		ck_assert_ptr_nonnull(last);
		if (more)
			snprintf(p->what, sizeof(p->what), "%s: %s", json_string_value(json_object_get(last, "path")),
				 json_string_value(json_object_get(last, "what")));
		r = json_is_true(json_object_get(last, "ok")) ? 0 : -1;
		if (more)
			json_decref(last);
	} while (more);
	json_int_t n = r ? -1 : json_integer_value(json_object_get(last, "differences"));
	json_decref(last);
	vrun_free(v, NULL);
	vjob_unref(job);
	return n;
}

START_TEST(verification_finds_hard_links_that_differ)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "a", "same");
	linkat(p.src, "a", p.src, "b", 0);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_int_eq(verify(&p, NULL), 0);
	unlinkat(p.dst, "b", 0);
	write_text(p.dst, "b", "same");
	same_times(&p, "b");
	same_times(&p, ".");
	ck_assert_int_eq(verify(&p, NULL), 1);
	pair_close(&p);
}
END_TEST

static void a_tree_arrives(struct pair *p)
{
	mkdirat(p->dst, "d", 0755);
	mkdirat(p->dst, "d/e", 0755);
	mkdirat(p->dst, "d/e/f", 0755);
	write_text(p->dst, "d/e/f/file", "another");
	same_times(p, "d/e/f");
	same_times(p, "d/e");
	same_times(p, "d");
	same_times(p, ".");
}

START_TEST(verification_looks_into_what_arrives_meanwhile)
{
	struct pair p;
	pair_open(&p);
	fchmodat(p.dst, ".", 0755, 0);
	mkdirat(p.src, "d", 0755);
	mkdirat(p.src, "d/e", 0755);
	mkdirat(p.src, "d/e/f", 0755);
	write_text(p.src, "d/e/f/file", "one");
	ck_assert_int_eq(verify(&p, a_tree_arrives), 1);
	ck_assert_str_eq(p.what, "d/e/f/file: size differs");
	pair_close(&p);
}
END_TEST

static void the_next_name_is_on_its_way(struct pair *p)
{
	struct stat st;
	same_times(p, "d");
	ck_assert_int_eq(fstatat(p->src, "d", &st, 0), 0);
	write_text(p->src, "d/next", "n");
	struct timespec ts[2] = {st.st_atim, st.st_mtim}; /* its directory's time is the last name's, as far as we know */
	ck_assert_int_eq(utimensat(p->src, "d", ts, 0), 0);
}

START_TEST(verification_does_not_report_what_is_on_its_way_later)
{
	struct pair p;
	pair_open(&p);
	fchmodat(p.dst, ".", 0755, 0);
	mkdirat(p.src, "d", 0755);
	mkdirat(p.dst, "d", 0755);
	old_times(p.dst, "d");
	same_times(&p, ".");
	ck_assert_int_eq(verify(&p, the_next_name_is_on_its_way), 0);
	pair_close(&p);
}
END_TEST

static void a_name_arrives_as_a_file(struct pair *p)
{
	write_text(p->dst, "b", "same");
	same_times(p, "b");
	same_times(p, ".");
}

START_TEST(verification_sees_that_what_arrives_is_no_link)
{
	struct pair p;
	pair_open(&p);
	write_text(p.src, "a", "same");
	linkat(p.src, "a", p.src, "b", 0);
	compare(&p, "", CMP_RECURSIVE);
	unlinkat(p.dst, "b", 0);
	ck_assert_int_eq(verify(&p, a_name_arrives_as_a_file), 1);
	pair_close(&p);
}
END_TEST

/* Root, too, may look only where the mode lets him. */
static void obey_modes(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];
	ck_assert_int_eq(syscall(SYS_capget, &head, caps), 0);
	caps[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
	ck_assert_int_eq(syscall(SYS_capset, &head, caps), 0);
}

/* Work until the directory and what is in it were met, then give it that mode, then work to the end. */
static void close_under_way(struct pair *p, const char *dir, mode_t mode)
{
	forget_counts(p);
	ck_assert_int_eq(compare_add(p->c, "", CMP_RECURSIVE), 0);
	do {
		ck_assert_int_ge(compare_step(p->c), 0);
		standby_deliver(p->s, p->c);
	} while (p->differs < 2);
	ck_assert_int_eq(fchmodat(p->src, dir, mode, 0), 0);
	run(p);
	ck_assert_int_eq(fchmodat(p->src, dir, 0755, 0), 0);
	fchmodat(p->dst, dir, 0755, 0);
}

START_TEST(a_directory_whose_attributes_cannot_be_read_at_the_end_is_told)
{
	struct pair p;
	uint8_t *big = noise(3 << 20, 1);
	pair_open(&p);
	obey_modes();
	mkdirat(p.src, "d", 0755);
	write_file(p.src, "d/big", big, 3 << 20);
	close_under_way(&p, "d", 0300);
	ck_assert_uint_eq(p.failed, 1);
	free(big);
	pair_close(&p);
}
END_TEST

START_TEST(a_hard_link_that_cannot_be_looked_at_is_told)
{
	struct pair p;
	uint8_t *big = noise(3 << 20, 1);
	pair_open(&p);
	obey_modes();
	write_file(p.dst, "big", big, 3 << 20);
	big[1 << 20] ^= 1;
	write_file(p.src, "big", big, 3 << 20);
	mkdirat(p.src, "d", 0755);
	linkat(p.src, "big", p.src, "d/name", 0);
	close_under_way(&p, "d", 0400);
	ck_assert_int_eq(faccessat(p.dst, "d/name", F_OK, 0), -1);
	ck_assert_uint_eq(p.failed, 1);
	free(big);
	pair_close(&p);
}
END_TEST

START_TEST(many_directories_are_asked_for_ahead)
{
	struct pair p;
	char name[64];
	pair_open(&p);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		mkdirat(p.src, name, 0755);
		strcat(name, "/sub");
		mkdirat(p.src, name, 0755);
	}
	compare(&p, "", CMP_RECURSIVE);
	compare(&p, "", CMP_RECURSIVE);
	ck_assert_uint_eq(standby_counts(p.s)->lists, 601);
	ck_assert_uint_ge(standby_counts(p.s)->window, 20);
	equal(&p);
	pair_close(&p);
}
END_TEST

START_TEST(stopped_in_the_middle)
{
	for (int steps = 0; steps < 60; steps++) {
		struct pair p;
		pair_open(&p);
		every_kind(&p);
		many(p.src, "m", 10);
		many(p.dst, "m", 200);
		compare_add(p.c, "", CMP_RECURSIVE);
		for (int i = 0; i < steps; i++) {
			compare_step(p.c);
			if (i % 2)
				standby_deliver(p.s, p.c);
		}
		pair_close(&p);
	}
}
END_TEST

static void random_change(struct pair *p, int root, unsigned n)
{
	char a[64], b[64];
	snprintf(a, sizeof(a), "d%ld/%ld", random() % 4, random() % 8);
	snprintf(b, sizeof(b), "d%ld/%ld", random() % 4, random() % 8);
	uint8_t *data = noise(200000, n);
	switch (random() % 10) {
	case 0:
	case 1: {
		int fd = openat(root, a, O_WRONLY | O_CREAT, 0644);
		if (fd >= 0) {
			pwrite(fd, data, (size_t)(random() % 200000), random() % 100000);
			close(fd);
		}
		if (root == p->dst && fd >= 0) /* two writes within one tick of the clock would look alike */
			old_times(root, a);
		break;
	}
	case 2:
		linkat(root, a, root, b, 0);
		break;
	case 3:
		renameat(root, a, root, b);
		break;
	case 4:
		unlinkat(root, a, 0);
		break;
	case 5:
		mkdirat(root, a, 0755);
		break;
	case 6:
		symlinkat(b, root, a);
		break;
	case 7:
		fchmodat(root, a, (mode_t)(0600 + random() % 64), 0);
		break;
	case 8:
		unlinkat(root, a, AT_REMOVEDIR);
		break;
	default:
		old_times(root, "d0");
	}
	free(data);
}

START_TEST(random_trees_converge)
{
	for (unsigned seed = 1; seed <= 40; seed++) {
		struct pair p;
		char name[16];
		pair_open(&p);
		p.mirror.delete_guard = 100;
		srandom(seed);
		for (int i = 0; i < 4; i++) {
			snprintf(name, sizeof(name), "d%d", i);
			mkdirat(p.src, name, 0755);
			mkdirat(p.dst, name, 0755);
		}
		for (unsigned round = 0; round < 3; round++) {
			for (unsigned i = 0; i < 60; i++)
				random_change(&p, random() % 3 ? p.src : p.dst, i + 1000 * seed);
			compare(&p, "", CMP_RECURSIVE | (round == 1 ? CMP_CHECKSUM : 0));
			equal(&p);
		}
		pair_close(&p);
	}
}
END_TEST

UNIT_MAIN("compare", first_copy_of_every_kind, report_changes_nothing, report_leaves_empty_files_alone, types_that_differ, extra_names_go,
	  extra_names_stay_without_delete, the_guard_holds_deletions_back, the_guard_counts_the_whole_tree,
	  the_guard_lets_none_go_before_it_stops, the_guard_protects_a_small_tree,
	  more_deletions_than_can_wait_take_several_rounds, what_is_scheduled_can_be_asked, excluded_names_are_left_alone, an_excluded_directory_by_itself_stays_here, a_directory_that_stays_for_excluded_names_is_no_difference, excluded_names_keep_their_directory_from_another_type, the_guard_stops_a_file_in_a_tree_s_place, attributes_alone,
	  changed_blocks_of_a_large_file, replaced_while_it_is_compared, growing_and_shrinking, insertion_is_found,
	  checksum_finds_silent_damage, a_huge_hole_costs_nothing, holes_are_made_again,
	  hard_links_made_and_broken, one_name_of_a_hard_link_alone, one_name_of_two_files, one_name_of_a_hard_link_with_another, two_files_that_become_one_are_compared,
	  a_name_of_a_hard_link_that_is_replaced_meanwhile, one_path_with_missing_parents,
	  one_path_that_is_gone, a_directory_one_level, a_directory_by_itself, nothing_is_inherited_from_the_standby, a_failure_is_tried_again, paths_merge, what_changes_meanwhile_is_compared_again,
	  what_changes_in_every_round_is_left_to_the_stream,
	  verification_finds_hard_links_that_differ, verification_looks_into_what_arrives_meanwhile, verification_does_not_report_what_is_on_its_way_later, verification_sees_that_what_arrives_is_no_link, a_directory_whose_attributes_cannot_be_read_at_the_end_is_told, a_hard_link_that_cannot_be_looked_at_is_told, many_directories_are_asked_for_ahead, stopped_in_the_middle, random_trees_converge)
