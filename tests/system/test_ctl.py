# SPDX-License-Identifier: BSD-2-Clause
"""tandemctl: what it prints, how it exits."""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from lib import tree
from lib.procs import PASSWORD, USER, Process, ctl, kill_pid, mounted, processes, program, write_secret
from lib.wait import wait_until


@pytest.mark.smoke
def test_status_in_sync(pair):
    (pair.dir / "file").write_text("x")
    pair.source.wait()
    r = pair.source.ctl("status", "m")
    assert r.returncode == 0, r.stdout + r.stderr
    assert re.search("in ?sync", r.stdout, re.I) and pair.standby.url() in r.stdout, r.stdout


def test_status_json(pair):
    pair.source.wait()
    s = pair.source.status()
    t, = s["targets"]
    assert t["url"] == pair.standby.url() and t["state"] == "insync"
    assert t["lag_records"] == 0 and t["lag_bytes"] == 0 and t["errors"] == []


def test_status_of_all_mirrors(pair):
    r = pair.source.ctl("status")
    assert r.returncode == 0 and "m" in r.stdout, r.stdout + r.stderr


def test_status_behind(pair):
    pair.source.wait()
    pair.standby.stop()
    (pair.dir / "file").write_text("x")

    def behind():
        r = pair.source.ctl("status", "m")
        return r.returncode in (1, 2) and pair.source.target()["lag_records"] > 0
    wait_until(behind, "status says behind")


def test_status_without_a_mount(pair):
    pair.source.stop()
    r = pair.source.ctl("status", "m")
    assert r.returncode == 2, r.stdout + r.stderr
    assert "not mounted" in (r.stdout + r.stderr).lower() or "not running" in (r.stdout + r.stderr).lower(), r.stdout + r.stderr


def test_wait_times_out(pair):
    pair.standby.stop()
    (pair.dir / "file").write_text("x")
    began = time.monotonic()
    r = pair.source.ctl("wait", "m", "--timeout", "1")
    assert r.returncode == 1, r.stdout + r.stderr
    assert 0.9 < time.monotonic() - began < 10
    assert pair.standby.url() in r.stdout + r.stderr, r.stdout + r.stderr


def test_wait_means_durable_and_equal(pair):
    for i in range(30):
        (pair.dir / "file").write_text(f"{i}")
        pair.source.wait()
        assert (pair.copy / "file").read_text() == f"{i}"


def test_unknown_mirror(pair):
    for command in ("status", "wait", "verify", "resync", "pause"):
        r = pair.source.ctl(command, "nosuch")
        assert r.returncode != 0 and "nosuch" in r.stderr, f"{command}: {r.stdout}{r.stderr}"


def test_usage_errors():
    assert ctl("nonsense").returncode != 0
    assert ctl().returncode != 0
    r = ctl("--help")
    assert r.returncode == 0 and "verify" in r.stdout


@pytest.mark.parametrize("name", ["tandemfs", "tandemd", "tandem-replicator", "tandemctl"])
def test_version_and_help(name):
    for option in ("--version", "--help"):
        r = subprocess.run([program(name), option], capture_output=True, text=True, timeout=20, check=False)
        assert r.returncode == 0 and r.stdout, f"{option}: {r.stdout}{r.stderr}"


def test_verify_identical(pair):
    (pair.dir / "file").write_text("x")
    pair.source.wait()
    r = pair.source.ctl("verify", "m")
    assert r.returncode == 0, r.stdout + r.stderr


def tamper(copy):
    (copy / "changed").write_text("tampered: longer than before")
    (copy / "extra").write_text("x")
    os.unlink(copy / "gone")
    os.chmod(copy / "mode", 0o777)
    os.setxattr(copy / "dir", "user.x", b"y")


def prepare(pair):
    for name in ("changed", "gone", "mode", "same"):
        (pair.dir / name).write_text(name)
    (pair.dir / "dir").mkdir()
    pair.source.wait()
    tamper(pair.copy)


def test_verify_finds_tampering(pair):
    prepare(pair)
    r = pair.source.ctl("verify", "m")
    assert r.returncode == 1, r.stdout + r.stderr
    for name in ("changed", "extra", "gone", "mode", "dir"):
        assert name in r.stdout, r.stdout
    assert "same" not in r.stdout
    assert (pair.copy / "extra").exists(), "verify alone changes nothing"


def test_verify_repairs(pair):
    prepare(pair)
    pair.source.ctl("verify", "m", "--repair")
    pair.same()
    assert pair.source.ctl("verify", "m").returncode == 0


