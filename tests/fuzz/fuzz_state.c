/* SPDX-License-Identifier: BSD-2-Clause
 * What a module keeps in .tandem and in the state directory, from a hostile disk: position page and durable copy, redo logs, times of
 * directories, marker, state. The first byte chooses; its high bit asks for checksums that hold. */
#include "config.h"

#include <errno.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/err.h"
#include "proto/path.h"
#include "replicator/module/marker.h"
#include "replicator/module/position.h"
#include "replicator/module/redo.h"
#include "replicator/module/touched.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct at {
	int top, private; /* the module, its .tandem */
	uint64_t ino;	  /* of the module's file f */
};

/* Put the sum of the first n bytes behind them. */
static void put_sum(uint8_t *p, size_t n)
{
	uint64_t sum = XXH3_64bits(p, n);

	memcpy(p + n, &sum, 8);
}

/* A slot of the position page: u16 length, bytes. */
static void take_slot(struct input *in, bool mended, uint8_t slot[POSITION_SLOT])
{
	size_t n = input_number(in, 2);
	uint8_t *p;
	uint32_t out;

	n = n < POSITION_SLOT ? n : POSITION_SLOT;
	p = input_bytes(in, &n);
	memset(slot, 0, POSITION_SLOT);
	memcpy(slot, p, n);
	free(p);
	memcpy(&out, slot + 88, 4);
	if (mended && 96 + (size_t)out * 8 + 8 <= POSITION_SLOT)
		put_sum(slot, 96 + (size_t)out * 8);
}

static void position(const struct at *at, struct input *in, bool mended)
{
	static uint8_t page[2 * POSITION_SLOT];
	static struct position_page pp, again;
	static const uint8_t boot[16] = {1};
	bool unclean, settle;

	take_slot(in, mended, page);
	take_slot(in, mended, page + POSITION_SLOT);
	scratch_write(at->private, "position", page, sizeof(page), 0);
	take_slot(in, mended, page);
	scratch_write(at->private, "durable", page, POSITION_SLOT, 0);
	if (position_open(&pp, at->private, boot, &unclean, &settle) != 0)
		return;
	if (pp.now.nout > WPOS_OUT_MAX)
		abort();
	close(pp.fd);
	/* what was chosen is chosen again */
	if (position_open(&again, at->private, boot, &unclean, &settle) != 0 || !settle ||
	    memcmp(&again.now.pos, &pp.now.pos, sizeof(pp.now.pos)) != 0 || unclean != (pp.now.unsettled != 0))
		abort();
	position_close(&again);
}

/* Logs 1 to 3: u8 suffix, u16 length, bytes. */
static void redo(const struct at *at, struct input *in, bool mended)
{
	static const char *const suffix[] = {"", ".done", ".data", ".other"};
	int fd = scratch_mkdir(at->private, "redo");
	struct redo r;

	for (unsigned i = 1; i <= 3 && in->left > 0; i++) {
		char name[64];
		const char *end = suffix[input_number(in, 1) % 4];
		size_t n = input_number(in, 2);
		uint8_t *p = input_bytes(in, &n);

		if (mended && n >= 20)
			memcpy(p + 12, &at->ino, 8);
		if (mended && n >= 8)
			put_sum(p, n - 8);
		snprintf(name, sizeof(name), "%016x%s", i, end);
		scratch_write(fd, name, p, n, 0);
		snprintf(name, sizeof(name), "%016x.data", i);
		if (faccessat(fd, name, F_OK, 0) != 0)
			scratch_write(fd, name, "new bytes of this file", 22, 0);
		free(p);
	}
	if (redo_init(&r, fd, at->top, NULL, true) == 0) {
		uint64_t *done;
		uint32_t n = redo_take_done(&r, &done);

		redo_remove(&r, done, n);
	}
	redo_release(&r);
	close(fd);
}

/* Entries: u16 length of what follows the length field, bytes. */
static void touched(const struct at *at, struct input *in, bool mended)
{
	static uint8_t file[TOUCHED_SIZE];
	struct touched t;
	size_t used = 0;

	memset(file, 0, sizeof(file));
	while (in->left > 0 && used < sizeof(file)) {
		size_t n = input_number(in, 2);
		uint8_t *p = input_bytes(in, &n);
		uint32_t len = (uint32_t)n - 4;

		n = n < sizeof(file) - used ? n : sizeof(file) - used;
		memcpy(file + used, p, n);
		if (mended && n >= 12) {
			memcpy(file + used, &len, 4);
			put_sum(file + used, n - 8);
		}
		used += n;
		free(p);
	}
	scratch_write(at->private, "touched", file, sizeof(file), 0);
	if (touched_open(&t, at->private) != 0)
		abort();
	touched_restore(&t, at->top, NULL);
	touched_note(&t, "d", 1, at->ino, (struct jtime){1, 2});
	touched_restore(&t, at->top, NULL);
	touched_close(&t);
}

static void marker(const struct at *at, struct input *in, bool mended)
{
	struct identity id;

	scratch_write(at->private, "marker", in->p, in->left, 0);
	if (marker_read(at->private, &id) == 0 && strlen(id.module_id) != MARKER_ID_LEN)
		abort();
}

static void state(const struct at *at, struct input *in, bool mended)
{
	struct module_state s, again;
	int fd = state_open(at->private, "m");

	if (fd < 0 || write(fd, in->p, in->left) != (ssize_t)in->left)
		abort();
	if (state_read(fd, &s) == 0) {
		s.pos.epoch &= INT64_MAX;
		s.pos.seq &= INT64_MAX;
		if (state_write(fd, &s) != 0 || state_read(fd, &again) != 0 || memcmp(&s, &again, sizeof(s)) != 0)
			abort();
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const kinds[])(const struct at *, struct input *, bool) = {position, redo, touched, marker, state};
	struct input in = {data, size};
	struct stat st;
	struct at at;
	int top = open(scratch_begin(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned kind = (unsigned)input_number(&in, 1);

	at.top = scratch_mkdir(top, "module");
	at.private = scratch_mkdir(at.top, PATH_PRIVATE);
	scratch_write(top, "outside", "outside", 7, 0);
	scratch_write(at.top, "f", "0123456789", 10, 0);
	close(scratch_mkdir(at.top, "d"));
	if (symlinkat("../outside", at.top, "s") != 0 || fstatat(at.top, "f", &st, 0) != 0)
		abort();
	at.ino = st.st_ino;
	kinds[(kind & 0x7f) % 5](&at, &in, kind & 0x80);
	if (fstatat(top, "outside", &st, 0) != 0 || st.st_size != 7)
		abort();
	close(at.private);
	close(at.top);
	close(top);
	return 0;
}
