# SPDX-License-Identifier: MIT
"""Which names there are, and what stat says of them."""
import ctypes
import os
import stat
import struct
import time

import pytest

from world import World, errno_of, host, wait_for


def kinds(world: World) -> dict[str, int]:
    """A process of each kind."""
    return {"init": 1, "victim": world.victim("argv").pid, "kernel thread": world.kthread(),
            "zombie": world.victim("zombie")["zpid"]}


def test_the_root_has_info_and_pid(world: World) -> None:
    assert {"hooks", "info", "pid"} <= set(os.listdir(world.mnt))


def test_pid_lists_the_guests_processes(world: World) -> None:
    before, listed, after = world.pids(), os.listdir(world.mnt / "pid"), world.pids()
    assert all(name == str(int(name)) for name in listed)
    pids = {int(name) for name in listed}
    assert len(pids) == len(listed)
    assert set(before) & set(after) <= pids
    assert len(pids - set(before) - set(after)) <= 3  # came and went meanwhile


def getdents(fd: int, size: int) -> list[bytes]:
    """Some of the names in a directory: as many as fit."""
    buf = ctypes.create_string_buffer(size)
    n = ctypes.CDLL(None, use_errno=True).syscall(217, fd, buf, size)  # x86-64
    assert n >= 0, os.strerror(ctypes.get_errno())
    names, at = [], 0
    while at < n:
        length = struct.unpack_from("=H", buf, at + 16)[0]
        names.append(buf.raw[at + 19:at + length].split(b"\0")[0])
        at += length
    return names


def test_names_come_once_however_small_the_buffer(world: World) -> None:
    pid = world.victim("argv").pid
    for path in world.mnt / "pid", world.path(pid), world.path(pid, "fd"):
        fd = os.open(path, os.O_RDONLY)
        try:
            for _ in range(2):  # once more from the start
                before = set(os.listdir(path))
                names: list[bytes] = []
                while some := getdents(fd, 100):
                    names += some
                assert len(names) == len(set(names))
                assert {b".", b".."} <= set(names)
                seen = {os.fsdecode(name) for name in names} - {".", ".."}
                assert before & set(os.listdir(path)) <= seen  # others came or went meanwhile
                assert path == world.mnt / "pid" or seen == before
                os.lseek(fd, 0, os.SEEK_SET)
        finally:
            os.close(fd)


def test_a_directory_that_is_read_again_is_listed_anew(world: World) -> None:
    fd = os.open(world.mnt / "pid", os.O_RDONLY)
    try:
        while getdents(fd, 4096):
            pass
        pid = world.victim("argv").pid
        os.lseek(fd, 0, os.SEEK_SET)
        names = []
        while some := getdents(fd, 4096):
            names += some
        assert str(pid).encode() in names
    finally:
        os.close(fd)


def test_a_new_process_is_there_at_once_and_a_dead_one_is_gone(world: World) -> None:
    pid = world.victim("argv").pid
    assert str(pid) in os.listdir(world.mnt / "pid")
    assert world.path(pid, "cmdline").read_bytes()
    world.kill(pid)
    assert str(pid) not in os.listdir(world.mnt / "pid")
    # Names may be cached for a second.
    wait_for(lambda: not world.path(pid).exists(), 3)
    assert errno_of(lambda: os.stat(world.path(pid))) == "ENOENT"


@pytest.mark.parametrize("name", [
    "01", "+1", "1x", "x1", "0", "-1", " 1", "1 ", "0x1", "1.0", "99999999999", "4294967297",
    "18446744073709551617", "2147483648", "4194304", "self", "nosuch", "\u0661", "1\n",
    "1/nosuch", "1/Mem", "1/fd/01", "1/fd/+0", "1/fd/-1", "1/fd/4294967296", "1/fd/99999", "1/fd/x",
    "1/comm/", "1/mem/x"])
def test_a_name_that_is_not_in_proc_does_not_exist(world: World, name: str) -> None:
    expected = {"ENOTDIR"} if name in ("1/comm/", "1/mem/x") else {"ENOENT"}
    assert errno_of(lambda: os.stat(f"{world.mnt}/pid/{name}")) in expected


def test_a_process_has_the_files_of_proc(world: World) -> None:
    names = {"cmdline", "comm", "cwd", "environ", "exe", "fd", "maps", "mem", "root", "stat",
             "status"}
    for pid in kinds(world).values():
        assert names <= set(os.listdir(world.path(pid)))


