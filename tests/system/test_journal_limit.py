# SPDX-License-Identifier: BSD-2-Clause
"""The journal has a limit; applications do not notice when it is reached."""
import os

from lib import tree
from lib.wait import wait_until
from lib.workload import Workload


def journal_bytes(source):
    total = 0
    for top, _, files in os.walk(source.state / source.name / "journal"):
        total += sum(os.stat(os.path.join(top, f)).st_blocks * 512 for f in files)
    return total


def test_collapse_and_converge(pair_with):
    pair = pair_with(source={"journal limit": "1M"})
    pair.standby.stop()
    for seed in range(6):
        Workload(pair.dir, seed=50 + seed, ops=1000).run()
    for i in range(3000):
        (pair.dir / f"some-rather-long-name-to-fill-the-journal-{i % 500}").write_text(f"{i}")
    used = journal_bytes(pair.source)
    assert used < 2 << 20, f"{used} bytes: more than the limit and a segment that is just being given up"
    wait_until(lambda: "collapsed" in str(pair.source.status()).lower() or "collapsed" in pair.source.ctl("status", "m").stdout.lower()
               or "limit" in pair.source.log(), "status or log tells of the collapse")
    pair.standby.start()
    pair.same(120)
    wait_until(lambda: pair.source.ctl("status", "m").returncode == 0, lambda: pair.source.ctl("status", "m").stdout)


def test_journal_is_reclaimed(pair_with):
    """What every target has is given back."""
    pair = pair_with(source={"journal limit": "256M"})
    before = journal_bytes(pair.source)
    for n in range(10):
        for i in range(400):
            (pair.dir / f"file-with-a-long-name-{i}-{'x' * 100}").write_text(f"{n} {i}")
            os.utime(pair.dir / f"file-with-a-long-name-{i}-{'x' * 100}")
        pair.source.wait()
    wait_until(lambda: journal_bytes(pair.source) < before + (40 << 20), lambda: f"{journal_bytes(pair.source)} bytes, {before} before")
    tree.assert_same(pair.dir, pair.copy)


def test_restart_after_a_collapse(pair_with):
    pair = pair_with(source={"journal limit": "1M"})
    pair.standby.stop()
    for i in range(12000):
        (pair.dir / f"some-rather-long-name-to-fill-the-journal-{i % 300}").write_text(f"{i}")
    pair.source.stop()
    pair.source.start()
    (pair.dir / "after").write_text("x")
    pair.standby.start()
    pair.same(120)


def test_limit_with_a_kill(pair_with):
    pair = pair_with(source={"journal limit": "1M"})
    pair.standby.stop()
    for i in range(12000):
        (pair.dir / f"some-rather-long-name-to-fill-the-journal-{i % 300}").write_text(f"{i}")
    pair.source.kill()
    pair.source.start()
    pair.standby.start()
    pair.same(120)
