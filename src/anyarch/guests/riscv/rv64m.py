"""M, integer multiplication and division (unprivileged ISA manual 20240411, chapter 13)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@insn("0000001 rs2 rs1 000 rd 0110011", "mul {rd}, {rs1}, {rs2}")
def mul(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Multiply, low half."""
    m.x[rd] = m.x[rs1] * m.x[rs2]


@insn("0000001 rs2 rs1 001 rd 0110011", "mulh {rd}, {rs1}, {rs2}")
def mulh(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Multiply signed by signed, high half."""
    m.x[rd] = (m.x[rs1].sext(128) * m.x[rs2].sext(128))[64:]


@insn("0000001 rs2 rs1 010 rd 0110011", "mulhsu {rd}, {rs1}, {rs2}")
def mulhsu(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Multiply signed by unsigned, high half."""
    m.x[rd] = (m.x[rs1].sext(128) * m.x[rs2].zext(128))[64:]


@insn("0000001 rs2 rs1 011 rd 0110011", "mulhu {rd}, {rs1}, {rs2}")
def mulhu(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Multiply unsigned by unsigned, high half."""
    m.x[rd] = (m.x[rs1].zext(128) * m.x[rs2].zext(128))[64:]


@insn("0000001 rs2 rs1 100 rd 0110011", "div {rd}, {rs1}, {rs2}")
def div(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Divide, signed; -1 for a zero divisor."""
    m.x[rd] = m.x[rs1].sdiv(m.x[rs2])


@insn("0000001 rs2 rs1 101 rd 0110011", "divu {rd}, {rs1}, {rs2}")
def divu(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Divide, unsigned; all ones for a zero divisor."""
    m.x[rd] = m.x[rs1].udiv(m.x[rs2])


@insn("0000001 rs2 rs1 110 rd 0110011", "rem {rd}, {rs1}, {rs2}")
def rem(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Remainder, signed; the dividend for a zero divisor."""
    m.x[rd] = m.x[rs1].srem(m.x[rs2])


@insn("0000001 rs2 rs1 111 rd 0110011", "remu {rd}, {rs1}, {rs2}")
def remu(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Remainder, unsigned; the dividend for a zero divisor."""
    m.x[rd] = m.x[rs1].urem(m.x[rs2])


@insn("0000001 rs2 rs1 000 rd 0111011", "mulw {rd}, {rs1}, {rs2}")
def mulw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Multiply words."""
    m.x[rd] = (m.x[rs1, 32] * m.x[rs2, 32]).sext(64)


@insn("0000001 rs2 rs1 100 rd 0111011", "divw {rd}, {rs1}, {rs2}")
def divw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Divide words, signed."""
    m.x[rd] = m.x[rs1, 32].sdiv(m.x[rs2, 32]).sext(64)


@insn("0000001 rs2 rs1 101 rd 0111011", "divuw {rd}, {rs1}, {rs2}")
def divuw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Divide words, unsigned."""
    m.x[rd] = m.x[rs1, 32].udiv(m.x[rs2, 32]).sext(64)


@insn("0000001 rs2 rs1 110 rd 0111011", "remw {rd}, {rs1}, {rs2}")
def remw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Remainder of words, signed."""
    m.x[rd] = m.x[rs1, 32].srem(m.x[rs2, 32]).sext(64)


@insn("0000001 rs2 rs1 111 rd 0111011", "remuw {rd}, {rs1}, {rs2}")
def remuw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Remainder of words, unsigned."""
    m.x[rd] = m.x[rs1, 32].urem(m.x[rs2, 32]).sext(64)
