/* SPDX-License-Identifier: BSD-2-Clause
 * mirrors.conf: one section per mirror. Every section is read and checked whichever was asked for, so that a
 * wrong line is found by the first program that starts, not by the mirror that needs it.
 *
 * A key that a section does not have is taken from the first part of the file, except source, mountpoint and
 * target. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/mirror.h"
#include "proto/mirror_int.h"
#include "proto/path.h"

#define STATE_DIR	  "/var/lib/tandem"
#define JOURNAL_LIMIT	  (1ull << 30) /* bytes */
#define JOURNAL_LIMIT_MIN (1ull << 20) /* bytes */
#define TIMEOUT		  60	       /* s */
#define DELETE_GUARD	  50	       /* percent */

/* What the functions that read a section share. */
struct reading {
	struct conf *c;
	struct conf_section *global;
	struct conf_section *s;
	struct mirror *m;
	int err; /* -ENOMEM, or the first other error that is no diagnostic */
};

static void *keep(struct reading *r, void *p)
{
	if (p == NULL)
		r->err = -ENOMEM;
	return p;
}

/* --- looking up --- */

/* The entry that counts in this part; it says so when the key is given twice. */
static struct conf_entry *last_of(struct reading *r, struct conf_section *s, const char *key)
{
	struct conf_entry *e = conf_get(s, key, 0);

	if (e != NULL && conf_get(s, key, 1) != e)
		conf_add_diag(r->c, CONF_NOTICE, e->line,
			      "%s is given more than once here; this last one counts", e->key);
	return e;
}

static struct conf_entry *own(struct reading *r, const char *key)
{
	return last_of(r, r->s, key);
}

static struct conf_entry *find(struct reading *r, const char *key)
{
	struct conf_entry *e = last_of(r, r->s, key);

	return e != NULL ? e : last_of(r, r->global, key);
}

/* The part of the file in which a key that may be repeated counts. */
static struct conf_section *part_of(struct reading *r, const char *key)
{
	return conf_get(r->s, key, 0) != NULL ? r->s : r->global;
}

static bool has_text(struct reading *r, const struct conf_entry *e)
{
	if (e->value != NULL && *e->value != '\0')
		return conf_check_comment(r->c, e) == 0;
	if (e->value != NULL) /* without '=' it was reported already */
		conf_add_diag(r->c, CONF_ERROR, e->line, "%s has no value", e->key);
	return false;
}

/* An absolute path without doubled slashes, owned, or NULL with a diagnostic. */
static char *abs_path(struct reading *r, const struct conf_entry *e)
{
	char *out, *to;

	if (e == NULL || !has_text(r, e))
		return NULL;
	if (e->value[0] != '/') {
		conf_add_diag(r->c, CONF_ERROR, e->line, "%s = %s: must be an absolute path", e->key,
			      e->value);
		return NULL;
	}
	out = to = keep(r, strdup(e->value));
	if (out == NULL)
		return NULL;
	for (const char *p = e->value; *p != '\0'; p++)
		if (*p != '/' || (p[1] != '/' && p[1] != '\0'))
			*to++ = *p;
	if (to == out)
		*to++ = '/';
	*to = '\0';
	if (strcmp(out, "/") != 0 && !path_valid(out + 1)) {
		conf_add_diag(r->c, CONF_ERROR, e->line, "%s = %s: the path must not hold \".\" or \"..\"",
			      e->key, e->value);
		free(out);
		return NULL;
	}
	return out;
}

/* One word of a list, NULL-terminated. Returns its index or -1 with a diagnostic. */
static int one_of(struct reading *r, const struct conf_entry *e, const char *const *words)
{
	char list[128] = "";

	if (!has_text(r, e))
		return -1;
	for (int i = 0; words[i] != NULL; i++) {
		size_t n = strlen(list);

		if (strcasecmp(e->value, words[i]) == 0)
			return i;
		snprintf(list + n, sizeof(list) - n, "%s%s",
			 i == 0			? ""
			 : words[i + 1] != NULL ? ", "
						: " or ",
			 words[i]);
	}
	conf_add_diag(r->c, CONF_ERROR, e->line, "%s = %s: must be %s", e->key, e->value, list);
	return -1;
}

