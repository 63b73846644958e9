/* SPDX-License-Identifier: BSD-2-Clause
 * How one journal record is shown. */
#include "config.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include "proto/path.h"
#include "replicator/ctl/ctl.h"
#include "replicator/ctl/event.h"

const char *event_name(const struct jrec *r)
{
	static const char *const names[JT_LAST + 1] = {
	    [JT_CREATE] = "CREATE",
	    [JT_MKDIR] = "MKDIR",
	    [JT_MKNOD] = "MKNOD",
	    [JT_SYMLINK] = "SYMLINK",
	    [JT_LINK] = "LINK",
	    [JT_UNLINK] = "UNLINK",
	    [JT_RMDIR] = "RMDIR",
	    [JT_RENAME] = "RENAME",
	    [JT_SETATTR] = "ATTRIB",
	    [JT_SETXATTR] = "SETXATTR",
	    [JT_REMOVEXATTR] = "REMOVEXATTR",
	    [JT_RECHECK] = "RECHECK",
	    [JT_COLLAPSED] = "COLLAPSED",
	    [JT_MOUNT] = "MOUNT",
	    [JT_SEAL] = "SEAL",
	};

	if (r->type == JT_CONTENT)
		return r->flags & JF_CLOSED ? "CLOSE_WRITE" : r->flags & JF_FSYNC ? "FSYNC" : "MODIFY";
	if (r->type == JT_RENAME && r->flags & JF_EXCHANGE)
		return "EXCHANGE";
	return (size_t)r->type <= JT_LAST && names[r->type] ? names[r->type] : "UNKNOWN";
}

static void put_time(const struct jrec *r, const char *timefmt)
{
	time_t t = (time_t)(r->time_ns / 1000000000u);
	struct tm tm;
	const char *format = timefmt ? timefmt : "%Y-%m-%dT%H:%M:%S";
	char *text = NULL, *more;

	localtime_r(&t, &tm);
	/* 0 says that it did not fit, or that it is empty in this locale, like %p */
	for (size_t size = strlen(format) + 256, end = 64 * size; size <= end; size *= 4) {
		if ((more = realloc(text, size)) == NULL)
			break;
		text = more;
		if (strftime(text, size, format, &tm) > 0) {
			fputs(text, stdout);
			break;
		}
	}
	free(text);
	if (timefmt == NULL)
		printf(".%06u", (unsigned)(r->time_ns / 1000 % 1000000));
}

/* Print a path; the root, which is "", as ".". */
static void put_path(const char *path, bool raw)
{
	size_t size = 4 * strlen(path) + 1;
	char *shown;

	if (*path == '\0') {
		putchar('.');
	} else if (raw) {
		fputs(path, stdout);
	} else if ((shown = malloc(size)) != NULL) {
		fputs(path_show(shown, size, path), stdout);
		free(shown);
	}
}

/* START-END,START-END; the end is exclusive, "eof" for a range that reaches to the end of the file. */
static void put_extents(const struct extent_set *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		printf("%s%" PRIu64 "-", i ? "," : "", s->v[i].start);
		if (s->v[i].end == EXTENT_INF)
			fputs("eof", stdout);
		else
			printf("%" PRIu64, s->v[i].end);
	}
}

static void put_setattr(const struct jrec *r)
{
	if (r->valid & JV_MODE)
		printf(" mode=%04o", r->mode & 07777);
	if (r->valid & JV_UID)
		printf(" uid=%u", r->uid);
	if (r->valid & JV_GID)
		printf(" gid=%u", r->gid);
	if (r->valid & JV_MTIME)
		printf(" mtime=%" PRId64 ".%09u", r->mtime.sec, r->mtime.nsec);
}

static void put_recheck(const struct jrec *r)
{
	if (r->flags & JF_RECURSIVE)
		fputs(" recursive", stdout);
	if (r->flags & JF_CHECKSUM)
		fputs(" checksum", stdout);
	if (r->flags & JF_DRIFT)
		fputs(" drift", stdout);
	if (r->flags & JF_RECOVERY)
		fputs(" recovery", stdout);
}

static void put_details(const struct jrec *r)
{
	switch (r->type) {
	case JT_CREATE:
	case JT_MKDIR:
		printf(" mode=%04o uid=%u gid=%u", r->mode & 07777, r->uid, r->gid);
		break;
	case JT_MKNOD:
		printf(" mode=%06o uid=%u gid=%u dev=%u:%u", r->mode, r->uid, r->gid, major(r->rdev),
		       minor(r->rdev));
		break;
	case JT_UNLINK:
		printf(" links=%u", r->nlink);
		break;
	case JT_SETATTR:
		put_setattr(r);
		break;
	case JT_SETXATTR:
		fputs(" name=", stdout);
		put_path(r->xname, false);
		printf(" bytes=%u", r->xlen);
		break;
	case JT_REMOVEXATTR:
		fputs(" name=", stdout);
		put_path(r->xname, false);
		break;
	case JT_CONTENT:
		printf(" size=%" PRIu64 " extents=", r->size);
		put_extents(&r->extents);
		break;
	case JT_RECHECK:
		put_recheck(r);
		break;
	case JT_COLLAPSED:
		printf(" from=%" PRIu64 " to=%" PRIu64, r->from, r->to);
		break;
	default:
		break;
	}
}

