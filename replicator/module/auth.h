/* SPDX-License-Identifier: BSD-2-Clause
 * Who may connect: secrets files and the keys derived from them. The store lives in the parent, which derives
 * each (user, password) once; children inherit it. Secrets files are checked for change before every
 * connection. */
#ifndef TANDEM_MODULE_AUTH_H
#define TANDEM_MODULE_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/psk.h"
#include "replicator/module/modules_conf.h"

#define AUTH_FILE_MAX  (1u << 20) /* bytes of a secrets file */
#define AUTH_USERS_MAX 4096	  /* lines of a secrets file */

struct auth_store;

/* The mode and owner of a secrets file. strict false: only that it can be read. Returns 0 or an error with
 * why: what, and what to do. */
int auth_check_file(const char *file, bool strict, char *why, size_t size);
/* Say whether the file has a line for user; if not, why says what is missing or wrong with the file. */
bool auth_file_has(const char *file, const char *user, char *why, size_t size);

int auth_new(struct auth_store **out);
void auth_free(struct auth_store *s);
/* Read every secrets file of mc that is new or changed and derive missing keys (40 ms each). Files that
 * cannot be used are remembered with the reason; their users do not get in. Returns 0 or -ENOMEM. */
int auth_refresh(struct auth_store *s, const struct modules_conf *mc);
/* Find the key of user for a module; module "" finds any module that lists user. Returns 0, or E_AUTH with
 * why saying the true cause and the remedy, for the log only. */
int auth_find(const struct auth_store *s, const struct modules_conf *mc, const char *user, const char *module,
	      uint8_t key[PSK_LEN], char *why, size_t size);

#endif
