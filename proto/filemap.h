/* SPDX-License-Identifier: BSD-2-Clause
 * Files of our own that are mapped shared, and outlive the failure of their disk.
 *
 * A store to a page that the file system cannot take (its disk failed, it was shut down, it copies on write and is full), and a load
 * that the disk cannot serve, is SIGBUS. For these maps it is not the end of the process: the handler makes the map a private one,
 * with what the file's pages hold, or, where those cannot be read, puts a page of zeros there. The thread goes on, and whoever owns the map
 * asks filemap_failed before what he stored counts. (Systemd's journal does so, too: src/basic/sigbus.c.) */
#ifndef TANDEM_FILEMAP_H
#define TANDEM_FILEMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILEMAP_MAX 1024 /* maps at once in a process */

struct filemap {
	_Atomic uintptr_t at; /* 0: not in use */
	size_t size;          /* bytes */
	int fd;               /* of our own; -1: for reading only */
	_Atomic bool failed;
	_Atomic unsigned times; /* that it failed */
	void (*mended)(void *map, const void *was);
};

/* Map size bytes of fd, which may be closed afterwards: for reading, */
int filemap_read(struct filemap **out, int fd, size_t size);
/* or for writing. What was stored after it failed is lost with filemap_mend, which calls mended (may be NULL) with the map and a copy of its
 * first page as it was: to store there again what has to be there. Both return 0, -errno, or -ENOMEM when there are FILEMAP_MAX. */
int filemap_write(struct filemap **out, int fd, size_t size, void (*mended)(void *map, const void *was));
void filemap_close(struct filemap *m); /* NULL is allowed */

/* The map that begins there, or NULL. */
struct filemap *filemap_of(const void *map);

static inline void *filemap_at(const struct filemap *m)
{
	return (void *)atomic_load_explicit(&m->at, memory_order_relaxed); // NOLINT(performance-no-int-to-ptr)
}

/* A store or a load failed since it was mapped or mended. Asked by the thread that stored, it tells of its own stores. */
static inline bool filemap_failed(const struct filemap *m)
{
	return atomic_load_explicit(&m->failed, memory_order_relaxed);
}

/* How often it failed, and was mended in between. */
static inline unsigned filemap_times(const struct filemap *m)
{
	return atomic_load_explicit(&m->times, memory_order_relaxed);
}

/* Whether a map for writing of this process failed. */
bool filemap_any_failed(void);
/* Map those that failed anew. False: one fails again. */
bool filemap_mend(void);
/* Map this one anew if it failed. True: it had. */
bool filemap_mend_one(struct filemap *m);

#endif
