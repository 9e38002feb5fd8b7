# SPDX-License-Identifier: MIT
"""Processes of all kinds: what the mount shows is what the guest's own /proc says."""
from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import machines
from conftest import Kit, booted
from lab import Guest
from machines import patience
from link import READ, READ_STR, Link, errno_name
from seen import NOTHING, guest_mem, mem, mem_errno, oracle, path, shown
from world import Mount, errno_of, opened, pattern, wait_for

pytestmark = pytest.mark.vm("needs processes that this host cannot be given")

GONE = {"ENOENT", "ESRCH"}


@pytest.fixture(scope="module")
def machine(kit: Kit) -> Iterator[Guest]:
    """Whose pids have not been used up by others."""
    with booted(kit, smp=2, mem="1G") as guest:
        yield guest


def state(guest: Guest, pid: int) -> str:
    """The letter in the guest's /proc/PID/stat."""
    return guest.read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0].decode()


def mappings(guest: Guest, pid: int) -> Iterator[tuple[int, int, str]]:
    """Those whose bytes the guest's /proc has: start, size, name.

    Of ARM's vectors it has none, though the process can read them.
    """
    for line in guest.read_file(f"/proc/{pid}/maps").decode().splitlines():
        start, end = (int(n, 16) for n in line.split()[0].split("-"))
        name = (line.split() + [""] * 6)[5]
        if not name.startswith(("[vvar", "[vsyscall", "[vectors")):
            yield start, end - start, name


def check_mem(mount: Mount, guest: Guest, pid: int) -> int:
    """All memory of a process that sleeps; how many bytes there are."""
    total = 0
    for start, size, name in mappings(guest, pid):
        assert mem(mount, pid, start, size) == guest_mem(guest, pid, start, size), name
        total += size
    return total


def test_kernel_threads_are_as_in_proc(guest: Guest, mount: Mount) -> None:
    script = "for d in /proc/[0-9]*; do [ -s $d/exe ] || grep -qs VmSize $d/status || echo ${d#/proc/}; done"
    threads = [int(pid) for pid in guest.run(script).out.split()]
    threads = [pid for pid in threads
               if not guest.read_file(f"/proc/{pid}/comm").startswith(b"kworker")]
    assert len(threads) > 10
    for pid in threads[:6]:
        # Some of them work at times, and are not asleep.
        wait_for(lambda: shown(mount, pid) == oracle(guest, pid))
        said = shown(mount, pid)
        assert said["cmdline"] == said["environ"] == said["maps"] == b""
        assert said["exe"] == NOTHING and not any(name.startswith("fd/") for name in said)
        for addr in 0, 0x400000, (1 << 47) - 4096:
            for size in 1, 100_000:
                assert mem(mount, pid, addr, size) == b""
        with opened(path(mount, pid, "mem"), os.O_WRONLY) as fd:
            assert errno_of(lambda: os.pwrite(fd, b"x", 0x400000)) == "EIO"


def test_a_zombie_is_as_in_proc(guest: Guest, mount: Mount) -> None:
    pid = guest.victim("zombie")[1]["zpid"]
    said = shown(mount, pid)
    assert said == oracle(guest, pid)
    assert said["exe"] == NOTHING and said["cmdline"] == said["maps"] == b""
    assert mem(mount, pid, 0x400000, 100_000) == b""


def test_a_process_that_has_just_died_is_gone_from_open_files(guest: Guest, mount: Mount) -> None:
    """First a zombie, which is empty, then nothing."""
    pid, victim = guest.victim("area", "65536")
    with opened(path(mount, pid, "mem")) as fd, opened(path(mount, pid, "cmdline")) as cmdline:
        assert os.pread(fd, 65536, victim["region"]) == pattern(victim["region"], 65536)
        guest.kill(pid)
        wait_for(lambda: not guest.has(pid))
        for size in 8, 65536:
            assert errno_of(lambda: os.pread(fd, size, victim["region"])) == "ESRCH"
        assert errno_of(lambda: os.pread(cmdline, 100, 0)) == "ESRCH"


