# SPDX-License-Identifier: MIT
"""Which calls a hook matches: each field, comparison and step of a program."""
from __future__ import annotations

import errno
import signal
from collections.abc import Callable

import pytest

import machines  # noqa: F401  (in marks)
from caller import BOTH_HOLD, ME, MINE, Call, mine
from hook import (AND, BEGINS, BOTH, COMM, COMPAT, CONTAINS, ENDS, ENTER, EQ, GE, GT, IN, INT,
                  IS_RETURN, LE, LT, NE, NOT, NOT_IN, NR, OR, PID, RETURN, RETVAL, SIGNED, TID,
                  TOLD, UID, Hooks, Str, Test, number, program)
from lab import Guest

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("kprobes")]

IOCTL = (3, 0xdeadbeef, 100)
NUMBERS = [
    (number(0, EQ, 3), True), (number(0, EQ, 4), False),
    (number(0, NE, 4), True), (number(0, NE, 3), False),
    (number(0, LT, 4), True), (number(0, LT, 3), False),
    (number(0, LE, 3), True), (number(0, LE, 2), False),
    (number(0, GT, 2), True), (number(0, GT, 3), False),
    (number(0, GE, 3), True), (number(0, GE, 4), False),
    (number(0, IN, 3, 3), True), (number(0, IN, 0, 2), False), (number(0, IN, 4, 9), False),
    (number(0, IN, 4, 2), False),
    (number(0, NOT_IN, 4, 9), True), (number(0, NOT_IN, 0, 9), False),
    (number(1, EQ, 0xdeadbeef), True), (number(1, GT, 0), True),
    (number(1, EQ, 0xdeadbeef - (1 << 32), flags=INT), True),
    (number(1, EQ, 0xdeadbeef - (1 << 32), flags=INT | SIGNED), True),
    (number(1, LT, 0, flags=INT), True), (number(1, LT, 0, flags=SIGNED), False),
    (number(1, GE, -(1 << 31), flags=INT), True),
    (number(1, IN, -(1 << 31), -1, flags=INT), True),
    (number(1, NOT_IN, -(1 << 31), -1, flags=INT), False),
    (number(2, EQ, 100, flags=INT), True), (number(2, GT, -1, flags=INT), True),
    (number(2, GT, -1), False),
    (number(1, EQ, 0xbe00, mask=0xff00), True), (number(1, EQ, 0xbe, mask=0xff00), False),
    (number(1, NE, 0, mask=0x10), False), (number(1, NE, 0, mask=0x20), True),
    (number(1, EQ, 0, mask=0), True), (number(1, EQ, 0xdead0000, mask=0xffff0000), True),
    (number(PID, NE, 1), True), (number(PID, EQ, 1), False),
    (number(TID, GT, 1), True), (number(TID, LT, 1), False),
    (number(UID, EQ, 0), True), (number(UID, GT, 0), False),
    (number(COMPAT, EQ, 0), True), (number(COMPAT, EQ, 1), False),
    (number(NR, LT, 10000), True), (number(NR, EQ, 9999), False),
    (Str(COMM, EQ, b"caller"), True), (Str(COMM, EQ, b"calle"), False),
    (Str(COMM, EQ, b"caller\0"), False), (Str(COMM, NE, b"caller"), False),
    (Str(COMM, NE, b"calle"), True), (Str(COMM, BEGINS, b"call"), True),
    (Str(COMM, BEGINS, b""), True), (Str(COMM, BEGINS, b"callers"), False),
    (Str(COMM, ENDS, b"ler"), True), (Str(COMM, ENDS, b"caller"), True),
    (Str(COMM, ENDS, b"call"), False), (Str(COMM, CONTAINS, b"all"), True),
    (Str(COMM, CONTAINS, b"caller"), True), (Str(COMM, CONTAINS, b"xx"), False),
    (Str(COMM, CONTAINS, b""), True), (Str(COMM, CONTAINS, b"callers"), False),
    (Str(COMM, EQ, b""), False),
]


