/* SPDX-License-Identifier: BSD-2-Clause
 * The one object of the mount process and what every file of fs/ needs. See fs/DESIGN.md. */
#ifndef TANDEM_FS_TANDEMFS_H
#define TANDEM_FS_TANDEMFS_H

#include "config.h"

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "fs/journal.h"
#include "fs/stay.h"
#include "fs/tree.h"
#include "proto/mirror.h"
#include "proto/path.h"

struct checkpoint;
struct inflight;
struct control;
struct dirty;
struct recover;
struct uring;
struct uring_server;
struct silly;

/* What is being removed, and may free its number before that is recorded (victim.h). */
struct victims {
	pthread_mutex_t lock;
	pthread_cond_t recorded;
	LIST_HEAD(, victim) list;
};

struct tfs {
	/* immutable once the session loop runs */
	const struct mirror *mirror;
	int rootfd;                /* the source root, O_RDONLY directory opened before mounting */
	int statefd;               /* "<state dir>/<name>" */
	int journalfd;             /* its journal/ */
	struct fuse_session *se;
	double entry_timeout;      /* seconds */
	double attr_timeout;       /* seconds; of directories: op_attr_time */
	bool exclusive;            /* we are the only writer of the directory below */
	bool nfs;                  /* the directory below is NFS: a removed file that is open keeps a name (path_name_silly) */
	bool remote;               /* the directory below is NFS, CIFS or FUSE: close reports errors, callers' ids count */
	bool privileged;           /* may change ids: root */
	_Atomic bool killpriv;     /* the kernel leaves suid, sgid and file capabilities to us (HANDLE_KILLPRIV_V2) */
	bool want_uring;           /* ask for FUSE over io_uring */
	_Atomic bool uring;        /* requests come through io_uring */
	uint64_t offered;          /* the kernel's flags while it is answered FUSE_INIT, else 0 */
	struct uring *queues;      /* our own queues of io_uring, NULL without */
	uint32_t generation;       /* of every inode but the root: handles of an earlier mount are stale */
	char source_id[33];        /* hex */
	pthread_key_t worker_key;  /* struct worker of a thread */
	struct stay stay;          /* the threads of queues of io_uring; has its own lock, a leaf */
	struct journal *journal;   /* has its own lock, the innermost */
	struct inflight *inflight; /* has its own lock, a leaf */
	struct victims victims;    /* has its own lock, a leaf */
	struct tree tree;          /* tree.lock, the outermost */
	struct dirty *dirty;       /* its list is protected by tree.lock */
	struct control *control;
	struct recover *recover;
	struct checkpoint *checkpoint;
	struct silly *silly;       /* NULL unless nfs; its members are protected by tree.lock */
};

/* What a thread of the session keeps: the ids it runs with and scratch memory. */
struct worker {
	struct tfs *fs;
	uid_t fsuid;               /* as last set */
	gid_t fsgid;
	bool limited;              /* CAP_SYS_RESOURCE is given up (cred_space) */
	mode_t umask;              /* as last set; the thread has its own (CLONE_FS is unshared) */
	uint64_t look;             /* tree.changes before it looked at something (drift.h) */
	struct inode *changing[2]; /* what the operation it has noted changes; NULL: nothing */
	struct stay_seat seat;
	int op;                    /* its slot in the in-flight table, -1 when that is full */
	struct uring_server *server; /* the queue entry it serves; NULL: it reads /dev/fuse, or serves nobody */
	char *iobuf;               /* for reads, grown on demand */
	size_t iosize;             /* bytes of iobuf */
	struct jrec rec;           /* the record being made */
	char path[PATH_LONGEST + 1];
	char path2[PATH_LONGEST + 1];
};

static inline struct tfs *tfs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* This thread's worker, made at its first call. NULL when memory is out. */
struct worker *worker_get(struct tfs *fs);
/* A thread ends: free its worker. Registered with the key. */
void worker_free(void *w);

/* Serve the mirror: the body of the worker process. readyfd gets one byte when the mount answers.
 * Returns the process's exit status. */
int worker_run(const struct mirror *m, int rootfd, int statefd, int readyfd);

#endif
