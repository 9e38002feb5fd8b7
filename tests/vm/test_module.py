# SPDX-License-Identifier: MIT
"""The module comes and goes, with the controllers that QEMU can give it."""
from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import lab
import machines
from conftest import Kit, booted, load
from lab import Guest
from link import READ, READ_PROC_FILE, RESET, TRANSLATE, WINDOW, Link, header
from seen import mem, mem_errno, path
from slow import Slow
from world import Mount, errno_of, opened, pattern, wait_for

pytestmark = pytest.mark.vm("is about the module")

BIG = 1 << 16
RELOAD = "rmmod hypermem && insmod /hypermem.ko"


def served(guest: Guest, socket: Path | None = None) -> bool:
    """A new host gets what it asks for."""
    pid, victim = guest.victim("area", "65536")
    with Link(socket or guest.hm_socket) as link:
        link.hello()
        data = link.get(READ, pid, victim["region"], BIG)
    guest.kill(pid)
    return data == pattern(victim["region"], BIG)


def check_mounted(guest: Guest, mount: Mount) -> None:
    """Names, texts, memory, small and large."""
    pid, victim = guest.victim("area", "300000")
    wait_for(lambda: str(pid) in os.listdir(mount.mnt / "pid"))
    assert path(mount, pid, "maps").read_bytes() == guest.read_file(f"/proc/{pid}/maps")
    for size in 8, 20_000, 300_000:
        assert mem(mount, pid, victim["region"], size) == pattern(victim["region"], size)
    with opened(path(mount, pid, "mem"), os.O_RDWR) as fd:
        assert os.pwrite(fd, b"x" * 100_000, victim["region"]) == 100_000
        assert os.pread(fd, 100_001, victim["region"]) == \
            b"x" * 100_000 + pattern(victim["region"] + 100_000, 1)


def device(guest: Guest, number: int = 0) -> str:
    """virtioN of a controller, in the order of QEMU's options; N is the order of their probing."""
    script = "for d in /sys/bus/virtio/devices/*; do readlink -f $d; done"
    paths = guest.run(script, check=True).out.decode().split()
    return sorted(paths)[number].rpartition("/")[2]


def driver(guest: Guest, number: int = 0) -> str:
    """Of a controller; empty: it has none."""
    link = f"/sys/bus/virtio/devices/{device(guest, number)}/driver"
    return guest.run(["readlink", link]).out.decode().strip().rpartition("/")[2]


def console_ports(guest: Guest) -> set[str]:
    """Names of the ports that virtio_console shows."""
    return set(guest.run("cat /sys/class/virtio-ports/*/name").out.decode().split())


# The module goes while it works.


@pytest.mark.needs("modules")
def test_a_connected_host_is_invited_again(guest: Guest) -> None:
    with Link(guest.hm_socket) as link:
        epoch = link.hello().epoch
        guest.run("rmmod hypermem", check=True)
        link.raw(header(READ, 1, 0x400000, 8, tag=1))
        assert link.silent(0.3)
        guest.run("insmod /hypermem.ko", check=True)
        assert link.receive().op == RESET
        assert link.hello().epoch not in (0, epoch)
        assert link.proc(1).pid == 1


@pytest.mark.needs("modules")
def test_the_module_can_go_while_requests_are_in_flight(guest: Guest) -> None:
    pid, victim = guest.victim("area", "65536")
    for n in range(8):
        with Link(guest.hm_socket) as link:
            link.hello()
            link.raw(b"".join(header(READ, pid, victim["region"], BIG, tag=tag)
                              for tag in range(1, 61)))
            time.sleep(0.02 * n)
            guest.run(RELOAD, check=True)
            # What was under way when it went is lost or here, and in between nothing is made up.
            link.drain()
            link.hello()
            assert link.get(READ, pid, victim["region"], BIG) == pattern(victim["region"], BIG)


