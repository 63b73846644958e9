# SPDX-License-Identifier: BSD-2-Clause
"""A module whose uid is not root (`uid = nobody`, as rsyncd's default): what the source's root does in directories without write permission, and with files without
any, is done there by who owns them."""
import itertools
import os
import random
import shutil
import struct

import pytest

from lib import tree
from lib.procs import kill_pid
from lib.syscalls import RENAME_EXCHANGE, renameat2
from lib.wait import wait_until
from lib.workload import Workload, acl

pytestmark = pytest.mark.root

NOBODY = 65534
CLOSED = (0o555, 0o500, 0o444, 0o400, 0o311, 0o200, 0o100, 0)  # to its owner, in one way or another


def populate(top):
    """A directory of every closed mode with a file of every closed mode, a large one, a directory and a link in it."""
    for mode in CLOSED:
        d = top / f"{mode:o}"
        (d / "sub").mkdir(parents=True)
        (d / "sub" / "leaf").write_text("leaf")
        (d / "large").write_bytes(random.Random(mode).randbytes(4 << 20))
        os.symlink("leaf", d / "link")
        for m in CLOSED:
            (d / f"{m:o}").write_text(f"{m}")
            os.chmod(d / f"{m:o}", m)
        os.chmod(d / "large", mode)
        os.chmod(d / "sub", mode)
        os.chmod(d, mode)


@pytest.fixture
def pair(site):
    """populated() makes a source with what populate makes in it, before or after it is mounted."""
    standby = site.standby()
    standby.module("m", standby.dir, uid="nobody", gid="nogroup")
    os.chown(standby.dir, NOBODY, NOBODY)
    source = site.source([standby.url()])
    source.standby = standby

    def populated(first=True):
        if first:
            populate(source.dir)
        standby.start()
        source.start()
        if not first:
            populate(source.dir)
        same(source)
        return source
    source.populated = populated
    return source


def left_open(source):
    return [n for n in os.listdir(source.standby.dir / ".tandem") if n.startswith("reach")]


def same(source):
    source.wait()
    tree.assert_same(source.dir, source.standby.dir, owners=False)
    assert not left_open(source)


@pytest.mark.parametrize("first", [True, False])
def test_copy(pair, first):
    pair.populated(first)


def make(d):
    (d / "new").write_text("new")
    (d / "newdir").mkdir()
    os.symlink("x", d / "newlink")
    os.mkfifo(d / "fifo")


def rewrite(d):
    for m in CLOSED:
        (d / f"{m:o}").write_text("rewritten")


def change(d):
    """A piece of a large file, which is put in place or into a copy."""
    with open(d / "large", "r+b") as f:
        f.seek(1 << 20)
        f.write(b"changed")
    os.truncate(d / "0", 1)


def remove(d):
    for m in CLOSED:
        os.unlink(d / f"{m:o}")
    shutil.rmtree(d / "sub")


def move(d):
    os.rename(d / "0", d / "moved")
    os.rename(d / "555", d / "sub" / "into")
    os.rename(d / "sub" / "leaf", d / "out")
    renameat2(d / "200", d / "sub", RENAME_EXCHANGE)
    os.rename(d / "200", d.parent / f"{d.name}.up")


def link(d):
    os.link(d / "0", d / "second")
    os.link(d / "large", d / "sub" / "third")
    with open(d / "large", "r+b") as f:
        f.write(b"both")


def attributes(d):
    for name in ".", "0", "444", "sub":
        os.setxattr(d / name, "user.x", b"value")
        os.utime(d / name, ns=(10**18, 10**18 + 1))
    os.removexattr(d / "0", "user.x")
    os.chmod(d / "400", 0o640)


