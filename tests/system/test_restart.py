# SPDX-License-Identifier: BSD-2-Clause
"""Everything may be stopped or killed at any time; what was written arrives. TANDEM_KILLS=N runs N rounds of each kill under load."""
import contextlib
import errno
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import time

import pytest

from lib import tree
from lib.procs import mounted, processes, program
from lib.wait import SLOW, wait_until
from lib.workload import DEAD, Workload, acl

KILLS = range(int(os.environ.get("TANDEM_KILLS", "3")))


def test_daemon_stopped_and_started(pair):
    (pair.dir / "before").write_text("1")
    pair.source.wait()
    pair.standby.stop()
    (pair.dir / "meanwhile").write_text("2")
    os.rename(pair.dir / "before", pair.dir / "renamed")
    pair.standby.start()
    pair.same()


def test_everything_stopped_and_started(pair):
    Workload(pair.dir, seed=3, ops=300).run()
    pair.standby.stop()
    Workload(pair.dir, seed=4, ops=300).run()
    pair.source.stop()
    pair.source.start()
    (pair.dir / "after").write_text("x")
    pair.standby.start()
    pair.same()


def test_unmounted_directory_is_a_plain_directory(pair):
    Workload(pair.dir, seed=5, ops=300).run()
    pair.source.wait()
    pair.source.stop()
    tree.assert_same(pair.dir, pair.copy)


def test_restart_does_not_scan(pair):
    for d in range(20):
        (pair.dir / f"{d}").mkdir()
        for i in range(100):
            (pair.dir / f"{d}" / f"{i}").touch()
    pair.source.wait()
    pair.source.stop()
    began = time.monotonic()
    pair.source.start()
    pair.source.wait()
    assert time.monotonic() - began < 2 * SLOW
    assert not pair.source.target().get("progress", {}).get("files", 0)


@pytest.mark.parametrize("round_", KILLS)
def test_kill_daemon_under_load(pair, round_):
    load = Workload(pair.dir, seed=100 + round_, ops=1500).start()
    for _ in range(3):
        load.wait_ops(150)
        pair.standby.kill()
        pair.standby.start()
    load.join().check()
    pair.same()


def test_kill_child_under_load(pair):
    load = Workload(pair.dir, seed=200, ops=1500).start()
    for _ in range(4):
        load.wait_ops(150)
        for pid in pair.standby.children():
            os.kill(pid, 9)
    load.join().check()
    pair.same()


@pytest.mark.parametrize("round_", KILLS)
def test_broken_off_again_and_again(pair, round_):
    """A standby that is far behind, so that every connection begins with all that follows in the journal, and ends somewhere in it."""
    rnd = random.Random(round_)
    assert pair.source.ctl("pause", "m").returncode == 0
    Workload(pair.dir, seed=500 + round_, ops=1000).run()
    assert pair.source.ctl("resume", "m").returncode == 0
    for _ in range(6):
        wait_until(pair.standby.children, "a connection")
        time.sleep(rnd.random() * 0.1)
        for pid in pair.standby.children():
            os.kill(pid, 9)
    pair.same()


@pytest.mark.parametrize("round_", KILLS)
def test_kill_replicator_under_load(pair, round_):
    load = Workload(pair.dir, seed=300 + round_, ops=1500).start()
    for _ in range(3):
        load.wait_ops(150)
        old = pair.source.kill_replicator()
        wait_until(lambda p=old: any(pid != p for pid in pair.source.replicators()), "a new replicator")
    load.join().check()
    pair.same()


def test_what_was_inherited_outlives_the_directory(pair):
    """All of it is in the journal when the standby comes back; the directory's number is another file's by then, which is gone, too."""
    pair.standby.stop()
    directory = pair.dir / "directory"
    directory.mkdir()
    os.setxattr(directory, "system.posix_acl_default", acl(users={1000: 7}))
    (directory / "made in it").mkdir()
    (directory / "made in it").rename(pair.dir / "made in it")
    number = directory.stat().st_ino
    directory.rmdir()
    for name in range(300):
        (pair.dir / str(name)).touch()
        if (pair.dir / str(name)).stat().st_ino == number:
            break
    for name in pair.dir.glob("[0-9]*"):
        name.unlink()
    pair.standby.start()
    pair.same()


@contextlib.contextmanager
def immutable(path):
    """Nobody can change, move or remove this file, wherever its directory goes."""
    get_flags, set_flags, flag = 0x80086601, 0x40086602, 0x10  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL of linux/fs.h
    with open(path, "rb") as f:
        try:
            flags, = struct.unpack("i", fcntl.ioctl(f, get_flags, bytes(4)))
            fcntl.ioctl(f, set_flags, struct.pack("i", flags | flag))
        except OSError as e:
            pytest.skip(f"no immutable files here: {e}")
        try:
            yield
        finally:
            fcntl.ioctl(f, set_flags, struct.pack("i", flags))


