/* SPDX-License-Identifier: BSD-2-Clause
 * The states of phantoms (phantom.h):
 *
 *   birth of an ephemeral inode          -> NONE, or HOLLOW when an earlier connection may have sent it
 *   content skipped (phantoms_hollow)    REAL -> HOLLOW, or NONE when its CREATE was held back too (phantoms_skip)
 *   RENAME over a name that is occupied  NONE, HOLLOW -> STANDIN   (HOLLOW: its old name is removed)
 *   RENAME to a free name                HOLLOW -> NONE            (the same), NONE -> NONE
 *   any further RENAME                   STANDIN: sent, moves the stand-in
 *   last UNLINK, or being replaced       -> REAL (forgotten); sent unless NONE
 *
 * An exchange of a NONE or HOLLOW one with another inode becomes the plain rename of the other; a HOLLOW inode that has several names
 * stays HOLLOW, and its RENAMEs and LINKs are sent as they are. Attributes of a phantom are never sent.
 *
 *   its bytes are left to the comparison REAL -> LEFT: its RENAME or LINK is not sent, both names are compared; so half a version never
 *                                        replaces a whole one. Its next CONTENT brings the whole file -> REAL, so does the end of all comparisons.
 *
 * While earlier records are not replayed (phantoms_doubt) a regular file that is renamed is LEFT, unless it was born since (BORN).
 *
 * A name is occupied unless the inode that held it was itself NONE. What is moved may already have the new name too, on the standby
 * alone, where a file stood in: the module then removes the old name. */
#include "config.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/tree.h>
#include "replicator/source/phantom.h"

struct phantom {
	RB_ENTRY(phantom) node;
	uint64_t ino;
	uint64_t seq; /* record whose content was skipped, 0: none was, all of it is dropped but the end of its names */
	bool linked;  /* HOLLOW, with several names */
	enum phantom_state state;
};

RB_HEAD(phantom_tree, phantom);

#define BORN_MAX 100000 /* remembered; those beyond are doubted */

struct phantoms {
	struct phantom_tree tree;
	uint64_t replay; /* a birth up to here may have been sent before */
	bool doubt;
	size_t nborn;
};

static int phantom_cmp(const struct phantom *a, const struct phantom *b)
{
	return a->ino < b->ino ? -1 : a->ino > b->ino;
}

RB_GENERATE_INTERNAL(phantom_tree, phantom, node, phantom_cmp, static __attribute__((unused)))

int phantoms_new(struct phantoms **out)
{
	*out = calloc(1, sizeof **out);
	return *out == NULL ? -ENOMEM : 0;
}

static struct phantom *find(const struct phantoms *p, uint64_t ino)
{
	struct phantom key = {.ino = ino};

	if (ino == 0 || RB_EMPTY(&p->tree))
		return NULL;
	return RB_FIND(phantom_tree, (struct phantom_tree *)&p->tree, &key);
}

static void forget(struct phantoms *p, uint64_t ino)
{
	struct phantom *x = find(p, ino);

	if (x != NULL) {
		p->nborn -= x->state == PS_BORN;
		RB_REMOVE(phantom_tree, &p->tree, x);
		free(x);
	}
}

static int set(struct phantoms *p, uint64_t ino, uint64_t seq, enum phantom_state state)
{
	struct phantom *x = find(p, ino);

	if (x == NULL) {
		x = calloc(1, sizeof *x);
		if (x == NULL)
			return -ENOMEM;
		x->ino = ino;
		x->seq = seq;
		RB_INSERT(phantom_tree, &p->tree, x);
	}
	p->nborn += (state == PS_BORN) - (x->state == PS_BORN);
	x->state = state;
	return 0; /* NOLINT(clang-analyzer-unix.Malloc): x is in the tree */
}

void phantoms_free(struct phantoms *p)
{
	if (p == NULL)
		return;
	while (!RB_EMPTY(&p->tree))
		forget(p, RB_MIN(phantom_tree, &p->tree)->ino);
	free(p);
}

