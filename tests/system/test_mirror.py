# SPDX-License-Identifier: BSD-2-Clause
"""One change at the source, the same change at the standby."""
import errno
import fcntl
import json
import mmap
import os
import shutil
import socket
import stat
import subprocess

import pytest

from lib import syscalls, tree
from lib.proxy import Proxy
from lib.wait import wait_until
from lib.workload import acl

CAPABILITIES = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep


@pytest.mark.smoke
def test_write_a_file(pair):
    (pair.dir / "file").write_bytes(b"hello\n" * 1000)
    wait_until(lambda: (pair.copy / "file").read_bytes() == b"hello\n" * 1000, "the file on the standby", 10)
    pair.same()


def test_empty_file_and_directory(pair):
    (pair.dir / "empty").touch()
    (pair.dir / "dir").mkdir()
    (pair.dir / "dir" / "sub").mkdir()
    pair.same()


def test_overwrite(pair):
    (pair.dir / "file").write_bytes(b"a" * 100000)
    pair.source.wait()
    with open(pair.dir / "file", "r+b") as f:
        f.seek(5000)
        f.write(b"B" * 10)
    pair.same()


def test_append(pair):
    for i in range(5):
        with open(pair.dir / "log", "ab") as f:
            f.write(b"line %d\n" % i)
    pair.same()
    assert (pair.copy / "log").read_bytes().count(b"\n") == 5


@pytest.mark.parametrize("size", [0, 1, 4095, 50000, 200000])
def test_truncate(pair, size):
    (pair.dir / "file").write_bytes(os.urandom(100000))
    pair.source.wait()
    os.truncate(pair.dir / "file", size)
    pair.same()


@pytest.mark.smoke
def test_rename_file(pair):
    (pair.dir / "a").write_text("content")
    pair.source.wait()
    os.rename(pair.dir / "a", pair.dir / "b")
    pair.same()
    assert not (pair.copy / "a").exists() and (pair.copy / "b").read_text() == "content"


def test_rename_over(pair):
    (pair.dir / "old").write_text("old")
    (pair.dir / "new").write_text("new")
    pair.source.wait()
    os.rename(pair.dir / "new", pair.dir / "old")
    pair.same()


def test_rename_before_it_was_sent(pair):
    for i in range(50):
        (pair.dir / f"t{i}").write_text(f"{i}")
        os.rename(pair.dir / f"t{i}", pair.dir / f"final{i % 7}")
    pair.same()


def test_rename_exchange(pair):
    (pair.dir / "dir").mkdir()
    (pair.dir / "dir" / "x").write_text("x")
    (pair.dir / "file").write_text("file")
    pair.source.wait()
    syscalls.renameat2(pair.dir / "dir", pair.dir / "file", syscalls.RENAME_EXCHANGE)
    pair.same()
    assert (pair.copy / "file" / "x").read_text() == "x"


def test_what_is_exchanged_does_not_overtake_its_bytes(pair):
    (pair.dir / "a").write_text("old")
    (pair.dir / "b").touch()
    with open(pair.dir / "b", "w", encoding="ascii") as f:
        f.write("new, complete")
        f.flush()
        syscalls.renameat2(pair.dir / "a", pair.dir / "b", syscalls.RENAME_EXCHANGE)
        records = [json.loads(line) for line in pair.source.ctl("journal", "m", "--json").stdout.splitlines()]
    assert [r["event"] for r in records[-2:]] == ["MODIFY", "EXCHANGE"]
    pair.same()


def test_rename_noreplace_refuses(pair):
    (pair.dir / "a").touch()
    (pair.dir / "b").touch()
    with pytest.raises(FileExistsError):
        syscalls.renameat2(pair.dir / "a", pair.dir / "b", syscalls.RENAME_NOREPLACE)
    pair.same()


