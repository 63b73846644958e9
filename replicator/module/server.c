/* SPDX-License-Identifier: BSD-2-Clause
 * The daemon's parent process. It touches no byte of a peer: it accepts and forks at once, so that a slow or
 * hostile handshake happens in a child with a deadline. It keeps the table of children, since only it may
 * count and end them:
 *
 *   unauthenticated   from fork until the child asks for its module; limited in total and per address
 *   serving M         the parent said yes to ASK_MODULE; limited by max connections
 *   replaced          got SIGUSR1, since a new connection of the same source asked to take over
 *   gone              reaped
 *
 * A child that was killed may leave a file half changed in place. It must not wait for the source, which may be gone for good: a
 * mending child, without a connection, finishes what the redo logs hold and puts modes back, after such an end and for every module at the start.
 *
 * SIGHUP reads the configuration and reopens the log; running connections keep what they began with.
 *
 * The log file is the parent's: children write their lines into a pipe, so that they follow its rotation and
 * have no descriptor of the file behind their walls. A line is shorter than PIPE_BUF and stays whole. */
#include "config.h"
#include "replicator/module/server.h"

#include <arpa/inet.h>
#include <libutil.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/conn.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"
#include "proto/wire.h"
#include "replicator/module/auth.h"
#include "replicator/module/listener.h"
#include "replicator/module/session.h"

#define CHILDREN_MAX 4096  /* of all kinds */
#define MODULE_MAX   64	   /* of a module that says no number: its users must not take the room of all others */
#define STOP_MS	     10000 /* how long children may take to end */

struct child {
	LIST_ENTRY(child) link;
	pid_t pid;
	int fd; /* our end of its pair; -1 once it closed it */
	uint8_t addr[16];
	char *module;	     /* name; NULL: not authenticated yet */
	bool mends;	     /* has no connection */
	unsigned generation; /* of the configuration it was forked with */
};

struct server {
	struct modules_conf mc;
	const char *file;
	struct auth_store *auth;
	struct pidfh *pid;
	unsigned generation;
	int stdir;
	int sigfd;
	int logpipe[2]; /* lines of children; -1: they log where we do (standard error, syslog) */
	int listeners[LISTENERS_MAX];
	int nlisteners;
	LIST_HEAD(, child) children;
	unsigned nchildren;
	bool stopping;
	time_t complained; /* last line about too many connections */
	uint8_t boot[16];
};

/* --- children --- */

static void drop_child(struct server *sv, struct child *c)
{
	LIST_REMOVE(c, link);
	sv->nchildren--;
	if (c->fd >= 0)
		close(c->fd);
	free(c->module);
	free(c);
}

/* Close what belongs to the parent. */
static void become_child(struct server *sv)
{
	sigset_t none;
	struct child *c;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (sv->logpipe[1] >= 0) {
		close(sv->logpipe[0]);
		log_to(sv->logpipe[1]);
	}
	for (int i = 0; i < sv->nlisteners; i++)
		close(sv->listeners[i]);
	LIST_FOREACH (c, &sv->children, link)
		if (c->fd >= 0)
			close(c->fd);
	close(sv->sigfd);
	if (sv->pid)
		pidfile_close(sv->pid);
}

/* What a child does. Returns its exit status. */
static int run_child(struct server *sv, struct session_env *env, const struct module_conf *mends)
{
	env->mc = &sv->mc;
	env->auth = sv->auth;
	env->stdir = sv->stdir;
	memcpy(env->boot, sv->boot, 16);
	become_child(sv);
	return mends ? session_mend(env, mends) : session_run(env);
}

/* Start a child: for the connection of env, or, without one, to mend a module. */
static void start_child(struct server *sv, struct session_env *env, const struct module_conf *mends)
{
	int pair[2];
	struct child *c = calloc(1, sizeof(*c));
	char *name = mends ? strdup(mends->name) : NULL;
	if (!c || (mends && !name) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		log_error("%s: no resources for another process: %s", mends ? mends->name : env->peer, err_text(-errno));
		free(c);
		free(name);
		return;
	}
	c->pid = fork();
	if (c->pid == 0) {
		close(pair[0]);
		free(c);
		free(name);
		env->parent = pair[1];
		_exit(run_child(sv, env, mends));
	}
	close(pair[1]);
	if (c->pid < 0) {
		log_error("%s: fork: %s", mends ? mends->name : env->peer, err_text(-errno));
		close(pair[0]);
		free(c);
		free(name);
		return;
	}
	c->fd = pair[0];
	c->generation = sv->generation;
	c->module = name;
	c->mends = mends;
	memcpy(c->addr, env->addr, 16);
	LIST_INSERT_HEAD(&sv->children, c, link);
	sv->nchildren++;
}

