/* SPDX-License-Identifier: BSD-2-Clause
 * Counting a source in a thread. What filters exclude is counted as well: it is an estimate. */
#include "config.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/path.h"
#include "replicator/ctl/estimate.h"

#define DEPTH_MAX 500 /* levels; deeper ones are not counted. Each holds a descriptor */

struct estimate {
	pthread_t thread;
	int rootfd; /* of the source, read only; the thread closes it */
	/* shared */
	_Atomic uint64_t files, bytes;
	_Atomic bool done, stop;
};

static void count_entry(struct estimate *e, int dirfd, const char *name, int depth);

/* Takes fd. */
static void count_dir(struct estimate *e, int fd, int depth)
{
	DIR *d = fdopendir(fd);

	if (d == NULL) {
		close(fd);
		return;
	}
	for (struct dirent *x; !atomic_load(&e->stop) && (x = readdir(d)) != NULL;) {
		if (strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0)
			continue;
		if (depth == 0 && strcmp(x->d_name, PATH_PRIVATE) == 0)
			continue;
		count_entry(e, dirfd(d), x->d_name, depth);
	}
	closedir(d);
}

static void count_entry(struct estimate *e, int dirfd, const char *name, int depth)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	atomic_fetch_add(&e->files, 1);
	if (S_ISREG(st.st_mode)) {
		uint64_t used = (uint64_t)st.st_blocks * 512; /* holes are not sent */
		atomic_fetch_add(&e->bytes, used < (uint64_t)st.st_size ? used : (uint64_t)st.st_size);
	} else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
		int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			count_dir(e, fd, depth + 1);
	}
}

static void *run(void *arg)
{
	struct estimate *e = arg;

	atomic_store(&e->files, 1); /* the root */
	count_dir(e, e->rootfd, 0);
	atomic_store(&e->done, true);
	return NULL;
}

/* Ask the mount for the directory below it. Returns a descriptor or a negative error. */
static int source_root(const struct ctl_mirror *cm)
{
	int fds[CTL_FDS_MAX] = {-1, -1, -1, -1}, bell = eventfd(0, EFD_CLOEXEC),
	    sock = ctl_dial(cm, CTL_SOCK_MOUNT), root = -1;
	json_t *request = json_pack("{s:s}", "op", "attach"), *reply = NULL;
	int rc = sock;

	if (sock >= 0 && (rc = ctl_send(sock, request, &bell, 1)) == 0 &&
	    (rc = ctl_recv(sock, &reply, fds, CTL_ASK_MS)) == 0 && fds[0] >= 0)
		/* a description of our own: reading a directory moves the offset that a shared one has */
		root = openat(fds[0], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < CTL_FDS_MAX; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (sock >= 0)
		close(sock);
	if (bell >= 0)
		close(bell);
	json_decref(reply);
	json_decref(request);
	return root >= 0 ? root : rc < 0 ? rc : -EIO;
}

int estimate_start(struct estimate **out, const struct ctl_mirror *cm)
{
	int root = source_root(cm);

	*out = NULL;
	if (root < 0)
		return root;
	struct estimate *e = calloc(1, sizeof(*e));
	if (e == NULL || pthread_create(&e->thread, NULL, run, (e->rootfd = root, e)) != 0) {
		free(e);
		close(root);
		return -ENOMEM;
	}
	*out = e;
	return 0;
}

bool estimate_get(struct estimate *e, uint64_t *files, uint64_t *bytes)
{
	*files = atomic_load(&e->files);
	*bytes = atomic_load(&e->bytes);
	return atomic_load(&e->done);
}

void estimate_stop(struct estimate *e)
{
	if (e == NULL)
		return;
	atomic_store(&e->stop, true);
	pthread_join(e->thread, NULL);
	free(e);
}
