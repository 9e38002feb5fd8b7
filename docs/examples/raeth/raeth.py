# SPDX-License-Identifier: MIT
"""The registers of a switch that the guest does not have, as a plugin for hypermem-run or Penguin.

When a program returns from the ioctl by which the driver of eth0 gives a register, the register is
put where the program looks for it, and the ioctl has succeeded.
"""
from pandare2 import PyPlugin
from penguin import getColoredLogger, plugins

RAETH_ESW_REG_READ = 0x89f1
IFNAMSIZ = 16  # where struct ifreq has its pointer

REGISTERS = {
    0x34: ("REG_ESW_WT_MAC_AD0", 0x2),  # w_mac_done
    0x80: ("REG_ESW_WT_MAC_ATC", 0x8234),
    0x90: ("REG_ESW_TABLE_STATUS0", 0x73),
}
OTHER = 0x10173


class RaethRegisters(PyPlugin):
    def __init__(self, panda):
        self.logger = getColoredLogger("raeth")
        self.hyp = plugins.hypermem
        panda.hsyscall("on_sys_ioctl_return", arg_filter=[None, RAETH_ESW_REG_READ],
                       comm_filter="mtk7530_switch")(self.hyp.wrap(self.on_ioctl))

    def on_ioctl(self, cpu, proto, syscall, hook, fd, cmd, arg):
        interface = yield from self.hyp.read_str(arg)
        if interface != "eth0":
            return
        reg = yield from self.hyp.read_ptr(arg + IFNAMSIZ)
        off = yield from self.hyp.read_int(reg)
        name, value = REGISTERS.get(off, (hex(off), OTHER))
        yield from self.hyp.write_int(reg + 4, value)
        syscall.retval = 0
        pid = yield from self.hyp.get_proc_pid()
        self.logger.info(f"process {pid} reads {name}: {value:#x}")
