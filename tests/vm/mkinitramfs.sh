#!/bin/sh
# SPDX-License-Identifier: MIT
# Make the lab guest's initramfs: mkinitramfs.sh OUT KERNEL_DIR [SRC=DEST]...
# KERNEL_DIR is what lab_kernel (lib.sh) prints.  The module under test is just another file:
#   mkinitramfs.sh /tmp/initrd "$kernel" guest/hypermem.ko=/hypermem.ko
# A SRC that ends in .c is compiled.  For another architecture, CC and BUSYBOX are set.
# The same input gives the same bytes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1 kernel=$2
shift 2

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
root=$tmp/root
umask 022
mkdir -p "$root/bin" "$root/dev" "$root/etc" "$root/modules" "$root/proc" "$root/root" \
    "$root/run" "$root/sys" "$root/tmp"
cp "${BUSYBOX:-$(command -v busybox)}" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$kernel"/modules/* "$root/modules/"
cp "$here/init" "$root/init"
chmod 755 "$root/init"
printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\n' >"$root/etc/group"

compile() {
    # At the same address on every architecture.
    ${CC:-cc} -D_GNU_SOURCE -static -no-pie -Wl,-Ttext-segment=0x400000 -O1 -Wall -Wextra -Wno-unused-parameter \
        -pthread -o "$2" "$1"
}

set -- "$here/agent.c=/bin/agent" "$here/victim.c=/bin/victim" "$here/slowfs.c=/bin/slowfs" "$@"
pids=
for file; do
    src=${file%%=*} dest=$root/${file#*=}
    mkdir -p "$(dirname "$dest")"
    case $src in
    *.c) compile "$src" "$dest" & pids="$pids $!" ;;
    *) cp "$src" "$dest" ;;
    esac
done
for pid in $pids; do wait "$pid"; done

find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible) |
    gzip -1n >"$tmp/out"
mv "$tmp/out" "$out"
