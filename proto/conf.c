/* SPDX-License-Identifier: BSD-2-Clause
 * The grammar of rsyncd.conf. A first pass cuts the text into logical lines (continuations joined, the number
 * of the first physical line kept), a second gives each its meaning. Names are compared squashed: without
 * blanks and underscores, in lower case. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proto/conf.h"
#include "proto/err.h"
#include "proto/fileio.h"

static bool blank(char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\r' || ch == '\v' || ch == '\f';
}

/* Cut blanks at both ends, in place. */
static char *trim(char *s)
{
	size_t n;

	while (blank(*s))
		s++;
	n = strlen(s);
	while (n > 0 && blank(s[n - 1]))
		s[--n] = '\0';
	return s;
}

/* --- diagnostics --- */

static bool diag_known(const struct conf *c, int line, const char *text)
{
	for (size_t i = 0; i < c->ndiags; i++)
		if (c->diags[i].line == line && strcmp(c->diags[i].text, text) == 0)
			return true;
	return false;
}

void conf_add_diag(struct conf *c, enum conf_severity sev, int line, const char *fmt, ...)
{
	struct conf_diag *v;
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		text = NULL;
	/* A default of the global part is looked at once per section, but is wrong once. */
	if (text != NULL && diag_known(c, line, text)) {
		free(text);
		return;
	}
	if (sev == CONF_ERROR)
		c->nerrors++; /* counts even if there is no memory to say why */
	v = text != NULL ? reallocarray(c->diags, c->ndiags + 1, sizeof(*v)) : NULL;
	if (v == NULL) {
		free(text);
		return;
	}
	c->diags = v;
	v[c->ndiags++] = (struct conf_diag){.severity = sev, .line = line, .text = text};
}

size_t conf_print(const struct conf *c)
{
	for (size_t i = 0; i < c->ndiags; i++) {
		const struct conf_diag *d = &c->diags[i];
		const char *what = d->severity == CONF_ERROR ? "error" : "notice";

		if (d->line > 0)
			fprintf(stderr, "%s:%d: %s: %s\n", c->file, d->line, what, d->text);
		else
			fprintf(stderr, "%s: %s: %s\n", c->file, what, d->text);
	}
	return c->nerrors;
}

/* --- reading --- */

static int add_section(struct conf *c, const char *name, int line)
{
	struct conf_section *v = reallocarray(c->sections, c->nsections + 1, sizeof(*v));
	char *copy = NULL;

	if (v == NULL)
		return -ENOMEM;
	c->sections = v;
	if (name != NULL && (copy = strdup(name)) == NULL)
		return -ENOMEM;
	v[c->nsections++] = (struct conf_section){.name = copy, .line = line};
	return 0;
}

static int add_entry(struct conf_section *s, const char *key, const char *value, int line)
{
	struct conf_entry *v = reallocarray(s->entries, s->nentries + 1, sizeof(*v));
	struct conf_entry *e;

	if (v == NULL)
		return -ENOMEM;
	s->entries = v;
	e = &v[s->nentries];
	*e = (struct conf_entry){.line = line};
	e->key = strdup(key);
	e->value = value != NULL ? strdup(value) : NULL;
	if (e->key == NULL || (value != NULL && e->value == NULL)) {
		free(e->key);
		free(e->value);
		return -ENOMEM;
	}
	s->nentries++;
	return 0;
}

/* Put a name into its shown form, in place: one blank between words. */
static void collapse(char *s, bool lower)
{
	char *to = s;

	for (; *s != '\0'; s++) {
		if (blank(*s) && (blank(s[1]) || s[1] == '\0'))
			continue;
		*to++ = (char)(blank(*s) ? ' ' : lower ? tolower((unsigned char)*s) : *s);
	}
	*to = '\0';
}