@pytest.mark.limit(180)
def test_an_exec_shows_the_old_program_or_the_new_one(guest: Guest, mount: Mount,
                                                     seconds: float) -> None:
    """Nothing is mixed: not the arguments, not the environment, not memory at one address."""
    pid, _ = guest.victim("twins")

    def text(name: str) -> bytes:
        """In one read: between two there may be an exec, as in /proc."""
        with opened(path(mount, pid, name)) as fd:
            return os.pread(fd, 65536, 0)

    fields = wait_for(lambda: [f for f in [text("stat").split()]
                               if int(f[48]) - int(f[47]) > 18000])[0]
    start = int(fields[47]) + len(b"victim\0twins\0")
    args = {b"victim\0twins\0" + 2 * (9000 * c + b"\0") for c in (b"a", b"b")}
    envs = {c + b"=" + 2998 * c + b"\0" for c in (b"a", b"b")}
    mems = {2 * (9000 * c + b"\0") for c in (b"a", b"b")}
    seen: dict[str, set[bytes]] = {"cmdline": set(), "environ": set(), "mem": set()}
    lock = threading.Lock()

    def look(fd: int) -> None:
        got = {name: text(name) for name in ("cmdline", "environ")}
        try:
            got["mem"] = os.pread(fd, 18002, start)  # not in order: also from the window
        except OSError as error:
            assert error.errno == errno.EIO, error  # no stack yet
        # No stack is made longer to meet who reads below it, at no moment of an exec.
        assert errno_of(lambda: os.pread(fd, 1, start - (1 << 20))) == "EIO"
        with lock:
            for name, data in got.items():
                seen[name].add(data)

    end = time.monotonic() + seconds
    with opened(path(mount, pid, "mem")) as fd, ThreadPoolExecutor(3) as pool:
        while time.monotonic() < end:
            list(pool.map(look, [fd] * 6))
    # Between the old and the new there are no arguments, as in /proc.
    assert args <= seen["cmdline"] <= args | {b""}
    assert envs <= seen["environ"] <= envs | {b""}
    assert mems <= seen["mem"], "the reader was too slow to see both"
    for data in seen["mem"] - mems:
        # A read ends where the new program's stack, not yet in its place, does.  On MIPS that is
        # made higher up and moved, so that for a moment what belongs elsewhere is here, and before
        # it the rest of a page.
        moved = machines.current.arch.startswith("mips") and any(
            data.lstrip(b"\0") in arg + env for arg in args for env in envs)
        assert moved or any(data == whole[:len(data)] for whole in mems), data[:100]


