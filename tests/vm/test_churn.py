# SPDX-License-Identifier: MIT
"""What is read was there: memory that changes as fast as it can (churn.c), and what reads it.

churn_reader.c says what is checked of each read.  Here are the guests, the processes and the
readers; and the processes of which a read says more than that.
"""
from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import lab
import machines
from machines import patience
from conftest import Kit, booted
from lab import Guest
from world import Mount, errno_of

pytestmark = [pytest.mark.vm("is about guest RAM"), pytest.mark.limit(240)]

REQUIRE, OFF = "ram=require", "ram=off"
MIB = 1 << 20

Said = Mapping[str, Any]


def built(config: pytest.Config, name: str) -> Path:
    path = config.getoption("builddir").resolve() / "tests" / name
    if not path.exists():
        pytest.exit(f"{path} does not exist: build it", 2)
    return path


@pytest.fixture(scope="module")
def kit(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """Guests with churn."""
    directory = tmp_path_factory.mktemp("churn")
    files = lab.module_files(pytestconfig)
    files[Path(__file__).with_name("churn.c")] = "/bin/churn"
    files |= {path: f"/bin/{name}" for name, path in lab.programs32(pytestconfig).items()}
    kernel = lab.kernel()
    return Kit(kernel, lab.initramfs(directory / "initramfs", files, kernel))


@pytest.fixture(scope="module")
def machine(kit: Kit) -> Iterator[Guest]:
    with booted(kit, smp=2, mem="1G") as guest:
        yield guest


@pytest.fixture(scope="session")
def reader_program(pytestconfig: pytest.Config) -> Path:
    return built(pytestconfig, "churn_reader")


@pytest.fixture(autouse=True)
def no_churn_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "guest" in request.fixturenames:
        request.getfixturevalue("machine").run("killall -9 churn churn32 2>/dev/null")


def churn(guest: Guest, *args: str, program: str = "churn") -> dict[str, Any]:
    """Start it; what it says."""
    pid = guest.spawn([program, *args], file=f"/bin/{program}")
    line = guest.wait_output(pid, rb"^[^\n]*\n")[0]
    if line.startswith(b"churn: no region"):
        pytest.skip(f"{line.decode().strip()} on this machine")
    assert line.startswith(b"pid="), line
    return {**lab.parse_victim(line), "line": line.decode().strip()}


def churn_run(guest: Guest, *region: str, program: str = "churn") -> dict[str, Any]:
    """With somebody who writes to the page frames that it leaves."""
    churn(guest, "stranger")
    return churn(guest, "run", str(random.randrange(1, 1 << 32)), *region, program=program)


def check_alive(guest: Guest, said: Said) -> None:
    """It has found no fault with itself."""
    assert guest.output(said["pid"]).decode().strip() == said["line"]
    assert guest.has(said["pid"])


class Reader:
    """churn_reader as a process."""

    def __init__(self, program: Path, mount: Mount, said: Said, seconds: float, threads: int = 1,
                 *options: str) -> None:
        self.said = said
        regions = [str(said[f"{key}{n}"]) for n in range(said["regions"])
                   for key in ("addr", "size")]
        self.process = subprocess.Popen(
            [program, mount.mnt / "pid" / str(said["pid"]) / "mem", str(said["status"]),
             str(said["regions"]), *regions, "--seconds", str(int(seconds)),
             "--threads", str(threads), "--seed", str(random.randrange(1, 1 << 32)),
             *(["--big-endian"] if machines.current.byteorder == "big" else []),
             *self.enough(), "--at-most", str(int(seconds + patience(40))), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.seconds = seconds

    @staticmethod
    def enough() -> list[str]:
        """What a slow machine does in the same time."""
        slow = machines.current.slow
        return ["--min-reads", str(int(50 / slow)), "--min-words", str(int(500_000 / slow)),
                "--min-steps", "20"]

    def counts(self) -> dict[str, float]:
        """Wait for it; what it has counted.  Nothing was wrong."""
        try:
            out, err = self.process.communicate(timeout=self.seconds + patience(60))
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate(timeout=10)
        print(out + err)
        assert self.process.returncode == 0, f"{self.said['line']}\n{out}{err}"
        return {key: float(value) for key, value in re.findall(r"(\w+)=([0-9.]+)", out)}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def reader(reader_program: Path) -> Iterator[Callable[..., Reader]]:
    """Readers, which do not outlive the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args: stack.enter_context(Reader(reader_program, *args))


def said_of_ram(mount: Mount) -> str:
    return re.search(r"^ram: (.*)$", (mount.mnt / "info").read_text(), re.M)[1]


def window_mib(mount: Mount) -> int:
    return int(re.match(r"window \((\d+) MiB in the memory of process \d+\)",
                        said_of_ram(mount))[1])


def churn_is_read(daemon: Path, guest: Guest, reader: Callable[..., Reader], seconds: float,
                  ram: str = REQUIRE, threads: int = 2, region: Sequence[str] = (),
                  *options: str) -> dict[str, float]:
    with Mount(daemon, guest.hm_socket, "-o", ram) as mount:
        assert said_of_ram(mount).startswith("window (" if ram == REQUIRE else "inline (")
        said = churn_run(guest, *region)
        counts = reader(mount, said, seconds, threads, *options).counts()
        check_alive(guest, said)
        mount.check()
    return counts


# Memory that changes.

WAYS = {"rewrite", "renew", "move", "fork", "lend", "forget", "hide", "split", "recycle", "swap",
        "punch", "cow"}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("ram", [REQUIRE, OFF])
def test_what_is_read_was_there(guest: Guest, daemon: Path, reader: Callable[..., Reader],
                                seconds: float, ram: str, threads: int) -> None:
    counts = churn_is_read(daemon, guest, reader, seconds, ram, threads, (),
                           "--ways", ",".join(sorted(WAYS)))
    assert 20 < counts["exact"]
    # A lone processor seldom does both at once.
    assert counts["exact"] < counts["reads"] or machines.current.cpus == 1


@pytest.mark.parametrize("region", ["tiny", "shared", "private", "thp", "tlb"])
@pytest.mark.parametrize("ram", [REQUIRE, OFF])
def test_what_is_read_was_there_if_all_look_at_it(guest: Guest, daemon: Path,
                                                  reader: Callable[..., Reader], seconds: float,
                                                  ram: str, region: str) -> None:
    """One region, so that it changes more often, and more often while it is read."""
    counts = churn_is_read(daemon, guest, reader, seconds, ram, 4, [region])
    assert counts["reads"] - counts["exact"] > 20


@pytest.mark.skipif("machines.current.cpus == 1", reason="all guests of this machine have one")
def test_what_is_read_was_there_with_one_processor(boot: Callable[..., Guest], daemon: Path,
                                                   reader: Callable[..., Reader],
                                                   seconds: float) -> None:
    churn_is_read(daemon, boot(smp=1), reader, seconds)


@pytest.fixture(scope="module")
def two_nodes(kit: Kit) -> Iterator[Guest]:
    """Each with memory of its own in QEMU."""
    nodes = [arg for n in range(2) for arg in
             ("-object", f"memory-backend-ram,id=node{n},size=512M",
              "-numa", f"node,memdev=node{n},cpus={n}")]
    # Two sockets: the kernel complains of one in two nodes.
    with booted(kit, smp=2, mem="1G", qemu_args=["-smp", "2,sockets=2", *nodes]) as guest:
        guest.run("test -d /sys/devices/system/node/node1", check=True)
        yield guest


@pytest.mark.needs("numa")
def test_what_is_read_was_there_when_pages_go_to_another_node(
        two_nodes: Guest, daemon: Path, reader: Callable[..., Reader], seconds: float) -> None:
    assert churn_is_read(daemon, two_nodes, reader, seconds)["migrate"] > 5


@pytest.mark.needs("numa")
def test_the_window_has_all_nodes(two_nodes: Guest, daemon: Path) -> None:
    with Mount(daemon, two_nodes.hm_socket, "-o", REQUIRE) as mount:
        assert window_mib(mount) > 1000


def test_what_is_read_was_there_in_shared_ram(boot: Callable[..., Guest], daemon: Path,
                                              reader: Callable[..., Reader],
                                              seconds: float) -> None:
    guest = boot(smp=2, mem="512M", qemu_args=["-object", "memory-backend-memfd,id=m,size=512M",
                                               "-machine", "memory-backend=m"])
    churn_is_read(daemon, guest, reader, seconds)


@pytest.mark.needs("m32")
def test_what_is_read_was_there_of_a_process_of_32_bits(
        guest: Guest, daemon: Path, reader: Callable[..., Reader], seconds: float) -> None:
    if guest.run(["test", "-e", "/bin/churn32"]).rc:
        pytest.skip("no churn32: the compiler makes no static programs of 32 bits "
                    "(Debian: gcc-multilib)")
    with Mount(daemon, guest.hm_socket, "-o", REQUIRE) as mount:
        said = churn_run(guest, program="churn32")
        assert said["status"] < 1 << 32
        reader(mount, said, seconds, 2).counts()
        check_alive(guest, said)


@pytest.mark.parametrize("ram", [REQUIRE, OFF])
def test_a_program_is_not_taken_for_the_one_before(guest: Guest, daemon: Path,
                                                   reader: Callable[..., Reader], seconds: float,
                                                   ram: str) -> None:
    """It executes itself, and each time there is other memory at the same addresses."""
    churn(guest, "stranger")
    said = churn(guest, "exec")
    with Mount(daemon, guest.hm_socket, "-o", ram) as mount:
        counts = reader(mount, said, seconds, 2, "--min-steps", "10").counts()
    assert counts["exec"] >= 10
    assert guest.has(said["pid"])


def test_a_program_that_comes_while_a_request_waits_is_not_taken_for_it(
        boot: Callable[..., Guest], daemon: Path, reader: Callable[..., Reader],
        seconds: float) -> None:
    """The module gets little of the processor, and what the program had somebody else still has."""
    guest = boot(smp=1)
    for _ in range(4):
        guest.spawn(["sh", "-c", "while :; do :; done"])
    said = churn(guest, "exec")
    with Mount(daemon, guest.hm_socket, "-o", OFF) as mount:
        counts = reader(mount, said, 3 * seconds, 8, "--min-reads", "2", "--min-words", "1000",
                        "--min-steps", "2").counts()
    assert counts["exec"] >= 2
    assert guest.has(said["pid"])


@pytest.mark.parametrize("ram", [REQUIRE, OFF])
def test_a_process_that_exits_shows_what_it_had_or_nothing(
        guest: Guest, daemon: Path, reader: Callable[..., Reader], seconds: float,
        ram: str) -> None:
    churn(guest, "stranger")
    with Mount(daemon, guest.hm_socket, "-o", ram) as mount:
        end = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < end or rounds < 3:
            said = churn(guest, "brief")
            reading = reader(mount, said, 30, 2, "--until", "gone", "--min-reads", "5",
                             "--min-words", "100000")
            time.sleep(random.uniform(0.3, 0.6))
            guest.kill(said["pid"])
            counts = reading.counts()
            assert counts["exact"] == counts["reads"] and not counts["zeros"]
            rounds += 1
        mount.check()


def test_a_guest_that_stands_still_between_is_read_right(
        guest: Guest, daemon: Path, reader: Callable[..., Reader], seconds: float) -> None:
    with Mount(daemon, guest.hm_socket, "-o", REQUIRE) as mount:
        said = churn_run(guest)
        reading = reader(mount, said, 2 * seconds, 4)
        while reading.process.poll() is None:
            guest.qmp("stop")
            time.sleep(random.uniform(0.01, 0.5))
            guest.qmp("cont")
            time.sleep(random.uniform(0.01, 0.5))
        reading.counts()
        check_alive(guest, said)
        mount.check()


def test_most_of_it_comes_through_the_window(guest: Guest, daemon: Path,
                                             reader: Callable[..., Reader],
                                             seconds: float) -> None:
    """Otherwise the tests here would say nothing about it."""
    with Mount(daemon, guest.hm_socket, "-d", "-o", REQUIRE) as mount:
        said = churn_run(guest)
        counts = reader(mount, said, seconds, 2).counts()
        sizes = re.findall(rb"< READ_(?:OK|PARTIAL) tag \d+ pid \d+(?: stamp \S+)? addr \S+ "
                           rb"size (\d+)", mount.stderr())
    inline = sum(map(int, sizes))
    print(f"{inline} bytes sent by the guest, {counts['bytes']:.0f} read")
    # What changes while it is copied, the more of it the busier this host, is sent after all.
    assert 0 < inline < counts["bytes"] * 3 / 4


# Memory that stays as it is.

@pytest.fixture
def still(guest: Guest) -> Said:
    """A process with mappings of many kinds."""
    return churn(guest, "still")


def guest_reads(guest: Guest, pid: int, addr: int, size: int) -> bytes:
    """The guest's own /proc/PID/mem."""
    return guest.run(f"dd if=/proc/{pid}/mem bs=64k iflag=skip_bytes,count_bytes,fullblock "
                     f"skip={addr} count={size} 2>/dev/null").out


@contextlib.contextmanager
def opened(mount: Mount, pid: int) -> Iterator[int]:
    fd = os.open(mount.mnt / "pid" / str(pid) / "mem", os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def read(mount: Mount, pid: int, addr: int, size: int, part: int) -> bytes:
    with opened(mount, pid) as fd:
        return b"".join(os.pread(fd, min(part, size - at), addr + at)
                        for at in range(0, size, part))


def words(addr: int, size: int) -> bytes:
    """Of generation 1."""
    order = machines.current.byteorder
    return b"".join((a | 2 << 48).to_bytes(8, order) for a in range(addr, addr + size, 8))


# What is in it, if that can be said.
STILL = {"scattered": words, "huge": words, "none": words, "tlb": words, "shared": words,
         "private": None, "untouched": lambda addr, size: bytes(size)}


@pytest.mark.parametrize("kind", STILL)
def test_a_mapping_of_any_kind_is_read_as_the_guest_reads_it(guest: Guest, daemon: Path,
                                                             still: Said, kind: str) -> None:
    pid, addr, size = still["pid"], still[kind], still["size"]
    if not addr:
        pytest.skip("the guest has no huge pages")
    right = guest_reads(guest, pid, addr, size)
    assert len(right) == size
    assert STILL[kind] is None or right == STILL[kind](addr, size)
    with Mount(daemon, guest.hm_socket, "-o", REQUIRE) as mount:
        total = guest.run("grep MemTotal /proc/meminfo", check=True).out.split()[1]
        assert window_mib(mount) >= int(total) >> 10
        assert read(mount, pid, addr, size, MIB) == right
        assert read(mount, pid, addr, size, 200_001) == right
        assert read(mount, pid, addr + 3, size - 3, 16 * 1024) == right[3:]
        mount.check()


@pytest.mark.parametrize("ram", [REQUIRE, OFF])
def test_a_large_read_ends_at_a_hole(guest: Guest, daemon: Path, still: Said, ram: str) -> None:
    pid, start, end = still["pid"], still["holes"], still["holes"] + still["size"]
    begins = [start, start + 5, still["hole1"] - 20_000, still["hole1"] - MIB + 1, still["end1"],
              still["end1"] + 7, still["hole2"] - 16 * 1024, still["hole2"] - machines.current.page,
              still["hole2"] - 1, still["end2"], end - 100_000]
    with Mount(daemon, guest.hm_socket, "-o", ram) as mount, opened(mount, pid) as fd:
        for begin in begins:
            hole = min(h for h in (still["hole1"], still["hole2"], end) if h > begin)
            for size in 16 * 1024, 65_537, MIB:
                got = os.pread(fd, size, begin)
                at = begin & ~7
                right = words(at, size + 16)[begin - at:][:min(size, hole - begin)]
                assert got == right, (hex(begin), size, len(got), len(right))
        for hole in still["hole1"], still["hole2"], still["hole2"] + 5000, end:
            assert errno_of(lambda at=hole: os.pread(fd, MIB, at)) == "EIO"
        mount.check()


# Other machines.

def test_the_window_has_all_ram_that_the_kernel_uses(boot: Callable[..., Guest],
                                                     daemon: Path) -> None:
    """Which may be little of what the machine has: mipsel's Malta uses 256 MiB."""
    guest = boot(mem="2G")
    total = int(guest.run("grep MemTotal /proc/meminfo", check=True).out.split()[1]) >> 10
    with Mount(daemon, guest.hm_socket, "-o", REQUIRE) as mount:
        assert total <= window_mib(mount) <= 2048


@pytest.mark.needs("big")
def test_ram_below_and_above_4_gib_is_read(boot: Callable[..., Guest], daemon: Path) -> None:
    guest = boot(smp=2, mem="6G")
    # Most of what is above, which is taken first: it is not even cleared.
    guest.run("echo 1350 >/proc/sys/vm/nr_hugepages", check=True)
    pid = guest.spawn(["churn", "spread"], file="/bin/churn")
    said = lab.parse_victim(guest.wait_output(pid, rb"^[^\n]*\n", 120)[0])
    assert said["below"] > 500 and said["above"] > 500
    with Mount(daemon, guest.hm_socket, "-o", REQUIRE) as mount:
        assert 6 * 1024 - 8 <= window_mib(mount) <= 6 * 1024
        addr, size = said["region"], said["size"]
        assert read(mount, pid, addr, size, MIB) == words(addr, size)
        assert read(mount, pid, addr + 8, size - 8, 100_000) == words(addr + 8, size - 8)
        assert guest_reads(guest, pid, addr, size) == words(addr, size)
        mount.check()


@pytest.fixture
def over_tcp(guest: Guest) -> Iterator[str]:
    """What its chardev, which listens at a port meanwhile, is for hypermemfs."""
    def listen(type_: str, **data: str) -> None:
        guest.qmp("chardev-change", id="hm", backend={"type": "socket", "data": {
            "addr": {"type": type_, "data": data}, "server": True, "wait": False}})

    listen("inet", host="127.0.0.1", port="0")
    yield guest.hm_address
    listen("unix", path=str(guest.hm_socket))


def test_a_chardev_that_is_no_unix_socket_has_no_window(guest: Guest, over_tcp: str, daemon: Path,
                                                        tmp_path: Path,
                                                        reader: Callable[..., Reader],
                                                        seconds: float) -> None:
    chardev = over_tcp
    assert chardev.startswith("tcp:127.0.0.1:")
    done = subprocess.run([daemon, "-o", REQUIRE, chardev, tmp_path], capture_output=True,
                          timeout=20, text=True, check=False)
    assert done.returncode == 4 and done.stderr.count("\n") == 1
    assert "the chardev is no Unix socket" in done.stderr
    assert not os.path.ismount(tmp_path)
    with Mount(daemon, chardev, "-o", "ram=auto") as mount:
        assert re.match(r"inline \(the chardev is no Unix socket", said_of_ram(mount))
        said = churn_run(guest)
        reader(mount, said, seconds, 2).counts()
        check_alive(guest, said)


@pytest.mark.parametrize("ram", [REQUIRE, OFF])
def test_reads_fail_when_qemu_is_killed(boot: Callable[..., Guest], daemon: Path,
                                        reader: Callable[..., Reader], ram: str) -> None:
    guest = boot(smp=2)
    said = churn(guest, "brief")
    with Mount(daemon, guest.hm_socket, "-o", f"{ram},timeout=600") as mount:
        reading = reader(mount, said, 30, 4, "--until", "lost", "--min-reads", "5", "--min-words",
                         "100000")
        time.sleep(1)
        os.kill(guest.pid, signal.SIGKILL)
        counts = reading.counts()
        assert counts["exact"] == counts["reads"]
        with pytest.raises(OSError):
            os.listdir(mount.mnt / "pid" / str(said["pid"]) / "fd")
        mount.check(talks=True)
