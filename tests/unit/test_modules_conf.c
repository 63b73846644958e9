/* SPDX-License-Identifier: BSD-2-Clause
 * modules.conf: the files that people have, keys, users, and the address rules. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>

#include "replicator/module/auth.h"
#include "replicator/module/hosts.h"
#include "replicator/module/modules_conf.h"
#include "tests/unit/unit.h"

static bool has_diag(const struct modules_conf *mc, enum conf_severity sev, int line, const char *part)
{
	for (size_t i = 0; i < mc->conf.ndiags; i++) {
		const struct conf_diag *d = &mc->conf.diags[i];
		if (d->severity == sev && (!line || d->line == line) && strstr(d->text, part))
			return true;
	}
	return false;
}

static void read_sample(struct modules_conf *mc, const char *name)
{
	char path[4096];
	const char *src = getenv("srcdir");
	snprintf(path, sizeof(path), "%s/tests/samples/rsyncd/%s.conf", src ? src : ".", name);
	ck_assert_msg(modules_conf_read(mc, path) == 0, "%s", path);
}

START_TEST(every_sample_is_read)
{
	static const struct {
		const char *name;
		size_t modules;
	} samples[] = {{"backup-www", 2},    {"gitlab-pair", 5},    {"inotify-target", 1},
		       {"lsyncd-target", 2}, {"sersync-target", 1}, {"sersync-target-clean", 1},
		       {"simple-path", 1}};
	for (size_t i = 0; i < sizeof(samples) / sizeof(*samples); i++) {
		struct modules_conf mc;
		read_sample(&mc, samples[i].name);
		ck_assert_int_eq(mc.nmodules, samples[i].modules);
		ck_assert(!has_diag(&mc, CONF_ERROR, 0, "unknown key"));
		modules_conf_release(&mc);
	}
}
END_TEST

START_TEST(faults_of_the_samples_are_named)
{
	struct modules_conf mc;
	read_sample(&mc, "gitlab-pair");
	ck_assert(has_diag(&mc, CONF_ERROR, 51, "line 27"));
	ck_assert(has_diag(&mc, CONF_ERROR, 1, "comment"));
	ck_assert(has_diag(&mc, CONF_NOTICE, 26, "hosts allow alone means everyone else is refused"));
	modules_conf_release(&mc);
	read_sample(&mc, "lsyncd-target");
	ck_assert(has_diag(&mc, CONF_ERROR, 25, "section header"));
	ck_assert(has_diag(&mc, CONF_ERROR, 45, "auth users"));
	modules_conf_release(&mc);
}
END_TEST

/* Write a configuration with one module m below a scratch directory (%s in keys is that directory) and read
 * it. */
static void read_text(struct modules_conf *mc, char *dir, const char *global, const char *keys)
{
	char path[300], body[2000];
	unit_scratch(dir);
	snprintf(path, sizeof(path), "%s/secrets", dir);
	FILE *f = fopen(path, "w");
	fprintf(f, "# who\nalice:one\nbob:two\n\n");
	fclose(f);
	chmod(path, 0600);
	snprintf(path, sizeof(path), "%s/modules.conf", dir);
	f = fopen(path, "w");
	snprintf(body, sizeof(body),
		 "%s\n[m]\npath = %s\nauth users = alice bob:ro eve:deny\nsecrets file = %s/secrets\n%s\n",
		 global, dir, dir, keys);
	fputs(body, f);
	fclose(f);
	ck_assert_int_eq(modules_conf_read(mc, path), 0);
}

START_TEST(defaults)
{
	struct modules_conf mc;
	char dir[256];
	read_text(&mc, dir, "", "");
	conf_print(&mc.conf);
	ck_assert_int_eq(mc.conf.nerrors, 0);
	ck_assert_int_eq(mc.port, 8730);
	ck_assert_str_eq(mc.state_dir, "/var/lib/tandemd");
	const struct module_conf *m = modules_conf_find(&mc, "m");
	ck_assert_ptr_nonnull(m);
	ck_assert(m->read_only && m->list && m->strict_modes && !m->has_uid);
	ck_assert_int_eq(m->timeout_s, 60);
	ck_assert_int_eq(m->use_chroot, TRI_UNSET);
	modules_conf_release(&mc);
	unit_remove(dir);
}
END_TEST

START_TEST(global_part_gives_defaults)
{
	struct modules_conf mc;
	char dir[256];
	read_text(&mc, dir, "ReadOnly = no\ntimeout = 7\nmax connections = 3",
		  "timeout = 9\nmax connections = 2");
	ck_assert_int_eq(mc.conf.nerrors, 0);
	ck_assert(!mc.modules[0].read_only);
	ck_assert_int_eq(mc.modules[0].timeout_s, 9);
	ck_assert_int_eq(mc.modules[0].max_connections, 2);
	ck_assert_int_eq(mc.max_connections, 3);
	modules_conf_release(&mc);
	unit_remove(dir);
}
END_TEST

