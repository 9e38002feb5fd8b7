# SPDX-License-Identifier: MIT
"""Large reads, which are copied from guest RAM if that can be done: the same bytes either way."""
import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_info import info
from world import FakeGuest, HostWorld, Mount, Victim, World, errno_of, unmount, wait_for

SIZE = 1 << 20


class Big:
    """The longest mapping of a process that does not change, and what is in it."""

    def __init__(self, world: World, victim: Victim) -> None:
        maps = world.proc(victim.pid, "maps").decode().splitlines()
        ranges = [tuple(int(n, 16) for n in line.split()[0].split("-")) for line in maps
                  if " r-xp " in line or " r--p " in line]
        self.pid = victim.pid
        self.start, end = max(ranges, key=lambda r: r[1] - r[0])
        self.size = end - self.start
        self.bytes = world.mem(victim.pid, self.start, self.size)
        assert self.size > 100_000 and len(set(self.bytes)) > 200

    def is_right(self, mnt: Path) -> bool:
        """Read it whole, in odd pieces and in order."""
        fd = os.open(mnt / "pid" / str(self.pid) / "mem", os.O_RDONLY)
        try:
            whole = os.pread(fd, self.size, self.start)
            middle = os.pread(fd, 50_001, self.start + 3)
            parts = b"".join(os.pread(fd, 20_000, self.start + at)
                             for at in range(0, 100_000, 20_000))
            small = os.pread(fd, 100, self.start + 77)
        finally:
            os.close(fd)
        return (whole == self.bytes and middle == self.bytes[3:50_004] and
                parts == self.bytes[:100_000] and small == self.bytes[77:177])


@pytest.fixture
def big(world: World, victim: Victim) -> Big:
    return Big(world, victim)


def ram(mount: Mount) -> str:
    return said(mount, "ram")


def said(mount: Mount, key: str) -> str:
    text = (mount.mnt / "info").read_text()
    return next(line.split(": ", 1)[1] for line in text.splitlines() if line.startswith(key))


@pytest.mark.vm("the fake guest has no RAM by default")
def test_guest_ram_is_found(world: World) -> None:
    size = re.match(r"window \((\d+) MiB in the memory of process \d+\)", info(world)["ram"])
    total = re.search(rb"MemTotal: +(\d+) kB", world.run("cat /proc/meminfo").out)
    assert int(size[1]) * 1024 >= int(total[1])


@pytest.mark.parametrize("how", ["auto", "off"])
def test_large_reads_are_right(world: World, big: Big, how: str) -> None:
    with world.mount("-o", f"ram={how}") as mount:
        assert big.is_right(mount.mnt)
        assert how == "auto" or ram(mount) == "inline (ram=off)"


def test_a_large_read_ends_where_memory_ends(world: World, victim: Victim) -> None:
    region, hole = victim["region"], victim["hole"]
    with open(world.path(victim.pid, "mem"), "rb", buffering=0) as mem:
        assert os.pread(mem.fileno(), SIZE, region + 8) == \
            world.mem(victim.pid, region + 8, hole - region - 8)
        after = hole + victim["page"]
        rest = region + victim["size"] - after
        assert os.pread(mem.fileno(), SIZE, after)[:rest] == world.mem(victim.pid, after, rest)


def test_what_is_written_is_read_at_once(world: World, victim: Victim) -> None:
    addr, size = victim["region"], 3 * victim["page"]
    with open(world.path(victim.pid, "mem"), "r+b", buffering=0) as mem:
        for n in range(50):
            os.pwrite(mem.fileno(), bytes([n]) * size, addr)
            got = os.pread(mem.fileno(), 5 * size, addr)
            assert got[:size] == bytes([n]) * size