/* Where it cannot, the next connection does it. */
static void mend(struct server *sv, const struct module_conf *m)
{
	start_child(sv, &(struct session_env){.fd = -1}, m);
}

/* A child ended so that it may have left something half made. */
static void mend_after(struct server *sv, const struct child *c)
{
	const struct module_conf *m = c->module && !c->mends && !sv->stopping ? modules_conf_find(&sv->mc, c->module) : NULL;
	if (m)
		mend(sv, m);
}

static void reap(struct server *sv)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct child *c;
		LIST_FOREACH (c, &sv->children, link)
			if (c->pid == pid)
				break;
		if (c && status != 0)
			mend_after(sv, c);
		if (WIFSIGNALED(status))
			log_error("connection process %d%s%s was ended by signal %d (%s)", (int)pid,
				  c && c->module ? " of module " : "", c && c->module ? c->module : "",
				  WTERMSIG(status), strsignal(WTERMSIG(status)));
		if (c)
			drop_child(sv, c);
	}
}

/* Children that serve module (NULL: any). */
static long long count_serving(const struct server *sv, const char *module)
{
	const struct child *c;
	long long n = 0;
	LIST_FOREACH (c, &sv->children, link)
		n += c->module && !c->mends && (!module || strcmp(c->module, module) == 0);
	return n;
}

static uint32_t may_serve(struct server *sv, struct child *c, uint32_t index)
{
	if (sv->stopping || c->module || c->generation != sv->generation || index >= sv->mc.nmodules)
		return WR_BUSY;
	const struct module_conf *m = &sv->mc.modules[index];
	long long limit = m->max_connections ? m->max_connections : MODULE_MAX, total = sv->mc.max_connections;
	if (limit < 0 || count_serving(sv, m->name) >= limit || total < 0 ||
	    (total && count_serving(sv, NULL) >= total))
		return WR_BUSY;
	c->module = strdup(m->name);
	return c->module ? 0 : WR_OTHER;
}

static uint32_t take_over(struct server *sv, struct child *c)
{
	struct child *o;
	if (!c->module)
		return WR_PROTOCOL;
	LIST_FOREACH (o, &sv->children, link)
		if (o != c && o->module && !o->mends && strcmp(o->module, c->module) == 0)
			kill(o->pid, SIGUSR1);
	return 0;
}

