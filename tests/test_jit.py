"""The compiled tier: everything runs compiled and is compared with the reference engine.

A region's fast form promises at a data fault the pc, the address, memory and a few registers
(docs/decisions/0003-compiled-tier.md): there the others are not compared.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import re
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given

from anyarch.engine import bundle
from anyarch.engine.cache import CodeCache
from anyarch.engine.compiler import Request
from anyarch.engine.convention import FROM_CALL, FROM_REGION
from anyarch.engine.eager import Eager
from anyarch.engine.interpreter import Note
from anyarch.engine.jit import Jit
from anyarch.engine.sampler import Sampler
from anyarch.engine.store import RegionStore
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.guests.riscv.registers import F_NAMES, X_NAMES
from anyarch.host.code import CodeArena
from anyarch.host.context import ExitCode
from anyarch.isa.assembly import assemble
from tests.fuzz import lockstep
from tests.fuzz.lockstep import (
    CODE,
    DATA,
    FORMS,
    PAGE,
    Case,
    JitEngine,
    Maker,
    NativeEngine,
    compile_all,
)
from tests.test_lockstep import OTHER, SEEDS, repeated, without
from tests.vectors_format import LocalCompiler

Engines = Mapping[str, JitEngine]


@pytest.fixture(scope="module")
def engines() -> Engines:
    return {
        "bounded": JitEngine(bounded=True),
        "flat": JitEngine(bounded=False),
        "direct": JitEngine(bounded=False, direct=True),
        "precise": JitEngine(bounded=False, precise=True),
    }


def problems(case: Case, engine: JitEngine) -> list[str]:
    """What differs; empty where the case does not end."""
    expected = lockstep.run_reference(case)
    if expected.ended.code is ExitCode.BUDGET:
        return []
    found = engine.run(case, None)
    exact = engine.precise or expected.ended.code is not ExitCode.FAULT
    return lockstep.differences(expected, found, registers=exact)


def check(case: Case, engine: JitEngine) -> None:
    """Fail with the smallest program found that shows a difference."""
    if not problems(case, engine):
        return
    index = 0
    while index < len(case.program):
        smaller = without(case, index)
        if smaller.program and problems(smaller, engine):
            case = smaller
        else:
            index += 1
    pytest.fail(f"{case}\n" + "\n".join(problems(case, engine)[:20]))


# Random programs.
@given(seed=SEEDS)
@repeated(60)
def test_forward_only(seed: int, engines: Engines) -> None:
    check(Maker(random.Random(seed)).case(length=20), engines["bounded"])


@given(seed=SEEDS)
@repeated(60)
def test_loops(seed: int, engines: Engines) -> None:
    check(Maker(random.Random(seed)).case(loops=True), engines["bounded"])


@given(seed=SEEDS)
@repeated(60)
def test_flat(seed: int, engines: Engines) -> None:
    case = Maker(random.Random(seed), wild=False).case(loops=seed % 2 == 0)
    check(case, engines["flat"])


@given(seed=SEEDS)
@repeated(60)
def test_direct(seed: int, engines: Engines) -> None:
    case = Maker(random.Random(seed), wild=False).case(loops=seed % 2 == 0)
    check(case, engines["direct"])


@given(seed=SEEDS)
@repeated(60)
def test_precise(seed: int, engines: Engines) -> None:
    check(Maker(random.Random(seed)).case(loops=seed % 2 == 0), engines["precise"])


@pytest.mark.parametrize("part", range(5))
def test_every_form(part: int, engines: Engines) -> None:
    """Many forms in one region: compiling one for each would take minutes."""
    left = [*FORMS]
    source = random.Random(f"{part} {OTHER}")
    source.shuffle(left)
    apart = [form for form in left if ENDING & lockstep.operations(form.name)]
    together = [form for form in left if not ENDING & lockstep.operations(form.name)]
    for at in range(0, len(together), 40):
        maker = Maker(source, wild=False)
        case = maker.case(["addi"])
        program = [maker.insn(form, 4) for form in together[at : at + 40]]
        case = replace(case, program=tuple(program), rounding=(at // 40 + part) % 5)
        check(case, engines["flat"])
    for form in apart[part::5]:
        check(Maker(source).case([form.name]), engines["bounded"])


ENDING = frozenset({"jump", "exit", "exception", "syscall"})


# Programs with a purpose.
_ADDRESS = re.compile(r"\bla (\w+), (\w+)")


def assembled(text: str) -> bytes:
    """Assembly text at CODE, with ``la``."""
    names = [match[2] for match in _ADDRESS.finditer(text)]
    unresolved = _ADDRESS.sub(r"lui \1, 0; addi \1, \1, 0", text)
    listed = "".join(f"\n.dword {name}" for name in names)
    data = assemble(ARCHITECTURE, unresolved + listed, CODE)
    places = iter(struct.unpack(f"<{len(names)}Q", data[len(data) - 8 * len(names) :]))

    def resolve(match: re.Match[str]) -> str:
        place = next(places)
        assert place - CODE < 2048
        return f"lui {match[1]}, {CODE >> 12}; addi {match[1]}, {match[1]}, {place - CODE}"

    return assemble(ARCHITECTURE, _ADDRESS.sub(resolve, text), CODE)


@dataclass(frozen=True, slots=True)
class Text(Case):
    """A case whose program is assembly text."""

    text: str = ""

    def code(self) -> bytes:
        return assembled(self.text) + lockstep.BREAKPOINT

    def __str__(self) -> str:
        return self.text


def program(text: str, rounding: int = 0, **registers: int) -> Text:
    """A case of a text; pointers to memory in s0 and sp."""
    x = [0] * 32
    x[8], x[2] = DATA, DATA + 2 * PAGE
    for name, value in registers.items():
        found = ARCHITECTURE.layout.find(name)
        assert found is not None
        x[found[1]] = value
    f = tuple(lockstep.DOUBLES[index % len(lockstep.DOUBLES)] for index in range(32))
    zeros = bytes(PAGE)
    return Text((), tuple(x), f, 0, rounding, 2 * zeros, zeros, zeros, text=text)


NESTED = """
    li a0, 0; li a1, 0
outer: li a2, 5
inner: add a0, a0, a2; addi a2, a2, -1
    andi a3, a2, 1; beqz a3, skip
    addi a4, a4, 3; j joined
skip: addi a4, a4, 7
joined: bnez a2, inner
    addi a1, a1, 1; li a5, 4; blt a1, a5, outer
"""
CALLS = """
    li a0, 1; li s1, 3
again: jal ra, double
    la t1, triple; jalr ra, 0(t1)
    jal t0, save; addi s1, s1, -1; bnez s1, again
    j end
double: slli a0, a0, 1; ret
triple: slli a1, a0, 1; add a0, a0, a1; jalr zero, 0(ra)
save: sd a0, 0(s0); addi s0, s0, 8; jr t0
end: ld a2, -8(s0)
"""
ELSEWHERE = """
    li s1, 4
again: jal ra, skip_one
    addi a0, a0, 100
    addi a0, a0, 1
    addi s1, s1, -1; bnez s1, again
    jal ra, over; addi a1, a1, 1000
back: addi a1, a1, 1
    j end
skip_one: addi ra, ra, 4; ret
over: la ra, back; ret
end: nop
"""
LONGJMP = """
    li s1, 5
    la s2, landing
again: mv s3, sp
    jal ra, first
    addi a0, a0, 64
landing: addi a1, a1, 1
    mv sp, s3; addi s1, s1, -1; bnez s1, again
    j end
first: addi sp, sp, -16; sd ra, 0(sp); jal ra, second
    ld ra, 0(sp); addi sp, sp, 16; ret
second: addi sp, sp, -16; sd ra, 0(sp); andi t1, s1, 1; jal ra, third
    ld ra, 0(sp); addi sp, sp, 16; ret
third: addi a2, a2, 1; beqz t1, plain; mv ra, s2
plain: ret
end: jal ra, first
    addi a3, a3, 1
"""
COMPUTED = """
    li s1, 6; la s2, table
again: andi t1, s1, 3; slli t1, t1, 3; add t1, t1, s2; jr t1
table: addi a0, a0, 1; j joined
    addi a0, a0, 10; j joined
    addi a0, a0, 100; j joined
    addi a0, a0, 1000; j joined
joined: addi s1, s1, -1; bnez s1, again
"""
# A jump whose target a register holds, into a block that expects dirty registers.
FOLDED = """
    li a0, 3; li a1, 5
again: add a2, a2, a1; addi a1, a1, 2; addi a0, a0, -1; beqz a0, end
    addi a3, a3, 1; la t1, again; jr t1