@pytest.mark.needs("modules")
def test_the_module_can_go_while_its_host_is_deaf(guest: Guest) -> None:
    pid, victim = guest.victim("area", "65536")
    with Link(guest.hm_socket) as deaf:
        deaf.hello()
        deaf.raw(b"".join(header(READ, pid, victim["region"], BIG, tag=tag)
                          for tag in range(1, 1000)))
        time.sleep(0.5)
        guest.run("rmmod hypermem", check=True, timeout=20)
        guest.run("insmod /hypermem.ko", check=True)
    assert served(guest)


@pytest.mark.needs("modules")
def test_the_module_can_go_while_hosts_come_and_go(guest: Guest) -> None:
    def host() -> None:
        with Link(guest.hm_socket, 5) as link:
            link.raw(header(READ, 1, 0x400000, BIG, tag=1))
            link.hello()

    with load(host) as raised:
        for _ in range(15):
            guest.run(RELOAD, check=True, timeout=20)
    for error in raised:
        assert isinstance(error, (TimeoutError, ConnectionError)), repr(error)
    assert served(guest)


@pytest.mark.needs("modules")
def test_the_module_waits_for_a_request_that_sleeps(guest: Guest, slow: Slow) -> None:
    """What sleeps in a page fault cannot be woken: rmmod goes on when the page has come."""
    with Link(guest.hm_socket) as link:
        link.hello()
        slow.ask(link)
        rmmod = guest.spawn(["sh", "-c", "rmmod hypermem; echo ended: $?"])
        time.sleep(1)
        assert guest.output(rmmod) == b""
        # Nothing else is held up.
        assert guest.run("echo well").out == b"well\n"
        slow.release()
        guest.wait_output(rmmod, rb"ended: 0\n")
        assert link.silent(0.2)
    guest.run("insmod /hypermem.ko", check=True)
    assert served(guest)


@pytest.mark.needs("modules")
@pytest.mark.daemon_talks
def test_a_mount_outlives_the_module(guest: Guest, mount: Mount) -> None:
    """Under load: right bytes or an error, then ESTALE, and new files work."""
    pid, victim = guest.victim("area", "300000")
    size, region = 300_000, victim["region"]
    wrong: list[bytes] = []

    def read() -> None:
        with opened(path(mount, pid, "mem")) as fd:
            for n in 8, size:
                if (data := os.pread(fd, n, region)) != pattern(region, n):
                    wrong.append(data)

    with opened(path(mount, pid, "mem")) as old:
        assert os.pread(old, 8, region) == pattern(region, 8)
        with load(read, 3) as raised:
            for _ in range(4):
                guest.run(RELOAD, check=True, timeout=20)
                wait_for(lambda: mem_errno(mount, pid, region, 8) == "OK")
        assert not wrong
        names = {errno.errorcode[error.errno] for error in raised}  # type: ignore[attr-defined]
        assert names <= {"ENOTCONN", "ESTALE", "ETIMEDOUT"}
        for n in 8, size:
            assert errno_of(lambda: os.pread(old, n, region)) == "ESTALE"
    check_mounted(guest, mount)


def test_a_controller_can_be_unbound_and_bound_through_sysfs(guest: Guest, mount: Mount) -> None:
    name = device(guest)
    for _ in range(3):
        guest.run(f"cd /sys/bus/virtio/drivers/hypermem && echo {name} >unbind", check=True)
        assert driver(guest) == ""
        guest.run(f"cd /sys/bus/virtio/drivers/hypermem && echo {name} >bind", check=True)
        assert driver(guest) == "hypermem"
    wait_for(lambda: os.path.exists(path(mount, 1, "comm")))
    check_mounted(guest, mount)


