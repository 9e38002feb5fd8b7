# SPDX-License-Identifier: MIT
"""A guest to look into, fake or real, and a mount of hypermemfs that shows it.

World is what tests see: a guest with an oracle (its own /proc) and a mount.  HostWorld plays
with the fake guest, so the guest is this host; VmWorld has a QEMU guest of tests/vm/lab.py.
"""
from __future__ import annotations

import abc
import contextlib
import errno
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "vm"))
import lab  # noqa: E402
import machines  # noqa: E402
from machines import patience  # noqa: E402

PROMPTLY = 20.0
Arg = str | bytes | os.PathLike

# A line of the daemon that is a bug wherever it appears.
ALARM = re.compile(rb"CRITICAL|\*\*|Sanitizer|runtime error:|[Aa]ssert|Segmentation|fatal")


class Result(NamedTuple):
    rc: int
    out: bytes
    err: bytes


class Victim(NamedTuple):
    """A process of tests/vm/victim.c, and what it says about itself."""
    pid: int
    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


def host(command: str | Sequence[Arg], stdin: bytes = b"", timeout: float = PROMPTLY,
         **kwargs: Any) -> Result:
    """Run a command on the host; it is killed when the time is up."""
    argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
    done = subprocess.run(["timeout", "-k", "1", str(patience(timeout)), *argv], input=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    return Result(done.returncode, done.stdout, done.stderr)


def wait_for(condition: Callable[[], Any], timeout: float = PROMPTLY, step: float = 0.02) -> Any:
    """What `condition` returns as soon as it is true."""
    end = time.monotonic() + patience(timeout)
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"still not true after {timeout} s: {condition}")
        time.sleep(step)
    return value


def errno_of(call: Callable[[], Any]) -> str:
    """The name of the errno that a call fails with; "OK" if it does not."""
    try:
        call()
    except OSError as error:
        return {errno.EOPNOTSUPP: "EOPNOTSUPP"}.get(error.errno, errno.errorcode[error.errno])
    return "OK"


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def pattern(addr: int, size: int) -> bytes:
    """What victim.c's fill() puts there: every 8 bytes hold their own address."""
    first = addr & ~7
    words = range(first, addr + size, 8)
    return struct.pack(f"{machines.current.struct}{len(words)}Q", *words)[addr - first:][:size]


def built(config: pytest.Config, option: str, path: str) -> Path:
    """What is to be tested: the option says where it is, or it is in the build directory."""
    file = config.getoption(option) or config.getoption("builddir") / path
    if not file.exists():
        pytest.exit(f"{file} does not exist: build it, or say where it is with --{option}", 2)
    return file.resolve()


class Mount:
    """A daemon in the foreground and what it has mounted.

    It waits for a guest for longer than it does by default: a busy host may keep a guest from
    running for a while.  What is about timeouts says `timeout=` itself.
    """

    live: set[Mount] = set()

    def __init__(self, daemon: Path, chardev: Arg, *options: Arg, mnt: Path | None = None) -> None:
        self.mnt = mnt or Path(tempfile.mkdtemp(prefix="hypermemfs-mnt."))
        self._own_mnt = mnt is None
        self._log = tempfile.TemporaryFile()
        self._checked = 0
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
        waits = [] if machines.current.name == machines.THIS_HOST else ["-o", f"timeout={patience(30):.0f}"]
        self.process = subprocess.Popen([daemon, "-f", *waits, *options, chardev, self.mnt],
                                        env=env, stdin=subprocess.DEVNULL, stdout=self._log,
                                        stderr=self._log)
        Mount.live.add(self)
        wait_for(lambda: self.process.poll() is not None or os.path.ismount(self.mnt))
        if self.process.poll() is not None:
            self.close()
            raise AssertionError(f"hypermemfs: {self.process.returncode}: {self.stderr()!r}")

    def stderr(self) -> bytes:
        return os.pread(self._log.fileno(), 1 << 24, 0)

    def check(self, talks: bool = False) -> None:
        """The daemon lives, and has said nothing (nothing bad, if it talks) since the last check."""
        new = self.stderr()[self._checked:]
        self._checked += len(new)
        assert self.process.poll() is None, f"the daemon has ended: {self.process.returncode}: {new!r}"
        assert not ALARM.search(new), new.decode(errors="replace")
        assert talks or not new, new.decode(errors="replace")

    def close(self) -> int:
        """Unmount; the daemon's exit status."""
        unmount(self.mnt)
        try:
            rc = self.process.wait(patience(PROMPTLY))
        except subprocess.TimeoutExpired:
            self.process.kill()
            rc = self.process.wait()
        Mount.live.discard(self)
        if self._own_mnt:
            with contextlib.suppress(OSError):
                self.mnt.rmdir()
        return rc

    def terminate(self) -> int:
        """As close(), but by a signal."""
        self.process.terminate()
        self.process.wait(patience(PROMPTLY))
        return self.close()

    def __enter__(self) -> Mount:
        return self

    def __exit__(self, *exc: object) -> None:
        rc = self.close()
        if exc[0] is None:
            assert not ALARM.search(self.stderr()), self.stderr().decode(errors="replace")
            assert rc == 0


