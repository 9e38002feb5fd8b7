# SPDX-License-Identifier: MIT
"""Ports and controllers are plugged in and out: the link is there when its port is, by itself."""
from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import machines
from caller import MINE, Call
from conftest import Kit, booted, load
from hook import BOTH, Hooks
from lab import Guest, LabError
from link import Link
from seen import mem_errno, path
from slow import Slow
from test_module import check_mounted, console_ports, driver, served
from world import Mount, errno_of, opened, pattern, wait_for

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("hotplug")]

NO_LINK = {"OK", "ENOTCONN", "ETIMEDOUT"}
SIZE = 1 << 20


@pytest.fixture(scope="module", params=["first", "last"])
def machine(kit: Kit, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """virtio_console is there before the module or after it."""
    with booted(kit, smp=2, console=request.param, hm_port="virtserialport,id=hmport") as guest:
        yield guest


def plug_port(guest: Guest, bus: str = "hmbus", id_: str = "hmport", chardev: str = "hm",
              name: str = "org.hypermem.0") -> None:
    def plugged() -> bool:
        try:
            guest.qmp("device_add", driver="virtserialport", bus=f"{bus}.0", id=id_,
                      chardev=chardev, name=name)
        except LabError as error:
            # QEMU finishes what was unplugged a moment after it has gone.
            if "is in use" not in str(error):
                raise
            return False
        return True
    wait_for(plugged)


def unplug(guest: Guest, id_: str) -> None:
    """And wait until the guest has let go of it."""
    guest.qmp("device_del", id=id_)

    def gone() -> bool:
        try:
            guest.qmp("qom-get", path=f"/machine/peripheral/{id_}", property="type")
        except LabError:
            return True
        return False
    wait_for(gone)


def devices(guest: Guest) -> set[str]:
    """On the bus that controllers are plugged into."""
    return set(guest.run(["ls", f"/sys/bus/{machines.current.bus}/devices"]).out.decode().split())


def unplug_bus(guest: Guest, id_: str) -> None:
    """A controller.  CCW does not ask the guest: if another had its place before the guest has seen
    it go, the kernel would take it for the same device, and leave it offline."""
    before = devices(guest)
    unplug(guest, id_)
    wait_for(lambda: len(devices(guest)) < len(before))


def unplug_port(guest: Guest) -> Callable[[], None]:
    """What plugs it in again."""
    unplug(guest, "hmport")
    return lambda: plug_port(guest)


def unplug_controller(guest: Guest) -> Callable[[], None]:
    unplug_bus(guest, "hmbus")

    def again() -> None:
        guest.qmp("device_add", driver=machines.current.virtio("virtio-serial"), id="hmbus")
        plug_port(guest)
    return again


def unplug_controller_and_plug_in_slowly(guest: Guest) -> Callable[[], None]:
    unplug_bus(guest, "hmbus")

    def again() -> None:
        guest.qmp("device_add", driver=machines.current.virtio("virtio-serial"), id="hmbus")
        time.sleep(2)  # it is there without a port for as long as somebody needs to type
        plug_port(guest)
    return again


HOTPLUG = pytest.mark.needs("hotplug")
UNPLUGS = [unplug_port, pytest.param(unplug_controller, marks=HOTPLUG),
           pytest.param(unplug_controller_and_plug_in_slowly, marks=HOTPLUG)]
NAMES = ["a port", "a controller", "a controller, slowly"]


@pytest.mark.parametrize("how", UNPLUGS, ids=NAMES)
@pytest.mark.daemon_talks
def test_a_mount_comes_back_when_it_is_plugged_in_again(
        guest: Guest, daemon: Path, how: Callable[[Guest], Callable[[], None]]) -> None:
    """Under load; what is under way ends with an error, and with no wrong byte."""
    # CCW does not ask the guest, and QEMU (7.2) follows a null pointer when a controller goes
    # that is at work.
    at_rest = machines.current.bus == "ccw" and how is not unplug_port
    pid, victim = guest.victim("area", str(SIZE))
    region = victim["region"]
    wrong: list[bytes] = []

    def ask(size: int, options: int) -> None:
        with opened(path(mount, pid, "mem"), options) as fd:
            if options == os.O_RDWR:
                os.pwrite(fd, pattern(region, size), region)
            elif (data := os.pread(fd, size, region)) != pattern(region, len(data)):
                wrong.append(data)

    with Mount(daemon, guest.hm_socket, "-o", "timeout=2,ram=off") as mount:
        check_mounted(guest, mount)
        with opened(path(mount, pid, "mem")) as old:
            with contextlib.ExitStack() as loads:
                plug_in = how(guest) if at_rest else None
                errors = [loads.enter_context(load(lambda s=size, o=options: ask(s, o)))
                          for size, options in ((8, os.O_RDONLY), (SIZE, os.O_RDONLY),
                                                (SIZE, os.O_RDWR))]
                time.sleep(0.3)
                plug_in = plug_in or how(guest)
                time.sleep(0.3)
                assert mem_errno(mount, pid, region, 8) in NO_LINK - {"OK"}
                plug_in()
                wait_for(lambda: mem_errno(mount, pid, region, 8) == "OK")
                time.sleep(0.3)
            for error in itertools.chain(*errors):
                assert isinstance(error, OSError), repr(error)
                assert errno_of(lambda: (_ for _ in ()).throw(error)) in NO_LINK, error
            assert not wrong
            # The guest has not booted: what was open is good.
            assert os.pread(old, 8, region) == pattern(region, 8)
        check_mounted(guest, mount)
        mount.check(talks=True)
    assert driver_of_ours(guest) == "hypermem"
    assert console_ports(guest) == {"lab.0"}


def driver_of_ours(guest: Guest) -> str:
    """Of the controller that is not the lab's."""
    out = guest.run("for d in /sys/bus/virtio/devices/*; do ls $d/virtio-ports/*/name >/dev/null "
                    "2>&1 || readlink $d/driver; done").out.decode()
    return out.strip().rpartition("/")[2]


def test_a_port_that_goes_is_told_of_in_a_line(guest: Guest) -> None:
    before = len(guest.console())
    plug_in = unplug_port(guest)
    guest.wait_console("port org.hypermem.0 was removed; it is served again when it is plugged")
    plug_in()
    wait_for(lambda: "serving port org.hypermem.0" in guest.console()[before:])
    said = [line for line in guest.console()[before:].splitlines() if "hypermem" in line]
    assert len(said) == 2, said
    assert served(guest)


def test_requests_that_sleep_do_not_keep_a_port_from_going_and_coming(guest: Guest,
                                                                              slow: Slow) -> None:
    with Link(guest.hm_socket) as link:
        link.hello()
        slow.ask(link)
    plug_in = unplug_port(guest)
    plug_in()
    assert guest.run("echo well").out == b"well\n"
    slow.release()
    wait_for(lambda: served(guest))


@pytest.mark.needs("kprobes")
def test_calls_that_wait_go_on_when_the_port_goes(guest: Guest, call: Call) -> None:
    with Link(guest.hm_socket) as link:
        link.hello()
        hooks = Hooks(link)
        hooks.set(1, "getppid", BOTH, **MINE, timeout_ms=3600000)
        caller = call("getppid", 2)
        hooks.next()
        plug_in = unplug_port(guest)
        assert caller.end().count(b"result=1\n") == 2
    plug_in()
    wait_for(lambda: served(guest))


@HOTPLUG
@pytest.mark.limit(120)
def test_a_controller_without_a_port_is_whose_port_comes_first(guest: Guest) -> None:
    """Another's goes to virtio_console at once, although the module has the controller."""
    plug_in = unplug_controller(guest)
    guest.qmp("chardev-add", id="other", backend={"type": "null", "data": {}})
    guest.qmp("device_add", driver=machines.current.virtio("virtio-serial"), id="bus2")
    time.sleep(1.5)
    plug_port(guest, "bus2", "other", "other", "org.example.agent.0")
    try:
        wait_for(lambda: "org.example.agent.0" in console_ports(guest))
        time.sleep(1.5)
        assert "org.example.agent.0" in console_ports(guest)
        assert driver_of_ours(guest) == ""
        plug_in()
        wait_for(lambda: driver_of_ours(guest) == "hypermem")
        assert served(guest)
        assert "org.example.agent.0" in console_ports(guest)
    finally:
        unplug_bus(guest, "bus2")


@HOTPLUG
@pytest.mark.needs("modules")
def test_the_module_may_be_there_before_any_port(boot: Callable[..., Guest],
                                                 daemon: Path) -> None:
    guest = boot(load_hypermem=False, hm_port="virtserialport,id=hmport")
    plug_in = unplug_controller(guest)
    guest.run("insmod /hypermem.ko", check=True)
    assert "there is no virtio-serial port named org.hypermem.* yet" in guest.console()
    plug_in()
    with Mount(daemon, guest.hm_socket, "-o", "timeout=20") as mount:
        check_mounted(guest, mount)


@pytest.mark.needs("modules")
def test_of_two_ports_of_ours_one_is_served(boot: Callable[..., Guest]) -> None:
    guest = boot(console="first", qemu_args=[
        "-chardev", "null,id=other",
        "-device", "virtserialport,bus=hmbus.0,chardev=other,name=org.hypermem.1"])
    said = [line for line in guest.console().splitlines() if "more ports named" in line]
    assert len(said) == 1
    assert "only org.hypermem.0 is served: give each a controller of its own" in said[0]
    assert driver(guest) == "hypermem"
    assert served(guest)
