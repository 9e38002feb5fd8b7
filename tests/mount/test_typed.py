# SPDX-License-Identifier: MIT
"""pid/N/int/ADDR and its like: what is in memory, as text."""
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from test_mem import opened
from world import Victim, World, errno_of, host

TYPES = ("int", "long", "ptr", "str", "uint")


@pytest.fixture
def order(world: World) -> str:
    """The guest's byte order; that a number is its own address tells whether it is true."""
    return re.search(r"^endian: (\w+)$", (world.mnt / "info").read_text(), re.M)[1]


def bits(world: World, pid: int) -> int:
    """Of a pointer, by the class of the program's ELF file."""
    return {1: 32, 2: 64}[world.run(["head", "-c", "5", f"/proc/{pid}/exe"]).out[4]]


def sizes(world: World, pid: int) -> dict[str, int]:
    return {"int": 4, "uint": 4, "long": 8, "ptr": bits(world, pid) // 8}


@pytest.fixture
def room(world: World) -> Victim:
    """A process with a region of 2 MiB, to write what one likes."""
    return world.program("mapper", "big", str(2 << 20))


def read(world: World, pid: int, kind: str, addr: int) -> str:
    return world.path(pid, f"{kind}/{addr:#x}").read_text()


def write(path: Path, *parts: bytes, flags: int = os.O_WRONLY) -> None:
    """Each part in a write(2) of its own."""
    fd = os.open(path, flags)
    try:
        for part in parts:
            assert os.write(fd, part) == len(part)
    finally:
        os.close(fd)


def put(world: World, pid: int, addr: int, data: bytes) -> None:
    with opened(world, pid, os.O_RDWR) as fd:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], addr + done)


def test_a_number_is_a_line(world: World, victim: Victim, order: str) -> None:
    addr = victim["region"] + 4096
    assert read(world, victim.pid, "int", victim["counter"]) == "12345\n"
    assert read(world, victim.pid, "uint", victim["counter"]) == "12345\n"
    assert read(world, victim.pid, "long", addr) == f"{addr}\n"
    pointer = 0xabcdef.to_bytes(sizes(world, victim.pid)["ptr"], order)
    put(world, victim.pid, addr, pointer)
    assert read(world, victim.pid, "ptr", addr) == "0xabcdef\n"


@pytest.mark.parametrize("kind, signed", [
    ("int", True), ("uint", False), ("long", True), ("ptr", False)])
def test_every_number_comes_back_as_it_is_in_memory(world: World, victim: Victim, order: str,
                                                    kind: str, signed: bool) -> None:
    size = sizes(world, victim.pid)[kind]
    half, whole = 1 << 8 * size - 1, 1 << 8 * size
    low, high = (-half, half - 1) if signed else (0, whole - 1)
    for addr in victim["region"], victim["region"] + 3, victim["region"] + 4096 - size // 2:
        path = world.path(victim.pid, f"{kind}/{addr:#x}")
        for number in low, low + 1, 0, 1, 0x1234567, high - 1, high:
            for text in f"{number}", f"{number}\n", f"{number:#x}", f"{number:#X}\n":
                path.write_text(text.replace("X", "x"))
                raw = world.mem(victim.pid, addr, size)
                assert int.from_bytes(raw, order, signed=signed) == number
                assert int(path.read_text(), 0) == number


def test_a_write_changes_these_bytes_alone(world: World, victim: Victim) -> None:
    addr = victim["region"] + 64
    before = world.mem(victim.pid, addr - 16, 40)
    for kind, size in sizes(world, victim.pid).items():
        world.path(victim.pid, f"{kind}/{addr}").write_text("0x11111111\n")
        after = world.mem(victim.pid, addr - 16, 40)
        assert after[:16] == before[:16] and after[16 + size:] == before[16 + size:], kind
        put(world, victim.pid, addr, before[16:24])


def test_a_running_process_sees_what_echo_has_written(world: World) -> None:
    victim = world.victim("count")
    pid = world.path(victim.pid)
    assert host(f"echo 1000000 > int/{victim['counter']:#x}", cwd=pid) == (0, b"", b"")
    world.wait_output(victim.pid, rb"\n10000\d\d: ")
    assert host(f"echo it was echo > str/{victim['message']:#x}", cwd=pid) == (0, b"", b"")
    world.wait_output(victim.pid, rb": it was echo\n")
    with open(pid / f"uint/{victim['counter']}", "rb", buffering=0) as file:
        first = int(file.read())
        world.wait_output(victim.pid, rb"\n%d: " % (first + 3))
        file.seek(0)
        assert int(file.read()) >= first + 3


