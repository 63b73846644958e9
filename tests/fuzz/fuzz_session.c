/* SPDX-License-Identifier: BSD-2-Clause
 * A child of tandemd after authentication: any frames in any order. This file stands in for the network (conn.h), for the walls
 * (confine.h), and for the thread that syncs, which here is done at once. So nothing but the checks of paths holds the peer back, and what
 * lies beside the module must not change. The input: frames of u8 type, u24 length and payload; a journal record gets a checksum that holds.
 * Whatever the child answers must decode. */
#include "config.h"

#include <ftw.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/conn.h"
#include "proto/err.h"
#include "proto/log.h"
#include "proto/path.h"
#include "replicator/module/confine.h"
#include "replicator/module/session.h"
#include "replicator/module/syncer.h"
#include "replicator/module/syscalls.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max) __attribute__((weak)); /* libFuzzer's */

#define FRAMES_MAX 64

struct conn {
	struct input in;
	uint8_t *now; /* the frame handed out last */
	unsigned frames;
	bool paused, refused;
};

static struct input next_input;

/* --- what the child says --- */

static void check_list(struct buf *b)
{
	struct wlisting l;
	struct wentry e;

	if (wlisting_get(b, &l) != 0)
		abort();
	for (uint32_t i = 0; i < l.count; i++)
		if (wentry_get(b, &e) != 0)
			abort();
	if (buf_end(b) != 0)
		abort();
}

static void check_sums(struct buf *b)
{
	struct wsums s;
	uint32_t weak;
	uint8_t strong[16];

	if (wsums_get(b, &s) != 0)
		abort();
	for (uint32_t i = 0; i < s.count; i++)
		if (wsum_get(b, &weak, strong) != 0)
			abort();
	if (buf_end(b) != 0)
		abort();
}

static void check_welcome(struct buf *b)
{
	struct wwelcome w;

	if (wwelcome_get(b, &w) != 0)
		abort();
	free(w.outstanding);
}

static void check_reply(uint8_t type, const void *data, size_t n)
{
	struct buf b;
	struct wfail f;
	struct wack a;

	buf_view(&b, data, n);
	switch (type) {
	case FT_WELCOME:
		check_welcome(&b);
		break;
	case FT_REFUSE:
	case FT_FAIL:
	case FT_HOLD:
		if (wfail_get(&b, &f) != 0)
			abort();
		break;
	case FT_ACK:
		if (wack_get(&b, &a) != 0)
			abort();
		break;
	case FT_LISTING:
		check_list(&b);
		break;
	case FT_SUMSET:
		check_sums(&b);
		break;
	case FT_SYNCED:
	case FT_PING:
	case FT_PONG:
	case FT_MODLIST:
	case FT_NOTICE:
		break;
	default:
		abort();
	}
}

/* --- the network --- */

int conn_accept(struct conn **out, int fd, const uint8_t reference[8], conn_psk_fn find, void *arg, int timeout_ms)
{
	uint8_t key[PSK_LEN];

	*out = calloc(1, sizeof(**out));
	if (*out == NULL || find(arg, "user", "m", key) != 0)
		abort();
	(*out)->in = next_input;
	close(fd);
	return 0;
}

void conn_close(struct conn *c)
{
	free(c->now);
	free(c);
}

int conn_fd(const struct conn *c)
{
	return -1;
}

short conn_events(const struct conn *c)
{
	return 0;
}

bool conn_pending(const struct conn *c)
{
	return true;
}

size_t conn_queued(const struct conn *c)
{
	return 0;
}

int conn_drain(struct conn *c, int timeout_ms)
{
	return 0;
}

int conn_io(struct conn *c)
{
	return c->in.left == 0 || c->frames >= FRAMES_MAX ? E_CLOSED : 0;
}

int conn_put(struct conn *c, uint8_t type, const void *payload, size_t n, enum compress_method m)
{
	if (c->refused)
		abort(); /* nothing may follow */
	c->refused = type == FT_REFUSE;
	check_reply(type, payload, n);
	return 0;
}

