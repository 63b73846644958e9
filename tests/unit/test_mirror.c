/* SPDX-License-Identifier: BSD-2-Clause
 * mirrors.conf, target URLs, password files: proto/mirror.h. */
#include "config.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "proto/err.h"
#include "proto/mirror.h"

#define GOOD "source = /srv/a\ntarget = tandem://u@h/m\npassword file = /nonexistent/password\n"

static struct conf c;
static struct mirror m;
static char dir[256], why[512];

static void write_file(char *file, const char *name, const char *text, mode_t mode)
{
	FILE *f;

	if (dir[0] == '\0')
		unit_scratch(dir);
	snprintf(file, 300, "%s/%s", dir, name);
	f = fopen(file, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	ck_assert_int_eq(chmod(file, mode), 0);
}

static int load(const char *text, const char *name)
{
	char file[300];

	write_file(file, "mirrors.conf", text, 0644);
	return mirror_load(&m, &c, file, name);
}

static void done(void)
{
	mirror_release(&m);
	conf_release(&c);
	if (dir[0] != '\0')
		unit_remove(dir);
}

static void expect_good(const char *text)
{
	int r = load(text, "a");

	ck_assert_msg(r == 0, "%s", c.ndiags > 0 ? c.diags[0].text : "no diagnostic");
}

/* One error, at this line, holding this text. */
static void expect_error(const char *text, int line, const char *part)
{
	ck_assert_int_eq(load(text, "a"), E_CONF);
	ck_assert_msg(c.nerrors == 1, "%zu errors: %s", c.nerrors, c.diags[c.ndiags - 1].text);
	ck_assert_int_eq(c.diags[0].line, line);
	ck_assert_msg(strstr(c.diags[0].text, part) != NULL, "\"%s\" lacks \"%s\"", c.diags[0].text, part);
	done();
}

START_TEST(a_short_section_has_all_defaults)
{
	expect_good("[a]\n" GOOD);
	ck_assert_str_eq(m.name, "a");
	ck_assert_str_eq(m.source, "/srv/a");
	ck_assert_str_eq(m.mountpoint, "/srv/a");
	ck_assert_str_eq(m.state_dir, "/var/lib/tandem/a");
	ck_assert_int_eq(m.ntargets, 1);
	ck_assert_int_eq(m.targets[0].port, 8730);
	ck_assert(m.del);
	ck_assert_int_eq(m.delete_guard, 50);
	ck_assert_int_eq(m.compress, MC_AUTO);
	ck_assert_uint_eq(m.bwlimit, 0);
	ck_assert_uint_eq(m.journal_limit, 1u << 30);
	ck_assert_int_eq(m.journal_sync, MS_FSYNC);
	ck_assert(!m.shared_source);
	ck_assert(!m.nfs_export);
	ck_assert(m.allow_other == (geteuid() == 0));
	ck_assert_int_eq(m.timeout, 60);
	ck_assert_ptr_null(m.log_file);
	ck_assert_str_eq(m.io_uring, "auto");
	done();
}
END_TEST

START_TEST(every_key_is_read)
{
	expect_good("[a]\n" GOOD "mount point = /mnt//a/\nstate dir = /s\ntarget = tandem://u@[::1]:99/n\ndelete = no\n"
		    "delete guard = 100\ncompress = zlib\ndont compress = *.gz *.zip\nbwlimit = 2M\njournal limit = 4G\n"
		    "journal sync = never\nshared source = yes\nnfs export = yes\nallow other = no\ntimeout = 5\nlog file = /l\nio uring = no\n"
		    "exclude = *.tmp - /x + /y\n");
	ck_assert_str_eq(m.mountpoint, "/mnt/a");
	ck_assert_str_eq(m.state_dir, "/s/a");
	ck_assert_int_eq(m.ntargets, 2);
	ck_assert_str_eq(m.targets[1].host, "::1");
	ck_assert_int_eq(m.targets[1].port, 99);
	ck_assert(!m.del);
	ck_assert_int_eq(m.delete_guard, 100);
	ck_assert_int_eq(m.compress, MC_ZLIB);
	ck_assert(filter_matches(&m.dont_compress, "a.zip"));
	ck_assert_uint_eq(m.bwlimit, 2u << 20);
	ck_assert_uint_eq(m.journal_limit, 4ull << 30);
	ck_assert_int_eq(m.journal_sync, MS_NEVER);
	ck_assert(m.shared_source);
	ck_assert(m.nfs_export);
	ck_assert(!m.allow_other);
	ck_assert_int_eq(m.timeout, 5);
	ck_assert_str_eq(m.log_file, "/l");
	ck_assert_str_eq(m.io_uring, "no");
	ck_assert_uint_eq(m.filter.n, 3);
	ck_assert(m.filter.v[2].include);
	done();
}
END_TEST

START_TEST(the_first_part_gives_defaults)
{
	expect_good("state dir = /s\npassword file = /p\nexclude = *.tmp\ntimeout = 7\n"
		    "[a]\nsource = /srv/a\ntarget = tandem://u@h/m\n[b]\n" GOOD "timeout = 8\nexclude = x\n");
	ck_assert_str_eq(m.state_dir, "/s/a");
	ck_assert_str_eq(m.password_file, "/p");
	ck_assert_int_eq(m.timeout, 7);
	ck_assert(filter_excluded(&m.filter, "y.tmp", false));
	done();
}
END_TEST

START_TEST(a_section_overrides_the_first_part)
{
	expect_good("timeout = 7\nexclude = *.tmp\n[a]\n" GOOD "timeout = 8\nexclude = x\n");
	ck_assert_int_eq(m.timeout, 8);
	ck_assert(!filter_excluded(&m.filter, "y.tmp", false));
	ck_assert(filter_excluded(&m.filter, "x", false));
	done();
}
END_TEST

START_TEST(filters_stand_in_the_order_of_rsyncd_conf)
{
	expect_good("[a]\n" GOOD "exclude = *.c\ninclude = a.c\nfilter = - b.c + c.c\ninclude = b.c\n");
	ck_assert(!filter_excluded(&m.filter, "a.c", false));
	ck_assert(filter_excluded(&m.filter, "b.c", false));
	ck_assert(!filter_excluded(&m.filter, "c.c", false));
	ck_assert(filter_excluded(&m.filter, "d.c", false));
	done();
}
END_TEST

START_TEST(patterns_are_read_from_files)
{
	char rules[300], text[1000];

	write_file(rules, "rules", "# c\na b\n+ keep\n", 0644);
	snprintf(text, sizeof(text), "[a]\n" GOOD "exclude from = %s\n", rules);
	expect_good(text);
	ck_assert_uint_eq(m.filter.n, 2);
	ck_assert(filter_excluded(&m.filter, "a b", false));
	done();
}
END_TEST

START_TEST(an_unknown_key_suggests_the_nearest)
{
	expect_error("[a]\n" GOOD "exlude = x\n", 5, "did you mean \"exclude\"");
}
END_TEST

START_TEST(a_key_like_no_other_points_to_the_manual)
{
	expect_error("[a]\n" GOOD "frobnicate = x\n", 5, "tandem-mirrors.conf(5)");
}
END_TEST

START_TEST(an_unknown_key_of_another_section_counts_too)
{
	expect_error("[a]\n" GOOD "[b]\n" GOOD "frobnicate = x\n", 9, "frobnicate");
}
END_TEST

START_TEST(a_source_in_the_first_part_is_out_of_place)
{
	expect_error("source = /x\n[a]\n" GOOD, 1, "below a [NAME] line");
}
END_TEST

START_TEST(a_section_without_source_says_what_to_add)
{
	expect_error("[a]\ntarget = tandem://u@h/m\npassword file = /p\n", 1, "source = ");
}
END_TEST

START_TEST(a_section_without_target_says_what_to_add)
{
	expect_error("\n[a]\nsource = /x\n", 2, "target = tandem://");
}
END_TEST

START_TEST(a_section_without_password_file_says_what_to_add)
{
	expect_error("[a]\nsource = /x\ntarget = tandem://u@h/m\n", 1, "password file = ");
}
END_TEST

START_TEST(a_target_without_user_says_so)
{
	expect_error("[a]\nsource = /x\ntarget = tandem://h/m\npassword file = /p\n", 3, "user is missing");
}
END_TEST

START_TEST(a_target_without_module_says_so)
{
	expect_error("[a]\nsource = /x\ntarget = tandem://u@h\npassword file = /p\n", 3, "module is missing");
}
END_TEST

START_TEST(the_same_target_twice_is_an_error)
{
	expect_error("[a]\n" GOOD "target = tandem://v@h:8730/m\n", 5, "already");
}
END_TEST

START_TEST(a_relative_source_is_an_error)
{
	expect_error("[a]\nsource = srv\ntarget = tandem://u@h/m\npassword file = /p\n", 2, "absolute");
}
END_TEST

START_TEST(a_source_with_dots_is_an_error)
{
	expect_error("[a]\nsource = /srv/../x\ntarget = tandem://u@h/m\npassword file = /p\n", 2, "..");
}
END_TEST

START_TEST(a_state_directory_in_the_source_is_an_error)
{
	expect_error("[a]\n" GOOD "state dir = /srv/a/state\n", 1, "journal");
}
END_TEST

START_TEST(a_bad_word_names_the_good_ones)
{
	expect_error("[a]\n" GOOD "compress = lz4\n", 5, "auto, none, zlib or zstd");
}
END_TEST

START_TEST(a_comment_after_a_value_is_an_error)
{
	expect_error("[a]\n" GOOD "exclude = *.tmp # temporary\n", 5, "line of its own");
}
END_TEST

START_TEST(a_bad_default_is_reported_once)
{
	expect_error("timeout = x\n[a]\n" GOOD "[b]\n" GOOD, 1, "number");
}
END_TEST

START_TEST(a_filter_without_sign_is_an_error)
{
	expect_error("[a]\n" GOOD "filter = *.tmp\n", 5, "needs a");
}
END_TEST

START_TEST(a_missing_pattern_file_is_an_error)
{
	expect_error("[a]\n" GOOD "exclude from = /nonexistent/rules\n", 5, "cannot be read");
}
END_TEST

START_TEST(a_pattern_file_with_a_wrong_line_names_it)
{
	char rules[300], text[1000];

	write_file(rules, "rules", "*.o\n\n/\n*.c\n", 0644);
	snprintf(text, sizeof(text), "[a]\n" GOOD "exclude from = %s\n", rules);
	expect_error(text, 5, "line 3 is no pattern");
}
END_TEST

START_TEST(a_name_that_is_no_directory_is_an_error)
{
	expect_error("[.a]\n" GOOD "[a]\n" GOOD, 1, "name of a mirror");
	dir[0] = '\0';
	expect_error("[a/b]\n" GOOD "[a]\n" GOOD, 1, "name of a mirror");
}
END_TEST

START_TEST(a_key_given_twice_is_noticed)
{
	expect_good("[a]\n" GOOD "timeout = 7\ntimeout = 8\n");
	ck_assert_int_eq(m.timeout, 8);
	ck_assert_uint_eq(c.ndiags, 1);
	ck_assert_int_eq(c.diags[0].severity, CONF_NOTICE);
	done();
}
END_TEST

START_TEST(a_mirror_that_is_not_there_lists_those_that_are)
{
	ck_assert_int_eq(load("[b]\n" GOOD "[c]\n" GOOD, "a"), -ENOENT);
	ck_assert_ptr_nonnull(strstr(c.diags[0].text, "b, c"));
	done();
}
END_TEST

START_TEST(without_a_name_the_whole_file_is_checked)
{
	ck_assert_int_eq(load("[b]\n" GOOD, NULL), 0);
	ck_assert_ptr_null(m.name);
	done();
}
END_TEST

START_TEST(an_open_password_file_is_told_but_loads)
{
	char file[300], text[1000];

	write_file(file, "password", "secret\n", 0644);
	snprintf(text, sizeof(text), "[a]\nsource = /x\ntarget = tandem://u@h/m\npassword file = %s\n", file);
	ck_assert_int_eq(load(text, "a"), 0);
	ck_assert_uint_eq(c.nerrors, 0);
	ck_assert_uint_eq(c.ndiags, 1);
	ck_assert_int_eq(c.diags[0].line, 4);
	ck_assert_ptr_nonnull(strstr(c.diags[0].text, "chmod 600"));
	done();
}
END_TEST

static void count(void *arg, const char *name)
{
	strcat(arg, name);
}

START_TEST(mirrors_are_listed_in_file_order)
{
	char names[100] = "";

	ck_assert_int_eq(load("[c]\n" GOOD "[a]\n" GOOD "[b]\n" GOOD, "a"), 0);
	mirror_each(&c, count, names);
	ck_assert_str_eq(names, "cab");
	done();
}
END_TEST

/* --- URLs --- */

START_TEST(urls_are_taken_apart)
{
	static const struct {
		const char *url, *user, *host, *module;
		int port;
	} v[] = {{"tandem://u@h:99/m", "u", "h", "m", 99}, {"tandem://h", "", "h", "", 8730},
	    {"tandem://h:1/", "", "h", "", 1}, {"tandem://u@[fe80::1%eth0]:5/m/", "u", "fe80::1%eth0", "m", 5},
	    {"tandem://a@b@10.0.0.1/m", "a@b", "10.0.0.1", "m", 8730}};
	struct mirror_target t;

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		ck_assert_int_eq(mirror_parse_url(&t, v[i].url, why, sizeof(why)), 0);
		ck_assert_str_eq(t.url, v[i].url);
		ck_assert_str_eq(t.user, v[i].user);
		ck_assert_str_eq(t.host, v[i].host);
		ck_assert_str_eq(t.module, v[i].module);
		ck_assert_int_eq(t.port, v[i].port);
		free(t.url);
		free(t.user);
		free(t.host);
		free(t.module);
	}
}
END_TEST