START_TEST(a_negative_number_closes_a_module)
{
	struct modules_conf mc;
	char dir[256];
	read_text(&mc, dir, "max connections = -5", "max connections = -2");
	ck_assert_int_eq(mc.conf.nerrors, 0);
	ck_assert_int_lt(mc.max_connections, 0);
	ck_assert_int_lt(mc.modules[0].max_connections, 0);
	modules_conf_release(&mc);
	unit_remove(dir);
}
END_TEST

START_TEST(a_timeout_of_zero_is_a_minute)
{
	struct modules_conf mc;
	char dir[256];
	read_text(&mc, dir, "", "timeout = 0");
	ck_assert_int_eq(mc.conf.nerrors, 0);
	ck_assert_int_eq(mc.modules[0].timeout_s, 60);
	modules_conf_release(&mc);
	unit_remove(dir);
}
END_TEST

START_TEST(users_have_rights)
{
	struct modules_conf mc;
	char dir[256];
	read_text(&mc, dir, "", "");
	const struct module_conf *m = &mc.modules[0];
	ck_assert_int_eq(modules_conf_right(m, "alice"), USER_DEFAULT);
	ck_assert_int_eq(modules_conf_right(m, "bob"), USER_RO);
	ck_assert_int_eq(modules_conf_right(m, "eve"), USER_DENY);
	ck_assert_int_eq(modules_conf_right(m, "mallory"), USER_DENY);
	modules_conf_release(&mc);
	unit_remove(dir);
}
END_TEST

START_TEST(wrong_keys_are_errors)
{
	static const char *const wrong[][2] = {{"reed only = no", "read only"},
					       {"uid = no-such-user", "no-such-user"},
					       {"hosts allow = example.org", "names are not accepted"},
					       {"hosts allow = 192.168.1.*", "192.168.1.0/24"},
					       {"port = 1", "before the first"},
					       {"munge symlinks = yes", "munge symlinks"},
					       {"pre-xfer exec = /bin/x", "runs no programs"},
					       {"path = /no/such/dir", "create path"},
					       {"path = relative", "absolute"},
					       {"secrets file = /no/such", "/no/such"},
					       {"auth users = alice:admin", "ro, rw or deny"},
					       {"auth users = @wheel", "groups"},
					       {"auth users =", "auth users"},
					       {"auth users = ,", "auth users"},
					       {"secrets file =", "secrets file"},
					       {"hosts allow =", "hosts allow names nobody"},
					       {"hosts allow = ,", "hosts allow names nobody"},
					       {"list = maybe", "yes or no"},
					       {"filter = - x", "filter"}};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct modules_conf mc;
		char dir[256];
		read_text(&mc, dir, "", wrong[i][0]);
		ck_assert_msg(has_diag(&mc, CONF_ERROR, 6, wrong[i][1]), "%s", wrong[i][0]);
		modules_conf_release(&mc);
		unit_remove(dir);
	}
}
END_TEST

START_TEST(patterns_are_rsync_s)
{
	struct modules_conf mc;
	char dir[256];
	read_text(&mc, dir, "", "exclude = *,v + kept.o - *.o\ninclude = - a.c *.c");
	ck_assert_int_eq(mc.conf.nerrors, 0);
	const struct filter *f = &mc.modules[0].filter;
	ck_assert(filter_excluded(f, "file,v", false));
	ck_assert(!filter_excluded(f, "file", false));
	ck_assert(!filter_excluded(f, "v", false));
	ck_assert(!filter_excluded(f, "kept.o", false));
	ck_assert(filter_excluded(f, "other.o", false));
	ck_assert(filter_excluded(f, "a.c", false));
	modules_conf_release(&mc);
	unit_remove(dir);
}
END_TEST

static bool allowed(const char *allow, const char *deny, const char *address)
{
	struct host_rules a = {0}, d = {0};
	struct host_rule r;
	char why[256];
	uint8_t addr[16];
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	if (*allow) {
		ck_assert_int_eq(hosts_parse(allow, &r, why, sizeof(why)), 0);
		hosts_add(&a, &r);
	}
	if (*deny) {
		ck_assert_int_eq(hosts_parse(deny, &r, why, sizeof(why)), 0);
		hosts_add(&d, &r);
	}
	if (inet_pton(AF_INET, address, &in.sin_addr) == 1) {
		ck_assert_int_eq(hosts_address((struct sockaddr *)&in, addr), 0);
	} else {
		ck_assert_int_eq(inet_pton(AF_INET6, address, &in6.sin6_addr), 1);
		ck_assert_int_eq(hosts_address((struct sockaddr *)&in6, addr), 0);
	}
	bool yes = hosts_allowed(&a, &d, addr);
	hosts_release(&a);
	hosts_release(&d);
	return yes;
}

