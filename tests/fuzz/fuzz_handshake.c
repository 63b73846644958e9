/* SPDX-License-Identifier: BSD-2-Clause
 * What is read before anybody has authenticated. The first byte chooses: 0, the daemon accepts a connection whose peer sends the
 * rest; 1, the replicator connects to a server that sends the rest; 2, the rest is an identity. Nobody gets in. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/conn.h"
#include "proto/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX 65536 /* bytes: what a socket's buffer takes, so that nobody waits */

static int find(void *arg, const char *user, const char *module, uint8_t key[PSK_LEN])
{
	if (strlen(user) + strlen(module) >= PSK_IDENTITY_MAX || *user == '\0')
		abort();
	memset(key, 7, PSK_LEN);
	return 0;
}

static void to_daemon(const uint8_t *data, size_t size)
{
	static const uint8_t reference[8] = {1, 2, 3};
	struct conn *c;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0 || write(fd[0], data, size) != (ssize_t)size)
		abort();
	shutdown(fd[0], SHUT_WR);
	if (conn_accept(&c, fd[1], reference, find, NULL, 10000) == 0 || c != NULL)
		abort();
	close(fd[0]);
}

struct server {
	int fd;
	const uint8_t *data;
	size_t size;
};

static void *serve(void *arg)
{
	const struct server *s = arg;
	int fd = accept(s->fd, NULL, NULL);
	char waste[4096];

	if (fd < 0)
		return NULL;
	if (send(fd, s->data, s->size, MSG_NOSIGNAL) > 0)
		shutdown(fd, SHUT_WR);
	while (s->size > 0 && recv(fd, waste, sizeof(waste), 0) > 0)
		;
	close(fd);
	return NULL;
}

static int listen_any(struct sockaddr_in *sa)
{
	socklen_t len = sizeof(*sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*sa = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || bind(fd, (struct sockaddr *)sa, sizeof(*sa)) != 0 || listen(fd, 8) != 0 ||
	    getsockname(fd, (struct sockaddr *)sa, &len) != 0)
		abort();
	return fd;
}

static void to_replicator(const uint8_t *data, size_t size)
{
	static struct sockaddr_in sa;
	static int listener = -1;
	static const uint8_t key[PSK_LEN] = {7};
	struct conn_to to = {.host = "127.0.0.1", .user = "user", .module = "m", .key = key, .timeout_ms = 10000};
	struct server s = {.data = data, .size = size};
	char why[512] = "";
	struct conn *c;
	pthread_t t;

	if (listener < 0)
		listener = listen_any(&sa);
	s.fd = listener;
	to.port = ntohs(sa.sin_port);
	if (pthread_create(&t, NULL, serve, &s) != 0)
		abort();
	if (conn_connect(&c, &to, why, sizeof(why)) == 0 || c != NULL || *why == '\0')
		abort();
	pthread_join(t, NULL);
}

static void identity(const uint8_t *data, size_t size)
{
	char user[PSK_IDENTITY_MAX], module[PSK_IDENTITY_MAX];

	if (psk_split((const char *)data, size, user, module) != 0)
		return;
	if (*user == '\0' || strlen(user) + 1 + strlen(module) != size || memcmp(data, user, strlen(user)) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > INPUT_MAX)
		return 0;
	switch (data[0] % 3) {
	case 0:
		to_daemon(data + 1, size - 1);
		break;
	case 1:
		to_replicator(data + 1, size - 1);
		break;
	default:
		identity(data + 1, size - 1);
	}
	return 0;
}
