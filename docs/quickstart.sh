#!/bin/sh
# SPDX-License-Identifier: MIT
#
# From a fresh Debian machine to a guest's processes as files:
#
#   sh docs/quickstart.sh [--kvm] [--keep]
#
# Installs what is missing, builds hypermemfs and the guest's module, boots a small guest with a
# few ordinary programs in it, mounts it, and looks around in it as one would by hand.  Everything
# that is shown is also checked: the exit status is 0 only if each command gave what it should.
#   --kvm    use KVM where there is any
#   --keep   leave the guest running and mounted
set -u

kvm= keep=
for arg; do
    case $arg in
    --kvm) kvm=kvm: ;;
    --keep) keep=1 ;;
    *) sed -n '4,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

top=$(cd "$(dirname "$0")/.." && pwd) || exit 1
. "$top/tests/vm/lib.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/hypermemfs.XXXXXX") || exit 1
mnt=$work/guest log=$work/log qemu= mounted= step=start

cleanup() {
    status=$?
    trap - EXIT INT TERM HUP
    [ "$keep" ] && [ $status = 0 ] && exit 0
    if [ "$mounted" ]; then
        timeout 10 fusermount3 -u "$mnt" || timeout 10 fusermount3 -uz "$mnt"
    fi
    if [ "$qemu" ]; then
        kill "$qemu" 2>/dev/null
        wait "$qemu" 2>/dev/null
    fi
    if [ $status = 0 ]; then
        rm -rf "$work"
    else
        printf '\nFAILED: %s\nlogs: %s\n' "$step" "$work/*log" >&2
    fi
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

step() {
    step=$1
    printf '\n== %s\n' "$step"
}

# Work that takes its time: what it says goes to the log, and is shown only if it fails.
quietly() {
    timeout 900 "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "failed: $*"; }
}

# Show a command, run it in the mount, show what it says (and leave that in $out).
show() {
    printf '$ %s\n' "$1"
    out=$(cd "$mnt" && timeout 20 sh -c "$1" 2>&1 | tr '\0' ' ')
    [ "$out" ] && printf '%s\n' "$out"
}

# The last output must have a line that matches each of these patterns.
want() {
    for pattern; do
        printf '%s\n' "$out" | grep -qe "$pattern" || fail "expected above: $pattern"
    done
}

# Wait until the guest's console says so.
console() {
    n=0
    until grep -q "$1" "$work/console.log" 2>/dev/null; do
        [ $((n += 1)) -le "$2" ] ||
            { tail -n 20 "$work/console.log" >&2; fail "the guest's console never said: $1${kvm:+ (try without --kvm)}"; }
        kill -0 "$qemu" 2>/dev/null || fail "QEMU has ended"
        sleep 0.1
    done
}

step "packages"
lab_packages gcc libc6-dev make pkgconf meson ninja-build libfuse3-dev libglib2.0-dev zlib1g-dev fuse3 \
    linux-headers-amd64 qemu-system-x86 busybox-static cpio xz-utils
[ -c /dev/fuse ] || lab_as_root modprobe fuse || fail "no /dev/fuse: mounting needs FUSE in the kernel"
headers=$(lab_headers) && kernel=$(lab_kernel) || exit 1
echo "nothing more to install; the guest runs $(basename "$kernel")"

step "build"
echo "$ meson setup build && ninja -C build"
[ -e "$top/build/build.ninja" ] || quietly meson setup "$top/build" "$top" -Dtests=false
quietly ninja -C "$top/build" fs/hypermemfs
echo "$ make -C guest KDIR=$headers"
quietly make -C "$top/guest" KDIR="$headers"

step "boot a guest: two daemons, and a shell script that prints a line per second"
cat >"$work/ticker" <<'END'
#!/bin/sh
exec 3>/tmp/stash
rm /tmp/stash
message='nobody has been here'
while :; do
    echo "ticker: $message"
    sleep 1
done
END
chmod 755 "$work/ticker"
cat >"$work/lab.rc" <<'END'
syslogd
httpd -p 127.0.0.1:80 -h /tmp
API_TOKEN=swordfish-4711 /root/ticker --slowly </dev/null &
while :; do sleep 3600; done
END
mkdir "$mnt"
ln -s "$kernel/vmlinuz" "$work/vmlinuz"
quietly sh "$top/tests/vm/mkinitramfs.sh" "$work/initramfs" "$kernel" \
    "$top/guest/hypermem.ko=/hypermem.ko" "$work/ticker=/root/ticker" "$work/lab.rc=/lab.rc"
boot="qemu-system-x86_64 -machine pc,accel=${kvm}tcg -cpu max -m 512M -nodefaults -nographic \\
    -kernel vmlinuz -initrd initramfs -append 'console=ttyS0 lab.console=none' -serial file:console.log \\
    -chardev socket,id=hm,path=hm.sock,server=on,wait=off -device virtio-serial-pci \\
    -device virtserialport,chardev=hm,name=org.hypermem.0"
printf '$ %s\n' "$boot"
# A guest to keep must not be hit by a Ctrl-C here; any other dies with this script.
if [ "$keep" ]; then with=setsid; else with='setpriv --pdeathsig KILL'; fi
(cd "$work" && eval "exec $with $boot" </dev/null >qemu.log 2>&1) &
qemu=$!
console 'ticker: nobody has been here' 600
grep hypermem "$work/console.log" | tail -n 1

step "mount it"
echo "$ build/fs/hypermemfs $work/hm.sock $mnt"
timeout 60 "$top/build/fs/hypermemfs" "$work/hm.sock" "$mnt" || fail "cannot mount"
mounted=1
echo "$ cd $mnt"
show 'cat info'
want '^link: up$' "^release: $(basename "$headers" | cut -d- -f3-)\$" '^machine: x86_64$'
pid=$(cd "$mnt" && timeout 20 grep -lx ticker pid/*/comm 2>/dev/null | head -n 1 | cut -d/ -f2)

step "processes"
show 'ls pid | wc -l'
[ "$out" -gt 10 ] || fail "too few processes"
# A kernel thread has no arguments.
show 'for p in $(grep -sl . pid/*/cmdline); do p=${p%/cmdline}; echo "$p $(cat $p/comm)"; done'
want "^pid/$pid ticker\$" ' httpd$' ' syslogd$'

step "arguments and environments"
show "tr '\\0' ' ' <pid/$pid/cmdline"
want '^/bin/sh /root/ticker --slowly *$'
show "grep -slaz ^API_TOKEN= pid/*/environ"
want "^pid/$pid/environ\$"
show "grep -az ^API_TOKEN= pid/$pid/environ"
want '^API_TOKEN=swordfish-4711'

step "open files (3 has been deleted)"
show "ls -l pid/$pid/fd"
want ' 0 -> /dev/null$' ' 1 -> /dev/console$' ' 3 -> /tmp/stash (deleted)$'

step "memory: where does the script keep its message?"
show "grep heap pid/$pid/maps"
want '\[heap\]$'
start=$((0x${out%%-*})) end=${out#*-}
size=$((0x${end%% *} - start))
heap="dd status=none if=pid/$pid/mem bs=64k iflag=skip_bytes,count_bytes skip=$start count=$size"
show "$heap | grep -abo 'nobody has been here'"
want '^[0-9]*:nobody has been here$'
found=$(printf '%s\n' "$out" | cut -d: -f1)
for offset in $found; do
    show "dd status=none if=pid/$pid/mem bs=20 iflag=skip_bytes skip=$((start + offset)) count=1; echo"
    want '^nobody has been here$'
done

step "change it, and look at what the guest prints"
for offset in $found; do
    show "printf 'the host was in here' | dd status=none of=pid/$pid/mem oflag=seek_bytes seek=$((start + offset)) conv=notrunc"
    [ "$out" ] && fail "dd should be silent"
done
console 'ticker: the host was in here' 100
show "tail -n 4 $work/console.log"
want '^ticker: the host was in here'

step "leave out a system call: the sleep of a second between two lines"
show "mkdir hooks/hurry && echo 'nanosleep,clock_nanosleep comm=sleep' >hooks/hurry/filter"
[ "$out" ] && fail "a filter is taken silently"
show 'for n in $(seq 30); do
    read -r event; eval "$event"
    echo "$id skip" >hooks/hurry/reply
done <hooks/hurry/events; echo "$call of process $pid, and 29 before it"'
want '^[a-z_]*sleep of process [0-9]*, and 29 before it$'
show 'cat hooks/hurry/stats'
want '^replied: 30$' '^continued: 0$'
show 'rmdir hooks/hurry'

if [ "$keep" ]; then
    echo "$qemu" >"$work/qemu.pid"
    cat <<END

The guest goes on.  Its processes are in $mnt/pid, its console is $work/console.log.
When you have seen enough:
    fusermount3 -u $mnt; kill $qemu; rm -r $work
END
else
    step "all is well; the guest and its mount go away (--keep leaves them)"
fi
