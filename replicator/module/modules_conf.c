/* SPDX-License-Identifier: BSD-2-Clause
 * The meaning of modules.conf: see modules_conf.h. Module keys may stand before the first section as
 * defaults. */
#include "config.h"
#include "replicator/module/modules_conf.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/err.h"
#include "replicator/module/auth.h"

/* What all readers of values below need. */
struct reading {
	struct modules_conf *mc;
	struct conf *c;
	struct conf_section *s; /* the module's section */
	struct module_conf *m;
};

/* The module's entry, else the default before the first section. */
static struct conf_entry *lookup(struct reading *r, const char *key)
{
	struct conf_entry *e = r->s ? conf_get(r->s, key, 0) : NULL;
	return e ? e : conf_get(&r->c->sections[0], key, 0);
}

static const char *text_of(const struct conf_entry *e)
{
	return e && e->value ? e->value : NULL;
}

static void get_bool(struct reading *r, const char *key, bool *out)
{
	struct conf_entry *e = lookup(r, key);
	if (e && e->value)
		conf_bool(r->c, e, out);
}

static void get_num(struct reading *r, const char *key, long long min, long long max, long long *out)
{
	struct conf_entry *e = lookup(r, key);
	if (e && e->value)
		conf_num(r->c, e, min, max, out);
}

/* A value without a comment behind it, or NULL. */
static const char *get_text(struct reading *r, const char *key, int *line)
{
	struct conf_entry *e = lookup(r, key);
	if (line)
		*line = e ? e->line : 0;
	const char *text = text_of(e);
	return text && !conf_check_comment(r->c, e) ? text : NULL;
}

/* Call fn for every word of a list separated by blanks and commas, until it returns non-zero. */
static int each_word(const char *list, int (*fn)(struct reading *, int, char *), struct reading *r, int line)
{
	char *copy = strdup(list), *rest = copy, *word;
	int err = copy ? 0 : -ENOMEM;
	while (!err && (word = strsep(&rest, " \t,")))
		if (*word)
			err = fn(r, line, word);
	free(copy);
	return err;
}

static bool names_nothing(const char *list)
{
	return !list[strspn(list, " \t,")];
}

/* --- users, groups --- */

static bool parse_id(const char *text, unsigned long *id)
{
	char *end;
	errno = 0;
	*id = strtoul(text, &end, 10);
	return isdigit((unsigned char)*text) && !*end && !errno && *id < 0xffffffffu;
}

static int add_group(struct reading *r, int line, char *word)
{
	unsigned long id;
	struct group *g = getgrnam(word);
	struct module_conf *m = r->m;
	if (strcmp(word, "*") == 0) {
		struct passwd *pw = getpwuid(m->uid);
		int n = MODULES_GROUPS_MAX;
		if (!pw || getgrouplist(pw->pw_name, pw->pw_gid, m->groups, &n) < 0)
			conf_add_diag(r->c, CONF_ERROR, line,
				      "gid = *: the groups of uid %u are not known; name them", m->uid);
		else
			m->ngroups = n;
		return 0;
	}
	if (g)
		id = g->gr_gid;
	else if (!parse_id(word, &id)) {
		conf_add_diag(r->c, CONF_ERROR, line,
			      "gid = %s: there is no such group on this host; make it (groupadd %s) or name "
			      "another",
			      word, word);
		return 0;
	}
	if (m->ngroups < MODULES_GROUPS_MAX)
		m->groups[m->ngroups++] = (gid_t)id;
	return 0;
}

static void read_uid(struct reading *r)
{
	int line;
	unsigned long id;
	const char *text = get_text(r, "uid", &line);
	if (!text || !*text)
		return;
	struct passwd *pw = getpwnam(text);
	if (!pw && !parse_id(text, &id)) {
		conf_add_diag(r->c, CONF_ERROR, line,
			      "uid = %s: there is no such user on this host; make it (useradd -r %s) or name "
			      "another",
			      text, text);
		return;
	}
	r->m->uid = pw ? pw->pw_uid : (uid_t)id;
	r->m->gid = pw ? pw->pw_gid : (gid_t)id;
	r->m->has_uid = true;
	if (geteuid() != 0 && r->m->uid != geteuid())
		conf_add_diag(
		    r->c, CONF_ERROR, line,
		    "module [%s] asks for uid %u, but tandemd runs as uid %u and cannot change: start "
		    "it as root, or remove uid",
		    r->m->name, r->m->uid, geteuid());
}

