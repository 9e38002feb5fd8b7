# SPDX-License-Identifier: MIT
"""What a call that is hooked is told as, and what a reply makes of it, as on the wire."""
from __future__ import annotations

import errno
import time

import pytest

import machines
from caller import MINE, Call, mine
from hook import (BOTH, EQ, IS_RETURN, LT, ON, REGS, RETURN, RETVAL, SIGNED, SKIPPED, WAITS, Event,
                  Hooks, Str, number)
from lab import Guest
from link import Link

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("kprobes")]


def test_an_entered_call_is_told_as_it_was_made(guest: Guest, link: Link, hooks: Hooks,
                                                call: Call) -> None:
    def up() -> float:
        return float(guest.run("cat /proc/uptime").out.split()[0])

    hooks.set(7, "ioctl", **mine(number(1, EQ, 0x89f1)))
    before = up()
    caller = call("raw", "ioctl", 3, 0x89f1, 0x1234)
    event = hooks.next()
    assert (event.hook, event.flags, event.call, event.comm) == (7, WAITS, "ioctl", "caller")
    assert event.args[:3] == (3, 0x89f1, 0x1234)
    assert (event.pid, event.tid, event.lost, event.retval) == (caller.pid, caller.pid, 0, 0)
    assert event.id and not event.regs
    assert event.stamp == link.proc(caller.pid).stamp
    assert before - 0.1 <= event.time / 1e9 <= up() + 0.1
    said = guest.run(f"cat /proc/{caller.pid}/syscall").out.split()
    assert not said or said[0] == b"running" or int(said[0]) == event.nr
    hooks.reply(event)
    assert caller.result() == -errno.EBADF
    counts = hooks.counts(7)
    once = "matched", "sent", "replied", "continued"
    assert [counts[key] for key in once] == [1] * len(once)
    assert not any(value for key, value in counts.items()
                   if key not in once)


def test_whatever_their_functions_begin_with_calls_can_be_hooked(hooks: Hooks) -> None:
    """Some do nothing but jump to another."""
    refused = []
    for name in ("read write readv writev pread64 pwrite64 openat close ioctl dup3 pipe2 socket "
                 "connect sendto recvfrom execve wait4 waitid kill tkill tgkill getpid getppid "
                 "setpgid setsid prctl munmap mprotect mremap mlock mlock2 mincore brk unlinkat "
                 "mkdirat mknodat renameat2 linkat symlinkat readlinkat faccessat faccessat2 "
                 "fchmodat getdents64 chdir chroot mount setns unshare reboot sethostname capget "
                 "capset sched_setscheduler sched_get_priority_max epoll_create1 eventfd2 "
                 "memfd_create tee splice").split():
        try:
            hooks.set(1, name, BOTH, **mine(number(0, EQ, 77)))
        except FileNotFoundError:
            refused.append(name)
    assert not refused