void phantoms_replay(struct phantoms *p, uint64_t seq)
{
	p->replay = seq;
}

enum phantom_state phantoms_state(const struct phantoms *p, uint64_t ino)
{
	const struct phantom *x = find(p, ino);

	return x == NULL ? PS_REAL : x->state;
}

/* Say whether its content will not come, in whatever way. */
static bool phantom(const struct phantoms *p, uint64_t ino)
{
	enum phantom_state state = phantoms_state(p, ino);

	return state == PS_NONE || state == PS_STANDIN || state == PS_HOLLOW;
}

static int fresh(struct phantoms *p, uint64_t ino, uint64_t seq, enum phantom_state state)
{
	forget(p, ino);
	return set(p, ino, seq, state);
}

int phantoms_hollow(struct phantoms *p, uint64_t ino, uint64_t seq, bool linked)
{
	int r = phantom(p, ino) ? 0 : fresh(p, ino, seq, PS_HOLLOW);

	if (r == 0 && linked)
		find(p, ino)->linked = true;
	return r;
}

int phantoms_skip(struct phantoms *p, uint64_t ino, uint64_t seq)
{
	return phantom(p, ino) ? 0 : fresh(p, ino, seq, PS_NONE);
}

int phantoms_leave(struct phantoms *p, uint64_t ino, uint64_t seq)
{
	return phantom(p, ino) ? 0 : fresh(p, ino, seq, PS_LEFT);
}

void phantoms_whole(struct phantoms *p, uint64_t ino)
{
	if (phantoms_state(p, ino) == PS_LEFT)
		forget(p, ino);
}

void phantoms_doubt(struct phantoms *p)
{
	p->doubt = true;
}

void phantoms_compared(struct phantoms *p)
{
	struct phantom *x, *next;

	p->doubt = false;
	for (x = RB_MIN(phantom_tree, &p->tree); x != NULL; x = next) {
		next = RB_NEXT(phantom_tree, &p->tree, x);
		if (x->state == PS_LEFT || x->state == PS_BORN)
			forget(p, x->ino);
	}
}

uint32_t phantoms_outstanding(const struct phantoms *p, uint64_t *out, uint32_t max)
{
	uint64_t first = UINT64_MAX;
	struct phantom *x;
	uint32_t n = 0;

	RB_FOREACH(x, phantom_tree, (struct phantom_tree *)&p->tree) {
		if (x->state != PS_HOLLOW || x->seq == 0)
			continue;
		first = x->seq < first ? x->seq : first;
		if (n < max)
			out[n] = x->seq;
		n++;
	}
	if (n > max && max > 0)
		out[0] = first;
	return n;
}

bool phantoms_unended(const struct phantoms *p, uint64_t *ino, uint64_t *seq)
{
	struct phantom *x;

	RB_FOREACH(x, phantom_tree, (struct phantom_tree *)&p->tree) {
		if (x->state != PS_HOLLOW || x->seq == 0)
			continue;
		*ino = x->ino;
		*seq = x->seq;
		return true;
	}
	return false;
}

int phantoms_give_up(struct phantoms *p, uint64_t ino)
{
	return fresh(p, ino, 0, PS_LEFT);
}

/* Say whether nothing of the inode may be shown under another name. */
static bool nameless(const struct phantoms *p, uint64_t ino)
{
	const struct phantom *x = find(p, ino);

	return x != NULL && (x->state == PS_NONE || (x->state == PS_HOLLOW && !x->linked));
}

static int decide_exchange(struct phantoms *p, const struct wrec *e)
{
	bool moved = nameless(p, e->ino), other = nameless(p, e->ino2);

	if (!moved && !other)
		return PA_SEND;
	if (moved && other)
		return set(p, e->ino, e->seq, PS_NONE) < 0 || set(p, e->ino2, e->seq, PS_NONE) < 0 ? -ENOMEM : PA_NEITHER;
	return set(p, moved ? e->ino : e->ino2, e->seq, PS_NONE) < 0 ? -ENOMEM : moved ? PA_BACK : PA_ON;
}

