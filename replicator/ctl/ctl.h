/* SPDX-License-Identifier: BSD-2-Clause
 * What the commands of tandemctl share: parsed arguments, the mirror a command is about, questions to
 * its control sockets, and the way numbers and foreign text are shown. */
#ifndef TANDEM_CTL_H
#define TANDEM_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/conn.h"
#include "proto/ctlsock.h"
#include "proto/mirror.h"

/* Exit codes. 1 is the answer "not yet" or "not equal", 2 is "cannot tell" or "needs a person". */
enum ctl_exit { CTL_OK = 0, CTL_BEHIND = 1, CTL_BROKEN = 2 };

#define CTL_SOCK_MOUNT	    "mount.sock"
#define CTL_SOCK_REPLICATOR "replicator.sock"
#define CTL_ASK_MS	    10000 /* ms a process has to answer a question that needs no work */

/* The command line. All strings are borrowed from argv. */
struct ctl_args {
	const char *config;	   /* mirrors.conf */
	bool config_given;	   /* by --config, not the default */
	const char *name;	   /* mirror, or the URL of `modules`; NULL if none was given */
	const char *password_file; /* modules */
	const char *format;	   /* journal: NULL for the default line */
	const char *timefmt;	   /* journal: strftime(3), NULL for the default */
	const char *since;	   /* journal: position, NULL if not given */
	long timeout;		   /* wait: seconds, 0 for none */
	bool json, repair, checksum, dry_run, follow;
};

/* The commands; each returns its exit code. */
int cmd_status(const struct ctl_args *a);
int cmd_wait(const struct ctl_args *a);
int cmd_verify(const struct ctl_args *a);
int cmd_resync(const struct ctl_args *a);
int cmd_journal(const struct ctl_args *a);
int cmd_modules(const struct ctl_args *a);
int cmd_pause(const struct ctl_args *a);
int cmd_resume(const struct ctl_args *a);
int cmd_unmount(const struct ctl_args *a);
int cmd_doctor(const struct ctl_args *a);

/* The mirror a command is about. */
struct ctl_mirror {
	const char *name;   /* borrowed from the caller */
	const char *config; /* borrowed; the file it stands in */
	struct mirror m;    /* valid if configured */
	struct conf conf;   /* valid if configured */
	bool configured;    /* false: started without a configuration file; state_dir is all we know */
	char *state_dir;    /* owned */
	int statefd;	    /* O_DIRECTORY descriptor of state_dir, or -1 when it does not exist */
};

/* Find mirror name: its section in a->config, or, where there is no file, the default state directory of
 * mirrors that were started without one. A name with a slash is a state directory. name is kept until
 * ctl_mirror_close. Returns 0; E_CONF: cm->conf has the diagnostics; -ENOENT or another -errno. Always close.
 */
int ctl_mirror_find(struct ctl_mirror *cm, const struct ctl_args *a, const char *name);
/* The same, and print what is wrong on standard error. A wrong configuration is printed, too, and is no
 * failure as long as the mirror's state directory could be found. */
int ctl_mirror_open(struct ctl_mirror *cm, const struct ctl_args *a, const char *name);
void ctl_mirror_close(struct ctl_mirror *cm);
/* What to do when the state directory cannot be opened. */
const char *ctl_state_hint(int err);
/* Call fn for every mirror of the configuration (or of the default state directory). Returns the number
 * of mirrors, or a negative error that was printed. */
int ctl_mirror_each(const struct ctl_args *a, void (*fn)(void *arg, const char *name), void *arg);
/* Write the command that starts the mount (or, replicator true, the replicator) of the mirror. */
void ctl_start_hint(const struct ctl_mirror *cm, bool replicator, char *out, size_t size);

/* Connect to a control socket of the mirror. Returns a descriptor, or a negative error: -ENOENT and
 * -ECONNREFUSED mean that the process does not run. */
int ctl_dial(const struct ctl_mirror *cm, const char *sock);
/* Connect, ask one question, close. args and reply as ctl_call; timeout_ms -1 waits for ever.
 * Returns 0, E_REFUSED with *reply holding "error", or another error with *reply NULL. */
int ctl_ask(const struct ctl_mirror *cm, const char *sock, const char *op, const json_t *args, json_t **reply,
	    int timeout_ms);
/* Print why a question failed, which process did not answer and how to start it. reply may be NULL. */
void ctl_complain(const struct ctl_mirror *cm, const char *sock, int err, const json_t *reply);
/* Write back stores through MAP_SHARED, then let the mount journal everything done so far. *seq gets the
 * sequence; with the mount down, the journal's last (*mounted tells; may be NULL). timeout_ms -1: for ever. Returns 0 or an error
 * that was printed, E_TIMEOUT for a mount that does not answer. */
int ctl_flush(const struct ctl_mirror *cm, uint64_t *seq, bool *mounted, int timeout_ms);

/* Members of a reply; a missing one, or one of another type, is 0, false or "". */
double ctl_num(const json_t *o, const char *key);
uint64_t ctl_u64(const json_t *o, const char *key);
const char *ctl_str(const json_t *o, const char *key);
bool ctl_bool(const json_t *o, const char *key);

/* Text for people; each writes at most size bytes to out and returns it. */
const char *ctl_show_bytes(char *out, size_t size, double bytes);
const char *ctl_show_secs(char *out, size_t size, double seconds);
/* Foreign text (UTF-8) with control characters replaced, for a terminal. */
const char *ctl_show_text(char *out, size_t size, const char *text);

/* Free the members of a target that mirror_parse_url filled. */
void ctl_target_release(struct mirror_target *t);
/* Connect to a daemon and prove who we are. module "" is for listing. Returns 0 or an error with why filled.
 */
int ctl_connect_daemon(struct conn **out, const struct mirror_target *t, const char *module,
		       const char *password_file, char *why, size_t size);
/* Fetch the module list over a fresh connection as an array of {name, comment, read_only}. Returns 0 or an
 * error with why filled; *refused (may be NULL) gets the WR_* code of a refusal. */
int ctl_list_modules(struct conn *c, json_t **list, uint32_t *refused, char *why, size_t size);

#endif
