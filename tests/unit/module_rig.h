/* SPDX-License-Identifier: BSD-2-Clause
 * A real child of tandemd on a loopback socket and a client that may send anything. BASE/module is served;
 * BASE/outside must never change. */
#ifndef TANDEM_MODULE_RIG_H
#define TANDEM_MODULE_RIG_H

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "proto/conn.h"
#include "proto/err.h"
#include "proto/fileio.h"
#include "proto/log.h"
#include "proto/wire.h"
#include "replicator/module/hosts.h"
#include "replicator/module/session.h"
#include "tests/unit/unit.h"

struct rig {
	char base[256], module[300], outside[300];
	struct modules_conf mc;
	struct conn *conn;
	pid_t child;
	struct buf batch;
	struct wwelcome welcome;
	uint8_t key[PSK_LEN];
	/* what the daemon said so far */
	unsigned fails, acks;
	uint32_t fail_code, refuse_code; /* last */
	char text[1024];
	struct wack ack;
	bool closed;
	uint64_t sent; /* bytes of batches in this connection */
	bool xattrs; /* rig_file sends an empty set of attributes */
};

static inline void rig_write(const char *dir, const char *name, const char *text, mode_t mode)
{
	char path[600];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	ck_assert_msg(f != NULL, "%s", path);
	fputs(text, f);
	fclose(f);
	ck_assert_int_eq(chmod(path, mode), 0);
}

static inline void rig_mkdir(const char *dir, const char *name)
{
	char path[600];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(mkdir(path, 0755), 0);
}

/* Make the directories and read the configuration; keys are lines of the module. */
static inline void rig_init(struct rig *r, const char *keys)
{
	char file[300], text[3000];
	memset(r, 0, sizeof(*r));
	unit_scratch(r->base);
	ck_assert_int_eq(chmod(r->base, 0755), 0);
	rig_mkdir(r->base, "module");
	rig_mkdir(r->base, "outside");
	rig_mkdir(r->base, "state");
	snprintf(r->module, sizeof(r->module), "%s/module", r->base);
	snprintf(r->outside, sizeof(r->outside), "%s/outside", r->base);
	rig_write(r->outside, "secret", "secret\n", 0640);
	rig_write(r->base, "secrets", "user:password\n", 0600);
	snprintf(text, sizeof(text),
		 "state dir = %s/state\n[m]\npath = %s\nauth users = user\nsecrets file = %s/secrets\nread "
		 "only = no\nmax verbosity = 0\n%s",
		 r->base, r->module, r->base, keys);
	rig_write(r->base, "modules.conf", text, 0644);
	snprintf(file, sizeof(file), "%s/modules.conf", r->base);
	ck_assert_int_eq(modules_conf_read(&r->mc, file), 0);
	conf_print(&r->mc.conf);
	ck_assert_int_eq(r->mc.conf.nerrors, 0);
	ck_assert_int_eq(psk_derive(r->key, "user", "password"), 0);
	buf_init(&r->batch, FRAME_MAX);
	log_set_level(LOG_LV_ERROR);
	log_init("tandemd", NULL, 1);
	signal(SIGPIPE, SIG_IGN);
}

static inline void rig_serve(struct rig *r, int listener)
{
	struct session_env env = {.mc = &r->mc, .parent = -1, .peer = "127.0.0.1"};
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char state[300];
	snprintf(state, sizeof(state), "%s/state", r->base);
	env.fd = accept(listener, NULL, NULL);
	close(listener);
	hosts_address((struct sockaddr *)&sa, env.addr);
	env.stdir = fio_open_dir(state);
	fio_boot_id(env.boot);
	if (env.fd < 0 || env.stdir < 0 || auth_new(&env.auth) || auth_refresh(env.auth, &r->mc))
		_exit(9);
	_exit(session_run(&env));
}

/* Start a child and authenticate. */
static inline void rig_connect(struct rig *r)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	char why[1024] = "";
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert(bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, 1) == 0);
	getsockname(fd, (struct sockaddr *)&sa, &len);
	r->child = fork();
	if (r->child == 0)
		rig_serve(r, fd);
	close(fd);
	struct conn_to to = {.host = "127.0.0.1", .port = ntohs(sa.sin_port), .user = "user", .module = "m", .key = r->key,
	    .timeout_ms = 20000};
	int err = conn_connect(&r->conn, &to, why, sizeof(why));
	ck_assert_msg(err == 0, "%s", why);
	r->closed = false;
	r->refuse_code = 0;
	r->acks = r->fails = 0;
	r->sent = 0;
}

static inline void rig_take(struct rig *r, uint8_t type, struct buf *p)
{
	struct wfail f;
	switch (type) {
	case FT_WELCOME:
		ck_assert_int_eq(wwelcome_get(p, &r->welcome), 0);
		free(r->welcome.outstanding);
		break;
	case FT_FAIL:
	case FT_REFUSE:
	case FT_HOLD:
		ck_assert_int_eq(wfail_get(p, &f), 0);
		snprintf(r->text, sizeof(r->text), "%s", f.text);
		if (type == FT_FAIL) {
			r->fails++;
			r->fail_code = f.code;
		} else if (type == FT_REFUSE) {
			r->refuse_code = f.code;
		}
		break;
	case FT_ACK:
		ck_assert_int_eq(wack_get(p, &r->ack), 0);
		r->acks++;
		break;
	default:
		break;
	}
}

