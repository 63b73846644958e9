/* SPDX-License-Identifier: BSD-2-Clause
 * The doctor's checks of a mirror's own side: processes, state directory, source, password. */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>
#include "proto/err.h"
#include "replicator/ctl/check.h"

#ifndef SMB2_MAGIC_NUMBER
#define SMB2_MAGIC_NUMBER 0xfe534d42
#endif
#ifndef CIFS_SUPER_MAGIC
#define CIFS_SUPER_MAGIC 0xff534d42
#endif
#ifndef CEPH_SUPER_MAGIC
#define CEPH_SUPER_MAGIC 0x00c36400
#endif

static void label(const struct ctl_mirror *cm, const char *what, char *out, size_t size)
{
	snprintf(out, size, "%s %s", cm->name, what);
}

static void check_process(struct report *r, const struct ctl_mirror *cm, const char *sock, bool replicator)
{
	char what[256], hint[1024];
	json_t *reply;
	int rc = ctl_ask(cm, sock, "status", NULL, &reply, CTL_ASK_MS);

	label(cm, replicator ? "replicator" : "mount", what, sizeof(what));
	ctl_start_hint(cm, replicator, hint, sizeof(hint));
	if (rc == 0)
		check_say(r, V_OK, what, "runs");
	else if (rc == -ENOENT || rc == -ECONNREFUSED)
		check_say(r, V_WARN, what, "does not run; start it: %s", hint);
	else
		check_say(r, V_FAIL, what, "does not answer: %s; see its log", err_text(rc));
	json_decref(reply);
}

/* Free space of the file system that holds path (or will: its nearest existing parent). */
static int free_space(const char *path, double *out)
{
	char *p = strdup(path), *slash;
	struct statvfs v;
	int rc = -ENOMEM;

	while (p && (rc = statvfs(p, &v) < 0 ? -errno : 0) == -ENOENT && (slash = strrchr(p, '/')) != NULL)
		*(slash == p ? slash + 1 : slash) = '\0';
	free(p);
	if (rc == 0)
		*out = (double)v.f_bavail * (double)v.f_frsize;
	return rc;
}

static void check_state_dir(struct report *r, const struct ctl_mirror *cm)
{
	char what[256], need[32], have[32];
	struct stat st;
	double space = 0;

	label(cm, "state directory", what, sizeof(what));
	if (cm->statefd < 0)
		check_say(r, V_OK, what, "%s does not exist yet; tandemfs makes it", cm->state_dir);
	else if (fstat(cm->statefd, &st) < 0)
		check_say(r, V_FAIL, what, "%s: %s", cm->state_dir, strerror(errno));
	else if (st.st_uid != geteuid())
		check_say(r, V_FAIL, what, "%s belongs to user %u, not to you (%u): run as that user",
			  cm->state_dir, st.st_uid, geteuid());
	else if (st.st_mode & 077)
		check_say(r, V_FAIL, what,
			  "%s has mode %04o, it holds names and contents of your files: chmod 700 %s",
			  cm->state_dir, st.st_mode & 07777, cm->state_dir);
	else
		check_say(r, V_OK, what, "%s, mode %04o", cm->state_dir, st.st_mode & 07777);
	if (!cm->configured || free_space(cm->state_dir, &space) < 0)
		return;
	label(cm, "journal space", what, sizeof(what));
	ctl_show_bytes(have, sizeof(have), space);
	ctl_show_bytes(need, sizeof(need), (double)cm->m.journal_limit);
	if (space < (double)cm->m.journal_limit)
		check_say(r, V_WARN, what,
			  "%s free, the journal may grow to %s (journal limit): make room or lower the limit",
			  have, need);
	else
		check_say(r, V_OK, what, "%s free, the journal may grow to %s", have, need);
}

/* Is the source a file system where others can change files without passing through the mount? */
static const char *shared_fs(const char *path)
{
	struct statfs s;

	if (statfs(path, &s) < 0)
		return NULL;
	switch ((unsigned)s.f_type) {
	case NFS_SUPER_MAGIC:
		return "NFS";
	case (unsigned)SMB2_MAGIC_NUMBER:
	case (unsigned)CIFS_SUPER_MAGIC:
		return "SMB";
	case CEPH_SUPER_MAGIC:
		return "CephFS";
	case FUSE_SUPER_MAGIC:
		return "FUSE";
	default:
		return NULL;
	}
}

static bool mounted(const struct ctl_mirror *cm)
{
	json_t *reply;
	int rc = ctl_ask(cm, CTL_SOCK_MOUNT, "status", NULL, &reply, CTL_ASK_MS);

	json_decref(reply);
	return rc == 0;
}

static void check_source(struct report *r, const struct ctl_mirror *cm)
{
	char what[256];
	struct stat st;

	label(cm, "source", what, sizeof(what));
	if (stat(cm->m.source, &st) < 0) {
		check_say(r, V_FAIL, what, "%s: %s%s", cm->m.source, strerror(errno),
			  errno == ENOTCONN
			      ? "; a mount of a dead process is left: fusermount3 -uz, then start tandemfs"
			  : errno == ENOENT ? "; is its disk mounted?"
					    : "");
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		check_say(r, V_FAIL, what, "%s is not a directory", cm->m.source);
		return;
	}
	/* our own mount hides what is below it, unless it is mounted elsewhere */
	const char *fs =
	    mounted(cm) && strcmp(cm->m.source, cm->m.mountpoint) == 0 ? NULL : shared_fs(cm->m.source);
	if (fs == NULL)
		check_say(r, V_OK, what, "%s", cm->m.source);
	else if (cm->m.shared_source)
		check_say(r, V_OK, what, "%s is on %s, and shared source = yes", cm->m.source, fs);
	else
		check_say(
		    r, V_WARN, what,
		    "%s is on %s: what other clients write there does not pass through this mount and is "
		    "not seen. Let all writers use the mount, or set shared source = yes and verify now and "
		    "then",
		    cm->m.source, fs);
}

static void check_password(struct report *r, const struct ctl_mirror *cm)
{
	char what[256], why[1024] = "", *password;

	label(cm, "password file", what, sizeof(what));
	if (cm->m.password_file == NULL) {
		check_say(r, V_FAIL, what, "none; set `password file`");
	} else if (mirror_read_password(cm->m.password_file, &password, why, sizeof(why)) < 0) {
		check_say(r, V_FAIL, what, "%s", why);
	} else {
		check_say(r, V_OK, what, "%s", cm->m.password_file);
		explicit_bzero(password, strlen(password));
		free(password);
	}
}

void check_mirror(struct report *r, const struct ctl_mirror *cm)
{
	check_process(r, cm, CTL_SOCK_MOUNT, false);
	check_process(r, cm, CTL_SOCK_REPLICATOR, true);
	check_state_dir(r, cm);
	if (cm->configured) {
		check_source(r, cm);
		check_password(r, cm);
	}
}
