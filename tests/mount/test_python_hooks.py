# SPDX-License-Identifier: MIT
"""fs/python/hypermem: hooks, and plugins by hypermem-run.

The calls are the fake guest's (tests/fake_guest_caller.c): a hook on fake_N_MS has N calls, one
every MS milliseconds, and what became of one is seen in the next.  With a real guest's calls it is
tests/vm/test_examples.py.
"""
from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from world import Mount, World, host, wait_for

TOP = Path(__file__).resolve().parent.parent.parent
PACKAGE = TOP / "fs/python"
sys.path.insert(0, str(PACKAGE))
import hypermem  # noqa: E402
from hypermem import compat_calls, event, filters  # noqa: E402

pytestmark = pytest.mark.fake("a real guest makes no calls to order; see tests/vm/test_examples.py")

LINE = (b"id=17 hook='a b' phase=return call=ioctl nr=16 pid=101 tid=102 stamp=48879 "
        b"comm='it'\\''s \xff x=1' compat=1 time=12345678901 arg0=0x3 arg1=0x89f1 "
        b"arg2=0xffffffffffffffff arg3=0x0 arg4=0x0 arg5=0x0 retval=-25 skipped=1 lost=3 "
        b"sp=0x7ffd12345678 orig_rax=0x10")


@pytest.fixture
def guest(world: World) -> Iterator[hypermem.Guest]:
    guest = hypermem.Guest(world.mnt)
    yield guest
    guest.close()
    assert os.listdir(world.mnt / "hooks") == []


