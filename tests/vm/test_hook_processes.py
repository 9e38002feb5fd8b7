# SPDX-License-Identifier: MIT
"""Hooks of calls that make, change and end processes, and of processes of all kinds."""
from __future__ import annotations

import contextlib
import errno
import signal
import time

import pytest

import machines
from caller import BOTH_HOLD, FORKS, MINE, Call, Caller, mine
from conftest import reload
from hook import (ATTENDED, BOTH, COMM, COMPAT, ENABLED, ENTER, EQ, FIXED, IS_COMPAT, IS_RETURN,
                  LEAVES, NE, ON, OR, PID, RETURN, TID, TOLD, TRACE, WAITS, Hooks, Str, Test, fails,
                  number, program)
from lab import Guest
from link import Link

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("kprobes")]


@pytest.mark.limit(240)
def test_a_thousand_threads_wait_at_once(hooks: Hooks, call: Call) -> None:
    n = 1000
    hooks.set(1, "getppid", BOTH, **mine(number(PID, NE, 0)), timeout_ms=120000)
    caller = call("threads", n)
    hooks.reply(hooks.next())  # the first thread's own
    hooks.reply(hooks.next())
    events = [hooks.next() for _ in range(n)]
    assert len({event.tid for event in events}) == n
    assert {event.flags for event in events} == {WAITS}
    for event in events:
        hooks.reply(event)
    for _ in range(n):
        event = hooks.next()
        assert event.flags & IS_RETURN and event.retval == 1
        hooks.reply(event)
    assert b"right=%d\n" % n in caller.end(60)
    assert hooks.counts(1)["replied"] == 2 * n + 2
    assert hooks.counts(1)["missed"] == 0


def threads_that_wait(hooks: Hooks, call: Call) -> Caller:
    """200 of them, and the first, which waits for them."""
    hooks.set(1, "getppid", BOTH, **mine(number(TID, NE, 0)), timeout_ms=3600000)
    caller = call("threads", 200)
    hooks.reply(hooks.next())
    hooks.reply(hooks.next())
    for _ in range(200):
        hooks.next()
    return caller


@pytest.mark.limit(120)
def test_many_threads_that_wait_are_let_go_at_once(hooks: Hooks, call: Call) -> None:
    caller = threads_that_wait(hooks, call)
    hooks.remove(1)
    assert b"right=200\n" in caller.end()


@pytest.mark.limit(120)
def test_many_threads_that_wait_are_killed_at_once(hooks: Hooks, call: Call) -> None:
    caller = threads_that_wait(hooks, call)
    caller.kill(signal.SIGKILL)
    assert caller.gone()
    assert hooks.counts(1)["killed"] == 200


@pytest.mark.parametrize("how", ["fork", "vfork", "clone"])
def test_a_new_process_is_made_once(hooks: Hooks, call: Call, how: str) -> None:
    """The child returns from no call that is hooked, and goes on in none."""
    hooks.set(1, FORKS, BOTH, **MINE)
    caller = call(how)
    hooks.reply(hooks.next())
    event = hooks.next()
    assert event.flags & IS_RETURN and event.pid == caller.pid
    assert event.retval > caller.pid
    assert hooks.none(0.2)
    hooks.reply(event)
    assert caller.value("pid") == event.retval
    assert b"result=0" in caller.end() and caller.value("status") == 5 << 8


def test_a_fork_can_be_refused(hooks: Hooks, call: Call) -> None:
    hooks.set(1, FORKS, **MINE)
    caller = call("fork")
    hooks.reply(hooks.next(), retval=-errno.ENOMEM)
    assert caller.result() == -errno.ENOMEM


