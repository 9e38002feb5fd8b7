# SPDX-License-Identifier: MIT
"""hooks: system calls of the guest that a handler sees, and may change; the files hooks/NAME.

    @guest.hook("ioctl return", arg1=0x89f1, comm="mtk7530_switch")
    def on_ioctl(event):
        event.process.write_int(event.process.read_ptr(event.args[2] + 16) + 4, 2)
        event.retval = 0

    guest.run()

or, one hook in a loop:

    with guest.events("openat", uid=1000) as events:
        for event in events:
            print(event.comm, event.process.read_str(event.args[1]))

Everything is done by one thread, in the order in which it comes.  Hooks are directories of the
mount, and go with the program: at its end, by an exception, by SIGTERM and SIGHUP, too, unless it
has a handler of its own for those.  If it is killed they stay, and stop nobody: a call waits only
while somebody has `events` open.
"""
from __future__ import annotations

import atexit
import collections
import contextlib
import errno
import functools
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from .event import Event, parse
from .files import encode, named, opened, read_file
from .filters import FilterError, Test, compose

if TYPE_CHECKING:
    from types import TracebackType

    from .guest import Guest
    from .process import Process

PART = 64 << 10
NAME_MAX = 63  # bytes of a hook's name
PROCESSES_KEPT = 64
POLL_MAX_SECONDS = 3600.0
# What a reply meets if the call, or the guest, has not waited for it.
GONE = (errno.ESRCH, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT)

Handler = Callable[[Event], Any]

log = logging.getLogger("hypermem")
_live: set[Hook] = set()  # to be removed at the end


def _remove_all() -> None:
    for hook in list(_live):
        with contextlib.suppress(OSError):
            hook.close()


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


@functools.cache
def _remove_at_the_end() -> None:
    """Once, from the first hook on."""
    if threading.current_thread() is threading.main_thread():
        for number in signal.SIGTERM, signal.SIGHUP:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
    atexit.register(_remove_all)


def _write(path: str, data: bytes) -> None:
    with named(path), opened(path, os.O_WRONLY) as fd:
        os.write(fd, data)


def _from_handler(error: Exception) -> tuple[type[Exception], Exception, TracebackType | None]:
    """The traceback begins where it is no more the affair of this package."""
    at = error.__traceback__
    while at and at.tb_frame.f_globals.get("__package__") == __package__:
        at = at.tb_next
    return type(error), error, at or error.__traceback__


class Hook:
    """A directory hooks/NAME, and who takes its events.  Calling it calls its handler."""

    def __init__(self, guest: Guest, filter: bytes, handler: Handler | None = None,
                 name: str | None = None, timeout: float | None = None) -> None:
        self.guest = guest
        self.handler = handler
        self._owner = os.getpid()
        self._rest = b""
        self._events = self._reply = -1
        self._processes: collections.OrderedDict[tuple[int, int, bool], Process] = \
            collections.OrderedDict()
        _remove_at_the_end()
        self.name = self._make(name)
        self.path = self._path(self.name)
        _live.add(self)
        try:
            if timeout is not None:
                self.timeout = timeout
            # The events first: a call that comes before somebody takes them is not held up.
            self._events = os.open(f"{self.path}/events",
                                   os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._reply = os.open(f"{self.path}/reply", os.O_WRONLY | os.O_CLOEXEC)
            self.set_filter(filter)
        except BaseException:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def _path(self, name: str) -> str:
        return f"{self.guest.path}/hooks/{name}"

    def _make(self, name: str | None) -> str:
        if name is not None:
            os.mkdir(self._path(name))
            return name
        label = encode(getattr(self.handler, "__name__", "events").replace("/", "_"))
        tail, n = f".{self._owner}", 1
        while True:
            free = label[:NAME_MAX - len(tail)].decode("utf-8", "ignore") + tail
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._path(free))
                return free
            n += 1
            tail = f".{self._owner}.{n}"

    def __repr__(self) -> str:
        return f"<Hook {self.path}>"

    def __call__(self, event: Event) -> Any:
        if self.handler is None:
            raise TypeError(f"{self!r} has no handler")
        return self.handler(event)

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it: its calls go on as if there were none.  A fork's child leaves it alone."""
        if self not in _live:
            return
        for fd in self._events, self._reply:
            if fd >= 0:
                os.close(fd)
        self._events = self._reply = -1
        self._processes.clear()
        if os.getpid() == self._owner:
            with contextlib.suppress(FileNotFoundError):  # somebody else has
                os.rmdir(self.path)
        _live.discard(self)  # the last: what a signal interrupts is done again

    # Its files.

    @property
    def closed(self) -> bool:
        return self._events < 0

    @property
    def filter(self) -> str:
        return read_file(f"{self.path}/filter").decode("utf-8", "surrogateescape").rstrip("\n")

    def set_filter(self, filter: str | bytes, **tests: Test) -> None:
        """Another one, in force when this returns.  FilterError: it is none."""
        data = compose(filter, tests) if isinstance(filter, str) else filter
        try:
            _write(f"{self.path}/filter", data or b"\n")  # no bytes at all would be no write
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise FilterError(self.filter) from None

    @property
    def enabled(self) -> bool:
        return read_file(f"{self.path}/enabled") == b"1\n"

    @enabled.setter
    def enabled(self, value: bool) -> None:
        _write(f"{self.path}/enabled", b"1" if value else b"0")

    @property
    def timeout(self) -> float:
        """How many seconds a call waits for its handler."""
        return float(read_file(f"{self.path}/timeout"))

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        _write(f"{self.path}/timeout", f"{seconds:.3f}".encode())

    @property
    def stats(self) -> dict[str, int]:
        """How many calls it has matched, and what has become of them."""
        lines = read_file(f"{self.path}/stats").decode().splitlines()
        return {key: int(value) for key, _, value in (line.partition(": ") for line in lines)}

    # Its events.

    def fileno(self) -> int:
        """To be polled: there are events to take()."""
        return self._events

    def take(self) -> list[Event]:
        """The events that are there; none, if there are none yet.  EOFError: it was removed."""
        with named(f"{self.path}/events"):
            try:
                data = os.read(self._events, PART)
            except BlockingIOError:
                return []
        if not data:
            raise EOFError(f"{self.path} has been removed")
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [Event(self, parse(line)) for line in lines]

    def reply(self, id: int, verdict: str) -> bool:
        """False: the call does not wait any more."""
        if self._reply < 0:
            return False
        try:
            with named(f"{self.path}/reply"):
                os.write(self._reply, f"{id} {verdict}\n".encode())
        except OSError as error:
            if error.errno not in GONE:
                raise
            log.info("%s: call %d has not waited for its reply: %s", self.name, id, error.strerror)
            return False
        return True

    def process_of(self, event: Event) -> Process:
        """Who makes the call.  The processes that came last are kept, with what they have open."""
        # Where calls of 32 bits begin there has been an exec: how wide a pointer is is asked anew.
        key = event.pid, event.stamp, event.compat
        process = self._processes.pop(key, None) or self.guest.process(event.pid)
        if not event.id and process.start > event.time:
            raise ProcessLookupError(errno.ESRCH, f"process {event.pid} is another one by now")
        self._processes[key] = process
        if len(self._processes) > PROCESSES_KEPT:
            self._processes.popitem(last=False)
        return process

    def handle(self, event: Event) -> None:
        """What it raises is logged, and the call goes on as if there were no hook."""
        try:
            self(event)
            event.reply()
        except Exception as error:
            log.error("%s: %r", self.name, event, exc_info=_from_handler(error))
        finally:
            event.abandon()


