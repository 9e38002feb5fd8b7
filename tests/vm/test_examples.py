# SPDX-License-Identifier: MIT
"""Hooks in use: docs/examples, and plugins made for Penguin's hypermem as they are (tests/origin).

The guest has no eth0, and so no driver that knows the ioctls of the examples: what is seen to
work has been done by a hook.
"""
from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
import machines
from conftest import Kit, booted
from lab import Guest
from machines import patience
from world import Mount, wait_for

pytestmark = [pytest.mark.vm("needs calls that can be hooked"), pytest.mark.needs("kprobes"),
              pytest.mark.limit(120)]

TOP = Path(__file__).resolve().parent.parent.parent
RAETH = TOP / "docs/examples/raeth"
ORIGIN = TOP / "tests/origin"
FRAMED = ("amd64", "arm64", "mips", "mipsel")  # that tests/vm/framed.c knows
RUN = [sys.executable, "-m", "hypermem.run"]


@pytest.fixture(scope="module")
def machine(kit: Kit, pytestconfig: pytest.Config,
            tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The programs that the examples are about are in this guest."""
    files = {**lab.module_files(pytestconfig), RAETH / "switch.c": "/bin/mtk7530_switch",
             TOP / "tests/vm/asker.c": "/bin/asker"}
    if machines.current.arch in FRAMED:
        files[TOP / "tests/vm/framed.c"] = "/bin/framed"
    image = lab.initramfs(tmp_path_factory.mktemp("examples") / "initramfs", files, kit.kernel)
    with booted(Kit(kit.kernel, image), smp=2) as guest:
        yield guest


class Program:
    """A program of the host with its output, which ends by a signal."""

    def __init__(self, argv: list[object]) -> None:
        self._out = tempfile.TemporaryFile()
        env = {**os.environ, "PYTHONPATH": str(TOP / "fs/python"), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen([str(arg) for arg in argv], env=env,
                                        stdin=subprocess.DEVNULL, stdout=self._out,
                                        stderr=self._out)

    def output(self) -> str:
        return os.pread(self._out.fileno(), 1 << 20, 0).decode()

    def wait_output(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.output()
            return re.search(pattern, self.output())
        try:
            return wait_for(found)
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} in {self.output()!r}") from None

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(patience(20))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()


@contextlib.contextmanager
def running(*argv: object) -> Iterator[Program]:
    program = Program(list(argv))
    try:
        yield program
    finally:
        program.close()


@contextlib.contextmanager
def plugin(mount: Mount, path: Path, *options: str) -> Iterator[Program]:
    """The plugin, hooked."""
    with running(*RUN, "--mount", mount.mnt, *options, path) as program:
        program.wait_output(r"INFO \S+: ioctl ")
        yield program


def hooks(mount: Mount) -> list[str]:
    return os.listdir(mount.mnt / "hooks")


def switch(guest: Guest) -> int:
    return guest.spawn(["mtk7530_switch", "00:0c:43:28:80:01"])


def ended(guest: Guest, pid: int) -> None:
    wait_for(lambda: not guest.has(pid))


def test_without_a_hook_the_program_asks_for_ever(guest: Guest, mount: Mount) -> None:
    pid = switch(guest)
    for _ in range(2):
        before = guest.output(pid).count(b"swRegRead: register 0x34: ")
        wait_for(lambda: guest.output(pid).count(b"swRegRead: register 0x34: ") >= before + 3)
    assert b"done." not in guest.output(pid) and b"timeout." not in guest.output(pid)
    guest.kill(pid)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_raeth_sh_gets_the_program_done(guest: Guest, mount: Mount, shell: str) -> None:
    with running(shell, RAETH / "raeth.sh", mount.mnt) as script:
        script.wait_output("hooked: ")
        pid = switch(guest)
        guest.wait_output(pid, rb"\ndone\.\n")
        ended(guest, pid)
        assert b"swRegRead" not in guest.output(pid)
        script.wait_output(f"process {pid} reads register 52\n")
        assert script.end(signal.SIGTERM) == 143
    assert hooks(mount) == []


def test_raeth_sh_frees_a_program_that_was_there_before(guest: Guest, mount: Mount) -> None:
    pid = switch(guest)
    guest.wait_output(pid, rb"swRegRead.*\n")
    with running("sh", RAETH / "raeth.sh", mount.mnt):
        guest.wait_output(pid, rb"\ndone\.\n")


def test_raeth_sh_leaves_others_alone(guest: Guest, mount: Mount) -> None:
    """The program by another name, and the ioctl with memory that is not there."""
    guest.run("cp /bin/mtk7530_switch /bin/other", check=True)
    with running("sh", RAETH / "raeth.sh", mount.mnt) as script:
        script.wait_output("hooked: ")
        pid = guest.spawn(["other"])
        guest.wait_output(pid, rb"(swRegRead.*\n){3}")
        guest.kill(pid)
        guest.run("cp /bin/asker /bin/mtk7530_asker", check=True)
        done = guest.run(["mtk7530_asker", "0x89f1", "bad"], check=True)
        assert re.match(rb"rc=-\d+\n", done.out)
        assert "reads register" not in script.output()


def test_raeth_py_gets_the_program_done(guest: Guest, mount: Mount) -> None:
    with plugin(mount, RAETH / "raeth.py") as program:
        pid = switch(guest)
        guest.wait_output(pid, rb"\ndone\.\n")
        ended(guest, pid)
        program.wait_output(f"raeth INFO process {pid} reads REG_ESW_WT_MAC_AD0: 0x2\n")
        assert program.end(signal.SIGINT) == 130
        assert "1 matched" in program.output() and "Traceback" not in program.output()
    assert hooks(mount) == []


def test_the_plugin_of_the_origin_gets_the_program_done(guest: Guest, mount: Mount) -> None:
    with plugin(mount, ORIGIN / "raeth.py", "--plugin", "RAEthPlugin") as program:
        pid = switch(guest)
        guest.wait_output(pid, rb"\ndone\.\n")
        program.wait_output("plugins.raeth INFO RAEth ioctl: reg=REG_ESW_WT_MAC_AD0, "
                            "returning val=0x2\n")
        assert program.end(signal.SIGTERM) == 143
        assert "ERROR" not in program.output()
    assert hooks(mount) == []


@pytest.fixture
def framed(guest: Guest) -> str:
    """A program whose stack is as the advanced plugin expects it, by the name that it hooks."""
    if machines.current.arch not in FRAMED:
        pytest.skip("tests/vm/framed.c does not know this architecture")
    guest.run("mkdir -p /tmp/framed && cp /bin/framed /tmp/framed/mtk7530_switch", check=True)
    return "/tmp/framed/mtk7530_switch"


def test_the_advanced_plugin_of_the_origin_skips_the_call(guest: Guest, mount: Mount,
                                                         framed: str) -> None:
    assert re.fullmatch(rb"rc=-\d+ value=0\n", guest.run([framed], check=True).out)
    with plugin(mount, ORIGIN / "raeth.py", "--plugin", "AdvancedRAEthPlugin") as program:
        assert guest.run([framed], check=True).out == b"rc=0 value=2\n"
        program.wait_output("Bypassed ioctl call and directly set w_mac_done bit\n")
        assert "ERROR" not in program.output()


def test_a_handler_that_fails_after_skipping_leaves_the_call_alone(guest: Guest, mount: Mount,
                                                                  framed: str) -> None:
    with plugin(mount, ORIGIN / "raeth.py", "--plugin", "AdvancedRAEthPlugin") as program:
        done = guest.run([framed, "NULL"], check=True)
        assert re.fullmatch(rb"rc=-\d+ value=0\n", done.out)
        program.wait_output(r"hypermem ERROR AdvancedRAEthPlugin(.*\n)+OSError: \[Errno 5\]")
        assert "Bypassed" not in program.output()


def test_the_ioctl_interaction_test_of_the_origin(guest: Guest, mount: Mount) -> None:
    with plugin(mount, ORIGIN / "ioctl_interaction.py") as program:
        done = guest.run(["asker", "0x89f0", "data", "a b", ""], check=True,
                         env=["A=b=c", "EMPTY="])
        assert re.search(rb"name=test data=0x12345678\n$", done.out)
        out = program.wait_output(r"Found pid: (\d+)\n").string
        assert "plugins.ioctl_interaction_test INFO Interface: eth7\n" in out
        assert "Data: 0xcafe\n" in out
        assert re.search(r"FD: socket:\[\d+\]\n", out)
        assert "Found process: ['asker', '0x89f0', 'data', 'a b', '']\n" in out
        assert "Found env: {'A': 'b=c', 'EMPTY': ''}\n" in out
        pid = re.search(rb"pid=(\d+)", done.out)
        assert pid and f"Found pid: {int(pid[1])}\n" in out
        assert "ERROR" not in out


def test_what_the_origin_reads_and_writes_in_a_read(guest: Guest, mount: Mount) -> None:
    """It does so in every read of every process: nobody else may read anything meanwhile."""
    pid = guest.spawn(["asker", "0", "read"])
    with running(*RUN, "--mount", mount.mnt, ORIGIN / "memory_access.py") as program:
        program.wait_output("Read buffer content: what was in the file\n")
        program.wait_output(r"Integer value: 0x[0-9a-f]+\n")
        assert program.end(signal.SIGTERM) == 143
    guest.wait_output(pid, rb"read: Modified content\n")


def test_the_hook_of_the_manual_for_python(guest: Guest, mount: Mount, tmp_path: Path) -> None:
    """As it is written there, but for the mount and how long it runs."""
    code = re.search(r"```python\n(import hypermem\n.*?)```", (TOP / "docs/python.md").read_text(),
                     re.S)[1]
    assert code.count('"/tmp/guest"') == code.count("guest.run(8)") == 1
    script = tmp_path / "opens.py"
    script.write_text(code.replace("/tmp/guest", str(mount.mnt)).replace("run(8)", "run()"))
    with running(sys.executable, script) as program:
        wait_for(lambda: [(mount.mnt / "hooks" / name / "filter").read_text()
                          for name in hooks(mount)] == ['openat comm=="cat"'])
        done = guest.run("cat /etc/passwd; cat /etc/group")
        assert done.out == guest.read_file("/etc/passwd")
        assert done.err == b"cat: can't open '/etc/group': Permission denied\n"
        program.wait_output(r"\d+ cat /etc/passwd\n\d+ cat /etc/group\n")
        assert program.end(signal.SIGTERM) == 143
    assert hooks(mount) == []


def test_a_loop_over_events_lets_each_call_go(guest: Guest, mount: Mount) -> None:
    sys.path.insert(0, str(TOP / "fs/python"))
    import hypermem
    with hypermem.Guest(mount.mnt).events("openat,open enter", comm="asker",
                                          timeout=30) as events:
        pid = guest.spawn(["asker", "0", "open", "/etc/passwd"])
        for event in events:
            at = 1 if event.call == "openat" else 0
            path = event.process.read_str(event.args[at])
            assert event.pid == pid and event.process.pid == pid and event.retval is None
            if path == "/etc/passwd":
                event.skip(-13)
                break
    assert hooks(mount) == []
    guest.wait_output(pid, rb"open: Permission denied\n")


def test_a_handler_that_is_killed_stops_nobody(guest: Guest, mount: Mount) -> None:
    with plugin(mount, RAETH / "raeth.py", "--timeout", "3600") as program:
        os.kill(program.process.pid, signal.SIGSTOP)
        pid = switch(guest)
        wait_for(lambda: "matched: 1\n" in
                 (mount.mnt / "hooks" / hooks(mount)[0] / "stats").read_text())
        assert b"swRegRead" not in guest.output(pid)
        program.process.kill()
        guest.wait_output(pid, rb"swRegRead.*\n")
        guest.kill(pid)
    (name,) = hooks(mount)
    stats = (mount.mnt / "hooks" / name / "stats").read_text()
    assert "abandoned: 1\n" in stats
    (mount.mnt / "hooks" / name).rmdir()
