# SPDX-License-Identifier: BSD-2-Clause
"""What tandemctl makes of the answers of mount and replicator, and of none; the processes are played here."""
import json
import os
import re
import socket
import threading
import time

import pytest

from lib.procs import ctl

HEALTHY = {"ok": True, "mirror": "m", "state": "insync", "paused": False, "seq": 7, "targets": [
    {"url": "tandem://u@h/m", "state": "insync", "applied": 7, "durable": 7, "lag_records": 0, "lag_bytes": 0, "lag_seconds": 0,
     "errors": [], "error": "", "files": 1, "bytes_sent": 10, "bytes_received": 10}]}


class Answers:
    """A control socket that gives answers: {op: object, list of packets, or function of the request}."""

    def __init__(self, path, answers):
        self.asked = []
        self.answers = answers
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            with c:
                data = c.recv(100000)
                if not data:
                    continue
                request = json.loads(data)
                self.asked.append(request)
                answer = self.answers[request["op"]]
                answer = answer(request) if callable(answer) else answer
                for packet in answer if isinstance(answer, list) else [answer]:
                    c.send(json.dumps(packet).encode())


@pytest.fixture
def mirror(tmp_path):
    """A mirror "m" that nobody runs: run(command ...), mount(answers), replicator(answers)."""
    return Mirror(tmp_path)


class Mirror:
    def __init__(self, dir):
        self.dir = dir
        self.state = dir / "state" / "m"
        self.state.mkdir(parents=True)
        os.chmod(self.state, 0o700)
        (dir / "source").mkdir()
        (dir / "password").write_text("secret\n")
        os.chmod(dir / "password", 0o600)
        self.config = dir / "mirrors.conf"
        self.config.write_text(f"state dir = {dir}/state\n[m]\nsource = {dir}/source\ntarget = tandem://u@127.0.0.1:1/m\n"
                               f"password file = {dir}/password\n")

    def mount(self, **answers):
        status = {"ok": True, "pid": 1, "mountpoint": str(self.dir / "source"), "source": str(self.dir / "source"), "seq": 7,
                  "journal_bytes": 100, "journal_limit": 1000, "degraded": False, "collapsed": False}
        return Answers(self.state / "mount.sock", {"status": status, "flush": {"ok": True, "seq": 7}, **answers})

    def replicator(self, **answers):
        return Answers(self.state / "replicator.sock", {"status": HEALTHY, **answers})

    def run(self, *args):
        return ctl("--config", self.config, *args)


def test_nobody_runs(mirror):
    r = mirror.run("status", "m")
    assert r.returncode == 2
    assert "tandemfs is not running" in r.stdout and "tandem-replicator is not running" in r.stdout
    assert f"tandemfs --config {mirror.config} m" in r.stdout, "how to start it"
    s = json.loads(mirror.run("status", "--json").stdout)["mirrors"][0]
    assert s["state"] == "broken" and not s["mount"] and s["targets"][0]["state"] == "unknown"


def test_healthy(mirror):
    mirror.mount()
    mirror.replicator()
    r = mirror.run("status", "m")
    assert r.returncode == 0 and "in sync" in r.stdout, r.stdout
    s = json.loads(mirror.run("status", "--json", "m").stdout)["mirrors"][0]
    assert s["state"] == "insync" and s["mount"] and s["replicator"] and s["journal_bytes"] == 100


@pytest.mark.parametrize("change, code, text", [
    ({"state": "behind"}, 1, "behind"),
    ({"state": "broken"}, 2, "BROKEN"),
    ({"paused": True}, 1, "resume"),
])
def test_states(mirror, change, code, text):
    mirror.mount()
    mirror.replicator(status={**HEALTHY, **change})
    r = mirror.run("status", "m")
    assert r.returncode == code and text in r.stdout, r.stdout


def test_healthy_targets_without_a_mount_are_broken(mirror):
    mirror.replicator()
    r = mirror.run("status", "m")
    assert r.returncode == 2 and "tandemfs is not running" in r.stdout, r.stdout


def test_errors_are_shown_without_control_characters(mirror):
    target = {**HEALTHY["targets"][0], "state": "replicating", "errors": [{"path": "a\x1b[2Jb", "text": "no space\x07", "since": 1}]}
    mirror.mount()
    mirror.replicator(status={**HEALTHY, "targets": [target]})
    r = mirror.run("status", "m")
    assert r.returncode == 2 and "no space" in r.stdout and "\x1b" not in r.stdout and "\x07" not in r.stdout
    assert "verify m --repair" in r.stdout


def test_wait_asks_for_the_flushed_sequence(mirror):
    mirror.mount()
    replicator = mirror.replicator(wait={"ok": True})
    assert mirror.run("wait", "m").returncode == 0
    assert [q["seq"] for q in replicator.asked if q["op"] == "wait"] == [7]


def test_wait_for_a_replicator_that_starts_late(mirror):
    mirror.mount()
    threading.Timer(0.5, lambda: mirror.replicator(wait={"ok": True})).start()
    assert mirror.run("wait", "m", "--timeout", "20").returncode == 0


