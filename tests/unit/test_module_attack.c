/* SPDX-License-Identifier: BSD-2-Clause
 * A client with valid credentials for one module that wants more: whatever it sends, nothing outside the
 * module is read or changed, and the daemon's child ends in order. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <xxhash.h>

#include "replicator/module/syscalls.h"
#include "tests/unit/module_rig.h"

/* The outside holds exactly what it held. */
static void assert_outside(const struct rig *r)
{
	struct stat st;
	char path[400];
	snprintf(path, sizeof(path), "%s/secret", r->outside);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert_int_eq(st.st_mode, 0100640);
	ck_assert_int_eq(st.st_nlink, 1);
	ck_assert_int_eq(st.st_size, 7);
	ck_assert(st.st_mtim.tv_sec > 1000000);
	ck_assert_str_eq(rig_text(r, "outside", "secret"), "secret\n");
	ck_assert_int_lt(lgetxattr(path, "user.x", NULL, 0), 0);
	int n = 0;
	DIR *d = opendir(r->outside);
	while (readdir(d))
		n++;
	closedir(d);
	ck_assert_int_eq(n, 3);
}

static void link_outside(struct rig *r, const char *name)
{
	rig_simple(r, JT_SYMLINK, name, r->outside);
	ck_assert(rig_send(r));
}

START_TEST(an_honest_client_is_served)
{
	struct rig r;
	rig_init(&r, "");
	rig_open(&r);
	ck_assert_int_eq(r.welcome.flags & (WW_FRESH | WW_ADOPTED | WW_UNCLEAN), WW_FRESH);
	rig_simple(&r, JT_MKDIR, "d", NULL);
	rig_file(&r, 1, "d/f", "hello", 5);
	struct wop pos = {.type = WOP_POS, .journal_id = {7}, .epoch = 1, .seq = 4, .digest = 9};
	rig_op(&r, &pos);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	ck_assert_int_eq(r.ack.applied, 4);
	ck_assert_str_eq(rig_text(&r, "module", "d/f"), "hello");
	rig_close(&r);
	rig_open(&r);
	ck_assert_int_eq(r.welcome.flags & (WW_FRESH | WW_UNCLEAN), 0);
	ck_assert_int_eq(r.welcome.applied.seq, 4);
	ck_assert_int_eq(r.welcome.durable.seq, 4);
	rig_end(&r);
}
END_TEST

static const char *const bad_paths[] = {
    "..", "../outside/secret", "/etc/passwd",	 "a/../../outside/secret", "a//b", "./a", "a/.",
    "a/", ".tandem",	       ".tandem/marker", ".tandem/tmp/x",	   "a/.."};

START_TEST(paths_that_are_none_end_the_connection)
{
	for (size_t i = 0; i < sizeof(bad_paths) / sizeof(*bad_paths); i++) {
		static const enum wop_type types[] = {WOP_BEGIN, WOP_COPY, WOP_COMMIT, WOP_RMTREE,
						      WOP_XATTRS};
		for (size_t k = 0; k < sizeof(types) / sizeof(*types); k++) {
			struct rig r;
			rig_init(&r, "");
			rig_open(&r);
			struct wop op = {.type = types[k],
					 .xid = 1,
					 .flags = types[k] == WOP_BEGIN,
					 .path = bad_paths[i],
					 .attr = {.mode = 0100600},
					 .data = (const uint8_t *)"\0\0",
					 .dlen = 2};
			rig_op(&r, &op);
			ck_assert(!rig_send(&r));
			ck_assert_int_eq(r.refuse_code, WR_PROTOCOL);
			assert_outside(&r);
			rig_end(&r);
		}
	}
}
END_TEST

/* A record with valid sums around a path that jrec_put would not encode: the placeholder is overwritten in
 * place. */
static void evil_record(struct rig *r, enum jtype type, const char *evil)
{
	struct jrec rec;
	struct buf b;
	char placeholder[64];
	size_t n = strlen(evil);
	memset(placeholder, 'Q', n);
	placeholder[n] = 0;
	jrec_init(&rec, type);
	rec.seq = 1;
	rec.path = placeholder;
	rec.path2 = rec.target = "other";
	rec.mode = 0100644;
	rec.xname = "user.x";
	buf_init(&b, JREC_MAX);
	ck_assert_int_eq(jrec_put(&b, &rec), 0);
	uint8_t *at = memmem(b.data, b.len, placeholder, n);
	ck_assert_ptr_nonnull(at);
	memcpy(at, evil, n);
	uint32_t body;
	memcpy(&body, b.data + 12, 4);
	memset(b.data + 32, 0, 8);
	uint64_t sum = XXH3_64bits(b.data, JREC_HEADER + body);
	memcpy(b.data + 32, &sum, 8);
	struct wop op = {.type = WOP_REC, .data = b.data, .dlen = (uint32_t)b.len};
	rig_op(r, &op);
	buf_release(&b);
}

