"""Accesses of the host that are repeated without ignored bits: real faults, in each encoding."""

from __future__ import annotations

import ctypes
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest

from anyarch.emit.compile import compile_blob
from anyarch.host.code import NativeCode, load
from anyarch.host.context import FIELDS, PASS, Context, ExitCode
from anyarch.host.cpu import PAGE, features
from anyarch.host.mapping import PROT_READ, PROT_WRITE, map_pages, protect_pages, unmap_pages
from anyarch.host.runtime import runtime_text
from anyarch.host.signals import install_fault_handlers, prepare_thread
from anyarch.host.stack import Stack
from anyarch.host.x86_64 import DWARF_ORDER

NAMES: Final = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
# In DWARF's order.
DWARF_NAMES: Final = ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *NAMES[8:]]
IGNORED: Final = 8
TAG: Final = 0xA5 << 56
FLAGS: Final = len(NAMES)  # their place behind the registers
VECTORS: Final = 256  # offset in bytes of four vectors, of 64 bytes each
NBYTES: Final = 1024
MIDDLE: Final = 2048  # of the memory that pointers lead to
PLAIN: Final[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """An instruction, registers that point to memory less so many bytes (an index: so many of
    them), and other registers; what the tag changes: ``memory``, flags, or with a minus that the
    pointer is overwritten."""

    text: str
    pointer: str = "rbx"
    less: int = 0
    scale: int = 1
    others: tuple[tuple[str, int], ...] = ()
    tagged: tuple[str, ...] = PLAIN
    needs: str = ""

    @property
    def overwritten(self) -> bool:
        return f"-{self.pointer}" in self.tagged


def with_(**others: int) -> tuple[tuple[str, int], ...]:
    return tuple(others.items())


CASES: Final = (
    Case("mov al, [rbx]"),
    Case("mov ah, [rbx]"),
    Case("mov [rbx], dh"),
    Case("mov [rsi + rdi], bh", "rsi", 7, others=with_(rdi=7)),
    Case("mov [rsi + rdi], bh", "rdi", 7, others=with_(rsi=7)),
    Case("mov [rcx + 2*rdx], bh", "rcx", 14, others=with_(rdx=7)),
    Case("mov [rdi + rcx + 4], ah", "rdi", 7, others=with_(rcx=3)),
    Case("add dh, [rsi]", "rsi"),
    Case("cmpxchg [rcx], dh", "rcx", others=with_(rax=0x5A)),
    Case("mov rax, [rax]", "rax", tagged=("-rax",)),
    Case("mov eax, [rax + 8]", "rax", 8, tagged=("-rax",)),
    Case("mov [rax], rax", "rax", tagged=("memory",)),
    Case("mov [r13], r13", "r13", tagged=("memory",)),
    Case("mov [r12 + 0x7654], r12", "r12", 0x7654, tagged=("memory",)),
    Case("add [rax], rax", "rax", tagged=("memory", "flags")),
    Case("xchg [rdx], rdx", "rdx", tagged=("memory", "-rdx")),
    Case("lock xadd [rdi], rdi", "rdi", tagged=("memory", "flags", "-rdi")),
    Case("lock xadd [r9], eax", "r9"),
    Case("lock cmpxchg [rbx], rcx", others=with_(rax=0x5A5A5A5A5A5A5A5A)),
    Case("lock cmpxchg [rbx], rbx", others=with_(rax=0x5A5A5A5A5A5A5A5A), tagged=("memory",)),
    Case("lock cmpxchg [r12], rcx", "r12", others=with_(rax=1)),
    Case("lock cmpxchg16b [rsi]", "rsi", others=with_(rax=1, rdx=2, rbx=3, rcx=4)),
    Case("lock inc dword ptr [rbx + 4]", less=4),
    Case("lock add word ptr [rbx], 0x1234"),
    Case("lock or dword ptr [r14], 0x12345678", "r14"),
    Case("lock sub qword ptr [r15 + 0x100], -5", "r15", 0x100),
    Case("movzx eax, byte ptr [r12]", "r12"),
    Case("movzx esi, word ptr [r13]", "r13"),
    Case("movsx r15, byte ptr [r8]", "r8"),
    Case("movsxd rax, dword ptr [r13 + 4*rbp + 0x1234]", "r13", 0x1234 + 40, others=with_(rbp=10)),
    Case("movsxd r8, dword ptr [r8]", "r8", tagged=("-r8",)),
    Case("imul rax, [rbx], 0x12345"),
    Case("imul rax, [rbx], 5"),
    Case("imul r10, [r11]", "r11"),
    Case("add dword ptr [rbx], 0x12345678"),
    Case("add word ptr [rbx], 0x1234"),
    Case("add byte ptr [r9], 5", "r9"),
    Case("mov byte ptr [rbp], 5", "rbp"),
    Case("mov word ptr [rbp], 0x1234", "rbp"),
    Case("mov dword ptr [rbp + 1], 0x1234567", "rbp", 1),
    Case("mov qword ptr [r10], -2", "r10"),
    Case("test byte ptr [rbx], 7"),
    Case("test word ptr [rbx], 0x1234"),
    Case("test dword ptr [rbx], 0x12345"),
    Case("not qword ptr [rbx]"),
    Case("neg byte ptr [rbx]"),
    Case("dec dword ptr [rbx]"),
    Case("shl qword ptr [rbx], cl", others=with_(rcx=5)),
    Case("shl dword ptr [rbx], 3"),
    Case("sar qword ptr [rbx], 1"),
    Case("shld [rbx], rax, 5"),
    Case("bt qword ptr [rbx], 5"),
    Case("bts dword ptr [rbx], 3"),
    Case("mul qword ptr [rbx]", others=with_(rax=77)),
    Case("div dword ptr [rbx]", others=with_(rax=77, rdx=0)),
    Case("cmovz rax, [rbx]"),
    Case("setz [rbx]"),
    Case("adc rax, [rbx]"),
    Case("cmp qword ptr [rbx], 0x55"),
    Case("cmp [rbx], rcx"),
    Case("popcnt rax, [rbx]", needs="popcnt"),
    Case("tzcnt eax, [rbx]", needs="bmi1"),
    Case("movbe [rbx], rax", needs="movbe"),
    Case("crc32 rax, byte ptr [rbx]", needs="sse4_2"),
    Case("mulx rax, rcx, [rbx]", others=with_(rdx=9), needs="bmi2"),
    Case("shlx r9, [r8], r10", "r8", others=with_(r10=9), needs="bmi2"),
    Case("andn r9, r11, [r10]", "r10", needs="bmi1"),
    Case("andn r9, r8, [r8]", "r8", needs="bmi1", others=with_(r9=1)),
    Case("rorx rax, [rbx], 5", needs="bmi2"),
    Case("mov rax, [rbx + rcx]", "rcx", 0x70, others=with_(rbx=0x70)),
    Case("mov rax, [rbx + 8*rcx]", "rbx", 0x70 * 8, others=with_(rcx=0x70)),
    Case("mov [rbx + 8*rcx], rax", "rcx", 0x70, 8, others=with_(rbx=0x70)),
    Case("mov rax, [8*rcx + 0x10]", "rcx", 0x10, 8),
    Case("mov [8*r9 + 0x10], r9d", "r9", 0x10, 8),
    Case("mov rax, [2*rax]", "rax", 0, 2, tagged=("-rax",)),
    Case("movups xmm0, [rbx]"),
    Case("movups [rbx + 0x10], xmm1", less=0x10),
    Case("movaps xmm1, [r12]", "r12"),
    Case("movq xmm0, qword ptr [rbx]"),
    Case("movss dword ptr [rbx], xmm1"),
    Case("addsd xmm0, qword ptr [rbx]"),
    Case("cvtsi2sd xmm0, qword ptr [rbx]"),
    Case("pinsrb xmm0, byte ptr [rbx], 3"),
    Case("pextrd [rbx], xmm1, 1"),
    Case("pshufd xmm0, [rbx], 0x1b"),
    Case("pshufb xmm0, [rbx]"),
    Case("vmovups ymm0, [r8]", "r8", needs="avx"),
    Case("vmovups [r11 + 2*r10], xmm1", "r11", 12, others=with_(r10=6), needs="avx"),
    Case("vmovups [rdi], xmm0", "rdi", needs="avx"),
    Case("vmovups [r11 + 2*r10], xmm1", "r10", 12, 2, others=with_(r11=12), needs="avx"),
    Case("vaddsd xmm1, xmm0, [rbx + 8]", less=8, needs="avx"),
    Case("vpinsrd xmm1, xmm0, [rbx], 2", needs="avx"),
    Case("vfmadd231sd xmm0, xmm1, [rbx]", needs="fma"),
    Case("vpblendd xmm0, xmm1, [rbx], 5", needs="avx2"),
    Case("vbroadcastss xmm0, [rbx]", needs="avx"),
    Case("vpalignr xmm0, xmm1, [r13 + 4], 3", "r13", 4, needs="avx"),
    Case("vmovdqu64 xmm0, [rbx + 0x40]", less=0x40, needs="avx512vl"),
    Case("vaddps zmm1, zmm0, [r9]", "r9", needs="avx512f"),
    Case("vpternlogd zmm0, zmm1, [rbx + 0x80], 0x55", less=0x80, needs="avx512f"),
    Case("vaddpd zmm0, zmm1, qword ptr [rbx + 8]{1to8}", less=8, needs="avx512f"),
    Case("vmovups zmm1, [r10 + 4*r11]", "r10", 44, others=with_(r11=11), needs="avx512f"),
)  # fmt: skip


def routine(name: str, text: str) -> str:
    """Assembly of a function that has all registers from a record, and leaves them there."""
    general = [each for each in NAMES if each not in ("rsp", "rsi")]
    place = {each: 8 * index for index, each in enumerate(NAMES)}
    lines = [
        f".globl {name}", f".hidden {name}", f".type {name}, @function", f"{name}:",
        *(f"push {each}" for each in ("rbx", "rbp", "r12", "r13", "r14", "r15", "rsi")),
        f"movups xmm0, [rsi + {VECTORS}]", f"movups xmm1, [rsi + {VECTORS + 64}]",
        *(f"mov {each}, [rsi + {place[each]}]" for each in general),
        f"mov rsi, [rsi + {place['rsi']}]",
        "clc", "cmp rsp, rsp",
        f"{name}_here:", text,
        "push rsi", "mov rsi, [rsp + 8]", "pushfq", f"pop [rsi + {8 * FLAGS}]",
        *(f"mov [rsi + {place[each]}], {each}" for each in general),
        f"pop [rsi + {place['rsi']}]",
        f"movups [rsi + {VECTORS}], xmm0", f"movups [rsi + {VECTORS + 64}], xmm1",
        "mov eax, 77",
        *(f"pop {each}" for each in ("rsi", "r15", "r14", "r13", "r12", "rbp", "rbx")),
        "ret",
    ]  # fmt: skip
    return "\n".join(f'module asm "{line}"' for line in lines)


def usable(case: Case) -> bool:
    return not case.needs or case.needs in features()


@pytest.fixture(scope="module")
def native() -> NativeCode:
    texts = [
        'module asm ".intel_syntax noprefix"',
        *(routine(f"t_{i}", case.text) for i, case in enumerate(CASES) if usable(case)),
        'module asm ".att_syntax"',
    ]
    declared = [f"declare i32 @t_{i}(ptr)" for i, case in enumerate(CASES) if usable(case)]
    return load(compile_blob("\n".join([*texts, runtime_text(), *declared])))


class Machine:
    """A context whose pointers have ignored bits, a record for routines, and memory."""

    def __init__(self, native: NativeCode) -> None:
        self.native, self.context = native, Context()
        self.stack = Stack()
        install_fault_handlers(native)
        native.bind(self.context)
        self.stack.attach(self.context)
        self.context.set("ignored_bits", IGNORED)
        prepare_thread(self.context)
        self.memory = map_pages(2 * PAGE, PROT_READ | PROT_WRITE)
        self.record = map_pages(PAGE, PROT_READ | PROT_WRITE)

    def close(self) -> None:
        unmap_pages(self.memory, 2 * PAGE)
        unmap_pages(self.record, PAGE)

    def run(
        self, index: int, case: Case, tag: int, prot: int = PROT_READ | PROT_WRITE
    ) -> tuple[int, list[int], bytes]:
        """The result; registers, flags and vectors; memory, which has a protection meanwhile."""
        words = [0x1111111111111111 * i for i in range(len(NAMES))]
        for name, value in case.others:
            words[NAMES.index(name)] = value
        pointer = self.memory + MIDDLE - case.less | tag
        words[NAMES.index(case.pointer)] = pointer // case.scale & (1 << 64) - 1
        ctypes.memset(self.record, 0x3B, NBYTES)
        ctypes.memmove(self.record, struct.pack("<16Q", *words), 128)
        ctypes.memset(self.memory, 0x5A, PAGE)
        self.context.set("tags_met", 0)
        self.context.view[PASS] = 0
        protect_pages(self.memory, 2 * PAGE, prot)
        result = self.native.enter(self.context, self.native.address(f"t_{index}"), self.record)
        protect_pages(self.memory, 2 * PAGE, PROT_READ | PROT_WRITE)
        left = list(struct.unpack(f"<{NBYTES // 8}Q", ctypes.string_at(self.record, NBYTES)))
        return result, left, ctypes.string_at(self.memory, 2 * PAGE)

    def faults(self) -> tuple[int, int, int]:
        get = self.context.get
        return get("fault_address"), get("fault_signal"), get("fault_code")


@pytest.fixture
def machine(native: NativeCode) -> Iterator[Machine]:
    machine = Machine(native)
    yield machine
    machine.close()


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case.text for case in CASES])
def test_each_encoding(machine: Machine, index: int) -> None:
    case = CASES[index]
    if not usable(case):
        pytest.skip(f"this processor has no {case.needs}")
    result, registers, memory = machine.run(index, case, 0)
    assert result == 77
    assert not machine.context.get("tags_met")
    if not case.overwritten:
        registers[NAMES.index(case.pointer)] += TAG // case.scale
    if "memory" in case.tagged:
        (before,) = struct.unpack_from("<Q", memory, MIDDLE)
        word = struct.pack("<Q", before + TAG & (1 << 64) - 1)
        memory = memory[:MIDDLE] + word + memory[MIDDLE + 8 :]
    result, found, changed = machine.run(index, case, TAG)
    if "flags" in case.tagged:
        registers[FLAGS] = found[FLAGS]
    assert (result, found, changed) == (77, registers, memory)
    assert machine.context.get("tags_met") == 1
    assert machine.context.view[PASS] == 1


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case.text for case in CASES])
def test_faults_are_those_of_the_instruction(machine: Machine, index: int) -> None:
    """Its pc, its registers, and the address without the tag."""
    case = CASES[index]
    if not usable(case):
        pytest.skip(f"this processor has no {case.needs}")
    found = []
    for tag in (0, TAG):
        assert machine.run(index, case, tag, 0)[0] == ExitCode.FAULT
        start, nbytes = FIELDS["fault_registers"]
        registers = list(struct.unpack("<16Q", machine.context.view[start : start + nbytes]))
        if tag:
            registers[DWARF_ORDER[DWARF_NAMES.index(case.pointer)]] -= TAG // case.scale
        found.append((machine.faults(), machine.context.get("fault_host"), registers))
    assert found[0] == found[1]
    assert found[0][0] == (machine.memory + MIDDLE, signal.SIGSEGV, 2)
    assert machine.run(index, case, TAG)[0] == 77


def test_addresses_that_have_no_tag(machine: Machine) -> None:
    """What is not an address without the ignored bits either is the guest's fault."""
    for case in CASES:
        if usable(case) and "zmm" not in case.text and "xmm0, [rbx + 0x40]" not in case.text:
            for address in (1 << 51, TAG | 1 << 51):
                index = CASES.index(case)
                moved = replace(case, less=case.less + machine.memory + MIDDLE - address)
                assert machine.run(index, moved, 0)[0] == ExitCode.FAULT
                assert machine.faults() == (1 << 51, signal.SIGSEGV, 1)
    moved = Case("", less=machine.memory + MIDDLE + PAGE)
    assert machine.run(0, moved, 0)[0] == ExitCode.FAULT
    assert machine.faults() == (-PAGE & (1 << 64) - 1, signal.SIGSEGV, 1)
    machine.context.set("ignored_bits", 0)
    assert machine.run(0, CASES[0], TAG)[0] == ExitCode.FAULT
    assert machine.context.get("tags_met") == 0
