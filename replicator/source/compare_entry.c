/* SPDX-License-Identifier: BSD-2-Clause
 * One entry of a comparison: type, attributes, hard links. Contents of regular files are compare_file.c's. */
#include "config.h"
#include "replicator/source/compare_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/xattrs.h"

uint32_t entry_attr_diff(const struct compare *c, const struct stat *st, const struct wattr *old)
{
	uint32_t valid = 0;
	if (!S_ISLNK(st->st_mode) && (st->st_mode & 07777) != (old->mode & 07777))
		valid |= JV_MODE;
	if (!c->env.no_owner && st->st_uid != old->uid)
		valid |= JV_UID;
	if (!c->env.no_owner && st->st_gid != old->gid)
		valid |= JV_GID;
	if (!S_ISSOCK(st->st_mode) &&
	    (st->st_mtim.tv_sec != old->mtime.sec || st->st_mtim.tv_nsec != old->mtime.nsec))
		valid |= JV_MTIME;
	return valid;
}

int entry_fix_attrs(struct compare *c, struct cnode *dir, const char *path, const struct stat *st,
		    uint32_t valid, bool xattrs)
{
	/* A new owner clears setuid bits and capabilities, which may be what they should be: the mode goes along, the attributes come after. */
	bool owner = valid & (JV_UID | JV_GID);
	if (owner && !S_ISLNK(st->st_mode))
		valid |= JV_MODE;
	int err = xattrs ? op_xattrs(c, path) : 0;
	if (!err && valid)
		err = op_setattr(c, path, st, valid);
	if (!err && owner && (xattrs || (S_ISREG(st->st_mode) && xattrs_digest(c->xattrs.data, c->xattrs.len) != 0)))
		err = op_xattrs(c, path);
	return err;
}

/* Read the source's attribute set into c->xattrs. Returns whether it differs from the standby's. */
static bool xattrs_differ(struct compare *c, const struct celt *el)
{
	buf_clear(&c->xattrs);
	int err = xattrs_read(&c->xattrs, el->fd, el->dirfd, el->name);
	if (err) {
		if (err != -ENOENT)
			compare_path_failed(c, el->path, err, "its extended attributes cannot be read");
		return false;
	}
	return xattrs_digest(c->xattrs.data, c->xattrs.len) != el->e.xdigest;
}

static const char *attr_text(uint32_t valid)
{
	return valid & JV_MODE		   ? "mode differs"
	       : valid & (JV_UID | JV_GID) ? "owner differs"
	       : valid & JV_MTIME	   ? "times differ"
					   : "extended attributes differ";
}

/* A directory: make it if it is new, then enter it. */
static int entry_dir(struct compare *c, struct celt *el)
{
	struct cnode *n = el->node, *kid;
	struct cjob *j = n->job;
	unsigned flags = 0;
	if (!el->have) {
		compare_differs(c, el->path, "missing on the standby");
		if (compare_reports(j))
			return 0;
		int err = op_mkdir(c, n, el->path, &el->st);
		if (err)
			return err;
		flags = NF_FRESH;
	} else if (n->flags & NF_SHALLOW || j->flags & CMP_SELF) {
		uint32_t valid = entry_attr_diff(c, &el->st, &el->e.attr);
		bool x = xattrs_differ(c, el);
		if (valid || x)
			compare_differs(c, el->path, attr_text(valid));
		return compare_reports(j) ? 0 : entry_fix_attrs(c, n, el->path, &el->st, valid, x);
	} else if (!(j->flags & CMP_RECURSIVE)) {
		flags = NF_SHALLOW;
	}
	kid = node_new(c, j, n, el->path, flags);
	if (!kid)
		return -ENOMEM;
	/* Directory sizes grow with their entries on the usual file systems. */
	if (el->st.st_size > 4096)
		kid->estimate = el->st.st_size > CMP_WINDOW_BYTES / 3 ? CMP_WINDOW_BYTES : (uint32_t)el->st.st_size * 3;
	node_push(c, kid);
	return 0;
}

/* Symlink, FIFO, socket, device. */
static int entry_special(struct compare *c, struct celt *el, struct link_group *g)
{
	struct cnode *n = el->node;
	const char *what = NULL;
	char target[PATH_MAX + 1];
	if (!el->have) {
		what = "missing on the standby";
	} else if (S_ISLNK(el->st.st_mode)) {
		ssize_t len = readlinkat(el->dirfd, el->name, target, sizeof(target) - 1);
		target[len < 0 ? 0 : len] = 0;
		if (len >= 0 && strcmp(target, el->e.target) != 0)
			what = "link target differs";
	} else if ((S_ISBLK(el->st.st_mode) || S_ISCHR(el->st.st_mode)) && el->st.st_rdev != el->e.rdev) {
		what = "device number differs";
	}
	if (what) {
		compare_differs(c, el->path, what);
		if (compare_reports(n->job))
			return 0;
		if (g) { /* it becomes another inode: its other names are of the old one */
			g->standby = 0;
			g->unsure = true;
		}
		int err = el->have ? op_rmtree(c, el->path) : 0;
		return err ? err : op_special(c, el, &c->scan.mtime);
	}
	uint32_t valid = entry_attr_diff(c, &el->st, &el->e.attr);
	bool x = xattrs_differ(c, el);
	if (valid || x)
		compare_differs(c, el->path, attr_text(valid));
	return compare_reports(n->job) ? 0 : entry_fix_attrs(c, n, el->path, &el->st, valid, x);
}

