/* SPDX-License-Identifier: BSD-2-Clause
 * A directory of the standby as its LISTING frames gave it: entries by name, and which of them the source has
 * too. */
#ifndef TANDEM_LISTING_H
#define TANDEM_LISTING_H

#include "proto/wire.h"

struct listing;

struct listing *listing_new(void);
void listing_free(struct listing *l);
/* Take count entries from a LISTING payload whose head was read. Copies. Returns 0, E_PROTO, E_LIMIT or
 * -ENOMEM. */
int listing_append(struct listing *l, struct buf *payload, uint32_t count);
/* No more entries will come: build the index. Returns 0 or -ENOMEM. */
int listing_seal(struct listing *l);
/* Entries without ".". */
size_t listing_count(const struct listing *l);
/* Bytes of memory held. */
size_t listing_bytes(const struct listing *l);
/* Find name and mark it as met. e's strings are views into l. */
bool listing_find(struct listing *l, const char *name, struct wentry *e);
/* The entry "."; false if the listing has none. */
bool listing_self(const struct listing *l, struct wentry *e);
/* Find the next entry from *i on that was not met, and step *i behind it. False at the end. */
bool listing_unmet(const struct listing *l, size_t *i, struct wentry *e);

#endif
