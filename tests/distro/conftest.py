# SPDX-License-Identifier: MIT
"""Fixtures: machines that run Debian from a disk, with the module as docs/guests.md says."""
from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "vm"), str(HERE.parent / "mount")]
from lab import Guest  # noqa: E402
from world import Mount, built, watchdog  # noqa: E402

BOOT = 400.0  # seconds; it takes about 45 on an idle machine without KVM
LIMIT = 300.0  # seconds of a test without @pytest.mark.limit
QGA = "org.qemu.guest_agent.0"


class Image:
    """What image.sh has made."""

    def __init__(self, directory: Path) -> None:
        self.disk = directory / "disk.img"
        self.kernels = {path.parent.name: path.parent for path in directory.glob("*/initrd")}

    def release(self, flavour: str) -> str:
        """Of the kernel of that flavour, e.g. 6.1.0-50-cloud-amd64."""
        return next(name for name in self.kernels
                    if re.fullmatch(r"[0-9.]+-[0-9]+-" + flavour, name))


@pytest.fixture(scope="session")
def image() -> Image:
    made = subprocess.run(["sh", HERE / "image.sh"], stdout=subprocess.PIPE, text=True,
                          timeout=3000)
    if made.returncode:
        pytest.exit("there is no image to boot", 2)
    return Image(Path(made.stdout.strip()))


@pytest.fixture(scope="session")
def daemon(pytestconfig: pytest.Config) -> Path:
    return built(pytestconfig, "hypermemfs", "fs/hypermemfs")


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    limit = request.node.get_closest_marker("limit")
    with watchdog(limit.args[0] if limit else LIMIT):
        yield


@contextlib.contextmanager
def started(image: Image, directory: Path, flavour: str = "amd64", append: str = "",
            **options: Any) -> Iterator[Guest]:
    """A machine that must be well at the end.  What it writes to the disk ends with it."""
    kernel = image.kernels[image.release(flavour)]
    unpacked = kernel / "vmlinux"
    with Guest.boot(unpacked if unpacked.exists() else kernel / "vmlinuz", kernel / "initrd",
                    append=f"root=/dev/vda ro {append}", smp=2, mem="1G", directory=directory,
                    timeout=BOOT, **options, qemu_args=[
                        "-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on",
                        "-chardev", f"socket,id=qga,path={directory}/qga,server=on,wait=off",
                        "-device", "virtio-serial-pci,id=qgabus",
                        "-device", f"virtserialport,bus=qgabus.0,chardev=qga,name={QGA}"]) as guest:
        with guest.watched():
            yield guest


@pytest.fixture(scope="session")
def machine(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with started(image, tmp_path_factory.mktemp("debian")) as guest:
        wait_running(guest)
        yield guest


@pytest.fixture
def debian(machine: Guest) -> Iterator[Guest]:
    """The machine that the tests share: the module is loaded."""
    yield machine
    machine.check_console()


@pytest.fixture
def mount(debian: Guest, daemon: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    with Mount(daemon, debian.hm_socket) as mount:
        yield mount
        mount.check(talks=bool(request.node.get_closest_marker("daemon_talks")))


def wait_running(guest: Guest) -> None:
    """The boot is over and nothing has failed."""
    state = guest.run("systemctl is-system-running --wait", timeout=BOOT).out.decode().strip()
    assert state == "running", guest.run("systemctl --failed; systemctl list-jobs").out.decode()


def ping(guest: Guest) -> bool:
    """qemu-guest-agent answers, on a port of a controller of its own."""
    number = time.monotonic_ns() & 0x7fffffff
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("r") as lines:
        sock.settimeout(60)
        sock.connect(str(guest.dir / "qga"))
        for request in ({"execute": "guest-sync", "arguments": {"id": number}},
                        {"execute": "guest-ping"}):
            sock.sendall(json.dumps(request).encode() + b"\n")
        # There may be answers to those who were here before.
        while json.loads(lines.readline()) != {"return": number}:
            pass
        return json.loads(lines.readline()) == {"return": {}}
