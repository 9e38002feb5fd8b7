# SPDX-License-Identifier: MIT
"""What a machine of the table is made of: its kernel, busybox, the module, an initramfs.

Debian's packages are fetched with a configuration of apt's of their own and unpacked, never
installed, so that other suites and architectures leave this system alone.  All of it stays in
the cache (lib.sh: lab_cache); to have newer packages, remove it.

A suite that is not this system's has its modules built in a chroot of that suite: programs of
its kbuild want its libc, and its kernels' headers its compiler.
"""
from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from machines import Debian, Host, Machine, Made

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

Bytes = str | bytes | os.PathLike


class KitError(Exception):
    """Something of the machine cannot be had."""


def shell(script: str, *args: Bytes) -> str:
    """Run a line with lib.sh's functions; what it prints."""
    done = subprocess.run(["sh", "-c", f'. "$0/lib.sh"; {script}', HERE, *args],
                          stdout=subprocess.PIPE, text=True, timeout=3600)
    if done.returncode:
        raise KitError(f"{script.split()[0]} failed")
    return done.stdout.strip()


def cache() -> Path:
    path = Path(shell('printf %s "$lab_cache"'))
    path.mkdir(parents=True, exist_ok=True)
    return path


def need(*packages: str) -> None:
    """Have packages of this system's own."""
    shell('lab_packages "$@"', *packages)


def run(*argv: Bytes, **options) -> str:
    """A program that must succeed; what it prints."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=1800, **options)
    if done.returncode:
        words = " ".join(os.fsdecode(word) for word in argv)
        raise KitError(f"{words}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


@contextlib.contextmanager
def made(path: Path) -> Iterator[Path | None]:
    """A directory in the cache that one process makes, whole or not at all: where to, or None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / f".{path.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        print(f"making {path}", file=sys.stderr)
        tmp = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            tmp.chmod(0o755)
            yield tmp
            tmp.rename(path)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)


# Packages.


def _mirrors(suite: str) -> list[str]:
    """Lines of a sources.list, with the mirrors that this system has."""
    def said() -> dict[str, str]:
        lines = run("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
                    "Created-By: Packages").splitlines()
        return {label: uri for origin, label, uri in (line.split("|") for line in lines)
                if origin == "Debian"}

    uris = said()
    if "Debian" not in uris:
        shell("lab_apt update")
        uris = said()
    if "Debian" not in uris:
        raise KitError("apt's sources here have no archive of Debian's")
    names = [("Debian", suite)]
    if suite != "sid":
        names.append(("Debian-Security", f"{suite}-security"))
    return [f"deb [signed-by={KEYRING}] {uris[label]} {name} main" for label, name in names
            if label in uris]


class Apt:
    """Packages of a suite for an architecture, and of the same suite for this system's."""

    def __init__(self, suite: str, arch: str) -> None:
        self.dir = cache() / "apt" / f"{suite}-{arch}"
        self.suite, self.arch = suite, arch
        self.native = run("dpkg", "--print-architecture").strip()
        with made(self.dir) as tmp:
            if tmp:
                self._configure(tmp)
        self._env = {**os.environ, "APT_CONFIG": str(self.dir / "apt.conf")}

    def _configure(self, tmp: Path) -> None:
        (tmp / "lists/partial").mkdir(parents=True)
        (tmp / "archives/partial").mkdir(parents=True)
        (tmp / "sources.list").write_text("\n".join(_mirrors(self.suite)) + "\n")
        (tmp / "apt.conf").write_text(f"""
            Dir::State::Lists "{self.dir}/lists";
            Dir::State::status "/dev/null";
            Dir::Cache "{self.dir}";
            Dir::Cache::Archives "{self.dir}/archives";
            Dir::Etc::SourceList "{self.dir}/sources.list";
            Dir::Etc::SourceParts "-";
            APT::Architecture "{self.arch}";
            APT::Architectures {{ "{self.arch}"; "{self.native}"; }};
            APT::Sandbox::User "root";
            Acquire::Check-Valid-Until "false";
            Acquire::Languages "none";
            Acquire::Retries "3";
        """)

    def update(self) -> None:
        # A list that fails is an archive's that is being changed; what it has may not be needed.
        subprocess.run(["apt-get", "-qq", "update"], env=self._env, stdout=sys.stderr, timeout=600)

    def depends(self, package: str) -> list[str]:
        """The packages that it is for, by its first alternatives."""
        text = run("apt-cache", "show", "--no-all-versions", f"{package}:{self.arch}",
                   env=self._env)
        found = re.search(r"^Depends: (.*)$", text, re.M)
        words = found[1].split(",") if found else []
        return [word.split("|")[0].split("(")[0].strip() for word in words]

    def releases(self, source: Debian) -> list[str]:
        """The kernel's, the newest first."""
        names = run("apt-cache", "search", "--names-only",
                    rf"^linux-headers-{re.escape(source.version)}[.0-9a-z+~]*(-[0-9]+)?-"
                    rf"{source.flavour}$", env=self._env).splitlines()
        found = {name.split()[0].split(":")[0].removeprefix("linux-headers-") for name in names}
        return sorted(found, key=lambda r: [int(n) for n in re.findall(r"\d+", r)], reverse=True)

    def fetch(self, out: Path, *packages: str) -> list[Path]:
        out.mkdir(exist_ok=True)
        before = set(out.glob("*.deb"))
        run("apt-get", "-qq", "download", *packages, env=self._env, cwd=out)
        return sorted(set(out.glob("*.deb")) - before)

    def unpack(self, root: Path, *packages: str) -> None:
        with tempfile.TemporaryDirectory(dir=self.dir) as tmp:
            for deb in self.fetch(Path(tmp), *packages):
                # Not dpkg-deb -x: in a chroot, /lib is a link to stay.
                shell('mkdir -p "$2" && dpkg-deb --fsys-tarfile "$1" | '
                      'tar -x --keep-directory-symlink -C "$2"', deb, root)


