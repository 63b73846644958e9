# SPDX-License-Identifier: BSD-2-Clause
"""The mount behaves as the directory below it, without any standby."""
import contextlib
import errno
import fcntl
import mmap
import os
import pathlib
import shutil
import stat
import subprocess
import threading

import pytest

from lib import syscalls, tree
from lib.hold import Hold
from lib.wait import wait_until
from lib.workload import WEIGHTS, Workload

# O_TMPFILE needs libfuse 3.17; the kernel's FUSE has no FALLOC_FL_COLLAPSE_RANGE and INSERT_RANGE
OURS = set(WEIGHTS) - {"temp_file", "collapse", "insert"}


@pytest.fixture
def mount(site):
    """A mount whose journal nobody reads."""
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    source.options = ["--no-replicator"]
    source.start()
    return source


@pytest.mark.smoke
@pytest.mark.parametrize("seed", range(1, 6))
def test_same_results_as_a_plain_directory(mount, tmp_path, seed):
    """The same operations, once on the mount and once on a plain directory: same results one by one, same tree."""
    plain = tmp_path / "plain"
    plain.mkdir()
    loads = [Workload(d, seed=seed, threads=1, ops=1500, only=OURS) for d in (plain, mount.dir)]
    for load in loads:
        load.history = []
        load.run()
    for number, (a, b) in enumerate(zip(*(load.history for load in loads))):
        assert a == b, f"operation {number}\non the plain directory: {a}\non the mount:           {b}"
    diff = tree.differences(plain, mount.dir, mtime=False)
    assert not diff, "\n".join(diff)
    mount.stop()
    diff = tree.differences(plain, mount.dir, mtime=False)
    assert not diff, "\n".join(diff)


def test_mount_shows_what_is_below(mount):
    """What the mount says of times, sizes and links is what the directory below has."""
    Workload(mount.dir, seed=9, ops=1500).run()
    before = {p: (s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns, s.st_rdev) for p, s in tree.scan(mount.dir).items()}
    mount.stop()
    after = {p: (s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns, s.st_rdev) for p, s in tree.scan(mount.dir).items()}
    assert before == after, {p: (before.get(p), after.get(p)) for p in before.keys() | after.keys() if before.get(p) != after.get(p)}


def test_time_of_birth(mount):
    """Told where libfuse can (3.18), and then it is that of the directory below."""
    for name in ("file", "directory"):
        (mount.dir / name).touch() if name == "file" else (mount.dir / name).mkdir()

    def births():
        return subprocess.run(["stat", "-c", "%W %.9W", str(mount.dir / "file"), str(mount.dir / "directory")], capture_output=True, text=True, check=True).stdout
    seen = births()
    assert (mount.dir / "file").stat().st_size == 0
    mount.stop()
    if not seen.startswith(("0", "-")):
        assert seen == births()


def test_inode_numbers_are_stable(mount):
    (mount.dir / "a").touch()
    os.link(mount.dir / "a", mount.dir / "b")
    assert (mount.dir / "a").stat().st_ino == (mount.dir / "b").stat().st_ino
    names = {e.name: e.inode() for e in os.scandir(mount.dir)}
    assert names["a"] == names["b"] == (mount.dir / "a").stat().st_ino


@pytest.mark.root
def test_file_systems_in_the_source(site):
    """Equal inode numbers of different file systems are neither one file nor a loop, though the mount has one device for all."""
    standby = site.standby().start()
    source = site.source([standby.url()])
    inner = [source.dir / "a", source.dir / "a" / "b"]
    with contextlib.ExitStack() as stack:
        below = os.open(source.dir, os.O_RDONLY)
        stack.callback(os.close, below)
        for d in inner:
            d.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(d)], check=True)
            stack.callback(syscalls.umount, f"/proc/self/fd/{below}/{d.relative_to(source.dir)}")
            (d / "f").write_text(d.name)
            os.link(d / "f", d / "g")
        source.start()
        find = subprocess.run(["find", str(source.dir)], capture_output=True, text=True, check=False)
        assert find.returncode == 0 and len(find.stdout.splitlines()) == 7, find
        assert len({os.stat(d / name).st_ino for d in inner for name in ("f", "g")}) == 2
        for d in inner:
            assert {e.name: e.inode() for e in os.scandir(d)}["f"] == os.stat(d / "f").st_ino
            room = [os.statvfs(p) for p in (d, d / "f")]
            assert all(r.f_blocks * r.f_frsize == 1 << 20 for r in room), room
        assert os.statvfs(source.dir).f_blocks == os.fstatvfs(below).f_blocks
        source.wait()
        tree.assert_same(source.dir, standby.dir)
        source.stop()


