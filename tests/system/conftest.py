# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the system tests: sites, and a pair of a standby and a source that work."""
import os
import shutil
import stat
import sys

import pytest

from lib import tree
from lib.procs import Site
from lib.proxy import Proxy
from lib.workload import acl


def pytest_configure(config):
    if not os.path.exists("/dev/fuse"):
        pytest.exit("/dev/fuse is missing: load the fuse module", 2)


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    setattr(item, "report_" + report.when, report)
    if report.when == "call" and report.failed and "site" in item.funcargs:
        site = item.funcargs["site"]
        report.sections.append(("the site", site.describe()))
        if os.environ.get("TANDEM_KEEP"):
            text = "\n".join([report.longreprtext, *(f"--- {title}\n{content}" for title, content in report.sections)])
            (site.dir / "failure.txt").write_text(text, errors="surrogateescape")


def pytest_terminal_summary(terminalreporter):
    failed = len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    passed = len(terminalreporter.stats.get("passed", []))
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"system tests: {passed} passed, {failed} failed, {skipped} skipped")


@pytest.fixture
def site(request):
    """An empty site. After the test everything in it must end by itself, without a sanitizer's report."""
    s = Site()
    yield s
    failed = getattr(request.node, "report_call", None) is None or request.node.report_call.failed
    trouble = s.close(keep=True)
    reports = s.sanitizer_reports()
    logs = "\n".join(f"--- log of {p.label}\n{p.log()[-3000:]}" for p in s.sources + s.standbys + s.extra)
    if failed:
        print(f"kept: {s.dir}\n{trouble}", file=sys.stderr) if os.environ.get("TANDEM_KEEP") else s.close()
        assert not reports, reports
        return
    s.close()
    assert not reports, reports
    assert not trouble, f"{trouble}\n{logs}"


@pytest.fixture
def pair(site):
    """A standby and a source that mirrors to it, both running: pair.source, pair.standby, pair.same()."""
    return make_pair(site)


@pytest.fixture
def pair_with(site):
    """As pair, with keys for the configuration: pair_with(source=dict(exclude="*.tmp"), standby=dict(timeout=5))."""
    return lambda **options: make_pair(site, **options)


@pytest.fixture
def net(request):
    """A bad network for pair_with(proxy=net); net.proxy is then the Proxy."""
    def through(port):
        through.proxy = Proxy(port).__enter__()
        request.addfinalizer(through.proxy.__exit__)
        return through.proxy.port
    return through


@pytest.fixture
def fuse_for_users():
    """Let the user 65534 mount: fusermount3 must be there, and where /dev/fuse is not for everybody he gets an ACL entry."""
    helper = shutil.which("fusermount3")
    if not helper or not os.stat(helper).st_mode & stat.S_ISUID:
        pytest.skip("fusermount3 is missing or not setuid")
    mode = os.stat("/dev/fuse").st_mode
    if mode & 0o006 == 0o006:
        yield
        return
    try:
        os.setxattr("/dev/fuse", "system.posix_acl_access", acl(owner=6, group=0, other=0, users={65534: 6}))
    except OSError as e:
        pytest.skip(f"/dev/fuse is not for everybody and gets no ACL: {e}")
    yield
    os.removexattr("/dev/fuse", "system.posix_acl_access")
    os.chmod("/dev/fuse", stat.S_IMODE(mode))


def make_pair(site, source=None, standby=None, module=None, prepare=None, proxy=None):
    """prepare(pair) is called before anything starts; proxy is a function of a port that returns the port to use."""
    pair = Pair()
    pair.site = site
    pair.standby = site.standby(**(standby or {}))
    pair.standby.modules["m"].update(module or {})
    port = proxy(pair.standby.port) if proxy else None
    pair.source = site.source([pair.standby.url(port=port)], **(source or {}))
    if prepare:
        prepare(pair)
    pair.standby.start()
    pair.source.start()
    pair.source.wait()
    return pair


class Pair:
    """One source and one standby."""

    def same(self, timeout=60, **options):
        """Wait for the standby, then compare exactly."""
        self.source.wait(timeout)
        tree.assert_same(self.source.dir, self.standby.dir, **options)

    @property
    def dir(self):
        """Where applications write."""
        return self.source.dir

    @property
    def copy(self):
        """The same directory on the standby."""
        return self.standby.dir
