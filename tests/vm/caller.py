# SPDX-License-Identifier: MIT
"""Processes whose calls are hooked: tests/vm/caller.c, and the filters that mean it alone."""
from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

from hook import AND, COMM, EQ, Str, Test, program
from lab import Guest
from machines import patience

FORKS = "fork,vfork,clone,clone3"

ME = Str(COMM, EQ, b"caller")
BOTH_HOLD = Test(AND)
MINE = program(ME)


def mine(*tests: Test | Str) -> dict:
    """Calls of tests/vm/caller.c for which all of the tests hold."""
    items: list[Test | Str] = [ME]
    for test in tests:
        items += [test, BOTH_HOLD]
    return program(*items)


class Caller:
    """A running tests/vm/caller.c."""

    def __init__(self, guest: Guest, *args: object, file: str = "/bin/caller") -> None:
        self.guest = guest
        self.pid = guest.spawn(["caller", *map(str, args)], file=file)

    def said(self, pattern: bytes, timeout: float = 20.0) -> re.Match[bytes]:
        return self.guest.wait_output(self.pid, pattern, timeout)

    def value(self, key: str, timeout: float = 20.0) -> int:
        return int(self.said(rb"\b%s=(-?\d+|0x[0-9a-f]+)\b" % key.encode(), timeout)[1], 0)

    def result(self, timeout: float = 20.0) -> int:
        return self.value("result", timeout)

    def text(self) -> bytes:
        return self.said(rb"text=\[(.*)\]")[1]

    def end(self, timeout: float = 20.0) -> bytes:
        """All that it has said, once it has come to its end."""
        self.said(rb"end=1\n", timeout)
        return self.guest.output(self.pid)

    def kill(self, sig: signal.Signals) -> None:
        """By its name: numbers are not the same everywhere."""
        self.guest.run(["kill", f"-{sig.name[3:]}", str(self.pid)], check=True)

    def gone(self, timeout: float = 20.0) -> bool:
        end = time.monotonic() + patience(timeout)
        while time.monotonic() < end:
            if self.guest.run(f"grep -qs '^State:.[^Z]' /proc/{self.pid}/status").rc:
                return True
            time.sleep(0.05)
        return False


Call = Callable[..., Caller]