def test_a_call_waits_until_it_is_replied_to(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    time.sleep(0.5)
    assert b"result" not in caller.guest.output(caller.pid)
    hooks.reply(event)
    assert caller.result() == 1


@pytest.mark.parametrize("retval", [0, 5, 0x7fffffff, -1, -errno.ENOENT, -4095])
def test_a_call_is_skipped_with_a_result(hooks: Hooks, call: Call, retval: int) -> None:
    hooks.set(1, "close", **mine(number(0, EQ, 77)))
    caller = call("raw", "close", 77)
    hooks.reply(hooks.next(), retval=retval)
    assert caller.result() == retval


def test_a_call_is_skipped_with_nothing_said(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "close", BOTH, **mine(number(0, EQ, 77)))
    caller = call("raw", "close", 77)
    hooks.reply(hooks.next(), skip=True)
    event = hooks.next()
    assert event.flags == WAITS | IS_RETURN | SKIPPED and event.retval == 0
    hooks.reply(event)
    assert caller.result() == 0


@pytest.mark.skipif("machines.current.word_bits == 32", reason="a word has 32 bits")
def test_a_result_has_as_many_bits_as_a_word(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("getppid", 2)
    for retval in 1 << 40, -(1 << 40):
        hooks.reply(hooks.next(), retval=retval)
    assert b"result=%d\nresult=%d\n" % (1 << 40, -(1 << 40)) in caller.end()


def test_the_result_is_seen_and_changed(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", RETURN | ON, **MINE)
    caller = call("getppid", 3)
    for retval in 4711, -errno.EIO, None:
        event = hooks.next()
        assert event.flags == WAITS | IS_RETURN and event.retval == 1
        hooks.reply(event, retval=retval)
    assert b"result=4711\nresult=-5\nresult=1\n" in caller.end()


def test_an_error_is_seen_and_made_a_success(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "ioctl", RETURN | ON, **mine(number(RETVAL, LT, 0, flags=SIGNED),
                                              number(1, EQ, 0x89f1)))
    caller = call("raw", "ioctl", -1, 0x89f1)
    event = hooks.next()
    assert event.retval == -errno.EBADF
    hooks.reply(event, retval=0)
    assert caller.result() == 0


def test_enter_and_return_come_in_order(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", BOTH, **MINE)
    caller = call("getppid", 10)
    last = 0
    for n in range(20):
        event = hooks.next()
        assert event.flags == WAITS | (IS_RETURN if n % 2 else 0)
        assert event.id > last
        last = event.id
        hooks.reply(event)
    assert caller.end().count(b"result=1\n") == 10


def test_a_skipped_call_returns_and_can_still_be_changed(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "close", BOTH, **mine(number(0, EQ, 77)))
    caller = call("raw", "close", 77)
    hooks.reply(hooks.next(), retval=-errno.EPERM)
    event = hooks.next()
    assert event.flags & SKIPPED and event.retval == -errno.EPERM
    hooks.reply(event, retval=8)
    assert caller.result() == 8


def iovec(link: Link, event: Event, k: int) -> int:
    """The address of the second of two, of which the call was given the first."""
    return event.args[k] + 2 * machines.current.word_bits // 8


CHANGES = {
    "arg0": (lambda link, event: 0x7ffffff, -errno.ESRCH, b"to=[] there=[]"),
    "arg1": (lambda link, event: iovec(link, event, 1), 9, b"to=[] there=[from here]"),
    "arg2": (lambda link, event: 2000, -errno.EINVAL, b"to=[] there=[]"),
    "arg3": (lambda link, event: iovec(link, event, 3), 9, b"to=[elsewhere] there=[]"),
    "arg4": (lambda link, event: 2000, -errno.EINVAL, b"to=[] there=[]"),
    "arg5": (lambda link, event: 1, -errno.EINVAL, b"to=[] there=[]"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_argument_can_be_changed(link: Link, hooks: Hooks, call: Call, name: str) -> None:
    change, result, said = CHANGES[name]
    hooks.set(1, "process_vm_readv", BOTH, **MINE)
    caller = call("vector")
    event = hooks.next()
    assert event.args[0] == caller.pid and event.args[5] == 0
    assert (event.args[2], event.args[4]) == (1, 1)
    value = change(link, event)
    hooks.reply(event, **{name: value})
    event = hooks.next()
    assert event.args[int(name[3:])] == value
    hooks.reply(event)
    assert caller.result() == result
    assert said in caller.end()


def test_all_arguments_can_be_changed_at_once(link: Link, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "process_vm_readv", **MINE)
    caller = call("vector")
    event = hooks.next()
    hooks.reply(event, arg0=caller.pid, arg1=iovec(link, event, 1), arg2=1,
                arg3=iovec(link, event, 3), arg4=1, arg5=0)
    assert caller.result() == 9
    assert b"to=[] there=[elsewhere]" in caller.end()


def test_registers_come_on_request(link: Link, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "ioctl", BOTH | REGS, **mine(number(1, EQ, 0x89f1)))
    caller = call("raw", "ioctl", -1, 0x89f1, 0x1234)
    for _ in range(2):
        event = hooks.next()
        assert 4 <= len(event.regs) <= 40
        maps = caller.guest.read_file(f"/proc/{caller.pid}/maps").decode().splitlines()

        def at(addr: int) -> str:
            return next((line for line in maps if int(line.split("-")[0], 16) <= addr <
                         int(line.split("-")[1].split()[0], 16)), "")

        assert "[stack]" in at(event.regs["sp"])
        assert "/bin/caller" in at(event.regs["pc"]) or "[vdso]" in at(event.regs["pc"])
        hooks.reply(event)
    assert caller.result() == -errno.EBADF


def test_what_a_read_brought_is_changed_before_it_is_seen(link: Link, hooks: Hooks,
                                                         call: Call) -> None:
    hooks.set(1, "read", RETURN | ON, **mine(number(0, EQ, 77)))
    caller = call("read", "secret words")
    event = hooks.next()
    assert event.retval == 12
    assert link.get(2, caller.pid, event.args[1], 12) == b"secret words"
    assert link.write(caller.pid, event.args[1], b"public") == 6
    hooks.reply(event)
    assert (caller.text(), caller.result()) == (b"public words", 12)


def test_what_a_read_brings_is_made_up(link: Link, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "read", **mine(number(0, EQ, 77)))
    caller = call("read", "x")
    event = hooks.next()
    assert link.write(caller.pid, event.args[1], b"made up") == 7
    hooks.reply(event, retval=7)
    assert (caller.text(), caller.result()) == (b"made up", 7)


def test_what_is_written_is_changed_before_it_is_written(link: Link, hooks: Hooks,
                                                        call: Call) -> None:
    hooks.set(1, "write", **mine(number(0, EQ, 78)))
    caller = call("write", "hello world")
    event = hooks.next()
    assert link.get(2, caller.pid, event.args[1], event.args[2]) == b"hello world"
    assert link.write(caller.pid, event.args[1], b"HELLO") == 5
    hooks.reply(event, arg2=5)
    assert (caller.text(), caller.result()) == (b"HELLO", 5)


@pytest.mark.parametrize("where", ["in place", "elsewhere"])
def test_an_open_is_led_to_another_file(guest: Guest, link: Link, hooks: Hooks, call: Call,
                                        where: str) -> None:
    guest.run("echo one >/tmp/one; echo another >/tmp/another", check=True)
    hooks.set(1, "openat", **mine(Str(1, EQ, b"/tmp/one")))
    caller = call("cat", "/tmp/one")
    event = hooks.next()
    path = event.args[1] if where == "in place" else caller.value("spare")
    assert link.write(caller.pid, path, b"/tmp/another\0") == 13
    hooks.reply(event, arg1=path)
    assert (caller.text(), caller.result()) == (b"another", 0)