def test_a_child_is_hooked_as_its_parent_is(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", RETURN | ON, **MINE)
    caller = call("fork")
    event = hooks.next()
    assert event.pid != caller.pid and event.retval == caller.pid
    hooks.reply(event, retval=-1)
    caller.said(rb"child=0\n")
    caller.end()


# Its path is in memory that the new program has not.
TO_ANOTHER = program(Str(0, EQ, b"/tmp/another"), Str(COMM, EQ, b"another"), Test(OR))


def test_an_exec_returns_in_the_new_program(guest: Guest, hooks: Hooks, call: Call) -> None:
    guest.run("ln -sf /bin/caller /tmp/another", check=True)
    hooks.set(1, "execve", BOTH, **TO_ANOTHER)
    caller = call("exec", "/tmp/another", "caller", "echo", "hello")
    event = hooks.next()
    assert (event.flags, event.comm) == (WAITS, "caller")
    hooks.reply(event)
    event = hooks.next()
    assert (event.flags, event.comm, event.retval) == (WAITS | IS_RETURN, "another", 0)
    assert event.pid == caller.pid
    hooks.reply(event)
    caller.said(rb"echo=\[hello\]")


def test_an_exec_that_fails_returns_where_it_was(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "execve", BOTH, **mine(Str(0, EQ, b"/nowhere")))
    caller = call("exec", "/nowhere", "x")
    hooks.reply(hooks.next())
    event = hooks.next()
    assert (event.retval, event.comm) == (-errno.ENOENT, "caller")
    hooks.reply(event, retval=-errno.EIO)
    assert caller.result() == -errno.EIO


def test_an_exec_in_a_thread_returns_as_the_first_one(guest: Guest, hooks: Hooks,
                                                      call: Call) -> None:
    guest.run("ln -sf /bin/caller /tmp/another", check=True)
    hooks.set(1, "execve", BOTH, **TO_ANOTHER)
    caller = call("execthread", "/tmp/another", "caller", "echo", "hello")
    event = hooks.next()
    assert event.call == "execve" and event.pid == caller.pid != event.tid
    hooks.reply(event)
    event = hooks.next()
    assert (event.flags, event.pid, event.tid) == (WAITS | IS_RETURN, caller.pid, caller.pid)
    hooks.reply(event)
    caller.said(rb"echo=\[hello\]")


def test_an_exec_can_be_led_to_another_program(link: Link, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "execve", **mine(Str(0, EQ, b"/nowhere")))
    caller = call("exec", "/nowhere", "caller", "echo", "there")
    event = hooks.next()
    assert link.write(caller.pid, event.args[0], b"/bin/sh\0") == 8
    hooks.reply(event)
    caller.said(rb"caller: applet not found")  # says busybox


def test_a_call_that_ends_the_process_is_told(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "exit_group", BOTH, **MINE)
    caller = call("raw", "exit_group", 9)
    event = hooks.next()
    assert event.args[0] == 9
    hooks.reply(event)
    assert caller.gone()
    assert hooks.none(0.2)


@pytest.mark.parametrize("name", ["exit", "exit_group"])
def test_a_call_that_does_not_return_is_not_skipped(hooks: Hooks, call: Call, name: str) -> None:
    """Kernels are compiled to have nothing behind it."""
    hooks.set(1, name, BOTH, **MINE)
    caller = call("raw", name, 9)
    event = hooks.next()
    assert event.limits & LEAVES and not event.limits & FIXED
    with fails(errno.EINVAL):
        hooks.reply(event, retval=4)
    with fails(errno.EINVAL):
        hooks.reply(event, skip=True)
    hooks.reply(event, arg0=3)
    assert caller.gone()
    assert hooks.none(0.2)
    assert hooks.counts(1)["replied"] == 1


def test_a_process_that_waits_to_end_can_be_killed(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "exit_group", BOTH, **MINE, timeout_ms=3600000)
    caller = call("raw", "exit_group", 9)
    hooks.next()
    caller.kill(signal.SIGKILL)
    assert caller.gone()
    assert hooks.counts(1)["killed"] == 1


def test_the_status_of_a_process_is_changed(guest: Guest, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "exit_group", **program(Str(COMM, EQ, b"caller")))
    caller = call("fork")
    hooks.reply(hooks.next(), arg0=6)
    hooks.set(1, "exit_group", ENTER | ENABLED, **MINE)
    assert caller.value("status") == 6 << 8


@pytest.mark.limit(120)
def test_processes_that_end_leave_nothing(guest: Guest, hooks: Hooks, call: Call,
                                          pytestconfig: pytest.Config) -> None:
    n = 1000 if pytestconfig.getoption("--long") else 300
    hooks.set(1, "exit,exit_group", ENTER | RETURN | TRACE | ENABLED, **MINE)
    caller = call("exits", n)
    assert b"done=%d wrong=0\n" % n in caller.end(100)
    assert hooks.counts(1)["matched"] >= n
    assert hooks.counts(1)["missed"] == 0
    reload(guest)


@pytest.mark.parametrize("how", ["restart", "interrupt"])
def test_a_signal_during_a_hooked_call(guest: Guest, hooks: Hooks, call: Call, how: str) -> None:
    hooks.set(1, "read", BOTH, **mine(number(0, EQ, 77)))
    caller = call("sleep", "read", how)
    hooks.reply(hooks.next())
    time.sleep(0.2)
    caller.kill(signal.SIGUSR1)
    if how == "restart":
        event = hooks.next()
        assert event.flags == WAITS  # it is made again
        hooks.reply(event)
        assert hooks.counts(1)["restarted"] == 1
        time.sleep(0.2)
        caller.kill(signal.SIGUSR1)  # whose handler brings what it waits for
        event = hooks.next()
        if not event.flags & IS_RETURN:
            hooks.reply(event)
            event = hooks.next()
        assert event.flags == WAITS | IS_RETURN and event.retval == 1
        hooks.reply(event)
        assert caller.result() == 1
    else:
        # Whether it is to be called again is decided after its return.
        assert hooks.none(0.3)
        assert caller.result() == -errno.EINTR
        assert hooks.counts(1)["restarted"] == 1


def test_a_call_that_goes_on_by_another_returns_from_that_one(hooks: Hooks, call: Call) -> None:
    """A sleep that a stop interrupts is continued by restart_syscall()."""
    hooks.set(1, "nanosleep,nanosleep_time32", BOTH, **MINE)
    hooks.set(2, "restart_syscall", **MINE)
    caller = call("sleep", "nanosleep")
    hooks.reply(hooks.next())
    caller.said(rb"ready")
    for sig in signal.SIGSTOP, signal.SIGCONT:
        time.sleep(0.2)
        caller.kill(sig)
    event = hooks.next()
    assert (event.hook, event.call, event.flags) == (2, "restart_syscall", WAITS)
    assert hooks.counts(1)["restarted"] == 1
    hooks.reply(event, retval=7)
    assert caller.result() == 7


@pytest.mark.limit(120)
def test_returns_from_signals_are_hooked(guest: Guest, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "rt_sigreturn,sigreturn", BOTH, **MINE)
    caller = call("signals", 1)
    event = hooks.next()
    assert event.flags == WAITS and event.call.endswith("sigreturn")
    hooks.reply(event)
    with contextlib.suppress(TimeoutError):  # not everywhere it comes back
        hooks.reply(hooks.next(1))
    assert b"handled=1 wrong=0" in caller.end()
    hooks.set(1, "rt_sigreturn,sigreturn", ENTER | RETURN | TRACE | ENABLED, **MINE)
    assert b"handled=300 wrong=0" in call("signals", 300).end()
    assert hooks.counts(1)["matched"] >= 301
    reload(guest)


def test_a_return_from_a_signal_has_no_argument_to_change(hooks: Hooks, call: Call) -> None:
    """On ARM its function has one, a pointer of the kernel's own."""
    hooks.set(1, "rt_sigreturn,sigreturn", ENTER | ON, **MINE)
    caller = call("signals", 1)
    event = hooks.next()
    assert bool(event.limits & FIXED) == (machines.current.arch == "armhf")
    assert bool(event.limits & LEAVES) == machines.current.arch.startswith("mips")
    if machines.current.arch == "armhf":
        with fails(errno.EINVAL):
            hooks.reply(event, arg0=0x1000)
        hooks.reply(event)
    else:
        hooks.reply(event, arg0=0x1000)
    assert b"handled=1 wrong=0" in caller.end()


def test_calls_of_kernel_threads_are_not_seen(guest: Guest, hooks: Hooks) -> None:
    names = "execve,wait4,clone,kill,newfstatat,openat,read,exit,sync,unlink"
    hooks.set(1, names, ENTER | TOLD)
    guest.run("ls -l /sys/kernel >/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches")
    hooks.set(1, names, ENTER | TRACE | ATTENDED)  # no more of them
    seen = {hooks.next().pid for _ in range(hooks.counts(1)["sent"])}
    threads = {int(pid) for pid in guest.run(
        "grep -l '^[0-9]* ([^)]*) . 2 ' /proc/[0-9]*/stat").out.replace(
            b"/proc/", b"").replace(b"/stat", b"").split()}
    assert len(threads) > 5 and seen and not seen & (threads | {2})


@pytest.mark.needs("m32")
def test_a_call_by_another_abi_has_its_numbers_and_arguments(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid,setpgid", BOTH, **mine(number(COMPAT, EQ, 1)))
    call("raw", "setpgid", 0, 0).end()
    caller = call("int80", 57, 0xffffffff00000005, -1, 7)
    event = hooks.next()
    assert event.flags == WAITS | IS_COMPAT
    assert (event.call, event.nr) == ("setpgid", 57)
    assert event.args[:3] == (5, 0xffffffff, 7)
    hooks.reply(event, arg0=0, arg1=0)
    event = hooks.next()
    assert event.flags == WAITS | IS_COMPAT | IS_RETURN and event.args[:2] == (0, 0)
    assert event.retval in (0, -errno.EPERM)
    hooks.reply(event, retval=-77)
    assert caller.result() == -77


@pytest.mark.needs("m32")
def test_a_program_of_32_bits_is_hooked(guest: Guest, link: Link, hooks: Hooks, call: Call) -> None:
    if guest.run("test -e /bin/caller32").rc:
        pytest.skip("the build directory has no caller32: the compiler cannot -m32")
    mine32 = program(Str(COMM, EQ, b"caller32"), number(1, EQ, 0x89f1), BOTH_HOLD)
    hooks.set(1, "ioctl", BOTH, **mine32)
    caller = call("raw", "ioctl", -1, 0x89f1, 0xfffffffe, file="/bin/caller32")
    event = hooks.next()
    assert event.flags == WAITS | IS_COMPAT and event.nr == 54
    assert event.args[:3] == (0xffffffff, 0x89f1, 0xfffffffe)
    hooks.reply(event)
    event = hooks.next()
    assert event.retval == -errno.EBADF
    hooks.reply(event, retval=5)
    assert caller.result() == 5
    hooks.set(1, "process_vm_readv", **program(Str(COMM, EQ, b"caller32")))
    caller = call("vector", file="/bin/caller32")
    event = hooks.next()
    hooks.reply(event, arg3=event.args[3] + 8, arg5=0)
    assert caller.result() == 9
    assert b"to=[elsewhere]" in caller.end()


def test_a_program_under_a_debugger_is_hooked(hooks: Hooks, call: Call) -> None:
    plain = call("ptrace", 3).end()
    hooks.set(1, "getppid", BOTH, **MINE)
    caller = call("ptrace", 3)
    for _ in range(3):
        hooks.reply(hooks.next())
        event = hooks.next()
        assert event.flags & IS_RETURN and event.retval == caller.pid
        hooks.reply(event)
    assert caller.end() == plain
