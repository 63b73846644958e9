# SPDX-License-Identifier: BSD-2-Clause
"""Who has no password: learns nothing, gets no weaker connection, and cannot use one that he recorded."""
import itertools
import os
import random
import select
import socket
import ssl
import statistics
import threading
import time

import pytest

from lib.peer import AES256, BATCH, CHACHA, HELLO, TLS12, WELCOME, ACK, Peer, Refused, begin, commit, data, frame, position, psk, string
from lib.procs import private, sanitized
from lib.wait import SLOW, wait_until

TRIES = int(os.environ.get("TANDEM_TRIES", "30"))  # of each kind
HELLO_FRAME = frame(HELLO, b"\1\0\0\0" + b"\0" * 8 + b"\1\0\0\0" + string("test") + b"S" * 16 + position())
KINDS = {"wrong password": ("rsync_backup", "m"), "unknown user": ("nobody_here", "m"), "unknown module": ("rsync_backup", "nosuch"),
         "unknown user and module": ("nobody_here", "nosuch"), "user of another module": ("other", "m"), "no module": ("nobody_here", "")}


@pytest.fixture
def standby(site):
    s = site.standby()
    s.users["other"] = "another-password"
    s.module("private", site.dir / "private", **{"auth users": "other"})
    s.modules["m"]["auth users"] = "rsync_backup"
    s.modules["m"]["max verbosity"] = 0
    return s.start()


