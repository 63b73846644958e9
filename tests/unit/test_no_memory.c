/* SPDX-License-Identifier: BSD-2-Clause
 * Whatever is decoded while memory runs out: an error that says so or a result that is whole, and nothing leaks. Every allocation fails, one
 * after the other; the makefile has the linker send those of our libraries here. */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/xattr.h>

#include "proto/compress.h"
#include "proto/ctlsock.h"
#include "proto/err.h"
#include "proto/frame.h"
#include "proto/jseg.h"
#include "proto/mirror.h"
#include "proto/path.h"
#include "proto/wire.h"
#include "proto/xattrs.h"
#include "replicator/module/modules_conf.h"
#include "replicator/module/redo.h"
#include "tests/unit/records.h"

static long left = -1; /* allocations that still succeed; negative: all */
static bool failed;    /* one did not */

static bool refuse(void)
{
	if (left < 0 || left-- > 0)
		return false;
	left = 0;
	failed = true;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t n);
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
	return refuse() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t k, size_t n);
void *__real_calloc(size_t k, size_t n);
void *__wrap_calloc(size_t k, size_t n)
{
	return refuse() ? NULL : __real_calloc(k, n);
}

void *__wrap_realloc(void *p, size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n)
{
	return refuse() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t k, size_t n);
void *__real_reallocarray(void *p, size_t k, size_t n);
void *__wrap_reallocarray(void *p, size_t k, size_t n)
{
	return refuse() ? NULL : __real_reallocarray(p, k, n);
}

char *__wrap_strdup(const char *s);
char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s)
{
	return refuse() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n);
char *__real_strndup(const char *s, size_t n);
char *__wrap_strndup(const char *s, size_t n)
{
	return refuse() ? NULL : __real_strndup(s, n);
}

/* An assertion while memory is out: the framework's would allocate. */
static void must(bool holds)
{
	if (!holds)
		abort();
}

/* Call fn with every allocation failing in its turn, until none is left to fail. fn returns what it was told: 0 when all went well. */
static void starve(int (*fn)(void *), void *arg)
{
	ck_assert_int_eq(fn(arg), 0);
	for (long n = 0;; n++) {
		failed = false;
		left = n;
		int err = fn(arg);
		left = -1;
		if (!failed)
			break;
		ck_assert_msg(err <= 0, "allocation %ld: %d", n, err);
		ck_assert_int_lt(n, 100000);
	}
}

static int decode_record(void *arg)
{
	struct buf *b = arg;
	struct jrec r;
	size_t used;
	int err = jrec_get(&r, b->data, b->len, &used);
	if (!err)
		jrec_release(&r);
	must(err == 0 || err == -ENOMEM);
	return err;
}

START_TEST(records)
{
	struct jrec r;
	struct buf b;
	buf_init(&b, JREC_MAX);
	record_sample(&r, JT_CONTENT);
	ck_assert_int_eq(jrec_put(&b, &r), 0);
	jrec_release(&r);
	starve(decode_record, &b);
	buf_release(&b);
}
END_TEST

static int encode(void *arg)
{
	struct buf b;
	buf_init(&b, JREC_MAX);
	int err = jrec_put(&b, arg);
	must(err == 0 || err == -ENOMEM);
	must(err == 0 || b.len == 0);
	buf_release(&b);
	return err;
}

START_TEST(encoding)
{
	struct jrec r;
	record_sample(&r, JT_RENAME);
	starve(encode, &r);
	jrec_release(&r);
}
END_TEST

static int frames_here(void *arg)
{
	static uint8_t data[20000];
	struct buf out, plain, p;
	uint8_t type;
	buf_init(&out, FRAME_HEADER + FRAME_MAX);
	buf_init(&plain, FRAME_MAX);
	int err = frame_put(&out, 7, data, sizeof(data), *(enum compress_method *)arg);
	if (!err) {
		int got = frame_get(&out, &plain, &type, &p);
		must(got == 1 || got < 0);
		must(got < 0 || p.len == sizeof(data));
		err = got < 0 ? got : 0;
	}
	buf_release(&out);
	buf_release(&plain);
	return err;
}

struct call {
	void *arg;
	int err;
};

static void *frames_thread(void *arg)
{
	struct call *c = arg;
	c->err = frames_here(c->arg);
	return NULL;
}

/* In a thread of its own, which has no compression contexts yet. */
static int frames(void *arg)
{
	struct call c = {.arg = arg};
	pthread_t t;
	must(pthread_create(&t, NULL, frames_thread, &c) == 0);
	pthread_join(t, NULL);
	return c.err;
}

START_TEST(compressed_frames)
{
	static const enum compress_method all[] = {COMPRESS_NONE, COMPRESS_ZLIB, COMPRESS_ZSTD};
	for (int i = 0; i < 3; i++)
		starve(frames, (void *)(uintptr_t)&all[i]);
}
END_TEST

static int extents(void *arg)
{
	struct extent_set a, b;
	int err = 0;
	extent_init(&a);
	extent_init(&b);
	for (uint64_t i = 0; !err && i < 40; i++)
		err = extent_add(&a, i * 100, i * 100 + 10);
	for (uint64_t i = 0; !err && i < 40; i++)
		err = extent_add(&b, i * 100 + 50, i * 100 + 60);
	if (!err)
		err = extent_union(&a, &b);
	must(err == -ENOMEM || a.n == 80);
	extent_release(&a);
	extent_release(&b);
	return err;
}

