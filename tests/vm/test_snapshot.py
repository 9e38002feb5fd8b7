# SPDX-License-Identifier: MIT
"""Snapshots of the machine that are loaded under a mount: the guest is that of another moment."""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import machines
from hooks import made
from lab import Guest, LabError
from world import Mount, errno_of, opened, pattern, wait_for

pytestmark = [
    pytest.mark.vm("is about QEMU"), pytest.mark.needs("kprobes"), pytest.mark.limit(240),
    pytest.mark.skipif("machines.current.name != machines.DEFAULT", reason="is about the host")]


def job(guest: Guest, command: str, **arguments: Any) -> None:
    guest.qmp(command, **{"job-id": "job"}, **arguments)
    end = time.monotonic() + machines.patience(60)
    while (found := guest.qmp("query-jobs")[0])["status"] != "concluded":
        assert time.monotonic() < end, found
        time.sleep(0.05)
    guest.qmp("job-dismiss", id="job")
    if "error" in found:
        raise LabError(f"{command}: {found['error']}")


class Snapshots:
    """In a disk that is made for them, which the guest does not see."""

    def __init__(self, guest: Guest, path: Path) -> None:
        self._guest = guest
        self._where = {"vmstate": "disk", "devices": ["disk"]}
        file = {"driver": "file", "filename": str(path)}
        job(guest, "blockdev-create", options={**file, "size": 0})
        guest.qmp("blockdev-add", **file, **{"node-name": "file"})
        job(guest, "blockdev-create", options={"driver": "qcow2", "file": "file", "size": 1 << 20})
        guest.qmp("blockdev-add", driver="qcow2", file="file", **{"node-name": "disk"})

    def save(self, tag: str) -> None:
        job(self._guest, "snapshot-save", tag=tag, **self._where)

    def load(self, tag: str) -> None:
        job(self._guest, "snapshot-load", tag=tag, **self._where)
        self._guest.wait_agent()


@pytest.mark.daemon_talks
def test_a_mount_outlives_the_loading_of_a_snapshot(boot: Callable[..., Guest], daemon: Path,
                                                    tmp_path: Path) -> None:
    guest = boot()
    snapshots = Snapshots(guest, tmp_path / "disk")
    snapshots.save("before the mount")
    with Mount(daemon, guest.hm_socket) as mount, made(mount.mnt) as hook, hook.events() as events:
        hook.filter("getppid trace comm=caller")
        pid, victim = guest.victim("mem")
        region, size = victim["region"], 2 * victim["page"]
        with opened(mount.mnt / "pid" / str(pid) / "mem", os.O_RDWR) as fd:
            assert os.pread(fd, size, region) == pattern(region, size)
            snapshots.save("under it")
            for want in 8, size:  # by the guest, by its RAM
                assert os.pwrite(fd, b"changed!", region) == 8
                assert os.pread(fd, want, region)[:8] == b"changed!"
                snapshots.load("under it")
                wait_for(lambda: errno_of(lambda: os.pread(fd, 8, region)) != "ENOTCONN")
                assert os.pread(fd, want, region) == pattern(region, want)
            snapshots.load("before the mount")
            wait_for(lambda: errno_of(lambda: os.pread(fd, 8, region)) == "ESRCH")
            # Names are known for a second.
            wait_for(lambda: not (mount.mnt / "pid" / str(pid)).exists())
        caller, _ = guest.victim("caller", "50")
        assert events.ready(60)
        assert events.next()["pid"] == str(caller)
