# SPDX-License-Identifier: BSD-2-Clause
"""Much read at once: what the replicator merges, holds back or drops still ends in the same trees."""
import contextlib
import os

import pytest

from lib.workload import Workload

NAMES = {"create", "write", "replace", "unlink", "rename_file", "rename_over", "exchange", "link", "chmod", "utimens", "open_unlinked",
         "unlinked_link", "mkdir", "rename_dir", "rmdir", "copy_range"}


@contextlib.contextmanager
def paused(pair):
    """What is done inside is sent afterwards, from one window."""
    pair.source.wait()
    assert pair.source.ctl("pause", pair.source.name).returncode == 0
    yield
    assert pair.source.ctl("resume", pair.source.name).returncode == 0


def replace(path, text):
    new = path.with_name("new." + path.name)
    new.write_text(text)
    os.rename(new, path)


def test_a_rename_over_a_name_that_still_shows_the_same_file(pair):
    """b shows its old file as long as its new one is not sent: then a and b are one file there, and two here."""
    (pair.dir / "a").write_text("old")
    os.link(pair.dir / "a", pair.dir / "b")
    with paused(pair):
        replace(pair.dir / "b", "new")
        os.rename(pair.dir / "a", pair.dir / "b")
    pair.same()


def test_a_create_that_comes_late_leaves_the_directory_time_alone(pair):
    with paused(pair):
        d = pair.dir / "d"
        d.mkdir()
        with open(d / "a", "w", encoding="ascii") as f:
            (d / "b").write_text("2")
            f.write("1")
        os.chmod(d / "a", 0o600)
        (d / "a").write_text("changed since")
    pair.same()


@pytest.mark.parametrize("round_", range(int(os.environ.get("TANDEM_PAUSES", "3"))))
def test_random_operations_in_one_window(pair, round_):
    for part in range(4):
        with paused(pair):
            Workload(pair.dir, seed=20000 + 10 * round_ + part, ops=600, only=None if part % 2 else NAMES).run()
    pair.same()


@pytest.mark.parametrize("content", [b"", b"new"], ids=["empty", "written"])
@pytest.mark.parametrize("old_name", [True, False], ids=["renamed_before", "renamed_after"])
def test_changes_of_a_file_that_is_gone_reach_no_other(pair_with, net, content, old_name):
    """The new file was gone before it was sent: where it was renamed over one of kept's names, the standby still has kept. A connection that begins
    between its rename and its other changes does not know that."""
    pair = pair_with(proxy=net)
    kept, other, new = pair.dir / "kept", pair.dir / "other", pair.dir / "new"
    kept.write_text("kept")
    os.link(kept, other)
    pair.source.wait()
    net.proxy.close()
    new.write_bytes(content)
    if old_name:
        os.rename(new, other)
    for n in range(400):
        (pair.dir / f"between{n}").write_bytes(os.urandom(10000))
    if not old_name:
        os.rename(new, other)
        for n in range(400):
            (pair.dir / f"after{n}").write_bytes(os.urandom(10000))
    os.chmod(other, 0o4755)
    os.setxattr(other, "user.of", b"new")
    other.unlink()
    net.proxy.cut_after(2000000)
    before = net.proxy.connections
    net.proxy.open()
    pair.same()
    assert net.proxy.connections > before + 1, "the connection was not cut"
