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
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """The kernel of this Debian, as lib.sh finds it."""


@dataclass(frozen=True)
class Debian:
    """The newest kernel of this version and flavour in a suite of Debian's."""
    suite: str
    version: str
    flavour: str


@dataclass(frozen=True)
class Made:
    """A kernel that a program of this folder makes: told which, it prints the directory where it
    has put vmlinux, busybox, modules/ and build/, where modules for it are built.  Or guest/ is
    built into it, since it can load none, and there are neither."""
    program: str
    which: str  # modules or builtin


@dataclass(frozen=True)
class Machine:
    name: str
    arch: str  # as Debian calls it
    kernel: Host | Debian | Made
    qemu: str  # the program
    type: str  # of its machines
    options: tuple[str, ...] = ()
    console: str = "ttyS0"
    append: str = ""  # more of the kernel's command line
    types: bool = True  # one can type at its console
    lag: float = 0.0  # seconds until the console has what the kernel says
    bus: str = "pci"  # what virtio devices sit on: pci, ccw or device (virtio-mmio)
    cross: str = ""  # what the names of the compilers begin with
    cflags: str = ""
    packages: tuple[str, ...] = ()  # of Debian, with QEMU and the compiler
    byteorder: str = "little"
    word_bits: int = 64
    page: int = 4096
    cpus: int = 8  # at most
    mem: int = 1 << 20  # MiB, at most
    link: str = "virtio"  # or serial: what the mount tests go over
    serial: str = "ttyS1"  # a second serial line; empty: there is none
    serial_line: tuple[str, ...] = ("-serial", "chardev:line")  # and what makes it
    unavailable: str = ""  # why it cannot be had
    slow: float = 1.0  # how much longer everything takes than with amd64
    features: frozenset[str] = frozenset()  # what not all machines have: marks of tests

    def __post_init__(self) -> None:
        builtin = isinstance(self.kernel, Made) and self.kernel.which == "builtin"
        has = {"builtin"} if builtin else {"modules", "kprobes"}
        object.__setattr__(self, "features", self.features | has)

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
        features=frozenset({"reset", "hotplug", "numa", "pci-serial", "suspend", "m32", "pc", "big",
                            *(["headers"] if kernel == Host() else [])}), **more)


def _cross(target: str, arch: str) -> tuple[str, tuple[str, ...]]:
    """What its compiler's names begin with, and Debian's packages of it."""
    return f"{target}-", (f"gcc-{target.replace('_', '-')}", f"libc6-dev-{arch}-cross")


def _machine(name: str, arch: str, kernel: Debian | Made, qemu: str, type_: str, *options: str,
             target: str, packages: tuple[str, ...] = (), **more) -> Machine:
    cross, compiler = _cross(target, arch)
    return Machine(name, arch, kernel, qemu, type_, options, cross=cross,
                   packages=(*packages, *compiler), **more)


def _arm64(version: str, kernel: Debian, **more) -> Machine:
    return _machine(f"arm64-{version}", "arm64", kernel, "qemu-system-aarch64", "virt",
                    "-cpu", "cortex-a76", target="aarch64-linux-gnu", console="ttyAMA0",
                    packages=("qemu-system-arm",), serial="", slow=2.0,
                    features=frozenset({"reset"}), **more)


# QEMU may lose a timer's interrupt that is due while its processor sets the next one, and then none
# comes until the 32-bit counter has gone round: 27 s.  The tick is seldom due so soon, and init
# takes the board's timer in its place.
MIPS_TIMER = "highres=off nohz=off"


def _mips(which: str, suffix: str = "") -> Machine:
    return _machine(f"mips-6.1{suffix}", "mips", Made("mips.sh", which), "qemu-system-mips",
                    "malta", "-cpu", "24Kf", target="mips-linux-gnu",
                    packages=("qemu-system-mips",), append=MIPS_TIMER, byteorder="big",
                    word_bits=32, cpus=1, mem=2048, slow=3.0, features=frozenset({"reset"}))


