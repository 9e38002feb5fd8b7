# SPDX-License-Identifier: MIT
"""The module is built by whoever has a guest: what goes wrong is said in a line."""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab import headers

pytestmark = [pytest.mark.vm("is about the module"), pytest.mark.needs("headers")]

GUEST = Path(__file__).resolve().parents[2] / "guest"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder, copied elsewhere as a user would."""
    files = subprocess.run(["git", "-C", GUEST, "ls-files", "-co", "--exclude-standard"],
                           capture_output=True, text=True).stdout.split()
    if not files:  # not in a git tree
        files = [str(f.relative_to(GUEST)) for f in GUEST.rglob("*.[chs]*") if ".mod" not in f.name]
        files += ["Kbuild", "Makefile"]
    for file in files:
        (tmp_path / "guest" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GUEST / file, tmp_path / "guest" / file)
    return tmp_path / "guest"


def refused(source: Path, *args: str, path: str | None = None) -> str:
    """The line that says why nothing is built."""
    env = {**os.environ, "PATH": path} if path else None
    done = subprocess.run([shutil.which("make"), "-s", "-C", source, *args], timeout=60, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("hypermem: ") and lines[1].startswith("make: *** ")
    assert done.stdout == ""
    return lines[0]


@pytest.fixture
def kdir(tmp_path: Path) -> Path:
    """What looks like a kernel's build directory: of another architecture than any compiler."""
    path = tmp_path / "kdir"
    (path / "include/generated").mkdir(parents=True)
    (path / "include/generated/autoconf.h").touch()
    (path / "Makefile").touch()
    (path / ".config").write_text(
        '#\n# Automatically generated file; DO NOT EDIT.\n# Linux/pdp11 6.1 Kernel Configuration\n#\n'
        'CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14) 12.2.0"\n')
    return path


def test_it_builds_where_it_was_copied_to(source: Path) -> None:
    subprocess.run(["make", "-s", "-C", source, f"KDIR={headers()}"], check=True, timeout=300,
                   stderr=subprocess.DEVNULL)
    assert (source / "hypermem.ko").exists()


def test_where_hooks_have_not_been_run_it_builds_without(source: Path) -> None:
    subprocess.run(["make", "-s", "-C", source, f"KDIR={headers()}", "CONFIG_X86=",
                    "KCFLAGS=-Werror"], check=True, timeout=300, stderr=subprocess.DEVNULL)
    module = (source / "hypermem.ko").read_bytes()
    assert b"hypermem_translate" in module and b"hypermem_hook_set" not in module


@pytest.mark.parametrize("name", ["echo", "count"])
def test_the_benchmarks_modules_build_in_a_copy(source: Path, name: str) -> None:
    shutil.copytree(GUEST.parent / "tests/bench" / name, source, dirs_exist_ok=True)
    subprocess.run(["make", "-s", "-C", source, f"KDIR={headers()}"], check=True, timeout=300,
                   stderr=subprocess.DEVNULL)
    assert (source / f"hypermem_{name}.ko").exists()


def test_a_kernel_whose_headers_are_not_there(source: Path) -> None:
    said = refused(source, "KDIR=/nowhere")
    assert "KDIR=/nowhere: there is no such directory; install the headers" in said
    assert "make -C guest KDIR=" in said
    if not Path(f"/lib/modules/{os.uname().release}/build").exists():
        assert f"/lib/modules/{os.uname().release}/build: there is no such" in refused(source)


def test_a_directory_that_is_no_kernels(source: Path, tmp_path: Path) -> None:
    assert "not a kernel's build directory; install" in refused(source, f"KDIR={tmp_path}")


def test_a_kernel_that_was_not_prepared(source: Path, kdir: Path) -> None:
    (kdir / "include/generated/autoconf.h").unlink()
    assert "is not configured; run there: make" in refused(source, f"KDIR={kdir}")


def test_a_compiler_that_is_missing(source: Path, kdir: Path, tmp_path: Path) -> None:
    assert "the compiler nocc is missing (the kernel in" in refused(
        source, f"KDIR={kdir}", "CC=nocc")
    assert "the compiler pdp11-gcc is missing" in refused(
        source, f"KDIR={kdir}", "CROSS_COMPILE=pdp11-")
    (tmp_path / "bin").mkdir()
    for tool in "sh", "sed", "grep", "uname", "make":
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    said = refused(source, f"KDIR={headers()}", path=str(tmp_path / "bin"))
    assert "is missing" in said and "the compiler gcc-" in said
    assert "install it or name another: make -C guest KDIR=" in said


def test_a_kernel_for_another_architecture(source: Path, kdir: Path) -> None:
    said = refused(source, f"KDIR={kdir}")
    machine = subprocess.run(["gcc", "-dumpmachine"], stdout=subprocess.PIPE, text=True).stdout
    assert f"is for pdp11, but gcc compiles for {machine.partition('-')[0]}; " in said
    assert f"KDIR={kdir} ARCH=pdp11 CROSS_COMPILE=" in said