def matches(hooks: Hooks, cases: list, names: str, flags: int,
            run: Callable[[], object]) -> list[bool]:
    """Which of so many filters match the one call of ours that there is."""
    for n, items in enumerate(cases, 1):
        if isinstance(items, (Test, Str)):
            items = (items,)
        hooks.set(n, names, flags | TOLD, **program(*items, ME, BOTH_HOLD))
    run()
    found = [hooks.counts(n)["matched"] for n in range(1, len(cases) + 1)]
    assert set(found) <= {0, 1}, found
    for n in range(1, len(cases) + 1):
        hooks.remove(n)
    return [bool(n) for n in found]


def check(cases: list, found: list[bool]) -> None:
    wrong = [(case, got) for case, got in zip(cases, found, strict=True) if case[-1] != got]
    assert not wrong, wrong


def test_numbers_and_comm_are_compared(hooks: Hooks, call: Call) -> None:
    found = matches(hooks, [test for test, _ in NUMBERS], "ioctl", ENTER,
                    lambda: call("raw", "ioctl", *IOCTL).end())
    check(NUMBERS, found)


@pytest.mark.skipif("machines.current.word_bits == 32", reason="a word has 32 bits")
def test_the_upper_half_of_an_int_does_not_matter(hooks: Hooks, call: Call) -> None:
    cases = [(number(0, EQ, -1, flags=INT), True), (number(0, EQ, 0xffffffff), False),
             (number(0, EQ, 0xdeadffffffff), True), (number(0, LT, 0, flags=SIGNED), False),
             (number(0, EQ, 0xffffffff, mask=0xffffffff), True),
             (number(1, EQ, 1 << 63), True), (number(1, LT, 0, flags=SIGNED), True),
             (number(1, EQ, 0, flags=INT), True), (number(1, GT, 1), True)]
    found = matches(hooks, [test for test, _ in cases], "setpgid", ENTER,
                    lambda: call("raw", "setpgid", 0xdeadffffffff, 1 << 63).end())
    check(cases, found)


def test_results_are_compared_and_are_signed(hooks: Hooks, call: Call) -> None:
    cases = [(number(RETVAL, EQ, -errno.EBADF, flags=SIGNED), True),
             (number(RETVAL, LT, 0, flags=SIGNED), True),
             (number(RETVAL, GE, 0, flags=SIGNED), False),
             (number(RETVAL, IN, -10, -8, flags=SIGNED), True),
             (number(RETVAL, NE, -errno.EBADF, flags=SIGNED), False),
             (number(RETVAL, EQ, -errno.EBADF, flags=INT), True),
             ((number(RETVAL, EQ, 0, flags=SIGNED), Test(NOT)), True)]
    found = matches(hooks, [test for test, _ in cases], "ioctl", RETURN,
                    lambda: call("raw", "ioctl", -1, 1).end())
    check(cases, found)


def test_no_test_of_a_result_holds_on_entry(hooks: Hooks, call: Call) -> None:
    cases = [(number(RETVAL, EQ, 0), False), (number(RETVAL, NE, 0), False),
             ((number(RETVAL, EQ, 0), Test(NOT)), False),
             ((number(RETVAL, EQ, 0), number(0, EQ, 3), Test(OR)), True),
             ((number(RETVAL, EQ, 0), number(0, EQ, 3), Test(AND)), False),
             ((number(RETVAL, EQ, 0), number(0, EQ, 4), Test(AND), Test(NOT)), True)]
    found = matches(hooks, [test for test, _ in cases], "ioctl", ENTER,
                    lambda: call("raw", "ioctl", *IOCTL).end())
    check(cases, found)


