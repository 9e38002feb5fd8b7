# SPDX-License-Identifier: MIT
"""Requests that sleep in the guest, on memory that somebody does not provide."""
from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from caller import MINE, Call
from hook import Hooks
from lab import Guest
from link import LIST_PROCS, READ, READ_OK, Link, errno_name
from seen import guest_mem, mem, mem_errno, path
from slow import Slow
from world import Mount, errno_of, opened, pattern, wait_for

pytestmark = pytest.mark.vm("a page that is not provided needs a guest")

LARGE = 20_000  # more than READ is used for: the guest sleeps in TRANSLATE


@pytest.fixture
def patient(guest: Guest, daemon: Path) -> Iterator[Mount]:
    """A mount that waits longer than any test."""
    with Mount(daemon, guest.hm_socket, "-o", "timeout=600") as mount:
        yield mount
        mount.check()


@pytest.fixture
def hasty(guest: Guest, daemon: Path) -> Iterator[Mount]:
    """A mount that gives up after two seconds."""
    with Mount(daemon, guest.hm_socket, "-o", "timeout=2") as mount:
        yield mount
        mount.check()


class Reader(threading.Thread):
    """Reads memory, and is asleep by now."""

    def __init__(self, mount: Mount, pid: int, addr: int, size: int) -> None:
        super().__init__(daemon=True)
        self._what = mount, pid, addr, size
        self.result: bytes | OSError | None = None
        self.start()
        time.sleep(0.3)
        assert self.is_alive(), self.result

    def run(self) -> None:
        try:
            self.result = mem(*self._what)
        except OSError as error:
            self.result = error

    def end(self) -> bytes | OSError | None:
        self.join(20)
        assert not self.is_alive()
        return self.result


def info(mount: Mount) -> dict[str, str]:
    lines = (mount.mnt / "info").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def check_others(mount: Mount, guest: Guest) -> None:
    """Everybody else is served: names, texts, memory small and large, writes."""
    pid, victim = guest.victim("area", "65536")
    assert str(pid) in os.listdir(mount.mnt / "pid")
    assert path(mount, pid, "maps").read_bytes() == guest.read_file(f"/proc/{pid}/maps")
    for size in 8, LARGE, 65536:
        assert mem(mount, pid, victim["region"], size) == pattern(victim["region"], size)
    with opened(path(mount, pid, "mem"), os.O_RDWR) as fd:
        assert os.pwrite(fd, b"x" * LARGE, victim["region"]) == LARGE
    assert guest_mem(guest, pid, victim["region"], LARGE) == b"x" * LARGE
    guest.kill(pid)


@pytest.mark.parametrize("size", [8, LARGE])
def test_a_read_that_sleeps_holds_up_nobody(guest: Guest, slow: Slow, patient: Mount,
                                            size: int) -> None:
    reader = Reader(patient, slow.pid, slow.page(), size)
    check_others(patient, guest)
    # The same process, too.
    assert path(patient, slow.pid, "maps").read_bytes() == \
        guest.read_file(f"/proc/{slow.pid}/maps")
    for n in 8, LARGE:
        assert mem(patient, slow.pid, 0x400000, n)[:4] == b"\x7fELF"
    assert reader.is_alive()
    slow.release()
    assert reader.end() == b"s" * size


@pytest.mark.parametrize("size", [8, LARGE])
def test_a_file_in_which_a_read_sleeps_can_be_read_elsewhere(slow: Slow, patient: Mount,
                                                             size: int) -> None:
    with opened(path(patient, slow.pid, "mem")) as fd:
        addr = slow.page()
        reader = threading.Thread(target=os.pread, args=(fd, size, addr), daemon=True)
        reader.start()
        time.sleep(0.3)
        for n in 8, LARGE:
            assert os.pread(fd, n, 0x400000)[:4] == b"\x7fELF"
        assert reader.is_alive()
        slow.release()
        reader.join(20)
        assert not reader.is_alive()
        assert os.pread(fd, size, addr) == b"s" * size


