#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Where the time of a hooked call that waits for its reply goes, as the host sees it.

    perf record -k CLOCK_MONOTONIC -p QEMU,HYPERMEMFS,HOOK_CLIENT -e syscalls:sys_enter_read \\
        -e syscalls:sys_exit_read -e syscalls:sys_enter_write -e syscalls:sys_enter_sendmsg \\
        -e syscalls:sys_exit_recvmsg sleep 1
    perf script --ns -F comm,tid,time,event,trace | timeline.py

while one task of a guest with one processor makes hooked calls (call.c), and hook_client.c lets
them go: their pids stand after -p.  Prints the median of each step in µs; tracing makes them longer.
"""
from __future__ import annotations

import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LINE = re.compile(r"\s*(.{1,16}?)\s+(\d+)\s+([\d.]+):\s+\w+:sys_(\w+):")


class Event(NamedTuple):
    who: str        # client, daemon, loop (QEMU's main loop), guest (its processor)
    what: str
    us: float


class Step(NamedTuple):
    name: str
    who: str
    what: str


# One reply, from the client's write(2) to the next; a step ends with what stands there.
STEPS = (
    Step("hypermemfs sends the reply", "daemon", "enter_sendmsg"),
    Step("QEMU receives it", "loop", "exit_recvmsg"),
    Step("the guest lets the call go, and answers", "guest", "enter_write"),
    Step("QEMU sends the answer", "loop", "enter_sendmsg"),
    Step("the guest makes the call, and the next, and tells of it", "guest", "enter_write"),
    Step("QEMU sends the event", "loop", "enter_sendmsg"),
    Step("the client reads it", "client", "exit_read"),
    Step("the client writes the reply", "client", "enter_write"),
)


def events(lines: Iterable[str]) -> Iterator[Event]:
    loop = None
    for line in lines:
        if not (match := LINE.match(line)):
            continue
        comm, tid, what = match[1], match[2], match[4]
        if comm.startswith("qemu"):
            loop = loop or (tid if what == "exit_recvmsg" else None)  # only it receives
            who = "loop" if tid == loop else "guest"
        else:
            who = "client" if comm == "hook_client" else "daemon"
        # Waits of the daemon's are asked for by a thread that is called so: they are no reply.
        if comm != "hooks":
            yield Event(who, what, float(match[3]) * 1e6)


def main() -> None:
    times = defaultdict(list)
    start, ends = None, []
    for event in events(sys.stdin):
        if start is not None and event[:2] == STEPS[len(ends)][1:]:
            ends.append(event.us)
        if event[:2] == STEPS[-1][1:]:
            if len(ends) == len(STEPS):
                for step, begin, end in zip(STEPS, [start, *ends], ends):
                    times[step.name].append(end - begin)
                times["all"].append(ends[-1] - start)
            start, ends = event.us, []
    for name, values in times.items():
        print(f"{statistics.median(values):6.1f} {name}")
    print(f"{len(times['all']):6} replies")


if __name__ == "__main__":
    main()
