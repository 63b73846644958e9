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
