/* SPDX-License-Identifier: BSD-2-Clause
 * The control socket of the replicator. The first byte chooses: even, packets of a client, u16 length and bytes each; odd, a status as
 * tandemctl may receive one. This file stands in for the targets. */
#include "config.h"

#include <poll.h>
#include <sys/socket.h>

#include "proto/ctlsock.h"
#include "replicator/ctl/status.h"
#include "replicator/source/replicator.h"
#include "replicator/source/verify.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct target *const none = (struct target *)&none;
static struct replicator mirror = {.mirror = {.name = "m", .state_dir = "state"}, .state_dirfd = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .ntargets = 1};

bool target_has(struct target *t, const uint8_t journal_id[16], uint64_t seq, char *why, size_t size)
{
	return true;
}

void target_sync(struct target *t)
{
}

void target_pause(struct target *t, bool on)
{
}

void target_resync(struct target *t, bool allow)
{
}

json_t *target_status(struct target *t, const uint8_t journal_id[16], uint64_t head_seq, bool *insync, bool *broken)
{
	*insync = true;
	*broken = false;
	return json_object();
}

uint64_t target_reclaimable(struct target *t, const uint8_t journal_id[16])
{
	return 0;
}

void target_verify(struct target *t, struct vjob *j)
{
	vjob_found(j, "t", "a", "differs");
	vjob_done(j, "t", 1, 0, NULL);
}

static void requests(struct input in)
{
	char waste[4096];
	int fd[2];

	mirror.targets[0] = none;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) != 0)
		abort();
	for (int i = 0; i < 8 && in.left > 0; i++) {
		size_t n = input_number(&in, 2);
		uint8_t *p = input_bytes(&in, &n);

		if (n > 0 && send(fd[1], p, n, MSG_NOSIGNAL) != (ssize_t)n)
			abort();
		free(p);
	}
	shutdown(fd[1], SHUT_WR);
	control_serve(&mirror, fd[0]);
	while (recv(fd[1], waste, sizeof(waste), MSG_DONTWAIT) > 0)
		;
	close(fd[1]);
}

static void status(struct input in)
{
	json_t *o = json_loadb((const char *)in.p, in.left, JSON_REJECT_DUPLICATES, NULL);
	struct status_live live = {.files_total = 0};
	char line[200];

	if (json_is_object(o)) {
		status_print(o);
		(void)status_exit(o);
		(void)status_line(&live, o, line, sizeof(line));
	}
	json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	static bool quiet;

	if (!quiet && freopen("/dev/null", "w", stdout) == NULL)
		abort();
	quiet = true;
	if (input_number(&in, 1) % 2 == 0)
		requests(in);
	else
		status(in);
	return 0;
}
