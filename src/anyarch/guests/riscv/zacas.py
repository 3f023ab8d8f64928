"""Zacas, atomic compare and swap (unprivileged ISA manual 20240411, chapter 16).

amocas.q takes even-odd register pairs; odd numbers are reserved. A pair that begins with x0 reads
as zero and is not written, so those encodings are definitions of their own.
"""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.guests.riscv.rv64a import aligned
from anyarch.ir.bits import Bits, Concrete
from anyarch.isa.machine import Machine


@insn("00101 order:2 rs2 rs1 010 rd 0101111", "amocas.w{order:ordering} {rd}, {rs2}, ({rs1})")
def amocas_w(m: Machine, order: Bits, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Compare a word in memory with rd and swap in rs2 if equal; the old value is the result."""
    address = aligned(m, m.x[rs1], 32)
    m.x[rd] = m.compare_exchange(address, m.x[rd, 32], m.x[rs2, 32]).sext(64)


@insn("00101 order:2 rs2 rs1 011 rd 0101111", "amocas.d{order:ordering} {rd}, {rs2}, ({rs1})")
def amocas_d(m: Machine, order: Bits, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Compare a doubleword in memory with rd and swap in rs2 if equal; the old value results."""
    m.x[rd] = m.compare_exchange(aligned(m, m.x[rs1], 64), m.x[rd], m.x[rs2])


def _pair(m: Machine, number: Bits) -> Bits:
    return m.x[number + 1].concat(m.x[number])


def _quad(m: Machine, rs1: Bits, expected: Bits, new: Bits) -> Bits:
    return m.compare_exchange(aligned(m, m.x[rs1], 128), expected, new)


_ZERO = Concrete(0, 128)


@insn(
    "00101 order:2 rs2[4:1] 0 rs1 100 rd[4:1] 0 0101111",
    "amocas.q{order:ordering} {rd}, {rs2}, ({rs1})",
    where="rs2 != 0, rd != 0",
)
def amocas_q(m: Machine, order: Bits, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Compare 128 bits in memory with a pair and swap in a pair if equal; the old value results."""
    old = _quad(m, rs1, _pair(m, rd), _pair(m, rs2))
    m.x[rd], m.x[rd + 1] = old.lanes(64)


@insn(
    "00101 order:2 00000 rs1 100 rd[4:1] 0 0101111",
    "amocas.q{order:ordering} {rd}, zero, ({rs1})",
    where="rd != 0",
)
def amocas_q_swap_zero(m: Machine, order: Bits, rs1: Bits, rd: Bits) -> None:
    """Compare 128 bits in memory with a pair and swap in zero if equal; the old value results."""
    old = _quad(m, rs1, _pair(m, rd), _ZERO)
    m.x[rd], m.x[rd + 1] = old.lanes(64)


@insn(
    "00101 order:2 rs2[4:1] 0 rs1 100 00000 0101111",
    "amocas.q{order:ordering} zero, {rs2}, ({rs1})",
    where="rs2 != 0",
)
def amocas_q_compare_zero(m: Machine, order: Bits, rs2: Bits, rs1: Bits) -> None:
    """Compare 128 bits in memory with zero and swap in a pair if equal; no result."""
    _quad(m, rs1, _ZERO, _pair(m, rs2))


@insn("00101 order:2 00000 rs1 100 00000 0101111", "amocas.q{order:ordering} zero, zero, ({rs1})")
def amocas_q_zero(m: Machine, order: Bits, rs1: Bits) -> None:
    """Compare 128 bits in memory with zero and swap in zero if equal; no result."""
    _quad(m, rs1, _ZERO, _ZERO)
