/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl: the operator's tool. This file reads the command line and calls one command. */
#include "config.h"
#include <err.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "proto/fileio.h"
#include "replicator/ctl/ctl.h"

enum {
	OPT_CONFIG = 256,
	OPT_JSON,
	OPT_TIMEOUT,
	OPT_REPAIR,
	OPT_CHECKSUM,
	OPT_DRY_RUN,
	OPT_FOLLOW,
	OPT_FORMAT,
	OPT_TIMEFMT,
	OPT_SINCE,
	OPT_PASSWORD_FILE,
	OPT_HELP,
	OPT_VERSION
};

static const struct option options[] = {
    {"config", required_argument, NULL, OPT_CONFIG},
    {"json", no_argument, NULL, OPT_JSON},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"repair", no_argument, NULL, OPT_REPAIR},
    {"checksum", no_argument, NULL, OPT_CHECKSUM},
    {"dry-run", no_argument, NULL, OPT_DRY_RUN},
    {"follow", no_argument, NULL, OPT_FOLLOW},
    {"format", required_argument, NULL, OPT_FORMAT},
    {"timefmt", required_argument, NULL, OPT_TIMEFMT},
    {"since", required_argument, NULL, OPT_SINCE},
    {"password-file", required_argument, NULL, OPT_PASSWORD_FILE},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

#define ALLOW(opt) (1u << ((opt)-OPT_CONFIG))

enum operand { NONE, MAYBE, NEEDED };

static const struct command {
	const char *name;
	int (*run)(const struct ctl_args *a);
	enum operand operand;
	unsigned allowed; /* options beyond --config, --help, --version */
	const char *synopsis, *help;
} commands[] = {
    {"status", cmd_status, MAYBE, ALLOW(OPT_JSON) | ALLOW(OPT_FOLLOW), "status [--json] [--follow] [NAME]",
     "how far every target is; exit 0 in sync, 1 behind, 2 broken"},
    {"wait", cmd_wait, NEEDED, ALLOW(OPT_TIMEOUT), "wait NAME [--timeout S]",
     "return when every change made so far is durable on every target"},
    {"verify", cmd_verify, NEEDED, ALLOW(OPT_REPAIR) | ALLOW(OPT_CHECKSUM) | ALLOW(OPT_JSON),
     "verify NAME [--repair] [--checksum] [--json]", "compare with every target and print what differs"},
    {"resync", cmd_resync, NEEDED, ALLOW(OPT_DRY_RUN) | ALLOW(OPT_JSON), "resync NAME [--dry-run] [--json]",
     "compare everything now and repair what differs"},
    {"journal", cmd_journal, NEEDED,
     ALLOW(OPT_FOLLOW) | ALLOW(OPT_JSON) | ALLOW(OPT_FORMAT) | ALLOW(OPT_TIMEFMT) | ALLOW(OPT_SINCE),
     "journal NAME [--follow] [--json] [--format F] [--timefmt F] [--since POSITION]",
     "print changes as they happen"},
    {"modules", cmd_modules, NEEDED, ALLOW(OPT_PASSWORD_FILE) | ALLOW(OPT_JSON),
     "modules URL [--password-file F] [--json]", "list the modules of a daemon"},
    {"pause", cmd_pause, NEEDED, 0, "pause NAME", "stop sending; the journal keeps everything"},
    {"resume", cmd_resume, NEEDED, 0, "resume NAME", "send again after pause"},
    {"unmount", cmd_unmount, NEEDED, 0, "unmount NAME", "unmount and end tandemfs cleanly"},
    {"doctor", cmd_doctor, MAYBE, 0, "doctor [NAME]",
     "check this host and the way to the targets, say what to do"},
};

