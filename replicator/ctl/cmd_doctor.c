/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl doctor: check this host, the mirrors and the way to their targets, and say what to do. */
#include "config.h"
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
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
};

static void visit_mirror(void *arg, const char *name)
{
	struct visit *v = arg;
	struct ctl_mirror cm;

	if (ctl_mirror_open(&cm, v->a, name) < 0) {
		check_say(v->r, V_FAIL, name, "cannot be read; the reason is above (standard error)");
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
	} else if (!a->config_given && access(a->config, F_OK) < 0) {
		check_say(&r, V_OK, "mirrors", "no %s on this host; nothing more to check on a standby",
			  a->config);
	} else {
		int n = ctl_mirror_each(a, visit_mirror, &v);
		if (n < 0)
			check_say(&r, V_FAIL, "mirrors", "%s is wrong; the reason is above (standard error)",
				  a->config);
		else if (n == 0)
			check_say(&r, V_WARN, "mirrors", "%s has no mirror; add a section", a->config);
	}
	return r.failures ? CTL_BEHIND : CTL_OK;
}