@pytest.mark.root
def test_rename_that_fails_to_leave_a_whiteout(pair):
    """On ext4 the directory has another modification time all the same."""
    (pair.dir / "from").mkdir()
    (pair.dir / "over" / "full").mkdir(parents=True)
    (pair.dir / "from" / "x").mkdir()
    os.utime(pair.dir / "from", (1, 1))
    pair.source.wait()
    with pytest.raises(OSError) as e:
        syscalls.renameat2(pair.dir / "from" / "x", pair.dir / "over", syscalls.RENAME_WHITEOUT)
    assert e.value.errno == errno.ENOTEMPTY
    pair.same()


@pytest.mark.smoke
def test_delete(pair):
    (pair.dir / "dir").mkdir()
    (pair.dir / "dir" / "file").write_text("x")
    pair.source.wait()
    os.unlink(pair.dir / "dir" / "file")
    os.rmdir(pair.dir / "dir")
    pair.same()
    assert sorted(os.listdir(pair.copy)) == [".tandem"]


@pytest.mark.root
def test_attributes(pair):
    f = pair.dir / "file"
    f.write_text("x")
    (pair.dir / "dir").mkdir()
    os.chown(f, 1234, 5678)
    os.chmod(f, 0o4751)
    os.utime(f, ns=(1, 1_234_567_890_123_456_789))
    os.chmod(pair.dir / "dir", 0o3775)
    os.utime(pair.dir / "dir", ns=(1, 987_654_321_012_345_678))
    pair.same()
    st = (pair.copy / "file").stat()
    assert (st.st_uid, st.st_gid, st.st_mtime_ns) == (1234, 5678, 1_234_567_890_123_456_789)
    assert stat.S_IMODE(st.st_mode) == 0o4751


@pytest.mark.root
def test_write_clears_suid(pair):
    f = pair.dir / "file"
    f.write_text("x")
    os.chown(f, 1000, 1000)
    os.chmod(f, 0o6777)
    pair.source.wait()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(1000)
        os.setuid(1001)
        fd = os.open(f, os.O_WRONLY)
        os.write(fd, b"y")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert stat.S_IMODE(f.stat().st_mode) == 0o777
    pair.same()


def test_root_directory_attributes(pair):
    os.chmod(pair.dir, 0o2751)
    os.utime(pair.dir, ns=(1, 1_000_000_000_000_000_001))
    pair.same()


def test_symlinks(pair):
    os.symlink("target", pair.dir / "relative")
    os.symlink("/etc/passwd", pair.dir / "absolute")
    os.symlink("x" * 4000, pair.dir / "long")
    os.utime(pair.dir / "relative", ns=(5, 1_600_000_000_000_000_005), follow_symlinks=False)
    pair.same()
    assert os.readlink(pair.copy / "absolute") == "/etc/passwd"


@pytest.mark.root
def test_xattrs_and_acls(pair):
    f = pair.dir / "file"
    f.write_text("x")
    (pair.dir / "dir").mkdir()
    os.setxattr(f, "user.name", b"value\0with zero")
    os.setxattr(f, "user.empty", b"")
    os.setxattr(f, "trusted.secret", os.urandom(1000))
    os.setxattr(f, "system.posix_acl_access", acl(users={1000: 5}))
    os.setxattr(pair.dir / "dir", "system.posix_acl_default", acl(users={1000: 7}))
    pair.same()
    os.removexattr(f, "user.name")
    os.setxattr(f, "user.empty", b"no more", os.XATTR_REPLACE)
    pair.same()
    assert tree.xattrs(pair.copy / "file").keys() == {"user.empty", "trusted.secret", "system.posix_acl_access"}


def store(path):
    """Stores through a mapping leave file capabilities as they are."""
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[5000:5007] = b"changed"
        m.flush()


def overwrite(path):
    """So much that it is sent behind the record that gives the file its capabilities back."""
    with open(path, "r+b") as f:
        f.write(os.urandom(600 << 10))
    os.setxattr(path, "security.capability", CAPABILITIES)