def greeted(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(20 * SLOW)
    assert len(s.recv(24, socket.MSG_WAITALL)) == 24
    return s


def rest(s):
    """Everything that still comes."""
    out = b""
    try:
        while piece := s.recv(65536):
            out += piece
    except ConnectionResetError:
        pass
    s.close()
    return out


def recorded_answer(port, user, module, key):
    """What the daemon sends to a client with the wrong key, and how long it took from the client's last byte."""
    ours, theirs = socket.socketpair()
    outside = greeted(port)
    answer, times = bytearray(), {}

    def relay():
        while True:
            for s in select.select([theirs, outside], [], [])[0]:
                piece = s.recv(65536)
                if not piece:
                    theirs.close()
                    return
                if s is theirs:
                    outside.sendall(piece)
                    times.setdefault("asked", time.perf_counter())
                else:
                    times.setdefault("answered", time.perf_counter())
                    answer.extend(piece)
                    theirs.sendall(piece)
    t = threading.Thread(target=relay)
    t.start()
    with pytest.raises(Refused):
        Peer(ours, False, key, user, module)
    t.join()
    outside.close()
    return bytes(answer), times["answered"] - times["asked"]


def after(a, b):
    """How often one of a is longer than one of b: a half, if nothing tells them apart, however busy the machine is."""
    return sum((x > y) + (x == y) / 2 for x in a for y in b) / len(a) / len(b)


def test_no_name_is_told_from_another(standby):
    """Unknown user, unknown module and wrong password: the same bytes, after the same time. The kinds take turns, so that a busy machine is so for all."""
    key = psk(password="not-the-right-one")
    took, bytes_ = {kind: [] for kind in KINDS}, set()
    for _ in range(TRIES):
        for kind in random.sample(list(KINDS), len(KINDS)):
            user, module = KINDS[kind]
            answer, seconds = recorded_answer(standby.port, user, module, key)
            bytes_.add(answer)
            took[kind].append(seconds)
    assert len(bytes_) == 1, bytes_
    later = {(a, b): after(took[a], took[b]) for a, b in itertools.combinations(KINDS, 2)}
    print(f"{TRIES} tries of each, us, lowest decile (median): "
          + ", ".join(f"{kind} {sorted(v)[TRIES // 10] * 1e6:.0f} ({statistics.median(v) * 1e6:.0f})" for kind, v in took.items())
          + f"; one before the other in {min(later.values()):.2f} to {max(later.values()):.2f} of all pairs")
    for kinds, share in later.items():
        assert 0.15 < share < 0.85, f"{kinds}: the first takes longer in {share:.0%} of all pairs"


def nothing_came(standby):
    assert not [n for n in os.listdir(standby.dir) if n != ".tandem"], "something was written"


@pytest.mark.parametrize("suite", [AES256, CHACHA], ids=lambda s: s[0])
def test_other_cipher_suites(standby, suite):
    """There is one, so there is nothing to negotiate down to."""
    with pytest.raises(Refused):
        Peer.connect(standby.port, suite=suite, key=psk() + psk()[:16] if suite is AES256 else psk())
    nothing_came(standby)


def test_tls_1_2(standby):
    with pytest.raises(Refused):
        Peer.connect(standby.port, versions=(TLS12, TLS12))


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_tls_without_our_key(standby, version):
    """A handshake with certificates in mind, with every cipher that Python's ssl offers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    if version == "TLSv1_2":
        context.set_ciphers("ALL:aNULL:eNULL:@SECLEVEL=0")
    with pytest.raises(OSError):
        context.wrap_socket(greeted(standby.port))


def test_plain_text(standby):
    """Frames without TLS, alone and before a handshake: no answer of the protocol, and they are not taken for what TLS protects."""
    s = greeted(standby.port)
    s.sendall(HELLO_FRAME)
    assert rest(s)[:1] in (b"", b"\x15")  # an alert at most
    s = greeted(standby.port)
    s.sendall(HELLO_FRAME)
    with pytest.raises(OSError):
        Peer(s, False, psk())
    nothing_came(standby)


def test_early_data_is_not_read(standby):
    """What could be replayed is not taken: the session goes on as if it had not been sent, or ends."""
    early = HELLO_FRAME + frame(BATCH, begin(1, "early") + data(1, 0, b"x") + commit(1, "early", 1))
    try:
        with Peer.connect(standby.port, early=early) as c:
            assert not c.early_accepted
            c.hello(mode=2)
            c.wait(WELCOME)
    except Refused:
        pass
    nothing_came(standby)


class Tape:
    """A wire-tapper: forwards one connection and keeps what the client said."""

    def __init__(self, port):
        self.port, self.said = port, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.at = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        inside = self.listener.accept()[0]
        with inside, socket.create_connection(("127.0.0.1", self.port)) as out:
            while True:
                for s in select.select([inside, out], [], [])[0]:
                    piece = s.recv(65536)
                    if not piece:
                        return
                    if s is inside:
                        self.said += piece
                    (out if s is inside else inside).sendall(piece)


def test_a_recorded_connection_cannot_be_replayed(standby):
    """Every byte that a good client said, said once more: whole, and the handshake alone with the rest behind it later."""
    tape = Tape(standby.port)
    with Peer.connect(tape.at) as c:
        c.hello()
        c.wait(WELCOME)
        c.send(BATCH, begin(1, "file") + data(1, 0, b"precious") + commit(1, "file", 8))
        c.wait(ACK)
    tape.thread.join()
    assert (standby.dir / "file").read_text() == "precious" and len(tape.said) > 500
    wait_until(lambda: not standby.children(), "the end of the recorded connection")
    (standby.dir / "file").unlink()
    for pieces in ([tape.said], [tape.said[:400], tape.said[400:]], [tape.said[-400:]]):
        s = greeted(standby.port)
        try:
            for piece in pieces:
                s.sendall(piece)
        except OSError:
            pass
        rest(s)
    wait_until(lambda: not standby.children(), "the end of the replays")
    nothing_came(standby)


def test_an_address_in_a_proxy_header_is_not_believed(standby):
    s = greeted(standby.port)
    s.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 8730\r\n")
    with pytest.raises(OSError):
        Peer(s, False, psk())
    assert "10.0.0.1" not in standby.log()


def test_names_make_no_lines_in_the_log(standby):
    """User and module cannot have control characters, the mirror name can: no lines of its own, no orders to a terminal."""
    evil = "x\x1b[2J\n2026-01-01 tandemd: all is well"
    for user, module in ((evil, "m"), ("rsync_backup", evil)):
        with pytest.raises(Refused):
            Peer.connect(standby.port, user=user, module=module, key=psk())
    with Peer.connect(standby.port) as c:
        c.hello(mirror=evil, source=b"1" * 16)
        c.wait(WELCOME)
    with Peer.connect(standby.port) as c:
        c.hello(mirror=evil, source=b"2" * 16)
        assert c.refusal() == 6
    wait_until(lambda: standby.log().count("all is well") >= 1, standby.log)
    assert "\x1b" not in standby.log() and "\n2026-01-01 tandemd" not in standby.log()


def test_memory_before_authentication_is_bounded(standby):
    """Half a handshake with the longest records that TLS has, again and again: each child takes a little, and the limit per address holds."""
    hello = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03" + b"a" * (0x4000 - 6)
    held = [socket.create_connection(("127.0.0.1", standby.port)) for _ in range(40)]
    for s in held:
        s.settimeout(0.2)
        try:
            for _ in range(20):
                s.sendall(hello)
        except OSError:
            pass
    children = standby.children()
    assert len(children) <= 32
    most = 0
    for pid in children:
        try:
            most = max(most, private(pid))
        except OSError:
            pass
    assert sanitized(standby) or most < 8 << 20
    for s in held:
        s.close()
