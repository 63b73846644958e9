/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl pause, resume: stop and continue sending. */
#include "config.h"
#include <stdio.h>
#include "replicator/ctl/ctl.h"

static int tell(const struct ctl_args *a, const char *op)
{
	struct ctl_mirror cm;
	json_t *reply = NULL;
	int rc = ctl_mirror_open(&cm, a, a->name);

	if (rc == 0) {
		rc = ctl_ask(&cm, CTL_SOCK_REPLICATOR, op, NULL, &reply, CTL_ASK_MS);
		if (rc < 0)
			ctl_complain(&cm, CTL_SOCK_REPLICATOR, rc, reply);
	}
	json_decref(reply);
	ctl_mirror_close(&cm);
	return rc == 0 ? CTL_OK : CTL_BROKEN;
}

int cmd_pause(const struct ctl_args *a)
{
	return tell(a, "pause");
}

int cmd_resume(const struct ctl_args *a)
{
	return tell(a, "resume");
}
