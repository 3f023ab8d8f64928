"""Zfh half-precision floating point (unprivileged ISA manual 20240411, chapter "Zfh").

Arithmetic, comparisons and conversions that every format has are in ``floats``.
"""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.guests.riscv.floats import (
    BASIC,
    DOUBLE,
    FROM_WORD,
    HALF,
    SINGLE,
    VALID_RM,
    convert,
    rounding,
)
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine

BASIC.define(HALF, __name__)
FROM_WORD.define(HALF, __name__)


@insn("imm[11:0] rs1 001 fd 0000111", "flh {fd}, {imm}({rs1})")
def flh(m: Machine, imm: Bits, rs1: Bits, fd: Bits) -> None:
    """Load a half."""
    HALF.write(m, fd, m.load(m.x[rs1] + imm, 16))


@insn("imm[11:5] fs2 rs1 001 imm[4:0] 0100111", "fsh {fs2}, {imm}({rs1})")
def fsh(m: Machine, imm: Bits, fs2: Bits, rs1: Bits) -> None:
    """Store the low halfword of a register, boxed or not."""
    m.store(m.x[rs1] + imm, m.f[fs2, 16])


@insn("1110010 00000 fs1 000 rd 1010011", "fmv.x.h {rd}, {fs1}")
def fmv_x_h(m: Machine, fs1: Bits, rd: Bits) -> None:
    """Move the low halfword of a register, boxed or not, sign-extended."""
    m.x[rd] = m.f[fs1, 16].sext(64)


@insn("1111010 00000 rs1 000 fd 1010011", "fmv.h.x {fd}, {rs1}")
def fmv_h_x(m: Machine, rs1: Bits, fd: Bits) -> None:
    """Move a halfword into a floating-point register."""
    HALF.write(m, fd, m.x[rs1, 16])


@insn("0100000 00010 fs1 rm fd 1010011", "fcvt.s.h {fd}, {fs1}", where=VALID_RM)
def fcvt_s_h(m: Machine, fs1: Bits, rm: Bits, fd: Bits) -> None:
    """Convert a half to a single."""
    convert(m, HALF, SINGLE, fs1, fd, 0)


@insn("0100001 00010 fs1 rm fd 1010011", "fcvt.d.h {fd}, {fs1}", where=VALID_RM)
def fcvt_d_h(m: Machine, fs1: Bits, rm: Bits, fd: Bits) -> None:
    """Convert a half to a double."""
    convert(m, HALF, DOUBLE, fs1, fd, 0)


@insn(
    "0100010 00000 fs1 rm fd 1010011",
    "fcvt.h.s {fd}, {fs1}{rm:rounding}",
    static="rm",
    where=VALID_RM,
)
def fcvt_h_s(m: Machine, fs1: Bits, rm: int, fd: Bits) -> None:
    """Convert a single to a half."""
    convert(m, SINGLE, HALF, fs1, fd, rounding(rm))


@insn(
    "0100010 00001 fs1 rm fd 1010011",
    "fcvt.h.d {fd}, {fs1}{rm:rounding}",
    static="rm",
    where=VALID_RM,
)
def fcvt_h_d(m: Machine, fs1: Bits, rm: int, fd: Bits) -> None:
    """Convert a double to a half."""
    convert(m, DOUBLE, HALF, fs1, fd, rounding(rm))
