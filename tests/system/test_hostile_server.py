# SPDX-License-Identifier: BSD-2-Clause
"""A module daemon that lies: a replicator that connects to it stays alive within bounded memory, reads nothing outside the source or of what is
excluded, runs nothing, and mirrors as ever once an honest daemon is there."""
import contextlib
import os
import struct
import threading
import time

import pytest

from lib import tree
from lib.peer import (ACK, AES256, BATCH, FAIL, HOLD, INF, LIST, LISTING, NOTICE, PING, REFUSE, SUMS, SUMSET, SYNC, SYNCED, TLS12, WELCOME, Server,
                      entry, failure, frame, listing, position, psk, string, sumset, welcome)
from lib.canary import Canary
from lib.procs import private, sanitized
from lib.wait import wait_until

MIB = 1 << 20
SECONDS = float(os.environ.get("TANDEM_LIE_SECONDS", "0.15"))
MEMORY, LISTINGS = 192 * MIB, 1024 * MIB  # private bytes of the replicator; what listings may take of it, and as much while a buffer grows
EVIL = "\x1b[2J\n2026-01-01 00:00:00.000 a line of the peer's\x07"


class Liar:
    """What a session needs to look honest, with hooks for lies: each is a function of the peer and the request's payload; None is the honest answer."""

    def __init__(self, hello=None, list_=None, sums=None, batch=None, sync=None, first=None):
        self.lies = {LIST: list_, SUMS: sums, BATCH: batch, SYNC: sync}
        self.hello, self.first = hello, first
        self.heard = bytearray()  # everything the replicator said
        self.sessions = 0

    def __call__(self, peer):
        self.sessions += 1
        received = 0
        while True:
            kind, payload = peer.get()
            raw = payload if isinstance(payload, bytes) else payload[2]
            if len(self.heard) < 64 * MIB:
                self.heard += raw
            if kind == 1:
                peer.send(WELCOME, welcome() if self.hello is None else self.hello(payload))
                if self.hello is None:  # the position moved: the next connection comes soon
                    peer.send(ACK, struct.pack("<QQQ", 0, 1, 0))
                if self.first:
                    self.first(peer)
            elif self.lies.get(kind):
                self.lies[kind](peer, raw)
            elif kind == LIST:
                ident = raw[:4]
                peer.send(LISTING, listing(struct.unpack("<I", ident)[0], [entry(".", 0o040755)]))
            elif kind == SUMS:
                peer.send(SUMSET, sumset(struct.unpack("<I", raw[:4])[0], 0))
            elif kind == PING:
                peer.send(11, raw)
            elif kind == SYNC:
                peer.send(SYNCED, raw + struct.pack("<Q", 0))
            if kind == BATCH:
                received += len(payload) if isinstance(payload, bytes) else payload[1]
                peer.send(ACK, struct.pack("<QQQ", received, 1, 0))


def ident(raw):
    return struct.unpack("<I", raw[:4])[0]


@pytest.fixture
def trap(site):
    """A mirror of a tree with a symlink to a canary and excluded files, whose standby will be a liar: trap(liar) starts it all."""
    class Trap:
        pass
    t = Trap()
    t.standby = site.standby()
    t.source = site.source([t.standby.url()], exclude="private")
    top = t.source.dir
    t.canary = Canary(site.dir / "outside")
    (top / "d" / "private").mkdir(parents=True)
    (top / "d" / "private" / "key").write_text("an excluded secret")
    (top / "d" / "file").write_text("of the mirror")
    (top / "big").write_bytes(os.urandom(1 << 20))
    (top / "link").symlink_to(t.canary.path)
    os.mkfifo(top / "fifo")
    t.servers = []

    def start(liar, **options):
        t.servers.append(Server(t.standby.port, liar, **options))
        t.source.start()
        t.pid = wait_until(t.source.replicators, "a replicator")[0]
        t.watch = Memory(t.pid)
        return t
    t.start = start
    yield t
    for s in t.servers:
        s.close()


