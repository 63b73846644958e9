/* SPDX-License-Identifier: BSD-2-Clause
 * The grammar of the configuration files: proto/conf.h. */
#include "config.h"
#include "tests/unit/unit.h"

#include <errno.h>

#include "proto/conf.h"
#include "proto/err.h"

static struct conf c;
static char dir[256];

static void read_bytes(const char *text, size_t n)
{
	char file[300];
	FILE *f;

	unit_scratch(dir);
	snprintf(file, sizeof(file), "%s/a.conf", dir);
	f = fopen(file, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, 1, n, f), n);
	fclose(f);
	ck_assert_int_eq(conf_read(&c, file), 0);
}

static void read_text(const char *text)
{
	read_bytes(text, strlen(text));
}

static void done(void)
{
	conf_release(&c);
	unit_remove(dir);
}

/* The only diagnostic: at this line, holding this text. */
static void expect_error(const char *text, int line, const char *part)
{
	read_text(text);
	ck_assert_uint_eq(c.nerrors, 1);
	ck_assert_uint_eq(c.ndiags, 1);
	ck_assert_int_eq(c.diags[0].line, line);
	ck_assert_msg(strstr(c.diags[0].text, part) != NULL, "\"%s\" lacks \"%s\"", c.diags[0].text, part);
	done();
}

static const char *value(const char *section, const char *key)
{
	struct conf_section *s = section != NULL ? conf_section(&c, section) : &c.sections[0];
	struct conf_entry *e = s != NULL ? conf_get(s, key, 0) : NULL;

	return e != NULL ? e->value : NULL;
}

START_TEST(sections_and_values_are_read)
{
	read_text("port = 8730\n[a]\npath = /srv/a b\n[ b  c ]\n path=/srv/b \n");
	ck_assert_uint_eq(c.ndiags, 0);
	ck_assert_uint_eq(c.nsections, 3);
	ck_assert_str_eq(value(NULL, "port"), "8730");
	ck_assert_str_eq(value("a", "path"), "/srv/a b");
	ck_assert_str_eq(value("b c", "path"), "/srv/b");
	done();
}
END_TEST

START_TEST(an_empty_file_has_a_global_part)
{
	read_text("");
	ck_assert_uint_eq(c.nsections, 1);
	ck_assert_ptr_null(c.sections[0].name);
	done();
}
END_TEST

START_TEST(key_names_ignore_case_blanks_and_underscores)
{
	read_text("Hosts   Allow = x\n");
	ck_assert_str_eq(c.sections[0].entries[0].key, "hosts allow");
	ck_assert_str_eq(value(NULL, "hosts allow"), "x");
	ck_assert_str_eq(value(NULL, "HostsAllow"), "x");
	ck_assert_str_eq(value(NULL, "hosts_allow"), "x");
	ck_assert_ptr_null(value(NULL, "hosts allo"));
	ck_assert_ptr_null(value(NULL, "hosts allowed"));
	done();
}
END_TEST

START_TEST(comments_stand_on_their_own_lines)
{
	read_text("# a\n  ; b = c\n#d \\\nx = 1\n");
	ck_assert_uint_eq(c.ndiags, 0);
	ck_assert_uint_eq(c.sections[0].nentries, 1);
	ck_assert_int_eq(c.sections[0].entries[0].line, 4);
	done();
}
END_TEST

START_TEST(a_backslash_joins_lines_and_keeps_the_first_number)
{
	read_text("a = 1 \\\n  2 \\\n3\nb = 4\n");
	ck_assert_str_eq(value(NULL, "a"), "1   2 3");
	ck_assert_int_eq(c.sections[0].entries[0].line, 1);
	ck_assert_int_eq(c.sections[0].entries[1].line, 4);
	done();
}
END_TEST

START_TEST(lines_of_windows_editors_are_read)
{
	read_text("\xef\xbb\xbf[a]\r\nx = 1\r\n");
	ck_assert_uint_eq(c.ndiags, 0);
	ck_assert_str_eq(value("a", "x"), "1");
	done();
}
END_TEST

