/* SPDX-License-Identifier: BSD-2-Clause
 * Maps that outlive the failure of their disk: see filemap.h.
 *
 * The handler runs in the thread whose store failed, and does system calls only. Its lock is a spin lock, which is held for one mmap(2) and over no
 * access to a map: who holds it cannot get SIGBUS. The entries are never freed, so that a handler may look at all of them. */
#include "config.h"
#include "proto/filemap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct filemap maps[FILEMAP_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of taking and giving back an entry, and of mending */
static atomic_flag spin = ATOMIC_FLAG_INIT;              /* of what is mapped where */
static uintptr_t page;                                   /* bytes of one */
static unsigned changes;                                 /* under spin: how often a map became a private one */

static void spin_lock(void)
{
	while (atomic_flag_test_and_set_explicit(&spin, memory_order_acquire)) {
	}
}

static void spin_unlock(void)
{
	atomic_flag_clear_explicit(&spin, memory_order_release);
}

static struct filemap *with(uintptr_t address)
{
	for (size_t i = 0; i < FILEMAP_MAX; i++) {
		uintptr_t at = atomic_load(&maps[i].at);
		if (at && address >= at && address - at < maps[i].size)
			return &maps[i];
	}
	return NULL;
}

/* Have something at the address that takes a store, and keep what other threads have stored around it since one of them was here. */
static bool map_elsewhere(struct filemap *m, uintptr_t address)
{
	static _Thread_local uintptr_t last;
	static _Thread_local unsigned last_changes;
	void *to, *got;
	if (m->fd >= 0 && !filemap_failed(m)) {
		changes++;
		to = filemap_at(m);
		atomic_store(&m->failed, true);
		atomic_fetch_add(&m->times, 1);
		got = mmap(to, m->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, m->fd, 0);
		return got == to; /* cppcheck-suppress memleak ; it lies where m has it */
	}
	bool again = last == address && last_changes == changes;
	last = address;
	last_changes = changes;
	if (m->fd >= 0 && !again)
		return true; /* another thread was here between the access and us */
	to = (void *)(address & ~(page - 1)); // NOLINT(performance-no-int-to-ptr)
	atomic_store(&m->failed, true);
	got = mmap(to, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return got == to; /* cppcheck-suppress memleak ; it lies where m has it */
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	int saved = errno;
	uintptr_t address = (uintptr_t)info->si_addr;
	struct filemap *m = info->si_code > 0 ? with(address) : NULL;
	bool ok = false;
	if (m) {
		spin_lock();
		ok = map_elsewhere(m, address);
		spin_unlock();
	}
	if (!ok) /* as if nobody had asked: the access is made again */
		signal(sig, SIG_DFL);
	errno = saved;
}

static int install_locked(void)
{
	struct sigaction sa = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	if (page)
		return 0;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGBUS, &sa, NULL))
		return -errno;
	page = (uintptr_t)sysconf(_SC_PAGESIZE);
	return 0;
}

static struct filemap *unused_locked(void)
{
	for (size_t i = 0; i < FILEMAP_MAX; i++) {
		if (!atomic_load(&maps[i].at))
			return &maps[i];
	}
	return NULL;
}

static int open_map(struct filemap **out, int fd, size_t size, int prot, void (*mended)(void *, const void *))
{
	*out = NULL;
	int own = prot & PROT_WRITE ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
	if (prot & PROT_WRITE && own < 0)
		return -errno;
	pthread_mutex_lock(&lock);
	int err = install_locked();
	struct filemap *m = err ? NULL : unused_locked();
	if (!err && !m)
		err = -ENOMEM;
	if (!err) {
		void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);
		err = p == MAP_FAILED ? -errno : 0;
		if (!err) {
			m->size = size;
			m->fd = own;
			m->mended = mended;
			atomic_store(&m->failed, false);
			atomic_store(&m->times, 0);
			atomic_store(&m->at, (uintptr_t)p);
		}
	}
	pthread_mutex_unlock(&lock);
	if (!err)
		*out = m;
	else if (own >= 0)
		close(own);
	return err;
}

int filemap_read(struct filemap **out, int fd, size_t size)
{
	return open_map(out, fd, size, PROT_READ, NULL);
}

int filemap_write(struct filemap **out, int fd, size_t size, void (*mended)(void *map, const void *was))
{
	return open_map(out, fd, size, PROT_READ | PROT_WRITE, mended);
}

void filemap_close(struct filemap *m)
{
	if (!m)
		return;
	pthread_mutex_lock(&lock);
	munmap(filemap_at(m), m->size);
	if (m->fd >= 0)
		close(m->fd);
	atomic_store(&m->at, 0);
	pthread_mutex_unlock(&lock);
}

struct filemap *filemap_of(const void *map)
{
	struct filemap *m = map ? with((uintptr_t)map) : NULL;
	return m && filemap_at(m) == map ? m : NULL;
}

static bool failed_writing(const struct filemap *m)
{
	return atomic_load(&m->at) && m->fd >= 0 && filemap_failed(m);
}

bool filemap_any_failed(void)
{
	bool any = false;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < FILEMAP_MAX; i++)
		any |= failed_writing(&maps[i]);
	pthread_mutex_unlock(&lock);
	return any;
}

/* Back to the file. */
static bool map_file_again_locked(struct filemap *m)
{
	_Alignas(64) uint8_t was[4096];
	void *at = filemap_at(m);
	memcpy(was, at, sizeof(was) < m->size ? sizeof(was) : m->size);
	spin_lock();
	void *got = mmap(at, m->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, m->fd, 0);
	bool ok = got == at;
	if (ok)
		atomic_store(&m->failed, false);
	spin_unlock();
	if (ok && m->mended)
		m->mended(at, was);
	return ok && !filemap_failed(m);
}

bool filemap_mend(void)
{
	bool ok = true;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < FILEMAP_MAX; i++) {
		if (failed_writing(&maps[i]))
			ok = map_file_again_locked(&maps[i]) && ok;
	}
	pthread_mutex_unlock(&lock);
	return ok;
}

bool filemap_mend_one(struct filemap *m)
{
	if (!filemap_failed(m))
		return false;
	pthread_mutex_lock(&lock);
	map_file_again_locked(m);
	pthread_mutex_unlock(&lock);
	return true;
}
