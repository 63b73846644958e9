/* SPDX-License-Identifier: BSD-2-Clause
 * From a password to the pre-shared key, and the form of the identity that names it. */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/evp.h>

#include "proto/err.h"
#include "proto/psk.h"

#define PSK_SALT "tandem psk 1"
#define PSK_N	 16384u
#define PSK_R	 8u
#define PSK_P	 1u
#define PSK_MEM	 (64u << 20) /* bytes scrypt may take; it needs 128 * N * r = 16 MiB */

int psk_derive(uint8_t key[PSK_LEN], const char *user, const char *password)
{
	uint8_t salt[sizeof(PSK_SALT) + PSK_IDENTITY_MAX];
	size_t n = strlen(user);

	if (n == 0 || n >= PSK_IDENTITY_MAX || *password == '\0')
		return -EINVAL;
	memcpy(salt, PSK_SALT, sizeof(PSK_SALT)); /* with its NUL */
	memcpy(salt + sizeof(PSK_SALT), user, n); /* NOLINT(bugprone-not-null-terminated-result): bytes, not a string */
	if (EVP_PBE_scrypt(password, strlen(password), salt, sizeof(PSK_SALT) + n, PSK_N, PSK_R, PSK_P,
			   PSK_MEM, key, PSK_LEN) != 1)
		return -ENOMEM;
	return 0;
}

/* Copy a name of n bytes if it could stand in a configuration: no control bytes, no second slash. */
static bool name_copy(char *out, const char *name, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char ch = (unsigned char)name[i];

		if (ch < 0x20 || ch == 0x7f || ch == '/')
			return false;
	}
	memcpy(out, name, n);
	out[n] = '\0';
	return true;
}

int psk_split(const char *identity, size_t len, char *user, char *module)
{
	const char *slash;
	size_t n;

	user[0] = module[0] = '\0';
	if (len >= PSK_IDENTITY_MAX || (slash = memchr(identity, '/', len)) == NULL || slash == identity)
		return E_PROTO;
	n = (size_t)(slash - identity);
	if (name_copy(user, identity, n) && name_copy(module, slash + 1, len - n - 1))
		return 0;
	user[0] = module[0] = '\0';
	return E_PROTO;
}
