#!/bin/sh
# SPDX-License-Identifier: MIT
#
# All tests, from a fresh Debian machine on:
#
#   sh tests/run.sh [--quick | --matrix[=NAME,...] | --distro] [--long]
#
# Installs what is missing, builds with sanitizers, and runs
#   - the module's build with W=1 and sparse,
#   - unit tests (tests/unit, tests/fuzz),
#   - mount tests over a fake guest, which plays this host (tests/mount),
#   - the same files over a real guest in QEMU, and those of the module (tests/vm),
#   - some of these on two machines of other architectures,
#   - docs/quickstart.sh.
#   --quick  leave out all that boots a guest
#   --matrix  instead: the tests over real guests on all machines of tests/vm/machines.py, or on
#             some; consoles, and why tests were skipped, stay in build-dev/matrix
#   --distro  instead: tests/distro, a Debian machine with systemd, udev and dkms, which is made of
#             packages the first time
#   --long   run what takes long for longer
# The last line says how many passed, failed and were skipped; why one was skipped is said
# above it.  The exit status is 0 only if none failed.
set -u

quick= long= matrix= distro= machines="mipsel-6.1 s390x-6.1"
for arg; do
    case $arg in
    --quick) quick=1 ;;
    --matrix) matrix=1 machines= ;;
    --matrix=*) matrix=1 machines=$(echo "${arg#*=}" | tr , ' ') ;;
    --long) long=--long ;;
    --distro) distro=1 ;;
    *) sed -n '4,22s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

top=$(cd "$(dirname "$0")/.." && pwd) || exit 1
cd "$top" || exit 1
. tests/vm/lib.sh
build=$top/build-dev
results=$(mktemp -d "${TMPDIR:-/tmp}/hypermemfs-results.XXXXXX") || exit 1
trap 'rm -rf "$results"' EXIT

# Run a command as a test of its own, for those that count none themselves.
single() {
    name=$1 start=$(date +%s)
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    timeout 900 "$@"
    status=$?
    failure=
    [ $status = 0 ] || failure="<failure message=\"exit status $status\"/>"
    printf '<testsuite><testcase name="%s" time="%s">%s</testcase></testsuite>\n' \
        "$name" $(($(date +%s) - start)) "$failure" >"$results/$name.xml"
    return $status
}

tests_of() {
    suite=$1
    shift
    printf '\n== %s\n' "$suite"
    timeout 2400 /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider $long \
        --junitxml="$results/$suite.xml" -o junit_suite_name="$suite" "$@"
    # 1: some have failed, and the file says which; anything else is a failure of its own.
    status=$?
    case $status in
    0 | 1) ;;
    *) single "$suite-run" sh -c "echo pytest ended with $status >&2; exit 1" ;;
    esac
}

# The tests on the machines "$machines"; with --some, a part of them.
on_machines() {
    printf '\n== machines\n'
    /usr/bin/python3 tests/vm/matrix.py $long "$@" --junit "$results" "$build/matrix" $machines
}

printf '== packages\n'
lab_packages gcc libc6-dev make pkgconf meson ninja-build libfuse3-dev libglib2.0-dev zlib1g-dev \
    libcmocka-dev fuse3 python3 python3-pytest sparse linux-headers-amd64 qemu-system-x86 \
    busybox-static cpio xz-utils kmod procps xxd util-linux mandoc python3-pip python3-setuptools \
    python3-wheel mypy
# For a guest's process of 32 bits.
lab_packages libc6-dev-i386 "lib32gcc-$(gcc -dumpversion | cut -d. -f1)-dev"
[ -c /dev/fuse ] || lab_as_root modprobe fuse || lab_die "no /dev/fuse: mounting needs FUSE in the kernel"

[ -e "$build/build.ninja" ] || single setup meson setup "$build" --native-file tests/dev.ini
if [ "$matrix" ]; then
    if single build ninja -C "$build"; then on_machines; fi
elif [ "$distro" ]; then
    single build ninja -C "$build" && single distro-image sh tests/distro/image.sh &&
        tests_of distro tests/distro
elif single build ninja -C "$build" && single module make -s -C guest check KDIR="$(lab_headers)"; then
    printf '\n== unit\n'
    log=$build/meson-logs/testlog.junit.xml
    rm -f "$log"
    timeout 600 meson test -C "$build" --no-rebuild --print-errorlogs
    [ -s "$log" ] || single unit-run sh -c "echo meson test has left no $log >&2; exit 1"
    [ ! -s "$log" ] || cp "$log" "$results/unit.xml"
    tests_of mount-fake tests/mount --backend=fake
    if [ ! "$quick" ]; then
        tests_of mount-vm tests/mount --backend=vm
        tests_of vm tests/vm --backend=vm
        on_machines --some
        single quickstart sh docs/quickstart.sh
    fi
fi

/usr/bin/python3 tests/sum_results.py "$results"/*.xml
