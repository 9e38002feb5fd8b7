# SPDX-License-Identifier: MIT
"""fs/python/hypermem: a guest's processes as Python objects, by way of the mount alone."""
from __future__ import annotations

import errno
import gc
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from world import Victim, World, errno_of, host, pattern, wait_for

PACKAGE = Path(__file__).resolve().parent.parent.parent / "fs/python"
sys.path.insert(0, str(PACKAGE))
import hypermem  # noqa: E402


@pytest.fixture
def guest(world: World) -> hypermem.Guest:
    return hypermem.Guest(world.mnt)


@pytest.fixture
def process(guest: hypermem.Guest, victim: Victim) -> Iterator[hypermem.Process]:
    with guest.process(victim.pid) as process:
        yield process


@pytest.fixture(autouse=True)
def forget_errors() -> Iterator[None]:
    """Where an error was raised is kept with it, and so is a process, with what it has open."""
    yield
    gc.collect()


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def test_a_guest_is_known_by_its_info(world: World, guest: hypermem.Guest, tmp_path: Path) -> None:
    assert guest.info["release"] == world.run("uname -r").out.decode().strip()
    assert guest.info["link"] == "up"
    with pytest.raises(FileNotFoundError, match="no guest is mounted there") as missing:
        hypermem.Guest(tmp_path)
    assert missing.value.filename == str(tmp_path)
    with pytest.raises(NotADirectoryError, match="no guest is mounted there"):
        hypermem.Guest("/dev/null")
    (tmp_path / "info").write_text("something: else\n")
    with pytest.raises(ValueError):
        hypermem.Guest(str(tmp_path))


def test_processes_are_those_of_the_guest(world: World, guest: hypermem.Guest) -> None:
    victim = world.victim("argv")
    there = set(world.pids())
    seen = {process.pid: process for process in guest.processes()}
    assert there & set(world.pids()) <= set(seen)
    assert list(seen) == sorted(seen)
    assert seen[victim.pid] == guest.process(victim.pid)
    assert hash(seen[victim.pid]) == hash(guest.process(victim.pid))
    assert seen[victim.pid] != seen[1]


@pytest.mark.parametrize("args", [
    [], [""], ["", "", ""], ["a b", "c"], ["tab\tnewline\n", "-x"], [b"\xff\xfe", b"caf\xc3\xa9"],
    ["x" * 5000]])
def test_arguments_keep_their_boundaries(world: World, guest: hypermem.Guest,
                                         args: list[str | bytes]) -> None:
    process = guest.process(world.victim("argv", *args).pid)
    wanted = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    assert [raw(arg) for arg in process.args] == [b"victim", b"argv", *wanted]
    assert b"".join(raw(arg) + b"\0" for arg in process.args) == world.proc(process.pid, "cmdline")


def test_the_environment_is_a_dictionary(world: World, guest: hypermem.Guest) -> None:
    env = {b"A": b"1", b"EMPTY": b"", b"EQUALS": b"a=b=", b"BYTES": b"\xff\n", b"\xe9": b"x"}
    process = guest.process(world.victim("argv", env=env).pid)
    assert {raw(k): raw(v) for k, v in process.env.items()} == env
    assert guest.process(world.victim("argv", env={}).pid).env == {}


def test_texts_and_links_are_those_of_proc(world: World, guest: hypermem.Guest) -> None:
    process = guest.process(world.victim("comm", "a) b\n(c").pid)
    assert raw(process.comm) + b"\n" == world.proc(process.pid, "comm")
    pid = world.spawn([world.tool("victim"), "argv"], cwd="/proc")
    process = guest.process(pid)
    for name in "exe", "cwd", "root":
        assert raw(getattr(process, name)) == world.proc_link(pid, name)
    kthread = guest.process(world.kthread())
    assert kthread.args == [] and kthread.env == {} and kthread.maps == [] and kthread.fds == {}
    with pytest.raises(FileNotFoundError) as info:
        kthread.exe
    assert info.value.filename.endswith("/exe")
    assert guest.process(world.victim("zombie")["zpid"]).is_alive()