class Events:
    """A hook as an iterator.  A call waits until the next one is asked for."""

    def __init__(self, guest: Guest, filter: bytes, name: str | None = None,
                 timeout: float | None = None) -> None:
        self.hook = Hook(guest, filter, None, name, timeout)
        self._taken: collections.deque[Event] = collections.deque()
        self._last: Event | None = None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        self._reply_last()
        while not self._taken:
            if self.hook.closed:
                raise StopIteration
            select_one(self.hook)
            try:
                self._taken.extend(self.hook.take())
            except EOFError:
                self.close()
        self._last = self._taken.popleft()
        return self._last

    def __enter__(self) -> Events:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                self._reply_last()
        finally:
            self.close()

    def _reply_last(self) -> None:
        """What cannot be done to the call is raised, and the call goes on as if there were no hook."""
        last, self._last = self._last, None
        if last:
            try:
                last.reply()
            finally:
                last.abandon()

    def __del__(self) -> None:
        if hasattr(self, "hook"):
            self.close()

    def close(self) -> None:
        """Remove the hook.  Calls that wait go on as if there were none."""
        self._last = None
        self._taken.clear()
        self.hook.close()


def select_one(hook: Hook) -> None:
    poll = select.poll()
    poll.register(hook, select.POLLIN)
    poll.poll()


class Hooks:
    """The hooks of a guest that have handlers, and the loop that calls them."""

    def __init__(self) -> None:
        self._hooks: list[Hook] = []
        self._stopped = False

    def __iter__(self) -> Iterator[Hook]:
        return iter([hook for hook in self._hooks if not hook.closed])

    def add(self, hook: Hook) -> None:
        self._hooks = [*self, hook]

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        for hook in self:
            hook.close()

    def run(self, seconds: float | None = None) -> None:
        end = time.monotonic() + seconds if seconds is not None else None
        self._stopped = False
        while not self._stopped and (hooks := list(self)):
            left = max(0.0, end - time.monotonic()) if end is not None else None
            for hook in _ready(hooks, left):
                self._serve(hook)
            if left == 0.0:
                break

    def _serve(self, hook: Hook) -> None:
        try:
            events = hook.take()
        except EOFError:
            hook.close()
            return
        for event in events:
            if not hook.closed:  # by a handler
                hook.handle(event)


def _ready(hooks: list[Hook], seconds: float | None) -> list[Hook]:
    poll = select.poll()
    for hook in hooks:
        poll.register(hook, select.POLLIN)
    # Whoever waits for longer than poll can comes back.
    ms = None if seconds is None else min(seconds, POLL_MAX_SECONDS) * 1000
    fds = {fd for fd, _ in poll.poll(ms)}
    return [hook for hook in hooks if hook.fileno() in fds]
