# SPDX-License-Identifier: MIT
"""A distribution as users have it: systemd, udev, virtio_console, qemu-guest-agent, dkms.

The tests share a machine; each leaves it with the module loaded, those at the end boot it anew.
"""
from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import BOOT, QGA, Image, ping, started, wait_running
from lab import Guest
from seen import TEXTS, guest_mem, oracle, path, shown
from world import Mount, errno_of, host, opened, pattern, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
NODE = "/dev/virtio-ports/org.hypermem.0"
TOOK_OVER = "taking over from virtio_console"


def driver(guest: Guest, number: int = 0) -> str:
    """Of the controller virtioNUMBER; 0 is hypermem's."""
    done = guest.run(["readlink", f"/sys/bus/virtio/devices/virtio{number}/driver"])
    return done.out.decode().strip().rpartition("/")[2]


def main_pid(guest: Guest, service: str) -> int:
    return int(guest.run(["systemctl", "show", "-P", "MainPID", service], check=True).out)


def ranges(maps: bytes, pattern_: bytes) -> list[tuple[int, int]]:
    """Of the lines of maps in which the pattern is found."""
    return [(int(start, 16), int(end, 16)) for start, end in
            (line.split()[0].split(b"-") for line in maps.splitlines()
             if re.search(pattern_, line))]


def check_mounted(guest: Guest, mount: Mount) -> None:
    """Names, texts, memory, small and large."""
    pid, victim = guest.victim("area", "300000")
    wait_for(lambda: str(pid) in os.listdir(mount.mnt / "pid"))
    assert path(mount, pid, "maps").read_bytes() == guest.read_file(f"/proc/{pid}/maps")
    with opened(path(mount, pid, "mem"), os.O_RDWR) as fd:
        for size in 8, 20_000, 300_000:
            assert os.pread(fd, size, victim["region"]) == pattern(victim["region"], size)
        assert os.pwrite(fd, b"x" * 100_000, victim["region"]) == 100_000
        assert os.pread(fd, 100_000, victim["region"]) == b"x" * 100_000
    guest.kill(pid)


# How it was installed.


def test_the_options_of_qemu_are_those_of_the_readme(debian: Guest) -> None:
    said = re.search(r"```\n( +-chardev .*?)```", (ROOT / "README.md").read_text(), re.S)
    assert said
    options = " ".join(shlex.split(said[1])).replace("/tmp/hm.sock", str(debian.hm_socket))
    assert options in " ".join(shlex.split((debian.dir / "qemu.cmd").read_text()))


def test_the_module_comes_with_the_boot(debian: Guest) -> None:
    debian.run("systemctl is-active systemd-modules-load", check=True)
    assert driver(debian) == "hypermem"
    assert "serving port org.hypermem.0" in debian.console()
    file = debian.run("modinfo -n hypermem", check=True).out.decode().strip()
    release = debian.run("uname -r").out.decode().strip()
    assert file == f"/lib/modules/{release}/updates/dkms/hypermem.ko"
    version = re.search(r"version: '(.*)'", (ROOT / "meson.build").read_text())[1]
    assert debian.run("modinfo -F version hypermem").out.decode().strip() == version


def test_dkms_has_it_for_both_kernels(debian: Guest, image: Image) -> None:
    """The second one was installed later: its package's hooks have made dkms build."""
    status = debian.run("dkms status hypermem", check=True).out.decode()
    assert len(image.kernels) == 2
    for release in image.kernels:
        assert re.search(rf"^hypermem/[^ ]*, {re.escape(release)}, x86_64: installed$", status,
                         re.M), status


def test_dkms_has_signed_it(debian: Guest) -> None:
    assert debian.run("modinfo -F signer hypermem").out == b"DKMS module signing key\n"
    debian.run("test -e /var/lib/dkms/mok.pub", check=True)


# What is to be seen.


def test_process_1_is_systemd(debian: Guest, mount: Mount) -> None:
    assert path(mount, 1, "comm").read_bytes() == b"systemd\n"
    for name in "cmdline", "environ", "maps":
        assert path(mount, 1, name).read_bytes() == debian.read_file(f"/proc/1/{name}")
    assert os.readlink(path(mount, 1, "exe")) == "/usr/lib/systemd/systemd"


