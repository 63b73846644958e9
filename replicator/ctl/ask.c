/* SPDX-License-Identifier: BSD-2-Clause
 * Questions to the processes of a mirror over their control sockets. */
#include "config.h"
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "proto/clock.h"
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/jhead.h"
#include "replicator/ctl/ctl.h"

int ctl_dial(const struct ctl_mirror *cm, const char *sock)
{
	return cm->statefd < 0 ? -ENOENT : ctl_connect(cm->statefd, sock);
}

int ctl_ask(const struct ctl_mirror *cm, const char *sock, const char *op, const json_t *args, json_t **reply,
	    int timeout_ms)
{
	*reply = NULL;
	int fd = ctl_dial(cm, sock);
	if (fd < 0)
		return fd;
	int fds[CTL_FDS_MAX] = {-1, -1, -1, -1};
	int rc = ctl_call(fd, op, args, reply, fds, timeout_ms);
	for (int i = 0; i < CTL_FDS_MAX; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	close(fd);
	return rc;
}

void ctl_complain(const struct ctl_mirror *cm, const char *sock, int err, const json_t *reply)
{
	bool replicator = strcmp(sock, CTL_SOCK_REPLICATOR) == 0;
	const char *who = replicator ? "tandem-replicator" : "tandemfs";
	char hint[1024], text[1024];

	if (err == E_REFUSED) {
		warnx("%s: %s: %s", cm->name, who,
		      ctl_show_text(text, sizeof(text), ctl_str(reply, "error")));
	} else if (err == -ENOENT || err == -ECONNREFUSED) {
		ctl_start_hint(cm, replicator, hint, sizeof(hint));
		warnx("%s: %s is not running (nobody answers on %s/%s); start it: %s", cm->name, who,
		      cm->state_dir, sock, hint);
	} else if (err == -EACCES || err == -EPERM) {
		warnx("%s: %s/%s: %s; run tandemctl as the user who runs %s", cm->name, cm->state_dir, sock,
		      err_text(err), who);
	} else if (err == E_CLOSED) {
		warnx("%s: %s ended while it was asked; see its log", cm->name, who);
	} else {
		warnx("%s: %s on %s/%s: %s", cm->name, who, cm->state_dir, sock, err_text(err));
	}
}

/* Write back dirty pages of shared mappings: syncfs on the mount. Only when the mount answers, since a
 * dead one would answer ENOTCONN or hang. */
static void write_back(const struct ctl_mirror *cm, int timeout_ms)
{
	json_t *reply;

	if (ctl_ask(cm, CTL_SOCK_MOUNT, "status", NULL, &reply, timeout_ms) == 0) {
		char *mountpoint = ctl_get_path(reply, "mountpoint");
		int fd = mountpoint ? open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
		free(mountpoint);
		if (fd >= 0) {
			if (syncfs(fd) < 0)
				warn("%s: syncfs %s", cm->name, ctl_str(reply, "mountpoint"));
			close(fd);
		}
	}
	json_decref(reply);
}

/* The journal's last sequence, from its head page, for a mount that is down. */
static int journal_end(const struct ctl_mirror *cm, uint64_t *seq)
{
	int fd = cm->statefd < 0 ? -1 : openat(cm->statefd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct jhead *h;

	if (fd < 0)
		return -ENOENT;
	int rc = jhead_map(&h, fd, 0);
	close(fd);
	if (rc < 0)
		return rc;
	*seq = atomic_load(&h->committed_seq);
	jhead_unmap(h);
	return 0;
}

int ctl_flush(const struct ctl_mirror *cm, uint64_t *seq, bool *mounted, int timeout_ms)
{
	json_t *reply;

	uint64_t begin = clock_mono();
	write_back(cm, timeout_ms >= 0 && timeout_ms < CTL_ASK_MS ? timeout_ms : CTL_ASK_MS);
	if (timeout_ms >= 0) {
		uint64_t spent = (clock_mono() - begin) / NS_PER_MS;
		timeout_ms = spent < (uint64_t)timeout_ms ? timeout_ms - (int)spent : 0;
	}
	int rc = ctl_ask(cm, CTL_SOCK_MOUNT, "flush", NULL, &reply, timeout_ms);
	if (mounted)
		*mounted = rc == 0;
	if (rc == 0)
		*seq = ctl_u64(reply, "seq");
	else if (rc != -ENOENT && rc != -ECONNREFUSED && rc != E_CLOSED)
		ctl_complain(cm, CTL_SOCK_MOUNT, rc, reply);
	else if ((rc = journal_end(cm, seq)) < 0)
		ctl_complain(cm, CTL_SOCK_MOUNT, -ENOENT, NULL);
	json_decref(reply);
	return rc;
}

double ctl_num(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

uint64_t ctl_u64(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

const char *ctl_str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

bool ctl_bool(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_true(v) || json_integer_value(v) != 0;
}
