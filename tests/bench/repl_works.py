# SPDX-License-Identifier: BSD-2-Clause
"""What bench_repl.py measures. A work is a generator of (figure, value); it gets a tool that was not started and the options. Works in
OURS use what only tandemfs has. Samples for the plots go to o.samples[tool's name][plot]."""
import errno
import fcntl
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from bench.repl_tools import Rsync, Tandem, arrives, cpu, loopback_bytes, quiet, resident, wakeups
from lib.wait import wait_until

KIB, MIB = 1 << 10, 1 << 20
FICLONE = 0x40049409


def same(path, data):
    with open(path, "rb") as f:
        return f.read() == data


def ready(tool):
    """Write until a first change arrives; return the seconds that took."""
    began = time.perf_counter()
    for n in range(40):
        data = os.urandom(64)
        (tool.src / f"ready{n}").write_bytes(data)
        tool.changed()
        end = time.perf_counter() + 3
        while time.perf_counter() < end:
            try:
                if same(tool.dst / f"ready{n}", data):
                    return time.perf_counter() - began
            except OSError:
                pass
            time.sleep(0.0005)
    raise RuntimeError("the first change never arrived: " + (tool.work / "log").read_text(errors="replace")[-500:] if (tool.work / "log").exists() else "")


def fill(path, mib):
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(MIB))


def latencies(tool, count, under="", while_true=lambda: True):
    """Milliseconds from close() to the same bytes on the standby, sorted."""
    took = []
    for i in range(count):
        data = os.urandom(4096)
        path = f"{under}file{i}"
        with open(tool.src / path, "wb") as f:
            f.write(data)
        began = time.perf_counter()
        tool.changed()
        arrives(lambda p=path, d=data: same(tool.dst / p, d))
        if not while_true():
            break
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(random.uniform(0.005, 0.03))
    return sorted(took)


def share(took, part):
    return took[min(len(took) - 1, int(len(took) * part))]


