# SPDX-License-Identifier: MIT
"""A guest that goes wrong: the right errno, nobody else is held up, and all is well afterwards."""
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from world import FakeGuest, HostWorld, Mount, Victim, errno_of, host, opened, pattern, wait_for

pytestmark = [pytest.mark.fake("a real guest does not misbehave to order"),
              pytest.mark.daemon_talks]

LINK_IS_GONE = {"EPROTO", "ENOTCONN"}  # the daemon may see nonsense or the end first


def mem(mount: Mount, victim: Victim) -> Path:
    return mount.mnt / "pid" / str(victim.pid) / "mem"


def works(mount: Mount, victim: Victim) -> bool:
    """A new file shows what is there."""
    try:
        with opened(mem(mount, victim)) as fd:
            return os.pread(fd, 8, victim["region"]) == pattern(victim["region"], 8)
    except OSError:
        return False


def wait_well(mount: Mount, fake: FakeGuest, victim: Victim) -> None:
    fake.misbehave()
    wait_for(lambda: works(mount, victim))


# What a read of memory gets, by how the guest misbehaves.
READS = {
    "silent": {"ETIMEDOUT"},
    "hang-op=2": {"ETIMEDOUT"},
    "late=3000": {"ETIMEDOUT"},
    "late=100": {"OK"},
    "close": {"ENOTCONN"},
    "short-frame": LINK_IS_GONE,
    "wrong-tag": {"ETIMEDOUT"} | LINK_IS_GONE,
    "wrong-pid": {"EPROTO"},
    "wrong-stamp": {"EPROTO"},
    "wrong-addr": {"EPROTO"},
    "unknown-response": LINK_IS_GONE,
    "operation-as-response": LINK_IS_GONE,
    "wrong-kind": LINK_IS_GONE,
    "too-much": LINK_IS_GONE,
    "cut": {"EPROTO"},
    "oversize": LINK_IS_GONE,
    "oversize=0xffffffff": LINK_IS_GONE,
    "garbage": LINK_IS_GONE | {"ETIMEDOUT"},
    "garbage=7": {"ETIMEDOUT"} | LINK_IS_GONE,
    "twice": {"OK"},
    "reset": {"ENOTCONN"},
    "fail=3": {"ESRCH"},
    "fail=5": {"EIO"},
    "fail=0": {"EPROTO"},
    "fail=512": {"EPROTO"},
    "fail=99999": {"EPROTO"},
    "fail=-1": {"EPROTO"},
    "forbids=2": {"EPERM"},
    "lacks=2": {"EOPNOTSUPP"},
    "reuse": {"ESRCH"},
}


@pytest.mark.parametrize("how", READS)
def test_a_read_fails_for_the_right_reason(mount: Mount, fake: FakeGuest, victim: Victim,
                                           how: str) -> None:
    with opened(mem(mount, victim)) as fd:
        assert os.pread(fd, 8, victim["region"])
        fake.misbehave(how)
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) in READS[how]
        mount.check(talks=True)
        wait_well(mount, fake, victim)
        # The guest has not booted meanwhile: the old file works again, too.
        assert os.pread(fd, 8, victim["region"]) == pattern(victim["region"], 8)


def test_a_guest_that_is_reset_in_the_middle_of_an_answer_is_found_again(
        mount: Mount, fake: FakeGuest, victim: Victim) -> None:
    with opened(mem(mount, victim)) as fd:
        fake.misbehave("stops-halfway")
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) in {"ETIMEDOUT", "ENOTCONN"}
        wait_for(lambda: works(mount, victim))


# The same for a write, as far as it may differ.
WRITES = {
    "silent": {"ETIMEDOUT"},
    "hang-op=3": {"ETIMEDOUT"},
    "close": {"ENOTCONN"},
    "wrong-kind": LINK_IS_GONE,
    "too-much": {"EPROTO"},
    "forbids=3": {"EPERM"},
    "lacks=3": {"EOPNOTSUPP"},
    "fail=14": {"EIO"},
    "reuse": {"ESRCH"},
}


@pytest.mark.parametrize("how", WRITES)
def test_a_write_fails_for_the_right_reason(mount: Mount, fake: FakeGuest, victim: Victim,
                                            how: str) -> None:
    with opened(mem(mount, victim), os.O_RDWR) as fd:
        fake.misbehave(how)
        assert errno_of(lambda: os.pwrite(fd, b"12345678", victim["shared"])) in WRITES[how]
        wait_well(mount, fake, victim)
        assert os.pwrite(fd, b"12345678", victim["shared"]) == 8


LISTS = {
    "endless-list": {"EPROTO"},
    "endless-nothing": {"EPROTO"},
    "bad-record": {"EPROTO"},
    "disorder": {"EPROTO"},
    "cut": {"EPROTO"},
    "wrong-kind": LINK_IS_GONE,
    "silent": {"ETIMEDOUT"},
    "fail=1": {"EPERM"},
}


