/* SPDX-License-Identifier: BSD-2-Clause
 * tandemctl journal: the changes of a mirror, inotifywait-like, read from the journal directory.
 *
 * With --follow the mount rings a doorbell (an eventfd handed over by "attach"); while no mount is
 * there, the head page is looked at every IDLE_MS. A follower holds nothing back: the journal is
 * reclaimed under it when every target has the records, and what it missed is reported. */
#include "config.h"
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/jreader.h"
#include "replicator/ctl/ctl.h"
#include "replicator/ctl/event.h"

#define IDLE_MS 200 /* between two looks without a doorbell, and between two attempts to get one */

struct follower {
	const struct ctl_mirror *cm;
	const struct ctl_args *a;
	struct jreader *reader;
	int sock; /* mount.sock while attached, else -1 */
	int bell; /* eventfd */
	uint32_t slot;
};

static void detach(struct follower *f)
{
	if (f->sock >= 0)
		close(f->sock);
	f->sock = -1;
}

/* Ask the mount to ring our bell. Leaves f->sock -1 if there is no mount. */
static void attach(struct follower *f)
{
	int fds[CTL_FDS_MAX] = {-1, -1, -1, -1};
	json_t *req = json_pack("{s:s}", "op", "attach"), *reply = NULL;

	f->sock = ctl_dial(f->cm, CTL_SOCK_MOUNT);
	if (f->sock >= 0 && (ctl_send(f->sock, req, &f->bell, 1) < 0 ||
			     ctl_recv(f->sock, &reply, fds, CTL_ASK_MS) < 0 || !ctl_bool(reply, "ok")))
		detach(f);
	f->slot = (uint32_t)ctl_u64(reply, "slot");
	if (f->slot >= JHEAD_SLOTS)
		detach(f);
	for (int i = 0; i < CTL_FDS_MAX; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	json_decref(reply);
	json_decref(req);
}

/* Return when there may be a new record. */
static void sleep_until_news(struct follower *f)
{
	struct jhead *h = jreader_head(f->reader);
	uint64_t seen = jreader_seq(f->reader), count;

	if (f->sock < 0)
		attach(f);
	if (f->sock < 0) {
		usleep(IDLE_MS * 1000);
		return;
	}
	atomic_store(&h->slots[f->slot].sleeping, 1);
	if (atomic_load(&h->committed_seq) > seen)
		return;
	struct pollfd p[2] = {{.fd = f->bell, .events = POLLIN}, {.fd = f->sock, .events = POLLIN}};
	if (poll(p, 2, -1) < 0)
		return;
	if (p[0].revents & POLLIN && read(f->bell, &count, sizeof(count)) < 0)
		count = 0;
	if (p[1].revents) /* the mount went away: it never writes after the reply */
		detach(f);
}

static void show(const struct ctl_args *a, const struct jrec *r)
{
	if (r->type == JT_SEAL)
		return;
	if (a->json)
		event_print_json(r);
	else if (a->format)
		event_print_format(r, a->format, a->timefmt);
	else
		event_print_line(r, a->timefmt);
}

/* Stand before the oldest record there is. Records may be reclaimed meanwhile, so it is tried again. */
static int seek_oldest(struct jreader *r)
{
	int rc = E_GAP;

	for (int i = 0; i < 100 && rc == E_GAP; i++) {
		uint64_t first = atomic_load(&jreader_head(r)->first_seq);
		rc = jreader_seek(r, first > 0 ? first - 1 : 0, NULL);
	}
	return rc == E_COLLAPSED ? 0 : rc;
}

static int parse_since(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno || end == text || *end || *text == '-' ? -EINVAL : 0;
}

static int seek_since(const struct follower *f)
{
	uint64_t since, end = atomic_load(&jreader_head(f->reader)->committed_seq);
	uint64_t first = atomic_load(&jreader_head(f->reader)->first_seq);

	if (parse_since(f->a->since, &since) < 0) {
		warnx("--since %s: a sequence number, please; 0 is the oldest there is", f->a->since);
		return -EINVAL;
	}
	if (since == 0)
		return seek_oldest(f->reader);
	int rc = jreader_seek(f->reader, since, NULL);
	if (rc == E_COLLAPSED)
		return 0;
	if (rc == E_GAP)
		warnx("%s: the journal holds %" PRIu64 " to %" PRIu64 "; nothing is known since %s",
		      f->cm->name, first, end, f->a->since);
	else if (rc < 0)
		warnx("%s: journal: %s", f->cm->name, err_text(rc));
	return rc;
}

static int seek_begin(const struct follower *f)
{
	if (f->a->since)
		return seek_since(f);
	if (f->a->follow) {
		int rc = jreader_seek(f->reader, atomic_load(&jreader_head(f->reader)->committed_seq), NULL);
		return rc == E_COLLAPSED ? 0 : rc;
	}
	return seek_oldest(f->reader);
}

/* The journal was reclaimed under us. */
static int skip_gap(const struct follower *f)
{
	uint64_t seen = jreader_seq(f->reader);
	int rc = seek_oldest(f->reader);

	if (rc == 0 && jreader_seq(f->reader) > seen)
		warnx("%s: changes %" PRIu64 " to %" PRIu64 " were reclaimed before they could be shown",
		      f->cm->name, seen + 1, jreader_seq(f->reader));
	return rc;
}

static int run(struct follower *f)
{
	struct jrec rec;
	int rc = seek_begin(f);

	while (rc == 0 && !ferror(stdout)) {
		rc = jreader_next(f->reader, &rec, NULL, NULL);
		if (rc == 1) {
			show(f->a, &rec);
			jrec_release(&rec);
			rc = 0;
		} else if (rc == 0) {
			if (!f->a->follow)
				return 0;
			fflush(stdout);
			sleep_until_news(f);
		} else if (rc == E_GAP) {
			rc = skip_gap(f);
		}
	}
	if (rc < 0 && !f->a->since)
		warnx("%s: journal after %" PRIu64 ": %s", f->cm->name, jreader_seq(f->reader), err_text(rc));
	return rc;
}

static int journal(struct follower *f)
{
	int fd =
	    f->cm->statefd < 0 ? -1 : openat(f->cm->statefd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char hint[1024];

	if (fd < 0) {
		ctl_start_hint(f->cm, false, hint, sizeof(hint));
		warnx("%s: no journal in %s; it is made when the mirror is mounted: %s", f->cm->name,
		      f->cm->state_dir, hint);
		return -ENOENT;
	}
	f->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int rc = jreader_open(&f->reader, fd);
	if (rc < 0) {
		warnx("%s: %s/journal: %s", f->cm->name, f->cm->state_dir, err_text(rc));
	} else {
		rc = run(f);
		jreader_close(f->reader);
	}
	detach(f);
	close(f->bell);
	close(fd);
	return rc;
}

int cmd_journal(const struct ctl_args *a)
{
	struct ctl_mirror cm;
	struct follower f = {.cm = &cm, .a = a, .sock = -1, .bell = -1};
	char bad = event_check_format(a->format ? a->format : "");
	int rc = -EINVAL;

	if (bad) {
		warnx("--format: %%%c means nothing; 'tandemctl --help' lists the escapes", bad);
		return CTL_BROKEN;
	}
	if (ctl_mirror_open(&cm, a, a->name) == 0)
		rc = journal(&f);
	ctl_mirror_close(&cm);
	return rc < 0 ? CTL_BROKEN : CTL_OK;
}
