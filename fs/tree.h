/* SPDX-License-Identifier: BSD-2-Clause
 * The inode table: which inodes the kernel remembers, and by which names they can be reached.
 *
 * An inode is (device, inode number). It holds no descriptor; its names are (parent, name) pairs, so
 * that the two names of a hard link are one inode, and a path can be built at any instant.
 * Life of an inode: entered by LOOKUP, READDIRPLUS, CREATE ... (nlookup > 0) -> the kernel forgets it
 * (nlookup 0) -> freed, with its names, when nothing below it or in our own threads refers to it.
 * An inode whose last name was removed while the kernel remembers it keeps an O_PATH descriptor until
 * then, because no path leads to it any more.
 *
 * Invariants while tree.lock is free:
 *  - every inode with nlookup > 0, kids > 0 or pins > 0 is in its slot, and no other is;
 *  - an inode is in the (dev, ino) hash unless it is stale (the number was reused by a new inode);
 *  - a dentry is in the name hash, in its inode's list, and counted in its parent's kids;
 *  - a name (parent, name) belongs to at most one inode;
 *  - following names upwards from any named inode ends at the root, or at a directory without a name. */
#ifndef TANDEM_FS_TREE_H
#define TANDEM_FS_TREE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/types.h>

struct inode;
struct iopen;

#define DIRFD_MAX 512 /* directory descriptors kept */

/* A directory's descriptor in the LRU. All members belong to tree.lock. */
struct dirfd {
	TAILQ_ENTRY(dirfd) lru; /* linked while not keep */
	struct inode *inode;
	int fd;                 /* O_PATH */
	unsigned pins;          /* users; not closed while > 0 */
	bool keep;              /* the root, or a removed directory: never evicted */
};

/* One name of an inode. All members belong to tree.lock. */
struct dentry {
	struct dentry *hnext; /* name hash chain */
	struct dentry *next;  /* other names of the inode */
	struct inode *parent;
	struct inode *inode;
	uint32_t hash;
	char name[];
};

/* What an inode was like when last seen (drift.h). All members belong to tree.lock. */
struct seen {
	int64_t mtime;       /* ns */
	uint64_t size;       /* bytes */
	uint64_t ours;       /* tree.changes after the last change of our own */
	uint32_t mode, uid, gid;
	uint16_t busy;       /* changes of our own under way or not journaled */
	bool known;
	bool mixed;          /* several of ours overlapped */
};

struct inode {
	/* immutable */
	uint64_t ino;          /* st_ino */
	uint64_t dev;          /* st_dev */
	uint32_t slot;         /* low half of the node id */
	uint32_t gen;          /* high half of the node id: slots are reused, node ids are not */
	/* tree.lock */
	struct inode *hnext;   /* (dev, ino) hash chain */
	struct dentry *names;  /* NULL: none known */
	struct dirfd *dir;     /* cached descriptor of a directory */
	struct iopen *open;    /* open handles and dirty extents; NULL while idle */
	uint64_t nlookup;      /* what the kernel remembers */
	uint32_t kids;         /* dentries that have it as parent */
	uint32_t pins;         /* our own threads' references */
	_Atomic uint32_t mode; /* st_mode as last seen; read without the lock */
	int fd;                /* O_PATH, kept for a removed non-directory; -1 */
	struct seen seen;      /* with shared source */
	bool hashed;
	bool watched;          /* a directory of silly.h */
	_Atomic bool gone;     /* its last name was removed, although NFS may keep it under another one: it has no links */
	_Atomic bool priv;     /* may carry suid, sgid or file capabilities: writes must strip them */
};

struct slot {
	struct inode *inode; /* NULL: free */
	uint32_t gen;        /* of the present or last inode */
	uint32_t next;       /* free list */
};

#define SLOT_CHUNK 4096