def give(d):
    """The modes that the standby gives for a while, here for good; and to what is changed in place, too."""
    os.link(d / "large", d / "second")
    for n in [*(f"{m:o}" for m in CLOSED), "large"]:
        os.chmod(d / n, (d / n).stat().st_mode | 0o600)
    os.chmod(d / "sub", (d / "sub").stat().st_mode | 0o700)
    (d / "acl").touch()
    os.chmod(d / "acl", 0o200)
    acl = (1, 6, -1), (2, 4, 1000), (4, 0, -1), (16, 0, -1), (32, 0, -1)  # u::rw u:1000:r g::- m::- o::-
    os.setxattr(d / "acl", "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *e) for e in acl))


@pytest.mark.parametrize("operation", [make, rewrite, change, remove, move, link, attributes, give])
def test_operations(pair, operation):
    source = pair.populated()
    for mode in CLOSED:
        operation(source.dir / f"{mode:o}")
    same(source)


def test_removal_of_everything(pair):
    source = pair.populated()
    for mode in CLOSED:
        shutil.rmtree(source.dir / f"{mode:o}")
    same(source)


def test_comparison(pair):
    """What somebody changed on the standby is found and put right, and what is only there goes, and all has its mode afterwards."""
    source = pair.populated()
    copy = source.standby.dir
    for mode, m in itertools.product(CLOSED, CLOSED):
        file = copy / f"{mode:o}" / f"{m:o}"
        st = file.stat()
        file.write_text("x" * st.st_size)
        os.utime(file, ns=(st.st_mtime_ns, st.st_mtime_ns))
    for mode in CLOSED:
        d = copy / f"{mode:o}"
        (d / "stray" / "below").mkdir(parents=True)
        (d / "stray" / "below" / "file").write_text("stray")
        os.unlink(d / "link")
        for p in (d / "stray", d / "stray" / "below", d / "stray" / "below" / "file"):
            os.chown(p, NOBODY, NOBODY)
            os.chmod(p, mode)
    r = source.ctl("verify", "m", "--repair", "--checksum")
    assert r.returncode in (0, 3), r.stdout + r.stderr
    same(source)


def test_attributes_of_what_its_owner_may_not_read(pair):
    """They are compared, and stay with a file whose bytes alone are put right."""
    source = pair.populated()
    for m, d in itertools.product(CLOSED, (".", "0", "311")):
        file = source.dir / d / f"with {m:o}"
        file.write_text("text")
        os.setxattr(file, "user.x", b"value")
        os.chmod(file, m)
        os.setxattr(source.dir / f"{m:o}", "user.x", b"value")
    for p in [*(source.dir / d / f"{m:o}" for m, d in itertools.product(CLOSED, (".", "0", "311"))), source.dir]:
        os.setxattr(p, "system.posix_acl_access", acl(owner=p.stat().st_mode >> 6 & 7, users={1000: 4}))
    same(source)
    r = source.ctl("verify", "m")
    assert r.returncode == 0, r.stdout + r.stderr
    for m in CLOSED:
        (source.standby.dir / f"with {m:o}").write_text("else")
    source.ctl("verify", "m", "--repair", "--checksum")
    same(source)


def test_the_root_itself(pair):
    source = pair.populated()
    for mode in 0o555, 0o500, 0o311:
        os.chmod(source.dir, mode)
        (source.dir / f"in {mode:o}").write_text("x")
        same(source)


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_a_killed_child_left_open(pair, comes_back):
    """It is put back also if the source does not come back."""
    source = pair.populated()
    copy = source.standby.dir
    if not comes_back:
        source.stop()
    source.standby.stop()
    for n, (path, was) in enumerate({"555": 0o555, "555/sub": 0o555, "555/0": 0}.items()):
        os.symlink(f"{was:o} {path}", copy / ".tandem" / f"reach.{n}")
        os.chmod(copy / path, was | 0o700 if n < 2 else 0o600)
    os.symlink("444 500", copy / ".tandem" / "reach.3")  # its mode was set since
    source.standby.start()
    if comes_back:
        (source.dir / "new").touch()
        same(source)
    else:
        wait_until(lambda: not left_open(source), "nothing is open")
        tree.assert_same(source.dir, copy, owners=False)


@pytest.mark.parametrize("seed", range(int(os.environ.get("TANDEM_ROUNDS", "2"))))
def test_random_operations_with_kills(pair, seed):
    """Killed at any moment, a child leaves no mode behind that is not the source's."""
    source = pair.populated()
    load = Workload(source.dir, seed=700 + seed, ops=None, as_root=False, modes=CLOSED + (0o755, 0o644)).start()
    for n in range(6):
        load.wait_ops(150 * (n + 1))
        for pid in wait_until(source.standby.children, "a child"):
            kill_pid(pid)
    load.stop().check()
    same(source)


def test_attributes_of_closed_files_are_compared(pair):
    """What their owner may not read without changing the mode differs neither for good nor unnoticed."""
    for mode in CLOSED:
        (pair.dir / f"file{mode:o}").write_text("x")
        (pair.dir / f"dir{mode:o}").mkdir()
        for path in (pair.dir / f"file{mode:o}", pair.dir / f"dir{mode:o}"):
            os.setxattr(path, "user.colour", b"blue")
            os.chmod(path, mode)
    pair.standby.start()
    pair.start()
    same(pair)
    r = pair.ctl("verify", pair.name)
    assert r.returncode == 0, r.stdout + r.stderr
    for mode in CLOSED:
        os.setxattr(pair.standby.dir / f"file{mode:o}", "user.size", b"small")
        os.setxattr(pair.standby.dir / f"dir{mode:o}", "user.size", b"small")
    r = pair.ctl("verify", pair.name)
    assert r.returncode == 1 and all(f"file{mode:o}" in r.stdout and f"dir{mode:o}" in r.stdout for mode in CLOSED), r.stdout + r.stderr
    assert pair.ctl("verify", pair.name, "--repair").returncode == 0
    same(pair)
