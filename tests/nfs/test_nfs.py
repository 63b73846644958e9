# SPDX-License-Identifier: BSD-2-Clause
"""The mirror of a directory on NFS; the standby is on a local disk. guest.sh mounts one version of NFS after the other."""
import contextlib
import errno
import fcntl
import json
import mmap
import os
import pathlib
import stat
import subprocess
import threading

import pytest

from lib import tree
from lib.wait import Timeout, wait_until
from lib.workload import Workload

VERSION = os.environ["NFS_VERSION"]
WATCH = pathlib.Path("/mnt/watch")  # another client's mount of the same export
SERVED = pathlib.Path("/srv/nfs")  # what the server exports
SERVER = pathlib.Path(__file__).with_name("server.sh")
SEED = {"4.2": 1, "4.0": 2, "3": 3}[VERSION]
# 4.2 does everything, the others what depends on the version: software emulation is slow
first = pytest.mark.skipif(VERSION != "4.2", reason="done with NFS 4.2")


def below(pair, root=SERVED):
    """The source's directory without our mount, as the server (or another client) has it."""
    return root / pair.dir.relative_to(os.environ["TANDEM_SOURCES"])


def kept(pair):
    """What NFS keeps of removed files. It may forget some: when a listing races with the last close, the client does not remove the name."""
    return [name for _, _, files in os.walk(below(pair)) for name in files if name.startswith(".nfs")]


def served_same(pair):
    """The standby has what the server has, not only what the mount shows. When NFS removes what it kept of a file, the times of the
    directory change once more, and so they do on the standby."""
    def same():
        pair.same()
        tree.assert_same(below(pair), pair.copy, exclude=kept(pair))
        return True
    pair.source.wait()
    wait_until(same, "the same on the server and on the standby", step=1)


def numbers_are_in_order(pair):
    """No record gives a number that a record before it gave and none took back."""
    pair.source.wait()
    alive, name = {}, {}
    for line in pair.source.ctl("journal", "m", "--json").stdout.splitlines():
        e = json.loads(line)
        if e["event"] in ("CREATE", "MKDIR"):
            assert e["ino"] not in alive, f"{e} while that is the number of {alive[e['ino']]}"
            alive[e["ino"]] = e
            name[e["path"]] = e["ino"]
        elif e["event"] == "RMDIR" or e["event"] == "UNLINK" and e["links"] == 0:
            alive.pop(e["ino"], None)
            name.pop(e["path"], None)
        elif e["event"] == "RENAME":
            alive.pop(name.pop(e["path2"], None), None)
            name[e["path2"]] = name.pop(e["path"], None)


@first
def test_directory_is_recognised_as_remote(pair):
    pair.source.stop()  # a mount hides from doctor what is below it
    assert "is on NFS" in pair.source.ctl("doctor").stdout


def test_names(pair):
    """Create, append, rename, link, unlink, symlink, mknod."""
    d = pair.dir
    (d / "sub" / "deep").mkdir(parents=True)
    (d / "sub" / "f").write_bytes(b"x" * 100000)
    with open(d / "sub" / "f", "ab") as f:
        f.write(b"appended")
    os.link(d / "sub" / "f", d / "link")
    os.rename(d / "sub", d / "moved")
    os.symlink("moved/f", d / "symbolic")
    os.mkfifo(d / "fifo")
    (d / "gone").write_text("x")
    os.unlink(d / "gone")
    (d / "old").write_text("old")
    (d / "new").write_text("new")
    os.rename(d / "new", d / "old")
    assert (d / "link").stat().st_ino == (d / "moved" / "f").stat().st_ino and (d / "link").stat().st_nlink == 2
    served_same(pair)


