# SPDX-License-Identifier: BSD-2-Clause
"""FUSE over io_uring: used where it can be, told truly, done without elsewhere."""
import os
import pathlib

import pytest

from lib import tree
from lib.workload import WEIGHTS, Workload

PARAMETER = pathlib.Path("/sys/module/fuse/parameters/enable_uring")


def ring_threads(pid):
    """How many threads of the process serve queues of io_uring."""
    names = [p.read_text(encoding="ascii").strip() for p in pathlib.Path(f"/proc/{pid}/task").glob("*/comm")]
    return sum(n.startswith("fuse-ring-") for n in names)


@pytest.fixture
def start(site):
    def started(how):
        source = site.source(["tandem://nobody@127.0.0.1:1/m"])
        source.keys["io uring"] = how
        source.options = ["--no-replicator"]
        source.start()
        os.stat(source.dir / ".")  # answered when the handshake is over
        return source
    return started


@pytest.mark.parametrize("how", ["no", "auto", "yes"])
@pytest.mark.smoke
def test_the_status_says_what_is_used(start, how):
    if how == "yes" and os.geteuid() == 0 and PARAMETER.exists() and PARAMETER.read_text(encoding="ascii").strip() != "Y":
        pytest.skip("would change the kernel's parameter for everybody on this machine")
    source = start(how)
    status = source.status()
    used = status["features"]["io_uring"]
    threads = sum(ring_threads(pid) for pid in source.mount_pids())
    assert used == (threads > 0), status["features"]
    if how == "no":
        assert not used
    if how == "yes" and not used:
        source.wait_log(r"io uring = yes")


@pytest.mark.parametrize("how", ["no", "auto"])
def test_the_mount_serves_either_way(start, tmp_path, how):
    """Whichever way requests come, the same operations leave the same tree as on a plain directory."""
    plain = tmp_path / "plain"
    plain.mkdir()
    source = start(how)
    for d in (plain, source.dir):
        Workload(d, seed=4, threads=1, ops=1000, only=set(WEIGHTS) - {"temp_file", "collapse", "insert"}).run()
    source.stop()
    diff = tree.differences(plain, source.dir, mtime=False)
    assert not diff, "\n".join(diff)


def test_many_threads_on_the_queues(start):
    """Requests from many threads at once, more than a queue holds, are all answered."""
    source = start("auto")
    Workload(source.dir, seed=5, threads=48, ops=100).run()
    features = source.status()["features"]
    if features["io_uring"] and tuple(map(int, features["libfuse"].split(".")[:2])) < (3, 18):
        # our own queues: one that waits must not hold up the others of its processor
        assert sum(ring_threads(pid) for pid in source.mount_pids()) > os.cpu_count()
    before = tree.scan(source.dir).keys()
    source.stop()
    assert before == tree.scan(source.dir).keys()
