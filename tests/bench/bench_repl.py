#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How soon, and with how many bytes, a change is on the standby: ours beside lsyncd, inotifywait + rsync and rsync.

    bench_repl.py [--quick] [--only TOOL,...] [--work WORK,...] [--dir DIR] [--out DIR]

Tools: tandem, lsyncd (delay 1 s), inotify (inotifywait starting rsync per event), rsync (started by hand after the change, as
from cron, without the waiting); those that are not installed are left out. Works:
  latency  a file of 4 KiB closed -> the same bytes on the standby, median and 99th percentile, ms
  burst    many files of 4 KiB in a loop -> all there, s from the first write
  append   a file that stays open, fsynced writes -> there, ms
  delta    100 random 4 KiB overwrites in a large file -> there, s and KiB on the wire
  rename   a directory of large files -> there, s and KiB on the wire
  tree     a tree that is there already on both sides: s from the start to the first change; latency in it; memory
Lower is better. As root the benchmark runs in a network of its own, so that bytes on the loopback are its own.
"""
import argparse
import ctypes
import fcntl
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from bench import report  # noqa: E402
from lib.procs import TOP, Site, free_port, kill_pid, processes  # noqa: E402
from lib.wait import wait_until  # noqa: E402

NEVER = 60.0  # seconds after which a change counts as lost


def own_network():
    """Enter a new network namespace with a loopback; without permission stay where we are."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, UP and RUNNING


def loopback_bytes():
    with open("/proc/net/dev", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.strip().startswith("lo:"))


def quiet(seconds=1.5):
    """Wait until the loopback rests."""
    last, since = loopback_bytes(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.05)
        now = loopback_bytes()
        if now - last > 500:
            since = time.monotonic()
        last = now


def arrives(condition):
    """Seconds until condition is true, polled as often as possible; NEVER if it does not become so."""
    began = time.perf_counter()
    while time.perf_counter() - began < NEVER:
        try:
            if condition():
                return time.perf_counter() - began
        except OSError:
            pass
        time.sleep(0.0002)
    return NEVER


class Tool:
    """Mirrors self.src to self.dst; the directories may be filled before start()."""

    def __init__(self, work):
        self.work = work
        self.src, self.dst = work / "src", work / "dst"
        self.src.mkdir()
        self.dst.mkdir()
        self.running = []

    def spawn(self, *argv):
        with open(self.work / "log", "ab") as log:
            self.running.append(subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))

    def rsyncd(self):
        port = free_port()
        (self.work / "rsyncd.conf").write_text(f"uid = 0\ngid = 0\nuse chroot = no\nport = {port}\naddress = 127.0.0.1\n[m]\npath = {self.dst}\nread only = no\n")
        self.spawn("rsync", "--daemon", "--no-detach", f"--config={self.work}/rsyncd.conf")
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "rsyncd listens")
        self.url = f"rsync://127.0.0.1:{port}/m"

    def start(self):
        """Begin to mirror."""

    def changed(self):
        """Called after every change; for tools that are started by hand."""

    def stop(self):
        for p in reversed(self.running):
            p.terminate()
        for pid in processes(str(self.work)):
            kill_pid(pid, wait=False)
        for p in self.running:
            p.wait(20)

    def memory(self):
        """Resident MiB of all processes."""
        total = 0
        for pid in processes(str(self.work)):
            try:
                with open(f"/proc/{pid}/statm", encoding="ascii") as f:
                    total += int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                pass
        return total / 2**20


class Tandem(Tool):
    def __init__(self, work):
        super().__init__(work)
        os.environ["TANDEM_TMP"] = str(work)
        self.site = Site()
        self.standby = self.site.standby()
        self.source = self.site.source([self.standby.url()])
        self.src.rmdir()
        self.dst.rmdir()
        self.src, self.dst = self.source.dir, self.standby.dir

    def start(self):
        self.standby.start()
        self.source.start()
        self.source.wait(600)

    def stop(self):
        trouble = self.site.close()
        if trouble:
            print(trouble, file=sys.stderr)


