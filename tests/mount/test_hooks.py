# SPDX-License-Identifier: MIT
"""hooks/: its directories, and files that say what a hook is to do."""
from __future__ import annotations

import os
import stat
import time

import pytest

from hooks import Hook
from world import FakeGuest, HostWorld, Mount, World, errno_of, host

pytestmark = pytest.mark.needs("kprobes")

FILES = {"enabled": 0o644, "events": 0o444, "filter": 0o644, "reply": 0o200, "stats": 0o444,
         "timeout": 0o644}


def test_a_hook_is_a_directory_of_files(world: World, real: Hook) -> None:
    assert {"hooks", "info", "pid"} == set(os.listdir(world.mnt))
    assert os.listdir(world.mnt / "hooks") == ["x"]
    assert set(os.listdir(real.dir)) == set(FILES)
    for path, mode in [(world.mnt / "hooks", 0o755), (real.dir, 0o755)]:
        st = path.stat()
        assert (stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)) == (stat.S_IFDIR, mode)
        assert (st.st_uid, st.st_gid) == (os.geteuid(), os.getegid())
    for name, mode in FILES.items():
        st = (real / name).stat()
        assert (stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)) == (stat.S_IFREG, mode), name
        assert st.st_uid == os.geteuid()
        assert abs(st.st_mtime - time.time()) < 60
    real.remove()
    assert os.listdir(world.mnt / "hooks") == []
    assert errno_of(lambda: os.stat(real / "filter")) == "ENOENT"


def test_a_new_hook_does_nothing_yet(real: Hook) -> None:
    assert real.read("filter") == ""
    assert real.read("enabled") == "1\n"
    assert real.read("timeout") == "5\n"
    assert set(real.stats().values()) == {0}
    with real.events(os.O_NONBLOCK) as events:
        assert errno_of(lambda: os.read(events.fd, 4096)) == "EAGAIN"
        assert not events.ready()


def test_names_are_any_line_of_up_to_63_bytes(world: World) -> None:
    names = ["raeth", "with space", "it's", "-", "..x", "*", "ä", "n" * 63, "1"]
    for name in names:
        (world.mnt / "hooks" / name).mkdir()
    assert sorted(os.listdir(world.mnt / "hooks")) == sorted(names)
    assert errno_of(lambda: os.mkdir(world.mnt / "hooks" / "raeth")) == "EEXIST"
    for name in names:
        (world.mnt / "hooks" / name).rmdir()
    for name, error in [("n" * 64, "ENAMETOOLONG"), ("a\nb", "EINVAL"), ("\x7f", "EINVAL"),
                        ("\x01", "EINVAL")]:
        assert errno_of(lambda: os.mkdir(world.mnt / "hooks" / name)) == error, name
    assert os.listdir(world.mnt / "hooks") == []


def test_there_are_256_hooks_at_most(world: World) -> None:
    paths = [world.mnt / "hooks" / str(i) for i in range(256)]
    try:
        for path in paths:
            path.mkdir()
        assert errno_of(lambda: os.mkdir(world.mnt / "hooks" / "more")) == "ENOSPC"
        paths[0].rmdir()
        (world.mnt / "hooks" / "more").mkdir()
        (world.mnt / "hooks" / "more").rmdir()
    finally:
        for path in paths:
            if path.exists():
                path.rmdir()


def test_what_is_not_a_hook_can_be_neither_made_nor_removed(world: World, real: Hook) -> None:
    for call in (lambda: os.rmdir(world.mnt / "hooks"), lambda: os.rmdir(world.mnt / "hooks/none"),
                 lambda: os.mkdir(real / "more"), lambda: os.unlink(real / "filter"),
                 lambda: os.rename(real.dir, world.mnt / "hooks/y"),
                 lambda: os.close(os.open(world.mnt / "hooks/file", os.O_CREAT | os.O_WRONLY)),
                 lambda: os.close(os.open(real / "file", os.O_CREAT | os.O_WRONLY))):
        assert errno_of(call) in ("EPERM", "ENOENT")
    assert set(os.listdir(real.dir)) == set(FILES)


def test_a_filter_is_read_as_it_was_written(real: Hook) -> None:
    for text in ["getppid", "ioctl,openat return arg1==0x89f1 comm=mtk7530_switch\n",
                 "  *  trace\n\tcomm=\"nobody \\x41\"\n"]:
        real.write("filter", text)
        assert real.read("filter") == text


def test_a_bad_filter_says_where_it_is_wrong_and_the_old_one_stays(real: Hook) -> None:
    real.filter("getppid comm=nobody")
    assert real.errno("filter", "ioctl return arg1==x\n") == "EINVAL"
    assert real.read("filter") == ("ioctl return arg1==x\n"
                                   "                   ^\n"
                                   "error: column 20: the value is no number\n")
    assert real.errno("filter", "openat retval==-2\n") == "EINVAL"
    assert real.read("filter").startswith("openat retval==-2\n       ^\nerror: column 8: ")
    real.write("enabled", "0")  # the old one is told to the guest again
    real.filter("getppid")
    assert real.read("filter") == "getppid\n"


