/* SPDX-License-Identifier: BSD-2-Clause
 * RENAMEs on their way (passed.h). */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "replicator/source/passed.h"

struct passed {
	TAILQ_ENTRY(passed) link;
	uint64_t place; /* bytes of the stream up to its end */
	bool exchange;
	char *to;
	char from[];
};

/* Forget those before which everything was answered. */
static void expire(struct passed_list *l, uint64_t acked)
{
	struct passed *p;

	while ((p = TAILQ_FIRST(l)) != NULL && p->place <= acked) { /* NOLINT(clang-analyzer-unix.Malloc): it is off the list */
		TAILQ_REMOVE(l, p, link);
		free(p);
	}
}

int passed_add(struct passed_list *l, struct stream *s, const char *from, const char *to, bool exchange)
{
	size_t n = strlen(from) + 1, m = strlen(to) + 1;
	struct passed *p = malloc(sizeof *p + n + m);
	struct stream_stats st;

	if (p == NULL)
		return -ENOMEM;
	stream_stats(s, &st);
	expire(l, st.acked);
	p->place = st.sent + stream_batched(s);
	p->exchange = exchange;
	p->to = memcpy(p->from + n, to, m);
	memcpy(p->from, from, n);
	TAILQ_INSERT_TAIL(l, p, link);
	return 0;
}

int passed_follow(struct passed_list *l, struct stream *s, const char *path, struct follow_names *names)
{
	struct stream_stats st;
	const struct passed *p;
	int r = follow_begin(names, 0, path);

	stream_stats(s, &st);
	expire(l, st.acked);
	TAILQ_FOREACH(p, l, link) {
		struct follow_rec e = {.type = JT_RENAME, .flags = p->exchange ? JF_EXCHANGE : 0, .path = p->from, .path2 = p->to};

		if (r == 0)
			r = follow_perhaps(names, &e);
	}
	return r;
}

void passed_release(struct passed_list *l)
{
	expire(l, UINT64_MAX);
}
