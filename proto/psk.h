/* SPDX-License-Identifier: BSD-2-Clause
 * From a user's password to the TLS 1.3 external pre-shared key: scrypt (N 16384, r 8, p 1), salt
 * "tandem psk 1" NUL user, 32 bytes. The PSK identity on the wire is "USER/MODULE" (MODULE empty to list modules). */
#ifndef TANDEM_PSK_H
#define TANDEM_PSK_H

#include <stddef.h>
#include <stdint.h>

#define PSK_LEN          32
#define PSK_IDENTITY_MAX 512

/* Takes about 40 ms of CPU. Returns 0, -EINVAL or -ENOMEM. */
int psk_derive(uint8_t key[PSK_LEN], const char *user, const char *password);
/* Split an identity. Returns 0 or E_PROTO; user and module must have room for PSK_IDENTITY_MAX bytes. */
int psk_split(const char *identity, size_t len, char *user, char *module);

#endif