def unmount(mnt: Path) -> None:
    """All that is mounted there, also if its daemon is dead."""
    for how in "-u", "-uz", "-uz":
        # Not by stat(): that may hang, or fail.
        if f" {mnt} fuse" not in Path("/proc/mounts").read_text():
            return
        subprocess.run(["timeout", "10", "fusermount3", how, mnt], stderr=subprocess.DEVNULL)


def say_threads(pid: int) -> None:
    """What they wait for in the kernel, if that may be known."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            print((task / "comm").read_text() + (task / "stack").read_text(), file=sys.stderr)


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """If it takes longer, kill the daemons: a process that waits for FUSE does not hear signals."""
    def bark() -> None:
        for mount in list(Mount.live):
            print(f"killing the daemon of {mount.mnt}: over {seconds} s", file=sys.stderr)
            say_threads(mount.process.pid)
            mount.process.kill()

    timer = threading.Timer(seconds, bark)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class FakeGuest:
    """tests/fake_guest.c as a process."""

    def __init__(self, program: Path, *options: str) -> None:
        self._program = program
        self._options = options
        self.dir = Path(tempfile.mkdtemp(prefix="hypermemfs-fake."))
        self.socket = self.dir / "sock"
        self._control = self.dir / "control"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "--control", self._control, *self._options, self.socket],
            stdout=subprocess.PIPE)
        assert self._process.stdout and self._process.stdout.readline()

    def misbehave(self, how: str = "") -> None:
        """NAME[=NUMBER] of the table in fake_guest_misbehave.c; by default behave well."""
        new = self.dir / "new"
        new.write_text(how)
        new.rename(self._control)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for path in self.socket, self._control, self.dir / "new":
            path.unlink(missing_ok=True)
        self.dir.rmdir()


class World(abc.ABC):
    """A guest and its mount."""

    name: str
    chardev: Path
    scratch: Path  # a directory of the guest for what tests leave behind
    is_x86 = True

    def __init__(self, daemon: Path) -> None:
        self.daemon = daemon
        self.mount_: Mount
        self._pids: list[int] = []

    @property
    def mnt(self) -> Path:
        return self.mount_.mnt

    def path(self, pid: int, name: str = "") -> Path:
        return self.mnt / "pid" / str(pid) / name

    # The guest.

    @abc.abstractmethod
    def run(self, command: str | Sequence[Arg], stdin: bytes = b"") -> Result: ...
    @abc.abstractmethod
    def _spawn(self, argv: Sequence[Arg], env: Mapping[Arg, Arg] | None, cwd: Arg,
               file: Arg | None) -> int: ...
    @abc.abstractmethod
    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Also waits for it to be gone, if the signal ends it."""
    @abc.abstractmethod
    def output(self, pid: int) -> bytes:
        """What a spawned process has written so far."""
    @abc.abstractmethod
    def proc(self, pid: int | str, name: str) -> bytes:
        """The guest's own /proc/PID/NAME."""
    @abc.abstractmethod
    def proc_link(self, pid: int | str, name: str) -> bytes: ...
    @abc.abstractmethod
    def mem(self, pid: int, addr: int, size: int) -> bytes:
        """The guest's own /proc/PID/mem."""
    @abc.abstractmethod
    def pids(self) -> list[int]: ...
    @abc.abstractmethod
    def tool(self, name: str) -> Path:
        """A test program, where it is in the guest."""
    @abc.abstractmethod
    def mount(self, *options: Arg) -> contextlib.AbstractContextManager[Mount]:
        """A further mount of the guest; self.mnt may not be used meanwhile."""
    @abc.abstractmethod
    def check(self) -> None:
        """The guest is well."""
    @abc.abstractmethod
    def close(self) -> None: ...

    def spawn(self, argv: Sequence[Arg], env: Mapping[Arg, Arg] | None = None, cwd: Arg = "/",
              file: Arg | None = None) -> int:
        pid = self._spawn(argv, env, cwd, file)
        self._pids.append(pid)
        return pid

    def wait_output(self, pid: int, pattern: bytes, timeout: float = PROMPTLY) -> re.Match[bytes]:
        return wait_for(lambda: re.search(pattern, self.output(pid)), timeout)

    def program(self, name: str, *args: Arg, env: Mapping[Arg, Arg] | None = None,
                argv0: Arg | None = None, file: Arg | None = None) -> Victim:
        """A test program that says in its first line who it is."""
        pid = self.spawn([name if argv0 is None else argv0, *args], env=env,
                         file=file or self.tool(name))
        line = self.wait_output(pid, rb"^[^\n]*\n")[0]
        assert line.startswith(b"pid="), line
        return Victim(pid, lab.parse_victim(line))

    def victim(self, *args: Arg, **kwargs: Any) -> Victim:
        return self.program("victim", *args, **kwargs)

    def kthread(self) -> int:
        return next(p for p in self.pids() if p > 1 and b"\nVmSize:" not in self.proc(p, "status"))

    def remount(self) -> None:
        """After a test has lost the daemon, so that the others still mean something."""
        if self.mount_.process.poll() is not None:
            self.mount_.close()
            self.mount_ = Mount(self.daemon, self.chardev)

    def forget_mounts(self) -> None:
        """Unmount what a failed test has left."""
        for mount in Mount.live - {self.mount_}:
            mount.close()

    def forget_processes(self) -> None:
        """Kill what the test has spawned."""
        for pid in list(self._pids):
            with contextlib.suppress(OSError, lab.LabError):
                self.kill(pid)
        self._pids.clear()


