#!/bin/sh
# SPDX-License-Identifier: MIT
# Make the lab's kernel without modules, and its user space, which Debian has no more for
# big-endian MIPS: from Debian's sources, with Debian's compiler.  Prints a directory with
#   vmlinux    mips-malta.config on top of nothing, and guest/ built in, as docs/guests.md does it
#   busybox    static, with the configuration of Debian's own busybox-static
#   modules/   none
# Everything stays in the cache, and what is there is used: trees are kept, so that a change of
# guest/ costs its objects and a link.  Remove the folder to have newer sources.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

guest=$here/../../guest
config=$here/mips-malta.config
cross=mips-linux-gnu-
dir=$lab_cache/mips

# apt-get with a configuration of its own: sources of packages, of this Debian.
own_apt() {
    apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$dir/apt/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$dir/apt/lists" \
        -o Dir::Cache="$dir/apt/cache" "$@" >&2
}

# The mirrors that this system has, for the sources' sake; its own list of them stays as it is.
own_sources() {
    [ ! -e "$dir/apt/sources.list" ] || return 0
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    apt-get indextargets --format "deb-src [signed-by=$keyring] \$(REPO_URI) \$(CODENAME) main" \
        'Created-By: Packages' 'Origin: Debian' 'Component: main' | sort -u >"$dir/apt/tmp"
    [ -s "$dir/apt/tmp" ] || lab_die "apt's sources here have no archive of Debian's"
    own_apt -o Dir::Etc::SourceList="$dir/apt/tmp" update
    mv "$dir/apt/tmp" "$dir/apt/sources.list"
}

# A tree appears whole or not at all.
fetch_linux() (
    lab_say "unpacking Linux's source in $dir"
    rm -rf "$dir/fetch" && mkdir "$dir/fetch" && cd "$dir/fetch"
    lab_download linux-source-6.1 || { lab_apt update && lab_download linux-source-6.1; } ||
        lab_die "cannot fetch linux-source-6.1"
    dpkg-deb --fsys-tarfile linux-source-*.deb | tar -xO --wildcards '*/linux-source-*.tar.xz' |
        tar -xJ --exclude='*/Documentation/*/*' --exclude='*/tools/testing/*/*'
    cd linux-source-*/
    sed -i '$i source "drivers/misc/hypermem/Kconfig"' drivers/misc/Kconfig
    echo 'obj-$(CONFIG_HYPERMEM) += hypermem/' >>drivers/misc/Makefile
    mv -T "$PWD" "$dir/linux"
    rm -rf "$dir/fetch"
)

fetch_busybox() (
    lab_say "unpacking busybox's source in $dir"
    own_sources
    rm -rf "$dir/fetch" && mkdir "$dir/fetch" && cd "$dir/fetch"
    own_apt source --download-only busybox
    dpkg-source --no-check -x busybox_*.dsc source >&2
    mv -T source "$dir/busybox"
    rm -rf "$dir/fetch"
)

# Copy guest/ into the tree; what is the same keeps its time.
copy_guest() (
    to=$dir/linux/drivers/misc/hypermem
    cd "$guest"
    mkdir -p "$to/uapi"
    for file in Kbuild Kconfig *.[ch] uapi/*.h; do
        cmp -s "$file" "$to/$file" || cp "$file" "$to/$file"
    done
    cd "$to"
    for file in *.[ch] uapi/*.h; do
        [ -e "$guest/$file" ] || rm -f "$file"
    done
)

kernel_make() {
    make -s -C "$dir/linux" O="$dir/build" ARCH=mips CROSS_COMPILE=$cross \
        KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab "$@" >&2
}

build_linux() {
    lab_say "building a kernel in $dir/build"
    copy_guest
    if ! cmp -s "$config" "$dir/config" ||
        [ "$dir/linux/drivers/misc/hypermem/Kconfig" -nt "$dir/config" ]; then
        kernel_make KCONFIG_ALLCONFIG="$config" allnoconfig
        # A wish that was not granted says nothing.
        grep -v '^#' "$config" | while read -r line; do
            [ ! "$line" ] || grep -qx "$line" "$dir/build/.config" ||
                lab_die "$config: $line is not what this kernel makes of it"
        done
        cp "$config" "$dir/config"
    fi
    kernel_make -j2 vmlinux
}

build_busybox() {
    lab_say "building busybox in $dir/busybox"
    cd "$dir/busybox"
    cp debian/config/pkg/static .config
    yes '' | make -s oldconfig ARCH=mips CROSS_COMPILE=$cross >/dev/null
    make -s -j2 ARCH=mips CROSS_COMPILE=$cross busybox >&2
    cp busybox "$dir/busybox.built"
}

lab_packages gcc-mips-linux-gnu libc6-dev-mips-cross gcc libc6-dev make bc bison flex bzip2 \
    xz-utils dpkg-dev debian-archive-keyring >&2
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9

key=$(cd "$here" && cat mips.sh mips-malta.config ../../guest/K* ../../guest/*.[ch] \
    ../../guest/uapi/*.h | sha256sum | cut -c 1-16)
out=$dir/kernel-$key
if [ ! -d "$out" ]; then
    [ -d "$dir/linux" ] || fetch_linux
    build_linux
    [ -d "$dir/busybox" ] || fetch_busybox
    [ -e "$dir/busybox.built" ] || build_busybox
    rm -rf "$dir/new"
    mkdir -p "$dir/new/modules"
    : >"$dir/new/modules/bus"
    cp "$dir/busybox.built" "$dir/new/busybox"
    "${cross}strip" -g -o "$dir/new/vmlinux" "$dir/build/vmlinux"
    mv -T "$dir/new" "$out"
fi
# Those of the last versions stay, for who boots them just now.
touch "$out"
ls -dt "$dir"/kernel-* | tail -n +9 | xargs -r rm -rf
printf '%s\n' "$out"
