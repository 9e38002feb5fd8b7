# SPDX-License-Identifier: MIT
"""/info: what is at the other end."""
import re

import machines
from world import World, host


def info(world: World) -> dict[str, str]:
    text = (world.mnt / "info").read_text()
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_lines_are_key_and_value(world: World) -> None:
    text = (world.mnt / "info").read_text()
    assert text.endswith("\n")
    assert all(re.fullmatch(r"[a-z_]+: .+", line) for line in text.splitlines()), text


def test_it_tells_of_the_guests_kernel(world: World) -> None:
    said = info(world)
    assert said["release"] == world.run("uname -r").out.decode().strip()
    assert said["machine"] == world.run("uname -m").out.decode().strip()
    machine = machines.current
    assert (said["bits"], said["endian"]) == (str(machine.word_bits), machine.byteorder)
    assert said["page_size"] == str(machine.page)
    assert said["link"] == "up"


def test_it_can_be_read_byte_by_byte_and_from_the_middle(world: World) -> None:
    whole = host(["cat", world.mnt / "info"]).out
    assert host(["dd", f"if={world.mnt}/info", "bs=1", "status=none"]).out == whole
    assert host(["tail", "-c", "+11", world.mnt / "info"]).out == whole[10:]
    assert host(["tail", "-c", "5", world.mnt / "info"]).out == whole[-5:]


def test_it_says_whether_memory_may_be_written(world: World) -> None:
    assert info(world)["writable"] == "yes"
    with world.mount("-o", "ro") as mount:
        assert "\nwritable: no\n" in (mount.mnt / "info").read_text()