class HostWorld(World):
    name = "fake"

    def __init__(self, daemon: Path, fake_guest: Path, tools: Mapping[str, Path]) -> None:
        super().__init__(daemon)
        self._fake_guest = fake_guest
        # Where nobody's processes may execute them, too.
        self._dir = Path(tempfile.mkdtemp(prefix="hypermemfs-world."))
        self._dir.chmod(0o755)
        self.scratch = self._dir
        for name, path in tools.items():
            (self._dir / name).write_bytes(path.read_bytes())
            (self._dir / name).chmod(0o755)
        self._children: dict[int, tuple[subprocess.Popen, Any]] = {}
        self.is_x86 = os.uname().machine == "x86_64"
        self.fake = FakeGuest(fake_guest)
        self.chardev = self.fake.socket
        self.mount_ = Mount(daemon, self.chardev)

    def run(self, command: str | Sequence[Arg], stdin: bytes = b"") -> Result:
        return host(command, stdin)

    def _spawn(self, argv, env, cwd, file) -> int:
        out = tempfile.TemporaryFile(dir=self._dir)
        child = subprocess.Popen(argv, executable=file, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out, start_new_session=True)
        self._children[child.pid] = child, out
        return child.pid

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        child, out = self._children.get(pid, (None, None))
        os.kill(pid, sig)
        if child and sig == signal.SIGKILL:
            child.wait()
            out.close()
            del self._children[pid]
            self._pids.remove(pid)  # from now on it may be anybody's

    def output(self, pid: int) -> bytes:
        return os.pread(self._children[pid][1].fileno(), 1 << 20, 0)

    def proc(self, pid: int | str, name: str) -> bytes:
        try:
            return Path(f"/proc/{pid}/{name}").read_bytes()
        except ProcessLookupError:
            # Since Linux 6.16 what belongs to memory cannot be opened if there is none.
            if b"\nVmSize:" in Path(f"/proc/{pid}/status").read_bytes():
                raise
            return b""

    def proc_link(self, pid: int | str, name: str) -> bytes:
        return os.readlink(os.fsencode(f"/proc/{pid}/{name}"))

    def mem(self, pid: int, addr: int, size: int) -> bytes:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, addr)

    def pids(self) -> list[int]:
        return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())

    def tool(self, name: str) -> Path:
        return self._dir / name

    @contextlib.contextmanager
    def mount(self, *options: Arg) -> Iterator[Mount]:
        with self.guest() as fake, Mount(self.daemon, fake.socket, *options) as mount:
            yield mount

    @contextlib.contextmanager
    def guest(self, *options: str) -> Iterator[FakeGuest]:
        """A further guest."""
        fake = FakeGuest(self._fake_guest, *options)
        try:
            yield fake
        finally:
            fake.close()

    @property
    def fake_guest(self) -> Path:
        return self._fake_guest

    def check(self) -> None:
        pass

    def close(self) -> None:
        self.forget_processes()
        rc = self.mount_.close()
        self.fake.close()
        subprocess.run(["rm", "-rf", self._dir], check=True)
        assert rc == 0, self.mount_.stderr().decode(errors="replace")


