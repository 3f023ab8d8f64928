"""The host layer: entering and leaving native code, faults, signals, compiled blobs."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import anyarch
from anyarch.emit.compile import (
    Blob,
    Module,
    compile_blob,
    compile_object,
    compile_objects,
    link,
)
from anyarch.errors import CompileError, HostError
from anyarch.host import signalpage, signals
from anyarch.host.code import NativeCode, load
from anyarch.host.context import FIELDS, Context, ExitCode
from anyarch.host.cpu import PAGE, features, identity
from anyarch.host.forking import fork_with
from anyarch.host.mapping import (
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    map_pages,
    protect_pages,
    reserve,
    unmap_pages,
)
from anyarch.host.runtime import EXPORTS, runtime_text
from anyarch.host.signals import (
    claim_signal,
    default_signal,
    exchange_action,
    ignore_signal,
    install_fault_handlers,
    interrupt_on_ctrl_c,
    prepare_thread,
    release_signal,
    request_stop,
    take_pending,
)
from anyarch.host.stack import Stack

STOP, DETAIL, SCRATCH = (FIELDS[n][0] for n in ("stop", "exit_detail", "scratch"))
SYS_PAUSE, SYS_GETPID, SYS_READ, SYS_NANOSLEEP = 34, 39, 0, 35

HANDLERS = f"""
define hidden i32 @t_arguments(ptr %context, ptr %record, ptr %base) {{
  %p = getelementptr i8, ptr %context, i64 {DETAIL}
  %r = ptrtoint ptr %record to i64
  %b = ptrtoint ptr %base to i64
  %x = xor i64 %r, %b
  store volatile i64 %x, ptr %p
  ret i32 77
}}

define hidden i32 @t_load(ptr %context, ptr %record, ptr %base) {{
  %a = ptrtoint ptr %record to i64
  %p = getelementptr i8, ptr %base, i64 %a
  %v = load volatile i32, ptr %p, align 1
  ret i32 %v
}}

define hidden i32 @t_store(ptr %context, ptr %record, ptr %base) {{
  %a = ptrtoint ptr %record to i64
  %p = getelementptr i8, ptr %base, i64 %a
  store volatile i32 99, ptr %p, align 1
  ret i32 99
}}

define hidden i32 @t_divide(ptr %context, ptr %record, ptr %base) {{
  %a.p = getelementptr i8, ptr %context, i64 {SCRATCH}
  %a = load volatile double, ptr %a.p
  %q = fdiv double 1.0, %a
  %p = getelementptr i8, ptr %context, i64 {DETAIL}
  store volatile double %q, ptr %p
  %r = ptrtoint ptr %record to i64
  %fault = icmp ne i64 %r, 0
  br i1 %fault, label %bad, label %good
bad:
  %v = load volatile i32, ptr %record
  ret i32 %v
good:
  ret i32 5
}}

define hidden i32 @t_spin(ptr %context, ptr %record, ptr %base) {{
entry:
  br label %loop
loop:
  %p = getelementptr i8, ptr %context, i64 {STOP}
  %s = load atomic i32, ptr %p monotonic, align 4
  %c = icmp eq i32 %s, 0
  br i1 %c, label %loop, label %out
out:
  ret i32 {int(ExitCode.STOP)}
}}

define hidden i32 @t_jump(ptr %context, ptr %record, ptr %base) {{
  %r = call i32 %record(ptr %context)
  ret i32 %r
}}

define hidden i32 @t_getpid(ptr %context, ptr %record, ptr %base) {{
  %r = call i64 @aa_syscall(ptr %context, i64 39, i64 0, i64 0, i64 0, i64 0, i64 0, i64 0)
  %t = trunc i64 %r to i32
  ret i32 %t
}}

