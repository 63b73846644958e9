# SPDX-License-Identifier: BSD-2-Clause
"""Strangers on the daemon's port: they hold nothing for long, and nobody else waits for them. What a client with a password may try is in
tests/unit/test_module_attack.c."""
import socket

from lib.peer import WELCOME, Peer
from lib.wait import SLOW, wait_until


def greeted(port):
    """A connection that got the greeting, or None if it was closed without one."""
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(20 * SLOW)
    try:
        if len(s.recv(24)) == 24:
            return s
    except OSError:
        pass
    s.close()
    return None


def test_handshake_has_a_deadline(pair):
    """Whoever says nothing, or half of something, is gone after it; so is who is let in to list modules and stays."""
    silent, half = greeted(pair.standby.port), greeted(pair.standby.port)
    lister = Peer.connect(pair.standby.port, module="")
    lister.hello(mode=2)
    lister.wait(WELCOME)
    half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    for s in (silent, half):
        try:
            assert s.recv(100) == b"" or s.recv(100) == b""
        except ConnectionResetError:
            pass
        s.close()
    wait_until(lambda: len(pair.standby.children()) == 1, "the children of all are gone")
    lister.close()


def test_connections_of_one_address_are_limited(site):
    """Beyond the limit they are closed without a word; who is let in already is not touched, and the next one who ends makes room."""
    standby = site.standby()
    standby.keys["max unauthenticated per address"] = 3
    standby.start()
    source = site.source([standby.url()]).start()
    source.wait()
    held = []
    wait_until(lambda: held.append(greeted(standby.port)) or held[-1] is None, "a refusal")
    assert len(held) <= 5
    (source.dir / "file").write_text("x")
    source.wait()
    for s in filter(None, held):
        s.close()
    source.kill_replicator()
    (source.dir / "file").write_text("y")
    source.wait()


def test_password_of_one_module_does_not_open_another(site):
    standby = site.standby()
    standby.users["other"] = "another-password"
    standby.module("private", site.dir / "private", **{"auth users": "other"})
    (site.dir / "private" / "file").write_text("precious")
    standby.start()
    source = site.source([standby.url("private")]).start()
    (source.dir / "file").write_text("x")
    source.wait_error(r"\b[0-9a-f]{16}\b")
    assert (site.dir / "private" / "file").read_text() == "precious"
