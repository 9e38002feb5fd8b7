# SPDX-License-Identifier: MIT
"""A hook as its files show it, for tests with and without a guest."""
from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from world import errno_of, host

made_up = pytest.mark.fake("a real guest makes no calls to order; see tests/vm/test_hook_files.py")


class Hook:
    """A hook's directory."""

    def __init__(self, mnt: Path, name: str = "x") -> None:
        self.dir = mnt / "hooks" / name
        self.dir.mkdir()

    def __truediv__(self, name: str) -> Path:
        return self.dir / name

    def write(self, name: str, text: str | bytes, flags: int = os.O_TRUNC) -> None:
        fd = os.open(self.dir / name, os.O_WRONLY | flags)
        try:
            data = text.encode() if isinstance(text, str) else text
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)

    def filter(self, text: str) -> None:
        self.write("filter", text + "\n")

    def read(self, name: str) -> str:
        return (self.dir / name).read_text()

    def stats(self) -> dict[str, int]:
        return {key: int(value) for key, value in
                (line.split(": ") for line in self.read("stats").splitlines())}

    def errno(self, name: str, text: str | bytes, flags: int = os.O_TRUNC) -> str:
        return errno_of(lambda: self.write(name, text, flags))

    @contextlib.contextmanager
    def events(self, flags: int = 0) -> Iterator[Events]:
        events = Events(os.open(self.dir / "events", os.O_RDONLY | flags))
        try:
            yield events
        finally:
            events.close()

    def remove(self) -> None:
        self.dir.rmdir()


@contextlib.contextmanager
def made(mnt: Path) -> Iterator[Hook]:
    """A hook that goes with the test, if the test has not removed it."""
    hook = Hook(mnt)
    yield hook
    if hook.dir.exists():
        hook.remove()


@contextlib.contextmanager
def coming_and_going(mnt: Path, words: str, then: str = "",
                     calls: int = 4) -> Iterator[list[BaseException]]:
    """Meanwhile hooks are made, handle so many calls, get another filter perhaps, and are removed.

    What goes wrong with them is in the list when it is over.
    """
    stop = threading.Event()
    failures: list[BaseException] = []

    def churn(name: str) -> None:
        try:
            while not stop.is_set():
                hook = Hook(mnt, name)
                with hook.events() as events:
                    hook.filter(words)
                    for _ in range(calls):
                        hook.write("reply", events.line().split()[0][3:] + b" continue\n")
                if then and name[-1] in "02":
                    hook.filter(then)
                hook.remove()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(f"churn{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


class Events:
    """`events`, open."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lines: list[bytes] = []

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def line(self) -> bytes:
        if not self._lines:
            assert self.ready(20), "no event comes"
            data = os.read(self.fd, 65536)
            assert data.endswith(b"\n"), data
            self._lines = data.splitlines(keepends=True)
        return self._lines.pop(0)

    def next(self) -> dict[str, str]:
        """The next event, as a shell understands it."""
        return shell_words(self.line())

    def ready(self, seconds: float = 0) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def shell_words(line: bytes) -> dict[str, str]:
    names = [word.split(b"=")[0].decode() for word in line.split(b" ") if b"=" in word]
    names = [name for name in names if name.isidentifier()]
    script = b"eval \"$1\"; for n in $2; do eval \"v=\\$$n\"; printf '%s=%s\\0' \"$n\" \"$v\"; done"
    done = host(["sh", "-c", script, "sh", line, " ".join(names)], env={"PATH": os.environ["PATH"]})
    assert done.rc == 0 and not done.err, done
    return dict(word.split("=", 1) for word in
                done.out.decode(errors="surrogateescape").split("\0") if word)
