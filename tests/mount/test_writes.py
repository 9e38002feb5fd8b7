# SPDX-License-Identifier: MIT
"""Writing memory: what arrives, what is refused, and what must do no harm."""
import fcntl
import os

import pytest

from test_mem import opened
from world import Victim, World, errno_of, host, opened as file_opened, pattern


def snapshot(world: World, victim: Victim) -> bytes:
    return b"".join(world.mem(victim.pid, victim[key], size) for key, size in
                    [("region", 3 * 4096), ("text", 20), ("readonly", 4096), ("shared", 8192)])


def test_a_write_is_in_the_guest_when_it_returns(world: World, victim: Victim) -> None:
    with opened(world, victim.pid, os.O_RDWR) as fd:
        for addr, data in ((victim["text"], b"HYPERMEMFS"), (victim["region"] + 4090, b"0123456789"),
                           (victim["shared"], b"shared"), (victim["region"], b"x" * 8192)):
            assert os.pwrite(fd, data, addr) == len(data)
            assert world.mem(victim.pid, addr, len(data)) == data
            assert os.pread(fd, len(data), addr) == data


def test_a_running_process_sees_the_change(world: World) -> None:
    victim = world.victim("count")
    world.wait_output(victim.pid, b"nobody has been here")
    with opened(world, victim.pid, os.O_WRONLY) as fd:
        assert os.pwrite(fd, b"somebody was\0", victim["message"]) == 13
    world.wait_output(victim.pid, b"somebody was\n")


@pytest.mark.parametrize("how", ["conv=notrunc", ""])
def test_dd_patches_bytes(world: World, victim: Victim, how: str) -> None:
    mem, addr = world.path(victim.pid, "mem"), victim["region"] + 3
    before = snapshot(world, victim)
    done = host(fr"printf '\xeb\xfe' | dd of={mem} bs=1 seek={addr} {how} status=none")
    assert done == (0, b"", b"")
    assert snapshot(world, victim) == before[:3] + b"\xeb\xfe" + before[5:]


def test_a_write_ends_where_memory_ends(world: World, victim: Victim) -> None:
    with opened(world, victim.pid, os.O_RDWR) as fd:
        assert os.pwrite(fd, b"0123456789", victim["noend"]) == 5
        assert os.pread(fd, 5, victim["noend"]) == b"01234"
        assert os.pwrite(fd, b"y" * 100000, victim["hole"] - 4096) == 4096
        assert os.pread(fd, 4096, victim["hole"] - 4096) == b"y" * 4096


def test_where_there_is_no_memory_nothing_is_written(world: World, victim: Victim) -> None:
    with opened(world, victim.pid, os.O_RDWR) as fd:
        for addr in 0, victim["hole"], 1 << 47, (1 << 63) - 4096:
            assert errno_of(lambda: os.pwrite(fd, b"x", addr)) == "EIO", hex(addr)


def test_writing_nothing_is_no_error(world: World, victim: Victim) -> None:
    with opened(world, victim.pid, os.O_RDWR) as fd:
        assert os.pwrite(fd, b"", victim["region"]) == 0


def test_a_megabyte_and_a_bit_is_written(world: World) -> None:
    size = 5 << 20
    victim = world.program("mapper", "big", str(size))
    data = os.urandom(size - 100)
    with opened(world, victim.pid, os.O_RDWR) as fd:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], victim["region"] + 50 + done)
        start = victim["region"]
        assert world.mem(victim.pid, start + 50, len(data)) == data
        assert os.pread(fd, 50, start) == pattern(start, 50)
        assert os.pread(fd, 50, start + size - 50) == pattern(start + size - 50, 50)


@pytest.mark.parametrize("command", [
    "echo x > $mem", "echo x >> $mem", "echo x 1<> $mem", ": > $mem", ": >> $mem",
    "truncate -s 0 $mem", "truncate -s 100 $mem", "truncate -s +1 $mem", "cp /etc/passwd $mem",
    "dd if=/dev/zero of=$mem bs=100 count=1", "tee $mem </dev/null"])
def test_shells_that_truncate_or_append_do_no_harm(world: World, victim: Victim,
                                                   command: str) -> None:
    before = snapshot(world, victim)
    host(f"mem={world.path(victim.pid, 'mem')}; {command}")
    assert snapshot(world, victim) == before
    with opened(world, victim.pid, os.O_RDWR) as fd:
        assert os.pread(fd, 100, victim["region"]) == pattern(victim["region"], 100)
        assert os.pwrite(fd, b"ok", victim["region"]) == 2


