#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The benchmark, from a fresh Debian machine on:
#
#   sh tests/bench/run.sh [--json FILE] [--plot [DIR]] [--quick] [--smp N] [--max-ports N] [--only NAME,...]
#
# Installs what is missing, builds a release in build-bench, boots one guest, measures
# hypermemfs, the floors and the peers side by side in it, and prints a table.
#   --json FILE      every number with its samples
#   --plot [DIR]     throughput.svg and processes.svg, by default in docs
#   --quick          fewer rounds, shorter waits: to see that it works
#   --smp N          processors of the guest (1)
#   --max-ports N    ports of the controller (31, as QEMU makes it)
#   --only NAME,...  these rows; --only help lists them
# The exit status is 0 if all was measured, whether or not the bars are met.
set -u

top=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
. "$top/tests/vm/lib.sh"
build=$top/build-bench here=$top/tests/bench

case " $* " in
*' --help '* | *' -h '*) sed -n '4,17s/^# \{0,1\}//p' "$0"; exit 0 ;;
*' --plot '* | *' --plot='*) gnuplot=gnuplot-nox ;;
*) gnuplot= ;;
esac

progress() {
    [ -t 2 ] && printf '%s\n' "$*" >&2
    true
}

# What it says is only worth reading if it fails.
quietly() {
    timeout 900 "$@" >>"$build/log" 2>&1 ||
        { tail -n 30 "$build/log" >&2; lab_die "failed: $* (all it said: $build/log)"; }
}

program() {
    quietly cc -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 -Wall -Wextra -Wno-unused-parameter \
        -I"$top" -pthread -o "$build/bench/$1" "$here/$1.c" ${2-}
}

# A module from a copy of guest/: others may be building there.
module() {
    mkdir -p "$build/modules/$1"
    rm -f "$build/modules/$1"/*.[ch]
    cp -pR "$top"/guest/*.[ch] "$top"/guest/*.sh "$top/guest/Kbuild" "$top/guest/Makefile" \
        "$top/guest/uapi" "$build/modules/$1/" || exit 1
    [ ! -d "$here/$1" ] || cp -p "$here/$1"/* "$build/modules/$1/" || exit 1
    quietly make -C "$build/modules/$1" KDIR="$headers"
}

progress 'packages'
lab_packages gcc libc6-dev make pkgconf meson ninja-build libfuse3-dev libglib2.0-dev fuse3 \
    python3 linux-headers-amd64 qemu-system-x86 qemu-guest-agent busybox-static cpio xz-utils \
    kmod util-linux $gnuplot
[ -c /dev/fuse ] || lab_as_root modprobe fuse || lab_die "no /dev/fuse: mounting needs FUSE in the kernel"
headers=$(lab_headers) || exit 1

progress 'build'
mkdir -p "$build/bench"
: >"$build/log"
[ -e "$build/build.ninja" ] ||
    quietly meson setup "$build" "$top" --buildtype=release -Dtests=false
quietly ninja -C "$build" fs/hypermemfs
for name in pread memcpy stopwatch crowd call; do
    program $name -static
done
program link_client
program hook_client
program fuse_floor "$(pkg-config --cflags --libs fuse3 glib-2.0)"
module guest
module echo
module count

exec /usr/bin/python3 "$here/bench.py" --build "$build" "$@"