START_TEST(records_with_paths_that_are_none_end_the_connection)
{
	for (size_t i = 0; i < sizeof(bad_paths) / sizeof(*bad_paths); i++) {
		struct rig r;
		rig_init(&r, "");
		rig_open(&r);
		evil_record(&r, i % 2 ? JT_UNLINK : JT_CREATE, bad_paths[i]);
		ck_assert(!rig_send(&r));
		ck_assert_int_eq(r.refuse_code, WR_PROTOCOL);
		assert_outside(&r);
		rig_end(&r);
	}
}
END_TEST

/* Everything that a record can say of a file's attributes: owner, mode, time, attributes, ACL, size. */
static unsigned attributes(struct rig *r, const char *path)
{
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 7, 0, 255, 255, 255, 255, 32, 0, 7, 0, 255, 255, 255, 255};
	static const char *const names[] = {"system.posix_acl_access", "system.posix_acl_default", "user.x", "trusted.x", "security.x"};
	struct jrec rec;
	unsigned n = 1;
	jrec_init(&rec, JT_SETATTR);
	rec.seq = 1;
	rec.path = path;
	rec.valid = JV_MODE | JV_UID | JV_GID | JV_MTIME;
	rec.mode = 0100777;
	rec.uid = rec.gid = 12345;
	rig_rec(r, &rec);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++, n += 2) {
		jrec_init(&rec, JT_SETXATTR);
		rec.seq = 1;
		rec.path = path;
		rec.xname = names[i];
		rec.xval = acl;
		rec.xlen = sizeof(acl);
		rig_rec(r, &rec);
		rec.type = JT_REMOVEXATTR;
		rig_rec(r, &rec);
	}
	return n;
}

START_TEST(no_attribute_is_set_through_a_symlink)
{
	struct rig r;
	char secret[400];
	rig_init(&r, "");
	rig_open(&r);
	link_outside(&r, "link");
	unsigned n = attributes(&r, "link/secret");
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, n);
	assert_outside(&r);
	snprintf(secret, sizeof(secret), "%s/secret", r.outside);
	rig_simple(&r, JT_SYMLINK, "file", secret);
	attributes(&r, "file");
	attributes(&r, "link");
	ck_assert(rig_send(&r));
	assert_outside(&r);
	ck_assert_int_lt(lgetxattr(secret, "trusted.x", NULL, 0), 0);
	ck_assert_int_lt(lgetxattr(r.outside, "system.posix_acl_default", NULL, 0), 0);
	rig_end(&r);
}
END_TEST

/* What a client may remove it has to name: nothing goes because something else takes its place, or was not sent. */
START_TEST(only_removals_remove)
{
	struct rig r;
	rig_init(&r, "");
	rig_open(&r);
	rig_simple(&r, JT_MKDIR, "d", NULL);
	rig_file(&r, 1, "d/kept", "kept", 4);
	rig_file(&r, 2, "file", "file", 4);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	rig_file(&r, 3, "d", "a file for a directory", 22);
	rig_simple(&r, JT_CREATE, "d", NULL);
	rig_simple(&r, JT_MKNOD, "d", NULL);
	rig_simple(&r, JT_SYMLINK, "d", "elsewhere");
	rig_simple(&r, JT_UNLINK, "d", NULL);
	rig_simple(&r, JT_RMDIR, "d", NULL);
	rig_simple(&r, JT_RENAME, "file", "d");
	rig_simple(&r, JT_RMDIR, "file", NULL);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 8);
	struct wop root = {.type = WOP_RMTREE, .path = ""};
	rig_op(&r, &root);
	rig_send(&r);
	ck_assert_str_eq(rig_text(&r, "module", "d/kept"), "kept");
	ck_assert_str_eq(rig_text(&r, "module", "file"), "file");
	char path[400];
	snprintf(path, sizeof(path), "%s/.tandem/marker", r.module);
	ck_assert_int_eq(access(path, F_OK), 0);
	rig_end(&r);
}
END_TEST