@pytest.mark.parametrize("how", LISTS)
@pytest.mark.parametrize("what", ["processes", "files", "mappings"])
def test_a_list_is_right_or_an_error(mount: Mount, fake: FakeGuest, victim: Victim, what: str,
                                     how: str) -> None:
    process = mem(mount, victim).parent
    with opened(mem(mount, victim)) as fd:
        call: Callable[[], object] = {
            "processes": lambda: os.listdir(mount.mnt / "pid"),
            "files": lambda: os.listdir(process / "fd"),
            "mappings": lambda: os.lseek(fd, 1 << 62, os.SEEK_DATA)}[what]
        os.stat(process / "fd")
        fake.misbehave(how)
        expected = LISTS[how]
        if what == "mappings" and how in ("bad-record", "disorder", "cut"):
            call = lambda: os.lseek(fd, 0, os.SEEK_DATA)  # noqa: E731
        assert errno_of(call) in expected
        wait_well(mount, fake, victim)


@pytest.mark.parametrize("how", ["nul-in-name", "empty-name", "too-much", "wrong-addr"])
def test_a_link_is_right_or_an_error(mount: Mount, fake: FakeGuest, victim: Victim,
                                     how: str) -> None:
    link = mem(mount, victim).parent / "cwd"
    os.lstat(link)
    fake.misbehave(how)
    assert errno_of(lambda: os.readlink(link)) in LINK_IS_GONE
    wait_well(mount, fake, victim)
    assert os.readlink(link) == "/"


@pytest.mark.parametrize("how", ["endless-list", "endless-nothing", "wrong-kind", "silent"])
def test_a_text_ends_or_is_an_error(mount: Mount, fake: FakeGuest, victim: Victim,
                                    how: str) -> None:
    with opened(mem(mount, victim).parent / "maps") as fd:
        fake.misbehave(how)

        def read_all() -> None:
            for _ in range(100):
                if not os.read(fd, 1 << 20):
                    return
            raise AssertionError("there is no end")

        assert errno_of(read_all) in LINK_IS_GONE | {"ETIMEDOUT"}
        wait_well(mount, fake, victim)


@pytest.mark.parametrize("how", ["bad-record", "other-process", "cut", "wrong-pid"])
def test_a_process_is_the_one_asked_for_or_an_error(mount: Mount, fake: FakeGuest, victim: Victim,
                                                    how: str) -> None:
    fake.misbehave(how)
    assert errno_of(lambda: os.stat(mount.mnt / "pid" / str(victim.pid))) in LINK_IS_GONE
    wait_well(mount, fake, victim)


def test_a_reused_pid_is_another_process(mount: Mount, fake: FakeGuest, victim: Victim) -> None:
    with opened(mem(mount, victim)) as fd:
        fake.misbehave("reuse")
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESRCH"
        wait_for(lambda: works(mount, victim))
        # The old file stays the old process's.
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESRCH"


def test_a_reboot_makes_open_files_stale(mount: Mount, fake: FakeGuest, victim: Victim) -> None:
    with opened(mem(mount, victim)) as fd:
        assert os.pread(fd, 8, victim["region"])
        fake.misbehave("reboot")
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) in ("ENOTCONN", "ESTALE")
        wait_for(lambda: works(mount, victim))
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESTALE"
        assert errno_of(lambda: os.lseek(fd, 0, os.SEEK_DATA)) == "ESTALE"
    assert str(victim.pid) in os.listdir(mount.mnt / "pid")


def test_a_guest_that_is_killed_and_started_again_is_found_again(
        mount: Mount, fake: FakeGuest, victim: Victim) -> None:
    with opened(mem(mount, victim)) as fd:
        fake.kill()
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ENOTCONN"
        wait_for(lambda: "link: down" in (mount.mnt / "info").read_text())
        assert errno_of(lambda: os.listdir(mount.mnt / "pid")) == "ENOTCONN"
        fake.start()
        wait_for(lambda: works(mount, victim))
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESTALE"
        assert "link: up" in (mount.mnt / "info").read_text()


def test_a_slow_answer_holds_up_nobody_else(world: HostWorld, fake: FakeGuest,
                                            victim: Victim) -> None:
    other = world.victim("mem", world.scratch)
    with Mount(world.daemon, fake.socket, "-o", "timeout=600") as m:
        with opened(mem(m, victim)) as stuck, opened(mem(m, other)) as fd:
            fake.misbehave(f"hang-pid={victim.pid}")
            errors: list[str] = []
            threads = [threading.Thread(target=lambda: errors.append(
                errno_of(lambda: os.pread(stuck, 8, victim["region"])))) for _ in range(20)]
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            for _ in range(20):
                assert os.pread(fd, 8, other["region"]) == pattern(other["region"], 8)
            assert not errors  # they wait still
            fake.kill()
            for thread in threads:
                thread.join(20)
            assert errors == ["ENOTCONN"] * 20
        m.check(talks=True)