START_TEST(bad_urls_name_what_is_wrong)
{
	static const struct {
		const char *url, *part;
	} v[] = {{"", "tandem://USER@HOST"}, {"rsync://u@h/m", "tandem://u@h/m"}, {"u@h::m", "tandem://u@h/m"},
	    {"tandem://", "host is missing"}, {"tandem://u@/m", "host is missing"}, {"tandem://@h/m", "user is missing"},
	    {"tandem://u:secret@h/m", "password file"}, {"tandem://h:/m", "port"}, {"tandem://h:0/m", "port"},
	    {"tandem://h:65536/m", "port"}, {"tandem://h:9999999999999999999999/m", "port"}, {"tandem://h:8x/m", "port"},
	    {"tandem://::1/m", "brackets"}, {"tandem://[::1/m", "]"}, {"tandem://[::1]x/m", "after the host"},
	    {"tandem://h/m/sub", "no module"}, {"tandem://h/a tandem://h/b", "blanks"}};
	struct mirror_target t;

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		ck_assert_int_eq(mirror_parse_url(&t, v[i].url, why, sizeof(why)), E_CONF);
		ck_assert_msg(strstr(why, v[i].part) != NULL, "%s: \"%s\" lacks \"%s\"", v[i].url, why, v[i].part);
		ck_assert_ptr_null(t.url);
	}
}
END_TEST