def test_wait_without_a_replicator_times_out(mirror):
    mirror.mount()
    began = time.monotonic()
    r = mirror.run("wait", "m", "--timeout", "1")
    assert r.returncode == 1 and "tandem-replicator is not running" in r.stderr, r.stderr
    assert 0.9 < time.monotonic() - began < 10


@pytest.mark.parametrize("silent", [["flush"], ["status", "flush"]])
def test_wait_for_a_mount_that_does_not_answer_times_out(mirror, silent):
    """It hangs in a file server, or was stopped: who gave a time is told when it is over."""
    mirror.mount(**{op: lambda request: threading.Event().wait() for op in silent})
    mirror.replicator(wait={"ok": True})
    r = mirror.run("wait", "m", "--timeout", "1")
    assert r.returncode == 1 and "tandemfs" in r.stderr and "timed out" in r.stderr, r.stderr


def test_wait_says_what_is_missing(mirror):
    mirror.mount()
    mirror.replicator(wait={"ok": False, "error": "tandem://u@h/m: 3 records are missing"})
    r = mirror.run("wait", "m", "--timeout", "1")
    assert r.returncode == 1 and "3 records are missing" in r.stderr


@pytest.mark.parametrize("last, repair, code", [
    ({"differences": 0, "repaired": 0}, False, 0),
    ({"differences": 2, "repaired": 0}, False, 1),
    ({"differences": 2, "repaired": 2}, True, 0),
    ({"differences": 2, "repaired": 1}, True, 1),
])
def test_verify(mirror, last, repair, code):
    found = [{"ok": True, "more": True, "target": "t", "path": p, "what": "content"} for p in ("a", "b")][:last["differences"]]
    mirror.mount()
    replicator = mirror.replicator(verify=[*found, {"ok": True, **last}])
    r = mirror.run("verify", "m", *(["--repair"] if repair else []))
    assert r.returncode == code, r.stderr
    assert r.stdout.splitlines() == [f"t: {p['path']}: content" for p in found]
    assert replicator.asked[-1]["repair"] == repair


def test_verify_could_not(mirror):
    mirror.mount()
    mirror.replicator(verify={"ok": False, "error": "tandem://u@h/m is not connected"})
    r = mirror.run("verify", "m")
    assert r.returncode == 2 and "not connected" in r.stderr


def test_unmount_refused(mirror):
    mirror.mount(unmount={"ok": False, "error": "in use"})
    r = mirror.run("unmount", "m")
    assert r.returncode == 2 and "in use" in r.stderr


def test_pause_without_a_replicator(mirror):
    r = mirror.run("pause", "m")
    assert r.returncode == 2 and "not running" in r.stderr


def answer_port(text):
    """Listen on a port of the loopback and say text to whoever comes; return the port."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(8)

    def serve():
        while True:
            c, _ = s.accept()
            c.sendall(text)
            c.close()
    threading.Thread(target=serve, daemon=True).start()
    return s.getsockname()[1]


@pytest.mark.parametrize("greeting, text", [
    (b"@RSYNCD: 31.0\n", "rsync daemon answers"),
    (b"SSH-2.0-OpenSSH\r\n", "SSH server answers"),
    (b"", "hangs up"),
])
def test_doctor_tells_who_answers(mirror, greeting, text):
    port = answer_port(greeting)
    mirror.config.write_text(mirror.config.read_text().replace(":1/", f":{port}/"))
    r = mirror.run("doctor", "m")
    assert r.returncode == 1 and text in r.stdout, r.stdout


def test_doctor_refused(mirror):
    r = mirror.run("doctor", "m")
    assert r.returncode == 1 and "nothing listens" in r.stdout, r.stdout


def test_doctor_goes_on_with_a_wrong_configuration(mirror):
    mirror.config.write_text(mirror.config.read_text() + "nonsense = yes\n")
    r = mirror.run("doctor", "m")
    assert r.returncode == 1 and "nonsense" in r.stdout and "nothing listens" in r.stdout, r.stdout


def test_all_that_runs_is_shown_with_a_wrong_configuration(mirror):
    """A line that somebody just began to write does not hide mirrors that run."""
    mirror.mount()
    mirror.replicator()
    mirror.config.write_text(mirror.config.read_text() + "half a li\n")
    r = mirror.run("status", "--json")
    assert [m["state"] for m in json.loads(r.stdout)["mirrors"]] == ["insync"], r.stdout
    assert r.returncode == 0 and f"{mirror.config}:6" in r.stderr, r.stderr
    r = mirror.run("doctor")
    assert r.returncode == 1 and re.search(f"^FAIL {mirror.config}:6", r.stdout, re.M) and "nothing listens" in r.stdout, r.stdout


def test_doctor_without_the_configuration(mirror):
    """Another user would not find it either."""
    mirror.config.unlink()
    r = mirror.run("doctor", "m")
    assert r.returncode == 1 and "--config FILE" in r.stdout and "as the user" not in r.stdout, r.stdout


@pytest.mark.parametrize("args", [["status", "--timeout", "3"], ["wait"], ["wait", "m", "--timeout", "soon"], ["pause", "m", "n"],
                                  ["journal", "m", "--format", "%y"], ["--nonsense"]])
def test_wrong_command_lines(mirror, args):
    r = mirror.run(*args)
    assert r.returncode == 2 and r.stderr
