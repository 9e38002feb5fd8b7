# SPDX-License-Identifier: MIT
"""The controller that is ours, as the guest's kernel sees it."""
from __future__ import annotations

import re

from lab import Guest


def device(guest: Guest) -> str:
    """Its virtioN."""
    return guest.run("cd /sys/bus/virtio/drivers/hypermem && echo virtio*").out.decode().strip()


def interrupts(guest: Guest) -> str:
    """Its lines of /proc/interrupts."""
    lines = guest.read_file("/proc/interrupts").decode().splitlines()
    return "\n".join(line for line in lines if re.search(rf"\b{device(guest)}\b", line))


def count_interrupts(guest: Guest) -> int:
    """That it has made, on all processors."""
    lines = [line.split(":", 1)[1] for line in interrupts(guest).splitlines()]
    return sum(int(word) for line in lines
               for word in re.match(r"(\s+\d+)+(?=\s)", line)[0].split())
