#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The registers of a switch that the guest does not have: a hook, in files alone.
#
#	sh raeth.sh MOUNT
#
# When the firmware's program returns from its ioctl, the register that it wanted is put where it
# looks for it, and the ioctl has succeeded.
set -u
mnt=${1?usage: sh raeth.sh MOUNT}
dir=$mnt/hooks/raeth.$$

mkdir "$dir" || exit 1
trap 'rmdir "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
echo 'ioctl return arg1==0x89f1 comm==mtk7530_switch' >"$dir/filter" || exit 1

# What the register at an offset has.
register() {
    case $1 in
    52) echo 2 ;;               # 0x34, REG_ESW_WT_MAC_AD0: w_mac_done
    128) echo $((0x8234)) ;;    # 0x80, REG_ESW_WT_MAC_ATC
    144) echo $((0x73)) ;;      # 0x90, REG_ESW_TABLE_STATUS0
    *) echo $((0x10173)) ;;
    esac
}

# struct ifreq is at arg2: a name, and at 16 a pointer to { unsigned int off, val; }.  Whatever
# cannot be read fails, and the call is left as it is.
answer() {
    at=$mnt/pid/$pid
    [ "$(cat "$at/str/$arg2")" = eth0 ] || return
    reg=$(cat "$at/ptr/$((arg2 + 16))") || return
    off=$(cat "$at/uint/$reg") || return
    register "$off" >"$at/uint/$((reg + 4))" || return
    echo "process $pid reads register $off" >&2
    verdict='retval=0'
}

# From here on calls wait for an answer.
exec 3<"$dir/events" || exit 1
echo "hooked: $dir" >&2
while IFS= read -r event <&3; do
    eval "$event"               # id, pid, arg0 and so on
    verdict=continue
    answer
    echo "$id $verdict" >"$dir/reply"
done
