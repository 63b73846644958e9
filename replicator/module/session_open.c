/* SPDX-License-Identifier: BSD-2-Clause
 * From an authenticated connection to WELCOME: which module, may this peer, is the disk there, whose is it,
 * where did we stop. Every answer that is no names the cause and the remedy. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/hex.h"
#include "proto/log.h"
#include "proto/path.h"
#include "replicator/module/session_int.h"

#define MOTD_MAX    4096u
#define TAKEOVER_MS 8000 /* how long the connection that is replaced may take to end */

static void __attribute__((format(printf, 3, 4))) no(struct session *s, uint32_t code, const char *fmt, ...)
{
	va_list ap;
	if (s->refuse_code)
		return;
	s->refuse_code = code;
	va_start(ap, fmt);
	vsnprintf(s->refuse_text, sizeof(s->refuse_text), fmt, ap);
	va_end(ap);
}

int session_wall(const struct session_env *env)
{
	char why[512];
	for (size_t i = 0; i < env->mc->nmodules; i++) {
		const struct module_conf *m = &env->mc->modules[i];
		if (m->create_path && mkdir(m->path, 0755) == 0)
			log_info("made %s", m->path);
	}
	int err = confine_early(env->mc, env->stdir, why, sizeof(why));
	if (err)
		log_error("confinement before the handshake failed: %s", why);
	return err;
}

void session_prepare(struct session *s)
{
	const struct module_conf *m = s->m;
	uint32_t busy = session_ask(s, ASK_MODULE);
	if (busy)
		no(s, busy,
		   "max connections of module [%s] or of the daemon are reached, or the daemon is stopping: "
		   "end other "
		   "connections or raise max connections",
		   m->name);
	if (!hosts_allowed(&m->allow, &m->deny, s->env.addr))
		no(s, WR_ADDRESS, "address %s is not allowed for module [%s]: add it to \"hosts allow\"%s",
		   s->env.peer, m->name,
		   m->allow.n ? "" : " or remove it from \"hosts deny\" (denied there)");
	s->rootfd = open(m->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->rootfd < 0)
		no(s, errno == EACCES ? WR_PERMISSION : WR_NO_DISK,
		   "directory %s of module [%s] cannot be opened: %s; is its disk mounted?", m->path, m->name,
		   err_text(-errno));
	s->statefd = state_open(s->env.stdir, m->name);
	if (s->statefd < 0)
		no(s, WR_OTHER, "the state file of module [%s] cannot be opened in the state directory: %s",
		   m->name, err_text(s->statefd));
	close(s->env.stdir);
	s->env.stdir = -1;
}

/* --- the private directory --- */

static int open_dir(int at, const char *name, bool make)
{
	if (make && mkdirat(at, name, 0700) && errno != EEXIST)
		return -errno;
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd; /* cppcheck-suppress resourceLeak ; it is returned */
}

/* Nothing of the parent directory (set-group-id, default ACL) may pass to what is built inside. */
static void make_plain(int fd)
{
	fremovexattr(fd, "system.posix_acl_default");
	fremovexattr(fd, "system.posix_acl_access");
	fchmod(fd, 0700);
}

