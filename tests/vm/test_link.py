# SPDX-License-Identifier: MIT
"""Hosts that come, go, talk nonsense and do not listen: the next one is served as if nothing was."""
from __future__ import annotations

import errno
import random
import re
import struct
import time

import pytest

import machines
from lab import Guest
from link import (BIG_ENDIAN, CHUNK, DATA, HELLO, HELLO_REPLY, LIST_PROCS, MAGIC, READ, READ_FAIL,
                  READ_OK, READ_PARTIAL, READ_PROC, READ_PTR, READ_STR, READONLY, RESET, TRANSLATE,
                  VERSION, WINDOW, WRITE, WRITE_FAIL, WRITE_OK, WRITE_PTR, Frame, Hello, Link,
                  errno_name, header, hello_frame)
from world import pattern

pytestmark = pytest.mark.vm("is about the module")

BIG = 1 << 16


@pytest.fixture
def victim(guest: Guest) -> dict:
    return guest.victim("mem")[1]


def served(guest: Guest, victim: dict) -> bool:
    """A new host gets what it asks for."""
    with Link(guest.hm_socket) as link:
        link.hello()
        return link.get(READ, victim["pid"], victim["region"], 4096) == \
            pattern(victim["region"], 4096)


def test_hello_says_what_the_guest_is(guest: Guest, link: Link) -> None:
    hello = link.hello()
    uname = guest.run("uname -r; uname -m").out.split()
    assert [hello.release.rstrip(b"\0"), hello.machine.rstrip(b"\0")] == uname
    it = machines.current
    flags = BIG_ENDIAN if it.byteorder == "big" else 0
    assert (hello.version, hello.flags, hello.page_size, hello.word_bits) == \
        (VERSION, flags, it.page, it.word_bits)
    assert hello.ops == hello.allowed and hello.ops & 1 << WRITE - DATA
    assert hello.max_data == BIG and hello.max_inflight >= 16 and hello.epoch
    assert link.hello().epoch == hello.epoch


def test_a_hundred_hosts_one_after_another(guest: Guest, victim: dict) -> None:
    for _ in range(100):
        assert served(guest, victim)


def test_a_hundred_hosts_that_say_nothing(guest: Guest, victim: dict) -> None:
    for _ in range(100):
        Link(guest.hm_socket).close()
    assert served(guest, victim)


def test_a_hundred_hosts_that_leave_without_their_answers(guest: Guest, victim: dict) -> None:
    for n in range(100):
        with Link(guest.hm_socket) as link:
            link.raw(hello_frame(n))
            if n % 2:
                link.raw(header(READ, victim["pid"], victim["region"], 4096, tag=n))
    assert served(guest, victim)


HALF_FRAMES = {
    "header": header(READ, 1)[:10],
    "byte": b"\x02",
    "header but a byte": header(READ, 1)[:23],
    "write without data": header(WRITE, 1, size=1000),
    "write with half its data": header(WRITE, 1, size=1000) + bytes(500),
    "hello without data": header(HELLO, addr=MAGIC, size=24),
    "hello with half its data": hello_frame(1)[:36],
}


@pytest.mark.parametrize("half", HALF_FRAMES.values(), ids=HALF_FRAMES)
@pytest.mark.parametrize("session", [True, False], ids=["in-a-session", "before-one"])
def test_half_a_frame_is_forgotten_with_its_host(guest: Guest, victim: dict, half: bytes,
                                                 session: bool) -> None:
    with Link(guest.hm_socket) as link:
        if session:
            link.hello()
        link.raw(half)
    assert served(guest, victim)


def test_frames_may_come_in_pieces(link: Link, victim: dict) -> None:
    for byte in header(READ, victim["pid"], victim["region"], 4096, tag=7):
        link.raw(bytes([byte]))
        time.sleep(0.001)
    assert link.wait(7).data == pattern(victim["region"], 4096)