def python(code: str, *args: object) -> subprocess.Popen[bytes]:
    """A program that is in its loop, or over, when its first line is out."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    program = subprocess.Popen([sys.executable, "-u", "-c", textwrap.dedent(code),
                                *map(str, args)], env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert program.stdout and program.stdout.readline() == b"ready\n"
    return program


def run(world: World, tmp_path: Path, plugin: str, *options: object) -> tuple[int, str]:
    """A plugin; its exit status and what it said."""
    path = tmp_path / "plugin.py"
    path.write_text("from pandare2 import PyPlugin\n"
                    "from penguin import getColoredLogger, plugins\n" + textwrap.dedent(plugin))
    done = host([sys.executable, "-m", "hypermem.run", "--mount", world.mnt, *map(str, options),
                 path], env={**os.environ, "PYTHONPATH": str(PACKAGE)})
    assert done.out == b""
    return done.rc, done.err.decode()


# Lines, filters.


def test_a_line_of_events_is_parsed_as_a_shell_would() -> None:
    words = event.parse(LINE)
    assert words["hook"] == "a b" and words["comm"] == "it's \udcff x=1"
    assert words["arg1"] == "0x89f1" and words["orig_rax"] == "0x10" and len(words) == 22
    for bad in b"id", b"id=1 'x", b"=1", b"id=1  x=2", b"id='1", b"id=1\\2":
        with pytest.raises(ValueError):
            event.parse(bad)


@pytest.mark.parametrize("text, tests, wanted", [
    ("ioctl return", {}, "ioctl return"),
    ("ioctl return", {"arg1": 0x89f1, "comm": "sh"}, 'ioctl return arg1==0x89f1 and comm=="sh"'),
    ("open , openat  enter arg1==1 or arg2==2", {"pid": 7},
     "open , openat  enter (arg1==1 or arg2==2) and pid==7"),
    ("* not comm=x", {"arg0": None}, "* not comm=x"),
    ("*", {"arg0": -100, "retval": (-2, -13), "uid": range(1000, 2000)},
     "* arg0==-100 and (retval==-2 or retval==-13) and uid==1000..1999"),
    ("openat", {"arg1": "/etc/\"x\"\n\udcff"}, 'openat str(arg1)=="/etc/\\x22x\\x22\\x0a\\xff"'),
    ("openat", {"arg1": ["/a", b"/b"]}, 'openat (str(arg1)=="/a" or str(arg1)=="/b")'),
    ("enterprise", {"nr": 1}, "enterprise nr==1"),
])
def test_keywords_are_tests_of_the_filter(text: str, tests: dict, wanted: str) -> None:
    assert filters.compose(text, tests).decode() == wanted


def test_words_for_the_hook_go_before_its_tests() -> None:
    assert filters.compose("ioctl return arg1==1", {"pid": 2}, "regs trace") == \
        b"ioctl return regs trace (arg1==1) and pid==2"
    assert filters.compose("ioctl arg1==1", {}, "regs") == b"ioctl regs arg1==1"


@pytest.mark.parametrize("tests, error", [
    ({"arg6": 1}, TypeError), ({"comm": 1}, TypeError), ({"uid": "root"}, TypeError),
    ({"arg0": []}, ValueError), ({"arg0": range(0)}, ValueError),
    ({"arg0": range(0, 9, 2)}, ValueError), ({"arg0": 1.5}, TypeError),
    ({"arg0": [1, None]}, TypeError)])
def test_what_is_no_test_is_refused(tests: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        filters.compose("ioctl", tests)


def test_calls_have_as_many_arguments_as_the_kernel_says() -> None:
    counts = {"getpid": 0, "close": 1, "ioctl": 3, "openat": 4, "execve": 3, "mmap": 6,
              "getuid16": 0, "nanosleep_time32": 2, "ppoll": 5, "no_such_call": 6}
    assert {name: compat_calls.count_args(name) for name in counts} == counts


# Hooks.


def test_a_handler_sees_the_call_and_changes_it(guest: hypermem.Guest, world: World) -> None:
    seen: list[tuple] = []

    @guest.hook("fake_5_20 enter return", comm="it's me")
    def on_call(call: hypermem.Event) -> None:
        assert (call.comm, call.call, call.nr, call.regs) == ("it's me", "fake_5_20", 1000, {})
        assert call.process == guest.process(call.pid)
        assert call.process.args[-1] == str(world.fake.socket)
        seen.append((call.returns, call.retval, call.skipped, *call.args))
        if call.returns:
            call.retval = -call.args[0]
        elif call.args[0] == 1:
            call.args[2] = 77
            call.args[-4] += 1
        elif call.args[0] == 2:
            call.skip()
        elif call.args[0] == 3:
            call.retval = 1 << 63
        if call.returns and call.args[0] == 4:
            guest.stop()

    guest.run()
    assert seen == [
        (False, None, False, 0, 0, 0x1000, 0, 0, 0), (True, 0x1000, False, 0, 0, 0x1000, 0, 0, 0),
        (False, None, False, 1, 0, 0x1001, 0x1000, 0, 0),
        (True, 78, False, 1, 0, 78, 0x1000, 0, 0),
        (False, None, False, 2, 0, 0x1002, 78, 0, (1 << 64) - 1),
        (True, 0, True, 2, 0, 0x1002, 78, 0, (1 << 64) - 1),
        (False, None, False, 3, 0, 0x1003, 0x1002, 1, (1 << 64) - 2),
        (True, -1 << 63, True, 3, 0, 0x1003, 0x1002, 1, (1 << 64) - 2),
        (False, None, False, 4, 0, 0x1004, 0x1003, 1, (1 << 64) - 3),
        (True, 0x1004, False, 4, 0, 0x1004, 0x1003, 1, (1 << 64) - 3)]
    stats = on_call.stats
    assert (stats["matched"], stats["replied"], stats["continued"]) == (10, 10, 2)


def test_what_cannot_be_changed_is_refused(guest: hypermem.Guest) -> None:
    with guest.events("fake_4_10 enter return", regs=True) as events:
        call = next(events)
        assert call.regs == {"sp": 0x7ffd12345678, "pc": 0x401136, "orig_rax": 16}
        for value in 1 << 64, -(1 << 63) - 1:
            with pytest.raises(OverflowError):
                call.retval = value
            with pytest.raises(OverflowError):
                call.args[0] = value
        with pytest.raises(IndexError):
            call.args[6] = 0
        assert call.verdict() == "continue"
        call.skip()
        assert call.reply() and not call.reply()
        for change in lambda: call.skip(), lambda: call.args.__setitem__(0, 1):
            with pytest.raises(RuntimeError, match="does not wait"):
                change()
        call = next(events)
        assert call.returns and call.skipped
        with pytest.raises(RuntimeError, match="has been made"):
            call.skip()
        with pytest.raises(RuntimeError, match="has been made"):
            call.args[0] = 1


def test_a_handler_that_raises_lets_the_call_go_on(guest: hypermem.Guest,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    @guest.hook("fake_3_10 enter")
    def on_call(call: hypermem.Event) -> None:
        if call.args[0] == 2:
            guest.stop()
            assert call.args[3:] == [0x1001, 0, 0x1001]
            return
        call.skip(-1)
        call.args[2] = 5
        raise LookupError("of the handler")

    guest.run(20)
    assert [r.levelno for r in caplog.records] == [logging.ERROR] * 2
    assert caplog.text.count("LookupError: of the handler") == 2
    assert "in handle" not in caplog.text
    assert on_call.stats["continued"] == 3


def test_what_cannot_be_done_to_a_call_is_told_and_it_goes_on(
        guest: hypermem.Guest, caplog: pytest.LogCaptureFixture) -> None:
    """It does not wait until it has waited for too long."""
    @guest.hook("fake_2_10", timeout=60)
    def on_call(call: hypermem.Event) -> None:
        if call.args[0] == 1:
            guest.stop()
        else:
            call.retval = -512  # which the kernel keeps for itself

    guest.run(20)
    assert "Invalid argument" in caplog.text and on_call.stats["continued"] == 2
    with guest.events("fake_2_10", timeout=60) as events:
        next(events).retval = -512
        with pytest.raises(OSError, match="Invalid argument"):
            next(events)
        assert next(events).args[0] == 1
    with pytest.raises(OSError, match="Invalid argument"):
        with guest.events("fake_1_10", timeout=60) as events:
            next(events).retval = -512
    assert events.hook.closed


def test_a_handler_that_would_not_run_is_refused(guest: hypermem.Guest, world: World) -> None:
    def generator(event: hypermem.Event) -> Iterator[None]:
        yield

    async def coroutine(event: hypermem.Event) -> None:
        pass

    for handler in generator, coroutine:
        with pytest.raises(TypeError, match="must be a plain function"):
            guest.hook("fake_3_10")(handler)
    assert os.listdir(world.mnt / "hooks") == []


def test_a_loop_has_each_call_wait_for_the_next_round(guest: hypermem.Guest) -> None:
    numbers = []
    with guest.events("fake_5_5", timeout=30) as events:
        for call in events:
            numbers.append(call.args[0])
            assert call.args[4] == (call.args[0] > 0)
            call.skip(7)
            time.sleep(0.02)
            assert events.hook.stats["replied"] == call.args[0]
            if call.args[0] == 4:
                break
    assert numbers == list(range(5))


def test_calls_of_many_threads_are_handled_one_by_one(guest: hypermem.Guest) -> None:
    seen: list[tuple[int, int]] = []
    busy = threading.Lock()

    @guest.hook("fake_20_1_8")
    def on_call(call: hypermem.Event) -> None:
        assert busy.acquire(blocking=False)
        seen.append((call.args[1], call.args[0]))
        if len(seen) == 160:
            guest.stop()
        busy.release()

    guest.run(30)
    assert sorted(seen) == [(thread, n) for thread in range(8) for n in range(20)]
    assert on_call.stats["timed_out"] == 0


def test_several_hooks_have_one_loop(guest: hypermem.Guest) -> None:
    seen: list[str] = []

    def on_call(call: hypermem.Event) -> None:
        seen.append(call.call)
        if len(seen) == 9:
            guest.stop()

    hooks = [guest.hook(f"fake_3_{ms}")(on_call) for ms in (10, 15, 20)]
    assert guest.hooks == hooks
    guest.run(20)
    assert sorted(seen) == sorted(3 * ["fake_3_10", "fake_3_15", "fake_3_20"])
    hooks[1].close()
    assert guest.hooks == [hooks[0], hooks[2]]


def test_a_trace_is_only_told(guest: hypermem.Guest) -> None:
    with guest.events("fake_3_10 return", trace=True) as events:
        call = next(events)
        assert call.id == 0 and call.retval == 0x1000 and call.process.pid == call.pid
        with pytest.raises(RuntimeError, match="traced"):
            call.retval = 1
        assert next(events).args[0] == 1


def test_a_trace_of_a_process_that_has_gone_is_not_taken_for_another(guest: hypermem.Guest) -> None:
    with guest.events("fake_3_10", trace=True) as events:
        call = next(events)
        call.time = call.process.start - 10_000_000
        call.stamp += 1
        with pytest.raises(ProcessLookupError):
            call.process


def test_a_process_is_kept_from_one_call_to_the_next(guest: hypermem.Guest) -> None:
    """But for calls of another width, whose pointers may be of another width, too."""
    with guest.events("fake_3_10") as events:
        process = next(events).process
        call = next(events)
        assert call.process is process
        call.compat = True
        assert call.process is not process and call.process == process


def test_a_reply_that_comes_too_late_is_no_error(guest: hypermem.Guest,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hypermem")
    with guest.events("fake_2_10", timeout=0.05) as events:
        call = next(events)
        wait_for(lambda: events.hook.stats["timed_out"])
        call.skip(1)
        assert not call.reply()
        assert "has not waited" in caplog.text
        assert next(events).args[4] == 0


def test_a_bad_filter_says_where_and_leaves_no_hook(guest: hypermem.Guest, world: World) -> None:
    with pytest.raises(hypermem.FilterError) as bad:
        guest.hook("ioctl arg1==", comm="x")(print)
    assert str(bad.value) == ("column 14: the value is no number\n"
                              'ioctl (arg1==) and comm=="x"\n'
                              "             ^")
    assert os.listdir(world.mnt / "hooks") == [] and guest.hooks == []
    guest.run()  # of no hooks


def test_a_hook_has_the_files_of_its_directory(guest: hypermem.Guest, world: World) -> None:
    hook = guest.hook("fake_0_1", name="mine", timeout=2.5)(print)
    path = world.mnt / "hooks/mine"
    assert hook.path == str(path) and hook.filter == "fake_0_1" and hook.timeout == 2.5
    hook.set_filter("fake_0_2 return", retval=-1)
    assert (path / "filter").read_text().strip() == "fake_0_2 return retval==-1"
    with pytest.raises(hypermem.FilterError):
        hook.set_filter("")
    assert hook.enabled
    hook.enabled = False
    assert (path / "enabled").read_text() == "0\n" and not hook.enabled
    with pytest.raises(FileExistsError):
        guest.hook("fake_0_1", name="mine")(print)
    with pytest.raises(OSError):
        hook.timeout = 0
    hook.close()
    hook.close()
    assert hook.closed and not path.exists()


def test_hooks_have_names_of_their_own(guest: hypermem.Guest) -> None:
    def on_call(call: hypermem.Event) -> None:
        pass

    names = [guest.hook("fake_0_1")(on_call).name for _ in range(3)]
    assert names == [f"on_call.{os.getpid()}{tail}" for tail in ("", ".2", ".3")]
    on_call.__name__ = "\u00e9" * 80 + "/"
    name = guest.hook("fake_0_1")(on_call).name
    assert len(name.encode()) <= 63 and name.startswith("\u00e9" * 20)


def test_a_hook_that_others_remove_ends_the_loop(guest: hypermem.Guest, world: World) -> None:
    hook = guest.hook("fake_0_1")(print)
    timer = threading.Timer(0.1, lambda: os.rmdir(hook.path))
    timer.start()
    guest.run(20)
    assert hook.closed and guest.hooks == []
    events = guest.events("fake_0_1")
    timer = threading.Timer(0.1, lambda: os.rmdir(events.hook.path))
    timer.start()
    assert list(events) == []


LOOP = """
    import sys, hypermem
    guest = hypermem.Guest(sys.argv[1])
    guest.hook("fake_0_1")(print)
    print("ready")
    guest.run()
