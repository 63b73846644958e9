# SPDX-License-Identifier: BSD-2-Clause
"""tandemd --check on files that people have: every fault with file:line and a remedy, nothing silently ignored."""
import os
import pathlib
import re
import subprocess

import pytest

from lib.procs import TOP, program

SAMPLES = TOP / "tests" / "samples" / "rsyncd"


def check(path):
    r = subprocess.run([program("tandemd"), "--config", str(path), "--check"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    return r.returncode, r.stdout + r.stderr


def findings(path):
    """Return the exit status and {line: text of the errors there}."""
    code, text = check(path)
    found = {}
    for m in re.finditer(r"^\S+?:(\d+): (?:error: )?(.*)$", text, re.M):
        if f"{path}:{m[1]}: notice" not in m[0]:
            found[int(m[1])] = found.get(int(m[1]), "") + " " + m[2]
    return code, found, text


def line_of(path, pattern, nth=1):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [i for i, line in enumerate(lines, 1) if re.search(pattern, line)][nth - 1]


@pytest.mark.parametrize("name", ["backup-www", "gitlab-pair", "inotify-target", "lsyncd-target", "sersync-target", "sersync-target-clean", "simple-path"])
def test_every_sample_is_read(name):
    code, text = check(SAMPLES / f"{name}.conf")
    assert code in (0, 1), text
    assert "unknown key" not in text.lower(), text


def test_comment_after_a_value():
    path = SAMPLES / "sersync-target.conf"
    code, found, text = findings(path)
    assert code == 1
    for key in ("uid", "use chroot", "max connections", "timeout", "path", "read only", "list", "hosts allow", "auth users", "secrets file"):
        assert line_of(path, rf"^{key} = .*#") in found, f"{key}: {text}"
    assert "comment" in found[line_of(path, r"^uid")], text


def test_text_after_a_section_header():
    path = SAMPLES / "sersync-target.conf"
    _, found, text = findings(path)
    assert line_of(path, r"^\[data\]") in found, text


def test_duplicate_module():
    path = SAMPLES / "gitlab-pair.conf"
    code, found, text = findings(path)
    assert code == 1
    assert "gitlab_path1" in found[line_of(path, r"^\[gitlab_path1\]", 2)], text
    assert str(line_of(path, r"^\[gitlab_path1\]", 1)) in found[line_of(path, r"^\[gitlab_path1\]", 2)], text


@pytest.mark.parametrize("second", ["@/data", "@/data/", "@/./data", "@/link"])
def test_two_modules_of_one_directory(tmp_path, second):
    (tmp_path / "link").symlink_to("data")
    path = write(tmp_path, GOOD + f"[n]\npath = {second}\nauth users = user\nsecrets file = @/secrets\n")
    code, found, text = findings(path)
    assert code == 1 and "[m]" in found[9], text


def test_a_module_within_another(tmp_path):
    """What the outer one's source lacks is deleted there."""
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/inner")
    path = write(tmp_path, GOOD + "[n]\npath = @/link\nauth users = user\nsecrets file = @/secrets\n")
    code, text = check(path)
    assert code == 0 and re.search(r":9: notice: .*\[n\] lies in the directory of module \[m\]", text), text
    (tmp_path / "data-2").mkdir()
    path = write(tmp_path, GOOD + "[n]\npath = @/data-2\nauth users = user\nsecrets file = @/secrets\n")
    assert check(path)[0] == 0 and "lies in" not in check(path)[1]


def test_tab_comment_after_nobody():
    path = SAMPLES / "gitlab-pair.conf"
    _, found, text = findings(path)
    assert line_of(path, r"^uid") in found and line_of(path, r"^log file") in found, text


def test_user_that_does_not_exist():
    path = SAMPLES / "backup-www.conf"
    code, found, text = findings(path)
    assert code == 1
    assert "www" in found[line_of(path, r"^uid")], text


def test_keys_without_meaning_are_explained():
    code, text = check(SAMPLES / "backup-www.conf")
    for key in ("fake super", "ignore errors"):
        assert re.search(rf"notice.*{key}", text, re.I), f"{key}: {text}"
    del code


def test_hosts_deny_that_denies_nobody():
    """rsync lets everyone in with `hosts allow = X`, `hosts deny = 0.0.0.0/32`; here X alone gets in, and the file says so."""
    _, text = check(SAMPLES / "lsyncd-target.conf")
    assert re.search(r"hosts deny", text), text


def write(tmp_path, text):
    for n in ("data", "state"):
        (tmp_path / n).mkdir(exist_ok=True)
    (tmp_path / "secrets").write_text("user:a-good-password\n")
    (tmp_path / "secrets").chmod(0o600)
    path = tmp_path / "modules.conf"
    path.write_text(text.replace("@", str(tmp_path)))
    return path


GOOD = "port = 18730\nstate dir = @/state\n[m]\npath = @/data\nauth users = user\nsecrets file = @/secrets\nread only = no\n"


@pytest.mark.smoke
def test_good_file(tmp_path):
    code, text = check(write(tmp_path, GOOD))
    assert code == 0, text


@pytest.mark.parametrize("spelling", ["auth users = user", "AuthUsers = user", "auth_users = user", "AUTH  USERS=user"])
def test_key_spellings(tmp_path, spelling):
    code, text = check(write(tmp_path, GOOD.replace("auth users = user", spelling)))
    assert code == 0, text


@pytest.mark.parametrize("line, expect", [
    ("reed only = no", "read only"),            # a misspelt key, with the near one named
    ("read only = maybe", "yes"),
    ("uid = no-such-user-here", "no-such-user-here"),
    ("gid = no-such-group-here", "no-such-group-here"),
    ("path = relative/dir", "absolute"),
    ("path = @/missing", "missing"),
    ("secrets file = @/no-such", "no-such"),
    ("hosts allow = 10.0.0.0/99", "10.0.0.0/99"),
    ("timeout = soon", "soon"),
    ("max connections = -x", "max connections"),
    ("just words", "="),
])
def test_bad_line(tmp_path, line, expect):
    path = write(tmp_path, GOOD + line + "\n")
    code, found, text = findings(path)
    assert code == 1, text
    number = len(GOOD.splitlines()) + 1
    assert number in found, text
    assert expect in found[number], text


@pytest.mark.parametrize("port", ["0", "70000", "x"])
def test_bad_port(tmp_path, port):
    path = write(tmp_path, GOOD.replace("18730", port))
    code, found, text = findings(path)
    assert code == 1 and 1 in found, text


def test_secrets_readable_by_others(tmp_path):
    path = write(tmp_path, GOOD)
    (tmp_path / "secrets").chmod(0o640)
    code, found, text = findings(path)
    assert code == 1 and "chmod" in found[6], text


def test_configuration_that_everybody_may_change(tmp_path):
    path = write(tmp_path, GOOD)
    path.chmod(0o646)
    code, text = check(path)
    assert code == 1 and "chmod" in text, text


def test_motd_file_is_a_link(tmp_path):
    """What a client is shown is not what somebody else links there."""
    (tmp_path / "motd").symlink_to("/etc/shadow")
    code, text = check(write(tmp_path, "motd file = @/motd\n" + GOOD))
    assert code == 0 and re.search("notice.*motd file.*nothing is shown", text), text


def test_log_file_is_a_link(tmp_path):
    """The daemon's lines do not go where somebody else linked them."""
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "log").symlink_to(target)
    path = write(tmp_path, "log file = @/log\n" + GOOD)
    r = subprocess.run([program("tandemd"), "--config", str(path), "--foreground"], capture_output=True, text=True, timeout=20, check=False)
    assert r.returncode != 0 and "log file" in r.stderr and not target.read_text(), r.stderr


@pytest.mark.parametrize("line", ["proxy protocol = yes", "pre-xfer exec = /bin/true", "post-xfer exec = /bin/true", "early exec = /bin/true", "name converter = /bin/true",
                                  "hosts allow = host.example", "hosts deny = host.example", "uid = 99999999999", "uid = -1", "max unauthenticated = 0",
                                  "max unauthenticated per address = 0"])
def test_what_would_open_a_door_stops_the_start(tmp_path, line):
    """An address by a proxy's word, programs, names that a peer's name server resolves, a number that wraps to 0, a limit that 0 switches off."""
    code, text = check(write(tmp_path, (line + "\n" + GOOD) if line.startswith(("max", "proxy")) else GOOD + line + "\n"))
    assert code == 1, text


def test_log_file_of_a_module(tmp_path):
    """rsyncd.conf may have one for each module."""
    code, text = check(write(tmp_path, GOOD + "log file = @/log\n"))
    assert code == 0 and re.search(r":8: notice: .log file. .*before the first", text), text


def test_uid_for_a_daemon_that_is_not_root(site):
    """It is told in the line of the uid, whether there is a gid or not."""
    for name in ("data", "secrets"):
        site.dir.joinpath(name).mkdir() if name == "data" else site.dir.joinpath(name).write_text("user:password\n")
    os.chmod(site.dir / "secrets", 0o600)
    os.chown(site.dir / "secrets", 65534, 65534)
    path = site.dir / "modules.conf"
    path.write_text(GOOD.replace("@", str(site.dir)) + "uid = daemon\ngid = nogroup\n")
    r = subprocess.run([program("tandemd"), "--config", path, "--check"], capture_output=True, text=True, timeout=60, check=False, user=65534, group=65534, extra_groups=[])
    assert r.returncode == 1 and f"{path}:8: error: module [m] asks for uid" in r.stderr, r.stderr


def test_auth_user_without_a_password(tmp_path):
    path = write(tmp_path, GOOD.replace("auth users = user", "auth users = user, other"))
    code, found, text = findings(path)
    assert code == 1 and any("other" in t for t in found.values()), text


def test_module_without_users(tmp_path):
    """Nobody gets in without a password, so a module without users is useless and most likely a mistake."""
    path = write(tmp_path, GOOD.replace("auth users = user\n", ""))
    code, _, text = findings(path)
    assert code == 1 and "auth users" in text, text


def test_missing_file(tmp_path):
    code, text = check(tmp_path / "none.conf")
    assert code != 0 and "none.conf" in text


def test_all_errors_at_once(tmp_path):
    path = write(tmp_path, GOOD + "reed only = no\ntimeout = soon\n[m]\npath = @/data\n")
    _, found, text = findings(path)
    assert len(found) >= 3, text


def test_start_refuses_what_check_refuses(tmp_path):
    path = write(tmp_path, GOOD + "reed only = no\n")
    r = subprocess.run([program("tandemd"), "--config", str(path), "--foreground"], capture_output=True, text=True, timeout=20, check=False)
    assert r.returncode != 0 and f"{path}:8" in r.stdout + r.stderr, r.stdout + r.stderr


@pytest.mark.parametrize("line, expect", [
    ("sauce = /x", "source"), ("target = http://x/y", "http://x/y"), ("delete = perhaps", "perhaps"), ("compress = lzma", "lzma"),
    ("journal limit = much", "much"), ("source = relative", "relative")])
def test_bad_mirrors_conf(tmp_path, line, expect):
    (tmp_path / "src").mkdir()
    path = tmp_path / "mirrors.conf"
    path.write_text(f"state dir = {tmp_path}/state\n[m]\nsource = {tmp_path}/src\ntarget = tandem://u@127.0.0.1/m\npassword file = {tmp_path}/pw\n{line}\n")
    r = subprocess.run([program("tandemfs"), "--config", str(path), "--foreground", "m"], capture_output=True, text=True, timeout=20, check=False)
    text = r.stdout + r.stderr
    assert r.returncode != 0 and f"{path}:6:" in text and expect in text, text
    assert not os.path.ismount(tmp_path / "src")