def test_verify_repair_returns_when_it_is_repaired(pair_with, net):
    pair = pair_with(proxy=net)
    prepare(pair)
    net.proxy.delay = 0.3
    r = pair.source.ctl("verify", "m", "--repair")
    tree.assert_same(pair.dir, pair.copy)
    assert r.returncode == 0, r.stdout + r.stderr


@pytest.mark.parametrize("end", ["connection", "child", "replicator"])
def test_verify_repair_that_is_cut_is_finished(pair_with, net, end):
    """What a repair took away and had not put back when its connection ended is compared in the next one."""
    pair = pair_with(proxy=net)
    (pair.dir / "d").mkdir()
    (pair.dir / "d" / "big").write_bytes(os.urandom(8 << 20))
    pair.source.wait()
    shutil.rmtree(pair.copy / "d")
    (pair.copy / "d").write_text("no directory")
    net.proxy.rate = 1 << 20
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        repair = pool.submit(pair.source.ctl, "verify", "m", "--repair")
        wait_until((pair.copy / "d").is_dir, "the repair is under way")
        assert not (pair.copy / "d" / "big").exists()
        if end == "connection":
            net.proxy.cut()
        elif end == "child":
            kill_pid(pair.standby.children()[0])
        else:
            pair.source.kill_replicator()
        net.proxy.rate = None
        assert repair.result().returncode == 2
    pair.same()


def test_verify_repair_tells_what_it_could_not_repair(pair_with):
    pair = pair_with(module={"exclude": "later"})
    (pair.dir / "later").mkdir()
    pair.source.wait_error("later")
    r = pair.source.ctl("verify", "m", "--repair")
    assert r.returncode == 2 and "later" in r.stdout + r.stderr, r.stdout + r.stderr


@pytest.mark.root
def test_what_a_repair_could_not_repair_stays_in_status(pair):
    (pair.dir / "file").write_text("content")
    pair.source.wait()
    (pair.copy / "file").write_text("tampered with")
    if subprocess.run(["chattr", "+i", str(pair.copy / "file")], capture_output=True, check=False).returncode:
        pytest.skip("chattr +i is not possible here")
    try:
        r = pair.source.ctl("verify", "m", "--repair")
        assert r.returncode == 2 and "file" in r.stdout + r.stderr, r.stdout + r.stderr
        assert pair.source.status()["state"] == "broken"
        pair.source.wait_error("permission|not permitted")
    finally:
        subprocess.run(["chattr", "-i", str(pair.copy / "file")], check=True)
    pair.same()


def test_verify_checksum_finds_what_times_hide(pair):
    (pair.dir / "file").write_text("original")
    pair.source.wait()
    st = (pair.copy / "file").stat()
    (pair.copy / "file").write_text("0riginal")
    os.utime(pair.copy / "file", ns=(st.st_atime_ns, st.st_mtime_ns))
    os.utime(pair.copy, ns=(1, pair.dir.stat().st_mtime_ns))
    assert pair.source.ctl("verify", "m").returncode == 0
    r = pair.source.ctl("verify", "m", "--checksum")
    assert r.returncode == 1 and "file" in r.stdout, r.stdout + r.stderr
    pair.source.ctl("verify", "m", "--checksum", "--repair")
    pair.same()


def test_verify_while_a_large_file_is_on_its_way(pair_with):
    """Records behind it overtake it: what they brought is no sign that it is there."""
    pair = pair_with(source={"bwlimit": "8M"})
    pair.source.wait()
    (pair.dir / "large").write_bytes(os.urandom(32 << 20))
    (pair.dir / "small").write_text("x")
    wait_until((pair.copy / "small").exists, "the small file")
    assert not (pair.copy / "large").exists() or (pair.copy / "large").stat().st_size < 32 << 20
    r = pair.source.ctl("verify", "m")
    assert r.returncode == 0, r.stdout + r.stderr


def test_verify_without_a_standby(pair):
    pair.standby.stop()
    wait_until(lambda: pair.source.target()["state"] not in ("insync", "replicating"), "the loss is noticed")
    r = pair.source.ctl("verify", "m")
    assert r.returncode == 2, r.stdout + r.stderr


@pytest.mark.parametrize("command", [["verify", "m"], ["verify", "m", "--repair"], ["resync", "m", "--dry-run"]])
def test_verify_while_paused(pair, command):
    """It cannot be done, and waiting for somebody to resume would not be told from a comparison that takes long."""
    assert pair.source.ctl("pause", "m").returncode == 0
    r = pair.source.ctl(*command, timeout=20)
    assert r.returncode == 2 and "resume" in r.stderr, r.stdout + r.stderr
    assert pair.source.ctl("resume", "m").returncode == 0
    assert pair.source.ctl("verify", "m").returncode == 0