def test_more_hanging_requests_than_the_guest_takes_hold_up_nobody_for_good(
        world: HostWorld, mount: Mount, fake: FakeGuest, victim: Victim) -> None:
    other = world.victim("mem", world.scratch)
    with opened(mem(mount, victim)) as stuck:
        fake.misbehave(f"hang-pid={victim.pid}")
        threads = [threading.Thread(target=lambda: errno_of(
            lambda: os.pread(stuck, 8, victim["region"]))) for _ in range(150)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
        assert works(mount, other)
    wait_well(mount, fake, victim)


def test_ctrl_c_ends_a_read_that_hangs(world: HostWorld, fake: FakeGuest, victim: Victim) -> None:
    with Mount(world.daemon, fake.socket, "-o", "timeout=60") as m:
        with opened(mem(m, victim)) as fd:
            fake.misbehave(f"hang-pid={victim.pid}")
            for argv in (["dd", "bs=8", "count=1", f"skip={victim['region'] // 8}"],
                         ["cat", m.mnt / f"pid/{victim.pid}/maps"]):
                with subprocess.Popen(argv, stdin=fd, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) as reader:
                    time.sleep(0.5)
                    assert reader.poll() is None
                    reader.send_signal(signal.SIGINT)
                    assert reader.wait(20) == -signal.SIGINT
        wait_well(m, fake, victim)
        m.check(talks=True)


def test_a_hanging_guest_does_not_keep_the_daemon_from_ending(
        world: HostWorld, fake: FakeGuest, victim: Victim) -> None:
    m = Mount(world.daemon, fake.socket, "-o", "timeout=60")
    os.stat(mem(m, victim))
    fake.misbehave("silent")
    with subprocess.Popen(["cat", mem(m, victim)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as reader:
        time.sleep(0.3)
        assert m.terminate() == 0
        reader.kill()


@pytest.mark.limit(120)
def test_bad_behaviour_of_all_kinds_in_a_row_leaves_a_working_mount(
        mount: Mount, fake: FakeGuest, victim: Victim) -> None:
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), opened(mem(mount, victim)) as fd:
                got = os.pread(fd, 64, victim["region"])
                assert got == pattern(victim["region"], 64)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for how in READS:
            # What a guest cannot do it says in HELLO, and cannot in all of the session.
            if not how.startswith(("forbids", "lacks")):
                fake.misbehave(how)
                time.sleep(0.1)
    finally:
        fake.misbehave()
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    wait_well(mount, fake, victim)


@pytest.mark.parametrize("name", ["cmdline", "environ"])
def test_a_text_that_breaks_off_is_not_taken_for_whole(mount: Mount, fake: FakeGuest,
                                                       victim: Victim, name: str) -> None:
    path = mount.mnt / "pid" / str(victim.pid) / name
    whole = path.read_bytes()
    fake.misbehave("breaks-off=5")
    done = host(["cat", path])
    assert done.rc != 0 and done.out == whole[:5] and b"Input/output error" in done.err
    fake.misbehave()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("options", [["--max-data", "4072"], ["--max-data", "5000"],
                                     ["--max-data", "65536"]])
def test_small_frames_show_the_same_bytes(world: HostWorld, options: list[str]) -> None:
    victim = world.program("mapper", "maps", "3000", env={"LONG": "x" * 20000})
    big = world.program("mapper", "big", str(1 << 20))
    with world.guest(*options) as fake, Mount(world.daemon, fake.socket) as m:
        for name in "maps", "environ", "cmdline":
            shown = (m.mnt / "pid" / str(victim.pid) / name).read_bytes()
            assert shown == world.proc(victim.pid, name), name
        before, listed, after = world.pids(), os.listdir(m.mnt / "pid"), world.pids()
        assert set(before) & set(after) <= {int(name) for name in listed}
        with opened(m.mnt / "pid" / str(big.pid) / "mem", os.O_RDWR) as fd:
            assert os.pread(fd, 1 << 20, big["region"]) == pattern(big["region"], 1 << 20)
            data = os.urandom(100000)
            assert os.pwrite(fd, data, big["region"] + 3) == len(data)
            assert world.mem(big.pid, big["region"] + 3, len(data)) == data
        m.check()


def test_a_daemon_that_is_killed_under_load_can_be_replaced(world: HostWorld, fake: FakeGuest,
                                                            victim: Victim) -> None:
    m = Mount(world.daemon, fake.socket)
    readers = [subprocess.Popen(["bash", "-c", "while dd bs=4096 count=1 status=none "
                                 f"skip={victim['region'] // 4096} if={mem(m, victim)}; do :; done"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for _ in range(4)]
    time.sleep(0.5)
    m.process.kill()
    m.process.wait()
    for reader in readers:
        reader.wait(10)
    # The corpse can be seen, and is told about in one line.
    done = host([world.daemon, "-f", fake.socket, m.mnt])
    assert done.rc != 0 and done.err.count(b"\n") == 1 and b"fusermount3 -u" in done.err
    host(["fusermount3", "-u", m.mnt])
    Mount.live.discard(m)
    with Mount(world.daemon, fake.socket, mnt=m.mnt) as again:
        assert works(again, victim)
    m.mnt.rmdir()
