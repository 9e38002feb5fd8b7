# SPDX-License-Identifier: MIT
"""The host's end of the protocol, with nothing in between: says what it is told to.

    with Link(guest.hm_socket) as link:
        link.hello()
        link.call(READ, pid=1, addr=0x400000, size=4).data
        link.raw(header(WRITE, size=100)[:10])      # half a frame

Numbers and layouts are guest/uapi/hypermem.h's.
"""
from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from machines import patience

DATA = 0x100
HELLO, READ, WRITE, READ_STR = 1 | DATA, 2, 3 | DATA, 4
READ_PROCARGS, READ_PROCENV, READ_FD_NAME = 5, 6, 7
LIST_PROCS, READ_PROC, LIST_FDS, LIST_MAPS, READ_LINK = 8, 9, 10, 11, 12
READ_PROC_FILE, WINDOW, TRANSLATE = 13 | DATA, 14, 15
READ_PTR, WRITE_PTR = 21, 22 | DATA
READ_OK, READ_PARTIAL, READ_FAIL = 0xf0000001 | DATA, 0xf0000002 | DATA, 0xf0000003
WRITE_OK, WRITE_PARTIAL, WRITE_FAIL, RESET = 0xf0000004, 0xf0000005, 0xf0000006, 0xf0000007
EXE, CWD, ROOT = range(3)

VERSION = 1
MAGIC = 0x004d454d52505948
READONLY, BIG_ENDIAN = 1, 2  # flags of HELLO and its reply
CHUNK = 4072  # data that every side takes
PROMPTLY = 20.0

HEADER = struct.Struct("<IIQIHH")  # op, pid, addr, size, tag, stamp
HELLO_DATA = struct.Struct("<IIQII")
HELLO_REPLY = struct.Struct("<IIQQQIIII80s48s32s")
PROC = struct.Struct("<IIIIHcBIQQQQQQQ16s32x")


class Frame(NamedTuple):
    op: int
    pid: int
    addr: int
    size: int
    tag: int
    stamp: int
    data: bytes


class Hello(NamedTuple):
    version: int
    flags: int
    epoch: int
    ops: int
    allowed: int
    max_data: int
    max_inflight: int
    page_size: int
    word_bits: int
    release: bytes
    machine: bytes
    module: bytes


class Proc(NamedTuple):
    pid: int
    ppid: int
    uid: int
    gid: int
    stamp: int
    state: bytes
    flags: int
    threads: int
    start_time: int
    start_time_real: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    task_size: int
    comm: bytes


class Reset(Exception):
    """The guest has no session with us."""


def header(op: int, pid: int = 0, addr: int = 0, size: int = 0, tag: int = 0,
           stamp: int = 0) -> bytes:
    return HEADER.pack(op, pid, addr, size, tag, stamp)


def hello_frame(nonce: int, flags: int = 0, version: int = VERSION,
                max_data: int = 1 << 16) -> bytes:
    data = HELLO_DATA.pack(version, flags, nonce, max_data, 0)
    return header(HELLO, addr=MAGIC, size=len(data)) + data


def proc(record: bytes) -> Proc:
    fields = Proc(*PROC.unpack(record))
    return fields._replace(comm=fields.comm.split(b"\0")[0])