end: mv a4, a3
"""
MUTUAL = """
    li a0, 40
    jal ra, even
    j end
even: beqz a0, yes; addi a0, a0, -1; j odd
odd: beqz a0, no; addi a0, a0, -1; j even
yes: li a1, 1; ret
no: li a1, 0; ret
end: addi a2, a1, 5
"""
FIBONACCI = """
    li a0, 7
    jal ra, fib
    j end
fib: li t1, 2; blt a0, t1, small
    addi sp, sp, -32; sd ra, 0(sp); sd s1, 8(sp); sd s2, 16(sp)
    mv s1, a0; addi a0, a0, -1; jal ra, fib
    mv s2, a0; addi a0, s1, -2; jal ra, fib
    add a0, a0, s2
    ld ra, 0(sp); ld s1, 8(sp); ld s2, 16(sp); addi sp, sp, 32
small: ret
end: nop
"""
NEXT_PC = "jal ra, here; here: addi a0, ra, 0; auipc a1, 0; sub a2, a1, a0; jal zero, out; out: nop"
ROUNDING = """
    li s1, 4; li a0, 1; fcvt.d.l ft0, a0; li a0, 3; fcvt.d.l ft1, a0
again: csrw frm, s1; fdiv.d ft2, ft0, ft1; fcvt.w.d a1, ft2; fadd.d fa0, fa0, ft2
    fdiv.d ft3, ft0, ft1, rup; fdiv.d ft4, ft0, ft1, rdn; fsub.d ft5, ft3, ft4
    csrr a2, fflags; add a3, a3, a2; csrw fflags, zero
    fdiv.d ft6, ft0, ft1; fsub.d ft7, ft6, ft2
    addi s1, s1, -1; bgez s1, again
"""
ROUNDING_IN_CALLS = """
    li s1, 3; li a0, 1; fcvt.d.l ft0, a0; li a0, 10; fcvt.d.l ft1, a0
again: fdiv.d ft2, ft0, ft1; jal ra, set; fdiv.d ft3, ft0, ft1; fsub.d ft4, ft3, ft2
    fadd.d fa0, fa0, ft4; addi s1, s1, -1; bgez s1, again
    j end
set: csrw frm, s1; ret
end: csrr a1, fcsr
"""
INVALID_MODE = """
    li a0, 1; fcvt.d.l ft0, a0; li s1, 5; fadd.d ft1, ft0, ft0
    csrw frm, s1; addi a1, a1, 1; fmv.x.d a2, ft1; fadd.d ft2, ft0, ft0, rtz; addi a3, a3, 1
    fadd.d ft3, ft0, ft0; addi a4, a4, 1
"""
FLAGS = """
    li a0, 1; fcvt.d.l ft0, a0; fcvt.d.l ft1, zero; li a0, 3; fcvt.d.l ft5, a0
    fdiv.d ft2, ft0, ft1; csrr a1, fflags
    fdiv.d ft3, ft1, ft1; csrr a2, fflags
    fdiv.d ft4, ft0, ft5; csrrw a3, fflags, zero
    fadd.d ft6, ft0, ft0; csrr a4, fflags
    fsqrt.d ft7, ft5; csrrci a5, fflags, 1; csrr a6, fcsr; csrrsi a7, fcsr, 2
    feq.d t1, ft3, ft3; flt.d t2, ft3, ft0; csrr t3, fflags; fcvt.wu.d t4, ft2; csrr t5, fcsr
"""
ATOMICS = """
    li s1, 5; li a1, 7
again: lr.d.aq t1, (s0); add t1, t1, a1; sc.d.rl t2, t1, (s0); bnez t2, again
    amoadd.w a2, s1, (s0); amoxor.d.aqrl a3, a1, (s0); amomaxu.w a4, s1, (s0)
    amomin.d a5, a1, (s0); amoswap.w.aq a6, s1, (s0); sc.w a7, s1, (s0)
    addi t3, s0, 64; lr.w t4, (t3); sc.w t5, s1, (s0); sc.w t6, s1, (t3)
    addi a1, a1, 13; addi s1, s1, -1; bnez s1, again
    ld t1, 0(s0)
"""
# A jump that keeps the address behind it where no function returns from, as a PLT has it.
PLT = """
    li s1, 3
again: jal ra, entry; addi a1, a1, 1; addi s1, s1, -1; bnez s1, again
    j end
entry: la t3, function; jalr t1, 0(t3); nop
function: addi sp, sp, -16; sd ra, 0(sp); add a0, a0, t1; jal ra, leaf
    ld ra, 0(sp); addi sp, sp, 16; ret
leaf: addi a2, a2, 5; ret
end: nop
"""
# What returns says that the link register is the pc: here it is not, or was not returned through.
# The system calls are never made: they have functions not be inlined.
RETURNS = """
    li s1, 3
again: jal ra, odd; sd ra, 0(s0); jal ra, through; sd ra, 8(s0); jal t0, save
    sd ra, 16(s0); jal t0, odd_save; sd ra, 24(s0); jal ra, plain; sd ra, 32(s0)
    addi s0, s0, 40; addi s1, s1, -1; bnez s1, again; j end
odd: bnez zero, call; ori ra, ra, 1; ret
through: bnez zero, call; mv t0, ra; li ra, 7; jr t0
save: bnez zero, call; addi ra, ra, 2; jr t0
odd_save: bnez zero, call; ori t0, t0, 1; jr t0
plain: bnez zero, call; mv t0, ra; jr t0
call: ecall
end: nop
"""
# Indices of 32 bits, shifted up and down to where they scale: of changed registers and others.
INDICES = """
    li a0, 1; slli a0, a0, 40; addi a0, a0, -3; li s1, 6; li t6, 5
again: slli a1, a0, 32; srli a2, a1, 31; slli a3, a0, 32; srli a3, a3, 30; slli a4, a0, 32
    addi a0, a0, 1; srli a4, a4, 29; slli a5, a0, 32; add a5, a5, t6; srli a5, a5, 31
    slli a6, a0, 32; srli a6, a6, 28; slli a7, a0, 32; srli a7, a7, 32; slli t0, a0, 31
    srli t0, t0, 30; srli t1, a1, 29; slli t2, a0, 32; bltz a0, skip; slli t2, t6, 32
skip: srli t2, t2, 31; xor s3, s3, a2; xor s3, s3, a3; add s3, s3, a4; xor s3, s3, a5
    add s3, s3, a6; xor s3, s3, a7; add s3, s3, t0; xor s3, s3, t1; add s3, s3, t2
    andi t3, a0, 7; slli t3, t3, 32; srli t3, t3, 29; add t3, t3, s0; sd s3, 0(t3)
    addi s1, s1, -1; bnez s1, again
"""
# Small functions are compiled into their callers: with loops, by two paths, from two callers.
INLINED = """
    li s1, 4
again: mv a0, s1; jal ra, count; add s2, s2, a0; jal ra, sign; add s3, s3, a0
    addi a0, s1, -2; jal ra, sign; add s4, s4, a0; addi s1, s1, -1; bnez s1, again
    j end
count: li a1, 0
more: addi a1, a1, 3; addi a0, a0, -1; bnez a0, more; mv a0, a1; ret
sign: bltz a0, negative; snez a0, a0; ret
negative: li a0, -1; ret
end: nop
"""
# Functions with a frame that are inlined. One changes where it returns to, once.
FRAMED = """
    li s1, 4; la s5, other
again: mv a0, s1; jal ra, count; add s2, s2, a0; jal ra, turn; add s3, s3, ra
    j on
other: addi s4, s4, 1; add s6, s6, ra
on: addi s1, s1, -1; bnez s1, again
    j end
count: addi sp, sp, -16; sd ra, 8(sp); sd s0, 0(sp); addi s0, sp, 16; li a1, 0
more: addi a1, a1, 3; addi a0, a0, -1; bnez a0, more; mv a0, a1
    ld ra, 8(sp); ld s0, 0(sp); addi sp, sp, 16; ret
turn: addi sp, sp, -16; sd ra, 8(sp); li a1, 2; bne s1, a1, straight; sd s5, 8(sp)
straight: ld ra, 8(sp); addi sp, sp, 16; ret
end: nop
"""
# A function that calls itself, of which one more level is inlined: so deep that some are not, and
# once it returns out of all of them.
RECURSIVE = """
    li s1, 3; la s5, other; mv s8, sp
again: addi a0, s1, 3; jal ra, fib; add s2, s2, a0; j on
other: mv sp, s8; addi s4, s4, 1; add s6, s6, ra
on: addi s1, s1, -1; bnez s1, again
    j end
fib: addi sp, sp, -32; sd ra, 24(sp); sd s3, 16(sp); sd s7, 8(sp); mv s3, a0; li s7, 0
    li a1, 2; bltu a0, a1, small
