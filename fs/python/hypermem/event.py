# SPDX-License-Identifier: MIT
"""event: a system call that a hook has seen, and how it is to go on.

It comes as a line of hooks/NAME/events and is answered by one of hooks/NAME/reply.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, overload

from .files import decode

if TYPE_CHECKING:
    from .hooks import Hook
    from .process import Process

_WORD = re.compile(rb"(\w+)=((?:'[^']*'|\\'|[^\s'\\])*)(?: |$)")
_ARGS = tuple(f"arg{k}" for k in range(6))
_KNOWN = frozenset(("id", "hook", "phase", "call", "nr", "pid", "tid", "stamp", "comm", "compat",
                    "time", "retval", "skipped", "lost", *_ARGS))


def parse(line: bytes) -> dict[str, str]:
    """The words of a line of events.  ValueError: it is none."""
    words: dict[str, str] = {}
    at = 0
    while at < len(line):
        word = _WORD.match(line, at)
        if not word:
            raise ValueError(f"no line of events: {line!r}")
        quoted = re.findall(rb"'([^']*)'|\\(')|([^'\\]+)", word[2])
        words.setdefault(word[1].decode(), decode(b"".join(b"".join(part) for part in quoted)))
        at = word.end()
    return words


def _word(value: int) -> int:
    if not -1 << 63 <= value < 1 << 64:
        raise OverflowError(f"{value} has more than 64 bits")
    return int(value)


class Args(Sequence[int]):
    """The arguments, as the words that they are: six, whatever the call takes.  When the call is
    entered they can be assigned to."""

    def __init__(self, event: Event, values: list[int]) -> None:
        self._event = event
        self._values = values
        self._set: set[int] = set()

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self._values[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._event.check_waits()
        if self._event.returns:
            raise RuntimeError("the call has been made, with the arguments that it had")
        k = range(len(self._values))[index]
        self._values[k] = _word(value)
        self._set.add(k)

    def __repr__(self) -> str:
        return f"[{', '.join(map(hex, self._values))}]"

    def reply(self) -> Iterator[str]:
        return (f"arg{k}={self._values[k]}" for k in sorted(self._set))


class Event:
    """A call that is entered, or returns.

    It waits until the handler has ended, or the loop asks for the next one; what has been set here
    counts then.  If the handler raises it goes on as if there were no hook.
    """

    def __init__(self, hook: Hook, words: Mapping[str, str]) -> None:
        self.hook = hook
        self.id = int(words["id"])  # 0: it does not wait, the hook only traces
        self.returns = words["phase"] == "return"  # otherwise it is entered
        self.call = words["call"]
        self.nr = int(words["nr"])
        self.pid = int(words["pid"])  # of the process
        self.tid = int(words["tid"])
        self.stamp = int(words["stamp"])
        self.comm = words["comm"]
        self.compat = words["compat"] == "1"  # of 32 bits, to a kernel of 64
        self.time = int(words["time"])  # ns since the guest booted
        self.skipped = words.get("skipped") == "1"  # it returns without having been made
        self.lost = int(words.get("lost", "0"))  # events that did not come, since the one before
        self.args = Args(self, [int(words[arg], 0) for arg in _ARGS])
        self.regs = {name: int(value, 0) for name, value in words.items() if name not in _KNOWN}
        self._retval = int(words["retval"]) if "retval" in words else None
        self._retval_set = self._skip = False
        self._waits = self.id != 0

    def __repr__(self) -> str:
        result = f" = {self._retval}" if self.returns else ""
        return f"<{self.call}{self.args!r}{result} of process {self.pid} ({self.comm!r})>"

    @property
    def process(self) -> Process:
        """Who makes it."""
        return self.hook.process_of(self)

    @property
    def retval(self) -> int | None:
        """What the call returns; None: it has not been made.  Assigning to it when the call is
        entered means that it is not made at all."""
        return self._retval

    @retval.setter
    def retval(self, value: int) -> None:
        self.check_waits()
        self._retval = _word(value)
        self._retval_set = True

    def skip(self, retval: int = 0) -> None:
        """Do not make the call; that is what it returns."""
        if self.returns:
            raise RuntimeError("the call has been made")
        self.retval = retval
        self._skip = True

    def check_waits(self) -> None:
        if not self._waits:
            raise RuntimeError("the call does not wait" + ("" if self.id else ": it is traced"))

    def verdict(self) -> str:
        """What a line of `reply` has behind the id."""
        words = list(self.args.reply())
        if self._skip:
            words.append("skip")
        if self._retval_set:
            words.append(f"retval={self._retval}")
        return " ".join(words) or "continue"

    def reply(self) -> bool:
        """Let it go on now, as has been set.  False: it did not wait any more.  OSError with
        EINVAL or ERANGE: that cannot be done to this call, and it waits on."""
        return self._go_on(self.verdict())

    def abandon(self) -> bool:
        """Let it go on as if there were no hook."""
        return self._go_on("continue")

    def _go_on(self, verdict: str) -> bool:
        did = self._waits and self.hook.reply(self.id, verdict)
        self._waits = False
        return did
