# SPDX-License-Identifier: MIT
"""run: hypermem-run, which runs plugins made for Penguin's hypermem on a mount.

The modules pandare2 and penguin that such plugins import are those of this package, for this
process only.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from . import compat_pandare2, compat_penguin
from .compat_hypermem import Hypermem
from .compat_panda import Panda
from .compat_pandare2 import PyPlugin
from .filters import FilterError
from .guest import Guest

EPILOG = """\
It runs until it is ended, or all its hooks have been removed.  Exit status: 0 all hooks are gone,
or the time is up; 1 something has failed; 2 the command line is wrong; 130 Ctrl-C; 143 SIGTERM.
A handler that raises is logged, and the call goes on as if there were no hook."""

log = logging.getLogger("hypermem-run")


class Problem(Exception):
    """Something that the user can do something about."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hypermem-run", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run plugins made for Penguin's hypermem on a guest that is mounted.")
    parser.add_argument("--mount", required=True, metavar="DIR", help="the mount of hypermemfs")
    parser.add_argument("--plugin", action="append", metavar="CLASS",
                        help="of the file, only this one; may be repeated (default: all)")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE",
                        help="what get_arg(NAME) returns in plugins; may be repeated")
    parser.add_argument("--timeout", type=float, metavar="SECONDS",
                        help="how long a call waits for its handler (default: the mount's, 5)")
    parser.add_argument("--seconds", type=float, metavar="SECONDS", help="end after so long")
    parser.add_argument("--verbose", action="store_true", help="log what is for debugging, too")
    parser.add_argument("file", metavar="PLUGIN.py")
    args = parser.parse_args(argv)
    if any("=" not in arg for arg in args.arg):
        parser.error("--arg: NAME=VALUE")
    return args


def load(path: str) -> ModuleType:
    """Execute the file as a module."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if not spec or not spec.loader:
        raise Problem(f"{path} is no file of Python's")
    module = importlib.util.module_from_spec(spec)
    sys.modules.update({"pandare2": compat_pandare2, "penguin": compat_penguin, name: module})
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec.loader.exec_module(module)
    return module


def plugins_of(module: ModuleType, wanted: Sequence[str] | None) -> list[type[PyPlugin]]:
    there = {name: value for name, value in vars(module).items()
             if isinstance(value, type) and issubclass(value, PyPlugin)
             and value.__module__ == module.__name__}
    if not there:
        raise Problem(f"{module.__file__} has no class that is derived from pandare2's PyPlugin")
    for name in wanted or ():
        if name not in there:
            raise Problem(f"{module.__file__} has no plugin {name}, but {', '.join(there)}")
    return [there[name] for name in wanted or there]


def start(kind: type[PyPlugin], panda: Panda, args: dict[str, str]) -> PyPlugin:
    panda.owner = kind.__name__
    plugin = kind.__new__(kind)
    plugin.args = args
    plugin.__init__(panda)  # type: ignore[misc]
    return plugin


def finish(guest: Guest, plugins: Sequence[PyPlugin]) -> None:
    for hook in guest.hooks:
        with contextlib.suppress(OSError):  # what had to be said of the mount has been
            counts = [f"{count} {what}" for what, count in hook.stats.items() if count]
            log.info("%s: %s", hook.name, ", ".join(counts) or "0 matched")
    guest.close()
    for plugin in plugins:
        plugin.uninit()


def run(args: argparse.Namespace) -> None:
    guest = Guest(args.mount)
    hypermem = compat_penguin.plugins.hypermem = Hypermem()
    panda = Panda(guest, hypermem, args.timeout)
    values = dict(arg.split("=", 1) for arg in args.arg)
    plugins: list[PyPlugin] = []
    try:
        for kind in plugins_of(load(args.file), args.plugin):
            plugins.append(start(kind, panda, values))
        if not guest.hooks:
            raise Problem(f"{args.file} hooks nothing")
        for hook in guest.hooks:
            log.info("%s: %s", hook.name, hook.filter)
        guest.run(args.seconds)
    finally:
        finish(guest, plugins)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    compat_penguin.set_up_logging(args.verbose)
    try:
        run(args)
    except KeyboardInterrupt:
        return 130
    except (FilterError, OSError, Problem) as error:
        print(f"hypermem-run: {compat_penguin.lines(str(error))}", file=sys.stderr)
        return 1
    except Exception:
        log.exception("a plugin has failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
