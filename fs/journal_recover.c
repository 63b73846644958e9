/* SPDX-License-Identifier: BSD-2-Clause
 * Recovery: what a journal directory holds when the writer opens it. See "Recovery" in
 * docs/journal-format.md, which has the table of what is found and what is done.
 *
 *   1. look      read the head page and every segment, change nothing; another version ends it here
 *   2. decide    which segments are good, and whether records are missing that are known to have been written
 *   3. mend      cut a torn tail, move damaged segments to quarantine/, begin a new epoch after damage
 *   4. continue  open the last segment or a new one, write the head page
 *
 * Each step may be repeated after a crash in the middle: the head page, which says what must be there, is
 * written last, and after damage it stays true until the new segment's COLLAPSED record is in place. */
#include "config.h"
#include "fs/journal_priv.h"
#include "fs/journal_void.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/jreader.h"
#include "proto/log.h"

/* One segment as it was found. */
struct found {
	uint64_t name; /* first sequence number by its name */
	struct jseg head;
	int err;    /* of the header: 0, E_CHECKSUM, E_VERSION ... */
	bool empty; /* no byte after the header is set */
	bool sealed;
	bool torn;	/* bytes after the last good record are set */
	bool collapsed; /* its first record is a COLLAPSED of from..name-1 */
	uint64_t from;
	uint64_t seq, chain, time_ns; /* after the last good record */
	size_t end;		      /* offset of its end */
};

struct look {
	bool have_head;	    /* the head page was there and valid */
	struct jhead *head; /* as it was, or NULL */
	struct found *v;
	int n;			      /* segments by name */
	int good;		      /* the first so many follow one another */
	uint64_t seq, chain, time_ns; /* after the last good record; 0 without any */
	uint64_t must;		      /* records up to here are known to have been written */
	bool damaged;
	bool voided; /* see journal_void.h */
	uint8_t boot_id[16];
	uint64_t mount_id;
};

static bool all_zero(const uint8_t *p, size_t n)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): a map that failed is an error before */
	return !n || (!*p && !memcmp(p, p + 1, n - 1));
}

/* Go through the records of a mapped segment. */
static int scan_records(struct found *f, const uint8_t *map, size_t size)
{
	struct jrec_info i;
	size_t off = JSEG_HEADER;
	int err = 0;
	f->seq = f->head.first_seq - 1;
	f->chain = f->head.chain;
	while (!f->sealed && !(err = jrec_peek(&i, map + off, size - off)) && i.seq == f->seq + 1) {
		if (i.type == JT_COLLAPSED && off == JSEG_HEADER) {
			struct jrec r;
			size_t used;
			f->collapsed = !jrec_get(&r, map + off, size - off, &used) && r.to == f->seq;
			f->from = f->collapsed ? r.from : 0;
		}
		f->seq = i.seq;
		f->time_ns = i.time_ns;
		f->chain = jrec_chain(f->chain, i.csum);
		f->sealed = i.type == JT_SEAL;
		off += i.length;
	}
	f->end = off;
	f->torn = !f->sealed && !all_zero(map + off, size - off);
	f->empty = off == JSEG_HEADER && !f->torn;
	return err == E_VERSION ? err : 0;
}

/* Fill f from the file. Returns 0, E_VERSION, or -errno of what keeps us from looking. */
static int look_segment(int dirfd, struct found *f)
{
	char name[JSEG_NAME_LEN];
	struct stat st;
	jseg_name(name, f->name);
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	int err = fstat(fd, &st) ? -errno : 0;
	size_t size = (size_t)st.st_size;
	f->err = E_CHECKSUM;
	if (err || size < JSEG_HEADER || size > JSEG_SIZE_MAX) {
		close(fd);
		return err;
	}
	struct filemap *file;
	err = filemap_read(&file, fd, size); /* what the disk cannot read is damage */
	close(fd);
	if (err)
		return err;
	uint8_t *map = filemap_at(file);
	madvise(map, size, MADV_SEQUENTIAL);
	f->err = jseg_get(&f->head, map, size);
	if (!f->err && f->head.first_seq != f->name)
		f->err = E_CHECKSUM;
	if (!f->err)
		err = scan_records(f, map, size < f->head.size ? size : f->head.size);
	else
		f->empty = all_zero(map, size);
	filemap_close(file);
	return f->err == E_VERSION ? E_VERSION : err;
}

