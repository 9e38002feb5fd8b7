# SPDX-License-Identifier: MIT
"""Many readers and writers at a time, while the guest, its host and its processes come and go."""
from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import Guest
from link import READ, Link
from seen import guest_mem, mem, mem_errno, path
from world import Mount, opened, pattern, unmount, wait_for

pytestmark = pytest.mark.vm("is about a guest under load")

SIZE = 1 << 18  # of an area
# How the link's going shows; what the kernel says when the daemon has gone is in DEAD.
LOST = {"ENOTCONN", "ETIMEDOUT", "ESTALE"}
DEAD = {"ENOTCONN", "ECONNABORTED", "EIO", "ENOENT", "ENODEV"}


class Area:
    """Memory of a process of its own, of which every byte is known: whoever writes tells."""

    def __init__(self, guest: Guest, seed: int) -> None:
        self.pid, victim = guest.victim("area", str(SIZE))
        self.addr = victim["region"]
        self.bytes = bytearray(pattern(self.addr, SIZE))
        self.unsure: list[tuple[int, int]] = []  # what a write that failed may have changed
        self._random = random.Random(seed)

    def span(self, most: int) -> tuple[int, int]:
        size = self._random.choice([1, 8, 100, 4096, 20_000, most])
        return self._random.randrange(SIZE - size + 1), size

    def check(self, offset: int, data: bytes) -> None:
        expected = self.bytes[offset:offset + len(data)]
        if data == expected:
            return
        for n, (a, b) in enumerate(zip(data, expected)):
            at = offset + n
            assert a == b or any(s <= at < e for s, e in self.unsure), \
                f"process {self.pid}: {a:#x}, not {b:#x}, at {self.addr + at:#x} ({n} of {len(data)})"

    def read(self, fd: int) -> None:
        offset, size = self.span(SIZE)
        data = os.pread(fd, size, self.addr + offset)
        assert len(data) == size
        self.check(offset, data)

    def write(self, fd: int) -> None:
        offset, size = self.span(65_536)
        data = self._random.randbytes(size)
        try:
            assert os.pwrite(fd, data, self.addr + offset) == size
        except OSError:
            # It may be done, or be done later; nothing is said of these bytes any more.
            self.unsure.append((offset, offset + size))
            raise
        self.bytes[offset:offset + size] = data


class Worker(threading.Thread):
    """Reads and writes an area through a mount, until it is told to stop.

    After an error it opens the file anew, but not if it only reads: the process of that pid may be
    another one by then.
    """

    def __init__(self, mnt: Path, area: Area, write: bool = True) -> None:
        super().__init__()
        self._write = write
        self._file = mnt / "pid" / str(area.pid) / "mem"
        self._area = area
        self._actions = [area.read, area.read, area.write] if write else [area.read]
        self._stop_now = threading.Event()
        self.done = 0
        self.errors: set[str] = set()
        self.wrong: list[tuple[float, float, Exception]] = []  # between when and when

    def _use(self, fd: int) -> None:
        while not self._is_over():
            for action in self._actions:
                self._do(action, fd)

    def _do(self, action: Callable[[int], None], fd: int) -> None:
        began = time.monotonic()
        try:
            action(fd)
            self.done += 1
        except OSError as error:
            if self._write:
                raise
            self._failed(error)
        except Exception as error:
            self.wrong.append((began, time.monotonic(), error))

    def _is_over(self) -> bool:
        return self._stop_now.is_set() or len(self.wrong) > 100

    def _failed(self, error: OSError) -> None:
        self.errors.add(errno.errorcode[error.errno or 0])
        time.sleep(0.01)

    def run(self) -> None:
        while not self._is_over():
            try:
                with opened(self._file, os.O_RDWR) as fd:
                    self._use(fd)
            except OSError as error:
                self._failed(error)

    def stop(self) -> None:
        self._stop_now.set()


@contextlib.contextmanager
def working(mnt: Path, areas: list[Area], write: bool = True) -> Iterator[list[Worker]]:
    """Have the areas read and written; nothing that they get is wrong."""
    workers = [Worker(mnt, area, write) for area in areas]
    for worker in workers:
        worker.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()
    for worker in workers:
        assert not worker.wrong, worker.wrong


def errors(workers: list[Worker]) -> set[str]:
    return set().union(*(worker.errors for worker in workers))


def check_areas(guest: Guest, areas: list[Area]) -> None:
    """What the guest's own /proc says is in them."""
    for area in areas:
        area.check(0, guest_mem(guest, area.pid, area.addr, SIZE))


