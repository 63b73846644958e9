/* SPDX-License-Identifier: BSD-2-Clause
 * rsync's filter patterns.
 *
 * What a pattern is compared with depends on its form, as in rsync's exclude.c: without a slash and without
 * ** it is the last component; anchored it is the whole path; with slashes it is as many last components as
 * it has; with ** it is every tail of the path that begins at a component. A pattern that ends in three stars
 * after a slash also matches the directory before them. A backslash quotes only in patterns that hold a
 * wildcard. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proto/filter.h"
#include "proto/fileio.h"

#define FILTER_FILE_MAX (4u << 20) /* bytes of a file of rules */

/* --- wildcards --- */

/* ABORT says that the text ended too early: no later start of an outer star can help. ABORT_STARSTAR: nor can
 * a later start within this component. Without them a pattern like *a*a*a takes exponential time. */
enum wild { WILD_NO, WILD_YES, WILD_ABORT, WILD_ABORT_STARSTAR };

static unsigned char fold(unsigned char ch, bool icase)
{
	return icase ? (unsigned char)tolower(ch) : ch;
}

static bool class_named(const char *name, size_t n, int ch)
{
	static const struct {
		const char *name;
		int (*is)(int);
	} v[] = {{"alnum", isalnum}, {"alpha", isalpha}, {"blank", isblank}, {"cntrl", iscntrl},
		 {"digit", isdigit}, {"graph", isgraph}, {"lower", islower}, {"print", isprint},
		 {"punct", ispunct}, {"space", isspace}, {"upper", isupper}, {"xdigit", isxdigit}};

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		if (strlen(v[i].name) == n && strncmp(v[i].name, name, n) == 0)
			return v[i].is(ch) != 0;
	return false;
}

/* One character of a bracket expression, backslash removed. NULL at the pattern's end. */
static const char *class_char(const char *p, unsigned char *out)
{
	if (*p == '\\')
		p++;
	if (*p == '\0')
		return NULL;
	*out = (unsigned char)*p;
	return p + 1;
}

/* p is after '['. Returns the place after ']' and whether ch is in the class, or NULL if it is never closed.
 */
static const char *class_match(const char *p, unsigned char ch, bool icase, bool *in)
{
	bool negate = *p == '!' || *p == '^', found = false;
	const char *first;

	p += negate;
	first = p;
	while (*p != ']' || p == first) {
		unsigned char low, high;
		const char *end;

		if (p[0] == '[' && p[1] == ':' && (end = strstr(p + 2, ":]")) != NULL) {
			found |= class_named(p + 2, (size_t)(end - p - 2), ch);
			p = end + 2;
			continue;
		}
		p = class_char(p, &low);
		if (p == NULL)
			return NULL;
		high = low;
		if (p[0] == '-' && p[1] != ']' && p[1] != '\0') {
			p = class_char(p + 1, &high);
			if (p == NULL)
				return NULL;
		}
		found |= ch >= low && ch <= high;
		if (icase && isalpha(ch)) {
			found |= toupper(ch) >= low && toupper(ch) <= high;
			found |= tolower(ch) >= low && tolower(ch) <= high;
		}
	}
	*in = found != negate && ch != '/';
	return p + 1;
}

static enum wild wild_match(const char *p, const char *t, bool icase);

/* p is at the first of one or more stars. */
static enum wild wild_star(const char *p, const char *t, bool icase)
{
	bool deep = p[1] == '*';

	while (*p == '*')
		p++;
	if (*p == '\0')
		return deep || strchr(t, '/') == NULL ? WILD_YES : WILD_NO;
	for (;; t++) {
		enum wild r = wild_match(p, t, icase);

		if (r == WILD_YES || r == WILD_ABORT || (r == WILD_ABORT_STARSTAR && !deep))
			return r;
		if (*t == '\0')
			return WILD_ABORT;
		if (*t == '/' && !deep)
			return WILD_ABORT_STARSTAR;
	}
}

static enum wild wild_match(const char *p, const char *t, bool icase)
{
	for (; *p != '\0'; p++, t++) {
		bool in;

		if (*p == '*')
			return wild_star(p, t, icase);
		if (*t == '\0')
			return WILD_ABORT;
		if (*p == '[') {
			const char *next = class_match(p + 1, (unsigned char)*t, icase, &in);

			if (next == NULL || !in)
				return WILD_NO;
			p = next - 1;
			continue;
		}
		if (*p == '?') {
			if (*t == '/')
				return WILD_NO;
			continue;
		}
		if (*p == '\\' && p[1] != '\0')
			p++;
		if (fold((unsigned char)*p, icase) != fold((unsigned char)*t, icase))
			return WILD_NO;
	}
	return *t == '\0' ? WILD_YES : WILD_NO;
}

/* --- rules --- */

/* The last n components of path. NULL if it has fewer. */
static const char *last_components(const char *path, unsigned n)
{
	const char *p = path + strlen(path);

	while (p > path) {
		if (p[-1] == '/' && --n == 0)
			return p;
		p--;
	}
	return n == 1 ? path : NULL;
}

