/* SPDX-License-Identifier: BSD-2-Clause
 * The status of one mirror: mount's and replicator's replies merged into one object. */
#include "config.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "proto/err.h"
#include "replicator/ctl/status.h"

/* Take the members of a reply into s; "pid" gets its owner's name in front. */
static void merge(json_t *s, json_t *reply, const char *pid_name)
{
	json_t *pid = json_object_get(reply, "pid");

	if (pid)
		json_object_set(s, pid_name, pid);
	json_object_del(reply, "pid");
	json_object_del(reply, "ok");
	if (ctl_u64(s, "seq") > ctl_u64(reply, "seq"))
		json_object_del(reply, "seq");
	json_object_update(s, reply);
}

static void worsen(json_t *s, const char *state)
{
	if (strcmp(ctl_str(s, "state"), "broken") != 0)
		json_object_set_new(s, "state", json_string(state));
}

static void problem(json_t *s, const char *state, const char *text, const char *remedy)
{
	json_t *p = json_object();

	ctl_set_path(p, "text", text);
	ctl_set_path(p, "remedy", remedy);
	json_array_append_new(json_object_get(s, "problems"), p);
	worsen(s, state);
}

static void ask(json_t *s, const struct ctl_mirror *cm, const char *sock, bool replicator)
{
	json_t *reply;
	int rc = ctl_ask(cm, sock, "status", NULL, &reply, CTL_ASK_MS);
	const char *who = replicator ? "tandem-replicator" : "tandemfs";
	char text[512], hint[1024], cmd[900];

	json_object_set_new(s, replicator ? "replicator" : "mount", json_boolean(rc == 0));
	if (rc == 0) {
		merge(s, reply, replicator ? "replicator_pid" : "mount_pid");
	} else if (rc == -ENOENT || rc == -ECONNREFUSED) {
		ctl_start_hint(cm, replicator, cmd, sizeof(cmd));
		snprintf(text, sizeof(text), "%s is not running%s", who,
			 cm->statefd < 0 ? " and never was: its state directory does not exist"
			 : replicator	 ? ": nothing is sent"
					 : ": changes made in the directory now are not seen");
		snprintf(hint, sizeof(hint), "start it: %s", cmd);
		problem(s, "broken", text, hint);
	} else {
		snprintf(text, sizeof(text), "%s does not answer: %s", who,
			 rc == E_REFUSED ? ctl_str(reply, "error") : err_text(rc));
		problem(s, "broken", text, "look into its log; run tandemctl as the user who runs it");
	}
	json_decref(reply);
}

static void add_configured_targets(json_t *s, const struct ctl_mirror *cm)
{
	json_t *targets = json_array();

	for (int i = 0; cm->configured && i < cm->m.ntargets; i++) {
		json_t *t = json_pack("{s:s}", "state", "unknown");
		ctl_set_path(t, "url", cm->m.targets[i].url);
		json_array_append_new(targets, t);
	}
	json_object_set_new(s, "targets", targets);
}

/* What the replies say about the mirror as a whole. */
static void judge(json_t *s)
{
	char resume[256];
	size_t i;
	json_t *t;

	snprintf(resume, sizeof(resume), "tandemctl resume %s", ctl_str(s, "name"));
	if (ctl_bool(s, "degraded"))
		problem(s, "broken", "the journal cannot be written: changes are kept in memory only",
			"make room in the state directory and check its disk; the mount goes on by itself");
	if (ctl_bool(s, "collapsed"))
		problem(s, "behind",
			"the journal reached its limit: the oldest records became a list of paths to compare",
			"nothing; raise `journal limit` if targets stay away that long");
	if (ctl_bool(s, "paused"))
		problem(s, "behind", "sending is paused", resume);
	json_array_foreach(json_object_get(s, "targets"), i, t)
	{
		const char *state = ctl_str(t, "state");
		if (strcmp(state, "refused") == 0 || strcmp(state, "held") == 0 ||
		    json_array_size(json_object_get(t, "errors")) > 0)
			worsen(s, "broken");
	}
}

json_t *status_collect(const struct ctl_mirror *cm)
{
	json_t *s = json_pack("{s:[]}", "problems");

	ctl_set_path(s, "name", cm->name);

	ask(s, cm, CTL_SOCK_MOUNT, false);
	/* the mount's reply has no state; the replicator's must not hide a mount that is down */
	bool mount_down = strcmp(ctl_str(s, "state"), "broken") == 0;
	ask(s, cm, CTL_SOCK_REPLICATOR, true);
	if (mount_down)
		json_object_set_new(s, "state", json_string("broken"));
	if (!json_is_array(json_object_get(s, "targets")))
		add_configured_targets(s, cm);
	if (json_object_get(s, "state") == NULL)
		json_object_set_new(s, "state", json_string("broken"));
	if (cm->configured) {
		if (json_object_get(s, "source") == NULL)
			ctl_set_path(s, "source", cm->m.source);
		if (json_object_get(s, "mountpoint") == NULL)
			ctl_set_path(s, "mountpoint", cm->m.mountpoint);
	}
	judge(s);
	return s;
}

int status_exit(const json_t *status)
{
	const char *state = ctl_str(status, "state");

	return strcmp(state, "insync") == 0 ? CTL_OK : strcmp(state, "behind") == 0 ? CTL_BEHIND : CTL_BROKEN;
}