def test_resync_repairs(pair):
    prepare(pair)
    r = pair.source.ctl("resync", "m", "--dry-run")
    assert "changed" in r.stdout, r.stdout + r.stderr
    assert (pair.copy / "extra").exists()
    r = pair.source.ctl("resync", "m")
    assert r.returncode == 0, r.stdout + r.stderr
    pair.same()


def test_journal(pair):
    (pair.dir / "dir").mkdir()
    (pair.dir / "dir" / "file").write_text("x")
    os.rename(pair.dir / "dir" / "file", pair.dir / "moved")
    os.unlink(pair.dir / "moved")
    pair.source.wait()
    r = pair.source.ctl("journal", "m")
    assert r.returncode == 0, r.stderr
    for word in ("mkdir", "dir/file", "rename", "unlink", "moved"):
        assert word in r.stdout.lower(), r.stdout


def test_journal_json(pair):
    (pair.dir / "file\n").write_text("x")
    pair.source.wait()
    r = pair.source.ctl("journal", "m", "--json")
    records = [json.loads(line) for line in r.stdout.splitlines()]
    assert any(x.get("path") == "file\n" for x in records), r.stdout
    seqs = [x["seq"] for x in records]
    assert seqs == sorted(seqs)


def test_journal_format(pair):
    (pair.dir / "file").write_text("x")
    pair.source.wait()
    r = pair.source.ctl("journal", "m", "--format", "<%f>")
    assert "<file>" in r.stdout or "file" in r.stdout, r.stdout + r.stderr


def test_journal_follow(pair):
    p = subprocess.Popen([program("tandemctl"), "--config", str(pair.source.config), "journal", "m", "--follow"], stdout=subprocess.PIPE, text=True)
    try:
        seen = []
        import threading
        t = threading.Thread(target=lambda: seen.extend(iter(p.stdout.readline, "")), daemon=True)
        t.start()

        def shown():  # it shows what happens after it began, so write until it has begun
            (pair.dir / "while-following").write_text("x")
            return any("while-following" in line for line in seen)
        wait_until(shown, lambda: f"the change in {seen}", 10)
    finally:
        p.terminate()
        p.wait()


def test_modules(pair, site):
    pair.standby.module("hidden", site.dir / "hidden", list="no")
    pair.standby.module("shown", site.dir / "shown", comment="what it is for")
    pair.standby.stop()
    pair.standby.start()
    password = site.dir / "listing.password"
    write_secret(password, PASSWORD + "\n")
    r = pair.source.ctl("modules", f"tandem://{USER}@127.0.0.1:{pair.standby.port}/", "--password-file", password)
    assert r.returncode == 0, r.stdout + r.stderr
    assert "shown" in r.stdout and "what it is for" in r.stdout and "hidden" not in r.stdout, r.stdout
    pair.same()


class Latin(Process):
    """A mirror whose names are not UTF-8, mounted."""

    def __init__(self, site):
        super().__init__(site, "latin")
        site.extra.append(self)
        standby = site.standby().start()
        self.name, self.dir, self.config = b"caf\xe9", os.fsencode(site.dir) + b"/caf\xe9", site.dir / "latin.conf"
        os.mkdir(self.dir)
        write_secret(site.dir / "password", PASSWORD + "\n")
        self.config.write_bytes(b"[%s]\nsource = %s\n" % (self.name, self.dir) + f"target = {standby.url()}\npassword file = {site.dir}/password\n"
                                f"state dir = {site.dir}/latin.state\n".encode())
        self.spawn(program("tandemfs"), "--config", self.config, "--foreground", os.fsdecode(self.name))
        wait_until(lambda: os.path.ismount(self.dir), self.log)

    def write(self, name):
        with open(self.dir + b"/" + os.fsencode(name), "w", encoding="ascii") as f:
            f.write("x")

    def run(self, command, *args):
        return subprocess.run([program("tandemctl"), "--config", self.config, command, self.name, *args], capture_output=True, timeout=60, check=False)


def test_second_replicator_is_told_why_it_does_not_start(pair):
    """Without --foreground its log is syslog: who typed the command reads standard error."""
    r = subprocess.run([program("tandem-replicator"), "--config", pair.source.config, "m"], capture_output=True, text=True, timeout=60, check=False)
    assert r.returncode == 2 and "another tandem-replicator runs" in r.stderr, r.stderr


CLOSED = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]  # a command that is started without standard input, output and error


