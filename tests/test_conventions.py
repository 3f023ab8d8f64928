"""Where native code and Python meet: arguments, preserved registers, MXCSR, and asking to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyarch import Cpu
from anyarch._native import native_code
from anyarch.emit.compile import compile_blob
from anyarch.engine.interpreter import Interpreter
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.code import NativeCode, load
from anyarch.host.context import FIELDS, REGISTERS, Context, ExitCode
from anyarch.host.mapping import unmap_pages
from anyarch.host.runtime import runtime_text
from anyarch.host.signals import install_fault_handlers, prepare_thread
from anyarch.host.stack import Stack
from anyarch.isa.assembly import assemble
from anyarch.linux.thunks import TABLE_NBYTES, empty_thunk_table
from anyarch.memory.space import AddressSpace
from tests.programs.build import RISCV, ROOT, compile_c

PAGE = 4096
CODE = 0x10000
SYS_MMAP = 9
BLOCK = FIELDS["syscall_block"][0]
SLOT = FIELDS["scratch"][0]
SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")

# Each of three handlers notes its arguments, and tail-calls the next with another record.
CHAIN = "\n".join(
    f"""
define hidden i32 @t_chain{index}(ptr noalias %context, ptr %record, ptr %memory) {{
  %p = getelementptr i8, ptr %context, i64 {REGISTERS + 32 * index}
  %c = ptrtoint ptr %context to i64
  %r = ptrtoint ptr %record to i64
  %m = ptrtoint ptr %memory to i64
  store volatile i64 %c, ptr %p
  %p1 = getelementptr i8, ptr %p, i64 8
  store volatile i64 %r, ptr %p1
  %p2 = getelementptr i8, ptr %p, i64 16
  store volatile i64 %m, ptr %p2
  %next = getelementptr i8, ptr %record, i64 16
  {
        f'''%x = musttail call i32 @t_chain{index + 1}(ptr noalias %context, ptr %next, ptr %memory)
  ret i32 %x'''
        if index < 2
        else "ret i32 42"
    }
}}
"""
    for index in (2, 1, 0)
)

# A caller whose every callee-saved register holds its own value around aa_enter: bits of its
# result are the registers that came back changed. And handlers that overwrite them all.
ASSEMBLY = f"""\
.intel_syntax noprefix
.text
.globl t_caller
.hidden t_caller
.type t_caller, @function
t_caller:
    {"; ".join(f"push {name}" for name in SAVED)}
    sub rsp, 8
    {"; ".join(f"mov {name}, {0x1111 * (i + 1)}" for i, name in enumerate(SAVED))}
    call aa_enter
    xor eax, eax
    {
    "; ".join(
        f"cmp {name}, {0x1111 * (i + 1)}; setne cl; movzx ecx, cl; shl ecx, {i}; or eax, ecx"
        for i, name in enumerate(SAVED)
    )
}
    add rsp, 8
    {"; ".join(f"pop {name}" for name in reversed(SAVED))}
    ret
.globl t_fault
.hidden t_fault
.type t_fault, @function
t_fault:
    {"; ".join(f"mov {name}, -1" for name in SAVED)}
    mov rsi, 0x1234
    mov eax, dword ptr [rsi]
    ret
.globl t_mxcsr
.hidden t_mxcsr
.type t_mxcsr, @function
t_mxcsr:
    stmxcsr [rdi]
    ret
.att_syntax
"""


@pytest.fixture(scope="module")
def native() -> NativeCode:
    lines = "\n".join(f'module asm "{line}"' for line in ASSEMBLY.splitlines())
    declarations = "declare i32 @t_caller(ptr, ptr, ptr)\ndeclare i32 @t_fault(ptr, ptr, ptr)\n"
    return load(compile_blob(f"{runtime_text()}\n{lines}\n{declarations}{CHAIN}"))


@pytest.fixture
def context(native: NativeCode) -> Iterator[Context]:
    made, stack = Context(), Stack()
    stack.attach(made)
    native.bind(made)
    install_fault_handlers(native)
    prepare_thread(made)
    yield made
    del stack


def mxcsr(native: NativeCode) -> int:
    """This thread's MXCSR, as Python has it."""
    value = ctypes.c_uint32()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(native.address("t_mxcsr"))(ctypes.addressof(value))
    return value.value


def test_arguments_arrive_in_every_handler(native: NativeCode, context: Context) -> None:
    base, record = 0x7FFF_1234_5000, 0x0BAD_CAFE_0000
    context.set("memory_base", base)
    assert native.enter(context, native.address("t_chain0"), record) == 42
    assert context.get("exit_code") == 42
    for index in range(3):
        found = struct.unpack_from("<3Q", context.view, REGISTERS + 32 * index)
        assert found == (context.pointer, record + 16 * index, base)


