/* SPDX-License-Identifier: BSD-2-Clause
 * Confinement: see confine.h. */
#include "config.h"
#include "replicator/module/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef HAVE_LINUX_LANDLOCK_H
#include <linux/landlock.h>
#endif

#include "proto/err.h"
#include "proto/log.h"
#include "replicator/module/syscalls.h"

static int fail(int err, char *why, size_t size, const char *what)
{
	snprintf(why, size, "%s: %s", what, err_text(err));
	return err;
}

/* --- chroot, uid, capabilities --- */

static int enter_root(const struct module_conf *m, int rootfd, struct confined *out, char *why, size_t size)
{
	if (fchdir(rootfd))
		return fail(-errno, why, size, "chdir into the module");
	if (m->use_chroot == TRI_NO || geteuid() != 0)
		return 0;
	if (chroot(".") == 0 && chdir("/") == 0) {
		out->chrooted = true;
		return 0;
	}
	if (m->use_chroot == TRI_YES)
		return fail(
		    -errno, why, size,
		    "chroot into the module (\"use chroot = no\" does without; openat2 and Landlock stay)");
	log_warn("chroot into the module failed: %s; going on with openat2 and Landlock", err_text(-errno));
	return 0;
}

#define NOBODY 65534u

/* Nothing to serve: nothing to keep. */
static int drop_to_nobody(char *why, size_t size)
{
	gid_t gid = NOBODY;
	if (geteuid() == 0 &&
	    (setgroups(1, &gid) || setresgid(gid, gid, gid) || setresuid(NOBODY, NOBODY, NOBODY)))
		return fail(-errno, why, size, "change to uid 65534");
	return 0;
}

static int drop_uid(const struct module_conf *m, char *why, size_t size)
{
	gid_t gid = m->gid;
	if (!m->has_uid || geteuid() != 0)
		return 0;
	if (setgroups(m->ngroups ? (size_t)m->ngroups : 1, m->ngroups ? m->groups : &gid) ||
	    setresgid(gid, gid, gid) || setresuid(m->uid, m->uid, m->uid))
		return fail(-errno, why, size, "change to the module's uid and gid");
	if (m->uid && (setuid(0) == 0 || geteuid() != m->uid))
		return fail(-EPERM, why, size, "the change to the module's uid can be undone");
	return 0;
}

#define CAP(n) (1ull << (n))

/* What keeping owners, modes, set-id bits, devices and attributes exactly needs. */
static uint64_t wanted_caps(bool admin)
{
	uint64_t keep = CAP(CAP_CHOWN) | CAP(CAP_DAC_OVERRIDE) | CAP(CAP_DAC_READ_SEARCH) | CAP(CAP_FOWNER) |
			CAP(CAP_FSETID) | CAP(CAP_MKNOD) | CAP(CAP_SETFCAP);
	return admin ? keep | CAP(CAP_SYS_ADMIN) : keep;
}

/* The bounding set goes with the first wall at once: it matters to programs alone, and the second has no right to change it. */
static int set_caps(uint64_t keep)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct now[2], d[2];
	if (syscall(SYS_capget, &h, now))
		return -errno;
	for (int i = 0; i < 2; i++) {
		uint32_t bits = (uint32_t)(keep >> (32 * i)) & now[i].permitted;
		d[i] = (struct __user_cap_data_struct){.effective = bits, .permitted = bits};
	}
	for (int cap = 0; cap < 64; cap++)
		if (!(keep & wanted_caps(true) & CAP(cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &h, d) ? -errno : 0;
}

/* --- Landlock --- */

#ifdef HAVE_LINUX_LANDLOCK_H
#define LL_TRUNCATE  (1ull << 14) /* ABI 3; headers of Debian 12 end at ABI 2 */
#define LL_IOCTL_DEV (1ull << 15) /* ABI 5 */
#define LL_NET_BIND  (1ull << 0)  /* ABI 4 */
#define LL_NET_CONN  (1ull << 1)
#define LL_SCOPE_ALL 3ull /* ABI 6: abstract sockets, signals */

/* struct landlock_ruleset_attr of ABI 6 */
struct ll_ruleset {
	uint64_t fs, net, scoped;
};

/* All that a module may need beneath its directory: no execution, no ioctl of devices. */
static uint64_t ll_module(const struct ll_ruleset *attr)
{
	return attr->fs & ~(LANDLOCK_ACCESS_FS_EXECUTE | LL_IOCTL_DEV);
}

/* A ruleset that denies everything this kernel can deny. Returns a descriptor or -errno. */
static int ll_open(struct ll_ruleset *attr)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 2) /* without REFER every rename between directories would be refused */
		return abi < 0 ? -errno : -EOPNOTSUPP;
	uint64_t all = (LANDLOCK_ACCESS_FS_REFER << 1) - 1;
	*attr = (struct ll_ruleset){.fs = all | (abi >= 3 ? LL_TRUNCATE : 0) | (abi >= 5 ? LL_IOCTL_DEV : 0)};
	attr->net = abi >= 4 ? LL_NET_BIND | LL_NET_CONN : 0;
	attr->scoped = abi >= 6 ? LL_SCOPE_ALL : 0;
	size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
	int fd = (int)syscall(SYS_landlock_create_ruleset, attr, size, 0);
	return fd < 0 ? -errno : fd;
}

