/* SPDX-License-Identifier: BSD-2-Clause
 * A power failure at every instant of changes in place and saved positions. What the real code writes is
 * recorded (its system calls are wrapped by the linker), and the directory is made again from every prefix of
 * that, with what was not synced there, missing, or there in part: file data in any selection, names in the
 * order of their changes. Recovery must find the file whole, no older than what was durable, and the position
 * that was saved. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "replicator/module/position.h"
#include "replicator/module/redo.h"
#include "tests/unit/unit.h"

#define OPS	512
#define FILES	64
#define BYTES	40000 /* of a file at most */
#define CHANGES 4

enum kind { WRITE, TRUNC, NAME, RENAME, UNLINK, SYNC, SYNCDIR, SYNCFS };

struct op {
	enum kind kind;
	int file;
	size_t off, len;
	uint8_t *data; /* owned */
	char from[40], to[40];
};

static struct op ops[OPS];
static int nops;
static bool recording;
static ino_t inos[FILES];
static int nfiles;

int __real_openat(int, const char *, int, ...);
ssize_t __real_pwrite(int, const void *, size_t, off_t);
int __real_fdatasync(int);
int __real_fsync(int);
int __real_renameat(int, const char *, int, const char *);
int __real_unlinkat(int, const char *, int);
int __real_ftruncate(int, off_t);
int __wrap_openat(int, const char *, int, ...);
ssize_t __wrap_pwrite(int, const void *, size_t, off_t);
int __wrap_fdatasync(int);
int __wrap_fsync(int);
int __wrap_renameat(int, const char *, int, const char *);
int __wrap_unlinkat(int, const char *, int);
int __wrap_ftruncate(int, off_t);
ssize_t __wrap_copy_file_range(int, off_t *, int, off_t *, size_t, unsigned);

static struct op *record(enum kind kind)
{
	ck_assert_int_lt(nops, OPS);
	ops[nops].kind = kind;
	return &ops[nops++];
}

static int file_of(int fd)
{
	struct stat st;
	ck_assert_int_eq(fstat(fd, &st), 0);
	for (int i = 0; i < nfiles; i++)
		if (inos[i] == st.st_ino)
			return i;
	ck_assert_int_lt(nfiles, FILES);
	inos[nfiles] = st.st_ino;
	return nfiles++;
}

/* A number that was used before is another file now. */
static int new_file(int fd)
{
	inos[file_of(fd)] = 0;
	return file_of(fd);
}

int __wrap_openat(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	struct stat st;
	bool made = recording && flags & O_CREAT && fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW);
	int fd = __real_openat(dirfd, path, flags, mode);
	if (made && fd >= 0) {
		struct op *op = record(NAME);
		op->file = new_file(fd);
		strcpy(op->to, path);
	}
	return fd;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t off)
{
	if (recording) {
		struct op *op = record(WRITE);
		op->file = file_of(fd);
		op->off = (size_t)off;
		op->len = n;
		op->data = malloc(n);
		memcpy(op->data, data, n);
	}
	return __real_pwrite(fd, data, n, off);
}

int __wrap_ftruncate(int fd, off_t size)
{
	if (recording) {
		struct op *op = record(TRUNC);
		op->file = file_of(fd);
		op->len = (size_t)size;
	}
	return __real_ftruncate(fd, size);
}

int __wrap_fdatasync(int fd)
{
	if (recording)
		record(SYNC)->file = file_of(fd);
	return 0;
}

int __wrap_fsync(int fd)
{
	(void)fd;
	if (recording)
		record(SYNCDIR);
	return 0;
}

int __wrap_renameat(int fromdir, const char *from, int todir, const char *to)
{
	int r = __real_renameat(fromdir, from, todir, to);
	if (recording && r == 0) {
		struct op *op = record(RENAME);
		strcpy(op->from, from);
		strcpy(op->to, to);
	}
	return r;
}

int __wrap_unlinkat(int dirfd, const char *path, int flags)
{
	int r = __real_unlinkat(dirfd, path, flags);
	if (recording && r == 0)
		strcpy(record(UNLINK)->from, path);
	return r;
}

/* So that copies are writes. */
ssize_t __wrap_copy_file_range(int in, off_t *from, int out, off_t *to, size_t n, unsigned flags)
{
	(void)in, (void)from, (void)out, (void)to, (void)n, (void)flags;
	errno = EXDEV;
	return -1;
}

/* --- what the disk has --- */

struct disk {
	struct {
		uint8_t data[BYTES];
		size_t size;
	} file[FILES];
	struct {
		char name[40];
		int file;
	} names[FILES];
	int nnames;
};