def test_an_address_has_many_names(world: World, victim: Victim) -> None:
    addr = victim["counter"]
    for name in f"{addr}", f"{addr:#x}", f"0x{addr:X}", f"0X{addr:x}", f"0x{addr:016x}":
        assert world.path(victim.pid, f"int/{name}").read_text() == "12345\n", name


@pytest.mark.parametrize("name", [
    "x", "0x", "+1", "-1", "-0x1", " 1", "1 ", "01", "00", "1.0", "1e3", "0x1g", "0b1", "1000h",
    "abc", "18446744073709551616", "0x10000000000000000", "1\n", "\u0661", "4096,"])
def test_what_is_no_address_is_no_name(world: World, victim: Victim, name: str) -> None:
    for kind in TYPES:
        path = world.path(victim.pid, f"{kind}/{name}")
        assert errno_of(lambda: os.stat(path)) == "ENOENT"
        assert errno_of(lambda: path.read_text()) == "ENOENT"
        # Not "no permission": nobody has it.
        assert errno_of(lambda: path.write_text("1")) == "EINVAL"


def test_names_are_accepted_and_not_listed(world: World, victim: Victim) -> None:
    assert set(TYPES) <= set(os.listdir(world.path(victim.pid)))
    for kind in TYPES:
        assert os.listdir(world.path(victim.pid, kind)) == []
        st = os.stat(world.path(victim.pid, kind))
        assert (stat.S_ISDIR(st.st_mode), stat.S_IMODE(st.st_mode)) == (True, 0o500)
        # They exist whether anything is mapped there or not, as offsets of mem do.
        for addr in 0, victim["region"], (1 << 64) - 1:
            st = os.stat(world.path(victim.pid, f"{kind}/{addr}"))
            assert (stat.S_ISREG(st.st_mode), stat.S_IMODE(st.st_mode)) == (True, 0o600)
            assert st.st_size == 0
    assert errno_of(lambda: os.stat(world.path(victim.pid, "int/1/x"))) == "ENOTDIR"
    done = host(["find", world.path(victim.pid), "-name", "[0-9]*", "-path", "*int*"])
    assert done == (0, b"", b"")


@pytest.mark.parametrize("text", [
    b"x", b"\n", b"1\n\n", b" 1", b"1 ", b"1x", b"0x", b"0xg", b"--1", b"-", b"+1", b"01", b"1\0",
    b"1.5", b"1 2", b"\xff", b"1\r\n", b"0x-1", b"1,000", b"1" * 100000 + b"x"])
def test_what_is_no_number_is_not_written(world: World, victim: Victim, text: bytes) -> None:
    addr = victim["region"]
    before = world.mem(victim.pid, addr, 16)
    for kind in set(TYPES) - {"str"}:
        path = world.path(victim.pid, f"{kind}/{addr}")
        assert errno_of(lambda: write(path, text)) == "EINVAL", kind
    assert world.mem(victim.pid, addr, 16) == before


@pytest.mark.parametrize("kind, numbers", [
    ("int", [1 << 31, -(1 << 31) - 1, 0xffffffff, 1 << 63, 1 << 64, -(1 << 64), 10 ** 5000]),
    ("uint", [1 << 32, -1, 1 << 64, 10 ** 5000]),
    ("long", [1 << 63, -(1 << 63) - 1, 1 << 64, -(1 << 64), 10 ** 5000]),
    ("ptr", [1 << 64, -1, 10 ** 5000])])
def test_a_number_that_does_not_fit_is_not_written(world: World, victim: Victim, kind: str,
                                                   numbers: list[int]) -> None:
    addr = victim["region"]
    before = world.mem(victim.pid, addr, 16)
    path = world.path(victim.pid, f"{kind}/{addr}")
    for number in numbers:
        text = f"{number:#x}" if abs(number) > 1 << 100 else f"{number}"
        assert errno_of(lambda: write(path, text.encode())) == "ERANGE", text[:30]
    assert world.mem(victim.pid, addr, 16) == before