static void help(FILE *f)
{
	fputs("usage: tandemctl [--config FILE] COMMAND\n\n", f);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(f, "  %s\n        %s\n", commands[i].synopsis, commands[i].help);
	fputs(
	    "\n"
	    "  --config FILE        mirrors.conf (default " MIRROR_CONF_DEFAULT ")\n"
	    "  --json               print JSON for programs\n"
	    "  --follow             go on until interrupted\n"
	    "  --timeout S          give up after S seconds, exit 1\n"
	    "  --repair             send what differs\n"
	    "  --checksum           compare bytes even where size and time are equal\n"
	    "  --dry-run            print what would be repaired, change nothing\n"
	    "  --format F           one line per change: %n sequence, %e event, %w path, %f last component,\n"
	    "                       %F other path, %T time, %x extents, %s size, %i inode, %m mode, %u uid,\n"
	    "                       %g gid, %0 NUL, %% percent\n"
	    "  --timefmt F          how %T looks, see strftime(3)\n"
	    "  --since POSITION     changes after this sequence number; 0: from the oldest there is\n"
	    "  --password-file F    the password alone, mode 600 (default: $TANDEM_PASSWORD_FILE)\n"
	    "  --help, --version\n",
	    f);
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static long parse_timeout(const char *text)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end != '\0' || !(v >= 0 && v < 1e9))
		errx(CTL_BROKEN, "--timeout %s: a number of seconds, please; 0 waits for ever", text);
	return v > 0 && v < 1 ? 1 : (long)v;
}

/* Store one option; returns its ALLOW bit, 0 for those every command takes. */
static unsigned take(struct ctl_args *a, int opt)
{
	switch (opt) {
	case OPT_CONFIG:
		a->config = optarg;
		a->config_given = true;
		return 0;
	case OPT_JSON:
		a->json = true;
		break;
	case OPT_TIMEOUT:
		a->timeout = parse_timeout(optarg);
		break;
	case OPT_REPAIR:
		a->repair = true;
		break;
	case OPT_CHECKSUM:
		a->checksum = true;
		break;
	case OPT_DRY_RUN:
		a->dry_run = true;
		break;
	case OPT_FOLLOW:
		a->follow = true;
		break;
	case OPT_FORMAT:
		a->format = optarg;
		break;
	case OPT_TIMEFMT:
		a->timefmt = optarg;
		break;
	case OPT_SINCE:
		a->since = optarg;
		break;
	case OPT_PASSWORD_FILE:
		a->password_file = optarg;
		break;
	case OPT_HELP:
		help(stdout);
		exit(fflush(stdout) ? CTL_BROKEN : CTL_OK);
	case OPT_VERSION:
		puts("tandemctl " PACKAGE_VERSION);
		exit(fflush(stdout) ? CTL_BROKEN : CTL_OK);
	default:
		fputs("Try 'tandemctl --help'.\n", stderr);
		exit(CTL_BROKEN);
	}
	return ALLOW(opt);
}

static const struct command *parse(struct ctl_args *a, int argc, char **argv)
{
	unsigned given = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		given |= take(a, opt);
	if (optind == argc) {
		help(stderr);
		exit(CTL_BROKEN);
	}
	const struct command *c = find(argv[optind]);
	if (c == NULL)
		errx(CTL_BROKEN, "%s: no such command; 'tandemctl --help' lists them", argv[optind]);
	if (given & ~c->allowed) { /* cppcheck-suppress nullPointerRedundantCheck ; errx(3) does not return */
		for (const struct option *o = options; o->name; o++)
			if (given & ~c->allowed & ALLOW(o->val))
				errx(CTL_BROKEN, "--%s means nothing to '%s'; usage: tandemctl %s", o->name,
				     c->name, c->synopsis);
	}
	int operands = argc - optind - 1;
	if (operands > (c->operand == NONE ? 0 : 1) || (operands == 0 && c->operand == NEEDED))
		errx(CTL_BROKEN, "usage: tandemctl [--config FILE] %s", c->synopsis);
	a->name = operands ? argv[optind + 1] : NULL;
	return c;
}

int main(int argc, char **argv)
{
	struct ctl_args a = {.config = MIRROR_CONF_DEFAULT};
	fio_std_fill();
	const struct command *c = parse(&a, argc, argv);

	signal(SIGPIPE, SIG_DFL);
	int rc = c->run(&a);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		warn("standard output");
		rc = CTL_BROKEN;
	}
	return rc;
}