def test_mount_started_without_descriptors_comes_back(site):
    """Nothing that tandemfs needs is where a daemon puts /dev/null: a worker that is killed is started again."""
    source = site.source([site.standby().start().url()])
    source.write_config()
    subprocess.run([*CLOSED, program("tandemfs"), "--config", source.config, "m"], timeout=60, check=True)
    (source.dir / "file").write_text("x")
    supervisor = int((source.state / "m" / "lock").read_text())
    [worker] = set(source.mount_pids()) - {supervisor}
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker not in source.mount_pids() and (source.dir / "file").read_text() == "x" and mounted(source.dir), source.state.joinpath("m/stderr.log").read_text)
    source.wait()
    assert source.ctl("unmount", "m").returncode == 0
    source.wait_gone()


def test_daemon_started_without_descriptors_writes_its_log(site):
    standby = site.standby()
    standby.keys["log file"] = log = site.dir / "daemon.log"
    standby.write_config()
    subprocess.run([*CLOSED, program("tandemd"), "--config", standby.config], timeout=60, check=True)
    [pid] = processes(str(standby.config))
    try:
        wait_until(lambda: "listening on" in log.read_text(), log.read_text)
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not processes(str(standby.config)), "its end")


def test_pause_and_resume(pair):
    pair.source.wait()
    assert pair.source.ctl("pause", "m").returncode == 0
    (pair.dir / "file").write_text("x")
    r = pair.source.ctl("wait", "m", "--timeout", "1")
    assert r.returncode == 1
    assert not (pair.copy / "file").exists()
    assert "paused" in pair.source.ctl("status", "m").stdout
    old = pair.source.kill_replicator()
    wait_until(lambda: any(pid != old for pid in pair.source.replicators()), "a new replicator")
    wait_until(lambda: "paused" in pair.source.ctl("status", "m").stdout, "it is paused, too")
    assert not (pair.copy / "file").exists()
    assert pair.source.ctl("resume", "m").returncode == 0
    pair.same()
    pair.source.kill_replicator()
    (pair.dir / "file").write_text("xx")
    pair.same()


def test_unmount(pair):
    (pair.dir / "file").write_text("x")
    assert pair.source.ctl("unmount", "m").returncode == 0
    assert pair.source.wait_exit() == 0
    pair.source.wait_gone()
    assert (pair.dir / "file").read_text() == "x"


def test_unmount_in_use(pair):
    """Somebody works there: say so and stay mounted."""
    with open(pair.dir / "file", "w", encoding="ascii") as f:
        f.write("x")
        r = pair.source.ctl("unmount", "m")
        assert r.returncode != 0 and re.search("use|busy", r.stderr + r.stdout, re.I), r.stdout + r.stderr
    tree_ok = os.path.ismount(pair.dir)
    assert tree_ok
    pair.same()


def test_doctor_is_content(pair):
    r = pair.source.ctl("doctor")
    assert r.returncode == 0, r.stdout + r.stderr
    for word in ("fuse", "password", "free", str(pair.standby.port)):
        assert word in r.stdout.lower(), r.stdout


def test_doctor_finds_trouble(pair):
    pair.standby.stop()
    pair.source.password.chmod(0o644)
    r = pair.source.ctl("doctor")
    assert r.returncode != 0
    assert "chmod" in r.stdout and str(pair.standby.port) in r.stdout, r.stdout + r.stderr


def test_arguments_show_in_ps(pair):
    """Every process keeps its configuration path and mirror name in its argument list."""
    from lib.procs import processes
    names = {os.path.basename(a[0].split(":")[0].split()[0]) for a in processes(str(pair.site.dir)).values()}
    assert {"tandemfs", "tandem-replicator", "tandemd"} <= names, names
    tree.assert_same(pair.dir, pair.copy)


def test_names_that_are_not_utf8(site):
    """Source, mountpoint and mirror are named in Latin-1: all of it works, and JSON tells the bytes."""
    source = Latin(site)
    source.write("name")
    assert source.run("wait", "--timeout", "60").returncode == 0, source.log()
    assert (site.standbys[0].dir / "name").exists()
    r = source.run("status", "--json")
    s = json.loads(r.stdout)["mirrors"][0]
    assert (r.returncode, s["state"], bytes.fromhex(s["name_hex"]), bytes.fromhex(s["source_hex"])) == (0, "insync", source.name, source.dir), r.stdout
    with open(source.dir + b"/name", encoding="ascii"):
        r = source.run("unmount")
        assert r.returncode == 2 and b"in use" in r.stderr, r.stderr
    assert source.run("unmount").returncode == 0
    assert source.wait_exit() == 0


def test_verify_tells_the_bytes_of_a_name_that_is_not_utf8(pair):
    (pair.copy / os.fsdecode(b"l\xe4nge")).write_text("x")
    r = pair.source.ctl("verify", "m", "--json")
    found = [json.loads(line) for line in r.stdout.splitlines()]
    assert b"l\xe4nge" in [bytes.fromhex(d["path_hex"]) for d in found if "path_hex" in d], r.stdout
