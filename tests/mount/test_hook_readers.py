# SPDX-License-Identifier: MIT
"""hooks/: whoever reads events, or does not, nobody hangs.

The fake guest makes calls to order (see tests/fake_guest_caller.c): a hook on fake_N_MS has N
calls, one every MS milliseconds.
"""
from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import pytest

from hooks import Hook, made_up
from world import FakeGuest, HostWorld, Mount, Victim, errno_of, wait_for


@made_up
def test_a_reply_that_never_comes_is_timed_out(hook: Hook) -> None:
    hook.write("timeout", "0.3")
    with hook.events() as events:
        hook.filter("fake_2_1")
        first, second = events.next(), events.next()
        assert int(second["time"]) - int(first["time"]) >= 300_000_000
        assert second["arg5"] == "0x1000"  # as though unhooked
        assert hook.errno("reply", f"{first['id']} continue\n") == "ESRCH"
        wait_for(lambda: hook.stats()["timed_out"] == 2)


@made_up
def test_without_a_reader_calls_do_not_wait(hook: Hook) -> None:
    hook.filter("fake_3_1")
    wait_for(lambda: hook.stats()["matched"] == 3)
    stats = hook.stats()
    assert (stats["unattended"], stats["sent"], stats["dropped"]) == (3, 0, 0)
    hook.filter("fake_4_1 trace")
    wait_for(lambda: hook.stats()["matched"] == 7)
    assert hook.stats()["dropped"] == 4


@made_up
def test_when_its_reader_goes_calls_go_on(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_1_1_3")
        event = events.next()
        wait_for(lambda: hook.stats()["sent"] == 3)
    wait_for(lambda: hook.stats()["abandoned"] == 3)
    assert hook.errno("reply", f"{event['id']} continue\n") == "ESRCH"
    # Those of the reader before are not told to the next one.
    with hook.events(os.O_NONBLOCK) as events:
        assert errno_of(lambda: os.read(events.fd, 4096)) == "EAGAIN"
        hook.filter("fake_1_2")
        assert events.next()["call"] == "fake_1_2"


@made_up
def test_a_handler_that_is_killed_leaves_nobody_waiting(hook: Hook) -> None:
    with subprocess.Popen(["sh", "-c", "exec 3<events; echo fake_1_1 >filter; cat <&3"],
                          cwd=hook.dir, stdout=subprocess.PIPE,
                          start_new_session=True) as handler:
        assert handler.stdout and handler.stdout.readline()
        os.killpg(handler.pid, signal.SIGKILL)
    wait_for(lambda: hook.stats()["abandoned"] == 1)


@made_up
def test_a_hook_that_is_removed_lets_its_calls_go(mount: Mount, hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_2_1")
        event = events.next()
        reply = os.open(hook / "reply", os.O_WRONLY)
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(os.read(events.fd, 4096)))
        thread.start()
        time.sleep(0.2)
        hook.remove()
        thread.join(10)
        assert got == [b""]  # the end
        assert os.read(events.fd, 4096) == b"" and events.ready()
        assert errno_of(lambda: os.write(reply, f"{event['id']} continue\n".encode())) == "ESRCH"
        os.close(reply)
        # Another of that name is another hook.
        again = Hook(mount.mnt)
        assert again.read("filter") == "" and set(again.stats().values()) == {0}
        with again.events() as others:
            again.filter("fake_1_1 trace")
            assert others.next()["call"] == "fake_1_1"
    again.remove()


@made_up
def test_disabled_it_matches_nothing_and_forgets_nothing(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_1000_5 trace")
        events.line()
        hook.write("enabled", "0\n")
        time.sleep(0.1)
        before = hook.stats()["matched"]
        time.sleep(0.2)
        assert hook.stats()["matched"] == before > 0
        assert hook.read("filter") == "fake_1000_5 trace\n"
        hook.write("enabled", "1\n")
        wait_for(lambda: hook.stats()["matched"] > before)


@made_up
def test_a_second_reader_is_told_that_it_is_busy(hook: Hook) -> None:
    with hook.events():
        assert errno_of(lambda: os.close(os.open(hook / "events", os.O_RDONLY))) == "EBUSY"
    for _ in range(20):  # but never who comes when the first has closed it
        with hook.events():
            pass


@made_up
def test_events_without_room_are_counted(hook: Hook) -> None:
    with hook.events() as events:
        hook.filter("fake_6000_0 trace")
        wait_for(lambda: hook.stats()["sent"] == 6000)
        # The guest has sent them before the host has looked at them.
        wait_for(lambda: hook.stats()["dropped"] >= 6000 - 4096)
        assert hook.stats()["dropped"] == 6000 - 4096
        lines = 0
        while lines < 4096:
            lines += os.read(events.fd, 1 << 20).count(b"\n")
        assert lines == 4096 and not events.ready()
        hook.filter("fake_1_1 trace")
        assert events.next()["lost"] == str(6000 - 4096)


@made_up
@pytest.mark.limit(120)
def test_calls_without_room_for_their_events_go_on(hook: Hook) -> None:
    hook.write("timeout", "60")
    with hook.events() as events:
        hook.filter("fake_6000_0 trace")
        wait_for(lambda: hook.stats()["sent"] == 6000)
        hook.filter("fake_5_0")
        wait_for(lambda: hook.stats()["unattended"] == 5)
        stats = hook.stats()
        assert (stats["matched"], stats["replied"], stats["timed_out"]) == (6005, 0, 0)
        assert os.read(events.fd, 1 << 20)


@made_up
def test_ctrl_c_ends_a_read_of_events(hook: Hook) -> None:
    with subprocess.Popen(["cat", hook / "events"], stdout=subprocess.DEVNULL) as reader:
        time.sleep(0.5)
        assert reader.poll() is None
        reader.send_signal(signal.SIGINT)
        assert reader.wait(20) == -signal.SIGINT


@made_up
def test_readers_of_events_hold_up_nobody_else(world: HostWorld, mount: Mount,
                                               victim: Victim) -> None:
    hooks = [Hook(mount.mnt, f"h{i}") for i in range(64)]
    readers = [subprocess.Popen(["cat", hook / "events"], stdout=subprocess.PIPE)
               for hook in hooks]
    try:
        time.sleep(1)
        assert all(reader.poll() is None for reader in readers)
        for _ in range(20):  # or they would time out
            assert (mount.mnt / "pid" / str(victim.pid) / "cmdline").read_bytes()
        hooks[-1].filter("fake_1_1 trace")
        out = readers[-1].stdout
        assert out and out.readline().startswith(b"id=0 hook='h63'")
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
            if reader.stdout:
                reader.stdout.close()
        for hook in hooks:
            hook.remove()


@made_up
def test_a_reader_of_events_does_not_keep_the_daemon_from_ending(world: HostWorld,
                                                                 fake: FakeGuest) -> None:
    m = Mount(world.daemon, fake.socket)
    hook = Hook(m.mnt)
    hook.filter("fake_1_1000")
    with subprocess.Popen(["cat", hook / "events"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as reader:
        time.sleep(0.3)
        assert m.terminate() == 0
        reader.wait(20)


@made_up
def test_threads_that_wait_are_each_told_and_each_go_on(hook: Hook) -> None:
    hook.write("timeout", "60")
    with hook.events() as events:
        hook.filter("fake_2_1_200 return")
        for _ in range(400):
            event = events.line().split()
            hook.write("reply", event[0][3:] + b" retval=1\n")
        wait_for(lambda: hook.stats()["replied"] == 400)
        assert hook.stats()["timed_out"] == hook.stats()["abandoned"] == 0