/* --- passwords --- */

static int password(const char *text, mode_t mode, char **out)
{
	char file[300];

	write_file(file, "password", text, mode);
	return mirror_read_password(file, out, why, sizeof(why));
}

START_TEST(a_password_is_one_line)
{
	char *p;

	ck_assert_int_eq(password("s3cret word \r\n", 0600, &p), 0);
	ck_assert_str_eq(p, "s3cret word ");
	free(p);
	ck_assert_int_eq(password("no newline", 0400, &p), 0);
	ck_assert_str_eq(p, "no newline");
	free(p);
	done();
}
END_TEST

START_TEST(a_password_others_can_read_is_refused_with_the_remedy)
{
	char *p;

	ck_assert_int_eq(password("secret\n", 0640, &p), -EPERM);
	ck_assert_ptr_null(p);
	ck_assert_ptr_nonnull(strstr(why, "chmod 600"));
	done();
}
END_TEST

START_TEST(a_secrets_file_for_a_password_is_explained)
{
	char *p;

	ck_assert_int_eq(password("rsync_backup:secret\n", 0600, &p), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "password alone"));
	done();
}
END_TEST

START_TEST(an_empty_or_long_password_file_is_refused)
{
	char *p;

	ck_assert_int_eq(password("\n", 0600, &p), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "empty"));
	ck_assert_int_eq(password("one\ntwo\n", 0600, &p), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "more than one line"));
	done();
}
END_TEST