define hidden i32 @t_mxcsr(ptr %context, ptr %record, ptr %base) {{
  %p = getelementptr i8, ptr %context, i64 {SCRATCH}
  call void asm sideeffect "stmxcsr $0", "*m,~{{memory}}"(ptr elementtype(i32) %p)
  %v = load volatile i32, ptr %p
  ret i32 %v
}}
"""


@pytest.fixture(scope="module")
def native() -> NativeCode:
    return load(compile_blob(runtime_text() + HANDLERS))


class Machine:
    """A context on the calling thread, ready to run, with 1 MiB of memory reserved."""

    def __init__(self, native: NativeCode) -> None:
        self.native = native
        self.context = Context()
        self.stack = Stack()
        self.base = reserve(1 << 20, PAGE)
        install_fault_handlers(native)
        native.bind(self.context)
        self.stack.attach(self.context)
        self.context.set("memory_base", self.base)
        prepare_thread(self.context)

    def run(self, name: str, record: int = 0) -> int:
        return self.native.enter(self.context, self.native.address(name), record)

    def fault(self) -> tuple[int, int, int]:
        get = self.context.get
        return get("fault_address"), get("fault_signal"), get("fault_code")


@pytest.fixture
def machine(native: NativeCode) -> Iterator[Machine]:
    machine = Machine(native)
    yield machine
    unmap_pages(machine.base, 1 << 20)


# Compiled blobs


def test_blob_exports_hidden_and_global_symbols() -> None:
    blob = compile_blob(
        "define i32 @f() { ret i32 42 }\n"
        "define hidden i32 @g() { ret i32 43 }\n"
        "define internal i32 @h() { ret i32 44 }\n"
        "@table = constant [2 x i32] [i32 7, i32 8]\n"
    )
    assert set(blob.symbols) == {"f", "g", "table"}
    code = load(blob)
    function = ctypes.CFUNCTYPE(ctypes.c_int)
    assert function(code.address("f"))() == 42
    assert function(code.address("g"))() == 43
    assert ctypes.c_int.from_address(code.address("table") + 4).value == 8
    assert code.start <= code.address("f") < code.end


@pytest.mark.parametrize("jobs", [1, 2])
def test_modules_are_compiled_apart_and_linked(jobs: int) -> None:
    caller = Module(
        "declare i32 @g(i32)\n@shared = external constant i32\n"
        "define i32 @f() {\n  %a = load i32, ptr @shared\n  %b = call i32 @g(i32 %a)\n"
        "  ret i32 %b\n}\n"
    )
    callee = Module(
        "@shared = constant i32 20\n"
        "define i32 @g(i32 %a) {\n  %b = add i32 %a, 22\n  ret i32 %b\n}\n"
    )
    told: list[int] = []
    elfs = compile_objects([caller, callee], jobs, told.append)
    assert told == [1, 2]
    assert elfs == [compile_object(module.text) for module in (caller, callee)]
    for order in (elfs, elfs[::-1]):
        code = load(link(order))
        assert ctypes.CFUNCTYPE(ctypes.c_int)(code.address("f"))() == 42
        code.unmap()
    with pytest.raises(CompileError, match="undefined symbol g, shared"):
        link(elfs[:1])
    with pytest.raises(CompileError, match="is defined twice"):
        link([*elfs, elfs[1]])
    with pytest.raises(CompileError, match="nonsense"):
        compile_objects([caller, Module("nonsense")], jobs)


ALIGNED = """
define hidden void @f(ptr %callee) {
  call void %callee()
  ret void
}
"""


def test_a_module_has_the_stack_alignment_that_it_asks_for() -> None:
    """Whatever was compiled before it: what calls the C library keeps 16 bytes."""
    narrow = '!0 = !{i32 1, !"override-stack-alignment", i32 8}\n!llvm.module.flags = !{!0}'
    codes = [compile_blob(ALIGNED + flags).code for flags in ("", narrow, "", narrow)]
    assert codes[0] == codes[2]
    assert codes[1] == codes[3]
    assert len(codes[0]) > len(codes[1]), "the frame is padded"


def test_blob_resolves_relative_tables_and_addresses_of_functions() -> None:
    text = """
    @table = constant [2 x i32] [
      i32 trunc (i64 sub (i64 ptrtoint (ptr @f to i64), i64 ptrtoint (ptr @table to i64)) to i32),
      i32 trunc (i64 sub (i64 ptrtoint (ptr @g to i64), i64 ptrtoint (ptr @table to i64)) to i32)]
    @wide = constant i64 sub (i64 ptrtoint (ptr @f to i64), i64 ptrtoint (ptr @wide to i64))
    define i32 @f(i32 %x) { ret i32 1 }
    define i32 @g(i32 %x) { ret i32 2 }
    define i32 @pick(i64 %i) {
      %p = getelementptr [2 x i32], ptr @table, i64 0, i64 %i
      %o = load i32, ptr %p
      %w = sext i32 %o to i64
      %q = getelementptr i8, ptr @table, i64 %w
      %r = call i32 %q(i32 0)
      ret i32 %r
    }
    define ptr @address() noinline { ret ptr @g }
    """
    for opt in (0, 1, 2, 3):
        code = load(compile_blob(text, opt=opt))
        pick = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64)(code.address("pick"))
        assert [pick(0), pick(1)] == [1, 2]
        address = ctypes.CFUNCTYPE(ctypes.c_void_p)(code.address("address"))
        assert address() == code.address("g")
        wide = code.address("wide")
        assert wide + ctypes.c_int64.from_address(wide).value == code.address("f")


@pytest.mark.parametrize(
    ("load_bytes", "name"),
    [
        ("mov target@GOTPCREL(%rip), %rax; jmp *%rax", "mov"),
        ("call *target@GOTPCREL(%rip); ret", "call"),
        ("jmp *target@GOTPCREL(%rip)", "jmp"),
    ],
)
def test_blob_relaxes_offset_table(load_bytes: str, name: str) -> None:
    align = "sub $8, %rsp; " if name == "call" else ""
    undo = load_bytes.replace("; ret", "; add $8, %rsp; ret")
    text = f"""
    module asm ".globl entry"
    module asm "entry: {align}{undo}"
    define i32 @target() {{ ret i32 31 }}
    """
    code = load(compile_blob(text))
    assert ctypes.CFUNCTYPE(ctypes.c_int)(code.address("entry"))() == 31


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "declare i32 @puts(ptr)\ndefine i32 @f() { %r = call i32 @puts(ptr null) ret i32 %r }",
            "puts",
        ),
        ("define i128 @f(i128 %a, i128 %b) { %r = udiv i128 %a, %b ret i128 %r }", "__udivti3"),
        ("@x = global i32 5", "writable"),
        ("@x = global i32 0\ndefine ptr @f() { ret ptr @x }", "writable"),
        ("@x = constant ptr @f\ndefine i32 @f() { ret i32 1 }", "absolute"),
        ("define i32 @f() {\n  ret i33 1\n}", r"line 2.*ret i33 1"),
    ],
)
def test_blob_that_does_not_stand_alone_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compile_blob(text)


def test_mapping_is_never_writable_and_executable(native: NativeCode) -> None:
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split()[:2]
        low, high = (int(x, 16) for x in span.split("-"))
        if low <= native.start < high:
            assert permissions == "r-xp"
            break
    else:
        pytest.fail("the blob is not mapped")


def test_empty_and_unbindable_blobs_are_errors() -> None:
    with pytest.raises(HostError, match="empty"):
        load(Blob(b"", {}))
    with pytest.raises(HostError, match="aa_leave"):
        load(Blob(b"\xc3", {"f": 0})).bind(Context())


def test_fields_of_the_context_do_not_overlap() -> None:
    places = sorted((*place, name) for name, place in FIELDS.items() if name != "stack_limit")
    for (start, nbytes, name), (following, _, other) in pairwise(places):
        assert start + nbytes <= following, f"{name} and {other}"


# Entering, leaving, faults


def test_enter_passes_arguments_and_returns_result(machine: Machine) -> None:
    assert machine.run("t_arguments", 0x1234) == 77
    assert machine.context.get("exit_detail") == 0x1234 ^ machine.base
    assert machine.context.get("exit_code") == 77
    assert machine.context.get("in_native") == 0


def test_runtime_exports(native: NativeCode) -> None:
    assert all(name in native for name in EXPORTS)


@pytest.mark.parametrize("name", ["t_load", "t_store"])
def test_unmapped_access_is_a_fault_with_guest_address(machine: Machine, name: str) -> None:
    for _ in range(3):  # the handler must be as good the second time
        assert machine.run(name, 0x5678) == ExitCode.FAULT
        assert machine.fault() == (0x5678, signal.SIGSEGV, 2)  # SEGV_ACCERR: reserved memory
        assert machine.context.get("exit_code") == ExitCode.FAULT
        assert machine.context.get("in_native") == 0


def test_write_to_read_only_memory_faults(machine: Machine) -> None:
    protect_pages(machine.base, PAGE, PROT_READ)
    assert machine.run("t_load", 16) == 0
    assert machine.run("t_store", 16) == ExitCode.FAULT
    assert machine.fault() == (16, signal.SIGSEGV, 2)
    protect_pages(machine.base, PAGE, PROT_READ | PROT_WRITE)
    assert machine.run("t_store", 16) == 99
    assert machine.run("t_load", 16) == 99


def test_access_outside_any_mapping(machine: Machine) -> None:
    hole = map_pages(PAGE, PROT_NONE)
    unmap_pages(hole, PAGE)
    address = (hole - machine.base) % 2**64
    assert machine.run("t_load", address) == ExitCode.FAULT
    assert machine.fault() == (address, signal.SIGSEGV, 1)  # SEGV_MAPERR


def test_bus_error_past_the_end_of_a_file(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 10)
    with path.open("r+b") as file:
        pages = map_pages(
            2 * PAGE, PROT_READ, pointer=machine.base, flags=1 | 0x10, fd=file.fileno()
        )
    assert pages == machine.base
    assert machine.run("t_load", 0) == int.from_bytes(b"xxxx", "little")
    assert machine.run("t_load", PAGE + 4) == ExitCode.FAULT
    assert machine.fault() == (PAGE + 4, signal.SIGBUS, 2)  # BUS_ADRERR


def test_mxcsr_is_separate(machine: Machine) -> None:
    nearest, down = 0x1F80, 0x1F80 | 0x2000
    context = machine.context
    context.set("mxcsr", nearest)
    machine.run("t_mxcsr")
    assert context.get("scratch") & 0xFFFF == nearest
    values = {}
    for mode in (nearest, down | 0x4000):  # to nearest, towards zero
        context.set("mxcsr", mode)
        context.set(
            "scratch", int.from_bytes(memoryview(ctypes.c_double(-3.0)).tobytes(), "little")
        )
        assert machine.run("t_divide") == 5
        values[mode] = context.get("exit_detail")
        assert context.get("mxcsr") == mode | 0x20  # inexact is sticky, the rest unchanged
        assert -1.0 / float("3") == -0.3333333333333333
    context.set("mxcsr", down)
    context.set("scratch", int.from_bytes(memoryview(ctypes.c_double(-3.0)).tobytes(), "little"))
    machine.run("t_divide")
    assert context.get("exit_detail") == values[nearest] + 1  # one unit lower


def test_mxcsr_at_a_fault_is_the_guests(machine: Machine) -> None:
    machine.context.set("mxcsr", 0x1F80 | 0x6000)
    machine.context.set("scratch", int.from_bytes(memoryview(ctypes.c_double(3.0)), "little"))
    assert machine.run("t_divide", machine.base + 8) == ExitCode.FAULT
    assert machine.fault()[0] == 8
    assert machine.context.get("mxcsr") == 0x1F80 | 0x6000 | 0x20
    assert 1.0 / float("3") == 0.3333333333333333


def test_stop_flag_ends_a_loop(machine: Machine) -> None:
    timer = threading.Timer(0.05, request_stop, [machine.context])
    timer.start()
    assert machine.run("t_spin") == ExitCode.STOP
    timer.join()


def test_two_threads_fault_at_once(native: NativeCode) -> None:
    results: dict[int, list[tuple[int, ...]]] = {}
    barrier = threading.Barrier(2)

    def work(which: int) -> None:
        machine = Machine(native)
        barrier.wait()
        results[which] = []
        for i in range(500):
            address = which * 4096 + i
            results[which].append((machine.run("t_load", address), *machine.fault(), address))

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in (1, 2):
        assert len(results[which]) == 500
        for code, address, number, _, expected in results[which]:
            assert (code, address, number) == (ExitCode.FAULT, expected, signal.SIGSEGV)


def test_threads_give_back_their_slots(native: NativeCode) -> None:
    def work() -> None:
        assert Machine(native).run("t_load", 4) == ExitCode.FAULT

    def run_threads(count: int) -> int:
        for _ in range(count):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return signals._actions().used_slots

    assert run_threads(2) == run_threads(5)


def test_a_thread_may_change_its_context(native: NativeCode) -> None:
    first, second = Machine(native), Machine(native)
    for machine in (first, second, first):
        prepare_thread(machine.context)
        assert machine.run("t_load", 0x123) == ExitCode.FAULT
        assert machine.fault()[0] == 0x123
        machine.context.set("fault_address", 0)


def test_forked_child_has_its_own_faults(machine: Machine) -> None:
    pid = os.fork()
    if pid == 0:
        ok = machine.run("t_load", 0x777) == ExitCode.FAULT and machine.fault()[0] == 0x777
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_stack_has_a_guard() -> None:
    stack = Stack(64 * 1024)
    ctypes.memset(stack.top - stack.nbytes, 1, stack.nbytes)
    maps = Path("/proc/self/maps").read_text()
    ranges = [(line.split()[0].split("-"), line.split()[1]) for line in maps.splitlines()]
    assert any(
        int(start, 16) <= stack.guard and int(end, 16) == stack.top - stack.nbytes
        for (start, end), permissions in ranges
        if permissions == "---p"
    )
    with pytest.raises(HostError, match="power of two"):
        Stack(1000)


# Signals


def test_guest_signal_is_noted_with_its_siginfo(machine: Machine) -> None:
    native, context = machine.native, machine.context
    before = exchange_action(signal.SIGUSR1, None)
    claim_signal(signal.SIGUSR1, native)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert context.get("stop") == 1
        ((number, info),) = take_pending(native, context)
        assert number == signal.SIGUSR1
        assert int.from_bytes(info[0:4], "little") == signal.SIGUSR1
        assert int.from_bytes(info[16:20], "little") == os.getpid()
        assert take_pending(native, context) == []
    finally:
        release_signal(signal.SIGUSR1)
    assert exchange_action(signal.SIGUSR1, None) == before


def test_fault_signal_sent_by_kill_belongs_to_the_guest(machine: Machine) -> None:
    claim_signal(signal.SIGSEGV, machine.native)
    try:
        os.kill(os.getpid(), signal.SIGSEGV)
        assert [n for n, _ in take_pending(machine.native, machine.context)] == [signal.SIGSEGV]
        assert machine.run("t_load", 0x99) == ExitCode.FAULT
        assert take_pending(machine.native, machine.context) == []
    finally:
        release_signal(signal.SIGSEGV)


def test_realtime_signals_queue(machine: Machine) -> None:
    libc = ctypes.CDLL(None)
    number = signal.SIGRTMIN + 3
    claim_signal(number, machine.native)
    try:
        for value in (11, 22, 33):
            # To this thread: of a process's signals the second may reach another one first.
            this = ctypes.c_ulong(threading.get_ident())
            assert libc.pthread_sigqueue(this, number, ctypes.c_void_p(value)) == 0
        values = []
        for _ in range(3):
            ((got, info),) = take_pending(machine.native, machine.context)
            assert got == number
            values.append(int.from_bytes(info[24:32], "little"))
        assert values == [11, 22, 33]
    finally:
        release_signal(number)


def test_signal_that_reaches_another_thread_is_passed_on(native: NativeCode) -> None:
    """A thread without a context gets it; the guest's blocks in a system call."""
    ready = threading.Event()
    seen: list[object] = []

    def guest() -> None:
        machine = Machine(native)
        ready.set()
        result = native.syscall(machine.context, SYS_PAUSE)
        seen.extend([result, [n for n, _ in take_pending(native, machine.context)]])

    # As in a thread that never ran a guest.
    signals._thread_state.__dict__.pop("holder", None)
    thread = threading.Thread(target=guest)
    claim_signal(signal.SIGUSR2, native)
    try:
        thread.start()
        ready.wait()
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        thread.join(5)
        assert not thread.is_alive()
    finally:
        release_signal(signal.SIGUSR2)
    assert seen in ([-4, [signal.SIGUSR2]], [-512, [signal.SIGUSR2]])