def test_open_files_have_their_paths(world: World, guest: hypermem.Guest) -> None:
    victim = world.victim("fds", world.scratch)
    fds = guest.process(victim.pid).fds
    assert list(fds) == sorted(fds)
    assert fds[victim["null"]] == "/dev/null"
    for key in "file", "gone", "odd", "pipe", "pipew", "socket":
        assert raw(fds[victim[key]]) == world.proc_link(victim.pid, f"fd/{victim[key]}")


def test_mappings_are_those_of_proc(world: World, victim: Victim,
                                    process: hypermem.Process) -> None:
    maps = process.maps
    lines = world.proc(victim.pid, "maps").splitlines()
    assert len(maps) == len(lines)
    for line, m in zip(lines, maps):
        words = line.split(None, 5)
        assert b"%08x-%08x" % (m.start, m.end) == words[0]
        assert f"{m.perms} {m.offset:08x} {m.dev} {m.inode}".encode() == b" ".join(words[1:5])
        assert raw(m.path) == (words[5] if len(words) > 5 else b"")
    region = next(m for m in maps if m.start == victim["region"])
    assert (region.end, region.perms, region.path, region.inode) == (victim["hole"], "rw-p", "", 0)
    file = next(m for m in maps if m.start == victim["file"])
    assert raw(file.path) == os.fsencode(victim["path"]) and file.inode


def test_a_path_in_maps_may_have_blanks(world: World, guest: hypermem.Guest) -> None:
    path = f"{world.scratch}/a  b c"
    assert world.run(["cp", world.tool("victim"), path]).rc == 0
    assert guest.process(world.victim("argv", file=path).pid).maps[0].path == path


def test_memory_is_read_exactly_or_not_at_all(victim: Victim, process: hypermem.Process) -> None:
    region, hole = victim["region"], victim["hole"]
    for addr, size in (region, 8), (region + 3, 17), (region, 3 * 4096), (hole - 1, 1), (region, 0):
        assert process.read_bytes(addr, size) == pattern(addr, size)
    with pytest.raises(hypermem.ShortRead) as short:
        process.read_bytes(hole - 100, 200)
    assert short.value.data == pattern(hole - 100, 100)
    assert (short.value.errno, short.value.filename) == (errno.EIO, process._mem)
    assert f" at {hole:#x}: " in str(short.value)
    for addr in 0, hole, hole + 5:
        with pytest.raises(OSError) as unmapped:
            process.read_bytes(addr, 1)
        assert type(unmapped.value) is OSError
        assert (unmapped.value.errno, unmapped.value.filename) == (errno.EIO, process._mem)
        assert f" at {addr:#x}: " in str(unmapped.value)
        with pytest.raises(OSError, match=f" at {addr:#x}: "):
            process.write_bytes(addr, b"x")
    for addr, size in (-1, 1), (1 << 64, 1), (0, -1):
        with pytest.raises(ValueError):
            process.read_bytes(addr, size)
    assert errno_of(lambda: process.read_bytes((1 << 64) - 8, 8)) == "EOVERFLOW"


def test_large_memory_is_read_in_one_go(world: World, guest: hypermem.Guest) -> None:
    size = 9 << 20
    mapper = world.program("mapper", "big", str(size))
    process = guest.process(mapper.pid)
    assert process.read_bytes(mapper["region"], size) == pattern(mapper["region"], size)
    data = os.urandom(size - 7)
    process.write_bytes(mapper["region"] + 3, data)
    assert process.read_bytes(mapper["region"] + 3, size - 7) == data
    assert world.mem(mapper.pid, mapper["region"] + 3, 4096) == data[:4096]


