# SPDX-License-Identifier: BSD-2-Clause
"""Real daemons and real mounts in a directory of their own.

    with Site() as site:
        standby = site.standby()                 # a tandemd with one module "m"
        source = site.source([standby.url()])    # a mirror "m" of an empty directory
        standby.start(); source.start()
        (source.dir / "file").write_text("hello")
        source.wait()                            # tandemctl wait
        tree.assert_same(source.dir, standby.dir)

Programs come from TANDEM_PREFIX (an installation) or from the build tree (TANDEM_BUILD, default the top of the sources).
All processes have the site's directory in their arguments; that is how they are found again and how nothing is left over.
"""
import atexit
import functools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time

from lib import tree
from lib.wait import SLOW, wait_until

PROGRAMS = ("tandemfs", "tandem-replicator", "tandemd", "tandemctl")
TOP = pathlib.Path(__file__).resolve().parents[2]
USER, PASSWORD = "rsync_backup", "correct-horse-battery"
NO_REPORT = re.compile(r"^==\d+==Unable to get registers from thread \d+\.$", re.M)  # LeakSanitizer, of a thread that was just ending
SANITIZER = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error: |SUMMARY: \w+Sanitizer")


@functools.cache
def open_to_all(place):
    """Return the directory itself, or a copy of our programs in it if other users cannot get there (a checkout below a private home)."""
    place = os.path.realpath(place)
    parents = [place, *map(str, pathlib.Path(place).parents)]
    if all(os.stat(p).st_mode & stat.S_IXOTH for p in parents):
        return place
    copy = tempfile.mkdtemp(prefix="tandem-programs-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    os.chmod(copy, 0o755)
    for name in filter(lambda n: os.access(f"{place}/{n}", os.X_OK), PROGRAMS):
        shutil.copy(f"{place}/{name}", copy)
    return copy


def program(name):
    """Return the path of one of the four programs."""
    prefix = os.environ.get("TANDEM_PREFIX")
    if prefix:
        places = [f"{prefix}/sbin", f"{prefix}/bin"]
    else:
        places = [os.environ.get("TANDEM_BUILD", TOP), TOP / "build"]
    for place in places:
        if os.access(f"{place}/{name}", os.X_OK):
            return f"{open_to_all(place)}/{name}"
    raise FileNotFoundError(f"{name} is not in {', '.join(map(str, places))}: build it, or set TANDEM_PREFIX or TANDEM_BUILD")


def free_port():
    """Return a TCP port of the loopback that nobody listens on, outside the range from which connections are made."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def mounted(path):
    """Say whether something is mounted at path; works for a dead mount as well."""
    path = os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return any(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) == path for line in f)


def processes(text):
    """Return {pid: arguments} of living processes that have text in their arguments, ourselves left out."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                args = f.read().decode(errors="surrogateescape").split("\0")[:-1]
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as f:
                state = f.read().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if int(pid) != os.getpid() and state not in "ZX" and any(text in a for a in args):
            found[int(pid)] = args
    return found


def private(pid):
    """Private bytes of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) << 10 for line in f if line.startswith(("Private_Clean", "Private_Dirty", "Swap:")))


def sanitized(process):
    """Say whether a running Process is built with a sanitizer: its memory is another then."""
    with open(f"/proc/{process.popen.pid}/maps", encoding="utf-8") as f:
        return bool(re.search("lib[at]san", f.read()))


class Process:
    """A program in the foreground with its output in a file."""

    def __init__(self, site, label):
        self.site, self.label = site, label
        self.log_path = site.dir / f"{label}.log"
        self.popen = None
        self.as_user = None  # uid to run as
        self.prefix = []  # command to start it with
        self.env = {}  # more of its environment

    def spawn(self, *argv):
        """Start it; the log is appended to."""
        extra = dict(user=self.as_user, group=self.as_user, extra_groups=[]) if self.as_user else {}
        with open(self.log_path, "ab") as log:
            log.write(b"$ " + os.fsencode(" ".join(map(str, argv))) + b"\n")
            log.flush()
            self.popen = subprocess.Popen(self.prefix + list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env={**self.site.environment(), **self.env}, start_new_session=True, **extra)

    @property
    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def log(self):
        """Everything it printed so far."""
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_log(self, pattern, timeout=20):
        """Wait for a line that matches (ignoring case) and return it."""
        def search():
            return next((line for line in self.log().splitlines() if re.search(pattern, line, re.I)), None)
        return wait_until(search, lambda: f"{pattern!r} in the log of {self.label}:\n{self.log()[-3000:]}", timeout)

    def wait_exit(self, timeout=20):
        """Wait for its end and return the exit status."""
        return self.popen.wait(timeout * SLOW)

    def end(self, timeout=20):
        """SIGTERM and wait; fail when it has to be killed."""
        if self.running:
            self.popen.terminate()
            try:
                return self.popen.wait(timeout * SLOW)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise AssertionError(f"{self.label} did not end within {timeout * SLOW:g} s of SIGTERM:\n{self.log()[-3000:]}") from None
        return self.popen.returncode if self.popen else None

    def kill9(self):
        """SIGKILL and reap."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


class Standby(Process):
    """A module daemon. `keys` go to the global part of modules.conf, `modules` maps names to their keys."""

    def __init__(self, site, label="standby", **keys):
        super().__init__(site, label)
        self.port = free_port()
        self.host = "127.0.0.1"  # where it listens
        self.users = {USER: PASSWORD}
        self.secrets = site.dir / f"{label}.secrets"
        self.dir = site.dir / label
        self.config = site.dir / f"{label}.modules.conf"
        self.keys = {"port": self.port, "address": "127.0.0.1", "state dir": site.dir / f"{label}.state", **keys}
        self.modules = {}
        self.module("m", self.dir)

    def module(self, name, path, **keys):
        """Add a module; the directory is made."""
        path.mkdir(exist_ok=True)
        self.modules[name] = {"path": path, "read only": "no", "auth users": " ".join(self.users), "secrets file": self.secrets, **keys}

    def write_config(self):
        write_secret(self.secrets, "".join(f"{u}:{p}\n" for u, p in self.users.items()))
        write_config(self.config, self.keys, self.modules)

    def url(self, module="m", user=USER, port=None):
        return f"tandem://{user}@127.0.0.1:{port or self.port}/{module}"

    def start(self, config=True):
        """Write the configuration (unless config is false), start, wait until it listens."""
        if config:
            self.write_config()
        self.spawn(program("tandemd"), "--config", self.config, "--foreground")

        def listening():
            if not self.running:
                raise RuntimeError(f"tandemd ended with {self.popen.returncode}:\n{self.log()[-3000:]}")
            with socket.create_connection((self.host, self.port), 5):
                return True
        wait_until(listening, lambda: f"tandemd listens on {self.port}:\n{self.log()[-3000:]}")
        return self

    def stop(self):
        self.end()

    def children(self):
        """Pids of the children that serve connections."""
        if not self.running:
            return []
        with open(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children", encoding="ascii") as f:
            return [int(pid) for pid in f.read().split()]

    def kill(self):
        """SIGKILL the daemon and its children."""
        for pid in self.children():
            kill_pid(pid)
        self.kill9()


class Source(Process):
    """A mirror: the mount and its replicator. `keys` go to the mirror's section; target may be a list."""

    def __init__(self, site, targets, name="m", label="source", **keys):
        super().__init__(site, label)
        self.name = name
        self.dir = site.source_dir() / label
        self.dir.mkdir(exist_ok=True)
        self.state = site.dir / f"{label}.state"
        self.password = site.dir / f"{label}.password"
        self.password_text = PASSWORD
        self.config = site.dir / f"{label}.mirrors.conf"
        self.keys = {"source": self.dir, "target": targets, "password file": self.password, **keys}
        self.options = []  # more arguments of tandemfs
        self.replicator_process = None

    @property
    def mountpoint(self):
        return pathlib.Path(self.keys.get("mountpoint", self.dir))

    def write_config(self):
        write_secret(self.password, self.password_text + "\n", self.as_user)
        write_config(self.config, {"state dir": self.state}, {self.name: self.keys})

    def start(self, config=True, wait_mount=True):
        """Write the configuration (unless config is false), mount, wait until it is mounted."""
        if config:
            self.write_config()
        self.spawn(program("tandemfs"), "--config", self.config, "--foreground", *self.options, self.name)
        if wait_mount:
            self.wait_mounted()
        return self

    def wait_mounted(self):
        def is_mounted():
            if not self.running:
                raise RuntimeError(f"tandemfs ended with {self.popen.returncode}:\n{self.log()[-3000:]}")
            return mounted(self.mountpoint)
        wait_until(is_mounted, lambda: f"{self.mountpoint} mounted:\n{self.log()[-3000:]}")

    def stop(self):
        """tandemctl unmount; wait for the end of tandemfs and of the replicator."""
        if self.running:
            r = self.ctl("unmount", self.name)
            assert r.returncode == 0, f"unmount: {r.returncode}\n{r.stdout}{r.stderr}\n{self.log()[-3000:]}"
            self.wait_exit()
        self.wait_gone()

    def wait_gone(self):
        """Wait until neither the mount nor a process of this mirror is left."""
        wait_until(lambda: not mounted(self.mountpoint), lambda: f"{self.mountpoint} unmounted:\n{self.log()[-3000:]}")
        wait_until(lambda: not self.replicators(), lambda: f"the replicator's end: {self.replicators()}\n{self.log()[-3000:]}")

    def kill(self):
        """SIGKILL tandemfs (all its processes but the replicator) and take the dead mount away.

        Whoever goes on writing then writes into the directory below: end such a load in between, with die() and bury()."""
        self.die()
        self.bury()

    def die(self):
        """SIGKILL tandemfs, supervisor and worker; the dead mount stays."""
        for pid in sorted(self.mount_pids()):  # the supervisor first, so that it starts nothing again
            kill_pid(pid, wait=pid != self.popen.pid)
        self.kill9()

    def bury(self):
        """Take the dead mount away."""
        subprocess.run(["umount", "-l", str(self.mountpoint)], stderr=subprocess.DEVNULL, check=False)
        wait_until(lambda: not mounted(self.mountpoint), "the dead mount is gone")

    def perish(self):
        """SIGKILL all of it, the replicator too, and take the dead mount away: what a power failure or the end of the host leaves."""
        self.die()
        for pid in self.replicators():
            kill_pid(pid)
        self.bury()

    def mount_pids(self):
        return [pid for pid, args in processes(str(self.config)).items() if os.path.basename(args[0]).startswith("tandemfs")]

    def replicators(self):
        """Pids of this mirror's replicator processes."""
        return [pid for pid, args in processes(str(self.config)).items() if "tandem-replicator" in args[0]]

    def kill_replicator(self):
        """SIGKILL the replicator; returns the pid it had."""
        pid = wait_until(self.replicators, f"a replicator of {self.config}")[0]
        kill_pid(pid)
        return pid

    def ctl(self, *args, timeout=120):
        """Run tandemctl with this mirror's configuration."""
        return ctl("--config", self.config, *args, timeout=timeout, env=self.site.environment())

    def wait(self, timeout=60):
        """Everything written so far is durable on every target; fail otherwise."""
        seconds = str(int(timeout * SLOW))
        r = self.ctl("wait", self.name, "--timeout", seconds, timeout=timeout * SLOW + 20)
        assert r.returncode == 0, f"tandemctl wait --timeout {seconds}: exit {r.returncode}\n{r.stdout}{r.stderr}"

    def status(self):
        """What `status --json` says of this mirror."""
        r = self.ctl("status", "--json", self.name)
        try:
            return find_mirror(json.loads(r.stdout), self.name)
        except ValueError as e:
            raise AssertionError(f"status --json: exit {r.returncode}, {e}\n{r.stdout}{r.stderr}") from None

    def target(self, number=0):
        """What status says of one target."""
        return self.status()["targets"][number]

    def wait_error(self, pattern, number=0, timeout=30):
        """Wait until the status of a target shows an error that matches; return it."""
        def search():
            t = self.target(number)
            texts = [t.get("error") or ""] + [e.get("text", "") for e in t.get("errors") or []]
            return next((x for x in texts if re.search(pattern, x, re.I)), None)
        return wait_until(search, lambda: f"{pattern!r} in status:\n{self.ctl('status', self.name).stdout}\n{self.log()[-2000:]}", timeout, 0.1)


class Site:
    """A temporary directory with the processes in it."""

    def __init__(self):
        # not pytest's directory: a daemon's child that runs as another user must be able to get here
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="tandem-test-", dir=os.environ.get("TANDEM_TMP")))
        self.dir.chmod(0o755)
        (self.dir / "sanitizer").mkdir()
        (self.dir / "sanitizer").chmod(0o1777)
        self.standbys, self.sources, self.extra = [], [], []
        self.elsewhere = None  # where the sources' directories are, if not here

    def source_dir(self):
        """Where the sources' directories are made: here, or in a new directory of TANDEM_SOURCES (NFS, for example)."""
        place = os.environ.get("TANDEM_SOURCES")
        if place and not self.elsewhere:
            self.elsewhere = pathlib.Path(tempfile.mkdtemp(prefix="tandem-test-", dir=place))
            self.elsewhere.chmod(0o755)
        return self.elsewhere or self.dir

    def __enter__(self):
        return self

    def __exit__(self, *failed):
        self.close(keep=bool(failed[0]))

    def standby(self, label=None, **keys):
        s = Standby(self, label or ("standby" if not self.standbys else f"standby{len(self.standbys) + 1}"), **keys)
        self.standbys.append(s)
        return s

    def source(self, targets, **keys):
        keys.setdefault("label", "source" if not self.sources else f"source{len(self.sources) + 1}")
        s = Source(self, targets, **keys)
        self.sources.append(s)
        return s

    def environment(self):
        logs = self.dir / "sanitizer" / "report"
        san = f"log_path={logs}:abort_on_error=0:exitcode=99:handle_segv=1"
        return {**os.environ, "ASAN_OPTIONS": f"{san}:verify_asan_link_order=0:detect_leaks={os.environ.get('TANDEM_LEAKS', '1')}", "LSAN_OPTIONS": "exitcode=0",
                "UBSAN_OPTIONS": f"{san}:print_stacktrace=1", "TSAN_OPTIONS": f"{san}:second_deadlock_stack=1:suppressions={pathlib.Path(__file__).parents[1] / 'tsan.supp'}", "LC_ALL": "C.UTF-8"}

    def sanitizer_reports(self):
        """Text of what AddressSanitizer and its like found in any process so far."""
        texts = [NO_REPORT.sub("", p.read_text(errors="replace")).strip() for p in sorted((self.dir / "sanitizer").iterdir()) if p.is_file()]
        for p in self.standbys + self.sources + self.extra:
            texts += [line for line in p.log().splitlines() if SANITIZER.search(line)]
        return "\n".join(filter(None, texts))

    def describe(self):
        """Logs, status and tree differences, for the report of a failed test."""
        out = []
        for s in self.sources:
            try:
                r = s.ctl("status", s.name, timeout=10)
                out.append(f"--- status of {s.label} (exit {r.returncode})\n{r.stdout}{r.stderr}")
            except (OSError, subprocess.SubprocessError) as e:
                out.append(f"--- status of {s.label}: {e}")
        for p in self.sources + self.standbys + self.extra:
            out.append(f"--- log of {p.label} ({'running' if p.running else 'not running'})\n{p.log()[-6000:]}")
        for s in self.sources:
            for t in self.standbys:
                try:
                    diff = tree.differences(s.mountpoint, t.dir)
                    out.append(f"--- {s.label} against {t.label}: {len(diff)} differences\n" + "\n".join(diff[:30]))
                except OSError as e:
                    out.append(f"--- {s.label} against {t.label}: {e}")
        return "\n".join(out)

    def close(self, keep=False):
        """End everything; returns text about what did not end by itself (empty: all well)."""
        trouble = []
        for s in self.sources:
            if s.running:
                try:
                    s.stop()
                except (AssertionError, OSError, subprocess.SubprocessError) as e:
                    trouble.append(str(e))
        for p in self.standbys + self.extra:
            try:
                p.end()
            except AssertionError as e:
                trouble.append(str(e))
        for s in self.sources:
            if mounted(s.mountpoint):
                subprocess.run(["umount", "-l", str(s.mountpoint)], stderr=subprocess.DEVNULL, check=False)
        for p in self.sources + self.standbys + self.extra:
            p.kill9()
        end = time.monotonic() + 5 * SLOW
        while processes(str(self.dir)) and time.monotonic() < end:
            time.sleep(0.02)
        left = processes(str(self.dir))
        for pid, args in left.items():
            trouble.append(f"left over: {pid} {' '.join(args)}")
            kill_pid(pid, wait=False)
        if not keep:
            for directory in filter(None, (self.dir, self.elsewhere)):
                shutil.rmtree(directory, ignore_errors=True)
        return "\n".join(trouble)