def test_removed_directory_that_is_still_open(mount):
    (mount.dir / "d").mkdir()
    fd = os.open(mount.dir / "d", os.O_RDONLY)
    os.rmdir(mount.dir / "d")
    with pytest.raises(FileNotFoundError):
        os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(fd)


def test_removed_file_that_is_still_open(mount):
    with open(mount.dir / "f", "w+b") as f:
        f.write(b"x" * 10000)
        os.unlink(mount.dir / "f")
        f.seek(0)
        assert f.read() == b"x" * 10000
        assert os.fstat(f.fileno()).st_nlink == 0
        os.ftruncate(f.fileno(), 5)
        assert os.fstat(f.fileno()).st_size == 5


def test_replaced_file_that_is_still_open(mount):
    (mount.dir / "old").write_text("old")
    (mount.dir / "new").write_text("new")
    with open(mount.dir / "old", encoding="ascii") as f:
        os.rename(mount.dir / "new", mount.dir / "old")
        assert f.read() == "old"
    assert (mount.dir / "old").read_text() == "new"


@pytest.mark.parametrize("what", ["m", "m/c"])
def test_what_is_being_renamed_can_be_reached(site, what):
    """A rename is done below and not yet in the table: who has what moved, or what is below it, notices nothing of it."""
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    source.options = ["--no-replicator"]
    hold = Hold(site, source)
    source.start()
    m, c = source.dir / "e" / "m", source.dir / "e" / "m" / "c"
    m.parent.mkdir()
    if what == "m":
        m.touch()
    else:
        m.mkdir()
        c.touch()
    fd = os.open(source.dir / "e" / what, os.O_PATH)
    for n in range(600):  # more than it keeps descriptors of directories
        (source.dir / f"d{n}").mkdir()
        (source.dir / f"d{n}" / "f").touch()
    errors = []

    def ask():
        try:
            os.getxattr(f"/proc/self/fd/{fd}", "user.none")
        except OSError as e:
            errors.append(e.errno)
    with hold("renameat2", "m") as rename:
        threads = [threading.Thread(target=os.rename, args=(m, m.with_name("k"))), threading.Thread(target=ask)]
        threads[0].start()
        rename.reached()
        threads[1].start()
        for _ in range(100):
            syscalls.ask_again(source.dir)
        rename.release()
        for t in threads:
            t.join()
    os.close(fd)
    assert errors == [errno.ENODATA]


@pytest.mark.root
def test_append_only_file(site):
    """chattr +a below: who appends may, who does not may not."""
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    source.options = ["--no-replicator"]
    log = source.dir / "log"
    log.write_text("1")
    with contextlib.ExitStack() as stack:
        below = os.open(log, os.O_RDONLY)
        stack.callback(os.close, below)
        try:
            flags = syscalls.file_flags(below)
            syscalls.set_file_flags(below, flags | syscalls.FS_APPEND)
        except OSError as e:
            pytest.skip(f"no append-only files here: {e}")
        stack.callback(syscalls.set_file_flags, below, flags)
        source.start()
        with open(log, "a", encoding="ascii") as a, open(log, "a", encoding="ascii") as b:
            for f in a, b, a:
                f.write("2")
                f.flush()
        assert log.read_text() == "1222"
        for wrong in os.O_WRONLY, os.O_WRONLY | os.O_APPEND | os.O_TRUNC:
            with pytest.raises(PermissionError):
                os.open(log, wrong)
        source.stop()
        assert log.read_text() == "1222"


def test_long_listing(mount):
    names = {f"{i:05d}-{'n' * 60}" for i in range(5000)}
    for n in names:
        (mount.dir / n).touch()
    assert set(os.listdir(mount.dir)) == names


