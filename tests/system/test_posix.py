# SPDX-License-Identifier: BSD-2-Clause
"""Thousands of system calls by several users: on the mount they do what they do on the directory below."""
import itertools
import os
import re

import posix_probe
import pytest

pytestmark = pytest.mark.root

# What differs and why: step, pattern of the native outcome, pattern of the mount's.
KNOWN = [
    # the kernel's FUSE refuses FALLOC_FL_COLLAPSE_RANGE, INSERT_RANGE (fs/fuse/file.c) before we hear of them
    ("data", r"\('fallocate', (8|32), ", r"\('fallocate', (8|32), 'ENOTSUP', 100010, "),
    # libfuse hands TMPFILE on from 3.17; the file's name then misses, too
    ("data", r"\('tmpfile', ", r"\('tmpfile', 'ENOTSUP'\)$|$"),
    # the superuser writes to a file that is set-id and has capabilities: after taking those the kernel's FUSE asks for the same as in chown(-1, -1)
    ("writes_of_all_sorts", r"\('\w+', \[.*\], '0o6777', None, .*'106777 ", r"\('\w+', \[.*\], '0o6777', None, .*'100777 "),
    # a write from memory of which a part is missing: the kernel's FUSE takes all of a page or nothing
    ("limits", r"\('half', 96, ", r"\('half', 'EFAULT', "),
]


def explained(step, native, mounted):
    return any(step == s and re.match(a, native or "") and re.match(b, mounted or "") for s, a, b in KNOWN)


@pytest.fixture
def mount(site):
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    source.options = ["--no-replicator"]
    source.start()
    return source


def compare(site, mount, step):
    if os.geteuid() != 0:
        pytest.skip("acts as several users")
    plain = site.dir / "plain"
    plain.mkdir()
    native, mounted = posix_probe.run_step(plain, step), posix_probe.run_step(mount.dir, step)
    differ = [(a, b) for a, b in itertools.zip_longest(native, mounted) if a != b and not explained(step.__name__, a, b)]
    assert not any(row.startswith("EXCEPTION") for row in native), native[-1]
    assert not differ, f"{len(differ)} of {len(native)} outcomes differ\n" + "\n".join(f"native: {a}\nmount:  {b}" for a, b in differ[:8])


@pytest.mark.parametrize("step", posix_probe.STEPS, ids=lambda fn: fn.__name__)
def test_mount_behaves_as_the_directory_below(site, mount, step):
    compare(site, mount, step)


@pytest.mark.parametrize("step", [posix_probe.data, posix_probe.writes_of_all_sorts, posix_probe.times_of_directories], ids=lambda fn: fn.__name__)
def test_shared_mount_behaves_as_the_directory_below(site, step):
    source = site.source(["tandem://nobody@127.0.0.1:1/m"], **{"shared source": "yes"})
    source.options = ["--no-replicator"]
    source.start()
    compare(site, source, step)