/* Say whether the record must not give what the standby has of ino another name. */
static bool doubtful(const struct phantoms *p, const struct wrec *e, uint64_t ino)
{
	const struct phantom *x = find(p, ino);

	if (x != NULL)
		return x->state == PS_LEFT;
	return p->doubt && ino != 0 && e->type == JT_RENAME && (ino == e->ino ? S_ISREG(e->mode) : true);
}

static int decide_left(struct phantoms *p, const struct wrec *e)
{
	int r = phantoms_leave(p, e->ino, e->seq);

	if (r == 0 && (e->flags & JF_EXCHANGE))
		r = phantoms_leave(p, e->ino2, e->seq);
	return r < 0 ? r : PA_LEAVE;
}

static int decide_rename(struct phantoms *p, const struct wrec *e)
{
	enum phantom_state moved = phantoms_state(p, e->ino), replaced = phantoms_state(p, e->ino2);
	bool occupied = e->ino2 != 0 && replaced != PS_NONE;
	int r;

	if (e->flags & JF_EXCHANGE)
		return doubtful(p, e, e->ino) || doubtful(p, e, e->ino2) ? decide_left(p, e) : decide_exchange(p, e);
	if (e->ino2 != 0 && e->nlink == 0)
		forget(p, e->ino2);
	if (doubtful(p, e, e->ino))
		return decide_left(p, e);
	if (moved == PS_REAL || moved == PS_BORN || moved == PS_STANDIN || (moved == PS_HOLLOW && find(p, e->ino)->linked))
		return PA_SEND;
	r = set(p, e->ino, e->seq, occupied ? PS_STANDIN : PS_NONE);
	if (r < 0)
		return r;
	return moved == PS_HOLLOW ? PA_UNLINK : PA_DROP;
}

static int decide_unlink(struct phantoms *p, const struct wrec *e)
{
	enum phantom_state state = phantoms_state(p, e->ino);

	if (e->nlink == 0)
		forget(p, e->ino);
	return state == PS_NONE ? PA_DROP : PA_SEND;
}

static int decide_other(struct phantoms *p, const struct wrec *e)
{
	struct phantom *x = find(p, e->ino);

	if (x == NULL || x->state == PS_BORN)
		return PA_SEND;
	if (x->state == PS_LEFT)
		return e->type == JT_CONTENT ? PA_WHOLE : PA_LEAVE;
	if (e->type != JT_LINK || x->state == PS_NONE || (x->state == PS_HOLLOW && x->seq == 0))
		return PA_DROP; /* attributes, too: another file, with names of its own, may stand there */
	x->linked |= x->state == PS_HOLLOW;
	return PA_SEND;
}

int phantoms_decide(struct phantoms *p, const struct wrec *e)
{
	int r;

	switch (e->type) {
	case JT_CREATE:
	case JT_MKNOD:
	case JT_SYMLINK:
	case JT_MKDIR:
		forget(p, e->ino);
		if ((e->marks & WM_EPHEMERAL) == 0) {
			r = p->doubt && e->type == JT_CREATE && p->nborn < BORN_MAX ? set(p, e->ino, e->seq, PS_BORN) : 0;
			return r < 0 ? r : PA_SEND;
		}
		r = set(p, e->ino, 0, e->seq <= p->replay ? PS_HOLLOW : PS_NONE);
		return r < 0 ? r : PA_DROP;
	case JT_RENAME:
		return decide_rename(p, e);
	case JT_UNLINK:
		return decide_unlink(p, e);
	case JT_LINK:
	case JT_SETATTR:
	case JT_SETXATTR:
	case JT_REMOVEXATTR:
	case JT_CONTENT:
		return decide_other(p, e);
	default:
		return PA_SEND;
	}
}
