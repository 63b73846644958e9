/* SPDX-License-Identifier: BSD-2-Clause
 * mirrors.conf: one section per mirror, read by tandemfs, tandem-replicator and tandemctl.
 * Keys stand in tandem-mirrors.conf(5). */
#ifndef TANDEM_MIRROR_H
#define TANDEM_MIRROR_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/conf.h"
#include "proto/filter.h"

#define MIRROR_TARGETS_MAX 32
#define MIRROR_CONF_DEFAULT SYSCONFDIR "/mirrors.conf"

enum mirror_compress { MC_AUTO, MC_NONE, MC_ZLIB, MC_ZSTD };
enum mirror_sync { MS_FSYNC, MS_INTERVAL, MS_NEVER };

struct mirror_target {
	char *url;    /* as configured: tandem://[USER@]HOST[:PORT]/MODULE */
	char *user;   /* "" if none */
	char *host;   /* without brackets */
	int port;     /* 8730 by default */
	char *module;
};

struct mirror {
	char *name;           /* the section */
	char *source;         /* absolute path of the directory below */
	char *mountpoint;     /* absolute; equal to source unless configured */
	char *state_dir;      /* "<state dir>/<name>" */
	struct mirror_target *targets;
	int ntargets;
	char *password_file;  /* NULL if none */
	struct filter filter; /* exclude, include, filter, exclude from, include from */
	bool del;             /* delete = yes: deletions are mirrored; default yes */
	int delete_guard;     /* percent of a comparison's entries that may be deleted without asking; default 50, 100: off */
	enum mirror_compress compress; /* default auto */
	struct filter dont_compress;   /* dont compress = patterns */
	uint64_t bwlimit;     /* bytes per second and target, 0: none */
	uint64_t journal_limit; /* bytes, default 1 GiB */
	enum mirror_sync journal_sync; /* default fsync */
	bool shared_source;   /* others change the directory below too; default no */
	bool nfs_export;      /* the mount is exported over NFS: what has a name is remembered; default no */
	bool allow_other;     /* default yes for root */
	int timeout;          /* seconds without a sign of the peer before reconnecting; default 60 */
	char *log_file;       /* NULL: standard error or syslog */
	char *io_uring;       /* "auto", "yes" or "no" */
};

/* Read FILE and fill m from section name. Diagnostics of the whole file are in c (print with conf_print);
 * unknown keys are errors. name NULL: check the whole file, leave m empty. Filter rules stand in the order of rsyncd.conf: filter,
 * include from, include, exclude from, exclude. A missing or unreadable password file is no error here (status must work for
 * who may not read it), a wrong mode is. Returns 0, -errno, E_CONF (c->nerrors > 0), -ENOENT when there is no such section. */
int mirror_load(struct mirror *m, struct conf *c, const char *file, const char *name);
/* Build a mirror from the command line: tandemfs --target URL --password-file F SOURCE [MOUNTPOINT]. The name is the last
 * component of source, with digits made from its path when another source has that name in state_dir; state_dir is XDG_STATE_HOME or ~/.local/state/tandem for users, /var/lib/tandem for root, unless given.
 * why gets a sentence on failure. Returns 0, -errno or E_CONF. */
int mirror_from_args(struct mirror *m, const char *const *urls, int nurls, const char *password_file, const char *source,
    const char *mountpoint, const char *state_dir, char *why, size_t size);
/* Names of all mirrors in c, in file order: calls fn for each. */
void mirror_each(struct conf *c, void (*fn)(void *arg, const char *name), void *arg);
void mirror_release(struct mirror *m);
/* Parse a URL (MODULE may be missing for listing). Returns 0 or E_CONF with why filled. */
int mirror_parse_url(struct mirror_target *t, const char *url, char *why, size_t size);
/* Read a password file: one line, mode 0600 enforced, "user:password" recognised and explained. *password owned. Returns 0, -errno or E_CONF, why filled. */
int mirror_read_password(const char *file, char **password, char *why, size_t size);

#endif
