# SPDX-License-Identifier: BSD-2-Clause
"""Exact comparison of two directory trees.

Two trees are the same when they have the same names with the same types, modes, owners, sizes, modification times to the
nanosecond, link targets, device numbers, extended attributes (ACLs are among them), hard-link groups and bytes, and when
the copy of a file with holes has holes as well. `.tandem` at the top of either tree is not part of it.

    python3 -m lib.tree A B [--no-owner] [--no-dir-mtime] [--no-sparse] [--exclude NAME]

prints the differences; exit 0 none, 1 some, 2 could not compare.
"""
import argparse
import collections
import os
import stat
import sys

from lib.syscalls import ask_again

HIDDEN = b".tandem"
FOREIGN_XATTRS = ("security.selinux", "trusted.overlay", "trusted.SGI_ACL_", "system.nfs4_acl")  # belong to the host, or say the mode once more
CHUNK = 1 << 20
SLACK = 1 << 20  # bytes that the copy of a sparse file may have more than 1.25 times the original


def scan(root, exclude=()):
    """Return {relative path as bytes: lstat} of root (b"" is root itself)."""
    root = os.fsencode(root)
    skip = {os.fsencode(n) for n in exclude}
    found = {b"": os.lstat(root)}
    todo = [b""]
    while todo:
        directory = todo.pop()
        for name in os.listdir(os.path.join(root, directory)):
            path = os.path.join(directory, name)
            if path == HIDDEN or name in skip:
                continue
            found[path] = st = os.lstat(os.path.join(root, path))
            if stat.S_ISDIR(st.st_mode):
                todo.append(path)
    return found


def xattrs(path):
    """Return all extended attributes of path (not of what it points at)."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {n: os.getxattr(path, n, follow_symlinks=False) for n in names if not n.startswith(FOREIGN_XATTRS)}


def first_difference(a, b):
    """Say where files a and b differ first (in the first piece that differs), or None."""
    with open(a, "rb", buffering=0) as x, open(b, "rb", buffering=0) as y:
        offset = 0
        while True:
            p, q = x.read(CHUNK), y.read(CHUNK)
            if p != q:
                same = next((i for i, (m, n) in enumerate(zip(p, q)) if m != n), min(len(p), len(q)))
                last = next((i for i in range(min(len(p), len(q)) - 1, -1, -1) if p[i] != q[i]), same)
                return f"offset {offset + same} to {offset + last}: {p[same:same + 8].hex()}, copy {q[same:same + 8].hex()}"
            if not p:
                return None
            offset += len(p)


def _file(a, b, s, t, sparse):
    if s.st_size != t.st_size:
        yield f"size {s.st_size}, copy {t.st_size}"
        return
    at = first_difference(a, b)
    if at is not None:
        yield f"bytes differ, {s.st_size} in all; {at}"
    elif sparse and s.st_blocks * 512 < s.st_size and t.st_blocks * 512 > s.st_blocks * 512 * 1.25 + SLACK:
        yield f"holes lost: {s.st_blocks} blocks, copy {t.st_blocks}"


def _entry(a, b, s, t, owners, dir_mtime, sparse, mtime):
    kind = stat.S_IFMT(s.st_mode)
    if kind != stat.S_IFMT(t.st_mode):
        yield f"type {kind:o}, copy {stat.S_IFMT(t.st_mode):o}"
        return
    if kind != stat.S_IFLNK and s.st_mode != t.st_mode:
        yield f"mode {stat.S_IMODE(s.st_mode):04o}, copy {stat.S_IMODE(t.st_mode):04o}"
    if owners and (s.st_uid, s.st_gid) != (t.st_uid, t.st_gid):
        yield f"owner {s.st_uid}:{s.st_gid}, copy {t.st_uid}:{t.st_gid}"
    timed = mtime and kind != stat.S_IFSOCK and (kind != stat.S_IFDIR or dir_mtime)
    if timed and s.st_mtime_ns != t.st_mtime_ns:  # the kernel may have kept an old answer: fs/DESIGN.md, The kernel's caches
        ask_again(a)
        s = os.lstat(a)
    if timed and s.st_mtime_ns != t.st_mtime_ns:
        yield f"mtime {s.st_mtime_ns}, copy {t.st_mtime_ns} ({t.st_mtime_ns - s.st_mtime_ns:+d} ns)"
    if kind == stat.S_IFLNK and os.readlink(a) != os.readlink(b):
        yield f"link target {os.readlink(a)!r}, copy {os.readlink(b)!r}"
    if kind in (stat.S_IFBLK, stat.S_IFCHR) and s.st_rdev != t.st_rdev:
        yield f"device {s.st_rdev:#x}, copy {t.st_rdev:#x}"
    x, y = xattrs(a), xattrs(b)
    if x != y:
        wrong = sorted(n for n in x.keys() | y.keys() if x.get(n) != y.get(n))
        yield "xattrs differ: " + ", ".join(f"{n} {x.get(n)!r:.60}, copy {y.get(n)!r:.60}" for n in wrong)
    if kind == stat.S_IFREG:
        yield from _file(a, b, s, t, sparse)


def _groups(entries, common):
    groups = collections.defaultdict(set)
    for path in common:
        st = entries[path]
        if not stat.S_ISDIR(st.st_mode):
            groups[st.st_dev, st.st_ino].add(path)
    return {frozenset(g) for g in groups.values() if len(g) > 1}


def differences(a, b, owners=True, dir_mtime=True, sparse=True, exclude=(), mtime=True):
    """Return a list of lines "path: what differs" between tree a and its copy b; empty when they are the same.

    owners, mtime (of everything), dir_mtime and sparse (that holes stay holes) can be left out."""
    x, y = scan(a, exclude), scan(b, exclude)
    out = [(p, "missing in the copy") for p in x.keys() - y.keys()]
    out += [(p, "only in the copy") for p in y.keys() - x.keys()]
    common = x.keys() & y.keys()
    for p in common:
        pa, pb = (os.path.join(os.fsencode(r), p) if p else os.fsencode(r) for r in (a, b))
        out += [(p, what) for what in _entry(pa, pb, x[p], y[p], owners, dir_mtime, sparse, mtime)]
    ga, gb = _groups(x, common), _groups(y, common)
    out += [(min(g), f"{len(g)} names are one file, not so in the copy: {sorted(g)}") for g in ga - gb]
    out += [(min(g), f"{len(g)} names are one file in the copy only: {sorted(g)}") for g in gb - ga]
    return [f"{os.fsdecode(p) or '.'}: {what}" for p, what in sorted(out)]


def assert_same(a, b, **options):
    """Fail with the differences between a and its copy b."""
    diff = differences(a, b, **options)
    if diff:
        more = f"\n  ... and {len(diff) - 40} more" if len(diff) > 40 else ""
        raise AssertionError(f"{len(diff)} differences between {a} and {b}:\n  " + "\n  ".join(diff[:40]) + more)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ap.add_argument("a")
    ap.add_argument("b")
    ap.add_argument("--no-owner", action="store_true")
    ap.add_argument("--no-dir-mtime", action="store_true")
    ap.add_argument("--no-sparse", action="store_true")
    ap.add_argument("--exclude", action="append", default=[], metavar="NAME")
    o = ap.parse_args()
    try:
        diff = differences(o.a, o.b, owners=not o.no_owner, dir_mtime=not o.no_dir_mtime, sparse=not o.no_sparse, exclude=o.exclude)
    except OSError as e:
        print(f"could not compare: {e}")
        return 2
    for line in diff:
        print(line)
    print(f"{len(diff)} differences")
    return 1 if diff else 0


if __name__ == "__main__":
    sys.exit(main())
