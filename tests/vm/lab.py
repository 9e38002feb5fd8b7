#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The VM lab: boots a small Debian-kernel guest under QEMU and runs commands in it.

    with Guest.boot(kernel(), initramfs(dir, {module(dir): "/hypermem.ko"})) as guest:
        guest.run("ps").out
        guest.hm_socket         # QEMU's end of the hypermem port: what hypermemfs mounts
        guest.check_console()   # raises if the kernel has complained

Which machine it is machines.use() says; how long anything may take is in seconds of the default
machine's.  Commands go to tests/vm/agent.c over a virtio-serial controller of their own.  A Guest
may be used by many threads.  By hand: python3 tests/vm/lab.py --help
"""
from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import queue
import re
import secrets
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import kit
import machines
from machines import patience

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).resolve().parent
PROMPTLY = 30.0  # what answers at once has had this long, in seconds, on however busy a host

Bytes = str | bytes | os.PathLike
Env = Mapping[Bytes, Bytes] | Iterable[Bytes] | None  # a mapping, or strings as they are


class LabError(Exception):
    """The lab itself, or the guest's kernel, has failed."""


class Result(NamedTuple):
    rc: int  # exit status, or minus the signal that ended it
    out: bytes
    err: bytes


def kernel() -> Path:
    """The directory with the guest's kernel; fetches it if need be."""
    return kit.kernel(machines.current)


def headers() -> Path:
    """The directory to build the guest's modules in (KDIR)."""
    return kit.headers(machines.current)


def module(directory: Path) -> Path:
    """guest/hypermem.ko, built for that kernel in (a copy in) `directory`."""
    return kit.module(machines.current, directory)


def module_files(config: pytest.Config) -> dict[Bytes, str]:
    """The one that pytest is to test, and its place: --module, or built in the build directory."""
    if "modules" not in machines.current.features:
        return {}  # it is in the kernel
    path = config.getoption("module")
    if path and not path.exists():
        raise LabError(f"--module: {path} does not exist")
    path = path or module(config.getoption("builddir") / "machines" / machines.current.name)
    return {path: "/hypermem.ko"}


def programs32(config: pytest.Config) -> dict[str, Path]:
    """Programs of 32 bits that the build directory has, if the guest's kernel can execute them."""
    if "m32" not in machines.current.features:
        return {}
    return {path.name: path for path in config.getoption("builddir").glob("tests/*32")
            if path.is_file()}


def initramfs(out: Path, files: Mapping[Bytes, str] = {}, kernel_dir: Path | None = None) -> Path:
    """Make the initramfs `out`, with host files at paths of the guest; C files are compiled."""
    return kit.initramfs(machines.current, out, files, kernel_dir)


# What a healthy guest's console never says.
COMPLAINTS = re.compile(
    r"Oops|BUG:|BUG at|WARNING:|Call Trace|cut here|Kernel panic|general protection|"
    r"[Uu]nable to handle|INFO: .*(blocked|stall|hung)|(possible|inconsistent) .*(lock|recursi)|"
    r"lockdep|refcount_t:|sleeping function|scheduling while atomic|Bad page|list_(add|del) corr|"
    r"KASAN:|KCSAN:|UBSAN:|kmemleak:|irq \d+: nobody cared|lab: cannot load")

# tests/vm/agent.c: enum type, struct frame, struct command.
HELLO, RUN, SPAWN, KILL, OUT, ERR, EXIT, PID, FAIL = range(1, 10)
FRAME, COMMAND, INT = "III", "II", "i"  # with the guest's byte order in front
NO_ENV = 0xFFFFFFFF


def _command(argv: Sequence[Bytes], env: Env,
             cwd: Bytes, file: Bytes | None) -> bytes:
    args = [os.fsencode(a) for a in argv]
    if isinstance(env, Mapping):
        env = [os.fsencode(k) + b"=" + os.fsencode(v) for k, v in env.items()]
    vars_ = [os.fsencode(v) for v in env or ()]
    strings = [os.fsencode(cwd), os.fsencode(file) if file else args[0], *args, *vars_]
    if any(b"\0" in s for s in strings):
        raise ValueError("NUL in an argument")
    envc = NO_ENV if env is None else len(vars_)
    return (struct.pack(machines.current.struct + COMMAND, len(args), envc) +
            b"".join(s + b"\0" for s in strings))


