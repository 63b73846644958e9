# SPDX-License-Identifier: BSD-2-Clause
"""What the standby could not apply is corrected wherever it is by then, in the same connection and in the next one."""
import contextlib
import os
import subprocess

import pytest

from lib.wait import wait_until
from lib.workload import acl

LARGE = 400 << 10


def refuse_changes(path, on=True):
    """Nobody can change this file, or the names in this directory."""
    if subprocess.run(["chattr", "+i" if on else "-i", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("chattr +i is not possible here")


def in_one_go(pair, change):
    """All of it is sent before the answer to the first of it."""
    assert pair.source.ctl("pause", "m").returncode == 0
    change()
    assert pair.source.ctl("resume", "m").returncode == 0


def cut_before_the_answers(pair, net, change, before_the_next=lambda: None):
    """The connection ends when the standby has applied it all, and its answers have not come."""
    net.proxy.hush()
    in_one_go(pair, change)
    for name in "applied", "applied, too":  # the second behind the position of the first
        (pair.dir / name).touch()
        wait_until((pair.copy / name).exists, "it is applied")
    net.proxy.close()
    before_the_next()
    net.proxy.resume()
    net.proxy.open()


def test_attributes_of_a_file_that_loses_the_name_before_the_next_connection(pair_with, net):
    pair = pair_with(proxy=net)
    (pair.dir / "a").touch()
    os.link(pair.dir / "a", pair.dir / "b")
    pair.source.wait()
    (pair.copy / "b").unlink()  # the one that the record names

    def change():
        (pair.dir / "b").chmod(0o600)
        (pair.dir / "b").unlink()
    cut_before_the_answers(pair, net, change)
    pair.same()


def test_attributes_of_a_file_that_loses_the_name_before_it_is_compared(pair_with):
    pair = pair_with(source={"bwlimit": "300K"})  # the failure is known before the last record is sent
    (pair.dir / "a").touch()
    os.link(pair.dir / "a", pair.dir / "b")
    pair.source.wait()
    (pair.copy / "b").unlink()  # the one that the record names

    def change():
        (pair.dir / "b").chmod(0o600)
        for number in range(1500):
            (pair.dir / str(number)).touch()
        (pair.dir / "b").unlink()
    in_one_go(pair, change)
    pair.same()


@pytest.mark.root
def test_bytes_behind_a_rename_that_fails(pair_with, net):
    """The change is made to the file that should have been replaced; then it has the size and the time of the new one."""
    pair = pair_with(proxy=net)
    (pair.dir / "d").mkdir()
    (pair.dir / "d" / "new").write_bytes(os.urandom(LARGE))
    (pair.dir / "f").write_bytes(os.urandom(LARGE))
    pair.source.wait()

    def change():
        (pair.dir / "d" / "new").rename(pair.dir / "f")
        with open(pair.dir / "f", "r+b") as f:
            f.write(b"changed")
    refuse_changes(pair.copy / "d")
    try:
        net.proxy.hush()
        in_one_go(pair, change)
        wait_until(lambda: (pair.copy / "f").read_bytes().startswith(b"changed"), "it is changed")
    finally:
        refuse_changes(pair.copy / "d", False)
    net.proxy.resume()
    pair.same()


@pytest.mark.root
def test_a_failed_path_in_a_directory_that_moves(pair):
    """It is what it is called now that is shown and tried again."""
    (pair.dir / "d").mkdir()
    (pair.dir / "d" / "f").touch()
    pair.source.wait()
    refuse_changes(pair.copy / "d" / "f")
    try:
        (pair.dir / "d" / "f").chmod(0o600)
        pair.source.wait_error("permission|not permitted")
        (pair.dir / "d").rename(pair.dir / "e")
        wait_until((pair.copy / "e").exists, "the directory moves")
        wait_until(lambda: [e["path"] for e in pair.source.target()["errors"]] == ["e/f"], lambda: f"its path in {pair.source.target()}")
    finally:
        refuse_changes(pair.copy / ("e" if (pair.copy / "e").exists() else "d") / "f", False)
    assert pair.source.ctl("verify", "m", "--repair").returncode in (0, 1)  # it tries at once
    pair.same()


@pytest.mark.root
def test_a_failed_path_in_a_directory_that_moves_before_the_answer(pair_with, net):
    """What the comparison sent fails under the name that the directory had then."""
    pair = pair_with(proxy=net)
    (pair.dir / "d").mkdir()
    (pair.dir / "d" / "f").write_bytes(os.urandom(LARGE))
    pair.source.wait()
    refuse_changes(pair.copy / "d" / "f")
    try:
        net.proxy.rate = LARGE
        began = net.proxy.up
        (pair.dir / "d" / "f").write_bytes(os.urandom(LARGE))
        wait_until(lambda: net.proxy.up > began + LARGE * 5 // 4, "the comparison sends it, too")
        (pair.dir / "d").rename(pair.dir / "e")
        wait_until((pair.copy / "e").exists, "the directory moves")
        net.proxy.rate = None
        pair.source.wait_error("permission|not permitted", timeout=5)
    finally:
        refuse_changes(pair.copy / ("e" if (pair.copy / "e").exists() else "d") / "f", False)
    assert pair.source.ctl("verify", "m", "--repair").returncode in (0, 1)
    pair.same()


def test_bytes_of_a_new_file_in_another_s_place_after_a_break(pair_with, net):
    """The standby has a file where a new one was made; what was not written of that must not stay."""
    pair = pair_with(proxy=net)
    (pair.copy / "f").write_bytes(os.urandom(LARGE))

    def change():
        with open(pair.dir / "f", "wb") as f:
            f.seek(LARGE - 7)
            f.write(b"written")
    cut_before_the_answers(pair, net, change)
    pair.same()


def test_attributes_of_a_file_that_loses_the_name_while_the_standby_is_unsure(pair):
    """It cannot tell what it has: the records are not applied, what they are about is compared."""
    (pair.dir / "a").touch()
    os.link(pair.dir / "a", pair.dir / "b")
    pair.source.wait()
    pair.standby.stop()
    (pair.copy / ".tandem" / "position").write_bytes(b"")
    (pair.dir / "b").chmod(0o600)
    (pair.dir / "b").unlink()
    pair.standby.start()
    pair.same()
    assert "was not stopped cleanly" in pair.source.log()


def test_bytes_of_a_file_that_loses_the_name_while_the_standby_is_unsure(pair_with, net):
    """The name by which they are to be compared goes away before the standby has answered."""
    pair = pair_with(proxy=net)
    (pair.dir / "a").write_bytes(os.urandom(1000))
    os.link(pair.dir / "a", pair.dir / "b")
    pair.source.wait()
    pair.standby.stop()
    (pair.copy / ".tandem" / "position").write_bytes(b"")
    (pair.dir / "b").write_bytes(os.urandom(1000))
    net.proxy.delay = 0.2
    pair.standby.start()
    wait_until(lambda: "was not stopped cleanly" in pair.source.log(), "it is unsure")
    (pair.dir / "b").unlink()
    net.proxy.delay = 0
    pair.same()


@pytest.mark.root
@pytest.mark.parametrize("cut", [False, True])
def test_bytes_behind_a_rename_that_fails_under_a_name_that_goes_away(pair_with, net, cut):
    """They went into the file that should have been replaced, and with it; the other name of the right one lacks them."""
    pair = pair_with(proxy=net)
    (pair.dir / "d").mkdir()
    (pair.dir / "d" / "new").write_bytes(os.urandom(LARGE))
    os.link(pair.dir / "d" / "new", pair.dir / "other")
    (pair.dir / "f").write_bytes(os.urandom(LARGE))
    pair.source.wait()

    def change():
        (pair.dir / "d" / "new").rename(pair.dir / "f")
        with open(pair.dir / "f", "r+b") as f:
            f.write(b"changed")
        (pair.dir / "f").unlink()

    def allow():
        refuse_changes(pair.copy / "d", False)
    refuse_changes(pair.copy / "d")
    try:
        if cut:
            cut_before_the_answers(pair, net, change, allow)
        else:
            net.proxy.hush()
            in_one_go(pair, change)
            wait_until(lambda: not (pair.copy / "f").exists(), "it is removed")
    finally:
        allow()
    net.proxy.resume()
    pair.same()


@pytest.mark.parametrize("cut", [False, True])
def test_what_was_made_below_a_default_acl_that_is_refused(pair_with, net, cut):
    """It has left the directory when the answer comes."""
    pair = pair_with(proxy=net)
    (pair.dir / "d").mkdir()
    pair.source.wait()
    for size in range(1 << 16, 0, -8):  # no room for anything else
        try:
            os.setxattr(pair.copy / "d", "user.large", bytes(size))
            break
        except OSError:
            pass

    def change():
        os.setxattr(pair.dir / "d", "system.posix_acl_default", acl(users={1000 + n: 7 for n in range(60)}))
        (pair.dir / "d" / "directory").mkdir()
        (pair.dir / "d" / "file").touch()
        for name in "directory", "file":
            (pair.dir / "d" / name).rename(pair.dir / name)
    if cut:
        cut_before_the_answers(pair, net, change)
    else:
        net.proxy.hush()
        in_one_go(pair, change)
        wait_until((pair.copy / "file").exists, "it is applied")
        net.proxy.resume()
    pair.same()


@pytest.mark.root
def test_a_change_under_an_excluded_name_in_the_next_connection(pair_with):
    """Its record, which has no path that could be compared, is outstanding."""
    pair = pair_with(source={"exclude": "*.tmp"})
    (pair.dir / "file").write_bytes(b"old")
    os.link(pair.dir / "file", pair.dir / "file.tmp")
    pair.source.wait()
    refuse_changes(pair.copy / "file")
    (pair.dir / "file.tmp").write_bytes(b"changed")
    pair.source.wait_error("not permitted")
    pair.source.kill_replicator()
    refuse_changes(pair.copy / "file", False)
    pair.same(exclude=["file.tmp"])


@pytest.mark.parametrize("gone", [False, True])
def test_a_change_under_an_excluded_name_when_the_mount_is_killed(pair_with, gone):
    """What is compared then has that name."""
    pair = pair_with(source={"exclude": "*.tmp"})
    (pair.dir / "file").write_bytes(b"old")
    os.link(pair.dir / "file", pair.dir / "file.tmp")
    pair.same(exclude=["file.tmp"])
    with contextlib.suppress(OSError), open(pair.dir / "file.tmp", "r+b", buffering=0) as f:
        f.write(b"new")
        pair.source.perish()
    if gone:
        os.unlink(pair.dir / "file.tmp")
    pair.source.start()
    pair.same(exclude=["file.tmp"])
