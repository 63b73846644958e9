# SPDX-License-Identifier: BSD-2-Clause
"""Every mistake gets its own message, the mount goes on, and replication starts by itself once it is cured."""
import os
import re
import shutil
import signal
import socket

import pytest

from lib import tree
from lib.procs import program
from lib.wait import wait_until

REFERENCE = re.compile(r"\b[0-9a-f]{16}\b")


def start_wrong(site, source_user=None, module="m", prepare=None, **module_keys):
    """A source and a standby that cannot work together; returns them after a write on the mount."""
    standby = site.standby()
    standby.modules["m"].update(module_keys)
    source = site.source([standby.url(module, *([source_user] if source_user else []))])
    if prepare:
        prepare(source, standby)
    standby.start()
    source.start()
    (source.dir / "file").write_text("written while nothing is replicated")
    return source, standby


def cured(source, standby, path=None):
    """The mount worked all the time, and what was written arrives without a further command."""
    (source.dir / "after").write_text("x")
    source.wait()
    tree.assert_same(source.dir, path or standby.dir)


def restart(standby):
    standby.stop()
    standby.start()


def stranger_message(source, standby, user, module, cause):
    """Before authentication: user and module as given and a reference; the daemon's log has the cause under it."""
    text = source.wait_error(r"\b[0-9a-f]{16}\b")
    assert user in text and module in text, text
    reference = REFERENCE.search(text)[0]
    standby.wait_log(re.escape(reference) + ".*" + cause)
    assert source.ctl("status", source.name).returncode == 2
    assert source.running and (source.dir / "file").exists()


def wrong_password(source, standby):
    source.password_text = "not-the-right-one"


def test_wrong_password(site):
    source, standby = start_wrong(site, prepare=wrong_password)
    stranger_message(source, standby, "rsync_backup", "m", "password")
    source.password_text = "correct-horse-battery"
    source.write_config()
    cured(source, standby)


def test_refused_stays_broken_while_it_is_tried_again(site):
    source, standby = start_wrong(site, prepare=wrong_password)
    source.wait_error(REFERENCE.pattern)
    codes = set()
    tries = standby.log().count("not let in") + 4
    while standby.log().count("not let in") < tries:
        codes.add(source.ctl("status", source.name).returncode)
    assert codes == {2}


def test_unknown_user(site):
    source, standby = start_wrong(site, source_user="stranger")
    stranger_message(source, standby, "stranger", "m", "stranger")
    assert re.search(r"user.*stranger|stranger.*user", standby.log(), re.I), standby.log()
    standby.users["stranger"] = "correct-horse-battery"
    standby.modules["m"]["auth users"] = "rsync_backup stranger"
    restart(standby)
    cured(source, standby)


def test_user_not_of_this_module(site):
    source, standby = start_wrong(site, auth_users="somebody_else", prepare=lambda s, t: t.users.update(somebody_else="another-password"))
    stranger_message(source, standby, "rsync_backup", "m", "auth users")
    standby.modules["m"]["auth users"] = "rsync_backup"
    standby.modules["m"].pop("auth_users")
    restart(standby)
    cured(source, standby)


def test_unknown_module(site):
    source, standby = start_wrong(site, module="nosuch")
    stranger_message(source, standby, "rsync_backup", "nosuch", "nosuch")
    assert re.search(r"module.*nosuch|nosuch.*module", standby.log(), re.I), standby.log()
    standby.module("nosuch", site.dir / "new-module")
    restart(standby)
    cured(source, standby, site.dir / "new-module")


def test_strangers_get_one_message(site):
    """Whoever has no password cannot tell which of the three was wrong."""
    standby = site.standby().start()
    texts = []
    for user, module, password in (("rsync_backup", "m", "bad-password"), ("stranger", "m", "correct-horse-battery"),
                                   ("rsync_backup", "nosuch", "correct-horse-battery")):
        source = site.source([standby.url(module, user)])
        source.password_text = password
        source.start()
        text = source.wait_error(r"\b[0-9a-f]{16}\b")
        text = REFERENCE.sub("REF", text).replace(user, "USER").replace("nosuch", "MODULE")
        texts.append(re.sub(r"\bm\b", "MODULE", text))
    assert texts[0] == texts[1] == texts[2], "\n".join(texts)


def test_read_only_module(site):
    source, standby = start_wrong(site, read_only="yes", prepare=lambda s, t: t.modules["m"].pop("read only"))
    text = source.wait_error("read.only")
    assert "m" in text
    standby.wait_log("read.only")
    standby.modules["m"]["read_only"] = "no"
    restart(standby)
    cured(source, standby)


def test_read_only_is_the_default_as_in_rsync(site):
    source, standby = start_wrong(site, prepare=lambda s, t: t.modules["m"].pop("read only"))
    source.wait_error("read.only")
    standby.modules["m"]["read only"] = "no"
    restart(standby)
    cured(source, standby)


