/* SPDX-License-Identifier: BSD-2-Clause
 * Control sockets: one JSON object per packet, descriptors beside it. */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/hex.h"
#include "proto/path.h"

#define CTL_BACKLOG 64

/* A state directory may be deeper than sun_path is long: reach it through its descriptor. */
static int ctl_address(struct sockaddr_un *sun, int dirfd, const char *name)
{
	int n;

	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	n = snprintf(sun->sun_path, sizeof(sun->sun_path), "/proc/self/fd/%d/%s", dirfd, name);
	return n > 0 && (size_t)n < sizeof(sun->sun_path) ? 0 : -ENAMETOOLONG;
}

static int ctl_bind(int fd, int dirfd, const char *name)
{
	struct sockaddr_un sun;
	int r = ctl_address(&sun, dirfd, name);

	if (r != 0)
		return r;
	if (unlinkat(dirfd, name, 0) != 0 && errno != ENOENT)
		return -errno;
	/* Linux takes the mode of the socket's own inode, so there is no moment with a wider one. */
	if (fchmod(fd, 0600) != 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0 ||
	    listen(fd, CTL_BACKLOG) != 0)
		return -errno;
	return 0;
}

int ctl_listen(int dirfd, const char *name)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	r = ctl_bind(fd, dirfd, name);
	if (r != 0) {
		close(fd);
		return r;
	}
	return fd;
}

int ctl_connect(int dirfd, const char *name)
{
	struct sockaddr_un sun;
	int r = ctl_address(&sun, dirfd, name), fd;

	if (r != 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	while ((r = connect(fd, (struct sockaddr *)&sun, sizeof(sun))) != 0 && errno == EINTR)
		;
	if (r != 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int ctl_send_packet(int fd, const char *text, size_t n, const int *fds, int nfds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * CTL_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = (void *)text, .iov_len = n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds > 0) {
		struct cmsghdr *cm;

		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)nfds);
		cm = CMSG_FIRSTHDR(&msg);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)nfds);
		memcpy(CMSG_DATA(cm), fds, sizeof(int) * (size_t)nfds);
	}
	while (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int ctl_send(int fd, const json_t *obj, const int *fds, int nfds)
{
	char *text;
	size_t n;
	int r;

	if (nfds < 0 || nfds > CTL_FDS_MAX)
		return -EINVAL;
	text = json_dumps(obj, JSON_COMPACT);
	if (text == NULL)
		return -EINVAL;
	n = strlen(text);
	r = n <= CTL_PACKET_MAX ? ctl_send_packet(fd, text, n, fds, nfds) : E_LIMIT;
	free(text);
	return r;
}

/* Take the descriptors of a message; what does not fit, and everything if fds is NULL, is closed. */
static void ctl_take_fds(struct msghdr *msg, int *fds)
{
	int taken = 0;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm != NULL; cm = CMSG_NXTHDR(msg, cm)) {
		size_t n;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int got;

			memcpy(&got, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
			if (fds != NULL && taken < CTL_FDS_MAX)
				fds[taken++] = got;
			else
				close(got);
		}
	}
}

static void ctl_drop_fds(int *fds)
{
	for (int i = 0; fds != NULL && i < CTL_FDS_MAX; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static int64_t ctl_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int ctl_wait(int fd, int timeout_ms)
{
	int64_t end = ctl_now() + timeout_ms;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = timeout_ms < 0 ? -1 : end - ctl_now();
		int n = poll(&p, 1, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (timeout_ms >= 0 && ctl_now() >= end)
			return E_TIMEOUT;
	}
}

/* Receive one packet into text (CTL_PACKET_MAX bytes). Returns its size or an error. */
static ssize_t ctl_recv_packet(int fd, char *text, int *fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * CTL_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_base = text, .iov_len = CTL_PACKET_MAX};
	struct msghdr msg = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n;

	while ((n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC)) < 0)
		if (errno != EINTR)
			return errno == ECONNRESET ? E_CLOSED : -errno;
	ctl_take_fds(&msg, fds);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return E_PROTO;
	return n > 0 ? n : E_CLOSED;
}

int ctl_recv(int fd, json_t **obj, int fds[CTL_FDS_MAX], int timeout_ms)
{
	char *text;
	ssize_t n;
	int r;

	*obj = NULL;
	for (int i = 0; fds != NULL && i < CTL_FDS_MAX; i++)
		fds[i] = -1;
	r = ctl_wait(fd, timeout_ms);
	if (r != 0)
		return r;
	text = malloc(CTL_PACKET_MAX);
	if (text == NULL)
		return -ENOMEM;
	n = ctl_recv_packet(fd, text, fds);
	if (n > 0) {
		*obj = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
		if (!json_is_object(*obj)) {
			json_decref(*obj);
			*obj = NULL;
			n = E_PROTO;
		}
	}
	free(text);
	if (n < 0)
		ctl_drop_fds(fds);
	return n < 0 ? (int)n : 0;
}

int ctl_call(int fd, const char *op, const json_t *args, json_t **reply, int fds[CTL_FDS_MAX], int timeout_ms)
{
	json_t *req = json_object();
	const json_t *ok;
	int r;

	*reply = NULL;
	for (int i = 0; fds != NULL && i < CTL_FDS_MAX; i++)
		fds[i] = -1;
	if (req == NULL)
		return -ENOMEM;
	if ((args != NULL && json_object_update(req, (json_t *)args) != 0) ||
	    json_object_set_new(req, "op", json_string(op)) != 0)
		r = -ENOMEM;
	else
		r = ctl_send(fd, req, NULL, 0);
	json_decref(req);
	if (r == 0)
		r = ctl_recv(fd, reply, fds, timeout_ms);
	if (r != 0)
		return r == -EPIPE || r == -ECONNRESET ? E_CLOSED : r;
	ok = json_object_get(*reply, "ok");
	if (json_is_true(ok) || (ok == NULL && json_is_true(json_object_get(*reply, "more"))))
		return 0;
	if (json_is_false(ok))
		return E_REFUSED;
	json_decref(*reply);
	*reply = NULL;
	ctl_drop_fds(fds);
	return E_PROTO;
}

static json_t *ctl_hex(const char *path)
{
	size_t n = strlen(path);
	char *s = malloc(2 * n + 1);
	json_t *v;

	if (s == NULL)
		return NULL;
	hex_put(s, path, n);
	v = json_string(s);
	free(s);
	return v;
}

void ctl_set_path(json_t *o, const char *key, const char *path)
{
	json_t *v = json_string(path);
	char *shown, name[64];
	size_t size;

	if (v != NULL) {
		json_object_set_new(o, key, v);
		return;
	}
	size = 4 * strlen(path) + 1;
	shown = malloc(size);
	if (shown == NULL)
		return;
	json_object_set_new(o, key, json_string(path_show(shown, size, path)));
	snprintf(name, sizeof(name), "%s_hex", key);
	json_object_set_new(o, name, ctl_hex(path));
	free(shown);
}

char *ctl_get_path(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key)), *hex;
	char name[64], *path;
	size_t n;

	snprintf(name, sizeof(name), "%s_hex", key);
	hex = json_string_value(json_object_get(o, name));
	if (hex == NULL)
		return text != NULL ? strdup(text) : NULL;
	n = strlen(hex) / 2;
	path = malloc(n + 1);
	if (path != NULL && hex_get(path, hex, n) == 0) {
		path[n] = '\0';
		return path;
	}
	free(path);
	return NULL;
}
