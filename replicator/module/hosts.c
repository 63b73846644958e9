/* SPDX-License-Identifier: BSD-2-Clause
 * Address rules: see hosts.h. */
#include "config.h"
#include "replicator/module/hosts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void from_v4(uint8_t out[16], const struct in_addr *a)
{
	memset(out, 0, 10);
	out[10] = out[11] = 0xff;
	memcpy(out + 12, a, 4);
}

/* Bits of an IPv4 netmask, or -1 if it is none. */
static int mask_bits(const char *text)
{
	struct in_addr a;
	if (inet_pton(AF_INET, text, &a) != 1)
		return -1;
	uint32_t m = ntohl(a.s_addr);
	int bits = 0;
	while (bits < 32 && (m & (1u << (31 - bits))))
		bits++;
	return bits == 32 || (m << bits) == 0 ? bits : -1;
}

static int refuse(char *why, size_t size, const char *pattern, const char *what)
{
	snprintf(why, size, "\"%s\" %s", pattern, what);
	return -EINVAL;
}

static int parse_bits(const char *text, bool v4, unsigned *bits)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && n <= (v4 ? 32u : 128u)) {
		*bits = (unsigned)n + (v4 ? 96 : 0);
		return 0;
	}
	int m = v4 ? mask_bits(text) : -1;
	if (m < 0)
		return -EINVAL;
	*bits = (unsigned)m + 96;
	return 0;
}

int hosts_parse(const char *pattern, struct host_rule *out, char *why, size_t size)
{
	char addr[64];
	struct in_addr a4;
	const char *slash = strchr(pattern, '/');
	size_t n = slash ? (size_t)(slash - pattern) : strlen(pattern);
	memset(out, 0, sizeof(*out));
	if (strcmp(pattern, "*") == 0)
		return 0;
	if (n >= sizeof(addr))
		return refuse(why, size, pattern, "is not an address");
	memcpy(addr, pattern, n);
	addr[n] = 0;
	bool v4 = inet_pton(AF_INET, addr, &a4) == 1;
	if (v4)
		from_v4(out->addr, &a4);
	else if (inet_pton(AF_INET6, addr, out->addr) != 1)
		return refuse(
		    why, size, pattern,
		    strpbrk(addr, "*?[")
			? "is a wildcard: write the network instead, such as 192.168.1.0/24"
			: "is not an address: names are not accepted, since whoever controls their DNS "
			  "would be let in; write the address, such as 192.168.1.10, or a network, "
			  "such as 192.168.1.0/24");
	out->bits = 128;
	if (slash && parse_bits(slash + 1, v4, &out->bits))
		return refuse(why, size, pattern,
			      "has a wrong network size: write address/bits or address/netmask");
	return 0;
}

int hosts_add(struct host_rules *r, const struct host_rule *rule)
{
	struct host_rule *v = realloc(r->v, (r->n + 1) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	v[r->n++] = *rule;
	r->v = v;
	return 0;
}

void hosts_release(struct host_rules *r)
{
	free(r->v);
	r->v = NULL;
	r->n = 0;
}

int hosts_address(const struct sockaddr *sa, uint8_t addr[16])
{
	if (sa->sa_family == AF_INET) {
		from_v4(addr, &((const struct sockaddr_in *)(const void *)sa)->sin_addr);
		return 0;
	}
	if (sa->sa_family != AF_INET6)
		return -EAFNOSUPPORT;
	memcpy(addr, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	return 0;
}

static bool rule_matches(const struct host_rule *r, const uint8_t addr[16])
{
	unsigned whole = r->bits / 8, rest = r->bits % 8;
	if (memcmp(r->addr, addr, whole) != 0)
		return false;
	return !rest || ((r->addr[whole] ^ addr[whole]) >> (8 - rest)) == 0;
}

bool hosts_match(const struct host_rules *r, const uint8_t addr[16])
{
	for (size_t i = 0; i < r->n; i++)
		if (rule_matches(&r->v[i], addr))
			return true;
	return false;
}

bool hosts_allowed(const struct host_rules *allow, const struct host_rules *deny, const uint8_t addr[16])
{
	if (allow->n)
		return hosts_match(allow, addr);
	return !hosts_match(deny, addr);
}
