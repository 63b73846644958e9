#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Run the same system calls on two directories and print where results differ.

Usage: posix_probe.py NATIVE MOUNT

Every step is tried as root and, where a user is given, as that user in a child process. A step's outcome is what it
returned or its errno, followed by the visible state of what it touched, without inode numbers and times."""
import ctypes
import errno
import fcntl
import itertools
import json
import mmap
import os
import shutil
import socket
import stat
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
USERS = [None, (65534, 65534, []), (1001, 1001, [1002]), (1002, 1002, [])]
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
STEPS = []


def step(fn):
    STEPS.append(fn)
    return fn


def call(name, *args):
    r = getattr(libc, name)(*args)
    if r < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return r


def renameat2(a, b, flags):
    return call("renameat2", -100, a.encode(), -100, b.encode(), flags)


def outcome(fn, *args):
    try:
        r = fn(*args)
        return r if r is not None else 0
    except OSError as e:
        return errno.errorcode.get(e.errno, e.errno)


def look(path):
    try:
        s = os.lstat(path)
    except OSError as e:
        return errno.errorcode[e.errno]
    size = s.st_size if not stat.S_ISDIR(s.st_mode) else 0
    link = s.st_nlink if not stat.S_ISDIR(s.st_mode) else s.st_nlink
    return "%o %d:%d n%d s%d r%x" % (s.st_mode, s.st_uid, s.st_gid, link, size, s.st_rdev)


def as_user(user, fn, *args):
    """Run in a child with the user's ids; return the outcome."""
    if user is None:
        return outcome(fn, *args)
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(user[2])
            os.setgid(user[1])
            os.setuid(user[0])
            out = repr(outcome(fn, *args))
        except BaseException as e:
            out = "child: %r" % e
        os.write(w, out.encode())
        os._exit(0)
    os.close(w)
    out = b""
    while True:
        b = os.read(r, 65536)
        if not b:
            break
        out += b
    os.close(r)
    os.waitpid(pid, 0)
    return out.decode()


def wipe(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        outcome(os.unlink, path)


def write(path, data=b"x", flags=os.O_WRONLY | os.O_CREAT, mode=0o666):
    fd = os.open(path, flags, mode)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def make_kind(path, kind):
    """One file of each kind."""
    if kind == "file":
        write(path, b"data")
    elif kind == "dir":
        os.mkdir(path)
    elif kind == "fulldir":
        os.mkdir(path)
        write(path + "/in")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        os.symlink("nowhere", path)
    elif kind == "socket":
        s = socket.socket(socket.AF_UNIX)
        fd = os.open(os.path.dirname(path), os.O_PATH)
        s.bind("/proc/self/fd/%d/%s" % (fd, os.path.basename(path)))
        os.close(fd)
        s.close()
    elif kind == "char":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    elif kind == "block":
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 200))
    elif kind == "none":
        pass


KINDS = ["none", "file", "dir", "fulldir", "fifo", "symlink", "socket", "char", "block"]


@step
def kinds_made(d, emit):
    for k in KINDS:
        for um in (0, 0o22, 0o77):
            old = os.umask(um)
            p = "%s/%s%o" % (d, k, um)
            emit(k, um, outcome(make_kind, p, k), look(p))
            os.umask(old)


@step
def rename_matrix(d, emit):
    n = 0
    for a, b in itertools.product(KINDS, KINDS):
        for fl in (0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, 8):
            n += 1
            w = "%s/r%d" % (d, n)
            os.mkdir(w)
            make_kind(w + "/a", a)
            make_kind(w + "/b", b)
            emit(a, b, fl, outcome(renameat2, w + "/a", w + "/b", fl), look(w + "/a"), look(w + "/b"), look(w))