def test_and_or_not_are_kleenes(hooks: Hooks, call: Call) -> None:
    value = {"t": number(0, EQ, 3), "f": number(0, NE, 3), "u": Str(2, EQ, b"x")}
    both = {"t": lambda v: v, "f": lambda v: "f", "u": lambda v: "f" if v == "f" else "u"}
    either = {"t": lambda v: "t", "f": lambda v: v, "u": lambda v: "t" if v == "t" else "u"}
    cases = []
    for a in "tfu":
        cases.append(((value[a],), a == "t"))
        cases.append(((value[a], Test(NOT)), a == "f"))
        cases.append(((value[a], Test(NOT), Test(NOT)), a == "t"))
        for b in "tfu":
            cases.append(((value[a], value[b], Test(AND)), both[a](b) == "t"))
            cases.append(((value[a], value[b], Test(OR)), either[a](b) == "t"))
            cases.append(((value[a], value[b], Test(AND), Test(NOT)), both[a](b) == "f"))
            cases.append(((value[a], value[b], Test(OR), Test(NOT)), either[a](b) == "f"))
    # arg2 is 100: nothing is mapped there.
    found = matches(hooks, [test for test, _ in cases], "ioctl", ENTER,
                    lambda: call("raw", "ioctl", *IOCTL).end())
    check(cases, found)


def test_the_deepest_program_is_run(hooks: Hooks, call: Call) -> None:
    deep = [number(0, EQ, 3)] * 62
    found = matches(hooks, [(*deep, *[BOTH_HOLD] * 61),
                            (*deep[1:], number(0, EQ, 4), *[BOTH_HOLD] * 61)], "ioctl", ENTER,
                    lambda: call("raw", "ioctl", *IOCTL).end())
    assert found == [True, False]


@pytest.mark.parametrize("kind", ["cat", "openat absent"])
def test_strings_that_are_pointed_to_are_compared(hooks: Hooks, call: Call, kind: str) -> None:
    path = b"/nowhere/at/all"
    cases = [(Str(1, EQ, path), True), (Str(1, EQ, path[:-1]), False),
             (Str(1, EQ, path + b"x"), False), (Str(1, EQ, path + b"\0"), False),
             (Str(1, NE, path), False), (Str(1, NE, b"/"), True),
             (Str(1, BEGINS, b"/nowhere/"), True), (Str(1, BEGINS, path), True),
             (Str(1, BEGINS, path + b"x"), False), (Str(1, BEGINS, b"nowhere"), False),
             (Str(1, ENDS, b"/all"), True), (Str(1, ENDS, b"/al"), False),
             (Str(1, CONTAINS, b"here/at"), True), (Str(1, CONTAINS, b"there"), False),
             (Str(1, CONTAINS, b""), True),
             (Str(2, EQ, b""), False), (Str(2, NE, b""), False)]
    found = matches(hooks, [(test, Str(1, BEGINS, b"/no"), BOTH_HOLD) for test, _ in cases],
                    "openat", ENTER, lambda: call(*kind.split(), "/nowhere/at/all").end())
    check(cases, found)


def test_an_unreadable_string_neither_matches_nor_does_its_negation(hooks: Hooks,
                                                                  call: Call) -> None:
    unreadable = [Str(1, EQ, b"x"), Str(1, NE, b"x"), Str(1, CONTAINS, b""),
                  (Str(1, EQ, b"x"), Test(NOT)), (Str(1, NE, b"x"), Test(NOT))]
    for kind in (["unreadable"], ["endless"], ["long", "4096"]):
        assert not any(matches(hooks, unreadable, "openat", ENTER,
                               lambda: call("openat", *kind).end()))


