/* SPDX-License-Identifier: BSD-2-Clause
 * Maps whose file cannot take a store: here because it was cut. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/fileio.h"
#include "proto/filemap.h"
#include "proto/jhead.h"
#include "tests/unit/unit.h"

#define PAGES   16
#define SIZE    ((size_t)PAGES * 4096)
#define THREADS 8

static int fd;
static char mended_with;

static void make(void)
{
	fd = memfd_create("test", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)SIZE), 0);
	mended_with = 0;
}

static void mended(void *map, const void *was)
{
	mended_with = *(const char *)was;
	((volatile char *)map)[8192] = 'm';
}

START_TEST(store_into_a_cut_file_is_kept_until_it_is_mended)
{
	struct filemap *m;
	char c;

	make();
	ck_assert_int_eq(filemap_write(&m, fd, SIZE, mended), 0);
	volatile char *at = filemap_at(m);
	ck_assert_ptr_eq(filemap_of((char *)at), m);
	at[0] = at[5000] = 'a';
	ck_assert(!filemap_failed(m) && !filemap_any_failed());
	ck_assert_int_eq(ftruncate(fd, 4096), 0);
	at[0] = 'b'; /* still there */
	ck_assert(!filemap_failed(m));
	at[5000] = 'c';
	ck_assert(filemap_failed(m) && filemap_any_failed());
	ck_assert_int_eq(at[0], 'b');
	ck_assert_int_eq(at[5000], 'c');
	at[0] = 'd';
	ck_assert_int_eq(pread(fd, &c, 1, 0), 1);
	ck_assert_int_eq(c, 'b');
	ck_assert(!filemap_mend());
	ck_assert(filemap_failed(m));
	ck_assert_int_eq(mended_with, 'd');
	ck_assert_int_eq(ftruncate(fd, (off_t)SIZE), 0);
	ck_assert(filemap_mend());
	ck_assert(!filemap_failed(m) && !filemap_any_failed());
	ck_assert_int_eq(mended_with, 'b');
	ck_assert_int_eq(at[5000], 0);
	ck_assert_int_eq(at[8192], 'm');
	at[5000] = 'e';
	ck_assert_int_eq(pread(fd, &c, 1, 5000), 1);
	ck_assert_int_eq(c, 'e');
	filemap_close(m);
	ck_assert_ptr_null(filemap_of((char *)at));
}
END_TEST

START_TEST(load_from_a_cut_file_gives_zeros)
{
	struct filemap *m;

	make();
	ck_assert_int_eq(pwrite(fd, "x", 1, 4096), 1);
	ck_assert_int_eq(filemap_read(&m, fd, SIZE), 0);
	ck_assert_int_eq(((volatile char *)filemap_at(m))[4096], 'x');
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(((volatile char *)filemap_at(m))[4096], 0);
	ck_assert(filemap_failed(m));
	ck_assert(!filemap_any_failed()); /* of those for writing */
	filemap_close(m);
}
END_TEST

static pthread_barrier_t start;

static void *store(void *arg)
{
	volatile char *at = arg;

	pthread_barrier_wait(&start);
	for (size_t i = 0; i < 4096; i += 64)
		at[i] = (char)(i / 64 + 1);
	return NULL;
}

START_TEST(stores_of_many_threads_are_all_kept)
{
	make();
	for (int round = 0; round < 100; round++) {
		struct filemap *m;
		pthread_t t[THREADS];

		ck_assert_int_eq(ftruncate(fd, (off_t)SIZE), 0);
		ck_assert_int_eq(filemap_write(&m, fd, SIZE, NULL), 0);
		ck_assert_int_eq(ftruncate(fd, 0), 0);
		pthread_barrier_init(&start, NULL, THREADS);
		for (size_t i = 0; i < THREADS; i++)
			ck_assert_int_eq(pthread_create(&t[i], NULL, store, (char *)filemap_at(m) + i * 4096), 0);
		for (size_t i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		for (size_t i = 0; i < (size_t)THREADS * 4096; i += 64)
			ck_assert_int_eq(((char *)filemap_at(m))[i], (char)(i % 4096 / 64 + 1));
		filemap_close(m);
		pthread_barrier_destroy(&start);
	}
}
END_TEST

START_TEST(other_maps_still_end_the_process)
{
	struct filemap *m;
	int status;

	make();
	ck_assert_int_eq(filemap_write(&m, fd, SIZE, NULL), 0);
	pid_t pid = fork();
	if (pid == 0) {
		volatile char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		_exit(p == MAP_FAILED || ftruncate(fd, 0) || (*p = 1) != 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	filemap_close(m);
}
END_TEST

START_TEST(too_many_are_refused)
{
	static struct filemap *m[FILEMAP_MAX + 1];

	make();
	for (size_t i = 0; i < FILEMAP_MAX; i++)
		ck_assert_int_eq(filemap_read(&m[i], fd, SIZE), 0);
	ck_assert_int_eq(filemap_read(&m[FILEMAP_MAX], fd, SIZE), -ENOMEM);
	ck_assert_ptr_null(m[FILEMAP_MAX]);
	for (size_t i = 0; i < FILEMAP_MAX; i++)
		filemap_close(m[i]);
	ck_assert_int_eq(filemap_read(&m[0], fd, SIZE), 0);
	filemap_close(m[0]);
}
END_TEST

/* Its disk could neither take the store nor give the page: what the file has is not overwritten with nothing. */
START_TEST(a_head_page_that_could_not_be_read_is_not_lost)
{
	char top[256];
	static uint8_t page[JHEAD_SIZE];
	struct jhead *h;
	unit_scratch(top);
	int dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(jhead_map(&h, dir, 1), 0);
	h->magic = JHEAD_MAGIC;
	h->epoch = 7;
	atomic_store(&h->first_seq, 5);
	atomic_store(&h->clean, 1);
	atomic_store(&h->recover_ns, 9);
	memcpy(page, h, sizeof(page));
	int fd = openat(dir, JHEAD_NAME, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	atomic_store(&h->committed_seq, 100);
	ck_assert_uint_eq(h->magic, 0);
	ck_assert_int_eq(fio_pwrite(fd, page, sizeof(page), 0), 0);
	ck_assert(filemap_mend());
	ck_assert_uint_eq(h->magic, JHEAD_MAGIC);
	ck_assert_uint_eq(h->epoch, 7);
	ck_assert_uint_eq(atomic_load(&h->first_seq), 5);
	ck_assert_uint_eq(atomic_load(&h->recover_ns), 9);
	ck_assert_uint_eq(atomic_load(&h->committed_seq), 100);
	ck_assert_uint_eq(atomic_load(&h->clean), 0);
	ck_assert_uint_eq(atomic_load(&h->degraded), 1);
	jhead_unmap(h);
	close(fd);
	close(dir);
	unit_remove(top);
}
END_TEST

UNIT_MAIN("filemap", a_head_page_that_could_not_be_read_is_not_lost, store_into_a_cut_file_is_kept_until_it_is_mended, load_from_a_cut_file_gives_zeros, stores_of_many_threads_are_all_kept,
	  other_maps_still_end_the_process, too_many_are_refused)