def test_a_process_without_memory_gives_no_bytes(world: World, guest: hypermem.Guest) -> None:
    for pid in world.kthread(), world.victim("zombie")["zpid"]:
        process = guest.process(pid)
        assert process.read_bytes(4096, 0) == b""
        for read in process.read_bytes, lambda addr, n: process.read_str(addr):
            assert errno_of(lambda: read(4096, 8)) == "EIO"
        assert errno_of(lambda: process.write_bytes(4096, b"x")) == "EIO"


def test_numbers_are_in_the_guests_byte_order(world: World, victim: Victim,
                                              process: hypermem.Process) -> None:
    addr, order = victim["region"] + 16, process._order
    assert process.read_long(addr) == addr
    assert process.read_int(victim["counter"]) == process.read_uint(victim["counter"]) == 12345
    word = process.bits // 8
    for kind, size, numbers in (("int", 4, [-1 << 31, -1, 0, (1 << 31) - 1]),
                                ("uint", 4, [0, 0x80000000, (1 << 32) - 1]),
                                ("long", 8, [-1 << 63, -1, 0, (1 << 63) - 1]),
                                ("ptr", word, [0, 0x12345678, (1 << 8 * word) - 1])):
        read, write = getattr(process, f"read_{kind}"), getattr(process, f"write_{kind}")
        for number in numbers:
            write(addr + 1, number)
            assert read(addr + 1) == number
            assert int.from_bytes(world.mem(victim.pid, addr + 1, size), order,
                                  signed=number < 0) == number
        for number in min(numbers) - 1, max(numbers) + 1:
            with pytest.raises(OverflowError, match=f"^{number} does not fit into {8 * size} bits"):
                write(addr + 1, number)
        with pytest.raises(hypermem.ShortRead):
            read(victim["hole"] - 1)
        with pytest.raises(hypermem.ShortWrite) as short:
            write(victim["hole"] - 1, numbers[-1])
        assert short.value.written == 1 and short.value.errno == errno.EIO


def test_strings_are_read_and_written(world: World, victim: Victim,
                                      process: hypermem.Process) -> None:
    assert process.read_str(victim["text"]) == "hypermemfs was here"
    assert process.read_str(victim["text"] + 19) == ""
    addr = victim["region"] + 5
    for text in "", "caf\u00e9", "\udcff\udcfe", "x" * 255, "x" * 256, "x" * 4352, "y" * 8000:
        process.write_str(addr, text)
        assert process.read_str(addr) == text
        assert world.mem(victim.pid, addr, len(raw(text)) + 1) == raw(text) + b"\0"
    process.write_str(addr, b"a\xff\n")
    assert process.read_str(addr) == "a\udcff\n"
    assert errno_of(lambda: process.read_str(victim["noend"])) == "EIO"
    assert errno_of(lambda: process.read_str(victim["hole"])) == "EIO"
    with pytest.raises(hypermem.ShortWrite) as short:
        process.write_str(victim["noend"], "12345")
    assert short.value.written == 5


def test_a_string_has_a_limit(world: World, guest: hypermem.Guest) -> None:
    mapper = world.program("mapper", "big", str(2 << 20))
    process = guest.process(mapper.pid)
    process.write_str(mapper["region"], "x" * (1 << 20))
    assert len(process.read_str(mapper["region"])) == 1 << 20
    process.write_str(mapper["region"], "x" * ((1 << 20) + 1))
    assert errno_of(lambda: process.read_str(mapper["region"])) == "EFBIG"


def test_pointers_are_as_wide_as_the_process_has_them(world: World, guest: hypermem.Guest,
                                                      mapper32: Path) -> None:
    small = world.program(mapper32.name, "big", "4096")
    process = guest.process(small.pid)
    assert process.bits == 32
    process.write_bytes(small["region"], b"\xff" * 16)
    process.write_ptr(small["region"] + 4, 0x12345678)
    assert process.read_ptr(small["region"] + 4) == 0x12345678
    assert process.read_bytes(small["region"], 4) == process.read_bytes(small["region"] + 8, 4)
    with pytest.raises(OverflowError):
        process.write_ptr(small["region"], 1 << 32)


