# SPDX-License-Identifier: BSD-2-Clause
"""A client with the password of one module that floods the daemon with what the protocol allows, and a local process that swaps directories
for symlinks: the daemon stays within its bounds, other modules are served, nothing outside a module is touched."""
import contextlib
import itertools
import os
import socket
import struct
import threading
import time

import pytest

from lib import tree
from lib.canary import Canary
from lib.peer import BATCH, LIST, MODULES, PING, REFUSE, SUMS, SYNC, WELCOME, Peer, Refused, begin, data, frame, list_, psk, sums
from lib.procs import private, sanitized
from lib.syscalls import RENAME_EXCHANGE, renameat2
from lib.wait import SLOW, wait_until

SECONDS = float(os.environ.get("TANDEM_RACE_SECONDS", "2"))
MIB = 1 << 20
CHILD_MEMORY, DAEMON_MEMORY = 192 * MIB, 32 * MIB  # private bytes, under any flood
VOLUME = 128  # MiB of a flood
KEY = psk()


class Watch(threading.Thread):
    """Looks at the daemon and its children all the time; most() tells the largest values seen."""

    def __init__(self, standby):
        super().__init__(daemon=True)
        self.standby, self.over = standby, threading.Event()
        self.memory = self.descriptors = self.threads = self.children = self.daemon_memory = self.daemon_descriptors = 0

    def run(self):
        while not self.over.wait(0.02):
            children = self.standby.children()
            self.children = max(self.children, len(children))
            with contextlib.suppress(OSError):
                self.daemon_memory = max(self.daemon_memory, private(self.standby.popen.pid))
                self.daemon_descriptors = max(self.daemon_descriptors, len(os.listdir(f"/proc/{self.standby.popen.pid}/fd")))
            for pid in children:
                with contextlib.suppress(OSError):
                    self.memory = max(self.memory, private(pid))
                    self.descriptors = max(self.descriptors, len(os.listdir(f"/proc/{pid}/fd")))
                    self.threads = max(self.threads, len(os.listdir(f"/proc/{pid}/task")))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


@pytest.fixture
def two(site):
    """A daemon with module m for the attacker and module other for a real mirror, which runs: standby, source."""
    standby = site.standby()
    standby.users["other"] = "another-password"
    standby.module("other", site.dir / "other", **{"auth users": "other"})
    standby.modules["m"].update({"auth users": "rsync_backup", "max connections": 8})
    standby.start()
    source = site.source([standby.url("other", "other")])
    source.password_text = "another-password"
    source.start()
    source.wait()
    return standby, source


def served(source, standby, tag):
    """The mirror of the other module is served now, not after the attack."""
    (source.dir / tag).write_text(tag)
    wait_until(lambda: (standby.modules["other"]["path"] / tag).exists(), f"{tag} in the other module", 5)


