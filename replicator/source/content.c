/* SPDX-License-Identifier: BSD-2-Clause
 * CONTENT records (content.h). Small changes are sent at their place in the stream; a large one is put off as bulk
 * work, and so is one whose file changes while it is read: until then its record is outstanding. */
#include "config.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "proto/err.h"
#include "proto/path.h"
#include "replicator/source/content.h"

#define HOLES_LOOKED_AT 256 /* of a file of which not all is in the record: is it the rest of it? */
#define CHANGED_TRIES 16 /* readings at once of a file that changes meanwhile, before it is put off */

/* Say whether the ranges cover what the file has, which may be less than its size: they are all there is to send. */
static bool covers(const struct extent_set *ranges, int fd, uint64_t size)
{
	uint64_t off = 0;
	int run;

	if (extent_covers(ranges, 0, size))
		return true;
	for (run = 0; off < size && run < HOLES_LOOKED_AT; run++) {
		off_t data = lseek(fd, (off_t)off, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO;
		if ((uint64_t)data >= size)
			return true;
		if (!extent_covers(ranges, (uint64_t)data, (uint64_t)data + 1))
			return false;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0 || !extent_covers(ranges, (uint64_t)data, (uint64_t)hole < size ? (uint64_t)hole : size))
			return false;
		off = (uint64_t)hole;
	}
	return off >= size;
}

void content_mode(int fd, const struct stat *st, struct transfer_spec *spec)
{
	uint64_t size = (uint64_t)st->st_size;
	bool small = size <= CONTENT_SMALL;

	if (small || covers(&spec->extents, fd, size)) {
		extent_clear(&spec->extents);
		extent_add(&spec->extents, 0, EXTENT_INF);
		spec->mode = st->st_nlink <= 1 ? WB_NEW : WB_PATCH;
	} else {
		spec->mode = WB_PATCH;
	}
	spec->xattrs = true; /* of a patch, too: what is changed in place loses its file capabilities there, and a record that set them may have been sent */
}

int content_appended(struct extent_set *ranges, uint64_t size)
{
	uint64_t end = ranges->n == 0 ? 0 : ranges->v[ranges->n - 1].end;

	return extent_add(ranges, end > size ? end : size, EXTENT_INF);
}

