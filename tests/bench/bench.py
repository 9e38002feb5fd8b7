#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The benchmark: measures hypermemfs, its floors and its peers in one guest.  See run.sh.

A measurement takes its samples in rounds, and in each round everything that will be compared,
one after the other: what disturbs the host disturbs all of them.
"""
from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from machine import BenchError, LabError, Machine, host
from peers import Gdb, Qga, find_ram, pmemsave
from report import Plot, table, write_json
from rows import FEW, MANY, READERS, ROWS, Samples, result

MEM = 64 << 20      # of a process, and of RAM, that is read
BLOCK = 4096
GUEST_RAM = 2 << 30
STALE = 1.2         # seconds after which names and attributes are asked for again
SLICE = 2 << 20     # what slow peers read
LINE_SLICE = 256 << 10  # and what comes over a UART byte by byte
QGA_PROCESSES = 50

BLOCKS = [4096 << shift for shift in range(0, 12, 2)]
CROWDS = [100, 300, FEW, 3000, MANY]

OURS, OURS_TOO = "lc rgb '#0050b0' lw 3 pt 7 ps 0.8", "lc rgb '#60a0e0' lw 3 pt 7 ps 0.8"
FLOOR = "lc rgb '#808080' lw 2 dt 2 pt 0"
GUEST, GUEST_TOO = "lc rgb '#208030' lw 1.5 pt 5 ps 0.7", "lc rgb '#80c080' lw 1.5 pt 5 ps 0.7"
QGA_STYLE = "lc rgb '#d06000' lw 1.5 pt 9 ps 0.8"

THROUGHPUT = Plot(
    "throughput", "Reading a process's memory", "bytes per read", "MB/s",
    'set xtics ("4 KiB" 4096, "16 KiB" 16384, "64 KiB" 65536, "256 KiB" 262144, '
    '"1 MiB" 1048576, "4 MiB" 4194304)',
    {"sweep.fuse": ("FUSE itself", FLOOR),
     "sweep.window": ("hypermemfs", OURS),
     "sweep.off": ("hypermemfs, ram=off", OURS_TOO),
     "sweep.guest": ("the guest's own /proc", GUEST),
     "sweep.qga": ("qemu-guest-agent", QGA_STYLE),
     "sweep.qemu": ("/proc/QEMU/mem, physical", "lc rgb '#803080' lw 1.5 pt 13 ps 0.8"),
     "sweep.pmemsave": ("pmemsave, physical", "lc rgb '#906040' lw 1.5 pt 11 ps 0.8"),
     "sweep.gdb": ("gdbstub, physical, by 2 KiB", "lc rgb '#c02020' lw 1.5 dt 3 pt 0")}, BLOCKS)
PROCESSES = Plot(
    "processes", "Looking at all processes", "processes", "ms", "",
    {"qga.environ": ("cat environ: qemu-guest-agent", QGA_STYLE),
     "fs.environ": ("cat environ: hypermemfs", OURS),
     "guest.environ": ("cat environ: the guest itself", GUEST),
     "guest.ls-l": ("ls -l: the guest itself", GUEST_TOO),
     "fs.ls-l": ("ls -l: hypermemfs", OURS_TOO),
     "fuse.ls-l": ("ls -l: FUSE itself", FLOOR)}, CROWDS)

# A process may end meanwhile: that is no failure of the command.
COMMANDS = {"environ": "cat [0-9]*/environ; true", "grep": "grep -la PATH= [0-9]*/environ; true",
            "ls-l": "ls -l", "ls": "ls"}


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


class Bench:
    def __init__(self, machine: Machine, qga: Qga, quick: bool, plot: bool) -> None:
        self.machine, self.qga, self.quick, self.plot = machine, qga, quick, plot
        self.samples = Samples()
        self.off = [] if machine.mount_refusal("ram=off") else ["ram=off"]
        self.window = None if (why := machine.mount_refusal("ram=require")) else ["ram=require"]
        self.samples.missing["window.dd"] = why

    def add(self, name: str, value: float) -> None:
        self.samples[name].append(value)

    # Memory.

    def bulk(self) -> None:
        machine = self.machine
        said = machine.crowd("memory", MEM)
        self.pid, self.start = said["pid"], said["start"]
        self.mem = machine.mnt / "pid" / str(self.pid) / "mem"
        self.ram = find_ram(machine.guest.pid, GUEST_RAM, MEM)
        for i in range(n := 3 if self.quick else 9):
            progress(f"memory, round {i + 1} of {n}")
            self.bulk_ours()
            self.bulk_echo()
            self.bulk_serial()
            self.bulk_peers()
        for i in range(n := 0 if not self.plot else 1 if self.quick else 3):
            progress(f"block sizes, round {i + 1} of {n}")
            for block in BLOCKS:
                self.sweep(block)
        machine.guest.kill(self.pid)

    def bulk_ours(self) -> None:
        machine = self.machine
        with machine.floor():
            mem = machine.floor_mnt / "mem"
            machine.dd(mem, 0, MEM)
            self.add("fuse.dd", machine.dd(mem, 0, MEM))
            self.add_small("fuse", mem, 0)
        if self.window:
            with machine.mount(*self.window):
                self.add("window.dd", machine.dd(self.mem, self.start, MEM))
                self.add("window.dd.again", machine.dd(self.mem, self.start, MEM))
        with machine.mount():
            self.add_small("fs", self.mem, self.start)
        with machine.mount(*self.off):
            self.add("off.dd", machine.dd(self.mem, self.start, MEM))
            self.add_small("off", self.mem, self.start)

    def add_small(self, name: str, mem: Path, start: int) -> None:
        """Small reads, by one and by many."""
        args = mem, start, MEM, BLOCK, 500 if self.quick else 2000
        said = self.machine.pread(*args)
        self.add(f"{name}.pread", said["p50_us"])
        self.add(f"{name}.pread.p99", said["p99_us"])
        for n in 1, READERS:
            self.add(f"{name}.readers.{n}", self.machine.pread(*args, n)["rate"])

    def bulk_echo(self) -> None:
        with self.machine.echo():
            said = self.machine.link_client()
        for sample, word in (("empty", "empty_us"), ("small", "small_us"), ("lone", "lone_mbs"),
                             ("mbs", "mbs"), ("copied", "copied_mbs")):
            self.add(f"echo.{sample}", said[word])

    def bulk_serial(self) -> None:
        """With the window, only where pages are goes over the line."""
        machine = self.machine
        with machine.serial():
            if self.window:
                with machine.mount(*self.window, line=True):
                    self.add("serial.dd", machine.dd(self.mem, self.start, MEM))
            with machine.mount("ram=off", line=True):
                self.add("serial.off.dd", machine.dd(self.mem, self.start, LINE_SLICE))
                self.add("serial.pread", machine.pread(self.mem, self.start, MEM, BLOCK, 20)["p50_us"])

    def bulk_peers(self) -> None:
        machine, guest = self.machine, self.machine.guest
        self.add("host.memcpy", machine.memcpy())
        self.add("guest.memcpy", machine.in_guest("memcpy")["mbs"])
        self.add("guest.dd", self.guest_pread(1 << 20, 64)["mbs"])
        self.add("guest.pread", self.guest_pread(BLOCK, 2000)["p50_us"])
        self.add("qga.mem", self.qga.memory(self.pid, self.start, SLICE, 1 << 20))
        self.add("qga.pread", self.qga_pread())
        with closing(Gdb(machine.gdb_socket)) as gdb:
            self.add("gdb.mem", gdb.memory(self.ram.physical, SLICE))
            self.add("gdb.pread", micros(BLOCK, gdb.memory(self.ram.physical, 256 * BLOCK)))
        out = machine.dir / "pmemsave"
        self.add("pmemsave.mem", pmemsave(guest, self.ram, MEM, out))
        self.add("pmemsave.pread", micros(BLOCK, pmemsave(guest, self.ram, BLOCK, out)))
        self.add("qemu.mem", self.qemu_pread(1 << 20, 64)["mbs"])
        self.add("qemu.pread", self.qemu_pread(BLOCK, 2000)["p50_us"])

    def guest_pread(self, block: int, count: int) -> dict[str, float]:
        return self.machine.in_guest("pread", f"/proc/{self.pid}/mem", self.start, MEM, block,
                                     count)

    def qemu_pread(self, block: int, count: int) -> dict[str, float]:
        path = f"/proc/{self.machine.guest.pid}/mem"
        return self.machine.pread(path, self.ram.virtual, MEM, block, count)

    def qga_pread(self) -> float:
        return micros(BLOCK, self.qga.memory(self.pid, self.start, 50 * BLOCK, BLOCK))

    def sweep(self, block: int) -> None:
        """MB/s of each with this block size."""
        machine = self.machine
        count = min(MEM // block, 1024)
        args = MEM, block, count
        with machine.floor():
            self.add(f"sweep.fuse.{block}", machine.pread(machine.floor_mnt / "mem", 0, *args)["mbs"])
        for line, options in (("window", self.window), ("off", self.off)):
            if options is not None:
                with machine.mount(*options):
                    mbs = machine.pread(self.mem, self.start, *args)["mbs"]
                self.add(f"sweep.{line}.{block}", mbs)
        self.add(f"sweep.guest.{block}", self.guest_pread(block, count)["mbs"])
        self.add(f"sweep.qemu.{block}", self.qemu_pread(block, count)["mbs"])
        self.add(f"sweep.qga.{block}",
                 self.qga.memory(self.pid, self.start, max(block, 64 * BLOCK), block))
        self.add(f"sweep.pmemsave.{block}",
                 pmemsave(machine.guest, self.ram, block, machine.dir / "pmemsave"))
        self.add(f"sweep.gdb.{block}", self.samples.median("gdb.mem"))

    # Processes.

    def crowd(self) -> None:
        for n in CROWDS if self.plot else (FEW, MANY):
            self.grow(n)
            self.crowd_of(n)

    def grow(self, n: int) -> None:
        """Until so many processes are there."""
        there = len(self.machine.guest.run("ls -d /proc/[0-9]*").out.split()) - 2  # sh, ls
        env = {"CROWD_NUMBER": "0000000", "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root",
               **{f"VARIABLE_{i}": "x" * 50 for i in range(30)}}  # 2 KiB
        progress(f"{n} processes")
        self.machine.crowd("idle", n - there - 1, env)

    def crowd_of(self, n: int) -> None:
        with self.machine.floor(n), self.machine.mount():
            for name, command in COMMANDS.items():
                for _ in range(self.crowd_rounds(n, name)):
                    self.crowd_command(n, name, command)
            for _ in range(min(2, self.crowd_rounds(n, "environ"))):
                self.crowd_qga(n)

    def crowd_rounds(self, n: int, name: str) -> int:
        if n == FEW or (n == MANY and name.startswith("ls")):
            return 2 if self.quick else 5
        return 2 if self.plot and f"fs.{name}" in PROCESSES.lines else 0

    def crowd_command(self, n: int, name: str, command: str) -> None:
        machine = self.machine
        if name.startswith("ls"):
            time.sleep(STALE)
            self.add(f"fuse.{name}.{n}", machine.stopwatch(command, machine.floor_mnt / "dir") * 1e3)
        time.sleep(STALE)
        seconds = machine.stopwatch(command, machine.mnt / "pid")
        self.add(f"fs.{name}.{n}", seconds * 1e3)
        self.add(f"fs.{name}.each.{n}", seconds * 1e6 / n)
        self.add(f"guest.{name}.{n}", machine.guest_stopwatch(f"cd /proc; {command}") * 1e3)

    def crowd_qga(self, n: int) -> None:
        """A part of them, scaled."""
        time.sleep(STALE)
        pids = [int(name) for name in os.listdir(self.machine.mnt / "pid") if name.isdigit()]
        sample = random.Random(n).sample(pids, min(QGA_PROCESSES, len(pids)))
        seconds = sum(self.qga.environ(pid) for pid in sample) / len(sample)
        self.add(f"qga.environ.each.{n}", seconds * 1e3)
        self.add(f"qga.environ.{n}", seconds * 1e3 * n)

    # System calls.

    def hooks(self) -> None:
        machine = self.machine
        for i in range(n := 2 if self.quick else 5):
            progress(f"hooks, round {i + 1} of {n}")
            self.bulk_echo()
            plain = self.call("plain")
            with machine.counted():
                self.add("call.added.counted", self.call("counted") - plain)
            with machine.mount():
                with machine.hook("getuid"):
                    self.call("other")
                with machine.hook("getppid pid==1"):
                    self.add("call.added.filtered", self.call("filtered") - plain)
                for name, options in ("call.replied", ()), ("call.replied.told", ("-w",)):
                    with machine.hook("getppid comm=call", *options):
                        said = machine.in_guest("call", 200 if self.quick else 1000)
                    self.add(name, said["p50_ns"] / 1e3)
                self.trace()

    def call(self, name: str) -> float:
        """ns of a call."""
        ns = self.machine.in_guest("call", 20000)["mean_ns"]
        self.add(f"call.{name}", ns)
        return ns

    def trace(self) -> None:
        with self.machine.hook("getppid trace comm=call") as said:
            rate = self.machine.in_guest("call", 20000)["rate"]
            time.sleep(1)  # what is on its way
        self.add("trace.rate", rate * said["events"] / (said["events"] + said["lost"]))
        self.add("trace.lost", said["lost"])

    # Nothing.

    def idle(self) -> None:
        seconds = 10 if self.quick else 60
        progress(f"idle, twice {seconds} s")
        before = self.interrupts()
        time.sleep(seconds)
        self.add_interrupts("away", before)
        with self.machine.mount() as pid:
            os.listdir(self.machine.mnt / "pid")
            time.sleep(STALE)
            used, before = usage(pid), self.interrupts()
            time.sleep(seconds)
            self.add_interrupts("idle", before)
            ticks, switches = (b - a for a, b in zip(used, usage(pid)))
        self.add("idle.ticks", ticks)
        self.add("idle.switches", switches)

    def interrupts(self) -> tuple[int, int]:
        """Of the device that hypermem.ko drives, and all that the guest has had."""
        guest = self.machine.guest
        device = guest.run("cd /sys/bus/virtio/drivers/hypermem; ls -d virtio*", check=True).out
        lines = guest.read_file("/proc/interrupts").splitlines()
        counts = [(line, sum(map(int, re.findall(rb"(?<= )\d+(?= )", line.split(b":", 1)[-1]))))
                  for line in lines[1:]]
        ours = sum(n for line, n in counts if device.strip() + b"-" in line)
        return ours, sum(n for _, n in counts)

    def add_interrupts(self, name: str, before: tuple[int, int]) -> None:
        ours, every = (b - a for a, b in zip(before, self.interrupts()))
        self.add(f"{name}.interrupts", ours)
        self.add(f"{name}.all", every)


def micros(size: int, mbs: float) -> float:
    """The time of one, if so many bytes come at so many MB/s."""
    return size / mbs


def usage(pid: int) -> tuple[int, int]:
    """A process's CPU ticks and context switches, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    switches = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        switches += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", status.read_text())))
    return int(fields[11]) + int(fields[12]), switches


