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
import resource
import shutil
import signal
import socket
import stat
import struct
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
USERS = [None, (65534, 65534, []), (1001, 1001, [1002]), (1002, 1002, [])]
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
CLOCK_REALTIME_COARSE = 5
# setgroups, setresgid, setresuid: the calls themselves concern the calling thread alone
SET_IDS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}.get(os.uname().machine)
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


def raw(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "syscall %d" % number)


def as_thread(user, fn, *args):
    """As as_user, in a thread, which takes a tenth of the time. For what leaves nothing open and locks nothing."""
    out = []

    def run():
        try:
            groups = (ctypes.c_uint * len(user[2]))(*user[2])
            raw(SET_IDS[0], len(user[2]), groups)
            raw(SET_IDS[1], user[1], user[1], user[1])
            raw(SET_IDS[2], user[0], user[0], user[0])
            out.append(repr(outcome(fn, *args)))
        except BaseException as e:
            out.append("child: %r" % e)
    if user is None or not SET_IDS:
        return as_user(user, fn, *args)
    t = threading.Thread(target=run)
    t.start()
    t.join()
    return out[0]


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
                emit(k, m, u, as_thread(u, os.chmod, p, 0o700), look(p))
                os.lchown(p, u[0], u[1])
                emit("own", as_thread(u, os.chmod, p, m), look(p))
                os.lchown(p, u[0], 2222)
                emit("othergroup", as_thread(u, os.chmod, p, m | 0o2000), look(p))


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
                        emit(k, m, u, owner, to, as_thread(u, os.lchown, p, *to), look(p))
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
                emit(how, oct(m), u, as_thread(u, do_write, p, how), look(p))
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
                        emit(gid, m, u, fm, um, as_thread(u, lambda: os.close(os.open(p + "/f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, fm))), look(p + "/f"))
                        emit(as_thread(u, os.mkdir, p + "/d", fm), look(p + "/d"))
                        emit(as_thread(u, os.mkfifo, p + "/p", fm), look(p + "/p"))
                        emit(as_thread(u, lambda: os.mknod(p + "/m", stat.S_IFREG | fm)), look(p + "/m"))
                        emit(as_thread(u, os.symlink, "x", p + "/l"), look(p + "/l"))
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
                    emit(dm, downer, fowner, u, as_thread(u, os.rename, p + "/file", p + "/file2"),
                         as_thread(u, os.rename, p + "/dir", p + "/dir2"), as_thread(u, os.unlink, p + "/file"),
                         as_thread(u, os.rmdir, p + "/dir"), as_thread(u, os.link, p + "/file2", p + "/l"), look(p + "/l"))
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
                    emit(oct(m), owner, u, fl, as_thread(u, lambda: os.close(os.open(p, fl))), look(p))
                emit(as_thread(u, os.access, p, os.X_OK), as_thread(u, os.utime, p), as_thread(u, os.utime, p, (1, 1)),
                     as_thread(u, os.truncate, p, 3), as_thread(u, os.getxattr, p, "user.x"), as_thread(u, os.setxattr, p, "user.y", b"1"))
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
                emit(oct(m), owner, u, as_thread(u, lambda: sorted(os.listdir(p))), as_thread(u, lambda: os.stat(p + "/f").st_size),
                     as_thread(u, write, p + "/n"), as_thread(u, os.unlink, p + "/n"), as_thread(u, os.mkdir, p + "/m"), as_thread(u, os.rmdir, p + "/m"),
                     as_thread(u, os.rename, p + "/f", p + "/g"), as_thread(u, os.rename, p + "/g", p + "/f"))
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


def tick():
    """The clock that files get their times from has moved on."""
    now = time.clock_gettime(CLOCK_REALTIME_COARSE)
    while time.clock_gettime(CLOCK_REALTIME_COARSE) == now:
        pass


def moved(paths, fn):
    """What fn returns, and which of access, modification and change time of each path or descriptor it moved. A path that goes is looked at through a descriptor."""
    fds = [p if isinstance(p, int) else os.open(p, os.O_PATH | os.O_NOFOLLOW) for p in paths]
    before = [os.fstat(fd) for fd in fds]
    tick()
    r = outcome(fn)
    out = []
    for fd, a in zip(fds, before):
        b = os.fstat(fd)
        out.append("".join(c if getattr(a, f"st_{c}time_ns") != getattr(b, f"st_{c}time_ns") else "-" for c in "amc"))
    for p, fd in zip(paths, fds):
        if not isinstance(p, int):
            os.close(fd)
    return (r if not isinstance(r, int) else 0, *out)


@step
def times_of_each_kind(d, emit):
    stranger = USERS[1]
    for k in KINDS[1:]:
        w = d + "/" + k
        os.mkdir(w)
        p, other = w + "/p", w + "/other"
        make_kind(p, k)
        write(other)
        for name, fn in (
                ("chmod", lambda: os.chmod("/proc/self/fd/%d" % fd, 0o640)), ("chmod no", lambda: as_user(stranger, os.chmod, p, 0o600)),
                ("lchown", lambda: os.lchown(p, 1001, 1001)), ("lchown same", lambda: os.lchown(p, 1001, 1001)), ("lchown nothing", lambda: os.lchown(p, -1, -1)),
                ("lchown no", lambda: as_user(stranger, os.lchown, p, 0, 0)),
                ("link", lambda: os.link(p, w + "/l", follow_symlinks=False)), ("link there", lambda: os.link(p, other, follow_symlinks=False)),
                ("unlink link", lambda: os.unlink(w + "/l")), ("rename", lambda: os.rename(p, w + "/q") or os.rename(w + "/q", p)),
                ("rename no", lambda: renameat2(p, other, RENAME_NOREPLACE)), ("rename itself", lambda: os.rename(p, p)), ("rename none", lambda: os.rename(w + "/none", p)),
                ("utime", lambda: os.utime(p, (5, 6), follow_symlinks=False)), ("utime same", lambda: os.utime(p, (5, 6), follow_symlinks=False)),
                ("utime no", lambda: as_user(stranger, lambda: os.utime(p, (7, 8), follow_symlinks=False))),
                ("utime now", lambda: os.utime(p, follow_symlinks=False)),
                ("setxattr", lambda: os.setxattr(p, "trusted.t", b"1", follow_symlinks=False)),
                ("setxattr same", lambda: os.setxattr(p, "trusted.t", b"1", follow_symlinks=False)),
                ("setxattr no", lambda: os.setxattr(p, "trusted.t", b"1", os.XATTR_CREATE, follow_symlinks=False)),
                ("removexattr", lambda: os.removexattr(p, "trusted.t", follow_symlinks=False)),
                ("removexattr no", lambda: os.removexattr(p, "trusted.t", follow_symlinks=False)),
                ("mkdir there", lambda: os.mkdir(p)), ("mknod there", lambda: os.mknod(p)), ("symlink there", lambda: os.symlink("x", p)),
                ("create there", lambda: os.open(p, os.O_CREAT | os.O_EXCL)), ("rmdir no", lambda: os.rmdir(w + "/none")),
                ("access", lambda: os.access(p, os.R_OK, follow_symlinks=False)),
                ("getxattr", lambda: os.getxattr(p, "trusted.none", follow_symlinks=False))):
            fd = os.open(p, os.O_PATH | os.O_NOFOLLOW)
            emit(k, name, moved([p, w, other], fn))
            os.close(fd)


@step
def times_of_directories(d, emit):
    for k in KINDS:
        for over in KINDS:
            for fl in (0, RENAME_EXCHANGE, RENAME_WHITEOUT):
                shutil.rmtree(d + "/a", ignore_errors=True)
                shutil.rmtree(d + "/b", ignore_errors=True)
                os.mkdir(d + "/a")
                os.mkdir(d + "/b")
                make_kind(d + "/a/x", k)
                make_kind(d + "/b/x", over)
                held = [d + "/a", d + "/b"] + [p for p in (d + "/a/x", d + "/b/x") if os.path.lexists(p)]
                fds = [os.open(p, os.O_PATH | os.O_NOFOLLOW) for p in held]
                emit(k, over, fl, moved(fds, lambda: renameat2(d + "/a/x", d + "/b/x", fl)), [os.fstat(fd).st_nlink for fd in fds], look(d + "/a/x"), look(d + "/b/x"))
                for fd in fds:
                    os.close(fd)
    for k in KINDS[1:]:
        p = d + "/made"
        emit(k, moved([d], lambda: make_kind(p, k)), os.stat(d).st_nlink)
        fd = os.open(p, os.O_PATH | os.O_NOFOLLOW)
        emit(moved([d, fd], lambda: os.unlink(p)), moved([d, fd], lambda: os.rmdir(p)), os.fstat(fd).st_nlink, os.stat(d).st_nlink)
        proc = "/proc/self/fd/%d" % fd
        if k != "fulldir":
            emit("after", moved([fd], lambda: os.chmod(proc, 0o711)), moved([fd], lambda: os.chown(proc, 7, 8)), moved([fd], lambda: os.utime(proc, (9, 10))),
                 oct(os.fstat(fd).st_mode), os.fstat(fd).st_uid, os.fstat(fd).st_mtime)
            emit(outcome(lambda: os.link(proc, d + "/again", follow_symlinks=True)), outcome(lambda: os.setxattr(proc, "trusted.t", b"1")), outcome(os.listxattr, proc))
        os.close(fd)
        wipe(p)


@step
def open_flags(d, emit):
    bits = {"creat": os.O_CREAT, "excl": os.O_EXCL, "trunc": os.O_TRUNC, "dir": os.O_DIRECTORY, "nofollow": os.O_NOFOLLOW, "append": os.O_APPEND, "path": os.O_PATH}
    p = d + "/p"
    for k in ("none", "file", "dir", "fifo", "symlink", "char", "good"):
        for n in range(4):
            for names in itertools.combinations(bits, n):
                for acc in (0, 1, 2, 3):
                    if k == "good":
                        os.symlink("real", p)
                        write(d + "/real", b"data")
                    else:
                        make_kind(p, k)
                    fl = acc | os.O_NONBLOCK | sum(bits[x] for x in names)
                    fd = outcome(os.open, p, fl, 0o640)
                    emit(k, names, acc, "fd" if isinstance(fd, int) else fd, look(p), look(d + "/nowhere"), look(d + "/real"))
                    if isinstance(fd, int):
                        if k in ("none", "file", "good", "symlink") and "path" not in names:
                            emit(outcome(os.write, fd, b"w"), outcome(os.lseek, fd, 0, os.SEEK_CUR), outcome(os.pread, fd, 9, 0), outcome(os.ftruncate, fd, 2), outcome(os.fsync, fd))
                        os.close(fd)
                    for x in (p, d + "/nowhere", d + "/real"):
                        wipe(x)


@step
def sticky_renames(d, emit):
    who = (0, 1001, 1002)
    for k in ("file", "dir"):
        for fromowner, toowner in itertools.product((0, 1001), (0, 1001, 1002)):
            for a, b in itertools.product(who, (None, *who) if k == "file" else (None,)):
                for u in USERS[2:]:
                    for name, owner in (("from", fromowner), ("to", toowner)):
                        os.mkdir(d + "/" + name)
                        os.chown(d + "/" + name, owner, owner)
                        os.chmod(d + "/" + name, 0o1777)
                    for name, owner in (("from/x", a), ("to/x", b)):
                        if owner is not None:
                            make_kind(d + "/" + name, k)
                            os.chown(d + "/" + name, owner, owner)
                    emit(k, fromowner, toowner, a, b, u, as_thread(u, lambda: [outcome(renameat2, d + "/from/x", d + "/to/x", fl) for fl in (RENAME_EXCHANGE, RENAME_WHITEOUT, 0)]),
                         look(d + "/from/x"), look(d + "/to/x"))
                    shutil.rmtree(d + "/from")
                    shutil.rmtree(d + "/to")


def each_call(p, q):
    """Every call that takes a path. q: a file that is there."""
    return (("stat", os.stat, p), ("lstat", os.lstat, p), ("open", os.open, p, os.O_RDONLY), ("creat", os.open, p, os.O_CREAT | os.O_WRONLY), ("chmod", os.chmod, p, 0o700),
            ("chown", os.chown, p, 0, 0), ("lchown", os.lchown, p, 0, 0), ("link from", os.link, p, q + "1"), ("link to", os.link, q, p), ("mkdir", os.mkdir, p),
            ("mkfifo", os.mkfifo, p), ("mknod", os.mknod, p), ("symlink", os.symlink, "t", p), ("readlink", os.readlink, p), ("rename from", os.rename, p, q + "2"),
            ("rename to", os.rename, q, p), ("rmdir", os.rmdir, p), ("truncate", os.truncate, p, 0), ("unlink", os.unlink, p), ("utime", os.utime, p),
            ("access", lambda: os.access(p, os.F_OK)), ("listxattr", os.listxattr, p), ("setxattr", os.setxattr, p, "user.a", b"1"), ("listdir", os.listdir, p),
            ("chdir", lambda: as_thread(USERS[1], os.chdir, p)), ("statvfs", lambda: os.statvfs(p) and 0))


@step
def path_errors(d, emit):
    def fresh():
        shutil.rmtree(d + "/w", ignore_errors=True)
        os.mkdir(d + "/w")
        write(d + "/w/file")
        os.mkdir(d + "/w/dir")
        os.symlink("loop2", d + "/w/loop1")
        os.symlink("loop1", d + "/w/loop2")
        os.symlink("dir", d + "/w/todir")
        os.symlink("file", d + "/w/tofile")
        os.symlink("gone", d + "/w/dangling")
        os.symlink("d" * 256, d + "/w/tolong")
        write(d + "/w/there")
    top = d + "/w/"
    room = 4095 - len(top)
    for bad in ("file/x", "file/", "none/x", "none/", "loop1", "loop1/x", "n" * 256, "n" * 256 + "/x", "dir/.", "dir/..", "todir/", "tofile/", "dangling", "dangling/", "tolong",
                "./" * (room // 2 - 4) + "file", "./" * (room // 2 + 1) + "file"):
        for n in range(len(each_call("", ""))):
            fresh()
            name, fn, *args = each_call(top + bad, top + "there")[n]
            r = outcome(fn, *args)
            emit(bad[:20], len(bad) if len(bad) < 300 else "", name, r if isinstance(r, (str, list)) else "done", sorted(os.listdir(top)), look(top + "there"), look(top + "file"))


@step
def writes_of_all_sorts(d, emit):
    p = d + "/s"
    other = d + "/other"

    def copy():
        with open(other, "rb") as a, open(p, "r+b") as b:
            return os.copy_file_range(a.fileno(), b.fileno(), 4)

    def spliced():
        r, w = os.pipe()
        os.write(w, b"pipe")
        fd = os.open(p, os.O_WRONLY)
        try:
            return os.splice(r, fd, 4, offset_dst=2)
        finally:
            for x in (r, w, fd):
                os.close(x)

    def sent():
        with open(other, "rb") as a, open(p, "r+b") as b:
            return os.sendfile(b.fileno(), a.fileno(), 0, 4)

    def vector(flags):
        fd = os.open(p, os.O_WRONLY)
        try:
            return os.pwritev(fd, [b"ab", b"cd"], 1, flags), os.lseek(fd, 0, os.SEEK_CUR)
        finally:
            os.close(fd)

    def direct():
        fd = os.open(p, os.O_RDWR | os.O_DIRECT)
        try:
            with mmap.mmap(-1, 4096) as m:
                m[:] = b"D" * 4096
                return os.write(fd, m), os.preadv(fd, [m], 0), m[:3]
        finally:
            os.close(fd)

    def nothing():
        return write(p, b"", os.O_WRONLY)

    def through_append(clear):
        fd = os.open(p, os.O_RDWR | (os.O_APPEND if clear else 0))
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, 0 if clear else os.O_APPEND)
            return os.pwrite(fd, b"=", 0), os.write(fd, b"+"), os.lseek(fd, 0, os.SEEK_CUR)
        finally:
            os.close(fd)

    def mapped_append():
        fd = os.open(p, os.O_RDWR | os.O_APPEND)
        try:
            with mmap.mmap(fd, 4) as m:
                m[1:3] = b"MM"
                m.flush()
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def mapped_beside_append():
        fd, a = os.open(p, os.O_RDWR), os.open(p, os.O_WRONLY | os.O_APPEND)
        try:
            with mmap.mmap(fd, 4) as m:
                m[1:3] = b"NN"
                m.flush()
            os.write(a, b"A")
            return os.fstat(fd).st_size
        finally:
            os.close(a)
            os.close(fd)

    write(other, b"0123456789")
    os.chmod(other, 0o644)
    for how, *args in ((copy,), (spliced,), (sent,), (vector, 0), (vector, os.RWF_APPEND), (vector, os.RWF_SYNC), (direct,), (nothing,), (through_append, True), (through_append, False),
                       (mapped_append,), (mapped_beside_append,)):
        for m in (0o6777, 0o2767, 0o666):
            for u in USERS:
                write(p, b"12345678")
                os.chown(p, 1001, 1001)
                os.chmod(p, m)
                os.setxattr(p, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
                emit(how.__name__, args, oct(m), u, as_user(u, how, *args), look(p), open(p, "rb").read(40), "security.capability" in os.listxattr(p))
                os.unlink(p)


@step
def limits(d, emit):
    p = d + "/f"
    write(p, b"data")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY))
    fd = os.open(p, os.O_RDWR)
    emit(outcome(os.pwrite, fd, b"x" * 200, 9900), outcome(os.pwrite, fd, b"x", 10000), outcome(os.ftruncate, fd, 10000), outcome(os.ftruncate, fd, 10001), outcome(os.truncate, p, 10001),
         outcome(os.posix_fallocate, fd, 0, 10001), outcome(call, "fallocate", fd, 1, ctypes.c_long(0), ctypes.c_long(20000)), os.fstat(fd).st_size)
    g = os.open(d + "/g", os.O_RDWR | os.O_CREAT)
    emit(outcome(lambda: os.copy_file_range(fd, g, 5000, 0, 8000)), outcome(lambda: os.copy_file_range(fd, g, 5000, 0, 10000)), os.fstat(g).st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    emit(outcome(os.pwrite, fd, b"x", -1), outcome(os.pread, fd, 1, -1), outcome(os.lseek, fd, -1, os.SEEK_SET), outcome(os.lseek, fd, 0, 9), outcome(os.ftruncate, fd, -1))
    for name, *args in (("write", fd, ctypes.c_void_p(8), 5), ("read", fd, ctypes.c_void_p(8), 5), ("pwrite", fd, ctypes.c_void_p(8), 5, ctypes.c_long(0)), ("open", ctypes.c_void_p(8), 0),
                        ("mkdir", ctypes.c_void_p(8), 0), ("rename", ctypes.c_void_p(8), p.encode()), ("rename", p.encode(), ctypes.c_void_p(8)), ("link", p.encode(), ctypes.c_void_p(8)),
                        ("readlink", (d + "/l").encode(), ctypes.c_void_p(8), 10), ("chmod", ctypes.c_void_p(8), 0), ("unlink", ctypes.c_void_p(8)), ("symlink", ctypes.c_void_p(8), p.encode())):
        emit(name, outcome(call, name, *args))
    m = mmap.mmap(-1, 8192)
    at = ctypes.addressof(ctypes.c_char.from_buffer(m))
    call("mprotect", ctypes.c_void_p(at + 4096), 4096, 0)
    emit("half", outcome(call, "pwrite", fd, ctypes.c_void_p(at + 4000), 200, ctypes.c_long(0)), outcome(call, "pread", fd, ctypes.c_void_p(at + 4000), 200, ctypes.c_long(0)), os.fstat(fd).st_size)
    for u in (2**32 - 2, 2**31, 65536):
        emit(u, outcome(os.chown, p, u, u), look(p))
    for dev in (os.makedev(4095, 1048575), os.makedev(0, 0), os.makedev(259, 65536)):
        for u in USERS[:2]:
            os.chmod(d, 0o777)
            emit(dev, as_user(u, lambda: os.mknod(d + "/dev", stat.S_IFCHR | 0o666, dev)), look(d + "/dev"))
            outcome(os.unlink, d + "/dev")
    for s in (0, -1, -2**31, -2**31 - 1, 2**31, 2**32, 2**33, 2**34 - 1, 2**34, 2**35, 2**40):
        for n in (0, 1, 999999999):
            emit(s, n, outcome(lambda: os.utime(p, ns=(s * 10**9 + n, s * 10**9 + n))), os.stat(p).st_mtime_ns, os.stat(p).st_atime_ns)
    v = os.statvfs(d)
    emit(v.f_bsize, v.f_frsize, v.f_namemax, v.f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC))


@step
def holes(d, emit):
    def map_of(fd):
        out, at = [], 0
        while True:
            a = outcome(os.lseek, fd, at, os.SEEK_DATA)
            b = outcome(os.lseek, fd, a, os.SEEK_HOLE) if isinstance(a, int) else a
            out.append((a, b))
            if not isinstance(b, int):
                return out
            at = b
    p = d + "/f"
    fd = os.open(p, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"a" * 65536, 1 << 20)
    os.pwrite(fd, b"b" * 65536, 3 << 20)
    os.fsync(fd)
    emit(map_of(fd), os.fstat(fd).st_size, os.fstat(fd).st_blksize)
    os.ftruncate(fd, 8 << 20)
    emit(map_of(fd))
    emit(outcome(call, "fallocate", fd, 3, ctypes.c_long(1 << 20), ctypes.c_long(32768)), outcome(call, "fallocate", fd, 1, ctypes.c_long(9 << 20), ctypes.c_long(4096)),
         outcome(call, "fallocate", fd, 16, ctypes.c_long((3 << 20) + 4096), ctypes.c_long(4096)), outcome(call, "fallocate", fd, 16, ctypes.c_long((8 << 20) - 100), ctypes.c_long(200)))
    os.fsync(fd)
    emit(os.fstat(fd).st_size, os.pread(fd, 4, (1 << 20) + 32766), os.pread(fd, 4, (3 << 20) + 4094), os.fstat(fd).st_blocks > 0)
    for off in (-1, 0, os.fstat(fd).st_size - 1, os.fstat(fd).st_size, 1 << 30):
        emit(off, outcome(os.lseek, fd, off, os.SEEK_DATA) in ("ENXIO", "EINVAL"), outcome(os.lseek, fd, off, os.SEEK_HOLE))
    os.ftruncate(fd, 4096)
    m = mmap.mmap(fd, 4096)
    os.ftruncate(fd, 100)
    m[100:200] = b"G" * 100
    m[50:60] = b"H" * 10
    m.flush()
    os.ftruncate(fd, 300)
    emit("beyond", os.pread(fd, 300, 0) == b"\0" * 50 + b"H" * 10 + b"\0" * 240)
    m.close()
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"z" * 6000, 0)
    os.ftruncate(fd, 5)
    os.ftruncate(fd, 6000)
    emit(os.pread(fd, 6000, 0) == b"zzzzz" + b"\0" * 5995)
    os.ftruncate(fd, 5)
    os.pwrite(fd, b"Q", 5000)
    emit(os.pread(fd, 6000, 0) == b"zzzzz" + b"\0" * 4995 + b"Q")
    g = os.open(d + "/g", os.O_RDWR | os.O_CREAT)
    emit(outcome(lambda: os.copy_file_range(fd, g, 100, 4950, 10)), os.pread(g, 200, 0), outcome(lambda: os.copy_file_range(fd, g, 100, 9999, 0)), outcome(lambda: os.copy_file_range(fd, fd, 10, 0, 5)),
         outcome(lambda: os.copy_file_range(fd, fd, 100, 0, 50)), outcome(lambda: os.copy_file_range(fd, os.open(p, os.O_RDONLY), 10, 0, 5)),
         outcome(lambda: os.copy_file_range(fd, os.open(p, os.O_WRONLY | os.O_APPEND), 10, 0, 5)), outcome(lambda: os.copy_file_range(os.open(d, os.O_RDONLY), g, 10, 0, 5)))
    direct = os.open(p, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 8192) as b, mmap.mmap(fd, 4096) as m:
        b[:] = b"d" * 8192
        os.pwrite(fd, b"buffered", 0)
        emit(os.preadv(direct, [b], 0), b[:8])
        m[0:4] = b"MAPD"
        emit(os.preadv(direct, [b], 0), b[:8])
        b[:] = b"e" * 8192
        emit(os.pwritev(direct, [b], 0), m[:4], os.pread(fd, 4, 4094), os.fstat(fd).st_size)


@step
def listings(d, emit):
    for n in range(300):
        write("%s/e%d" % (d, n))
    os.mkdir(d + "/sub")
    os.symlink("x", d + "/link")
    os.mkfifo(d + "/pipe")

    def dents(fd, size=1024):
        buf = ctypes.create_string_buffer(size)
        n = libc.getdents64(fd, buf, size)
        if n < 0:
            return errno.errorcode[ctypes.get_errno()]
        out, at = [], 0
        while at < n:
            ino, off, reclen, kind = struct.unpack_from("<QqHB", buf.raw, at)
            out.append((buf.raw[at + 19:at + reclen].split(b"\0")[0].decode(), off, kind, ino))
            at += reclen
        return out

    def rest(fd):
        out = []
        while True:
            more = dents(fd)
            if not more:
                return out
            out += more
    for rounds in range(3):
        fd = os.open(d, os.O_RDONLY)
        emit(dents(fd, 10), outcome(os.pread, fd, 5, 0), outcome(os.write, fd, b"x"), outcome(os.ftruncate, fd, 0))
        every = rest(fd)
        emit(sorted((n, k) for n, _, k, _ in every), all(i == os.lstat(d + "/" + n).st_ino for n, _, _, i in every if n != ".."), rest(fd))
        for at in (0, 1, 17, 150, len(every) - 2, len(every) - 1):
            os.lseek(fd, every[at][1], os.SEEK_SET)
            emit(at, [n for n, *_ in rest(fd)] == [n for n, *_ in every[at + 1:]])
        write("%s/later%d" % (d, rounds))
        os.unlink("%s/e%d" % (d, rounds))
        os.lseek(fd, 0, os.SEEK_SET)
        emit(sorted(n for n, *_ in rest(fd)) == sorted([".", "..", *os.listdir(d)]))
        os.close(fd)
    emit(outcome(os.open, d, os.O_RDWR), outcome(os.open, d, os.O_CREAT), outcome(lambda: os.lseek(os.open(d, os.O_RDONLY), -1, os.SEEK_SET)))


@step
def locks(d, emit):
    p = d + "/f"
    write(p, b"0123456789")

    def lock(kind, cmd, start, length):
        return struct.pack("hhqqi4x", kind, 0, start, length, 0)

    def other(fn):
        return as_user((0, 0, []), fn)
    fd = os.open(p, os.O_RDWR)
    for a in (fcntl.F_RDLCK, fcntl.F_WRLCK):
        for ours, theirs in itertools.product((fcntl.F_SETLK, 37), (fcntl.F_SETLK, 37)):
            emit(a, ours, outcome(lambda: len(fcntl.fcntl(fd, ours, lock(a, ours, 2, 4)))))
            for b, at in itertools.product((fcntl.F_RDLCK, fcntl.F_WRLCK), (0, 2, 5, 6)):
                emit(theirs, b, at, other(lambda: len(fcntl.fcntl(os.open(p, os.O_RDWR), theirs, lock(b, theirs, at, 1)))),
                     other(lambda: struct.unpack("hhqqi4x", fcntl.fcntl(os.open(p, os.O_RDWR), fcntl.F_GETLK, lock(b, 0, at, 1)))[:4]))
            emit(outcome(lambda: len(fcntl.fcntl(fd, ours, lock(fcntl.F_UNLCK, ours, 3, 1)))), other(lambda: len(fcntl.fcntl(os.open(p, os.O_RDWR), theirs, lock(fcntl.F_WRLCK, theirs, 3, 1)))))
            if ours == fcntl.F_SETLK:
                os.close(os.open(p, os.O_RDONLY))  # takes all of this process's
            else:
                os.close(fd)
                fd = os.open(p, os.O_RDWR)
            emit("closed", other(lambda: len(fcntl.fcntl(os.open(p, os.O_RDWR), theirs, lock(fcntl.F_WRLCK, theirs, 0, 0)))))
    emit(outcome(fcntl.flock, fd, fcntl.LOCK_SH), other(lambda: fcntl.flock(os.open(p, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)),
         other(lambda: fcntl.flock(os.open(p, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)), other(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)))
    emit(outcome(fcntl.flock, os.open(d, os.O_RDONLY), fcntl.LOCK_EX), outcome(fcntl.flock, os.open(d, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))
    os.close(fd)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    for fl, lease in itertools.product((os.O_RDONLY, os.O_RDWR), (fcntl.F_RDLCK, fcntl.F_WRLCK)):
        fd = os.open(p, fl)
        emit("lease", fl, lease, outcome(fcntl.fcntl, fd, fcntl.F_SETLEASE, lease), outcome(fcntl.fcntl, fd, fcntl.F_GETLEASE), other(lambda: os.close(os.open(p, os.O_WRONLY | os.O_NONBLOCK))))
        os.close(fd)
    fd = os.open(d, os.O_RDONLY)
    emit("lease of a directory", outcome(fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK))
    os.close(fd)


@step
def running(d, emit):
    p = d + "/true"
    shutil.copy("/bin/true", p)
    os.chmod(p, 0o755)
    fd = os.open(p, os.O_WRONLY)
    emit(outcome(lambda: os.posix_spawn(p, [p], {})))
    os.close(fd)
    shutil.copy("/bin/sleep", d + "/sleep")
    pid = os.posix_spawn(d + "/sleep", ["sleep", "60"], {})
    emit(outcome(os.open, d + "/sleep", os.O_WRONLY), outcome(os.truncate, d + "/sleep", 0), outcome(os.open, d + "/sleep", os.O_RDONLY | os.O_TRUNC), outcome(os.chmod, d + "/sleep", 0o700),
         outcome(os.rename, d + "/sleep", d + "/s2"), outcome(os.unlink, d + "/s2"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for m in (0o644, 0o111, 0o711):
        os.chmod(p, m)
        for u in USERS[:2]:
            emit(oct(m), u, as_user(u, lambda: os.waitpid(os.posix_spawn(p, [p], {}), 0)[1]))


@step
def attribute_sizes(d, emit):
    p = d + "/f"
    write(p)
    emit(outcome(os.setxattr, p, "user.a", b"12345"), outcome(os.setxattr, p, "user.bb", b""))
    buf = ctypes.create_string_buffer(100)
    for n in (0, 1, 4, 5, 6, 100):
        emit(n, outcome(call, "getxattr", p.encode(), b"user.a", buf, n), outcome(call, "getxattr", p.encode(), b"user.bb", buf, n), outcome(call, "getxattr", p.encode(), b"user.none", buf, n),
             outcome(call, "listxattr", p.encode(), buf, n))
    for n in (1, 255, 256, 1000, 4000, 5000, 16000, 17000, 65535, 65536, 65537):
        emit(n, outcome(os.setxattr, p, "user.big", b"v" * n), outcome(lambda: len(os.getxattr(p, "user.big"))))
    outcome(os.removexattr, p, "user.big")
    done = 0
    while done < 400 and outcome(os.setxattr, p, "user.%03d" % done + "n" * 200, b"v") == 0:
        done += 1
    emit(done, outcome(lambda: len(os.listxattr(p))))
    for name in ("", "user", "user.", "x" * 300, "user." + "x" * 300, "trusted.", "security.", "system.", "btrfs.x", "os2.x", "system.posix_acl_access", "system.posix_acl_default"):
        emit(name[:30], outcome(os.setxattr, p, name, b""), outcome(os.getxattr, p, name), outcome(os.removexattr, p, name), outcome(os.setxattr, d, name, b"1"), outcome(os.removexattr, d, name))
    fd = os.open(p, os.O_RDONLY)
    emit(outcome(os.setxattr, fd, "user.ro", b"1"), outcome(os.setxattr, fd, "user.ro", b"1", 3), outcome(os.setxattr, fd, "user.ro", b"1", 8))
    path = os.open(p, os.O_PATH)
    emit(outcome(os.setxattr, path, "user.x", b"1"), outcome(os.fchmod, path, 0o600), outcome(os.fchown, path, 0, 0), outcome(os.ftruncate, path, 0), outcome(os.utime, path), outcome(os.fsync, path))


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
