/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <sys/stat.h>

#include "fs/tree.h"
#include "proto/err.h"
#include "proto/path.h"
#include "tests/unit/unit.h"

static struct tree t;
static char top[256];
static int rootfd;

static void begin(void)
{
	unit_scratch(top);
	rootfd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(rootfd, 0);
	ck_assert_int_eq(tree_init(&t, rootfd), 0);
}

static void end(void)
{
	tree_release(&t);
	unit_remove(top);
}

static struct stat made(uint64_t ino, mode_t mode)
{
	return (struct stat){.st_ino = ino, .st_dev = 1, .st_mode = mode, .st_nlink = 1};
}

static struct inode *enter(struct inode *parent, const char *name, uint64_t ino, mode_t mode)
{
	struct stat st = made(ino, mode);
	struct inode *i = tree_enter_locked(&t, parent, name, &st, false, NULL);

	ck_assert_ptr_nonnull(i);
	return i;
}

static const char *path(struct inode *i)
{
	static char out[PATH_LONGEST + 1];

	ck_assert_int_ge(tree_path_locked(&t, i, NULL, out), 0);
	return out;
}

START_TEST(a_path_is_built_from_names)
{
	begin();
	struct inode *a = enter(t.root, "a", 10, S_IFDIR), *b = enter(a, "b", 11, S_IFDIR), *f = enter(b, "f", 12, S_IFREG);
	char out[PATH_LONGEST + 1];
	ck_assert_str_eq(path(f), "a/b/f");
	ck_assert_str_eq(path(t.root), "");
	ck_assert_int_eq(tree_path_locked(&t, b, "new", out), 7);
	ck_assert_str_eq(out, "a/b/new");
	end();
}
END_TEST

START_TEST(a_renamed_directory_takes_along_what_is_below)
{
	begin();
	struct inode *a = enter(t.root, "a", 10, S_IFDIR), *b = enter(t.root, "b", 11, S_IFDIR), *f = enter(a, "f", 12, S_IFREG);
	ck_assert_int_eq(tree_move_locked(&t, t.root, "a", b, "c"), 0);
	ck_assert_str_eq(path(f), "b/c/f");
	end();
}
END_TEST

START_TEST(a_rename_replaces_what_was_there)
{
	begin();
	struct inode *f = enter(t.root, "f", 10, S_IFREG), *g = enter(t.root, "g", 11, S_IFREG);
	ck_assert_int_eq(tree_move_locked(&t, t.root, "f", t.root, "g"), 0);
	ck_assert_ptr_eq(tree_child_locked(&t, t.root, "g"), f);
	ck_assert_ptr_null(tree_child_locked(&t, t.root, "f"));
	ck_assert_ptr_null(g->names);
	end();
}
END_TEST

START_TEST(two_names_exchange)
{
	begin();
	struct inode *d = enter(t.root, "d", 10, S_IFDIR), *f = enter(d, "f", 11, S_IFREG), *e = enter(t.root, "e", 12, S_IFDIR);
	ck_assert_int_eq(tree_swap_locked(&t, t.root, "e", d, "f"), 0);
	ck_assert_str_eq(path(e), "d/f");
	ck_assert_str_eq(path(f), "e");
	end();
}
END_TEST

START_TEST(two_links_are_one_inode)
{
	begin();
	struct inode *f = enter(t.root, "f", 10, S_IFREG), *g = enter(t.root, "g", 10, S_IFREG);
	ck_assert_ptr_eq(f, g);
	ck_assert_uint_eq(f->nlookup, 2);
	tree_unname_locked(&t, t.root, "g");
	ck_assert_str_eq(path(f), "f");
	tree_unname_locked(&t, t.root, "f");
	char out[PATH_LONGEST + 1];
	ck_assert_int_eq(tree_path_locked(&t, f, NULL, out), -ENOENT);
	end();
}
END_TEST

START_TEST(a_directory_has_one_name)
{
	begin();
	struct inode *a = enter(t.root, "a", 10, S_IFDIR);
	ck_assert_ptr_eq(enter(t.root, "b", 10, S_IFDIR), a);
	ck_assert_str_eq(path(a), "b");
	ck_assert_ptr_null(tree_child_locked(&t, t.root, "a"));
	end();
}
END_TEST

