/* SPDX-License-Identifier: BSD-2-Clause
 * Rules about peers' addresses: "hosts allow" and "hosts deny". Addresses, CIDR, address/netmask and "*";
 * never names, since whoever runs the peer's DNS would decide. */
#ifndef TANDEM_MODULE_HOSTS_H
#define TANDEM_MODULE_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct host_rule {
	uint8_t addr[16]; /* IPv4 as ::ffff:a.b.c.d */
	unsigned bits;	  /* that must be equal, of 128 */
};

struct host_rules {
	struct host_rule *v; /* owned */
	size_t n;
};

/* Parse one pattern. Returns 0, or -EINVAL with why saying what is wrong and what to write. */
int hosts_parse(const char *pattern, struct host_rule *out, char *why, size_t size);
int hosts_add(struct host_rules *r, const struct host_rule *rule);
void hosts_release(struct host_rules *r);
/* An address as 16 bytes. Returns 0, or -EAFNOSUPPORT. */
int hosts_address(const struct sockaddr *sa, uint8_t addr[16]);
bool hosts_match(const struct host_rules *r, const uint8_t addr[16]);
/* The decision: with allow rules those alone decide; with deny rules only, everyone else is allowed. */
bool hosts_allowed(const struct host_rules *allow, const struct host_rules *deny, const uint8_t addr[16]);

#endif