@pytest.mark.needs("modules")
def test_a_controller_that_is_unbound_through_sysfs_stays_so(boot, tmp_path: Path) -> None:
    """Although the module looks around: at a port that has no name, which may still come."""
    guest = boot(qemu_args=[
        "-chardev", f"socket,id=other,path={tmp_path}/other,server=on,wait=off",
        "-device", f"{machines.current.virtio('virtio-serial')},id=otherbus",
        "-device", "virtserialport,bus=otherbus.0,chardev=other"])
    guest.run(RELOAD, check=True)
    name = device(guest)
    guest.run(f"echo {name} >/sys/bus/virtio/drivers/hypermem/unbind", check=True)
    for _ in range(8):
        assert driver(guest) == ""
        time.sleep(0.5)
    guest.run(f"echo {name} >/sys/bus/virtio/drivers/hypermem/bind", check=True)
    assert served(guest)


def objects(guest: Guest) -> dict[str, int]:
    """How many there are in each of the kernel's heaps; exact with slub_debug."""
    out = guest.run("""
        sync; sleep 0.5; echo 3 >/proc/sys/vm/drop_caches
        for cache in /sys/kernel/slab/*/shrink; do echo 1 >$cache; done
        grep -E '^(dma-)?kmalloc-' /proc/slabinfo""").out.decode()
    return {line.split()[0]: int(line.split()[1]) for line in out.splitlines()}


def free_pages(guest: Guest) -> int:
    return int(re.search(rb"nr_free_pages (\d+)", guest.read_file("/proc/vmstat"))[1])


