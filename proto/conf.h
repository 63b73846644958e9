/* SPDX-License-Identifier: BSD-2-Clause
 * The grammar of rsyncd.conf: [section], key = value, # or ; comments on lines of their own,
 * backslash continuation. Key names ignore case, blanks and underscores ("hosts allow" = "HostsAllow").
 * [global] goes back to the first part. &include and &merge are errors.
 * The reader keeps every line's number; meaning is checked by the owner of the keys, who reports
 * through conf_diag. Nothing is ever ignored silently. */
#ifndef TANDEM_CONF_H
#define TANDEM_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_FILE_MAX (4u << 20) /* bytes of one file */

struct conf_entry {
	char *key;   /* lower case, one blank between words: "hosts allow" */
	char *value; /* without surrounding blanks; "" when the line has no value; NULL when it has no '=' */
	int line;    /* 1 is the first line */
	bool used;   /* set by conf_get; what stays false is an unknown key */
};

struct conf_section {
	char *name; /* NULL: the part before the first section */
	int line;
	struct conf_entry *entries;
	size_t nentries;
};

enum conf_severity { CONF_NOTICE, CONF_ERROR };

struct conf_diag {
	enum conf_severity severity;
	int line;   /* 0: the file as a whole */
	char *text; /* what is wrong and the remedy */
};

struct conf {
	char *file;
	struct conf_section *sections; /* sections[0] is the global part, always there */
	size_t nsections;
	struct conf_diag *diags; /* in order of discovery */
	size_t ndiags;
	size_t nerrors; /* diags with CONF_ERROR */
};

/* Read a file. Syntax that is wrong becomes a diagnostic: text after a section header ("[a] # x"),
 * a line without '=', an unterminated header, a section of the same name twice.
 * Returns 0 (see c->nerrors) or -errno when it cannot be read. Always release. */
int conf_read(struct conf *c, const char *file);
void conf_release(struct conf *c);
/* Add a diagnostic at a line, once: the same text at the same line is not repeated. */
void conf_add_diag(struct conf *c, enum conf_severity sev, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Print all diagnostics to standard error as "FILE:LINE: error: TEXT"; returns c->nerrors. */
size_t conf_print(const struct conf *c);
/* Find a section by name, or NULL. */
struct conf_section *conf_section(struct conf *c, const char *name);
/* Find the entry number nth of key in s and mark it used, or NULL. nth 0 gives the last one written
 * (the one that counts for single values) and marks all; 1, 2, ... the first, second ... in file order. */
struct conf_entry *conf_get(struct conf_section *s, const char *key, int nth);

/* Values. Each returns 0, or E_CONF after adding a diagnostic that names key, value and what is allowed;
 * a value followed by " #..." or "\t#..." is such an error, with the remedy to move the comment to its own line.
 * e NULL (the key is not there) leaves *out alone and returns 0. */
int conf_bool(struct conf *c, const struct conf_entry *e, bool *out);
int conf_num(struct conf *c, const struct conf_entry *e, long long min, long long max, long long *out);
/* Bytes with an optional K, M, G or T (powers of 1024). */
int conf_size(struct conf *c, const struct conf_entry *e, uint64_t *out);
/* Add the trailing-comment diagnostic if e->value has one. Returns 0 or E_CONF. */
int conf_check_comment(struct conf *c, const struct conf_entry *e);

#endif