class _Agent:
    """A connection to the agent.  Its thread hands each frame to the command that waits for it."""

    def __init__(self, path: Path, timeout: float, alive: Callable[[], None]) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(path))
        self._send_lock = threading.Lock()
        # Frames for the previous host's commands may still come: they must not be taken for ours.
        self._frame = struct.Struct(machines.current.struct + FRAME)
        self._ids = itertools.count(secrets.randbits(31))
        self._waiting: dict[int, queue.SimpleQueue[tuple[int, bytes]]] = {}
        try:
            self.boot_id = self._hello(timeout, alive)
        except BaseException:
            self._sock.close()  # for the next one: QEMU listens to one at a time
            raise
        self._sock.settimeout(None)
        threading.Thread(target=self._receive, daemon=True, name="lab-agent").start()

    def _hello(self, timeout: float, alive: Callable[[], None]) -> str:
        """Wait for the guest; QEMU keeps what we send until somebody opens the port."""
        nonce = secrets.token_hex(16).encode()
        self.send(0, HELLO, nonce)
        end = time.monotonic() + patience(timeout)
        self._sock.settimeout(0.2)
        seen = bytearray()  # may begin with the rest of a frame for the previous host
        while not seen.endswith(nonce):
            alive()
            if time.monotonic() > end:
                raise LabError(f"no agent in the guest within {timeout} s")
            with contextlib.suppress(TimeoutError):
                data = self._sock.recv(65536)
                if not data:
                    raise LabError("QEMU has closed the agent's port")
                seen += data
        return seen[-36 - len(nonce):-len(nonce)].decode()

    def send(self, id_: int, type_: int, payload: bytes = b"") -> None:
        with self._send_lock:
            self._sock.sendall(self._frame.pack(len(payload), id_, type_) + payload)

    def start(self, type_: int, payload: bytes) -> tuple[int, queue.SimpleQueue]:
        id_ = next(self._ids)
        replies = self._waiting[id_] = queue.SimpleQueue()
        self.send(id_, type_, payload)
        return id_, replies

    def forget(self, id_: int) -> None:
        self._waiting.pop(id_, None)

    def _receive(self) -> None:
        try:
            with self._sock.makefile("rb") as stream:
                while len(head := stream.read(self._frame.size)) == self._frame.size:
                    size, id_, type_ = self._frame.unpack(head)
                    data = stream.read(size)
                    if waiting := self._waiting.get(id_):
                        waiting.put((type_, data))
        except OSError:
            pass
        for waiting in list(self._waiting.values()):
            waiting.put((FAIL, struct.pack(machines.current.struct + INT, errno.ECONNRESET)))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class _Qmp:
    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(patience(PROMPTLY))
        self._sock.connect(str(path))
        self._lock = threading.RLock()
        self._buf = b""
        self.events: list[dict[str, Any]] = []
        self._read()  # the greeting
        self("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._buf:
            data = self._sock.recv(65536)
            if not data:
                raise LabError("QEMU has closed its QMP socket")
            self._buf += data
        line, self._buf = self._buf.split(b"\n", 1)
        return json.loads(line)

    def __call__(self, command: str, **arguments: Any) -> Any:
        with self._lock:
            request = {"execute": command, "arguments": arguments}
            self._sock.sendall(json.dumps(request).encode() + b"\n")
            while True:
                message = self._read()
                if "event" in message:
                    self.events.append(message)
                elif "error" in message:
                    raise LabError(f"QMP {command}: {message['error']['desc']}")
                else:
                    return message["return"]

    def wait(self, event: str, timeout: float) -> None:
        end = time.monotonic() + patience(timeout)
        while not any(e["event"] == event for e in self.events):
            if time.monotonic() > end:
                raise LabError(f"no {event} from QEMU within {timeout} s")
            time.sleep(0.01)
            self("query-status")  # its reply comes after the events that are due

    def close(self) -> None:
        self._sock.close()


def _die_with_parent() -> None:
    """Between fork and exec.  The parent is the thread that boots the guest: it must last."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Guest:
    """A running guest, with everything of it in the directory `dir`."""

    def __init__(self, directory: Path, process: subprocess.Popen | None = None) -> None:
        self.dir = directory
        self.hm_socket = directory / "hm.sock"
        self._process = process
        self._own_dir = False
        self._booted_at = 0  # bytes of the console before the last boot
        self._agent: _Agent | None = None
        self._qmp: _Qmp | None = None

    @classmethod
    def boot(cls, kernel: Path, initramfs: Path, *, smp: int = 1, mem: str = "512M",
             append: str = "", qemu_args: Sequence[Bytes] = (), hypermem_args: str = "",
             console: str = "last", load_hypermem: bool = True, kvm: bool = False,
             hm_chardev: str = "", hm_bus: str = "", hm_port: str = "virtserialport",
             qemu_machine: str = "",
             directory: Path | None = None, linger: bool = False, timeout: float = 60.0) -> Guest:
        """Boot and wait for the agent (with console="none": there is none, and no waiting).

        kernel is a directory as kernel() gives it, or an image.  smp and mem (of M or G) are cut to
        what the machine can have.  console says when virtio_console is loaded: "last" (after
        hypermem), "first" or "none".  hypermem_args are words NAME=VALUE.  What is built into
        the kernel is there from the beginning, whatever they say.
        hm_chardev is QEMU's chardev of hypermem's port (by default hm_socket), hm_bus more
        properties of its controller, hm_port its driver and more of its properties.  qemu_machine
        is QEMU's, if not the table's, with its properties; that of microvm has virtio-mmio.
        directory gets sockets, console.log and qemu.pid; by default it is a temporary one.
        linger: the guest outlives this process.
        """
        own_dir = directory is None
        directory = directory or Path(tempfile.mkdtemp(prefix="hypermem-lab."))
        directory.mkdir(exist_ok=True)
        if len(str(directory / "console.sock")) > 107:
            raise LabError(f"{directory}: too long a path for sockets")
        image = kernel
        if kernel.is_dir():
            image = next(f for n in ("vmlinux", "vmlinuz") if (f := kernel / n).exists())
        machine = machines.current
        arg_prefix = "lab.hypermem_args=" if "modules" in machine.features else "hypermem."
        words = [f"console={machine.console}", "loglevel=7", "rdinit=/init",
                 f"lab.console={console}", f"lab.hypermem={int(load_hypermem)}",
                 "sysrq_always_enabled",  # for _stand()
                 "proc_mem.force_override=always",  # the oracle reads PROT_NONE, too
                 *(arg_prefix + arg for arg in hypermem_args.split()), machine.append,
                 append]
        controller = machine.virtio("virtio-serial")
        if qemu_machine.startswith("microvm"):
            controller = "virtio-serial-device"

        accel = "kvm:tcg" if kvm else "tcg"

        def server(name: str) -> str:
            return f"socket,id={name},path={directory}/{name}.sock,server=on,wait=off"

        argv: list[Bytes] = [
            machine.qemu, "-machine", f"{qemu_machine or machine.type},accel={accel}",
            *machine.options,
            "-smp", str(min(smp, machine.cpus)), "-m", f"{min(_mib(mem), machine.mem)}M",
            "-nodefaults", "-no-user-config", "-nographic", "-display", "none",
            "-kernel", image, "-initrd", initramfs, "-append", " ".join(words),
            # A socket so that one may type, a log for what is said while nobody listens.
            "-chardev", server("console") + f",logfile={directory}/console.log" if machine.types
            else f"file,id=console,path={directory}/console.log",
            "-serial", "chardev:console",
            "-chardev", server("qmp"), "-mon", "chardev=qmp,mode=control",
            "-chardev", f"{hm_chardev},id=hm" if hm_chardev else server("hm"),
            "-device", ",".join(filter(None, [f"{controller},id=hmbus", hm_bus])),
            "-device", f"{hm_port},bus=hmbus.0,chardev=hm,name=org.hypermem.0",
            "-chardev", server("lab"), "-device", f"{controller},id=labbus,max_ports=2",
            "-device", "virtserialport,bus=labbus.0,chardev=lab,name=lab.0",
            *qemu_args]
        (directory / "console.log").write_bytes(b"")
        with open(directory / "qemu.log", "wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True,
                                       preexec_fn=None if linger else _die_with_parent)
        (directory / "machine").write_text(f"{machine.name}\n")
        (directory / "qemu.pid").write_text(f"{process.pid}\n")
        (directory / "qemu.cmd").write_bytes(
            shlex.join(os.fsdecode(a) for a in argv).encode() + b"\n")
        guest = cls(directory, process)
        guest._own_dir = own_dir and not linger
        try:
            guest._qmp = guest._connect_qmp()
            if console != "none":
                guest._wait_boot(0, timeout)
        except BaseException:
            guest.shutdown()
            raise
        return guest

    @classmethod
    def attach(cls, directory: Path) -> Guest:
        """A guest that was booted with linger.  One process at a time may be attached."""
        guest = cls(Path(directory))
        guest._qmp = guest._connect_qmp()
        guest.wait_agent(PROMPTLY)
        return guest

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    # The machine.

    @property
    def pid(self) -> int:
        """QEMU's."""
        return int((self.dir / "qemu.pid").read_text())

    @property
    def boot_id(self) -> str:
        assert self._agent
        return self._agent.boot_id

    def qmp(self, command: str, **arguments: Any) -> Any:
        assert self._qmp
        return self._qmp(command, **arguments)

    @property
    def hm_address(self) -> str:
        """What hypermemfs calls QEMU's end of the hypermem port, whatever chardev it is."""
        chardevs = {dev["label"]: dev["filename"] for dev in self.qmp("query-chardev")}
        # disconnected:tcp:HOST:PORT,server=on or pty:PATH or unix:PATH,server=on
        kind, _, rest = chardevs["hm"].removeprefix("disconnected:").partition(":")
        where = rest.partition(",")[0]
        return f"tcp:{where}" if kind == "tcp" else where

    def wait_event(self, event: str, timeout: float = PROMPTLY) -> None:
        """Wait for a QMP event, also one that has come since the boot or the last reboot."""
        assert self._qmp
        self._qmp.wait(event, timeout)

    def reboot(self, how: str | None = None, timeout: float = 60.0, agent: bool = True) -> None:
        """Reset the machine (or run `how` in the guest to that end); wait for the agent again."""
        assert self._qmp
        before = self._agent.boot_id if self._agent else None
        said = len(self.console())
        self.qmp("query-status")  # brings what is due: SeaBIOS answers a reset with one more
        self._qmp.events.clear()
        if how is None:
            self._drop_agent()
            self.qmp("system_reset")
        else:
            self.spawn(["sh", "-c", f"sleep 0.2; {how}"])  # the reply must be out before
        self._qmp.wait("RESET", timeout)
        self._drop_agent()
        if agent:
            self._wait_boot(said, timeout)
            if self.boot_id == before:
                raise LabError("the guest has not rebooted")

    def _wait_boot(self, said: int, timeout: float) -> None:
        """Wait for the agent.  A kernel that stands still before the module is loaded, or meets a
        breakpoint that is not there, as it may with two processors in an old QEMU (docs/guests.md),
        is booted again, with a warning."""
        try:
            self.wait_agent(timeout)
        except LabError as error:
            self._check_process()
            text = self.console()[said:]
            if "modules" not in machines.current.features or "hypermem:" in text or \
                    "Kernel panic" in text and "Oops: int3" not in text:
                raise
            warnings.warn(f"booted again: {error}", stacklevel=2)
            self._booted_at = len(self.console())
            self.qmp("system_reset")
            self.wait_agent(timeout)

    def wait_agent(self, timeout: float = 60.0) -> None:
        self._drop_agent()
        try:
            self._agent = _Agent(self.dir / "lab.sock", timeout, self._check_alive)
        except LabError as error:
            raise LabError(f"{error}; {self._stand()}") from None

    def _stand(self) -> str:
        """Of a guest that is not heard: where its processors are, what its kernel still says."""
        said = ["its processors:"]
        with contextlib.suppress(OSError, LabError):
            for _ in range(3):
                text = self.qmp("human-monitor-command", **{"command-line": "info registers -a"})
                said += re.findall(r"(?im)^.*(?:CPU#|\b[er]?ip\b|\bpc\b|\bpsw\b|\bnip\b).*$", text)
            if machines.current.types and not self._has_panicked():
                for key in "lw":  # backtraces of what runs, and of who waits without end
                    self.qmp("chardev-send-break", id="console")
                    self.type(key)
                    time.sleep(patience(2))
        return "\n".join([*said, "its console ends with:", self.console()[-6000:]])

    def shutdown(self) -> None:
        """Kill QEMU: nothing in this guest is worth a sync."""
        self._drop_agent()
        if self._qmp:
            with contextlib.suppress(OSError, LabError, ValueError):
                self.qmp("quit")
            self._qmp.close()
            self._qmp = None
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(PROMPTLY)
        if machines.records and self._process:
            number = sum(1 for _ in machines.records.glob("*.log"))
            shutil.copy(self.dir / "console.log", machines.records / f"{number:03}.log")
        if self._own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    def _drop_agent(self) -> None:
        if self._agent:
            self._agent.close()
            self._agent = None

    def _connect_qmp(self) -> _Qmp:
        end = time.monotonic() + patience(PROMPTLY)
        while True:
            try:
                return _Qmp(self.dir / "qmp.sock")
            except OSError:  # not yet, or QEMU has not liked its arguments
                self._check_alive()
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _check_process(self) -> None:
        if self._process and self._process.poll() is not None:
            said = (self.dir / "qemu.log").read_text(errors="replace")
            raise LabError(f"QEMU has ended with {self._process.returncode}:\n{said}")

    def _has_panicked(self) -> bool:
        return "Kernel panic" in self.console()[self._booted_at:]

    def _check_alive(self) -> None:
        self._check_process()
        if self._has_panicked():
            raise LabError("the guest has panicked:\n" + self.console()[-4000:])

    # The console.

    def console(self) -> str:
        """All that the guest has said on its serial console."""
        time.sleep(machines.current.lag)
        return (self.dir / "console.log").read_text(errors="replace")

    def type(self, text: str) -> None:
        """Type into the console: with console="none" a shell reads it."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.dir / "console.sock"))
            sock.sendall(text.encode())
            # QEMU takes it as fast as the UART does, and forgets what is left when we go.
            end = time.monotonic() + patience(PROMPTLY)
            while struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
                if time.monotonic() > end:
                    raise LabError("nobody reads the console")
                time.sleep(0.01)

    def wait_console(self, pattern: str, timeout: float = PROMPTLY) -> re.Match[str]:
        end = time.monotonic() + patience(timeout)
        while not (found := re.search(pattern, self.console())):
            self._check_alive()
            if time.monotonic() > end:
                raise LabError(f"the console has not said {pattern!r} within {timeout} s")
            time.sleep(0.02)
        return found

    def check_console(self) -> None:
        """Raise if the guest's kernel has complained: oops, warning, lockdep report ..."""
        text = self.console()[self._booted_at:]
        if found := COMPLAINTS.search(text):
            start = text.rfind("\n", 0, max(0, found.start() - 300)) + 1
            raise LabError("the guest's kernel complains:\n" + text[start:start + 6000])

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """It must be well at the end; when something else is wrong, its console is shown."""
        try:
            yield
        except BaseException:
            print(self.console()[-3000:])
            raise
        self.check_console()

    # Commands, processes, files.

    def run(self, command: str | Sequence[Bytes], stdin: bytes = b"", timeout: float = 60.0, *,
            env: Env = None, cwd: Bytes = "/root",
            check: bool = False) -> Result:
        """Run a shell command (str) or a program with its arguments; by default failing is fine."""
        assert self._agent, "no agent in this guest"
        agent = self._agent
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        id_, replies = agent.start(RUN, _command(argv, env, cwd, None) + stdin)
        out: dict[int, list[bytes]] = {OUT: [], ERR: []}
        end = time.monotonic() + patience(timeout)
        try:
            while True:
                type_, data = replies.get(timeout=max(0.0, end - time.monotonic()))
                if type_ in out:
                    out[type_].append(data)
                else:
                    break
        except queue.Empty:
            agent.send(id_, KILL)
            said = b"".join(out[OUT] + out[ERR])[-500:]
            raise TimeoutError(f"in the guest, within {timeout} s: {command!r}: {said!r}") from None
        finally:
            agent.forget(id_)
        value = struct.unpack(machines.current.struct + INT, data)[0]
        if type_ == FAIL:
            raise OSError(value, os.strerror(value), repr(argv[0]))
        result = Result(os.waitstatus_to_exitcode(value), b"".join(out[OUT]), b"".join(out[ERR]))
        if check and result.rc:
            raise LabError(f"in the guest: {command!r}: {result}")
        return result

    def spawn(self, argv: Sequence[Bytes], env: Env = None, cwd: Bytes = "/root",
              file: Bytes | None = None) -> int:
        """Execute a program, in a session of its own, and return its pid at once.

        env may be a list of strings, in order, of any form.  file is what to execute, if it is not
        argv[0].  stdin is /dev/null, the rest goes where output() finds it.
        """
        assert self._agent, "no agent in this guest"
        id_, replies = self._agent.start(SPAWN, _command(argv, env, cwd, file))
        try:
            type_, data = replies.get(timeout=patience(PROMPTLY))
        except queue.Empty:
            raise TimeoutError(f"in the guest: spawn {argv[0]!r}") from None
        finally:
            self._agent.forget(id_)
        value = struct.unpack(machines.current.struct + INT, data)[0]
        if type_ == FAIL:
            raise OSError(value, os.strerror(value), repr(file or argv[0]))
        return value

    def output(self, pid: int) -> bytes:
        """What a spawned process has written to stdout and stderr so far."""
        return self.read_file(f"/run/lab/{pid}.out")

    def wait_output(self, pid: int, pattern: bytes, timeout: float = PROMPTLY) -> re.Match[bytes]:
        end = time.monotonic() + patience(timeout)
        while not (found := re.search(pattern, text := self.output(pid))):
            if time.monotonic() > end:
                raise TimeoutError(f"no {pattern!r} from process {pid}, but {text[-500:]!r}")
            time.sleep(0.02)
        return found

    def victim(self, *args: Bytes, env: Env = None,
               argv0: Bytes = "victim") -> tuple[int, dict[str, Any]]:
        """Spawn tests/vm/victim.c; returns its pid and what it says, numbers as int."""
        pid = self.spawn([argv0, *args], env=env, file="/bin/victim")
        line = self.wait_output(pid, rb"^[^\n]*\n")[0]
        if line.startswith(b"victim:"):
            raise LabError(os.fsdecode(line.strip()))
        return pid, parse_victim(line)

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        # By name: its number is another one on MIPS.
        self.run(["kill", "-s", signal.Signals(sig).name[3:], str(pid)], check=True)

    def has(self, pid: int) -> bool:
        """The process, be it a zombie."""
        return self.run(["test", "-d", f"/proc/{pid}"]).rc == 0

    def read_file(self, path: Bytes) -> bytes:
        result = self.run(["cat", path])
        if result.rc:
            raise OSError(result.err.decode(errors="replace").strip())
        return result.out

    def write_file(self, path: Bytes, data: bytes, mode: int = 0o644) -> None:
        script = 'cat >"$1" && chmod "$2" "$1"'
        result = self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], data)
        if result.rc:
            raise OSError(result.err.decode(errors="replace").strip())


