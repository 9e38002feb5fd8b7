from pandare2 import PyPlugin
from penguin import getColoredLogger, plugins

# RALink Ethernet register definitions
RAETH_ESW_REG_READ = 0x89F1
REG_ESW_WT_MAC_AD0 = 0x34
REG_ESW_WT_MAC_ATC = 0x80
REG_ESW_TABLE_STATUS0 = 0x90

class RAEthPlugin(PyPlugin):
    def __init__(self, panda):
        self.panda = panda
        self.logger = getColoredLogger("plugins.raeth")
        self.hyp = plugins.hypermem
        
        # Register our callback for IOCTL syscalls with specific filtering
        # Only intercept ioctl calls with cmd=RAETH_ESW_REG_READ (0x89F1)
        self.panda.hsyscall(
            "on_sys_ioctl_return", 
            arg_filter=[None, RAETH_ESW_REG_READ, None]
        )(self.hyp.wrap(self.handle_raeth_ioctl))
        
        # Register definitions for logging
        self.registers = {
            REG_ESW_WT_MAC_AD0: "REG_ESW_WT_MAC_AD0",
            REG_ESW_WT_MAC_ATC: "REG_ESW_WT_MAC_ATC",
            REG_ESW_TABLE_STATUS0: "REG_ESW_TABLE_STATUS0"
        }
        
    def handle_raeth_ioctl(self, cpu, proto, syscall, hook, fd, cmd, arg):
        """Handler specifically for RALink Ethernet register read operations"""
        # Read the interface name
        interface = yield from self.hyp.read_str(arg)
        
        # Only handle eth0 ioctls
        if interface != "eth0":
            return
            
        # Read the esw_reg structure pointer from ifr_data
        esw_reg_ptr = yield from self.hyp.read_ptr(arg + 16)
        
        # Read the register code (offset)
        code = yield from self.hyp.read_int(esw_reg_ptr)
        
        # Decide what value to provide based on the register
        if code == REG_ESW_WT_MAC_AD0:
            # Set bit 0x2 to indicate w_mac_done
            val = 0x2
        elif code == REG_ESW_WT_MAC_ATC:
            val = 0x8234
        elif code == REG_ESW_TABLE_STATUS0:
            # This value needs to meet 0x1 & 0x2
            val = 0x73
        else:
            val = 0x10173
            
        # Log the operation
        self.logger.info(f"RAEth ioctl: reg={self.registers.get(code, hex(code))}, returning val={hex(val)}")
        
        # Write the value back to the esw_reg structure (at offset +4 for val)
        yield from self.hyp.write_int(esw_reg_ptr + 4, val)
        
        # Set the syscall return value to 0 (success)
        syscall.retval = 0


class AdvancedRAEthPlugin(PyPlugin):
    def __init__(self, panda):
        self.panda = panda
        self.logger = getColoredLogger("plugins.advanced_raeth")
        self.hyp = plugins.hypermem
        
        # Target only table_del's register read operations
        # This uses both command filtering and process name filtering
        self.panda.hsyscall(
            "on_sys_ioctl_enter", 
            comm_filter="mtk7530_switch",  # Process name filter 
            arg_filter=[None, RAETH_ESW_REG_READ, None]  # Argument filter
        )(self.hyp.wrap(self.handle_table_del_ioctl))
        
    def handle_table_del_ioctl(self, cpu, proto, syscall, hook, fd, cmd, arg):
        """
        This function specifically targets the table_del function's ioctl calls
        by checking the register being read
        """
        # Read the interface name
        interface = yield from self.hyp.read_str(arg)
        if interface != "eth0":
            return
            
        # Read the esw_reg structure pointer from ifr_data
        esw_reg_ptr = yield from self.hyp.read_ptr(arg + 16)
        
        # Read the register code (offset)
        code = yield from self.hyp.read_int(esw_reg_ptr)
        
        # Check if this is the specific register read from table_del
        if code == REG_ESW_WT_MAC_AD0:
            self.logger.info("Detected table_del function polling for w_mac_done bit")
            
            # Instead of modifying the value, we can skip the syscall entirely
            # and provide our own return value directly
            syscall.skip_syscall = True
            
            # Write the w_mac_done bit directly to the return value pointer
            # First, get the value pointer from the calling code
            caller_frame_ptr = yield from self.hyp.read_ptr(self.panda.arch.get_reg(cpu, "sp"))
            value_ptr = yield from self.hyp.read_ptr(caller_frame_ptr + 8)  # Assuming x86_64 calling convention
            
            # Set the value with the w_mac_done bit set
            yield from self.hyp.write_int(value_ptr, 0x2)
            
            # Make the ioctl call itself return success
            syscall.retval = 0
            
            self.logger.info("Bypassed ioctl call and directly set w_mac_done bit")
