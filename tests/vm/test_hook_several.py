# SPDX-License-Identifier: MIT
"""Several hooks on the same calls, up to as many as there can be, and many events."""
from __future__ import annotations

import errno
import re
import signal
import time

import pytest

import machines
from caller import FORKS, MINE, Call, mine
from hook import (ATTENDED, BOTH, ENABLED, ENTER, EQ, IS_RETURN, NE, NR, ON, OR, PID, RETURN,
                  SKIPPED, TOLD, TRACE, WAITS, Hooks, Test, fails, number, program)
from lab import Guest
from link import Link
from machines import patience
from world import wait_for

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("kprobes")]


def test_hooks_of_a_call_take_turns_by_number(hooks: Hooks, call: Call) -> None:
    for n in 30, 10, 20:
        hooks.set(n, "getppid", BOTH, **MINE)
    caller = call("getppid", 1)
    seen = []
    for _ in range(6):
        event = hooks.next()
        assert hooks.none(0.1)
        seen.append((event.hook, bool(event.flags & IS_RETURN)))
        hooks.reply(event)
    assert caller.result() == 1
    assert seen == [(n, back) for back in (False, True) for n in (10, 20, 30)]


def test_the_second_hook_sees_what_the_first_has_changed(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "ioctl", BOTH, **mine(number(1, EQ, 0x89f1)))
    hooks.set(2, "ioctl", BOTH, **mine(number(1, EQ, 0x1111)))
    caller = call("raw", "ioctl", -1, 0x89f1, 5)
    hooks.reply(hooks.next(), arg1=0x1111)
    event = hooks.next()
    assert (event.hook, event.args[:3]) == (2, ((1 << machines.current.word_bits) - 1, 0x1111, 5))
    hooks.reply(event)
    event = hooks.next()  # the first does not match any more
    assert (event.hook, event.flags) == (2, WAITS | IS_RETURN)
    hooks.reply(event, retval=99)
    assert caller.result() == 99


