/* SPDX-License-Identifier: BSD-2-Clause
 * tandemfs: the command line. */
#include "config.h"

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/spawn.h"
#include "fs/supervisor.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"

struct options {
	const char *config, *password_file, *state_dir;
	const char *urls[MIRROR_TARGETS_MAX];
	int nurls;
	bool foreground, replicator;
};

static const char help[] =
    "Usage: tandemfs [--config FILE] [--foreground] [--no-replicator] NAME\n"
    "       tandemfs [--foreground] [--no-replicator] [--state-dir DIR]\n"
    "                --target URL --password-file FILE SOURCE [MOUNTPOINT]\n"
    "Mount a directory over itself and replicate every change to its standbys.\n"
    "\n"
    "  NAME                  mirror, a section of the configuration file\n"
    "  SOURCE [MOUNTPOINT]   directory to mirror; mounted over itself, or on MOUNTPOINT\n"
    "  --config FILE         configuration (default " MIRROR_CONF_DEFAULT ")\n"
    "  --target URL          tandem://USER@HOST[:PORT]/MODULE; may be repeated\n"
    "  --password-file FILE  file that holds the password alone, mode 600\n"
    "  --state-dir DIR       where journals and positions are kept\n"
    "  --foreground          do not become a daemon; log to standard error\n"
    "  --no-replicator       journal only, do not start tandem-replicator\n"
    "  --help, --version\n";

static void parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {{"config", 1, NULL, 'c'}, {"target", 1, NULL, 't'},
	    {"password-file", 1, NULL, 'p'}, {"state-dir", 1, NULL, 's'}, {"foreground", 0, NULL, 'f'},
	    {"no-replicator", 0, NULL, 'n'}, {"help", 0, NULL, 'h'}, {"version", 0, NULL, 'V'}, {NULL, 0, NULL, 0}};
	int c;

	*o = (struct options){.replicator = true};
	while ((c = getopt_long(argc, argv, "c:fh", longs, NULL)) != -1) {
		switch (c) {
		case 'c': o->config = optarg; break;
		case 'p': o->password_file = optarg; break;
		case 's': o->state_dir = optarg; break;
		case 'f': o->foreground = true; break;
		case 'n': o->replicator = false; break;
		case 't':
			if (o->nurls == MIRROR_TARGETS_MAX)
				errx(2, "at most %d targets", MIRROR_TARGETS_MAX);
			o->urls[o->nurls++] = optarg;
			break;
		case 'h': fputs(help, stdout); exit(0);
		case 'V': puts("tandemfs " PACKAGE_VERSION); exit(0);
		default: fputs("Try tandemfs --help\n", stderr); exit(2);
		}
	}
}

static void load_file(struct launch *l, const struct options *o, const char *name)
{
	struct conf c;
	int r;

	if (o->nurls || o->password_file || o->state_dir)
		errx(2, "--target, --password-file and --state-dir stand for a configuration file: give SOURCE, not NAME");
	l->config = realpath(o->config ? o->config : MIRROR_CONF_DEFAULT, NULL);
	if (!l->config)
		err(1, "%s", o->config ? o->config : MIRROR_CONF_DEFAULT);
	r = mirror_load(&l->mirror, &c, l->config, name);
	if (conf_print(&c) > 0)
		exit(1);
	if (r == -ENOENT)
		errx(1, "%s has no section [%s]", l->config, name);
	if (r < 0)
		errx(1, "%s: %s", l->config, err_text(r));
	conf_release(&c);
}

static void load_args(struct launch *l, const struct options *o, const char *source, const char *mountpoint)
{
	char why[512] = "";
	int r = mirror_from_args(&l->mirror, o->urls, o->nurls, o->password_file, source, mountpoint, o->state_dir, why,
	    sizeof(why));

	if (r < 0)
		errx(1, "%s", why[0] ? why : err_text(r));
}

int main(int argc, char **argv)
{
	static struct launch l;
	struct bedrock b;
	struct options o;
	static char conf[PATH_MAX];
	char ident[128];
	int r;

	fio_std_fill();
	parse(&o, argc, argv);
	argc -= optind;
	argv += optind;
	l.foreground = o.foreground;
	l.replicator = o.replicator;
	if (o.nurls > 0 && o.config)
		errx(2, "--target stands for a configuration file: give --config FILE and NAME, or --target URL ... SOURCE");
	if (o.nurls > 0 && (argc == 1 || argc == 2))
		load_args(&l, &o, argv[0], argc == 2 ? argv[1] : NULL);
	else if (o.nurls == 0 && argc == 1)
		load_file(&l, &o, argv[0]);
	else
		errx(2, "give the NAME of a mirror, or --target URL ... SOURCE [MOUNTPOINT]; see tandemfs --help");
	snprintf(ident, sizeof(ident), "tandemfs[%s]", l.mirror.name);
	r = log_init(ident, l.mirror.log_file, l.foreground);
	if (r < 0)
		errx(1, "log file %s: %s", l.mirror.log_file, err_text(r));
	if (check_start(&l, &b) < 0)
		return 1;
	if (!l.config) {
		r = spawn_write_conf(&l.mirror, b.statefd, conf, sizeof(conf));
		if (r < 0)
			errx(1, "cannot write %s/mirror.conf: %s", l.mirror.state_dir, err_text(r));
		l.config = conf;
	}
	return supervisor_run(&l, &b);
}
