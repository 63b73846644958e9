# SPDX-License-Identifier: BSD-2-Clause
"""Disks that are full, without inodes, read only, broken: applications get what the directory below gives, status names the cause, and
work resumes by itself. Each disk is a file system in a file."""
import errno
import os
import shutil
import subprocess
import sys

import pytest

from lib import tree
from lib.disk import Disk
from lib.syscalls import FALLOC_ZERO, RENAME_EXCHANGE, fallocate, renameat2
from lib.wait import wait_until
from lib.workload import Workload

pytestmark = pytest.mark.root


@pytest.fixture
def disk(request):
    """disk(path, ...) makes and mounts a file system at path."""
    def make(path, *args, **options):
        d = Disk(path, *args, **options)
        request.addfinalizer(d.close)
        return d
    return make


@pytest.fixture
def disk_site(disk, site):
    """The disks go when everything on the site has ended, so they must be there before it: the order of the fixtures."""
    yield site
    site.close(keep=True)


def pair_on(site, make_disk, where, size="192M", limit="1M", **options):
    """A running pair of which one directory is a disk: "state", "source", "standby" or "module state"."""
    standby = site.standby()
    source = site.source([standby.url()], journal_limit=limit)
    if where == "standby":
        d = make_disk(site.dir / "disk", size, **options)
        standby.dir = d.path / "standby"
        standby.module("m", standby.dir)
    elif where == "module state":
        standby.keys["state dir"] = site.dir / "module.state"
        d = make_disk(site.dir / "module.state", size, **options)
    elif where == "source":
        d = make_disk(site.dir / "disk", size, **options)
        source.dir = source.keys["source"] = d.path / "source"
        source.dir.mkdir()
    else:
        d = make_disk(source.state, size, **options)
    standby.start()
    source.start()
    source.wait()
    return source, standby, d