START_TEST(symlinks_on_the_way_are_not_followed)
{
	static const enum jtype one[] = {JT_CREATE, JT_MKDIR,	JT_MKNOD,    JT_UNLINK,
					 JT_RMDIR,  JT_SETATTR, JT_SETXATTR, JT_REMOVEXATTR};
	struct rig r;
	rig_init(&r, "");
	rig_open(&r);
	link_outside(&r, "link");
	for (size_t i = 0; i < sizeof(one) / sizeof(*one); i++)
		rig_simple(&r, one[i], "link/secret", NULL);
	rig_simple(&r, JT_CREATE, "link/new", NULL);
	rig_simple(&r, JT_SYMLINK, "link/new", "x");
	rig_simple(&r, JT_LINK, "link/secret", "stolen");
	rig_simple(&r, JT_RENAME, "link/secret", "stolen");
	rig_simple(&r, JT_CREATE, "mine", NULL);
	rig_simple(&r, JT_RENAME, "mine", "link/secret");
	rig_simple(&r, JT_LINK, "mine", "link/mine");
	rig_file(&r, 1, "link/secret", "pwned", 5);
	struct wop op = {.type = WOP_RMTREE, .path = "link/secret"};
	rig_op(&r, &op);
	op = (struct wop){
	    .type = WOP_XATTRS, .path = "link/secret", .data = (const uint8_t *)"\0\0", .dlen = 2};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_ge(r.fails, 13);
	assert_outside(&r);
	ck_assert_str_eq(rig_text(&r, "module", "stolen"), "");
	rig_end(&r);
}
END_TEST

START_TEST(nothing_outside_is_read)
{
	struct rig r;
	struct buf out, req;
	rig_init(&r, "");
	rig_open(&r);
	link_outside(&r, "link");
	char secret[400];
	snprintf(secret, sizeof(secret), "%s/secret", r.outside);
	rig_simple(&r, JT_SYMLINK, "file", secret);
	struct wop op = {.type = WOP_BEGIN, .xid = 3, .flags = WB_NEW, .path = "copy"};
	rig_op(&r, &op);
	XXH128_canonical_t c;
	XXH128_canonicalFromHash(&c, XXH3_128bits("secret\n", 7));
	op = (struct wop){.type = WOP_COPY, .xid = 3, .path = "link/secret", .len = 7};
	memcpy(op.hash, c.digest, 16);
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_BEGIN, .xid = 4, .flags = WB_NEW, .path = "copy"};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_COPY, .xid = 4, .path = "file", .len = 7};
	memcpy(op.hash, c.digest, 16);
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 2);
	buf_init(&out, FRAME_MAX);
	buf_init(&req, 4096);
	buf_put_u32(&req, 1);
	buf_put_str(&req, "link");
	buf_put_u8(&req, 0);
	conn_put(r.conn, FT_LIST, req.data, req.len, COMPRESS_NONE);
	struct wlisting l;
	ck_assert(rig_await(&r, FT_LISTING, &out));
	ck_assert_int_eq(wlisting_get(&out, &l), 0);
	ck_assert_int_ne(l.code, 0);
	ck_assert_int_eq(l.count, 0);
	static const char *const files[] = {"link/secret", "file"};
	for (int i = 0; i < 2; i++) {
		struct wsums_req q = {.id = 2, .path = files[i], .len = EXTENT_INF};
		struct wsums s;
		buf_clear(&req);
		wsums_req_put(&req, &q);
		conn_put(r.conn, FT_SUMS, req.data, req.len, COMPRESS_NONE);
		ck_assert(rig_await(&r, FT_SUMSET, &out));
		ck_assert_int_eq(wsums_get(&out, &s), 0);
		ck_assert_int_ne(s.code, 0);
		ck_assert_int_eq(s.count, 0);
	}
	buf_release(&out);
	buf_release(&req);
	assert_outside(&r);
	rig_end(&r);
}
END_TEST

START_TEST(a_symlink_at_the_end_is_itself_changed)
{
	struct rig r;
	char secret[400];
	rig_init(&r, "");
	rig_open(&r);
	snprintf(secret, sizeof(secret), "%s/secret", r.outside);
	rig_simple(&r, JT_SYMLINK, "file", secret);
	rig_simple(&r, JT_SETATTR, "file", NULL);
	rig_simple(&r, JT_SETXATTR, "file", NULL);
	rig_simple(&r, JT_CREATE, "file", NULL);
	struct wop op = {.type = WOP_BEGIN, .xid = 1, .flags = WB_PATCH, .path = "file"};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_DATA, .xid = 1, .data = (const uint8_t *)"x", .dlen = 1};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_COMMIT, .xid = 1, .path = "file", .size = 1, .attr = {.mode = 0100777}};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	assert_outside(&r);
	rig_file(&r, 2, "file", "own", 3); /* takes the link's place */
	ck_assert(rig_send(&r));
	ck_assert_str_eq(rig_text(&r, "module", "file"), "own");
	assert_outside(&r);
	rig_end(&r);
}
END_TEST

struct swapper {
	const struct rig *r;
	atomic_bool stop;
};

/* Swap module/d with a symlink to the outside as fast as possible. */
static void *swap(void *arg)
{
	struct swapper *s = arg;
	char d[400], link[400];
	snprintf(d, sizeof(d), "%s/d", s->r->module);
	snprintf(link, sizeof(link), "%s/link", s->r->base);
	while (!s->stop)
		renameat2(AT_FDCWD, d, AT_FDCWD, link, 2 /* RENAME_EXCHANGE */);
	return NULL;
}