def test_all_processes_are_there_and_no_others(debian: Guest, mount: Mount) -> None:
    def pids() -> set[str]:
        return set(debian.run("cd /proc && echo [0-9]*").out.decode().split())

    def same() -> bool:
        before, ours, after = pids(), set(os.listdir(mount.mnt / "pid")), pids()
        return before & after <= ours <= before | after

    wait_for(same, 60, 0.5)  # names may be a second old


def test_grep_finds_a_services_environment(debian: Guest, mount: Mount) -> None:
    ticker = main_pid(debian, "ticker")
    # -s: processes may end meanwhile.
    found = host(f"cd {mount.mnt}/pid && grep -slaz ^API_TOKEN= */environ", timeout=60)
    assert f"{ticker}/environ".encode() in found.out.splitlines()


@pytest.mark.parametrize("service", ["qemu-guest-agent", "ticker", "systemd-journald"])
def test_a_services_memory_can_be_read(debian: Guest, mount: Mount, service: str) -> None:
    pid = main_pid(debian, service)
    maps = path(mount, pid, "maps").read_bytes()
    assert maps == debian.read_file(f"/proc/{pid}/maps")
    # Of what does not change: its program and libraries.
    texts = ranges(maps, rb" r.xp .* /")
    assert texts
    with opened(path(mount, pid, "mem")) as fd:
        for start, end in texts:
            ours = os.pread(fd, end - start, start)
            assert len(ours) == end - start
            assert ours == guest_mem(debian, pid, start, end - start)


@pytest.mark.parametrize("service", ["qemu-guest-agent", "ticker", "dbus"])
def test_links_read_as_in_the_guest(debian: Guest, mount: Mount, service: str) -> None:
    def links(said: dict[str, bytes]) -> dict[str, bytes]:
        return {name: text for name, text in said.items() if name not in TEXTS}

    pid = main_pid(debian, service)
    ours = links(shown(mount, pid))
    assert ours == links(oracle(debian, pid))
    if service == "ticker":
        assert ours["fd/3"] == b"/tmp/stash (deleted)"


def test_a_service_sees_what_is_written(debian: Guest, mount: Mount) -> None:
    pid = main_pid(debian, "ticker")
    [(start, end)] = ranges(path(mount, pid, "maps").read_bytes(), rb"\[heap\]$")
    old, new = b"nobody has been here", b"the host was in here"
    with opened(path(mount, pid, "mem"), os.O_RDWR) as fd:
        heap = os.pread(fd, end - start, start)
        found = [m.start() for m in re.finditer(old, heap)]
        assert found
        for offset in found:
            assert os.pwrite(fd, new, start + offset) == len(new)
    wait_for(lambda: new in debian.run("journalctl -u ticker -n 3 -o cat").out, 60, 1)


# Whose port it is.


def test_other_ports_work_with_the_module(debian: Guest, mount: Mount) -> None:
    assert ping(debian)
    assert debian.run("ls /dev/virtio-ports").out.split() == [b"lab.0", QGA.encode()]
    check_mounted(debian, mount)
    assert ping(debian)


@pytest.mark.daemon_talks
def test_without_the_module_the_port_is_virtio_consoles_and_udevs(debian: Guest,
                                                                 mount: Mount) -> None:
    for _ in range(4):
        debian.run("modprobe -r hypermem && udevadm settle", check=True)
        assert driver(debian) == "virtio_console"
        debian.run(["test", "-c", NODE], check=True)
        assert ping(debian)
        debian.run("modprobe hypermem && udevadm settle", check=True)
        assert driver(debian) == "hypermem"
        assert debian.run(["test", "-e", NODE]).rc == 1
        assert ping(debian)
    wait_for(lambda: errno_of(path(mount, 1, "comm").stat) == "OK", 60)
    check_mounted(debian, mount)


def test_a_port_that_somebody_has_open_is_taken_over(debian: Guest, daemon: Path) -> None:
    """They get an error, as when it is unplugged, and the log says who has it now."""
    debian.run("modprobe -r hypermem && udevadm settle", check=True)
    before = debian.console().count(TOOK_OVER)
    holder = debian.spawn(["sh", "-c", f"exec 3<>{NODE} && echo open && "
                           "while sleep 0.5; do echo there >&3 || exec sleep 1000; done"])
    debian.wait_output(holder, b"open\n")
    debian.run("modprobe hypermem", check=True)
    assert driver(debian) == "hypermem"
    assert debian.console().count(TOOK_OVER) == before + 1
    with Mount(daemon, debian.hm_socket) as mount:
        check_mounted(debian, mount)
        debian.wait_output(holder, rb"(?i)i/o error|no such device")
        # It has the file open still, of a device that is gone.
        assert any(os.readlink(path(mount, holder, f"fd/{n}")).startswith("/dev/vport")
                   for n in os.listdir(path(mount, holder, "fd")))
        debian.kill(holder)
        check_mounted(debian, mount)
    debian.run("modprobe -r hypermem && udevadm settle && modprobe hypermem", check=True)
    assert driver(debian) == "hypermem"