def test_ignored_and_default_signals(native: NativeCode) -> None:
    before = exchange_action(signal.SIGUSR1, None)
    ignore_signal(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)  # does not kill
    default_signal(signal.SIGUSR1)
    assert exchange_action(signal.SIGUSR1, None)[:8] == bytes(8)
    release_signal(signal.SIGUSR1)
    assert exchange_action(signal.SIGUSR1, None) == before
    with pytest.raises(HostError, match="cannot be caught"):
        claim_signal(signal.SIGKILL, native)


def test_syscall(machine: Machine) -> None:
    native, context = machine.native, machine.context
    assert native.syscall(context, SYS_GETPID) == os.getpid()
    assert machine.run("t_getpid") == os.getpid()
    read, write = os.pipe()
    buffer = ctypes.create_string_buffer(8)
    os.write(write, b"hello")
    assert native.syscall(context, SYS_READ, read, ctypes.addressof(buffer), 8) == 5
    assert buffer.value == b"hello"
    assert native.syscall(context, SYS_READ, 9999, 0, 0) == -9
    # Six arguments: an mmap.
    offset = mmap.ALLOCATIONGRANULARITY
    fd = os.memfd_create("six")
    os.pwrite(fd, b"page two", offset)
    pointer = native.syscall(context, 9, 0, PAGE, PROT_READ, 2, fd, offset)
    assert ctypes.string_at(pointer, 8) == b"page two"
    unmap_pages(pointer, PAGE)
    context.set("stop", 1)
    assert native.syscall(context, SYS_GETPID) == -512
    for descriptor in (read, write, fd):
        os.close(descriptor)


