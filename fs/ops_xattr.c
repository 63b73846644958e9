/* SPDX-License-Identifier: BSD-2-Clause
 * Extended attributes and, as attributes, POSIX ACLs. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/cred.h"
#include "fs/dirty.h"
#include "fs/inodefd.h"
#include "fs/op.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_PREFIX "system.posix_acl_"

static bool starts(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Attributes that belong to this host and do not travel. */
static bool local(const char *name)
{
	return starts(name, "security.selinux") || starts(name, "trusted.overlay.") || starts(name, "system.nfs4_acl");
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct tfs *fs = tfs_of(req);
	char proc[IFD_PROC_MAX], *value = NULL;
	struct ifd f;
	ssize_t n = 0;
	int r;

	if (size && !(value = malloc(size))) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	r = ifd_get(fs, tree_get(&fs->tree, ino), &f);
	if (r == 0) {
		n = f.path_only ? getxattr(ifd_proc(&f, proc), name, value, size) : fgetxattr(f.fd, name, value, size);
		r = n < 0 ? -errno : 0;
		ifd_put(fs, &f);
	}
	/* the kernel asks for the ACL whenever the group bits may decide, and fails the access with any other error (NFSv4) */
	if (r == -EOPNOTSUPP && starts(name, ACL_PREFIX))
		r = -ENODATA;
	if (r < 0)
		op_reply(req, r);
	else if (size)
		fuse_reply_buf(req, value, (size_t)n);
	else
		fuse_reply_xattr(req, (size_t)n);
	free(value);
}

/* Only the superuser sees trusted.*; we always do. Returns the bytes that remain. */
static size_t hide_trusted(char *list, size_t n)
{
	size_t out = 0;

	for (size_t at = 0; at < n;) {
		size_t len = strnlen(list + at, n - at) + 1;

		if (len > n - at)
			break;
		if (!starts(list + at, "trusted.")) {
			memmove(list + out, list + at, len);
			out += len;
		}
		at += len;
	}
	return out;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct tfs *fs = tfs_of(req);
	char proc[IFD_PROC_MAX], *list = malloc(XATTR_LIST_MAX);
	struct ifd f;
	ssize_t n = 0;
	int r = list ? ifd_get(fs, tree_get(&fs->tree, ino), &f) : -ENOMEM;

	if (r == 0) {
		n = f.path_only ? listxattr(ifd_proc(&f, proc), list, XATTR_LIST_MAX)
				: flistxattr(f.fd, list, XATTR_LIST_MAX);
		r = n < 0 ? -errno : 0;
		ifd_put(fs, &f);
	}
	if (r == 0 && fuse_req_ctx(req)->uid != 0)
		n = (ssize_t)hide_trusted(list, (size_t)n);
	if (r < 0)
		op_reply(req, r);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else if ((size_t)n > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, list, (size_t)n);
	free(list);
}

static void record(struct tfs *fs, struct worker *w, enum jtype type, struct inode *i, const struct ifd *f, const char *name,
    const char *value, size_t size, int flags)
{
	struct jrec *r = &w->rec;

	if (local(name))
		return;
	pthread_mutex_lock(&fs->tree.lock);
	jrec_init(r, type);
	op_path_locked(fs, i, NULL, w->path, &r->path);
	r->ino = i->ino;
	r->xname = name;
	if (type == JT_SETXATTR) {
		r->xval = (const uint8_t *)value;
		r->xlen = (uint32_t)size;
		r->rflags = (uint32_t)flags;
	}
	if (r->path[0] || i == fs->tree.root)
		journal_append(fs->journal, r);
	else if (!S_ISDIR(i->mode))
		dirty_nameless_locked(fs, w, i, f->fd);
	pthread_mutex_unlock(&fs->tree.lock);
}

/* An ACL may take the set-gid bit from a file whose group the caller is not in. */
static bool acl_strips(fuse_req_t req, const struct ifd *f, const char *name)
{
	struct stat st;

	if (!tfs_of(req)->privileged || fuse_req_ctx(req)->uid == 0 || strcmp(name, ACL_ACCESS) != 0)
		return false;
	return fstat(f->fd, &st) == 0 && st.st_mode & S_ISGID && !cred_in_group(req, st.st_gid);
}

/* value NULL: remove. */
static int change(const struct ifd *f, const char *name, const char *value, size_t size, int flags)
{
	char proc[IFD_PROC_MAX];
	int r;

	if (value)
		r = f->path_only ? setxattr(ifd_proc(f, proc), name, value, size, flags)
				 : fsetxattr(f->fd, name, value, size, flags);
	else
		r = f->path_only ? removexattr(ifd_proc(f, proc), name) : fremovexattr(f->fd, name);
	return r < 0 ? -errno : 0;
}

static void do_change(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct tfs *fs = tfs_of(req);
	struct worker *w = worker_get(fs);
	struct inode *i = tree_get(&fs->tree, ino);
	enum jtype type = value ? JT_SETXATTR : JT_REMOVEXATTR;
	struct inflight_entry note = {.type = type};
	struct ifd f;
	bool strip;
	int r = w ? ifd_get(fs, i, &f) : -ENOMEM;

	if (r < 0) {
		op_reply(req, r);
		return;
	}
	cred_space(w, fuse_req_ctx(req));
	strip = acl_strips(req, &f, name);
	op_note(fs, w, &note, i, NULL, NULL, NULL);
	if (strip)
		cred_fsetid(false);
	r = change(&f, name, value, size, flags);
	if (strip)
		cred_fsetid(true);
	if (r == 0) {
		if (starts(name, "security.capability"))
			atomic_store(&i->priv, true);
		record(fs, w, type, i, &f, name, value, size, flags);
	} else if (op_in_doubt(r, 0)) {
		op_doubt(fs, w, i, NULL, false);
	}
	op_done(fs, w);
	ifd_put(fs, &f);
	op_reply_changed(req, ino, r);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	do_change(req, ino, name, value ? value : "", size, flags);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	do_change(req, ino, name, NULL, 0, 0);
}
