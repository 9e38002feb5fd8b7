# SPDX-License-Identifier: MIT
"""files: reading what has no size, with errors that name the file."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

PART = 64 << 10


@contextlib.contextmanager
def named(path: str, addr: int | None = None) -> Iterator[None]:
    """A call on an open file does not know its name; whoever sees its error wants to.  So with an
    address in it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
            if addr is not None:
                error.strerror = reason(error.errno or 0, addr)
        raise


def reason(number: int, addr: int) -> str:
    return f"{os.strerror(number)} at {addr:#x}"


@contextlib.contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def read_file(path: str) -> bytes:
    parts: list[bytes] = []
    with named(path), opened(path, os.O_RDONLY) as fd:
        while part := os.read(fd, PART):
            parts.append(part)
    return b"".join(parts)


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def encode(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
