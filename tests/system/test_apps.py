# SPDX-License-Identifier: BSD-2-Clause
"""Programs that lean on their file system: databases, git, a compiler. They work on the mount, and the standby's copy is good."""
import mmap
import os
import pathlib
import pwd
import shutil
import sqlite3
import struct
import subprocess
import threading

import pytest

from lib import tree


@pytest.fixture
def pair(site):
    """A mirror in sync."""
    standby = site.standby()
    source = site.source([standby.url()])
    standby.start()
    source.start()
    source.wait()
    source.copy = standby.dir
    return source


def same(source):
    source.wait()
    diff = tree.differences(source.dir, source.copy)
    assert not diff, "\n".join(diff)


def run(*argv, cwd):
    r = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert r.returncode == 0, f"{argv}: {r.stdout}{r.stderr}"
    return r.stdout


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def test_sqlite_wal(pair):
    """A writer and readers in WAL mode, whose index is a shared mapping, from two connections each."""
    path = pair.dir / "db.sqlite"
    db = sqlite3.connect(path)
    assert db.execute("pragma journal_mode = wal").fetchone() == ("wal",)
    db.execute("create table t (k integer primary key, v blob)")
    db.commit()
    wrong, done = [], threading.Event()

    def reader():
        own = sqlite3.connect(path, timeout=30)
        last = 0
        while not done.is_set():
            n, top = own.execute("select count(*), coalesce(max(k), 0) from t").fetchone()
            if n != top or n < last:
                wrong.append(f"{n} rows, {top} the highest, {last} before")
            last = n
        own.close()
    readers = [threading.Thread(target=reader) for _ in range(3)]
    for t in readers:
        t.start()
    for k in range(1, 301):
        db.execute("insert into t values (?, ?)", (k, os.urandom(500)))
        if k % 10 == 0:
            db.commit()
        if k % 100 == 0:
            db.execute("pragma wal_checkpoint(truncate)")
    db.commit()
    done.set()
    for t in readers:
        t.join()
    assert not wrong, wrong[:5]
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    pair.wait()
    shutil.copytree(pair.copy, pair.copy.parent / "looked-at", ignore=shutil.ignore_patterns(".tandem"))
    copy = sqlite3.connect(pair.copy.parent / "looked-at" / "db.sqlite")
    assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
    assert copy.execute("select count(*) from t").fetchone() == (300,)
    copy.close()
    db.close()
    same(pair)


def test_a_mapped_database(pair):
    """As LMDB does it: pages are written with pwrite, read through a read-only mapping by others; then stored through a mapping."""
    path, pages = pair.dir / "data.mdb", 64
    with open(path, "w+b") as f:
        f.truncate(pages * 4096)
        reader = os.open(path, os.O_RDONLY)
        with mmap.mmap(reader, pages * 4096, mmap.MAP_SHARED, mmap.PROT_READ) as seen:
            for txn in range(1, 200):
                page = 2 + txn % (pages - 2)
                os.pwrite(f.fileno(), struct.pack("<QQ", txn, page) * 256, page * 4096)
                os.fdatasync(f.fileno())
                os.pwrite(f.fileno(), struct.pack("<QQ", txn, page), (txn % 2) * 4096)
                meta = struct.unpack_from("<QQ", seen, (txn % 2) * 4096)
                assert meta == (txn, page)
                assert struct.unpack_from("<QQ", seen, meta[1] * 4096 + 2048) == meta
        os.close(reader)
        with mmap.mmap(f.fileno(), pages * 4096) as stores:  # its writemap mode
            for txn in range(200, 300):
                page = 2 + txn % (pages - 2)
                stores[page * 4096:page * 4096 + 16] = struct.pack("<QQ", txn, page)
                stores.flush(page * 4096, 4096)
                assert os.pread(f.fileno(), 16, page * 4096) == struct.pack("<QQ", txn, page)
    same(pair)


