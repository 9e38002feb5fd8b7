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
import math
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import ModuleType

from . import command_line, compat_pandare2, compat_penguin
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
    parser = command_line.Parser(
        prog="hypermem-run", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run plugins made for Penguin's hypermem on a guest that is mounted.")
    parser.add_argument("--mount", required=True, metavar="DIR", help="the mount of hypermemfs")
    parser.add_argument("--plugin", action="append", metavar="CLASS",
                        help="of the file, only this one; may be repeated (default: all)")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE",
                        help="what get_arg(NAME) returns in plugins; may be repeated")
    parser.add_argument("--timeout", metavar="SECONDS",
                        type=command_line.seconds(*command_line.TIMEOUT),
                        help="how long a call waits for its handler (default: the mount's, 5)")
    parser.add_argument("--seconds", type=command_line.seconds(0, math.inf), metavar="SECONDS",
                        help="end after so long")
    parser.add_argument("--verbose", action="store_true",
                        help="log what is for debugging, too, and how a plugin has come to fail")
    parser.add_argument("file", metavar="PLUGIN.py")
    args = parser.parse_args(argv)
    args.file = os.path.abspath(args.file)
    for arg in args.arg:
        if "=" not in arg:
            parser.error(f"--arg {arg}: not NAME=VALUE")
    return args


def place(error: Exception, path: str) -> str:
    """Where in the plugin something has failed; its own text is not of any line of it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}" if error.lineno else error.filename
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path


def cause(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg}: {text}" if (text := (error.text or "").strip()) else error.msg
    if isinstance(error, FilterError):
        why, text, *_ = f"{error}\n".split("\n")
        return f"filter {text}: {why}"
    if isinstance(error, ImportError):
        return f"{error}; install it, or put it beside the plugin"
    if isinstance(error, OSError):
        return command_line.explain(error)
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def blamed(path: str, mount: str) -> Iterator[None]:
    """What a plugin raises when it is not handling a call is told in a line, with the place in the plugin."""
    try:
        yield
    except Problem:
        raise
    except Exception as error:
        log.debug("a plugin has failed", exc_info=True)
        named = isinstance(error, OSError) and str(error.filename).startswith((path, f"{mount}/"))
        raise Problem(cause(error) if named else f"{place(error, path)}: {cause(error)}") from error


def load(path: str) -> ModuleType:
    """Execute the file as a module."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if not spec or not spec.loader:
        raise Problem(f"{path}: not a file of Python's; a plugin's name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.update({"pandare2": compat_pandare2, "penguin": compat_penguin, name: module})
    sys.path.insert(0, os.path.dirname(path))
    spec.loader.exec_module(module)
    return module


def plugins_of(module: ModuleType, wanted: Sequence[str] | None) -> list[type[PyPlugin]]:
    there = {name: value for name, value in vars(module).items()
             if isinstance(value, type) and issubclass(value, PyPlugin)
             and value.__module__ == module.__name__}
    if not there:
        raise Problem(f"{module.__file__}: no plugin in it; that is a class derived from pandare2's "
                      "PyPlugin")
    for name in wanted or ():
        if name not in there:
            raise Problem(f"{module.__file__}: no plugin {name} in it, but {', '.join(there)}")
    return [there[name] for name in wanted or there]


def start(kind: type[PyPlugin], panda: Panda, args: dict[str, str]) -> PyPlugin:
    panda.owner = kind.__name__
    plugin = kind.__new__(kind)
    plugin.args = args
    plugin.__init__(panda)  # type: ignore[misc]
    return plugin


def uninit(plugin: PyPlugin, path: str, mount: str) -> None:
    with blamed(path, mount):
        plugin.uninit()


def finish(guest: Guest, plugins: Sequence[PyPlugin], path: str) -> None:
    for hook in guest.hooks:
        with contextlib.suppress(OSError):  # what had to be said of the mount has been
            counts = [f"{count} {what}" for what, count in hook.stats.items() if count]
            log.info("%s: %s", hook.name, ", ".join(counts) or "0 matched")
    with contextlib.ExitStack() as stack:  # from the last one on; whatever fails, all of it
        for plugin in reversed(plugins):
            stack.callback(uninit, plugin, path, guest.path)
        stack.callback(guest.close)


def run(args: argparse.Namespace) -> None:
    guest = Guest(args.mount)
    hypermem = compat_penguin.plugins.hypermem = Hypermem()
    panda = Panda(guest, hypermem, args.timeout)
    values = dict(arg.split("=", 1) for arg in args.arg)
    plugins: list[PyPlugin] = []
    try:
        with blamed(args.file, guest.path):
            module = load(args.file)
        for kind in plugins_of(module, args.plugin):
            with blamed(args.file, guest.path):
                plugins.append(start(kind, panda, values))
        if not guest.hooks:
            raise Problem(f"{args.file}: it hooks nothing; panda.hsyscall() does, in __init__")
        for hook in guest.hooks:
            log.info("%s: %s", hook.name, hook.filter)
        guest.run(args.seconds)
    finally:
        finish(guest, plugins, args.file)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    compat_penguin.set_up_logging(args.verbose)
    try:
        run(args)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, Problem) as error:
        text = command_line.explain(error) if isinstance(error, OSError) else str(error)
        print(f"hypermem-run: {compat_penguin.plain(text)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
