"""Zbs, single-bit instructions (unprivileged ISA manual 20240411, chapter 28)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits, Concrete
from anyarch.isa.machine import Machine


def _bit(number: Bits) -> Bits:
    return Concrete(1, 64) << (number & 63)


@insn("0100100 rs2 rs1 001 rd 0110011", "bclr {rd}, {rs1}, {rs2}")
def bclr(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Clear a bit."""
    m.x[rd] = m.x[rs1] & ~_bit(m.x[rs2])


@insn("010010 shamt rs1 001 rd 0010011", "bclri {rd}, {rs1}, {shamt}")
def bclri(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Clear an immediate bit."""
    m.x[rd] = m.x[rs1] & ~_bit(shamt)


@insn("0100100 rs2 rs1 101 rd 0110011", "bext {rd}, {rs1}, {rs2}")
def bext(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Extract a bit."""
    m.x[rd] = m.x[rs1] >> (m.x[rs2] & 63) & 1


@insn("010010 shamt rs1 101 rd 0010011", "bexti {rd}, {rs1}, {shamt}")
def bexti(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Extract an immediate bit."""
    m.x[rd] = m.x[rs1] >> shamt & 1


@insn("0110100 rs2 rs1 001 rd 0110011", "binv {rd}, {rs1}, {rs2}")
def binv(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Invert a bit."""
    m.x[rd] = m.x[rs1] ^ _bit(m.x[rs2])


@insn("011010 shamt rs1 001 rd 0010011", "binvi {rd}, {rs1}, {shamt}")
def binvi(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Invert an immediate bit."""
    m.x[rd] = m.x[rs1] ^ _bit(shamt)


@insn("0010100 rs2 rs1 001 rd 0110011", "bset {rd}, {rs1}, {rs2}")
def bset(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Set a bit."""
    m.x[rd] = m.x[rs1] | _bit(m.x[rs2])


@insn("001010 shamt rs1 001 rd 0010011", "bseti {rd}, {rs1}, {shamt}")
def bseti(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Set an immediate bit."""
    m.x[rd] = m.x[rs1] | _bit(shamt)
