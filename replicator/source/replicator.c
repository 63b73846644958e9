/* SPDX-License-Identifier: BSD-2-Clause
 * The replicator process: configuration, lock, targets, and the accept loop of its control socket. It ends on SIGTERM or SIGINT, or, when
 * tandemfs started it, with its parent (PR_SET_PDEATHSIG, set there). */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"
#include "proto/clock.h"
#include "replicator/source/replicator.h"

#define CLIENTS_MAX 64
#define STOP_MS     1500

struct client {
	struct replicator *r;
	int fd;
	_Atomic int *count;
};

/* Say why it cannot start: in the log, and to who typed the command if that is elsewhere. */
static void __attribute__((format(printf, 2, 3))) start_error(bool foreground, const char *fmt, ...)
{
	char text[PATH_MAX + 256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	log_error("%s", text);
	if (!foreground)
		fprintf(stderr, "tandem-replicator: %s\n", text);
}

static int take_lock(struct replicator *r, bool foreground)
{
	r->state_dirfd = fio_open_dir(r->mirror.state_dir);
	if (r->state_dirfd < 0) {
		start_error(foreground, "cannot open the state directory %s: %s", r->mirror.state_dir, err_text(r->state_dirfd));
		return r->state_dirfd;
	}
	r->lockfd = openat(r->state_dirfd, "replicator.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r->lockfd < 0 || flock(r->lockfd, LOCK_EX | LOCK_NB) != 0) {
		int err = -errno;

		if (err == -EWOULDBLOCK)
			start_error(foreground, "another tandem-replicator runs for mirror %s", r->mirror.name);
		else
			start_error(foreground, "cannot lock %s/replicator.lock: %s", r->mirror.state_dir, err_text(err));
		return err;
	}
	return 0;
}

static void on_changed(void *arg)
{
	struct replicator *r = arg;

	reclaim(r);
	pthread_mutex_lock(&r->lock);
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static int start_targets(struct replicator *r)
{
	struct target_env env = {.mirror = &r->mirror, .state_dirfd = r->state_dirfd, .paused = r->paused, .changed = on_changed, .arg = r};
	struct target *all[MIRROR_TARGETS_MAX] = {NULL};
	int ret = 0, n = 0;

	for (; ret == 0 && n < r->mirror.ntargets; n += ret == 0) {
		env.to = &r->mirror.targets[n];
		ret = target_start(&all[n], &env);
		if (ret < 0)
			log_error("%s: cannot start: %s", env.to->url, err_text(ret));
	}
	pthread_mutex_lock(&r->lock);
	memcpy(r->targets, all, sizeof all[0] * (size_t)n);
	r->ntargets = n;
	pthread_mutex_unlock(&r->lock);
	return ret;
}

static void stop_targets(struct replicator *r)
{
	uint64_t until = clock_mono() + STOP_MS * NS_PER_MS;
	bool ended = true;
	int i;

	for (i = 0; i < r->ntargets; i++)
		target_stop(r->targets[i]);
	for (i = 0; i < r->ntargets; i++)
		ended &= target_join(r->targets[i], until);
	for (i = 0; ended && i < r->ntargets; i++)
		target_free(r->targets[i]);
}

static void *serve(void *arg)
{
	struct client *c = arg;

	control_serve(c->r, c->fd);
	atomic_fetch_sub(c->count, 1);
	free(c);
	return NULL;
}

static void accept_client(struct replicator *r, int sock, _Atomic int *count)
{
	int fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC); /* cppcheck-suppress nullPointer ; the address is not wanted */
	struct client *c;
	pthread_attr_t attr;
	pthread_t thread;

	if (fd < 0)
		return;
	c = atomic_load(count) >= CLIENTS_MAX ? NULL : malloc(sizeof *c);
	if (c == NULL) {
		close(fd);
		return;
	}
	*c = (struct client){.r = r, .fd = fd, .count = count};
	atomic_fetch_add(count, 1);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, serve, c) != 0) {
		atomic_fetch_sub(count, 1);
		close(fd);
		free(c);
	}
	pthread_attr_destroy(&attr);
}

/* Accept clients until a signal to end comes. */
static void accept_loop(struct replicator *r, int sock, int sigfd)
{
	static _Atomic int clients;
	struct pollfd p[2] = {{.fd = sock, .events = POLLIN}, {.fd = sigfd, .events = POLLIN}};
	struct signalfd_siginfo si;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (p[1].revents != 0 && read(sigfd, &si, sizeof si) == sizeof si) {
			if (si.ssi_signo != SIGHUP)
				return;
			log_reopen();
		}
		if (p[0].revents != 0)
			accept_client(r, sock, &clients);
	}
}

static int signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static void raise_limits(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int run(struct replicator *r, bool foreground)
{
	int sigfd = signals(), sock, ret;

	if (sigfd < 0)
		return sigfd;
	raise_limits();
	ret = take_lock(r, foreground);
	if (ret < 0)
		return ret;
	sock = ctl_listen(r->state_dirfd, "replicator.sock");
	if (sock < 0) {
		start_error(foreground, "cannot listen on %s/replicator.sock: %s", r->mirror.state_dir, err_text(sock));
		return sock;
	}
	if (!foreground && daemon(0, 0) != 0) { /* not before all that can be wrong was told to who started us, nor after the first thread */
		ret = -errno;
		start_error(foreground, "cannot become a daemon: %s", err_text(ret));
		return ret;
	}
	r->paused = faccessat(r->state_dirfd, REPLICATOR_PAUSED, F_OK, 0) == 0;
	if (r->paused)
		log_warn("sending is paused since before the start: tandemctl resume %s", r->mirror.name);
	ret = start_targets(r);
	if (ret == 0)
		accept_loop(r, sock, sigfd);
	stop_targets(r);
	unlinkat(r->state_dirfd, "replicator.sock", 0);
	return ret;
}

static int load(struct replicator *r, const char *file, const char *name)
{
	struct conf c;
	int ret = mirror_load(&r->mirror, &c, file, name);

	conf_print(&c);
	if (ret == -ENOENT && c.nerrors == 0)
		fprintf(stderr, "tandem-replicator: %s: no mirror [%s]\n", file, name);
	else if (ret < 0 && c.nerrors == 0)
		fprintf(stderr, "tandem-replicator: %s: %s\n", file, err_text(ret));
	conf_release(&c);
	return ret;
}

int replicator_run(const char *file, const char *name, bool foreground)
{
	static struct replicator only; /* never released, see the end */
	struct replicator *r = &only;
	char ident[160];
	int ret;

	if (load(r, file, name) < 0)
		return 2;
	snprintf(ident, sizeof ident, "tandem-replicator[%s]", name);
	ret = log_init(ident, r->mirror.log_file, foreground);
	if (ret < 0) {
		fprintf(stderr, "tandem-replicator: cannot open the log %s: %s\n", r->mirror.log_file, err_text(ret));
		return 2;
	}
	r->state_dirfd = r->lockfd = -1;
	pthread_mutex_init(&r->lock, NULL);
	clock_cond_init(&r->changed);
	ret = run(r, foreground);
	/* Threads of clients, or of a target that hangs in a system call, may still use r: the process ends now. */
	return ret < 0 ? 2 : 0;
}