START_TEST(a_missing_password_file_is_an_errno)
{
	char *p;

	ck_assert_int_eq(mirror_read_password("/nonexistent/p", &p, why, sizeof(why)), -ENOENT);
	ck_assert_ptr_nonnull(strstr(why, "/nonexistent/p"));
}
END_TEST

/* --- command line --- */

START_TEST(a_command_line_makes_a_mirror)
{
	static const char *const urls[] = {"tandem://u@h/m"};
	char source[300], *real;

	unit_scratch(dir);
	snprintf(source, sizeof(source), "%s/.data", dir);
	ck_assert_int_eq(mkdir(source, 0700), 0);
	real = realpath(source, NULL);
	ck_assert_msg(mirror_from_args(&m, urls, 1, "pw", source, NULL, "/s", why, sizeof(why)) == 0, "%s", why);
	ck_assert_str_eq(m.name, "data");
	ck_assert_str_eq(m.source, real);
	ck_assert_str_eq(m.mountpoint, real);
	ck_assert_str_eq(m.state_dir, "/s/data");
	ck_assert_int_eq(m.password_file[0], '/');
	ck_assert(m.del);
	free(real);
	done();
}
END_TEST

/* The mirror of the command line for dir/which/data, with its state in dir/state. */
static void data_of(const char *which)
{
	static const char *const urls[] = {"tandem://u@h/m"};
	char source[300], state[300];

	snprintf(source, sizeof(source), "%s/%s/data", dir, which);
	snprintf(state, sizeof(state), "%s/state", dir);
	ck_assert_msg(mirror_from_args(&m, urls, 1, "pw", source, NULL, state, why, sizeof(why)) == 0, "%s", why);
}