# Suites.


def _here(suite: str) -> bool:
    text = Path("/etc/os-release").read_text()
    return f"VERSION_CODENAME={suite}\n" in text


def chroot(suite: str) -> Path:
    """A system of that suite, for its compilers."""
    root = cache() / "chroot" / suite
    with made(root) as tmp:
        if tmp:
            need("debootstrap", "util-linux")
            mirror = _mirrors(suite)[0].split()[2]
            shell('lab_as_root debootstrap --variant=minbase --keyring="$1" '
                  '--include=make,perl "$2" "$3" "$4" >&2', KEYRING, suite, tmp, mirror)
            (tmp / "etc/apt/sources.list").write_text("\n".join(_mirrors(suite)) + "\n")
            inside(tmp, "apt-get", "-qq", "-o", "Acquire::Check-Valid-Until=false", "update")
    return root


def inside(root: Path, *argv: str) -> str:
    """Run a program in a chroot, with a /proc that goes with it: objtool, for one, asks it."""
    script = (f'. {HERE}/lib.sh && lab_forget_mounts && mount -t proc proc "$0/proc" && '
              'exec chroot "$0" "$@"')
    return run(*([] if os.getuid() == 0 else ["sudo"]), "unshare", "--mount", "sh", "-c", script,
               root, "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
               "DEBIAN_FRONTEND=noninteractive", *argv)