static void serve_child(struct server *sv, struct child *c)
{
	struct session_request q;
	ssize_t n = recv(c->fd, &q, sizeof(q), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	uint32_t reply = WR_PROTOCOL;
	if (n == (ssize_t)sizeof(q))
		reply = q.ask == ASK_MODULE	? may_serve(sv, c, q.module)
			: q.ask == ASK_TAKEOVER ? take_over(sv, c)
						: WR_PROTOCOL;
	if (n != (ssize_t)sizeof(q) || send(c->fd, &reply, sizeof(reply), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		close(c->fd);
		c->fd = -1;
	}
}

/* Put lines of children into the log. */
static void take_lines(struct server *sv)
{
	char lines[65536];
	ssize_t n;
	while (sv->logpipe[0] >= 0 && (n = read(sv->logpipe[0], lines, sizeof(lines))) > 0)
		log_raw(lines, (size_t)n);
}

/* --- accepting --- */

static bool too_many(struct server *sv, const uint8_t addr[16])
{
	const struct child *c;
	long long total = 0, same = 0;
	LIST_FOREACH (c, &sv->children, link) {
		if (c->module)
			continue;
		total++;
		same += memcmp(c->addr, addr, 16) == 0;
	}
	return total >= sv->mc.max_unauthenticated || same >= sv->mc.max_unauthenticated_per_address ||
	       sv->nchildren >= CHILDREN_MAX;
}

static void show_peer(char *out, size_t size, const uint8_t addr[16])
{
	static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
	if (memcmp(addr, v4, 12) == 0)
		inet_ntop(AF_INET, addr + 12, out, (socklen_t)size);
	else
		inet_ntop(AF_INET6, addr, out, (socklen_t)size);
}

static void accept_one(struct server *sv, int listener)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	uint8_t addr[16];
	char peer[INET6_ADDRSTRLEN];
	int fd = accept4(listener, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (hosts_address((struct sockaddr *)&ss, addr)) {
		close(fd);
		return;
	}
	show_peer(peer, sizeof(peer), addr);
	if (too_many(sv, addr)) {
		if (time(NULL) != sv->complained)
			log_warn("%s: closed: too many connections that have not authenticated (max "
				 "unauthenticated)",
				 peer);
		sv->complained = time(NULL);
	} else if (auth_refresh(sv->auth, &sv->mc) == 0) {
		struct session_env env = {.fd = fd, .peer = peer, .title = true};
		memcpy(env.addr, addr, 16);
		start_child(sv, &env, NULL);
	}
	close(fd);
}

/* --- signals, configuration --- */

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/* Say whether all that is opened at the start is named as before. */
static bool same_daemon(const struct modules_conf *a, const struct modules_conf *b)
{
	bool same = a->port == b->port && a->backlog == b->backlog && a->naddresses == b->naddresses && same_text(a->state_dir, b->state_dir) &&
		    same_text(a->log_file, b->log_file) && same_text(a->pid_file, b->pid_file);
	for (size_t i = 0; same && i < a->naddresses; i++)
		same = strcmp(a->addresses[i], b->addresses[i]) == 0;
	return same;
}

static void reload(struct server *sv)
{
	struct modules_conf mc;
	log_reopen();
	int err = modules_conf_read(&mc, sv->file);
	for (size_t i = 0; !err && i < mc.conf.ndiags; i++)
		if (mc.conf.diags[i].severity == CONF_ERROR)
			log_error("%s:%d: %s", sv->file, mc.conf.diags[i].line, mc.conf.diags[i].text);
	if (err || mc.conf.nerrors) {
		log_error("%s: not taken over%s%s; going on with the configuration read before", sv->file,
			  err ? ": " : "", err ? err_text(err) : "");
		modules_conf_release(&mc);
		return;
	}
	if (!same_daemon(&mc, &sv->mc))
		log_warn("%s: a new port, address, listen backlog, state dir, log file or pid file takes effect at the next start", sv->file);
	modules_conf_release(&sv->mc);
	sv->mc = mc;
	sv->generation++;
	auth_refresh(sv->auth, &sv->mc);
	log_info("%s: %zu module%s", sv->file, sv->mc.nmodules, sv->mc.nmodules == 1 ? "" : "s");
}

static void stop(struct server *sv)
{
	struct child *c;
	log_info("stopping");
	sv->stopping = true;
	for (int i = 0; i < sv->nlisteners; i++)
		close(sv->listeners[i]);
	sv->nlisteners = 0;
	LIST_FOREACH (c, &sv->children, link)
		kill(c->pid, c->module ? SIGTERM : SIGKILL); /* who has not said who he is holds nothing */
}

static void take_signals(struct server *sv)
{
	struct signalfd_siginfo si;
	while (read(sv->sigfd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			reload(sv);
		else if (si.ssi_signo != SIGCHLD && !sv->stopping)
			stop(sv);
	}
	reap(sv);
}

static void poll_once(struct server *sv, int ms)
{
	struct pollfd p[2 + LISTENERS_MAX + CHILDREN_MAX];
	struct child *who[2 + LISTENERS_MAX + CHILDREN_MAX], *c;
	nfds_t n = 0;
	p[n++] = (struct pollfd){.fd = sv->sigfd, .events = POLLIN};
	p[n++] = (struct pollfd){.fd = sv->logpipe[0], .events = POLLIN};
	for (int i = 0; i < sv->nlisteners; i++)
		p[n++] = (struct pollfd){.fd = sv->listeners[i], .events = POLLIN};
	LIST_FOREACH (c, &sv->children, link) {
		if (c->fd < 0)
			continue;
		who[n] = c;
		p[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
	}
	if (poll(p, n, ms) <= 0)
		return;
	if (p[1].revents)
		take_lines(sv);
	int first = 2 + sv->nlisteners;
	for (nfds_t i = (nfds_t)first; i < n; i++)
		if (p[i].revents)
			serve_child(sv, who[i]);
	for (int i = 2; i < first; i++)
		if (p[i].revents)
			accept_one(sv, p[i].fd);
	if (p[0].revents)
		take_signals(sv);
}

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void loop(struct server *sv)
{
	struct child *c;
	while (!sv->stopping)
		poll_once(sv, -1);
	int64_t until = now_ms() + STOP_MS;
	for (int64_t left; sv->nchildren && (left = until - now_ms()) > 0;)
		poll_once(sv, (int)left);
	LIST_FOREACH (c, &sv->children, link)
		kill(c->pid, SIGKILL); /* safe at any instant: nothing is torn, the position tells */
	take_lines(sv);
}

/* --- start --- */

static int open_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int start(struct server *sv, bool foreground)
{
	char why[512];
	pid_t other = 0;
	int err = log_init("tandemd", sv->mc.log_file, foreground);
	if (err) {
		fprintf(stderr, "tandemd: log file %s cannot be opened: %s\n", sv->mc.log_file,
			err_text(err));
		return err;
	}
	if (sv->mc.log_file && (pipe2(sv->logpipe, O_CLOEXEC) || fcntl(sv->logpipe[0], F_SETFL, O_NONBLOCK))) {
		fprintf(stderr, "tandemd: pipe: %s\n", err_text(-errno));
		return -errno;
	}
	sv->stdir = fio_open_dir(sv->mc.state_dir);
	if (sv->stdir < 0) {
		fprintf(stderr, "tandemd: state dir %s cannot be used: %s; make it or set \"state dir\"\n",
			sv->mc.state_dir, err_text(sv->stdir));
		return sv->stdir;
	}
	if (sv->mc.pid_file && !(sv->pid = pidfile_open(sv->mc.pid_file, 0644, &other))) {
		fprintf(stderr, "tandemd: pid file %s: %s%.0d\n", sv->mc.pid_file,
			errno == EEXIST ? "another tandemd runs with it" : err_text(-errno), (int)other);
		return -errno;
	}
	sv->nlisteners = listener_open(&sv->mc, sv->listeners, why, sizeof(why));
	if (sv->nlisteners < 0) {
		fprintf(stderr, "tandemd: %s\n", why);
		return sv->nlisteners;
	}
	err = fio_boot_id(sv->boot);
	if (!err)
		err = conn_prepare();
	if (!err)
		err = auth_new(&sv->auth);
	if (!err)
		err = auth_refresh(sv->auth, &sv->mc);
	return err;
}

int server_run(struct modules_conf *mc, const char *file, bool foreground)
{
	struct server *sv = calloc(1, sizeof(*sv));
	if (!sv)
		return 1;
	sv->mc = *mc;
	sv->file = file;
	sv->logpipe[0] = sv->logpipe[1] = -1;
	LIST_INIT(&sv->children);
	int err = start(sv, foreground);
	if (!err && !foreground && daemon(0, 0))
		err = -errno;
	if (!err) {
		if (sv->pid)
			pidfile_write(sv->pid);
		sv->sigfd = open_signals();
		log_info("listening on port %d, %zu module%s", sv->mc.port, sv->mc.nmodules,
			 sv->mc.nmodules == 1 ? "" : "s");
		for (size_t i = 0; i < sv->mc.nmodules; i++)
			mend(sv, &sv->mc.modules[i]);
		loop(sv);
	}
	if (sv->pid)
		pidfile_remove(sv->pid);
	while (LIST_FIRST(&sv->children))
		drop_child(sv, LIST_FIRST(&sv->children)); /* NOLINT(clang-analyzer-unix.Malloc): takes it off the list */
	auth_free(sv->auth);
	modules_conf_release(&sv->mc);
	free(sv);
	return err ? 1 : 0;
}
