#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Every operation of the protocol is in all its places, and there are no others there."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CLIENT = ("bridge/client.c bridge/hook_client.c bridge/lists.c bridge/value.c "
          "bridge/window.c bridge/reader.c")

# Where an operation must be named, and how it is there.
PLACES = {
    "docs/protocol.md": r"\bHYPER_OP_([A-Z_]+)\b",
    "guest/ops.c": r"^\s*(?:OP\(|\[HYPER_OP_INDEX\(HYPER_OP_)([A-Z_]+)\)",
    CLIENT: r"\bHYPER_OP_([A-Z_]+)\b",
    "bridge/wire.c": r"\bHYPER_OP_([A-Z_]+)\b",
    "tests/fake_guest.c": r"^\s*OP\(([A-Z_]+)\)",
}
NOT_OPERATIONS = {"NONE", "MAX", "INDEX", "X"}
# HELLO belongs to the connection, not to what a client may ask.
NOT_IN = {CLIENT: {"HELLO"}}


def main() -> int:
    header = (ROOT / "guest/uapi/hypermem.h").read_text()
    ops = set(re.findall(r"^\tHYPER_OP_([A-Z_]+) = ", header, re.M)) - NOT_OPERATIONS
    wrong = 0
    for place, pattern in PLACES.items():
        text = "".join((ROOT / path).read_text() for path in place.split())
        named = set(re.findall(pattern, text, re.M))
        named -= NOT_OPERATIONS
        for op in sorted(ops - named - NOT_IN.get(place, set())):
            print(f"{place}: HYPER_OP_{op} is missing")
            wrong += 1
        for op in sorted(named - ops):
            print(f"{place}: HYPER_OP_{op} is not in guest/uapi/hypermem.h")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