/* A header line. *at becomes the index of the section that entries now go to. */
static int take_header(struct conf *c, char *s, int line, size_t *at)
{
	char *end = strchr(s, ']'), *rest, *name;

	if (end == NULL) {
		conf_add_diag(c, CONF_ERROR, line, "the section header is not closed: a ']' is missing");
		rest = s + strlen(s);
	} else {
		*end = '\0';
		rest = trim(end + 1);
	}
	name = trim(s + 1);
	collapse(name, false);
	if (*rest != '\0')
		conf_add_diag(c, CONF_ERROR, line,
			      "text after the section header [%s]: \"%s\"; move it, also a comment, to a "
			      "line of its own",
			      name, rest);
	if (*name == '\0')
		conf_add_diag(c, CONF_ERROR, line, "the section has no name: write [NAME]");
	if (strcasecmp(name, "global") == 0) { /* as in rsyncd.conf: back to the first part */
		*at = 0;
		return 0;
	}
	for (size_t i = 1; i < c->nsections; i++)
		if (*name != '\0' && strcmp(c->sections[i].name, name) == 0)
			conf_add_diag(
			    c, CONF_ERROR, line,
			    "section [%s] is there already, at line %d; rename or merge one of them", name,
			    c->sections[i].line);
	*at = c->nsections;
	return add_section(c, name, line);
}

static int take_entry(struct conf *c, char *s, int line, size_t at)
{
	char *eq = strchr(s, '='), *key, *value = NULL;

	if (*s == '&') {
		conf_add_diag(
		    c, CONF_ERROR, line,
		    "%.*s is not supported: put the lines of the other file here, or start a daemon per file",
		    (int)strcspn(s, " \t"), s);
		return 0;
	}
	if (eq != NULL) {
		*eq = '\0';
		value = trim(eq + 1);
	}
	key = trim(s);
	collapse(key, true);
	if (eq == NULL)
		conf_add_diag(c, CONF_ERROR, line,
			      "\"%s\" has no '=': write KEY = VALUE, or begin a comment with #", key);
	else if (*key == '\0') {
		conf_add_diag(c, CONF_ERROR, line, "no key before the '='");
		return 0;
	}
	return add_entry(&c->sections[at], key, value, line);
}

static int take_line(struct conf *c, char *s, int line, size_t *at)
{
	s = trim(s);
	if (*s == '\0' || *s == '#' || *s == ';')
		return 0;
	return *s == '[' ? take_header(c, s, line, at) : take_entry(c, s, line, *at);
}

/* End the physical line at s, in place; *next is the one after it. Returns its length without blanks at its
 * end. */
static size_t cut_line(char *s, char **next, char *end)
{
	char *nl = memchr(s, '\n', (size_t)(end - s));
	size_t n;

	*next = nl != NULL ? nl + 1 : end;
	n = (size_t)((nl != NULL ? nl : end) - s);
	while (n > 0 && blank(s[n - 1]))
		n--;
	s[n] = '\0';
	return n;
}

/* Read the text (n bytes, NUL after them, without NUL inside). Changes it. */
static int parse(struct conf *c, char *text, size_t n)
{
	char *end = text + n, *s = text, *next;
	size_t at = 0, len;
	int line = 0, r = 0;

	while (s < end && r == 0) {
		char *joined = s, *to;
		int first = ++line;
		const char *head;

		len = cut_line(s, &next, end);
		head = s + strspn(s, " \t\r\v\f");
		to = s + len;
		/* A comment is not continued: a path that ends in a backslash may stand in one. */
		while (*head != '#' && *head != ';' && to > joined && to[-1] == '\\' && next < end) {
			s = next;
			line++;
			len = cut_line(s, &next, end);
			to--;
			memmove(to, s, len + 1); /* always backwards: the joined line is shorter than the
						    lines it came from */
			to += len;
		}
		r = take_line(c, joined, first, &at);
		s = next;
	}
	return r;
}

int conf_read(struct conf *c, const char *file)
{
	char *text = NULL;
	size_t n = 0, start;
	int r;

	memset(c, 0, sizeof(*c));
	c->file = strdup(file);
	if (c->file == NULL || add_section(c, NULL, 1) != 0)
		return -ENOMEM;
	r = fio_slurp(AT_FDCWD, file, CONF_FILE_MAX, &text, &n);
	if (r != 0)
		return r;
	if (memchr(text, '\0', n) != NULL)
		conf_add_diag(c, CONF_ERROR, 0, "there is a NUL byte in the file; it is not a text file");
	else {
		start = fio_text_start(text);
		r = parse(c, text + start, n - start);
	}
	free(text);
	return r;
}

