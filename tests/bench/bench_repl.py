#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How soon, and with how many bytes, a change is on the standby: ours beside lsyncd, inotifywait + rsync, rsync and unison.

    bench_repl.py [--quick] [--only TOOL,...] [--work WORK,...] [--tree FILES] [--small BYTES] [--large MIB] [--dir DIR] [--out DIR]

Tools: tandem, lsyncd (delay 1 s), inotify (inotifywait starting rsync per event), rsync (started by hand after the change, as
from cron, without the waiting), unison (-repeat watch); those that are not installed are left out. Works:
  latency     a file of 4 KiB closed -> the same bytes on the standby, median and 99th percentile
  beside      the same while a large file is being copied
  fsync       a file that stays open, fsynced writes -> there
  burst       many files of 4 KiB in a loop -> all there; CPU per file
  sustained   5000 files per second for a minute: lag
  delta       100 random 4 KiB overwrites in a large file, and in a sparse one of 100 GiB
  append, rename, copies, coalescing, insertion     bytes on the wire
  tree        a tree that is there already on both sides: start, latency in it, memory, restart
  first       first copy of small files; comparison of equal trees
  large       first copy of a large file
  slow        first copy of small files through 20 ms and 100 Mbit/s: random bytes
  slowtext    the same with program text
  sparse, targets, bwlimit, compress, idle          tandem alone
