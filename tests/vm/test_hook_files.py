# SPDX-License-Identifier: MIT
"""hooks/ of a real guest: from a filter's words to what a process gets, and back.

What the module does with calls of all kinds is in the other test_hook_*.py.
"""
from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hooks import Hook, coming_and_going, made
from lab import Guest
from world import Mount, wait_for

pytestmark = [pytest.mark.vm("system calls need a guest"), pytest.mark.needs("kprobes"),
              pytest.mark.limit(120)]


class Caller:
    """victim.c's caller, which tells what it gets."""

    def __init__(self, guest: Guest, ms: int = 50) -> None:
        self._guest = guest
        self.pid, self.values = guest.victim("caller", str(ms))

    def rounds(self) -> int:
        return self._guest.output(self.pid).count(b"\nround=")

    def last(self, name: str) -> int:
        return int(re.findall(rf"\b{name}=(-?\d+)".encode(), self._guest.output(self.pid))[-1])

    def goes_on(self) -> None:
        """It makes calls, as though there were no hooks."""
        before = self.rounds()
        wait_for(lambda: self.rounds() > before + 1)
        assert self.last("ioctl") == -25 and self.last("openat") == -2

    def kill(self) -> None:
        self._guest.kill(self.pid)


@pytest.fixture
def caller(guest: Guest) -> Caller:
    return Caller(guest)


@pytest.fixture
def hook(mount: Mount) -> Iterator[Hook]:
    with made(mount.mnt) as hook:
        yield hook


def test_a_caller_gets_the_result_that_a_reply_says(hook: Hook, caller: Caller) -> None:
    with hook.events() as events:
        hook.filter(f"getppid return pid=={caller.pid}")
        event = events.next()
        assert (event["call"], event["comm"], event["pid"]) == ("getppid", "caller",
                                                                str(caller.pid))
        assert int(event["retval"]) == caller.last("getppid")
        hook.write("reply", f"{event['id']} retval=4242\n")
        wait_for(lambda: caller.last("getppid") == 4242)
    caller.goes_on()


def test_a_reply_need_not_be_waited_for(hook: Hook, caller: Caller) -> None:
    with hook.events() as events:
        hook.filter(f"getppid return pid=={caller.pid}")
        event = events.next()
        hook.write("reply", f"{event['id']} retval=4242\n", os.O_NONBLOCK)
        assert hook.errno("reply", f"{event['id']} retval=4243\n", os.O_NONBLOCK) == "ESRCH"
        wait_for(lambda: caller.last("getppid") == 4242)
    caller.goes_on()


def test_a_call_that_is_skipped_is_not_made(hook: Hook, caller: Caller) -> None:
    with hook.events() as events:
        hook.filter("ioctl enter return arg1==0x89f1 comm=caller")
        entered = events.next()
        assert (entered["phase"], entered["arg1"]) == ("enter", "0x89f1")
        hook.write("reply", f"{entered['id']} skip\n")
        returned = events.next()
        assert (returned["phase"], returned["retval"], returned["skipped"]) == ("return", "0", "1")
        hook.write("reply", f"{returned['id']} continue\n")
        wait_for(lambda: caller.last("ioctl") == 0)
    caller.goes_on()


def test_a_program_that_needs_an_ioctl_gets_it(mount: Mount, caller: Caller) -> None:
    """The example of the manual page, by a shell."""
    hook = Hook(mount.mnt, "raeth")
    script = ("echo 'ioctl return arg1==0x89f1 comm=caller retval<0' > filter; "
              "while read -r line; do eval \"$line\"; echo \"$id retval=0\" > reply; done < events")
    with subprocess.Popen(["sh", "-c", script], cwd=hook.dir) as shell:
        wait_for(lambda: caller.last("ioctl") == 0)
        hook.remove()  # the end of events, and so of the loop
        assert shell.wait(20) in (0, 1)  # 1: its last reply was to a hook that had gone
    caller.goes_on()


def test_hooks_of_a_call_are_told_in_the_order_in_which_they_were_made(mount: Mount,
                                                                       caller: Caller) -> None:
    first, second = Hook(mount.mnt, "z"), Hook(mount.mnt, "a")
    with first.events() as events, second.events() as others:
        first.filter(f"getppid enter return pid=={caller.pid}")
        event = events.next()
        second.filter(f"getppid enter return pid=={caller.pid}")
        assert event["phase"] == "enter" and not others.ready(0.2)
        first.write("reply", f"{event['id']} retval=50\n")
        event = events.next()
        assert (event["phase"], event["retval"]) == ("return", "50") and not others.ready(0.2)
        first.write("reply", f"{event['id']} retval=51\n")
        event = others.next()
        assert (event["phase"], event["retval"]) == ("return", "51")
        second.write("reply", f"{event['id']} retval=52\n")
        wait_for(lambda: caller.last("getppid") == 52)
    first.remove()
    second.remove()
    caller.goes_on()