"""


@pytest.mark.parametrize("number, rc", [(signal.SIGTERM, 143), (signal.SIGHUP, 129),
                                        (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_that_ends_the_program_removes_its_hooks(world: World, number: int,
                                                          rc: int) -> None:
    program = python(LOOP, world.mnt)
    assert len(os.listdir(world.mnt / "hooks")) == 1
    program.send_signal(number)
    program.communicate(timeout=20)
    assert program.returncode == rc
    assert os.listdir(world.mnt / "hooks") == []


@pytest.mark.parametrize("end", ["raise KeyError", "sys.exit(3)", "pass", "events.close()",
                                 "hook.close()"])
def test_however_the_program_ends_its_hooks_are_removed(world: World, end: str) -> None:
    program = python(f"""
        import sys, hypermem
        guest = hypermem.Guest(sys.argv[1])
        hook = guest.hook("fake_0_1")(print)
        events = guest.events("fake_9_1")
        print("ready")
        for call in events:
            call.retval = 3
            break
        {end}
    """, world.mnt)
    program.communicate(timeout=20)
    assert os.listdir(world.mnt / "hooks") == []


def test_a_child_does_not_remove_its_parents_hooks(world: World) -> None:
    program = python("""
        import os, sys, hypermem
        guest = hypermem.Guest(sys.argv[1])
        hook = guest.hook("fake_0_1")(print)
        print("ready")
        if os.fork() == 0:
            sys.exit(0)
        os.wait()
        print(os.path.isdir(hook.path))
    """, world.mnt)
    assert program.communicate(timeout=20) == (b"True\n", b"")
    assert os.listdir(world.mnt / "hooks") == []


def test_a_program_that_is_killed_stops_nobody(world: World) -> None:
    program = python(LOOP, world.mnt)
    program.kill()
    program.communicate()
    (name,) = os.listdir(world.mnt / "hooks")
    hook = world.mnt / "hooks" / name
    (hook / "filter").write_text("fake_5_1\n")
    wait_for(lambda: "unattended: 5\n" in (hook / "stats").read_text())
    hook.rmdir()


# Plugins.


def test_a_plugin_has_its_filters_in_the_guest(world: World, tmp_path: Path) -> None:
    rc, said = run(world, tmp_path, """
        class Filters(PyPlugin):
            def __init__(self, panda):
                panda.hsyscall("on_sys_ioctl_return", arg_filter=[None, 0x89f1, None],
                               comm_filter="a_name_that_is_too_long", retval_filter=-25,
                               pid_filter=7)(self.f)
                panda.hsyscall("on_all_sys_enter", arg_filter=["/etc/", None, -1])(self.f)

            def f(self, cpu, proto, syscall, hook, *args):
                pass
    """, "--seconds", 0.1)
    hooked = re.findall(r"INFO (\S+): (.* regs .*)\n", said)
    assert rc == 0 and [(re.sub(r"\d+", "N", name), text) for name, text in hooked] == [
        ("Filters.f.N", 'ioctl return regs arg1==0x89f1 and comm=="a_name_that_is_" and tid==7 '
                        'and retval==-25'),
        ("Filters.f.N.N", '* enter regs (str(arg0)^="/etc/") and arg2==-1')]
    assert os.listdir(world.mnt / "hooks") == []


def test_a_plugin_gets_what_it_asks_for(world: World, tmp_path: Path) -> None:
    """Also what cannot be had, and its own mistakes."""
    rc, said = run(world, tmp_path, """
        import os, signal, threading

        class All(PyPlugin):
            def __init__(self, panda):
                self.panda, self.hyp = panda, plugins.hypermem
                self.ends = 0
                self.log = getColoredLogger("all")
                assert self.get_arg("a") == "b=c" and self.get_arg("none") is None
                assert self.get_arg_bool("yes") and not self.get_arg_bool("none")
                assert panda.bits == 64 and panda.endianness == "little"
                panda.hsyscall("on_sys_fake_8_10_enter")(self.hyp.wrap(self.enter))
                panda.hsyscall("on_sys_fake_2_10_return")(self.hyp.wrap(self.leave))

            def enter(self, cpu, proto, syscall, hook, number, thread):
                assert proto.name == syscall.name == "sys_fake_8_10" and proto.nargs == 6
                assert self.panda.arch.get_reg(cpu, "SP") == 0x7ffd12345678
                assert self.panda.arch.get_pc(cpu) == 0x401136
                args = yield from self.hyp.get_proc_args()
                env = yield from self.hyp.get_proc_env()
                pid = yield from self.hyp.get_proc_pid()
                assert pid == syscall.pid and "fake_guest" in args[0] and "PATH" in env
                null = yield from self.hyp.read_fd_name(999) or "[???]"
                fd = (yield from self.hyp.read_fd_name(999)) or "[???]"
                assert null is None and fd == "[???]"
                out = yield from self.hyp.read_fd_name(1)
                assert out.startswith("pipe:")
                try:
                    yield from self.hyp.read_int(0)
                except OSError as error:
                    self.log.info(f"caught {error.errno} in \\x1b[31m {number}")
                if number == 1:
                    syscall.retval = 5  # it is made all the same
                if number in (2, 4):
                    syscall.skip_syscall = True
                    syscall.retval = -7
                if number == 3:
                    assert syscall.args[4] == 1 and syscall.args[5] == 2**64 - 7
                    syscall.args[2] = 9
                if number == 4:
                    assert syscall.args[3] == 9
                    yield from self.hyp.read_bytes(16, 4)
                if number == 5:
                    assert syscall.args[4] == 0, "not skipped, since the handler had failed"
                    self.panda.arch.get_reg(cpu, "nonsense")
                if number == 6:
                    yield number
                if number == 7:
                    self.end("at the end")

            def leave(self, cpu, proto, syscall, hook, number):
                syscall.retval = 3
                if number == 1:
                    assert syscall.args[5] == 3
                    self.end("leaves")
                    syscall.skip_syscall = True
                yield from ()

            def end(self, said):
                self.log.info(said)
                self.ends += 1
                if self.ends == 2:  # but for the rest of this handler
                    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

            def uninit(self):
                self.log.info("uninit")
    """, "--arg", "a=b=c", "--arg", "yes=1", "--seconds", 15)
    assert rc == 143
    assert [int(n) for n in re.findall(r"all INFO caught 5 in \\x1b\[31m (\d)\n", said)] == \
        list(range(8))
    for text in "all INFO at the end", "all INFO leaves", "all INFO uninit", ": 8 matched, ":
        assert said.count(text) == 1, said
    errors = re.findall(r"(?m)^(\w+Error: .*)$", said)
    assert len(errors) == said.count(" ERROR ") == 4
    for text in ("OSError: [Errno 5]", "no register nonsense; there are sp, pc, orig_rax",
                 "has yielded 6", "the call has been made"):
        assert sum(text in error for error in errors) == 1, text


def test_memory_of_plugins_is_the_callers(world: World, tmp_path: Path) -> None:
    """The fake guest's own: it has no use for what pytest has put into its environment."""
    rc, said = run(world, tmp_path, """
        import os, signal

        class Memory(PyPlugin):
            def __init__(self, panda):
                self.hyp, self.log = plugins.hypermem, getColoredLogger("memory")
                panda.hsyscall("on_sys_fake_1_10_enter")(self.hyp.wrap(self.enter))

            def enter(self, cpu, proto, syscall, hook):
                process = syscall.event.process
                stack = next(m for m in process.maps if m.path == "[stack]")
                data = process.read_bytes(stack.start, stack.end - stack.start)
                at = stack.start + data.index(b"PYTEST_CURRENT_TEST=")
                hyp = self.hyp
                for kind, value, raw in (("int", 0x80000001, b"\\x01\\0\\0\\x80"),
                                         ("int", -2, b"\\xfe\\xff\\xff\\xff"),
                                         ("long", 2**63, b"\\0" * 7 + b"\\x80"),
                                         ("long", -1, b"\\xff" * 8),
                                         ("ptr", 2**64 - 2, b"\\xfe" + b"\\xff" * 7)):
                    n = yield from getattr(hyp, "write_" + kind)(at, value)
                    assert (yield from hyp.read_bytes(at, n)) == raw, kind
                    read = yield from getattr(hyp, "read_" + kind)(at)
                    assert read == value % 2 ** (8 * len(raw)), kind
                assert (yield from hyp.write_str(at, "caf\\udce9")) == 5
                assert (yield from hyp.write_str(at + 1, b"A", null_terminate=False)) == 1
                assert (yield from hyp.read_str(at)) == "cAf\\udce9"
                assert (yield from hyp.write_bytes(at, b"PYTEST_CURRENT_TEST=")) == 20
                self.log.info("all well")
                os.kill(os.getpid(), signal.SIGTERM)
    """, "--seconds", 15)
    assert rc == 143 and "memory INFO all well\n" in said, said