def long_records(source, count):
    """Changes whose records are long, so that the journal grows: 2 of 2.5 KB each."""
    path = source.dir.joinpath(*[c * 250 for c in "abcdefghij"])
    path.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for i in range(count):
        f = os.open(f"f{i % 100}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=fd)
        os.write(f, b"%d" % i)
        os.close(f)
    os.close(fd)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_state_disk_full(disk, disk_site, kind):
    """Where it copies on write, also a store into what is allocated fails."""
    source, standby, d = pair_on(disk_site, disk, "state", kind=kind, size={"ext4": "192M", "xfs": "320M", "btrfs": "384M"}[kind], limit="8M")
    workers = source.mount_pids()
    standby.stop()
    d.fill()
    long_records(source, 2000)
    Workload(source.dir, seed=61, ops=600).run()
    wait_until(lambda: "changes are kept in memory" in source.log(), "the journal says so")
    d.clear()
    wait_until(lambda: "journal: can be written again" in source.log(), "the journal says so")
    standby.start()
    Workload(source.dir, seed=62, ops=300).run()
    source.wait()
    tree.assert_same(source.dir, standby.dir)
    assert source.mount_pids() == workers, "a process died"


def test_state_disk_full_when_the_standby_comes_back(disk, disk_site):
    """It gets what the journal has: nothing that the replicator would like to store there ends it."""
    source, standby, d = pair_on(disk_site, disk, "state", kind="btrfs", size="384M", limit="16M")
    replicators = source.replicators()
    standby.stop()
    long_records(source, 500)
    subprocess.run(["sync", "-f", str(source.state)], check=True)
    d.fill()
    long_records(source, 500)
    standby.start()
    wait_until(lambda: [t["durable"] for t in source.status()["targets"]] == [source.status()["seq"]], lambda: source.log()[-3000:], 40)
    d.clear()
    source.wait()
    assert source.replicators() == replicators, source.log()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_state_disk_full_and_the_worker_killed(disk, disk_site, kind):
    """The mount comes back at once on a full disk too."""
    source, standby, d = pair_on(disk_site, disk, "state", kind=kind, size="384M")
    d.fill()
    for pid in source.mount_pids():
        if pid != source.popen.pid:
            os.kill(pid, 9)
    wait_until(lambda: source.log().count("mounted on") == 2, "a new mount", 10)
    Workload(source.dir, seed=63, ops=400).run()
    d.clear()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_state_disk_full_and_the_worker_killed_at_once(disk, disk_site):
    """What could not be noted in the table of operations in flight is not missing."""
    source, standby, d = pair_on(disk_site, disk, "state", kind="btrfs", size="384M")
    fd = os.open(source.dir / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"old")
    os.fsync(fd)
    source.wait()
    subprocess.run(["sync", "-f", str(source.state)], check=True)
    d.fill()
    subprocess.run(["sync", "-f", str(source.state)], check=True)
    os.pwrite(fd, b"new", 0)
    for pid in source.mount_pids():
        if pid != source.popen.pid:
            os.kill(pid, 9)
    os.close(fd)
    wait_until(lambda: source.log().count("mounted on") == 2, "a new mount", 10)
    d.clear()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_state_disk_smaller_than_the_limit(disk, disk_site):
    """The target is away: the journal gives up its own old records instead of staying without a journal."""
    source, standby, d = pair_on(disk_site, disk, "state", "60M", limit="16M")
    standby.stop()
    long_records(source, 6000)
    wait_until(lambda: "given up" in source.log(), "the disk is full", 20)
    wait_until(lambda: not source.status().get("degraded"), lambda: source.ctl("status", source.name).stdout, 20)
    (source.dir / "after").write_text("x")
    standby.start()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_source_disk_full(disk, disk_site):
    """The application gets ENOSPC, as below; what was written arrives."""
    source, standby, d = pair_on(disk_site, disk, "source", "64M")
    with pytest.raises(OSError) as e:
        with open(source.dir / "big", "wb", buffering=0) as f:
            while True:
                f.write(bytes(1 << 20))
    assert e.value.errno == errno.ENOSPC
    source.wait()
    tree.assert_same(source.dir, standby.dir)
    (source.dir / "big").unlink()
    (source.dir / "small").write_text("x")
    source.wait()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.parametrize("how", [["dd", "if=/dev/zero", "bs=64k"], [sys.executable, "-c", "import os; os.posix_fallocate(1, 0, 50 << 20)"]], ids=["write", "fallocate"])
def test_the_reserve_of_the_source_s_disk(disk, disk_site, how):
    """What ext4 keeps for the superuser is not given to others, whomever the same thread of the mount served before."""
    source, _, d = pair_on(disk_site, disk, "source", "64M", make=["-m", "20"])
    (source.dir / "big").touch()
    for n in range(200):
        (source.dir / f"f{n}").write_text("x")
    with open(source.dir / "big", "wb") as f:
        r = subprocess.run(how, stdout=f, stderr=subprocess.PIPE, user=1000, group=1000, extra_groups=[], text=True, check=False)
    assert r.returncode != 0 and "No space left" in r.stderr
    room = os.statvfs(d.path)
    assert room.f_bfree * room.f_frsize >= 10 << 20
    (source.dir / "ours").write_bytes(bytes(1 << 20))


def preallocate(fd):
    os.posix_fallocate(fd, 0, 1 << 30)


def zero(fd):
    fallocate(fd, FALLOC_ZERO, 0, 1 << 30)


def write_as_another_user(fd):
    os.lseek(fd, 1 << 20, os.SEEK_SET)
    r = subprocess.run(["head", "-c", "10", "/dev/zero"], stdout=fd, stderr=subprocess.DEVNULL, user=1000, group=1000, check=False)
    if r.returncode:
        raise OSError(errno.ENOSPC, "head")


@pytest.mark.parametrize("change, kind", [(preallocate, "ext4"), (zero, "xfs"), (write_as_another_user, "ext4")])
def test_a_change_that_fails_half_way(disk, disk_site, change, kind):
    """ENOSPC comes after size, bytes, mode (the set-id bits) or time have changed: they arrive."""
    source, standby, d = pair_on(disk_site, disk, "source", "512M" if kind == "xfs" else "64M", kind=kind)
    (source.dir / "f").write_bytes(b"x" * 100)
    (source.dir / "f").chmod(0o4755)
    source.wait()
    if change is not preallocate:
        d.fill()
    with open(source.dir / "f", "r+b", buffering=0) as f, pytest.raises(OSError) as e:
        change(f.fileno())
    assert e.value.errno == errno.ENOSPC
    source.wait()
    source.stop()
    tree.assert_same(source.dir, standby.dir)


def test_source_without_inodes(disk, disk_site):
    source, standby, d = pair_on(disk_site, disk, "source", "16M", make=["-N", "200"])
    with pytest.raises(OSError) as e:
        for i in range(1000):
            (source.dir / f"f{i}").touch()
    assert e.value.errno == errno.ENOSPC
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_source_remounted_read_only(disk, disk_site):
    """Nothing of ours keeps a file open for writing there."""
    source, standby, d = pair_on(disk_site, disk, "source", "32M")
    (source.dir / "file").write_text("x")
    source.wait()
    d.break_()
    for change in (lambda: (source.dir / "file").write_text("y"), lambda: os.mkdir(source.dir / "d"), lambda: os.unlink(source.dir / "file")):
        with pytest.raises(OSError) as e:
            change()
        assert e.value.errno in (errno.EIO, errno.EROFS), e.value
    assert (standby.dir / "file").read_text() == "x", "an error at the source deleted something"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_standby_disk_full(disk, disk_site, kind):
    source, standby, d = pair_on(disk_site, disk, "standby", "512M" if kind != "ext4" else "64M", kind=kind)
    (source.dir / "before").write_bytes(os.urandom(100000))
    source.wait()
    d.fill()
    for i in range(20):
        (source.dir / f"f{i}").write_bytes(os.urandom(200000))
    source.wait_error("no space|No space")
    assert source.target()["state"] == "held"
    assert source.ctl("status", source.name).returncode == 2
    Workload(source.dir, seed=64, ops=300).run()
    d.clear()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_with_two_names_waits_whole_for_space(disk, disk_site, kind):
    """It is changed in place. There is room for the new bytes once, in the redo log, and not twice."""
    options = {"size": "512M", "make": ("-m", "reflink=0")} if kind == "xfs" else {"size": "128M"}
    source, standby, d = pair_on(disk_site, disk, "standby", kind=kind, **options)
    old, new = b"old" * 1000, b"new" * (5 << 20)
    (source.dir / "a").write_bytes(old)
    os.link(source.dir / "a", source.dir / "b")
    source.wait()
    d.fill(leave=18 << 20)
    assert source.ctl("pause", source.name).returncode == 0  # on a slow machine the file would stay open so long that a part of it is sent
    with open(source.dir / "a", "r+b") as f:
        f.write(new)
    assert source.ctl("resume", source.name).returncode == 0
    source.wait_error("no space|No space")
    assert (standby.dir / "b").read_bytes() == old
    d.clear()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_a_file_closed_to_its_owner_has_its_mode_while_it_waits(disk, disk_site):
    """It is changed in place by a child that is not root; who kills that meanwhile finds the mode of the old version with it."""
    source, standby, d = pair_on(disk_site, disk, "standby", "128M", make=("-m", "0"))
    standby.stop()
    subprocess.run(["chown", "-R", "65534:65534", str(standby.dir)], check=True)
    standby.modules["m"].update(uid=65534, gid=65534)
    standby.start()
    (source.dir / "a").write_bytes(b"old" * 1000)
    os.chmod(source.dir / "a", 0o400)
    os.link(source.dir / "a", source.dir / "b")
    source.wait()
    d.fill(leave=18 << 20)
    assert source.ctl("pause", source.name).returncode == 0
    with open(source.dir / "a", "r+b") as f:
        f.write(b"new" * (5 << 20))
    assert source.ctl("resume", source.name).returncode == 0
    source.wait_error("no space|No space")
    wait_until(lambda: (standby.dir / "a").stat().st_mode & 0o777 == 0o400, lambda: oct((standby.dir / "a").stat().st_mode), 5)
    d.clear()
    source.wait()
    tree.assert_same(source.dir, standby.dir, owners=False)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("where", ["source", "standby"])
def test_times_of_exchanged_directories(disk, disk_site, where, kind):
    """XFS changes the mtime of a directory that is exchanged across directories, others do not: the copy has the source's."""
    source, standby, d = pair_on(disk_site, disk, where, "512M", kind=kind)
    for name in ("a/dir/sub", "b/dir", "b/file"):
        (source.dir / name).mkdir(parents=True)
        os.utime(source.dir / name, (1000, 1000))
    (source.dir / "a" / "plain").write_text("x")
    for one, other in (("a/dir", "b/dir"), ("b/file", "a/plain"), ("a/plain", "a/dir")):
        renameat2(source.dir / one, source.dir / other, RENAME_EXCHANGE)
        source.wait()
        tree.assert_same(source.dir, standby.dir)


def test_standby_without_inodes(disk, disk_site):
    source, standby, d = pair_on(disk_site, disk, "standby", "16M", make=["-N", "300"])
    d.fill_inodes()
    for i in range(30):
        (source.dir / f"f{i}").write_text("x")
    source.wait_error("no space|No space")
    d.clear()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.parametrize("size", [1, 2 << 20])
def test_an_attribute_that_the_standby_has_no_room_for(disk, disk_site, size):
    """ext4 says that the disk is full, though it is not. Only the file with the attribute cannot be kept, new or changed in place."""
    standby = disk_site.standby()
    standby.module("m", disk(disk_site.dir / "ext4", "400M", kind="ext4").path / "standby")
    standby.dir = standby.modules["m"]["path"]
    source = disk_site.source([standby.url()])
    source.dir = source.keys["source"] = disk(disk_site.dir / "xfs", "400M", kind="xfs").path / "source"
    source.dir.mkdir()
    standby.start()
    source.start()
    (source.dir / "old").write_bytes(bytes(size))
    source.wait()
    assert source.ctl("pause", "m").returncode == 0
    for name in ("old", "new"):
        with open(source.dir / name, "ab") as f:
            f.write(b"more")
        os.setxattr(source.dir / name, "user.large", bytes(20000))
    (source.dir / "last").touch()
    assert source.ctl("resume", "m").returncode == 0
    wait_until((standby.dir / "last").exists, "what comes behind it")
    source.wait_error("no space")
    for name in ("old", "new"):
        wait_until(lambda: (standby.dir / name).read_bytes() == (source.dir / name).read_bytes(), f"the bytes of {name}")
    for name in ("old", "new"):
        os.removexattr(source.dir / name, "user.large")
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_standby_quota(disk, disk_site):
    """EDQUOT holds like ENOSPC."""
    try:
        source, standby, d = pair_on(disk_site, disk, "standby", "64M", make=["-O", "quota"], options="loop,usrquota")
    except subprocess.CalledProcessError:
        pytest.skip("no quota in this kernel")
    standby.stop()
    subprocess.run(["chown", "-R", "65534:65534", str(standby.dir)], check=True)
    standby.modules["m"].update(uid=65534, gid=65534)
    if not shutil.which("setquota") or subprocess.run(["setquota", "-u", "65534", "0", "2000", "0", "0", str(d.path)], check=False).returncode != 0:
        pytest.skip("no setquota")
    standby.start()
    (source.dir / "big").write_bytes(os.urandom(8 << 20))
    source.wait_error("no space|quota")
    subprocess.run(["setquota", "-u", "65534", "0", "0", "0", "0", str(d.path)], check=True)
    source.wait()


def test_standby_disk_broken(disk, disk_site):
    """I/O errors: held, nothing skipped, and all is well once the disk is."""
    source, standby, d = pair_on(disk_site, disk, "standby", "64M")
    (source.dir / "before").write_text("x")
    source.wait()
    d.break_()
    (source.dir / "after").write_text("y")
    source.wait_error("I/O|Input/output|EIO|read.only|disk|cannot be used")
    assert source.ctl("status", source.name).returncode == 2
    standby.stop()
    d.power_on()
    standby.start()
    Workload(source.dir, seed=65, ops=200).run()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_module_state_disk_full(disk, disk_site):
    """The highest position seen cannot be written: applying goes on or waits, and nothing is lost."""
    source, standby, d = pair_on(disk_site, disk, "module state", "16M")
    d.fill()
    for pid in standby.children():
        os.kill(pid, 9)
    Workload(source.dir, seed=66, ops=200).run()
    d.clear()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_state_disk_broken(disk, disk_site, kind, how):
    """Applications go on; status is loud. When the disk is mounted again, without a boot, it has an older journal, and nothing is missing."""
    source, standby, d = pair_on(disk_site, disk, "state", kind=kind, size={"ext4": "64M", "xfs": "320M"}[kind])
    workers = source.mount_pids()
    for i in range(50):
        (source.dir / f"before{i}").write_text("x")
    source.wait()
    d.break_()
    for i in range(50):
        (source.dir / f"f{i}").write_text("x")
        fd = os.open(source.dir / f"f{i}", os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
    wait_until(lambda: source.ctl("status", source.name).returncode == 2, lambda: source.ctl("status", source.name).stdout)
    for i in range(0, 50, 3):
        (source.dir / f"before{i}").rename(source.dir / f"g{i}")
        (source.dir / f"f{i}").unlink()
    Workload(source.dir, seed=67, ops=300).run()
    assert source.mount_pids() == workers, "a process died"
    wait_until(lambda: "journal: " in source.log(), "the journal says so")
    if how == "stopped":
        subprocess.run(["umount", str(source.mountpoint)], check=True)
        source.wait_gone()
    else:
        source.perish()
    d.power_on()
    source.start()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_state_disk_broken_and_killed_at_once(disk, disk_site, kind):
    """Nobody has noticed yet, since what the pages of the journal hold was not written yet: the disk lacks it when it is mounted again."""
    source, standby, d = pair_on(disk_site, disk, "state", kind=kind, size={"ext4": "64M", "xfs": "320M"}[kind])
    (source.dir / "f").write_text("x")
    source.wait()
    standby.stop()
    subprocess.run(["sync", "-f", str(source.state)], check=True)
    (source.dir / "g").write_text("x")
    d.break_()
    (source.dir / "f").write_text("y")
    source.perish()
    d.power_on()
    source.start()
    standby.start()
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_directory_opened_before_an_entry_was_made_in_it(disk, disk_site):
    """Btrfs lists to an open directory nothing younger than it; the kernel keeps the first listing of the mount for all."""
    source, standby, _ = pair_on(disk_site, disk, "source", "256M", kind="btrfs")
    (source.dir / "dir").mkdir()
    fd = os.open(source.dir / "dir", os.O_RDONLY | os.O_DIRECTORY)
    (source.dir / "dir" / "new").touch()
    os.listdir(fd)
    os.close(fd)
    assert os.listdir(source.dir / "dir") == ["new"]
    source.wait()
    tree.assert_same(source.dir, standby.dir)


def test_large_file_does_not_take_the_memory(disk, disk_site):
    """It goes to the disk while it arrives, and what is there is let go; its descriptors, too."""
    source, standby, _ = pair_on(disk_site, disk, "standby", size="1G")
    child = wait_until(standby.children, "a connection")[0]
    before = len(os.listdir(f"/proc/{child}/fd"))
    size = 320 << 20
    source.ctl("pause", "m")  # what is sent while it is written comes in parts
    with open(source.dir / "large", "wb") as f:
        for _ in range(0, size, 8 << 20):
            f.write(os.urandom(4096) * 2048)
    source.ctl("resume", "m")
    source.wait()
    held = subprocess.run(["fincore", "-n", "-b", "-o", "res", standby.dir / "large"], check=True, capture_output=True, text=True)
    assert int(held.stdout) < size // 2, f"{held.stdout.strip()} bytes of {size} are held in memory"
    assert standby.children() == [child]
    assert len(os.listdir(f"/proc/{child}/fd")) <= before
    tree.assert_same(source.dir, standby.dir)
