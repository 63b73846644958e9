/* SPDX-License-Identifier: BSD-2-Clause
 * Which names of the source are one inode, and which inodes of the standby they became. Holds inodes with
 * several links only. */
#ifndef TANDEM_HARDLINKS_H
#define TANDEM_HARDLINKS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* A name that waits until its leader's content was sent. */
struct link_waiter {
	struct link_waiter *next;
	void *dir;    /* the caller's: the directory that waits for it */
	bool replace; /* the standby has another entry of this name */
	char path[];
};

/* One inode of the source with several links. */
struct link_group {
	struct link_group *next; /* in its bucket */
	dev_t dev;
	ino_t ino;
	uint32_t nlink;	  /* of the source, when last met */
	uint32_t met;	  /* names met so far */
	uint64_t standby; /* inode the leader is on the standby; 0: not known (just sent) */
	bool pending;	  /* the leader's content is not sent yet */
	bool unsure; /* the standby's links do not look complete: if met < nlink at the end, other names must
			be searched */
	bool checksum;		 /* its bytes were compared, not size and mtime alone */
	struct timespec changed; /* st_ctim of the source's inode when its leader was met */
	char *path;  /* the leader: the first name met, or the one that was compared last */
	struct link_waiter *waiters, **tail;
};

struct links;

struct links *links_new(void);
void links_free(struct links *l);
/* Find the group of an inode. NULL: none yet. */
struct link_group *links_find(const struct links *l, dev_t dev, ino_t ino);
/* Make a group with path as its leader. NULL: out of memory. */
struct link_group *links_add(struct links *l, dev_t dev, ino_t ino, const char *path);
/* Make path the leader. Returns 0 or -ENOMEM. */
int links_lead(struct link_group *g, const char *path);
/* Append a waiting name. Returns 0 or -ENOMEM. */
int links_wait(struct link_group *g, const char *path, void *dir, bool replace);
/* Tell that standby inode was met as the source's inode. Returns false if it stands for another inode of the
 * source already. */
bool links_claim(struct links *l, uint64_t standby, dev_t dev, ino_t ino);
/* Say whether a group is unsure and has names that were not met. */
bool links_incomplete(const struct links *l);
/* Number of groups. */
uint32_t links_count(const struct links *l);

#endif
