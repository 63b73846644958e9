/* SPDX-License-Identifier: BSD-2-Clause
 * Compression of one frame payload. zstd preferred, zlib always there. */
#ifndef TANDEM_COMPRESS_H
#define TANDEM_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

enum compress_method { COMPRESS_NONE = 0, COMPRESS_ZLIB = 1, COMPRESS_ZSTD = 2 };

/* Compress src into dst. Returns the bytes written, or 0 if it would not shrink below cap. level 0: default (1). */
size_t compress_pack(enum compress_method m, int level, const void *src, size_t n, void *dst, size_t cap);
/* Expand src into exactly n bytes. Returns 0, or E_PROTO for damaged input or another size. */
int compress_unpack(enum compress_method m, const void *src, size_t len, void *dst, size_t n);

#endif
