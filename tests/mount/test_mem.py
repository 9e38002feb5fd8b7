# SPDX-License-Identifier: MIT
"""pid/N/mem: reading memory at its addresses."""
import contextlib
import os
import re
import struct

import machines
from world import Victim, World, errno_of, host, opened as file_opened, pattern


def opened(world: World, pid: int,
           flags: int = os.O_RDONLY) -> contextlib.AbstractContextManager[int]:
    return file_opened(world.path(pid, "mem"), flags)


def test_bytes_are_those_at_their_address(world: World, victim: Victim) -> None:
    page = victim["page"]
    with opened(world, victim.pid) as fd:
        for offset, size in (0, 8), (1, 1), (3, 17), (page - 1, 2), (0, 3 * page), (7, 2 * page):
            addr = victim["region"] + offset
            assert os.pread(fd, size, addr) == pattern(addr, size)
        assert os.pread(fd, 20, victim["text"]) == b"hypermemfs was here\0"
        assert os.pread(fd, 11, victim["file"] + page) == b"file page 1"


def test_every_mapping_is_the_same_as_in_proc(world: World, victim: Victim) -> None:
    with opened(world, victim.pid) as fd:
        for line in world.proc(victim.pid, "maps").decode(errors="replace").splitlines():
            start, end = (int(n, 16) for n in line.split()[0].split("-"))
            if re.search(r"\[(vsyscall|vectors|stack|vvar)", line):
                continue
            assert os.pread(fd, end - start, start) == world.mem(victim.pid, start, end - start)


def test_dd_and_xxd_find_an_address(world: World, victim: Victim) -> None:
    mem, addr = world.path(victim.pid, "mem"), victim["region"] + 5
    done = host(["dd", f"if={mem}", "bs=1", f"skip={addr}", "count=40", "status=none"])
    assert done == (0, pattern(addr, 40), b"")
    done = host(["xxd", "-s", str(addr), "-l", "16", "-p", mem])
    assert bytes.fromhex(done.out.decode()) == pattern(addr, 16)


def test_reading_ends_where_memory_ends(world: World, victim: Victim) -> None:
    hole = victim["hole"]
    with opened(world, victim.pid) as fd:
        for before in 1, 5, 100, 4096, 3 * 4096:
            assert os.pread(fd, before + 50, hole - before) == pattern(hole - before, before)
            assert os.pread(fd, 1 << 20, hole - before) == pattern(hole - before, before)
        assert os.pread(fd, 6, victim["noend"]) == b"noend"


def test_where_there_is_no_memory_there_is_an_error(world: World, victim: Victim) -> None:
    with opened(world, victim.pid) as fd:
        for addr in 0, 1, 4096, victim["hole"], victim["hole"] + machines.current.page - 1:
            for size in 1, 4096, 100000:
                assert errno_of(lambda: os.pread(fd, size, addr)) == "EIO", hex(addr)


def test_the_ends_of_the_address_space_are_not_memory(world: World, victim: Victim) -> None:
    with opened(world, victim.pid) as fd:
        for addr in (1 << 47) - 4096, (1 << 47) - 1, 1 << 47, 1 << 48, 1 << 56, (1 << 63) - 8192:
            assert errno_of(lambda: os.pread(fd, 16, addr)) == "EIO", hex(addr)


def test_reading_nothing_is_no_error(world: World, victim: Victim) -> None:
    with opened(world, victim.pid) as fd:
        assert os.pread(fd, 0, victim["region"]) == b""
        assert os.pread(fd, 0, 0) == b""


def test_memory_without_access_reads_as_in_proc(world: World, victim: Victim) -> None:
    addr = victim["none"]
    with opened(world, victim.pid) as fd:
        assert os.pread(fd, 100, addr) == world.mem(victim.pid, addr, 100) == pattern(addr, 100)
        assert os.pread(fd, 200, addr - 100) == pattern(addr - 100, 200)


def test_64_mib_come_in_one_read(world: World) -> None:
    size = 64 << 20
    victim = world.program("mapper", "big", str(size))
    with opened(world, victim.pid) as fd:
        buf = bytearray(size)
        done = 0
        while done < size:  # the kernel may cut at what fits one system call
            n = os.preadv(fd, [memoryview(buf)[done:]], victim["region"] + done)
            assert n > 0
            done += n
    assert bytes(buf) == pattern(victim["region"], size)


