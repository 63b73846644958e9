/* SPDX-License-Identifier: BSD-2-Clause
 * The parts of a mirror that do not need a file: target URLs, passwords, the mirror of a command line. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <xxhash.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/mirror_int.h"
#include "proto/path.h"

#define SCHEME	     "tandem://"
#define PORT	     8730
#define PASSWORD_MAX 4096 /* bytes of a password file */

static int __attribute__((format(printf, 4, 5))) fail(char *why, size_t size, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return err;
}

/* --- URLs --- */

static int bad_scheme(const char *url, char *why, size_t size)
{
	const char *colons = strstr(url, "::");

	if (strncmp(url, "rsync://", 8) == 0)
		return fail(why, size, E_CONF,
			    "a target speaks tandem's own protocol: write " SCHEME "%s with tandemd's port",
			    url + 8);
	if (colons != NULL && strchr(url, '/') == NULL)
		return fail(why, size, E_CONF, "write it as " SCHEME "%.*s/%s", (int)(colons - url), url,
			    colons + 2);
	return fail(why, size, E_CONF, "a target looks like " SCHEME "USER@HOST[:PORT]/MODULE");
}

/* "" or ":PORT" */
static int parse_port(int *port, const char *s, size_t n, char *why, size_t size)
{
	long v = 0;

	*port = PORT;
	if (n == 0)
		return 0;
	if (*s != ':')
		return fail(why, size, E_CONF, "\"%.*s\" after the host: only :PORT may stand there", (int)n,
			    s);
	for (size_t i = 1; i < n; i++) {
		if (!isdigit((unsigned char)s[i]) || v > 65535)
			v = 65536;
		else
			v = v * 10 + (s[i] - '0');
	}
	if (n == 1 || v < 1 || v > 65535)
		return fail(why, size, E_CONF, "\"%.*s\" is no port: a number from 1 to 65535", (int)n - 1,
			    s + 1);
	*port = (int)v;
	return 0;
}

static bool printable(const char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s <= 0x20 || *s == 0x7f)
			return false;
	return true;
}

/* [USER@]HOST[:PORT] in n bytes. */
static int parse_authority(struct mirror_target *t, const char *s, size_t n, char *why, size_t size)
{
	const char *at = memrchr(s, '@', n), *host = at != NULL ? at + 1 : s, *end = s + n, *close;
	size_t ulen = at != NULL ? (size_t)(at - s) : 0, hlen;

	if (at != NULL && ulen == 0)
		return fail(why, size, E_CONF, "nothing before the '@': the user is missing");
	if (memchr(s, ':', ulen) != NULL)
		return fail(why, size, E_CONF,
			    "a password does not belong into a URL, where everybody can read it: put it into "
			    "the password file");
	if (host < end && *host == '[') {
		close = memchr(host, ']', (size_t)(end - host));
		if (close == NULL)
			return fail(why, size, E_CONF, "the ']' after the IPv6 address is missing");
		host++;
		hlen = (size_t)(close - host);
		close++;
	} else {
		close = memchr(host, ':', (size_t)(end - host));
		if (close != NULL && memchr(close + 1, ':', (size_t)(end - close - 1)) != NULL)
			return fail(why, size, E_CONF, "an IPv6 address stands in brackets: [%.*s]",
				    (int)(end - host), host);
		if (close == NULL)
			close = end;
		hlen = (size_t)(close - host);
	}
	if (hlen == 0)
		return fail(why, size, E_CONF, "the host is missing");
	t->user = strndup(s, ulen);
	t->host = strndup(host, hlen);
	if (t->user == NULL || t->host == NULL)
		return fail(why, size, -ENOMEM, "no memory");
	return parse_port(&t->port, close, (size_t)(end - close), why, size);
}

