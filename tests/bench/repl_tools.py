# SPDX-License-Identifier: BSD-2-Clause
"""The tools that bench_repl.py compares, each mirroring self.src to self.dst, and what measuring them needs."""
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time

from lib.procs import Site, free_port, kill_pid, processes
from lib.proxy import Proxy
from lib.wait import wait_until

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


def cpu(*pids):
    """Seconds of processor time that the processes have used, their threads included."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            total += sum(map(int, f.read().rpartition(")")[2].split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def wakeups(pid):
    """{thread: how often it has gone to sleep by itself}."""
    times = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii", errors="replace") as f:
            times[task] = next(int(line.split()[1]) for line in f if line.startswith("voluntary"))
    return times


def resident(pid):
    """MiB."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Tool:
    """Mirrors self.src to self.dst; the directories may be filled before start()."""

    def __init__(self, work):
        self.work = work
        self.src, self.dst = work / "src", work / "dst"
        self.src.mkdir()
        self.dst.mkdir()
        self.running = []
        self.link = None  # (delay in s, bytes per second) of the network between, set before start()
        self.proxy = None

    def spawn(self, *argv):
        with open(self.work / "log", "ab") as log:
            self.running.append(subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))

    def through(self, port):
        """The port to connect to instead of port: that of the slow network, if there is one."""
        if self.link:
            self.proxy = Proxy(port)
            self.proxy.delay, self.proxy.rate = self.link
            self.proxy.__enter__()
        return self.proxy.port if self.proxy else port

    def rsyncd(self):
        port = free_port()
        (self.work / "rsyncd.conf").write_text(f"uid = 0\ngid = 0\nuse chroot = no\nport = {port}\naddress = 127.0.0.1\n[m]\npath = {self.dst}\nread only = no\n")
        self.spawn("rsync", "--daemon", "--no-detach", f"--config={self.work}/rsyncd.conf")
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "rsyncd listens")
        self.url = f"rsync://127.0.0.1:{self.through(port)}/m"

    def start(self):
        """Begin to mirror."""

    def first(self):
        """Copy everything; return the seconds until the tool says so, None for tools that do not say when they are done."""

    def settle(self):
        """Wait until what first() copied is on the standby's disk."""
        subprocess.run(["sync", "-f", str(self.dst)], check=True)

    def changed(self):
        """Called after every change; for tools that are started by hand."""

    def stop(self):
        for p in reversed(self.running):
            p.terminate()
        for pid in processes(str(self.work)):
            kill_pid(pid, wait=False)
        for p in self.running:
            p.wait(20)
        if self.proxy:
            self.proxy.__exit__()

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
    def __init__(self, work, targets=1):
        super().__init__(work)
        os.environ["TANDEM_TMP"] = str(work)
        self.site = Site()
        self.standbys = [self.site.standby() for _ in range(targets)]
        self.standby = self.standbys[0]
        self.source = self.site.source([s.url() for s in self.standbys])
        self.src.rmdir()
        self.dst.rmdir()
        self.src, self.dst = self.source.dir, self.standby.dir

    def start(self):
        for s in self.standbys:
            s.start()
        self.start_source()

    def first(self):
        self.standby.start()
        began = time.perf_counter()
        self.mount()
        wait_until(lambda: self.source.target()["state"] == "insync", "everything is applied", 3000, 0.05)
        return time.perf_counter() - began

    def settle(self):
        self.source.wait(3000)

    def mount(self):
        if self.link and not self.proxy:
            self.source.keys["target"] = [self.standby.url(port=self.through(self.standby.port))]
        self.source.start()

    def start_source(self):
        self.mount()
        self.settle()

    def replicator(self):
        return wait_until(self.source.replicators, "a replicator")[0]

    def child(self):
        return wait_until(self.standby.children, "a connection")[0]

    def stop(self):
        trouble = self.site.close(keep=True)
        if self.proxy:
            self.proxy.__exit__()
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

    def first(self):
        self.rsyncd()
        began = time.perf_counter()
        self.changed()
        return time.perf_counter() - began

    def changed(self, *options):
        subprocess.run(["rsync", "-aHAX", "--delete", *options, f"{self.src}/", f"{self.url}/"], check=True, stdout=subprocess.DEVNULL)


class Unison(Tool):
    def start(self):
        (self.work / "unison").mkdir()
        self.spawn("env", f"UNISON={self.work}/unison", "unison", self.src, self.dst, "-batch", "-repeat", "watch", "-auto", "-silent", "-owner",
                   "-group", "-times", "-prefer", self.src)


TOOLS = {"tandem": (Tandem, None), "lsyncd": (Lsyncd, "lsyncd"), "inotify": (Inotify, "inotifywait"), "rsync": (Rsync, "rsync"),
         "unison": (Unison, "unison")}
