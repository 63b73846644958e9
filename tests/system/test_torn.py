# SPDX-License-Identifier: BSD-2-Clause
"""A file on the standby is in its old state or in its new state, never between, whatever is killed or cut."""
import contextlib
import os
import pathlib
import shutil
import threading
import time

import pytest

from lib.procs import kill_pid
from lib.versions import Checker, Writer, version
from lib.wait import wait_until


def test_replaced_files_are_never_torn(pair_with, net):
    pair = pair_with(proxy=net)
    writer, checker = Writer(pair.dir), Checker(pair.copy)
    writer.start()
    checker.start()
    for number in range(9):
        goal = writer.number + 60
        wait_until(lambda n=goal: writer.number > n, "writes")
        if number % 3 == 0:
            net.proxy.cut()
        elif number % 3 == 1:
            net.proxy.cut_after(100000)
        else:
            pair.standby.kill()
            pair.standby.start()
    writer.stop()
    pair.source.wait()
    checker.stop()
    assert checker.read > 100
    pair.same()


def test_half_a_version_is_not_renamed_over_a_whole_one(pair):
    """An earlier connection made the new version's file on the standby, and its bytes are left to a comparison: its rename waits for them."""
    size = 30 << 20
    seen, halt = set(), threading.Event()
    (pair.dir / "f").write_bytes(b"1" * size)
    with open(pair.dir / "f.new", "wb", buffering=0) as new:
        pair.source.wait()
        assert (pair.copy / "f.new").stat().st_size == 0
        pair.standby.stop()
        new.write(b"2" * size)
    shutil.rmtree(pair.copy / ".tandem")  # so that everything is compared
    for remembered in pathlib.Path(pair.standby.keys["state dir"]).glob("*.json"):
        remembered.unlink()
    assert pair.source.ctl("pause", "m").returncode == 0
    pair.standby.start()
    wait_until(lambda: pair.source.log().count("comparing everything") == 2, "a comparison")

    def read():
        while not halt.is_set():
            with open(pair.copy / "f", "rb") as f:
                seen.add((os.fstat(f.fileno()).st_size, f.read(1), os.pread(f.fileno(), 1, size - 1)))
    t = threading.Thread(target=read, daemon=True)
    t.start()
    (pair.dir / "f.new").rename(pair.dir / "f")
    assert pair.source.ctl("resume", "m").returncode == 0
    pair.same()
    halt.set()
    t.join()
    assert seen == {(size, b"1", b"1"), (size, b"2", b"2")}


def test_large_file_is_old_or_new_after_a_kill(pair):
    """The file is written from its end to its beginning and sent from its beginning to its end: whatever was read while it was open has
    newer marks behind older ones, and what was applied halfway has older ones behind newer ones."""
    size, places = 24 << 20, (0, 8 << 20, 16 << 20, (24 << 20) - 8)
    (pair.dir / "large").write_bytes(bytes(size))
    pair.source.wait()
    halt = threading.Event()

    def write():
        number = 0
        while not halt.is_set():
            number += 1
            with open(pair.dir / "large", "r+b", buffering=0) as f:
                for at in reversed(places):
                    os.pwrite(f.fileno(), number.to_bytes(8, "little"), at)

    def marks():
        with open(pair.copy / "large", "rb") as f:
            return [int.from_bytes(os.pread(f.fileno(), 8, at), "little") for at in places]
    t = threading.Thread(target=write, daemon=True)
    t.start()
    for _ in range(5):
        old = marks()
        wait_until(lambda o=old: marks() != o, "new versions on the standby")
        pair.standby.kill()
        assert pair.source.ctl("pause", "m").returncode == 0
        pair.standby.start()
        wait_until(lambda: marks() == sorted(marks()), lambda: f"one version: {marks()}", 10)
        assert pair.source.ctl("resume", "m").returncode == 0
    halt.set()
    t.join()
    pair.same()


def test_nothing_temporary_is_left(pair):
    """Cut transfers leave no files behind."""
    for round_ in range(4):
        for i in range(20):
            (pair.dir / f"f{i}").write_bytes(os.urandom(200000))
        pair.standby.kill()
        pair.standby.start()
    pair.same()
    left = [str(p) for d in ("tmp", "redo") if (pair.copy / ".tandem" / d).exists() for p in (pair.copy / ".tandem" / d).iterdir()]
    assert not left, left