def cpu(pid):
    """Seconds of CPU that a process used."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return sum(map(int, f.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0


def child(standby, before):
    return wait_until(lambda: set(standby.children()) - before, "the attacker's child").pop()


def cut(frames):
    return [frames[at:at + MIB] for at in range(0, len(frames), MIB)]


def flood(c, once, again):
    """Send frames once, others again and again, without reading an answer, until the connection ends or VOLUME was sent."""
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100000))
    end = time.monotonic() + SLOW  # a child that does not read any more is one of the good ends
    for piece in itertools.islice(itertools.chain(cut(once), itertools.cycle(cut(again * (MIB // len(again))))), VOLUME):
        while time.monotonic() < end:
            try:
                c.write(piece)
                break
            except TimeoutError:
                continue
            except Refused:
                return


def prepare(standby):
    """In the module: a huge directory, a deep tree, a huge file of nothing with a little data."""
    top = standby.dir
    (top / "many").mkdir()
    for i in range(3000):
        (top / "many" / f"{i:0100}").touch()
    path = top
    for _ in range(300):
        path = path / "deep"
        path.mkdir()
    with open(top / "huge", "wb") as f:
        f.truncate(1 << 40)
        for i in range(64):
            f.seek(i << 34)
            f.write(b"x")


def transfers(numbers, piece):
    return b"".join(frame(BATCH, begin(x, f"t{x}") + b"".join(data(x, k << 24, piece) for k in range(8))) for x in numbers)


# what is sent once, and what again and again
FLOODS = {  # in CI every second one
    "transfers in memory": (transfers(range(1, 257), b"y" * 7000), frame(PING, b"\0" * 8)),
    "transfers in files": (transfers(range(1, 80), b"y" * 30000) + transfers(range(80, 257), b"y" * 4000), frame(PING, b"\0" * 8)),
    "too many transfers": (transfers(range(1, 400), b"y"), frame(PING, b"\0" * 8)),
    "listings": (b"", frame(LIST, list_(2, "many"))),
    "deep": (b"", frame(LIST, list_(2, "/".join(["deep"] * 300)))),
    "whole sums": (b"", frame(SUMS, sums(2, "huge"))),
    "sums": (b"", frame(SUMS, sums(2, "huge", 512))),
    "small frames behind a long answer": (frame(SUMS, sums(2, "huge", 512)), frame(MODULES)),
    "modules": (b"", frame(MODULES)),
    "pings": (b"", frame(PING, b"\0" * 8)),
    "syncs": (b"", frame(SYNC, b"\0" * 8)),
}


def attack(standby, source, number, once, again):
    """One flood; what the child and the daemon took at most."""
    before = set(standby.children())
    with Watch(standby) as watch:
        c = Peer.connect(standby.port)
        c.hello()
        c.wait(WELCOME)
        child(standby, before)
        t = threading.Thread(target=flood, args=(c, once, again))
        t.start()
        served(source, standby, f"during-{number}")
        t.join()
        c.close()
        wait_until(lambda: set(standby.children()) <= before, "the end of the attacker's child")
    served(source, standby, f"after-{number}")
    return watch


def test_floods_of_legal_frames(two):
    """Memory, descriptors and threads of the child stay within their bounds, whatever it is asked; it ends with its connection, whatever it was
    doing; another module is served meanwhile and afterwards."""
    standby, source = two
    prepare(standby)
    for number, (kind, frames) in enumerate(FLOODS.items()):
        if number % 2 == 0 and not os.environ.get("TANDEM_FLOODS"):
            continue
        watch = attack(standby, source, number, *frames)
        print(f"{kind}: child {watch.memory / MIB:.0f} MiB, {watch.descriptors} descriptors, {watch.threads} threads; daemon {watch.daemon_memory / MIB:.0f} MiB")
        assert sanitized(standby) or watch.memory < CHILD_MEMORY and watch.daemon_memory < DAEMON_MEMORY, kind
        assert watch.descriptors <= 1024 and watch.threads <= 4 and watch.children <= 4, kind


def test_connections_of_one_module_leave_room_for_others(two):
    """A module has as many connections as it says; while all of them are held and the one that may computes, a change in another module
    arrives as ever."""
    standby, source = two
    with open(standby.dir / "huge", "wb") as f:
        f.truncate(1 << 40)
        f.write(b"x")
    held, before = [], set(standby.children())
    try:
        held.append(Peer.connect(standby.port, key=KEY))
        held[0].hello()
        held[0].wait(WELCOME)
        child, = set(standby.children()) - before
        while len(held) < 20:
            c = Peer.connect(standby.port, key=KEY)
            held.append(c)
            c.hello(mode=2)
            kind, payload = c.get()
            if kind == REFUSE:
                assert payload[0] == 4, payload
                break
        assert len(held) == 9
        held[0].send(SUMS, sums(2, "huge"))
        wait_until(lambda: cpu(child) > 1, "the attacker computes")
        served(source, standby, "during")
    finally:
        for c in held:
            c.close()
    wait_until(lambda: set(standby.children()) <= before, "the end of the attacker's children", 60)


class Swapper(threading.Thread):
    """Swaps a directory and a symlink to the canary as fast as it goes; both are where they were in the end."""

    def __init__(self, directory, link):
        super().__init__(daemon=True)
        self.directory, self.link, self.over, self.swaps = os.fsencode(directory), os.fsencode(link), False, 0

    def run(self):
        while not self.over or self.swaps % 2:
            with contextlib.suppress(FileNotFoundError):  # the child is about to put a directory in the symlink's place
                renameat2(self.directory, self.link, RENAME_EXCHANGE)
                self.swaps += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.join()
        assert self.swaps > 10


def work(at, seconds):
    """Operations of every kind in an open directory, whatever it is called."""
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        n += 1
        name = f"f{n % 50}"
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            fd = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=at)
            os.write(fd, b"%d" % n * (n % 3000))
            os.setxattr(fd, "user.n", b"%d" % n)
            os.fchmod(fd, 0o600 + n % 64)
            os.close(fd)
            os.utime("secret", ns=(n, n), dir_fd=at)
            os.mkdir(f"d{n % 7}", dir_fd=at)
            os.link(name, f"d{n % 7}/hard{n}", src_dir_fd=at, dst_dir_fd=at)
            os.symlink("secret", f"d{n % 7}/soft{n}", dir_fd=at)
        if n % 3 == 0:
            with contextlib.suppress(OSError):
                os.rename(name, f"f{n % 50 + 50}", src_dir_fd=at, dst_dir_fd=at)
                os.unlink(f"f{n % 40 + 50}", dir_fd=at)
        if n % 20 == 0:
            with contextlib.suppress(OSError):
                os.rename("sub", "sub2", src_dir_fd=at, dst_dir_fd=at)
                os.rename("sub2", "sub", src_dir_fd=at, dst_dir_fd=at)
    os.close(at)
    assert n > 5


def test_a_directory_swapped_for_a_symlink_on_the_standby(pair):
    """Whatever the daemon's child does in it: nothing outside the module is changed or even opened."""
    (pair.dir / "d" / "sub").mkdir(parents=True)
    (pair.dir / "d" / "secret").write_text("its own")
    pair.same()
    canary = Canary(pair.site.dir / "outside")
    link = pair.site.dir / "link"
    link.symlink_to(canary.path)
    at = os.open(pair.dir / "d", os.O_RDONLY)
    with Swapper(pair.copy / "d", link):
        work(at, SECONDS)
    canary.untouched()
    pair.source.ctl("verify", pair.source.name, "--repair", "--checksum")  # what failed is tried again
    pair.same(60 + 5 * SECONDS)


def test_a_directory_swapped_for_a_symlink_at_the_source(pair):
    """The replicator reads nothing through it, nor does what lies behind it get to the standby."""
    (pair.dir / "d" / "sub").mkdir(parents=True)
    (pair.dir / "d" / "secret").write_text("its own")
    canary = Canary(pair.site.dir / "outside")
    (pair.dir / "link").symlink_to(canary.path)
    pair.source.wait()
    at = os.open(pair.dir / "d", os.O_RDONLY)
    with Swapper(pair.dir / "d", pair.dir / "link"):
        work(at, SECONDS / 3)
    canary.untouched()
    pair.same(60 + 5 * SECONDS)
    for top, _, names in os.walk(pair.copy):
        for name in names:
            path = os.path.join(top, name)
            if not os.path.islink(path):
                with open(path, "rb") as f:
                    assert b"canary" not in f.read(), path