START_TEST(a_directory_swapped_for_a_symlink_does_not_help)
{
	struct rig r;
	char link[400];
	pthread_t t;
	rig_init(&r, "");
	rig_open(&r);
	rig_simple(&r, JT_MKDIR, "d", NULL);
	ck_assert(rig_send(&r));
	snprintf(link, sizeof(link), "%s/link", r.base);
	ck_assert_int_eq(symlink(r.outside, link), 0);
	struct swapper s = {.r = &r};
	pthread_create(&t, NULL, swap, &s);
	for (uint32_t i = 0; i < 300; i++) {
		char name[32];
		snprintf(name, sizeof(name), "d/f%u", i);
		rig_file(&r, i + 1, name, "pwned", 5);
		rig_simple(&r, JT_SETATTR, "d/secret", NULL);
		rig_simple(&r, JT_UNLINK, "d/secret", NULL);
		rig_simple(&r, JT_MKDIR, "d/sub", NULL);
		struct wop op = {.type = WOP_RMTREE, .path = "d/sub"};
		rig_op(&r, &op);
		ck_assert(rig_send(&r));
	}
	s.stop = true;
	pthread_join(t, NULL);
	assert_outside(&r);
	rig_end(&r);
}
END_TEST

START_TEST(a_mirror_is_not_the_way_out_of_a_removed_tree)
{
	struct rig r;
	rig_init(&r, "");
	rig_open(&r);
	rig_simple(&r, JT_MKDIR, "t", NULL);
	link_outside(&r, "t/link");
	struct wop op = {.type = WOP_RMTREE, .path = "t"};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	char path[400];
	snprintf(path, sizeof(path), "%s/t", r.module);
	ck_assert_int_ne(access(path, F_OK), 0);
	assert_outside(&r);
	rig_end(&r);
}
END_TEST

START_TEST(a_deep_tree_is_removed_with_few_descriptors)
{
	struct rig r;
	char path[2000] = "t";
	rig_init(&r, "");
	rig_open(&r);
	for (int i = 0; i < 400; i++) {
		rig_simple(&r, JT_MKDIR, path, NULL);
		strcat(path, "/d");
	}
	struct wop op = {.type = WOP_RMTREE, .path = "t"};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	snprintf(path, sizeof(path), "%s/t", r.module);
	ck_assert_int_ne(access(path, F_OK), 0);
	rig_end(&r);
}
END_TEST

START_TEST(what_is_excluded_stays_however_deep_it_is)
{
	struct rig r;
	char path[240] = "t", keep[256];
	rig_init(&r, "exclude = /t/**/keep\n");
	rig_open(&r);
	for (int i = 0; i < 100; i++) {
		rig_simple(&r, JT_MKDIR, path, NULL);
		strcat(path, "/d");
	}
	rig_simple(&r, JT_MKDIR, path, NULL);
	rig_file(&r, 1, "t/d/goes", "goes", 4);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	snprintf(keep, sizeof(keep), "%s/keep", path);
	rig_write(r.module, keep, "kept", 0600);
	struct wop op = {.type = WOP_RMTREE, .path = "t"};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 1);
	ck_assert_str_eq(rig_text(&r, "module", keep), "kept");
	ck_assert_str_eq(rig_text(&r, "module", "t/d/goes"), "");
	rig_end(&r);
}
END_TEST

/* Of a deep tree whose removal was cut off. */
START_TEST(deep_trees_that_a_kill_left_go)
{
	struct rig r;
	char path[300];
	rig_init(&r, "");
	rig_open(&r);
	rig_close(&r);
	for (int n = 1; n <= 3; n++) {
		snprintf(path, sizeof(path), ".tandem/tmp/rm%d", n);
		for (int i = 0; i < 100; i++) {
			rig_mkdir(r.module, path);
			strcat(path, "/d");
		}
	}
	rig_open(&r);
	for (int n = 1; n <= 3; n++) {
		snprintf(path, sizeof(path), "%s/module/.tandem/tmp/rm%d", r.base, n);
		ck_assert_msg(access(path, F_OK) != 0, "%s", path);
	}
	rig_end(&r);
}
END_TEST

/* The child's private memory, KiB. */
static long memory_of(const struct rig *r)
{
	char path[64], line[256];
	long kib = -1;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)r->child);
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "RssAnon: %ld", &kib);
	if (f)
		fclose(f);
	return kib;
}

