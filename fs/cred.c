/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "fs/cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proto/log.h"

void cred_process_init(struct tfs *fs)
{
	int bits = prctl(PR_GET_SECUREBITS);

	if (!fs->privileged)
		return;
	if (bits < 0 || prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP) < 0)
		log_warn("cannot keep capabilities across a change of ids (%s): files may be made with wrong rights",
		    strerror(errno));
	/* supplementary groups of whoever started us must not leak into what callers may do below */
	if (syscall(SYS_setgroups, 0, NULL) < 0)
		log_warn("cannot drop supplementary groups: %s", strerror(errno));
}

/* Give a capability of this thread up, or take it back. Keeps errno. */
static void set_cap(unsigned cap, bool have)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	int saved = errno;

	if (syscall(SYS_capget, &head, data) == 0) {
		if (have)
			data[0].effective |= data[0].permitted & (1u << cap);
		else
			data[0].effective &= ~(1u << cap);
		syscall(SYS_capset, &head, data);
	}
	errno = saved;
}

void cred_thread_init(struct worker *w)
{
	/* a new thread has the ids and capabilities of the one that started it, whatever caller that served last */
	w->fsuid = geteuid();
	w->fsgid = getegid();
	syscall(SYS_setfsgid, w->fsgid);
	syscall(SYS_setfsuid, w->fsuid);
	if (w->fs->privileged)
		set_cap(CAP_SYS_RESOURCE, true);
	w->limited = false;
	w->umask = (mode_t)-1;
	if (unshare(CLONE_FS) < 0)
		log_warn("unshare(CLONE_FS): %s; modes of files made by several users at once may be wrong", strerror(errno));
}

/* The raw calls change this thread alone; glibc's wrappers would change every thread. */
static void set_ids(struct worker *w, uid_t uid, gid_t gid)
{
	if (!w->fs->privileged)
		return;
	if (w->fsgid != gid) {
		syscall(SYS_setfsgid, gid);
		w->fsgid = gid;
	}
	if (w->fsuid != uid) {
		syscall(SYS_setfsuid, uid);
		w->fsuid = uid;
	}
}

static void take_space(struct worker *w, uid_t uid, gid_t gid)
{
	bool limited = uid != 0;

	set_ids(w, uid, gid);
	if (w->fs->privileged && w->limited != limited) {
		set_cap(CAP_SYS_RESOURCE, !limited);
		w->limited = limited;
	}
}

void cred_space(struct worker *w, const struct fuse_ctx *ctx)
{
	take_space(w, ctx->uid, ctx->gid);
}

void cred_space_own(struct worker *w)
{
	take_space(w, geteuid(), getegid());
}

void cred_caller(struct worker *w, const struct fuse_ctx *ctx)
{
	if (w->umask != ctx->umask) {
		umask(ctx->umask);
		w->umask = ctx->umask;
	}
	cred_space(w, ctx);
}

void cred_remote(struct worker *w, const struct fuse_ctx *ctx)
{
	if (w->fs->remote)
		set_ids(w, ctx->uid, ctx->gid);
}

void cred_fsetid(bool have)
{
	set_cap(CAP_FSETID, have);
}

bool cred_in_group(fuse_req_t req, gid_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	gid_t small[64], *list = small;
	int n;
	bool in = ctx->gid == gid;

	if (in)
		return true;
	n = fuse_req_getgroups(req, 64, small);
	if (n > 64) {
		list = calloc((size_t)n, sizeof(*list));
		if (!list)
			return false;
		n = fuse_req_getgroups(req, n, list);
	}
	for (int i = 0; i < n && !in; i++)
		in = list[i] == gid;
	if (list != small)
		free(list);
	return in;
}

bool cred_strip_begin(struct worker *w, fuse_req_t req, const struct inode *i, int fd)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct stat st;

	if (!w || !w->fs->privileged || ctx->uid == 0 || !atomic_load_explicit(&i->priv, memory_order_relaxed))
		return false;
	if (fstat(fd, &st) < 0)
		return false;
	/* sgid without group execute stays if the caller is in the group */
	set_ids(w, ctx->uid, cred_in_group(req, st.st_gid) ? st.st_gid : ctx->gid);
	cred_fsetid(false);
	return true;
}

void cred_strip_end(bool begun)
{
	if (begun)
		cred_fsetid(true);
}
