/* SPDX-License-Identifier: BSD-2-Clause
 * The supervisor: keeps the worker (which mounts and serves) and the replicator running.
 *
 *   starting --worker answers--> running --SIGTERM, SIGINT, unmount--> stopping --children gone--> end
 *
 * A worker that dies is replaced, its dead mount by the new one (mount.h): at once, then with growing pauses while it keeps dying
 * young. The first worker must come up, or the program fails. A worker that ends with status 0 was unmounted from
 * outside: the supervisor ends too. The replicator is started again whenever it ends. The supervisor never touches files
 * below the mountpoint; it unmounts from outside the serving process, so that the kernel can write back what it holds. */
#include "config.h"

#include "fs/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/spawn.h"
#include "fs/tandemfs.h"
#include "proto/log.h"

#define YOUNG_S    10 /* a child that dies before this age is followed by a pause */
#define PAUSE_MAX  30 /* seconds */
#define DRAIN_S    5  /* after unmounting, for the worker to end by itself */
#define KILL_S     15 /* after SIGTERM, before SIGKILL */

/* One child that is kept running. */
struct kept {
	const char *what;
	pid_t pid;         /* 0: not running */
	double started;    /* monotonic seconds */
	double next;       /* when to start it again */
	int pause;         /* seconds before the next start */
};

