/* SPDX-License-Identifier: BSD-2-Clause
 * Secrets files and keys: see auth.h. A secrets file has lines USER:PASSWORD; blank lines and lines that
 * begin with # or ; are comments. */
#include "config.h"
#include "replicator/module/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/path.h"

struct secret {
	char *user;
	char *password;
	uint8_t key[PSK_LEN];
	bool derived;
};

struct secrets {
	char *file;
	dev_t dev; /* the version that was read: device, inode, size, times, mode, owner */
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
	bool good;
	char why[512]; /* not good: what, and what to do */
	struct secret *v;
	size_t n;
};

struct auth_store {
	struct secrets *v;
	size_t n;
};

int auth_check_file(const char *file, bool strict, char *why, size_t size)
{
	if (strict)
		return fio_check_secret(file, why, size);
	if (access(file, R_OK) == 0)
		return 0;
	int err = -errno;
	snprintf(why, size, "%s: %s", file, err_text(err));
	return err;
}

static void free_secrets(struct secret *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (v[i].password)
			explicit_bzero(v[i].password, strlen(v[i].password));
		explicit_bzero(v[i].key, PSK_LEN);
		free(v[i].user);
		free(v[i].password);
	}
	free(v);
}

/* Cut one line. Returns 1 for a secret, 0 for a comment, -EINVAL. */
static int parse_line(char *line, struct secret *out)
{
	line[strcspn(line, "\r")] = 0;
	line += strspn(line, " \t");
	if (!*line || *line == '#' || *line == ';')
		return 0;
	char *colon = strchr(line, ':');
	if (!colon || colon == line || !colon[1])
		return -EINVAL;
	*colon = 0;
	out->user = strdup(line);
	out->password = strdup(colon + 1);
	out->derived = false;
	return 1;
}

/* Read all lines. why gets FILE:LINE for what is wrong. */
static int read_file(const char *file, struct secret **out, size_t *n, char *why, size_t size)
{
	char *text;
	size_t len;
	*out = NULL;
	*n = 0;
	int err = fio_slurp(AT_FDCWD, file, AUTH_FILE_MAX, &text, &len);
	if (err) {
		snprintf(why, size, "%s: %s", file, err_text(err));
		return err;
	}
	char *rest = text, *line;
	struct secret *v = NULL;
	for (int number = 1; !err && (line = strsep(&rest, "\n")); number++) {
		struct secret s = {0};
		int got = parse_line(line, &s);
		if (got < 0) {
			snprintf(why, size,
				 "%s:%d: must be USER:PASSWORD (a password alone belongs into the source's "
				 "password file)",
				 file, number);
			err = -EINVAL;
		}
		if (got <= 0)
			continue;
		struct secret *grown = *n < AUTH_USERS_MAX ? realloc(v, (*n + 1) * sizeof(*v)) : NULL;
		if (!grown || !s.user || !s.password) {
			snprintf(why, size, "%s: more than %d users", file, AUTH_USERS_MAX);
			free(s.user);
			free(s.password);
			v = grown ? grown : v;
			err = E_LIMIT;
			continue;
		}
		v = grown;
		v[(*n)++] = s;
	}
	explicit_bzero(text, len); /* NOLINT(clang-analyzer-core.NonNullParamChecker): fio_slurp gave it */
	free(text);
	if (err) {
		free_secrets(v, *n);
		*n = 0;
		return err;
	}
	*out = v;
	return 0;
}

static const struct secret *find_user(const struct secret *v, size_t n, const char *user)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].user, user) == 0)
			return &v[i];
	return NULL;
}

bool auth_file_has(const char *file, const char *user, char *why, size_t size)
{
	struct secret *v;
	size_t n;
	if (read_file(file, &v, &n, why, size))
		return false;
	bool has = find_user(v, n, user) != NULL;
	free_secrets(v, n);
	if (!has)
		snprintf(why, size,
			 "secrets file %s has no line for user \"%s\" of auth users: add %s:PASSWORD", file,
			 user, user);
	return has;
}

int auth_new(struct auth_store **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void auth_free(struct auth_store *s)
{
	for (size_t i = 0; s && i < s->n; i++) {
		free_secrets(s->v[i].v, s->v[i].n);
		free(s->v[i].file);
	}
	if (s)
		free(s->v);
	free(s);
}

static struct secrets *slot(struct auth_store *s, const char *file)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->v[i].file, file) == 0)
			return &s->v[i];
	struct secrets *v = realloc(s->v, (s->n + 1) * sizeof(*v));
	char *name = strdup(file);
	if (v)
		s->v = v;
	if (!v || !name) {
		free(name);
		return NULL;
	}
	v[s->n] = (struct secrets){.file = name};
	return &v[s->n++];
}