static int parse_url(struct mirror_target *t, const char *url, char *why, size_t size)
{
	const char *s = url + strlen(SCHEME), *slash;
	size_t n;

	if (strncmp(url, SCHEME, strlen(SCHEME)) != 0)
		return bad_scheme(url, why, size);
	if (!printable(url))
		return fail(why, size, E_CONF,
			    "blanks and control characters do not belong into a URL; one line per target");
	n = strcspn(s, "/");
	slash = s + n;
	slash += *slash == '/';
	t->url = strdup(url);
	t->module = strdup(slash);
	if (t->url == NULL || t->module == NULL)
		return fail(why, size, -ENOMEM, "no memory");
	if (*slash != '\0' && slash[strlen(slash) - 1] == '/')
		t->module[strlen(slash) - 1] = '\0';
	if (strchr(t->module, '/') != NULL)
		return fail(why, size, E_CONF,
			    "\"%s\" is no module: a target is a whole module, not a directory in one; make a "
			    "module of it",
			    t->module);
	return parse_authority(t, s, n, why, size);
}

static void target_free(struct mirror_target *t)
{
	free(t->url);
	free(t->user);
	free(t->host);
	free(t->module);
	memset(t, 0, sizeof(*t));
}

int mirror_parse_url(struct mirror_target *t, const char *url, char *why, size_t size)
{
	int r;

	memset(t, 0, sizeof(*t));
	r = parse_url(t, url, why, size);
	if (r != 0)
		target_free(t);
	return r;
}

int mirror_add_target(struct mirror *m, const char *url, char *why, size_t size)
{
	struct mirror_target *v = reallocarray(m->targets, (size_t)m->ntargets + 1, sizeof(*v));
	int r;

	if (v == NULL)
		return fail(why, size, -ENOMEM, "no memory");
	m->targets = v;
	r = mirror_parse_url(&v[m->ntargets], url, why, size);
	if (r == 0)
		m->ntargets++;
	return r;
}

/* --- passwords --- */

/* A line of a secrets file: a name, a colon, something. */
static bool looks_like_secrets(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-@");

	return n > 0 && s[n] == ':';
}

static int check_password(const char *file, char *text, size_t n, char *why, size_t size)
{
	size_t line = strcspn(text, "\r\n");

	if (strlen(text) != n)
		return fail(why, size, E_CONF, "%s holds a NUL byte; it should be one line of text", file);
	if (looks_like_secrets(text))
		return fail(why, size, E_CONF,
			    "%s looks like USER:PASSWORD; this file holds the password alone, the user "
			    "stands in the target's URL (and "
			    "a password cannot hold such a colon)",
			    file);
	if (text[line + strspn(text + line, " \t\r\n")] != '\0')
		return fail(why, size, E_CONF, "%s has more than one line; it holds the password alone",
			    file);
	if (line == 0)
		return fail(why, size, E_CONF, "%s is empty; write the password into it", file);
	text[line] = '\0';
	return 0;
}

int mirror_read_password(const char *file, char **password, char *why, size_t size)
{
	char *text = NULL;
	size_t n = 0;
	int r;

	*password = NULL;
	if (size > 0)
		why[0] = '\0';
	r = fio_check_secret(file, why, size);
	if (r != 0) {
		if (size > 0 && why[0] == '\0')
			(void)fail(why, size, r, "%s: %s", file, err_text(r));
		return r;
	}
	r = fio_slurp(AT_FDCWD, file, PASSWORD_MAX, &text, &n);
	if (r != 0)
		return fail(why, size, r == E_LIMIT ? E_CONF : r, "%s: %s", file, err_text(r));
	r = check_password(file, text, n, why, size);
	if (r != 0) {
		explicit_bzero(text, n);
		free(text);
		return r;
	}
	*password = text;
	return 0;
}

/* --- the command line --- */

/* Append a component to dir, whose symbolic links are resolved. Returns 0 or -ENAMETOOLONG. */
static int enter(char dir[PATH_MAX], const char *name, size_t n)
{
	char real[PATH_MAX];
	size_t len = strlen(dir);

	if (n == 0 || (n == 1 && *name == '.'))
		return 0;
	if (n == 2 && strncmp(name, "..", 2) == 0) {
		*strrchr(dir, '/') = '\0';
		return 0;
	}
	if (len + 1 + n >= PATH_MAX)
		return -ENAMETOOLONG;
	dir[len] = '/';
	memcpy(dir + len + 1, name, n);
	dir[len + 1 + n] = '\0';
	if (realpath(dir, real) != NULL)
		strlcpy(dir, strcmp(real, "/") == 0 ? "" : real, PATH_MAX);
	return 0;
}

