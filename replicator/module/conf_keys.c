/* SPDX-License-Identifier: BSD-2-Clause
 * The keys that modules.conf knows: all of rsyncd.conf's and our own. */
#include "config.h"

#include <string.h>
#include <strings.h>

#include "replicator/module/modules_conf.h"

enum scope { GLOBAL = 1, MODULE = 2, BOTH = 3 }; /* module keys may stand first as defaults */

struct known {
	const char *name;
	enum scope scope;
	const char *notice; /* no meaning here, and why */
	const char *error;  /* refused unless switched off, and why */
};

#define NO_HOOKS "tandemd runs no programs; let the service manager or a timer run them"
#define TLS_NOTE "every connection is TLS 1.3 here"

static const struct known known[] = {
    /* work */
    {"port", GLOBAL, NULL, NULL},
    {"rsync port", GLOBAL, NULL, NULL},
    {"address", GLOBAL, NULL, NULL},
    {"state dir", GLOBAL, NULL, NULL},
    {"motd file", GLOBAL, NULL, NULL},
    {"log file", BOTH, NULL, NULL},
    {"pid file", GLOBAL, NULL, NULL},
    {"listen backlog", GLOBAL, NULL, NULL},
    {"max unauthenticated", GLOBAL, NULL, NULL},
    {"max unauthenticated per address", GLOBAL, NULL, NULL},
    {"comment", MODULE, NULL, NULL},
    {"path", MODULE, NULL, NULL},
    {"create path", BOTH, NULL, NULL},
    {"use chroot", BOTH, NULL, NULL},
    {"max connections", BOTH, NULL, NULL},
    {"read only", BOTH, NULL, NULL},
    {"list", BOTH, NULL, NULL},
    {"uid", BOTH, NULL, NULL},
    {"gid", BOTH, NULL, NULL},
    {"auth users", BOTH, NULL, NULL},
    {"secrets file", BOTH, NULL, NULL},
    {"strict modes", BOTH, NULL, NULL},
    {"hosts allow", BOTH, NULL, NULL},
    {"hosts deny", BOTH, NULL, NULL},
    {"timeout", BOTH, NULL, NULL},
    {"max verbosity", BOTH, NULL, NULL},
    {"exclude", BOTH, NULL, NULL},
    {"include", BOTH, NULL, NULL},
    {"filter", BOTH, NULL, NULL},
    {"exclude from", BOTH, NULL, NULL},
    {"include from", BOTH, NULL, NULL},
    /* without meaning */
    {"lock file", BOTH, "has no effect: connections are counted in the daemon itself, without a lock file",
     NULL},
    {"ignore errors", BOTH,
     "has no effect: a file that cannot be applied never stops the others, and deletions are "
     "never guessed",
     NULL},
    {"ignore nonreadable", BOTH,
     "has no effect: the source decides what is mirrored, and reports what it cannot read", NULL},
    {"transfer logging", BOTH,
     "has no effect: use \"tandemctl journal --follow\" on the source to see every change", NULL},
    {"log format", BOTH, "has no effect: use \"tandemctl journal --format\" on the source", NULL},
    {"syslog facility", BOTH, "has no effect: without a log file messages go to facility daemon", NULL},
    {"syslog tag", BOTH, "has no effect: messages are tagged tandemd", NULL},
    {"dont compress", BOTH, "belongs to the source: it compresses, see \"dont compress\" in mirrors.conf",
     NULL},
    {"numeric ids", BOTH, "has no effect: owners are always numbers here", NULL},
    {"open noatime", BOTH, "has no effect: access times are not mirrored", NULL},
    {"reverse lookup", BOTH, "has no effect: names of peers are never looked up", NULL},
    {"forward lookup", BOTH, "has no effect: names of peers are never looked up", NULL},
    {"socket options", BOTH, "has no effect: keepalive, TCP_NODELAY and a user time-out are always set",
     NULL},
    {"auth digest", BOTH, "has no effect: " TLS_NOTE ", with a key derived by scrypt", NULL},
    {"insecure links", BOTH, "has no effect: symlinks are mirrored and never followed", NULL},
    {"temp dir", BOTH,
     "has no effect: new versions are built in .tandem/tmp inside the module, so that a rename can "
     "put them in place",
     NULL},
    {"refuse options", BOTH, "has no effect: clients have no options here", NULL},
    {"ssl", BOTH, "has no effect: " TLS_NOTE, NULL},
    {"munge symlinks", BOTH, NULL,
     "a mirror keeps symlinks as they are; they are never followed here. Remove this line"},
    {"write only", BOTH, NULL,
     "a module that cannot be read cannot be compared with its source. Remove this line"},
    {"fake super", BOTH,
     "has no effect: owners are not kept in attributes; run the module as root (no uid) to keep owners, with "
     "a uid they are not mirrored",
     NULL},
    {"charset", BOTH, NULL, "names are mirrored byte by byte. Remove this line"},
    {"name converter", BOTH, NULL, "owners are mirrored as numbers. Remove this line"},
    {"incoming chmod", BOTH, NULL, "a mirror keeps modes exactly. Remove this line"},
    {"outgoing chmod", BOTH, NULL, "a mirror keeps modes exactly. Remove this line"},
    {"early exec", BOTH, NULL, NO_HOOKS},
    {"pre-xfer exec", BOTH, NULL, NO_HOOKS},
    {"post-xfer exec", BOTH, NULL, NO_HOOKS},
    {"daemon chroot", GLOBAL, NULL,
     "confine the service with its systemd unit instead, or use chroot in the modules"},
    {"daemon uid", GLOBAL, NULL, "start tandemd as that user instead, or set uid in the modules"},
    {"daemon gid", GLOBAL, NULL, "start tandemd as that group instead, or set gid in the modules"},
    {"proxy protocol", GLOBAL, NULL, "not supported: let the source connect directly"},
    {"proxy protocol hosts", GLOBAL, "has no effect: the proxy protocol is not supported", NULL},
    {"haproxy protocol", GLOBAL, NULL, "not supported: let the source connect directly"},
};
#define NKNOWN (sizeof(known) / sizeof(*known))