@pytest.mark.parametrize("rule", [{"hosts allow": "10.1.2.3"}, {"hosts allow": "10.0.0.0/8", "hosts deny": "0.0.0.0/32"}, {"hosts deny": "127.0.0.0/8"}])
def test_address_not_allowed(site, rule):
    source, standby = start_wrong(site, **rule)
    standby.wait_log(r"127\.0\.0\.1.*(allow|den)")
    source.wait_error("address|not allowed|refused|reference")
    for key in rule:
        del standby.modules["m"][key]
    standby.modules["m"]["hosts allow"] = "127.0.0.1"
    restart(standby)
    cured(source, standby)


def test_secrets_file_for_everybody_stops_the_start(site):
    standby = site.standby()
    standby.write_config()
    standby.secrets.chmod(0o644)
    standby.spawn(program("tandemd"), "--config", standby.config, "--foreground")
    assert standby.wait_exit() != 0
    assert re.search(rf"{re.escape(str(standby.config))}:\d+:.*secrets", standby.log()), standby.log()
    assert "chmod" in standby.log() and str(standby.secrets) in standby.log()


def test_reload_while_it_starts(site):
    """Who rotates the log just then does not end the daemon: it reads its configuration once more."""
    standby = site.standby()
    standby.write_config()
    text = standby.config.read_text()
    standby.config.unlink()
    os.mkfifo(standby.config, 0o600)
    standby.spawn(program("tandemd"), "--config", standby.config, "--foreground")
    with open(standby.config, "w", encoding="utf-8") as f:  # it reads now
        standby.popen.send_signal(signal.SIGHUP)
        f.write(text)
    standby.wait_log("listening on")
    with open(standby.config, "w", encoding="utf-8") as f:
        f.write(text)
    standby.wait_log(": 1 module$")


@pytest.mark.parametrize("key, value", [("address", "127.0.0.2"), ("listen backlog", "5"), ("log file", "@/other.log"), ("pid file", "@/pid"), ("port", "8731")])
def test_reload_says_what_it_cannot_change(site, key, value):
    standby = site.standby().start()
    standby.keys[key] = value.replace("@", str(site.dir))
    standby.write_config()
    standby.wait_log("listening on")
    standby.popen.send_signal(signal.SIGHUP)
    assert key in standby.wait_log("at the next start")


def test_secrets_file_for_everybody_later(site):
    source, standby = start_wrong(site, prepare=lambda s, t: None)
    source.wait()
    standby.stop()
    standby.start()
    standby.secrets.chmod(0o644)
    for pid in standby.children():
        os.kill(pid, 9)
    standby.wait_log(f"{standby.secrets.name}.*(mode|chmod|0?644|others)")
    (source.dir / "meanwhile").write_text("y")
    standby.secrets.chmod(0o600)
    cured(source, standby)


def test_password_file_for_everybody(site):
    standby = site.standby().start()
    source = site.source([standby.url()])
    source.write_config()
    source.password.chmod(0o644)
    source.start(config=False)
    (source.dir / "file").write_text("x")
    text = source.wait_error("password file|" + re.escape(str(source.password)))
    assert "chmod" in text or "600" in text, text
    source.password.chmod(0o600)
    cured(source, standby)


def test_password_file_missing(site):
    standby = site.standby().start()
    source = site.source([standby.url()])
    source.write_config()
    source.password.unlink()
    source.start(config=False)
    source.wait_error(re.escape(str(source.password)))
    source.write_config()
    cured(source, standby)


def test_password_file_with_a_user(site):
    """The daemon's "user:password" line copied into the client's file is the classic mistake."""
    standby = site.standby().start()
    source = site.source([standby.url()])
    source.password_text = "rsync_backup:correct-horse-battery"
    source.start()
    text = source.wait_error("password")
    assert "rsync_backup:" in text or "user" in text.lower(), text
    source.password_text = "correct-horse-battery"
    source.write_config()
    cured(source, standby)


def test_standby_disk_not_mounted(pair):
    """The directory is there, but it is not the one that held the module."""
    (pair.dir / "file").write_text("x")
    pair.source.wait()
    pair.standby.stop()
    os.rename(pair.copy, f"{pair.copy}.disk")
    pair.copy.mkdir()
    pair.standby.start()
    (pair.dir / "later").write_text("y")
    text = pair.source.wait_error("mounted|marker|disk")
    assert text
    pair.standby.wait_log("mounted|marker")
    assert not os.listdir(pair.copy), "bytes were written beside the disk"
    pair.copy.rmdir()
    os.rename(f"{pair.copy}.disk", pair.copy)
    pair.same()


