"""Zbc, carry-less multiplication (unprivileged ISA manual 20240411, chapter 28)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@insn("0000101 rs2 rs1 001 rd 0110011", "clmul {rd}, {rs1}, {rs2}")
def clmul(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Carry-less product, low half."""
    m.x[rd] = m.x[rs1].clmul(m.x[rs2]).trunc(64)


@insn("0000101 rs2 rs1 011 rd 0110011", "clmulh {rd}, {rs1}, {rs2}")
def clmulh(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Carry-less product, high half."""
    m.x[rd] = m.x[rs1].clmul(m.x[rs2])[64:]


@insn("0000101 rs2 rs1 010 rd 0110011", "clmulr {rd}, {rs1}, {rs2}")
def clmulr(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Carry-less product, bits 126 to 63: the product of bit-reversed operands, reversed."""
    m.x[rd] = m.x[rs1].clmul(m.x[rs2]).extract(63, 64)
