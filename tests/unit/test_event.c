/* SPDX-License-Identifier: BSD-2-Clause
 * How tandemctl shows journal records and foreign text. */
#include "config.h"
#include <jansson.h>
#include "replicator/ctl/ctl.h"
#include "replicator/ctl/event.h"
#include "tests/unit/unit.h"

/* Call a printing function and return what it wrote to standard output, owned. */
#define CAPTURE(call)                                                                                                \
	({                                                                                                           \
		char *text_;                                                                                         \
		size_t size_;                                                                                        \
		FILE *saved_ = stdout;                                                                               \
		stdout = open_memstream(&text_, &size_);                                                             \
		call;                                                                                                \
		fclose(stdout);                                                                                      \
		stdout = saved_;                                                                                     \
		text_;                                                                                               \
	})

static struct jrec content(const char *path)
{
	struct jrec r;

	jrec_init(&r, JT_CONTENT);
	r.seq = 17;
	r.ino = 5;
	r.path = path;
	r.size = 4096;
	r.flags = JF_CLOSED;
	extent_add(&r.extents, 0, 512);
	extent_add(&r.extents, 1024, EXTENT_INF);
	return r;
}

START_TEST(names_say_what_happened)
{
	struct jrec r = content("f");

	ck_assert_str_eq(event_name(&r), "CLOSE_WRITE");
	r.flags = JF_FSYNC;
	ck_assert_str_eq(event_name(&r), "FSYNC");
	r.flags = 0;
	ck_assert_str_eq(event_name(&r), "MODIFY");
	jrec_release(&r);
	for (int t = 1; t <= JT_LAST; t++) {
		jrec_init(&r, (enum jtype)t);
		ck_assert_str_ne(event_name(&r), "UNKNOWN");
	}
}
END_TEST

START_TEST(format_replaces_every_escape)
{
	struct jrec r = content("dir/file");
	char *s = CAPTURE(event_print_format(&r, "%n %e %w %f [%F] %x %s %i %%", NULL));

	ck_assert_str_eq(s, "17 CLOSE_WRITE dir/file file [] 0-512,1024-eof 4096 5 %\n");
	free(s);
	jrec_release(&r);
}
END_TEST

START_TEST(a_time_may_be_long_or_empty)
{
	static char format[600];
	struct jrec r = content("f");
	char *s;

	memset(format, 'x', sizeof(format) - 1);
	s = CAPTURE(event_print_format(&r, "%T|%w", format));
	ck_assert_uint_eq(strspn(s, "x"), sizeof(format) - 1);
	ck_assert_str_eq(s + sizeof(format) - 1, "|f\n");
	free(s);
	s = CAPTURE(event_print_format(&r, "%T|%w", ""));
	ck_assert_str_eq(s, "|f\n");
	free(s);
	jrec_release(&r);
}
END_TEST

START_TEST(format_knows_what_it_does_not_know)
{
	ck_assert_int_eq(event_check_format("%n%e%%q"), 0);
	ck_assert_int_eq(event_check_format("%n %q"), 'q');
	ck_assert_int_eq(event_check_format("100%"), '%');
}
END_TEST

START_TEST(paths_are_escaped_unless_nul_ends_them)
{
	struct jrec r = content("a\nb\x1b");
	char *s = CAPTURE(event_print_format(&r, "%w", NULL));

	ck_assert_str_eq(s, "a\\012b\\033\n");
	free(s);
	s = CAPTURE(event_print_format(&r, "%w%0", NULL));
	ck_assert_str_eq(s, "a\nb\x1b");
	ck_assert_int_eq(s[5], '\0');
	free(s);
	jrec_release(&r);
}
END_TEST

START_TEST(json_keeps_every_path)
{
	struct jrec r = content("a\nb");
	char *s = CAPTURE(event_print_json(&r));
	json_t *o = json_loads(s, 0, NULL);

	ck_assert_str_eq(ctl_str(o, "path"), "a\nb");
	ck_assert(json_is_null(json_array_get(json_array_get(json_object_get(o, "extents"), 1), 1)));
	json_decref(o);
	free(s);
	r.path = "x\xff";
	s = CAPTURE(event_print_json(&r));
	o = json_loads(s, 0, NULL);
	ck_assert_str_eq(ctl_str(o, "path"), "x\\377");
	ck_assert_str_eq(ctl_str(o, "path_hex"), "78ff");
	json_decref(o);
	free(s);
	jrec_release(&r);
}
END_TEST

START_TEST(foreign_text_has_no_control_characters)
{
	char out[64];

	ck_assert_str_eq(ctl_show_text(out, sizeof(out), "a\x1b[2J\n\x7f\xc2\x9b" "b\xc3\xa4"), "a?[2J???b\xc3\xa4");
	ck_assert_str_eq(ctl_show_text(out, 3, "abcdef"), "ab");
}
END_TEST

START_TEST(numbers_for_people)
{
	char out[32];

	ck_assert_str_eq(ctl_show_bytes(out, sizeof(out), 1023), "1023 B");
	ck_assert_str_eq(ctl_show_bytes(out, sizeof(out), 1536), "1.5 KiB");
	ck_assert_str_eq(ctl_show_secs(out, sizeof(out), 0.0123), "12 ms");
	ck_assert_str_eq(ctl_show_secs(out, sizeof(out), 90), "90.0 s");
	ck_assert_str_eq(ctl_show_secs(out, sizeof(out), 3 * 86400), "3.0 days");
}
END_TEST

UNIT_MAIN("event", names_say_what_happened, format_replaces_every_escape, a_time_may_be_long_or_empty, format_knows_what_it_does_not_know,
    paths_are_escaped_unless_nul_ends_them, json_keeps_every_path, foreign_text_has_no_control_characters, numbers_for_people)