def describe(machine: Machine, smp: int) -> str:
    release = machine.guest.run("uname -r", check=True).out.decode().strip()
    qemu = re.search(r"version (\S+)", host(["qemu-system-x86_64", "--version"]).decode())[1]
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    return (f"guest: Linux {release}, {smp} CPU, QEMU {qemu}, TCG; "
            f"host: {os.cpu_count()} x {model}, Linux {os.uname().release}")


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    names = list(dict.fromkeys(row.name for row in ROWS))
    parser = argparse.ArgumentParser(prog="run.sh")
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, nargs="?",
                        const=Path(__file__).resolve().parents[2] / "docs")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--max-ports", type=int, default=31)
    parser.add_argument("--only", type=lambda text: text.split(","), default=names)
    args = parser.parse_args(argv)
    if unknown := set(args.only) - set(names):
        parser.error(f"--only: no row is called {', '.join(unknown)}; there are {', '.join(names)}")
    return args


def main() -> int:
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    rows = [row for row in ROWS if row.name in args.only]
    needed = {row.needs for row in rows}
    if args.plot:
        needed |= {"bulk", "crowd"}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hypermem-bench.")))
        load = os.getloadavg()[0]
        progress("boot")
        machine = stack.enter_context(closing(Machine(args.build, directory, args.smp, GUEST_RAM,
                                                      args.max_ports)))
        qga = stack.enter_context(closing(Qga(machine.guest, machine.qga_socket)))
        bench = Bench(machine, qga, args.quick, bool(args.plot))
        # The crowd comes last: it stays.
        for name in "bulk", "hooks", "idle", "crowd":
            if name in needed:
                getattr(bench, name)()
        machine.guest.check_console()
        print(describe(machine, args.smp), f"load before: {load:.1f}", sep=", ")
    results = [result(row, bench.samples) for row in rows]
    print(table(results))
    plots = [THROUGHPUT, PROCESSES] if args.plot else []
    for plot in plots:
        plot.write(bench.samples, args.plot / f"{plot.name}.svg")
    if args.json:
        write_json(args.json, results, plots, bench.samples)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, LabError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