def ctl(*args, timeout=120, env=None):
    """Run tandemctl; return the finished process with its output as text."""
    return subprocess.run([program("tandemctl"), *map(str, args)], capture_output=True, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, timeout=timeout * SLOW, env=env, check=False)


def find_mirror(status, name):
    """Find the object of mirror name, which has "targets", in what `status --json` printed."""
    todo = [status]
    while todo:
        x = todo.pop(0)
        if isinstance(x, dict):
            if "targets" in x and x.get("mirror", x.get("name", name)) == name:
                return x
            todo += x.values()
        elif isinstance(x, list):
            todo += x
    raise ValueError(f"no mirror {name!r} with targets in {json.dumps(status)[:500]}")


def kill_pid(pid, wait=True):
    """SIGKILL a process by its id and wait until it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    def gone():
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as f:
                return f.read().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True
    if wait:
        wait_until(gone, f"the end of {pid}")


def write_secret(path, text, uid=None):
    path.write_text(text)
    path.chmod(0o600)
    if uid is not None:
        os.chown(path, uid, uid)


def write_config(path, keys, sections):
    """Write a configuration file; a list gives one line per value, None leaves the key out."""
    def lines(d):
        for key, value in d.items():
            for v in value if isinstance(value, (list, tuple)) else [value]:
                if v is not None:
                    yield f"{key.replace('_', ' ')} = {v}"
    out = list(lines(keys))
    for name, d in sections.items():
        out += [f"[{name}]", *lines(d)]
    path.write_text("\n".join(out) + "\n")