static struct disk disk;

static void apply_data(const struct op *op)
{
	size_t end = op->kind == TRUNC ? op->len : op->off + op->len;
	ck_assert_uint_le(end, BYTES);
	if (op->kind == WRITE)
		memcpy(disk.file[op->file].data + op->off, op->data, op->len);
	else if (end < disk.file[op->file].size)
		memset(disk.file[op->file].data + end, 0, BYTES - end);
	if (op->kind == TRUNC || end > disk.file[op->file].size)
		disk.file[op->file].size = end;
}

static int name_at(const char *name)
{
	for (int i = 0; i < disk.nnames; i++)
		if (strcmp(disk.names[i].name, name) == 0)
			return i;
	return -1;
}

static void drop(const char *name)
{
	int i = name_at(name);
	if (i >= 0)
		disk.names[i] = disk.names[--disk.nnames];
}

static void apply_name(const struct op *op)
{
	int i = op->kind == NAME ? -1 : name_at(op->from);
	int file = op->kind == NAME ? op->file : i >= 0 ? disk.names[i].file : -1;
	if (op->kind != NAME)
		drop(op->from);
	if (op->kind == UNLINK || file < 0)
		return;
	drop(op->to);
	strcpy(disk.names[disk.nnames].name, op->to);
	disk.names[disk.nnames++].file = file;
}

static bool is_data(const struct op *op)
{
	return op->kind == WRITE || op->kind == TRUNC;
}

/* Is data operation i durable before operation k? */
static bool synced(int i, int k)
{
	for (int s = i + 1; s < k; s++)
		if (ops[s].kind == SYNCFS || (ops[s].kind == SYNC && ops[s].file == ops[i].file))
			return true;
	return false;
}

/* Up to which operation names are durable before operation k. */
static int named(int k)
{
	for (int s = k - 1; s >= 0; s--)
		if (ops[s].kind == SYNCFS || ops[s].kind == SYNCDIR)
			return s;
	return 0;
}

enum lost { ALL_THERE, ALL_MISSING, SOME };

/* The disk after the power failed before operation k. File 0 is the one that is changed. */
static void cut(int k, enum lost data, enum lost names, const uint8_t *old, size_t size)
{
	int upto = named(k);
	memset(&disk, 0, sizeof(disk));
	memcpy(disk.file[0].data, old, size);
	disk.file[0].size = size;
	upto = names == ALL_THERE ? k : names == SOME ? upto + rand() % (k - upto + 1) : upto;
	for (int i = 0; i < k; i++) {
		if (is_data(&ops[i]) && (synced(i, k) || data == ALL_THERE || (data == SOME && rand() % 2)))
			apply_data(&ops[i]);
		else if (ops[i].kind >= NAME && ops[i].kind <= UNLINK && i < upto)
			apply_name(&ops[i]);
	}
}

/* --- the rig --- */

struct rig {
	char dir[256];
	int root, fd; /* the module; its private directory, of redo logs and the position */
	struct redo redo;
	uint8_t want[CHANGES + 1][BYTES];
	size_t size[CHANGES + 1];
	int committed[CHANGES + 1]; /* the operation after which the change is durable */
	int saved;		    /* the position of the second change is */
};

static void put(int dirfd, const char *name, const uint8_t *data, size_t n)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_eq(write(fd, data, n), (ssize_t)n);
	close(fd);
}

/* Change number n of the file: two ranges and another size. */
static void change(struct rig *r, int n)
{
	struct redo_piece pieces[] = {{.off = 100u * (unsigned)n, .len = 9000, .at = 0},
				      {.off = 20000, .len = 5000u * (unsigned)n, .at = 9000}};
	size_t len = 9000 + 5000 * (size_t)n;
	uint8_t *data = malloc(len);
	uint64_t number;
	struct stat st;
	memset(data, 'a' + n, len);
	memcpy(r->want[n], r->want[n - 1], BYTES);
	memset(r->want[n] + pieces[0].off, 'a' + n, pieces[0].len);
	memset(r->want[n] + pieces[1].off, 'a' + n, pieces[1].len);
	r->size[n] = 20000 + 5000 * (size_t)n - 700;
	memset(r->want[n] + r->size[n], 0, BYTES - r->size[n]);
	int fd = redo_create(&r->redo, &number), target = openat(r->root, "file", O_RDWR);
	ck_assert_int_ge(fd, 0);
	for (size_t at = 0; at < len; at += 4096)
		ck_assert_int_gt(pwrite(fd, data + at, len - at < 4096 ? len - at : 4096, (off_t)at), 0);
	ck_assert_int_eq(fstat(target, &st), 0);
	struct redo_log log = {.number = number,
			       .dev = st.st_dev,
			       .ino = st.st_ino,
			       .path = (char[]){"file"},
			       .size = r->size[n],
			       .attr = {0100600, geteuid(), getegid(), {n, n}},
			       .v = pieces,
			       .n = 2};
	ck_assert_int_eq(redo_commit(&r->redo, &log, fd, NULL), 0);
	r->committed[n] = nops;
	ck_assert_int_eq(redo_apply(&log, fd, target, NULL), 0);
	redo_done(&r->redo, number);
	close(fd);
	close(target);
	free(data);
}

