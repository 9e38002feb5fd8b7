# SPDX-License-Identifier: MIT
"""The same link over every way in which virtio can reach a guest of this architecture.

The size of a queue is no option of QEMU's virtio-serial: 128, and 32 for control messages.
"""
from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from device import device, interrupts
from lab import Guest
from link import READ, WINDOW, WRITE, Link, header
from test_module import BIG, RELOAD, check_mounted
from world import Mount, pattern

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("pc")]

# Bits of /sys/bus/virtio/devices/*/features, from the lowest on.
INDIRECT, EVENT_IDX, MODERN, PLATFORM, PACKED = 28, 29, 32, 33, 34

# On a busy host its kernel finds that no timer's interrupt comes, and panics.
IOMMU = {"qemu_machine": "q35", "append": "intel_iommu=on no_timer_check",
         "qemu_args": ["-device", "intel-iommu"]}
# It has no timer to measure the TSC with, which QEMU's TCG and KVM take from the host.
TSC_KHZ = int(float(re.search(r"cpu MHz\s*: ([0-9.]+)", Path("/proc/cpuinfo").read_text())[1]) * 1e3)
MMIO = {"qemu_machine": "microvm,acpi=on,rtc=on", "append": f"tsc_early_khz={TSC_KHZ} tsc=reliable"}
MODERN_MMIO = MMIO | {"qemu_args": ["-global", "virtio-mmio.force-legacy=false"]}


class Transport(NamedTuple):
    options: dict  # of the guest
    has: set[int]  # features that are agreed on
    has_not: set[int]
    interrupt: str  # what /proc/interrupts says about it
    usual: bool = True  # else only with --long


TRANSPORTS = {
    "PCI, both old and new": Transport({}, {MODERN, INDIRECT, EVENT_IDX}, {PACKED}, "MSI", False),
    "PCI, modern": Transport({"hm_bus": "disable-legacy=on"}, {MODERN}, set(), "MSI", False),
    "PCI, legacy": Transport({"hm_bus": "disable-modern=on"}, {EVENT_IDX}, {MODERN}, "MSI"),
    "PCI, an interrupt that is shared": Transport(
        {"hm_bus": "vectors=0"}, {MODERN}, set(), "IO-APIC"),
    "PCI, legacy, an interrupt that is shared": Transport(
        {"hm_bus": "vectors=0,disable-modern=on"}, set(), {MODERN}, "IO-APIC", False),
    "PCI, an interrupt for each queue": Transport(
        {"hm_bus": "vectors=65", "smp": 2}, {MODERN}, set(), "MSI"),
    "PCI, a page for each doorbell": Transport(
        {"hm_bus": "page-per-vq=on,disable-legacy=on"}, {MODERN}, set(), "MSI", False),
    "PCI, packed": Transport({"hm_bus": "packed=on"}, {MODERN, PACKED, EVENT_IDX}, set(), "MSI"),
    "PCI, packed, an interrupt that is shared, no event index": Transport(
        {"hm_bus": "packed=on,vectors=0,event_idx=off"}, {PACKED}, {EVENT_IDX}, "IO-APIC", False),
    "PCI, packed, descriptors in the ring": Transport(
        {"hm_bus": "packed=on,indirect_desc=off"}, {PACKED}, {INDIRECT}, "MSI", False),
    "PCI, no event index, descriptors in the ring": Transport(
        {"hm_bus": "event_idx=off,indirect_desc=off"}, {MODERN}, {EVENT_IDX, INDIRECT}, "MSI"),
    "PCI, behind an IOMMU": Transport(
        IOMMU | {"hm_bus": "iommu_platform=on,disable-legacy=on"}, {PLATFORM}, set(), "MSI"),
    "PCI, packed, behind an IOMMU": Transport(
        IOMMU | {"hm_bus": "iommu_platform=on,disable-legacy=on,packed=on"}, {PLATFORM, PACKED},
        set(), "MSI", False),
    "PCI, through bounce buffers": Transport(
        {"append": "swiotlb=force", "hm_bus": "iommu_platform=on,disable-legacy=on"}, {PLATFORM},
        set(), "MSI", False),
    "MMIO, legacy": Transport(MMIO, {INDIRECT}, {MODERN}, "IO-APIC"),
    "MMIO, modern": Transport(MODERN_MMIO, {MODERN}, {PACKED}, "IO-APIC", False),
    "MMIO, modern, packed": Transport(
        MODERN_MMIO | {"hm_bus": "packed=on"}, {MODERN, PACKED}, set(), "IO-APIC"),
}


def features(guest: Guest) -> set[int]:
    bits = guest.read_file(f"/sys/bus/virtio/devices/{device(guest)}/features").decode().strip()
    return {n for n, bit in enumerate(bits) if bit == "1"}


def asked_much_at_a_time(link: Link, pid: int, region: int) -> None:
    """More than the queue holds, small and large, in both directions."""
    for n in range(300):
        link.send(READ, pid, region + 8 * n, 8)
    for n in range(300):
        frame = link.receive()
        assert not frame.data or frame.data == pattern(frame.addr, 8)
    tags = [link.send(WRITE, pid, region, data=pattern(region, BIG)) if n % 2 else
            link.send(READ, pid, region, BIG) for n in range(60)]
    for n, tag in enumerate(tags):
        reply = link.wait(tag)
        assert reply.size == BIG
        assert n % 2 or reply.data == pattern(region, BIG)


def left_by_its_host(guest: Guest, pid: int, region: int) -> None:
    """With answers under way that nobody takes."""
    for n in range(3):
        with Link(guest.hm_socket) as link:
            link.hello()
            link.raw(b"".join(header(READ, pid, region, BIG, tag=tag) for tag in range(1, 100)))
            time.sleep(0.05 * n)


@pytest.mark.needs("modules")
@pytest.mark.parametrize("name", TRANSPORTS)
def test_the_link_works_over(boot: Callable[..., Guest], daemon: Path, name: str,
                             pytestconfig: pytest.Config) -> None:
    transport = TRANSPORTS[name]
    rounds = 5 if pytestconfig.getoption("--long") else 1
    if not transport.usual and rounds == 1:
        pytest.skip("one of a variety: --long")
    guest = boot(**transport.options)
    assert transport.has <= features(guest)
    assert not transport.has_not & features(guest)
    assert transport.interrupt in interrupts(guest)
    pid, victim = guest.victim("area", str(BIG))
    for _ in range(rounds):
        with Link(guest.hm_socket) as link:
            assert link.hello().max_data == BIG
            assert link.get(WINDOW, addr=1)
            asked_much_at_a_time(link, pid, victim["region"])
        left_by_its_host(guest, pid, victim["region"])
        with Link(guest.hm_socket) as link:
            link.hello()
            asked_much_at_a_time(link, pid, victim["region"])
            # With a host that is connected, and requests in flight.
            for _ in range(60):
                link.send(READ, pid, victim["region"], BIG)
            guest.run(RELOAD, check=True)
            link.hello()
            assert link.proc(pid).pid == pid
    with Mount(daemon, guest.hm_socket, "-o", "ram=require") as mount:
        check_mounted(guest, mount)
        mount.check()
