# SPDX-License-Identifier: MIT
"""What is not a guest, and what cannot be mounted on: a line with the path, the cause and the remedy."""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_daemon import CHARDEV, GUEST, MOUNT, mnt, refused  # noqa: F401
from world import FakeGuest, Mount, World, host, wait_for

pytestmark = pytest.mark.fake("the daemon is the same with any guest")

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
FAILED = 1


def in_time(world: World, *args: object, rc: int) -> str:
    """As refused(), after a second."""
    return refused(world, "-o", "timeout=1", *args, rc=rc)


# Something else listens there.


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory with the monitors of a QEMU that has no machine."""
    path = tmp_path_factory.mktemp("qemu")
    with subprocess.Popen(
            ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-S",
             "-qmp", f"unix:{path}/qmp,server=on,wait=off",
             "-monitor", f"unix:{path}/hmp,server=on,wait=off"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: (path / "hmp").exists())
            yield path
        finally:
            process.kill()


def test_a_qmp_monitor_is_told_from_a_guest_and_goes_on(world: World, mnt: Path,  # noqa: F811
                                                        qemu: Path) -> None:
    for address in qemu / "qmp", f"unix:{qemu}/qmp", f"serial:{qemu}/qmp":
        line = in_time(world, address, mnt, rc=GUEST)
        assert f'{qemu}/qmp: what talks there is not hypermem.ko, it says "{{"QMP": ' in line
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rw") as qmp:
        sock.settimeout(10)
        sock.connect(str(qemu / "qmp"))
        assert "QMP" in json.loads(qmp.readline())
        for command in "qmp_capabilities", "query-status":
            qmp.write(json.dumps({"execute": command}) + "\n")
            qmp.flush()
            answer = json.loads(qmp.readline())
        assert answer["return"]["status"] == "prelaunch"


def test_a_human_monitor_is_told_from_a_guest(world: World, mnt: Path,  # noqa: F811
                                              qemu: Path) -> None:
    line = in_time(world, qemu / "hmp", mnt, rc=GUEST)
    assert "it says \"QEMU " in line
    assert "give the chardev of the port org.hypermem.*, not a monitor's, console's" in line


@contextlib.contextmanager
def server(path: Path, greeting: bytes, answer: bytes = b"") -> Iterator[Path]:
    """Says `greeting` to who connects, and `answer` to what it is told."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with sock.accept()[0] as peer:
                        peer.sendall(greeting)
                        while peer.recv(4096):
                            peer.sendall(answer)
        threading.Thread(target=serve, daemon=True).start()
        yield path
        sock.shutdown(socket.SHUT_RDWR)


TALKERS = {
    "a console": (b"", b"\r\nlocalhost login: ", "localhost login:"),
    "a boot": (b"[    0.000000] Linux version 6.1.0\r\n", b"", "Linux version 6.1.0"),
    "an agent": (b"", b'{"error": {"class": "GenericError", "desc": "bad JSON"}}\n', "GenericError"),
    "a shell": (b"\x1b[1mroot@guest:~#\x1b[0m ", b"", "root@guest:~#"),
}


@pytest.mark.parametrize("who", TALKERS)
def test_what_talks_there_is_quoted(world: World, mnt: Path, tmp_path: Path,  # noqa: F811
                                    who: str) -> None:
    greeting, answer, quoted = TALKERS[who]
    with server(tmp_path / "sock", greeting, answer) as path:
        line = in_time(world, path, mnt, rc=GUEST)
        assert "what talks there is not hypermem.ko, it says " in line and quoted in line
        assert line.isprintable() or line.rstrip("\n").isprintable()
        line = in_time(world, f"serial:{path}", mnt, rc=GUEST)
        assert quoted in line and "is hypermem.ko loaded in the guest with tty=" in line


@pytest.mark.parametrize("said", [b"", b"short", bytes(100), b"\xff" * 10000], ids=repr)
def test_what_is_no_text_is_not_quoted(world: World, mnt: Path, tmp_path: Path,  # noqa: F811
                                       said: bytes) -> None:
    with server(tmp_path / "sock", said) as path:
        line = in_time(world, path, mnt, rc=GUEST)
        assert "nobody answers within 1 s; is hypermem.ko loaded in the guest" in line


def test_a_socket_that_takes_nobody(world: World, mnt: Path, tmp_path: Path) -> None:  # noqa: F811
    """Its backlog is full: connecting itself waits."""
    with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as stack:
        sock.bind(str(tmp_path / "sock"))
        sock.listen(0)
        for _ in range(3):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.connect(str(tmp_path / "sock"))
        assert "nobody answers within 1 s" in in_time(world, tmp_path / "sock", mnt, rc=GUEST)


def test_a_chardev_that_is_taken(world: World, mnt: Path) -> None:  # noqa: F811
    line = in_time(world, world.chardev, mnt, rc=GUEST)
    assert "nobody else connected to this chardev?" in line


def test_a_socket_of_another_kind(world: World, mnt: Path, tmp_path: Path) -> None:  # noqa: F811
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "sock"))
        line = in_time(world, tmp_path / "sock", mnt, rc=CHARDEV)
        assert "neither a Unix socket to connect to nor" in line
        assert "give the path= of QEMU's -chardev" in line


def test_a_fifo_does_not_hold_it_up(world: World, mnt: Path, tmp_path: Path) -> None:  # noqa: F811
    os.mkfifo(tmp_path / "fifo")
    assert "neither" in in_time(world, tmp_path / "fifo", mnt, rc=CHARDEV)