def test_a_pointer_is_written_as_wide_as_it_is_by_then(world: World, guest: hypermem.Guest,
                                                       mapper32: Path) -> None:
    go = world.scratch / "go-ptr"
    pid = world.spawn(["sh", "-c", f"until [ -e {go} ]; do sleep 0.1; done; "
                                   f"exec {mapper32} big 4096"], file="/bin/sh")
    process = guest.process(pid)
    heap = next(m for m in process.maps if m.perms.startswith("rw"))
    process.read_ptr(heap.start)  # 64 bits, which it knows for a second
    world.run(["touch", go])
    region = int(world.wait_output(pid, rb"region=(0x[0-9a-f]+)")[1], 16)
    process.write_bytes(region, b"\x22" * 8)
    process.write_ptr(region, 0x11111111)
    assert process.read_bytes(region, 8) == b"\x11" * 4 + b"\x22" * 4


def test_a_search_finds_every_place_once(world: World, guest: hypermem.Guest) -> None:
    mapper = world.program("mapper", "big", str(3 << 20))
    process = guest.process(mapper.pid)
    start, needle, mib = mapper["region"], os.urandom(20), 1 << 20
    at = [start, start + 1000, start + mib - 10, start + 2 * mib - 20, start + 3 * mib - 20]
    for addr in at:
        process.write_bytes(addr, needle)
    found = [addr for addr in process.search(needle) if start <= addr < start + (3 << 20)]
    assert found == at
    process.write_bytes(start, b"aaaa")
    assert list(process.search(b"aaaa" + needle[4:])) == [start]
    assert list(process.search(os.urandom(20))) == []
    with pytest.raises(ValueError):
        next(process.search(""))


def test_a_search_goes_from_mapping_to_mapping_and_past_the_end_of_files(
        world: World, guest: hypermem.Guest) -> None:
    mapper = world.program("mapper", "maps", "4")
    process, page = guest.process(mapper.pid), int(guest.info["page_size"])
    needle = os.urandom(40)
    process.write_bytes(mapper["region"] + page - 20, needle)  # its halves have other protections
    assert list(process.search(needle)) == [mapper["region"] + page - 20]
    victim = world.victim("mem", world.scratch)
    assert victim["text"] in list(guest.process(victim.pid).search("hypermemfs was here"))


def test_who_has_gone_is_not_there(world: World, guest: hypermem.Guest, victim: Victim) -> None:
    process, unused = guest.process(victim.pid), guest.process(victim.pid)
    assert process.read_bytes(victim["region"], 8) and process.is_alive()
    world.kill(victim.pid)
    for call in (lambda: process.read_bytes(victim["region"], 8), lambda: process.args,
                 lambda: process.env, lambda: process.maps, lambda: process.exe,
                 lambda: process.fds, lambda: process.write_int(victim["region"], 1),
                 lambda: process.comm, lambda: unused.read_int(victim["region"]),
                 lambda: unused.write_str(victim["region"], "x"), process.check,
                 lambda: guest.process(victim.pid), lambda: unused.read_ptr(victim["region"])):
        with pytest.raises(ProcessLookupError) as gone:
            call()
        assert gone.value.errno == errno.ESRCH
        assert os.fsdecode(gone.value.filename).startswith(str(world.path(victim.pid)))
    assert not process.is_alive()
    assert victim.pid not in [p.pid for p in guest.processes()]
    for pid in 0, -1, 1 << 30:
        with pytest.raises(ProcessLookupError):
            guest.process(pid)


def reuse(world: World, pid: int) -> Victim:
    """Another process that has the pid."""
    for _ in range(100):
        world.run(f"echo {pid - 1} > /proc/sys/kernel/ns_last_pid")
        victim = world.victim("mem", world.scratch)
        if victim.pid == pid:
            return victim
        world.kill(victim.pid)
    pytest.skip("others take the pids that this test wants")


