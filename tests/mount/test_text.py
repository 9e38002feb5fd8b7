# SPDX-License-Identifier: MIT
"""cmdline, environ, comm, maps, status, stat: the bytes of the guest's own /proc."""
import os
import re
import subprocess

import pytest

from world import World, host

TEXTS = ["cmdline", "environ", "comm", "maps", "limits"]


def check(world: World, pid: int, *names: str) -> None:
    for name in names or TEXTS:
        assert world.path(pid, name).read_bytes() == world.proc(pid, name), name


def test_texts_of_ordinary_processes_are_those_of_proc(world: World) -> None:
    check(world, world.victim("argv", "a", "", "b c", env={"X": "1", "Y": ""}).pid)
    check(world, world.victim("thread").pid)
    check(world, 1, "cmdline", "comm")


def test_texts_of_a_kernel_thread_are_those_of_proc(world: World) -> None:
    pid = world.kthread()
    check(world, pid, "cmdline", "environ", "comm", "maps")
    assert world.path(pid, "cmdline").read_bytes() == b""
    assert world.path(pid, "comm").read_bytes() != b""


def test_texts_of_a_zombie_are_those_of_proc(world: World) -> None:
    pid = world.victim("zombie")["zpid"]
    check(world, pid, "cmdline", "environ", "comm", "maps")
    assert b"State:\tZ" in world.path(pid, "status").read_bytes()


def test_every_process_of_the_guest_has_its_cmdline_and_comm(world: World) -> None:
    same = 0
    for pid in world.pids():
        try:
            if re.match(rb"kworker", world.proc(pid, "comm")):
                continue  # changes its name with its work
            before = world.proc(pid, "cmdline"), world.proc(pid, "comm")
            shown = (world.path(pid, "cmdline").read_bytes(), world.path(pid, "comm").read_bytes())
            after = world.proc(pid, "cmdline"), world.proc(pid, "comm")
        except OSError:
            continue  # it is gone
        if before == after:
            assert shown == before, pid
            same += 1
    assert same > 10


def test_a_megabyte_of_arguments_is_whole(world: World) -> None:
    args = [b"%06d" % i + b"x" * 94 for i in range(10000)]
    env = {b"E%04d" % i: b"y" * 60 for i in range(1000)}
    pid = world.victim("argv", *args, env=env).pid
    cmdline, environ = (world.path(pid, n).read_bytes() for n in ("cmdline", "environ"))
    assert cmdline == b"\0".join([b"victim", b"argv", *args]) + b"\0"
    assert environ == b"".join(k + b"=" + v + b"\0" for k, v in env.items())
    check(world, pid, "cmdline", "environ")


@pytest.mark.parametrize("bs", [1, 7, 4096, 4097, 1 << 20])
def test_any_size_of_read_gives_the_same_bytes(world: World, bs: int) -> None:
    pid = world.victim("argv", "x" * 5000, "y" * 300, env={"A": "z" * 3000}).pid
    for name in "cmdline", "environ", "maps":
        done = host(["dd", f"if={world.path(pid, name)}", f"bs={bs}", "status=none"])
        assert done.out == world.proc(pid, name), name