@pytest.fixture
def told(world: HostWorld, fake: FakeGuest, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount of a guest that behaves so from the start."""
    fake.misbehave(request.param)
    with Mount(world.daemon, fake.socket, "-o", "timeout=2") as mount:
        yield mount
        mount.check(talks=True)


WINDOW = pytest.mark.fake("a real guest does not misbehave to order")


@WINDOW
@pytest.mark.parametrize("told", ["window"], indirect=True)
def test_a_window_is_used(told: Mount, big: Big) -> None:
    assert ram(told).startswith("window (64 MiB in the memory of process ")
    assert big.is_right(told.mnt)


@WINDOW
@pytest.mark.daemon_talks
@pytest.mark.parametrize("told", ["window-no-proof", "window-old-proof", "window-bad-ram"],
                         indirect=True)
def test_ram_that_is_not_proven_is_not_used(told: Mount, big: Big) -> None:
    assert ram(told).startswith("inline (")
    assert big.is_right(told.mnt)


@WINDOW
@pytest.mark.daemon_talks
@pytest.mark.parametrize("told", ["window-stale", "window-exec", "window-outside",
                                  "window-far-outside", "window-bad-hold"], indirect=True)
def test_a_translation_that_is_not_true_is_not_used(told: Mount, big: Big) -> None:
    assert ram(told).startswith("window (")
    assert big.is_right(told.mnt)


@WINDOW
@pytest.mark.parametrize("told", ["forbids=14", "forbids=15", "lacks=14", "lacks=15"], indirect=True)
def test_a_guest_that_must_not_tell_sends_the_bytes(told: Mount, big: Big) -> None:
    assert ram(told).startswith("inline (the guest's module cannot")
    assert big.is_right(told.mnt)


@WINDOW
@pytest.mark.daemon_talks
def test_a_guest_that_does_not_tell_is_not_asked_each_time(world: HostWorld, fake: FakeGuest,
                                                           big: Big) -> None:
    fake.misbehave("hang-op=14")
    with Mount(world.daemon, fake.socket, "-d", "-o", "timeout=1") as mount:
        assert big.is_right(mount.mnt)
        assert big.is_right(mount.mnt)
        assert ram(mount).startswith("inline (")
        assert mount.stderr().count(b"> WINDOW tag") == 1
        mount.check(talks=True)


@WINDOW
@pytest.mark.daemon_talks
def test_a_translation_that_does_not_come_is_not_waited_for_twice(world: HostWorld,
                                                                  fake: FakeGuest,
                                                                  big: Big) -> None:
    fake.misbehave("window")
    with Mount(world.daemon, fake.socket, "-d", "-o", "timeout=1") as mount:
        assert big.is_right(mount.mnt)
        fake.misbehave("hang-op=15")
        with open(mount.mnt / "pid" / str(big.pid) / "mem", "rb", buffering=0) as mem:
            asked = mount.stderr().count(b"> TRANSLATE tag")
            assert errno_of(lambda: os.pread(mem.fileno(), 100_000, big.start)) == "ETIMEDOUT"
            assert mount.stderr().count(b"> TRANSLATE tag") == asked + 1
            assert os.pread(mem.fileno(), 100, big.start + 1) == big.bytes[1:101]
        mount.check(talks=True)


def test_a_daemon_without_standard_files_is_as_well(world: HostWorld, tmp_path: Path) -> None:
    script = 'exec "$0" "$1" "$2" <&- >&-'
    world.mount_.close()
    try:
        subprocess.run(["sh", "-c", script, world.daemon, world.chardev, tmp_path], check=True,
                       timeout=20)
        assert "link: up" in (tmp_path / "info").read_text()
    finally:
        unmount(tmp_path)
        world.mount_ = Mount(world.daemon, world.chardev)


def refused(daemon: Path, chardev: object, mnt: Path, *options: str) -> str:
    done = subprocess.run([daemon, *options, str(chardev), mnt], capture_output=True, timeout=20,
                          text=True, check=False)
    assert done.returncode == 4 and done.stderr.count("\n") == 1, done
    return done.stderr


@WINDOW
def test_a_window_that_is_required_must_be_there(world: HostWorld, fake: FakeGuest,
                                                 tmp_path: Path) -> None:
    for how in "", "window-no-proof", "lacks=15":
        fake.misbehave(how)
        why = refused(world.daemon, fake.socket, tmp_path, "-o", "ram=require")
        assert "ram=require, but guest RAM is out of reach: " in why
        assert not os.path.ismount(tmp_path)
    fake.misbehave("window")
    with Mount(world.daemon, fake.socket, "-o", "ram=require") as mount:
        assert ram(mount).startswith("window (")


@WINDOW
@pytest.mark.daemon_talks
def test_a_window_does_not_outlive_its_boot(world: HostWorld, fake: FakeGuest, big: Big) -> None:
    fake.misbehave("window")
    with Mount(world.daemon, fake.socket, "-o", "timeout=2") as mount:
        assert ram(mount).startswith("window (")
        before = said(mount, "epoch")
        fake.misbehave("reboot")
        with contextlib.suppress(OSError):  # a guest that boots has no time for it
            os.listdir(mount.mnt / "pid/1/fd")
        fake.misbehave()
        wait_for(lambda: said(mount, "epoch") != before)
        wait_for(lambda: ram(mount).startswith("inline ("))
        assert big.is_right(mount.mnt)
        mount.check(talks=True)
