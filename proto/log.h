/* SPDX-License-Identifier: BSD-2-Clause
 * The log of a process: one line per event on standard error, in a file or to syslog.
 * Every message says what, where, why, and what to do; names from outside go through path_show. */
#ifndef TANDEM_LOG_H
#define TANDEM_LOG_H

#include <stddef.h>

enum log_level { LOG_LV_ERROR, LOG_LV_WARN, LOG_LV_INFO, LOG_LV_DEBUG };

/* Start logging as ident (borrowed, e.g. "tandemd[gitlab]"). file NULL: standard error if foreground,
 * else syslog. Returns 0 or -errno when the file cannot be opened. */
int log_init(const char *ident, const char *file, int foreground);
void log_set_level(enum log_level level);
/* Change the identity shown in lines; keeps a copy. */
void log_set_ident(const char *ident);
/* Reopen the log file (after rotation). Safe in a signal handler. */
void log_reopen(void);
/* Send lines to fd from now on, a pipe of the process that keeps the log file; the file is closed here. Takes fd. */
void log_to(int fd);
/* Append n bytes to the log as they are: lines of another process. Not for syslog. */
void log_raw(const void *lines, size_t n);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