def garbage(seed: int, size: int) -> bytes:
    """Random bytes, with whole and cut frames of all kinds in between."""
    rand = random.Random(seed)
    parts = []
    while size > 0:
        size_field = rand.choice([0, 1, 24, CHUNK, CHUNK + 1, BIG, 0xffffffff])
        parts.append(rand.choice([
            rand.randbytes(rand.randrange(3000)),
            bytes(rand.randrange(100)),
            header(rand.choice([READ, WRITE, READ_STR, HELLO, 0x1ff]), rand.randrange(1 << 32),
                   rand.choice([MAGIC, 0, 0x400000]), size_field),
            header(HELLO, addr=MAGIC, size=size_field)[:rand.randrange(25)],
            hello_frame(rand.getrandbits(64), version=rand.randrange(4))[:rand.randrange(49)],
            struct.pack("<Q", MAGIC)]))
        size -= len(parts[-1]) or 1
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("session", [True, False], ids=["in-a-session", "before-one"])
def test_garbage_then_hello(guest: Guest, victim: dict, seed: int, session: bool) -> None:
    with Link(guest.hm_socket) as link:
        if session:
            link.hello()
        # The guest answers a good part of it, and QEMU's socket holds only so much.
        for at in range(16):
            link.raw(garbage(seed + at, 1 << 16))
            link.drain()
    assert served(guest, victim)


def test_garbage_then_hello_from_the_same_host(guest: Guest, victim: dict) -> None:
    """Random bytes are no HELLO: the session is lost, and found again."""
    with Link(guest.hm_socket) as link:
        link.hello()
        link.raw(b"\xff" * 24 + random.Random(1).randbytes(1 << 20))
        link.hello()
        assert link.get(READ, victim["pid"], victim["region"], 8) == pattern(victim["region"], 8)


@pytest.mark.parametrize("first", range(1, 25))
def test_a_hello_behind_any_number_of_bytes_is_found(guest: Guest, first: int) -> None:
    with Link(guest.hm_socket) as link:
        link.raw(hello_frame(1)[:first] if first % 2 else b"\x01" * first)
        link.hello()
        assert next(link.procs()).pid == 1


def test_before_hello_there_is_only_reset(guest: Guest, victim: dict) -> None:
    with Link(guest.hm_socket) as link:
        for _ in range(10):
            link.raw(header(READ, victim["pid"], victim["region"], 8, tag=9))
        assert link.receive().op == RESET
        while not link.silent(0.3):
            pass
        link.hello()
        assert link.silent(0.3)


def test_an_unknown_operation_is_refused_and_skipped(link: Link, victim: dict) -> None:
    for op in 0x80, 0xff, 0, 0x80 | DATA, 0xff | DATA, READ | DATA, WRITE & ~DATA, HELLO & ~DATA:
        reply = link.call(op, victim["pid"], size=1000, data=bytes(1000))
        assert errno_name(reply) == "EOPNOTSUPP"
        assert link.get(READ, victim["pid"], victim["region"], 8) == pattern(victim["region"], 8)


def test_an_impossible_operation_ends_the_session(link: Link) -> None:
    for op in 0x200, 0x1000, 0xf0000001, 0xffffffff:
        link.raw(header(op, tag=1))
        assert link.receive().op == RESET
        link.raw(header(READ_PROC, 1, tag=2))
        assert link.silent(0.2)
        link.hello()


def test_data_over_the_limit_ends_the_session(link: Link) -> None:
    for size in BIG + 1, 1 << 20, 0x80000000, 0xffffffff:
        link.raw(header(WRITE, 1, size=size, tag=1))
        assert link.receive().op == RESET
        link.hello()
    link.hello(max_data=CHUNK)
    link.raw(header(WRITE, 1, size=CHUNK + 1, tag=1))
    assert link.receive().op == RESET


def test_a_reply_over_the_limit_is_refused(link: Link, victim: dict) -> None:
    pid, addr = victim["pid"], victim["text"]
    for size in BIG + 1, 1 << 20, 0xffffffff:
        for op in READ, READ_STR, LIST_PROCS:
            assert errno_name(link.call(op, pid, addr, size)) == "EINVAL"
    link.hello(max_data=CHUNK)
    assert errno_name(link.call(READ, pid, addr, CHUNK + 1)) == "EINVAL"
    assert link.call(READ, pid, victim["region"], CHUNK).size == CHUNK
    assert link.call(READ, pid, addr, 0).size == 0


@pytest.mark.parametrize("max_data", [0, 1, CHUNK - 1])
def test_a_host_that_takes_less_than_a_region_gets_no_session(guest: Guest, max_data: int) -> None:
    with Link(guest.hm_socket) as link:
        link.hello(max_data=max_data)
        link.raw(header(READ_PROC, 1, tag=1))
        assert link.receive().op == RESET