def test_a_reused_pid_is_not_mistaken(world: World, guest: hypermem.Guest, victim: Victim) -> None:
    used, unused = guest.process(victim.pid), guest.process(victim.pid)
    used.read_int(victim["region"])
    time.sleep(0.03)  # a process is known by its start, which /proc tells in 1/100 s
    world.kill(victim.pid)
    other = reuse(world, victim.pid)
    before = world.mem(other.pid, other["region"], 4096)
    for process in used, unused:
        for call in (lambda: process.read_bytes(other["region"], 8), lambda: process.args,
                     lambda: process.comm, lambda: process.maps, lambda: process.cwd,
                     lambda: process.fds, lambda: process.bits, process.check,
                     lambda: process.read_ptr(other["region"]),
                     lambda: process.write_ptr(other["region"], 1),
                     lambda: process.write_long(other["region"], 1)):
            with pytest.raises(ProcessLookupError):
                call()
        assert not process.is_alive()
    assert world.mem(other.pid, other["region"], 4096) == before
    # For a second the mount may take the name for the process that it was.
    wait_for(lambda: errno_of(lambda: guest.process(other.pid)) == "OK", 5)
    again = guest.process(other.pid)
    assert again != used and again.read_long(other["region"]) == other["region"]


@pytest.mark.vm("this host is not rebooted for a test")
@pytest.mark.daemon_talks
@pytest.mark.limit(180)
@pytest.mark.needs("reset")
def test_processes_of_before_a_reboot_are_stale(world: World, guest: hypermem.Guest) -> None:
    init, unused = guest.process(1), guest.process(1)
    addr = init.maps[0].start
    init.read_int(addr)
    world.reboot()
    wait_for(lambda: errno_of(world.path(1, "comm").stat) == "OK", 30)
    for call in (lambda: init.read_int(addr), lambda: init.args, lambda: unused.read_int(addr),
                 lambda: unused.comm, init.check):
        assert errno_of(call) == "ESTALE"
    assert not init.is_alive() and guest.process(1) != init and guest.process(1).is_alive()


def test_a_read_only_mount_can_be_read(world: World, victim: Victim) -> None:
    with world.mount("-o", "ro") as mount:
        with hypermem.Guest(mount.mnt).process(victim.pid) as process:
            assert process.read_str(victim["text"]) == "hypermemfs was here"
            assert errno_of(lambda: process.write_int(victim["region"], 1)) == "EROFS"


def test_files_are_closed_with_their_process(world: World, guest: hypermem.Guest,
                                             victim: Victim) -> None:
    def ours() -> int:
        links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
        return sum(os.readlink(link).startswith(str(world.mnt)) for link in links
                   if os.path.lexists(link))

    assert ours() == 0
    processes = list(guest.processes())  # however many there are: each is a number only
    assert ours() == 0
    with guest.process(victim.pid) as process:
        process.write_long(victim["region"], process.read_long(victim["region"]))
        assert ours() == 2
    assert ours() == 0
    process.read_int(victim["region"])
    assert ours() == 1
    del process, processes
    assert ours() == 0


def test_memory_costs_one_question(world: World, victim: Victim) -> None:
    with world.mount("-d") as mount, hypermem.Guest(mount.mnt).process(victim.pid) as process:
        def asked(work: object) -> list[str]:
            before = len(mount.stderr())
            work()
            return re.findall(r"> (\w+) tag", mount.stderr()[before:].decode())

        region, text = victim["region"], victim["text"]
        process.write_ptr(region, process.read_ptr(region))  # opens what it needs
        assert asked(lambda: process.read_int(region)) == ["READ"]
        assert asked(lambda: process.read_long(region)) == ["READ"]
        assert asked(lambda: process.read_bytes(region, 4096)) == ["READ"]
        assert asked(lambda: process.read_str(text)) == ["READ"]
        assert asked(lambda: process.write_uint(region, 1)) == ["WRITE"]
        assert asked(lambda: process.write_str(region, "abc")) == ["WRITE"]
        # How wide a pointer is is known for a second.
        process.read_ptr(region)
        began = time.monotonic()
        several = asked(lambda: [process.read_ptr(region) for _ in range(20)])
        assert several.count("READ") == 20
        assert len(several) - 20 <= 4 * (1 + time.monotonic() - began)


