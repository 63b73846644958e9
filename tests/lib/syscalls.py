# SPDX-License-Identifier: BSD-2-Clause
"""System calls that Python's os module does not have."""
import ctypes
import os

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE, FALLOC_ZERO, FALLOC_INSERT = 1, 2, 8, 16, 32
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, *paths):
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e), *paths)


def renameat2(old, new, flags):
    """rename(2) with RENAME_NOREPLACE or RENAME_EXCHANGE."""
    _check(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags), old, None, new)


def fallocate(fd, mode, offset, length):
    """fallocate(2) with its modes."""
    _check(_libc.fallocate(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(length)))


def syncfs(fd):
    """syncfs(2)."""
    _check(_libc.syncfs(fd))


def link_fd(fd, path):
    """Give an O_TMPFILE file a name."""
    _check(_libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW), path)