def test_attributes(pair):
    f = pair.dir / "f"
    f.write_text("x")
    f.chmod(0o640)
    os.chown(f, 1234, 5678)
    os.utime(f, ns=(1_000_000_001, 1_234_567_890_123_456_789))
    (pair.dir / "d").mkdir()
    (pair.dir / "d").chmod(0o2775)
    os.utime(pair.dir / "d", ns=(5, 1_500_000_000_000_000_001))
    os.mknod(pair.dir / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(pair.dir / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (pair.dir / "socket").chmod(0o1644)
    (pair.dir / "device").chmod(0o660)
    assert f.stat().st_mtime_ns == 1_234_567_890_123_456_789
    served_same(pair)


def test_another_users_file(pair):
    """Whether the group may is asked of the ACL, which NFSv4 does not have."""
    f = pair.dir / "f"
    f.write_text("x")
    os.chown(f, 1234, 5678)
    f.chmod(0o640)
    pair.dir.chmod(0o755)

    def reads(gid):
        return subprocess.run(["cat", str(f)], user=4321, group=gid, extra_groups=[], capture_output=True, check=False).returncode == 0
    assert f.read_text() == "x" and reads(5678) and not reads(8765)


def test_extended_attributes(pair):
    f = pair.dir / "f"
    f.write_text("x")
    if VERSION == "4.2":
        os.setxattr(f, "user.name", b"value")
        assert os.getxattr(f, "user.name") == b"value"
    else:
        with pytest.raises(OSError) as e:
            os.setxattr(f, "user.name", b"value")
        assert e.value.errno == errno.EOPNOTSUPP
    served_same(pair)


@first
def test_mapped_stores(pair):
    (pair.dir / "f").write_bytes(bytes(20000))
    with open(pair.dir / "f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[5000:5005] = b"store"
        m[19995:] = b"store"
    served_same(pair)


@first
def test_locks(pair):
    (pair.dir / "f").touch()
    with open(pair.dir / "f", "r+b") as f, open(pair.dir / "f", "r+b") as g:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(f, fcntl.LOCK_UN)
        fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_removed_file_that_is_open(pair):
    """NFS keeps it under another name (.nfsXXXX) until it is closed: neither the mount nor the standby ever shows that."""
    with open(pair.dir / "f", "w+b") as f:
        f.write(b"x" * 10000)
        f.flush()
        os.unlink(pair.dir / "f")
        f.write(b"y")
        f.seek(0)
        assert f.read() == b"x" * 10000 + b"y"
        assert list(below(pair).glob(".nfs*")), "NFS has become better: this test can go"
        assert os.listdir(pair.dir) == []
        assert pair.source.ctl("resync", pair.source.name).returncode == 0
        pair.source.wait()
        assert [n for n in os.listdir(pair.copy) if n != ".tandem"] == []
    wait_until(lambda: not kept(pair), "the file's end")
    served_same(pair)


@first
def test_removed_trees(pair):
    """Removed at once, although the descriptors that we hold would make NFS keep the files."""
    for number in range(2):
        top = pair.dir / f"{number}"
        for d in range(2):
            (top / f"{d}").mkdir(parents=True)
            for n in range(10):
                (top / f"{d}" / f"{n}").write_text(f"{n}")
        subprocess.run(["rm", "-r", str(top)], check=True)
    (pair.dir / "a").write_text("a")
    for n in range(20):
        (pair.dir / "b").write_text(f"{n}")
        os.rename(pair.dir / "b", pair.dir / "a")
    wait_until(lambda: not kept(pair), "the end of what NFS kept")
    served_same(pair)


@first
def test_data_is_on_the_server_after_close(pair):
    (pair.dir / "f").write_bytes(b"z" * 300000)
    assert (below(pair) / "f").read_bytes() == b"z" * 300000


def test_random_operations(pair):
    load = Workload(pair.dir, seed=SEED, ops=300).run()
    served_same(pair)
    assert load.total() > 75
    pair.source.stop()
    tree.assert_same(pair.dir, pair.copy)


def remove_and_make(remove, make):
    """Both at once, in four threads each."""
    threads = [threading.Thread(target=f, args=(who,)) for who in range(4) for f in (remove, make)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


@first
def test_a_number_that_is_used_again(pair):
    """The server gives the number of a removed file to the next one at once: its records come behind those of the removed one."""
    def remove(who):
        for number in range(60):
            (near / f"r{who}" / str(number)).unlink()

    def make(who):
        for number in range(60):
            (near / f"m{who}" / str(number)).write_bytes(b"x" * number)
    near = pair.dir / "near"  # ext4 takes the numbers of these directories' files from one place
    for who in range(4):
        (near / f"m{who}").mkdir(parents=True)
        (near / f"r{who}").mkdir()
        for number in range(60):
            (near / f"r{who}" / str(number)).touch()
    remove_and_make(remove, make)
    served_same(pair)
    numbers_are_in_order(pair)


@first
@pytest.mark.parametrize("how", ["rmdir", "replace"])
def test_a_number_of_a_directory_that_is_used_again(pair, how):
    """A descriptor of a directory does not hold its number on the server."""
    def remove(who):
        for number in range(60):
            if how == "rmdir":
                (near / f"r{who}" / str(number)).rmdir()
            else:
                os.rename(near / f"s{who}" / str(number), near / f"r{who}" / str(number))

    def make(who):
        for number in range(60):
            (near / f"m{who}" / str(number)).write_bytes(b"x" * number)
    near = pair.dir / "near"
    for who in range(4):
        (near / f"m{who}").mkdir(parents=True)
        for number in range(60):
            (near / f"r{who}" / str(number)).mkdir(parents=True)
            if how == "replace":
                (near / f"s{who}" / str(number)).mkdir(parents=True)
    remove_and_make(remove, make)
    served_same(pair)
    numbers_are_in_order(pair)


def test_server_restarts(pair):
    """The server goes away and comes back in the middle: calls wait, nothing fails, the standby gets everything."""
    with subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        # Made before the load: a child of a process that has files open on the mount closes them, and waits there for a write that waits for the server.
        def run(command):
            shell.stdin.write(f"({command}) >&2; echo $?\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == "0\n", command

        def restart():
            # One command: a thread of the load that waits for a page of a mapping holds Python's lock until the server is there again.
            run(f"{SERVER} stop; sleep 1; {SERVER} start")
        load = Workload(pair.dir, seed=7, ops=None, threads=3).start()
        load.wait_ops(60)
        restart()
        try:
            load.wait_ops(60, 30)
        except Timeout:  # once in seven runs Linux 6.1, serving its own client, ran and answered nobody
            run("ps axH -o pid,stat,wchan:30,args; dmesg | tail -n 100")
            restart()
            load.wait_ops(60)
    load.stop().check()
    served_same(pair)


@contextlib.contextmanager
def exported(directory, version, where):
    """A client's mount of an export of directory, without caches."""
    name = f"127.0.0.1:{directory}"
    subprocess.run(["exportfs", "-o", "rw,no_root_squash,no_subtree_check,insecure,fsid=7", name], check=True)
    try:
        subprocess.run(["mount", "-t", "nfs", "-o", f"vers={version},noac,lookupcache=none", name, str(where)], check=True)
        try:
            yield where
        finally:
            subprocess.run(["umount", "-f", str(where)], check=True)
    finally:
        subprocess.run(["exportfs", "-u", name], check=True)
        subprocess.run(["exportfs", "-f"], check=True)


def forget():
    """The server's kernel forgets what it knows of files, and so does the mount, unless nfs export = yes."""
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


@first
@pytest.mark.parametrize("version", ["4.2", "3"])
def test_export_of_the_mount(pair_with, monkeypatch, tmp_path, version):
    """The mount itself, over a local directory, is exported: a client works in it, and its handles outlive the server's caches."""
    monkeypatch.delenv("TANDEM_SOURCES")
    pair = pair_with(source={"nfs_export": "yes"})
    with exported(pair.dir, version, tmp_path) as client:
        (client / "a" / "b" / "c").mkdir(parents=True)
        (client / "a" / "f").write_bytes(b"x" * 100000)
        os.link(client / "a" / "f", client / "a" / "b" / "link")
        os.symlink("../f", client / "a" / "b" / "symbolic")
        os.rename(client / "a" / "b" / "c", client / "a" / "d")
        names = {f"{n:04}" for n in range(300)}
        for n in names:
            (client / "a" / "d" / n).touch()
        assert set(os.listdir(client / "a" / "d")) == names, "a listing in several pieces"
        with open(client / "a" / "d" / "0001", "r+b") as f:
            here = os.open(client / "a" / "d", os.O_RDONLY)
            forget()
            assert os.stat("..", dir_fd=here).st_ino == (pair.dir / "a").stat().st_ino
            assert os.stat("../..", dir_fd=here).st_ino == pair.dir.stat().st_ino
            f.write(b"later")
            os.fsync(f.fileno())
            forget()
            os.rename("0002", "../renamed", src_dir_fd=here, dst_dir_fd=here)
            assert set(os.listdir(here)) == names - {"0002"}
            os.close(here)
        assert (client / "a" / "d" / "0001").read_bytes() == b"later"
        assert (client / "a" / "b" / "symbolic").read_bytes() == b"x" * 100000
        (client / "a" / "f").unlink()
        assert os.listdir(client) == ["a"]
    pair.same()
    assert (pair.copy / "a" / "d" / "0001").read_bytes() == b"later"


@first
def test_inotify_of_another_client_sees_nothing(pair):
    """What the mirror is for: a watcher on another client of the same export hears nothing, the standby has everything."""
    other = below(pair, WATCH)
    out = pair.site.dir / "inotify"
    with open(out, "wb") as log, subprocess.Popen(["inotifywait", "-m", "-r", str(other)], stdout=log, stderr=subprocess.STDOUT) as watcher:
        try:
            wait_until(lambda: b"Watches established" in out.read_bytes(), "the watches")
            quiet = out.read_bytes()
            for n in range(20):
                (pair.dir / f"f{n}").write_text(f"{n}")
            os.rename(pair.dir / "f0", pair.dir / "renamed")
            os.unlink(pair.dir / "f1")
            pair.source.wait()
            assert (pair.copy / "renamed").read_text() == "0" and len(list(pair.copy.glob("f*"))) == 18
            assert out.read_bytes() == quiet, "inotify noticed"
            (other / "own").touch()  # it does hear of what its own host does
            wait_until(lambda: b"own" in out.read_bytes(), "an event of the watcher's own host")
            (other / "own").unlink()
        finally:
            watcher.terminate()