/* Every second byte, in as many transfers; returns how many failed. */
static unsigned scatter(struct rig *r, enum wbegin_mode mode, uint32_t transfers, uint32_t ranges)
{
	char path[32];
	for (uint32_t x = 1; x <= transfers; x++) {
		snprintf(path, sizeof(path), "f%u", x);
		struct wop op = {.type = WOP_BEGIN, .xid = x, .flags = mode, .path = path};
		rig_op(r, &op);
		for (uint32_t i = 0; i < ranges; i++) {
			op = (struct wop){.type = WOP_DATA, .xid = x, .off = i * 2, .data = (const uint8_t *)"x", .dlen = 1};
			rig_op(r, &op);
			if (r->batch.len > FRAME_MAX / 2)
				ck_assert(rig_send(r));
		}
	}
	ck_assert(rig_send(r));
	return r->fails;
}

START_TEST(ranges_of_open_transfers_are_limited)
{
	for (int k = 0; k < 2; k++) {
		struct rig r;
		rig_init(&r, "");
		rig_open(&r);
		unsigned failed = k ? scatter(&r, WB_PATCH, 36, 1u << 15) : scatter(&r, WB_NEW, 40, 1u << 14);
		ck_assert_msg(k ? failed > 0 : failed == 0, "%u failed: %s", failed, r.text);
		if (k)
			ck_assert_uint_eq(r.fail_code, WR_UNSUPPORTED);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		ck_assert_int_lt(memory_of(&r), 48 << 10);
#endif
		rig_end(&r);
	}
}
END_TEST

START_TEST(devices_and_fifos_are_never_opened)
{
	struct rig r;
	struct jrec rec;
	struct buf req, out;
	struct wsums s;
	rig_init(&r, "");
	rig_open(&r);
	rig_simple(&r, JT_MKNOD, "fifo", NULL);
	jrec_init(&rec, JT_MKNOD);
	rec.path = "watchdog";
	rec.mode = 020600;
	rec.rdev = makedev(10, 130);
	rig_rec(&r, &rec);
	struct wop op = {.type = WOP_BEGIN, .xid = 1, .flags = WB_PATCH, .path = "fifo"};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_COMMIT, .xid = 1, .path = "fifo", .attr = {.mode = 0100600}};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_ge(r.fails, 1);
	buf_init(&out, FRAME_MAX);
	buf_init(&req, 4096);
	for (int i = 0; i < 2; i++) {
		struct wsums_req q = {.id = 2, .path = i ? "fifo" : "watchdog", .len = EXTENT_INF};
		buf_clear(&req);
		wsums_req_put(&req, &q);
		conn_put(r.conn, FT_SUMS, req.data, req.len, COMPRESS_NONE);
		ck_assert(rig_await(&r, FT_SUMSET, &out));
		ck_assert_int_eq(wsums_get(&out, &s), 0);
		ck_assert_int_ne(s.code, 0);
	}
	buf_release(&out);
	buf_release(&req);
	rig_end(&r);
}
END_TEST

START_TEST(sizes_beyond_reason_are_answered)
{
	struct rig r;
	rig_init(&r, "");
	rig_open(&r);
	struct wop op = {.type = WOP_BEGIN, .xid = 1, .flags = WB_NEW, .path = "big"};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_HOLE, .xid = 1, .off = 5, .len = EXTENT_INF - 5};
	rig_op(&r, &op);
	op = (struct wop){
	    .type = WOP_DATA, .xid = 1, .off = INT64_MAX - 1, .data = (const uint8_t *)"x", .dlen = 1};
	rig_op(&r, &op);
	op = (struct wop){
	    .type = WOP_COMMIT, .xid = 1, .path = "big", .size = INT64_MAX, .attr = {.mode = 0100600}};
	rig_op(&r, &op);
	rig_file(&r, 2, "after", "ok", 2);
	ck_assert(rig_send(&r));
	if (r.fails != 1) { /* tmpfs takes it */
		char path[1000];
		struct stat st;
		snprintf(path, sizeof(path), "%s/big", r.module);
		ck_assert_int_eq(lstat(path, &st), 0);
		ck_assert_int_eq(st.st_size, INT64_MAX);
	}
	ck_assert_str_eq(rig_text(&r, "module", "after"), "ok");
	rig_end(&r);
}
END_TEST

START_TEST(open_transfers_are_limited)
{
	struct rig r;
	rig_init(&r, "");
	rig_open(&r);
	for (uint32_t i = 1; i <= 300; i++) {
		struct wop op = {.type = WOP_BEGIN, .xid = i, .flags = WB_NEW, .path = "x"};
		rig_op(&r, &op);
	}
	ck_assert(!rig_send(&r));
	ck_assert_int_eq(r.refuse_code, WR_PROTOCOL);
	rig_end(&r);
}
END_TEST

START_TEST(frames_come_in_their_state_only)
{
	struct rig r;
	rig_init(&r, "");
	rig_connect(&r);
	rig_file(&r, 1, "early", "x", 1);
	ck_assert(!rig_send(&r));
	ck_assert_int_eq(r.refuse_code, WR_PROTOCOL);
	rig_close(&r);
	rig_connect(&r);
	rig_hello(&r, 2);
	ck_assert(rig_await(&r, FT_WELCOME, NULL));
	rig_file(&r, 1, "list", "x", 1);
	ck_assert(!rig_send(&r));
	ck_assert_int_eq(r.refuse_code, WR_PROTOCOL);
	ck_assert_str_eq(rig_text(&r, "module", "list"), "");
	rig_end(&r);
}
END_TEST