TABLE = {machine.name: machine for machine in (
    _amd64(Host(), "6.1"),
    _amd64(Debian("bullseye", "5.10", "amd64"), "5.10"),
    _amd64(Debian("trixie", "6.12", "amd64"), "6.12"),
    _amd64(Debian("sid", "7.2", "amd64"), "7.2"),
    _machine("i386-6.1", "i386", Debian("bookworm", "6.1", "686-pae"), "qemu-system-i386", "pc",
             "-cpu", "coreduo", target="i686-linux-gnu", packages=("qemu-system-x86",), word_bits=32,
             features=frozenset({"reset", "hotplug", "pci-serial", "suspend"})),
    _arm64("6.1", Debian("bookworm", "6.1", "arm64")),
    _arm64("6.12", Debian("trixie", "6.12", "arm64")),
    _arm64("6.12-16k", Debian("trixie", "6.12", "arm64-16k"), page=16384),
    _machine("armhf-6.1", "armhf", Debian("bookworm", "6.1", "armmp-lpae"), "qemu-system-arm",
             "virt", "-cpu", "cortex-a15", target="arm-linux-gnueabihf", console="ttyAMA0",
             packages=("qemu-system-arm",), word_bits=32, serial="", slow=2.0,
             features=frozenset({"reset"})),
    _machine("mipsel-6.1", "mipsel", Debian("bookworm", "6.1", "4kc-malta"), "qemu-system-mipsel",
             "malta", "-cpu", "24Kf", target="mipsel-linux-gnu", packages=("qemu-system-mips",),
             append=MIPS_TIMER, word_bits=32, cpus=1, mem=2048, slow=3.0,
             features=frozenset({"reset"})),
    _machine("mips64el-6.1", "mips64el", Debian("bookworm", "6.1", "5kc-malta"),
             "qemu-system-mips64el", "malta", "-cpu", "5KEc", target="mips64el-linux-gnuabi64",
             packages=("qemu-system-mips",), append=MIPS_TIMER, cpus=1, mem=2048, slow=3.0,
             features=frozenset({"reset"})),
    _machine("ppc64el-6.12-64k", "ppc64el", Debian("trixie", "6.12", "powerpc64le-64k"),
             "qemu-system-ppc64", "pseries", "-cpu", "power9", target="powerpc64le-linux-gnu",
             console="hvc0", packages=("qemu-system-ppc",), page=65536, serial="", slow=4.0,
             features=frozenset({"reset"})),
    _mips("modules"),
    _mips("builtin", "-builtin"),
    # No reset: the memory that the machine's loader unpacks the kernel with is full of what QEMU
    # has translated there before, and checks against at each store.  It takes many minutes.
    # And its console says everything twice to a socket that nobody reads.
    _machine("s390x-6.1", "s390x", Debian("bookworm", "6.1", "s390x"), "qemu-system-s390x",
             "s390-ccw-virtio", "-cpu", "max", target="s390x-linux-gnu",
             console="ttysclp0", types=False, lag=0.1,
             packages=("qemu-system-misc",), bus="ccw", byteorder="big", serial="", slow=3.0,
             features=frozenset({"hotplug"})),
    _machine("riscv64-6.12", "riscv64", Debian("trixie", "6.12", "riscv64"), "qemu-system-riscv64",
             "virt", target="riscv64-linux-gnu", packages=("qemu-system-misc",), serial="",
             slow=3.0, features=frozenset({"reset"})),
    _machine("loong64-7.2", "loong64", Debian("sid", "7.2", "loong64"), "qemu-system-loongarch64",
             "virt", "-cpu", "la464", target="loongarch64-linux-gnu",
             packages=("qemu-system-misc",), page=16384, serial="", slow=4.0,
             unavailable="QEMU 7.2 starts no kernel of Debian's for it: it wants an ELF file, and "
                         "has no room for Debian's firmware",
             features=frozenset({"reset"})),
)}

DEFAULT = "amd64-6.1"
THIS_HOST = "this host"
current = TABLE[DEFAULT]
records: Path | None = None  # a directory for consoles and such, if they are to be kept


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
    current = replace(TABLE[DEFAULT], name=THIS_HOST, arch=platform.machine(),
                      byteorder=sys.byteorder, word_bits=8 * struct.calcsize("P"),
                      page=os.sysconf("SC_PAGESIZE"), slow=1.0)
    return current


def patience(seconds: float) -> float:
    """What takes amd64 so long at most, on this machine."""
    return seconds * current.slow
