/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl verify, resync: compare source and targets, print what differs, repair it. */
#include "config.h"
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "replicator/ctl/ctl.h"

/* Print one difference. */
static void print_difference(const json_t *d, bool json)
{
	char path[4096], what[512], target[512];

	if (json) {
		json_dumpf(d, stdout, JSON_COMPACT);
		putchar('\n');
		return;
	}
	printf("%s: %s: %s\n", ctl_show_text(target, sizeof(target), ctl_str(d, "target")),
	       *ctl_str(d, "path") ? ctl_show_text(path, sizeof(path), ctl_str(d, "path")) : ".",
	       ctl_show_text(what, sizeof(what), ctl_str(d, "what")));
}

/* Ask and print packets until the last one, which *last gets. Returns 0 or an error; *last may then hold
 * "error". */
static int stream(int fd, const char *op, const json_t *args, bool json, json_t **last)
{
	int fds[CTL_FDS_MAX];
	int rc = ctl_call(fd, op, args, last, fds, -1);

	while (rc == 0 && ctl_bool(*last, "more")) {
		json_object_del(*last, "ok");
		json_object_del(*last, "more");
		print_difference(*last, json);
		json_decref(*last);
		*last = NULL;
		rc = ctl_recv(fd, last, fds, -1);
		if (rc == 0 && !ctl_bool(*last, "ok"))
			rc = E_REFUSED;
	}
	return rc;
}

/* Returns the exit code of a comparison that ended with this packet. */
static int conclude(const struct ctl_mirror *cm, const json_t *last, bool repair)
{
	unsigned long long n = ctl_u64(last, "differences"), repaired = ctl_u64(last, "repaired");

	if (n == 0)
		warnx("%s: identical", cm->name);
	else if (repair)
		warnx("%s: %llu differences, %llu repaired", cm->name, n, repaired);
	else
		warnx("%s: %llu differences; 'tandemctl verify %s --repair' sends them again", cm->name, n,
		      cm->name);
	if (n == 0 || (repair && repaired >= n))
		return CTL_OK;
	return CTL_BEHIND;
}

static int compare(const struct ctl_mirror *cm, const struct ctl_args *a, const char *op, const json_t *args,
		   json_t **last)
{
	uint64_t seq;
	bool mounted;

	/* what programs wrote so far is to be compared, not what will be sent in a second */
	int rc = ctl_flush(cm, &seq, &mounted, -1);
	if (rc < 0)
		return rc;
	int fd = ctl_dial(cm, CTL_SOCK_REPLICATOR);
	rc = fd < 0 ? fd : stream(fd, op, args, a->json, last);
	if (fd >= 0)
		close(fd);
	if (rc < 0)
		ctl_complain(cm, CTL_SOCK_REPLICATOR, rc, *last);
	return rc;
}

int cmd_verify(const struct ctl_args *a)
{
	json_t *args = json_pack("{s:b, s:b}", "repair", a->repair, "checksum", a->checksum), *last = NULL;
	struct ctl_mirror cm;
	int rc = CTL_BROKEN;

	if (ctl_mirror_open(&cm, a, a->name) == 0 && compare(&cm, a, "verify", args, &last) == 0)
		rc = conclude(&cm, last, a->repair);
	json_decref(last);
	json_decref(args);
	ctl_mirror_close(&cm);
	return rc;
}

int cmd_resync(const struct ctl_args *a)
{
	json_t *args = json_pack("{s:b}", "dry_run", a->dry_run), *last = NULL;
	struct ctl_mirror cm;
	int rc = CTL_BROKEN;

	if (ctl_mirror_open(&cm, a, a->name) == 0 && compare(&cm, a, "resync", args, &last) == 0) {
		if (a->dry_run || json_object_get(last, "differences")) {
			rc = conclude(&cm, last, !a->dry_run);
		} else {
			warnx("%s: the comparison has begun; 'tandemctl status %s' shows it, 'tandemctl wait "
			      "%s' waits",
			      a->name, a->name, a->name);
			rc = CTL_OK;
		}
	}
	json_decref(last);
	json_decref(args);
	ctl_mirror_close(&cm);
	return rc;
}
