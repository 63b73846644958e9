#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How fast the mount is beside the directory below it and beside other FUSE file systems.

    bench_fs.py [--quick] [--rounds N] [--only SUBJECT,...] [--work GROUP,...] [--dir DIR] [--out DIR]

Subjects: native, bindfs, mergerfs, passthrough_ll (libfuse's example, compiled here), passthrough_hp (the other one, with io_uring and the
kernel's passthrough where its libfuse has them; libfuse builds it with -Dexamples=true, and it must be in PATH), tandemfs (no standby), tandemfs+standby
(replicating over loopback meanwhile); those that are not installed are left out. The last table has tandemfs beside these two, and
tandemfs+standby beside tandemfs: what a replicator at work costs. Groups: stream, random, small, tree.
Subjects take turns in every round; the figures are medians. Higher is better: MiB/s for streams, operations/s else.
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from bench import report  # noqa: E402
from lib.procs import TOP, Site, mounted  # noqa: E402
from lib.wait import wait_until  # noqa: E402


class Subject:
    """A way to see a directory: open() returns the path to work in, close() takes it down."""

    def __init__(self, name, command=None):
        self.name, self.command, self.popen, self.work = name, command, None, None

    def open(self, work):
        self.work = work
        below, mount = work / "below", work / "mount"
        below.mkdir()
        if not self.command:
            return below
        mount.mkdir()
        self.popen = subprocess.Popen(self.command(str(below), str(mount)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: mounted(mount), f"{self.name} mounted")
        return mount

    def close(self):
        if self.command:
            subprocess.run(["umount", str(self.work / "mount")], check=False)
            self.popen.wait(20)


class Tandem(Subject):
    def __init__(self, name, standby):
        super().__init__(name)
        self.with_standby, self.site, self.features = standby, None, {}

    def open(self, work):
        os.environ["TANDEM_TMP"] = str(work)
        self.site = Site()
        target = self.site.standby()
        source = self.site.source([target.url()])
        if self.with_standby:
            target.start()
        else:
            source.options = ["--no-replicator"]
        source.start()
        if self.with_standby:
            source.wait()
        os.stat(source.dir / ".")  # answered when the features are known
        self.features = source.status()["features"]
        return source.dir

    def close(self):
        trouble = self.site.close()
        if trouble:
            print(trouble, file=sys.stderr)


def passthrough_ll(work):
    """Compile libfuse's example; return its path or None."""
    source = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"
    for packed in (source, source + ".gz"):
        if os.path.exists(packed):
            text = subprocess.run(["zcat", "-f", packed], capture_output=True, check=True).stdout
            shutil.copy(os.path.dirname(source) + "/passthrough_helpers.h", work)
            (work / "passthrough_ll.c").write_bytes(text)
            flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=False).stdout.split()
            r = subprocess.run(["cc", "-O2", "-w", str(work / "passthrough_ll.c"), "-o", str(work / "passthrough_ll"), *flags], capture_output=True, check=False)
            return str(work / "passthrough_ll") if r.returncode == 0 else None
    return None


def passthrough_hp(below, mount):
    said = subprocess.run(["passthrough_hp", "--help"], capture_output=True, text=True, check=False)
    ring = ["-o", "io_uring"] if "io_uring" in said.stdout + said.stderr else []
    return ["passthrough_hp", "--foreground", *ring, below, mount]


def subjects(work):
    out = [Subject("native")]
    if shutil.which("bindfs"):
        out.append(Subject("bindfs", lambda below, mount: ["bindfs", "-f", below, mount]))
    if shutil.which("mergerfs"):
        out.append(Subject("mergerfs", lambda below, mount: ["mergerfs", "-f", "-o", "cache.files=auto-full,allow_other,use_ino", below, mount]))
    ll = passthrough_ll(work)
    if ll:
        out.append(Subject("passthrough_ll", lambda below, mount: [ll, "-f", "-o", f"source={below},cache=always,xattr,allow_other", mount]))
    if shutil.which("passthrough_hp"):
        out.append(Subject("passthrough_hp", passthrough_hp))
    return out + [Tandem("tandemfs", False), Tandem("tandemfs+standby", True)]


def fio(directory, name, **options):
    """Run one fio job in directory; returns its JSON or None without fio."""
    options = {"filename": f"{directory}/{name}", "ioengine": "psync", "thread": 1, "group_reporting": 1, "norandommap": 1, "fallocate": "none", **options}
    command = ["fio", "--name=j", "--output-format=json"] + [f"--{k}={v}" for k, v in options.items()]
    r = subprocess.run(command, capture_output=True, text=True, check=False)
    if r.returncode:
        raise RuntimeError((r.stdout + r.stderr)[-500:])
    return json.loads(r.stdout[r.stdout.index("{"):])["jobs"][0]


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("3")
    except PermissionError:
        pass


def stream(d, o):
    size = f"{o.size}m"
    yield "write 1 MiB + fsync, MiB/s", fio(d, "stream", rw="write", bs="1m", size=size, end_fsync=1)["write"]["bw"] / 1024
    yield "write 4 KiB, MiB/s", fio(d, "stream4", rw="write", bs="4k", size=f"{o.size // 2}m")["write"]["bw"] / 1024
    drop_caches()
    yield "read cold, MiB/s", fio(d, "stream", rw="read", bs="128k", size=size, invalidate=0)["read"]["bw"] / 1024
    yield "read warm, MiB/s", fio(d, "stream", rw="read", bs="128k", size=size, invalidate=0)["read"]["bw"] / 1024


def random_(d, o):
    timed = dict(time_based=1, runtime=o.seconds, invalidate=0, size=f"{o.size}m", bs="4k")
    fio(d, "random", rw="write", bs="1m", size=f"{o.size}m")
    yield "random read 4 KiB", fio(d, "random", rw="randread", numjobs=2, **timed)["read"]["iops"]
    yield "random write 4 KiB", fio(d, "random", rw="randwrite", **timed)["write"]["iops"]
    yield "4 KiB write + fdatasync", fio(d, "random", rw="randwrite", fdatasync=1, **timed)["write"]["iops"]
    j = fio(d, "random", rw="randrw", **{**timed, "ioengine": "mmap"})
    yield "mmap random read/write 4 KiB", j["read"]["iops"] + j["write"]["iops"]


def small(d, o):
    n, data = o.files, os.urandom(4096)
    names = [f"{d}/s/{i % 50:02d}/f{i}" for i in range(n)]
    for i in range(50):
        os.makedirs(f"{d}/s/{i:02d}")

    def each(fn):
        began = time.perf_counter()
        for x in names:
            fn(x)
        return n / (time.perf_counter() - began)

    def put(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, data)
        os.close(fd)

    def get(path):
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 8192)
        os.close(fd)
    yield "create 4 KiB file", each(put)
    yield "stat", each(os.stat)
    yield "open, read, close", each(get)
    drop_caches()
    began = time.perf_counter()
    found = subprocess.run(["find", f"{d}/s", "-type", "f", "-size", "+0"], capture_output=True, check=True).stdout.count(b"\n")
    assert found == n, f"find: {found} of {n}"
    yield "find, cold", n / (time.perf_counter() - began)
    yield "rename", each(lambda x: os.rename(x, x + "~"))
    names = [x + "~" for x in names]
    yield "unlink", each(os.unlink)


