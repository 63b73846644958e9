/* SPDX-License-Identifier: BSD-2-Clause
 * Durable file I/O of our own state: short transfers, fsync, rename and preallocation happen here
 * only. A failed fsync is reported once and never retried as if nothing had happened. */
#ifndef TANDEM_FILEIO_H
#define TANDEM_FILEIO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

/* Read or write exactly n bytes. Return 0 or -errno; a read that meets the end returns -ENODATA. */
int fio_pread(int fd, void *data, size_t n, off_t off);
int fio_pwrite(int fd, const void *data, size_t n, off_t off);
/* Replace dirfd/name by these bytes: temporary file, fdatasync, rename, fsync of dirfd. Durable on
 * return. Returns 0 or -errno with the old file untouched. */
int fio_replace(int dirfd, const char *name, const void *data, size_t n, mode_t mode);
/* Read a whole file of at most max bytes. *data is NUL-terminated and owned by the caller; *n gets its
 * size. Returns 0, -errno or E_LIMIT. */
int fio_slurp(int dirfd, const char *name, size_t max, char **data, size_t *n);
/* Where the text of a file begins: behind the mark of UTF-8 that some editors put first (text is NUL-terminated). */
static inline size_t fio_text_start(const char *text)
{
	return strncmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}
/* Open or make dirfd/name with size bytes of allocated, zeroed space. Returns a descriptor or -errno. */
int fio_prealloc(int dirfd, const char *name, size_t size, mode_t mode);
/* fdatasync or fsync (for a directory). Returns 0 or -errno. */
int fio_sync(int fd);
/* mkdir -p for one of our own directories, mode 0700, then open it O_DIRECTORY. Returns a descriptor or -errno. */
int fio_open_dir(const char *path);
/* A file that holds credentials: must be a regular file, owned by us or root, without any access for
 * others (mode & 077 == 0). Returns 0, -errno, -EPERM (mode or owner) with why filled with text. */
int fio_check_secret(const char *path, char *why, size_t size);
/* This boot's identity (/proc/sys/kernel/random/boot_id), 16 bytes. Returns 0 or -errno. */
int fio_boot_id(uint8_t id[16]);
/* The identity of the mount that fd lies on: another one whenever its file system is mounted again. 0: not known (before Linux 6.8). */
uint64_t fio_mount_id(int fd);
/* Take the places of standard input, output and error that are closed, so that nothing opened later is taken for one of them: a daemon
 * puts /dev/null there. What is written to them fails as before. For the start of main. */
void fio_std_fill(void);
/* Fill with random bytes. */
void fio_random(void *data, size_t n);

#endif
