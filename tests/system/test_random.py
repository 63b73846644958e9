# SPDX-License-Identifier: BSD-2-Clause
"""Random operations by several threads end in identical trees. TANDEM_SEEDS=N runs N seeds, TANDEM_SEED=N one of them."""
import json
import os

import pytest

from lib import tree
from lib.procs import mounted
from lib.workload import Workload

if os.environ.get("TANDEM_SEED"):
    SEEDS = [int(os.environ["TANDEM_SEED"])]
else:
    first, _, last = os.environ.get("TANDEM_SEEDS", "4").rpartition("-")
    SEEDS = range(int(first or 1), 1 + int(last))
OPS = int(os.environ.get("TANDEM_OPS", "1200"))


def records(source, diff):
    """The journal's records of the inodes that differ."""
    paths = [line.partition(": ")[0] for line in diff]
    inodes = {os.lstat(source.dir / p).st_ino for p in paths if os.path.lexists(source.dir / p)}
    r = source.ctl("journal", source.name, "--json", "--since", "0")
    lines = [json.loads(line) for line in r.stdout.splitlines()]
    return "\n".join(json.dumps(x) for x in lines if x.get("inode", x.get("ino")) in inodes or x.get("path") in paths)


def compare(load, source, copy):
    diff = tree.differences(source.dir, copy)
    if diff:
        text = records(source, diff) if source.running else "unmounted"
        raise AssertionError(f"seed {load.seed}: {len(diff)} differences\n" + "\n".join(diff[:30]) + f"\nrecords of them:\n{text[:12000]}")


@pytest.mark.parametrize("seed", SEEDS)
def test_random_operations(pair, seed):
    load = Workload(pair.dir, seed=seed, ops=OPS).run()
    pair.source.wait(120)
    compare(load, pair.source, pair.copy)
    pair.source.stop()
    assert not mounted(pair.dir)
    compare(load, pair.source, pair.copy)


@pytest.mark.smoke
@pytest.mark.parametrize("seed", list(SEEDS)[:2])
def test_random_operations_one_thread(pair, seed):
    load = Workload(pair.dir, seed=1000 + seed, ops=OPS // 2, threads=1).run()
    pair.source.wait(120)
    compare(load, pair.source, pair.copy)


@pytest.mark.parametrize("seed", list(SEEDS)[:2])
def test_random_renames(pair, seed):
    """Mostly directories that move while others write below them."""
    only = {"create", "write", "append", "mkdir", "rename_dir", "deep_rename", "rename_over", "exchange", "slow_write", "link", "replace", "unlink"}
    load = Workload(pair.dir, seed=2000 + seed, ops=OPS, threads=6, only=only).run()
    pair.source.wait(120)
    compare(load, pair.source, pair.copy)


@pytest.mark.parametrize("seed", list(SEEDS)[:1])
def test_random_operations_on_a_bad_network(pair_with, net, seed):
    """Delayed, cut and damaged connections."""
    pair = pair_with(proxy=net)
    net.proxy.delay = 0.005
    load = Workload(pair.dir, seed=3000 + seed, ops=None).start()
    for number in range(6):
        load.wait_ops(100)
        (net.proxy.cut, lambda: net.proxy.cut_after(3000), lambda: net.proxy.flip_at(2000))[number % 3]()
    load.stop().check()
    net.proxy.delay = 0
    pair.source.wait(120)
    compare(load, pair.source, pair.copy)
