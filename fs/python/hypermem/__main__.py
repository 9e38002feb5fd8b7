# SPDX-License-Identifier: MIT
"""python3 -m hypermem MOUNT: the guest's processes, a line for each."""
from __future__ import annotations

import os
import sys

from . import Guest
from .command_line import Parser, explain


def plain(text: str) -> str:
    """The guest may have written anything; a terminal must not take it for a command."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)


def main() -> int:
    parser = Parser(prog="python3 -m hypermem", description="List the processes of a guest.")
    parser.add_argument("mount", metavar="MOUNT", help="the mount of hypermemfs")
    try:
        guest = Guest(parser.parse_args().mount)
        print(f"{'PID':>7} COMMAND")
        for process in guest.processes():
            try:
                line = " ".join(process.args) or f"[{process.comm}]"
            except ProcessLookupError:
                continue
            print(f"{process.pid:>7} {plain(line)}")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is for nobody
    except (OSError, ValueError) as error:
        text = explain(error) if isinstance(error, OSError) else str(error)
        print(f"hypermem: {text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
