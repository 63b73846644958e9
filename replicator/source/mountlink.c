/* SPDX-License-Identifier: BSD-2-Clause
 * Attaching to the mount (mountlink.h). */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/hex.h"
#include "replicator/source/mountlink.h"

#define ATTACH_MS 10000

void mountlink_init(struct mountlink *l)
{
	memset(l, 0, sizeof *l);
	l->sock = l->efd = l->rootfd = l->jdirfd = l->slot = -1;
}

/* Put a descriptor in place of the one everybody borrowed. Takes fd. */
static int replace(int *place, int fd)
{
	int r = 0;

	if (fd < 0)
		return E_PROTO;
	if (*place < 0) {
		*place = fd;
		return 0;
	}
	if (dup3(fd, *place, O_CLOEXEC) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* Check the reply and take its descriptors. */
static int take(struct mountlink *l, const json_t *reply, int fds[CTL_FDS_MAX])
{
	uint8_t id[16];
	int r, fd;

	if (hex_get(id, json_string_value(json_object_get(reply, "source_id")), sizeof id) < 0)
		return E_PROTO;
	if (l->rootfd >= 0 && memcmp(id, l->source_id, sizeof id) != 0)
		return E_FOREIGN;
	memcpy(l->source_id, id, sizeof id);
	fd = fds[0];
	fds[0] = -1;
	r = replace(&l->rootfd, fd);
	if (r < 0)
		return r;
	fd = fds[1];
	fds[1] = -1;
	r = replace(&l->jdirfd, fd);
	if (r == 0)
		l->slot = (int)json_integer_value(json_object_get(reply, "slot"));
	return r == 0 && (l->slot < 0 || l->slot >= JHEAD_SLOTS) ? E_PROTO : r;
}

int mountlink_attach(struct mountlink *l, int state_dirfd)
{
	int fds[CTL_FDS_MAX] = {-1, -1, -1, -1}, sock, r, i;
	json_t *request, *reply = NULL;

	if (l->efd < 0)
		l->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->efd < 0)
		return -errno;
	sock = ctl_connect(state_dirfd, "mount.sock");
	if (sock < 0)
		return sock;
	request = json_pack("{s:s}", "op", "attach");
	r = request == NULL ? -ENOMEM : ctl_send(sock, request, &l->efd, 1);
	json_decref(request);
	if (r == 0)
		r = ctl_recv(sock, &reply, fds, ATTACH_MS);
	if (r == 0)
		r = json_is_true(json_object_get(reply, "ok")) ? take(l, reply, fds) : E_REFUSED;
	json_decref(reply);
	for (i = 0; i < CTL_FDS_MAX; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (r < 0)
		close(sock);
	else
		l->sock = sock;
	return r;
}

bool mountlink_lost(struct mountlink *l)
{
	char c;
	ssize_t n;

	if (l->sock < 0)
		return true;
	n = recv(l->sock, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return false;
	close(l->sock);
	l->sock = l->slot = -1;
	return true;
}

int mountlink_arm(const struct mountlink *l, struct jhead *head, uint64_t seq)
{
	bool heard = l->slot < 0 || jhead_sleep(head, l->slot);

	return atomic_load(&head->committed_seq) > seq ? 1 : heard ? 0 : -EIO;
}

void mountlink_disarm(const struct mountlink *l, struct jhead *head, bool rang)
{
	uint64_t rings;

	if (l->slot >= 0 && jhead_wake(head, l->slot) && !rang)
		return;
	if (l->efd >= 0 && read(l->efd, &rings, sizeof rings) < 0)
		return;
}

void mountlink_release(struct mountlink *l)
{
	int *fds[] = {&l->sock, &l->efd, &l->rootfd, &l->jdirfd};
	size_t i;

	for (i = 0; i < sizeof fds / sizeof fds[0]; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	l->slot = -1;
}