bool content_superseded(const struct stat *st, uint64_t as_of_ns)
{
	return as_of_ns != 0 && (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec > as_of_ns;
}

bool content_file_error(int r)
{
	return r == E_GONE || r == -EIO || r == -EACCES || r == -EPERM || r == -ESTALE || r == -EMFILE || r == -ENFILE || r == -ENODATA ||
	    r == -EUCLEAN || r == -ETIMEDOUT || r == -EBADMSG || r == -ENOENT || r == -E2BIG || r == -EOVERFLOW || r == E_LIMIT;
}

/* The copy hints of a record as operations. Returns their number. */
static size_t copies(const struct content *c, struct wop *ops)
{
	const struct jrec *rec = c->rec;
	size_t n = 0, i;

	for (i = 0; i < rec->ncopies; i++) {
		const struct jcopy *h = &rec->copies[i];

		if (h->len < 4096 || h->src_path[0] == '\0' || !extent_covers(c->extents, h->dst, h->dst + h->len))
			continue;
		ops[n++] = (struct wop){.type = WOP_COPY, .path = h->src_path, .src = h->src, .off = h->dst, .len = h->len};
	}
	return n;
}

static int put_off(struct content *c, int fd, const struct wop *ops, size_t nops)
{
	struct bulk_spec spec = {.fd = fd, .ino = c->rec->ino, .path = c->rec->path, .seq = c->first_seq, .copies = ops, .ncopies = nops,
	    .open = c->open, .linked = c->linked, .size = c->size, .as_of_ns = c->as_of_ns, .since_ns = c->since_ns};
	int r = c->create != NULL ? c->create(c->arg) : 0;

	extent_init(&spec.extents);
	if (r == 0)
		r = extent_union(&spec.extents, c->extents);
	if (r < 0) {
		close(fd);
		extent_release(&spec.extents);
		return r;
	}
	return bulk_defer(c->bulk, &spec);
}

/* Send at once. Returns 0, E_CHANGED, or an error. *fd is taken; after E_CHANGED it is the caller's again. */
static int send_now(struct content *c, int *fd, const struct stat *st)
{
	struct transfer_spec spec = {.fd = *fd, .path = c->rec->path, .seq = c->rec->seq, .open = c->open, .st = st, .at_once = true};
	struct transfer *t;
	int r;

	*fd = -1;
	extent_init(&spec.extents);
	r = extent_union(&spec.extents, c->extents);
	if (r == 0 && c->open)
		r = content_appended(&spec.extents, c->size);
	if (r == 0) {
		content_mode(spec.fd, st, &spec);
		if (spec.mode != WB_NEW && c->create != NULL)
			r = c->create(c->arg);
		if (r == 0 && spec.mode == WB_PATCH)
			r = bulk_patched(c->bulk, c->rec->seq, c->rec->path);
	}
	if (r < 0) {
		close(spec.fd);
		extent_release(&spec.extents);
		return r;
	}
	r = transfer_new(&t, c->stream, &spec);
	if (r < 0)
		return r;
	while ((r = transfer_step(t)) == TR_MORE)
		;
	if (r == E_CHANGED)
		*fd = transfer_take_fd(t);
	transfer_free(t);
	return r;
}

/* An error that concerns this file alone. */
static int unreadable(struct content *c, int err)
{
	int r = c->create != NULL ? c->create(c->arg) : 0;

	return r < 0 ? r : bulk_unreadable(c->bulk, c->rec->seq, c->rec->ino, c->rec->path, err);
}

/* Ask the kernel by which name fd is known to it. Returns whether that leads to it. */
static bool kernel_name(const struct content *c, int fd, char *name, size_t size)
{
	char link[64], root[PATH_MAX];
	struct stat st;
	ssize_t rlen, nlen;
	int again;

	snprintf(link, sizeof link, "/proc/self/fd/%d", c->locate.rootfd);
	rlen = readlink(link, root, sizeof root - 1);
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	nlen = readlink(link, name, size - 1);
	if (rlen <= 0 || nlen <= rlen + 1 || strncmp(root, name, (size_t)rlen) != 0 || name[rlen] != '/')
		return false;
	memmove(name, name + rlen + 1, (size_t)(nlen - rlen));
	name[nlen - rlen - 1] = '\0';
	again = path_valid(name) ? locate_path(c->locate.rootfd, name, c->rec->ino, &st) : -1;
	if (again >= 0)
		close(again);
	return again >= 0;
}

/* The inode is there, but nobody recorded its name: find one, and compare that path. Its bytes, too: what was sent of it before
 * may have brought the time that it has now. Takes fd. */
static int unnamed(struct content *c, int fd)
{
	char name[PATH_LONGEST];
	struct stat st;
	bool gone, known = kernel_name(c, fd, name, sizeof name);

	if (known && path_name_silly(path_base(name))) { /* NFS keeps it for who has it open */
		close(fd);
		return 0;
	}
	if (known || locate_name(c->locate.rootfd, c->rec->ino, name, sizeof name)) {
		close(fd);
		return bulk_left(c->bulk, c->first_seq, c->rec->ino, name, CMP_CHECKSUM);
	}
	gone = fstat(fd, &st) == 0 && st.st_nlink == 0;
	close(fd);
	return gone ? 0 : bulk_left(c->bulk, c->first_seq, c->rec->ino, "", CMP_RECURSIVE | CMP_CHECKSUM);
}

/* Some sends of a restless file, then it is put off. Returns 0, E_GONE when it lost its last name meanwhile, or an error. Takes fd. */
static int send_rested(struct content *c, int fd, struct stat *st)
{
	int r = send_now(c, &fd, st), tries;

	for (tries = 1; r == E_CHANGED && tries < CHANGED_TRIES; tries++) {
		r = fstat(fd, st) != 0 ? -errno : st->st_nlink == 0 ? E_GONE : 0;
		if (r < 0) {
			close(fd);
			return r;
		}
		r = send_now(c, &fd, st);
	}
	return r == E_CHANGED ? put_off(c, fd, NULL, 0) : r;
}

int content_send(struct content *c)
{
	struct wop ops[JREC_COPIES];
	struct stat st;
	size_t n;
	int fd, r;

	fd = locate_open(&c->locate, c->rec, &st);
	if (fd == E_GONE)
		return CR_GONE;
	if (fd == -EAGAIN || fd == E_CHANGED)
		return fd == E_CHANGED ? CR_YOUNGER : CR_UNSURE;
	if (fd == -ENOENT)
		return bulk_left(c->bulk, c->first_seq, c->rec->ino, c->rec->path, CMP_CHECKSUM);
	if (fd < 0)
		return unreadable(c, fd);
	if (st.st_nlink == 0) {
		close(fd);
		return CR_GONE;
	}
	if (c->rec->path[0] == '\0')
		return unnamed(c, fd);
	n = st.st_size > CONTENT_INLINE ? copies(c, ops) : 0;
	if (n == 0 && (st.st_size <= CONTENT_SMALL || extent_bytes(c->extents, (uint64_t)st.st_size) <= CONTENT_INLINE)) {
		r = !c->open && content_superseded(&st, c->as_of_ns) ? put_off(c, fd, NULL, 0) : send_rested(c, fd, &st);
		return r == E_GONE ? CR_GONE : content_file_error(r) ? unreadable(c, r) : r;
	}
	if (bulk_full(c->bulk)) {
		close(fd);
		bulk_urge(c->bulk, 0);
		return CR_WAIT;
	}
	return put_off(c, fd, ops, n);
}

