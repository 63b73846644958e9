# SPDX-License-Identifier: BSD-2-Clause
"""A host of its own for some processes of a site: with a boot id that changes when it boots, and a clock that may jump.

    host = Host(site, standby)    # before they are started
    host.reboot()                 # for whoever is started from now on
    host.clock(-3600)             # at once: an hour earlier than it is

Only what a process reads is changed, not the times that the kernel gives to files. Needs a C compiler.
"""
import mmap
import struct
import uuid

from lib.preload import preload


class Host:
    def __init__(self, site, *members):
        self.site = site
        self.path = site.dir / f"host.{uuid.uuid4()}"
        self.members = list(members)
        self.map = None
        self.boot()
        for m in members:
            m.env = preload(site, "host", TANDEM_TEST_HOST=str(self.path))

    def boot(self):
        """A file of its own for each boot, since the mapping shows changes at once also to those who live in the last."""
        with open(self.path, "wb") as f:
            f.write(struct.pack("q", 0) + f"{uuid.uuid4()}\n".encode())
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 0)

    def reboot(self):
        shift = self.map[:8]
        self.path.unlink()
        self.boot()
        self.map[:8] = shift

    def clock(self, seconds):
        self.map[:8] = struct.pack("q", int(seconds * 1e9))
