"""Driving a processor from Python: stops are exact, hooks see everything, state can be saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from anyarch import Cpu, JitOptions
from anyarch.errors import MemoryFault
from anyarch.host.context import ExitCode

CODE, DATA = 0x10000, 0x20000
LOOP = "loop: addi a0, a0, 1; bnez a0, loop"
RECURSION = "f: addi sp, sp, -16; sd ra, 0(sp); jal ra, f"


@pytest.fixture(params=["auto", "jit", "reference"])
def cpu(request: pytest.FixtureRequest) -> Cpu:
    made = Cpu("riscv64", engine=request.param)
    made.map(CODE, 0x1000, "rx")
    made.map(DATA, 0x2000, "rw")
    return made


def test_registers_and_memory(cpu: Cpu) -> None:
    end = cpu.write_assembly(CODE, "ld a0, 0(a1); addi a0, a0, 1; sd a0, 8(a1)")
    cpu["a1"] = DATA
    cpu.write(DATA, (41).to_bytes(8, "little"))
    ended = cpu.run(CODE, until=end)
    assert (ended.code, ended.pc, cpu.pc) == (ExitCode.HOOK, end, end)
    assert cpu.read(DATA + 8, 8) == (42).to_bytes(8, "little")
    assert cpu.registers()["a0"] == 42
    cpu["zero"] = 5
    assert cpu["zero"] == 0
    with pytest.raises(KeyError, match="no register 'q1'"):
        cpu["q1"]


@pytest.mark.parametrize("count", [1, 2, 3, 100, 999])
def test_budget_is_exact(cpu: Cpu, count: int) -> None:
    cpu.write_assembly(CODE, LOOP)
    ended = cpu.run(CODE, count=count)
    assert ended.code is ExitCode.BUDGET
    assert cpu["a0"] == (count + 1) // 2
    assert cpu.pc == CODE + 4 * (count % 2)


def test_faults_have_exact_pc_and_registers(cpu: Cpu) -> None:
    cpu.write_assembly(CODE, "li a0, 1; li a2, 0x30000; ld a0, 8(a2); li a0, 3")
    ended = cpu.run(CODE)
    assert (ended.code, ended.address) == (ExitCode.FAULT, 0x30008)
    assert cpu.pc == ended.pc != CODE
    assert cpu["a0"] == 1
    cpu.map(0x30000, 0x1000)
    assert cpu.step() is None
    assert cpu["a0"] == 0


def test_load_to_x0_from_an_unmapped_page_faults(cpu: Cpu) -> None:
    cpu.write_assembly(CODE, "ld zero, 0(a1)")
    cpu["a1"] = 0x30000
    assert cpu.run(CODE).code is ExitCode.FAULT


@pytest.mark.parametrize("address", [1 << 38, (1 << 64) - 8, (1 << 38) - 4, 1 << 63])
def test_no_address_leaves_the_arena(cpu: Cpu, address: int) -> None:
    cpu.write_assembly(CODE, "ld a0, 0(a1)")
    cpu["a1"] = address
    ended = cpu.run(CODE)
    assert ended.code is ExitCode.FAULT
    assert ended.pc == CODE


def test_stores_to_read_only_memory_fault(cpu: Cpu) -> None:
    cpu.write_assembly(CODE, "sd a0, 0(a1)")
    cpu["a1"] = CODE
    ended = cpu.run(CODE)
    assert (ended.code, ended.address) == (ExitCode.FAULT, CODE)


def test_data_is_not_executable(cpu: Cpu) -> None:
    cpu.write_assembly(CODE, "jr a1")
    cpu["a1"] = DATA
    ended = cpu.run(CODE)
    assert (ended.code, ended.pc) == (ExitCode.FETCH, DATA)


def test_breakpoint_and_illegal(cpu: Cpu) -> None:
    cpu.write_assembly(CODE, "nop; ebreak")
    assert cpu.run(CODE) == cpu.run(CODE)
    assert cpu.run(CODE).code is ExitCode.BREAKPOINT
    cpu.write(CODE, b"\x13\0\0\0" + b"\xff\xff\xff\xff")
    ended = cpu.run(CODE)
    assert (ended.code, ended.pc) == (ExitCode.ILLEGAL, CODE + 4)


def test_code_hook_sees_each_instruction(cpu: Cpu) -> None:
    end = cpu.write_assembly(CODE, "addi a0, a0, 1; addi a0, a0, 1; addi a0, a0, 1")
    seen: list[tuple[int, int]] = []
    remove = cpu.hook_code(lambda c, pc: seen.append((pc, c["a0"])), CODE + 4, end)
    cpu.run(CODE, until=end)
    assert seen == [(CODE + 4, 1), (CODE + 8, 2)]
    remove()
    cpu.run(CODE, until=end)
    assert len(seen) == 2


def test_hook_can_stop(cpu: Cpu) -> None:
    cpu.write_assembly(CODE, LOOP)

    def hook(c: Cpu, pc: int) -> None:
        if c["a0"] == 10:
            c.stop()

    cpu.hook_code(hook)
    ended = cpu.run(CODE)
    assert ended.code is ExitCode.STOP
    assert cpu["a0"] == 10


def test_memory_hook(cpu: Cpu) -> None:
    end = cpu.write_assembly(CODE, "sw a0, 0(a1); lhu a2, 2(a1)")
    cpu["a0"], cpu["a1"] = 0x11223344, DATA
    seen: list[tuple[str, int, int]] = []
    cpu.hook_memory(lambda c, kind, address, nbytes, data: seen.append((kind, address, nbytes)))
    cpu.run(CODE, until=end)
    assert seen == [("write", DATA, 4), ("read", DATA + 2, 2)]
    assert cpu["a2"] == 0x1122


def test_syscalls(cpu: Cpu) -> None:
    end = cpu.write_assembly(CODE, "li a7, 1; ecall; addi a0, a0, 1")
    ended = cpu.run(CODE)
    assert ended.code is ExitCode.SYSCALL
    assert cpu["a7"] == 1

    def serve(c: Cpu) -> None:
        c["a0"] = 99

    cpu.hook_syscall(serve)
    cpu.run(CODE, until=end)
    assert cpu["a0"] == 100


def test_save_and_restore(cpu: Cpu) -> None:
    end = cpu.write_assembly(CODE, "addi a0, a0, 1; sd a0, 0(a1)")
    cpu["a1"] = DATA
    saved = cpu.save()
    cpu.run(CODE, until=end)
    cpu.unmap(DATA, 0x2000)
    cpu.restore(saved)
    assert cpu["a0"] == 0
    assert cpu.read(DATA, 8) == bytes(8)
    cpu.run(CODE, until=end)
    assert cpu.read(DATA, 8) == (1).to_bytes(8, "little")


def test_rewritten_code_runs(cpu: Cpu) -> None:
    end = cpu.write_assembly(CODE, "li a0, 1")
    cpu.run(CODE, until=end)
    cpu.write_assembly(CODE, "li a0, 2")
    cpu.run(CODE, until=end)
    assert cpu["a0"] == 2


def test_guest_that_writes_code_announces_it(cpu: Cpu) -> None:
    cpu.map(0x40000, 0x1000, "rwx")
    cpu.write_assembly(0x40000, "li a0, 1; ret")
    cpu.write_assembly(
        CODE, "jalr ra, 0(a1); mv a3, a0; sw a2, 0(a1); fence.i; jalr ra, 0(a1); ebreak"
    )
    cpu["a1"] = 0x40000
    cpu["a2"] = int.from_bytes(b"\x13\x05\x20\x00", "little")  # li a0, 2
    assert cpu.run(CODE).code is ExitCode.BREAKPOINT
    assert (cpu["a3"], cpu["a0"]) == (1, 2)


@pytest.mark.parametrize("text", [LOOP, RECURSION, "j .+0"])
def test_stop_from_another_thread(text: str) -> None:
    cpu = Cpu("riscv64")
    cpu.map(CODE, 0x1000)
    cpu.map(0x100000, 0x40000000)
    cpu["sp"] = 0x100000 + 0x40000000
    cpu.write_assembly(CODE, text)
    threading.Timer(0.2, cpu.stop).start()
    began = time.monotonic()
    ended = cpu.run(CODE)
    took = time.monotonic() - began
    assert ended.code in (ExitCode.STOP, ExitCode.FAULT)
    assert took < 5
    assert ended.pc == cpu.pc


def test_timeout() -> None:
    cpu = Cpu("riscv64")
    cpu.map(CODE, 0x1000)
    cpu.write_assembly(CODE, LOOP)
    assert cpu.run(CODE, timeout=0.1).code is ExitCode.STOP
    assert cpu["a0"] > 1000


def test_ctrl_c_keeps_the_state_exact() -> None:
    cpu = Cpu("riscv64")
    cpu.map(CODE, 0x1000)
    cpu.write_assembly(CODE, LOOP)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        cpu.run(CODE)
    assert CODE <= cpu.pc < CODE + 8
    before = cpu["a0"]
    assert before > 1000
    assert cpu.run(count=2).code is ExitCode.BUDGET
    assert cpu["a0"] == before + 1


def test_errors_name_the_remedy() -> None:
    cpu = Cpu("riscv64")
    with pytest.raises(MemoryFault, match="0x123"):
        cpu.read(0x123, 4)
    with pytest.raises(MemoryFault):
        cpu.write(0x123, b"x")


def test_jump_to_address_0(cpu: Cpu) -> None:
    cpu.write_assembly(CODE, "jr zero")
    ended = cpu.run(CODE)
    assert (ended.code, ended.pc) == (ExitCode.FETCH, 0)


def test_hot_code_is_compiled_and_stays_over_runs(tmp_path: Path) -> None:
    options = JitOptions(samples=1, interval=0.0005, cache=str(tmp_path))
    cpu = Cpu("riscv64", engine="jit", jit=options)
    cpu.map(0x1000, 0x3000)
    end = 0x3000  # on a page of its own: where something has a hook nothing is compiled
    cpu.write_assembly(0x1000, "loop: addi a0, a0, 3; addi a1, a1, -1; bnez a1, loop; j 0x3000")
    total = 0
    deadline = time.monotonic() + 60
    while not cpu.statistics["regions"]["compiled"]["regions"] and time.monotonic() < deadline:
        cpu["a1"] = 10_000_000
        total += 30_000_000
        assert cpu.run(0x1000, until=end).code is ExitCode.HOOK
        assert cpu["a0"] == total
    assert cpu.statistics["regions"]["compiled"]["instructions"] >= 3
    # A hook on the page of the code: it is seen by each instruction, and compiled code is not used.
    seen: list[int] = []
    remove = cpu.hook_code(lambda _, pc: seen.append(pc), 0x1000, 0x1004)
    cpu["a1"] = 5
    cpu.run(0x1000, until=end)
    assert (len(seen), cpu["a0"]) == (5, total + 15)
    remove()
    cpu["a1"] = 10_000_000
    cpu.run(0x1000, until=end)
    assert cpu["a0"] == total + 15 + 30_000_000


def threads() -> set[str]:
    """Numbers of this process's threads, of those too that Python's threading does not know."""
    return set(os.listdir("/proc/self/task"))


def test_a_cpu_that_is_gone_leaves_no_thread() -> None:
    before = threads()
    cpu = Cpu("riscv64", engine="jit")
    cpu.map(0x1000, 0x2000)
    cpu.write_assembly(0x1000, "li a0, 1; j 0x2000")
    cpu.run(0x1000, until=0x2000)
    assert threads() - before
    del cpu
    deadline = time.monotonic() + 30
    while threads() - before:
        assert time.monotonic() < deadline
        time.sleep(0.001)