@pytest.mark.parametrize("version", [0, 2, 0xffffffff])
def test_another_version_is_answered_with_the_guests_own(guest: Guest, version: int) -> None:
    with Link(guest.hm_socket) as link:
        assert link.hello(version=version).version == VERSION
        link.raw(header(READ_PROC, 1, tag=1))
        assert link.receive().op == RESET
        assert link.hello().version == VERSION
        assert link.proc(1).pid == 1


def test_a_hello_that_is_none_is_refused_in_a_session(link: Link) -> None:
    data = hello_frame(1)[24:]
    for pid, addr, size in (0, MAGIC + 1, 24), (1, MAGIC, 24), (0, MAGIC, 23), (0, MAGIC, CHUNK + 1):
        reply = link.call(HELLO, pid, addr, data=data.ljust(size, b"\0")[:size])
        assert errno_name(reply) == "EINVAL"
    assert link.proc(1).pid == 1


def test_a_longer_hello_of_a_later_host_is_taken(guest: Guest) -> None:
    data = hello_frame(77)[24:] + bytes(100)
    with Link(guest.hm_socket) as link:
        link.hello()
        link.raw(header(HELLO, addr=MAGIC, size=len(data)) + data)
        reply = link.receive()
        assert (reply.op, reply.addr, reply.size) == (READ_OK, 77, HELLO_REPLY.size)
        assert link.proc(1).pid == 1


def test_a_read_only_session_does_not_write(link: Link, victim: dict) -> None:
    pid, addr = victim["pid"], victim["region"]
    hello = link.hello(READONLY)
    assert hello.flags & READONLY
    assert hello.ops & 1 << WRITE - DATA and not hello.allowed & 1 << WRITE - DATA
    for size in 8, 5000:
        reply = link.call(WRITE, pid, addr, data=bytes(size))
        assert reply.op == WRITE_FAIL and errno_name(reply) == "EPERM"
    assert link.get(READ, pid, addr, 8) == pattern(addr, 8)
    assert not link.hello().flags & READONLY
    assert link.write(pid, addr, bytes(8)) == 8


@pytest.mark.needs("builtin")
def test_a_kernel_that_is_told_so_does_not_write(boot) -> None:
    guest = boot(hypermem_args="readonly=1")
    pid, victim = guest.victim("mem")
    addr = victim["region"]
    with Link(guest.hm_socket) as link:
        hello = link.hello()
        assert hello.flags & READONLY and not hello.allowed & 1 << WRITE - DATA
        assert errno_name(link.call(WRITE, pid, addr, data=bytes(8))) == "EPERM"
        assert link.get(READ, pid, addr, 8) == pattern(addr, 8)


@pytest.mark.needs("modules")
def test_a_module_loaded_read_only_does_not_write(guest: Guest, victim: dict) -> None:
    pid, addr = victim["pid"], victim["region"]
    guest.run("rmmod hypermem && insmod /hypermem.ko readonly=1", check=True)
    try:
        with Link(guest.hm_socket) as link:
            hello = link.hello()
            assert hello.flags & READONLY and not hello.allowed & 1 << WRITE - DATA
            assert errno_name(link.call(WRITE, pid, addr, data=bytes(8))) == "EPERM"
            assert link.get(READ, pid, addr, 8) == pattern(addr, 8)
    finally:
        guest.run("rmmod hypermem && insmod /hypermem.ko", check=True)


def test_a_host_that_does_not_read_is_nobodys_loss(guest: Guest, victim: dict) -> None:
    for _ in range(3):
        with Link(guest.hm_socket) as deaf:
            deaf.hello()
            deaf.raw(b"".join(header(READ, victim["pid"], 0x400000, BIG, tag=n)
                              for n in range(1000)))
            time.sleep(0.3)
            assert guest.run("echo well").out == b"well\n"
        assert served(guest, victim)


@pytest.mark.needs("pc")
def test_a_host_that_does_not_read_is_not_taken_for_a_hung_task(guest: Guest,
                                                                victim: dict) -> None:
    """The link stands still for as long as it pleases, and with it who has an answer."""
    guest.run("echo 1 >/proc/sys/kernel/hung_task_timeout_secs", check=True)
    try:
        with Link(guest.hm_socket) as deaf:
            deaf.hello()
            deaf.raw(b"".join(header(READ, victim["pid"], 0x400000, BIG, tag=n)
                              for n in range(1000)))
            time.sleep(4)
            guest.check_console()
        assert served(guest, victim)
    finally:
        guest.run("echo 120 >/proc/sys/kernel/hung_task_timeout_secs", check=True)