def tree(d, o):
    archive = o.work / "tree.tar"
    if not archive.exists():
        subprocess.run(["tar", "cf", str(archive), "-C", "/usr", "include"], check=True)
    count = subprocess.run(["tar", "tf", str(archive)], capture_output=True, check=True).stdout.count(b"\n")
    began = time.perf_counter()
    subprocess.run(["tar", "xf", str(archive), "-C", str(d)], check=True)
    yield "untar, files/s", count / (time.perf_counter() - began)
    began = time.perf_counter()
    subprocess.run(f"tar cf - -C {d} include | cat >/dev/null", shell=True, check=True)
    yield "tar, files/s", count / (time.perf_counter() - began)


GROUPS = dict(stream=stream, random=random_, small=small, tree=tree)


def measure(subject, groups, o):
    work = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=o.work))
    figures = {}
    try:
        d = subject.open(work)
        try:
            for g in groups:
                for name, value in GROUPS[g](d, o):
                    figures[name] = value
        finally:
            subject.close()
    except Exception as e:  # noqa: BLE001  (one peer that fails must not end the comparison)
        print(f"{subject.name}: {e!r:.500}", file=sys.stderr)
    shutil.rmtree(work, ignore_errors=True)
    return figures


def beside(results, subject, peer):
    """The ratios of one subject to another, with their geometric mean and the lowest."""
    ratios = {f: v / results[peer][f] for f, v in results[subject].items() if results[peer].get(f)}
    mean = math.exp(sum(math.log(r) for r in ratios.values()) / len(ratios))
    low = min(ratios, key=ratios.get)
    return f"{subject} / {peer}: geometric mean {mean:.2f}, lowest {ratios[low]:.2f} ({low})\n  " + "; ".join(f"{f} {r:.2f}" for f, r in ratios.items())


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ap.add_argument("--quick", action="store_true", help="one short round")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--only", default="", help="subjects, with commas")
    ap.add_argument("--work", dest="groups", default="stream,random,small,tree")
    ap.add_argument("--dir", default=tempfile.gettempdir(), help="where to work; decides the file system below")
    ap.add_argument("--out", default=str(TOP / "build" / "bench"))
    o = ap.parse_args()
    o.size, o.files, o.seconds = (64, 2000, 1) if o.quick else (512, 10000, 3)
    o.rounds = 1 if o.quick else o.rounds
    groups = [g for g in o.groups.split(",") if g]
    if not shutil.which("fio"):
        print("fio is not installed: no stream and random figures", file=sys.stderr)
        groups = [g for g in groups if g not in ("stream", "random")]
    o.work = pathlib.Path(tempfile.mkdtemp(prefix="tandem-bench-", dir=o.dir))
    try:
        chosen = [s for s in subjects(o.work) if not o.only or s.name in o.only.split(",")]
        rounds = {s.name: [] for s in chosen}
        for number in range(o.rounds):
            for s in chosen:
                print(f"round {number + 1}: {s.name}", file=sys.stderr)
                rounds[s.name].append(measure(s, groups, o))
    finally:
        shutil.rmtree(o.work, ignore_errors=True)
    results = {name: report.median(r) for name, r in rounds.items()}
    info = report.machine(o.dir)
    info["features"] = next((s.features for s in chosen if isinstance(s, Tandem)), {})
    base = "native" if "native" in results else None
    print(f"{info['cpu']}, {info['cores']} cores, Linux {info['kernel']}, {info['file_system']}; median of {o.rounds}; in parentheses: share of native\n")
    print(report.table(results, base))
    for subject, peer in (("tandemfs", "passthrough_ll"), ("tandemfs", "passthrough_hp"), ("tandemfs+standby", "tandemfs")):
        if results.get(subject) and results.get(peer):
            print("\n" + beside(results, subject, peer))
    print("\nlibfuse and what is in use of it: " + ", ".join(f"{k} {v}" for k, v in info["features"].items()))
    note = f"{info['cpu']}, {info['cores']} cores, Linux {info['kernel']}, {info['file_system']}; share of native, logarithmic"
    report.write(o.out, "fs", results, info, report.chart(results, "The mount beside the directory below", note, log_floor=0.005, base=base))


if __name__ == "__main__":
    main()
