# SPDX-License-Identifier: MIT
"""hooks/NAME/events and reply: what is told of a call, and how it goes on.

The fake guest makes calls to order (see tests/fake_guest_caller.c): a hook on fake_N_MS has N
calls, one every MS milliseconds.  What a reply does to a call is seen in the next one.
"""
from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

import pytest

from hooks import Hook, made_up, shell_words
from world import FakeGuest, Mount, World, errno_of, host, wait_for

pytestmark = pytest.mark.needs("kprobes")


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
def test_a_reply_is_not_waited_for_with_o_nonblock(fake: FakeGuest, hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_9_1 enter return")
        fake.misbehave("hang-op=19")  # HOOK_REPLY
        for said, seen in (("arg2=0x77", "119"), ("skip", "0"), ("continue", "4098")):
            event = events.next()
            hook.write("reply", f"{event['id']} {said}\n", os.O_NONBLOCK)
            for word in "continue", "skip":
                assert hook.errno("reply", f"{event['id']} {word}\n", os.O_NONBLOCK) == "ESRCH"
            event = events.next()
            assert (event["phase"], event["retval"]) == ("return", seen)
            for word in "skip", "arg0=1", "retval=-512", "go":
                assert hook.errno("reply", f"{event['id']} {word}\n", os.O_NONBLOCK) == "EINVAL"
            hook.write("reply", f"{event['id']} continue\n", os.O_NONBLOCK)
        events.next()
        assert (hook.stats()["replied"], hook.stats()["continued"]) == (6, 4)


@made_up
def test_whether_a_reply_is_waited_for_can_be_changed(fake: FakeGuest, hook: Hook) -> None:
    fd = os.open(hook / "reply", os.O_WRONLY)
    try:
        with hook.events() as events:
            hook.filter("fake_2_1 enter")
            fake.misbehave("hang-op=19")
            id_ = events.next()["id"].encode()
            assert errno_of(lambda: os.write(fd, id_ + b" continue\n")) == "ETIMEDOUT"
            os.set_blocking(fd, False)
            os.write(fd, id_ + b" continue\n")
            events.next()
    finally:
        os.close(fd)


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
            for flags in 0, os.O_NONBLOCK:
                assert real.errno("reply", f"{event['id']} {verbs}\n", flags) == "EINVAL", verbs
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
            assert wait(20), name
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