class Lsyncd(Tool):
    def start(self):
        self.rsyncd()
        (self.work / "lsyncd.lua").write_text(
            f'settings{{nodaemon=true,logfile="{self.work}/lsyncd.log",statusFile="{self.work}/lsyncd.status",inotifyMode="CloseWrite"}}\n'
            f'sync{{default.rsync,source="{self.src}",target="{self.url}",delay=1,rsync={{archive=true,compress=false}}}}\n')
        self.spawn("lsyncd", self.work / "lsyncd.lua")


class Inotify(Tool):
    def start(self):
        self.rsyncd()
        script = self.work / "inotify.sh"
        script.write_text(f'''cd {self.src} && rsync -a --delete ./ {self.url}/
inotifywait -mrq --format %w%f -e create,close_write,delete,moved_to,moved_from . | while read -r f; do
  if [ -f "$f" ]; then rsync -aR "$f" {self.url}/; else rsync -a --delete ./ {self.url}/; fi
done
''')
        self.spawn("sh", script)

    def stop(self):
        for p in self.running:
            try:
                os.killpg(p.pid, 15)
            except ProcessLookupError:
                pass
        super().stop()


class Rsync(Tool):
    def start(self):
        self.rsyncd()
        self.changed()

    def changed(self):
        subprocess.run(["rsync", "-a", "--delete", f"{self.src}/", f"{self.url}/"], check=True, stdout=subprocess.DEVNULL)


TOOLS = {"tandem": (Tandem, None), "lsyncd": (Lsyncd, "lsyncd"), "inotify": (Inotify, "inotifywait"), "rsync": (Rsync, "rsync")}


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


def latencies(tool, count, under=""):
    took = []
    for i in range(count):
        data = os.urandom(4096)
        path = f"{under}file{i}"
        with open(tool.src / path, "wb") as f:
            f.write(data)
        began = time.perf_counter()
        tool.changed()
        arrives(lambda p=path, d=data: same(tool.dst / p, d))
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(random.uniform(0.005, 0.03))
    took.sort()
    return took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))]


