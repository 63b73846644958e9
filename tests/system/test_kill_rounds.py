# SPDX-License-Identifier: BSD-2-Clause
"""Rounds of random operations in which random processes are killed at random moments; each ends in identical trees, and all the time no file on
the standby is torn.

TANDEM_ROUNDS=N runs N rounds, TANDEM_ROUNDS=M-N those; TANDEM_OPS operations in each."""
import os
import random
import time

import pytest

from lib import tree
from lib.procs import kill_pid
from lib.versions import Checker, Writer
from lib.wait import wait_until
from lib.workload import DEAD, Workload

FIRST, _, LAST = os.environ.get("TANDEM_ROUNDS", "2").rpartition("-")
ROUNDS = range(int(FIRST or 1), 1 + int(LAST))
OPS = int(os.environ.get("TANDEM_OPS", "2500"))
THREADS = 8


class Faults:
    """What may happen to a pair. Every method leaves all processes running, or on their way."""

    def __init__(self, pair, rnd):
        self.pair, self.rnd = pair, rnd
        self.done = []

    def daemon(self):
        self.pair.standby.kill()
        self.pair.standby.start()

    def child(self):
        for pid in self.pair.standby.children():
            kill_pid(pid)

    def replicator(self):
        source = self.pair.source
        for pid in source.replicators():
            kill_pid(pid)
            wait_until(lambda p=pid: set(source.replicators()) - {p}, "a new replicator")

    def worker(self):
        """The mount's worker: the supervisor mounts again, applications go on."""
        source = self.pair.source
        mounts = source.log().count("mounted on")
        for pid in source.mount_pids():
            if pid != source.popen.pid:
                kill_pid(pid)
        wait_until(lambda: source.log().count("mounted on") > mounts, "a new mount", 20)

    def all_but_the_mount(self):
        self.child()
        self.replicator()
        self.daemon()

    def pause(self):
        """Much to be read at once: where records are merged and dropped."""
        assert self.pair.source.ctl("pause", self.pair.source.name).returncode == 0
        time.sleep(self.rnd.random())
        assert self.pair.source.ctl("resume", self.pair.source.name).returncode == 0

    def one(self):
        name = self.rnd.choice(("daemon", "child", "replicator", "worker", "worker", "all_but_the_mount", "pause"))
        self.done.append(name)
        getattr(self, name)()


@pytest.mark.parametrize("round_", ROUNDS)
def test_kill_anything_under_load(pair, round_):
    rnd = random.Random(round_)
    faults = Faults(pair, rnd)
    (pair.dir / "versions").mkdir()
    (pair.dir / "tree").mkdir()
    writer, checker = Writer(pair.dir / "versions", tolerate=DEAD), Checker(pair.copy / "versions")
    writer.start()
    checker.start()
    load = Workload(pair.dir / "tree", seed=10000 + round_, threads=THREADS, ops=OPS, use_mmap=False, tolerate=DEAD).start()
    while load.busy():
        load.wait_ops(rnd.randrange(50, 400))
        faults.one()
    load.join().check()
    writer.stop()
    pair.source.wait(120)
    checker.stop()
    diff = tree.differences(pair.dir, pair.copy)
    assert not diff, f"after {', '.join(faults.done)}:\n" + "\n".join(diff[:40])
