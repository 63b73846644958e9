# SPDX-License-Identifier: BSD-2-Clause
"""What cannot be mounted is refused with a sentence, and leaves nothing behind."""
import fcntl
import os
import re
import socket
import subprocess
import threading

import pytest

from lib.procs import TOP, Process, mounted, processes, program
from lib.wait import wait_until


@pytest.fixture
def source(site):
    return site.source(["tandem://u@127.0.0.1:1/m"])


def refused(source, *words):
    source.start(wait_mount=False, config=not source.config.exists())
    assert source.wait_exit() != 0
    for w in words:
        assert w in source.log(), source.log()
    assert not processes(str(source.config))


def test_source_missing(source):
    source.dir.rmdir()
    refused(source, str(source.dir))


def test_source_is_a_file(source):
    source.dir.rmdir()
    source.dir.touch()
    refused(source, str(source.dir), "directory")
    source.dir.unlink()


def test_mounted_again_while_what_was_killed_still_ends(source):
    """A killed process's children have its lock until they have ended."""
    source.start()
    source.stop()
    gone = subprocess.Popen(["true"])
    gone.wait()
    with open(source.state / source.name / "lock", "r+", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"{gone.pid}\n")
        lock.flush()
        threading.Timer(1, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        source.start()
    source.stop()


def test_mounted_twice(source, site):
    source.start()
    again = Process(site, "again")
    site.extra.append(again)
    again.spawn(program("tandemfs"), "--config", source.config, "--foreground", source.name)
    assert again.wait_exit() != 0
    assert "already" in again.log(), again.log()
    assert str(source.popen.pid) in again.log() or str(source.dir) in again.log(), again.log()
    (source.dir / "works").write_text("x")


def test_second_mirror_of_the_same_source(source, site):
    """Another name, another state directory, the same directory."""
    source.start()
    other = site.source(["tandem://u@127.0.0.1:1/m"], name="other")
    other.keys["source"] = source.dir
    other.start(wait_mount=False)
    assert other.wait_exit() != 0
    assert "another mirror" in other.log(), other.log()
    assert mounted(source.dir)


def test_state_directory_is_a_file(source):
    source.state.touch()
    refused(source, str(source.state))


def test_state_directory_inside_the_source(source):
    source.state = source.dir / "state"
    refused(source, "state dir")


@pytest.mark.root
def test_state_directory_without_permission(source, fuse_for_users):
    source.as_user = 65534
    os.chown(source.dir, 65534, 65534)
    source.state.mkdir(mode=0o700)
    refused(source, str(source.state))


def test_unknown_mirror_name(source):
    source.write_config()
    source.name = "nosuch"
    refused(source, "nosuch")
    source.name = "m"


def test_no_configuration(source):
    source.config.parent.mkdir(exist_ok=True)
    source.start(config=False, wait_mount=False)
    assert source.wait_exit() != 0
    assert str(source.config) in source.log()


def test_configuration_beside_a_target(source):
    """One of them would not count."""
    source.write_config()
    r = subprocess.run([program("tandemfs"), "--config", source.config, "--target", "tandem://u@127.0.0.1/m", "--password-file", source.password,
                        "--state-dir", source.state, "/nonexistent"], capture_output=True, text=True, timeout=60, check=False)
    assert r.returncode == 2 and "--config" in r.stderr, r.stderr


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_is_told_when_the_mount_is_there(source, abstract):
    """So that systemd starts nothing before it that is ordered after it, which would write into the directory below."""
    path = f"@{source.site.dir}/notify" if abstract else f"{source.site.dir}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path.replace("@", "\0"))
        s.settimeout(20)
        source.env["NOTIFY_SOCKET"] = path
        source.start(wait_mount=False)
        assert s.recv(100) == b"READY=1" and mounted(source.dir)
    assert re.search("^Type=notify$", (TOP / "contrib/systemd/tandemfs@.service").read_text(), re.M)


@pytest.mark.parametrize("name", ["a #1", "blank ", "backslash\\", "line\nbreak"])
def test_source_that_no_configuration_can_name(site, name):
    """The replicator could not be started, again and again."""
    src = site.dir / name
    src.mkdir()
    p = Process(site, "adhoc")
    site.extra.append(p)
    p.spawn(program("tandemfs"), "--foreground", "--target", "tandem://u@127.0.0.1:1/m", "--password-file", site.dir / "pw", "--state-dir", site.dir / "adhoc.state", src)
    wait_until(lambda: not p.running or mounted(src), p.log)
    assert not mounted(src) and p.wait_exit() == 1 and "rename it" in p.log(), p.log()


@pytest.mark.parametrize("name", ["plain", "a]b", "global", "two  blanks", " blank", "x" * 70])
def test_target_url_on_the_command_line(site, name):
    """Without a configuration file."""
    from lib import tree
    from lib.procs import PASSWORD, write_secret
    standby = site.standby().start()
    src, password = site.dir / name, site.dir / "pw"
    src.mkdir()
    write_secret(password, PASSWORD + "\n")
    p = Process(site, "adhoc")
    site.extra.append(p)
    old = os.environ.get("XDG_STATE_HOME")
    try:
        p.spawn(program("tandemfs"), "--foreground", "--target", standby.url(), "--password-file", password, "--state-dir", os.path.relpath(site.dir) + "/./adhoc.state", src)
        wait_until(lambda: mounted(src) or not p.running, lambda: p.log())
        assert p.running, p.log()
        (src / "file").write_text("x")
        wait_until(lambda: not tree.differences(src, standby.dir), lambda: str(tree.differences(src, standby.dir)))
    finally:
        p.end()
        if old:
            os.environ["XDG_STATE_HOME"] = old
    assert not mounted(src)