def test_a_hook_that_changes_while_another_holds_the_call_up_is_not_passed_over(
        hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    hooks.set(2, "getppid", ENTER | ENABLED, **MINE)
    hooks.set(3, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    assert event.hook == 1
    hooks.set(2, "getppid", **MINE)  # somebody opens its events
    hooks.set(3, "getppid,getpid", **MINE)
    hooks.set(4, "getppid", **MINE)
    hooks.reply(event)
    for n in 2, 3, 4:
        event = hooks.next()
        assert event.hook == n
        hooks.reply(event, arg0=n)
    assert caller.result() == 1


def test_there_may_be_more_tests_than_are_run_with_interrupts_off(hooks: Hooks, call: Call) -> None:
    never = [number(PID, EQ, 1)] + [number(PID, EQ, 1), Test(OR)] * 63
    for n in range(1, 12):
        hooks.set(n, "getppid", **program(*never))
    assert call("getppid", 3).end().count(b"result=1\n") == 3
    hooks.set(12, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    assert event.hook == 12
    hooks.reply(event, retval=12)
    assert caller.result() == 12
    assert not any(hooks.counts(n)["matched"] for n in range(1, 12))


def test_results_go_from_hook_to_hook(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", RETURN | ON, **MINE)
    hooks.set(2, "getppid", RETURN | ON, **MINE)
    caller = call("getppid", 1)
    hooks.reply(hooks.next(), retval=50)
    event = hooks.next()
    assert event.retval == 50
    hooks.reply(event, retval=51)
    assert caller.result() == 51


def test_the_first_hook_may_skip_the_call_for_the_second(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    hooks.set(2, "getppid", BOTH, **MINE)
    caller = call("getppid", 1)
    hooks.reply(hooks.next(), retval=17)
    event = hooks.next()
    assert (event.hook, event.flags, event.retval) == (2, WAITS | IS_RETURN | SKIPPED, 17)
    hooks.reply(event)
    assert caller.result() == 17


def test_a_new_session_has_no_hooks(link: Link, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    first = call("getppid", 1)
    hooks.next()
    link.hello()
    assert first.result() == 1
    hooks = Hooks(link)
    with fails(errno.ENOENT):
        hooks.counts(1)
    with fails(errno.ENOENT):
        hooks.remove(1)
    assert call("getppid", 1).result() == 1
    hooks.set(1, "getppid", ENTER | TOLD, **MINE)
    assert hooks.counts(1)["matched"] == 0
    call("getppid", 1).end()
    assert hooks.next().call == "getppid"


def test_a_hook_may_be_disabled_and_keeps_its_counts(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", ENTER | TOLD, **MINE)
    call("getppid", 3).end()
    hooks.set(1, "getppid", ENTER | TRACE | ATTENDED, **MINE)
    call("getppid", 3).end()
    assert hooks.counts(1)["matched"] == 3
    hooks.set(1, "getppid", ENTER | TOLD, **MINE)
    call("getppid", 1).end()
    assert hooks.counts(1)["matched"] == 4


def test_nobody_waits_while_nobody_takes_events(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", BOTH & ~ATTENDED, **MINE)
    hooks.set(2, "getppid", ENTER | TRACE | ENABLED, **MINE)
    assert call("getppid", 3).end().count(b"result=1\n") == 3
    assert (hooks.counts(1)["matched"], hooks.counts(1)["unattended"]) == (6, 6)
    assert (hooks.counts(2)["matched"], hooks.counts(2)["dropped"]) == (3, 3)
    assert hooks.none()


@pytest.mark.limit(120)
def test_a_hundred_hooks_on_a_call(guest: Guest, hooks: Hooks, call: Call) -> None:
    for n in range(1, 101):
        hooks.set(n, "getppid", ENTER | TOLD, **mine(number(PID, NE, 1)))
    call("getppid", 5).end()
    seen = [hooks.next().hook for _ in range(500)]
    assert seen == list(range(1, 101)) * 5
    for n in range(1, 101):
        assert hooks.counts(n)["matched"] == 5
        hooks.remove(n)
    call("getppid", 5).end()
    assert hooks.none(0.2)


def test_there_is_an_end_to_the_number_of_hooks(hooks: Hooks) -> None:
    for n in range(1, 257):
        hooks.set(n, "getppid", ENTER, **MINE)
    with fails(errno.ENOSPC):
        hooks.set(1000, "getppid", ENTER, **MINE)
    hooks.set(256, "getpid", ENTER, **MINE)
    hooks.remove(1)
    hooks.set(1000, "getppid", ENTER, **MINE)
    with fails(errno.ENOSPC):
        hooks.set(1001, "getppid", ENTER, **MINE)


def probes(guest: Guest) -> list[str]:
    """Of the kernel's own list; some kernels have a probe for themselves."""
    guest.run("[ -e /sys/kernel/debug/kprobes ] || mount -t debugfs debugfs /sys/kernel/debug",
              check=True)
    lines = guest.read_file("/sys/kernel/debug/kprobes/list").decode().splitlines()
    return [line for line in lines if "sys_" in line]


def test_probes_go_with_the_last_hook(guest: Guest, hooks: Hooks) -> None:
    wait_for(lambda: not probes(guest))
    hooks.set(1, "getppid", **MINE)
    hooks.set(2, "getppid,getpid", **MINE)
    assert any("getppid" in line for line in probes(guest))
    hooks.remove(2)
    assert any("getppid" in line for line in probes(guest))
    hooks.remove(1)
    wait_for(lambda: not probes(guest))


def hits(guest: Guest) -> int:
    """Of the probe that the guest has made for itself."""
    return int(guest.run("cat /sys/kernel/tracing/kprobe_profile", check=True).out.split()[1])


def test_another_probe_at_a_hooks_place_is_told_as_well(guest: Guest, hooks: Hooks,
                                                        call: Call) -> None:
    never = mine(number(NR, EQ, 123456))
    hooks.set(1, "getppid", ENTER | TOLD, **never)
    place = next(line.split()[2] for line in probes(guest) if "getppid" in line)
    guest.run("mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null")
    if guest.run(f"cd /sys/kernel/tracing && echo p:mine {place} >kprobe_events && "
                 "echo 1 >events/kprobes/mine/enable").rc:
        pytest.skip("this kernel has no probes that can be made from user space")
    try:
        assert call("getppid", 5).end().count(b"result=1\n") == 5
        assert hits(guest) >= 5
        hooks.remove(1)
        wait_for(lambda: len(probes(guest)) == 1)
        if machines.current.arch.startswith("mips"):  # it does not see what is below
            with fails(errno.ENOENT):
                hooks.set(1, "getppid", **MINE)
            return
        hooks.set(1, "getppid", ENTER | TOLD, **never)  # now the hook is the first to be told
        before = hits(guest)
        assert call("getppid", 5).end().count(b"result=1\n") == 5
        assert hits(guest) >= before + 5
        hooks.set(1, "getppid", **MINE)
        caller = call("getppid", 1)
        hooks.reply(hooks.next(), retval=6)
        assert caller.result() == 6
    finally:
        guest.run("cd /sys/kernel/tracing && echo 0 >events/kprobes/mine/enable && "
                  "echo >kprobe_events", check=True)


@pytest.mark.needs("pc")
def test_no_probe_is_where_the_function_tracer_has_its_own(guest: Guest, hooks: Hooks) -> None:
    """Also in functions whose landing pads the kernel has sealed, as those for 32 bits."""
    hooks.set(1, "*", ENTER | TOLD, **mine(number(NR, EQ, 123456)))
    there = probes(guest)
    assert len(there) > 300
    assert [line for line in there if "[FTRACE]" in line] == []


def memory(guest: Guest) -> dict[str, int]:
    guest.run("sync; echo 3 >/proc/sys/vm/drop_caches")
    return {key: int(value) for key, value in
            re.findall(r"(\w+): +(\d+) kB", guest.read_file("/proc/meminfo").decode())}


@pytest.mark.limit(180)
def test_hooks_come_and_go_under_load(guest: Guest, hooks: Hooks, call: Call,
                                      seconds: float) -> None:
    loads = [call("load") for _ in range(8)]
    for load in loads:
        load.said(rb"ready")
    before = memory(guest)
    end = time.monotonic() + patience(seconds)
    turns = 0
    while turns < 2 or time.monotonic() < end:
        turns += 1
        hooks.set(1, "getppid,read,write", ENTER | RETURN | TRACE | ENABLED, **MINE)
        hooks.set(2, "openat,ioctl,getpid," + FORKS, BOTH, **MINE, timeout_ms=20)
        hooks.set(1, "exit_group,wait4,close", ENTER | RETURN | TOLD, **MINE)
        if turns % 8 == 0:
            hooks.set(3, "*", ENTER | RETURN | TRACE | ENABLED, **MINE)
            hooks.remove(3)
        hooks.remove(2)
        hooks.remove(1)
        while not hooks.none(0.0):
            hooks.next()
    for load in loads:
        load.kill(signal.SIGTERM)
    for load in loads:
        assert b" wrong=0\n" in load.end(60)
    wait_for(lambda: not probes(guest), 60)
    after = memory(guest)
    assert before["MemFree"] - after["MemFree"] < 30_000, (before, after)
    assert after["Slab"] - before["Slab"] < 12_000, (before, after)


LOADED = ["getppid", "getpid", "write", "read", "ioctl", "openat"]  # what the load always makes


@pytest.mark.limit(180)
def test_a_hook_that_has_come_under_load_goes_on_seeing_calls(hooks: Hooks, call: Call,
                                                              seconds: float) -> None:
    """Emulators may have translated what was there before: see guest/hook_text.h."""
    loads = [call("load") for _ in range(3)]
    for load in loads:
        load.said(rb"ready")

    def matched() -> list[int]:
        return [hooks.counts(n)["matched"] for n in range(1, len(LOADED) + 1)]

    end = time.monotonic() + patience(seconds)
    turns = 0
    while turns < 2 or time.monotonic() < end:
        turns += 1
        for n, name in enumerate(LOADED, 1):
            hooks.set(n, name, ENTER | TRACE | ENABLED, **MINE)
        before = matched()
        wait_for(lambda: all(a < b for a, b in zip(before, matched())), 20)
        for n in range(1, len(LOADED) + 1):
            hooks.remove(n)
    print(f"{turns * len(LOADED)} hooks")
    for load in loads:
        load.kill(signal.SIGTERM)
    for load in loads:
        assert b" wrong=0\n" in load.end(60)


@pytest.mark.limit(120)
def test_a_call_is_seen_by_a_hook_or_by_its_next_one(guest: Guest, hooks: Hooks,
                                                            call: Call) -> None:
    hooks.set(1, "getppid", ENTER | TRACE | ENABLED, **MINE)
    caller = call("burst", 20000)
    turns = 0
    while b"done" not in guest.output(caller.pid) and turns < 2000:
        hooks.set(1, "getppid", ENTER | TRACE | ENABLED, **MINE)
        turns += 1
    caller.end()
    # One that meets both at the same time may be let by: in few turns, one.
    assert 20000 - turns // 10 <= hooks.counts(1)["matched"] <= 20001
    assert turns


@pytest.mark.limit(120)
def test_no_event_is_lost_that_is_not_counted(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", ENTER | RETURN | TOLD, **MINE)
    caller = call("burst", 20000)
    seen = lost = 0
    caller.end(60)
    counts = hooks.counts(1)
    assert counts["matched"] == 2 * 20001 and counts["missed"] == 0
    assert counts["sent"] + counts["dropped"] == counts["matched"]
    last = 0
    while seen < counts["sent"]:
        event = hooks.next()
        assert event.id > last
        last = event.id
        seen += 1
        lost += event.lost
    assert hooks.none(0.2)
    call("getppid", 1).end()
    lost += hooks.next().lost
    assert lost == counts["dropped"]


def test_events_come_as_fast_as_they_are_taken(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", ENTER | TOLD, **MINE)
    caller = call("burst", 2000)
    seen = [hooks.next() for _ in range(2001)]
    assert not any(event.lost for event in seen)
    assert [event.id for event in seen] == sorted(event.id for event in seen)
    caller.end()