def test_request_stop_ends_a_blocking_system_call(machine: Machine) -> None:
    timer = threading.Timer(0.05, request_stop, [machine.context])
    timer.start()
    assert machine.native.syscall(machine.context, SYS_PAUSE) == -4
    timer.join()
    machine.context.set("stop", 0)
    read, write = os.pipe()
    timer = threading.Timer(0.05, request_stop, [machine.context])
    timer.start()
    buffer = ctypes.create_string_buffer(8)
    pointer = ctypes.addressof(buffer)
    # A restartable call says so: the kernel would have repeated it.
    assert machine.native.syscall(machine.context, SYS_READ, read, pointer, 8) == -512
    timer.join()
    os.close(read)
    os.close(write)


def test_signal_just_before_a_system_call_prevents_it(machine: Machine) -> None:
    """Every program counter of the window, with a made-up signal frame."""
    native, context = machine.native, machine.context
    code = map_pages(signalpage.STACK_NBYTES, PROT_READ | PROT_WRITE)
    unmap_pages(code, signalpage.STACK_NBYTES)
    base = reserve(signalpage.STACK_NBYTES, signalpage.STACK_NBYTES)
    protect_pages(base, PAGE, PROT_READ | PROT_WRITE)
    ctypes.c_uint64.from_address(base).value = context.pointer
    ctypes.c_uint64.from_address(base + 8).value = signalpage.STACK_MAGIC
    page = ctypes.create_string_buffer(signalpage.PAGE_NBYTES)
    page[signalpage.MODES + signal.SIGUSR1] = signalpage.MODE_GUEST
    info = ctypes.create_string_buffer(128)
    handler = ctypes.CFUNCTYPE(
        None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
    )(native.address("aa_signal"))
    start, end = (native.address(f"aa_syscall_window{s}") for s in ("", "_end"))
    interrupted = native.address("aa_syscall_interrupted")
    for pc in range(start - 3, end + 2):
        frame = (ctypes.c_uint64 * 64)()
        frame[2], frame[4] = base + signalpage.STACK_START, 65536 - signalpage.STACK_START
        frame[21] = pc
        context.set("stop", 0)
        handler(signal.SIGUSR1, info, frame, page)
        assert frame[21] == (interrupted if start <= pc < end else pc)
        assert context.get("stop") == 1
    assert context.get("pending") == 1 << (signal.SIGUSR1 - 1)
    unmap_pages(base, signalpage.STACK_NBYTES)


