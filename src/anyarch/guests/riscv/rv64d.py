"""RV64D double-precision floating point (unprivileged ISA manual 20240411, chapter 21).

Arithmetic, comparisons and conversions that every format has are in ``floats``. Conversions whose
result is always exact take any valid rounding mode and have none in their assembly text.
"""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.guests.riscv.floats import BASIC, DOUBLE, SINGLE, VALID_RM, convert, rounding
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine

BASIC.define(DOUBLE, __name__)


@insn("imm[11:0] rs1 011 fd 0000111", "fld {fd}, {imm}({rs1})")
def fld(m: Machine, imm: Bits, rs1: Bits, fd: Bits) -> None:
    """Load a double."""
    m.f[fd] = m.load(m.x[rs1] + imm, 64)


@insn("imm[11:5] fs2 rs1 011 imm[4:0] 0100111", "fsd {fs2}, {imm}({rs1})")
def fsd(m: Machine, imm: Bits, fs2: Bits, rs1: Bits) -> None:
    """Store a double."""
    m.store(m.x[rs1] + imm, m.f[fs2])


@insn("1110001 00000 fs1 000 rd 1010011", "fmv.x.d {rd}, {fs1}")
def fmv_x_d(m: Machine, fs1: Bits, rd: Bits) -> None:
    """Move a double to an integer register."""
    m.x[rd] = m.f[fs1]


@insn("1111001 00000 rs1 000 fd 1010011", "fmv.d.x {fd}, {rs1}")
def fmv_d_x(m: Machine, rs1: Bits, fd: Bits) -> None:
    """Move a doubleword into a floating-point register."""
    m.f[fd] = m.x[rs1]


@insn("1101001 00000 rs1 rm fd 1010011", "fcvt.d.w {fd}, {rs1}", where=VALID_RM)
def fcvt_d_w(m: Machine, rs1: Bits, rm: Bits, fd: Bits) -> None:
    """Convert from a signed word."""
    m.f[fd] = m.fp.from_int("f64", m.x[rs1, 32], True, 0)


@insn("1101001 00001 rs1 rm fd 1010011", "fcvt.d.wu {fd}, {rs1}", where=VALID_RM)
def fcvt_d_wu(m: Machine, rs1: Bits, rm: Bits, fd: Bits) -> None:
    """Convert from an unsigned word."""
    m.f[fd] = m.fp.from_int("f64", m.x[rs1, 32], False, 0)


@insn("0100001 00000 fs1 rm fd 1010011", "fcvt.d.s {fd}, {fs1}", where=VALID_RM)
def fcvt_d_s(m: Machine, fs1: Bits, rm: Bits, fd: Bits) -> None:
    """Convert a single to a double."""
    convert(m, SINGLE, DOUBLE, fs1, fd, 0)


@insn(
    "0100000 00001 fs1 rm fd 1010011",
    "fcvt.s.d {fd}, {fs1}{rm:rounding}",
    static="rm",
    where=VALID_RM,
)
def fcvt_s_d(m: Machine, fs1: Bits, rm: int, fd: Bits) -> None:
    """Convert a double to a single."""
    convert(m, DOUBLE, SINGLE, fs1, fd, rounding(rm))