@step
def rename_special(d, emit):
    os.makedirs(d + "/p/q/r")
    for a, b in (("p", "p/q/x"), ("p/q", "p"), ("p/q/r", "p"), ("p", "p"), ("p/.", "z"), ("p/..", "z"), ("p", "z/"), ("z", "p/")):
        emit(a, b, outcome(os.rename, d + "/" + a, d + "/" + b))
    make_kind(d + "/f", "file")
    os.link(d + "/f", d + "/g")
    emit("hard", outcome(os.rename, d + "/f", d + "/g"), look(d + "/f"), look(d + "/g"))
    emit("slash", outcome(os.rename, d + "/f", d + "/h/"))


@step
def removal(d, emit):
    for k in KINDS:
        for fn in (os.unlink, os.rmdir):
            p = d + "/x"
            make_kind(p, k)
            emit(k, fn.__name__, outcome(fn, p), look(p))
            wipe(p)
    for p in ("/.", "/..", "", "/nope/x"):
        emit(p, outcome(os.rmdir, d + p), outcome(os.unlink, d + p))


@step
def links(d, emit):
    for k in KINDS:
        p = d + "/" + k
        make_kind(p, k)
        emit(k, outcome(os.link, p, p + "2", follow_symlinks=False) if False else
             outcome(lambda: os.link(p, p + "2", follow_symlinks=False)), look(p), look(p + "2"))
    f = d + "/file"
    for n in range(5):
        os.link(f, "%s/n%d" % (d, n))
        emit("n", look(f), look("%s/n%d" % (d, n)), os.stat(f).st_ino == os.stat("%s/n%d" % (d, n)).st_ino)
    os.rename(d + "/n0", d + "/n1")
    os.unlink(d + "/n2")
    emit("after", look(f), look(d + "/n0"), look(d + "/n1"))
    emit("exist", outcome(os.link, f, d + "/n1"), outcome(os.link, d + "/gone", d + "/new"))


@step
def modes(d, emit):
    for k in KINDS[1:]:
        for m in (0, 0o777, 0o4755, 0o2755, 0o6777, 0o1777, 0o2644):
            p = "%s/%s%o" % (d, k, m)
            make_kind(p, k)
            emit(k, m, outcome(lambda: os.chmod(p, m)), look(p))
            for u in USERS[1:]:
                emit(k, m, u, as_user(u, os.chmod, p, 0o700), look(p))
                os.lchown(p, u[0], u[1])
                emit("own", as_user(u, os.chmod, p, m), look(p))
                os.lchown(p, u[0], 2222)
                emit("othergroup", as_user(u, os.chmod, p, m | 0o2000), look(p))


@step
def owners(d, emit):
    for k in KINDS[1:]:
        for m in (0o6755, 0o2745, 0o4644, 0o777):
            for u in USERS:
                for owner in ((0, 0), (1001, 1001), (1001, 1002)):
                    p = d + "/o"
                    make_kind(p, k)
                    os.lchown(p, *owner)
                    if k != "symlink":
                        os.chmod(p, m)
                    for to in ((0, 0), (-1, -1), (1001, -1), (-1, 1002), (1001, 1001), (65534, 65534)):
                        emit(k, m, u, owner, to, as_user(u, os.lchown, p, *to), look(p))
                    wipe(p)


def do_write(p, how):
    if how == "write":
        return write(p, b"yy", os.O_WRONLY)
    if how == "append":
        return write(p, b"yy", os.O_WRONLY | os.O_APPEND)
    if how == "trunc":
        return write(p, b"", os.O_WRONLY | os.O_TRUNC)
    if how == "rdtrunc":
        os.close(os.open(p, os.O_RDONLY | os.O_TRUNC))
    if how == "truncate":
        return os.truncate(p, 1)
    if how == "grow":
        return os.truncate(p, 100)
    fd = os.open(p, os.O_RDWR)
    try:
        if how == "ftruncate":
            os.ftruncate(fd, 1)
        elif how == "falloc":
            os.posix_fallocate(fd, 0, 100)
        elif how == "mmap":
            with mmap.mmap(fd, 4) as m:
                m[0:1] = b"z"
                m.flush()
        elif how == "punch":
            call("fallocate", fd, 3, ctypes.c_long(0), ctypes.c_long(2))
    finally:
        os.close(fd)