/* Receive until a frame of type came (its payload in out, which may be NULL) or the connection ended. Returns
 * whether it came. */
static inline bool rig_await(struct rig *r, uint8_t type, struct buf *out)
{
	for (int i = 0; i < 2000; i++) {
		uint8_t got;
		struct buf p;
		int n;
		while ((n = conn_get(r->conn, &got, &p)) > 0) {
			struct buf copy = p;
			rig_take(r, got, &p);
			if (got != type)
				continue;
			if (out) {
				buf_clear(out);
				buf_put(out, copy.data, copy.len);
			}
			return true;
		}
		if (n < 0 || r->closed) {
			r->closed = true;
			return false;
		}
		struct pollfd pfd = {.fd = conn_fd(r->conn), .events = conn_events(r->conn)};
		if (!conn_pending(r->conn))
			poll(&pfd, 1, 20);
		if (conn_io(r->conn))
			r->closed = true;
	}
	return false;
}

static inline void rig_hello(struct rig *r, uint32_t mode)
{
	struct buf b;
	struct whello h = {.version = CONN_VERSION,
			   .mode = mode,
			   .mirror = "test",
			   .source_id = {1, 2, 3},
			   .head = {.epoch = 1, .seq = 1}};
	buf_init(&b, 4096);
	whello_put(&b, &h);
	ck_assert_int_eq(conn_put(r->conn, FT_HELLO, b.data, b.len, COMPRESS_NONE), 0);
	buf_release(&b);
}

static inline void rig_open(struct rig *r)
{
	rig_connect(r);
	rig_hello(r, 1);
	ck_assert_msg(rig_await(r, FT_WELCOME, NULL), "no welcome: %s", r->text);
}

static inline void rig_op(struct rig *r, const struct wop *op)
{
	wop_put(&r->batch, op);
	ck_assert_int_eq(r->batch.err, 0);
}

static inline void rig_rec(struct rig *r, const struct jrec *rec)
{
	struct buf b;
	buf_init(&b, JREC_MAX);
	ck_assert_int_eq(jrec_put(&b, rec), 0);
	struct wop op = {.type = WOP_REC, .data = b.data, .dlen = (uint32_t)b.len};
	rig_op(r, &op);
	buf_release(&b);
}

/* Send the batch and await its ACK; another one may come before, of what became durable. Returns false when the connection ended instead. */
static inline bool rig_send(struct rig *r)
{
	ck_assert_int_eq(conn_put(r->conn, FT_BATCH, r->batch.data, r->batch.len, COMPRESS_NONE), 0);
	r->sent += r->batch.len;
	buf_clear(&r->batch);
	while (rig_await(r, FT_ACK, NULL))
		if (r->ack.received >= r->sent)
			return true;
	return false;
}

/* End the connection; returns the child's wait status. */
static inline int rig_close(struct rig *r)
{
	int status;
	conn_close(r->conn);
	r->conn = NULL;
	ck_assert_int_eq(waitpid(r->child, &status, 0), r->child);
	return status;
}

static inline void rig_end(struct rig *r)
{
	if (r->conn) {
		int status = rig_close(r);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %x",
			      status);
	}
	buf_release(&r->batch);
	modules_conf_release(&r->mc);
	unit_remove(r->base);
}

/* A whole new file in one go. */
static inline void rig_file(struct rig *r, uint32_t xid, const char *path, const void *data, uint32_t n)
{
	struct wop op = {.type = WOP_BEGIN, .xid = xid, .flags = WB_NEW, .path = path, .size = n};
	rig_op(r, &op);
	op = (struct wop){.type = WOP_DATA, .xid = xid, .data = data, .dlen = n};
	rig_op(r, &op);
	op = (struct wop){.type = WOP_COMMIT,
			  .xid = xid,
			  .path = path,
			  .size = n,
			  .has_xattrs = r->xattrs,
			  .data = (const uint8_t *)"\0\0",
			  .dlen = 2,
			  .attr = {0100600, geteuid(), getegid(), {1000, 5}}};
	rig_op(r, &op);
}

static inline void rig_simple(struct rig *r, enum jtype type, const char *path, const char *path2)
{
	struct jrec rec;
	jrec_init(&rec, type);
	rec.seq = 1;
	rec.path = path;
	rec.mode = type == JT_MKDIR ? 040755 : type == JT_MKNOD ? 010644 : 0100644;
	rec.uid = geteuid();
	rec.gid = getegid();
	if (type == JT_SYMLINK)
		rec.target = path2;
	else if (path2)
		rec.path2 = path2;
	rec.valid = JV_MODE | JV_MTIME;
	rec.xname = "user.x";
	rec.xval = (const uint8_t *)"v";
	rec.xlen = 1;
	rig_rec(r, &rec);
}

/* Text of BASE/dir/name, "" if there is none. */
static inline const char *rig_text(const struct rig *r, const char *dir, const char *name)
{
	static char text[4096];
	char path[1000];
	snprintf(path, sizeof(path), "%s/%s/%s", r->base, dir, name);
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
	text[n] = 0;
	if (f)
		fclose(f);
	return text;
}

#endif