START_TEST(address_rules)
{
	ck_assert(allowed("", "", "10.0.0.1"));
	ck_assert(allowed("10.0.0.1", "", "10.0.0.1"));
	ck_assert(!allowed("10.0.0.1", "", "10.0.0.2"));
	ck_assert(allowed("10.0.0.1", "", "::ffff:10.0.0.1"));
	ck_assert(allowed("10.0.0.0/8", "*", "10.255.0.1"));
	ck_assert(!allowed("10.0.0.0/8", "0.0.0.0/32", "11.0.0.1"));
	ck_assert(allowed("172.18.50.1/255.255.255.0", "", "172.18.50.77"));
	ck_assert(!allowed("172.18.50.1/255.255.255.0", "", "172.18.51.77"));
	ck_assert(!allowed("", "10.0.0.0/9", "10.127.1.1"));
	ck_assert(allowed("", "10.0.0.0/9", "10.128.1.1"));
	ck_assert(allowed("2001:db8::/33", "", "2001:db8:7fff::1"));
	ck_assert(!allowed("2001:db8::/33", "", "2001:db8:8000::1"));
	ck_assert(allowed("0.0.0.0/0", "", "8.8.8.8"));
	ck_assert(!allowed("0.0.0.0/0", "", "2001:db8::1"));
	ck_assert(allowed("*", "", "2001:db8::1"));
}
END_TEST

START_TEST(patterns_that_are_no_addresses)
{
	static const char *const bad[] = {
	    "host", "10.0.0",	 "10.0.0.0/33", "10.0.0.0/255.0.255.0", "10.0.0.0/x", "::/129", "",
	    "/8",   "10.0.0.0/", "@netgroup",	"10.0.0.0/-1"};
	struct host_rule r;
	char why[256];
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_msg(hosts_parse(bad[i], &r, why, sizeof(why)) == -EINVAL && *why, "%s", bad[i]);
}
END_TEST

START_TEST(secrets_are_read_again_when_they_change)
{
	struct modules_conf mc;
	struct auth_store *s;
	uint8_t one[PSK_LEN], two[PSK_LEN];
	char dir[256], path[300], why[512];
	read_text(&mc, dir, "", "");
	ck_assert_int_eq(auth_new(&s), 0);
	ck_assert_int_eq(auth_refresh(s, &mc), 0);
	ck_assert_int_eq(auth_find(s, &mc, "alice", "m", one, why, sizeof(why)), 0);
	ck_assert_int_ne(auth_find(s, &mc, "eve", "m", two, why, sizeof(why)), 0);
	ck_assert_int_ne(auth_find(s, &mc, "alice", "n", two, why, sizeof(why)), 0);
	ck_assert_ptr_nonnull(strstr(why, "no module"));
	snprintf(path, sizeof(path), "%s/secrets", dir);
	FILE *f = fopen(path, "w");
	fprintf(f, "alice:changed\n");
	fclose(f);
	ck_assert_int_eq(auth_refresh(s, &mc), 0);
	ck_assert_int_eq(auth_find(s, &mc, "alice", "m", two, why, sizeof(why)), 0);
	ck_assert_int_ne(memcmp(one, two, PSK_LEN), 0);
	chmod(path, 0644);
	ck_assert_int_eq(auth_refresh(s, &mc), 0);
	ck_assert_int_ne(auth_find(s, &mc, "alice", "m", two, why, sizeof(why)), 0);
	ck_assert_ptr_nonnull(strstr(why, "chmod 600"));
	chmod(path, 0600);
	ck_assert_int_eq(auth_refresh(s, &mc), 0);
	ck_assert_int_eq(auth_find(s, &mc, "alice", "m", two, why, sizeof(why)), 0);
	auth_free(s);
	modules_conf_release(&mc);
	unit_remove(dir);
}
END_TEST

UNIT_MAIN("modules.conf", every_sample_is_read, faults_of_the_samples_are_named, defaults,
	  global_part_gives_defaults, a_negative_number_closes_a_module, a_timeout_of_zero_is_a_minute, users_have_rights, wrong_keys_are_errors, patterns_are_rsync_s, address_rules,
	  patterns_that_are_no_addresses, secrets_are_read_again_when_they_change)
