# SPDX-License-Identifier: MIT
"""The machines that the lab can boot: a table, and which row of it is in use.

A row says what QEMU is to be told, where the kernel comes from, and what tests must know of the
guest: its byte order, its word and page size, and how long they had better wait for it.  Where
kernels, compilers and modules come from is kit.py's business.
"""
from __future__ import annotations

import os
import platform
import struct
import sys
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Host:
    """The kernel of this Debian, as lib.sh finds it."""


@dataclass(frozen=True)
class Debian:
    """The kernel of linux-image-FLAVOUR in a suite of Debian's, with the headers of the same name."""
    suite: str
    flavour: str


@dataclass(frozen=True)
class Script:
    """What a program of this folder builds: PROGRAM DIRECTORY leaves vmlinux or vmlinuz,
    modules/, and perhaps busybox there, and headers, a link to where modules are built."""
    program: str


@dataclass(frozen=True)
class Machine:
    name: str
    arch: str  # as Debian calls it
    kernel: Host | Debian | Script
    qemu: str  # the program
    type: str  # of its machines
    options: tuple[str, ...] = ()
    console: str = "ttyS0"
    bus: str = "pci"  # what virtio devices sit on: pci, ccw or device (virtio-mmio)
    cross: str = ""  # what the names of the compilers begin with
    cflags: str = ""
    libc: str = ""  # the package with the compiler's libc
    packages: tuple[str, ...] = ()  # of Debian, with QEMU and the compiler
    byteorder: str = "little"
    word_bits: int = 64
    page: int = 4096
    cpus: int = 8  # at most
    mem: int = 1 << 20  # MiB, at most
    link: str = "virtio"  # or serial: what the mount tests go over
    serial: str = "ttyS1"  # a second serial line; empty: there is none
    slow: float = 1.0  # how much longer everything takes than with amd64
    features: frozenset[str] = frozenset()  # what not all machines have: marks of tests

    def virtio(self, device: str) -> str:
        """The name of a virtio device on this machine's bus: virtio-serial -> virtio-serial-pci."""
        return f"{device}-{self.bus}"

    @property
    def struct(self) -> str:
        """The byte order, as the module struct writes it."""
        return "<" if self.byteorder == "little" else ">"


def _amd64(kernel: Host | Debian, version: str, **more) -> Machine:
    return Machine(
        f"amd64-{version}", "amd64", kernel,
        "qemu-system-x86_64", "pc", ("-cpu", "max"),
        packages=("qemu-system-x86", "gcc", "libc6-dev"),
        features=frozenset({"reset", "hotplug", "numa", "pci-serial", "suspend", "m32", "pc",
                            *(["headers"] if kernel == Host() else [])}), **more)


TABLE = {machine.name: machine for machine in (
    _amd64(Host(), "6.1"),
    # No reset: the memory that the machine's loader unpacks the kernel with is full of what QEMU
    # has translated there before, and checks against at each store.  It takes many minutes.
    Machine("s390x-6.1", "s390x", Debian("bookworm", "s390x"),
            "qemu-system-s390x", "s390-ccw-virtio", ("-cpu", "max"),
            console="ttysclp0", bus="ccw", cross="s390x-linux-gnu-", byteorder="big",
            packages=("qemu-system-misc", "gcc-s390x-linux-gnu", "libc6-dev-s390x-cross"),
            serial="", slow=3.0),
    Machine("mipsel-6.1", "mipsel", Debian("bookworm", "4kc-malta"),
            "qemu-system-mipsel", "malta", ("-cpu", "24Kf"),
            cross="mipsel-linux-gnu-", word_bits=32, cpus=1, mem=2048,
            packages=("qemu-system-mips", "gcc-mipsel-linux-gnu", "libc6-dev-mipsel-cross"),
            slow=3.0, features=frozenset({"reset"})),
)}

DEFAULT = "amd64-6.1"
current = TABLE[DEFAULT]


def use(name: str) -> Machine:
    """Make it the machine that guests are, and that tests are about."""
    global current
    if name not in TABLE:
        raise SystemExit(f"no machine {name}; there are {', '.join(TABLE)}")
    current = TABLE[name]
    return current


def use_this_host() -> Machine:
    """The machine that tests are about is the one that they run on."""
    global current
    current = replace(TABLE[DEFAULT], name="this host", arch=platform.machine(),
                      byteorder=sys.byteorder, word_bits=8 * struct.calcsize("P"),
                      page=os.sysconf("SC_PAGESIZE"), slow=1.0)
    return current


def patience(seconds: float) -> float:
    """What takes amd64 so long at most, on this machine."""
    return seconds * current.slow