def file_with_number(pair, number):
    """A new file that has the inode number of one that is gone, open for writing."""
    for i in range(5000):
        f = open(pair.dir / f"held{i}", "wb", buffering=0)
        if os.fstat(f.fileno()).st_ino == number:
            return f, pair.dir / f"held{i}"
        f.close()
    pytest.skip("the file system does not use inode numbers again")


@pytest.mark.parametrize("young", ["longer", "empty"])
def test_a_number_that_is_used_again_does_not_mix_two_files(pair_with, net, young):
    """The journal has a short version of a file; by the time it is sent its inode number is that of another one under the same name: one that
    is longer, or one that is not written yet."""
    pair = pair_with(proxy=net)

    def replace(data):
        with open(pair.dir / "f0.new", "wb") as f:
            f.write(data)
        ino = os.stat(pair.dir / "f0.new").st_ino
        os.rename(pair.dir / "f0.new", pair.dir / "f0")
        return ino
    (pair.dir / "filler").touch()
    replace(version(1, 70000))
    pair.source.wait()
    assert pair.source.ctl("pause", "m").returncode == 0
    number = replace(version(2, 400))
    for mode in range(5000):  # more than the replicator sees at once
        os.chmod(pair.dir / "filler", 0o600 | mode & 0o77)
    replace(version(3, 400))
    f, path = file_with_number(pair, number)
    if young == "longer":
        f.write(version(4, 70000))
        path.rename(pair.dir / "f0")
    else:
        path.rename(pair.dir / "f0.new")
    net.proxy.rate = 100000
    checker = Checker(pair.copy, files=1)
    checker.start()
    assert pair.source.ctl("resume", "m").returncode == 0
    wait_until(lambda: (pair.copy / "f0").read_bytes() == (pair.dir / "f0").read_bytes(), "the last version", 60)
    f.close()
    pair.source.wait(60)
    checker.stop()
    pair.same()


@pytest.mark.parametrize("victim", ["child", "daemon"])
def test_what_a_kill_left_half_made_is_completed_without_the_source(pair_with, net, victim):
    """The source may be gone for good, and the standby is to take its place."""
    pair = pair_with(proxy=net)
    places, number = range(0, 64 << 20, 8192), 1

    def write():
        assert pair.source.ctl("pause", "m").returncode == 0  # nothing of it is sent before it is closed
        with open(pair.dir / "large", "r+b", buffering=0) as f:
            for at in places:
                os.pwrite(f.fileno(), number.to_bytes(8, "little"), at)
        assert pair.source.ctl("resume", "m").returncode == 0

    def mark(at):
        with open(pair.copy / "large", "rb", buffering=0) as f:
            return int.from_bytes(os.pread(f.fileno(), 8, at), "little")
    (pair.dir / "large").write_bytes(bytes(64 << 20))
    pair.source.wait()
    while number < 20 and "complete" not in pair.standby.log():
        write()
        wait_until(lambda: mark(0) == number, "the first bytes of the new version", step=0)
        for pid in pair.standby.children():
            kill_pid(pid, wait=False)
        net.proxy.close()
        if victim == "daemon":
            pair.standby.kill()
            pair.standby.start()
        wait_until(lambda: {mark(at) for at in places} == {number}, lambda: f"one version: {sorted({mark(at) for at in places})}", 10)
        net.proxy.open()
        pair.source.wait()
        number += 1
    assert "complete" in pair.standby.log()
    pair.same()


def test_an_open_file_that_grows_has_no_holes(pair):
    """What is sent of a file that stays open is what was recorded: not its bytes of then with its size of now."""
    done, holes, seen = threading.Event(), [], set()

    def write():
        with open(pair.dir / "log", "wb", buffering=0) as f:
            for _ in range(1500):
                f.write(b"x" * 8192)
                time.sleep(0.001)
        done.set()
    t = threading.Thread(target=write)
    t.start()
    while not done.is_set():
        with contextlib.suppress(FileNotFoundError):
            data = (pair.copy / "log").read_bytes()
            seen.add(len(data))
            holes += [(len(data), data.count(0))] * (0 in data)
        time.sleep(0.01)
    t.join()
    pair.same()
    assert len(seen) > 1 and not holes, f"{len(holes)} of many reads: length, zeros: {holes[:5]}"