def _mib(size: str) -> int:
    return int(size[:-1]) << (10 if size.endswith("G") else 0)


def parse_victim(line: bytes) -> dict[str, Any]:
    """The `key=value ...` line of victim.c."""
    words = (word.split("=", 1) for word in os.fsdecode(line).split())
    return {k: int(v, 0) if re.fullmatch(r"0x[0-9a-f]+|[0-9]+", v) else v for k, v in words}


def main() -> int:
    parser = argparse.ArgumentParser(description="Boot a lab guest, run commands in it, stop it.")
    commands = parser.add_subparsers(dest="command", required=True)
    boot = commands.add_parser("boot", help="boot a guest and leave it running")
    boot.add_argument("dir", type=Path, nargs="?", help="where its sockets and logs go")
    boot.add_argument("--machine", default=machines.DEFAULT, choices=list(machines.TABLE),
                      metavar="NAME", help=", ".join(machines.TABLE))
    boot.add_argument("--module", type=Path, help="hypermem.ko (default: guest/, built for it)")
    boot.add_argument("--file", action="append", default=[], metavar="SRC=DEST",
                      help="a file to put into the guest")
    boot.add_argument("--smp", type=int, default=1)
    boot.add_argument("--mem", default="512M")
    boot.add_argument("--kvm", action="store_true")
    boot.add_argument("--append", default="", help="more of the kernel command line")
    boot.add_argument("--console", default="last", choices=["first", "last", "none"])
    boot.add_argument("--hypermem-args", default="", metavar="NAME=VALUE ...")
    run = commands.add_parser("run", help="run a command in a guest")
    run.add_argument("dir", type=Path)
    run.add_argument("argv", nargs=argparse.REMAINDER, help="one word: a shell command")
    build = commands.add_parser("module", help="build the module for a machine")
    build.add_argument("--machine", default=machines.DEFAULT, choices=list(machines.TABLE),
                       metavar="NAME")
    build.add_argument("dir", type=Path, help="where to")
    for name, text in ("stop", "stop a guest"), ("check", "look for complaints on its console"):
        commands.add_parser(name, help=text).add_argument("dir", type=Path)
    args = parser.parse_args()

    if args.command == "boot":
        directory = args.dir or Path(tempfile.mkdtemp(prefix="hypermem-lab."))
        directory.mkdir(exist_ok=True)
        files = dict(word.split("=", 1) for word in args.file)
        machines.use(args.machine)
        if "modules" in machines.current.features:
            files[str(args.module or module(directory / "module"))] = "/hypermem.ko"
        image = initramfs(directory / "initramfs", files)
        Guest.boot(kernel(), image, smp=args.smp, mem=args.mem, kvm=args.kvm, append=args.append,
                   console=args.console, hypermem_args=args.hypermem_args, directory=directory,
                   linger=True)
        print(f"hypermem   {directory}/hm.sock       (hypermemfs {directory}/hm.sock MOUNTPOINT)\n"
              f"console    {directory}/console.log\n"
              f"a command  {sys.argv[0]} run {directory} 'ps'\n"
              f"the end    {sys.argv[0]} stop {directory}")
    elif args.command == "module":
        machines.use(args.machine)
        print(module(args.dir))
    elif args.command == "run":
        machines.use((args.dir / "machine").read_text().strip())
        guest = Guest.attach(args.dir)
        stdin = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
        result = guest.run(args.argv[0] if len(args.argv) == 1 else args.argv, stdin, 86400)
        sys.stdout.buffer.write(result.out)
        sys.stderr.buffer.write(result.err)
        return result.rc if result.rc >= 0 else 128 - result.rc
    elif args.command == "check":
        Guest(args.dir).check_console()
    else:
        with contextlib.closing(_Qmp(args.dir / "qmp.sock")) as qmp:
            qmp("quit")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, kit.KitError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
