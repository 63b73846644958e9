/* SPDX-License-Identifier: BSD-2-Clause
 * Talking to a module daemon: connecting with a password, listing its modules. */
#include "config.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "proto/err.h"
#include "proto/wire.h"
#include "replicator/ctl/ctl.h"

#define CONNECT_MS 10000
#define ANSWER_MS  10000

void ctl_target_release(struct mirror_target *t)
{
	free(t->url);
	free(t->user);
	free(t->host);
	free(t->module);
}

int ctl_connect_daemon(struct conn **out, const struct mirror_target *t, const char *module,
		       const char *password_file, char *why, size_t size)
{
	uint8_t key[PSK_LEN];
	struct conn_to to = {
	    .host = t->host, .port = t->port, .user = t->user, .module = module, .key = key, .timeout_ms = CONNECT_MS};
	char *password;

	*out = NULL;
	if (*t->user == '\0') {
		snprintf(why, size, "the URL has no user; write tandem://USER@%s%s", t->host,
			 *module ? "/MODULE" : "");
		return E_CONF;
	}
	if (password_file == NULL) {
		snprintf(why, size, "no password: give --password-file F or set TANDEM_PASSWORD_FILE");
		return E_CONF;
	}
	int rc = mirror_read_password(password_file, &password, why, size);
	if (rc < 0)
		return rc;
	rc = psk_derive(key, t->user, password);
	explicit_bzero(password, strlen(password));
	free(password);
	if (rc < 0)
		snprintf(why, size, "deriving the key: %s", err_text(rc));
	else
		rc = conn_connect(out, &to, why, size);
	explicit_bzero(key, sizeof(key));
	return rc;
}

static int send_request(struct conn *c)
{
	struct whello h = {.version = CONN_VERSION, .mode = 2, .mirror = ""};
	struct buf b;

	buf_init(&b, FRAME_MAX);
	whello_put(&b, &h);
	int rc = b.err ? b.err : conn_put(c, FT_HELLO, b.data, b.len, COMPRESS_NONE);
	if (rc == 0)
		rc = conn_put(c, FT_MODULES, NULL, 0, COMPRESS_NONE);
	buf_release(&b);
	return rc < 0 ? rc : conn_drain(c, ANSWER_MS);
}

static int get_modlist(struct buf *b, json_t *list)
{
	uint16_t n = buf_get_u16(b);

	for (uint16_t i = 0; i < n && b->err == 0; i++) {
		const char *name = buf_get_str(b, NULL), *comment = buf_get_str(b, NULL);
		json_t *m = json_pack("{s:b}", "read_only", buf_get_u8(b) != 0);
		ctl_set_path(m, "name", name);
		ctl_set_path(m, "comment", comment);
		json_array_append_new(list, m);
	}
	return buf_end(b);
}

/* Take one frame. Returns 1 when the list is complete, 0 to go on, or an error with why filled. */
static int take_frame(uint8_t type, struct buf *b, json_t *list, uint32_t *refused, char *why, size_t size)
{
	struct wfail f;

	if (type == FT_MODLIST) {
		int rc = get_modlist(b, list);
		if (rc < 0)
			snprintf(why, size, "the module list is damaged: %s", err_text(rc));
		return rc < 0 ? rc : 1;
	}
	if (type != FT_REFUSE)
		return 0; /* WELCOME, NOTICE: nothing for us */
	int rc = wfail_get(b, &f);
	if (rc < 0) {
		snprintf(why, size, "the refusal is damaged: %s", err_text(rc));
		return rc;
	}
	if (refused)
		*refused = f.code;
	ctl_show_text(why, size, *f.text ? f.text : wrefuse_text(f.code));
	return E_REFUSED;
}

/* Seconds of a clock that nobody sets. */
static time_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static int receive(struct conn *c, json_t *list, uint32_t *refused, char *why, size_t size)
{
	time_t end = now_s() + ANSWER_MS / 1000;
	struct buf b;
	uint8_t type;

	while (now_s() <= end) {
		int rc = conn_get(c, &type, &b);
		if (rc == 1) {
			rc = take_frame(type, &b, list, refused, why, size);
			if (rc != 0)
				return rc;
			continue;
		}
		struct pollfd p = {.fd = conn_fd(c), .events = conn_events(c)};
		if (rc == 0 && !conn_pending(c))
			poll(&p, 1, 1000);
		if (rc == 0)
			rc = conn_io(c);
		if (rc < 0) {
			snprintf(why, size, "waiting for the module list: %s", err_text(rc));
			return rc;
		}
	}
	snprintf(why, size, "the daemon did not answer within %d s", ANSWER_MS / 1000);
	return E_TIMEOUT;
}

int ctl_list_modules(struct conn *c, json_t **list, uint32_t *refused, char *why, size_t size)
{
	*list = NULL;
	int rc = send_request(c);
	if (rc < 0) {
		snprintf(why, size, "asking for the module list: %s", err_text(rc));
		return rc;
	}
	json_t *l = json_array();
	rc = receive(c, l, refused, why, size);
	if (rc < 0) {
		json_decref(l);
		return rc;
	}
	*list = l;
	return 0;
}