@needs("git")
def test_git(pair):
    """Commits, branches, packs, a clone and gc."""
    repo = pair.dir / "repo"
    repo.mkdir()
    env = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "gc.auto=0"]

    def git(*args, cwd=repo):
        return run("git", *env, *args, cwd=cwd)
    git("init", "-q")
    for n in range(5):
        for f in range(20):
            (repo / f"dir{f % 4}").mkdir(exist_ok=True)
            (repo / f"dir{f % 4}" / f"file{f}").write_text(f"{n} {f}\n" * (f + 1) * 20)
        git("add", "-A")
        git("commit", "-q", "-m", f"commit {n}")
    git("checkout", "-q", "-b", "other", "HEAD~2")
    (repo / "only-here").write_text("x")
    git("add", "-A")
    git("commit", "-q", "-m", "aside")
    git("repack", "-q", "-a", "-d")
    git("gc", "-q", "--prune=now")
    git("checkout", "-q", "-")
    git("merge", "-q", "--no-edit", "other")
    git("clone", "-q", str(repo), str(pair.dir / "clone"), cwd=pair.dir)
    git("fsck", "--strict")
    same(pair)
    run("git", "-c", "safe.directory=*", "fsck", "--strict", cwd=pair.copy / "clone")


@needs("gcc")
@needs("make")
def test_a_compiler(pair):
    """A parallel build with objects, an archive and a program that runs from the mount."""
    d = pair.dir / "build"
    d.mkdir()
    for n in range(12):
        (d / f"f{n}.c").write_text(f'#include <stdio.h>\nint f{n}(void) {{ return {n}; }}\n')
    calls = " + ".join(f"f{n}()" for n in range(12))
    (d / "main.c").write_text("\n".join(f"int f{n}(void);" for n in range(12)) + f"\nint main(void) {{ return {calls} == 66 ? 0 : 1; }}\n")
    objects = " ".join(f"f{n}.o" for n in range(12))
    (d / "Makefile").write_text(f"prog: main.o lib.a\n\tgcc -g -o $@ main.o lib.a\nlib.a: {objects}\n\tar rcs $@ $^\n%.o: %.c\n\tgcc -g -O1 -MMD -c -o $@ $<\n")
    run("make", "-s", "-j4", cwd=d)
    run("./prog", cwd=d)
    os.utime(d / "f3.c")
    assert "f3.c" in run("make", "-j4", cwd=d)
    assert "up to date" in run("make", cwd=d)
    same(pair)
    run("./prog", cwd=pair.copy / "build")


def postgres_programs():
    """Where PostgreSQL's programs are, or None."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found and shutil.which("runuser") and "postgres" in [u.pw_name for u in pwd.getpwall()] else None


@pytest.mark.skipif(os.geteuid() != 0 or not postgres_programs(), reason="needs root and PostgreSQL")
def test_postgresql(pair):
    """A cluster on the mount under load, killed and started again; then one on what the standby has."""
    bin_ = postgres_programs()

    def sql(data, text):
        return run("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-h", str(data), "-d", "postgres", "-c", text, cwd="/")

    def pg(program, *args):
        return run("runuser", "-u", "postgres", "--", str(bin_ / program), *args, cwd="/")

    def start(data):
        pg("pg_ctl", "-s", "-w", "-D", str(data), "-l", str(data / "log"), "-o", f"-k {data} -c listen_addresses=''", "start")

    def stop(data, mode):
        pg("pg_ctl", "-D", str(data), "-m", mode, "-w", "-s", "stop")
    for d in (pair.dir, *pair.dir.parents, *pair.copy.parents):
        if d.parts[:3] == pair.dir.parts[:3]:
            d.chmod(0o755)
    data = pair.dir / "pg"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    pg("initdb", "-D", str(data), "-A", "trust", "--no-instructions")
    start(data)
    try:
        pg("pgbench", "-q", "-h", str(data), "-i", "-s", "1", "postgres")
        pg("pgbench", "-h", str(data), "-c", "4", "-t", "100", "postgres")
        stop(data, "immediate")  # no checkpoint: the next start recovers from its log
        start(data)
        assert sql(data, "select count(*) from pgbench_history").strip() == "400"
        sql(data, "create extension amcheck; select bt_index_parent_check(oid, true) from pg_class where relkind = 'i' and relname like 'pgbench%'")
        sql(data, "create table t as select g, md5(g::text) from generate_series(1, 20000) g; create index on t (md5); reindex table t")
        sql(data, "vacuum full t")
        pg("pgbench", "-h", str(data), "-c", "4", "-t", "50", "postgres")
        pair.wait()
    finally:
        stop(data, "fast")
    same(pair)
    copy = pair.copy.parent / "started"
    shutil.copytree(pair.copy / "pg", copy)
    run("chown", "-R", "postgres:postgres", str(copy), cwd="/")
    copy.chmod(0o700)
    start(copy)
    try:
        assert sql(copy, "select count(*) from pgbench_history, (select count(*) from t) x where x.count = 20000").strip() == "200"  # pgbench begins anew
    finally:
        stop(copy, "fast")