@pytest.mark.root
@pytest.mark.parametrize("change", [store, overwrite])
@pytest.mark.parametrize("names", [1, 2])
def test_file_capabilities_of_what_is_changed_in_place(pair, change, names):
    f = pair.dir / "file"
    f.write_bytes(os.urandom(3 << 20))
    if names > 1:
        os.link(f, pair.dir / "link")
    os.setxattr(f, "security.capability", CAPABILITIES)
    pair.same()
    assert pair.source.ctl("pause", "m").returncode == 0
    change(f)
    assert pair.source.ctl("resume", "m").returncode == 0
    pair.same()
    assert "security.capability" in tree.xattrs(pair.copy / "file")


@pytest.mark.root
def test_default_acl_is_inherited(pair):
    (pair.dir / "dir").mkdir()
    os.setxattr(pair.dir / "dir", "system.posix_acl_default", acl(users={1000: 7}))
    (pair.dir / "dir" / "file").write_text("x")
    (pair.dir / "dir" / "sub").mkdir()
    assert "system.posix_acl_access" in tree.xattrs(pair.dir / "dir" / "file")
    pair.same()


@pytest.mark.root
def test_special_files(pair):
    os.mkfifo(pair.dir / "fifo", 0o640)
    os.mknod(pair.dir / "char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(pair.dir / "block", stat.S_IFBLK | 0o600, os.makedev(200, 17))
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(pair.dir / "socket"))
    os.utime(pair.dir / "fifo", ns=(1, 1_500_000_000_000_000_007))
    pair.same()


def test_hard_links(pair):
    (pair.dir / "a").write_bytes(os.urandom(10000))
    (pair.dir / "sub").mkdir()
    os.link(pair.dir / "a", pair.dir / "sub" / "b")
    pair.same()
    with open(pair.dir / "sub" / "b", "r+b") as f:
        f.write(b"through the second name")
    pair.same()
    assert (pair.copy / "a").samefile(pair.copy / "sub" / "b")
    assert (pair.copy / "a").read_bytes().startswith(b"through the second name")


def test_hard_link_survives_its_first_name(pair):
    (pair.dir / "a").write_text("one")
    os.link(pair.dir / "a", pair.dir / "b")
    with open(pair.dir / "a", "w", encoding="ascii") as f:
        f.write("two, under a name that goes away")
        f.flush()
        os.unlink(pair.dir / "a")
    pair.same()
    assert (pair.copy / "b").read_text() == "two, under a name that goes away"


def test_a_file_of_which_no_name_is_known_gets_one(pair):
    """The mount was told of one name, which is gone; the new one is of the same file as the one that it was not told of."""
    (pair.dir / "a").write_text("one")
    os.link(pair.dir / "a", pair.dir / "b")
    (pair.dir / "sub").mkdir()
    pair.same()
    pair.source.stop()
    pair.source.start()
    with open(pair.dir / "a", "r+", encoding="ascii") as f:
        os.unlink(pair.dir / "a")
        syscalls.link_fd(f.fileno(), pair.dir / "sub" / "c")
        f.write("two")
    pair.same()
    assert (pair.copy / "b").samefile(pair.copy / "sub" / "c")


def keep_busy(path):
    """Records that take a second with bwlimit 300K: what was sent before them has been answered when they are sent."""
    path.touch()
    for _ in range(100):
        os.setxattr(path, "user.x", os.urandom(3000))


def test_a_name_goes_away_while_its_bytes_wait_for_the_comparison(pair_with):
    """The bytes cannot be written under the name that the standby has lost; the one that is left has an older version of them."""
    pair = pair_with(source={"bwlimit": "300K"})  # the failure is known before the last record is sent
    (pair.dir / "a").write_bytes(os.urandom(70000))
    os.link(pair.dir / "a", pair.dir / "b")
    pair.source.wait()
    assert pair.source.ctl("pause", "m").returncode == 0
    (pair.copy / "b").unlink()
    with open(pair.dir / "b", "r+b") as f:
        f.seek(50000)
        f.write(b"changed")
    keep_busy(pair.dir / "other")
    (pair.dir / "b").unlink()
    assert pair.source.ctl("resume", "m").returncode == 0
    pair.same()