void conf_release(struct conf *c)
{
	for (size_t i = 0; i < c->nsections; i++) {
		for (size_t k = 0; k < c->sections[i].nentries; k++) {
			free(c->sections[i].entries[k].key);
			free(c->sections[i].entries[k].value);
		}
		free(c->sections[i].entries);
		free(c->sections[i].name);
	}
	free(c->sections);
	for (size_t i = 0; i < c->ndiags; i++)
		free(c->diags[i].text);
	free(c->diags);
	free(c->file);
	memset(c, 0, sizeof(*c));
}

/* --- looking up --- */

struct conf_section *conf_section(struct conf *c, const char *name)
{
	for (size_t i = 1; i < c->nsections; i++)
		if (strcmp(c->sections[i].name, name) == 0)
			return &c->sections[i];
	return NULL;
}

static const char *skip_soft(const char *s)
{
	return s + strspn(s, " \t_");
}

/* Compare two names squashed. */
static bool same_name(const char *a, const char *b)
{
	for (a = skip_soft(a), b = skip_soft(b); *a != '\0' && *b != '\0';
	     a = skip_soft(a + 1), b = skip_soft(b + 1))
		if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
			return false;
	return *a == *b;
}

struct conf_entry *conf_get(struct conf_section *s, const char *key, int nth)
{
	struct conf_entry *last = NULL;
	int seen = 0;

	for (size_t i = 0; i < s->nentries; i++) {
		struct conf_entry *e = &s->entries[i];

		if (!same_name(e->key, key))
			continue;
		if (nth == 0 || ++seen == nth) {
			e->used = true;
			last = e;
		}
		if (nth != 0 && seen == nth)
			return last;
	}
	return last;
}

/* --- values --- */

static const char *shown(const struct conf_entry *e)
{
	return e->value != NULL ? e->value : "";
}

int conf_check_comment(struct conf *c, const struct conf_entry *e)
{
	const char *p;

	if (e == NULL || e->value == NULL)
		return 0;
	for (p = strchr(e->value, '#'); p != NULL; p = strchr(p + 1, '#')) {
		if (p == e->value || !blank(p[-1]))
			continue;
		conf_add_diag(c, CONF_ERROR, e->line,
			      "%s = %s: a comment after a value would become a part of it; move \"%s\" to a "
			      "line of its own",
			      e->key, e->value, p);
		return E_CONF;
	}
	return 0;
}

int conf_bool(struct conf *c, const struct conf_entry *e, bool *out)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"yes", true}, {"true", true},   {"1", true},  {"on", true},
		     {"no", false}, {"false", false}, {"0", false}, {"off", false}};

	if (e == NULL)
		return 0;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasecmp(shown(e), words[i].word) == 0) {
			*out = words[i].value;
			return 0;
		}
	if (conf_check_comment(c, e) == 0)
		conf_add_diag(c, CONF_ERROR, e->line, "%s = %s: must be yes or no", e->key, shown(e));
	return E_CONF;
}

int conf_num(struct conf *c, const struct conf_entry *e, long long min, long long max, long long *out)
{
	long long v;
	char *end;

	if (e == NULL)
		return 0;
	errno = 0;
	v = strtoll(shown(e), &end, 10);
	if (errno == 0 && end != shown(e) && *end == '\0' && v >= min && v <= max) {
		*out = v;
		return 0;
	}
	if (conf_check_comment(c, e) == 0)
		conf_add_diag(c, CONF_ERROR, e->line, "%s = %s: must be a number from %lld to %lld", e->key,
			      shown(e), min, max);
	return E_CONF;
}

/* Digits and at most one unit. */
static bool parse_size(const char *s, uint64_t *out)
{
	static const char units[] = "kmgt";
	unsigned long long v;
	const char *u;
	char *end;
	int shift = 0;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno != 0)
		return false;
	if (*end != '\0') {
		u = strchr(units, tolower((unsigned char)*end));
		if (u == NULL || end[1] != '\0')
			return false;
		shift = 10 * (int)(u - units + 1);
	}
	if (v > UINT64_MAX >> shift)
		return false;
	*out = v << shift;
	return true;
}

int conf_size(struct conf *c, const struct conf_entry *e, uint64_t *out)
{
	if (e == NULL || parse_size(shown(e), out))
		return 0;
	if (conf_check_comment(c, e) == 0)
		conf_add_diag(c, CONF_ERROR, e->line,
			      "%s = %s: must be a number of bytes, like 65536, 512K, 20M, 4G or 1T", e->key,
			      shown(e));
	return E_CONF;
}
