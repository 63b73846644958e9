/* SPDX-License-Identifier: BSD-2-Clause
 * The journal reader: see jreader.h and "Reading" in docs/journal-format.md.
 *
 * A reader stands after record `seq` with chain digest `digest`. Its place in the segments is one of
 *
 *   unplaced   cur.map is NULL: the segment of seq+1 is looked up by its name when there is something
 *              to read (after open, and after a SEAL)
 *   placed     cur is mapped and `off` is the offset of record seq+1 in it
 *
 * A SEAL moves cur to old, where it stays mapped so that the views handed out with the SEAL live until
 * the next record is returned. The writer unlinks segments without asking: a mapped one stays readable,
 * one that is looked up and missing is E_GAP. Nothing beyond committed_seq is ever looked at, so a
 * record that does not verify is damage and never a record in the making. */
#include "config.h"
#include "proto/jreader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/filemap.h"
#include "proto/jseg.h"

struct mapped {
	struct filemap *file;
	const uint8_t *map; /* NULL: none */
	size_t size;	    /* bytes mapped, at least JSEG_HEADER */
	struct jseg seg;
};

struct jreader {
	int dirfd; /* borrowed */
	struct jhead *head;
	uint8_t id[16]; /* journal and epoch it was opened for */
	uint64_t epoch;
	struct mapped cur;
	struct mapped old; /* the segment sealed last, for views */
	size_t off;	   /* bytes into cur */
	uint64_t seq;
	uint64_t digest;
	bool any_digest; /* the next segment's header gives the digest (after a gap) */
};

static void unmap(struct mapped *m)
{
	filemap_close(m->file);
	memset(m, 0, sizeof(*m));
}

/* Map the segment that begins with first. Returns 0, E_GAP when it is not there, E_CHECKSUM, E_VERSION,
 * -errno. */
static int map_segment(struct mapped *m, int dirfd, uint64_t first)
{
	char name[JSEG_NAME_LEN];
	struct stat st;
	jseg_name(name, first);
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? E_GAP : -errno;
	int err = fstat(fd, &st) ? -errno : 0;
	if (!err && (st.st_size < (off_t)JSEG_HEADER || st.st_size > (off_t)JSEG_SIZE_MAX))
		err = E_CHECKSUM;
	if (!err)
		err = filemap_read(&m->file, fd, (size_t)st.st_size);
	close(fd);
	if (err)
		return err;
	m->map = filemap_at(m->file);
	m->size = (size_t)st.st_size;
	err = jseg_get(&m->seg, m->map, m->size);
	if (!err && (m->seg.size > m->size || m->seg.first_seq != first))
		err = E_CHECKSUM;
	if (err)
		unmap(m);
	return err == E_LIMIT ? E_CHECKSUM : err;
}

static uint64_t committed(const struct jreader *r)
{
	return atomic_load_explicit(&r->head->committed_seq, memory_order_acquire);
}

/* The head page says that this is still the journal the reader was opened for. */
static bool same_journal(const struct jreader *r)
{
	return r->head->epoch == r->epoch && !memcmp(r->head->journal_id, r->id, 16);
}

int jreader_open(struct jreader **out, int dirfd)
{
	*out = NULL;
	struct jreader *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	int err = jhead_map(&r->head, dirfd, 0);
	if (err) {
		free(r);
		return err;
	}
	r->dirfd = dirfd;
	r->epoch = r->head->epoch;
	memcpy(r->id, r->head->journal_id, 16);
	*out = r;
	return 0;
}

void jreader_close(struct jreader *r)
{
	if (!r)
		return;
	unmap(&r->cur);
	unmap(&r->old);
	jhead_unmap(r->head);
	free(r);
}

struct jhead *jreader_head(struct jreader *r)
{
	return r->head;
}

uint64_t jreader_seq(const struct jreader *r)
{
	return r->seq;
}

uint64_t jreader_digest(const struct jreader *r)
{
	return r->digest;
}

/* Map the segment of record seq+1, which is its first. */
static int place(struct jreader *r)
{
	struct mapped m = {0};
	int err = map_segment(&m, r->dirfd, r->seq + 1);
	if (err)
		return err;
	if (memcmp(m.seg.journal_id, r->id, 16) || m.seg.epoch > r->epoch ||
	    (!r->any_digest && m.seg.chain != r->digest)) {
		unmap(&m);
		return E_CHECKSUM;
	}
	unmap(&r->cur);
	r->cur = m;
	r->off = JSEG_HEADER;
	r->digest = m.seg.chain;
	r->any_digest = false;
	return 0;
}

/* Step over record i at r->off. */
static void step(struct jreader *r, uint64_t csum, size_t len, uint16_t type)
{
	r->seq++;
	r->digest = jrec_chain(r->digest, csum);
	r->off += len;
	if (type == JT_SEAL) {
		unmap(&r->old);
		r->old = r->cur;
		memset(&r->cur, 0, sizeof(r->cur));
	}
}

/* Verify the record at r->off and give its header. */
static int look(struct jreader *r, struct jrec_info *i)
{
	int err = jrec_peek(i, r->cur.map + r->off, r->cur.seg.size - r->off);
	if (err)
		return err == E_TORN ? E_CHECKSUM : err;
	return i->seq == r->seq + 1 ? 0 : E_CHECKSUM;
}