more: addi a0, s3, -1; jal ra, fib; addi s3, s3, -2; add s7, s7, a0; bgtu s3, a1, more
small: add a0, s3, s7; bne s1, a1, straight; bne a0, s9, straight; sd s5, 24(sp)
straight: addi s9, a0, 1; ld ra, 24(sp); ld s3, 16(sp); ld s7, 8(sp); addi sp, sp, 32; ret
end: nop
"""
# A jump table of 32-bit offsets, with a target outside of it once.
TABLE = """
    li s1, 9; la s2, table; la s3, end
    la a5, one; sub a5, a5, s2; sw a5, 0(s2); la a5, two; sub a5, a5, s2; sw a5, 4(s2)
    la a5, three; sub a5, a5, s2; sw a5, 8(s2); sub a5, s3, s2; sw a5, 12(s2)
again: addi s1, s1, -1; andi t1, s1, 3; slli t1, t1, 2; la s2, table; add t1, t1, s2
    lw t1, 0(t1); add t1, t1, s2; jr t1
one: addi a0, a0, 1; j again
two: addi a0, a0, 10; bgtz s1, again; j end
three: addi a0, a0, 100; j again
table: .word 0; .word 0; .word 0; .word 0
end: addi a1, a1, 1; bgtz s1, again
"""
# Singles in registers that held doubles before, and the other way round, over loops and calls.
SINGLES = """
    li s1, 6; li a0, 3; fcvt.s.w fa0, a0; fcvt.d.w fs0, a0; fmv.d.x fa4, a0; li a1, 7
    fcvt.s.w fa1, a1; fsw fa1, 0(s0); fsd fs0, 8(s0)
again: fadd.s fa2, fa0, fa1; fmul.s fa0, fa0, fa1; fdiv.s fa1, fa0, fa2
    andi t1, s1, 1; beqz t1, even; fld fa2, 8(s0); fadd.d fs0, fs0, fa2; j joined
even: flw fa2, 0(s0); fadd.s fa2, fa2, fa2
joined: fsd fa2, 16(s0); fadd.s fa3, fa2, fa0; fmv.x.d a2, fa3; add a3, a3, a2
    fadd.s fa5, fa4, fa0; fmv.x.d a4, fa5; jal ra, f; fsub.s fa0, fa0, fa1
    addi s1, s1, -1; bnez s1, again
    j end
f: addi sp, sp, -16; sd ra, 0(sp); jal ra, g; fadd.s fa1, fa1, fa0
    ld ra, 0(sp); addi sp, sp, 16; ret
g: fadd.d ft0, fs0, fs0; fsgnjn.s ft1, fa0, fa1; ret
end: fmv.x.d a5, fa2; fmv.x.d a6, fs0
"""
# NaNs that are computed and not seen at once: bits, signs, memory, comparisons, over a loop.
NANS = """
    li s1, 5; fmv.d.x ft0, zero; li a0, -1; fmv.d.x ft1, a0; fcvt.d.l ft4, a0; fcvt.s.l ft5, a0
again: fdiv.d fa0, ft0, ft0; fadd.d fa1, fa0, ft4; fsd fa1, 0(s0); fmul.d fa1, ft1, ft4
    fsgnj.d fa2, ft4, fa1; fadd.d fa3, fa3, fa1; fsqrt.d fa4, ft4; fmv.x.d a1, fa4
    fadd.d fa4, fa4, fa4; feq.d a2, fa4, fa4; fclass.d a3, fa4; fcvt.s.d fa5, fa4; fsw fa5, 8(s0)
    fdiv.s fa6, ft5, ft1; fadd.s fa6, fa6, ft5; fsgnjn.s fa7, fa6, fa6; fmv.x.w a4, fa6
    fsub.d fa4, fa3, fa3; addi s1, s1, -1; bnez s1, again
    fmv.x.d a5, fa4; fadd.d fa4, ft4, ft4; csrr a6, fflags
"""
# Results that are NaNs where what they were made of is one: in memory, and at the ends of blocks.
# In each round another operand is the first NaN, whose bits arithmetic on the host would keep.
LATE_NANS = """
    li s1, 7; li a0, -1; fcvt.d.l fs0, a0; fcvt.s.l fs1, a0; mv s2, s0; li s3, 0xfff8000000000123
    li s4, 0xffffffffffc00123
again: fmv.d fa0, fs0; fmv.d fa1, fs0; fmv.d fa2, fs0; fmv.s fa3, fs1; fmv.s fa4, fs1
    li a1, 6; bne s1, a1, one; fmv.d.x fa0, s3
one: li a1, 5; bne s1, a1, two; fmv.d.x fa1, s3
two: li a1, 4; bne s1, a1, three; fmv.d.x fa2, s3
three: li a1, 3; bne s1, a1, four; fmv.d.x fa3, s4
four: li a1, 2; bne s1, a1, body; fmv.d.x fa4, s4; fsub.s ft8, fa4, fs1
body: fadd.d ft0, fa0, fs0; fmul.d ft1, ft0, fa1; fsub.d ft0, ft1, fa2; fsd ft1, 0(s2)
    fsqrt.d ft2, ft0; fadd.d ft3, ft0, ft0; fdiv.d ft4, ft1, ft3; fsd ft4, 8(s2)
    fadd.d ft4, fs0, fs0; fmv.x.d a0, ft8; add s5, s5, a0
    fadd.s ft5, fa3, fs1; fmul.s ft6, ft5, fa4; fsub.s ft5, ft6, fs1; fcvt.d.s ft7, ft6
    fsw ft6, 16(s2); fmul.s ft6, fs1, fs1; fadd.d fa5, fa5, ft0; fadd.s fa6, fa6, ft5
    addi s2, s2, 24; addi s1, s1, -1; bnez s1, again
    fmv.x.d a0, ft0; fmv.x.d a1, ft1; fmv.x.d a2, ft2; fmv.x.d a3, ft3; fmv.x.d a4, ft7
    fmv.x.d a5, fa5; fmv.x.d a6, fa6; csrr a7, fflags
"""
# Every register has a value of its own where regions call each other, and changes in each.
_OTHERS = [name for name in X_NAMES if name not in ("zero", "ra", "sp", "s0", "t0")]
_ADD = "; ".join(f"addi {name}, {name}, {index + 1}" for index, name in enumerate(_OTHERS))
_FLOATS = "; ".join(f"fadd.d {name}, {name}, {name}" for name in F_NAMES)
CONVENTION = f"""
    {"; ".join(f"li {name}, {1000 + 3 * index}" for index, name in enumerate(_OTHERS))}
    {"; ".join(f"fcvt.d.l {name}, {_OTHERS[i % 20]}" for i, name in enumerate(F_NAMES))}
    jal ra, f; j end
f: addi sp, sp, -32; sd ra, 0(sp); {_ADD}; {_FLOATS}; li t0, 3; sd t0, 8(sp)
again: jal ra, g; {_ADD}; jal ra, h; ld t0, 8(sp); addi t0, t0, -1; sd t0, 8(sp); bnez t0, again
    ld ra, 0(sp); addi sp, sp, 32; ret
g: addi sp, sp, -16; sd ra, 0(sp); {_ADD}; {_FLOATS}; la t0, h; jalr ra, 0(t0)
    ld ra, 0(sp); addi sp, sp, 16; ret
h: addi sp, sp, -16; sd ra, 0(sp); {_ADD}; jal ra, leaf
    ld ra, 0(sp); addi sp, sp, 16; ret
leaf: {_ADD}; ret
end: nop
"""
WORDS = """
    li t1, 0x8877665544332211; sd t1, 0(s0); sd t1, 8(s0); li t2, 0x21000; sd t1, -3(t2)
    lbu a0, 0(s0); lbu a1, 1(s0); lb a2, 2(s0); lb a3, 3(s0)
    lbu a4, 4(s0); lb a5, 5(s0); lbu a6, 6(s0); lb a7, 7(s0)
    lbu s1, 9(s0); lbu s2, 8(s0); lbu s3, 11(s0); lbu s4, 10(s0); add s1, s1, s2; add s3, s3, s4
    lbu s5, -3(t2); lbu s6, -2(t2); lbu s7, -1(t2); lbu s8, 0(t2)
    lbu s9, -2(t2); lbu s10, -1(t2); lbu t2, 0(t2)
    slli s6, s6, 8; slli s7, s7, 16; slli s8, s8, 24; or s5, s5, s6; or s7, s7, s8; or s5, s5, s7
    lbu t3, 8(s0); sb t1, 9(s0); lbu t4, 9(s0); lbu t5, 12(s0); lbu s0, 13(s0)
