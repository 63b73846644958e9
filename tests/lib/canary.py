# SPDX-License-Identifier: BSD-2-Clause
"""A directory that nobody has a reason to look into, and that tells when somebody does."""
import contextlib
import ctypes
import os

from lib import tree

IN_ALL_EVENTS = 0xfff


class Canary:
    """A directory that nobody has a reason to look into; touched() names what somebody did to it."""

    def __init__(self, path):
        self.path = path
        (path / "sub").mkdir(parents=True)
        (path / "secret").write_text("the canary's secret")
        (path / "sub" / "file").write_text("the canary's secret")
        for n in range(100):  # names that a load uses, too
            (path / f"f{n}").write_text("the canary's secret")
        self.before = self.scan()
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        for name in (path, path / "sub", path / "secret", path / "sub" / "file"):
            assert libc.inotify_add_watch(self.fd, os.fsencode(name), IN_ALL_EVENTS) >= 0

    def scan(self):
        """Everything but the times of access: to look changes them."""
        return {name: (st.st_mode, st.st_ino, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
                for name, st in tree.scan(self.path).items()}

    def untouched(self):
        events = b""
        with contextlib.suppress(BlockingIOError):
            events = os.read(self.fd, 65536)
        os.close(self.fd)
        assert not events, f"somebody was outside: {events[:200]!r}"
        assert self.scan() == self.before