def _install(root: Path, *packages: str) -> None:
    listed = inside(root, "dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n")
    have = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    if missing := [p for p in packages if p not in have]:
        print(f"installing {' '.join(missing)} in {root}", file=sys.stderr)
        inside(root, "apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing)


# Kernels.


def kernel(machine: Machine) -> Path:
    """The directory with its kernel, those of the kernel's modules that matter, and busybox."""
    if isinstance(machine.kernel, Host):
        return Path(shell("lab_kernel"))
    if isinstance(machine.kernel, Made):
        return Path(shell('"$0/$1" "$2"', machine.kernel.program, machine.kernel.which))
    path = cache() / "machines" / machine.name
    with made(path) as tmp:
        if tmp:
            _fetch(machine, machine.kernel, tmp)
    return path


def _fetch(machine: Machine, source: Debian, out: Path) -> None:
    need("kmod", "xz-utils", "zstd", "debian-archive-keyring")
    apt = Apt(source.suite, machine.arch)
    apt.update()
    if apt.arch != apt.native:  # else this system's is as good, and perhaps newer
        apt.unpack(out / "tools", f"busybox-static:{machine.arch}")
        shutil.copy(next((out / "tools").glob("**/bin/busybox")), out / "busybox")
        shutil.rmtree(out / "tools")
    releases = apt.releases(source)
    if not releases:
        raise KitError(f"{source.suite} has no linux-headers-{source.version}.*-{source.flavour}")
    for release in releases:
        try:
            _fetch_image(apt, machine, release, out)
            return _fetch_headers(apt, machine, release)
        except KitError as error:
            # A mirror that is being changed lists what has gone; the release before may be there.
            print(error, file=sys.stderr)
            why = error
    raise why


def _fetch_image(apt: Apt, machine: Machine, release: str, out: Path) -> None:
    image = f"linux-image-{release}"
    parts = [p for p in apt.depends(image) if re.match(r"linux-(base|binary|modules)-\d", p)]
    apt.unpack(out / "root", *(f"{p}:{machine.arch}" for p in (image, *parts)))
    shell('lab_pick "$1" "$2"', out / "root", out)
    shutil.rmtree(out / "root")
    (out / "release").write_text(release + "\n")


def _fetch_headers(apt: Apt, machine: Machine, release: str) -> None:
    """Where modules are built: this system, or a chroot, with all that the headers name."""
    others = [p for p in apt.depends(f"linux-headers-{release}")
              if re.match(r"linux-(headers|kbuild)-\d", p)]
    if _here(apt.suite):
        root = cache() / "headers"
        root.mkdir(exist_ok=True)
        wanted = [f"linux-headers-{release}:{machine.arch}",
                  *(p if "common" in p else f"{p}:{apt.native}" for p in others)]
        apt.unpack(root, *wanted)
        build = root / "usr/src" / f"linux-headers-{release}"
        text = (build / "Makefile").read_text()
        (build / "Makefile").write_text(re.sub(r"(?m)^include /usr", f"include {root}/usr", text))
        return
    root = chroot(apt.suite)
    apt.unpack(root, f"linux-headers-{release}:{machine.arch}")
    _install(root, *others, *(p for p in machine.packages if p.startswith(("gcc", "libc6"))))


def headers(machine: Machine) -> Path:
    """The directory to build its modules in (KDIR), in this system or in the suite's chroot."""
    if isinstance(machine.kernel, Host):
        return Path(shell("lab_headers"))
    if "modules" not in machine.features:
        raise KitError(f"the kernel of {machine.name} can load no modules")
    if isinstance(machine.kernel, Made):
        return kernel(machine) / "build"
    release = (kernel(machine) / "release").read_text().strip()
    root = cache() / "headers" if _here(machine.kernel.suite) else Path("/")
    return root / "usr/src" / f"linux-headers-{release}"


def module(machine: Machine, directory: Path) -> Path:
    """Build guest/ for it, in a copy in `directory`; hypermem.ko."""
    if isinstance(machine.kernel, Debian) and not _here(machine.kernel.suite):
        return _make_inside(machine, directory, headers(machine))
    return _make(machine, directory, headers(machine))


def _sources(out: Path) -> None:
    """Copy guest/ without what has been built there: what has not changed keeps its time."""
    guest = TOP / "guest"
    names = {path.relative_to(guest) for pattern in ("*.[ch]", "*.sh", "Kbuild", "Makefile")
             for path in guest.rglob(pattern) if ".mod." not in path.name}
    for name in names:
        copy = out / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_bytes() != (guest / name).read_bytes():
            shutil.copy(guest / name, copy)
    for path in out.rglob("*.[ch]"):
        if path.relative_to(out) not in names and ".mod." not in path.name:
            path.unlink()


def _arguments(machine: Machine, headers: Path) -> list[str]:
    return ["make", "-s", f"KDIR={headers}", "W=1", "KCFLAGS=-Werror",
            *([f"CROSS_COMPILE={machine.cross}"] if machine.cross else [])]


def _make(machine: Machine, directory: Path, headers: Path) -> Path:
    need("make", "perl", *machine.packages)
    # Objects name the kernel's headers by paths within it: those of another would be taken for new.
    built_for = directory / "headers"
    if not built_for.exists() or built_for.read_text() != str(headers):
        shutil.rmtree(directory / "guest", ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        built_for.write_text(str(headers))
    _sources(directory / "guest")
    run(*_arguments(machine, headers), "-C", directory / "guest")
    return directory / "guest/hypermem.ko"


def _make_inside(machine: Machine, directory: Path, headers: Path) -> Path:
    assert isinstance(machine.kernel, Debian)
    root = chroot(machine.kernel.suite)
    inner = Path("build") / re.sub(r"[^\w.]+", "-", str(directory.resolve())).strip("-")
    _sources(root / inner)
    inside(root, *_arguments(machine, headers), "-C", f"/{inner}")
    directory.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(root / inner / "hypermem.ko", directory / "hypermem.ko"))


# Initramfs.


def initramfs(machine: Machine, out: Path, files: Mapping[Bytes, str],
              kernel_dir: Path | None = None) -> Path:
    """Make the initramfs `out`, with host files at paths of the guest; C files are compiled."""
    need("cpio", *machine.packages)
    kernel_dir = kernel_dir or kernel(machine)
    env = {**os.environ, "CC": f"{machine.cross}gcc {machine.cflags}".strip()}
    if (kernel_dir / "busybox").exists():
        env["BUSYBOX"] = str(kernel_dir / "busybox")
    else:
        need("busybox-static")
    pairs: Sequence[bytes] = [os.fsencode(src) + b"=" + dest.encode()
                              for src, dest in files.items()]
    subprocess.run([HERE / "mkinitramfs.sh", out, kernel_dir, *pairs], check=True, timeout=300,
                   env=env)
    return out