"""
# Bytes put together as compilers do, in both orders, the highest with its sign or without, in turns
# that begin with any of them; and as no word is made.
COMPOSED = """
    li t1, 0x08f7867594b3a291; sd t1, 0(s0); sd t1, 11(s0); li t2, 0x21000; sd t1, -6(t2)
    lbu a1, 1(s0); lbu a0, 0(s0); lb a3, 3(s0); lbu a2, 2(s0)
    slli a1, a1, 8; or a0, a0, a1; slli a2, a2, 16; slli a3, a3, 24; or a3, a3, a2; or a0, a0, a3
    lbu a4, 7(s0); lbu a5, 6(s0); lbu a6, 5(s0); lb a7, 4(s0)
    slli a5, a5, 8; or a4, a4, a5; slli a6, a6, 16; slliw a7, a7, 24; or a6, a6, a7; or a4, a6, a4
    lbu s2, 11(s0); lb s3, 12(s0); slli s4, s3, 8; or s4, s4, s2; slli s2, s2, 8; or s2, s2, s3
    lbu s5, -2(t2); lbu s6, -1(t2); lbu s7, 0(t2); lbu s8, 1(t2)
    slli s6, s6, 8; slli s7, s7, 16; slli s8, s8, 24; or s5, s5, s6; or s7, s7, s8; or s5, s5, s7
    addiw s6, s5, 0; lbu t3, -3(t2); lb t4, -2(t2); lbu t5, -1(t2); lbu t6, 0(t2)
    slli t5, t5, 8; or a5, t6, t5; slli t4, t4, 16; or a5, a5, t4; slli t3, t3, 24; or a5, a5, t3
    lbu a6, 16(s0); lbu a7, 17(s0); slli s9, a7, 4; or s9, s9, a6; or s10, a6, a7; slli s11, a7, 8
"""
ENDINGS = {
    "ecall": "li a0, 5; addi a7, a0, 2; ecall; addi a1, a0, 1",
    "ecall-in-loop": "li s1, 3\nagain: addi a0, a0, 1; addi s1, s1, -1; bgtz s1, again; ecall",
    "ebreak": "li a0, 5; jal ra, f; j end\nf: addi a0, a0, 1; ebreak; ret\nend: nop",
    "illegal": "li a0, 5; jal ra, f; j end\nf: addi a0, a0, 1; .half 0; ret\nend: nop",
    "fetch": "li a0, 5; addi s3, a0, 7; li t1, 0x9000; jr t1",
    "fetch-by-call": "li a0, 5; addi s3, a0, 7; li t1, 0x9000; jalr ra, 0(t1)",
    "fetch-by-return": "li a0, 5; addi s3, a0, 7; li ra, 0x9000; addi a1, a1, 1; nop; ret",
    "load": "li a0, 5; li t1, 0x9000; sd a0, 0(s0); addi s3, a0, 7; ld a1, 0(t1); sd a1, 8(s0)",
    "store": "li a0, 5; li t1, 0x9000; sd a0, 0(s0); addi s3, a0, 7; sd a1, 0(t1); sd a1, 8(s0)",
    "unused-load": "li t1, 0x9000; sd t1, 0(s0); ld a1, 0(t1); li a1, 0; sd t1, 8(s0)",
    "single": "ld a1, 0(s0); li t1, 0x9000; flw ft0, 0(t1); ld a2, 8(s0); sd a2, 16(s0)",
    "bytes": "addi t1, s0, -2; lbu a0, 2(t1); lbu a1, 3(t1); li t1, 0x9000; lbu a2, 0(t1)"
    "; lbu a3, 1(t1); lbu a4, 2(t1); lbu a5, 3(t1)",
    "bytes-across": "li t1, 0x23ffe; lbu a2, 0(t1); lbu a3, 1(t1); lbu a4, 2(t1); lbu a5, 3(t1)",
    "bytes-backwards": "li a0, 5; li t1, 0x9000; lbu a2, 3(t1); lbu a3, 2(t1); lbu a4, 0(t1)"
    "; lb a5, 1(t1)",
    "bytes-backwards-across": "li t1, 0x23ffe; lbu a5, 1(t1); lbu a4, 0(t1); lbu a3, 3(t1)"
    "; lb a2, 2(t1); slli a5, a5, 8; or a4, a4, a5",
    "half": "ld a1, 0(s0); li t1, 0x9000; flh ft0, 0(t1); ld a2, 8(s0); sd a2, 16(s0)",
    "byte": "ld a1, 0(s0); li t1, 0x9000; lbu a0, 0(t1); ld a2, 8(s0); sb a0, 16(s0)",
    "load-after-call": "jal ra, f; li t1, 0x9000; ld a1, 0(t1); j end\nf: ebreak; ret\nend: nop",
    "load-in-frame": f"""
        jal ra, f; j end
    f: addi sp, sp, -64; sd ra, 0(sp); jal ra, g; ld ra, 0(sp); addi sp, sp, 64; ret
    g: addi sp, sp, -32; sd ra, 0(sp); li t1, 2
    again: addi sp, sp, -16; jal ra, h; addi t1, t1, -1; bnez t1, again; mv s5, ra; li t1, 0x9000
        addi sp, sp, 32; ld ra, 0(sp); ld a1, 0(t1); ret
    h: {_ADD.replace("addi sp, sp", "addi s11, s11").replace("addi t1, t1", "addi s11, s11")}; ret
    end: nop
    """,
    "load-in-call": "li a0, 5; jal ra, f; j end\nf: li t1, 0x9000; ld a1, 8(t1); ret\nend: nop",
    "misaligned-amo": "li a0, 5; addi a1, s0, 1; addi s3, a0, 7; amoadd.d a2, a0, (a1)",
}
# Registers that change by turns, to the same value (LLVM's NewGVN took them for one).
BY_TURNS = """
    li a0, 12345; li a1, 5; li s0, 40; li t0, 0; li t1, 0
loop: mv t5, t1; bgeu t0, t1, least; mv t5, t0
least: slli a2, s1, 1; xor s1, a2, t5
    mul a0, a0, a1; addi a0, a0, 13; srli t3, a0, 7; andi t3, t3, 31; andi t4, a0, 64
    j next
polled: addi s0, s0, -1; beqz t4, second
    mv t0, t3; bnez s0, loop; j end