def test_memory_can_be_changed_while_a_call_waits(mount: Mount, hook: Hook, guest: Guest,
                                                  caller: Caller) -> None:
    guest.run("echo hello >/tmp/is-there", check=True)
    with hook.events() as events:
        hook.filter('openat enter str(arg1)=="/tmp/not there"')
        event = events.next()
        assert int(event["arg1"], 16) == caller.values["path"]
        text = mount.mnt / "pid" / event["pid"] / "str" / event["arg1"]
        assert text.read_text() == "/tmp/not there\n"
        text.write_text("/tmp/is-there\n")
        hook.write("reply", f"{event['id']} continue\n")
        wait_for(lambda: caller.last("openat") >= 0 and caller.last("read") == 6)
        # It opens the other file now, which is not meant.
        assert not events.ready(0.3)


def test_registers_are_those_of_the_caller(mount: Mount, hook: Hook, caller: Caller) -> None:
    with hook.events() as events:
        hook.filter(f"getppid trace regs tid=={caller.pid}")
        event = events.next()
        assert event["id"] == "0"

    def mapping(addr: int) -> str:
        for line in (mount.mnt / "pid" / str(caller.pid) / "maps").read_text().splitlines():
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if start <= addr < end:
                return line
        return ""

    assert "[stack]" in mapping(int(event["sp"], 16))
    assert " r-xp " in mapping(int(event["pc"], 16))


def test_an_argument_is_changed_by_a_reply(hook: Hook, caller: Caller) -> None:
    with hook.events() as events:
        hook.filter("ioctl enter return arg1==0x89f1 comm=caller")
        hook.write("reply", f"{events.next()['id']} arg0=-1 arg2=0x10\n")
        returned = events.next()
        assert (returned["retval"], returned["arg2"]) == ("-9", "0x10")
        hook.write("reply", f"{returned['id']} continue\n")
        wait_for(lambda: caller.last("ioctl") == -9)
    caller.goes_on()


# Of ioctl(0, 0x89f1, ""), which fails with ENOTTY.
TESTS = {
    "retval==-25": True, "retval!=-25": False, "retval<0": True, "retval<-25": False,
    "retval<=-25": True, "retval<=-26": False, "retval>-26": True, "retval>-25": False,
    "retval>=-25": True, "retval>=0": False, "retval==-4095..-1": True, "retval!=-4095..-1": False,
    "arg0==0": True, "arg0!=0": False, "arg1==0x89f1": True, "arg1=0x89f0..0x89ff": True,
    "arg1!=0..0x89f0": True, "arg1 & 0xff00 == 0x8900": True, "arg1 & 0xff00 != 0x8900": False,
    "arg1 & 1": True, "arg1 & 8": False, "arg1==1 or arg1==0x89f1": True,
    "arg0==1 || arg1==0x89f0": False, "arg0==0 and arg1==1": False, "arg0==0 && arg1>1": True,
    "not arg0==1 and (arg1==1 or arg1==0x89f1)": True, "!arg0==0": False,
    "comm==caller": True, "comm!=caller": False, "comm^=call": True, "comm^=alle": False,
    "comm$=ler": True, "comm$=call": False, "comm*=alle": True, "comm*=x": False,
    "uid==0": True, "uid!=0": False, "compat==0": True, "compat==1": False, "tid!=1": True,
    "nr==0..9999": True, "nr==9999": False, "str(arg2)==\"\"": True, "str(arg2)==x": False,
    "str(arg2)!=x": True, "str(arg2)^=\"\"": True, "str(arg2)$=x": False, "str(arg2)*=x": False,
    "str(arg0)==x": False, "str(arg0)!=x": False, "not str(arg0)==x": False,
}


def test_a_filter_means_the_calls_that_it_says(mount: Mount, caller: Caller) -> None:
    hooks = [Hook(mount.mnt, str(n)) for n in range(len(TESTS))]
    for hook, tests in zip(hooks, TESTS):
        hook.filter(f"ioctl return trace pid=={caller.pid} ({tests})")
    before = caller.rounds()
    wait_for(lambda: caller.rounds() > before + 2)
    assert {tests: bool(hook.stats()["matched"]) for hook, tests in zip(hooks, TESTS)} == TESTS
    for hook in hooks:
        hook.remove()


