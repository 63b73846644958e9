/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl doctor: check this host, the mirrors and the way to their targets, and say what to do. */
#include "config.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include "proto/err.h"
#include "replicator/ctl/check.h"

void check_say(struct report *r, enum verdict v, const char *what, const char *fmt, ...)
{
	static const char *const word[] = {[V_OK] = "ok  ", [V_WARN] = "warn", [V_FAIL] = "FAIL"};
	char text[2048], shown[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("%s %s: %s\n", word[v], what, ctl_show_text(shown, sizeof(shown), text));
	fflush(stdout);
	r->failures += v == V_FAIL;
	r->warnings += v == V_WARN;
}

struct visit {
	const struct ctl_args *a;
	struct report *r;
	bool told; /* the file's diagnostics were printed */
};

static void tell_conf(struct visit *v, const struct conf *c)
{
	char what[4096];

	for (size_t i = 0; i < c->ndiags && !v->told; i++) {
		snprintf(what, sizeof(what), "%s:%d", v->a->config, c->diags[i].line);
		check_say(v->r, c->diags[i].severity == CONF_ERROR ? V_FAIL : V_OK, what, "%s",
			  c->diags[i].text);
	}
	v->told = true;
}

/* The configuration is wrong, but the way to the targets can be checked all the same. */
static void check_raw_targets(struct visit *v, struct ctl_mirror *cm)
{
	struct conf_section *s = conf_section(&cm->conf, cm->name);
	struct conf_entry *e;
	char why[512];

	for (int nth = 1; s && (e = conf_get(s, "target", nth)) != NULL; nth++) {
		struct mirror_target t = {0};
		if (e->value && mirror_parse_url(&t, e->value, why, sizeof(why)) == 0)
			check_target(v->r, cm, &t);
		ctl_target_release(&t);
	}
}

static void visit_mirror(void *arg, const char *name)
{
	struct visit *v = arg;
	struct ctl_mirror cm;
	int rc = ctl_mirror_find(&cm, v->a, name);

	if (cm.configured)
		tell_conf(v, &cm.conf);
	if (rc == E_CONF) {
		check_raw_targets(v, &cm);
	} else if (rc == -ENOENT) {
		check_say(v->r, V_FAIL, name, "%s: %s; name the configuration with --config FILE, or a mirror that was started without one",
			  cm.configured || !cm.state_dir ? v->a->config : cm.state_dir, err_text(rc));
	} else if (rc < 0) {
		check_say(v->r, V_FAIL, name, "%s: %s; %s",
			  cm.state_dir ? cm.state_dir : v->a->config, err_text(rc), ctl_state_hint(rc));
	} else {
		check_mirror(v->r, &cm);
		for (int i = 0; cm.configured && i < cm.m.ntargets; i++)
			check_target(v->r, &cm, &cm.m.targets[i]);
	}
	ctl_mirror_close(&cm);
}

int cmd_doctor(const struct ctl_args *a)
{
	struct report r = {0};
	struct visit v = {.a = a, .r = &r};

	check_host(&r);
	if (a->name) {
		visit_mirror(&v, a->name);
	} else {
		bool file = a->config_given || access(a->config, F_OK) == 0;
		int n = ctl_mirror_each(a, visit_mirror, &v);
		if (n < 0)
			check_say(&r, V_FAIL, "mirrors", "%s is wrong; the reason is above (standard error)",
				  a->config);
		else if (n == 0 && !file)
			check_say(&r, V_OK, "mirrors",
				  "no %s on this host, and none was started without it; nothing more to check on a standby", a->config);
		else if (n == 0)
			check_say(&r, V_WARN, "mirrors", "%s has no mirror; add a section", a->config);
	}
	return r.failures ? CTL_BEHIND : CTL_OK;
}
