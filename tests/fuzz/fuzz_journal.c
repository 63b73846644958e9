/* SPDX-License-Identifier: BSD-2-Clause
 * A hostile journal directory: what the reader makes of it, and recovery. The input is u8 flags and files: u16 length, u8 kind (the head page,
 * a segment with the name its header says, a segment with a name of its own: u8) and bytes. Flags: 1, sums, numbers and chains are made to hold; 2, the
 * host booted since. After recovery the journal must read from its first record to its last and open clean the next time. */
#include "config.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "fs/journal.h"
#include "fs/journal_priv.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/jreader.h"
#include "proto/jseg.h"
#include "proto/log.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILES_MAX 4

/* Without the threads, whose making and waking is most of the time: the next segment is there at once, and nothing else is asked of them here. */
int __wrap_threads_start(struct journal *j);
int __wrap_threads_start(struct journal *j)
{
	return segment_prepare(j, &j->next);
}

struct made {
	int dir;
	bool mended, rebooted;
	uint64_t seq, chain; /* after the last record of the segment before; seq 0: none */
	uint8_t id[16];
};

static void sum_header(uint8_t *p)
{
	uint64_t sum = XXH3_64bits(p, 56);

	memcpy(p + 56, &sum, 8);
}

/* Let the records follow one another. */
static void mend_records(struct made *m, uint8_t *p, size_t n)
{
	for (size_t off = JSEG_HEADER; n >= JREC_HEADER && off <= n - JREC_HEADER;) {
		uint32_t length, body;
		uint64_t sum;

		memcpy(&length, p + off + 8, 4);
		memcpy(&body, p + off + 12, 4);
		if (length < JREC_HEADER || length > n - off || body > length - JREC_HEADER)
			return;
		m->seq++;
		memcpy(p + off + 16, &m->seq, 8);
		memset(p + off + 32, 0, 8);
		sum = XXH3_64bits(p + off, JREC_HEADER + body);
		memcpy(p + off + 32, &sum, 8);
		m->chain = jrec_chain(m->chain, sum);
		off += length;
	}
}

static void mend_segment(struct made *m, uint8_t *p, size_t n)
{
	uint64_t size = JSEG_SIZE_MIN, first = m->seq + 1;

	if (n < JSEG_HEADER)
		return;
	memcpy(p, "TJSEG\0\0\1", 8);
	memcpy(p + 8, m->id, 16);
	if (m->seq > 0) {
		memcpy(p + 32, &first, 8);
		memcpy(p + 40, &m->chain, 8);
	} else {
		memcpy(&first, p + 32, 8);
		memcpy(&m->chain, p + 40, 8);
		m->seq = first - 1;
	}
	memcpy(p + 48, &size, 8);
	sum_header(p);
	mend_records(m, p, n);
}

static void make_head(struct made *m, const uint8_t *p, size_t n)
{
	struct jhead h = {.magic = JHEAD_MAGIC, .epoch = 1};

	memcpy(&h, p, n < sizeof(h) ? n : sizeof(h));
	if (!m->rebooted)
		fio_boot_id(h.boot_id);
	if (m->mended) {
		h.magic = JHEAD_MAGIC;
		memcpy(h.journal_id, m->id, 16);
	}
	scratch_write(m->dir, JHEAD_NAME, &h, sizeof(h), JHEAD_SIZE);
}

static void make_segment(struct made *m, uint8_t *p, size_t n, int name)
{
	char text[JSEG_NAME_LEN];
	uint64_t first = (uint64_t)name;

	if (m->mended)
		mend_segment(m, p, n);
	if (name < 0 && n >= 40)
		memcpy(&first, p + 32, 8);
	jseg_name(text, name < 0 && n < 40 ? 1 : first);
	scratch_write(m->dir, text, p, n, m->mended && n < JSEG_SIZE_MIN ? JSEG_SIZE_MIN : 0);
}

static void make_files(struct made *m, struct input *in)
{
	for (int i = 0; i < FILES_MAX && in->left > 3; i++) {
		size_t n = input_number(in, 2);
		unsigned kind = (unsigned)input_number(in, 1) % 3;
		int name = kind == 2 ? (int)input_number(in, 1) : -1;
		uint8_t *p = input_bytes(in, &n);

		if (kind == 0)
			make_head(m, p, n);
		else
			make_segment(m, p, n, name);
		free(p);
	}
}

/* Read as a replicator would, before anybody recovered. */
static void read_found(int dir, const uint64_t *seqs, int n)
{
	struct jreader *r;
	struct jrec rec;
	uint64_t digest;

	if (jreader_open(&r, dir) != 0)
		return;
	for (int i = -1; i <= n; i++) {
		int err = i < 0 ? jreader_rewind(r) : jreader_seek(r, i < n ? seqs[i] : 3, &digest);

		for (int k = 0; (err == 0 || err == E_COLLAPSED) && k < 2000 && jreader_next(r, &rec, NULL, NULL) == 1; k++)
			jrec_release(&rec);
	}
	jreader_seek_time(r, 1ull << 60);
	jreader_close(r);
}

/* After recovery no record is missing that is not explained. */
static void read_all(int dir, struct journal *j)
{
	struct jreader *r;
	struct jrec rec;
	int got;

	if (jreader_open(&r, dir) != 0 || jreader_rewind(r) != 0)
		abort();
	for (uint64_t seq = jreader_seq(r); (got = jreader_next(r, &rec, NULL, NULL)) != 0; seq++) {
		if (got == E_PROTO || got == E_VERSION)
			break; /* its checksum holds and it is none of ours: nobody steps over it */
		if (got == E_GAP) {
			if (jreader_seek(r, seq, NULL) != E_COLLAPSED)
				abort();
			seq = jreader_seq(r);
			got = jreader_next(r, &rec, NULL, NULL);
		}
		if (got != 1 || rec.seq != seq + 1)
			abort();
		jrec_release(&rec);
	}
	if (got == 0 && jreader_seq(r) != journal_seq(j))
		abort();
	jreader_close(r);
}

static void recover(int dir)
{
	static const struct journal_options opt = {.limit = 1ull << 40, .segment_size = JSEG_SIZE_MIN, .sync = JSYNC_NEVER};
	enum journal_start start;
	struct journal *j;
	uint64_t since, seq;
	struct jrec r;

	if (journal_open(&j, dir, &opt, &start, &since) != 0)
		return;
	if (start == JSTART_POWER || start == JSTART_DAMAGED)
		journal_recovered(j);
	jrec_init(&r, JT_CREATE);
	r.path = "after";
	r.ino = 1;
	r.mode = S_IFREG | 0600;
	if (journal_append(j, &r) != 0)
		abort();
	read_all(dir, j);
	seq = journal_seq(j);
	journal_close(j);
	if (journal_open(&j, dir, &opt, &start, &since) != 0 || start != JSTART_CLEAN || journal_seq(j) != seq)
		abort();
	journal_close(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned flags = (unsigned)input_number(&in, 1);
	struct made m = {.mended = flags & 1, .rebooted = flags & 2, .id = {1, 2, 3}};
	static bool quiet;
	uint64_t *seqs = NULL;
	int n;

	if (!quiet)
		log_init("journal", "/dev/null", 0);
	quiet = true;
	m.dir = open(scratch_begin(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	make_files(&m, &in);
	n = jseg_list(m.dir, &seqs);
	if (n < 0)
		abort();
	read_found(m.dir, seqs, n);
	free(seqs);
	recover(m.dir);
	close(m.dir);
	return 0;
}
