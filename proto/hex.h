/* SPDX-License-Identifier: BSD-2-Clause
 * Bytes as hexadecimal digits, lower case: identities, references, paths that are no UTF-8. */
#ifndef TANDEM_PROTO_HEX_H
#define TANDEM_PROTO_HEX_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the text of a 16-byte identity, with its NUL. */
#define HEX_ID 33

/* Write the 2 n digits of in[0..n), and a NUL. */
static inline void hex_put(char *out, const void *in, size_t n)
{
	const uint8_t *b = in;

	for (size_t i = 0; i < n; i++) {
		*out++ = "0123456789abcdef"[b[i] >> 4];
		*out++ = "0123456789abcdef"[b[i] & 15];
	}
	*out = '\0';
}

/* Read n bytes from text, which has to be exactly their digits. Returns 0, or -1 if it is not (or NULL); out is undefined then. */
static inline int hex_get(void *out, const char *text, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t *b = out;

	if (text == NULL || strlen(text) != 2 * n || strspn(text, digits) != 2 * n)
		return -1;
	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)((strchr(digits, text[2 * i]) - digits) << 4 | (strchr(digits, text[2 * i + 1]) - digits));
	return 0;
}

#endif
