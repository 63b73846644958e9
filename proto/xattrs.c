/* SPDX-License-Identifier: BSD-2-Clause
 * Extended attributes as one value.
 *
 * An inode is reached through a descriptor where the kernel allows it, else (O_PATH, symlinks) by a path
 * through /proc/self/fd with the l*xattr calls, which never follow a link at the end. Only the namespaces
 * user, trusted and security and the two POSIX ACLs are ours: other names in a list (system.nfs4_acl,
 * btrfs.*) belong to the file system below. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "proto/err.h"
#include "proto/xattrs.h"

#define LIST_MAX  65536u /* bytes: XATTR_LIST_MAX of the kernel */
#define VALUE_MAX 65536u /* bytes: XATTR_SIZE_MAX of the kernel */

/* How to reach one inode. */
struct inode {
	int fd;			  /* >= 0: use the f*xattr calls */
	char path[64 + NAME_MAX]; /* else this, with the l*xattr calls, or the following ones if follow */
	bool follow;		  /* path is the magic link of an O_PATH descriptor */
	bool none;		  /* it is known to have no attributes */
};

struct attr {
	const char *name;
	const uint8_t *value;
	uint32_t len;
};

/* --- calls --- */

static ssize_t call_list(const struct inode *i, char *out, size_t size)
{
	if (i->fd >= 0)
		return flistxattr(i->fd, out, size);
	return i->follow ? listxattr(i->path, out, size) : llistxattr(i->path, out, size);
}

static ssize_t call_get(const struct inode *i, const char *name, void *out, size_t size)
{
	if (i->fd >= 0)
		return fgetxattr(i->fd, name, out, size);
	return i->follow ? getxattr(i->path, name, out, size) : lgetxattr(i->path, name, out, size);
}

static int call_set(const struct inode *i, const struct attr *a)
{
	if (i->fd >= 0)
		return fsetxattr(i->fd, a->name, a->value, a->len, 0);
	return i->follow ? setxattr(i->path, a->name, a->value, a->len, 0)
			 : lsetxattr(i->path, a->name, a->value, a->len, 0);
}

static int call_remove(const struct inode *i, const char *name)
{
	if (i->fd >= 0)
		return fremovexattr(i->fd, name);
	return i->follow ? removexattr(i->path, name) : lremovexattr(i->path, name);
}

static int reach(struct inode *i, int fd, int dirfd, const char *name)
{
	int n;

	i->fd = fd;
	i->follow = false;
	i->none = false;
	if (fd >= 0) {
		ssize_t names = flistxattr(fd, NULL, 0);
		i->none = names == 0;
		if (names >= 0 || errno != EBADF)
			return 0;
		i->fd = -1;
		i->follow = true;
		n = snprintf(i->path, sizeof(i->path), "/proc/self/fd/%d", fd);
	} else if (dirfd == AT_FDCWD)
		n = snprintf(i->path, sizeof(i->path), "%s", name);
	else
		n = snprintf(i->path, sizeof(i->path), "/proc/self/fd/%d/%s", dirfd, name);
	return n > 0 && (size_t)n < sizeof(i->path) ? 0 : -ENAMETOOLONG;
}

/* --- names --- */