def test_plugins_are_told_of_the_end_whatever_it_is(world: World, tmp_path: Path) -> None:
    with world.guest() as fake:
        mount = Mount(world.daemon, fake.socket)
        try:
            rc, said = run(world, tmp_path, """
                import os

                class A(PyPlugin):
                    def __init__(self, panda):
                        panda.hsyscall("on_sys_fake_1_10_enter")(self.enter)

                    def enter(self, cpu, proto, syscall, hook):
                        os.kill(int(self.get_arg("daemon")), 9)

                    def uninit(self):
                        getColoredLogger("a").info("uninit")
                        raise LookupError("of the first one")

                class B(A):
                    def uninit(self):
                        getColoredLogger("b").info("uninit")
            """, "--mount", mount.mnt, "--arg", f"daemon={mount.process.pid}")
        finally:
            mount.close()
    assert rc == 1 and " a INFO uninit\n" in said and " b INFO uninit\n" in said, said
    assert "of the first one" in said.splitlines()[-1], said


INIT = "class A(PyPlugin):\n    def __init__(self, panda):\n        "


@pytest.mark.parametrize("plugin, line, reason", [
    ("x = 1", None, "no plugin in it; that is a class derived from pandare2's PyPlugin"),
    ("class A(PyPlugin): pass", None, "it hooks nothing; panda.hsyscall() does, in __init__"),
    ("import nothing_of_that_name", 3, "No module named 'nothing_of_that_name'; install it, or "
     "put it beside the plugin"),
    ("x = = 1", 3, "invalid syntax: x = = 1"),
    (INIT + "1 / 0", 5, "ZeroDivisionError: division by zero"),
    (INIT + "open('/nowhere')", 5, "/nowhere: No such file or directory"),
    (INIT + "panda.hsyscall('on_sys_x')(print)", 5, "ValueError: on_sys_x: not on_sys_NAME_enter, "
     "on_sys_NAME_return, on_all_sys_enter or on_all_sys_return"),
    (INIT + "panda.hsyscall('on_all_sys_enter')(self.f)\n    def f(self, cpu): pass", 5,
     "TypeError: A.f must take cpu, proto, syscall, hook, and up to 6 arguments of the call"),
    (INIT + "panda.hsyscall('on_sys_x_enter', arg_filter=[1.5])(print)", 5,
     "TypeError: arg0: neither a number, nor text, nor several of these: 1.5"),
    (INIT + "panda.hsyscall('on_all_sys_enter', retval_filter=1)(print)", 5, "ValueError: "
     "on_all_sys_enter: there is no result yet that retval_filter could test"),
    (INIT + "plugins.osi", 5, "AttributeError: there is no plugin osi here, only hypermem"),
    (INIT + "panda.hsyscall('on_sys_" + "x" * 100 + "_enter')(lambda *a: 0)", 5,
     "filter " + "x" * 100 + " enter regs: column 1: no call has so long a name"),
])
def test_a_plugin_that_cannot_run_says_why_in_a_line(world: World, tmp_path: Path, plugin: str,
                                                     line: int | None, reason: str) -> None:
    rc, said = run(world, tmp_path, plugin, "--seconds", 1)
    where = f", line {line}" if line else ""
    assert (rc, said) == (1, f"hypermem-run: {tmp_path / 'plugin.py'}{where}: {reason}\n")
    assert os.listdir(world.mnt / "hooks") == []
    assert ("Traceback" in run(world, tmp_path, plugin, "--verbose")[1]) == bool(line)


