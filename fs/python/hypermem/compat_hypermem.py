# SPDX-License-Identifier: MIT
"""compat_hypermem: the memory of the process whose call a plugin's handler is about, and what
else there is of it, for `yield from`: Penguin's plugins.hypermem.

Each is done at once.  What fails is an OSError where it stands, which the handler may catch; it is
never zeros.  Numbers have no sign when they are read, and may have one when they are written.
"""
from __future__ import annotations

import contextlib
import errno
import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .event import Event
    from .process import Process

T = TypeVar("T")
Operation = Generator[None, None, T]


def finish(started: Any) -> Any:
    """What a handler returns, which is to be run first if it is a generator."""
    if not inspect.isgenerator(started):
        return started
    try:
        wanted = next(started)
    except StopIteration as stop:
        return stop.value
    started.close()
    raise TypeError(f"a handler has yielded {wanted!r}: it is `yield from`, and operations only")


class Hypermem:
    def __init__(self) -> None:
        self._events: list[Event] = []

    @contextlib.contextmanager
    def during(self, event: Event) -> Iterator[None]:
        """Operations mean the process of this event."""
        self._events.append(event)
        try:
            yield
        finally:
            self._events.pop()

    def wrap(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler, a generator function, as a function."""
        @functools.wraps(handler)
        def run(*args: Any, **kwargs: Any) -> Any:
            return finish(handler(*args, **kwargs))
        return run

    @property
    def _process(self) -> Process:
        if not self._events:
            raise RuntimeError("no call is being handled: there is no process to ask")
        return self._events[-1].process

    # A generator that yields nothing: what is returned is what `yield from` gives.

    def read_bytes(self, addr: int, size: int) -> Operation[bytes]:
        yield from ()
        return self._process.read_bytes(addr, size)

    def read_str(self, addr: int) -> Operation[str]:
        yield from ()
        return self._process.read_str(addr)

    def read_int(self, addr: int) -> Operation[int]:
        """32 bits."""
        yield from ()
        return self._process.read_uint(addr)

    def read_long(self, addr: int) -> Operation[int]:
        """64 bits, always."""
        yield from ()
        return self._process.read_long(addr) & (1 << 64) - 1

    def read_ptr(self, addr: int) -> Operation[int]:
        """As wide as the process has it."""
        yield from ()
        return self._process.read_ptr(addr)

    def write_bytes(self, addr: int, data: bytes) -> Operation[int]:
        """How many bytes: all of them."""
        yield from ()
        self._process.write_bytes(addr, data)
        return len(data)

    def write_str(self, addr: int, string: str | bytes,
                  null_terminate: bool = True) -> Operation[int]:
        yield from ()
        data = string.encode("utf-8", "surrogateescape") if isinstance(string, str) else string
        data += b"\0" * null_terminate
        self._process.write_bytes(addr, data)
        return len(data)

    def write_int(self, addr: int, value: int) -> Operation[int]:
        yield from ()
        (self._process.write_int if value < 0 else self._process.write_uint)(addr, value)
        return 4

    def write_long(self, addr: int, value: int) -> Operation[int]:
        yield from ()
        self._process.write_long(addr, value - (1 << 64) if value >= 1 << 63 else value)
        return 8

    def write_ptr(self, addr: int, value: int) -> Operation[int]:
        yield from ()
        self._process.write_ptr(addr, value)
        return self._process.bits // 8

    def read_fd_name(self, fd: int) -> Operation[str | None]:
        """None: the process has no such descriptor."""
        yield from ()
        try:
            return self._process.fd(fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EBADF):
                return None
            raise

    def get_proc_args(self) -> Operation[list[str]]:
        yield from ()
        return self._process.args

    def get_proc_env(self) -> Operation[dict[str, str]]:
        yield from ()
        return self._process.env

    def get_proc_pid(self) -> Operation[int]:
        """Of the process, whatever thread it is."""
        yield from ()
        return self._process.pid
