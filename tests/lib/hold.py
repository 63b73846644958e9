# SPDX-License-Identifier: BSD-2-Clause
"""A moment in the middle of an operation, for as long as a test needs it, and an operation that fails when it is done.

    hold = Hold(site, source)                # before it is started
    with hold("fstatat", "name") as lookup:  # the next fstatat of that name by source holds on when it is done,
        lookup.reached()                     #   which it is here,
        lookup.release()                     #   and goes on, at the end of the block at the latest

    hold.fail("truncate", "name")            # the next truncate or ftruncate of a file of that name is done, and then EIO, or another error

Calls that hold: fstatat, renameat2 (by the old name); that fail: these, truncate, chmod, setxattr (with or without f), mkdirat, mknodat, symlinkat, linkat,
unlinkat, and create for openat that makes a file. Needs a C compiler.
"""
import contextlib
import errno

from lib.preload import preload
from lib.wait import wait_until


class Held:
    def __init__(self, wanted):
        self.wanted, self.held, self.late = wanted, wanted.with_name(f"{wanted.name}.held"), wanted.with_name(f"{wanted.name}.late")
        wanted.touch()

    def is_reached(self):
        return self.held.exists()

    def reached(self):
        wait_until(self.is_reached, f"{self.wanted.name} is held")

    def release(self):
        self.wanted.unlink(missing_ok=True)
        self.held.unlink(missing_ok=True)
        assert not self.late.exists(), f"{self.wanted.name} went on by itself after 10 s: who was to release it waited for it"


class Hold:
    def __init__(self, site, *members):
        self.dir = site.dir / "hold"
        self.dir.mkdir()
        for m in members:
            m.env = preload(site, "hold", TANDEM_TEST_HOLD=str(self.dir))

    def fail(self, call, name, error=errno.EIO):
        (self.dir / f"{call}.{name}.fail").write_text(str(error))

    def failed(self, call, name):
        """Say whether what was to fail did."""
        return not (self.dir / f"{call}.{name}.fail").exists()

    @contextlib.contextmanager
    def __call__(self, call, name):
        h = Held(self.dir / f"{call}.{name}")
        try:
            yield h
        finally:
            h.release()