def test_no_signal_is_lost_before_a_blocking_system_call(machine: Machine) -> None:
    native, context = machine.native, machine.context
    claim_signal(signal.SIGALRM, native)
    late = threading.Event()

    def rescue() -> None:
        late.set()
        request_stop(context)

    watchdog = threading.Timer(20, rescue)
    watchdog.start()
    results = set()
    generator = random.Random(1)
    try:
        for _ in range(2000):
            context.set("stop", 0)
            signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-6, 60e-6))
            results.add(native.syscall(context, SYS_PAUSE))
            assert not late.is_set(), "pause() was not interrupted"
            assert [n for n, _ in take_pending(native, context)] == [signal.SIGALRM]
    finally:
        watchdog.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)
        release_signal(signal.SIGALRM)
    assert results <= {-4, -512}


@pytest.mark.parametrize("where", ["t_spin", "pause"])
def test_ctrl_c_stops_native_code_and_raises(machine: Machine, where: str) -> None:
    before = exchange_action(signal.SIGINT, None)
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.1, interrupt)
    with pytest.raises(KeyboardInterrupt), interrupt_on_ctrl_c(machine.native):
        timer.start()
        if where == "pause":
            machine.native.syscall(machine.context, SYS_PAUSE)
        else:
            machine.run(where)
    assert time.perf_counter() - sent < 0.05
    timer.join()
    assert exchange_action(signal.SIGINT, None) == before


