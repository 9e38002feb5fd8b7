# SPDX-License-Identifier: MIT
"""Hooks as they are on the wire, for a Link: see guest/uapi/hypermem.h, "Hooks"."""
from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from link import DATA, WRITE_OK, Frame, Link

SET, REMOVE, WAIT, REPLY, COUNTS, POST = 16 | DATA, 17, 18, 19 | DATA, 20, 23 | DATA

ENTER, RETURN, TRACE, REGS, ENABLED, ATTENDED = 1, 2, 4, 8, 16, 32
NUMBER, STRING, AND, OR, NOT = range(1, 6)
RETVAL, PID, TID, UID, NR, COMPAT, COMM = range(6, 13)
EQ, NE, LT, LE, GT, GE, IN, NOT_IN, BEGINS, ENDS, CONTAINS = *range(8), 8, 9, 10
SIGNED, INT = 1, 2
ALL_ONES = (1 << 64) - 1

IS_RETURN, IS_COMPAT, WAITS, SKIPPED = 1, 2, 4, 8
NARROW, LEAVES, FIXED = 0x10, 0x20, 0x40
SKIP, SET_RETVAL = 1, 2

# What most hooks are.
ON = ENABLED | ATTENDED
BOTH = ENTER | RETURN | ON
TOLD = TRACE | ON

HOOK = struct.Struct("<IIHHHH")
TEST = struct.Struct("<BBBBIQQQ")
EVENT = struct.Struct("<QIIIIIHHQ6QqQ16s32s")
REG = struct.Struct("<8sQ")
VERDICT = struct.Struct("<IIq6Q")
COUNT_NAMES = ("matched sent replied continued timed_out killed abandoned unattended dropped "
               "restarted missed").split()


class Test(NamedTuple):
    test: int
    field: int = 0
    compare: int = EQ
    a: int = 0
    b: int = 0
    mask: int = ALL_ONES
    flags: int = 0

    def pack(self) -> bytes:
        return TEST.pack(self.test, self.field, self.compare, self.flags, 0, self.mask,
                         self.a & ALL_ONES, self.b & ALL_ONES)


Test.__test__ = False  # type: ignore[attr-defined]  # pytest: it is no class of tests


class Str(NamedTuple):
    """A test of a string, whose text is not in its place yet."""
    field: int
    compare: int
    value: bytes


def number(field: int, compare: int, a: int, b: int = 0, **kwargs: int) -> Test:
    return Test(NUMBER, field, compare, a, b, **kwargs)


def program(*items: Test | Str) -> dict:
    """A filter, as Hooks.set() takes it."""
    tests, text = [], b""
    for item in items:
        if isinstance(item, Str):
            tests.append(Test(STRING, item.field, item.compare, len(text), len(item.value)))
            text += item.value
        else:
            tests.append(item)
    return {"tests": tests, "text": text}


class Event(NamedTuple):
    id: int
    hook: int
    flags: int
    pid: int
    tid: int
    nr: int
    stamp: int
    time: int
    args: tuple[int, ...]
    retval: int
    lost: int
    comm: str
    call: str
    regs: dict[str, int]
    limits: int  # the flags that say which verdicts there can be


def hook(names: str, flags: int = ENTER | ENABLED | ATTENDED, tests: Iterable[Test] = (),
         text: bytes = b"", timeout_ms: int = 5000) -> bytes:
    program = b"".join(test.pack() for test in tests)
    calls = b"".join(name.encode() + b"\0" for name in names.split(","))
    return HOOK.pack(flags, timeout_ms, len(program) // TEST.size, len(calls), len(text), 0) + \
        program + calls + text


def events(data: bytes) -> list[Event]:
    found = []
    while data:
        (id_, number, flags, pid, tid, nr, stamp, n_regs, time, *args, retval, lost, comm,
         call) = EVENT.unpack_from(data)
        data = data[EVENT.size:]
        regs = {}
        for _ in range(n_regs):
            name, value = REG.unpack_from(data)
            regs[name.rstrip(b"\0").decode()] = value
            data = data[REG.size:]
        limits = flags & (NARROW | LEAVES | FIXED)
        found.append(Event(id_, number, flags & ~limits, pid, tid, nr, stamp, time, tuple(args),
                           retval, lost, comm.split(b"\0")[0].decode(),
                           call.split(b"\0")[0].decode(), regs, limits))
    return found


class Hooks:
    """A session's hooks."""

    def __init__(self, link: Link, room: int = 1 << 14) -> None:
        """With room for so many bytes of events at a time."""
        self.link, self.room = link, room
        self._wait: int | None = None
        self._events: list[Event] = []

    def set(self, number: int, names: str, *args: object, **kwargs: object) -> None:
        self._done(self.link.call(SET, addr=number, data=hook(names, *args, **kwargs)))

    def remove(self, number: int) -> None:
        self._read(self.link.call(REMOVE, addr=number))

    def next(self, timeout: float | None = None) -> Event:
        while not self._events:
            if self._wait is None:
                self._wait = self.link.send(WAIT, size=self.room)
            while self._wait not in self.link._other:
                frame = self.link.receive(timeout)
                self.link._other[frame.tag] = frame
            reply = self.link.wait(self._wait)
            self._wait = None
            self._read(reply)
            self._events = events(reply.data)
        return self._events.pop(0)

    def none(self, seconds: float = 0.3) -> bool:
        try:
            event = self.next(seconds)  # which may make another list
        except TimeoutError:
            return True
        self._events.insert(0, event)
        return False

    def reply(self, event: Event, retval: int | None = None, skip: bool = False,
              **args: int) -> None:
        self._done(self.link.call(REPLY, addr=event.id, data=self._verdict(retval, skip, args)))

    def post(self, event: Event, retval: int | None = None, skip: bool = False,
             **args: int) -> int:
        """Its tag, with which no answer comes."""
        return self.link.send(POST, addr=event.id, data=self._verdict(retval, skip, args))

    @staticmethod
    def _verdict(retval: int | None, skip: bool, args: dict[str, int]) -> bytes:
        flags = SKIP * skip | SET_RETVAL * (retval is not None)
        values = [0] * 6
        for name, value in args.items():
            k = int(name.removeprefix("arg"))
            flags |= 0x100 << k
            values[k] = value & ALL_ONES
        return VERDICT.pack(flags, 0, retval or 0, *values)

    def counts(self, number: int) -> dict[str, int]:
        data = self.link.get(COUNTS, addr=number)
        return dict(zip(COUNT_NAMES, struct.unpack("<11Q", data)))

    @staticmethod
    def _read(reply: Frame) -> None:
        if not reply.op & DATA:
            raise OSError(reply.addr, os.strerror(reply.addr))

    @staticmethod
    def _done(reply: Frame) -> None:
        if reply.op != WRITE_OK:
            raise OSError(reply.addr, os.strerror(reply.addr))


def fails(error: int) -> contextlib.AbstractContextManager:
    """What the guest refuses, with an errno of Linux's generic numbering."""
    return pytest.raises(OSError, match=re.escape(f"[Errno {error}]"))
