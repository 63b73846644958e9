/* SPDX-License-Identifier: BSD-2-Clause
 * The life of one connection.
 *
 *   early wall  the process gives up what no module of this daemon needs (confine.h)
 *   handshake   greeting and TLS; the peer proves that it knows a user's password
 *   second wall the process gives up what this module does not need; only then bytes of the peer beyond TLS are read
 *   HELLO       what the peer wants; answered by WELCOME or REFUSE (session_open.c)
 *   welcomed    frames are taken from the queue in order. A LIST or SUMS that takes long is answered piece by piece, and BATCH frames
 *               behind it are not held up; another LIST or SUMS waits for its end
 *   end         the peer closed, broke the protocol, was silent for too long, or the parent said so. What was applied is synced, and the
 *               position marked clean */
#include "config.h"

#include <unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/hex.h"
#include "proto/log.h"
#include "proto/path.h"
#include "replicator/module/session_int.h"

#define QUEUE_HIGH ((size_t)1 << 20) /* bytes to send beyond which jobs wait */
#define ACK_EVERY  (1u << 20) /* bytes of batches after which an ACK is due even if more batches wait */
#define HOLD_MIN   200	      /* ms */
#define HOLD_MAX   2000

/* Frames that may come in each state; PING and PONG are answered by the link in all but SS_HELLO. */
static const uint32_t allowed[SS_COUNT] = {
    [SS_HELLO] = 1u << FT_HELLO,
    [SS_LIST] = 1u << FT_MODULES,
    [SS_REPLICATE] = 1u << FT_MODULES | 1u << FT_LIST | 1u << FT_SUMS | 1u << FT_BATCH | 1u << FT_SYNC,
    [SS_END] = 0,
};

/* --- what the applier needs --- */

static void on_fail(void *arg, const struct wfail *f)
{
	struct session *s = arg;
	log_debug("record %llu: %s", (unsigned long long)f->seq, f->text);
	buf_clear(&s->reply);
	wfail_put(&s->reply, f);
	session_send(s, FT_FAIL, COMPRESS_NONE);
}

static int over(struct session *s)
{
	return s->closed ? s->closed : s->stop ? E_CLOSED : 0;
}

static int on_hold(void *arg, uint32_t code, int sys_errno, const char *path, const char *text)
{
	struct session *s = arg;
	if (!s->held || s->held_code != code) {
		struct wfail f = {
		    .code = code, .sys_errno = sys_errno, .path = path, .path2 = "", .text = text};
		log_warn("applying waits: %s; it goes on by itself once this is cured", text);
		buf_clear(&s->reply);
		wfail_put(&s->reply, &f);
		session_send(s, FT_HOLD, COMPRESS_NONE);
		s->hold_ms = HOLD_MIN;
	}
	s->held = true;
	s->held_code = code;
	int64_t until = session_now() + s->hold_ms;
	s->hold_ms = s->hold_ms * 2 > HOLD_MAX ? HOLD_MAX : s->hold_ms * 2;
	for (int64_t left; !over(s) && (left = until - session_now()) > 0;)
		session_wait(s, (int)left);
	return over(s);
}

static void on_unhold(void *arg)
{
	struct session *s = arg;
	struct wfail f = {.path = "", .path2 = "", .text = ""};
	log_info("applying goes on");
	s->held = false;
	buf_clear(&s->reply);
	wfail_put(&s->reply, &f);
	session_send(s, FT_HOLD, COMPRESS_NONE);
}

static int on_tick(void *arg)
{
	struct session *s = arg;
	if (s->state == SS_REPLICATE)
		session_intake(s);
	return over(s);
}

void session_env_init(struct session *s, struct apply_env *env)
{
	*env = (struct apply_env){
	    .rootfd = s->rootfd,
	    .tmpfd = s->tmpfd,
	    .no_owner = s->confined.no_owner,
	    .who = s->m->who,
	    .filter = &s->m->filter,
	    .page = &s->page,
	    .behind = &s->behind,
	    .fail = on_fail,
	    .hold = on_hold,
	    .unhold = on_unhold,
	    .tick = on_tick,
	    .arg = s,
	};
}

/* --- frames --- */