/* Say whether the file is the version that was read; remember the present one. */
static bool unchanged(struct secrets *f)
{
	struct stat st = {0};
	if (stat(f->file, &st))
		memset(&st, 0, sizeof(st));
	bool same = f->good && st.st_dev == f->dev && st.st_ino == f->ino && st.st_size == f->size &&
		    st.st_mtim.tv_sec == f->mtime.tv_sec && st.st_mtim.tv_nsec == f->mtime.tv_nsec &&
		    st.st_ctim.tv_sec == f->ctime.tv_sec && st.st_ctim.tv_nsec == f->ctime.tv_nsec;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->size = st.st_size;
	f->mtime = st.st_mtim;
	f->ctime = st.st_ctim;
	return same;
}

/* Take over keys that were derived before from the same user and password. */
static void keep_keys(struct auth_store *s, struct secret *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < s->n && !v[i].derived; k++) {
			const struct secret *old = find_user(s->v[k].v, s->v[k].n, v[i].user);
			if (old && old->derived && strcmp(old->password, v[i].password) == 0) {
				memcpy(v[i].key, old->key, PSK_LEN);
				v[i].derived = true;
			}
		}
	}
}

static void reload(struct auth_store *s, struct secrets *f, bool strict)
{
	struct secret *v;
	size_t n;
	f->good = false;
	if (auth_check_file(f->file, strict, f->why, sizeof(f->why)) ||
	    read_file(f->file, &v, &n, f->why, sizeof(f->why)))
		return;
	keep_keys(s, v, n);
	free_secrets(f->v, f->n);
	f->v = v;
	f->n = n;
	f->good = true;
}

/* Derive the keys of those users of f that the module lets in. */
static int derive(struct auth_store *s, struct secrets *f, const struct module_conf *m)
{
	int err = 0;
	for (size_t i = 0; i < f->n && !err; i++) {
		struct secret *one = &f->v[i];
		if (one->derived || modules_conf_right(m, one->user) == USER_DENY)
			continue;
		keep_keys(s, one, 1);
		if (one->derived)
			continue;
		err = psk_derive(one->key, one->user, one->password);
		one->derived = !err;
	}
	return err == -ENOMEM ? err : 0;
}

int auth_refresh(struct auth_store *s, const struct modules_conf *mc)
{
	for (size_t i = 0; i < mc->nmodules; i++) {
		const struct module_conf *m = &mc->modules[i];
		struct secrets *f = m->secrets_file ? slot(s, m->secrets_file) : NULL;
		if (!f && m->secrets_file)
			return -ENOMEM;
		if (f && !unchanged(f))
			reload(s, f, m->strict_modes);
		int err = f && f->good ? derive(s, f, m) : 0;
		if (err)
			return err;
	}
	return 0;
}

static const struct secrets *file_of(const struct auth_store *s, const struct module_conf *m)
{
	for (size_t i = 0; m->secrets_file && i < s->n; i++)
		if (strcmp(s->v[i].file, m->secrets_file) == 0)
			return &s->v[i];
	return NULL;
}

/* The key of user in one module. */
static int find_in(const struct auth_store *s, const struct module_conf *m, const char *user,
		   uint8_t key[PSK_LEN], char *why, size_t size)
{
	char shown[256];
	path_show(shown, sizeof(shown), user);
	const struct secrets *f = file_of(s, m);
	if (modules_conf_right(m, user) == USER_DENY) {
		snprintf(why, size, "user \"%s\" is not among \"auth users\" of module [%s]: add it there",
			 shown, m->name);
		return E_AUTH;
	}
	if (!f || !f->good) {
		snprintf(why, size, "secrets file of module [%s]: %s", m->name, f ? f->why : "none");
		return E_AUTH;
	}
	const struct secret *one = find_user(f->v, f->n, user);
	if (!one || !one->derived) {
		snprintf(why, size, "user \"%s\" has no line in the secrets file %s: add %s:PASSWORD", shown,
			 f->file, shown);
		return E_AUTH;
	}
	memcpy(key, one->key, PSK_LEN);
	snprintf(why, size,
		 "wrong password for user \"%s\": the source's password file must hold what stands after "
		 "\"%s:\" in %s",
		 shown, shown, f->file);
	return 0;
}

int auth_find(const struct auth_store *s, const struct modules_conf *mc, const char *user, const char *module,
	      uint8_t key[PSK_LEN], char *why, size_t size)
{
	char shown[256];
	const struct module_conf *m = *module ? modules_conf_find(mc, module) : NULL;
	if (m)
		return find_in(s, m, user, key, why, size);
	path_show(shown, sizeof(shown), *module ? module : user);
	if (*module) {
		snprintf(why, size,
			 "there is no module \"%s\": add a section [%s], or correct the source's target",
			 shown, shown);
		return E_AUTH;
	}
	for (size_t i = 0; i < mc->nmodules; i++)
		if (find_in(s, &mc->modules[i], user, key, why, size) == 0)
			return 0;
	snprintf(why, size, "user \"%s\" is not let in by any module", shown);
	return E_AUTH;
}