def test_where_not_all_of_it_is_mapped_there_is_nothing(world: World, victim: Victim) -> None:
    hole, page = victim["hole"], victim["page"]
    for kind, size in sizes(world, victim.pid).items():
        addrs = [0, hole, hole + page - 1, hole - 1, hole - size + 1, (1 << 63) - 2, (1 << 64) - 1]
        for addr in addrs:
            path = world.path(victim.pid, f"{kind}/{addr:#x}")
            assert errno_of(lambda: path.read_text()) == "EIO", path
            assert errno_of(lambda: write(path, b"1")) == "EIO", path
        assert read(world, victim.pid, kind, hole - size)


def test_a_string_is_the_bytes_before_its_nul(world: World, victim: Victim) -> None:
    assert read(world, victim.pid, "str", victim["text"]) == "hypermemfs was here\n"
    assert read(world, victim.pid, "str", victim["text"] + 6) == "emfs was here\n"
    assert read(world, victim.pid, "str", victim["text"] + 19) == "\n"
    odd = bytes(range(1, 256)) + b"\n\n"
    put(world, victim.pid, victim["region"], odd + b"\0")
    assert world.path(victim.pid, f"str/{victim['region']}").read_bytes() == odd + b"\n"
    assert host(["cat", world.path(victim.pid, f"str/{victim['text']:#x}")]).out == \
        b"hypermemfs was here\n"


def test_a_string_may_be_long_but_not_endless(world: World, room: Victim) -> None:
    start, most = room["region"] + 5, 1 << 20
    text = os.urandom(most).replace(b"\0", b"\1")
    path = world.path(room.pid, f"str/{start}")
    for size in 4071, 4072, 4073, 4096, 100_000, most - 1, most:
        put(world, room.pid, start, text[:size] + b"\0")
        assert path.read_bytes() == text[:size] + b"\n", size
    put(world, room.pid, start + most, b"x\0")
    assert errno_of(lambda: path.read_bytes()) == "EFBIG"


def test_a_string_without_an_end_has_no_bytes_either(world: World, victim: Victim) -> None:
    assert errno_of(lambda: read(world, victim.pid, "str", victim["noend"])) == "EIO"
    assert errno_of(lambda: read(world, victim.pid, "str", victim["hole"])) == "EIO"
    assert errno_of(lambda: read(world, victim.pid, "str", (1 << 64) - 1)) == "EIO"
    put(world, victim.pid, victim["hole"] - 8192, b"x" * 8192)
    assert errno_of(lambda: read(world, victim.pid, "str", victim["hole"] - 8192)) == "EIO"
    put(world, victim.pid, victim["hole"] - 1, b"\0")
    assert read(world, victim.pid, "str", victim["hole"] - 8192) == "x" * 8191 + "\n"


@pytest.mark.parametrize("command, written", [
    ("echo hello", b"hello\0"), ("echo -n hello", b"hello\0"), ("echo", b"\0"),
    # bash's own printf writes line by line.
    (r"env printf '%s\n\n' hello", b"hello\n\0"), (r"env printf '\n\n'", b"\n\0"),
    (r"printf 'a\0b'", b"a\0b\0"),
    (r"printf 'caf\303\251'", b"caf\xc3\xa9\0"), (":", b"")])
def test_a_string_is_written_with_a_nul_for_its_newline(world: World, victim: Victim, command: str,
                                                        written: bytes) -> None:
    addr = victim["region"]
    before = world.mem(victim.pid, addr, 64)
    done = host(f"{command} > str/{addr:#x}", cwd=world.path(victim.pid))
    assert done == (0, b"", b"")
    assert world.mem(victim.pid, addr, 64) == written + before[len(written):]


def test_a_string_is_written_as_a_whole_or_refused(world: World, room: Victim) -> None:
    addr, most = room["region"] + 1, 64 << 10
    path = world.path(room.pid, f"str/{addr:#x}")
    for text in b"x" * most, b"y" * most + b"\n":
        write(path, text)
        assert world.mem(room.pid, addr, most + 1) == text[:most] + b"\0"
    before = world.mem(room.pid, addr, most + 2)
    for size in most + 1, 100_000, 1 << 20, (1 << 20) + 5, 3 << 20:
        assert errno_of(lambda: write(path, b"z" * size)) == "EFBIG", size
    assert world.mem(room.pid, addr, most + 2) == before


