/* SPDX-License-Identifier: BSD-2-Clause
 * Compression of one frame payload. The zstd contexts are kept per thread: making one costs more than
 * compressing a small frame does. */
#include "config.h"

#include <pthread.h>
#include <stdlib.h>

#include <zlib.h>
#include <zstd.h>

#include "proto/compress.h"
#include "proto/err.h"

struct contexts {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
};

static pthread_key_t contexts_key;
static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;
static int contexts_ready;

static void contexts_free(void *arg)
{
	struct contexts *t = arg;

	ZSTD_freeCCtx(t->pack);
	ZSTD_freeDCtx(t->unpack);
	free(t);
}

static void contexts_init(void)
{
	contexts_ready = pthread_key_create(&contexts_key, contexts_free) == 0;
}

/* This thread's contexts, or NULL when there is no memory for them. */
static struct contexts *contexts_get(void)
{
	struct contexts *t;

	pthread_once(&contexts_once, contexts_init);
	if (!contexts_ready)
		return NULL;
	t = pthread_getspecific(contexts_key);
	if (t != NULL)
		return t;
	t = calloc(1, sizeof(*t));
	if (t == NULL || pthread_setspecific(contexts_key, t) != 0) {
		free(t);
		return NULL;
	}
	return t;
}

static size_t pack_zstd(int level, const void *src, size_t n, void *dst, size_t cap)
{
	struct contexts *t = contexts_get();
	size_t got;

	if (t == NULL)
		return 0;
	if (t->pack == NULL && (t->pack = ZSTD_createCCtx()) == NULL)
		return 0;
	got = ZSTD_compressCCtx(t->pack, dst, cap, src, n, level != 0 ? level : 1);
	return ZSTD_isError(got) ? 0 : got;
}

static size_t pack_zlib(int level, const void *src, size_t n, void *dst, size_t cap)
{
	uLongf got = cap;

	return compress2(dst, &got, src, n, level != 0 ? level : 1) == Z_OK ? got : 0;
}

size_t compress_pack(enum compress_method m, int level, const void *src, size_t n, void *dst, size_t cap)
{
	if (n == 0 || cap == 0)
		return 0;
	switch (m) {
	case COMPRESS_ZSTD:
		return pack_zstd(level, src, n, dst, cap);
	case COMPRESS_ZLIB:
		return pack_zlib(level, src, n, dst, cap);
	case COMPRESS_NONE:
		break;
	}
	return 0;
}

static int unpack_zstd(const void *src, size_t len, void *dst, size_t n)
{
	struct contexts *t = contexts_get();
	size_t got;

	if (t == NULL || (t->unpack == NULL && (t->unpack = ZSTD_createDCtx()) == NULL))
		return E_PROTO;
	got = ZSTD_decompressDCtx(t->unpack, dst, n, src, len);
	return !ZSTD_isError(got) && got == n ? 0 : E_PROTO;
}

static int unpack_zlib(const void *src, size_t len, void *dst, size_t n)
{
	uLongf got = n;
	uLong used = len;

	return uncompress2(dst, &got, src, &used) == Z_OK && got == n && used == len ? 0 : E_PROTO;
}

int compress_unpack(enum compress_method m, const void *src, size_t len, void *dst, size_t n)
{
	if (n == 0 || len == 0)
		return E_PROTO;
	switch (m) {
	case COMPRESS_ZSTD:
		return unpack_zstd(src, len, dst, n);
	case COMPRESS_ZLIB:
		return unpack_zlib(src, len, dst, n);
	case COMPRESS_NONE:
		break;
	}
	return E_PROTO;
}
