# SPDX-License-Identifier: MIT
"""Whom the mount lets in."""
import os

from world import Result, World, host


def as_nobody(*argv: object) -> Result:
    return host(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                 *(os.fspath(a) for a in argv)])


def test_other_users_are_not_let_in(world: World) -> None:
    done = as_nobody("ls", world.mnt)
    assert done.rc != 0 and b"denied" in done.err


def test_allow_other_lets_them_in_as_far_as_modes_do(world: World) -> None:
    victim = world.victim("mem", world.scratch)
    with world.mount("-o", "allow_other") as mount:
        process = mount.mnt / "pid" / str(victim.pid)
        assert as_nobody("cat", process / "cmdline").out == world.proc(victim.pid, "cmdline")
        assert as_nobody("ls", mount.mnt / "pid").rc == 0
        for name in "mem", "environ":
            done = as_nobody("head", "-c", "1", process / name)
            assert done.rc != 0 and b"Permission denied" in done.err, name
        done = as_nobody("sh", "-c", f"echo x >{process}/mem")
        assert done.rc != 0 and b"Permission denied" in done.err
        assert b"denied" in as_nobody("ls", process / "fd").err


def test_the_mount_table_names_the_file_system(world: World) -> None:
    lines = [line.split() for line in open("/proc/mounts") if f" {world.mnt} " in line]
    assert [line[2] for line in lines] == ["fuse.hypermemfs"]