static void send_ack(struct session *s)
{
	struct wack a = {.received = s->received, .applied = s->page.now.pos.seq, .durable = s->durable};
	buf_clear(&s->reply);
	wack_put(&s->reply, &a);
	session_send(s, FT_ACK, COMPRESS_NONE);
	s->acked_received = s->received;
	s->acked_durable = s->durable;
}

static void do_batch(struct session *s, struct buf *payload)
{
	struct wop op;
	int err = 0;
	while (!err && !payload->err && buf_left(payload)) {
		err = wop_get(payload, &op);
		if (!err)
			err = apply_op(&s->apply, &op);
		if (!err && op.type == WOP_POS)
			syncer_dirty(&s->syncer, &s->page.now);
		/* a flood of failures must not fill the memory */
		while (!err && conn_queued(s->conn) > 4 * QUEUE_HIGH && !(err = over(s)))
			session_wait(s, 1000);
	}
	if (!err)
		err = apply_end_batch(&s->apply);
	if (err == E_PROTO || err == E_CHECKSUM || err == E_LIMIT || err == E_VERSION) {
		session_refuse(s, WR_PROTOCOL, "an operation of the source is not valid: %s", err_text(err));
		return;
	}
	if (err) {
		/* the batch was left half way: what is queued behind it must not be applied */
		if (!s->stop || s->closed) {
			s->closed = s->closed ? s->closed : err;
			s->state = SS_END;
		}
		return;
	}
	s->received += payload->len;
	struct inframe *next = STAILQ_FIRST(&s->in);
	if (!next || next->type != FT_BATCH || s->received - s->acked_received >= ACK_EVERY)
		send_ack(s);
}

static void do_sync(struct session *s, struct buf *payload)
{
	uint64_t token = buf_get_u64(payload);
	if (buf_end(payload) || s->ntokens == SYNC_TOKENS) {
		session_refuse(s, WR_PROTOCOL, "SYNC is not valid, or too many wait");
		return;
	}
	newdir_place(&s->apply);
	s->tokens[s->ntokens].token = token;
	s->tokens[s->ntokens++].ticket = syncer_request(&s->syncer, &s->page.now);
}

static void do_modules(struct session *s)
{
	const struct modules_conf *mc = s->env.mc;
	uint16_t n = 0;
	buf_clear(&s->reply);
	for (size_t i = 0; i < mc->nmodules; i++)
		n += mc->modules[i].list &&
		     hosts_allowed(&mc->modules[i].allow, &mc->modules[i].deny, s->env.addr);
	buf_put_u16(&s->reply, n);
	for (size_t i = 0; i < mc->nmodules; i++) {
		const struct module_conf *m = &mc->modules[i];
		if (!m->list || !hosts_allowed(&m->allow, &m->deny, s->env.addr))
			continue;
		buf_put_str(&s->reply, m->name);
		buf_put_str(&s->reply, m->comment ? m->comment : "");
		buf_put_u8(&s->reply, m->read_only);
	}
	session_send(s, FT_MODLIST, COMPRESS_NONE);
}

static void do_job(struct session *s, uint8_t type, struct buf *payload)
{
	const struct filter *f = &s->m->filter;
	if (s->applying)
		newdir_place(&s->apply);
	struct reach *reach = s->applying ? &s->apply.reach : NULL;
	int err = type == FT_LIST ? list_begin(&s->job, s->rootfd, f, reach, payload)
				  : sums_begin(&s->job, s->rootfd, f, reach, payload);
	if (err)
		session_refuse(s, WR_PROTOCOL, "%s is not valid: %s", type == FT_LIST ? "LIST" : "SUMS",
			       err_text(err));
}

static void do_frame(struct session *s, uint8_t type, struct buf *payload)
{
	if (type >= 32 || !(allowed[s->state] & 1u << type)) {
		session_refuse(s, WR_PROTOCOL, "frame of type %u is not allowed now", type);
		return;
	}
	switch (type) {
	case FT_HELLO:
		session_hello(s, payload);
		break;
	case FT_BATCH:
		do_batch(s, payload);
		break;
	case FT_SYNC:
		do_sync(s, payload);
		break;
	case FT_MODULES:
		do_modules(s);
		break;
	default:
		do_job(s, type, payload);
		break;
	}
}