def test_big_file(pair):
    block = os.urandom(1 << 20)
    with open(pair.dir / "big", "wb") as f:
        for i in range(64):
            f.write(i.to_bytes(8, "little") + block[8:])
    pair.same()
    with open(pair.dir / "big", "r+b") as f:
        for at in (0, 12345678, 60 << 20):
            f.seek(at)
            f.write(b"changed")
    pair.same()


def test_sparse_file(pair):
    with open(pair.dir / "sparse", "wb") as f:
        f.seek(100 << 20)
        f.write(b"in the middle")
        f.truncate(300 << 20)
    pair.same()
    assert (pair.copy / "sparse").stat().st_blocks < 2048


def works_below(path, flag):
    """Whether the file system of the standby, which is that of the source, can do it."""
    with open(path, "r+b") as f:
        try:
            syscalls.fallocate(f.fileno(), flag, 0, 0x10000)
        except OSError:
            return False
    return True


@pytest.mark.parametrize("mode", ["PUNCH_HOLE", "ZERO", "COLLAPSE", "INSERT"])
def test_fallocate(pair, mode):
    flag = getattr(syscalls, "FALLOC_" + mode) | (syscalls.FALLOC_KEEP_SIZE if mode == "PUNCH_HOLE" else 0)
    (pair.dir / "file").write_bytes(os.urandom(1 << 20))
    pair.source.wait()
    fd = os.open(pair.dir / "file", os.O_RDWR)
    try:
        syscalls.fallocate(fd, flag, 64 << 10, 128 << 10)
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP
        assert mode in ("COLLAPSE", "INSERT") or not works_below(pair.copy / "file", flag), "kernels may lack these two in FUSE"
    os.close(fd)
    pair.same()


def test_preallocation_keeps_the_size(pair):
    (pair.dir / "file").write_bytes(b"x" * 1000)
    fd = os.open(pair.dir / "file", os.O_RDWR)
    syscalls.fallocate(fd, syscalls.FALLOC_KEEP_SIZE, 0, 1 << 20)
    syscalls.fallocate(fd, 0, 0, 5000)
    os.close(fd)
    pair.same()
    assert (pair.copy / "file").stat().st_size == 5000


def test_preallocation_changes_mtime(pair):
    (pair.dir / "file").write_bytes(b"x" * 1000)
    for at in (0, 500, 1000, 5000):
        pair.source.wait()
        with open(pair.dir / "file", "r+b") as f:
            syscalls.fallocate(f.fileno(), syscalls.FALLOC_KEEP_SIZE, at, 100)
        pair.same()