@pytest.mark.parametrize("name, kind, mode", [
    ("", stat.S_IFDIR, 0o555), ("mem", stat.S_IFREG, 0o600), ("cmdline", stat.S_IFREG, 0o444),
    ("environ", stat.S_IFREG, 0o400), ("comm", stat.S_IFREG, 0o444),
    ("maps", stat.S_IFREG, 0o444), ("status", stat.S_IFREG, 0o444), ("stat", stat.S_IFREG, 0o444),
    ("fd", stat.S_IFDIR, 0o500), ("exe", stat.S_IFLNK, 0o777), ("cwd", stat.S_IFLNK, 0o777),
    ("root", stat.S_IFLNK, 0o777)])
def test_modes_are_those_of_proc(world: World, name: str, kind: int, mode: int) -> None:
    pid = world.victim("argv").pid
    st = os.lstat(world.path(pid, name))
    assert (stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)) == (kind, mode)


def test_a_process_belongs_to_its_effective_user(world: World) -> None:
    for kind, pid in kinds(world).items():
        lines = dict(line.split(b":\t", 1) for line in world.proc(pid, "status").splitlines())
        euid, egid = (int(lines[key].split()[1]) for key in (b"Uid", b"Gid"))
        st = os.stat(world.path(pid))
        assert (st.st_uid, st.st_gid) == (euid, egid), kind


@pytest.mark.fake("no program in the guest's system starts a process as another user")
def test_files_of_an_unprivileged_process_are_its_users(world: World) -> None:
    pid = world.spawn(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                       world.tool("victim"), "argv"])
    world.wait_output(pid, b"pid=")
    for name in "", "mem", "maps", "fd", "exe":
        oracle, st = os.lstat(f"/proc/{pid}/{name}"), os.lstat(world.path(pid, name))
        assert (st.st_uid, st.st_gid) == (oracle.st_uid, oracle.st_gid), name


def test_times_are_the_start_of_the_process(world: World) -> None:
    before = int(world.run("date +%s").out)
    pid = world.victim("argv").pid
    after = int(world.run("date +%s").out)
    st = os.stat(world.path(pid))
    assert before - 2 <= st.st_mtime <= after + 2
    assert st.st_mtime_ns == os.stat(world.path(pid, "comm")).st_mtime_ns
    time.sleep(1.1)
    assert os.stat(world.path(pid)).st_mtime_ns == st.st_mtime_ns


def test_fd_lists_the_open_files_with_their_modes(world: World) -> None:
    victim = world.victim("fds", world.scratch)
    listed = os.listdir(world.path(victim.pid, "fd"))
    if world.name == "fake":
        assert sorted(listed, key=int) == sorted(os.listdir(f"/proc/{victim.pid}/fd"), key=int)
        for name in listed:
            oracle = os.lstat(f"/proc/{victim.pid}/fd/{name}")
            assert os.lstat(world.path(victim.pid, f"fd/{name}")).st_mode == oracle.st_mode, name
    else:
        names = world.run(["ls", f"/proc/{victim.pid}/fd"]).out.split()
        assert sorted(map(os.fsencode, listed)) == sorted(names)
    writable = stat.S_IMODE(os.lstat(world.path(victim.pid, f"fd/{victim['null']}")).st_mode)
    assert writable == 0o300


def test_fd_of_a_process_without_files_is_empty(world: World) -> None:
    assert os.listdir(world.path(world.kthread(), "fd")) == []
    assert os.listdir(world.path(world.victim("zombie")["zpid"], "fd")) == []


def test_nothing_can_be_made_removed_or_renamed(world: World) -> None:
    pid = world.victim("argv").pid
    p = world.path(pid)
    for call in (lambda: os.mkdir(p / "new"), lambda: os.rmdir(p), lambda: os.unlink(p / "mem"),
                 lambda: os.rename(p / "mem", p / "x"), lambda: os.symlink("x", p / "x"),
                 lambda: os.close(os.open(p / "x", os.O_CREAT | os.O_WRONLY)),
                 lambda: os.chmod(p / "mem", 0o777), lambda: os.chown(p / "mem", 7, 7)):
        assert errno_of(call) in ("EPERM", "EACCES", "EROFS", "EOPNOTSUPP", "ENOSYS")
    assert "mem" in os.listdir(p)


def test_find_and_ls_go_through_the_whole_tree(world: World) -> None:
    done = host(["find", world.mnt, "-maxdepth", "3", "-not", "-readable", "-o", "-print"])
    assert done.rc == 0 and b"/pid/1/comm\n" in done.out
    done = host(["ls", "-lR", world.path(world.victim("fds", world.scratch).pid)])
    assert done.rc == 0, done.err


def test_a_process_is_a_working_directory(world: World) -> None:
    pid = world.victim("comm", "here").pid
    assert host("cat comm", cwd=world.path(pid)).out == b"here\n"
