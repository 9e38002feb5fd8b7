# SPDX-License-Identifier: MIT
"""Fixtures of the module's tests: guests, and the host's end of the link."""
from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "mount")]
import lab  # noqa: E402
from caller import Call, Caller  # noqa: E402
from hook import Hooks  # noqa: E402
from lab import Guest  # noqa: E402
from machines import patience  # noqa: E402
from link import Link  # noqa: E402
from slow import Slow  # noqa: E402
from world import Mount, built, watchdog  # noqa: E402

LIMIT = 150.0  # seconds of a test without @pytest.mark.limit: its guest may boot twice


class Kit(NamedTuple):
    """What guests are made of."""
    kernel: Path
    image: Path


@pytest.fixture(scope="session")
def kit(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    directory = tmp_path_factory.mktemp("kit")
    kernel = lab.kernel()
    files = lab.module_files(pytestconfig)
    files[HERE / "inarow.c"] = "/bin/inarow"
    files[HERE / "caller.c"] = "/bin/caller"
    programs = lab.programs32(pytestconfig)
    if "caller32" in programs:
        files[programs["caller32"]] = "/bin/caller32"
    return Kit(kernel, lab.initramfs(directory / "initramfs", files, kernel))


@pytest.fixture(scope="session")
def daemon(pytestconfig: pytest.Config) -> Path:
    return built(pytestconfig, "hypermemfs", "fs/hypermemfs")


@pytest.fixture(scope="session")
def seconds(pytestconfig: pytest.Config) -> float:
    """How long a test under load lasts."""
    return 60.0 if pytestconfig.getoption("--long") else 4.0


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that waits for a mount for ever loses it."""
    limit = request.node.get_closest_marker("limit")
    with watchdog(patience(limit.args[0] if limit else LIMIT)):
        yield


@contextlib.contextmanager
def booted(kit: Kit, **options: Any) -> Iterator[Guest]:
    """A guest that must be well at the end."""
    with Guest.boot(kit.kernel, kit.image, **options) as guest, guest.watched():
        yield guest


@pytest.fixture
def boot(kit: Kit) -> Iterator[Callable[..., Guest]]:
    """Boots guests of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(booted(kit, **options))


class Shared:
    """A guest for many tests; another one if a test has failed since it was asked for."""

    def __init__(self, session: pytest.Session, kernel: Path, image: Path,
                 **options: Any) -> None:
        self._session, self._kernel, self._image = session, kernel, image
        self._options = options
        self._guest: Guest | None = None
        self._failed = 0

    def get(self) -> Guest:
        if self._session.testsfailed != self._failed:
            self.close()
        if not self._guest:
            self._guest = Guest.boot(self._kernel, self._image, mem="1G", **self._options)
            self._failed = self._session.testsfailed
        return self._guest

    def close(self) -> None:
        if self._guest:
            self._guest.shutdown()
        self._guest = None


@pytest.fixture(scope="session")
def shared(kit: Kit, request: pytest.FixtureRequest) -> Iterator[Shared]:
    with contextlib.closing(Shared(request.session, kit.kernel, kit.image, smp=2)) as shared:
        yield shared


@pytest.fixture(scope="module")
def machine(shared: Shared) -> Guest:
    """The guest of a file that has no wishes of its own."""
    return shared.get()


@pytest.fixture(scope="session")
def sleepers(kit: Kit, request: pytest.FixtureRequest) -> Iterator[Shared]:
    # As ELF file a kernel does not wake up in this QEMU, with or without the module.
    with contextlib.closing(Shared(request.session, kit.kernel / "vmlinuz", kit.image)) as shared:
        yield shared


@pytest.fixture
def sleeper(sleepers: Shared) -> Iterator[Guest]:
    """A guest that can be suspended, as far as pm_test goes."""
    guest = sleepers.get()
    with guest.watched():
        guest.run("echo 1 >/sys/module/suspend/parameters/pm_test_delay", check=True)
        yield guest


@pytest.fixture
def guest(machine: Guest) -> Iterator[Guest]:
    """A guest that tests share: the module is loaded, nobody is connected."""
    yield machine
    machine.run("killall -9 victim slowfs 2>/dev/null")
    machine.check_console()
    with Link(machine.hm_socket) as link:
        assert link.hello().ops


@pytest.fixture
def link(guest: Guest) -> Iterator[Link]:
    """A session with it."""
    with Link(guest.hm_socket) as link:
        link.hello()
        yield link


@pytest.fixture
def hooks(link: Link) -> Hooks:
    link.timeout = patience(100)  # it takes long to put probes on all calls
    return Hooks(link)


@pytest.fixture
def call(guest: Guest) -> Iterator[Call]:
    """Starts callers, and ends those that are left."""
    yield lambda *args, **kwargs: Caller(guest, *args, **kwargs)
    guest.run("killall -9 caller 2>/dev/null")


@pytest.fixture
def slow(guest: Guest) -> Iterator[Slow]:
    slow = Slow(guest)
    yield slow
    slow.close()


@pytest.fixture
def mount(guest: Guest, daemon: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount of it."""
    with Mount(daemon, guest.hm_socket) as mount:
        yield mount
        mount.check(talks=bool(request.node.get_closest_marker("daemon_talks")))


def reload(guest: Guest) -> None:
    guest.run("rmmod hypermem", check=True, timeout=20)
    guest.run("insmod /hypermem.ko", check=True)


@contextlib.contextmanager
def load(work: Callable[[], object], threads: int = 1) -> Iterator[list[BaseException]]:
    """Do it over and over in threads of its own; what it raises is for the caller to judge."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def loop() -> None:
        while not stop.is_set():
            try:
                work()
            except Exception as error:
                raised.append(error)

    running = [threading.Thread(target=loop) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield raised
    finally:
        stop.set()
        for thread in running:
            thread.join()
