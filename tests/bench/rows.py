# SPDX-License-Identifier: MIT
"""The rows of the table: what is compared with what, and how good it must be.

Samples have names (bench.py makes them); a row says which are its figure, its floor and its
peers.  Each is the median of its samples, a floor of several names their sum.
"""
from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple


class Samples(defaultdict[str, list[float]]):
    """Numbers by name; and why there are none."""

    def __init__(self) -> None:
        super().__init__(list)
        self.missing: dict[str, str] = {}

    def median(self, name: str) -> float | None:
        return statistics.median(self[name]) if self.get(name) else None


class Bar(NamedTuple):
    sign: str   # ">=" or "<="
    value: float
    of: str     # "floor": the bar is value x floor; "figure": it is the value

    def met(self, figure: float, floor: float | None) -> bool | None:
        if self.of == "floor" and floor is None:
            return None
        limit = self.value * (floor or 0.0) if self.of == "floor" else self.value
        return figure >= limit if self.sign == ">=" else figure <= limit


def at_least(value: float, of: str = "floor") -> Bar:
    return Bar(">=", value, of)


def at_most(value: float, of: str = "floor") -> Bar:
    return Bar("<=", value, of)


class Row(NamedTuple):
    name: str                       # what --only calls it
    what: str
    unit: str
    figure: str
    floor: tuple[str, ...] = ()
    floor_is: str = ""
    bars: tuple[Bar, ...] = ()
    peers: Mapping[str, str] = {}   # what they are called: samples
    needs: str = "bulk"             # the measurement that makes the samples


READERS = 8
FEW, MANY = 1000, 10000

BULK_PEERS = {"guest's own": "guest.dd", "qemu-guest-agent": "qga.mem", "gdbstub": "gdb.mem",
              "pmemsave": "pmemsave.mem", "/proc/QEMU/mem": "qemu.mem"}

