# SPDX-License-Identifier: BSD-2-Clause
"""Random operations on a directory, by several threads, from a seed.

Every thread walks the tree at random and does one operation at a time: it creates, writes, appends, truncates, renames
(directories, ancestors of what others work in, over existing names, exchanged), links, changes attributes, maps, punches
holes. Names come from a small set so that the threads get into each other's way. Errors that such a race gives on any file
system are part of the game; any other error is kept in `errors` and fails the run.

    python3 -m lib.workload DIR [--seed N] [--threads N] [--ops N]
"""
import argparse
import collections
import contextlib
import errno
import mmap
import os
import random
import stat
import struct
import sys
import threading
import time
import traceback

from lib import syscalls
from lib.wait import wait_until

RACES = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.ELOOP, errno.EPERM,
         errno.ESTALE,  # a directory that is removed while it is opened, on NFS
         errno.EOPNOTSUPP, errno.EMLINK, errno.ENXIO, errno.ENODATA, errno.ENAMETOOLONG, errno.EBUSY, errno.EFBIG, errno.EXDEV}
DEAD = {errno.ECANCELED, errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ECONNREFUSED, errno.ESTALE, errno.EBADF, errno.ENODEV, errno.EINTR}

FILES = [f"f{i}" for i in range(12)] + ["naïve", "with blank", "new\nline", "x" * 200]
DIRS = [f"d{i}" for i in range(6)]
MAX_DEPTH = 5
FULL = 40  # entries of a directory from which on deleting is preferred
MODES = (0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o777)


