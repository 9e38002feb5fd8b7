# SPDX-License-Identifier: MIT
"""guest/ in a kernel that can load no modules: it is there by itself, and what it has not it says."""
from __future__ import annotations

import os

import pytest

from hook import REMOVE, SET, WAIT, hook
from lab import Guest
from link import DATA, READ, WRITE, Link, errno_name
from world import Mount, errno_of

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("builtin")]


def test_it_serves_before_there_is_any_user_space(guest: Guest) -> None:
    log = guest.run("dmesg", check=True).out.decode()
    assert 0 < log.index("serving port org.hypermem.0") < log.index("Run /init as init process")
    assert guest.run(["test", "-e", "/proc/modules"]).rc


def test_a_kernel_without_kprobes_has_no_operation_of_hooks(link: Link, guest: Guest) -> None:
    assert guest.run("zcat /proc/config.gz | grep -q ^CONFIG_KPROBES=").rc
    hello = link.hello()
    assert hello.ops & 1 << READ and hello.ops & 1 << WRITE - DATA
    assert not hello.ops >> 16 & 0x1f and not hello.allowed & ~hello.ops
    for op, data in (SET, hook("getppid")), (REMOVE, b""), (WAIT, b""):
        assert errno_name(link.call(op, addr=1, size=4096, data=data)) == "EOPNOTSUPP"


def test_a_kernel_without_kprobes_has_no_hooks_to_make(mount: Mount) -> None:
    assert os.listdir(mount.mnt / "hooks") == []
    assert errno_of(lambda: os.mkdir(mount.mnt / "hooks/x")) == "EOPNOTSUPP"
    assert os.listdir(mount.mnt / "hooks") == []