/* Is the leader's name still this inode at the source? */
static bool leader_holds(struct compare *c, const struct link_group *g)
{
	struct stat st;
	return path_stat(c->env.rootfd, g->path, &st) == 0 && st.st_ino == g->ino && st.st_dev == g->dev;
}

static int put_link(struct compare *c, struct cnode *dir, const struct link_group *g, const char *path,
		    bool replace, const struct jtime *pm)
{
	int err = replace ? op_rmtree(c, path) : 0;
	dir->flags |= NF_DIRTY;
	return err ? err : op_link(c, g->path, path, g->ino, pm);
}

int entry_release_links(struct compare *c, struct link_group *g)
{
	struct link_waiter *w;
	int err = 0;
	g->pending = false;
	while ((w = g->waiters) != NULL && !err) {
		struct cnode *dir = w->dir;
		g->waiters = w->next;
		if (!g->waiters)
			g->tail = &g->waiters;
		struct stat st;
		const char *base;
		struct jtime pm = {0};
		int fd = path_open_parent(c->env.rootfd, w->path, &base);
		if (fd >= 0 && fstat(fd, &st) == 0)
			pm = (struct jtime){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec};
		int seen = fd < 0 ? fd : fstatat(fd, base, &st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
		bool same = !seen && st.st_ino == g->ino;
		if (seen && !compare_gone(seen))
			compare_path_failed(c, w->path, seen, "cannot be linked: it cannot be read");
		if (fd >= 0)
			close(fd);
		if (same && leader_holds(c, g))
			err = put_link(c, dir, g, w->path, w->replace, &pm);
		else if (same)
			err = compare_again(c, w->path, dir->job->flags & CMP_CHECKSUM, E_CHANGED,
					    "its hard links change faster than they can be compared");
		int end = node_kid_done(c, dir);
		err = err ? err : end;
		free(w);
	}
	return err;
}

/* Say whether what was found out about the leader still holds: nothing about the source's inode has changed since (a transfer
 * that failed meanwhile served a change), and its bytes were compared if this name asks for that. */
static bool leader_answers(const struct celt *el, const struct link_group *g)
{
	if (g->pending)
		return true;
	if (el->node->job->flags & CMP_CHECKSUM && !g->checksum)
		return false;
	return el->st.st_ctim.tv_sec == g->changed.tv_sec && el->st.st_ctim.tv_nsec == g->changed.tv_nsec;
}

/* el is compared as the inode's leader. */
static void lead_by(struct celt *el, struct link_group *g)
{
	g->checksum = (el->node->job->flags & CMP_CHECKSUM) != 0;
	g->changed = el->st.st_ctim;
}

/* el is what the standby has under the leader's name. */
static void stands_for(const struct celt *el, struct link_group *g)
{
	g->met = 1;
	g->standby = el->have ? el->e.ino : 0;
	g->unsure = !el->have || el->e.nlink != el->st.st_nlink;
}

/* A further name of an inode whose leader was met. Returns 1 if that settles it, 0 to treat it as a file of
 * its own. */
static int follower(struct compare *c, struct celt *el, struct link_group *g)
{
	struct cnode *n = el->node;
	if (strcmp(g->path, el->path) == 0) { /* the same name again, from another job: the stream may have put another file there */
		lead_by(el, g);
		if (!g->pending)
			stands_for(el, g);
		return 0;
	}
	g->met++;
	if (el->have && g->standby && el->e.ino == g->standby) {
		if (leader_answers(el, g))
			return 1;
		lead_by(el, g);
		return links_lead(g, el->path);
	}
	compare_differs(c, el->path, el->have ? "hard link differs" : "missing on the standby");
	if (compare_reports(n->job))
		return 1;
	if (g->pending) {
		n->kids++;
		n->flags |= NF_DIRTY;
		int err = links_wait(g, el->path, n, el->have);
		return err ? err : 1;
	}
	if (!leader_holds(c, g)) {
		g->standby = 0;
		lead_by(el, g);
		int err = links_lead(g, el->path);
		return err ? err : 0;
	}
	/* two became one: the stream may have brought bytes into this one, and size and mtime into the leader's */
	bool mixed = el->have && !g->checksum;
	int err = put_link(c, n, g, el->path, el->have, &c->scan.mtime);
	if (!err && (mixed || !leader_answers(el, g))) /* it became the leader's file, which has changed since */
		err = compare_add(c, g->path, mixed ? CMP_CHECKSUM : n->job->flags & CMP_CHECKSUM);
	return err ? err : 1;
}

static void suspect(struct compare *c, uint64_t standby)
{
	c->whole = true;
	if (c->nsuspects < SUSPECTS_MAX)
		c->suspects[c->nsuspects] = standby;
	if (c->nsuspects <= SUSPECTS_MAX)
		c->nsuspects++;
}

static bool suspected(const struct compare *c, uint64_t standby)
{
	if (c->nsuspects > SUSPECTS_MAX)
		return true;
	for (uint32_t i = 0; i < c->nsuspects; i++)
		if (c->suspects[i] == standby)
			return true;
	return false;
}

/* Whether they are the source's names is not known. Once, or a file that is always being written to would have everything compared without
 * end. */
void entry_doubt_names(struct compare *c, const struct cjob *j, uint64_t standby)
{
	if (!job_partial(j) || compare_reports(j) || c->ndoubted == SUSPECTS_MAX)
		return;
	for (uint32_t i = 0; i < c->ndoubted; i++)
		if (c->doubted[i] == standby)
			return;
	c->doubted[c->ndoubted++] = standby;
	suspect(c, standby);
}

/* Hard links of the source and of the standby. Returns 1 if the entry is settled, 0 to go on (*out: its
 * group, if it leads one). */
static int meet_links(struct compare *c, struct celt *el, struct link_group **out)
{
	bool strange = false;
	*out = NULL;
	if (el->have && el->e.nlink > 1)
		strange = !links_claim(c->links, el->e.ino, el->st.st_dev, el->st.st_ino) ||
			  (el->st.st_nlink == 1 && job_partial(el->node->job));
	if (strange) { /* linked on the standby with what is another inode here: a file of its own again */
		compare_differs(c, el->path, "hard link differs");
		if (compare_reports(el->node->job))
			return 1;
		suspect(c, el->e.ino);
		int err = op_rmtree(c, el->path);
		if (err)
			return err;
		el->have = false;
		el->node->flags |= NF_DIRTY;
	}
	if (el->st.st_nlink < 2)
		return 0;
	struct link_group *g = links_find(c->links, el->st.st_dev, el->st.st_ino);
	if (g) {
		int r = follower(c, el, g);
		if (r)
			return r;
	} else {
		g = links_add(c->links, el->st.st_dev, el->st.st_ino, el->path);
		if (!g)
			return -ENOMEM;
		g->nlink = (uint32_t)el->st.st_nlink;
		lead_by(el, g);
		stands_for(el, g);
	}
	*out = g;
	return 0;
}

/* A regular file. */
static int entry_file(struct compare *c, struct celt *el, struct link_group *g)
{
	struct cjob *j = el->node->job;
	if (!el->have) {
		compare_differs(c, el->path, "missing on the standby");
		return compare_reports(j) ? 0 : compare_file(c, el, g, 0, false);
	}
	uint32_t valid = entry_attr_diff(c, &el->st, &el->e.attr);
	bool x = xattrs_differ(c, el);
	bool size = (uint64_t)el->st.st_size != el->e.size;
	bool checksum = j->flags & CMP_CHECKSUM || suspected(c, el->e.ino);
	bool bytes = size || valid & JV_MTIME || (checksum && el->st.st_size > 0);
	uint64_t mine = (uint64_t)el->st.st_blocks * 512, theirs = el->e.blocks * 512;
	bool holes = mine < (uint64_t)el->st.st_size && theirs > mine + mine / 4 + (1u << 20);
	if (compare_reports(j) && (size || valid || x || holes) && !(j->flags & CMP_CHECKSUM && !size)) {
		compare_differs(c, el->path,
				size	? "size differs"
				: valid ? attr_text(valid)
				: x	? attr_text(0)
					: "holes differ");
		return 0;
	}
	if (g && el->e.nlink > 1 && (size || valid || x))
		entry_doubt_names(c, j, el->e.ino);
	if (bytes || holes)
		return compare_file(c, el, g, valid, x);
	if (valid || x)
		compare_differs(c, el->path, attr_text(valid));
	return compare_reports(j) ? 0 : entry_fix_attrs(c, el->node, el->path, &el->st, valid, x);
}

static int by_type(struct compare *c, struct celt *el)
{
	struct link_group *g = NULL;
	if (el->have && (el->st.st_mode & S_IFMT) != (el->e.attr.mode & S_IFMT)) {
		compare_differs(c, el->path, "type differs");
		if (compare_reports(el->node->job))
			return 0;
		int err = S_ISDIR(el->e.attr.mode) ? del_instead(c, el) : 0;
		if (err)
			return err < 0 ? err : 0;
		err = op_rmtree(c, el->path);
		if (err)
			return err;
		el->have = false;
		el->node->flags |= NF_DIRTY;
	}
	if (S_ISDIR(el->st.st_mode))
		return entry_dir(c, el);
	if (el->st.st_nlink > 1 || (el->have && el->e.nlink > 1)) {
		int r = meet_links(c, el, &g);
		if (r)
			return r < 0 ? r : 0;
	}
	return S_ISREG(el->st.st_mode) ? entry_file(c, el, g) : entry_special(c, el, g);
}

int entry_process(struct compare *c, struct celt *el)
{
	int err = by_type(c, el);
	if (el->fd >= 0)
		close(el->fd);
	return err;
}