def test_threads_share_a_process(victim: Victim, process: hypermem.Process) -> None:
    wrong: list[int] = []

    def work(first: int) -> None:
        for addr in range(victim["region"] + 8 * first, victim["hole"] - 8, 64):
            if process.read_long(addr) != addr:
                wrong.append(addr)

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and len(process._fds) == 1


def test_it_prints_a_list_of_processes(world: World) -> None:
    victim = world.victim("argv", "with \x1b[31m and \u00e9", "")
    kthread = world.kthread()
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    argv = [sys.executable, "-m", "hypermem"]
    done = host([*argv, world.mnt], env=env, timeout=50)  # this host may have thousands
    assert done.rc == 0 and done.err == b""
    lines = done.out.decode().splitlines()
    assert f"{victim.pid:>7} victim argv with \\x1b[31m and \\xe9 " in lines
    comm = world.proc(kthread, "comm").decode().strip()
    assert f"{kthread:>7} [{comm}]" in lines
    assert host([*argv, "/nowhere"], env=env) == (
        1, b"", b"hypermem: /nowhere: no guest is mounted there; mount one with hypermemfs\n")
    for options in [], [world.mnt, "x"]:
        done = host([*argv, *options], env=env)
        assert done.rc == 2 and done.out == b"" and done.err.count(b"\n") == 1
    assert host(f"{sys.executable} -m hypermem {world.mnt} | head -n 1", env=env).err == b""


@pytest.mark.fake("the package is the same with any guest")
def test_types_are_those_that_it_says(tmp_path: Path) -> None:
    if not shutil.which("mypy"):
        pytest.skip("it needs mypy")
    (tmp_path / "user.py").write_text(textwrap.dedent("""
        import hypermem

        guest = hypermem.Guest("/mnt")
        process: hypermem.Process = guest.process(1)
        text: str = process.read_str(0x1000)
        paths: dict[int, str] = process.fds

        @guest.hook("openat", comm="cat", arg1=["/etc/passwd", "/etc/group"], uid=range(10))
        def on_open(event: hypermem.Event) -> None:
            event.args[2] = event.args[2] | 1
            event.skip(-13)

        hook: hypermem.Hook = on_open
        with guest.events("* return", trace=True, retval=-2) as events:
            numbers: list[int | None] = [event.retval for event in events]
    """))
    done = host(["mypy", "--strict", "--cache-dir", tmp_path / "cache", PACKAGE / "hypermem",
                 tmp_path / "user.py"], timeout=120,
                env={**os.environ, "MYPYPATH": str(PACKAGE)})
    assert done.rc == 0, done.out.decode()


@pytest.mark.fake("the package is the same with any guest")
def test_pip_installs_it(tmp_path: Path) -> None:
    for name in "pip", "setuptools", "wheel":
        if not importlib.util.find_spec(name):
            pytest.skip(f"it needs python3-{name}")
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", PACKAGE, source], check=True)
    done = host([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
                 "--no-build-isolation", "--target", tmp_path / "target", source], timeout=60)
    assert done.rc == 0, done.err.decode()
    there = {path.name for path in (tmp_path / "target/hypermem").iterdir()}
    assert {path.name for path in (PACKAGE / "hypermem").iterdir()} - {"__pycache__"} <= there
    for name in "bin/hypermem-run", "share/man/man1/hypermem-run.1":
        assert (tmp_path / "target" / name).exists()
