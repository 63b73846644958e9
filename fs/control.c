/* SPDX-License-Identifier: BSD-2-Clause
 * The control socket: one thread, one poll set; requests are small and answered at once. */
#include "config.h"

#include "fs/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fs/dirty.h"
#include "fs/silly.h"
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/log.h"

#define CLIENTS 64

struct client {
	int fd;   /* -1: free */
	int slot; /* the reader's doorbell, -1 */
};

struct control {
	pthread_t thread;
	int listenfd;
	int stopfd;
	struct client clients[CLIENTS]; /* the thread's alone */
};

static json_t *refuse(const char *text)
{
	return json_pack("{s:b,s:s}", "ok", 0, "error", text);
}

static void reply_with(int fd, json_t *obj, const int *fds, int nfds)
{
	if (obj)
		ctl_send(fd, obj, fds, nfds);
	json_decref(obj);
}

static json_t *with_places(const struct tfs *fs, json_t *o)
{
	ctl_set_path(o, "source", fs->mirror->source);
	ctl_set_path(o, "mountpoint", fs->mirror->mountpoint);
	return o;
}

static void do_attach(struct tfs *fs, struct client *c, int fds[CTL_FDS_MAX])
{
	int out[2] = {fs->rootfd, fs->journalfd};

	if (c->slot >= 0 || fds[0] < 0) {
		reply_with(c->fd, refuse(c->slot >= 0 ? "attached already" : "attach needs an eventfd"), NULL, 0);
		return;
	}
	c->slot = journal_listen(fs->journal, fds[0]);
	if (c->slot < 0) {
		reply_with(c->fd, refuse("no doorbell is free: too many readers"), NULL, 0);
		return;
	}
	fds[0] = -1; /* the journal keeps it */
	reply_with(c->fd, with_places(fs, json_pack("{s:b,s:i,s:s}", "ok", 1, "slot", c->slot, "source_id", fs->source_id)), out, 2);
}

static json_t *features(const struct tfs *fs)
{
	return json_pack("{s:b,s:b,s:b,s:b,s:b,s:b,s:s}", "io_uring", fs->uring, "passthrough", 0,
	    "killpriv_v2", fs->killpriv, "exclusive", fs->exclusive, "privileged",
	    fs->privileged, "remote", fs->remote, "libfuse", fuse_pkgversion());
}

static void do_status(struct tfs *fs, struct client *c)
{
	struct jhead *h = journal_head(fs->journal);
	size_t inodes;

	pthread_mutex_lock(&fs->tree.lock);
	inodes = fs->tree.ninodes;
	pthread_mutex_unlock(&fs->tree.lock);
	reply_with(c->fd,
	    with_places(fs, json_pack("{s:b,s:i,s:I,s:I,s:I,s:b,s:b,s:I,s:I,s:o}", "ok", 1, "pid", (int)getpid(),
		"seq", (json_int_t)journal_seq(fs->journal), "journal_bytes", (json_int_t)atomic_load(&h->bytes), "journal_limit", (json_int_t)fs->mirror->journal_limit,
		"degraded", atomic_load(&h->degraded) != 0, "collapsed", atomic_load(&h->collapsed) != 0, "open_dirty",
		(json_int_t)dirty_count(fs), "inodes", (json_int_t)inodes, "features", features(fs))),
	    NULL, 0);
}

static void do_recheck(struct tfs *fs, struct client *c, const json_t *req)
{
	const char *path = json_string_value(json_object_get(req, "path"));
	struct jrec r;

	if (!path || !path_valid(path)) {
		reply_with(c->fd, refuse("recheck needs a path relative to the source, without leading slash"), NULL, 0);
		return;
	}
	jrec_init(&r, JT_RECHECK);
	r.path = path;
	if (json_is_true(json_object_get(req, "recursive")))
		r.flags |= JF_RECURSIVE;
	if (json_is_true(json_object_get(req, "checksum")))
		r.flags |= JF_CHECKSUM;
	pthread_mutex_lock(&fs->tree.lock);
	journal_append(fs->journal, &r);
	pthread_mutex_unlock(&fs->tree.lock);
	reply_with(c->fd, json_pack("{s:b,s:I}", "ok", 1, "seq", (json_int_t)r.seq), NULL, 0);
}

static void do_flush(struct tfs *fs, struct client *c)
{
	dirty_emit_all(fs);
	silly_settle(fs);
	reply_with(c->fd, json_pack("{s:b,s:I}", "ok", 1, "seq", (json_int_t)journal_flushed(fs->journal)), NULL, 0);
}