def latency(tool, o):
    n = o.count if isinstance(tool, Tandem) else max(5, o.count // 20)
    tool.start()
    ready(tool)
    yield "latency p50, ms", (r := latencies(tool, n))[0]
    yield "latency p99, ms", r[1]


def burst(tool, o):
    tool.start()
    ready(tool)
    (tool.src / "burst").mkdir()
    data = os.urandom(4096)
    began = time.perf_counter()
    for i in range(o.burst):
        (tool.src / "burst" / f"{i}").write_bytes(data)
    wrote = time.perf_counter() - began
    tool.changed()
    arrives(lambda: (tool.dst / "burst" / f"{o.burst - 1}").stat().st_size == 4096 and len(os.listdir(tool.dst / "burst")) == o.burst
            and all(os.path.getsize(tool.dst / "burst" / f"{i}") == 4096 for i in range(o.burst)))
    yield f"{o.burst} files, s", time.perf_counter() - began
    yield f"{o.burst} files, s after the last close", time.perf_counter() - began - wrote


def append(tool, o):
    tool.start()
    ready(tool)
    took = []
    with open(tool.src / "log", "wb", buffering=0) as f:
        for i in range(6):
            f.write(os.urandom(4096))
            os.fsync(f.fileno())
            began = time.perf_counter()
            tool.changed()
            end = time.perf_counter() + 5
            while time.perf_counter() < end:
                try:
                    if os.path.getsize(tool.dst / "log") == (i + 1) * 4096:
                        break
                except OSError:
                    pass
                time.sleep(0.0005)
            else:
                return  # nothing before the close
            took.append((time.perf_counter() - began) * 1000)
    yield "open file after fsync, ms", sorted(took)[3]


def delta(tool, o):
    with open(tool.src / "large", "wb") as f:
        for _ in range(o.large):
            f.write(os.urandom(1 << 20))
    subprocess.run(["cp", "-a", str(tool.src / "large"), str(tool.dst)], check=True)
    tool.start()
    ready(tool)
    quiet()
    before, rnd = loopback_bytes(), random.Random(7)
    with open(tool.src / "large", "r+b", buffering=0) as f:
        for _ in range(100):
            f.seek(rnd.randrange(o.large * 256) * 4096)
            f.write(os.urandom(4096))
    began = time.perf_counter()
    tool.changed()
    name = f"100 changes in {o.large} MiB"
    arrives(lambda: subprocess.run(["cmp", "-s", str(tool.src / "large"), str(tool.dst / "large")], check=False).returncode == 0)
    yield f"{name}, s", time.perf_counter() - began
    quiet()
    yield f"{name}, wire KiB", (loopback_bytes() - before) / 1024


def rename(tool, o):
    (tool.src / "d1").mkdir()
    for i in range(o.moved):
        (tool.src / "d1" / f"{i}").write_bytes(os.urandom(65536))
    subprocess.run(["cp", "-a", str(tool.src / "d1"), str(tool.dst)], check=True)
    tool.start()
    ready(tool)
    quiet()
    before = loopback_bytes()
    os.rename(tool.src / "d1", tool.src / "d2")
    began = time.perf_counter()
    tool.changed()
    arrives(lambda: not (tool.dst / "d1").exists() and len(os.listdir(tool.dst / "d2")) == o.moved)
    yield f"rename of {o.moved} files, s", time.perf_counter() - began
    quiet()
    yield f"rename of {o.moved} files, wire KiB", (loopback_bytes() - before) / 1024


def tree(tool, o):
    for d in range(o.tree // 100):
        path = tool.src / f"{d % 50:02d}" / f"{d}"
        path.mkdir(parents=True)
        for i in range(100):
            (path / f"{i}").write_bytes(b"x" * 100)
    subprocess.run(["cp", "-a", f"{tool.src}/.", str(tool.dst)], check=True)
    began = time.perf_counter()
    tool.start()
    ready(tool)
    yield f"start with {o.tree} files, s", time.perf_counter() - began
    yield f"latency among {o.tree} files p50, ms", latencies(tool, max(5, o.count // 4) if isinstance(tool, Tandem) else 5, "00/0/new")[0]
    yield "memory, MiB", tool.memory()
    if isinstance(tool, Tandem):
        tool.source.stop()
        began = time.perf_counter()
        tool.source.start()
        tool.source.wait()
        yield f"restart with {o.tree} files, s", time.perf_counter() - began


WORKS = dict(latency=latency, burst=burst, append=append, delta=delta, rename=rename, tree=tree)


def measure(name, works, o):
    figures = {}
    for w in works:
        print(f"{name}: {w}", file=sys.stderr)
        work = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=o.work))
        work.chmod(0o755)
        try:
            tool = TOOLS[name][0](work)
            try:
                figures.update(WORKS[w](tool, o))
            finally:
                tool.stop()
        except Exception as e:  # noqa: BLE001  (one peer that fails must not end the comparison)
            print(f"{name}, {w}: {e!r:.800}", file=sys.stderr)
        shutil.rmtree(work, ignore_errors=True)
    return figures


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ap.add_argument("--quick", action="store_true", help="less of everything")
    ap.add_argument("--only", default="", help="tools, with commas")
    ap.add_argument("--work", dest="works", default=",".join(WORKS))
    ap.add_argument("--dir", default=tempfile.gettempdir(), help="where to work; decides the file system below")
    ap.add_argument("--out", default=str(TOP / "build" / "bench"))
    o = ap.parse_args()
    o.count, o.burst, o.large, o.moved, o.tree = (40, 500, 64, 100, 2000) if o.quick else (200, 5000, 1024, 1000, 100000)
    own_network()
    o.work = pathlib.Path(tempfile.mkdtemp(prefix="tandem-bench-", dir=o.dir))
    o.work.chmod(0o755)
    names = [n for n, (_, need) in TOOLS.items() if (not o.only or n in o.only.split(",")) and (not need or shutil.which(need) and shutil.which("rsync"))]
    try:
        results = {n: measure(n, [w for w in o.works.split(",") if w], o) for n in names}
    finally:
        shutil.rmtree(o.work, ignore_errors=True)
    info = report.machine(o.dir)
    note = f"{info['cpu']}, {info['cores']} cores, Linux {info['kernel']}, {info['file_system']}, loopback"
    base = "tandem" if "tandem" in results else None
    print(f"{note}; lower is better; in parentheses: times as much as tandem; {NEVER:g} s: never arrived\n")
    print(report.table(results, base))
    report.write(o.out, "repl", results, info, report.chart(results, "A change on its way to the standby", note + "; logarithmic, shorter is better", log_floor=0.001))


if __name__ == "__main__":
    main()