/* Those of FAT, NTFS and CIFS have 255 characters, so up to 765 bytes. */
START_TEST(a_long_name_is_a_name)
{
	begin();
	char name[766] = {0};
	struct dirfd *d;
	memset(name, 'n', sizeof(name) - 1);
	struct inode *a = enter(t.root, name, 10, S_IFDIR);
	ck_assert_str_eq(path(a), name);
	ck_assert_int_eq(dirfd_get(&t, a, &d), -ENAMETOOLONG); /* not on this file system */
	end();
}
END_TEST

START_TEST(a_name_that_changed_hands_is_told)
{
	begin();
	bool moved = true;
	struct stat st = made(10, S_IFREG);
	tree_enter_locked(&t, t.root, "f", &st, false, &moved);
	ck_assert(!moved);
	st.st_ino = 11;
	tree_enter_locked(&t, t.root, "f", &st, false, &moved);
	ck_assert(moved);
	end();
}
END_TEST

START_TEST(a_reused_number_is_another_inode)
{
	begin();
	struct inode *old = enter(t.root, "old", 10, S_IFREG);
	uint64_t id = tree_nodeid(&t, old);
	struct stat st = made(10, S_IFREG);
	struct inode *new = tree_enter_locked(&t, t.root, "new", &st, true, NULL);
	ck_assert_ptr_ne(new, old);
	ck_assert_ptr_eq(tree_get(&t, id), old);
	ck_assert_ptr_null(old->names);
	ck_assert_ptr_eq(enter(t.root, "new", 10, S_IFREG), new);
	end();
}
END_TEST

START_TEST(another_type_under_the_same_number_is_another_inode)
{
	begin();
	struct inode *f = enter(t.root, "x", 10, S_IFREG), *d = enter(t.root, "x", 10, S_IFDIR);
	ck_assert_ptr_ne(f, d);
	ck_assert_ptr_eq(tree_child_locked(&t, t.root, "x"), d);
	end();
}
END_TEST

START_TEST(node_ids_are_never_used_again)
{
	begin();
	uint64_t ids[3];
	for (int n = 0; n < 3; n++) {
		struct inode *f = enter(t.root, "f", 10, S_IFREG);
		ids[n] = tree_nodeid(&t, f);
		ck_assert_ptr_eq(tree_find_locked(&t, ids[n]), f);
		tree_forget(&t, f, 1);
		ck_assert_ptr_null(tree_find_locked(&t, ids[n]));
	}
	ck_assert_uint_ne(ids[0], ids[1]);
	ck_assert_uint_ne(ids[1], ids[2]);
	ck_assert_ptr_null(tree_find_locked(&t, 1ull << 60));
	ck_assert_ptr_eq(tree_find_locked(&t, 1), t.root);
	end();
}
END_TEST

START_TEST(what_is_above_a_remembered_inode_stays)
{
	begin();
	struct inode *a = enter(t.root, "a", 10, S_IFDIR), *b = enter(a, "b", 11, S_IFDIR), *f = enter(b, "f", 12, S_IFREG);
	tree_forget(&t, a, 1);
	tree_forget(&t, b, 1);
	ck_assert_str_eq(path(f), "a/b/f");
	tree_forget(&t, f, 1);
	ck_assert_uint_eq(t.ninodes, 1);
	ck_assert_uint_eq(t.ndentries, 0);
	end();
}
END_TEST

START_TEST(a_pin_keeps_an_inode)
{
	begin();
	struct inode *f = enter(t.root, "f", 10, S_IFREG);
	tree_pin_locked(f);
	tree_forget(&t, f, 1);
	ck_assert_str_eq(path(f), "f");
	tree_unpin_locked(&t, f);
	ck_assert_uint_eq(t.ninodes, 1);
	end();
}
END_TEST

START_TEST(a_path_that_is_too_long_is_refused)
{
	begin();
	struct inode *d = t.root;
	char name[251], out[PATH_LONGEST + 1];
	memset(name, 'n', 250);
	name[250] = '\0';
	size_t depth = 0;
	for (; (depth + 1) * 251 <= PATH_LONGEST; depth++)
		d = enter(d, name, 100 + depth, S_IFDIR);
	ck_assert_int_eq(tree_path_locked(&t, d, NULL, out), (int)(depth * 251 - 1));
	ck_assert_int_eq(tree_path_locked(&t, d, name, out), E_LIMIT);
	end();
}
END_TEST

