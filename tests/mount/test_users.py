# SPDX-License-Identifier: MIT
"""Whom the mount lets in."""
import os
import signal
import sys
import time

import pytest

from world import Result, World, host, opened


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


# A process of nobody's that is root's after SIGUSR1, as one that executes a setuid program.
TURNS = """
import ctypes, os, signal
signal.signal(signal.SIGUSR1, lambda *_: os.setresuid(0, 0, 0))
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 0)
PR_SET_DUMPABLE = 4
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
buf = ctypes.create_string_buffer(b"secret")
print(f"pid={os.getpid()} addr={ctypes.addressof(buf)}", flush=True)
while True:
    signal.pause()
"""

# Nobody's reader: what each file says before that, and what after it.
READS = """
import os, signal, sys, time
pid, addr = int(sys.argv[2]), int(sys.argv[3])
os.chdir(f"{sys.argv[1]}/pid/{pid}")
mem, value = os.open("mem", os.O_RDWR), os.open(f"str/{addr}", os.O_RDWR)
status, files = os.open("status", os.O_RDONLY), os.open("fd", os.O_RDONLY)
TRIES = [lambda: os.pread(mem, 6, addr), lambda: os.pwrite(mem, b"s", addr),
         lambda: os.pread(value, 6, 0), lambda: os.pwrite(value, b"secret", 0),
         lambda: os.listdir(files)]
for work in TRIES:
    assert work()
assert os.fstat(mem).st_uid == 65534
os.kill(pid, signal.SIGUSR1)
time.sleep(2.5)  # names and attributes are known for a second, here and in the kernel
for work in TRIES:
    try:
        print(work())
    except OSError as error:
        print(error.strerror)
assert os.pread(status, 5, 0) == b"Name:"
assert os.fstat(mem).st_uid == 0
"""


@pytest.mark.fake("a guest has no program that becomes root's when it is told to")
def test_who_has_a_file_open_loses_it_with_the_process(world: World) -> None:
    pid = world.spawn([sys.executable, "-c", TURNS], file=sys.executable)
    addr = world.wait_output(pid, rb"addr=(\d+)\n")[1].decode()
    with world.mount("-o", "allow_other") as mount:
        done = as_nobody("/usr/bin/python3", "-c", READS, mount.mnt, str(pid), addr)
        assert done == (0, b"Permission denied\n" * 5, b"")
        # Root is asked nothing.
        with opened(mount.mnt / "pid" / str(pid) / "mem") as fd:
            assert os.pread(fd, 6, int(addr)) == b"secret"


@pytest.mark.fake("a guest has no program that becomes root's when it is told to")
def test_an_open_file_does_not_say_whose_the_process_was(world: World) -> None:
    pid = world.spawn([sys.executable, "-c", TURNS], file=sys.executable)
    world.wait_output(pid, rb"addr=")
    with opened(world.path(pid, "mem")) as fd:
        assert os.fstat(fd).st_uid == 65534
        for sig in signal.SIGUSR1, signal.SIGKILL:
            world.kill(pid, sig)
            time.sleep(2.1)  # names and attributes are known for a second, here and in the kernel
            os.lseek(fd, 0, os.SEEK_END)  # it asks by the open file, and keeps the answer
            assert os.fstat(fd).st_uid == 0


def test_the_mount_table_names_the_file_system(world: World) -> None:
    lines = [line.split() for line in open("/proc/mounts") if f" {world.mnt} " in line]
    assert [line[2] for line in lines] == ["fuse.hypermemfs"]