def test_reading_from_an_offset_gives_the_rest(world: World) -> None:
    pid = world.victim("argv", "x" * 5000).pid
    for name in "cmdline", "maps", "environ", "status":
        fd = os.open(world.path(pid, name), os.O_RDONLY)
        whole = os.pread(fd, 1 << 20, 0)
        assert os.pread(fd, 100, len(whole) // 2) == whole[len(whole) // 2:][:100], name
        assert os.pread(fd, 100, 0) == whole[:100], name
        assert os.pread(fd, 100, len(whole)) == b""
        assert os.pread(fd, 100, len(whole) + 5000) == b""
        os.close(fd)


def test_a_changed_title_is_shown_as_proc_shows_it(world: World) -> None:
    # As setproctitle(3): over the arguments, and on into the environment.
    pid = world.victim("title", "a", env={"LONG": "l" * 200, "B": "2"}).pid
    world.wait_output(pid, b"\n")
    check(world, pid, "cmdline", "environ")
    assert world.path(pid, "cmdline").read_bytes().startswith(b"victim: ")


@pytest.mark.parametrize("name", [b"a\nb", b"quote'\"\\", b"\xff\xfe\x80", b" ", b"a) R 1 (b",
                                  b"fifteen-letters"])
def test_any_bytes_may_be_a_comm(world: World, name: bytes) -> None:
    pid = world.victim("comm", name).pid
    assert world.path(pid, "comm").read_bytes() == world.proc(pid, "comm") == name + b"\n"
    for text in "stat", "status":
        ours, theirs = world.path(pid, text).read_bytes(), world.proc(pid, text)
        assert ours.splitlines()[0][:30] == theirs.splitlines()[0][:30]


def test_any_bytes_may_be_an_argument_or_a_variable(world: World) -> None:
    odd = bytes(range(1, 256))
    pid = world.victim("argv", odd, b"", b"\n", env={b"\xff": odd, b"A": b""}).pid
    check(world, pid, "cmdline", "environ")
    assert world.path(pid, "cmdline").read_bytes() == b"victim\0argv\0" + odd + b"\0\0\n\0"


def test_a_process_may_have_no_arguments_and_no_environment(world: World) -> None:
    pid = world.spawn([b""], env={}, file=world.tool("mapper"))  # says how to use it, and ends
    world.wait_output(pid, b"usage")
    pid = world.victim("argv", env={}, argv0="").pid
    assert world.path(pid, "cmdline").read_bytes() == b"\0argv\0"
    assert world.path(pid, "environ").read_bytes() == b""


def test_status_has_the_lines_of_proc(world: World) -> None:
    pid = world.victim("argv").pid
    stable = re.compile(rb"(Name|Umask|State|Tgid|Pid|PPid|Uid|Gid|VmPeak|VmSize|Threads|"
                        rb"Sig\w+|Shd\w+|Cap\w+|Seccomp):")

    def lines(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if stable.match(line)]

    shown = world.path(pid, "status").read_bytes()
    assert lines(shown) == lines(world.proc(pid, "status")) != []


def test_stat_has_the_fields_of_proc(world: World) -> None:
    pid = world.victim("argv").pid
    shown, oracle = world.path(pid, "stat").read_bytes(), world.proc(pid, "stat")
    assert shown.startswith(b"%d (victim) S " % pid)
    # pid ... tty, starttime, addresses
    for field in [*range(0, 8), 21, 25, 26, 27, *range(44, 51)]:
        assert shown.split()[field] == oracle.split()[field], field
    assert len(shown.split()) == len(oracle.split())


def test_maps_of_thousands_of_mappings_have_no_torn_line(world: World) -> None:
    pid = world.program("mapper", "maps", "30000").pid
    shown = world.path(pid, "maps").read_bytes()
    assert len(shown) > 1 << 20
    assert shown == world.proc(pid, "maps")


@pytest.mark.parametrize("bs", [1000, 4096, 65536, 300000])
def test_maps_are_whole_in_whatever_pieces_they_are_read(world: World, bs: int) -> None:
    pid = world.program("mapper", "maps", "5000").pid
    done = host(["dd", f"if={world.path(pid, 'maps')}", f"bs={bs}", "status=none"])
    assert done.out == world.proc(pid, "maps")


def test_texts_cannot_be_written(world: World) -> None:
    pid = world.victim("argv").pid
    for name in "cmdline", "comm", "maps", "environ":
        done = host(f"echo x > {world.path(pid, name)}")
        assert done.rc != 0 and (b"denied" in done.err or b"not permitted" in done.err), name
    check(world, pid)


def test_tools_read_them(world: World) -> None:
    pid = world.victim("argv", "needle in a haystack", env={"SECRET": "hush"}).pid
    assert b"hush" in host(["strings", world.path(pid, "environ")]).out
    done = host(f"grep -la 'needle in' {world.mnt}/pid/*/cmdline")
    assert os.fsencode(world.path(pid, "cmdline")) in done.out.split()
    copied = subprocess.run(["cp", world.path(pid, "cmdline"), "/dev/stdout"],
                            stdout=subprocess.PIPE, timeout=20)
    assert copied.stdout == world.proc(pid, "cmdline")


def test_a_process_that_executes_itself_all_the_time_never_shows_a_mixture(world: World) -> None:
    pid = world.victim("execer").pid
    for _ in range(300):
        shown = world.path(pid, "cmdline").read_bytes()
        assert re.fullmatch(rb"victim\0execer\0([0-9]+\0)?|", shown), shown
