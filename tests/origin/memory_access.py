from pandare2 import PyPlugin
from penguin import getColoredLogger, plugins

class MemoryAccess(PyPlugin):
    def __init__(self, panda):
        self.panda = panda
        self.logger = getColoredLogger("plugins.memory_access")
        self.hyp = plugins.hypermem
        
        # Register a callback for syscall events - note the self.hyp.wrap() wrapper
        # This wrapper is essential when using hypermem within a callback
        self.panda.hsyscall("on_sys_read_return")(self.hyp.wrap(self.on_read))
    
    def on_read(self, cpu, proto, syscall, hook, fd, buf_addr, count):
        # Read a string from the buffer address
        buffer_content = yield from self.hyp.read_str(buf_addr)
        self.logger.info(f"Read buffer content: {buffer_content}")
        
        # Write a string to memory
        yield from self.hyp.write_str(buf_addr, "Modified content")
        
        # Read an integer value from memory
        value = yield from self.hyp.read_int(buf_addr + 16)
        self.logger.info(f"Integer value: {value:#x}")