int jreader_next(struct jreader *r, struct jrec *rec, const void **raw, size_t *len)
{
	if (!same_journal(r))
		return E_GAP;
	if (r->seq >= committed(r))
		return 0;
	if (!r->cur.map) {
		int err = place(r);
		if (err)
			return err;
	}
	const uint8_t *p = r->cur.map + r->off;
	size_t used;
	int err = jrec_get(rec, p, r->cur.seg.size - r->off, &used);
	if (!err && rec->seq != r->seq + 1) {
		jrec_release(rec);
		err = E_CHECKSUM;
	}
	if (err)
		return err == E_TORN ? E_CHECKSUM : err;
	if (raw)
		*raw = p;
	if (len)
		*len = used;
	if (rec->type != JT_SEAL)
		unmap(&r->old);
	step(r, rec->csum, used, (uint16_t)rec->type);
	return 1;
}

/* Stand before record first, which begins a segment. */
static int stand_at(struct jreader *r, uint64_t first)
{
	unmap(&r->cur);
	unmap(&r->old);
	r->seq = first - 1;
	r->any_digest = true;
	return place(r);
}

/* Scan within and across segments until the reader stands after seq. */
static int scan_to(struct jreader *r, uint64_t seq)
{
	while (r->seq < seq) {
		struct jrec_info i;
		int err = r->cur.map ? 0 : place(r);
		if (!err)
			err = look(r, &i);
		if (err)
			return err;
		step(r, i.csum, i.length, i.type);
	}
	unmap(&r->old);
	return 0;
}

/* Is the record at r->off a COLLAPSED that covers seq? */
static bool covers(struct jreader *r, const struct jrec_info *i, uint64_t seq)
{
	struct jrec rec;
	size_t used;
	if (i->type != JT_COLLAPSED || jrec_get(&rec, r->cur.map + r->off, i->length, &used))
		return false;
	return rec.from <= seq && seq <= rec.to;
}

/* seq is not on disk. A COLLAPSED record begins a segment, always; find the one that covers seq. */
static int find_collapsed(struct jreader *r, const uint64_t *segs, int n, uint64_t seq)
{
	for (int k = 0; k < n; k++) {
		struct jrec_info i;
		if (segs[k] <= seq || segs[k] > committed(r))
			continue;
		int err = stand_at(r, segs[k]);
		if (!err)
			err = look(r, &i);
		if (err)
			continue;
		if (covers(r, &i, seq))
			return E_COLLAPSED;
	}
	return E_GAP;
}

/* The last segment that begins at or before seq, -1 when none does. */
static int segment_of(const uint64_t *segs, int n, uint64_t seq)
{
	while (n && segs[n - 1] > seq)
		n--;
	return n - 1;
}

static int seek_listed(struct jreader *r, const uint64_t *segs, int n, uint64_t seq)
{
	uint64_t last = committed(r);
	if (seq > last)
		return E_GAP;
	int k = segment_of(segs, n, seq + 1);
	if (k < 0)
		return seq < last ? find_collapsed(r, segs, n, seq + 1) : E_GAP;
	int err = stand_at(r, segs[k]);
	if (!err)
		err = scan_to(r, seq);
	/* The segment before a hole ends in its SEAL: the records wanted lay in what was collapsed. */
	if (err == E_GAP)
		err = find_collapsed(r, segs, n, seq + 1);
	if (!err && !r->cur.map && seq < last && (k + 1 == n || segs[k + 1] != seq + 1))
		err = find_collapsed(r, segs, n, seq + 1);
	return err;
}

int jreader_seek(struct jreader *r, uint64_t seq, uint64_t *digest)
{
	/* A segment that is unlinked between listing and mapping is looked for again: the reclaimed have
	 * then left the list, and what replaced the collapsed is in it. */
	int err = E_GAP;
	r->epoch = r->head->epoch;
	memcpy(r->id, r->head->journal_id, 16);
	for (int tries = 0; err == E_GAP && tries < 3; tries++) {
		uint64_t *segs;
		int n = jseg_list(r->dirfd, &segs);
		if (n < 0)
			return n;
		err = seek_listed(r, segs, n, seq);
		free(segs);
	}
	if (digest)
		*digest = r->digest;
	return err;
}

int jreader_forward(struct jreader *r, uint64_t seq)
{
	bool ahead = r->cur.map && same_journal(r) && r->seq <= seq && seq <= committed(r);
	return ahead && scan_to(r, seq) == 0 ? 0 : jreader_seek(r, seq, NULL);
}

int jreader_rewind(struct jreader *r)
{
	for (int tries = 0; tries < 3; tries++) {
		uint64_t *segs;
		int n = jseg_list(r->dirfd, &segs);
		if (n <= 0)
			return n ? n : E_GAP;
		uint64_t first = segs[0];
		free(segs);
		r->epoch = r->head->epoch;
		memcpy(r->id, r->head->journal_id, 16);
		int err = stand_at(r, first);
		if (err != E_GAP)
			return err;
	}
	return E_GAP;
}

int jreader_seek_time(struct jreader *r, uint64_t time_ns)
{
	int err = jreader_rewind(r);
	while (!err && r->seq < committed(r)) {
		struct jrec_info i;
		err = r->cur.map ? 0 : place(r);
		if (err == E_GAP && jreader_seek(r, r->seq, NULL) == E_COLLAPSED)
			err = 0;
		if (!err)
			err = look(r, &i);
		if (err || i.time_ns >= time_ns)
			break;
		step(r, i.csum, i.length, i.type);
	}
	unmap(&r->old);
	return err;
}