/* The real path of what the user typed, without "." and "..", which a configuration file may not hold; what it names need not exist yet. */
static char *typed_path(const char *p)
{
	char dir[PATH_MAX] = "";

	if (*p != '/' && realpath(".", dir) == NULL) /* NOLINT(clang-analyzer-core.NullDereference): p is an argument */
		return NULL;
	if (strcmp(dir, "/") == 0)
		dir[0] = '\0';
	for (size_t n; *p != '\0'; p += n + (p[n] == '/')) {
		n = strcspn(p, "/");
		if (*dir == '\0' && n == 2 && strncmp(p, "..", 2) == 0)
			continue; /* above the root is the root */
		if (enter(dir, p, n) != 0)
			return NULL;
	}
	return strdup(*dir != '\0' ? dir : "/");
}

/* Say whether the value of a line of a configuration file can be s. */
static bool line_can_hold(const char *s)
{
	size_t n = strlen(s);

	for (size_t i = 0; i + 1 < n; i++)
		if ((s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\v' || s[i] == '\f') && s[i + 1] == '#')
			return false;
	return strchr(s, '\n') == NULL && (n == 0 || strchr(" \t\r\v\f\\", s[n - 1]) == NULL);
}

static char *default_state_dir(void)
{
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	const struct passwd *pw;
	char *out = NULL;
	int n;

	if (geteuid() == 0)
		return strdup("/var/lib/tandem");
	if (home == NULL || *home != '/')
		home = (pw = getpwuid(geteuid())) != NULL ? pw->pw_dir : "/";
	if (xdg != NULL && *xdg == '/')
		n = asprintf(&out, "%s/tandem", xdg);
	else
		n = asprintf(&out, "%s/.local/state/tandem", home);
	return n < 0 ? NULL : out;
}

/* Say whether the state directory dir/name is another source's: of a mirror in a configuration file, or, by what tandemfs wrote into it, of
 * another source of a command line. */
static bool others_state(const char *dir, const char *name, const char *source)
{
	const struct conf_entry *e = NULL;
	struct conf_section *s;
	struct conf c;
	char *file;
	bool others;
	int r;

	if (asprintf(&file, "%s/%s/mirror.conf", dir, name) < 0)
		return false;
	r = conf_read(&c, file);
	s = r == 0 ? conf_section(&c, name) : NULL;
	if (s != NULL)
		e = conf_get(s, "source", 0);
	others = r == 0 && (e == NULL || e->value == NULL || strcmp(e->value, source) != 0);
	conf_release(&c);
	free(file);
	if (r != -ENOENT || asprintf(&file, "%s/%s/identity", dir, name) < 0)
		return others;
	others = access(file, F_OK) == 0;
	free(file);
	return others;
}

static bool exists(const char *dir, const char *name)
{
	char *path;
	bool there;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return false;
	there = access(path, F_OK) == 0;
	free(path);
	return there;
}

/* Say whether base can be the name of a section of a configuration file as it is. */
static bool plain_name(const char *base)
{
	size_t n = strlen(base);

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)base[i] < 0x20 || base[i] == 0x7f || base[i] == ']' || (base[i] == ' ' && (i == 0 || i + 1 == n || base[i + 1] == ' ')))
			return false;
	return n <= MIRROR_NAME_MAX && strcasecmp(base, "global") != 0;
}

/* Name the mirror of m->source: the last component, and, when that is taken by another source or cannot be a name, digits that its path
 * gives; these for ever after. */
static char *args_name(const struct mirror *m, const char *dir)
{
	char part[MIRROR_NAME_MAX - 8]; /* leaves room for the digits */
	const char *base = path_base(m->source);
	bool plain;
	char *name;

	base += strspn(base, ".-/"); /* it names a directory of ours */
	if (*base == '\0')
		base = "root";
	plain = plain_name(base);
	strlcpy(part, base, sizeof(part));
	for (char *s = part; *s != '\0' && !plain; s++)
		if ((unsigned char)*s <= 0x20 || *s == 0x7f || *s == ']')
			*s = '_';
	if (asprintf(&name, "%s-%08x", part, (unsigned)XXH3_64bits(m->source, strlen(m->source))) < 0)
		return NULL;
	if (!plain || exists(dir, name) || others_state(dir, base, m->source))
		return name;
	free(name);
	return strdup(base);
}

