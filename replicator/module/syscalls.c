/* SPDX-License-Identifier: BSD-2-Clause
 * The system call filter: see syscalls.h. */
#include "config.h"
#include "replicator/module/syscalls.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#ifdef HAVE_SECCOMP
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <unistd.h>

static const char *const allowed[] = {
    /* files of the module */
    "openat",
    "openat2",
    "close",
    "close_range",
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "lseek",
    "_llseek",
    "ftruncate",
    "ftruncate64",
    "fallocate",
    "copy_file_range",
    "sendfile",
    "fadvise64",
    "fstat",
    "fstat64",
    "newfstatat",
    "fstatat64",
    "statx",
    "stat",
    "lstat",
    "fstatfs",
    "fstatfs64",
    "statfs",
    "getdents64",
    "readlinkat",
    "readlink",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat",
    "renameat2",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchown32",
    "fchownat",
    "utimensat",
    "utimensat_time64",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "sync_file_range2",
    "fchdir",
    "flock",
    "fgetxattr",
    "fsetxattr",
    "flistxattr",
    "fremovexattr",
    "lgetxattr",
    "lsetxattr",
    "llistxattr",
    "lremovexattr",
    "fcntl",
    "fcntl64",
    "dup",
    "dup2",
    "dup3",
    "umask",
    "getcwd",
    "access",
    "faccessat",
    "faccessat2",
    /* the connection and the log */
    "recv",
    "recvfrom",
    "recvmsg",
    "send",
    "sendto",
    "sendmsg",
    "shutdown",
    "getsockopt",
    "setsockopt",
    "getsockname",
    "getpeername",
    "poll",
    "ppoll",
    "ppoll_time64",
    /* memory, threads, time */
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "msync",
    "futex",
    "futex_time64",
    "sched_yield",
    "sched_getaffinity",
    "clock_gettime",
    "clock_gettime64",
    "clock_getres",
    "gettimeofday",
    "time",
    "nanosleep",
    "clock_nanosleep",
    "clock_nanosleep_time64",
    "getrandom",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigreturn",
    "sigaltstack",
    "restart_syscall",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "membarrier",
    "getrusage",
    "sysinfo",
    "uname",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getuid32",
    "geteuid32",
    "getgid32",
    "getegid32",
    "exit",
    "exit_group",
};

static const char *const refused[] = {
    /* EPERM: these would reach out of the child */
    "execve",
    "execveat",
    "fork",
    "vfork",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kill",
    "tkill",
    "socket",
    "socketpair",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "mount",
    "umount2",
    "pivot_root",
    "setns",
    "unshare",
    "bpf",
    "perf_event_open",
    "keyctl",
    "add_key",
    "request_key",
    "open_by_handle_at",
    "name_to_handle_at",
    "swapon",
    "reboot",
    "init_module",
    "finit_module",
    "kexec_load",
    "quotactl",
    "setuid",
    "setgid",
    "personality",
    "userfaultfd",
    "io_uring_setup",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsmount",
    "syslog",
    "acct",
    "settimeofday",
    "clock_settime",
    "sethostname",
    "ioperm",
    "iopl",
    "mknod",
    "pidfd_open",
    "pidfd_getfd",
    "pidfd_send_signal",
};

/* What enters the module and starts the thread: allowed behind the early wall, EPERM behind the second. */
static const char *const entering[] = {
    "chroot",
    "chdir",
    "setgroups",
    "setgroups32",
    "setresuid",
    "setresuid32",
    "setresgid",
    "setresgid32",
    "capget",
    "capset",
    "eventfd2",
    "seccomp",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
};

/* For the second wall alone: behind the early one, clone makes threads, and clone3, whose flags no filter sees, is ENOSYS, so that the C
 * library takes clone. */
static const char *const cloning[] = {"clone", "clone3"};

static int add(scmp_filter_ctx ctx, uint32_t action, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int nr = seccomp_syscall_resolve_name(names[i]);
		if (nr == __NR_SCMP_ERROR ||
		    nr < 0) /* not of this architecture, or younger than the library */
			continue;
		int err = seccomp_rule_add(ctx, action, nr, 0);
		if (err)
			return err;
	}
	return 0;
}

/* Younger than Debian 12's libseccomp; the same numbers on every architecture. */
static int add_new(scmp_filter_ctx ctx)
{
	static const int numbers[] = {452 /* fchmodat2 */, 463 /* setxattrat */, 464, 465,
				      466 /* removexattrat */};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		int err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, numbers[i], 0);
		if (err && err != -EEXIST)
			return err;
	}
	return 0;
}

/* Memory never becomes executable; of the ioctls only cloning. */
static int add_conditional(scmp_filter_ctx ctx)
{
	int err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				   SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!err)
		err =
		    seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, FICLONE));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	if (!err) /* abort(3) */
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	return err;
}

#ifdef __s390__
#define CLONE_FLAGS SCMP_A1
#else
#define CLONE_FLAGS SCMP_A0
#endif

/* On the way to the second wall: threads, no processes; what prctl(2) gives up, nothing else of it. */
static int add_entering(scmp_filter_ctx ctx)
{
	static const int options[] = {PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_SET_NO_NEW_PRIVS};
	int err = add(ctx, SCMP_ACT_ALLOW, entering, sizeof(entering) / sizeof(*entering));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				       CLONE_FLAGS(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
				       CLONE_FLAGS(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
	for (size_t i = 0; !err && i < sizeof(options) / sizeof(*options); i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)options[i]));
	return err;
}

static int add_final(scmp_filter_ctx ctx)
{
	int err = add(ctx, SCMP_ACT_ERRNO(EPERM), entering, sizeof(entering) / sizeof(*entering));
	return err ? err : add(ctx, SCMP_ACT_ERRNO(EPERM), cloning, sizeof(cloning) / sizeof(*cloning));
}

bool syscalls_available(void)
{
	/* with a null filter the kernel answers EFAULT if it has the operation */
	return prctl(PR_SET_SECCOMP, 2, NULL, 0, 0) == -1 && errno == EFAULT;
}

int syscalls_filter(enum syscalls_wall wall)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	if (!ctx)
		return -ENOMEM;
	int err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = add(ctx, SCMP_ACT_ALLOW, allowed, sizeof(allowed) / sizeof(*allowed));
	if (!err)
		err = add(ctx, SCMP_ACT_ERRNO(EPERM), refused, sizeof(refused) / sizeof(*refused));
	if (!err)
		err = add_new(ctx);
	if (!err)
		err = add_conditional(ctx);
	if (!err)
		err = wall == SYSCALLS_EARLY ? add_entering(ctx) : add_final(ctx);
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}
#else
bool syscalls_available(void)
{
	return false;
}

int syscalls_filter(enum syscalls_wall wall)
{
	return -EOPNOTSUPP;
}
#endif