/* What tandemfs leaves in the state directory of m. */
static void leave_state(void)
{
	char path[600];
	FILE *f;

	mkdir(m.state_dir, 0700);
	snprintf(path, sizeof(path), "%s/mirror.conf", m.state_dir);
	f = fopen(path, "w");
	fprintf(f, "[%s]\nsource = %s\n", m.name, m.source);
	fclose(f);
}

START_TEST(sources_of_one_name_have_a_state_each)
{
	char path[300], second[300];

	unit_scratch(dir);
	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, (const char *[]){"state", "a", "b", "a/data", "b/data"}[i]);
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	data_of("a");
	ck_assert_str_eq(m.name, "data");
	leave_state();
	mirror_release(&m);
	data_of("b");
	ck_assert_int_eq(strncmp(m.name, "data-", 5), 0);
	ck_assert_int_eq(strlen(m.name), 13);
	ck_assert_str_eq(strrchr(m.state_dir, '/') + 1, m.name);
	snprintf(second, sizeof(second), "%s", m.name);
	leave_state();
	mirror_release(&m);
	data_of("a");
	ck_assert_str_eq(m.name, "data");
	unit_remove(m.state_dir);
	mirror_release(&m);
	data_of("b");
	ck_assert_str_eq(m.name, second);
	mirror_release(&m);
	done();
}
END_TEST