static int open_private(struct session *s)
{
	struct stat st;
	struct timespec back[2] = {{.tv_nsec = UTIME_OMIT}};
	bool restore = fstat(s->rootfd, &st) == 0;
	s->dirfd = open_dir(s->rootfd, PATH_PRIVATE, true);
	if (s->dirfd < 0)
		return s->dirfd;
	make_plain(s->dirfd);
	s->tmpfd = open_dir(s->dirfd, "tmp", true);
	s->redofd = open_dir(s->dirfd, "redo", true);
	back[1] = st.st_mtim;
	if (restore)
		futimens(s->rootfd, back);
	if (s->tmpfd < 0 || s->redofd < 0)
		return s->tmpfd < 0 ? s->tmpfd : s->redofd;
	make_plain(s->tmpfd);
	s->lockfd = openat(s->dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return s->lockfd < 0 ? -errno : 0;
}

/* Say whether the module holds anything of its own already. */
static bool has_files(int rootfd)
{
	bool found = false;
	int fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return false;
	for (struct dirent *e; !found && (e = readdir(d));)
		found = strcmp(e->d_name, ".") && strcmp(e->d_name, "..") &&
			strcmp(e->d_name, PATH_PRIVATE) && strcmp(e->d_name, "lost+found");
	closedir(d);
	return found;
}

/* --- whose module --- */

/* Compare marker and state (marker.h). Changes nothing. *have: there is a marker. */
static uint32_t check_identity(struct session *s, const struct whello *h, struct module_state *st, bool *have,
			       bool *unclean)
{
	const struct module_conf *m = s->m;
	char ours[9], theirs[9]; /* the first digits tell them apart */
	int private = open_dir(s->rootfd, PATH_PRIVATE, false);
	int marker = private < 0 ? private : marker_read(private, &s->id);
	int state = state_read(s->statefd, st);
	if (private >= 0)
		close(private);
	if (marker && marker != -ENOENT) {
		no(s, marker == -EACCES ? WR_PERMISSION : WR_NO_DISK,
		   "marker %s/.tandem/marker of module [%s] cannot be read as %s: %s%s", m->path, m->name,
		   s->m->who, err_text(marker),
		   marker == -EACCES ? "; chown -R .tandem to that user" : "");
		return s->refuse_code;
	}
	*have = !marker;
	if (marker && !state) {
		no(s, WR_NO_DISK,
		   "module [%s] had its marker at %s/.tandem/marker and lost it: is the disk mounted? If the "
		   "directory was "
		   "emptied on purpose, remove the module's file in the state directory and it begins anew",
		   m->name, m->path);
	} else if (!marker && !state && strcmp(st->id.module_id, s->id.module_id) != 0) {
		no(s, WR_NO_DISK,
		   "%s carries the marker of another module than [%s] had: is the right disk mounted there? "
		   "If it was "
		   "replaced on purpose, remove the module's file in the state directory",
		   m->path, m->name);
	} else if (!marker && memcmp(s->id.source_id, h->source_id, 16) != 0) {
		hex_put(ours, s->id.source_id, 4);
		hex_put(theirs, h->source_id, 4);
		no(s, WR_FOREIGN,
		   "module [%s] belongs to source %s, and this is source %s (mirror \"%.64s\"): two sources "
		   "cannot share a "
		   "module. Use another module; to hand it over, remove %s/.tandem/marker and the module's "
		   "file in the state directory",
		   m->name, ours, theirs, h->mirror, m->path);
	}
	if (!marker && state) {
		log_warn("the state of module [%s] is missing: taken over from its marker, recent changes "
			 "are compared again",
			 m->name);
		*unclean = true;
	}
	return s->refuse_code;
}

/* Wait until the child that holds the module has ended. */
static int await_lock(struct session *s)
{
	int64_t until = session_now() + TAKEOVER_MS;
	while (flock(s->lockfd, LOCK_EX | LOCK_NB)) {
		struct timespec nap = {.tv_nsec = 10000000};
		if (session_now() >= until)
			return -EBUSY;
		nanosleep(&nap, NULL);
	}
	return 0;
}

static int take_lock(struct session *s, bool replace)
{
	if (flock(s->lockfd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return !replace || session_ask(s, ASK_TAKEOVER) ? -EBUSY : await_lock(s);
}

static int begin_identity(struct session *s, const struct whello *h, struct module_state *st, bool have,
			  bool *adopted)
{
	int err = 0;
	*adopted = false;
	if (!have) {
		*adopted = has_files(s->rootfd);
		err = marker_create(s->dirfd, &s->id, h->source_id);
		memset(st, 0, sizeof(*st));
		log_info("first contact: module [%s] is %s now%s", s->m->name, s->id.module_id,
			 *adopted ? "; the files in it are adopted and compared" : "");
	}
	st->id = s->id;
	return err ? err : state_write(s->statefd, st);
}

/* --- where did we stop --- */

/* Bring position and appliers up. Fills flags and positions of w. */
static int begin_position(struct session *s, const struct module_state *st, bool adopted, bool unclean,
			  struct wwelcome *w)
{
	bool torn, settle;
	struct apply_env env;
	struct position_page *page = &s->page;
	int err = position_open(page, s->dirfd, s->env.boot, &torn, &settle);
	if (err)
		return err;
	if (adopted)
		page->now.flags |= POSITION_ADOPTED;
	session_env_init(s, &env);
	err = apply_init(&s->apply, &env, s->dirfd, s->redofd, settle, torn && !settle);
	s->applying = true;
	if (err)
		return err;
	const struct wpos *pos = &page->now.pos;
	if (memcmp(st->pos.journal_id, pos->journal_id, 16) == 0 && st->pos.epoch == pos->epoch &&
	    st->pos.seq > pos->seq) {
		log_warn("module [%s] stands at record %llu and had reached %llu: restored from a backup? "
			 "What changed since is compared "
			 "again",
			 s->m->name, (unsigned long long)pos->seq, (unsigned long long)st->pos.seq);
		unclean = true;
	}
	if (settle && (syncfs(s->rootfd) || position_save(s->dirfd, &page->now)))
		return -errno;
	bool fresh = memcmp(pos->journal_id, (uint8_t[16]){0}, 16) == 0;
	w->flags = (fresh ? WW_FRESH : 0) | (page->now.flags & POSITION_ADOPTED ? WW_ADOPTED : 0) |
		   (torn || unclean ? WW_UNCLEAN : 0) |
		   (page->now.flags & POSITION_RESYNC ? WW_RESYNC : 0) |
		   (s->confined.no_owner ? WW_NO_OWNER : 0);
	w->applied = w->durable = *pos;
	w->noutstanding = page->now.nout;
	w->outstanding = page->now.out;
	s->durable = s->acked_durable = pos->seq;
	syncer_activate(&s->syncer, s->rootfd, s->dirfd, s->statefd, &s->id, &s->apply.redo, &page->now);
	return 0;
}

static void welcome(struct session *s, struct wwelcome *w)
{
	char *motd = NULL;
	size_t n;
	w->version = CONN_VERSION;
	w->window = SESSION_WINDOW;
	w->motd = "";
	if (s->motdfd >= 0 && (motd = calloc(1, MOTD_MAX + 1))) {
		ssize_t got = pread(s->motdfd, motd, MOTD_MAX, 0);
		n = got > 0 ? strnlen(motd, (size_t)got) : 0;
		motd[n] = 0;
		w->motd = motd;
	}
	if (!w->module_id)
		w->module_id = "";
	buf_clear(&s->reply);
	wwelcome_put(&s->reply, w);
	session_send(s, FT_WELCOME, COMPRESS_NONE);
	free(motd);
}

static void notice(struct session *s, const char *text)
{
	buf_clear(&s->reply);
	buf_put_str(&s->reply, text);
	session_send(s, FT_NOTICE, COMPRESS_NONE);
}

static void replicate(struct session *s, const struct whello *h)
{
	struct module_state st;
	struct wwelcome w = {.module_id = s->id.module_id};
	bool have = false, unclean = false, adopted;
	char text[256];
	if (s->right == USER_RO || (s->right == USER_DEFAULT && s->m->read_only)) {
		session_refuse(s, WR_READ_ONLY,
			       "module [%s] is read only for user \"%s\": set \"read only = no\" in the "
			       "module, or auth users "
			       "= %s:rw",
			       s->m->name, s->user, s->user);
		return;
	}
	if (check_identity(s, h, &st, &have, &unclean)) {
		session_refuse(s, s->refuse_code, "%s", s->refuse_text);
		return;
	}
	int err = open_private(s);
	if (!err && (err = take_lock(s, have))) {
		session_refuse(s, WR_BUSY, "module [%s] is in use by another connection", s->m->name);
		return;
	}
	if (!err)
		err = begin_identity(s, h, &st, have, &adopted);
	if (!err)
		err = begin_position(s, &st, adopted, unclean, &w);
	if (err) {
		uint32_t code = err == -ENOSPC || err == -EDQUOT  ? WR_NO_SPACE
				: err == -EROFS			  ? WR_READ_ONLY_FS
				: err == -EACCES || err == -EPERM ? WR_PERMISSION
				: err == -EIO			  ? WR_IO
								  : WR_OTHER;
		session_refuse(s, code, "module [%s]: %s/.tandem cannot be used as %s: %s", s->m->name,
			       s->m->path, s->m->who, err_text(err));
		return;
	}
	s->state = SS_REPLICATE;
	welcome(s, &w);
	if (s->confined.no_owner) {
		snprintf(text, sizeof(text), "owners are not kept: the module runs as %s", s->m->who);
		notice(s, text);
	}
	log_info("user %s from %s replicates mirror \"%.64s\" into [%s], from record %llu%s%s", s->user,
		 s->env.peer, h->mirror, s->m->name, (unsigned long long)w.applied.seq,
		 w.flags & WW_FRESH ? " (new)" : "",
		 w.flags & WW_UNCLEAN ? " (recent changes are compared)" : "");
}

void session_hello(struct session *s, struct buf *payload)
{
	struct whello h;
	struct wwelcome w = {.module_id = ""};
	if (whello_get(payload, &h)) {
		session_refuse(s, WR_PROTOCOL, "HELLO cannot be understood");
		return;
	}
	if (h.version != CONN_VERSION) {
		session_refuse(
		    s, WR_VERSION,
		    "the source speaks protocol version %u, this daemon %u: install the same version",
		    h.version, CONN_VERSION);
		return;
	}
	if (s->refuse_code) {
		session_refuse(s, s->refuse_code, "%s", s->refuse_text);
		return;
	}
	if (h.mode == 2) {
		s->state = SS_LIST;
		s->list_by = session_now() + SESSION_HANDSHAKE_MS;
		welcome(s, &w);
	} else if (!s->m) {
		session_refuse(s, WR_PROTOCOL, "no module was named: write tandem://USER@HOST/MODULE");
	} else {
		replicate(s, &h);
	}
}

/* --- without a connection --- */

/* Say whether there are redo logs, or modes to be put back. */
static bool is_left(int rootfd)
{
	int dirfd = open_dir(rootfd, PATH_PRIVATE, false);
	int fd = dirfd < 0 ? -1 : open_dir(dirfd, "redo", false);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	bool found = dirfd >= 0 && reach_is_left(dirfd);
	for (struct dirent *e; d && !found && (e = readdir(d));)
		found = e->d_name[0] != '.';
	if (d)
		closedir(d);
	if (dirfd >= 0)
		close(dirfd);
	return found;
}

/* Position and directories stay as they are found: the next connection treats them as after any kill. */
static int mend(struct session *s)
{
	bool torn, settle;
	struct apply_env env;
	int err = open_private(s);
	if (!err && await_lock(s)) /* a child that is being killed holds it for a moment; one that serves has finished the logs */
		return 0;
	if (!err)
		err = position_open(&s->page, s->dirfd, s->env.boot, &torn, &settle);
	if (err)
		return err;
	session_env_init(s, &env);
	err = apply_init(&s->apply, &env, s->dirfd, s->redofd, settle, torn && !settle);
	if (s->apply.redo.replayed)
		log_info("module [%s]: %u changed in place when their connection ended: complete", s->m->name,
			 s->apply.redo.replayed);
	apply_release(&s->apply);
	position_close(&s->page);
	return err;
}

int session_mend(const struct session_env *env, const struct module_conf *m)
{
	char why[512] = "";
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return 1;
	s->env = *env;
	s->m = m;
	s->dirfd = s->tmpfd = s->redofd = s->lockfd = -1;
	auth_free(env->auth);
	close(env->parent);
	int err = session_wall(env);
	close(env->stdir);
	s->rootfd = open(m->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->rootfd < 0 || !is_left(s->rootfd)) {
		free(s);
		return 0;
	}
	if (!err)
		err = confine_enter(m, s->rootfd, &s->confined, why, sizeof(why));
	if (!err)
		err = confine_syscalls(&s->confined);
	if (!err)
		err = mend(s);
	if (err)
		log_warn("module [%s]: what an ended connection left half made is not complete yet: %s; the next connection tries again",
			 m->name, *why ? why : err_text(err));
	free(s);
	return err ? 1 : 0;
}
