/* SPDX-License-Identifier: BSD-2-Clause
 * What a comparison puts into the stream: records with sequence 0, attribute sets, removals. */
#include "config.h"
#include "replicator/source/compare_priv.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/xattrs.h"

static void rec_attrs(struct jrec *r, const struct stat *st)
{
	r->ino = st->st_ino;
	r->mode = st->st_mode;
	r->uid = st->st_uid;
	r->gid = st->st_gid;
	r->rdev = st->st_rdev;
	r->mtime = (struct jtime){st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec};
}

static int put_rec(struct compare *c, const struct jrec *r)
{
	buf_clear(&c->rec);
	int err = jrec_put(&c->rec, r);
	if (err == E_LIMIT) {
		compare_path_failed(c, r->path, err, "its record would be too long");
		return 0;
	}
	if (err)
		return err;
	struct wop op = {.type = WOP_REC, .path = "", .data = c->rec.data, .dlen = (uint32_t)c->rec.len};
	return stream_op(c->env.stream, &op);
}

int op_mkdir(struct compare *c, struct cnode *dir, const char *path, const struct stat *st)
{
	struct jrec r;
	jrec_init(&r, JT_MKDIR);
	r.path = path;
	rec_attrs(&r, st);
	r.mode = S_IFDIR | 0700; /* its own mode comes when everything below is there */
	r.pm = c->scan.mtime;
	dir->flags |= NF_DIRTY;
	return put_rec(c, &r);
}

int op_special(struct compare *c, const struct celt *el, const struct jtime *pm)
{
	char target[PATH_MAX + 1];
	struct jrec r;
	jrec_init(&r, S_ISLNK(el->st.st_mode) ? JT_SYMLINK : JT_MKNOD);
	r.path = el->path;
	rec_attrs(&r, &el->st);
	r.pm = *pm;
	if (S_ISLNK(el->st.st_mode)) {
		ssize_t n = readlinkat(el->dirfd, el->name, target, sizeof(target) - 1);
		if (n < 0) {
			if (errno != ENOENT)
				compare_path_failed(c, el->path, -errno, "its target cannot be read");
			return 0;
		}
		target[n] = 0;
		r.target = target;
	}
	el->node->flags |= NF_DIRTY;
	int err = put_rec(c, &r);
	if (err)
		return err;
	buf_clear(&c->xattrs);
	err = xattrs_read(&c->xattrs, -1, el->dirfd, el->name);
	bool any = !err && c->xattrs.len && xattrs_digest(c->xattrs.data, c->xattrs.len) != 0;
	if (err && err != -ENOENT)
		compare_path_failed(c, el->path, err, "its extended attributes cannot be read");
	/* what is new may have inherited an ACL on the standby */
	return any || (!err && !S_ISLNK(el->st.st_mode)) ? op_xattrs(c, el->path) : 0;
}

int op_link(struct compare *c, const char *path, const char *path2, ino_t ino, const struct jtime *pm)
{
	struct jrec r;
	jrec_init(&r, JT_LINK);
	r.ino = ino;
	r.path = path;
	r.path2 = path2;
	r.pm2 = *pm;
	return put_rec(c, &r);
}

int op_setattr(struct compare *c, const char *path, const struct stat *st, uint32_t valid)
{
	struct jrec r;
	jrec_init(&r, JT_SETATTR);
	rec_attrs(&r, st);
	r.path = path;
	r.valid = valid;
	return put_rec(c, &r);
}

int op_xattrs(struct compare *c, const char *path)
{
	struct wop op = {
	    .type = WOP_XATTRS, .path = path, .data = c->xattrs.data, .dlen = (uint32_t)c->xattrs.len};
	return stream_op(c->env.stream, &op);
}

int op_rmtree(struct compare *c, const char *path)
{
	struct wop op = {.type = WOP_RMTREE, .path = path};
	return stream_op(c->env.stream, &op);
}
