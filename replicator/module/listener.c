/* SPDX-License-Identifier: BSD-2-Clause
 * Listening sockets: see listener.h. */
#include "config.h"
#include "replicator/module/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/err.h"

static int listen_on(const struct sockaddr *sa, socklen_t len, bool dual, int backlog)
{
	int one = 1, zero = 0;
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (sa->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual ? &zero : &one, sizeof(one));
	if (bind(fd, sa, len) == 0 && listen(fd, backlog) == 0)
		return fd;
	int err = -errno;
	close(fd);
	return err;
}

static int listen_v4(const char *text, int port, int backlog)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, text, &sa.sin_addr) != 1)
		return -EINVAL;
	return listen_on((struct sockaddr *)&sa, sizeof(sa), false, backlog);
}

static int listen_v6(const char *text, int port, int backlog, bool dual)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET6, text, &sa.sin6_addr) != 1)
		return -EINVAL;
	return listen_on((struct sockaddr *)&sa, sizeof(sa), dual, backlog);
}

static int explain(int err, const char *address, int port, char *why, size_t size)
{
	const char *hint =
	    err == -EADDRINUSE	    ? "; another program has the port: stop it, or set another \"port\""
	    : err == -EADDRNOTAVAIL ? "; this host does not have the address: correct \"address\""
	    : err == -EACCES	    ? "; ports below 1024 need root"
				    : "";
	snprintf(why, size, "cannot listen on %s port %d: %s%s", address, port, err_text(err), hint);
	return err;
}

int listener_open(const struct modules_conf *mc, int fds[LISTENERS_MAX], char *why, size_t size)
{
	int n = 0;
	if (!mc->naddresses) {
		int fd = listen_v6("::", mc->port, mc->backlog, true);
		if (fd == -EAFNOSUPPORT)
			fd = listen_v4("0.0.0.0", mc->port, mc->backlog);
		if (fd < 0)
			return explain(fd, "any address", mc->port, why, size);
		fds[n++] = fd;
	}
	for (size_t i = 0; i < mc->naddresses && n < LISTENERS_MAX; i++) {
		const char *a = mc->addresses[i];
		int fd = strchr(a, ':') ? listen_v6(a, mc->port, mc->backlog, false)
					: listen_v4(a, mc->port, mc->backlog);
		if (fd < 0) {
			while (n)
				close(fds[--n]);
			return explain(fd, a, mc->port, why, size);
		}
		fds[n++] = fd;
	}
	return n;
}