START_TEST(a_state_of_a_configuration_file_is_not_taken)
{
	char path[300];

	unit_scratch(dir);
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, (const char *[]){"state", "a", "a/data", "state/data"}[i]);
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	strlcat(path, "/identity", sizeof(path));
	close(open(path, O_WRONLY | O_CREAT, 0600));
	data_of("a");
	ck_assert_int_eq(strncmp(m.name, "data-", 5), 0);
	mirror_release(&m);
	done();
}
END_TEST

START_TEST(a_command_line_that_lacks_something_says_what)
{
	static const char *const good[] = {"tandem://u@h/m"}, *const bad[] = {"tandem://u@h"},
	    *const twice[] = {"tandem://u@h/m", "tandem://v@h:8730/m/"};

	ck_assert_int_eq(mirror_from_args(&m, good, 1, "pw", "/nonexistent", NULL, NULL, why, sizeof(why)), -ENOENT);
	ck_assert_int_eq(mirror_from_args(&m, bad, 1, "pw", "/tmp", NULL, "/s", why, sizeof(why)), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "module"));
	ck_assert_int_eq(mirror_from_args(&m, good, 0, "pw", "/tmp", NULL, "/s", why, sizeof(why)), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "--target"));
	ck_assert_int_eq(mirror_from_args(&m, good, 1, NULL, "/tmp", NULL, "/s", why, sizeof(why)), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "--password-file"));
	ck_assert_int_eq(mirror_from_args(&m, good, 1, "pw", "/tmp", NULL, "/tmp/s", why, sizeof(why)), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "journal"));
	ck_assert_int_eq(mirror_from_args(&m, twice, 2, "pw", "/tmp", NULL, "/s", why, sizeof(why)), E_CONF);
	ck_assert_ptr_nonnull(strstr(why, "already"));
}
END_TEST

UNIT_MAIN("mirror", a_short_section_has_all_defaults, every_key_is_read, the_first_part_gives_defaults,
    a_section_overrides_the_first_part, filters_stand_in_the_order_of_rsyncd_conf, patterns_are_read_from_files,
    an_unknown_key_suggests_the_nearest, a_key_like_no_other_points_to_the_manual,
    an_unknown_key_of_another_section_counts_too, a_source_in_the_first_part_is_out_of_place,
    a_section_without_source_says_what_to_add, a_section_without_target_says_what_to_add,
    a_section_without_password_file_says_what_to_add, a_target_without_user_says_so, a_target_without_module_says_so,
    the_same_target_twice_is_an_error, a_relative_source_is_an_error, a_source_with_dots_is_an_error,
    a_state_directory_in_the_source_is_an_error, a_bad_word_names_the_good_ones, a_comment_after_a_value_is_an_error,
    a_bad_default_is_reported_once, a_filter_without_sign_is_an_error, a_missing_pattern_file_is_an_error,
    a_pattern_file_with_a_wrong_line_names_it, a_name_that_is_no_directory_is_an_error, a_key_given_twice_is_noticed, a_mirror_that_is_not_there_lists_those_that_are,
    without_a_name_the_whole_file_is_checked, an_open_password_file_is_told_but_loads, mirrors_are_listed_in_file_order,
    urls_are_taken_apart, bad_urls_name_what_is_wrong, a_password_is_one_line,
    a_password_others_can_read_is_refused_with_the_remedy, a_secrets_file_for_a_password_is_explained,
    an_empty_or_long_password_file_is_refused, a_missing_password_file_is_an_errno, a_command_line_makes_a_mirror, sources_of_one_name_have_a_state_each,
    a_state_of_a_configuration_file_is_not_taken,
    a_command_line_that_lacks_something_says_what)