START_TEST(a_last_line_without_newline_counts)
{
	read_text("x = 1");
	ck_assert_str_eq(value(NULL, "x"), "1");
	done();
}
END_TEST

START_TEST(only_the_first_equals_sign_separates)
{
	read_text("x = a=b\n");
	ck_assert_str_eq(value(NULL, "x"), "a=b");
	done();
}
END_TEST

START_TEST(an_empty_value_is_a_value)
{
	read_text("x =\n");
	ck_assert_str_eq(value(NULL, "x"), "");
	done();
}
END_TEST

START_TEST(global_goes_back_to_the_first_part)
{
	read_text("[a]\nx = 1\n[Global]\ny = 2\n");
	ck_assert_str_eq(value(NULL, "y"), "2");
	ck_assert_uint_eq(c.nsections, 2);
	done();
}
END_TEST

START_TEST(of_a_repeated_key_the_last_counts_and_all_are_kept)
{
	struct conf_section *s;

	read_text("x = 1\nx = 2\nx = 3\n");
	s = &c.sections[0];
	ck_assert_str_eq(conf_get(s, "x", 1)->value, "1");
	ck_assert(!s->entries[1].used);
	ck_assert_str_eq(conf_get(s, "x", 2)->value, "2");
	ck_assert_str_eq(conf_get(s, "x", 0)->value, "3");
	ck_assert_ptr_null(conf_get(s, "x", 4));
	ck_assert(s->entries[1].used);
	done();
}
END_TEST

START_TEST(text_after_a_header_is_an_error)
{
	expect_error("\n[a] # my module\n", 2, "# my module");
}
END_TEST

START_TEST(a_line_without_equals_sign_is_an_error)
{
	expect_error("[a]\nread only\n", 2, "read only");
}
END_TEST

START_TEST(an_unterminated_header_is_an_error)
{
	expect_error("[a\nx = 1\n", 1, "]");
}
END_TEST

START_TEST(a_section_without_name_is_an_error)
{
	expect_error("[ ]\n", 1, "no name");
}
END_TEST

START_TEST(a_second_section_of_a_name_names_the_first)
{
	expect_error("[a]\n[b]\n[a]\n", 3, "line 1");
}
END_TEST

START_TEST(a_value_without_key_is_an_error)
{
	expect_error("= 1\n", 1, "no key");
}
END_TEST

START_TEST(includes_are_an_error_with_a_remedy)
{
	expect_error("&include /etc/x\n", 1, "&include is not supported");
}
END_TEST

START_TEST(a_nul_byte_is_an_error)
{
	read_bytes("a = 1\0b = 2\n", 12);
	ck_assert_uint_eq(c.nerrors, 1);
	done();
}
END_TEST

START_TEST(a_missing_file_is_an_errno)
{
	ck_assert_int_eq(conf_read(&c, "/nonexistent/file"), -ENOENT);
	conf_release(&c);
}
END_TEST

START_TEST(booleans_are_rsync_s)
{
	static const char *const yes[] = {"yes", "True", "1"}, *const no[] = {"NO", "false", "0"};
	bool b;

	for (size_t i = 0; i < 3; i++) {
		struct conf_entry e = {.key = "k", .value = (char *)yes[i]};

		b = false;
		ck_assert_int_eq(conf_bool(&c, &e, &b), 0);
		ck_assert(b);
		e.value = (char *)no[i];
		ck_assert_int_eq(conf_bool(&c, &e, &b), 0);
		ck_assert(!b);
	}
}
END_TEST

START_TEST(a_word_that_is_no_boolean_is_named)
{
	bool b = true;

	read_text("read only = maybe\n");
	ck_assert_int_eq(conf_bool(&c, &c.sections[0].entries[0], &b), E_CONF);
	ck_assert_str_eq(c.diags[0].text, "read only = maybe: must be yes or no");
	ck_assert(b);
	done();
}
END_TEST

START_TEST(numbers_have_a_range)
{
	static const char *const bad[] = {"", "x", "1x", "0", "11", "99999999999999999999", "1.5"};
	struct conf_entry e = {.key = "k", .value = "10"};
	long long n = 0;

	read_text("");
	ck_assert_int_eq(conf_num(&c, &e, 1, 10, &n), 0);
	ck_assert_int_eq(n, 10);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e.value = (char *)bad[i];
		ck_assert_int_eq(conf_num(&c, &e, 1, 10, &n), E_CONF);
	}
	ck_assert_int_eq(n, 10);
	done();
}
END_TEST

