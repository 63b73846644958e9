/* SPDX-License-Identifier: BSD-2-Clause
 * tandem-replicator: reads a mirror's journal and keeps its targets identical. */
#include "config.h"
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>
#include "proto/fileio.h"
#include "proto/mirror.h"
#include "replicator/source/replicator.h"

static void usage(FILE *f)
{
	fputs("usage: tandem-replicator [--config FILE] [--foreground] NAME\n"
	      "\n"
	      "Replicates the mirror NAME to its targets. Usually started by tandemfs.\n"
	      "\n"
	      "  --config FILE   read FILE instead of " MIRROR_CONF_DEFAULT "\n"
	      "  --foreground    stay in the foreground and log to standard error\n"
	      "  --help          show this and exit\n"
	      "  --version       show the version and exit\n",
	    f);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"config", required_argument, NULL, 'c'},
	    {"foreground", no_argument, NULL, 'f'},
	    {"help", no_argument, NULL, 'h'},
	    {"version", no_argument, NULL, 'V'},
	    {NULL, 0, NULL, 0},
	};
	const char *file = MIRROR_CONF_DEFAULT;
	bool foreground = false;
	int c;

	fio_std_fill();
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			file = optarg;
			break;
		case 'f':
			foreground = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			puts(PACKAGE_STRING);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind + 1 != argc) {
		usage(stderr);
		return 2;
	}
	return replicator_run(file, argv[optind], foreground);
}
