# SPDX-License-Identifier: MIT
"""Fixtures of the mount tests: the world, and the checks after each test."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

import lab
import machines
from hooks import Hook, made
from world import FakeGuest, HostWorld, Mount, Victim, VmWorld, World, built, watchdog

LIMIT = 60.0  # seconds of a test without @pytest.mark.limit


@pytest.fixture(scope="session")
def session_world(pytestconfig: pytest.Config) -> Iterator[World]:
    daemon = built(pytestconfig, "hypermemfs", "fs/hypermemfs")
    world: World
    if pytestconfig.getoption("backend") == "vm":
        world = VmWorld(daemon, lab.module_files(pytestconfig), lab.programs32(pytestconfig))
    else:
        tools = {"victim": built(pytestconfig, "victim", "tests/victim"),
                 "mapper": pytestconfig.getoption("builddir") / "tests/mapper"}
        tools |= {path.name: path for path in
                  pytestconfig.getoption("builddir").glob("tests/mapper32")}
        world = HostWorld(daemon, built(pytestconfig, "fake_guest", "tests/fake_guest"), tools)
    yield world
    world.close()


@pytest.fixture
def world(session_world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The guest with its mount; afterwards daemon and guest must be well."""
    limit = request.node.get_closest_marker("limit")
    with watchdog(machines.patience(limit.args[0] if limit else LIMIT)):
        yield session_world
        session_world.forget_processes()
        session_world.forget_mounts()
    try:
        session_world.mount_.check(talks=bool(request.node.get_closest_marker("daemon_talks")))
    finally:
        session_world.remount()


@pytest.fixture
def victim(world: World) -> Victim:
    """A process with memory to look into: victim.c's mem."""
    return world.victim("mem", world.scratch)


@pytest.fixture(scope="module", autouse=True)
def healthy_guest(session_world: World) -> Iterator[None]:
    yield
    session_world.check()


@pytest.fixture
def fake(world: HostWorld) -> Iterator[FakeGuest]:
    """A guest of the test's own, to misbehave."""
    with world.guest() as guest:
        yield guest


@pytest.fixture
def mount(world: HostWorld, fake: FakeGuest) -> Iterator[Mount]:
    """A mount of `fake` whose requests time out after a second."""
    with Mount(world.daemon, fake.socket, "-o", "timeout=1") as m:
        yield m
        m.check(talks=True)


@pytest.fixture
def hook(mount: Mount) -> Iterator[Hook]:
    with made(mount.mnt) as hook:
        yield hook


@pytest.fixture
def real(world: World) -> Iterator[Hook]:
    """A hook in any guest."""
    with made(world.mnt) as hook:
        yield hook


@pytest.fixture
def mapper32(world: World) -> Path:
    path = world.tool("mapper32")
    if world.run(["test", "-e", path]).rc:
        pytest.skip("no mapper32: the compiler makes no static programs of 32 bits for this guest "
                    "(on amd64 libc6-dev-i386 and lib32gcc-N-dev are missing)")
    return path