def test_module_path_missing(site):
    standby = site.standby()
    source = site.source([standby.url()])
    standby.start()
    source.start()
    source.wait()
    standby.stop()
    os.rename(standby.dir, f"{standby.dir}.away")
    standby.write_config()
    standby.spawn(program("tandemd"), "--config", standby.config, "--foreground")
    standby.wait_log(re.escape(str(standby.dir)))
    os.rename(f"{standby.dir}.away", standby.dir)
    standby.stop()  # it may have ended by itself, or be about to
    standby.start()
    cured(source, standby)


def test_two_sources_for_one_module(pair, site):
    (pair.dir / "file").write_text("of the first")
    pair.source.wait()
    pair.source.stop()
    other = site.source([pair.standby.url()])
    (other.dir / "file").write_text("of the second")
    other.start()
    text = other.wait_error("source|belongs")
    assert text
    pair.standby.wait_log("source|belongs|foreign")
    assert (pair.copy / "file").read_text() == "of the first"
    other.stop()
    pair.source.start()
    pair.same()


def test_two_sources_at_the_same_time(pair, site):
    other = site.source([pair.standby.url()])
    (other.dir / "foreign").write_text("x")
    other.start()
    other.wait_error("source|belongs|busy|use")
    (pair.dir / "mine").write_text("y")
    pair.same()
    assert not (pair.copy / "foreign").exists()


def test_journal_restored_from_a_backup(pair):
    """The journal goes back in time: the same numbers, another history. Everything is compared, nothing is believed."""
    (pair.dir / "one").write_text("1")
    pair.source.wait()
    pair.source.stop()
    shutil.copytree(pair.source.state, f"{pair.source.state}.backup", symlinks=True, ignore=lambda d, names: [n for n in names if n.endswith(".sock")])
    pair.source.start()
    for i in range(20):
        (pair.dir / f"lost{i}").write_text("in the lost part")
    pair.source.wait()
    pair.source.stop()
    shutil.rmtree(pair.source.state)
    os.rename(f"{pair.source.state}.backup", pair.source.state)
    pair.source.start()
    os.unlink(pair.dir / "lost3")
    for i in range(30):
        (pair.dir / f"new{i}").write_text("other history")
    pair.same()


def test_standby_restored_from_a_backup(pair):
    (pair.dir / "one").write_text("1")
    pair.source.wait()
    pair.standby.stop()
    shutil.copytree(pair.copy, f"{pair.copy}.backup", symlinks=True)
    pair.standby.start()
    (pair.dir / "two").write_text("2")
    os.rename(pair.dir / "one", pair.dir / "first")
    pair.source.wait()
    pair.standby.stop()
    shutil.rmtree(pair.copy)
    os.rename(f"{pair.copy}.backup", pair.copy)
    pair.standby.start()
    (pair.dir / "three").write_text("3")
    wait_until(lambda: not tree.differences(pair.dir, pair.copy), lambda: str(tree.differences(pair.dir, pair.copy)), 30, 0.2)


def test_daemon_not_running(site):
    standby = site.standby()
    source = site.source([standby.url()]).start()
    text = source.wait_error("refused|connect")
    assert str(standby.port) in text, text
    standby.start()
    cured(source, standby)


def test_host_does_not_exist(site):
    source = site.source(["tandem://u@no-such-host.invalid/m"]).start()
    (source.dir / "file").write_text("x")
    source.wait_error("no-such-host.invalid")
    assert (source.dir / "file").read_text() == "x"


@pytest.mark.parametrize("bytes_", [b"GET / HTTP/1.0\r\n\r\n", b"@RSYNCD: 31.0\n", b"\0" * 5000, b"\x16\x03\x01\xff\xff" + b"A" * 70000])
def test_noise_on_the_port(pair, bytes_):
    with socket.create_connection(("127.0.0.1", pair.standby.port)) as s:
        try:
            s.sendall(bytes_)
            s.settimeout(20)
            while s.recv(4096):
                pass
        except OSError:
            pass
    (pair.dir / "file").write_text("x")
    pair.same()


def test_silent_connections_do_not_block_others(pair):
    socks = [socket.create_connection(("127.0.0.1", pair.standby.port)) for _ in range(20)]
    try:
        pair.standby.children()
        (pair.dir / "file").write_text("x")
        pair.source.kill_replicator()
        pair.same()
    finally:
        for s in socks:
            s.close()


def test_too_many_connections(site):
    """max connections of a module is a typed answer."""
    standby = site.standby()
    standby.module("other", site.dir / "other")
    standby.keys["max connections"] = 1
    standby.start()
    first = site.source([standby.url()]).start()
    first.wait()
    second = site.source([standby.url("other")]).start()
    second.wait_error("max connections|busy|too many")
    first.stop()
    second.wait()