def test_mmap_store(pair):
    (pair.dir / "file").write_bytes(bytes(50000))
    pair.source.wait()
    with open(pair.dir / "file", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[20000:20005] = b"store"
    pair.same()
    assert (pair.copy / "file").read_bytes()[20000:20005] == b"store"


def test_mmap_store_after_close(pair):
    (pair.dir / "file").write_bytes(bytes(50000))
    with open(pair.dir / "file", "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
    pair.source.wait()
    m[30000:30004] = b"late"
    m.flush()
    wait_until(lambda: (pair.copy / "file").read_bytes()[30000:30004] == b"late", "the store of a mapping without descriptor")
    m.close()
    pair.same()


def test_copy_file_range(pair):
    (pair.dir / "a").write_bytes(os.urandom(3 << 20))
    with open(pair.dir / "a", "rb") as src, open(pair.dir / "b", "wb") as dst:
        left = 3 << 20
        while left:
            left -= os.copy_file_range(src.fileno(), dst.fileno(), left)
    pair.same()


def test_open_file_arrives_with_fsync(pair):
    with open(pair.dir / "db", "wb", buffering=0) as f:
        for i in range(3):
            f.write(b"%d" % i * 4096)
            os.fsync(f.fileno())
            wait_until(lambda n=i: (pair.copy / "db").read_bytes()[n * 4096:] == b"%d" % n * 4096, f"block {i} before close", 10)
    pair.same()


def test_open_file_arrives_without_fsync(pair):
    with open(pair.dir / "log", "ab", buffering=0) as f:
        f.write(b"a line\n")
        wait_until(lambda: (pair.copy / "log").read_bytes() == b"a line\n", "the line before close", 10)
        f.write(b"another\n")
        wait_until(lambda: (pair.copy / "log").read_bytes() == b"a line\nanother\n", "the second line before close", 10)
    pair.same()


def test_wait_covers_open_files(pair):
    with open(pair.dir / "open", "wb", buffering=0) as f:
        f.write(b"x" * 10000)
        pair.source.wait()
        assert (pair.copy / "open").read_bytes() == b"x" * 10000


def test_unlinked_while_open(pair):
    with open(pair.dir / "gone", "wb", buffering=0) as f:
        f.write(b"x" * 100000)
        os.unlink(pair.dir / "gone")
        f.write(b"y" * 100000)
        f.seek(0)
        os.fsync(f.fileno())
    pair.same()


@pytest.mark.root
def test_tmpfile_with_a_name(pair):
    try:
        fd = os.open(pair.dir, os.O_TMPFILE | os.O_RDWR, 0o640)
    except OSError as e:
        assert e.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR), e
        pytest.skip("this libfuse has no O_TMPFILE")
    os.write(fd, b"nameless")
    syscalls.link_fd(fd, pair.dir / "named")
    os.write(fd, b", named")
    os.close(fd)
    pair.same()


def test_directory_rename_is_one_record(pair_with, net):
    pair = pair_with(proxy=net)
    (pair.dir / "d1").mkdir()
    for i in range(200):
        (pair.dir / "d1" / f"{i}").write_bytes(os.urandom(20000))
    pair.source.wait()
    before = net.proxy.up + net.proxy.down
    os.rename(pair.dir / "d1", pair.dir / "d2")
    pair.source.wait()
    sent = net.proxy.up + net.proxy.down - before
    pair.same()
    assert sent < 16 << 10, f"{sent} bytes on the wire for a rename"


def test_small_change_of_a_large_file_is_small(pair_with, net):
    pair = pair_with(proxy=net)
    (pair.dir / "big").write_bytes(os.urandom(32 << 20))
    pair.source.wait()
    before = net.proxy.up + net.proxy.down
    with open(pair.dir / "big", "r+b") as f:
        for at in range(0, 32 << 20, 4 << 20):
            f.seek(at)
            f.write(os.urandom(4096))
    pair.source.wait()
    sent = net.proxy.up + net.proxy.down - before
    pair.same()
    assert sent < 100 << 10, f"{sent} bytes on the wire for 8 changes of 4 KiB"


def test_deep_paths_and_odd_names(pair):
    path = bytes(pair.dir)
    for name in (b"\xff\xfe not utf-8", b"new\nline", b"n" * 255, b"-rf", b"*", b"' \" $x"):
        path += b"/" + name
        os.mkdir(path)
        with open(path + b"/file", "wb") as f:
            f.write(name)
    pair.same()


def test_many_files(pair):
    for d in range(10):
        (pair.dir / f"{d}").mkdir()
        for i in range(100):
            (pair.dir / f"{d}" / f"{i}").write_bytes(b"%d" % i * 100)
    pair.same()


def test_state_directory_is_hidden(pair):
    assert ".tandem" not in os.listdir(pair.dir)
    with pytest.raises(OSError):
        (pair.dir / ".tandem").mkdir()
    assert (pair.copy / ".tandem").is_dir()


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize("change", [lambda p: p.write_bytes(b"changed"), lambda p: p.chmod(0o600), lambda p: os.setxattr(p, "user.name", b"value"),
                                    lambda p: os.utime(p, (5, 5))], ids=["write", "chmod", "setxattr", "utime"])
def test_a_file_that_has_an_excluded_name_too(pair_with, change, remove):
    """Which of its names a record has is chance. What is changed under the excluded one is found under the other."""
    pair = pair_with(source={"exclude": "*.tmp"})
    (pair.dir / "dir").mkdir()
    (pair.dir / "dir" / "file").write_bytes(b"old")
    os.link(pair.dir / "dir" / "file", pair.dir / "file.tmp")
    pair.same(exclude=["file.tmp"])
    assert pair.source.ctl("pause", "m").returncode == 0
    change(pair.dir / "file.tmp")
    if remove:
        (pair.dir / "file.tmp").unlink()
    assert pair.source.ctl("resume", "m").returncode == 0
    pair.same(exclude=["file.tmp"])


def test_a_change_of_a_program_that_runs_on_the_standby(pair):
    """Nobody may write to it there; the running one keeps what it has."""
    program = pair.dir / "program"
    shutil.copy(shutil.which("sleep"), program)
    os.truncate(program, 8 << 20)
    pair.same()
    running = subprocess.Popen([pair.copy / "program", "1000"])
    try:
        with open(program, "r+b") as f:
            f.seek(4 << 20)
            f.write(b"changed")
        pair.same()
    finally:
        running.kill()
        running.wait()


def test_excluded_files_stay_here(pair_with):
    pair = pair_with(source={"exclude": ["*.tmp", "/cache/"]})
    (pair.dir / "a.tmp").write_text("x")
    (pair.dir / "cache").mkdir()
    (pair.dir / "cache" / "y").write_text("y")
    (pair.dir / "kept").write_text("z")
    os.rename(pair.dir / "kept", pair.dir / "kept2")
    pair.source.wait()
    assert sorted(os.listdir(pair.copy)) == [".tandem", "kept2"]


def test_a_file_enters_by_a_rename_from_an_excluded_name(pair_with):
    pair = pair_with(source={"exclude": "*.tmp"})
    (pair.dir / "a.tmp").write_text("content")
    os.rename(pair.dir / "a.tmp", pair.dir / "a")
    pair.same()
    os.rename(pair.dir / "a", pair.dir / "b.tmp")
    pair.source.wait()
    assert not (pair.copy / "a").exists() and not (pair.copy / "b.tmp").exists()


def test_a_directory_leaves_the_place_that_excluded_what_is_in_it(pair_with):
    pair = pair_with(source={"exclude": "cache**old"})
    (pair.dir / "cache").mkdir()
    (pair.dir / "cache" / "old").write_text("content")
    pair.source.wait()
    assert os.listdir(pair.copy / "cache") == []
    os.rename(pair.dir / "cache", pair.dir / "kept")
    pair.same()


def test_deletions_can_be_kept_away(pair_with):
    pair = pair_with(source={"delete": "no"})
    (pair.dir / "file").write_text("x")
    pair.source.wait()
    os.unlink(pair.dir / "file")
    (pair.dir / "other").write_text("y")
    pair.source.wait()
    assert (pair.copy / "file").read_text() == "x" and (pair.copy / "other").read_text() == "y"


@pytest.mark.root
def test_what_the_standby_refuses_is_shown(pair):
    """An attribute that the standby cannot set is an error in status, not a comparison that never ends; later it is set."""
    (pair.dir / "file").touch()
    pair.source.wait()
    if subprocess.run(["chattr", "+i", str(pair.copy / "file")], capture_output=True, check=False).returncode:
        pytest.skip("chattr +i is not possible here")
    try:
        (pair.dir / "file").chmod(0o600)
        pair.source.wait_error("permission|not permitted")
        assert pair.source.status()["state"] == "broken"
    finally:
        subprocess.run(["chattr", "-i", str(pair.copy / "file")], check=True)
    pair.same()


def descend(top, length):
    """Make directories until their path below top is longer than that; returns a descriptor of the last."""
    fd = os.open(top, os.O_RDONLY)
    while length > 0:
        name = "d" * min(250, length)
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        length -= len(name) + 1
    return fd


@pytest.mark.parametrize("change", ["create", "rename", "link", "append", "chmod"])
def test_a_path_that_no_record_can_hold_is_shown(pair, change):
    """Nothing that is deeper than 65000 bytes is left out without a word."""
    name = "n" * 30
    (pair.dir / "file").write_text("x")
    (pair.dir / "dir").mkdir()
    (pair.dir / "dir" / name).touch()
    deep = descend(pair.dir, 64980)
    os.rename(pair.dir / "dir", "dir", dst_dir_fd=deep)
    pair.source.wait()
    at = os.open("dir", os.O_RDONLY, dir_fd=deep)
    if change == "create":
        os.mkdir(name * 2, dir_fd=at)
    elif change == "rename":
        os.rename(pair.dir / "file", name * 2, dst_dir_fd=at)
    elif change == "link":
        os.link(pair.dir / "file", name * 2, dst_dir_fd=at)
    elif change == "append":
        os.close(os.open(name, os.O_WRONLY | os.O_TRUNC, dir_fd=at))
    else:
        os.chmod(name, 0o600, dir_fd=at)
    pair.source.wait_error("too long")
    os.close(at)
    os.close(deep)
    shutil.rmtree(pair.dir / ("d" * 250))
    pair.same()


@pytest.mark.parametrize("method", ["none", "zlib", "zstd"])
def test_compression(pair_with, method):
    pair = pair_with(source={"compress": method})
    (pair.dir / "text").write_bytes(b"the same line again\n" * 50000)
    (pair.dir / "noise").write_bytes(os.urandom(500000))
    pair.same()


def test_bandwidth_limit_below_a_batch(pair_with):
    """A batch is larger than what the limit lets pass at once: that is owed, and paid back."""
    pair = pair_with(source={"bwlimit": "1M"})
    (pair.dir / "file").write_bytes(os.urandom(2 << 20))
    pair.same()


def test_text_is_compressed_on_the_way_to_a_far_standby(site):
    """By default; also where a tunnel ends so near that the kernel takes the peer for near and fast."""
    standby = site.standby().start()
    with Proxy(standby.port) as net:
        net.delay = 0.01
        source = site.source([standby.url(port=net.port)]).start()
        source.wait()
        before = net.up
        text = b"".join(b"%08d the same line again\n" % i for i in range(200000))
        (source.dir / "text").write_bytes(text)
        source.wait()
        assert net.up - before < 0.3 * len(text)
        tree.assert_same(source.dir, standby.dir)
        source.stop()


def test_mount_on_another_directory(site, pair_with):
    where = site.dir / "elsewhere"
    where.mkdir()
    pair = pair_with(source={"mountpoint": where})
    (where / "file").write_text("x")
    pair.source.wait()
    tree.assert_same(where, pair.copy)
    assert (pair.dir / "file").read_text() == "x"


def test_locks(pair):
    (pair.dir / "file").touch()
    with open(pair.dir / "file", "r+b") as a, open(pair.dir / "file", "r+b") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(a, fcntl.LOCK_UN)
        fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_seek_hole_and_data(pair):
    with open(pair.dir / "sparse", "wb") as f:
        f.seek(1 << 20)
        f.write(b"data")
        f.truncate(4 << 20)
    fd = os.open(pair.dir / "sparse", os.O_RDONLY)
    try:
        assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
        assert (1 << 20) < os.lseek(fd, 1 << 20, os.SEEK_HOLE) < 2 << 20
    finally:
        os.close(fd)


def test_latency(pair):
    took = []
    for i in range(30):
        data = os.urandom(4096)
        (pair.dir / f"f{i}").write_bytes(data)
        began = os.times().elapsed
        wait_until(lambda d=data, n=i: (pair.copy / f"f{n}").read_bytes() == d, "the file", 10, step=0.0005)
        took.append(os.times().elapsed - began)
    assert sorted(took)[15] < 0.1, took  # a promise of 5 ms, measured by the benchmark; here only: nothing polls


def test_a_directory_that_the_standby_refuses_is_an_error(pair_with):
    pair = pair_with(module={"exclude": "refused"})
    (pair.dir / "refused").mkdir()
    (pair.dir / "other").write_text("x")
    pair.source.wait_error("refused")
    wait_until((pair.copy / "other").exists, "the other file")
    assert not (pair.copy / "refused").exists()
    (pair.dir / "refused").rmdir()
    pair.same()