@pytest.mark.limit(180)
def test_processes_that_die_while_they_are_read(guest: Guest, mount: Mount,
                                                seconds: float) -> None:
    """Thousands of them: each is right, or not there; nothing else happens."""
    churn = [guest.victim("churn")[0] for _ in range(3)]
    serial, victim = guest.victim("serial")
    before = forks(guest)
    names: list[str] = []
    problems: list[str] = []
    stop = threading.Event()

    def attempt(call, *args):
        try:
            return call(*args)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            names.append(name)
            if name not in GONE:
                problems.append(f"{call.__name__}{args}: {error}")
            return None

    def look(pid: int) -> None:
        stat = attempt(path(mount, pid, "stat").read_bytes)
        is_child = stat and int(stat.rpartition(b")")[2].split()[1]) in churn
        for name in "cmdline", "environ", "maps", "status", "limits", "comm":
            data = attempt(path(mount, pid, name).read_bytes)
            if is_child and name == "cmdline" and data not in (None, b"", b"victim\0churn\0"):
                problems.append(f"cmdline: {data!r}")
        attempt(os.readlink, path(mount, pid, "exe"))
        for fd in attempt(os.listdir, path(mount, pid, "fd")) or ():
            attempt(os.readlink, path(mount, pid, f"fd/{fd}"))
        if is_child:
            for size in 4, 100_000:
                data = attempt(mem, mount, pid, 0x400000, size)
                if data and data[:4] != b"\x7fELF":
                    problems.append(f"mem: {data[:16]!r}")

    def loop() -> None:
        while not stop.is_set():
            stable = {1, *churn, serial}
            for pid in (int(name) for name in attempt(os.listdir, mount.mnt / "pid") or ()):
                if pid > serial or pid in stable:
                    look(pid)

    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(seconds)
        wait_for(lambda: forks(guest) - before > 1000 and len(names) > 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not problems, problems[:5]
    assert set(names) <= GONE


def forks(guest: Guest) -> int:
    """Since it booted."""
    return int(re.search(rb"(?m)^processes (\d+)", guest.read_file("/proc/stat"))[1])


@pytest.mark.limit(180)
def test_an_open_file_never_shows_the_process_that_has_the_pid_next(guest: Guest, mount: Mount,
                                                                    seconds: float) -> None:
    """Pids come again after some seconds; what was opened shows its own process, or ESRCH."""
    parent, victim = guest.victim("serial", "200")
    # 300 are reserved: so there are a hundred.
    guest.run("echo 400 >/proc/sys/kernel/pid_max", check=True)
    held: list[tuple[int, int, bytes]] = []  # pid, descriptor of mem, the number in it

    def hold(stack: contextlib.ExitStack, pid: int) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = path(mount, pid, "stat").read_bytes().rpartition(b")")[2].split()
            if int(stat[1]) == parent:
                fd = stack.enter_context(opened(path(mount, pid, "mem")))
                if number := os.pread(fd, 8, victim["serial"]):
                    held.append((pid, fd, number))

    def reused() -> int:
        numbers: dict[int, set[bytes]] = {}
        for pid, _, number in held:
            numbers.setdefault(pid, set()).add(number)
        return sum(len(seen) > 1 for seen in numbers.values())

    try:
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            while time.monotonic() < began + seconds or reused() < 5:
                assert time.monotonic() < began + patience(40), "pids do not come again"
                for name in os.listdir(mount.mnt / "pid"):
                    if int(name) >= 300:
                        hold(stack, int(name))
                for _, fd, number in held:
                    with contextlib.suppress(ProcessLookupError):
                        # Empty: it is a zombie by now.
                        assert os.pread(fd, 8, victim["serial"]) in (number, b"")
    finally:
        guest.run("echo 32768 >/proc/sys/kernel/pid_max", check=True)


def child_of(guest: Guest, pid: int) -> int:
    children = wait_for(lambda: guest.run(f"cat /proc/{pid}/task/{pid}/children").out.split())
    return int(children[0])


def test_a_process_in_another_pid_namespace(guest: Guest, mount: Mount) -> None:
    pid = child_of(guest, guest.spawn(["unshare", "-p", "-f", "victim", "mem"]))
    wait_for(lambda: b"\0mem\0" in guest.read_file(f"/proc/{pid}/cmdline"))
    wait_for(lambda: state(guest, pid) == "S")
    said = shown(mount, pid)
    assert said == oracle(guest, pid)
    assert re.search(rb"(?m)^NSpid:\t%d\t1$" % pid, said["status"])
    assert check_mem(mount, guest, pid) > 500_000


def test_a_process_in_a_chroot(guest: Guest, mount: Mount) -> None:
    guest.run("cd /tmp && mkdir -p jail/bin jail/dev jail/tmp && cp /bin/victim jail/bin && "
              "mknod jail/dev/null c 1 3", check=True)
    pid = guest.spawn(["chroot", "/tmp/jail", "/bin/victim", "fds", "/tmp"])
    guest.wait_output(pid, rb"socket=.*\n")
    said = shown(mount, pid)
    assert said == oracle(guest, pid)
    assert said["root"] == b"/tmp/jail" and said["exe"] == b"/tmp/jail/bin/victim"
    assert said["cwd"].startswith(b"/tmp/jail/tmp/")
    assert check_mem(mount, guest, pid) > 500_000


def test_a_process_whose_files_are_in_a_mount_namespace_of_its_own(guest: Guest,
                                                                   mount: Mount) -> None:
    pid = guest.spawn(["unshare", "-m", "sh", "-c", "mkdir -p /tmp/mine && "
                       "mount -t tmpfs mine /tmp/mine && cp /bin/victim /tmp/mine && "
                       "cd /tmp/mine && exec ./victim fds /tmp/mine"])
    guest.wait_output(pid, rb"socket=.*\n")
    said = shown(mount, pid)
    assert said == oracle(guest, pid)
    assert said["exe"].endswith(b"/victim") and len(said) > 14
    assert check_mem(mount, guest, pid) > 500_000


@pytest.mark.needs("modules")
def test_a_module_loaded_from_another_pid_namespace_shows_the_initial_one(guest: Guest,
                                                                         daemon) -> None:
    guest.run("rmmod hypermem && unshare -p -f insmod /hypermem.ko", check=True)
    pid, victim = guest.victim("mem")
    with Mount(daemon, guest.hm_socket) as mount:
        assert shown(mount, pid) == oracle(guest, pid)
        assert {1, pid} <= {int(name) for name in os.listdir(mount.mnt / "pid")}
        assert mem(mount, pid, victim["region"], 4096) == pattern(victim["region"], 4096)


def test_threads_whose_leader_has_exited(guest: Guest, mount: Mount) -> None:
    pid, victim = guest.victim("leaderless")
    region, tid = victim["region"], victim["tid"]
    wait_for(lambda: state(guest, pid) == "Z")
    assert pid in {int(name) for name in os.listdir(mount.mnt / "pid")}
    for number in pid, tid:
        assert shown(mount, number) == oracle(guest, number)
        assert mem(mount, number, region, 4096) == guest_mem(guest, number, region, 4096)
    assert mem(mount, pid, region, 4096) == b""
    assert mem(mount, tid, region, 4096) == pattern(region, 4096)
    with opened(path(mount, tid, "mem"), os.O_RDWR) as fd:
        assert os.pwrite(fd, b"to the heir", region) == 11
    assert guest_mem(guest, tid, region, 11) == b"to the heir"


def test_a_parent_in_vfork_and_its_child_have_one_memory(guest: Guest, mount: Mount) -> None:
    pid, victim = guest.victim("vfork")
    child, region = victim["child"], victim["region"]
    wait_for(lambda: state(guest, child) == "S")
    assert state(guest, pid) == "D"
    for number in pid, child:
        assert shown(mount, number) == oracle(guest, number)
        assert mem(mount, number, region, 4096) == pattern(region, 4096)
    with opened(path(mount, child, "mem"), os.O_RDWR) as fd:
        assert os.pwrite(fd, b"to both", region + 100) == 7
    assert mem(mount, pid, region + 100, 7) == b"to both"
    assert check_mem(mount, guest, pid) > 500_000


def test_a_stopped_process_can_be_read_and_written(guest: Guest, mount: Mount) -> None:
    pid, victim = guest.victim("count")
    guest.kill(pid, signal.SIGSTOP)
    wait_for(lambda: state(guest, pid) == "T")
    assert shown(mount, pid) == oracle(guest, pid)
    assert check_mem(mount, guest, pid) > 500_000
    counter = mem(mount, pid, victim["counter"], 4)
    with opened(path(mount, pid, "mem"), os.O_RDWR) as fd:
        assert os.pwrite(fd, b"written while it was stopped\0", victim["message"]) == 29
    assert mem(mount, pid, victim["counter"], 4) == counter
    guest.kill(pid, signal.SIGCONT)
    guest.wait_output(pid, rb": written while it was stopped\n")


@pytest.mark.parametrize("dumpable", [0, 1])
def test_what_is_not_dumpable_belongs_to_root_and_is_shown(guest: Guest, mount: Mount,
                                                           dumpable: int) -> None:
    pid, victim = guest.victim("dumpable", str(dumpable))
    said = shown(mount, pid)
    assert said == oracle(guest, pid)
    assert said["exe"] == b"/bin/victim" and said["environ"]
    assert mem(mount, pid, victim["region"], 4096) == pattern(victim["region"], 4096)
    for name in "", "mem", "environ", "cmdline", "fd":
        owner = guest.run(["stat", "-c", "%u:%g", f"/proc/{pid}/{name}"], check=True).out
        st = path(mount, pid, name).stat()
        assert b"%d:%d\n" % (st.st_uid, st.st_gid) == owner, name
    assert path(mount, pid, "mem").stat().st_uid == (1000 if dumpable else 0)


def test_a_process_that_dumps_its_core(guest: Guest, mount: Mount) -> None:
    """It waits for a pipe that nobody reads, and still has its memory."""
    pattern_file = "/proc/sys/kernel/core_pattern"
    before = guest.read_file(pattern_file)
    guest.write_file("/tmp/dumper", b"#!/bin/sh\nexec sleep 1000\n", 0o755)
    guest.run(f"echo '|/tmp/dumper' >{pattern_file}", check=True)
    try:
        pid, victim = guest.victim("area", "1048576")
        guest.kill(pid, signal.SIGABRT)
        sleeper = wait_for(lambda: guest.run("pidof sleep").out.split())
        wait_for(lambda: b"\nCoreDumping:\t1\n" in guest.read_file(f"/proc/{pid}/status"))
        wait_for(lambda: shown(mount, pid) == oracle(guest, pid))
        assert mem(mount, pid, victim["region"], 1 << 20) == pattern(victim["region"], 1 << 20)
        assert check_mem(mount, guest, pid) > 1 << 20
        with opened(path(mount, pid, "mem")) as fd:
            guest.run(["kill", "-9", *sleeper], check=True)
            wait_for(lambda: not guest.has(pid))
            assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESRCH"
    finally:
        guest.run(f"cat >{pattern_file}", before, check=True)


def test_below_a_stack_there_is_nothing_and_it_does_not_grow(guest: Guest, mount: Mount) -> None:
    """The kernel's own ptrace and /proc/PID/mem would make it grow."""
    pid, victim = guest.victim("mem")
    maps = guest.read_file(f"/proc/{pid}/maps")
    stack = next(start for start, _, name in mappings(guest, pid) if name == "[stack]")
    check_nothing_grows(mount, pid, stack)
    check_nothing_grows(mount, pid, stack | 1 << 56)
    assert guest.read_file(f"/proc/{pid}/maps") == maps
    with opened(path(mount, pid, "mem"), os.O_RDWR) as fd:
        saved = os.pread(fd, 16, stack)
        assert len(saved) == 16 and os.pwrite(fd, saved, stack) == 16


def test_a_tag_in_an_address_means_what_it_means_to_the_processor(guest: Guest,
                                                                  mount: Mount) -> None:
    pid, victim = guest.victim("area", "65536")
    region = victim["region"]
    tagged = region | 1 << 56
    if machines.current.arch == "arm64":  # which does not look at it
        assert mem(mount, pid, tagged + 5, 60_000) == pattern(region + 5, 60_000)
        with opened(path(mount, pid, "mem"), os.O_WRONLY) as fd:
            assert os.pwrite(fd, b"tagged", tagged + 4093) == 6
        assert guest_mem(guest, pid, region + 4093, 6) == b"tagged"
    else:
        assert mem_errno(mount, pid, tagged, 8) == "EIO"
        with opened(path(mount, pid, "mem"), os.O_WRONLY) as fd:
            assert errno_of(lambda: os.pwrite(fd, b"tagged", tagged)) == "EIO"


def test_below_a_mapping_that_grows_downwards_there_is_nothing(guest: Guest,
                                                              mount: Mount) -> None:
    pid, victim = guest.victim("grows")
    maps = guest.read_file(f"/proc/{pid}/maps")
    check_nothing_grows(mount, pid, victim["region"])
    assert guest.read_file(f"/proc/{pid}/maps") == maps
    assert mem(mount, pid, victim["region"], 8192) == pattern(victim["region"], 8192)


def check_nothing_grows(mount: Mount, pid: int, start: int) -> None:
    """Nothing below start can be read or written, in small pieces and large ones."""
    for below in 1, 8, 4096, 4097, 20_000, 65_536, 200_000:
        for size in {8, below, below + 8, below + 70_000}:
            assert mem_errno(mount, pid, start - below, size) == "EIO", (below, size)
        with opened(path(mount, pid, "mem"), os.O_WRONLY) as fd:
            for size in {1, below, below + 8}:
                assert errno_of(lambda: os.pwrite(fd, bytes(size), start - below)) == "EIO"


def test_strings_below_a_stack_do_not_make_it_grow(guest: Guest, link: Link) -> None:
    pid, _ = guest.victim("mem")
    maps = guest.read_file(f"/proc/{pid}/maps")
    stack = next(start for start, _, name in mappings(guest, pid) if name == "[stack]")
    for below in 1, 4096, 8192, 65_536:
        for op in READ_STR, READ:
            assert errno_name(link.call(op, pid, stack - below, 65_536)) == "EIO"
    assert guest.read_file(f"/proc/{pid}/maps") == maps
