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
	struct jhead *h = mmap(NULL, JHEAD_SIZE, prot, MAP_SHARED, fd, 0);
	err = h == MAP_FAILED ? -errno : 0;
	close(fd);
	if (err)
		return err; /* cppcheck-suppress memleak ; there is no map */
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
	if (h)
		munmap(h, JHEAD_SIZE);
}