def test_a_string_that_meets_the_end_of_memory_says_so(world: World, victim: Victim) -> None:
    path = world.path(victim.pid, f"str/{victim['noend']:#x}")
    assert errno_of(lambda: write(path, b"12345")) == "EIO"
    assert errno_of(lambda: write(world.path(victim.pid, f"str/{victim['hole']}"), b"")) == "OK"
    assert errno_of(lambda: write(world.path(victim.pid, f"str/{victim['hole']}"), b"x")) == "EIO"
    write(path, b"1234")
    assert world.mem(victim.pid, victim["noend"], 5) == b"1234\0"


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_written_comes_in_one_piece(world: World, victim: Victim, kind: str) -> None:
    addr = victim["region"]
    path = world.path(victim.pid, f"{kind}/{addr}")
    assert errno_of(lambda: write(path, b"1", b"2")) == "EINVAL"
    before = world.mem(victim.pid, addr, 16)
    assert int(path.read_text(), 0) == 1
    fd = os.open(path, os.O_RDWR)
    try:
        for offset in 1, 4096, 1 << 40:
            assert errno_of(lambda: os.pwrite(fd, b"2", offset)) == "EINVAL"
        assert world.mem(victim.pid, addr, 16) == before
        assert os.pwrite(fd, b"3", 0) == 1
        assert os.pread(fd, 100, 0).strip() in (b"3", b"0x3")
    finally:
        os.close(fd)
    # Not once so and once so, by what else has been written.
    for _ in range(2):
        assert errno_of(lambda: write(path, b"4", flags=os.O_WRONLY | os.O_APPEND)) == "EINVAL"
        write(path, b"3", flags=os.O_WRONLY | os.O_TRUNC | os.O_CREAT)


@pytest.mark.parametrize("how", ["dd bs=1 if={}", "head -c 100 {}", "cat < {}", "tail -c +1 {}"])
def test_tools_read_them_as_files(world: World, victim: Victim, how: str) -> None:
    path = world.path(victim.pid, f"str/{victim['text']:#x}")
    assert host(how.format(path)).out == b"hypermemfs was here\n"
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 4, 11) == b"was "
        assert os.pread(file.fileno(), 4, 100) == b""


def test_a_process_without_memory_has_no_values(world: World) -> None:
    for pid in world.kthread(), world.victim("zombie")["zpid"]:
        for kind in TYPES:
            path = world.path(pid, f"{kind}/0x1000")
            assert errno_of(lambda: path.read_text()) == "EIO"
            assert errno_of(lambda: write(path, b"1")) == "EIO"


def test_values_of_a_dead_process_are_gone(world: World, victim: Victim) -> None:
    fds = [os.open(world.path(victim.pid, f"{kind}/{victim['region']}"), os.O_RDWR)
           for kind in TYPES] + [os.open(world.path(victim.pid, "bits"), os.O_RDONLY)]
    try:
        world.kill(victim.pid)
        for fd in fds:
            assert errno_of(lambda: os.pread(fd, 100, 0)) == "ESRCH"
        for fd in fds[:-1]:
            assert errno_of(lambda: os.pwrite(fd, b"1", 0)) == "ESRCH"
    finally:
        for fd in fds:
            os.close(fd)


def test_a_read_only_mount_writes_no_values(world: World, victim: Victim) -> None:
    with world.mount("-o", "ro") as mount:
        process = mount.mnt / "pid" / str(victim.pid)
        for kind in TYPES:
            path = process / kind / f"{victim['region']:#x}"
            assert errno_of(lambda: write(path, b"1")) == "EROFS"
            assert errno_of(lambda: write(path, b"1", flags=os.O_RDWR)) == "EROFS"
        assert (process / f"str/{victim['text']}").read_text() == "hypermemfs was here\n"


def test_values_are_their_owners_as_mem_is(world: World, victim: Victim) -> None:
    with world.mount("-o", "allow_other") as mount:
        process = mount.mnt / "pid" / str(victim.pid)
        for command in (f"cat int/{victim['counter']}", f"echo 1 > int/{victim['counter']}",
                        "ls int"):
            done = host(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c",
                         command], cwd=process)
            assert done.rc != 0 and b"ermission denied" in done.err, command


def test_bits_are_those_of_the_program(world: World, victim: Victim) -> None:
    kernel = re.search(r"^bits: (\d+)$", (world.mnt / "info").read_text(), re.M)[1]
    assert world.path(victim.pid, "bits").read_text() == f"{bits(world, victim.pid)}\n"
    assert world.path(world.kthread(), "bits").read_text() == f"{kernel}\n"


