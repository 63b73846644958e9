/* SPDX-License-Identifier: BSD-2-Clause
 * The head page: see jhead.h. */
#include "config.h"
#include "proto/jhead.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/filemap.h"

/* "HEAD" with another digit was written by another version; anything else is no head page. */
static int check_magic(const struct jhead *h)
{
	if (h->magic == JHEAD_MAGIC)
		return 0;
	if ((h->magic & 0xffffffff) == (JHEAD_MAGIC & 0xffffffff) && h->magic >> 40 == 0)
		return E_VERSION;
	return E_CHECKSUM;
}

/* Open for reading and writing; a reader on a read-only file system does with reading. */
static int open_head(int dirfd, int create, int *prot)
{
	*prot = PROT_READ | PROT_WRITE;
	if (create)
		return fio_prealloc(dirfd, JHEAD_NAME, JHEAD_SIZE, 0600);
	int fd = openat(dirfd, JHEAD_NAME, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && (errno == EROFS || errno == EACCES)) {
		*prot = PROT_READ;
		fd = openat(dirfd, JHEAD_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	}
	return fd < 0 ? -errno : fd; /* cppcheck-suppress resourceLeak ; it is returned */
}

/* The page is that of the file again: what the writer knows goes there, what readers know stays. Where the file could not be read when it failed, the
 * writer knows no more than how far he came, and nothing before the next boot is to rely on that. */
static void mended(void *map, const void *was)
{
	struct jhead *h = map;
	const struct jhead *w = was;
	if (w->magic != JHEAD_MAGIC) {
		memset(h->boot_id, 0, sizeof(h->boot_id));
		atomic_store(&h->clean, 0);
		atomic_store(&h->degraded, 1);
		atomic_store(&h->committed_seq, w->committed_seq);
		return;
	}
	memcpy(h->boot_id, w->boot_id, sizeof(h->boot_id));
	h->mount_id = w->mount_id;
	h->epoch = w->epoch;
	atomic_store(&h->clean, 0);
	atomic_store(&h->degraded, 1);
	atomic_store(&h->writer_pid, w->writer_pid);
	atomic_store(&h->committed_ns, w->committed_ns);
	atomic_store(&h->committed_seq, w->committed_seq);
	atomic_store(&h->first_seq, w->first_seq);
	atomic_store(&h->synced_seq, w->synced_seq);
	atomic_store(&h->bytes, w->bytes);
	atomic_store(&h->appended_bytes, w->appended_bytes);
	atomic_store(&h->collapsed, w->collapsed);
	atomic_store(&h->recover_ns, w->recover_ns);
	atomic_store(&h->safe_seq, w->safe_seq);
	atomic_store(&h->safe_ns, w->safe_ns);
	for (int i = 0; i < JHEAD_SLOTS; i++)
		atomic_store(&h->slots[i].used, w->slots[i].used);
}

int jhead_map(struct jhead **out, int dirfd, int create)
{
	int prot;
	*out = NULL;
	int fd = open_head(dirfd, create, &prot);
	if (fd < 0)
		return fd;
	struct stat st;
	int err = fstat(fd, &st) ? -errno : 0;
	if (!err && st.st_size < (off_t)JHEAD_SIZE)
		err = E_CHECKSUM;
	if (err) {
		close(fd);
		return err;
	}
	struct filemap *m;
	if (prot & PROT_WRITE)
		err = filemap_write(&m, fd, JHEAD_SIZE, create ? mended : NULL);
	else
		err = filemap_read(&m, fd, JHEAD_SIZE);
	close(fd);
	if (err)
		return err;
	struct jhead *h = filemap_at(m);
	err = check_magic(h);
	if (err && !(create && err == E_CHECKSUM)) {
		jhead_unmap(h);
		return err;
	}
	*out = h;
	return 0;
}

void jhead_unmap(struct jhead *h)
{
	filemap_close(filemap_of(h));
}

/* The map, if it is one for writing. */
static struct filemap *writable(const struct jhead *h)
{
	struct filemap *m = filemap_of(h);
	return m && m->fd >= 0 ? m : NULL;
}

bool jhead_sleep(struct jhead *h, int slot)
{
	struct filemap *m = writable(h);
	if (!m)
		return false;
	atomic_store(&h->slots[slot].sleeping, 1);
	return !filemap_mend_one(m);
}

bool jhead_wake(struct jhead *h, int slot)
{
	struct filemap *m = writable(h);
	if (!m)
		return true;
	bool slept = atomic_exchange(&h->slots[slot].sleeping, 0) == 1;
	filemap_mend_one(m); /* rung without need, in the worst case */
	return slept;
}

void jhead_reclaim(struct jhead *h, uint64_t seq)
{
	struct filemap *m = writable(h);
	if (!m || seq <= atomic_load(&h->reclaim_seq))
		return;
	atomic_store(&h->reclaim_seq, seq);
	filemap_mend_one(m); /* the caller comes again */
}
