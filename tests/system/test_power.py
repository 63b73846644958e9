# SPDX-License-Identifier: BSD-2-Clause
"""The power fails under load, on the source or on the standby: what was not synced is gone from their disk, or part of it is. The host boots
again, and both sides become identical.

TANDEM_ROUNDS=N runs N rounds of each, TANDEM_ROUNDS=M-N those."""
import contextlib
import os
import random
import subprocess
import threading

import pytest

from lib import tree
from lib.disk import Disk
from lib.host import Host
from lib.workload import DEAD, Workload

pytestmark = pytest.mark.root

FIRST, _, LAST = os.environ.get("TANDEM_ROUNDS", "1").rpartition("-")
ROUNDS = range(int(FIRST or 1), 1 + int(LAST))
SIZES = {"ext4": "256M", "xfs": "320M", "btrfs": "512M"}


@pytest.fixture
def power_site(request, site):
    """Disks go when everything on the site has ended: site.disk(name, kind, **options)."""
    def make(name, kind, **options):
        d = Disk(site.dir / name, SIZES[kind], kind=kind, **options)
        request.addfinalizer(d.close)
        return d
    site.disk = make
    yield site
    site.close(keep=True)


class Flusher(threading.Thread):
    """Now and then a file system writes part of what it has: with a directory's fsync its log, and not the data."""

    def __init__(self, path, rnd):
        super().__init__(daemon=True)
        self.path, self.rnd, self.halt = path, rnd, threading.Event()
        self.start()

    def run(self):
        while not self.halt.wait(self.rnd.random() * 0.3):
            with contextlib.suppress(OSError):
                fd = os.open(self.path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def stop(self):
        self.halt.set()
        self.join()


def pair_on(site, side, disk, state=True):
    """A pair of two hosts: source and (if state) state directory, or the module's directory, on the disk."""
    standby = site.standby(timeout=20)
    source = site.source([standby.url()], delete_guard=100, journal_limit="8M")
    if side == "standby":
        standby.dir = disk.path / "standby"
        standby.module("m", standby.dir)
        standby.modules["m"]["timeout"] = 20
    else:
        source.state = disk.path / "state" if state else source.state
        source.dir = source.keys["source"] = disk.path / "source"
        source.dir.mkdir()
    host = Host(site, standby if side == "standby" else source)
    standby.start()
    source.start()
    source.wait()
    return source, standby, host


def end(source, standby, side):
    """The processes of a host end with it."""
    if side == "standby":
        standby.kill()
        return
    source.perish()


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("side", ("source", "standby"))
def test_power_failure_under_load(power_site, side, kind, round_):
    rnd = random.Random(f"{side}/{kind}/{round_}")
    shut = kind != "btrfs" and rnd.random() < 0.5  # Btrfs cannot be shut down
    disk = power_site.disk("disk", kind, on=None if shut else power_site.disk("images", "xfs"))
    source, standby, host = pair_on(power_site, side, disk)
    load = Workload(source.dir, seed=20000 + round_, ops=None, use_mmap=False, tolerate=DEAD | {30}).start()
    flusher = Flusher(disk.path, rnd)
    load.wait_ops(rnd.randrange(50, 2500))
    (disk.power_off if shut else disk.cut)()
    end(source, standby, side)
    load.stop().check()
    flusher.stop()
    disk.power_on()
    host.reboot()
    (standby if side == "standby" else source).start()
    Workload(source.dir, seed=30000 + round_, ops=rnd.choice((0, 300)), use_mmap=False).run()
    source.wait(120)
    diff = tree.differences(source.dir, standby.dir)
    if diff:  # for who looks for the cause with TANDEM_KEEP
        (power_site.dir / "journal.txt").write_text(source.ctl("journal", source.name).stdout)
    assert not diff, "\n".join(diff[:40])


def sync(disk):
    subprocess.run(["sync", "-f", str(disk.path)], check=True)


def fail_and_boot(source, standby, host, disk):
    disk.power_off()
    end(source, standby, "source")
    disk.power_on()
    host.reboot()
    source.start()
    source.wait()


def test_bytes_that_the_source_lost_under_the_mtime_that_it_kept(power_site):
    """Ext4 commits the times of all files with the fsync of one, and not their bytes. That was long before the journal's last record."""
    disk = power_site.disk("disk", "ext4")
    source, standby, host = pair_on(power_site, "source", disk)
    old, new = (bytes([c]) * 300000 for c in b"on")
    (source.dir / "file").write_bytes(old)
    source.wait()
    sync(disk)
    with open(source.dir / "file", "r+b") as f:
        f.write(new)
    source.wait()
    host.clock(100)
    with open(source.dir / "later", "wb") as f:
        os.fsync(f.fileno())
    source.wait()
    fail_and_boot(source, standby, host, disk)
    assert (source.dir / "file").read_bytes() == old, "nothing was lost: the test shows nothing"
    tree.assert_same(source.dir, standby.dir)


def test_names_that_the_source_lost_and_the_journal_kept(power_site):
    """The state directory is on a disk that lost nothing; of the source's changes nothing is left, not even a change time."""
    disk = power_site.disk("disk", "ext4")
    source, standby, host = pair_on(power_site, "source", disk, state=False)
    (source.dir / "old" / "below").mkdir(parents=True)
    for name in ("old/below/file", "removed", "changed"):
        (source.dir / name).write_text(name)
    source.wait()
    sync(disk)
    (source.dir / "old").rename(source.dir / "new")
    (source.dir / "removed").unlink()
    (source.dir / "changed").chmod(0o600)
    (source.dir / "made" / "below").mkdir(parents=True)
    host.clock(100)
    (source.dir / "made" / "below" / "file").write_text("x")
    source.wait()
    fail_and_boot(source, standby, host, disk)
    assert (source.dir / "removed").exists() and not (source.dir / "made").exists(), "nothing was lost: the test shows nothing"
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.parametrize("kind", ("ext4", "xfs"))
def test_an_fsync_makes_the_journal_durable(power_site, kind):
    """Where the journal lies on the source's disk as elsewhere: also where one flush of an ext4 does for both."""
    disk = power_site.disk("disk", kind)
    source, standby, host = pair_on(power_site, "source", disk)

    def records():
        return sum(p.read_bytes().count(b"file\0") for p in (source.state / source.name / "journal").glob("*.seg"))
    with open(source.dir / "file", "wb") as f:
        for n in range(200):  # more than a block of records
            f.seek(4096 * (n % 7))
            f.write(bytes([n]) * 100)
            f.flush()
            os.fsync(f.fileno())
        written = records()
        disk.power_off()
    end(source, standby, "source")
    disk.power_on()
    assert written > 200 and records() == written
    host.reboot()
    source.start()
    source.wait()
    diff = tree.differences(source.dir, standby.dir)
    assert not diff, "\n".join(diff)
