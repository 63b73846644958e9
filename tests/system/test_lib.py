# SPDX-License-Identifier: BSD-2-Clause
"""The judge is judged: the comparison sees every kind of difference, and nothing where there is none."""
import os
import socket
import stat
import subprocess
import threading

import pytest

from lib import syscalls, tree
from lib.proxy import Proxy
from lib.workload import Workload


@pytest.fixture
def twins(tmp_path):
    """Two equal trees."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    (a / "dir").mkdir()
    (a / "dir" / "file").write_bytes(bytes(range(256)) * 100)
    os.link(a / "dir" / "file", a / "second")
    (a / "single").write_text("x")
    os.symlink("target", a / "link")
    os.mkfifo(a / "fifo")
    with open(a / "sparse", "wb") as f:
        f.truncate(64 << 20)
    subprocess.run(["cp", "-a", a, b], check=True)
    assert tree.differences(a, b) == []
    return a, b


def rewrite_link(b):
    st = os.lstat(b / "link")
    os.unlink(b / "link")
    os.symlink("tarGet", b / "link")
    os.utime(b / "link", ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


def split_link(b):
    st = (b / "second").stat()
    data = (b / "second").read_bytes()
    os.unlink(b / "second")
    (b / "second").write_bytes(data)
    os.utime(b / "second", ns=(st.st_atime_ns, st.st_mtime_ns))


def flip_byte(b):
    st = (b / "single").stat()
    (b / "single").write_text("y")
    os.utime(b / "single", ns=(st.st_atime_ns, st.st_mtime_ns))


def fill_hole(b):
    st = (b / "sparse").stat()
    with open(b / "sparse", "r+b") as f:
        syscalls.fallocate(f.fileno(), 0, 0, 64 << 20)
    os.utime(b / "sparse", ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize("change, expect", [
    (lambda b: os.unlink(b / "fifo"), "fifo: missing in the copy"),
    (lambda b: (b / "extra").touch(), "extra: only in the copy"),
    (lambda b: os.chmod(b / "dir", 0o700), "dir: mode"),
    (lambda b: os.utime(b / "single", ns=(0, (b / "single").stat().st_mtime_ns + 1)), "single: mtime"),
    (lambda b: os.utime(b / "dir", ns=(0, 1)), "dir: mtime"),
    (lambda b: os.utime(b, ns=(0, 1)), ".: mtime"),
    (lambda b: os.setxattr(b / "single", "user.x", b""), "single: xattrs"),
    (lambda b: os.truncate(b / "single", 5), "single: size"),
    (flip_byte, "single: bytes differ, 1 in all; offset 0 to 0"),
    (rewrite_link, "link: link target"),
    (split_link, "dir/file: 2 names are one file"),
    (fill_hole, "sparse: holes lost"),
])
def test_difference_is_seen(twins, change, expect):
    change(twins[1])
    found = tree.differences(*twins)
    assert any(line.startswith(expect) for line in found), found


@pytest.mark.root
def test_owner_and_device_are_compared(twins):
    a, b = twins
    os.chown(b / "single", 1, 2)
    for d, number in ((a, 3), (b, 4)):
        os.mknod(d / "device", stat.S_IFCHR | 0o600, os.makedev(1, number))
    found = tree.differences(a, b, dir_mtime=False)
    assert any("single: owner" in x for x in found) and any("device: device" in x for x in found), found
    assert not any("owner" in x for x in tree.differences(a, b, owners=False))


def test_state_directory_is_left_out_at_the_top_only(twins):
    a, b = twins
    mtime = b.stat().st_mtime_ns
    (b / ".tandem").mkdir()
    os.utime(b, ns=(0, mtime))
    assert tree.differences(a, b) == []
    (b / "dir" / ".tandem").mkdir()
    assert any("dir/.tandem" in x for x in tree.differences(a, b))


def test_workload_works_on_a_plain_directory(tmp_path):
    load = Workload(tmp_path, seed=1, ops=2000).run()
    assert len(load.done) > 30


def test_proxy_counts_cuts_and_flips():
    server = socket.create_server(("127.0.0.1", 0))

    def echo():
        while True:
            c, _ = server.accept()
            try:
                while data := c.recv(1000):
                    c.sendall(data)
            except OSError:
                pass
    threading.Thread(target=echo, daemon=True).start()
    with Proxy(server.getsockname()[1]) as net:
        c = socket.create_connection(("127.0.0.1", net.port))
        c.sendall(b"a" * 100)
        assert c.recv(100, socket.MSG_WAITALL) == b"a" * 100
        net.flip_at(3)
        c.sendall(b"a" * 10)
        assert sum(x != ord("a") for x in c.recv(10, socket.MSG_WAITALL)) == 1
        net.cut()
        with pytest.raises(ConnectionResetError):
            c.recv(1)
        net.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", net.port))
        net.open()
        socket.create_connection(("127.0.0.1", net.port)).close()