def test_the_command_line_is_checked(world: World, tmp_path: Path) -> None:
    plugin = "class A(PyPlugin): pass\nclass B(PyPlugin): pass"
    path = tmp_path / "plugin.py"
    assert run(world, tmp_path, plugin, "--plugin", "C") == (
        1, f"hypermem-run: {path}: no plugin C in it, but A, B\n")
    assert run(world, tmp_path, plugin, "--mount", tmp_path) == (
        1, f"hypermem-run: {tmp_path}: no guest is mounted there; mount one with hypermemfs\n")
    for option, value, reason in (("--arg", "x", "--arg x: not NAME=VALUE"),
                                  ("--timeout", "0", "0 is no number of seconds from 0.001 to 3600"),
                                  ("--seconds", "nan", "nan is no number of seconds from 0 on")):
        rc, said = run(world, tmp_path, plugin, option, value)
        assert rc == 2 and said.startswith("hypermem-run: ") and said.count("\n") == 1
        assert said.endswith(f"{reason} (see hypermem-run --help)\n")
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    argv = [sys.executable, "-m", "hypermem.run"]
    for name, reason in ((tmp_path / "none.py", "No such file or directory"),
                         (tmp_path, "not a file of Python's; a plugin's name ends in .py")):
        assert host([*argv, "--mount", world.mnt, name], env=env) == (
            1, b"", f"hypermem-run: {name}: {reason}\n".encode())
    done = host([*argv, "--help"], env=env)
    assert done.rc == 0 and b"--mount DIR" in done.out and b"143 SIGTERM" in done.out


