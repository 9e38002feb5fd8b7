# SPDX-License-Identifier: MIT
"""What is no hook, no verdict or no wait is refused."""
from __future__ import annotations

import contextlib
import errno
import random
import signal

import pytest

import hook
import machines
from caller import MINE, Call
from hook import (AND, BOTH, COMM, CONTAINS, ENTER, EQ, HOOK, LT, NARROW, NOT, NUMBER, ON, OR,
                  REPLY, RETVAL, SET, STRING, TEST, TOLD, VERDICT, WAIT, Hooks, Test, fails, number)
from link import CHUNK, DATA, READONLY, Link, errno_name

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("kprobes")]


def head(flags: int = ENTER | ON, timeout: int = 5000, tests: int = 0, names: int = 8,
         text: int = 0) -> bytes:
    return HOOK.pack(flags, timeout, tests, names, text, 0)


NAME = b"getppid\0"
TRUE = number(0, EQ, 0).pack()


def one(**fields: int) -> bytes:
    """A hook with one test."""
    return head(tests=1) + Test(**{"test": NUMBER, **fields}).pack() + NAME


BAD = {
    "no data": b"",
    "half a head": head()[:15],
    "no names": head(names=0),
    "short": head() + NAME[:-1],
    "long": head() + NAME + b"x",
    "name without NUL": head() + b"getppids",
    "too many names": head(names=1025) + b"getppid\0" + b"x" * 1016 + b"\0",
    "too much text": head(text=1025) + NAME + bytes(1025),
    "too many tests": head(tests=129) + TRUE + number(0, EQ, 0).pack() * 128 + NAME,
    "tests that are not there": head(tests=1) + NAME,
    "unknown flag": head(flags=ENTER | 0x40) + NAME,
    "neither enter nor return": head(flags=ON) + NAME,
    "no timeout": head(timeout=0) + NAME,
    "too long a timeout": head(timeout=3600001) + NAME,
    "nothing to and": head(tests=1) + Test(AND).pack() + NAME,
    "one to and": head(tests=2) + TRUE + Test(AND).pack() + NAME,
    "one to or": head(tests=2) + TRUE + Test(OR).pack() + NAME,
    "nothing to not": head(tests=1) + Test(NOT).pack() + NAME,
    "two values left": head(tests=2) + TRUE * 2 + NAME,
    "no such test": one(test=0),
    "no such test either": one(test=6),
    "no such field": one(field=13),
    "no such field either": one(field=255),
    "no such comparison": one(compare=11),
    "a string's comparison": one(compare=CONTAINS),
    "a string's field": one(field=COMM),
    "a string in a number": one(test=STRING, field=RETVAL),
    "a string compared like a number": one(test=STRING, compare=LT),
    "text behind the end": one(test=STRING, a=1),
    "text over the end": one(test=STRING, b=1),
    "text from far away": one(test=STRING, a=(1 << 64) - 1, b=2),
    "text without end": one(test=STRING, a=0, b=(1 << 64) - 1),
    "unknown flag of a test": one(flags=4),
    "something in the hook's reserve": HOOK.pack(ENTER | ON, 5000, 0, 8, 0, 1) + NAME,
}


def test_a_hook_that_is_none_is_refused(link: Link, hooks: Hooks) -> None:
    hooks.set(1, "getppid", **MINE)
    took = [name for name, data in BAD.items() for number_ in (1, 2)
            if errno_name(link.call(SET, addr=number_, data=data)) != "EINVAL"]
    assert not took
    assert hooks.counts(1)  # it is what it was
    with fails(errno.ENOENT):
        hooks.counts(2)


@pytest.mark.parametrize("n", [0, 1 << 32, (1 << 32) + 1, (1 << 64) - 1])
def test_a_hooks_number_has_32_bits(link: Link, hooks: Hooks, n: int) -> None:
    with fails(errno.EINVAL):
        hooks.set(n, "getppid", **MINE)
    with fails(errno.ENOENT):
        hooks.remove(n)
    hooks.set((1 << 32) - 1, "getppid", **MINE)
    hooks.remove((1 << 32) - 1)


@pytest.mark.parametrize("name", ["", "nosuchcall", "sys_getppid", "../getppid", "getppid ", "**",
                                  "get", "__x64_sys_getppid", "\xff\x01", "x" * 1000, "%s%n",
                                  "schedule", "do_exit", "printk"])
def test_a_call_that_is_none_is_not_found(hooks: Hooks, name: str) -> None:
    with fails(errno.ENOENT):
        hooks.set(1, name, **MINE)
    with fails(errno.ENOENT):
        hooks.counts(1)


