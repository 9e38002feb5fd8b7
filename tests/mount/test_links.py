# SPDX-License-Identifier: MIT
"""exe, cwd, root and fd/K: the texts that readlink gives in the guest."""
import os

import pytest

from world import World, errno_of, host


def link(world: World, pid: int, name: str) -> bytes:
    return os.readlink(os.fsencode(world.path(pid, name)))


@pytest.mark.parametrize("name", ["exe", "cwd", "root"])
def test_links_of_a_process_are_those_of_proc(world: World, name: str) -> None:
    pid = world.spawn([world.tool("victim"), "argv"], cwd="/proc")
    assert link(world, pid, name) == world.proc_link(pid, name)


def test_open_files_have_the_names_that_proc_gives_them(world: World) -> None:
    victim = world.victim("fds", world.scratch)
    for key in "file", "gone", "odd", "null", "pipe", "pipew", "socket":
        name = f"fd/{victim[key]}"
        # busybox readlink ends its text with a newline, which proc_link() takes away.
        assert link(world, victim.pid, name) == world.proc_link(victim.pid, name), key
    assert link(world, victim.pid, f"fd/{victim['gone']}").endswith(b"/gone (deleted)")
    assert link(world, victim.pid, f"fd/{victim['odd']}").endswith(b"odd\n\"quote' \\back\xff\xfe")


def test_the_link_of_a_deleted_program_says_so(world: World) -> None:
    path = f"{world.scratch}/short-lived"
    assert world.run(f"cp {world.tool('victim')} {path}").rc == 0
    pid = world.victim("argv", file=path).pid
    assert link(world, pid, "exe") == path.encode()
    world.run(["rm", path])
    assert link(world, pid, "exe") == path.encode() + b" (deleted)" == world.proc_link(pid, "exe")


def test_a_deep_directory_has_its_whole_name(world: World) -> None:
    deep = f"{world.scratch}/deep" + ("/" + "d" * 200) * 15
    assert world.run(f"mkdir -p {deep}").rc == 0
    pid = world.spawn([world.tool("victim"), "argv"], cwd=deep)
    assert link(world, pid, "cwd") == deep.encode()


def test_kernel_threads_have_no_program(world: World) -> None:
    pid = world.kthread()
    assert errno_of(lambda: link(world, pid, "exe")) == "ENOENT"
    assert link(world, pid, "cwd") == b"/"


def test_zombies_have_no_links(world: World) -> None:
    pid = world.victim("zombie")["zpid"]
    for name in "exe", "cwd", "root":
        assert errno_of(lambda: link(world, pid, name)) == "ENOENT", name


def test_a_closed_file_has_no_link(world: World) -> None:
    pid = world.victim("argv").pid
    assert errno_of(lambda: link(world, pid, "fd/77")) == "ENOENT"


def test_ls_shows_links(world: World) -> None:
    victim = world.victim("fds", world.scratch)
    done = host(["ls", "-l", world.path(victim.pid, "fd")])
    assert done.rc == 0 and b"-> /dev/null" in done.out and b"-> pipe:[" in done.out
