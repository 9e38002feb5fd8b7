# SPDX-License-Identifier: MIT
"""memory: what a process has at its addresses, by its file `mem`.

The file stays open.  An open file means the process that was there when it was opened, and the
daemon sees to that: a read costs one question to the guest, and none to be sure whose it is.  The
paths int/ADDR and its like would cost another, since a path means whoever has the pid.  Only how
wide a pointer is must be asked for, and is known for a second then.
"""
from __future__ import annotations

import abc
import errno
import os
import threading
import time
from typing import Literal

from .files import decode, encode, named, reason

STR_MAX = 1 << 20
POINTER_SECONDS = 1.0  # as old as an attribute may be in the mount


class ShortRead(OSError):
    """Memory ended before all of it was read.  `data` is what came before, at least a byte."""

    data: bytes = b""


class ShortWrite(OSError):
    """Memory ended before all of it was written.  `written` bytes are, at least one."""

    written: int = 0


def _check_range(addr: int, size: int) -> None:
    if not 0 <= addr < 1 << 64 or size < 0:
        raise ValueError(f"no address or no size: {addr:#x}, {size}")
    if addr + size >= 1 << 63:  # the offset of a file has a sign
        raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))


class Memory(abc.ABC):
    """The part of a Process that is about its memory."""

    def __init__(self, path: str, order: Literal["little", "big"], kernel_bits: int) -> None:
        self._mem = path
        self._order = order
        self._pointer_size = 4 if kernel_bits == 32 else 0  # 0: to be asked for
        self._pointer_end = float("inf") if kernel_bits == 32 else 0.0
        self._lock = threading.Lock()  # protects what follows
        self._fds: dict[int, int] = {}  # by O_RDONLY and O_WRONLY

    @abc.abstractmethod
    def check(self) -> None:
        """Raise if it is another process now."""

    @property
    @abc.abstractmethod
    def bits(self) -> int:
        """Of a pointer: 32 or 64."""

    def close(self) -> None:
        """Close what is open; it is opened again when it is needed."""
        with self._lock:
            while self._fds:
                os.close(self._fds.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_fds"):
            self.close()

    def _open(self, flags: int) -> int:
        fd = self._fds.get(flags)
        if fd is not None:
            return fd
        with self._lock:
            if flags not in self._fds:
                fd = os.open(self._mem, flags | os.O_CLOEXEC)
                try:
                    self.check()  # or it may be another's file
                except BaseException:
                    os.close(fd)
                    raise
                self._fds[flags] = fd
            return self._fds[flags]

    def _error_at(self, number: int, addr: int) -> OSError:
        return OSError(number, reason(number, addr), self._mem)

    def _read_some(self, addr: int, size: int) -> bytes:
        """Up to `size` bytes: fewer where memory ends, none if the process has no memory."""
        with named(self._mem, addr):
            _check_range(addr, size)
            return os.pread(self._open(os.O_RDONLY), size, addr)

    def _read_up_to(self, addr: int, size: int) -> bytes:
        """What there is before memory ends."""
        data = b""
        with named(self._mem, addr):
            _check_range(addr, size)
        while len(data) < size:  # what is very large comes in more than one part
            try:
                part = self._read_some(addr + len(data), size - len(data))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                break
            if not part:
                break
            data = data + part if data else part
        return data

    def read_bytes(self, addr: int, size: int) -> bytes:
        """Exactly `size` bytes.  ShortRead: memory ends before; OSError with EIO: at once."""
        data = self._read_up_to(addr, size)
        if not data and size:
            raise self._error_at(errno.EIO, addr)
        if len(data) < size:
            short = ShortRead(errno.EIO, reason(errno.EIO, addr + len(data)), self._mem)
            short.data = data
            raise short
        return data

    def write_bytes(self, addr: int, data: bytes) -> None:
        """All of it.  ShortWrite: memory ends before; OSError with EIO: at once."""
        done = 0
        with named(self._mem, addr):
            _check_range(addr, len(data))
            fd = self._open(os.O_WRONLY)
            while done < len(data):
                try:
                    done += os.pwrite(fd, data[done:] if done else data, addr + done)
                except OSError as error:
                    if not done or error.errno != errno.EIO:
                        raise
                    short = ShortWrite(errno.EIO, reason(errno.EIO, addr + done), self._mem)
                    short.written = done
                    raise short from None

    def read_str(self, addr: int) -> str:
        """A C string.  OSError with EIO: memory ends before it; EFBIG: it has over 1 MiB."""
        data, size = b"", 256
        while len(data) <= STR_MAX:
            part = self._read_some(addr + len(data), min(size, STR_MAX + 1 - len(data)))
            text, nul, _ = part.partition(b"\0")
            data += text
            if nul:
                return decode(data)
            if not part:
                raise self._error_at(errno.EIO, addr)
            size *= 16
        raise self._error_at(errno.EFBIG, addr)

    def write_str(self, addr: int, text: str | bytes) -> None:
        """The text and a NUL."""
        self.write_bytes(addr, encode(text) + b"\0")

    def _read_number(self, addr: int, size: int, signed: bool) -> int:
        return int.from_bytes(self.read_bytes(addr, size), self._order, signed=signed)

    def _write_number(self, addr: int, value: int, size: int, signed: bool) -> None:
        try:
            data = value.to_bytes(size, self._order, signed=signed)
        except OverflowError:
            raise OverflowError(f"{value} does not fit into {8 * size} bits "
                                f"{'with' if signed else 'without'} a sign") from None
        self.write_bytes(addr, data)

    def _pointer(self, afresh: bool = False) -> int:
        """Bytes of a pointer.  An exec may change it, but not on a kernel of 32 bits."""
        if time.monotonic() >= self._pointer_end or (afresh and self._pointer_end < float("inf")):
            end = time.monotonic() + POINTER_SECONDS
            self._pointer_size = self.bits // 8
            self._pointer_end = end
        return self._pointer_size

    def read_int(self, addr: int) -> int:
        """32 bits with a sign, in the guest's byte order."""
        return self._read_number(addr, 4, True)

    def read_uint(self, addr: int) -> int:
        """32 bits without a sign."""
        return self._read_number(addr, 4, False)

    def read_long(self, addr: int) -> int:
        """64 bits with a sign."""
        return self._read_number(addr, 8, True)

    def read_ptr(self, addr: int) -> int:
        """A pointer: 32 or 64 bits without a sign, as the process has it."""
        return self._read_number(addr, self._pointer(), False)

    def write_int(self, addr: int, value: int) -> None:
        """OverflowError: it does not fit.  So for the others."""
        self._write_number(addr, value, 4, True)

    def write_uint(self, addr: int, value: int) -> None:
        self._write_number(addr, value, 4, False)

    def write_long(self, addr: int, value: int) -> None:
        self._write_number(addr, value, 8, True)

    def write_ptr(self, addr: int, value: int) -> None:
        """Its width is asked for each time: too wide, it would be written over what is behind."""
        self._write_number(addr, value, self._pointer(afresh=True), False)