START_TEST(sizes_take_a_unit)
{
	static const struct {
		const char *text;
		uint64_t value;
	} good[] = {{"0", 0}, {"512", 512}, {"4K", 4096}, {"4k", 4096}, {"3M", 3u << 20}, {"2G", 2ull << 30}, {"1T", 1ull << 40}};
	static const char *const bad[] = {"", "K", "-1", "+1", "1X", "1KB", "1 K", "99999999T", "18446744073709551616"};
	struct conf_entry e = {.key = "k"};
	uint64_t n;

	read_text("");
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		e.value = (char *)good[i].text;
		ck_assert_int_eq(conf_size(&c, &e, &n), 0);
		ck_assert_uint_eq(n, good[i].value);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		e.value = (char *)bad[i];
		ck_assert_int_eq(conf_size(&c, &e, &n), E_CONF);
	}
	done();
}
END_TEST

START_TEST(a_comment_after_a_value_is_named_as_such)
{
	uint64_t n;
	bool b;

	read_text("a = yes # really\nb = 4K\t# four\nc = a#b\n");
	ck_assert_int_eq(conf_bool(&c, &c.sections[0].entries[0], &b), E_CONF);
	ck_assert_int_eq(conf_size(&c, &c.sections[0].entries[1], &n), E_CONF);
	ck_assert_int_eq(conf_check_comment(&c, &c.sections[0].entries[2]), 0);
	ck_assert_uint_eq(c.nerrors, 2);
	ck_assert_ptr_nonnull(strstr(c.diags[0].text, "line of its own"));
	ck_assert_ptr_nonnull(strstr(c.diags[1].text, "line of its own"));
	done();
}
END_TEST

START_TEST(a_missing_key_leaves_the_default)
{
	uint64_t size = 7;
	long long n = 7;
	bool b = true;

	ck_assert_int_eq(conf_bool(&c, NULL, &b), 0);
	ck_assert_int_eq(conf_num(&c, NULL, 0, 1, &n), 0);
	ck_assert_int_eq(conf_size(&c, NULL, &size), 0);
	ck_assert(b && n == 7 && size == 7);
}
END_TEST

START_TEST(the_same_diagnostic_is_given_once)
{
	read_text("");
	conf_add_diag(&c, CONF_ERROR, 3, "x %d", 1);
	conf_add_diag(&c, CONF_ERROR, 3, "x %d", 1);
	conf_add_diag(&c, CONF_ERROR, 4, "x %d", 1);
	conf_add_diag(&c, CONF_NOTICE, 5, "y");
	ck_assert_uint_eq(c.nerrors, 2);
	ck_assert_uint_eq(c.ndiags, 3);
	done();
}
END_TEST

UNIT_MAIN("conf", sections_and_values_are_read, an_empty_file_has_a_global_part,
    key_names_ignore_case_blanks_and_underscores, comments_stand_on_their_own_lines,
    a_backslash_joins_lines_and_keeps_the_first_number, lines_of_windows_editors_are_read,
    a_last_line_without_newline_counts, only_the_first_equals_sign_separates, an_empty_value_is_a_value,
    global_goes_back_to_the_first_part, of_a_repeated_key_the_last_counts_and_all_are_kept, text_after_a_header_is_an_error,
    a_line_without_equals_sign_is_an_error, an_unterminated_header_is_an_error, a_section_without_name_is_an_error,
    a_second_section_of_a_name_names_the_first, a_value_without_key_is_an_error, includes_are_an_error_with_a_remedy,
    a_nul_byte_is_an_error, a_missing_file_is_an_errno, booleans_are_rsync_s, a_word_that_is_no_boolean_is_named,
    numbers_have_a_range, sizes_take_a_unit, a_comment_after_a_value_is_named_as_such, a_missing_key_leaves_the_default,
    the_same_diagnostic_is_given_once)
