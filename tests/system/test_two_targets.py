# SPDX-License-Identifier: BSD-2-Clause
"""One source, two standbys, each with a position of its own."""
import os

import pytest

from lib import tree
from lib.wait import wait_until
from lib.workload import Workload


@pytest.fixture
def three(site):
    a, b = site.standby().start(), site.standby().start()
    source = site.source([a.url(), b.url()]).start()
    source.wait()
    return source, a, b


def test_both_are_current(three):
    source, a, b = three
    Workload(source.dir, seed=11, ops=400).run()
    source.wait()
    tree.assert_same(source.dir, a.dir)
    tree.assert_same(source.dir, b.dir)


def test_one_is_down(three):
    source, a, b = three
    b.kill()
    Workload(source.dir, seed=12, ops=600).run()
    (source.dir / "last").write_text("x")
    wait_until(lambda: not tree.differences(source.dir, a.dir), lambda: f"the living standby is current: {tree.differences(source.dir, a.dir)[:9]}", step=0.2)
    r = source.ctl("wait", source.name, "--timeout", "1")
    assert r.returncode == 1, r.stdout + r.stderr
    assert not os.path.exists(b.dir / "last")
    b.start()
    source.wait()
    tree.assert_same(source.dir, b.dir)


def test_a_slow_one_does_not_hold_the_other(site):
    from lib.proxy import Proxy
    a, b = site.standby().start(), site.standby().start()
    with Proxy(b.port) as net:
        source = site.source([a.url(), b.url(port=net.port)]).start()
        source.wait()
        net.stall()
        (source.dir / "file").write_bytes(os.urandom(1 << 20))
        wait_until(lambda: not tree.differences(source.dir, a.dir), "the fast standby is current", 10, 0.05)
        net.resume()
        source.wait()
        tree.assert_same(source.dir, b.dir)
        source.stop()


def test_a_target_is_added_later(three, site):
    source, a, b = three
    Workload(source.dir, seed=13, ops=300).run()
    source.wait()
    source.stop()
    c = site.standby().start()
    source.keys["target"] = [a.url(), b.url(), c.url()]
    source.start()
    source.wait()
    tree.assert_same(source.dir, c.dir)
