# SPDX-License-Identifier: MIT
"""Results as a table, as JSON, and as plots."""
from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rows import Bar, Result, Samples

COLUMNS = "what", "figure", "floor", "ratio", "bar", "peers"
SIGNS = {">=": "≥", "<=": "≤"}


def number(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return "-"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def amount(value: float | None, unit: str) -> str:
    return f"{number(value)} {unit}".strip() if value is not None else "-"


def bar_text(bar: Bar, met: bool | None, unit: str) -> str:
    limit = f"{bar.value:g} x" if bar.of == "floor" else amount(bar.value, unit)
    return f"{SIGNS[bar.sign]} {limit}: " + {True: "met", False: "NOT met", None: "-"}[met]


def cells(result: Result) -> Sequence[str]:
    row = result.row
    figure = amount(result.figure, row.unit)
    if result.missing:
        figure = f"not available: {result.missing}"
    floor = f"{amount(result.floor, row.unit)} ({row.floor_is})" if row.floor else "-"
    return (row.what, figure, floor,
            "-" if result.ratio is None else f"{result.ratio:.2f}",
            ", ".join(bar_text(bar, met, row.unit) for bar, met in result.bars) or "-",
            ", ".join(f"{label} {number(value)}" for label, value in result.peers.items()
                      if value is not None) or "-")


def table(results: Sequence[Result]) -> str:
    """In Markdown, aligned for who reads it as it is."""
    lines = [COLUMNS, *(cells(result) for result in results)]
    # The last column is as wide as each line needs.
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS) - 1)]
    texts = ["| " + " | ".join([*(cell.ljust(width) for cell, width in zip(line, widths)),
                                line[-1]]) + " |" for line in lines]
    rule = "| " + " | ".join(["-" * width for width in widths] + ["---"]) + " |"
    return "\n".join([texts[0], rule, *texts[1:]])


def as_json(result: Result) -> dict[str, Any]:
    row = result.row
    return {"name": row.what, "only": row.name, "figure": result.figure, "unit": row.unit,
            "floor": result.floor, "ratio": result.ratio,
            "bar": [f"{bar.sign} {bar.value:g}" + (" x floor" if bar.of == "floor" else "")
                    for bar, _ in result.bars],
            "met": result.met, "peers": result.peers, "missing": result.missing or None,
            "figure_of": row.figure, "floor_of": row.floor, "peers_of": row.peers,
            "samples": result.samples}


class Plot:
    """Lines, each with its title and style, over a parameter: samples called LINE.PARAMETER."""

    def __init__(self, name: str, title: str, xlabel: str, ylabel: str, settings: str,
                 lines: Mapping[str, tuple[str, str]], parameters: Sequence[int]) -> None:
        self.name, self.lines, self.parameters = name, lines, parameters
        self._head = (f'set terminal svg size 900,420 dynamic noenhanced font "sans-serif,13" '
                      f'background "#ffffff"\nset title "{title}"\nset xlabel "{xlabel}"\n'
                      f'set ylabel "{ylabel}"\nset logscale xy\nset grid\n'
                      f"set key outside right Left reverse spacing 1.3\n"
                      f"set xrange [{parameters[0]}:{parameters[-1]}]\n{settings}\n")

    def samples(self, samples: Samples) -> Mapping[str, list[float]]:
        names = [f"{line}.{n}" for line in self.lines for n in self.parameters]
        return {name: samples[name] for name in names if samples.get(name)}

    def write(self, samples: Samples, path: Path) -> None:
        blocks, plots = [], []
        for i, (line, (title, style)) in enumerate(self.lines.items()):
            points = [(n, samples.median(f"{line}.{n}")) for n in self.parameters]
            data = "\n".join(f"{n} {value}" for n, value in points if value is not None)
            if data:
                blocks.append(f"$d{i} << END\n{data}\nEND\n")
                plots.append(f'$d{i} using 1:2 with linespoints {style} title "{title}"')
        script = self._head + "".join(blocks) + "plot " + ", \\\n  ".join(plots) + "\n"
        done = subprocess.run(["timeout", "60", "gnuplot"], input=script.encode(),
                              stdout=subprocess.PIPE, check=True)
        path.write_bytes(done.stdout)


def write_json(path: Path, results: Sequence[Result], plots: Sequence[Plot],
               samples: Samples) -> None:
    everything = [as_json(result) for result in results]
    everything += [{"name": plot.name, "samples": plot.samples(samples)} for plot in plots]
    path.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