@pytest.mark.needs("modules")
@pytest.mark.limit(600)
def test_a_module_that_comes_and_goes_leaves_nothing_behind(boot, daemon: Path,
                                                            pytestconfig: pytest.Config) -> None:
    """Of each load, use and unload; with the kernel's checks of its heap on."""
    cycles = 300 if pytestconfig.getoption("--long") else 30
    guest = boot(append="slub_debug=FZP,kmalloc-*")
    pid, victim = guest.victim("area", "300000")
    region = victim["region"]

    def cycle() -> None:
        with Link(guest.hm_socket) as link:
            link.hello()
            for size in 8, 4096, BIG:
                assert link.get(READ, pid, region, size) == pattern(region, size)
            assert link.get(READ_PROC_FILE, pid, data=b"maps")
            assert link.get(WINDOW, addr=1) and link.get(TRANSLATE, pid, region, 65536)
            assert len(list(link.procs())) > 10
            # Leave with a request under way, an answer not taken and half a frame.
            link.send(READ, pid, region, BIG)
            link.raw(header(READ, 1)[:10])
        guest.run(RELOAD, check=True)

    with Mount(daemon, guest.hm_socket) as mount:
        check_mounted(guest, mount)
    for _ in range(3):
        cycle()
    there, free = [objects(guest)], [free_pages(guest)]
    for _ in range(2):
        for _ in range(cycles // 2):
            cycle()
        there.append(objects(guest))
        free.append(free_pages(guest))
    # What a load or a use forgets would be there as often as there were cycles, in both halves.  A
    # kernel keeps things for itself, too, of 300 cycles as many as of 30.
    grown = {name: [b - a for a, b in itertools.pairwise(n.get(name, 0) for n in there)]
             for name in there[-1]}
    print({name: n for name, n in grown.items() if any(n)}, free)
    assert not {name: n for name, n in grown.items() if min(n) >= cycles // 2}
    # Some pages come back a while after they were freed.
    wait_for(lambda: min(free[0] - free[1], free[1] - free_pages(guest)) < cycles // 2 + 50)
    guest.run("rmmod hypermem", check=True)
    assert b"hypermem" not in guest.run("cat /proc/vmallocinfo /proc/modules; ps").out
    assert guest.run("ls -d /sys/module/hypermem /sys/bus/virtio/drivers/hypermem").out == b""


@pytest.mark.needs("modules")
def test_a_module_of_another_kernel_is_refused_by_the_kernel(guest: Guest) -> None:
    """In its own words, which the manual explains."""
    guest.run("rmmod hypermem; cp /hypermem.ko /tmp/other.ko", check=True)
    try:
        module = guest.read_file("/hypermem.ko")
        magic = re.search(rb"vermagic=([^\0]*)", module)[1]
        other = magic.replace(b" mod_unload", b" mod_unheard", 1)[:len(magic)]
        refused = [(module.replace(b"vermagic=" + magic, b"vermagic=" + other),
                    "hypermem: version magic '.*' should be '.*'")]
        if b" modversions" in magic:  # Debian's no longer has them in 7.2
            symbol = module.index(b"module_layout\0", module.index(b"vermagic="))
            word = machines.current.word_bits // 8  # with its sum, before its name
            refused.append((module[:symbol - word] + bytes(word) + module[symbol:],
                            "hypermem: disagrees about version of symbol module_layout"))
        for changed, said in refused:
            assert len(changed) == len(module)
            guest.write_file("/tmp/other.ko", changed)
            done = guest.run("insmod /tmp/other.ko")
            assert done.rc != 0 and b"invalid module format" in done.err
            guest.wait_console(said)
    finally:
        guest.run("rm /tmp/other.ko; insmod /hypermem.ko", check=True)
    assert served(guest)


# Whose controller it is.


def console_is_a_module() -> bool:
    """Else the kernel has it from the beginning, and the module takes over each time."""
    return (lab.kernel() / "modules/virtio_console.ko").exists()


@pytest.mark.needs("modules")
def test_without_virtio_console_the_link_is_there_by_insmod_alone(boot) -> None:
    if not console_is_a_module():
        pytest.skip("this kernel has virtio_console built in")
    if not machines.current.types:
        pytest.skip("nobody can type at this machine's console")
    guest = boot(console="none")
    guest.wait_console("a shell on the console")
    with Link(guest.hm_socket) as link:
        epoch = link.hello().epoch
        assert [p.comm for p in link.procs()][1] == b"kthreadd"
    guest.type("rmmod hypermem; insmod /hypermem.ko; ls /sys/module; echo reloaded=$?\n")
    guest.wait_console(r"reloaded=0")
    assert "\nvirtio_console" not in guest.console()
    with Link(guest.hm_socket) as link:
        assert link.hello().epoch != epoch


@pytest.mark.needs("modules")
@pytest.mark.parametrize("console", ["first", "last"])
def test_virtio_console_gets_the_controller_back(boot, daemon: Path, console: str) -> None:
    guest = boot(console=console)
    took_over = "taking over from virtio_console" in guest.console()
    assert took_over == (console == "first" or not console_is_a_module())
    assert (driver(guest, 0), driver(guest, 1)) == ("hypermem", "virtio_console")
    assert console_ports(guest) == {"lab.0"}
    with Mount(daemon, guest.hm_socket) as mount:
        check_mounted(guest, mount)
    for _ in range(3):
        guest.run("rmmod hypermem", check=True)
        assert (driver(guest, 0), driver(guest, 1)) == ("virtio_console", "virtio_console")
        assert wait_for(lambda: console_ports(guest) == {"lab.0", "org.hypermem.0"})
        guest.run("insmod /hypermem.ko", check=True)
        assert driver(guest) == "hypermem" and console_ports(guest) == {"lab.0"}
        assert served(guest)
    guest.run("rmmod hypermem", check=True)
    # It works as any other port does.
    name = guest.run("grep -l org.hypermem /sys/class/virtio-ports/*/name").out.split(b"/")[-2]
    with Link(guest.hm_socket) as link:
        guest.run(b"echo hello from a console >/dev/" .decode() + name.decode(), check=True)
        link._sock.settimeout(10)
        assert link._sock.recv(100) == b"hello from a console\n"


@pytest.mark.needs("modules")
def test_it_takes_a_controller_whose_ports_virtio_console_does_not_know_yet(boot) -> None:
    """A booting system loads both in a row: the ports, and then their names, come later."""
    guest = boot()
    name = device(guest)
    guest.run("echo -1 >/proc/sys/kernel/sched_rt_runtime_us", check=True)
    for _ in range(3):
        guest.run(f"""
            rmmod hypermem && cd /sys/bus/virtio/drivers/virtio_console && echo {name} >unbind &&
            inarow bind {name} /hypermem.ko""", check=True)
        wait_for(lambda: driver(guest) == "hypermem")
        assert served(guest)


@pytest.mark.needs("headers")
def test_it_takes_a_controller_whose_ports_have_no_names_yet(
        kit: Kit, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """virtio_console makes a port, and shows its name when that comes: two seconds late here."""
    late = shutil.copytree(Path(__file__).parent / "late", tmp_path / "late")
    subprocess.run(["make", "-s", "-C", lab.headers(), f"M={late}"], check=True)
    image = lab.initramfs(tmp_path / "initramfs", {
        **lab.module_files(pytestconfig), late / "late.ko": "/late.ko"}, kit.kernel)
    with booted(kit._replace(image=image), smp=2) as guest:
        name = device(guest)
        guest.run(f"""
            rmmod hypermem && cd /sys/bus/virtio/drivers/virtio_console && echo {name} >unbind &&
            insmod /late.ko function=sysfs_create_group call=2 && echo {name} >bind || exit 1
            until [ -e {name}/virtio-ports/*/power ]; do :; done
            insmod /hypermem.ko""", check=True)
        # When it was loaded it was too early.
        guest.wait_console(r"there is no virtio-serial port named org\.hypermem\.\* yet")
        wait_for(lambda: driver(guest) == "hypermem")
        assert served(guest)


@pytest.mark.needs("modules")
@pytest.mark.parametrize("console", ["first", "last"])
def test_a_controller_with_another_port_is_left_alone(boot, tmp_path: Path,
                                                      console: str) -> None:
    """And the kernel's log says why, and what to do."""
    guest = boot(console=console, qemu_args=[
        "-chardev", f"socket,id=other,path={tmp_path}/other,server=on,wait=off",
        "-device", "virtserialport,bus=hmbus.0,chardev=other,name=org.example.agent.0"])
    said = [line for line in guest.console().splitlines() if "shares its controller" in line]
    assert len(said) == 1
    assert "with 1 other port, leaving all to virtio_console: give it a controller of its own " \
        "(-device virtio-serial-pci,id=hm -device virtserialport,bus=hm.0," in said[0]
    assert driver(guest) == "virtio_console"
    assert console_ports(guest) == {"lab.0", "org.hypermem.0", "org.example.agent.0"}
    guest.run(RELOAD, check=True)
    assert driver(guest) == "virtio_console"
    assert len(console_ports(guest)) == 3


@pytest.mark.needs("modules")
def test_two_controllers_have_a_link_each(boot, tmp_path: Path, daemon: Path) -> None:
    guest = boot(smp=2, qemu_args=[
        "-chardev", f"socket,id=hm2,path={tmp_path}/hm2,server=on,wait=off",
        "-device", f"{machines.current.virtio('virtio-serial')},id=hmbus2",
        "-device", "virtserialport,bus=hmbus2.0,chardev=hm2,name=org.hypermem.1"])
    drivers = sorted(driver(guest, n) for n in range(3))
    assert drivers == ["hypermem", "hypermem", "virtio_console"]
    with Mount(daemon, guest.hm_socket) as first, Mount(daemon, tmp_path / "hm2") as second:
        for mount in first, second, first:
            check_mounted(guest, mount)
        with load(lambda: check_mounted(guest, second)) as raised:
            check_mounted(guest, first)
            check_mounted(guest, first)
        assert not raised
        first.check()
        second.check()
    # One host's end is not the other's.
    with Link(guest.hm_socket) as one, Link(tmp_path / "hm2") as two:
        assert one.hello().epoch == two.hello().epoch
        one.raw(b"\xff" * 24)
        assert one.receive().op == RESET
        assert two.proc(1).pid == 1
    guest.run(RELOAD, check=True)
    assert served(guest) and served(guest, tmp_path / "hm2")


def test_a_port_that_is_plugged_in_later_is_told_of_and_not_served(boot, tmp_path: Path) -> None:
    guest = boot()
    guest.qmp("chardev-add", id="late", backend={"type": "null", "data": {}})
    with Link(guest.hm_socket) as link:
        link.hello()
        guest.qmp("device_add", driver="virtserialport", bus="hmbus.0", id="late", chardev="late",
                  name="org.example.late")
        guest.wait_console("a port was added to the controller of org.hypermem.0 and is not served")
        assert link.proc(1).pid == 1
    assert served(guest)


CONTROLLERS = {
    "port 0, which is a console": {"hm_port": "virtconsole,nr=0"},
    "two ports": {"hm_bus": "max_ports=2"},
    "the last port of all": {"hm_port": "virtserialport,nr=30"},
}


@pytest.mark.parametrize("options", CONTROLLERS.values(), ids=CONTROLLERS)
def test_controllers_of_all_kinds_work(boot, daemon: Path, options: dict[str, str]) -> None:
    guest = boot(**options)
    assert driver(guest) == "hypermem"
    with Mount(daemon, guest.hm_socket) as mount:
        check_mounted(guest, mount)
        mount.check()


@pytest.mark.needs("modules")
def test_a_controller_that_cannot_say_its_ports_names_is_left_alone(boot) -> None:
    """With max_ports=1 QEMU has no control queues, so who knows whose port it is?"""
    guest = boot(hm_bus="max_ports=1", hm_port="virtconsole")
    assert driver(guest) == "virtio_console"
    guest.run(RELOAD, check=True)
    assert driver(guest) == "virtio_console"


@pytest.mark.parametrize("chardev", ["socket,host=127.0.0.1,port=0,server=on,wait=off", "pty"],
                         ids=["tcp", "pty"])
def test_chardevs_of_other_kinds_work(boot, daemon: Path, chardev: str) -> None:
    guest = boot(hm_chardev=chardev)
    assert guest.hm_address.startswith(("tcp:127.0.0.1:", "/dev/pts/"))
    for _ in range(2):
        with Mount(daemon, guest.hm_address) as mount:
            check_mounted(guest, mount)
            assert "\nram: inline (" in (mount.mnt / "info").read_text()
            mount.check()


# Sleep.


@pytest.mark.daemon_talks
@pytest.mark.needs("suspend")
def test_the_link_is_there_again_after_a_suspend(sleeper: Guest, daemon: Path) -> None:
    """To RAM, and as far as pm_test goes: the mount goes on, its open files are good."""
    guest, served = sleeper, "serving port org.hypermem.0"
    before = guest.console().count(served)
    with Mount(daemon, guest.hm_socket) as mount:
        pid, victim = guest.victim("area", "300000")
        region = victim["region"]
        with opened(path(mount, pid, "mem")) as fd:
            for n, level in enumerate(["devices", "core", "none"]):
                guest.run(f"echo {level} >/sys/power/pm_test", check=True)
                guest.spawn(["sh", "-c", "sleep 0.2; echo mem >/sys/power/state; "
                             f"echo awake: {n} >/dev/console"])
                if level == "none":
                    guest.wait_event("SUSPEND")
                    guest.qmp("system_wakeup")
                guest.wait_console(f"awake: {n}")
                wait_for(lambda: errno_of(lambda: os.pread(fd, 8, region)) == "OK")
                for size in 8, 300_000:
                    assert os.pread(fd, size, region) == pattern(region, size)
        assert driver(guest) == "hypermem"
        assert guest.console().count(served) == before + 3
        guest.wait_agent()  # its own port has been reset, too
        check_mounted(guest, mount)
        mount.check(talks=True)
