# SPDX-License-Identifier: MIT
"""What else looks into a guest, on the same guest: qemu-guest-agent, QEMU's gdbstub and
monitor, and the memory of QEMU's process.

All but the agent know physical addresses only: they read `memory`, a piece of the guest's RAM.
"""
from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lab import Guest, LabError
from machine import QGA, BenchError

TIMEOUT = 60.0
BELOW_HOLE = 2 << 30  # as much RAM of a `pc` begins at physical address 0, without a gap


def rate(size: int, start: float) -> float:
    """MB/s of so many bytes since then."""
    return size / (time.perf_counter() - start) / 1e6


class Qga:
    """qemu-guest-agent in the guest, and its socket."""

    def __init__(self, guest: Guest, path: Path) -> None:
        port = guest.run("grep -l org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name",
                         check=True).out.decode().split("/")[-2]
        guest.spawn([str(QGA), "-t", "/tmp", "-f", "/tmp/qemu-ga.pid",
                     "-m", "virtio-serial", "-p", f"/dev/{port}"])
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(TIMEOUT)
        self._sock.connect(str(path))
        self._in = self._sock.makefile("rb")
        self("guest-sync", id=os.getpid())

    def __call__(self, command: str, **arguments: Any) -> Any:
        self._sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        try:
            reply = json.loads(self._in.readline())
        except TimeoutError:
            raise BenchError(f"qemu-guest-agent: no answer to {command}") from None
        if "error" in reply:
            raise BenchError(f"qemu-guest-agent: {command}: {reply['error']['desc']}")
        return reply["return"]

    def environ(self, pid: int) -> float:
        """Seconds that it takes to open, read and close a process's environment."""
        start = time.perf_counter()
        handle = self("guest-file-open", path=f"/proc/{pid}/environ")
        self("guest-file-read", handle=handle, count=65536)
        self("guest-file-close", handle=handle)
        return time.perf_counter() - start

    def memory(self, pid: int, addr: int, size: int, block: int) -> float:
        """MB/s, of a process's memory."""
        handle = self("guest-file-open", path=f"/proc/{pid}/mem")
        self("guest-file-seek", handle=handle, offset=addr, whence=0)
        start, done = time.perf_counter(), 0
        while done < size:
            reply = self("guest-file-read", handle=handle, count=min(block, size - done))
            if not reply["count"]:
                raise BenchError("qemu-guest-agent: a short read")
            done += len(base64.b64decode(reply["buf-b64"]))
        mbs = rate(done, start)
        self("guest-file-close", handle=handle)
        return mbs

    def close(self) -> None:
        self._in.close()
        self._sock.close()


class Gdb:
    """A client of QEMU's gdbstub.  The guest stands still while there is one."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(TIMEOUT)
        self._sock.connect(str(path))
        self._buf = b""
        features = self.ask("qSupported").decode()
        # A byte is two digits; a packet may be as large as it says.
        self.block = (int(re.search(r"PacketSize=([0-9a-f]+)", features)[1], 16) - 16) // 2
        self._expect("Qqemu.PhyMemMode:1")

    def ask(self, text: str) -> bytes:
        """Send a packet; the data of its answer."""
        packet = text.encode()
        self._sock.sendall(b"$%s#%02x" % (packet, sum(packet) % 256))
        # That the guest has stopped, which is said some time after connecting, is no answer.
        while (said := self._packet()).startswith(b"T"):
            pass
        return said

    def _packet(self) -> bytes:
        while not (found := re.search(rb"\$([^#]*)#..", self._buf, re.DOTALL)):
            data = self._sock.recv(65536)
            if not data:
                raise BenchError("gdbstub: QEMU has closed the connection")
            self._buf += data
        self._buf = self._buf[found.end():]
        self._sock.sendall(b"+")
        return found[1]

    def _expect(self, text: str) -> None:
        if (said := self.ask(text)) != b"OK":
            raise BenchError(f"gdbstub: {text}: {said!r}")

    def memory(self, addr: int, size: int) -> float:
        start, done = time.perf_counter(), 0
        while done < size:
            data = bytes.fromhex(self.ask(f"m{addr + done:x},{self.block:x}").decode())
            if len(data) != self.block:
                raise BenchError(f"gdbstub: {len(data)} bytes instead of {self.block}")
            done += len(data)
        return rate(done, start)

    def close(self) -> None:
        """The guest goes on.  What is not set back stays for the next client."""
        with contextlib.suppress(OSError):
            self._expect("Qqemu.PhyMemMode:0")
            self.ask("D")
        self._sock.close()


class Ram(NamedTuple):
    """A piece of the guest's RAM that is there: where the guest, and where QEMU has it."""
    physical: int
    virtual: int
    size: int


def find_ram(pid: int, guest_size: int, size: int) -> Ram:
    """The piece that has the most pages: reading those that nobody ever touched is too easy."""
    virtual = next(v for v, n in qemu_mappings(pid) if n == guest_size)
    guest_size = min(guest_size, BELOW_HOLE)
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        entries = os.pread(pagemap.fileno(), guest_size // 512, virtual // 512)
    pages = struct.unpack(f"{len(entries) // 8}Q", entries)
    step = size // 4096

    def present(at: int) -> int:
        return sum(entry >> 63 for entry in pages[at:at + step])

    best = max(range(0, len(pages) - step + 1, step), key=present)
    return Ram(best * 4096, virtual + best * 4096, size)


def qemu_mappings(pid: int) -> Iterator[tuple[int, int]]:
    """Address and size of each."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(word, 16) for word in line.split()[0].split("-"))
        yield start, end - start


def pmemsave(guest: Guest, ram: Ram, size: int, path: Path) -> float:
    start = time.perf_counter()
    guest.qmp("pmemsave", val=ram.physical, size=size, filename=str(path))
    mbs = rate(size, start)
    if path.stat().st_size != size:
        raise LabError(f"pmemsave: {path.stat().st_size} bytes instead of {size}")
    path.unlink()
    return mbs
