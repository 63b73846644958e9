/* SPDX-License-Identifier: BSD-2-Clause
 * Each wall around a child holds by itself: what a child that an attacker runs would try, tried. */
#include "config.h"
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/fileio.h"
#include "replicator/module/confine.h"

#define MUST(x)                                                                                              \
	do {                                                                                                 \
		if (!(x))                                                                                    \
			_exit(__LINE__);                                                                     \
	} while (0)
#define SKIPPED 77

static char dir[256];
static int rootfd, statefd;
static struct confined how;

/* Run f in a child; it ends with the line that failed. */
static void in_child(void (*f)(void))
{
	int status;
	unit_scratch(dir);
	rootfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		f();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "ended by signal %d", WTERMSIG(status));
	ck_assert_msg(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == SKIPPED, "line %d", WEXITSTATUS(status));
	close(rootfd);
	unit_remove(dir);
}

static void enter(enum tristate chroot_too)
{
	struct module_conf m = {.use_chroot = chroot_too};
	char why[512];
	MUST(confine_enter(&m, rootfd, &how, why, sizeof(why)) == 0);
}

static void try_landlock(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int s = socket(AF_INET, SOCK_STREAM, 0);
	enter(TRI_NO);
	if (!how.landlock)
		_exit(SKIPPED);
	MUST(!how.chrooted);
	MUST(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES);
	MUST(openat(rootfd, "../escaped", O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES);
	MUST(mkdir("/tmp/escaped", 0700) < 0 && errno == EACCES);
	MUST(unlink("/etc/passwd") < 0 && errno == EACCES);
	MUST(rename("/etc/passwd", "/etc/passwd.old") < 0 && (errno == EACCES || errno == EXDEV));
	MUST(mount("none", "/tmp", "tmpfs", 0, NULL) < 0);
	MUST(connect(s, (struct sockaddr *)&sa, sizeof(sa)) < 0 && (errno == EACCES || errno == ECONNREFUSED));
	int fd = openat(rootfd, "file", O_RDWR | O_CREAT, 0700);
	MUST(fd >= 0 && write(fd, "#!/bin/sh\n", 10) == 10);
	close(fd);
	MUST(mkdirat(rootfd, "d", 0700) == 0 && renameat(rootfd, "file", rootfd, "d/file") == 0);
	execv("d/file", (char *[]){"file", NULL});
	MUST(errno == EACCES);
}

START_TEST(landlock_alone_keeps_it_beneath_the_module)
{
	in_child(try_landlock);
}
END_TEST

static void try_chroot(void)
{
	if (geteuid() != 0)
		_exit(SKIPPED);
	enter(TRI_YES);
	MUST(how.chrooted);
	MUST(open("/etc/passwd", O_RDONLY) < 0);
	MUST(chdir("../../../..") == 0 && open("etc/passwd", O_RDONLY) < 0);
	MUST(chroot(".") < 0 && errno == EPERM);
	/* the system call, as an attacker's code would: setuid(2) of the C library wants all threads to agree, and capabilities are a thread's */
	MUST(syscall(SYS_setuid, 65534) < 0 || syscall(SYS_setuid, 0) < 0);
}

START_TEST(a_changed_root_is_not_left)
{
	in_child(try_chroot);
}
END_TEST

static void try_uid(void)
{
	struct module_conf m = {.use_chroot = TRI_NO, .has_uid = true, .uid = 65534, .gid = 65534};
	char why[512];
	if (geteuid() != 0)
		_exit(SKIPPED);
	MUST(fchown(rootfd, 65534, 65534) == 0);
	MUST(confine_enter(&m, rootfd, &how, why, sizeof(why)) == 0);
	MUST(getuid() == 65534 && getgid() == 65534 && setuid(0) < 0 && setgid(0) < 0 && how.no_owner);
	MUST(mknodat(rootfd, "sda", S_IFBLK | 0600, 8 << 8) < 0 && errno == EPERM);
}

START_TEST(a_module_s_uid_is_not_left)
{
	in_child(try_uid);
}
END_TEST

static void try_syscalls(void)
{
	pid_t parent = getppid();
	enter(TRI_UNSET);
	MUST(confine_syscalls(&how) == 0);
	if (!how.seccomp)
		_exit(SKIPPED);
	MUST(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EPERM);
	MUST(fork() < 0 && errno == EPERM);
	MUST(execv("/bin/true", (char *[]){"true", NULL}) < 0 && errno == EPERM);
	MUST(kill(parent, 0) < 0 && errno == EPERM);
	MUST(ptrace(PTRACE_ATTACH, parent, NULL, NULL) < 0 && errno == EPERM);
	MUST(mount("none", "/", "tmpfs", 0, NULL) < 0 && errno == EPERM);
	MUST(chroot(".") < 0 && errno == EPERM);
	MUST(setuid(0) < 0 && errno == EPERM);
	MUST(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	MUST(setpriority(PRIO_PROCESS, 0, 5) < 0 && setpriority(PRIO_PROCESS, (id_t)parent, 19) < 0);
}

START_TEST(only_the_system_calls_of_applying_are_left)
{
	in_child(try_syscalls);
}
END_TEST

static void early(void)
{
	struct module_conf m = {.path = dir};
	struct modules_conf mc = {.modules = &m, .nmodules = 1};
	char why[512], path[300];
	snprintf(path, sizeof(path), "%s.state", dir);
	MUST(mkdir(path, 0700) == 0);
	statefd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(rmdir(path) == 0 && mkdirat(rootfd, "d", 0700) == 0);
	MUST(confine_early(&mc, statefd, why, sizeof(why)) == 0);
}

static void try_limits(void)
{
	char text[4096] = "";
	int limits = open("/proc/self/limits", O_RDONLY); /* behind the wall nobody may ask */
	early();
	MUST(limits >= 0 && read(limits, text, sizeof(text) - 1) > 0);
	const char *files = strstr(text, "Max open files"), *core = strstr(text, "Max core file size");
	MUST(files && strtoul(files + strlen("Max open files"), NULL, 10) == CONFINE_FDS);
	MUST(core && strtoul(core + strlen("Max core file size"), NULL, 10) == 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	MUST(mmap(NULL, 2ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
#endif
	int fd = 0;
	while (fd >= 0 && fd < 2000)
		fd = dup(rootfd);
	MUST(fd < 0 && errno == EMFILE);
}

START_TEST(memory_and_descriptors_are_limited)
{
	in_child(try_limits);
}
END_TEST

static void try_early_files(void)
{
	early();
	MUST(open("/", O_PATH) >= 0);
	if (open("/", O_RDONLY) >= 0)
		_exit(SKIPPED); /* a kernel without Landlock */
	MUST(errno == EACCES);
	MUST(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES);
	MUST(openat(rootfd, "../escaped", O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES);
	MUST(mkdir("/tmp/escaped", 0700) < 0);
	MUST(unlinkat(AT_FDCWD, "/etc/passwd", 0) < 0 && errno == EACCES);
	MUST(linkat(AT_FDCWD, "/etc/passwd", rootfd, "passwd", 0) < 0 && (errno == EACCES || errno == EXDEV));
	int fd = openat(rootfd, "file", O_RDWR | O_CREAT, 0700);
	MUST(fd >= 0 && renameat(rootfd, "file", rootfd, "d/file") == 0 && unlinkat(rootfd, "d/file", 0) == 0);
}

START_TEST(the_early_wall_leaves_the_modules_alone)
{
	in_child(try_early_files);
}
END_TEST

static void *idle(void *arg)
{
	return arg;
}

static void try_early_syscalls(void)
{
	static const int refused[] = {SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_mount, SYS_umount2, SYS_pivot_root,
	    SYS_unshare, SYS_setns, SYS_bpf, SYS_perf_event_open, SYS_keyctl, SYS_add_key, SYS_userfaultfd, SYS_io_uring_setup, SYS_kexec_load,
	    SYS_init_module, SYS_finit_module, SYS_reboot, SYS_open_by_handle_at, SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen,
	    SYS_kill, SYS_pidfd_open, SYS_execveat, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_setuid};
	pthread_t t;
	early();
	if (syscall(SYS_ptrace, 0, 0, 0, 0) == 0 || prctl(PR_GET_SECCOMP) == 0)
		_exit(SKIPPED); /* built or run without seccomp */
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		MUST(syscall(refused[i], 0, 0, 0, 0, 0, 0) < 0 && errno == EPERM);
	MUST(execv("/bin/true", (char *[]){"true", NULL}) < 0 && errno == EPERM);
	MUST(fork() < 0 && errno == EPERM);
	MUST(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
	MUST(prctl(PR_SET_DUMPABLE, 1) < 0 && prctl(PR_SET_MM, 0, 0, 0, 0) < 0);
	MUST(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	MUST(pthread_create(&t, NULL, idle, NULL) == 0 && pthread_join(t, NULL) == 0);
}

START_TEST(the_early_wall_leaves_no_programs_processes_or_sockets)
{
	in_child(try_early_syscalls);
}
END_TEST

static void try_early_rights(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	early();
	MUST(syscall(SYS_capget, &h, d) == 0);
	MUST(!(d[0].permitted & (1u << CAP_SYS_PTRACE | 1u << CAP_SYS_MODULE | 1u << CAP_SYS_RAWIO | 1u << CAP_NET_ADMIN | 1u << CAP_KILL |
	    1u << CAP_SYS_BOOT | 1u << CAP_SYS_RESOURCE | 1u << CAP_SETPCAP)));
	MUST(d[0].effective == d[0].permitted && !d[0].inheritable);
}

START_TEST(the_early_wall_keeps_few_capabilities)
{
	in_child(try_early_rights);
}
END_TEST

static void try_both(void)
{
	struct module_conf m = {.use_chroot = TRI_NO};
	char why[512];
	early();
	int d = openat(rootfd, "d", O_RDONLY | O_DIRECTORY);
	MUST(d >= 0 && confine_enter(&m, d, &how, why, sizeof(why)) == 0);
	MUST(confine_syscalls(&how) == 0);
	if (!how.landlock)
		_exit(SKIPPED);
	MUST(openat(rootfd, "file", O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES);
	MUST(openat(statefd, "file", O_WRONLY | O_CREAT, 0600) < 0);
	MUST(openat(d, "file", O_WRONLY | O_CREAT, 0600) >= 0);
	MUST(!how.seccomp || (chroot(".") < 0 && errno == EPERM));
}

START_TEST(the_second_wall_stands_within_the_early_one)
{
	in_child(try_both);
}
END_TEST

UNIT_MAIN("confinement", landlock_alone_keeps_it_beneath_the_module, a_changed_root_is_not_left, a_module_s_uid_is_not_left,
	  only_the_system_calls_of_applying_are_left, memory_and_descriptors_are_limited,
	  the_early_wall_leaves_the_modules_alone, the_early_wall_leaves_no_programs_processes_or_sockets,
	  the_early_wall_keeps_few_capabilities, the_second_wall_stands_within_the_early_one)