@pytest.mark.root
def test_listing_with_an_entry_that_cannot_be_looked_at(site):
    """A dead mount in the source is listed like anything else, and what stands beside it, too."""
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    source.options = ["--no-replicator"]
    for n in range(50):
        (source.dir / f"f{n}").touch()
        os.chown(source.dir / f"f{n}", 1000, 1000)
    with contextlib.ExitStack() as stack:
        below = os.open(source.dir, os.O_RDONLY)
        stack.callback(os.close, below)
        for n in range(8):
            (source.dir / f"dead{n}").mkdir()
            syscalls.mount_dead(source.dir / f"dead{n}")
            stack.callback(syscalls.umount, f"/proc/self/fd/{below}/dead{n}")
        names = set(os.listdir(source.dir))
        source.start()
        assert set(os.listdir(source.dir)) == names
        assert set(os.listdir(source.dir)) == names
        source.stop()


def test_listing_while_names_go_away(mount):
    for i in range(2000):
        (mount.dir / f"{i}").touch()
    seen = set()
    with os.scandir(mount.dir) as it:
        for e in it:
            seen.add(e.name)
            if len(seen) == 500:
                for i in range(0, 2000, 2):
                    (mount.dir / f"{i}").unlink()
    assert {f"{i}" for i in range(1, 2000, 2)} <= seen


def test_many_files_need_few_descriptors(mount):
    """No descriptor per inode: everything works within the default limit."""
    for d in range(60):
        (mount.dir / f"{d}").mkdir()
        for i in range(100):
            (mount.dir / f"{d}" / f"{i}").touch()
    assert subprocess.run(["find", str(mount.dir), "-type", "f", "-size", "0"], capture_output=True, check=True).stdout.count(b"\n") == 6000
    used = max(len(os.listdir(f"/proc/{pid}/fd")) for pid in mount.mount_pids())
    assert used < 3000, f"{used} descriptors"


def test_works_with_a_low_descriptor_limit(site):
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    source.options = ["--no-replicator"]
    source.prefix = ["prlimit", "--nofile=1024"]
    source.start()
    for d in range(2000):
        (source.dir / f"{d}" / "sub").mkdir(parents=True)
        (source.dir / f"{d}" / "sub" / "file").write_text("x")
    assert subprocess.run(["find", str(source.dir), "-type", "f", "-size", "1c"], capture_output=True, check=True).stdout.count(b"\n") == 2000


@pytest.mark.root
def test_permissions_are_checked(mount):
    (mount.dir / "private").mkdir(mode=0o700)
    (mount.dir / "private" / "f").write_text("secret")
    (mount.dir / "f").write_text("x")
    (mount.dir / "f").chmod(0o600)

    def run(script):
        return subprocess.run(["sh", "-c", script], user=65534, group=65534, extra_groups=[], capture_output=True, cwd=mount.dir, check=False).returncode
    mount.dir.chmod(0o755)
    assert run("cat private/f") != 0 and run("cat f") != 0 and run("touch new") != 0 and run("chmod 666 f") != 0 and run("rm -f f") != 0
    (mount.dir / "f").chmod(0o644)
    assert run("cat f") == 0


@pytest.mark.root
def test_new_files_belong_to_their_maker(mount):
    mount.dir.chmod(0o777)
    subprocess.run(["sh", "-c", "umask 027; echo x >f; mkdir d; ln -s f l; mkfifo p"], user=1234, group=5678, extra_groups=[], cwd=mount.dir, check=True)
    for name, mode in (("f", 0o640), ("d", 0o750), ("l", 0o777), ("p", 0o640)):
        st = os.lstat(mount.dir / name)
        assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1234, 5678, mode), name


@pytest.mark.root
def test_sgid_directory_gives_its_group(mount):
    (mount.dir / "d").mkdir()
    os.chown(mount.dir / "d", 0, 4321)
    (mount.dir / "d").chmod(0o2777)
    subprocess.run(["sh", "-c", "echo x >d/f; mkdir d/sub"], user=1234, group=5678, extra_groups=[], cwd=mount.dir, check=True)
    assert (mount.dir / "d" / "f").stat().st_gid == 4321
    assert stat.S_IMODE((mount.dir / "d" / "sub").stat().st_mode) & 0o2000


@pytest.mark.root
def test_sticky_directory(mount):
    mount.dir.chmod(0o1777)
    (mount.dir / "f").touch()
    r = subprocess.run(["rm", "-f", "f"], user=1234, group=1234, extra_groups=[], cwd=mount.dir, capture_output=True, check=False)
    assert r.returncode != 0 and (mount.dir / "f").exists()