/* Names ignore blanks and underscores: "AuthUsers" is "auth users". */
static bool same(const char *a, const char *b)
{
	for (;; a++, b++) {
		a += strspn(a, " _");
		b += strspn(b, " _");
		if (*a != *b || !*a)
			return *a == *b;
	}
}

static const struct known *find(const char *key)
{
	for (size_t i = 0; i < NKNOWN; i++)
		if (same(known[i].name, key))
			return &known[i];
	return NULL;
}

/* Edit distance of two short words, at most 64 bytes. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[65], n = (unsigned)strnlen(a, 64), m = (unsigned)strnlen(b, 64);
	for (unsigned j = 0; j <= m; j++)
		row[j] = j;
	for (unsigned i = 1; i <= n; i++) {
		unsigned diagonal = row[0];
		row[0] = i;
		for (unsigned j = 1; j <= m; j++) {
			unsigned up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
			best = best < up + 1 ? best : up + 1;
			best = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
			diagonal = up;
			row[j] = best;
		}
	}
	return row[m];
}

static const char *nearest(const char *key)
{
	unsigned best = 4;
	const char *name = NULL;
	size_t n = strlen(key);
	for (size_t i = 0; i < NKNOWN; i++) {
		size_t m = strlen(known[i].name);
		if ((n > m ? n - m : m - n) >= best) /* at least so far away */
			continue;
		unsigned d = distance(key, known[i].name);
		if (d < best) {
			best = d;
			name = known[i].name;
		}
	}
	return name;
}

/* "no", "false", "0" or an empty value switch a refused key off. */
static bool is_off(const char *value)
{
	return !value || !*value || strcasecmp(value, "no") == 0 || strcasecmp(value, "false") == 0 ||
	       strcmp(value, "0") == 0;
}

static void check_entry(struct conf *c, const struct conf_section *s, const struct conf_entry *e)
{
	const struct known *k = find(e->key);
	if (!k && !e->value)
		return; /* reported as a line without '=' */
	if (!k) {
		const char *near = nearest(e->key);
		conf_add_diag(c, CONF_ERROR, e->line,
			      near ? "unknown key \"%s\": did you mean \"%s\"?" : "unknown key \"%s\"",
			      e->key, near);
		return;
	}
	if (s->name && !(k->scope & MODULE))
		conf_add_diag(c, CONF_ERROR, e->line, "\"%s\" belongs before the first [module]", e->key);
	else if (!s->name && !(k->scope & GLOBAL))
		conf_add_diag(c, CONF_ERROR, e->line, "\"%s\" belongs into a [module]", e->key);
	else if (k->error && !is_off(e->value))
		conf_add_diag(c, CONF_ERROR, e->line, "\"%s\" is not supported: %s", e->key, k->error);
	else if (s->name && same(k->name, "log file"))
		conf_add_diag(c, CONF_NOTICE, e->line,
			      "\"%s\" has no effect in a module: all have one log, that of \"log file\" before the first [module]",
			      e->key);
	else if (k->notice)
		conf_add_diag(c, CONF_NOTICE, e->line, "\"%s\" %s", e->key, k->notice);
	if (e->value && !k->notice)
		conf_check_comment(c, e);
}

void conf_keys_check(struct conf *c)
{
	for (size_t i = 0; i < c->nsections; i++)
		for (size_t j = 0; j < c->sections[i].nentries; j++)
			check_entry(c, &c->sections[i], &c->sections[i].entries[j]);
}