/* --- keys --- */

static const struct {
	const char *name;
	bool section_only;
} keys[] = {
    {"source", true},	      {"mountpoint", true},	{"target", true},	{"state dir", false},
    {"password file", false}, {"filter", false},	{"include", false},	{"include from", false},
    {"exclude", false},	      {"exclude from", false},	{"delete", false},	{"delete guard", false},
    {"compress", false},      {"dont compress", false}, {"bwlimit", false},	{"journal limit", false},
    {"journal sync", false},  {"shared source", false}, {"allow other", false}, {"timeout", false},
    {"log file", false},      {"io uring", false},	{"nfs export", false}};

#define NKEYS (sizeof(keys) / sizeof(keys[0]))

static size_t smallest(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edits between two names, without blanks and underscores. */
static size_t distance(const char *a, const char *b)
{
	size_t row[33] = {0}, n = 0, i = 0;
	char t[32];

	for (; *b != '\0' && n < sizeof(t); b++)
		if (*b != ' ' && *b != '_')
			t[n++] = *b;
	for (size_t k = 0; k <= n; k++)
		row[k] = k;
	for (; *a != '\0'; a++) {
		size_t diag = i++;

		if (*a == ' ' || *a == '_') {
			i--;
			continue;
		}
		row[0] = i;
		for (size_t k = 1; k <= n; k++) {
			size_t up = row[k];

			row[k] = smallest(up + 1, row[k - 1] + 1, diag + (*a != t[k - 1]));
			diag = up;
		}
	}
	return row[n];
}

static void unknown_key(struct conf *c, const struct conf_entry *e, bool global)
{
	const char *best = NULL;
	size_t least = 4;

	for (size_t i = 0; i < NKEYS; i++) {
		size_t d = distance(e->key, keys[i].name);

		if (d < least && d < strlen(keys[i].name) / 2 + 1) {
			least = d;
			best = keys[i].name;
		}
	}
	if (best != NULL && least == 0 && global)
		conf_add_diag(c, CONF_ERROR, e->line, "%s belongs to a mirror: move it below a [NAME] line",
			      best);
	else if (best != NULL)
		conf_add_diag(c, CONF_ERROR, e->line, "unknown key \"%s\"; did you mean \"%s\"?", e->key,
			      best);
	else
		conf_add_diag(c, CONF_ERROR, e->line,
			      "unknown key \"%s\"; tandem-mirrors.conf(5) lists them all", e->key);
}

/* After all sections are read: what nobody asked for. */
static void check_unknown(struct conf *c)
{
	for (size_t i = 0; i < NKEYS; i++) /* the file may have defaults and no section yet */
		if (!keys[i].section_only)
			(void)conf_get(&c->sections[0], keys[i].name, 0);
	for (size_t i = 0; i < c->nsections; i++)
		for (size_t k = 0; k < c->sections[i].nentries; k++)
			if (!c->sections[i].entries[k].used && c->sections[i].entries[k].value != NULL)
				unknown_key(c, &c->sections[i].entries[k], i == 0);
}

/* --- targets --- */

static void check_target(struct reading *r, const struct conf_entry *e, const struct mirror_target *t)
{
	if (*t->module == '\0')
		conf_add_diag(r->c, CONF_ERROR, e->line,
			      "target = %s: the module is missing: tandem://USER@HOST/MODULE", e->value);
	else if (*t->user == '\0')
		conf_add_diag(r->c, CONF_ERROR, e->line,
			      "target = %s: the user is missing: tandem://USER@HOST/MODULE, with a USER of "
			      "the module's auth users",
			      e->value);
	if (mirror_has_target(r->m, t))
		conf_add_diag(r->c, CONF_ERROR, e->line, "target = %s: this module is a target already", e->value);
}

static void read_targets(struct reading *r)
{
	struct mirror *m = r->m;
	struct conf_entry *e;
	char why[512];

	for (int nth = 1; r->err == 0 && (e = conf_get(r->s, "target", nth)) != NULL; nth++) {
		if (!has_text(r, e))
			continue;
		if (m->ntargets == MIRROR_TARGETS_MAX) {
			conf_add_diag(r->c, CONF_ERROR, e->line, "more than %d targets", MIRROR_TARGETS_MAX);
			return;
		}
		r->err = mirror_add_target(m, e->value, why, sizeof(why));
		if (r->err == E_CONF) {
			conf_add_diag(r->c, CONF_ERROR, e->line, "target = %s: %s", e->value, why);
			r->err = 0;
		} else if (r->err == 0)
			check_target(r, e, &m->targets[m->ntargets - 1]);
	}
	if (conf_get(r->s, "target", 1) == NULL)
		conf_add_diag(r->c, CONF_ERROR, r->s->line,
			      "mirror [%s] has no target: add a line target = tandem://USER@HOST/MODULE",
			      m->name);
}

static void read_password_file(struct reading *r)
{
	const struct conf_entry *e = find(r, "password file");
	char why[512] = "";

	if (e == NULL) {
		if (r->m->ntargets > 0)
			conf_add_diag(r->c, CONF_ERROR, r->s->line,
				      "mirror [%s] has no password file: write the password alone into a "
				      "file of mode 600 and add "
				      "password file = FILE",
				      r->m->name);
		return;
	}
	r->m->password_file = abs_path(r, e);
	/* Only the mode is judged here: who just asks for the status may not be allowed to open it. It is no error either:
	 * the mount must work, and sending begins when the file is right. */
	if (r->m->password_file != NULL && fio_check_secret(r->m->password_file, why, sizeof(why)) == -EPERM)
		conf_add_diag(r->c, CONF_NOTICE, e->line, "password file: %s", why);
}

/* --- filters --- */

static void add_rule(struct reading *r, struct filter *f, const struct conf_entry *e, const char *rule,
		     bool include)
{
	int err = filter_add(f, rule, include);

	if (err == -EINVAL)
		conf_add_diag(r->c, CONF_ERROR, e->line, "%s: \"%s\" is no pattern", e->key, rule);
	else if (err != 0)
		r->err = err;
}

/* The patterns of a line stand beside each other as in rsyncd.conf; "+" and "-" belong to the word after
 * them. */
static void add_words(struct reading *r, struct filter *f, const struct conf_entry *e, bool include,
		      bool signs)
{
	char *copy = keep(r, strdup(e->value)), *save = NULL;
	char sign = 0, *rule;

	if (copy == NULL)
		return;
	for (char *w = strtok_r(copy, " \t", &save); w != NULL && r->err == 0;
	     w = strtok_r(NULL, " \t", &save)) {
		if (strcmp(w, "+") == 0 || strcmp(w, "-") == 0) {
			sign = *w;
			continue;
		}
		if (signs && sign == 0)
			conf_add_diag(r->c, CONF_ERROR, e->line,
				      "%s: \"%s\" needs a \"+ \" (include) or \"- \" (exclude) before it; "
				      "other rules are not supported",
				      e->key, w);
		else if (sign == 0)
			add_rule(r, f, e, w, include);
		else if (asprintf(&rule, "%c %s", sign, w) < 0)
			r->err = -ENOMEM;
		else {
			add_rule(r, f, e, rule, include);
			free(rule);
		}
		sign = 0;
	}
	if (sign != 0)
		conf_add_diag(r->c, CONF_ERROR, e->line, "%s: no pattern after the last \"%c\"", e->key,
			      sign);
	free(copy);
}

static void read_patterns(struct reading *r, struct filter *f, const char *key, bool include, bool signs)
{
	struct conf_section *s = part_of(r, key);
	const struct conf_entry *e;

	for (int nth = 1; r->err == 0 && (e = conf_get(s, key, nth)) != NULL; nth++)
		if (has_text(r, e))
			add_words(r, f, e, include, signs);
}

static void read_pattern_files(struct reading *r, const char *key, bool include)
{
	struct conf_section *s = part_of(r, key);
	const struct conf_entry *e;

	for (int nth = 1; r->err == 0 && (e = conf_get(s, key, nth)) != NULL; nth++) {
		char *file = abs_path(r, e);
		int err, bad;

		if (file == NULL)
			continue;
		err = filter_add_file(&r->m->filter, file, include, &bad);
		if (err == -ENOMEM)
			r->err = err;
		else if (bad > 0)
			conf_add_diag(r->c, CONF_ERROR, e->line, "%s = %s: its line %d is no pattern", e->key, file, bad);
		else if (err != 0)
			conf_add_diag(r->c, CONF_ERROR, e->line, "%s = %s: cannot be read: %s", e->key, file,
				      err_text(err));
		free(file);
	}
}

/* In the order of rsyncd.conf(5), whatever their order in the file. */
static void read_filters(struct reading *r)
{
	read_patterns(r, &r->m->filter, "filter", false, true);
	read_pattern_files(r, "include from", true);
	read_patterns(r, &r->m->filter, "include", true, false);
	read_pattern_files(r, "exclude from", false);
	read_patterns(r, &r->m->filter, "exclude", false, false);
	read_patterns(r, &r->m->dont_compress, "dont compress", false, false);
}

/* --- a section --- */

static void read_paths(struct reading *r)
{
	struct mirror *m = r->m;
	const struct conf_entry *e = own(r, "source");
	char *dir;

	if (e == NULL)
		conf_add_diag(r->c, CONF_ERROR, r->s->line,
			      "mirror [%s] has no source: add a line source = DIRECTORY", m->name);
	m->source = abs_path(r, e);
	e = own(r, "mountpoint");
	m->mountpoint = abs_path(r, e);
	if (m->mountpoint == NULL && m->source != NULL)
		m->mountpoint = keep(r, strdup(m->source));
	e = find(r, "state dir");
	dir = e != NULL ? abs_path(r, e) : keep(r, strdup(STATE_DIR));
	if (dir != NULL && asprintf(&m->state_dir, "%s/%s", dir, m->name) < 0) {
		m->state_dir = NULL;
		r->err = -ENOMEM;
	}
	free(dir);
	e = find(r, "log file");
	m->log_file = abs_path(r, e);
	if (m->source != NULL && m->state_dir != NULL && strcmp(m->source, "/") != 0 &&
	    path_within(m->source + 1, m->state_dir + 1))
		conf_add_diag(r->c, CONF_ERROR, r->s->line,
			      "mirror [%s]: the state directory %s lies in the source; it would mirror its "
			      "own journal: set state dir",
			      m->name, m->state_dir);
}

static void read_options(struct reading *r)
{
	static const char *const compress[] = {"auto", "none", "zlib", "zstd", NULL};
	static const char *const sync[] = {"fsync", "interval", "never", NULL};
	static const char *const three[] = {"auto", "yes", "no", NULL};
	struct mirror *m = r->m;
	const struct conf_entry *e;
	long long n;
	int i;

	(void)conf_bool(r->c, find(r, "delete"), &m->del);
	(void)conf_bool(r->c, find(r, "shared source"), &m->shared_source);
	(void)conf_bool(r->c, find(r, "allow other"), &m->allow_other);
	(void)conf_bool(r->c, find(r, "nfs export"), &m->nfs_export);
	(void)conf_size(r->c, find(r, "bwlimit"), &m->bwlimit);
	if (conf_num(r->c, find(r, "delete guard"), 0, 100, (n = m->delete_guard, &n)) == 0)
		m->delete_guard = (int)n;
	if (conf_num(r->c, find(r, "timeout"), 1, 86400, (n = m->timeout, &n)) == 0)
		m->timeout = (int)n;
	e = find(r, "journal limit");
	if (conf_size(r->c, e, &m->journal_limit) == 0 && m->journal_limit < JOURNAL_LIMIT_MIN)
		conf_add_diag(r->c, CONF_ERROR, e->line, "%s = %s: must be at least 1M", e->key, e->value);
	if ((e = find(r, "compress")) != NULL && (i = one_of(r, e, compress)) >= 0)
		m->compress = (enum mirror_compress)i;
	if ((e = find(r, "journal sync")) != NULL && (i = one_of(r, e, sync)) >= 0)
		m->journal_sync = (enum mirror_sync)i;
	i = 0;
	if ((e = find(r, "io uring")) != NULL && (i = one_of(r, e, three)) < 0)
		i = 0;
	m->io_uring = keep(r, strdup(three[i]));
}

void mirror_defaults(struct mirror *m)
{
	memset(m, 0, sizeof(*m));
	filter_init(&m->filter);
	filter_init(&m->dont_compress);
	m->del = true;
	m->delete_guard = DELETE_GUARD;
	m->journal_limit = JOURNAL_LIMIT;
	m->allow_other = geteuid() == 0;
	m->timeout = TIMEOUT;
}

static void check_name(struct reading *r)
{
	const char *name = r->m->name;

	if (*name == '\0') /* reported by the reader */
		return;
	if (!path_name_valid(name) || *name == '.' || *name == '-' || strlen(name) > MIRROR_NAME_MAX)
		conf_add_diag(r->c, CONF_ERROR, r->s->line,
			      "[%s] cannot be the name of a mirror: it names a directory, so no slash, no "
			      "leading dot or dash, at most "
			      "%d bytes",
			      name, MIRROR_NAME_MAX);
}

static int read_section(struct mirror *m, struct conf *c, struct conf_section *s)
{
	struct reading r = {.c = c, .global = &c->sections[0], .s = s, .m = m};

	mirror_defaults(m);
	m->name = keep(&r, strdup(s->name));
	if (m->name == NULL)
		return r.err;
	check_name(&r);
	read_paths(&r);
	read_targets(&r);
	read_password_file(&r);
	read_filters(&r);
	read_options(&r);
	return r.err;
}

static int read_all(struct mirror *m, struct conf *c, const char *name, bool *found)
{
	int r = 0;

	for (size_t i = 1; i < c->nsections && r == 0; i++) {
		struct mirror one;

		r = read_section(&one, c, &c->sections[i]);
		if (name != NULL && !*found && strcmp(c->sections[i].name, name) == 0) {
			*found = true;
			*m = one;
		} else
			mirror_release(&one);
	}
	check_unknown(c);
	return r;
}

static int not_found(struct conf *c, const char *name)
{
	size_t before = c->nerrors;
	char list[256] = "";

	for (size_t i = 1; i < c->nsections; i++) {
		size_t n = strlen(list);

		snprintf(list + n, sizeof(list) - n, "%s%s", n > 0 ? ", " : "", c->sections[i].name);
	}
	conf_add_diag(c, CONF_ERROR, 0, "there is no mirror [%s]; the file has: %s", name,
		      *list != '\0' ? list : "none");
	return before > 0 ? E_CONF : -ENOENT;
}

int mirror_load(struct mirror *m, struct conf *c, const char *file, const char *name)
{
	bool found = false;
	int r;

	memset(m, 0, sizeof(*m));
	r = conf_read(c, file);
	if (r == 0)
		r = read_all(m, c, name, &found);
	if (r == 0 && name != NULL && !found)
		r = not_found(c, name);
	if (r == 0 && c->nerrors > 0)
		r = E_CONF;
	if (r != 0)
		mirror_release(m);
	return r;
}

void mirror_each(struct conf *c, void (*fn)(void *arg, const char *name), void *arg)
{
	for (size_t i = 1; i < c->nsections; i++)
		if (*c->sections[i].name != '\0')
			fn(arg, c->sections[i].name);
}

static void target_release(struct mirror_target *t)
{
	free(t->url);
	free(t->user);
	free(t->host);
	free(t->module);
	memset(t, 0, sizeof(*t));
}

void mirror_release(struct mirror *m)
{
	for (int i = 0; i < m->ntargets; i++)
		target_release(&m->targets[i]);
	free(m->targets);
	free(m->name);
	free(m->source);
	free(m->mountpoint);
	free(m->state_dir);
	free(m->password_file);
	free(m->log_file);
	free(m->io_uring);
	filter_release(&m->filter);
	filter_release(&m->dont_compress);
	memset(m, 0, sizeof(*m));
}