/* The other path: new name of RENAME and LINK, what a symlink points to; "" for none. */
static const char *other(const struct jrec *r)
{
	return r->type == JT_SYMLINK ? r->target : r->path2;
}

void event_print_line(const struct jrec *r, const char *timefmt)
{
	put_time(r, timefmt);
	printf(" %" PRIu64 " %s", r->seq, event_name(r));
	if (r->type != JT_MOUNT && r->type != JT_COLLAPSED && r->type != JT_SEAL) {
		putchar(' ');
		put_path(r->path, false);
	}
	if (*other(r)) {
		fputs(" -> ", stdout);
		put_path(other(r), false);
	}
	put_details(r);
	putchar('\n');
}

char event_check_format(const char *format)
{
	for (const char *p = format; (p = strchr(p, '%')) != NULL; p += 2)
		if (p[1] == '\0' || strchr("newfFTxsimug0%", p[1]) == NULL)
			return (char)(p[1] ? p[1] : '%');
	return 0;
}

static void put_escape(const struct jrec *r, char c, bool raw, const char *timefmt)
{
	switch (c) {
	case 'n':
		printf("%" PRIu64, r->seq);
		break;
	case 'e':
		fputs(event_name(r), stdout);
		break;
	case 'w':
		put_path(r->path, raw);
		break;
	case 'f':
		put_path(path_base(r->path), raw);
		break;
	case 'F':
		if (*other(r))
			put_path(other(r), raw);
		break;
	case 'T':
		put_time(r, timefmt);
		break;
	case 'x':
		put_extents(&r->extents);
		break;
	case 's':
		printf("%" PRIu64, r->size);
		break;
	case 'i':
		printf("%" PRIu64, r->ino);
		break;
	case 'm':
		printf("%04o", r->mode & 07777);
		break;
	case 'u':
		printf("%u", r->uid);
		break;
	case 'g':
		printf("%u", r->gid);
		break;
	case '0':
		putchar('\0');
		break;
	default:
		putchar(c);
		break;
	}
}

/* Say whether the format has %0 (and not as the second half of "%%" and a 0). */
static bool nul_separated(const char *format)
{
	for (const char *p = format; (p = strchr(p, '%')) != NULL && p[1]; p += 2)
		if (p[1] == '0')
			return true;
	return false;
}

void event_print_format(const struct jrec *r, const char *format, const char *timefmt)
{
	bool raw = nul_separated(format);

	for (const char *p = format; *p; p++) {
		if (*p == '%' && p[1])
			put_escape(r, *++p, raw, timefmt);
		else
			putchar(*p);
	}
	if (!raw)
		putchar('\n');
}

static void json_attrs(json_t *o, const struct jrec *r)
{
	bool all = r->type == JT_CREATE || r->type == JT_MKDIR || r->type == JT_MKNOD;

	if (all || r->valid & JV_MODE)
		json_object_set_new(o, "mode", json_integer(r->mode));
	if (all || r->type == JT_SYMLINK || r->valid & JV_UID)
		json_object_set_new(o, "uid", json_integer(r->uid));
	if (all || r->type == JT_SYMLINK || r->valid & JV_GID)
		json_object_set_new(o, "gid", json_integer(r->gid));
	if (r->type == JT_MKNOD)
		json_object_set_new(o, "rdev", json_integer((json_int_t)r->rdev));
	if (r->valid & JV_MTIME)
		json_object_set_new(
		    o, "mtime_ns", json_integer(r->mtime.sec * INT64_C(1000000000) + (int64_t)r->mtime.nsec));
}

/* [[start, end], ...]; end null: to the end of the file. */
static json_t *json_extents(const struct extent_set *s)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < s->n; i++) {
		json_t *end = s->v[i].end == EXTENT_INF ? json_null() : json_integer((json_int_t)s->v[i].end);
		json_array_append_new(a, json_pack("[I, o]", (json_int_t)s->v[i].start, end));
	}
	return a;
}

static void json_type_members(json_t *o, const struct jrec *r)
{
	json_attrs(o, r);
	if (r->type == JT_CONTENT) {
		json_object_set_new(o, "size", json_integer((json_int_t)r->size));
		json_object_set_new(o, "extents", json_extents(&r->extents));
	} else if (r->type == JT_UNLINK) {
		json_object_set_new(o, "links", json_integer(r->nlink));
	} else if (r->type == JT_SETXATTR || r->type == JT_REMOVEXATTR) {
		ctl_set_path(o, "name", r->xname);
	} else if (r->type == JT_RECHECK) {
		json_object_set_new(o, "recursive", json_boolean(r->flags & JF_RECURSIVE));
	} else if (r->type == JT_COLLAPSED) {
		json_object_set_new(o, "from", json_integer((json_int_t)r->from));
		json_object_set_new(o, "to", json_integer((json_int_t)r->to));
	}
}

void event_print_json(const struct jrec *r)
{
	json_t *o = json_pack("{s:I, s:I, s:s}", "seq", (json_int_t)r->seq, "time_ns", (json_int_t)r->time_ns,
			      "event", event_name(r));

	if (o == NULL)
		return;
	if (r->ino)
		json_object_set_new(o, "ino", json_integer((json_int_t)r->ino));
	ctl_set_path(o, "path", r->path);
	if (r->type == JT_SYMLINK)
		ctl_set_path(o, "target", r->target);
	else if (*r->path2)
		ctl_set_path(o, "path2", r->path2);
	json_type_members(o, r);
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(o);
}
