/* SPDX-License-Identifier: BSD-2-Clause
 * Attributes of one entry, also on kernels without fchmodat2(2). */
#include "config.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "replicator/module/node.h"
#include "tests/unit/unit.h"

struct rig {
	char dir[256];
	int root, tmp;
};

static void begin(struct rig *r)
{
	unit_scratch(r->dir);
	r->root = open(r->dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(mkdirat(r->root, "tmp", 0700), 0);
	r->tmp = openat(r->root, "tmp", O_RDONLY | O_DIRECTORY);
}

static void end(struct rig *r)
{
	close(r->tmp);
	close(r->root);
	unit_remove(r->dir);
}

/* As Linux before 6.6 does: fchmodat2 is not there. */
static void be_old(void)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 452, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(*code), .filter = code};
	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

static void check_modes(struct rig *r)
{
	static const mode_t types[] = {S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR};
	struct stat st;
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		if (mknodat(r->root, "entry", types[i] | 0200, 0)) /* a device (0, 0) needs no right */
			ck_abort_msg("mknod: %s", strerror(errno));
		ck_assert_int_eq(node_chmod(r->root, "entry", 01640, r->tmp), 0);
		ck_assert_int_eq(node_stat(r->root, "entry", &st), 0);
		ck_assert_uint_eq(st.st_mode, types[i] | 01640);
		ck_assert_uint_eq(st.st_nlink, 1);
		ck_assert_int_eq(unlinkat(r->root, "entry", 0), 0);
	}
}

START_TEST(every_type_gets_its_mode)
{
	struct rig r;
	begin(&r);
	check_modes(&r);
	end(&r);
}
END_TEST

START_TEST(every_type_gets_its_mode_on_an_old_kernel)
{
	struct rig r;
	begin(&r);
	be_old();
	check_modes(&r);
	end(&r);
}
END_TEST

/* In a process of its own, in a root of its own or not. */
static int open_closed(struct rig *r, bool chrooted)
{
	struct stat st;
	if (geteuid() == 0 && (fchown(r->root, 65534, 65534) || fchown(r->tmp, 65534, 65534) ||
			       (chrooted && (fchdir(r->root) || chroot("."))) || setresuid(65534, 65534, 65534)))
		return 2;
	be_old();
	if (mkdirat(r->root, "closed", 0) || node_chmod(r->root, "closed", 0755, r->tmp) || node_stat(r->root, "closed", &st))
		return 3;
	return (st.st_mode & 07777) == 0755 ? 0 : 4;
}

START_TEST(a_directory_closed_to_its_owner_gets_its_mode_on_an_old_kernel)
{
	for (int chrooted = 0; chrooted < 2; chrooted++) {
		struct rig r;
		int status;
		begin(&r);
		pid_t pid = fork();
		if (pid == 0)
			_exit(open_closed(&r, chrooted));
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
		end(&r);
	}
}
END_TEST

START_TEST(a_symlink_and_what_it_names_are_left_alone)
{
	struct rig r;
	struct stat st;
	begin(&r);
	ck_assert_int_eq(mknodat(r.root, "file", S_IFREG | 0644, 0), 0);
	ck_assert_int_eq(symlinkat("file", r.root, "link"), 0);
	be_old();
	ck_assert_int_eq(node_chmod(r.root, "link", 0600, r.tmp), 0);
	ck_assert_int_eq(node_stat(r.root, "file", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0644);
	end(&r);
}
END_TEST

UNIT_MAIN("entries", a_directory_closed_to_its_owner_gets_its_mode_on_an_old_kernel, every_type_gets_its_mode, every_type_gets_its_mode_on_an_old_kernel, a_symlink_and_what_it_names_are_left_alone)
