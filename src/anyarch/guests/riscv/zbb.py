"""Zbb, basic bit manipulation (unprivileged ISA manual 20240411, chapter 28)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits, Concrete, join
from anyarch.isa.machine import Machine


@insn("0100000 rs2 rs1 111 rd 0110011", "andn {rd}, {rs1}, {rs2}")
def andn(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """And with the complement."""
    m.x[rd] = m.x[rs1] & ~m.x[rs2]


@insn("0100000 rs2 rs1 110 rd 0110011", "orn {rd}, {rs1}, {rs2}")
def orn(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Or with the complement."""
    m.x[rd] = m.x[rs1] | ~m.x[rs2]


@insn("0100000 rs2 rs1 100 rd 0110011", "xnor {rd}, {rs1}, {rs2}")
def xnor(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Exclusive nor."""
    m.x[rd] = ~(m.x[rs1] ^ m.x[rs2])


@insn("0110000 00000 rs1 001 rd 0010011", "clz {rd}, {rs1}")
def clz(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Count leading zeros."""
    m.x[rd] = m.x[rs1].clz()


@insn("0110000 00001 rs1 001 rd 0010011", "ctz {rd}, {rs1}")
def ctz(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Count trailing zeros."""
    m.x[rd] = m.x[rs1].ctz()


@insn("0110000 00010 rs1 001 rd 0010011", "cpop {rd}, {rs1}")
def cpop(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Count set bits."""
    m.x[rd] = m.x[rs1].popcount()


@insn("0110000 00000 rs1 001 rd 0011011", "clzw {rd}, {rs1}")
def clzw(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Count leading zeros of a word."""
    m.x[rd] = m.x[rs1, 32].clz().zext(64)


@insn("0110000 00001 rs1 001 rd 0011011", "ctzw {rd}, {rs1}")
def ctzw(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Count trailing zeros of a word."""
    m.x[rd] = m.x[rs1, 32].ctz().zext(64)


@insn("0110000 00010 rs1 001 rd 0011011", "cpopw {rd}, {rs1}")
def cpopw(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Count set bits of a word."""
    m.x[rd] = m.x[rs1, 32].popcount().zext(64)


@insn("0000101 rs2 rs1 110 rd 0110011", "max {rd}, {rs1}, {rs2}")
def max_(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Maximum, signed."""
    m.x[rd] = m.x[rs1].slt(m.x[rs2]).select(m.x[rs2], m.x[rs1])


@insn("0000101 rs2 rs1 111 rd 0110011", "maxu {rd}, {rs1}, {rs2}")
def maxu(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Maximum, unsigned."""
    m.x[rd] = (m.x[rs1] < m.x[rs2]).select(m.x[rs2], m.x[rs1])


@insn("0000101 rs2 rs1 100 rd 0110011", "min {rd}, {rs1}, {rs2}")
def min_(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Minimum, signed."""
    m.x[rd] = m.x[rs1].slt(m.x[rs2]).select(m.x[rs1], m.x[rs2])


@insn("0000101 rs2 rs1 101 rd 0110011", "minu {rd}, {rs1}, {rs2}")
def minu(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Minimum, unsigned."""
    m.x[rd] = (m.x[rs1] < m.x[rs2]).select(m.x[rs1], m.x[rs2])


@insn("0110000 00100 rs1 001 rd 0010011", "sext.b {rd}, {rs1}")
def sext_b(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Extend a byte with its sign."""
    m.x[rd] = m.x[rs1, 8].sext(64)


@insn("0110000 00101 rs1 001 rd 0010011", "sext.h {rd}, {rs1}")
def sext_h(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Extend a halfword with its sign."""
    m.x[rd] = m.x[rs1, 16].sext(64)


@insn("0000100 00000 rs1 100 rd 0111011", "zext.h {rd}, {rs1}")
def zext_h(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Extend a halfword with zeros."""
    m.x[rd] = m.x[rs1, 16].zext(64)


@insn("0110000 rs2 rs1 001 rd 0110011", "rol {rd}, {rs1}, {rs2}")
def rol(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Rotate left."""
    m.x[rd] = m.x[rs1].rol(m.x[rs2])


@insn("0110000 rs2 rs1 101 rd 0110011", "ror {rd}, {rs1}, {rs2}")
def ror(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Rotate right."""
    m.x[rd] = m.x[rs1].ror(m.x[rs2])


@insn("011000 shamt rs1 101 rd 0010011", "rori {rd}, {rs1}, {shamt}")
def rori(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Rotate right by an immediate."""
    m.x[rd] = m.x[rs1].ror(shamt)


@insn("0110000 rs2 rs1 001 rd 0111011", "rolw {rd}, {rs1}, {rs2}")
def rolw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Rotate a word left."""
    m.x[rd] = m.x[rs1, 32].rol(m.x[rs2, 32]).sext(64)


@insn("0110000 rs2 rs1 101 rd 0111011", "rorw {rd}, {rs1}, {rs2}")
def rorw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Rotate a word right."""
    m.x[rd] = m.x[rs1, 32].ror(m.x[rs2, 32]).sext(64)


@insn("0110000 shamt:5 rs1 101 rd 0011011", "roriw {rd}, {rs1}, {shamt}")
def roriw(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Rotate a word right by an immediate."""
    m.x[rd] = m.x[rs1, 32].ror(shamt.trunc(32)).sext(64)


@insn("001010000111 rs1 101 rd 0010011", "orc.b {rd}, {rs1}")
def orc_b(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Set all bits of every byte that is not zero."""
    ones, zeros = Concrete(0xFF, 8), Concrete(0, 8)
    m.x[rd] = join([(byte != 0).select(ones, zeros) for byte in m.x[rs1].lanes(8)])


@insn("011010111000 rs1 101 rd 0010011", "rev8 {rd}, {rs1}")
def rev8(m: Machine, rs1: Bits, rd: Bits) -> None:
    """Reverse the order of the bytes."""
    m.x[rd] = m.x[rs1].bswap()