@pytest.mark.limit(180)
@pytest.mark.parametrize("ram", ["auto", "off"])
def test_eight_readers_and_writers_while_processes_come_and_go(guest: Guest, daemon: Path,
                                                               seconds: float, ram: str) -> None:
    guest.victim("churn")
    guest.victim("serial")
    areas = [Area(guest, seed) for seed in range(8)]
    with Mount(daemon, guest.hm_socket, "-o", f"ram={ram},timeout=30") as mount:
        with working(mount.mnt, areas) as workers:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for name in os.listdir(mount.mnt / "pid"):
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        path(mount, int(name), "status").read_bytes()
        assert not errors(workers)
        assert all(worker.done > 5 for worker in workers)
        mount.check()
    check_areas(guest, areas)


@pytest.mark.limit(180)
@pytest.mark.parametrize("ram", ["auto", "off"])
def test_a_guest_that_is_stopped_and_goes_on_under_load(guest: Guest, daemon: Path, ram: str,
                                                        seconds: float) -> None:
    areas = [Area(guest, seed) for seed in range(6)]
    with Mount(daemon, guest.hm_socket, "-o", f"ram={ram},timeout=1") as mount:
        with working(mount.mnt, areas) as workers:
            try:
                for n in range(int(seconds)):
                    time.sleep(0.3)
                    guest.qmp("stop")
                    # Some requests survive it, some time out.
                    time.sleep(0.2 if n % 2 else 1.3)
                    guest.qmp("cont")
            finally:
                guest.qmp("cont")
        assert errors(workers) <= LOST, errors(workers)
        assert "ETIMEDOUT" in errors(workers)
        wait_for(lambda: mem_errno(mount, areas[0].pid, areas[0].addr, SIZE) == "OK")
        for area in areas:
            area.check(0, mem(mount, area.pid, area.addr, SIZE))
        mount.check(talks=True)
    check_areas(guest, areas)


def test_a_daemon_that_is_killed_under_load_can_be_replaced_each_time(
        guest: Guest, daemon: Path, pytestconfig: pytest.Config) -> None:
    areas = [Area(guest, seed) for seed in range(4)]
    for _ in range(50 if pytestconfig.getoption("--long") else 10):
        mount = Mount(daemon, guest.hm_socket)
        with working(mount.mnt, areas) as workers:
            time.sleep(0.2)
            mount.process.kill()
            mount.process.wait()
            time.sleep(0.05)
        assert errors(workers) <= DEAD, errors(workers)
        unmount(mount.mnt)
        Mount.live.discard(mount)
        mount.mnt.rmdir()
    with Mount(daemon, guest.hm_socket) as mount:
        for area in areas:
            area.check(0, mem(mount, area.pid, area.addr, SIZE))
        mount.check()
    check_areas(guest, areas)


@pytest.mark.limit(180)
def test_hosts_that_leave_under_load_one_after_another(guest: Guest, seconds: float) -> None:
    """Without a mount: each leaves with answers under way, and the next is served."""
    area = Area(guest, 0)
    rand = random.Random(1)
    end = time.monotonic() + seconds
    hosts = 0
    while time.monotonic() < end or hosts < 20:
        with Link(guest.hm_socket) as link:
            link.hello()
            tags = [link.send(READ, area.pid, area.addr, 65_536) for _ in range(40)]
            for tag in tags[:rand.randrange(5)]:
                area.check(0, link.wait(tag).data)
        hosts += 1


@pytest.mark.limit(180)
@pytest.mark.parametrize("ram", ["auto", "off"])
@pytest.mark.needs("reset")
def test_a_guest_that_is_reset_under_load(guest: Guest, daemon: Path, ram: str) -> None:
    """Its processes' bytes are right as long as there are any; then all is new."""
    with Mount(daemon, guest.hm_socket, "-o", f"ram={ram},timeout=5") as mount:
        areas = [Area(guest, seed) for seed in range(4)]
        with working(mount.mnt, areas, write=False) as workers:
            time.sleep(0.5)
            assert not errors(workers) and all(worker.done for worker in workers)
            before = time.monotonic()
            guest.reboot(agent=False)
            after = time.monotonic() + 0.05
            guest.wait_agent()
            wait_for(lambda: all("ESTALE" in worker.errors for worker in workers), 60)
            if ram == "auto":  # see docs/architecture.md, "A reset machine"
                for worker in workers:
                    worker.wrong = [(began, ended, why) for began, ended, why in worker.wrong
                                    if ended < before or began > after]
        assert errors(workers) <= LOST, errors(workers)
        fresh = Area(guest, 9)
        wait_for(lambda: mem_errno(mount, fresh.pid, fresh.addr, SIZE) == "OK")
        fresh.check(0, mem(mount, fresh.pid, fresh.addr, SIZE))
        mount.check(talks=True)