# Boots.

# How the machine is set up for the next boot; what the log says of the module then.
ORDERS = {
    "virtio_console-first": ("systemctl enable console-first", True),
    "the-module-first": ("systemctl disable console-first; "
                         "echo softdep virtio_console pre: hypermem >/etc/modprobe.d/hypermem.conf",
                         False),
}


@pytest.mark.daemon_talks
@pytest.mark.limit(2 * BOOT)
@pytest.mark.parametrize("setup, taken_over", ORDERS.values(), ids=ORDERS)
def test_a_reboot_makes_open_files_stale_and_new_ones_work(
        debian: Guest, mount: Mount, setup: str, taken_over: bool) -> None:
    pid, victim = debian.victim("mem")
    with opened(path(mount, pid, "mem")) as fd:
        assert os.pread(fd, 8, victim["region"]) == pattern(victim["region"], 8)
        debian.run(f"{setup}; sync", check=True)
        debian.reboot("systemctl reboot", BOOT)
        wait_for(lambda: errno_of(path(mount, 1, "comm").stat) == "OK", 60)
        assert errno_of(lambda: os.pread(fd, 8, victim["region"])) == "ESTALE"
    wait_running(debian)
    log = debian.run("dmesg").out.decode()
    assert "serving port org.hypermem.0" in log
    assert (TOOK_OVER in log) == taken_over
    if taken_over:
        # udev had made its node by then.
        assert b"org.hypermem.0" in debian.read_file("/run/ports").split()
    assert debian.run(["test", "-e", NODE]).rc == 1
    check_mounted(debian, mount)
    assert ping(debian)


@pytest.fixture(scope="module")
def later(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The same disk with the kernel that was installed later."""
    with started(image, tmp_path_factory.mktemp("later"), "cloud-amd64") as guest:
        wait_running(guest)
        yield guest


@pytest.mark.limit(2 * BOOT)
def test_the_kernel_that_was_installed_later_has_the_module(
        later: Guest, image: Image, daemon: Path) -> None:
    assert later.run("uname -r").out.decode().strip() == image.release("cloud-amd64")
    assert driver(later) == "hypermem"
    with Mount(daemon, later.hm_socket) as mount:
        check_mounted(later, mount)
        mount.check()
    assert ping(later)


@pytest.mark.limit(2 * BOOT)
def test_it_can_be_uninstalled(later: Guest) -> None:
    """By the commands of docs/guests.md."""
    guests = (ROOT / "docs/guests.md").read_text()
    commands = re.search(r"Uninstall:\n\n```console\n(.*?)```", guests, re.S)
    assert commands
    for command in re.findall(r"^# (.*)$", commands[1], re.M):
        later.run(command, timeout=BOOT, check=True)
    left = later.run("find / -xdev -path /root/guest -prune -o -name '*hypermem*' -print").out
    assert [name for name in left.split() if not name.startswith(b"/dev/")] == []
    assert driver(later) == "virtio_console"
    later.run("udevadm settle", check=True)
    later.run(["test", "-c", NODE], check=True)


@pytest.mark.limit(2 * BOOT)
def test_virtio_console_is_not_needed(image: Image, tmp_path: Path, daemon: Path) -> None:
    """Blacklisted, so the lab's agent has no port either: the mount is all there is."""
    with started(image, tmp_path, append="modprobe.blacklist=virtio_console",
                 console="none") as guest:
        guest.wait_console("serving port org.hypermem.0", BOOT)
        with Mount(daemon, guest.hm_socket) as mount:
            def agents() -> list[Path]:
                found = host(f"cd {mount.mnt}/pid && grep -slx agent */comm").out.decode().split()
                return [mount.mnt / "pid" / name.split("/")[0] for name in found]

            [agent] = wait_for(agents, BOOT, 1)
            assert path(mount, 1, "comm").read_bytes() == b"systemd\n"
            assert not any(os.readlink(fd).startswith("/dev/vport")
                           for fd in (agent / "fd").iterdir())
            mount.check()
