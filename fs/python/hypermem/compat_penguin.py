# SPDX-License-Identifier: MIT
"""compat_penguin: what a plugin that hypermem-run runs gets as the module penguin."""
from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compat_hypermem import Hypermem

COLORS = {logging.DEBUG: "36", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31",
          logging.CRITICAL: "1;31"}


class Plugins:
    """The plugins that plugins may use: one."""

    hypermem: Hypermem

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"there is no plugin {name} here, only hypermem")


plugins = Plugins()


def plain(text: str) -> str:
    """What the guest has written must not be taken for a command by a terminal, nor for lines."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
                   for c in text)


def lines(text: str) -> str:
    return "\n".join(map(plain, text.split("\n")))


class Formatter(logging.Formatter):
    def __init__(self, colored: bool) -> None:
        super().__init__("%(asctime)s %(name)s %(levelname)s %(message)s", "%H:%M:%S")
        self._colored = colored

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = plain(record.message)
        if not self._colored:
            return super().formatMessage(record)
        level = record.levelname
        record.levelname = f"\x1b[{COLORS.get(record.levelno, '0')}m{level}\x1b[0m"
        try:
            return super().formatMessage(record)
        finally:
            record.levelname = level

    def formatException(self, info: object) -> str:
        return lines(super().formatException(info))  # type: ignore[arg-type]


def set_up_logging(verbose: bool) -> None:
    """To stderr, in color if it is a terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(sys.stderr.isatty() and "NO_COLOR" not in os.environ))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])


def getColoredLogger(name: str) -> logging.Logger:
    return logging.getLogger(name)
