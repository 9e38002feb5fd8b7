# SPDX-License-Identifier: MIT
"""Memory that somebody does not provide: tests/vm/slowfs.c, and a process that maps its file."""
from __future__ import annotations

import signal

from lab import Guest
from link import READ, Link
from world import wait_for


class Slow:
    """A process with memory that is on slowfs: who reads it sleeps until release()."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        guest.run("[ -e /dev/fuse ] || insmod /modules/fuse.ko; mkdir -p /tmp/slow", check=True)
        self.server = guest.spawn(["slowfs", "/tmp/slow"])
        guest.wait_output(self.server, rb"\n")
        self.pid, victim = guest.victim("mapped", "/tmp/slow/slow")
        self._next = 0
        self._shared, self._private = victim["region"], victim["private"]

    def page(self, private: bool = False) -> int:
        """The address of 8 pages that nobody has read."""
        self._next += 8 * 4096
        return (self._private if private else self._shared) + self._next - 8 * 4096

    def ask(self, link: Link, n: int = 20) -> None:
        """Requests that sleep; the link serves others all the same."""
        for _ in range(n):
            link.send(READ, self.pid, self.page(), 4096)
        assert link.proc(1).pid == 1

    def release(self) -> None:
        """The pages are there."""
        self._guest.kill(self.server, signal.SIGUSR1)

    def close(self) -> None:
        self._guest.run(f"kill -9 {self.server} {self.pid}; umount -l /tmp/slow")
        wait_for(lambda: b"+hypermem" not in self._guest.run("ps").out)