struct supervisor {
	const struct launch *l;
	const struct bedrock *b;
	struct kept worker, replicator;
	int readyfd;       /* read end: the first worker tells that the mount answers; -1 afterwards */
	int tellfd;        /* whoever waits for us to be up gets the exit status; -1 */
	bool up;
	bool stopping;
	double stop_at;    /* when stopping began */
	bool detached, termed;
	sigset_t signals, old;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- children ------------------------------------------------------------------------------------ */

/* The mount dies with us and stays, dead: were it taken away, programs would go on in the directory below, unseen. */
static void child_begin(struct supervisor *s, int deathsig)
{
	prctl(PR_SET_PDEATHSIG, deathsig);
	signal(SIGHUP, SIG_IGN); /* until it can reopen its log */
	sigprocmask(SIG_SETMASK, &s->old, NULL);
}

static void start_worker(struct supervisor *s)
{
	const struct mirror *m = &s->l->mirror;
	pid_t parent = getpid();
	int p[2] = {-1, -1};

	if (!s->up && s->readyfd < 0 && pipe2(p, O_CLOEXEC) < 0)
		log_warn("pipe: %s", strerror(errno));
	s->worker.pid = fork();
	if (s->worker.pid == 0) {
		child_begin(s, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		exit(worker_run(m, s->b->rootfd, s->b->statefd, p[1]));
	}
	if (p[1] >= 0)
		close(p[1]);
	if (p[0] >= 0)
		s->readyfd = p[0];
	s->worker.started = now();
	if (s->worker.pid < 0) {
		log_error("cannot start the mount process: %s", strerror(errno));
		s->worker.pid = 0;
		s->worker.next = now() + 1;
	}
}

static void start_replicator(struct supervisor *s)
{
	pid_t parent = getpid();

	s->replicator.started = now();
	s->replicator.next = 0; /* when stopping, it says that SIGTERM was sent */
	s->replicator.pid = fork();
	if (s->replicator.pid == 0) {
		child_begin(s, SIGTERM);
		if (getppid() == parent)
			spawn_replicator(s->l);
		_exit(127);
	}
	if (s->replicator.pid < 0) {
		log_error("cannot start the replicator: %s", strerror(errno));
		s->replicator.pid = 0;
		s->replicator.next = now() + 1;
	}
}

/* A child ended: decide when it is started again. */
static void plan_restart(struct kept *k, int status)
{
	char how[96];

	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was killed by signal %d%s", WTERMSIG(status),
			 WTERMSIG(status) == SIGBUS ? " (look at the state directory's disk)" : "");
	else
		snprintf(how, sizeof(how), "ended with status %d", WEXITSTATUS(status));
	if (now() - k->started >= YOUNG_S)
		k->pause = 0;
	log_error("%s (process %d) %s; starting it again%s", k->what, (int)k->pid, how, k->pause > 1 ? " after a pause" : "");
	k->pid = 0;
	k->next = now() + (k->pause ? k->pause : 0.05);
	k->pause = k->pause ? k->pause * 2 : 1;
	if (k->pause > PAUSE_MAX)
		k->pause = PAUSE_MAX;
}

/* --- being up ------------------------------------------------------------------------------------- */

static void tell(struct supervisor *s, unsigned char status)
{
	if (s->tellfd < 0)
		return;
	if (write(s->tellfd, &status, 1) != 1)
		log_warn("whoever started us is gone");
	close(s->tellfd);
	s->tellfd = -1;
}

/* Tell the service manager, if one asks (sd_notify(3)), that the mount is there: what is to write into it may start now. */
static void notify_ready(void)
{
	static const char text[] = "READY=1";
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (n == 0 || n >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, n);
	if (*path == '@')
		to.sun_path[0] = '\0'; /* an abstract address */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, text, sizeof(text) - 1, MSG_NOSIGNAL, (struct sockaddr *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		log_warn("cannot tell the service manager that the mount is there: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* In the background nobody reads our standard error any more: what a crashing child prints goes to a file. */
static void to_background(struct supervisor *s)
{
	struct stat st;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out = openat(s->b->statefd, "stderr.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (out >= 0 && fstat(out, &st) == 0 && st.st_size > 4 << 20 && ftruncate(out, 0) < 0)
		log_warn("stderr.log: %s", strerror(errno));
	if (null >= 0) {
		dup2(null, 0);
		dup2(out >= 0 ? out : null, 1);
		dup2(out >= 0 ? out : null, 2);
		close(null);
	}
	if (out >= 0)
		close(out);
}

static void is_up(struct supervisor *s)
{
	char byte;

	if (s->up || s->readyfd < 0 || read(s->readyfd, &byte, 1) != 1)
		return;
	s->up = true;
	close(s->readyfd);
	s->readyfd = -1;
	if (s->l->replicator)
		start_replicator(s);
	tell(s, 0);
	notify_ready();
	if (!s->l->foreground)
		to_background(s);
}

/* --- stopping --------------------------------------------------------------------------------------- */

static void stop_begin(struct supervisor *s)
{
	const char *mnt = s->l->mirror.mountpoint;
	int r;

	if (s->stopping)
		return;
	s->stopping = true;
	s->stop_at = now();
	if (s->worker.pid && s->up && (r = unmount_path(mnt, false)) < 0) {
		log_warn("%s is in use (%s): detached; open files are served for %d more seconds", mnt, strerror(-r), DRAIN_S);
		unmount_path(mnt, true);
		s->detached = true;
	} else if (s->worker.pid && !s->up) {
		kill(s->worker.pid, SIGTERM);
	}
}

/* The replicator ends after the mount, so that it can still send what the last flush recorded. */
static void stop_go_on(struct supervisor *s)
{
	double age = now() - s->stop_at;

	if (s->worker.pid && age > DRAIN_S && !s->termed) {
		s->termed = true;
		kill(s->worker.pid, SIGTERM);
	}
	if (!s->worker.pid && s->replicator.pid && !s->replicator.next) {
		kill(s->replicator.pid, SIGTERM);
		s->replicator.next = now();
	}
	if (age > DRAIN_S + KILL_S) {
		if (s->worker.pid)
			kill(s->worker.pid, SIGKILL);
		if (s->replicator.pid)
			kill(s->replicator.pid, SIGKILL);
	}
}

/* --- the loop ------------------------------------------------------------------------------------------ */

static void worker_ended(struct supervisor *s, int status)
{
	bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;

	is_up(s); /* it may have come up and ended at once */
	if (s->stopping || clean || !s->up) {
		s->worker.pid = 0;
		if (!s->stopping && !s->up)
			tell(s, 1);
		if (!s->stopping) {
			s->stopping = true;
			s->stop_at = now();
		}
		return;
	}
	plan_restart(&s->worker, status); /* its dead mount stays until the next one is there, see mount.h */
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->worker.pid)
			worker_ended(s, status);
		else if (pid == s->replicator.pid && s->stopping)
			s->replicator.pid = 0;
		else if (pid == s->replicator.pid)
			plan_restart(&s->replicator, status);
	}
}

static void start_due(struct supervisor *s)
{
	if (s->stopping)
		return;
	if (!s->worker.pid && now() >= s->worker.next)
		start_worker(s);
	if (s->l->replicator && s->up && !s->replicator.pid && now() >= s->replicator.next)
		start_replicator(s);
}

/* What is still mounted: after a worker that had to be killed, or dead mounts under a live one. */
static void unmount_rest(const char *path)
{
	for (int n = 0; n < 64 && unmount_is_ours(path); n++)
		if (unmount_path(path, true) < 0)
			return;
}

static void reopen_logs(struct supervisor *s)
{
	log_reopen();
	if (s->worker.pid)
		kill(s->worker.pid, SIGHUP);
	if (s->replicator.pid)
		kill(s->replicator.pid, SIGHUP);
}

/* The loop wakes at every signal, and often enough for the next start or the first answer. */
static int loop(struct supervisor *s)
{
	while (!s->stopping || s->worker.pid || s->replicator.pid) {
		struct timespec wait = {.tv_nsec = 10000000};
		bool idle = s->up && s->worker.pid && (!s->l->replicator || s->replicator.pid) && !s->stopping;
		if (idle)
			wait = (struct timespec){.tv_sec = 3600};
		int sig = sigtimedwait(&s->signals, NULL, &wait);

		if (sig == SIGTERM || sig == SIGINT)
			stop_begin(s);
		if (sig == SIGHUP)
			reopen_logs(s);
		reap(s);
		if (!s->up)
			is_up(s);
		if (s->stopping)
			stop_go_on(s);
		else
			start_due(s);
	}
	unmount_rest(s->l->mirror.mountpoint);
	tell(s, s->up ? 0 : 1);
	return s->up ? 0 : 1;
}

/* Fork; the parent waits for the status byte and returns it, the child returns -1. */
static int go_daemon(struct supervisor *s)
{
	unsigned char status = 1;
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return 1;
	pid = fork();
	if (pid < 0)
		return 1;
	if (pid > 0) {
		close(p[1]);
		if (read(p[0], &status, 1) != 1)
			status = 1;
		return status;
	}
	close(p[0]);
	s->tellfd = p[1];
	setsid();
	return -1;
}

static void write_pid(const struct bedrock *b)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%d", (int)getpid());

	if (ftruncate(b->lockfd, 0) < 0 || pwrite(b->lockfd, text, (size_t)n, 0) != n)
		log_warn("cannot write the lock file: %s", strerror(errno));
}

int supervisor_run(const struct launch *l, const struct bedrock *b)
{
	struct supervisor s = {.l = l, .b = b, .readyfd = -1, .tellfd = -1, .worker = {.what = "the mount process"},
	    .replicator = {.what = "tandem-replicator"}};
	int r;

	if (!l->foreground && (r = go_daemon(&s)) >= 0)
		return r;
	write_pid(b);
	if (chdir("/") < 0)
		log_warn("chdir: %s", strerror(errno));
	sigemptyset(&s.signals);
	sigaddset(&s.signals, SIGCHLD);
	sigaddset(&s.signals, SIGTERM);
	sigaddset(&s.signals, SIGINT);
	sigaddset(&s.signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &s.signals, &s.old);
	start_worker(&s);
	if (s.readyfd >= 0)
		fcntl(s.readyfd, F_SETFL, O_NONBLOCK);
	return loop(&s);
}
