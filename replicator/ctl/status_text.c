/* SPDX-License-Identifier: BSD-2-Clause
 * The status of one mirror for people: several lines, or one that is printed again and again. */
#include "config.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "replicator/ctl/status.h"

#define ERRORS_SHOWN 10

static const char *state_text(const char *state)
{
	static const char *const t[][2] = {
	    {"insync", "in sync"},
	    {"behind", "behind"},
	    {"broken", "BROKEN"},
	    {"connecting", "connecting"},
	    {"comparing", "comparing"},
	    {"replicating", "replicating"},
	    {"held", "HELD by the standby"},
	    {"refused", "REFUSED"},
	    {"paused", "paused"},
	    {"unknown", "unknown"},
	    {"waiting", "waiting to try again"},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (strcmp(t[i][0], state) == 0)
			return t[i][1];
	return *state ? state : "unknown";
}

/* What the operator does about a target's state, or NULL. */
static const char *remedy(const char *state)
{
	if (strcmp(state, "connecting") == 0 || strcmp(state, "waiting") == 0)
		return "it is tried again; the journal keeps everything. 'tandemctl doctor' tells what is in "
		       "the way";
	if (strcmp(state, "refused") == 0)
		return "remove the cause; replication then starts by itself. The daemon's log has the "
		       "details";
	if (strcmp(state, "held") == 0)
		return "remove the cause on the standby; it goes on by itself";
	return NULL;
}

static void print_lag(const json_t *t)
{
	char b[32], s[32], sent[32];

	if (json_object_get(t, "lag_records") == NULL)
		return;
	if (ctl_u64(t, "lag_records") == 0 && ctl_num(t, "lag_bytes") == 0)
		printf("      lag      none");
	else
		printf("      lag      %llu records, %s, %s", (unsigned long long)ctl_u64(t, "lag_records"),
		       ctl_show_bytes(b, sizeof(b), ctl_num(t, "lag_bytes")),
		       ctl_show_secs(s, sizeof(s), ctl_num(t, "lag_seconds")));
	printf("; durable up to %llu; %s sent\n", (unsigned long long)ctl_u64(t, "durable"),
	       ctl_show_bytes(sent, sizeof(sent), ctl_num(t, "bytes_sent")));
}

static void print_progress(const json_t *p)
{
	char b[32], bt[32];

	if (!json_is_object(p))
		return;
	ctl_show_bytes(b, sizeof(b), ctl_num(p, "bytes"));
	if (ctl_num(p, "files_total") > 0)
		printf("      compare  %.0f of %.0f files, %s of %s sent\n", ctl_num(p, "files"),
		       ctl_num(p, "files_total"), b,
		       ctl_show_bytes(bt, sizeof(bt), ctl_num(p, "bytes_total")));
	else
		printf("      compare  %.0f files so far, %s sent\n", ctl_num(p, "files"), b);
}

static void print_errors(const json_t *t, const char *name)
{
	const json_t *errors = json_object_get(t, "errors");
	size_t i, n = json_array_size(errors);
	char path[1024], text[1024];

	for (i = 0; i < n && i < ERRORS_SHOWN; i++) {
		const json_t *e = json_array_get(errors, i);
		printf("      error    %s: %s\n", ctl_show_text(path, sizeof(path), ctl_str(e, "path")),
		       ctl_show_text(text, sizeof(text), ctl_str(e, "text")));
	}
	if (n > ERRORS_SHOWN)
		printf("      error    and %zu more: tandemctl status --json %s\n", n - ERRORS_SHOWN, name);
	if (n > 0)
		printf("      do       these are tried again; 'tandemctl verify %s --repair' does it now\n",
		       name);
}

static void print_target(const json_t *t, const char *name)
{
	const char *state = ctl_str(t, "state");
	char text[1024];

	printf("  target  %s  %s\n", ctl_show_text(text, sizeof(text), ctl_str(t, "url")), state_text(state));
	print_progress(json_object_get(t, "progress"));
	print_lag(t);
	if (*ctl_str(t, "error") && strcmp(state, "insync") != 0) {
		printf("      error    %s\n", ctl_show_text(text, sizeof(text), ctl_str(t, "error")));
		if (remedy(state))
			printf("      do       %s\n", remedy(state));
	}
	print_errors(t, name);
}

static void print_source(const json_t *s)
{
	const char *source = ctl_str(s, "source"), *mountpoint = ctl_str(s, "mountpoint");
	char text[1024];

	if (*source == '\0')
		return;
	printf("  source  %s", ctl_show_text(text, sizeof(text), source));
	if (strcmp(mountpoint, source) != 0)
		printf(", mounted at %s", ctl_show_text(text, sizeof(text), mountpoint));
	printf("%s\n", ctl_bool(s, "mount") ? "" : " (not mounted)");
}

void status_print(const json_t *s)
{
	const char *name = ctl_str(s, "name");
	char text[1024], b[32], bl[32];
	size_t i;
	json_t *t;

	printf("%s: %s\n", name, state_text(ctl_str(s, "state")));
	print_source(s);
	if (json_object_get(s, "seq"))
		printf("  journal at %llu", (unsigned long long)ctl_u64(s, "seq"));
	if (json_object_get(s, "journal_bytes"))
		printf(", %s of %s on disk", ctl_show_bytes(b, sizeof(b), ctl_num(s, "journal_bytes")),
		       ctl_show_bytes(bl, sizeof(bl), ctl_num(s, "journal_limit")));
	if (json_object_get(s, "seq"))
		putchar('\n');
	json_array_foreach(json_object_get(s, "problems"), i, t)
	{
		printf("  problem %s\n", ctl_show_text(text, sizeof(text), ctl_str(t, "text")));
		printf("      do       %s\n", ctl_show_text(text, sizeof(text), ctl_str(t, "remedy")));
	}
	json_array_foreach(json_object_get(s, "targets"), i, t) print_target(t, name);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void sample(struct status_live *live, double bytes)
{
	double t = now(), dt = t - live->time;

	if (live->time > 0 && dt > 0.05) {
		double r = bytes > live->bytes ? (bytes - live->bytes) / dt : 0;
		live->rate = live->rate > 0 ? 0.7 * live->rate + 0.3 * r : r;
	}
	if (live->time <= 0 || dt > 0.05) {
		live->time = t;
		live->bytes = bytes;
	}
}

/* The part of a comparison that is done, 0..1. Entries count; where most bytes have to be sent, bytes do. */
static double fraction(double files, double files_total, double bytes, double bytes_total)
{
	double f = files_total > 0 ? files / files_total : 0, b = bytes_total > 0 ? bytes / bytes_total : 0;
	double part = b > f / 2 ? b : f;

	return part < 1 ? part : 1;
}

static size_t line_comparing(const json_t *p, const struct status_live *live, char *out, size_t size)
{
	double files = ctl_num(p, "files"), bytes = ctl_num(p, "bytes");
	double files_total = ctl_num(p, "files_total"), bytes_total = ctl_num(p, "bytes_total");
	char b[32], bt[32], r[32], eta[32] = "?";

	if (files_total <= 0) {
		files_total = (double)live->files_total;
		bytes_total = (double)live->bytes_total;
	}
	ctl_show_bytes(b, sizeof(b), bytes);
	ctl_show_bytes(r, sizeof(r), live->rate);
	if (files_total <= 0 || files_total < files)
		return (size_t)snprintf(out, size, "  comparing: %.0f files, %s sent, %s/s", files, b, r);
	double part = fraction(files, files_total, bytes, bytes_total), spent = live->time - live->begin;
	if (part > 0 && spent > 0)
		ctl_show_secs(eta, sizeof(eta), spent * (1 - part) / part);
	return (size_t)snprintf(out, size, "  comparing: %.0f of %.0f files, %s of %s sent, %s/s, ETA %s",
				files, files_total, b, ctl_show_bytes(bt, sizeof(bt), bytes_total), r, eta);
}

static size_t line_target(const json_t *t, const struct status_live *live, char *out, size_t size)
{
	const json_t *p = json_object_get(t, "progress");
	const char *error = ctl_str(t, "error");
	size_t nerrors = json_array_size(json_object_get(t, "errors"));
	char b[32], s[32], text[512];

	if (strcmp(ctl_str(t, "state"), "comparing") == 0 && json_is_object(p))
		return line_comparing(p, live, out, size);
	if (nerrors > 0)
		return (size_t)snprintf(out, size, "  %s, %zu paths with errors",
					state_text(ctl_str(t, "state")), nerrors);
	if (strcmp(ctl_str(t, "state"), "insync") == 0)
		return (size_t)snprintf(out, size, "  in sync, %s sent",
					ctl_show_bytes(b, sizeof(b), ctl_num(t, "bytes_sent")));
	if (*error)
		return (size_t)snprintf(out, size, "  %s: %s", state_text(ctl_str(t, "state")),
					ctl_show_text(text, sizeof(text), error));
	return (size_t)snprintf(out, size, "  %s, behind by %llu records, %s, %s",
				state_text(ctl_str(t, "state")),
				(unsigned long long)ctl_u64(t, "lag_records"),
				ctl_show_bytes(b, sizeof(b), ctl_num(t, "lag_bytes")),
				ctl_show_secs(s, sizeof(s), ctl_num(t, "lag_seconds")));
}

bool status_comparing(const json_t *status)
{
	size_t i;
	json_t *t;

	json_array_foreach(json_object_get(status, "targets"), i,
			   t) if (strcmp(ctl_str(t, "state"), "comparing") == 0) return true;
	return false;
}

const char *status_line(struct status_live *live, const json_t *s, char *out, size_t size)
{
	const json_t *targets = json_object_get(s, "targets"), *problems = json_object_get(s, "problems");
	double bytes = 0;
	size_t i, used;
	json_t *t;

	json_array_foreach(targets, i, t) bytes += ctl_num(json_object_get(t, "progress"), "bytes");
	sample(live, bytes);
	live->begin = !status_comparing(s) ? 0 : live->begin > 0 ? live->begin : live->time;
	used = (size_t)snprintf(out, size, "%s: at %llu", ctl_str(s, "name"),
				(unsigned long long)ctl_u64(s, "seq"));
	if (json_array_size(problems) > 0 && used < size)
		used += (size_t)snprintf(out + used, size - used, "  %s",
					 ctl_str(json_array_get(problems, 0), "text"));
	json_array_foreach(targets, i, t) if (used < size) used +=
	    line_target(t, live, out + used, size - used);
	return out;
}