def test_a_read_goes_on_from_mapping_to_mapping(world: World) -> None:
    victim = world.program("mapper", "maps", "3000")
    size = 3000 * machines.current.page
    with opened(world, victim.pid) as fd:
        done = 0
        while done < size:
            data = os.pread(fd, size - done, victim["region"] + done)
            assert data and not data.strip(b"\0")
            done += len(data)


def test_memory_changes_while_the_file_is_open(world: World) -> None:
    victim = world.victim("count")
    with opened(world, victim.pid) as fd:
        def counter() -> int:
            return struct.unpack(machines.current.struct + "I", os.pread(fd, 4, victim["counter"]))[0]

        first = counter()
        world.wait_output(victim.pid, b"\n%d: " % (first + 3))
        assert counter() >= first + 3


def test_a_process_without_memory_reads_as_empty(world: World) -> None:
    for pid in world.kthread(), world.victim("zombie")["zpid"]:
        with opened(world, pid) as fd:
            for addr in 0, 4096, 1 << 40:
                assert os.pread(fd, 100, addr) == b""


def test_seek_finds_data_and_holes(world: World, victim: Victim) -> None:
    region, hole, page = victim["region"], victim["hole"], victim["page"]
    with opened(world, victim.pid) as fd:
        assert os.lseek(fd, region + 5, os.SEEK_DATA) == region + 5
        assert os.lseek(fd, region + 5, os.SEEK_HOLE) == hole
        assert os.lseek(fd, hole, os.SEEK_HOLE) == hole
        assert os.lseek(fd, hole + 7, os.SEEK_HOLE) == hole + 7
        assert os.lseek(fd, hole + 7, os.SEEK_DATA) == hole + page
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert errno_of(lambda: os.lseek(fd, 1 << 62, os.SEEK_DATA)) == "ENXIO"


def test_seek_walks_all_mappings(world: World, victim: Victim) -> None:
    expected: list[list[int]] = []
    for line in world.proc(victim.pid, "maps").decode(errors="replace").splitlines():
        start, end = (int(n, 16) for n in line.split()[0].split("-"))
        # The gate area is no mapping; vvar is a device's memory, but on 32-bit ARM it is a page.
        if re.search(r"\[(vsyscall|vectors)", line) or \
                ("[vvar" in line and machines.current.arch != "armhf"):
            continue
        if expected and expected[-1][1] == start:
            expected[-1][1] = end
        else:
            expected.append([start, end])
    found, at = [], 0
    with opened(world, victim.pid) as fd:
        with contextlib.suppress(OSError):
            while True:
                start = os.lseek(fd, at, os.SEEK_DATA)
                at = os.lseek(fd, start, os.SEEK_HOLE)
                found.append([start, at])
    assert found == expected


def test_seek_walks_thousands_of_mappings(world: World) -> None:
    victim = world.program("mapper", "maps", "20000")
    with opened(world, victim.pid) as fd:
        end = os.lseek(fd, victim["region"], os.SEEK_HOLE)
    assert end >= victim["region"] + 20000 * machines.current.page


def test_many_readers_at_a_time_get_their_own_bytes(world: World, victim: Victim) -> None:
    mem, region = world.path(victim.pid, "mem"), victim["region"]
    script = f"""
import os, struct
fd = os.open({str(mem)!r}, os.O_RDONLY)
for i in range(300):
    addr = {region} + os.getpid() * 8 * (i + 1) % 12000 // 8 * 8
    assert struct.unpack("{machines.current.struct}Q", os.pread(fd, 8, addr))[0] == addr
"""
    done = host(["bash", "-c", "for i in 1 2 3 4 5 6 7 8; do /usr/bin/python3 -c \"$1\" & pids+=($!); "
                 "done; for pid in ${pids[@]}; do wait $pid || exit 1; done", "x", script])
    assert done.rc == 0, done.err


def test_mem_of_a_dead_process_says_so(world: World, victim: Victim) -> None:
    with opened(world, victim.pid) as fd:
        assert os.pread(fd, 8, victim["region"])
        world.kill(victim.pid)
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESRCH"
        assert errno_of(lambda: os.lseek(fd, 0, os.SEEK_DATA)) == "ESRCH"