second: mv t1, t3; bnez s0, loop; j end
next: j polled
end: nop
"""
PROGRAMS = {
    "nested": NESTED,
    "calls": CALLS,
    "elsewhere": ELSEWHERE,
    "longjmp": LONGJMP,
    "computed": COMPUTED,
    "folded": FOLDED,
    "mutual": MUTUAL,
    "fibonacci": FIBONACCI,
    "next-pc": NEXT_PC,
    "rounding": ROUNDING,
    "rounding-in-calls": ROUNDING_IN_CALLS,
    "invalid-mode": INVALID_MODE,
    "flags": FLAGS,
    "atomics": ATOMICS,
    "convention": CONVENTION,
    "plt": PLT,
    "returns": RETURNS,
    "indices": INDICES,
    "inlined": INLINED,
    "recursive": RECURSIVE,
    "framed": FRAMED,
    "table": TABLE,
    "singles": SINGLES,
    "nans": NANS,
    "late-nans": LATE_NANS,
    "words": WORDS,
    "composed": COMPOSED,
    "by-turns": BY_TURNS,
    **ENDINGS,
}


@pytest.mark.parametrize("variant", ["bounded", "flat", "direct", "precise"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, variant: str, engines: Engines) -> None:
    case = program(PROGRAMS[name])
    expected = lockstep.run_reference(case, 5000)
    assert expected.ended.code is not ExitCode.BUDGET, expected.ended
    found = engines[variant].run(case, None)
    exact = variant == "precise" or expected.ended.code is not ExitCode.FAULT
    assert not lockstep.differences(expected, found, registers=exact)
    assert engines[variant].jit.installed, "nothing was compiled"


@pytest.mark.parametrize("mode", range(8))
def test_entered_in_every_rounding_mode(mode: int, engines: Engines) -> None:
    text = """
        li a0, 1; fcvt.d.l ft0, a0; li a0, 7; fcvt.d.l ft1, a0; li s1, 3; addi s2, s1, 1
    again: fdiv.d ft2, ft0, ft1; fadd.d fa0, fa0, ft2; fcvt.l.d a1, fa0; fcvt.s.d ft3, ft2
        addi s1, s1, -1; bnez s1, again
    """
    case = program(text, rounding=mode)
    expected = lockstep.run_reference(case)
    assert not lockstep.differences(expected, engines["flat"].run(case, None))


def _mapped(engine: JitEngine, text: str, prot: int = 7, nbytes: int = PAGE) -> int:
    """Put text at CODE, on pages of their own; the address behind it."""
    NativeEngine.prepare(engine, program("nop"))  # which compiles nothing
    engine.space.map(CODE, nbytes, 3, fixed=True)
    data = assembled(text) + lockstep.BREAKPOINT
    engine.space.write(CODE, data)
    engine.space.protect(CODE, nbytes, prot)
    return CODE + len(data)


def _word(text: str) -> int:
    return int.from_bytes(assemble(ARCHITECTURE, text, CODE), "little")


def test_recursion_beyond_the_host_stack(engines: Engines) -> None:
    """Host frames are dropped, guest frames are not."""
    text = """
        jal ra, sum
        ebreak
    sum: beqz a0, zero
        addi sp, sp, -16; sd ra, 0(sp); sd a0, 8(sp)
        addi a0, a0, -1; jal ra, sum
        ld ra, 0(sp); ld a1, 8(sp); addi sp, sp, 16; add a0, a0, a1
        ret
    zero: ret
    """
    depth = 200_000
    for engine in engines.values():
        _mapped(engine, text)
        engine.space.map(1 << 30, 1 << 24, 3, fixed=True)
        try:
            state = engine.engine.state
            state.pc = CODE
            state.set("x", 2, (1 << 30) + (1 << 24))
            state.set("x", 10, depth)
            assert compile_all(engine.jit, CODE) >= 2
            ended = engine.engine.run()
            assert ended.code is ExitCode.BREAKPOINT, ended
            assert state.get("x", 10) == depth * (depth + 1) // 2
            assert state.get("x", 2) == (1 << 30) + (1 << 24)
        finally:
            engine.space.unmap(1 << 30, 1 << 24)


@pytest.mark.parametrize("leaves", ["jr t1", "mv s2, ra; jalr ra, 0(t1); mv ra, s2; ret"])
def test_blocks_and_regions_by_turns_leave_no_frames_behind(leaves: str) -> None:
    """A region that blocks call goes on in blocks, or calls some: they return to it, and what it
    returns to is a block that no host frame waits in."""
    engine = JitEngine(bounded=False)
    turns = 20_000
    _mapped(engine, f"again: jal ra, f; addi s0, s0, -1; bnez s0, again; ebreak; f: {leaves}")
    engine.space.protect(CODE, PAGE, 3)
    leaf = CODE + 256
    engine.space.write(leaf, assembled("addi a0, a0, 1; ret"))
    engine.space.protect(CODE, PAGE, 7)
    context, state = engine.engine.context, engine.engine.state
    assert engine.jit.add(CODE + 16)
    top = context.get("own_stack")
    shallow, deep = top - (16 << 10), top - (256 << 10)
    ctypes.memset(deep, 0, shallow - deep)
    state.pc = CODE
    for number, value in ((6, leaf), (8, turns), (10, 0)):
        state.set("x", number, value)
    assert engine.engine.run().code is ExitCode.BREAKPOINT
    assert state.get("x", 10) == turns
    assert CODE + 16 in engine.jit.installed
    assert not any(ctypes.string_at(deep, shallow - deep))


def test_what_goes_on_without_its_frames_comes_from_nowhere(engines: Engines) -> None:
    """Where host frames were dropped, no record led to the pc: who looks for one would be lost."""
    for engine in engines.values():
        _mapped(engine, "again: addi a0, a0, 1; jal ra, again")
        engine.engine.state.pc = CODE
        for number in range(1, 32):
            engine.engine.state.set("x", number, 0x1001)
        assert compile_all(engine.jit, CODE)
        limit = engine.engine.context.get("stack_limit")
        engine.engine.context.set("stack_limit", -1)  # every region drops what there is
        stopping = threading.Timer(0.05, engine.engine.request_stop)
        stopping.start()
        try:
            assert engine.engine.run().code is ExitCode.STOP
            assert engine.engine.context.get("record") == 0
        finally:
            stopping.join()
            engine.engine.clear_stop()
            engine.engine.context.set("stack_limit", limit)


@pytest.mark.parametrize("variant", ["bounded", "flat", "direct"])
def test_code_that_is_rewritten_while_it_runs(variant: str, engines: Engines) -> None:
    text = """
        li s1, 6; la s2, patched
    again: addi a0, a0, 1
    patched: addi a1, a1, 1
        sw a2, 0(s2); fence.i
        addi s1, s1, -1; bnez s1, again
    """
    engine = engines[variant]
    _mapped(engine, text)
    state = engine.engine.state
    state.pc = CODE
    state.set("x", 12, _word("addi a1, a1, 5"))
    state.set("x", 10, 0)
    state.set("x", 11, 0)
    compile_all(engine.jit, CODE)
    assert CODE in engine.jit.installed
    assert engine.engine.run().code is ExitCode.BREAKPOINT
    assert (state.get("x", 10), state.get("x", 11)) == (6, 1 + 5 * 5)
    assert CODE not in engine.jit.installed


# What becomes of regions when their code changes.
FAR = CODE + 2 * PAGE
LINKED = CODE + 8


def _two_parts(engine: JitEngine, prot: int = 7) -> None:
    """A region that begins at CODE and ends two pages further; LINKED jumps to it."""
    _mapped(engine, f"addi a0, a0, 1; j {FAR:#x}; j {CODE:#x}", prot, 3 * PAGE)
    with engine.space.lock:
        engine.space.protect(CODE, 3 * PAGE, 3)
        engine.space.write(FAR, assemble(ARCHITECTURE, "addi a0, a0, 2; ebreak", FAR))
        engine.space.protect(CODE, 3 * PAGE, prot)


def _run(engine: JitEngine, pc: int = CODE) -> tuple[ExitCode, int]:
    """How it ends, and what a0 is then."""
    state = engine.engine.state
    state.pc = pc
    state.set("x", 10, 0)
    ended = engine.engine.run()
    return ended.code, state.get("x", 10)


@pytest.mark.parametrize("visited", [False, True])
@pytest.mark.parametrize("how", ["unmap", "protect", "map", "write", "drop"])
def test_regions_end_with_their_code(how: str, visited: bool, engines: Engines) -> None:
    """A change on a page that the region only reaches; ``visited``: the interpreter was there."""
    engine = engines["flat"]
    _two_parts(engine)
    if visited:
        assert _run(engine, LINKED) == (ExitCode.BREAKPOINT, 3)
    assert engine.jit.add(CODE)
    assert engine.jit.installed[CODE].region.instructions == 4
    assert _run(engine) == (ExitCode.BREAKPOINT, 3)
    patch = assemble(ARCHITECTURE, "addi a0, a0, 4; ebreak", FAR)
    match how:
        case "unmap":
            engine.space.unmap(FAR, PAGE)
            expected = ExitCode.FETCH, 1
        case "protect":
            engine.space.protect(FAR, PAGE, 3)
            expected = ExitCode.FETCH, 1
        case "map":
            engine.space.map(FAR, PAGE, 7, fixed=True)
            expected = ExitCode.ILLEGAL, 1
        case "write":
            engine.space.write(FAR, patch)
            engine.engine.code_changed(FAR, len(patch))
            expected = ExitCode.BREAKPOINT, 5
        case _:
            engine.engine.flush()
            expected = ExitCode.BREAKPOINT, 3
    assert CODE not in engine.jit.installed
    assert _run(engine, LINKED) == expected
    assert _run(engine) == expected
    if expected[0] is ExitCode.BREAKPOINT:
        assert engine.jit.add(CODE)
        assert _run(engine) == expected


def test_code_that_is_compiled_again_is_short_where_all_is_compiled() -> None:
    """Else what is behind each call of a function is compiled to its end."""
    engine = JitEngine(bounded=False)
    _mapped(engine, "addi a0, a0, 1; " * 100 + "ebreak", 5)
    eager = engine.engine.sampler = Eager(engine.jit)
    inner = CODE + 200
    assert eager.provide(CODE)
    assert eager.provide(inner)
    sizes = [engine.jit.installed[pc].region.instructions for pc in (CODE, inner)]
    assert sizes == [101, 32]
    assert _run(engine, inner) == (ExitCode.BREAKPOINT, 50)
    assert inner + 128 in engine.jit.installed


# A loop over a switch whose table is on another page: FAR has the places of one, two and three.
SWITCH = """
    li s1, 7; li s2, {far}; li a2, 0
