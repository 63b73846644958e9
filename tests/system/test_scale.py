# SPDX-License-Identifier: BSD-2-Clause
"""The mount with much of everything. TANDEM_SCALE=1 is the size that is promised (a million files); the default is a twentieth."""
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import threading

import pytest

from lib.wait import wait_until

SCALE = float(os.environ.get("TANDEM_SCALE", "0.05"))
FILES = int(1000000 * SCALE)
OPEN = int(10000 * SCALE)


@pytest.fixture
def source(site):
    """Not started yet, so that it can be filled without the mount."""
    s = site.source(["tandem://nobody@127.0.0.1:1/m"])
    s.options = ["--no-replicator"]
    return s


def fill(directory, number, per_directory=500):
    """Empty files in directories of two levels, without the mount."""
    for d in range((number + per_directory - 1) // per_directory):
        path = directory / f"{d % 100:02d}" / f"directory-{d}"
        path.mkdir(parents=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        for f in range(min(per_directory, number - d * per_directory)):
            os.close(os.open(f"file-{f:06d}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
        os.close(fd)


def worker(source):
    """The process that serves: the child of the other one."""
    return max(source.mount_pids(), key=lambda pid: len(os.listdir(f"/proc/{pid}/task")))


def resident(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"RssAnon:\s+(\d+) kB", text)[1]) * 1024


def inodes(source):
    """How many inodes the mount remembers."""
    return ask_mount(source)["inodes"]


def ask_mount(source):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(str(source.state / source.name / "mount.sock"))
        s.send(b'{"op": "status"}')
        return json.loads(s.recv(65536).rstrip(b"\0"))


def test_find_over_many_files(source, record_property):
    """Few descriptors, little memory for each inode, and it returns when the kernel forgets."""
    fill(source.dir, FILES)
    source.start()
    os.stat(source.dir / "00")
    pid, before = worker(source), inodes(source)
    empty = resident(pid)
    found = subprocess.run(["find", str(source.dir), "-type", "f", "-size", "0"], capture_output=True, check=True).stdout.count(b"\n")
    assert found == FILES
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    assert descriptors < 1000, f"{descriptors} descriptors"
    known = inodes(source) - before
    each = (resident(pid) - empty) / known
    record_property("figures", f"{known} inodes, {each:.0f} bytes each, {descriptors} descriptors")
    print(f"{known} inodes remembered, {each:.0f} bytes each, {descriptors} descriptors")
    sanitized = re.search("lib[at]san", pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace"))
    if known >= 50000 and not sanitized:  # else it is the noise of everything else
        assert each <= 300, f"{each:.0f} bytes per inode"
    if os.geteuid() != 0 or SCALE < 0.5:
        return
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("2", encoding="ascii")
    wait_until(lambda: inodes(source) < known / 10, "the kernel forgets", timeout=60)
    left = wait_until(lambda: resident(pid) - empty < known * 300 / 4 and resident(pid) - empty, "the memory returns", timeout=20)
    print(f"{left / 2**20:.1f} MiB more than in the beginning, with {inodes(source)} inodes left")


def test_a_large_directory(source):
    """Listed whole, and fast to work in."""
    (source.dir / "large").mkdir()
    for f in range(FILES):
        os.close(os.open(source.dir / "large" / f"{f}", os.O_CREAT | os.O_WRONLY, 0o600))
    source.start()
    names = os.listdir(source.dir / "large")
    assert len(names) == FILES and len(set(names)) == FILES
    for f in range(0, FILES, FILES // 100):
        os.rename(source.dir / "large" / f"{f}", source.dir / "large" / f"renamed-{f}")
    (source.dir / "large" / "new").touch()
    assert sum(e.name.startswith("renamed-") for e in os.scandir(source.dir / "large")) == len(range(0, FILES, FILES // 100))


def test_listing_while_names_come_and_go(source):
    """What exists throughout is listed exactly once each time."""
    source.start()
    stay = {f"stay-{n}" for n in range(1500)}
    for n in stay:
        (source.dir / n).touch()
    done = threading.Event()

    def churn(which):
        n = 0
        while not done.is_set():
            n += 1
            path = source.dir / f"churn-{which}-{n}-{'x' * (n % 60)}"
            path.touch()
            if n % 3 == 0:
                os.rename(path, source.dir / f"renamed-{which}-{n}")
                path = source.dir / f"renamed-{which}-{n}"
            if n % 2 == 0:
                path.unlink()
    threads = [threading.Thread(target=churn, args=(w,)) for w in range(3)]
    for t in threads:
        t.start()
    try:
        for _ in range(40):
            seen = [n for n in os.listdir(source.dir) if n.startswith("stay-")]
            assert len(seen) == len(set(seen)), "an entry was listed twice"
            assert set(seen) == stay, "an entry was missed"
    finally:
        done.set()
        for t in threads:
            t.join()


def test_many_open_files(source):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(OPEN, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number + 200), hard))
    source.start()
    fds = []
    try:
        for n in range(number):
            fds.append(os.open(source.dir / f"{n}", os.O_RDWR | os.O_CREAT, 0o600))
        for n, fd in enumerate(fds):
            os.pwrite(fd, b"%d" % n, 0)
        for n, fd in enumerate(fds):
            assert os.pread(fd, 20, 0) == b"%d" % n
    finally:
        for fd in fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: len(os.listdir(f"/proc/{worker(source)}/fd")) < 1000, "the descriptors are closed")
    assert len(os.listdir(source.dir)) == number


def test_256_threads(source):
    """Each in a directory of its own and all in a common one; everything is answered."""
    source.start()
    (source.dir / "common").mkdir()
    wrong = []

    def work(n):
        try:
            own = source.dir / f"{n}"
            own.mkdir()
            for k in range(10):
                data = os.urandom(1000 * k)
                (own / f"{k}").write_bytes(data)
                fd = os.open(own / f"{k}", os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
                os.rename(own / f"{k}", source.dir / "common" / f"{n}-{k}")
                if (source.dir / "common" / f"{n}-{k}").read_bytes() != data:
                    wrong.append(f"{n}-{k} has other bytes")
        except OSError as e:
            wrong.append(f"{n}: {e}")
    threads = [threading.Thread(target=work, args=(n,)) for n in range(256)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[:10]
    assert len(os.listdir(source.dir / "common")) == 2560


def test_a_sparse_file_of_a_tebibyte(source):
    size = 1 << 40
    source.start()
    fd = os.open(source.dir / "sparse", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        pytest.skip("the file system below takes no file of a tebibyte")
    os.pwrite(fd, b"middle", size // 2)
    os.pwrite(fd, b"end", size - 3)
    os.fsync(fd)
    assert os.fstat(fd).st_size == size
    assert os.fstat(fd).st_blocks < 1000
    assert os.lseek(fd, 0, os.SEEK_DATA) == size // 2 // 4096 * 4096
    assert os.lseek(fd, size // 2, os.SEEK_HOLE) < size - 4096
    assert os.pread(fd, 6, size // 2) == b"middle"
    assert os.pread(fd, 10, size - 3) == b"end"
    os.close(fd)


def test_the_longest_paths(source):
    """Names of 255 bytes, paths of 4,095."""
    source.start()
    path = str(source.dir)
    while len(path) + 1 + 255 <= 4095:
        path += "/" + "d" * min(255, 4095 - 2 - len(path))
        os.mkdir(path)
    rest = 4095 - len(path) - 1
    longest = path + "/" + "f" * rest if rest > 0 else path
    if rest > 0:
        with open(longest, "w", encoding="ascii") as f:
            f.write("deep")
    assert len(longest) == 4095
    os.chmod(longest, 0o700)
    assert os.stat(longest).st_mode & 0o777 == 0o700
    with pytest.raises(OSError):
        os.stat(longest + "x")
    os.rename(source.dir / ("d" * 255), source.dir / ("e" * 255))
    assert os.path.exists(longest.replace("/" + "d" * 255, "/" + "e" * 255, 1))