def test_a_device_that_says_nothing_of_use(world: World, mnt: Path) -> None:  # noqa: F811
    assert "/dev/zero: nobody answers" in in_time(world, "/dev/zero", mnt, rc=GUEST)


# As somebody else than root, who may do anything.


@pytest.fixture
def open_dir(world: World) -> Iterator[Path]:
    """A directory that others may enter, with the daemon in it, which they may execute."""
    with contextlib.ExitStack() as stack:
        path = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
        stack.callback(shutil.rmtree, path)
        path.chmod(0o755)
        shutil.copy(world.daemon, path / "hypermemfs")
        (path / "mine").mkdir()
        os.chown(path / "mine", 65534, 65534)
        (path / "roots").mkdir()
        (path / "closed" / "inside").mkdir(parents=True)
        (path / "closed").chmod(0o700)
        yield path
        subprocess.run(["fusermount3", "-u", "-q", "-z", path / "mine"], stderr=subprocess.DEVNULL)


def as_nobody(directory: Path, *args: object, rc: int, dev: str = "") -> str:
    """The line; `dev` is what becomes of /dev before, for the daemon alone."""
    command = f"{dev}\nexec \"$@\""
    done = host(["unshare", "-m", "sh", "-e", "-c", command, "sh", *NOBODY,
                 directory / "hypermemfs", "-o", "timeout=1", *map(os.fspath, args)])
    assert done.rc == rc, done
    assert done.err.count(b"\n") == 1, done.err.decode()
    assert done.err.startswith(b"hypermemfs: ")
    return done.err.decode()


@pytest.fixture
def fake_open(fake: FakeGuest) -> FakeGuest:  # noqa: F811
    """A guest whose socket others may use."""
    fake.dir.chmod(0o755)
    fake.socket.chmod(0o777)
    return fake


root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@root
def test_a_socket_without_permission(open_dir: Path, fake_open: FakeGuest) -> None:
    fake_open.socket.chmod(0o600)
    line = as_nobody(open_dir, fake_open.socket, open_dir / "mine", rc=CHARDEV)
    assert f"{fake_open.socket}: no permission; run hypermemfs as the user that QEMU" in line
    fake_open.socket.chmod(0o777)
    fake_open.dir.chmod(0o700)
    line = as_nobody(open_dir, fake_open.socket, open_dir / "mine", rc=CHARDEV)
    assert "no permission; run hypermemfs as the user that QEMU runs as" in line


@root
def test_a_mount_point_without_permission(open_dir: Path, fake_open: FakeGuest) -> None:
    line = as_nobody(open_dir, fake_open.socket, open_dir / "roots", rc=MOUNT)
    assert "/roots: no permission; give a directory that you may write to" in line
    line = as_nobody(open_dir, fake_open.socket, open_dir / "closed/inside", rc=MOUNT)
    assert "/closed/inside: Permission denied" in line


@root
def test_what_fusermount_says_is_in_the_line(open_dir: Path, fake_open: FakeGuest) -> None:
    if "\nuser_allow_other" in "\n" + Path("/etc/fuse.conf").read_text():
        pytest.skip("/etc/fuse.conf allows it")
    line = as_nobody(open_dir, "-o", "allow_other", fake_open.socket, open_dir / "mine", rc=MOUNT)
    assert "/mine: option allow_other only allowed if 'user_allow_other' is set in" in line


NODES = "mount -t tmpfs t /dev; mknod -m 666 /dev/null c 1 3;"
LACKS = {
    "no /dev/fuse": (NODES, MOUNT, "there is no /dev/fuse: load the kernel's module fuse"),
    "a /dev/fuse that is forbidden": (f"{NODES} mknod -m 600 /dev/fuse c 10 229", MOUNT,
                                      "there is no permission to use /dev/fuse: run"),
    "no fusermount3": ("mount --bind /etc/passwd $(command -v fusermount3)", MOUNT,
                       "fusermount3 is missing: install fuse3, or run"),
    "no /dev/null": ("mount -t tmpfs t /dev", FAILED, "cannot open /dev/null: No such file"),
}


@root
@pytest.mark.parametrize("lack", LACKS)
def test_what_mounting_needs_is_named_if_it_is_missing(open_dir: Path, fake_open: FakeGuest,
                                                       lack: str) -> None:
    dev, rc, line = LACKS[lack]
    assert line in as_nobody(open_dir, fake_open.socket, open_dir / "mine", rc=rc, dev=dev)


# A mount point that is in use.


def test_a_second_mount_of_ours_says_how_to_unmount_the_first(
        world: World, fake: FakeGuest) -> None:
    with Mount(world.daemon, fake.socket) as first:
        line = in_time(world, world.chardev, first.mnt, rc=MOUNT)
        assert f"{first.mnt} is in use: a FUSE file system is mounted there; to unmount" in line
        assert f"fusermount3 -u {first.mnt}\n" in line
        first.check()


def test_what_a_mount_point_holds_is_hidden_and_not_lost(world: World, mnt: Path,  # noqa: F811
                                                         fake: FakeGuest) -> None:
    (mnt / "precious").write_text("kept")
    with Mount(world.daemon, fake.socket, mnt=mnt):
        assert "precious" not in os.listdir(mnt)
    assert (mnt / "precious").read_text() == "kept"
