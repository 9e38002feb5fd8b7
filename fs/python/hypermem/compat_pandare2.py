# SPDX-License-Identifier: MIT
"""compat_pandare2: what a plugin that hypermem-run runs gets as the module pandare2."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compat_panda import Panda


class PyPlugin:
    """What plugins are derived from."""

    panda: Panda
    args: Mapping[str, str] = {}  # --arg NAME=VALUE; there before __init__

    def __init__(self, panda: Panda) -> None:
        self.panda = panda

    def get_arg(self, name: str) -> str | None:
        return self.args.get(name)

    def get_arg_bool(self, name: str) -> bool:
        value = self.args.get(name, "").lower()
        if value not in ("", "y", "yes", "true", "1", "n", "no", "false", "0"):
            raise ValueError(f"argument {name}: neither true nor false: {value}")
        return value in ("y", "yes", "true", "1")

    def uninit(self) -> None:
        """Called at the end."""