/* Take the next frame unless it must wait for the job. Returns whether one was done. */
static bool next_frame(struct session *s)
{
	struct inframe *f = STAILQ_FIRST(&s->in);
	struct buf payload;
	if (!f || (s->job && f->type != FT_BATCH && f->type != FT_SYNC))
		return false;
	STAILQ_REMOVE_HEAD(&s->in, link);
	s->in_bytes -= f->len;
	s->in_frames--;
	buf_view(&payload, f->data, f->len);
	if (!s->closed || f->type == FT_BATCH) /* else nobody waits for the answer */
		do_frame(s, f->type, &payload);
	free(f);
	return true;
}

static bool next_piece(struct session *s)
{
	enum frame_type type;
	if (s->closed) { /* nobody waits for the answer */
		list_free(s->job);
		s->job = NULL;
	}
	if (!s->job || conn_queued(s->conn) > QUEUE_HIGH)
		return false;
	int more = list_step(s->job, &s->reply, &type);
	if (more >= 0)
		session_send(s, type, type == FT_LISTING ? COMPRESS_ZSTD : COMPRESS_NONE);
	else if (!s->closed)
		s->closed = more;
	if (more <= 0) {
		list_free(s->job);
		s->job = NULL;
	}
	return true;
}

static void answer_syncs(struct session *s, uint64_t done)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < s->ntokens; i++) {
		if (s->tokens[i].ticket > done) {
			s->tokens[kept++] = s->tokens[i];
			continue;
		}
		buf_clear(&s->reply);
		buf_put_u64(&s->reply, s->tokens[i].token);
		buf_put_u64(&s->reply, s->durable);
		session_send(s, FT_SYNCED, COMPRESS_NONE);
	}
	s->ntokens = kept;
}

/* What the syncer has reached. */
static void collect(struct session *s)
{
	uint64_t done;
	if (!s->applying)
		return;
	int err = syncer_result(&s->syncer, &s->durable, &done);
	if (err) {
		s->page.now.flags |= POSITION_LOST;
		position_store(&s->page);
		session_refuse(
		    s, WR_IO,
		    "writing to the disk of module [%s] failed: %s; recent changes will be compared again",
		    s->m->name, err_text(err));
		return;
	}
	if (s->durable != s->acked_durable)
		send_ack(s);
	if (s->ntokens)
		answer_syncs(s, done);
}

/* Nothing is to be done: wait. What is filled aside is not kept from sight for long. */
static void rest(struct session *s)
{
	bool aside = s->applying && s->apply.newdir.open;
	if (aside && session_now() - s->last_in >= NEWDIR_REST_MS)
		newdir_place(&s->apply);
	else
		session_wait(s, aside ? NEWDIR_REST_MS : s->state == SS_HELLO ? 500 : 1000);
}

static void serve(struct session *s)
{
	while (s->state != SS_END) {
		session_intake(s);
		bool worked = next_frame(s);
		worked = (s->state != SS_END && next_piece(s)) || worked;
		if (s->state != SS_END)
			collect(s);
		if (s->state == SS_END || (s->closed && !worked))
			break;
		if (s->stop) {
			session_refuse(s, s->stop,
				       s->stop == WR_BUSY
					   ? "a new connection of the same source took over"
					   : "the daemon is stopping; the source connects again");
			break;
		}
		if (!worked)
			rest(s);
	}
	if (s->applying)
		newdir_place(&s->apply);
}

/* --- beginning and end --- */

static int find_key(void *arg, const char *user, const char *module, uint8_t key[PSK_LEN])
{
	struct session *s = arg;
	snprintf(s->user, sizeof(s->user), "%s", user);
	snprintf(s->module, sizeof(s->module), "%s", module);
	s->auth_asked = true;
	return auth_find(s->env.auth, s->env.mc, user, module, key, s->auth_why, sizeof(s->auth_why));
}

static int handshake(struct session *s)
{
	uint8_t ref[8];
	char user[256], module[256];
	fio_random(ref, sizeof(ref));
	hex_put(s->reference, ref, sizeof(ref));
	int err = conn_accept(&s->conn, s->env.fd, ref, find_key, s, SESSION_HANDSHAKE_MS);
	if (!err)
		return 0;
	path_show(user, sizeof(user), s->user);
	path_show(module, sizeof(module), s->module);
	if (s->auth_asked)
		log_warn("reference %s: %s, user \"%s\", module \"%s\": not let in: %s", s->reference,
			 s->env.peer, user, module, s->auth_why);
	else
		log_info("reference %s: %s ended before it said who it is: %s", s->reference, s->env.peer,
			 err_text(err));
	return err;
}

