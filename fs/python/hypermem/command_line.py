# SPDX-License-Identifier: MIT
"""command_line: what the programs of this package say when they cannot go on: one line, with the
file, why, and what to do.
"""
from __future__ import annotations

import argparse
import errno
import math
import os
from collections.abc import Callable
from typing import NoReturn

TIMEOUT = 0.001, 3600.0  # seconds, that a hook takes

_REMEDIES = {
    errno.EACCES: "run this as the user who has mounted the guest, or as root",
    errno.ECONNABORTED: "hypermemfs has ended: mount the guest again",
    errno.ENOSPC: "there are as many hooks as there can be: rmdir those that nobody needs",
    errno.ENOTCONN: "the guest is not there, or hypermemfs has ended: see the mount's file info",
    errno.EOPNOTSUPP: "the guest's kernel has no kprobes, or is of an architecture without hooks",
    errno.EPERM: "load hypermem.ko in the guest without readonly=1",
    errno.EROFS: "mount the guest without -o ro",
    errno.ETIMEDOUT: "the guest does not answer; does it still run?",
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def seconds(low: float, high: float) -> Callable[[str], float]:
    """The type of an option."""
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            upper = f" to {high:g}" if high < math.inf else " on"
            raise argparse.ArgumentTypeError(f"{text} is no number of seconds from {low:g}{upper}")
        return value
    return parse


def explain(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{os.fsdecode(error.filename)}: {error.strerror}{f'; {remedy}' if remedy else ''}"
