/* SPDX-License-Identifier: BSD-2-Clause
 * Logging: one write(2) per line, so that lines of several processes in one file never mix. */
#include "config.h"
#include "proto/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

/* The one mutable global of the library: where a process logs to. Set before threads start; the
 * descriptor is replaced in place by log_reopen (dup3), so that readers need no lock. */
static struct {
	char ident[128];
	char *file;
	int fd;
	int use_syslog;
	enum log_level level;
} lg = {.fd = STDERR_FILENO, .level = LOG_LV_INFO, .ident = "tandem"};

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const int level_syslog[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

static int open_file(const char *file)
{
	int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	return fd < 0 ? -errno : fd; /* cppcheck-suppress resourceLeak ; it is returned */
}

int log_init(const char *ident, const char *file, int foreground)
{
	log_set_ident(ident);
	if (file) {
		int fd = open_file(file);
		if (fd < 0)
			return fd;
		free(lg.file);
		lg.file = strdup(file);
		lg.fd = fd;
		return 0;
	}
	lg.use_syslog = !foreground;
	if (lg.use_syslog)
		openlog(lg.ident, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	return 0;
}

void log_set_level(enum log_level level)
{
	lg.level = level;
}

void log_set_ident(const char *ident)
{
	strlcpy(lg.ident, ident, sizeof(lg.ident));
}

void log_reopen(void)
{
	if (!lg.file)
		return;
	int saved = errno, fd = open_file(lg.file);
	if (fd >= 0) {
		dup3(fd, lg.fd, O_CLOEXEC);
		close(fd);
	}
	errno = saved;
}

void log_to(int fd)
{
	if (lg.file)
		close(lg.fd);
	free(lg.file);
	lg.file = NULL;
	lg.use_syslog = 0;
	lg.fd = fd;
}

void log_raw(const void *lines, size_t n)
{
	if (write(lg.fd, lines, n) < 0) {
		/* nowhere left to say it */
	}
}

/* Format a message; what a peer or a name brought in makes no lines of its own and moves no terminal's cursor. Returns its length. */
static size_t format(char *out, size_t size, const char *fmt, va_list ap)
{
	int m = vsnprintf(out, size, fmt, ap);
	size_t n = m < 0 ? 0 : (size_t)m < size ? (size_t)m : size - 1;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
			out[i] = '?';
	return n;
}

static void vlog(enum log_level level, const char *fmt, va_list ap)
{
	char line[4096];
	if (level > lg.level)
		return;
	if (lg.use_syslog) {
		format(line, sizeof(line), fmt, ap);
		syslog(level_syslog[level], "%s", line);
		return;
	}
	int saved = errno;
	struct timespec ts;
	struct tm tm;
	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	size_t n = strftime(line, sizeof(line), "%Y-%m-%d %H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ld %s[%d] %s: ", ts.tv_nsec / 1000000, lg.ident,
	    (int)getpid(), level_names[level]);
	n += format(line + n, sizeof(line) - n - 1, fmt, ap);
	line[n++] = '\n';
	if (write(lg.fd, line, n) < 0) {
		/* nowhere left to say it */
	}
	errno = saved;
}

#define LOG_FN(name, level)                                                                                  \
	void name(const char *fmt, ...)                                                                      \
	{                                                                                                    \
		va_list ap;                                                                                  \
		va_start(ap, fmt);                                                                           \
		vlog(level, fmt, ap);                                                                        \
		va_end(ap);                                                                                  \
	}

LOG_FN(log_error, LOG_LV_ERROR)
LOG_FN(log_warn, LOG_LV_WARN)
LOG_FN(log_info, LOG_LV_INFO)
LOG_FN(log_debug, LOG_LV_DEBUG)
