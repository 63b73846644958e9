/* SPDX-License-Identifier: BSD-2-Clause
 * Finding the mirror a command is about: by its section in mirrors.conf, or, without a configuration
 * file, by its directory in the place where tandemfs keeps state by default, or by that directory's path. */
#include "config.h"
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "proto/err.h"
#include "replicator/ctl/ctl.h"

/* The directory in which tandemfs without a configuration file makes state directories (as
 * mirror_from_args). Owned by the caller; NULL when there is none. */
static char *default_base(void)
{
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *out;
	int n;

	if (geteuid() == 0)
		return strdup("/var/lib/tandem");
	if (xdg && *xdg == '/')
		n = asprintf(&out, "%s/tandem", xdg);
	else if (home && *home)
		n = asprintf(&out, "%s/.local/state/tandem", home);
	else
		return NULL;
	return n < 0 ? NULL : out;
}

static bool have_config(const struct ctl_args *a)
{
	return a->config_given || access(a->config, F_OK) == 0;
}

/* The state directory of a section, whatever else is wrong with the file: a mirror that runs can be asked and
 * unmounted. */
static char *raw_state_dir(struct conf *c, const char *name)
{
	struct conf_section *s = conf_section(c, name);
	struct conf_entry *e = s ? conf_get(s, "state dir", 0) : NULL;
	char *out;

	if (s == NULL)
		return NULL;
	if (e == NULL)
		e = conf_get(&c->sections[0], "state dir", 0);
	const char *dir = e == NULL ? "/var/lib/tandem" : e->value ? e->value : "";
	return *dir != '/' || asprintf(&out, "%s/%s", dir, name) < 0 ? NULL : out;
}

static int from_config(struct ctl_mirror *cm, const struct ctl_args *a, const char *name)
{
	int rc = mirror_load(&cm->m, &cm->conf, a->config, name);

	cm->configured = true;
	if (cm->conf.nerrors > 0) {
		cm->state_dir = raw_state_dir(&cm->conf, name);
		return E_CONF;
	}
	if (rc < 0)
		return rc;
	cm->state_dir = strdup(cm->m.state_dir);
	return cm->state_dir ? 0 : -ENOMEM;
}

static int from_default(struct ctl_mirror *cm, const struct ctl_args *a, const char *name)
{
	char *base = default_base();

	if (base == NULL || strchr(name, '/') || asprintf(&cm->state_dir, "%s/%s", base, name) < 0)
		cm->state_dir = NULL;
	free(base);
	if (cm->state_dir && access(cm->state_dir, F_OK) == 0)
		return 0;
	return -ENOENT;
}

/* A name with a slash is the state directory itself. */
static int from_path(struct ctl_mirror *cm, const char *path)
{
	cm->state_dir = strdup(path);
	if (cm->state_dir == NULL)
		return -ENOMEM;
	for (size_t n = strlen(path); n > 1 && cm->state_dir[n - 1] == '/'; n--)
		cm->state_dir[n - 1] = '\0';
	const char *slash = strrchr(cm->state_dir, '/');
	if (slash && slash[1])
		cm->name = slash + 1;
	return access(path, F_OK) == 0 ? 0 : -ENOENT;
}

int ctl_mirror_find(struct ctl_mirror *cm, const struct ctl_args *a, const char *name)
{
	memset(cm, 0, sizeof(*cm));
	cm->statefd = -1;
	cm->name = name;
	cm->config = a->config;
	int rc = strchr(name, '/') ? from_path(cm, name)
		 : have_config(a)  ? from_config(cm, a, name)
				   : from_default(cm, a, name);
	if (cm->state_dir == NULL || (rc < 0 && rc != E_CONF))
		return rc;
	cm->statefd = open(cm->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return rc == 0 && cm->statefd < 0 && errno != ENOENT ? -errno : rc;
}

const char *ctl_state_hint(int err)
{
	if (err == -EIO || err == -EROFS || err == -ENXIO || err == -ENODEV)
		return "look at that directory's disk; the mount works without it, changes are kept in memory, and umount ends it";
	return "run tandemctl as the user who runs tandemfs";
}

int ctl_mirror_open(struct ctl_mirror *cm, const struct ctl_args *a, const char *name)
{
	int rc = ctl_mirror_find(cm, a, name);

	if (rc == E_CONF) {
		conf_print(&cm->conf);
		rc = cm->statefd >= 0 ? 0 : rc;
	} else if (rc < 0 && cm->configured && cm->state_dir == NULL)
		warnx("%s: mirror '%s': %s", a->config, name, err_text(rc));
	else if (rc < 0 && cm->configured)
		warnx("%s: %s; %s", cm->state_dir, err_text(rc), ctl_state_hint(rc));
	else if (rc < 0 && strchr(name, '/'))
		warnx("%s: %s: it should be the state directory of a mirror", name, err_text(rc));
	else if (rc < 0)
		warnx("there is no %s and no mirror '%s' was started without one; name the configuration "
		      "with --config FILE",
		      a->config, name);
	return rc;
}

void ctl_mirror_close(struct ctl_mirror *cm)
{
	if (cm->statefd >= 0)
		close(cm->statefd);
	free(cm->state_dir);
	if (cm->configured) {
		mirror_release(&cm->m);
		conf_release(&cm->conf);
	}
	memset(cm, 0, sizeof(*cm));
	cm->statefd = -1;
}

struct counted {
	void (*fn)(void *arg, const char *name);
	void *arg;
	int n;
};

static void count_one(void *arg, const char *name)
{
	struct counted *c = arg;

	c->n++;
	c->fn(c->arg, name);
}

static int each_default(struct counted *c)
{
	char *base = default_base();
	DIR *d = base ? opendir(base) : NULL;

	if (d == NULL) {
		free(base);
		return 0;
	}
	for (struct dirent *e; (e = readdir(d)) != NULL;)
		if (e->d_name[0] != '.')
			count_one(c, e->d_name);
	closedir(d);
	free(base);
	return 0;
}

static int each_config(const struct ctl_args *a, struct counted *c)
{
	struct conf conf;
	int rc = conf_read(&conf, a->config);

	if (rc < 0) {
		warnx("%s: %s", a->config, err_text(rc));
	} else {
		mirror_each(&conf, count_one, c); /* whatever is wrong with the file: what runs can be asked, and who asks prints it */
		if (c->n == 0 && conf_print(&conf) > 0)
			rc = E_CONF;
	}
	conf_release(&conf);
	return rc;
}

int ctl_mirror_each(const struct ctl_args *a, void (*fn)(void *arg, const char *name), void *arg)
{
	struct counted c = {.fn = fn, .arg = arg};
	int rc = have_config(a) ? each_config(a, &c) : each_default(&c);

	return rc < 0 ? rc : c.n;
}

void ctl_start_hint(const struct ctl_mirror *cm, bool replicator, char *out, size_t size)
{
	const char *prog = replicator ? "tandem-replicator" : "tandemfs";

	if (!cm->configured)
		snprintf(out, size, "tandemfs --target URL --password-file FILE SOURCE, as before");
	else if (strcmp(cm->config, MIRROR_CONF_DEFAULT) == 0)
		snprintf(out, size, "%s %s", prog, cm->name);
	else
		snprintf(out, size, "%s --config %s %s", prog, cm->config, cm->name);
}