class Workload:
    """errors: list of text; done: operations by name; history: the last operations, newest last."""

    def __init__(self, root, seed=1, threads=4, ops=400, use_mmap=True, tolerate=(), max_file=256 << 10, only=None, as_root=None, modes=None):
        self.root = os.fspath(root)
        self.seed, self.threads, self.ops = seed, threads, ops
        self.max_file = max_file
        self.tolerate = RACES | set(tolerate)
        self.errors = []
        self.done = collections.Counter()
        self.history = collections.deque(maxlen=400)
        self.as_root = os.geteuid() == 0 if as_root is None else as_root  # False: nothing that only root can do
        self.modes = modes or [m if self.as_root else m | 0o700 for m in MODES]  # who is not root must be able to go on, and so must the replicator
        self._shrink = threading.Lock()  # a mapped file must not get shorter: that is SIGBUS
        self._stop = threading.Event()
        self._workers = []
        weights = {op: w for op, w in WEIGHTS.items() if not only or op in only}
        if not use_mmap:
            weights.pop("mmap_store", None)
        self._ops, self._weights = list(weights), list(weights.values())

    def start(self):
        """Begin; with ops None the threads go on until stop()."""
        for number in range(self.threads):
            t = threading.Thread(target=self._work, args=(number,), daemon=True)
            t.start()
            self._workers.append(t)
        return self

    def stop(self):
        """End now; wait for the threads."""
        self._stop.set()
        return self.join()

    def join(self, timeout=600):
        """Wait until all operations are done."""
        end = time.monotonic() + timeout
        for t in self._workers:
            t.join(max(0, end - time.monotonic()))
            if t.is_alive():
                self.errors.append("a thread hangs; last operations:\n" + "\n".join(list(self.history)[-20:]))
        return self

    def busy(self):
        """Say whether a thread still works."""
        return any(t.is_alive() for t in self._workers)

    def wait_ops(self, count, timeout=60):
        """Wait until count more operations are done, or all are."""
        goal = self.total() + count
        wait_until(lambda: self.total() >= goal or not self.busy(), "operations", timeout)

    def run(self):
        """Do everything and fail on an error."""
        self.start().join().check()
        return self

    def check(self):
        """Fail if an operation got an error that a plain file system would not give."""
        if self.errors:
            raise AssertionError(f"seed {self.seed}: {len(self.errors)} operations failed:\n" + "\n".join(self.errors[:5]))

    def total(self):
        return sum(self.done.values())

    def _work(self, number):
        hand = _Hand(self, number)
        count = 0
        while not self._stop.is_set() and (self.ops is None or count < self.ops // self.threads):
            count += 1
            name = hand.rnd.choices(self._ops, self._weights)[0]
            hand.note = ""
            try:
                getattr(hand, name)()
                self.done[name] += 1
                result = "ok"
            except OSError as e:
                result = errno.errorcode.get(e.errno, str(e))
                if e.errno not in self.tolerate:
                    self.errors.append(f"{name} {hand.note}: {e!r}\n{traceback.format_exc(limit=-3)}")
            except Exception:  # noqa: BLE001  (shown by check)
                result = "error"
                self.errors.append(f"{name} {hand.note}:\n{traceback.format_exc()}")
            self.history.append(f"{number} {name} {hand.note}: {result}")


WEIGHTS = dict(create=12, write=12, append=8, append_flag=4, sparse_write=4, truncate=5, open_truncate=3, unlink=6, rmdir=3,
               mkdir=7, rename_file=8, rename_dir=6, rename_over=5, exchange=4, noreplace=2, link=6, symlink=4, mknod=3, chmod=4,
               chown=3, utimens=3, set_xattr=4, remove_xattr=2, set_acl=2, mmap_store=4, punch=4, zero=2, collapse=2, insert=1,
               preallocate=2, open_unlinked=3, unlinked_link=2, copy_range=3, fsync=3, replace=6, slow_write=3, remove_tree=1,
               deep_rename=3, temp_file=1)


class _Hand:
    """One thread's operations."""

    def __init__(self, load, number):
        self.load = load
        self.rnd = random.Random(f"{load.seed}/{number}")
        self.note = ""

    # choosing

    def _dir(self, stop=0.35):
        """A random directory, found by walking down."""
        path = self.load.root
        for _ in range(MAX_DEPTH):
            if self.rnd.random() < stop:
                break
            subs = sorted(e.name for e in os.scandir(path) if e.is_dir(follow_symlinks=False) and e.name != ".tandem")
            if not subs:
                break
            path = os.path.join(path, self.rnd.choice(subs))
        return path

    def _entry(self, test, path=None):
        path = path or self._dir()
        names = sorted(e.name for e in os.scandir(path) if e.name != ".tandem" and test(e))
        if not names:
            raise FileNotFoundError(errno.ENOENT, "nothing fits", path)
        return os.path.join(path, self.rnd.choice(names))

    def _file(self):
        return self._entry(lambda e: e.is_file(follow_symlinks=False))

    def _any(self):
        return self._entry(lambda e: True)

    def _subdir(self):
        return self._entry(lambda e: e.is_dir(follow_symlinks=False))

    def _new(self, names=FILES):
        return os.path.join(self._dir(), self.rnd.choice(names))

    def _bytes(self, limit=20000):
        n = self.rnd.choice((1, 100, 4096, self.rnd.randrange(1, limit)))
        return self.rnd.randbytes(n)

    @contextlib.contextmanager
    def _open(self, path, flags, mode=0o644):
        self.note = self._rel(path)
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a file", path)
            yield fd
        finally:
            os.close(fd)

    def _rel(self, *paths):
        return " -> ".join(repr(os.path.relpath(p, self.load.root)) for p in paths)

    def _offset(self, fd):
        size = os.fstat(fd).st_size
        return min(self.rnd.randrange(size + 4096), self.load.max_file)

    # names

    def create(self):
        path = self._new()
        if len(os.listdir(os.path.dirname(path))) > FULL:
            return self.unlink()
        with self._open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, self.rnd.choice((0o644, 0o600, 0o755))) as fd:
            for _ in range(self.rnd.randrange(3)):
                os.write(fd, self._bytes())

    def replace(self):
        """As editors do: a new file beside the old one, renamed over it."""
        path = self._new()
        temporary = path[:-1] + f".tmp{self.rnd.randrange(1000)}"
        with self._open(temporary, os.O_CREAT | os.O_WRONLY) as fd:
            os.write(fd, self._bytes())
            if self.rnd.random() < 0.3:
                os.fsync(fd)
        self.note = self._rel(temporary, path)
        try:
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise

    def mkdir(self):
        path = self._new(DIRS)
        self.note = self._rel(path)
        if path.count("/") - self.load.root.count("/") > MAX_DEPTH + 2:
            return
        os.mkdir(path, self.rnd.choice((0o755, 0o700, 0o2775)))

    def symlink(self):
        path = self._new()
        self.note = self._rel(path)
        os.symlink(self.rnd.choice(("f0", "../d1", "/nowhere", "x" * 300)), path)

    def mknod(self):
        path = self._new()
        self.note = self._rel(path)
        kind = self.rnd.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and not self.load.as_root:
            kind = stat.S_IFIFO
        os.mknod(path, kind | 0o640, os.makedev(self.rnd.choice((1, 200)), self.rnd.randrange(300)))

    def link(self):
        old, new = self._entry(lambda e: not e.is_dir(follow_symlinks=False)), self._new()
        self.note = self._rel(old, new)
        os.link(old, new, follow_symlinks=False)

    def unlink(self):
        path = self._entry(lambda e: not e.is_dir(follow_symlinks=False))
        self.note = self._rel(path)
        os.unlink(path)

    def rmdir(self):
        path = self._subdir()
        self.note = self._rel(path)
        os.rmdir(path)

    def remove_tree(self):
        path = self._subdir()
        self.note = self._rel(path)
        for top, dirs, files in os.walk(path, topdown=False):
            for n in files:
                os.unlink(os.path.join(top, n))
            for n in dirs:
                p = os.path.join(top, n)
                if os.path.islink(p):
                    os.unlink(p)
                else:
                    os.rmdir(p)
        os.rmdir(path)

    def rename_file(self):
        old, new = self._file(), self._new()
        self.note = self._rel(old, new)
        os.rename(old, new)

    def rename_dir(self):
        old, new = self._subdir(), self._new(DIRS)
        self.note = self._rel(old, new)
        os.rename(old, new)

    def deep_rename(self):
        """A directory at the top, so that everything others do below moves."""
        old = self._entry(lambda e: e.is_dir(follow_symlinks=False), self.load.root)
        new = os.path.join(self.load.root, self.rnd.choice(DIRS + [f"top{i}" for i in range(4)]))
        self.note = self._rel(old, new)
        os.rename(old, new)

    def rename_over(self):
        old, new = self._any(), self._any()
        self.note = self._rel(old, new)
        os.rename(old, new)

    def exchange(self):
        old, new = self._any(), self._any()
        self.note = self._rel(old, new)
        syscalls.renameat2(old, new, syscalls.RENAME_EXCHANGE)

    def noreplace(self):
        old, new = self._any(), self._new(FILES + DIRS)
        self.note = self._rel(old, new)
        syscalls.renameat2(old, new, syscalls.RENAME_NOREPLACE)

    # bytes

    def write(self):
        with self._open(self._file(), os.O_RDWR) as fd:
            for _ in range(self.rnd.randrange(1, 4)):
                os.pwrite(fd, self._bytes(), self._offset(fd))

    def append(self):
        with self._open(self._file(), os.O_WRONLY) as fd:
            if os.fstat(fd).st_size < self.load.max_file:
                os.pwrite(fd, self._bytes(), os.fstat(fd).st_size)

    def append_flag(self):
        with self._open(self._file(), os.O_WRONLY | os.O_APPEND) as fd:
            if os.fstat(fd).st_size < self.load.max_file:
                for _ in range(3):
                    os.write(fd, self._bytes(500))

    def sparse_write(self):
        with self._open(self._file(), os.O_WRONLY) as fd:
            os.pwrite(fd, self._bytes(), self.rnd.randrange(self.load.max_file * 4))

    def slow_write(self):
        """Written in pieces while the file stays open and others rename it."""
        with self._open(self._file(), os.O_WRONLY) as fd:
            for _ in range(3):
                os.pwrite(fd, self._bytes(), self._offset(fd))
                time.sleep(self.rnd.random() * 0.02)

    def truncate(self):
        with self.load._shrink, self._open(self._file(), os.O_WRONLY) as fd:
            os.ftruncate(fd, self._offset(fd))

    def open_truncate(self):
        with self.load._shrink, self._open(self._file(), os.O_WRONLY | os.O_TRUNC) as fd:
            os.write(fd, self._bytes())

    def mmap_store(self):
        """Stores left to munmap go to whole pages only. Since Linux 6.18 the kernel zeroes a FUSE file's last page beyond the size
        it knows when it writes that page back, also under a write(2) that is just extending the file; msync keeps writes out.
        The size is asked for by lseek, which waits for such a write: fstat shows it before page faults do, and those end in SIGBUS."""
        flush = self.rnd.random() < 0.5
        with self._open(self._file(), os.O_RDWR) as fd, self.load._shrink:
            size = os.lseek(fd, 0, os.SEEK_END)
            if not flush:
                size -= size % mmap.PAGESIZE
            if not size:
                return
            with mmap.mmap(fd, size) as m:
                for _ in range(3):
                    data = self._bytes(3000)[:size]
                    at = self.rnd.randrange(size - len(data) + 1)
                    m[at:at + len(data)] = data
                if flush:
                    m.flush()

    def _fallocate(self, mode, align=1):
        with self.load._shrink, self._open(self._file(), os.O_RDWR) as fd:
            at = self._offset(fd) // align * align
            n = max(align, self.rnd.randrange(1, 40000) // align * align)
            syscalls.fallocate(fd, mode, at, n)

    def punch(self):
        self._fallocate(syscalls.FALLOC_PUNCH_HOLE | syscalls.FALLOC_KEEP_SIZE)

    def zero(self):
        self._fallocate(syscalls.FALLOC_ZERO | self.rnd.choice((0, syscalls.FALLOC_KEEP_SIZE)))

    def collapse(self):
        self._fallocate(syscalls.FALLOC_COLLAPSE, 4096)

    def insert(self):
        self._fallocate(syscalls.FALLOC_INSERT, 4096)

    def preallocate(self):
        self._fallocate(self.rnd.choice((0, syscalls.FALLOC_KEEP_SIZE)))

    def copy_range(self):
        with self._open(self._file(), os.O_RDONLY) as src, self._open(self._file(), os.O_WRONLY) as dst:
            os.copy_file_range(src, dst, self.rnd.randrange(1, 50000), self._offset(src), self._offset(dst))

    def open_unlinked(self):
        path = self._file()
        with self._open(path, os.O_RDWR) as fd:
            os.unlink(path)
            os.pwrite(fd, self._bytes(), self._offset(fd))
            os.fchmod(fd, 0o600)

    def unlinked_link(self):
        """One of two names goes away while the file is written."""
        path, other = self._file(), self._new()
        os.link(path, other)
        with self._open(path, os.O_RDWR) as fd:
            os.pwrite(fd, self._bytes(), self._offset(fd))
            os.unlink(path)
            os.pwrite(fd, self._bytes(), self._offset(fd))

    def temp_file(self):
        """O_TMPFILE, given a name."""
        path = self._new()
        self.note = self._rel(path)
        fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR, 0o644)
        try:
            os.write(fd, self._bytes())
            syscalls.link_fd(fd, path)
        finally:
            os.close(fd)

    def fsync(self):
        with self._open(self._file(), os.O_RDWR) as fd:
            os.pwrite(fd, self._bytes(), self._offset(fd))
            self.rnd.choice((os.fsync, os.fdatasync))(fd)

    # attributes

    def chmod(self):
        path = self._any()
        self.note = self._rel(path)
        if not os.path.islink(path):
            os.chmod(path, self.rnd.choice(self.load.modes))

    def chown(self):
        path = self._any()
        self.note = self._rel(path)
        if self.load.as_root:
            os.lchown(path, self.rnd.choice((-1, 0, 1, 1000)), self.rnd.choice((-1, 0, 5, 1000)))

    def utimens(self):
        path = self._any()
        self.note = self._rel(path)
        t = self.rnd.randrange(0, 2_000_000_000) * 10**9 + self.rnd.randrange(10**9)
        os.utime(path, ns=(t, t), follow_symlinks=False)

    def set_xattr(self):
        path = self._any()
        self.note = self._rel(path)
        space = "trusted" if self.load.as_root and self.rnd.random() < 0.4 else "user"
        os.setxattr(path, f"{space}.t{self.rnd.randrange(3)}", self.rnd.randbytes(self.rnd.choice((0, 5, 200))), follow_symlinks=False)

    def remove_xattr(self):
        path = self._any()
        self.note = self._rel(path)
        names = [n for n in os.listxattr(path, follow_symlinks=False) if not n.startswith("security.")]
        if names:
            os.removexattr(path, self.rnd.choice(sorted(names)), follow_symlinks=False)

    def set_acl(self):
        path = self._any()
        self.note = self._rel(path)
        if os.path.islink(path):
            return
        name = "default" if os.path.isdir(path) and self.rnd.random() < 0.5 else "access"
        try:
            self._set_acl(path, name)
        except PermissionError:
            if name == "access" or os.path.isdir(path):  # a file may have taken its name
                raise

    def _set_acl(self, path, name):
        os.setxattr(path, f"system.posix_acl_{name}", acl(owner=7, users={self.rnd.choice((1, 1000)): self.rnd.randrange(8)}))


def acl(owner=6, group=4, other=4, users=None):
    """Bytes of a POSIX ACL as system.posix_acl_access holds it."""
    none = 0xffffffff
    entries = [(1, owner, none)] + [(2, perm, uid) for uid, perm in sorted((users or {}).items())] + [(4, group, none)]
    entries += ([(16, 7, none)] if users else []) + [(32, other, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ap.add_argument("dir")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=4)
    ap.add_argument("--ops", type=int, default=1000)
    o = ap.parse_args()
    load = Workload(o.dir, o.seed, o.threads, o.ops)
    began = time.monotonic()
    load.start().join()
    print(f"{load.total()} operations in {time.monotonic() - began:.1f} s: {dict(load.done)}")
    for e in load.errors:
        print(e, file=sys.stderr)
    return 1 if load.errors else 0


if __name__ == "__main__":
    sys.exit(main())