def test_ctrl_c_stops_every_thread(native: NativeCode) -> None:
    ready = threading.Barrier(3)
    results: list[int] = []

    def guest(name: str) -> None:
        machine = Machine(native)
        ready.wait()
        if name == "pause":
            results.append(native.syscall(machine.context, SYS_PAUSE))
        else:
            results.append(machine.run(name))

    threads = [threading.Thread(target=guest, args=(n,)) for n in ("pause", "t_spin")]
    for thread in threads:
        thread.start()
    with pytest.raises(KeyboardInterrupt), interrupt_on_ctrl_c(native):
        ready.wait()
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert sorted(results) in ([-4, 1], [-512, 1])


CRASH = """
import sys, faulthandler, ctypes, os
sys.path[:0] = {path!r}
order, where = {order!r}, {where!r}
if order == "before": faulthandler.enable()
import test_host
native = test_host.load(test_host.compile_blob(test_host.runtime_text() + test_host.HANDLERS))
machine = test_host.Machine(native)
if order == "after":
    faulthandler.enable()
    test_host.install_fault_handlers(native)
    test_host.prepare_thread(machine.context)
for i in range(5):
    assert machine.run("t_load", 0x1000 + i) == 5
    assert machine.fault()[0] == 0x1000 + i
sys.stderr.write("guest faults handled\\n")
sys.stderr.flush()
def crash_here():
    if where == "python": ctypes.string_at(8)
    elif where == "jump": machine.run("t_jump", 64)
    elif where == "abort": os.kill(os.getpid(), 11)
    elif where == "thread":
        import threading
        t = threading.Thread(target=ctypes.string_at, args=(8,)); t.start(); t.join()
crash_here()
"""


