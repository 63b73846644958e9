/* SPDX-License-Identifier: BSD-2-Clause
 * The doctor's checks of the way to a target: the name, the port, who answers there, and whether the
 * daemon accepts us. Nothing changes on the standby: it is asked for its module list only. */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/err.h"
#include "proto/wire.h"
#include "replicator/ctl/check.h"

#define PROBE_MS 5000 /* for connecting, and for the greeting */

/* Connect to one address before the deadline. Returns a descriptor or -errno. */
static int probe_connect(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;
	socklen_t len = sizeof(err);

	if (fd < 0)
		return -errno;
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0)
		err = errno;
	if (err == EINPROGRESS) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		err = poll(&p, 1, PROBE_MS) == 1 ? 0 : ETIMEDOUT;
		if (err == 0)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	}
	if (err == 0)
		return fd;
	close(fd);
	return -err;
}

static const char *connect_remedy(int err)
{
	switch (err) {
	case ECONNREFUSED:
		return "nothing listens on that port: start tandemd there, or correct the port in the URL";
	case ETIMEDOUT:
		return "no answer: a firewall drops the packets, or the host is down; allow the port on the "
		       "standby";
	case EHOSTUNREACH:
	case ENETUNREACH:
		return "no way there: a firewall rejects, or the routing is wrong; allow the port on the "
		       "standby, check the address";
	case EACCES:
	case EPERM:
		return "a firewall on this host forbids it";
	default:
		return "check the network";
	}
}

/* Read what the other side says first; n bytes at most. Returns the bytes, 0 for a closed connection, -1 for
 * silence. */
static ssize_t greeting(int fd, char *out, size_t n)
{
	size_t got = 0;

	while (got < n) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (poll(&p, 1, PROBE_MS) != 1)
			return got ? (ssize_t)got : -1;
		ssize_t k = recv(fd, out + got, n - got, 0);
		if (k <= 0)
			return (ssize_t)got;
		got += (size_t)k;
	}
	return (ssize_t)got;
}

/* Who answers? Returns true for tandemd. */
static bool check_greeting(struct report *r, const char *what, int fd)
{
	char g[8] = "";
	ssize_t n = greeting(fd, g, sizeof(g));

	if (n == (ssize_t)sizeof(g) && memcmp(g, "TANDEM1\n", sizeof(g)) == 0)
		return true;
	if (n == 0)
		check_say(
		    r, V_FAIL, what,
		    "the port answers and hangs up at once: something in between (a proxy, a TCP wrapper) "
		    "or the daemon refuses this host; see its log");
	else if (n < 0)
		check_say(
		    r, V_FAIL, what,
		    "the port answers but says nothing within %d s, so it is not tandemd: correct the port",
		    PROBE_MS / 1000);
	else if (n >= 7 && memcmp(g, "@RSYNCD", 7) == 0)
		check_say(r, V_FAIL, what,
			  "an rsync daemon answers there, not tandemd: correct the port in the URL");
	else if (n >= 4 && memcmp(g, "SSH-", 4) == 0)
		check_say(r, V_FAIL, what,
			  "an SSH server answers there, not tandemd: correct the port in the URL");
	else
		check_say(r, V_FAIL, what,
			  "another program answers there, not tandemd: correct the port in the URL");
	return false;
}

/* Resolve, connect, listen. Returns true if tandemd answers. */
static bool check_port(struct report *r, const char *what, const struct mirror_target *t)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	char port[16], host[256];
	int fd = -EHOSTUNREACH;

	snprintf(port, sizeof(port), "%d", t->port);
	int rc = getaddrinfo(t->host, port, &hints, &list);
	if (rc != 0) {
		check_say(r, V_FAIL, what,
			  "the name %s does not resolve: %s; check the spelling, DNS and /etc/hosts", t->host,
			  rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return false;
	}
	for (const struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
		fd = probe_connect(ai);
		if (getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST) !=
		    0)
			strlcpy(host, t->host, sizeof(host));
	}
	freeaddrinfo(list);
	if (fd < 0) {
		check_say(r, V_FAIL, what, "%s port %d: %s; %s", host, t->port, strerror(-fd),
			  connect_remedy(-fd));
		return false;
	}
	bool tandem = check_greeting(r, what, fd);
	close(fd);
	if (tandem)
		check_say(r, V_OK, what, "tandemd answers on %s port %d", host, t->port);
	return tandem;
}

static void check_module(struct report *r, const char *what, const struct mirror_target *t,
			 const json_t *list)
{
	size_t i;
	json_t *m;

	json_array_foreach((json_t *)list, i, m)
	{
		if (strcmp(ctl_str(m, "name"), t->module) != 0)
			continue;
		if (ctl_bool(m, "read_only"))
			check_say(r, V_FAIL, what,
				  "module %s is read only: set read only = no in modules.conf of the standby",
				  t->module);
		else
			check_say(r, V_OK, what, "module %s is writable for %s", t->module, t->user);
		return;
	}
	/* a module with list = no is not shown; the handshake proved that it exists */
	check_say(r, V_OK, what, "user %s is accepted for module %s", t->user, t->module);
}

/* The full handshake with the module's key, then the module list. */
static void check_credentials(struct report *r, const char *what, const struct ctl_mirror *cm,
			      const struct mirror_target *t)
{
	char why[1024] = "";
	struct conn *c;
	json_t *list = NULL;
	uint32_t refused = WR_NONE;

	int rc = ctl_connect_daemon(&c, t, t->module, cm->m.password_file, why, sizeof(why));
	if (rc < 0) {
		check_say(r, V_FAIL, what, "%s", why);
		return;
	}
	rc = ctl_list_modules(c, &list, &refused, why, sizeof(why));
	conn_close(c);
	if (rc == 0)
		check_module(r, what, t, list);
	else if (rc == E_REFUSED && refused == WR_BUSY)
		check_say(r, V_WARN, what, "password accepted, but: %s", why);
	else
		check_say(r, V_FAIL, what, "%s", why);
	json_decref(list);
}

void check_target(struct report *r, const struct ctl_mirror *cm, const struct mirror_target *t)
{
	char what[1024];

	snprintf(what, sizeof(what), "%s target %s", cm->name, t->url);
	if (check_port(r, what, t) && cm->m.password_file)
		check_credentials(r, what, cm, t);
}