START_TEST(a_read_only_module_is_not_written)
{
	struct rig r;
	rig_init(&r, "read only = yes\n");
	rig_connect(&r);
	rig_hello(&r, 1);
	ck_assert(!rig_await(&r, FT_WELCOME, NULL));
	ck_assert_int_eq(r.refuse_code, WR_READ_ONLY);
	rig_end(&r);
}
END_TEST

START_TEST(an_address_that_is_not_allowed_is_told_so)
{
	struct rig r;
	rig_init(&r, "hosts allow = 10.0.0.0/8\n");
	rig_connect(&r);
	rig_hello(&r, 1);
	ck_assert(!rig_await(&r, FT_WELCOME, NULL));
	ck_assert_int_eq(r.refuse_code, WR_ADDRESS);
	rig_end(&r);
}
END_TEST

/* What code of an attacker could do within the handshake: it runs where the key is looked up. errno of each try, 0: it worked. */
struct tries {
	int ran, read, write, leave, execute, fork, socket, connect, trace;
};
static struct tries *tries;

int __real_auth_find(const struct auth_store *s, const struct modules_conf *mc, const char *user, const char *module, uint8_t key[PSK_LEN],
    char *why, size_t size);
int __wrap_auth_find(const struct auth_store *s, const struct modules_conf *mc, const char *user, const char *module, uint8_t key[PSK_LEN],
    char *why, size_t size);

static int failed(long r)
{
	return r < 0 ? errno : 0;
}

int __wrap_auth_find(const struct auth_store *s, const struct modules_conf *mc, const char *user, const char *module, uint8_t key[PSK_LEN],
    char *why, size_t size)
{
	if (tries) {
		struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		char path[600];
		snprintf(path, sizeof(path), "%s/../outside/secret", mc->modules[0].path);
		tries->read = failed(open(path, O_RDONLY));
		tries->write = failed(open(path, O_WRONLY | O_TRUNC));
		snprintf(path, sizeof(path), "%s/../outside/new", mc->modules[0].path);
		tries->leave = failed(open(path, O_WRONLY | O_CREAT, 0600));
		tries->execute = failed(execl("/bin/true", "true", NULL));
		tries->fork = failed(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
		tries->socket = failed(socket(AF_INET, SOCK_STREAM, 0));
		tries->connect = failed(connect(0, (struct sockaddr *)&sa, sizeof(sa)));
		tries->trace = failed(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
		tries->ran = 1;
	}
	return __real_auth_find(s, mc, user, module, key, why, size);
}

START_TEST(code_within_the_handshake_gets_nowhere)
{
	struct rig r;
	tries = mmap(NULL, sizeof(*tries), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(tries != MAP_FAILED);
	rig_init(&r, "");
	rig_open(&r);
	ck_assert_int_eq(tries->ran, 1);
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 2) {
		ck_assert_int_eq(tries->read, EACCES);
		ck_assert_int_eq(tries->write, EACCES);
		ck_assert_int_eq(tries->leave, EACCES);
	}
	if (syscalls_available()) {
		ck_assert_int_eq(tries->execute, EPERM);
		ck_assert_int_eq(tries->fork, EPERM);
		ck_assert_int_eq(tries->socket, EPERM);
		ck_assert_int_eq(tries->connect, EPERM);
		ck_assert_int_eq(tries->trace, EPERM);
	}
	assert_outside(&r);
	rig_end(&r);
	munmap(tries, sizeof(*tries));
	tries = NULL;
}
END_TEST

START_TEST(the_child_is_confined)
{
	struct rig r;
	char path[64], line[256], root[4096];
	bool privs = false, seccomp = false;
	rig_init(&r, "");
	rig_open(&r);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)r.child);
	FILE *f = fopen(path, "r");
	while (fgets(line, sizeof(line), f)) {
		unsigned long long caps;
		privs |= strncmp(line, "NoNewPrivs:\t1", 13) == 0;
		seccomp |= strncmp(line, "Seccomp:\t2", 10) == 0;
		if (sscanf(line, "CapEff: %llx", &caps) == 1)
			/* no NET_*, SYS_PTRACE, SYS_MODULE, KILL, SETUID, SETGID, SYS_CHROOT, SYS_RAWIO,
			 * SYS_BOOT, SYS_TIME */
			ck_assert_msg(!(caps & 0x06471ce0ull & ~(1ull << 21)), "capabilities %llx", caps);
	}
	fclose(f);
	ck_assert(privs);
#ifdef HAVE_SECCOMP
	ck_assert(seccomp);
#else
	(void)seccomp;
#endif
	if (geteuid() == 0) {
		snprintf(path, sizeof(path), "/proc/%d/root", (int)r.child);
		ssize_t n = readlink(path, root, sizeof(root) - 1);
		ck_assert_int_gt(n, 0);
		root[n] = 0;
		ck_assert_str_eq(root, r.module);
		snprintf(path, sizeof(path), "/proc/%d/cwd", (int)r.child);
		n = readlink(path, root, sizeof(root) - 1);
		ck_assert_int_gt(n, 0);
		root[n] = 0;
		ck_assert_str_eq(root, r.module);
	}
	rig_end(&r);
}
END_TEST

