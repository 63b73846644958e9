/* SPDX-License-Identifier: BSD-2-Clause
 * tandemd: command line. */
#include "config.h"

#include <unistd.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "replicator/module/server.h"

#define DEFAULT_CONFIG SYSCONFDIR "/modules.conf"

enum { OPT_CONFIG = 'c', OPT_FOREGROUND = 'f', OPT_CHECK = 'k', OPT_HELP = 'h', OPT_VERSION = 'V' };

static const struct option options[] = {
    {"config", required_argument, NULL, OPT_CONFIG}, {"foreground", no_argument, NULL, OPT_FOREGROUND},
    {"check", no_argument, NULL, OPT_CHECK},	     {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},     {0},
};

static void usage(FILE *out)
{
	fputs("usage: tandemd [--config FILE] [--foreground] [--check]\n"
	      "Serve the modules of a configuration file to tandem-replicator.\n"
	      "  --config FILE   instead of " DEFAULT_CONFIG "\n"
	      "  --foreground    stay in the foreground, log to standard error unless a log file is "
	      "configured\n"
	      "  --check         check the configuration, print what is found, exit 0 if it has no errors\n"
	      "  --help, --version\n",
	      out);
}

/* Who asks for a reload while it starts gets one when it runs; SIGHUP would end it. */
static void hold_hangup(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

int main(int argc, char **argv, char **envp)
{
	const char *file = DEFAULT_CONFIG;
	bool foreground = false, check = false;
	struct modules_conf mc;
	int opt;
	fio_std_fill();
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case OPT_CONFIG:
			file = optarg;
			break;
		case OPT_FOREGROUND:
			foreground = true;
			break;
		case OPT_CHECK:
			check = true;
			break;
		case OPT_HELP:
			usage(stdout);
			return 0;
		case OPT_VERSION:
			puts("tandemd " PACKAGE_VERSION);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		usage(stderr);
		return 2;
	}
	hold_hangup();
	char *path = realpath(file, NULL); /* the daemon changes its directory */
	if (path)
		file = path;
	int err = modules_conf_read(&mc, file);
	if (err)
		fprintf(stderr, "%s: error: cannot be read: %s\n", file, err_text(err));
	else
		conf_print(&mc.conf);
	if (err || mc.conf.nerrors || check) {
		int status = err || mc.conf.nerrors ? 1 : 0;
		modules_conf_release(&mc);
		free(path);
		return status;
	}
	setproctitle_init(argc, argv, envp);
	int status = server_run(&mc, file, foreground);
	free(path);
	return status;
}