def some(tool, o, part=1):
    return max(5, (o.count if isinstance(tool, Tandem) else o.count // 20) // part)


def wire(tool, change, arrived):
    """Seconds until a change has arrived, and KiB on the loopback until it rests again."""
    quiet()
    before = loopback_bytes()
    change()
    began = time.perf_counter()
    tool.changed()
    arrives(arrived)
    took = time.perf_counter() - began
    quiet()
    return took, (loopback_bytes() - before) / KIB


def latency(tool, o):
    tool.start()
    ready(tool)
    took = latencies(tool, some(tool, o))
    o.samples.setdefault("latency", {})[tool.name] = took
    yield "latency p50, ms", share(took, 0.5)
    yield "latency p99, ms", share(took, 0.99)


def beside(tool, o):
    """Small files while a large one is being copied."""
    tool.start()
    ready(tool)
    fill(tool.src / ".." / "large", o.large)
    copied = threading.Event()

    def copy():
        shutil.copyfile(tool.src / ".." / "large", tool.src / "large")
        arrives(lambda: os.path.getsize(tool.dst / "large") == o.large * MIB)
        copied.set()
    thread = threading.Thread(target=copy)
    thread.start()
    took = latencies(tool, 10000, "beside", lambda: not copied.is_set())
    thread.join()
    if took:
        yield "latency beside a large file p50, ms", share(took, 0.5)


def fsync(tool, o):
    tool.start()
    ready(tool)
    took = []
    with open(tool.src / "log", "wb", buffering=0) as f:
        for i in range(20):
            f.write(os.urandom(4096))
            os.fsync(f.fileno())
            began = time.perf_counter()
            tool.changed()
            while time.perf_counter() - began < 5:
                try:
                    if os.path.getsize(tool.dst / "log") == (i + 1) * 4096:
                        break
                except OSError:
                    pass
                time.sleep(0.0002)
            else:
                return  # nothing before the close
            took.append((time.perf_counter() - began) * 1000)
    yield "open file after fsync p50, ms", share(sorted(took), 0.5)


def burst(tool, o):
    tool.start()
    ready(tool)
    (tool.src / "burst").mkdir()
    data = os.urandom(4096)
    ours = isinstance(tool, Tandem)
    before = [cpu(p) for p in (tool.replicator(), tool.child())] if ours else []
    began = time.perf_counter()
    for i in range(o.burst):
        with open(tool.src / "burst" / f"{i}", "wb") as f:
            f.write(data)
    wrote = time.perf_counter() - began
    tool.changed()
    arrives(lambda: (tool.dst / "burst" / f"{o.burst - 1}").stat().st_size == 4096 and len(os.listdir(tool.dst / "burst")) == o.burst
            and all(os.path.getsize(tool.dst / "burst" / f"{i}") == 4096 for i in range(o.burst)))
    yield f"{o.burst} files, s", time.perf_counter() - began
    yield f"{o.burst} files, s after the last close", time.perf_counter() - began - wrote
    if ours:
        tool.source.wait()
        for name, pid, was in zip(("replicator", "daemon"), (tool.replicator(), tool.child()), before):
            yield f"CPU per small file, {name}, us", (cpu(pid) - was) * 1e6 / o.burst


WRITERS = 4  # processes; one alone waits for the mount's answers more than half of the time


def keep_writing(where, data, seconds, rate, times, count):
    """Make rate files per second, or as many as the mount takes."""
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < seconds and n < len(times):
        if n > (time.perf_counter() - began) * rate:
            time.sleep(0.0005)
            continue
        fd = os.open(f"{where}/{n}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, data)
        os.close(fd)
        times[n] = time.perf_counter()
        n += 1
        count.value = n


def first_missing(where, count):
    """The number of the first file that has not arrived; those of one writer arrive in order."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if os.path.exists(f"{where}/{middle}"):
            low = middle + 1
        else:
            high = middle
    return low


def sustained(tool, o):
    """5000 small files per second, or what the mount takes; lag is how old the newest file is that has arrived, of the slowest writer's."""
    tool.start()
    ready(tool)
    context, data, writers, lag = multiprocessing.get_context("fork"), os.urandom(4096), [], []
    for w in range(WRITERS):
        (tool.src / f"many{w}").mkdir()
        times, count = context.RawArray("d", int(o.seconds * 5000 / WRITERS)), context.RawValue("L", 0)
        p = context.Process(target=keep_writing, args=(tool.src / f"many{w}", data, o.seconds, 5000 / WRITERS, times, count))
        writers.append((p, times, count, tool.dst / f"many{w}"))
    began = time.perf_counter()
    for p, *_ in writers:
        p.start()
    while any(p.is_alive() for p, *_ in writers):
        time.sleep(o.seconds / 120)
        late = 0.0
        for _, times, count, there in writers:
            now, n = time.perf_counter(), count.value
            missing = first_missing(there, n)
            late = max(late, now - times[missing] if missing < n else 0.0)
        lag.append((time.perf_counter() - began, late))
    last = max(times[count.value - 1] for _, times, count, _ in writers)
    o.samples.setdefault("lag", {})[tool.name] = lag
    third = len(lag) // 3
    yield "sustained, files per second", sum(count.value for _, _, count, _ in writers) / (last - began)
    for name, part in (("first", lag[:third]), ("middle", lag[third:2 * third]), ("last", lag[-third:])):
        yield f"sustained, lag in the {name} third, s", sum(x for _, x in part) / third
    yield "sustained, growth of the lag, ms", (sum(x for _, x in lag[-third:]) - sum(x for _, x in lag[third:2 * third])) / third * 1000


def delta(tool, o):
    """100 random overwrites; only these are looked for on the standby, the whole is compared at the end."""
    for name, size in ((f"{o.large} MiB", o.large * MIB), ("100 GiB, sparse", 100 << 30)):
        path = name.replace(" ", "")
        with open(tool.src / path, "wb") as f:
            if "sparse" in name:
                f.truncate(size)
            else:
                for _ in range(size // MIB):
                    f.write(os.urandom(MIB))
        subprocess.run(["cp", "-a", "--sparse=always", str(tool.src / path), str(tool.dst)], check=True)
        if "sparse" in name and not isinstance(tool, Tandem):
            (tool.src / path).unlink()  # the others read all of it
            (tool.dst / path).unlink()
    tool.start()
    ready(tool)
    for name, size in ((f"{o.large} MiB", o.large * MIB), ("100 GiB, sparse", 100 << 30)):
        path = name.replace(" ", "")
        if not (tool.src / path).exists():
            continue
        rnd = random.Random(7)
        changes = {rnd.randrange(size // 4096) * 4096: os.urandom(4096) for _ in range(100)}

        def change(p=tool.src / path, c=changes):
            with open(p, "r+b", buffering=0) as f:
                for at, data in c.items():
                    os.pwrite(f.fileno(), data, at)

        def arrived(p=tool.dst / path, c=changes):
            with open(p, "rb", buffering=0) as f:
                return all(os.pread(f.fileno(), 4096, at) == data for at, data in c.items())
        took, kib = wire(tool, change, arrived)
        yield f"100 changes in {name}, s", took
        yield f"100 changes in {name}, wire KiB", kib


def insertion(tool, o):
    """Bytes put before the first of a file behind the tool's back; found by a full comparison."""
    size = min(o.large, 100)
    fill(tool.src / "front", size)
    shutil.copy2(tool.src / "front", tool.dst / "front")
    if isinstance(tool, Tandem):
        tool.start()
        tool.source.stop()
    old = (tool.src / "front").read_bytes()
    (tool.src / "front").write_bytes(os.urandom(100) + old)
    if isinstance(tool, Tandem):
        tool.standby.stop()
        tool.standby.start()
        tool.source.start()
        quiet()
        before = loopback_bytes()
        assert tool.source.ctl("verify", "m", "--repair", "--checksum").returncode in (0, 1)
    else:
        tool.rsyncd()
        before = loopback_bytes()
        tool.changed("--checksum")
    assert same(tool.dst / "front", (tool.src / "front").read_bytes())
    yield f"insertion before {size} MiB, wire % of the file", (loopback_bytes() - before) / (size * MIB) * 100


def append(tool, o):
    fill(tool.src / "log", 64)
    shutil.copy2(tool.src / "log", tool.dst / "log")
    tool.start()
    ready(tool)

    def change():
        for _ in range(100):
            with open(tool.src / "log", "ab") as f:
                f.write(os.urandom(4096))
    _, kib = wire(tool, change, lambda: os.path.getsize(tool.dst / "log") == 64 * MIB + 100 * 4096)
    yield "100 appends of 4 KiB, wire KiB", kib


def rename(tool, o):
    (tool.src / "d1").mkdir()
    for i in range(o.moved):
        (tool.src / "d1" / f"{i}").write_bytes(os.urandom(65536))
    fill(tool.src / "f1", o.large)
    for name in ("d1", "f1"):
        subprocess.run(["cp", "-a", str(tool.src / name), str(tool.dst)], check=True)
    tool.start()
    ready(tool)
    took, kib = wire(tool, lambda: os.rename(tool.src / "d1", tool.src / "d2"),
                     lambda: not (tool.dst / "d1").exists() and len(os.listdir(tool.dst / "d2")) == o.moved)
    yield f"rename of {o.moved} files, s", took
    yield f"rename of {o.moved} files, wire KiB", kib
    took, kib = wire(tool, lambda: os.rename(tool.src / "f1", tool.src / "f2"),
                     lambda: not (tool.dst / "f1").exists() and os.path.getsize(tool.dst / "f2") == o.large * MIB)
    yield f"rename of {o.large} MiB, s", took
    yield f"rename of {o.large} MiB, wire KiB", kib


def copies(tool, o):
    """Copies made by the kernel."""
    fill(tool.src / "c1", 64)
    shutil.copy2(tool.src / "c1", tool.dst / "c1")
    tool.start()
    ready(tool)

    def by_range():
        with open(tool.src / "c1", "rb") as a, open(tool.src / "c2", "wb") as b:
            left = 64 * MIB
            while left:
                left -= os.copy_file_range(a.fileno(), b.fileno(), left)

    def by_clone():
        with open(tool.src / "c1", "rb") as a, open(tool.src / "c3", "wb") as b:
            fcntl.ioctl(b.fileno(), FICLONE, a.fileno())
    for name, change, path in (("copy_file_range", by_range, "c2"), ("reflink", by_clone, "c3")):
        try:
            _, kib = wire(tool, change, lambda p=path: os.path.getsize(tool.dst / p) == 64 * MIB)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS):
                raise
            continue  # not on this file system
        yield f"{name} of 64 MiB, wire KiB", kib


def small_files(where, count, data=None):
    rnd, data = random.Random(1), data or os.urandom(MIB)
    for d in range(count // 100):
        path = where / f"{d % 50:02d}" / f"{d}"
        path.mkdir(parents=True)
        for i in range(100):
            n, at = rnd.randrange(200, 30 * KIB), rnd.randrange(len(data) - 30 * KIB)
            (path / f"{i}").write_bytes(data[at:at + n])
    os.sync()


def first(tool, o):
    small_files(tool.src, o.tree)
    began = time.perf_counter()
    took = tool.first()
    if took is None:
        return
    yield f"first copy of {o.tree} small files, s", took
    tool.settle()
    yield f"first copy of {o.tree} small files, on the disk, s", time.perf_counter() - began
    os.sync()
    if isinstance(tool, Tandem):
        began = time.perf_counter()
        assert tool.source.ctl("verify", "m", timeout=3000).returncode == 0
        yield f"comparison of {o.tree} equal files, s", time.perf_counter() - began
    else:
        began = time.perf_counter()
        tool.changed()
        yield f"comparison of {o.tree} equal files, s", time.perf_counter() - began


def large(tool, o):
    fill(tool.src / "large", o.large)
    os.sync()
    began = time.perf_counter()
    took = tool.first()
    if took is not None:
        yield f"first copy of {o.large} MiB, MiB/s", o.large / took
        tool.settle()
        yield f"first copy of {o.large} MiB, on the disk, MiB/s", o.large / (time.perf_counter() - began)


def source_text():
    """A few MiB of program text: what Python brings along."""
    files = sorted(pathlib.Path(os.__file__).parent.glob("*.py")) + sorted(pathlib.Path(os.__file__).parent.glob("*/*.py"))
    return b"".join(p.read_bytes() for p in files[:1000])


def slow(tool, o):
    """20 ms round trip, 100 Mbit/s; random bytes, which take as long as the link needs for them with any tool."""
    tool.link = (0.01, 12.5e6)
    small_files(tool.src, o.tree // 10)
    took = tool.first()
    if took is not None:
        yield f"first copy of {o.tree // 10} small files of random bytes, 20 ms and 100 Mbit/s, s", took
        yield f"first copy of {o.tree // 10} small files of random bytes, wire MiB", (tool.proxy.up + tool.proxy.down) / MIB


def slowtext(tool, o):
    """The same with program text."""
    tool.link = (0.01, 12.5e6)
    small_files(tool.src, o.tree // 10, source_text())
    took = tool.first()
    if took is not None:
        yield f"first copy of {o.tree // 10} small files of text, 20 ms and 100 Mbit/s, s", took
        yield f"first copy of {o.tree // 10} small files of text, wire MiB", (tool.proxy.up + tool.proxy.down) / MIB


def tree(tool, o):
    for d in range(o.tree // 100):
        path = tool.src / f"{d % 50:02d}" / f"{d}"
        path.mkdir(parents=True)
        for i in range(100):
            with open(path / f"{i}", "wb", buffering=0) as f:
                f.write(b"x" * o.small)
    subprocess.run(["cp", "-a", f"{tool.src}/.", str(tool.dst)], check=True)
    began = time.perf_counter()
    tool.start()
    ready(tool)
    yield f"start with {o.tree} files, s", time.perf_counter() - began
    took = latencies(tool, some(tool, o), "00/0/new")
    yield f"latency among {o.tree} files p50, ms", share(took, 0.5)
    yield f"latency among {o.tree} files p99, ms", share(took, 0.99)
    yield "memory of all processes, MiB", tool.memory()
    if isinstance(tool, Tandem):
        yield "memory of the replicator, MiB", resident(tool.replicator())
        yield "memory of the daemon, MiB", resident(tool.child())
        for name, again in RESTARTS.items():
            tool.source.wait()
            began = time.perf_counter()
            again(tool)
            (tool.src / f"after {name}").write_bytes(b"x")
            took = time.perf_counter() - began
            yield f"restart of the {name} with {o.tree} files, s", took + arrives((tool.dst / f"after {name}").exists)


def restart_mirror(tool):
    tool.source.stop()
    tool.source.start()


def restart_replicator(tool):
    pid = tool.replicator()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: tool.source.replicators() not in ([], [pid]), "another replicator")


def restart_daemon(tool):
    tool.standby.stop()
    tool.standby.start()


RESTARTS = {"mirror": restart_mirror, "replicator (killed)": restart_replicator, "daemon": restart_daemon}


def sparse(tool, o):
    """A file of 1 TiB with a few bytes."""
    with open(tool.src / "huge", "wb") as f:
        f.truncate(1 << 40)
        for at in range(0, 1 << 40, 1 << 36):
            os.pwrite(f.fileno(), os.urandom(4096), at)
    tool.start()
    yield "memory of the replicator, 1 TiB file, MiB", resident(tool.replicator())
    yield "memory of the daemon, 1 TiB file, MiB", resident(tool.child())


def targets(tool, o):
    """Processor time of mount and replicator for the same work with one target and with three."""
    used = []
    for n in (1, 3):
        work = pathlib.Path(tempfile.mkdtemp(dir=tool.work))
        work.chmod(0o755)
        t = Tandem(work, n)
        try:
            t.start()
            pids = [*t.source.mount_pids(), t.replicator()]
            before = cpu(*pids)
            for i in range(o.burst * 2):
                (t.src / f"{i}").write_bytes(b"x" * 4096)
            t.source.wait()
            used.append(cpu(*pids) - before)
        finally:
            t.stop()
    if used[0]:
        yield "CPU of the source, three targets / one", used[1] / used[0]


def bwlimit(tool, o):
    tool.source.keys["bwlimit"] = "4M"
    tool.start()
    before, began = loopback_bytes(), time.perf_counter()
    fill(tool.src / "limited", 40)
    tool.source.wait(600)
    yield "bwlimit: rate / limit", (loopback_bytes() - before) / (time.perf_counter() - began) / (4 << 20)


def compress(tool, o):
    """Text over a slow link: what is saved."""
    tool.link = (0.01, 12.5e6)
    text = "".join(f"{i:08d} the quick brown fox jumps over the lazy dog, {i * 7919 % 10007} times\n" for i in range(400000)).encode()
    tool.start()
    before = tool.proxy.up
    (tool.src / "text").write_bytes(text)
    tool.source.wait(600)
    yield "text over a slow link, saved %", 100 - (tool.proxy.up - before) / len(text) * 100


def idle(tool, o):
    tool.start()
    ready(tool)
    tool.source.wait()
    time.sleep(3)
    pids = {"mount": tool.source.mount_pids(), "replicator": [tool.replicator()], "daemon": [tool.standby.popen.pid, tool.child()]}
    before = {n: (cpu(*p), [wakeups(x) for x in p]) for n, p in pids.items()}
    time.sleep(10)
    for name, p in pids.items():
        yield f"idle {name}, CPU in 10 s, ms", (cpu(*p) - before[name][0]) * 1000
        yield f"idle {name}, most wake-ups of a thread per s", max(v - was.get(t, 0) for x, was in zip(p, before[name][1]) for t, v in wakeups(x).items()) / 10


def coalescing(tool, o):
    tool.start()
    ready(tool)
    data = os.urandom(100 * KIB)
    (tool.src / "saved").write_bytes(data)

    def save():
        for i in range(10):
            (tool.src / f"saved.{i}").write_bytes(data)
            os.rename(tool.src / f"saved.{i}", tool.src / "saved")
        (tool.src / "last").write_bytes(b"")
    _, kib = wire(tool, save, (tool.dst / "last").exists)
    yield "10 saves of 100 KiB by rename, wire KiB", kib

    def passing():  # before it was sent: while the mirror is paused
        if isinstance(tool, Tandem):
            tool.source.ctl("pause", "m")
        for i in range(200):
            (tool.src / f"passing{i}").write_bytes(data)
            os.unlink(tool.src / f"passing{i}")
        (tool.src / "last2").write_bytes(b"")
        if isinstance(tool, Tandem):
            tool.source.ctl("resume", "m")
    _, kib = wire(tool, passing, (tool.dst / "last2").exists)
    yield "200 files of 100 KiB made and removed, wire KiB", kib


OURS = dict(sparse=sparse, targets=targets, bwlimit=bwlimit, compress=compress, idle=idle)
FROM_NOTHING = dict(first=first, large=large, slow=slow, slowtext=slowtext, insertion=insertion)  # for tools that say when they are done
LIVE = dict(latency=latency, beside=beside, fsync=fsync, burst=burst, sustained=sustained, delta=delta, append=append, rename=rename,
            copies=copies, coalescing=coalescing, tree=tree)
WORKS = {**LIVE, **FROM_NOTHING, **OURS}


def serves(name, tool):
    """Say whether a work can be done with a tool."""
    if name in OURS:
        return tool is Tandem
    if name in FROM_NOTHING:
        return tool in (Tandem, Rsync)
    return not (name in ("beside", "sustained") and tool is Rsync)  # which does nothing by itself