def test_umask(mount):
    old = os.umask(0o077)
    try:
        (mount.dir / "f").touch()
        assert stat.S_IMODE((mount.dir / "f").stat().st_mode) == 0o600
    finally:
        os.umask(old)


@pytest.mark.parametrize("name", ["n" * 255, "with blank", "new\nline", "ünïcode", "-rf", "..."])
def test_names(mount, name):
    (mount.dir / name).write_text(name)
    assert (mount.dir / name).read_text() == name and name in os.listdir(mount.dir)


def test_name_too_long(mount):
    with pytest.raises(OSError) as e:
        (mount.dir / ("n" * 256)).touch()
    assert e.value.errno == errno.ENAMETOOLONG


def test_shared_mapping_is_coherent(mount):
    """A store through one mapping is seen by a read of another descriptor."""
    (mount.dir / "f").write_bytes(bytes(8192))
    with open(mount.dir / "f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[5000:5005] = b"store"
        with open(mount.dir / "f", "rb") as g:
            assert g.read()[5000:5005] == b"store"
        fd = os.open(mount.dir / "f", os.O_WRONLY)
        os.pwrite(fd, b"write", 100)
        os.close(fd)
        assert m[100:105] == b"write"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_mapped_stores_may_use_the_memory_that_others_may(mount):
    """The kernel's 1 % of dirty pages for FUSE would make stores through mappings wait."""
    dev = os.stat(mount.dir).st_dev
    ratio = pathlib.Path(f"/sys/class/bdi/{os.major(dev)}:{os.minor(dev)}/max_ratio")
    assert ratio.read_text(encoding="ascii").strip() == "100"


def test_o_append_of_two_writers(mount):
    fds = [os.open(mount.dir / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]

    def write(fd, mark):
        for _ in range(200):
            os.write(fd, mark * 50)
    threads = [threading.Thread(target=write, args=(fd, m)) for fd, m in zip(fds, (b"a", b"b"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for fd in fds:
        os.close(fd)
    data = (mount.dir / "log").read_bytes()
    assert len(data) == 20000 and data.count(b"a") == 10000
    assert all(len(set(data[i:i + 50])) == 1 for i in range(0, 20000, 50)), "appended pieces are mixed"


def test_posix_locks(mount):
    (mount.dir / "f").touch()
    with open(mount.dir / "f", "r+b") as f:
        fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
        pid = os.fork()
        if pid == 0:
            with open(mount.dir / "f", "r+b") as g:
                try:
                    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
                    os._exit(1)
                except OSError:
                    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 10)
                    os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def test_statfs(mount):
    a, b = os.statvfs(mount.dir), os.statvfs(mount.site.dir)
    assert (a.f_blocks, a.f_bsize, a.f_namemax) == (b.f_blocks, b.f_bsize, b.f_namemax)


def test_odirect(mount):
    fd = os.open(mount.dir / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    with mmap.mmap(-1, 8192) as m:
        m[:] = b"d" * 8192
        assert os.pwrite(fd, m, 0) == 8192
    os.close(fd)
    assert (mount.dir / "f").read_bytes() == b"d" * 8192


def test_execute_from_the_mount(mount):
    shutil.copy("/bin/true", mount.dir / "program")
    assert subprocess.run([str(mount.dir / "program")], check=False).returncode == 0
    with open(mount.dir / "program", "rb"):
        pass


@pytest.mark.root
def test_file_handles(mount):
    """An NFS server works with file handles: they lead to the file, also after a rename; one of an earlier mount leads nowhere."""
    def number(n):
        fd = syscalls.open_by_handle(mount.dir, handles[n], os.O_RDONLY)
        with open(fd, "rb") as f:
            return int(f.read())

    (mount.dir / "d").mkdir()
    for n in range(5):
        (mount.dir / "d" / f"{n}").write_text(f"{n}")
    handles = [syscalls.name_to_handle(mount.dir / "d" / f"{n}") for n in range(5)]
    os.rename(mount.dir / "d", mount.dir / "e")
    assert [number(n) for n in range(5)] == list(range(5))
    mount.stop()
    mount.start()
    for n in reversed(range(5)):
        assert (mount.dir / "e" / f"{n}").read_text() == f"{n}"
    for n in range(5):
        with pytest.raises(OSError) as e:
            number(n)
        assert e.value.errno == errno.ESTALE


def test_rename_into_own_child_fails(mount):
    (mount.dir / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError) as e:
        os.rename(mount.dir / "a", mount.dir / "a" / "b" / "c")
    assert e.value.errno == errno.EINVAL


def test_deep_tree(mount):
    path = mount.dir
    for i in range(150):
        path = path / f"d{i}"
        path.mkdir()
    (path / "f").write_text("deep")
    os.rename(mount.dir / "d0", mount.dir / "e0")
    found = pathlib.Path(str(path).replace("/d0/", "/e0/", 1))
    assert (found / "f").read_text() == "deep"
    os.chdir(found)
    try:
        assert os.getcwd() == str(found)
    finally:
        os.chdir("/")


def test_unmount_says_who_is_in_the_way(mount):
    fd = os.open(mount.dir, os.O_RDONLY)
    r = mount.ctl("unmount", mount.name)
    assert r.returncode != 0 and str(os.getpid()) in r.stdout + r.stderr, r.stdout + r.stderr
    os.close(fd)


def test_exchange_of_directories_below_others(mount):
    for a in ("x", "y"):
        (mount.dir / a / "sub").mkdir(parents=True)
        (mount.dir / a / "sub" / a).touch()
    syscalls.renameat2(mount.dir / "x" / "sub", mount.dir / "y" / "sub", syscalls.RENAME_EXCHANGE)
    assert os.listdir(mount.dir / "x" / "sub") == ["y"] and os.listdir(mount.dir / "y" / "sub") == ["x"]


def test_dead_mount_is_mounted_again(mount):
    """tandemfs killed: its supervisor takes the dead mount away and mounts again."""
    (mount.dir / "f").write_text("x")
    workers = [p for p in mount.mount_pids() if p != mount.popen.pid]
    if not workers:
        pytest.skip("one process only")
    for pid in workers:
        os.kill(pid, 9)
    wait_until(lambda: mount.log().count("mounted on") == 2 and (mount.dir / "f").read_text() == "x", "a new mount", 10)
    (mount.dir / "g").write_text("y")


def test_a_hole_shows_its_time_beside_listings(site):
    """A listing under way brings attributes of before: they are not taken for those of after."""
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    below = os.open(source.dir, os.O_RDONLY | os.O_DIRECTORY)  # opened before the mount covers it
    source.start("--no-replicator")
    names = [f"f{n}" for n in range(30)]
    for name in names:
        (source.dir / name).write_bytes(bytes(1 << 16))
    halt = threading.Event()

    def listing():
        while not halt.is_set():
            with os.scandir(source.dir) as entries:
                for e in entries:
                    with contextlib.suppress(FileNotFoundError):
                        e.stat()

    def touching():  # so that the kernel asks for the listing again
        while not halt.is_set():
            (source.dir / "t").touch()
            (source.dir / "t").unlink()
    threads = [threading.Thread(target=f) for f in [listing] * 6 + [touching]]
    for t in threads:
        t.start()
    old = []
    for n in range(3000):
        name = names[n % len(names)]
        fd = os.open(source.dir / name, os.O_RDWR)
        syscalls.fallocate(fd, syscalls.FALLOC_PUNCH_HOLE | syscalls.FALLOC_KEEP_SIZE, 4096, 4096)
        os.close(fd)
        if os.stat(source.dir / name).st_mtime_ns != os.stat(name, dir_fd=below).st_mtime_ns:
            old.append(n)
    halt.set()
    for t in threads:
        t.join()
    os.close(below)
    assert not old, f"{len(old)} of 3000 holes show an older time"


def test_attributes_of_a_directory_are_asked_for_again(site):
    """The kernel may take an answer that is older than a change made meanwhile, for a directory: it must not keep that for long. Here the
    change is one that it cannot know of."""
    source = site.source(["tandem://nobody@127.0.0.1:1/m"])
    (source.dir / "d").mkdir()
    below = os.open(source.dir, os.O_RDONLY | os.O_DIRECTORY)  # opened before the mount covers it
    source.start("--no-replicator")
    before = os.stat(source.dir / "d").st_mtime_ns
    os.mkdir("d/new", dir_fd=below)
    now = os.stat("d", dir_fd=below).st_mtime_ns
    os.close(below)
    assert now != before
    wait_until(lambda: os.stat(source.dir / "d").st_mtime_ns == now, "the directory's new time", 5)
