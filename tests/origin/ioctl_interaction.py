from pandare2 import PyPlugin
from penguin import getColoredLogger, plugins

SIOCDEVPRIVATE = 0x89F0
IFNAMSIZ = 16


def syscall_test(self, cpu, proto, syscall, hook, fd, op, arg):
    if op == SIOCDEVPRIVATE:
        # Read a string from the arg address
        interface = yield from self.hyp.read_str(arg)
        self.logger.info(f"Interface: {interface}")
        
        # Read an integer from memory at offset IFNAMSIZ from arg
        data = yield from self.hyp.read_int(arg + IFNAMSIZ)
        self.logger.info(f"Data: {data:#x}")

        # Write a string to memory and read it back to verify
        to_write = "test"
        yield from self.hyp.write_str(arg, to_write)
        interface = yield from self.hyp.read_str(arg)
        assert interface == to_write, f"Expected {to_write}, got {interface}, r/w failed"

        # Write an integer to memory and read it back to verify
        to_write_int = 0x12345678
        yield from self.hyp.write_int(arg + IFNAMSIZ, to_write_int)
        data = yield from self.hyp.read_int(arg + IFNAMSIZ)
        assert data == to_write_int, f"Expected {to_write_int:#x}, got {data:#x}, r/w failed"

        # Get file descriptor name
        fd_name = yield from self.hyp.read_fd_name(fd) or "[???]"
        self.logger.info(f"FD: {fd_name}")

        # Get process arguments
        args = yield from self.hyp.get_proc_args()
        self.logger.info(f"Found process: {args}")
        
        # Get environment variables
        env = yield from self.hyp.get_proc_env()
        self.logger.info(f"Found env: {env}")
        
        # Get process ID
        pid = yield from self.hyp.get_proc_pid()
        self.logger.info(f"Found pid: {pid}")


class IoctlInteractionTest(PyPlugin):
    def __init__(self, panda):
        self.logger = getColoredLogger("plugins.ioctl_interaction_test")
        self.hyp = plugins.hypermem
        panda.hsyscall("on_sys_ioctl_return")(self.hyp.wrap(self.syscall_test))

    syscall_test = syscall_test