START_TEST(an_inode_costs_less_than_300_bytes)
{
	begin();
	enum { N = 200000 };
	size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
	struct inode *d = enter(t.root, "directory", 10, S_IFDIR);
	for (unsigned n = 0; n < N; n++) {
		char name[32];
		snprintf(name, sizeof(name), "file-name-%06u.txt", n);
		enter(d, name, 1000 + n, S_IFREG);
	}
	size_t each = (mallinfo2().uordblks + mallinfo2().hblkhd - before) / N;
	ck_assert_uint_le(each, 300);
	for (unsigned n = 0; n < N; n++) {
		char name[32];
		snprintf(name, sizeof(name), "file-name-%06u.txt", n);
		tree_forget(&t, tree_child_locked(&t, d, name), 1);
	}
	ck_assert_uint_eq(t.ninodes, 2);
	ck_assert_uint_eq(t.ndentries, 1);
	end();
}
END_TEST

/* A directory made below and entered. */
static struct inode *make_dir(struct inode *parent, const char *name, const char *where)
{
	struct stat st;

	ck_assert_int_eq(mkdirat(rootfd, where, 0700), 0);
	ck_assert_int_eq(fstatat(rootfd, where, &st, 0), 0);
	struct inode *i = tree_enter_locked(&t, parent, name, &st, false, NULL);
	ck_assert_ptr_nonnull(i);
	return i;
}

static bool is(int fd, const struct inode *i)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == i->ino && st.st_dev == i->dev;
}

START_TEST(a_descriptor_is_opened_through_the_names)
{
	begin();
	struct inode *a = make_dir(t.root, "a", "a"), *b = make_dir(a, "b", "a/b");
	struct dirfd *d;
	ck_assert_int_eq(dirfd_get(&t, b, &d), 0);
	ck_assert(is(d->fd, b));
	dirfd_put(&t, d);
	end();
}
END_TEST

START_TEST(a_directory_moved_behind_our_back_is_stale)
{
	begin();
	struct inode *a = make_dir(t.root, "a", "a");
	struct dirfd *d;
	ck_assert_int_eq(renameat(rootfd, "a", rootfd, "b"), 0);
	ck_assert_int_eq(mkdirat(rootfd, "a", 0700), 0);
	ck_assert_int_eq(dirfd_get(&t, a, &d), -ESTALE);
	end();
}
END_TEST

START_TEST(descriptors_are_bounded)
{
	begin();
	struct inode *dirs[DIRFD_MAX + 50];
	struct dirfd *d, *held;
	for (int n = 0; n < DIRFD_MAX + 50; n++) {
		char name[16];
		snprintf(name, sizeof(name), "d%d", n);
		dirs[n] = make_dir(t.root, name, name);
	}
	ck_assert_int_eq(dirfd_get(&t, dirs[0], &held), 0);
	for (int n = 0; n < DIRFD_MAX + 50; n++) {
		ck_assert_int_eq(dirfd_get(&t, dirs[n], &d), 0);
		dirfd_put(&t, d);
		ck_assert_uint_le(t.ndirfds, DIRFD_MAX);
	}
	ck_assert(is(held->fd, dirs[0])); /* in use: not evicted */
	dirfd_put(&t, held);
	end();
}
END_TEST

/* Others made a file with the number of a removed one that the kernel remembers: what is written to it must be recorded. */
START_TEST(an_inode_that_is_found_by_a_name_is_not_gone)
{
	begin();
	struct inode *f = enter(t.root, "f", 10, S_IFREG);
	tree_unname_locked(&t, t.root, "f");
	f->gone = true;
	ck_assert_ptr_eq(enter(t.root, "g", 10, S_IFREG), f);
	ck_assert(!f->gone);
	end();
}
END_TEST

UNIT_MAIN("tree", an_inode_that_is_found_by_a_name_is_not_gone, a_path_is_built_from_names, a_renamed_directory_takes_along_what_is_below, a_rename_replaces_what_was_there,
	  two_names_exchange, two_links_are_one_inode, a_long_name_is_a_name, a_directory_has_one_name, a_name_that_changed_hands_is_told,
	  a_reused_number_is_another_inode, another_type_under_the_same_number_is_another_inode, node_ids_are_never_used_again,
	  what_is_above_a_remembered_inode_stays, a_pin_keeps_an_inode, a_path_that_is_too_long_is_refused,
	  an_inode_costs_less_than_300_bytes, a_descriptor_is_opened_through_the_names,
	  a_directory_moved_behind_our_back_is_stale, descriptors_are_bounded)