static void handle(struct tfs *fs, struct client *c, const json_t *req, int fds[CTL_FDS_MAX])
{
	const char *op = json_string_value(json_object_get(req, "op"));

	if (!op)
		reply_with(c->fd, refuse("no op"), NULL, 0);
	else if (strcmp(op, "attach") == 0)
		do_attach(fs, c, fds);
	else if (strcmp(op, "flush") == 0)
		do_flush(fs, c);
	else if (strcmp(op, "status") == 0)
		do_status(fs, c);
	else if (strcmp(op, "recheck") == 0)
		do_recheck(fs, c, req);
	else if (strcmp(op, "unmount") == 0) {
		reply_with(c->fd, json_pack("{s:b}", "ok", 1), NULL, 0);
		log_info("unmount was asked for over the control socket");
		kill(getppid(), SIGTERM); /* the supervisor unmounts, from outside */
	} else
		reply_with(c->fd, refuse("unknown op"), NULL, 0);
}

static void client_close(struct tfs *fs, struct client *c)
{
	if (c->slot >= 0)
		journal_unlisten(fs->journal, c->slot);
	close(c->fd);
	c->fd = -1;
	c->slot = -1;
}

static void client_read(struct tfs *fs, struct client *c)
{
	int fds[CTL_FDS_MAX] = {-1, -1, -1, -1};
	json_t *req = NULL;
	int r = ctl_recv(c->fd, &req, fds, 1000);

	if (r == 0)
		handle(fs, c, req, fds);
	json_decref(req);
	for (int n = 0; n < CTL_FDS_MAX; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	if (r < 0)
		client_close(fs, c);
}

static void client_accept(struct control *ct)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	int fd = accept4(ct->listenfd, NULL, NULL, SOCK_CLOEXEC); /* cppcheck-suppress nullPointer ; the address is not wanted */

	if (fd < 0) {
		nanosleep(&pause, NULL); /* without descriptors it would be asked for again at once */
		return;
	}
	for (int n = 0; n < CLIENTS; n++) {
		if (ct->clients[n].fd >= 0)
			continue;
		ct->clients[n] = (struct client){.fd = fd, .slot = -1};
		return;
	}
	reply_with(fd, refuse("too many connections"), NULL, 0);
	close(fd);
}

static void *control_thread(void *arg)
{
	struct tfs *fs = arg;
	struct control *ct = fs->control;
	struct pollfd p[CLIENTS + 2];

	for (;;) {
		p[0] = (struct pollfd){.fd = ct->stopfd, .events = POLLIN};
		p[1] = (struct pollfd){.fd = ct->listenfd, .events = POLLIN};
		for (int n = 0; n < CLIENTS; n++)
			p[n + 2] = (struct pollfd){.fd = ct->clients[n].fd, .events = POLLIN};
		if (poll(p, CLIENTS + 2, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents)
			break;
		for (int n = 0; n < CLIENTS; n++)
			if (p[n + 2].fd >= 0 && p[n + 2].revents)
				client_read(fs, &ct->clients[n]);
		if (p[1].revents)
			client_accept(ct);
	}
	return NULL;
}

int control_start(struct tfs *fs)
{
	struct control *ct = calloc(1, sizeof(*ct));
	int r;

	if (!ct)
		return -ENOMEM;
	for (int n = 0; n < CLIENTS; n++)
		ct->clients[n] = (struct client){.fd = -1, .slot = -1};
	ct->stopfd = eventfd(0, EFD_CLOEXEC);
	ct->listenfd = ctl_listen(fs->statefd, "mount.sock");
	r = ct->stopfd < 0 ? -errno : ct->listenfd < 0 ? ct->listenfd : 0;
	fs->control = ct;
	if (r == 0)
		r = -pthread_create(&ct->thread, NULL, control_thread, fs);
	if (r < 0) {
		close(ct->stopfd);
		close(ct->listenfd);
		free(ct);
		fs->control = NULL;
	}
	return r;
}

void control_stop(struct tfs *fs)
{
	struct control *ct = fs->control;
	uint64_t one = 1;

	if (!ct)
		return;
	if (write(ct->stopfd, &one, sizeof(one)) < 0)
		log_warn("control socket: %s", strerror(errno));
	pthread_join(ct->thread, NULL);
	for (int n = 0; n < CLIENTS; n++)
		if (ct->clients[n].fd >= 0)
			client_close(fs, &ct->clients[n]);
	unlinkat(fs->statefd, "mount.sock", 0);
	close(ct->stopfd);
	close(ct->listenfd);
	free(ct);
	fs->control = NULL;
}