def test_a_host_that_reads_late_gets_it_all(link: Link, victim: dict) -> None:
    first = link.call(READ, victim["pid"], 0x400000, BIG).data
    assert len(first) == BIG
    tags = {link.send(READ, victim["pid"], 0x400000, BIG) for _ in range(64)}
    time.sleep(1)
    for tag in tags:
        assert link.wait(tag).data == first


def test_every_request_of_too_many_is_answered(link: Link, victim: dict) -> None:
    pid, addr = victim["pid"], victim["region"]
    tags = [link.send(WRITE, pid, addr, data=pattern(addr, 4096)) if n % 3 == 0 else
            link.send(READ, pid, addr, 8192) for n in range(300)]
    time.sleep(0.5)
    busy = 0
    for tag in tags:
        reply = link.wait(tag)
        if errno_name(reply) == "EBUSY":
            busy += 1
        else:
            assert reply.size in (4096, 8192)
            assert not reply.data or reply.data == pattern(addr, 8192)
    assert busy <= 300 - 64
    assert link.silent(0.2)


def test_replies_of_an_old_session_do_not_reach_the_new_one(guest: Guest, victim: dict) -> None:
    with Link(guest.hm_socket) as link:
        link.hello()
        for _ in range(20):
            for _ in range(60):
                link.send(READ, victim["pid"], 0x400000, BIG)
            link.hello()
            assert link.call(READ, victim["pid"], victim["region"], 8).data == \
                pattern(victim["region"], 8)
            assert link.nothing_else()
        assert link.silent(0.5)


def test_a_host_sees_no_replies_of_the_one_before(guest: Guest, victim: dict) -> None:
    for _ in range(20):
        with Link(guest.hm_socket) as link:
            link.hello()
            for _ in range(60):
                link.send(READ, victim["pid"], 0x400000, BIG)
        with Link(guest.hm_socket) as link:
            link.hello()
            assert link.call(READ, victim["pid"], victim["region"], 8).data == \
                pattern(victim["region"], 8)
            assert link.nothing_else()


def test_many_hellos_in_a_row(link: Link) -> None:
    link.raw(b"".join(hello_frame(n) for n in range(500)))
    for n in range(500):
        reply = link.receive()
        assert (reply.op, reply.addr) == (READ_OK, n)
        assert Hello(*HELLO_REPLY.unpack(reply.data)).version == VERSION
    assert link.proc(1).pid == 1


def test_a_wrong_stamp_is_another_process(link: Link, victim: dict) -> None:
    pid, addr = victim["pid"], victim["region"]
    stamp = link.proc(pid).stamp
    assert link.get(READ, pid, addr, 8, stamp=stamp) == pattern(addr, 8)
    for op in READ, READ_PROC, READ_STR, READ_PTR:
        reply = link.call(op, pid, addr, 8, stamp=stamp ^ 1 or 2)
        assert reply.op == READ_FAIL and errno_name(reply) == "ESRCH"


@pytest.mark.parametrize("pid", [0, 0xffffffff, 1 << 22, 1 << 31, 99999])
def test_no_such_process(link: Link, pid: int) -> None:
    for op in READ, READ_STR, READ_PROC, READ_PTR:
        assert errno_name(link.call(op, pid, 0x400000, 8)) == "ESRCH"
    for op in WRITE, WRITE_PTR:
        assert errno_name(link.call(op, pid, 0x400000, data=bytes(8))) == "ESRCH"


@pytest.mark.parametrize("addr", [0, 1, 0x1000, (1 << 47) - 1, 1 << 47, 1 << 63, (1 << 63) - 1,
                                  (1 << 64) - 4096, (1 << 64) - 1, 0xffff888000000000])
def test_odd_addresses_are_not_mapped(link: Link, victim: dict, addr: int) -> None:
    for size in 1, 8, 4096, BIG:
        assert errno_name(link.call(READ, victim["pid"], addr, size)) == "EIO"
        assert errno_name(link.call(READ_STR, victim["pid"], addr, size)) == "EIO"
    assert errno_name(link.call(WRITE, victim["pid"], addr, data=b"x")) == "EIO"
    assert errno_name(link.call(READ_PTR, victim["pid"], addr)) == "EIO"
    assert errno_name(link.call(WRITE_PTR, victim["pid"], addr, data=bytes(8))) == "EIO"


