#!/bin/sh
# SPDX-License-Identifier: MIT
# Make one of the lab's kernels for big-endian MIPS, and its user space, which Debian has no more:
# from Debian's sources, with Debian's compiler.  Prints a directory:
#	mips.sh modules|builtin
#   vmlinux    mips-malta.config and mips-malta-WHICH.config, on top of nothing
#   busybox    static, with the configuration of Debian's own busybox-static
#   modules/   those that the lab loads
#   build/     where modules for it are built (KDIR), if it can load any
# One that cannot has guest/ built in, as docs/guests.md does it.  Everything stays in the cache,
# and what is there is used: trees are kept, so that a change of guest/ costs its objects and a
# link.  Remove the folder to have newer sources.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

which=${1:-}
case $which in
modules | builtin) ;;
*) lab_die "usage: $0 modules|builtin" ;;
esac
guest=$here/../../guest
cross=mips-linux-gnu-
dir=$lab_cache/mips
build=$dir/build-$which

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
    make -s -C "$dir/linux" O="$build" ARCH=mips CROSS_COMPILE=$cross \
        KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab "$@" >&2
}

configure() {
    config=$build/wanted
    mkdir -p "$build"
    cat "$here/mips-malta.config" "$here/mips-malta-$which.config" >"$config.new"
    if cmp -s "$config.new" "$config" &&
        [ "$config" -nt "$dir/linux/drivers/misc/hypermem/Kconfig" ]; then
        return
    fi
    kernel_make KCONFIG_ALLCONFIG="$config.new" allnoconfig
    # A wish that was not granted says nothing.
    grep -v '^#' "$config.new" | while read -r line; do
        [ ! "$line" ] || grep -qx "$line" "$build/.config" ||
            lab_die "mips-malta*.config: $line is not what this kernel makes of it"
    done
    mv "$config.new" "$config"
}

build_linux() {
    lab_say "building a kernel in $build"
    copy_guest
    configure
    case $which in
    builtin) kernel_make -j2 vmlinux ;;
    modules) kernel_make -j2 vmlinux modules ;;
    esac
}

# As a package of Debian's has them.
take_modules() {
    rm -rf "$dir/root"
    kernel_make INSTALL_MOD_PATH="$dir/root" modules_install
    lab_pick "$dir/root" "$dir/new"
    rm -rf "$dir/root"
    # A directory for building modules: all but the objects.
    mkdir "$dir/new/build"
    (cd "$build" && find .config Makefile Module.symvers include scripts arch/mips/include -type f \
        ! -name '*.o' ! -name '*.cmd' -print0 | tar -c --null -T -) | tar -x -C "$dir/new/build"
    printf 'ARCH := mips\nCROSS_COMPILE ?= %s\n' $cross | cat - "$build/Makefile" \
        >"$dir/new/build/Makefile"
}

build_busybox() {
    lab_say "building busybox in $dir/busybox"
    cd "$dir/busybox"
    cp debian/config/pkg/static .config
    yes '' | make -s oldconfig ARCH=mips CROSS_COMPILE=$cross >/dev/null
    make -s -j2 ARCH=mips CROSS_COMPILE=$cross busybox >&2
    cp busybox "$dir/busybox.built"
}

make_all() {
    [ -d "$dir/linux" ] || fetch_linux
    build_linux
    [ -d "$dir/busybox" ] || fetch_busybox
    [ -e "$dir/busybox.built" ] || build_busybox
    rm -rf "$dir/new"
    mkdir -p "$dir/new"
    case $which in
    builtin) mkdir "$dir/new/modules" && : >"$dir/new/modules/bus" ;;
    modules) take_modules ;;
    esac
    cp "$dir/busybox.built" "$dir/new/busybox"
    "${cross}strip" -g -o "$dir/new/vmlinux" "$build/vmlinux"
    mv -T "$dir/new" "$out"
}

# What it is made of.
sources() (
    cd "$here"
    cat mips.sh mips-malta.config "mips-malta-$which.config"
    [ $which = modules ] || cat ../../guest/K* ../../guest/*.[ch] ../../guest/uapi/*.h
)

out=$dir/$which-$(sources | sha256sum | cut -c 1-16)
if [ ! -d "$out" ]; then
    lab_packages gcc-mips-linux-gnu libc6-dev-mips-cross gcc libc6-dev make bc bison flex bzip2 \
        xz-utils kmod dpkg-dev debian-archive-keyring >&2
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock 9
    # Somebody else may have been faster.
    [ -d "$out" ] || make_all
    # Those of the last versions stay, for who boots them just now.
    ls -dt "$dir/$which"-* | tail -n +5 | xargs -r rm -rf
fi
touch "$out"
printf '%s\n' "$out"
