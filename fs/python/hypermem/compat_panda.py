# SPDX-License-Identifier: MIT
"""compat_panda: the object `panda` of a plugin that hypermem-run runs: hooks of system calls, and
the registers of who makes them.

What a handler gets is (cpu, proto, syscall, hook, *arguments).  Filters are tested in the guest.
"""
from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, Union

from .compat_calls import count_args
from .compat_hypermem import Hypermem, finish
from .event import Args, Event
from .filters import Test, compose, quote
from .guest import Guest

Filter = Union[int, str, None]
COMM_MAX = 15
ARGS_MAX = 6
# What others call a register that the guest has by another name.
REGISTERS = {"rsp": "sp", "esp": "sp", "rip": "pc", "eip": "pc", "x30": "lr"}


class Cpu:
    """Whose registers are meant: those of the thread that makes the call."""

    def __init__(self, event: Event) -> None:
        self.event = event


class Arch:
    def get_reg(self, cpu: Cpu, reg: str) -> int:
        """KeyError: the guest has none of that name, or there are none of this event."""
        name, regs = reg.lower(), cpu.event.regs
        if name not in regs:
            name = REGISTERS.get(name, name)
        if name not in regs:
            raise KeyError(f"no register {reg}; there are {', '.join(regs) or 'none'}")
        return regs[name]

    def get_pc(self, cpu: Cpu) -> int:
        return self.get_reg(cpu, "pc")


class Proto:
    """Which call it is."""

    def __init__(self, event: Event) -> None:
        self.name = f"sys_{event.call}"
        self.no = event.nr
        self.nargs = count_args(event.call)


class Syscall:
    """The call, and how it goes on."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.name = f"sys_{event.call}"
        self.pid = event.pid
        self._retval = event.retval
        self._skip = event.skipped

    @property
    def args(self) -> Args:
        return self.event.args

    @property
    def retval(self) -> int | None:
        """What it returns; None: it has not been made.  Before it is made what is assigned counts
        only if it is to be skipped."""
        return self._retval

    @retval.setter
    def retval(self, value: int) -> None:
        if self.event.returns:
            self.event.retval = value
        self._retval = value

    @property
    def skip_syscall(self) -> bool:
        return self._skip

    @skip_syscall.setter
    def skip_syscall(self, value: bool) -> None:
        if self.event.returns:
            raise RuntimeError("the call has been made")
        self._skip = value

    def finish(self) -> None:
        """The handler has ended."""
        if self._skip and not self.event.returns:
            self.event.skip(self._retval or 0)


def _args_of(handler: Callable[..., Any], call: str) -> int:
    """How many of the call's arguments the handler takes."""
    parameters = inspect.signature(handler).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return count_args(call)
    positional = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not 4 <= positional <= 4 + ARGS_MAX:
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"{name} must take cpu, proto, syscall, hook, and up to {ARGS_MAX} "
                        "arguments of the call")
    return positional - 4


def _tests(arg_filter: Sequence[Filter], comm: str | None, pid: int | None,
           retval: int | None) -> tuple[dict[str, Test], list[str]]:
    if len(arg_filter) > ARGS_MAX:
        raise ValueError(f"arg_filter: a call has no more than {ARGS_MAX} arguments")
    tests: dict[str, Test] = {f"arg{k}": value for k, value in enumerate(arg_filter)
                              if not isinstance(value, str)}
    # A string is what the argument points to begins with.
    begins = [f"str(arg{k})^={quote(value).decode()}" for k, value in enumerate(arg_filter)
              if isinstance(value, str)]
    if comm is not None:
        # The kernel has cut it, too.
        tests["comm"] = comm.encode("utf-8", "surrogateescape")[:COMM_MAX]
    tests["tid"] = pid
    tests["retval"] = retval
    return tests, begins


class Panda:
    def __init__(self, guest: Guest, hypermem: Hypermem, timeout: float | None = None) -> None:
        self.arch = Arch()
        self.owner = ""  # the plugin that is being made
        self._guest = guest
        self._hypermem = hypermem
        self._timeout = timeout
        info = guest.info
        self.bits = int(info["bits"])
        self.endianness = info["endian"]

    def hsyscall(self, name: str, arg_filter: Sequence[Filter] | None = None,
                 comm_filter: str | None = None, pid_filter: int | None = None,
                 retval_filter: int | None = None
                 ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A decorator.  name: on_sys_NAME_enter, on_sys_NAME_return, on_all_sys_enter or _return.
        arg_filter: for each argument a number, or what a string that it points to begins with,
        or None.  comm_filter: the thread's name.  pid_filter: the thread's."""
        found = re.fullmatch(r"on_(?:sys_(\w+)|all_sys)_(enter|return)", name)
        if not found:
            raise ValueError(f"{name}: not on_sys_NAME_enter, on_sys_NAME_return, "
                             "on_all_sys_enter or on_all_sys_return")
        call, phase = found[1] or "*", found[2]
        if retval_filter is not None and phase == "enter":
            raise ValueError(f"{name}: there is no result yet that retval_filter could test")
        tests, begins = _tests(arg_filter or (), comm_filter, pid_filter, retval_filter)
        filter = compose(" ".join([call, phase, *begins]), tests, "regs").decode()

        def hook(handler: Callable[..., Any]) -> Callable[..., Any]:
            _args_of(handler, call)  # if it takes what no call has it is better known now
            adapter = functools.partial(self._call, handler)
            name = getattr(handler, "__name__", "handler")
            adapter.__name__ = f"{self.owner}.{name}"  # type: ignore[attr-defined]
            self._guest.hook(filter, timeout=self._timeout)(adapter)
            return handler

        return hook

    def _call(self, handler: Callable[..., Any], event: Event) -> None:
        args = event.args[:_args_of(handler, event.call)]
        syscall = Syscall(event)
        with self._hypermem.during(event):
            finish(handler(Cpu(event), Proto(event), syscall, event.hook, *args))
        syscall.finish()