@pytest.mark.root
def test_killed_while_a_rename_fails_below_a_directory_that_moved(pair):
    """The name that is left over on the standby is not where the record says any more."""
    for name in "moved", "to":
        (pair.dir / name).mkdir()
    (pair.dir / "moved" / "f").write_text("content")
    pair.source.wait()
    with immutable(pair.copy / "moved" / "f"):
        assert pair.source.ctl("pause", "m").returncode == 0  # both are sent before the answer to the first
        (pair.dir / "moved" / "f").rename(pair.dir / "to" / "f")
        (pair.dir / "moved").rename(pair.dir / "away")
        assert pair.source.ctl("resume", "m").returncode == 0
        wait_until(lambda: (pair.copy / "away" / "f").exists(), "the directory moves")
        wait_until(lambda: "away" in pair.source.ctl("status", "m").stdout, "the failure is shown")
        pair.source.kill_replicator()
        pair.standby.wait_log("connection ended")
    pair.same()


@pytest.mark.parametrize("round_", KILLS)
def test_kill_mount_under_load(pair, round_):
    for number in range(2):
        load = Workload(pair.dir, seed=400 + 10 * round_ + number, ops=None, use_mmap=False, tolerate=DEAD).start()
        load.wait_ops(200)
        pair.source.die()
        load.stop().check()
        pair.source.bury()
        pair.source.start()
    pair.same()


def test_kill_worker_under_load(pair):
    """The supervisor replaces a dead mount at once; applications go on and nothing of theirs passes unseen."""
    load = Workload(pair.dir, seed=450, ops=None, use_mmap=False, tolerate=DEAD).start()
    for _ in range(3):
        load.wait_ops(200)
        mounts = pair.source.log().count("mounted on")
        for pid in pair.source.mount_pids():
            if pid != pair.source.popen.pid:
                os.kill(pid, 9)
        wait_until(lambda n=mounts: pair.source.log().count("mounted on") > n, "a new mount", 10)
    load.stop().check()
    pair.same()


def test_killed_supervisor_leaves_a_dead_mount(pair):
    """Were the mount taken away, applications would go on in the directory below, and nobody would hear of it."""
    pair.source.kill9()
    wait_until(lambda: not pair.source.mount_pids(), "the end of the worker")
    assert mounted(pair.dir)
    with pytest.raises(OSError) as e:
        (pair.dir / "unseen").write_text("x")
    assert e.value.errno in DEAD
    pair.source.start()
    wait_until(lambda: pair.source.log().count("mounted on") == 2, "a new mount")
    (pair.dir / "seen").write_text("x")
    pair.same()


@pytest.mark.parametrize("what", ["bytes", "mode", "xattr"])
def test_a_name_that_the_new_mount_has_not_seen(pair, what):
    """Of two names one is looked up, opened and removed: what happens to the file then belongs to the other."""
    (pair.dir / "d").mkdir()
    (pair.dir / "d" / "a").write_bytes(bytes(100000))
    os.link(pair.dir / "d" / "a", pair.dir / "b")
    pair.source.wait()
    pair.source.stop()
    pair.source.start()
    with open(pair.dir / "d" / "a", "r+b", buffering=0) as f:
        os.unlink(pair.dir / "d" / "a")
        if what == "bytes":
            f.write(b"x")
        elif what == "mode":
            os.fchmod(f.fileno(), 0o600)
        else:
            os.setxattr(f.fileno(), "user.t", b"x")
    pair.same()


def test_kill_mount_with_an_open_file(pair):
    """What was written into an open file before the kill is found again, though nobody closed it."""
    (pair.dir / "file").write_bytes(bytes(100000))
    pair.source.wait()
    fd = os.open(pair.dir / "file", os.O_RDWR)
    os.pwrite(fd, b"written before the kill", 50000)
    pair.source.kill()
    with pytest.raises(OSError) as e:
        os.pwrite(fd, b"x", 0)
    assert e.value.errno in DEAD | {errno.ENOTCONN}
    try:
        os.close(fd)
    except OSError:
        pass
    pair.source.start()
    pair.same()
    assert (pair.copy / "file").read_bytes()[50000:50023] == b"written before the kill"


def test_replicator_by_itself(site):
    """--no-replicator, as under systemd: the replicator is a service of its own."""
    from lib.procs import Process
    standby = site.standby().start()
    source = site.source([standby.url()])
    source.options = ["--no-replicator"]
    source.start()
    (source.dir / "early").write_text("x")
    replicator = Process(site, "replicator")
    site.extra.append(replicator)
    replicator.spawn(program("tandem-replicator"), "--config", source.config, "--foreground", source.name)
    source.wait()
    tree.assert_same(source.dir, standby.dir)
    replicator.end()
    (source.dir / "between").write_text("y")
    replicator.spawn(program("tandem-replicator"), "--config", source.config, "--foreground", source.name)
    source.wait()
    tree.assert_same(source.dir, standby.dir)
    replicator.end()