def test_a_call_that_the_guest_has_not_is_a_bad_filter(real: Hook) -> None:
    assert real.errno("filter", "no_such_call\n") == "EINVAL"
    assert "error: column 1: the guest's kernel has none of these calls" in real.read("filter")
    real.filter("no_such_call,getppid comm=nobody")  # one is enough


def test_shells_can_write_to_all_of_it(real: Hook) -> None:
    script = ("echo 'getppid comm=nobody' > filter && echo 0 > enabled && echo 0.25 > timeout &&"
              "echo 'getppid comm=noone' >| filter && cat filter enabled timeout")
    for shell in "sh", "bash":
        done = host([shell, "-c", script], cwd=real.dir)
        assert (done.rc, done.out, done.err) == (0, b"getppid comm=noone\n0\n0.250\n", b"")
    done = host(["bash", "-c", "echo 'getppid arg9==1' > filter"], cwd=real.dir)
    assert done.rc != 0 and b"Invalid argument" in done.err


@pytest.mark.parametrize("name, good, bad", [
    ("enabled", {"0": "0\n", "1\n": "1\n", "0\n": "0\n"}, ["", "\n", "2", "01", "yes", "1 ", "1\n\n"]),
    ("timeout", {"1": "1\n", "0.001\n": "0.001\n", "3600": "3600\n", "2.5": "2.500\n", ".5": "0.500\n",
                 "5.0\n": "5\n"},
     ["", "\n", "-1", "x", "1s", "1e3", "nan", "inf", "0x10", ".", "1.2.3", " 1"])])
def test_a_value_is_what_was_written_or_einval(real: Hook, name: str, good: dict[str, str],
                                               bad: list[str]) -> None:
    for text, shown in good.items():
        real.write(name, text)
        assert real.read(name) == shown
    for text in bad:
        if text:
            assert real.errno(name, text) == "EINVAL", text
    assert real.read(name) == list(good.values())[-1]
    for text in ("0", "0.0001", "3600.1", "999999999") if name == "timeout" else ():
        assert real.errno(name, text) == "ERANGE", text


def test_modes_are_what_can_be_done(real: Hook) -> None:
    assert errno_of(lambda: os.close(os.open(real / "reply", os.O_RDONLY))) == "EACCES"
    assert errno_of(lambda: os.close(os.open(real / "reply", os.O_RDWR))) == "EACCES"
    assert errno_of(lambda: os.close(os.open(real / "events", os.O_WRONLY))) == "EACCES"
    assert errno_of(lambda: os.close(os.open(real / "stats", os.O_RDWR))) == "EACCES"
    with real.events() as events:
        assert errno_of(lambda: os.lseek(events.fd, 0, os.SEEK_SET)) == "ESPIPE"


@pytest.mark.parametrize("text, error", [
    ("1 continue\n", "ESRCH"), ("1 continue", "ESRCH"), ("1 go\n", "EINVAL"), ("", "OK"),
    ("\n", "EINVAL"), ("1\n", "EINVAL"), ("18446744073709551615 skip retval=-1\n", "ESRCH"),
    ("1 continue\n1 bad\n", "ESRCH"), ("bad\n1 continue\n", "EINVAL")])
def test_a_reply_to_nobody_fails(real: Hook, text: str, error: str) -> None:
    assert real.errno("reply", text) == error


def test_a_mount_that_is_read_only_makes_no_hooks(world: World) -> None:
    with world.mount("-o", "ro") as mount:
        assert os.listdir(mount.mnt / "hooks") == []
        assert errno_of(lambda: os.mkdir(mount.mnt / "hooks" / "x")) == "EROFS"


def test_others_may_look_but_not_touch(world: World) -> None:
    with world.mount("-o", "allow_other") as mount:
        hook = Hook(mount.mnt)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        assert host([*nobody, "cat", hook / "stats"]).rc == 0
        for script in (f"mkdir {mount.mnt}/hooks/y", f"rmdir {hook.dir}",
                       f"echo getppid >{hook.dir}/filter", f"echo 1 continue >{hook.dir}/reply"):
            done = host([*nobody, "sh", "-c", script])
            assert done.rc != 0 and b"ermission denied" in done.err, script
        hook.remove()


@pytest.mark.fake("a real guest's module has what its kernel has")
def test_a_guest_without_hooks_says_so(world: HostWorld, fake: FakeGuest) -> None:
    for how, error in [("lacks=16", "EOPNOTSUPP"), ("lacks=18", "EOPNOTSUPP"),
                       ("forbids=16", "EPERM")]:
        fake.misbehave(how)
        with Mount(world.daemon, fake.socket) as mount:
            assert os.listdir(mount.mnt / "hooks") == []
            assert errno_of(lambda: os.mkdir(mount.mnt / "hooks" / "x")) == error
