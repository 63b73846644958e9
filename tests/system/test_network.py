# SPDX-License-Identifier: BSD-2-Clause
"""A network that repeats, stalls, moves and breaks: both sides become identical, and no process grows.

TANDEM_RECONNECTS=N: how often the connection breaks (default 20)."""
import os
import random

import pytest

from lib.procs import free_port, private, sanitized
from lib.wait import wait_until
from lib.workload import Workload

RECONNECTS = int(os.environ.get("TANDEM_RECONNECTS", "20"))
GROWTH = 4 << 20  # bytes of private memory that a process may have more than after the first tenth


def test_segments_of_the_stream_arrive_twice(pair_with, net):
    """TLS ends the connection; everything is sent again, and applied once."""
    pair = pair_with(proxy=net)
    rnd = random.Random(1)
    for n in range(5):
        before = net.proxy.connections
        net.proxy.repeat_at(rnd.randrange(3000), rnd.choice((1, 29, 1000)))
        Workload(pair.dir, seed=700 + n, ops=60, use_mmap=False).run()
        pair.same()
        assert net.proxy.connections > before, "nothing was repeated"


def test_stall_for_many_times_the_timeout(pair_with, net):
    """Both sides give the connection up, the source tries again through a network that accepts and forwards nothing, and they go on."""
    pair = pair_with(proxy=net, module=dict(timeout=1), source=dict(timeout=1))
    net.proxy.stall()
    before = net.proxy.connections
    Workload(pair.dir, seed=710, ops=300, use_mmap=False).run()
    wait_until(lambda: net.proxy.connections > before, "another connection", 60)
    wait_until(lambda: not pair.standby.children(), "the standby gave up", 60)
    net.proxy.resume()
    pair.same()


@pytest.mark.parametrize("where", ("port", "address"))
def test_the_standby_moves(pair, where):
    """The configuration says where it is now; what it had is not copied again."""
    source, standby = pair.source, pair.standby
    Workload(source.dir, seed=720, ops=200, use_mmap=False).run()
    source.wait()
    standby.stop()
    (source.dir / "meanwhile").write_text("x")
    source.stop()
    if where == "port":
        standby.port = standby.keys["port"] = free_port()
    else:
        standby.host = standby.keys["address"] = "127.0.0.2"
    source.keys["target"] = [standby.url().replace("127.0.0.1", standby.host)]
    standby.start()
    source.start()
    pair.same()
    assert "continuing after record" in source.log()
    assert source.log().count("comparing everything") == 1


def test_reconnects_leave_nothing_behind(pair_with, net):
    pair = pair_with(proxy=net)
    source = pair.source
    worker = next(pid for pid in source.mount_pids() if pid != source.popen.pid)
    pids = {"supervisor": source.popen.pid, "mount": worker, "replicator": source.replicators()[0], "daemon": pair.standby.popen.pid}

    def reconnect(n):
        (pair.dir / f"f{n % 50}").write_bytes(b"%d" % n * 1000)
        before = net.proxy.connections
        net.proxy.cut()
        wait_until(lambda: net.proxy.connections > before and source.target()["state"] in ("replicating", "insync"), "connected again")

    def measure():
        source.wait()
        wait_until(lambda: len(pair.standby.children()) == 1, "one child")
        return {name: (private(pid), len(os.listdir(f"/proc/{pid}/fd"))) for name, pid in pids.items()}
    for n in range(RECONNECTS // 10 + 2):
        reconnect(n)
    first = measure()
    for n in range(RECONNECTS):
        reconnect(n)
    last = measure()
    print(f"{RECONNECTS} reconnects; private bytes, descriptors: {first}, then {last}")
    for name in pids:
        assert last[name][1] < first[name][1] + RECONNECTS / 2, f"{name}: descriptors: {first} {last}"  # some come and go by themselves
        assert last[name][0] <= first[name][0] + GROWTH or sanitized(source), f"{name}: memory: {first} {last}"
    pair.same()