class VmWorld(World):
    name = "vm"
    scratch = Path("/tmp")

    def __init__(self, daemon: Path, module: Mapping[Arg, str],
                 tools: Mapping[str, Path]) -> None:
        super().__init__(daemon)
        self._dir = Path(tempfile.mkdtemp(prefix="hypermemfs-vm."))
        machine = machines.current
        self.is_x86 = machine.arch in ("amd64", "i386")
        kernel = lab.kernel()
        files: dict[Arg, str] = {path: f"/bin/{name}" for name, path in tools.items()}
        files |= {**module, TESTS / "mount/mapper.c": "/bin/mapper"}
        image = lab.initramfs(self._dir / "initramfs", files, kernel)
        self.guest = lab.Guest.boot(kernel, image, mem="1G")
        self.chardev = self.guest.hm_socket
        try:
            self.mount_ = Mount(daemon, self.chardev)
            if machines.records:
                (machines.records / "info").write_text((self.mnt / "info").read_text())
        except BaseException:
            print(self.guest.console()[-4000:])
            self.guest.shutdown()
            raise

    def run(self, command: str | Sequence[Arg], stdin: bytes = b"") -> Result:
        return Result(*self.guest.run(command, stdin))

    def _spawn(self, argv, env, cwd, file) -> int:
        return self.guest.spawn(argv, env, cwd, file)

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        self.guest.kill(pid, sig)
        if sig == signal.SIGKILL:
            wait_for(lambda: not self.guest.has(pid))

    def output(self, pid: int) -> bytes:
        return self.guest.output(pid)

    def proc(self, pid: int | str, name: str) -> bytes:
        try:
            return self.guest.read_file(f"/proc/{pid}/{name}")
        except OSError as error:
            # As on the host.
            if "No such process" not in str(error) or \
                    b"\nVmSize:" in self.guest.read_file(f"/proc/{pid}/status"):
                raise
            return b""

    def proc_link(self, pid: int | str, name: str) -> bytes:
        done = self.run(["readlink", f"/proc/{pid}/{name}"])
        if done.rc:
            raise FileNotFoundError(errno.ENOENT, "readlink", name)
        return done.out.removesuffix(b"\n")

    def mem(self, pid: int, addr: int, size: int) -> bytes:
        # busybox dd reads what there is and then says so.
        done = self.run(f"dd if=/proc/{pid}/mem bs=4096 iflag=skip_bytes,count_bytes,fullblock "
                        f"skip={addr} count={size} 2>/run/dd.err")
        if not done.out and self.run(["grep", "-q", "error", "/run/dd.err"]).rc == 0:
            raise OSError(errno.EIO, "dd")
        return done.out

    def pids(self) -> list[int]:
        return sorted(int(name) for name in self.run("ls /proc").out.split() if name.isdigit())

    def tool(self, name: str) -> Path:
        return Path("/bin") / name

    @contextlib.contextmanager
    def mount(self, *options: Arg) -> Iterator[Mount]:
        # QEMU's chardev serves one at a time.
        self.mount_.close()
        try:
            with Mount(self.daemon, self.chardev, *options) as mount:
                yield mount
        finally:
            self.mount_ = Mount(self.daemon, self.chardev)

    def reboot(self) -> None:
        self._pids.clear()  # they would be others' now
        self.guest.reboot()

    def check(self) -> None:
        self.guest.check_console()

    def close(self) -> None:
        self.forget_processes()
        rc = self.mount_.close()
        self.guest.shutdown()
        subprocess.run(["rm", "-rf", self._dir], check=True)
        assert rc == 0, self.mount_.stderr().decode(errors="replace")
