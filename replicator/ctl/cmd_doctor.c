/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl doctor: check this host and the way to the targets. */
#include "config.h"
#include <err.h>
#include "replicator/ctl/ctl.h"

int cmd_doctor(const struct ctl_args *a)
{
	warnx("doctor: not there yet");
	return CTL_BROKEN;
}