static int open_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_SETMASK, &set, NULL);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Everything that needs the outside of the module, then the second wall. Returns 0 or an error that was logged. */
static int enter(struct session *s)
{
	char why[512];
	if (s->m)
		session_prepare(s);
	bool serve_module = s->m && !s->refuse_code;
	int err = confine_enter(serve_module ? s->m : NULL, serve_module ? s->rootfd : -1, &s->confined, why,
				sizeof(why));
	if (err) {
		log_error("confinement of module [%s] failed: %s", s->m ? s->m->name : "", why);
		if (s->m && !s->refuse_code) {
			s->refuse_code = WR_PERMISSION;
			snprintf(s->refuse_text, sizeof(s->refuse_text),
				 "the daemon cannot confine itself to module [%s]: %s", s->m->name, why);
		}
	}
	err = syncer_start(&s->syncer);
	if (!err)
		err = behind_start(&s->behind);
	if (!err)
		err = confine_syscalls(&s->confined);
	if (err)
		log_error("system call filter or threads: %s", err_text(err));
	return err;
}

/* Returns whether a change in place is still to be made. */
static bool finish(struct session *s)
{
	bool applied = s->applying, owes = applied && apply_owes(&s->apply);
	if (s->closed && s->closed != E_CLOSED)
		log_warn("%s: connection ended: %s", s->env.peer, err_text(s->closed));
	else if (applied)
		log_info("%s: connection ended: %llu records, %llu files, %llu bytes applied", s->env.peer,
			 (unsigned long long)s->apply.records, (unsigned long long)s->apply.files,
			 (unsigned long long)s->apply.bytes);
	behind_stop(&s->behind);
	int err = syncer_stop(&s->syncer, applied && !(s->page.now.flags & POSITION_LOST));
	if (applied) {
		apply_release(&s->apply);
		if (!err && !(s->page.now.flags & POSITION_LOST))
			position_clean(&s->page);
		position_close(&s->page);
	}
	list_free(s->job);
	for (struct inframe *f; (f = STAILQ_FIRST(&s->in));) {
		STAILQ_REMOVE_HEAD(&s->in, link);
		free(f);
	}
	conn_close(s->conn);
	buf_release(&s->reply);
	return owes;
}

static void introduce(struct session *s)
{
	char ident[128], shown[64];
	path_show(shown, sizeof(shown), s->module);
	if (*s->module) {
		snprintf(ident, sizeof(ident), "tandemd[%s]", shown);
		log_set_ident(ident);
	}
	if (s->env.title)
		setproctitle("--config %s [%s] %s@%s", s->env.mc->conf.file, shown, s->user, s->env.peer);
	if (s->m)
		log_set_level(s->m->verbosity <= 0   ? LOG_LV_WARN
			      : s->m->verbosity == 1 ? LOG_LV_INFO
						     : LOG_LV_DEBUG);
}

int session_run(const struct session_env *env)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return 1;
	s->env = *env;
	s->rootfd = s->statefd = s->dirfd = s->tmpfd = s->redofd = s->lockfd = s->motdfd = -1;
	STAILQ_INIT(&s->in);
	buf_init(&s->reply, FRAME_MAX);
	s->sigfd = open_signals();
	if (env->mc->motd_file)
		s->motdfd = open(env->mc->motd_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	int err = session_wall(env);
	if (!err)
		err = handshake(s);
	auth_free(s->env.auth);
	s->env.auth = NULL;
	if (err) {
		free(s);
		return 1;
	}
	s->m = *s->module ? modules_conf_find(env->mc, s->module) : NULL;
	s->right = s->m ? modules_conf_right(s->m, s->user) : USER_DENY;
	introduce(s);
	s->last_in = session_now();
	s->hello_by = s->last_in + SESSION_HANDSHAKE_MS;
	if (enter(s) == 0)
		serve(s);
	bool owes = finish(s);
	free(s);
	return owes;
}
