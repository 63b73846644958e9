/* SPDX-License-Identifier: BSD-2-Clause
 * modules.conf on any bytes: rsyncd.conf's grammar and the meaning of its keys. */
#include "config.h"

#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proto/filter.h"
#include "replicator/module/modules_conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The host's tables are not ours, and reading them is most of the time. */
struct passwd *__wrap_getpwnam(const char *name);
struct passwd *__wrap_getpwnam(const char *name)
{
	static char names[2][8] = {"root", "nobody"};
	static struct passwd root = {.pw_name = names[0]}, nobody = {.pw_name = names[1], .pw_uid = 65534, .pw_gid = 65534};

	return strcmp(name, "root") == 0 ? &root : strcmp(name, "nobody") == 0 ? &nobody : NULL;
}

struct group *__wrap_getgrnam(const char *name);
struct group *__wrap_getgrnam(const char *name)
{
	static char names[2][8] = {"root", "nogroup"};
	static struct group root = {.gr_name = names[0]}, nogroup = {.gr_name = names[1], .gr_gid = 65534};

	return strcmp(name, "root") == 0 ? &root : strcmp(name, "nogroup") == 0 ? &nogroup : NULL;
}

/* What the daemon does with a configuration that was accepted. */
static void use(const struct modules_conf *mc)
{
	static const uint8_t peer[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1};

	for (size_t i = 0; i < mc->nmodules; i++) {
		const struct module_conf *m = &mc->modules[i];

		if (m->name == NULL || m->path == NULL || *m->path != '/' || modules_conf_find(mc, m->name) == NULL)
			abort();
		(void)modules_conf_right(m, "user");
		(void)hosts_allowed(&m->allow, &m->deny, peer);
		(void)filter_excluded(&m->filter, "a/b", false);
	}
}

static void check(const struct modules_conf *mc)
{
	size_t errors = 0;

	for (size_t i = 0; i < mc->conf.ndiags; i++) {
		if (mc->conf.diags[i].text == NULL || *mc->conf.diags[i].text == '\0')
			abort();
		errors += mc->conf.diags[i].severity == CONF_ERROR;
	}
	if (errors != mc->conf.nerrors)
		abort();
	if (errors == 0)
		use(mc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("modules.conf", MFD_CLOEXEC);
	struct modules_conf mc;
	char path[64];

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (modules_conf_read(&mc, path) == 0)
		check(&mc);
	modules_conf_release(&mc);
	close(fd);
	return 0;
}
