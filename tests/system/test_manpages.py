# SPDX-License-Identifier: BSD-2-Clause
"""The man pages say what the programs say: options of --help, keys of the configuration files."""
import re
import shutil
import subprocess

import pytest

from lib.procs import TOP, program

PAGES = {"tandemctl": "tandemctl.1", "tandemfs": "tandemfs.8", "tandemd": "tandemd.8", "tandem-replicator": "tandem-replicator.8"}
ALL = sorted(p.name for p in (TOP / "docs/man").iterdir() if re.search(r"\.[1-8]$", p.name))


def page(name):
    return (TOP / "docs/man" / name).read_text()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_options_are_in_the_man_page(name):
    r = subprocess.run([program(name), "--help"], capture_output=True, text=True, timeout=20, check=True)
    said = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", r.stdout)) | {"help", "version"}
    described = set(re.findall(r"^\.It Fl -([a-z][a-z-]*)", page(PAGES[name]), re.M))
    assert described == said, f"only in --help: {said - described}; only in the page: {described - said}"


def test_commands_are_in_the_man_page():
    r = subprocess.run([program("tandemctl"), "--help"], capture_output=True, text=True, timeout=20, check=True)
    said = set(re.findall(r"^  ([a-z]+)", r.stdout, re.M))
    described = set(re.findall(r"^\.It Cm ([a-z]+)", page("tandemctl.1"), re.M))
    assert described == said


@pytest.mark.parametrize("name", ALL)
def test_pages_are_well_formed(name):
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    r = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", TOP / "docs/man" / name], capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout + r.stderr


def test_reload_is_described_and_a_job_of_the_service():
    assert "SIGHUP" in page("tandemd.8")
    assert re.search(r"^ExecReload=.*-HUP", (TOP / "contrib/systemd/tandemd.service").read_text(), re.M)


def described_keys(name):
    found = set()
    for line in re.findall(r"^\.It Ic (.*)", page(name), re.M):
        found |= {key.strip() for key in line.split(" Ns ")[0].split(" , ")}
    return found | set(re.findall(r"^Also\n\.Ic ([a-z ]+) \.$", page(name), re.M))


def test_keys_of_mirrors_conf_are_in_the_man_page():
    keys = set(re.findall(r'\{"([a-z ]+)", (?:true|false)\}', (TOP / "proto/mirror.c").read_text()))
    assert len(keys) > 10 and described_keys("tandem-mirrors.conf.5") == keys


def test_keys_of_modules_conf_are_in_the_man_page():
    keys = set(re.findall(r'^\s+\{"([a-z ]+)", \w+, NULL, NULL\}', (TOP / "replicator/module/conf_keys.c").read_text(), re.M))
    assert len(keys) > 10 and described_keys("tandem-modules.conf.5") == keys - {"filter"}  # only there to be refused
