# SPDX-License-Identifier: MIT
"""hooks/: its files, its events, and that nobody hangs.

The fake guest makes calls to order (see tests/fake_guest_caller.c): a hook on fake_N_MS has N
calls, one every MS milliseconds.  What a reply does to a call is seen in the next one.
"""
from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hooks import Hook, coming_and_going, made, shell_words
from world import FakeGuest, HostWorld, Mount, Victim, World, errno_of, host, wait_for

made_up = pytest.mark.fake("a real guest makes no calls to order; see tests/vm/test_hook_files.py")

FILES = {"enabled": 0o644, "events": 0o444, "filter": 0o644, "reply": 0o200, "stats": 0o444,
         "timeout": 0o644}


@pytest.fixture
def hook(mount: Mount) -> Iterator[Hook]:
    with made(mount.mnt) as hook:
        yield hook


# -- the files --------------------------------------------------------------------------------


@pytest.fixture
def real(world: World) -> Iterator[Hook]:
    """A hook in any guest."""
    with made(world.mnt) as hook:
        yield hook


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


# -- events -----------------------------------------------------------------------------------


@made_up
def test_an_event_has_all_there_is_to_know(fake: FakeGuest, hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_2_10 return regs")
        line = events.line()
        event = shell_words(line)
        words = [word.split(b"=")[0].decode() for word in line.split()]
        assert words == ["id", "hook", "phase", "call", "nr", "pid", "tid", "stamp", "comm",
                         "compat", "time", "arg0", "arg1", "arg2", "arg3", "arg4", "arg5",
                         "retval", "sp", "pc", "orig_rax"]
        assert int(event["id"]) > 0
        expected = {"hook": "x", "phase": "return", "call": "fake_2_10", "comm": "fake",
                    "compat": "0", "arg0": "0x0", "arg2": "0x1000", "retval": "4096",
                    "sp": "0x7ffd12345678", "nr": "1000"}
        assert {key: event[key] for key in expected} == expected


@made_up
def test_a_reply_decides_how_a_call_goes_on(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_9_1 enter return")
        rows = [
            # What is said when it is entered, and when it returns; what is seen then.
            ("continue", "continue", {"retval": "4096", "arg2": "0x1000"},
             {"arg3": "0x1000", "arg4": "0x0", "arg5": "0x1000"}),
            ("arg2=0x77", "continue", {"retval": "119", "arg2": "0x77"},
             {"arg3": "0x77", "arg5": "0x77"}),
            ("arg2=-1 arg1=5", "continue", {"retval": "-1", "arg1": "0x5"},
             {"arg5": "0xffffffffffffffff"}),
            ("skip", "continue", {"retval": "0", "skipped": "1"}, {"arg4": "0x1", "arg5": "0x0"}),
            ("skip retval=-13", "continue", {"retval": "-13", "skipped": "1"},
             {"arg5": "0xfffffffffffffff3"}),
            ("retval=7", "continue", {"retval": "7", "skipped": "1"}, {"arg5": "0x7"}),
            ("continue", "retval=-22", {"retval": "4102"},
             {"arg4": "0x0", "arg5": "0xffffffffffffffea"}),
            ("continue", "retval=0x10", {"retval": "4103"}, {"arg5": "0x10"})]
        entered = events.next()
        for enter, leave, seen, after in rows:
            assert entered["phase"] == "enter" and "retval" not in entered
            hook.write("reply", f"{entered['id']} {enter}\n")
            returned = events.next()
            assert returned["phase"] == "return"
            assert {key: returned.get(key) for key in seen} == seen
            hook.write("reply", f"{returned['id']} {leave}\n")
            entered = events.next()
            assert {key: entered.get(key) for key in after} == after
        assert hook.stats()["replied"] == 16
        assert hook.stats()["continued"] == 9


@made_up
def test_a_reply_that_cannot_be_changes_nothing(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_2_1 return")
        event = events.next()
        for verb in "skip", "arg1=1", "retval=x", "go", "":
            assert hook.errno("reply", f"{event['id']} {verb}\n") == "EINVAL", verb
        assert hook.errno("reply", f"{int(event['id']) + 1} continue\n") == "ESRCH"
        hook.write("reply", f"{event['id']} continue\n")
        assert hook.errno("reply", f"{event['id']} continue\n") == "ESRCH"
        assert events.next()["arg5"] == "0x1000"


def test_a_result_between_functions_of_the_kernel_is_refused(world: World, real: Hook) -> None:
    world.victim("caller", "10")
    with real.events() as events:
        real.filter("getppid enter return comm=caller")
        for phase in "enter", "return":
            event = events.next()
            assert event["phase"] == phase
            for retval in -512, -514, -516:
                assert real.errno("reply", f"{event['id']} retval={retval}\n") == "EINVAL"
            real.write("reply", f"{event['id']} continue\n")  # it has waited for this
        for retval in -511, -517:
            event = events.next()
            real.write("reply", f"{event['id']} retval={retval}\n")
            event = events.next()
            assert (event["phase"], event["retval"]) == ("return", str(retval))
            real.write("reply", f"{event['id']} continue\n")


def test_a_call_that_does_not_return_is_not_skipped(world: World, real: Hook) -> None:
    real.write("timeout", "60")
    with real.events() as events:
        real.filter("exit_group comm=sleep")
        world.spawn(["sleep", "0"])
        event = events.next()
        assert (event["phase"], event["call"]) == ("enter", "exit_group")
        for verbs in "skip", "retval=0", "skip retval=-1", "arg0=3 skip":
            assert real.errno("reply", f"{event['id']} {verbs}\n") == "EINVAL", verbs
        assert real.stats()["replied"] == 0
        real.write("reply", f"{event['id']} arg0=3\n")
        wait_for(lambda: real.stats()["replied"] == 1)


def test_the_files_of_a_hook_that_was_removed_say_so(real: Hook) -> None:
    real.filter("getppid comm=nobody")
    files = {name: os.open(real / name, flags) for name, flags in
             [("filter", os.O_RDWR), ("enabled", os.O_RDWR), ("timeout", os.O_RDWR),
              ("stats", os.O_RDONLY), ("reply", os.O_WRONLY), ("events", os.O_RDONLY)]}
    real.remove()
    for name, text in [("filter", b"getppid\n"), ("enabled", b"0\n"), ("timeout", b"1\n")]:
        assert errno_of(lambda: os.write(files[name], text)) == "ENODEV", name
    assert errno_of(lambda: os.write(files["reply"], b"1 continue\n")) == "ESRCH"
    assert os.read(files["events"], 4096) == b""
    for name, text in [("filter", b"getppid comm=nobody\n"), ("enabled", b"1\n"),
                       ("timeout", b"5\n")]:
        assert os.pread(files[name], 4096, 0) == text
    assert os.pread(files["stats"], 4096, 0).startswith(b"matched: 0\n")
    for fd in files.values():
        os.close(fd)


@made_up
def test_a_reply_is_for_the_calls_of_its_own_hook(mount: Mount, hook: Hook) -> None:
    other = Hook(mount.mnt, "other")
    with hook.events() as events:
        hook.filter("fake_1_1")
        event = events.next()
        assert other.errno("reply", f"{event['id']} continue\n") == "ESRCH"
        hook.write("reply", f"{event['id']} continue\n")
    other.remove()


@made_up
def test_several_replies_in_one_write_are_each_done(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_1_1_5")
        ids = [events.next()["id"] for _ in range(5)]
        lines = "".join(f"{i} continue\n" for i in [*ids[:3], "bad", *ids[3:]])
        assert hook.errno("reply", lines) == "EINVAL"
        wait_for(lambda: hook.stats()["replied"] == 5)
        assert hook.errno("reply", lines.replace("bad", ids[0])) == "ESRCH"


@made_up
def test_a_read_waits_until_there_is_an_event(hook: Hook) -> None:
    with hook.events() as events:
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(os.read(events.fd, 4096)))
        thread.start()
        time.sleep(0.3)
        assert not got and thread.is_alive()
        hook.filter("fake_1_1 trace")
        thread.join(10)
        assert got and got[0].startswith(b"id=0 ") and got[0].endswith(b"\n")


@made_up
def test_poll_select_and_epoll_tell_when_there_is_one(hook: Hook) -> None:
    with hook.events(os.O_NONBLOCK) as events:
        epoll = select.epoll()
        epoll.register(events.fd, select.EPOLLIN)
        waits: dict[str, Callable[[float], bool]] = {
            "poll": events.ready,
            "select": lambda t: bool(select.select([events.fd], [], [], t)[0]),
            "epoll": lambda t: bool(epoll.poll(t))}
        assert not any(wait(0) for wait in waits.values())
        for i, (name, wait) in enumerate(waits.items()):
            threading.Timer(0.3, lambda: hook.filter(f"fake_1_{i} trace")).start()
            began = time.monotonic()
            assert wait(10), name
            assert 0.1 < time.monotonic() - began < 5, name
            assert all(wait(0) for wait in waits.values())
            assert os.read(events.fd, 4096)
            assert errno_of(lambda: os.read(events.fd, 4096)) == "EAGAIN"
            assert not any(wait(0) for wait in waits.values())
        epoll.close()


def test_other_files_are_always_ready(real: Hook) -> None:
    fd = os.open(real / "stats", os.O_RDONLY)
    assert select.select([fd], [fd], [], 0) == ([fd], [fd], [])
    os.close(fd)


@made_up
def test_each_read_has_whole_lines_or_a_part_of_one(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_50_0 trace")
        wait_for(lambda: hook.stats()["sent"] == 50)
        some = os.read(events.fd, 1000)
        assert some.endswith(b"\n") and 500 < len(some) <= 1000
        parts = b""
        while not parts.endswith(b"\n"):
            parts += os.read(events.fd, 7)
        assert parts.startswith(b"id=0") and parts.count(b"\n") == 1
        rest = os.read(events.fd, 1 << 20)
        lines = (some + parts + rest).splitlines()
        assert len(lines) == 50
        assert [shell_words(line)["arg0"] for line in lines[:3]] == ["0x0", "0x1", "0x2"]


@made_up
def test_a_shell_script_can_handle_events(hook: Hook) -> None:
    script = """
        exec 3<events
        echo 'fake_3_1 return' >filter
        n=0
        while [ $n -lt 3 ] && read -r line <&3; do
            eval "$line"
            echo "$call $arg0 $retval"
            echo "$id retval=$n" >reply
            n=$((n + 1))
        done"""
    for shell in "sh", "bash":
        done = host([shell, "-ec", script], cwd=hook.dir)
        assert (done.rc, done.err) == (0, b"")
        assert done.out == b"fake_3_1 0x0 4096\nfake_3_1 0x1 4097\nfake_3_1 0x2 4098\n"
        hook.filter("getppid")


@made_up
@pytest.mark.parametrize("command", ["sed 1q events", "grep -m 1 . events",
                                     'read -r line <events; echo "$line"'])
def test_a_line_is_shown_by_a_tool_that_does_not_seek(hook: Hook, command: str) -> None:
    hook.filter("fake_1000_20 trace")
    done = host(["sh", "-c", command], cwd=hook.dir)
    assert (done.rc, done.err) == (0, b"")
    assert done.out.startswith(b"id=0 ") and done.out.count(b"\n") == 1


@made_up
@pytest.mark.parametrize("comm", ["it's", "'", "''", "$(reboot)", "`id`", "a b", "\\", "\"", "-n",
                                  "a;b", "#", "~", "*", "a\nid=1", "\x1b[2J", "\x7f", "é", "\t"])
def test_what_the_guest_says_does_nothing_to_a_shell(mount: Mount, hook: Hook, comm: str) -> None:
    quoted = "".join(f"\\x{byte:02x}" for byte in comm.encode())
    with hook.events() as events:
        hook.filter(f'fake_1_1 trace comm="{quoted}"')
        line = events.line()
        assert line.count(b"\n") == 1
        shown = "".join("?" if ord(c) < 32 or ord(c) == 127 else c for c in comm)
        assert shell_words(line)["comm"] == shown


@made_up
def test_a_hooks_own_name_is_quoted_too(mount: Mount) -> None:
    hook = Hook(mount.mnt, "it's $(a) hook")
    with hook.events() as events:
        hook.filter("fake_1_1 trace")
        assert events.next()["hook"] == "it's $(a) hook"
    hook.remove()


# -- nobody hangs -----------------------------------------------------------------------------


@made_up
def test_a_reply_that_never_comes_is_timed_out(hook: Hook) -> None:
    hook.write("timeout", "0.3")
    with hook.events() as events:
        hook.filter("fake_2_1")
        first = events.next()
        began = time.monotonic()
        second = events.next()
        assert 0.2 < time.monotonic() - began < 5
        assert second["arg5"] == "0x1000"  # as though unhooked
        assert hook.errno("reply", f"{first['id']} continue\n") == "ESRCH"
        wait_for(lambda: hook.stats()["timed_out"] == 2)


@made_up
def test_without_a_reader_calls_do_not_wait(hook: Hook) -> None:
    hook.filter("fake_3_1")
    wait_for(lambda: hook.stats()["matched"] == 3)
    stats = hook.stats()
    assert (stats["unattended"], stats["sent"], stats["dropped"]) == (3, 0, 0)
    hook.filter("fake_4_1 trace")
    wait_for(lambda: hook.stats()["matched"] == 7)
    assert hook.stats()["dropped"] == 4


@made_up
def test_when_its_reader_goes_calls_go_on(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_1_1_3")
        event = events.next()
        wait_for(lambda: hook.stats()["sent"] == 3)
    wait_for(lambda: hook.stats()["abandoned"] == 3)
    assert hook.errno("reply", f"{event['id']} continue\n") == "ESRCH"
    # Those of the reader before are not told to the next one.
    with hook.events(os.O_NONBLOCK) as events:
        assert errno_of(lambda: os.read(events.fd, 4096)) == "EAGAIN"
        hook.filter("fake_1_2")
        assert events.next()["call"] == "fake_1_2"


@made_up
def test_a_handler_that_is_killed_leaves_nobody_waiting(hook: Hook) -> None:
    with subprocess.Popen(["sh", "-c", "exec 3<events; echo fake_1_1 >filter; cat <&3"],
                          cwd=hook.dir, stdout=subprocess.PIPE,
                          start_new_session=True) as handler:
        assert handler.stdout and handler.stdout.readline()
        os.killpg(handler.pid, signal.SIGKILL)
    wait_for(lambda: hook.stats()["abandoned"] == 1)


@made_up
def test_a_hook_that_is_removed_lets_its_calls_go(mount: Mount, hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_2_1")
        event = events.next()
        reply = os.open(hook / "reply", os.O_WRONLY)
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(os.read(events.fd, 4096)))
        thread.start()
        time.sleep(0.2)
        hook.remove()
        thread.join(10)
        assert got == [b""]  # the end
        assert os.read(events.fd, 4096) == b"" and events.ready()
        assert errno_of(lambda: os.write(reply, f"{event['id']} continue\n".encode())) == "ESRCH"
        os.close(reply)
        # Another of that name is another hook.
        again = Hook(mount.mnt)
        assert again.read("filter") == "" and set(again.stats().values()) == {0}
        with again.events() as others:
            again.filter("fake_1_1 trace")
            assert others.next()["call"] == "fake_1_1"
    again.remove()


@made_up
def test_disabled_it_matches_nothing_and_forgets_nothing(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_1000_5 trace")
        events.line()
        hook.write("enabled", "0\n")
        time.sleep(0.1)
        before = hook.stats()["matched"]
        time.sleep(0.2)
        assert hook.stats()["matched"] == before > 0
        assert hook.read("filter") == "fake_1000_5 trace\n"
        hook.write("enabled", "1\n")
        wait_for(lambda: hook.stats()["matched"] > before)


@made_up
def test_a_second_reader_is_told_that_it_is_busy(hook: Hook) -> None:
    with hook.events():
        assert errno_of(lambda: os.close(os.open(hook / "events", os.O_RDONLY))) == "EBUSY"
    for _ in range(20):  # but never who comes when the first has closed it
        with hook.events():
            pass


@made_up
def test_events_without_room_are_counted(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_6000_0 trace")
        wait_for(lambda: hook.stats()["sent"] == 6000)
        wait_for(lambda: hook.stats()["dropped"] > 0)
        assert hook.stats()["dropped"] == 6000 - 4096
        lines = 0
        while lines < 4096:
            lines += os.read(events.fd, 1 << 20).count(b"\n")
        assert lines == 4096 and not events.ready()
        hook.filter("fake_1_1 trace")
        assert events.next()["lost"] == str(6000 - 4096)


@made_up
@pytest.mark.limit(120)
def test_calls_without_room_for_their_events_go_on(hook: Hook) -> None:
    hook.write("timeout", "60")
    with hook.events() as events:
        hook.filter("fake_6000_0 trace")
        wait_for(lambda: hook.stats()["sent"] == 6000)
        hook.filter("fake_5_0")
        wait_for(lambda: hook.stats()["unattended"] == 5)
        stats = hook.stats()
        assert (stats["matched"], stats["replied"], stats["timed_out"]) == (6005, 0, 0)
        assert os.read(events.fd, 1 << 20)


@made_up
def test_ctrl_c_ends_a_read_of_events_at_once(hook: Hook) -> None:
    with subprocess.Popen(["cat", hook / "events"], stdout=subprocess.DEVNULL) as reader:
        time.sleep(0.5)
        assert reader.poll() is None
        began = time.monotonic()
        reader.send_signal(signal.SIGINT)
        assert reader.wait(10) == -signal.SIGINT
        assert time.monotonic() - began < 1


@made_up
def test_readers_of_events_hold_up_nobody_else(world: HostWorld, mount: Mount,
                                               victim: Victim) -> None:
    hooks = [Hook(mount.mnt, f"h{i}") for i in range(64)]
    readers = [subprocess.Popen(["cat", hook / "events"], stdout=subprocess.PIPE)
               for hook in hooks]
    try:
        time.sleep(1)
        assert all(reader.poll() is None for reader in readers)
        for _ in range(20):
            began = time.monotonic()
            assert (mount.mnt / "pid" / str(victim.pid) / "cmdline").read_bytes()
            assert time.monotonic() - began < 2
        hooks[-1].filter("fake_1_1 trace")
        out = readers[-1].stdout
        assert out and out.readline().startswith(b"id=0 hook='h63'")
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
            if reader.stdout:
                reader.stdout.close()
        for hook in hooks:
            hook.remove()


@made_up
def test_a_reader_of_events_does_not_keep_the_daemon_from_ending(world: HostWorld,
                                                                 fake: FakeGuest) -> None:
    m = Mount(world.daemon, fake.socket)
    hook = Hook(m.mnt)
    hook.filter("fake_1_1000")
    with subprocess.Popen(["cat", hook / "events"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as reader:
        time.sleep(0.3)
        began = time.monotonic()
        m.process.terminate()
        m.process.wait(10)
        assert time.monotonic() - began < 5
        reader.wait(10)
    m.close()
    assert m.process.returncode == 0


@made_up
def test_threads_that_wait_are_each_told_and_each_go_on(hook: Hook) -> None:
    hook.write("timeout", "60")
    with hook.events() as events:
        hook.filter("fake_2_1_200 return")
        for _ in range(400):
            event = events.line().split()
            hook.write("reply", event[0][3:] + b" retval=1\n")
        wait_for(lambda: hook.stats()["replied"] == 400)
        assert hook.stats()["timed_out"] == hook.stats()["abandoned"] == 0


# -- the link ---------------------------------------------------------------------------------


def lose_link(fake: FakeGuest, how: str) -> None:
    if how == "killed":
        fake.kill()
        fake.start()
    else:
        fake.misbehave(how)


@made_up
@pytest.mark.parametrize("how", ["killed", "reboot"])
def test_after_a_lost_link_hooks_are_set_again(mount: Mount, fake: FakeGuest, hook: Hook,
                                               how: str) -> None:
    hook.write("timeout", "30")
    with hook.events() as events:
        hook.filter("fake_1_1")
        event = events.next()
        lose_link(fake, how)
        with contextlib.suppress(OSError):
            os.stat(mount.mnt / "pid" / "1")  # so that the guest looks how it is to behave
        # The same hook: with another call, since the guest that made the first has gone.
        assert events.next()["call"] == "fake_1_1"
        assert hook.errno("reply", f"{int(event['id']) + 1000} continue\n") == "ESRCH"
        stats = hook.stats()
        assert (stats["matched"], stats["sent"], stats["abandoned"]) == (2, 2, 1)
        assert hook.read("timeout") == "30\n"


@made_up
def test_a_call_of_a_lost_session_does_not_wait_any_more(mount: Mount, fake: FakeGuest,
                                                         hook: Hook) -> None:
    with hook.events(os.O_NONBLOCK) as events:
        hook.filter("fake_1_1_2")
        event = events.next()
        events.next()
        fake.kill()
        wait_for(lambda: hook.errno("reply", f"{event['id']} continue\n") == "ESRCH")
        wait_for(lambda: "link: down" in (mount.mnt / "info").read_text())
        wait_for(lambda: errno_of(lambda: os.read(events.fd, 4096)) == "EAGAIN")
        assert hook.stats()["abandoned"] == 2
        assert hook.errno("filter", "fake_2_2\n") == "ENOTCONN"
        assert hook.read("filter") == "fake_1_1_2\n"
        assert errno_of(lambda: os.mkdir(mount.mnt / "hooks" / "y")) == "ENOTCONN"
        fake.start()
        assert events.next()["call"] == "fake_1_1_2"


@made_up
def test_events_can_be_opened_and_closed_while_there_is_no_link(mount: Mount, fake: FakeGuest,
                                                                hook: Hook) -> None:
    hook.filter("fake_1_1 trace")
    wait_for(lambda: hook.stats()["matched"] == 1)
    fake.kill()
    wait_for(lambda: "link: down" in (mount.mnt / "info").read_text())
    with hook.events():
        pass
    with hook.events() as events:
        fake.start()
        assert events.next()["call"] == "fake_1_1"


@made_up
def test_hooks_end_with_the_daemon(world: HostWorld, fake: FakeGuest) -> None:
    with Mount(world.daemon, fake.socket) as mount:
        hook = Hook(mount.mnt)
        hook.filter("fake_1000_1")
    with Mount(world.daemon, fake.socket) as mount:
        assert os.listdir(mount.mnt / "hooks") == []


# What a guest can do to its events, and what the reader sees then.
EVENT_LIES = ["event-many-regs", "event-regs-beyond", "event-comm", "event-call", "event-no-call",
              "event-hook", "event-no-id", "event-pid", "event-none"]


@made_up
@pytest.mark.daemon_talks
@pytest.mark.parametrize("how", EVENT_LIES)
def test_an_event_that_cannot_be_is_not_told(mount: Mount, fake: FakeGuest, how: str) -> None:
    fake.misbehave(how)
    hook = Hook(mount.mnt)
    with hook.events() as events:
        hook.filter("fake_1_1 trace")
        wait_for(lambda: b"the guest's answer has" in mount.stderr())
        assert not events.ready(0.2)
        fake.misbehave()
        # The one that is asked for already is spoilt, too.
        for i in range(2, 30):
            hook.filter(f"fake_{i}_1 trace")
            if events.ready(0.3):
                break
        assert events.next()["call"].startswith("fake_")
    hook.remove()


@made_up
def test_registers_that_were_not_asked_for_are_not_told(mount: Mount, fake: FakeGuest) -> None:
    fake.misbehave("event-regs")
    hook = Hook(mount.mnt)
    with hook.events() as events:
        hook.filter("fake_1_1 trace")
        event = events.next()
        assert event["call"] == "fake_1_1"
        assert not {"sp", "pc", "orig_rax"} & event.keys()
        hook.filter("fake_2_1 trace regs")
        assert events.next()["sp"] == "0x7ffd12345678"
    hook.remove()


@made_up
@pytest.mark.daemon_talks
def test_an_event_that_comes_twice_is_told_once(mount: Mount, fake: FakeGuest) -> None:
    fake.misbehave("event-twice")
    hook = Hook(mount.mnt)
    with hook.events() as events:
        hook.filter("fake_1_1")
        event = events.next()
        assert not events.ready(0.3)
        hook.write("reply", f"{event['id']} continue\n")
    hook.remove()


@made_up
@pytest.mark.daemon_talks
@pytest.mark.parametrize("how, error", [
    ("fail=12", "ENOMEM"), ("fail=22", "EINVAL"), ("fail=0", "EPROTO"), ("hang-op=16", "ETIMEDOUT"),
    ("close", "ENOTCONN"), ("wrong-addr", "EPROTO")])
def test_a_filter_that_cannot_be_set_says_why(mount: Mount, fake: FakeGuest, hook: Hook, how: str,
                                              error: str) -> None:
    hook.filter("fake_1_1")
    fake.misbehave(how)
    assert hook.errno("filter", "fake_2_2\n") == error
    fake.misbehave()
    wait_for(lambda: hook.errno("filter", "fake_3_3\n") == "OK")
    assert hook.read("filter") == "fake_3_3\n"


@made_up
@pytest.mark.limit(120)
def test_hooks_that_come_and_go_under_load_leave_nothing(mount: Mount, victim: Victim) -> None:
    with coming_and_going(mount.mnt, "fake_20_0_4", calls=5) as failures:
        for _ in range(100):
            assert (mount.mnt / "pid" / str(victim.pid) / "comm").read_bytes() == b"victim\n"
        time.sleep(2)
    assert not failures, failures
    assert os.listdir(mount.mnt / "hooks") == []