@step
def privileges_stripped(d, emit):
    for how in ("write", "append", "trunc", "rdtrunc", "truncate", "grow", "ftruncate", "falloc", "mmap", "punch"):
        for m in (0o6777, 0o2767, 0o4666, 0o6755):
            for u in USERS:
                p = d + "/s"
                write(p, b"12345678")
                os.chown(p, 1001, 1001)
                os.chmod(p, m)
                emit(how, oct(m), u, as_user(u, do_write, p, how), look(p))
                os.unlink(p)


@step
def sgid_directories(d, emit):
    for gid in (0, 1001, 1002, 2222):
        for m in (0o2777, 0o3777, 0o777):
            for u in USERS:
                p = d + "/g"
                os.mkdir(p)
                os.chown(p, 0, gid)
                os.chmod(p, m)
                for fm in (0o666, 0o2755, 0o6777, 0o1777):
                    for um in (0, 0o27):
                        old = os.umask(um)
                        emit(gid, m, u, fm, um, as_user(u, lambda: os.close(os.open(p + "/f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, fm))), look(p + "/f"))
                        emit(as_user(u, os.mkdir, p + "/d", fm), look(p + "/d"))
                        emit(as_user(u, os.mkfifo, p + "/p", fm), look(p + "/p"))
                        emit(as_user(u, lambda: os.mknod(p + "/m", stat.S_IFREG | fm)), look(p + "/m"))
                        emit(as_user(u, os.symlink, "x", p + "/l"), look(p + "/l"))
                        os.umask(old)
                        shutil.rmtree(p + "/d", ignore_errors=True)
                        for x in "fpml":
                            outcome(os.unlink, p + "/" + x)
                shutil.rmtree(p)


@step
def sticky(d, emit):
    for dm in (0o1777, 0o777, 0o755, 0o1755):
        for downer in (0, 1001):
            for fowner in (0, 1001, 1002):
                for u in USERS:
                    p = d + "/t"
                    os.mkdir(p)
                    os.chown(p, downer, downer)
                    os.chmod(p, dm)
                    for k in ("file", "dir"):
                        make_kind(p + "/" + k, k)
                        os.chown(p + "/" + k, fowner, fowner)
                    emit(dm, downer, fowner, u, as_user(u, os.rename, p + "/file", p + "/file2"),
                         as_user(u, os.rename, p + "/dir", p + "/dir2"), as_user(u, os.unlink, p + "/file"),
                         as_user(u, os.rmdir, p + "/dir"), as_user(u, os.link, p + "/file2", p + "/l"), look(p + "/l"))
                    shutil.rmtree(p)


@step
def access_rights(d, emit):
    for m in (0o000, 0o400, 0o200, 0o100, 0o040, 0o004, 0o020, 0o002, 0o777, 0o644):
        for owner in ((0, 0), (1001, 1001), (1002, 1002), (5, 1002)):
            p = d + "/f"
            write(p, b"data")
            os.chown(p, *owner)
            os.chmod(p, m)
            for u in USERS:
                for fl in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC, os.O_PATH, os.O_RDONLY | os.O_NOATIME):
                    emit(oct(m), owner, u, fl, as_user(u, lambda: os.close(os.open(p, fl))), look(p))
                emit(as_user(u, os.access, p, os.X_OK), as_user(u, os.utime, p), as_user(u, os.utime, p, (1, 1)),
                     as_user(u, os.truncate, p, 3), as_user(u, os.getxattr, p, "user.x"), as_user(u, os.setxattr, p, "user.y", b"1"))
            os.unlink(p)


@step
def dir_rights(d, emit):
    for m in (0o000, 0o400, 0o500, 0o100, 0o300, 0o070, 0o007, 0o755, 0o711):
        for owner in ((1001, 1001), (5, 1002)):
            p = d + "/dd"
            os.mkdir(p)
            write(p + "/f", b"x")
            os.chown(p, *owner)
            os.chmod(p, m)
            for u in USERS:
                emit(oct(m), owner, u, as_user(u, lambda: sorted(os.listdir(p))), as_user(u, lambda: os.stat(p + "/f").st_size),
                     as_user(u, write, p + "/n"), as_user(u, os.unlink, p + "/n"), as_user(u, os.mkdir, p + "/m"), as_user(u, os.rmdir, p + "/m"),
                     as_user(u, os.rename, p + "/f", p + "/g"), as_user(u, os.rename, p + "/g", p + "/f"))
            shutil.rmtree(p)


@step
def names(d, emit):
    for n in (254, 255, 256, 300):
        p = d + "/" + "n" * n
        emit(n, outcome(write, p), look(p)[:6], outcome(os.mkdir, p + "d"), outcome(os.unlink, p), outcome(os.rename, p, p + "x"))
    for n in ("a b", "a\nb", "\\", "\x01", "é", "."*3):
        emit(n, outcome(write, d + "/" + n), look(d + "/" + n))
    emit(sorted(os.listdir(d)))
    emit(outcome(write, os.fsencode(d) + b"/\xff\xfe"), sorted(os.listdir(os.fsencode(d))))
    cur = d
    fds = []
    fd = os.open(d, os.O_RDONLY)
    for i in range(40):
        os.mkdir("x" * 200, dir_fd=fd)
        nfd = os.open("x" * 200, os.O_RDONLY, dir_fd=fd)
        fds.append(fd)
        fd = nfd
    w = os.open("deep", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
    os.write(w, b"deep")
    os.close(w)
    emit("deep", os.stat("deep", dir_fd=fd).st_size, os.listdir(fd))
    os.rename("deep", "deeper", src_dir_fd=fd, dst_dir_fd=fd)
    emit(os.listdir(fd))
    os.unlink("deeper", dir_fd=fd)
    emit("long", outcome(os.stat, d + ("/" + "x" * 200) * 21))
    for f in reversed(fds):
        os.close(fd)
        fd = f
        os.rmdir("x" * 200, dir_fd=fd)
    os.close(fd)


@step
def symlinks(d, emit):
    os.symlink("loop", d + "/loop")
    emit(outcome(os.stat, d + "/loop"), outcome(open, d + "/loop"))
    for n in (1, 59, 60, 255, 4000, 4095, 4096):
        p = "%s/l%d" % (d, n)
        emit(n, outcome(os.symlink, "t" * n, p), look(p), outcome(lambda: len(os.readlink(p))))
    emit(outcome(os.symlink, "", d + "/empty"))
    os.symlink("l1", d + "/chain")
    write(d + "/real", b"1")
    os.symlink("real", d + "/good")
    emit(outcome(lambda: open(d + "/good").read()), outcome(write, d + "/good", b"22"), look(d + "/real"))
    emit(outcome(os.open, d + "/good", os.O_RDONLY | os.O_NOFOLLOW), outcome(lambda: os.chmod(d + "/good", 0o600)), look(d + "/real"))
    emit(outcome(lambda: os.utime(d + "/good", (5, 6), follow_symlinks=False)), os.lstat(d + "/good").st_mtime, os.stat(d + "/real").st_mtime != 6)
    emit(outcome(os.open, d + "/good", os.O_CREAT | os.O_EXCL | os.O_WRONLY), outcome(os.mkdir, d + "/good"), outcome(os.readlink, d + "/real"))
    emit(outcome(lambda: os.setxattr(d + "/good", "trusted.x", b"1", follow_symlinks=False)), outcome(lambda: os.listxattr(d + "/good", follow_symlinks=False)),
         outcome(lambda: os.setxattr(d + "/good", "user.x", b"1", follow_symlinks=False)), outcome(os.listxattr, d + "/real"))


@step
def times(d, emit):
    def changed(path, fn):
        before = os.lstat(path)
        time.sleep(0.012)
        r = outcome(fn)
        try:
            after = os.lstat(path)
        except OSError as e:
            return r, e.errno
        return r, after.st_mtime_ns != before.st_mtime_ns, after.st_ctime_ns != before.st_ctime_ns
    f = d + "/f"
    write(f, b"12345")
    os.mkdir(d + "/s")
    emit("create", changed(d, lambda: write(d + "/n")))
    emit("mkdir", changed(d, lambda: os.mkdir(d + "/m")))
    emit("unlink", changed(d, lambda: os.unlink(d + "/n")))
    emit("rmdir", changed(d, lambda: os.rmdir(d + "/m")))
    emit("write", changed(f, lambda: write(f, b"9", os.O_WRONLY)), changed(d, lambda: write(f, b"9", os.O_WRONLY)))
    emit("chmod", changed(f, lambda: os.chmod(f, 0o640)))
    emit("chown", changed(f, lambda: os.chown(f, 1, 1)), changed(f, lambda: os.chown(f, -1, -1)))
    emit("link", changed(f, lambda: os.link(f, d + "/h")), changed(d, lambda: os.link(f, d + "/h2")))
    emit("unlink link", changed(f, lambda: os.unlink(d + "/h")))
    emit("rename", changed(f, lambda: os.rename(d + "/h2", d + "/h3")), changed(d, lambda: os.rename(d + "/h3", d + "/h4")),
         changed(d + "/s", lambda: os.rename(d + "/h4", d + "/s/h4")))
    emit("truncate", changed(f, lambda: os.truncate(f, 5)), changed(f, lambda: os.truncate(f, 9)), changed(f, lambda: write(f, b"", os.O_WRONLY | os.O_TRUNC)),
         changed(f, lambda: write(f, b"", os.O_WRONLY | os.O_TRUNC)))
    emit("xattr", changed(f, lambda: os.setxattr(f, "user.a", b"1")), changed(f, lambda: os.removexattr(f, "user.a")))
    emit("fail", changed(f, lambda: os.truncate(f, -1)), changed(d, lambda: os.mkdir(d + "/s")), changed(d, lambda: os.rmdir(d + "/s")))
    emit("mknod", changed(d, lambda: os.mkfifo(d + "/ff")), changed(d, lambda: os.symlink("a", d + "/sl")))
    fd = os.open(f, os.O_RDWR)
    emit("fd", changed(f, lambda: os.fchmod(fd, 0o600)), changed(f, lambda: os.ftruncate(fd, 3)), changed(f, lambda: os.posix_fallocate(fd, 0, 50)))
    os.close(fd)
    for ns in ((1, 2), (1234567890123456789, 987654321987654321), (-1000000001, -5), (2**33 * 10**9 + 7, 2**33 * 10**9 + 8)):
        emit(ns, outcome(lambda: os.utime(f, ns=ns)), os.stat(f).st_atime_ns, os.stat(f).st_mtime_ns)
    for u in USERS[1:]:
        emit(u, as_user(u, os.utime, f), as_user(u, os.utime, f, (1, 2)))


@step
def unlinked_open(d, emit):
    for how in ("unlink", "rename"):
        p = d + "/u"
        write(p, b"hello")
        fd = os.open(p, os.O_RDWR)
        path = os.open(p, os.O_PATH)
        if how == "unlink":
            os.unlink(p)
        else:
            write(d + "/v", b"new")
            os.rename(d + "/v", p)
        emit(how, os.fstat(fd).st_nlink, os.fstat(path).st_nlink, os.pread(fd, 10, 0), os.pwrite(fd, b"J", 0), outcome(os.fchmod, fd, 0o123),
             oct(os.fstat(path).st_mode), outcome(os.fchown, fd, 5, 6), outcome(os.ftruncate, fd, 2), outcome(os.fsync, fd), os.fstat(fd).st_size)
        emit(outcome(os.utime, fd, (3, 4)), os.fstat(fd).st_mtime, outcome(os.setxattr, fd, "user.q", b"1"), outcome(os.listxattr, fd),
             outcome(os.chmod, "/proc/self/fd/%d" % path, 0o700), outcome(lambda: os.close(os.open("/proc/self/fd/%d" % path, os.O_RDONLY))))
        os.close(fd)
        emit(os.fstat(path).st_size, outcome(os.chmod, "/proc/self/fd/%d" % path, 0o711), oct(os.fstat(path).st_mode))
        os.close(path)
    os.mkdir(d + "/gone")
    fd = os.open(d + "/gone", os.O_RDONLY)
    os.rmdir(d + "/gone")
    emit(os.fstat(fd).st_nlink, outcome(os.listdir, fd), outcome(lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)), outcome(os.fchmod, fd, 0o700),
         outcome(lambda: os.mkdir("y", dir_fd=fd)))
    os.close(fd)


@step
def data(d, emit):
    p = d + "/f"
    fd = os.open(p, os.O_RDWR | os.O_CREAT)
    emit(os.pwrite(fd, b"a" * 10, 100000), os.fstat(fd).st_size, os.pread(fd, 5, 99998), outcome(os.lseek, fd, 0, os.SEEK_DATA) > 0, outcome(os.lseek, fd, 0, os.SEEK_HOLE))
    emit(outcome(os.lseek, fd, 200000, os.SEEK_DATA), outcome(os.lseek, fd, 200000, os.SEEK_HOLE))
    for mode in (0, 1, 2, 3, 8, 16, 17, 32, 64, 128):
        h = os.open("%s/fallocate%d" % (d, mode), os.O_RDWR | os.O_CREAT)
        os.pwrite(h, b"b" * 100010, 0)
        emit("fallocate", mode, outcome(call, "fallocate", h, mode, ctypes.c_long(4096), ctypes.c_long(8192)), os.fstat(h).st_size, sum(os.pread(h, 200000, 0)))
        os.close(h)
    emit(outcome(call, "fallocate", fd, 0, ctypes.c_long(-1), ctypes.c_long(1)), outcome(call, "fallocate", fd, 0, ctypes.c_long(0), ctypes.c_long(0)))
    emit(outcome(os.ftruncate, fd, 2**62), outcome(os.ftruncate, fd, 2**40), os.fstat(fd).st_size, outcome(os.pwrite, fd, b"end", 2**40 - 3), outcome(os.ftruncate, fd, 3))
    emit(outcome(os.pwrite, fd, b"x", 2**63 - 1))
    g = os.open(d + "/g", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"0123456789" * 1000, 0)
    emit(outcome(lambda: os.copy_file_range(fd, g, 5000, 5, 7)), os.fstat(g).st_size, os.pread(g, 20, 0))
    emit(outcome(lambda: os.copy_file_range(fd, fd, 100, 0, 50)), outcome(lambda: os.sendfile(g, fd, 0, 1000)))
    m = mmap.mmap(fd, 10000)
    m[0:4] = b"MMAP"
    emit(os.pread(fd, 6, 0))
    os.pwrite(fd, b"PW", 2)
    emit(m[0:6])
    m.flush()
    m.close()
    emit(outcome(lambda: write(p, b"A", os.O_WRONLY | os.O_APPEND)), os.fstat(fd).st_size)
    emit(outcome(fcntl.flock, fd, fcntl.LOCK_EX), outcome(fcntl.flock, os.open(p, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB), outcome(fcntl.lockf, fd, fcntl.LOCK_EX))
    emit(as_user(None, lambda: None), outcome(os.open, p, os.O_DIRECTORY), outcome(os.open, d, os.O_WRONLY), outcome(os.open, p + "/x", os.O_RDONLY), outcome(os.open, d + "/f", os.O_CREAT | os.O_EXCL))
    emit(outcome(lambda: os.read(os.open(d, os.O_RDONLY), 10)), outcome(os.pread, g, 10, 10**9), outcome(os.fdatasync, fd), outcome(os.fsync, os.open(d, os.O_RDONLY)))
    t = outcome(os.open, d, os.O_TMPFILE | os.O_RDWR)
    emit("tmpfile", t if isinstance(t, str) else "fd")
    if not isinstance(t, str):
        os.write(t, b"tmp")
        emit("tmpfile", outcome(lambda: os.link("/proc/self/fd/%d" % t, d + "/named", follow_symlinks=True)), look(d + "/named"))
    os.close(fd)
    os.close(g)


@step
def directories(d, emit):
    for n in range(500):
        write("%s/e%d" % (d, n))
    want = {"e%d" % n for n in range(500)}
    emit(set(os.listdir(d)) == want)
    seen = []
    with os.scandir(d) as it:
        for k, e in enumerate(it):
            seen.append(e.name)
            if k % 3 == 0 and k < 250:
                write("%s/new%d" % (d, k))
            if k % 5 == 0 and e.name.startswith("e"):
                os.unlink(d + "/" + e.name)
    olds = [s for s in seen if s.startswith("e")]
    emit("doubled", len(olds) - len(set(olds)), "missed", len(want - set(olds)))
    left = sorted(os.listdir(d))
    emit(all(os.path.exists(d + "/" + x) for x in left))
    shutil.rmtree(d + "/")
    os.mkdir(d)
    emit(os.listdir(d), os.stat(d).st_nlink)
    for n in range(3):
        os.mkdir("%s/d%d" % (d, n))
    emit(os.stat(d).st_nlink, sorted(os.listdir(d)))


@step
def xattrs(d, emit):
    for k in KINDS[1:]:
        p = d + "/" + k
        make_kind(p, k)
        for name in ("user.a", "trusted.a", "security.a", "system.a", "nope.a", "user.", "user." + "n" * 250, "user." + "n" * 251):
            for u in USERS[:2]:
                emit(k, name[:12], u, as_user(u, lambda: os.setxattr(p, name, b"v", follow_symlinks=False)), as_user(u, lambda: os.getxattr(p, name, follow_symlinks=False)))
        emit(sorted(outcome(lambda: os.listxattr(p, follow_symlinks=False))), as_user(USERS[1], lambda: sorted(os.listxattr(p, follow_symlinks=False))))
        emit(outcome(lambda: os.setxattr(p, "user.a", b"w", os.XATTR_CREATE, follow_symlinks=False)), outcome(lambda: os.setxattr(p, "user.z", b"w", os.XATTR_REPLACE, follow_symlinks=False)),
             outcome(lambda: os.removexattr(p, "user.zz", follow_symlinks=False)), outcome(lambda: os.setxattr(p, "user.e", b"", follow_symlinks=False)),
             outcome(lambda: os.getxattr(p, "user.e", follow_symlinks=False)), outcome(lambda: os.setxattr(p, "user.big", b"B" * 3000, follow_symlinks=False)),
             outcome(lambda: os.setxattr(p, "user.huge", b"B" * 65537, follow_symlinks=False)))


def acl(*entries):
    out = struct.pack("<I", 2)
    for tag, perm, ident in entries:
        out += struct.pack("<HHI", tag, perm, ident & 0xffffffff)
    return out


@step
def acls(d, emit):
    a = acl((1, 7, -1), (2, 5, 1001), (4, 5, -1), (16, 7, -1), (32, 0, -1))
    name, dname = "system.posix_acl_access", "system.posix_acl_default"
    p = d + "/f"
    write(p)
    os.chmod(p, 0o640)
    emit(outcome(os.setxattr, p, name, a), look(p), outcome(os.getxattr, p, name), outcome(lambda: os.chmod(p, 0o600)), look(p), outcome(os.getxattr, p, name))
    for u in USERS:
        emit(u, as_user(u, lambda: open(p).read(1)), as_user(u, os.setxattr, p, name, a))
    os.mkdir(d + "/s")
    os.chmod(d + "/s", 0o2777)
    os.chown(d + "/s", 0, 1002)
    emit(outcome(os.setxattr, d + "/s", dname, acl((1, 7, -1), (2, 7, 1001), (4, 5, -1), (16, 7, -1), (32, 1, -1))), look(d + "/s"))
    for um in (0, 0o22, 0o77):
        for u in USERS:
            old = os.umask(um)
            q = d + "/s/x"
            emit(um, u, as_user(u, lambda: os.close(os.open(q, os.O_CREAT | os.O_WRONLY, 0o666))), look(q), outcome(os.getxattr, q, name))
            outcome(os.unlink, q)
            emit(as_user(u, os.mkdir, q, 0o777), look(q), outcome(os.getxattr, q, name), outcome(os.getxattr, q, dname))
            outcome(os.rmdir, q)
            emit(as_user(u, lambda: os.mknod(q, stat.S_IFREG | 0o664)), look(q))
            outcome(os.unlink, q)
            os.umask(old)
    for gid in (1001, 2222):
        for u in USERS[2:]:
            q = d + "/sg"
            write(q)
            os.chown(q, u[0], gid)
            os.chmod(q, 0o2775)
            emit(gid, u, as_user(u, os.setxattr, q, name, a), look(q))
            os.unlink(q)
    emit(outcome(os.removexattr, p, name), look(p), outcome(os.getxattr, p, name), outcome(os.setxattr, p, dname, a), outcome(os.setxattr, p, name, b"junk"))


@step
def capabilities(d, emit):
    p = d + "/c"
    cap = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    for how in ("write", "append", "truncate", "chown", "mmap"):
        write(p, b"12345678")
        os.chmod(p, 0o777)
        emit(how, outcome(os.setxattr, p, "security.capability", cap), outcome(lambda: len(os.getxattr(p, "security.capability"))))
        for u in USERS[1:]:
            emit(u, as_user(u, os.setxattr, p, "security.capability", cap))
        if how == "chown":
            os.chown(p, 7, 7)
        else:
            emit(outcome(do_write, p, how))
        emit(outcome(lambda: len(os.getxattr(p, "security.capability"))))
        os.unlink(p)


@step
def mknod_rights(d, emit):
    os.chmod(d, 0o777)
    for u in USERS:
        for t in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, 0, stat.S_IFDIR):
            p = d + "/n"
            emit(u, t, as_user(u, lambda: os.mknod(p, t | 0o640, os.makedev(1, 3))), look(p))
            outcome(os.unlink, p)
    os.mknod(d + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    emit(outcome(lambda: os.write(os.open(d + "/null", os.O_WRONLY), b"x")))


def run_step(root, fn):
    """The outcomes of one step in a directory of its own below root, a line each. It runs in a child, which leaves nothing open."""
    root = str(root)
    d = os.path.join(root, fn.__name__)
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        rows = []
        try:
            os.umask(0o22)
            os.mkdir(d)
            os.chmod(d, 0o777)
            fn(d, lambda *a: rows.append(repr(a).replace(root, "ROOT")))
        except BaseException as e:
            rows.append("EXCEPTION %r" % e)
        with os.fdopen(w, "w") as f:
            json.dump(rows, f)
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        rows = json.load(f)
    os.waitpid(pid, 0)
    shutil.rmtree(d, ignore_errors=True)
    return rows


def main():
    native, mounted = sys.argv[1:3]
    total = bad = 0
    for fn in STEPS:
        name, x, y = fn.__name__, run_step(native, fn), run_step(mounted, fn)
        differ = [(p, q) for p, q in itertools.zip_longest(x, y) if p != q]
        total += len(x)
        bad += len(differ)
        print("%-22s %5d cases, %d differ" % (name, len(x), len(differ)))
        for p, q in differ[:6]:
            print("    native:", p)
            print("    mount: ", q)
    print("%d cases, %d differ" % (total, bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