/* Does segment b follow a? A hole is explained by the COLLAPSED that begins b. */
static bool follows(const struct found *a, const struct found *b)
{
	if (!a->sealed || b->head.epoch < a->head.epoch)
		return false;
	if (b->name == a->seq + 1)
		return b->head.chain == a->chain;
	return b->name > a->seq + 1 && b->collapsed && b->from <= a->seq + 1;
}

static void count_good(struct look *l, const uint8_t id[16])
{
	for (l->good = 0; l->good < l->n; l->good++) {
		const struct found *f = &l->v[l->good];
		if (f->err || memcmp(f->head.journal_id, id, 16))
			break;
		if (l->good && !follows(&l->v[l->good - 1], f))
			break;
	}
	if (!l->good)
		return;
	const struct found *last = &l->v[l->good - 1];
	l->seq = last->seq;
	l->chain = last->chain;
	for (int i = 0; i < l->good; i++) /* a new segment may hold no record yet */
		l->time_ns = l->v[i].time_ns ? l->v[i].time_ns : l->time_ns;
}

static int look_segments(int dirfd, struct look *l)
{
	uint64_t *seqs;
	int n = jseg_list(dirfd, &seqs);
	if (n < 0)
		return n;
	l->v = calloc((size_t)n + 1, sizeof(*l->v));
	int err = l->v ? 0 : -ENOMEM;
	for (int i = 0; i < n && !err; i++) {
		l->v[i].name = seqs[i];
		err = look_segment(dirfd, &l->v[i]);
	}
	l->n = n;
	free(seqs);
	return err;
}

/* The page has no checksum, but numbers that counting never reaches show that it is damaged. */
static bool plausible(const struct jhead *h)
{
	return h->epoch && h->epoch < JSEG_NUMBER_MAX && atomic_load(&h->committed_seq) < JSEG_NUMBER_MAX &&
	       atomic_load(&h->synced_seq) < JSEG_NUMBER_MAX && atomic_load(&h->first_seq) < JSEG_NUMBER_MAX;
}

static int look_head(int dirfd, struct look *l)
{
	int err = jhead_map(&l->head, dirfd, 0);
	if (!err && !plausible(l->head))
		err = E_CHECKSUM;
	l->have_head = !err;
	if (err == E_CHECKSUM)
		log_warn("journal: the head page is damaged and will be made again from the segments");
	return err == -ENOENT || err == E_CHECKSUM ? 0 : err;
}

/* The journal's id: of the head page, else of the newest segment that has one; random for a new journal. */
static void find_identity(struct journal *j, const struct look *l)
{
	bool known = l->have_head;
	if (known) {
		memcpy(j->id, l->head->journal_id, 16);
		j->epoch = l->head->epoch;
	}
	for (int i = l->n - 1; i >= 0 && !known; i--) {
		if (l->v[i].err)
			continue;
		memcpy(j->id, l->v[i].head.journal_id, 16);
		known = true;
	}
	if (!known)
		fio_random(j->id, 16);
	for (int i = 0; i < l->n; i++) {
		if (!l->v[i].err && !memcmp(l->v[i].head.journal_id, j->id, 16) &&
		    l->v[i].head.epoch > j->epoch)
			j->epoch = l->v[i].head.epoch;
	}
	j->epoch += !j->epoch;
}

/* Mounted again without a boot, the disk may have failed in between, and lack what was in the page cache only. */
static bool same_mount(const struct look *l)
{
	return !l->mount_id || !l->head->mount_id || l->mount_id == l->head->mount_id;
}