/* Give every journal record in a batch a checksum that holds. */
static void mend(uint8_t *p, size_t n)
{
	for (size_t i = 0; i + JREC_HEADER <= n; i++) {
		uint32_t magic, body;

		memcpy(&magic, p + i, 4);
		memcpy(&body, p + i + 12, 4);
		if (magic != JREC_MAGIC || body > n - i - JREC_HEADER)
			continue;
		memset(p + i + 32, 0, 8);
		uint64_t sum = XXH3_64bits(p + i, JREC_HEADER + body);
		memcpy(p + i + 32, &sum, 8);
	}
}

int conn_get(struct conn *c, uint8_t *type, struct buf *payload)
{
	size_t n;

	free(c->now);
	c->now = NULL;
	if (c->in.left == 0 || c->frames >= FRAMES_MAX || (c->paused = !c->paused))
		return 0; /* one frame at a time, so that answers come between them */
	c->frames++;
	*type = (uint8_t)input_number(&c->in, 1);
	n = input_number(&c->in, 3);
	c->now = input_bytes(&c->in, &n);
	if (*type == FT_BATCH)
		mend(c->now, n);
	buf_view(payload, c->now, n);
	return 1;
}

/* --- keys --- */

void auth_free(struct auth_store *s)
{
}

int auth_find(const struct auth_store *s, const struct modules_conf *mc, const char *user, const char *module, uint8_t key[PSK_LEN],
    char *why, size_t size)
{
	return 0;
}

int auth_check_file(const char *file, bool strict, char *why, size_t size)
{
	return 0;
}

bool auth_file_has(const char *file, const char *user, char *why, size_t size)
{
	return true;
}

/* --- the walls, which are not there --- */

int confine_enter(const struct module_conf *m, int rootfd, struct confined *out, char *why, size_t size)
{
	*out = (struct confined){.no_owner = true};
	return 0;
}

int confine_early(const struct modules_conf *mc, int stdir, char *why, size_t size)
{
	return 0;
}

int confine_syscalls(struct confined *out)
{
	return 0;
}

/* --- the disk --- */

int syncer_start(struct syncer *s)
{
	s->wake = -1;
	return 0;
}

void syncer_activate(struct syncer *s, int rootfd, int dirfd, int statefd, const struct identity *id, struct redo *redo,
    const struct position *now)
{
	s->dirfd = dirfd;
	s->redo = redo;
	s->active = true;
	s->next = *now;
	s->durable = now->pos;
}

void syncer_dirty(struct syncer *s, const struct position *p)
{
	uint64_t *done;
	uint32_t n = redo_take_done(s->redo, &done);

	s->next = *p;
	s->durable = p->pos;
	position_save(s->dirfd, p);
	redo_remove(s->redo, done, n);
}

uint64_t syncer_request(struct syncer *s, const struct position *p)
{
	return ++s->requested;
}

int syncer_result(struct syncer *s, uint64_t *durable, uint64_t *done)
{
	*durable = s->durable.seq;
	*done = s->requested;
	return 0;
}

int syncer_stop(struct syncer *s, bool sync)
{
	return 0;
}

/* --- the module --- */

#define SECRET "nobody reads or writes this\n"

static struct modules_conf mc;

static void configure(const char *top)
{
	char text[2000];
	int fd = memfd_create("modules.conf", 0);

	snprintf(text, sizeof(text), "state dir = %s/state\n[m]\npath = %s/module\nread only = no\nexclude = *.not\nauth users = user\n"
	    "secrets file = %s/secrets\n", top, top, top);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		abort();
	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	if (modules_conf_read(&mc, text) != 0 || mc.nmodules != 1)
		abort();
	close(fd);
}

/* A module with a little of everything, and beside it what must not change. */
static void furnish(const char *top)
{
	static const struct {
		const char *name, *text;
	} files[] = {{"outside/secret", SECRET}, {"secrets", "user:password\n"}, {"module/f", "0123456789abcdef"},
	    {"module/d/f", "x"}, {"module/x.not", "left alone"}};
	int at = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	close(scratch_mkdir(at, "state"));
	close(scratch_mkdir(at, "outside"));
	close(scratch_mkdir(at, "module"));
	close(scratch_mkdir(at, "module/d"));
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		scratch_write(at, files[i].name, files[i].text, strlen(files[i].text), 0);
	if (symlinkat("../outside", at, "module/s") != 0 || symlinkat("../outside/secret", at, "module/t") != 0 ||
	    linkat(at, "module/f", at, "module/g", 0) != 0 || mkfifoat(at, "module/p", 0600) != 0)
		abort();
	close(at);
}

