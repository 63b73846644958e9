/* SPDX-License-Identifier: BSD-2-Clause
 * modules.conf: what its keys mean (decision D12). The grammar is proto/conf.h's. Every key of rsyncd.conf is
 * known: it works, or it has no meaning here and a notice says why, or it would promise something we do not
 * do and is an error. */
#ifndef TANDEM_MODULE_MODULES_CONF_H
#define TANDEM_MODULE_MODULES_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "proto/conf.h"
#include "proto/filter.h"
#include "replicator/module/hosts.h"

#define MODULES_DEFAULT_PORT  8730
#define MODULES_DEFAULT_STATE "/var/lib/tandemd"
#define MODULES_GROUPS_MAX    64

enum user_right {
	USER_DENY,
	USER_DEFAULT, /* as the module's "read only" says */
	USER_RO,
	USER_RW
};

struct user_rule {
	char *pattern; /* user name, with * and ? */
	enum user_right right;
};

enum tristate { TRI_UNSET = -1, TRI_NO = 0, TRI_YES = 1 };

struct module_conf {
	const char *name; /* view into the conf */
	int line;	  /* of the section */
	const char *path;
	const char *comment;
	bool read_only, list, strict_modes, create_path;
	enum tristate use_chroot;
	bool has_uid; /* the child changes to uid and gid */
	uid_t uid;
	gid_t gid;
	char who[128]; /* "uid 33 (www)", for messages */
	gid_t groups[MODULES_GROUPS_MAX];
	int ngroups;
	struct user_rule *users; /* owned */
	size_t nusers;
	const char *secrets_file;
	int secrets_line;
	struct host_rules allow, deny;
	long long max_connections; /* 0: none said; negative: closed */
	int timeout_s;
	int verbosity;	      /* 0 warnings, 1 info, 2.. debug */
	struct filter filter; /* paths never touched */
};

struct modules_conf {
	struct conf conf;
	int port, backlog;
	char **addresses; /* owned; none: every address */
	size_t naddresses;
	const char *state_dir, *motd_file, *log_file, *pid_file;
	long long max_unauthenticated,
	    max_unauthenticated_per_address; /* connections before authentication */
	long long max_connections;	     /* of all modules together; 0: no limit; negative: closed */
	struct module_conf *modules;	     /* owned */
	size_t nmodules;
};

/* Read and check file; everything found is in c->conf.diags. Returns 0 (see c->conf.nerrors) or -errno when
 * the file cannot be read. Always release. */
int modules_conf_read(struct modules_conf *c, const char *file);
void modules_conf_release(struct modules_conf *c);
const struct module_conf *modules_conf_find(const struct modules_conf *c, const char *name);
/* The rule for user: first match. USER_DENY when none matches. */
enum user_right modules_conf_right(const struct module_conf *m, const char *user);

/* conf_keys.c: report unknown keys, keys in the wrong place, and keys without meaning here. */
void conf_keys_check(struct conf *c);

#endif