def test_a_hook_stays_when_its_next_one_is_refused(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    with fails(errno.ENOENT):
        hooks.set(1, "nosuchcall", **MINE)
    caller = call("getppid", 1)
    hooks.reply(hooks.next(), retval=6)
    assert caller.result() == 6


def test_a_verdict_that_is_none_is_refused(link: Link, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", BOTH, **MINE)
    caller = call("getppid", 1)
    event = hooks.next()
    good = VERDICT.pack(0, 0, 0, *[0] * 6)
    for data in (b"", good[:-1], good + b"\0", VERDICT.pack(4, 0, 0, *[0] * 6),
                 VERDICT.pack(0x4000, 0, 0, *[0] * 6), VERDICT.pack(1 << 31, 0, 0, *[0] * 6),
                 VERDICT.pack(0, 1, 0, *[0] * 6), VERDICT.pack(2, 0, -512, *[0] * 6),
                 VERDICT.pack(2, 0, -516, *[0] * 6)):
        assert errno_name(link.call(REPLY, addr=event.id, data=data)) == "EINVAL", data
    hooks.reply(event)
    event = hooks.next()
    for flags in 1, 3, 0x100, 0x2000:
        data = VERDICT.pack(flags, 0, 0, *[0] * 6)
        assert errno_name(link.call(REPLY, addr=event.id, data=data)) == "EINVAL", flags
    hooks.reply(event)
    assert caller.result() == 1


@pytest.mark.parametrize("of", [
    pytest.param("32", id="kernel"),
    pytest.param("64", id="process", marks=pytest.mark.needs("m32"))])
def test_a_value_with_more_bits_than_its_caller_has_is_refused(hooks: Hooks, call: Call,
                                                               of: str) -> None:
    if int(of) != machines.current.word_bits:
        pytest.skip(f"about kernels of {of} bits")
    hooks.set(1, "setpgid", BOTH, **MINE)
    caller = call("int80", 57, 5, 5) if of == "64" else call("raw", "setpgid", 5, 5)
    event = hooks.next()
    assert event.limits == NARROW
    wide = 1 << 32, (1 << 32) + 5, -(1 << 31) - 1, (1 << 63) - 1, -(1 << 63)
    for value in wide:
        for name in "retval", "arg0", "arg5":
            with fails(errno.ERANGE):
                hooks.reply(event, **{name: value})
    for value in -512 & 0xffffffff, -516 & 0xffffffff:
        with fails(errno.EINVAL):
            hooks.reply(event, retval=value)
    hooks.reply(event, arg0=0xffffffff, arg1=-1)
    event = hooks.next()
    assert event.args[:2] == (0xffffffff, 0xffffffff) and event.retval == -errno.EINVAL
    for value in wide:
        with fails(errno.ERANGE):
            hooks.reply(event, retval=value)
    hooks.reply(event, retval=-7 & 0xffffffff)
    assert caller.result() == -7


def too_many_waits(link: Link) -> str:
    """What one of nine is answered: they are at work at the same time."""
    for _ in range(9):
        link.send(WAIT, size=CHUNK)
    name = errno_name(link.receive())
    assert link.silent(0.2)
    return name


def test_there_is_an_end_to_waits(link: Link, hooks: Hooks, call: Call) -> None:
    assert errno_name(link.call(WAIT, size=0)) == "EINVAL"
    assert errno_name(link.call(WAIT, size=hook.EVENT.size)) == "EINVAL"
    assert errno_name(link.call(WAIT, size=(1 << 16) + 1)) == "EINVAL"
    assert too_many_waits(link) == "EBUSY"
    hooks.set(1, "getppid", ENTER | TOLD, **MINE)
    call("getppid", 1).end()
    assert len(hook.events(link.receive().data)) == 1
    link.hello()
    assert link.silent(0.2)
    assert too_many_waits(link) == "EBUSY"


def test_a_read_only_session_has_no_hooks(link: Link) -> None:
    hello = link.hello(READONLY)
    assert not hello.allowed & (1 << SET - DATA | 1 << REPLY - DATA)
    hooks = Hooks(link)
    with fails(errno.EPERM):
        hooks.set(1, "getppid", **MINE)
    reply = link.call(REPLY, addr=1, data=VERDICT.pack(0, 0, 0, *[0] * 6))
    assert errno_name(reply) == "EPERM"
    assert link.hello().allowed & 1 << SET - DATA


def test_bytes_of_all_kinds_are_no_oops(link: Link, hooks: Hooks, call: Call) -> None:
    rand = random.Random(1)
    load = call("load")
    load.said(rb"ready")
    for n in range(300):
        tests = rand.randrange(4)
        noise = b"".join(TEST.pack(rand.randrange(7), rand.randrange(14), rand.randrange(12),
                                   rand.randrange(4), 0, rand.getrandbits(64),
                                   rand.randrange(20), rand.randrange(20)) for _ in range(tests))
        data = HOOK.pack(rand.randrange(64), rand.choice([1, 5, 20]), tests, 8, 10, 0)
        data += noise + NAME + bytes(10)
        link.call(SET, addr=rand.randrange(3), data=data)
    for n in 1, 2:
        with contextlib.suppress(OSError):
            hooks.remove(n)
    load.kill(signal.SIGTERM)
    assert b" wrong=0\n" in load.end()
