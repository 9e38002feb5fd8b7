# SPDX-License-Identifier: MIT
"""A guest that is reset, or stopped, while its processes are being looked at."""
import os

import pytest

from test_mem import opened
from world import Victim, VmWorld, errno_of, pattern, wait_for

pytestmark = [pytest.mark.vm("this host is not rebooted for a test; see test_faults.py"),
              pytest.mark.daemon_talks, pytest.mark.limit(180)]


@pytest.mark.needs("reset")
def test_a_reboot_makes_open_files_stale_and_new_ones_work(world: VmWorld, victim: Victim) -> None:
    with opened(world, victim.pid) as fd:
        assert os.pread(fd, 8, victim["region"]) == pattern(victim["region"], 8)
        world.reboot()
        wait_for(lambda: errno_of(world.path(1, "comm").stat) == "OK", 30)
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESTALE"
        assert errno_of(lambda: os.lseek(fd, 0, os.SEEK_DATA)) == "ESTALE"
    after = world.victim("mem", world.scratch)
    with opened(world, after.pid) as fd:
        assert os.pread(fd, 8, after["region"]) == pattern(after["region"], 8)
    assert {int(name) for name in os.listdir(world.mnt / "pid")} & set(world.pids())


def test_a_stopped_guest_times_out_and_goes_on(world: VmWorld, victim: Victim) -> None:
    with world.mount("-o", "timeout=1") as mount:
        fd = os.open(mount.mnt / "pid" / str(victim.pid) / "mem", os.O_RDONLY)
        try:
            world.guest.qmp("stop")
            assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ETIMEDOUT"
            world.guest.qmp("cont")
            assert os.pread(fd, 8, victim["region"]) == pattern(victim["region"], 8)
        finally:
            world.guest.qmp("cont")
            os.close(fd)
        mount.check(talks=True)


@pytest.mark.needs("modules")
def test_a_module_that_is_unloaded_and_loaded_again_is_another_boot(world: VmWorld,
                                                                  victim: Victim) -> None:
    with world.mount("-o", "timeout=2") as mount:
        mem = mount.mnt / "pid" / str(victim.pid) / "mem"
        region = victim["region"]
        with mem.open("rb", buffering=0) as old:
            assert world.run("rmmod hypermem").rc == 0
            assert errno_of(lambda: os.pread(old.fileno(), 8, region)) in ("ENOTCONN", "ETIMEDOUT")
            assert world.run("insmod /hypermem.ko").rc == 0
            # Names may be a second old: that the process is there again says its memory.
            wait_for(lambda: errno_of(lambda: os.pread(old.fileno(), 8, region)) == "ESTALE", 30)
        with mem.open("rb", buffering=0) as new:
            assert os.pread(new.fileno(), 8, region) == pattern(region, 8)
        mount.check(talks=True)
