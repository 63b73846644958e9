# SPDX-License-Identifier: BSD-2-Clause
"""A source that holds files already, a standby that does not, or does."""
import os
import pathlib
import shutil
import subprocess

import pytest

from lib import tree
from lib.wait import wait_until
from lib.workload import Workload


def fill(path, seed=1):
    Workload(path, seed=seed, ops=1500, threads=1, use_mmap=False).run()
    (path / "big").write_bytes(os.urandom(5 << 20))


@pytest.mark.smoke
def test_existing_tree(pair_with):
    pair = pair_with(prepare=lambda p: fill(p.source.dir))
    pair.same()


def test_changes_during_the_first_copy(site):
    standby = site.standby()
    source = site.source([standby.url()])
    fill(source.dir)
    for d in range(20):
        os.mkdir(source.dir / f"many{d}")
        for i in range(50):
            (source.dir / f"many{d}" / f"{i}").write_bytes(os.urandom(3000))
    source.start()
    standby.start()
    Workload(source.dir, seed=8, ops=800).run()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_adopted_copy_is_not_resent(pair_with, net):
    def prepare(p):
        fill(p.source.dir)
        (p.source.dir / "much").write_bytes(os.urandom(20 << 20))
        p.standby.dir.rmdir()
        subprocess.run(["cp", "-a", p.source.dir, p.standby.dir], check=True)
    pair = pair_with(prepare=prepare, proxy=net)
    pair.same()
    assert net.proxy.up < 2 << 20, f"{net.proxy.up} bytes sent for a copy that was there"


def test_adopted_copy_is_corrected(pair_with, net):
    def prepare(p):
        fill(p.source.dir)
        (p.source.dir / "much").write_bytes(os.urandom(20 << 20))
        p.standby.dir.rmdir()
        subprocess.run(["cp", "-a", p.source.dir, p.standby.dir], check=True)
        (p.standby.dir / "extra").write_text("not at the source")
        with open(p.standby.dir / "much", "r+b") as f:
            f.seek(10 << 20)
            f.write(b"changed")
    pair = pair_with(prepare=prepare, proxy=net)
    pair.same()
    assert net.proxy.up < 3 << 20, f"{net.proxy.up} bytes sent for one changed block"


@pytest.mark.root
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_adopted_copy_has_another_owner(pair_with, size):
    """A new owner takes the file capabilities away, which were the same on both sides."""
    def prepare(p):
        for d in (p.source.dir, p.standby.dir):
            (d / "file").write_bytes(bytes(size))
            os.utime(d / "file", (1000, 1000))
            os.chown(d / "file", 1000, 1000 if d == p.source.dir else 0)
            os.setxattr(d / "file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    pair_with(prepare=prepare).same()


def test_shifted_content_is_found(pair_with, net):
    """Bytes inserted at the front of a large file: the rolling sum finds the rest."""
    def prepare(p):
        data = os.urandom(10 << 20)
        (p.source.dir / "file").write_bytes(b"inserted" + data)
        (p.standby.dir / "file").write_bytes(data)
    pair = pair_with(prepare=prepare, proxy=net)
    pair.same()
    assert net.proxy.up < 3 << 20, f"{net.proxy.up} bytes sent for eight inserted bytes"


def test_delete_guard_stops_mass_deletion(site):
    standby = site.standby()
    source = site.source([standby.url()])
    for i in range(500):
        (standby.dir / f"precious{i}").write_text("x")
    standby.start()
    source.start()
    source.wait_error("guard|delet")
    assert len(os.listdir(standby.dir)) == 501  # and .tandem
    r = source.ctl("status", source.name)
    assert r.returncode == 2, r.stdout + r.stderr
    (source.dir / "still works").write_text("y")
    r = source.ctl("wait", source.name, "--timeout", "2")
    assert r.returncode == 1 and "guard" in r.stdout + r.stderr, r.stdout + r.stderr


@pytest.mark.parametrize("seen", [True, False])
def test_delete_guard_believes_the_journal(pair, seen):
    """Deletions that the mount saw need no operator, also if the standby is compared instead of told; others do."""
    for d in ("kept", "lost", "moved", "turned"):
        (pair.dir / d).mkdir()
        for i in range(100):
            (pair.dir / d / f"f{i}").write_text("x")
    pair.same()
    pair.standby.stop()
    if not seen:
        pair.source.stop()
    shutil.rmtree(pair.dir / "lost")
    shutil.rmtree(pair.dir / "turned")
    (pair.dir / "turned").write_text("a file now")
    (pair.dir / "moved").rename(pair.dir / "elsewhere")
    for i in range(90):
        (pair.dir / "elsewhere" / f"f{i}").unlink()
    shutil.rmtree(pair.copy / ".tandem")  # so that everything is compared
    for remembered in pathlib.Path(pair.standby.keys["state dir"]).glob("*.json"):
        remembered.unlink()
    if not seen:
        pair.source.start()
    pair.standby.start()
    if seen:
        pair.same()
    else:
        pair.source.wait_error("guard")
        assert (pair.copy / "lost" / "f1").exists() and (pair.copy / "turned" / "f1").exists()


def test_delete_guard_outlives_the_replicator(site):
    """What is held back is not forgotten with the connection that found it: the operator decides."""
    standby = site.standby()
    source = site.source([standby.url()])
    for i in range(500):
        (standby.dir / f"precious{i}").write_text("x")
    standby.start()
    source.start()
    source.wait_error("guard")
    old = source.kill_replicator()
    wait_until(lambda: set(source.replicators()) - {old}, "a new replicator")
    source.wait_error("guard")
    assert len(os.listdir(standby.dir)) >= 300
    assert source.ctl("resync", source.name).returncode == 0
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_source_replaced_by_an_empty_directory(pair):
    for i in range(50):
        (pair.dir / f"{i}").write_text("x")
    pair.source.wait()
    pair.source.stop()
    os.rename(pair.dir, f"{pair.dir}.away")
    pair.dir.mkdir()
    try:
        pair.source.start(wait_mount=False)
        wait_until(lambda: not pair.source.running or "identity" in pair.source.log() or pair.source.target().get("error")
                   or pair.source.target()["state"] in ("held", "refused"), "a refusal", 20)
        assert len(os.listdir(pair.copy)) == 51
    finally:
        if pair.source.running:
            pair.source.stop()
        shutil.rmtree(f"{pair.dir}.away")
