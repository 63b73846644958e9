/* SPDX-License-Identifier: BSD-2-Clause
 * Directories that a comparison makes and fills: the standby has them as without the detour, whatever comes in between. */
#include "config.h"

#include "tests/unit/module_rig.h"

#define WHOLE 1u /* POS: a full comparison is under way */

static void put_pos(struct rig *r, uint32_t flags)
{
	struct wop pos = {.type = WOP_POS, .flags = flags, .journal_id = {7}, .epoch = 1, .seq = 4, .digest = 9};
	rig_op(r, &pos);
}

static void make_dir(struct rig *r, const char *path)
{
	struct jrec rec;
	jrec_init(&rec, JT_MKDIR);
	rec.path = path;
	rec.mode = 040700;
	rec.uid = geteuid();
	rec.gid = getegid();
	rig_rec(r, &rec);
}

/* The end of a directory: its own attributes. */
static void end_dir(struct rig *r, const char *path)
{
	struct jrec rec;
	jrec_init(&rec, JT_SETATTR);
	rec.path = path;
	rec.mode = 040751;
	rec.valid = JV_MODE | JV_MTIME;
	rec.mtime = (struct jtime){1234, 5};
	rig_rec(r, &rec);
}

static void fill(struct rig *r, const char *dir, int n)
{
	char path[100];
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%d", dir, i);
		rig_file(r, 1000 + (uint32_t)i, path, path, (uint32_t)strlen(path));
	}
}

/* How many of the files of fill are there; none of them may be anything but whole. */
static int filled(const struct rig *r, const char *dir, int n)
{
	char path[100], name[400];
	int there = 0;
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%d", dir, i);
		snprintf(name, sizeof(name), "%s/%s", r->module, path);
		if (access(name, F_OK))
			continue;
		there++;
		ck_assert_str_eq(rig_text(r, "module", path), path);
	}
	return there;
}

static void leaves_nothing(const struct rig *r)
{
	char path[400];
	snprintf(path, sizeof(path), "%s/.tandem/tmp", r->module);
	DIR *d = opendir(path);
	ck_assert_ptr_nonnull(d);
	for (struct dirent *e; (e = readdir(d));)
		ck_assert_msg(*e->d_name == '.', "%s", e->d_name);
	closedir(d);
}

static void begin_with(struct rig *r, const char *keys)
{
	rig_init(r, keys);
	r->xattrs = true;
	rig_open(r);
}

static void begin(struct rig *r)
{
	begin_with(r, "");
}

static void stat_dir(const struct rig *r, const char *name, struct stat *st)
{
	char path[400];
	snprintf(path, sizeof(path), "%s/%s", r->module, name);
	ck_assert_int_eq(stat(path, st), 0);
}

START_TEST(new_directories_get_files_subdirectories_and_attributes)
{
	struct rig r;
	struct stat st;
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	make_dir(&r, "d/e");
	rig_simple(&r, JT_SYMLINK, "d/link", "0");
	put_pos(&r, WHOLE);
	ck_assert(rig_send(&r));
	fill(&r, "d/e", 20);
	rig_file(&r, 1, "d/late", "late", 4);
	end_dir(&r, "d/e");
	end_dir(&r, "d");
	put_pos(&r, WHOLE);
	ck_assert(rig_send(&r));
	ck_assert_msg(r.fails == 0, "%s", r.text);
	ck_assert_int_eq(filled(&r, "d", 20), 20);
	ck_assert_int_eq(filled(&r, "d/e", 20), 20);
	ck_assert_str_eq(rig_text(&r, "module", "d/link"), "d/0");
	ck_assert_str_eq(rig_text(&r, "module", "d/late"), "late");
	for (int i = 0; i < 2; i++) {
		stat_dir(&r, i ? "d/e" : "d", &st);
		ck_assert_int_eq(st.st_mode & 07777, 0751);
		ck_assert_int_eq(st.st_mtim.tv_sec, 1234);
		ck_assert_int_eq(st.st_mtim.tv_nsec, 5);
	}
	leaves_nothing(&r);
	rig_end(&r);
}
END_TEST

START_TEST(a_position_that_counts_on_it_shows_it)
{
	struct rig r;
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	put_pos(&r, 0);
	ck_assert(rig_send(&r));
	ck_assert_int_eq(filled(&r, "d", 20), 20);
	rig_end(&r);
}
END_TEST

START_TEST(a_sync_shows_it)
{
	struct rig r;
	uint8_t token[8] = {1};
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	put_pos(&r, WHOLE);
	ck_assert(rig_send(&r));
	conn_put(r.conn, FT_SYNC, token, sizeof(token), COMPRESS_NONE);
	ck_assert(rig_await(&r, FT_SYNCED, NULL));
	ck_assert_int_eq(filled(&r, "d", 20), 20);
	rig_end(&r);
}
END_TEST

START_TEST(a_listing_shows_it)
{
	struct rig r;
	struct buf req, out;
	struct wlisting l;
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	put_pos(&r, WHOLE);
	ck_assert(rig_send(&r));
	buf_init(&req, 4096);
	buf_init(&out, FRAME_MAX);
	buf_put_u32(&req, 1);
	buf_put_str(&req, "d");
	buf_put_u8(&req, 0);
	conn_put(r.conn, FT_LIST, req.data, req.len, COMPRESS_NONE);
	ck_assert(rig_await(&r, FT_LISTING, &out));
	ck_assert_int_eq(wlisting_get(&out, &l), 0);
	ck_assert_uint_eq(l.count, 21); /* and "." */
	buf_release(&req);
	buf_release(&out);
	rig_end(&r);
}
END_TEST