@pytest.mark.parametrize("order", ["before", "after", "never"])
@pytest.mark.parametrize("where", ["python", "jump", "abort", "thread"])
def test_other_faults_reach_the_previous_handler(order: str, where: str) -> None:
    paths = [str(Path(__file__).parent), *[p for p in sys.path if p]]
    script = CRASH.format(path=paths, order=order, where=where)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "guest faults handled" in done.stderr
    assert done.returncode == -signal.SIGSEGV, done.stderr
    if order == "never":
        assert "Fatal Python error" not in done.stderr
    else:
        assert done.stderr.count("Fatal Python error: Segmentation fault") == 1
        if where != "thread":
            assert "crash_here" in done.stderr


def test_processor() -> None:
    assert PAGE == mmap.PAGESIZE
    assert "sse2" in features()
    assert identity() == identity() != ""


FORKING = """
import os, sys, threading
from anyarch.host.forking import fork_with

stop = False

def spin():
    while not stop:
        pass

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=spin) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(150):
    pid = fork_with(0, 17, 0)
    if pid == 0:
        os._exit(threading.active_count() + threading.get_native_id() % 2)
    assert os.waitpid(pid, 0)[1] >> 8 == 1 + pid % 2
stop = True
"""


def test_fork_while_others_want_pythons_lock() -> None:
    """A child that offered it to them would wait for ever."""
    environment = dict(os.environ, PYTHONPATH=str(Path(anyarch.__file__).parents[1]))
    command = [sys.executable, "-c", FORKING]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_fork_that_is_refused() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        fork_with(0x10000, 17, 0)  # CLONE_THREAD without memory that is shared