START_TEST(a_module_with_a_uid_keeps_no_owners)
{
	struct rig r;
	struct stat st;
	char path[400];
	if (geteuid() != 0)
		return;
	rig_init(&r, "uid = 65534\ngid = 65534\n");
	ck_assert_int_eq(chown(r.module, 65534, 65534), 0);
	rig_open(&r);
	ck_assert(r.welcome.flags & WW_NO_OWNER);
	rig_simple(&r, JT_CREATE, "f", NULL);
	rig_simple(&r, JT_MKDIR, "d", NULL);
	rig_file(&r, 1, "d/f", "x", 1);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	snprintf(path, sizeof(path), "%s/d/f", r.module);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_uid, 65534);
	struct jrec rec;
	jrec_init(&rec, JT_MKNOD);
	rec.path = "device";
	rec.mode = 020600;
	rec.rdev = makedev(1, 3);
	rig_rec(&r, &rec);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fail_code, WR_PERMISSION);
	ck_assert_ptr_nonnull(strstr(r.text, "uid 65534"));
	rig_end(&r);
}
END_TEST

START_TEST(a_patch_keeps_the_names_of_one_file_together)
{
	struct rig r;
	struct stat a, b;
	char path[400];
	rig_init(&r, "");
	rig_open(&r);
	rig_file(&r, 1, "one", "0123456789", 10);
	rig_simple(&r, JT_LINK, "one", "two");
	struct wop op = {.type = WOP_BEGIN, .xid = 2, .flags = WB_PATCH, .path = "two"};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_DATA, .xid = 2, .off = 8, .data = (const uint8_t *)"abc", .dlen = 3};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_COMMIT,
			  .xid = 2,
			  .path = "two",
			  .size = 11,
			  .attr = {0100640, geteuid(), getegid(), {77, 7}}};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	ck_assert_str_eq(rig_text(&r, "module", "one"), "01234567abc");
	rig_file(&r, 3, "one", "whole", 5); /* a new version goes into the same file too */
	ck_assert(rig_send(&r));
	ck_assert_str_eq(rig_text(&r, "module", "two"), "whole");
	snprintf(path, sizeof(path), "%s/one", r.module);
	ck_assert_int_eq(stat(path, &a), 0);
	snprintf(path, sizeof(path), "%s/two", r.module);
	ck_assert_int_eq(stat(path, &b), 0);
	ck_assert_int_eq(a.st_ino, b.st_ino);
	ck_assert_int_eq(a.st_mtim.tv_nsec, 5);
	rig_end(&r);
}
END_TEST

START_TEST(a_large_file_is_patched_in_place)
{
	struct rig r;
	static uint8_t big[1 << 20];
	char path[400];
	struct stat st;
	rig_init(&r, "");
	rig_open(&r);
	memset(big, 'a', sizeof(big));
	struct wop op = {.type = WOP_BEGIN, .xid = 1, .flags = WB_NEW, .path = "big"};
	rig_op(&r, &op);
	for (uint64_t i = 0; i < 3; i++) {
		op = (struct wop){
		    .type = WOP_DATA, .xid = 1, .off = i << 20, .data = big, .dlen = sizeof(big)};
		rig_op(&r, &op);
	}
	op = (struct wop){.type = WOP_COMMIT,
			  .xid = 1,
			  .path = "big",
			  .size = 3 << 20,
			  .attr = {0100600, geteuid(), getegid(), {1, 1}}};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	op = (struct wop){.type = WOP_BEGIN, .xid = 2, .flags = WB_PATCH, .path = "big"};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_DATA, .xid = 2, .off = 5000, .data = (const uint8_t *)"XYZ", .dlen = 3};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_HOLE, .xid = 2, .off = 1 << 20, .len = 1 << 20};
	rig_op(&r, &op);
	op = (struct wop){.type = WOP_COMMIT,
			  .xid = 2,
			  .path = "big",
			  .size = (3 << 20) - 7,
			  .attr = {0100600, geteuid(), getegid(), {2, 2}}};
	rig_op(&r, &op);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.fails, 0);
	snprintf(path, sizeof(path), "%s/big", r.module);
	int fd = open(path, O_RDONLY);
	ck_assert_int_eq(pread(fd, big, 6, 4998), 6);
	ck_assert_int_eq(memcmp(big, "aaXYZa", 6), 0);
	ck_assert_int_eq(pread(fd, big, 2, (1 << 20) - 1), 2);
	ck_assert_int_eq(memcmp(big, "a\0", 2), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, (3 << 20) - 7);
	ck_assert_int_eq(st.st_mtim.tv_sec, 2);
	close(fd);
	rig_end(&r);
}
END_TEST