def test_a_32_bit_process_has_pointers_of_4_bytes(world: World, mapper32: Path,
                                                  order: str) -> None:
    small = world.program(mapper32.name, "big", "65536")
    assert world.path(small.pid, "bits").read_text() == "32\n"
    assert bits(world, small.pid) == 32
    addr = small["region"] + 64
    put(world, small.pid, addr, bytes(range(0x81, 0x91)))
    number = int.from_bytes(bytes(range(0x81, 0x85)), order)
    assert read(world, small.pid, "ptr", addr) == f"{number:#x}\n"
    path = world.path(small.pid, f"ptr/{addr:#x}")
    path.write_text("0x12345678")
    assert world.mem(small.pid, addr, 8) == \
        (0x12345678).to_bytes(4, order) + bytes(range(0x85, 0x89))
    assert errno_of(lambda: write(path, b"0x100000000")) == "ERANGE"
    assert read(world, small.pid, "long", small["region"] + 512) == f"{small['region'] + 512}\n"
    end = small["region"] + small["size"]
    assert read(world, small.pid, "ptr", end - 4)


def test_an_exec_changes_how_wide_a_pointer_is(world: World, mapper32: Path) -> None:
    go = world.scratch / "go"
    wait = f"until [ -e {go} ]; do sleep 0.1; done"
    pid = world.spawn(["sh", "-c", f"{wait}; exec {mapper32} big 4096"], file="/bin/sh")
    path = world.path(pid, "bits")
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(fd, 10, 0) == b"64\n"
        os.listdir(world.mnt / "pid")  # attributes, which may be a second old, are of 64 bits
        world.run(["touch", go])
        line = world.wait_output(pid, rb"region=(0x[0-9a-f]+)")
        region = int(line[1], 16)
        put(world, pid, region, b"\x22" * 8)
        world.path(pid, f"ptr/{region}").write_text("0x11111111")
        assert world.mem(pid, region, 8) == b"\x11" * 4 + b"\x22" * 4
        assert read(world, pid, "ptr", region) == "0x11111111\n"
        assert os.pread(fd, 10, 0) == path.read_bytes() == b"32\n"
    finally:
        os.close(fd)


# How often the guest is asked.

Asked = Callable[[Callable[[Path], object]], list[str]]


@pytest.fixture
def asked(world: World) -> Iterator[Asked]:
    """Does something in a mount that knows the processes, and says what the guest is asked then."""
    with world.mount("-d") as mount:
        def ask(work: Callable[[Path], object]) -> list[str]:
            for _ in range(20):
                began = time.monotonic()
                os.listdir(mount.mnt / "pid")
                before = len(mount.stderr())
                work(mount.mnt / "pid")
                said = mount.stderr()[before:].decode()
                if time.monotonic() - began < 0.9:  # they are known for a second
                    return re.findall(r"> (\w+) tag", said)
            pytest.skip("this machine is too slow to tell")

        yield ask


def test_a_value_costs_one_question(world: World, victim: Victim, asked: Asked) -> None:
    flags = os.O_WRONLY | os.O_TRUNC | os.O_CREAT
    for kind in TYPES:
        name = f"{victim.pid}/{kind}/{victim['text']:#x}"
        suffix = {"str": "_STR", "ptr": "_PTR"}.get(kind, "")
        ask, put = ["READ" + suffix], ["WRITE" + suffix.replace("_STR", "")]
        assert asked(lambda pid: os.stat(pid / name)) == []
        assert asked(lambda pid: os.listdir((pid / name).parent)) == []
        assert asked(lambda pid: write(pid / name, flags=flags)) == []
        assert asked(lambda pid: (pid / name).read_text()) == ask  # and none for the end
        assert asked(lambda pid: host(["dd", f"if={pid / name}", "bs=1"])) == ask
        assert asked(lambda pid: write(pid / name, b"77\n", flags=flags)) == put
        assert asked(lambda pid: errno_of(lambda: write(pid / name, b"1", b"2"))) == put
        if kind != "str":
            assert asked(lambda pid: errno_of(lambda: write(pid / name, b"no number"))) == []


def test_a_long_string_costs_another(world: World, room: Victim, asked: Asked) -> None:
    asked(lambda pid: write(pid / f"{room.pid}/str/{room['region']}", b"x" * 5000))
    for skipped, questions in (0, 2), (5000 - 4071, 1):
        name = f"{room.pid}/str/{room['region'] + skipped}"
        assert asked(lambda pid: (pid / name).read_bytes()) == ["READ_STR"] * questions
