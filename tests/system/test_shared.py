# SPDX-License-Identifier: BSD-2-Clause
"""shared source = yes: others change the directory below too, and the standby hears of it when it is looked at through the mount."""
import contextlib
import fcntl
import mmap
import os
import shutil
import threading

import pytest

from lib import tree
from lib.hold import Hold
from lib.syscalls import ask_again
from lib.wait import wait_until


def shared_pair(site, before=lambda source: None, **keys):
    """A source that is also reachable beside the mount, and its standby's copy. before: called with the source before it starts."""
    standby = site.standby()
    source = site.source([standby.url()])
    source.keys.update({"shared source": "yes", **keys})
    os.makedirs(source.dir / "d")
    (source.dir / "d" / "f").write_text("old")
    (source.dir / "d" / "g").write_text("stays")
    source.below = os.open(source.dir, os.O_RDONLY | os.O_DIRECTORY)
    standby.start()
    before(source)
    source.start()
    source.wait()
    source.copy = standby.dir
    look(source)
    source.wait()
    return source


@pytest.fixture
def shared(site):
    source = shared_pair(site)
    yield source
    os.close(source.below)


def below(source, path):
    return f"/proc/self/fd/{source.below}/{path}"


def look(source):
    """What a program that walks the mount looks at."""
    for top, _, names in os.walk(source.dir):
        os.stat(top)
        for n in names:
            os.lstat(os.path.join(top, n))


def seen_on_the_standby(source, expected):
    def there():
        look(source)
        source.wait()
        return expected()
    wait_until(there, "the standby has what others did", timeout=30)
    diff = tree.differences(source.dir, source.copy)
    assert not diff, "\n".join(diff)


def drifts(source):
    return source.ctl("journal", source.name).stdout.count("drift")


def test_a_file_that_others_wrote(shared):
    with open(below(shared, "d/f"), "w", encoding="ascii") as f:
        f.write("new, and longer")
    seen_on_the_standby(shared, lambda: (shared.copy / "d" / "f").read_text() == "new, and longer")
    assert drifts(shared) > 0


def test_a_mode_that_others_changed(shared):
    os.chmod(below(shared, "d/f"), 0o604)
    seen_on_the_standby(shared, lambda: os.stat(shared.copy / "d" / "f").st_mode & 0o777 == 0o604)


def test_names_that_others_made_and_removed(shared):
    os.unlink(below(shared, "d/f"))
    os.makedirs(below(shared, "d/new/deep"))
    with open(below(shared, "d/new/deep/x"), "w", encoding="ascii") as f:
        f.write("x")
    seen_on_the_standby(shared, lambda: (shared.copy / "d" / "new" / "deep" / "x").exists() and not (shared.copy / "d" / "f").exists())


def test_a_file_that_others_replaced(shared):
    with open(below(shared, "d/t"), "w", encoding="ascii") as f:
        f.write("another inode")
    os.rename(below(shared, "d/t"), below(shared, "d/f"))
    seen_on_the_standby(shared, lambda: (shared.copy / "d" / "f").read_text() == "another inode")


def test_our_own_changes_are_no_drift(shared):
    d = shared.dir / "own"
    before = drifts(shared)
    d.mkdir()
    for n in range(20):
        with open(d / f"f{n}", "w", encoding="ascii") as f:
            f.write("x" * n)
        os.chmod(d / f"f{n}", 0o600)
        look(shared)
    for n in range(10):
        os.rename(d / f"f{n}", d / f"g{n}")
        os.link(d / f"g{n}", d / f"h{n}")
        look(shared)
    shutil.rmtree(d)
    look(shared)
    shared.wait()
    assert drifts(shared) == before


def test_a_file_that_others_removed_before_it_was_sent(site):
    """No record ends it, and the standby does not wait for one forever."""
    source = shared_pair(site, bwlimit="2M")
    for name in "first", "second":  # the second waits for the first
        (source.dir / name).write_bytes(os.urandom(3 << 20))
    wait_until((source.copy / "second").exists, "its name is made")
    os.unlink(below(source, "second"))
    os.close(source.below)
    source.wait()
    assert not (source.copy / "second").exists() and (source.copy / "first").stat().st_size == 3 << 20


@contextlib.contextmanager
def looking(path):
    """Somebody goes to path again and again, so that its name is looked up when the kernel's memory of it has run out (a second).
    Only that: attributes of what a held rename moves would be told after it."""
    end = threading.Event()

    def look_at_it():
        while not end.is_set():
            with contextlib.suppress(FileNotFoundError):
                os.close(os.open(path, os.O_PATH | os.O_NOFOLLOW))
    t = threading.Thread(target=look_at_it)
    t.start()
    try:
        yield
    finally:
        end.set()
        t.join()