/* The page cache has been there all the time. */
static bool same_boot(const struct look *l)
{
	return l->have_head && !l->voided && same_mount(l) && !memcmp(l->head->boot_id, l->boot_id, 16);
}

static bool was_clean(const struct look *l)
{
	return l->have_head && !l->voided && atomic_load(&l->head->clean) == 1;
}

/* Does any segment after the good ones hold something? */
static bool more_records(const struct look *l)
{
	for (int i = l->good; i < l->n; i++) {
		if (!l->v[i].empty)
			return true;
	}
	return false;
}

static void judge(struct look *l)
{
	if (!l->have_head) {
		/* Nothing says how far the journal went. A tail may be torn, but not the middle. */
		l->must = l->seq;
		l->damaged = l->good && more_records(l);
		return;
	}
	l->must = was_clean(l) || same_boot(l) ? atomic_load(&l->head->committed_seq)
					       : atomic_load(&l->head->synced_seq);
	l->damaged = l->seq < l->must;
}

static enum journal_start what_start(const struct look *l)
{
	if (l->damaged || (l->have_head && !was_clean(l) && atomic_load(&l->head->degraded)))
		return JSTART_DAMAGED;
	if (!l->seq)
		return JSTART_NEW;
	if (l->have_head && atomic_load(&l->head->recover_ns))
		return JSTART_POWER;
	if (was_clean(l))
		return JSTART_CLEAN;
	return same_boot(l) ? JSTART_KILLED : JSTART_POWER;
}

/* Move a segment to quarantine/, where it is never looked at again, for people. */
static int quarantine(struct journal *j, uint64_t first_seq)
{
	char name[JSEG_NAME_LEN], to[128];
	jseg_name(name, first_seq);
	if (mkdirat(j->dirfd, JOURNAL_QUARANTINE, 0700) && errno != EEXIST)
		return -errno;
	snprintf(to, sizeof(to), JOURNAL_QUARANTINE "/%s.%lld", name, (long long)time(NULL));
	if (renameat(j->dirfd, name, j->dirfd, to))
		return -errno;
	log_error("journal: segment %s is damaged or does not belong here; kept as %s", name, to);
	return 0;
}

/* Take segments keep.. away: what is empty is unlinked. */
static int clear_from(struct journal *j, const struct look *l, int keep)
{
	int err = 0;
	for (int i = l->n - 1; i >= keep && !err; i--) {
		char name[JSEG_NAME_LEN];
		jseg_name(name, l->v[i].name);
		if (!l->v[i].empty)
			err = quarantine(j, l->v[i].name);
		else if (unlinkat(j->dirfd, name, 0))
			err = -errno;
	}
	return err;
}