/* As the syncer does it. */
static void save(struct rig *r, uint64_t seq)
{
	struct position p = {.pos = {.epoch = 1, .seq = seq, .digest = seq * 3}};
	uint64_t *list;
	uint32_t n = redo_take_done(&r->redo, &list);
	record(SYNCFS);
	redo_remove(&r->redo, list, n);
	ck_assert_int_eq(position_save(r->fd, &p), 0);
}

static void run(struct rig *r)
{
	unit_scratch(r->dir);
	r->root = open(r->dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(mkdirat(r->root, "private", 0700), 0);
	r->fd = openat(r->root, "private", O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(redo_init(&r->redo, r->fd, r->root, NULL, false), 0);
	r->size[0] = 30000;
	memset(r->want[0], 'o', r->size[0]);
	put(r->root, "file", r->want[0], r->size[0]);
	int fd = openat(r->root, "file", O_RDONLY);
	ck_assert_int_eq(file_of(fd), 0);
	close(fd);
	recording = true;
	for (int n = 1; n <= CHANGES; n++) {
		change(r, n);
		if (n == 2) {
			save(r, 2);
			r->saved = nops;
		}
	}
	save(r, CHANGES);
	recording = false;
	redo_release(&r->redo);
}

/* Write the disk into the directory: the file keeps its inode. */
static void make_again(struct rig *r)
{
	DIR *d = fdopendir(openat(r->fd, ".", O_RDONLY | O_DIRECTORY));
	for (struct dirent *e; (e = readdir(d));)
		unlinkat(r->fd, e->d_name, 0);
	closedir(d);
	put(r->root, "file", disk.file[0].data, disk.file[0].size);
	for (int i = 0; i < disk.nnames; i++)
		put(r->fd, disk.names[i].name, disk.file[disk.names[i].file].data,
		    disk.file[disk.names[i].file].size);
}

static int version_of(const struct rig *r)
{
	static uint8_t data[BYTES];
	int fd = openat(r->root, "file", O_RDONLY), v;
	ssize_t n = read(fd, data, BYTES);
	close(fd);
	for (v = CHANGES; v >= 0; v--)
		if ((size_t)n == r->size[v] && memcmp(data, r->want[v], r->size[v]) == 0)
			break;
	return v;
}

static void check(struct rig *r, int k)
{
	struct position p;
	make_again(r);
	int err = position_load(r->fd, &p); /* before: redo_init takes away what is no log */
	ck_assert_int_eq(redo_init(&r->redo, r->fd, r->root, NULL, true), 0);
	redo_release(&r->redo);
	int v = version_of(r);
	ck_assert_msg(v >= 0, "torn when cut before operation %d", k);
	for (int n = 1; n <= CHANGES; n++)
		ck_assert_msg(k < r->committed[n] || v >= n,
			      "cut before operation %d: version %d, though %d was durable", k, v, n);
	ck_assert_msg(err == 0 || k < r->saved, "cut before operation %d: no position: %d", k, err);
	ck_assert_msg(err || p.pos.digest == p.pos.seq * 3, "another position than was ever saved");
	ck_assert_msg(err || (int)p.pos.seq <= v, "the position is ahead of the file");
}

START_TEST(every_prefix_of_what_was_written_is_recovered)
{
	struct rig *r = calloc(1, sizeof(*r));
	run(r);
	for (int k = 0; k <= nops; k++)
		for (int data = ALL_THERE; data <= SOME; data++)
			for (int names = ALL_THERE; names <= SOME; names++)
				for (int seed = 0; seed < (data == SOME || names == SOME ? 4 : 1); seed++) {
					cut(k, (enum lost)data, (enum lost)names, r->want[0], r->size[0]);
					check(r, k);
				}
	close(r->fd);
	close(r->root);
	unit_remove(r->dir);
	for (int i = 0; i < nops; i++)
		free(ops[i].data);
	free(r);
}
END_TEST

UNIT_MAIN("redo after a power failure", every_prefix_of_what_was_written_is_recovered)
