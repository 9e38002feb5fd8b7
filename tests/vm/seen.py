# SPDX-License-Identifier: MIT
"""A process of the guest as a mount shows it, and as the guest's own /proc does."""
from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
from pathlib import Path

from lab import Guest
from world import Mount, errno_of, opened

TEXTS = "cmdline", "comm", "environ", "limits", "maps", "stat", "status"
LINKS = "cwd", "exe", "root"
NOTHING = b"(there is none)"

# The guest's own view: what cannot be read or has no target is left out.
ORACLE = f"""
dir=$(mktemp -d) && cd $dir && mkdir fd || exit 1
for name in {' '.join(TEXTS)}; do cat /proc/$1/$name >$name 2>/dev/null || rm $name; done
# Since Linux 6.16 what belongs to memory cannot be opened if there is none.
[ -e environ ] || grep -q ^VmSize: status || : >environ
for name in {' '.join(LINKS)} $(cd /proc/$1 && ls -d fd/*); do
    readlink /proc/$1/$name >$name || rm $name
done
tar c * && rm -r $dir
"""


def path(mount: Mount, pid: int, name: str = "") -> Path:
    return mount.mnt / "pid" / str(pid) / name


def _settled(name: str, text: bytes) -> bytes:
    """Without what changes while nothing happens: times, faults, context switches."""
    if name == "status":
        return re.sub(rb"(?m)^(non)?voluntary_ctxt_switches:.*\n", b"", text)
    if name == "stat":
        return b" ".join(text.rpartition(b")")[2].split()[:7])
    return text


def oracle(guest: Guest, pid: int | str) -> dict[str, bytes]:
    """All that the guest's /proc says of a process, by name; of what it refuses, NOTHING."""
    tar = guest.run(["sh", "-c", ORACLE, "oracle", str(pid)], check=True).out
    said = dict.fromkeys((*TEXTS, *LINKS), NOTHING)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if member.isfile():
                data = archive.extractfile(member).read()  # type: ignore[union-attr]
                is_link = member.name not in TEXTS
                said[member.name] = data.removesuffix(b"\n") if is_link else \
                    _settled(member.name, data)
    return said


def shown(mount: Mount, pid: int) -> dict[str, bytes]:
    """The same of the mount."""
    said = dict.fromkeys((*TEXTS, *LINKS), NOTHING)
    for name in TEXTS:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            said[name] = _settled(name, path(mount, pid, name).read_bytes())
    for name in (*LINKS, *(f"fd/{fd}" for fd in os.listdir(path(mount, pid, "fd")))):
        with contextlib.suppress(FileNotFoundError):
            said[name] = os.readlink(os.fsencode(path(mount, pid, name)))
    return said


def mem(mount: Mount, pid: int, addr: int, size: int) -> bytes:
    with opened(path(mount, pid, "mem")) as fd:
        return os.pread(fd, size, addr)


def mem_errno(mount: Mount, pid: int, addr: int, size: int) -> str:
    """What a read of memory fails with; "OK" if it does not."""
    return errno_of(lambda: mem(mount, pid, addr, size))


def guest_mem(guest: Guest, pid: int, addr: int, size: int) -> bytes:
    """The guest's own /proc/PID/mem, as far as it can be read."""
    return guest.run(f"dd if=/proc/{pid}/mem bs=4096 iflag=skip_bytes,count_bytes,fullblock "
                     f"skip={addr} count={size} 2>/dev/null").out
