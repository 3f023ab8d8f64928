"""A few definitions of AArch64 and x86-64: the instruction language beyond RISC-V.

AArch64: Arm Architecture Reference Manual DDI 0487, chapters C6 and C7. x86-64: Intel's Software
Developer's Manual, volume 2. Here they serve tests only.
"""

from __future__ import annotations

from typing import Final

from anyarch.ir.bits import Bits, join
from anyarch.isa.architecture import Architecture
from anyarch.isa.instruction import InstructionSet, Kind
from anyarch.isa.machine import Machine, when
from anyarch.isa.registers import Layout, RegisterFile
from anyarch.isa.syntax import Syntax, suffix

CONDITIONS: Final = "eq ne cs cc mi pl vs vc hi ls ge lt gt le al nv"
arm: Final = InstructionSet(
    "aarch64-sample",
    {
        "sf": Kind(1),
        "rn": Kind(5, file="x"),
        "rm": Kind(5, file="x"),
        "rd": Kind(5, file="x"),
        "vn": Kind(5, file="v"),
        "vm": Kind(5, file="v"),
        "vd": Kind(5, file="v"),
        "imm6": Kind(6),
    },
    syntax=Syntax(
        {
            "shift": suffix({0: "lsl", 1: "lsr", 2: "asr"}, "lsl, lsr or asr"),
            "cond": suffix(dict(enumerate(CONDITIONS.split())), "a condition"),
            "lanes": suffix(
                {0: "8b", 1: "4h", 2: "2s", 4: "16b", 5: "8h", 6: "4s", 7: "2d"},
                "an arrangement",
            ),
            "width": suffix({0: "w", 1: "x"}, "w or x"),
        }
    ),
)
ARM_LAYOUT: Final = Layout(
    (
        RegisterFile("x", 32, 64, (*(f"x{n}" for n in range(31)), "xzr"), zero=31),
        RegisterFile("nzcv", 1, 8, ("nzcv",)),
        RegisterFile("v", 32, 128),
    )
)


def add_with_carry(a: Bits, b: Bits, carry: int) -> tuple[Bits, Bits]:
    """Sum and NZCV flags."""
    result = a + b + carry
    unsigned = a.zext(a.size + 1) + b.zext(a.size + 1) + carry
    overflow = ((a ^ result) & (b ^ result))[-1]
    return result, join([overflow, unsigned[-1], result == 0, result[-1]])


def shifted(value: Bits, shift: int, amount: Bits) -> Bits:
    """A register operand, shifted left, right or right with its sign."""
    amount = amount.zext(value.size)
    return (value << amount, value >> amount, value.sar(amount))[shift]


# A template cannot choose register names by another field: here the width is an operand.
@arm.insn(
    "sf 01 01011 shift:2 0 rm imm6 rn rd",
    "adds {sf:width}, {rd}, {rn}, {rm}, {shift:shift} {imm6}",
    static="sf shift",
    where="shift != 3",
)
def adds_shifted(m: Machine, sf: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits) -> None:
    """Add a shifted register, setting flags."""
    size = 64 if sf else 32
    if not sf:
        with when(imm6[5]):
            m.illegal()
    total, flags = add_with_carry(m.x[rn, size], shifted(m.x[rm, size], shift, imm6), carry=0)
    m.x[rd, size] = total
    m.nzcv[0, 4] = flags


def holds(m: Machine, cond: int) -> Bits:
    """Whether a condition holds."""
    v, c, z, n = m.nzcv[0, 4].lanes(1)
    tests = (z, c, n, v, c & ~z, n == v, (n == v) & ~z, z | ~z)
    return ~tests[cond >> 1] if cond & 1 and cond != 15 else tests[cond >> 1]


@arm.insn(
    "sf 00 11010100 rm cond:4 00 rn rd",
    "csel {sf:width}, {rd}, {rn}, {rm}, {cond:cond}",
    static="sf cond",
)
def csel(m: Machine, sf: int, rm: Bits, cond: int, rn: Bits, rd: Bits) -> None:
    """Select by condition."""
    size = 64 if sf else 32
    m.x[rd, size] = holds(m, cond).select(m.x[rn, size], m.x[rm, size])


@arm.insn(
    "0 lanes[2] 0 01110 lanes[1:0] 1 vm 10000 1 vn vd",
    "add {vd}.{lanes:lanes}, {vn}.{lanes:lanes}, {vm}.{lanes:lanes}",
    static="lanes",
    where="lanes != 3",
)
def add_vector(m: Machine, lanes: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Add lane by lane; the upper half is zero for 64-bit arrangements."""
    total, size = 128 if lanes & 4 else 64, 8 << (lanes & 3)
    pairs = zip(m.v[vn, total].lanes(size), m.v[vm, total].lanes(size), strict=True)
    m.v[vd, total] = join([a + b for a, b in pairs])


ARM: Final = Architecture(
    "aarch64-sample", lambda: arm, ARM_LAYOUT, ((0, 0, 4),), stack_pointer=("x", 28)
)

R_NAMES: Final = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15"
E_NAMES: Final = "eax ecx edx ebx esp ebp esi edi"
x86: Final = InstructionSet(
    "x86-64-sample",
    {
        "reg": Kind(4, file="r"),
        "rm": Kind(4, file="r"),
        "e": Kind(3, file="e"),
        "imm32": Kind(32),
    },
    unit=8,
)
X86_LAYOUT: Final = Layout(
    (
        RegisterFile("r", 16, 64, tuple(R_NAMES.split())),
        RegisterFile("e", 8, 64, tuple(E_NAMES.split()), shares="r"),
        RegisterFile("flag", 6, 8, ("cf", "pf", "af", "zf", "sf", "of")),
    )
)
RCX, RSI, RDI = 1, 6, 7


@x86.insn("0100 1 reg[3] 0 rm[3] 00000001 11 reg[2:0] rm[2:0]", "add {rm}, {reg}")
def add_rm64_r64(m: Machine, reg: Bits, rm: Bits) -> None:
    """Add, setting flags."""
    a, b = m.r[rm], m.r[reg]
    result = a + b
    m.r[rm] = result
    parity = ~result.trunc(8).popcount()[0]
    flags = (result < a, parity, (a ^ b ^ result)[4], result == 0, result[-1])
    for index, flag in enumerate((*flags, ((a ^ result) & (b ^ result))[-1])):
        m.flag[index, 1] = flag


@x86.insn("10111 e imm32", "mov {e}, {imm32:hex}")
def mov_r32_imm32(m: Machine, e: Bits, imm32: Bits) -> None:
    """Move an immediate; the upper half becomes zero."""
    m.e[e, 32] = imm32


@x86.insn("11110011 10100100", "rep movsb")
def rep_movsb(m: Machine) -> None:
    """Copy rcx bytes upwards: one, then this instruction again while some are left."""
    count, source, target = m.r[RCX], m.r[RSI], m.r[RDI]
    with when(count != 0):
        m.store(target, m.load(source, 8))
        m.r[RCX], m.r[RSI], m.r[RDI] = count - 1, source + 1, target + 1
        with when(count != 1):
            m.jump(m.pc)


X86: Final = Architecture(
    "x86-64-sample",
    lambda: x86,
    X86_LAYOUT,
    ((0xF0, 0x40, 3), (0xF8, 0xB8, 5), (0, 0, 2)),  # enough for these rows, not for x86-64
    stack_pointer=("r", 4),
)