again: slli t1, a2, {shift}; add t1, t1, s2; {load} t1, 0(t1); jr t1
one: addi a0, a0, 1; li a2, 2; j joined
two: addi a0, a0, 10; li a2, 0; j joined
three: addi a0, a0, 100; li a2, 1
joined: addi s1, s1, -1; bnez s1, again
"""
COUNTED = 3 * 1 + 2 * 10 + 2 * 100


def _switch(engine: JitEngine, nbytes: int = 4) -> list[bytes]:
    """SWITCH at CODE; its table's entries."""
    shift, load = {4: (2, "lw"), 8: (3, "ld")}[nbytes]
    text = SWITCH.format(far=FAR, shift=shift, load=load)
    _mapped(engine, text, 5)
    arms = [CODE + len(assembled(text)) - back for back in (40, 28, 16)]
    entries = [arm.to_bytes(nbytes, "little") for arm in arms]
    engine.space.map(FAR, PAGE, 3, fixed=True)
    engine.space.write(FAR, b"".join(entries))
    _forget(engine)
    return entries


def _forget(engine: JitEngine) -> None:
    """Have regions compiled anew: they depend on more than the code around them."""
    assert isinstance(engine.jit.compiler, LocalCompiler)
    engine.jit.compiler.made.clear()


def test_tables_that_stay_are_constants(engines: Engines) -> None:
    engine = engines["flat"]
    entries = _switch(engine)
    engine.space.protect(FAR, PAGE, 1)
    assert engine.jit.add(CODE)
    assert engine.jit.installed[CODE].region.tables == ((FAR, b"".join(entries)),)
    assert _run(engine) == (ExitCode.BREAKPOINT, COUNTED)
    engine.space.protect(FAR, PAGE, 3)
    assert CODE not in engine.jit.installed
    engine.space.write(FAR, entries[1])
    engine.space.protect(FAR, PAGE, 1)
    _forget(engine)
    assert engine.jit.add(CODE)
    assert _run(engine) == (ExitCode.BREAKPOINT, 7 * 10)


def test_tables_that_may_change_are_read(engines: Engines) -> None:
    engine = engines["flat"]
    entries = _switch(engine)
    assert engine.jit.add(CODE)
    region = engine.jit.installed[CODE].region
    assert not region.tables
    assert (region.ranges[0][0], region.instructions) == (CODE, 18), "the arms belong to it"
    assert _run(engine) == (ExitCode.BREAKPOINT, COUNTED)
    engine.space.write(FAR, entries[1])
    assert _run(engine) == (ExitCode.BREAKPOINT, 7 * 10)
    assert CODE in engine.jit.installed


def test_pointers_at_constant_places_are_no_table(engines: Engines) -> None:
    """They are what a linker fills in."""
    engine = engines["flat"]
    _switch(engine, 8)
    engine.space.protect(FAR, PAGE, 1)
    assert engine.jit.add(CODE)
    assert not engine.jit.installed[CODE].region.tables
    assert _run(engine) == (ExitCode.BREAKPOINT, COUNTED)


def test_a_stored_region_whose_table_differs_is_not_used(engines: Engines) -> None:
    engine = engines["flat"]
    entries = _switch(engine)
    engine.space.protect(FAR, PAGE, 1)
    assert engine.jit.add(CODE)
    region = engine.jit.installed[CODE].region
    assert bundle.unpack(region.pack()) == [region]
    engine.space.protect(FAR, PAGE, 3)
    assert not engine.jit._place(region), "the table is writable"
    engine.space.write(FAR, entries[1])
    engine.space.protect(FAR, PAGE, 1)
    assert not engine.jit._place(region), "the table has changed"


def test_regions_stay_where_code_beside_them_changes(engines: Engines) -> None:
    """Only what was made from other code is dropped, and what stays is found again."""
    engine = engines["flat"]
    _mapped(engine, "addi a0, a0, 1; ebreak; nop; addi a0, a0, 2; ebreak")
    second = CODE + 12
    assert engine.jit.add(CODE)
    assert engine.jit.add(second)
    for added in (3, 4):
        engine.space.write(second, assemble(ARCHITECTURE, f"addi a0, a0, {added}", second))
        engine.engine.code_changed(second, 4)
        assert (CODE in engine.jit.installed, second in engine.jit.installed) == (True, False)
        blocks = engine.engine.arena.blocks
        assert _run(engine) == (ExitCode.BREAKPOINT, 1)
        assert engine.engine.arena.blocks == blocks, "the interpreter ran it"
        assert _run(engine, second) == (ExitCode.BREAKPOINT, added)
        assert engine.jit.add(second)


def test_callers_of_a_region_find_the_one_that_replaces_it(engines: Engines) -> None:
    engine = engines["flat"]
    _mapped(engine, f"again: jal ra, {FAR:#x}; addi s1, s1, -1; bnez s1, again", 7, 3 * PAGE)
    state = engine.engine.state
    for added in (1, 2, 3):
        engine.space.write(FAR, assemble(ARCHITECTURE, f"addi a0, a0, {added}; ret", FAR))
        engine.engine.code_changed(FAR, 8)
        state.set("x", 9, 4)
        assert _run(engine) == (ExitCode.BREAKPOINT, 4 * added)
        assert engine.jit.add(FAR)
        engine.jit.add(CODE)
        state.set("x", 9, 4)
        assert _run(engine) == (ExitCode.BREAKPOINT, 4 * added)


def test_counting_runs_no_regions(engines: Engines) -> None:
    engine = JitEngine(bounded=False)
    _mapped(engine, "again: addi a0, a0, 1; j again")
    assert engine.jit.add(CODE)
    engine.engine.state.pc = CODE
    engine.engine.state.set("x", 10, 0)
    assert engine.engine.run(100).code is ExitCode.BUDGET
    assert engine.engine.state.get("x", 10) == 50
    assert not engine.jit.add(CODE)


def test_hooked_code_is_not_compiled(engines: Engines) -> None:
    engine = engines["flat"]
    _mapped(engine, "addi a0, a0, 1")
    engine.space.flags.set_hook(CODE, True)
    try:
        assert not engine.jit.add(CODE)
    finally:
        engine.space.flags.set_hook(CODE, False)


# Stopping.
COUNTERS = """
again: addi a0, a0, 1; addi a1, a1, 3; jal ra, f; add a2, a0, a1; addi a3, a3, 1
inner: addi a4, a4, 1; andi t1, a4, 7; bnez t1, inner
other: addi a6, a6, 1; andi t1, a6, 3; bnez t1, other
    j again
f: addi a5, a5, 2; ret
"""


@pytest.mark.parametrize("variant", ["bounded", "flat"])
def test_the_state_is_exact_at_stops(variant: str, engines: Engines) -> None:
    """Whatever the poll: what has run of the loop fits the pc."""
    engine = engines[variant]
    _mapped(engine, COUNTERS)
    interpreter, state = engine.engine, engine.engine.state
    for index in range(1, 32):
        state.set("x", index, 0)
    state.pc = CODE
    compile_all(engine.jit, CODE, CODE + 20)
    done = threading.Event()

    def disturb() -> None:
        while not done.wait(0.001):
            interpreter.request_stop()

    thread = threading.Thread(target=disturb)
    thread.start()
    seen = set()
    try:
        for _ in range(150):
            ended = interpreter.run()
            interpreter.clear_stop()
            assert (ended.code, ended.pc) == (ExitCode.STOP, state.pc)
            offset = state.pc - CODE
            seen.add(offset)
            turns, inner = state.get("x", 10), state.get("x", 14)
            assert state.get("x", 11) == 3 * turns
            if offset == 0:
                assert (state.get("x", 13), inner) == (turns, 8 * turns)
                assert state.get("x", 15) == 2 * turns
            elif offset == 20:
                assert state.get("x", 13) == turns
                assert 8 * (turns - 1) <= inner < 8 * turns  # on every way to the loop's head
            elif offset == 28:  # on from a poll of the inner loop, which does not keep t1
                assert state.get("x", 13) == turns
                assert 8 * (turns - 1) < inner <= 8 * turns
                assert state.get("x", 6) == inner & 7
            elif offset in (32, 40):
                assert inner == 8 * turns
                other = state.get("x", 16) - (offset == 40)
                assert 4 * (turns - 1) <= other < 4 * turns
                assert offset == 32 or state.get("x", 6) == other + 1 & 3
            else:
                assert offset in (12, 48)  # back from f, or in it
                assert (state.get("x", 13), inner) == (turns - 1, 8 * (turns - 1))
    finally:
        done.set()
        thread.join()
        interpreter.clear_stop()
    assert len(seen) > 1


