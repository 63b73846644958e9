# SPDX-License-Identifier: BSD-2-Clause
"""An ordinary user mounts and mirrors a directory of his own."""
import os
import shutil
import subprocess

import pytest

from lib import tree
from lib.procs import program
from lib.wait import wait_until

NOBODY = 65534


@pytest.fixture
def user_pair(site, fuse_for_users):
    standby = site.standby()
    standby.as_user = NOBODY
    standby.write_config()
    for p in (standby.secrets, standby.config, standby.dir):
        os.chown(p, NOBODY, NOBODY)
    (site.dir / "standby.state").mkdir()
    os.chown(site.dir / "standby.state", NOBODY, NOBODY)
    standby.start(config=False)
    source = site.source([standby.url()])
    source.as_user = NOBODY
    source.state.mkdir()
    for p in (source.dir, source.state):
        os.chown(p, NOBODY, NOBODY)
    source.start()
    return source, standby


def as_nobody(*argv):
    return subprocess.run([str(a) for a in argv], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=True).stdout


@pytest.mark.root
def test_user_mirrors_his_directory(user_pair):
    source, standby = user_pair
    as_nobody("sh", "-c", f"cd {source.dir}; echo hello >file; mkdir dir; ln -s file link; ln file second; mkfifo fifo; chmod 750 dir")
    wait_until(lambda: (standby.dir / "file").read_text() == "hello\n", "the file on the standby")
    r = subprocess.run([str(a) for a in (program("tandemctl"), "--config", source.config, "wait", "m", "--timeout", 30)],
                       user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout + r.stderr
    source.end()
    source.wait_gone()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.root
def test_doctor_looks_at_mirrors_without_a_configuration_file(site):
    """Those that were started with --target are found where tandemfs keeps their state."""
    if os.path.exists("/etc/tandem/mirrors.conf"):
        pytest.skip("there is a configuration file")
    state = site.dir / "xdg" / "tandem" / "data"
    for p in (state.parent.parent, state.parent, state):
        p.mkdir()
        os.chown(p, 65534, 65534)
        p.chmod(0o700)
    r = subprocess.run([program("tandemctl"), "doctor"], capture_output=True, text=True, timeout=60, check=False, user=65534, group=65534, extra_groups=[],
                       env={**site.environment(), "XDG_STATE_HOME": str(state.parent.parent)})
    assert "data mount: does not run" in r.stdout and "ok   data state directory" in r.stdout, r.stdout


def test_user_random_operations(site, user_pair):
    source, standby = user_pair
    shutil.copytree(os.path.dirname(tree.__file__), site.dir / "load" / "lib")  # the sources may be in a private directory
    r = subprocess.run(["/usr/bin/python3", "-m", "lib.workload", str(source.dir), "--seed", "5", "--ops", "800"], cwd=site.dir / "load",
                       user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout + r.stderr
    r = subprocess.run([str(a) for a in (program("tandemctl"), "--config", source.config, "wait", "m", "--timeout", 60)],
                       user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout + r.stderr
    source.end()
    source.wait_gone()
    tree.assert_same(source.dir, standby.dir)


@pytest.mark.root
def test_standby_without_root_says_what_it_cannot_keep(site):
    """The source runs as root and has foreign owners; the standby cannot set them and says so."""
    standby = site.standby()
    standby.as_user = NOBODY
    standby.write_config()
    (site.dir / "standby.state").mkdir()
    for p in (standby.secrets, standby.config, standby.dir, site.dir / "standby.state"):
        os.chown(p, NOBODY, NOBODY)
    standby.start(config=False)
    source = site.source([standby.url()]).start()
    (source.dir / "file").write_text("x")
    os.chown(source.dir / "file", 1000, 1000)
    source.wait()
    tree.assert_same(source.dir, standby.dir, owners=False)
    assert "owner" in (source.log() + source.ctl("status", "m").stdout + standby.log()).lower()


@pytest.mark.root
def test_module_uid(site):
    """uid and gid of a module: the daemon is root, its child is not."""
    standby = site.standby()
    standby.modules["m"].update({"uid": "nobody", "gid": "nogroup"})
    os.chown(standby.dir, NOBODY, NOBODY)
    standby.start()
    source = site.source([standby.url()]).start()
    (source.dir / "file").write_text("x")
    source.wait()
    assert (standby.dir / "file").stat().st_uid == NOBODY
    child, = standby.children()[:1]
    with open(f"/proc/{child}/status", encoding="ascii") as f:
        assert f"Uid:\t{NOBODY}\t{NOBODY}" in f.read()
    tree.assert_same(source.dir, standby.dir, owners=False)


@pytest.mark.root
@pytest.mark.parametrize("size", [1, 2 << 20])
def test_attributes_that_the_standby_may_not_set(site, size):
    """They are shown as an error; the file is there all the same, and follows its changes."""
    standby = site.standby()
    standby.modules["m"].update({"uid": "nobody", "gid": "nogroup"})
    os.chown(standby.dir, NOBODY, NOBODY)
    standby.start()
    source = site.source([standby.url()]).start()
    source.wait()
    for text in ("first", "second"):
        assert source.ctl("pause", "m").returncode == 0
        for name in ("a", "b"):
            with open(source.dir / name, "ab") as f:
                f.write(text.encode() + bytes(size))
            os.setxattr(source.dir / name, "trusted.name", b"value")
        assert source.ctl("resume", "m").returncode == 0
        for name in ("a", "b"):
            wait_until(lambda: (standby.dir / name).read_bytes() == (source.dir / name).read_bytes(), f"the bytes of {name}")
        source.wait_error("not permitted")
    for name in ("a", "b"):
        os.removexattr(source.dir / name, "trusted.name")
    source.wait()
    tree.assert_same(source.dir, standby.dir, owners=False)