@pytest.mark.parametrize("size", [8, LARGE])
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_reader_at_once(guest: Guest, slow: Slow, patient: Mount, size: int,
                                        sig: signal.Signals) -> None:
    """The mount would wait for ten minutes."""
    commands = [subprocess.Popen(["dd", f"if={path(patient, slow.pid, 'mem')}", f"bs={size}",
                                  "count=1", "iflag=skip_bytes", f"skip={slow.page()}"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for _ in range(5)]
    time.sleep(0.5)
    for command in commands:
        assert command.poll() is None
        command.send_signal(sig)
    for command in commands:
        assert command.wait(20) == -sig
    check_others(patient, guest)
    slow.release()
    check_others(patient, guest)
    assert mem(patient, slow.pid, slow.page(), size) == b"s" * size
    assert info(patient)["link"] == "up"


@pytest.mark.parametrize("size", [8, LARGE])
def test_a_read_that_sleeps_too_long_times_out(guest: Guest, slow: Slow, hasty: Mount,
                                               size: int) -> None:
    epoch = info(hasty)["epoch"]
    addr = slow.page()
    assert mem_errno(hasty, slow.pid, addr, size) == "ETIMEDOUT"
    check_others(hasty, guest)
    slow.release()
    assert wait_for(lambda: mem(hasty, slow.pid, addr, size)) == b"s" * size
    check_others(hasty, guest)
    assert (info(hasty)["link"], info(hasty)["epoch"]) == ("up", epoch)


@pytest.mark.parametrize("size", [8, LARGE])
def test_more_sleepers_than_the_guest_works_on_time_out_and_are_forgotten(
        guest: Guest, slow: Slow, hasty: Mount, size: int) -> None:
    addrs = [slow.page() for _ in range(100)]
    with ThreadPoolExecutor(100) as pool:
        for _ in range(2):
            ends = set(pool.map(lambda addr: mem_errno(hasty, slow.pid, addr, size), addrs))
            assert ends == {"ETIMEDOUT"}
            # All of them still sleep in the guest.
            check_others(hasty, guest)
    slow.release()
    for addr in addrs:
        assert wait_for(lambda: mem(hasty, slow.pid, addr, size)) == b"s" * size
    check_others(hasty, guest)


def test_the_guest_refuses_more_sleepers_than_it_can_have(slow: Slow, link: Link) -> None:
    addrs = [slow.page() for _ in range(300)]
    tags = [link.send(READ, slow.pid, addr, 4096) for addr in addrs]
    refused = [link.wait(tag) for tag in tags[256:]]
    assert {errno_name(reply) for reply in refused} == {"EBUSY"}
    assert errno_name(link.call(LIST_PROCS, size=4096)) == "EBUSY"
    assert link.silent(0.3)
    slow.release()
    for tag in tags[:256]:
        reply = link.wait(tag)
        assert (reply.op, reply.data) == (READ_OK, b"s" * 4096)
    assert link.proc(slow.pid).pid == slow.pid
    assert link.nothing_else()


@pytest.mark.needs("kprobes")
def test_a_reply_that_is_posted_is_taken_by_a_guest_that_refuses_more(slow: Slow, hooks: Hooks,
                                                                      call: Call) -> None:
    hooks.set(1, "getppid", **MINE, timeout_ms=3600000)
    caller = call("getppid", 1)
    event = hooks.next()
    for addr in [slow.page() for _ in range(300)]:
        hooks.link.send(READ, slow.pid, addr, 4096)
    assert errno_name(hooks.link.call(LIST_PROCS, size=4096)) == "EBUSY"
    hooks.post(event, retval=12)
    assert caller.result() == 12


def test_what_a_host_before_waits_for_does_not_reach_the_next_one(guest: Guest,
                                                                  slow: Slow) -> None:
    for _ in range(2):
        with Link(guest.hm_socket) as link:
            link.hello()
            for _ in range(100):
                link.send(READ, slow.pid, slow.page(), 4096)
            assert link.proc(slow.pid).pid == slow.pid
    with Link(guest.hm_socket) as link:
        link.hello()
        assert link.proc(slow.pid).pid == slow.pid
        slow.release()
        assert link.get(READ, slow.pid, slow.page(), 4096) == b"s" * 4096
        assert link.silent(0.5) and link.nothing_else()


@pytest.mark.parametrize("size", [8, LARGE])
def test_a_page_whose_file_system_dies_is_an_error(guest: Guest, slow: Slow, patient: Mount,
                                                   size: int) -> None:
    reader = Reader(patient, slow.pid, slow.page(), size)
    guest.kill(slow.server)
    error = reader.end()
    assert isinstance(error, OSError) and errno_of(lambda: (_ for _ in ()).throw(error)) == "EIO"
    check_others(patient, guest)


@pytest.mark.parametrize("size", [8, LARGE])
def test_a_process_that_dies_while_its_memory_is_waited_for(guest: Guest, slow: Slow,
                                                            patient: Mount, size: int) -> None:
    """Its memory lives as long as somebody reads it."""
    addr = slow.page()
    reader = Reader(patient, slow.pid, addr, size)
    guest.kill(slow.pid)
    wait_for(lambda: not guest.has(slow.pid))
    check_others(patient, guest)
    slow.release()
    result = reader.end()
    assert result == b"s" * size or isinstance(result, ProcessLookupError)
    wait_for(lambda: not path(patient, slow.pid).exists())


@pytest.mark.parametrize("size", [8, LARGE])
def test_a_page_that_userfaultfd_does_not_provide(guest: Guest, hasty: Mount, size: int) -> None:
    """Whether it is waited for is the kernel's business."""
    pid, victim = guest.victim("ufd")
    assert guest_mem(guest, pid, victim["missing"], size) == b""
    assert mem(hasty, pid, victim["present"], 4096) == b"r" * 4096
    assert mem_errno(hasty, pid, victim["missing"], size) in ("EIO", "ETIMEDOUT")
    assert mem(hasty, pid, victim["present"], 4096) == b"r" * 4096
    check_others(hasty, guest)
    guest.kill(pid)
    wait_for(lambda: b"+hypermem" not in guest.run("ps").out)


def test_a_write_that_sleeps_holds_up_nobody(guest: Guest, slow: Slow, patient: Mount) -> None:
    """To a private mapping: the page is copied when it is there."""
    addr = slow.page(private=True)
    with opened(path(patient, slow.pid, "mem"), os.O_RDWR) as fd, ThreadPoolExecutor(2) as pool:
        writer = pool.submit(os.pwrite, fd, b"private", addr + 4)
        time.sleep(0.3)
        check_others(patient, guest)
        assert not writer.done()
        try:
            for n in 8, LARGE:
                reader = pool.submit(mem, patient, slow.pid, 0x400000, n)
                assert reader.result(5)[:4] == b"\x7fELF"
        finally:
            slow.release()
        assert writer.result(20) == 7
        assert os.pread(fd, 20, addr) == b"ssssprivatesssssssss"


@pytest.mark.needs("suspend")
def test_a_machine_is_not_suspended_while_a_request_sleeps(sleeper: Guest) -> None:
    """User space, which the request waits for, would sleep already."""
    slow = Slow(sleeper)
    sleeper.run("echo devices >/sys/power/pm_test", check=True)
    with Link(sleeper.hm_socket) as link:
        link.hello()
        tag = link.send(READ, slow.pid, slow.page(), 4096)
        time.sleep(0.3)
        assert sleeper.run("echo mem >/sys/power/state").rc != 0
        assert "a request waits for user space" in sleeper.console()
        assert link.call(READ, 1, 0x400000, 8).op  # the link is as it was
        slow.release()
        assert link.wait(tag).op == READ_OK
    slow.close()
