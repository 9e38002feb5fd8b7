#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Can the module be built in this kernel build directory?  Says in a line why not.
#
#	check-kdir.sh KDIR CROSS_COMPILE CC LLVM
kdir=$1 cross=$2 cc=$3 llvm=$4

no() { echo "hypermem: $*" >&2; exit 1; }

headers="install the headers of the guest's kernel (Debian: apt install linux-headers-RELEASE, \
RELEASE as uname -r says in the guest) and give their directory: make -C guest \
KDIR=/usr/src/linux-headers-RELEASE"

[ -d "$kdir" ] || no "KDIR=$kdir: there is no such directory; $headers"
[ -f "$kdir/Makefile" ] || no "KDIR=$kdir: not a kernel's build directory; $headers"
[ -f "$kdir/include/generated/autoconf.h" ] ||
	no "KDIR=$kdir: this kernel is not configured; run there: make olddefconfig modules_prepare"

# From here on nothing is certain: what cannot be told is left to the kernel's makefiles.
[ "$llvm" ] && exit 0
config=$kdir/.config
[ -f "$config" ] || config=$kdir/include/config/auto.conf
grep -qs '^CONFIG_[A-Z0-9_]*=y' "$config" && ! grep -q '^CONFIG_MODULES=y' "$config" &&
	no "the kernel in $kdir can load no modules (CONFIG_MODULES); build this folder into it, \
as Kconfig here says"
built_by=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ "]*\).*/\1/p' "$config" 2>/dev/null)
kernel=$(sed -n 's,^# Linux/\([^ ]*\) .*,\1,p' "$config" 2>/dev/null)
if [ ! "$cc" ]; then
	cc=${cross}gcc
	# Debian's kernels name the version of theirs.
	grep -qs 'gcc-[0-9]' "$kdir/.kernelvariables" &&
		cc=$cross$(echo "$built_by" | sed 's/.*\(gcc-[0-9]*\)$/\1/')
fi
# A compiler may come with words before and behind it, such as ccache.
command -v ${cc%% *} >/dev/null ||
	no "the compiler ${cc%% *} is missing (the kernel in $kdir was built by ${built_by:-gcc}); \
install it or name another: make -C guest KDIR=$kdir CC=..."

machine=$($cc -dumpmachine 2>/dev/null) || exit 0
case $kernel in
'' | um) exit 0 ;;
x86* | i386) fits='x86_64-* i?86-*' ;;
arm64) fits='aarch64*' ;;
sh | sh64) fits='sh*' ;;
*) fits="$kernel*" ;;
esac
for pattern in $fits; do
	case $machine in
	$pattern) exit 0 ;;
	esac
done
no "the kernel in $kdir is for $kernel, but $cc compiles for ${machine%%-*}; give a compiler for \
$kernel: make -C guest KDIR=$kdir ARCH=$kernel CROSS_COMPILE=..."