def test_no_stack_grows_to_meet_a_string(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", ENTER | TOLD, **mine(Str(0, CONTAINS, b"")))
    assert call("below").value("grown") == 0
    assert hooks.counts(1)["matched"] == 0


def test_a_string_may_have_4095_bytes(hooks: Hooks, call: Call) -> None:
    cases = [(Str(1, ENDS, b"az"), True), (Str(1, BEGINS, b"a" * 900), True),
             (Str(1, CONTAINS, b"aaz"), True), (Str(1, ENDS, b"aa"), False)]
    found = matches(hooks, [(test, Str(1, BEGINS, b"aaa"), BOTH_HOLD) for test, _ in cases],
                    "openat", ENTER, lambda: call("openat", "long", 4095).end())
    check(cases, found)


def test_a_process_is_found_by_its_numbers(guest: Guest, hooks: Hooks, call: Call) -> None:
    one, other = call("load"), call("load")
    for caller in one, other:
        caller.said(rb"ready")
    hooks.set(1, "getppid", ENTER | TOLD, **program(number(PID, EQ, one.pid)))
    assert {hooks.next().pid for _ in range(6)} == {one.pid}
    hooks.set(1, "getppid", ENTER | TOLD, **program(number(TID, EQ, other.pid)))
    while hooks.next().tid != other.pid:
        pass  # what was under way is still of the first
    assert {hooks.next().tid for _ in range(6)} == {other.pid}


def test_a_process_is_all_its_threads(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", **MINE)
    caller = call("threads", 5)
    first = hooks.next()  # of the first thread, which makes the others then
    hooks.set(2, "getppid", ENTER | TOLD, **program(number(PID, EQ, caller.pid)))
    hooks.remove(1)
    caller.end()
    events = [hooks.next() for _ in range(hooks.counts(2)["sent"])]
    assert {event.pid for event in events} == {caller.pid}
    assert len({event.tid for event in events} - {first.tid}) == 5


def test_a_user_is_found_by_its_number(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "getppid", ENTER | TOLD, **mine(number(UID, EQ, 1000)))
    root, user = call("uid", 0), call("uid", 1000)
    root.end()
    user.end()
    assert hooks.next().pid == user.pid
    assert hooks.counts(1)["matched"] == 1


def test_all_calls_are_told_in_order(hooks: Hooks, call: Call) -> None:
    hooks.set(1, "*", ENTER | RETURN | TOLD, **MINE)
    caller = call("raw", "ioctl", -1, 0x89f1)
    caller.end()
    assert caller.gone()
    seen = []
    while not seen or seen[-1].call != "exit_group":
        seen.append(hooks.next())
    at = next(n for n, event in enumerate(seen)
              if event.call == "ioctl" and event.args[1] == 0x89f1)
    assert seen[at + 1].flags == IS_RETURN and seen[at + 1].retval == -errno.EBADF
    assert seen[at + 2].call in ("write", "writev", "fstat", "newfstat", "newfstatat", "statx")
    assert {event.pid for event in seen} == {caller.pid}
    assert seen[0].call == "execve" and seen[0].flags == IS_RETURN
    # Each enters and returns, but for the first, which began under another name, and the last.
    assert [event.flags & IS_RETURN for event in seen[1:]] == [0, 1] * (len(seen[1:]) // 2) + [0]
    assert hooks.counts(1)["dropped"] == 0
    # They are also found by their numbers.
    nr = seen[at].nr
    hooks.set(2, "*", ENTER | TOLD, **mine(number(NR, EQ, nr)))
    hooks.remove(1)
    call("raw", "ioctl", -1, 0x89f1).end()
    seen = [hooks.next() for _ in range(hooks.counts(2)["sent"])]
    assert 0x89f1 in [event.args[1] for event in seen]
    assert {(event.call, event.nr) for event in seen} == {("ioctl", nr)}


def test_a_filter_for_all_calls_lets_others_alone(guest: Guest, hooks: Hooks, call: Call) -> None:
    hooks.set(1, "*", BOTH, **mine(number(PID, EQ, 1), Str(COMM, EQ, b"nobody")))
    load = call("load")
    load.said(rb"ready")
    for _ in range(10):
        assert guest.run("ls / | wc -l; echo $((1 + 1)); cat /proc/self/stat >/dev/null").rc == 0
    assert hooks.none(0.5)
    load.kill(signal.SIGTERM)
    assert b"wrong=0" in load.end()
    assert not any(hooks.counts(1).values())
