# SPDX-License-Identifier: MIT
"""The daemon as a program: how it starts, what it says if it cannot, how it ends."""
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from world import FakeGuest, HostWorld, Mount, Result, World, host, unmount, wait_for

pytestmark = pytest.mark.fake("the daemon is the same with any guest")


@pytest.fixture
def mnt(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    unmount(path)


USAGE, CHARDEV, GUEST, MOUNT = 2, 3, 4, 5  # exit codes: fs/exit_codes.h


def refused(world: World, *args: object, rc: int) -> str:
    """The one line that hypermemfs says when it cannot mount."""
    done = host([world.daemon, *(os.fspath(a) for a in args)])
    assert done.rc == rc, done
    assert done.err.count(b"\n") == 1, done.err.decode()
    assert done.err.startswith(b"hypermemfs: ")
    assert done.out == b""
    return done.err.decode()


def test_no_such_socket(world: World, mnt: Path) -> None:
    assert re.search("/nowhere/sock: no such", refused(world, "/nowhere/sock", mnt, rc=CHARDEV))
    assert os.listdir(mnt) == []


def test_a_socket_that_nobody_listens_to(world: World, mnt: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "dead"))
    assert "nobody listens" in refused(world, tmp_path / "dead", mnt, rc=CHARDEV)


def test_a_file_that_is_no_socket(world: World, mnt: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "neither a Unix socket to connect to nor a character device" in refused(world, tmp_path / "file", mnt, rc=CHARDEV)
    assert "neither" in refused(world, "/", mnt, rc=CHARDEV)
    assert "hangs up" in refused(world, "/dev/null", mnt, rc=GUEST)


def test_a_tcp_port_that_nobody_listens_to(world: World, mnt: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert "nobody listens" in refused(world, f"tcp:127.0.0.1:{port}", mnt, rc=CHARDEV)


@pytest.mark.parametrize("how, line", [
    ("no-hello", "nobody answers within 1 s"),
    ("old-version=0", "speaks version 0 of the protocol, this hypermemfs version 1; use module "
     "and hypermemfs of one release"),
    ("old-version=99", "version 99 of the protocol"),
    ("old-version=0xffffffff", "version 4294967295 of the protocol"),
    ("wrong-nonce", ""), ("short-hello=100", ""), ("short-hello=0", ""), ("max-data=0", ""),
    ("max-data=4071", ""), ("close", "hangs up before it answers")])
def test_a_guest_that_cannot_be_understood(world: HostWorld, mnt: Path, how: str,
                                           line: str) -> None:
    with world.guest("--misbehave", how) as fake:
        assert line in refused(world, "-o", "timeout=1", fake.socket, mnt, rc=GUEST)
    assert os.listdir(mnt) == []


def test_a_guest_that_offers_more_than_was_asked_for(world: HostWorld) -> None:
    pid = world.victim("argv").pid
    with world.guest("--misbehave", "max-data=0xffffffff") as fake:
        with Mount(world.daemon, fake.socket) as m:
            shown = (m.mnt / "pid" / str(pid) / "cmdline").read_bytes()
            assert shown == world.proc(pid, "cmdline")


def test_strings_of_the_guest_are_shown_as_text(world: HostWorld) -> None:
    with world.guest("--misbehave", "bad-strings") as fake:
        try:
            with Mount(world.daemon, fake.socket) as m:
                info = (m.mnt / "info").read_bytes()
                assert all(b": " in line for line in info.splitlines())
                assert re.fullmatch(rb"[ -~\n]*", info)
        except AssertionError as error:
            assert "makes no sense" in str(error)  # or it is not mounted at all


def test_a_mount_point_that_cannot_be(world: HostWorld, tmp_path: Path, fake: FakeGuest) -> None:
    (tmp_path / "file").write_text("x")
    assert f"no such directory; to make it run: mkdir -p {tmp_path}/nosuch" in \
        refused(world, fake.socket, tmp_path / "nosuch", rc=MOUNT)
    assert "not a directory; give" in refused(world, fake.socket, tmp_path / "file", rc=MOUNT)


def test_a_mount_point_in_use(world: HostWorld, fake: FakeGuest) -> None:
    assert "in use" in refused(world, fake.socket, world.mnt, rc=MOUNT)
    assert (world.mnt / "info").exists()


@pytest.mark.parametrize("args", [
    [], ["sock"], ["--nosuch", "sock", "mnt"], ["-o", "nosuchoption", "SOCK", "MNT"],
    ["sock", "mnt", "more"], ["-o", "timeout=x", "sock", "mnt"], ["-o", "timeout=-1", "sock", "mnt"],
    ["-o", "timeout=0", "sock", "mnt"], ["-o", "timeout=", "sock", "mnt"], ["tcp:", "MNT"],
    ["tcp:host", "MNT"], ["tcp:127.0.0.1:99999", "MNT"], ["", "MNT"], ["-o"]])
def test_bad_usage_is_one_line(world: HostWorld, mnt: Path, fake: FakeGuest,
                               args: list[str]) -> None:
    real = {"SOCK": fake.socket, "MNT": mnt}
    refused(world, *(real.get(arg, arg) for arg in args), rc=USAGE)


def test_help_and_version(world: World) -> None:
    for option in "--help", "-h":
        done = host([world.daemon, option])
        assert done.rc == 0 and done.err == b""
        assert b"hypermemfs [options] CHARDEV MOUNTPOINT" in done.out
    done = host([world.daemon, "--version"])
    assert done.rc == 0 and re.fullmatch(rb"hypermemfs [0-9]+\.[0-9.]+\n", done.out)


def test_it_returns_when_the_tree_is_there(world: HostWorld, mnt: Path, fake: FakeGuest) -> None:
    done = host([world.daemon, fake.socket, mnt])
    assert done == Result(0, b"", b"")
    assert (mnt / "pid/1/comm").exists() and "1" in os.listdir(mnt / "pid")
    assert host(["fusermount3", "-u", mnt]).rc == 0
    assert os.listdir(mnt) == []


def test_relative_paths_work_in_the_background(world: HostWorld, tmp_path: Path, mnt: Path,
                                               fake: FakeGuest) -> None:
    (tmp_path / "s").symlink_to(fake.socket)
    assert host([world.daemon, "./s", "mnt"], cwd=tmp_path) == Result(0, b"", b"")
    assert "1" in os.listdir(mnt / "pid")
    # It finds the guest again, although it has left this directory.
    fake.kill()
    fake.start()
    wait_for(lambda: host(["ls", mnt / "pid"]).rc == 0)


def test_mount_knows_it(world: HostWorld, mnt: Path, fake: FakeGuest) -> None:
    # What `mount -t fuse.hypermemfs` runs, but without an installed hypermemfs: mount(8) itself
    # forgets PATH.
    path = {**os.environ, "PATH": f"{world.daemon.parent}:{os.environ['PATH']}"}
    done = host(["/sbin/mount.fuse3", fake.socket, mnt, "-t", "fuse.hypermemfs",
                 "-o", "rw,nofail,noauto,x-systemd.automount,ro,allow_other,timeout=2"], env=path)
    assert done.rc == 0, done.err
    assert "1" in os.listdir(mnt / "pid")
    assert host(["umount", mnt]).rc == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts_and_ends_it(world: HostWorld, fake: FakeGuest, sig: int) -> None:
    m = Mount(world.daemon, fake.socket)
    m.process.send_signal(sig)
    assert m.process.wait(10) == 0
    assert not os.path.ismount(m.mnt)
    assert m.stderr() == b""
    assert m.close() == 0


def test_unmounting_ends_it(world: HostWorld, fake: FakeGuest) -> None:
    m = Mount(world.daemon, fake.socket)
    assert host(["fusermount3", "-u", m.mnt]).rc == 0
    assert m.process.wait(10) == 0
    assert m.stderr() == b""
    assert m.close() == 0


def test_the_trace_has_a_line_for_each_frame(world: HostWorld, fake: FakeGuest) -> None:
    victim = world.victim("argv")
    m = Mount(world.daemon, fake.socket, "-d")
    (m.mnt / "pid" / str(victim.pid) / "cmdline").read_bytes()
    assert m.close() == 0
    lines = m.stderr().decode().splitlines()
    sent = [line for line in lines if re.search(r"> READ_PROCARGS tag \d+ pid \d+", line)]
    got = [line for line in lines if re.search(r"< READ_OK tag \d+ pid \d+", line)]
    assert len(sent) == 1 and f"pid {victim.pid}" in sent[0]
    tag = re.search(r"tag (\d+)", sent[0])[1]
    assert any(f"tag {tag} pid {victim.pid}" in line for line in got)


def test_a_terminal_and_tcp_are_links_too(world: HostWorld) -> None:
    victim = world.victim("argv")
    for option in ["--pty"], ["--tcp", "0"]:
        guest = subprocess.Popen([world.fake_guest, *option], stdout=subprocess.PIPE, text=True)
        try:
            address = guest.stdout.readline().strip()
            for _ in range(2):  # connects again, too
                with Mount(world.daemon, address) as m:
                    shown = (m.mnt / "pid" / str(victim.pid) / "cmdline").read_bytes()
                    assert shown == world.proc(victim.pid, "cmdline")
                    m.check()
        finally:
            guest.kill()
            guest.wait()
            guest.stdout.close()