START_TEST(silence_shows_it)
{
	struct rig r;
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	put_pos(&r, WHOLE);
	ck_assert(rig_send(&r));
	for (int i = 0; i < 2000 && filled(&r, "d", 20) != 20; i++)
		usleep(10000);
	ck_assert_int_eq(filled(&r, "d", 20), 20);
	rig_end(&r);
}
END_TEST

START_TEST(the_end_of_the_connection_shows_it)
{
	struct rig r;
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	put_pos(&r, WHOLE);
	ck_assert(rig_send(&r));
	rig_close(&r);
	ck_assert_int_eq(filled(&r, "d", 20), 20);
	leaves_nothing(&r);
	rig_end(&r);
}
END_TEST

START_TEST(live_changes_in_it_come_in_order)
{
	struct rig r;
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	rig_simple(&r, JT_UNLINK, "d/3", NULL);
	make_dir(&r, "e");
	fill(&r, "e", 20);
	rig_simple(&r, JT_RENAME, "e/4", "d/3");
	make_dir(&r, "f");
	fill(&r, "f", 20);
	rig_simple(&r, JT_LINK, "f/5", "d/linked");
	make_dir(&r, "g");
	fill(&r, "g", 20);
	struct jrec rec;
	jrec_init(&rec, JT_RENAME);
	rec.seq = 1;
	rec.flags = JF_DIR;
	rec.path = "g";
	rec.path2 = "h";
	rig_rec(&r, &rec);
	make_dir(&r, "g");
	fill(&r, "g", 3);
	put_pos(&r, 0);
	ck_assert(rig_send(&r));
	ck_assert_msg(r.fails == 0, "%s", r.text);
	ck_assert_str_eq(rig_text(&r, "module", "d/3"), "e/4");
	ck_assert_int_eq(filled(&r, "e", 20), 19);
	ck_assert_str_eq(rig_text(&r, "module", "d/linked"), "f/5");
	ck_assert_str_eq(rig_text(&r, "module", "h/19"), "g/19");
	ck_assert_int_eq(filled(&r, "g", 20), 3);
	leaves_nothing(&r);
	rig_end(&r);
}
END_TEST

START_TEST(a_file_that_comes_twice_is_the_second_one)
{
	struct rig r;
	begin(&r);
	make_dir(&r, "d");
	fill(&r, "d", 20);
	rig_file(&r, 1, "d/7", "again", 5);
	rig_file(&r, 2, "d/more", "more", 4);
	put_pos(&r, 0);
	ck_assert(rig_send(&r));
	ck_assert_msg(r.fails == 0, "%s", r.text);
	ck_assert_str_eq(rig_text(&r, "module", "d/7"), "again");
	ck_assert_str_eq(rig_text(&r, "module", "d/more"), "more");
	rig_end(&r);
}
END_TEST

/* Fill a directory and stop the child while it is still aside; name gets the directory's. */
static void stop_aside(struct rig *r, char *name, size_t size)
{
	int there = 1, status;
	for (int i = 0; there && i < 100; i++) {
		snprintf(name, size, "d%d", i);
		make_dir(r, name);
		fill(r, name, 20);
		put_pos(r, WHOLE);
		ck_assert(rig_send(r));
		kill(r->child, SIGSTOP);
		ck_assert_int_eq(waitpid(r->child, &status, WUNTRACED), r->child);
		there = filled(r, name, 20); /* silence was faster than we */
		if (there)
			kill(r->child, SIGCONT);
	}
	ck_assert_msg(there == 0, "the files are made under their path at once");
}

static void kill_aside(const char *keys)
{
	struct rig r;
	char name[16];
	begin_with(&r, keys);
	stop_aside(&r, name, sizeof(name));
	kill(r.child, SIGKILL);
	rig_close(&r);
	rig_open(&r);
	ck_assert_int_ne(r.welcome.flags & WW_RESYNC, 0);
	ck_assert_int_eq(filled(&r, name, 20), 0);
	leaves_nothing(&r);
	rig_end(&r);
}
END_TEST

START_TEST(a_killed_child_leaves_whole_files_and_nothing_else)
{
	kill_aside("");
}
END_TEST

/* Patterns are about the module's files, also where they fit names of ours. */
START_TEST(a_killed_child_leaves_nothing_where_such_names_are_excluded)
{
	kill_aside("exclude = tmp/ .*\n");
}
END_TEST

START_TEST(what_somebody_put_there_stays_and_is_reported)
{
	struct rig r;
	char name[16], path[400], text[100];
	begin(&r);
	stop_aside(&r, name, sizeof(name));
	snprintf(path, sizeof(path), "%s/%s", r.module, name);
	rig_write(path, "mine", "mine", 0600);
	kill(r.child, SIGCONT);
	ck_assert(rig_await(&r, FT_FAIL, NULL));
	ck_assert_uint_eq(r.fail_code, WR_EXISTS); /* everything below is compared again */
	snprintf(text, sizeof(text), "%s/mine", name);
	ck_assert_str_eq(rig_text(&r, "module", text), "mine");
	fill(&r, name, 20);
	put_pos(&r, 0);
	ck_assert(rig_send(&r));
	while (filled(&r, name, 20) < 20) /* that was the answer to what came before: it is on the disk now */
		ck_assert(rig_await(&r, FT_ACK, NULL));
	leaves_nothing(&r);
	rig_end(&r);
}
END_TEST

UNIT_MAIN("new directories", new_directories_get_files_subdirectories_and_attributes, a_position_that_counts_on_it_shows_it,
	  a_sync_shows_it, a_listing_shows_it, silence_shows_it, the_end_of_the_connection_shows_it, live_changes_in_it_come_in_order,
	  a_file_that_comes_twice_is_the_second_one, a_killed_child_leaves_whole_files_and_nothing_else,
	  a_killed_child_leaves_nothing_where_such_names_are_excluded,
	  what_somebody_put_there_stays_and_is_reported)
