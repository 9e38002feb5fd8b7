# SPDX-License-Identifier: MIT
"""The machine that is measured: one guest, and on the host what is mounted and run.

Both worlds run the same timing programs (pread, stopwatch, memcpy), which print `key=number`
words; here these become dictionaries.
"""
from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))
import lab  # noqa: E402
from lab import Guest, LabError  # noqa: E402

LIMIT = 300.0  # seconds of any one command
GUEST_PROGRAMS = "pread", "memcpy", "stopwatch", "crowd", "call"
QGA = Path("/usr/sbin/qemu-ga")
TOOLS = "cat", "grep", "ls"     # the host's, in /host of the guest: both worlds run the same

Words = Mapping[str, float]


class BenchError(Exception):
    """What could not be measured, and why."""


def words(text: bytes) -> Words:
    return {k: float(v) for k, v in re.findall(r"(\w+)=([0-9.]+)", text.decode())}


def host(argv: Sequence[str | Path], cwd: Path | None = None, timeout: float = LIMIT) -> bytes:
    """Run a command on the host; what it writes to stdout."""
    done = subprocess.run(["timeout", "-k", "5", str(timeout), *map(str, argv)], cwd=cwd,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"})
    if done.returncode == 124:
        raise BenchError(f"{argv} did not end within {timeout} s")
    if done.returncode:
        raise BenchError(f"{argv}: status {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout


def wait_for(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"{what}: not within {timeout} s")
        time.sleep(0.01)


@contextlib.contextmanager
def mounted(argv: Sequence[str | Path], mnt: Path) -> Iterator[int]:
    """A file system whose daemon stays in the foreground, while this lasts; the daemon's pid."""
    mnt.mkdir(exist_ok=True)
    with tempfile.TemporaryFile() as log:
        # It unmounts and ends by itself if this process is killed.
        daemon = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *map(str, argv)],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(lambda: os.path.ismount(mnt) or daemon.poll() is not None,
                     f"mounting {argv[0]}")
            if daemon.poll() is not None:
                raise BenchError(os.pread(log.fileno(), 4096, 0).decode().strip() or
                                 f"{argv[0]}: status {daemon.returncode}")
            yield daemon.pid
        finally:
            unmount(daemon, mnt)


def unmount(daemon: subprocess.Popen, mnt: Path) -> None:
    if daemon.poll() is None:
        for how in "-u", "-uz":
            done = subprocess.run(["timeout", "10", "fusermount3", how, mnt],
                                  stderr=subprocess.DEVNULL)
            if done.returncode == 0:
                break
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def with_libraries(program: str | Path, destination: str) -> dict[str | bytes | os.PathLike, str]:
    """Host files that it takes to run a program, and where they belong."""
    said = host(["ldd", program]).decode()
    libraries = re.findall(r"(/\S+) \(0x", said)
    return {str(program): destination, **{path: path for path in libraries}}


class Machine:
    """A guest and its host."""

    def __init__(self, build: Path, directory: Path, smp: int, ram: int, ports: int = 31) -> None:
        self.dir = directory
        self.programs = build / "bench"
        self.daemon = build / "fs/hypermemfs"
        self.mnt, self.floor_mnt = directory / "guest", directory / "floor"
        self.gdb_socket, self.qga_socket = directory / "gdb.sock", directory / "qga.sock"
        self.line = directory / "line.sock"
        self.guest = self._boot(build, smp, ram, ports)

    def _boot(self, build: Path, smp: int, ram: int, ports: int) -> Guest:
        files: dict[str | bytes | os.PathLike, str] = {
            build / "modules/guest/hypermem.ko": "/hypermem.ko",
            build / "modules/echo/hypermem_echo.ko": "/hypermem_echo.ko",
            build / "modules/count/hypermem_count.ko": "/hypermem_count.ko",
            **{self.programs / name: f"/bin/{name}" for name in GUEST_PROGRAMS},
            **with_libraries(QGA, str(QGA))}
        for tool in TOOLS:
            files |= with_libraries(f"/bin/{tool}", f"/host/{tool}")
        kernel = lab.kernel()
        image = lab.initramfs(self.dir / "initramfs", files, kernel)
        qemu_args = ["-gdb", f"unix:{self.gdb_socket},server=on,wait=off",
                     "-chardev", f"socket,id=qga,path={self.qga_socket},server=on,wait=off",
                     "-device", "virtio-serial-pci,id=qgabus,max_ports=2",
                     "-device", "virtserialport,bus=qgabus.0,chardev=qga,"
                                "name=org.qemu.guest_agent.0",
                     "-chardev", f"socket,id=line,path={self.line},server=on,wait=off",
                     "-serial", "chardev:line"]
        return Guest.boot(kernel, image, smp=smp, mem=f"{ram >> 20}M", qemu_args=qemu_args,
                          hm_bus=f"max_ports={ports}", directory=self.dir / "vm", timeout=180)

    def close(self) -> None:
        self.guest.shutdown()

    # The host's side.

    @contextlib.contextmanager
    def mount(self, *options: str, line: bool = False) -> Iterator[int]:
        """Over the virtio port, or over a UART."""
        argv: list[str | Path] = [self.daemon, "-f"]
        for option in options:
            argv += ["-o", option]
        chardev = f"serial:{self.line}" if line else self.guest.hm_socket
        with mounted([*argv, chardev, self.mnt], self.mnt) as pid:
            yield pid

    def mount_refusal(self, *options: str) -> str:
        """Why it cannot be mounted like this; empty if it can."""
        try:
            with self.mount(*options):
                return ""
        except BenchError as error:
            return str(error)

    def floor(self, entries: int = 0) -> contextlib.AbstractContextManager[int]:
        return mounted([self.programs / "fuse_floor", self.floor_mnt, str(entries)],
                       self.floor_mnt)

    def pread(self, *args: object) -> Words:
        return words(host([self.programs / "pread", *map(str, args)]))

    def memcpy(self) -> float:
        return words(host([self.programs / "memcpy"]))["mbs"]

    def stopwatch(self, command: str, cwd: Path) -> float:
        """Seconds that a shell command takes."""
        return words(host([self.programs / "stopwatch", "sh", "-c", command], cwd))["seconds"]

    def dd(self, path: Path, start: int, size: int) -> float:
        """MB/s of dd bs=1M."""
        done = subprocess.run(
            ["timeout", "-k", "5", str(LIMIT), "dd", f"if={path}", "of=/dev/null", "bs=1M",
             "iflag=skip_bytes,count_bytes,fullblock", f"skip={start}", f"count={size}"],
            stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"})
        found = re.search(rb"(\d+) bytes.* copied, ([0-9.e-]+) s", done.stderr)
        if done.returncode or not found or int(found[1]) != size:
            raise BenchError(f"dd of {path}: {done.stderr.decode().strip()}")
        return size / float(found[2]) / 1e6

    def link_client(self) -> Words:
        return words(host([self.programs / "link_client", self.guest.hm_socket]))

    # The guest's side.

    def in_guest(self, *argv: object) -> Words:
        """Run one of the timing programs there."""
        return words(self.guest.run([str(a) for a in argv], timeout=LIMIT, check=True).out)

    def guest_stopwatch(self, command: str) -> float:
        return self.in_guest("stopwatch", "sh", "-c", f"PATH=/host:$PATH; {command}")["seconds"]

    @contextlib.contextmanager
    def _with(self, load: str, unload: str) -> Iterator[None]:
        self.guest.run(load, check=True)
        try:
            yield
        finally:
            self.guest.run(unload, check=True)

    def echo(self) -> contextlib.AbstractContextManager[None]:
        """hypermem_echo.ko in place of hypermem.ko."""
        return self._with("rmmod hypermem && insmod /hypermem_echo.ko",
                          "rmmod hypermem_echo; insmod /hypermem.ko")

    def serial(self) -> contextlib.AbstractContextManager[None]:
        """hypermem.ko on the UART, too."""
        return self._with("rmmod hypermem && insmod /hypermem.ko tty=ttyS1",
                          "rmmod hypermem && insmod /hypermem.ko")

    def counted(self) -> contextlib.AbstractContextManager[None]:
        """hypermem_count.ko beside hypermem.ko."""
        return self._with("insmod /hypermem_count.ko", "rmmod hypermem_count")

    @contextlib.contextmanager
    def hook(self, text: str, *options: str) -> Iterator[Words]:
        """A hook with this filter, and hook_client for it, whose words are there afterwards."""
        directory = self.mnt / "hooks/bench"
        directory.mkdir()
        said: Words = {}
        client = subprocess.Popen([self.programs / "hook_client", *options, directory, text],
                                  stdout=subprocess.PIPE)
        try:
            assert client.stdout
            if client.stdout.readline() != b"ready\n":
                raise BenchError(f"hook_client: status {client.wait(LIMIT)}")
            yield said
            client.terminate()
            said |= words(client.communicate(timeout=LIMIT)[0])
        finally:
            client.kill()
            client.wait()
            directory.rmdir()

    def crowd(self, kind: str, n: int, env: Mapping[str, str] = {}) -> dict[str, int]:
        """Spawn crowd.c; what it says when it is ready."""
        pid = self.guest.spawn(["crowd", kind, str(n)], env=dict(env))
        return lab.parse_victim(self.guest.wait_output(pid, rb"^[^\n]*\n", LIMIT)[0])