def test_read_only_memory_is_written_as_a_debugger_does(world: World, victim: Victim) -> None:
    with opened(world, victim.pid, os.O_RDWR) as fd:
        for key in "readonly", "none", "file":
            assert os.pwrite(fd, b"patched", victim[key]) == 7, key
            assert world.mem(victim.pid, victim[key], 7) == b"patched"
    # A private copy: the file itself has not changed.
    assert world.run(["cat", victim["path"]]).out.startswith(b"file page 0")


def test_a_patch_of_code_takes_effect_there_and_nowhere_else(world: World) -> None:
    if not world.is_x86:
        pytest.skip("the patch is x86 code")
    patched, other = world.victim("code"), world.victim("code")
    program = world.run(["md5sum", world.tool("victim")]).out
    world.wait_output(patched.pid, b"answer is 42\n")
    with opened(world, patched.pid, os.O_WRONLY) as fd:
        code = b"\xb8\x07\0\0\0\xc3"  # mov eax, 7; ret
        assert os.pwrite(fd, code, patched["answer"]) == len(code)
    world.wait_output(patched.pid, b"answer is 7\n")
    said = len(world.output(other.pid))
    world.wait_output(other.pid, b"(answer is 42\n){%d}" % (said // 13 + 3))
    assert b"answer is 7\n" not in world.output(other.pid)
    assert world.run(["md5sum", world.tool("victim")]).out == program


def test_a_process_without_memory_takes_nothing(world: World) -> None:
    for pid in world.kthread(), world.victim("zombie")["zpid"]:
        with opened(world, pid, os.O_RDWR) as fd:
            assert errno_of(lambda: os.pwrite(fd, b"x", 4096)) == "EIO"


def test_a_dead_process_takes_nothing(world: World, victim: Victim) -> None:
    with opened(world, victim.pid, os.O_RDWR) as fd:
        world.kill(victim.pid)
        assert errno_of(lambda: os.pwrite(fd, b"x", victim["region"])) == "ESRCH"


def test_a_read_only_mount_refuses_to_write(world: World, victim: Victim) -> None:
    before = snapshot(world, victim)
    with world.mount("-o", "ro") as mount:
        mem = mount.mnt / "pid" / str(victim.pid) / "mem"
        assert errno_of(lambda: os.open(mem, os.O_RDWR)) == "EROFS"
        assert errno_of(lambda: os.open(mem, os.O_WRONLY)) == "EROFS"
        assert errno_of(lambda: os.truncate(mem, 0)) == "EROFS"
        fd = os.open(mem, os.O_RDONLY)
        assert os.pread(fd, 8, victim["region"]) == pattern(victim["region"], 8)
        os.close(fd)
        assert b"Read-only" in host(f"echo x > {mem}").err
    assert snapshot(world, victim) == before


@pytest.mark.fake("the lab's module is loaded without readonly")
def test_a_read_only_guest_refuses_to_be_written(world: World, victim: Victim) -> None:
    from world import Mount
    before = snapshot(world, victim)
    with world.guest("--readonly") as fake, Mount(world.daemon, fake.socket) as mount:
        mem = mount.mnt / "pid" / str(victim.pid) / "mem"

        def write() -> None:
            fd = os.open(mem, os.O_RDWR)
            try:
                os.pwrite(fd, b"x", victim["region"])
            finally:
                os.close(fd)

        assert errno_of(write) in ("EPERM", "EROFS")
        assert "\nwritable: no\n" in (mount.mnt / "info").read_text()
    assert snapshot(world, victim) == before


@pytest.mark.parametrize("name", ["mem", "int/{}", "str/{}"])
def test_nothing_is_added_to_what_has_no_end(world: World, victim: Victim, name: str) -> None:
    path = world.path(victim.pid, name.format(victim["region"]))
    for flags in os.O_WRONLY, os.O_RDWR:
        assert errno_of(lambda: os.open(path, flags | os.O_APPEND)) == "EINVAL"
    os.close(os.open(path, os.O_RDONLY | os.O_APPEND))
    before = snapshot(world, victim)
    with file_opened(path, os.O_WRONLY) as fd:
        if name == "mem":  # the kernel thinks that the file ends behind it
            assert os.pwrite(fd, before[:8], victim["region"]) == 8
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        assert errno_of(lambda: os.write(fd, b"1")) == "EINVAL"
        assert snapshot(world, victim) == before
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        assert os.pwrite(fd, b"1", victim["region"] if name == "mem" else 0) == 1
