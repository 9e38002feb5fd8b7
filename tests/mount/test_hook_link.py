# SPDX-License-Identifier: MIT
"""hooks/: a link that is lost, and a guest that lies.

The fake guest makes calls to order (see tests/fake_guest_caller.c): a hook on fake_N_MS has N
calls, one every MS milliseconds.
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from hooks import Events, Hook, coming_and_going, made, made_up
from world import FakeGuest, HostWorld, Mount, Victim, errno_of, wait_for


def lose_link(fake: FakeGuest, how: str) -> None:
    if how == "killed":
        fake.kill()
        fake.start()
    else:
        fake.misbehave(how)


@made_up
@pytest.mark.parametrize("how", ["killed", "reboot"])
def test_after_a_lost_link_hooks_are_set_again(mount: Mount, fake: FakeGuest, hook: Hook,
                                               how: str) -> None:
    hook.write("timeout", "30")
    with hook.events() as events:
        hook.filter("fake_1_1")
        event = events.next()
        lose_link(fake, how)
        with contextlib.suppress(OSError):
            os.stat(mount.mnt / "pid" / "1")  # so that the guest looks how it is to behave
        # The same hook: with another call, since the guest that made the first has gone.
        assert events.next()["call"] == "fake_1_1"
        assert hook.errno("reply", f"{int(event['id']) + 1000} continue\n") == "ESRCH"
        stats = hook.stats()
        assert (stats["matched"], stats["sent"], stats["abandoned"]) == (2, 2, 1)
        assert hook.read("timeout") == "30\n"


@made_up
def test_a_call_of_a_lost_session_does_not_wait_any_more(mount: Mount, fake: FakeGuest,
                                                         hook: Hook) -> None:
    with hook.events(os.O_NONBLOCK) as events:
        hook.filter("fake_1_1_2")
        event = events.next()
        events.next()
        fake.kill()
        wait_for(lambda: hook.errno("reply", f"{event['id']} continue\n") == "ESRCH")
        wait_for(lambda: "link: down" in (mount.mnt / "info").read_text())
        assert errno_of(lambda: os.read(events.fd, 4096)) == "EAGAIN"
        # The thread of the hooks may not have heard of it yet.
        wait_for(lambda: hook.stats()["abandoned"] == 2)
        assert hook.errno("filter", "fake_2_2\n") == "ENOTCONN"
        assert hook.read("filter") == "fake_1_1_2\n"
        assert errno_of(lambda: os.mkdir(mount.mnt / "hooks" / "y")) == "ENOTCONN"
        fake.start()
        assert events.next()["call"] == "fake_1_1_2"


@made_up
def test_events_can_be_opened_and_closed_while_there_is_no_link(mount: Mount, fake: FakeGuest,
                                                                hook: Hook) -> None:
    hook.filter("fake_1_1 trace")
    wait_for(lambda: hook.stats()["matched"] == 1)
    fake.kill()
    wait_for(lambda: "link: down" in (mount.mnt / "info").read_text())
    with hook.events():
        pass
    with hook.events() as events:
        fake.start()
        assert events.next()["call"] == "fake_1_1"


@made_up
def test_hooks_end_with_the_daemon(world: HostWorld, fake: FakeGuest) -> None:
    with Mount(world.daemon, fake.socket) as mount:
        hook = Hook(mount.mnt)
        hook.filter("fake_1000_1")
    with Mount(world.daemon, fake.socket) as mount:
        assert os.listdir(mount.mnt / "hooks") == []


# What a guest can do to its events, and what the reader sees then.
EVENT_LIES = ["event-many-regs", "event-regs-beyond", "event-comm", "event-call", "event-no-call",
              "event-hook", "event-no-id", "event-pid", "event-none"]


@contextlib.contextmanager
def lied_to(mount: Mount, fake: FakeGuest, how: str) -> Iterator[tuple[Hook, Events]]:
    """A hook, and its events of a guest that misbehaves so from before it was made."""
    fake.misbehave(how)
    with made(mount.mnt) as hook, hook.events() as events:
        yield hook, events


@made_up
@pytest.mark.daemon_talks
@pytest.mark.parametrize("how", EVENT_LIES)
def test_an_event_that_cannot_be_is_not_told(mount: Mount, fake: FakeGuest, how: str) -> None:
    with lied_to(mount, fake, how) as (hook, events):
        hook.filter("fake_1_1 trace")
        wait_for(lambda: b"the guest's answer has" in mount.stderr())
        assert not events.ready(0.2)
        fake.misbehave()
        # The one that is asked for already is spoilt, too.
        for i in range(2, 30):
            hook.filter(f"fake_{i}_1 trace")
            if events.ready(0.3):
                break
        assert events.next()["call"].startswith("fake_")


@made_up
def test_registers_that_were_not_asked_for_are_not_told(mount: Mount, fake: FakeGuest) -> None:
    with lied_to(mount, fake, "event-regs") as (hook, events):
        hook.filter("fake_1_1 trace")
        event = events.next()
        assert event["call"] == "fake_1_1"
        assert not {"sp", "pc", "orig_rax"} & event.keys()
        hook.filter("fake_2_1 trace regs")
        assert events.next()["sp"] == "0x7ffd12345678"


@made_up
@pytest.mark.daemon_talks
def test_an_event_that_comes_twice_is_told_once(mount: Mount, fake: FakeGuest) -> None:
    with lied_to(mount, fake, "event-twice") as (hook, events):
        hook.filter("fake_1_1")
        event = events.next()
        assert not events.ready(0.3)
        hook.write("reply", f"{event['id']} continue\n")


@made_up
@pytest.mark.daemon_talks
@pytest.mark.parametrize("how, error", [
    ("fail=12", "ENOMEM"), ("fail=22", "EINVAL"), ("fail=0", "EPROTO"), ("close", "ENOTCONN"),
    ("wrong-addr", "EPROTO")])
def test_a_filter_that_cannot_be_set_says_why(mount: Mount, fake: FakeGuest, hook: Hook, how: str,
                                              error: str) -> None:
    hook.filter("fake_1_1")
    fake.misbehave(how)
    assert hook.errno("filter", "fake_2_2\n") == error
    fake.misbehave()
    wait_for(lambda: hook.errno("filter", "fake_3_3\n") == "OK")
    assert hook.read("filter") == "fake_3_3\n"


@made_up
def test_a_filter_that_the_guest_does_not_answer_to_times_out(world: HostWorld,
                                                              fake: FakeGuest) -> None:
    """After twelve times as long as other requests."""
    with Mount(world.daemon, fake.socket, "-o", "timeout=0.2") as mount:
        hook = Hook(mount.mnt)
        hook.filter("fake_1_1")
        fake.misbehave("hang-op=16")
        began = time.monotonic()
        assert hook.errno("filter", "fake_2_2\n") == "ETIMEDOUT"
        assert time.monotonic() - began >= 12 * 0.2
        fake.misbehave()
        wait_for(lambda: hook.errno("filter", "fake_3_3\n") == "OK")
        assert hook.read("filter") == "fake_3_3\n"
        hook.remove()
        mount.check(talks=True)


@made_up
@pytest.mark.parametrize("commands", [
    ["cat events", "echo fake_2_2 >filter", "echo 0 >enabled", "cat events"],
    ["echo 0 >enabled", "rmdir ../x"]])
def test_who_waits_for_others_to_hear_from_the_guest_can_be_interrupted(
        world: HostWorld, fake: FakeGuest, commands: list[str]) -> None:
    with Mount(world.daemon, fake.socket) as mount:
        hook = Hook(mount.mnt)
        hook.filter("fake_1_1")
        with hook.events():
            fake.misbehave("hang-op=16")
        who = []  # one behind the other, and the first behind who has left
        for command in commands:
            who.append(subprocess.Popen(["sh", "-c", command], cwd=hook.dir,
                                        start_new_session=True, stderr=subprocess.DEVNULL))
            time.sleep(0.5)
        for one in reversed(who):
            assert one.poll() is None
            os.killpg(one.pid, signal.SIGINT)
            assert one.wait(10) == -signal.SIGINT
        assert hook.dir.exists()
        fake.kill()  # the daemon waits for it no more


@made_up
@pytest.mark.limit(120)
def test_hooks_that_come_and_go_under_load_leave_nothing(mount: Mount, victim: Victim) -> None:
    with coming_and_going(mount.mnt, "fake_20_0_4", calls=5) as failures:
        for _ in range(100):
            assert (mount.mnt / "pid" / str(victim.pid) / "comm").read_bytes() == b"victim\n"
        time.sleep(2)
    assert not failures, failures
    assert os.listdir(mount.mnt / "hooks") == []