static bool text_match(const struct filter_rule *r, const char *t, bool icase)
{
	if (r->wild)
		return wild_match(r->pattern, t, icase) == WILD_YES;
	return (icase ? strcasecmp(r->pattern, t) : strcmp(r->pattern, t)) == 0;
}

static bool pattern_match(const struct filter_rule *r, const char *path, bool icase)
{
	const char *t;

	if (r->anchored)
		return text_match(r, path, icase);
	if (!r->deep) {
		t = last_components(path, r->slashes + 1);
		return t != NULL && text_match(r, t, icase);
	}
	for (t = path; t != NULL; t = strchr(t, '/')) {
		t += *t == '/';
		if (text_match(r, t, icase))
			return true;
	}
	return false;
}

static bool rule_match(const struct filter_rule *r, const char *path, bool is_dir, bool icase)
{
	struct filter_rule dir;
	size_t n;
	bool hit;

	if (r->dir_only && !is_dir)
		return false;
	if (pattern_match(r, path, icase))
		return true;
	if (!r->subtree || !is_dir)
		return false;
	/* "dir" + "/" + three stars: the directory itself. */
	dir = *r;
	n = strlen(r->pattern) - 4;
	dir.pattern = strndup(r->pattern, n);
	if (dir.pattern == NULL)
		return false;
	dir.slashes--;
	dir.deep = strstr(dir.pattern, "**") != NULL;
	hit = pattern_match(&dir, path, icase);
	free(dir.pattern);
	return hit;
}

void filter_init(struct filter *f)
{
	memset(f, 0, sizeof(*f));
}

void filter_release(struct filter *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->v[i].pattern);
	free(f->v);
	filter_init(f);
}

static void rule_form(struct filter_rule *r)
{
	size_t n = strlen(r->pattern);

	for (const char *p = r->pattern; *p != '\0'; p++)
		r->slashes += *p == '/';
	r->wild = strpbrk(r->pattern, "*?[") != NULL;
	r->deep = strstr(r->pattern, "**") != NULL;
	r->subtree = n > 4 && strcmp(r->pattern + n - 4, "/***") == 0;
}

int filter_add(struct filter *f, const char *rule, bool include)
{
	struct filter_rule r = {.include = include}, *v;
	size_t n;

	if ((rule[0] == '+' || rule[0] == '-') && rule[1] == ' ') {
		r.include = rule[0] == '+';
		rule += 2;
	}
	r.anchored = *rule == '/';
	while (*rule == '/')
		rule++;
	n = strlen(rule);
	while (n > 0 && rule[n - 1] == '/') {
		r.dir_only = true;
		n--;
	}
	if (n == 0)
		return -EINVAL;
	v = reallocarray(f->v, f->n + 1, sizeof(*v));
	if (v == NULL)
		return -ENOMEM;
	f->v = v;
	r.pattern = strndup(rule, n);
	if (r.pattern == NULL)
		return -ENOMEM;
	rule_form(&r);
	v[f->n++] = r;
	return 0;
}

int filter_add_file(struct filter *f, const char *file, bool include, int *bad)
{
	char *text = NULL, *line, *rest;
	size_t n = 0;
	int r = fio_slurp(AT_FDCWD, file, FILTER_FILE_MAX, &text, &n), number = 0;

	*bad = 0;
	if (r != 0)
		return r;
	rest = text + fio_text_start(text);
	while (r == 0 && (line = strsep(&rest, "\n")) != NULL) {
		size_t len = strlen(line);

		number++;
		if (rest == NULL && line + len != text + n) { /* a NUL byte hides what follows */
			r = -EINVAL;
			break;
		}
		if (len > 0 && line[len - 1] == '\r')
			line[--len] = '\0';
		if (len == 0 || *line == '#' || *line == ';')
			continue;
		r = filter_add(f, line, include);
	}
	if (r == -EINVAL)
		*bad = number;
	free(text);
	return r;
}

/* The first rule that matches decides. */
static bool excluded_alone(const struct filter *f, const char *path, bool is_dir)
{
	for (size_t i = 0; i < f->n; i++)
		if (rule_match(&f->v[i], path, is_dir, false))
			return !f->v[i].include;
	return false;
}

bool filter_excluded(const struct filter *f, const char *path, bool is_dir)
{
	bool excluded = false;
	char *copy, *p;

	if (f->n == 0 || *path == '\0')
		return false;
	if (strchr(path, '/') == NULL)
		return excluded_alone(f, path, is_dir);
	copy = strdup(path);
	if (copy == NULL) /* what we mirror too much can be removed, what we mirror too little is lost */
		return excluded_alone(f, path, is_dir);
	for (p = strchr(copy, '/'); p != NULL && !excluded; p = strchr(p + 1, '/')) {
		*p = '\0';
		excluded = excluded_alone(f, copy, true);
		*p = '/';
	}
	free(copy);
	return excluded || excluded_alone(f, path, is_dir);
}

bool filter_matches(const struct filter *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++)
		if (rule_match(&f->v[i], path, false, true))
			return true;
	return false;
}
