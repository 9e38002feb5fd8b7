# SPDX-License-Identifier: MIT
"""Processes of a QEMU guest, by way of a mount of hypermemfs.

    guest = hypermem.Guest("/mnt/guest")
    for process in guest.processes():
        print(process.pid, process.comm, process.args)
    process = guest.process(42)
    process.write_int(0x404040, process.read_int(0x404040) + 1)

It uses the files of the mount and nothing else.  What goes wrong is an OSError with the errno
and the name of the file; a process that has gone is ProcessLookupError, also when another one
has its pid.  Text of the guest is str, decoded as UTF-8 with surrogateescape, so that
text.encode("utf-8", "surrogateescape") is always what the guest had.
"""
from .event import Event
from .filters import FilterError
from .guest import Guest
from .hooks import Events, Hook
from .memory import ShortRead, ShortWrite
from .process import Mapping, Process

__all__ = ["Event", "Events", "FilterError", "Guest", "Hook", "Mapping", "Process", "ShortRead",
           "ShortWrite"]