struct tree {
	pthread_mutex_t lock;
	/* protected by lock */
	struct inode **ihash;
	struct dentry **dhash;
	size_t isize, dsize;       /* buckets, powers of two */
	size_t ninodes, ndentries;
	size_t peak;               /* ninodes since the last trim */
	struct slot **chunks;      /* grown under lock; a chunk never moves */
	size_t nchunks;
	uint32_t freeslot;         /* 0: none */
	TAILQ_HEAD(dirfd_list, dirfd) lru; /* most recently used first */
	unsigned ndirfds;
	unsigned renaming;         /* renames that may be done below and are not in the table yet */
	uint64_t renamed;          /* how many ended */
	pthread_cond_t settled;    /* one ended, or the last change of our own to an inode (drift.h) */
	/* without lock */
	_Atomic uint64_t changes;  /* changes of our own that have ended (drift.h) */
	/* immutable */
	struct inode *root;
	uint64_t hseed;
	bool remember;             /* an inode that has a name is not freed: an NFS server's handles stay valid */
};

/* Begin with the root alone. rootfd is borrowed and must stay open. Returns 0 or -errno. */
int tree_init(struct tree *t, int rootfd);
void tree_release(struct tree *t);

/* The inode of a node id the kernel holds a reference on. No lock needed: a slot's chunk never moves and
 * the inode lives while the kernel remembers it. */
struct inode *tree_get(struct tree *t, uint64_t nodeid);
/* The same for a node id that may be stale (file handles of an NFS server). NULL if it is not remembered. */
struct inode *tree_find_locked(struct tree *t, uint64_t nodeid);
uint64_t tree_nodeid(const struct tree *t, const struct inode *i);

/* What stands at (parent, name), or NULL when it is not remembered. */
struct inode *tree_child_locked(struct tree *t, struct inode *parent, const char *name);
/* Record that st was found at (parent, name) and count one lookup. fresh: it was made by us just now, so
 * a remembered inode of the same number is another, dead one. *moved (may be NULL) is set when the name
 * belonged to another inode before. Returns the inode or NULL (memory). */
struct inode *tree_enter_locked(struct tree *t, struct inode *parent, const char *name, const struct stat *st,
    bool fresh, bool *moved);
/* Add an inode without a name (O_TMPFILE) and count one lookup. */
struct inode *tree_enter_anon_locked(struct tree *t, const struct stat *st);
/* Give i one more name. Returns 0 or -ENOMEM. */
int tree_name_locked(struct tree *t, struct inode *i, struct inode *parent, const char *name);
/* Forget the name (parent, name), if known. */
void tree_unname_locked(struct tree *t, struct inode *parent, const char *name);
/* (parent, name) became (newparent, newname), replacing what was there. Returns 0 or -ENOMEM. */
int tree_move_locked(struct tree *t, struct inode *parent, const char *name, struct inode *newparent, const char *newname);
/* The two names exchanged their inodes. Returns 0 or -ENOMEM. */
int tree_swap_locked(struct tree *t, struct inode *p1, const char *n1, struct inode *p2, const char *n2);
/* A rename below begins; is in the table, or failed. */
void tree_rename_begin(struct tree *t);
void tree_rename_end_locked(struct tree *t);
/* A name does not lead to its inode: if a rename is under way wait until one ends, for it may be why. */
void tree_await_rename_locked(struct tree *t);
/* Take note of a fresh stat. */
void tree_saw(struct inode *i, const struct stat *st);

/* Build the path of (dir, name), or of dir itself when name is NULL, into out (PATH_LONGEST + 1 bytes).
 * Returns its length, -ENOENT when an ancestor has no name, or E_LIMIT. */
int tree_path_locked(struct tree *t, struct inode *dir, const char *name, char *out);

/* The kernel forgets n lookups. */
void tree_forget(struct tree *t, struct inode *i, uint64_t n);
/* Our own references. unpin may free the inode. */
void tree_pin_locked(struct inode *i);
void tree_unpin_locked(struct tree *t, struct inode *i);
/* Return unused memory to the system if much was forgotten. */
void tree_trim(struct tree *t);

/* dirfd.c: descriptors of directories, from the nearest cached ancestor downwards. */

/* Pin a descriptor of directory i. Returns 0 and *out, or -errno (-ESTALE: it was moved or removed behind
 * our back). May make system calls; call without the lock. */
int dirfd_get(struct tree *t, struct inode *i, struct dirfd **out);
void dirfd_put(struct tree *t, struct dirfd *d);
/* Keep fd (taken) as the descriptor of a removed directory. */
void dirfd_keep_locked(struct tree *t, struct inode *i, int fd);
/* Close an inode's descriptor when the inode goes. */
void dirfd_drop_locked(struct tree *t, struct inode *i);

#endif