START_TEST(ranges)
{
	starve(extents, NULL);
}
END_TEST

static int welcome(void *arg)
{
	struct buf in;
	struct wwelcome w;
	buf_view(&in, ((struct buf *)arg)->data, ((struct buf *)arg)->len);
	int err = wwelcome_get(&in, &w);
	if (!err)
		free(w.outstanding);
	return err;
}

START_TEST(messages)
{
	uint64_t out[2] = {1, 2};
	struct wwelcome w = {.window = 1, .motd = "", .module_id = "", .noutstanding = 2, .outstanding = out};
	struct buf b;
	buf_init(&b, 4096);
	wwelcome_put(&b, &w);
	starve(welcome, &b);
	buf_release(&b);
}
END_TEST

static int mirrors(void *arg)
{
	struct mirror m;
	struct conf c;
	int err = mirror_load(&m, &c, arg, "m");
	mirror_release(&m);
	conf_release(&c);
	return err;
}

static int modules(void *arg)
{
	struct modules_conf mc;
	int err = modules_conf_read(&mc, arg);
	modules_conf_release(&mc);
	return err;
}

static void write_file(char path[300], const char *dir, const char *name, const char *text)
{
	snprintf(path, 300, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
	chmod(path, 0600);
}

START_TEST(configurations)
{
	char dir[256], path[300];
	unit_scratch(dir);
	write_file(path, dir, "mirrors.conf", "state dir = /var/s\n[m]\nsource = /tmp\npassword file = /var/p\ntarget = tandem://u@h:99/m\ntarget = tandem://u@[::1]/m\n"
	    "exclude = *.o b\nfilter = - x + y\ndont compress = *.gz\nlog file = /tmp/l\n");
	starve(mirrors, path);
	write_file(path, dir, "modules.conf", "state dir = /tmp\naddress = 127.0.0.1 ::1\n[m]\npath = /tmp\n"
	    "hosts allow = 10.0.0.0/8 ::1\nhosts deny = *\nexclude = *.o\ninclude = a\nuid = root\ngid = root\ncomment = c\n");
	starve(modules, path);
	unit_remove(dir);
}
END_TEST

static int attributes(void *arg)
{
	struct buf set;
	int *fd = arg;
	buf_init(&set, XATTR_SET_MAX);
	int err = xattrs_read(&set, fd[0], -1, NULL);
	if (!err)
		err = xattrs_apply(set.data, (uint32_t)set.len, fd[1], -1, NULL);
	buf_release(&set);
	return err;
}

START_TEST(attribute_sets)
{
	char dir[256], path[300];
	int fd[2];
	unit_scratch(dir);
	for (int i = 0; i < 2; i++) {
		write_file(path, dir, i ? "b" : "a", "");
		fd[i] = open(path, O_RDWR);
	}
	if (fsetxattr(fd[0], "user.one", "1", 1, 0) == 0 && fsetxattr(fd[0], "user.two", "22", 2, 0) == 0)
		starve(attributes, fd);
	close(fd[0]);
	close(fd[1]);
	unit_remove(dir);
}
END_TEST

static int list_segments(void *arg)
{
	uint64_t *seqs = NULL;
	int n = jseg_list(*(int *)arg, &seqs);
	must(n == 3 || n == -ENOMEM);
	free(n < 0 ? NULL : seqs);
	return n < 0 ? n : 0;
}

static int read_redo(void *arg)
{
	int *fd = arg;
	struct redo r;
	int err = redo_init(&r, fd[0], fd[1], NULL, true);
	redo_release(&r);
	return err;
}

START_TEST(directories)
{
	char dir[256], path[300], name[JSEG_NAME_LEN];
	int fd[2];
	unit_scratch(dir);
	for (uint64_t i = 1; i < 4; i++) {
		jseg_name(name, i);
		write_file(path, dir, name, "");
	}
	fd[0] = fd[1] = open(dir, O_RDONLY | O_DIRECTORY);
	starve(list_segments, fd);
	write_file(path, dir, "0000000000000001", "TDL1 that is torn");
	write_file(path, dir, "0000000000000002.data", "not committed");
	starve(read_redo, fd);
	close(fd[0]);
	unit_remove(dir);
}
END_TEST

static int talk(void *arg)
{
	int fd[2], fds[CTL_FDS_MAX];
	json_t *o, *got = NULL;
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) == 0);
	o = json_pack("{s:b}", "ok", 1);
	int err = ctl_send(fd[0], o, NULL, 0);
	json_decref(o);
	if (!err)
		err = ctl_recv(fd[1], &got, fds, 1000);
	must(err == 0 || got == NULL);
	json_decref(got);
	close(fd[0]);
	close(fd[1]);
	return err;
}

START_TEST(packets)
{
	starve(talk, NULL);
}
END_TEST

UNIT_MAIN("no_memory", records, encoding, ranges, compressed_frames, messages, configurations, attribute_sets, directories, packets)
