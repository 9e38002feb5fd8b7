# SPDX-License-Identifier: MIT
"""process: one process of the guest.

A process is known by its pid, its start (in 1/100 s, as /proc tells it) and the boot of the guest.
A path of the mount means whoever has the pid.  So what has been read by a path counts only if
the process is there afterwards: a pid that is in use cannot be another's in between.
"""
from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .files import decode, encode, read_file
from .memory import Memory

if TYPE_CHECKING:
    from .guest import Guest

SEARCH_PART = 1 << 20


class Mapping(NamedTuple):
    """A line of `maps`."""

    start: int
    end: int
    perms: str  # as "r-xp"
    offset: int
    dev: str  # as "fe:01"
    inode: int
    path: str  # of a file, or as "[heap]"; empty if there is none

    @classmethod
    def parse(cls, line: bytes) -> Mapping:
        addrs, perms, offset, dev, inode, *path = line.split(None, 5)
        start, _, end = addrs.partition(b"-")
        return cls(int(start, 16), int(end, 16), perms.decode(), int(offset, 16), dev.decode(),
                   int(inode), decode(path[0]) if path else "")


class Process(Memory):
    """A process, and never another one that has its pid later: ProcessLookupError then, and
    OSError with ESTALE after a reboot.

    The properties ask the guest anew each time.
    """

    def __init__(self, guest: Guest, pid: int) -> None:
        self._guest = guest
        self._pid = int(pid)
        self._path = f"{guest.path}/pid/{self._pid}"
        try:
            self._start = self._read_start()
        except (FileNotFoundError, ProcessLookupError):
            raise self._error(errno.ESRCH) from None
        info = guest.info
        self._epoch = info["epoch"]
        super().__init__(f"{self._path}/mem", "big" if info["endian"] == "big" else "little",
                         int(info["bits"]))

    def __repr__(self) -> str:
        return f"<Process {self._pid} of {self._guest.path}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str, bytes]:
        return self._path, self._epoch, self._start

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Who it is.

    def _read_start(self) -> bytes:
        """When it started, in ticks since the boot.  Its name, in brackets, may hold anything."""
        return read_file(f"{self._path}/stat").rpartition(b")")[2].split()[19]

    def _error(self, number: int) -> OSError:
        return OSError(number, os.strerror(number), self._path)  # of the subclass for the number

    def check(self) -> None:
        """Raise ProcessLookupError if it has gone; OSError with ESTALE if the guest has."""
        try:
            start = self._read_start()
        except (FileNotFoundError, ProcessLookupError):
            start = b""
        # The boot last: if it is the same even now, `start` was of it.
        if self._guest.info["epoch"] != self._epoch:
            raise self._error(errno.ESTALE)
        if start != self._start:
            raise self._error(errno.ESRCH)

    def is_alive(self) -> bool:
        """Whether it is there still, be it as a zombie."""
        try:
            self.check()
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.ESTALE):
                return False
            raise
        return True

    def _read(self, name: str) -> bytes:
        try:
            data = read_file(f"{self._path}/{name}")
        except OSError:
            self.check()
            raise
        self.check()
        return data

    def _readlink(self, name: str) -> str:
        path = f"{self._path}/{name}"
        try:
            text = os.readlink(os.fsencode(path))
        except OSError as error:
            self.check()
            error.filename = path  # a str, as of the others
            raise
        self.check()
        return decode(text)

    # What /proc says of it.

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def start(self) -> int:
        """When it started, in ns since the guest booted, as exactly as /proc tells it."""
        return int(self._start) * 10_000_000

    @property
    def comm(self) -> str:
        """Its name, of at most 15 bytes (a kernel thread's may be longer)."""
        return decode(self._read("comm").removesuffix(b"\n"))

    @property
    def args(self) -> list[str]:
        """Its arguments, empty ones, too.  None at all: a kernel thread, or a zombie."""
        return [decode(arg) for arg in _strings(self._read("cmdline"))]

    @property
    def env(self) -> dict[str, str]:
        """Its environment as it was at its start.  As for getenv(3), the first of a name counts,
        and what has no `=` does not."""
        env: dict[str, str] = {}
        for entry in _strings(self._read("environ")):
            name, equals, value = entry.partition(b"=")
            if equals:
                env.setdefault(decode(name), decode(value))
        return env

    @property
    def fds(self) -> dict[int, str]:
        """Its open files, by descriptor: what `readlink` in the guest says."""
        fds: dict[int, str] = {}
        try:
            for fd in sorted(map(int, os.listdir(f"{self._path}/fd"))):
                try:
                    fds[fd] = decode(os.readlink(os.fsencode(f"{self._path}/fd/{fd}")))
                except FileNotFoundError:
                    pass  # closed meanwhile
        except OSError:
            self.check()
            raise
        self.check()
        return fds

    def fd(self, number: int) -> str:
        """What it has open as that descriptor.  FileNotFoundError: nothing."""
        return self._readlink(f"fd/{int(number)}")

    @property
    def maps(self) -> list[Mapping]:
        """Its mappings, by address."""
        return [Mapping.parse(line) for line in self._read("maps").split(b"\n") if line]

    @property
    def exe(self) -> str:
        """The path of its program, in the guest; FileNotFoundError: it has none."""
        return self._readlink("exe")

    @property
    def cwd(self) -> str:
        return self._readlink("cwd")

    @property
    def root(self) -> str:
        return self._readlink("root")

    @property
    def bits(self) -> int:
        """Of a pointer: 32 or 64."""
        return int(self._read("bits"))

    def search(self, pattern: str | bytes) -> Iterator[int]:
        """The addresses where these bytes are, in mappings that the process may read."""
        wanted = encode(pattern)
        if not wanted:
            raise ValueError("nothing to search for")
        tail, end = b"", 0  # of what came before, and where that ended
        for mapping in self.maps:
            if "r" not in mapping.perms or mapping.end >= 1 << 63:
                continue
            for addr in range(mapping.start, mapping.end, SEARCH_PART):
                part = self._read_up_to(addr, min(SEARCH_PART, mapping.end - addr))
                data = tail + part if addr == end else part
                at = data.find(wanted)
                while at >= 0:
                    yield addr + len(part) - len(data) + at
                    at = data.find(wanted, at + 1)
                tail, end = data[max(0, len(data) - len(wanted) + 1):], addr + len(part)


def _strings(data: bytes) -> list[bytes]:
    """Strings that each end with a NUL; a title that a process has given itself may not."""
    strings = data.split(b"\0")
    return strings if strings[-1] else strings[:-1]
