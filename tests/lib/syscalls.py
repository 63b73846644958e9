# SPDX-License-Identifier: BSD-2-Clause
"""System calls that Python's os module does not have."""
import ctypes
import fcntl
import os
import struct

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE, FALLOC_ZERO, FALLOC_INSERT = 1, 2, 8, 16, 32
AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, AT_STATX_FORCE_SYNC = -100, 0x400, 0x100, 0x2000
STATX_BASIC_STATS = 0x7ff
MNT_DETACH = 2
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_APPEND = 0x80086601, 0x40086602, 0x20

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, *paths):
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e), *paths)


def renameat2(old, new, flags):
    """rename(2) with RENAME_NOREPLACE, RENAME_EXCHANGE or RENAME_WHITEOUT."""
    _check(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags), old, None, new)


def fallocate(fd, mode, offset, length):
    """fallocate(2) with its modes."""
    _check(_libc.fallocate(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(length)))


def ask_again(path):
    """Make the kernel ask the file system for the attributes of path: statx(2) with AT_STATX_FORCE_SYNC."""
    _check(_libc.statx(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, ctypes.create_string_buffer(256)), path)


def syncfs(fd):
    """syncfs(2)."""
    _check(_libc.syncfs(fd))


def file_flags(fd):
    """FS_IOC_GETFLAGS: what lsattr shows."""
    return struct.unpack("i", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))[0]


def set_file_flags(fd, flags):
    """FS_IOC_SETFLAGS: what chattr does."""
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("i", flags))


def mount_dead(path):
    """Mount a FUSE file system that nobody serves: whatever looks at path gets ENOTCONN."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    try:
        _check(_libc.mount(b"dead", os.fsencode(path), b"fuse", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd), path)
    finally:
        os.close(fd)


def umount(path):
    """umount2(2) with MNT_DETACH."""
    _check(_libc.umount2(os.fsencode(path), MNT_DETACH), path)


def link_fd(fd, path):
    """Give an open file a name, also one without any (O_TMPFILE)."""
    _check(_libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW), path)


class _Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128)]


def name_to_handle(path):
    """name_to_handle_at(2): what an NFS server hands out for a file."""
    h, mount = _Handle(bytes=128), ctypes.c_int()
    _check(_libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(h), ctypes.byref(mount), 0), path)
    return h


def open_by_handle(root, handle, flags):
    """open_by_handle_at(2); root: a directory of the same mount."""
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = _libc.open_by_handle_at(at, ctypes.byref(handle), flags)
        _check(fd)
        return fd
    finally:
        os.close(at)