Lower is better unless the unit says otherwise. As root the benchmark runs in a network of its own, so that bytes on the loopback
are its own. Directories are removed at the end of all works: a file system in which much was just deleted makes new files slowly.
"""
import argparse
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from bench import report  # noqa: E402
from bench.repl_tools import NEVER, TOOLS, own_network  # noqa: E402
from bench.repl_works import WORKS, serves  # noqa: E402
from lib.procs import TOP  # noqa: E402

# What a figure of ours must reach: beginning of its name, relation, limit, and what the limit is a share of (None: nothing).
GOALS = [
    ("latency p50", "<=", 1, None), ("latency p99", "<=", 5, None), ("latency beside", "<=", 20, None),
    ("open file after fsync", "<=", 20, None), ("5000 files, s after", "<=", 0.2, None), ("CPU per small file", "<=", 100, None),
    ("100 changes in 1024 MiB, s", "<=", 0.05, None), ("100 changes in 1024 MiB, wire", "<=", 439, None),
    ("100 changes in 100 GiB, sparse, s", "<=", 0.05, None), ("100 changes in 100 GiB, sparse, wire", "<=", 439, None),
    ("insertion", "<=", 1, None), ("rename of 1000 files, wire", "<=", 1.95, None), ("rename of 1024 MiB, wire", "<=", 1.95, None),
    ("copy_file_range", "<=", 1.95, None), ("reflink", "<=", 1.95, None), ("first copy of 100000", "<=", 0.5, "rsync"),
    ("first copy of 10000 small files of random bytes, 20", "<=", 0.5, "rsync"),
    ("first copy of 10000 small files of text, 20", "<=", 0.5, "rsync"), ("comparison of", "<=", 0.7, "rsync"), ("latency among 100000 files p50", "<=", 1, None),
    ("latency among 100000 files p99", "<=", 5, None), ("memory of the", "<=", 64, None), ("restart", "<=", 1, None),
    ("CPU of the source, three", "<=", 2, None), ("text over", ">=", 70, None), ("idle mount, most", "<=", 1, None),
    ("idle replicator, most", "<=", 1, None), ("idle daemon, most", "<=", 1, None),
    ("sustained, growth of the lag", "<=", 20, None),
    ("10 saves", "<=", 1100, None), ("200 files of", "<=", 4, None),
]


def goal(figure, ours, results):
    """The goal of a figure as text, and whether it is met; empty if there is none."""
    for name, relation, limit, of in GOALS:
        if not figure.startswith(name):
            continue
        base = 1 if of is None else results.get(of, {}).get(figure)
        if base is None:
            return f"{relation} {limit:g} of {of}"
        value = ours[figure] / base if base else 0
        met = value <= limit if relation == "<=" else value >= limit
        text = f"{relation} {limit:g}" + (f" of {of} ({value:.2f})" if of else "")
        return f"{text}: {'met' if met else 'MISSED'}"
    return ""


def measure(name, works, o):
    figures = {}
    for w in works:
        if not serves(w, TOOLS[name][0]):
            continue
        print(f"{name}: {w}", file=sys.stderr)
        work = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=o.work))
        work.chmod(0o755)
        try:
            tool = TOOLS[name][0](work)
            tool.name = name
            try:
                for figure, value in WORKS[w](tool, o):
                    figures[figure] = value
            finally:
                tool.stop()
        except Exception as e:  # noqa: BLE001  (one peer that fails must not end the comparison)
            print(f"{name}, {w}: {e!r:.800}", file=sys.stderr)
    return figures


def options():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ap.add_argument("--quick", action="store_true", help="less of everything")
    ap.add_argument("--only", default="", help="tools, with commas")
    ap.add_argument("--work", dest="works", default=",".join(WORKS))
    ap.add_argument("--dir", default=tempfile.gettempdir(), help="where to work; decides the file system below")
    ap.add_argument("--tree", type=int, help="files of a tree")
    ap.add_argument("--small", type=int, default=100, help="bytes of each of them in the work tree")
    ap.add_argument("--large", type=int, help="MiB of a large file")
    ap.add_argument("--out", default=str(TOP / "build" / "bench"))
    o = ap.parse_args()
    o.count, o.burst, o.moved, o.seconds = (40, 500, 100, 6) if o.quick else (400, 5000, 1000, 60)
    o.large = o.large or (64 if o.quick else 1024)
    o.tree = o.tree or (2000 if o.quick else 100000)
    o.samples = {}
    return o


def plots(o, note):
    """Latencies by share of files, lag over time."""
    if o.samples.get("latency"):
        lines = {t: [((i + 1) / len(v) * 100, x) for i, x in enumerate(v)] for t, v in o.samples["latency"].items()}
        report.save(o.out, "repl-latency.svg", report.lines(lines, "close() to readable on the standby", note, "% of the files", "ms, logarithmic", log=True))
    if o.samples.get("lag"):
        report.save(o.out, "repl-lag.svg", report.lines(o.samples["lag"], "Lag at 5000 small files per second", note, "s", "s behind"))


def show(results, o):
    info = report.machine(o.dir)
    note = f"{info['cpu']}, {info['cores']} cores, Linux {info['kernel']}, {info['file_system']}, loopback"
    base = "tandem" if "tandem" in results else None
    goals = {f: goal(f, results[base], results) for f in results[base]} if base else None
    print(f"{note}; lower is better; in parentheses: times as much as tandem; {NEVER:g} s: never arrived\n")
    print(report.table(results, base, goals))
    report.write(o.out, "repl", results, {**info, "samples": o.samples, "goals": goals},
                 report.chart(results, "A change on its way to the standby", note + "; logarithmic, shorter is better", log_floor=0.001))
    wires = {t: {f: v for f, v in r.items() if "wire" in f} for t, r in results.items()}
    if any(wires.values()):
        report.save(o.out, "repl-wire.svg", report.chart(wires, "Bytes on the wire", note + "; logarithmic", log_floor=0.1))
    plots(o, note)


def main():
    o = options()
    own_network()
    o.work = pathlib.Path(tempfile.mkdtemp(prefix="tandem-bench-", dir=o.dir))
    o.work.chmod(0o755)
    names = [n for n, (_, need) in TOOLS.items() if (not o.only or n in o.only.split(",")) and (not need or shutil.which(need) and shutil.which("rsync"))]
    try:
        results = {n: measure(n, [w for w in o.works.split(",") if w], o) for n in names}
        show(results, o)
    finally:
        shutil.rmtree(o.work, ignore_errors=True)


if __name__ == "__main__":
    main()