def test_every_call_respects_the_filter(hook: Hook, caller: Caller) -> None:
    with hook.events() as events:
        hook.filter(f"* trace return pid=={caller.pid}")
        seen = set()
        while not {"getppid", "ioctl", "openat", "write"} <= seen:
            event = events.next()
            assert event["pid"] == str(caller.pid)
            seen.add(event["call"])
    caller.goes_on()


def test_a_reply_that_never_comes_is_timed_out(hook: Hook, caller: Caller) -> None:
    hook.write("timeout", "0.2")
    with hook.events() as events:
        hook.filter(f"getppid pid=={caller.pid}")
        event = events.next()
        wait_for(lambda: hook.stats()["timed_out"] >= 2)
        assert hook.errno("reply", f"{event['id']} retval=1\n") == "ESRCH"
        caller.goes_on()


def test_a_process_that_waits_can_be_killed(hook: Hook, guest: Guest, caller: Caller) -> None:
    hook.write("timeout", "3600")
    with hook.events() as events:
        hook.filter(f"getppid pid=={caller.pid}")
        event = events.next()
        caller.kill()
        wait_for(lambda: not guest.has(caller.pid))
        assert hook.errno("reply", f"{event['id']} continue\n") == "ESRCH"
        assert hook.stats()["killed"] == 1


@pytest.mark.parametrize("how", ["close", "remove", "disable", "trace"])
def test_calls_go_on_when_nobody_handles_them_any_more(hook: Hook, caller: Caller,
                                                       how: str) -> None:
    hook.write("timeout", "3600")
    with hook.events() as events:
        hook.filter(f"getppid pid=={caller.pid}")
        events.next()
        before = caller.rounds()
        time.sleep(0.3)
        assert caller.rounds() <= before + 1
        if how == "close":
            events.close()
        elif how == "remove":
            hook.remove()
        elif how == "disable":
            hook.write("enabled", "0")
        else:
            hook.filter(f"getppid trace pid=={caller.pid}")
        caller.goes_on()
        if how != "remove":
            assert hook.stats()["abandoned"] == 1


def test_calls_go_on_when_the_daemon_is_killed(guest: Guest, daemon: Path, caller: Caller) -> None:
    mount = Mount(daemon, guest.hm_socket)
    try:
        hook = Hook(mount.mnt)
        hook.write("timeout", "3600")
        with hook.events() as events:
            hook.filter(f"getppid pid=={caller.pid}")
            events.next()
            mount.process.kill()
            mount.process.wait()
        caller.goes_on()
    finally:
        mount.close()


@pytest.mark.daemon_talks
def test_hooks_are_set_again_when_the_module_is(mount: Mount, hook: Hook, guest: Guest,
                                                caller: Caller) -> None:
    hook.write("timeout", "3600")
    with hook.events() as events:
        hook.filter(f"getppid pid=={caller.pid}")
        event = events.next()
        guest.run("rmmod hypermem", check=True)
        caller.goes_on()
        guest.run("insmod /hypermem.ko", check=True)
        again = events.next()
        assert again["pid"] == str(caller.pid)
        assert hook.errno("reply", f"{event['id']} continue\n") == "ESRCH" or \
            event["id"] == again["id"]
        assert hook.stats()["abandoned"] == 1
    caller.goes_on()


@pytest.mark.daemon_talks
@pytest.mark.limit(180)
@pytest.mark.needs("reset")
def test_hooks_are_set_again_after_a_reboot(hook: Hook, guest: Guest) -> None:
    with hook.events() as events:
        hook.filter("getppid trace comm=caller")
        Caller(guest)
        events.next()
        guest.reboot()
        Caller(guest)
        assert events.ready(60)
        assert events.next()["comm"] == "caller"


def test_small_reads_do_not_wait_behind_events(mount: Mount, hook: Hook, caller: Caller) -> None:
    comm = mount.mnt / "pid" / str(caller.pid) / "comm"
    hook.write("timeout", "3600")
    with hook.events() as events:
        hook.filter(f"getppid pid=={caller.pid}")
        events.next()
        for _ in range(50):
            assert comm.read_bytes() == b"caller\n"


def test_hooks_come_and_go_under_load(mount: Mount, guest: Guest, seconds: float) -> None:
    callers = [Caller(guest, 1) for _ in range(4)]
    with coming_and_going(mount.mnt, "getppid,ioctl enter return comm=caller",
                          then="openat trace comm=caller") as failures:
        time.sleep(seconds)
    # Between two of a line's bytes another hook may have let the call go: that is no failure.
    assert not [f for f in failures if not isinstance(f, ProcessLookupError)], failures
    for caller in callers:
        caller.goes_on()
        with contextlib.suppress(Exception):
            guest.kill(caller.pid, signal.SIGKILL)