def test_a_pointer_that_is_not_all_there_is_not_written(link: Link, victim: dict) -> None:
    pid, order = victim["pid"], machines.current.byteorder
    size, end = machines.current.word_bits // 8, victim["hole"]
    for addr in end - size, victim["region"] + 3:
        there = link.get(READ, pid, addr, size)
        assert link.get(READ_PTR, pid, addr) == there
        reply = link.call(WRITE_PTR, pid, addr, data=(0x12345678).to_bytes(8, "little"))
        assert (reply.op, reply.size) == (WRITE_OK, 8)
        assert link.get(READ_PTR, pid, addr) == (0x12345678).to_bytes(size, order)
        assert link.write(pid, addr, there) == size
    reply = link.call(READ_PTR, pid, end - 2)
    assert (reply.op, reply.addr) == (READ_PARTIAL, errno.EIO)
    assert reply.data == link.get(READ, pid, end - 2, 2)
    assert errno_name(link.call(WRITE_PTR, pid, end - 2, data=bytes(8))) == "EIO"
    assert link.get(READ, pid, end - 2, 2) == reply.data
    for data in b"", bytes(4), bytes(7), bytes(9), bytes(CHUNK):
        assert errno_name(link.call(WRITE_PTR, pid, victim["region"], data=data)) == "EINVAL"
    wide = link.call(WRITE_PTR, pid, victim["region"], data=(1 << 32).to_bytes(8, "little"))
    assert errno_name(wide) == ("OK" if size == 8 else "ERANGE")
    assert errno_name(link.call(READ_PTR, 2)) == "EIO"  # a kernel thread


PAGE = machines.current.page
HOLD = struct.Struct("<QQQ8sII")  # generation, word, mm_addr, mm, mm_size, pages


def translated(reply: Frame) -> tuple[int, int]:
    """The pages of a translation, as it says itself and as its runs say."""
    assert reply.op in (READ_OK, READ_PARTIAL), reply
    pages = HOLD.unpack_from(reply.data)[5]
    runs = struct.iter_unpack("<Q", reply.data[HOLD.size:])
    return pages, sum((run & 0xfff) + 1 for run, in runs)


def test_a_translation_is_as_long_as_what_is_mapped(link: Link, victim: dict) -> None:
    pid, region = victim["pid"], victim["region"]
    whole = link.call(TRANSLATE, pid, region, 3 * PAGE)
    assert whole.op == READ_OK and translated(whole) == (3, 3)
    assert translated(link.call(TRANSLATE, pid, region + PAGE - 1, 2)) == (2, 2)
    part = link.call(TRANSLATE, pid, region + PAGE, 1 << 20)  # 2 pages, then the hole
    assert part.op == READ_PARTIAL and translated(part) == (2, 2)
    for addr in victim["hole"], 0, 1 << 47, 1 << 63, (1 << 64) - 1, 0xffffffffff600000:
        assert errno_name(link.call(TRANSLATE, pid, addr, PAGE)) == "EIO"
    assert errno_name(link.call(TRANSLATE, 99999, region, PAGE)) == "ESRCH"


@pytest.mark.parametrize("max_data", [CHUNK, BIG])
def test_a_translation_fits_in_a_frame(guest: Guest, link: Link, max_data: int) -> None:
    """Memory that was never touched: each of its pages is the zero page, and a run of its own."""
    pid = guest.victim("thread")[0]
    maps = guest.read_file(f"/proc/{pid}/maps").decode().splitlines()
    ranges = [[int(a, 16) for a in line.split()[0].split("-")] for line in maps
              if re.search(" rw[-x]p ", line)]
    start, end = max(ranges, key=lambda r: r[1] - r[0])
    if end - start < 1024 * PAGE:
        pytest.skip("a thread's stack has too few pages on this machine")
    link.hello(max_data=max_data)
    reply = link.call(TRANSLATE, pid, start, 0xffffffff)
    assert reply.op == READ_OK and reply.size <= max_data
    room = (min(max_data, HOLD.size + 8 * 1024) - HOLD.size) // 8
    assert translated(reply) == (room, room)
    assert link.proc(1).pid == 1


def test_ram_is_listed_with_a_page_in_each_range(guest: Guest, link: Link) -> None:
    total = sum(end - start for start, end, proof in
                struct.iter_unpack("<QQQ", link.get(WINDOW, addr=123)) if start <= proof < end)
    said = guest.run("grep MemTotal /proc/meminfo").out.split()[1]
    assert total >= int(said) * 1024
