# SPDX-License-Identifier: MIT
"""A call that waits goes on whatever happens to its hook, its host or the module."""
from __future__ import annotations

import errno
import re
import signal
import time

import pytest

from caller import MINE, Call, Caller, mine
from conftest import reload
from device import count_interrupts
from hook import (ATTENDED, BOTH, COUNT_NAMES, COUNTS, ENABLED, ENTER, EQ, IS_RETURN, ON, POST,
                  REPLY, RETURN, RETVAL, SKIPPED, TOLD, VERDICT, WAIT, WAITS, Hooks, events, fails,
                  number)
from lab import Guest
from link import CHUNK, Link
from world import wait_for

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("kprobes")]

SLEEPS = ("nanosleep,nanosleep_time32,read,poll,ppoll,ppoll_time32,futex,futex_time32,wait4,waitid,"
          "epoll_wait,epoll_pwait,rt_sigtimedwait,rt_sigtimedwait_time32,"
          "rt_sigtimedwait_time64,sendto,vfork,clone,clone3")


def test_a_call_goes_on_when_no_reply_comes(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", BOTH, **MINE, timeout_ms=300)
    caller = call("getppid", 1)
    events = [hooks.next(), hooks.next()]
    assert caller.result() == 1
    assert events[1].time - events[0].time >= 300_000_000
    assert hooks.counts(1)["timed_out"] == 2
    for event in events:
        with fails(errno.ESRCH):
            hooks.reply(event, retval=5)


def test_a_reply_counts_once(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    hooks.reply(event, retval=8)
    with fails(errno.ESRCH):
        hooks.reply(event, retval=9)
    assert caller.result() == 8


def test_a_reply_to_nobody_is_told(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    for id_ in 0, event.id + 1, event.id + 256, event.id - 1, (1 << 64) - 1:
        with fails(errno.ESRCH):
            hooks.reply(event._replace(id=id_), retval=9)
    hooks.reply(event)
    assert caller.result() == 1


def test_calls_go_on_when_their_hook_is_removed(hooks: Hooks, call: Call) -> None:
    for n in 1, 2:
        hooks.set(n, "getppid", BOTH, **MINE, timeout_ms=3600000)
    caller = call("getppid", 1)
    event = hooks.next()
    assert event.hook == 1
    hooks.remove(1)
    with fails(errno.ESRCH):
        hooks.reply(event)
    event = hooks.next()
    assert (event.hook, event.flags) == (2, WAITS)
    hooks.remove(2)
    assert caller.result() == 1
    assert hooks.none()


def test_a_replaced_hook_can_still_be_replied_for(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    hooks.set(1, "close", **MINE)
    hooks.reply(event, retval=12)
    assert caller.result() == 12
    assert hooks.counts(1)["replied"] == 1


@pytest.mark.parametrize("flags", [ENTER | ENABLED, ENTER | ATTENDED, ENTER | TOLD],
                         ids=["unattended", "disabled", "trace"])
def test_calls_go_on_when_their_hook_does_not_wait_any_more(hooks: Hooks, call: Call,
                                                            flags: int) -> None:
    hooks.set(1, "getppid", **MINE, timeout_ms=3600000)
    caller = call("getppid", 1)
    event = hooks.next()
    hooks.set(1, "getppid", flags, **MINE)
    assert caller.result() == 1
    with fails(errno.ESRCH):
        hooks.reply(event)
    assert hooks.counts(1)["abandoned"] == 1


def test_a_reply_that_is_posted_counts_and_is_not_answered(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", BOTH, **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    hooks.post(event, skip=True)
    returned = hooks.next()
    assert (returned.flags, returned.retval) == (WAITS | IS_RETURN | SKIPPED, 0)
    hooks.post(event, retval=9)  # it does not wait any more
    hooks.post(returned, skip=True)  # for a call that returns, too late
    hooks.link.send(POST, addr=returned.id, data=b"")
    assert hooks.link.silent(0.2) and b"result=" not in caller.guest.output(caller.pid)
    hooks.post(returned, retval=10)
    assert caller.result() == 10
    assert hooks.counts(1)["replied"] == 2
    assert hooks.link.silent(0.2)


def test_more_replies_can_be_posted_than_requests_be_in_flight(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    for _ in range(1000):
        hooks.post(event._replace(id=event.id + 1))
    hooks.post(event, retval=11)
    assert caller.result() == 11
    assert hooks.link.silent(0.2)


def test_what_comes_behind_a_reply_is_done_too(hooks: Hooks, call: Call) -> None:
    """The task that waits may be the one that finds it."""
    hooks.set(1, "getppid", **MINE)
    caller, link = call("getppid", 50), hooks.link
    for n in range(50):
        event = hooks.next()
        _, reply = link.frame(POST, addr=event.id, data=VERDICT.pack(*[0] * 9))
        tag, counts = link.frame(COUNTS, addr=1)
        link.raw(reply + counts[:n % len(counts)])
        link.raw(counts[n % len(counts):])
        assert len(link.wait(tag).data) == 8 * len(COUNT_NAMES)
    assert caller.end().count(b"result=1\n") == 50
    assert hooks.counts(1)["continued"] == 50


@pytest.mark.needs("pc")
def test_a_reply_that_comes_at_once_needs_no_interrupt_and_no_sleep(hooks: Hooks, call: Call,
                                                                    guest: Guest) -> None:
    release = guest.read_file("/proc/sys/kernel/osrelease").decode()
    if tuple(map(int, release.split(".")[:2])) < (5, 14):
        pytest.skip("its virtqueue_disable_cb() still lets one through")
    hooks.set(1, "getppid", **MINE)
    before = count_interrupts(guest)
    caller = call("getppid", 300)
    link = hooks.link
    wait = link.send(WAIT, size=hooks.room)
    for n in range(300):
        event, = events(link.wait(wait).data)
        if n == 299:
            status = guest.read_file(f"/proc/{caller.pid}/status").decode()
        _, reply = link.frame(REPLY, addr=event.id, data=VERDICT.pack(*[0] * 9))
        wait, next_wait = link.frame(WAIT, size=hooks.room)
        link.raw(reply + next_wait)  # for which there would be one interrupt
    assert caller.end().count(b"result=1\n") == 300
    assert count_interrupts(guest) - before < 300
    assert int(re.search(r"(?m)^voluntary_ctxt_switches:\s*(\d+)", status)[1]) < 299


def test_calls_go_on_when_the_host_leaves(guest: Guest, call: Call) -> None:
    with Link(guest.hm_socket) as link:
        link.hello()
        hooks = Hooks(link)
        hooks.set(1, "getppid,close", BOTH, **MINE, timeout_ms=3600000)
        callers = [call("getppid", 5) for _ in range(3)]
        for _ in callers:
            hooks.next()
    for caller in callers:
        assert caller.end().count(b"result=1\n") == 5


def test_calls_go_on_when_the_host_is_deaf(guest: Guest, call: Call) -> None:
    """Whoever has filled the port's queue with questions does not keep callers from going on."""
    victim = guest.victim("mem")[1]
    with Link(guest.hm_socket) as link:
        link.hello()
        hooks = Hooks(link)
        hooks.set(1, "getppid", BOTH, **MINE, timeout_ms=200)
        for _ in range(8):
            link.send(WAIT, size=CHUNK)
        for _ in range(40):
            for _ in range(10):
                link.send(2, victim["pid"], victim["text"] & ~0xfff, 4096)
            time.sleep(0.01)
        for _ in range(3):
            assert call("getppid", 2).end().count(b"result=1\n") == 2


def test_the_module_goes_while_calls_wait(guest: Guest, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", BOTH, **MINE, timeout_ms=3600000)
    callers = [call("getppid", 3) for _ in range(5)]
    for _ in callers:
        hooks.next()
    reload(guest)
    for caller in callers:
        assert caller.end().count(b"result=1\n") == 3


SLEEPERS = ["read", "nanosleep", "poll", "futex", "wait", "epoll", "sigwait", "send",
            "vfork"]


def test_the_module_goes_while_hooked_calls_sleep(guest: Guest, hooks: Hooks, call: Call) -> None:
    """They are not disturbed: whoever sleeps for a time does so, and the others go on to."""
    hooks.set(1, SLEEPS, RETURN | ON, **mine(number(RETVAL, EQ, 12345)))
    started = time.monotonic()
    callers = {kind: call("sleep", kind) for kind in SLEEPERS}
    for caller in callers.values():
        caller.said(rb"ready")
    time.sleep(0.5)
    reload(guest)
    time.sleep(max(0.0, started + 0.5 - time.monotonic()))
    for kind in "nanosleep", "poll", "epoll", "sigwait", "send", "vfork":
        line = callers[kind].said(rb"result=(-?\d+) handled=0 ms=(\d+)")
        assert int(line[1]) == (-errno.EAGAIN if kind in ("sigwait", "send") else 0), kind
        assert int(line[2]) > (1900 if kind == "vfork" else 3900), (kind, line[0])
        callers[kind].end()
    for kind in "read", "futex", "wait":
        assert b"result" not in guest.output(callers[kind].pid), kind
        guest.kill(callers[kind].pid)


@pytest.mark.needs("suspend")
def test_a_machine_can_be_suspended_while_calls_wait(sleeper: Guest) -> None:
    sleeper.run("echo devices >/sys/power/pm_test", check=True)
    with Link(sleeper.hm_socket) as link:
        link.hello()
        hooks = Hooks(link)
        hooks.set(1, "getppid", BOTH, **MINE, timeout_ms=3600000)
        caller = Caller(sleeper, "getppid", 1)
        hooks.next()
        link.send(WAIT, size=CHUNK)
        sleeper.spawn(["sh", "-c", "echo mem >/sys/power/state && said=slept; "
                       "echo hooks: it has ${said:-refused} >/dev/console"])
        sleeper.wait_console("hooks: it has slept", timeout=40)
        sleeper.wait_agent()  # its own port has been reset, too
        assert caller.end().count(b"result=1\n") == 1


def test_a_container_that_reboots_leaves_nothing(guest: Guest, hooks: Hooks) -> None:
    """Its process ends within the call."""
    hooks.set(1, "reboot", BOTH, timeout_ms=100)
    guest.run("unshare -p -f reboot -f")
    assert hooks.counts(1)["missed"] == 1
    hooks.remove(1)
    reload(guest)


def test_a_hook_may_go_and_come_while_its_calls_sleep(guest: Guest, hooks: Hooks,
                                                      call: Call) -> None:
    for n in range(5):
        hooks.set(1, "read", BOTH, **mine(number(0, EQ, 77)))
        caller = call("sleep", "read")
        hooks.reply(hooks.next())
        hooks.remove(1)
        caller.kill(signal.SIGUSR1)
        assert caller.result() == -errno.EINTR
    assert hooks.none(0.1)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", [ENTER, RETURN], ids=["enter", "return"])
def test_a_process_that_waits_can_be_killed(hooks: Hooks, call: Call, sig: signal.Signals,
                                            phase: int) -> None:
    hooks.set(1, "getppid", phase | ON, **MINE, timeout_ms=3600000)
    caller = call("getppid", 1)
    event = hooks.next()
    caller.kill(sig)
    assert caller.gone()
    wait_for(lambda: hooks.counts(1)["killed"] == 1)
    with fails(errno.ESRCH):
        hooks.reply(event)


def test_a_process_that_waits_can_be_stopped_and_continued(guest: Guest, hooks: Hooks,
                                                           call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    caller.kill(signal.SIGSTOP)
    time.sleep(0.2)
    hooks.reply(event, retval=3)
    time.sleep(0.2)
    assert b"result" not in guest.output(caller.pid)
    caller.kill(signal.SIGCONT)
    assert caller.result() == 3


def test_a_signal_does_not_end_the_wait(guest: Guest, hooks: Hooks, call: Call) -> None:
    """It is delivered after the call, which a signal interrupts only if the call can be."""
    hooks.set(1, "read", BOTH, **mine(number(0, EQ, 77)))
    caller = call("sleep", "read")
    event = hooks.next()
    caller.kill(signal.SIGUSR1)
    assert hooks.none(0.3)
    assert b"result" not in guest.output(caller.pid)
    hooks.reply(event, retval=1)
    hooks.reply(hooks.next())
    line = caller.said(rb"result=(-?\d+) handled=(\d)")
    assert (line[1], line[2]) == (b"1", b"1")
