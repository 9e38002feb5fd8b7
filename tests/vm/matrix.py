#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The mount's and the module's tests on machines of the table (machines.py), one after another.

    matrix.py OUT [--some] [--long] [--junit DIRECTORY] [NAME...]

Of each machine OUT/NAME gets the JUnit files, pytest's output, the guests' consoles and what the
mount's `info` said.  At the end there is a table; why tests were skipped is in pytest's output.
A machine that cannot be had here is a row with the reason; the module is built for it.
"""
from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path.insert(0, str(HERE))
import kit  # noqa: E402
import machines  # noqa: E402
from machines import Machine  # noqa: E402

SUITES = {"mount": ["tests/mount"], "vm": ["tests/vm"]}
# What another architecture is likeliest to break: bytes, numbers, addresses, comings and goings,
# and where a call's arguments and result are.
SOME = {"mount": [f"tests/mount/test_{name}.py" for name in
                  ("info", "links", "mem", "text", "typed", "window", "writes")],
        "vm": [f"tests/vm/test_{name}.py" for name in
               ("builtin", "examples", "hook_calls", "link", "serial")]}
SUITE_SECONDS = 1800


class Row(NamedTuple):
    machine: Machine
    release: str = "-"
    window: str = "-"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    why: str = ""  # it could not be tested


def counts(path: Path) -> tuple[int, int, int]:
    """Passed, failed, skipped."""
    passed = failed = skipped = 0
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def info(out: Path) -> dict[str, str]:
    """What the mount said of the guest."""
    try:
        lines = (out / "guests/info").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def window(said: dict[str, str]) -> str:
    ram = said.get("ram", "-")
    return ram.split(" in the memory")[0] + (")" if " in the memory" in ram else "")


def suite(machine: Machine, name: str, tests: list[str], out: Path, options: list[str]) -> Path:
    """Run a suite; its JUnit file, of which there is one also if pytest has come to grief."""
    junit = out / f"{name}.xml"
    argv = ["/usr/bin/python3", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider",
            "--backend=vm", f"--machine={machine.name}", f"--guests={out}/guests",
            f"--junitxml={junit}", "-o", f"junit_suite_name={machine.name}-{name}",
            *options, *tests]
    limit = SUITE_SECONDS * machine.slow
    with open(out / f"{name}.log", "wb") as log:
        try:
            rc = subprocess.run(argv, cwd=TOP, stdout=log, stderr=log, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            rc = "over time"
    if rc not in (0, 1) or not junit.exists():
        root = ET.Element("testsuite")
        case = ET.SubElement(root, "testcase", name=f"{machine.name}-{name}-run")
        ET.SubElement(case, "failure", message=f"pytest ended with {rc}")
        ET.ElementTree(root).write(out / f"{name}-run.xml")
    return junit


def test(machine: Machine, out: Path, tests: dict[str, list[str]], options: list[str]) -> Row:
    began = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    (out / "guests").mkdir(parents=True)
    try:
        kernel = kit.kernel(machine)
        if machine.unavailable:
            kit.module(machine, out / "module")
            return Row(machine, (kernel / "release").read_text().strip(),
                       seconds=time.monotonic() - began,
                       why=f"the module builds for it; {machine.unavailable}")
        kit.need(*machine.packages)
    except kit.KitError as error:
        (out / "why").write_text(str(error))
        return Row(machine, failed=1, why=str(error).strip().splitlines()[-1])
    for name, paths in tests.items():
        suite(machine, name, paths, out, options)
    sums = [sum(n) for n in zip(*(counts(path) for path in out.glob("*.xml")))] or [0, 1, 0]
    said = info(out)
    return Row(machine, said.get("release", "-"), window(said), *sums,
               seconds=time.monotonic() - began)


def table(rows: list[Row]) -> str:
    cells = [("machine", "kernel", "link", "window", "passed", "failed", "skipped", "seconds")]
    for row in rows:
        link = f"{row.machine.link}-{row.machine.bus}" if row.machine.link == "virtio" else "serial"
        cells.append((row.machine.name, row.release, link, row.window, str(row.passed),
                      str(row.failed), str(row.skipped), f"{row.seconds:.0f}"))
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
             for line in cells]
    lines += [f"{row.machine.name}: {row.why}" for row in rows if row.why]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of machines.py; by default all")
    parser.add_argument("--some", action="store_true", help="those most likely to fail")
    parser.add_argument("--junit", type=Path, help="where JUnit files go, too")
    parser.add_argument("--long", action="store_true", help="run what takes long for longer")
    args = parser.parse_intermixed_args()
    chosen = [machines.use(name) for name in args.names or machines.TABLE]
    rows = []
    for machine in chosen:
        print(f"== {machine.name}: {args.out / machine.name}", flush=True)
        rows.append(test(machine, (args.out / machine.name).resolve(),
                         SOME if args.some else SUITES, ["--long"] if args.long else []))
        row = rows[-1]
        for xml in (args.out / machine.name).glob("*.xml") if args.junit else ():
            shutil.copy(xml, args.junit / f"{machine.name}-{xml.name}")
        print(f"   {row.passed} passed, {row.failed} failed, {row.skipped} skipped "
              f"in {row.seconds:.0f} s", flush=True)
    print(table(rows))
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