static unsigned count;

static int look(const char *p, const struct stat *st, int flag, struct FTW *f)
{
	count++;
	return 0;
}

static void check_outside(const char *top)
{
	char path[600], text[64] = "";
	struct stat st;
	int fd;

	count = 0;
	snprintf(path, sizeof(path), "%s/outside", top);
	nftw(path, look, 8, FTW_PHYS);
	snprintf(path, sizeof(path), "%s/outside/secret", top);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) != (ssize_t)strlen(SECRET) || strcmp(text, SECRET) != 0 || fstat(fd, &st) != 0)
		abort();
	if (count != 2 || st.st_nlink != 1 || (st.st_mode & 07777) != 0600 || flistxattr(fd, NULL, 0) != 0)
		abort();
	close(fd);
	snprintf(path, sizeof(path), "%s/module/x.not", top);
	if (lstat(path, &st) != 0 || st.st_size != 10 || !S_ISREG(st.st_mode))
		abort(); /* excluded */
}

/* What a process would leave behind with its end: descriptors. */
static void close_rest(int first)
{
	close_range((unsigned)first, ~0u, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *top = scratch_begin();
	struct session_env env = {.mc = &mc, .parent = -1, .peer = "127.0.0.1", .addr = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}};
	char path[300];
	static int cwd = -1;
	int first;

	furnish(top);
	if (mc.nmodules == 0) {
		cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
		configure(top);
		log_init("tandemd", "/dev/null", 0);
	}
	first = fcntl(0, F_DUPFD_CLOEXEC, 3);
	close(first);
	snprintf(path, sizeof(path), "%s/state", top);
	env.stdir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	env.fd = fcntl(env.stdir, F_DUPFD_CLOEXEC, 3);
	next_input = (struct input){data, size};
	session_run(&env);
	close_rest(first);
	if (fchdir(cwd) != 0)
		abort();
	check_outside(top);
	return 0;
}

/* --- other inputs --- */

#define FRAME_HEAD 4 /* bytes of an input before a frame's payload */

struct piece {
	size_t at, n; /* of a frame, with its head */
};

static unsigned split(const uint8_t *data, size_t size, struct piece v[FRAMES_MAX])
{
	unsigned n = 0;

	for (size_t at = 0; n < FRAMES_MAX && at + FRAME_HEAD <= size; at += v[n++].n) {
		v[n].at = at;
		v[n].n = FRAME_HEAD + ((size_t)data[at + 1] | (size_t)data[at + 2] << 8 | (size_t)data[at + 3] << 16);
		if (v[n].n > size - at)
			v[n].n = size - at;
	}
	return n;
}

/* Change the payload of one frame and let its length follow, or repeat, remove or move a whole one; now and then anything. A change of a length
 * otherwise makes nonsense of all frames behind it. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	static uint8_t copy[1 << 20];
	struct piece v[FRAMES_MAX], a, b;
	unsigned n = split(data, size, v), how = seed % 8;
	size_t rest, len;

	if (n == 0 || how == 0 || max > sizeof(copy))
		return LLVMFuzzerMutate(data, size, max);
	memcpy(copy, data, size);
	a = v[seed / 8 % n];
	b = v[seed / 512 % n];
	if (how == 1 && n > 1) { /* remove a */
		memmove(data + a.at, copy + a.at + a.n, size - a.at - a.n);
		return size - a.n;
	}
	if (how == 2 && size + a.n <= max) { /* repeat a before b */
		memcpy(data + b.at, copy + a.at, a.n);
		memcpy(data + b.at + a.n, copy + b.at, size - b.at);
		return size + a.n;
	}
	if (max == size && a.n == FRAME_HEAD)
		return LLVMFuzzerMutate(data, size, max);
	rest = size - a.at - a.n;
	len = LLVMFuzzerMutate(copy + a.at + FRAME_HEAD, a.n - FRAME_HEAD, max - (size - a.n) - FRAME_HEAD);
	memmove(data + a.at + FRAME_HEAD + len, data + a.at + a.n, rest);
	memcpy(data + a.at + FRAME_HEAD, copy + a.at + FRAME_HEAD, len);
	for (unsigned i = 0; i < 3; i++)
		data[a.at + 1 + i] = (uint8_t)(len >> (8 * i));
	return a.at + FRAME_HEAD + len + rest;
}