@pytest.fixture
def held(site):
    """A shared pair with directories d and e, and its Hold as held.hold."""
    holds = []
    source = shared_pair(site, lambda s: holds.append(Hold(site, s)))
    source.hold = holds[0]
    (source.dir / "e").mkdir()
    yield source
    os.close(source.below)


def change(fd, kind):
    if kind == "directory":
        os.mkdir("sub", dir_fd=fd)
    else:
        os.fchmod(fd, 0o604)


def make(path, kind):
    path.mkdir() if kind == "directory" else path.touch()
    return os.open(path, os.O_RDONLY)


def same(source):
    source.wait()
    diff = tree.differences(source.dir, source.copy)
    assert not diff, "\n".join(diff)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_look_that_a_rename_overtakes(held, kind):
    """What a look-up found before a rename of ours is not taken for what is there after it."""
    fd = make(held.dir / "d" / "n", kind)
    with held.hold("fstatat", "n") as lookup, looking(held.dir / "d" / "n"):
        lookup.reached()
        os.rename(held.dir / "d" / "n", held.dir / "e" / "m")
        lookup.release()
    change(fd, kind)
    os.close(fd)
    same(held)


def test_a_look_into_a_rename(held):
    """What a look-up finds of a rename of ours that is not in the journal yet does not make the directory nameless."""
    (held.dir / "d" / "n").mkdir()
    fd = make(held.dir / "e" / "m", "directory")
    with held.hold("renameat2", "m") as rename:
        renamer = threading.Thread(target=os.rename, args=(held.dir / "e" / "m", held.dir / "d" / "n"))
        renamer.start()
        rename.reached()
        with held.hold("fstatat", "n") as lookup, looking(held.dir / "d" / "n"):
            lookup.reached()
            lookup.release()
            for _ in range(100):
                ask_again(held.dir)
            with held.hold("fstatat", "n") as again:
                rename.release()
                renamer.join()
                again.reached()
                change(fd, "directory")
    os.close(fd)
    same(held)


def test_a_file_that_others_replaced_beside_a_change_of_ours_and_a_listing_shows(held):
    """The directory's time is then that of our change: only the file itself tells, and a listing may be the first to see it."""
    (held.dir / "d" / "p").touch()
    look(held)
    held.wait()
    with held.hold("renameat2", "p") as rename:
        renamer = threading.Thread(target=os.rename, args=(held.dir / "d" / "p", held.dir / "d" / "q"))
        renamer.start()
        rename.reached()
        with open(below(held, "d/t"), "w", encoding="ascii") as f:
            f.write("another inode")
        os.rename(below(held, "d/t"), below(held, "d/f"))
        rename.release()
        renamer.join()
    assert sorted(os.listdir(held.dir / "d")) == ["f", "g", "q"]
    held.wait()
    assert (held.copy / "d" / "f").read_text() == "another inode"
    same(held)


def test_what_is_appended_behind_the_bytes_of_others_arrives(shared):
    """The kernel takes the end for where it was; the record tells of where the bytes are."""
    with open(shared.dir / "d" / "large", "wb") as f:
        f.write(b"x" * (4 << 20))
    shared.wait()
    with open(shared.dir / "d" / "large", "ab", buffering=0) as f:
        f.write(b"one ")
        with open(below(shared, "d/large"), "ab", buffering=0) as other:
            other.write(b"o" * 100000)
        f.write(b"two")
    shared.wait()
    assert (shared.copy / "d" / "large").read_bytes()[4 << 20:] == b"one " + b"o" * 100000 + b"two"


def test_a_mapping_beside_a_handle_that_appends(shared):
    with open(shared.dir / "d" / "f", "r+b", buffering=0) as f, open(shared.dir / "d" / "f", "ab", buffering=0) as appends:
        with mmap.mmap(f.fileno(), 3) as m:
            m[0:3] = b"NEW"
            m.flush()
        appends.write(b", and more")
    shared.wait()
    assert (shared.copy / "d" / "f").read_bytes() == b"NEW, and more"


def test_a_handle_that_ceases_to_append_and_begins_again(shared):
    with open(shared.dir / "d" / "f", "ab", buffering=0) as f:
        flags = fcntl.fcntl(f, fcntl.F_GETFL)
        fcntl.fcntl(f, fcntl.F_SETFL, flags & ~os.O_APPEND)
        assert os.pwrite(f.fileno(), b"N", 0) == 1
        fcntl.fcntl(f, fcntl.F_SETFL, flags)
        assert os.pwrite(f.fileno(), b"!", 0) == 1
    with open(shared.dir / "d" / "f", "r+b", buffering=0) as f:
        fcntl.fcntl(f, fcntl.F_SETFL, os.O_APPEND)
        with open(below(shared, "d/f"), "ab", buffering=0) as other:
            other.write(b"?")
        f.write(b".")
    shared.wait()
    assert (shared.copy / "d" / "f").read_bytes() == b"Nld!?."
