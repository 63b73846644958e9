# SPDX-License-Identifier: BSD-2-Clause
"""Operations that are done below and fail all the same: a disk that breaks, memory that is short, a file server that does not answer in time, or that is asked
twice because it started again. Whoever asked is told of the failure; the standby gets what is there."""
import errno
import os

import pytest

from lib import tree
from lib.hold import Hold


@pytest.fixture
def pair(site):
    """A source with files and directories, its Hold as source.hold, the directory below as source.below, and what the standby has as source.copy."""
    standby = site.standby().start()
    source = site.source([standby.url()])
    source.hold = Hold(site, source)
    source.copy = standby.dir
    below = os.open(source.dir, os.O_RDONLY | os.O_DIRECTORY)
    source.below = f"/proc/self/fd/{below}/."
    source.start()
    (source.dir / "file").write_bytes(b"x" * 100000)
    (source.dir / "over").write_text("replaced")
    (source.dir / "dir" / "sub").mkdir(parents=True)
    (source.dir / "dir" / "sub" / "leaf").write_text("leaf")
    (source.dir / "empty").mkdir()
    source.wait()
    yield source
    os.close(below)


def state(root):
    return {p: (st, tree.xattrs(os.path.join(os.fsencode(root), p))) for p, st in tree.scan(root).items()}


def fails(source, call, name, error, operation):
    """The operation meets the error, and the standby has what it did before that."""
    before = state(source.below)
    source.hold.fail(call, name, error)
    with pytest.raises(OSError) as e:
        operation(source.dir)
    assert e.value.errno == error
    assert source.hold.failed(call, name)
    assert state(source.below) != before, "it was not done: the test shows nothing"
    source.wait()
    tree.assert_same(source.below, source.copy)


def descriptor(path):
    with open(path, "r+b") as f:
        f.truncate(0)


MAKING = {
    "mkdirat": ("d", lambda at: os.mkdir(at / "d")),
    "mknodat": ("n", lambda at: os.mkfifo(at / "n")),
    "symlinkat": ("s", lambda at: os.symlink("file", at / "s")),
    "linkat": ("l", lambda at: os.link(at / "file", at / "l")),
    "create": ("c", lambda at: os.open(at / "c", os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
}
REMOVING = {
    "unlink": ("unlinkat", "file", lambda at: os.unlink(at / "file")),
    "rmdir": ("unlinkat", "empty", lambda at: os.rmdir(at / "empty")),
    "rename": ("renameat2", "file", lambda at: os.rename(at / "file", at / "dir" / "moved")),
    "rename over": ("renameat2", "file", lambda at: os.rename(at / "file", at / "over")),
    "rename of a tree": ("renameat2", "dir", lambda at: os.rename(at / "dir", at / "empty")),
}
CHANGING = {
    "truncate": ("truncate", "file", lambda at: os.truncate(at / "file", 0)),
    "ftruncate": ("truncate", "file", lambda at: descriptor(at / "file")),
    "O_TRUNC": ("truncate", "file", lambda at: os.open(at / "file", os.O_WRONLY | os.O_TRUNC)),
    "chmod": ("chmod", "file", lambda at: os.chmod(at / "file", 0o604)),
    "setxattr": ("setxattr", "file", lambda at: os.setxattr(at / "file", "user.x", b"value")),
}


@pytest.mark.parametrize("error", [errno.EIO, errno.EEXIST])
@pytest.mark.parametrize("call", MAKING)
def test_a_name_that_was_made(pair, call, error):
    fails(pair, call, MAKING[call][0], error, MAKING[call][1])


@pytest.mark.parametrize("call", ["mkdirat", "symlinkat"])
def test_what_was_made_and_cannot_be_looked_at(pair, call):
    name, operation = MAKING[call]
    fails(pair, "fstatat", name, errno.EIO, operation)


@pytest.mark.parametrize("error", [errno.ETIMEDOUT, errno.ENOENT])
@pytest.mark.parametrize("what", REMOVING)
def test_a_name_that_was_taken(pair, what, error):
    call, name, operation = REMOVING[what]
    fails(pair, call, name, error, operation)


@pytest.mark.parametrize("what", CHANGING)
def test_a_change_of_a_file(pair, what):
    call, name, operation = CHANGING[what]
    fails(pair, call, name, errno.EIO, operation)