def test_replicator_by_itself_sees_another_journal(site):
    """The mount was killed and its journal taken away: what is told of it is told of the new one."""
    from lib.procs import Process
    standby = site.standby().start()
    source = site.source([standby.url()])
    source.options = ["--no-replicator"]
    source.start()
    replicator = Process(site, "replicator")
    site.extra.append(replicator)
    replicator.spawn(program("tandem-replicator"), "--config", source.config, "--foreground", source.name)
    for i in range(50):
        (source.dir / f"f{i}").write_text("x")
    source.wait()
    source.kill()
    shutil.rmtree(source.state / source.name / "journal")
    source.start()
    (source.dir / "after").write_text("x")
    source.wait()
    tree.assert_same(source.dir, standby.dir)
    wait_until(lambda: source.status()["seq"] < 50 and source.status()["state"] == "insync", lambda: source.ctl("status", source.name).stdout)
    replicator.end()


def test_replicator_as_a_daemon(site, tmp_path):
    """What is wrong is told before it leaves the terminal; it finds a configuration by a relative path."""
    def start(config):
        return subprocess.run([program("tandem-replicator"), "--config", config, "m"], cwd=site.dir, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    bad = tmp_path / "bad.conf"
    bad.write_text("[m]\nsource = /\nnonsense = 1\n")
    r = start(bad)
    assert r.returncode == 2 and "nonsense" in r.stderr, r.stderr
    standby = site.standby().start()
    source = site.source([standby.url()])
    source.keys["log file"] = site.dir / "daemon.log"
    source.options = ["--no-replicator"]
    source.start()
    (source.dir / "f").write_text("x")
    config = site.dir.name + ".conf"  # a name by which its process is found
    shutil.copy(source.config, site.dir / config)
    assert start(config).returncode == 0
    pid, = [p for p, args in processes(config).items() if args[0].endswith("tandem-replicator")]
    try:
        source.wait()
        tree.assert_same(source.dir, standby.dir)
        assert start(config).returncode == 2 and "another tandem-replicator runs" in (site.dir / "daemon.log").read_text()
    finally:
        os.kill(pid, signal.SIGTERM)


def test_source_host_starts_first(site):
    standby = site.standby()
    source = site.source([standby.url()]).start()
    (source.dir / "file").write_text("x")
    standby.start()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_stop_after_the_replicator_was_killed(pair):
    """The second replicator is told to end as the first would be, not killed when its time is over."""
    old = pair.source.kill_replicator()
    wait_until(lambda: set(pair.source.replicators()) - {old}, "a new replicator")
    began = time.monotonic()
    pair.source.stop()
    assert time.monotonic() - began < 5 * SLOW


def test_sigterm_unmounts(pair):
    (pair.dir / "file").write_text("x")
    pair.source.wait()
    assert pair.source.end() == 0
    pair.source.wait_gone()
    assert (pair.dir / "file").read_text() == "x"


def test_log_rotation_of_the_mount(site):
    """SIGHUP to tandemfs reaches the three processes of a mirror."""
    log = site.dir / "mirror.log"
    standby = site.standby().start()
    source = site.source([standby.url()], **{"log file": log}).start()
    source.wait()
    old = log.rename(site.dir / "mirror.log.1")
    os.kill(source.popen.pid, signal.SIGHUP)
    pids = source.mount_pids() + source.replicators()
    assert len(pids) == 3
    wait_until(lambda: not any(holds(pid, old) for pid in pids) and all(holds(pid, log) for pid in pids), "the new log everywhere")


def holds(pid, path):
    """Whether a process has a file open."""
    return str(path) in {os.readlink(f.path) for f in os.scandir(f"/proc/{pid}/fd")}


def test_log_rotation(site):
    log = site.dir / "tandemd.log"
    standby = site.standby(**{"log file": log})
    source = site.source([standby.url()])
    standby.start()
    source.start()
    source.wait()
    assert "replicates mirror" in log.read_text()
    old = log.rename(site.dir / "tandemd.log.1")
    os.kill(standby.popen.pid, signal.SIGHUP)
    wait_until(log.exists, "the new log")
    source.stop()  # its connection began before the rotation
    wait_until(lambda: "connection ended" in log.read_text(), lambda: f"the end in the new log:\n{log.read_text()}")
    assert "connection ended" not in old.read_text()
    standby.stop()
    assert "stopping" in log.read_text()