/* What the writer left unsynced when it was killed, nobody else will sync. */
static int sync_old(struct journal *j, const struct found *f, const struct look *l)
{
	char name[JSEG_NAME_LEN];
	if (j->opt.sync == JSYNC_NEVER || (l->have_head && f->seq <= atomic_load(&l->head->synced_seq)))
		return 0;
	jseg_name(name, f->name);
	int fd = openat(j->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	int err = journal_sync_fd(j, fd);
	close(fd);
	return err;
}

/* List the sealed segments. */
static int adopt(struct journal *j, const struct look *l, int n)
{
	int err = 0;
	for (int i = 0; i < n && !err; i++) {
		struct segment *s = segment_new(l->v[i].name, l->v[i].head.size);
		if (!s)
			return -ENOMEM;
		s->last_seq = l->v[i].seq;
		s->synced = true;
		TAILQ_INSERT_TAIL(&j->segs, s, link);
		err = sync_old(j, &l->v[i], l);
	}
	return err;
}

/* Zero what follows the last good record; only pages that hold something are dirtied. */
static void cut(uint8_t *map, size_t from, size_t size)
{
	while (from < size) {
		size_t n = 4096 - from % 4096;
		n = n < size - from ? n : size - from;
		if (!all_zero(map + from, n))
			memset(map + from, 0, n);
		from += n;
	}
}

/* Go on in a segment that has no SEAL. */
static int reopen(struct journal *j, const struct found *f)
{
	char name[JSEG_NAME_LEN];
	struct segment *s = segment_new(f->name, f->head.size);
	if (!s)
		return -ENOMEM;
	jseg_name(name, f->name);
	TAILQ_INSERT_TAIL(&j->segs, s, link);
	/* Allocates what a power failure or a sparse copy may have left out. */
	s->fd = fio_prealloc(j->dirfd, name, s->size, 0600);
	if (s->fd < 0)
		return s->fd;
	int err = segment_map(s);
	if (err)
		return err;
	cut(s->map, f->end, s->size);
	if (f->torn)
		log_warn("journal: a record that was being written when the writer died was cut off after "
			 "record %llu",
			 (unsigned long long)f->seq);
	j->cur = s;
	j->tail = f->end;
	return filemap_failed(s->file) ? -EIO : 0;
}

static int begin_segment(struct journal *j)
{
	int err = segment_prepare(j, &j->next);
	return err ? err : segment_switch_locked(j);
}

/* The journal begins degraded, with everything in the set that is kept in memory. */
static void begin_degraded(struct journal *j, int err)
{
	journal_degrade_locked(j, err);
	pathset_add(&j->dirty, "", JF_RECURSIVE | JF_RECOVERY);
}

/* The same, if that was for want of space: without a segment that is open. */
static int begin_without_segment(struct journal *j, int err)
{
	if (err != -ENOSPC && err != -EDQUOT)
		return err;
	begin_degraded(j, err);
	return 0;
}

/* Records are missing: a new epoch, whose first records say so. */
static int begin_epoch(struct journal *j, const struct look *l, int keep)
{
	uint64_t first = l->have_head ? atomic_load(&l->head->first_seq) : 1, from = first ? first : 1;
	j->seq = l->must > l->seq ? l->must : l->seq;
	j->chain = 0;
	if (keep && same_boot(l)) { /* else they may tell of what a power failure undid */
		from = l->v[keep - 1].seq + 1;
		j->chain = l->v[keep - 1].chain;
	}
	for (int i = 0; i < l->n;
	     i++) { /* numbers that were in use; a name out of all proportion is none of ours */
		if (l->v[i].name > j->seq && l->v[i].name - j->seq < 1ull << 32)
			j->seq = l->v[i].name;
	}
	j->seq += !j->seq;
	from = from < j->seq ? from : j->seq;
	j->epoch++;
	j->head->epoch = j->epoch;
	int err = begin_segment(j);
	if (err) {
		j->given_up = from;
		return begin_without_segment(j, err);
	}
	struct pathset all;
	pathset_init(&all);
	pathset_add(&all, "", JF_RECURSIVE | JF_RECOVERY);
	j->collapsed_to = same_boot(l) ? 0 : j->seq;
	journal_put_set_locked(j, &all, from);
	pathset_release(&all);
	return 0;
}

/* The set that was kept in memory is gone. On a disk that is still full its place is there again. */
static void recheck_all(struct journal *j)
{
	struct pathset all;
	int err = j->tail + (size_t)2 * JREC_HEADER + 24 > j->cur->size ? begin_segment(j) : 0;
	pathset_init(&all);
	pathset_add(&all, "", JF_RECURSIVE | JF_RECOVERY);
	if (!err)
		err = journal_put_set_locked(j, &all, 0);
	pathset_release(&all);
	if (err)
		begin_degraded(j, err);
}

/* A rename that the source lost leaves the whole directory where it was. */
static void add_record(struct pathset *set, const struct jrec *r)
{
	pathset_add_record(set, r);
	if (r->type == JT_RENAME && (r->flags & JF_DIR))
		pathset_add(set, r->path, JF_RECURSIVE);
}

static void read_all(struct journal *j, struct pathset *set)
{
	struct jreader *rd = NULL;
	struct jrec r;
	int err = jreader_open(&rd, j->dirfd);
	if (!err)
		err = jreader_rewind(rd);
	while (!err && jreader_seq(rd) < j->seq) {
		int got = jreader_next(rd, &r, NULL, NULL);
		err = got == 1 ? 0 : got < 0 ? got : E_GAP;
		if (err)
			break;
		add_record(set, &r);
		jrec_release(&r);
	}
	if (err)
		pathset_add(set, "", JF_RECURSIVE);
	jreader_close(rd);
}

/* After a power failure of the host. What the records tell of may not have happened, as the mirrored directory is now, and
 * the inodes they name may be other files there: nobody may replay them. They become a comparison of all paths they touched, in a segment of its
 * own, before which all others go. Records that are not here any more, but not known to be safe there, make that a comparison of everything. */
static void replace_all(struct journal *j, const struct look *l, bool everything)
{
	const struct found *first = &l->v[0];
	uint64_t safe = l->have_head ? atomic_load(&l->head->safe_seq) : 0;
	struct pathset set, none;
	j->head->epoch = j->epoch; /* for the reader; no harm if we die now */
	atomic_store(&j->head->committed_seq, j->seq);
	pathset_init(&set);
	pathset_init(&none);
	if (everything || first->name > safe + 1)
		pathset_add(&set, "", JF_RECURSIVE);
	read_all(j, &set);
	int err = begin_segment(j);
	if (!err) {
		j->collapsed_to = j->seq;
		pathset_fit(&set, PATHSET_MAX, segment_room(j->cur->size) - JREC_HEADER - 24);
		/* the COLLAPSED stands alone: also who has seen all of the records needs the comparison */
		journal_put_set_locked(j, &none, first->collapsed ? first->from : first->name);
		journal_put_set_locked(j, &set, 0);
	} else {
		log_warn("journal: no segment can be made: %s; everything is compared", err_text(err));
		recheck_all(j);
	}
	pathset_release(&set);
}

static int mend(struct journal *j, const struct look *l)
{
	/* After damage the segment in which it lies goes away whole; else the last one is cut and continued.
	 */
	bool open = l->good && !l->v[l->good - 1].sealed;
	int keep = l->damaged && open ? l->good - 1 : l->good;
	int sealed = open && !l->damaged ? keep - 1 : keep;
	int err = clear_from(j, l, keep);
	if (!err)
		err = adopt(j, l, sealed);
	if (err)
		return err;
	j->seq = l->seq;
	j->chain = l->chain;
	if (l->damaged)
		return begin_epoch(j, l, keep);
	err = open ? reopen(j, &l->v[keep - 1]) : begin_segment(j);
	return err && !open ? begin_without_segment(j, err) : err;
}

/* Make the head page tell the present. Its old contents are used up by now. */
static int write_head(struct journal *j, const struct look *l, enum journal_start start, uint64_t since_ns)
{
	struct jhead *h = j->head;
	uint64_t synced = atomic_load(&h->synced_seq);
	h->epoch = j->epoch;
	h->segment_size = j->opt.segment_size;
	atomic_store(&h->first_seq, TAILQ_EMPTY(&j->segs) ? j->seq + 1 : TAILQ_FIRST(&j->segs)->first_seq);
	atomic_store(&h->committed_seq, j->seq);
	/* After another boot, what was found is what the disk has. */
	atomic_store(&h->synced_seq, !l->have_head || synced > j->seq ? 0 : synced);
	if (atomic_load(&h->reclaim_seq) > j->seq)
		atomic_store(&h->reclaim_seq, 0);
	atomic_store(&h->appended_bytes, 0);
	for (int i = 0; i < JHEAD_SLOTS; i++) {
		atomic_store(&h->slots[i].used, 0);
		atomic_store(&h->slots[i].sleeping, 0);
	}
	segment_count_locked(j);
	j->collapsed_end = j->seq;
	if (start == JSTART_POWER || start == JSTART_DAMAGED)
		atomic_store(&h->recover_ns, since_ns);
	atomic_store(&h->degraded, j->degraded != 0);
	atomic_store(&h->clean, 0);
	atomic_store(&h->writer_pid, (uint32_t)getpid());
	memcpy(h->boot_id, l->boot_id, 16);
	h->mount_id = l->mount_id;
	/* Durable before the first append: else a power failure would find the old page, which says clean. */
	int err = journal_write_head(j);
	return err ? err : journal_sync_fd(j, j->dirfd);
}

/* Map the head page for writing; a missing one is made. */
static int map_head(struct journal *j, const struct look *l)
{
	int err = jhead_map(&j->head, j->dirfd, 1);
	j->headfile = filemap_of(j->head);
	if (err || l->have_head)
		return err;
	memset(j->head, 0, sizeof(*j->head));
	memcpy(j->head->journal_id, j->id, 16);
	j->head->magic = JHEAD_MAGIC;
	return 0;
}

static int look_all(struct journal *j, struct look *l)
{
	int err = fio_boot_id(l->boot_id);
	l->mount_id = fio_mount_id(j->dirfd);
	if (!err)
		err = look_head(j->dirfd, l);
	if (!err)
		err = look_segments(j->dirfd, l);
	if (err)
		return err;
	find_identity(j, l);
	l->voided = journal_void_is(j->id);
	if (l->voided)
		log_warn("journal: its disk had failed, and what was written since may be missing: it is taken as after a power failure");
	else if (l->have_head && !same_mount(l) && !was_clean(l))
		log_warn("journal: it was not closed, and its file system was mounted again: it is taken as after a power failure");
	count_good(l, j->id);
	judge(l);
	return 0;
}

/* The last good record is older than the source's last sync where the journal itself is not synced. */
static uint64_t since_when(const struct look *l)
{
	uint64_t safe = l->have_head ? atomic_load(&l->head->safe_ns) : 0;
	uint64_t since = safe < l->time_ns ? safe : l->time_ns;
	return since ? since : 1;
}

/* The page cannot be written: on a full disk that copies on write, after a kill. What is on it does not say that the journal was closed, and as long as
 * this boot lasts a mark elsewhere stands for it: the journal begins degraded. */
static int without_head(struct journal *j, const struct look *l)
{
	int err = was_clean(l) || !l->have_head ? -EIO : journal_void_set(j->id);
	if (err)
		return err;
	j->voided = true;
	journal_degrade_locked(j, -EIO);
	return 0;
}

static int carry_on(struct journal *j, struct look *l, enum journal_start *start, uint64_t *since_ns)
{
	*start = what_start(l);
	*since_ns = since_when(l);
	uint64_t pending = l->have_head ? atomic_load(&l->head->recover_ns) : 0;
	if (*start == JSTART_POWER && pending && pending < *since_ns)
		*since_ns = pending;
	bool host = *start == JSTART_POWER || (*start == JSTART_DAMAGED && !same_boot(l));
	int err = map_head(j, l);
	if (!err)
		err = mend(j, l);
	if (!err && j->cur && !l->damaged) { /* else everything is compared as it is */
		if (host)
			replace_all(j, l, *start == JSTART_DAMAGED);
		else if (*start == JSTART_DAMAGED)
			recheck_all(j);
	}
	if (!err)
		err = write_head(j, l, *start, *since_ns);
	if (err && j->headfile && filemap_failed(j->headfile))
		return without_head(j, l);
	if (!err)
		err = sync_upto(j, j->seq);
	if (!err && host)
		segment_reclaim(j, j->collapsed_to);
	if (!err && l->voided)
		err = journal_void_clear(j->id);
	return err;
}

int journal_recover(struct journal *j, enum journal_start *start, uint64_t *since_ns)
{
	struct look l = {0};
	int err = look_all(j, &l);
	if (err)
		log_error("journal: cannot be opened: %s; nothing was changed", err_text(err));
	else
		err = carry_on(j, &l, start, since_ns);
	jhead_unmap(l.head);
	free(l.v);
	return err;
}
