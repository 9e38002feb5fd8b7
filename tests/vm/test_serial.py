# SPDX-License-Identifier: MIT
"""A serial line as the link: what it is given is a UART of QEMU's, and what comes over it may be noise."""
from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import machines
from caller import MINE, Call
from conftest import Kit, booted, load
from hook import BOTH, IS_RETURN, SKIPPED, WAITS, Hooks
from lab import Guest, LabError
from link import (CHUNK, READ, READ_PROC, READ_PROC_FILE, RESET, WRITE, Link, SerialLink,
                  header, hello_frame, stuffed)
from world import Mount, pattern, wait_for

pytestmark = pytest.mark.vm("is about the module")


TTY = machines.current.serial


def serial(directory: Path, *device: str) -> list[str]:
    """QEMU's options for a chardev and what is in front of it."""
    return ["-chardev", f"socket,id=line,path={directory}/line.sock,server=on,wait=off", *device]


@pytest.fixture(scope="module")
def machine(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    if not TTY:
        pytest.skip(f"{machines.current.name} has no second serial line")
    directory = tmp_path_factory.mktemp("serial")
    with booted(kit, directory=directory, hypermem_args=f"tty={TTY}",
                qemu_args=serial(directory, *machines.current.serial_line)) as guest:
        yield guest


@pytest.fixture
def line(guest: Guest) -> Path:
    return guest.dir / "line.sock"


@pytest.fixture
def victim(guest: Guest) -> dict:
    return guest.victim("mem")[1]


def mapped(link: SerialLink, victim: dict, size: int = 64) -> bool:
    return link.get(READ, victim["pid"], victim["region"], size) == \
        pattern(victim["region"], size)


def test_it_is_a_link_as_any(line: Path, victim: dict) -> None:
    with SerialLink(line) as link:
        hello = link.hello()
        assert hello.max_data == CHUNK
        assert mapped(link, victim, CHUNK - CHUNK % 8)
        assert link.proc(victim["pid"]).pid == victim["pid"]
        maps = link.get(READ_PROC_FILE, victim["pid"], 0, data=b"maps")
        assert maps.startswith(b"00400000-")
        addr = victim["region"]
        assert link.write(victim["pid"], addr, bytes(range(256))) == 256
        assert link.get(READ, victim["pid"], addr, 256) == bytes(range(256))
        assert link.lost == 0


def test_many_requests_are_in_flight(line: Path, victim: dict) -> None:
    with SerialLink(line) as link:
        link.hello()
        tags = [link.send(READ, victim["pid"], victim["region"] + 8 * n, 8) for n in range(64)]
        for n, tag in reversed(list(enumerate(tags))):
            assert link.wait(tag).data == pattern(victim["region"] + 8 * n, 8)


@pytest.mark.needs("kprobes")
def test_hooks_work_over_it(line: Path, call: Call) -> None:
    """That a host has left is seen when the next one says HELLO."""
    with SerialLink(line) as link:
        link.hello()
        hooks = Hooks(link, CHUNK)
        hooks.set(1, "getppid", BOTH, **MINE, timeout_ms=3600000)
        caller = call("getppid", 2)
        hooks.reply(hooks.next(), retval=7)
        event = hooks.next()
        assert (event.flags, event.retval) == (WAITS | IS_RETURN | SKIPPED, 7)
        hooks.reply(event)
        assert caller.result() == 7
        hooks.next()
    with SerialLink(line) as link:
        link.hello()
        assert caller.end().count(b"result=1\n") == 1


NOISES = {
    "a boot": b"[    0.000000] Linux version 6.1.0 (gcc) #1 SMP\r\nlogin: ",
    "flags": b"~" * 100,
    "escapes": b"}" * 100,
    "half a frame": stuffed(header(WRITE, 1, 0x400000, 100) + bytes(100))[:60],
    "a frame without its CRC": bytes([0x7e]) + bytes(24) + bytes([0x7e]),
    "a frame that is longer than it says":
        stuffed(header(READ_PROC, 1) + b"more"),
    "a frame that is shorter than it says": stuffed(header(WRITE, 1, 0x400000, 100) + b"less"),
    "too long a frame": b"~" + b"x" * 10000 + b"~",
    "control characters": bytes(range(0x20)) + b"\x7f\xff" * 10,
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_noise_is_dropped(line: Path, victim: dict, noise: bytes) -> None:
    with SerialLink(line) as link:
        link.line(noise)
        link.hello()
        for _ in range(3):
            link.line(noise)
            assert mapped(link, victim)


def test_a_lost_byte_costs_one_request(line: Path, victim: dict) -> None:
    frame = stuffed(header(READ, victim["pid"], victim["region"], 8, tag=1000))
    with SerialLink(line) as link:
        link.hello()
        for at in range(1, len(frame) - 1):
            link.line(frame[:at] + frame[at + 1:])
            assert mapped(link, victim, 8)
        assert link.silent(0.3)


def test_noise_for_a_while(line: Path, victim: dict, seconds: float) -> None:
    """Whoever waits for an answer gets it, or none; never another one."""
    rand = random.Random(1)
    end = time.monotonic() + seconds
    answered = asked = 0
    with SerialLink(line, timeout=1) as link:
        link.hello()
        while time.monotonic() < end:
            link.line(rand.randbytes(rand.randrange(200)))
            asked += 1
            try:
                reply = link.call(READ, victim["pid"], victim["region"], 8)
            except TimeoutError:
                continue
            answered += 1
            assert reply.data == pattern(victim["region"], 8)
    assert answered > asked / 2 > 0


def test_another_host_is_served_after_half_a_frame(line: Path, victim: dict) -> None:
    for size in 1, 10, 30:
        with SerialLink(line) as link:
            link.hello()
            link.line(stuffed(header(WRITE, victim["pid"], victim["region"], 64) + bytes(64))[:size])
        with SerialLink(line) as link:
            link.hello()
            assert mapped(link, victim)


def test_a_host_without_a_session_is_told(line: Path) -> None:
    with SerialLink(line) as link:
        link.raw(hello_frame(1, version=77))
        link.receive()
        link.raw(header(READ_PROC, 1, tag=3))
        assert link.receive().op == RESET
        link.hello()
        assert link.proc(1).pid == 1


def test_a_mount_over_a_serial_line(guest: Guest, line: Path, daemon: Path, victim: dict) -> None:
    pid, region = victim["pid"], victim["region"]
    with Mount(daemon, f"serial:{line}") as mount:
        process = mount.mnt / "pid" / str(pid)
        assert (process / "maps").read_bytes() == guest.read_file(f"/proc/{pid}/maps")
        assert (process / "cmdline").read_bytes() == guest.read_file(f"/proc/{pid}/cmdline")
        fd = os.open(process / "mem", os.O_RDWR)
        try:
            assert os.pread(fd, 3 * 4096, region) == pattern(region, 3 * 4096)
            assert os.pwrite(fd, b"x" * 5000, region) == 5000
            assert os.pread(fd, 5000, region) == b"x" * 5000
        finally:
            os.close(fd)
        mount.check()


def test_large_reads_do_not_go_over_the_line(guest: Guest, line: Path, daemon: Path) -> None:
    victim = guest.victim("mem")[1]
    with Mount(daemon, f"serial:{line}", "-o", "ram=require") as mount:
        said = (mount.mnt / "info").read_text()
        assert "\nram: window (" in said
        text = guest.read_file("/bin/victim")
        fd = os.open(mount.mnt / "pid" / str(victim["pid"]) / "mem", os.O_RDONLY)
        try:
            maps = (mount.mnt / "pid" / str(victim["pid"]) / "maps").read_text().splitlines()
            start, end = next((int(a, 16) for a in m.split()[0].split("-"))
                              for m in maps if " r-xp " in m and "/bin/victim" in m)
            offset = next(int(m.split()[2], 16) for m in maps
                          if " r-xp " in m and "/bin/victim" in m)
            assert os.pread(fd, end - start, start)[:len(text) - offset] == \
                text[offset:offset + end - start]
        finally:
            os.close(fd)
        mount.check()


@pytest.mark.needs("modules")
def test_the_module_comes_and_goes_under_load(guest: Guest, line: Path, victim: dict) -> None:
    with SerialLink(line, timeout=5) as link:
        link.hello()

        def ask() -> None:
            link.send(READ, victim["pid"], victim["region"], 512)
            time.sleep(0.001)

        with load(ask):
            for _ in range(5):
                guest.run(f"rmmod hypermem && insmod /hypermem.ko tty={TTY}", check=True)
    with SerialLink(line) as link:
        link.hello()
        assert mapped(link, victim)
    assert b"hypermem" in guest.run("lsmod").out


def refused(guest: Guest, name: str) -> str:
    """What the kernel says when the module cannot be loaded with this line."""
    before = len(guest.console())
    assert guest.run(f"insmod /hypermem.ko tty={name}").rc != 0
    assert guest.run("grep hypermem /proc/modules").rc != 0
    return guest.console()[before:]


@pytest.mark.needs("modules")
def test_a_line_that_cannot_be_had_is_refused(guest: Guest, line: Path) -> None:
    guest.run("rmmod hypermem", check=True)
    try:
        assert "tty=ttyS9: there is no such line" in refused(guest, "ttyS9")
        assert "tty=nothing: there is no such line" in refused(guest, "nothing")
        assert "tty=../null: there is no such line" in refused(guest, "../null")
        assert "tty=ttyS3: there is no UART behind the line" in refused(guest, "ttyS3")
        assert "ttyS0: the line is in use: the kernel's console is on it; give the guest another " \
            "serial line, and its name here" in refused(guest, "ttyS0")
        before = guest.run("stty -a </dev/tty1").out
        for name in "tty1", "tty0", "tty", "console", "ptmx":
            assert f"tty={name}: it is not a serial line; name one" in refused(guest, name)
        assert guest.run("stty -a </dev/tty1").out == before
        holder = guest.spawn(["sh", "-c", f"exec sleep 100 </dev/{TTY}"])
        time.sleep(0.3)
        assert f"tty={TTY}: the line is in use" in refused(guest, TTY)
        guest.kill(holder)
        time.sleep(0.3)
    finally:
        guest.run(f"insmod /hypermem.ko tty={TTY}", check=True)
    with SerialLink(line) as link:
        link.hello()


@pytest.mark.needs("builtin")
def test_a_line_that_cannot_be_had_leaves_the_rest(boot: Callable[..., Guest]) -> None:
    """Built in, as the kernel's command line names it."""
    guest = boot(hypermem_args="tty=ttyS9")
    assert "tty=ttyS9: there is no such line" in guest.console()
    assert guest.read_file("/sys/module/hypermem/parameters/tty") == b"ttyS9\n"
    with Link(guest.hm_socket) as link:
        assert link.hello().ops


@pytest.mark.needs("modules")
@pytest.mark.needs("pci-serial")
def test_a_serial_card(boot: Callable[..., Guest], tmp_path: Path, daemon: Path) -> None:
    guest = boot(directory=tmp_path, load_hypermem=False,
                 qemu_args=serial(tmp_path, "-device", "pci-serial,chardev=line"))
    # Since Linux 6.5 there are two devices more in between.
    card = "/sys/bus/pci/drivers/serial/0*"
    name = guest.run(f"ls -d {card}/tty/ttyS* {card}/*/*/tty/ttyS*").out.decode().split("/")[-1]
    guest.run(f"insmod /hypermem.ko tty={name.strip()}", check=True)
    with Mount(daemon, f"serial:{tmp_path}/line.sock") as mount:
        assert (mount.mnt / "pid/1/comm").read_bytes() == guest.read_file("/proc/1/comm")


def test_a_line_with_the_kernels_console_is_served_and_warned_of(
        boot: Callable[..., Guest], daemon: Path) -> None:
    """Nobody has it open: /dev/console is the screen."""
    if machines.current.console != "ttyS0" or "pc" not in machines.current.features:
        pytest.skip("the console of this machine is its only screen, or no serial line")
    guest = boot(hypermem_args="tty=ttyS0", append="console=tty0")
    assert len(re.findall("tty=ttyS0: the kernel's console is on this line, too: each of its",
                          guest.console())) == 1
    with Mount(daemon, f"serial:{guest.dir}/console.sock", "-o", "timeout=3") as mount:
        for n in range(20):
            guest.run(f"echo message {n} >/dev/kmsg")
            with contextlib.suppress(TimeoutError):
                assert (mount.mnt / "pid/1/comm").read_bytes() == guest.read_file("/proc/1/comm")


class Noise:
    """A socket in front of another: what passes has noise in it, and loses some, both ways."""

    def __init__(self, path: Path, line: Path) -> None:
        self._line = line
        self._rand = random.Random(2)
        self.made = 0
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, there = self._sock.accept()[0], socket.socket(socket.AF_UNIX)
                there.connect(str(self._line))
                for way in (here, there), (there, here):
                    threading.Thread(target=self._pass, args=way, daemon=True).start()

    def _spoil(self, data: bytes) -> bytes:
        if self._rand.random() > len(data) / 5000:
            return data
        self.made += 1
        at = self._rand.randrange(len(data))
        return data[:at] + self._rand.choice([
            self._rand.randbytes(self._rand.randrange(1, 50)) + data[at:],  # put between
            data[at + 1:],  # lost
            bytes([data[at] ^ 1 << self._rand.randrange(8)]) + data[at + 1:]])  # changed

    def _pass(self, source: socket.socket, dest: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1000):
                dest.sendall(self._spoil(data))
        for sock in source, dest:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Noise:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


@pytest.mark.limit(150)
def test_a_mount_after_noise_that_nobody_heard(line: Path, guest: Guest, daemon: Path,
                                               seconds: float) -> None:
    rand = random.Random(3)
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(line))
        while time.monotonic() < end:
            sock.sendall(rand.randbytes(rand.randrange(1, 500)))
            time.sleep(0.01)
    with Mount(daemon, f"serial:{line}") as mount:
        assert (mount.mnt / "pid/1/comm").read_bytes() == guest.read_file("/proc/1/comm")
        mount.check()


@pytest.mark.limit(150)
@pytest.mark.daemon_talks
def test_a_mount_over_a_noisy_line_shows_no_wrong_byte(
        line: Path, daemon: Path, victim: dict, tmp_path: Path, seconds: float) -> None:
    pid, region = victim["pid"], victim["region"]
    outcomes: Counter[str] = Counter()
    with Noise(tmp_path / "noisy", line) as noise, \
            Mount(daemon, f"serial:{tmp_path}/noisy", "-o", "timeout=1,ram=off") as mount:
        end = time.monotonic() + 2 * seconds
        while time.monotonic() < end:
            for size in 8, 1000, 6000:
                try:
                    with open(mount.mnt / "pid" / str(pid) / "mem", "r+b", buffering=0) as file:
                        data = os.pread(file.fileno(), size, region)
                        assert data == pattern(region, len(data))
                        os.pwrite(file.fileno(), pattern(region, size), region)
                    outcomes["OK"] += 1
                except OSError as error:
                    outcomes[errno.errorcode[error.errno]] += 1
        mount.check(talks=True)
    print(outcomes, noise.made)
    assert outcomes["OK"] and noise.made
    assert set(outcomes) <= {"OK", "ETIMEDOUT", "ENOTCONN"}


def test_the_console_is_told_from_a_guest(guest: Guest, daemon: Path, tmp_path: Path) -> None:
    """hypermemfs on the wrong chardev: somebody types there, and the guest says something."""
    (tmp_path / "mnt").mkdir()
    process = subprocess.Popen([daemon, "-f", "-o", "timeout=2", f"serial:{guest.dir}/console.sock",
                                tmp_path / "mnt"], stderr=subprocess.PIPE, text=True)
    for n in range(10):
        guest.run("echo the machine is well >/dev/kmsg")
        time.sleep(0.1)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 4
    assert "what talks there is not hypermem.ko, it says " in said and "is hypermem.ko loaded" in said


@pytest.mark.needs("pc")
def test_a_host_that_does_not_listen_is_not_taken_for_a_hung_task(
        guest: Guest, line: Path, victim: dict) -> None:
    """The line stands still for as long as it pleases."""
    guest.run("echo 1 >/proc/sys/kernel/hung_task_timeout_secs", check=True)
    try:
        with SerialLink(line) as deaf:
            deaf.hello()
            for n in range(200):
                deaf.send(READ, victim["pid"], victim["region"], CHUNK)
            time.sleep(4)
            guest.check_console()
        with SerialLink(line) as link:
            link.hello()
            assert mapped(link, victim)
    finally:
        guest.run("echo 120 >/proc/sys/kernel/hung_task_timeout_secs", check=True)


@pytest.mark.needs("hotplug", "pci-serial")
def test_a_serial_card_that_is_pulled_out_is_told_of(boot: Callable[..., Guest],
                                                     tmp_path: Path) -> None:
    """With requests under way; the module can go and come afterwards."""
    guest = boot(directory=tmp_path, hypermem_args="tty=ttyS1", smp=2,
                 qemu_args=serial(tmp_path, "-device", "pci-serial,chardev=line,id=card"))
    pid, victim = guest.victim("mem")
    with SerialLink(tmp_path / "line.sock") as link:
        link.hello()
        for _ in range(40):
            link.send(READ, pid, victim["region"], CHUNK)
        guest.qmp("device_del", id="card")
        guest.wait_console("ttyS1: the line was hung up; plug it in again and load the module anew")
    before = len(guest.console())
    guest.run("rmmod hypermem", check=True, timeout=20)
    assert "tty" not in guest.console()[before:]
    guest.wait_event("DEVICE_DELETED")
    wait_for(lambda: plugged(guest))
    wait_for(lambda: guest.run("insmod /hypermem.ko tty=ttyS1 2>/dev/null").rc == 0)
    with SerialLink(tmp_path / "line.sock") as link:
        link.hello()
        assert mapped(link, {"pid": pid, **victim})


def plugged(guest: Guest) -> bool:
    """The card, again; QEMU lets go of its chardev a moment after it has gone."""
    try:
        guest.qmp("device_add", driver="pci-serial", chardev="line", id="card")
    except LabError:
        return False
    return True


def test_one_machine_has_both_links(guest: Guest, line: Path, victim: dict) -> None:
    with SerialLink(line) as one, Link(guest.hm_socket) as other:
        one.hello()
        other.hello()
        for _ in range(10):
            assert mapped(one, victim)
            assert other.get(READ, victim["pid"], victim["region"], 64) == \
                pattern(victim["region"], 64)
