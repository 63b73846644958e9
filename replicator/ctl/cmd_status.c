/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl status: every mirror, or one; once, or again and again (--follow). */
#include "config.h"
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "proto/err.h"
#include "replicator/ctl/estimate.h"
#include "replicator/ctl/status.h"

#define FOLLOW_MS 500 /* between two samples */

struct gathered {
	const struct ctl_args *a;
	json_t *mirrors;
	int worst; /* exit code */
};

static void gather(void *arg, const char *name)
{
	struct gathered *g = arg;
	struct ctl_mirror cm;
	json_t *s = NULL;

	if (ctl_mirror_open(&cm, g->a, name) == 0)
		s = status_collect(&cm);
	int rc = s ? status_exit(s) : CTL_BROKEN;
	if (s)
		json_array_append_new(g->mirrors, s);
	if (rc > g->worst)
		g->worst = rc;
	ctl_mirror_close(&cm);
}

/* Ask about one mirror or all. Returns false when there is none to ask about (said on standard error). */
static bool gather_all(struct gathered *g)
{
	g->mirrors = json_array();
	g->worst = CTL_OK;
	if (g->a->name) {
		gather(g, g->a->name);
		return json_array_size(g->mirrors) > 0;
	}
	int n = ctl_mirror_each(g->a, gather, g);
	if (n == 0)
		warnx("%s: no mirror %s; tandem-mirrors.conf(5) says how to write one", g->a->config,
		      access(g->a->config, F_OK) == 0 ? "is configured"
						      : "is running and there is no such file");
	if (n <= 0)
		g->worst = CTL_BROKEN;
	return n > 0;
}

static size_t width(void)
{
	struct winsize w;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col - 1u : 110;
}

static bool print_live(struct gathered *g, struct status_live *live, char *last, size_t size)
{
	char line[1024];
	bool tty = isatty(STDOUT_FILENO);
	static const struct timespec pause = {0, FOLLOW_MS * 1000000L};

	status_line(live, json_array_get(g->mirrors, 0), line, sizeof(line));
	if (tty) {
		printf("\r%.*s\033[K", (int)width(), line);
	} else if (strcmp(line, last) != 0) {
		puts(line);
		strlcpy(last, line, size);
	}
	fflush(stdout);
	nanosleep(&pause, NULL);
	return !ferror(stdout);
}

/* While trees are compared, count the source, once, to tell how much is left. */
static void keep_estimate(struct gathered *g, struct status_live *live, struct estimate **e, bool *tried)
{
	struct ctl_mirror cm;

	if (!*tried && status_comparing(json_array_get(g->mirrors, 0))) {
		*tried = true;
		if (ctl_mirror_find(&cm, g->a, g->a->name) == 0)
			(void)estimate_start(e, &cm);
		ctl_mirror_close(&cm);
	}
	if (*e && estimate_get(*e, &live->files_total, &live->bytes_total)) {
		estimate_stop(*e);
		*e = NULL;
	} else if (*e) {
		live->files_total = 0; /* a part of it would mislead */
	}
}

static int follow(struct gathered *g)
{
	struct status_live live = {0};
	struct estimate *e = NULL;
	char last[1024] = "";
	bool tried = false, more = true;

	if (g->a->name == NULL || g->a->json) {
		warnx("status --follow: name one mirror, without --json");
		return CTL_BROKEN;
	}
	while (more && gather_all(g)) {
		keep_estimate(g, &live, &e, &tried);
		more = print_live(g, &live, last, sizeof(last));
		json_decref(g->mirrors);
		g->mirrors = NULL;
	}
	estimate_stop(e);
	json_decref(g->mirrors);
	return g->worst;
}

int cmd_status(const struct ctl_args *a)
{
	struct gathered g = {.a = a};

	if (a->follow)
		return follow(&g);
	bool any = gather_all(&g);
	if (a->json) {
		json_t *all = json_pack("{s:O}", "mirrors", g.mirrors);
		json_dumpf(all, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
		putchar('\n');
		json_decref(all);
	} else if (any) {
		for (size_t i = 0; i < json_array_size(g.mirrors); i++)
			status_print(json_array_get(g.mirrors, i));
	}
	json_decref(g.mirrors);
	return any ? g.worst : CTL_BROKEN;
}
