# SPDX-License-Identifier: MIT
"""Options and marks of the tests that need a guest, fake or real."""
import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "vm"))
import machines  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hypermemfs")
    group.addoption("--backend", choices=["fake", "vm"], default=os.environ.get("BACKEND", "fake"),
                    help="the guest: fake (this host, played by fake_guest) or vm (QEMU)")
    group.addoption("--builddir", type=Path, default=ROOT / "build-dev",
                    help="where meson has built (default: build-dev)")
    group.addoption("--hypermemfs", type=Path, metavar="PATH",
                    default=os.environ.get("HYPERMEMFS"),
                    help="the daemon (default: fs/hypermemfs in builddir)")
    group.addoption("--fake-guest", type=Path, metavar="PATH", default=os.environ.get("FAKE_GUEST"),
                    help="the fake guest (default: tests/fake_guest in builddir)")
    group.addoption("--victim", type=Path, metavar="PATH", default=os.environ.get("VICTIM"),
                    help="vm/victim.c, static (default: tests/victim in builddir)")
    group.addoption("--machine", default=os.environ.get("MACHINE", machines.DEFAULT),
                    metavar="NAME", help="the guest of --backend=vm: a row of vm/machines.py")
    group.addoption("--module", type=Path,
                    help="the guest's module, for --backend=vm (default: guest/, built for it)")
    group.addoption("--guests", type=Path, metavar="DIRECTORY",
                    help="where guests leave their consoles, and what `info` says of them")
    group.addoption("--long", action="store_true", help="run what takes long for longer")


def pytest_configure(config: pytest.Config) -> None:
    # A shell has what it runs in the background ignore it, and so would what the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "fake(why): makes no sense with a real guest")
    config.addinivalue_line("markers", "vm(why): makes no sense with the fake guest")
    config.addinivalue_line("markers", "needs(feature...): of the machine, of vm/machines.py")
    config.addinivalue_line("markers", "daemon_talks: lines on the daemon's stderr are expected")
    config.addinivalue_line("markers", "limit(seconds): the test may take longer than usual")
    if config.getoption("backend") == "vm":
        machines.use(config.getoption("machine"))
        machines.records = config.getoption("guests")
    else:
        machines.use_this_host()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    backend = config.getoption("backend")
    for item in items:
        for mark in item.iter_markers("needs"):
            if lacks := [what for what in mark.args if what not in machines.current.features]:
                reason = f"{machines.current.name} has no {', '.join(lacks)}"
                item.add_marker(pytest.mark.skip(reason=reason))
        for other in {"fake", "vm"} - {backend}:
            if mark := item.get_closest_marker(other):
                item.add_marker(pytest.mark.skip(reason=f"only {other}: {mark.args[0]}"))
