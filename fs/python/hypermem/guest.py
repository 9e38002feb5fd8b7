# SPDX-License-Identifier: MIT
"""guest: a mount, the processes in it, and hooks of what they do."""
from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable, Iterator

from .files import read_file
from .filters import Test, compose
from .hooks import Events, Handler, Hook, Hooks
from .process import Process

_NO_MOUNT = {
    errno.ENOENT: "no guest is mounted there; mount one with hypermemfs",
    errno.ENOTDIR: "no guest is mounted there; mount one with hypermemfs",
    errno.ENOTCONN: "hypermemfs has ended; unmount with fusermount3 -u, and mount again",
}


class Guest:
    """The guest that is mounted somewhere."""

    def __init__(self, mount: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(mount)
        self._hooks = Hooks()
        try:
            info = self.info
        except OSError as error:
            if error.errno not in _NO_MOUNT:
                raise
            raise type(error)(error.errno, _NO_MOUNT[error.errno], self.path) from None
        if "hypermemfs" not in info:
            raise ValueError(f"{self.path} is no mount of hypermemfs; mount a guest with it")

    def __repr__(self) -> str:
        return f"Guest({self.path!r})"

    @property
    def info(self) -> dict[str, str]:
        """What the file `info` says now: the guest's kernel, the link to it."""
        lines = read_file(f"{self.path}/info").decode().splitlines()
        return {key: value for key, _, value in (line.partition(": ") for line in lines)}

    def processes(self) -> Iterator[Process]:
        """The processes that there are now, by pid.  Those that end meanwhile are left out."""
        for pid in sorted(map(int, os.listdir(f"{self.path}/pid"))):
            try:
                yield Process(self, pid)
            except ProcessLookupError:
                pass

    def process(self, pid: int) -> Process:
        """The process that has this pid now.  ProcessLookupError: there is none."""
        return Process(self, pid)

    # Hooks of system calls: see hooks.py.

    def hook(self, filter: str, *, name: str | None = None, timeout: float | None = None,
             regs: bool = False, trace: bool = False,
             **tests: Test) -> Callable[[Handler], Hook]:
        """A decorator: run() has the function called with each event of the filter.

        The tests are more that must hold: comm="sh", arg1=0x89f1, arg0="/etc/passwd" (what it
        points to), uid=range(1000, 2000), retval=(-2, -13).  FilterError: the filter is none.
        trace: nobody waits.  regs: events have the user's registers.  name: of the hook's
        directory, which must not be there.  timeout: seconds that a call waits for its handler.
        """
        data = compose(filter, tests, _flags(regs, trace))

        def make(handler: Handler) -> Hook:
            if inspect.isgeneratorfunction(handler) or inspect.iscoroutinefunction(handler):
                raise TypeError(f"{handler.__qualname__} must be a plain function: nobody would "
                                "run what calling it gives")
            hook = Hook(self, data, handler, name, timeout)
            self._hooks.add(hook)
            return hook

        return make

    def events(self, filter: str, *, name: str | None = None, timeout: float | None = None,
               regs: bool = False, trace: bool = False, **tests: Test) -> Events:
        """An iterator over the events of a hook of its own, which goes with it."""
        return Events(self, compose(filter, tests, _flags(regs, trace)), name, timeout)

    @property
    def hooks(self) -> list[Hook]:
        """Those that have handlers."""
        return list(self._hooks)

    def run(self, seconds: float | None = None) -> None:
        """Call the handlers, until there is no hook any more, or one calls stop(), or the time is
        up.  The hooks stay."""
        self._hooks.run(seconds)

    def stop(self) -> None:
        """run() returns when the events that it has taken are handled."""
        self._hooks.stop()

    def close(self) -> None:
        """Remove the hooks that have handlers."""
        self._hooks.close()


def _flags(regs: bool, trace: bool) -> str:
    return " ".join(["regs"] * regs + ["trace"] * trace)
