#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Make the disk of a Debian 12 machine that has the module as docs/guests.md says:
#
#   image.sh        prints the directory with disk.img and, for each kernel that is installed
#                   on the disk, RELEASE/{vmlinuz,vmlinux,initrd}
#
# In two steps that are kept in the lab's cache.  The base is Debian as it comes from the archive;
# the image is a copy of it with the module.  dkms builds in the chroot, where that takes seconds:
# in the emulated guest it is the same commands and the same compiler, for minutes.  Then a second
# kernel is installed, whose hooks make dkms build for it, too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
. "$top/tests/vm/lib.sh"

suite=bookworm
packages="systemd-sysv udev dbus kmod procps initramfs-tools zstd openssl qemu-guest-agent
    linux-image-amd64 linux-headers-amd64 dkms gcc make"
later="linux-image-cloud-amd64 linux-headers-cloud-amd64"

if [ "$(id -u)" != 0 ]; then
    exec sudo env "HYPERMEMFS_CACHE=$lab_cache" "HOME=$HOME" sh "$0" "$@"
fi

in_root() {
    chroot "$1" env -i LC_ALL=C DEBIAN_FRONTEND=noninteractive HOME=/root \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+"http_proxy=$http_proxy"} sh -euc "$2" >&2
}

# The mounts are in a namespace of this process's own: they end with it, however it ends.
mounts() {
    mount -t proc proc "$1/proc"
    mount -t sysfs sysfs "$1/sys"
    mount --bind /dev "$1/dev"
}

# Where this machine's apt gets that suite from; nothing: debootstrap knows a place.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $suite" \
        'Component: main' | head -n 1
}

make_base() {
    eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
    export http_proxy
    debootstrap --variant=minbase $suite "$1" $(mirror) >&2
    mounts "$1"
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
    in_root "$1" "apt-get -qq install -y --no-install-recommends $(echo $packages)
        apt-get -qq clean
        apt-get -qq install -y --no-install-recommends --download-only $later"
}

# guest/ without what make has left there.
module_sources() {
    find guest -type f ! -name '.*' ! -name '*.o' ! -name '*.ko' ! -name '*.mod*' \
        ! -name modules.order ! -name Module.symvers | LC_ALL=C sort
}

# What a user does: docs/guests.md.
install_module() {
    (cd "$top" && module_sources | tar -c -T -) | tar -C "$1/root" -x
    in_root "$1" "dkms install /root/guest -k $2
        echo hypermem >/etc/modules-load.d/hypermem.conf"
    in_root "$1" "apt-get -qq install -y --no-install-recommends $later && apt-get -qq clean"
}

# What the tests need.
install_lab() {
    cp -r "$here/root/." "$1/"
    for prog in agent victim; do
        ${CC:-cc} -D_GNU_SOURCE -static -O1 -Wall -Wextra -Wno-unused-parameter -pthread \
            -o "$1/usr/bin/$prog" "$top/tests/vm/$prog.c"
    done
    echo debian >"$1/etc/hostname"
    echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$1/etc/fstab"
    rm "$1/usr/sbin/policy-rc.d"
    in_root "$1" 'systemctl -q enable agent ticker; passwd -d root'
}

make_image() {
    cp -a "$1/." "$2/root/"
    mounts "$2/root"
    release=$(cd "$2/root/boot" && ls -d vmlinuz-* | cut -d- -f2-)
    install_module "$2/root" "$release"
    install_lab "$2/root"
    umount "$2/root/proc" "$2/root/sys" "$2/root/dev"
    for image in "$2/root/boot"/vmlinuz-*; do
        release=${image##*/vmlinuz-}
        mkdir "$2/$release"
        cp "$image" "$2/$release/vmlinuz"
        cp "$2/root/boot/initrd.img-$release" "$2/$release/initrd"
        # Boots faster, see lab_kernel.
        if lab_unpack "$image" >"$2/vmlinux"; then mv "$2/vmlinux" "$2/$release/vmlinux"; fi
        rm -f "$2/vmlinux"
    done
    truncate -s 4G "$2/disk.img"
    mkfs.ext4 -q -d "$2/root" "$2/disk.img" >&2
    rm -rf "$2/root"
}

# Make the directory $1 by a command that is given another to fill, unless it is there.
cached() {
    dir=$1
    shift
    [ ! -d "$dir" ] || return 0
    tmp=$(mktemp -d "$lab_cache/image.XXXXXX")
    chmod 755 "$tmp"
    start=$(date +%s)
    lab_say "making $dir (the output is in $tmp.log)"
    # A process of its own: with set -e, and mounts that end with it.
    unshare -m sh "$here/image.sh" "$@" "$tmp" 2>"$tmp.log" ||
        { tail -n 30 "$tmp.log" >&2; rm -rf "$tmp"; lab_die "cannot make $dir; see $tmp.log"; }
    mv -T "$tmp" "$dir"
    mv "$tmp.log" "$dir.log"
    lab_say "made $dir in $(($(date +%s) - start)) s"
}

hash() { sha256sum | cut -c 1-12; }

case ${1:-} in
--base) lab_forget_mounts; make_base "$2" ;;
--image) lab_forget_mounts; mkdir "$3/root"; make_image "$2" "$3" ;;
*)
    lab_packages debootstrap e2fsprogs gcc libc6-dev xz-utils zstd
    mkdir -p "$lab_cache"
    base=$lab_cache/debian-$suite-$(echo "$packages $later" | hash)
    cached "$base" --base
    image=$lab_cache/debian-image-$(cd "$top" && { echo "$base"; { module_sources
        find tests/distro/image.sh tests/distro/root tests/vm/agent.c tests/vm/victim.c -type f
        } | LC_ALL=C sort | xargs sha256sum; } | hash)
    if [ ! -d "$image" ]; then rm -rf "$lab_cache"/debian-image-*; fi
    cached "$image" --image "$base"
    printf '%s\n' "$image"
    ;;
esac
