# SPDX-License-Identifier: BSD-2-Clause
"""Claims of docs/guarantees.md that no other file shows: each test would fail without the code behind the claim."""
import os
import re
import shutil
import signal

import pytest

from lib import tree
from lib.disk import Disk
from lib.host import Host
from lib.procs import mounted
from lib.workload import Workload


def test_fsync_does_not_wait_for_the_standby(pair):
    for pid in pair.standby.children():
        os.kill(pid, signal.SIGSTOP)
    try:
        with open(pair.dir / "file", "wb") as f:
            f.write(b"x" * 100000)
            os.fsync(f.fileno())
        assert not (pair.copy / "file").exists()
    finally:
        for pid in pair.standby.children():
            os.kill(pid, signal.SIGCONT)
    pair.same()


def test_what_passes_the_mount_by_is_found_by_a_comparison(site):
    """A descriptor from before the mount reaches the directory below: such changes are not seen, and verify finds and repairs them."""
    standby = site.standby().start()
    source = site.source([standby.url()])
    below = os.open(source.dir, os.O_RDONLY)
    source.start()
    (source.dir / "seen").write_text("1")
    source.wait()
    fd = os.open("unseen", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=below)
    os.write(fd, b"2")
    os.close(fd)
    os.close(below)
    (source.dir / "seen too").write_text("3")
    source.wait()
    assert not (standby.dir / "unseen").exists()
    r = source.ctl("verify", source.name, "--repair")
    assert "unseen" in r.stdout, r.stdout + r.stderr
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_a_lost_state_directory_is_another_source(pair):
    """The standby refuses it, and deletes and changes nothing, until the operator decides."""
    (pair.dir / "file").write_text("x")
    pair.same()
    pair.source.stop()
    shutil.rmtree(pair.source.state)
    os.unlink(pair.dir / "file")
    pair.source.start()
    (pair.dir / "new").write_text("y")
    text = pair.source.wait_error("belongs to")
    assert "marker" in text, text
    assert (pair.copy / "file").read_text() == "x" and not (pair.copy / "new").exists()
    (pair.copy / ".tandem" / "marker").unlink()
    (pair.site.dir / "standby.state" / "m.json").unlink()
    pair.same()


def test_another_directory_in_the_source_s_place_is_not_mounted(pair):
    """An empty mount point: tandemfs says how the root differs from the one it knows, and goes on with the right one as if nothing had been."""
    (pair.dir / "file").write_text("x")
    pair.same()
    pair.source.stop()
    away = pair.site.dir / "away"
    os.rename(pair.dir, away)
    pair.dir.mkdir()
    pair.source.start(wait_mount=False)
    assert pair.source.wait_exit() != 0
    assert re.search(r"\broot\b", pair.source.log()) and not mounted(pair.dir), pair.source.log()
    assert (pair.copy / "file").read_text() == "x"
    pair.dir.rmdir()
    os.rename(away, pair.dir)
    pair.source.start()
    pair.same()


def test_the_clock_jumps(site):
    """Of both hosts, there and back: positions are numbers, nothing is sent again and nothing is left out."""
    standby = site.standby()
    source = site.source([standby.url()])
    hosts = [Host(site, source), Host(site, standby)]
    standby.start()
    source.start()
    for n, seconds in enumerate((-86400, 10 * 365 * 86400)):
        for host in hosts:
            host.clock(seconds)
        Workload(source.dir, seed=40 + n, ops=60, use_mmap=False).run()
        source.wait()
        tree.assert_same(source.dir, standby.dir)
    source.kill_replicator()
    (source.dir / "after").write_text("x")
    source.wait()
    tree.assert_same(source.dir, standby.dir)


@pytest.fixture
def disk(request, site):
    d = Disk(site.dir / "disk", "256M", kind="ext4")
    request.addfinalizer(d.close)
    yield d
    site.close(keep=True)


@pytest.mark.root
@pytest.mark.parametrize("sync", ["fsync", "never"])
def test_power_of_the_source_fails(disk, site, sync):
    """What the application fsynced is on the source; with every way of syncing the journal both sides are identical afterwards."""
    standby = site.standby().start()
    source = site.source([standby.url()], delete_guard=100, journal_sync=sync)
    source.state = disk.path / "state"
    source.dir = source.keys["source"] = disk.path / "source"
    source.dir.mkdir()
    host = Host(site, source)
    source.start()
    (source.dir / "load").mkdir()
    Workload(source.dir / "load", seed=7, ops=200, use_mmap=False).run()
    source.wait()
    with open(source.dir / "durable", "wb") as f:
        f.write(b"d" * 300000)
        os.fsync(f.fileno())
    directory = os.open(source.dir, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    (source.dir / "perhaps").write_bytes(b"p" * 300000)
    Workload(source.dir / "load", seed=8, ops=200, use_mmap=False).run()
    disk.power_off()
    source.perish()
    disk.power_on()
    host.reboot()
    source.start()
    assert (source.dir / "durable").read_bytes() == b"d" * 300000
    source.wait(120)
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.root
def test_a_standby_that_is_read_only(disk, site):
    """Said as such; once it can be written again replication goes on by itself."""
    standby = site.standby()
    standby.module("m", disk.path / "m")
    standby.dir = disk.path / "m"
    standby.start()
    source = site.source([standby.url()]).start()
    source.wait()
    standby.stop()
    disk.remount("ro")
    standby.start()
    (source.dir / "file").write_text("x")
    source.wait_error("read-only")
    standby.stop()
    disk.remount("rw")
    standby.start()
    source.wait()
    tree.assert_same(source.dir, standby.dir)
