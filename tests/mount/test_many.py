# SPDX-License-Identifier: MIT
"""Many processes, and processes that come and go."""
import contextlib
import os

import pytest

from world import World, host


@pytest.mark.limit(180)
def test_two_thousand_processes(world: World) -> None:
    parent = world.victim("many", "2000").pid
    assert int(host(f"ls {world.mnt}/pid | wc -l", timeout=60).out) > 2000
    done = host(f"cat {world.mnt}/pid/*/cmdline | tr '\\0' '\\n' | grep -c '^many$'", timeout=120)
    assert int(done.out) == 2001
    parents = []
    for name in os.listdir(world.mnt / "pid"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # not one of ours
            stat = (world.mnt / "pid" / name / "stat").read_text()
            parents.append(int(stat.rsplit(")", 1)[1].split()[1]))
    assert parents.count(parent) == 2000


def test_processes_that_come_and_go_are_shown_or_not_but_never_wrong(world: World) -> None:
    churn = [world.victim("churn").pid for _ in range(2)]
    stable = set(world.pids())
    for _ in range(20):
        listed = [int(name) for name in os.listdir(world.mnt / "pid")]
        assert len(set(listed)) == len(listed)
        assert set(churn) <= set(listed)
        for pid in listed:
            if pid in stable:
                continue
            try:
                parent = world.path(pid, "stat").read_bytes().rsplit(b")", 1)[1].split()[1]
                if int(parent) in churn:
                    cmdline = world.path(pid, "cmdline").read_bytes()
                    assert cmdline in (b"victim\0churn\0", b"")
            except OSError as error:
                assert error.strerror in ("No such file or directory", "No such process")