START_TEST(another_source_is_refused)
{
	struct rig r;
	rig_init(&r, "");
	rig_open(&r);
	rig_close(&r);
	rig_connect(&r);
	struct buf b;
	struct whello h = {.version = CONN_VERSION, .mode = 1, .mirror = "other", .source_id = {9}};
	buf_init(&b, 4096);
	whello_put(&b, &h);
	conn_put(r.conn, FT_HELLO, b.data, b.len, COMPRESS_NONE);
	buf_release(&b);
	ck_assert(!rig_await(&r, FT_WELCOME, NULL));
	ck_assert_int_eq(r.refuse_code, WR_FOREIGN);
	rig_end(&r);
}
END_TEST

START_TEST(a_lost_marker_is_refused)
{
	struct rig r;
	char path[400];
	rig_init(&r, "");
	rig_open(&r);
	rig_close(&r);
	snprintf(path, sizeof(path), "%s/.tandem", r.module);
	unit_remove(path);
	rig_connect(&r);
	rig_hello(&r, 1);
	ck_assert(!rig_await(&r, FT_WELCOME, NULL));
	ck_assert_int_eq(r.refuse_code, WR_NO_DISK);
	ck_assert_int_ne(access(path, F_OK), 0);
	rig_end(&r);
}
END_TEST

/* The example of docs/wire-protocol.md is what we read. */
START_TEST(documented_frame_is_applied)
{
	struct rig r;
	uint8_t bytes[4096];
	char path[4096], line[512];
	size_t len = 0;
	const char *src = getenv("srcdir");
	snprintf(path, sizeof(path), "%s/docs/wire-protocol.md", src ? src : ".");
	FILE *f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s", path);
	for (bool in = false; fgets(line, sizeof(line), f);) {
		if (!strncmp(line, "```", 3)) {
			in = !in && !strncmp(line, "```hexdump", 10);
			continue;
		}
		char *bar = in ? strchr(line, '|') : NULL;
		if (bar)
			*bar = 0;
		unsigned v;
		int used;
		for (char *p = line + 4; in && sscanf(p, "%2x%n", &v, &used) == 1 && len < sizeof(bytes);
		     p += used)
			bytes[len++] = (uint8_t)v;
	}
	fclose(f);
	ck_assert_int_gt(len, FRAME_HEADER);
	uint32_t sum = (uint32_t)XXH3_64bits(bytes + FRAME_HEADER, len - FRAME_HEADER), stored;
	memcpy(&stored, bytes + 12, 4);
	ck_assert_int_eq(sum, stored);
	rig_init(&r, "");
	rig_open(&r);
	rig_simple(&r, JT_MKDIR, "a", NULL);
	buf_put(&r.batch, bytes + FRAME_HEADER, len - FRAME_HEADER);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(r.ack.applied, 9);
	if (geteuid() == 0)
		ck_assert_str_eq(rig_text(&r, "module", "a/b"), "hi\n");
	rig_end(&r);
}
END_TEST

UNIT_MAIN("module attack", an_honest_client_is_served, paths_that_are_none_end_the_connection,
	  records_with_paths_that_are_none_end_the_connection, symlinks_on_the_way_are_not_followed,
	  nothing_outside_is_read, a_symlink_at_the_end_is_itself_changed,
	  no_attribute_is_set_through_a_symlink, only_removals_remove,
	  a_directory_swapped_for_a_symlink_does_not_help, a_mirror_is_not_the_way_out_of_a_removed_tree,
	  a_deep_tree_is_removed_with_few_descriptors, what_is_excluded_stays_however_deep_it_is, deep_trees_that_a_kill_left_go, ranges_of_open_transfers_are_limited, devices_and_fifos_are_never_opened,
	  sizes_beyond_reason_are_answered, open_transfers_are_limited, frames_come_in_their_state_only,
	  a_read_only_module_is_not_written, an_address_that_is_not_allowed_is_told_so, code_within_the_handshake_gets_nowhere, the_child_is_confined,
	  a_module_with_a_uid_keeps_no_owners, a_patch_keeps_the_names_of_one_file_together,
	  a_large_file_is_patched_in_place, another_source_is_refused, a_lost_marker_is_refused,
	  documented_frame_is_applied)