static void read_identity(struct reading *r)
{
	int line;
	struct module_conf *m = r->m;
	m->uid = geteuid();
	m->gid = getegid();
	read_uid(r);
	const char *text = get_text(r, "gid", &line);
	if (text)
		each_word(text, add_group, r, line);
	if (m->ngroups)
		m->gid = m->groups[0];
	/* root as root keeps everything: nothing to change to */
	if (m->uid == 0 && m->has_uid)
		m->has_uid = false;
	else if (m->ngroups && m->gid != getegid())
		m->has_uid = true;
	if (geteuid() != 0)
		m->has_uid = false;
	const struct passwd *pw = getpwuid(m->uid);
	snprintf(m->who, sizeof(m->who), pw ? "uid %u (%s)" : "uid %u", m->uid, pw ? pw->pw_name : "");
}

/* --- auth users --- */

static int add_user(struct reading *r, int line, char *word)
{
	struct module_conf *m = r->m;
	enum user_right right = USER_DEFAULT;
	char *colon = strrchr(word, ':');
	if (*word == '@' || strchr(word, '/')) {
		conf_add_diag(r->c, CONF_ERROR, line,
			      "auth users: \"%s\": groups of the system are not supported; list the users",
			      word);
		return 0;
	}
	if (colon) {
		*colon++ = 0;
		if (strcasecmp(colon, "ro") == 0)
			right = USER_RO;
		else if (strcasecmp(colon, "rw") == 0)
			right = USER_RW;
		else if (strcasecmp(colon, "deny") == 0)
			right = USER_DENY;
		else
			conf_add_diag(
			    r->c, CONF_ERROR, line,
			    "auth users: \"%s:%s\": after the colon may stand ro, rw or deny (passwords "
			    "stand in the secrets file)",
			    word, colon);
	}
	struct user_rule *v = realloc(m->users, (m->nusers + 1) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	m->users = v;
	v[m->nusers] = (struct user_rule){.pattern = strdup(word), .right = right};
	m->nusers += v[m->nusers].pattern != NULL;
	return 0;
}

static void check_secrets(struct reading *r)
{
	char why[512];
	struct module_conf *m = r->m;
	if (auth_check_file(m->secrets_file, m->strict_modes, why, sizeof(why))) {
		conf_add_diag(r->c, CONF_ERROR, m->secrets_line, "secrets file: %s", why);
		return;
	}
	for (size_t i = 0; i < m->nusers; i++) {
		if (strpbrk(m->users[i].pattern, "*?[") || m->users[i].right == USER_DENY)
			continue;
		if (!auth_file_has(m->secrets_file, m->users[i].pattern, why, sizeof(why)))
			conf_add_diag(r->c, CONF_ERROR, m->secrets_line, "%s", why);
	}
}

static void read_auth(struct reading *r)
{
	int line;
	struct module_conf *m = r->m;
	const char *users = get_text(r, "auth users", &line);
	if (users)
		each_word(users, add_user, r, line);
	if (!lookup(r, "auth users") || (users && names_nothing(users)))
		conf_add_diag(r->c, CONF_ERROR, users ? line : m->line,
			      "module [%s] has no \"auth users\": nobody is let in without a password here; "
			      "add auth users = NAME and secrets file = FILE",
			      m->name);
	get_bool(r, "strict modes", &m->strict_modes);
	if (!m->strict_modes)
		conf_add_diag(r->c, CONF_NOTICE, lookup(r, "strict modes")->line,
			      "strict modes = no: the secrets file's mode is not "
			      "checked; whoever can read it can write to the module");
	m->secrets_file = get_text(r, "secrets file", &m->secrets_line);
	if (m->secrets_file && *m->secrets_file)
		check_secrets(r);
	else if (!lookup(r, "secrets file") || m->secrets_file)
		conf_add_diag(r->c, CONF_ERROR, m->secrets_file ? m->secrets_line : m->line,
			      "module [%s] has no \"secrets file\": add secrets file = FILE with a line "
			      "USER:PASSWORD, mode 600",
			      m->name);
}

/* --- hosts --- */

static int add_host(struct reading *r, int line, char *word, struct host_rules *rules, const char *key)
{
	char why[512];
	struct host_rule rule;
	if (hosts_parse(word, &rule, why, sizeof(why))) {
		conf_add_diag(r->c, CONF_ERROR, line, "%s: %s", key, why);
		return 0;
	}
	return hosts_add(rules, &rule);
}

static int add_allow(struct reading *r, int line, char *word)
{
	return add_host(r, line, word, &r->m->allow, "hosts allow");
}

static int add_deny(struct reading *r, int line, char *word)
{
	return add_host(r, line, word, &r->m->deny, "hosts deny");
}

static void read_hosts(struct reading *r)
{
	int line, deny_line;
	const char *allow = get_text(r, "hosts allow", &line);
	if (allow)
		each_word(allow, add_allow, r, line);
	if (allow && names_nothing(allow))
		conf_add_diag(r->c, CONF_ERROR, line,
			      "hosts allow names nobody; write the addresses of the sources, or * for everyone");
	const char *deny = get_text(r, "hosts deny", &deny_line);
	if (deny)
		each_word(deny, add_deny, r, deny_line);
	if (allow && deny)
		conf_add_diag(r->c, CONF_NOTICE, deny_line,
			      "hosts deny has no effect beside hosts allow: hosts allow alone means everyone "
			      "else is refused");
	else if (deny && strcmp(deny, "0.0.0.0/32") == 0)
		conf_add_diag(r->c, CONF_NOTICE, deny_line,
			      "hosts deny = 0.0.0.0/32 refuses nobody; use hosts allow with the addresses of "
			      "the sources");
}

/* --- paths --- */

static void check_dir(struct reading *r, int line)
{
	struct stat st;
	struct module_conf *m = r->m;
	if (stat(m->path, &st) == 0) {
		if (!S_ISDIR(st.st_mode))
			conf_add_diag(r->c, CONF_ERROR, line, "path = %s: is not a directory", m->path);
	} else if (errno == ENOENT && m->create_path) {
		return;
	} else if (errno == ENOENT) {
		conf_add_diag(
		    r->c, CONF_ERROR, line,
		    "path = %s: does not exist (is its disk mounted?); make it (mkdir -p %s), or set "
		    "create path = yes",
		    m->path, m->path);
	} else {
		conf_add_diag(r->c, CONF_ERROR, line, "path = %s: %s", m->path, err_text(-errno));
	}
}

/* Say whether two paths are one directory, whatever links lead there; what does not exist yet (create path) is known by its name. */
static bool same_dir(const char *a, const char *b)
{
	struct stat x, y;
	size_t n = strlen(a);
	if (stat(a, &x) == 0 && stat(b, &y) == 0)
		return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
	while (n > 1 && a[n - 1] == '/')
		n--;
	return strncmp(a, b, n) == 0 && strspn(b + n, "/") == strlen(b + n);
}

/* Say whether b lies below a, whatever links lead there. */
static bool lies_in(const char *a, const char *b)
{
	char *x = realpath(a, NULL), *y = realpath(b, NULL);
	size_t n = x ? strlen(x) : 0;
	bool in = x && y && strncmp(x, y, n) == 0 && (n == 1 ? y[1] != 0 : y[n] == '/');
	free(x);
	free(y);
	return in;
}

static void check_nesting(struct reading *r, int line, const struct module_conf *outer, const struct module_conf *inner)
{
	if (lies_in(outer->path, inner->path))
		conf_add_diag(r->c, CONF_NOTICE, line,
			      "path = %s of module [%s] lies in the directory of module [%s]: what the source of [%s] does not have is "
			      "deleted there; exclude it in [%s], or give it a place of its own",
			      inner->path, inner->name, outer->name, outer->name, outer->name);
}

static void check_overlap(struct reading *r, int line)
{
	for (struct module_conf *o = r->mc->modules; o < r->m; o++) {
		if (!o->path || *o->path != '/')
			continue;
		check_nesting(r, line, o, r->m);
		check_nesting(r, line, r->m, o);
		if (same_dir(o->path, r->m->path))
			conf_add_diag(
			    r->c, CONF_ERROR, line,
			    "path = %s: module [%s] (line %d) has the same directory; two modules cannot "
			    "share one",
			    r->m->path, o->name, o->line);
	}
}

static void read_path(struct reading *r)
{
	struct conf_entry *e = conf_get(r->s, "path", 0);
	struct module_conf *m = r->m;
	if (!e || !e->value || !*e->value) {
		conf_add_diag(r->c, CONF_ERROR, e ? e->line : m->line,
			      "module [%s] has no path: add path = /DIRECTORY", m->name);
		return;
	}
	if (conf_check_comment(r->c, e))
		return;
	m->path = e->value;
	if (*m->path != '/')
		conf_add_diag(r->c, CONF_ERROR, e->line, "path = %s: must be an absolute path", m->path);
	else if (strchr(m->path, '%'))
		conf_add_diag(r->c, CONF_ERROR, e->line,
			      "path = %s: variables are not supported; write the directory itself", m->path);
	else {
		check_dir(r, e->line);
		check_overlap(r, e->line);
	}
}

/* --- filters --- */

/* The patterns of a line stand beside each other, and a comma belongs to its pattern; "+" and "-" belong to the word after them. */
static void add_patterns(struct reading *r, int line, const char *list, bool include)
{
	char *copy = strdup(list), *rest = copy, *word, sign = 0;
	while (copy && (word = strsep(&rest, " \t"))) {
		if (!*word)
			continue;
		if (!sign && (strcmp(word, "+") == 0 || strcmp(word, "-") == 0)) {
			sign = *word;
			continue;
		}
		if (filter_add(&r->m->filter, word, sign ? sign == '+' : include) == -EINVAL)
			conf_add_diag(r->c, CONF_ERROR, line, "\"%s\" is not a pattern", word);
		sign = 0;
	}
	if (sign)
		conf_add_diag(r->c, CONF_ERROR, line, "no pattern after the last \"%c\"", sign);
	free(copy);
}

static void read_pattern_file(struct reading *r, const char *key, bool include)
{
	int line, bad = 0;
	const char *file = get_text(r, key, &line);
	int err = file ? filter_add_file(&r->m->filter, file, include, &bad) : 0;
	if (bad)
		conf_add_diag(r->c, CONF_ERROR, line, "%s = %s: its line %d is not a pattern", key, file, bad);
	else if (err)
		conf_add_diag(r->c, CONF_ERROR, line, "%s = %s: %s", key, file, err_text(err));
}

static void read_filters(struct reading *r)
{
	int line;
	const char *text;
	filter_init(&r->m->filter);
	if (lookup(r, "filter") && text_of(lookup(r, "filter")))
		conf_add_diag(r->c, CONF_ERROR, lookup(r, "filter")->line,
			      "filter is not supported: write include = and exclude = with "
			      "patterns, or put filters into mirrors.conf of the source");
	if ((text = get_text(r, "include", &line)))
		add_patterns(r, line, text, true);
	read_pattern_file(r, "include from", true);
	if ((text = get_text(r, "exclude", &line))) {
		add_patterns(r, line, text, false);
		conf_add_diag(
		    r->c, CONF_NOTICE, line,
		    "exclude: these paths are neither touched nor accepted here; exclude them at the "
		    "source too (exclude = in mirrors.conf), or it reports them as errors");
	}
	read_pattern_file(r, "exclude from", false);
}

/* --- a module, the global part --- */

static void read_numbers(struct reading *r)
{
	struct module_conf *m = r->m;
	long long timeout = 60, verbosity = 1;
	struct conf_entry *e = conf_get(r->s, "max connections", 0);
	if (e && e->value)
		conf_num(r->c, e, -100000, 100000, &m->max_connections);
	get_num(r, "timeout", 0, 86400, &timeout);
	if (timeout == 0) {
		timeout = 60;
		conf_add_diag(r->c, CONF_NOTICE, lookup(r, "timeout")->line,
			      "timeout = 0: a peer that vanished is always noticed; 60 "
			      "seconds are used");
	}
	m->timeout_s = (int)timeout;
	get_num(r, "max verbosity", 0, 10, &verbosity);
	m->verbosity = (int)verbosity;
}

static void read_module(struct reading *r)
{
	struct module_conf *m = r->m;
	bool chroot_wanted = true;
	m->name = r->s->name;
	m->line = r->s->line;
	m->read_only = m->list = m->strict_modes = true;
	if (strchr(m->name, '/'))
		conf_add_diag(r->c, CONF_ERROR, m->line, "module [%s]: a name must not contain a slash",
			      m->name);
	get_bool(r, "read only", &m->read_only);
	get_bool(r, "list", &m->list);
	get_bool(r, "create path", &m->create_path);
	get_bool(r, "use chroot", &chroot_wanted);
	m->use_chroot = !lookup(r, "use chroot") ? TRI_UNSET : chroot_wanted ? TRI_YES : TRI_NO;
	if (m->use_chroot == TRI_YES && geteuid() != 0)
		conf_add_diag(r->c, CONF_ERROR, lookup(r, "use chroot")->line,
			      "use chroot = yes needs root, and tandemd runs as uid %u: "
			      "remove the line (Landlock and openat2 confine the module anyway)",
			      geteuid());
	m->comment = get_text(r, "comment", NULL);
	read_path(r);
	read_numbers(r);
	read_identity(r);
	read_auth(r);
	read_hosts(r);
	read_filters(r);
}

static int add_address(struct reading *r, int line, char *word)
{
	struct in6_addr a;
	struct modules_conf *mc = r->mc;
	if (inet_pton(AF_INET, word, &a) != 1 && inet_pton(AF_INET6, word, &a) != 1) {
		conf_add_diag(
		    r->c, CONF_ERROR, line,
		    "address = %s: must be an address of this host, such as 192.168.1.10 or 0.0.0.0", word);
		return 0;
	}
	char **v = realloc(mc->addresses, (mc->naddresses + 1) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	mc->addresses = v;
	v[mc->naddresses] = strdup(word);
	mc->naddresses += v[mc->naddresses] != NULL;
	return 0;
}

static const char *get_path(struct reading *r, const char *key, const char *otherwise)
{
	int line;
	const char *text = get_text(r, key, &line);
	if (!text || !*text)
		return otherwise;
	if (*text != '/')
		conf_add_diag(r->c, CONF_ERROR, line, "%s = %s: must be an absolute path", key, text);
	return text;
}

/* The directory of a file that will be written must be there. */
static void check_parent(struct reading *r, const char *key, const char *path)
{
	char dir[4096];
	const char *slash = path ? strrchr(path, '/') : NULL;
	if (!slash || slash == path || (size_t)(slash - path) >= sizeof(dir))
		return;
	memcpy(dir, path, (size_t)(slash - path));
	dir[slash - path] = 0;
	if (access(dir, W_OK | X_OK))
		conf_add_diag(r->c, CONF_ERROR, lookup(r, key)->line,
			      "%s = %s: its directory cannot be written to: %s%s%s", key, path,
			      err_text(-errno), errno == ENOENT ? "; make it: mkdir -p " : "",
			      errno == ENOENT ? dir : "");
}

static void read_global(struct reading *r)
{
	struct modules_conf *mc = r->mc;
	long long port = MODULES_DEFAULT_PORT, backlog = 64;
	int line;
	get_num(r, "rsync port", 1, 65535, &port);
	get_num(r, "port", 1, 65535, &port);
	get_num(r, "listen backlog", 1, 65535, &backlog);
	mc->max_unauthenticated = 256;
	mc->max_unauthenticated_per_address = 32;
	get_num(r, "max unauthenticated", 1, 10000, &mc->max_unauthenticated);
	get_num(r, "max unauthenticated per address", 1, 10000, &mc->max_unauthenticated_per_address);
	get_num(r, "max connections", -100000, 100000, &mc->max_connections);
	mc->port = (int)port;
	mc->backlog = (int)backlog;
	if (port == 873)
		conf_add_diag(r->c, CONF_NOTICE, lookup(r, "port") ? lookup(r, "port")->line : 0,
			      "port = 873 is rsync's: stop a running "
			      "rsync daemon first, or use another port such as %d",
			      MODULES_DEFAULT_PORT);
	const char *address = get_text(r, "address", &line);
	if (address)
		each_word(address, add_address, r, line);
	mc->state_dir = get_path(r, "state dir", MODULES_DEFAULT_STATE);
	mc->motd_file = get_path(r, "motd file", NULL);
	mc->log_file = get_path(r, "log file", NULL);
	mc->pid_file = get_path(r, "pid file", NULL);
	check_parent(r, "log file", mc->log_file);
	check_parent(r, "pid file", mc->pid_file);
	struct stat st;
	if (mc->motd_file && lstat(mc->motd_file, &st) == 0 && !S_ISREG(st.st_mode))
		conf_add_diag(r->c, CONF_NOTICE, lookup(r, "motd file")->line,
			      "motd file = %s is not a regular file: nothing is shown to clients, since a link "
			      "shows what others choose; name the file it leads to",
			      mc->motd_file);
	else if (mc->motd_file && access(mc->motd_file, R_OK))
		conf_add_diag(r->c, CONF_NOTICE, lookup(r, "motd file")->line,
			      "motd file = %s: %s; nothing is shown to clients", mc->motd_file,
			      err_text(-errno));
}

/* Who may change the file decides what root serves. */
static void check_mode(struct conf *c, const char *file)
{
	struct stat st;
	if (stat(file, &st) == 0 && S_ISREG(st.st_mode) && st.st_mode & S_IWOTH)
		conf_add_diag(c, CONF_ERROR, 0, "everybody may change this file: chmod o-w %s", file);
}

int modules_conf_read(struct modules_conf *mc, const char *file)
{
	memset(mc, 0, sizeof(*mc));
	struct conf *c = &mc->conf;
	int err = conf_read(c, file);
	if (err)
		return err;
	check_mode(c, file);
	struct reading r = {.mc = mc, .c = c};
	conf_keys_check(c);
	read_global(&r);
	mc->modules = calloc(c->nsections, sizeof(*mc->modules));
	if (!mc->modules)
		return -ENOMEM;
	for (size_t i = 1; i < c->nsections; i++) {
		r.s = &c->sections[i];
		r.m = &mc->modules[mc->nmodules++];
		read_module(&r);
	}
	if (!mc->nmodules)
		conf_add_diag(
		    c, CONF_ERROR, 0,
		    "there is no module: add a section [NAME] with path, auth users and secrets file");
	return 0;
}

void modules_conf_release(struct modules_conf *mc)
{
	for (size_t i = 0; i < mc->nmodules; i++) {
		struct module_conf *m = &mc->modules[i];
		for (size_t k = 0; k < m->nusers; k++)
			free(m->users[k].pattern);
		free(m->users);
		hosts_release(&m->allow);
		hosts_release(&m->deny);
		filter_release(&m->filter);
	}
	for (size_t i = 0; i < mc->naddresses; i++)
		free(mc->addresses[i]);
	free(mc->addresses);
	free(mc->modules);
	conf_release(&mc->conf);
	memset(mc, 0, sizeof(*mc));
}

const struct module_conf *modules_conf_find(const struct modules_conf *mc, const char *name)
{
	for (size_t i = 0; i < mc->nmodules; i++)
		if (strcmp(mc->modules[i].name, name) == 0)
			return &mc->modules[i];
	return NULL;
}

enum user_right modules_conf_right(const struct module_conf *m, const char *user)
{
	for (size_t i = 0; i < m->nusers; i++)
		if (fnmatch(m->users[i].pattern, user, 0) == 0)
			return m->users[i].right;
	return USER_DENY;
}
