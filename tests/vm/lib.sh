# SPDX-License-Identifier: MIT
# Shell functions that the VM lab and docs/quickstart.sh share; source it from POSIX sh.
# What a function returns it prints; everything else goes to stderr.

lab_cache=${HYPERMEMFS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/hypermemfs}

lab_say() { printf '%s\n' "$*" >&2; }
lab_die() { lab_say "error: $*"; exit 1; }

lab_as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# In a mount namespace of one's own: let go of others' mounts, whose daemons would not end.
lab_forget_mounts() {
    while read -r _ lab_at lab_type _; do
        case $lab_type in fuse.*) umount -cil "$lab_at" ;; esac
    done </proc/self/mounts
}

lab_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Install those of the Debian packages "$@" that are missing; silent if none is.
lab_packages() {
    lab_missing=
    for lab_p in "$@"; do
        lab_installed "$lab_p" || lab_missing="$lab_missing $lab_p"
    done
    [ "$lab_missing" ] || return 0
    command -v apt-get >/dev/null || lab_die "this needs Debian's packages:$lab_missing"
    lab_say "installing$lab_missing"
    # The lists may be absent (a fresh image) or too old to be true: update only then.
    lab_apt install $lab_missing || { lab_apt update && lab_apt install $lab_missing; } ||
        lab_die "apt-get cannot install$lab_missing"
}

lab_apt() {
    lab_verb=$1; shift
    lab_as_root env DEBIAN_FRONTEND=noninteractive timeout 900 \
        apt-get -qq -o DPkg::Lock::Timeout=300 "$lab_verb" -y --no-install-recommends "$@" >&2
}

# The release of the guest's kernel, e.g. 6.1.0-56-amd64: the one whose headers are installed.
lab_release() {
    lab_arch=$(dpkg --print-architecture 2>/dev/null) || lab_die "the VM lab needs a Debian system"
    [ "$lab_arch" = amd64 ] ||
        lab_die "the guest is Debian's amd64 kernel, its modules are built natively:" \
            "this needs an amd64 host, not $lab_arch"
    lab_packages linux-headers-amd64
    dpkg-query -W -f '${Depends}\n' linux-headers-amd64 |
        sed -n 's/.*linux-headers-\([0-9][^ ,]*-amd64\).*/\1/p' | grep -m 1 . ||
        lab_die "cannot tell which kernel linux-headers-amd64 is for"
}

# The directory to build the guest's modules in (KDIR).
lab_headers() {
    lab_rel=$(lab_release) || exit 1
    printf '/usr/src/linux-headers-%s\n' "$lab_rel"
}

# A directory with the guest's kernel, as lab_pick leaves it.  The package is unpacked and never
# installed; its version is that of the headers, to the letter.
lab_kernel() {
    lab_rel=$(lab_release) || exit 1
    lab_ver=$(dpkg-query -W -f '${Version}' "linux-headers-$lab_rel") || exit 1
    lab_dir=$lab_cache/kernel-$lab_rel-$lab_ver
    if [ ! -d "$lab_dir" ]; then
        lab_packages kmod xz-utils
        lab_say "fetching linux-image-$lab_rel $lab_ver (unpacked to $lab_dir, not installed)"
        mkdir -p "$lab_cache" || exit 1
        lab_tmp=$(mktemp -d "$lab_cache/fetch.XXXXXX") || exit 1
        lab_fetch "$lab_tmp" "linux-image-$lab_rel=$lab_ver" ||
            { rm -rf "$lab_tmp"; lab_die "cannot fetch linux-image-$lab_rel $lab_ver;" \
                "if the archive has a newer one, upgrade linux-headers-amd64 first"; }
        # Somebody else may have been faster: theirs is as good.
        mv -T "$lab_tmp/kernel" "$lab_dir" 2>/dev/null || [ -d "$lab_dir" ] || exit 1
        rm -rf "$lab_tmp"
    fi
    printf '%s\n' "$lab_dir"
}

lab_fetch() (
    cd "$1" || exit 1
    lab_download "$2" || { lab_apt update && lab_download "$2"; } || exit 1
    mkdir root kernel
    # Of the 400 MB of the package these are all that the lab needs.
    dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x -C root --wildcards './boot/vmlinuz-*' \
        './lib/modules/*/modules.*' '*/drivers/virtio/virtio*.ko*' \
        '*/drivers/char/virtio_console.ko*' '*/fs/fuse/fuse.ko*' || exit 1
    lab_pick root kernel
)

# Take from an unpacked linux-image package in $1 what the lab needs, to $2: vmlinuz or vmlinux (both
# if the one can be unpacked to the other, which boots twice as fast), and in modules/ those that
# the lab loads and what they need, with `bus` to say which are loaded first, in order.
lab_pick() {
    [ -d "$1/lib/modules" ] || ln -s usr/lib "$1/lib" || return 1
    lab_mods=$(echo "$1"/lib/modules/*)
    for lab_file in "$1"/boot/vmlinu[xz]-* "$lab_mods"/vmlinu[xz]; do
        lab_to=${lab_file##*/}
        [ ! -e "$lab_file" ] || cp "$lab_file" "$2/${lab_to%%-*}" || return 1
    done
    if [ -e "$2/vmlinuz" ]; then
        if lab_unpack "$2/vmlinuz" >"$2/tmp"; then mv "$2/tmp" "$2/vmlinux"; else rm "$2/tmp"; fi
    fi
    mkdir "$2/modules" && depmod -b "$1" "${lab_mods##*/}" || return 1
    lab_closure virtio_pci virtio_mmio >"$2/modules/bus"
    for lab_file in $(cat "$2/modules/bus") $(lab_closure virtio_console fuse); do
        find "$lab_mods" -name "$lab_file.ko*" -exec cp -t "$2/modules" {} +
    done
    for lab_file in "$2"/modules/*.ko.*; do
        case $lab_file in
        *.xz) xz -d "$lab_file" ;;
        *.zst) zstd -q -d --rm "$lab_file" ;;
        *.gz) gzip -d "$lab_file" ;;
        esac || return 1
    done
}

# The modules "$@" of $lab_mods that there are, each behind those that it needs.
lab_closure() {
    for lab_name; do
        sed -n "s,^[^:]*/$lab_name\.ko[^:/]*: *,&,p" "$lab_mods/modules.dep" | tr -d ':' |
            tr ' ' '\n' | sed -n 's,.*/\([^/]*\)\.ko.*,\1,p' | tac
    done | awk '!seen[$0]++'
}

# As root, apt would warn that its own user cannot write here.
lab_download() { timeout 600 apt-get -qq -o APT::Sandbox::User=root download "$1" >&2; }

# Print the ELF file inside a bzImage (Documentation/arch/x86/boot.rst: setup_sects, payload_offset
# and payload_length; the payload ends with its unpacked size).
lab_unpack() {
    [ "$(tail -c +515 "$1" | head -c 4)" = HdrS ] || return 1
    lab_start=$((($(lab_u32 "$1" 497) % 256 + 1) * 512 + $(lab_u32 "$1" 584)))
    lab_size=$(($(lab_u32 "$1" 588) - 4))
    for lab_tool in xz zstd gzip; do
        tail -c +$((lab_start + 1)) "$1" | head -c $lab_size | $lab_tool -dc 2>/dev/null && return
    done
    return 1
}

lab_u32() { od -A n -t u4 -j "$2" -N 4 "$1"; }
