/* SPDX-License-Identifier: BSD-2-Clause
 * What its owner has no permission for. The source's root writes into a directory of mode 0555 and reads a file of mode 0; a module's
 * uid that is not root may not, although both are its own on the standby. So for the time of one operation the owner
 * gets the permission, and the mode is put back behind it: directories on the way and what is named get u+rwx, files u+rw.
 *
 * Who is killed meanwhile leaves a symlink reach.N in .tandem, whose target is "MODE PATH": a name and its target are one change of
 * the file system, and older than the mode in its log. reach_recover puts those modes back. */
#ifndef TANDEM_MODULE_REACH_H
#define TANDEM_MODULE_REACH_H

#include <stdbool.h>
#include <sys/types.h>

#define REACH_MAX 64 /* modes changed at a time */

struct reach {
	int rootfd, dirfd, tmpfd; /* the module, .tandem, .tandem/tmp; borrowed */
	unsigned n;
	struct {
		int fd; /* owned */
		mode_t was, now;
	} v[REACH_MAX];
};

/* Begin; nothing is changed yet. */
void reach_init(struct reach *r, int rootfd, int dirfd, int tmpfd);
/* Get the permission for everything on the way to path, and for what is there. May be called for several paths. Returns 1 if anything was
 * changed, 0 if not (-EACCES then has another cause), or -errno. */
int reach_for(struct reach *r, const char *path);
/* An operation has given what is at path its mode, which may be the one that reach_for gave it: it is not put back. */
void reach_leave(struct reach *r, const char *path);
/* Put back what was changed since r->n was n, where the mode is still as reach_for left it: an operation may have set another one. */
void reach_back(struct reach *r, unsigned n);
/* Put back all of it. */
void reach_end(struct reach *r);
/* Say whether a child that was killed left anything changed. */
bool reach_is_left(int dirfd);
/* Put back what a child that was killed left changed. */
void reach_recover(int rootfd, int dirfd, int tmpfd);

#endif
