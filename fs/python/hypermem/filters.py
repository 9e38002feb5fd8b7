# SPDX-License-Identifier: MIT
"""filters: of calls, as the file hooks/NAME/filter takes them; and what it has against one."""
from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Union

Value = Union[int, str, bytes, range]
Test = Union[Value, Collection[Value], None]

NUMBERS = ("arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "retval", "pid", "tid", "uid", "nr",
           "compat")

# CALLS [enter] [return] [trace] [regs] TESTS
_PARTS = re.compile(r"(\s*[^\s,]+(?:\s*,\s*[^\s,]+)*(?:\s+(?:enter|return|trace|regs)\b)*)\s*(.*)",
                    re.DOTALL)


class FilterError(ValueError):
    """The filter is none.  Its text is a line with the column and why; the filter; and a caret
    under the place where it goes wrong."""

    def __init__(self, complaint: str) -> None:
        """What the mount says, which has its first line last: a traceback puts a name before it,
        and the caret would be elsewhere."""
        *lines, why = complaint.split("\n")
        super().__init__("\n".join([why.removeprefix("error: "), *lines]))


def quote(text: str | bytes) -> bytes:
    """A string of the filter language."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    plain = (bytes([c]) if 0x20 <= c < 0x7f and c not in b'"\\' else b"\\x%02x" % c for c in data)
    return b'"' + b"".join(plain) + b'"'


def _one(field: str, value: Value) -> bytes:
    if isinstance(value, range):
        if not value or value.step != 1:
            raise ValueError(f"{field}: no range of the filter language: {value}")
        return f"{field}=={value.start}..{value.stop - 1}".encode()
    if isinstance(value, (str, bytes)):
        if field == "comm":
            return b"comm==" + quote(value)
        if not field.startswith("arg"):
            raise TypeError(f"{field} is a number")
        return b"str(" + field.encode() + b")==" + quote(value)
    if field == "comm":
        raise TypeError("comm is text")
    if not isinstance(value, int):
        raise TypeError(f"{field}: neither a number nor text: {value!r}")
    plain = value < 0 or not field.startswith("arg")
    return (f"{field}=={value:d}" if plain else f"{field}=={value:#x}").encode()


def _test(field: str, value: Test) -> bytes:
    if field not in NUMBERS and field != "comm":
        raise TypeError(f"a filter has no {field}; it has comm, {', '.join(NUMBERS)}")
    if isinstance(value, (int, str, bytes, range)):
        return _one(field, value)
    if not isinstance(value, (type(None), Collection)):
        raise TypeError(f"{field}: neither a number, nor text, nor several of these: {value!r}")
    tests = [_one(field, one) for one in value or ()]
    if not tests:
        raise ValueError(f"{field}: nothing to be equal to")
    return b"(" + b" or ".join(tests) + b")" if len(tests) > 1 else tests[0]


def compose(text: str, tests: Mapping[str, Test] = {}, flags: str = "") -> bytes:
    """The text, and tests that must hold as well: a number, a string (of an argument: what it
    points to), a range, or several of them, any of which will do; None is no test.  `flags` are
    more of the words behind the names."""
    words = [_test(field, value) for field, value in tests.items() if value is not None]
    parts = _PARTS.fullmatch(text)
    if not parts or not (words or flags):
        return text.encode("utf-8", "surrogateescape")
    head, rest = parts[1], parts[2].rstrip()
    if rest:
        words.insert(0, (f"({rest})" if words else rest).encode("utf-8", "surrogateescape"))
    return b" ".join(filter(None, [f"{head} {flags}".strip().encode(), b" and ".join(words)]))