ROWS = (
    Row("dd", "dd bs=1M, 64 MiB of mem, window", "MB/s", "window.dd", ("fuse.dd",), "FUSE",
        (at_least(0.5),), {"a second time": "window.dd.again", **BULK_PEERS,
                           "memcpy": "host.memcpy"}),
    Row("dd-off", "the same, ram=off", "MB/s", "off.dd", ("echo.mbs",), "link's echo",
        (at_least(0.7), at_least(200, "figure")),
        {"echo, one at a time": "echo.lone", "echo with memcpy()": "echo.copied",
         "guest's own": "guest.dd",
         "memcpy in the guest": "guest.memcpy"}),
    Row("pread", "pread of 4 KiB, p50", "µs", "fs.pread", ("echo.small", "fuse.pread"),
        "link's echo + FUSE", (at_most(1.35),),
        {"its p99": "fs.pread.p99", "FUSE": "fuse.pread", "empty echo": "echo.empty",
         "guest's own": "guest.pread", "/proc/QEMU/mem": "qemu.pread",
         "pmemsave": "pmemsave.pread", "gdbstub": "gdb.pread", "qemu-guest-agent": "qga.pread"}),
    Row("pread", "the same, ram=off", "µs", "off.pread", ("echo.small", "fuse.pread"),
        "link's echo + FUSE", (at_most(1.35),), {"its p99": "off.pread.p99"}),
    Row("readers", f"{READERS} readers of 4 KiB", "reads/s", f"fs.readers.{READERS}",
        ("fs.readers.1",), "one reader", (at_least(1.5),),
        {"FUSE": f"fuse.readers.{READERS}", "one reader of FUSE": "fuse.readers.1"}),
    Row("readers", "the same, ram=off", "reads/s", f"off.readers.{READERS}", ("off.readers.1",),
        "one reader", (at_least(1.5),)),
    Row("serial", "dd bs=1M, 64 MiB of mem, window, over a UART", "MB/s", "serial.dd",
        ("window.dd",), "over virtio", peers={"ram=off": "serial.off.dd"}),
    Row("serial", "pread of 4 KiB, ram=off, over a UART", "µs", "serial.pread", ("off.pread",),
        "over virtio"),
    Row("environ", f"cat pid/*/environ, {FEW:,} processes", "ms", f"fs.environ.{FEW}",
        (f"guest.environ.{FEW}",), "guest's own", (at_most(1.5),), needs="crowd"),
    Row("environ", "the same, beside the agent", "ms", f"fs.environ.{FEW}",
        (f"qga.environ.{FEW}",), "qemu-guest-agent", (at_most(0.1),), needs="crowd"),
    Row("grep", f"grep -la PATH= pid/*/environ, {FEW:,}", "ms", f"fs.grep.{FEW}",
        (f"guest.grep.{FEW}",), "guest's own", needs="crowd"),
    Row("ls", f"ls -l pid/, {MANY:,} processes", "ms", f"fs.ls-l.{MANY}", (f"fuse.ls-l.{MANY}",),
        "FUSE", (at_most(100, "figure"),), {"guest's own": f"guest.ls-l.{MANY}"}, needs="crowd"),
    Row("ls", f"ls -l pid/, each of {MANY:,}", "µs", f"fs.ls-l.each.{MANY}",
        (f"fs.ls-l.each.{FEW}",), f"each of {FEW:,}", (at_most(1),), needs="crowd"),
    Row("ls", f"ls pid/, each of {MANY:,}", "µs", f"fs.ls.each.{MANY}", (f"fs.ls.each.{FEW}",),
        f"each of {FEW:,}", (at_most(1),), {"ms in all": f"fs.ls.{MANY}",
                                            "ms in all, guest's own": f"guest.ls.{MANY}"},
        needs="crowd"),
    Row("hooks", "a call that is not hooked, others are", "ns", "call.other", ("call.plain",),
        "no hooks", (at_most(1.1),), needs="hooks"),
    Row("hooks", "what a hook adds, filtered out", "ns", "call.added.filtered",
        ("call.added.counted",), "kprobe counter",
        peers={"the call": "call.plain", "the call, filtered out": "call.filtered"},
        needs="hooks"),
    Row("hooks", "a call that waits for its reply, p50", "µs", "call.replied", ("echo.empty",),
        "link's echo", (at_most(1.6),), {"the handler told of it": "call.replied.told"},
        needs="hooks"),
    Row("hooks", "events of a trace", "events/s", "trace.rate",
        bars=(at_least(20000, "figure"),), peers={"lost": "trace.lost"}, needs="hooks"),
    Row("idle", "idle: the daemon's CPU", "ticks", "idle.ticks", bars=(at_most(0, "figure"),),
        needs="idle"),
    Row("idle", "idle: its context switches", "", "idle.switches", bars=(at_most(0, "figure"),),
        needs="idle"),
    Row("idle", "idle: the device's interrupts", "", "idle.interrupts", ("away.interrupts",),
        "not mounted", (at_most(1),),
        {"all of the guest": "idle.all", "the same, not mounted": "away.all"}, needs="idle"),
)


class Result(NamedTuple):
    """A row with its numbers."""
    row: Row
    figure: float | None
    floor: float | None
    bars: tuple[tuple[Bar, bool | None], ...]
    peers: Mapping[str, float | None]
    missing: str                    # why there is no figure
    samples: Mapping[str, list[float]]

    @property
    def ratio(self) -> float | None:
        return self.figure / self.floor if self.figure is not None and self.floor else None

    @property
    def met(self) -> bool | None:
        if any(met is None for _, met in self.bars) or not self.bars:
            return None
        return all(met for _, met in self.bars)


def total(values: list[float | None]) -> float | None:
    return None if not values or None in values else sum(values)


def result(row: Row, samples: Samples) -> Result:
    figure = samples.median(row.figure)
    floor = total([samples.median(name) for name in row.floor])
    bars = tuple((bar, None if figure is None else bar.met(figure, floor)) for bar in row.bars)
    names = [row.figure, *row.floor, *row.peers.values()]
    return Result(row, figure, floor, bars,
                  {label: samples.median(name) for label, name in row.peers.items()},
                  samples.missing.get(row.figure, ""),
                  {name: samples[name] for name in names if samples.get(name)})
