/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl modules: list the modules a daemon shows to this user. */
#include "config.h"
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "replicator/ctl/ctl.h"

static void print_modules(const json_t *list)
{
	char name[512], comment[1024];
	size_t i;
	json_t *m;

	json_array_foreach((json_t *)list, i, m)
	    printf("%-15s %-10s %s\n", ctl_show_text(name, sizeof(name), ctl_str(m, "name")),
		   ctl_bool(m, "read_only") ? "read only" : "writable",
		   ctl_show_text(comment, sizeof(comment), ctl_str(m, "comment")));
}

static int list_modules(const struct mirror_target *t, const char *password_file, bool json)
{
	char why[1024] = "";
	json_t *list = NULL;
	struct conn *c;
	int rc = ctl_connect_daemon(&c, t, "", password_file, why, sizeof(why));

	if (rc == 0) {
		rc = ctl_list_modules(c, &list, NULL, why, sizeof(why));
		conn_close(c);
	}
	if (rc < 0) {
		warnx("%s", why);
		return CTL_BROKEN;
	}
	if (json) {
		json_t *all = json_pack("{s:O}", "modules", list);
		json_dumpf(all, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
		putchar('\n');
		json_decref(all);
	} else {
		print_modules(list);
	}
	json_decref(list);
	return CTL_OK;
}

int cmd_modules(const struct ctl_args *a)
{
	const char *password_file = a->password_file ? a->password_file : getenv("TANDEM_PASSWORD_FILE");
	struct mirror_target t = {0};
	char why[1024] = "";

	if (mirror_parse_url(&t, a->name, why, sizeof(why)) < 0) {
		warnx("%s", why);
		return CTL_BROKEN;
	}
	int rc = list_modules(&t, password_file, a->json);
	ctl_target_release(&t);
	return rc;
}
