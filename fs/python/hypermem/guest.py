# SPDX-License-Identifier: MIT
"""guest: a mount, and the processes in it."""
from __future__ import annotations

import os
from collections.abc import Iterator

from .files import read_file
from .process import Process


class Guest:
    """The guest that is mounted somewhere."""

    def __init__(self, mount: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(mount)
        if "hypermemfs" not in self.info:
            raise ValueError(f"{self.path} is no mount of hypermemfs")

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