@pytest.mark.parametrize(("size", "nan"), [("d", 0x7FF8 << 48), ("s", 0xFFFFFFFF_7FC00000)])
def test_nans_are_canonical_at_stops(size: str, nan: int, engines: Engines) -> None:
    """Infinity times nothing is a negative NaN on the host; each turn overwrites the product."""
    engine = engines["flat"]
    again = f"fmul.{size} f2, f0, f1; fadd.{size} f3, f3, f2; addi a0, a0, 1"
    _mapped(engine, f"again: {again}; andi a1, a0, 1; bnez a1, again; {again}; j again")
    interpreter, state = engine.engine, engine.engine.state
    ones = nan >> 32 if size == "s" else 0
    infinity = {"d": 0x7FF0 << 48, "s": ones << 32 | 0x7F800000}[size]
    state.set("x", 10, 0)
    for index, value in enumerate([infinity, ones << 32, 0, 0]):
        state.set("f", index, value)
    state.pc = CODE
    compile_all(engine.jit, CODE)
    for _ in range(20):
        stopping = threading.Timer(0.002, interpreter.request_stop)
        stopping.start()
        ended = interpreter.run()
        stopping.join()
        interpreter.clear_stop()
        assert ended.code == ExitCode.STOP
        if state.get("x", 10):
            assert (state.get("f", 2), state.get("f", 3)) == (nan, nan)
    assert state.get("x", 10)


class Once(LocalCompiler):
    """A compiler that counts what it is asked for, and keeps what it makes."""

    def __init__(self, store: RegionStore | None = None) -> None:
        super().__init__(ARCHITECTURE, bounded=False)
        self.store = store
        self.asked: list[int] = []

    def compile(self, request: Request) -> bundle.CompiledRegion | None:
        self.asked.append(request.pc)
        region = super().compile(request)
        if self.store is not None and request.key is not None and region is not None:
            assert self.store.append(request.key, [region])
        return region


def test_polls_are_noted_and_the_guest_goes_on() -> None:
    """What is interpreted notes where it polls; native code is not left for it."""
    engine = JitEngine(bounded=False)
    _mapped(
        engine,
        """
        li s0, 4
    again:
        jal ra, one
        addi s0, s0, -1
        bnez s0, again
        ebreak
    one:
        ret
        """,
    )
    runner = engine.engine
    assert runner.take_notes() == []
    runner.inside = True  # as a sampler finds it while the guest runs
    runner.sample()
    runner.inside = False
    assert runner.take_notes() == [], "nothing has polled yet"
    runner.state.pc = CODE
    assert runner.run().code is ExitCode.BREAKPOINT
    notes = runner.take_notes()
    again, one, after = CODE + 4, CODE + 20, CODE + 8
    once = [one, again]  # a return that goes where its call said does not poll
    assert [note.pc for note in notes] == [CODE, *once, *once, *once, one]
    assert notes[0].source == 0
    assert [runner.arena.find(note.source)[2] for note in notes[1:3]] == [again, after + 4]
    assert [note.link for note in notes[1:3]] == [after] * 2
    assert struct.unpack_from("<Q", notes[3].registers, 8 * 8)[0] == 3, "s0"
    assert runner.take_notes() == [], "they are taken once"


def test_a_sampler_compiles_what_runs() -> None:
    engine = JitEngine(bounded=False)
    sampler = Sampler(engine.jit, threshold=1, interval=0.001)
    engine.engine.sampler = sampler
    _mapped(engine, "again: addi a0, a0, 1; addi a1, a1, -1; bnez a1, again")
    engine.engine.state.pc = CODE
    engine.engine.state.set("x", 10, 0)
    engine.engine.state.set("x", 11, 1_000_000_000)
    try:
        assert engine.engine.run().code is ExitCode.BREAKPOINT
    finally:
        sampler.close()
    assert engine.engine.state.get("x", 10) == 1_000_000_000
    assert CODE in engine.jit.installed


def test_who_begins_does_not_wait_for_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child would be seen asleep before it has done anything."""
    engine = JitEngine(bounded=False)
    sampler = Sampler(engine.jit)
    begun: list[Callable[..., None]] = []
    monkeypatch.setattr(
        "anyarch.engine.sampler.start_new_thread", lambda work, arguments: begun.append(work)
    )
    sampler.begin(CODE)
    assert len(begun) == 2
    sampler.stop()
    for work in begun:
        thread = threading.Thread(target=work)  # each has descriptors of its own
        thread.start()
        thread.join()
    sampler.close()


def test_what_a_region_has_in_its_middle_waits_for_more_samples() -> None:
    engine = JitEngine(bounded=False)
    compiler = Once()
    engine.jit = Jit(engine.engine.arena, engine.engine.native, compiler)
    _mapped(engine, "addi a0, a0, 1; again: addi a1, a1, -1; bnez a1, again; ebreak; one: ret")
    again, one = CODE + 4, CODE + 16
    assert engine.jit.add(CODE)
    sampler = Sampler(engine.jit, threshold=2)
    sampler.begin(CODE)

    def note(pc: int, source: int) -> None:
        sampler.consider([Note(source, pc, 0, bytes(256))])

    def wait_for(pc: int) -> None:
        deadline = time.monotonic() + 60
        while pc not in engine.jit.installed:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    try:
        for _ in range(3):
            note(again, FROM_REGION)
        for _ in range(2):
            note(one, FROM_REGION)
        wait_for(one)
        assert compiler.asked == [CODE, one]
        note(again, FROM_REGION)
        wait_for(again)
    finally:
        sampler.close()


def test_what_is_called_waits_for_no_more_samples() -> None:
    engine = JitEngine(bounded=False)
    _mapped(engine, "addi a0, a0, 1; again: addi a1, a1, -1; bnez a1, again; ebreak")
    assert engine.jit.add(CODE)
    sampler = Sampler(engine.jit, threshold=2)
    sampler.begin(CODE)
    try:
        for source in (FROM_REGION, FROM_CALL):
            sampler.consider([Note(source, CODE + 4, 0, bytes(256))])
        deadline = time.monotonic() + 60
        while CODE + 4 not in engine.jit.installed:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        sampler.close()


def test_a_jump_that_leads_far_is_a_call_that_was_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in procedure linkage tables: the link register leads behind who called those."""
    engine = JitEngine(bounded=False)
    _mapped(engine, "jal ra, table; ebreak; table: j near; nop; near: ret")
    engine.engine.state.pc = CODE
    assert engine.engine.run().code is ExitCode.BREAKPOINT
    arena, table = engine.engine.arena, CODE + 8
    record = arena._records[arena.visited().index(table)]
    assert arena.find(record)[2] == table
    left: list[tuple[int, bytes, bool, bool]] = []
    monkeypatch.setattr(engine.jit, "leave", left.extend)
    sampler = Sampler(engine.jit, threshold=1000)
    sampler.begin(CODE)
    for pc in (table + 8, table + 4096, table + 4098, table - 4):
        sampler.consider([Note(record, pc, CODE + 4, bytes(256))])
    sampler.close()
    assert [(pc, is_inner) for pc, _, is_inner, _ in left] == [(table + 4098, False)]


