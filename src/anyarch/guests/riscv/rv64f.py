"""RV64F single-precision floating point (unprivileged ISA manual 20240411, chapter 20).

Arithmetic, comparisons and conversions that every format has are in ``floats``.
"""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.guests.riscv.floats import BASIC, FROM_WORD, SINGLE
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine

BASIC.define(SINGLE, __name__)
FROM_WORD.define(SINGLE, __name__)


@insn("imm[11:0] rs1 010 fd 0000111", "flw {fd}, {imm}({rs1})")
def flw(m: Machine, imm: Bits, rs1: Bits, fd: Bits) -> None:
    """Load a single."""
    SINGLE.write(m, fd, m.load(m.x[rs1] + imm, 32))


@insn("imm[11:5] fs2 rs1 010 imm[4:0] 0100111", "fsw {fs2}, {imm}({rs1})")
def fsw(m: Machine, imm: Bits, fs2: Bits, rs1: Bits) -> None:
    """Store the low word of a register, boxed or not."""
    m.store(m.x[rs1] + imm, m.f[fs2, 32])


@insn("1110000 00000 fs1 000 rd 1010011", "fmv.x.w {rd}, {fs1}")
def fmv_x_w(m: Machine, fs1: Bits, rd: Bits) -> None:
    """Move the low word of a register, boxed or not, sign-extended."""
    m.x[rd] = m.f[fs1, 32].sext(64)


@insn("1111000 00000 rs1 000 fd 1010011", "fmv.w.x {fd}, {rs1}")
def fmv_w_x(m: Machine, rs1: Bits, fd: Bits) -> None:
    """Move a word into a floating-point register."""
    SINGLE.write(m, fd, m.x[rs1, 32])
