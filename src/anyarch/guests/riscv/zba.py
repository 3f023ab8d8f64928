"""Zba, address generation (unprivileged ISA manual 20240411, chapter 28)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@insn("0000100 rs2 rs1 000 rd 0111011", "add.uw {rd}, {rs1}, {rs2}")
def add_uw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Add an unsigned word."""
    m.x[rd] = m.x[rs1, 32].zext(64) + m.x[rs2]


@insn("0010000 rs2 rs1 010 rd 0110011", "sh1add {rd}, {rs1}, {rs2}")
def sh1add(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift left by 1 and add."""
    m.x[rd] = (m.x[rs1] << 1) + m.x[rs2]


@insn("0010000 rs2 rs1 100 rd 0110011", "sh2add {rd}, {rs1}, {rs2}")
def sh2add(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift left by 2 and add."""
    m.x[rd] = (m.x[rs1] << 2) + m.x[rs2]


@insn("0010000 rs2 rs1 110 rd 0110011", "sh3add {rd}, {rs1}, {rs2}")
def sh3add(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift left by 3 and add."""
    m.x[rd] = (m.x[rs1] << 3) + m.x[rs2]


@insn("0010000 rs2 rs1 010 rd 0111011", "sh1add.uw {rd}, {rs1}, {rs2}")
def sh1add_uw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift an unsigned word left by 1 and add."""
    m.x[rd] = (m.x[rs1, 32].zext(64) << 1) + m.x[rs2]


@insn("0010000 rs2 rs1 100 rd 0111011", "sh2add.uw {rd}, {rs1}, {rs2}")
def sh2add_uw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift an unsigned word left by 2 and add."""
    m.x[rd] = (m.x[rs1, 32].zext(64) << 2) + m.x[rs2]


@insn("0010000 rs2 rs1 110 rd 0111011", "sh3add.uw {rd}, {rs1}, {rs2}")
def sh3add_uw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift an unsigned word left by 3 and add."""
    m.x[rd] = (m.x[rs1, 32].zext(64) << 3) + m.x[rs2]


@insn("000010 shamt rs1 001 rd 0011011", "slli.uw {rd}, {rs1}, {shamt}")
def slli_uw(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift an unsigned word left by an immediate."""
    m.x[rd] = m.x[rs1, 32].zext(64) << shamt