class Memory(threading.Thread):
    """The most private memory that a process had."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.over = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            with contextlib.suppress(OSError):
                self.most = max(self.most, private(self.pid))


def survived(trap, liar):
    """The same replicator is there, the mount works, and nothing was read that must not be."""
    trap.watch.over.set()
    trap.watch.join()
    assert trap.source.replicators() == [trap.pid], trap.source.log()[-2000:]
    (trap.source.dir / "d" / "after").write_text("the mount works")
    trap.canary.untouched()
    assert b"canary" not in liar.heard.replace(os.fsencode(trap.canary.path), b"") and b"an excluded secret" not in liar.heard


def lists_of(*entries, **keys):
    return lambda peer, raw: peer.send(LISTING, listing(ident(raw), list(entries), **keys))


def endless_listing(peer, raw):
    names = [entry("%0200x" % n) for n in range(1000)]
    for part in range(20000):
        peer.send(LISTING, listing(ident(raw), ([entry(".", 0o040755)] if part == 0 else []) + [e.replace(b"0" * 8, b"%08x" % part, 1) for e in names], last=False))


def endless_sums(peer, raw):
    for part in range(20000):
        peer.send(SUMSET, sumset(ident(raw), 65536, last=False, size=1 << 20, first=part * 65536))


def fails(*paths, **keys):
    def lie(peer, _raw):
        for seq in (0, 1, 2, 3, 10**6, INF - 1):
            for path in paths:
                peer.send(FAIL, failure(path=path, seq=seq, **keys))
                peer.send(FAIL, failure(path="d/file", path2=path, seq=seq, **keys))
    return lie


def flood_of(make, count):
    def first(peer):
        for n in range(count):
            peer.write(make(n))
    return first


DIR = entry(".", 0o040755)
BIG = lists_of(DIR, entry("big", size=1 << 20))  # the sums of big are asked for
ESCAPES = ("..", "../outside/secret", "/etc/passwd", "d/../../outside", ".tandem/x", "a//b")
LIES = {
    "names in a listing that are none": [Liar(list_=lists_of(DIR, entry(n))) for n in ("..", "a/b")],
    "a link for a directory": [Liar(list_=lists_of(DIR, entry("link", 0o040755), entry("d", 0o120777, target="../outside")))],
    "a listing of other ids": [Liar(list_=lambda p, r: p.send(LISTING, listing(ident(r) + 2, [DIR])), sums=lambda p, r: p.send(SUMSET, sumset(ident(r) + 2, 0)))],
    "counts that lie": [Liar(list_=lists_of(DIR, count=2**32 - 1)), Liar(list_=lists_of(count=5)), Liar(list_=BIG, sums=lambda p, r: p.send(SUMSET, sumset(ident(r), 5, body=b""))),
                        Liar(list_=BIG, sums=lambda p, r: p.send(SUMSET, sumset(ident(r), 100, size=INF, first=INF - 5)))],
    "answers that were not asked for": [Liar(first=flood_of(lambda n: frame(LISTING, listing(n, [DIR])) + frame(SUMSET, sumset(n, 3)), 3000))],
    "an endless listing": [Liar(list_=endless_listing)],
    "endless sums": [Liar(list_=BIG, sums=endless_sums)],
    "failures with foreign paths": [Liar(batch=fails(*ESCAPES))],
    "failures with paths through a link": [Liar(batch=fails("link", "link/secret", "link/sub/file", "fifo"))],
    "failures with what is excluded": [Liar(batch=fails("d/private", "d/private/key"))],
    "endless failures": [Liar(first=flood_of(lambda n: b"".join(frame(FAIL, failure(path=f"{n}-{k}/" + "x" * 200, seq=k % 4, text="y" * 500)) for k in range(100)), 500))],
    "pings": [Liar(first=flood_of(lambda n: frame(PING, b"\0" * 8) * 1000, 500))],
    "lines for the log": [Liar(first=flood_of(lambda n: frame(NOTICE, string(EVIL + "n" * 500)) + frame(HOLD, failure(code=10, text=EVIL)) + frame(HOLD, failure(code=0)), 2000)),
                          Liar(first=lambda p: p.send(REFUSE, failure(code=10, text=EVIL)))],
    "acknowledgements of the future": [Liar(first=lambda p: p.send(ACK, struct.pack("<QQQ", INF, INF, INF)))],
    "frames that do not belong": [Liar(first=lambda p, k=k: p.send(k, b"\0" * 20)) for k in (BATCH, 200)],
    "a bomb": [Liar(first=lambda p: p.write(frame(LISTING, b"\x28\xb5\x2f\xfd\xa0\x00\x00\x40\x00" + b"\x02\x00\x10\x00" * 100, 2, 4 << 20)))],
    "a window without end": [Liar(hello=lambda h: welcome(window=INF))],
    "positions that are none": [Liar(hello=lambda h, s=s, n=n: welcome(0, position(h[-40:-24], 1, s, 7), position(h[-40:-24], 1, s, 7), outstanding=n))
                                for s, n in ((INF, (INF, 0)), (10**9, (1, 2, 3)), (2, range(1024)))],
    "a welcome that is none": [Liar(hello=lambda h: b""), Liar(hello=lambda h: welcome(count=2**32 - 1)), Liar(hello=lambda h: welcome(window=0))],
}


def test_lies(trap):
    """One lie after the other, each told for a session or for SECONDS: the same replicator is there in the end."""
    told, todo = Liar(), [(kind, lie) for kind, lies in LIES.items() for lie in lies]
    turns, began = iter(todo), []

    def serve(peer):
        kind, lie = next(turns, (None, None))
        told.hello, told.lies, told.first = (lie.hello, lie.lies, lie.first) if lie else (None, {}, None)
        began.append(kind)
        told(peer)
    t = trap.start(serve)
    for n, (kind, _) in enumerate(todo):
        wait_until(lambda: len(began) > n, f"the session for {kind}")  # pylint: disable=cell-var-from-loop
        t.watch.most = 0
        (t.source.dir / "d" / f"more{n}").write_text("x" * n)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and len(began) == n + 1:
            time.sleep(0.02)
        if len(began) == n + 1:
            t.servers[0].cut()
        print(f"{kind}: {t.watch.most / MIB:.0f} MiB")
        assert t.source.replicators() == [t.pid], f"{kind}: {t.source.log()[-2000:]}"
        assert sanitized(t.source) or t.watch.most < (2 * LISTINGS + MEMORY if kind == "an endless listing" else MEMORY), kind
    survived(t, told)
    log, shown = t.source.log(), t.source.ctl("status", t.source.name).stdout
    assert "\x1b" not in log + shown and "\n2026-01-01" not in log + shown, log[-3000:] + shown
    assert log.count("\n") < 40 + 5 * len(todo) and len(log) < 100000, log[-3000:]


def test_a_server_without_the_key_hears_nothing(site):
    """Wrong password, another protocol version or cipher suite: the replicator says nothing that the journal holds, and goes on to an honest
    daemon as soon as there is one."""
    standby = site.standby()
    source = site.source([standby.url()])
    (source.dir / "a name that is private").write_text("x")
    for options in ({"key": psk(password="another")}, {"key": None}, {"versions": (TLS12, TLS12)}, {"suite": AES256, "key": psk() + psk()[:16]}):
        liar = Liar()
        with Server(standby.port, liar, **options) as server:
            if not source.running:
                source.start()
            wait_until(lambda: server.fails, "an attempt")  # pylint: disable=cell-var-from-loop
            source.wait_error("refused|TLS|password|protocol")
            assert not liar.sessions and not liar.heard
    standby.start()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_an_honest_daemon_after_a_liar(trap):
    """What it said of the standby's state is not believed any longer than its connection."""
    liar = Liar(hello=lambda h: welcome(0, position(h[-40:-24], 1, 2**40, 7), position(h[-40:-24], 1, 2**40, 7), window=INF))
    t = trap.start(liar)
    wait_until(lambda: liar.sessions, "a session")
    for n in range(20):
        (t.source.dir / "d" / f"more{n}").write_text("x" * n)
    t.servers[0].close()
    t.standby.start()
    t.source.wait()
    tree.assert_same(t.source.dir, t.standby.dir, exclude=("private",))
    survived(t, liar)