static bool starts(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static bool ours(const char *name)
{
	if (strlen(name) > XATTR_NAME_MAX)
		return false;
	if (starts(name, "system."))
		return strcmp(name, "system.posix_acl_access") == 0 ||
		       strcmp(name, "system.posix_acl_default") == 0;
	if (strcmp(name, "security.selinux") == 0 || starts(name, "trusted.overlay.") ||
	    starts(name, "trusted.SGI_ACL_")) /* how XFS shows its POSIX ACLs once more */
		return false;
	return starts(name, "user.") || starts(name, "trusted.") || starts(name, "security.");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of an inode, NUL after each, owned; *n gets their bytes. A file system without attributes has none.
 */
static int list_names(const struct inode *i, char **out, size_t *n)
{
	ssize_t got;

	*out = NULL;
	*n = 0;
	got = i->none ? 0 : call_list(i, NULL, 0);
	if (got == 0 || (got < 0 && (errno == ENOTSUP || errno == ENOSYS)))
		return 0;
	if (got < 0)
		return -errno;
	*out = malloc(LIST_MAX);
	if (*out == NULL)
		return -ENOMEM;
	got = call_list(i, *out, LIST_MAX);
	if (got < 0) {
		got = -errno;
		free(*out);
		*out = NULL;
		return (int)got;
	}
	*n = (size_t)got;
	return 0;
}

/* Our names among them, sorted, as views into list; owned array. */
static int sort_names(const char *list, size_t n, const char ***out, size_t *count)
{
	size_t all = 0;

	*count = 0;
	for (size_t k = 0; k < n; k++)
		all += list[k] == '\0';
	*out = calloc(all + 1, sizeof(**out));
	if (*out == NULL)
		return -ENOMEM;
	for (const char *p = list; n > 0 && p < list + n; p += strlen(p) + 1)
		if (ours(p))
			(*out)[(*count)++] = p;
	qsort(*out, *count, sizeof(**out), by_name);
	return 0;
}

/* --- reading --- */

/* Append one attribute. Returns 1, 0 when it is left out, or an error. */
static int read_one(struct buf *out, const struct inode *i, const char *name, uint8_t *value)
{
	ssize_t n = call_get(i, name, value, VALUE_MAX);

	if (n < 0 && (errno == ENODATA || errno == EACCES || errno == EPERM || errno == ENOTSUP))
		return 0; /* gone meanwhile, or not for us */
	if (n < 0)
		return -errno;
	buf_put_str(out, name);
	buf_put_blob(out, value, (uint32_t)n);
	return 1;
}

static int read_names(struct buf *out, const struct inode *i, const char **names, size_t count)
{
	size_t head = out->len;
	uint8_t *value;
	unsigned put = 0;
	int r = 0;

	buf_put_u16(out, 0);
	if (out->err != 0)
		return out->err;
	if (count == 0)
		return 0;
	value = malloc(VALUE_MAX);
	if (value == NULL)
		return -ENOMEM;
	for (size_t k = 0; k < count && r >= 0; k++) {
		r = read_one(out, i, names[k], value);
		if (r > 0)
			put++;
		if (out->err != 0)
			r = out->err;
		else if (out->len - head > XATTR_SET_MAX || put > UINT16_MAX)
			r = E_LIMIT;
	}
	free(value);
	if (r < 0)
		return r;
	out->data[head] = (uint8_t)put;
	out->data[head + 1] = (uint8_t)(put >> 8);
	return 0;
}

int xattrs_read(struct buf *out, int fd, int dirfd, const char *name)
{
	const char **names = NULL;
	size_t n, count, head = out->len;
	char *list = NULL;
	struct inode i;
	int r;

	if (out->err != 0)
		return out->err;
	r = reach(&i, fd, dirfd, name);
	if (r == 0)
		r = list_names(&i, &list, &n);
	if (r == 0)
		r = sort_names(list, n, &names, &count);
	if (r == 0)
		r = read_names(out, &i, names, count);
	if (r != 0) {
		out->len = head;
		out->err = 0;
	}
	free(names);
	free(list);
	return r;
}

/* --- applying --- */

/* Decode a set; *out is owned, its views point into set. Names not ours or out of order are refused. */
static int decode(const void *set, size_t len, struct attr **out, size_t *count)
{
	struct attr *v;
	struct buf b;
	size_t n;

	*out = NULL;
	*count = 0;
	if (len == 0)
		return 0;
	if (len > XATTR_SET_MAX)
		return E_LIMIT;
	buf_view(&b, set, len);
	n = buf_get_u16(&b);
	v = calloc(n + 1, sizeof(*v));
	if (v == NULL)
		return -ENOMEM;
	for (size_t k = 0; k < n && b.err == 0; k++) {
		v[k].name = buf_get_str(&b, NULL);
		v[k].value = buf_get_blob(&b, VALUE_MAX, &v[k].len);
		if (b.err == 0 && (!ours(v[k].name) || (k > 0 && strcmp(v[k - 1].name, v[k].name) >= 0)))
			b.err = E_PROTO;
	}
	if (buf_end(&b) != 0) {
		free(v);
		return buf_end(&b);
	}
	*out = v;
	*count = n;
	return 0;
}

/* Set what differs of the ACLs, or of all else. Returns the first error, after trying all. */
static int set_those(const struct inode *i, const struct attr *v, size_t count, bool acls, uint8_t now[VALUE_MAX])
{
	int r = 0;

	for (size_t k = 0; k < count; k++) {
		ssize_t n;

		if ((strncmp(v[k].name, "system.", 7) == 0) != acls)
			continue;
		n = call_get(i, v[k].name, now, VALUE_MAX);
		if (n == (ssize_t)v[k].len && memcmp(now, v[k].value, v[k].len) == 0)
			continue;
		if (call_set(i, &v[k]) != 0 && r == 0)
			r = -errno;
	}
	return r;
}

/* ACLs come last: they may take the owner's permission to set the others. */
static int set_all(const struct inode *i, const struct attr *v, size_t count)
{
	uint8_t *now = count > 0 ? malloc(VALUE_MAX) : NULL;
	int r, acls;

	if (count == 0)
		return 0;
	if (now == NULL)
		return -ENOMEM;
	r = set_those(i, v, count, false, now);
	acls = set_those(i, v, count, true, now);
	free(now);
	return r != 0 ? r : acls;
}

static bool in_set(const struct attr *v, size_t count, const char *name)
{
	for (size_t k = 0; k < count; k++)
		if (strcmp(v[k].name, name) == 0) /* NOLINT(clang-analyzer-core.NonNullParamChecker): count is 0 without v */
			return true;
	return false;
}

static int remove_rest(const struct inode *i, const struct attr *v, size_t count)
{
	char *list;
	size_t n;
	int r = list_names(i, &list, &n);

	for (const char *p = list; r <= 0 && p != NULL && p < list + n; p += strlen(p) + 1)
		if (ours(p) && !in_set(v, count, p) && call_remove(i, p) != 0 && errno != ENODATA && r == 0)
			r = -errno;
	free(list);
	return r;
}

int xattrs_apply(const void *set, size_t len, int fd, int dirfd, const char *name)
{
	struct inode i;
	struct attr *v;
	size_t count;
	int r, first;

	r = decode(set, len, &v, &count);
	if (r != 0)
		return r;
	first = reach(&i, fd, dirfd, name);
	if (first == 0) {
		first = remove_rest(&i, v, count); /* first: it makes room in the inode */
		r = set_all(&i, v, count);
		if (first == 0)
			first = r;
	}
	free(v);
	return first;
}

/* An ACL is u32 version, then u16 tag, u16 permissions, u32 id for each of its entries; all little-endian. */
void xattrs_owner(uint8_t *set, size_t len, uint32_t mode)
{
	enum { HEAD = 4, ENTRY = 8, USER_OBJ = 1 };
	struct buf b;
	uint32_t n;

	buf_view(&b, set, len);
	for (unsigned left = buf_get_u16(&b); left > 0 && b.err == 0; left--) {
		const char *name = buf_get_str(&b, NULL);
		const uint8_t *value = buf_get_blob(&b, VALUE_MAX, &n);

		if (value == NULL || strcmp(name, "system.posix_acl_access") != 0)
			continue;
		for (uint8_t *e = set + (value - set) + HEAD; (size_t)(e - value) + ENTRY <= n; e += ENTRY)
			if (e[0] == USER_OBJ && e[1] == 0)
				e[2] = mode >> 6 & 7;
	}
}

uint64_t xattrs_digest(const void *set, size_t len)
{
	static const uint8_t none[2];
	uint64_t h;

	if (len < sizeof(none) || memcmp(set, none, sizeof(none)) == 0)
		return 0;
	h = XXH3_64bits(set, len);
	return h != 0 ? h : 1;
}