static int ll_allow(int fd, int dirfd, uint64_t access)
{
	struct landlock_path_beneath_attr beneath = {.allowed_access = access, .parent_fd = dirfd};
	return syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) ? -errno : 0;
}

/* Enter the ruleset fd, unless err; closes it. */
static int ll_enter(int fd, int err)
{
	if (!err && syscall(SYS_landlock_restrict_self, fd, 0))
		err = -errno;
	close(fd);
	return err;
}

static int landlock_beneath(int rootfd)
{
	struct ll_ruleset attr = {0};
	int fd = ll_open(&attr);
	if (fd < 0)
		return fd;
	return ll_enter(fd, rootfd < 0 ? 0 : ll_allow(fd, rootfd, ll_module(&attr)));
}

/* The directories of all modules, and files in the state directory. What is not there is not allowed either. */
static int landlock_modules(const struct modules_conf *mc, int stdir)
{
	struct ll_ruleset attr = {0};
	int fd = ll_open(&attr);
	if (fd < 0)
		return fd;
	int err = stdir < 0 ? 0
			    : ll_allow(fd, stdir,
				       LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG);
	for (size_t i = 0; i < mc->nmodules && !err; i++) {
		int dir = open(mc->modules[i].path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			continue;
		err = ll_allow(fd, dir, ll_module(&attr));
		close(dir);
	}
	return ll_enter(fd, err);
}
#else
static int landlock_beneath(int rootfd)
{
	return -EOPNOTSUPP;
}

static int landlock_modules(const struct modules_conf *mc, int stdir)
{
	return -EOPNOTSUPP;
}
#endif

/* --- limits --- */

static void limit(int what, rlim_t value)
{
	struct rlimit r = {value, value};
	setrlimit(what, &r);
}

static void set_limits(void)
{
	limit(RLIMIT_NOFILE, CONFINE_FDS);
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_MEMLOCK, 0);
	limit(RLIMIT_MSGQUEUE, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	limit(RLIMIT_DATA, 1ul << 30);
#endif
	signal(SIGXFSZ, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* --- the walls --- */

/* What owners need is kept, and what changes to the module's root and user. */
static uint64_t early_caps(void)
{
	return geteuid() ? 0 : wanted_caps(syscalls_available()) | CAP(CAP_SYS_CHROOT) | CAP(CAP_SETUID) | CAP(CAP_SETGID);
}

int confine_early(const struct modules_conf *mc, int stdir, char *why, size_t size)
{
	set_limits();
	int err = set_caps(early_caps());
	if (err)
		return fail(err, why, size, "drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return fail(-errno, why, size, "no_new_privs");
	err = landlock_modules(mc, stdir);
	if (err && err != -ENOSYS && err != -EOPNOTSUPP)
		return fail(err, why, size, "Landlock");
	err = syscalls_filter(SYSCALLS_EARLY);
	if (err && err != -EOPNOTSUPP)
		return fail(err, why, size, "system call filter");
	return 0;
}

int confine_enter(const struct module_conf *m, int rootfd, struct confined *out, char *why, size_t size)
{
	memset(out, 0, sizeof(*out));
	int err = m ? enter_root(m, rootfd, out, why, size) : 0;
	if (!err)
		err = m ? drop_uid(m, why, size) : drop_to_nobody(why, size);
	if (err)
		return err;
	out->no_owner = geteuid() != 0;
	umask(0);
	bool admin = !out->no_owner && syscalls_available();
	err = set_caps(out->no_owner ? 0 : wanted_caps(admin));
	if (err)
		return fail(err, why, size, "drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return fail(-errno, why, size, "no_new_privs");
	err = landlock_beneath(rootfd);
	out->landlock = !err;
	if (err && err != -ENOSYS && err != -EOPNOTSUPP)
		log_warn("Landlock: %s; going on with openat2%s", err_text(err),
			 out->chrooted ? " and chroot" : "");
	return 0;
}

int confine_syscalls(struct confined *out)
{
	int err = syscalls_filter(SYSCALLS_MODULE);
	out->seccomp = !err;
	return err == -EOPNOTSUPP ? 0 : err;
}