@pytest.mark.fake("a real guest's module has what its kernel has")
@pytest.mark.parametrize("how, reason", [
    ("lacks=16", "Operation not supported; the guest's kernel has no kprobes, or is of an "
                 "architecture without hooks"),
    ("forbids=16", "Operation not permitted; load hypermem.ko in the guest without readonly=1")])
def test_a_guest_that_has_no_hooks_is_told_in_a_line(world: World, tmp_path: Path, how: str,
                                                     reason: str) -> None:
    with world.guest() as fake:
        fake.misbehave(how)
        with Mount(world.daemon, fake.socket) as mount:
            rc, said = run(world, tmp_path, INIT + "panda.hsyscall('on_all_sys_enter')(print)",
                           "--mount", mount.mnt)
    assert rc == 1 and said.endswith(f": {reason}\n") and said.count("\n") == 1
    assert said.startswith(f"hypermem-run: {mount.mnt}/hooks/A.print.")


def test_a_loop_may_have_any_time(guest: hypermem.Guest) -> None:
    """It is more than poll(2) takes at once."""
    guest.hook("fake_3_10")(lambda event: guest.stop())
    for seconds in 1e9, float("inf"):
        guest.run(seconds)


# The other ends.


def test_a_loop_outlives_the_guest(world: World) -> None:
    """What was hooked is hooked again when the guest is back."""
    with world.guest() as fake, Mount(world.daemon, fake.socket) as mount:
        guest = hypermem.Guest(mount.mnt)
        pids: list[int] = []

        @guest.hook("fake_3_10")
        def on_call(call: hypermem.Event) -> None:
            pids.append(call.process.pid)
            if len(pids) == 3:
                fake.kill()
                fake.start()
            elif len(pids) == 6:
                guest.stop()

        guest.run(30)
        guest.close()
        assert len(set(pids[:3])) == len(set(pids[3:])) == 1 and len(set(pids)) == 2
        mount.check(talks=True)


def test_a_loop_ends_with_the_mount(world: World, tmp_path: Path) -> None:
    with world.guest() as fake:
        mount = Mount(world.daemon, fake.socket)
        try:
            guest = hypermem.Guest(mount.mnt)
            guest.hook("fake_0_1")(print)
            timer = threading.Timer(0.2, mount.process.kill)
            timer.start()
            with pytest.raises(OSError) as gone:
                guest.run(30)
            assert gone.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
            assert gone.value.filename.endswith("/events")
            timer.join()
            with pytest.raises(OSError, match="hypermemfs has ended; unmount with") as gone:
                hypermem.Guest(mount.mnt)
            assert gone.value.errno == errno.ENOTCONN
        finally:
            mount.close()