@pytest.mark.parametrize("handler", ["t_chain0", "t_fault"])
def test_callee_saved_registers_survive(native: NativeCode, context: Context, handler: str) -> None:
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3)
    caller = prototype(native.address("t_caller"))
    assert caller(context.pointer, native.address(handler), 0) == 0
    assert context.get("exit_code") == (ExitCode.FAULT if handler == "t_fault" else 42)
    assert context.get("fault_address") == (0x1234 if handler == "t_fault" else 0)


def check_mapping(pointer: int, nbytes: int, fd: int, offset: int) -> None:
    """A mapping shows all six arguments of the call that made it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, prot, found_offset, _, inode, *_ = line.split()
        if span == f"{pointer:x}-{pointer + nbytes:x}":
            assert prot == "-w-s"
            assert int(found_offset, 16) == offset
            assert int(inode) == os.fstat(fd).st_ino
            return
    pytest.fail(f"no mapping is {pointer:x}-{pointer + nbytes:x}")


@pytest.fixture
def wanted() -> Iterator[tuple[int, ...]]:
    """Arguments of mmap, no two of them equal."""
    fd = os.memfd_create("arguments")
    while fd < 20:  # equal to none of the flags
        fd = os.dup(fd)
    os.ftruncate(fd, 64 * PAGE)
    pointer = 0x1234_5670_0000
    fixed_noreplace, shared = 0x100000, 1
    yield pointer, 5 * PAGE, 2, fixed_noreplace | shared, fd, 7 * PAGE
    unmap_pages(pointer, 5 * PAGE)
    os.closerange(20, fd + 1)


def test_system_call_passes_every_argument(
    native: NativeCode, context: Context, wanted: tuple[int, ...]
) -> None:
    assert native.syscall(context, SYS_MMAP, *wanted) == wanted[0]
    assert struct.unpack_from("<7Q", context.view, BLOCK) == (SYS_MMAP, *wanted)
    check_mapping(wanted[0], wanted[1], wanted[4], wanted[5])


@pytest.mark.parametrize("number", [1, 300, 511])
def test_native_thunk_passes_every_argument(wanted: tuple[int, ...], number: int) -> None:
    space = AddressSpace(38)
    engine = Interpreter(ARCHITECTURE, space, native_code("riscv64"), thunk="aa_linux_thunk")
    table = bytearray(empty_thunk_table())
    assert len(table) == TABLE_NBYTES
    struct.pack_into("<h", table, 16 * number, SYS_MMAP)
    buffer = ctypes.create_string_buffer(bytes(table), len(table))
    engine.context.set("syscall_table", ctypes.addressof(buffer))
    places = [REGISTERS + ARCHITECTURE.layout.offset("x", n) for n in (17, *range(10, 16), 10)]
    start = FIELDS["abi"][0]
    engine.context.view[start : start + 16] = struct.pack("<8H", *places)
    space.map(CODE, PAGE, 7, fixed=True)
    space.write(CODE, assemble(ARCHITECTURE, "ecall; ebreak", CODE))
    engine.state.pc = CODE
    engine.state.set("x", 17, number)
    for index, value in enumerate(wanted):
        engine.state.set("x", 10 + index, value)
    assert engine.run().code is ExitCode.BREAKPOINT
    assert engine.state.get("x", 10) == wanted[0]
    check_mapping(wanted[0], wanted[1], wanted[4], wanted[5])
    assert struct.unpack_from("<Q", buffer, 16 * number + 8)[0] == 1  # calls counted


RAISING = """
csrw fcsr, a0; li a1, 1; fcvt.d.l fa0, a1; li a2, 3; fcvt.d.l fa1, a2; fdiv.d fa2, fa0, fa1
fmv.d.x fa3, zero; fdiv.d fa4, fa0, fa3; fdiv.d fa5, fa3, fa3; li a3, 0x7fe; slli a3, a3, 52
fmv.d.x ft0, a3; fmul.d ft1, ft0, ft0; li a4, 1; slli a4, a4, 52; fmv.d.x ft2, a4
fmul.d ft3, ft2, fa2
"""


@pytest.mark.parametrize("ending", ["ebreak", "ld a0, 0(zero)", "fence.i; ecall", ".word 0"])
@pytest.mark.parametrize("rounding", range(8))
def test_python_arithmetic_is_unaffected(native: NativeCode, rounding: int, ending: str) -> None:
    cpu = Cpu("riscv64")
    cpu.map(CODE, PAGE, "rwx")
    text = "; ".join([*RAISING.strip().splitlines(), ending if ending[0] != "." else "nop"])
    end = cpu.write_assembly(CODE, text)
    if ending[0] == ".":
        cpu.write(end - 4, bytes(4))
    before = mxcsr(native)
    cpu["a0"] = rounding << 5
    cpu.run(CODE)
    assert mxcsr(native) == before
    assert cpu["frm"] == rounding
    if rounding < 5:
        assert cpu["fflags"] == 0x1F
    one, three, ten = float("1"), float("3"), float("10")
    assert (one / three).hex() == "0x1.5555555555555p-2"
    assert (-one / three).hex() == "-0x1.5555555555555p-2"
    assert (one / ten).hex() == "0x1.999999999999ap-4"
    assert (-one / ten).hex() == "-0x1.999999999999ap-4"


# Asking to stop

STRAIGHT = "; ".join(["addi a0, a0, 1"] * 900) + "; j .-3600"
LOOPS = {
    "loop": "loop: addi a0, a0, 1; bnez a0, loop",
    "one instruction": "j .+0",
    "register jump": "loop: addi a0, a0, 1; jr a1",
    "recursion": "f: addi sp, sp, -16; sd ra, 0(sp); jal ra, f",
    "straight line": STRAIGHT,
    "emulated": "loop: fadd.d ft0, ft1, ft2, rmm; j loop",
    "announcing": "loop: fence.i; j loop",
}
LATENCY = 0.050  # seconds; the best of several tries, since the machine may be busy


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("counting", [False, True], ids=["plain", "counting"])
def test_stop_is_quick(name: str, counting: bool) -> None:
    latencies = []
    for _ in range(5):
        cpu = Cpu("riscv64")
        cpu.map(CODE, 2 * PAGE)
        cpu.map(0x100000, 1 << 30)
        cpu["sp"] = 0x100000 + (1 << 30)
        cpu["a1"] = CODE
        cpu.write_assembly(CODE, LOOPS[name])
        asked: list[float] = []

        def ask(cpu: Cpu = cpu, asked: list[float] = asked) -> None:
            asked.append(time.perf_counter())
            cpu.stop()

        timer = threading.Timer(0.01, ask)
        timer.start()
        ended = cpu.run(CODE, count=1 << 50 if counting else None)
        latencies.append(time.perf_counter() - asked[0])
        timer.join()
        assert ended.code is ExitCode.STOP
        assert CODE <= ended.pc == cpu.pc < CODE + PAGE
    assert min(latencies) < LATENCY
    print(f"stop, {name}: {min(latencies) * 1e3:.2f} to {max(latencies) * 1e3:.2f} ms")


def test_ctrl_c_is_quick_and_exact() -> None:
    latencies = []
    for _ in range(5):
        cpu = Cpu("riscv64")
        cpu.map(CODE, PAGE)
        cpu.write_assembly(CODE, "loop: addi a0, a0, 1; addi a1, a1, 1; bnez a0, loop")
        sent: list[float] = []

        def send(sent: list[float] = sent) -> None:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(0.03, send)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            cpu.run(CODE)
        latencies.append(time.perf_counter() - sent[0])
        timer.join()
        assert cpu["a0"] - cpu["a1"] == (1 if cpu.pc == CODE + 4 else 0)
        before = cpu["a0"]
        assert cpu.run(count=30).code is ExitCode.BUDGET
        assert cpu["a0"] == before + 10
    assert min(latencies) < LATENCY
    print(f"Ctrl-C: {min(latencies) * 1e3:.2f} to {max(latencies) * 1e3:.2f} ms")


WAITING = """
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <poll.h>
static volatile unsigned long turns;
int main(int count, char **arguments) {
    char byte;
    puts("ready");
    fflush(stdout);
    if (!strcmp(arguments[1], "read")) return read(0, &byte, 1) > 0;
    if (!strcmp(arguments[1], "sleep")) { struct timespec t = {100, 0}; return nanosleep(&t, 0); }
    if (!strcmp(arguments[1], "poll")) { struct pollfd p = {0, POLLIN, 0}; return poll(&p, 1, -1); }
    for (;;) turns++;
}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("kind", ["read", "sleep", "poll", "loop"])
def test_a_guest_dies_at_once(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    source = tmp_path / "waiting.c"
    source.write_text(WAITING)
    program = compile_c(source, RISCV)
    latencies = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "anyarch", "run", str(program), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.03)
        began = time.perf_counter()
        process.send_signal(number)
        status = process.wait(20)
        latencies.append(time.perf_counter() - began)
        _, errors = process.communicate()
        assert (status, errors) == (-number, b"")
    assert min(latencies) < LATENCY + 0.05  # the process ends, too
    print(f"{number.name}, {kind}: {min(latencies) * 1e3:.2f} to {max(latencies) * 1e3:.2f} ms")