static int args_paths(struct mirror *m, const char *source, const char *mountpoint, const char *state_dir,
		      char *why, size_t size)
{
	char *dir;
	int n;

	m->source = realpath(source, NULL);
	if (m->source == NULL)
		return fail(why, size, -errno, "the source %s: %s", source, strerror(errno));
	m->mountpoint = mountpoint != NULL ? typed_path(mountpoint) : strdup(m->source);
	dir = state_dir != NULL ? typed_path(state_dir) : default_state_dir();
	m->name = dir != NULL ? args_name(m, dir) : NULL;
	if (m->mountpoint == NULL || m->name == NULL || dir == NULL) {
		free(dir);
		return fail(why, size, -ENOMEM, "no memory");
	}
	n = asprintf(&m->state_dir, "%s/%s", dir, m->name);
	free(dir);
	if (n < 0) {
		m->state_dir = NULL;
		return fail(why, size, -ENOMEM, "no memory");
	}
	if (path_within(m->source + 1, m->state_dir + 1))
		return fail(why, size, E_CONF,
			    "the state directory %s lies in the source %s; it would mirror its own journal: "
			    "choose another one",
			    m->state_dir, m->source);
	return 0;
}

static bool same_module(const struct mirror_target *a, const struct mirror_target *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0 && strcmp(a->module, b->module) == 0;
}

bool mirror_has_target(const struct mirror *m, const struct mirror_target *t)
{
	for (const struct mirror_target *o = m->targets; o < t; o++)
		if (same_module(o, t))
			return true;
	return false;
}

/* What the replicator is started with is a configuration file that tandemfs writes. */
static int args_writable(const struct mirror *m, char *why, size_t size)
{
	const char *const paths[] = {m->source, m->mountpoint, m->state_dir, m->password_file};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (!line_can_hold(paths[i]))
			return fail(why, size, E_CONF,
				    "\"%s\": a path with a line break, a '#' after a blank, or a blank or backslash at its end "
				    "cannot stand in a configuration file, and the replicator gets it in one: rename it",
				    paths[i]);
	return 0;
}

static int args_targets(struct mirror *m, const char *const *urls, int nurls, char *why, size_t size)
{
	char text[256];

	if (nurls < 1 || nurls > MIRROR_TARGETS_MAX)
		return fail(why, size, E_CONF, "give 1 to %d targets: --target " SCHEME "USER@HOST/MODULE",
			    MIRROR_TARGETS_MAX);
	for (int i = 0; i < nurls; i++) {
		const struct mirror_target *t;
		int r = mirror_add_target(m, urls[i], text, sizeof(text));

		if (r != 0)
			return fail(why, size, r, "--target %s: %s", urls[i], text);
		t = &m->targets[i];
		if (*t->user == '\0' || *t->module == '\0')
			return fail(why, size, E_CONF,
				    "--target %s: the %s is missing: " SCHEME "USER@HOST/MODULE", urls[i],
				    *t->user == '\0' ? "user" : "module");
		if (mirror_has_target(m, t))
			return fail(why, size, E_CONF, "--target %s: this module is a target already", urls[i]);
	}
	return 0;
}

int mirror_from_args(struct mirror *m, const char *const *urls, int nurls, const char *password_file,
		     const char *source, const char *mountpoint, const char *state_dir, char *why,
		     size_t size)
{
	int r;

	mirror_defaults(m);
	if (size > 0)
		why[0] = '\0';
	r = args_paths(m, source, mountpoint, state_dir, why, size);
	if (r == 0)
		r = args_targets(m, urls, nurls, why, size);
	if (r == 0 && password_file == NULL)
		r = fail(why, size, E_CONF,
			 "--password-file is missing: a file of mode 600 with the password alone");
	if (r == 0) {
		m->password_file = typed_path(password_file);
		m->io_uring = strdup("auto");
		if (m->password_file == NULL || m->io_uring == NULL)
			r = fail(why, size, -ENOMEM, "no memory");
		else
			r = args_writable(m, why, size);
	}
	if (r != 0)
		mirror_release(m);
	return r;
}