def test_what_others_passed_is_left_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some polls in a row one is counted; the others tell where the guest goes as well."""
    engine = JitEngine(bounded=False)
    _mapped(engine, "addi a0, a0, 1; again: addi a1, a1, -1; bnez a1, again; one: ret; two: ret")
    left: list[tuple[int, bytes, bool, bool]] = []
    monkeypatch.setattr(engine.jit, "leave", left.extend)
    sampler = Sampler(engine.jit, threshold=1000)
    sampler.begin(CODE)
    registers = bytes(range(256))
    again, one, two = (Note(FROM_REGION, CODE + at, 0, registers) for at in (4, 10, 12))
    called = Note(FROM_CALL, two.pc, 0, registers)
    returned = Note(FROM_REGION, CODE + 2, CODE + 2, registers)
    sampler.consider([again, one, called])
    sampler.consider([returned, one, called, called])
    sampler.close()
    assert left == [
        (two.pc, b"", False, True),
        (one.pc, registers, True, False),
        (again.pc, registers, True, False),
    ]


def test_a_sampler_sleeps_while_nothing_runs() -> None:
    engine = JitEngine(bounded=False)
    sampler = Sampler(engine.jit, threshold=1, interval=0.001)
    engine.engine.sampler = sampler
    _mapped(engine, "again: addi a0, a0, 1; addi a1, a1, -1; bnez a1, again")
    try:
        for _ in range(2):
            deadline = time.monotonic() + 60
            while CODE not in engine.jit.installed:
                engine.engine.state.pc = CODE
                engine.engine.state.set("x", 11, 10_000_000)
                assert engine.engine.run().code is ExitCode.BREAKPOINT
                assert time.monotonic() < deadline
            while not sampler._is_asleep:
                time.sleep(0.001)
                assert time.monotonic() < deadline
            engine.engine.flush()
            assert not engine.jit.installed
    finally:
        sampler.close()


def test_what_is_compiled_already_is_installed_at_the_first_sample(tmp_path: Path) -> None:
    store = RegionStore(CodeCache(str(tmp_path)), "k")
    compiler = Once()
    made = _with_store(store, compiler)
    assert made.jit.add(CODE)
    region = made.jit.installed[CODE].region
    key = store.key_of(
        next(r for r in made.space.regions() if r.start == CODE), made.space.read(CODE, PAGE)
    )
    assert key is not None
    assert store.append(key, [region], ahead=True)
    engine = _with_store(store, compiler)
    engine.jit.load(CODE + 4)
    assert not engine.jit.installed, "what was compiled ahead of time waits"
    assert engine.jit.knows(CODE)
    sampler = Sampler(engine.jit, threshold=1000)
    sampler.begin(CODE + 4)
    try:
        sampler.consider([Note(FROM_REGION, CODE, 0, bytes(256))])
        deadline = time.monotonic() + 60
        while CODE not in engine.jit.installed:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        sampler.close()
    assert (engine.jit.loaded, engine.jit.compiled, len(compiler.asked)) == (1, 0, 1)


def test_what_was_compiled_ahead_is_installed_where_the_guest_comes(tmp_path: Path) -> None:
    store = RegionStore(CodeCache(str(tmp_path)), "k")
    compiler = Once()
    made = _with_store(store, compiler)
    assert compile_all(made.jit, CODE) > 1
    mapping = next(r for r in made.space.regions() if r.start == CODE)
    key = store.key_of(mapping, made.space.read(CODE, PAGE))
    assert key is not None
    store.append(key, [found.region for found in made.jit.installed.values()], ahead=True)
    engine = _with_store(store, compiler)
    engine.jit.load(CODE)
    assert engine.jit.installed.keys() == {CODE}, "the guest begins there"
    assert not engine.jit.load_visited()
    engine.jit.drop(CODE, CODE + PAGE)
    engine.engine.state.set("x", 2, DATA + PAGE)
    assert _run(engine)[0] is ExitCode.BREAKPOINT
    assert engine.jit.load_visited()
    visited = set(engine.engine.arena.visited())
    assert engine.jit.installed.keys() == made.jit.installed.keys() & visited
    assert len(engine.jit.installed) > 1
    assert not engine.jit.load_visited(), "all is in place"


# The cache.
def _with_store(store: RegionStore, compiler: Once, text: str = FIBONACCI) -> JitEngine:
    engine = JitEngine(bounded=False)
    engine.jit = Jit(engine.engine.arena, engine.engine.native, compiler, store)
    _mapped(engine, text)
    return engine


def test_what_was_compiled_is_found_again(tmp_path: Path) -> None:
    store = RegionStore(CodeCache(str(tmp_path)), "k")
    compiler = Once(store)
    first = _with_store(store, compiler)
    count = compile_all(first.jit, CODE)
    assert count == len(compiler.asked) > 1
    second = _with_store(store, compiler)
    second.jit.load(CODE)
    assert (second.jit.loaded, second.jit.compiled) == (count, 0)
    assert second.jit.installed.keys() == first.jit.installed.keys()
    assert len(compiler.asked) == count
    for engine in (first, second):
        engine.engine.state.set("x", 2, DATA + PAGE)
        assert _run(engine)[0] is ExitCode.BREAKPOINT
        assert engine.engine.state.get("x", 10) == 13


def test_code_that_differs_is_compiled_anew(tmp_path: Path) -> None:
    """The first page is the key; behind it the digest of a region's own code decides."""
    store = RegionStore(CodeCache(str(tmp_path)), "k")
    compiler = Once(store)
    for added in (2, 4):
        engine = JitEngine(bounded=False)
        engine.jit = Jit(engine.engine.arena, engine.engine.native, compiler, store)
        _two_parts(engine)
        engine.space.write(FAR, assemble(ARCHITECTURE, f"addi a0, a0, {added}; ebreak", FAR))
        engine.jit.load(CODE)
        assert not engine.jit.installed
        assert engine.jit.add(CODE)
        assert _run(engine) == (ExitCode.BREAKPOINT, 1 + added)
    assert len(compiler.asked) == 2


def test_a_damaged_region_is_ignored(tmp_path: Path) -> None:
    store = RegionStore(CodeCache(str(tmp_path)), "k")
    compiler = Once(store)
    engine = _with_store(store, compiler)
    engine.jit.add(CODE)
    (file,) = [path for path in tmp_path.iterdir() if path.is_file()]
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    again = _with_store(store, compiler)
    again.jit.load(CODE)
    assert not again.jit.installed
    assert again.jit.add(CODE)
    third = _with_store(store, compiler)
    third.jit.load(CODE)
    assert third.jit.loaded == 1
    assert len(compiler.asked) == 2


@pytest.mark.parametrize("seed", range(20))
def test_unpacking_never_fails_otherwise(seed: int) -> None:
    source = random.Random(seed)
    region = bundle.CompiledRegion(
        CODE, 16, 3, (CODE, FAR), ((CODE, CODE + 8), (FAR, FAR + 4)), bytes(16), b"code" * 9
    )
    data = bytearray(region.pack() * 3)
    assert bundle.unpack(bytes(data)) == [region] * 3
    for _ in range(4):
        data[source.randrange(len(data))] = source.randrange(256)
    with contextlib.suppress(ValueError, struct.error):
        bundle.unpack(bytes(data[: source.randrange(len(data))]))


def test_regions_are_aligned_for_vector_constants() -> None:
    arena = CodeArena()
    for nbytes in (1, 17, 33, 100):
        assert arena.append(bytes(nbytes)) % 64 == 0


def test_a_region_that_is_always_left_where_it_begins_goes(engines: Engines) -> None:
    """A loop that has singles is come to with a double, again and again."""
    text = """
        li s0, 200; fmv.w.x ft1, zero
    outer: fcvt.d.l ft0, s0; li s1, 3; jal ra, loop
        addi s0, s0, -1; bnez s0, outer; j end
    loop: fadd.s ft0, ft0, ft1; addi s1, s1, -1; bnez s1, loop; ret
    end: nop
    """
    case, engine = program(text), engines["flat"]
    expected = lockstep.run_reference(case, 5000)
    NativeEngine.prepare(engine, case)  # nothing is compiled
    loop = CODE + assembled(text).index(assembled("fadd.s ft0, ft0, ft1"))
    assert engine.jit.add(loop)
    found = engine.outcome(engine.engine.run(None))
    assert not lockstep.differences(expected, found)
    assert loop not in engine.jit.installed
    assert engine.jit.is_settled(loop), "it would be asked for again"


def test_where_the_guest_never_was_no_region_goes(engines: Engines) -> None:
    """A branch that was never taken leaves the region; where it leads may be compiled later."""
    engine = engines["flat"]
    rare = CODE + 0x40
    text = f"addi a0, a0, 1; bnez a1, {rare:#x}; addi a0, a0, 2; ebreak"
    _mapped(engine, text, 7, PAGE)
    with engine.space.lock:
        engine.space.write(rare, assemble(ARCHITECTURE, "addi a0, a0, 4; ebreak", rare))
    state = engine.engine.state
    for taken, known, count in ((0, False, 6), (0, True, 4), (1, True, 6)):
        engine.engine.flush()
        assert not engine.jit.installed
        if known:
            state.set("x", 11, taken)
            assert _run(engine)[0] is ExitCode.BREAKPOINT
            engine.jit.load_visited()
        assert engine.jit.add(CODE)
        assert engine.jit.installed[CODE].region.instructions == count
        for value, total in ((0, 3), (1, 5), (0, 3)):
            state.set("x", 11, value)
            assert _run(engine) == (ExitCode.BREAKPOINT, total)


def test_code_of_regions_counts_as_visited(engines: Engines) -> None:
    engine = engines["flat"]
    rare = CODE + 0x40
    _mapped(engine, f"nop; addi a0, a0, 1; bnez a1, {rare:#x}; addi a0, a0, 2; ebreak", 7, PAGE)
    with engine.space.lock:
        engine.space.write(rare, assemble(ARCHITECTURE, "addi a0, a0, 4; ebreak", rare))
    engine.engine.state.set("x", 11, 0)
    assert engine.jit.add(CODE + 4), "nobody knows where the guest has been"
    whole = engine.jit.installed[CODE + 4].region.instructions
    assert _run(engine) == (ExitCode.BREAKPOINT, 3)
    engine.jit.load_visited()
    assert engine.jit.add(CODE)
    assert engine.jit.installed[CODE].region.instructions == whole + 1