class Link:
    def __init__(self, path: Path, timeout: float = PROMPTLY) -> None:
        """Connect; no reply takes longer than `timeout` seconds."""
        self.timeout = patience(timeout)
        self._sock = socket.socket(socket.AF_UNIX)
        self._path = str(path)
        self._connect(self._path)
        self._in = bytearray()
        self._tag = 0
        self._other: dict[int, Frame] = {}  # that came while another was waited for

    def _connect(self, path: str) -> None:
        end = time.monotonic() + self.timeout
        self._sock.settimeout(self.timeout)
        while True:
            try:
                return self._sock.connect(path)
            except BlockingIOError:  # QEMU's queue of one is full
                if time.monotonic() > end:
                    raise
                time.sleep(0.001)

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Bytes.

    def raw(self, data: bytes) -> None:
        self._sock.settimeout(self.timeout)
        self._sock.sendall(data)

    def _more(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no reply within {self.timeout} s; received {bytes(self._in[:64])!r}")
        self._sock.settimeout(left)
        data = self._sock.recv(1 << 20)
        if not data:
            raise ConnectionResetError("QEMU has closed the port")
        self._in += data

    # Frames.

    def hello(self, flags: int = 0, version: int = VERSION, max_data: int = 1 << 16) -> Hello:
        """Begin a session: say HELLO, again at each RESET, and drop what is not the reply."""
        try:
            return self._hello(flags, version, max_data, time.monotonic() + patience(1))
        except TimeoutError:
            # QEMU's port may be stuck if the host before left while it was being written to.
            self._sock.close()
            self._in.clear()
            self._sock = socket.socket(socket.AF_UNIX)
            self._connect(self._path)
        return self._hello(flags, version, max_data, time.monotonic() + self.timeout)

    def _hello(self, flags: int, version: int, max_data: int, end: float) -> Hello:
        reset = header(RESET)
        answer = self._say_hello(flags, version, max_data)
        while (at := self._in.find(answer)) < 0:
            if (found := self._in.find(reset)) >= 0:
                del self._in[:found + len(reset)]
                answer = self._say_hello(flags, version, max_data)
            else:
                del self._in[:max(0, len(self._in) - len(reset))]
                self._more(end)
        del self._in[:at]
        self._other.clear()
        return Hello(*HELLO_REPLY.unpack_from(self.receive().data))

    def _say_hello(self, *args: int) -> bytes:
        """How the reply will begin."""
        nonce = secrets.randbits(64)
        self.raw(hello_frame(nonce, *args))
        return struct.pack("<IIQ", READ_OK, 0, nonce)

    def receive(self, timeout: float | None = None) -> Frame:
        """The next frame, RESET included."""
        end = time.monotonic() + (self.timeout if timeout is None else patience(timeout))
        while len(self._in) < HEADER.size:
            self._more(end)
        op, pid, addr, size, tag, stamp = HEADER.unpack_from(self._in)
        assert READ_OK - DATA <= op & ~DATA <= RESET, f"not a reply: {bytes(self._in[:64])!r}"
        whole = HEADER.size + (size if op & DATA else 0)
        while len(self._in) < whole:
            self._more(end)
        data = bytes(self._in[HEADER.size:whole])
        del self._in[:whole]
        return Frame(op, pid, addr, size, tag, stamp, data)

    def silent(self, seconds: float) -> bool:
        """Nothing comes for so long."""
        try:
            self.receive(seconds)
        except TimeoutError:
            return not self._in
        return False

    def nothing_else(self) -> bool:
        """No reply has come that was not waited for."""
        return not self._other and not self._in

    def drain(self) -> None:
        """Throw away what has come."""
        self._sock.setblocking(False)
        try:
            while self._sock.recv(1 << 20):
                pass
        except BlockingIOError:
            pass
        self._in.clear()

    def send(self, op: int, pid: int = 0, addr: int = 0, size: int = 0, data: bytes = b"",
             stamp: int = 0) -> int:
        """Send a request; its tag."""
        tag, frame = self.frame(op, pid, addr, size, data, stamp)
        self.raw(frame)
        return tag

    def frame(self, op: int, pid: int = 0, addr: int = 0, size: int = 0, data: bytes = b"",
              stamp: int = 0) -> tuple[int, bytes]:
        """A request that is not sent yet, behind its tag."""
        self._tag = self._tag % 0xffff + 1
        size, data = (len(data), data) if op & DATA else (size, b"")
        return self._tag, header(op, pid, addr, size, self._tag, stamp) + data

    def wait(self, tag: int) -> Frame:
        """The reply to the request with this tag."""
        while tag not in self._other:
            frame = self.receive()
            if frame.op == RESET:
                raise Reset
            self._other[frame.tag] = frame
        return self._other.pop(tag)

    def call(self, op: int, pid: int = 0, addr: int = 0, size: int = 0, data: bytes = b"",
             stamp: int = 0) -> Frame:
        """A request and its reply."""
        reply = self.wait(self.send(op, pid, addr, size, data, stamp))
        assert (reply.pid, reply.stamp) == (pid, stamp), reply
        return reply

    # Operations.

    def get(self, op: int, pid: int = 0, addr: int = 0, size: int = CHUNK, data: bytes = b"",
            stamp: int = 0) -> bytes:
        """The data of a reply, also if it is partial; OSError if there is none."""
        reply = self.call(op, pid, addr, size, data, stamp)
        if reply.op in (READ_FAIL, WRITE_FAIL):
            raise OSError(reply.addr, os.strerror(reply.addr))
        return reply.data

    def write(self, pid: int, addr: int, data: bytes) -> int:
        """The count written; OSError if that is none."""
        reply = self.call(WRITE, pid, addr, data=data)
        if reply.op == WRITE_FAIL:
            raise OSError(reply.addr, os.strerror(reply.addr))
        assert reply.op in (WRITE_OK, WRITE_PARTIAL), reply
        return reply.size

    def proc(self, pid: int) -> Proc:
        return proc(self.get(READ_PROC, pid))

    def procs(self) -> Iterator[Proc]:
        cursor = 0
        while True:
            reply = self.call(LIST_PROCS, addr=cursor, size=1 << 16)
            assert reply.op == READ_OK, reply
            for at in range(0, reply.size, PROC.size):
                yield proc(reply.data[at:at + PROC.size])
            if not (cursor := reply.addr):
                return


FLAG, ESCAPE, XOR = 0x7e, 0x7d, 0x20


def stuffed(frame: bytes) -> bytes:
    """A frame as it goes over a serial line."""
    out = bytearray([FLAG])
    for byte in frame + struct.pack("<I", zlib.crc32(frame)):
        special = 0 < byte < 0x20 or 0x7d <= byte <= 0x7f
        out += bytes([ESCAPE, byte ^ XOR]) if special else bytes([byte])
    return bytes(out) + bytes([FLAG])


def unstuffed(line: bytes) -> bytes | None:
    """The frame that stood between two flags; None: it is none."""
    out = bytearray()
    escaped = False
    for byte in line:
        if byte == ESCAPE:
            escaped = True
        else:
            out.append(byte ^ XOR if escaped else byte)
            escaped = False
    if len(out) < HEADER.size + 4 or zlib.crc32(out[:-4]) != struct.unpack("<I", out[-4:])[0]:
        return None
    return bytes(out[:-4])


class SerialLink(Link):
    """The same where the guest has a serial line.  raw() takes whole frames, line() any bytes."""

    def __init__(self, path: Path, timeout: float = PROMPTLY) -> None:
        super().__init__(path, timeout)
        self._line = bytearray()
        self.lost = 0

    def line(self, data: bytes) -> None:
        super().raw(data)

    def raw(self, data: bytes) -> None:
        while data:
            op, _, _, size, _, _ = HEADER.unpack_from(data)
            whole = HEADER.size + (size if op & DATA else 0)
            self.line(stuffed(data[:whole]))
            data = data[whole:]

    def _more(self, end: float) -> None:
        # What comes is put through _in, so that the frames are found in one place.
        had = bytes(self._in)
        self._in.clear()
        super()._more(end)
        self._line += self._in
        self._in[:] = had
        *lines, self._line = self._line.split(bytes([FLAG]))
        for line in lines:
            if frame := unstuffed(line):
                self._in += frame
            elif line:
                self.lost += 1


def errno_name(frame: Frame) -> str:
    """What a reply fails with; "OK" if it does not."""
    failed = frame.op in (READ_FAIL, WRITE_FAIL)
    return {errno.EOPNOTSUPP: "EOPNOTSUPP"}.get(frame.addr, errno.errorcode[frame.addr]) \
        if failed else "OK"
